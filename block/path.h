/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of backing files: how they are read and how they are written, so that they still resolve at the next start.
 */
#ifndef BLOCK_PATH_H
#define BLOCK_PATH_H

#include "block/node.h"

/* The length of "nbd" in "nbd:host": what stands before a colon that comes before any slash; 0 when nothing does. */
size_t path_protocol_length(const char *name);
/* The name to record in the image at `overlay_path` for the file at `target_path` (both as opened: relative to
 * the working directory or absolute).  In the overlay's directory or below it: relative to that directory.  Otherwise
 * absolute.  malloc'ed. */
char *path_to_record(const char *overlay_path, const char *target_path);
/* Do two names, both as seen from the working directory, mean the same place? */
bool path_same(const char *a, const char *b);
/* As above for a layer of a chain: keeps the spelling that is recorded today in the layer above it where that spelling
 * resolves to the same file from `overlay` too. */
char *path_to_record_layer(const struct node *overlay, const struct node *layer);

#endif
