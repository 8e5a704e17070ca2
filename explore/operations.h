/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the explorer: what the files of operations share.  The one table of them is in
 * operations.c; how an operation is made is said in plan.h.
 */
#ifndef EXPLORE_OPERATIONS_H
#define EXPLORE_OPERATIONS_H

#include "explore/plan.h"

#define OP_POLL_NS (100 * NS_PER_US)
#define OP_ENDS_WITHIN_NS (60 * NS_PER_S) /* of the virtual clock */

struct range {
    uint64_t at, len; /* bytes */
};
/* Where a guest operation happens; len is 0 when the disk has become too small for it. */
struct range op_place(const struct world *w, const struct operation *op, unsigned salt);
/* A request of the guest has ended that began when the disk had been resized so often. */
void op_judge_request(struct world *w, const struct operation *op, unsigned resizes, bool is_read,
                      int ret);
/* Something else has ended: without faults of the disk it must have worked. */
void op_judge_verb(struct world *w, const struct operation *op, int ret, const struct error *err);
/* The slot of the next overlay, NO_IMAGE when all are taken; what is known of an overlay of that
 * top at first; what, once it is there. */
int op_next_overlay(const struct world *w);
void op_begin_overlay(struct world *w, int slot, int top);
void op_overlay_is_there(struct world *w, const struct disk *disk, int slot);
int co_op_create_image(const struct world *w, int slot, uint64_t size, const char *backing,
                       const char *backing_format, struct error *err);

typedef void co_op_fn(struct world *w, const struct operation *op, unsigned salt);
/* guest.c: requests. */
co_op_fn co_op_write, co_op_zero, co_op_zero_keep, co_op_discard, co_op_read, co_op_read_kept,
    co_op_flush;
/* verbs.c: through the monitor's own commands. */
co_op_fn co_op_commit, co_op_snapshot_group, co_op_snapshot_node, co_op_blockdev_create,
    co_op_set_backing, co_op_set_backing_below, co_op_reopen;
/* inner.c: internal snapshots, as the image tool changes them. */
co_op_fn co_op_inner_make, co_op_inner_apply, co_op_inner_delete;

#endif
