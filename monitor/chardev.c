/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where connections come from: see chardev.h.  Calls to the host are core/socket.h's and
 * core/stream.h's.
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
#include "monitor/connection.h"
#include "monitor/monitor.h"

#define ACCEPT_AGAIN_NS (100 * NS_PER_MS)

struct chardev {
    LIST_ENTRY(chardev) link;
    enum chardev_kind kind;
    enum conn_form form;
    char *id, *name;                 /* NULL: none; "unix:/run/x,server=on" */
    struct socket_listener listener; /* CHARDEV_SERVER */
    int fd;                          /* CHARDEV_CLIENT, CHARDEV_FILE: open, and not served yet; -1: none */
    co_serve_fn *co_serve;
    void *arg;
    struct loop_watch *watch;
    struct co *acceptor; /* waits for a client */
    struct conn *conn;   /* the client there is */
    bool had_client, started, ended;
};

static LIST_HEAD(, chardev) chardevs = LIST_HEAD_INITIALIZER(chardevs);
static json_t *nulls;
static unsigned unnamed; /* made by -monitor and -qmp, without an id */
static bool ending;
/* co_chardevs_end() waits for a place to end. */
static struct co_queue end_queue = CO_QUEUE_INIT(end_queue);

/* --- Places ----------------------------------------------------------------------------------- */

void chardevs_remove_sockets(void)
{
    struct chardev *dev;

    LIST_FOREACH(dev, &chardevs, link) {
        socket_remove_name(&dev->listener);
    }
}

void chardev_spec_free(struct chardev_spec *spec)
{
    char *texts[] = { spec->id, spec->path, spec->host, spec->port, spec->to };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        free(texts[i]);
    }
    *spec = (struct chardev_spec){ .kind = CHARDEV_NONE };
}

static void chardev_free(struct chardev *dev)
{
    if (dev->fd >= 0) {
        socket_close(dev->fd);
    }
    socket_listener_close(&dev->listener);
    free(dev->id);
    free(dev->name);
    free(dev);
}

static int open_file(struct chardev *dev, const struct chardev_spec *spec, struct error *err)
{
    int ret = dev->fd = stream_create(spec->path, spec->append);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not open '%s'", spec->path);
    }
    return ret;
}

static int open_socket(struct chardev *dev, const struct chardev_spec *spec, struct error *err)
{
    struct socket_inet inet = {
        .host = spec->host, .port = spec->port, .to = spec->to,
        .ipv4 = spec->ipv4, .ipv6 = spec->ipv6, .nodelay = spec->nodelay,
    };

    if (!spec->port && !*spec->path) {
        error_set(err, "chardev: socket: no path given");
        return -EINVAL;
    }
    if (spec->kind == CHARDEV_SERVER) {
        return spec->port ? socket_listen_inet(&dev->listener, &inet, SOCKET_BACKLOG_MOST, err)
                          : socket_listen_unix(&dev->listener, spec->path, SOCKET_BACKLOG_MOST, err);
    }
    return dev->fd = spec->port ? socket_connect_inet(&inet, err) : socket_connect_unix(spec->path, err);
}

static char *describe(const struct chardev *dev, const struct chardev_spec *spec)
{
    const char *kind = spec->telnet ? "telnet" : spec->port ? "tcp" : "unix";
    AUTOFREE char *bound = NULL;

    switch (spec->kind) {
    case CHARDEV_SERVER:
        bound = spec->port ? socket_listener_name(&dev->listener) : mem_strdup(spec->path);
        return mem_printf("%s:%s,server=on", kind, bound);
    case CHARDEV_CLIENT:
        return spec->port ? mem_printf("%s:%s:%s", kind, spec->host, spec->port)
                          : mem_printf("%s:%s", kind, spec->path);
    case CHARDEV_FILE:
        return mem_strdup("file");
    default:
        return mem_strdup("stdio");
    }
}

struct chardev *chardev_open(const struct chardev_spec *spec, co_serve_fn *co_serve, void *arg,
                             struct error *err)
{
    struct chardev *dev = mem_zalloc(sizeof(*dev));
    int ret = 0;

    assert(spec->kind != CHARDEV_NONE);
    dev->kind = spec->kind;
    dev->form = !spec->telnet ? CONN_PLAIN : spec->lines ? CONN_TELNET_LINES : CONN_TELNET;
    dev->listener = SOCKET_LISTENER_INIT;
    dev->fd = -1;
    dev->co_serve = co_serve;
    dev->arg = arg;
    if (spec->kind == CHARDEV_FILE) {
        ret = open_file(dev, spec, err);
    } else if (spec->kind != CHARDEV_STDIO) {
        ret = open_socket(dev, spec, err);
    }
    if (ret < 0) {
        chardev_free(dev);
        return NULL;
    }
    dev->id = spec->id ? mem_strdup(spec->id) : mem_printf("compat_monitor%u", unnamed++);
    dev->name = describe(dev, spec);
    LIST_INSERT_HEAD(&chardevs, dev, link);
    return dev;
}

void chardev_note_null(const char *id)
{
    nulls = nulls ? nulls : json_array();
    json_array_insert_new(nulls, 0, json_pack("{s:b, s:s, s:s}", "frontend-open", 0, "filename", "null", "label", id));
}

json_t *chardev_list(void)
{
    const struct chardev *dev;
    json_t *list = nulls ? json_deep_copy(nulls) : json_array();

    LIST_FOREACH(dev, &chardevs, link) {
        bool idle = dev->kind == CHARDEV_SERVER && !dev->conn;
        AUTOFREE char *name = mem_printf("%s%s", idle ? "disconnected:" : "", dev->name);

        json_array_append_new(list, json_pack("{s:b, s:s, s:s}", "frontend-open", dev->co_serve != co_idle_serve,
                                              "filename", name, "label", dev->id));
    }
    return list;
}

const char *chardev_name(const struct chardev *dev)
{
    return dev->name;
}

void co_idle_serve(struct conn *c, void *arg)
{
    char buf[4096];

    while (co_conn_read(c, buf, sizeof(buf))) {
        /* nobody listens */
    }
}

static void wake(struct co **who)
{
    struct co *co = *who;

    *who = NULL;
    if (co) {
        co_wake(co);
    }
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

        if (dev->had_client) {
            return NULL;
        }
        dev->fd = -1; /* the connection's from now on */
        return dev->kind == CHARDEV_STDIO  ? conn_new(STDIN_FILENO, STDOUT_FILENO, CONN_PLAIN)
               : dev->kind == CHARDEV_FILE ? conn_new(-1, fd, CONN_PLAIN)
                                           : conn_new(fd, fd, dev->form);
    }
    while (!ending) {
        int fd = socket_accept(&dev->listener);

        if (fd >= 0) {
            return conn_new(fd, fd, dev->form);
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
    conns_set_ending(true);
    LIST_FOREACH(dev, &chardevs, link) {
        wake(&dev->acceptor);
        if (dev->conn) {
            conn_end(dev->conn);
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
    json_decref(nulls);
    nulls = NULL;
    ending = false;
    conns_set_ending(false);
}
