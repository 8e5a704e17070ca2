/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's counters: see guest-stats.h.
 */
#include "hw/guest-stats.h"

#include "core/mem.h"

#define STEPS (1u << LATENCY_STEP_BITS)

/* The class of a value: its power of two and the five bits below the highest one. */
static unsigned class_of(uint64_t ns)
{
    if (ns < STEPS) {
        return ns;
    }
    unsigned shift = 63 - __builtin_clzll(ns) - LATENCY_STEP_BITS;

    return (shift + 1) * STEPS + (ns >> shift) % STEPS;
}

/* The largest value of a class. */
static uint64_t class_top(unsigned class)
{
    if (class < STEPS) {
        return class;
    }
    unsigned shift = class / STEPS - 1;

    return ((uint64_t)(STEPS + class % STEPS) << shift) + ((1ull << shift) - 1);
}

void guest_latency_add(struct guest_latency *l, uint64_t ns)
{
    l->count++;
    l->max_ns = MAX(l->max_ns, ns);
    l->classes[class_of(ns)]++;
}

uint64_t guest_latency_percentile(const struct guest_latency *l, unsigned thousandths)
{
    uint64_t below = 0, wanted = (unsigned __int128)l->count * thousandths / 1000;

    if (!l->count) {
        return 0;
    }
    wanted = MAX(wanted, 1u);
    for (unsigned class = 0; class < LATENCY_CLASSES; class ++) {
        below += l->classes[class];
        if (below >= wanted) {
            return MIN(class_top(class), l->max_ns);
        }
    }
    return l->max_ns;
}

void guest_stats_begin(struct guest_stats *s, uint64_t now_ns)
{
    if (!s->inflight++) {
        s->progress_ns = now_ns;
    }
}

void guest_stats_end(struct guest_stats *s, uint64_t now_ns)
{
    s->longest_stall_ns = guest_stats_stall(s, now_ns);
    s->progress_ns = now_ns;
    s->inflight--;
}

uint64_t guest_stats_stall(const struct guest_stats *s, uint64_t now_ns)
{
    return s->inflight ? MAX(s->longest_stall_ns, now_ns - s->progress_ns) : s->longest_stall_ns;
}
