/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server's socket and its exports: see nbd-server.h.
 */
#include "export/nbd-server.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "core/mem.h"
#include "core/socket.h"
#include "export/nbd-session.h"

#define BACKLOG 64
#define ACCEPT_AGAIN_NS (100 * NS_PER_MS) /* after a lack of descriptors, say */

struct nbd_export_list nbd_exports = TAILQ_HEAD_INITIALIZER(nbd_exports);

static struct nbd_server {
    struct socket_listener listener;
    unsigned max_clients, clients;
    struct loop_watch *watch; /* NULL: not running */
    struct loop_timer again;
} server;
static bool ending; /* no new one before the last client of the old one has gone */
static struct co_queue session_ended = CO_QUEUE_INIT(session_ended);
static struct co_queue export_gone = CO_QUEUE_INIT(export_gone);
static void (*on_deleted)(const char *id);

void nbd_on_export_deleted(void (*fn)(const char *id))
{
    on_deleted = fn;
}

bool nbd_server_running(void)
{
    return server.watch;
}

/* --- Clients --------------------------------------------------------------------------------------------------------------- */

static void listen_on(void)
{
    bool full = server.max_clients && server.clients >= server.max_clients;

    if (server.watch) {
        loop_watch_events(server.watch, full || loop_timer_armed(&server.again) ? 0 : LOOP_READ);
    }
}

static void client_left(void)
{
    server.clients--;
    listen_on();
    co_queue_wake_all(&session_ended);
}

static void accept_again(void *arg)
{
    listen_on();
}

static void client_came(void *arg, unsigned events)
{
    int fd = socket_accept(&server.listener);

    if (fd >= 0) {
        server.clients++;
        nbd_session_start(fd, client_left);
    } else if (fd != -EAGAIN) {
        loop_timer_arm(&server.again, loop_now() + ACCEPT_AGAIN_NS);
    }
    listen_on();
}

/* --- The socket ------------------------------------------------------------------------------------------------------------ */

int nbd_server_start(const char *path, unsigned max_clients, struct error *err)
{
    int ret;

    if (nbd_server_running() || ending) {
        error_set(err, "NBD server already running");
        return -EBUSY;
    }
    if (!*path) {
        error_set(err, "invalid Unix socket address");
        return -EINVAL;
    }
    ret = socket_listen_unix(&server.listener, path, BACKLOG, err);
    if (ret < 0) {
        return ret;
    }
    server.max_clients = max_clients;
    loop_timer_init(&server.again, accept_again, NULL);
    server.watch = loop_watch(server.listener.fd, 0, client_came, NULL);
    listen_on();
    return 0;
}

static void stop_listening(void)
{
    loop_timer_cancel(&server.again);
    loop_unwatch(server.watch);
    server.watch = NULL;
    socket_listener_close(&server.listener);
}

void co_nbd_server_end(void)
{
    struct nbd_session *s;
    struct nbd_export *e;

    ending = true;
    if (nbd_server_running()) {
        stop_listening();
    }
    LIST_FOREACH(s, &nbd_sessions, link) {
        nbd_session_die(s);
    }
    while ((e = TAILQ_FIRST(&nbd_exports))) {
        co_nbd_export_remove(e, true, NULL);
    }
    while (server.clients) { /* also those that had chosen nothing */
        co_queue_wait(&session_ended);
    }
    ending = false;
}

int co_nbd_server_stop(struct error *err)
{
    if (!nbd_server_running()) {
        error_set(err, "NBD server not running");
        return -EINVAL;
    }
    co_nbd_server_end();
    return 0;
}

/* --- Exports ----------------------------------------------------------------------------------------------------------------- */

struct nbd_export *nbd_export_find(const char *id)
{
    struct nbd_export *e;

    TAILQ_FOREACH(e, &nbd_exports, link) {
        if (!strcmp(e->id, id)) {
            return e;
        }
    }
    return NULL;
}

static int check_spec(const struct nbd_export_spec *spec, struct error *err)
{
    struct nbd_export *e;

    if (!nbd_server_running()) {
        error_set(err, "NBD server not running");
        return -EINVAL;
    }
    if (strlen(spec->name) > NBD_STRING_MAX) {
        error_set(err, "export name '%s' too long", spec->name);
        return -EINVAL;
    }
    if (spec->description && strlen(spec->description) > NBD_STRING_MAX) {
        error_set(err, "description '%s' too long", spec->description);
        return -EINVAL;
    }
    TAILQ_FOREACH(e, &nbd_exports, link) {
        if (!strcmp(e->name, spec->name)) {
            error_set(err, "NBD server already has export named '%s'", spec->name);
            return -EEXIST;
        }
    }
    return 0;
}

static CO_ENTRY void co_remove_by_id(void *arg)
{
    AUTOFREE char *id = arg;
    struct nbd_export *e = nbd_export_find(id);

    if (e) {
        co_nbd_export_remove(e, true, NULL);
    }
}

static void fix_node(struct nbd_export *e, struct node *node)
{
    e->node = node_ref(node);
    e->map = chain_map_get(node);
}

static void disk_gone(struct disk_follower *follower)
{
    struct nbd_export *e = CONTAINER_OF(follower, struct nbd_export, follower);
    struct disk *disk = e->disk;

    e->disk = e->user.disk = NULL;
    if (disk->root) {
        fix_node(e, disk->root);
    }
    if (*disk->id || !disk->root) {
        co_start_later(co_remove_by_id, mem_strdup(e->id));
    }
}

int nbd_export_add(const struct nbd_export_spec *spec, struct error *err)
{
    const char *id = spec->id ? spec->id : spec->name;
    struct nbd_export *e;
    int ret;

    assert(spec->disk || spec->node);
    if (nbd_export_find(id)) {
        error_set(err, "Block export id '%s' is already in use", id);
        return -EEXIST;
    }
    ret = check_spec(spec, err);
    if (ret < 0) {
        return ret;
    }
    e = mem_zalloc(sizeof(*e));
    e->user = (struct node_user){
        .disk = spec->disk,
        .node = spec->disk ? NULL : spec->node,
        .used = IO_PERM_CONSISTENT_READ | (spec->writable ? IO_PERM_WRITE : 0),
        .shared = IO_PERM_ALL & ~(unsigned)IO_PERM_RESIZE,
    };
    ret = node_use(&e->user, err);
    if (ret < 0) {
        free(e);
        return ret;
    }
    e->id = mem_strdup(id);
    e->name = mem_strdup(spec->name);
    e->description = mem_strdup(spec->description);
    e->disk = spec->disk;
    if (e->disk) {
        e->follower.gone = disk_gone;
        LIST_INSERT_HEAD(&e->disk->followers, &e->follower, link);
    } else {
        fix_node(e, spec->node);
    }
    e->writable = spec->writable;
    co_queue_init(&e->idle);
    TAILQ_INSERT_HEAD(&nbd_exports, e, link);
    return 0;
}

/* `wanted` may have been freed: it is looked for, not looked at. */
static bool is_being_removed(const struct nbd_export *wanted)
{
    struct nbd_export *e;

    TAILQ_FOREACH(e, &nbd_exports, link) {
        if (e == wanted) {
            return e->closing;
        }
    }
    return false;
}

int co_nbd_export_remove(struct nbd_export *e, bool hard, struct error *err)
{
    struct nbd_session *s;

    if (!hard && e->sessions) {
        error_set(err, "export '%s' still in use", e->id);
        return -EBUSY;
    }
    if (e->closing) { /* somebody else does it already */
        while (is_being_removed(e)) {
            co_queue_wait(&export_gone);
        }
        return 0;
    }
    e->closing = true;
    LIST_FOREACH(s, &nbd_sessions, link) {
        if (s->export == e) {
            nbd_session_die(s);
        }
    }
    while (e->sessions) {
        co_queue_wait(&e->idle);
    }
    TAILQ_REMOVE(&nbd_exports, e, link);
    if (e->disk) {
        LIST_REMOVE(&e->follower, link);
    }
    node_unuse(&e->user);
    chain_map_put(e->map);
    if (e->node) {
        co_node_unref(e->node);
    }
    if (on_deleted) {
        on_deleted(e->id);
    }
    free(e->id);
    free(e->name);
    free(e->description);
    free(e);
    co_queue_wake_all(&export_gone);
    return 0;
}

void co_nbd_end_exports_of(const struct disk *disk)
{
    struct nbd_export *e;

again:
    TAILQ_FOREACH(e, &nbd_exports, link) {
        if (e->disk == disk) {
            co_nbd_export_remove(e, true, NULL);
            goto again; /* the list may be another one now */
        }
    }
}

void nbd_export_took(struct nbd_export *e, uint64_t started_ns)
{
    uint64_t now = loop_now();

    if (e->disk) {
        latency_window_add(&e->disk->latencies, now, now - started_ns);
    }
}

struct node *co_nbd_export_root(struct nbd_export *e)
{
    while (e->disk && e->disk->root && e->disk->root->drained) {
        co_queue_wait(&e->disk->root->drain_queue);
    }
    return e->disk ? e->disk->root : e->node;
}

uint64_t nbd_export_size(const struct nbd_export *e)
{
    return e->disk ? disk_size(e->disk) : e->node ? e->node->size : 0;
}

uint16_t nbd_export_flags(const struct nbd_export *e, bool structured)
{
    /* Several connections: a flush on any of them makes durable what was done on all. */
    return NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN | NBD_SEND_CACHE | (structured ? NBD_SEND_DF : 0) |
           (e->writable ? NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO : NBD_READ_ONLY);
}
