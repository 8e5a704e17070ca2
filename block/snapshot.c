/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots (see snapshot.h).
 *
 * Order: (1) the overlay is made and is durable, directory entry included; (2) what the old root holds is flushed while the guest goes
 * on; (3) the disk is drained; what came in since (2) is written back, the old root becomes read-only, the edge and the
 * disk's root change; (4) the guest goes on.  An error in (1) to (3) leaves the chain as it was and removes the overlay
 * that was made.
 */
#include "block/snapshot.h"

#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/file.h"
#include "block/path.h"
#include "core/mem.h"

struct plan {
    const struct snapshot_args *args;
    struct disk *disk;
    struct node *root;
    const struct driver *driver;
    bool made_file; /* ours to remove on failure */
};

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
    } else if (*node && !*device) {
        plan->root = node_find(node);
    }
    if (!plan->root) {
        error_set(err, "Cannot find device='%s' nor node-name='%s'", device, node);
        return -ENOENT;
    }
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
    if (!plan->disk || over) {
        error_set(err, over ? "Node '%s' is busy: node is used as backing hd of '%s'" : "Node '%s' is not in use by a disk%s",
                  plan->root->name, over ? over->name : "");
        return -EBUSY;
    }
    plan->driver = driver_find(format);
    if (!plan->driver || plan->driver->is_protocol) {
        error_set(err, "Unknown file format '%s'", format);
        return -EINVAL;
    }
    if (!plan->args->reuse && !plan->driver->supports_backing) {
        error_set(err, "Backing file not supported for file format '%s'", format);
        return -ENOTSUP;
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

    options = json_pack("{s:I, s:s, s:s}", "size", (json_int_t)plan->root->size, "backing_file", recorded,
                        "backing_fmt", plan->root->driver->name);
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

static int co_pivot(struct plan *plan, struct node *overlay, struct error *err)
{
    struct node *root = plan->root;
    struct node_drain *drain;
    int ret = co_node_flush(root);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not flush '%s'", root->filename);
        return ret;
    }
    drain = co_node_drain_begin(root);
    ret = node_check_free(root, err); /* we suspended: somebody may have been faster */
    if (ret == 0 && plan->disk->root != root) {
        error_set(err, "The root of '%s' has changed meanwhile", plan->disk->id);
        ret = -EBUSY;
    }
    if (ret < 0) {
        co_node_drain_end(drain);
        return ret;
    }
    root->busy_reason = "block device is in use by a snapshot"; /* no job may begin on it while we suspend */
    ret = co_node_set_writable(root, false, err);
    if (ret == 0 && root->file && root->file->driver == &driver_file) {
        ret = file_lock(root->file, FILE_USER_BACKING, err);
        if (ret < 0) {
            co_node_set_writable(root, true, NULL);
        }
    }
    if (ret == 0) {
        overlay->backing = node_ref(root);
        disk_set_root(plan->disk, overlay);
    }
    root->busy_reason = NULL;
    co_node_drain_end(drain);
    return ret;
}

static int co_snapshot(const struct snapshot_args *args, struct error *err)
{
    struct plan plan = { .args = args };
    struct node *overlay = NULL;
    int ret = find_root(&plan, err);

    if (ret == 0) {
        ret = check(&plan, err);
    }
    if (ret == 0) {
        ret = co_file_check_place(args->file, args->reuse || args->overwrite, err);
    }
    if (ret == 0 && !args->reuse) {
        ret = co_make_overlay(&plan, err);
    }
    if (ret == 0) {
        json_t *options = overlay_options(&plan);
        overlay = co_node_open(args->file, options, err);
        json_decref(options);
        ret = overlay ? 0 : -EINVAL;
    }
    if (ret == 0 && !overlay->driver->supports_backing) {
        error_set(err, "The overlay does not support backing images");
        ret = -ENOTSUP;
    }
    if (ret == 0) {
        ret = co_pivot(&plan, overlay, err);
    }
    if (overlay) {
        co_node_unref(overlay); /* the disk has its own reference now, or it closes */
    }
    if (ret < 0 && plan.made_file) {
        co_io_unlink(args->file);
    }
    return ret;
}

/* One after the other: of two that were asked for at once the second goes on top of the first. */
int co_snapshot_sync(const struct snapshot_args *args, struct error *err)
{
    static struct co_mutex turn = { .queue = CO_QUEUE_INIT(turn.queue) };
    int ret;

    co_mutex_lock(&turn);
    ret = co_snapshot(args, err);
    co_mutex_unlock(&turn);
    return ret;
}
