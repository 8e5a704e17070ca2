/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rows of unit tests: a tree of options, with ' for ", and what is said about it.
 */
#ifndef TESTS_UNIT_TREE_ROWS_H
#define TESTS_UNIT_TREE_ROWS_H

#include <jansson.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/error.h"
#include "core/mem.h"

struct row {
    const char *tree;
    const char *text; /* NULL: fine */
};

static inline json_t *tree_of(const char *text)
{
    AUTOFREE char *copy = mem_strdup(text);

    for (char *p = copy; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    json_error_t why;
    json_t *tree = json_loads(copy, 0, &why);

    if (!tree) {
        print_message("%s: %s\n", text, why.text);
    }
    assert_non_null(tree);
    return tree;
}

/* Fails the test unless `err` says what the row does; clears it. */
static inline void judge(const struct row *row, struct error *err)
{
    const char *said = err->text ? err->text : "(nothing)", *wanted = row->text ? row->text : "(nothing)";

    if (strcmp(said, wanted) != 0) {
        print_message("%s\n  says    %s\n  and not %s\n", row->tree, said, wanted);
        fail();
    }
    error_clear(err);
}

/* The node that was made of these options; one that was not is a failure that says why.  Takes `tree`. */
static inline struct node *made_of(const char *text, json_t *tree, struct node *node, struct error *err)
{
    json_decref(tree);
    if (!node) {
        print_message("%s: %s\n", text, err->text);
    }
    assert_non_null(node);
    return node;
}

/* A node that is the caller's alone, as a drive's; it must come up. */
static inline struct node *co_tree_open(const char *text)
{
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);

    return made_of(text, tree, co_node_open(NULL, tree, &err), &err);
}

/* A node that the monitor has; it must come up. */
static inline struct node *co_tree_add(const char *text)
{
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);

    return made_of(text, tree, co_blockdev_add(tree, false, &err), &err);
}

#endif
