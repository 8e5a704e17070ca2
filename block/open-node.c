/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One node on its way to be opened: its name, the options that every node has, its driver's open.
 *
 * Which nodes a tree of options asks for, and in which order, is open.c's business.
 */
#include "block/open.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "core/keyval.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"

#define NODE_NAME_MAX 31

/* --- Options ------------------------------------------------------------------------------------------------ */

const char *node_option_str(struct node *node, const char *key)
{
    json_t *value = json_object_get(node->options, key);

    json_object_del(node->unused, key);
    return json_string_value(value);
}

int node_option_bool(struct node *node, const char *key, bool *out, struct error *err)
{
    json_object_del(node->unused, key);
    return open_take_bool(node->options, key, out, err);
}

int node_option_size(struct node *node, const char *key, uint64_t *out, struct error *err)
{
    json_t *value = json_object_get(node->options, key);
    const char *text = node_option_str(node, key);

    if (!value) {
        return 0;
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = json_integer_value(value);
        return 0;
    }
    if (!text || size_parse(text, 1, out, NULL)) {
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", key);
        error_hint(err, SIZE_SUFFIXES_HINT);
        return -EINVAL;
    }
    return 0;
}

/* A boolean that must be well-formed, "on" or "off" as people write it. */
int open_take_bool(json_t *options, const char *key, bool *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);

    if (!value) {
        return 0;
    }
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
    } else if (!text || keyval_switch(text, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        return -EINVAL;
    }
    return 0;
}

/* --- Names -------------------------------------------------------------------------------------------------- */

bool id_wellformed(const char *id)
{
    if (!isalpha((unsigned char)id[0])) {
        return false;
    }
    for (; *id; id++) {
        if (!isalnum((unsigned char)*id) && !strchr("-._", *id)) {
            return false;
        }
    }
    return true;
}

int node_give_name(struct node *node, const char *wanted, struct error *err)
{
    static unsigned long counter;

    if (!wanted) {
        node->name = mem_printf("#block%lu%02u", counter++, (unsigned)loop_random_below(100)); /* nobody can give such a name */
        return 0;
    }
    if (!id_wellformed(wanted)) {
        error_set(err, "Invalid node-name: '%s'", wanted);
        return -EINVAL;
    }
    if (disk_find(wanted)) {
        error_set(err, "node-name=%s is conflicting with a device id", wanted);
        return -EINVAL;
    }
    if (node_find(wanted)) {
        error_set(err, "Duplicate nodes with node-name='%s'", wanted);
        return -EINVAL;
    }
    if (strlen(wanted) > NODE_NAME_MAX) {
        error_set(err, "Node name too long");
        return -EINVAL;
    }
    node->name = mem_strdup(wanted);
    return 0;
}

/* --- One node -------------------------------------------------------------------------------------------------- */

const char *node_child_key(const struct driver *driver)
{
    return driver->child ? driver->child : "file";
}

struct node *node_new(const struct driver *driver, json_t *options)
{
    struct node *node = mem_zalloc(sizeof(*node));

    node->driver = driver;
    node->refs = 1;
    node->options = json_copy(options);
    if (!driver->is_protocol) {
        json_object_del(node->options, node_child_key(driver));
    }
    node->unused = json_copy(node->options);
    LIST_INIT(&node->layer_of);
    LIST_INIT(&node->requests);
    co_queue_init(&node->drain_queue);
    co_queue_init(&node->idle_queue);
    return node;
}

void node_enter_opening(struct node *node)
{
    node->opening = true;
    TAILQ_INSERT_TAIL(&opening_nodes, node, link);
}

static void node_leave_opening(struct node *node)
{
    if (node->opening) {
        TAILQ_REMOVE(&opening_nodes, node, link);
        node->opening = false;
    }
}

void co_node_discard_unopened(struct node *node)
{
    struct node *file = node->file;

    node_leave_opening(node);
    json_decref(node->options);
    json_decref(node->unused);
    free(node->name);
    free(node->filename);
    free(node->backing_name);
    free(node->backing_format);
    free(node);
    co_node_unref(file);
}

static int take_policies(struct node *node, struct error *err)
{
    const char *discard = node_option_str(node, "discard");
    const char *zeroes = node_option_str(node, "detect-zeroes");

    node->discard_unmap = false; /* as in QEMU, a guest's discard is a hint that is ignored unless asked for */
    if (discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"))) {
        node->discard_unmap = true;
    } else if (discard && strcmp(discard, "ignore") != 0 && strcmp(discard, "off") != 0) {
        error_set(err, "Invalid discard option");
        return -EINVAL;
    }
    if (zeroes && !strcmp(zeroes, "on")) {
        node->detect_zeroes = 1;
    } else if (zeroes && !strcmp(zeroes, "unmap")) {
        node->detect_zeroes = 2;
    } else if (zeroes && strcmp(zeroes, "off") != 0) {
        error_set(err, "Parameter 'detect-zeroes' does not accept value '%s'", zeroes);
        return -EINVAL;
    }
    return 0;
}

/* What every driver has.  `inherit` is the parent's options for what children take over. */
int node_take_common(struct node *node, bool read_only, struct error *err)
{
    static const char *const generic[] = { "driver", "node-name", "backing", "filename", "read-only",
                                           "auto-read-only", "force-share", "cache", "throttling-group" };
    json_t *cache = json_object_get(node->options, "cache");
    bool direct = false, no_flush = false;
    int ret = open_take_bool(node->options, "read-only", &read_only, err);

    if (ret == 0 && cache) {
        ret = open_take_bool(cache, "direct", &direct, err);
        if (ret == 0) {
            ret = open_take_bool(cache, "no-flush", &no_flush, err);
        }
    }
    if (ret == 0) {
        ret = open_take_bool(node->options, "force-share", &node->force_share, err);
    }
    if (ret == 0) {
        ret = open_take_bool(node->options, "auto-read-only", &node->auto_read_only, err);
    }
    if (ret == 0 && node->force_share && !read_only) {
        error_set(err, "force-share=on can only be used with read-only images");
        ret = -EINVAL;
    }
    if (ret == 0) {
        ret = take_policies(node, err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(generic); i++) {
        json_object_del(node->unused, generic[i]);
    }
    if (json_is_object(cache)) { /* what else it says is nobody's */
        json_t *rest = json_copy(cache);

        json_object_del(rest, "direct");
        json_object_del(rest, "no-flush");
        if (json_object_size(rest) > 0) {
            json_object_set(node->unused, "cache", rest);
        }
        json_decref(rest);
    }
    node->read_only = node->want_read_only = read_only;
    node->cache_direct = direct;
    node->no_flush = no_flush;
    return ret;
}

static int refuse_unused(struct node *node, struct error *err)
{
    void *first = json_object_iter(node->unused);
    AUTOFREE char *key = mem_strdup(json_object_iter_key(first));

    if (!key) {
        return 0;
    }
    for (json_t *value = json_object_iter_value(first); json_object_size(value) > 0;) { /* "throttling.foo" */
        void *inner = json_object_iter(value);
        char *longer = mem_printf("%s.%s", key, json_object_iter_key(inner));

        free(key);
        key = longer;
        value = json_object_iter_value(inner);
    }
    if (node->driver->is_protocol || node->driver->parse_name) {
        error_set(err, "Block protocol '%s' doesn't support the option '%s'", node->driver->name, key);
    } else {
        error_set(err, "Block format '%s' does not support the option '%s'", node->driver->name, key);
    }
    return -EINVAL;
}

/* Run the driver's open on a node that has a name and a file; takes the node over on success, frees it on failure. */
struct node *co_node_finish_open(struct node *node, struct error *err)
{
    struct error why = ERROR_INIT;
    int ret = node->driver->co_open(node, &why);

    if (ret == 0 && *node->name != '#' && node_find(node->name)) { /* we suspended: somebody may have been faster */
        error_set(&why, "Duplicate nodes with node-name='%s'", node->name);
        node->driver->co_close(node);
        ret = -EEXIST;
    } else if (ret == 0) {
        ret = refuse_unused(node, &why);
        node_measure_nesting(node);
        ret = ret ? ret : node_check_nesting(node, &why);
        if (ret < 0) {
            node->driver->co_close(node);
        }
    }
    if (ret < 0) {
        if (!error_is_set(&why)) {
            error_set_errno(&why, ret, "Could not open '%s'", node->filename);
        }
        error_move(err, &why);
        co_node_discard_unopened(node);
        return NULL;
    }
    assert(node->filename);
    node_event_listeners += node->driver->event != NULL;
    json_decref(node->unused);
    node->unused = NULL;
    node_leave_opening(node);
    TAILQ_INSERT_TAIL(&all_nodes, node, link);
    return node;
}
