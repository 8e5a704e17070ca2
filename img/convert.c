/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `convert`: the content of images in a new image of any format, or in one that is there (-n).
 */
#include "block/qcow2.h"
#include "img/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define SPARSE_DEFAULT 4096
#define WORKERS_DEFAULT 8

struct convert {
    const struct img_args *args;
    struct copy copy;
    const char *format, *out_format, *out;
    const char *base, *base_format;
    const char *cache, *source_cache;
    const char *snapshot;                 /* -l */
    bool reuse, target_is_zero, compress; /* -n, --target-is-zero, -c */
    bool bitmaps;
    char *list;                 /* of -o */
    json_t *options;
    const struct driver *driver;
};

/* --- Options ------------------------------------------------------------------------------------------------------ */

/* Their values are good: command.c has seen to that. */
static void take_words(struct convert *v)
{
    const struct img_args *a = v->args;

    v->snapshot = img_value(a, "l");
    v->list = img_creation_list(a);
    v->copy.sparse = SPARSE_DEFAULT;
    v->copy.workers = WORKERS_DEFAULT;
    img_take_sparse(img_value(a, "S"), &v->copy.sparse);
    img_take_rate(img_value(a, "r"), &v->copy.rate);
    img_take_workers(img_value(a, "m"), &v->copy.workers);
    v->format = img_value(a, "f");
    v->out_format = img_has(a, "O") ? img_value(a, "O") : "raw";
    v->base = img_value(a, "B");
    v->base_format = img_value(a, "F");
    /* Not "unsafe" as with qemu-img: who is told of success may switch the machine off. */
    v->cache = img_has(a, "t") ? img_value(a, "t") : "writeback";
    v->source_cache = img_value(a, "T");
    v->reuse = img_has(a, "n");
    v->target_is_zero = img_has(a, "target-is-zero");
    v->copy.any_order = img_has(a, "W");
    v->compress = img_has(a, "c");
    v->bitmaps = img_has(a, "bitmaps");
    v->copy.offload = img_has(a, "C");
    v->copy.salvage = img_has(a, "salvage");
    v->copy.quiet = img_has(a, "q");
}

/* What does not go together, in qemu-img's order. */
static int check_words(struct convert *v)
{
    const struct img_args *a = v->args;
    const char *why = NULL;

    if (img_has(a, "image-opts") && v->format) {
        why = "--image-opts and --format are mutually exclusive";
    } else if (img_has(a, "skip-broken-bitmaps") && !v->bitmaps) {
        why = "Use of --skip-broken-bitmaps requires --bitmaps";
    } else if (v->compress && v->copy.offload) {
        why = "Cannot enable copy offloading when -c is used";
    } else if (img_has(a, "S") && v->copy.offload) {
        why = "Cannot enable copy offloading when -S is used";
    } else if (v->copy.salvage && v->copy.offload) {
        why = "Cannot use copy offloading in salvaging mode";
    } else if (img_has(a, "target-image-opts") && !v->reuse) {
        why = "--target-image-opts requires use of -n flag";
    } else if (v->reuse && v->list) {
        why = "-o has no effect when skipping image creation";
    } else if (v->target_is_zero && !v->reuse) {
        why = "--target-is-zero requires use of -n flag";
    }
    if (why) {
        img_complain("%s", why);
    }
    return why ? -1 : 0;
}

/* --- Sources ------------------------------------------------------------------------------------------------------ */

static bool has_bitmaps(const struct node *node)
{
    const struct qcow2 *q = node->state;

    return q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS && qcow2_ext_find(q->exts, q->n_exts, QCOW2_EXT_BITMAPS);
}

/* --bitmaps asks for what we cannot do, unless there are none. */
static int check_bitmaps(const struct convert *v)
{
    const struct node *node = v->copy.sources[0].node;
    const struct driver *target = driver_find(v->out_format);

    if (v->copy.n > 1) {
        img_complain("Copying bitmaps only possible with single source");
    } else if (node->driver != &driver_qcow2 || ((struct qcow2 *)node->state)->h.version < 3) {
        img_complain("Source lacks bitmap support");
    } else if (target && target != &driver_qcow2) {
        img_complain("Format driver '%s' does not support bitmaps", v->out_format);
    } else if (has_bitmaps(node)) {
        img_complain("'%s' has persistent bitmaps, and they cannot be copied; without --bitmaps they are left out",
                     v->args->operands[0]);
    } else {
        return 0;
    }
    return -1;
}

static int co_choose_snapshot(struct convert *v)
{
    struct copy *c = &v->copy;

    if (!v->snapshot) {
        return 0;
    }
    if (c->n > 1) {
        img_complain("No support for concatenating multiple snapshot");
        return -1;
    }
    if (co_img_show_snapshot(c->sources[0].node, v->snapshot) < 0) {
        return -1;
    }
    c->size = c->sources[0].node->size;
    return 0;
}

static int co_open_sources(struct convert *v)
{
    struct copy *c = &v->copy;
    struct img_open o = { .format = v->format, .cache = v->source_cache, .image_opts = img_has(v->args, "image-opts"),
                          .share = img_has(v->args, "U") };
    int n = v->args->n_operands - 1;

    c->sources = mem_calloc(n, sizeof(*c->sources));
    for (int i = 0; i < n; i++) {
        o.filename = v->args->operands[i];
        struct node *node = co_img_open(&o);

        if (!node) {
            return -1;
        }
        c->sources[c->n++] = (struct copy_source){ .node = node, .start = c->size };
        c->size += node->size;
    }
    return co_choose_snapshot(v);
}

static void co_close_all(struct convert *v)
{
    struct copy *c = &v->copy;

    co_node_unref(c->target);
    for (size_t i = 0; i < c->n; i++) {
        img_chain_free(&c->sources[i].chain);
        co_node_unref(c->sources[i].node);
    }
    free(c->sources);
    free(v->list);
    json_decref(v->options);
}

/* --- The target --------------------------------------------------------------------------------------------------- */

static void set_option(struct convert *v, const char *name, const char *value)
{
    json_object_set_new(v->options, name, json_stringn_nocheck(value, strlen(value)));
}

static const char *option_of(const struct convert *v, const char *name)
{
    return json_string_value(json_object_get(v->options, name));
}

static int settle_backing(struct convert *v)
{
    if (v->base && !img_creation_knows(v->driver, "backing_file")) {
        img_complain("Backing file not supported for file format '%s'", v->out_format);
        return -1;
    }
    if (v->base_format && !img_creation_knows(v->driver, "backing_fmt")) {
        img_complain("Backing file format not supported for file format '%s'", v->out_format);
        return -1;
    }
    if (v->base) {
        set_option(v, "backing_file", v->base);
    }
    if (v->base_format) {
        set_option(v, "backing_fmt", v->base_format);
    }
    return 0;
}

/* What the new image is to be. */
static int settle_target(struct convert *v)
{
    struct error err = ERROR_INIT;
    AUTOFREE char *size = mem_printf("%" PRIu64, v->copy.size);

    v->driver = driver_find(v->out_format);
    if (!v->driver) {
        img_complain("Unknown file format '%s'", v->out_format);
        return -1;
    }
    if (!v->driver->co_create) {
        img_complain("Format driver '%s' does not support image creation", v->out_format);
        return -1;
    }
    v->options = json_object();
    if (v->list && img_creation_parse(v->driver, v->list, v->options, &err) < 0) {
        img_complain_error(&err);
        return -1;
    }
    set_option(v, "size", size);
    return settle_backing(v);
}

/* What does not go together, known once the sources are open; in qemu-img's order. */
static int check_target(struct convert *v)
{
    const char *preallocation = v->options ? option_of(v, "preallocation") : NULL, *why = NULL;
    bool own_base = v->options && option_of(v, "backing_file");

    if (v->copy.n > 1 && (v->base || own_base)) {
        why = "Having a backing file for the target makes no sense when concatenating multiple input images";
    } else if (own_base && !option_of(v, "backing_fmt")) {
        why = "Use of backing file requires explicit backing format";
    } else if ((v->base || own_base) && v->target_is_zero) {
        why = "Cannot use --target-is-zero when the destination image has a backing file";
    } else if (v->bitmaps && check_bitmaps(v) < 0) {
        return -1;
    } else if (v->compress && v->driver && v->driver != &driver_qcow2) {
        why = "Compression not supported for this file format";
    } else if (v->compress && preallocation && strcmp(preallocation, "off")) {
        why = "Compression and preallocation not supported at the same time";
    }
    if (why) {
        img_complain("%s", why);
        return -1;
    }
    v->copy.below = v->base || own_base;
    return img_check_cache(v->cache, "Invalid cache option");
}

static int co_make_target(struct convert *v)
{
    struct error err = ERROR_INIT;

    if (co_img_creation_make(v->driver, v->out, v->options, &err) < 0) {
        error_prepend(&err, "%s: error while converting %s: ", v->out, v->out_format);
        img_complain_error(&err);
        return -1;
    }
    return 0;
}

static int co_open_target(struct convert *v)
{
    struct copy *c = &v->copy;
    struct img_open o = { .filename = v->out, .format = v->out_format, .cache = v->cache, .writable = true };

    if (v->reuse && img_has(v->args, "target-image-opts")) {
        o.image_opts = true;
        o.format = NULL;
    }
    c->target = co_img_open(&o);
    if (!c->target) {
        return -1;
    }
    if (v->compress && c->target->driver != &driver_qcow2) {
        img_complain("Compression not supported for this file format");
        return -1;
    }
    c->packed_cluster = v->compress ? ((struct qcow2 *)c->target->state)->cluster_size : 0;
    if (v->reuse && c->target->size < c->size) {
        img_complain("output file is smaller than input file");
        return -1;
    }
    c->below_size = c->target->backing ? c->target->backing->size : 0;
    c->zeroed = v->reuse ? v->target_is_zero : !c->below;
    for (size_t i = 0; i < c->n; i++) {
        struct node *node = c->sources[i].node;

        img_chain_init(&c->sources[i].chain, node, c->below ? node->backing : NULL);
    }
    return 0;
}

static int co_convert(struct convert *v)
{
    struct copy *c = &v->copy;

    if (co_open_sources(v) < 0 || (!v->reuse && settle_target(v) < 0) || check_target(v) < 0 ||
        (!v->reuse && co_make_target(v) < 0) || co_open_target(v) < 0) {
        return -1;
    }
    return co_img_copy(c);
}

/* Asked for help, or the exit code of what does not fit. */
static int check_line(struct convert *v, bool *done)
{
    const struct img_args *a = v->args;

    *done = true;
    if (check_words(v) < 0) {
        return 1;
    }
    if (img_creation_wants_help(v->list)) {
        return img_creation_help(v->out_format, v->out);
    }
    if (a->n_operands < 2) {
        img_complain("Must specify image file name");
        return 1;
    }
    if (img_check_cache(v->source_cache, "Invalid source cache option") < 0) {
        return 1;
    }
    *done = false;
    return 0;
}

int co_img_convert(const struct img_args *args)
{
    struct convert v = { .args = args };
    bool done;

    take_words(&v);
    v.out = args->n_operands >= 2 ? args->operands[args->n_operands - 1] : NULL;
    int code = check_line(&v, &done);

    if (!done) {
        img_progress_begin(&v.copy.progress, img_has(args, "p") && !img_has(args, "q"), 1);
        code = co_convert(&v) < 0;
        if (!code) {
            img_progress_set(&v.copy.progress, 1, 1);
        }
        img_progress_end(&v.copy.progress);
    }
    co_close_all(&v);
    return code;
}
