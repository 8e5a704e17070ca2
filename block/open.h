/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the opening of a tree (open.c) and that of one node (open-node.c) have in common.
 */
#ifndef BLOCK_OPEN_H
#define BLOCK_OPEN_H

#include "block/node.h"

/* A node that nobody else can see yet; its options are a copy (of the first level) of `options`, without the children,
 * which become nodes of their own. */
struct node *node_new(const struct driver *driver, json_t *options);
/* The option that names the `file` child. */
const char *node_child_key(const struct driver *driver);
/* The option that names the child of the node that `options` describe: a format that is not named is guessed, and has a "file". */
const char *open_child_key(json_t *options);
/* Names for which a driver knows what they mean (struct driver, parse_name), the one given beside the options and that of their
 * child, become options; deeper ones are no shorthand.  *filename is NULL when it was one.  Negative: err. */
int open_expand_names(const char **filename, json_t *options, struct error *err);
/* The options that count: a copy of `options` (or none: NULL), and those that *filename carries if it is a "json:" name, which
 * is NULL then.  NULL: err. */
json_t *open_merge_json_name(const char **filename, json_t *options, struct error *err);
/* It has its edges and asks for what it needs of them. */
void node_enter_opening(struct node *node);
/* Its end if it does not come to more; lets go of its file.  Suspends. */
void co_node_discard_unopened(struct node *node);
/* What every driver has, from the node's options; read_only is what counts where they do not say. */
int node_take_common(struct node *node, bool read_only, struct error *err);
/* The name that was wanted; NULL: make one. */
int node_give_name(struct node *node, const char *wanted, struct error *err);
/* Run the driver's open on a node that has a name and a file; takes the node over, frees it on failure (NULL).  Suspends. */
struct node *co_node_finish_open(struct node *node, struct error *err);
/* Formats stand on files and what passes for one: filters, and raw, of which a part may be meant.  Filters stand on anything. */
bool open_may_stand_on(const struct driver *driver, const struct node *file);
/* A boolean that must be well-formed, "on" or "off" as people write it; *out stays when it is not there. */
int open_take_bool(json_t *options, const char *key, bool *out, struct error *err);

#endif
