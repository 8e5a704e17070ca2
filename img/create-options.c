/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -o: the options of new images.  One table for each format gives their order, types, defaults and help; the drivers give
 * them their meaning.
 *
 * Values stay the words that were given: `create` prints them so, and the driver reads them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/file.h"
#include "block/qcow2.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

enum type { TYPE_STRING, TYPE_BOOL, TYPE_NUMBER, TYPE_SIZE };

struct creation_option {
    const char *name;
    enum type type;
    const char *fallback; /* printed when the option is not given; NULL: not printed */
    const char *help;     /* NULL: understood, but nothing that we can do: refused, or a wish that may stay one */
    bool of_host;         /* of the host's file, not of the format */
};

/* In the order in which they are printed. */
static const struct creation_option qcow2_options[] = {
    { "encryption", TYPE_BOOL, NULL, NULL, false },
    { "cluster_size", TYPE_SIZE, "65536", "qcow2 cluster size", false },
    { "extended_l2", TYPE_BOOL, "off", "Extended L2 tables", false },
    { "preallocation", TYPE_STRING, NULL, "Preallocation mode (allowed values: off, metadata, falloc, full)", false },
    { "compression_type", TYPE_STRING, "zlib", "Compression method used for image cluster compression", false },
    { "size", TYPE_SIZE, NULL, "Virtual disk size", false },
    { "compat", TYPE_STRING, NULL, "Compatibility level (v2 [0.10] or v3 [1.1])", false },
    { "backing_file", TYPE_STRING, NULL, "File name of a base image", false },
    { "backing_fmt", TYPE_STRING, NULL, "Image format of the base image", false },
    { "data_file", TYPE_STRING, NULL, NULL, false },
    { "data_file_raw", TYPE_BOOL, NULL, NULL, false },
    { "lazy_refcounts", TYPE_BOOL, "off", "Postpone refcount updates", false },
    { "refcount_bits", TYPE_NUMBER, "16", "Width of a reference count entry in bits", false },
    { "nocow", TYPE_BOOL, NULL, NULL, true },
    { "extent_size_hint", TYPE_SIZE, NULL, NULL, true },
    { 0 },
};
static const struct creation_option raw_options[] = {
    { "size", TYPE_SIZE, NULL, "Virtual disk size", false },
    { "preallocation", TYPE_STRING, NULL, "Preallocation mode (allowed values: off, falloc, full)", true },
    { "nocow", TYPE_BOOL, NULL, NULL, true },
    { "extent_size_hint", TYPE_SIZE, NULL, NULL, true },
    { 0 },
};

static const struct creation_option *options_of(const struct driver *driver)
{
    return driver == &driver_qcow2 ? qcow2_options : raw_options;
}

static const struct creation_option *find(const struct driver *driver, const char *name)
{
    for (const struct creation_option *o = options_of(driver); o->name; o++) {
        if (!strcmp(o->name, name)) {
            return o;
        }
    }
    return NULL;
}

bool img_creation_knows(const struct driver *driver, const char *name)
{
    return find(driver, name);
}

/* --- The list ----------------------------------------------------------------------------------------------------- */

/* Not empty, and every item is something; a doubled comma is one in a value. */
static bool well_formed(const char *list)
{
    size_t len = strlen(list), commas = 0;

    while (commas < len && list[len - 1 - commas] == ',') {
        commas++;
    }
    return len && list[0] != ',' && commas % 2 == 0;
}

int img_check_list(const char *list)
{
    if (!well_formed(list)) {
        img_complain("Invalid option list: %s", list);
        return 1;
    }
    return 0;
}

char *img_creation_list(const struct img_args *args)
{
    char *list = NULL;

    for (size_t i = 0; i < args->n_given; i++) {
        const char *value = args->given[i].value;

        if (args->given[i].option->letter == 'o') {
            char *longer = list ? mem_printf("%s,%s", list, value) : mem_strdup(value);

            free(list);
            list = longer;
        }
    }
    return list;
}

bool img_creation_wants_help(const char *list)
{
    json_t *items = list ? keyval_parse(list, NULL, NULL) : NULL;
    const char *word = json_string_value(json_object_get(items, "help")) ?:
                       json_string_value(json_object_get(items, "?"));
    bool wanted = word && !strcmp(word, "on");

    json_decref(items);
    return wanted;
}

/* --- Help --------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct creation_option *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static void print_help_line(const struct creation_option *o)
{
    static const char *const types[] = { "str", "bool (on/off)", "num", "size" };
    AUTOFREE char *left = mem_printf("  %s=<%s>", o->name, types[o->type]);

    printf("%-24s - %s\n", left, o->help);
}

int img_creation_help(const char *format, const char *filename)
{
    const struct driver *driver = driver_find(format);
    const struct creation_option *rows[32];
    size_t n = 0;

    if (!driver) {
        img_complain("Unknown file format '%s'", format);
        return 1;
    }
    if (!driver->co_create) {
        img_complain("Format driver '%s' does not support image creation", format);
        return 1;
    }
    for (const struct creation_option *o = options_of(driver); o->name; o++) {
        if (o->help && (filename || !o->of_host)) {
            rows[n++] = o;
        }
    }
    qsort(rows, n, sizeof(rows[0]), by_name);
    printf(filename ? "Supported options:\n" : "Supported %s options:\n", format);
    for (size_t i = 0; i < n; i++) {
        print_help_line(rows[i]);
    }
    if (!filename) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
    return 0;
}

/* --- Values ------------------------------------------------------------------------------------------------------- */

static bool is_switch(const char *value)
{
    bool on;

    return keyval_switch(value, &on) == 0;
}

/* As strtoull() reads it: "-1" is a very large one.  0 or -errno. */
static int parse_number(const char *value)
{
    char *end;

    errno = 0;
    strtoull(value, &end, 0);
    return !*value || *end ? -EINVAL : -errno;
}

static int check_value(const struct creation_option *o, const char *value, struct error *err)
{
    uint64_t size;
    int ret = 0;

    if (o->type == TYPE_BOOL && !is_switch(value)) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", o->name);
        return -EINVAL;
    }
    if (o->type == TYPE_NUMBER) {
        ret = parse_number(value);
        if (ret == -ERANGE) {
            error_set(err, "Value '%s' is too large for parameter '%s'", value, o->name);
        } else if (ret) {
            error_set(err, "Parameter '%s' expects a number", o->name);
        }
        return ret;
    }
    if (o->type == TYPE_SIZE) {
        ret = size_parse(value, 1, &size, NULL);
    }
    if (ret == -ERANGE) {
        error_set(err, "Value '%s' is out of range for parameter '%s'", value, o->name);
    } else if (ret) {
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", o->name);
        error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
        error_hint(err, "and exabytes, respectively.");
    }
    return ret;
}

int img_creation_parse(const struct driver *driver, const char *list, json_t *options, struct error *err)
{
    json_t *items = keyval_parse(list, NULL, err), *value;
    const char *name;
    int ret = items ? 0 : -EINVAL;

    json_object_foreach(items, name, value) {
        const struct creation_option *o = find(driver, name);

        if (ret) {
            break;
        }
        if (o) {
            ret = check_value(o, json_string_value(value), err);
        } else if (driver != &driver_qcow2 || strncmp(name, "encrypt.", 8)) {
            error_set(err, "Invalid parameter '%s'", name);
            ret = -EINVAL;
        }
        json_object_set(options, name, value);
    }
    json_decref(items);
    return ret;
}

void img_creation_print(const struct driver *driver, const json_t *options)
{
    const char *space = "";

    for (const struct creation_option *o = options_of(driver); o->name; o++) {
        const char *given = json_string_value(json_object_get(options, o->name));
        const char *value = given ? given : o->fallback;
        uint64_t number;

        if (!value) {
            continue;
        }
        printf("%s%s=", space, o->name);
        space = " ";
        if (o->type == TYPE_SIZE && size_parse(value, 1, &number, NULL) == 0) {
            printf("%llu", (unsigned long long)number);
        } else if (o->type == TYPE_NUMBER) {
            printf("%llu", strtoull(value, NULL, 0));
        } else {
            for (const char *p = value; *p; p++) {
                printf(*p == ',' && o->type == TYPE_STRING ? ",%c" : "%c", *p);
            }
        }
    }
}

/* --- Making ------------------------------------------------------------------------------------------------------- */

int co_img_creation_make(const struct driver *driver, const char *filename, json_t *options, struct error *err)
{
    json_t *final = json_copy(options), *value;
    const char *name;

    for (const struct creation_option *o = options_of(driver); o->name; o++) {
        uint64_t size;

        value = json_object_get(options, name = o->name);
        if (value && o->type == TYPE_SIZE && size_parse(json_string_value(value), 1, &size, NULL) == 0) {
            json_object_set_new(final, name, json_integer(size));
        }
    }
    int ret = driver->co_create(filename, final, err);

    json_decref(final);
    return ret;
}
