/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections and the places they come from: see chardev.h.  Calls to the host are core/socket.h's
 * and core/stream.h's.
 */
#include "monitor/chardev.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/co.h"
#include "core/mem.h"
#include "core/socket.h"
#include "core/stream.h"
#include "monitor/monitor.h"

/* How far we read ahead of the one who serves: so we notice soon that a client is gone, and no
 * client fills our memory. */
#define READ_AHEAD (64u << 10)
#define ACCEPT_AGAIN_NS (100 * NS_PER_MS)
#define BACKLOG 8
/* At the end of the program, for what is unsent: milliseconds of real time. */
#define LAST_WORDS_MS 1000

struct conn {
    int in, out; /* the same for a socket */
    bool is_socket;
    bool eof;  /* nothing more comes in */
    bool gone; /* and nobody listens */
    char *read_buf;
    size_t read_len;
    char *unsent;
    size_t unsent_at, unsent_len, unsent_size; /* where it begins, how much of it, the buffer */
    struct loop_watch *in_watch, *out_watch; /* out_watch only where `out` is another descriptor */
    struct co *waiter;                       /* the one who serves */
    loop_fn *on_gone;
    void *on_gone_arg;
};

struct chardev {
    LIST_ENTRY(chardev) link;
    enum chardev_kind kind;
    struct socket_listener listener; /* CHARDEV_SERVER */
    int fd;                          /* CHARDEV_CLIENT: connected, and not served yet; -1: none */
    co_serve_fn *co_serve;
    void *arg;
    struct loop_watch *watch;
    struct co *acceptor; /* waits for a client */
    struct conn *conn;   /* the client there is */
    bool had_client, started, ended;
};

static LIST_HEAD(, chardev) chardevs = LIST_HEAD_INITIALIZER(chardevs);
static bool ending;
/* co_chardevs_end() waits for a place to end. */
static struct co_queue end_queue = CO_QUEUE_INIT(end_queue);

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
    } else {
        loop_watch_events(c->in_watch, in | out);
    }
}

void conn_cut(struct conn *c)
{
    if (!c->gone) {
        c->gone = c->eof = true;
        c->unsent_len = c->unsent_at = 0;
        update_watches(c);
        wake(&c->waiter);
        if (c->on_gone) {
            c->on_gone(c->on_gone_arg);
        }
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
    while (c->unsent_len && !c->gone) {
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

void conn_write(struct conn *c, const void *data, size_t len)
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

size_t conn_unsent(const struct conn *c)
{
    return c->unsent_len;
}

static void receive(struct conn *c)
{
    char *at = c->read_buf + c->read_len;
    size_t room = READ_AHEAD - c->read_len;
    ssize_t n;

    if (c->eof || !room) {
        return;
    }
    n = c->is_socket ? socket_receive(c->in, at, room) : stream_read(c->in, at, room);
    if (n > 0) {
        c->read_len += n;
    } else if (n == 0) {
        c->eof = true;
        /* A client may say that it has said all, and still listen. */
        if (c->is_socket && socket_hung_up(c->in)) {
            conn_cut(c);
        }
    } else if (n != -EAGAIN) {
        conn_cut(c);
    }
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
    while (c->unsent_len > level && !c->gone && !ending) {
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

void conn_on_gone(struct conn *c, loop_fn *fn, void *arg)
{
    c->on_gone = fn;
    c->on_gone_arg = arg;
}

bool conn_is_stdio(const struct conn *c)
{
    return c->in != c->out;
}

static struct conn *conn_new(int in, int out)
{
    struct conn *c = mem_zalloc(sizeof(*c));

    c->in = in;
    c->out = out;
    c->is_socket = in == out && socket_is(in);
    c->read_buf = mem_alloc(READ_AHEAD);
    c->in_watch = loop_watch(in, LOOP_READ, conn_ready, c);
    if (out != in) {
        c->out_watch = loop_watch(out, 0, conn_ready, c);
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

static void co_conn_close(struct conn *c)
{
    co_conn_drain(c, 0);
    send_last_words(c);
    loop_unwatch(c->in_watch);
    if (c->out_watch) {
        loop_unwatch(c->out_watch);
    } else {
        socket_close(c->in);
    }
    free(c->read_buf);
    free(c->unsent);
    free(c);
}

/* --- Places ----------------------------------------------------------------------------------- */

void chardevs_remove_sockets(void)
{
    struct chardev *dev;

    LIST_FOREACH(dev, &chardevs, link) {
        socket_remove_name(&dev->listener);
    }
}

static void chardev_free(struct chardev *dev)
{
    if (dev->fd >= 0) {
        socket_close(dev->fd);
    }
    socket_listener_close(&dev->listener);
    free(dev);
}

struct chardev *chardev_open(const struct chardev_spec *spec, co_serve_fn *co_serve, void *arg,
                             struct error *err)
{
    struct chardev *dev = mem_zalloc(sizeof(*dev));
    int ret = 0;

    assert(spec->kind != CHARDEV_NONE);
    dev->kind = spec->kind;
    dev->listener = SOCKET_LISTENER_INIT;
    dev->fd = -1;
    dev->co_serve = co_serve;
    dev->arg = arg;
    if (spec->kind != CHARDEV_STDIO && !*spec->path) {
        error_set(err, "chardev: socket: no path given");
        ret = -EINVAL;
    } else if (spec->kind == CHARDEV_SERVER) {
        ret = socket_listen_unix(&dev->listener, spec->path, BACKLOG, err);
    } else if (spec->kind == CHARDEV_CLIENT) {
        ret = dev->fd = socket_connect_unix(spec->path, err);
    }
    if (ret < 0) {
        chardev_free(dev);
        return NULL;
    }
    LIST_INSERT_HEAD(&chardevs, dev, link);
    return dev;
}

static void client_came(void *arg, unsigned events)
{
    struct chardev *dev = arg;

    loop_watch_events(dev->watch, 0);
    wake(&dev->acceptor);
}

/* The next client, NULL when none will come. */
static struct conn *co_next_client(struct chardev *dev)
{
    if (dev->kind != CHARDEV_SERVER) {
        int fd = dev->fd;

        if (dev->had_client || ending) {
            return NULL;
        }
        dev->fd = -1; /* the connection's from now on */
        return dev->kind == CHARDEV_STDIO ? conn_new(STDIN_FILENO, STDOUT_FILENO)
                                          : conn_new(fd, fd);
    }
    while (!ending) {
        int fd = socket_accept(&dev->listener);

        if (fd >= 0) {
            return conn_new(fd, fd);
        }
        if (fd != -EAGAIN) { /* no descriptor or no memory just now */
            co_sleep_ns(ACCEPT_AGAIN_NS);
            continue;
        }
        dev->acceptor = co_self();
        loop_watch_events(dev->watch, LOOP_READ);
        co_suspend();
    }
    return NULL;
}

static CO_ENTRY void chardev_life(void *arg)
{
    struct chardev *dev = arg;
    struct conn *c;

    while ((c = co_next_client(dev))) {
        dev->conn = c;
        dev->had_client = true;
        monitor_wake_waiters();
        dev->co_serve(c, dev->arg);
        conn_on_gone(c, NULL, NULL);
        co_conn_close(c);
        dev->conn = NULL;
    }
    dev->ended = true;
    co_queue_wake_all(&end_queue);
}

void chardev_start(struct chardev *dev)
{
    dev->started = true;
    if (dev->kind == CHARDEV_SERVER) {
        dev->watch = loop_watch(dev->listener.fd, 0, client_came, dev);
    }
    co_start(chardev_life, dev);
}

static bool had_client(void *arg)
{
    struct chardev *dev = arg;

    return dev->had_client;
}

int co_chardev_wait_client(struct chardev *dev)
{
    return co_monitor_wait(NULL, had_client, dev, UINT64_MAX);
}

void co_chardevs_end(void)
{
    struct chardev *dev;

    ending = true;
    LIST_FOREACH(dev, &chardevs, link) {
        wake(&dev->acceptor);
        if (dev->conn) {
            wake(&dev->conn->waiter);
        }
    }
    while ((dev = LIST_FIRST(&chardevs))) {
        while (dev->started && !dev->ended) {
            co_queue_wait(&end_queue);
        }
        LIST_REMOVE(dev, link);
        if (dev->watch) {
            loop_unwatch(dev->watch);
        }
        chardev_free(dev);
    }
    ending = false;
}
