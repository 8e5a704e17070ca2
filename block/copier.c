/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copier (see copier.h).
 */
#include "block/copier.h"

#include <assert.h>

#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"

/* How much of the map one call of co_copier_next() may walk over. */
#define LOOK_AHEAD_STEPS 256

void copier_init(struct copier *c, struct node *target, struct node *base)
{
    *c = (struct copier){ .target = target, .base = base, .map = chain_map_get(target) };
}

void copier_fini(struct copier *c)
{
    for (void *buf = c->spare, *next; buf; buf = next) {
        memcpy(&next, buf, sizeof(next));
        free(buf);
    }
    c->spare = NULL;
    chain_map_put(c->map);
    c->map = NULL;
}

/*
 * Does the target need this extent for itself?  Its own content: no.  The base's or what lies below it: no, that stays
 * readable.  Zeroes of a layer that goes: only when a base stays that could have something else there, which it has not
 * beyond its own end.  Where the target's own tables could not be read, nobody knows whether it has anything there:
 * whoever tries to find out gets the error.
 */
static bool wanted(const struct copier *c, uint64_t offset, const struct chain_extent *ext)
{
    int base_depth = c->base ? node_depth(c->target, c->base) : -1;

    if (ext->layer == c->target && ext->kind == EXTENT_OPAQUE) {
        return true;
    }
    if (c->zeroes_too && ext->layer != c->target && (!c->base || (ext->layer && ext->depth < (unsigned)base_depth))) {
        return true;
    }
    if (!ext->layer || ext->layer == c->target || (c->base && ext->depth >= (unsigned)base_depth)) {
        return false;
    }
    return ext->kind != EXTENT_ZERO || (c->base && offset < c->base->size);
}

/* How much at `offset` may be looked at together: an extent does not go across the base's end. */
static uint64_t look_at_most(const struct copier *c, uint64_t offset, uint64_t len)
{
    uint64_t edge = c->base ? c->base->size : 0;

    return offset < edge ? MIN(len, edge - offset) : len;
}

/* What lies at `offset`, inside a request. */
static void co_look(struct copier *c, uint64_t offset, uint64_t len, struct chain_extent *ext)
{
    co_chain_map_find(c->map, offset, look_at_most(c, offset, len), ext);
}

/* The same as a request of its own, unless we are inside one: another job may end below our base, and its layers must stay
 * until we have seen them. */
static void co_look_for_next(struct copier *c, uint64_t offset, uint64_t len, struct chain_extent *ext)
{
    if (c->nested) {
        co_look(c, offset, len, ext);
    } else {
        int ret = co_node_map(c->target, offset, look_at_most(c, offset, len), ext);
        assert(ret == 0); /* the target is the job's, so its size stays */
    }
}

/* How far what is wanted at `offset` goes on, not beyond `end`. */
static uint64_t co_wanted_until(struct copier *c, uint64_t offset, uint64_t end)
{
    struct chain_extent ext;

    for (int step = 0; step < LOOK_AHEAD_STEPS && offset < end; step++) {
        co_look_for_next(c, offset, end - offset, &ext);
        if (!wanted(c, offset, &ext)) {
            break;
        }
        offset += ext.len;
    }
    return offset;
}

void co_copier_next(struct copier *c, uint64_t max, uint64_t *offset, uint64_t *len)
{
    uint32_t unit = c->target->cluster_size;
    uint64_t size = c->target->size, last = c->end ? MIN(ROUND_UP(c->end, unit), size) : size;
    struct chain_extent ext;

    *len = 0;
    for (int step = 0; step < LOOK_AHEAD_STEPS && c->offset < last; step++) {
        co_look_for_next(c, c->offset, last - c->offset, &ext);
        if (wanted(c, c->offset, &ext)) {
            uint64_t start = ROUND_DOWN(c->offset, unit);
            uint64_t end = MIN(start + MAX(ROUND_DOWN(max, unit), unit), last);

            end = co_wanted_until(c, MIN(c->offset + ext.len, end), end);
            *offset = start;
            *len = MIN(ROUND_UP(end, unit), size) - start;
            c->offset = start + *len;
            return;
        }
        c->offset += ext.len;
        co_take_turns(); /* a step may have gone over gigabytes of nothing */
    }
}

/*
 * A run of the target that is being put together: pieces of the sources' files, and memory for what has no such form
 * (compressed, or finer than the target's clusters).  It is moved at once, so that neither many small layers nor
 * many small clusters cost a step each.
 */
struct batch {
    uint64_t offset, len;
    struct io_piece *pieces;
    int n, room;
};

static void add_piece(struct batch *b, struct io_piece piece)
{
    struct io_piece *last = b->n > 0 ? &b->pieces[b->n - 1] : NULL;

    b->len += piece.len;
    if (last && piece.file && last->file == piece.file && last->offset + last->len == piece.offset) {
        last->len += piece.len;
        return;
    }
    if (b->n == b->room) {
        b->room = MAX(2 * b->room, 8);
        b->pieces = mem_realloc(b->pieces, b->room * sizeof(*b->pieces));
    }
    b->pieces[b->n++] = piece;
}

static bool is_large(uint64_t len)
{
    return len >= COPIER_WINDOW_MAX / 4 && len <= COPIER_WINDOW_MAX;
}

/* There are as many as were in flight at once. */
static void *buffer_get(struct copier *c, uint64_t len)
{
    void *buf = is_large(len) ? c->spare : NULL;

    if (!buf) {
        return mem_align(4096, is_large(len) ? COPIER_WINDOW_MAX : len);
    }
    memcpy(&c->spare, buf, sizeof(buf));
    return buf;
}

static void buffer_put(struct copier *c, void *buf, uint64_t len)
{
    if (!is_large(len)) {
        free(buf);
        return;
    }
    memcpy(buf, &c->spare, sizeof(buf));
    c->spare = buf;
}

static void clear_batch(struct copier *c, struct batch *b)
{
    for (int i = 0; i < b->n; i++) {
        if (b->pieces[i].mem) {
            buffer_put(c, (void *)b->pieces[i].mem, b->pieces[i].len);
        }
    }
    b->n = 0;
    b->len = 0;
}

/* Write what has been put together; then the batch is empty. */
static int co_move_batch(struct copier *c, struct batch *b)
{
    int ret = 0;

    if (b->n > 0) {
        ret = c->target->driver->co_copy_in(c->target, b->offset, b->pieces, b->n);
        c->copied += ret == 0 ? b->len : 0;
    }
    clear_batch(c, b);
    return ret;
}

/* MAY_UNMAP is not given: nothing of the target's own is here to be given back. */
static int co_write_zeroes(struct copier *c, struct batch *b, uint64_t offset, uint64_t len)
{
    int ret = co_move_batch(c, b);

    return ret < 0 ? ret : c->target->driver->co_zero(c->target, offset, len, 0);
}

static int co_add_by_reading(struct copier *c, struct batch *b, uint64_t offset, uint64_t len)
{
    void *buf = buffer_get(c, len);
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    int ret = co_node_read_nested(c->target, offset, &iov, 1);

    if (ret == 0 && !bytes_are_zero(buf, len)) {
        add_piece(b, (struct io_piece){ .mem = buf, .len = len });
        return 0;
    }
    buffer_put(c, buf, len);
    return ret < 0 ? ret : co_write_zeroes(c, b, offset, len);
}

/* Any part of one cluster wanted? */
static bool co_mixed_wanted(struct copier *c, uint64_t offset, uint64_t len)
{
    struct chain_extent ext;
    bool any = false;

    for (uint64_t done = 0; done < len && !any; done += ext.len) {
        co_look(c, offset + done, len - done, &ext);
        any = wanted(c, offset + done, &ext);
    }
    return any;
}

/* A run of whole clusters that one extent covers. */
static int co_add_run(struct copier *c, struct batch *b, uint64_t offset, uint64_t len,
                      const struct chain_extent *ext)
{
    if (ext->kind == EXTENT_ZERO || ext->kind == EXTENT_NONE) {
        return co_write_zeroes(c, b, offset, len);
    }
    if (ext->kind == EXTENT_DATA) {
        node_debug_event(ext->layer, EVENT_READ_AIO);
        add_piece(b, (struct io_piece){ .file = node_host_file(ext->layer), .offset = ext->host, .len = len });
        return 0;
    }
    return co_add_by_reading(c, b, offset, len);
}

/* What lies at `offset`, whole clusters of the target, into the batch if it is wanted; *len: how far that went. */
static int co_add(struct copier *c, struct batch *b, uint64_t offset, uint64_t end, bool *any, uint64_t *len)
{
    uint32_t unit = c->target->cluster_size;
    uint64_t cluster = MIN((uint64_t)unit, end - offset);
    struct chain_extent ext;

    co_look(c, offset, end - offset, &ext);
    if (ext.len < cluster) {
        *len = cluster;
        *any = co_mixed_wanted(c, offset, cluster);
        return *any ? co_add_by_reading(c, b, offset, cluster) : 0;
    }
    *len = offset + ext.len == end ? ext.len : MAX(ROUND_DOWN(ext.len, unit), cluster);
    *any = wanted(c, offset, &ext);
    return *any ? co_add_run(c, b, offset, *len, &ext) : 0;
}

static int co_fill_window(struct node *target, uint64_t offset, uint64_t len, void *arg)
{
    struct copier *c = arg;
    uint64_t end = offset + len, run;
    struct batch b = { 0 };
    int ret = 0;

    for (; offset < end && ret == 0; offset += run) {
        bool any = false;

        b.offset = b.n > 0 ? b.offset : offset;
        ret = co_add(c, &b, offset, end, &any, &run);
        if (ret == 0 && !any) {
            ret = co_move_batch(c, &b);
        }
    }
    if (ret == 0) {
        ret = co_move_batch(c, &b);
    }
    clear_batch(c, &b);
    free(b.pieces);
    return ret;
}

int co_copier_fill(struct copier *c, uint64_t offset, uint64_t len)
{
    return c->nested ? co_node_populate_nested(c->target, offset, len, co_fill_window, c)
                     : co_node_populate(c->target, offset, len, co_fill_window, c);
}
