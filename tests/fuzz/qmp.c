/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QMP session: bytes of JSON in any pieces, commands with any arguments.
 *
 * An input is what the client sends, behind a byte that says in what pieces.  The session is compiled in under other names,
 * so that it talks to the connection below instead of a socket.  Demanded besides F1 to F4: each line of the answer is a
 * JSON object of one of the four kinds.
 */
#define co_conn_read fuzz_co_conn_read
#define co_conn_drain fuzz_co_conn_drain
#define co_conn_wait_end fuzz_co_conn_wait_end
#define conn_write fuzz_conn_write
#define conn_unsent fuzz_conn_unsent
#define conn_cut fuzz_conn_cut
#define conn_on_gone fuzz_conn_on_gone
#define conn_is_stdio fuzz_conn_is_stdio
#define co_qmp_serve fuzz_co_qmp_serve
#define co_qmp_serve_pretty fuzz_co_qmp_serve_pretty
#define qmp_event fuzz_qmp_event
#define qmp_negotiate fuzz_qmp_negotiate
#define co_qmp_human fuzz_co_qmp_human

#include "monitor/qmp.c"

#include "tests/fuzz/lib/monitor-bench.h"
#include "tests/fuzz/lib/monitor-words.h"

struct conn {
    struct fuzz_input *in;
    size_t piece;
    char *out;
    size_t out_len, out_size;
    bool done;
};

size_t co_conn_read(struct conn *c, void *buf, size_t size)
{
    size_t n = MIN(MIN(size, c->piece), c->in->len);

    co_yield();
    fuzz_take(c->in, buf, n);
    return n;
}

void conn_write(struct conn *c, const void *data, size_t len)
{
    if (c->out_len + len > c->out_size) {
        c->out_size = 2 * (c->out_len + len);
        c->out = mem_realloc(c->out, c->out_size);
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
}

size_t conn_unsent(const struct conn *c)
{
    return 0;
}

void co_conn_drain(struct conn *c, size_t level)
{
}

void conn_cut(struct conn *c)
{
    fuzz_fail("a client that reads is cut off");
}

void conn_on_gone(struct conn *c, loop_fn *fn, void *arg)
{
}

bool conn_is_stdio(const struct conn *c)
{
    return false;
}

void co_conn_wait_end(struct conn *c)
{
}

static CO_ENTRY void co_serve(void *arg)
{
    static struct monitor_style style;
    struct conn *c = arg;

    fuzz_co_qmp_serve(c, &style);
    c->done = true;
}

static void check_line(const char *line, size_t len)
{
    json_t *tree = json_loadb(line, len, 0, NULL);

    FUZZ_CHECK(json_object_get(tree, "return") || json_object_get(tree, "error") || json_object_get(tree, "event") ||
                   json_object_get(tree, "QMP"),
               "no answer: %.*s", (int)len, line);
    json_decref(tree);
}

static void check_answers(const struct conn *c)
{
    const char *at = c->out, *end = c->out + c->out_len, *stop;

    for (; at < end; at = stop + 1) {
        stop = memchr(at, '\n', end - at);
        FUZZ_CHECK(stop, "half a line");
        /* Deep answers and names with a NUL in them are beyond jansson. */
        if (stop - at < 4000 && !memmem(at, stop - at, "\\u0000", 6)) {
            check_line(at, stop - at);
        }
    }
}

static void run(struct fuzz_input *in)
{
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}\n";
    uint8_t how = fuzz_u8(in);
    AUTOFREE char *bytes = mem_zalloc(sizeof(hello) + in->len);
    size_t len = how & 0x80 ? 0 : sizeof(hello) - 1;

    if (bench_refuses((const char *)in->data, in->len)) {
        return;
    }
    memcpy(bytes, hello, len);
    memcpy(bytes + len, in->data, in->len);
    struct fuzz_input all = { (uint8_t *)bytes, len + in->len };
    struct conn c = { .in = &all, .piece = how & 0x7f ? how & 0x7f : 4096 };

    bench_begin();
    co_start(co_serve, &c);
    for (unsigned i = 0; !c.done; i++) {
        struct monitor *mon;

        FUZZ_CHECK(i < 2000, "a session does not end");
        fuzz_settle();
        LIST_FOREACH(mon, &all_monitors, link) {
            if (!c.done) {
                monitor_interrupt(mon);
            }
        }
    }
    bench_end();
    check_answers(&c);
    free(c.out);
}

/* A command from the tables, or bytes. */
static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    return random_below(rnd, 4) ? fuzz_mutate_lines(data, len, max, 1, fuzz_qmp_command, rnd) : fuzz_mutate_bytes(data, len, max, rnd);
}

const struct fuzz_target fuzz_target = {
    .name = "qmp",
    .set_up = bench_set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 2048,
};
