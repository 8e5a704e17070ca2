/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Worker threads for blocking system calls: a carrier of struct io_call (see io-engine.h).
 *
 *     loop's thread                                    workers
 *     call -> `batch` --- end of turn, one lock ---> `prompt` or `bulk` -> io_call_run()
 *     co_wake() <- whole list, one lock <- eventfd <------------------------- `finished`
 *
 * Both ways are batched: calls are handed over once a turn, and the eventfd is written only when
 * `finished` was empty.  A call belongs to the loop's thread before it is handed over and after it
 * was collected, to one worker in between.
 *
 * Bulk work (copies, compression, whole files) gets at most half of the threads, so that a guest's
 * request never waits behind it for a worker; more would not be faster, as it is bound by memory
 * and processors.
 *
 * Threads are made on demand, when work is handed over that no idle thread will take, and stay.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/co.h"

#define THREAD_BYTES (8u << 20) /* of its stack, usually */
#define THREADS_MAX 4

static unsigned threads_max;
static pthread_t threads[THREADS_MAX];
static unsigned thread_count;

/* The loop's thread only. */
static struct io_call_list batch = STAILQ_HEAD_INITIALIZER(batch);
static unsigned in_flight;
static int event_fd = -1;
static struct loop_watch *watch;
static struct loop_poller poller;

/* Under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct io_call_list prompt = STAILQ_HEAD_INITIALIZER(prompt);
static struct io_call_list bulk = STAILQ_HEAD_INITIALIZER(bulk);
static struct io_call_list finished = STAILQ_HEAD_INITIALIZER(finished);
static unsigned queued;       /* in prompt and bulk */
static unsigned idle;         /* workers that wait for `work` */
static unsigned bulk_running;
static bool ending;

/* --- Workers ---------------------------------------------------------------------------------- */

static struct io_call *take(void)
{
    struct io_call_list *list = &prompt;
    struct io_call *call = STAILQ_FIRST(list);

    if (!call && bulk_running < MAX(threads_max / 2, 1u)) {
        list = &bulk;
        call = STAILQ_FIRST(list);
    }
    if (call) {
        STAILQ_REMOVE_HEAD(list, link);
        queued--;
        bulk_running += call->bulk;
    }
    return call;
}

static void finish(struct io_call *call)
{
    bool first = STAILQ_EMPTY(&finished);
    uint64_t one = 1;

    bulk_running -= call->bulk;
    STAILQ_INSERT_TAIL(&finished, call, link);
    if (first) {
        /* Under the lock, so that the loop cannot empty `finished` in between and miss the next
         * one. Cannot fail or wait: the counter is far from its end. */
        ssize_t ret = write(event_fd, &one, sizeof(one));

        assert(ret == sizeof(one));
    }
}

static void *worker(void *arg)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        struct io_call *call = take();

        if (call) {
            pthread_mutex_unlock(&lock);
            io_call_run(call);
            pthread_mutex_lock(&lock);
            finish(call);
        } else if (ending) {
            break;
        } else {
            idle++;
            pthread_cond_wait(&work, &lock);
            idle--;
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Signals are the main thread's: a worker starts with all of them blocked. */
static void start_thread(void)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&threads[thread_count], NULL, worker, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!ret) {
        thread_count++;
    } else if (!thread_count) {
        fprintf(stderr, "merganser: cannot start a worker thread: %s\n", strerror(ret));
        mem_exhausted(THREAD_BYTES);
    }
}

/* --- The loop's side -------------------------------------------------------------------------- */

void io_pool_submit(void)
{
    struct io_call *call;
    unsigned wanted, starting;

    if (STAILQ_EMPTY(&batch)) {
        return;
    }
    io_stats.submissions++;
    pthread_mutex_lock(&lock);
    while ((call = STAILQ_FIRST(&batch))) {
        STAILQ_REMOVE_HEAD(&batch, link);
        STAILQ_INSERT_TAIL(call->bulk ? &bulk : &prompt, call, link);
        queued++;
    }
    wanted = queued;
    starting = wanted > idle ? MIN(wanted - idle, threads_max - thread_count) : 0;
    for (unsigned n = MIN(wanted, idle); n; n--) {
        pthread_cond_signal(&work);
    }
    pthread_mutex_unlock(&lock);
    while (starting--) {
        start_thread();
    }
}

static void end_of_turn(void *arg)
{
    io_pool_submit();
}

static void pool_collect(void *arg, unsigned events)
{
    struct io_call_list list = STAILQ_HEAD_INITIALIZER(list);
    struct io_call *call;
    uint64_t count;

    pthread_mutex_lock(&lock);
    if (read(event_fd, &count, sizeof(count)) < 0) {
        assert(errno == EAGAIN);
    }
    STAILQ_CONCAT(&list, &finished);
    pthread_mutex_unlock(&lock);
    while ((call = STAILQ_FIRST(&list))) {
        STAILQ_REMOVE_HEAD(&list, link);
        in_flight--;
        co_wake(call->co);
    }
}

void io_pool_send(struct io_call *call)
{
    in_flight++;
    STAILQ_INSERT_TAIL(&batch, call, link);
}

ssize_t co_io_pool_call(struct io_call *call)
{
    call->co = co_self();
    io_pool_send(call);
    co_suspend();
    return call->result;
}

void io_pool_init(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    assert(event_fd < 0);
    threads_max = MIN((unsigned)MAX(cpus, 1L) + 2, (unsigned)THREADS_MAX);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0) {
        fprintf(stderr, "merganser: cannot create an eventfd: %s\n", strerror(errno));
        abort();
    }
    watch = loop_watch(event_fd, LOOP_READ, pool_collect, NULL);
    poller.submit = end_of_turn;
    loop_poller_add(&poller);
}

void io_threads_end(void)
{
    pthread_mutex_lock(&lock);
    ending = true;
    pthread_cond_broadcast(&work);
    pthread_mutex_unlock(&lock);
    while (thread_count) {
        pthread_join(threads[--thread_count], NULL);
    }
    ending = false;
}

void io_pool_fini(void)
{
    assert(!in_flight);
    io_threads_end();
    loop_poller_remove(&poller);
    loop_unwatch(watch);
    close(event_fd);
    event_fd = -1;
}
