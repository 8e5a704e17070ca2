/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `info chain`: a chain as a tree, and the drawing made from it.
 *
 *     virtio0: 64 MiB
 *              ,--- stream 45% ----v
 *       [A] <- [B] <- [C] <- [D] <- [E]
 *
 *       image  node    file        format  size    holds     seen     written by
 *       A      node-A  file-A.img  qcow2   64 MiB  1.25 MiB  1 MiB    -
 *       ...
 *
 * An image holds what its own tables say it holds; of that is seen what no image above it covers.
 */
#ifndef MONITOR_CHAIN_VIEW_H
#define MONITOR_CHAIN_VIEW_H

#include "block/disk.h"
#include "monitor/monitor.h"

/* The root of the chain that a name means, and its disk (NULL: none): a disk's id, a node-name, or else the label of a disk that
 * has no id.  NULL with words in err, a drive without a medium included. */
struct node *chain_root(const char *name, struct disk **disk, struct error *err);
/* The chain from `root` down (NULL: an empty drive); `disk` may be NULL.  New reference; suspends.
 *   {"device": "virtio0", "size": bytes,
 *    "layers": [{"name": "A", "node-name", "file", "format", "size", "holds", "seen", "read-only", "writers": [...]}, ...],
 *    "jobs": [{"id", "type", "status", "from": index, "to": index, "done": bytes, "total": bytes}, ...]}
 * Layers stand in the documents' order, the base first; indexes count in that order. */
json_t *co_chain_tree(struct disk *disk, struct node *root);
/* The printer of `info chain`, for an array of such trees. */
void chain_view_print(struct monitor *mon, const json_t *args, const json_t *result);

#endif
