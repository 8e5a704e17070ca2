/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop: who runs when.  One per process, on the main thread.
 *
 * A turn: run what is ready (woken coroutines, deferred calls) in the order it became ready; submit
 * batched I/O; if nothing is ready, wait for file descriptors and timers; dispatch them.
 *
 * Time and chance come from here and nowhere else.  The clock is real (CLOCK_MONOTONIC) or virtual.
 * The virtual clock starts at 0 and stands still while anything is ready; when nothing is, it jumps to the next timer.
 * With the virtual clock the I/O engine completes requests from timers with seeded latencies, so a run with the same seed
 * and script is the same run, byte for byte.  File descriptors are then polled without
 * waiting before each jump, and waited for only when no timer is armed.
 */
#ifndef CORE_LOOP_H
#define CORE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/random.h"

enum loop_clock { LOOP_CLOCK_REAL, LOOP_CLOCK_VIRTUAL };

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

void loop_init(enum loop_clock clock, uint64_t seed);
/* Everything armed, watched or deferred must be gone. */
void loop_fini(void);
bool loop_is_virtual(void);

/* Nanoseconds on the loop's clock (cached at most for the length of one callback on the real clock: it is read anew at
 * each call). */
uint64_t loop_now(void);
/* Microseconds since 1970 for event timestamps; on the virtual clock loop_now() / 1000. */
uint64_t loop_wall_us(void);
/* For how long it is the caller's turn: whoever has much to do looks now and then, and lets others go on (co_yield()). */
uint64_t loop_held_ns(void);

/* The program's seeded generator: 64 random bits; a number below `bound` (> 0). */
uint64_t loop_random(void);
uint64_t loop_random_below(uint64_t bound);
/* Begin the sequence anew, so that what follows does not depend on what came before. */
void loop_random_seed(uint64_t seed);
/* A number of the host's, for a seed that nobody gave; 1 when it has none.  Before loop_init(), too. */
uint64_t loop_entropy(void);

/* Who held the loop for how long: core/loop-turns.h.  The macros below hand on the names of functions for it. */

/* --- Timers ------------------------------------------------------------------------------------------ */
typedef void loop_fn(void *arg);
struct loop_timer {
    uint64_t when;      /* ns on loop_now()'s clock */
    uint64_t order;     /* timers of one instant fire in the order they were armed */
    loop_fn *fn;
    void *arg;
    const char *name;    /* of fn, for `info loop` */
    uint32_t heap_index; /* 0 = not armed */
};
#define loop_timer_init(t, fn, arg) loop_timer_init_named(t, fn, arg, #fn)
void loop_timer_init_named(struct loop_timer *t, loop_fn *fn, void *arg, const char *name);
/* Arm for the absolute time `when_ns` (re-arming moves it).  It fires once, on the loop's stack. */
void loop_timer_arm(struct loop_timer *t, uint64_t when_ns);
void loop_timer_cancel(struct loop_timer *t); /* no-op when not armed */
bool loop_timer_armed(const struct loop_timer *t);

/* --- Deferred calls: run in the next turn, first in first out. -------------------------------------- */
struct loop_task {
    STAILQ_ENTRY(loop_task) link;
    loop_fn *fn;
    void *arg;
    const char *name;
    bool queued;
};
#define loop_defer(task, fn, arg) loop_defer_named(task, fn, arg, #fn)
void loop_defer_named(struct loop_task *task, loop_fn *fn, void *arg, const char *name); /* asserts that it is not queued */

/* --- File descriptors --------------------------------------------------------------------------------- */
#define LOOP_READ 1u
#define LOOP_WRITE 2u
struct loop_watch;
typedef void loop_watch_fn(void *arg, unsigned events); /* LOOP_READ | LOOP_WRITE; hang-ups show as both */
#define loop_watch(fd, events, fn, arg) loop_watch_named(fd, events, fn, arg, #fn)
struct loop_watch *loop_watch_named(int fd, unsigned events, loop_watch_fn *fn, void *arg, const char *name);
void loop_watch_events(struct loop_watch *w, unsigned events); /* change; 0 pauses */
void loop_unwatch(struct loop_watch *w); /* safe from within any callback */

/* --- Pollers: engines that batch.  `submit` runs at the end of each turn before the loop may wait.  `before_sleep` (may be
 * NULL) runs when it will wait, unless this makes something ready; it may take some microseconds.  It says whether threads of
 * ours are at work, which need the processors more than a loop that looks for news instead of sleeping. ------ */
struct loop_poller {
    LIST_ENTRY(loop_poller) link;
    loop_fn *submit;
    bool (*before_sleep)(void *arg);
    void *arg;
};
void loop_poller_add(struct loop_poller *p);
void loop_poller_remove(struct loop_poller *p);

/* Run turns until done(arg) is true (checked between turns). */
void loop_run_until(bool (*done)(void *arg), void *arg);
/* Run `fn(arg)` in a coroutine and turn the loop until it has ended: the bridge from main() and from tests. */
void loop_run_co(void (*fn)(void *arg), void *arg);
/* Leave the innermost loop_run_until() at the end of the turn, whatever done() says. */
void loop_wakeup_quit(void);

#endif
