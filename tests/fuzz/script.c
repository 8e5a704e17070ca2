/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scripts: comments, prefixes, `source` of themselves, waits and expectations.
 *
 * An input is a script, behind a byte with its settings: stop at the first failure, from a file (which it may source) or as
 * a text.
 */
#include "tests/fuzz/lib/monitor-bench.h"
#include "tests/fuzz/lib/monitor-words.h"

#include "monitor/script.h"

#define SCRIPT "/script"

struct script {
    struct monitor mon;
    unsigned how;
    char *text;
    bool done;
};

static CO_ENTRY void co_script(void *arg)
{
    struct script *s = arg;
    bool stop = s->how & 1;

    if (s->how & 2) {
        (void)co_script_file(&s->mon, SCRIPT, stop);
    } else {
        (void)co_script_text(&s->mon, "-c", s->text, stop);
    }
    s->done = true;
}

static void run(struct fuzz_input *in)
{
    struct script s = { .mon = { .name = "fuzz", .write = bench_write }, .how = fuzz_u8(in) };

    if (bench_refuses((const char *)in->data, in->len)) {
        return;
    }
    io_sim_create(SCRIPT, 0);
    io_sim_write(SCRIPT, 0, in->data, in->len);
    s.text = fuzz_text(in, in->len, 0);
    bench_begin();
    monitor_init(&s.mon);
    co_start(co_script, &s);
    for (unsigned i = 0; !s.done; i++) {
        FUZZ_CHECK(i < 2000, "a script does not end");
        fuzz_settle();
        if (!s.done) {
            monitor_interrupt(&s.mon);
        }
    }
    bench_end();
    monitor_fini(&s.mon);
    free(s.text);
}

/* A command from the tables, or bytes. */
static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    return random_below(rnd, 4) ? fuzz_mutate_lines(data, len, max, 1, fuzz_human_line, rnd) : fuzz_mutate_bytes(data, len, max, rnd);
}

const struct fuzz_target fuzz_target = {
    .name = "script",
    .set_up = bench_set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 1024,
};
