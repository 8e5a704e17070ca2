/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commit: what an overlay holds goes down into its backing file, and the overlay is empty again.
 */
#ifndef BLOCK_COMMIT_H
#define BLOCK_COMMIT_H

#include "block/node.h"

/* Write all that `top` holds into its backing file and empty it, while guests go on.  Durable when it returns 0; after
 * any error, and after a kill at any moment, the content is what it was, and it can be done again.  The backing
 * file grows when it is the smaller one.  `stop` (may be NULL) is asked now and then whether to end early.
 * -ENOTSUP without a backing file, -EBUSY when a job has one of the two, -EPERM when others look through the backing
 * file, -EINTR when stopped; `err` says more where there is more to say.  Suspends. */
int co_commit(struct node *top, bool (*stop)(void *arg), void *arg, struct error *err);

#endif
