/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lanes of the pool (core/io-engine.h): who waits for whom among calls of one file and of several, and what a write through
 * the page cache looks like to the host.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "core/io-engine.h"

#define CALLS 200
#define FILES 6 /* more than there are threads */
#define CROWD (FILES * 32)

static char path[300];

static void run(loop_fn *fn, void *arg)
{
    alarm(60);
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    loop_run_co(fn, arg);
    io_fini();
    loop_fini();
    alarm(0);
}

/* --- News ------------------------------------------------------------------------------------------- */

#define NEWS 8 /* enough that the loop waits for several */

struct news {
    struct io_lane lane;
    struct co_group group;
    unsigned started, us;
    sem_t gate;
};

struct item {
    struct news *news;
    bool first;
};

static void item_run(void *arg)
{
    struct item *item = arg;

    if (item->first) {
        usleep(item->news->us);
    } else {
        sem_wait(&item->news->gate);
    }
}

static void CO_ENTRY item_entry(void *arg)
{
    struct news *news = arg;
    struct item item = { .news = news, .first = news->started++ == 0 };
    struct io_call call = { .op = IO_CALL_FN, .fn = item_run, .arg = &item, .lane = &news->lane };

    co_io_pool_call(&call);
    for (unsigned i = 0; item.first && i < NEWS; i++) {
        sem_post(&news->gate);
    }
    co_group_done(&news->group, 0);
}

static void news_entry(void *arg)
{
    struct news *news = arg;

    STAILQ_INIT(&news->lane.calls);
    co_group_init(&news->group);
    sem_init(&news->gate, 0, 0);
    for (unsigned i = 0; i < NEWS; i++) {
        co_group_add(&news->group);
        co_start(item_entry, news);
    }
    co_group_wait(&news->group);
    sem_destroy(&news->gate);
}

/* The others wait until the first one's end has been noticed.  On one processor the loop is woken for several at once. */
static void what_has_finished_is_not_kept_behind_what_takes_long(void **state)
{
    static const unsigned takes[] = { 0, 20, 1000 }; /* us: before the loop sleeps, while it does, and for longer than it likes to */
    cpu_set_t all, one;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(takes); i++) {
        struct news news = { .us = takes[i] };

        run(news_entry, &news);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

/* --- One lane ----------------------------------------------------------------------------------- */

struct queue {
    struct io_lane lane;
    struct co_group group;
    unsigned started;
    atomic_uint running;
    unsigned order[CALLS], done;
    bool overlapped, bulk;
};

struct queued {
    struct queue *queue;
    unsigned number;
};

static void queued_run(void *arg)
{
    struct queued *call = arg;
    struct queue *q = call->queue;

    q->overlapped |= atomic_fetch_add(&q->running, 1) > 0;
    usleep(call->number % 7 ? 0 : 100); /* sometimes the loop has gone to sleep, sometimes not */
    q->order[q->done++] = call->number;
    atomic_fetch_sub(&q->running, 1);
}

static void CO_ENTRY queued_entry(void *arg)
{
    struct queue *q = arg;
    struct queued work = { .queue = q, .number = q->started++ };
    struct io_call call = { .op = IO_CALL_FN, .fn = queued_run, .arg = &work, .lane = &q->lane, .bulk = q->bulk };

    co_io_pool_call(&call);
    co_group_done(&q->group, 0);
}

static void queue_entry(void *arg)
{
    struct queue *q = arg;

    STAILQ_INIT(&q->lane.calls);
    co_group_init(&q->group);
    for (unsigned i = 0; i < CALLS; i++) {
        co_group_add(&q->group);
        co_start(queued_entry, q);
        if (i % 10 == 0) {
            co_yield();
        }
    }
    co_group_wait(&q->group);
}

static void calls_of_a_lane_run_one_after_the_other(void **state)
{
    struct queue q = { .bulk = *(const bool *)*state };

    run(queue_entry, &q);
    assert_int_equal(q.done, CALLS);
    assert_false(q.overlapped);
    assert_false(q.lane.busy);
    for (unsigned i = 0; i < CALLS; i++) {
        assert_int_equal(q.order[i], i);
    }
}

/* --- Several ------------------------------------------------------------------------------------ */

struct pair {
    struct io_lane slow, quick;
    struct co_group group;
    sem_t gate;
};

static void gate_wait(void *arg)
{
    sem_wait(&((struct pair *)arg)->gate);
}

static void gate_open(void *arg)
{
    sem_post(&((struct pair *)arg)->gate);
}

static void CO_ENTRY slow_entry(void *arg)
{
    struct pair *p = arg;
    struct io_call call = { .op = IO_CALL_FN, .fn = gate_wait, .arg = p, .lane = &p->slow };

    co_io_pool_call(&call);
    co_group_done(&p->group, 0);
}

static void CO_ENTRY quick_entry(void *arg)
{
    struct pair *p = arg;
    struct io_call call = { .op = IO_CALL_FN, .fn = gate_open, .arg = p, .lane = &p->quick };

    co_io_pool_call(&call);
    co_group_done(&p->group, 0);
}

static void pair_entry(void *arg)
{
    struct pair *p = arg;

    STAILQ_INIT(&p->slow.calls);
    STAILQ_INIT(&p->quick.calls);
    co_group_init(&p->group);
    for (unsigned i = 0; i < 20; i++) {
        co_group_add(&p->group);
        co_start(slow_entry, p);
    }
    for (unsigned i = 0; i < 20; i++) {
        co_group_add(&p->group);
        co_start(quick_entry, p);
    }
    co_group_wait(&p->group);
}

static void a_lane_that_waits_keeps_no_other_from_a_worker(void **state)
{
    struct pair p = { 0 };

    sem_init(&p.gate, 0, 0);
    run(pair_entry, &p);
    sem_destroy(&p.gate);
}

/* All workers have a lane that never becomes empty: what comes later is not forgotten. */
struct crowd {
    struct io_lane lanes[FILES];
    struct co_group group;
    unsigned done;
    bool enough, bulk;
};

struct member {
    struct crowd *crowd;
    struct io_lane *lane;
};

static void a_while(void *arg)
{
    usleep(200); /* the others of its lane are back by then */
}

static void CO_ENTRY member_entry(void *arg)
{
    struct member *m = arg;

    while (!m->crowd->enough) {
        struct io_call call = { .op = IO_CALL_FN, .fn = a_while, .lane = m->lane, .bulk = m->crowd->bulk };

        co_io_pool_call(&call);
        m->crowd->done++;
    }
    co_group_done(&m->crowd->group, 0);
    free(m);
}

static void crowd_entry(void *arg)
{
    struct crowd *c = arg;
    struct io_call late = { .op = IO_CALL_FN, .fn = a_while, .bulk = c->bulk };
    unsigned before;

    co_group_init(&c->group);
    for (unsigned i = 0; i < CROWD; i++) {
        struct member *m = mem_alloc(sizeof(*m));

        *m = (struct member){ .crowd = c, .lane = &c->lanes[i % FILES] };
        if (i < FILES) {
            STAILQ_INIT(&m->lane->calls);
        }
        co_group_add(&c->group);
        co_start(member_entry, m);
    }
    co_sleep_ns(5 * NS_PER_MS);
    before = c->done;
    co_io_pool_call(&late);
    assert_true(c->done - before < CROWD * 10);
    c->enough = true;
    co_group_wait(&c->group);
}

static void lanes_that_never_become_empty_take_turns(void **state)
{
    struct crowd *c = mem_zalloc(sizeof(*c));

    c->bulk = *(const bool *)*state;
    run(crowd_entry, c);
    free(c);
}

/* --- What the host sees --------------------------------------------------------------------------- */

static void units_entry(void *arg)
{
    size_t len = 300000, offset = 12345;
    AUTOFREE uint8_t *wrote = mem_alloc(len), *read = mem_alloc(len);
    struct iovec iov[3] = { { wrote, 1 }, { wrote + 1, 199999 }, { wrote + 200000, 100000 } };
    struct io_file *file;

    for (size_t i = 0; i < len; i++) {
        wrote[i] = i * 31 + i / 251;
    }
    assert_int_equal(co_io_open(NULL, path, IO_RDWR | IO_CREATE, &file), 0);
    assert_int_equal(co_io_writev(file, offset, iov, 3), 0);
    assert_int_equal(co_io_read(file, offset, read, len), 0);
    assert_memory_equal(wrote, read, len);
    co_io_close(file);
}

static void a_write_in_units_is_whole(void **state)
{
    run(units_entry, NULL);
    unlink(path);
}

int main(void)
{
    static bool prompt = false, bulk = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_finished_is_not_kept_behind_what_takes_long),
        cmocka_unit_test_prestate(calls_of_a_lane_run_one_after_the_other, &prompt),
        cmocka_unit_test_prestate(calls_of_a_lane_run_one_after_the_other, &bulk),
        cmocka_unit_test(a_lane_that_waits_keeps_no_other_from_a_worker),
        cmocka_unit_test_prestate(lanes_that_never_become_empty_take_turns, &prompt),
        cmocka_unit_test_prestate(lanes_that_never_become_empty_take_turns, &bulk),
        cmocka_unit_test(a_write_in_units_is_whole),
    };
    const char *tmp = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%s/io-lanes-%d", tmp ? tmp : "/tmp", getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
