/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees of disks, nodes and images: see block-tree.h.
 *
 * An image's tree holds the tree of the image below it, and so on.  They are built from the bottom up in a loop.
 */
#include "monitor/block-tree.h"

#include <string.h>
#include <uthash.h>

#include "block/file.h"
#include "block/filter.h"
#include "block/path.h"
#include "block/qcow2.h"
#include "core/loop.h"
#include "core/mem.h"
#include "monitor/members.h"

/* --- Sets of nodes ------------------------------------------------------------------------------------------------ */

void node_set_add(struct node_set *set, struct node *node)
{
    set->nodes = mem_reallocarray(set->nodes, set->count + 1, sizeof(*set->nodes));
    set->nodes[set->count++] = node_ref(node);
}

void node_set_add_chain(struct node_set *set, struct node *top)
{
    for (; top; top = top->backing) {
        node_set_add(set, top);
    }
}

void co_node_set_free(struct node_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        co_node_unref(set->nodes[i]);
    }
    free(set->nodes);
    *set = (struct node_set){ 0 };
}

/* --- Images -------------------------------------------------------------------------------------------------------- */

struct memo_entry {
    struct node *node; /* key; a reference, so that no other node gets its address */
    json_t *image;
    UT_hash_handle hh;
};
struct image_memo {
    struct memo_entry *entries;
};

struct image_memo *image_memo_new(void)
{
    return mem_zalloc(sizeof(struct image_memo));
}

void co_image_memo_free(struct image_memo *memo)
{
    struct memo_entry *entry, *next;

    HASH_ITER(hh, memo->entries, entry, next) {
        HASH_DEL(memo->entries, entry);
        json_decref(entry->image);
        co_node_unref(entry->node);
        free(entry);
    }
    free(memo);
}

static json_t *memo_find(struct image_memo *memo, struct node *node)
{
    struct memo_entry *entry;

    HASH_FIND_PTR(memo->entries, &node, entry);
    return entry ? entry->image : NULL;
}

static void memo_add(struct image_memo *memo, struct node *node, json_t *image)
{
    struct memo_entry *entry = mem_zalloc(sizeof(*entry));

    entry->node = node_ref(node);
    entry->image = json_incref(image);
    HASH_ADD_PTR(memo->entries, node, entry);
}

static void set(json_t *tree, const char *key, json_t *value)
{
    json_object_set_new(tree, key, value);
}

static uint64_t co_allocated(struct node *node)
{
    struct io_file *file = node_host_file(node);
    uint64_t bytes = 0;

    return file && !co_io_allocated(file, &bytes) ? bytes : 0;
}

/* Only formats with clusters have a cluster size to speak of; with extended L2 entries the node's is a subcluster's. */
static uint32_t cluster_size(struct node *node)
{
    struct node *image = filter_skip(node);
    json_t *specific;
    bool extended;

    if (!image->driver->supports_backing) {
        return 0;
    }
    specific = image->driver->describe(image);
    extended = member_true(json_object_get(specific, "data"), "extended-l2");
    json_decref(specific);
    return extended ? image->cluster_size * 32 : image->cluster_size;
}

static json_t *co_image_alone(struct node *node, json_t *below)
{
    json_t *tree = json_object();
    json_t *specific = node->driver->describe ? node->driver->describe(node) : NULL;
    uint32_t cluster = cluster_size(node);

    if (below) {
        json_object_set(tree, "backing-image", below);
    }
    if (node->backing_format) {
        member_set_text(tree, "backing-filename-format", node->backing_format);
    }
    if (node->driver == &driver_qcow2 && ((const struct qcow2 *)node->state)->h.nb_snapshots) {
        set(tree, "snapshots", qcow2_snapshot_trees(node));
    }
    set(tree, "virtual-size", json_integer(node->size));
    member_set_text(tree, "filename", node->filename);
    if (cluster) {
        set(tree, "cluster-size", json_integer(cluster));
    }
    member_set_text(tree, "format", node->driver->name);
    set(tree, "actual-size", json_integer(co_allocated(node)));
    if (specific) {
        set(tree, "format-specific", specific);
    }
    if (node->backing_name) {
        AUTOFREE char *full = path_combine(node->filename, node->backing_name);

        member_set_text(tree, "full-backing-filename", full);
        member_set_text(tree, "backing-filename", node->backing_name);
    }
    if (node_host_file(node)) {
        set(tree, "dirty-flag", json_false());
    }
    return tree;
}

/* Borrowed from the memo.  The chain is taken in one breath, then described from its end. */
static json_t *co_image_deep(struct image_memo *memo, struct node *node)
{
    struct node_set chain = { 0 };
    json_t *image = NULL;
    size_t i = 0;

    for (struct node *n = node; n && !image; n = filter_or_backing(n)) {
        image = memo_find(memo, n);
        if (!image) {
            node_set_add(&chain, n);
        }
    }
    for (i = chain.count; i > 0; i--) {
        json_t *next = co_image_alone(chain.nodes[i - 1], image);

        memo_add(memo, chain.nodes[i - 1], next);
        json_decref(next);
        image = next;
    }
    co_node_set_free(&chain);
    return image;
}

/* --- Nodes and disks ------------------------------------------------------------------------------------------------ */

static int chain_depth(const struct node *node)
{
    int depth = 0;

    while ((node = filter_or_backing(node))) {
        depth++;
    }
    return depth;
}

json_t *co_node_tree(struct image_memo *memo, struct node *node, bool flat)
{
    static const char *const detect[] = { "off", "on", "unmap" };
    json_t *tree = json_object(), *cache = json_object();
    struct node *kept = node_ref(node);

    set(tree, "iops_rd", json_integer(0));
    set(tree, "detect_zeroes", json_string(detect[node->detect_zeroes]));
    if (flat) {
        set(tree, "image", co_image_alone(node, NULL));
    } else {
        json_object_set(tree, "image", co_image_deep(memo, node));
    }
    set(tree, "iops_wr", json_integer(0));
    set(tree, "ro", json_boolean(node->read_only || node->corrupt));
    member_set_text(tree, "node-name", node->name);
    set(tree, "backing_file_depth", json_integer(chain_depth(node)));
    member_set_text(tree, "drv", node->driver->name);
    set(tree, "iops", json_integer(0));
    set(tree, "bps_wr", json_integer(0));
    set(tree, "write_threshold", json_integer(0));
    if (node->backing) {
        member_set_text(tree, "backing_file", node->backing->filename);
    }
    set(tree, "encrypted", json_false());
    set(tree, "bps", json_integer(0));
    set(tree, "bps_rd", json_integer(0));
    set(cache, "no-flush", json_boolean(node->no_flush));
    set(cache, "direct", json_boolean(node->cache_direct));
    set(cache, "writeback", json_boolean(!node->writethrough));
    set(tree, "cache", cache);
    member_set_text(tree, "file", node->filename);
    co_node_unref(kept);
    return tree;
}

/* "bps-total-max" is "bps_max" here, "iops-read" is "iops_rd". */
static void limit_name(const char *limit, char out[32])
{
    static const char *const parts[][2] = { { "-total", "" }, { "-read", "_rd" }, { "-write", "_wr" } };
    const char *dash = strchr(limit, '-');

    strcpy(out, limit);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        size_t len = strlen(parts[i][0]);

        if (!strncmp(dash, parts[i][0], len)) {
            snprintf(out, 32, "%.*s%s%s", (int)(dash - limit), limit, parts[i][1], dash + len);
        }
    }
    for (char *p = out; *p; p++) {
        *p = *p == '-' ? '_' : *p;
    }
}

/* The limits as members: all averages, and what goes with a burst where there is one. */
static json_t *limit_members(const struct throttle_member *m)
{
    json_t *limits = throttle_member_limits(m), *out = json_object(), *value;
    const char *key;
    char name[32];

    json_object_foreach(limits, key, value) {
        AUTOFREE char *max = strstr(key, "-max-length") ? mem_printf("%.*s", (int)(strlen(key) - 7), key) : NULL;
        bool average = !strstr(key, "-max") && strcmp(key, "iops-size") != 0;

        limit_name(key, name);
        if (average || json_integer_value(max ? json_object_get(limits, max) : value)) {
            json_object_set(out, name, value);
        }
    }
    json_decref(limits);
    member_set_text(out, "group", throttle_member_group(m));
    return out;
}

/* A node's tree with a disk's limits in it, in QEMU's order.  Takes both over; no limits: NULL. */
static json_t *with_limits(json_t *tree, json_t *limits)
{
    static const char *const order[] = {
        "iops_rd", "detect_zeroes", "iops_max_length", "bps_max_length", "image", "iops_wr", "group", "ro", "node-name",
        "bps_wr_max_length", "iops_size", "backing_file_depth", "bps_wr_max", "bps_rd_max_length", "iops_rd_max_length",
        "drv", "iops_rd_max", "bps_max", "iops", "bps_wr", "bps_rd_max", "write_threshold", "backing_file", "encrypted",
        "bps", "bps_rd", "cache", "iops_max", "file", "iops_wr_max_length", "iops_wr_max",
    };
    json_t *all;

    if (!limits) {
        return tree;
    }
    all = json_object();
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        json_t *value = json_object_get(limits, order[i]) ?: json_object_get(tree, order[i]);

        if (value) {
            json_object_set(all, order[i], value);
        }
    }
    json_object_update_missing(all, tree);
    json_decref(limits);
    json_decref(tree);
    return all;
}

json_t *co_disk_tree(struct image_memo *memo, struct disk *disk)
{
    json_t *tree = json_object();
    const char *io_status = disk->io_status_nospace ? "nospace" : disk->io_status_failed ? "failed" : "ok";
    AUTOFREE char *qdev = mem_strdup(disk->qdev);
    bool has_tray = disk_has_tray(disk), tray_open = disk->tray_open;

    if (qdev) {
        set(tree, "io-status", json_string(io_status));
    }
    member_set_text(tree, "device", disk->id);
    set(tree, "locked", json_false());
    set(tree, "removable", json_boolean(disk->removable));
    if (disk->root) {
        json_t *limits = disk->throttle.group ? limit_members(&disk->throttle) : NULL;

        set(tree, "inserted", with_limits(co_node_tree(memo, disk->root, false), limits)); /* `disk` may be gone now */
    }
    if (has_tray) {
        set(tree, "tray_open", json_boolean(tray_open));
    }
    if (qdev) {
        member_set_text(tree, "qdev", qdev);
    }
    set(tree, "type", json_string("unknown"));
    return tree;
}

/* --- Statistics ------------------------------------------------------------------------------------------------------- */

static const struct disk_stats no_stats;

static json_t *stats_tree(const struct disk_stats *s, uint64_t highest, bool accounted)
{
    json_t *tree = json_object();
    const struct {
        const char *key;
        uint64_t value;
    } members[] = {
        { "unmap_operations", s->ops[DISK_UNMAP] },
        { "unmap_merged", 0 },
        { "flush_total_time_ns", s->total_ns[DISK_FLUSH] },
        { "wr_highest_offset", highest },
        { "wr_total_time_ns", s->total_ns[DISK_WRITE] },
        { "failed_wr_operations", s->failed[DISK_WRITE] },
        { "failed_rd_operations", s->failed[DISK_READ] },
        { "wr_merged", 0 },
        { "wr_bytes", s->bytes[DISK_WRITE] },
        { "timed_stats", UINT64_MAX },
        { "failed_unmap_operations", s->failed[DISK_UNMAP] },
        { "failed_flush_operations", s->failed[DISK_FLUSH] },
        { "account_invalid", UINT64_MAX },
        { "rd_total_time_ns", s->total_ns[DISK_READ] },
        { "invalid_unmap_operations", s->invalid[DISK_UNMAP] },
        { "flush_operations", s->ops[DISK_FLUSH] },
        { "wr_operations", s->ops[DISK_WRITE] },
        { "unmap_bytes", s->bytes[DISK_UNMAP] },
        { "rd_merged", 0 },
        { "rd_bytes", s->bytes[DISK_READ] },
        { "unmap_total_time_ns", s->total_ns[DISK_UNMAP] },
        { "invalid_flush_operations", s->invalid[DISK_FLUSH] },
        { "account_failed", UINT64_MAX },
        { "rd_operations", s->ops[DISK_READ] },
        { "invalid_wr_operations", s->invalid[DISK_WRITE] },
        { "invalid_rd_operations", s->invalid[DISK_READ] },
    };

    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        bool number = members[i].value != UINT64_MAX;

        set(tree, members[i].key, number                            ? json_integer(members[i].value) :
                                  members[i].key[0] == 't' /*imed*/ ? json_array() :
                                                                      json_boolean(accounted));
    }
    if (s->last_access_ns) {
        set(tree, "idle_time_ns", json_integer(loop_now() - s->last_access_ns));
    }
    return tree;
}

/* What only this driver counts. */
static void set_specific(json_t *tree, const struct node *node)
{
    if (node->driver == &driver_file) {
        set(tree, "driver-specific",
            json_pack("{s:I, s:I, s:s, s:I}", "discard-bytes-ok", (json_int_t)node->stats.host_discarded_bytes,
                      "discard-nb-ok", (json_int_t)node->stats.host_discards, "driver", node->driver->name,
                      "discard-nb-failed", (json_int_t)node->stats.host_discards_failed));
    }
}

/* The file below a format. */
static json_t *parent_stats(const struct node *file)
{
    json_t *tree = json_object();

    set(tree, "stats", stats_tree(&no_stats, file->stats.highest_written, false));
    member_set_text(tree, "node-name", file->name);
    set_specific(tree, file);
    return tree;
}

static json_t *node_stats_tree(const struct node *node, const struct disk_stats *stats, json_t *below)
{
    json_t *tree = json_object();

    if (node && node->file) {
        set(tree, "parent", parent_stats(node->file));
    }
    set(tree, "stats", stats_tree(stats, node ? node->stats.highest_written : 0, stats != &no_stats));
    if (below) {
        set(tree, "backing", below);
    }
    if (node) {
        member_set_text(tree, "node-name", node->name);
        set_specific(tree, node);
    }
    return tree;
}

json_t *node_stats_alone(const struct node *node)
{
    return node_stats_tree(node, &no_stats, NULL);
}

json_t *disk_stats_tree(const struct disk *disk)
{
    json_t *tree = json_object(), *below = NULL, *members;
    const struct node **chain = NULL;
    size_t n = 0;

    for (const struct node *node = disk->root; node; node = node->backing) {
        chain = mem_reallocarray(chain, n + 1, sizeof(*chain));
        chain[n++] = node;
    }
    for (size_t i = n; i > 1; i--) {
        below = node_stats_tree(chain[i - 1], &no_stats, below);
    }
    member_set_text(tree, "device", disk->id);
    members = node_stats_tree(disk->root, &disk->stats, below);
    json_object_update(tree, members);
    json_decref(members);
    if (disk->qdev) {
        member_set_text(tree, "qdev", disk->qdev);
    }
    free(chain);
    return tree;
}
