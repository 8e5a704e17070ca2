/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is left on the simulated disk when the power or the process goes, and snapshots of it.
 *
 * Most tests write sectors that all hold the number of their version, cut, and ask of each sector
 * what it may be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "core/co.h"
#include "core/io-sim.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define SECTOR 512u
#define SECTORS 32u
#define BYTES (SECTOR * SECTORS)

static int setup(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 5);
    io_init();
    io_sim_init();
    io_engine_set_default(io_engine_find("sim"));
    return 0;
}

static int teardown(void **state)
{
    io_sim_fini();
    io_fini();
    loop_fini();
    return 0;
}

static struct io_file *co_open(const char *path, unsigned flags)
{
    struct io_file *file;

    assert_int_equal(co_io_open(NULL, path, flags, &file), 0);
    return file;
}

static void co_write_version(struct io_file *file, unsigned version)
{
    unsigned char buf[BYTES];

    memset(buf, version, sizeof(buf));
    assert_int_equal(co_io_write(file, 0, buf, sizeof(buf)), 0);
}

/* The versions of all sectors after a cut; each sector must be of one piece. */
static void versions(const char *path, unsigned char *version)
{
    unsigned char buf[BYTES];

    assert_int_equal(io_sim_read(path, 0, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < SECTORS; i++) {
        version[i] = buf[i * SECTOR];
        for (unsigned j = 1; j < SECTOR; j++) {
            assert_int_equal(buf[i * SECTOR + j], version[i]);
        }
    }
}

/* --- Power ------------------------------------------------------------------------------------ */

/* Version 1 is durable, 2 and 3 are cached, 4 is not even complete. */
struct cached_run {
    struct io_sim_snapshot *snapshot;
};

static void snap_when_4_is_issued(void *arg, const struct io_sim_event *e)
{
    struct cached_run *run = arg;

    if (e->op == IO_SIM_WRITE && e->number == 6 && !e->completed) {
        assert_null(run->snapshot);
        run->snapshot = io_sim_snapshot();
    }
}

static void CO_ENTRY cached_entry(void *arg)
{
    struct io_file *file;

    io_sim_create("f", BYTES);
    io_sim_on_op(snap_when_4_is_issued, arg);
    file = co_open("f", IO_RDWR);
    co_write_version(file, 1);
    assert_int_equal(co_io_flush(file), 0);
    co_write_version(file, 2);
    co_write_version(file, 3);
    co_write_version(file, 4);
    co_io_close(file);
}

static void power_keeps_any_mixture_of_what_was_not_flushed(void **state)
{
    struct cached_run run = { .snapshot = NULL };
    unsigned pure[5] = { 0 }, torn_512 = 0, torn_4k = 0, seen[5] = { 0 };

    loop_run_co(cached_entry, &run);
    for (unsigned seed = 0; seed < 2000; seed++) {
        unsigned char v[SECTORS];
        unsigned changes = 0, odd_changes = 0;

        io_sim_restore(run.snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        versions("f", v);
        for (unsigned i = 0; i < SECTORS; i++) {
            assert_in_range(v[i], 1, 4);
            seen[v[i]]++;
            if (i && v[i] != v[i - 1]) {
                changes++;
                odd_changes += i % 8 != 0;
            }
        }
        pure[v[0]] += !changes;
        torn_512 += odd_changes > 0;
        torn_4k += changes && !odd_changes;
    }
    for (unsigned i = 1; i <= 4; i++) {
        assert_true(pure[i] > 20);
        assert_true(seen[i] > 2000);
    }
    assert_true(torn_512 > 100);
    assert_true(torn_4k > 100);
    io_sim_snapshot_free(run.snapshot);
}

static void the_two_extremes_keep_nothing_or_all(void **state)
{
    struct cached_run run = { .snapshot = NULL };
    unsigned char v[SECTORS];

    loop_run_co(cached_entry, &run);
    io_sim_restore(run.snapshot);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 1);
    versions("f", v);
    for (unsigned i = 0; i < SECTORS; i++) {
        assert_int_equal(v[i], 1);
    }
    io_sim_restore(run.snapshot);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 1);
    versions("f", v);
    for (unsigned i = 0; i < SECTORS; i++) {
        assert_int_equal(v[i], 4);
    }
    io_sim_snapshot_free(run.snapshot);
}

static void one_seed_is_one_outcome(void **state)
{
    struct cached_run run = { .snapshot = NULL };
    unsigned char a[SECTORS], b[SECTORS];

    loop_run_co(cached_entry, &run);
    for (unsigned seed = 0; seed < 20; seed++) {
        io_sim_restore(run.snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        versions("f", a);
        io_sim_restore(run.snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        versions("f", b);
        assert_memory_equal(a, b, SECTORS);
    }
    io_sim_snapshot_free(run.snapshot);
}

static void CO_ENTRY grow_entry(void *arg)
{
    struct io_file *file;

    io_sim_create("f", SECTOR);
    file = co_open("f", IO_RDWR);
    co_write_version(file, 1);
    co_io_close(file);
}

static void sizes_go_apart_from_data(void **state)
{
    unsigned all = 0, none = 0, size_only = 0, start_only = 0;
    struct io_sim_snapshot *snapshot;

    loop_run_co(grow_entry, NULL);
    snapshot = io_sim_snapshot();
    for (unsigned seed = 0; seed < 500; seed++) {
        unsigned char first, last;
        uint64_t size;

        io_sim_restore(snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        assert_int_equal(io_sim_size("f", &size), 0);
        assert_true(size == SECTOR || size == BYTES);
        io_sim_read("f", 0, &first, 1);
        io_sim_read("f", BYTES - 1, &last, 1);
        all += size == BYTES && last;
        size_only += size == BYTES && !last && !first;
        start_only += size == SECTOR && first;
        none += size == SECTOR && !first;
        assert_true(size == BYTES || !last); /* nothing shines through behind the end */
    }
    assert_true(all > 20 && none > 20 && size_only > 20 && start_only > 20);
    io_sim_snapshot_free(snapshot);
}

static void CO_ENTRY punch_entry(void *arg)
{
    unsigned char buf[BYTES];
    struct io_file *file;

    memset(buf, 1, sizeof(buf));
    io_sim_create("f", 0);
    io_sim_write("f", 0, buf, sizeof(buf));
    file = co_open("f", IO_RDWR);
    assert_int_equal(co_io_discard(file, 0, BYTES), 0);
    co_io_close(file);
}

static void punched_ranges_come_back_in_whole_blocks(void **state)
{
    unsigned all = 0, none = 0, torn = 0;
    struct io_sim_snapshot *snapshot;

    loop_run_co(punch_entry, NULL);
    snapshot = io_sim_snapshot();
    for (unsigned seed = 0; seed < 500; seed++) {
        unsigned char v[SECTORS];
        unsigned ones = 0;

        io_sim_restore(snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        versions("f", v);
        for (unsigned i = 0; i < SECTORS; i++) {
            assert_int_equal(v[i], v[i / 8 * 8]);
            ones += v[i];
        }
        all += ones == SECTORS;
        none += ones == 0;
        torn += ones && ones < SECTORS;
    }
    assert_true(all > 20 && none > 20 && torn > 20);
    io_sim_snapshot_free(snapshot);
}

static void CO_ENTRY names_entry(void *arg)
{
    struct io_file *file = co_open("/d/tmp", IO_RDWR | IO_CREATE);

    io_sim_create("/d/real", 7);
    assert_int_equal(co_io_write(file, 0, "new", 3), 0);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_rename("/d/tmp", "/d/real"), 0);
    co_io_close(file);
}

/* The way of writing a file anew: whatever happens, "real" is the old one or the whole new one. */
static void a_rename_is_there_or_not_and_never_before_the_create(void **state)
{
    unsigned old = 0, both = 0, renamed = 0;
    struct io_sim_snapshot *snapshot;

    loop_run_co(names_entry, NULL);
    snapshot = io_sim_snapshot();
    for (unsigned seed = 0; seed < 500; seed++) {
        uint64_t size;

        io_sim_restore(snapshot);
        io_sim_cut(IO_SIM_CUT_POWER, seed);
        assert_int_equal(io_sim_size("/d/real", &size), 0);
        assert_true(size == 7 || size == 3);
        renamed += size == 3;
        both += size == 7 && io_exists("/d/tmp");
        old += size == 7 && !io_exists("/d/tmp");
        assert_false(size == 3 && io_exists("/d/tmp"));
    }
    assert_true(old > 20 && both > 20 && renamed > 20);
    io_sim_restore(snapshot);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
    assert_false(io_exists("/d/tmp"));
    io_sim_snapshot_free(snapshot);
}

/* --- Process ---------------------------------------------------------------------------------- */

static void a_killed_process_leaves_what_had_completed(void **state)
{
    struct cached_run run = { .snapshot = NULL };
    unsigned without = 0, with = 0, part = 0;

    loop_run_co(cached_entry, &run);
    for (unsigned seed = 0; seed < 300; seed++) {
        unsigned char v[SECTORS];
        unsigned fours = 0;

        io_sim_restore(run.snapshot);
        io_sim_cut(IO_SIM_CUT_KILL, seed);
        versions("f", v);
        for (unsigned i = 0; i < SECTORS; i++) {
            assert_in_range(v[i], 3, 4);
            assert_true(!i || v[i] <= v[i - 1]); /* from its start on */
            assert_int_equal(v[i], v[i / 8 * 8]);
            fours += v[i] == 4;
        }
        without += fours == 0;
        with += fours == SECTORS;
        part += fours && fours < SECTORS;
        /* Still only cached. */
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, seed);
        versions("f", v);
        assert_int_equal(v[0], 1);
    }
    assert_true(without > 20 && with > 20 && part > 20);
    io_sim_snapshot_free(run.snapshot);
}

static void cut_at_5(void *arg, const struct io_sim_event *e)
{
    if (e->number == 5 && !e->completed) {
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, 1);
    }
}

static void CO_ENTRY dead_entry(void *arg)
{
    struct io_file *file, *second;
    unsigned char byte = 9;
    uint64_t size, len = 1;
    unsigned bad;
    bool flag;

    io_sim_create("f", BYTES);
    io_sim_on_op(cut_at_5, NULL);
    file = co_open("f", IO_RDWR);
    second = co_open("g", IO_RDWR | IO_CREATE);
    assert_int_equal(io_file_lock(file, IO_PERM_WRITE, 0, &bad, &flag), 0);
    co_write_version(file, 1);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_write(file, 0, &byte, 1), -EIO); /* the power goes */

    assert_int_equal(co_io_read(file, 0, &byte, 1), -EIO);
    assert_int_equal(co_io_write(second, 0, &byte, 1), -EIO);
    assert_int_equal(co_io_flush(second), -EIO);
    assert_int_equal(co_io_truncate(file, 0), -EIO);
    assert_int_equal(co_io_size(file, &size), -EIO);
    assert_int_equal(co_io_map(file, 0, &len, &flag), -EIO);
    assert_int_equal(co_io_zero(file, 0, 1, true), -EIO);
    assert_int_equal(co_io_copy(file, 0, second, 0, 1), -EIO);
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY), -EIO);
    assert_int_equal(io_sim_ops(), 5); /* the dead do nothing */

    struct io_file *anew = co_open("f", IO_RDWR);

    assert_int_equal(io_file_lock(anew, IO_PERM_WRITE, 0, &bad, &flag), 0); /* nor do they lock */
    assert_int_equal(co_io_read(anew, 0, &byte, 1), 0);
    assert_int_equal(byte, 1);
    assert_false(io_exists("g"));
    co_io_close(file);
    co_io_close(second);
    co_io_close(anew);
}

static void handles_of_the_dead_are_stale(void **state)
{
    loop_run_co(dead_entry, NULL);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

#define ROUNDS 20
#define SNAPSHOTS_MAX 200

struct explored {
    struct io_sim_snapshot *at[SNAPSHOTS_MAX];
    unsigned promised[SNAPSHOTS_MAX]; /* the version whose flush had returned */
    unsigned issued[SNAPSHOTS_MAX];   /* the last version whose write had begun */
    unsigned n, flushed, begun;
};

static void snap(void *arg, const struct io_sim_event *e)
{
    struct explored *x = arg;

    assert_true(x->n < SNAPSHOTS_MAX);
    if (e->op == IO_SIM_WRITE && !e->completed) {
        x->begun++;
    }
    if (e->op == IO_SIM_FLUSH && e->completed) {
        x->flushed = x->begun;
    }
    x->promised[x->n] = x->flushed;
    x->issued[x->n] = x->begun;
    x->at[x->n++] = io_sim_snapshot();
}

static void CO_ENTRY explored_entry(void *arg)
{
    struct io_file *file;

    io_sim_create("f", BYTES);
    io_sim_on_op(snap, arg);
    file = co_open("f", IO_RDWR);
    for (unsigned v = 1; v <= ROUNDS; v++) {
        co_write_version(file, v);
        if (v % 3 == 0) {
            assert_int_equal(co_io_flush(file), 0);
        }
    }
    co_io_close(file);
}

static void every_instant_of_a_run_can_be_cut_afterwards(void **state)
{
    AUTOFREE struct explored *x = mem_zalloc(sizeof(*x));
    unsigned char v[SECTORS];

    loop_run_co(explored_entry, x);
    io_sim_on_op(NULL, NULL);
    assert_true(x->n > ROUNDS * 2);
    /* Backwards and forwards: a restore leaves the other snapshots alone. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < x->n; i++) {
            unsigned k = pass ? i : x->n - 1 - i;

            for (unsigned seed = 0; seed < 10; seed++) {
                io_sim_restore(x->at[k]);
                io_sim_cut(seed ? IO_SIM_CUT_POWER : IO_SIM_CUT_POWER_LOSE, seed);
                versions("f", v);
                for (unsigned s = 0; s < SECTORS; s++) {
                    assert_in_range(v[s], x->promised[k], seed ? x->issued[k] : x->promised[k]);
                }
            }
        }
    }
    for (unsigned i = 0; i < x->n; i++) {
        io_sim_snapshot_free(x->at[i]);
    }
}

static void CO_ENTRY write_on_entry(void *arg)
{
    struct io_file *file = co_open("f", IO_RDWR);

    co_write_version(file, 77);
    assert_int_equal(co_io_flush(file), 0);
    co_io_close(file);
}

static void a_restored_world_goes_on_and_the_snapshot_stays(void **state)
{
    struct cached_run run = { .snapshot = NULL };
    unsigned char v[SECTORS];

    loop_run_co(cached_entry, &run);
    io_sim_on_op(NULL, NULL);
    for (unsigned i = 0; i < 3; i++) {
        io_sim_restore(run.snapshot);
        versions("f", v);
        assert_int_equal(v[0], 3); /* what readers saw at the time */
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
        versions("f", v);
        assert_int_equal(v[0], 1);
        loop_run_co(write_on_entry, NULL);
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
        versions("f", v);
        assert_int_equal(v[SECTORS - 1], 77);
    }
    io_sim_snapshot_free(run.snapshot);
}

/* Three writes of one sector each, the first two cached, the third in flight when the hook sees it. */
static void take_third(void *arg, const struct io_sim_event *event)
{
    struct io_sim_snapshot **snapshot = arg;

    if (event->op == IO_SIM_WRITE && !event->completed && event->offset == 2 * SECTOR) {
        *snapshot = io_sim_snapshot();
    }
}

static CO_ENTRY void co_three_writes(void *arg)
{
    struct io_file *file = co_open("f", IO_RDWR);
    unsigned char buf[SECTOR];

    for (unsigned i = 0; i < 3; i++) {
        memset(buf, i + 1, sizeof(buf));
        assert_int_equal(co_io_write(file, i * SECTOR, buf, sizeof(buf)), 0);
    }
    co_io_close(file);
}

static void an_exact_cut_keeps_what_it_is_told(void **state)
{
    static const struct {
        bool kill;
        const char *fates;
        unsigned want[3];
    } cases[] = {
        { false, "000", { 0, 0, 0 } }, { false, "111", { 1, 2, 3 } }, { false, "010", { 0, 2, 0 } },
        { false, "s01", { 0, 0, 3 } }, { true, "000", { 1, 2, 0 } },  { true, "001", { 1, 2, 3 } },
    };
    struct io_sim_snapshot *snapshot = NULL;
    struct io_sim_pending *pending;
    uint64_t hash[ARRAY_SIZE(cases)];

    io_sim_create("f", BYTES);
    io_sim_on_op(take_third, &snapshot);
    loop_run_co(co_three_writes, NULL);
    io_sim_on_op(NULL, NULL);
    assert_non_null(snapshot);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned char got[BYTES];

        io_sim_restore(snapshot);
        assert_int_equal(io_sim_pending(&pending), 3);
        assert_true(pending[2].in_flight && !pending[1].in_flight);
        assert_true(pending[0].id < pending[1].id && pending[1].id < pending[2].id);
        free(pending);
        io_sim_cut_exact(cases[i].kill, cases[i].fates);
        assert_int_equal(io_sim_read("f", 0, got, sizeof(got)), 0);
        for (unsigned k = 0; k < 3; k++) {
            assert_int_equal(got[k * SECTOR], cases[i].want[k]);
        }
        hash[i] = io_sim_hash("f");
        assert_int_equal(io_sim_pending(&pending), cases[i].kill ? 2 + (cases[i].fates[2] == '1') : 0);
        free(pending);
    }
    assert_true(hash[0] != hash[1] && hash[0] != hash[2] && hash[2] != hash[3]);
    assert_true(hash[1] == hash[5]);
    io_sim_snapshot_free(snapshot);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(power_keeps_any_mixture_of_what_was_not_flushed),
        TEST(the_two_extremes_keep_nothing_or_all),
        TEST(one_seed_is_one_outcome),
        TEST(sizes_go_apart_from_data),
        TEST(punched_ranges_come_back_in_whole_blocks),
        TEST(a_rename_is_there_or_not_and_never_before_the_create),
        TEST(a_killed_process_leaves_what_had_completed),
        TEST(handles_of_the_dead_are_stale),
        TEST(every_instant_of_a_run_can_be_cut_afterwards),
        TEST(an_exact_cut_keeps_what_it_is_told),
        TEST(a_restored_world_goes_on_and_the_snapshot_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
