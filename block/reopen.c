/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen, what is wanted: each item of the list, and the children whose options stand in it, become a change
 * (reopen.h; reopen-apply.c makes them).  Everything that can be said without touching a node is said here.
 */
#include "block/reopen-change.h"

#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/open.h"
#include "block/permission.h"
#include "core/mem.h"

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

static bool is_changeable(const char *key)
{
    static const char *const list[] = { "driver", "node-name", "read-only", "discard", "detect-zeroes", "cache", "backing",
                                        "auto-read-only", "drop-cache", NULL };

    return is_one_of(key, list);
}

/* The place of the first word in a list or an object: QEMU's options are flat. */
static int cannot_change_in(struct changes *all, const char *key, const json_t *value)
{
    AUTOFREE char *path = mem_strdup(key);
    char *longer;

    for (; json_is_object(value) || json_is_array(value); free(path), path = longer) {
        void *first = json_object_iter((json_t *)value);

        longer = first ? mem_printf("%s.%s", path, json_object_iter_key(first)) : mem_printf("%s.0", path);
        value = first ? json_object_iter_value(first) : json_array_get(value, 0);
    }
    return cannot_change(all, path);
}

/* What does not go back to its default must be said again. */
static int check_missing(struct changes *all, const struct change *c)
{
    const char *child = node_child_key(c->node->driver);

    for (const struct block_key *key = c->node->driver->keys; key && key->name && !c->node->driver->own_reopen; key++) {
        if (json_object_get(c->node->options, key->name) && !json_object_get(c->options, key->name) &&
            strcmp(key->name, child) && !is_changeable(key->name)) {
            error_set(all->err, "Option '%s' cannot be reset to its default value", key->name);
            return -EINVAL;
        }
    }
    return 0;
}

/* What cannot be changed must be what it was; what the driver can be told anew makes it open anew. */
static int check_rest(struct changes *all, struct change *c)
{
    const char *key, *child = node_child_key(c->node->driver);
    const struct block_key *own = c->node->driver->own_reopen ? c->node->driver->keys : NULL;
    json_t *value;

    json_object_foreach(c->options, key, value) {
        if (strcmp(key, child) && !is_changeable(key) && !block_key_find(own, key) &&
            !json_equal(value, json_object_get(c->node->options, key))) {
            return cannot_change_in(all, key, value);
        }
    }
    for (; own && own->name; own++) {
        if (strcmp(own->name, child) && !is_changeable(own->name) &&
            !json_equal(json_object_get(c->options, own->name), json_object_get(c->node->options, own->name))) {
            c->anew = true;
        }
    }
    return 0;
}

json_t *change_options(const struct change *c)
{
    json_t *options = json_copy(c->options), *shares = json_object_get(c->node->options, "force-share");

    if (shares) {
        json_object_set(options, "force-share", shares);
    }
    if (!c->node->driver->is_protocol) {
        json_object_del(options, node_child_key(c->node->driver));
    }
    json_object_del(options, "backing");
    return options;
}

/* Options in the place of a child are for one that was made in that place. */
static int check_in_place(struct changes *all, const char *key, const struct node *child)
{
    AUTOFREE char *driver = mem_printf("%s.driver", key);

    return child && !child->monitor_owned ? 0 : cannot_change(all, driver);
}

static int plan_backing(struct changes *all, struct change *c)
{
    json_t *value = json_object_get(c->options, "backing");
    const char *name = json_string_value(value);
    struct node *below = name && *name ? node_find(name) : NULL;

    c->backing = c->node->backing;
    if (json_is_object(value)) {
        return check_in_place(all, "backing", c->node->backing);
    }
    if (!value && (c->node->backing || c->node->backing_name)) {
        error_set(all->err, "backing is missing for '%s'", c->node->name);
    } else if (name && *name && !below) {
        error_set(all->err, "Cannot find device='' nor node-name='%s'", name);
    } else if (below && node_reaches(below, c->node)) {
        error_set(all->err, "Making '%s' a backing child of '%s' would create a cycle", name, c->node->name);
    } else if (value && below != c->node->backing && c->node->backing_frozen) {
        error_set(all->err, "Cannot change frozen 'backing' link from '%s' to '%s'", c->node->name,
                  c->node->backing->name);
    } else if (below && below->nesting + below->driver->is_filter > NODE_NESTING_MAX) {
        error_set(all->err, "Cannot stack more than %d nodes on each other", NODE_NESTING_MAX);
    } else {
        c->backing = value ? below : c->node->backing;
        return 0;
    }
    return -EINVAL;
}

int change_check_file(struct changes *all, const struct change *c, struct node *file)
{
    if (node_reaches(file, c->node)) {
        error_set(all->err, "Making '%s' a file child of '%s' would create a cycle", file->name, c->node->name);
    } else if (file->read_only && file->want_read_only && !c->read_only) {
        error_set(all->err, "Block node is read-only");
    } else if (!open_may_stand_on(c->node->driver, file)) {
        error_set(all->err, "Node '%s' cannot be used as the file of an image", file->name);
    } else if (file->nesting + 1 > NODE_NESTING_MAX) {
        error_set(all->err, "Cannot stack more than %d nodes on each other", NODE_NESTING_MAX);
    } else {
        return node_check_free(file, all->err);
    }
    return -EINVAL;
}

static int plan_file(struct changes *all, struct change *c)
{
    const char *key = node_child_key(c->node->driver);
    json_t *value = json_object_get(c->options, key);
    const char *name = json_string_value(value);
    struct node *file;

    c->file = c->node->file;
    if (!c->node->file || !value) {
        return 0;
    }
    if (!name) {
        return check_in_place(all, key, c->node->file);
    }
    if (!strcmp(name, c->node->file->name)) {
        return 0;
    }
    if (!c->node->driver->own_reopen) {
        return cannot_change(all, key);
    }
    file = node_find(name);
    if (!file) {
        error_set(all->err, "Cannot find device='' nor node-name='%s'", name);
        return -ENOENT;
    }
    c->anew = true;
    c->file = file;
    return change_check_file(all, c, file);
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
    if (!parent || c->node == parent->node->backing) {
        return;
    }
    /* A file takes over what it does not say. */
    if (!json_object_get(c->options, "read-only")) {
        c->read_only = parent->read_only;
    }
    if (!json_object_get(cache, "direct")) {
        c->direct = parent->direct;
    }
}

/* Those above would not expect it to be writable. */
static int check_overlays(struct changes *all, const struct change *c)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->backing == c->node && !c->read_only && c->node->read_only) {
            error_set(all->err, "Node '%s' is busy: node is used as backing hd of '%s'", c->node->name, n->name);
            return -EBUSY;
        }
    }
    return 0;
}

static int plan_options(struct changes *all, struct change *c, const struct change *parent)
{
    const char *driver = word(c->options, "driver"), *name = word(c->options, "node-name");

    if (check_missing(all, c) < 0) {
        return -EINVAL;
    }
    if (driver && strcmp(driver, c->node->driver->name)) {
        return cannot_change(all, "driver");
    }
    if (name && strcmp(name, c->node->name)) {
        return cannot_change(all, "node-name");
    }
    if (node_check_free(c->node, all->err) < 0) {
        return -EBUSY;
    }
    if (c->node->driver->no_reopen) {
        error_set(all->err, "Block format '%s' used by node '%s' does not support reopening files", c->node->driver->name,
                  c->node->name);
        return -ENOTSUP;
    }
    plan_policies(c, parent);
    return check_rest(all, c);
}

/* An item of the list, or a child's options in place of its name. */
static int plan_node(struct changes *all, struct node *node, json_t *options, const struct change *parent)
{
    struct change c = { .node = node, .options = options, .was_read_only = node->read_only,
                        .was_direct = node->cache_direct };

    if (plan_options(all, &c, parent) < 0) {
        return -EINVAL;
    }
    if (c.detect_zeroes == 2 && !c.discard_unmap) {
        error_set(all->err, "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return -EINVAL;
    }
    if (check_overlays(all, &c) < 0 || plan_backing(all, &c) < 0 || plan_file(all, &c) < 0) {
        return -EINVAL;
    }
    node_ref(node);
    c.backing = c.backing ? node_ref(c.backing) : NULL;
    c.file = c.file ? node_ref(c.file) : NULL;
    all->list = mem_reallocarray(all->list, all->count + 1, sizeof(*all->list));
    all->list[all->count++] = c;
    return 0;
}

static int plan_children(struct changes *all, const struct change parent)
{
    json_t *file = json_object_get(parent.options, node_child_key(parent.node->driver));
    json_t *backing = json_object_get(parent.options, "backing");
    int ret = 0;

    if (json_is_object(file) && parent.node->file) {
        ret = plan_node(all, parent.node->file, file, &parent);
    }
    if (ret == 0 && json_is_object(backing)) {
        ret = plan_node(all, parent.node->backing, backing, &parent);
    }
    return ret;
}

static int plan_item(struct changes *all, json_t *options)
{
    const char *name = word(options, "node-name");
    struct node *node = name ? node_find(name) : NULL;
    size_t i = all->count;
    int ret;

    if (!node) {
        error_set(all->err, name ? "Failed to find node with node-name='%s'" : "node-name not specified", name);
        return -ENOENT;
    }
    ret = plan_node(all, node, options, NULL);
    for (; ret == 0 && i < all->count; i++) { /* as deep as the tree */
        ret = plan_children(all, all->list[i]);
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
        ret = co_changes_apply(&all);
    }
    for (i = 0; i < all.count; i++) {
        co_node_unref(all.list[i].backing);
        co_node_unref(all.list[i].file);
        co_node_unref(all.list[i].node);
    }
    free(all.list);
    return ret;
}
