/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reference counts: every cluster of the file is asked who refers to it, and whether its count
 * agrees (rules 8, 10, 11).
 *
 * One array holds what each host cluster is used for.  Only data and L2 tables may be used more
 * than once, and only when an internal snapshot or a compressed neighbour is the other user.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "explore/checker-image.h"

#define OFFSET 0x00fffffffffffe00u
#define COPIED (1ull << 63)
#define COMPRESSED (1ull << 62)
#define RESERVED_L2 0x3f000000000001feu
#define DIRTY 1u
#define SNAPSHOT_FIXED 40u
#define REFBLOCK_RESERVED 0x1ffu
#define L1_MAX (32u << 20)

enum use { UNUSED, HEADER, L1, L2, DATA, COMPRESSED_DATA, REFTABLE, REFBLOCK, SNAPSHOTS };

struct cluster {
    uint32_t refs;
    uint64_t count; /* what the image says */
    enum use use;
};

struct tally {
    struct checker_image *im;
    struct cluster *cluster;
    uint64_t n;
};

static const char *const use_names[] = {
    "nothing",         "the header",   "an L1 table",      "an L2 table",       "data",
    "compressed data", "the reftable", "a refcount block", "the snapshot table"
};

static void read_at(const struct checker_image *im, uint64_t offset, void *buf, size_t len)
{
    im->source.read(im->source.arg, offset, buf, len);
}

static bool may_share(const struct checker_image *im, enum use a, enum use b)
{
    if (a != b) {
        return false;
    }
    return a == COMPRESSED_DATA || (im->n_snapshots && (a == DATA || a == L2));
}

static void refer(struct tally *t, uint64_t offset, uint64_t len, enum use use)
{
    uint64_t first = offset >> t->im->cluster_bits;
    uint64_t last = (offset + (len ? len : 1) - 1) >> t->im->cluster_bits;

    if (last >= t->n || last < first) {
        checker_complain(t->im, 8, "%s at %llu lies beyond the end of the file (%llu)",
                         use_names[use], (unsigned long long)offset,
                         (unsigned long long)t->im->source.size);
        return;
    }
    for (uint64_t i = first; i <= last; i++) {
        struct cluster *c = &t->cluster[i];

        if (c->refs && !may_share(t->im, c->use, use)) {
            checker_complain(t->im, 8, "cluster %llu is %s and %s", (unsigned long long)i,
                             use_names[c->use], use_names[use]);
        }
        c->refs++;
        c->use = use;
    }
}

/* --- Who refers ------------------------------------------------------------------------------- */

static void refer_compressed(struct tally *t, uint64_t entry)
{
    unsigned bits = 62 - (t->im->cluster_bits - 8);
    uint64_t offset = entry & ((1ull << bits) - 1);
    uint64_t sectors = (entry & ~(COPIED | COMPRESSED)) >> bits;

    refer(t, offset, 512 - offset % 512 + sectors * 512, COMPRESSED_DATA);
    if (entry & COPIED) {
        checker_complain(t->im, 8, "a compressed cluster is COPIED: %016llx",
                         (unsigned long long)entry);
    }
}

static void refer_entry(struct tally *t, const uint8_t *at, uint32_t table)
{
    struct checker_image *im = t->im;
    uint64_t entry = load_be64(at);
    uint64_t reserved = RESERVED_L2 | (im->version == 2 || im->extended);

    if (entry & COMPRESSED) {
        refer_compressed(t, entry);
        return;
    }
    if (entry & reserved) {
        checker_complain(im, 10, "L2 entry %016llx of table %u has reserved bits",
                         (unsigned long long)entry, table);
    }
    if (im->extended) {
        uint64_t bitmap = load_be64(at + 8);
        uint32_t allocated = bitmap, zero = bitmap >> 32;

        if (allocated & zero || (allocated && !(entry & OFFSET))) {
            checker_complain(im, 10, "subclusters %016llx of entry %016llx",
                             (unsigned long long)bitmap, (unsigned long long)entry);
        }
    }
    if (entry & OFFSET) {
        if ((entry & OFFSET) % im->cluster) {
            checker_complain(im, 8, "data at %llu is not aligned",
                             (unsigned long long)(entry & OFFSET));
        }
        refer(t, entry & OFFSET, im->cluster, DATA);
    } else if (entry & COPIED) {
        checker_complain(im, 8, "COPIED without a cluster: %016llx", (unsigned long long)entry);
    }
}

static void refer_l2(struct tally *t, const uint8_t *table, uint32_t index)
{
    size_t entry_size = t->im->extended ? 16 : 8;

    for (uint64_t i = 0; i < t->im->l2_entries; i++) {
        const uint8_t *at = table + i * entry_size;

        if (load_be64(at) || (entry_size == 16 && load_be64(at + 8))) {
            refer_entry(t, at, index);
        }
    }
}

static void refer_active(struct tally *t)
{
    struct checker_image *im = t->im;

    refer(t, im->l1_offset, (uint64_t)im->l1_size * 8, L1);
    for (uint32_t i = 0; i < im->l1_size; i++) {
        if (im->l2[i]) {
            refer(t, load_be64(im->l1 + i * 8) & OFFSET, im->cluster, L2);
            refer_l2(t, im->l2[i], i);
        }
    }
}

static void refer_snapshot_l1(struct tally *t, uint64_t offset, uint32_t entries)
{
    struct checker_image *im = t->im;

    if ((uint64_t)entries * 8 > L1_MAX || offset % im->cluster) {
        checker_complain(im, 11, "a snapshot's L1 table of %u entries at %llu", entries,
                         (unsigned long long)offset);
        return;
    }
    AUTOFREE uint8_t *l1 = mem_alloc((size_t)entries * 8 + 1);
    AUTOFREE uint8_t *l2 = mem_alloc(im->cluster);

    read_at(im, offset, l1, (size_t)entries * 8);
    if (entries) { /* an empty table lies nowhere */
        refer(t, offset, (uint64_t)entries * 8, L1);
    }
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t at = load_be64(l1 + i * 8) & OFFSET;

        if (at) {
            refer(t, at, im->cluster, L2);
            read_at(im, at, l2, im->cluster);
            refer_l2(t, l2, i);
        }
    }
}

static void refer_snapshots(struct tally *t)
{
    struct checker_image *im = t->im;
    uint64_t at = im->snapshots_offset;

    for (uint32_t i = 0; i < im->n_snapshots; i++) {
        uint8_t fixed[SNAPSHOT_FIXED];

        if (at >= im->source.size) {
            checker_complain(im, 11, "snapshot %u lies beyond the end of the file", i);
            return;
        }
        read_at(im, at, fixed, sizeof(fixed));
        refer_snapshot_l1(t, load_be64(fixed), load_be32(fixed + 8));
        at += ROUND_UP((uint64_t)SNAPSHOT_FIXED + load_be32(fixed + 36) + load_be16(fixed + 12) +
                           load_be16(fixed + 14),
                       8);
    }
    if (im->n_snapshots) {
        refer(t, im->snapshots_offset, at - im->snapshots_offset, SNAPSHOTS);
    }
}

/* --- What the image says ---------------------------------------------------------------------- */

static uint64_t count_in(const uint8_t *block, uint64_t i, unsigned order)
{
    switch (order) {
    case 0:
    case 1:
    case 2:
        return block[(i << order) / 8] >> ((i << order) % 8) & ((1u << (1u << order)) - 1);
    case 3:
        return block[i];
    case 4:
        return load_be16(block + i * 2);
    case 5:
        return load_be32(block + i * 4);
    default:
        return load_be64(block + i * 8);
    }
}

/* Counts of clusters behind the end of the file are leaks too. */
static void count_beyond(struct tally *t, const uint8_t *block, uint64_t first, uint64_t per_block)
{
    uint64_t from = t->n > first ? MIN(t->n - first, per_block) : 0;
    uint64_t byte = (from << t->im->refcount_order) / 8;

    if (bytes_are_zero(block + byte, t->im->cluster - byte)) {
        return;
    }
    for (uint64_t k = from; k < per_block; k++) {
        t->im->report->leaks += count_in(block, k, t->im->refcount_order) > 0;
    }
}

static void load_counts(struct tally *t)
{
    struct checker_image *im = t->im;
    uint64_t len = (uint64_t)im->reftable_clusters << im->cluster_bits;
    uint64_t per_block = (im->cluster * 8) >> im->refcount_order;

    if (len > L1_MAX || im->reftable_offset % im->cluster || !len ||
        im->reftable_offset + len > t->n * im->cluster) {
        checker_complain(im, 8, "reftable of %u clusters at %llu", im->reftable_clusters,
                         (unsigned long long)im->reftable_offset);
        return;
    }
    AUTOFREE uint8_t *table = mem_alloc(len);
    AUTOFREE uint8_t *block = mem_alloc(im->cluster);

    read_at(im, im->reftable_offset, table, len);
    refer(t, im->reftable_offset, len, REFTABLE);
    for (uint64_t i = 0; i < len / 8; i++) {
        uint64_t at = load_be64(table + i * 8);

        if (!at) {
            continue;
        }
        if (at % im->cluster || at & REFBLOCK_RESERVED) {
            checker_complain(im, 8, "refcount block %llu at %llu", (unsigned long long)i,
                             (unsigned long long)at);
            continue;
        }
        refer(t, at, im->cluster, REFBLOCK);
        read_at(im, at, block, im->cluster);
        for (uint64_t k = 0; k < per_block && i * per_block + k < t->n; k++) {
            t->cluster[i * per_block + k].count = count_in(block, k, im->refcount_order);
        }
        count_beyond(t, block, i * per_block, per_block);
    }
}

/* --- Do they agree ---------------------------------------------------------------------------- */

static void compare(struct tally *t)
{
    struct checker_image *im = t->im;
    bool may_differ = im->incompatible & DIRTY;

    for (uint64_t i = 0; i < t->n; i++) {
        const struct cluster *c = &t->cluster[i];

        im->report->used += c->refs > 0;
        if (c->count < c->refs && !may_differ) {
            checker_complain(im, 8, "cluster %llu (%s) is used %u times and counted %llu",
                             (unsigned long long)i, use_names[c->use], c->refs,
                             (unsigned long long)c->count);
        }
        im->report->leaks += c->count > c->refs;
    }
}

static void compare_copied(struct tally *t, uint64_t entry, const char *what)
{
    uint64_t offset = entry & OFFSET;
    const struct cluster *c;

    if (!offset || entry & COMPRESSED || offset >> t->im->cluster_bits >= t->n ||
        t->im->incompatible & DIRTY) {
        return;
    }
    c = &t->cluster[offset >> t->im->cluster_bits];
    if ((c->count == 1) == !!(entry & COPIED)) {
        return;
    }
    if (entry & COPIED && c->refs != 1) { /* it would be written in place */
        checker_complain(t->im, 8, "%s entry %016llx, counted %llu", what,
                         (unsigned long long)entry, (unsigned long long)c->count);
    } else if (!t->im->report->flags[0]) {
        snprintf(t->im->report->flags, sizeof(t->im->report->flags),
                 "%s entry %016llx, counted %llu", what, (unsigned long long)entry,
                 (unsigned long long)c->count);
    }
}

static void compare_all_copied(struct tally *t)
{
    struct checker_image *im = t->im;

    for (uint32_t i = 0; i < im->l1_size; i++) {
        if (!im->l2[i]) {
            continue;
        }
        compare_copied(t, load_be64(im->l1 + i * 8), "L1");
        for (uint64_t k = 0; k < im->l2_entries; k++) {
            compare_copied(t, load_be64(im->l2[i] + k * (im->extended ? 16 : 8)), "L2");
        }
    }
}

void checker_check_counts(struct checker_image *im)
{
    struct tally t = { .im = im, .n = DIV_ROUND_UP(im->source.size, im->cluster) };

    t.cluster = mem_calloc(t.n + 1, sizeof(*t.cluster));
    refer(&t, 0, im->cluster, HEADER);
    refer_active(&t);
    refer_snapshots(&t);
    load_counts(&t);
    compare(&t);
    compare_all_copied(&t);
    free(t.cluster);
}
