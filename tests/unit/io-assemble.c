/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * co_io_assemble(): one write out of memory and of other files' cached bytes.  On a file system whose cache can be asked, so
 * not on tmpfs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define SIZE (300u << 10)

static char source_path[100], target_path[100];
static uint8_t content[SIZE]; /* of the source */

struct pair {
    struct io_file *source, *target;
};

static void make_pair(struct pair *p)
{
    for (size_t i = 0; i < SIZE; i++) {
        content[i] = i * 7 + i / 255 + 1;
    }
    assert_int_equal(co_io_open(NULL, source_path, IO_RDWR | IO_CREATE | IO_TRUNC, &p->source), 0);
    assert_int_equal(co_io_open(NULL, target_path, IO_RDWR | IO_CREATE | IO_TRUNC, &p->target), 0);
    assert_int_equal(co_io_write(p->source, 0, content, SIZE), 0);
}

static void close_pair(struct pair *p)
{
    co_io_close(p->source);
    co_io_close(p->target);
}

/* As qcow2 does it: a head, the guest's data in two parts, a tail. */
static int co_assemble(struct pair *p, uint64_t dst_off, uint64_t head, uint64_t tail, bool fresh)
{
    static uint8_t data[5000];
    struct io_piece pieces[] = {
        { .file = p->source, .offset = 100, .len = head },
        { .mem = data, .len = 1 },
        { .mem = data + 1, .len = sizeof(data) - 1 },
        { .file = p->source, .offset = 100 + head + sizeof(data), .len = tail },
    };

    memset(data, 0xda, sizeof(data));
    return co_io_assemble(pieces, 4, p->target, dst_off, fresh);
}

static void check(struct pair *p, uint64_t dst_off, uint64_t head, uint64_t tail)
{
    uint64_t len = head + 5000 + tail;
    AUTOFREE uint8_t *want = mem_alloc(len), *got = mem_alloc(len);

    memcpy(want, content + 100, len);
    memset(want + head, 0xda, 5000);
    assert_int_equal(co_io_read(p->target, dst_off, got, len), 0);
    assert_memory_equal(want, got, len);
}

static void run(loop_fn *fn)
{
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    loop_run_co(fn, NULL);
    io_fini();
    loop_fini();
    unlink(source_path);
    unlink(target_path);
}

static void any_alignment_entry(void *arg)
{
    static const uint64_t places[][3] = { /* target, head, tail */
        { 0, 60000, 536 }, { 65536, 4096, 56440 }, { 1000, 1, 1 }, { 65535, 65536, 65537 }, { 123457, 100003, 150000 },
    };
    struct pair p;

    make_pair(&p);
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        assert_int_equal(co_assemble(&p, places[i][0], places[i][1], places[i][2], false), 0);
        check(&p, places[i][0], places[i][1], places[i][2]);
        assert_int_equal(co_io_truncate(p.target, 0), 0);
    }
    close_pair(&p);
}

static void pieces_of_any_alignment_become_one_run(void **state)
{
    run(any_alignment_entry);
}

/* Two parts of the source with something of another file between them, or with too much memory, or that do not fit. */
static void gaps_entry(void *arg)
{
    static uint8_t other[4096], memory[40000], got[65536];
    struct pair p;

    make_pair(&p);
    memset(other, 0x0e, sizeof(other));
    memset(memory, 0xda, sizeof(memory));
    assert_int_equal(co_io_write(p.target, 8192, other, sizeof(other)), 0);
    const struct io_piece pieces[] = {
        { .file = p.source, .offset = 4096, .len = 4096 },
        { .file = p.target, .offset = 8192, .len = 4096 },
        { .file = p.source, .offset = 12288, .len = 4096 },
        { .mem = memory, .len = sizeof(memory) },
        { .file = p.source, .offset = 16384 + sizeof(memory), .len = 100 },
        { .mem = memory, .len = 10 },
        { .file = p.source, .offset = 111, .len = 1000 },
    };
    assert_int_equal(co_io_assemble(pieces, ARRAY_SIZE(pieces), p.target, 0, false), 0);
    assert_int_equal(co_io_read(p.target, 0, got, sizeof(got)), 0);
    for (size_t i = 0, at = 0; i < ARRAY_SIZE(pieces); at += pieces[i++].len) {
        const void *want = pieces[i].file == p.source ? content + pieces[i].offset : pieces[i].mem ? memory : other;

        assert_memory_equal(got + at, want, pieces[i].len);
    }
    close_pair(&p);
}

static void only_what_goes_on_in_the_same_file_is_read_along(void **state)
{
    run(gaps_entry);
}

/* Bytes of the target's file system. */
static uint64_t held_by_host(void)
{
    struct stat st;

    assert_int_equal(stat(target_path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static bool host_makes_room(void)
{
    struct statfs fs;

    assert_int_equal(statfs(target_path, &fs), 0);
    return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == 0x58465342 /* XFS */;
}

#define GROWTH (9u << 20) /* bytes: more than what it takes to be worth room */

/* What the host holds at most while the target grows, and what it is told to hold. */
static uint64_t co_grow(bool zeroes, uint64_t *told)
{
    struct pair p;
    uint64_t most = 0;

    make_pair(&p);
    if (zeroes) {
        memset(content, 0, SIZE);
        assert_int_equal(co_io_write(p.source, 0, content, SIZE), 0);
    }
    for (uint64_t at = 0; at < GROWTH; at += 65536) {
        assert_int_equal(co_assemble(&p, at, 60000, 536, true), 0);
        most = MAX(most, held_by_host());
    }
    assert_int_equal(co_io_flush(p.target), 0);
    assert_int_equal(co_io_allocated(p.target, told), 0);
    close_pair(&p);
    return most;
}

static void room_entry(void *arg)
{
    uint64_t told, most = co_grow(false, &told);

    assert_int_equal(most > GROWTH + (4 << 20), host_makes_room());
    assert_true(told <= GROWTH + 65536 && held_by_host() <= GROWTH + 65536);
    assert_true(co_grow(true, &told) <= GROWTH);
}

static void a_file_that_grows_by_data_has_room_ahead_until_it_is_closed(void **state)
{
    run(room_entry);
}

static void cold_entry(void *arg)
{
    struct pair p;
    int fd;

    make_pair(&p);
    assert_int_equal(co_io_flush(p.source), 0);
    fd = open(source_path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    assert_int_equal(co_assemble(&p, 0, 60000, 536, false), -EAGAIN);
    close_pair(&p);
}

static void what_is_not_in_the_cache_is_left_to_the_caller(void **state)
{
    run(cold_entry);
}

static void short_entry(void *arg)
{
    struct pair p;

    make_pair(&p);
    assert_int_equal(co_assemble(&p, 0, SIZE - 50, 10, false), -EAGAIN);
    close_pair(&p);
}

static void a_source_that_ends_early_is_left_to_the_caller(void **state)
{
    run(short_entry);
}

/* Bytes of the target that the host holds, after a head of zeroes only. */
static uint64_t co_held_after(bool fresh)
{
    struct pair p;
    uint64_t held;

    make_pair(&p);
    memset(content, 0, SIZE);
    assert_int_equal(co_io_write(p.source, 0, content, SIZE), 0);
    assert_int_equal(co_assemble(&p, 0, 131072, 60536, fresh), 0);
    check(&p, 0, 131072, 60536);
    assert_int_equal(co_io_flush(p.target), 0);
    assert_int_equal(co_io_allocated(p.target, &held), 0);
    close_pair(&p);
    return held;
}

static void zeroes_entry(void *arg)
{
    assert_true(co_held_after(false) >= 131072);
    assert_true(co_held_after(true) <= 65536);
}

static void zeroes_are_not_written_where_nothing_ever_was(void **state)
{
    run(zeroes_entry);
}

static void direct_entry(void *arg)
{
    struct pair p;

    make_pair(&p);
    assert_true(io_can_assemble(p.target));
    assert_int_equal(co_io_reopen(p.target, IO_RDWR | IO_DIRECT), 0);
    assert_false(io_can_assemble(p.target));
    assert_int_equal(co_assemble(&p, 0, 60000, 536, false), -EAGAIN);
    close_pair(&p);
}

static void files_without_the_cache_are_left_to_the_caller(void **state)
{
    run(direct_entry);
}

static void read_only_entry(void *arg)
{
    struct pair p;

    make_pair(&p);
    assert_int_equal(co_io_reopen(p.target, IO_READ_ONLY), 0);
    assert_int_equal(co_assemble(&p, 0, 60000, 536, false), -EBADF);
    close_pair(&p);
}

static void a_read_only_file_stays_as_it_is(void **state)
{
    run(read_only_entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_alignment_become_one_run),
        cmocka_unit_test(only_what_goes_on_in_the_same_file_is_read_along),
        cmocka_unit_test(a_file_that_grows_by_data_has_room_ahead_until_it_is_closed),
        cmocka_unit_test(what_is_not_in_the_cache_is_left_to_the_caller),
        cmocka_unit_test(a_source_that_ends_early_is_left_to_the_caller),
        cmocka_unit_test(zeroes_are_not_written_where_nothing_ever_was),
        cmocka_unit_test(files_without_the_cache_are_left_to_the_caller),
        cmocka_unit_test(a_read_only_file_stays_as_it_is),
    };

    snprintf(source_path, sizeof(source_path), "/var/tmp/io-assemble-%d.source", getpid());
    snprintf(target_path, sizeof(target_path), "/var/tmp/io-assemble-%d.target", getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
