/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where everything lies in a new image, and its tables.
 *
 *     header | reference count table | refcount blocks | L1 table | L2 tables ... | data ...
 *                                                                   (only when preallocated)
 *
 * Each part begins at a cluster and the parts follow one another without gaps, so every reference
 * count is one, and every table is a run of entries that can be computed: they are written as a
 * stream through one buffer.
 */
#include "block/qcow2-layout.h"

#include <errno.h>

#include "core/bytes.h"
#include "core/mem.h"

#define BUFFER (1u << 20)

int qcow2_layout_plan(struct qcow2_layout *l, uint64_t size, bool preallocated)
{
    uint64_t cluster = 1ull << l->cluster_bits;
    uint64_t l2_entries = cluster / (l->extended ? 16 : 8);
    uint64_t per_block = cluster * 8 >> l->refcount_order;
    uint64_t data = DIV_ROUND_UP(size, cluster);
    uint64_t fixed, before;

    l->l1_entries = DIV_ROUND_UP(data, l2_entries);
    if (size > INT64_MAX || l->l1_entries > QCOW2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    l->n_l2 = preallocated ? l->l1_entries : 0;
    l->n_data = preallocated ? data : 0;
    fixed = 1 + DIV_ROUND_UP(l->l1_entries * 8, cluster) + l->n_l2 + l->n_data;
    /* The blocks count themselves and their table too: grow both until they fit. */
    l->n_refblocks = l->reftable_clusters = 1;
    do {
        before = l->n_refblocks + l->reftable_clusters;
        l->total = fixed + before;
        l->n_refblocks = DIV_ROUND_UP(l->total, per_block);
        l->reftable_clusters = DIV_ROUND_UP(l->n_refblocks * 8, cluster);
    } while (l->n_refblocks + l->reftable_clusters != before);
    if (l->reftable_clusters > QCOW2_MAX_REFTABLE_BYTES / cluster ||
        l->total > QCOW2_L2_OFFSET_MASK >> l->cluster_bits) {
        return -EFBIG;
    }
    l->reftable = 1;
    l->refblocks = l->reftable + l->reftable_clusters;
    l->l1 = l->refblocks + l->n_refblocks;
    l->data = l->total - l->n_data;
    l->l2 = l->data - l->n_l2;
    return 0;
}

/* --- A stream of entries ---------------------------------------------------------------------- */

struct stream {
    struct io_file *file;
    uint64_t offset; /* of the buffer in the file */
    size_t len;      /* bytes in the buffer */
    int ret;         /* the first error; nothing is written after it */
    uint8_t *buf;
};

static void co_stream_flush(struct stream *s)
{
    if (!s->ret) {
        s->ret = co_io_write(s->file, s->offset, s->buf, s->len);
    }
    s->offset += s->len;
    s->len = 0;
}

static void co_stream_put(struct stream *s, const void *bytes, size_t len)
{
    if (BUFFER - s->len < len) {
        co_stream_flush(s);
    }
    memcpy(s->buf + s->len, bytes, len);
    s->len += len;
}

static void co_stream_put64(struct stream *s, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    co_stream_put(s, bytes, sizeof(bytes));
}

/* Zeroes up to an offset in the file. */
static void co_stream_pad(struct stream *s, uint64_t until)
{
    static const uint8_t zeroes[512];

    while (s->offset + s->len < until) {
        co_stream_put(s, zeroes, MIN(sizeof(zeroes), until - s->offset - s->len));
    }
}

/* --- Tables ----------------------------------------------------------------------------------- */

static void co_put_offsets(struct stream *s, const struct qcow2_layout *l, uint64_t first,
                           uint64_t n, uint64_t flags)
{
    for (uint64_t i = 0; i < n; i++) {
        co_stream_put64(s, (first + i) << l->cluster_bits | flags);
    }
}

static void co_put_counts(struct stream *s, const struct qcow2_layout *l)
{
    if (l->refcount_order >= 3) {
        size_t width = 1u << (l->refcount_order - 3);
        uint8_t one[8] = { 0 };

        one[width - 1] = 1;
        for (uint64_t i = 0; i < l->total; i++) {
            co_stream_put(s, one, width);
        }
        return;
    }
    unsigned width = 1u << l->refcount_order, per_byte = 8 / width;

    for (uint64_t i = 0; i < l->total; i += per_byte) {
        uint8_t byte = 0;

        for (unsigned k = 0; k < per_byte && i + k < l->total; k++) {
            byte |= 1u << (k * width);
        }
        co_stream_put(s, &byte, 1);
    }
}

static void co_put_l2(struct stream *s, const struct qcow2_layout *l)
{
    uint64_t bitmap = l->reserve_only ? 0 : UINT32_MAX; /* every subcluster is allocated */

    for (uint64_t i = 0; i < l->n_data; i++) {
        co_stream_put64(s, (l->data + i) << l->cluster_bits | QCOW2_COPIED);
        if (l->extended) {
            co_stream_put64(s, bitmap);
        }
    }
}

int co_qcow2_layout_write(const struct qcow2_layout *l, struct io_file *file)
{
    unsigned bits = l->cluster_bits;
    struct stream s = { .file = file, .offset = l->reftable << bits, .buf = mem_alloc(BUFFER) };

    co_put_offsets(&s, l, l->refblocks, l->n_refblocks, 0);
    co_stream_pad(&s, l->refblocks << bits);
    co_put_counts(&s, l);
    co_stream_pad(&s, l->l1 << bits);
    if (l->n_l2) {
        co_put_offsets(&s, l, l->l2, l->n_l2, QCOW2_COPIED);
        co_stream_pad(&s, l->l2 << bits);
        co_put_l2(&s, l);
        co_stream_pad(&s, l->data << bits);
    } else {
        co_stream_pad(&s, (l->l1 << bits) + l->l1_entries * 8);
    }
    co_stream_flush(&s);
    free(s.buf);
    return s.ret;
}

static int co_write_zeroes(struct io_file *file, uint64_t offset, uint64_t len)
{
    AUTOFREE uint8_t *zeroes = mem_zalloc(BUFFER);
    int ret = 0;

    while (len && !ret) {
        size_t part = MIN(len, (uint64_t)BUFFER);

        ret = co_io_write(file, offset, zeroes, part);
        offset += part;
        len -= part;
    }
    return ret;
}

int co_qcow2_layout_preallocate(const struct qcow2_layout *l, struct io_file *file,
                                enum qcow2_preallocation how)
{
    uint64_t from = l->data << l->cluster_bits, len = l->n_data << l->cluster_bits;
    int ret;

    if (!len) {
        return 0;
    }
    if (how == QCOW2_PREALLOC_METADATA) {
        ret = co_io_truncate(file, from + len);
        /* The size of a block device cannot be set. */
        return ret == -EINVAL ? co_io_zero(file, from, len, true) : ret;
    }
    if (how == QCOW2_PREALLOC_FALLOC) {
        ret = co_io_allocate(file, from, len);
        return ret == -EOPNOTSUPP ? co_io_zero(file, from, len, false) : ret;
    }
    return co_write_zeroes(file, from, len);
}
