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
#include <stdio.h>
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
