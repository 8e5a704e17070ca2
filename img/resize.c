/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `resize`: another size, given as it is or relative to the old one; smaller only with --shrink.
 */
#include <stdio.h>
#include <string.h>

#include "core/size.h"
#include "img/command.h"

struct resize {
    int sign; /* of a relative size; 0: absolute */
    uint64_t bytes;
    bool shrink, quiet;
};

static int take_size(struct resize *r, const char *text)
{
    r->sign = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
    if (size_parse(text + (r->sign != 0), 1, &r->bytes, NULL)) {
        struct error err = ERROR_INIT;

        error_set(&err, "Parameter 'size' expects a non-negative number below 2^64");
        error_hint(&err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
        error_hint(&err, "and exabytes, respectively.");
        img_complain_error(&err);
        return -1;
    }
    return 0;
}

/* 0: no positive number of bytes. */
static uint64_t new_size(const struct resize *r, uint64_t old)
{
    if (r->sign < 0) {
        return r->bytes < old ? old - r->bytes : 0;
    }
    uint64_t size = r->bytes + (r->sign ? old : 0);

    return size <= INT64_MAX && r->bytes <= INT64_MAX ? size : 0;
}

static int co_resize(const struct resize *r, struct node *node)
{
    uint64_t size = new_size(r, node->size);
    struct error err = ERROR_INIT;

    if (!size) {
        img_complain("New image size must be positive");
        return 1;
    }
    if (size < node->size && !r->shrink) {
        img_complain("Use the --shrink option to perform a shrink operation.");
        img_complain("warning: Shrinking an image will delete all data beyond the shrunken image's end. "
                     "Before performing such an operation, make sure there is no important data there.");
        return 1;
    }
    if (co_node_truncate(node, size, &err) < 0) {
        img_complain_error(&err);
        return 1;
    }
    if (!r->quiet) {
        printf("Image resized.\n");
    }
    return 0;
}

int co_img_resize(const struct img_args *args)
{
    struct resize r = { .shrink = img_has(args, "shrink"), .quiet = img_has(args, "q") };
    struct img_open o = { .writable = true };

    if (args->n_operands != 2) {
        return img_complain_usage("Expecting image file name and size");
    }
    o.filename = args->operands[0];
    if (take_size(&r, args->operands[1]) < 0 || img_open_args(args, &o) < 0) {
        return 1;
    }
    struct node *node = co_img_open(&o);

    if (!node) {
        return 1;
    }
    int code = co_resize(&r, node);

    co_node_unref(node);
    return code;
}
