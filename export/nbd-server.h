/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: one listening unix socket, named exports, any number of clients.
 *
 *     nbd_server_start("/run/x.sock")         one server at a time, as in QEMU's monitor
 *     nbd_export_add({name, disk ...})  --->  exports, in the list below
 *          ^                                      ^
 *          | client: "GO name"                    |
 *     session (nbd-session.h) --------------------+   one per connection, several per export
 *
 * An export of a disk follows the disk's root, so snapshots and merges run underneath; an export of any other node holds
 * a reference to it.  When a disk goes, an export of its id goes as well; one of a node that the disk only happened to
 * have goes on with the node.  A client's errors are reported to the client: neither the disk's error policy nor its statistics
 * are touched, for they belong to the guest.  Only the latency targets of jobs see how long a client waits.
 *
 * The socket is for its owner alone (mode 0600).  There is no TLS.
 */
#ifndef EXPORT_NBD_SERVER_H
#define EXPORT_NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/disk.h"
#include "block/permission.h"
#include "core/co.h"
#include "core/error.h"

struct nbd_export {
    TAILQ_ENTRY(nbd_export) link;
    char *id;              /* unique among exports; QEMU's block export id */
    char *name;            /* what clients ask for; unique on the server */
    char *description;     /* NULL: none */
    struct disk *disk;     /* follow this disk's root, as long as it is there, or */
    struct disk_follower follower;
    struct node *node;     /* this very node (owned reference), */
    struct chain_map *map; /* whose map is kept filled */
    struct node_user user; /* what it does with the node */
    bool writable;
    bool closing;          /* no new client; those there are being cut off */
    unsigned sessions;     /* clients that have chosen it */
    struct co_queue idle;  /* waits for sessions == 0 */
};
TAILQ_HEAD(nbd_export_list, nbd_export);
extern struct nbd_export_list nbd_exports; /* newest first */

/* Bind and listen.  `max_clients` 0: any number; what exceeds it waits in the kernel's queue.  A socket that a dead
 * program left behind is replaced.  0 or -errno. */
int nbd_server_start(const char *path, unsigned max_clients, struct error *err);
bool nbd_server_running(void);
/* Remove all exports, cut all clients off, remove the socket.  Suspends until the last request has ended.  -EINVAL when
 * none runs. */
int co_nbd_server_stop(struct error *err);
/* The end of the program: as above, and no error when none runs. */
void co_nbd_server_end(void);

struct nbd_export_spec {
    const char *id;          /* NULL: the name */
    const char *name;
    const char *description; /* NULL: none */
    struct disk *disk;       /* or NULL, and */
    struct node *node;       /* a node */
    bool writable;           /* where the disk is */
};
/* Make it known to clients.  0 or -errno: no server, names taken or too long. */
int nbd_export_add(const struct nbd_export_spec *spec, struct error *err);
struct nbd_export *nbd_export_find(const char *id);
/* -EBUSY when clients use it, unless `hard`: then they are cut off.  Suspends until their last request has ended. */
int co_nbd_export_remove(struct nbd_export *e, bool hard, struct error *err);
/* All exports of the disk, in that way: a drive without its medium has none.  Suspends. */
void co_nbd_end_exports_of(const struct disk *disk);
/* Who wants to hear that an export is gone; NULL: nobody. */
void nbd_on_export_deleted(void (*fn)(const char *id));

/* A client's read or write took from `started_ns` until now: to jobs that have a latency target it is a guest as any other. */
void nbd_export_took(struct nbd_export *e, uint64_t started_ns);
/* The node that requests go to at this moment: suspends while a disk is being drained.  NULL: no medium.  Use it before
 * suspending otherwise. */
struct node *co_nbd_export_root(struct nbd_export *e);
uint64_t nbd_export_size(const struct nbd_export *e); /* bytes */
uint16_t nbd_export_flags(const struct nbd_export *e, bool structured);

#endif
