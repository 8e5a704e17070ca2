/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The latencies of the last seconds (see latency-window.h).
 */
#include "block/latency-window.h"

#include <string.h>

#include "core/mem.h"

#define STEP_BITS 4u
#define STEPS (1u << STEP_BITS)
#define UNIT_SHIFT 10u /* about a microsecond */

static unsigned class_of(uint64_t ns)
{
    uint64_t units = ns >> UNIT_SHIFT;

    if (units < STEPS) {
        return units;
    }
    unsigned shift = 63 - __builtin_clzll(units) - STEP_BITS;

    return MIN((shift + 1) * STEPS + (units >> shift) % STEPS, LATENCY_WINDOW_CLASSES - 1u);
}

/* The largest value of a class. */
static uint64_t class_top(unsigned class)
{
    unsigned shift = class < STEPS ? 0 : class / STEPS - 1;
    uint64_t units = class < STEPS ? class : STEPS + class % STEPS;

    return (((units + 1) << shift) << UNIT_SHIFT) - 1;
}

void latency_window_add(struct latency_window *w, uint64_t now_ns, uint64_t ns)
{
    uint64_t number = now_ns / LATENCY_SLOT_NS + 1;
    struct latency_slot *slot = &w->slots[number % LATENCY_SLOTS];
    uint16_t *count = &slot->classes[class_of(ns)];

    if (slot->number != number) {
        memset(slot, 0, sizeof(*slot));
        slot->number = number;
    }
    w->last_ns = now_ns;
    slot->count++;
    *count += *count < UINT16_MAX;
}

uint64_t latency_window_percentile(const struct latency_window *w, uint64_t now_ns, unsigned thousandths)
{
    uint64_t oldest = now_ns / LATENCY_SLOT_NS + 2, all = 0, above = 0;

    oldest = oldest > LATENCY_SLOTS ? oldest - LATENCY_SLOTS : 1;
    for (unsigned i = 0; i < LATENCY_SLOTS; i++) {
        all += w->slots[i].number >= oldest ? w->slots[i].count : 0;
    }
    if (!all) {
        return 0;
    }
    for (unsigned class = LATENCY_WINDOW_CLASSES; --class > 0;) {
        for (unsigned i = 0; i < LATENCY_SLOTS; i++) {
            above += w->slots[i].number >= oldest ? w->slots[i].classes[class] : 0;
        }
        if (above * 1000 > all * (1000 - thousandths)) {
            return class_top(class);
        }
    }
    return class_top(0);
}

void latency_window_count(const struct latency_window *w, uint64_t since_ns, uint64_t limit_ns, uint64_t *all, uint64_t *above)
{
    uint64_t oldest = DIV_ROUND_UP(since_ns, LATENCY_SLOT_NS) + 1;

    *all = *above = 0;
    for (unsigned i = 0; i < LATENCY_SLOTS; i++) {
        const struct latency_slot *slot = &w->slots[i];

        if (slot->number >= oldest) {
            *all += slot->count;
            for (unsigned class = class_of(limit_ns) + 1; class < LATENCY_WINDOW_CLASSES; class ++) {
                *above += slot->classes[class];
            }
        }
    }
}
