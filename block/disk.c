/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks: the error policy, the guest's statistics, and the way from a device to the root of a chain.
 *
 * A request looks at disk->root only at the moment it enters: a snapshot or the end of a job changes the root while it
 * is drained, and whoever waited for that goes on with the new one.
 */
#include "block/disk.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/filter.h"
#include "block/permission.h"
#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/trace.h"

struct disk_list all_disks = TAILQ_HEAD_INITIALIZER(all_disks);
static const struct block_listener *listener;

void block_set_listener(const struct block_listener *l)
{
    listener = l;
}

struct disk *disk_new(const char *id, struct node *root)
{
    struct disk *disk = mem_zalloc(sizeof(*disk));

    disk->id = mem_strdup(id);
    disk->label = mem_strdup(id);
    disk->shared = IO_PERM_ALL;
    disk->werror = DISK_ENOSPC;
    disk->rerror = DISK_REPORT;
    co_queue_init(&disk->stopped);
    LIST_INIT(&disk->followers);
    if (root) {
        disk->root = root;
        disk->read_only = root->read_only;
        disk->map = chain_map_get(root);
    }
    TAILQ_INSERT_TAIL(&all_disks, disk, link);
    return disk;
}

void disk_hold(struct disk *disk)
{
    disk->holders++;
}

void disk_release(struct disk *disk)
{
    assert(disk->holders > 0);
    if (--disk->holders > 0 || !disk->gone) {
        return;
    }
    free(disk->id);
    free(disk->label);
    free(disk->qdev);
    free(disk->place);
    free(disk);
}

void co_disk_free(struct disk *disk)
{
    struct disk_follower *f;

    assert(!disk->gone);
    assert(disk->in_flight == 0);
    while ((f = LIST_FIRST(&disk->followers))) {
        LIST_REMOVE(f, link);
        f->gone(f);
    }
    throttle_member_leave(&disk->throttle);
    TAILQ_REMOVE(&all_disks, disk, link);
    disk_hold(disk);
    disk->gone = true;
    co_disk_take_medium(disk);
    disk_release(disk);
}

const char *disk_user_name(const struct disk *disk)
{
    return *disk->id || !disk->place ? disk->label : disk->place;
}

int disk_set_limits(struct disk *disk, const char *group, const json_t *limits, struct error *err)
{
    const char *now = disk->throttle.group ? throttle_member_group(&disk->throttle) : NULL;
    struct throttle_limits wanted;

    throttle_limits_init(&wanted);
    if (throttle_limits_set(&wanted, limits, err) < 0) {
        return -EINVAL;
    }
    if (now && (!throttle_limits_any(&wanted) || strcmp(now, group) != 0)) {
        throttle_member_drain(&disk->throttle, true);
        throttle_member_drain(&disk->throttle, false);
        throttle_member_leave(&disk->throttle);
        now = NULL;
    }
    if (!throttle_limits_any(&wanted)) {
        return 0;
    }
    if (!now) {
        throttle_member_join(&disk->throttle, group, true, NULL);
    }
    throttle_member_set_limits(&disk->throttle, &wanted);
    return 0;
}

void disk_set_label(struct disk *disk, const char *label)
{
    free(disk->label);
    disk->label = mem_strdup(label);
}

json_t *disk_labels(void)
{
    const struct disk *disk;
    json_t *labels = json_array();

    TAILQ_FOREACH(disk, &all_disks, link) {
        json_array_append_new(labels, json_string(disk->label));
    }
    return labels;
}

struct disk *disk_find_label(const char *label)
{
    struct disk *disk = disk_find(label);

    if (disk) {
        return disk;
    }
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (!*disk->id && strcmp(disk->label, label) == 0) {
            return disk;
        }
    }
    return NULL;
}

struct disk *disk_find(const char *id)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (*id && strcmp(disk->id, id) == 0) {
            return disk;
        }
    }
    return NULL;
}

struct disk *disk_of_root(const struct node *root)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->root == root) {
            return disk;
        }
    }
    return NULL;
}

struct node *disk_or_node(const char *name, struct error *err)
{
    struct disk *disk = disk_find(name);
    struct node *node = disk ? disk->root : node_find(name);

    if (disk && !node) {
        error_set(err, "Device '%s' has no medium", name);
    } else if (!node) {
        error_set(err, "Cannot find device='%s' nor node-name='%s'", name, name);
    }
    return node;
}

const char *disk_or_node_name(const struct node *node)
{
    const struct disk *disk = disk_of_root(node);

    return disk && *disk->id ? disk->id : node->name;
}

void disk_set_root(struct disk *disk, struct node *root)
{
    assert(root->backing == disk->root);
    node_ref(root);
    disk->map = chain_map_raise(disk->map, root);
    co_queue_wake_all(&disk->root->drain_queue); /* they look for the new root */
    node_unref_shared(disk->root); /* the new root has a reference too */
    disk->root = root;
    permissions_settle(NULL); /* the snapshot has asked */
}

/* While the requests end a snapshot may give it another root, or somebody else be faster. */
void co_disk_take_medium(struct disk *disk)
{
    struct node_drain *drain;
    struct node *root;

    disk_hold(disk);
    while ((root = disk->root)) {
        drain = co_node_drain_begin(root);
        if (disk->root != root) {
            co_node_drain_end(drain);
            continue;
        }
        disk->root = NULL;
        chain_map_put(disk->map);
        disk->map = NULL;
        co_node_drain_end(drain); /* whoever waited finds that there is none */
        co_node_unref(root);
    }
    disk_release(disk);
}

int disk_put_medium(struct disk *disk, struct node *root, struct error *err)
{
    int ret;

    assert(!disk->root);
    disk->root = root;
    disk->read_only = root->read_only;
    ret = permissions_settle(err);
    if (ret < 0) {
        disk->root = NULL;
        return ret;
    }
    disk->map = chain_map_get(root);
    return 0;
}

bool disk_has_tray(const struct disk *disk)
{
    return disk->removable && disk->qdev;
}

uint64_t disk_size(const struct disk *disk)
{
    return disk->root ? disk->root->size : 0;
}

/* --- Requests --------------------------------------------------------------------------------------------------- */

struct disk_request {
    enum disk_op op;
    uint64_t offset, len;
    const struct iovec *iov;
    int n;
    bool zero, may_unmap;
};

/* Wait until the root lets requests in, then hand over in the same breath. */
static int co_attempt(struct disk *disk, const struct disk_request *req)
{
    while (disk->root && disk->root->drained) {
        co_queue_wait(&disk->root->drain_queue);
    }
    struct node *root = disk->root;

    if (!root) {
        return -ENOMEDIUM;
    }
    if (disk->read_only && (req->op == DISK_WRITE || req->op == DISK_UNMAP)) {
        return -EPERM; /* the node may be writable at the moment, for a job */
    }
    switch (req->op) {
    case DISK_READ:
        return co_node_read(root, req->offset, req->iov, req->n);
    case DISK_WRITE:
        if (req->zero) {
            return co_node_zero(root, req->offset, req->len, req->may_unmap ? NODE_MAY_UNMAP : 0);
        }
        return co_node_write(root, req->offset, req->iov, req->n);
    case DISK_FLUSH:
        return co_node_flush(root);
    default:
        return co_node_discard(root, req->offset, req->len);
    }
}

static const char *decide(struct disk *disk, bool is_read, int error)
{
    switch (is_read ? disk->rerror : disk->werror) {
    case DISK_IGNORE:
        return "ignore";
    case DISK_STOP:
        return "stop";
    case DISK_ENOSPC:
        return error == ENOSPC ? "stop" : "report";
    default:
        return "report";
    }
}

/* True when the request must be tried again (the machine was stopped for it and runs again). */
static bool co_failed(struct disk *disk, const struct disk_request *req, int *ret)
{
    bool is_read = req->op == DISK_READ;
    const char *action = decide(disk, is_read, -*ret);

    if (disk->cancelling && strcmp(action, "stop") == 0) {
        action = "report"; /* nobody is left to be told of a second try */
    }
    trace(TRACE_DISK_ERROR, "%s %s: %s, action %s", disk->label, is_read ? "read" : "write", strerror(-*ret), action);
    disk->stats.failed[req->op]++;
    if (strcmp(action, "stop") == 0) {
        disk->io_status_failed = true;
        disk->io_status_nospace = *ret == -ENOSPC;
    }
    if (listener && listener->io_error) {
        listener->io_error(disk, disk->root, is_read, action, -*ret);
    }
    if (strcmp(action, "stop") == 0) {
        disk->in_flight--; /* a request that waits for the operator does not count as one in flight */
        co_queue_wait(&disk->stopped);
        disk->in_flight++;
        *ret = disk->cancelling ? -ECANCELED : *ret;
        return !disk->cancelling;
    }
    if (strcmp(action, "ignore") == 0) {
        if (is_read) {
            iov_memset(req->iov, req->n, 0, 0, req->len);
        }
        *ret = 0;
    }
    return false;
}

static int co_request(struct disk *disk, const struct disk_request *req)
{
    uint64_t started = loop_now();
    unsigned tries = 0;
    int ret;

    disk->in_flight++;
    if (req->op == DISK_READ || req->op == DISK_WRITE) {
        co_throttle(&disk->throttle, req->op == DISK_WRITE, req->len);
    }
    do {
        ret = co_attempt(disk, req);
        tries++;
    } while (ret < 0 && ret != -ENOMEDIUM && co_failed(disk, req, &ret));
    disk->in_flight--;

    uint64_t took = loop_now() - started;
    disk->stats.last_access_ns = started + took;
    disk->stats.longest_ns = MAX(disk->stats.longest_ns, took);
    if (tries == 1) {
        latency_window_add(&disk->latencies, disk->stats.last_access_ns, took);
    }
    if (ret == 0) {
        disk->stats.ops[req->op]++;
        disk->stats.bytes[req->op] += req->len;
        disk->stats.total_ns[req->op] += took;
    }
    return ret;
}

int co_disk_read(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    struct disk_request req = { .op = DISK_READ, .offset = offset, .iov = iov, .n = n, .len = iov_size(iov, n) };
    return co_request(disk, &req);
}

int co_disk_write(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    struct disk_request req = { .op = DISK_WRITE, .offset = offset, .iov = iov, .n = n, .len = iov_size(iov, n) };
    return co_request(disk, &req);
}

int co_disk_zero(struct disk *disk, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct disk_request req = { .op = DISK_WRITE, .offset = offset, .len = len, .zero = true, .may_unmap = may_unmap };
    return co_request(disk, &req);
}

int co_disk_discard(struct disk *disk, uint64_t offset, uint64_t len)
{
    struct disk_request req = { .op = DISK_UNMAP, .offset = offset, .len = len };
    return co_request(disk, &req);
}

int co_disk_flush(struct disk *disk)
{
    struct disk_request req = { .op = DISK_FLUSH };
    return co_request(disk, &req);
}

void disk_account_invalid(struct disk *disk, enum disk_op op)
{
    trace(TRACE_GUEST_ERROR, "%s: a request out of range or of a wrong form", disk->label);
    disk->stats.invalid[op]++;
}

void disk_cancel(struct disk *disk, bool on)
{
    if (on != disk->cancelling) {
        throttle_member_drain(&disk->throttle, on);
    }
    disk->cancelling = on;
    if (on) {
        co_queue_wake_all(&disk->stopped);
    }
}

void disk_resume_all(void)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        disk->io_status_failed = disk->io_status_nospace = false;
        co_queue_wake_all(&disk->stopped);
    }
}

void node_report_corrupt(struct node *node, const char *msg, uint64_t offset, uint64_t size, bool fatal)
{
    struct disk *disk;
    const char *device = "";

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->root && node_depth(filter_skip(disk->root), node) >= 0) {
            device = disk->id;
            break;
        }
    }
    if (listener && listener->image_corrupted) {
        listener->image_corrupted(node, device, msg, offset, size, fatal);
    }
}
