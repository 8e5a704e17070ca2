/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest knows of its disk: a hash of each sector that it has read or written, and the
 * judgement over what it reads.
 *
 * A sector is in one of three states:
 *
 *     unknown --- read, or write acknowledged ---> known (one hash)
 *        ^                                           |      ^
 *        | discarded, or                write failed |      | read: one of them is found,
 *        | too many guesses       or not acknowledged|      | or write acknowledged
 *        |                                           v      |
 *        +------------------------------------- either of several hashes
 *
 * A write that failed, or that was in flight when the machine was reset, leaves each of its sectors
 * with the old or the new content; the next read tells, and from then on it must stay.  After a
 * discard a sector may hold anything (old, zeroes, what a backing file has), but once read it must
 * stay too.
 *
 * What was read and differs does not become knowledge: it counts at every read until the right
 * content is back or is overwritten.
 *
 * Costs: 8 bytes a sector of what was touched, in leaves of 32 KiB of disk (512 bytes of memory)
 * and a tree above them; nothing for the rest of the disk.  Nobody here suspends.  Offsets and
 * lengths are bytes, multiples of 512.
 */
#ifndef HW_GUEST_VERIFY_H
#define HW_GUEST_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_SECTOR 512u

struct guest_verify;

/* What comparing a read with the knowledge gave. */
struct guest_finding {
    uint32_t compared; /* sectors of which something was known */
    uint32_t learned;  /* sectors of which nothing was known until now */
    uint32_t wrong;    /* sectors that hold something else */
    uint64_t first;    /* the byte address of the first wrong one */
    char found[160];   /* in words, what the first wrong one holds instead; "" when wrong is 0 */
};

/* `id` is the mark in this guest's stamps (see below). */
struct guest_verify *guest_verify_new(uint64_t id);
void guest_verify_free(struct guest_verify *v);

/* A write was acknowledged. */
void guest_verify_wrote(struct guest_verify *v, uint64_t offset, const void *data, size_t len);
/* A write failed, or nobody knows. */
void guest_verify_may_have_written(struct guest_verify *v, uint64_t offset, const void *data,
                                   size_t len);
/* Nothing is known of this range any more; it may reach beyond the disk. */
void guest_verify_forget(struct guest_verify *v, uint64_t offset, uint64_t len);
/* Judge what was read, and learn what was unknown. */
void guest_verify_read(struct guest_verify *v, uint64_t offset, const void *data, size_t len,
                       struct guest_finding *out);
/* The first run of sectors of which something is known at or behind `from`: at most `max` bytes
 * of it.  False: none. */
bool guest_verify_next(const struct guest_verify *v, uint64_t from, uint64_t max, uint64_t *offset,
                       uint64_t *len);
/* Bytes of disk of which something is known; bytes of memory that this takes. */
uint64_t guest_verify_known(const struct guest_verify *v);
size_t guest_verify_memory(const struct guest_verify *v);

/* --- Stamps: sectors that say who they are ---------------------------------------------------- */
/*
 *     0         8          16           24     32               504
 *     | "MGSTAMP1" | address | generation | id | filler ........ | XXH3 of all before |
 *
 * Numbers are little-endian.
 */
struct guest_stamp {
    uint64_t address;    /* bytes */
    uint64_t generation; /* the how-many-eth write of this guest it came from */
    uint64_t id;
};
/* Fill a buffer that is to be written at `offset`. */
void guest_stamp_fill(void *data, size_t len, uint64_t offset, uint64_t generation, uint64_t id);
/* Is this sector an intact stamp? */
bool guest_stamp_parse(const void *sector, struct guest_stamp *out);

#endif
