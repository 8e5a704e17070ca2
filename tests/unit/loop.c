/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop: timers, deferred calls, descriptors, pollers, the virtual clock, chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/co.h"
#include "core/loop-turns.h"
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

static void note_fn(void *arg)
{
    note(*(char *)arg);
}

static int setup_virtual(void **state)
{
    trace[0] = '\0';
    loop_init(LOOP_CLOCK_VIRTUAL, 7);
    return 0;
}

static int setup_real(void **state)
{
    trace[0] = '\0';
    loop_init(LOOP_CLOCK_REAL, 7);
    return 0;
}

static int teardown(void **state)
{
    loop_fini();
    return 0;
}

static bool no_timer(void *arg)
{
    return !loop_timer_armed(arg);
}

static void timers_fire_by_time_then_by_arming(void **state)
{
    struct loop_timer t[5];

    for (int i = 0; i < 5; i++) {
        loop_timer_init(&t[i], note_fn, &"abcde"[i]);
    }
    loop_timer_arm(&t[0], 300);
    loop_timer_arm(&t[1], 100);
    loop_timer_arm(&t[2], 100);
    loop_timer_arm(&t[3], 200);
    loop_timer_arm(&t[4], 50);
    loop_timer_arm(&t[1], 100); /* armed anew: behind c */
    loop_timer_cancel(&t[4]);
    loop_timer_cancel(&t[4]);
    assert_false(loop_timer_armed(&t[4]));
    assert_true(loop_timer_armed(&t[3]));
    assert_int_equal(loop_now(), 0);
    loop_run_until(no_timer, &t[0]);
    assert_string_equal(trace, "cbda");
    assert_int_equal(loop_now(), 300);
}

struct crowd {
    struct loop_timer timer;
    uint64_t due;
    unsigned *fired;
    uint64_t *last;
};

static void crowd_fn(void *arg)
{
    struct crowd *c = arg;

    assert_int_equal(loop_now(), c->due);
    assert_true(c->due >= *c->last);
    *c->last = c->due;
    (*c->fired)++;
}

static bool enough(void *arg)
{
    return *(unsigned *)arg == 600;
}

static void a_thousand_timers_keep_their_order_through_cancels(void **state)
{
    struct crowd *crowd = mem_calloc(1000, sizeof(*crowd));
    unsigned fired = 0;
    uint64_t last = 0;

    for (int i = 0; i < 1000; i++) {
        crowd[i] = (struct crowd){ .fired = &fired, .last = &last, .due = loop_random_below(5000) };
        loop_timer_init(&crowd[i].timer, crowd_fn, &crowd[i]);
        loop_timer_arm(&crowd[i].timer, crowd[i].due);
    }
    for (int i = 0; i < 1000; i++) {
        if (i % 5 >= 3) {
            loop_timer_cancel(&crowd[i].timer);
        } else if (i % 5 == 1) {
            crowd[i].due = loop_random_below(9000);
            loop_timer_arm(&crowd[i].timer, crowd[i].due);
        }
    }
    loop_run_until(enough, &fired);
    free(crowd);
}

struct again {
    struct loop_timer timer;
    struct loop_task task;
    int left;
};

static void again_fn(void *arg)
{
    struct again *a = arg;

    note('t');
    if (--a->left) {
        loop_timer_arm(&a->timer, loop_now());
        loop_defer(&a->task, note_fn, "r");
    }
}

static bool again_done(void *arg)
{
    return !((struct again *)arg)->left;
}

static void a_timer_armed_for_now_lets_the_ready_ones_run_first(void **state)
{
    struct again a = { .left = 3 };

    loop_timer_init(&a.timer, again_fn, &a);
    loop_timer_arm(&a.timer, 5);
    loop_run_until(again_done, &a);
    assert_string_equal(trace, "trtrt");
    assert_int_equal(loop_now(), 5);
}

static struct loop_task chain_task;

static void defer_again(void *arg)
{
    note('1');
    assert_false(chain_task.queued);
    loop_defer(&chain_task, note_fn, "3");
    assert_true(chain_task.queued);
}

static bool three(void *arg)
{
    return strlen(trace) >= 3;
}

static void deferred_calls_run_in_order_and_new_ones_in_the_next_turn(void **state)
{
    struct loop_task second = { .queued = false };

    loop_defer(&chain_task, defer_again, NULL);
    loop_defer(&second, note_fn, "2");
    assert_string_equal(trace, "");
    loop_run_until(three, NULL);
    assert_string_equal(trace, "123");
}

struct pipe_test {
    int fds[2];
    struct loop_watch *in, *other;
    struct loop_timer timer;
    int reads;
    bool hung_up;
};

static void pipe_read(void *arg, unsigned events)
{
    struct pipe_test *p = arg;
    char c;

    assert_true(events & LOOP_READ);
    if (read(p->fds[0], &c, 1) == 1) {
        p->reads++;
        return;
    }
    assert_int_equal(events, LOOP_READ | LOOP_WRITE);
    p->hung_up = true;
    loop_unwatch(p->in);
}

static void pipe_resume(void *arg)
{
    struct pipe_test *p = arg;

    assert_int_equal(p->reads, 0); /* paused so far */
    loop_watch_events(p->in, LOOP_READ);
    close(p->fds[1]);
}

static bool pipe_done(void *arg)
{
    return ((struct pipe_test *)arg)->hung_up;
}

static void a_paused_watch_is_silent_and_a_hang_up_shows(void **state)
{
    struct pipe_test p = { .reads = 0 };

    assert_int_equal(pipe(p.fds), 0);
    assert_int_equal(write(p.fds[1], "xy", 2), 2);
    p.in = loop_watch(p.fds[0], LOOP_READ, pipe_read, &p);
    loop_watch_events(p.in, 0);
    loop_timer_init(&p.timer, pipe_resume, &p);
    loop_timer_arm(&p.timer, loop_now() + 2 * NS_PER_MS);
    loop_run_until(pipe_done, &p);
    assert_int_equal(p.reads, 2);
    close(p.fds[0]);
}

static void unwatch_both(void *arg, unsigned events)
{
    struct pipe_test *p = arg;

    loop_unwatch(p->in);
    loop_unwatch(p->other);
    p->reads++;
}

static bool pipe_read_once(void *arg)
{
    return ((struct pipe_test *)arg)->reads;
}

static void a_callback_may_unwatch_the_others(void **state)
{
    struct pipe_test p = { .reads = 0 };
    int twin;

    assert_int_equal(pipe(p.fds), 0);
    assert_int_equal(write(p.fds[1], "x", 1), 1);
    twin = dup(p.fds[0]);
    p.in = loop_watch(p.fds[0], LOOP_READ, unwatch_both, &p);
    p.other = loop_watch(twin, LOOP_READ, unwatch_both, &p);
    loop_run_until(pipe_read_once, &p);
    assert_int_equal(p.reads, 1);
    close(p.fds[0]);
    close(p.fds[1]);
    close(twin);
}

static void plain_read(void *arg, unsigned events)
{
    struct pipe_test *p = arg;
    char c;

    assert_int_equal(events, LOOP_READ);
    if (read(p->fds[0], &c, 1) == 1) {
        note(c);
        return;
    }
    p->hung_up = true;
    loop_unwatch(p->in);
}

static void a_regular_file_is_always_ready(void **state)
{
    struct pipe_test p = { .reads = 0 };
    FILE *file = tmpfile();

    assert_non_null(file);
    fputs("abc", file);
    rewind(file);
    p.fds[0] = fileno(file);
    p.in = loop_watch(p.fds[0], LOOP_READ, plain_read, &p);
    loop_run_until(pipe_done, &p);
    assert_string_equal(trace, "abc");
    fclose(file);
}

static void descriptor_before_jump(void *arg, unsigned events)
{
    struct pipe_test *p = arg;

    assert_int_equal(loop_now(), 0);
    loop_unwatch(p->in);
    p->reads++;
}

static void the_virtual_clock_looks_at_descriptors_before_it_jumps(void **state)
{
    struct pipe_test p = { .reads = 0 };

    assert_int_equal(pipe(p.fds), 0);
    assert_int_equal(write(p.fds[1], "x", 1), 1);
    p.in = loop_watch(p.fds[0], LOOP_READ, descriptor_before_jump, &p);
    loop_timer_init(&p.timer, note_fn, "t");
    loop_timer_arm(&p.timer, 3600 * NS_PER_S);
    loop_run_until(no_timer, &p.timer);
    assert_int_equal(p.reads, 1);
    assert_string_equal(trace, "t");
    assert_int_equal(loop_now(), 3600 * NS_PER_S);
    assert_int_equal(loop_wall_us(), 3600 * 1000000ULL);
    close(p.fds[0]);
    close(p.fds[1]);
}

static void submit_fn(void *arg)
{
    ++*(int *)arg;
}

static void poller_entry(void *arg)
{
    int *submits = arg;
    int before = *submits;

    co_yield();
    assert_int_equal(*submits, before + 1);
    co_sleep_ns(1000);
    assert_int_equal(*submits, before + 2);
}

static void pollers_submit_before_the_loop_waits(void **state)
{
    int submits = 0;
    struct loop_poller poller = { .submit = submit_fn, .arg = &submits };

    loop_poller_add(&poller);
    loop_run_co(poller_entry, &submits);
    loop_poller_remove(&poller);
}

static void nothing_fn(void *arg)
{
}

static struct co *sleeper;

static bool wake_sleeper(void *arg)
{
    ++*(int *)arg;
    if (sleeper) {
        co_wake(sleeper);
        sleeper = NULL;
    }
    return false;
}

static void sleeper_entry(void *arg)
{
    int *asked = arg;

    co_yield();
    assert_int_equal(*asked, 0); /* something was ready */
    sleeper = co_self();
    co_suspend(); /* for ever, but for the poller's news */
    assert_int_equal(*asked, 1);
}

static void pollers_are_asked_for_news_before_the_loop_sleeps(void **state)
{
    int asked = 0;
    struct loop_poller poller = { .submit = nothing_fn, .before_sleep = wake_sleeper, .arg = &asked };
    struct loop_timer never;

    loop_timer_init(&never, nothing_fn, NULL);
    loop_timer_arm(&never, loop_now() + 3600 * NS_PER_S);
    loop_poller_add(&poller);
    loop_run_co(sleeper_entry, &asked);
    loop_poller_remove(&poller);
    loop_timer_cancel(&never);
}

static void real_sleep_entry(void *arg)
{
    uint64_t before = loop_now();

    co_sleep_ns(3 * NS_PER_MS);
    assert_true(loop_now() - before >= 3 * NS_PER_MS);
    usleep(2000); /* holds the loop */
}

static void the_real_clock_sleeps_and_the_longest_turn_is_seen(void **state)
{
    loop_turns_reset(loop_now());
    loop_run_co(real_sleep_entry, NULL);
    assert_true(loop_turns.longest[0].ns >= 2 * NS_PER_MS);
    assert_true(loop_turns_percentile(&loop_turns, 999) >= 2 * NS_PER_MS);
    loop_turns_reset(loop_now());
    assert_null(loop_turns.longest[0].name);
    assert_int_equal(loop_turns.holds, 0);
}

static uint64_t processor_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void lazy_entry(void *arg)
{
    co_yield();
    usleep(20000);
}

static void busy_entry(void *arg)
{
    uint64_t until;

    co_yield();
    until = processor_ns() + 2 * NS_PER_MS;
    while (processor_ns() < until) {
    }
}

static void of_a_long_turn_it_is_known_how_much_was_work(void **state)
{
    loop_turns_reset(loop_now());
    loop_run_co(lazy_entry, NULL);
    assert_true(loop_turns.longest_ns >= 20 * NS_PER_MS);
    assert_true(loop_turns.longest_work_ns < 2 * NS_PER_MS);
    assert_true(loop_turns.longest[0].work_ns < 2 * NS_PER_MS);
    loop_run_co(busy_entry, NULL);
    assert_true(loop_turns.longest_work_ns >= 2 * NS_PER_MS);
    loop_turns_reset(loop_now());
    assert_int_equal(loop_turns.longest_work_ns, 0);
}

static void long_turn_entry(void *arg)
{
    uint64_t before;

    usleep(2000);
    assert_true(loop_held_ns() >= 2 * NS_PER_MS);
    before = loop_now();
    co_yield();
    assert_true(loop_held_ns() <= loop_now() - before);
}

static void who_looks_how_long_his_turn_is_begins_anew_when_others_had_theirs(void **state)
{
    loop_run_co(long_turn_entry, NULL);
}

static void other_entry(void *arg)
{
    ++*(int *)arg;
}

static void much_to_do_entry(void *arg)
{
    int others = 0;

    co_yield();
    co_start_later(other_entry, &others);
    for (int i = 0; i < 10000 && !others; i++) {
        usleep(100);
        co_take_turns();
    }
    assert_int_equal(others, 1);
}

static void who_has_much_to_do_lets_others_go_on(void **state)
{
    loop_run_co(much_to_do_entry, NULL);
}

static void inner_fn(void *arg)
{
    struct loop_timer t;

    note('<');
    loop_timer_init(&t, note_fn, "i");
    loop_timer_arm(&t, loop_now() + 10);
    loop_run_until(no_timer, &t);
    note('>');
}

static void quit_fn(void *arg)
{
    note('q');
    loop_wakeup_quit();
}

static void an_inner_loop_runs_what_is_ready_and_quit_leaves_the_innermost(void **state)
{
    struct loop_task outer = { 0 }, second = { 0 }, last = { 0 };

    loop_defer(&outer, inner_fn, NULL);
    loop_defer(&second, note_fn, "2");
    loop_run_until(three, NULL);
    assert_string_equal(trace, "<2i>");
    loop_defer(&last, quit_fn, NULL);
    loop_run_until(NULL, NULL);
    assert_string_equal(trace, "<2i>q");
}

static void chance_repeats_by_seed_and_has_no_bias(void **state)
{
    struct random a, b;
    unsigned hits[3] = { 0 };

    random_seed(&a, 42);
    random_seed(&b, 42);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(random_next(&a), random_next(&b));
    }
    random_seed(&b, 43);
    assert_true(random_next(&a) != random_next(&b));
    /* With 3 * 2^62 as the bound a plain remainder would hit the first third twice as often. */
    for (int i = 0; i < 30000; i++) {
        uint64_t x = random_below(&a, 3ULL << 62);

        assert_true(x < 3ULL << 62);
        hits[x >> 62]++;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(hits[i], 9500, 10500);
    }
    assert_int_equal(random_below(&a, 1), 0);
}

static void xoshiro_gives_the_published_sequence(void **state)
{
    /* The reference sequence of xoshiro256** from the state { 1, 2, 3, 4 }. */
    static const uint64_t expected[] = { 11520, 0, 1509978240, 1215971899390074240 };
    struct random r = { { 1, 2, 3, 4 } };

    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(random_next(&r), expected[i]);
    }
}

#define VIRTUAL(test) cmocka_unit_test_setup_teardown(test, setup_virtual, teardown)
#define REAL(test) cmocka_unit_test_setup_teardown(test, setup_real, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        VIRTUAL(timers_fire_by_time_then_by_arming),
        VIRTUAL(a_thousand_timers_keep_their_order_through_cancels),
        VIRTUAL(a_timer_armed_for_now_lets_the_ready_ones_run_first),
        VIRTUAL(deferred_calls_run_in_order_and_new_ones_in_the_next_turn),
        REAL(a_paused_watch_is_silent_and_a_hang_up_shows),
        REAL(a_callback_may_unwatch_the_others),
        REAL(a_regular_file_is_always_ready),
        VIRTUAL(a_regular_file_is_always_ready),
        VIRTUAL(the_virtual_clock_looks_at_descriptors_before_it_jumps),
        VIRTUAL(pollers_submit_before_the_loop_waits),
        REAL(pollers_are_asked_for_news_before_the_loop_sleeps),
        REAL(the_real_clock_sleeps_and_the_longest_turn_is_seen),
        REAL(of_a_long_turn_it_is_known_how_much_was_work),
        REAL(who_has_much_to_do_lets_others_go_on),
        REAL(who_looks_how_long_his_turn_is_begins_anew_when_others_had_theirs),
        VIRTUAL(an_inner_loop_runs_what_is_ready_and_quit_leaves_the_innermost),
        VIRTUAL(chance_repeats_by_seed_and_has_no_bias),
        VIRTUAL(xoshiro_gives_the_published_sequence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
