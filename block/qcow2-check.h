/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting the references to host clusters: shared by qcow2-check.c (who walks), qcow2-check-compare.c
 * (who compares) and qcow2-repair.c (who mends).
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/qcow2.h"

struct qcow2_check_page;

/* What a check for people found (qcow2-report.c). */
struct qcow2_report {
    uint64_t leaks, corruptions;             /* found and still there */
    uint64_t leaks_fixed, corruptions_fixed;
    uint64_t unmendable;                     /* of the corruptions: entries that no repair changes, though counts can be right */
    uint64_t total, allocated, fragmented, compressed; /* clusters of the disk; of the active tables */
    uint64_t image_end;                      /* bytes: behind the last cluster in use */
    void (*say)(void *arg, const char *line);
    void *arg;
    unsigned fix;                            /* what is asked for: QCOW2_FIX_... */
    uint64_t next;                           /* where the next cluster would not be a fragment */
};
/* Does the file have notably fewer blocks than clusters in use: may data be holes?  Suspends. */
int co_qcow2_clusters_may_be_holes(struct node *node, bool *may);
void qcow2_report_beyond(struct qcow2_report *r, uint64_t offset, uint64_t len);
/* `which` table's entry has bits set that mean nothing: "L1" or "l2". */
void qcow2_report_reserved(struct qcow2_report *r, const char *which, uint64_t entry);
/* A compressed cluster that says it is COPIED. */
void qcow2_report_copied(struct qcow2_report *r, uint64_t offset);
/* `cluster`: of which kind it is; NULL: it is an L2 table. */
void qcow2_report_unaligned(struct qcow2_report *r, uint64_t offset, const char *cluster);
/* A cluster of zeroes whose place is no cluster's will have none. */
void qcow2_report_made_plain(struct qcow2_report *r, uint64_t offset);
enum { QCOW2_FIX_LEAKS = 1, QCOW2_FIX_ERRORS = 2 };
/* Look at everything, go on behind what is wrong, and say each thing in a line of QEMU's words.  With `fix` the node, which is
 * read-only, is made writable; clusters that leak are given back in place, other counts are counted anew.  0, or a negative
 * errno with err when the check itself could not go on.  Suspends. */
int co_qcow2_report(struct node *node, unsigned fix, struct qcow2_report *report, struct error *err);

struct qcow2_check {
    struct qcow2 *q;
    uint64_t clusters;           /* of the file, the last one rounded up */
    uint64_t memory, memory_max; /* bytes of counts */
    struct qcow2_check_page *pages, *last; /* last: found last */
    uint64_t missing;            /* the page that was looked for last in vain */
    uint8_t *buf;                /* one cluster */
    struct qcow2_report *report; /* NULL: the first thing that is wrong ends the walk */
    bool active;                 /* the walk is in the active tables */
    uint64_t *askew;             /* places of entries that reserve a cluster where none begins; to be plain zeroes */
    size_t askew_count;
    uint32_t times;              /* so many references is what refers to a cluster now */
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
/* Set marks[i] where refcount block i (of n) would hold a count above zero; false when n are not enough. */
bool qcow2_check_mark_blocks(struct qcow2_check *c, uint64_t *marks, uint64_t n);
/* Count one reference to each cluster of [first, first + n), which may lie beyond the end of the
 * file: new tables. */
void qcow2_check_add_new(struct qcow2_check *c, uint64_t first, uint64_t n);
/* One more reference to each cluster that the bytes touch, as the walk counts them. */
int qcow2_check_add(struct qcow2_check *c, uint64_t offset, uint64_t len, const char *what, struct error *err);
/* The same for a whole cluster, which has to be one. */
int qcow2_check_add_cluster(struct qcow2_check *c, uint64_t offset, const char *what, struct error *err);
/* Bytes of the file; says "could not read the <what>" when it cannot. */
int co_qcow2_check_read(struct qcow2_check *c, uint64_t offset, void *buf, size_t len, const char *what,
                        struct error *err);
/* True the first time that something is done to the L2 table at `table`. */
enum qcow2_check_once { QCOW2_ONCE_ASKEW, QCOW2_ONCE_FLAGS_SEEN, QCOW2_ONCE_FLAGS_MENDED };
bool qcow2_check_once(struct qcow2_check *c, uint64_t table, enum qcow2_check_once what);
/* Count what the bitmaps refer to, where they are valid (qcow2-bitmaps.c). */
int co_qcow2_check_bitmaps(struct qcow2_check *c, struct error *err);
/* Make COPIED in the active tables what the counts say, directly in the file (qcow2-repair.c). */
int co_qcow2_repair_flags(struct qcow2_check *c);
/* After the walk: do the image's reference counts agree with what was counted (qcow2-check-compare.c)? */
int co_qcow2_check_compare(struct qcow2_check *c, bool *agree, struct error *err);

#endif
