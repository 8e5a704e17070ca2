/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where everything lies in a new image, and its tables: shared by qcow2-create.c and
 * qcow2-layout.c.
 */
#ifndef BLOCK_QCOW2_LAYOUT_H
#define BLOCK_QCOW2_LAYOUT_H

#include "block/qcow2.h"

enum qcow2_preallocation {
    QCOW2_PREALLOC_OFF,
    QCOW2_PREALLOC_METADATA, /* tables; the data clusters are holes */
    QCOW2_PREALLOC_FALLOC,   /* space is held */
    QCOW2_PREALLOC_FULL,     /* zeroes are written */
};

/* In clusters, one part behind the other; the file has `total` clusters, all of them with a
 * reference count of one. */
struct qcow2_layout {
    uint32_t cluster_bits;
    uint32_t refcount_order;
    bool extended;               /* L2 entries of 16 bytes */
    bool reserve_only;           /* extended: clusters exist, the backing file shows through */
    uint64_t reftable, reftable_clusters;
    uint64_t refblocks, n_refblocks;
    uint64_t l1, l1_entries;
    uint64_t l2, n_l2;           /* 0 unless preallocated */
    uint64_t data, n_data;
    uint64_t total;
};

/* The parts that follow from a disk of `size` bytes; cluster_bits, refcount_order and extended are
 * given.  -EFBIG: beyond the format's limits. */
int qcow2_layout_plan(struct qcow2_layout *l, uint64_t size, bool preallocated);
/* Write all tables (the header is not among them).  Returns 0 or -errno. */
int co_qcow2_layout_write(const struct qcow2_layout *l, struct io_file *file);
/* Make the data clusters as real as asked; all read as zeroes. */
int co_qcow2_layout_preallocate(const struct qcow2_layout *l, struct io_file *file,
                                enum qcow2_preallocation how);

#endif
