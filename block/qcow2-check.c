/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Count all references to host clusters by following everything that refers to one.
 *
 *     header -> snapshot table -> L1 tables of snapshots -+
 *            -> active L1 table --------------------------+-> L2 tables -> data, compressed data
 *            -> bitmap directory -> bitmap tables -> bitmaps   (when the image says they are valid)
 *            -> reference count table -> blocks                (compared, qcow2-check-compare.c; a repair makes new ones)
 *
 * Counts live in pages of 256 clusters that are made when first touched, so that memory follows
 * what the image really refers to and not a size that it claims: about 5 bytes per used cluster.
 * An image whose few real bytes refer to clusters far apart in a sparse file is refused when its
 * counts would need more memory than the file has bytes (plus a floor).
 *
 * With each count goes what the cluster is (data, L2 table, other metadata): two uses of one
 * cluster that do not go together are an overlap.  That bounds the work, and that each L2 table is walked at most
 * twice, once for the active L1 table and once for all snapshots: in a first turn the entries that lead to it
 * are counted, in a second one the first of them walks it for all.
 */
#include "block/qcow2-check.h"

#include <errno.h>
#include <inttypes.h>
#include <uthash.h>

#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

#define PAGE_CLUSTERS 256u
#define MEMORY_FLOOR (64u << 20)
#define L1_PART (64u << 10) /* bytes of a snapshot's L1 table in memory */

/* What a cluster is, in the two low bits of its count. */
enum use { USE_NONE, USE_DATA, USE_L2, USE_METADATA };
#define ONE_REFERENCE 4u

struct qcow2_check_page {
    uint64_t index; /* cluster / PAGE_CLUSTERS */
    UT_hash_handle hh;
    uint32_t *tables; /* what each cluster is as an L2 table, NULL: none here is one */
    uint32_t counts[PAGE_CLUSTERS];
};

/* Of page->tables: entries of L1 tables that lead here and have not been followed, and what was done once. */
#define TABLE_ENTRIES 0x0fffffffu
#define TABLE_ONCE (TABLE_ENTRIES + 1) /* times the bit of enum qcow2_check_once */

/* --- Counts ----------------------------------------------------------------------------------- */

int co_qcow2_check_init(struct qcow2_check *c, struct qcow2 *q, struct error *err)
{
    uint64_t size, allocated;
    int ret = co_io_size(q->file, &size);

    if (!ret) {
        ret = co_io_allocated(q->file, &allocated);
    }
    if (ret) {
        error_set_errno(err, ret, "Could not get the size of the image");
        return ret;
    }
    *c = (struct qcow2_check){
        .q = q,
        .clusters = DIV_ROUND_UP(size, q->cluster_size),
        .memory_max = MEMORY_FLOOR + allocated,
        .missing = UINT64_MAX,
        .times = 1,
        .buf = mem_try_alloc(q->cluster_size),
    };
    if (!c->buf) {
        error_set_errno(err, ENOMEM, "Could not check '%s'", q->node->filename);
        return -ENOMEM;
    }
    return 0;
}

void qcow2_check_free(struct qcow2_check *c)
{
    struct qcow2_check_page *page, *next;

    HASH_ITER(hh, c->pages, page, next) {
        HASH_DEL(c->pages, page);
        free(page->tables);
        free(page);
    }
    free(c->askew);
    free(c->buf);
}

static struct qcow2_check_page *find_page(struct qcow2_check *c, uint64_t index)
{
    struct qcow2_check_page *page;

    if (c->last && c->last->index == index) {
        return c->last;
    }
    if (c->missing == index) {
        return NULL;
    }
    HASH_FIND(hh, c->pages, &index, sizeof(index), page);
    if (page) {
        c->last = page;
    } else {
        c->missing = index;
    }
    return page;
}

static struct qcow2_check_page *make_page(struct qcow2_check *c, uint64_t cluster)
{
    uint64_t index = cluster / PAGE_CLUSTERS;
    struct qcow2_check_page *page = find_page(c, index);

    if (!page) {
        page = mem_zalloc(sizeof(*page));
        page->index = index;
        HASH_ADD(hh, c->pages, index, sizeof(page->index), page);
        c->memory += sizeof(*page);
        c->last = page;
        c->missing = UINT64_MAX;
    }
    return page;
}

static uint32_t *count_at(struct qcow2_check *c, uint64_t cluster)
{
    return &make_page(c, cluster)->counts[cluster % PAGE_CLUSTERS];
}

static uint32_t *table_at(struct qcow2_check *c, uint64_t cluster)
{
    struct qcow2_check_page *page = make_page(c, cluster);

    if (!page->tables) {
        page->tables = mem_calloc(PAGE_CLUSTERS, sizeof(*page->tables));
        c->memory += PAGE_CLUSTERS * sizeof(*page->tables);
    }
    return &page->tables[cluster % PAGE_CLUSTERS];
}

bool qcow2_check_once(struct qcow2_check *c, uint64_t table, enum qcow2_check_once what)
{
    uint32_t *at = table_at(c, table >> c->q->h.cluster_bits), bit = TABLE_ONCE << what;
    bool first = !(*at & bit);

    *at |= bit;
    return first;
}

uint64_t qcow2_check_count(struct qcow2_check *c, uint64_t cluster)
{
    struct qcow2_check_page *page = find_page(c, cluster / PAGE_CLUSTERS);

    return page ? page->counts[cluster % PAGE_CLUSTERS] / ONE_REFERENCE : 0;
}

bool qcow2_check_mark_blocks(struct qcow2_check *c, uint64_t *marks, uint64_t n)
{
    struct qcow2_check_page *page, *next;

    HASH_ITER(hh, c->pages, page, next) {
        for (unsigned k = 0; k < PAGE_CLUSTERS; k++) {
            uint64_t block = (page->index * PAGE_CLUSTERS + k) / c->q->refblock_entries;

            if (page->counts[k] && block >= n) {
                return false;
            }
            if (page->counts[k]) {
                marks[block] = 1;
            }
        }
    }
    return true;
}

void qcow2_check_add_new(struct qcow2_check *c, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        *count_at(c, i) = ONE_REFERENCE | USE_METADATA;
    }
}

static int too_much_memory(const struct qcow2_check *c, struct error *err)
{
    if (c->memory > c->memory_max) {
        error_set(err, "the image refers to more places in the file than its size explains");
        return -EFBIG;
    }
    return 0;
}

/* c->times more references. */
static int add_cluster(struct qcow2_check *c, uint64_t cluster, enum use use, const char *what, struct error *err)
{
    uint32_t *count = count_at(c, cluster);
    enum use before = *count % ONE_REFERENCE;
    uint64_t most = MIN(c->q->refcount_max, UINT32_MAX / ONE_REFERENCE);

    if (too_much_memory(c, err) < 0) {
        return -EFBIG;
    }
    if (!c->report && before != USE_NONE && (before != use || use == USE_METADATA)) {
        error_set(err, "%s overlaps with other metadata at offset %#" PRIx64, what,
                  cluster << c->q->h.cluster_bits);
        return -EINVAL;
    }
    if (*count / ONE_REFERENCE + (uint64_t)c->times > most) {
        error_set(err, "too many references to the cluster at offset %#" PRIx64,
                  cluster << c->q->h.cluster_bits);
        return -EINVAL;
    }
    *count = (*count / ONE_REFERENCE + c->times) * ONE_REFERENCE + use;
    return 0;
}

/* One more reference to each cluster that the bytes touch. */
static int add_bytes(struct qcow2_check *c, uint64_t offset, uint64_t len, enum use use,
                     const char *what, struct error *err)
{
    unsigned bits = c->q->h.cluster_bits;
    int ret = 0;

    if (!len) {
        return 0;
    }
    if (c->report && (offset >> bits >= c->clusters || (offset + len - 1) >> bits >= c->clusters)) {
        qcow2_report_beyond(c->report, offset, len);
        return 0;
    }
    if (offset >> bits >= c->clusters || (len - 1) >> bits >= c->clusters ||
        (offset + len - 1) >> bits >= c->clusters) {
        error_set(err, "%s at offset %#" PRIx64 " lies beyond the end of the file", what, offset);
        return -EINVAL;
    }
    for (uint64_t i = offset >> bits; !ret && i <= (offset + len - 1) >> bits; i++) {
        ret = add_cluster(c, i, use, what, err);
    }
    return ret;
}

int qcow2_check_add(struct qcow2_check *c, uint64_t offset, uint64_t len, const char *what, struct error *err)
{
    return add_bytes(c, offset, len, USE_METADATA, what, err);
}

/* A whole cluster, which must begin where clusters begin. */
static int add_whole(struct qcow2_check *c, uint64_t offset, enum use use, const char *what, struct error *err)
{
    if (offset % c->q->cluster_size) {
        error_set(err, "%s at offset %#" PRIx64 " is not aligned to a cluster", what, offset);
        return -EINVAL;
    }
    return add_bytes(c, offset, c->q->cluster_size, use, what, err);
}

/* As above; people hear of one that does not, and on it goes.  `words`: what kind of cluster it is, to them. */
static int add_whole_or_askew(struct qcow2_check *c, uint64_t offset, enum use use, const char *what, const char *words,
                              struct error *err)
{
    if (c->report && offset % c->q->cluster_size) {
        qcow2_report_unaligned(c->report, offset, words);
        return add_bytes(c, offset, c->q->cluster_size, use, what, err);
    }
    return add_whole(c, offset, use, what, err);
}

int qcow2_check_add_cluster(struct qcow2_check *c, uint64_t offset, const char *what, struct error *err)
{
    return add_whole(c, offset, USE_METADATA, what, err);
}

/* --- L1 and L2 tables ------------------------------------------------------------------------- */

int co_qcow2_check_read(struct qcow2_check *c, uint64_t offset, void *buf, size_t len, const char *what, struct error *err)
{
    int ret = co_io_read(c->q->file, offset, buf, len);

    if (ret) {
        error_set_errno(err, ret, "could not read the %s at offset %#" PRIx64, what, offset);
    }
    return ret;
}

/* For people: does the data lie in one piece? */
static void note_place(struct qcow2_check *c, uint64_t offset, bool compressed)
{
    struct qcow2_report *r = c->report;

    if (!r || !c->active) {
        return;
    }
    r->allocated += c->times;
    r->compressed += compressed ? c->times : 0;
    r->fragmented += compressed || (r->next && offset != r->next) ? c->times : 0;
    if (!compressed) {
        r->next = offset + c->q->cluster_size;
    }
}

/* A cluster of zeroes has a place only to be written into later: without it nothing is lost. */
static bool is_mendable(struct qcow2_check *c, uint64_t entry)
{
    return c->report && c->report->fix & QCOW2_FIX_ERRORS && c->q->subclusters == 1 && entry & QCOW2_ZERO &&
           (entry & QCOW2_L2_OFFSET_MASK) % c->q->cluster_size;
}

static void mend_later(struct qcow2_check *c, uint64_t entry, uint64_t place)
{
    qcow2_report_made_plain(c->report, entry & QCOW2_L2_OFFSET_MASK);
    c->askew = mem_reallocarray(c->askew, c->askew_count + 1, sizeof(*c->askew));
    c->askew[c->askew_count++] = place;
}

/* `place`: of the entry, in the file. */
static int add_l2_entry(struct qcow2_check *c, uint64_t entry, uint64_t place, struct error *err)
{
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK, len;

    if (c->report && !(entry & QCOW2_COMPRESSED) && entry & QCOW2_L2_RESERVED) {
        qcow2_report_reserved(c->report, "l2", entry);
    }
    if (entry & QCOW2_COMPRESSED) {
        qcow2_compressed_extent(c->q, entry, &offset, &len);
        if (c->report && entry & QCOW2_COPIED) {
            qcow2_report_copied(c->report, offset);
        }
        note_place(c, offset, true);
        return add_bytes(c, offset, len, USE_DATA, "a compressed cluster", err);
    }
    if (!offset) {
        return 0;
    }
    if (is_mendable(c, entry)) {
        mend_later(c, entry, place);
        return 0;
    }
    note_place(c, offset, false);
    bool zero = entry & QCOW2_ZERO && c->q->subclusters == 1;

    return add_whole_or_askew(c, offset, USE_DATA, "a data cluster", zero ? "Preallocated" : "Data", err);
}

/* `table` lies in the file; its entries count c->times. */
static int co_walk_l2(struct qcow2_check *c, uint64_t table, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = co_qcow2_check_read(c, table, c->buf, q->cluster_size, "L2 table", err);

    for (uint32_t i = 0; !ret && i < q->l2_entries; i++) {
        ret = add_l2_entry(c, load_be64(c->buf + i * q->l2_entry_size), table + i * q->l2_entry_size, err);
    }
    return ret;
}

/* First turn: how many entries lead to each L2 table? */
static int expect_table(struct qcow2_check *c, uint64_t entry, struct error *err)
{
    uint64_t table = entry & QCOW2_L1_OFFSET_MASK, cluster = table >> c->q->h.cluster_bits;

    if (!table || table % c->q->cluster_size || cluster >= c->clusters) {
        return 0;
    }
    uint32_t *at = table_at(c, cluster);

    if ((*at & TABLE_ENTRIES) == TABLE_ENTRIES) {
        error_set(err, "too many references to the cluster at offset %#" PRIx64, table);
        return -EINVAL;
    }
    ++*at;
    return too_much_memory(c, err);
}

/* For how many entries is the table to be walked now?  For all at once, when the first one comes. */
static uint32_t take_entries(struct qcow2_check *c, uint64_t table)
{
    uint32_t *at = table_at(c, table >> c->q->h.cluster_bits), n = *at & TABLE_ENTRIES;

    if (table % c->q->cluster_size) {
        return qcow2_check_once(c, table, QCOW2_ONCE_ASKEW);
    }
    *at -= n;
    return n;
}

/* Second turn: `entry` of an L1 table. */
static int co_follow(struct qcow2_check *c, uint64_t entry, const char *what, struct error *err)
{
    uint64_t table = entry & QCOW2_L1_OFFSET_MASK;
    int ret;

    if (c->report && entry & QCOW2_L1_RESERVED) {
        qcow2_report_reserved(c->report, "L1", entry);
    }
    if (!table) {
        return 0;
    }
    if (c->report) {
        c->report->next = 0; /* a table between two clusters is no fragmentation */
    }
    ret = add_whole_or_askew(c, table, USE_L2, "an L2 table", NULL, err);
    if (ret || table >> c->q->h.cluster_bits >= c->clusters) {
        return ret; /* beyond the end there are zeroes: a long L1 table full of nonsense should not take hours */
    }
    uint32_t entries = take_entries(c, table);

    if (!c->report && c->active && entries != 1) {
        error_set(err, "%s refers to the L2 table at offset %#" PRIx64 " twice", what, table);
        return -EINVAL;
    }
    c->times = entries;
    ret = entries ? co_walk_l2(c, table, err) : 0;
    c->times = 1;
    return ret;
}

static int co_walk_active(struct qcow2_check *c, struct error *err)
{
    const struct qcow2 *q = c->q;
    const char *what = "the active L1 table";
    int ret = add_bytes(c, q->h.l1_offset, q->h.l1_size * 8ull, USE_METADATA, what, err);

    for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
        ret = expect_table(c, q->l1[i], err);
    }
    c->active = true;
    for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
        ret = co_follow(c, q->l1[i], what, err);
    }
    c->active = false;
    return ret;
}

/* One turn over a snapshot's L1 table, a part of it in memory at a time. */
static int co_turn_snapshot(struct qcow2_check *c, const struct qcow2_snapshot *s, bool follow, struct error *err)
{
    AUTOFREE uint8_t *part = mem_alloc(L1_PART);
    uint64_t len = s->l1_size * 8ull;
    int ret = 0;

    if (s->l1_offset >> c->q->h.cluster_bits >= c->clusters) {
        return 0;
    }
    for (uint64_t at = 0, n; !ret && at < len; at += n) {
        n = MIN(len - at, (uint64_t)L1_PART);
        ret = co_qcow2_check_read(c, s->l1_offset + at, part, n, "L1 table", err);
        for (uint64_t i = 0; !ret && i < n; i += 8) {
            uint64_t entry = load_be64(part + i);

            ret = follow ? co_follow(c, entry, "the L1 table of a snapshot", err) : expect_table(c, entry, err);
        }
    }
    return ret;
}

static int co_expect_snapshot(struct qcow2_check *c, const struct qcow2_snapshot *s, uint64_t *clusters,
                              struct error *err)
{
    AUTOFREE char *what = mem_printf("the L1 table of snapshot '%s'", s->name);
    int ret = qcow2_check_table(&c->q->h, s->l1_offset, s->l1_size, 8, QCOW2_MAX_L1_BYTES, what, err);

    *clusters += DIV_ROUND_UP(s->l1_size * 8ull, (uint64_t)c->q->cluster_size);
    if (!ret && *clusters > c->clusters) {
        error_set(err, "the L1 tables of the snapshots are larger than the file");
        ret = -EINVAL;
    }
    if (!ret) {
        ret = add_bytes(c, s->l1_offset, s->l1_size * 8ull, USE_METADATA, what, err);
    }
    return ret ? ret : co_turn_snapshot(c, s, false, err);
}

/* A table that snapshots share is walked once for them all. */
static int co_walk_snapshots(struct qcow2_check *c, struct error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t clusters = 0;
    int ret = 0;

    for (uint32_t i = 0; !ret && i < q->h.nb_snapshots; i++) {
        ret = co_expect_snapshot(c, &q->snapshots[i], &clusters, err);
    }
    for (uint32_t i = 0; !ret && i < q->h.nb_snapshots; i++) {
        ret = co_turn_snapshot(c, &q->snapshots[i], true, err);
    }
    return ret;
}

/* --- All of it -------------------------------------------------------------------------------- */

int co_qcow2_check_walk(struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = add_bytes(c, 0, q->cluster_size, USE_METADATA, "the header", err);

    if (!ret) {
        ret = add_bytes(c, q->h.snapshots_offset, q->snapshots_len, USE_METADATA, "the snapshot table", err);
    }
    if (!ret) {
        ret = co_walk_active(c, err);
    }
    if (!ret) {
        ret = co_walk_snapshots(c, err);
    }
    return ret ? ret : co_qcow2_check_bitmaps(c, err);
}
