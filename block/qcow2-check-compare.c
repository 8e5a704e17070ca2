/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Do the reference counts in the image say what was counted (qcow2-check.h)?
 *
 * The clusters that hold the counts themselves, the reference count table and its blocks, are in no
 * other table: nobody has counted them, each is expected to have one reference.
 */
#include "block/qcow2-check.h"

#include <stdlib.h>

#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The clusters that hold the reference counts themselves. */
struct structures {
    uint64_t table, table_clusters;
    uint64_t *blocks; /* cluster indices, sorted */
    size_t n;
};

static bool holds_counts(const struct structures *s, uint64_t cluster)
{
    return (cluster >= s->table && cluster - s->table < s->table_clusters) ||
           bsearch(&cluster, s->blocks, s->n, sizeof(cluster), compare_u64);
}

/* False when the structures themselves cannot be right. */
static bool list_structures(struct qcow2_check *c, struct structures *s)
{
    struct qcow2 *q = c->q;

    *s = (struct structures){
        .table = q->h.reftable_offset >> q->h.cluster_bits,
        .table_clusters = q->h.reftable_clusters,
        .blocks = mem_calloc(q->reftable_entries + 1, sizeof(uint64_t)),
    };
    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (!q->reftable[i]) {
            continue;
        }
        if (offset != q->reftable[i] || offset % q->cluster_size ||
            offset >> q->h.cluster_bits >= c->clusters) {
            return false;
        }
        s->blocks[s->n++] = offset >> q->h.cluster_bits;
    }
    qsort(s->blocks, s->n, sizeof(uint64_t), compare_u64);
    for (size_t i = 0; i < s->n; i++) {
        if ((i && s->blocks[i] == s->blocks[i - 1]) || qcow2_check_count(c, s->blocks[i]) ||
            (s->blocks[i] >= s->table && s->blocks[i] - s->table < s->table_clusters)) {
            return false;
        }
    }
    for (uint64_t i = 0; i < s->table_clusters; i++) {
        if (qcow2_check_count(c, s->table + i)) {
            return false;
        }
    }
    return true;
}

/* Block `i` of the table is in c->buf: is every count in it as it should be? */
static bool block_agrees(struct qcow2_check *c, const struct structures *s, uint64_t i)
{
    struct qcow2 *q = c->q;
    uint64_t first = i * q->refblock_entries;

    for (uint64_t k = 0; k < q->refblock_entries; k++) {
        uint64_t expected = qcow2_check_count(c, first + k);

        if (!expected) {
            expected = holds_counts(s, first + k);
        }
        if (qcow2_refcount_load(q, c->buf, k) != expected) {
            return false;
        }
    }
    return true;
}

/* Clusters without a block have no references, and there is nothing to count beyond the table's
 * end. */
static bool missing_blocks_agree(struct qcow2_check *c, const struct structures *s)
{
    const struct qcow2 *q = c->q;
    AUTOFREE uint64_t *marks = mem_calloc(q->reftable_entries + 1, sizeof(*marks));

    if (!qcow2_check_mark_blocks(c, marks, q->reftable_entries)) {
        return false;
    }
    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        if (marks[i] && !q->reftable[i]) {
            return false;
        }
    }
    for (size_t i = 0; i < s->n + s->table_clusters; i++) {
        uint64_t cluster = i < s->n ? s->blocks[i] : s->table + i - s->n;
        uint64_t block = cluster / q->refblock_entries;

        if (block >= q->reftable_entries || !q->reftable[block]) {
            return false;
        }
    }
    return true;
}

int co_qcow2_check_compare(struct qcow2_check *c, bool *agree, struct error *err)
{
    struct qcow2 *q = c->q;
    struct structures s;
    int ret = 0;

    *agree = list_structures(c, &s) && missing_blocks_agree(c, &s);
    for (uint32_t i = 0; !ret && *agree && i < q->reftable_entries; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (offset) {
            ret = co_qcow2_check_read(c, offset, c->buf, q->cluster_size, "reference counts", err);
            *agree = !ret && block_agrees(c, &s, i);
        }
    }
    free(s.blocks);
    return ret;
}
