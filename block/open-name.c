/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File names that are options: "null-co://", "blkdebug:rules:image", "json:{...}".  What they mean takes their place in the tree
 * before anything is opened, so nobody else knows of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/open.h"
#include "block/path.h"
#include "core/json-parse.h"
#include "core/keyval.h"
#include "core/mem.h"

const char *open_child_key(json_t *options)
{
    const struct driver *driver = driver_find(json_string_value(json_object_get(options, "driver")) ?: "");

    return driver ? node_child_key(driver) : "file";
}

/* "null-co://", "blkdebug:rules:image": names that a driver knows how to read.  The options that they mean come in their place:
 * as those of the child, or of the node itself if it is of that driver (or of none, below a filter or format). */
static int expand_name(json_t *options, const char *filename, bool as_child, struct error *err)
{
    size_t len = filename ? path_protocol_length(filename) : 0;
    AUTOFREE char *name = mem_printf("%.*s", (int)len, filename ? filename : "");
    const struct driver *driver = driver_find(name);
    json_t *meant, *target;
    int ret;

    if (!driver || !driver->parse_name) {
        return 0;
    }
    meant = json_pack("{s:s}", "driver", name);
    ret = driver->parse_name(filename + len + 1, meant, err);
    if (ret == 0 && as_child) {
        target = json_object_get(options, open_child_key(options));
        target = json_is_object(target) ? json_copy(target) : json_object();
        json_object_update(target, meant);
        json_object_del(target, "filename");
        json_object_set_new(options, open_child_key(options), target);
    } else if (ret == 0) {
        json_object_update(options, meant);
        json_object_del(options, "filename");
    }
    json_decref(meant);
    return ret == 0 ? 1 : ret;
}

/* A file name in the options of the child, or of this node. */
static int expand_own_name(json_t *options, struct error *err)
{
    json_t *child = json_object_get(options, open_child_key(options));
    json_t *name = json_object_get(child, "filename");

    if (json_is_object(child) && !json_object_get(child, "driver")) {
        AUTOFREE char *kept = mem_strdup(json_string_value(name));

        return expand_name(options, kept, true, err);
    }
    return 0;
}

int open_expand_names(const char **filename, json_t *options, struct error *err)
{
    const char *own = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = own ? driver_find(own) : NULL;
    size_t len = *filename ? path_protocol_length(*filename) : 0;
    bool itself = driver && len == strlen(own) && !strncmp(*filename, own, len);
    int ret = expand_name(options, *filename, !itself, err);

    if (ret > 0) {
        *filename = NULL;
    }
    return ret ? ret : expand_own_name(options, err);
}

/* A name in the place of the file is that of a node, for which no more can be said. */
static bool file_is_node_with_options(const json_t *tree)
{
    const char *key;
    json_t *value;

    if (!json_is_string(json_object_get(tree, "file"))) {
        return false;
    }
    json_object_foreach((json_t *)tree, key, value) {
        if (!strncmp(key, "file.", 5)) {
            return true;
        }
    }
    return false;
}

/* "json:{...}" as a file name: a tree, of which a part may be said with dots ("file.filename"). */
static json_t *parse_json_name(const char *text, struct error *err)
{
    struct error why = ERROR_INIT;
    json_t *tree = json_parse_text(text, &why), *nested = NULL;

    if (!tree) {
        error_prepend(&why, "Could not parse the JSON options: ");
        error_move(err, &why);
    } else if (!json_is_object(tree)) {
        error_set(err, "Invalid JSON object given");
    } else if (file_is_node_with_options(tree)) {
        error_set(err, "Cannot reference an existing block device with additional options or a new filename");
    } else {
        nested = keyval_nest(tree, err);
    }
    json_decref(tree);
    return nested;
}

json_t *open_merge_json_name(const char **filename, json_t *options, struct error *err)
{
    if (!*filename || strncmp(*filename, "json:", 5) != 0) {
        return options ? json_copy(options) : json_object();
    }
    json_t *merged = parse_json_name(*filename + 5, err);

    if (!merged) {
        return NULL;
    }
    if (options) {
        json_object_update(merged, options);
    }
    if (json_object_get(merged, "filename") && !json_object_get(merged, "file")) {
        json_object_set_new(merged, "file",
                            json_pack("{s:O}", "filename", json_object_get(merged, "filename")));
        json_object_del(merged, "filename");
        if (!strcmp(json_string_value(json_object_get(merged, "driver")) ?: "", "file")) {
            json_object_del(merged, "driver"); /* a protocol named where a format stands: probe above it */
        }
    }
    *filename = NULL;
    return merged;
}
