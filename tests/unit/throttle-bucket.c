/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leaky buckets: when requests may go, to the nanosecond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/throttle-bucket.h"

#define S 1000000000ull
#define MS 1000000ull

static struct throttle_limits limits(const char *text)
{
    struct throttle_limits l;
    struct error err = ERROR_INIT;
    json_t *named = json_loads(text, 0, NULL);

    throttle_limits_init(&l);
    assert_non_null(named);
    assert_int_equal(throttle_limits_set(&l, named, &err), 0);
    json_decref(named);
    return l;
}

/* When the n-th of equal requests goes that are asked for as soon as they may. */
static uint64_t time_of(struct throttle_limits *l, bool write, uint64_t bytes, unsigned n)
{
    uint64_t now = l->since;

    for (unsigned i = 0;; i++) {
        now += throttle_limits_wait(l, write, now);
        assert_int_equal(throttle_limits_wait(l, write, now), 0);
        if (i == n) {
            return now;
        }
        throttle_limits_account(l, write, bytes);
    }
}

static void without_limits_nothing_waits(void **state)
{
    struct throttle_limits l = limits("{}");

    assert_false(throttle_limits_any(&l));
    assert_int_equal(time_of(&l, true, 1 << 30, 1000), 0);
}

/* 100 a second: the bucket has room for 10, and an 11th goes while it is just full; from then on one each 10 ms. */
static void requests_go_at_the_limit(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 100}");

    assert_true(throttle_limits_any(&l));
    assert_int_equal(time_of(&l, false, 4096, 10), 0);
    l = limits("{\"iops-total\": 100}");
    assert_int_equal(time_of(&l, false, 4096, 11), 10 * MS);
    l = limits("{\"iops-total\": 100}");
    assert_int_equal(time_of(&l, false, 4096, 1010), 10 * S);
}

/* Nothing is rounded away: 3 a second are 3,000 in 1,000 seconds. */
static void a_rate_that_divides_no_nanosecond_is_kept(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 3}");

    assert_in_range(time_of(&l, false, 512, 3001), 1000 * S - S / 3, 1000 * S + S / 3);
}

/* A large request goes at once; those after it pay. */
static void a_large_request_is_paid_for_by_the_next(void **state)
{
    struct throttle_limits l = limits("{\"bps-total\": 1000}");

    assert_int_equal(time_of(&l, true, 1000000, 1), 1000 * S - S / 10);
}

static void reads_and_writes_have_limits_of_their_own(void **state)
{
    struct throttle_limits l = limits("{\"bps-read\": 1000, \"iops-write\": 10}");

    throttle_limits_account(&l, false, 2100);
    throttle_limits_account(&l, true, 1 << 20);
    assert_int_equal(throttle_limits_wait(&l, false, 0), 2 * S);
    assert_int_equal(throttle_limits_wait(&l, true, 0), 0);
    throttle_limits_account(&l, true, 1 << 20);
    assert_int_equal(throttle_limits_wait(&l, true, 0), 100 * MS);
}

static void a_total_is_for_both(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 10}");

    throttle_limits_account(&l, false, 512);
    throttle_limits_account(&l, true, 512);
    assert_int_equal(throttle_limits_wait(&l, false, 0), 100 * MS);
    assert_int_equal(throttle_limits_wait(&l, true, 0), 100 * MS);
}

/* A burst of 1,000 a second for 2 seconds above 100 a second: the burst's bucket lets 100 and one through at once, then 1,000 a second
 * until 2,000 are in the large bucket, then 100 a second. */
static void a_burst_lasts_its_length_at_its_rate(void **state)
{
    const char *text = "{\"iops-total\": 100, \"iops-total-max\": 1000, \"iops-total-max-length\": 2}";
    struct throttle_limits l = limits(text);

    assert_int_equal(time_of(&l, false, 512, 100), 0);
    l = limits(text);
    assert_int_equal(time_of(&l, false, 512, 1100), S);
    l = limits(text);
    /* 2,000 of room and 100 a second leaking: full after t with 100 + 1000 t - 100 t = 2000, t = 2.11 s. */
    assert_in_range(time_of(&l, false, 512, 2211), 2110 * MS, 2125 * MS);
    l = limits(text);
    assert_in_range(time_of(&l, false, 512, 2211 + 500), 2110 * MS + 5 * S - 20 * MS, 2125 * MS + 5 * S);
}

static void a_burst_of_one_second_is_all_at_once(void **state)
{
    struct throttle_limits l = limits("{\"bps-write\": 10, \"bps-write-max\": 100}");

    assert_int_equal(time_of(&l, true, 1, 100), 0);
    assert_int_equal(time_of(&l, true, 1, 1), 100 * MS);
}

static void large_requests_count_as_several(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 10, \"iops-size\": 4096}");

    throttle_limits_account(&l, false, 4096 * 5 / 2);
    assert_int_equal(throttle_limits_wait(&l, false, 0), 150 * MS);
    l = limits("{\"iops-total\": 10, \"iops-size\": 4096}");
    throttle_limits_account(&l, false, 1);
    throttle_limits_account(&l, false, 1);
    assert_int_equal(throttle_limits_wait(&l, false, 0), 100 * MS);
}

static void time_without_requests_is_not_saved_up(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 10}");

    throttle_limits_wait(&l, false, 3600 * S);
    assert_int_equal(time_of(&l, false, 512, 2), 3600 * S + 100 * MS);
}

/* The largest limits and times overflow nothing. */
static void the_largest_numbers_are_harmless(void **state)
{
    struct throttle_limits l = limits("{\"bps-total\": 1000000000000000}");

    throttle_limits_account(&l, true, UINT64_MAX);
    assert_int_equal(throttle_limits_wait(&l, true, 0), (uint64_t)(((unsigned __int128)UINT64_MAX * S + 999999999999999ull) / 1000000000000000ull) - 100 * MS);
    assert_int_equal(throttle_limits_wait(&l, true, UINT64_MAX), 0);
    l = limits("{\"bps-total\": 1}");
    throttle_limits_account(&l, true, UINT64_MAX);
    assert_int_equal(throttle_limits_wait(&l, true, 0), INT64_MAX);
}

static void what_is_not_named_stays(void **state)
{
    struct throttle_limits l = limits("{\"iops-total\": 5, \"bps-read\": 7}");
    struct error err = ERROR_INIT;
    json_t *named = json_pack("{s:i}", "iops-total", 9), *all;

    assert_int_equal(throttle_limits_set(&l, named, &err), 0);
    all = throttle_limits_get(&l);
    assert_int_equal(json_object_size(all), 19);
    assert_int_equal(json_integer_value(json_object_get(all, "iops-total")), 9);
    assert_int_equal(json_integer_value(json_object_get(all, "bps-read")), 7);
    assert_int_equal(json_integer_value(json_object_get(all, "bps-write-max-length")), 1);
    json_decref(named);
    json_decref(all);
}

/* Requests of any size count when they are limited by their number, whichever they are. */
static void sizes_need_a_limit_of_requests(void **state)
{
    static const char *const rows[] = {
        "{\"iops-size\": 5, \"iops-total\": 1}",
        "{\"iops-size\": 5, \"iops-read\": 1}",
        "{\"iops-size\": 5, \"iops-write\": 1}",
        "{\"iops-size\": 0, \"bps-total\": \"no number\"}",
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct throttle_limits l = limits(rows[i]);

        assert_int_equal(throttle_limits_any(&l), i < 3);
    }
}

static void nonsense_is_refused_and_changes_nothing(void **state)
{
    static const char *const rows[][2] = {
        { "{\"iops-total\": 5, \"iops-read\": 1}", "bps/iops/max total values and read/write values cannot be used at the same time" },
        { "{\"bps-write\": 5, \"bps-total\": 1}", "bps/iops/max total values and read/write values cannot be used at the same time" },
        { "{\"iops-total-max\": 5, \"iops-read-max\": 1}",
          "bps/iops/max total values and read/write values cannot be used at the same time" },
        { "{\"bps-total-max\": 5, \"bps-write-max\": 1}",
          "bps/iops/max total values and read/write values cannot be used at the same time" },
        { "{\"iops-size\": 5}", "iops size requires an iops value to be set" },
        { "{\"bps-read\": 5, \"bps-read-max\": 1000000000000001}", "bps/iops/max values must be within [0, 1000000000000000]" },
        { "{\"iops-total\": -5}", "bps/iops/max values must be within [0, 1000000000000000]" },
        { "{\"bps-read\": 1000000000000001}", "bps/iops/max values must be within [0, 1000000000000000]" },
        { "{\"iops-total\": 5, \"iops-total-max-length\": 0}", "the burst length cannot be 0" },
        { "{\"iops-total\": 5, \"iops-total-max-length\": 2}", "burst length set without burst rate" },
        { "{\"iops-total\": 5, \"iops-total-max-length\": 4294967296}", "iops-total-max-length value must be in the range [0, 4294967295]" },
        { "{\"iops-total\": 5, \"iops-total-max\": 1000000000000, \"iops-total-max-length\": 100000}",
          "burst length too high for this burst rate" },
        { "{\"iops-total-max\": 5}", "bps_max/iops_max require corresponding bps/iops values" },
        { "{\"iops-total\": 5, \"iops-total-max\": 4}", "bps_max/iops_max cannot be lower than bps/iops" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct error err = ERROR_INIT;
        struct throttle_limits l = limits("{}");
        json_t *named = json_loads(rows[i][0], 0, NULL);

        assert_non_null(named);
        assert_true(throttle_limits_set(&l, named, &err) < 0);
        assert_string_equal(err.text, rows[i][1]);
        assert_false(throttle_limits_any(&l));
        error_clear(&err);
        json_decref(named);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_nothing_waits),
        cmocka_unit_test(requests_go_at_the_limit),
        cmocka_unit_test(a_rate_that_divides_no_nanosecond_is_kept),
        cmocka_unit_test(a_large_request_is_paid_for_by_the_next),
        cmocka_unit_test(reads_and_writes_have_limits_of_their_own),
        cmocka_unit_test(a_total_is_for_both),
        cmocka_unit_test(a_burst_lasts_its_length_at_its_rate),
        cmocka_unit_test(a_burst_of_one_second_is_all_at_once),
        cmocka_unit_test(large_requests_count_as_several),
        cmocka_unit_test(time_without_requests_is_not_saved_up),
        cmocka_unit_test(the_largest_numbers_are_harmless),
        cmocka_unit_test(what_is_not_named_stays),
        cmocka_unit_test(sizes_need_a_limit_of_requests),
        cmocka_unit_test(nonsense_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests_name("throttle-bucket", tests, NULL, NULL);
}
