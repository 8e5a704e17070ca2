/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making, applying and deleting internal snapshots.
 *
 * A snapshot is a copy of the active L1 table.  What both reach they share: each L2 table and each
 * cluster has one reference more, and is not COPIED, so that a write makes its own copy (Q6).
 *
 *     make      a reference more to all that is active; COPIED off; a copy of the L1 table and the longer list of
 *               snapshots at new places; all durable -> the header names the new list -> the old list is given back
 *     apply     a reference more to all that the snapshot holds, a copy of its L1 table at a new place; durable
 *               -> the header names that as the active table, with the snapshot's size -> a reference less to
 *               all that was active
 *     delete    the shorter list at a new place; durable -> the header names it -> a reference less to all that the snapshot
 *               holds; COPIED on where one is left
 *
 * The header changes in one sector.  Before it and after it counts are too large at most, so a crash leaks and loses
 * nothing; and version 3 is marked dirty meanwhile, so that the next writer counts anew (and sets COPIED again
 * where the crash has left it off).
 *
 * Called with the node idle: nobody reads or writes it (the image tool).
 *
 * Specification: docs/interop/qcow2.txt of QEMU, "Snapshots".
 */
#include "block/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/qcow2-l2.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"

#define EXTRA_BYTES 24u   /* VM state size, disk size, instructions */
#define GIVE_BACK_MAX 65536u /* unlinked ranges that wait together */

/* --- All that an L1 table reaches ------------------------------------------------------------- */

/* Told of each table and each cluster, as a range of the file; the first error ends the walk. */
struct visitor {
    int (*co_visit)(struct qcow2 *q, struct visitor *v, uint64_t offset, uint64_t len);
    uint64_t seen;  /* ranges visited */
    uint64_t limit; /* visit so many at most */
};

static int co_visit(struct qcow2 *q, struct visitor *v, uint64_t offset, uint64_t len)
{
    int ret = v->seen < v->limit ? v->co_visit(q, v, offset, len) : -ECANCELED;

    v->seen += ret == 0;
    return ret;
}

static int co_visit_table(struct qcow2 *q, struct visitor *v, uint64_t table)
{
    AUTOFREE uint8_t *bytes = mem_align(4096, MAX(q->cluster_size, 4096u));
    int ret = co_io_read(q->file, table, bytes, q->cluster_size);

    for (uint32_t i = 0; i < q->l2_entries && ret == 0; i++) {
        uint64_t entry = load_be64(bytes + (size_t)i * q->l2_entry_size), offset = qcow2_entry_host(entry);
        uint64_t len = q->cluster_size;

        if (entry & QCOW2_COMPRESSED) {
            qcow2_compressed_extent(q, entry, &offset, &len);
        }
        ret = offset ? co_visit(q, v, offset, len) : 0;
    }
    return ret ? ret : co_visit(q, v, table, q->cluster_size);
}

/* The tables on disk are those in memory. */
static int co_visit_all(struct qcow2 *q, const uint64_t *l1, uint32_t entries, struct visitor *v)
{
    int ret = 0;

    for (uint32_t i = 0; i < entries && ret == 0; i++) {
        uint64_t table = l1[i] & QCOW2_L1_OFFSET_MASK;

        ret = table ? co_visit_table(q, v, table) : 0;
    }
    return ret;
}

static int co_add_reference(struct qcow2 *q, struct visitor *v, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / q->cluster_size, last = (offset + len - 1) / q->cluster_size;
    uint64_t count;
    int ret = 0;

    for (uint64_t i = first; i <= last && ret == 0; i++) {
        ret = co_qcow2_refcount_get(q, i, &count);
        if (ret == 0) {
            ret = count == 0 ? -EIO : count == q->refcount_max ? -ERANGE : co_qcow2_refcount_set(q, i, count + 1);
        }
        if (ret < 0 && i > first) { /* a compressed cluster's later part */
            qcow2_free_later(q, first * q->cluster_size, (i - first) * q->cluster_size);
        }
    }
    return ret;
}

/* What nothing on disk refers to any more.  Only a last reference has to go through quarantine. */
static int co_drop_reference(struct qcow2 *q, struct visitor *v, uint64_t offset, uint64_t len)
{
    uint64_t last = (offset + len - 1) / q->cluster_size, count;

    for (uint64_t i = offset / q->cluster_size; i <= last; i++) {
        int ret = co_qcow2_refcount_get(q, i, &count);

        if (ret == 0 && count > 1) {
            ret = co_qcow2_refcount_set(q, i, count - 1);
        } else if (ret == 0) {
            qcow2_free_later(q, i * q->cluster_size, q->cluster_size);
        }
        if (ret < 0) {
            return ret;
        }
    }
    if (v->seen % GIVE_BACK_MAX == GIVE_BACK_MAX - 1) {
        co_mutex_unlock(&q->lock);
        int ret = co_qcow2_writeback_all(q);
        co_mutex_lock(&q->lock);
        return ret;
    }
    return 0;
}

static int co_drop_all(struct qcow2 *q, const uint64_t *l1, uint32_t entries, uint64_t limit)
{
    struct visitor drop = { .co_visit = co_drop_reference, .limit = limit };
    int ret;

    co_mutex_lock(&q->lock);
    ret = co_visit_all(q, l1, entries, &drop);
    co_mutex_unlock(&q->lock);
    if (ret == 0 || ret == -ECANCELED) {
        ret = co_qcow2_writeback_all(q);
    }
    return ret;
}

/* All or nothing. */
static int co_add_all(struct qcow2 *q, const uint64_t *l1, uint32_t entries)
{
    struct visitor add = { .co_visit = co_add_reference, .limit = UINT64_MAX };
    int ret;

    co_mutex_lock(&q->lock);
    ret = co_visit_all(q, l1, entries, &add);
    co_mutex_unlock(&q->lock);
    if (ret < 0) {
        co_drop_all(q, l1, entries, add.seen); /* if that fails too, clusters leak */
    }
    return ret;
}

/* --- COPIED ----------------------------------------------------------------------------------- */

static int co_flag_of(struct qcow2 *q, uint64_t offset, bool off, uint64_t *flag)
{
    uint64_t count = 0;
    int ret = off ? 0 : co_qcow2_refcount_get(q, offset / q->cluster_size, &count);

    *flag = count == 1 ? QCOW2_COPIED : 0;
    return ret;
}

static int co_flag_slice(struct qcow2 *q, struct qcow2_piece *piece, bool off)
{
    for (uint32_t i = 0; i < q->slice_entries; i++) {
        uint64_t entry = qcow2_l2_entry(q, piece, i), host = qcow2_entry_host(entry), flag;

        if (!host) {
            continue;
        }
        int ret = co_flag_of(q, host, off, &flag);
        if (ret < 0) {
            return ret;
        }
        if ((entry & QCOW2_COPIED) != flag) {
            qcow2_l2_set(q, piece, i, (entry & ~QCOW2_COPIED) | flag, qcow2_l2_bitmap(q, piece, i));
        }
    }
    return 0;
}

/* COPIED in the active tables as the counts say, or `off` everywhere; in memory. */
static int co_flag_active(struct qcow2 *q, bool off)
{
    uint64_t table_bytes = q->l2_entries * q->l2_entry_size, step = qcow2_cache_piece_size(q->l2_cache);
    int ret = 0;

    for (uint32_t i = 0; i < q->h.l1_size && ret == 0; i++) {
        uint64_t table = q->l1[i] & QCOW2_L1_OFFSET_MASK, flag;

        for (uint64_t at = 0; at < table_bytes && table && ret == 0; at += step) {
            struct qcow2_piece *piece;

            ret = co_qcow2_cache_get(q->l2_cache, table + at, &piece);
            if (ret == 0) {
                ret = co_flag_slice(q, piece, off);
                qcow2_cache_put(q->l2_cache, piece);
            }
            if (ret == 0 && qcow2_cache_crowded(q->l2_cache)) {
                ret = co_qcow2_writeback(q);
            }
        }
        if (table && ret == 0) {
            ret = co_flag_of(q, table, off, &flag);
        }
        if (table && ret == 0 && (q->l1[i] & QCOW2_COPIED) != flag) {
            qcow2_l1_set(q, i, table | flag);
        }
    }
    return ret;
}

/* --- The list of snapshots -------------------------------------------------------------------- */

struct table {
    uint8_t *bytes;
    uint64_t len, place;
};

static uint64_t clusters_of(const struct qcow2 *q, uint64_t len)
{
    return DIV_ROUND_UP(len, (uint64_t)q->cluster_size);
}

/* To a new place; nothing points to it yet. */
static int co_place(struct qcow2 *q, struct table *t)
{
    uint64_t clusters = clusters_of(q, t->len);
    AUTOFREE uint8_t *whole = mem_zalloc(MAX(clusters, 1ul) * q->cluster_size);
    int ret;

    if (t->len == 0) {
        return 0;
    }
    memcpy(whole, t->bytes, t->len);
    co_mutex_lock(&q->lock);
    ret = co_qcow2_alloc_exact(q, clusters, &t->place);
    co_mutex_unlock(&q->lock);
    return ret ? ret : co_io_write(q->file, t->place, whole, clusters * q->cluster_size);
}

static void give_back(struct qcow2 *q, uint64_t place, uint64_t len)
{
    if (place && len) {
        qcow2_free_later(q, place, clusters_of(q, len) * q->cluster_size);
    }
}

/* Where entry `index` lies in the list, with what pads it to the next one. */
static void entry_range(const struct qcow2 *q, const uint8_t *bytes, uint32_t index, uint64_t *from, uint64_t *to)
{
    uint64_t at = 0;

    for (uint32_t i = 0;; i++) {
        const uint8_t *p = bytes + at;

        *from = at;
        at += QCOW2_SNAPSHOT_ENTRY + load_be32(p + 36) + load_be16(p + 12) + load_be16(p + 14);
        *to = at = ROUND_UP(at, 8ul);
        if (i == index) {
            return;
        }
    }
}

/* The list as it is, raw: what we do not know of its entries stays.  Padded to whole entries. */
static int co_load_list(struct qcow2 *q, struct table *t, uint64_t more)
{
    t->len = ROUND_UP(q->snapshots_len, 8ul);
    t->bytes = mem_zalloc(t->len + more + 1);
    return q->snapshots_len ? co_io_read(q->file, q->h.snapshots_offset, t->bytes, q->snapshots_len) : 0;
}

static unsigned long next_id(const struct qcow2 *q)
{
    unsigned long id = 0;

    for (uint32_t i = 0; i < q->h.nb_snapshots; i++) {
        id = MAX(id, strtoul(q->snapshots[i].id, NULL, 10));
    }
    return id + 1;
}

/* One entry more, whose L1 table lies at `l1`. */
static int co_longer_list(struct qcow2 *q, const char *name, uint64_t l1, struct table *t)
{
    char id[24];
    size_t id_len = snprintf(id, sizeof(id), "%lu", next_id(q)), name_len = strlen(name);
    size_t more = QCOW2_SNAPSHOT_ENTRY + EXTRA_BYTES + id_len + name_len;
    int ret = co_load_list(q, t, more);
    uint8_t *p = t->bytes + t->len;
    uint64_t now = loop_wall_us();

    store_be64(p, l1);
    store_be32(p + 8, q->h.l1_size);
    store_be16(p + 12, id_len);
    store_be16(p + 14, name_len);
    store_be32(p + 16, now / 1000000);
    store_be32(p + 20, now % 1000000 * 1000);
    store_be32(p + 36, EXTRA_BYTES);
    store_be64(p + QCOW2_SNAPSHOT_ENTRY + 8, q->h.size);
    p += QCOW2_SNAPSHOT_ENTRY + EXTRA_BYTES;
    memcpy(p, id, id_len);
    memcpy(p + id_len, name, name_len);
    t->len += more;
    return ret ? ret : t->len > QCOW2_MAX_SNAPSHOT_TABLE || q->h.nb_snapshots >= QCOW2_MAX_SNAPSHOTS ? -EFBIG : 0;
}

static int co_shorter_list(struct qcow2 *q, uint32_t index, struct table *t)
{
    uint64_t from, to;
    int ret = co_load_list(q, t, 0);

    if (ret == 0) {
        entry_range(q, t->bytes, index, &from, &to);
        memmove(t->bytes + from, t->bytes + to, t->len - to);
        t->len -= to - from;
    }
    return ret;
}

/* --- The header ------------------------------------------------------------------------------- */

/* Counts may be too large until co_end(). */
static int co_begin(struct qcow2 *q)
{
    int ret = co_qcow2_guard_build(q);

    ret = ret ? ret : co_qcow2_writeback_all(q);
    if (ret == 0 && q->h.version >= 3) {
        q->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
        ret = co_qcow2_write_header_sector(q);
        if (ret < 0) {
            q->h.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
        }
    }
    return ret;
}

/* What could not be written leaves the mark for the next writer; what was refused has left everything as it was. */
static int co_end(struct qcow2 *q, int result)
{
    int ret = result == -ERANGE || result == -EFBIG ? 0 : result;

    ret = ret ? ret : co_qcow2_writeback_all(q);
    if (ret == 0 && q->h.version >= 3) {
        q->h.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
        ret = co_qcow2_write_header_sector(q);
    }
    return result ? result : ret;
}

/* The pivot to `t` as the list of `n` snapshots; the old one is given back. */
static int co_use_list(struct qcow2 *q, const struct table *t, uint32_t n)
{
    uint64_t old = q->h.snapshots_offset, old_len = q->snapshots_len, len;
    uint32_t old_n = q->h.nb_snapshots;
    struct error err = ERROR_INIT;
    struct qcow2_snapshot *list;
    int ret;

    q->h.nb_snapshots = n;
    q->h.snapshots_offset = t->place;
    ret = qcow2_snapshots_parse(t->bytes, t->len, &q->h, &list, &len, &err);
    error_clear(&err);
    if (ret == 0) {
        ret = co_qcow2_write_header_sector(q);
        if (ret < 0) {
            qcow2_snapshots_free(list, n);
        }
    }
    if (ret < 0) {
        q->h.nb_snapshots = old_n;
        q->h.snapshots_offset = old;
        return ret;
    }
    qcow2_snapshots_free(q->snapshots, old_n);
    q->snapshots = list;
    q->snapshots_len = len;
    give_back(q, old, old_len);
    return 0;
}

/* --- Make ------------------------------------------------------------------------------------- */

static void store_l1(struct table *t, const uint64_t *l1, uint32_t entries)
{
    t->len = (uint64_t)entries * 8;
    t->bytes = mem_zalloc(t->len + 1);
    for (uint32_t i = 0; i < entries; i++) {
        store_be64(t->bytes + (size_t)i * 8, l1[i] & ~QCOW2_COPIED);
    }
}

static int co_make(struct qcow2 *q, const char *name, struct table *l1, struct table *list)
{
    int ret;

    store_l1(l1, q->l1, q->h.l1_size);
    ret = co_place(q, l1);
    ret = ret ? ret : co_longer_list(q, name, l1->place, list);
    ret = ret ? ret : co_place(q, list);
    ret = ret ? ret : co_add_all(q, q->l1, q->h.l1_size);
    if (ret < 0) {
        give_back(q, l1->place, l1->len);
        give_back(q, list->place, list->len);
        return ret;
    }
    ret = co_flag_active(q, true);
    ret = ret ? ret : co_qcow2_writeback_all(q);
    return ret ? ret : co_use_list(q, list, q->h.nb_snapshots + 1);
}

int co_qcow2_snapshot_make(struct node *node, const char *name)
{
    struct qcow2 *q = node->state;
    struct table l1 = { 0 }, list = { 0 };
    int ret;

    if (strlen(name) > UINT16_MAX) {
        return -EINVAL;
    }
    ret = co_begin(q);
    if (ret == 0) {
        ret = co_make(q, name, &l1, &list);
        ret = co_end(q, ret);
    }
    free(l1.bytes);
    free(list.bytes);
    return ret;
}

/* What the list says of a snapshot comes from the file, and nobody has looked at it yet. */
static int check_table(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
    return qcow2_check_table(&q->h, s->l1_offset, s->l1_size, 8, QCOW2_MAX_L1_BYTES, "Snapshot L1 table", NULL);
}

/* May it become the active state?  A table behind the end of the file would show zeroes in the place of data. */
static int check_content(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
    if (qcow2_l1_entries(q, s->disk_size) > QCOW2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    return s->disk_size % NODE_SECTOR || clusters_of(q, s->l1_offset + s->l1_size * 8ull) > q->file_end ? -EINVAL : 0;
}

/* --- Apply ------------------------------------------------------------------------------------ */

/* The pivot; `l1` becomes the active table. */
static int co_use_l1(struct qcow2 *q, uint64_t *l1, uint32_t entries, uint64_t place, uint64_t size)
{
    struct qcow2_header old = q->h;
    int ret;

    q->h.l1_offset = place;
    q->h.l1_size = entries;
    q->h.size = size;
    ret = co_qcow2_write_header_sector(q);
    if (ret < 0) {
        q->h = old;
        return ret;
    }
    free(q->l1);
    free(q->l1_dirty);
    q->l1 = l1;
    q->l1_dirty = mem_zalloc(entries / 64 / 8 + 1);
    q->node->size = size;
    chain_map_forget_layer(q->node);
    return 0;
}

static int co_apply(struct qcow2 *q, const struct qcow2_snapshot *s)
{
    AUTOFREE uint64_t *before = mem_calloc(q->h.l1_size + 1, sizeof(*before));
    uint64_t old_place = q->h.l1_offset, entries = MAX((uint64_t)s->l1_size, qcow2_l1_entries(q, s->disk_size));
    uint64_t *l1 = NULL;
    uint32_t old_entries = q->h.l1_size;
    struct table copy = { 0 };
    int ret;

    memcpy(before, q->l1, (size_t)old_entries * sizeof(*before));
    ret = co_qcow2_load_table(q, s->l1_offset, s->l1_size, entries, &l1);
    if (ret == 0) {
        store_l1(&copy, l1, entries);
        ret = co_place(q, &copy);
    }
    ret = ret ? ret : co_add_all(q, l1, entries);
    ret = ret ? ret : co_qcow2_writeback_all(q);
    ret = ret ? ret : co_use_l1(q, l1, entries, copy.place, s->disk_size);
    free(copy.bytes);
    if (ret < 0) {
        free(l1);
        give_back(q, copy.place, copy.len);
        return ret;
    }
    qcow2_guard_rebuild(q);
    give_back(q, old_place, (uint64_t)old_entries * 8);
    ret = co_qcow2_guard_build(q);
    return ret ? ret : co_drop_all(q, before, old_entries, UINT64_MAX);
}

int co_qcow2_snapshot_apply(struct node *node, const char *id_or_name)
{
    struct qcow2 *q = node->state;
    const struct qcow2_snapshot *found = qcow2_snapshot_find(q, id_or_name, true);
    int ret = found ? check_table(q, found) : -ENOENT;

    ret = ret ? ret : check_content(q, found);
    ret = ret ? ret : co_begin(q);
    if (ret == 0) {
        ret = co_apply(q, found);
        ret = ret ? ret : co_flag_active(q, false);
        ret = co_end(q, ret);
    }
    return ret;
}

/* --- Delete ----------------------------------------------------------------------------------- */

static int co_delete(struct qcow2 *q, uint32_t index)
{
    uint64_t place = q->snapshots[index].l1_offset, *l1 = NULL;
    uint32_t entries = q->snapshots[index].l1_size;
    struct table list = { 0 };
    int ret = co_qcow2_load_table(q, place, entries, entries, &l1);

    ret = ret ? ret : co_shorter_list(q, index, &list);
    ret = ret ? ret : co_place(q, &list);
    ret = ret ? ret : co_qcow2_writeback_all(q);
    ret = ret ? ret : co_use_list(q, &list, q->h.nb_snapshots - 1);
    free(list.bytes);
    if (ret == 0) {
        give_back(q, place, (uint64_t)entries * 8);
        ret = co_drop_all(q, l1, entries, UINT64_MAX);
    } else {
        give_back(q, list.place, list.len);
    }
    free(l1);
    return ret;
}

int co_qcow2_snapshot_delete(struct node *node, const char *name)
{
    struct qcow2 *q = node->state;
    const struct qcow2_snapshot *found = qcow2_snapshot_find(q, name, false);
    int ret = found ? check_table(q, found) : -ENOENT;

    ret = ret ? ret : co_begin(q);
    if (ret == 0) {
        ret = co_delete(q, found - q->snapshots);
        ret = ret ? ret : co_flag_active(q, false);
        ret = co_end(q, ret);
    }
    return ret;
}

const struct qcow2_snapshot *qcow2_snapshot_find(const struct qcow2 *q, const char *word, bool by_id)
{
    for (uint32_t i = 0; i < q->h.nb_snapshots && by_id; i++) {
        if (strcmp(q->snapshots[i].id, word) == 0) {
            return &q->snapshots[i];
        }
    }
    for (uint32_t i = 0; i < q->h.nb_snapshots; i++) {
        if (strcmp(q->snapshots[i].name, word) == 0) {
            return &q->snapshots[i];
        }
    }
    return NULL;
}
