/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets (see socket.h).
 */
#include "core/socket.h"

#include <errno.h>
#include <poll.h>
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

    /* The mode of the socket becomes that of its name: never is it open for others, not even for an
     * instant. */
    if (fchmod(l->fd, 0600) < 0 || bind(l->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
        ret = -errno;
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

bool socket_is(int fd)
{
    int type;
    socklen_t len = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
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
