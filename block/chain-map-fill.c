/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filling a slice of the chain map: ask the layers from the top down about the span that is still open.
 *
 * Each layer is asked once about the whole span between the first and the last open byte, not once a hole, and what it says and
 * what is open are gone over side by side, so that a slice costs O(layers + extents), however fragmented it is.
 *
 * And the same question without a slice, about spans of nothing that are longer than those.
 */
#include <assert.h>
#include <stdlib.h>

#include "block/chain-map-slice.h"
#include "core/mem.h"

#define WORK_AT_ONCE 8192 /* pieces found in one turn of the loop: a millisecond */
#define LAYER_WORK 64     /* what asking a layer counts for */

struct range {
    uint32_t start, end;
};

/* Sorted, without overlaps. */
struct ranges {
    struct range *list;
    uint32_t n, room;
};

struct fill {
    struct map_extent *ext; /* not sorted yet */
    uint32_t count, room;
    struct ranges open;     /* what no layer has claimed so far */
    struct ranges rest;     /* and what the layer that is being asked does not claim either */
    uint32_t work;          /* done since this turn of the loop began */
};

static void fill_add(struct fill *f, uint32_t start, uint32_t slot, const struct extent *e, uint64_t host)
{
    if (f->count == f->room) {
        f->room = f->room ? f->room * 2 : 16;
        f->ext = mem_reallocarray(f->ext, f->room, sizeof(*f->ext));
    }
    f->ext[f->count++] = (struct map_extent){ .start = start, .slot = slot, .kind = e->kind, .host = host };
}

static void ranges_add(struct ranges *r, uint32_t start, uint32_t end)
{
    if (r->n > 0 && r->list[r->n - 1].end == start) {
        r->list[r->n - 1].end = end;
        return;
    }
    if (r->n == r->room) {
        r->room = r->room ? r->room * 2 : 16;
        r->list = mem_reallocarray(r->list, r->room, sizeof(*r->list));
    }
    r->list[r->n++] = (struct range){ start, end };
}

/*
 * What a layer says of [at, at + e->len).  From the first open range that ends behind `at`, which is *i, to the first one that ends
 * behind the extent: what is open there becomes an extent of the map, or stays open.
 */
static void fill_take(struct fill *f, uint32_t *i, uint32_t at, uint32_t slot, const struct extent *e)
{
    uint32_t end = at + e->len;

    for (; *i < f->open.n && f->open.list[*i].start < end; ++*i) {
        struct range *r = &f->open.list[*i];
        uint32_t from = MAX(r->start, at), to = MIN(r->end, end);

        if (e->kind == EXTENT_NONE) {
            ranges_add(&f->rest, from, to);
        } else {
            fill_add(f, from, slot, e, e->kind == EXTENT_DATA ? e->host + (from - at) : 0);
        }
        if (r->end > end) {
            return;
        }
    }
}

/* What this layer holds at `offset`, at most `len` bytes on. */
static void co_ask(struct node *node, uint64_t offset, uint64_t len, struct extent *e)
{
    if (offset >= node->size) {
        /* Beyond the end of a backing file its overlay reads zeroes, whatever lies further below.  The short
         * layer itself is named as the holder: whoever merges it away must write these zeroes. */
        *e = (struct extent){ .kind = EXTENT_ZERO, .len = len };
        return;
    }
    *e = (struct extent){ .kind = EXTENT_OPAQUE, .len = MIN(len, node->size - offset) };
    if (node->driver->co_map) {
        /* An error is seen by who reads what it is about, not by all who need the slice. */
        node->driver->co_map(node, offset, MIN(len, node->size - offset), e);
        assert(e->len > 0 && e->len <= len);
    }
}

static void co_count_work(struct fill *f, uint32_t work)
{
    f->work += work;
    if (f->work >= WORK_AT_ONCE) {
        f->work = 0;
        co_yield();
    }
}

/* Ask one layer about everything between the first and the last open byte. */
static void co_fill_layer(struct fill *f, const struct chain_layer *layer, uint64_t base)
{
    struct ranges asked = f->open;
    uint32_t at = asked.list[0].start, end = asked.list[asked.n - 1].end, i = 0;
    struct extent e;

    chain_map_stats.layers_visited++;
    f->rest.n = 0;
    for (; at < end; at += e.len) {
        co_ask(layer->node, base + at, end - at, &e);
        fill_take(f, &i, at, layer->slot, &e);
        co_count_work(f, 1);
    }
    f->open = f->rest;
    f->rest = asked;
    co_count_work(f, LAYER_WORK);
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

    f->count = 0;
    f->open.n = 0;
    ranges_add(&f->open, 0, end);
    for (struct node *node = map->root; node && f->open.n > 0; node = node->backing) {
        co_fill_layer(f, chain_layer_of(map, node), base);
    }
    for (uint32_t i = 0; i < f->open.n; i++) {
        fill_add(f, f->open.list[i].start, NO_SLOT, &nothing, 0);
    }
    qsort(f->ext, f->count, sizeof(*f->ext), by_start);
}

void co_chain_map_fill(struct map_slice *s, struct map_extent **ext, uint32_t *count)
{
    struct fill f = { 0 };

    do {
        s->stale = false;
        chain_map_stats.fills++;
        co_fill_once(s, &f);
    } while (s->stale); /* M3 */
    free(f.open.list);
    free(f.rest.list);
    *count = 0;
    for (uint32_t i = 0; i < f.count; i++) {
        *count = map_extent_append(f.ext, *count, f.ext[i]);
    }
    *ext = mem_reallocarray(f.ext, *count, sizeof(*f.ext));
}

bool co_chain_map_ask(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    struct extent e = { .kind = EXTENT_NONE };
    struct chain_layer *layer = NULL;
    uint64_t changes = map->changes;

    for (struct node *node = map->root; node && e.kind == EXTENT_NONE; node = node->backing) {
        chain_map_stats.layers_visited++;
        co_ask(node, offset, len, &e);
        len = e.len;
        layer = chain_layer_of(map, node);
        co_take_turns();
    }
    chain_extent_set(out, e.kind == EXTENT_NONE ? NULL : layer, e.kind, len, e.kind == EXTENT_DATA ? e.host : 0);
    return map->changes == changes;
}
