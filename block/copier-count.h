/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many bytes of data is a copier going to move? Told before it begins, from tables alone.
 *
 * A sweep over the target's address space with one cursor a layer: each layer is asked for its next run (driver's co_map)
 * only when the sweep has come to the end of its last one, so the cost follows the number of runs in the tables, not the
 * size of the disk. The chain map is not used, so what guests need stays in it.
 *
 * It counts as the copier works: in the target's clusters; zeroes cost nothing unless they share a cluster with data.
 * Guests go on meanwhile: what they change behind the sweep has to be counted again by whoever wants to know.
 */
#ifndef BLOCK_COPIER_COUNT_H
#define BLOCK_COPIER_COUNT_H

#include "block/copier.h"

struct count_cursor;
struct copier_count {
    const struct copier *copier;
    struct count_cursor *layers; /* the target first */
    unsigned n;
    uint64_t at, end;            /* the sweep has come to `at` */
    uint64_t noted;              /* the cluster in pieces that was told last */
    void (*note)(void *arg, uint64_t offset, uint64_t bytes); /* data in whole clusters of the target, in ascending order */
    void *arg;
};
/* Begin to sweep [from, to); `to` at most the target's size, both at clusters of the target. The layers must stay as they are
 * until copier_count_end(). */
void copier_count_begin(struct copier_count *cc, const struct copier *copier, uint64_t from, uint64_t to,
                        void (*note)(void *arg, uint64_t offset, uint64_t bytes), void *arg);
/* Go on for a bounded piece of work, a fraction of a millisecond. False when all is swept. Suspends only to read tables.
 * What cannot be read counts as data. */
bool co_copier_count_go_on(struct copier_count *cc);
void copier_count_end(struct copier_count *cc);

#endif
