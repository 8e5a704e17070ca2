/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A plan: on which chain which operations run, in which order or side by side.  Written
 *
 *     four/4k-v3/write-part+stream&discard-span~17
 *
 * '+' waits for what came before, '&' does not, "~17" puts the operation somewhere else than usual.
 * In front of it "small:" says small caches, "faults~17:" that the disk fails as number 17 says,
 * "lies~17:" that it says success of what it has not done, or shows what is not there.
 */
#ifndef EXPLORE_PLAN_H
#define EXPLORE_PLAN_H

#include "explore/world.h"

struct operation {
    const char *name;
    unsigned layers; /* how many the chain needs for this to mean anything */
    /* Do it, and tell the model and the view what to expect.  What the program refuses politely is
     * no failure. */
    void (*co_run)(struct world *w, const struct operation *op, unsigned salt);
    /* For guest operations: place and length, in clusters and bytes; `far`: around the middle of
     * the second window. */
    struct {
        unsigned clusters, bytes;
    } at, len;
    bool far;
    bool apart;  /* it is the image tool that does it, so nothing runs beside it */
    bool second; /* it needs a second disk */
    bool looks;  /* it changes nothing: for long random work only; the last rows */
};
/* The one table. */
extern const struct operation operations[];
extern const unsigned n_operations;
/* Also those that are in no table, "damage" for example: they plant bad states.  NULL: there is none. */
const struct operation *operation_find(const char *name);

#define PLAN_MAX 24u
struct plan {
    const struct shape *shape;
    const struct format *format;
    bool small;
    unsigned faults; /* 0: none; else the seed of what fails */
    bool lies;       /* ... or of the lies that the disk tells */
    unsigned n;
    struct step {
        const struct operation *op;
        unsigned salt; /* 0: the usual place */
        bool side;     /* begins without waiting for the one before */
    } step[PLAN_MAX];
};
char *plan_print(const struct plan *plan); /* malloc'ed */
bool plan_parse(const char *text, struct plan *plan);
/* All sequences of exactly `len` operations, in order and side by side, are numbered from 0. */
uint64_t plan_count(unsigned len);
void plan_number(const struct shape *shape, const struct format *format, unsigned len,
                 uint64_t number, struct plan *plan);
/* A long one, drawn from a seed: anywhere, small caches now and then. */
void plan_draw(uint64_t seed, struct plan *plan);
/* Does every operation mean something on this chain? */
bool plan_makes_sense(const struct plan *plan);
bool plan_needs_second(const struct plan *plan);
/* The first of the last operations that run side by side: what comes before is a plan, too. */
unsigned plan_last_group(const struct plan *plan);
/* Run the steps from `first` on, then wait for all. */
void co_plan_run(struct world *w, const struct plan *plan, unsigned first);

#endif
