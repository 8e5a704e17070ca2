/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What filters have in common: a driver that shows what its child shows and sees each request on its way there.
 *
 * To the chain map a filter is opaque: the walk ends at it and it is asked (struct driver, is_filter).  Its child keeps a map of
 * its own, so below the filter a read costs no walk either.  A filter has no tables and no state of its content; its size is the
 * child's (node_size_changed()).
 */
#ifndef BLOCK_FILTER_H
#define BLOCK_FILTER_H

#include "block/node.h"

/* For co_open: size and cluster size are the child's. */
void filter_open(struct node *node);
/* The child's requests, as struct driver has them; a filter that adds nothing to one puts these into its table. */
int co_filter_read(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_filter_write(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_filter_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags);
int co_filter_discard(struct node *node, uint64_t offset, uint64_t len);
int co_filter_flush(struct node *node);
int co_filter_truncate(struct node *node, uint64_t size, struct error *err);
/* What the next image below is, filters counted: a filter's child, or the backing file. */
struct node *filter_or_backing(const struct node *node);
/* The first node at or below `node` that is no filter. */
struct node *filter_skip(struct node *node);

extern const struct driver driver_null_co, driver_null_aio, driver_throttle, driver_copy_on_read, driver_blkdebug;

#endif
