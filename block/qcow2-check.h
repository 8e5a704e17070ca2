/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting the references to host clusters: shared by qcow2-check.c (who walks) and qcow2-repair.c
 * (who mends).
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/qcow2.h"

struct qcow2_check_page;

struct qcow2_check {
    struct qcow2 *q;
    uint64_t clusters;           /* of the file, the last one rounded up */
    uint64_t memory, memory_max; /* bytes of counts */
    struct qcow2_check_page *pages, *last; /* last: found last */
    uint64_t missing;            /* the page that was looked for last in vain */
    uint8_t *buf;                /* one cluster */
    /* What the walk saw of the active L1 table. */
    uint64_t allocated, compressed;
};

/* Nothing is counted yet.  Suspends. */
int co_qcow2_check_init(struct qcow2_check *c, struct qcow2 *q, struct error *err);
void qcow2_check_free(struct qcow2_check *c);
/* Follow everything in the image but the reference count structures themselves, and count.  The
 * first thing that cannot be (a table beyond the end of the file, two tables in one place, ...)
 * ends it: -EINVAL with a sentence; or an I/O error. */
int co_qcow2_check_walk(struct qcow2_check *c, struct error *err);
/* References to a cluster, so far. */
uint64_t qcow2_check_count(struct qcow2_check *c, uint64_t cluster);
/* Set marks[i] where refcount block i (of n, which is enough) would hold a count above zero. */
void qcow2_check_mark_blocks(struct qcow2_check *c, uint64_t *marks, uint64_t n);
/* Count one reference to each cluster of [first, first + n), which may lie beyond the end of the
 * file: new tables. */
void qcow2_check_add_new(struct qcow2_check *c, uint64_t first, uint64_t n);
/* After the walk: do the image's reference counts agree with what was counted? */
int co_qcow2_check_compare(struct qcow2_check *c, bool *agree, struct error *err);

#endif
