/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands that change what a disk is: commit, block_resize, drive_add, drive_del; info snapshots.
 *
 * Some of QEMU's human commands say what went wrong without "Error: " in front; those print it themselves (complain()).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/commit.h"
#include "block/filter.h"
#include "block/permission.h"
#include "block/qcow2.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "export/nbd-server.h"
#include "monitor/block-tree.h"
#include "monitor/handlers.h"
#include "monitor/hints.h"
#include "monitor/members.h"

/* The error as it is, with its hints; it is clear afterwards. */
static void complain(struct monitor *mon, struct error *err)
{
    if (error_is_set(err)) {
        monitor_printf(mon, "%s\n", err->text);
        monitor_hint(mon, err);
        error_clear(err);
    }
}

/* "Device 'x' not found", and what there is. */
static int not_found(struct monitor *mon, const char *device)
{
    struct error err = ERROR_INIT;
    struct disk *disk;

    error_set(&err, "Device '%s' not found", device);
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (*disk->id) {
            error_hint(&err, "There is '%s'.", disk->id);
        }
    }
    complain(mon, &err);
    return -ENODEV;
}

/* --- commit ---------------------------------------------------------------------------------------------------------- */

static bool wants_to_stop(void *mon)
{
    return ((struct monitor *)mon)->interrupted || monitor_quit_requested();
}

static bool has_backing(const struct disk *disk)
{
    return disk && disk->root && disk->root->backing;
}

/* All that have a backing file; the first that fails ends it. */
static int co_commit_every(struct monitor *mon, struct error *err)
{
    json_t *labels = disk_labels(), *label;
    size_t i;
    int ret = 0;

    json_array_foreach(labels, i, label) {
        const struct disk *disk = disk_find_label(json_string_value(label));

        if (ret == 0 && has_backing(disk)) {
            ret = co_commit(disk->root, wants_to_stop, mon, err);
        }
    }
    json_decref(labels);
    return ret;
}

static int co_hmp_commit(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device");
    struct error why = ERROR_INIT;
    struct disk *disk = disk_find(device);
    int ret;

    if (!strcmp(device, "all")) {
        ret = co_commit_every(mon, &why);
    } else if (!disk) {
        return not_found(mon, device);
    } else if (!disk->root) {
        monitor_printf(mon, "Device '%s' has no medium\n", device);
        return -ENOMEDIUM;
    } else {
        ret = co_commit(disk->root, wants_to_stop, mon, &why);
    }
    complain(mon, &why);
    if (ret == -EINTR && !mon->compat) {
        monitor_printf(mon, "'commit' of '%s' was interrupted: what is done is done, the same command does the rest\n", device);
    } else if (ret < 0) {
        monitor_printf(mon, "'commit' error for '%s': %s\n", device, strerror(-ret));
    }
    return ret;
}

/* --- block_resize ------------------------------------------------------------------------------------------------------ */

/* QEMU's words for a node that nobody may resize. */
static int check_resizable(const struct node *node, const struct disk *disk, const char *device, struct error *err)
{
    const struct disk *user = disk ? disk : disk_of_root(node);
    const struct node *over;
    bool below = false;

    TAILQ_FOREACH(over, &all_nodes, link) {
        below = below || over->backing == node;
    }
    if (node->busy_reason || below) {
        error_set(err, "Device '%s' is in use", device);
        return -EBUSY;
    }
    if (user && disk_has_tray(user)) {
        error_set(err,
                  "Permission conflict on node '%s': permissions 'resize' are both required by an unnamed block device (uses "
                  "node '%s' as 'root' child) and unshared by block device '%s' (uses node '%s' as 'root' child).",
                  node->name, node->name, user->label, node->name);
        return -EPERM;
    }
    return 0;
}

int co_block_resize(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device"), *name = member_text(args, "node-name");
    int64_t size = member_int(args, "size");
    struct disk *disk = device ? disk_find(device) : NULL;
    struct node *node = disk ? disk->root : name ? node_find(name) : NULL;
    int ret;

    if (disk && !node) {
        error_set(err, "Device '%s' has no medium", device);
        return -ENOMEDIUM;
    }
    if (!node) {
        error_set(err, "Cannot find device='%s' nor node-name='%s'", device ? device : "", name ? name : "");
        return -ENODEV;
    }
    if (size < 0) {
        error_set(err, "Parameter 'size' expects a >0 size");
        return -EINVAL;
    }
    ret = check_resizable(node, disk, device ? device : name, err);
    if (ret < 0) {
        return ret;
    }
    struct node_user resizer = { .node = node, .used = IO_PERM_RESIZE, .shared = IO_PERM_ALL };

    ret = node_use(&resizer, err);
    if (ret < 0) {
        return ret;
    }
    node_ref(node);
    node->busy_reason = "block device is being resized";
    ret = co_node_truncate(node, size, err);
    node->busy_reason = NULL;
    node_unuse(&resizer);
    disk = disk_of_root(node);
    if (ret == 0 && disk && disk->on_resize) {
        disk->on_resize(disk, disk->dev_arg);
    }
    co_node_unref(node);
    return ret;
}

/* --- drive_add, drive_del ------------------------------------------------------------------------------------------------ */

static co_drive_maker *co_make_drive;

void drive_set_maker(co_drive_maker *co_make)
{
    co_make_drive = co_make;
}

/* -n: a node, as with -blockdev, but in the spelling of -drive. */
static int co_add_node(const char *words, struct error *err)
{
    json_t *flat = keyval_parse(words, NULL, err), *tree = flat ? keyval_nest(flat, err) : NULL;
    const char *driver = member_text(tree, "driver");
    int ret = -EINVAL;

    if (!tree) {
        /* the sentence is there */
    } else if (!json_object_get(tree, "node-name")) {
        error_set(err, "'node-name' needs to be specified");
    } else if (!driver && !json_object_get(tree, "file")) {
        error_set(err, "Must specify either driver or file");
    } else if (driver && !driver_find(driver)) {
        error_set(err, "Unknown driver '%s'", driver);
    } else {
        ret = co_blockdev_add(tree, true, err) ? 0 : -EINVAL;
    }
    json_decref(flat);
    monitor_free_json(tree);
    return ret;
}

static int co_hmp_drive_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *words = member_text(args, "options");
    struct error why = ERROR_INIT;
    char *help = NULL;
    int type = 0, ret;

    if (member_true(args, "node")) {
        ret = co_add_node(words, &why);
    } else {
        ret = co_make_drive(words, &help, &type, &why);
        if (help) {
            monitor_puts(mon, help);
        } else if (ret == 0 && type) {
            monitor_printf(mon, "Can't hot-add drive to type %d\n", type);
            ret = -ENOTSUP;
        } else if (ret == 0) {
            monitor_puts(mon, "OK\n");
        }
        free(help);
    }
    complain(mon, &why);
    return ret;
}

/* A device that has it keeps it, without a name and without a medium: the guest sees errors. */
static int co_drop_disk(struct disk *disk, struct error *err)
{
    if (disk->root && node_check_free(disk->root, err) < 0) {
        return -EBUSY;
    }
    disk_hold(disk);
    co_nbd_end_exports_of(disk);
    co_disk_take_medium(disk);
    if (!disk->gone && !disk->qdev) {
        co_disk_free(disk);
    } else if (!disk->gone) {
        disk->id[0] = '\0';
        disk_set_label(disk, disk->qdev);
        disk->werror = disk->rerror = DISK_REPORT;
    }
    disk_release(disk);
    return 0;
}

static int co_hmp_drive_del(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "id");
    struct error why = ERROR_INIT;
    struct disk *disk = disk_find(id);
    int ret;

    if (node_find(id)) {
        ret = co_blockdev_del(id, &why);
    } else if (!disk) {
        return not_found(mon, id);
    } else {
        ret = co_drop_disk(disk, &why);
    }
    complain(mon, &why);
    return ret;
}

/* --- info snapshots -------------------------------------------------------------------------------------------------------- */

/* Where the guest can write, and the image has a table of them; NULL: not there. */
static const struct qcow2 *snapshots_of(const struct disk *disk)
{
    const struct node *root = disk->root && !disk->read_only ? filter_skip(disk->root) : NULL;

    return root && root->driver == &driver_qcow2 ? root->state : NULL;
}

/* The state of a machine goes to the first disk that can hold one. */
static const struct disk *disk_for_state(void)
{
    const struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (snapshots_of(disk)) {
            return disk;
        }
    }
    return NULL;
}

/* A snapshot of the machine is one that every disk has that the guest can write. */
static bool on_all_disks(const struct qcow2_snapshot *s)
{
    const struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        const struct qcow2 *q = snapshots_of(disk);

        if (disk->root && !disk->read_only && (!q || !qcow2_snapshot_find(q, s->name, false))) {
            return false;
        }
    }
    return true;
}

/* Those of the machine once, those of this disk alone with its name. */
static void add_snapshots(json_t *list, const struct disk *first, const struct disk *disk)
{
    const struct qcow2 *q = snapshots_of(disk);
    json_t *trees = q ? qcow2_snapshot_trees(q->node) : NULL, *tree;
    size_t i;

    json_array_foreach(trees, i, tree) {
        bool global = on_all_disks(&q->snapshots[i]);

        if (!global) {
            json_object_set_new(tree, "device", json_string(disk->label));
        }
        if (!global || disk == first) {
            json_array_append(list, tree);
        }
    }
    json_decref(trees);
}

static int co_info_snapshots(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const struct disk *disk = disk_for_state(), *other;

    if (!disk) {
        monitor_puts(mon, "no block device can store vmstate for snapshot\n");
        return mon->compat ? 0 : -ENOTSUP;
    }
    *result = json_array();
    TAILQ_FOREACH(other, &all_disks, link) {
        add_snapshots(*result, disk, other);
    }
    return 0;
}

static void print_snapshots(struct monitor *mon, const json_t *args, const json_t *result)
{
    const char *last = "";
    bool any = false;
    size_t i;
    json_t *s;

    json_array_foreach(result, i, s) {
        any = any || !member_text(s, "device");
    }
    if (any) {
        snapshot_print_head(mon, "List of snapshots present on all disks:");
    } else {
        monitor_puts(mon, json_array_size(result) ? "List of snapshots present on all disks:\nNone\n"
                                                  : "There is no snapshot available.\n");
    }
    json_array_foreach(result, i, s) {
        if (!member_text(s, "device")) {
            snapshot_print(mon, s, "--");
        }
    }
    json_array_foreach(result, i, s) {
        const char *device = member_text(s, "device");

        if (!device) {
            continue;
        }
        if (strcmp(last, device)) {
            AUTOFREE char *words = mem_printf("\nList of partial (non-loadable) snapshots on '%s':", device);

            snapshot_print_head(mon, words);
        }
        snapshot_print(mon, s, member_text(s, "id"));
        last = device;
    }
}

/* --- Rows --------------------------------------------------------------------------------------------------------------------- */

#define MIB (1ull << 20)

const struct command drive_commands[] = {
    {
        .name = "commit",
        .args = { { "device", ARG_DEVICE, .doc = "a disk, or all for every one that has a backing file" } },
        .params = "device|all",
        .help = "commit changes to the disk images (if -snapshot is used) or backing files",
        .group = "Disks and images",
        .example = "commit virtio0",
        .co_run = co_hmp_commit,
    },
    {
        .name = "block_resize",
        .args = {
            { "device", ARG_DEVICE, .doc = "the disk" },
            { "size", ARG_SIZE, .unit = MIB, .doc = "its new size (10G, 512M; MiB without a suffix)" },
        },
        .params = "device size",
        .help = "resize a block image",
        .group = "Disks and images",
        .example = "block_resize virtio0 20G",
        .co_run = co_block_resize,
    },
    {
        .name = "drive_add",
        .args = {
            { "node", ARG_FLAG, .letter = 'n', .doc = "a node instead of a disk" },
            { "pci_addr", ARG_STRING, .doc = "means nothing: 0" },
            { "options", ARG_STRING, .doc = "as with -drive; if=none" },
        },
        .params = "[-n] [[<domain>:]<bus>:]<slot>\n"
                  "[file=file][,if=type][,bus=n]\n"
                  "[,unit=m][,media=d][,index=i]\n"
                  "[,snapshot=on|off][,cache=on|off]\n"
                  "[,readonly=on|off][,copy-on-read=on|off]",
        .help = "add drive to PCI storage controller",
        .group = "Disks and images",
        .example = "drive_add 0 if=none,id=data,file=data.qcow2",
        .co_run = co_hmp_drive_add,
    },
    {
        .name = "drive_del",
        .args = { { "id", ARG_DEVICE_OR_NODE, .doc = "the disk; a device that has it sees errors from then on" } },
        .params = "device",
        .help = "remove host block device",
        .group = "Disks and images",
        .example = "drive_del data",
        .co_run = co_hmp_drive_del,
    },
    { 0 },
};

const struct command drive_topics[] = {
    {
        .name = "snapshots",
        .params = "",
        .help = "show the currently saved VM snapshots",
        .group = "Disks and images",
        .co_run = co_info_snapshots,
        .print = print_snapshots,
    },
    { 0 },
};
