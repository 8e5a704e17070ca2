/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the checker (checker*.c): an image in memory.
 */
#ifndef EXPLORE_CHECKER_IMAGE_H
#define EXPLORE_CHECKER_IMAGE_H

#include "explore/checker.h"

#define NAME_MAX_BYTES 1023u
#define FORMAT_MAX_BYTES 63u

enum checker_kind { CHECKER_NONE, CHECKER_ZERO, CHECKER_DATA, CHECKER_COMPRESSED };

struct checker_image {
    struct checker_source source;
    bool raw;
    uint64_t size;
    /* qcow2 */
    unsigned version, cluster_bits, refcount_order;
    bool extended, zstd;
    uint64_t cluster;    /* bytes */
    uint64_t l2_entries; /* in one table */
    uint64_t l1_offset, reftable_offset, snapshots_offset;
    uint32_t l1_size, reftable_clusters, n_snapshots;
    uint64_t incompatible, compatible, autoclear;
    uint8_t *l1;  /* as on disk */
    uint8_t **l2; /* by L1 index; NULL: no table */
    char backing[NAME_MAX_BYTES + 1], format[FORMAT_MAX_BYTES + 1];
    bool has_backing, has_format;
    uint64_t unknown;
    struct checker_report *report;
};

/* Record the first complaint. */
void checker_complain(struct checker_image *image, unsigned rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Another L1 table than the header's.  False: it makes no sense. */
bool checker_use_table(struct checker_image *image, uint64_t offset, uint32_t entries);
/* checker-content.c: a whole compressed cluster (`out` has room for one).  False: it is none. */
bool checker_decompress(const struct checker_image *image, uint64_t entry, uint8_t *out);
/* checker-counts.c: reference counts against what refers. */
void checker_check_counts(struct checker_image *image);

#endif
