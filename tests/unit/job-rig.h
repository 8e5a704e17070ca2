/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of jobs in virtual time: chains on the simulated disk behind a medium that has one speed for everybody, so that
 * a job's bytes delay a guest's requests as on a real disk; and a guest of so many requests a second.
 *
 * The medium is an engine around the simulated disk's: a request first waits until the medium has moved all bytes that
 * were asked before it, then for its own.
 */
#ifndef TESTS_UNIT_JOB_RIG_H
#define TESTS_UNIT_JOB_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/io-engine.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "tests/unit/sim-world.h"

#define MIB (1ull << 20)

/* --- The medium --------------------------------------------------------------------------------------------------- */

static struct {
    struct io_engine engine;       /* the simulated disk's, with the transfers below */
    const struct io_engine *sim;
    uint64_t bytes_per_s;          /* 0: as fast as the simulated disk */
    uint64_t free_ns;              /* when it will have moved all that was asked so far */
} medium;

static inline void co_medium_move(uint64_t bytes)
{
    if (medium.bytes_per_s) {
        medium.free_ns = MAX(medium.free_ns, loop_now()) + bytes * NS_PER_S / medium.bytes_per_s;
        co_sleep_ns(medium.free_ns - loop_now());
    }
}

static inline ssize_t co_medium_read(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    co_medium_move(iov_size(iov, n));
    return medium.sim->co_read(file, offset, iov, n);
}

static inline ssize_t co_medium_write(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    co_medium_move(iov_size(iov, n));
    return medium.sim->co_write(file, offset, iov, n);
}

static inline ssize_t co_medium_copy(struct io_file *src, uint64_t src_off, struct io_file *dst, uint64_t dst_off, uint64_t len)
{
    co_medium_move(2 * len);
    return medium.sim->co_copy(src, src_off, dst, dst_off, len);
}

static inline int rig_setup(void **state)
{
    sim_begin(5);
    memset(&medium, 0, sizeof(medium));
    medium.sim = io_engine_find("sim");
    medium.engine = *medium.sim;
    medium.engine.co_read = co_medium_read;
    medium.engine.co_write = co_medium_write;
    medium.engine.co_copy = co_medium_copy;
    io_engine_set_default(&medium.engine);
    return 0;
}

static inline int rig_teardown(void **state)
{
    sim_end();
    return 0;
}

/* --- Chains ----------------------------------------------------------------------------------------------------------- */

static inline void co_rig_create(const char *path, const char *backing, uint64_t size)
{
    json_t *options = json_pack("{s:I, s:s*, s:s*}", "size", (json_int_t)size, "backing_file", backing, "backing_fmt",
                                backing ? "qcow2" : NULL);
    struct error err = ERROR_INIT;

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

static inline struct node *co_rig_open(const char *path)
{
    json_t *options = json_pack("{s:s}", "driver", "qcow2");
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    assert_non_null(node);
    return node;
}

/* Fill [offset, offset + len) of a node with data. */
static inline void co_rig_fill(struct node *node, uint64_t offset, uint64_t len)
{
    AUTOFREE uint8_t *data = mem_alloc(MIB);

    memset(data, 0x5a, MIB);
    for (uint64_t at = 0; at < len; at += MIN(MIB, len - at)) {
        assert_int_equal(co_node_write_buf(node, offset + at, data, MIN(MIB, len - at)), 0);
    }
}

/* --- A guest ---------------------------------------------------------------------------------------------------------- */

static struct {
    struct disk *disk;
    uint64_t period_ns;  /* one request each; 0: none */
    bool write, stop;
    unsigned running;
    uint64_t requests, slow, limit_ns, count_from_ns; /* slow: longer than the limit, counted from then on */
} guest;

static inline void rig_guest_request(void *arg)
{
    uint64_t started = loop_now(), offset = loop_random_below(disk_size(guest.disk) / 4096) * 4096;
    uint8_t buf[4096] = { 1 };
    struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) };
    int ret = guest.write ? co_disk_write(guest.disk, offset, &iov, 1) : co_disk_read(guest.disk, offset, &iov, 1);

    assert_int_equal(ret, 0);
    if (started >= guest.count_from_ns) {
        guest.requests++;
        guest.slow += loop_now() - started > guest.limit_ns;
    }
    guest.running--;
}

static inline void rig_guest_life(void *arg)
{
    while (!guest.stop) {
        if (guest.period_ns) {
            guest.running++;
            co_start(rig_guest_request, NULL);
        }
        co_sleep_ns(guest.period_ns ? guest.period_ns : 10 * NS_PER_MS);
    }
    guest.running--;
}

static inline void rig_guest_start(struct disk *disk, uint64_t per_second)
{
    memset(&guest, 0, sizeof(guest));
    guest.disk = disk;
    guest.period_ns = per_second ? NS_PER_S / per_second : 0;
    guest.running = 1;
    co_start_later(rig_guest_life, NULL);
}

static inline void co_rig_guest_end(void)
{
    guest.stop = true;
    while (guest.running) {
        co_sleep_ns(NS_PER_MS);
    }
}

#endif
