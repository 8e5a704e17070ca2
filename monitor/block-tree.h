/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks, nodes and images as QMP's trees (query-block, query-named-block-nodes, query-blockstats), with QEMU's members
 * in QEMU's order, and `info block`'s text made from them.
 *
 * The trees of one query share what they have in common: a chain of 1,000 images is described once, not once for each of
 * its nodes.  They must not be changed.
 */
#ifndef MONITOR_BLOCK_TREE_H
#define MONITOR_BLOCK_TREE_H

#include "block/disk.h"
#include "monitor/monitor.h"

/* The nodes that a query is about, kept from going away while it suspends. */
struct node_set {
    struct node **nodes;
    size_t count;
};
void node_set_add(struct node_set *set, struct node *node);       /* takes a reference */
void node_set_add_chain(struct node_set *set, struct node *top);  /* top first */
void co_node_set_free(struct node_set *set);

/* One query's memory of images that it has described. */
struct image_memo;
struct image_memo *image_memo_new(void);
void co_image_memo_free(struct image_memo *memo);
/* BlockDeviceInfo: what query-block calls "inserted".  `flat`: without the images below.  New reference; suspends. */
json_t *co_node_tree(struct image_memo *memo, struct node *node, bool flat);
/* BlockInfo.  New reference; suspends. */
json_t *co_disk_tree(struct image_memo *memo, struct disk *disk);
/* BlockStats.  New reference. */
json_t *disk_stats_tree(const struct disk *disk);
/* The same of a node, without what lies below it. */
json_t *node_stats_alone(const struct node *node);

/* "virtio0 (node-E): file-E.img (qcow2)" and the indented lines: `info` is a BlockInfo, or NULL for a mere node, `inserted` a
 * BlockDeviceInfo, or NULL for an empty drive. */
void block_tree_print(struct monitor *mon, const json_t *info, const json_t *inserted, bool verbose);

/* The head of a table of internal snapshots below `words`, and a line of it for a SnapshotInfo. */
void snapshot_print_head(struct monitor *mon, const char *words);
void snapshot_print(struct monitor *mon, const json_t *snapshot, const char *id);

#endif
