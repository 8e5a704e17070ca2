/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening the images that a command is about.
 */
#include <string.h>

#include "core/keyval.h"
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

/* "driver=qcow2,file.filename=x": a tree, as -blockdev takes it. */
static json_t *image_options(const char *text, struct error *err)
{
    json_t *flat = keyval_parse(text, NULL, err);
    json_t *tree = flat ? keyval_nest(flat, err) : NULL;

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
    struct node *node = NULL;

    if (options) {
        node = co_node_open(o->image_opts ? NULL : o->filename, options, &err);
        json_decref(options);
    }
    if (node && o->cache && (!strcmp(o->cache, "writethrough") || !strcmp(o->cache, "directsync"))) {
        node->writethrough = true;
    }
    if (!node && error_is_set(&err)) {
        error_prepend(&err, "Could not open '%s': ", o->filename);
        img_complain_error(&err);
    }
    return node;
}
