/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chance from a seed: see random.h. */
#include "core/random.h"

#include <assert.h>

void random_seed(struct random *r, uint64_t seed)
{
    /* splitmix64: neighbouring seeds give unrelated states, and never the all-zero state. */
    for (unsigned i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        r->s[i] = z ^ (z >> 31);
    }
}

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

uint64_t random_next(struct random *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t random_below(struct random *r, uint64_t bound)
{
    assert(bound);
    /* The high half of a product is a number below `bound`; the few low halves that would make some
     * results more frequent are drawn again. */
    unsigned __int128 product = (unsigned __int128)random_next(r) * bound;

    if ((uint64_t)product < bound) {
        uint64_t unfair = -bound % bound;

        while ((uint64_t)product < unfair) {
            product = (unsigned __int128)random_next(r) * bound;
        }
    }
    return product >> 64;
}
