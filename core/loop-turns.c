/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who held the loop: see loop-turns.h. Called for every callback, so what is usual costs a few instructions: a name enters
 * the list only when its hold is a long one, and longer than the shortest one there.
 */
#include "core/loop-turns.h"

#include <string.h>

#include "core/mem.h"

#define NOTABLE_NS 16000

struct loop_turns loop_turns;

void loop_turns_reset(uint64_t now_ns)
{
    loop_turns = (struct loop_turns){ .since_ns = now_ns };
}

static unsigned class_of(uint64_t ns)
{
    uint64_t us = ns / 1000;

    return us ? MIN(64u - (unsigned)__builtin_clzll(us), LOOP_HOLD_CLASSES - 1u) : 0;
}

/* Names are compared by their text: each file has its own copy of a name. */
static unsigned place_of(const char *name)
{
    unsigned i = 0;

    while (i < LOOP_HOLDERS - 1 && loop_turns.longest[i].name && strcmp(loop_turns.longest[i].name, name) != 0) {
        i++;
    }
    return i;
}

__attribute__((noinline)) /* it is rare */
static void note_long(const char *name, uint64_t ns, uint64_t work_ns, uint64_t now_ns)
{
    struct loop_holder *list = loop_turns.longest;
    unsigned i = place_of(name);

    if (list[i].name && ns <= list[i].ns) {
        return;
    }
    for (; i > 0 && list[i - 1].ns < ns; i--) {
        list[i] = list[i - 1];
    }
    list[i] = (struct loop_holder){ .name = name, .ns = ns, .work_ns = work_ns, .at_ns = now_ns };
}

void loop_turns_held(const char *name, uint64_t ns, uint64_t work_ns, uint64_t now_ns)
{
    loop_turns.holds++;
    loop_turns.held_ns += ns;
    loop_turns.classes[class_of(ns)]++;
    loop_turns.longest_ns = MAX(loop_turns.longest_ns, ns);
    loop_turns.longest_work_ns = MAX(loop_turns.longest_work_ns, work_ns);
    if (ns >= NOTABLE_NS && ns > loop_turns.longest[LOOP_HOLDERS - 1].ns) {
        note_long(name, ns, work_ns, now_ns);
    }
}

uint64_t loop_turns_percentile(const struct loop_turns *t, unsigned thousandths)
{
    uint64_t above = 0, allowed = (unsigned __int128)t->holds * (1000 - thousandths) / 1000;

    for (unsigned i = LOOP_HOLD_CLASSES; i-- > 0;) {
        above += t->classes[i];
        if (above > allowed) {
            return MIN(1000ull << i, t->longest_ns);
        }
    }
    return 0;
}
