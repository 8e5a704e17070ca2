/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests handed to the child: see filter.h.
 */
#include "block/filter.h"

#include <errno.h>

#include "block/chain-map.h"

void filter_open(struct node *node)
{
    node->size = node->file->size;
    node->cluster_size = node->file->cluster_size;
}

struct node *filter_or_backing(const struct node *node)
{
    return node->driver->is_filter ? node->file : node->backing;
}

struct node *filter_skip(struct node *node)
{
    while (node && node->driver->is_filter) {
        node = node->file;
    }
    return node;
}

int co_filter_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    node_hold_map(node->file);
    return co_node_read_nested(node->file, offset, iov, n);
}

/* A file grows by being written beyond its end. */
int co_filter_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_node_write_nested(node->file, offset, iov, n);

    node->size = node->file->size;
    return ret;
}

int co_filter_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    int ret = co_node_zero_nested(node->file, offset, len, flags);

    node->size = node->file->size;
    return ret;
}

int co_filter_discard(struct node *node, uint64_t offset, uint64_t len)
{
    return co_node_discard_nested(node->file, offset, len);
}

int co_filter_flush(struct node *node)
{
    return co_node_flush_nested(node->file);
}

/* A request of the node above, or of the person who resizes, is counted there already and drained. */
int co_filter_truncate(struct node *node, uint64_t size, struct error *err)
{
    int ret;

    if (!node->file->driver->co_truncate) {
        error_set(err, "Image format driver does not support resize");
        return -ENOTSUP;
    }
    ret = node->file->driver->co_truncate(node->file, size, err);
    chain_map_forget_layer(node->file);
    node_size_changed(node->file);
    return ret;
}
