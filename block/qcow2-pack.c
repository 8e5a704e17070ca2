/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters, written: packed one behind the other into host clusters.
 *
 *     host clusters   |   A   |   B   |           a stream may go on into the next cluster where that is free
 *     streams         [aaaa][bbb][cccc][dd...     each cluster counts the streams that touch it
 *
 * Only the image tool writes them (convert -c): each guest cluster once, whole.  Writing to one
 * later makes it an ordinary cluster again.
 *
 * Order: as for all data (Q2): the stream is written before its entry is linked in memory, and a flush
 * makes data and counts durable before the entry.
 *
 * Specification: docs/interop/qcow2.txt of QEMU, "Compressed Clusters Descriptor".
 */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "block/chain-map.h"
#include "block/qcow2-l2.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

#define DEFLATE_WINDOW (-12) /* raw deflate, 4 KiB: more is not allowed */
#define DEFLATE_MEMORY 9
#define ENTRY_BITS 62        /* what is left without COPIED and COMPRESSED */

/* --- Compression, on a worker thread ---------------------------------------------------------- */

struct compression {
    bool zstd;
    const uint8_t *in;
    uint8_t *out;
    size_t in_len, out_len; /* out_len: room, then the stream's length; 0: it does not fit */
};

static size_t deflate_cluster(const struct compression *c)
{
    z_stream strm = {
        .next_in = (uint8_t *)c->in, .avail_in = c->in_len, .next_out = c->out, .avail_out = c->out_len,
    };
    int ret;

    if (deflateInit2(&strm, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW, DEFLATE_MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return 0;
    }
    ret = deflate(&strm, Z_FINISH);
    deflateEnd(&strm);
    return ret == Z_STREAM_END ? c->out_len - strm.avail_out : 0;
}

static void run_compression(void *arg)
{
    struct compression *c = arg;

    if (!c->zstd) {
        c->out_len = deflate_cluster(c);
        return;
    }
    size_t len = ZSTD_compress(c->out, c->out_len, c->in, c->in_len, ZSTD_CLEVEL_DEFAULT);
    c->out_len = ZSTD_isError(len) ? 0 : len;
}

size_t co_qcow2_compress(struct node *node, const void *cluster, void *out)
{
    struct qcow2 *q = node->state;
    struct compression c = {
        .zstd = q->h.compression_type, .in = cluster, .in_len = q->cluster_size, .out = out,
        .out_len = q->cluster_size - 1,
    };

    co_io_work(run_compression, &c);
    return c.out_len;
}

/* --- Places ----------------------------------------------------------------------------------- */

static int co_take_part(struct qcow2 *q, uint64_t index, bool *taken)
{
    uint64_t count;
    int ret = co_qcow2_refcount_get(q, index, &count);

    *taken = ret == 0 && count < q->refcount_max;
    return *taken ? co_qcow2_refcount_set(q, index, count + 1) : ret;
}

/* q->lock held.  Where the stream before this one ended, there may be room. */
static int co_place(struct qcow2 *q, size_t len, uint64_t *offset)
{
    uint64_t end = q->packed_end, left = ROUND_UP(end, (uint64_t)q->cluster_size) - end, fresh = 0;
    bool taken = false;
    int ret = 0;

    if (len > left) {
        ret = co_qcow2_alloc_exact(q, 1, &fresh);
    }
    if (ret == 0 && left > 0 && (fresh == 0 || fresh == end + left)) {
        ret = co_take_part(q, end / q->cluster_size, &taken);
    }
    if (ret == 0 && !taken && fresh == 0) { /* the count can be no larger */
        ret = co_qcow2_alloc_exact(q, 1, &fresh);
    }
    if (ret < 0) {
        if (fresh) {
            co_qcow2_free_unlinked(q, fresh, 1);
        }
        return ret;
    }
    *offset = taken ? end : fresh;
    q->packed_end = *offset + len;
    return 0;
}

static int co_link(struct qcow2 *q, uint64_t guest, uint64_t entry)
{
    struct qcow2_piece *piece;
    uint32_t index;
    int ret = co_qcow2_slice_get_writable(q, guest, &piece, &index);

    if (ret < 0) {
        return ret;
    }
    qcow2_is_loose(q, 2);
    qcow2_entry_unlinked(q, qcow2_l2_entry(q, piece, index));
    qcow2_l2_set(q, piece, index, entry, 0);
    chain_map_patch(q->node, guest, MIN((uint64_t)q->cluster_size, q->node->size - guest), EXTENT_COMPRESSED, 0);
    qcow2_cache_put(q->l2_cache, piece);
    return 0;
}

struct packed {
    const void *bytes;
    size_t len;
};

static int co_fill(struct node *node, uint64_t guest, uint64_t unused, void *arg)
{
    const struct packed *p = arg;
    struct qcow2 *q = node->state;
    unsigned x = ENTRY_BITS - (q->h.cluster_bits - 8);
    uint64_t offset, sectors;
    int ret = co_qcow2_writeback_throttle(q);

    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&q->lock);
    ret = co_place(q, p->len, &offset);
    co_mutex_unlock(&q->lock);
    if (ret < 0) {
        return ret;
    }
    sectors = (offset + p->len - 1) / NODE_SECTOR - offset / NODE_SECTOR;
    ret = (offset + p->len) >> x ? -EFBIG : co_io_write(q->file, offset, p->bytes, p->len);
    if (ret == 0) {
        co_mutex_lock(&q->lock);
        ret = co_link(q, guest, QCOW2_COMPRESSED | sectors << x | offset);
        co_mutex_unlock(&q->lock);
    }
    if (ret < 0) {
        qcow2_free_later(q, offset, p->len);
        q->packed_end = 0;
    }
    return ret;
}

int co_qcow2_write_packed(struct node *node, uint64_t guest, const void *bytes, size_t len)
{
    struct qcow2 *q = node->state;
    struct packed p = { .bytes = bytes, .len = len };

    assert(guest % q->cluster_size == 0 && guest < node->size && len > 0 && len < q->cluster_size);
    return co_node_populate(node, guest, MIN((uint64_t)q->cluster_size, node->size - guest), co_fill, &p);
}
