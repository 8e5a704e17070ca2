/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a guest offset to what this layer holds there.
 *
 *   L1 (in memory)  --->  L2 table: a cluster, cached in slices of 4 KiB  --->  entry (qcow2-l2.h)
 *
 * A slice is resolved as it lies in the cache, run by run; only getting the slice suspends.  After
 * a wait the L1 entry is looked at again: the table may have been copied because a snapshot shares
 * it.  So what is found is true when the function returns, and stays true until its caller
 * suspends.
 *
 * Entries come from a file and are trusted in nothing: offsets that are not aligned, flags that the
 * version does not have and contradictory bitmaps are reported as corruption where they are used.
 */
#include "block/qcow2-l2.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

uint64_t qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_piece *p, uint32_t index)
{
    return load_be64(p->data + (size_t)index * q->l2_entry_size);
}

uint64_t qcow2_l2_bitmap(const struct qcow2 *q, const struct qcow2_piece *p, uint32_t index)
{
    return q->subclusters > 1 ? load_be64(p->data + (size_t)index * q->l2_entry_size + 8) : 0;
}

void qcow2_l2_set(struct qcow2 *q, struct qcow2_piece *p, uint32_t index, uint64_t entry,
                  uint64_t bitmap)
{
    uint8_t *at = p->data + (size_t)index * q->l2_entry_size;

    store_be64(at, entry);
    if (q->subclusters > 1) {
        store_be64(at + 8, bitmap);
    }
    qcow2_cache_mark_dirty(q->l2_cache, p);
}

uint64_t qcow2_entry_host(uint64_t entry)
{
    return entry & QCOW2_COMPRESSED ? 0 : entry & QCOW2_L2_OFFSET_MASK;
}

bool qcow2_without_backing(const struct qcow2 *q)
{
    return !q->node->backing && !q->node->backing_name;
}

/* --- One entry ------------------------------------------------------------------------------ */

/* Subclusters of one kind within a cluster. */
struct unit {
    enum extent_kind kind;
    uint64_t host; /* of the first one, 0: none */
    uint32_t n;
    bool copied;
};

/* The extended part: `sub` and how many after it are alike. */
static bool decode_bitmap(const struct qcow2 *q, uint64_t host, uint64_t bitmap, uint32_t sub,
                          struct unit *u)
{
    uint32_t alloc = bitmap, zero = bitmap >> 32, differ;

    if ((alloc & zero) || (alloc && !host)) {
        return false;
    }
    if (alloc >> sub & 1) {
        u->kind = EXTENT_DATA;
        differ = ~alloc;
    } else if (zero >> sub & 1) {
        u->kind = EXTENT_ZERO;
        differ = ~zero;
    } else {
        u->kind = EXTENT_NONE;
        differ = alloc | zero;
    }
    differ >>= sub;
    u->n = differ ? (uint32_t)__builtin_ctz(differ) : q->subclusters - sub;
    u->host = host ? host + (uint64_t)sub * q->subcluster_size : 0;
    return true;
}

static bool decode(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint32_t sub,
                   struct unit *u)
{
    uint64_t host = qcow2_entry_host(entry);

    *u = (struct unit){ .n = q->subclusters - sub, .host = host, .copied = entry & QCOW2_COPIED };
    if (entry & QCOW2_COMPRESSED) {
        u->kind = EXTENT_COMPRESSED;
        u->copied = false;
        return true;
    }
    if (host % q->cluster_size != 0) {
        return false;
    }
    if (q->subclusters > 1) {
        return decode_bitmap(q, host, bitmap, sub, u);
    }
    if (entry & QCOW2_ZERO) {
        u->kind = EXTENT_ZERO;
        return q->h.version >= 3;
    }
    u->kind = host ? EXTENT_DATA : EXTENT_NONE;
    return true;
}

int co_qcow2_entry_corrupt(struct qcow2 *q, uint64_t guest, const struct qcow2_piece *piece,
                           uint32_t index)
{
    uint64_t entry = qcow2_l2_entry(q, piece, index), host = qcow2_entry_host(entry);
    uint64_t table = piece->offset / q->cluster_size * q->cluster_size;
    uint64_t l2_index = guest / q->cluster_size % q->l2_entries;

    if (host % q->cluster_size != 0) {
        const char *what = q->subclusters == 1 && entry & QCOW2_ZERO
                               ? "Preallocated zero cluster offset"
                               : "Cluster allocation offset";
        return co_qcow2_signal_corruption(q, true, -1, -1,
                                          "%s %#" PRIx64 " unaligned (L2 offset: %#" PRIx64
                                          ", L2 index: %#" PRIx64 ")",
                                          what, host, table, l2_index);
    }
    if (q->subclusters == 1) {
        return co_qcow2_signal_corruption(
            q, true, -1, -1,
            "Zero cluster entry found in pre-v3 image (L2 offset: %#" PRIx64 ", L2 index: %#" PRIx64
            ")",
            table, l2_index);
    }
    return co_qcow2_signal_corruption(q, true, -1, -1,
                                      "Invalid cluster entry found  (L2 offset: %#" PRIx64
                                      ", L2 index: %#" PRIx64 ")",
                                      table, l2_index);
}

/* --- The end of the file -------------------------------------------------------------------- */

/*
 * Clusters behind the end of the file do not exist: the file has been cut off, or the entry is
 * wrong.  Reading zeroes there, as the host would, hides a loss.  The end that we know may be old
 * where others write, so it is asked for again.
 */
static int co_find_end(struct qcow2 *q, uint64_t need, uint64_t *end)
{
    uint64_t bytes;
    int ret = 0;

    if (need > q->file_end) {
        ret = co_io_size(q->file, &bytes);
        if (ret == 0) {
            q->file_end = MAX(q->file_end, DIV_ROUND_UP(bytes, q->cluster_size));
        }
    }
    *end = q->file_end * q->cluster_size;
    return ret;
}

int co_qcow2_check_end(struct qcow2 *q, uint64_t host, const char *what)
{
    uint64_t end;
    int ret = co_find_end(q, host / q->cluster_size + 1, &end);

    if (ret == 0 && host >= end) {
        ret = co_qcow2_signal_corruption(q, true, host, q->cluster_size,
                                         "%s offset %#" PRIx64 " is beyond the end of the file",
                                         what, host);
    }
    return ret;
}

int co_qcow2_span_check(struct qcow2 *q, struct qcow2_span *span)
{
    uint64_t end;
    int ret;

    if (span->kind != EXTENT_DATA) {
        return 0;
    }
    ret = co_find_end(q, (span->host + span->len - 1) / q->cluster_size + 1, &end);
    if (ret == 0 && span->host < end) {
        span->len = MIN(span->len, end - span->host);
        return 0;
    }
    return ret < 0 ? ret : co_qcow2_check_end(q, span->host, "Data cluster");
}

/* --- Runs in a slice ------------------------------------------------------------------------ */

static bool joins(const struct qcow2_span *span, const struct unit *u, bool by_owner)
{
    if (u->kind != span->kind || (by_owner && u->copied != span->copied)) {
        return false;
    }
    switch (u->kind) {
    case EXTENT_DATA:
    case EXTENT_ZERO:
        return span->host ? u->host == span->host + span->len : u->host == 0;
    default:
        return true;
    }
}

/* How many entries from `index` on say nothing at all: nearly all of them on a large disk with little in it. */
static uint32_t empty_entries(const struct qcow2 *q, const struct qcow2_piece *piece, uint32_t index)
{
    const uint8_t *from = piece->data + (size_t)index * q->l2_entry_size, *at = from;
    const uint8_t *end = piece->data + (size_t)q->slice_entries * q->l2_entry_size;

    while (at < end && load_be64(at) == 0) {
        at += sizeof(uint64_t);
    }
    return (at - from) / q->l2_entry_size;
}

bool qcow2_span(const struct qcow2 *q, const struct qcow2_piece *piece, uint32_t index,
                uint64_t within, uint64_t len, bool by_owner, struct qcow2_span *out)
{
    uint32_t sub = within / q->subcluster_size;
    uint64_t skip = within % q->subcluster_size;
    struct unit u;

    if (!decode(q, qcow2_l2_entry(q, piece, index), qcow2_l2_bitmap(q, piece, index), sub, &u)) {
        return false;
    }
    *out = (struct qcow2_span){ .kind = u.kind,
                                .copied = u.copied,
                                .host = u.host ? u.host + skip : 0,
                                .len = (uint64_t)u.n * q->subcluster_size - skip };
    for (sub += u.n; out->len < len; sub += u.n) {
        if (sub == q->subclusters) {
            uint32_t empty = out->kind == EXTENT_NONE && !out->copied ? empty_entries(q, piece, index + 1) : 0;
            out->len += (uint64_t)empty * q->cluster_size;
            index += 1 + empty;
            sub = 0;
        }
        if (index == q->slice_entries ||
            !decode(q, qcow2_l2_entry(q, piece, index), qcow2_l2_bitmap(q, piece, index), sub,
                    &u) ||
            !joins(out, &u, by_owner)) {
            break;
        }
        out->len += (uint64_t)u.n * q->subcluster_size;
    }
    out->len = MIN(out->len, len);
    return true;
}

/* --- Slices --------------------------------------------------------------------------------- */

static uint64_t table_span(const struct qcow2 *q)
{
    return (uint64_t)q->l2_entries * q->cluster_size;
}

static uint64_t slice_span(const struct qcow2 *q)
{
    return (uint64_t)q->slice_entries * q->cluster_size;
}

uint64_t qcow2_table_rest(const struct qcow2 *q, uint64_t guest)
{
    return table_span(q) - guest % table_span(q);
}

uint64_t qcow2_l1_entries(const struct qcow2 *q, uint64_t size)
{
    return size / table_span(q) + (size % table_span(q) != 0);
}

/* The L2 table of a guest offset; 0: none.  The L1 table covers the whole disk, always. */
static uint64_t table_of(const struct qcow2 *q, uint64_t guest)
{
    assert(guest / table_span(q) < q->h.l1_size);
    return q->l1[guest / table_span(q)] & QCOW2_L1_OFFSET_MASK;
}

/* The offset in an L2 table of the piece in which the entry of a guest offset lies. */
static uint64_t piece_within(const struct qcow2 *q, uint64_t guest)
{
    return guest / q->cluster_size % q->l2_entries / q->slice_entries * q->slice_entries * q->l2_entry_size;
}

static bool leads_nowhere(const struct qcow2 *q, uint64_t table)
{
    return table % q->cluster_size != 0 || table / q->cluster_size >= q->file_end;
}

static int co_check_table(struct qcow2 *q, uint64_t guest, uint64_t table)
{
    if (table % q->cluster_size != 0) {
        return co_qcow2_signal_corruption(q, true, -1, -1,
                                          "L2 table offset %#" PRIx64
                                          " unaligned (L1 index: %#" PRIx64 ")",
                                          table, guest / table_span(q));
    }
    return co_qcow2_check_end(q, table, "L2 table");
}

int co_qcow2_slice_get(struct qcow2 *q, uint64_t guest, struct qcow2_piece **piece, uint32_t *index)
{
    uint64_t l2_index = guest / q->cluster_size % q->l2_entries, table;

    *index = l2_index % q->slice_entries;
    while ((table = table_of(q, guest)) != 0) {
        uint64_t at = table + piece_within(q, guest);
        int ret;

        *piece = table % q->cluster_size == 0 ? qcow2_cache_peek(q->l2_cache, at) : NULL;
        if (*piece) {
            return 0;
        }
        ret = co_check_table(q, guest, table);
        if (ret == 0) {
            ret = co_qcow2_cache_get(q->l2_cache, at, piece);
        }
        if (ret < 0) {
            return ret;
        }
        if (table_of(q, guest) == table) {
            return 0;
        }
        qcow2_cache_put(q->l2_cache, *piece); /* the table was copied while we read it */
    }
    *piece = NULL;
    return 0;
}

void qcow2_l1_set(struct qcow2 *q, uint64_t l1_index, uint64_t entry)
{
    uint64_t sector = l1_index * 8 / NODE_SECTOR;

    q->l1[l1_index] = entry;
    q->l1_dirty[sector / 8] |= 1u << sector % 8;
    q->l1_dirty_any = true;
}

/* Fill a fresh table before anything points to it. */
static int co_write_table(struct qcow2 *q, uint64_t old, uint64_t offset)
{
    AUTOFREE uint8_t *table = mem_zalloc(q->cluster_size);
    int ret = 0;

    if (old != 0) { /* shared, so nothing in the cache is newer */
        node_debug_event(q->node, EVENT_L2_ALLOC_COW_READ);
        ret = co_io_read(q->file, old, table, q->cluster_size);
    }
    qcow2_cache_forget(q->l2_cache, offset, q->cluster_size);
    node_debug_event(q->node, EVENT_L2_ALLOC_WRITE);
    return ret < 0 ? ret : co_io_write(q->file, offset, table, q->cluster_size);
}

/*
 * A table that is empty, where nothing was ever written, is written with the generation that links it, and once, not twice.  Its
 * room is taken from the host at once: when the disk is full this request must fail, not the write of a table that
 * all the data behind it needs.
 */
static int co_new_table(struct qcow2 *q, uint64_t offset, uint64_t guest)
{
    if (co_io_allocate(q->file, offset, q->cluster_size) < 0) {
        return co_write_table(q, 0, offset);
    }
    qcow2_cache_born(q->l2_cache, offset, offset + piece_within(q, guest));
    return 0;
}

static int co_link_table(struct qcow2 *q, uint64_t l1_index, uint64_t guest)
{
    uint64_t old = q->l1[l1_index] & QCOW2_L1_OFFSET_MASK, file_end = q->file_end, offset;
    int ret = co_qcow2_alloc_exact(q, 1, &offset);

    if (ret < 0) {
        return ret;
    }
    ret = old == 0 && offset / q->cluster_size >= file_end ? co_new_table(q, offset, guest) : co_write_table(q, old, offset);
    if (ret < 0) {
        co_qcow2_free_unlinked(q, offset, 1);
        return ret;
    }
    qcow2_l1_set(q, l1_index, offset | QCOW2_COPIED);
    qcow2_is_loose(q, 1);
    qcow2_guard_add(q, offset, "active L2 table");
    if (old != 0) {
        qcow2_guard_remove(q, old);
        qcow2_cache_forget(q->l2_cache, old, q->cluster_size);
        qcow2_free_later(q, old, q->cluster_size);
    }
    return 0;
}

/* A table of our own in the place of none, or of one that a snapshot shares (Q6). */
static int co_make_table(struct qcow2 *q, uint64_t l1_index, uint64_t guest)
{
    int ret;

    qcow2_refs(q)->held++;
    ret = co_link_table(q, l1_index, guest);
    qcow2_refs(q)->held--;
    return ret;
}

int co_qcow2_slice_get_writable(struct qcow2 *q, uint64_t guest, struct qcow2_piece **piece,
                                uint32_t *index)
{
    uint64_t l1_index = guest / table_span(q), table = table_of(q, guest);
    int ret = co_qcow2_guard_build(q);

    assert(q->lock.holder == co_self());
    if (ret < 0) {
        return ret;
    }
    if (table != 0) {
        ret = co_check_table(q, guest, table);
    }
    if (ret == 0 && (!(q->l1[l1_index] & QCOW2_COPIED) || table == 0)) {
        ret = co_make_table(q, l1_index, guest);
    }
    return ret < 0 ? ret : co_qcow2_slice_get(q, guest, piece, index);
}

/* --- The driver's co_map -------------------------------------------------------------------- */

#define TABLES_AT_ONCE 16384ull /* entries of the L1 table that one answer goes over, lest it hold the loop */

/* There is no L2 table: as far as the L1 table leads to none. */
static uint64_t empty_tables(const struct qcow2 *q, uint64_t guest, uint64_t len)
{
    uint64_t span = table_span(q), from = guest / span, end = (guest + len - 1) / span + 1, i = from;

    assert(end <= q->h.l1_size);
    while (i < end && !(q->l1[i] & QCOW2_L1_OFFSET_MASK)) {
        i++;
    }
    return MIN(i * span - guest, len);
}

/* No L2 table could be had: as far as the L1 table leads nowhere; if it leads to a table that the host did not give, to the end
 * of the slice. */
static uint64_t without_table(const struct qcow2 *q, uint64_t guest, uint64_t len)
{
    uint64_t slice = slice_span(q), lost = 0;

    while (lost < len && leads_nowhere(q, table_of(q, guest + lost))) {
        lost += qcow2_table_rest(q, guest + lost);
    }
    return MIN(lost ? lost : slice - guest % slice, len);
}

/* The entry at `index` is none: as far as those after it are none either. */
static uint64_t without_entry(const struct qcow2 *q, const struct qcow2_piece *piece, uint32_t index, uint64_t guest, uint64_t len)
{
    uint64_t lost = q->cluster_size - guest % q->cluster_size;
    struct qcow2_span span;

    while (lost < len && ++index < q->slice_entries && !qcow2_span(q, piece, index, 0, q->cluster_size, false, &span)) {
        lost += q->cluster_size;
    }
    return MIN(lost, len);
}

/* On error, too, `span` says how far that reaches. */
static int co_first_span(struct qcow2 *q, uint64_t guest, uint64_t len, struct qcow2_span *span)
{
    struct qcow2_piece *piece;
    uint32_t index;
    int ret = co_qcow2_slice_get(q, guest, &piece, &index);

    if (ret < 0) {
        *span = (struct qcow2_span){ .kind = EXTENT_OPAQUE, .len = without_table(q, guest, len) };
        return ret;
    }
    if (!piece) {
        *span = (struct qcow2_span){ .kind = EXTENT_NONE, .len = empty_tables(q, guest, len) };
        return 0;
    }
    if (!qcow2_span(q, piece, index, guest % q->cluster_size, len, false, span)) {
        *span = (struct qcow2_span){ .kind = EXTENT_OPAQUE, .len = without_entry(q, piece, index, guest, len) };
        ret = co_qcow2_entry_corrupt(q, guest, piece, index);
    } else {
        ret = co_qcow2_span_check(q, span);
    }
    qcow2_cache_put(q->l2_cache, piece);
    return ret;
}

/* As co_first_span(), but only with what is in memory: the first span must not grow old. */
static bool next_span(struct qcow2 *q, uint64_t guest, uint64_t len, struct qcow2_span *span)
{
    uint64_t table = table_of(q, guest), l2_index = guest / q->cluster_size % q->l2_entries;
    struct qcow2_piece *piece;
    bool good;

    if (table == 0) {
        *span = (struct qcow2_span){ .kind = EXTENT_NONE, .len = empty_tables(q, guest, len) };
        return true;
    }
    if (table % q->cluster_size != 0) {
        return false;
    }
    piece = qcow2_cache_peek(q->l2_cache, table + piece_within(q, guest));
    if (!piece) {
        return false;
    }
    good = qcow2_span(q, piece, l2_index % q->slice_entries, guest % q->cluster_size, len, false,
                      span);
    qcow2_cache_put(q->l2_cache, piece);
    return good;
}

int co_qcow2_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    struct qcow2 *q = node->state;
    uint64_t slice = slice_span(q);
    struct qcow2_span span, next;
    int ret;

    len = MIN(len, TABLES_AT_ONCE * table_span(q));
    ret = co_first_span(q, offset, len, &span);
    if (ret < 0) {
        *out = (struct extent){ .kind = EXTENT_OPAQUE, .len = span.len };
        return ret;
    }
    while (span.len < len && (offset + span.len) % slice == 0 &&
           next_span(q, offset + span.len, len - span.len, &next)) {
        struct unit u = { .kind = next.kind, .host = next.host };
        if (!joins(&span, &u, false) ||
            (next.host && next.host + next.len > q->file_end * q->cluster_size)) {
            break;
        }
        span.len += next.len;
    }
    *out = (struct extent){ .kind = span.kind, .len = span.len };
    if (span.kind == EXTENT_DATA || span.kind == EXTENT_ZERO) {
        out->host = span.host;
    }
    return 0;
}
