/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the explorer: what a run leaves behind, and which subsets of what was pending are tried.
 */
#ifndef EXPLORE_STATES_H
#define EXPLORE_STATES_H

#include "core/io-sim.h"
#include "core/loop.h"
#include "explore/explore.h"

/* A set of numbers. */
struct seen {
    uint64_t *slot;
    size_t room, n;
};
bool seen_add(struct seen *seen, uint64_t key); /* false when it was there */
bool seen_has(const struct seen *seen, uint64_t key);
void seen_free(struct seen *seen);

/* What sets of operations make of the disk: a cache. */
struct results {
    uint64_t (*slot)[2]; /* the set, its result */
    size_t n;
};
/* Where the result of this set is, 0: nobody has seen it yet. */
uint64_t *result_of(struct results *results, uint64_t set);

/* A moment. */
struct point {
    struct io_sim_snapshot *disk;
    struct world_view view;
    struct model_bounds *bounds; /* the run's */
    uint64_t key;                /* of what is expected */
    unsigned step;               /* of the plan that was not over */
    bool closed;                 /* everything has been closed in order */
};

struct run {
    struct world *w;
    const struct plan *plan;
    struct point *points;
    size_t n_points, seen_points;
    struct model_bounds **bounds;
    size_t n_bounds;
    size_t keep; /* 0: all points, else so many, drawn from all */
    struct random rnd;
    unsigned first_step;      /* moments before that one are not looked at */
    uint64_t *hash;           /* rolls on */
    uint64_t began, first_op; /* time and the host's calls count from here */
    struct loop_timer patience;
    const struct run *before; /* the run that the first crash ended, */
    const char *crash;        /* ... and how: "cut=.. keep=..", for the replay */
};
/* Record from now on, until run_stop(). */
void run_start(struct run *run);
void run_stop(struct run *run);
void run_record(struct run *run); /* a point, now */
void run_fini(struct run *run);

/* Make numbers part of a rolling hash. */
void roll(uint64_t *hash, const uint64_t *numbers, size_t n);

/* Call fn for each set of fates that is worth a try, until it says false.  The snapshot is the
 * world now. */
struct cut {
    bool kill;
    char *fates;
    const struct io_sim_pending *pending;
    size_t n;
};
typedef bool co_cut_fn(void *arg, const struct cut *cut);
bool co_each_cut(const struct explore_options *options, uint64_t seed,
                 const struct io_sim_pending *pending, size_t n, co_cut_fn *co_fn, void *arg);
/* "power:1*4.0.1*2" and back; malloc'ed. */
char *cut_print(const struct cut *cut);
bool cut_parse(const char *text, size_t n, bool *kill, char *fates);

/* judge.c: the images, their cache, and the rules. */
struct finding {
    unsigned rule;
    char text[320];
};
struct judge;
struct judge *judge_new(void);
void judge_free(struct judge *judge);
/* Judge the disk as it is; *content (malloc'ed by the caller, all windows) is filled.  leaks: the
 * most in one image. */
void judge_world(struct judge *judge, const struct world *w, const struct point *p,
                 uint8_t *content, uint64_t *leaks, struct finding *out);
/* Learn what must never change, of a world just made. */
void judge_learn(struct judge *judge, struct world *w);
/* The slot that the header of an image names now. */
int judge_backing(struct judge *judge, const struct world *w, int slot);
uint64_t judge_size(struct judge *judge, const struct world *w, int slot); /* bytes; 0: unknown */
uint64_t judge_leaks(struct judge *judge, const struct world *w, int slot); /* clusters */
/* Is internal snapshot world_inner_names[k] there? */
bool judge_inner(struct judge *judge, const struct world *w, int slot, unsigned k);

/* remains.c.  A world is left in order; after a finding its jobs are ended first. */
struct explore;
void co_leave(struct world *w);
/* Is anything left of a run (20)?  The coroutines that were there before are the caller's. */
void co_judge_remains(struct explore *x, struct world *w, size_t coroutines);
/* ... of its memory, in one plan of so many? */
void co_judge_memory(struct explore *x, const struct plan *plan, struct world *w);
/* explore.c: the run itself, from the opening to the close. */
void co_run_plan(struct explore *x, const struct plan *plan, struct run *run);

/* --- explore.c -------------------------------------------------------------------------------- */

struct explore {
    struct explore_options options;
    struct explore_stats stats;
    struct seen bytes; /* of all plans */
    struct seen asked; /* of these, those that had a second opinion */
    struct seen good;  /* states with expectations that were judged in some plan */
    struct results results;
    struct judge *judge;
    uint8_t *content, *shown; /* what the checker reads, what the driver reads */
    uint8_t *again_content;
    bool told;    /* of the plan that is being explored something bad has been printed */
    bool spoiled; /* what a finding has left behind would be found again in other plans */
    /* Replay: this point and set only, always going on. */
    bool replay;
    size_t only_point, only_again; /* SIZE_MAX: none */
    const char *only_keep, *only_again_keep;
};

#endif
