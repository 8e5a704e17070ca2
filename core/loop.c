/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop: see loop.h for the contract.
 *
 * A turn has four parts, always in this order:
 *
 *     1. submit    pollers hand their batches to the kernel
 *     2. wait      for descriptors and the next timer, not at all while something is ready; on the
 *                  virtual clock descriptors are looked at, then time jumps
 *     3. dispatch  descriptors, then due timers in the order (time, armed)
 *     4. ready     everything that is ready by now, first in first out; what becomes ready
 *                  meanwhile waits for the next turn, so nobody starves the rest
 *
 * "Done?" is asked after 4: never would the loop wait when the last thing to do has just been done.
 *
 * The turn's state lives in statics, not on the stack, so a callback may run an inner loop.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/co.h"
#include "core/loop-timers.h"
#include "core/loop-turns.h"
#include "core/mem.h"
#include "core/patience.h"

/* While coroutines keep each other ready, descriptors are looked at every so many turns only: a
 * look is a system call, a turn may be as short as a coroutine switch. */
#define BUSY_TURNS_PER_POLL 16
#define BUSY_TURNS_PER_LOOK 4
#define EVENTS_PER_POLL 64

static enum loop_clock clock_kind;
static uint64_t virtual_now;
static struct random generator;
static unsigned run_depth;
static bool quit;

/* --- Clock ------------------------------------------------------------------------------------ */

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

bool loop_is_virtual(void)
{
    return clock_kind == LOOP_CLOCK_VIRTUAL;
}

uint64_t loop_now(void)
{
    return loop_is_virtual() ? virtual_now : read_clock(CLOCK_MONOTONIC);
}

uint64_t loop_wall_us(void)
{
    return (loop_is_virtual() ? virtual_now : read_clock(CLOCK_REALTIME)) / 1000;
}

/* --- Who held the loop (loop-turns.h) ----------------------------------------------------------- */

/* One reading of the clock per callback: the end of one is the beginning of the next.  On the
 * virtual clock a callback takes no time by definition, and real times would make two equal runs
 * differ. */
static uint64_t held_since;

/*
 * Of a long hold it matters whether it was work or a wait for a processor, which others had meanwhile.  The thread's own clock is a
 * system call, so it is read when it has not been for so long: what was done since then counts as the hold's, too.
 */
#define LONG_HOLD_NS (NS_PER_MS / 4)
static uint64_t worked_at, worked; /* by worked_at, which is not after held_since, this thread had worked so long */

static void note_work(uint64_t now)
{
    worked_at = now;
    worked = loop_is_virtual() ? 0 : read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static void hold_begin(void)
{
    held_since = loop_now();
    if (held_since - worked_at >= LONG_HOLD_NS) {
        note_work(held_since);
    }
}

uint64_t loop_held_ns(void)
{
    return loop_now() - held_since;
}

__attribute__((noinline)) /* as look_for_events() */
static void end_with_work(const char *name, uint64_t ns, uint64_t now)
{
    uint64_t before = worked;

    note_work(now);
    loop_turns_held(name, ns, MIN(worked - before, ns), now);
}

static void hold_end(const char *name)
{
    uint64_t now = loop_now(), ns = now - held_since;

    held_since = now;
    if (now - worked_at < LONG_HOLD_NS) {
        loop_turns_held(name, ns, ns, now);
    } else {
        end_with_work(name, ns, now);
    }
}

/* --- Chance ----------------------------------------------------------------------------------- */

uint64_t loop_entropy(void)
{
    uint64_t n;

    return getrandom(&n, sizeof(n), 0) == sizeof(n) ? n : 1;
}

uint64_t loop_random(void)
{
    return random_next(&generator);
}

void loop_random_seed(uint64_t seed)
{
    random_seed(&generator, seed);
}

uint64_t loop_random_below(uint64_t bound)
{
    return random_below(&generator, bound);
}

/* --- Timers ----------------------------------------------------------------------------------- */

/* Fire what is due now.  A timer armed by one of the callbacks waits for the next turn even if it
 * is due, so what the first ones woke runs before it. */
static void fire_timers(void)
{
    struct loop_timer *t = loop_timers_first();
    uint64_t now, limit = loop_timers_order();

    if (!t) {
        return;
    }
    for (now = loop_now(); t && t->when <= now && t->order < limit; t = loop_timers_first()) {
        const char *name = t->name;

        loop_timer_cancel(t);
        t->fn(t->arg); /* may free the timer */
        hold_end(name);
    }
}

/* --- The ready queue -------------------------------------------------------------------------- */

static STAILQ_HEAD(, loop_task) ready = STAILQ_HEAD_INITIALIZER(ready);
static size_t ready_count;

void loop_defer_named(struct loop_task *task, loop_fn *fn, void *arg, const char *name)
{
    assert(!task->queued);
    task->fn = fn;
    task->arg = arg;
    task->name = name;
    task->queued = true;
    STAILQ_INSERT_TAIL(&ready, task, link);
    ready_count++;
}

static void run_ready(void)
{
    /* An inner loop may empty the queue under us: hence both conditions. */
    for (size_t n = ready_count; n && ready_count; n--) {
        struct loop_task *task = STAILQ_FIRST(&ready);
        const char *name = task->name;

        STAILQ_REMOVE_HEAD(&ready, link);
        ready_count--;
        task->queued = false;
        task->fn(task->arg); /* may free the task */
        hold_end(name);
    }
}

/* --- Pollers ---------------------------------------------------------------------------------- */

static LIST_HEAD(, loop_poller) pollers = LIST_HEAD_INITIALIZER(pollers);

void loop_poller_add(struct loop_poller *p)
{
    LIST_INSERT_HEAD(&pollers, p, link);
}

void loop_poller_remove(struct loop_poller *p)
{
    LIST_REMOVE(p, link);
}

static void submit(void)
{
    struct loop_poller *next;

    for (struct loop_poller *p = LIST_FIRST(&pollers); p; p = next) {
        next = LIST_NEXT(p, link); /* it may remove itself */
        p->submit(p->arg);
    }
    hold_end("submission of I/O");
}

/* Are threads of ours at work? */
static bool before_sleep(void)
{
    bool at_work = false;
    struct loop_poller *p;

    LIST_FOREACH(p, &pollers, link) {
        if (p->before_sleep && p->before_sleep(p->arg)) {
            at_work = true;
        }
    }
    hold_begin(); /* looking for news is waiting */
    return at_work;
}

/* --- File descriptors ------------------------------------------------------------------------- */

struct loop_watch {
    LIST_ENTRY(loop_watch) link; /* in `watches`, or in `dead_watches`: see dispatch() */
    int fd;
    unsigned events;
    bool plain; /* a regular file: epoll refuses it, it is always ready */
    bool in_epoll;
    bool dead;
    loop_watch_fn *fn;
    void *arg;
    const char *name;
};

static int epoll_fd = -1;
static LIST_HEAD(watch_list, loop_watch) watches = LIST_HEAD_INITIALIZER(watches);
static struct watch_list dead_watches = LIST_HEAD_INITIALIZER(dead_watches);
static unsigned in_epoll_count;
static unsigned plain_count; /* regular files that somebody wants to hear of */
static unsigned dispatch_depth;
static unsigned busy_turns;
static struct patience patience; /* for descriptors */

static void watch_apply(struct loop_watch *w, unsigned events)
{
    struct epoll_event event = { .data.ptr = w };
    int op;

    event.events = (events & LOOP_READ ? EPOLLIN : 0) | (events & LOOP_WRITE ? EPOLLOUT : 0);
    if (w->plain) {
        plain_count += !!events - !!w->events;
    } else if (events || w->in_epoll) {
        /* A paused watch leaves the set: epoll would report its hang-up again and again. */
        op = !events ? EPOLL_CTL_DEL : w->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        if (!epoll_ctl(epoll_fd, op, w->fd, &event)) {
            in_epoll_count += !!events - w->in_epoll;
            w->in_epoll = events;
        } else if (op == EPOLL_CTL_ADD && errno == EPERM) {
            w->plain = true;
            plain_count++;
        } else if (op == EPOLL_CTL_DEL) {
            /* Closed before it was unwatched: the kernel has forgotten it already. */
            in_epoll_count--;
            w->in_epoll = false;
        } else {
            fprintf(stderr, "merganser: cannot watch file descriptor %d: %s\n", w->fd,
                    strerror(errno));
            abort();
        }
    }
    w->events = events;
}

struct loop_watch *loop_watch_named(int fd, unsigned events, loop_watch_fn *fn, void *arg,
                                    const char *name)
{
    struct loop_watch *w = mem_zalloc(sizeof(*w));

    w->fd = fd;
    w->fn = fn;
    w->arg = arg;
    w->name = name;
    LIST_INSERT_HEAD(&watches, w, link);
    watch_apply(w, events);
    return w;
}

void loop_watch_events(struct loop_watch *w, unsigned events)
{
    assert(!w->dead);
    if (events != w->events) {
        watch_apply(w, events);
    }
}

void loop_unwatch(struct loop_watch *w)
{
    assert(!w->dead);
    watch_apply(w, 0);
    LIST_REMOVE(w, link);
    if (!dispatch_depth) {
        free(w);
        return;
    }
    w->dead = true;
    LIST_INSERT_HEAD(&dead_watches, w, link);
}

static void call_watch(struct loop_watch *w, unsigned events)
{
    if (!w->dead && w->events) {
        w->fn(w->arg, events);
        hold_end(w->name); /* an unwatched one is freed after the dispatch */
    }
}

static unsigned watch_bits(uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP)) {
        return LOOP_READ | LOOP_WRITE;
    }
    return (events & EPOLLIN ? LOOP_READ : 0) | (events & EPOLLOUT ? LOOP_WRITE : 0);
}

static void dispatch(const struct epoll_event *events, int count)
{
    struct loop_watch *w, *next;

    dispatch_depth++;
    for (int i = 0; i < count; i++) {
        call_watch(events[i].data.ptr, watch_bits(events[i].events));
    }
    if (plain_count) {
        for (w = LIST_FIRST(&watches); w; w = next) {
            if (w->plain) {
                call_watch(w, w->events);
            }
            /* Unwatched by its own callback, it links dead ones: the rest has its turn next
             * time. */
            next = w->dead ? NULL : LIST_NEXT(w, link);
        }
    }
    if (--dispatch_depth) {
        return;
    }
    while ((w = LIST_FIRST(&dead_watches))) {
        LIST_REMOVE(w, link);
        free(w);
    }
}

/* How many have come, after at most `ns` (UINT64_MAX: for ever); -1 when a signal did. */
static int await(struct epoll_event *events, uint64_t ns)
{
    static bool no_pwait2;
    int count = -1;

    if (!no_pwait2) {
        struct timespec ts = { .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S };

        count = epoll_pwait2(epoll_fd, events, EVENTS_PER_POLL, ns == UINT64_MAX ? NULL : &ts,
                             NULL);
        no_pwait2 = count < 0 && errno == ENOSYS;
    }
    if (no_pwait2) {
        /* Milliseconds, rounded up: a timer a little late is better than spinning. */
        uint64_t ms = DIV_ROUND_UP(MIN(ns, UINT64_MAX - NS_PER_MS), NS_PER_MS);

        count = epoll_wait(epoll_fd, events, EVENTS_PER_POLL,
                           ns == UINT64_MAX ? -1 : (int)MIN(ms, (uint64_t)INT_MAX));
    }
    assert(count >= 0 || errno == EINTR);
    return count;
}

/* A client that reads one block after the other asks for the next one 5 us after an answer; to be woken for it takes as long. */
__attribute__((noinline)) /* tests/counters knows its name: how often it asks is a matter of time */
static int look_for_events(struct epoll_event *events)
{
    uint64_t end;
    int count;

    if (!patience_has(&patience)) {
        return 0;
    }
    end = loop_now() + PATIENCE_NS;
    do {
        count = await(events, 0);
    } while (!count && loop_now() < end);
    patience_learn(&patience, count);
    return count;
}

/* Wait at most `ns` (UINT64_MAX: for ever) and dispatch what has come.  `look`: not asleep at first. */
static void poll_descriptors(uint64_t ns, bool look)
{
    struct epoll_event events[EVENTS_PER_POLL];
    int count = 0;

    if (!in_epoll_count && !plain_count && !ns) {
        return;
    }
    if (plain_count) {
        ns = 0; /* somebody is ready already */
    }
    if (look && ns > PATIENCE_NS) {
        count = look_for_events(events);
    }
    if (!count) {
        count = await(events, ns);
    }
    hold_begin();
    dispatch(events, MAX(count, 0));
}

/* --- Turns ------------------------------------------------------------------------------------ */

static void must_have_something_to_wait_for(void)
{
    if (!in_epoll_count && !plain_count && !loop_timers_first()) {
        fprintf(stderr, "merganser: deadlock: nothing is ready, armed or watched "
                        "(%zu coroutines wait)\n", co_count());
        abort();
    }
}

static void wait_virtual(void)
{
    const struct loop_timer *next;

    if (ready_count) {
        return;
    }
    must_have_something_to_wait_for();
    before_sleep();
    poll_descriptors(loop_timers_first() || ready_count ? 0 : UINT64_MAX, false);
    next = loop_timers_first();
    if (!ready_count && next) {
        virtual_now = MAX(virtual_now, next->when);
        hold_begin();
        fire_timers();
    }
}

static void wait_real(void)
{
    uint64_t ns = UINT64_MAX;
    const struct loop_timer *next;
    bool at_work = false;

    if (!ready_count) {
        at_work = before_sleep();
        busy_turns += BUSY_TURNS_PER_LOOK; /* it took as long as so many turns */
    }
    if (ready_count) {
        if (++busy_turns >= BUSY_TURNS_PER_POLL) {
            busy_turns = 0;
            poll_descriptors(0, false);
        }
        fire_timers();
        return;
    }
    must_have_something_to_wait_for();
    next = loop_timers_first();
    if (next) {
        uint64_t now = loop_now();

        ns = next->when > now ? next->when - now : 0;
    }
    poll_descriptors(ns, !at_work);
    fire_timers();
}

static void turn(void)
{
    loop_turns.turns++;
    if (mem_is_low) {
        mem_recover();
    }
    submit();
    if (loop_is_virtual()) {
        wait_virtual();
    } else {
        wait_real();
    }
    run_ready();
}

void loop_run_until(bool (*done)(void *arg), void *arg)
{
    assert(!co_self());
    run_depth++;
    hold_begin();
    while (!done || !done(arg)) {
        turn();
        if (quit) {
            quit = false;
            break;
        }
    }
    run_depth--;
}

void loop_wakeup_quit(void)
{
    assert(run_depth);
    quit = true;
}

struct bridge {
    loop_fn *fn;
    void *arg;
    bool done;
};

static void bridge_entry(void *arg)
{
    struct bridge *bridge = arg;

    bridge->fn(bridge->arg);
    bridge->done = true;
}

static bool bridge_done(void *arg)
{
    return ((struct bridge *)arg)->done;
}

void loop_run_co(void (*fn)(void *arg), void *arg)
{
    struct bridge bridge = { .fn = fn, .arg = arg };

    co_start(bridge_entry, &bridge);
    while (!bridge.done) { /* loop_wakeup_quit() does not end it: the coroutine uses our stack */
        loop_run_until(bridge_done, &bridge);
    }
}

/* --- Life ------------------------------------------------------------------------------------- */

void loop_init(enum loop_clock clock, uint64_t seed)
{
    assert(epoll_fd < 0);
    mem_init();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) {
        fprintf(stderr, "merganser: cannot create an epoll instance: %s\n", strerror(errno));
        abort();
    }
    clock_kind = clock;
    virtual_now = 0;
    loop_timers_init();
    busy_turns = 0;
    loop_turns_reset(loop_now());
    quit = false;
    random_seed(&generator, seed);
}

void loop_fini(void)
{
    assert(!ready_count && !loop_timers_first() && LIST_EMPTY(&watches) && LIST_EMPTY(&pollers));
    assert(!run_depth && !dispatch_depth);
    loop_timers_fini();
    close(epoll_fd);
    epoll_fd = -1;
    co_pool_drain();
}
