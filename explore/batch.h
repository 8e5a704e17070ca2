/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many plans one after the other: complete sequences, random swarms, or a list, with counts.
 *
 * A batch sets up what it needs (a loop on the virtual clock, the simulated disk, drivers) and
 * takes it down again, so nothing else may run beside it.
 */
#ifndef EXPLORE_BATCH_H
#define EXPLORE_BATCH_H

#include "explore/explore.h"

struct batch {
    struct explore_options options;
    unsigned max_len;     /* sequences up to that length; 0: none */
    unsigned chains;      /* on these: a set of 1 << the number of a shape; 0: all */
    uint64_t every, from; /* of those one in so many, beginning with that one */
    uint64_t swarm;       /* long random plans */
    double seconds;       /* stop after so much processor time; 0: never */
    const struct plan *plans;
    size_t n_plans;
    bool tell;            /* counts after each shape */
    FILE *out;            /* where counts go; NULL: nowhere */
    /* Results. */
    struct explore_stats stats;
    uint64_t numbered, skipped; /* sequences that there are; that mean nothing on their chain */
    /* private */
    struct explore *x;
    double began;
    unsigned shrunk;
};

/* The bounds that are usual: what a good compromise between time and sets of operations is. */
extern const struct explore_options batch_usual;
void batch_run(struct batch *b);
/* Run a coroutine in such surroundings. */
void batch_in_simulation(void (*co_fn)(void *arg), void *arg);

#endif
