/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world around each input: see fuzz.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/filter.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/io.h"
#include "tests/fuzz/lib/fuzz.h"

#define SEED 1

/* Memory may grow while caches and pools find their sizes; after that it stays. */
#define GROWTH_INPUTS 256u
#define GROWTH_BYTES (1u << 20)

static struct io_sim_snapshot *disk;
static size_t base_coroutines;

void fuzz_fail(const char *fmt, ...)
{
    va_list ap;

    /* By number: a target may have put another stream into stderr's place. */
    dprintf(STDERR_FILENO, "fuzz %s: ", fuzz_target.name);
    va_start(ap, fmt);
    vdprintf(STDERR_FILENO, fmt, ap);
    va_end(ap);
    dprintf(STDERR_FILENO, "\n");
    abort();
}

/* --- Reading the input --------------------------------------------------------------------------- */

void fuzz_take(struct fuzz_input *in, void *buf, size_t len)
{
    size_t n = MIN(len, in->len);

    memcpy(buf, in->data, n);
    memset((uint8_t *)buf + n, 0, len - n);
    in->data += n;
    in->len -= n;
}

uint8_t fuzz_u8(struct fuzz_input *in)
{
    uint8_t byte;

    fuzz_take(in, &byte, 1);
    return byte;
}

uint16_t fuzz_u16(struct fuzz_input *in)
{
    uint8_t bytes[2];

    fuzz_take(in, bytes, 2);
    return load_le16(bytes);
}

uint32_t fuzz_u32(struct fuzz_input *in)
{
    uint8_t bytes[4];

    fuzz_take(in, bytes, 4);
    return load_le32(bytes);
}

uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint8_t bytes[8];

    fuzz_take(in, bytes, 8);
    return load_le64(bytes);
}

char *fuzz_text(struct fuzz_input *in, size_t max, char end)
{
    size_t len = MIN(max, in->len);
    const uint8_t *stop = memchr(in->data, end, len);
    size_t n = stop ? (size_t)(stop - in->data) : len;
    char *text = mem_alloc(n + 1);

    fuzz_take(in, text, n);
    text[n] = 0;
    if (stop) {
        fuzz_u8(in);
    }
    return text;
}

/* --- Time ------------------------------------------------------------------------------------------- */

static bool timer_fired(void *arg)
{
    return !loop_timer_armed(arg);
}

static void timer_nothing(void *arg)
{
}

void fuzz_settle(void)
{
    struct loop_timer timer;

    loop_timer_init(&timer, timer_nothing, NULL);
    loop_timer_arm(&timer, loop_now() + NS_PER_S);
    loop_run_until(timer_fired, &timer);
}

static uint64_t processor_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- The world --------------------------------------------------------------------------------------- */

void fuzz_keep_disk(void)
{
    if (disk) {
        io_sim_snapshot_free(disk);
    }
    disk = io_sim_snapshot();
}

static void world_reset(void)
{
    loop_random_seed(SEED);
    if (disk) {
        io_sim_restore(disk);
        io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    } else {
        io_sim_reset();
    }
}

static void world_begin(void)
{
    static const struct driver *const drivers[] = { &driver_qcow2, &driver_raw, &driver_file, &driver_blkdebug,
                                                    &driver_copy_on_read, &driver_throttle, NULL };
    static bool begun;

    if (begun) {
        return;
    }
    begun = true;
    loop_init(LOOP_CLOCK_VIRTUAL, SEED);
    io_init();
    io_sim_init();
    io_engine_set_default(io_engine_find("sim"));
    node_set_drivers(drivers);
    if (fuzz_target.set_up) {
        fuzz_target.set_up();
    }
    base_coroutines = co_count();
    world_reset();
}

static void check_nothing_is_left(void)
{
    FUZZ_CHECK(co_count() == base_coroutines, "%zu coroutines are left", co_count() - base_coroutines);
    FUZZ_CHECK(TAILQ_EMPTY(&all_nodes), "node '%s' is left", TAILQ_FIRST(&all_nodes)->name);
    FUZZ_CHECK(TAILQ_EMPTY(&all_disks), "disk '%s' is left", TAILQ_FIRST(&all_disks)->id);
}

/* F3: what the first inputs hold is the measure; more than that by a margin is a leak. */
static void check_growth(void)
{
    static size_t inputs, base;

    inputs++;
    if (inputs <= GROWTH_INPUTS) {
        base = MAX(base, fuzz_memory_held());
    }
    FUZZ_CHECK(fuzz_memory_held() <= base + GROWTH_BYTES, "%zu bytes are held after %zu inputs, %zu were after the first",
               fuzz_memory_held(), inputs, base);
}

static void run_once(const uint8_t *data, size_t len)
{
    struct fuzz_input in = { data, len };

    fuzz_target.run(&in);
    check_nothing_is_left();
    world_reset();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t ms;

    world_begin();
    fuzz_memory_mark();
    size_t before = fuzz_memory_held();

    ms = processor_ms();
    run_once(data, len);
    ms = processor_ms() - ms;
    if (ms > FUZZ_MS_MAX) { /* once more: it may have been the machine */
        ms = processor_ms();
        run_once(data, len);
        ms = processor_ms() - ms;
        FUZZ_CHECK(ms <= FUZZ_MS_MAX, "an input took %llu ms", (unsigned long long)ms);
    }
    FUZZ_CHECK(fuzz_memory_most() <= before + FUZZ_BYTES, "an input held %zu bytes", fuzz_memory_most() - before);
#ifndef FUZZ_LIBFUZZER /* which keeps a corpus of its own, and looks for leaks itself */
    check_growth();
#else
    (void)check_growth;
#endif
    return 0;
}

/* --- libFuzzer's mutator: half its own, half the target's ------------------------------------------ */

#ifdef FUZZ_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
    struct random rnd;

    random_seed(&rnd, seed);
    if (!fuzz_target.mutate || random_below(&rnd, 3) == 0) {
        return LLVMFuzzerMutate(data, len, max);
    }
    return fuzz_target.mutate(data, len, max, &rnd);
}
#endif
