/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chance from a seed (xoshiro256** over splitmix64): the same seed gives the same numbers everywhere.  The program's own
 * generator is loop_random(); one of one's own keeps a guest's sequence apart from what else draws numbers.
 */
#ifndef CORE_RANDOM_H
#define CORE_RANDOM_H

#include <stdint.h>

struct random { uint64_t s[4]; };
void random_seed(struct random *r, uint64_t seed);
/* 64 random bits. */
uint64_t random_next(struct random *r);
/* A number below `bound` (> 0), without bias. */
uint64_t random_below(struct random *r, uint64_t bound);

#endif
