/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * raw: the file's bytes are the guest's, or with `offset` and `size` a part of them.  Every operation goes on to the file
 * child; what is left is the size, and the answer to "where is it?" that lets the chain map point straight into the file.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/node.h"
#include "core/mem.h"

#define FULL_STEP (1u << 20) /* bytes of zeroes in one write */

static int raw_probe(const uint8_t *head, size_t len, const char *filename)
{
    return 1; /* anything is raw, if nothing else claims it */
}

struct raw {
    uint64_t offset; /* bytes of the file before our first */
    bool sized;      /* `size` was given: it stays */
};

static int take_place(struct node *node, struct raw *s, struct error *err)
{
    uint64_t file = node->file->size, size = UINT64_MAX;

    if (node_option_size(node, "offset", &s->offset, err) < 0 || node_option_size(node, "size", &size, err) < 0) {
        return -EINVAL;
    }
    s->sized = size != UINT64_MAX;
    if (s->offset > file) {
        error_set(err, "Offset (%" PRIu64 ") cannot be greater than size of the containing file (%" PRIu64 ")", s->offset, file);
    } else if (s->sized && file - s->offset < size) {
        error_set(err, "The sum of offset (%" PRIu64 ") and size (%" PRIu64 ") has to be smaller or equal to the  actual size "
                  "of the containing file (%" PRIu64 ")", s->offset, size, file);
    } else if (s->sized && size % NODE_SECTOR) {
        error_set(err, "Specified size is not multiple of %u", NODE_SECTOR);
    } else {
        node->size = ROUND_UP(s->sized ? size : file - s->offset, NODE_SECTOR);
        return 0;
    }
    return -EINVAL;
}

/* The file has another size: it grows by being written beyond its end. */
static void raw_follow_size(struct node *node)
{
    const struct raw *s = node->state;

    if (!s->sized) {
        node->size = ROUND_UP(node->file->size - MIN(node->file->size, s->offset), NODE_SECTOR);
    }
}

static int co_raw_open(struct node *node, struct error *err)
{
    struct raw *s = mem_zalloc(sizeof(*s));

    if (take_place(node, s, err) < 0) {
        free(s);
        return -EINVAL;
    }
    node->state = s;
    node->cluster_size = NODE_SECTOR;
    return 0;
}

static void co_raw_close(struct node *node)
{
    free(node->state);
    node->state = NULL;
}

static uint64_t place(const struct node *node, uint64_t offset)
{
    return offset + ((struct raw *)node->state)->offset;
}

/* On the way to read-only: what was written while the node was writable is durable from now on, so that an overlay need not
 * flush what lies below it. */
static int co_raw_set_writable(struct node *node, bool writable, struct error *err)
{
    int ret = writable || node->no_flush ? 0 : co_driver_flush(node->file);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not flush '%s'", node->filename);
    }
    return ret;
}

static int co_raw_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    uint64_t at = place(node, offset);

    /* Holes that a guest fills would have to be patched in: all is data then. */
    if (node->read_only && node->file->driver->is_protocol && node->file->driver->co_map) {
        return node->file->driver->co_map(node->file, at, len, out);
    }
    *out = (struct extent){ .kind = EXTENT_DATA, .len = len, .host = at };
    return 0;
}

/* A part of a file ends where it ends: nobody may make the file shorter. */
static void raw_adjust_permissions(const struct node *node, struct node_perm *below)
{
    const struct raw *s = node->state;

    if (s && (s->offset || s->sized)) {
        below->shared &= ~(unsigned)IO_PERM_RESIZE;
    }
}

static struct io_file *raw_host_file(struct node *node)
{
    return node_as_file(node->file);
}

static int co_raw_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    return co_io_readv(raw_host_file(node), place(node, offset), iov, n);
}

/* A file is written as any other node below would be. */
static int co_raw_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    node_debug_event(node, EVENT_WRITE_AIO);

    int ret = node->file->driver->co_write(node->file, place(node, offset), iov, n);

    raw_follow_size(node);
    return ret;
}

static int co_raw_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    int ret = node->file->driver->co_zero(node->file, place(node, offset), len, flags);

    raw_follow_size(node);
    return ret;
}

static int co_raw_discard(struct node *node, uint64_t offset, uint64_t len)
{
    return node->file->driver->co_discard(node->file, place(node, offset), len);
}

static int co_raw_truncate(struct node *node, uint64_t size, struct error *err)
{
    struct raw *s = node->state;
    int ret;

    if (s->sized) {
        error_set(err, "Cannot resize fixed-size raw disks");
        return -ENOTSUP;
    }
    if (size > INT64_MAX - s->offset) {
        error_set(err, "Disk size too large for the chosen offset");
        return -EINVAL;
    }
    if (!node->file->driver->co_truncate) {
        error_set(err, "Image format driver does not support resize");
        return -ENOTSUP;
    }
    ret = node->file->driver->co_truncate(node->file, s->offset + size, err);
    if (ret == 0) {
        raw_follow_size(node);
        ret = co_driver_flush(node->file); /* success is said when it stays */
        if (ret < 0) {
            error_set_errno(err, ret, "Failed to flush the resized file");
        }
    }
    return ret;
}

/* --- Making ------------------------------------------------------------------------------------------------ */

enum raw_preallocation { RAW_OFF, RAW_FALLOC, RAW_FULL };

static int take_preallocation(json_t *options, enum raw_preallocation *how, struct error *err)
{
    static const char *const words[] = { "off", "falloc", "full" };
    json_t *value = json_object_get(options, "preallocation");
    const char *word = value ? json_string_value(value) : words[RAW_OFF];

    for (size_t i = 0; word && i < ARRAY_SIZE(words); i++) {
        if (!strcmp(word, words[i])) {
            *how = i;
            return 0;
        }
    }
    if (word && !strcmp(word, "metadata")) {
        error_set(err, "Unsupported preallocation mode: %s", word);
    } else {
        error_set(err, "invalid parameter value: %s", word ? word : "");
    }
    return -EINVAL;
}

static int lock_new(struct io_file *file, const char *path, struct error *err)
{
    unsigned bad = 0;
    bool bad_shared = false;
    int ret = io_file_lock(file, IO_PERM_WRITE | IO_PERM_RESIZE, IO_PERM_ALL & ~IO_PERM_RESIZE, &bad, &bad_shared);

    if (ret == -EAGAIN) {
        error_set(err, "Failed to get %s\"%s\" lock", bad_shared ? "shared " : "",
                  bad == IO_PERM_WRITE ? "write" : "resize");
        error_hint(err, "Is another process using the image [%s]?", path);
    } else if (ret < 0) {
        error_set_errno(err, ret, "Failed to lock '%s'", path);
    }
    return ret;
}

static int co_fill(struct io_file *file, uint64_t size, enum raw_preallocation how, struct error *err)
{
    int ret = co_io_truncate(file, 0);

    if (ret == 0) {
        ret = co_io_truncate(file, size);
    }
    if (ret < 0) {
        error_set_errno(err, ret, "Could not resize file");
        return ret;
    }
    if (how == RAW_FALLOC && size) {
        ret = co_io_allocate(file, 0, size);
    } else if (how == RAW_FULL) {
        AUTOFREE uint8_t *zeroes = mem_zalloc(FULL_STEP);

        for (uint64_t at = 0; ret == 0 && at < size; at += FULL_STEP) {
            ret = co_io_write(file, at, zeroes, MIN(size - at, (uint64_t)FULL_STEP));
        }
    }
    if (ret == 0) {
        ret = co_io_flush(file);
    }
    if (ret < 0) {
        error_set_errno(err, ret, how == RAW_FALLOC ? "Could not preallocate new data"
                                                    : "Could not write zeros for preallocation");
        co_io_truncate(file, 0); /* a full disk is given back what was taken; if that fails, too, the error is said already */
    }
    return ret;
}

static int co_raw_create(const char *path, json_t *options, struct error *err)
{
    json_t *value = json_object_get(options, "size");
    uint64_t size = json_is_integer(value) ? ROUND_UP((uint64_t)json_integer_value(value), NODE_SECTOR) : 0;
    enum raw_preallocation how;
    struct io_file *file;
    int ret;

    assert(!json_object_get(options, "backing_file")); /* refused by who asks, as for all formats without */
    ret = take_preallocation(options, &how, err);
    if (ret < 0) {
        return ret;
    }
    ret = co_io_open(NULL, path, IO_RDWR | IO_CREATE, &file);
    if (ret < 0) {
        error_set_errno(err, ret, "Could not create '%s'", path);
        return ret;
    }
    ret = lock_new(file, path, err);
    if (ret == 0) {
        ret = co_fill(file, size, how, err);
    }
    co_io_close(file);
    if (ret == 0) {
        ret = co_io_sync_dir(path);
        if (ret < 0) {
            error_set_errno(err, ret, "Could not make the name of '%s' durable", path);
        }
    }
    return ret;
}

static const struct block_key raw_keys[] = {
    BLOCK_KEY_FILE,
    { .name = "offset", .kind = KEY_SIZE, .help = "where in the file it begins, in bytes" },
    { .name = "size", .kind = KEY_SIZE, .help = "bytes of the file that it has; all unless given" },
    { 0 },
};

const struct driver driver_raw = {
    .name = "raw",
    .keys = raw_keys,
    .own_reopen = true,
    .is_format = true,
    .passes_permissions = true,
    .adjust_permissions = raw_adjust_permissions,
    .probe = raw_probe,
    .co_open = co_raw_open,
    .co_close = co_raw_close,
    .co_set_writable = co_raw_set_writable,
    .co_read = co_raw_read,
    .co_write = co_raw_write,
    .co_zero = co_raw_zero,
    .co_discard = co_raw_discard,
    .co_map = co_raw_map,
    .host_file = raw_host_file,
    .follow_size = raw_follow_size,
    .co_truncate = co_raw_truncate,
    .co_create = co_raw_create,
};
