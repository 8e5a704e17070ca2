/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading through this layer, the slow and general way: run by run, from the host file, the
 * decompressor, or from below.  Guests read through the chain map instead; what comes here are
 * compressed clusters, and the surroundings of a write into a fresh cluster (qcow2-fill.c).
 */
#include <errno.h>

#include "block/qcow2-l2.h"

#include <assert.h>

#include "core/bytes.h"
#include "core/mem.h"

/* Decompressed at once: 0.15 ms of a worker, some tens of times what it costs to wake one. */
#define RUN_BYTES (256u << 10)

/* How many clusters from `index` on can be read as one, into `room` bytes; `entries` has at least the first. */
static int compressed_run(struct qcow2 *q, struct qcow2_piece *piece, uint32_t index, uint64_t room,
                          uint64_t *entries)
{
    int n = 0, max = MIN(MAX(RUN_BYTES / q->cluster_size, 1u), (unsigned)QCOW2_COMPRESSED_RUN_MAX);

    entries[0] = qcow2_l2_entry(q, piece, index);
    for (; n < max && index + n < q->slice_entries; n++) {
        entries[n] = qcow2_l2_entry(q, piece, index + n);
        if ((n + 1ull) * q->cluster_size > room || !(entries[n] & QCOW2_COMPRESSED) ||
            (n > 0 && !qcow2_compressed_follows(q, entries[n - 1], entries[n]))) {
            break;
        }
    }
    return n;
}

/* The first `len` bytes of the list, from compressed clusters; *len becomes what lies in those that were read: whole ones
 * straight into the list, else one through memory of our own. */
static int co_read_compressed(struct qcow2 *q, uint64_t guest, const struct iovec *iov, int n,
                              uint64_t *len)
{
    uint64_t within = guest % q->cluster_size, entries[QCOW2_COMPRESSED_RUN_MAX];
    struct qcow2_piece *piece;
    uint8_t *cluster;
    uint32_t index;
    int whole, ret = co_qcow2_slice_get(q, guest, &piece, &index);

    if (ret < 0) {
        return ret;
    }
    assert(piece); /* an L2 table may be replaced, it never goes */
    whole = compressed_run(q, piece, index, within ? 0 : MIN(*len, iov->iov_len), entries);
    qcow2_cache_put(q->l2_cache, piece);
    if (!(entries[0] & QCOW2_COMPRESSED)) {
        *len = 0; /* overwritten while the slice came in: look anew */
        return 0;
    }
    if (whole > 0) {
        *len = (uint64_t)whole * q->cluster_size;
        return co_qcow2_read_compressed(q, entries, whole, iov->iov_base);
    }
    *len = MIN(*len, q->cluster_size - within);
    cluster = mem_try_alloc(q->cluster_size);
    ret = cluster ? co_qcow2_read_compressed(q, entries, 1, cluster) : -ENOMEM;
    if (ret == 0) {
        iov_from_buf(iov, n, 0, cluster + within, *len);
    }
    free(cluster);
    return ret;
}

/* `iov` covers *len bytes or more; *len says how many were read. */
static int co_read_run(struct node *node, uint64_t offset, const struct iovec *iov, int n,
                       struct iovec *part, uint64_t *len)
{
    struct qcow2 *q = node->state;
    struct extent e;
    int parts, ret = co_qcow2_map(node, offset, *len, &e);

    if (ret < 0) {
        return ret;
    }
    if (e.kind == EXTENT_COMPRESSED) {
        return co_read_compressed(q, offset, iov, n, len);
    }
    *len = e.len;
    parts = iov_slice(part, iov, n, 0, e.len);
    switch (e.kind) {
    case EXTENT_NONE:
        node_debug_event(node, EVENT_READ_BACKING_AIO);
        return co_node_read_below(node, offset, part, parts);
    case EXTENT_DATA:
        node_debug_event(node, EVENT_READ_AIO);
        return co_io_readv(q->file, e.host, part, parts);
    default:
        iov_memset(part, parts, 0, 0, e.len);
        return 0;
    }
}

int co_qcow2_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n), done = 0;
    struct iovec *rest = mem_calloc(2 * (size_t)n, sizeof(*rest));
    int ret = 0;

    while (done < len && ret == 0) {
        uint64_t part = len - done;
        int left = iov_slice(rest, iov, n, done, part);
        ret = co_read_run(node, offset + done, rest, left, rest + n, &part);
        done += part;
    }
    free(rest);
    return ret;
}
