/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about disks and images: snapshot_blkdev, qemu-io, info block, info blockstats, info chain.
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "monitor/block-tree.h"
#include "monitor/chain-view.h"
#include "monitor/handlers.h"
#include "monitor/members.h"
#include "monitor/qemu-io.h"

/* --- Snapshots ----------------------------------------------------------------------------------------------------- */

/* The line that QEMU prints to its standard output when it makes an image. */
static void print_formatting(struct monitor *mon, const struct disk *disk)
{
    if (mon->on_stdout && disk) { /* its root is the image that was made */
        const struct node *node = disk->root;

        monitor_printf(mon, "Formatting '%s', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=%llu "
                       "backing_file=%s backing_fmt=%s lazy_refcounts=off refcount_bits=16\n",
                       node->filename, (unsigned long long)node->size, node->backing_name, node->backing_format);
    }
}

static int co_hmp_snapshot_blkdev(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    int ret;

    if (!member_text(args, "snapshot-file")) {
        error_set(err, "Parameter 'snapshot-file' is missing");
        return -EINVAL;
    }
    json_object_set_new(args, "mode", json_string(member_true(args, "reuse") ? "existing" : "absolute-paths"));
    ret = co_blockdev_snapshot_sync(mon, args, result, err);
    if (!ret && !member_true(args, "reuse")) {
        print_formatting(mon, disk_find(member_text(args, "device")));
    }
    return ret;
}

/* --- qemu-io ---------------------------------------------------------------------------------------------------------- */

static int co_hmp_qemu_io(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *name = member_text(args, "device");
    struct disk *disk = disk_find(name);
    struct node *node = disk ? disk->root : NULL;

    if (member_true(args, "qdev")) {
        node = NULL;
        TAILQ_FOREACH(disk, &all_disks, link) {
            if (disk->qdev && !strcmp(disk->qdev, name)) {
                node = disk->root;
                break;
            }
        }
        if (!node) {
            error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name);
            return -ENODEV;
        }
    } else if (!disk) {
        node = node_find(name);
    }
    if (!node && disk) {
        error_set(err, "Device '%s' has no medium", name);
        return -ENOMEDIUM;
    }
    if (!node) {
        error_set(err, "Cannot find device='' nor node-name='%s'", name);
        return -ENODEV;
    }
    return co_qemu_io(mon, disk, node, member_text(args, "command"), err);
}

/* --- Queries ----------------------------------------------------------------------------------------------------------- */

int co_query_block(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct image_memo *memo = image_memo_new();
    json_t *ids = disk_labels(), *id;
    size_t i;

    *result = json_array();
    json_array_foreach(ids, i, id) {
        struct disk *disk = disk_find_label(json_string_value(id));

        if (disk) {
            json_array_append_new(*result, co_disk_tree(memo, disk));
        }
    }
    json_decref(ids);
    co_image_memo_free(memo);
    return 0;
}

/* The newest node first, as QEMU has it.  `name` NULL: all. */
static json_t *co_nodes_tree(const char *name, bool flat)
{
    struct image_memo *memo = image_memo_new();
    struct node_set set = { 0 };
    json_t *trees = json_array();
    struct node *node;

    TAILQ_FOREACH_REVERSE(node, &all_nodes, node_list, link) {
        if (node_alive(node) && (!name || !strcmp(node->name, name))) {
            node_set_add(&set, node);
        }
    }
    for (size_t i = 0; i < set.count; i++) {
        json_t *tree = co_node_tree(memo, set.nodes[i], flat);

        /* When writes are stable is a matter of who uses the node. */
        json_object_set_new(json_object_get(tree, "cache"), "writeback", json_true());
        json_array_append_new(trees, tree);
    }
    co_node_set_free(&set);
    co_image_memo_free(memo);
    return trees;
}

int co_query_named_block_nodes(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    bool flat = member_true(args, "flat");
    json_t *tree;
    size_t i;

    *result = co_nodes_tree(NULL, flat);
    if (flat) { /* QEMU counts the images that it shows */
        json_array_foreach(*result, i, tree) {
            json_object_set_new(tree, "backing_file_depth", json_integer(0));
        }
    }
    return 0;
}

int co_query_blockstats(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct disk *disk;
    struct node *node;

    *result = json_array();
    if (member_true(args, "query-nodes")) {
        TAILQ_FOREACH(node, &all_nodes, link) {
            json_array_append_new(*result, node_stats_alone(node));
        }
        return 0;
    }
    TAILQ_FOREACH(disk, &all_disks, link) {
        json_array_append_new(*result, disk_stats_tree(disk));
    }
    return 0;
}

int co_query_chain(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *name = member_text(args, "device");
    json_t *ids, *id;
    size_t i;

    if (name) {
        struct disk *disk;
        struct node *root = chain_root(name, &disk, err);

        if (!root && !disk) {
            return -ENODEV;
        }
        error_clear(err); /* an empty drive can be drawn */
        *result = json_array();
        json_array_append_new(*result, co_chain_tree(disk, root));
        return 0;
    }
    *result = json_array();
    ids = disk_labels();
    json_array_foreach(ids, i, id) {
        struct disk *disk = disk_find_label(json_string_value(id));

        if (disk) {
            json_array_append_new(*result, co_chain_tree(disk, disk->root));
        }
    }
    json_decref(ids);
    return 0;
}

/* --- info block ---------------------------------------------------------------------------------------------------------- */

/* Only what was asked for: a disk of that id, or else a node of that name.  The trees of disks that nobody asked for are
 * not made: an image's size on the host is a question to the host. */
static int co_info_block(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *name = member_text(args, "device");
    struct disk *disk = name ? disk_find(name) : NULL;

    if (disk && !member_true(args, "nodes")) {
        struct image_memo *memo = image_memo_new();

        *result = json_array();
        json_array_append_new(*result, co_disk_tree(memo, disk));
        co_image_memo_free(memo);
        return 0;
    }
    if (!name && !member_true(args, "nodes")) {
        return co_query_block(mon, args, result, err);
    }
    *result = co_nodes_tree(name, !member_true(args, "verbose"));
    if (name && !json_array_size(*result) && !mon->compat) {
        error_set(err, "Cannot find device='%s' nor node-name='%s'", name, name); /* QEMU says nothing */
        return -ENODEV;
    }
    return 0;
}

/* QEMU parts entries by an empty line, also from those that it passes over. */
static bool is_first(const json_t *tree)
{
    const char *device = member_text(tree, "device"), *node = member_text(tree, "node-name");
    struct disk *disk = TAILQ_FIRST(&all_disks);
    struct node *last = TAILQ_LAST(&all_nodes, node_list);

    return !device  ? last && !strcmp(last->name, node)
           : !disk  ? false
           : *device ? !strcmp(disk->id, device)
                     : !*disk->id && !strcmp(disk->qdev ? disk->qdev : "", member_text(tree, "qdev"));
}

static void print_block(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *tree;

    json_array_foreach(result, i, tree) {
        const json_t *inserted = json_object_get(tree, "inserted");

        if (i > 0 || (member_text(args, "device") && !is_first(tree))) {
            monitor_puts(mon, "\n");
        }
        if (json_object_get(tree, "device")) {
            block_tree_print(mon, tree, inserted, member_true(args, "verbose"));
        } else {
            block_tree_print(mon, NULL, tree, member_true(args, "verbose"));
        }
    }
}

static void print_blockstats(struct monitor *mon, const json_t *args, const json_t *result)
{
    static const char *const members[] = {
        "rd_bytes",         "wr_bytes",            "rd_operations", "wr_operations", "flush_operations", "wr_total_time_ns",
        "rd_total_time_ns", "flush_total_time_ns", "rd_merged",     "wr_merged",     "idle_time_ns",
    };
    size_t i;
    json_t *tree;

    json_array_foreach(result, i, tree) {
        const json_t *stats = json_object_get(tree, "stats");

        monitor_printf(mon, "%s:", member_text(tree, "device"));
        for (size_t m = 0; m < ARRAY_SIZE(members); m++) {
            monitor_printf(mon, " %s=%lld", members[m], member_int(stats, members[m]));
        }
        monitor_puts(mon, "\n");
    }
}

/* --- Rows --------------------------------------------------------------------------------------------------------------------- */

const struct command block_commands[] = {
    {
        .name = "snapshot_blkdev",
        .args = {
            { "reuse", ARG_FLAG, .letter = 'n', .doc = "use the image that is there, do not make one" },
            { "overwrite", ARG_FLAG, .letter = 'f', .ours = true, .doc = "make one also where a file is that is not empty" },
            { "device", ARG_DEVICE, .doc = "the disk" },
            { "snapshot-file", ARG_FILE, .optional = true, .doc = "the new image: it becomes the disk's active layer" },
            { "format", ARG_FORMAT, .optional = true, .doc = "its format, qcow2 unless given" },
        },
        .params = "[-n] device [new-image-file] [format]",
        .help = "initiates a live snapshot\n"
                "\t\t\tof device. If a new image file is specified, the\n"
                "\t\t\tnew image file will become the new root image.\n"
                "\t\t\tIf format is specified, the snapshot file will\n"
                "\t\t\tbe created in that format.\n"
                "\t\t\tThe default format is qcow2.  The -n flag requests QEMU\n"
                "\t\t\tto reuse the image found in new-image-file, instead of\n"
                "\t\t\trecreating it from scratch.",
        .group = "Disks and images",
        .example = "snapshot_blkdev ide0-hd0 /new-path/disk.img qcow2\nsnapshot_blkdev -f virtio0 disk.img",
        .co_run = co_hmp_snapshot_blkdev,
    },
    {
        .name = "qemu-io",
        .args = {
            { "qdev", ARG_FLAG, .letter = 'd', .doc = "the name is that of the attached device" },
            { "device", ARG_DEVICE_OR_NODE, .doc = "a disk or a node" },
            { "command", ARG_STRING, .doc = "in quotes: what to do; \"help\" lists it" },
        },
        .params = "[-d] [device] \"[command]\"",
        .help = "run a qemu-io command on a block device\n"
                "\t\t\t-d: [device] is a device ID rather than a drive ID or node name",
        .group = "Disks and images",
        .example = "qemu-io virtio0 \"read -P 0x41 0 64k\"\nqemu-io node-D map",
        .co_run = co_hmp_qemu_io,
    },
    { 0 },
};

const struct command block_topics[] = {
    {
        .name = "block",
        .args = {
            { "nodes", ARG_FLAG, .letter = 'n', .doc = "nodes instead of disks" },
            { "verbose", ARG_FLAG, .letter = 'v', .doc = "also their images" },
            { "device", ARG_DEVICE_OR_NODE, .optional = true, .doc = "only this one" },
        },
        .params = "[-n] [-v] [device]",
        .help = "show info of one block device or all block devices (-n: show named nodes; -v: show details)",
        .group = "Disks and images",
        .example = "info block -v virtio0",
        .co_run = co_info_block,
        .print = print_block,
    },
    {
        .name = "blockstats",
        .params = "",
        .help = "show block device statistics",
        .group = "Disks and images",
        .co_run = co_query_blockstats,
        .print = print_blockstats,
    },
    {
        .name = "chain",
        .args = { { "device", ARG_DEVICE_OR_NODE, .optional = true, .doc = "a disk, or a node to begin at" } },
        .params = "[device]",
        .help = "draw the image chain of one disk or all disks: sizes, data held, who writes, what is copied",
        .group = "Disks and images",
        .example = "info chain virtio0",
        .co_run = co_query_chain,
        .print = chain_view_print,
        .flags = COMMAND_OURS,
    },
    { 0 },
};
