/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `map`: which image of a chain holds what, and where in its file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "img/command.h"
#include "img/status.h"

struct map {
    struct img_open open;
    bool json;
    uint64_t start, len; /* len UINT64_MAX: to the end */
};

/* "a": "b", ... by hand: a line each, in an order of its own. */
static void print_json(const struct img_status *s, uint64_t offset, bool first)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           first ? "[" : ",\n", offset, s->len, s->depth, s->present ? "true" : "false", s->zero ? "true" : "false",
           s->data ? "true" : "false");
    if (s->has_host) {
        printf(", \"offset\": %" PRIu64, s->host);
    }
    printf("}");
}

static int print_human(const struct img_status *s, uint64_t offset)
{
    if (s->data && !s->has_host) {
        img_complain("File contains external, encrypted or compressed clusters.");
        return -1;
    }
    if (s->data && !s->zero) {
        img_print("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", offset, s->len, s->host, s->node->filename);
    }
    return 0;
}

/* Does `next`, which follows, tell the same story? */
static bool joins(const struct img_status *s, const struct img_status *next)
{
    return s->zero == next->zero && s->data == next->data && s->present == next->present && s->depth == next->depth &&
           s->node == next->node && s->has_host == next->has_host && (!s->has_host || s->host + s->len == next->host);
}

static int print_run(const struct map *m, const struct img_status *s, uint64_t offset, bool first)
{
    if (m->json) {
        print_json(s, offset, first);
        return 0;
    }
    return print_human(s, offset);
}

static int co_print(const struct map *m, struct img_chain *chain)
{
    struct node *node = chain->layers[0].node;
    struct img_status run = { 0 }, next;
    uint64_t at = m->start, run_start = at, end = MIN(m->len, node->size - MIN(at, node->size)) + at;
    bool first = true;

    if (!m->json) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    while (at < end) {
        int ret = co_img_status(chain, at, end - at, &next);

        if (ret < 0) {
            img_complain("Could not read file metadata: %s", strerror(-ret));
            return 1;
        }
        at += next.len;
        if (run.len && joins(&run, &next)) {
            run.len += next.len;
            continue;
        }
        if (run.len) {
            if (print_run(m, &run, run_start, first) < 0) {
                return 1;
            }
            first = false;
        }
        run = next;
        run_start = at - next.len;
    }
    if (print_run(m, &run, run_start, first) < 0) {
        return 1;
    }
    if (m->json) {
        printf("]\n");
    }
    return 0;
}

/* Their values are good: command.c has seen to that. */
static void take_range(const struct img_args *args, struct map *m)
{
    const char *start = img_value(args, "start-offset"), *len = img_value(args, "max-length");

    m->len = UINT64_MAX;
    if (start) {
        img_take_size("start offset", start, 0, INT64_MAX, &m->start);
    }
    if (len) {
        img_take_size("max length", len, 0, INT64_MAX, &m->len);
    }
}

int co_img_map(const struct img_args *args)
{
    struct map m = { 0 };

    take_range(args, &m);
    if (args->n_operands != 1) {
        return img_complain_usage("Expecting one image file name");
    }
    m.open.filename = args->operands[0];
    if (img_take_output(args, &m.json) < 0 || img_open_args(args, &m.open) < 0) {
        return 1;
    }
    struct node *node = co_img_open(&m.open);

    if (!node) {
        return 1;
    }
    struct img_chain chain;

    img_chain_init(&chain, node, NULL);
    int code = co_print(&m, &chain);

    img_chain_free(&chain);
    co_node_unref(node);
    return code;
}
