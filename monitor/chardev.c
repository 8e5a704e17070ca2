/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections and the places they come from: see chardev.h.
 *
 * Descriptors stay as they are: standard output may be shared with a shell that would not like it
 * to become non-blocking. Sockets are asked not to wait call by call; anything else is written in
 * pieces that a pipe takes whole once poll() has said that it takes some.
 */
#include "monitor/chardev.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/co.h"
#include "core/mem.h"
#include "monitor/monitor.h"

/* How far we read ahead of the one who serves: so we notice soon that a client is gone, and no
 * client fills our memory. */
#define READ_AHEAD (64u << 10)
#define ACCEPT_AGAIN_NS (100 * NS_PER_MS)
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
    char *path;
    int fd; /* the listening socket, or the connected one; -1: none */
    dev_t device;
    ino_t inode; /* of the socket that we have bound */
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
    struct pollfd p = { .fd = c->out, .events = POLLOUT };
    ssize_t n;

    if (c->is_socket) {
        n = send(c->out, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (poll(&p, 1, 0) <= 0) {
        return 0;
    } else {
        n = write(c->out, data, MIN(len, (size_t)PIPE_BUF));
    }
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    return n;
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
    struct pollfd p = { .fd = c->in };
    ssize_t n;

    if (c->eof || c->read_len == READ_AHEAD) {
        return;
    }
    n = c->is_socket
            ? recv(c->in, c->read_buf + c->read_len, READ_AHEAD - c->read_len, MSG_DONTWAIT)
            : read(c->in, c->read_buf + c->read_len, READ_AHEAD - c->read_len);
    if (n > 0) {
        c->read_len += n;
    } else if (n == 0) {
        c->eof = true;
        /* A client may say that it has said all, and still listen. */
        if (c->is_socket && (poll(&p, 1, 0) < 0 || p.revents & (POLLHUP | POLLERR))) {
            conn_cut(c);
        }
    } else if (errno != EAGAIN && errno != EINTR) {
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
    int type;
    socklen_t len = sizeof(type);

    c->in = in;
    c->out = out;
    c->is_socket = in == out && getsockopt(in, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
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
        struct pollfd p = { .fd = c->out, .events = POLLOUT };

        poll(&p, 1, 10);
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
        close(c->in);
    }
    free(c->read_buf);
    free(c->unsent);
    free(c);
}

/* --- Places ----------------------------------------------------------------------------------- */

static int socket_address(const char *path, struct sockaddr_un *addr, struct error *err)
{
    *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!*path) {
        error_set(err, "chardev: socket: no path given");
        return -EINVAL;
    }
    if (strlen(path) >= sizeof(addr->sun_path)) {
        error_set(err, "UNIX socket path '%s' is too long", path);
        error_hint(err, "Path must be less than %zu bytes", sizeof(addr->sun_path));
        return -ENAMETOOLONG;
    }
    strcpy(addr->sun_path, path);
    return 0;
}

/* A socket that a program which died has left behind. */
static bool is_left_over(const struct sockaddr_un *addr)
{
    struct stat st;
    int fd, ret;

    if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ret = fd < 0 ? 0 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    return ret == ECONNREFUSED;
}

static int listen_at(struct chardev *dev, const struct sockaddr_un *addr, struct error *err)
{
    struct stat st;
    int ret;

    if (is_left_over(addr)) {
        unlink(addr->sun_path);
    }
    dev->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The mode of the socket becomes that of its name: never is it open for others, not even for an
     * instant. */
    if (dev->fd < 0 || fchmod(dev->fd, 0600) < 0) {
        error_set_errno(err, errno, "Failed to create Unix socket");
        return -1;
    }
    ret = bind(dev->fd, (const struct sockaddr *)addr, sizeof(*addr));
    if (ret < 0) {
        error_set_errno(err, errno, "Failed to bind socket to %s", dev->path);
        return -1;
    }
    if (lstat(dev->path, &st) == 0) {
        dev->device = st.st_dev;
        dev->inode = st.st_ino;
    }
    if (listen(dev->fd, 8) < 0) {
        error_set_errno(err, errno, "Failed to listen on socket");
        return -1;
    }
    return 0;
}

static int connect_to(struct chardev *dev, const struct sockaddr_un *addr, struct error *err)
{
    dev->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (dev->fd < 0) {
        error_set_errno(err, errno, "Failed to create socket");
        return -1;
    }
    if (connect(dev->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
        error_set_errno(err, errno, "Failed to connect to '%s'", dev->path);
        return -1;
    }
    return 0;
}

static void remove_socket(struct chardev *dev)
{
    struct stat st;

    if (dev->inode && lstat(dev->path, &st) == 0 && st.st_dev == dev->device &&
        st.st_ino == dev->inode) {
        unlink(dev->path);
    }
}

void chardevs_remove_sockets(void)
{
    struct chardev *dev;

    LIST_FOREACH(dev, &chardevs, link) {
        remove_socket(dev);
    }
}

static void chardev_free(struct chardev *dev)
{
    if (dev->fd >= 0) {
        close(dev->fd);
    }
    remove_socket(dev);
    free(dev->path);
    free(dev);
}

/* The path from the root: the working directory may change. */
static char *whole_path(const char *path)
{
    AUTOFREE char *here = path[0] == '/' || !path[0] ? NULL : getcwd(NULL, 0);

    return here ? mem_printf("%s/%s", here, path) : mem_strdup(path);
}

struct chardev *chardev_open(const struct chardev_spec *spec, co_serve_fn *co_serve, void *arg,
                             struct error *err)
{
    struct chardev *dev = mem_zalloc(sizeof(*dev));
    struct sockaddr_un addr;
    int ret = 0;

    assert(spec->kind != CHARDEV_NONE);
    dev->kind = spec->kind;
    dev->fd = -1;
    dev->co_serve = co_serve;
    dev->arg = arg;
    if (spec->kind != CHARDEV_STDIO) {
        dev->path = mem_strdup(spec->path);
        ret = socket_address(spec->path, &addr, err);
    }
    if (!ret && spec->kind == CHARDEV_SERVER) {
        ret = listen_at(dev, &addr, err);
    } else if (!ret && spec->kind == CHARDEV_CLIENT) {
        ret = connect_to(dev, &addr, err);
    }
    if (ret < 0) {
        chardev_free(dev);
        return NULL;
    }
    if (dev->path) {
        char *whole = whole_path(dev->path);

        free(dev->path);
        dev->path = whole;
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
        int fd = accept4(dev->fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0) {
            return conn_new(fd, fd);
        }
        if (errno != EAGAIN && errno != ECONNABORTED) { /* no descriptor or no memory just now */
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
        dev->watch = loop_watch(dev->fd, 0, client_came, dev);
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
