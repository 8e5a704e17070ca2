/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of the human monitor.
 *
 * An input is lines; its first byte says whether the monitor is QEMU's double (--qemu-compat).  Demanded besides F1 to F4:
 * no control character is printed as it came.
 */
#include "tests/fuzz/lib/monitor-bench.h"
#include "tests/fuzz/lib/monitor-words.h"

#define LINES_MAX 12u

struct talk {
    struct fuzz_input *in;
    struct monitor mon;
    bool done;
};

static CO_ENTRY void co_talk(void *arg)
{
    struct talk *t = arg;

    for (unsigned n = 0; n < LINES_MAX && fuzz_more(t->in) && !t->mon.interrupted; n++) {
        AUTOFREE char *line = fuzz_text(t->in, 4096, '\n');

        if (!bench_refuses(line, strlen(line))) {
            (void)co_hmp_run(&t->mon, line);
        }
    }
    t->done = true;
}

static void run(struct fuzz_input *in)
{
    struct talk t = {
        .mon = { .name = "fuzz", .compat = fuzz_u8(in) & 1, .write = bench_write },
        .in = in,
    };

    bench_begin();
    monitor_init(&t.mon);
    co_start(co_talk, &t);
    for (unsigned i = 0; !t.done; i++) {
        FUZZ_CHECK(i < 1000, "a line does not end");
        fuzz_settle();
        if (!t.done) {
            monitor_interrupt(&t.mon);
        }
    }
    bench_end();
    monitor_fini(&t.mon);
}

/* A command from the tables, or bytes. */
static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    return random_below(rnd, 4) ? fuzz_mutate_lines(data, len, max, 1, fuzz_human_line, rnd) : fuzz_mutate_bytes(data, len, max, rnd);
}

const struct fuzz_target fuzz_target = {
    .name = "hmp",
    .set_up = bench_set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 1024,
};
