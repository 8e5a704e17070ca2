/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A node as a file: what a format sees that stands on something else than the host's file.
 *
 * Formats work on an io_file (core/io.h), for speed: with the driver "file" below them there is nothing between.  Where
 * a filter is, or a part of a file (raw with an offset), the same calls arrive here and become that node's requests, so
 * such drivers see every one of them and formats need not know.
 */
#include "block/chain-map.h"
#include "block/node.h"
#include "core/io-made.h"

#include <errno.h>

unsigned node_event_listeners;

void node_tell_event(struct node *node, enum node_event event)
{
    struct node *file = node->file;

    if (file && file->driver->event) {
        file->driver->event(file, event);
    }
}

void node_hold_map(struct node *node)
{
    if (!node->held_map) {
        node->held_map = chain_map_get(node);
    }
}

static int co_file_read(void *arg, uint64_t offset, const struct iovec *iov, int n)
{
    return co_node_read_nested(arg, offset, iov, n);
}

static int co_file_write(void *arg, uint64_t offset, const struct iovec *iov, int n)
{
    return co_node_write_nested(arg, offset, iov, n);
}

static int co_file_flush(void *arg)
{
    return co_node_flush_nested(arg);
}

static int co_file_zero(void *arg, uint64_t offset, uint64_t len, bool unmap)
{
    return co_node_zero_nested(arg, offset, len, unmap ? NODE_MAY_UNMAP : 0);
}

/* What could not be given back still has its old bytes, and the front must know that. */
static int co_file_discard(void *arg, uint64_t offset, uint64_t len)
{
    return co_node_discard_nested(arg, offset, len);
}

static int co_file_truncate(void *arg, uint64_t size)
{
    struct node *node = arg;
    int ret = node->driver->co_truncate ? node->driver->co_truncate(node, size, NULL) : -ENOTSUP;

    chain_map_forget_layer(node);
    return ret;
}

static int co_file_size(void *arg, uint64_t *size)
{
    *size = ((struct node *)arg)->size;
    return 0;
}

static int co_file_allocated(void *arg, uint64_t *bytes)
{
    struct io_file *host = node_host_file(arg);

    *bytes = 0;
    return host ? co_io_allocated(host, bytes) : 0;
}

static const struct io_made_ops ops = {
    .co_read = co_file_read,
    .co_write = co_file_write,
    .co_flush = co_file_flush,
    .co_zero = co_file_zero,
    .co_discard = co_file_discard,
    .co_truncate = co_file_truncate,
    .co_size = co_file_size,
    .co_allocated = co_file_allocated,
};

struct io_file *node_as_file(struct node *node)
{
    if (node->driver->is_protocol && node->driver->host_file) {
        return node->driver->host_file(node);
    }
    if (!node->stand_in) {
        node->stand_in = io_file_make(&ops, node, node_host_file(node));
        node_hold_map(node);
    }
    return node->stand_in;
}

void node_renew_stand_ins(void)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->stand_in) {
            io_file_made_below(n->stand_in, node_host_file(n));
        }
    }
}

void node_drop_stand_in(struct node *node)
{
    if (node->stand_in) {
        io_file_unmake(node->stand_in);
    }
    chain_map_put(node->held_map);
    node->stand_in = NULL;
    node->held_map = NULL;
}
