/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copy on read: see copy-on-read.h.  The work is the copier's (copier.h), a window as large as the request.
 *
 * An error of the copy is the reader's, as in QEMU: who asked for copies is to know that there are none.
 */
#include "block/copy-on-read.h"

#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/copier.h"
#include "block/filter.h"
#include "core/bytes.h"
#include "core/mem.h"

/* --- Copying ------------------------------------------------------------------------------------------ */

int co_copy_on_read(struct node *node, uint64_t offset, uint64_t len, struct node *bottom)
{
    struct copier c;
    int ret = 0;

    if (!node->driver->supports_backing) {
        return 0;
    }
    copier_init(&c, node, bottom ? bottom->backing : NULL);
    c.zeroes_too = c.nested = true;
    c.offset = offset;
    c.end = offset + len;
    while (c.offset < c.end && ret == 0) {
        uint64_t at, part;

        co_copier_next(&c, COPIER_WINDOW_MAX, &at, &part);
        if (part) {
            node_debug_event(node, EVENT_COR_WRITE);
            ret = co_copier_fill(&c, at, part);
        }
    }
    copier_fini(&c);
    return ret;
}

/* --- The filter ----------------------------------------------------------------------------------------- */

struct cor {
    const char *name;    /* of the bottom, in the node's options; NULL: none is wanted */
    struct node *bottom; /* owned reference; NULL: all that lies below */
};

static int cor_look_below(struct node *node, struct error *err)
{
    struct cor *s = node->state;
    struct node *bottom = s->name ? node_find(s->name) : NULL, *top = filter_skip(node->file);
    const char *name = s->name;

    if (!name || s->bottom) {
        return 0;
    }
    if (!bottom) {
        error_set(err, "Bottom node '%s' not found", name);
        return -EINVAL;
    }
    if (bottom->driver->is_filter) {
        error_set(err, "Bottom node '%s' is a filter", name);
        return -EINVAL;
    }
    if (node_depth(top, bottom) < 0) {
        error_set(err, "Bottom node '%s' is not in the backing chain of '%s'", name, node->file->name);
        return -EINVAL;
    }
    s->bottom = node_ref(bottom);
    return 0;
}

static int co_cor_open(struct node *node, struct error *err)
{
    struct cor *s = mem_zalloc(sizeof(*s));

    s->name = node_option_str(node, "bottom");
    node->state = s;
    filter_open(node);
    return 0;
}

static void co_cor_close(struct node *node)
{
    struct cor *s = node->state;

    node->state = NULL;
    co_node_unref(s->bottom);
    free(s);
}

static int co_cor_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    struct cor *s = node->state;
    struct node *image = filter_skip(node->file);
    int ret;

    node_hold_map(image);
    ret = co_copy_on_read(image, offset, iov_size(iov, n), s->bottom);

    return ret ? ret : co_filter_read(node, offset, iov, n);
}

/* What it keeps it writes; the content stays the same. */
static void cor_adjust_permissions(const struct node *node, struct node_perm *below)
{
    below->used |= node->read_only ? 0 : IO_PERM_WRITE_UNCHANGED;
}

static const struct block_key cor_keys[] = {
    BLOCK_KEY_FILE,
    { .name = "bottom", .kind = KEY_STRING, .help = "the lowest node whose content is kept; all unless given" },
    { 0 },
};

const struct driver driver_copy_on_read = {
    .name = "copy-on-read",
    .is_filter = true,
    .passes_permissions = true,
    .no_reopen = true,
    .adjust_permissions = cor_adjust_permissions,
    .keys = cor_keys,
    .co_open = co_cor_open,
    .co_close = co_cor_close,
    .look_below = cor_look_below,
    .co_read = co_cor_read,
    .co_write = co_filter_write,
    .co_zero = co_filter_zero,
    .co_discard = co_filter_discard,
    .co_flush = co_filter_flush,
    .co_truncate = co_filter_truncate,
};
