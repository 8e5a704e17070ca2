/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The choice of steps: mix, order, working set, pace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "hw/guest-work.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct guest_settings s;
static struct guest_disk disk;
static struct guest_work work;
static struct guest_step step;
static unsigned counts[STEP_TRIM_WRITE + 1];

static int setup(void **state)
{
    guest_settings_init(&s);
    s.seed = 5;
    disk = (struct guest_disk){ .capacity = GIB, .can_trim = true };
    memset(counts, 0, sizeof(counts));
    return 0;
}

static void begin(void)
{
    assert_int_equal(guest_work_init(&work, &s, &disk, NULL), 0);
}

static void count_steps(unsigned n)
{
    begin();
    memset(counts, 0, sizeof(counts));
    while (n--) {
        guest_work_next(&work, &step);
        counts[step.action]++;
        assert_true(step.len > 0 && step.len % s.bs_min == 0 && step.len <= s.bs_max);
        assert_true(step.offset + step.len <= disk.capacity);
    }
}

/* Reads per hundred requests of the disk. */
static unsigned read_share(void)
{
    unsigned reads = counts[STEP_READ] + counts[STEP_REWRITE],
             writes = counts[STEP_WRITE] + counts[STEP_REWRITE];

    return 100 * reads / (reads + writes);
}

static void preserve_reads_for_every_write(void **state)
{
    count_steps(2000);
    assert_int_equal(counts[STEP_REWRITE], 2000); /* a read and a write each: half reads */
    s.rwmixread = 75;
    count_steps(20000);
    assert_in_range(read_share(), 74, 76);
    assert_int_equal(counts[STEP_WRITE], 0);
    s.rwmixread = 100;
    count_steps(1000);
    assert_int_equal(counts[STEP_READ], 1000);
    s.rwmixread = 0;
    count_steps(1000);
    assert_int_equal(counts[STEP_REWRITE], 1000);
    s.rw = RW_READ;
    count_steps(1000);
    assert_int_equal(counts[STEP_READ], 1000);
}

static void stamp_mixes_as_told(void **state)
{
    s.profile = PROFILE_STAMP;
    s.rwmixread = 30;
    count_steps(20000);
    assert_in_range(read_share(), 29, 31);
    assert_int_equal(counts[STEP_REWRITE], 0);
    s.rw = RW_WRITE;
    count_steps(100);
    assert_int_equal(counts[STEP_WRITE], 100);
    s.rw = RW_RANDOM | RW_TRIM;
    count_steps(100);
    assert_int_equal(counts[STEP_TRIM], 100);
    s.rw = RW_TRIM | RW_WRITE;
    count_steps(100);
    assert_int_equal(counts[STEP_TRIM_WRITE], 100);
}

static void a_read_only_disk_is_only_read(void **state)
{
    disk.read_only = true;
    disk.can_trim = false;
    s.profile = PROFILE_STAMP;
    for (unsigned rw = 1; rw < 16; rw++) {
        s.rw = rw;
        count_steps(100);
        assert_int_equal(counts[STEP_READ], 100);
    }
}

static void a_disk_that_cannot_discard_is_not_trimmed(void **state)
{
    struct error err = ERROR_INIT;

    disk.can_trim = false;
    s.profile = PROFILE_STAMP;
    s.rw = RW_TRIM;
    assert_int_not_equal(guest_work_init(&work, &s, &disk, &err), 0);
    assert_string_equal(err.text, "The disk cannot discard, so the guest cannot trim");
    error_clear(&err);
}

/* Which MiB of a disk of 1 GiB were touched? */
static unsigned touched(bool *mib)
{
    unsigned n = 0;

    memset(mib, 0, 1024);
    begin();
    for (unsigned i = 0; i < 20000; i++) {
        guest_work_next(&work, &step);
        n += !mib[step.offset / MIB];
        mib[step.offset / MIB] = true;
    }
    return n;
}

static void the_default_working_set_is_64_mib_all_over_the_disk(void **state)
{
    bool mib[1024], other[1024];

    assert_int_equal(touched(mib), 64);
    assert_true(mib[0]);
    for (unsigned i = 0; i < 16; i++) {
        assert_non_null(memchr(mib + i * 64, true, 64)); /* something in each sixteenth */
    }
    assert_int_equal(touched(other), 64);
    assert_memory_equal(mib, other, sizeof(mib)); /* the same seed, the same places */
    s.seed++;
    assert_int_equal(touched(other), 64);
    assert_memory_not_equal(mib, other, sizeof(mib));
}

static void a_told_working_set_is_one_piece(void **state)
{
    bool mib[1024];

    s.spread = false;
    s.offset = 100 * MIB;
    s.size = 10 * MIB;
    assert_int_equal(touched(mib), 10);
    for (unsigned i = 100; i < 110; i++) {
        assert_true(mib[i]);
    }
    s.offset = 1020 * MIB; /* what is left of the disk */
    assert_int_equal(touched(mib), 4);
    s.offset = 0;
    s.size_percent = 50;
    assert_in_range(touched(mib), 511, 512);
}

static void a_working_set_behind_the_disk_is_refused(void **state)
{
    struct error err = ERROR_INIT;

    s.spread = false;
    s.offset = GIB;
    assert_int_not_equal(guest_work_init(&work, &s, &disk, &err), 0);
    assert_string_equal(
        err.text,
        "The working set is empty: no block of 4096 bytes at offset 1073741824 on a disk of "
        "1073741824 bytes");
    error_clear(&err);
    setup(NULL);
    disk.capacity = 0;
    assert_int_not_equal(guest_work_init(&work, &s, &disk, NULL), 0);
    disk.capacity = 1536; /* a very small disk, in its largest blocks */
    assert_int_not_equal(guest_work_init(&work, &s, &disk, NULL), 0);
    s.bs_min = s.bs_max = 512;
    count_steps(100);
}

static void sequential_steps_follow_each_other_and_begin_anew(void **state)
{
    s.profile = PROFILE_STAMP;
    s.spread = false;
    s.size = 64 * 1024;
    s.offset = 4096;
    s.rw = RW_READ | RW_WRITE;
    begin();
    uint64_t next[2] = { 4096, 4096 };

    for (unsigned i = 0; i < 200; i++) {
        guest_work_next(&work, &step);
        uint64_t *n = &next[step.action == STEP_WRITE];

        assert_int_equal(step.offset, *n);
        *n = *n + 4096 == 4096 + s.size ? 4096 : *n + 4096;
    }
}

static void block_sizes_of_a_range_all_occur(void **state)
{
    unsigned seen[17] = { 0 };

    s.profile = PROFILE_STAMP;
    s.bs_max = 65536;
    for (unsigned sequential = 0; sequential < 2; sequential++) {
        s.rw = sequential ? RW_WRITE : RW_RANDOM | RW_WRITE;
        count_steps(5000);
        begin();
        memset(seen, 0, sizeof(seen));
        for (unsigned i = 0; i < 5000; i++) {
            guest_work_next(&work, &step);
            seen[step.len / 4096]++;
        }
        for (unsigned i = 1; i <= 16; i++) {
            assert_in_range(seen[i], 200, 450);
        }
    }
}

static void the_pace_is_right_on_average(void **state)
{
    uint64_t sum = 0;

    begin();
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t interval = guest_work_interval(&work);

        assert_in_range(interval, 2500000, 7500000);
        sum += interval;
    }
    assert_in_range(sum / 10000, 4950000, 5050000); /* 200 a second */
    s.rate_iops = 0;
    begin();
    assert_int_equal(guest_work_interval(&work), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(preserve_reads_for_every_write, setup),
        cmocka_unit_test_setup(stamp_mixes_as_told, setup),
        cmocka_unit_test_setup(a_read_only_disk_is_only_read, setup),
        cmocka_unit_test_setup(a_disk_that_cannot_discard_is_not_trimmed, setup),
        cmocka_unit_test_setup(the_default_working_set_is_64_mib_all_over_the_disk, setup),
        cmocka_unit_test_setup(a_told_working_set_is_one_piece, setup),
        cmocka_unit_test_setup(a_working_set_behind_the_disk_is_refused, setup),
        cmocka_unit_test_setup(sequential_steps_follow_each_other_and_begin_anew, setup),
        cmocka_unit_test_setup(block_sizes_of_a_range_all_occur, setup),
        cmocka_unit_test_setup(the_pace_is_right_on_average, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
