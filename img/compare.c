/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `compare`: would a guest see the same in two images?
 *
 * Exit codes: 0 the same, 1 different, 2 an image cannot be opened, 3 tables cannot be read, 4 data cannot be read.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "img/command.h"
#include "img/status.h"

#define CHUNK_MAX (2u << 20)

enum { SAME, DIFFERENT, CANNOT_OPEN, NO_TABLES, NO_DATA };

struct side {
    const char *filename;
    struct node *node;
    struct img_chain chain;
    uint8_t *buf;
};
struct compare {
    struct side a, b;
    bool strict, quiet;
    struct img_progress progress;
};

static void __attribute__((format(printf, 2, 3))) say(const struct compare *c, const char *fmt, ...)
{
    va_list ap;

    if (c->quiet) {
        return;
    }
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

static int co_look(struct side *s, uint64_t offset, uint64_t len, struct img_status *out)
{
    if (co_img_status(&s->chain, offset, len, out) < 0) {
        img_complain("Sector allocation test failed for %s", s->filename);
        return NO_TABLES;
    }
    return SAME;
}

static int co_load(struct side *s, uint64_t offset, uint64_t len)
{
    int ret = co_node_read_buf(s->node, offset, s->buf, len);

    if (ret < 0) {
        img_complain("Error while reading offset %" PRIu64 " of %s: %s", offset, s->filename, strerror(-ret));
        return NO_DATA;
    }
    return SAME;
}

/* The first sector that differs; `b` NULL: from zeroes.  `len` when none does. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
    static const uint8_t zeroes[NODE_SECTOR];

    for (uint64_t at = 0; at < len; at += NODE_SECTOR) {
        if (memcmp(a + at, b ? b + at : zeroes, MIN(len - at, (uint64_t)NODE_SECTOR))) {
            return at;
        }
    }
    return len;
}

static int judge(const struct compare *c, const uint8_t *a, const uint8_t *b, uint64_t offset, uint64_t len)
{
    uint64_t at = first_difference(a, b, len);

    if (at == len) {
        return SAME;
    }
    say(c, "Content mismatch at offset %" PRIu64 "!\n", offset + at);
    return DIFFERENT;
}

static int co_compare_with_zeroes(const struct compare *c, struct side *s, uint64_t offset, uint64_t len)
{
    int code = co_load(s, offset, len);

    return code ? code : judge(c, s->buf, NULL, offset, len);
}

static int co_compare_data(struct compare *c, uint64_t offset, uint64_t len)
{
    int code = co_load(&c->a, offset, len);

    if (!code) {
        code = co_load(&c->b, offset, len);
    }
    return code ? code : judge(c, c->a.buf, c->b.buf, offset, len);
}

/* -s: it must even be stored in the same way. */
static bool stored_alike(const struct compare *c, const struct img_status *x, const struct img_status *y, uint64_t offset)
{
    return x->present == y->present && x->data == y->data && x->zero == y->zero && x->has_host == y->has_host &&
           (offset + x->len == c->a.node->size) == (offset + y->len == c->b.node->size);
}

/* One step at `offset`; *len is how far it goes. */
static int co_step(struct compare *c, uint64_t offset, uint64_t *len)
{
    struct img_status x, y;
    int code = co_look(&c->a, offset, c->a.node->size - offset, &x);

    if (!code) {
        code = co_look(&c->b, offset, c->b.node->size - offset, &y);
    }
    if (code) {
        return code;
    }
    *len = MIN(x.len, y.len);
    if (c->strict && !stored_alike(c, &x, &y, offset)) {
        say(c, "Strict mode: Offset %" PRIu64 " block status mismatch!\n", offset);
        return DIFFERENT;
    }
    if ((x.zero && y.zero) || (!x.present && !y.present)) {
        return SAME;
    }
    *len = MIN(*len, (uint64_t)CHUNK_MAX);
    if (x.present && y.present) {
        return co_compare_data(c, offset, *len);
    }
    return co_compare_with_zeroes(c, x.present ? &c->a : &c->b, offset, *len);
}

/* What one image has behind the other's end must be zeroes. */
static int co_compare_rest(struct compare *c, uint64_t offset, uint64_t end)
{
    struct side *longer = c->a.node->size > c->b.node->size ? &c->a : &c->b;
    struct img_status x;
    int code = SAME;

    if (offset < end) {
        say(c, "Warning: Image size mismatch!\n");
    }
    while (!code && offset < end) {
        code = co_look(longer, offset, end - offset, &x);
        if (!code && x.present && !x.zero) {
            x.len = MIN(x.len, (uint64_t)CHUNK_MAX);
            code = co_compare_with_zeroes(c, longer, offset, x.len);
        }
        if (!code) {
            offset += x.len;
            img_progress_set(&c->progress, offset, end);
        }
    }
    return code;
}

static int co_compare(struct compare *c)
{
    uint64_t common = MIN(c->a.node->size, c->b.node->size), all = MAX(c->a.node->size, c->b.node->size);
    uint64_t offset = 0, len;
    int code = SAME;

    if (c->strict && common != all) {
        say(c, "Strict mode: Image size mismatch!\n");
        return DIFFERENT;
    }
    while (!code && offset < common) {
        code = co_step(c, offset, &len);
        if (!code) {
            offset += len;
            img_progress_set(&c->progress, offset, all);
        }
    }
    if (!code) {
        code = co_compare_rest(c, offset, all);
    }
    if (!code) {
        say(c, "Images are identical.\n");
    }
    return code;
}

static int co_open_side(struct side *s, struct img_open o, const char *format)
{
    if (o.image_opts && format) {
        img_complain("--image-opts and --format are mutually exclusive");
        return CANNOT_OPEN;
    }
    o.filename = s->filename;
    o.format = format;
    s->node = co_img_open(&o);
    if (!s->node) {
        return CANNOT_OPEN;
    }
    img_chain_init(&s->chain, s->node, NULL);
    s->buf = mem_align(4096, CHUNK_MAX);
    return SAME;
}

static void co_close_side(struct side *s)
{
    if (s->node) {
        img_chain_free(&s->chain);
        free(s->buf);
        co_node_unref(s->node);
    }
}

int co_img_compare(const struct img_args *args)
{
    struct compare c = { .strict = img_has(args, "s"), .quiet = img_has(args, "q") };
    struct img_open o = { .cache = img_value(args, "T"), .image_opts = img_has(args, "image-opts"),
                          .share = img_has(args, "U") };
    const char *format = img_value(args, "f"), *format2 = img_value(args, "F");

    if (args->n_operands != 2) {
        return img_complain_usage("Expecting two image file names");
    }
    if (img_check_cache(o.cache, "Invalid source cache option") < 0) {
        return CANNOT_OPEN;
    }
    c.a.filename = args->operands[0];
    c.b.filename = args->operands[1];
    c.progress = (struct img_progress){ .on = img_has(args, "p") && !c.quiet };
    int code = co_open_side(&c.a, o, format);

    if (!code) {
        code = co_open_side(&c.b, o, format2);
    }
    if (!code) {
        img_progress_begin(&c.progress, c.progress.on, 2);
        code = co_compare(&c);
    }
    img_progress_end(&c.progress);
    co_close_side(&c.a);
    co_close_side(&c.b);
    return code;
}
