/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * L2 entries understood: shared by qcow2-map.c, qcow2-read.c, qcow2-write.c, qcow2-fill.c and
 * qcow2-zero.c.
 *
 * An entry describes a cluster; with extended L2 its bitmap describes 32 subclusters, otherwise the
 * cluster is its own only subcluster.
 *
 *   offset  flags        bitmap          kind         host
 *   0       -            -               NONE         0
 *   0       ZERO         zero bits       ZERO         0
 *   h       -            alloc bits      DATA         h ...
 *   h       ZERO         zero bits       ZERO         h ...    (allocated, content stale)
 *   h       -            neither         NONE         h ...    (extended L2 only)
 *   -       COMPRESSED   none            COMPRESSED   0
 */
#ifndef BLOCK_QCOW2_L2_H
#define BLOCK_QCOW2_L2_H

#include "block/qcow2.h"

#define QCOW2_SUB_ALLOC 0x00000000ffffffffull /* bitmap: subcluster i is bit i */
#define QCOW2_SUB_ZERO 0xffffffff00000000ull  /* ... and bit 32 + i */

/* --- qcow2-map.c ---------------------------------------------------------------------------- */

/* A maximal run of one kind inside a slice. */
struct qcow2_span {
    enum extent_kind kind;
    uint64_t len;   /* bytes */
    uint64_t host;  /* of the first byte; 0: there is no host cluster */
    bool copied;    /* the host cluster is ours alone: may be written in place */
};
/* The run at byte `within` of entry `index`, at most `len` bytes and to the end of the slice.
 * `by_owner`: it also ends where `copied` changes.  False when the first entry is invalid:
 * co_qcow2_entry_corrupt() says why. */
bool qcow2_span(const struct qcow2 *q, const struct qcow2_piece *piece, uint32_t index,
                uint64_t within, uint64_t len, bool by_owner, struct qcow2_span *out);
/* Report an entry for which qcow2_span() is false; -EIO. */
int co_qcow2_entry_corrupt(struct qcow2 *q, uint64_t guest, const struct qcow2_piece *piece,
                           uint32_t index);
/* A span of data must lie inside the file: shorten it to what does; -EIO, and reported, when
 * nothing does.  Suspends only when the span goes beyond the end as far as we know it. */
int co_qcow2_span_check(struct qcow2 *q, struct qcow2_span *span);
/* The host offset of a standard cluster, 0 when it has none or is compressed. */
uint64_t qcow2_entry_host(uint64_t entry);
/* Unallocated reads as zero, now and at any later start: no backing file is there or recorded. */
bool qcow2_without_backing(const struct qcow2 *q);
/* Bytes from `guest` to the end of the range that its L2 table describes. */
uint64_t qcow2_table_rest(const struct qcow2 *q, uint64_t guest);

/* --- qcow2-in-flight.c ---------------------------------------------------------------------- */

/*
 * Guest clusters whose entries will change: from before their host clusters are allocated until
 * they are linked.  Whoever wants to change or write one of them waits.
 */
struct qcow2_alloc {
    LIST_ENTRY(qcow2_alloc) link;
    uint64_t start, end;          /* guest bytes, whole clusters */
    struct co_queue waiters;
};
void qcow2_in_flight_init(struct qcow2 *q);
void qcow2_in_flight_close(struct qcow2 *q); /* nothing is in flight */
/* From now on the clusters of `a`, which has start and end; the caller keeps it where it is until the end.
 * `a->end` may become smaller meanwhile. */
void qcow2_in_flight_begin(struct qcow2 *q, struct qcow2_alloc *a);
void qcow2_in_flight_end(struct qcow2_alloc *a);
/* The first byte at or behind `guest` that lies in clusters in flight, at most `end`. */
uint64_t qcow2_in_flight_from(struct qcow2 *q, uint64_t guest, uint64_t end);
/* How many clusters are in flight. */
uint64_t qcow2_in_flight_clusters(struct qcow2 *q);
/* Wait until what is in flight at `guest` is not; look at everything anew afterwards. */
void co_qcow2_in_flight_wait(struct qcow2 *q, uint64_t guest);

/* --- qcow2-write.c -------------------------------------------------------------------------- */

/* Drop the references of an entry that has just been replaced. */
void qcow2_entry_unlinked(struct qcow2 *q, uint64_t entry);

/* --- qcow2-fill.c: what surrounds the bytes that are written into a fresh cluster ----------- */

struct qcow2_fill {
    uint64_t guest, len;          /* len 0: nothing to fill */
    uint8_t *bytes;               /* NULL: zeroes */
    uint8_t *owned;               /* to be freed */
};
/* Find the content of [start, pos) and [end, stop) as the guest sees it now.  `zeroes_known`: it is
 * all zeroes. */
int co_qcow2_fill_load(struct qcow2 *q, uint64_t start, uint64_t pos, uint64_t end, uint64_t stop,
                       bool zeroes_known, struct qcow2_fill *head, struct qcow2_fill *tail);
/* The same as pieces of host files, as far as it is bytes of such files: 0, or -EAGAIN for co_qcow2_fill_load() to do it. */
struct qcow2_sources {
    struct io_piece *pieces;
    int n, room;
};
int co_qcow2_fill_sources(struct qcow2 *q, uint64_t guest, uint64_t len, struct qcow2_sources *out);
void qcow2_sources_add(struct qcow2_sources *s, struct io_piece piece);
void qcow2_fill_free(struct qcow2_fill *head, struct qcow2_fill *tail);
/* A fill that is all zeroes, found out by looking. */
bool qcow2_fill_is_zero(const struct qcow2_fill *f);
/* Elements that a fill needs in a list, and putting them there; returns their number. */
int qcow2_fill_elements(const struct qcow2_fill *f);
int qcow2_fill_list(const struct qcow2_fill *f, struct iovec *out);
/* `len` zero bytes (not to be written to) as elements of a list, from `out` on; their number.  NULL: only the number. */
int qcow2_list_zeroes(struct iovec *out, uint64_t len);
/* A list of them, free() gives it back. */
struct iovec *qcow2_zero_list(uint64_t len, int *n);

#endif
