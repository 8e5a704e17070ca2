/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Count all references to host clusters by following everything that refers to one, and compare
 * with the counts in the image.
 *
 *     header -> snapshot table -> L1 tables of snapshots -+
 *            -> active L1 table --------------------------+-> L2 tables -> data, compressed data
 *            -> bitmap directory -> bitmap tables -> bitmaps   (when the image says they are valid)
 *            -> reference count table -> blocks                (compared: a repair makes new ones)
 *
 * Counts live in pages of 256 clusters that are made when first touched, so that memory follows
 * what the image really refers to and not a size that it claims: about 5 bytes per used cluster.
 * An image whose few real bytes refer to clusters far apart in a sparse file is refused when its
 * counts would need more memory than the file has bytes (plus a floor).
 *
 * With each count goes what the cluster is (data, L2 table, other metadata): two uses of one
 * cluster that do not go together are an overlap.  That, and each table being walked at most once
 * per L1 table, bounds the work.
 */
#include "block/qcow2-check.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <uthash.h>

#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

#define PAGE_CLUSTERS 256u
#define MEMORY_FLOOR (64u << 20)
#define MAX_BITMAP_DIRECTORY (64u << 20)
#define MAX_BITMAP_TABLE (32u << 20)
#define BITMAP_ENTRY 24u /* fixed bytes of an entry of the bitmap directory */

/* What a cluster is, in the two low bits of its count. */
enum use { USE_NONE, USE_DATA, USE_L2, USE_METADATA };
#define ONE_REFERENCE 4u

struct qcow2_check_page {
    uint64_t index; /* cluster / PAGE_CLUSTERS */
    UT_hash_handle hh;
    uint32_t counts[PAGE_CLUSTERS];
};

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
        free(page);
    }
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

static uint32_t *count_at(struct qcow2_check *c, uint64_t cluster)
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
    return &page->counts[cluster % PAGE_CLUSTERS];
}

uint64_t qcow2_check_count(struct qcow2_check *c, uint64_t cluster)
{
    struct qcow2_check_page *page = find_page(c, cluster / PAGE_CLUSTERS);

    return page ? page->counts[cluster % PAGE_CLUSTERS] / ONE_REFERENCE : 0;
}

void qcow2_check_mark_blocks(struct qcow2_check *c, uint64_t *marks, uint64_t n)
{
    struct qcow2_check_page *page, *next;

    HASH_ITER(hh, c->pages, page, next) {
        for (unsigned k = 0; k < PAGE_CLUSTERS; k++) {
            uint64_t block = (page->index * PAGE_CLUSTERS + k) / c->q->refblock_entries;

            if (page->counts[k]) {
                assert(block < n);
                marks[block] = 1;
            }
        }
    }
}

void qcow2_check_add_new(struct qcow2_check *c, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        *count_at(c, i) = ONE_REFERENCE | USE_METADATA;
    }
}

static int add_cluster(struct qcow2_check *c, uint64_t cluster, enum use use, const char *what,
                       struct error *err)
{
    uint32_t *count = count_at(c, cluster);
    enum use before = *count % ONE_REFERENCE;
    uint64_t most = MIN(c->q->refcount_max, UINT32_MAX / ONE_REFERENCE);

    if (c->memory > c->memory_max) {
        error_set(err, "the image refers to more places in the file than its size explains");
        return -EFBIG;
    }
    if (!c->report && before != USE_NONE && (before != use || use == USE_METADATA)) {
        error_set(err, "%s overlaps with other metadata at offset %#" PRIx64, what,
                  cluster << c->q->h.cluster_bits);
        return -EINVAL;
    }
    if (*count / ONE_REFERENCE == most) {
        error_set(err, "too many references to the cluster at offset %#" PRIx64,
                  cluster << c->q->h.cluster_bits);
        return -EINVAL;
    }
    *count = (*count / ONE_REFERENCE + 1) * ONE_REFERENCE + use;
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
static int add_whole(struct qcow2_check *c, uint64_t offset, enum use use, const char *what,
                     struct error *err)
{
    if (c->report && offset % c->q->cluster_size) {
        qcow2_report_unaligned(c->report, offset, use == USE_DATA);
        return add_bytes(c, offset, c->q->cluster_size, use, what, err);
    }
    if (offset % c->q->cluster_size) {
        error_set(err, "%s at offset %#" PRIx64 " is not aligned to a cluster", what, offset);
        return -EINVAL;
    }
    return add_bytes(c, offset, c->q->cluster_size, use, what, err);
}

/* --- L1 and L2 tables ------------------------------------------------------------------------- */

static int co_read_table(struct qcow2_check *c, uint64_t offset, void *buf, size_t len,
                         const char *what, struct error *err)
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
    r->allocated++;
    r->compressed += compressed;
    r->fragmented += compressed || (r->next && offset != r->next);
    if (!compressed) {
        r->next = offset + c->q->cluster_size;
    }
}

static int add_l2_entry(struct qcow2_check *c, uint64_t entry, struct error *err)
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
        c->compressed++;
        note_place(c, offset, true);
        return add_bytes(c, offset, len, USE_DATA, "a compressed cluster", err);
    }
    if (!offset) {
        return 0;
    }
    c->allocated++;
    note_place(c, offset, false);
    return add_whole(c, offset, USE_DATA, "a data cluster", err);
}

static int co_walk_l2(struct qcow2_check *c, uint64_t offset, struct error *err)
{
    struct qcow2 *q = c->q;

    if (c->report) {
        c->report->next = 0; /* a table between two clusters is no fragmentation */
    }
    int ret = add_whole(c, offset, USE_L2, "an L2 table", err);

    if (ret || offset >> q->h.cluster_bits >= c->clusters) {
        return ret; /* beyond the end there are zeroes: a long L1 table full of nonsense should not take hours */
    }
    ret = co_read_table(c, offset, c->buf, q->cluster_size, "L2 table", err);
    for (uint32_t i = 0; !ret && i < q->l2_entries; i++) {
        ret = add_l2_entry(c, load_be64(c->buf + i * q->l2_entry_size), err);
    }
    return ret;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Entries in host order; sorts them, unless everything is to be reported in its order. */
static int co_walk_l1(struct qcow2_check *c, uint64_t offset, uint64_t *l1, uint32_t n,
                      const char *what, struct error *err)
{
    int ret = add_bytes(c, offset, (uint64_t)n * 8, USE_METADATA, what, err);

    for (uint32_t i = 0; i < n; i++) {
        if (c->report && l1[i] & QCOW2_L1_RESERVED) {
            qcow2_report_reserved(c->report, "L1", l1[i]);
        }
        l1[i] &= QCOW2_L1_OFFSET_MASK;
    }
    if (!c->report) {
        qsort(l1, n, sizeof(*l1), compare_u64);
    }
    for (uint32_t i = 0; !ret && i < n; i++) {
        if (!l1[i]) {
            continue;
        }
        if (!c->report && i && l1[i] == l1[i - 1]) {
            error_set(err, "%s refers to the L2 table at offset %#" PRIx64 " twice", what, l1[i]);
            return -EINVAL;
        }
        ret = co_walk_l2(c, l1[i], err);
    }
    return ret;
}

static int co_walk_active(struct qcow2_check *c, struct error *err)
{
    const struct qcow2_header *h = &c->q->h;
    uint64_t *l1 = mem_try_calloc(h->l1_size + 1, sizeof(*l1));

    if (!l1) {
        error_set_errno(err, ENOMEM, "Could not check '%s'", c->q->node->filename);
        return -ENOMEM;
    }
    memcpy(l1, c->q->l1, h->l1_size * sizeof(*l1));
    c->active = true;
    int ret = co_walk_l1(c, h->l1_offset, l1, h->l1_size, "the active L1 table", err);

    c->active = false;
    free(l1);
    return ret;
}

static int co_walk_snapshot(struct qcow2_check *c, const struct qcow2_snapshot *s,
                            struct error *err)
{
    AUTOFREE char *what = mem_printf("the L1 table of snapshot '%s'", s->name);
    int ret = qcow2_check_table(&c->q->h, s->l1_offset, s->l1_size, 8, QCOW2_MAX_L1_BYTES, what,
                                err);

    if (ret) {
        return ret;
    }
    uint64_t *l1 = mem_try_calloc(s->l1_size + 1, sizeof(*l1));

    if (!l1) {
        error_set_errno(err, ENOMEM, "Could not check %s", what);
        return -ENOMEM;
    }
    ret = co_read_table(c, s->l1_offset, l1, s->l1_size * sizeof(*l1), "L1 table", err);
    for (uint32_t i = 0; !ret && i < s->l1_size; i++) {
        l1[i] = load_be64(&l1[i]);
    }
    if (!ret) {
        ret = co_walk_l1(c, s->l1_offset, l1, s->l1_size, what, err);
    }
    free(l1);
    return ret;
}

/* --- Bitmaps ---------------------------------------------------------------------------------- */

static int co_walk_bitmap(struct qcow2_check *c, uint64_t table, uint32_t entries,
                          struct error *err)
{
    uint64_t len = (uint64_t)entries * 8;
    int ret = 0;

    if (len > MAX_BITMAP_TABLE || table % c->q->cluster_size) {
        error_set(err, "a bitmap's table at offset %#" PRIx64 " is not sound", table);
        return -EINVAL;
    }
    ret = add_bytes(c, table, len, USE_METADATA, "a bitmap's table", err);
    for (uint64_t at = 0; !ret && at < len; at += c->q->cluster_size) {
        size_t part = MIN(len - at, c->q->cluster_size);

        ret = co_read_table(c, table + at, c->buf, part, "bitmap table", err);
        for (size_t i = 0; !ret && i < part; i += 8) {
            uint64_t offset = load_be64(c->buf + i) & QCOW2_L2_OFFSET_MASK;

            if (offset) {
                ret = add_whole(c, offset, USE_METADATA, "a part of a bitmap", err);
            }
        }
    }
    return ret;
}

static int co_walk_directory(struct qcow2_check *c, const uint8_t *dir, uint64_t len,
                             struct error *err)
{
    uint64_t at = 0;
    int ret = 0;

    while (!ret && at + BITMAP_ENTRY <= len) {
        const uint8_t *entry = dir + at;

        ret = co_walk_bitmap(c, load_be64(entry), load_be32(entry + 8), err);
        at += ROUND_UP(BITMAP_ENTRY + (uint64_t)load_be16(entry + 18) + load_be32(entry + 20), 8);
    }
    return ret;
}

static int co_walk_bitmaps(struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    const struct qcow2_ext *ext = qcow2_ext_find(q->exts, q->n_exts, QCOW2_EXT_BITMAPS);

    if (!ext || !(q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        return 0; /* nothing there is valid: what it refers to is free */
    }
    uint64_t len = load_be64(ext->data + 8), offset = load_be64(ext->data + 16);

    if (len > MAX_BITMAP_DIRECTORY || offset % q->cluster_size) {
        error_set(err, "the bitmap directory at offset %#" PRIx64 " is not sound", offset);
        return -EINVAL;
    }
    int ret = add_bytes(c, offset, len, USE_METADATA, "the bitmap directory", err);

    if (ret) {
        return ret;
    }
    AUTOFREE uint8_t *dir = mem_try_alloc(len + 1);

    if (!dir) {
        error_set_errno(err, ENOMEM, "Could not check the bitmap directory");
        return -ENOMEM;
    }
    ret = co_read_table(c, offset, dir, len, "bitmap directory", err);
    return ret ? ret : co_walk_directory(c, dir, len, err);
}

/* --- All of it -------------------------------------------------------------------------------- */

int co_qcow2_check_walk(struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = add_bytes(c, 0, q->cluster_size, USE_METADATA, "the header", err);

    if (!ret) {
        ret = add_bytes(c, q->h.snapshots_offset, q->snapshots_len, USE_METADATA,
                        "the snapshot table", err);
    }
    if (!ret) {
        ret = co_walk_active(c, err);
    }
    for (uint32_t i = 0; !ret && i < q->h.nb_snapshots; i++) {
        uint64_t allocated = c->allocated, compressed = c->compressed;

        ret = co_walk_snapshot(c, &q->snapshots[i], err);
        c->allocated = allocated;
        c->compressed = compressed;
    }
    return ret ? ret : co_walk_bitmaps(c, err);
}

/* --- Comparing -------------------------------------------------------------------------------- */

/* The clusters that hold the reference counts themselves. */
struct structures {
    uint64_t table, table_clusters;
    uint64_t *blocks; /* cluster indices, sorted */
    size_t n;
};

static bool holds_counts(const struct structures *s, uint64_t cluster)
{
    return (cluster >= s->table && cluster - s->table < s->table_clusters) ||
           bsearch(&cluster, s->blocks, s->n, sizeof(cluster), compare_u64);
}

/* False when the structures themselves cannot be right. */
static bool list_structures(struct qcow2_check *c, struct structures *s)
{
    struct qcow2 *q = c->q;

    *s = (struct structures){
        .table = q->h.reftable_offset >> q->h.cluster_bits,
        .table_clusters = q->h.reftable_clusters,
        .blocks = mem_calloc(q->reftable_entries + 1, sizeof(uint64_t)),
    };
    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (!q->reftable[i]) {
            continue;
        }
        if (offset != q->reftable[i] || offset % q->cluster_size ||
            offset >> q->h.cluster_bits >= c->clusters) {
            return false;
        }
        s->blocks[s->n++] = offset >> q->h.cluster_bits;
    }
    qsort(s->blocks, s->n, sizeof(uint64_t), compare_u64);
    for (size_t i = 0; i < s->n; i++) {
        if ((i && s->blocks[i] == s->blocks[i - 1]) || qcow2_check_count(c, s->blocks[i]) ||
            (s->blocks[i] >= s->table && s->blocks[i] - s->table < s->table_clusters)) {
            return false;
        }
    }
    for (uint64_t i = 0; i < s->table_clusters; i++) {
        if (qcow2_check_count(c, s->table + i)) {
            return false;
        }
    }
    return true;
}

/* Block `i` of the table is in c->buf: is every count in it as it should be? */
static bool block_agrees(struct qcow2_check *c, const struct structures *s, uint64_t i)
{
    struct qcow2 *q = c->q;
    uint64_t first = i * q->refblock_entries;

    for (uint64_t k = 0; k < q->refblock_entries; k++) {
        uint64_t expected = qcow2_check_count(c, first + k);

        if (!expected) {
            expected = holds_counts(s, first + k);
        }
        if (qcow2_refcount_load(q, c->buf, k) != expected) {
            return false;
        }
    }
    return true;
}

/* Clusters without a block have no references, and there is nothing to count beyond the table's
 * end. */
static bool missing_blocks_agree(struct qcow2_check *c, const struct structures *s)
{
    struct qcow2 *q = c->q;
    struct qcow2_check_page *page, *next;

    HASH_ITER(hh, c->pages, page, next) {
        for (unsigned k = 0; k < PAGE_CLUSTERS; k++) {
            uint64_t block = (page->index * PAGE_CLUSTERS + k) / q->refblock_entries;

            if (page->counts[k] && (block >= q->reftable_entries || !q->reftable[block])) {
                return false;
            }
        }
    }
    for (size_t i = 0; i < s->n + s->table_clusters; i++) {
        uint64_t cluster = i < s->n ? s->blocks[i] : s->table + i - s->n;
        uint64_t block = cluster / q->refblock_entries;

        if (block >= q->reftable_entries || !q->reftable[block]) {
            return false;
        }
    }
    return true;
}

int co_qcow2_check_compare(struct qcow2_check *c, bool *agree, struct error *err)
{
    struct qcow2 *q = c->q;
    struct structures s;
    int ret = 0;

    *agree = list_structures(c, &s) && missing_blocks_agree(c, &s);
    for (uint32_t i = 0; !ret && *agree && i < q->reftable_entries; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (offset) {
            ret = co_read_table(c, offset, c->buf, q->cluster_size, "reference counts", err);
            *agree = !ret && block_agrees(c, &s, i);
        }
    }
    free(s.blocks);
    return ret;
}
