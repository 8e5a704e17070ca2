/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets: bound, connected, accepted, written to and read from.  All calls to the host about them
 * are in socket.c; the rest of the program has descriptors and these functions.
 *
 * Nothing here waits, but for connecting to a place: who has to wait watches the descriptor
 * (core/loop.h).  Every descriptor is closed on exec.
 *
 * A unix socket that we make is for its owner alone (mode 0600) from its first instant on, replaces
 * one that nobody listens to any more, and its name is taken away with it, unless the name is
 * somebody else's by then.
 */
#ifndef CORE_SOCKET_H
#define CORE_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/error.h"

struct socket_listener {
    int fd;     /* -1: none */
    char *path; /* owned; from the root, since the working directory may change; NULL: no name */
    uint64_t device, inode; /* of the name that we have made; 0: we have made none */
};
#define SOCKET_LISTENER_INIT ((struct socket_listener){ .fd = -1 })

/* A backlog: as many clients wait as the host lets, which cuts it down to what it can (net.core.somaxconn). */
#define SOCKET_BACKLOG_MOST 4096

/* Bind and listen: 0; or -errno, QEMU's words in err, and `l` as SOCKET_LISTENER_INIT. */
int socket_listen_unix(struct socket_listener *l, const char *path, int backlog,
                       struct error *err);
/* A place on the internet.  All texts borrowed. */
struct socket_inet {
    const char *host; /* NULL or "": this machine alone (loopback) */
    const char *port; /* a number or a service's name; "0": any that is free, to listen */
    const char *to;   /* to listen: the last port to try; NULL: only `port` */
    bool ipv4, ipv6;  /* only this; neither or both: either */
    bool nodelay;     /* send small pieces at once */
};
/* Bind and listen, as above; and connect, as below.  Names are looked up, which may take its time. */
int socket_listen_inet(struct socket_listener *l, const struct socket_inet *place, int backlog,
                       struct error *err);
int socket_connect_inet(const struct socket_inet *place, struct error *err);
/* "127.0.0.1:4444", "[::1]:4444", or the path: what the socket is bound to.  malloc'ed. */
char *socket_listener_name(const struct socket_listener *l);
/* The next client's socket; or -errno: -EAGAIN when nobody waits (or has gone meanwhile), another
 * one when there are not the means to take it now. */
int socket_accept(const struct socket_listener *l);
/* Take the name away, and listen on: for a program that cannot end in order. */
void socket_remove_name(struct socket_listener *l);
/* Take the name away and close; nothing on one that is closed. */
void socket_listener_close(struct socket_listener *l);

/* A connected socket, or -errno and QEMU's words in err. */
int socket_connect_unix(const char *path, struct error *err);
void socket_close(int fd);
/* Tell both sides that nothing more comes and goes; the descriptor stays. */
void socket_shut_down(int fd);
/* Ask the host to keep so many bytes for the other side; it may keep fewer. */
void socket_set_send_buffer(int fd, int bytes);
bool socket_hung_up(int fd); /* has the other side gone, and does not even listen? */

/* Bytes moved, or -errno; -EAGAIN: not now.  0 from a receive is the end.  `n` is at most IOV_MAX.
 * A client that has gone is -EPIPE, never a signal. */
ssize_t socket_send(int fd, const void *data, size_t len);
ssize_t socket_sendv(int fd, const struct iovec *iov, size_t n);
ssize_t socket_receive(int fd, void *buf, size_t len);
ssize_t socket_receivev(int fd, const struct iovec *iov, size_t n);

#endif
