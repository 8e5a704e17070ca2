/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a person may call an image of a chain, and what we call it.
 *
 * An image answers to five kinds of name, tried in this order; the first kind that fits exactly one image wins:
 *
 *   1  its node-name                                       node-A
 *   2  its file name: as recorded in the overlay above, or the path it was opened by    ../file-A.img
 *   3  the last part of that path                          file-A.img
 *   4  the same without its suffix                         file-A
 *   5  what follows the last '-' of 4, or of the node-name A
 *
 * We call it, in drawings, by the fourth, or by the fifth where that is a single letter: the documents draw
 * file-A.img as [A].
 */
#ifndef MONITOR_CHAIN_NAMES_H
#define MONITOR_CHAIN_NAMES_H

#include "block/node.h"
#include "core/error.h"

/* The image below `top` that `name` means (`top` itself is never meant).  NULL without a word where none is; NULL with a
 * sentence in err where it could be several. */
struct node *chain_find_below(struct node *top, const char *name, struct error *err);
/* Is this a name of `node`, alone and for itself?  `overlay` is the image above it, or NULL. */
bool chain_name_fits(const struct node *node, const struct node *overlay, const char *name);
/* Our names for all images from `top` down; malloc'ed array of malloc'ed strings, *count of them.  Unique in the chain. */
char **chain_labels(const struct node *top, size_t *count);
void chain_labels_free(char **labels, size_t count);
/* A line for a hint: the images below `top`, "A (file-A.img), B (file-B.img)"; malloc'ed, NULL when there is none. */
char *chain_candidates(const struct node *top);

#endif
