/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reference counts of host clusters, and the allocator.
 *
 * All runs with q->lock held, so counts do not move while a search suspends to read a refcount
 * block. The counts in the cache are the truth about memory; on disk they may lag, but only towards
 * "too high" (Q5): an allocation is written before the table that uses it, a release after the
 * table that used it has let go.
 *
 * Search is first fit with two hints, so that neither kind of request looks at a cluster twice:
 *
 *   free_hint   nothing below it is free; single clusters are taken from here, so holes get filled
 *   run_hint    runs are searched from here; shorter holes on the way are left to single clusters
 *
 * Both move back when clusters become free.  Beyond the last refcount block everything is free, so
 * a search ends at the end of the file at the latest.
 */
#include "block/qcow2-refcount.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "core/bytes.h"
#include "core/mem.h"

#define RUN_BYTES (1u << 20) /* a free run of this many bytes is good enough for any request */
#define RUN_CLUSTERS 16u     /* ... or of this many clusters */

void qcow2_refcount_init(struct qcow2 *q)
{
    struct qcow2_refs *refs = mem_zalloc(sizeof(*refs));

    STAILQ_INIT(&refs->embargo);
    if (q->generation > 0) { /* not the first time: embargoes of before are forgotten */
        refs->born_epoch = node_epoch_now();
        refs->born_end = q->file_end;
    }
    q->priv_refcount = refs;
}

void qcow2_refcount_close(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);

    assert(!refs->copy);
    qcow2_quarantine_close(q);
    qcow2_guard_close(q);
    free(refs->table_dirty);
    free(refs);
    q->priv_refcount = NULL;
}

/* --- The bits of a block -------------------------------------------------------------------- */

uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *data, uint64_t at)
{
    unsigned bits = 1u << q->h.refcount_order;

    switch (q->h.refcount_order) {
    case 3:
        return data[at];
    case 4:
        return load_be16(data + at * 2);
    case 5:
        return load_be32(data + at * 4);
    case 6:
        return load_be64(data + at * 8);
    default: /* several in a byte, the lowest index in the least significant bits */
        return data[at * bits / 8] >> (at * bits % 8) & ((1u << bits) - 1);
    }
}

void qcow2_refcount_store(const struct qcow2 *q, uint8_t *data, uint64_t at, uint64_t count)
{
    unsigned bits = 1u << q->h.refcount_order;

    assert(count <= q->refcount_max);
    switch (q->h.refcount_order) {
    case 3:
        data[at] = count;
        break;
    case 4:
        store_be16(data + at * 2, count);
        break;
    case 5:
        store_be32(data + at * 4, count);
        break;
    case 6:
        store_be64(data + at * 8, count);
        break;
    default: {
        unsigned shift = at * bits % 8;
        uint8_t *byte = &data[at * bits / 8];
        *byte = (*byte & ~(((1u << bits) - 1) << shift)) | count << shift;
    }
    }
}

/* The counts of `n` clusters from some index on, as far as one cached piece goes. */
struct window {
    struct qcow2_piece *piece; /* NULL: no refcount block, all are zero */
    uint64_t at, n;
};

static int co_window_get(struct qcow2 *q, uint64_t index, struct window *w)
{
    uint64_t within = index % q->refblock_entries, block;
    uint32_t piece_size = qcow2_cache_piece_size(q->ref_cache);
    uint64_t per_piece = (uint64_t)piece_size * 8 >> q->h.refcount_order;
    int ret = co_qcow2_refblock(q, index / q->refblock_entries, &block);

    if (ret < 0) {
        return ret;
    }
    if (block == 0) {
        *w = (struct window){ .n = q->refblock_entries - within };
        return 0;
    }
    w->at = within % per_piece;
    w->n = per_piece - w->at;
    return co_qcow2_cache_get(q->ref_cache, block + within / per_piece * piece_size, &w->piece);
}

static void window_put(struct qcow2 *q, struct window *w)
{
    if (w->piece) {
        qcow2_cache_put(q->ref_cache, w->piece);
    }
}

static uint64_t window_count(const struct qcow2 *q, const struct window *w, uint64_t k)
{
    return w->piece ? qcow2_refcount_load(q, w->piece->data, w->at + k) : 0;
}

static void window_set(struct qcow2 *q, struct window *w, uint64_t k, uint64_t count)
{
    qcow2_refcount_store(q, w->piece->data, w->at + k, count);
    qcow2_is_loose(q, 1);
    qcow2_cache_mark_dirty(q->ref_cache, w->piece);
}

int co_qcow2_refcount_get(struct qcow2 *q, uint64_t cluster_index, uint64_t *count)
{
    struct window w;
    int ret = co_window_get(q, cluster_index, &w);

    if (ret == 0) {
        *count = window_count(q, &w, 0);
        window_put(q, &w);
    }
    return ret;
}

/* Set the counts of [first, first + n); their blocks exist.  *done: how many were set before an
 * error. */
static int co_set_counts(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t count,
                         uint64_t *done)
{
    *done = 0;
    while (*done < n) {
        struct window w;
        int ret = co_window_get(q, first + *done, &w);
        if (ret < 0) {
            return ret;
        }
        assert(w.piece);
        uint64_t part = MIN(w.n, n - *done);
        for (uint64_t k = 0; k < part; k++) {
            window_set(q, &w, k, count);
        }
        window_put(q, &w);
        *done += part;
    }
    return 0;
}

static int co_drop_one(struct qcow2 *q, struct window *w, uint64_t k, uint64_t index, bool *gone)
{
    uint64_t count = window_count(q, w, k);

    *gone = count == 1;
    if (count == 0) {
        return co_qcow2_signal_corruption(q, false, index * q->cluster_size, q->cluster_size,
                                          "Freed cluster %#" PRIx64 " has no reference",
                                          index * q->cluster_size);
    }
    window_set(q, w, k, count - 1);
    return 0;
}

int co_qcow2_refcount_drop(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *done,
                           void (*gone)(void *arg, uint64_t first, uint64_t n), void *arg)
{
    *done = 0;
    while (*done < n) {
        struct window w;
        int ret = co_window_get(q, first + *done, &w);
        if (ret < 0) {
            return ret;
        }
        uint64_t part = MIN(w.n, n - *done), free_from = 0, k;
        for (k = 0; k < part; k++) {
            bool zero;
            /* A count that is zero already is reported and stays. */
            co_drop_one(q, &w, k, first + *done + k, &zero);
            if (!zero) {
                if (k > free_from) {
                    gone(arg, first + *done + free_from, k - free_from);
                }
                free_from = k + 1;
            }
        }
        if (k > free_from) {
            gone(arg, first + *done + free_from, k - free_from);
        }
        window_put(q, &w);
        *done += part;
    }
    return 0;
}

/* --- Searching ------------------------------------------------------------------------------ */

static uint64_t run_wanted(const struct qcow2 *q)
{
    return MAX(RUN_CLUSTERS, RUN_BYTES / q->cluster_size);
}

void qcow2_hint_free(struct qcow2 *q, uint64_t first, uint64_t n)
{
    struct qcow2_refs *refs = qcow2_refs(q);

    q->free_hint = MIN(q->free_hint, first);
    if (n >= run_wanted(q)) { /* single holes are not worth another search for runs */
        refs->run_hint = MIN(refs->run_hint, first);
    }
}

/* The next index in the window, from k on, whose count is zero; w->n when there is none. */
static uint64_t window_next_free(const struct qcow2 *q, const struct window *w, uint64_t k)
{
    if (q->h.refcount_order == 4) { /* nearly every image */
        const uint8_t *counts = w->piece->data + w->at * 2;
        while (k < w->n && load_be16(counts + k * 2) != 0) {
            k++;
        }
        return k;
    }
    while (k < w->n && window_count(q, w, k) != 0) {
        k++;
    }
    return k;
}

/*
 * The first run of at least `enough` free clusters from `from` on, at most `want` of it.  Clusters
 * without a refcount block are free.  -EFBIG when there is none below the format's limit.
 */
static int co_find_run(struct qcow2 *q, uint64_t from, uint64_t enough, uint64_t want,
                       uint64_t *first, uint64_t *n)
{
    uint64_t limit = qcow2_reftable_limit(q), start = from, i = from;
    bool found = false;

    while (!found && i - start < want && i < limit) {
        struct window w;
        uint64_t base = i;
        int ret = co_window_get(q, i, &w);
        if (ret < 0) {
            return ret;
        }
        if (!w.piece) {
            i = MIN(base + w.n, start + want);
            continue;
        }
        while (i < base + w.n && i - start < want) {
            uint64_t busy_to = 0;
            if (window_count(q, &w, i - base) != 0) {
                busy_to = base + window_next_free(q, &w, i - base);
            } else {
                busy_to = qcow2_embargo_end(q, i);
            }
            if (busy_to == 0) {
                i++;
            } else if (i - start >= enough) {
                found = true;
                break;
            } else {
                start = i = busy_to;
            }
        }
        window_put(q, &w);
    }
    *first = start;
    *n = MIN(i, limit) - MIN(start, limit);
    return *n >= enough ? 0 : -EFBIG;
}

/* The first refcount block that [first, first + n) lacks; UINT64_MAX: none is missing.  What is there has been looked at. */
static uint64_t missing_block(const struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t last = (first + n - 1) / q->refblock_entries;

    for (uint64_t t = first / q->refblock_entries; t <= last; t++) {
        if (t >= q->reftable_entries || !(q->reftable[t] & QCOW2_REFTABLE_OFFSET_MASK)) {
            return t;
        }
    }
    return UINT64_MAX;
}

/* A run as co_find_run() wants it, with all its refcount blocks present.  A block that is missing
 * takes the run's first cluster. */
static int co_find_described_run(struct qcow2 *q, uint64_t from, uint64_t enough, uint64_t want,
                                 uint64_t *first, uint64_t *n)
{
    for (;;) {
        int ret = co_find_run(q, from, enough, want, first, n);
        uint64_t t = ret < 0 ? UINT64_MAX : missing_block(q, *first, *n);

        if (t == UINT64_MAX) {
            return ret;
        }
        ret = co_qcow2_refblock_create(q, t, *first, *first + *n);
        if (ret < 0 && ret != -EAGAIN) {
            return ret;
        }
    }
}

/* --- Allocating ----------------------------------------------------------------------------- */

static int co_take(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t offset = first * q->cluster_size, len = n * q->cluster_size, done;
    int ret = co_qcow2_guard_check(q, offset, len);

    if (ret < 0) {
        return ret;
    }
    ret = co_set_counts(q, first, n, 1, &done);
    if (ret < 0) {
        uint64_t undone;
        co_set_counts(q, first, done, 0, &undone); /* a failure leaks clusters, no more */
        return ret;
    }
    q->file_end = MAX(q->file_end, first + n);
    return 0;
}

static int co_alloc(struct qcow2 *q, uint64_t want, uint64_t enough, uint64_t *offset,
                    uint64_t *got)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    bool run = want > 1;
    uint64_t first, hint;
    int ret = co_qcow2_guard_build(q);

    assert(q->lock.holder == co_self());
    if (ret == 0 && refs->place_clusters > 0 && refs->place == 0 && !refs->placing) {
        ret = co_qcow2_reftable_place(q);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_embargo_lift(q);
    if (refs->born_epoch < node_epoch_oldest()) {
        refs->born_end = 0;
    }
    hint = MAX(run ? refs->run_hint : q->free_hint, refs->born_end);
    ret = co_find_described_run(q, hint, enough, want, &first, got);
    if (ret == -EFBIG && run) { /* no room at the end: whatever is left */
        run = false;
        hint = MAX(q->free_hint, refs->born_end);
        ret = co_find_described_run(q, hint, enough == want ? want : 1, want, &first, got);
    }
    if (ret == 0) {
        ret = co_take(q, first, *got);
    }
    if (ret < 0) {
        return ret;
    }
    /* An embargo that was lifted meanwhile has moved a hint back: leave it there. */
    if (run && refs->run_hint == hint) {
        refs->run_hint = first + *got;
    }
    if (first == q->free_hint || (want == 1 && q->free_hint == hint)) {
        q->free_hint = first + *got;
    }
    *offset = first * q->cluster_size;
    return 0;
}

int co_qcow2_alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got)
{
    node_debug_event(q->node, EVENT_CLUSTER_ALLOC);
    return co_alloc(q, want, MIN(want, run_wanted(q)), offset, got);
}

int co_qcow2_alloc_exact(struct qcow2 *q, uint64_t n, uint64_t *offset)
{
    uint64_t got;

    node_debug_event(q->node, EVENT_CLUSTER_ALLOC);
    return co_alloc(q, n, n, offset, &got);
}

int co_qcow2_free_unlinked(struct qcow2 *q, uint64_t offset, uint64_t n_clusters)
{
    uint64_t first = offset / q->cluster_size, done;
    int ret;

    node_debug_event(q->node, EVENT_CLUSTER_FREE);
    ret = co_set_counts(q, first, n_clusters, 0, &done);

    assert(q->lock.holder == co_self());
    if (done > 0) {
        qcow2_hint_free(q, first, done);
    }
    return ret;
}
