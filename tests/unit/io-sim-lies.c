/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks that lie, and faults as words: what each kind does to one file.  What it does to images:
 * faults.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define SIZE 65536u
#define SECTOR 512u

static int setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
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

static void plan(const char *words)
{
    struct error err = ERROR_INIT;

    if (!io_sim_fault_words(words, &err)) {
        print_message("%s: %s\n", words, err.text);
    }
    assert_null(err.text);
}

/* A file of sectors 'a', 'b', ..., open. */
static struct io_file *co_make(void)
{
    char buf[SECTOR];
    struct io_file *file;

    io_sim_create("f", SIZE);
    for (unsigned i = 0; i < SIZE / SECTOR; i++) {
        memset(buf, 'a' + i % 26, sizeof(buf));
        io_sim_write("f", i * SECTOR, buf, sizeof(buf));
    }
    assert_int_equal(co_io_open(NULL, "f", IO_RDWR, &file), 0);
    return file;
}

static char seen(uint64_t offset)
{
    char c = '?';

    io_sim_read("f", offset, &c, 1);
    return c;
}

static char durable(uint64_t offset)
{
    char c = '?';

    io_sim_read_durable("f", offset, &c, 1);
    return c;
}

static CO_ENTRY void co_lost(void *arg)
{
    struct io_file *file = co_make();
    char buf[SECTOR] = "X";
    uint64_t size;

    plan("lost,ops=write+truncate+zero,times=3");
    assert_int_equal(co_io_write(file, 1024, buf, sizeof(buf)), 0);
    assert_int_equal(co_io_truncate(file, 100), 0);
    assert_int_equal(co_io_zero(file, 0, 4096, false), 0);
    assert_int_equal(io_sim_faults_struck(), 3);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(seen(1024), 'c');
    assert_int_equal(durable(1024), 'c');
    io_sim_size("f", &size);
    assert_int_equal(size, SIZE);
    assert_int_equal(co_io_write(file, 1024, buf, sizeof(buf)), 0);
    assert_int_equal(seen(1024), 'X');
    co_io_close(file);
}

static void a_lost_change_says_success_and_is_nowhere(void **state)
{
    loop_run_co(co_lost, NULL);
}

static CO_ENTRY void co_astray(void *arg)
{
    struct io_file *file = co_make();
    unsigned found = 0;
    char buf[SECTOR];
    uint64_t size;

    memset(buf, 'X', sizeof(buf));
    plan("astray,shift=-512,times=1");
    assert_int_equal(co_io_write(file, 1024, buf, sizeof(buf)), 0);
    assert_int_equal(seen(512), 'X');
    assert_int_equal(seen(1024), 'c');
    memset(buf, 'Y', sizeof(buf));
    plan("astray,shift=-512,times=1"); /* not below the file's start */
    assert_int_equal(co_io_write(file, 0, buf, sizeof(buf)), 0);
    assert_int_equal(seen(0), 'Y');
    memset(buf, 'Z', sizeof(buf));
    plan("astray,times=1");
    assert_int_equal(co_io_write(file, 2048, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < SIZE / SECTOR; i++) {
        found += seen(i * SECTOR) == 'Z' && i % 26 != 25;
    }
    assert_int_equal(found, 1); /* seed 5 takes neither a place of a 'z' nor the right one */
    assert_int_not_equal(seen(2048), 'Z');
    io_sim_size("f", &size);
    assert_int_equal(size, SIZE);
    co_io_close(file);
}

static void a_stray_write_lands_elsewhere_in_the_file(void **state)
{
    loop_run_co(co_astray, NULL);
}

static CO_ENTRY void co_flip(void *arg)
{
    struct io_file *file = co_make();
    char buf[SECTOR], in[SECTOR];
    unsigned bits = 0;

    memset(buf, 0, sizeof(buf));
    plan("flip,ops=write,offset=1030,len=1,mask=0x80,times=1");
    assert_int_equal(co_io_write(file, 2048, buf, sizeof(buf)), 0);
    assert_int_equal(io_sim_faults_struck(), 0);
    assert_int_equal(co_io_write(file, 1024, buf, sizeof(buf)), 0);
    assert_int_equal((unsigned char)seen(1030), 0x80);
    assert_int_equal(seen(1029), 0);
    plan("flip,ops=read,times=1");
    assert_int_equal(co_io_read(file, 2048, in, sizeof(in)), 0);
    for (unsigned i = 0; i < sizeof(in); i++) {
        bits += __builtin_popcount((unsigned char)in[i]);
    }
    assert_int_equal(bits, 1);
    assert_int_equal(co_io_read(file, 2048, in, sizeof(in)), 0);
    assert_true(bytes_are_zero(in, sizeof(in)));
    assert_int_equal(buf[6], 0); /* the caller's buffer is the caller's */
    co_io_close(file);
}

static void a_flipped_bit_is_one_bit(void **state)
{
    loop_run_co(co_flip, NULL);
}

static CO_ENTRY void co_stale(void *arg)
{
    struct io_file *file = co_make();
    char buf[SECTOR] = "X", in[SECTOR];

    plan("stale,path=/f,offset=1024,len=512,after=1,times=1");
    assert_int_equal(co_io_write(file, 1024, buf, sizeof(buf)), 0);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_read(file, 1024, in, sizeof(in)), 0);
    assert_int_equal(in[0], 'X');
    assert_int_equal(co_io_read(file, 1024, in, sizeof(in)), 0);
    assert_int_equal(in[0], 'c');
    assert_int_equal(co_io_read(file, 1024, in, sizeof(in)), 0);
    assert_int_equal(in[0], 'X');
    plan("stale");
    assert_int_equal(co_io_write(file, SIZE, buf, 1), 0);
    assert_int_equal(co_io_read(file, SIZE, in, 1), 0);
    assert_int_equal(in[0], 0); /* there was no such byte */
    co_io_close(file);
}

static void a_stale_read_gets_what_was_there_before(void **state)
{
    loop_run_co(co_stale, NULL);
}

static CO_ENTRY void co_now(void *arg)
{
    struct io_file *file = co_make();
    unsigned bad;
    bool shared;
    uint64_t size;

    plan("error,ops=lock,errno=ENOLCK,times=1");
    plan("error,ops=size,times=1");
    assert_int_equal(io_file_lock(file, IO_PERM_WRITE, IO_PERM_ALL, &bad, &shared), -ENOLCK);
    assert_int_equal(co_io_size(file, &size), -EIO);
    assert_int_equal(io_file_lock(file, IO_PERM_WRITE, IO_PERM_ALL, &bad, &shared), 0);
    assert_int_equal(co_io_size(file, &size), 0);
    co_io_close(file);
}

static void what_takes_no_time_fails_too(void **state)
{
    loop_run_co(co_now, NULL);
}

static CO_ENTRY void co_interrupted(void *arg)
{
    struct io_file *file;
    uint64_t n = SECTOR;
    unsigned bad;
    bool data;
    char buf[SECTOR] = "X", *text;

    io_sim_create("other", 1);
    plan("error,errno=EINTR,ops=open,times=2");
    file = co_make();
    assert_int_equal(io_sim_faults_struck(), 2);
    for (unsigned bit = 1; bit & IO_SIM_ANY; bit <<= 1) {
        AUTOFREE char *words = mem_printf("error,errno=EINTR,ops=%s,times=3", io_sim_op_name(bit));

        plan(words);
    }
    assert_int_equal(co_io_write(file, 0, buf, sizeof(buf)), 0);
    assert_int_equal(co_io_read(file, 0, buf, sizeof(buf)), 0);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_zero(file, 0, 4096, true), 0);
    assert_int_equal(co_io_zero(file, 0, 4096, false), 0);
    assert_int_equal(co_io_allocate(file, 0, 4096), 0);
    assert_int_equal(co_io_copy(file, 0, file, 8192, 4096), 0);
    assert_int_equal(co_io_truncate(file, SIZE), 0);
    assert_int_equal(co_io_map(file, 0, &n, &data), 0);
    assert_int_equal(co_io_size(file, &n), 0);
    assert_int_equal(io_file_lock(file, IO_PERM_WRITE, IO_PERM_ALL, &bad, &data), 0);
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY), 0);
    assert_int_equal(co_io_load("other", &text, &n), 0);
    assert_int_equal(co_io_rename("other", "another"), 0);
    assert_int_equal(co_io_sync_dir("another"), 0);
    assert_int_equal(co_io_unlink("another"), 0);
    assert_int_equal(io_sim_faults_struck(), 2 + 16 * 3);
    free(text);
    co_io_close(file);
}

static void every_interrupted_call_is_made_again(void **state)
{
    loop_run_co(co_interrupted, NULL);
}

static void words_that_say_nothing_are_refused(void **state)
{
    static const char *const wrong[] = {
        "", "ops=write", "mend", "error,ops=write+", "error,ops=wri", "error,errno=EGGS",
        "error,after=-1", "flip,mask=0", "flip,mask=256", "error,colour=red", "astray,shift=x",
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct error err = ERROR_INIT;

        assert_false(io_sim_fault_words(wrong[i], &err));
        assert_non_null(err.text);
        error_clear(&err);
    }
}

static void a_seed_draws_every_kind_as_words_that_are_understood(void **state)
{
    struct random random, again;
    unsigned drawn = 0;

    random_seed(&random, 1);
    random_seed(&again, 1);
    for (unsigned i = 0; i < 200; i++) {
        AUTOFREE char *words = io_sim_fault_draw(&random, (1u << IO_SIM_FAULT_KINDS) - 1, 40);
        AUTOFREE char *same = io_sim_fault_draw(&again, (1u << IO_SIM_FAULT_KINDS) - 1, 40);

        assert_string_equal(words, same);
        plan(words);
        drawn |= 1u << (words[0] - 'a') | (words[0] == 's' ? 1u << words[2] % 32 : 0);
    }
    for (const char *c = "elafs"; *c; c++) { /* error, lost, astray, flip; short and so on: */
        assert_true(drawn & 1u << (*c - 'a'));
    }
    for (const char *c = "ona"; *c; c++) { /* short, sync-drop, stall and stale */
        assert_true(drawn & 1u << *c % 32);
    }
    AUTOFREE char *only = io_sim_fault_draw(&random, 1u << IO_SIM_FAULT_FLIP, 40);

    assert_true(strncmp(only, "flip,", 5) == 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lost_change_says_success_and_is_nowhere),
        TEST(a_stray_write_lands_elsewhere_in_the_file),
        TEST(a_flipped_bit_is_one_bit),
        TEST(a_stale_read_gets_what_was_there_before),
        TEST(what_takes_no_time_fails_too),
        TEST(every_interrupted_call_is_made_again),
        TEST(words_that_say_nothing_are_refused),
        TEST(a_seed_draws_every_kind_as_words_that_are_understood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
