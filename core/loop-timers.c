/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Timers: a binary heap, the earliest at [1].
 */
#include "core/loop-timers.h"

#include <stdlib.h>

#include "core/mem.h"

static struct loop_timer **heap;
static uint32_t used;
static uint32_t room;
static uint64_t order;

static bool earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static void heap_place(struct loop_timer *t, uint32_t index)
{
    heap[index] = t;
    t->heap_index = index;
}

/* Find the place for `t` from the free place `index` on, up or down. */
static void heap_sift(struct loop_timer *t, uint32_t index)
{
    while (index > 1 && earlier(t, heap[index / 2])) {
        heap_place(heap[index / 2], index);
        index /= 2;
    }
    for (;;) {
        uint32_t child = index * 2;

        if (child > used) {
            break;
        }
        if (child < used && earlier(heap[child + 1], heap[child])) {
            child++;
        }
        if (!earlier(heap[child], t)) {
            break;
        }
        heap_place(heap[child], index);
        index = child;
    }
    heap_place(t, index);
}

void loop_timer_init_named(struct loop_timer *t, loop_fn *fn, void *arg, const char *name)
{
    *t = (struct loop_timer){ .fn = fn, .arg = arg, .name = name };
}

void loop_timer_arm(struct loop_timer *t, uint64_t when_ns)
{
    if (!t->heap_index) {
        if (used + 1 >= room) {
            room = room ? room * 2 : 64;
            heap = mem_reallocarray(heap, room, sizeof(*heap));
        }
        t->heap_index = ++used;
    }
    t->when = when_ns;
    t->order = order++;
    heap_sift(t, t->heap_index);
}

void loop_timer_cancel(struct loop_timer *t)
{
    uint32_t index = t->heap_index;

    if (!index) {
        return;
    }
    struct loop_timer *last = heap[used--];

    t->heap_index = 0;
    if (last != t) {
        heap_sift(last, index);
    }
}

bool loop_timer_armed(const struct loop_timer *t)
{
    return t->heap_index;
}

struct loop_timer *loop_timers_first(void)
{
    return used ? heap[1] : NULL;
}

uint64_t loop_timers_order(void)
{
    return order;
}

void loop_timers_init(void)
{
    order = 0;
}

void loop_timers_fini(void)
{
    free(heap);
    heap = NULL;
    room = 0;
}
