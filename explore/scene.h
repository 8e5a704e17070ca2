/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images as others leave them: compressed clusters, internal snapshots, a dirty bit.  The driver
 * makes none of those, so they are written into small, closed images by hand, durably.
 *
 * Only for images that scene.c can be sure of: those that the driver has just made and closed, with
 * reference counts of two bits or more.
 */
#ifndef EXPLORE_SCENE_H
#define EXPLORE_SCENE_H

#include <stdbool.h>
#include <stdint.h>

/* Has this layer no entry for that guest cluster? */
bool scene_is_free(const char *path, uint64_t offset);
/* The whole cluster `data` becomes the content of a free guest cluster, by the image's method.
 * *end: where the compressed data before it ends (0: it is the first), so that neighbours share a
 * host cluster; is moved on. */
void scene_compress(const char *path, uint64_t offset, const uint8_t *data, uint64_t *end);
/* An internal snapshot of what is there now. */
void scene_snapshot(const char *path);
/* A cluster more, counted and used by nobody. */
void scene_leak(const char *path);
/* The dirty bit, and counts of zero in the second half of the file. */
void scene_dirty(const char *path);

#endif
