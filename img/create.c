/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `create`: a new image, on top of another one if asked.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/path.h"
#include "block/qcow2.h"
#include "core/mem.h"
#include "img/command.h"

struct creation {
    const char *filename, *format;
    const char *base, *base_format; /* -b, -F */
    bool unsafe, quiet;             /* -u: the backing file is not looked at */
    const char *size;               /* the operand, as words; NULL: not given */
    const struct driver *driver;
    json_t *options;
};

static const char *option_of(const struct creation *c, const char *name)
{
    return json_string_value(json_object_get(c->options, name));
}

static void set_option(struct creation *c, const char *name, const char *value)
{
    json_object_set_new(c->options, name, json_stringn_nocheck(value, strlen(value)));
}

static int find_driver(struct creation *c, struct error *err)
{
    size_t protocol = path_protocol_length(c->filename);

    c->driver = driver_find(c->format);
    if (!c->driver) {
        error_set(err, "Unknown file format '%s'", c->format);
    } else if (protocol) {
        error_set(err, "Unknown protocol '%.*s'", (int)protocol, c->filename);
    } else if (!c->driver->co_create) {
        error_set(err, "Format driver '%s' does not support image creation", c->format);
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* -b and -F win over -o. */
static int merge_base(struct creation *c, struct error *err)
{
    if (c->size && option_of(c, "size")) {
        error_set(err, "The image size must be specified only once");
        return -EINVAL;
    }
    if (c->size) {
        set_option(c, "size", c->size);
    }
    if (c->base && !img_creation_knows(c->driver, "backing_file")) {
        error_set(err, "Backing file not supported for file format '%s'", c->format);
        return -EINVAL;
    }
    if (c->base) {
        set_option(c, "backing_file", c->base);
    }
    if (c->base_format && !img_creation_knows(c->driver, "backing_fmt")) {
        error_set(err, "Backing file format not supported for file format '%s'", c->format);
        return -EINVAL;
    }
    if (c->base_format) {
        set_option(c, "backing_fmt", c->base_format);
    }
    if (option_of(c, "backing_file") && !strcmp(option_of(c, "backing_file"), c->filename)) {
        error_set(err, "Error: Trying to create an image with the same filename as the backing file");
        return -EINVAL;
    }
    return 0;
}

/* Look at the backing file: is it there, and how large is it? */
static int co_look_at_base(struct creation *c, struct error *err)
{
    const char *name = option_of(c, "backing_file"), *format = option_of(c, "backing_fmt");
    AUTOFREE char *full = path_combine(c->filename, name);
    json_t *options = json_pack("{s:b, s:b}", "read-only", 1, "force-share", 1);
    struct node *node;

    if (!*name || (!*c->filename && *name != '/' && !path_protocol_length(name))) {
        error_set(err, *name ? "Cannot use relative backing file names for ''" : "Expected backing file name, got empty string");
        json_decref(options);
        return -EINVAL;
    }
    if (format) {
        json_object_set_new(options, "driver", json_string(format));
    }
    node = co_node_open(full, options, err);
    json_decref(options);
    if (!node) {
        error_hint(err, "Could not open backing image.");
        return -EINVAL;
    }
    if (!format) {
        error_set(err, "Backing file specified without backing format");
        error_hint(err, "Detected format of %s.", node->driver->name);
    } else if (!option_of(c, "size")) {
        AUTOFREE char *size = mem_printf("%" PRIu64, node->size);

        set_option(c, "size", size);
    }
    co_node_unref(node);
    return error_is_set(err) ? -EINVAL : 0;
}

static int co_settle(struct creation *c, const char *list, struct error *err)
{
    if (find_driver(c, err) < 0 || (list && img_creation_parse(c->driver, list, c->options, err) < 0) ||
        merge_base(c, err) < 0) {
        return -EINVAL;
    }
    if (option_of(c, "backing_file") && !c->unsafe) {
        if (co_look_at_base(c, err) < 0) {
            return -EINVAL;
        }
    } else if (option_of(c, "backing_file") && !option_of(c, "backing_fmt")) {
        error_set(err, "Backing file specified without backing format");
        return -EINVAL;
    }
    if (!option_of(c, "size")) {
        error_set(err, "Image creation needs a size parameter");
        return -EINVAL;
    }
    return 0;
}

static int co_create(struct creation *c, const char *list)
{
    struct error err = ERROR_INIT;
    int ret = co_settle(c, list, &err);

    if (!ret) {
        if (!c->quiet) {
            printf("Formatting '%s', fmt=%s ", c->filename, c->format);
            img_creation_print(c->driver, c->options);
            printf("\n");
            fflush(stdout);
        }
        ret = co_img_creation_make(c->driver, c->filename, c->options, &err);
    }
    if (ret == -EFBIG && c->driver != &driver_qcow2) { /* which knows better */
        error_clear(&err);
        error_set(&err, "The image size is too large for file format '%s'", c->format);
    }
    if (ret) {
        error_prepend(&err, "%s: ", c->filename);
        img_complain_error(&err);
    }
    return ret ? 1 : 0;
}

static int take_operands(struct creation *c, const struct img_args *args, char *size, size_t room)
{
    uint64_t bytes;

    if (args->n_operands < 1) {
        return img_complain_usage("Expecting image file name");
    }
    if (args->n_operands > 1) {
        if (img_take_size("image size", args->operands[1], 0, INT64_MAX, &bytes) < 0) {
            return 1;
        }
        snprintf(size, room, "%" PRIu64, bytes);
        c->size = size;
    }
    return args->n_operands > 2 ? img_complain_usage("Unexpected argument: %s", args->operands[2]) : 0;
}

int co_img_create(const struct img_args *args)
{
    struct creation c = {
        .filename = args->n_operands ? args->operands[0] : NULL,
        .format = img_has(args, "f") ? img_value(args, "f") : "raw",
        .base = img_value(args, "b"), .base_format = img_value(args, "F"),
        .unsafe = img_has(args, "u"), .quiet = img_has(args, "q"),
    };
    AUTOFREE char *list = img_creation_list(args);
    char size[24];

    if (img_creation_wants_help(list)) {
        return img_creation_help(c.format, c.filename);
    }
    int code = take_operands(&c, args, size, sizeof(size));

    if (!code) {
        c.options = json_object();
        code = co_create(&c, list);
        json_decref(c.options);
    }
    return code;
}
