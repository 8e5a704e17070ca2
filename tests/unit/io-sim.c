/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated disk through the engine's front: files, names, what is durable when, faults,
 * determinism. Cuts and snapshots: io-sim-cut.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static int setup(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 3);
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

static void fill(unsigned char *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = i * 7 + seed + i / 251;
    }
}

/* --- Files ------------------------------------------------------------------------------------ */

static void CO_ENTRY contents_entry(void *arg)
{
    unsigned char out[10000], in[10000], zero[100] = { 0 };
    struct io_file *file = co_open("/d/a.img", IO_RDWR | IO_CREATE | *(unsigned *)arg);
    uint64_t size, len, held;
    bool data;

    fill(out, sizeof(out), 1);
    assert_int_equal(co_io_write(file, 70001, out, sizeof(out)), 0);
    assert_int_equal(co_io_size(file, &size), 0);
    assert_in_range(size, 80001, 80384); /* unaligned ends are rounded up under IO_DIRECT */
    assert_int_equal(co_io_truncate(file, 80001), 0);
    assert_int_equal(co_io_read(file, 70001, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(co_io_read(file, 79991, in, 100), 0);
    assert_memory_equal(in, out + 9990, 10);
    assert_memory_equal(in + 10, zero, 90);

    len = MIB;
    assert_int_equal(co_io_map(file, 0, &len, &data), 0);
    assert_false(data);
    assert_int_equal(len, 17 * 4096);
    len = MIB;
    assert_int_equal(co_io_map(file, 17 * 4096, &len, &data), 0);
    assert_true(data);
    assert_int_equal(len, 80001 - 17 * 4096);
    assert_int_equal(co_io_allocated(file, &held), 0);
    assert_int_equal(held, 3 * 4096);

    assert_int_equal(co_io_discard(file, 17 * 4096, 4096), 0);
    assert_int_equal(co_io_allocated(file, &held), 0);
    assert_int_equal(held, 2 * 4096);
    assert_int_equal(co_io_zero(file, 100000, 5000, false), 0);
    assert_int_equal(co_io_size(file, &size), 0);
    assert_int_equal(size, 105000);
    assert_int_equal(co_io_truncate(file, 75000), 0);
    assert_int_equal(co_io_truncate(file, 80000), 0);
    assert_int_equal(co_io_read(file, 74990, in, 30), 0);
    assert_memory_equal(in, out + 4989, 10);
    assert_memory_equal(in + 10, zero, 20);
    co_io_close(file);
}

static void files_hold_what_is_written_and_know_their_holes(void **state)
{
    unsigned flags = 0;

    loop_run_co(contents_entry, &flags);
}

static void unaligned_access_to_direct_files_works_through_the_front(void **state)
{
    unsigned flags = IO_DIRECT;

    loop_run_co(contents_entry, &flags);
}

static void CO_ENTRY copy_entry(void *arg)
{
    static unsigned char out[MIB], in[MIB];
    struct io_file *a, *b;

    fill(out, sizeof(out), 9);
    io_sim_create("a", MIB - 100);
    assert_int_equal(io_sim_write("/a", 0, out, MIB - 100), 0);
    a = co_open("a", IO_READ_ONLY);
    b = co_open("b", IO_RDWR | IO_CREATE);
    assert_int_equal(co_io_copy(a, 500 * KIB, b, 3, MIB - 500 * KIB), 0);
    assert_int_equal(co_io_read(b, 3, in, MIB - 500 * KIB), 0);
    memset(out + MIB - 100, 0, 100);
    assert_memory_equal(in, out + 500 * KIB, MIB - 500 * KIB);
    assert_int_equal(co_io_write(a, 0, out, 1), -EBADF);
    co_io_close(a);
    co_io_close(b);
}

static void copies_go_from_file_to_file(void **state)
{
    loop_run_co(copy_entry, NULL);
    assert_true(io_stats.bytes_copied > 0);
}

static void CO_ENTRY names_entry(void *arg)
{
    struct io_file *file, *again;
    char *text;
    size_t len;

    assert_int_equal(co_io_open(NULL, "/x/new", IO_RDWR, &file), -ENOENT);
    file = co_open("/x/new", IO_RDWR | IO_CREATE | IO_EXCL);
    assert_int_equal(co_io_open(NULL, "/x/new", IO_RDWR | IO_CREATE | IO_EXCL, &again), -EEXIST);
    assert_int_equal(co_io_open(NULL, "/", IO_READ_ONLY, &again), -EISDIR);
    again = co_open("x/.//y/../new", IO_READ_ONLY);
    assert_true(io_file_same(file, again));
    assert_int_equal(co_io_write(file, 0, "hello", 5), 0);
    assert_int_equal(co_io_rename("/x/new", "/x/newer"), 0);
    assert_false(io_exists("/x/new"));
    assert_true(io_exists("/x/newer"));
    assert_int_equal(co_io_load("/x/newer", &text, &len), 0);
    assert_int_equal(len, 5);
    assert_string_equal(text, "hello");
    free(text);
    assert_int_equal(co_io_load("/x/new", &text, &len), -ENOENT);
    assert_int_equal(co_io_unlink("/x/newer"), 0);
    assert_int_equal(co_io_unlink("/x/newer"), -ENOENT);
    assert_int_equal(co_io_rename("/x/newer", "/y"), -ENOENT);
    assert_int_equal(co_io_write(again, 0, "x", 1), -EBADF);
    assert_int_equal(co_io_reopen(again, IO_RDWR), 0);
    assert_int_equal(co_io_write(again, 0, "j", 1), 0); /* unlinked, but open */
    co_io_close(file);
    co_io_close(again);
}

static void names_come_go_and_are_compared_by_text(void **state)
{
    loop_run_co(names_entry, NULL);
}

static void CO_ENTRY lock_entry(void *arg)
{
    struct io_file *a, *b;
    unsigned bad;
    bool bad_shared;

    io_sim_create("f", 0);
    a = co_open("f", IO_RDWR);
    b = co_open("f", IO_RDWR);
    assert_int_equal(io_file_lock(a, IO_PERM_WRITE | IO_PERM_CONSISTENT_READ,
                                  IO_PERM_ALL & ~IO_PERM_WRITE, &bad, &bad_shared), 0);
    assert_int_equal(io_file_lock(b, IO_PERM_WRITE, IO_PERM_ALL, &bad, &bad_shared), -EAGAIN);
    assert_int_equal(bad, IO_PERM_WRITE);
    assert_false(bad_shared);
    assert_int_equal(io_file_lock(b, 0, IO_PERM_RESIZE, &bad, &bad_shared), -EAGAIN);
    assert_int_equal(bad, IO_PERM_CONSISTENT_READ);
    assert_true(bad_shared);
    assert_int_equal(io_file_lock(b, IO_PERM_CONSISTENT_READ, IO_PERM_ALL, &bad, &bad_shared), 0);
    assert_int_equal(io_file_lock(a, 0, IO_PERM_ALL, &bad, &bad_shared), 0);
    assert_int_equal(io_file_lock(b, IO_PERM_WRITE, IO_PERM_ALL, &bad, &bad_shared), 0);
    co_io_close(a);
    co_io_close(b);
}

static void locks_conflict_as_on_the_host(void **state)
{
    loop_run_co(lock_entry, NULL);
}

static void files_come_from_the_host_and_go_there(void **state)
{
    const char *tmp = getenv("TMPDIR");
    AUTOFREE char *path = mem_printf("%s/io-sim-XXXXXX", tmp ? tmp : "/tmp");
    AUTOFREE unsigned char *out = mem_alloc(300 * KIB);
    AUTOFREE unsigned char *in = mem_alloc(300 * KIB);
    int fd = mkstemp(path);
    uint64_t size;

    assert_true(fd >= 0);
    close(fd);
    fill(out, 300 * KIB, 4);
    io_sim_create("here", 3 * MIB + 17);
    io_sim_write("here", 100 * KIB, out, 300 * KIB);
    assert_int_equal(io_sim_export("here", path), 0);
    assert_int_equal(io_sim_export("nowhere", path), -ENOENT);
    assert_int_equal(io_sim_import("there", path), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(io_sim_import("else", path), -ENOENT);
    assert_int_equal(io_sim_size_durable("there", &size), 0);
    assert_int_equal(size, 3 * MIB + 17);
    assert_int_equal(io_sim_read_durable("there", 100 * KIB, in, 300 * KIB), 0);
    assert_memory_equal(in, out, 300 * KIB);
    assert_int_equal(io_sim_read("there", 2 * MIB, in, 300 * KIB), 0);
    assert_true(bytes_are_zero(in, 300 * KIB));
}

/* --- What is durable when --------------------------------------------------------------------- */

static char durable_byte(const char *path, uint64_t offset)
{
    char c = '?';

    return io_sim_read_durable(path, offset, &c, 1) ? '!' : c;
}

struct late {
    struct io_file *file;
    struct co_group group;
    uint64_t offset;
};

static void CO_ENTRY late_write_entry(void *arg)
{
    struct late *late = arg;

    co_group_done(&late->group, co_io_write(late->file, late->offset, "L", 1));
}

static void CO_ENTRY flush_entry(void *arg)
{
    const struct io_sim_fault stall = {
        .kind = IO_SIM_FAULT_STALL, .ops = IO_SIM_FLUSH, .ns = NS_PER_S,
    };
    struct late late = { .offset = 1 };
    uint64_t size;

    io_sim_create("f", 0);
    late.file = co_open("f", IO_RDWR);
    assert_int_equal(co_io_write(late.file, 0, "E", 1), 0);
    assert_int_equal(io_sim_size("f", &size), 0);
    assert_int_equal(size, 1);
    assert_int_equal(io_sim_size_durable("f", &size), 0);
    assert_int_equal(size, 0);

    /* Another write completes while the flush is on its way: not covered. */
    io_sim_fault(&stall);
    co_group_init(&late.group);
    co_group_add(&late.group);
    co_start(late_write_entry, &late);
    assert_int_equal(co_io_flush(late.file), 0);
    assert_int_equal(late.group.running, 0);
    assert_int_equal(co_group_wait(&late.group), 0);
    assert_int_equal(durable_byte("f", 0), 'E');
    assert_int_equal(durable_byte("f", 1), 0);
    assert_int_equal(io_sim_size_durable("f", &size), 0);
    assert_int_equal(size, 1);
    assert_int_equal(co_io_flush(late.file), 0);
    assert_int_equal(durable_byte("f", 1), 'L');
    co_io_close(late.file);
}

static void a_flush_covers_what_had_completed_before_it(void **state)
{
    loop_run_co(flush_entry, NULL);
}

static void CO_ENTRY dir_entry(void *arg)
{
    struct io_file *file = co_open("/d/f", IO_RDWR | IO_CREATE);

    assert_int_equal(co_io_write(file, 0, "x", 1), 0);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(durable_byte("/d/f", 0), '!'); /* the name is not there yet */
    assert_int_equal(co_io_sync_dir("/other/thing"), 0);
    assert_int_equal(durable_byte("/d/f", 0), '!');
    assert_int_equal(co_io_sync_dir("/d/anything"), 0);
    assert_int_equal(durable_byte("/d/f", 0), 'x');

    assert_int_equal(co_io_rename("/d/f", "/d/g"), 0);
    assert_int_equal(durable_byte("/d/f", 0), 'x');
    assert_int_equal(durable_byte("/d/g", 0), '!');
    assert_int_equal(co_io_sync_dir("/d/g"), 0);
    assert_int_equal(durable_byte("/d/f", 0), '!');
    assert_int_equal(durable_byte("/d/g", 0), 'x');

    assert_int_equal(co_io_unlink("/d/g"), 0);
    assert_int_equal(durable_byte("/d/g", 0), 'x');
    assert_int_equal(co_io_sync_dir("/d/g"), 0);
    assert_int_equal(durable_byte("/d/g", 0), '!');
    co_io_close(file);
}

static void names_are_durable_after_the_directory_was_synced(void **state)
{
    loop_run_co(dir_entry, NULL);
}

static void CO_ENTRY writeback_entry(void *arg)
{
    static unsigned char buf[64 * KIB];
    struct io_file *file;
    unsigned durable = 0;

    io_sim_create("f", 0);
    io_sim_set_writeback(512 * KIB);
    file = co_open("f", IO_RDWR);
    memset(buf, 'w', sizeof(buf));
    for (unsigned i = 0; i < 32; i++) {
        assert_int_equal(co_io_write(file, i * sizeof(buf), buf, sizeof(buf)), 0);
    }
    for (unsigned i = 0; i < 32; i++) {
        durable += durable_byte("f", i * sizeof(buf)) == 'w';
    }
    assert_in_range(durable, 24, 31);
    co_io_close(file);
}

static void the_oldest_goes_to_the_medium_when_much_is_cached(void **state)
{
    loop_run_co(writeback_entry, NULL);
}

/* --- Faults ----------------------------------------------------------------------------------- */

static void CO_ENTRY errors_entry(void *arg)
{
    const struct io_sim_fault once = {
        .kind = IO_SIM_FAULT_ERROR, .path = "/f", .ops = IO_SIM_WRITE, .offset = 4096, .len = 4096,
        .after = 1, .times = 1,
    };
    const struct io_sim_fault for_ever = {
        .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_READ, .error = ENXIO,
    };
    struct io_file *file, *other;
    char buf[100] = { 1 };

    io_sim_create("f", MIB);
    io_sim_create("other", MIB);
    file = co_open("f", IO_RDWR);
    other = co_open("other", IO_RDWR);
    io_sim_fault(&once);
    assert_int_equal(co_io_write(other, 4096, buf, 100), 0);
    assert_int_equal(co_io_write(file, 3996, buf, 100), 0);
    assert_int_equal(co_io_write(file, 8192, buf, 100), 0);
    assert_int_equal(co_io_read(file, 4096, buf, 100), 0);
    assert_int_equal(co_io_write(file, 3997, buf, 100), 0); /* the one that passes */
    assert_int_equal(io_sim_faults_struck(), 0);
    buf[0] = 7;
    assert_int_equal(co_io_write(file, 8191, buf, 1), -EIO);
    assert_int_equal(io_sim_faults_struck(), 1);
    assert_int_equal(co_io_read(file, 8191, buf, 1), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(co_io_write(file, 8191, buf, 1), 0);

    io_sim_fault(&for_ever);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(co_io_read(i & 1 ? file : other, 0, buf, 1), -ENXIO);
    }
    io_sim_faults_clear();
    assert_int_equal(co_io_read(file, 0, buf, 1), 0);
    co_io_close(file);
    co_io_close(other);
}

static void errors_strike_by_plan(void **state)
{
    loop_run_co(errors_entry, NULL);
}

static void CO_ENTRY short_entry(void *arg)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_SHORT };
    static unsigned char out[300 * KIB], in[300 * KIB];
    struct io_file *file = co_open("f", IO_RDWR | IO_CREATE | *(unsigned *)arg);
    uint64_t before = io_sim_ops();

    fill(out, sizeof(out), 5);
    io_sim_fault(&fault);
    assert_int_equal(co_io_write(file, 512, out, sizeof(out)), 0);
    assert_true(io_sim_ops() > before + 2);
    assert_int_equal(co_io_read(file, 512, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_true(io_sim_faults_struck() > 4);
    co_io_close(file);
    io_sim_faults_clear();
}

static void short_transfers_are_carried_on(void **state)
{
    unsigned flags = 0;

    loop_run_co(short_entry, &flags);
    flags = IO_DIRECT;
    loop_run_co(short_entry, &flags);
}

static void CO_ENTRY quota_entry(void *arg)
{
    static unsigned char buf[MIB];
    struct io_file *file = co_open("f", IO_RDWR | IO_CREATE);
    uint64_t held, size;

    io_sim_set_quota(100 * KIB);
    assert_int_equal(co_io_write(file, 10 * KIB, buf, MIB), -ENOSPC);
    assert_int_equal(co_io_allocated(file, &held), 0);
    assert_int_equal(held, 100 * KIB); /* what fitted is written */
    assert_int_equal(co_io_size(file, &size), 0);
    assert_int_equal(size, 108 * KIB);
    assert_int_equal(co_io_write(file, 20 * KIB, buf, 80 * KIB), 0); /* in place */
    assert_int_equal(co_io_allocate(file, 0, 16 * KIB), -ENOSPC);
    assert_int_equal(co_io_discard(file, 16 * KIB, 16 * KIB), 0);
    assert_int_equal(co_io_allocate(file, 0, 16 * KIB), 0);
    assert_int_equal(co_io_write(file, MIB, buf, 1), 0);
    assert_int_equal(co_io_write(file, MIB + 4096, buf, 4096), 0);
    assert_int_equal(co_io_write(file, MIB + 8192, buf, 1), -ENOSPC);
    io_sim_set_quota(0);
    assert_int_equal(co_io_write(file, MIB + 8192, buf, 1), 0);
    co_io_close(file);
}

static void a_full_medium_says_so_after_what_fits(void **state)
{
    loop_run_co(quota_entry, NULL);
}

static void CO_ENTRY sync_drop_entry(void *arg)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_SYNC_DROP, .times = 1 };
    struct io_file *file, *second;
    char c;

    io_sim_create("f", 10);
    file = co_open("f", IO_RDWR);
    assert_int_equal(co_io_write(file, 0, "a", 1), 0);
    io_sim_fault(&fault);
    assert_int_equal(co_io_flush(file), -EIO);
    assert_int_equal(co_io_write(file, 1, "b", 1), 0);
    assert_int_equal(co_io_flush(file), -EIO); /* never forgotten */
    second = co_open("f", IO_RDWR);
    assert_int_equal(co_io_flush(second), 0);  /* the host has forgotten */
    assert_int_equal(co_io_read(second, 0, &c, 1), 0);
    assert_int_equal(c, 'a');
    assert_int_equal(durable_byte("f", 0), 0);
    assert_int_equal(durable_byte("f", 1), 'b');
    co_io_close(file);
    co_io_close(second);
}

static void CO_ENTRY told_drop_entry(void *arg)
{
    const struct io_sim_fault again = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_FLUSH, .error = EINTR, .times = 1 };
    const struct io_sim_fault drop = { .kind = IO_SIM_FAULT_SYNC_DROP, .times = 1 };
    struct io_file *file;

    io_sim_create("f", 10);
    file = co_open("f", IO_RDWR);
    assert_int_equal(co_io_write(file, 0, "a", 1), 0);
    io_sim_fault(&again);
    io_sim_fault(&drop);
    assert_int_equal(co_io_flush(file), -EIO);
    co_io_close(file);
}

static void a_sync_that_drops_data_is_not_one_to_try_again(void **state)
{
    loop_run_co(told_drop_entry, NULL);
}

static void a_failed_sync_drops_its_data_for_ever(void **state)
{
    loop_run_co(sync_drop_entry, NULL);
}

/* --- Order ------------------------------------------------------------------------------------ */

struct history {
    char text[4000];
    size_t len;
    uint64_t last;
    bool overtaken;
};

static void remember(void *arg, const struct io_sim_event *e)
{
    struct history *h = arg;

    h->len += snprintf(h->text + h->len, sizeof(h->text) - h->len, "%lu %lu%c %s %s %lu+%lu\n",
                       (unsigned long)loop_now(), (unsigned long)e->number,
                       e->completed ? '.' : ' ', io_sim_op_name(e->op), e->path,
                       (unsigned long)e->offset, (unsigned long)e->len);
    assert_true(h->len < sizeof(h->text));
    if (e->completed) {
        h->overtaken |= e->number < h->last;
        h->last = e->number;
    }
}

static void CO_ENTRY crowd_entry(void *arg)
{
    struct late late[8];
    struct io_file *file;

    io_sim_create("f", MIB);
    file = co_open("f", IO_RDWR);
    co_group_init(&late[0].group);
    for (unsigned i = 0; i < ARRAY_SIZE(late); i++) {
        late[i].file = file;
        late[i].offset = i;
        co_group_init(&late[i].group);
        co_group_add(&late[i].group);
        co_start(late_write_entry, &late[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(late); i++) {
        assert_int_equal(co_group_wait(&late[i].group), 0);
    }
    co_io_close(file);
}

static void requests_overtake_each_other_the_same_way_for_one_seed(void **state)
{
    struct history history[3] = { { .len = 0 } };

    for (unsigned i = 0; i < 3; i++) {
        teardown(NULL);
        loop_init(LOOP_CLOCK_VIRTUAL, i / 2);
        io_init();
        io_sim_init();
        io_engine_set_default(io_engine_find("sim"));
        io_sim_on_op(remember, &history[i]);
        loop_run_co(crowd_entry, NULL);
        assert_true(history[i].overtaken);
    }
    assert_string_equal(history[0].text, history[1].text);
    assert_string_not_equal(history[1].text, history[2].text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_hold_what_is_written_and_know_their_holes),
        TEST(unaligned_access_to_direct_files_works_through_the_front),
        TEST(copies_go_from_file_to_file),
        TEST(names_come_go_and_are_compared_by_text),
        TEST(locks_conflict_as_on_the_host),
        TEST(files_come_from_the_host_and_go_there),
        TEST(a_flush_covers_what_had_completed_before_it),
        TEST(names_are_durable_after_the_directory_was_synced),
        TEST(the_oldest_goes_to_the_medium_when_much_is_cached),
        TEST(errors_strike_by_plan),
        TEST(short_transfers_are_carried_on),
        TEST(a_full_medium_says_so_after_what_fits),
        TEST(a_failed_sync_drops_its_data_for_ever),
        TEST(a_sync_that_drops_data_is_not_one_to_try_again),
        TEST(requests_overtake_each_other_the_same_way_for_one_seed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
