/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O engine's promises (core/io.h), for every engine on real files and for IO_DIRECT: each
 * test below runs once a combination.  Files live in $TMPDIR.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/io-engine.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

struct variant {
    const char *engine;
    enum loop_clock clock;
    unsigned flags; /* IO_DIRECT or 0 */
    unsigned align; /* other than 0: make the front believe that the host asks for this */
};

static const struct variant variants[] = {
    { "threads", LOOP_CLOCK_REAL, 0, 0 },
    { "threads", LOOP_CLOCK_REAL, IO_DIRECT, 0 },
    { "io_uring", LOOP_CLOCK_REAL, 0, 0 },
    { "io_uring", LOOP_CLOCK_REAL, IO_DIRECT, 0 },
    { "io_uring", LOOP_CLOCK_REAL, 0, 512 },
    { "virtual", LOOP_CLOCK_VIRTUAL, 0, 0 },
    { "virtual", LOOP_CLOCK_VIRTUAL, IO_DIRECT, 0 },
    { "virtual", LOOP_CLOCK_VIRTUAL, 0, 4096 },
};

static const struct variant *variant;
static char dir[256];
static char path[300];

static const char *in_dir(const char *name)
{
    static char buf[4][320];
    static unsigned next;
    char *out = buf[next++ % 4];

    snprintf(out, sizeof(buf[0]), "%s/%s", dir, name);
    return out;
}

static struct io_file *co_open_file(const char *name, unsigned flags)
{
    struct io_file *file = NULL;
    int ret = co_io_open(NULL, name, flags | variant->flags, &file);

    assert_int_equal(ret, 0);
    file->align = variant->align ? variant->align : file->align;
    return file;
}

static struct io_file *co_create(void)
{
    return co_open_file(path, IO_RDWR | IO_CREATE | IO_TRUNC);
}

static uint64_t co_size(struct io_file *file)
{
    uint64_t size;

    assert_int_equal(co_io_size(file, &size), 0);
    return size;
}

/* All of [offset, offset + len) reads as `byte`. */
static void co_expect(struct io_file *file, uint64_t offset, size_t len, int byte)
{
    AUTOFREE char *buf = mem_alloc(len), *want = mem_alloc(len);

    memset(buf, ~byte, len);
    memset(want, byte, len);
    assert_int_equal(co_io_read(file, offset, buf, len), 0);
    assert_memory_equal(buf, want, len);
}

static void co_fill(struct io_file *file, uint64_t offset, size_t len, int byte)
{
    AUTOFREE char *buf = mem_alloc(len);

    memset(buf, byte, len);
    assert_int_equal(co_io_write(file, offset, buf, len), 0);
}

/* --- Transfers -------------------------------------------------------------------------------- */

static void co_reads_beyond_the_end_are_zeroes(void)
{
    struct io_file *file = co_create();

    co_expect(file, 0, 4096, 0);
    co_expect(file, 1 << 30, 100, 0);
    co_fill(file, 0, 5000, 'x');
    assert_int_equal(co_size(file), 5000);
    co_expect(file, 0, 5000, 'x');
    co_expect(file, 5000, 5000, 0);

    char buf[700];
    struct iovec iov[] = { { buf, 100 }, { buf, 0 }, { buf + 100, 1 }, { buf + 101, 599 } };

    memset(buf, 'y', sizeof(buf));
    assert_int_equal(co_io_readv(file, 4950, iov, 4), 0);
    for (unsigned i = 0; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], i < 50 ? 'x' : 0);
    }
    co_io_close(file);
}

static void co_writes_extend_the_file(void)
{
    struct io_file *file = co_create();

    co_fill(file, 70000, 10, 'a');
    assert_int_equal(co_size(file), 70010);
    co_expect(file, 0, 70000, 0);
    co_expect(file, 70000, 10, 'a');
    co_fill(file, 69990, 15, 'b');
    assert_int_equal(co_size(file), 70010);
    co_expect(file, 69990, 15, 'b');
    co_expect(file, 70005, 5, 'a');
    assert_int_equal(co_io_write(file, 1 << 20, NULL, 0), 0);
    assert_int_equal(co_size(file), 70010);
    co_io_close(file);
}

/* More elements than the kernel takes at once, of uneven lengths. */
static void co_long_lists_are_moved_whole(void)
{
    enum { COUNT = 3000 };
    struct io_file *file = co_create();
    AUTOFREE struct iovec *iov = mem_calloc(COUNT, sizeof(*iov));
    AUTOFREE unsigned char *out = mem_alloc(COUNT * 64), *in = mem_zalloc(COUNT * 64);
    size_t len = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        iov[i].iov_base = out + len;
        iov[i].iov_len = i % 64;
        len += i % 64;
    }
    for (size_t i = 0; i < len; i++) {
        out[i] = i * 7 + i / 256;
    }
    assert_int_equal(co_io_writev(file, 3, iov, COUNT), 0);
    assert_int_equal(co_size(file), len + 3);
    assert_int_equal(co_io_read(file, 3, in, len), 0);
    assert_memory_equal(in, out, len);
    for (unsigned i = 0; i < COUNT; i++) {
        iov[i].iov_base = in + ((unsigned char *)iov[i].iov_base - out);
    }
    memset(in, 0, len);
    assert_int_equal(co_io_readv(file, 3, iov, COUNT), 0);
    assert_memory_equal(in, out, len);
    co_io_close(file);
}

static void co_wrong_ranges_are_refused(void)
{
    struct io_file *file = co_create();
    uint64_t len = 10;
    bool data;
    char c = 0;

    assert_int_equal(co_io_read(file, UINT64_MAX - 1, &c, 1), -EFBIG);
    assert_int_equal(co_io_write(file, INT64_MAX, &c, 1), -EFBIG);
    assert_int_equal(co_io_zero(file, INT64_MAX - 5, 10, false), -EFBIG);
    assert_int_equal(co_io_discard(file, UINT64_MAX, 1), -EFBIG);
    assert_int_equal(co_io_truncate(file, UINT64_MAX), -EFBIG);
    assert_int_equal(co_io_map(file, UINT64_MAX, &len, &data), -EFBIG);
    assert_int_equal(co_io_copy(file, 0, file, INT64_MAX, 10), -EFBIG);
    assert_int_equal(co_size(file), 0);
    co_io_close(file);
}

static void co_read_only_files_stay_as_they_are(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 8192, 'r');
    co_io_close(file);
    file = co_open_file(path, IO_READ_ONLY);
    assert_false(io_file_writable(file));
    assert_int_equal(co_io_write(file, 0, "x", 1), -EBADF);
    assert_int_equal(co_io_zero(file, 0, 1, true), -EBADF);
    assert_int_equal(co_io_discard(file, 0, 4096), -EBADF);
    assert_int_equal(co_io_truncate(file, 0), -EBADF);
    assert_int_equal(co_io_allocate(file, 0, 1 << 20), -EBADF);
    assert_int_equal(co_io_copy(file, 0, file, 4096, 4096), -EBADF);
    co_expect(file, 0, 8192, 'r');
    assert_int_equal(co_io_flush(file), 0);
    co_io_close(file);
}

/* --- Hosts that make it hard ------------------------------------------------------------------ */

/* The engine at hand, but transfers are short, calls are interrupted, and flushes can fail. */
static struct io_engine hard;
static const struct io_engine *easy;
static struct random whim;
static int flush_result;

static ssize_t co_hard_transfer(struct io_file *file, uint64_t offset, const struct iovec *iov,
                                int n, bool write)
{
    struct iovec part[64];
    size_t blocks = iov_size(iov, n) / file->align;
    size_t len = (1 + random_below(&whim, MIN(blocks, (size_t)20))) * file->align;

    assert_in_range(n, 1, 64);
    if (!random_below(&whim, 4)) {
        return -EINTR;
    }
    n = iov_slice(part, iov, n, 0, len);
    return write ? easy->co_write(file, offset, part, n) : easy->co_read(file, offset, part, n);
}

static ssize_t co_hard_read(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    return co_hard_transfer(file, offset, iov, n, false);
}

static ssize_t co_hard_write(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    return co_hard_transfer(file, offset, iov, n, true);
}

static int co_hard_flush(struct io_file *file)
{
    return flush_result;
}

static void make_hard(struct io_file *file)
{
    easy = file->engine;
    hard = *easy;
    hard.co_read = co_hard_read;
    hard.co_write = co_hard_write;
    hard.co_flush = hard.co_write_out = co_hard_flush;
    random_seed(&whim, 5);
    flush_result = 0;
    file->engine = &hard;
}

static void co_short_transfers_are_carried_on(void)
{
    struct io_file *file = co_create();
    unsigned char out[3000], in[4000], zero[1000] = { 0 };
    struct iovec iov[60];

    make_hard(file);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned j = 0; j < sizeof(out); j++) {
            out[j] = random_next(&whim);
        }
        for (unsigned j = 0; j < 60; j++) {
            iov[j] = (struct iovec){ out + j * 50, 50 };
        }
        assert_int_equal(co_io_truncate(file, 0), 0);
        assert_int_equal(co_io_writev(file, i, iov, 60), 0);
        assert_int_equal(co_size(file), i + sizeof(out));
        memset(in, 'i', sizeof(in));
        assert_int_equal(co_io_read(file, i, in, sizeof(in)), 0);
        assert_memory_equal(in, out, sizeof(out));
        assert_memory_equal(in + sizeof(out), zero, sizeof(zero));
    }
    file->engine = easy;
    co_io_close(file);
}

static void co_failed_flushes_are_not_forgotten(void)
{
    struct io_file *file = co_create();

    assert_int_equal(co_io_flush(file), 0);
    make_hard(file);
    flush_result = -EIO;
    assert_int_equal(co_io_flush(file), -EIO);
    flush_result = 0;
    assert_int_equal(co_io_flush(file), -EIO);
    flush_result = -ENOSPC;
    assert_int_equal(co_io_flush(file), -EIO);
    file->engine = easy;
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY | variant->flags), 0);
    assert_int_equal(co_io_flush(file), -EIO);
    co_io_close(file);
}

/* The host tells an error of writing once for each open file, whoever asks. */
static void co_what_fails_when_written_out_is_told_by_the_flush(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 65536, 'o');
    co_io_write_out(file);
    assert_int_equal(co_io_flush(file), 0);
    co_expect(file, 0, 65536, 'o');
    make_hard(file);
    flush_result = -EIO;
    co_io_write_out(file);
    flush_result = 0;
    assert_int_equal(co_io_flush(file), -EIO);
    file->engine = easy;
    co_io_close(file);
}

#define ROOM (4u << 20)

static uint64_t held_by_host(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static bool host_makes_room(void)
{
    struct statfs fs;

    assert_int_equal(statfs(dir, &fs), 0);
    return variant->clock == LOOP_CLOCK_REAL && !variant->flags && !variant->align &&
           (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == 0x58465342 /* XFS */);
}

/* `bytes` are in the file, and room perhaps; nobody is told of the room. */
static void co_check_room(struct io_file *file, uint64_t bytes, bool room)
{
    uint64_t told;

    assert_int_equal(co_size(file), bytes);
    assert_int_equal(co_io_allocated(file, &told), 0);
    assert_true(told <= bytes + (64 << 10));
    assert_int_equal(held_by_host() >= ROOM, room && host_makes_room());
}

static void co_room_is_made_behind_the_end_used_and_given_back(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 65536, 'r');
    co_io_make_room(file, ROOM);
    co_check_room(file, 65536, true);
    co_fill(file, 65536, 65536, 's');
    co_check_room(file, 131072, true);
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY | variant->flags), 0);
    co_io_give_room_back(file);
    co_check_room(file, 131072, false);
    co_expect(file, 0, 65536, 'r');
    co_expect(file, 65536, 65536, 's');
    co_expect(file, 131072, 65536, 0);
    co_io_close(file);
}

static void co_room_goes_with_the_file(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 65536, 'r');
    co_io_make_room(file, ROOM);
    co_io_make_room(file, ROOM);
    co_io_close(file);
    assert_true(held_by_host() < ROOM);
    file = co_open_file(path, IO_READ_ONLY);
    assert_int_equal(co_size(file), 65536);
    co_io_close(file);
}

/* --- Ranges ----------------------------------------------------------------------------------- */

static void co_zeroed_ranges_read_as_zeroes(void)
{
    static const struct { uint64_t offset, len; } ranges[] = {
        { 0, 65536 }, { 4096, 4096 }, { 1, 1 }, { 5000, 123 }, { 4095, 4098 }, { 100000, 31072 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(ranges) * 2; i++) {
        struct io_file *file = co_create();
        uint64_t start = ranges[i / 2].offset, end = start + ranges[i / 2].len;

        co_fill(file, 0, 131072, 'z');
        assert_int_equal(co_io_zero(file, start, end - start, i % 2), 0);
        assert_int_equal(co_size(file), 131072);
        co_expect(file, start, end - start, 0);
        co_expect(file, 0, start, 'z');
        co_expect(file, end, 131072 - end, 'z');
        co_io_close(file);
    }
}

static void co_zeroing_extends_the_file(void)
{
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        struct io_file *file = co_create();

        co_fill(file, 0, 6000, 'e');
        assert_int_equal(co_io_zero(file, 5000, 300001, unmap), 0);
        assert_int_equal(co_size(file), 305001);
        co_expect(file, 0, 5000, 'e');
        co_expect(file, 5000, 300001, 0);
        assert_int_equal(co_io_zero(file, 400000, 0, unmap), 0);
        assert_int_equal(co_size(file), 305001);
        co_io_close(file);
    }
}

/* Where the host has none of the fast ways. */
static void co_zeroing_falls_back_to_writing(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 3000, 'f');
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        file->no_zero = file->no_punch = true;
        assert_int_equal(co_io_zero(file, 1000 + unmap * 100000, 2500001, unmap), 0);
        assert_int_equal(co_size(file), 2501001 + unmap * 100000);
        co_expect(file, 0, 1000, 'f');
        co_expect(file, 1000, 2500001 + unmap * 100000, 0);
    }
    assert_int_equal(co_io_discard(file, 0, 4096), -EOPNOTSUPP);
    co_io_close(file);
}

static void co_discarding_gives_space_back(void)
{
    struct io_file *file = co_create();
    uint64_t before, after;

    co_fill(file, 0, 1 << 20, 'd');
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_allocated(file, &before), 0);
    assert_true(before >= 1 << 20);
    assert_int_equal(co_io_discard(file, 65536, 524288), 0);
    assert_int_equal(co_io_discard(file, 1 << 20, 1 << 20), 0);
    assert_int_equal(co_io_allocated(file, &after), 0);
    assert_true(after + 500000 <= before);
    assert_int_equal(co_size(file), 1 << 20);
    co_expect(file, 0, 65536, 'd');
    co_expect(file, 65536, 524288, 0);
    co_expect(file, 65536 + 524288, (1 << 20) - 65536 - 524288, 'd');
    co_io_close(file);
}

static void co_allocation_keeps_content(void)
{
    struct io_file *file = co_create();
    uint64_t bytes;

    co_fill(file, 10, 1000, 'k');
    assert_int_equal(co_io_allocate(file, 0, 1 << 20), 0);
    assert_int_equal(co_size(file), 1 << 20);
    assert_int_equal(co_io_allocated(file, &bytes), 0);
    assert_true(bytes >= 1 << 20);
    co_expect(file, 10, 1000, 'k');
    co_expect(file, 1010, 100000, 0);
    co_io_close(file);
}

static void co_truncation_shrinks_and_grows(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 10000, 't');
    assert_int_equal(co_io_truncate(file, 5001), 0);
    assert_int_equal(co_size(file), 5001);
    assert_int_equal(co_io_truncate(file, 20000), 0);
    assert_int_equal(co_size(file), 20000);
    co_expect(file, 0, 5001, 't');
    co_expect(file, 5001, 14999, 0);
    co_io_close(file);
}

static void co_expect_map(struct io_file *file, uint64_t offset, uint64_t len, bool data,
                          uint64_t far)
{
    bool is_data = !data;

    assert_int_equal(co_io_map(file, offset, &len, &is_data), 0);
    assert_int_equal(is_data, data);
    assert_int_equal(len, far);
}

static void co_map_tells_data_from_holes(void)
{
    struct io_file *file = co_create();
    uint64_t mega = 1 << 20;

    assert_int_equal(co_io_truncate(file, 4 * mega), 0);
    co_fill(file, mega, mega, 'm');
    assert_int_equal(co_io_flush(file), 0);
    co_expect_map(file, 0, 10 * mega, false, mega);
    co_expect_map(file, 0, 4096, false, 4096);
    co_expect_map(file, mega, 10 * mega, true, mega);
    co_expect_map(file, mega + 4096, 4096, true, 4096);
    co_expect_map(file, 2 * mega, mega, false, mega);
    co_expect_map(file, 3 * mega, 10 * mega, false, 10 * mega); /* to the end, and beyond it */
    co_expect_map(file, 100 * mega, 5, false, 5);
    co_io_close(file);
}

/* --- Copies ----------------------------------------------------------------------------------- */

static void co_copies_are_exact(void)
{
    static const struct { uint64_t from, to, len; } copies[] = {
        { 0, 0, 4 << 20 },     { 4096, 8192, 1 << 20 }, { 1, 2, 3 },
        { 5000, 70001, 99999 }, { 3 << 20, 0, 2 << 20 }, { 100 << 20, 12345, 54321 },
    };
    struct io_file *src = co_create();
    size_t size = (4 << 20) - 777;
    AUTOFREE unsigned char *model = mem_zalloc(8 << 20), *got = mem_alloc(4 << 20);

    for (size_t i = 0; i < size; i++) {
        model[i] = i * 13 + (i >> 9);
    }
    memset(model + (1 << 20), 0, 1 << 20); /* a hole */
    assert_int_equal(co_io_write(src, 0, model, size), 0);
    assert_int_equal(co_io_discard(src, 1 << 20, 1 << 20), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(copies); i++) {
        uint64_t from = copies[i].from, to = copies[i].to, len = copies[i].len;
        struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);

        co_fill(dst, 0, 1 << 20, 'c');
        assert_int_equal(co_io_copy(src, from, dst, to, len), 0);
        assert_int_equal(co_size(dst), MAX(to + len, (uint64_t)1 << 20));
        assert_int_equal(co_io_read(dst, to, got, len), 0);
        assert_memory_equal(got, model + MIN(from, (uint64_t)4 << 20), len);
        co_expect(dst, 0, MIN(to, (uint64_t)1 << 20), 'c');
        co_io_close(dst);
    }
    co_io_close(src);
}

static void co_copies_inside_one_file(void)
{
    struct io_file *file = co_create();

    co_fill(file, 0, 500000, 'i');
    assert_int_equal(co_io_copy(file, 0, file, 1048576, 491520), 0);
    co_expect(file, 0, 500000, 'i');
    co_expect(file, 500000, 548576, 0);
    co_expect(file, 1048576, 491520, 'i');
    co_io_close(file);
}

static void co_expect_pieces(struct io_file *dst, uint64_t at, const struct io_piece *pieces, int n)
{
    AUTOFREE unsigned char *got = mem_alloc(1 << 20), *want = mem_alloc(1 << 20);

    for (int i = 0; i < n; i++) {
        assert_int_equal(co_io_read(dst, at, got, pieces[i].len), 0);
        if (pieces[i].file) {
            assert_int_equal(co_io_read(pieces[i].file, pieces[i].offset, want, pieces[i].len), 0);
        }
        assert_memory_equal(got, pieces[i].file ? want : pieces[i].mem, pieces[i].len);
        at += pieces[i].len;
    }
}

/* Twice: the first time what the pair of files can do is not known yet. */
static void co_pieces_are_gathered_in_order(void)
{
    struct io_file *a = co_create(), *b = co_open_file(in_dir("b"), IO_RDWR | IO_CREATE | IO_TRUNC);
    struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);
    AUTOFREE unsigned char *mem = mem_align(4096, 1 << 20);

    for (int i = 0; i < 1 << 20; i++) {
        mem[i] = i * 7 + (i >> 12);
    }
    assert_int_equal(co_io_write(a, 0, mem, 1 << 20), 0);
    assert_int_equal(co_io_write(b, 4096, mem, (1 << 20) - 5000), 0);
    const struct io_piece even[] = {
        { .file = a, .offset = 65536, .len = 65536 }, { .file = b, .offset = 0, .len = 262144 },
        { .mem = mem + 8192, .len = 131072 },         { .file = a, .offset = 131072, .len = 4096 },
        { .mem = mem + 100, .len = 8192 },            { .file = b, .offset = 512, .len = 65536 },
    };
    const struct io_piece odd[] = {
        { .mem = mem, .len = 200001 },
        { .file = b, .offset = 900000, .len = 300000 }, /* beyond its end: zeroes */
        { .file = a, .offset = 7, .len = 77 },
    };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(co_io_gather(even, ARRAY_SIZE(even), dst, 65536), 0);
        co_expect_pieces(dst, 65536, even, ARRAY_SIZE(even));
        assert_int_equal(co_io_gather(odd, ARRAY_SIZE(odd), dst, 1 << 20), 0);
        co_expect_pieces(dst, 1 << 20, odd, ARRAY_SIZE(odd));
        assert_int_equal(co_io_truncate(dst, 0), 0);
    }
    co_io_close(dst);
    co_io_close(b);
    co_io_close(a);
}

/* How many of the file's first `len` bytes are in the page cache, or -1 where nothing can be past it. */
static long cached_bytes(const char *path, size_t len)
{
    AUTOFREE unsigned char *pages = mem_zalloc(len / 4096);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct statx stx = { 0 };
    long cached = 0;
    void *map;

    assert_true(fd >= 0);
    assert_int_equal(statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx), 0);
    map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mincore(map, len, pages), 0);
    for (size_t i = 0; i < len / 4096; i++) {
        cached += pages[i] & 1 ? 4096 : 0;
    }
    munmap(map, len);
    close(fd);
    return stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align ? cached : -1;
}

/* A merge must not push out of memory what the guest works with. */
static void co_long_copies_pass_the_page_cache(void)
{
    struct io_file *src = co_create();
    struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);

    co_fill(src, 0, 1 << 20, 'l');
    assert_int_equal(co_io_copy(src, 0, dst, 0, 1 << 20), 0);
    if (dst->align == 1) { /* else the front copies, and is told apart by its alignment only */
        assert_true(cached_bytes(in_dir("dst"), 1 << 20) <= 0);
    }
    co_expect(dst, 0, 1 << 20, 'l');
    co_io_close(dst);
    co_io_close(src);
}

struct small_copy {
    struct io_file *src, *dst;
    struct co_group *group;
    uint64_t from, to;
    int ret;
};

static CO_ENTRY void co_small_copy(void *arg)
{
    struct small_copy *c = arg;

    c->ret = co_io_copy(c->src, c->from, c->dst, c->to, 65536);
    co_group_done(c->group, 0);
}

/* 16 of 64 KiB at the same time, from everywhere to places that follow each other. */
static void co_small_copies(struct io_file *src, struct io_file *dst, struct small_copy copies[16])
{
    struct co_group group;

    co_group_init(&group);
    for (unsigned i = 0; i < 16; i++) {
        copies[i] = (struct small_copy){
            .src = src, .dst = dst, .group = &group, .from = i * 7 % 16 * 131072, .to = (i + 3) % 16 * 65536,
        };
        co_group_add(&group);
        co_start(co_small_copy, &copies[i]);
    }
    co_group_wait(&group);
}

static void co_teach_what_the_pair_can_do(struct io_file *src, struct io_file *dst)
{
    assert_int_equal(co_io_copy(src, 0, dst, 0, 1 << 20), 0);
    assert_int_equal(co_io_truncate(dst, 0), 0);
}

static void co_small_copies_that_follow_each_other_pass_the_page_cache_together(void)
{
    AUTOFREE unsigned char *got = mem_alloc(65536), *want = mem_alloc(65536);
    struct io_file *src = co_create();
    struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);
    struct small_copy copies[16];

    for (unsigned i = 0; i < 32; i++) {
        co_fill(src, i * 65536, 65536, 'A' + i);
    }
    co_teach_what_the_pair_can_do(src, dst);
    co_small_copies(src, dst, copies);
    if (dst->engine->co_gather && dst->align == 1) {
        assert_true(cached_bytes(in_dir("dst"), 1 << 20) <= 0);
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(copies[i].ret, 0);
        assert_int_equal(co_io_read(dst, copies[i].to, got, 65536), 0);
        assert_int_equal(co_io_read(src, copies[i].from, want, 65536), 0);
        assert_memory_equal(got, want, 65536);
    }
    co_io_close(dst);
    co_io_close(src);
}

/* A file may become 700 KiB long here, no longer. */
static void co_of_small_copies_only_those_fail_for_which_there_is_no_room(void)
{
    struct io_file *src = co_create();
    struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);
    struct rlimit old, small;
    struct small_copy copies[16];

    co_fill(src, 0, 2 << 20, 'r');
    co_teach_what_the_pair_can_do(src, dst);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ .rlim_cur = 700 << 10, .rlim_max = old.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    co_small_copies(src, dst, copies);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(copies[i].ret, copies[i].to + 65536 <= 700 << 10 ? 0 : -EFBIG);
    }
    co_expect(dst, 0, 10 * 65536, 'r');
    co_io_close(dst);
    co_io_close(src);
}

/* The first copy finds out that extents cannot be shared; where they can no room is needed. */
static void co_room_for_what_is_expected_is_made_ahead_and_what_is_left_given_back(void)
{
    struct io_file *src = co_create();
    struct io_file *dst = co_open_file(in_dir("dst"), IO_RDWR | IO_CREATE | IO_TRUNC);

    co_fill(src, 0, 3 << 20, 'm');
    assert_int_equal(co_io_copy(src, 0, dst, 0, 1 << 20), 0);
    io_expect(dst, 1 << 20, 32 << 20);
    assert_int_equal(co_io_copy(src, 0, dst, 1 << 20, 2 << 20), 0);
    if (dst->engine->expect && dst->align == 1 && cached_bytes(in_dir("dst"), 1 << 20) == 0) {
        assert_int_equal(co_size(dst), 32 << 20);
        co_expect(dst, 3 << 20, 1 << 20, 0);
    }
    co_io_expect_end(dst, 3 << 20);
    assert_int_equal(co_size(dst), 3 << 20);
    co_expect(dst, 1 << 20, 2 << 20, 'm');
    co_io_close(dst);
    co_io_close(src);
}

/* As on a host whose copy_file_range() declines: the worker reads and writes. */
static void co_refused_copies_go_through_a_buffer(void)
{
    /* Another file system, where there is one. */
    AUTOFREE char *shm = mem_printf("/dev/shm/merganser-io-%d", getpid());
    const char *name = access("/dev/shm", W_OK) ? in_dir("dst") : shm;
    struct io_file *src = co_create(), *dst;

    assert_int_equal(co_io_open(NULL, name, IO_RDWR | IO_CREATE | IO_TRUNC, &dst), 0);

    co_fill(src, 0, 300000, 'n');
    assert_int_equal(co_io_copy(src, 0, dst, 5, 400000), 0);
    assert_int_equal(co_io_copy(src, 0, dst, 500000, 300000), 0);
    co_expect(dst, 5, 300000, 'n');
    co_expect(dst, 300005, 100000, 0);
    co_expect(dst, 500000, 300000, 'n');
    co_io_close(dst);
    assert_int_equal(co_io_unlink(name), 0);
    co_io_close(src);
}

/* --- Many at once ----------------------------------------------------------------------------- */

#define SLOT 1000 /* bytes: several slots share each block of the disk */
#define WORKERS 64
#define ROUNDS 12

struct worker {
    struct io_file *file;
    struct co_group *group;
    struct random random;
    unsigned number;
    unsigned rounds;
};

/* Each worker owns one slot: nothing that others do next to it may ever show there. */
static void CO_ENTRY worker_entry(void *arg)
{
    struct worker *w = arg;
    char model[SLOT] = { 0 }, buf[SLOT];
    uint64_t base = w->number * SLOT;

    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t at = random_below(&w->random, SLOT - 1);
        size_t len = 1 + random_below(&w->random, SLOT - at);
        unsigned what = random_below(&w->random, 8);

        if (what == 0) {
            memset(model + at, 0, len);
            assert_int_equal(co_io_zero(w->file, base + at, len, true), 0);
        } else if (what == 1) {
            memset(model + at, 0, len);
            assert_int_equal(co_io_zero(w->file, base + at, len, false), 0);
        } else if (what == 2) {
            assert_int_equal(co_io_flush(w->file), 0);
        } else {
            memset(model + at, 1 + random_below(&w->random, 255), len);
            assert_int_equal(co_io_write(w->file, base + at, model + at, len), 0);
        }
        memset(buf, 'q', SLOT);
        assert_int_equal(co_io_read(w->file, base, buf, SLOT), 0);
        assert_memory_equal(buf, model, SLOT);
        w->rounds++;
    }
    co_group_done(w->group, 0);
}

static void co_neighbours_do_not_harm_each_other(void)
{
    struct io_file *file = co_create();
    struct worker workers[WORKERS];
    struct co_group group;

    co_group_init(&group);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ .file = file, .group = &group, .number = i };
        random_seed(&workers[i].random, i + 1);
        co_group_add(&group);
        co_start(worker_entry, &workers[i]);
    }
    assert_int_equal(co_group_wait(&group), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(workers[i].rounds, ROUNDS);
    }
    assert_in_range(co_size(file), 1, WORKERS * SLOT);
    co_io_close(file);
}

struct storm {
    struct io_file *file;
    struct co_group group;
    unsigned number;
};

static void CO_ENTRY storm_entry(void *arg)
{
    struct storm *s = arg;
    unsigned number = s->number++;
    char *buf = mem_align(4096, 4096), *got = mem_align(4096, 4096);

    memset(buf, number, 4096);
    assert_int_equal(co_io_write(s->file, (uint64_t)number * 4096, buf, 4096), 0);
    assert_int_equal(co_io_read(s->file, (uint64_t)number * 4096, got, 4096), 0);
    assert_memory_equal(buf, got, 4096);
    free(buf);
    free(got);
    co_group_done(&s->group, 0);
}

/* More requests than any ring or pool takes at once. */
static void co_any_number_may_be_in_flight(void)
{
    struct storm storm = { .file = co_create() };

    co_group_init(&storm.group);
    for (unsigned i = 0; i < 2000; i++) {
        co_group_add(&storm.group);
        co_start(storm_entry, &storm);
    }
    assert_int_equal(co_group_wait(&storm.group), 0);
    assert_int_equal(co_size(storm.file), 2000 * 4096);
    co_io_close(storm.file);
}

struct reader {
    struct io_file *file;
    struct co_group *group;
    unsigned reads; /* done so far */
    unsigned until;
};

static void CO_ENTRY reader_entry(void *arg)
{
    struct reader *r = arg;
    char buf[4096] __attribute__((aligned(4096)));

    while (r->reads < r->until) {
        assert_int_equal(co_io_read(r->file, 0, buf, sizeof(buf)), 0);
        r->reads++;
    }
    co_group_done(r->group, 0);
}

/* A reader whose every request is answered at once still lets others have their turns. */
static void co_greedy_readers_starve_nobody(void)
{
    struct io_file *file = co_create();
    struct co_group group;
    struct reader greedy[3], modest = { .file = file, .group = &group, .until = 20 };

    co_fill(file, 0, 4096, 'g');
    co_group_init(&group);
    for (unsigned i = 0; i < 3; i++) {
        greedy[i] = (struct reader){ .file = file, .group = &group, .until = 20000 };
        co_group_add(&group);
        co_start_later(reader_entry, &greedy[i]);
    }
    co_group_add(&group);
    co_start_later(reader_entry, &modest);
    while (modest.reads < modest.until) {
        co_sleep_ns(NS_PER_US);
    }
    for (unsigned i = 0; i < 3; i++) {
        if (io_file_alignment(file) == 1) { /* answered at once; elsewhere the host's scheduler decides */
            assert_in_range(greedy[i].reads, 0, 1000);
        }
        greedy[i].until = 1;
    }
    assert_int_equal(co_group_wait(&group), 0);
    co_io_close(file);
}

static void work(void *arg)
{
    (*(int *)arg)++;
}

static void co_work_is_done_once(void)
{
    int count = 0;

    for (int i = 1; i <= 20; i++) {
        co_io_work(work, &count);
        assert_int_equal(count, i);
    }
}

/* --- Opening, names --------------------------------------------------------------------------- */

static int co_try_open(const char *name, unsigned flags)
{
    struct io_file *file;
    int ret = co_io_open(NULL, name, flags | variant->flags, &file);

    if (!ret) {
        co_io_close(file);
    }
    return ret;
}

static void make_socket(const char *name)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", name);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
}

static void co_only_files_and_disks_are_opened(void)
{
    assert_int_equal(co_try_open(in_dir("none"), IO_RDWR), -ENOENT);
    assert_int_equal(co_try_open(in_dir("none/x"), IO_RDWR | IO_CREATE), -ENOENT);
    assert_int_equal(co_try_open(dir, IO_READ_ONLY), -EISDIR);
    assert_int_equal(co_try_open(dir, IO_RDWR), -EISDIR);
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    assert_int_equal(co_try_open(in_dir("fifo"), IO_READ_ONLY), -EINVAL);
    assert_int_equal(co_try_open(in_dir("fifo"), IO_RDWR), -EINVAL);
    assert_int_equal(co_try_open("/dev/null", IO_RDWR), -EINVAL);
    make_socket(in_dir("socket"));
    assert_int_equal(co_try_open(in_dir("socket"), IO_RDWR), -EINVAL);
    assert_int_equal(symlink("loop", in_dir("loop")), 0);
    assert_int_equal(co_try_open(in_dir("loop"), IO_RDWR), -ELOOP);
    assert_int_equal(co_try_open(path, IO_RDWR | IO_CREATE | IO_EXCL), 0);
    assert_int_equal(co_try_open(path, IO_RDWR | IO_CREATE | IO_EXCL), -EEXIST);
    assert_int_equal(co_try_open(path, IO_RDWR | IO_CREATE), 0);
}

static void co_descriptors_are_closed_on_exec(void)
{
    struct io_file *file = co_create();
    unsigned seen = 0;

    for (int fd = 3; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFD);
        struct stat st;

        /* Pipes and the like may be inherited from whoever runs the tests. */
        if (flags >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_ino == file->id[1]) {
            assert_true(flags & FD_CLOEXEC);
            assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
            seen++;
        }
    }
    assert_int_equal(seen, 1);
    co_io_close(file);
}

static void co_same_file_is_known_by_any_name(void)
{
    struct io_file *a = co_create(), *b, *c;

    assert_int_equal(symlink(path, in_dir("link")), 0);
    b = co_open_file(in_dir("link"), IO_READ_ONLY);
    c = co_open_file(in_dir("other"), IO_RDWR | IO_CREATE);
    assert_true(io_file_same(a, b));
    assert_false(io_file_same(a, c));
    assert_string_equal(io_file_path(a), path);
    co_io_close(a);
    co_io_close(b);
    co_io_close(c);
}

static void co_names_change(void)
{
    const char *other = in_dir("renamed");

    assert_false(io_exists(path));
    co_io_close(co_create());
    assert_true(io_exists(path));
    assert_int_equal(co_io_rename(path, other), 0);
    assert_false(io_exists(path));
    assert_true(io_exists(other));
    assert_int_equal(co_io_sync_dir(other), 0);
    assert_int_equal(co_io_sync_dir("name-in-the-working-directory"), 0);
    assert_int_equal(co_io_sync_dir(in_dir("none/x")), -ENOENT);
    assert_int_equal(co_io_unlink(other), 0);
    assert_int_equal(co_io_unlink(other), -ENOENT);
    assert_int_equal(co_io_rename(other, path), -ENOENT);
}

static void co_whole_files_are_loaded(void)
{
    struct io_file *file = co_create();
    char *text;
    size_t len;

    assert_int_equal(co_io_load(path, &text, &len), 0);
    assert_int_equal(len, 0);
    assert_string_equal(text, "");
    free(text);
    co_fill(file, 0, 300000, 'l');
    assert_int_equal(co_io_load(path, &text, &len), 0);
    assert_int_equal(len, 300000);
    assert_int_equal(strlen(text), 300000);
    free(text);
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    AUTOFREE char *command = mem_printf("printf 'stop\\n' >'%s' &", in_dir("pipe"));

    assert_int_equal(system(command), 0);
    assert_int_equal(co_io_load(in_dir("pipe"), &text, &len), 0);
    assert_string_equal(text, "stop\n");
    free(text);
    assert_int_equal(co_io_load(dir, &text, &len), -EISDIR);
    assert_int_equal(co_io_load("/dev/zero", &text, &len), -EINVAL);
    assert_int_equal(co_io_load(in_dir("none"), &text, &len), -ENOENT);
    co_io_close(file);
}

/* --- Reopening, flushing ---------------------------------------------------------------------- */

static void co_reopening_changes_the_mode_only(void)
{
    struct io_file *file = co_create(), *other;
    unsigned bad = 0;
    bool bad_shared = false;
    int ret;

    co_fill(file, 0, 100, 'o');
    ret = io_file_lock(file, IO_PERM_WRITE, IO_PERM_CONSISTENT_READ, &bad, &bad_shared);
    assert_int_equal(ret, 0);
    assert_int_equal(co_io_rename(path, in_dir("moved")), 0); /* the file counts, not its name */
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY | variant->flags), 0);
    assert_int_equal(co_io_write(file, 0, "x", 1), -EBADF);
    co_expect(file, 0, 100, 'o');
    other = co_open_file(in_dir("moved"), IO_RDWR);
    ret = io_file_lock(other, IO_PERM_WRITE, IO_PERM_ALL, &bad, &bad_shared);
    assert_int_equal(ret, -EAGAIN);
    assert_int_equal(bad, IO_PERM_WRITE);
    assert_int_equal(co_io_reopen(file, IO_RDWR | variant->flags), 0);
    assert_int_equal(io_file_lock(other, IO_PERM_WRITE, IO_PERM_ALL, &bad, &bad_shared), -EAGAIN);
    co_fill(file, 50, 100, 'p');
    co_expect(other, 50, 100, 'p');
    /* And its own locks still are its own. */
    assert_int_equal(io_file_lock(file, IO_PERM_WRITE, 0, &bad, &bad_shared), 0);
    assert_int_equal(io_file_lock(file, 0, IO_PERM_ALL, &bad, &bad_shared), 0);
    assert_int_equal(io_file_lock(other, IO_PERM_WRITE, 0, &bad, &bad_shared), 0);
    co_io_close(other);
    co_io_close(file);
}

static void co_failed_reopening_changes_nothing(void)
{
    struct io_file *file = co_create();
    struct rlimit limit, few;
    int fds[64];
    unsigned n = 0;

    co_fill(file, 0, 100, 'o');
    /* No descriptor is left for the second handle. */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = ARRAY_SIZE(fds);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < ARRAY_SIZE(fds) && (fds[n] = dup(2)) >= 0) {
        n++;
    }
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY | variant->flags), -EMFILE);
    while (n) {
        close(fds[--n]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(io_file_writable(file));
    co_fill(file, 0, 100, 'q');
    co_expect(file, 0, 100, 'q');
    co_io_close(file);
}

/* --- Running it all --------------------------------------------------------------------------- */

struct test {
    const char *name;
    void (*co_run)(void);
};

#define TEST(name) { #name, name }
static const struct test tests[] = {
    TEST(co_reads_beyond_the_end_are_zeroes), TEST(co_writes_extend_the_file),
    TEST(co_long_lists_are_moved_whole), TEST(co_wrong_ranges_are_refused),
    TEST(co_read_only_files_stay_as_they_are), TEST(co_short_transfers_are_carried_on),
    TEST(co_failed_flushes_are_not_forgotten), TEST(co_what_fails_when_written_out_is_told_by_the_flush), TEST(co_room_is_made_behind_the_end_used_and_given_back), TEST(co_room_goes_with_the_file),
    TEST(co_greedy_readers_starve_nobody),
    TEST(co_zeroed_ranges_read_as_zeroes),
    TEST(co_zeroing_extends_the_file), TEST(co_zeroing_falls_back_to_writing),
    TEST(co_discarding_gives_space_back), TEST(co_allocation_keeps_content),
    TEST(co_truncation_shrinks_and_grows), TEST(co_map_tells_data_from_holes),
    TEST(co_copies_are_exact), TEST(co_copies_inside_one_file),
    TEST(co_pieces_are_gathered_in_order), TEST(co_long_copies_pass_the_page_cache),
    TEST(co_small_copies_that_follow_each_other_pass_the_page_cache_together),
    TEST(co_of_small_copies_only_those_fail_for_which_there_is_no_room),
    TEST(co_room_for_what_is_expected_is_made_ahead_and_what_is_left_given_back),
    TEST(co_refused_copies_go_through_a_buffer), TEST(co_neighbours_do_not_harm_each_other),
    TEST(co_any_number_may_be_in_flight), TEST(co_work_is_done_once),
    TEST(co_only_files_and_disks_are_opened), TEST(co_descriptors_are_closed_on_exec),
    TEST(co_same_file_is_known_by_any_name), TEST(co_names_change),
    TEST(co_whole_files_are_loaded), TEST(co_reopening_changes_the_mode_only),
    TEST(co_failed_reopening_changes_nothing),
};

struct instance {
    const struct variant *variant;
    const struct test *test;
};

static void CO_ENTRY test_entry(void *arg)
{
    const struct instance *instance = arg;

    instance->test->co_run();
}

static bool direct_works_here(void)
{
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return fd >= 0;
}

static void run_instance(void **state)
{
    struct instance *instance = *state;
    const struct io_engine *engine;

    variant = instance->variant;
    if ((variant->flags & IO_DIRECT) && !direct_works_here()) {
        print_message("no O_DIRECT in %s\n", dir);
        skip();
    }
    loop_init(variant->clock, 7);
    io_init();
    engine = io_engine_find(variant->engine);
    if (!engine) {
        print_message("no engine %s here\n", variant->engine);
        io_fini();
        loop_fini();
        skip();
    }
    assert_string_equal(io_engine_name(engine), variant->engine);
    io_engine_set_default(engine);
    loop_run_co(test_entry, instance);
    io_fini();
    loop_fini();
}

static int make_dir(void **state)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof(dir), "%s/io-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/file", dir);
    return 0;
}

static int remove_dir(void **state)
{
    char command[320];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    enum { COUNT = ARRAY_SIZE(variants) * ARRAY_SIZE(tests) };
    static struct CMUnitTest table[COUNT];
    static struct instance instances[COUNT];
    static char names[COUNT][100];

    for (unsigned i = 0; i < COUNT; i++) {
        const struct variant *v = &variants[i / ARRAY_SIZE(tests)];
        const struct test *t = &tests[i % ARRAY_SIZE(tests)];

        instances[i] = (struct instance){ v, t };
        snprintf(names[i], sizeof(names[i]), "%s%s, blocks of %u: %s", v->engine,
                 v->flags ? " direct" : "", MAX(v->align, 1u), t->name + strlen("co_"));
        table[i] = (struct CMUnitTest){
            names[i], run_instance, make_dir, remove_dir, &instances[i],
        };
    }
    return cmocka_run_group_tests(table, NULL, NULL);
}
