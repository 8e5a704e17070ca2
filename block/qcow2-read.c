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

/* The first `len` bytes of the list, from a compressed cluster; *len becomes what lies in that
 * cluster. */
static int co_read_compressed(struct qcow2 *q, uint64_t guest, const struct iovec *iov, int n,
                              uint64_t *len)
{
    uint64_t within = guest % q->cluster_size, entry;
    struct qcow2_piece *piece;
    uint8_t *cluster;
    uint32_t index;
    int ret = co_qcow2_slice_get(q, guest, &piece, &index);

    *len = MIN(*len, q->cluster_size - within);
    if (ret < 0) {
        return ret;
    }
    assert(piece); /* an L2 table may be replaced, it never goes */
    entry = qcow2_l2_entry(q, piece, index);
    qcow2_cache_put(q->l2_cache, piece);
    if (!(entry & QCOW2_COMPRESSED)) {
        *len = 0; /* overwritten while the slice came in: look anew */
        return 0;
    }
    cluster = mem_try_alloc(q->cluster_size);
    ret = cluster ? co_qcow2_read_compressed(q, entry, cluster) : -ENOMEM;
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
