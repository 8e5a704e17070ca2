/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots (see snapshot.h).
 *
 * Order: (1) the overlay is made and is durable, directory entry included; (2) what the old root holds is flushed while
 * the guest goes on, more than once if that takes long; (3) the disk is drained; what came in since (2) is written
 * back, the old root becomes read-only, the edge and the disk's root change; (4) the guest goes on.  An error in (1) to
 * (3) leaves the chain as it was and removes the overlay that was made.
 */
#include "block/snapshot.h"

#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/file.h"
#include "block/filter.h"
#include "block/path.h"
#include "block/permission.h"
#include "core/loop.h"
#include "core/mem.h"

struct plan {
    const struct snapshot_args *args;
    struct disk *disk;         /* held: it may go while we wait */
    struct node *root;         /* own reference */
    const struct driver *driver;
    bool made_file; /* ours to remove on failure */
    struct node *overlay;      /* own reference */
    struct node_drain *drain;
    bool busy;                 /* root and overlay are marked */
    bool frozen;               /* the root is read-only now because of us */
    struct node_user below;    /* what the overlay will need of the root */
    bool held;                 /* is said */
};

/* A flush that is as short as it gets, and how many are tried for one. */
#define SHORT_NS NS_PER_MS
#define FLUSHES_MAX 3

#define BUSY_REASON "block device is in use by a snapshot"

/* For two nodes that are there already. */
static int find_root_node(struct plan *plan, struct error *err)
{
    plan->root = disk_or_node(plan->args->node, err);
    return plan->root ? 0 : -ENOENT;
}

/* What is no disk may still be a node. */
static int find_root(struct plan *plan, struct error *err)
{
    const struct snapshot_args *args = plan->args;
    const char *device = args->device ? args->device : "";
    const char *node = args->node_name ? args->node_name : "";

    plan->disk = *device ? disk_find(device) : NULL;
    if (plan->disk) {
        plan->root = plan->disk->root;
        if (!plan->root) {
            error_set(err, "Device '%s' has no medium", device);
            return -ENOMEDIUM;
        }
    } else {
        plan->root = node_find(node);
    }
    if (!plan->root) {
        error_set(err, "Cannot find device='%s' nor node-name='%s'", device, node);
        return -ENOENT;
    }
    return 0;
}

static int check_names(const struct snapshot_args *args, struct error *err)
{
    if (args->node_name && !args->snapshot_node_name) {
        error_set(err, "New overlay node-name missing");
        return -EINVAL;
    }
    if (args->snapshot_node_name && (node_find(args->snapshot_node_name) || disk_find(args->snapshot_node_name))) {
        error_set(err, "New overlay node-name already in use");
        return -EEXIST;
    }
    return 0;
}

/* Who stands on this node, if it is not a disk's root? */
static const struct node *overlay_of(const struct node *node)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->backing == node) {
            return n;
        }
    }
    return NULL;
}

static int check(struct plan *plan, struct error *err)
{
    const char *format = plan->args->format ? plan->args->format : "qcow2";
    const struct node *over;

    if (node_check_free(plan->root, err) < 0) {
        return -EBUSY;
    }
    if (!plan->disk) {
        plan->disk = disk_of_root(plan->root);
    }
    over = overlay_of(plan->root);
    if (over) {
        error_set(err, "Node '%s' is busy: node is used as backing hd of '%s'", plan->root->name, over->name);
        return -EBUSY;
    }
    if (plan->args->overlay) {
        return 0;
    }
    if (check_names(plan->args, err) < 0) {
        return -EINVAL;
    }
    plan->driver = driver_find(format);
    if (!plan->driver && plan->args->reuse) {
        error_set(err, "Unknown driver '%s'", format);
        return -EINVAL;
    }
    if (plan->driver && !plan->args->reuse && !plan->driver->supports_backing) {
        error_set(err, "Backing file not supported for file format '%s'", format);
        return -ENOTSUP;
    }
    if (!plan->driver || plan->driver->is_protocol) {
        error_set(err, "Unknown file format '%s'", format);
        return -EINVAL;
    }
    if (!plan->disk) { /* nobody would have the overlay */
        error_set(err, "Node '%s' is not in use by a disk", plan->root->name);
        return -EBUSY;
    }
    return 0;
}

static int co_make_overlay(struct plan *plan, struct error *err)
{
    const char *path = plan->args->file;
    bool existed = io_exists(path);
    AUTOFREE char *recorded = path_to_record(path, plan->root->filename);
    json_t *options;
    int ret;

    options = json_pack("{s:I, s:s}", "size", (json_int_t)plan->root->size, "backing_fmt",
                        filter_skip(plan->root)->driver->name); /* the next start may have no filter */
    json_object_set_new(options, "backing_file", json_stringn_nocheck(recorded, strlen(recorded))); /* need not be UTF-8 */
    ret = plan->driver->co_create(path, options, err);
    json_decref(options);
    plan->made_file = !existed;
    return ret;
}

/* The overlay takes over how the old root was to be opened. */
static json_t *overlay_options(const struct plan *plan)
{
    static const char *const along[] = { "cache", "discard", "detect-zeroes", "force-share" };
    static const char *const file_along[] = { "aio", "locking" };
    json_t *file = json_pack("{s:s}", "driver", "file");
    json_t *options = json_pack("{s:s, s:n, s:b, s:o}", "driver", plan->driver->name, "backing", "read-only",
                                plan->disk->read_only, "file", file);

    for (size_t i = 0; i < ARRAY_SIZE(along); i++) {
        json_t *value = json_object_get(plan->root->options, along[i]);
        if (value) {
            json_object_set(options, along[i], value);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(file_along); i++) {
        json_t *value = plan->root->file ? json_object_get(plan->root->file->options, file_along[i]) : NULL;
        if (value) {
            json_object_set(file, file_along[i], value);
        }
    }
    if (plan->args->snapshot_node_name) {
        json_object_set_new(options, "node-name", json_string(plan->args->snapshot_node_name));
    }
    return options;
}

/* Does anybody stand on this node, or show it to a guest? */
static bool in_use(const struct node *node)
{
    return node_parent(node) || node->busy_reason || disk_of_root(node);
}

/* The overlay that somebody has opened for us. */
static int find_overlay(struct plan *plan, struct error *err)
{
    struct node *overlay = disk_or_node(plan->args->overlay, err);

    if (!overlay) {
        return -ENOENT;
    }
    if (in_use(overlay)) {
        error_set(err, "The overlay is already in use");
        return -EBUSY;
    }
    if (overlay->backing) {
        error_set(err, "The overlay already has a backing image");
        return -EINVAL;
    }
    plan->overlay = node_ref(overlay);
    return 0;
}

static int co_open_overlay(struct plan *plan, struct error *err)
{
    const struct snapshot_args *args = plan->args;
    json_t *options;
    int ret = co_file_check_place(args->file, args->reuse || args->overwrite, err);

    if (ret == 0 && !args->reuse) {
        ret = co_make_overlay(plan, err);
    }
    if (ret < 0) {
        return ret;
    }
    options = overlay_options(plan);
    plan->overlay = co_node_open(args->file, options, err);
    json_decref(options);
    return plan->overlay ? 0 : -EINVAL;
}

/* All that can be done without the guest noticing, but the flush. */
static int co_prepare(struct plan *plan, struct error *err)
{
    bool ready_made = plan->args->overlay;
    int ret;

    if (plan->args->abort) {
        error_set(err, "Transaction aborted using Abort action");
        return -ECANCELED;
    }
    ret = ready_made ? find_root_node(plan, err) : find_root(plan, err);
    if (plan->root) {
        node_ref(plan->root);
    }
    if (ret == 0) {
        ret = check(plan, err);
    }
    if (plan->disk) {
        disk_hold(plan->disk);
    }
    if (ret == 0) {
        ret = ready_made ? find_overlay(plan, err) : co_open_overlay(plan, err);
    }
    if (ret == 0 && !plan->overlay->driver->supports_backing) {
        error_set(err, "The overlay does not support backing images");
        ret = -ENOTSUP;
    }
    return ret;
}

static int has_changed(const struct plan *plan, struct error *err)
{
    error_set(err, "The root of '%s' has changed meanwhile", plan->args->device ? plan->args->device : plan->root->name);
    return -EBUSY;
}

/* A medium is taken whoever uses it. */
static int check_disk(const struct plan *plan, struct error *err)
{
    return plan->disk == disk_of_root(plan->root) ? 0 : has_changed(plan, err);
}

/* Drained, and since we suspended somebody may have been faster.  From here on no job may begin on the two. */
static int mark_busy(struct plan *plan, struct error *err)
{
    int ret = node_check_free(plan->root, err);

    if (ret == 0) {
        ret = check_disk(plan, err);
    }
    if (ret == 0 && (overlay_of(plan->root) || in_use(plan->overlay) || plan->overlay->backing)) {
        ret = has_changed(plan, err);
    }
    if (ret == 0) {
        plan->root->busy_reason = plan->overlay->busy_reason = BUSY_REASON;
        plan->busy = true;
    }
    return ret;
}

static int co_freeze_root(struct plan *plan, struct error *err)
{
    struct node *root = plan->root;
    bool was_writable = !root->read_only;
    int ret = co_node_set_writable(root, false, err);

    if (ret < 0) {
        return ret;
    }
    plan->frozen = was_writable;
    if (!root->driver->passes_permissions) {
        return 0; /* a format needs of its file what it needs, whoever stands above */
    }
    plan->below = (struct node_user){ .node = root, .used = IO_PERM_CONSISTENT_READ, .apart = true,
                                      .shared = IO_PERM_CONSISTENT_READ | IO_PERM_WRITE_UNCHANGED };
    ret = node_use(&plan->below, err);
    plan->held = ret == 0;
    return ret;
}

static void co_thaw_root(struct plan *plan)
{
    if (plan->frozen) {
        co_node_set_writable(plan->root, true, NULL);
    }
}

/*
 * What came in during a flush is written back while the guest stands still, so the last flush before that should have been short:
 * after the first one, which may be long, there is less.
 */
static int co_flush_roots(struct plan *plans, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        co_node_make_room(plans[i].root);
        co_node_make_room(plans[i].overlay);
        co_node_write_out(plans[i].root);
    }
    for (int round = 0; round < FLUSHES_MAX; round++) {
        uint64_t started = loop_now();

        for (size_t i = 0; i < n; i++) {
            int ret = co_node_flush(plans[i].root);
            if (ret < 0) {
                error_set_errno(err, ret, "Could not flush '%s'", plans[i].root->filename);
                return ret;
            }
        }
        if (loop_now() - started < SHORT_NS * n) {
            break;
        }
    }
    return 0;
}

/* Does not suspend, as no edge is let go of; and the permissions are looked at once, however many disks there are. */
static void co_exchange_roots(struct plan *plans, size_t n)
{
    permissions_hold();
    for (size_t i = 0; i < n; i++) {
        co_node_set_backing_edge(plans[i].overlay, plans[i].root);
        if (plans[i].disk) {
            disk_set_root(plans[i].disk, plans[i].overlay);
        }
        if (plans[i].args->reuse || plans[i].args->overlay) {
            chain_map_forget_layer(plans[i].overlay); /* it may hold data already */
        }
    }
    for (size_t i = n; i-- > 0;) {
        if (plans[i].held) {
            node_unuse(&plans[i].below);
        }
    }
    permissions_release();
}

static void co_take_back(struct plan *plans, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        if (plans[i].busy) {
            co_thaw_root(&plans[i]);
        }
        if (plans[i].held) {
            node_unuse(&plans[i].below);
        }
    }
}

static int co_pivot(struct plan *plans, size_t n, struct error *err)
{
    int ret = co_flush_roots(plans, n, err);

    for (size_t i = 0; i < n && ret == 0; i++) {
        plans[i].drain = co_node_drain_begin(plans[i].root);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = mark_busy(&plans[i], err);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = co_freeze_root(&plans[i], err);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = check_disk(&plans[i], err);
    }
    if (ret == 0) {
        co_exchange_roots(plans, n);
    } else {
        co_take_back(plans, n);
    }
    for (size_t i = n; i-- > 0;) {
        if (plans[i].drain) {
            co_node_drain_end(plans[i].drain);
        }
    }
    for (size_t i = n; i-- > 0;) { /* nobody writes to the old root any more, nor can before it is free again */
        if (ret == 0) {
            co_node_give_room_back(plans[i].root);
        }
        if (plans[i].busy) {
            plans[i].root->busy_reason = plans[i].overlay->busy_reason = NULL;
        }
    }
    return ret;
}

/* What a disk has now is used by it; what nobody uses may be freer now that it is not busy. */
static void co_release(const struct plan *plan, struct node *node)
{
    plan->disk ? co_node_let_go(node) : co_node_unref(node);
}

/* One after the other: of two that were asked for at once the second goes on top of the first. */
int co_snapshot_group(const struct snapshot_args *args, size_t n, struct error *err)
{
    static struct co_mutex turn = { .queue = CO_QUEUE_INIT(turn.queue) };
    AUTOFREE struct plan *plans = mem_calloc(n, sizeof(*plans));
    int ret = 0;

    co_mutex_lock(&turn);
    for (size_t i = 0; i < n && ret == 0; i++) {
        plans[i].args = &args[i];
        ret = co_prepare(&plans[i], err);
    }
    if (ret == 0) {
        ret = co_pivot(plans, n, err);
    }
    for (size_t i = n; i-- > 0;) {
        co_release(&plans[i], plans[i].overlay); /* the disk has its own reference now, or it closes */
        co_release(&plans[i], plans[i].root);
        if (plans[i].disk) {
            disk_release(plans[i].disk);
        }
        if (ret < 0 && plans[i].made_file) {
            co_io_unlink(args[i].file);
        }
    }
    co_mutex_unlock(&turn);
    return ret;
}

int co_snapshot_sync(const struct snapshot_args *args, struct error *err)
{
    return co_snapshot_group(args, 1, err);
}
