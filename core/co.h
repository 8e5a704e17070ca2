/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stackful coroutines on the loop's thread, and what they wait on.
 *
 * Whatever may wait is a coroutine; a function that may suspend carries the prefix co_ and may be
 * called from a coroutine only.  A coroutine runs until it suspends; nothing preempts it, so plain
 * data needs no locks, and co_mutex is only for sections that suspend in the middle.
 *
 *        co_start()                 co_suspend()
 *   new ------------> running <-----------------> suspended
 *                        | return        co_wake() puts it in the loop's ready queue; it runs in a
 *                        v               later turn, never inside co_wake(), so a waker keeps its
 *                      done (stack pooled)  invariants.
 */
#ifndef CORE_CO_H
#define CORE_CO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct co;
typedef void co_entry(void *arg);

/* Marks the definition of a coroutine's entry function (checked by scripts/check-co). */
#define CO_ENTRY

/* Make a coroutine and run it at once, until it first suspends or ends; may be called from the loop or from another
 * coroutine (which then continues afterwards).  Its stack is freed (pooled) when it returns. */
#define co_start(entry, arg) co_start_named(entry, arg, #entry)
void co_start_named(co_entry *entry, void *arg, const char *name);
/* As co_start(), but it first runs in the next turn of the loop. */
#define co_start_later(entry, arg) co_start_later_named(entry, arg, #entry)
void co_start_later_named(co_entry *entry, void *arg, const char *name);
/* The running coroutine, NULL on the loop's own stack. */
struct co *co_self(void);
/* Suspend the running coroutine until somebody calls co_wake() on it.  Spurious wake-ups do not happen: each wake
 * ends exactly one suspend; a wake of a coroutine that is not suspended is a bug and asserts. */
void co_suspend(void);
void co_wake(struct co *co);
/* Let everything that is ready run, then continue (in a later turn of the loop). */
void co_yield(void);
/* In loops that may go on for long without waiting: lets others go on when our turn has lasted for a millisecond. */
void co_take_turns(void);
void co_sleep_ns(uint64_t ns);
/* Coroutines alive, for leak checks and `info loop`. */
size_t co_count(void);
/* Free pooled stacks. */
void co_pool_drain(void);

/* --- A queue of waiting coroutines: first in, first out. ----------------------------------------- */
struct co_waiter; /* lives on the waiting coroutine's stack */
struct co_queue {
    TAILQ_HEAD(co_waiters, co_waiter) waiters;
};
#define CO_QUEUE_INIT(q) { .waiters = TAILQ_HEAD_INITIALIZER((q).waiters) }
void co_queue_init(struct co_queue *q);
void co_queue_wait(struct co_queue *q) /* suspends */;
bool co_queue_wake_one(struct co_queue *q);  /* false when nobody waited */
void co_queue_wake_all(struct co_queue *q);
bool co_queue_empty(const struct co_queue *q);

/* --- A lock whose holder may suspend; fair. -------------------------------------------------------- */
struct co_mutex {
    struct co *holder;
    struct co_queue queue;
};
void co_mutex_init(struct co_mutex *m);
void co_mutex_lock(struct co_mutex *m) /* suspends while another holds it */;
void co_mutex_unlock(struct co_mutex *m); /* hands over to the first waiter */

/* --- A group of parallel children: start several, wait for all of them. ----------------------------- */
struct co_group {
    unsigned running;
    int error;           /* the first negative value passed to co_group_done() */
    struct co *waiter;
};
void co_group_init(struct co_group *g);
/* Count one more child in.  The child must call co_group_done() once, as its last act. */
void co_group_add(struct co_group *g);
void co_group_done(struct co_group *g, int ret);
/* Suspend until no child runs; returns the first error or 0. */
int co_group_wait(struct co_group *g);

#endif
