/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections (see chardev.h): bytes both ways, kept while the other side does not take them.  Calls
 * to the host are core/socket.h's and core/stream.h's.
 */
#include "monitor/connection.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/mem.h"
#include "core/socket.h"
#include "core/stream.h"
#include "monitor/telnet.h"

/* How far we read ahead of the one who serves: so we notice soon that a client is gone, and no
 * client fills our memory. */
#define READ_AHEAD (64u << 10)
#define READ_PIECE 4096u /* through telnet */
/* At the end of the program, for what is unsent: milliseconds of real time. */
#define LAST_WORDS_MS 1000

struct conn {
    int in, out; /* the same for a socket; in is -1 where nothing comes from */
    bool is_socket;
    struct telnet *telnet; /* NULL: bytes as they are */
    bool eof;  /* nothing more comes in */
    bool gone; /* and nobody listens */
    char *read_buf;
    size_t read_len;
    char *unsent;
    size_t unsent_at, unsent_len, unsent_size; /* where it begins, how much of it, the buffer */
    struct loop_watch *in_watch, *out_watch; /* out_watch only where `out` is another descriptor; both NULL for a file */
    struct co *waiter;                       /* the one who serves */
    loop_fn *on_gone;
    void *on_gone_arg;
};

static bool ending;

/* --- Connections: both ways ------------------------------------------------------------------- */

static void wake(struct co **who)
{
    struct co *co = *who;

    *who = NULL;
    if (co) {
        co_wake(co);
    }
}

static void update_watches(struct conn *c)
{
    unsigned in = !c->eof && c->read_len < READ_AHEAD ? LOOP_READ : 0,
             out = c->unsent_len ? LOOP_WRITE : 0;

    if (c->gone) {
        in = out = 0;
    }
    if (c->out_watch) {
        loop_watch_events(c->in_watch, in);
        loop_watch_events(c->out_watch, out);
    } else if (c->in_watch) {
        loop_watch_events(c->in_watch, in | out);
    }
}

void conn_cut(struct conn *c)
{
    assert(!c->gone);
    c->gone = c->eof = true;
    c->unsent_len = c->unsent_at = 0;
    update_watches(c);
    wake(&c->waiter);
    if (c->on_gone) {
        c->on_gone(c->on_gone_arg);
    }
}

/* Bytes taken, 0 when it takes none now, or -errno. */
static ssize_t send_some(struct conn *c, const char *data, size_t len)
{
    ssize_t n;

    if (!c->is_socket) {
        return stream_write(c->out, data, len);
    }
    n = socket_send(c->out, data, len);
    return n == -EAGAIN ? 0 : n;
}

static void send_unsent(struct conn *c)
{
    while (c->unsent_len) { /* none when it is gone */
        ssize_t n = send_some(c, c->unsent + c->unsent_at, c->unsent_len);

        if (n < 0) {
            conn_cut(c);
            return;
        }
        if (n == 0) {
            return;
        }
        c->unsent_at += n;
        c->unsent_len -= n;
    }
    if (c->unsent_size > READ_AHEAD) { /* a rare big answer */
        free(c->unsent);
        c->unsent = NULL;
        c->unsent_size = 0;
    }
    c->unsent_at = 0;
}

static void write_raw(struct conn *c, const void *data, size_t len)
{
    if (c->gone || !len) {
        return;
    }
    if (c->unsent_at + c->unsent_len + len > c->unsent_size) {
        if (c->unsent_len) {
            memmove(c->unsent, c->unsent + c->unsent_at, c->unsent_len);
        }
        c->unsent_at = 0;
        if (c->unsent_len + len > c->unsent_size) {
            c->unsent_size = MAX(2 * c->unsent_size, c->unsent_len + len);
            c->unsent = mem_realloc(c->unsent, c->unsent_size);
        }
    }
    memcpy(c->unsent + c->unsent_at + c->unsent_len, data, len);
    c->unsent_len += len;
    if (c->unsent_len == len) { /* else it takes nothing now, and we shall hear when it does */
        send_unsent(c);
    }
    update_watches(c);
}

void conn_write(struct conn *c, const void *data, size_t len)
{
    if (c->telnet) {
        AUTOFREE char *bytes = telnet_encode(c->telnet, data, &len);

        write_raw(c, bytes, len);
    } else {
        write_raw(c, data, len);
    }
}

size_t conn_unsent(const struct conn *c)
{
    return c->unsent_len;
}

static void note_end(struct conn *c, ssize_t n)
{
    if (n == 0) {
        c->eof = true;
        /* A client may say that it has said all, and still listen. */
        if (c->is_socket && socket_hung_up(c->in)) {
            conn_cut(c);
        }
    } else if (n < 0 && n != -EAGAIN) {
        conn_cut(c);
    }
}

static void receive(struct conn *c)
{
    size_t room = READ_AHEAD - c->read_len;
    ssize_t n;

    if (c->eof || c->read_len >= READ_AHEAD) {
        return;
    }
    if (c->telnet) {
        char piece[READ_PIECE];
        struct telnet_output answer = { 0 };

        n = socket_receive(c->in, piece, sizeof(piece));
        if (n > 0) {
            c->read_len += telnet_decode(c->telnet, piece, n, c->read_buf + c->read_len, &answer);
            write_raw(c, answer.bytes, answer.len);
            free(answer.bytes);
        }
    } else {
        char *at = c->read_buf + c->read_len;

        n = c->is_socket ? socket_receive(c->in, at, room) : stream_read(c->in, at, room);
        c->read_len += n > 0 ? n : 0;
    }
    note_end(c, n);
}

static void conn_ready(void *arg, unsigned events)
{
    struct conn *c = arg;

    if (events & LOOP_WRITE) {
        send_unsent(c);
    }
    if (events & LOOP_READ) {
        receive(c);
    }
    if (!c->gone) {
        update_watches(c);
    }
    wake(&c->waiter);
}

size_t co_conn_read(struct conn *c, void *buf, size_t size)
{
    size_t n;

    while (!c->read_len && !c->eof && !ending) {
        c->waiter = co_self();
        co_suspend();
    }
    if (ending || c->gone) {
        return 0;
    }
    n = MIN(size, c->read_len);
    memcpy(buf, c->read_buf, n);
    c->read_len -= n;
    memmove(c->read_buf, c->read_buf + n, c->read_len);
    update_watches(c);
    return n;
}

void co_conn_drain(struct conn *c, size_t level)
{
    while (c->unsent_len > level && !ending) { /* none when it is gone */
        c->waiter = co_self();
        co_suspend();
    }
}

void co_conn_wait_end(struct conn *c)
{
    while (!ending) {
        c->waiter = co_self();
        co_suspend();
    }
}

void conn_end(struct conn *c)
{
    wake(&c->waiter);
}

void conns_set_ending(bool on)
{
    ending = on;
}

void conn_on_gone(struct conn *c, loop_fn *fn, void *arg)
{
    c->on_gone = fn;
    c->on_gone_arg = arg;
}

bool conn_is_stdio(const struct conn *c)
{
    return c->in >= 0 && c->in != c->out;
}

struct conn *conn_new(int in, int out, enum conn_form form)
{
    struct conn *c = mem_zalloc(sizeof(*c));

    c->in = in;
    c->out = out;
    c->is_socket = in == out;
    c->read_buf = mem_alloc(READ_AHEAD + READ_PIECE + TELNET_LINE_MAX);
    if (in >= 0) {
        c->in_watch = loop_watch(in, LOOP_READ, conn_ready, c);
    }
    if (in >= 0 && out != in) {
        c->out_watch = loop_watch(out, 0, conn_ready, c);
    }
    if (form != CONN_PLAIN) {
        struct telnet_output hello = { 0 };

        c->telnet = telnet_new(form == CONN_TELNET_LINES, &hello);
        write_raw(c, hello.bytes, hello.len);
        free(hello.bytes);
    }
    return c;
}

/* The program ends: right here, so that it ends soon on the virtual clock too, and also when the
 * loop has nothing else to do. */
static void send_last_words(struct conn *c)
{
    for (int ms = 0; c->unsent_len && ms < LAST_WORDS_MS; ms += 10) {
        stream_writable(c->out, 10);
        send_unsent(c);
    }
}

void co_conn_close(struct conn *c)
{
    co_conn_drain(c, 0);
    send_last_words(c);
    if (c->in_watch) {
        loop_unwatch(c->in_watch);
    }
    if (c->out_watch) {
        loop_unwatch(c->out_watch);
    } else if (c->in < 0) {
        stream_close(c->out);
    } else {
        socket_close(c->in);
    }
    telnet_free(c->telnet);
    free(c->read_buf);
    free(c->unsent);
    free(c);
}
