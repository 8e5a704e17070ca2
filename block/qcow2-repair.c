/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Make the reference counts of an image right again: what the dirty bit asks for before the first
 * write.
 *
 *     count        follow everything in the image (qcow2-check.c); what cannot be ends the repair
 *                  with nothing changed
 *     compare      counts that agree already stay as they are
 *     new counts   else a new reference count table and new blocks, behind the end of the file;
 *                  flush
 *     header       point to them, in one sector; flush
 *     flags        COPIED (bit 63) in the active L1 and L2 tables exactly where the count is one
 *                  (Q4); flush
 *     header       clear the dirty bit; flush
 *
 * Until the last step the dirty bit stands: a crash at any moment leaves an image that will be
 * repaired at the next open, with the old counts or with the new ones, and neither is believed.
 * The old structures become free space.
 *
 * NEEDSWORK: a block device has nothing behind its end; decide whether to look for a free run inside
 * of the image when the host says ENOSPC.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "block/qcow2-check.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

#define L1_PART 8192u /* entries written at once */

/* --- New counts ------------------------------------------------------------------------------- */

/* New structures: the table at cluster `first`, behind it the blocks, those that hold counts above
 * zero. */
struct counts {
    uint64_t first, table_clusters;
    uint64_t entries;  /* of the table that mean something */
    uint64_t *offsets; /* entries: the block's place in the file, 0 for none */
    uint64_t n_blocks;
};

/* Which blocks are needed to count clusters below `end`, and how many?  Fills offsets with
 * marks. */
static void mark_blocks(struct qcow2_check *c, uint64_t end, struct counts *n)
{
    uint64_t per_block = c->q->refblock_entries;

    n->entries = DIV_ROUND_UP(end, per_block);
    n->offsets = mem_reallocarray(n->offsets, n->entries, sizeof(*n->offsets));
    memset(n->offsets, 0, n->entries * sizeof(*n->offsets));
    n->n_blocks = 0;
    bool enough = qcow2_check_mark_blocks(c, n->offsets, n->entries);

    assert(enough);
    /* The new structures themselves. */
    for (uint64_t i = n->first / per_block; i < n->entries; i++) {
        n->offsets[i] = 1;
    }
    for (uint64_t i = 0; i < n->entries; i++) {
        n->n_blocks += n->offsets[i];
    }
}

static int plan_counts(struct qcow2_check *c, struct counts *n, struct error *err)
{
    uint64_t cluster = c->q->cluster_size, before;

    *n = (struct counts){ .first = c->clusters, .table_clusters = 1, .n_blocks = 1 };
    do {
        before = n->table_clusters + n->n_blocks;
        uint64_t end = n->first + before;

        if (DIV_ROUND_UP(end, c->q->refblock_entries) * 8 > QCOW2_MAX_REFTABLE_BYTES) {
            error_set(err, "the file is too large to count its clusters");
            return -EFBIG;
        }
        mark_blocks(c, end, n);
        n->table_clusters = MAX(DIV_ROUND_UP(n->entries * 8, cluster), n->table_clusters);
    } while (n->table_clusters + n->n_blocks > before);

    uint64_t at = n->first + n->table_clusters;

    for (uint64_t i = 0; i < n->entries; i++) {
        n->offsets[i] = n->offsets[i] ? at++ * cluster : 0;
    }
    qcow2_check_add_new(c, n->first, at - n->first);
    return 0;
}

static int co_write_block(struct qcow2_check *c, const struct counts *n, uint64_t i)
{
    struct qcow2 *q = c->q;
    uint64_t first = i * q->refblock_entries;

    memset(c->buf, 0, q->cluster_size);
    for (uint64_t k = 0; k < q->refblock_entries; k++) {
        uint64_t count = qcow2_check_count(c, first + k);

        if (count) {
            qcow2_refcount_store(q, c->buf, k, count);
        }
    }
    return co_io_write(q->file, n->offsets[i], c->buf, q->cluster_size);
}

static int co_write_counts(struct qcow2_check *c, const struct counts *n)
{
    struct qcow2 *q = c->q;
    uint64_t len = n->table_clusters << q->h.cluster_bits;
    AUTOFREE uint8_t *table = mem_try_calloc(1, len);
    int ret = table ? 0 : -ENOMEM;

    for (uint64_t i = 0; !ret && i < n->entries; i++) {
        store_be64(table + i * 8, n->offsets[i]);
        if (n->offsets[i]) {
            ret = co_write_block(c, n, i);
        }
    }
    return ret ? ret : co_io_write(q->file, n->first << q->h.cluster_bits, table, len);
}

static int co_point_to(struct qcow2 *q, const struct counts *n)
{
    struct qcow2_header before = q->h;

    q->h.reftable_offset = n->first << q->h.cluster_bits;
    q->h.reftable_clusters = n->table_clusters;
    int ret = co_qcow2_write_header_sector(q);

    if (ret) {
        q->h = before;
        return ret;
    }
    q->file_end = n->first + n->table_clusters + n->n_blocks;
    return co_qcow2_load_reftable(q);
}

static int co_new_counts(struct qcow2_check *c, struct error *err)
{
    struct counts n;
    int ret = plan_counts(c, &n, err);

    if (!ret) {
        ret = co_write_counts(c, &n);
        if (!ret) {
            ret = co_point_to(c->q, &n);
        }
        if (ret) {
            error_set_errno(err, ret, "could not write new reference counts");
        }
    }
    free(n.offsets);
    return ret;
}

/* --- Flags ------------------------------------------------------------------------------------ */

/* The entry as it should be. */
static uint64_t with_flag(struct qcow2_check *c, uint64_t entry, uint64_t offset)
{
    bool one = offset && qcow2_check_count(c, offset >> c->q->h.cluster_bits) == 1;

    return (entry & ~QCOW2_COPIED) | (one ? QCOW2_COPIED : 0);
}

static int co_flag_l2(struct qcow2_check *c, uint64_t table)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int ret = co_io_read(q->file, table, c->buf, q->cluster_size);

    for (uint32_t i = 0; !ret && i < q->l2_entries; i++) {
        uint8_t *at = c->buf + i * q->l2_entry_size;
        uint64_t entry = load_be64(at);
        bool plain = !(entry & QCOW2_COMPRESSED);
        uint64_t wanted = with_flag(c, entry, plain ? entry & QCOW2_L2_OFFSET_MASK : 0);

        changed = changed || wanted != entry;
        store_be64(at, wanted);
    }
    return ret || !changed ? ret : co_io_write(q->file, table, c->buf, q->cluster_size);
}

/* In parts: the table may be large, and is in memory once already. */
static int co_write_l1(struct qcow2 *q)
{
    AUTOFREE uint8_t *bytes = mem_alloc(L1_PART * 8ull);
    int ret = 0;

    for (uint32_t at = 0, n; !ret && at < q->h.l1_size; at += n) {
        n = MIN(q->h.l1_size - at, L1_PART);
        for (uint32_t i = 0; i < n; i++) {
            store_be64(bytes + i * 8ull, q->l1[at + i]);
        }
        ret = co_io_write(q->file, q->h.l1_offset + at * 8ull, bytes, n * 8ull);
    }
    return ret;
}

int co_qcow2_repair_flags(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int ret = 0;

    for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
        uint64_t table = q->l1[i] & QCOW2_L1_OFFSET_MASK;
        uint64_t wanted = with_flag(c, q->l1[i], table);

        changed = changed || wanted != q->l1[i];
        q->l1[i] = wanted;
        /* Beyond the end there is nothing to mend, and a long L1 table of nonsense names many such places. */
        if (table && table >> q->h.cluster_bits < c->clusters && qcow2_check_once(c, table, QCOW2_ONCE_FLAGS_MENDED)) {
            ret = co_flag_l2(c, table);
        }
    }
    return ret || !changed ? ret : co_write_l1(q);
}

/* --- All of it -------------------------------------------------------------------------------- */

static int co_repair(struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    bool agree;
    int ret = co_qcow2_check_walk(c, err);

    if (!ret) {
        ret = co_qcow2_check_compare(c, &agree, err);
    }
    if (!ret && !agree) {
        ret = co_new_counts(c, err);
    }
    if (ret) {
        return ret;
    }
    ret = co_qcow2_repair_flags(c);
    if (!ret) {
        q->h.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
        ret = co_qcow2_write_header_sector(q); /* flushes first */
        if (ret) {
            q->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
        }
    }
    if (ret) {
        error_set_errno(err, ret, "could not write the repaired tables");
    }
    return ret;
}

int co_qcow2_rebuild_refcounts(struct qcow2 *q, struct error *err)
{
    struct qcow2_check c;
    int ret = co_qcow2_check_init(&c, q, err);

    if (!ret) {
        ret = co_repair(&c, err);
        qcow2_check_free(&c);
    }
    if (ret) {
        error_prepend(err, "Could not repair dirty image: ");
    }
    return ret;
}
