/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The latencies of the last seconds, in slots of time: percentiles over a sliding window.
 *
 * A latency is kept as its class (16 to each power of two, so within 6 percent), a slot as a count by class. Adding is a
 * few instructions; asking walks the slots. No function suspends.
 */
#ifndef BLOCK_LATENCY_WINDOW_H
#define BLOCK_LATENCY_WINDOW_H

#include <stdint.h>

#define LATENCY_SLOT_NS 100000000ull /* 100 ms */
#define LATENCY_SLOTS 50             /* so the window is 5 s */
#define LATENCY_WINDOW_CLASSES 384   /* 1 us to 64 s */

struct latency_slot {
    uint64_t number;                 /* which time it is of: ns / LATENCY_SLOT_NS + 1; 0: empty */
    uint32_t count;
    uint16_t classes[LATENCY_WINDOW_CLASSES]; /* stay at their greatest value when they come to it */
};
struct latency_window {
    struct latency_slot slots[LATENCY_SLOTS];
    uint64_t last_ns;                /* when a request ended last; 0: none has */
};

/* A request that ended at `now_ns` took `ns`. */
void latency_window_add(struct latency_window *w, uint64_t now_ns, uint64_t ns);
/* The latency that `thousandths` of a thousand requests of the window do not exceed, ns; 0 when there was none. */
uint64_t latency_window_percentile(const struct latency_window *w, uint64_t now_ns, unsigned thousandths);
/* How many requests ended in the slots that began at `since_ns` or later, and how many of them took longer than
 * `limit_ns`. */
void latency_window_count(const struct latency_window *w, uint64_t since_ns, uint64_t limit_ns, uint64_t *all, uint64_t *above);

#endif
