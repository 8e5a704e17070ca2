/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chain map inside: shared by chain-map.c (slices, questions, patches, layers) and chain-map-fill.c only.
 */
#ifndef BLOCK_CHAIN_MAP_SLICE_H
#define BLOCK_CHAIN_MAP_SLICE_H

#include <uthash.h>

#include "block/chain-map.h"

#define NO_SLOT 0xffffffu

struct chain_layer {
    LIST_ENTRY(chain_layer) link; /* in node->layer_of */
    struct chain_map *map;
    struct node *node;            /* NULL: the slot is free */
    uint32_t slot;
    unsigned depth;
    bool in_chain;                /* while the edges are followed: it is met */
};

struct map_extent {
    uint32_t start;     /* bytes from the slice's start */
    uint32_t slot : 24; /* NO_SLOT: no layer */
    uint32_t kind : 8;
    uint64_t host;
};

struct map_slice {
    UT_hash_handle hh;
    TAILQ_ENTRY(map_slice) lru; /* whole slices only, the most recently used first */
    struct chain_map *map;
    uint64_t index;
    struct map_extent *ext;     /* NULL while being filled */
    uint32_t count, room;
    bool stale;
    struct co_queue filled;     /* those who wait for the filler */
};

struct chain_map {
    struct node *root;
    unsigned refs;
    uint32_t slice_bytes; /* a power of two */
    struct chain_layer **layers; /* by slot */
    uint32_t slots;
    struct map_slice *slices;
    struct map_slice *last;      /* used last, to skip the hash */
    uint64_t changes;            /* how often a layer has changed */
    chain_map_watch_fn *watch;   /* of changes of the root; NULL: nobody */
    void *watch_arg;
};

/* Append to a sorted list that has room, melting into the extent before when it goes on there.  Returns the new count. */
uint32_t map_extent_append(struct map_extent *ext, uint32_t count, struct map_extent e);
/* `layer`: NULL when none holds it. */
void chain_extent_set(struct chain_extent *out, const struct chain_layer *layer, enum extent_kind kind, uint64_t len, uint64_t host);
/* The layer of a node in a map, NULL when the node is not in it. */
struct chain_layer *chain_layer_of(struct chain_map *map, const struct node *node);
/* Resolve a whole slice by asking the layers: *ext (malloc'ed) and *count.  Starts over while the slice becomes stale (M3). */
void co_chain_map_fill(struct map_slice *s, struct map_extent **ext, uint32_t *count);
/* What the layers say at `offset` and how far, at most `len` bytes: for spans that are longer than slices, none of which is kept.
 * False: somebody has changed a layer meanwhile. */
bool co_chain_map_ask(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out);

#endif
