/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The partition table of a disk, as a booting guest reads it: MBR with logical partitions, or GPT.
 *
 * The disk may hold anything.  A table that is not sound in every part that matters is none.
 */
#ifndef HW_GUEST_PARTITIONS_H
#define HW_GUEST_PARTITIONS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* One read takes at most this many bytes. */
#define PARTITION_READ_MAX 4096u

struct partition {
    unsigned number;      /* as Linux counts: 1.., logical ones from 5 */
    uint64_t offset, len; /* bytes */
    char type[40];        /* "83", or a GUID */
};

struct partition_table {
    const char *kind; /* "none", "mbr", "gpt", "unreadable" */
    struct partition *partitions;
    unsigned count;
};

/* Reads `len` bytes at `offset` (within the disk) and points *data to them; good until the next
 * call.  0 or a negative errno.  Suspends. */
typedef int co_partition_read(void *arg, uint64_t offset, uint32_t len, const uint8_t **data);

/* Fill *out (freed with partition_table_free).  A failed read gives "unreadable" and its error.
 * Suspends. */
int co_partition_table_read(struct partition_table *out, uint64_t disk_bytes,
                            co_partition_read *co_read, void *arg);
void partition_table_free(struct partition_table *table);
json_t *partition_table_describe(
    const struct partition_table *table); /* the array of partitions; new reference */

#endif
