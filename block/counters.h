/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the caches of tables hold and have done, all images together (`info counters`; tests of costs).
 */
#ifndef BLOCK_COUNTERS_H
#define BLOCK_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/* Pieces of qcow2 tables (qcow2-cache.c). */
struct table_counters {
    size_t bytes;          /* in memory now */
    size_t shared_bytes;   /* those of caches without a size of their own, */
    size_t shared_budget;  /* which stay below this together; dirty and pinned pieces may exceed it for a while */
    uint64_t loads, evictions;
    uint64_t bytes_written; /* of tables, by write-backs */
};
extern struct table_counters table_counters;

#endif
