/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing and copying in.
 *
 * A run of clusters that are ours alone is written in place, without any lock.  Everything else
 * changes the tables, in this order:
 *
 *   q->lock held   look at the entries; register the clusters as in flight; allocate host clusters
 *   no lock        load head and tail (qcow2-fill.c); write head + data + tail at once
 *   one breath     replace the entries, unlink what they held, patch the chain map
 *
 * The last step cannot fail and does not wait: the L2 slice is pinned from the start.  Until then
 * nothing points to the new clusters, so a failed write just gives them back.  What the entries say
 * is on disk only after a flush that comes after the data (Q2, qcow2-writeback.c).
 *
 * A run keeps within one L2 slice and is one of
 *
 *   new     unallocated, zero, compressed or shared clusters: fresh host clusters in one run, and
 *   reuse   allocated zero clusters, or extended ones that lack a subcluster that is needed: the
 *           host clusters are there; nobody reads their stale bytes until the entries say so.
 */
#include "block/qcow2-l2.h"

#include <assert.h>
#include <errno.h>

#include "block/chain-map.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

/* A merge makes tables faster than a guest, and each generation waits for the disk three times.  A small part of what is to come, or
 * the last one would be what the job's end waits for. */
#define TABLES_LOAN(bytes) MIN((bytes) / 256, (uint64_t)3 << 20)
#define COPY_MAX (4u << 20) /* bytes of one co_io_gather() */

/* Where the bytes come from: the guest's memory, or (copying in) pieces of other host files and of ours; or they are zeroes
 * that only have to be there. */
struct payload {
    uint64_t guest; /* of its first byte */
    const struct iovec *iov;
    const struct io_piece *pieces; /* NULL: iov */
    int n;                         /* of either */
    enum qcow2_hold hold;
};

/* A change of entries on its way. */
struct change {
    struct qcow2_alloc alloc;
    struct qcow2_piece *piece;
    uint32_t index, n;             /* entries */
    bool reuse, fresh;             /* fresh: never written host clusters at the file's end */
    uint64_t host;                 /* of alloc.start */
    uint64_t pos, end;             /* guest bytes of the payload */
    uint64_t fill_start, fill_end; /* ... and with head and tail around them */
};

void qcow2_entry_unlinked(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset = qcow2_entry_host(entry), len = q->cluster_size;

    if (entry & QCOW2_COMPRESSED) {
        qcow2_compressed_extent(q, entry, &offset, &len);
    }
    if (offset != 0) {
        qcow2_free_later(q, offset, len);
    }
}

/* --- Moving bytes --------------------------------------------------------------------------- */

/* The pieces from byte `skip` on, `len` bytes, into `out`, which has room for all of them. */
static int slice_pieces(struct io_piece *out, const struct payload *p, uint64_t skip, uint64_t len)
{
    int n = 0;

    for (int i = 0; i < p->n && len > 0; i++) {
        struct io_piece piece = p->pieces[i];
        uint64_t over = MIN(skip, piece.len);

        skip -= over;
        if (over == piece.len) {
            continue;
        }
        piece.offset += over;
        piece.mem = piece.mem ? (const char *)piece.mem + over : NULL;
        piece.len = MIN(piece.len - over, len);
        len -= piece.len;
        out[n++] = piece;
    }
    return n;
}

static int co_copy(struct qcow2 *q, const struct payload *p, uint64_t guest, uint64_t len,
                   uint64_t host)
{
    AUTOFREE struct io_piece *list = mem_calloc(p->n, sizeof(*list));
    int ret = 0;

    for (uint64_t done = 0; done < len && ret == 0; done += COPY_MAX) {
        int n = slice_pieces(list, p, guest - p->guest + done, MIN(len - done, (uint64_t)COPY_MAX));
        node_debug_event(q->node, EVENT_WRITE_AIO);
        ret = co_io_gather(list, n, q->file, host + done);
    }
    return ret;
}

/* The payload's part at `guest`, surrounded by head and tail, in one write. */
static int co_write_list(struct qcow2 *q, const struct payload *p, uint64_t guest, uint64_t len,
                         const struct qcow2_fill *head, const struct qcow2_fill *tail,
                         uint64_t host)
{
    int room = qcow2_fill_elements(head) + p->n + qcow2_fill_elements(tail), n;
    struct iovec few[16], *list = few;
    int ret;

    if (room > (int)ARRAY_SIZE(few)) {
        list = mem_calloc(room, sizeof(*list));
    }
    n = qcow2_fill_list(head, list);
    n += iov_slice(list + n, p->iov, p->n, guest - p->guest, len);
    n += qcow2_fill_list(tail, list + n);
    node_debug_event(q->node, EVENT_WRITE_AIO);
    if (head->len || tail->len) {
        node_debug_event(q->node, EVENT_COW_WRITE);
    }
    ret = co_io_writev(q->file, host, list, n);
    if (list != few) {
        free(list);
    }
    return ret;
}

static int co_write_fill(struct qcow2 *q, const struct qcow2_fill *f, uint64_t host)
{
    struct iovec *list;
    int n, ret;

    if (f->len == 0) {
        return 0;
    }
    node_debug_event(q->node, EVENT_COW_WRITE);
    if (f->bytes) {
        return co_io_write(q->file, host, f->bytes, f->len);
    }
    list = qcow2_zero_list(f->len, &n);
    ret = co_io_writev(q->file, host, list, n);
    free(list);
    return ret;
}

static void note_highest(struct qcow2 *q, uint64_t end)
{
    struct node_stats *stats = &q->node->file->stats;
    stats->highest_written = MAX(stats->highest_written, end);
}

static int co_write_in_place(struct qcow2 *q, const struct payload *p, uint64_t guest, uint64_t len,
                             uint64_t host)
{
    const struct qcow2_fill none = { 0 };
    int ret = co_qcow2_guard_check(q, host, len);

    if (ret < 0 || p->hold) {
        return ret; /* what is there is there */
    }
    note_highest(q, host + len);
    if (p->pieces) {
        return co_copy(q, p, guest, len, host);
    }
    if (q->node->read_at_source) { /* the maps may still name where it was copied from */
        chain_map_patch(q->node, guest, len, EXTENT_DATA, host);
    }
    return co_write_list(q, p, guest, len, &none, &none, host);
}

/* Fresh clusters may have been used before. */
static int co_hold(struct qcow2 *q, enum qcow2_hold how, uint64_t host, uint64_t len)
{
    struct iovec *list;
    int n, ret;

    if (how != QCOW2_HOLD_WRITTEN) {
        return co_io_zero(q->file, host, len, how == QCOW2_HOLD_HOLES);
    }
    list = qcow2_zero_list(len, &n);
    ret = co_io_writev(q->file, host, list, n);
    free(list);
    return ret;
}

/* What is zero need not be written where nothing was ever written before. */
static void skip_holes(const struct change *c, struct qcow2_fill *head, struct qcow2_fill *tail)
{
    if (c->fresh && qcow2_fill_is_zero(head)) {
        head->len = 0;
        head->bytes = NULL;
    }
    if (c->fresh && qcow2_fill_is_zero(tail)) {
        tail->len = 0;
        tail->bytes = NULL;
    }
}

/* With what surrounds it straight from where it lies, if the host has all that in its cache.  -EAGAIN: another way. */
static int co_move_assembled(struct qcow2 *q, const struct change *c, const struct payload *p)
{
    AUTOFREE struct iovec *iov = mem_calloc(p->n, sizeof(*iov));
    int n = iov_slice(iov, p->iov, p->n, c->pos - p->guest, c->end - c->pos);
    uint64_t host = c->host + (c->fill_start - c->alloc.start);
    struct qcow2_sources s = { 0 };
    int ret = co_qcow2_fill_sources(q, c->fill_start, c->pos - c->fill_start, &s);

    for (int i = 0; i < n; i++) {
        qcow2_sources_add(&s, (struct io_piece){ .mem = iov[i].iov_base, .len = iov[i].iov_len });
    }
    ret = ret < 0 ? ret : co_qcow2_fill_sources(q, c->end, c->fill_end - c->end, &s);
    if (ret == 0) {
        node_debug_event(q->node, EVENT_WRITE_AIO);
        node_debug_event(q->node, EVENT_COW_WRITE);
        ret = co_io_assemble(s.pieces, s.n, q->file, host, c->fresh);
    }
    free(s.pieces);
    return ret;
}

static int co_move_loaded(struct qcow2 *q, const struct change *c, const struct payload *p, bool stale)
{
    uint64_t host = c->host + (c->pos - c->alloc.start), len = c->end - c->pos;
    struct qcow2_fill head, tail;
    int ret =
        co_qcow2_fill_load(q, c->fill_start, c->pos, c->end, c->fill_end, stale, &head, &tail);

    if (ret == 0) {
        skip_holes(c, &head, &tail);
        note_highest(q, host + len);
        if (!p->pieces && !p->hold) {
            ret = co_write_list(q, p, c->pos, len, &head, &tail, host - head.len);
        } else {
            ret = co_write_fill(q, &head, host - head.len);
            ret = ret < 0 ? ret : p->hold ? co_hold(q, p->hold, host, len) : co_copy(q, p, c->pos, len, host);
            ret = ret < 0 ? ret : co_write_fill(q, &tail, host + len);
        }
    }
    qcow2_fill_free(&head, &tail);
    return ret;
}

static int co_move(struct qcow2 *q, const struct change *c, const struct payload *p)
{
    bool stale = c->reuse && q->subclusters == 1; /* an allocated zero cluster: zeroes around it */
    bool bare = c->fill_start == c->pos && c->fill_end == c->end;
    int ret = -EAGAIN;

    if (!p->pieces && !p->hold && !stale && !bare && io_can_assemble(q->file)) {
        ret = co_move_assembled(q, c, p);
    }
    if (ret == -EAGAIN) {
        return co_move_loaded(q, c, p, stale);
    }
    note_highest(q, c->host + (c->end - c->alloc.start));
    return ret;
}

/* --- Planning a change ---------------------------------------------------------------------- */

/* Bits of the subclusters of the cluster at `start` that [from, to) touches. */
static uint32_t touched(const struct qcow2 *q, uint64_t start, uint64_t from, uint64_t to)
{
    uint32_t first = from > start ? (from - start) / q->subcluster_size : 0;
    uint32_t last = (MIN(to - start, (uint64_t)q->cluster_size) - 1) / q->subcluster_size;

    return (uint32_t)((2ull << last) - 1) & ~((1u << first) - 1);
}

enum cluster_state { WRITABLE, REUSE, NEW, INVALID };

/* What a write to [from, to) means for the cluster of an entry. */
static enum cluster_state classify(const struct qcow2 *q, const struct qcow2_piece *piece,
                                   uint32_t index, uint64_t start, uint64_t from, uint64_t to)
{
    uint64_t entry = qcow2_l2_entry(q, piece, index);
    struct qcow2_span span;

    if (!qcow2_span(q, piece, index, 0, 1, false, &span)) {
        return INVALID;
    }
    if (qcow2_entry_host(entry) == 0 || !(entry & QCOW2_COPIED)) {
        return NEW;
    }
    if (q->subclusters == 1) {
        return entry & QCOW2_ZERO ? REUSE : WRITABLE;
    }
    bool lacks = touched(q, start, from, to) & ~(uint32_t)qcow2_l2_bitmap(q, piece, index);
    return lacks ? REUSE : WRITABLE;
}

/* How many clusters from the first one on can be changed along with it. */
static uint32_t plan_length(struct qcow2 *q, const struct change *c, enum cluster_state state,
                            uint64_t end)
{
    uint64_t host = qcow2_entry_host(qcow2_l2_entry(q, c->piece, c->index));
    uint32_t k = 1;

    for (; c->index + k < q->slice_entries; k++) {
        uint64_t start = c->alloc.start + (uint64_t)k * q->cluster_size;
        if (start >= end || classify(q, c->piece, c->index + k, start, start, end) != state) {
            break;
        }
        if (state == REUSE && qcow2_entry_host(qcow2_l2_entry(q, c->piece, c->index + k)) !=
                                  host + (uint64_t)k * q->cluster_size) {
            break;
        }
    }
    return k;
}

/* Does moving the cluster mean copying more than the subclusters that are written? */
static bool has_content(const struct qcow2 *q, const struct change *c, uint32_t k)
{
    return qcow2_l2_entry(q, c->piece, c->index + k) & QCOW2_COMPRESSED ||
           qcow2_l2_bitmap(q, c->piece, c->index + k) & QCOW2_SUB_ALLOC;
}

static void plan_fill(const struct qcow2 *q, struct change *c)
{
    uint64_t last = c->alloc.start + (uint64_t)(c->n - 1) * q->cluster_size;
    uint64_t unit = q->subcluster_size;

    c->fill_start = ROUND_DOWN(c->pos, unit);
    c->fill_end = ROUND_UP(c->end, unit);
    if (q->subclusters == 1) {
        return;
    }
    if (c->reuse) { /* subclusters that are there already keep what surrounds the data */
        uint64_t first_bits = qcow2_l2_bitmap(q, c->piece, c->index);
        uint64_t last_bits = qcow2_l2_bitmap(q, c->piece, c->index + c->n - 1);
        if (first_bits >> (c->pos - c->alloc.start) / unit & 1) {
            c->fill_start = c->pos;
        }
        if (last_bits >> (c->end - 1 - last) / unit & 1) {
            c->fill_end = c->end;
        }
        return;
    }
    if (has_content(q, c, 0)) {
        c->fill_start = c->alloc.start;
    }
    if (has_content(q, c, c->n - 1)) {
        c->fill_end = last + q->cluster_size;
    }
}

/* --- A change from begin to end ------------------------------------------------------------- */

static int co_allocate(struct qcow2 *q, struct change *c)
{
    uint64_t file_end = q->file_end, got;
    int ret = co_qcow2_alloc_clusters(q, c->n, &c->host, &got);

    if (ret < 0) {
        return ret;
    }
    c->fresh = c->host / q->cluster_size >= file_end;
    c->n = got;
    c->alloc.end = c->alloc.start + got * q->cluster_size;
    c->end = MIN(c->end, c->alloc.end);
    return 0;
}

/*
 * q->lock held.  On success with c->n > 0 the clusters are in flight and have host clusters; with
 * c->n == 0 the world has changed and the caller looks anew.
 */
static int co_begin(struct qcow2 *q, struct change *c)
{
    enum cluster_state state;
    int ret = co_qcow2_slice_get_writable(q, c->pos, &c->piece, &c->index);

    c->n = 0;
    if (ret < 0) {
        c->piece = NULL;
        return ret;
    }
    c->alloc.start = ROUND_DOWN(c->pos, (uint64_t)q->cluster_size);
    c->end = qcow2_in_flight_from(q, c->alloc.start, c->end);
    if (c->end <= c->pos) {
        return 0;
    }
    state = classify(q, c->piece, c->index, c->alloc.start, c->pos, c->end);
    if (state == INVALID) {
        return co_qcow2_entry_corrupt(q, c->pos, c->piece, c->index);
    }
    if (state == WRITABLE) {
        return 0;
    }
    c->n = plan_length(q, c, state, c->end);
    c->reuse = state == REUSE;
    c->alloc.end = c->alloc.start + (uint64_t)c->n * q->cluster_size;
    c->end = MIN(c->end, c->alloc.end);
    qcow2_in_flight_begin(q, &c->alloc);
    if (c->reuse) {
        c->host = qcow2_entry_host(qcow2_l2_entry(q, c->piece, c->index));
        ret = co_qcow2_guard_check(q, c->host, (uint64_t)c->n * q->cluster_size);
    } else {
        ret = co_allocate(q, c);
    }
    if (ret < 0) {
        qcow2_in_flight_end(&c->alloc);
        c->n = 0;
        return ret;
    }
    plan_fill(q, c);
    return 0;
}

/* Tell the maps of [from, to), as far as the change reaches. */
static void patch(struct qcow2 *q, const struct change *c, uint64_t from, uint64_t to)
{
    from = MAX(from, c->fill_start);
    to = MIN(MIN(to, c->fill_end), q->node->size);
    if (from < to) {
        chain_map_patch(q->node, from, to - from, EXTENT_DATA, c->host + (from - c->alloc.start));
    }
}

/* All but what came from files and is read there as before. */
static void patch_but_sources(struct qcow2 *q, const struct change *c, const struct payload *p)
{
    uint64_t at = p->guest;

    patch(q, c, 0, c->pos);
    for (int i = 0; i < p->n; at += p->pieces[i++].len) {
        if (!p->pieces[i].file) {
            patch(q, c, MAX(at, c->pos), MIN(at + p->pieces[i].len, c->end));
        }
    }
    patch(q, c, c->end, UINT64_MAX);
}

/* The one breath. */
static void link_entries(struct qcow2 *q, struct change *c, const struct payload *p)
{
    uint64_t start = c->alloc.start, host = c->host;

    qcow2_is_loose(q, c->reuse ? 0 : c->n);
    for (uint32_t k = 0; k < c->n; k++, start += q->cluster_size, host += q->cluster_size) {
        uint64_t old = qcow2_l2_entry(q, c->piece, c->index + k);
        uint64_t bitmap = qcow2_l2_bitmap(q, c->piece, c->index + k);
        uint64_t bits = touched(q, start, c->fill_start, c->fill_end);

        if (!c->reuse) {
            qcow2_entry_unlinked(q, old);
            bitmap &= QCOW2_SUB_ZERO;
        }
        bitmap = (bitmap | bits) & ~(bits << 32);
        qcow2_l2_set(q, c->piece, c->index + k, host | QCOW2_COPIED, bitmap);
    }
    if (p->pieces && q->node->read_at_source) {
        patch_but_sources(q, c, p);
    } else {
        patch(q, c, 0, UINT64_MAX);
    }
}

static int co_change(struct qcow2 *q, const struct payload *p, uint64_t guest, uint64_t len,
                     uint64_t *done)
{
    struct change c = { .pos = guest, .end = guest + len };
    int ret = co_qcow2_writeback_throttle(q);

    *done = 0;
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&q->lock);
    ret = co_begin(q, &c);
    co_mutex_unlock(&q->lock);
    if (ret == 0 && c.n > 0) {
        ret = co_move(q, &c, p);
        if (ret == 0) {
            link_entries(q, &c, p);
            *done = c.end - c.pos;
        } else if (!c.reuse) {
            co_mutex_lock(&q->lock);
            co_qcow2_free_unlinked(q, c.host, c.n); /* a failure leaks clusters */
            co_mutex_unlock(&q->lock);
        }
        qcow2_in_flight_end(&c.alloc);
    }
    if (c.piece) {
        qcow2_cache_put(q->l2_cache, c.piece);
    }
    return ret;
}

/* --- Requests ------------------------------------------------------------------------------- */

/* Write as much as goes at once; *done may be 0 when there was something to wait for. */
static int co_step(struct qcow2 *q, const struct payload *p, uint64_t guest, uint64_t len,
                   uint64_t *done)
{
    uint64_t cluster = ROUND_DOWN(guest, (uint64_t)q->cluster_size), free_to;
    struct qcow2_span span = { .kind = EXTENT_NONE };
    struct qcow2_piece *piece;
    uint32_t index;
    int ret = co_qcow2_slice_get(q, guest, &piece, &index);

    *done = 0;
    if (ret < 0) {
        return ret;
    }
    if (piece && !qcow2_span(q, piece, index, guest - cluster, len, true, &span)) {
        ret = co_qcow2_entry_corrupt(q, guest, piece, index);
    } else {
        ret = co_qcow2_span_check(q, &span);
    }
    if (piece) {
        qcow2_cache_put(q->l2_cache, piece);
    }
    if (ret < 0) {
        return ret;
    }
    free_to = qcow2_in_flight_from(q, cluster, guest + len);
    if (free_to <= guest) {
        co_qcow2_in_flight_wait(q, guest);
        return 0;
    }
    if (span.kind == EXTENT_DATA && span.copied) {
        *done = MIN(span.len, free_to - guest);
        return co_write_in_place(q, p, guest, *done, span.host);
    }
    return co_change(q, p, guest, free_to - guest, done);
}

static int co_write_payload(struct qcow2 *q, const struct payload *p, uint64_t len)
{
    int ret = 0;

    for (uint64_t at = 0, done; at < len && ret == 0; at += done) {
        ret = q->node->corrupt ? -EIO : co_step(q, p, p->guest + at, len - at, &done);
    }
    return ret;
}

int co_qcow2_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    const struct payload p = { .guest = offset, .iov = iov, .n = n };
    return co_write_payload(node->state, &p, iov_size(iov, n));
}

int co_qcow2_copy_in(struct node *node, uint64_t offset, const struct io_piece *pieces, int n)
{
    const struct payload p = { .guest = offset, .pieces = pieces, .n = n };
    uint64_t len = 0;

    for (int i = 0; i < n; i++) {
        len += pieces[i].len;
    }
    return co_write_payload(node->state, &p, len);
}

/* At most so many tables will be made for so many clusters. */
static uint64_t tables_for(const struct qcow2 *q, uint64_t clusters)
{
    uint64_t missing = 0;

    for (uint32_t i = 0; i < q->h.l1_size && missing < clusters; i++) {
        missing += !(q->l1[i] & QCOW2_L1_OFFSET_MASK);
    }
    return missing;
}

/* Copied runs go to the end of the file unless enough is free before it. */
void co_qcow2_expect(struct node *node, uint64_t bytes)
{
    struct qcow2 *q = node->state;
    uint64_t end = q->file_end * q->cluster_size, clusters = DIV_ROUND_UP(bytes, q->cluster_size);

    if (!q->l2_budget) { /* nobody has said how much there is to be */
        qcow2_cache_lend(q->l2_cache, TABLES_LOAN(bytes));
    }
    if (bytes > 0) {
        io_expect(q->file, end, end + (clusters + tables_for(q, clusters)) * q->cluster_size);
        return;
    }
    co_mutex_lock(&q->lock); /* nothing is allocated meanwhile */
    co_io_expect_end(q->file, q->file_end * q->cluster_size);
    co_mutex_unlock(&q->lock);
}

int co_qcow2_hold(struct node *node, uint64_t offset, uint64_t len, enum qcow2_hold how)
{
    const struct payload p = { .guest = offset, .hold = how };
    return co_write_payload(node->state, &p, len);
}
