/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `resize`: another size, given as it is or relative to the old one; smaller only with --shrink.  With --preallocation the new
 * part has its place at once, or the image keeps its size.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

#define WRITE_STEP (1u << 20) /* bytes of zeroes at once */

enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct resize {
    int sign; /* of a relative size; 0: absolute */
    uint64_t bytes;
    bool shrink, quiet;
    enum preallocation preallocation;
};

static const char *const preallocations[] = { "off", "metadata", "falloc", "full" };

/* ARRAY_SIZE(preallocations): there is no such. */
static size_t find_preallocation(const char *word)
{
    size_t i = 0;

    while (word && i < ARRAY_SIZE(preallocations) && strcmp(word, preallocations[i])) {
        i++;
    }
    return i;
}

int img_check_preallocation(const char *word)
{
    if (find_preallocation(word) == ARRAY_SIZE(preallocations)) {
        img_complain("Invalid preallocation mode '%s'", word);
        return 1;
    }
    return 0;
}

static int take_size(struct resize *r, const char *text)
{
    r->sign = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
    int ret = size_parse(text + (r->sign != 0), 1, &r->bytes, NULL);

    if (ret == -ERANGE) {
        img_complain("Value '%s' is out of range for parameter 'size'", text + (r->sign != 0));
        return -1;
    }
    if (ret) {
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

static int co_write_zeroes(struct io_file *file, uint64_t offset, uint64_t end)
{
    AUTOFREE uint8_t *zeroes = mem_zalloc(WRITE_STEP);
    int ret = 0;

    for (; ret == 0 && offset < end; offset += WRITE_STEP) {
        ret = co_io_write(file, offset, zeroes, MIN(end - offset, (uint64_t)WRITE_STEP));
    }
    return ret;
}

/* The enums of the two have the same order. */
static int co_preallocate(const struct resize *r, struct node *node, uint64_t from)
{
    struct io_file *file = node_host_file(node);
    int ret;

    if (node->driver == &driver_qcow2) {
        ret = co_qcow2_hold(node, from, node->size - from, (enum qcow2_hold)r->preallocation);
    } else if (!file) {
        ret = -ENOTSUP;
    } else if (r->preallocation == PREALLOC_FALLOC) {
        ret = co_io_allocate(file, from, node->size - from);
    } else {
        ret = co_write_zeroes(file, from, node->size);
    }
    return ret ? ret : co_node_flush(node);
}

static int co_set_size(const struct resize *r, struct node *node, uint64_t size, struct error *err)
{
    uint64_t old = node->size;
    int ret = co_node_truncate(node, size, err);

    if (ret == 0 && r->preallocation != PREALLOC_OFF) {
        ret = co_preallocate(r, node, old);
        if (ret < 0) {
            co_node_truncate(node, old, NULL); /* if that fails, too, the image is larger and sound */
            error_set_errno(err, ret, "Could not preallocate the new part");
        }
    }
    return ret;
}

static int co_resize(const struct resize *r, struct node *node)
{
    uint64_t size = new_size(r, node->size);
    struct error err = ERROR_INIT;

    if (!size) {
        img_complain("New image size must be positive");
        return 1;
    }
    if (size <= node->size && r->preallocation != PREALLOC_OFF) {
        img_complain("Preallocation can only be used for growing images");
        return 1;
    }
    if (size < node->size && !r->shrink) {
        img_complain("Use the --shrink option to perform a shrink operation.");
        img_complain("warning: Shrinking an image will delete all data beyond the shrunken image's end. "
                     "Before performing such an operation, make sure there is no important data there.");
        return 1;
    }
    if (r->preallocation == PREALLOC_METADATA && node->driver != &driver_qcow2) {
        img_complain("Unsupported preallocation mode: metadata");
        return 1;
    }
    if (co_set_size(r, node, size, &err) < 0) {
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
    r.preallocation = find_preallocation(img_value(args, "preallocation"));
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
