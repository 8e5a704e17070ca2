/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Percentiles against a sorted list, and stalls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/loop.h"
#include "core/mem.h"
#include "hw/guest-stats.h"

static struct guest_stats stats;

static int setup(void **state)
{
    stats = (struct guest_stats){ 0 };
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void nothing_gives_zero(void **state)
{
    assert_int_equal(guest_latency_percentile(&stats.latency, 990), 0);
    assert_int_equal(stats.latency.max_ns, 0);
}

static void small_and_huge_values_have_classes(void **state)
{
    for (unsigned i = 0; i < 32; i++) {
        stats.latency = (struct guest_latency){ 0 };
        guest_latency_add(&stats.latency, i);
        guest_latency_add(&stats.latency, UINT64_MAX);
        assert_int_equal(guest_latency_percentile(&stats.latency, 500), i);
        assert_true(guest_latency_percentile(&stats.latency, 1000) == UINT64_MAX);
    }
}

static void percentiles_are_within_three_percent(void **state)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static const unsigned asked[] = { 1, 100, 500, 900, 990, 999, 1000 };
    struct random rnd;

    random_seed(&rnd, 3);
    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = random_below(&rnd, 1ull << random_below(&rnd, 40));
        guest_latency_add(&stats.latency, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), ascending);
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++) {
        uint64_t exact = values[MAX(COUNT * asked[i] / 1000, 1u) - 1];
        uint64_t got = guest_latency_percentile(&stats.latency, asked[i]);

        assert_true(got >= exact && got <= exact + exact / 32 + 1);
    }
    assert_int_equal(stats.latency.max_ns, values[COUNT - 1]);
}

static void a_stall_is_time_with_requests_and_no_end(void **state)
{
    guest_stats_begin(&stats, 1000);
    guest_stats_begin(&stats, 1500);
    assert_int_equal(guest_stats_stall(&stats, 1700), 700);
    guest_stats_end(&stats, 1800); /* 800 since the first began */
    guest_stats_end(&stats, 2000);
    assert_int_equal(stats.longest_stall_ns, 800);
    assert_int_equal(guest_stats_stall(&stats, 9000), 800); /* idle is no stall */
    guest_stats_begin(&stats, 9000);
    assert_int_equal(guest_stats_stall(&stats, 9900), 900); /* that of this moment counts */
    guest_stats_end(&stats, 9950);
    assert_int_equal(stats.longest_stall_ns, 950);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_gives_zero, setup),
        cmocka_unit_test_setup(small_and_huge_values_have_classes, setup),
        cmocka_unit_test_setup(percentiles_are_within_three_percent, setup),
        cmocka_unit_test_setup(a_stall_is_time_with_requests_and_no_end, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
