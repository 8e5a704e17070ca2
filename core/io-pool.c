/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Worker threads for blocking system calls: a carrier of struct io_call (see io-engine.h).
 *
 *     loop's thread                                    workers
 *     call -> `batch` --- end of turn, one lock ---> `prompt` or `bulk` -> io_call_run()
 *     co_wake() <- whole list, one lock <------------------------------------ `finished`
 *
 * Both ways are batched: calls are handed over once a turn, and what is finished is looked for once
 * a turn; the eventfd is written only when the loop is asleep (sleep_lightly()).  A call belongs to the loop's thread
 * before it is handed over and after it was collected, to one worker in between.
 *
 * Waking a thread costs 20 us here, ten times a write into the page cache.  So both sides look
 * for news before they sleep, as long as it pays (core/patience.h): one worker for calls, the loop for what is finished.
 *
 * Writes of one file wait for each other in the kernel anyway (its inode's lock), so they are one
 * lane that one worker serves, and no other worker is kept from other files' work by it.  Two workers
 * that copy 64 KiB at a time into one file through the page cache take twice the processor time of one.
 *
 * Bulk work (copies, compression, whole files) has threads of its own, half as many, so that a guest's
 * request never waits behind it for a worker; more would not be faster, as it is bound by memory
 * and processors.  Nor does a guest's request wait behind it for a processor: bulk threads go last of
 * those in their scheduling class, with their fair share (core/precedence.h).
 *
 * Threads are made on demand, when work is handed over that no idle thread will take, and stay.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/co.h"
#include "core/patience.h"
#include "core/precedence.h"

#define THREAD_BYTES (8u << 20) /* of its stack, usually */
#define THREADS_MAX 4
#define DESCRIPTORS 16384
#define NAP_NS 100000u

/* Workers of one kind. */
struct crew {
    void *(*worker)(void *arg);
    unsigned max, count;
    pthread_t threads[THREADS_MAX];
};
static void *worker(void *arg), *bulk_worker(void *arg);
static struct crew workers = { .worker = worker }, bulk_workers = { .worker = bulk_worker };

/* The loop's thread only. */
static struct io_call_list batch = STAILQ_HEAD_INITIALIZER(batch);
static unsigned in_flight;
static int event_fd = -1;
static struct loop_watch *watch;
static struct loop_poller poller;
static struct loop_timer nap;
static bool restless;         /* the last nap ended with nothing finished */

/* Under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, bulk_work = PTHREAD_COND_INITIALIZER;
static struct io_call_list prompt = STAILQ_HEAD_INITIALIZER(prompt);
static struct io_call_list bulk = STAILQ_HEAD_INITIALIZER(bulk);
static struct io_call_list finished = STAILQ_HEAD_INITIALIZER(finished);
static unsigned idle;         /* workers that wait for `work` */
static unsigned bulk_idle;    /* workers that wait for `bulk_work` */
static atomic_uint bulk_queued; /* calls */
static bool spinning;         /* one worker looks for calls, awake */
static unsigned awaited;      /* 0: the loop is awake; else it wants the eventfd written when so many are finished ... */
static int loop_cpu;          /* ... by a worker on this processor, where it went to sleep; else one is enough */

/* Changed under the lock, looked at without it by those who spin. */
static atomic_uint queued;    /* in prompt */
static atomic_uint done;      /* in finished */
static atomic_bool ending;

static struct patience of_loop; /* the loop's thread only */
static struct patience of_workers; /* whoever sets `spinning` */

/* --- Looking for news ------------------------------------------------------------------------- */

static bool may_look(struct patience *p)
{
    return patience_has(p) && !loop_is_virtual(); /* whose clock stands still */
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Look until there is something, for a short while.  Takes no lock. */
static bool look(struct patience *p, atomic_uint *news)
{
    uint64_t end = loop_now() + PATIENCE_NS;
    bool found;

    while (!(found = atomic_load_explicit(news, memory_order_acquire)) && loop_now() < end &&
           !atomic_load_explicit(&ending, memory_order_relaxed)) {
        relax();
    }
    patience_learn(p, found);
    return found;
}

/* --- Workers ---------------------------------------------------------------------------------- */

static struct io_call *take(struct io_call_list *list)
{
    struct io_call *call = STAILQ_FIRST(list);

    if (call) {
        STAILQ_REMOVE_HEAD(list, link);
    }
    return call;
}

/* The next of the call's lane.  The call may be gone as soon as it is finished, and the lane with
 * the last one. */
static struct io_call *take_next(struct io_call *call)
{
    struct io_call *next = NULL;

    if (call->lane) {
        next = STAILQ_FIRST(&call->lane->calls);
        if (next) {
            STAILQ_REMOVE_HEAD(&call->lane->calls, link);
        } else {
            call->lane->busy = false;
        }
    }
    return next;
}

/* True when the loop must be woken.  `more`: who finished this one goes on with another. */
static bool finish(struct io_call *call, bool more)
{
    bool wake;

    STAILQ_INSERT_TAIL(&finished, call, link);
    done++;
    wake = awaited && (!more || done >= awaited || sched_getcpu() != loop_cpu);
    if (wake) {
        awaited = 0;
    }
    return wake;
}

/* Without the lock. */
static void wake_loop(void)
{
    uint64_t one = 1;
    /* Cannot fail or wait: the counter is far from its end. */
    ssize_t ret = write(event_fd, &one, sizeof(one));

    assert(ret == sizeof(one));
}

/* Lock held; released meanwhile.  `list` is where the call was taken from, of `*length` calls. */
static void carry_out(struct io_call *call, struct io_call_list *list, atomic_uint *length)
{
    while (call) {
        struct io_call *next;
        bool wake;

        pthread_mutex_unlock(&lock);
        io_call_run(call);
        pthread_mutex_lock(&lock);
        next = take_next(call);
        if (next && *length) { /* others have waited for longer than the lane's next */
            STAILQ_INSERT_TAIL(list, next, link);
            ++*length;
            next = NULL;
        }
        wake = finish(call, next || *length);
        if (wake) {
            pthread_mutex_unlock(&lock);
            wake_loop();
            pthread_mutex_lock(&lock);
        }
        call = next;
    }
}

/* Lock held; released meanwhile.  There may be work afterwards, or not. */
static void wait_for_work(void)
{
    if (!spinning && !queued && may_look(&of_workers)) {
        spinning = true;
        pthread_mutex_unlock(&lock);
        look(&of_workers, &queued);
        pthread_mutex_lock(&lock);
        spinning = false;
        return;
    }
    idle++;
    pthread_cond_wait(&work, &lock);
    idle--;
}

static void *worker(void *arg)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        struct io_call *call = take(&prompt);

        if (call) {
            queued--;
            carry_out(call, &prompt, &queued);
        } else if (ending) {
            break;
        } else {
            wait_for_work();
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *bulk_worker(void *arg)
{
    precedence_last();
    pthread_mutex_lock(&lock);
    for (;;) {
        struct io_call *call = take(&bulk);

        if (call) {
            bulk_queued--;
            carry_out(call, &bulk, &bulk_queued);
        } else if (ending) {
            break;
        } else {
            bulk_idle++;
            pthread_cond_wait(&bulk_work, &lock);
            bulk_idle--;
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Signals are the main thread's: a worker starts with all of them blocked. */
static void start_thread(struct crew *crew)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&crew->threads[crew->count], NULL, crew->worker, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!ret) {
        crew->count++;
    } else if (!workers.count) {
        fprintf(stderr, "merganser: cannot start a worker thread: %s\n", strerror(ret));
        mem_exhausted(THREAD_BYTES);
    }
}

/* --- The loop's side -------------------------------------------------------------------------- */

/* Lock held.  A lane that is served already takes it; it needs no other worker. */
static void enqueue(struct io_call *call)
{
    if (call->lane && call->lane->busy) {
        STAILQ_INSERT_TAIL(&call->lane->calls, call, link);
        return;
    }
    if (call->lane) {
        call->lane->busy = true;
    }
    if (call->bulk) {
        STAILQ_INSERT_TAIL(&bulk, call, link);
        bulk_queued++;
    } else {
        STAILQ_INSERT_TAIL(&prompt, call, link);
        queued++;
    }
}

/* Lock held: wake the idle for `wanted` calls.  How many threads are to be started, once it is released? */
static unsigned call_to_work(const struct crew *crew, pthread_cond_t *cond, unsigned waiting, unsigned wanted)
{
    for (unsigned n = MIN(wanted, waiting); n; n--) {
        pthread_cond_signal(cond);
    }
    return wanted > waiting ? MIN(wanted - waiting, crew->max - crew->count) : 0;
}

/* Not one bulk thread could be made: the others do its work. */
static void pass_bulk_on(void)
{
    pthread_mutex_lock(&lock);
    STAILQ_CONCAT(&prompt, &bulk);
    queued += bulk_queued;
    bulk_queued = 0;
    pthread_cond_broadcast(&work);
    pthread_mutex_unlock(&lock);
}

void io_pool_submit(void)
{
    struct io_call *call;
    unsigned starting, starting_bulk;

    if (STAILQ_EMPTY(&batch)) {
        return;
    }
    io_stats.submissions++;
    pthread_mutex_lock(&lock);
    awaited = 0; /* something else has woken us */
    while ((call = STAILQ_FIRST(&batch))) {
        STAILQ_REMOVE_HEAD(&batch, link);
        enqueue(call);
    }
    starting = call_to_work(&workers, &work, idle, queued - MIN(queued, (unsigned)spinning));
    starting_bulk = call_to_work(&bulk_workers, &bulk_work, bulk_idle, bulk_queued);
    pthread_mutex_unlock(&lock);
    while (starting--) {
        start_thread(&workers);
    }
    while (starting_bulk--) {
        start_thread(&bulk_workers);
    }
    if (!bulk_workers.count && bulk_queued) {
        pass_bulk_on();
    }
}

static void collect(void)
{
    struct io_call_list list = STAILQ_HEAD_INITIALIZER(list);
    struct io_call *call;

    pthread_mutex_lock(&lock);
    STAILQ_CONCAT(&list, &finished);
    done = 0;
    awaited = 0;
    pthread_mutex_unlock(&lock);
    restless = false;
    loop_timer_cancel(&nap);
    while ((call = STAILQ_FIRST(&list))) {
        STAILQ_REMOVE_HEAD(&list, link);
        in_flight--;
        co_wake(call->co);
    }
}

static void end_of_turn(void *arg)
{
    io_pool_submit();
    if (done) {
        collect();
    }
}

static void nap_over(void *arg)
{
    restless = !done;
}

/*
 * From here on workers wake the loop.  When it sleeps on a worker's own processor it takes that from the worker, for each call
 * anew if it may: 8 us more for a write of 15.  So one that has more to do there wakes it only for half of what is in flight.
 * That "more" may take long, so the loop looks for itself after NAP_NS, once.  On another processor it should rather
 * be awake early: there waking it for half costs a fifth of a guest's requests at queue depth 32.
 */
static void sleep_lightly(void)
{
    unsigned wanted = restless || loop_is_virtual() ? 1 : MAX(in_flight / 2, 1u);

    pthread_mutex_lock(&lock);
    awaited = done ? 0 : wanted;
    loop_cpu = sched_getcpu();
    pthread_mutex_unlock(&lock);
    if (!done && wanted > 1) {
        loop_timer_arm(&nap, loop_now() + NAP_NS);
    }
}

static bool before_sleep(void *arg)
{
    if (!in_flight) {
        return false;
    }
    if (!may_look(&of_loop) || !look(&of_loop, &done)) {
        sleep_lightly();
    }
    if (done) {
        collect();
    }
    return true;
}

static void pool_woken(void *arg, unsigned events)
{
    uint64_t count;

    if (read(event_fd, &count, sizeof(count)) < 0) {
        assert(errno == EAGAIN);
    }
    collect();
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

/*
 * The table of descriptors grows at the 64th, the 256th, the 1,024th.  Once threads share it, that waits until all processors
 * have taken notice: 10 to 16 ms, for a guest that stood still for a snapshot, too.  So it is made large while there is one
 * thread only; an entry takes 8 bytes of the kernel.
 */
static void make_room_for_descriptors(void)
{
    struct rlimit limit;
    int last;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        last = fcntl(event_fd, F_DUPFD_CLOEXEC, (int)MIN(limit.rlim_cur, (rlim_t)DESCRIPTORS) - 1);
        if (last >= 0) {
            close(last);
        }
    }
}

void io_pool_init(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    assert(event_fd < 0);
    workers.max = MIN((unsigned)MAX(cpus, 1L) + 2, (unsigned)THREADS_MAX);
    bulk_workers.max = workers.max / 2;
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0) {
        fprintf(stderr, "merganser: cannot create an eventfd: %s\n", strerror(errno));
        abort();
    }
    make_room_for_descriptors();
    watch = loop_watch(event_fd, LOOP_READ, pool_woken, NULL);
    poller.submit = end_of_turn;
    poller.before_sleep = before_sleep;
    loop_timer_init(&nap, nap_over, NULL);
    loop_poller_add(&poller);
}

static void end_threads(struct crew *crew)
{
    while (crew->count) {
        pthread_join(crew->threads[--crew->count], NULL);
    }
}

void io_threads_end(void)
{
    pthread_mutex_lock(&lock);
    ending = true;
    pthread_cond_broadcast(&work);
    pthread_cond_broadcast(&bulk_work);
    pthread_mutex_unlock(&lock);
    end_threads(&workers);
    end_threads(&bulk_workers);
    ending = false;
}

void io_pool_fini(void)
{
    assert(!in_flight);
    io_threads_end();
    loop_timer_cancel(&nap);
    loop_poller_remove(&poller);
    loop_unwatch(watch);
    close(event_fd);
    event_fd = -1;
}
