/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening the images that a command is about.
 */
#include <stdio.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "core/text.h"
#include "img/command.h"

int img_open_args(const struct img_args *args, struct img_open *out)
{
    out->format = img_value(args, "f");
    out->image_opts = img_has(args, "image-opts");
    out->share = img_has(args, "U");
    if (out->image_opts && out->format) {
        img_complain("--image-opts and --format are mutually exclusive");
        return -1;
    }
    return 0;
}

static void warn_of_flag(const char *flag, const char *key, bool on, void *unused)
{
    AUTOFREE char *shown = text_shown(key);

    img_complain("warning: short-form boolean option '%s' deprecated", flag);
    fprintf(stderr, "Please use %s=%s instead\n", shown, on ? "on" : "off");
}

/* "driver=qcow2,file.filename=x": a tree, as -blockdev takes it.  A first word without a key is a node's name. */
static json_t *image_options(const char *text, struct error *err)
{
    json_t *flat = keyval_parse(text, "file", err), *tree = NULL;
    const char *id = json_string_value(json_object_get(flat, "id"));

    if (flat) {
        keyval_each_flag(text, true, warn_of_flag, NULL);
    }
    if (id && !id_wellformed(id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
    } else if (flat) {
        tree = keyval_nest(flat, err);
    }
    json_decref(flat);
    return tree;
}

static json_t *open_options(const struct img_open *o, struct error *err)
{
    json_t *options = o->image_opts ? image_options(o->filename, err) : json_object();

    if (!options) {
        return NULL;
    }
    if (o->format) {
        json_object_set_new(options, "driver", json_string(o->format));
    }
    if (o->no_backing) {
        json_object_set_new(options, "backing", json_null());
    }
    if (o->share) {
        json_object_set_new(options, "force-share", json_true());
    }
    if (!json_object_get(options, "read-only")) {
        json_object_set_new(options, "read-only", json_boolean(!o->writable));
    }
    if (o->cache) {
        json_object_set_new(options, "cache", img_cache_options(o->cache));
    }
    if (o->writable) { /* the tool gives back what it frees */
        json_object_set_new(options, "discard", json_string("unmap"));
    }
    return options;
}

struct node *co_img_open(const struct img_open *o)
{
    struct error err = ERROR_INIT;
    json_t *options = open_options(o, &err);
    struct node *node;

    if (!options) {
        img_complain_error(&err);
        return NULL;
    }
    node = co_node_open(o->image_opts ? NULL : o->filename, options, &err);
    json_decref(options);
    if (node && o->cache && (!strcmp(o->cache, "writethrough") || !strcmp(o->cache, "directsync"))) {
        node->writethrough = true;
    }
    if (!node && error_is_set(&err)) {
        error_prepend(&err, "Could not open '%s': ", o->filename);
        img_complain_error(&err);
    }
    return node;
}
