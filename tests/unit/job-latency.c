/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A job under a latency target keeps the guest's p99 below it, ends all the same, and takes an idle machine for itself.
 */
#include "block/latency-window.h"
#include "tests/unit/job-rig.h"

/* --- The window alone ------------------------------------------------------------------------------------------------- */

static void percentiles_are_right_within_their_classes(void **state)
{
    struct latency_window *w = mem_zalloc(sizeof(*w));
    uint64_t all, above;

    assert_int_equal(latency_window_percentile(w, NS_PER_S, 990), 0);
    for (unsigned i = 1; i <= 1000; i++) {
        latency_window_add(w, i * NS_PER_MS, i * 10000); /* 10 us to 10 ms in one second */
    }
    assert_in_range(latency_window_percentile(w, NS_PER_S, 500), 5000000, 5400000);
    assert_in_range(latency_window_percentile(w, NS_PER_S, 0), 0, 10000);
    assert_in_range(latency_window_percentile(w, NS_PER_S, 990), 9900000, 10600000);
    latency_window_count(w, 0, 5000000, &all, &above);
    assert_int_equal(all, 1000);
    assert_in_range(above, 460, 500);
    latency_window_count(w, NS_PER_S / 2, 0, &all, &above);
    assert_int_equal(all, 501);
    free(w);
}

static void the_window_forgets_after_five_seconds(void **state)
{
    struct latency_window *w = mem_zalloc(sizeof(*w));

    latency_window_add(w, NS_PER_S, 60 * NS_PER_MS);
    latency_window_add(w, 5 * NS_PER_S, NS_PER_MS);
    assert_true(latency_window_percentile(w, 5 * NS_PER_S, 990) > 50 * NS_PER_MS);
    assert_in_range(latency_window_percentile(w, 7 * NS_PER_S, 990), NS_PER_MS, NS_PER_MS + NS_PER_MS / 10);
    assert_int_equal(latency_window_percentile(w, 20 * NS_PER_S, 990), 0);
    free(w);
}

/* --- The law alone ------------------------------------------------------------------------------------------------------ */

/* A guest of 1,000 requests a second whose requests are all slow while the job moves more than `limit`. */
static double law_against(uint64_t limit, unsigned periods, uint64_t *moved)
{
    struct latency_control c;
    uint64_t now = 0, all = 0, above = 0, late = 0, since;

    latency_control_init(&c, 2 * NS_PER_MS, 0);
    *moved = 0;
    for (unsigned i = 0; i < periods; i++) {
        bool slow = c.pace > limit;

        now += LATENCY_PERIOD_NS;
        *moved += MIN(c.pace, 1ull << 30) / 10;
        if (now > c.since_ns) {
            all += 100;
            above += slow ? 30 : 0;
        }
        late += slow && i >= periods / 4;
        since = c.since_ns;
        latency_control_decide(&c, now, all, above, true);
        if (c.since_ns != since) {
            all = above = 0;
        }
    }
    return (double)late / (periods - periods / 4);
}

static void the_law_finds_what_the_guest_allows(void **state)
{
    static const uint64_t limits[] = { 3 * MIB, 20 * MIB, 100 * MIB, 700 * MIB };

    for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
        uint64_t moved;
        double late = law_against(limits[i], 1200, &moved);

        /* 30 percent of the requests are slow while it is too fast: 1 percent in all. */
        assert_true(late * 0.3 < 0.01);
        assert_true(moved > limits[i] * 120 * 3 / 4);
    }
}

static void what_the_guest_allows_may_grow(void **state)
{
    struct latency_control c;
    uint64_t now = 0, all = 0, above = 0, since;

    latency_control_init(&c, 2 * NS_PER_MS, 0);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t limit = i < 600 ? 3 * MIB : 300 * MIB;

        now += LATENCY_PERIOD_NS;
        if (now > c.since_ns) {
            all += 100;
            above += c.pace > limit ? 30 : 0;
        }
        since = c.since_ns;
        latency_control_decide(&c, now, all, above, true);
        if (c.since_ns != since) {
            all = above = 0;
        }
        assert_true(i != 599 || c.pace <= 6 * MIB);
    }
    assert_true(c.pace > 60 * MIB);
}

static void the_pace_never_falls_below_the_floor(void **state)
{
    struct latency_control c;

    latency_control_init(&c, NS_PER_MS, 0);
    for (unsigned i = 1; i < 300; i++) {
        latency_control_decide(&c, i * LATENCY_PERIOD_NS, 100, 100, true);
        assert_true(c.pace >= LATENCY_PACE_FLOOR);
    }
    assert_int_equal(c.pace, LATENCY_PACE_FLOOR);
}

static void the_floor_is_a_hundredth_of_what_the_medium_moves(void **state)
{
    struct latency_control c;

    latency_control_init(&c, NS_PER_MS, 0);
    for (unsigned i = 1; i < 300; i++) {
        latency_control_served(&c, MIB, NS_PER_MS); /* 1,000 MiB/s */
        latency_control_decide(&c, i * LATENCY_PERIOD_NS, 100, 100, true);
    }
    assert_in_range(c.pace, 10 * MIB - 1000, 10 * MIB);
}

static void an_idle_guest_frees_the_job_and_its_return_binds_it_again(void **state)
{
    struct latency_control c;
    uint64_t now = 0, pace;

    latency_control_init(&c, NS_PER_MS, 0);
    assert_true(c.pace == LATENCY_PACE_FREE);
    for (unsigned i = 0; i < 3; i++) {
        latency_control_decide(&c, now += LATENCY_PERIOD_NS, 100, 100, true);
    }
    pace = c.pace;
    assert_true(pace < LATENCY_PACE_START);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(c.pace, pace);
        latency_control_decide(&c, now += LATENCY_PERIOD_NS, 0, 0, false);
    }
    assert_true(c.pace == LATENCY_PACE_FREE);
    latency_control_decide(&c, now += LATENCY_PERIOD_NS, 1, 0, true);
    assert_int_equal(c.pace, pace);
}

/* --- Whole jobs --------------------------------------------------------------------------------------------------------- */

struct trial {
    uint64_t size, guest_per_s, target_ns, limit_ns, settle_ns; /* a request is slow beyond the limit */
    bool write;
    /* out */
    uint64_t ns, requests, slow, p99_ns;
};

/* A disk with an empty overlay over a full base. */
static struct disk *co_overlay(uint64_t size)
{
    co_rig_create("/base.img", NULL, size);
    struct node *base = co_rig_open("/base.img");

    co_rig_fill(base, 0, size);
    co_node_unref(base);
    co_rig_create("/top.img", "base.img", size);
    return disk_new("d", co_rig_open("/top.img"));
}

static void co_trial(struct trial *t)
{
    struct stream_args args = { .device = "d", .latency = t->target_ns, .auto_finalize = true, .auto_dismiss = true };
    struct error err = ERROR_INIT;
    struct disk *disk = co_overlay(t->size);

    medium.bytes_per_s = 100 * MIB;
    rig_guest_start(disk, t->guest_per_s);
    guest.write = t->write;
    guest.limit_ns = t->limit_ns;
    co_sleep_ns(NS_PER_S);
    guest.count_from_ns = loop_now() + t->settle_ns;

    uint64_t started = loop_now();

    assert_int_equal(co_stream_start(&args, &err), 0);
    struct job *job = job_ref(job_find("d"));

    while (!job_ended(job)) {
        co_sleep_ns(50 * NS_PER_MS);
        if (loop_now() > guest.count_from_ns + 5 * NS_PER_S) {
            t->p99_ns = MAX(t->p99_ns, job_guest_p99(job));
        }
        assert_true(loop_now() - started < 1000 * NS_PER_S);
    }
    assert_int_equal(job->ret, 0);
    t->ns = job->ended_ns - started;
    t->requests = guest.requests;
    t->slow = guest.slow;
    job_unref(job);
    co_rig_guest_end();
    co_disk_free(disk);
}

static void trial_entry(void *arg)
{
    co_trial(arg);
}

/* A request of 4 KiB takes 160 us on the idle simulated disk, one of 64 up to 4.2 ms. */
static void a_busy_guest_keeps_its_target(void **state)
{
    struct trial t = { .size = 384 * MIB, .guest_per_s = 500, .target_ns = 5 * NS_PER_MS, .limit_ns = 5 * NS_PER_MS,
                       .settle_ns = 3 * NS_PER_S };

    loop_run_co(trial_entry, &t);
    assert_true(t.requests > 1000);
    assert_true(t.slow * 100 <= t.requests);
    assert_in_range(t.p99_ns, 1, 5 * NS_PER_MS * 107 / 100); /* its classes are 6 percent wide */
}

static void without_a_target_the_same_guest_suffers(void **state)
{
    struct trial t = { .size = 384 * MIB, .guest_per_s = 500, .limit_ns = 5 * NS_PER_MS };

    loop_run_co(trial_entry, &t);
    assert_true(t.slow * 2 > t.requests);
}

static void a_writing_guest_keeps_its_target(void **state)
{
    struct trial t = { .size = 256 * MIB, .guest_per_s = 100, .target_ns = 12 * NS_PER_MS, .limit_ns = 12 * NS_PER_MS,
                       .settle_ns = 3 * NS_PER_S, .write = true };

    loop_run_co(trial_entry, &t);
    assert_true(t.requests > 200);
    assert_true(t.slow * 100 <= t.requests);
}

static void an_idle_machine_is_used_at_full_speed(void **state)
{
    struct trial with = { .size = 256 * MIB, .target_ns = 2 * NS_PER_MS }, without = { .size = 256 * MIB };

    loop_run_co(trial_entry, &with);
    loop_run_co(trial_entry, &without);
    assert_true(with.ns < without.ns + without.ns / 50);
}

static void a_target_that_cannot_be_met_does_not_stop_the_job(void **state)
{
    struct trial t = { .size = 48 * MIB, .guest_per_s = 100, .target_ns = 1000 };

    loop_run_co(trial_entry, &t);
    assert_true(t.ns > 10 * NS_PER_S); /* most of it at the floor */
}

/* A guest of 20 requests a second, and a job that looks at it always when a slot of the latency window has just begun. */
static void co_slow_guest(void *arg)
{
    struct stream_args args = { .device = "d", .latency = NS_PER_MS, .auto_finalize = true, .auto_dismiss = true };
    struct error err = ERROR_INIT;
    struct disk *disk = co_overlay(256 * MIB);

    medium.bytes_per_s = 100 * MIB;
    rig_guest_start(disk, 20);
    co_sleep_ns(NS_PER_S);
    co_sleep_ns(LATENCY_SLOT_NS - loop_now() % LATENCY_SLOT_NS);
    assert_int_equal(co_stream_start(&args, &err), 0);
    struct job *job = job_ref(job_find("d"));

    for (unsigned i = 0; i < 10; i++) {
        co_sleep_ns(LATENCY_PERIOD_NS);
        assert_false(job_ended(job));
        assert_true(job_pace(job) > 0); /* 0: free, as beside an idle guest */
    }
    job_cancel(job, true, &err);
    while (!job_ended(job)) {
        co_sleep_ns(NS_PER_MS);
    }
    job_unref(job);
    co_rig_guest_end();
    co_disk_free(disk);
}

static void a_guest_of_few_requests_is_not_taken_for_an_idle_one(void **state)
{
    loop_run_co(co_slow_guest, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_right_within_their_classes),
        cmocka_unit_test(the_window_forgets_after_five_seconds),
        cmocka_unit_test(the_law_finds_what_the_guest_allows),
        cmocka_unit_test(what_the_guest_allows_may_grow),
        cmocka_unit_test(the_pace_never_falls_below_the_floor),
        cmocka_unit_test(the_floor_is_a_hundredth_of_what_the_medium_moves),
        cmocka_unit_test(an_idle_guest_frees_the_job_and_its_return_binds_it_again),
        cmocka_unit_test_setup_teardown(a_guest_of_few_requests_is_not_taken_for_an_idle_one, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_busy_guest_keeps_its_target, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(without_a_target_the_same_guest_suffers, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_writing_guest_keeps_its_target, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(an_idle_machine_is_used_at_full_speed, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_target_that_cannot_be_met_does_not_stop_the_job, rig_setup, rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
