/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets (see socket.h).
 */
#include "core/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/mem.h"

static int unix_address(const char *path, struct sockaddr_un *addr, struct error *err)
{
    *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(addr->sun_path)) {
        error_set(err, "UNIX socket path '%s' is too long", path);
        error_hint(err, "Path must be less than %zu bytes", sizeof(addr->sun_path));
        return -ENAMETOOLONG;
    }
    strcpy(addr->sun_path, path);
    return 0;
}

/* --- Listening -------------------------------------------------------------------------------- */

/* A name that a program which died has left behind makes room; anything else stays and lets bind()
 * complain. */
static void remove_left_over(const struct sockaddr_un *addr)
{
    struct stat st;
    int fd;

    if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
        errno == ECONNREFUSED) {
        unlink(addr->sun_path);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static char *whole_path(const char *path)
{
    AUTOFREE char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);

    return here ? mem_printf("%s/%s", here, path) : mem_strdup(path);
}

/* `l` has a socket and no name yet. */
static int bind_and_listen(struct socket_listener *l, const struct sockaddr_un *addr, int backlog,
                           struct error *err)
{
    struct stat st;
    int ret;

    /* Whatever the caller's umask: never is the socket open for others, not even for an instant, and always
     * for its owner.  A file that a worker makes meanwhile is its owner's alone, too. */
    mode_t before = umask(0177);
    ret = bind(l->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
    umask(before);
    if (ret < 0) {
        error_set_errno(err, ret, "Failed to bind socket to %s", addr->sun_path);
        return ret;
    }
    l->path = whole_path(addr->sun_path);
    if (lstat(addr->sun_path, &st) == 0) {
        l->device = st.st_dev;
        l->inode = st.st_ino;
    }
    if (listen(l->fd, backlog) < 0) {
        ret = -errno;
        error_set_errno(err, ret, "Failed to listen on socket");
        return ret;
    }
    return 0;
}

int socket_listen_unix(struct socket_listener *l, const char *path, int backlog,
                       struct error *err)
{
    struct sockaddr_un addr;
    int ret;

    *l = SOCKET_LISTENER_INIT;
    ret = unix_address(path, &addr, err);
    if (ret < 0) {
        return ret;
    }
    remove_left_over(&addr);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0) {
        ret = -errno;
        error_set_errno(err, ret, "Failed to create Unix socket");
        return ret;
    }
    ret = bind_and_listen(l, &addr, backlog, err);
    if (ret < 0) {
        socket_listener_close(l);
    }
    return ret;
}

int socket_accept(const struct socket_listener *l)
{
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        return fd;
    }
    return errno == EINTR || errno == ECONNABORTED ? -EAGAIN : -errno;
}

void socket_remove_name(struct socket_listener *l)
{
    struct stat st;

    /* Somebody else's socket of that name stays. */
    if (l->inode && lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode) {
        unlink(l->path);
    }
    l->inode = 0;
}

void socket_listener_close(struct socket_listener *l)
{
    if (l->fd >= 0) {
        close(l->fd);
        socket_remove_name(l);
        free(l->path);
        *l = SOCKET_LISTENER_INIT;
    }
}

/* --- Connections ------------------------------------------------------------------------------ */

int socket_connect_unix(const char *path, struct error *err)
{
    struct sockaddr_un addr;
    int ret = unix_address(path, &addr, err), fd;

    if (ret < 0) {
        return ret;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        ret = -errno;
        error_set_errno(err, ret, "Failed to create socket");
        return ret;
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        ret = -errno;
        error_set_errno(err, ret, "Failed to connect to '%s'", path);
        close(fd);
        return ret;
    }
    return fd;
}

/* --- The internet ------------------------------------------------------------------------------ */

static const char *inet_host(const struct socket_inet *place)
{
    return place->host && *place->host ? place->host : NULL;
}

static int inet_look_up(const struct socket_inet *place, const char *port, struct addrinfo **out, struct error *err)
{
    struct addrinfo hints = {
        .ai_family = place->ipv4 == place->ipv6 ? AF_UNSPEC : place->ipv4 ? AF_INET : AF_INET6,
        .ai_socktype = SOCK_STREAM,
    };
    const char *host = inet_host(place);
    int ret;

    if (!host && hints.ai_family == AF_UNSPEC) { /* what people type when they connect to it */
        hints.ai_family = AF_INET;
    }
    ret = getaddrinfo(host, port, &hints, out);
    if (ret) {
        error_set(err, "address resolution failed for %s:%s: %s", place->host ? place->host : "", port,
                  gai_strerror(ret));
        return -EINVAL;
    }
    return 0;
}

static int inet_socket(const struct addrinfo *at, bool listens)
{
    int on = 1, fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | (listens ? SOCK_NONBLOCK : 0), 0);

    if (fd >= 0 && listens) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    return fd;
}

/* On the first address that will have us: a descriptor or -errno. */
static int inet_bind(const struct addrinfo *list, int backlog)
{
    int ret = -EADDRNOTAVAIL;

    for (const struct addrinfo *at = list; at; at = at->ai_next) {
        int fd = inet_socket(at, true);

        if (fd >= 0 && bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, backlog) == 0) {
            return fd;
        }
        ret = -errno;
        if (fd >= 0) {
            close(fd);
        }
    }
    return ret;
}

int socket_listen_inet(struct socket_listener *l, const struct socket_inet *place, int backlog,
                       struct error *err)
{
    unsigned long first = strtoul(place->port, NULL, 10), last = place->to ? strtoul(place->to, NULL, 10) : first;
    int ret;

    *l = SOCKET_LISTENER_INIT;
    for (unsigned long port = first;; port++) {
        AUTOFREE char *number = port == first ? mem_strdup(place->port) : mem_printf("%lu", port);
        struct addrinfo *list;

        ret = inet_look_up(place, number, &list, err);
        if (ret < 0) {
            return ret;
        }
        l->fd = ret = inet_bind(list, backlog);
        freeaddrinfo(list);
        if (ret >= 0) {
            return 0;
        }
        l->fd = -1;
        if (port >= last) {
            error_set_errno(err, ret, "Failed to find an available port");
            return ret;
        }
    }
}

int socket_connect_inet(const struct socket_inet *place, struct error *err)
{
    struct addrinfo *list;
    int on = 1, fd = -1, ret = inet_look_up(place, place->port, &list, err);

    if (ret < 0) {
        return ret;
    }
    for (const struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        fd = inet_socket(at, false);
        if (fd < 0 || connect(fd, at->ai_addr, at->ai_addrlen) < 0) {
            ret = -errno;
            if (fd >= 0) {
                close(fd);
            }
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        error_set_errno(err, ret, "Failed to connect to '%s:%s'", place->host ? place->host : "", place->port);
        return ret;
    }
    if (place->nodelay) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return fd;
}

char *socket_listener_name(const struct socket_listener *l)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (l->path) {
        return mem_strdup(l->path);
    }
    if (getsockname(l->fd, (struct sockaddr *)&addr, &len) < 0 ||
        getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        return mem_strdup("?");
    }
    return mem_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

void socket_close(int fd)
{
    close(fd);
}

void socket_shut_down(int fd)
{
    shutdown(fd, SHUT_RDWR);
}

void socket_set_send_buffer(int fd, int bytes)
{
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

bool socket_hung_up(int fd)
{
    struct pollfd p = { .fd = fd };

    return poll(&p, 1, 0) < 0 || p.revents & (POLLHUP | POLLERR);
}

/* --- Bytes ------------------------------------------------------------------------------------ */

static ssize_t moved(ssize_t n)
{
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

ssize_t socket_send(int fd, const void *data, size_t len)
{
    return moved(send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

ssize_t socket_sendv(int fd, const struct iovec *iov, size_t n)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };

    return moved(sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

ssize_t socket_receive(int fd, void *buf, size_t len)
{
    return moved(recv(fd, buf, len, MSG_DONTWAIT));
}

ssize_t socket_receivev(int fd, const struct iovec *iov, size_t n)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };

    return moved(recvmsg(fd, &msg, MSG_DONTWAIT));
}
