/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `rebase`: another backing file.  What a guest sees stays as it is: where the new backing file holds something else than the
 * old one, the old content comes into the image before the pointer changes.  With -u only the pointer changes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/path.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "img/command.h"
#include "img/status.h"

#define CHUNK_MAX (2u << 20)

struct rebase {
    const char *filename, *base, *base_format; /* base "": none */
    const char *source_cache;
    bool unsafe, share;
    struct node *node;
    struct node *old, *new; /* what lies below, NULL: nothing.  `old` is node's, `new` ours */
    uint8_t *old_buf, *new_buf;
    struct img_progress progress;
};

static int co_open_new(struct rebase *r)
{
    AUTOFREE char *full = path_combine(r->node->filename, r->base);
    json_t *options = json_pack("{s:b}", "read-only", 1);
    struct error err = ERROR_INIT;

    if (r->base_format) {
        json_object_set_new(options, "driver", json_string(r->base_format));
    }
    if (r->share) {
        json_object_set_new(options, "force-share", json_true());
    }
    if (r->source_cache) {
        json_object_set_new(options, "cache", img_cache_options(r->source_cache));
    }
    r->new = co_node_open(full, options, &err);
    json_decref(options);
    if (!r->new) {
        error_prepend(&err, "Could not open new backing file '%s': ", r->base);
        img_complain_error(&err);
        return -1;
    }
    return 0;
}

/* The content of a backing file, zeroes behind its end. */
static int co_load(struct node *below, uint64_t offset, uint8_t *buf, uint64_t len)
{
    uint64_t has = below && offset < below->size ? MIN(len, below->size - offset) : 0;

    memset(buf + has, 0, len - has);
    return has ? co_node_read_buf(below, offset, buf, has) : 0;
}

static bool sector_differs(const struct rebase *r, uint64_t at, uint64_t len)
{
    return memcmp(r->old_buf + at, r->new_buf + at, MIN(len - at, (uint64_t)NODE_SECTOR));
}

/* Bring in [at, end) of a chunk of `len` bytes that this image does not hold.  Zeroes need no room, but they must be the image's
 * own: what lay below is not what will.  Without an old backing file whole clusters of the chunk are zero. */
static int co_bring_run(const struct rebase *r, uint64_t offset, uint64_t len, uint64_t at, uint64_t end)
{
    uint64_t from = offset + at, to = offset + end, unit = r->node->cluster_size;

    if (!bytes_are_zero(r->old_buf + at, end - at)) {
        return co_node_write_buf(r->node, from, r->old_buf + at, end - at);
    }
    if (!r->old) {
        from = MAX(offset, ROUND_DOWN(from, unit));
        to = MIN(offset + len, ROUND_UP(to, unit));
    }
    return co_node_zero(r->node, from, to - from, NODE_ZERO_STAYS);
}

/* Bring in the runs of sectors in which the two differ. */
static int co_write_differences(const struct rebase *r, uint64_t offset, uint64_t len)
{
    int ret = 0;

    for (uint64_t at = 0, end; ret == 0 && at < len; at = end) {
        bool differs = sector_differs(r, at, len);

        end = at;
        do {
            end = MIN(len, end + NODE_SECTOR);
        } while (end < len && sector_differs(r, end, len) == differs);
        if (differs) {
            ret = co_bring_run(r, offset, len, at, end);
            if (ret < 0) {
                img_complain("Error while writing to COW image: %s", strerror(-ret));
            }
        }
    }
    return ret;
}

static int co_compare(const struct rebase *r, uint64_t offset, uint64_t len)
{
    int ret = co_load(r->old, offset, r->old_buf, len);

    if (ret < 0) {
        img_complain("error while reading from old backing file");
        return ret;
    }
    ret = co_load(r->new, offset, r->new_buf, len);
    if (ret < 0) {
        img_complain("error while reading from new backing file");
        return ret;
    }
    return co_write_differences(r, offset, len);
}

static int co_bring_in(struct rebase *r)
{
    struct img_chain own;
    struct img_status s;
    int ret = 0;

    img_chain_init(&own, r->node, r->old);
    for (uint64_t at = 0; ret == 0 && at < r->node->size; at += s.len) {
        ret = co_img_status(&own, at, MIN(r->node->size - at, (uint64_t)CHUNK_MAX), &s);
        if (ret < 0) {
            img_complain("error while reading image metadata: %s", strerror(-ret));
        } else if (!s.present) {
            ret = co_compare(r, at, s.len);
        }
        img_progress_set(&r->progress, at + s.len, r->node->size);
    }
    img_chain_free(&own);
    if (ret == 0) {
        ret = co_node_flush(r->node);
        if (ret < 0) {
            img_complain("Error while writing to COW image: %s", strerror(-ret));
        }
    }
    return ret;
}

static int co_change_pointer(const struct rebase *r)
{
    const char *name = *r->base ? r->base : NULL;
    struct error err = ERROR_INIT;
    int ret = -ENOTSUP;

    if (name && r->node->driver->supports_backing && !r->base_format) {
        img_complain("Could not change the backing file to '%s': backing format must be specified", name);
        return -1;
    }
    if (r->node->driver->supports_backing) {
        ret = r->node->driver->co_set_backing(r->node, name, name ? r->base_format : NULL, &err);
    }
    if (ret == -ENOSPC) {
        img_complain("Could not change the backing file to '%s': No space left in the file header", r->base);
    } else if (ret < 0) {
        img_complain("Could not change the backing file to '%s': %s", r->base, strerror(-ret));
    }
    error_clear(&err);
    return ret;
}

/* May the pointer change at all?  Asked before anything is copied. */
static int check_pointer(const struct rebase *r)
{
    if (r->base_format && !driver_find(r->base_format)) {
        img_complain("Invalid format name: '%s'", r->base_format);
        return -1;
    }
    return 0;
}

static int co_rebase(struct rebase *r)
{
    int ret = check_pointer(r);

    r->old = r->node->backing;
    if (!ret && !r->unsafe && *r->base) {
        ret = co_open_new(r);
    }
    if (!ret && !r->unsafe && r->node->driver->supports_backing) {
        r->old_buf = mem_align(4096, CHUNK_MAX);
        r->new_buf = mem_align(4096, CHUNK_MAX);
        ret = co_bring_in(r);
    }
    if (!ret) {
        ret = co_change_pointer(r);
    }
    free(r->old_buf);
    free(r->new_buf);
    co_node_unref(r->new);
    return ret;
}

int co_img_rebase(const struct img_args *args)
{
    struct rebase r = {
        .base = img_value(args, "b"), .base_format = img_value(args, "F"), .source_cache = img_value(args, "T"),
        .unsafe = img_has(args, "u"), .share = img_has(args, "U"),
    };
    struct img_open o = { .writable = true, .no_backing = r.unsafe, .cache = img_value(args, "t") };
    bool progress = img_has(args, "p") && !img_has(args, "q");

    if (args->n_operands != 1) {
        return img_complain_usage("Expecting one image file name");
    }
    if (!r.unsafe && !r.base) {
        return img_complain_usage("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    r.base = r.base ? r.base : "";
    r.filename = o.filename = args->operands[0];
    img_progress_begin(&r.progress, progress, 1);
    int ret = img_open_args(args, &o) < 0 || img_check_cache(o.cache, "Invalid cache option") < 0 ||
              img_check_cache(r.source_cache, "Invalid source cache option") < 0 ? -1 : 0;

    if (!ret) {
        o.share = false; /* -U is for what is only read */
        r.node = co_img_open(&o);
        ret = r.node ? co_rebase(&r) : -1;
    }

    if (!ret) {
        img_progress_set(&r.progress, 1, 1);
    }
    img_progress_end(&r.progress);
    co_node_unref(r.node);
    return ret ? 1 : 0;
}
