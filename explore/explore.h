/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The explorer: run a plan once, then visit every state in which the machine could have died.
 *
 *     run the plan           at every host call a snapshot: what is durable, what is pending
 *       for every snapshot     which pending operations survive: none, all, all but one, one only,
 *                              pairs of the last few, random ones, torn; power cut and process kill
 *         judge                the checker reads images and chain, the model judges every sector
 *         go on (some states)  the driver opens the chain, what was going on is done again,
 *                              and the machine dies a second time meanwhile
 *
 * A state that was seen with the same expectations is not judged again.  What breaks a rule is
 * printed as one line which co_explore_replay() takes (merganser --sim).
 */
#ifndef EXPLORE_EXPLORE_H
#define EXPLORE_EXPLORE_H

#include <stdio.h>

#include "explore/plan.h"

/* A state, for others to judge. */
struct explore_state {
    const char *const *paths; /* the chain's top first */
    unsigned n;
    bool raw_top;
    uint64_t size; /* of the top's disk, bytes */
    /* What the chain shows in each of its windows of the model; zeroes everywhere else. */
    const struct model_window *window;
    const uint8_t *content[MODEL_DISK_WINDOWS];
    const char *line; /* that replays it */
};

struct explore_options {
    uint64_t seed;
    unsigned random_sets; /* a snapshot */
    unsigned singles_max; /* pending operations that are lost or kept alone, the latest ones */
    unsigned pairs_of;    /* the last so many */
    unsigned points_max;  /* snapshots of a run that are looked at, drawn from all; 0: all */
    unsigned go_on_every; /* one of so many states; 0: none */
    unsigned memory_every; /* one plan of so many is looked at for memory that it keeps; 0: none */
    unsigned judge_every; /* one of so many distinct states goes to `judge` too; 0: none */
    /* A second opinion on the images that lie on the simulated disk now: NULL or words (malloc'ed).
     */
    char *(*judge)(void *arg, const struct explore_state *state);
    void *judge_arg;
    FILE *out; /* failures */
    bool quiet;
    /* All plans that are the beginning of one have been explored: their moments are left out. */
    bool prefixes_known;
};

struct explore_stats {
    uint64_t plans, points;
    uint64_t visited;  /* sets of operations that were tried */
    uint64_t distinct; /* states of the bytes on the disk, all different */
    uint64_t judged;   /* pairs of state and expectations, each once a plan */
    uint64_t known;    /* of these and of those after a second crash: judged in another plan */
    uint64_t gone_on;  /* opened again, and the work done again */
    uint64_t second;   /* judged after a second crash */
    uint64_t second_opinions;
    uint64_t measured; /* plans: their memory */
    uint64_t bad;
    uint64_t leaks_max; /* clusters, in one image */
    uint64_t hash;      /* rolls over all runs: time, calls of the host, bytes, promises, states */
};

struct explore;
struct explore *explore_new(const struct explore_options *options);
void explore_free(struct explore *x);
const struct explore_stats *explore_stats(const struct explore *x);
/* False when something is bad: the first finding has been printed. */
bool co_explore_plan(struct explore *x, const struct plan *plan);
/* Of a bad plan find one with fewer operations that is bad, too, and print its finding. */
void co_explore_shrink(struct explore *x, const struct plan *plan);
/* "seed=1 points=0 plan=... cut=12 keep=power:1*4.0.1*2 [then=3 keep=...]": one state again, with
 * words. -1: no such line; 0: it is good now; 1: still bad. */
int co_explore_replay(const char *line, FILE *out);
/* Where we are, for whoever catches a signal. */
extern char explore_where[2048];

#endif
