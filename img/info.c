/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `info`: what an image is, and with --backing-chain what lies below it.
 *
 * Each image is opened alone, so a chain is shown down to where it breaks.
 */
#include <stdio.h>
#include <string.h>

#include "block/path.h"
#include "block/qcow2.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

/* --- The tree ----------------------------------------------------------------------------------------------------- */

static void set(json_t *tree, const char *key, json_t *value)
{
    json_object_set_new(tree, key, value);
}

/* File names need not be UTF-8; they come out byte by byte where they are not. */
static void set_text(json_t *tree, const char *key, const char *text)
{
    set(tree, key, json_stringn_nocheck(text, strlen(text)));
}

static void add_qcow2(json_t *tree, struct node *node)
{
    const struct qcow2 *q = node->state;

    set(tree, "cluster-size", json_integer(q->cluster_size));
    if (q->h.nb_snapshots) {
        set(tree, "snapshots", qcow2_snapshot_trees(node));
    }
    set(tree, "dirty-flag", json_boolean(q->dirty_bit_found));
}

/* The format's own words; bitmaps stand among them where QEMU has them. */
static json_t *co_specific(struct node *node)
{
    json_t *tree = node->driver->describe(node), *bitmaps = NULL, *data, *value;
    const char *key;

    if (node->driver == &driver_qcow2) {
        bitmaps = co_qcow2_bitmap_trees(node);
    }
    if (bitmaps) {
        data = json_object();
        json_object_foreach(json_object_get(tree, "data"), key, value) {
            json_object_set(data, key, value);
            if (!strcmp(key, "lazy-refcounts")) {
                json_object_set_new(data, "bitmaps", bitmaps);
            }
        }
        set(tree, "data", data);
    }
    return tree;
}

static json_t *co_image_tree(struct node *node, const char *filename)
{
    json_t *tree = json_object();
    uint64_t bytes = 0;

    set_text(tree, "filename", filename);
    set_text(tree, "format", node->driver->name);
    set(tree, "virtual-size", json_integer(node->size));
    if (node_host_file(node) && !co_io_allocated(node_host_file(node), &bytes)) {
        set(tree, "actual-size", json_integer(bytes));
    }
    set(tree, "dirty-flag", json_false());
    if (node->driver == &driver_qcow2) {
        add_qcow2(tree, node);
    }
    if (node->driver->describe) {
        set(tree, "format-specific", co_specific(node));
    }
    if (node->backing_name) {
        AUTOFREE char *full = path_combine(node->filename, node->backing_name);

        set_text(tree, "backing-filename", node->backing_name);
        set_text(tree, "full-backing-filename", full);
    }
    if (node->backing_format) {
        set_text(tree, "backing-filename-format", node->backing_format);
    }
    return tree;
}

/* --- The text ----------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *tree, const char *key)
{
    return json_string_value(json_object_get(tree, key));
}

static void print_value(const char *name, const json_t *value, int indent);

/* Members and elements of `tree`, each on a line or below one. */
static void print_inside(const json_t *tree, int indent)
{
    const char *key;
    json_t *value;
    size_t i;

    json_array_foreach(tree, i, value) {
        AUTOFREE char *name = mem_printf("[%zu]", i);

        print_value(name, value, indent);
    }
    json_object_foreach((json_t *)tree, key, value) {
        AUTOFREE char *words = mem_strdup(key);

        for (char *p = words; *p; p++) {
            *p = *p == '-' ? ' ' : *p;
        }
        print_value(words, value, indent);
    }
}

static void print_value(const char *name, const json_t *value, int indent)
{
    printf("%*s%s:", indent, "", name);
    if (json_is_array(value) || json_is_object(value)) {
        putchar('\n');
        print_inside(value, indent + 4);
    } else if (json_is_string(value)) {
        img_print(" %s\n", json_string_value(value));
    } else if (json_is_boolean(value)) {
        printf(" %s\n", json_is_true(value) ? "true" : "false");
    } else {
        printf(" %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
    }
}

static void print_specific(const json_t *specific)
{
    json_t *data = json_object_get(specific, "data");

    if (data) {
        printf("Format specific information:\n");
        print_inside(data, 4);
    }
}

static void print_image(const json_t *tree)
{
    long long size = json_integer_value(json_object_get(tree, "virtual-size"));
    const char *name = text_of(tree, "backing-filename"), *full = text_of(tree, "full-backing-filename");
    const char *format = text_of(tree, "backing-filename-format");
    json_t *actual = json_object_get(tree, "actual-size"), *cluster = json_object_get(tree, "cluster-size");
    char text[32];

    img_print("image: %s\nfile format: %s\nvirtual size: %s (%lld bytes)\n", text_of(tree, "filename"),
              text_of(tree, "format"), size_format(size, text), size);
    printf("disk size: %s\n", actual ? size_format(json_integer_value(actual), text) : "unavailable");
    if (cluster) {
        printf("cluster_size: %" JSON_INTEGER_FORMAT "\n", json_integer_value(cluster));
    }
    if (json_is_true(json_object_get(tree, "dirty-flag"))) {
        printf("cleanly shut down: no\n");
    }
    if (name) {
        img_print("backing file: %s", name);
        if (strcmp(name, full)) {
            img_print(" (actual path: %s)", full);
        }
        putchar('\n');
    }
    if (format) {
        img_print("backing file format: %s\n", format);
    }
    if (json_object_get(tree, "snapshots")) {
        img_print_snapshots(json_object_get(tree, "snapshots"));
    }
    print_specific(json_object_get(tree, "format-specific"));
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

struct report {
    bool chain;
    json_t *list;  /* of the images so far */
    json_t *names; /* that were visited: a set */
};

/* One image; *next and *format are what lies below it (malloc'ed, NULL: nothing). */
static int co_one(struct report *r, const struct img_open *o, char **next, char **format)
{
    struct node *node = co_img_open(o);

    if (!node) {
        return 1;
    }
    bool described = o->image_opts || !strncmp(o->filename, "json:", 5) || !strncmp(o->filename, "file:", 5);
    const char *name = described ? node->filename : o->filename;
    json_t *tree = co_image_tree(node, name ? name : "");

    *next = mem_strdup(text_of(tree, "full-backing-filename"));
    *format = mem_strdup(node->backing_format);
    json_array_append_new(r->list, tree);
    co_node_unref(node);
    return 0;
}

static int co_chain(struct report *r, struct img_open o)
{
    char *next = NULL, *format = NULL, *name = mem_strdup(o.filename), *fmt = mem_strdup(o.format);
    int code = 0;

    while (name && !code) {
        if (json_object_get(r->names, name)) {
            img_complain("Backing file '%s' creates an infinite loop.", name);
            code = 1;
            break;
        }
        json_object_set_new_nocheck(r->names, name, json_true());
        o.filename = name;
        o.format = fmt;
        code = co_one(r, &o, &next, &format);
        free(name);
        free(fmt);
        name = next;
        fmt = format;
        next = format = NULL;
        o.image_opts = false;
        if (!r->chain) {
            break;
        }
    }
    free(name);
    free(fmt);
    return code;
}

int co_img_info(const struct img_args *args)
{
    struct report r = { .chain = img_has(args, "backing-chain") };
    struct img_open o = { .no_backing = true };
    bool json;

    if (args->n_operands != 1) {
        return img_complain_usage("Expecting one image file name");
    }
    o.filename = args->operands[0];
    if (img_take_output(args, &json) < 0 || img_open_args(args, &o) < 0) {
        return 1;
    }
    r.list = json_array();
    r.names = json_object();
    int code = co_chain(&r, o);

    for (size_t i = 0; !code && !json && i < json_array_size(r.list); i++) {
        printf("%s", i ? "\n" : "");
        print_image(json_array_get(r.list, i));
    }
    if (!code && json) {
        img_print_json(r.chain ? r.list : json_array_get(r.list, 0));
    }
    json_decref(r.list);
    json_decref(r.names);
    return code;
}
