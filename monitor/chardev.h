/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where monitors live: standard input and output, files, and sockets (unix, TCP, telnet over TCP).  Each client that comes is
 * served by a coroutine that reads and writes a connection as if it were a file; nothing here knows
 * what is said.
 *
 * A server socket has one client at a time, as in QEMU; others wait in the kernel's queue and are
 * served when the one before them has gone.
 *
 * A client that does not read cannot hold up the program.  What is written to it is kept, and the
 * side that serves it has two means against too much of it: to take no further command before the
 * client has read (co_conn_drain()), and to cut the connection (conn_cut()).
 */
#ifndef MONITOR_CHARDEV_H
#define MONITOR_CHARDEV_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/loop.h"

/* --- Connections ------------------------------------------------------------------------------ */

struct conn;
/* At most `size` bytes; 0 at the end: the client sends no more, or the program ends.  Suspends. */
size_t co_conn_read(struct conn *c, void *buf, size_t size);
/* Send, or keep what cannot be sent at once.  Nothing happens when the client is gone. */
void conn_write(struct conn *c, const void *data, size_t len);
size_t conn_unsent(const struct conn *c);
/* Suspends until at most `level` bytes are unsent, the client is gone, or the program ends. */
void co_conn_drain(struct conn *c, size_t level);
/* Forget what is unsent and send and read no more.  Not one that is gone. */
void conn_cut(struct conn *c);
/* Call fn(arg) when the client is gone; NULL: nobody.  It may be called from within conn_write().
 */
void conn_on_gone(struct conn *c, loop_fn *fn, void *arg);
/* Standard input and output? */
bool conn_is_stdio(const struct conn *c);
/* Suspends until chardevs_end(). */
void co_conn_wait_end(struct conn *c);

/* --- Places ----------------------------------------------------------------------------------- */

enum chardev_kind { CHARDEV_NONE, CHARDEV_STDIO, CHARDEV_SERVER, CHARDEV_CLIENT, CHARDEV_FILE };
/* All texts owned, NULL where not given. */
struct chardev_spec {
    enum chardev_kind kind;
    char *id;
    char *path;              /* of the unix socket, or of the file */
    char *host, *port, *to;  /* port not NULL: TCP (core/socket.h) */
    bool ipv4, ipv6, nodelay;
    bool wait;   /* CHARDEV_SERVER: the program is to wait for the first client */
    bool telnet; /* speaks telnet */
    bool lines;  /* telnet: for a person, who wants to see and edit what is typed */
    bool append; /* CHARDEV_FILE */
};
void chardev_spec_free(struct chardev_spec *spec); /* its texts */
/* Converses with one client; the connection ends when it returns. */
typedef void co_serve_fn(struct conn *c, void *arg);

struct chardev;
/* Bind or connect.  A server's socket is for its owner alone (mode 0600) and replaces one that
 * nobody listens to any more. NULL with QEMU's words in err. */
struct chardev *chardev_open(const struct chardev_spec *spec, co_serve_fn *co_serve, void *arg,
                             struct error *err);
/* "unix:/run/x,server=on", "telnet:127.0.0.1:4444,server=on", "stdio", ...; the device's. */
const char *chardev_name(const struct chardev *dev);
/* There is one of this name that leads nowhere. */
void chardev_note_null(const char *id);
/* All of them: [{"label", "filename", "frontend-open"}], as QMP's query-chardev has it; new reference. */
json_t *chardev_list(void);
/* For a place that nobody uses: what comes is read and forgotten. */
void co_idle_serve(struct conn *c, void *arg);
/* Take clients from now on; those that came earlier have waited. */
void chardev_start(struct chardev *dev);
/* Suspends until the first client is there.  0, or -ECANCELED when the program is to end. */
int co_chardev_wait_client(struct chardev *dev);
/* The end of the program: conversations are ended, what is unsent is given a second, sockets are
 * removed.  Suspends. */
void co_chardevs_end(void);
/* Only remove the sockets' names: for a program that cannot end in order. */
void chardevs_remove_sockets(void);

#endif
