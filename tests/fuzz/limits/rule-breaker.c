/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A target whose inputs break the rules of lib/fuzz.h, to see that the harness notices: tests/build/fuzz-limits.bats.
 *
 * An input is a letter: what it does.
 */
#include <stdlib.h>
#include <time.h>

#include "block/file.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "tests/fuzz/lib/raw-disk.h"

static void spin(uint64_t ms)
{
    struct timespec ts;
    uint64_t begin = 0, now;

    do {
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
        now = ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
        begin = begin ? begin : now;
    } while (now - begin < ms);
}

static void hold(size_t bytes)
{
    volatile char *held = mem_alloc(bytes);

    held[0] = 1;
    free((void *)held);
}

static CO_ENTRY void co_stay(void *arg)
{
    co_yield();
}

static CO_ENTRY void co_leave_node(void *arg)
{
    (void)co_raw_disk_open("disk");
}

static void *volatile lost;

static void run(struct fuzz_input *in)
{
    switch (fuzz_u8(in)) {
    case 't':
        spin(FUZZ_MS_MAX / 2);
        break;
    case 'T':
        spin(FUZZ_MS_MAX + FUZZ_MS_MAX / 10);
        break;
    case 'm':
        hold(FUZZ_BYTES - (1 << 20));
        break;
    case 'M':
        hold(FUZZ_BYTES + (1 << 20));
        break;
    case 'E':
        for (;;) {
            spin(1);
        }
    case 'C':
        co_start(co_stay, NULL);
        break;
    case 'N':
        loop_run_co(co_leave_node, NULL);
        break;
    case 'L':
        lost = mem_alloc(64 << 10);
        break;
    case 'F':
        FUZZ_CHECK(false, "the target complains");
    }
}

static void set_up(void)
{
    raw_disk_make(1 << 16);
}

const struct fuzz_target fuzz_target = {
    .name = "rule-breaker",
    .set_up = set_up,
    .run = run,
};
