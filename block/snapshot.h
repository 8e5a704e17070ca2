/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots: put a new overlay on top of a disk's chain while the guest runs.
 */
#ifndef BLOCK_SNAPSHOT_H
#define BLOCK_SNAPSHOT_H

#include "block/disk.h"

struct snapshot_args {
    const char *device;             /* disk id; or NULL with node_name */
    const char *node_name;          /* node to put the overlay on; or NULL */
    const char *file;               /* the new image's path */
    const char *snapshot_node_name; /* node-name of the overlay; or NULL */
    const char *format;             /* NULL: "qcow2" */
    bool reuse;                     /* mode=existing (HMP -n): use the image that is there */
    bool overwrite;                 /* make a new image also where something is; never where somebody uses it */
    /* Instead of all that: two nodes that are there already.  `node` may be a disk's id. */
    const char *node, *overlay;
    bool abort; /* instead of all that: fail here, after what stands before it in a group */
};
/* blockdev-snapshot-sync, blockdev-snapshot.  Durable before it returns 0: the new image, its directory entry, and what was flushed
 * below. On error the chain is as before and a file that it made is gone.  Suspends; drains the disk briefly. */
int co_snapshot_sync(const struct snapshot_args *args, struct error *err);
/* Of n disks at one moment: no request of any of them is in flight when the first gets its overlay, and none enters before the
 * last has its own.  All are done or none. */
int co_snapshot_group(const struct snapshot_args *args, size_t n, struct error *err);

#endif
