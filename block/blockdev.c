/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option trees, checked and opened: see blockdev.h.
 *
 * A chain may be as deep as it likes, and so may its tree; what is still to be looked at stands in a
 * list, never on the stack.
 */
#include "block/blockdev.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"

static const char *const discards[] = { "ignore", "unmap", NULL };
static const char *const zeroes[] = { "off", "on", "unmap", NULL };
static const struct block_key cache_keys[] = {
    { .name = "direct", .kind = KEY_BOOL, .help = "past the host's page cache (O_DIRECT)" },
    { .name = "no-flush", .kind = KEY_BOOL, .help = "never flush to the host's disk: fast, and lost at a crash" },
    { 0 },
};

const struct block_key block_common_keys[] = {
    { .name = "driver", .kind = KEY_STRING, .required = true, .help = "what the node is" },
    { .name = "node-name", .kind = KEY_STRING, .help = "what the monitor calls it" },
    { .name = "discard", .kind = KEY_ENUM, .choices = discards, .help = "what becomes of a guest's discards" },
    { .name = "cache", .kind = KEY_OBJECT, .members = cache_keys, .help = "how the host's cache is used" },
    { .name = "read-only", .kind = KEY_BOOL, .help = "no writing" },
    { .name = "auto-read-only", .kind = KEY_BOOL, .help = "read-only where the host forbids writing" },
    { .name = "force-share", .kind = KEY_BOOL, .help = "open although another program writes it" },
    { .name = "detect-zeroes", .kind = KEY_ENUM, .choices = zeroes, .help = "zeroes that a guest writes become holes" },
    { 0 },
};

const struct block_key block_create_keys[] = {
    { .name = "driver", .kind = KEY_STRING, .required = true, .help = "who makes the image" },
    { 0 },
};

/* --- The check --------------------------------------------------------------------------------- */

/* An object to be looked at. */
struct item {
    json_t *object;
    char *path;                 /* "file." */
    const struct block_key *as; /* what it has to be */
};
struct check {
    struct item *items;
    size_t count;
    bool from_words;
    struct error *err;
};

static void add_item(struct check *c, json_t *object, const struct item *in, const char *name,
                     const struct block_key *as)
{
    c->items = mem_reallocarray(c->items, c->count + 1, sizeof(*c->items));
    c->items[c->count++] = (struct item){ object, mem_printf("%s%s.", in ? in->path : "", name), as };
    if (!in) {
        c->items[c->count - 1].path[0] = '\0';
    }
}

static int wrong_type(struct check *c, const struct item *in, const char *name, const char *expected)
{
    error_set(c->err, "Invalid parameter type for '%s%s', expected: %s", in->path, name, expected);
    return -EINVAL;
}

/* QEMU names such a member alone. */
static int wrong_alternate(struct check *c, const struct block_key *key)
{
    error_set(c->err, "Invalid parameter type for '%s', expected: %s", key->name,
              key->kind == KEY_NODE ? "BlockdevRef" : "BlockdevRefOrNull");
    return -EINVAL;
}

static int check_bool(struct check *c, const struct item *in, const char *name, json_t *value)
{
    const char *text = json_string_value(value);
    bool on;

    if (!c->from_words) {
        return json_is_boolean(value) ? 0 : wrong_type(c, in, name, "boolean");
    }
    if (!text || keyval_switch(text, &on) < 0) {
        error_set(c->err, "Parameter '%s%s' expects 'on' or 'off'", in->path, name);
        return -EINVAL;
    }
    return json_object_set_new(in->object, name, json_boolean(on));
}

static int check_number(struct check *c, const struct item *in, const char *name, json_t *value, bool is_size)
{
    const char *text = json_string_value(value);
    char *end;
    long long number;

    if (!c->from_words) {
        if (!json_is_integer(value)) {
            return wrong_type(c, in, name, "integer");
        }
        number = json_integer_value(value);
    } else {
        errno = 0;
        number = text ? strtoll(text, &end, 0) : 0;
        if (!text || !*text || *end || errno) {
            error_set(c->err, "Parameter '%s%s' expects integer", in->path, name);
            return -EINVAL;
        }
        json_object_set_new(in->object, name, json_integer(number));
    }
    if (is_size && number < 0) {
        error_set(c->err, "Parameter '%s' expects a non-negative number below 2^64", name);
        error_hint(c->err, SIZE_SUFFIXES_HINT);
        return -EINVAL;
    }
    return 0;
}

static int check_enum(struct check *c, const struct item *in, const struct block_key *key, json_t *value)
{
    const char *text = json_string_value(value);

    if (!text) {
        return wrong_type(c, in, key->name, "string");
    }
    for (const char *const *choice = key->choices; *choice; choice++) {
        if (!strcmp(text, *choice)) {
            return 0;
        }
    }
    error_set(c->err, "Parameter '%s' does not accept value '%s'", key->name, text);
    return -EINVAL;
}

/* By value, as the list of items may move. */
static int check_list(struct check *c, struct item in, const struct block_key *key, json_t *value)
{
    json_t *element;
    size_t i;

    if (!json_is_array(value)) {
        return wrong_type(c, &in, key->name, "array");
    }
    json_array_foreach(value, i, element) {
        AUTOFREE char *name = mem_printf("%s[%zu]", key->name, i);

        if (!json_is_object(element)) {
            return wrong_type(c, &in, name, "object");
        }
        add_item(c, element, &in, name, key);
    }
    return 0;
}

static int check_value(struct check *c, struct item in, const struct block_key *key, json_t *value)
{
    if (c->from_words && json_is_object(value) && key->kind < KEY_NODE && !key->members) {
        error_set(c->err, "Parameters '%s%s.*' are unexpected", in.path, key->name);
        return -EINVAL;
    }
    switch (key->kind) {
    case KEY_STRING:
        return json_is_string(value) ? 0 : wrong_type(c, &in, key->name, "string");
    case KEY_BOOL:
        return check_bool(c, &in, key->name, value);
    case KEY_INT:
    case KEY_SIZE:
        return check_number(c, &in, key->name, value, key->kind == KEY_SIZE);
    case KEY_UINT64:
        if (!json_is_integer(value)) {
            error_set(c->err, "Parameter '%s%s' expects uint64", in.path, key->name);
            return -EINVAL;
        }
        return 0;
    case KEY_ENUM:
        if (key->members && json_is_object(value)) {
            add_item(c, value, &in, key->name, key);
            return 0;
        }
        return check_enum(c, &in, key, value);
    case KEY_LIST:
    case KEY_NODES:
        return check_list(c, in, key, value);
    case KEY_OBJECT:
    case KEY_CREATE:
        if (!json_is_object(value)) {
            return wrong_type(c, &in, key->name, "object");
        }
        add_item(c, value, &in, key->name, key);
        return 0;
    case KEY_NODE:
    case KEY_NODE_OR_NULL:
        if (json_is_object(value)) {
            add_item(c, value, &in, key->name, key);
        } else if (!json_is_string(value) && !(json_is_null(value) && key->kind == KEY_NODE_OR_NULL)) {
            return wrong_alternate(c, key);
        }
    }
    return 0;
}

const struct block_key *block_key_find(const struct block_key *keys, const char *name)
{
    for (; keys && keys->name; keys++) {
        if (!strcmp(keys->name, name)) {
            return keys;
        }
    }
    return NULL;
}

/* The member that says what else there is; NULL: there is none. */
static const char *tag_of(const struct block_key *as)
{
    return as->kind == KEY_OBJECT || as->kind == KEY_LIST || as->kind == KEY_ENUM ? as->tag : "driver";
}

/* The members that an object has because of the value of its tag; the tag itself has been checked. */
static int find_variant(struct check *c, const struct item *in, const struct block_key **own)
{
    bool is_variant = in->as->kind == KEY_OBJECT || in->as->kind == KEY_LIST || in->as->kind == KEY_ENUM;
    const char *tag = tag_of(in->as);
    const char *value = tag ? json_string_value(json_object_get(in->object, tag)) : NULL;
    const struct driver *driver = value && !is_variant ? driver_find(value) : NULL;

    *own = NULL;
    if (!tag) {
        return 0;
    }
    if (driver) {
        *own = in->as->kind == KEY_CREATE ? driver->create_keys : driver->keys;
        return 0;
    }
    for (const struct block_variant *v = in->as->variants; v && v->value; v++) {
        if (!strcmp(v->value, value)) {
            *own = v->members;
            return 0;
        }
    }
    error_set(c->err, "Parameter '%s' does not accept value '%s'", tag, value);
    return -EINVAL;
}

/* The tag's value is judged as soon as it is seen, before what comes behind it. */
static int check_keys(struct check *c, struct item in, const struct block_key *keys)
{
    const char *tag = in.as ? tag_of(in.as) : NULL;
    const struct block_key *own;

    for (; keys && keys->name; keys++) {
        json_t *value = json_object_get(in.object, keys->name);

        if (!value && keys->required) {
            error_set(c->err, "Parameter '%s%s' is missing", in.path, keys->name);
            return -EINVAL;
        }
        if (value && check_value(c, in, keys, value) < 0) {
            return -EINVAL;
        }
        if (value && tag && !strcmp(keys->name, tag) && find_variant(c, &in, &own) < 0) {
            return -EINVAL;
        }
    }
    return 0;
}

static int check_zeroes(struct check *c, const json_t *node)
{
    const char *zeroes = json_string_value(json_object_get(node, "detect-zeroes"));
    const char *discard = json_string_value(json_object_get(node, "discard"));

    if (zeroes && !strcmp(zeroes, "unmap") && (!discard || strcmp(discard, "unmap"))) {
        error_set(c->err, "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return -EINVAL;
    }
    return 0;
}

static const struct block_key *common_members(const struct block_key *as)
{
    switch (as->kind) {
    case KEY_OBJECT:
    case KEY_LIST:
    case KEY_ENUM:
        return as->members;
    case KEY_CREATE:
        return block_create_keys;
    default:
        return block_common_keys;
    }
}

static int check_item(struct check *c, struct item in)
{
    const struct block_key *common = common_members(in.as), *own;
    json_t *value;
    const char *name;
    int ret;

    if (check_keys(c, in, common) < 0) {
        return -EINVAL;
    }
    ret = find_variant(c, &in, &own);
    assert(ret == 0); /* as check_keys() has refused a tag that leads nowhere */
    if (check_keys(c, in, own) < 0) {
        return -EINVAL;
    }
    if (common == block_common_keys && check_zeroes(c, in.object) < 0) {
        return -EINVAL;
    }
    json_object_foreach(in.object, name, value) {
        if (!block_key_find(common, name) && !block_key_find(own, name)) {
            error_set(c->err, "Parameter '%s%s' is unexpected", in.path, name);
            return -EINVAL;
        }
    }
    return 0;
}

static int check_all(struct check *c)
{
    int ret = 0;

    for (size_t i = 0; i < c->count && ret == 0; i++) {
        ret = check_item(c, c->items[i]);
    }
    for (size_t i = 0; i < c->count; i++) {
        free(c->items[i].path);
    }
    free(c->items);
    return ret;
}

int blockdev_check(json_t *tree, bool from_words, struct error *err)
{
    static const struct block_key node = { .kind = KEY_NODE };

    return blockdev_check_object(tree, from_words, &node, err);
}

int blockdev_check_object(json_t *tree, bool from_words, const struct block_key *as, struct error *err)
{
    struct check c = { .from_words = from_words, .err = err };

    add_item(&c, tree, NULL, "", as);
    return check_all(&c);
}

int blockdev_check_member(json_t *object, const struct block_key *key, struct error *err)
{
    struct block_key rows[] = { *key, { 0 } };
    struct check c = { .err = err };
    int ret = check_keys(&c, (struct item){ .object = object, .path = "" }, rows);

    return check_all(&c) < 0 ? -EINVAL : ret;
}

/* --- Nodes of the monitor ------------------------------------------------------------------------ */

struct node *co_blockdev_add(json_t *tree, bool from_words, struct error *err)
{
    json_t *backing;
    struct node *node;

    if (blockdev_check(tree, from_words, err) < 0) {
        return NULL;
    }
    if (!json_object_get(tree, "node-name")) {
        error_set(err, "'node-name' must be specified for the root node");
        return NULL;
    }
    if (!json_is_object(json_object_get(tree, "file")) &&
        node_find(json_string_value(json_object_get(tree, "node-name")))) { /* before its file is found to be in use */
        error_set(err, "Duplicate nodes with node-name='%s'", json_string_value(json_object_get(tree, "node-name")));
        return NULL;
    }
    backing = json_object_get(tree, "backing");
    if (json_is_string(backing) && !*json_string_value(backing)) { /* as it was spelled once */
        json_object_set_new(tree, "backing", json_null());
    }
    node = co_node_open_idle(NULL, tree, err);
    if (node) {
        node->monitor_owned = true;
    }
    return node;
}

int co_blockdev_del(const char *node_name, struct error *err)
{
    struct node *node = node_find(node_name), *over;

    if (!node) {
        error_set(err, "Failed to find node with node-name='%s'", node_name);
        return -ENOENT;
    }
    if (disk_of_root(node)) {
        error_set(err, "Node %s is in use", node_name);
        return -EBUSY;
    }
    if (node_check_free(node, err) < 0) {
        return -EBUSY;
    }
    TAILQ_FOREACH(over, &all_nodes, link) {
        if (over->backing == node) {
            error_set(err, "Node '%s' is busy: node is used as backing hd of '%s'", node->name, over->name);
            return -EBUSY;
        }
    }
    if (!node->monitor_owned) {
        error_set(err, "Node %s is not owned by the monitor", node_name);
        return -EINVAL;
    }
    if (node->refs > 1) { /* somebody's child */
        error_set(err, "Block device %s is in use", node_name);
        return -EBUSY;
    }
    node->monitor_owned = false;
    co_node_unref(node);
    return 0;
}

int co_blockdevs_end(struct error *err)
{
    struct node *node;
    int first = 0;

    do {
        TAILQ_FOREACH_REVERSE(node, &all_nodes, node_list, link) {
            if (node->monitor_owned) {
                int ret = node->read_only ? 0 : co_node_flush(node);

                if (ret < 0 && first == 0) {
                    first = ret;
                    error_set_errno(err, ret, "Could not flush '%s'", node->name);
                }
                node->monitor_owned = false;
                co_node_unref(node); /* the list is another one now */
                break;
            }
        }
    } while (node);
    return first;
}
