/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between reopen.c, which finds out what is to be changed, and reopen-apply.c, which changes it.
 */
#ifndef BLOCK_REOPEN_CHANGE_H
#define BLOCK_REOPEN_CHANGE_H

#include "block/reopen.h"

#include "block/node.h"

/* What a node was before it was opened anew. */
struct former {
    void *state;
    uint64_t size;
    uint32_t cluster_size;
    char *backing_name, *backing_format, *filename;
    json_t *options;
};

struct change {
    struct node *node;      /* own reference */
    json_t *options;        /* borrowed */
    bool read_only, discard_unmap, direct, no_flush;
    bool was_read_only, was_direct;
    unsigned detect_zeroes;
    struct node *backing, *file; /* from now on; own references, NULL: none */
    bool anew;              /* its driver has to look at its options, or at another file */
    struct node_drain *drain;

    /* Of the application, in this order: what has been done and would have to be undone. */
    bool laid_down;         /* written back, and read-only for its driver */
    bool relinked;          /* `backing` and `file` are the old ones now */
    bool opened;            /* `was` is kept */
    struct former was;
};
struct changes {
    struct change *list;
    size_t count;
    struct error *err;
};

/* All or none; the plan has been judged.  0 or -errno with err.  Suspends. */
int co_changes_apply(struct changes *all);
/* May this node become the `file` of the other?  0 or -errno with err. */
int change_check_file(struct changes *all, const struct change *c, struct node *file);
/* What stays of the options that a node has, when these come. */
json_t *change_options(const struct change *c);

#endif
