/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filling a slice of the chain map: ask the layers from the top down about the span that is still open.
 *
 * Each layer is asked once about the whole span between the first and the last open byte, not once a hole, so that a slice costs
 * O(layers + extents) calls, however fragmented it is.
 */
#include <assert.h>
#include <stdlib.h>

#include "block/chain-map-slice.h"
#include "core/mem.h"

#define LAYERS_AT_ONCE 128 /* asked in one turn of the loop: a millisecond */

struct range {
    uint32_t start, end;
};

struct fill {
    struct map_extent *ext; /* not sorted yet */
    uint32_t count, room;
    struct range *open;     /* sorted: what no layer has claimed so far */
    uint32_t n_open, open_room;
};

static void fill_add(struct fill *f, uint32_t start, uint32_t slot, const struct extent *e, uint64_t host)
{
    if (f->count == f->room) {
        f->room = f->room ? f->room * 2 : 16;
        f->ext = mem_reallocarray(f->ext, f->room, sizeof(*f->ext));
    }
    f->ext[f->count++] = (struct map_extent){ .start = start, .slot = slot, .kind = e->kind, .host = host };
}

/* A layer claims [start, end): take it out of what is open, and note an extent for each piece that was. */
static void fill_claim(struct fill *f, uint32_t start, uint32_t end, uint32_t slot, const struct extent *e)
{
    uint32_t low = 0, high = f->n_open;

    while (low < high) { /* the first open range that ends behind start */
        uint32_t mid = (low + high) / 2;
        if (f->open[mid].end <= start) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    while (low < f->n_open && f->open[low].start < end) {
        struct range *r = &f->open[low];
        uint32_t from = MAX(r->start, start), to = MIN(r->end, end);

        fill_add(f, from, slot, e, e->kind == EXTENT_DATA ? e->host + (from - start) : 0);
        if (from > r->start && to < r->end) { /* a hole in the middle: one range more */
            struct range rest = { .start = to, .end = r->end };
            r->end = from;
            if (f->n_open == f->open_room) {
                f->open_room *= 2;
                f->open = mem_reallocarray(f->open, f->open_room, sizeof(*f->open));
            }
            memmove(&f->open[low + 2], &f->open[low + 1], (f->n_open - low - 1) * sizeof(*r));
            f->open[low + 1] = rest;
            f->n_open++;
            return;
        }
        if (from > r->start) {
            r->end = from;
            low++;
        } else if (to < r->end) {
            r->start = to;
            return;
        } else {
            memmove(r, r + 1, (f->n_open - low - 1) * sizeof(*r));
            f->n_open--;
        }
    }
}

/* Ask one layer about everything between the first and the last open byte. */
static void co_fill_layer(struct fill *f, const struct chain_layer *layer, uint64_t base)
{
    struct node *node = layer->node;
    uint32_t at = f->open[0].start;

    chain_map_stats.layers_visited++;
    while (f->n_open > 0 && at < f->open[f->n_open - 1].end) {
        uint32_t end = f->open[f->n_open - 1].end;
        uint64_t offset = base + at;
        struct extent e;

        if (offset >= node->size) {
            /* Beyond the end of a backing file its overlay reads zeroes, whatever lies further below.  The short
             * layer itself is named as the holder: whoever merges it away must write these zeroes. */
            e = (struct extent){ .kind = EXTENT_ZERO, .len = end - at };
        } else if (!node->driver->co_map) {
            e = (struct extent){ .kind = EXTENT_OPAQUE, .len = MIN((uint64_t)end - at, node->size - offset) };
        } else {
            /* An error is seen by who reads what it is about, not by all who need the slice. */
            node->driver->co_map(node, offset, MIN((uint64_t)end - at, node->size - offset), &e);
            assert(e.len > 0 && e.len <= end - at);
        }
        if (e.kind != EXTENT_NONE) {
            fill_claim(f, at, at + e.len, layer->slot, &e);
        }
        at += e.len;
    }
}

static int by_start(const void *a, const void *b)
{
    const struct map_extent *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* The chain cannot change while a fill runs: a request is in flight on the root or above it (re-linking drains). */
static void co_fill_once(struct map_slice *s, struct fill *f)
{
    struct chain_map *map = s->map;
    uint64_t base = s->index * map->slice_bytes;
    uint32_t end = MIN((uint64_t)map->slice_bytes, ROUND_UP(map->root->size, NODE_SECTOR) - base);
    struct extent nothing = { .kind = EXTENT_NONE };
    unsigned asked = 0;

    f->count = 0;
    f->n_open = 1;
    f->open[0] = (struct range){ .start = 0, .end = end };
    for (struct node *node = map->root; node && f->n_open > 0; node = node->backing) {
        co_fill_layer(f, chain_layer_of(map, node), base);
        if (++asked % LAYERS_AT_ONCE == 0) {
            co_yield();
        }
    }
    for (uint32_t i = 0; i < f->n_open; i++) {
        fill_add(f, f->open[i].start, NO_SLOT, &nothing, 0);
    }
    qsort(f->ext, f->count, sizeof(*f->ext), by_start);
}

void co_chain_map_fill(struct map_slice *s, struct map_extent **ext, uint32_t *count)
{
    struct fill f = { .open_room = 16, .open = mem_calloc(16, sizeof(struct range)) };

    do {
        s->stale = false;
        chain_map_stats.fills++;
        co_fill_once(s, &f);
    } while (s->stale); /* M3 */
    free(f.open);
    *count = 0;
    for (uint32_t i = 0; i < f.count; i++) {
        *count = map_extent_append(f.ext, *count, f.ext[i]);
    }
    *ext = mem_reallocarray(f.ext, *count, sizeof(*f.ext));
}
