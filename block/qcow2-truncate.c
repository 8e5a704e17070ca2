/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for an image.  Called with the node drained.
 *
 *     grow     a longer active L1 table at a new place, if needed: its counts and its entries durable, then the header in
 *              one sector; the old place is unlinked after that
 *              -> what would shine through behind the old end is zeroed, durably
 *              -> the new size in the header
 *     shrink   clusters behind the new end are unlinked, durably
 *              -> the new size in the header
 *
 * A crash leaves the old size or the new one; an image that was to shrink may have the old size and zeroes (or its backing
 * file's content) behind the new end.  Nothing that was there once ever comes back by growing again.
 */
#include "block/qcow2.h"

#include <errno.h>

#include "block/chain-map.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

/* --- A longer L1 table -------------------------------------------------------------------------------------------- */

static int co_write_l1(struct qcow2 *q, uint64_t place, uint64_t entries, uint64_t clusters)
{
    AUTOFREE uint8_t *bytes = mem_try_calloc(clusters, q->cluster_size);

    if (!bytes) {
        return -ENOMEM;
    }
    node_debug_event(q->node, EVENT_L1_GROW_WRITE_TABLE);
    for (uint64_t i = 0; i < MIN(entries, (uint64_t)q->h.l1_size); i++) {
        store_be64(bytes + i * 8, q->l1[i]);
    }
    return co_io_write(q->file, place, bytes, clusters * q->cluster_size);
}

/* In memory; entries are zero from the old end on. */
static void resize_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t old = q->h.l1_size;

    q->l1 = mem_reallocarray(q->l1, entries + 1, sizeof(*q->l1));
    memset(q->l1 + old, 0, (entries - old + 1) * sizeof(*q->l1));
    free(q->l1_dirty); /* nothing is dirty */
    q->l1_dirty = mem_zalloc(entries / 64 / 8 + 1);
}

static int co_alloc(struct qcow2 *q, uint64_t clusters, uint64_t *place)
{
    int ret = co_qcow2_guard_build(q);

    co_mutex_lock(&q->lock);
    if (!ret) {
        ret = co_qcow2_alloc_exact(q, clusters, place);
    }
    co_mutex_unlock(&q->lock);
    return ret;
}

static int co_grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t clusters = DIV_ROUND_UP(entries * 8, (uint64_t)q->cluster_size), place, old = q->h.l1_offset;
    uint64_t old_bytes = ROUND_UP((uint64_t)q->h.l1_size * 8, (uint64_t)q->cluster_size);
    uint32_t old_entries = q->h.l1_size;
    int ret = co_qcow2_writeback_all(q); /* the table on disk is the one in memory */

    qcow2_refs(q)->held += clusters;
    node_debug_event(q->node, EVENT_L1_GROW_ALLOC_TABLE);
    if (!ret) {
        ret = co_alloc(q, clusters, &place);
    }
    if (!ret) {
        ret = co_write_l1(q, place, entries, clusters);
    }
    if (!ret) {
        ret = co_qcow2_writeback_all(q); /* its counts */
    }
    if (ret) {
        qcow2_refs(q)->held -= clusters;
        return ret;
    }
    resize_l1(q, entries);
    q->h.l1_offset = place;
    q->h.l1_size = entries;
    node_debug_event(q->node, EVENT_L1_GROW_ACTIVATE_TABLE);
    ret = co_qcow2_write_header_sector(q); /* flushes before */
    if (ret) {                              /* whichever stands on disk is whole; the new place may leak */
        q->h.l1_offset = old;
        q->h.l1_size = old_entries;
    } else if (old_bytes) {
        qcow2_free_later(q, old, old_bytes);
    }
    qcow2_refs(q)->held -= clusters;
    return ret;
}

/* --- Size --------------------------------------------------------------------------------------------------------- */

static int co_set_size(struct qcow2 *q, uint64_t size, struct error *err)
{
    uint64_t before = q->h.size;
    int ret = co_qcow2_writeback_all(q);

    if (!ret) {
        q->h.size = size;
        ret = co_qcow2_write_header_sector(q);
    }
    if (ret) {
        q->h.size = before;
        error_set_errno(err, ret, "Failed to update the image size");
    }
    return ret;
}

/* What a guest would see behind the old end although it never wrote it: the backing file, the rest of the last cluster. */
static int co_zero_new(struct qcow2 *q, uint64_t old, uint64_t size)
{
    uint64_t below = q->node->backing ? q->node->backing->size : q->node->backing_name ? size : 0;
    uint64_t end = MIN(size, MAX(below, ROUND_UP(old, (uint64_t)q->cluster_size)));

    return old < end ? co_qcow2_zero(q->node, old, end - old, NODE_MAY_UNMAP) : 0;
}

static int co_grow(struct qcow2 *q, uint64_t size, struct error *err)
{
    struct node *node = q->node;
    uint64_t entries = qcow2_l1_entries(q, size), old = node->size;
    int ret = 0;

    if (entries * 8 > QCOW2_MAX_L1_BYTES) {
        error_set_errno(err, EFBIG, "Failed to grow the L1 table");
        return -EFBIG;
    }
    if (entries > q->h.l1_size) {
        ret = co_grow_l1(q, entries);
        if (ret) {
            error_set_errno(err, ret, "Failed to grow the L1 table");
            return ret;
        }
    }
    node->size = size;
    chain_map_forget_layer(node); /* they hold zeroes behind the old end */
    ret = co_zero_new(q, old, size);
    if (ret) {
        error_set_errno(err, ret, "Failed to zero out new clusters");
    } else {
        ret = co_set_size(q, size, err);
    }
    if (ret) {
        node->size = old;
    }
    return ret;
}

static int co_shrink(struct qcow2 *q, uint64_t size, struct error *err)
{
    struct node *node = q->node;
    uint64_t from = ROUND_UP(size, (uint64_t)q->cluster_size);
    int ret = from < node->size ? co_qcow2_discard_all(node, from, node->size - from) : 0;

    if (ret) {
        error_set_errno(err, ret, "Failed to discard cropped clusters");
        return ret;
    }
    ret = co_set_size(q, size, err);
    if (!ret) {
        node->size = size;
    }
    return ret;
}

int co_qcow2_truncate(struct node *node, uint64_t size, struct error *err)
{
    struct qcow2 *q = node->state;

    if (size % NODE_SECTOR) {
        error_set(err, "The new size must be a multiple of %u", NODE_SECTOR);
        return -EINVAL;
    }
    if (q->h.nb_snapshots && q->h.version < 3) {
        error_set(err, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (size == node->size) {
        return 0;
    }
    return size > node->size ? co_grow(q, size, err) : co_shrink(q, size, err);
}
