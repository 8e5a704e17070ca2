/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Refcount blocks, and the table that says where they are.
 *
 * A new block is written to its cluster at once, while nothing points there, and linked in memory.
 * The table's entry follows with the generation, after a flush, so on disk it never points to a
 * block that is not there yet.  A block whose own cluster lies in the range that it describes is
 * born with its own count; otherwise an older block counts it first.
 *
 * A table that is full grows in memory and gets a new place; the old one stays valid on disk until
 * the generation has
 *
 *     written the refcount blocks    (those of the new range describe each other and the new place)
 *     written the whole table        at its new place
 *     switched the header            one sector, with a flush before and after
 *
 * and only then are the old clusters unlinked.  Whichever header a crash leaves, its table is
 * whole.
 */
#include "block/qcow2-refcount.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "core/bytes.h"
#include "core/mem.h"

#define ENTRIES_PER_SECTOR (NODE_SECTOR / 8)

struct qcow2_reftable_copy {
    struct qcow2_table_copy table;
    uint64_t place, place_clusters; /* moves there; 0: dirty sectors of the table where it is */
};

static uint64_t entries_max(const struct qcow2 *q)
{
    return ROUND_DOWN(QCOW2_MAX_REFTABLE_BYTES, q->cluster_size) / 8;
}

uint64_t qcow2_reftable_limit(const struct qcow2 *q)
{
    uint64_t entries = MAX(entries_max(q), q->reftable_entries);

    return MIN(entries * q->refblock_entries, QCOW2_HOST_LIMIT / q->cluster_size);
}

int co_qcow2_refblock(struct qcow2 *q, uint64_t t, uint64_t *offset)
{
    *offset = t < q->reftable_entries ? q->reftable[t] & QCOW2_REFTABLE_OFFSET_MASK : 0;
    if (*offset % q->cluster_size != 0 || *offset >= QCOW2_HOST_LIMIT) {
        return co_qcow2_signal_corruption(
            q, true, -1, -1,
            "Refblock offset %#" PRIx64 " unaligned (reftable index: %#" PRIx64 ")", *offset, t);
    }
    return *offset / q->cluster_size < q->file_end ? 0 : co_qcow2_check_end(q, *offset, "Refblock");
}

/* --- Growing -------------------------------------------------------------------------------- */

static uint64_t dirty_bytes(uint64_t entries)
{
    return entries / ENTRIES_PER_SECTOR / 8 + 1;
}

static void mark_dirty(struct qcow2 *q, uint64_t t)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    uint64_t sector = t / ENTRIES_PER_SECTOR;

    if (!refs->table_dirty) {
        refs->table_dirty = mem_zalloc(dirty_bytes(q->reftable_entries));
    }
    refs->table_dirty[sector / 8] |= 1u << sector % 8;
    refs->table_dirty_any = true;
}

static void resize(struct qcow2 *q, uint64_t entries)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    uint64_t old = q->reftable_entries;

    q->reftable = mem_reallocarray(q->reftable, entries, sizeof(*q->reftable));
    memset(q->reftable + old, 0, (entries - old) * sizeof(*q->reftable));
    if (refs->table_dirty) {
        refs->table_dirty = mem_realloc(refs->table_dirty, dirty_bytes(entries));
        memset(refs->table_dirty + dirty_bytes(old), 0, dirty_bytes(entries) - dirty_bytes(old));
    }
    q->reftable_entries = entries;
}

int co_qcow2_reftable_place(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    int ret;

    assert(refs->place_clusters > 0 && refs->place == 0 && !refs->placing);
    refs->placing = true;
    ret = co_qcow2_alloc_exact(q, refs->place_clusters, &refs->place);
    refs->placing = false;
    return ret;
}

/* Make room for entry `t` and those that `upto` clusters need, and half as much again. */
static int co_grow(struct qcow2 *q, uint64_t t, uint64_t upto)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    uint64_t per_cluster = q->cluster_size / 8;
    uint64_t need = MAX(t, upto / q->refblock_entries) + 1;
    uint64_t entries = need + need / 2;

    node_debug_event(q->node, EVENT_REFTABLE_GROW);
    if (refs->placing) {
        return -EFBIG; /* cannot be with half of the table empty, but never recurse */
    }
    /* The table's own clusters and the blocks that describe them come on top; twice, as they may
     * lie apart. */
    uint64_t own = 2 * (DIV_ROUND_UP(entries, per_cluster) / q->refblock_entries + 2);
    entries = MIN(ROUND_UP(entries + own, per_cluster), entries_max(q));
    if (need + own > entries) {
        return -EFBIG;
    }
    if (refs->place != 0 && !(refs->copy && refs->copy->place == refs->place)) {
        /* Outgrown before it was used. */
        int ret = co_qcow2_free_unlinked(q, refs->place, refs->place_clusters);
        if (ret < 0) {
            return ret;
        }
    }
    resize(q, entries);
    refs->place = 0;
    refs->place_clusters = entries / per_cluster;
    return co_qcow2_reftable_place(q);
}

/* --- Blocks --------------------------------------------------------------------------------- */

int co_qcow2_refcount_set(struct qcow2 *q, uint64_t index, uint64_t count)
{
    uint32_t size = qcow2_cache_piece_size(q->ref_cache);
    uint64_t per_piece = (uint64_t)size * 8 >> q->h.refcount_order;
    uint64_t within = index % q->refblock_entries, block;
    struct qcow2_piece *piece;
    int ret = co_qcow2_refblock(q, index / q->refblock_entries, &block);

    if (ret == 0) {
        assert(block != 0);
        ret = co_qcow2_cache_get(q->ref_cache, block + within / per_piece * size, &piece);
    }
    if (ret == 0) {
        qcow2_refcount_store(q, piece->data, within % per_piece, count);
        qcow2_is_loose(q, 1);
        qcow2_cache_mark_dirty(q->ref_cache, piece);
        qcow2_cache_put(q->ref_cache, piece);
    }
    return ret;
}

static int co_write_block(struct qcow2 *q, uint64_t t, uint64_t at)
{
    AUTOFREE uint8_t *block = mem_zalloc(q->cluster_size);

    node_debug_event(q->node, EVENT_REFBLOCK_ALLOC_WRITE);
    if (at / q->refblock_entries == t) {
        qcow2_refcount_store(q, block, at % q->refblock_entries, 1);
        qcow2_is_loose(q, 1);
    }
    return co_io_write(q->file, at * q->cluster_size, block, q->cluster_size);
}

int co_qcow2_refblock_create(struct qcow2 *q, uint64_t t, uint64_t at, uint64_t upto)
{
    bool own = at / q->refblock_entries == t;
    uint64_t offset = at * q->cluster_size;

    node_debug_event(q->node, EVENT_REFBLOCK_ALLOC);
    int ret = co_qcow2_guard_check(q, offset, q->cluster_size);

    if (ret < 0) {
        return ret;
    }
    if (t >= q->reftable_entries) {
        ret = co_grow(q, t, upto);
        return ret < 0 ? ret : -EAGAIN;
    }
    if (!own) { /* counted before it is used (Q1) */
        ret = co_qcow2_refcount_set(q, at, 1);
        if (ret < 0) {
            return ret;
        }
    }
    qcow2_cache_forget(q->ref_cache, offset, q->cluster_size);
    ret = co_write_block(q, t, at);
    if (ret < 0) {
        if (!own) {
            co_qcow2_refcount_set(q, at, 0); /* a failure leaks one cluster */
        }
        return ret;
    }
    q->reftable[t] = offset;
    q->file_end = MAX(q->file_end, at + 1);
    mark_dirty(q, t);
    qcow2_guard_add(q, offset, "refcount block");
    return 0;
}

/* --- A generation's part -------------------------------------------------------------------- */

bool qcow2_reftable_dirty(const struct qcow2 *q)
{
    const struct qcow2_refs *refs = q->priv_refcount;

    return refs->table_dirty_any || refs->place != 0;
}

void qcow2_reftable_freeze(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    uint64_t on_disk = (uint64_t)q->h.reftable_clusters * q->cluster_size / 8;
    struct qcow2_reftable_copy *copy;

    assert(!refs->copy);
    if (!qcow2_reftable_dirty(q)) {
        return;
    }
    copy = mem_zalloc(sizeof(*copy));
    if (refs->place != 0) {
        copy->place = refs->place;
        copy->place_clusters = refs->place_clusters;
        for (uint64_t t = 0; t < q->reftable_entries; t += ENTRIES_PER_SECTOR) {
            mark_dirty(q, t);
        }
        on_disk = q->reftable_entries;
    }
    /* A table that has grown but has no place yet: what lies behind the old end describes nothing
     * but itself. */
    qcow2_table_copy(&copy->table, q->reftable, on_disk, refs->table_dirty);
    refs->table_dirty_any = false;
    refs->copy = copy;
}

bool qcow2_reftable_frozen(const struct qcow2 *q)
{
    const struct qcow2_refs *refs = q->priv_refcount;
    return refs->copy != NULL;
}

static int co_move(struct qcow2 *q, struct qcow2_reftable_copy *copy)
{
    uint64_t old_offset = q->h.reftable_offset;
    uint32_t old_clusters = q->h.reftable_clusters;
    int ret;

    node_debug_event(q->node, EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    ret = co_qcow2_table_copy_write(q, &copy->table, copy->place);
    if (ret < 0) {
        return ret;
    }
    node_debug_event(q->node, EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    q->h.reftable_offset = copy->place;
    q->h.reftable_clusters = copy->place_clusters;
    ret = co_qcow2_write_header_sector(q);
    if (ret < 0) { /* whichever it is on disk, it is whole; the next generation tries again */
        q->h.reftable_offset = old_offset;
        q->h.reftable_clusters = old_clusters;
        return ret;
    }
    qcow2_free_with_generation(q, old_offset, (uint64_t)old_clusters * q->cluster_size);
    return 0;
}

int co_qcow2_reftable_write(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    int ret;

    if (refs->copy->place != 0) {
        ret = co_move(q, refs->copy);
        if (ret == 0 && refs->place == refs->copy->place) {
            refs->place = refs->place_clusters = 0;
        }
        return ret;
    }
    ret = q->node->no_flush ? 0 : co_io_flush(q->file);
    if (ret == 0) {
        node_debug_event(q->node, EVENT_REFBLOCK_ALLOC_HOOKUP);
        ret = co_qcow2_table_copy_write(q, &refs->copy->table, q->h.reftable_offset);
    }
    return ret < 0 || q->node->no_flush ? ret : co_io_flush(q->file);
}

void qcow2_reftable_done(struct qcow2 *q, bool written)
{
    struct qcow2_refs *refs = qcow2_refs(q);

    if (!refs->copy) {
        return;
    }
    if (!written) {
        qcow2_table_copy_thaw(&refs->copy->table, refs->table_dirty);
        refs->table_dirty_any = true;
    }
    qcow2_table_copy_free(&refs->copy->table);
    free(refs->copy);
    refs->copy = NULL;
}
