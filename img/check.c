/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `check`: is an image sound, and with -r: make it so.
 *
 * Exit codes: 0 sound (now), 1 could not be checked, 2 corrupt, 3 clusters leak, 63 a format without checks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/qcow2-check.h"
#include "core/mem.h"
#include "img/command.h"

enum { CHECK_FAILED = 1, CHECK_CORRUPT = 2, CHECK_LEAKS = 3, CHECK_NOT_SUPPORTED = 63 };

static void print_line(void *arg, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void set(json_t *tree, const char *key, uint64_t value)
{
    if (value) {
        json_object_set_new(tree, key, json_integer(value));
    }
}

static void print_json(const struct img_open *o, const struct node *node, const struct qcow2_report *r)
{
    json_t *tree = json_object();

    json_object_set_new(tree, "filename", json_stringn_nocheck(o->filename, strlen(o->filename)));
    json_object_set_new(tree, "format", json_string(node->driver->name));
    json_object_set_new(tree, "check-errors", json_integer(0));
    set(tree, "image-end-offset", r->image_end);
    set(tree, "corruptions", r->corruptions);
    set(tree, "leaks", r->leaks);
    set(tree, "corruptions-fixed", r->corruptions_fixed);
    set(tree, "leaks-fixed", r->leaks_fixed);
    set(tree, "total-clusters", r->total);
    set(tree, "allocated-clusters", r->allocated);
    set(tree, "fragmented-clusters", r->fragmented);
    set(tree, "compressed-clusters", r->compressed);
    img_print_json(tree);
    json_decref(tree);
}

static void print_human(const struct qcow2_report *r)
{
    if (!r->corruptions && !r->leaks) {
        printf("No errors were found on the image.\n");
    }
    if (r->corruptions) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n", r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n", r->leaks);
    }
    if (r->total && r->allocated) {
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               r->allocated, r->total, r->allocated * 100.0 / r->total, r->fragmented * 100.0 / r->allocated,
               r->compressed * 100.0 / r->allocated);
    }
    if (r->image_end) {
        printf("Image end offset: %" PRIu64 "\n", r->image_end);
    }
}

struct check {
    struct img_open open;
    unsigned fix;
    bool json, quiet;
};

/* After repairs: look again; what was repaired stays in the report. */
static int co_look_again(const struct check *k, struct node *node, struct qcow2_report *r, struct error *err)
{
    struct qcow2_report first = *r;

    if (!first.leaks_fixed && !first.corruptions_fixed) {
        return 0;
    }
    if (!k->json && !k->quiet) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n", first.leaks_fixed, first.corruptions_fixed);
        fflush(stdout);
    }
    *r = (struct qcow2_report){ .say = print_line };
    int ret = co_node_set_writable(node, false, err);

    if (!ret) {
        ret = co_qcow2_report(node, 0, r, err);
    }
    r->leaks_fixed = first.leaks_fixed;
    r->corruptions_fixed = first.corruptions_fixed;
    return ret;
}

static int co_check(const struct check *k, struct node *node)
{
    struct qcow2_report r = { .say = print_line };
    struct error err = ERROR_INIT;

    if (node->driver != &driver_qcow2) {
        img_complain("This image format does not support checks");
        return CHECK_NOT_SUPPORTED;
    }
    fflush(stdout);
    int ret = co_qcow2_report(node, k->fix, &r, &err);

    if (!ret) {
        ret = co_look_again(k, node, &r, &err);
    }
    if (ret) {
        img_complain_error(&err);
        return CHECK_FAILED;
    }
    if (k->json && !k->quiet) {
        print_json(&k->open, node, &r);
    } else if (!k->quiet) {
        print_human(&r);
    }
    return r.corruptions ? CHECK_CORRUPT : r.leaks ? CHECK_LEAKS : 0;
}

static unsigned what_to_fix(const char *word)
{
    return !word ? 0 : !strcmp(word, "all") ? QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS : QCOW2_FIX_LEAKS;
}

int co_img_check(const struct img_args *args)
{
    struct check k = { .quiet = img_has(args, "q"), .fix = what_to_fix(img_value(args, "r")) };

    if (args->n_operands != 1) {
        return img_complain_usage("Expecting one image file name");
    }
    k.open = (struct img_open){ .filename = args->operands[0], .cache = img_value(args, "T") };
    if (img_take_output(args, &k.json) < 0 || img_open_args(args, &k.open) < 0) {
        return 1;
    }
    if (k.open.share && k.fix) {
        img_complain("Could not open '%s': force-share=on can only be used with read-only images", k.open.filename);
        return 1;
    }
    if (k.open.cache && img_check_cache(k.open.cache, "Invalid source cache option") < 0) {
        return 1;
    }
    struct node *node = co_img_open(&k.open);

    if (!node) {
        return 1;
    }
    int code = co_check(&k, node);

    co_node_unref(node);
    return code;
}
