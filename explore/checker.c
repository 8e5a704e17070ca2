/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parsing an image and reading through a chain of them: see checker.h.
 */
#include "explore/checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "explore/checker-image.h"

#define MAGIC 0x514649fbu
#define HEADER_V2 72u
#define HEADER_V3 104u
#define HEADER_SEEN 112u /* with the compression type */
#define DIRTY 1u
#define CORRUPT 2u
#define COMPRESSION 8u
#define EXTENDED 16u
#define EXT_END 0u
#define EXT_FORMAT 0xe2792acau
#define EXT_FEATURES 0x6803f857u
#define KNOWN_COMPATIBLE 1u
#define TABLES_MAX (64u << 20) /* more is not an image that the explorer made */

#define OFFSET 0x00fffffffffffe00u

void checker_complain(struct checker_image *image, unsigned rule, const char *fmt, ...)
{
    va_list ap;

    if (image->report->rule) {
        return;
    }
    image->report->rule = rule;
    va_start(ap, fmt);
    vsnprintf(image->report->text, sizeof(image->report->text), fmt, ap);
    va_end(ap);
}

static void read_at(const struct checker_image *image, uint64_t offset, void *buf, size_t len)
{
    image->source.read(image->source.arg, offset, buf, len);
}

/* --- Header ----------------------------------------------------------------------------------- */

static bool parse_fields(struct checker_image *im, const uint8_t *h)
{
    uint32_t header_len = HEADER_V2;

    im->version = load_be32(h + 4);
    im->cluster_bits = load_be32(h + 20);
    if (load_be32(h) != MAGIC || (im->version != 2 && im->version != 3)) {
        checker_complain(im, 2, "no qcow2 header");
        return false;
    }
    if (im->cluster_bits < 9 || im->cluster_bits > 21 || load_be32(h + 32)) {
        checker_complain(im, 2, "cluster size or encryption out of range");
        return false;
    }
    im->cluster = 1ull << im->cluster_bits;
    im->size = load_be64(h + 24);
    im->l1_size = load_be32(h + 36);
    im->l1_offset = load_be64(h + 40);
    im->reftable_offset = load_be64(h + 48);
    im->reftable_clusters = load_be32(h + 56);
    im->n_snapshots = load_be32(h + 60);
    im->snapshots_offset = load_be64(h + 64);
    im->refcount_order = 4;
    if (im->version == 3) {
        im->incompatible = load_be64(h + 72);
        im->compatible = load_be64(h + 80);
        im->autoclear = load_be64(h + 88);
        im->refcount_order = load_be32(h + 96);
        header_len = load_be32(h + 100);
        im->zstd = im->incompatible & COMPRESSION && header_len > HEADER_V3 && h[HEADER_V3] == 1;
    }
    im->extended = im->incompatible & EXTENDED;
    im->l2_entries = im->cluster / (im->extended ? 16 : 8);
    if (im->version == 3 &&
        (header_len < HEADER_V3 || header_len % 8 || header_len > im->cluster)) {
        checker_complain(im, 10, "header length %u", header_len);
        return false;
    }
    if (im->incompatible & ~(uint64_t)(DIRTY | CORRUPT | COMPRESSION | EXTENDED)) {
        checker_complain(im, 10, "incompatible bits %llx", (unsigned long long)im->incompatible);
        return false;
    }
    return true;
}

static void check_fields(struct checker_image *im)
{
    uint64_t per_l1 = im->l2_entries << im->cluster_bits;

    if (im->incompatible & CORRUPT) {
        checker_complain(im, 9, "the corrupt bit is set");
    }
    if (im->size % 512 || DIV_ROUND_UP(im->size, per_l1) > im->l1_size) {
        checker_complain(im, 7, "size %llu with %u L1 entries", (unsigned long long)im->size,
                         im->l1_size);
    }
    if (im->refcount_order > 6) {
        checker_complain(im, 8, "refcount order %u", im->refcount_order);
        im->refcount_order = 6;
    }
}

static uint64_t mix(uint64_t sum, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    }
    return sum;
}

static void parse_extension(struct checker_image *im, uint32_t type, const uint8_t *data,
                            uint32_t len)
{
    if (type == EXT_FORMAT) {
        im->has_format = len <= FORMAT_MAX_BYTES;
        memcpy(im->format, data, im->has_format ? len : 0);
    } else if (type != EXT_FEATURES) { /* which are words for people, and may go */
        im->unknown += mix(type, data, len);
    }
}

static void parse_extensions(struct checker_image *im, const uint8_t *first)
{
    uint64_t at = im->version == 2 ? HEADER_V2 : load_be32(first + 100);
    uint64_t name_at = load_be64(first + 8);
    uint64_t end = name_at ? MIN(name_at, im->cluster) : im->cluster;

    while (at + 8 <= end) {
        uint32_t type = load_be32(first + at), len = load_be32(first + at + 4);

        if (type == EXT_END) {
            break;
        }
        if (len > end - at - 8) {
            checker_complain(im, 10, "extension %08x of %u bytes at %llu leaves the header", type,
                             len, (unsigned long long)at);
            return;
        }
        parse_extension(im, type, first + at + 8, len);
        at += 8 + ROUND_UP((uint64_t)len, 8);
    }
    im->unknown += im->compatible & ~(uint64_t)KNOWN_COMPATIBLE;
}

static void parse_backing(struct checker_image *im, const uint8_t *first)
{
    uint64_t at = load_be64(first + 8);
    uint32_t len = load_be32(first + 16);

    if (!at) {
        return;
    }
    if (len > NAME_MAX_BYTES || at > im->cluster - len) {
        checker_complain(im, 13, "backing name of %u bytes at %llu", len, (unsigned long long)at);
        return;
    }
    im->has_backing = len > 0;
    memcpy(im->backing, first + at, len);
    if (strlen(im->backing) != len) {
        checker_complain(im, 13, "backing name with a NUL in it");
    }
}

/* --- Tables ----------------------------------------------------------------------------------- */

static void load_l2(struct checker_image *im, uint32_t index)
{
    uint64_t entry = load_be64(im->l1 + index * 8);
    uint64_t offset = entry & OFFSET;

    if (entry & ~(OFFSET | 1ull << 63)) {
        checker_complain(im, 10, "L1 entry %u has reserved bits: %016llx", index,
                         (unsigned long long)entry);
    }
    if (!offset) {
        return;
    }
    if (offset % im->cluster || offset + im->cluster > ROUND_UP(im->source.size, im->cluster)) {
        checker_complain(im, 8, "L2 table %u at %llu, file of %llu", index,
                         (unsigned long long)offset, (unsigned long long)im->source.size);
        return;
    }
    im->l2[index] = mem_alloc(im->cluster);
    read_at(im, offset, im->l2[index], im->cluster);
}

static bool load_tables(struct checker_image *im)
{
    uint64_t bytes = (uint64_t)im->l1_size * 8;

    if (bytes > TABLES_MAX || (bytes && (im->l1_offset % im->cluster || !im->l1_offset)) ||
        im->l1_offset + bytes > im->source.size) {
        checker_complain(im, 8, "L1 table of %u entries at %llu, file of %llu", im->l1_size,
                         (unsigned long long)im->l1_offset, (unsigned long long)im->source.size);
        return false;
    }
    im->l1 = mem_alloc(bytes + 1);
    im->l2 = mem_calloc(im->l1_size + 1, sizeof(*im->l2));
    read_at(im, im->l1_offset, im->l1, bytes);
    for (uint32_t i = 0; i < im->l1_size; i++) {
        load_l2(im, i);
    }
    return true;
}

static void drop_tables(struct checker_image *im)
{
    for (uint32_t i = 0; im->l2 && i < im->l1_size; i++) {
        free(im->l2[i]);
    }
    free(im->l2);
    free(im->l1);
    im->l2 = NULL;
    im->l1 = NULL;
}

bool checker_use_table(struct checker_image *im, uint64_t offset, uint32_t entries)
{
    struct checker_report report = { 0 };
    bool good;

    drop_tables(im);
    im->l1_offset = offset;
    im->l1_size = entries;
    im->report = &report;
    good = load_tables(im) && !report.rule;
    im->report = NULL;
    return good;
}

struct checker_image *checker_open_qcow2(const struct checker_source *source,
                                         struct checker_report *report)
{
    struct checker_image *im = mem_zalloc(sizeof(*im));
    uint8_t start[HEADER_SEEN];

    *report = (struct checker_report){ 0 };
    im->source = *source;
    im->report = report;
    read_at(im, 0, start, sizeof(start));
    if (!parse_fields(im, start)) {
        checker_close(im);
        return NULL;
    }
    AUTOFREE uint8_t *first = mem_alloc(im->cluster);

    read_at(im, 0, first, im->cluster);
    check_fields(im);
    parse_extensions(im, first);
    parse_backing(im, first);
    if (!load_tables(im)) {
        checker_close(im);
        return NULL;
    }
    checker_check_counts(im);
    if (report->flags[0] && !source->flags_may_lie) {
        checker_complain(im, 8, "%s", report->flags);
    }
    im->report = NULL; /* it is the caller's */
    return im;
}

struct checker_image *checker_open_raw(const struct checker_source *source)
{
    struct checker_image *im = mem_zalloc(sizeof(*im));

    im->source = *source;
    im->raw = true;
    im->size = ROUND_UP(source->size, 512);
    return im;
}

void checker_close(struct checker_image *im)
{
    if (im) {
        drop_tables(im);
        free(im);
    }
}

uint64_t checker_size(const struct checker_image *im)
{
    return im->size;
}

const char *checker_backing(const struct checker_image *im)
{
    return im->has_backing ? im->backing : NULL;
}

const char *checker_backing_format(const struct checker_image *im)
{
    return im->has_format ? im->format : NULL;
}

uint64_t checker_unknown(const struct checker_image *im)
{
    return im->unknown;
}

uint64_t checker_autoclear(const struct checker_image *im)
{
    return im->autoclear;
}

bool checker_dirty(const struct checker_image *im)
{
    return im->incompatible & DIRTY;
}
