/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copy on read: what a guest reads from below an image is kept in the image, so that it is read there the next time.
 *
 * Two ways to ask for it: the filter "copy-on-read" above the image, or a drive's copy-on-read=on, which marks the image's
 * node (node->copy_on_read).  Both end here.
 */
#ifndef BLOCK_COPY_ON_READ_H
#define BLOCK_COPY_ON_READ_H

#include "block/node.h"

/* Bring what [offset, offset + len) holds of layers below `node` into it, whole clusters; with `bottom` only what lies
 * at it or above.  Inside a counted request.  The request is as long as it likes; a cluster is copied once, however many
 * readers there are. */
int co_copy_on_read(struct node *node, uint64_t offset, uint64_t len, struct node *bottom);

#endif
