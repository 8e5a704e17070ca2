/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen: other options for nodes that are open.
 *
 * What may change: read-only, discard, detect-zeroes, cache; what lies below as `backing` and as `file`, by the name of
 * another node; and a driver's own options where the driver can be opened anew (struct driver, own_reopen).  An option
 * that is not given goes back to its default, as in QEMU.
 *
 * An image whose `file` is replaced is read anew from there.  QEMU goes on with what it has read from the old file, and
 * writes that into the new one.
 */
#ifndef BLOCK_REOPEN_H
#define BLOCK_REOPEN_H

#include <jansson.h>

#include "core/error.h"

/* `list` is an array of option trees, each with the node-name of a node that is open; checked by blockdev_check(),
 * borrowed.  All change or none.  0 or -errno with QEMU's words; suspends, and holds the guests of these nodes
 * meanwhile. */
int co_blockdev_reopen(json_t *list, struct error *err);

#endif
