/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen: see reopen.h.
 *
 *   plan      one change a node, the file below included when its options are given in place: all is checked
 *   drain     the guests of all these nodes stand still
 *   switch    what can fail: read-only and writable, past the page cache or through it; undone when one fails
 *   settle    what cannot: the policies, the edge to the backing node
 */
#include "block/reopen.h"

#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/chain-map.h"
#include "block/disk.h"
#include "block/file.h"
#include "core/mem.h"

struct change {
    struct node *node;      /* own reference */
    json_t *options;        /* borrowed */
    bool read_only, discard_unmap, direct, no_flush;
    bool was_read_only, was_direct;
    unsigned detect_zeroes;
    bool new_backing;
    struct node *backing;   /* own reference; NULL: none */
    struct node_drain *drain;
};
struct changes {
    struct change *list;
    size_t count;
    struct error *err;
};

static const char *word(json_t *options, const char *key)
{
    return json_string_value(json_object_get(options, key));
}

static bool is_one_of(const char *key, const char *const *list)
{
    while (*list && strcmp(*list, key)) {
        list++;
    }
    return *list;
}

/* --- The plan ------------------------------------------------------------------------------------------------------- */

static int cannot_change(struct changes *all, const char *key)
{
    error_set(all->err, "Cannot change the option '%s'", key);
    return -EINVAL;
}

/* What is neither changed here nor by one of the others must be what it was. */
static int check_rest(struct changes *all, const struct change *c)
{
    static const char *const changeable[] = { "driver", "node-name", "read-only", "discard", "detect-zeroes", "cache",
                                              "backing", NULL };
    static const char *const passing[] = { "auto-read-only", "force-share", "filename", NULL };
    const struct block_key *keys = c->node->driver->keys;
    const char *key, *child = c->node->driver->child ? c->node->driver->child : "file";
    json_t *value;

    json_object_foreach(c->options, key, value) {
        if (strcmp(key, child) && !is_one_of(key, changeable) &&
            !json_equal(value, json_object_get(c->node->options, key))) {
            return cannot_change(all, key);
        }
    }
    for (; keys && keys->name; keys++) {
        if (json_object_get(c->node->options, keys->name) && !json_object_get(c->options, keys->name) &&
            strcmp(keys->name, child) && !is_one_of(keys->name, changeable) && !is_one_of(keys->name, passing)) {
            error_set(all->err, "Option '%s' cannot be reset to its default value", keys->name);
            return -EINVAL;
        }
    }
    return 0;
}

static int plan_backing(struct changes *all, struct change *c)
{
    json_t *value = json_object_get(c->options, "backing");
    const char *name = json_string_value(value);
    struct node *below = name && *name ? node_find(name) : NULL;

    if (!value && c->node->backing) {
        error_set(all->err, "backing is missing for '%s'", c->node->name);
    } else if (json_is_object(value)) {
        cannot_change(all, "backing");
    } else if (name && *name && !below) {
        error_set(all->err, "Cannot find device='' nor node-name='%s'", name);
    } else if (below && node_depth(below, c->node) >= 0) {
        error_set(all->err, "Making '%s' a backing child of '%s' would create a cycle", name, c->node->name);
    } else if (value && below != c->node->backing && c->node->backing_frozen) {
        error_set(all->err, "Cannot change frozen 'backing' link from '%s' to '%s'", c->node->name,
                  c->node->backing->name);
    } else if (below && below->nesting + below->driver->is_filter > NODE_NESTING_MAX) {
        error_set(all->err, "Cannot stack more than %d nodes on each other", NODE_NESTING_MAX);
    } else {
        c->new_backing = value && below != c->node->backing;
        c->backing = c->new_backing && below ? node_ref(below) : NULL;
        return 0;
    }
    return -EINVAL;
}

static bool is_backing(const struct node *node)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->backing == node) {
            return true;
        }
    }
    return false;
}

static void plan_policies(struct change *c, const struct change *parent)
{
    json_t *cache = json_object_get(c->options, "cache");
    const char *discard = word(c->options, "discard"), *zeroes = word(c->options, "detect-zeroes");

    json_t *read_only = json_object_get(c->options, "read-only");

    c->read_only = read_only ? json_is_true(read_only) : is_backing(c->node) && c->node->read_only;
    c->discard_unmap = discard && !strcmp(discard, "unmap");
    c->detect_zeroes = !zeroes || !strcmp(zeroes, "off") ? 0 : !strcmp(zeroes, "on") ? 1 : 2;
    c->direct = json_is_true(json_object_get(cache, "direct"));
    c->no_flush = json_is_true(json_object_get(cache, "no-flush"));
    if (!parent) {
        return;
    }
    /* A child takes over what it does not say. */
    if (!json_object_get(c->options, "read-only")) {
        c->read_only = parent->read_only;
    }
    if (!json_object_get(cache, "direct")) {
        c->direct = parent->direct;
    }
}

/* Who would not expect it to be writable, or not to be. */
static int check_users(struct changes *all, const struct change *c, const struct change *parent)
{
    struct node *n;
    const struct disk *disk;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->backing == c->node && !c->read_only && c->node->read_only) {
            error_set(all->err, "Node '%s' is busy: node is used as backing hd of '%s'", c->node->name, n->name);
            return -EBUSY;
        }
        if (n->file == c->node && c->read_only && !n->read_only && !(parent && parent->node == n)) {
            error_set(all->err, "Read-only block node '%s' cannot support read-write users", c->node->name);
            return -EACCES;
        }
    }
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->root == c->node && c->read_only && !disk->read_only) {
            error_set(all->err, "Read-only block node '%s' cannot support read-write users", c->node->name);
            return -EACCES;
        }
    }
    return 0;
}

/* An item of the list, or a child's options in place of its name; the index of the change, or -errno. */
static int plan_node(struct changes *all, struct node *node, json_t *options, const struct change *parent)
{
    const char *driver = word(options, "driver");
    struct change c = { .node = node, .options = options, .was_read_only = node->read_only,
                        .was_direct = node->cache_direct };

    if (driver && strcmp(driver, node->driver->name)) {
        return cannot_change(all, "driver");
    }
    if (node_check_free(node, all->err) < 0) {
        return -EBUSY;
    }
    plan_policies(&c, parent);
    if (c.detect_zeroes == 2 && !c.discard_unmap) {
        error_set(all->err, "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return -EINVAL;
    }
    if (check_rest(all, &c) < 0 || check_users(all, &c, parent) < 0 || plan_backing(all, &c) < 0) {
        return -EINVAL;
    }
    node_ref(node);
    all->list = mem_reallocarray(all->list, all->count + 1, sizeof(*all->list));
    all->list[all->count] = c;
    return all->count++;
}

static int plan_item(struct changes *all, json_t *options)
{
    const char *name = word(options, "node-name");
    struct node *node = name ? node_find(name) : NULL;
    int at;

    if (!node) {
        error_set(all->err, name ? "Failed to find node with node-name='%s'" : "node-name not specified", name);
        return -ENOENT;
    }
    at = plan_node(all, node, options, NULL);
    while (at >= 0 && node->file) {
        const char *key = node->driver->child ? node->driver->child : "file";
        json_t *child = json_object_get(options, key);
        const char *ref = json_string_value(child);

        if (!json_is_object(child)) {
            return ref && strcmp(ref, node->file->name) ? cannot_change(all, key) : 0;
        }
        const struct change parent = all->list[at];
        node = node->file;
        options = child;
        at = plan_node(all, node, options, &parent);
    }
    return at < 0 ? at : 0;
}

/* --- The change ----------------------------------------------------------------------------------------------------- */

/* Its file was opened read-only, and nobody says anything else now. */
static bool file_stays_read_only(const struct changes *all, const struct node *node)
{
    for (size_t i = 0; i < all->count; i++) {
        if (all->list[i].node == node->file) {
            return false;
        }
    }
    return node->file && node->file->read_only && node->file->want_read_only;
}

static int co_switch(struct changes *all, struct change *c, bool read_only, bool direct, struct error *err)
{
    int ret = 0;

    if (!read_only && file_stays_read_only(all, c->node)) {
        error_set(err, "Block node is read-only");
        return -EACCES;
    }
    if (c->node->driver == &driver_file) {
        ret = co_file_set_direct(c->node, direct, err);
    }
    if (ret == 0 && c->node->read_only != read_only) {
        ret = co_node_set_writable(c->node, !read_only, err);
    }
    return ret;
}

/* Files that are named change with those that stand above them; one that was opened read-only by name stays so. */
static void co_settle(struct change *c)
{
    struct node *node = c->node;

    node->want_read_only = c->read_only;
    node->discard_unmap = c->discard_unmap;
    node->detect_zeroes = c->detect_zeroes;
    node->cache_direct = c->direct;
    node->no_flush = c->no_flush;
    if (c->new_backing) {
        co_node_set_backing_edge(node, c->backing);
        chain_map_forget_layer(node);
    }
}

static int co_apply(struct changes *all)
{
    size_t done = 0;
    int ret = 0;

    for (size_t i = 0; i < all->count; i++) {
        all->list[i].drain = co_node_drain_begin(all->list[i].node);
    }
    for (size_t i = 0; i < all->count && ret == 0; i++) {
        ret = node_check_free(all->list[i].node, all->err); /* we suspended */
    }
    while (done < all->count && ret == 0) {
        struct change *c = &all->list[done];

        ret = co_switch(all, c, c->read_only, c->direct, all->err);
        done++;
    }
    for (size_t i = 0; i < all->count && ret == 0; i++) {
        co_settle(&all->list[i]);
    }
    while (ret < 0 && done > 0) {
        struct change *c = &all->list[--done];

        co_switch(all, c, c->was_read_only, c->was_direct, NULL);
    }
    for (size_t i = all->count; i-- > 0;) {
        co_node_drain_end(all->list[i].drain);
    }
    return ret;
}

int co_blockdev_reopen(json_t *list, struct error *err)
{
    struct changes all = { .err = err };
    json_t *options;
    size_t i;
    int ret = 0;

    json_array_foreach(list, i, options) {
        ret = plan_item(&all, options);
        if (ret < 0) {
            break;
        }
    }
    if (ret == 0) {
        ret = co_apply(&all);
    }
    for (i = 0; i < all.count; i++) {
        if (all.list[i].backing) {
            co_node_unref(all.list[i].backing);
        }
        co_node_unref(all.list[i].node);
    }
    free(all.list);
    return ret;
}
