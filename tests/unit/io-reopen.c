/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file is opened anew (read-only <-> read-write) while requests on it are in flight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define READERS 64
#define ROUNDS 100
#define REOPENS 60 /* up and down */
#define FILE_BYTES (1u << 20)

static struct io_file *file;
static unsigned running, failed, refused;

static CO_ENTRY void co_reader(void *arg)
{
    AUTOFREE uint8_t *buf = mem_alloc(512 << 10); /* too large to be read on the spot: it goes to a worker */
    unsigned number = (uintptr_t)arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        failed += co_io_read(file, (number * 4096 + i * 512) % (FILE_BYTES / 2), buf, 300 << 10) < 0;
        failed += buf[0] != 0x5a;
    }
    running--;
}

/* As a job does that makes an image writable for a while. */
static void co_up_and_down(void)
{
    const unsigned reader = IO_PERM_CONSISTENT_READ, writer = reader | IO_PERM_WRITE;
    unsigned bad;
    bool bad_shared;

    refused += io_file_lock(file, writer, reader, &bad, &bad_shared) < 0;
    assert_int_equal(co_io_reopen(file, IO_RDWR), 0);
    assert_int_equal(co_io_reopen(file, IO_READ_ONLY), 0);
    refused += io_file_lock(file, reader, IO_PERM_ALL, &bad, &bad_shared) < 0;
}

static CO_ENTRY void co_run(void *arg)
{
    char path[] = "/tmp/merganser-reopen-XXXXXX";
    AUTOFREE uint8_t *bytes = mem_alloc(FILE_BYTES);
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    memset(bytes, 0x5a, FILE_BYTES);
    assert_int_equal(write(fd, bytes, FILE_BYTES), FILE_BYTES);
    close(fd);
    assert_int_equal(co_io_open(io_engine_find(arg), path, IO_READ_ONLY, &file), 0);
    running = READERS;
    for (uintptr_t i = 0; i < READERS; i++) {
        co_start(co_reader, (void *)i);
    }
    for (unsigned i = 0; i < REOPENS; i++) {
        co_up_and_down();
        co_yield();
    }
    while (running > 0) {
        co_sleep_ns(NS_PER_MS);
    }
    co_io_close(file);
    unlink(path);
}

static void reopen_under(enum loop_clock clock, char *engine)
{
    failed = refused = 0;
    loop_init(clock, 1);
    io_init();
    loop_run_co(co_run, engine);
    io_fini();
    loop_fini();
    assert_int_equal(failed, 0);
    assert_int_equal(refused, 0); /* by locks of our own, on the open file of before */
}

static void requests_in_flight_survive_a_reopen_on_threads(void **state)
{
    reopen_under(LOOP_CLOCK_REAL, "threads");
}

static void requests_in_flight_survive_a_reopen_on_the_default_engine(void **state)
{
    reopen_under(LOOP_CLOCK_REAL, NULL);
}

static void requests_in_flight_survive_a_reopen_on_the_virtual_clock(void **state)
{
    reopen_under(LOOP_CLOCK_VIRTUAL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_in_flight_survive_a_reopen_on_threads),
        cmocka_unit_test(requests_in_flight_survive_a_reopen_on_the_default_engine),
        cmocka_unit_test(requests_in_flight_survive_a_reopen_on_the_virtual_clock),
    };
    return cmocka_run_group_tests_name("io-reopen", tests, NULL, NULL);
}
