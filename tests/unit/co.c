/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: nesting, order, locks, groups, reuse of stacks.  Each test runs on its own virtual
 * loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"

static char trace[256];

static void note(char c)
{
    size_t len = strlen(trace);

    assert_true(len + 1 < sizeof(trace));
    trace[len] = c;
    trace[len + 1] = '\0';
}

static int setup(void **state)
{
    trace[0] = '\0';
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(co_count(), 0);
    loop_fini();
    return 0;
}

static void CO_ENTRY child_entry(void *arg)
{
    struct co **self = arg;

    *self = co_self();
    note('b');
    co_suspend();
    note('d');
}

static void CO_ENTRY parent_entry(void *arg)
{
    struct co *child;

    note('a');
    co_start(child_entry, &child);
    assert_ptr_not_equal(child, co_self());
    note('c');
    co_wake(child);
    note('-'); /* the woken one runs later, not inside co_wake() */
    co_yield();
    note('e');
}

static void start_runs_at_once_and_wake_runs_later(void **state)
{
    assert_null(co_self());
    loop_run_co(parent_entry, NULL);
    assert_string_equal(trace, "abc-de");
}

static void CO_ENTRY note_entry(void *arg)
{
    note(*(char *)arg);
    co_yield();
    note(*(char *)arg);
}

static void CO_ENTRY later_entry(void *arg)
{
    co_start_later(note_entry, "1");
    co_start_later(note_entry, "2");
    co_start(note_entry, "3");
    note('.');
    co_yield();
    note(':');
    co_yield();
}

static void ready_ones_run_first_in_first_out(void **state)
{
    loop_run_co(later_entry, NULL);
    assert_string_equal(trace, "3.123:12");
}

struct lock_test {
    struct co_mutex mutex;
    struct co_group group;
    unsigned inside;
    char next;
};

static void CO_ENTRY locker_entry(void *arg)
{
    struct lock_test *t = arg;
    char me = t->next++;

    co_mutex_lock(&t->mutex);
    assert_int_equal(t->inside++, 0);
    note(me);
    co_sleep_ns(10 + loop_random_below(100));
    t->inside--;
    co_mutex_unlock(&t->mutex);
    co_group_done(&t->group, me == 'b' ? -5 : me == 'c' ? -7 : 0);
}

static void CO_ENTRY lock_all_entry(void *arg)
{
    struct lock_test t = { .next = 'a' };

    co_mutex_init(&t.mutex);
    co_group_init(&t.group);
    for (int i = 0; i < 5; i++) {
        co_group_add(&t.group);
        co_start(locker_entry, &t);
    }
    assert_int_equal(co_group_wait(&t.group), -5);
    assert_null(t.mutex.holder);
    assert_int_equal(co_group_wait(&t.group), -5); /* nobody runs: at once */
}

static void mutex_is_fair_and_group_tells_the_first_error(void **state)
{
    loop_run_co(lock_all_entry, NULL);
    assert_string_equal(trace, "abcde");
}

static void CO_ENTRY queue_waiter_entry(void *arg)
{
    static char name = '0';

    co_queue_wait(arg);
    note(++name);
}

static void CO_ENTRY queue_entry(void *arg)
{
    struct co_queue q = CO_QUEUE_INIT(q);

    assert_true(co_queue_empty(&q));
    assert_false(co_queue_wake_one(&q));
    for (int i = 0; i < 3; i++) {
        co_start(queue_waiter_entry, &q);
    }
    assert_false(co_queue_empty(&q));
    assert_true(co_queue_wake_one(&q));
    co_yield();
    note('.');
    co_queue_wake_all(&q);
    assert_true(co_queue_empty(&q));
    co_yield();
}

static void queue_wakes_one_or_all(void **state)
{
    loop_run_co(queue_entry, NULL);
    assert_string_equal(trace, "1.23");
}

static void CO_ENTRY sleep_entry(void *arg)
{
    uint64_t before = loop_now();

    co_sleep_ns(3 * NS_PER_S);
    assert_int_equal(loop_now() - before, 3 * NS_PER_S);
}

static void sleep_takes_exactly_its_time_on_the_virtual_clock(void **state)
{
    loop_run_co(sleep_entry, NULL);
}

/* Uses most of a stack, checks that nobody else wrote into it. */
static unsigned deep(unsigned depth)
{
    volatile unsigned char frame[1024];

    for (unsigned i = 0; i < sizeof(frame); i++) {
        frame[i] = depth;
    }
    unsigned below = depth ? deep(depth - 1) : (co_yield(), 0);

    for (unsigned i = 0; i < sizeof(frame); i++) {
        assert_int_equal(frame[i], (unsigned char)depth);
    }
    return below + frame[17];
}

static void CO_ENTRY deep_entry(void *arg)
{
    struct co_group *g = arg;

    assert_int_equal(deep(100), 100 * 101 / 2);
    co_group_done(g, 0);
}

static void CO_ENTRY many_entry(void *arg)
{
    struct co_group g;

    co_group_init(&g);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            co_group_add(&g);
            co_start(deep_entry, &g);
        }
        assert_int_equal(co_count(), 101);
        assert_int_equal(co_group_wait(&g), 0);
    }
}

static void many_deep_stacks_do_not_disturb_each_other(void **state)
{
    loop_run_co(many_entry, NULL);
}

static void CO_ENTRY float_entry(void *arg)
{
    double x = 1.0;

    for (int i = 0; i < 20; i++) {
        double y = x * 1.5;

        co_yield();
        assert_true(y == x * 1.5);
        x = y;
    }
    co_group_done(arg, 0);
}

static void CO_ENTRY floats_entry(void *arg)
{
    struct co_group g;

    co_group_init(&g);
    for (int i = 0; i < 3; i++) {
        co_group_add(&g);
        co_start(float_entry, &g);
    }
    co_group_wait(&g);
}

static void floating_point_survives_switches(void **state)
{
    loop_run_co(floats_entry, NULL);
}

static void CO_ENTRY empty_entry(void *arg)
{
}

static void CO_ENTRY burst_entry(void *arg)
{
    for (int i = 0; i < 100000; i++) {
        co_start(empty_entry, NULL);
    }
    assert_int_equal(co_count(), 1);
}

static void short_lives_reuse_one_stack(void **state)
{
    loop_run_co(burst_entry, NULL);
    co_pool_drain();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(start_runs_at_once_and_wake_runs_later, setup, teardown),
        cmocka_unit_test_setup_teardown(ready_ones_run_first_in_first_out, setup, teardown),
        cmocka_unit_test_setup_teardown(mutex_is_fair_and_group_tells_the_first_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(queue_wakes_one_or_all, setup, teardown),
        cmocka_unit_test_setup_teardown(sleep_takes_exactly_its_time_on_the_virtual_clock, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(many_deep_stacks_do_not_disturb_each_other, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(floating_point_survives_switches, setup, teardown),
        cmocka_unit_test_setup_teardown(short_lives_reuse_one_stack, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
