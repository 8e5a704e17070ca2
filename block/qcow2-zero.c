/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zeroing and discarding: changes of entries without data.
 *
 *                     zero                                discard
 *   unallocated       ZERO if there is a backing file     ZERO if there is a backing file
 *   zero              stays                               ZERO, a host cluster is given back
 *   data, ours alone  ZERO, host cluster kept, or given   given back; ZERO if there is a backing
 *                     back with NODE_MAY_UNMAP            file, else unallocated
 *   shared, packed    ZERO, our reference dropped         as above
 *
 * Version 2 has no zero clusters: zeroes are written, but without a backing file clusters may be
 * given back; a discard does nothing under a backing file, which would shine through.
 *
 * Zeroing works on whole subclusters, discarding on whole clusters; the last one of the disk counts
 * as whole.  What sticks out is written with zeroes (zero) or left alone (discard).
 *
 * "No backing file" means none is there and none is recorded: an entry must be right at the next
 * start as well.
 *
 * All entries of a slice change in one breath with q->lock held.  The requests are serialising
 * (node.c), so no write is under way in the range; clusters in flight are waited for all the same.
 */
#include "block/qcow2-l2.h"

#include <assert.h>
#include <errno.h>

#include "block/chain-map.h"
#include "core/bytes.h"
#include "core/mem.h"

#define ZERO_WRITE_MAX (2u << 20) /* bytes of zeroes in one write */
#define SLICES_PER_TURN 4 /* 0.2 ms each: others are to have their turns */
#define MUST_WRITE 1              /* not a change of entries: write zeroes */

struct wish {
    bool discard;
    bool empty; /* a discard after which this layer says nothing at all, not even "zero" */
    bool unmap;
    bool stays;   /* NODE_ZERO_STAYS */
    bool backing; /* something lies below, or may */
};

struct l2_value {
    uint64_t entry, bitmap;
};

/* --- What becomes of an entry --------------------------------------------------------------- */

static struct l2_value zeroed(const struct qcow2 *q, const struct wish *wish, struct l2_value old)
{
    uint64_t host = qcow2_entry_host(old.entry);

    if (old.entry == 0 && !wish->backing) {
        return old;
    }
    if (host == 0 || wish->unmap || !(old.entry & QCOW2_COPIED)) {
        return (struct l2_value){ .entry = QCOW2_ZERO };
    }
    return (struct l2_value){ .entry = old.entry | QCOW2_ZERO };
}

/* Extended L2; `bits` are the subclusters to be zeroed. */
static struct l2_value zeroed_bits(const struct qcow2 *q, const struct wish *wish,
                                   struct l2_value old, uint64_t bits)
{
    struct l2_value new = { .entry = old.entry & QCOW2_COMPRESSED ? 0 : old.entry,
                            .bitmap = old.bitmap };
    uint64_t hidden = (old.bitmap | old.bitmap >> 32) & bits;

    if (old.entry & QCOW2_COMPRESSED || hidden != 0 || wish->backing) {
        new.bitmap = (old.bitmap & ~bits) | bits << 32;
    }
    if (!(new.bitmap & QCOW2_SUB_ALLOC) && (wish->unmap || !(old.entry & QCOW2_COPIED))) {
        new.entry = 0;
    }
    return new;
}

static struct l2_value discarded(const struct qcow2 *q, const struct wish *wish,
                                 struct l2_value old)
{
    bool zero = wish->backing;

    if (q->subclusters > 1) {
        zero = zero || (old.bitmap & QCOW2_SUB_ZERO) == QCOW2_SUB_ZERO;
        return (struct l2_value){ .bitmap = zero ? QCOW2_SUB_ZERO : 0 };
    }
    zero = zero || (!(old.entry & QCOW2_COMPRESSED) && old.entry & QCOW2_ZERO);
    assert(!zero || q->h.version >= 3); /* version 2 never gets here with a backing file, nor with such an entry */
    return (struct l2_value){ .entry = zero ? QCOW2_ZERO : 0 };
}

static struct l2_value outcome(const struct qcow2 *q, const struct wish *wish, struct l2_value old,
                               uint64_t bits)
{
    if (wish->empty) {
        return (struct l2_value){ 0 };
    }
    if (wish->discard) {
        return discarded(q, wish, old);
    }
    return q->subclusters > 1 ? zeroed_bits(q, wish, old, bits) : zeroed(q, wish, old);
}

static bool same(struct l2_value a, struct l2_value b)
{
    return a.entry == b.entry && a.bitmap == b.bitmap;
}

/* --- A slice -------------------------------------------------------------------------------- */

/* The next cluster of [at, end): where it ends, and the bits of its subclusters in the range. */
static uint64_t cluster_end(const struct qcow2 *q, uint64_t at, uint64_t end, uint64_t *bits)
{
    uint64_t start = ROUND_DOWN(at, (uint64_t)q->cluster_size);
    uint64_t stop = MIN(end, start + q->cluster_size);
    unsigned first = (at - start) / q->subcluster_size;
    unsigned last = (stop - start - 1) / q->subcluster_size;

    *bits = ((2ull << last) - 1) & ~((1ull << first) - 1);
    return stop;
}

static struct l2_value value_of(const struct qcow2 *q, const struct qcow2_piece *piece,
                                uint32_t index)
{
    return (struct l2_value){ .entry = qcow2_l2_entry(q, piece, index),
                              .bitmap = qcow2_l2_bitmap(q, piece, index) };
}

/* The first entry of [at, end) that the wish would change; `end` when none. */
static uint64_t first_change(const struct qcow2 *q, const struct wish *wish,
                             const struct qcow2_piece *piece, uint32_t index, uint64_t at,
                             uint64_t end)
{
    uint64_t bits, next;

    for (; at < end; at = next, index++) {
        struct qcow2_span span;
        struct l2_value old = value_of(q, piece, index);
        next = cluster_end(q, at, end, &bits);
        if (!qcow2_span(q, piece, index, 0, 1, false, &span) ||
            !same(outcome(q, wish, old, bits), old)) {
            return at;
        }
    }
    return end;
}

/* Changed neighbours that have become the same kind, to be patched into the chain maps at once. */
struct patch {
    uint64_t start, end;
    enum extent_kind kind;
};

static void patch_flush(struct qcow2 *q, struct patch *p)
{
    uint64_t end = MIN(p->end, q->node->size);

    if (p->start < end) {
        chain_map_patch(q->node, p->start, end - p->start, p->kind, 0);
    }
    p->start = p->end;
}

static void patch_add(struct qcow2 *q, struct patch *p, uint64_t start, uint64_t end,
                      enum extent_kind kind)
{
    if (p->end != start || p->kind != kind) {
        patch_flush(q, p);
        *p = (struct patch){ .start = start, .kind = kind };
    }
    p->end = end;
}

static void change_one(struct qcow2 *q, struct qcow2_piece *piece, uint32_t index,
                       struct l2_value old, struct l2_value new)
{
    if (old.entry & QCOW2_COMPRESSED ||
        (qcow2_entry_host(old.entry) && !qcow2_entry_host(new.entry))) {
        qcow2_entry_unlinked(q, old.entry);
    }
    qcow2_l2_set(q, piece, index, new.entry, new.bitmap);
}

/*
 * Change the entries of [at, end), all in this slice; *to says how far it went.  MUST_WRITE: what
 * lies between them cannot be expressed in an entry.
 */
static int co_apply(struct qcow2 *q, const struct wish *wish, struct qcow2_piece *piece,
                    uint32_t index, uint64_t at, uint64_t end, uint64_t *to)
{
    struct patch patch = { .start = at, .end = at };
    uint64_t bits, begin = at, next;
    struct qcow2_span span;
    int ret = 0;

    for (; at < end; at = next, index++) {
        struct l2_value old = value_of(q, piece, index), new;
        next = cluster_end(q, at, end, &bits);
        if (!qcow2_span(q, piece, index, 0, 1, false, &span)) {
            ret = co_qcow2_entry_corrupt(q, at, piece, index);
            break;
        }
        if (old.entry & QCOW2_COMPRESSED && q->subclusters > 1 && next - at < q->cluster_size) {
            ret = at == begin ? MUST_WRITE : 0;
            at = at == begin ? next : at;
            break;
        }
        new = outcome(q, wish, old, bits);
        if (!same(old, new)) {
            change_one(q, piece, index, old, new);
            qcow2_span(q, piece, index, at % q->cluster_size, 1, false, &span);
            patch_add(q, &patch, at, next, span.kind);
        }
    }
    patch_flush(q, &patch);
    *to = at;
    return ret;
}

/* q->lock held.  As co_apply(), but first find out whether there is anything to do at all.  When
 * *to is still `at`, something is in flight there. */
static int co_change_locked(struct qcow2 *q, const struct wish *wish, uint64_t at, uint64_t end,
                            uint64_t *to)
{
    struct l2_value nothing = { 0 };
    struct qcow2_piece *piece;
    uint32_t index;
    int ret = co_qcow2_slice_get(q, at, &piece, &index);

    if (ret < 0) {
        return ret;
    }
    if (!piece && same(outcome(q, wish, nothing, 1), nothing)) {
        *to = at + qcow2_table_rest(q, at);
        return 0;
    }
    end = qcow2_in_flight_from(q, ROUND_DOWN(at, (uint64_t)q->cluster_size), end);
    *to = at;
    if (piece && end > at) {
        *to = first_change(q, wish, piece, index, at, end);
    }
    if (piece) {
        qcow2_cache_put(q->l2_cache, piece);
    }
    if (end <= at || *to > at) {
        return 0;
    }
    ret = co_qcow2_slice_get_writable(q, at, &piece, &index);
    if (ret == 0) {
        ret = co_apply(q, wish, piece, index, at, end, to);
        qcow2_cache_put(q->l2_cache, piece);
    }
    return ret;
}

/* --- Writing zeroes ------------------------------------------------------------------------- */

static int co_write_zeroes(struct qcow2 *q, uint64_t at, uint64_t end)
{
    int n, ret = 0;
    struct iovec *list = qcow2_zero_list(MIN(end - at, ZERO_WRITE_MAX), &n);
    struct iovec *part = mem_calloc(n, sizeof(*part));

    while (at < end && ret == 0) {
        uint64_t len = MIN(end - at, ZERO_WRITE_MAX);
        ret = co_qcow2_write(q->node, at, part, iov_slice(part, list, n, 0, len));
        at += len;
    }
    free(list);
    free(part);
    return ret;
}

/* Part of a subcluster: nothing to do when it reads as zero already, and will at the next start.  `stays`: and will whatever comes
 * below. */
static int co_zero_part(struct qcow2 *q, uint64_t at, uint64_t end, bool stays)
{
    struct qcow2_fill content, none;
    bool zero = false;
    int ret = 0;

    if (!stays && (q->node->backing || !q->node->backing_name)) {
        ret = co_qcow2_fill_load(q, at, end, end, end, false, &content, &none);
        zero = ret == 0 && qcow2_fill_is_zero(&content);
        qcow2_fill_free(&content, &none);
    }
    return ret < 0 || zero ? ret : co_write_zeroes(q, at, end);
}

/* --- Ranges --------------------------------------------------------------------------------- */

static int co_change_range(struct qcow2 *q, const struct wish *wish, uint64_t at, uint64_t end)
{
    uint64_t slice = (uint64_t)q->slice_entries * q->cluster_size, to;
    unsigned slices = 0;

    for (; at < end; at = to) {
        int ret = co_qcow2_writeback_throttle(q);

        if (ret < 0) {
            return ret;
        }
        if (q->node->corrupt) {
            return -EIO;
        }
        co_mutex_lock(&q->lock);
        ret = co_change_locked(q, wish, at, MIN(end, ROUND_DOWN(at, slice) + slice), &to);
        co_mutex_unlock(&q->lock);
        if (ret == MUST_WRITE) {
            ret = co_zero_part(q, at, MIN(to, q->node->size), wish->stays);
        }
        if (ret < 0) {
            return ret;
        }
        if (to == at) {
            co_qcow2_in_flight_wait(q, at);
        } else if (++slices % SLICES_PER_TURN == 0) {
            co_yield();
        }
    }
    return 0;
}

/* Version 2 has no zero clusters. */
static int co_zero_old(struct qcow2 *q, uint64_t at, uint64_t end, bool unmap, bool nothing_below)
{
    struct wish wish = { .discard = true };
    struct extent e;

    if (unmap && nothing_below) {
        return co_change_range(q, &wish, at, end);
    }
    end = MIN(end, q->node->size);
    for (; at < end; at += e.len) {
        int ret = co_qcow2_map(q->node, at, end - at, &e);
        if (ret == 0 && !(e.kind == EXTENT_NONE && nothing_below)) {
            ret = co_write_zeroes(q, at, at + e.len);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int co_qcow2_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    struct qcow2 *q = node->state;
    uint64_t end = offset + len, start, stop, unit = q->subcluster_size;
    struct wish wish = { .unmap = flags & NODE_MAY_UNMAP, .stays = flags & NODE_ZERO_STAYS };
    int ret = 0;

    wish.backing = wish.stays || !qcow2_without_backing(q);
    start = ROUND_UP(offset, unit);
    stop = end == node->size ? ROUND_UP(end, (uint64_t)q->cluster_size) : ROUND_DOWN(end, unit);
    if (start >= stop || start >= end) {
        return co_zero_part(q, offset, end, wish.stays);
    }
    if (offset < start) {
        ret = co_zero_part(q, offset, start, wish.stays);
    }
    if (ret == 0) {
        ret = q->h.version >= 3 ? co_change_range(q, &wish, start, stop)
                                : co_zero_old(q, start, stop, wish.unmap, !wish.backing);
    }
    if (ret == 0 && stop < end) {
        ret = co_zero_part(q, stop, end, wish.stays);
    }
    return ret;
}

int co_qcow2_discard(struct node *node, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = node->state;
    uint64_t end = offset + len, size = q->cluster_size;
    struct wish wish = { .discard = true, .unmap = true, .backing = !qcow2_without_backing(q) };

    if (wish.backing && q->h.version < 3) {
        return 0; /* the backing file would shine through */
    }
    offset = ROUND_UP(offset, size);
    end = end == node->size ? ROUND_UP(end, size) : ROUND_DOWN(end, size);
    return offset < end ? co_change_range(q, &wish, offset, end) : 0;
}

int co_qcow2_discard_all(struct node *node, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = node->state;
    struct wish wish = { .discard = true, .unmap = true };

    return co_change_range(q, &wish, offset, ROUND_UP(offset + len, (uint64_t)q->cluster_size));
}

int co_qcow2_empty(struct node *node, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = node->state;
    struct wish wish = { .empty = true };

    return co_change_range(q, &wish, offset, ROUND_UP(offset + len, (uint64_t)q->cluster_size));
}
