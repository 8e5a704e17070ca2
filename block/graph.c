/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The graph of nodes: the list of all, names, references, edges.
 *
 * Everything here walks chains with loops, never recursively: a chain may be 1,000 deep.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/disk.h"
#include "block/file.h"
#include "block/node.h"
#include "block/permission.h"
#include "core/mem.h"

struct node_list all_nodes = TAILQ_HEAD_INITIALIZER(all_nodes);
struct node_list opening_nodes = TAILQ_HEAD_INITIALIZER(opening_nodes);

static const struct driver *const no_drivers[] = { NULL };
static const struct driver *const *drivers = no_drivers;

void node_set_drivers(const struct driver *const *list)
{
    drivers = list;
}

const struct driver *const *driver_list(void)
{
    return drivers;
}

const struct driver *driver_find(const char *name)
{
    for (const struct driver *const *d = drivers; *d; d++) {
        if (strcmp((*d)->name, name) == 0) {
            return *d;
        }
    }
    return NULL;
}

struct node *node_find(const char *name)
{
    struct node *node;

    TAILQ_FOREACH(node, &all_nodes, link) {
        if (node_alive(node) && strcmp(node->name, name) == 0) {
            return node;
        }
    }
    return NULL;
}

bool node_alive(const struct node *node)
{
    return node->refs > 0;
}

struct node *node_ref(struct node *node)
{
    assert(node_alive(node));
    node->refs++;
    return node;
}

void node_unref_shared(struct node *node)
{
    assert(node->refs > 1);
    node->refs--;
}

struct io_file *node_host_file(struct node *node)
{
    while (node && !node->driver->host_file) {
        node = node->file;
    }
    return node ? node->driver->host_file(node) : NULL;
}

void node_note_host_discard(struct node *file, uint64_t len, int ret)
{
    if (ret < 0) {
        file->stats.host_discards_failed++;
    } else {
        file->stats.host_discards++;
        file->stats.host_discarded_bytes += len;
    }
}

int node_depth(const struct node *top, const struct node *below)
{
    int depth = 0;

    for (const struct node *n = top; n; n = n->backing, depth++) {
        if (n == below) {
            return depth;
        }
    }
    return -1;
}

const struct node *node_parent(const struct node *node)
{
    const struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->file == node || n->backing == node) {
            return n;
        }
    }
    return NULL;
}

int node_check_free(const struct node *node, struct error *err)
{
    if (!node->busy_reason) {
        return 0;
    }
    error_set(err, "Node '%s' is busy: %s", disk_or_node_name(node), node->busy_reason);
    return -EBUSY;
}

static void node_destroy(struct node *node)
{
    assert(node->in_flight == 0 && LIST_EMPTY(&node->requests) && LIST_EMPTY(&node->layer_of));
    assert(!node->map);
    TAILQ_REMOVE(&all_nodes, node, link);
    node_event_listeners -= node->driver->event != NULL;
    json_decref(node->options);
    free(node->name);
    free(node->filename);
    free(node->backing_name);
    free(node->backing_format);
    free(node);
}

/* Children are let go of by a list instead of recursion: what is still to be unreferenced, the file of a node before
 * what lies below it. */
void co_node_unref(struct node *node)
{
    struct node **todo = NULL;
    size_t count = 0;
    bool shared = false;

    while (node || count) {
        node = node ? node : todo[--count];
        assert(node->refs > 0);
        if (--node->refs > 0) {
            shared = true;
            node = NULL;
            continue;
        }
        struct node *backing = node->backing;
        struct node *file = node->file;

        node_drop_stand_in(node);
        if (node->state) {
            node->driver->co_close(node);
        }
        node->backing = node->file = NULL;
        node_destroy(node);
        if (backing && file) {
            todo = mem_reallocarray(todo, count + 1, sizeof(struct node *));
            todo[count++] = backing;
        }
        node = file ? file : backing;
    }
    free(todo);
    if (shared) {
        permissions_settle(NULL); /* what others still use is used by fewer */
    }
}

void co_node_let_go(struct node *node)
{
    if (node && node->refs > 1) {
        node->refs--;
    } else {
        co_node_unref(node);
    }
}

void node_measure_nesting(struct node *node)
{
    unsigned file = node->file ? node->file->nesting + 1 : 0, below = 0;

    if (node->backing) {
        below = node->backing->nesting + node->backing->driver->is_filter;
    }
    node->nesting = MAX(file, below);
}

int node_check_nesting(const struct node *node, struct error *err)
{
    if (node->nesting > NODE_NESTING_MAX) {
        error_set(err, "Cannot stack more than %d nodes on each other", NODE_NESTING_MAX);
        return -ELOOP;
    }
    return 0;
}

void co_node_set_backing_edge(struct node *node, struct node *below)
{
    struct node *old = node->backing;

    node->backing = below ? node_ref(below) : NULL;
    node_measure_nesting(node);
    chain_map_relink(node);
    co_node_unref(old);
    permissions_settle(NULL); /* asked for before, where somebody may refuse */
}

/* A driver that lets go of what it needs for writing has nobody inside: a flush would still look at it. */
static int co_switch(struct node *node, bool writable, struct error *err)
{
    int ret = 0;

    if (!writable) {
        co_node_close_door(node);
    }
    if (node->driver->co_set_writable) {
        ret = node->driver->co_set_writable(node, writable, err);
    }
    if (ret == 0) {
        node->read_only = !writable;
    }
    if (!writable) {
        node_open_door(node);
    }
    return ret;
}

static void want_write(struct node **path, size_t n, bool on)
{
    for (size_t i = 0; i < n; i++) {
        path[i]->wants_write += on ? 1 : -1;
    }
}

/* Files have a life of their own that somebody else has made. */
static struct node *own_file(const struct node *node, bool own)
{
    return own && node->file && node->file->monitor_owned ? NULL : node->file;
}

/* The files first on the way up and last on the way down: a writer never stands above what cannot be written.  The permission to
 * write is there before anybody can, and until nobody can any more. */
static int co_set_writable(struct node *node, bool writable, bool own, struct error *err)
{
    struct node **path = NULL;
    size_t n = 0, done = 0;
    int ret = 0;

    for (struct node *at = node; at; at = own_file(at, own)) {
        if (at->read_only == writable) {
            path = mem_reallocarray(path, n + 1, sizeof(struct node *));
            path[n++] = at;
        }
    }
    want_write(path, n, true);
    if (writable && n) {
        ret = permissions_of_writer(node, err);
    }
    while (done < n && ret == 0) {
        ret = co_switch(path[writable ? n - 1 - done : done], writable, err);
        done += ret == 0;
    }
    while (ret < 0 && done > 0) {
        done--;
        co_switch(path[writable ? n - 1 - done : done], !writable, NULL);
    }
    want_write(path, n, false);
    if (n) {
        permissions_of_writer(node, NULL);
    }
    free(path);
    return ret;
}

int co_node_open_for_writing(struct node *file, struct error *err)
{
    return file->read_only ? co_switch(file, true, err) : 0;
}

int co_node_set_writable(struct node *node, bool writable, struct error *err)
{
    return co_set_writable(node, writable, false, err);
}

int co_node_set_own_read_only(struct node *node, struct error *err)
{
    return co_set_writable(node, false, true, err);
}

int co_node_truncate(struct node *node, uint64_t size, struct error *err)
{
    struct node_drain *drain;
    int ret;

    if (size > NODE_SIZE_MAX) {
        error_set(err, "offset(%llu) exceeds maximum(%llu)", (unsigned long long)size, (unsigned long long)NODE_SIZE_MAX);
        return -EFBIG;
    }
    if (node->read_only) {
        error_set(err, "Image is read-only");
        return -EACCES;
    }
    if (!node->driver->co_truncate) {
        error_set(err, "Image format driver does not support resize");
        return -ENOTSUP;
    }
    drain = co_node_drain_begin(node);
    ret = node->driver->co_truncate(node, size, err);
    chain_map_forget_layer(node);
    node_size_changed(node);
    co_node_drain_end(drain);
    return ret;
}

int co_node_look_at_size(struct node *node, struct error *err)
{
    struct node *path[NODE_NESTING_MAX + 1];
    size_t n = 0;
    int ret;

    for (; node->driver->passes_permissions; node = node->file) {
        path[n++] = node;
    }
    ret = node->driver == &driver_file ? co_file_look_at_size(node) : 0;
    if (ret < 0) {
        error_set_errno(err, ret, "Could not get the size of '%s'", node->filename);
        return ret;
    }
    while (n-- > 0) {
        uint64_t before = path[n]->size;

        if (path[n]->driver->follow_size) {
            path[n]->driver->follow_size(path[n]);
        } else {
            path[n]->size = path[n]->file->size;
        }
        if (path[n]->size != before) {
            chain_map_forget_layer(path[n]);
        }
    }
    return 0;
}

void node_size_changed(struct node *node)
{
    struct node *n;
    bool more = true;

    while (more) { /* filters stand on filters */
        more = false;
        TAILQ_FOREACH(n, &all_nodes, link) {
            if (n->driver->is_filter && n->size != n->file->size) {
                n->size = n->file->size;
                chain_map_forget_layer(n);
                more = true;
            }
        }
    }
}
