/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's commands that make and change nodes: blockdev-*, change-backing-file, transaction; and the row of block_resize.
 */
#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/filter.h"
#include "block/reopen.h"
#include "block/snapshot.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

/* --- Nodes ---------------------------------------------------------------------------------------------------------- */

static int co_qmp_blockdev_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return co_blockdev_add(args, false, err) ? 0 : -EINVAL;
}

static int co_qmp_blockdev_del(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return co_blockdev_del(member_text(args, "node-name"), err);
}

static int co_qmp_blockdev_reopen(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return co_blockdev_reopen(json_object_get(args, "options"), err);
}

static int co_qmp_blockdev_create(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct create_args create = {
        .job_id = member_text(args, "job-id"),
        .options = json_object_get(args, "options"),
        .overwrite = mon->compat,
    };

    return co_create_start(&create, err);
}

/* --- The recorded name ---------------------------------------------------------------------------------------------- */

static int check_link(const char *device, struct node *root, struct node *image, struct error *err)
{
    if (!image->backing) {
        error_set(err, "not allowing backing file change on an image without a backing file");
        return -EINVAL;
    }
    for (; root != image; root = filter_or_backing(root)) {
        if (!root) {
            error_set(err, "'%s' and image file are not in the same chain", device);
            return -EINVAL;
        }
    }
    return node_check_free(image, err);
}

/* The image is read-write for that time. */
static int co_record(struct node *image, const char *name, struct error *err)
{
    const char *format = filter_skip(image->backing)->driver->name;
    bool was_read_only = image->read_only;
    int ret = image->driver->check_backing(image, name, format, err);

    if (ret == 0 && was_read_only) {
        ret = co_node_set_writable(image, true, err);
    }
    if (ret < 0) {
        return ret;
    }
    ret = image->driver->co_set_backing(image, name, format, err);
    if (ret == 0) {
        free(image->backing_name);
        free(image->backing_format);
        image->backing_name = mem_strdup(name);
        image->backing_format = mem_strdup(format);
    }
    if (was_read_only) {
        co_node_set_writable(image, false, ret == 0 ? err : NULL);
    }
    return error_is_set(err) && ret == 0 ? -EIO : ret;
}

static int co_change_backing_file(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device"), *name = member_text(args, "image-node-name");
    struct node *root = disk_or_node(device, err), *image = root ? node_find(name) : NULL;
    int ret;

    if (!root) {
        return -ENOENT;
    }
    if (node_parent(root)) {
        error_set(err, "Need a root block node");
        return -EINVAL;
    }
    if (!image) {
        error_set(err, "Cannot find device='' nor node-name='%s'", name);
        return -ENOENT;
    }
    ret = check_link(device, root, image, err);
    if (ret < 0) {
        return ret;
    }
    node_ref(image);
    image->busy_reason = "its backing file is being changed";
    ret = co_record(image, member_text(args, "backing-file"), err);
    image->busy_reason = NULL;
    co_node_unref(image);
    return ret;
}

/* --- Snapshots, alone and together ---------------------------------------------------------------------------------- */

static struct snapshot_args sync_args(const struct monitor *mon, const json_t *args)
{
    const char *mode = member_text(args, "mode");

    return (struct snapshot_args){
        .device = member_text(args, "device"),
        .node_name = member_text(args, "node-name"),
        .file = member_text(args, "snapshot-file"),
        .snapshot_node_name = member_text(args, "snapshot-node-name"),
        .format = member_text(args, "format"),
        .reuse = mode && !strcmp(mode, "existing"),
        .overwrite = mon->compat || member_true(args, "overwrite"),
    };
}

static struct snapshot_args node_args(const json_t *args)
{
    return (struct snapshot_args){ .node = member_text(args, "node"), .overlay = member_text(args, "overlay") };
}

int co_blockdev_snapshot_sync(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct snapshot_args snapshot = sync_args(mon, args);

    return co_snapshot_sync(&snapshot, err);
}

static int co_blockdev_snapshot(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct snapshot_args snapshot = node_args(args);

    return co_snapshot_sync(&snapshot, err);
}

/* Actions of which each ends at once have no end in common; what the first one is decides. */
static int check_mode(const json_t *args, struct error *err)
{
    const char *mode = member_text(json_object_get(args, "properties"), "completion-mode");
    const char *type = member_text(json_array_get(json_object_get(args, "actions"), 0), "type");

    if (mode && !strcmp(mode, "grouped") && type && strcmp(type, "abort")) {
        error_set(err, "Action '%s' does not support Transaction property completion-mode = %s", type, mode);
        return -EINVAL;
    }
    return 0;
}

static int co_transaction(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    json_t *actions = json_object_get(args, "actions"), *action;
    size_t n = json_array_size(actions), i;
    AUTOFREE struct snapshot_args *list = mem_calloc(n + 1, sizeof(*list));

    json_array_foreach(actions, i, action) {
        const char *type = member_text(action, "type");
        json_t *data = json_object_get(action, "data");

        if (!strcmp(type, "abort")) {
            list[i].abort = true;
        } else {
            list[i] = strcmp(type, "blockdev-snapshot") ? sync_args(mon, data) : node_args(data);
        }
    }
    return check_mode(args, err) < 0 ? -EINVAL : co_snapshot_group(list, n, err);
}

/* --- Rows ----------------------------------------------------------------------------------------------------------- */

static const char *const mode_choices[] = { "existing", "absolute-paths", NULL };
static const char *const completion_choices[] = { "individual", "grouped", NULL };

static const struct block_key node_tree = { .kind = KEY_NODE };
static const struct block_key nodes_tree = { .kind = KEY_NODES, .required = true };
static const struct block_key create_tree = { .kind = KEY_CREATE, .required = true };
static const struct block_key snapshot_keys[] = {
    { .name = "node", .kind = KEY_STRING, .required = true },
    { .name = "overlay", .kind = KEY_STRING, .required = true },
    { 0 },
};
static const struct block_key snapshot_sync_keys[] = {
    { .name = "device", .kind = KEY_STRING },
    { .name = "node-name", .kind = KEY_STRING },
    { .name = "snapshot-file", .kind = KEY_STRING, .required = true },
    { .name = "snapshot-node-name", .kind = KEY_STRING },
    { .name = "format", .kind = KEY_STRING },
    { .name = "mode", .kind = KEY_ENUM, .choices = mode_choices },
    { 0 },
};
#define DATA(keys) (const struct block_key[]){ { .name = "data", .kind = KEY_OBJECT, .required = true, .members = keys }, { 0 } }
static const struct block_variant action_variants[] = {
    { "abort", DATA(NULL) },
    { "blockdev-snapshot", DATA(snapshot_keys) },
    { "blockdev-snapshot-sync", DATA(snapshot_sync_keys) },
    { 0 },
};
static const struct block_key action_members[] = { { .name = "type", .kind = KEY_STRING, .required = true }, { 0 } };
static const struct block_key actions_tree = {
    .kind = KEY_LIST, .required = true, .members = action_members, .tag = "type", .variants = action_variants,
};
static const struct block_key property_members[] = {
    { .name = "completion-mode", .kind = KEY_ENUM, .choices = completion_choices },
    { 0 },
};
static const struct block_key properties_tree = { .kind = KEY_OBJECT, .members = property_members };

const struct command blockdev_qmp_commands[] = {
    { .name = "blockdev-add", .whole = &node_tree, .co_run = co_qmp_blockdev_add },
    { .name = "blockdev-del", .args = { { "node-name", ARG_STRING } }, .co_run = co_qmp_blockdev_del },
    { .name = "blockdev-reopen", .args = { { "options", ARG_TREE, .tree = &nodes_tree } },
      .co_run = co_qmp_blockdev_reopen },
    { .name = "blockdev-create",
      .args = { { "job-id", ARG_STRING }, { "options", ARG_TREE, .tree = &create_tree } },
      .co_run = co_qmp_blockdev_create },
    { .name = "blockdev-snapshot", .args = { { "node", ARG_STRING }, { "overlay", ARG_STRING } },
      .co_run = co_blockdev_snapshot },
    { .name = "change-backing-file",
      .args = { { "device", ARG_STRING }, { "image-node-name", ARG_STRING }, { "backing-file", ARG_STRING } },
      .co_run = co_change_backing_file },
    { .name = "eject",
      .args = {
          { "device", ARG_STRING, .optional = true },
          { "id", ARG_STRING, .optional = true },
          { "force", ARG_BOOL, .optional = true },
      },
      .co_run = co_eject },
    { .name = "blockdev-change-medium",
      .args = {
          { "device", ARG_STRING, .optional = true },
          { "id", ARG_STRING, .optional = true },
          { "filename", ARG_STRING },
          { "format", ARG_STRING, .optional = true },
          { "force", ARG_BOOL, .optional = true },
          { "read-only-mode", ARG_ENUM, .optional = true, .choices = read_only_modes },
      },
      .co_run = co_blockdev_change_medium },
    { .name = "block_resize",
      .args = {
          { "device", ARG_STRING, .optional = true },
          { "node-name", ARG_STRING, .optional = true },
          { "size", ARG_INT },
      },
      .co_run = co_block_resize },
    { .name = "transaction",
      .args = {
          { "actions", ARG_TREE, .tree = &actions_tree },
          { "properties", ARG_TREE, .optional = true, .tree = &properties_tree },
      },
      .co_run = co_transaction },
    { 0 },
};
