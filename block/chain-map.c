/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chain map (see chain-map.h).
 *
 *   map --- layers: a chain_layer per node, with a slot (stable) and a depth (follows the edges)
 *     \---- slices: hash by index; each covers slice_bytes of guest space and is either whole or being filled
 *              extents: sorted by start, without gaps; an extent ends where the next one starts
 *
 * Invariants:
 *   M1  a whole slice covers its range without gaps and says what reading through the layers now would say (or where
 *       the same content lies: read_at_source in the header)
 *   M2  whoever changes what a layer holds calls chain_map_patch() before it suspends again
 *   M3  a patch that meets a slice being filled marks it stale; the filler then starts over, so that M1 holds when
 *       it is done
 *   M4  an extent never names a slot whose layer has left the chain
 *   M5  what is said of more than a slice is what the layers say, asked while none of them changed
 */
#include "block/chain-map-slice.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include "core/mem.h"

/*
 * A slice is resolved at once and kept whole, so it should not have too many extents; but a stream of a disk with little in it
 * goes over all slices, and each costs something of its own.
 */
#define SLICE_CLUSTERS 512u
#define SLICE_MIN_BYTES (1u << 20)
#define SLICE_MAX_BYTES (64u << 20)
#define BUDGET_DEFAULT (8u << 20)

static TAILQ_HEAD(slice_list, map_slice) lru = TAILQ_HEAD_INITIALIZER(lru);
static size_t budget = BUDGET_DEFAULT;
static size_t alive; /* maps */
struct chain_map_stats chain_map_stats;

/* --- Slices -------------------------------------------------------------------------------------------------- */

static size_t slice_size(const struct map_slice *s)
{
    return sizeof(*s) + s->room * sizeof(*s->ext);
}

static void slice_free(struct map_slice *s)
{
    struct chain_map *map = s->map;

    assert(s->ext); /* who fills it, has it */
    TAILQ_REMOVE(&lru, s, lru);
    chain_map_stats.bytes -= slice_size(s);
    free(s->ext);
    if (map->last == s) {
        map->last = NULL;
    }
    HASH_DEL(map->slices, s);
    free(s);
}

/* Drop the least recently used until the budget holds; `keep` stays. */
static void evict(const struct map_slice *keep)
{
    struct map_slice *s = TAILQ_LAST(&lru, slice_list);

    while (s && chain_map_stats.bytes > budget) {
        struct map_slice *before = TAILQ_PREV(s, slice_list, lru);
        if (s != keep) {
            chain_map_stats.evictions++;
            slice_free(s);
        }
        s = before;
    }
}

void chain_map_set_budget(size_t bytes)
{
    budget = bytes;
    evict(NULL);
}

/* Memory has run out. */
static void shrink(void *arg)
{
    size_t usual = budget;

    chain_map_set_budget(0);
    budget = usual;
}

static struct mem_shrinker shrinker = { .shrink = shrink };

size_t chain_map_budget(void)
{
    return budget;
}

static struct map_slice *slice_find(struct chain_map *map, uint64_t index)
{
    struct map_slice *s = map->last;

    if (!s || s->index != index) {
        HASH_FIND(hh, map->slices, &index, sizeof(index), s);
    }
    return s;
}

static void slice_touch(struct map_slice *s)
{
    if (TAILQ_FIRST(&lru) != s) {
        TAILQ_REMOVE(&lru, s, lru);
        TAILQ_INSERT_HEAD(&lru, s, lru);
    }
    s->map->last = s;
}

/* The extent that holds byte `at`. */
static uint32_t slice_search(const struct map_slice *s, uint32_t at)
{
    uint32_t low = 0, high = s->count;

    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (s->ext[mid].start <= at) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return low;
}

static bool joins(const struct map_extent *a, const struct map_extent *b)
{
    return a->kind == b->kind && a->slot == b->slot &&
           (a->kind != EXTENT_DATA || a->host + (b->start - a->start) == b->host);
}

uint32_t map_extent_append(struct map_extent *ext, uint32_t count, struct map_extent e)
{
    if (count > 0 && joins(&ext[count - 1], &e)) {
        return count;
    }
    ext[count] = e;
    return count + 1;
}

static void co_fill(struct map_slice *s)
{
    struct map_extent *ext;
    uint32_t count;

    co_chain_map_fill(s, &ext, &count);
    s->ext = ext;
    s->count = s->room = count;
    TAILQ_INSERT_HEAD(&lru, s, lru);
    chain_map_stats.bytes += slice_size(s);
    co_queue_wake_all(&s->filled);
    evict(s);
}

/* --- Asking ------------------------------------------------------------------------------------------------------ */

void chain_extent_set(struct chain_extent *out, const struct chain_layer *layer, enum extent_kind kind, uint64_t len, uint64_t host)
{
    *out = (struct chain_extent){ .kind = kind, .layer = layer ? layer->node : NULL, .depth = layer ? layer->depth : UINT_MAX,
                                  .len = len, .host = host };
}

static void answer(struct map_slice *s, uint32_t at, uint64_t len, struct chain_extent *out)
{
    struct chain_map *map = s->map;
    uint32_t i = slice_search(s, at);
    const struct map_extent *e = &s->ext[i];
    uint32_t end = i + 1 < s->count ? s->ext[i + 1].start : map->slice_bytes;
    const struct chain_layer *layer = e->slot == NO_SLOT ? NULL : map->layers[e->slot];

    slice_touch(s);
    chain_extent_set(out, layer, e->kind, MIN((uint64_t)(end - at), len), e->host + (e->kind == EXTENT_DATA ? at - e->start : 0));
}

bool chain_map_peek(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    struct map_slice *s = slice_find(map, offset / map->slice_bytes);

    if (!s || !s->ext) {
        return false;
    }
    answer(s, offset & (map->slice_bytes - 1), len, out);
    return true;
}

/* What is there, within a slice.  True: the slice had to be filled. */
static bool co_find_in_slice(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    uint64_t index = offset / map->slice_bytes;
    bool filled = false;

    while (!chain_map_peek(map, offset, len, out)) {
        struct map_slice *s = slice_find(map, index);
        if (s) { /* somebody fills it; look again afterwards, it may have been evicted */
            co_queue_wait(&s->filled);
            continue;
        }
        s = mem_zalloc(sizeof(*s));
        s->map = map;
        s->index = index;
        co_queue_init(&s->filled);
        HASH_ADD(hh, map->slices, index, sizeof(s->index), s);
        co_fill(s);
        filled = true;
    }
    return filled;
}

/*
 * A slice in which there is nothing at all, or zeroes: how far does that go on behind it?  So who goes over a disk with little in it
 * does not fill a million slices that all say the same.  False: a layer has changed meanwhile, *out may be wrong.
 */
static bool co_go_on(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    uint64_t end = MIN(ROUND_UP(offset + 1, (uint64_t)map->slice_bytes), offset + len), more = offset + len - end;
    const struct map_slice *s = slice_find(map, offset / map->slice_bytes);
    struct chain_extent next;

    if (!more || s->count > 1 || (out->kind != EXTENT_NONE && out->kind != EXTENT_ZERO)) {
        return true;
    }
    if (!co_chain_map_ask(map, end, more, &next)) {
        return false;
    }
    if (next.kind == out->kind && next.layer == out->layer) {
        out->len += next.len;
    }
    return true;
}

void co_chain_map_find(struct chain_map *map, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    assert(len > 0 && offset < map->root->size);
    if (co_find_in_slice(map, offset, len, out) && !co_go_on(map, offset, len, out)) {
        co_find_in_slice(map, offset, len, out);
    }
}

/* --- Patching ------------------------------------------------------------------------------------------------------- */

static unsigned extent_depth(const struct chain_map *map, const struct map_extent *e)
{
    return e->slot == NO_SLOT ? UINT_MAX : map->layers[e->slot]->depth;
}

/* Replace what `layer` now overrules in [from, to) of a slice. */
static void patch_slice(struct map_slice *s, const struct chain_layer *layer, uint32_t from, uint32_t to,
                        enum extent_kind kind, uint64_t host)
{
    struct chain_map *map = s->map;
    uint32_t first = slice_search(s, from), last = slice_search(s, to - 1);
    uint32_t keep_from = first > 0 ? first - 1 : 0; /* one neighbour on either side may melt */
    uint32_t keep_to = MIN(last + 2, s->count);
    uint32_t room = (keep_to - keep_from) * 3, n = 0;
    struct map_extent fixed[24], *new = room <= ARRAY_SIZE(fixed) ? fixed : mem_calloc(room, sizeof(*new));

    for (uint32_t i = keep_from; i < keep_to; i++) {
        struct map_extent e = s->ext[i];
        uint32_t end = i + 1 < s->count ? s->ext[i + 1].start : map->slice_bytes;
        uint32_t a = MAX(e.start, from), b = MIN(end, to);

        if (a >= b || extent_depth(map, &e) < layer->depth) {
            n = map_extent_append(new, n, e);
            continue;
        }
        if (e.start < a) {
            n = map_extent_append(new, n, e);
        }
        n = map_extent_append(new, n, (struct map_extent){ .start = a, .slot = layer->slot, .kind = kind,
                                                .host = kind == EXTENT_DATA ? host + (a - from) : 0 });
        if (b < end) {
            struct map_extent rest = e;
            rest.host += e.kind == EXTENT_DATA ? b - e.start : 0;
            rest.start = b;
            n = map_extent_append(new, n, rest);
        }
    }
    uint32_t count = s->count - (keep_to - keep_from) + n;
    if (count > s->room) {
        chain_map_stats.bytes += (count + count / 4 - s->room) * sizeof(*s->ext);
        s->room = count + count / 4;
        s->ext = mem_reallocarray(s->ext, s->room, sizeof(*s->ext));
    }
    memmove(&s->ext[keep_from + n], &s->ext[keep_to], (s->count - keep_to) * sizeof(*s->ext));
    memcpy(&s->ext[keep_from], new, n * sizeof(*new));
    s->count = count;
    if (new != fixed) {
        free(new);
    }
}

static void patch_map(struct chain_layer *layer, uint64_t offset, uint64_t len, enum extent_kind kind, uint64_t host)
{
    struct chain_map *map = layer->map;

    map->changes++;
    if (map->watch && layer->node == map->root) {
        map->watch(map->watch_arg, offset, len);
    }
    for (uint64_t done = 0; done < len;) {
        uint64_t at = offset + done;
        uint32_t from = at & (map->slice_bytes - 1);
        uint64_t part = MIN(len - done, (uint64_t)map->slice_bytes - from);
        struct map_slice *s = slice_find(map, at / map->slice_bytes);

        if (s && !s->ext) {
            s->stale = true;
        } else if (s && kind == EXTENT_NONE) {
            slice_free(s);
        } else if (s) {
            patch_slice(s, layer, from, from + part, kind, host + (kind == EXTENT_DATA ? done : 0));
        }
        done += part;
    }
}

void chain_map_patch(struct node *layer, uint64_t offset, uint64_t len, enum extent_kind kind, uint64_t host)
{
    struct chain_layer *in;

    chain_map_stats.patches++;
    LIST_FOREACH(in, &layer->layer_of, link) {
        patch_map(in, offset, len, kind, host);
    }
    evict(NULL);
}

void chain_map_watch(struct chain_map *map, chain_map_watch_fn *fn, void *arg)
{
    assert(!fn || !map->watch);
    map->watch = fn;
    map->watch_arg = arg;
}

/* --- Layers come and go ------------------------------------------------------------------------------------------------ */

static void forget_slot(struct chain_map *map, uint32_t slot)
{
    struct map_slice *s, *next;

    HASH_ITER(hh, map->slices, s, next) {
        assert(s->ext); /* nobody asks while the chain changes */
        for (uint32_t i = 0; i < s->count; i++) {
            if (s->ext[i].slot == slot) {
                slice_free(s); /* M4 */
                break;
            }
        }
    }
}

void chain_map_forget_layer(struct node *node)
{
    struct chain_layer *layer;
    struct map_slice *s, *next;

    /* All slices, not only those that name it: what it hid or did not have may be different now. */
    LIST_FOREACH(layer, &node->layer_of, link) {
        layer->map->changes++;
        HASH_ITER(hh, layer->map->slices, s, next) {
            if (s->ext) {
                slice_free(s);
            } else {
                s->stale = true;
            }
        }
    }
}

static void layer_leave(struct chain_map *map, struct chain_layer *layer)
{
    forget_slot(map, layer->slot);
    LIST_REMOVE(layer, link);
    map->layers[layer->slot] = NULL;
    free(layer);
}

static void layer_join(struct chain_map *map, struct node *node, unsigned depth)
{
    struct chain_layer *layer = mem_zalloc(sizeof(*layer));
    uint32_t slot = 0;

    while (slot < map->slots && map->layers[slot]) {
        slot++;
    }
    if (slot == map->slots) {
        map->slots = map->slots ? map->slots * 2 : 4;
        map->layers = mem_reallocarray(map->layers, map->slots, sizeof(layer));
        memset(map->layers + slot, 0, (map->slots - slot) * sizeof(layer));
    }
    assert(slot < NO_SLOT);
    *layer = (struct chain_layer){ .map = map, .node = node, .slot = slot, .depth = depth };
    map->layers[slot] = layer;
    LIST_INSERT_HEAD(&node->layer_of, layer, link);
}

struct chain_layer *chain_layer_of(struct chain_map *map, const struct node *node)
{
    struct chain_layer *layer;

    LIST_FOREACH(layer, &node->layer_of, link) {
        if (layer->map == map) {
            return layer;
        }
    }
    return NULL;
}

/* Make the layers those of the chain below map->root now. */
static void follow_edges(struct chain_map *map)
{
    unsigned depth = 0;

    for (uint32_t i = 0; i < map->slots; i++) {
        if (map->layers[i]) {
            map->layers[i]->in_chain = false;
        }
    }
    for (struct node *node = map->root; node; node = node->backing) {
        struct chain_layer *layer = chain_layer_of(map, node);
        if (layer) {
            layer->in_chain = true;
        }
    }
    for (uint32_t i = 0; i < map->slots; i++) {
        if (map->layers[i] && !map->layers[i]->in_chain) {
            layer_leave(map, map->layers[i]);
        }
    }
    for (struct node *node = map->root; node; node = node->backing, depth++) {
        struct chain_layer *layer = chain_layer_of(map, node);
        if (layer) {
            layer->depth = depth;
        } else {
            layer_join(map, node, depth);
        }
    }
}

void chain_map_relink(struct node *changed)
{
    struct chain_layer *layer = LIST_FIRST(&changed->layer_of);
    size_t n = 0;
    struct chain_map **maps = NULL;

    /* The list changes under follow_edges(): note the maps first. */
    for (; layer; layer = LIST_NEXT(layer, link)) {
        maps = mem_reallocarray(maps, n + 1, sizeof(*maps));
        maps[n++] = layer->map;
    }
    for (size_t i = 0; i < n; i++) {
        follow_edges(maps[i]);
    }
    free(maps);
}

/* By the smallest clusters that any layer has tables of; what a host's file holds may be in pieces of any size. */
static uint32_t slice_bytes_for(const struct node *root)
{
    uint32_t bytes = SLICE_MAX_BYTES, finest = UINT32_MAX;

    for (const struct node *node = root; node; node = node->backing) {
        finest = node->driver->supports_backing ? MIN(finest, node->cluster_size) : finest;
    }
    while (bytes > SLICE_MIN_BYTES && (finest == UINT32_MAX || bytes / SLICE_CLUSTERS > finest)) {
        bytes /= 2;
    }
    return bytes;
}

struct chain_map *chain_map_get(struct node *root)
{
    struct chain_map *map = root->map;

    if (map) {
        map->refs++;
        return map;
    }
    if (!alive++) {
        mem_shrinker_add(&shrinker);
    }
    map = mem_zalloc(sizeof(*map));
    map->root = root;
    map->refs = 1;
    map->slice_bytes = slice_bytes_for(root);
    root->map = map;
    unsigned depth = 0;
    for (struct node *node = root; node; node = node->backing) {
        layer_join(map, node, depth++);
    }
    return map;
}

void chain_map_put(struct chain_map *map)
{
    struct map_slice *s, *next;

    if (!map || --map->refs > 0) {
        return;
    }
    if (!--alive) {
        mem_shrinker_remove(&shrinker);
    }
    HASH_ITER(hh, map->slices, s, next) {
        slice_free(s); /* a filler holds a reference, so none is being filled */
    }
    for (uint32_t i = 0; i < map->slots; i++) {
        if (map->layers[i]) {
            LIST_REMOVE(map->layers[i], link);
            free(map->layers[i]);
        }
    }
    map->root->map = NULL;
    free(map->layers);
    free(map);
}

struct chain_map *chain_map_raise(struct chain_map *map, struct node *overlay)
{
    if (map->refs > 1 || overlay->map || map->slice_bytes != slice_bytes_for(overlay)) {
        chain_map_put(map);
        return chain_map_get(overlay);
    }
    map->root->map = NULL;
    map->root = overlay;
    overlay->map = map;
    follow_edges(map);
    if (overlay->size > overlay->backing->size) { /* what lies beyond the old end was not in any slice */
        chain_map_forget_layer(overlay);
    }
    return map;
}
