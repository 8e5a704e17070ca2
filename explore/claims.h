/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may write to which image (14).
 *
 * An operation claims the images that it writes to, for as long as it runs; the guest and whatever
 * changes the disk claim the top.  All others are still: from the moment on when the last claim has
 * ended and all is durable, an image that is not the top keeps its bytes, whatever runs and whatever
 * a crash leaves.
 */
#ifndef EXPLORE_CLAIMS_H
#define EXPLORE_CLAIMS_H

#include "explore/world.h"

void claim(struct world *w, int slot); /* NO_IMAGE: nothing */
void claim_end(struct world *w, int slot);
/* What nobody claims is still from now on: after the chain has been opened, after an operation. */
void claims_settle(struct world *w);

#endif
