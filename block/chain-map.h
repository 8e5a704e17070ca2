/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chain map: for each guest range the layer that holds it and where, so that a read costs the same at
 * depth 1 and at depth 1,000.
 *
 * One map per root node (a disk's, or the target of a job).  The guest's address space is cut in slices;
 * a slice is filled on first use by asking the layers from the top down for what is still unresolved, and then holds
 * sorted extents {start, length, kind, layer, host offset}.  Slices are dropped least recently used over a byte
 * budget that does not depend on the chain's depth.
 *
 * Layers have stable slots: a snapshot adds a slot on top and no extent changes (the new overlay is empty), and a job
 * that has copied and re-linked drops the slots of the layers that went.  Writers patch: every change of a layer's
 * tables calls chain_map_patch(), which updates all maps that hold the layer.
 */
#ifndef BLOCK_CHAIN_MAP_H
#define BLOCK_CHAIN_MAP_H

#include "block/node.h"

struct chain_extent {
    enum extent_kind kind; /* never EXTENT_NONE with a layer: NONE = no layer holds it (zeroes), layer NULL */
    struct node *layer;    /* who holds it */
    unsigned depth;        /* of that layer below the map's root; UINT_MAX when no layer holds it */
    uint64_t len;          /* bytes from the offset asked */
    uint64_t host;         /* EXTENT_DATA: offset in node_host_file(layer) */
};

/* The map of `root`; made on first use, shared, counted. */
struct chain_map *chain_map_get(struct node *root);
void chain_map_put(struct chain_map *map);

/* A snapshot: `overlay` (empty, on top of `root`) becomes the root of the map that `root` had, and nothing is resolved
 * anew.  Makes a new map when somebody else still looks through the old one, or when the overlay's clusters ask for slices of
 * another size.  Returns the overlay's map, with the caller's reference to the old one turned into one to this. */
struct chain_map *chain_map_raise(struct chain_map *map, struct node *overlay);

/* Resolve the longest uniform run at `offset`, at most `len` bytes.  Suspends only when the slice is not in memory; the caller is
 * inside a counted request, so that no layer leaves the chain meanwhile.  Tables that cannot be read are EXTENT_OPAQUE. */
void co_chain_map_find(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out);
/* As above, never suspends: false when not in memory. */
bool chain_map_peek(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out);

/* The layer's own content of [offset, offset + len) is now `kind` at `host` (EXTENT_NONE: the layer has let go of it: the range is
 * forgotten and resolved anew).  Called by drivers right after their tables changed in memory, in the same breath. */
void chain_map_patch(struct node *layer, uint64_t offset, uint64_t len, enum extent_kind kind, uint64_t host);
/*
 * While node->read_at_source: what co_copy_in() took over from files below is not patched.  The map goes on naming the source,
 * which has the same content, and, unlike the target, has it in the page cache.  So the driver patches what is written in place
 * as well (before it writes: until then both are the same), and who asks for such an extent learns where it can be read, not
 * who holds it.  Ends with chain_map_forget_layer(), or when the sources leave the chain.
 */

/* The chain below some root changed (snapshot, end of a job): slots follow the edges.  Extents of layers that
 * left are forgotten. */
void chain_map_relink(struct node *changed);
/* Forget everything of a layer (it was truncated, reopened, ...). */
void chain_map_forget_layer(struct node *layer);

/* Be told of each change of the root's own content, from within chain_map_patch() (so the callback does nothing but take a
 * note). One watcher at a time; NULL ends it. */
typedef void chain_map_watch_fn(void *arg, uint64_t offset, uint64_t len);
void chain_map_watch(struct chain_map *map, chain_map_watch_fn *fn, void *arg);

/* Bytes all maps together may hold; default 8 MiB. */
void chain_map_set_budget(size_t bytes);
size_t chain_map_budget(void);
struct chain_map_stats {
    uint64_t fills, layers_visited, evictions, patches;
    size_t bytes;
};
extern struct chain_map_stats chain_map_stats;

#endif
