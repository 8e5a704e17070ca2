/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who held the loop, and for how long.
 *
 * Everything that runs on the loop's thread is a callback or a stretch of a coroutine between two suspensions. While one
 * runs nobody else does, guests included, so each is measured: the longest ones are kept with the name of the function
 * that was called (for a coroutine: its entry), all are counted in classes by length.
 *
 * Times are on the wall: a guest waits as long whoever had the processor. How much of it was work of our own is told beside it.
 *
 * On the virtual clock they take no time by definition; there only the counters count.
 */
#ifndef CORE_LOOP_TURNS_H
#define CORE_LOOP_TURNS_H

#include <stdint.h>

#define LOOP_HOLD_CLASSES 24 /* class i: less than 2^i microseconds; the last one takes the rest */
#define LOOP_HOLDERS 8

struct loop_holder {
    const char *name;  /* of the function; NULL: the rest of the list is empty */
    uint64_t ns;       /* its longest hold */
    uint64_t work_ns;  /* of that the thread had a processor for so long at most */
    uint64_t at_ns;    /* when that ended, on loop_now()'s clock */
};

struct loop_turns {
    uint64_t since_ns;                   /* begun anew at this time, on loop_now()'s clock */
    uint64_t turns;                      /* of the loop */
    uint64_t holds;                      /* callbacks called and coroutines resumed */
    uint64_t held_ns;                    /* their time together */
    uint64_t longest_ns;                 /* of one */
    uint64_t longest_work_ns;            /* the most that one of them can have worked */
    uint64_t classes[LOOP_HOLD_CLASSES];
    struct loop_holder longest[LOOP_HOLDERS]; /* one per name, the longest first; those of 16 us and more */
};
extern struct loop_turns loop_turns;

/* Begin anew. */
void loop_turns_reset(uint64_t now_ns);
/* For the loop: `name` (a string that lives for ever) has held it for `ns` until `now_ns`, and worked for `work_ns` of that at
 * most. */
void loop_turns_held(const char *name, uint64_t ns, uint64_t work_ns, uint64_t now_ns);
/* All but `thousandths` of a thousand holds were shorter than this, ns; 0 when there was none. */
uint64_t loop_turns_percentile(const struct loop_turns *t, unsigned thousandths);

#endif
