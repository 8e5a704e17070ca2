/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared by the files that keep the host clusters' books, and by qcow2-writeback.c; the rest of
 * qcow2 sees only what qcow2.h says.
 *
 *   qcow2-refcount.c    counts, and who gets a free cluster
 *   qcow2-reftable.c    refcount blocks and the table of them: make, grow, relocate
 *   qcow2-quarantine.c  unlinked clusters on their way to being free
 *   qcow2-guard.c       which clusters hold metadata, so that no guest write ever lands there
 */
#ifndef BLOCK_QCOW2_REFCOUNT_H
#define BLOCK_QCOW2_REFCOUNT_H

#include "block/qcow2.h"

#define QCOW2_REFTABLE_OFFSET_MASK 0xfffffffffffffe00ull
#define QCOW2_HOST_LIMIT (1ull << 56) /* bytes; offsets in L1 and L2 entries end here */

/* `n` clusters from index `first` on, each of which has lost one reference. */
struct qcow2_unlinked {
    uint64_t first, n;
    uint64_t epoch;              /* node_epoch_now() of the unlinking */
};
struct qcow2_unlinked_list {
    struct qcow2_unlinked *v;
    size_t n, room;
};

/* Clusters whose count is zero but which requests in flight may still use. */
struct qcow2_embargo {
    STAILQ_ENTRY(qcow2_embargo) link;
    uint64_t epoch;              /* over when node_epoch_oldest() is greater */
    bool punching;               /* its holes are being punched */
    size_t n;
    struct qcow2_unlinked *v;    /* sorted, disjoint */
};

/* Dirty sectors of a table of 64-bit entries (L1, reftable), copied as they were. */
struct qcow2_table_copy {
    uint8_t *bytes;              /* big-endian, at their places; clean sectors are not filled */
    uint8_t *sectors;            /* a bit per sector: in the copy */
    uint64_t len;                /* bytes of the table */
};

struct qcow2_guarded;            /* qcow2-guard.c */
struct qcow2_reftable_copy;      /* qcow2-reftable.c */

/* q->priv_refcount */
struct qcow2_refs {
    uint64_t run_hint;           /* searches for runs start here */

    /* The node was writable before, and its embargoes of that time are forgotten: while requests up
     * to this epoch are in flight, nothing below this index is free.  0: over. */
    uint64_t born_epoch, born_end;

    /* The table of refcount blocks.  `place` is where a table that has outgrown its clusters will
     * move with the next generation; until then q->h tells where the old one lies. */
    uint8_t *table_dirty;        /* a bit per sector */
    bool table_dirty_any;
    uint64_t place;              /* bytes; 0: none (yet) */
    uint64_t place_clusters;     /* > 0: the table has outgrown its clusters */
    bool placing;
    struct qcow2_reftable_copy *copy; /* of the generation that is being written */

    /* Clusters whose count, or whose first entry, has changed in memory; ... those of the
     * generation that is being written.  What a crash may leak, with what waits below. */
    uint64_t loose, loose_frozen;
    uint64_t held;               /* ... and what somebody has allocated and will link later */

    struct qcow2_unlinked_list collecting; /* unlinked in memory */
    struct qcow2_unlinked_list frozen;     /* ... by the generation that is being written */
    STAILQ_HEAD(, qcow2_embargo) embargo;  /* the oldest first */

    struct qcow2_guarded *guarded;
    bool guard_shared; /* entries of the active L1 table share an L2 table */
    bool guard_built;
};

static inline struct qcow2_refs *qcow2_refs(struct qcow2 *q)
{
    return q->priv_refcount;
}

/* `n` clusters have another count, or their first entry, in memory alone. */
static inline void qcow2_is_loose(struct qcow2 *q, uint64_t n)
{
    qcow2_refs(q)->loose += n;
}

/* --- qcow2-refcount.c ----------------------------------------------------------------------- */
void qcow2_refcount_init(struct qcow2 *q);
/* The refcount at position `at` of the bytes of a block, and setting it. */
uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *data, uint64_t at);
void qcow2_refcount_store(const struct qcow2 *q, uint8_t *data, uint64_t at, uint64_t count);
/* Take one reference from each of [first, first + n), q->lock held.  Calls gone(arg, first, n) for
 * runs whose count has become zero.  *done: clusters dealt with before an error. */
int co_qcow2_refcount_drop(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *done,
                           void (*gone)(void *arg, uint64_t first, uint64_t n), void *arg);
/* Clusters from `first` on have become free. */
void qcow2_hint_free(struct qcow2 *q, uint64_t first, uint64_t n);

/* Set the count of a cluster whose block exists, in memory; q->lock held. */
int co_qcow2_refcount_set(struct qcow2 *q, uint64_t index, uint64_t count);

/* --- qcow2-reftable.c ----------------------------------------------------------------------- */
/* The host offset of refcount block `t`, 0: none.  Suspends only to report corruption (-EIO). */
int co_qcow2_refblock(struct qcow2 *q, uint64_t t, uint64_t *offset);
/* Make refcount block `t`, in the free cluster `at`, which `t` or an existing block describes.  The
 * table may have to grow for it: then it grows, and -EAGAIN asks the caller to look for free
 * clusters anew.  `upto`: the last cluster that will be needed. */
int co_qcow2_refblock_create(struct qcow2 *q, uint64_t t, uint64_t at, uint64_t upto);
/* Find a place for a table that has outgrown its clusters, when an earlier attempt failed. */
int co_qcow2_reftable_place(struct qcow2 *q);
/* Cluster indices at and above this can never be described. */
uint64_t qcow2_reftable_limit(const struct qcow2 *q);
bool qcow2_reftable_dirty(const struct qcow2 *q);
/* A generation's part: copy; write and make durable (what it points to is durable already); end. */
void qcow2_reftable_freeze(struct qcow2 *q);
bool qcow2_reftable_frozen(const struct qcow2 *q);
int co_qcow2_reftable_write(struct qcow2 *q);
void qcow2_reftable_done(struct qcow2 *q, bool written);

/* --- qcow2-quarantine.c --------------------------------------------------------------------- */
/* When the cluster is under embargo: the first index behind that range, else 0. */
uint64_t qcow2_embargo_end(struct qcow2 *q, uint64_t index);
/* Lift embargoes that are over, unless holes have to be punched first. */
void qcow2_embargo_lift(struct qcow2 *q);
/* As above, and punch the holes.  q->lock not held. */
void co_qcow2_embargo_lift(struct qcow2 *q);
/* Do that in the background (qcow2-writeback.c). */
void qcow2_embargo_kick(struct qcow2 *q);
/* The generation failed: what it unlinked waits for the next one. */
void qcow2_quarantine_thaw(struct qcow2 *q);
/* The generation is durable: what had changed until its freeze is not loose any more. */
void qcow2_quarantine_settled(struct qcow2 *q);
/* Unlinked on disk already: goes with the generation that is being written. */
void qcow2_free_with_generation(struct qcow2 *q, uint64_t offset, uint64_t len);
void qcow2_quarantine_close(struct qcow2 *q);

/* --- qcow2-guard.c -------------------------------------------------------------------------- */
/* Learn where the metadata lies (once, before the first write); -EIO when tables overlap. */
int co_qcow2_guard_build(struct qcow2 *q);
/* Before [offset, offset + len) is allocated or written to: -EIO, and reported, when metadata lies
 * there. */
int co_qcow2_guard_check(struct qcow2 *q, uint64_t offset, uint64_t len);
/* The same before clusters lose a reference each: tables may, which have another one. */
int co_qcow2_guard_check_drop(struct qcow2 *q, uint64_t first, uint64_t n);
void qcow2_guard_add(struct qcow2 *q, uint64_t offset, const char *what);
void qcow2_guard_remove(struct qcow2 *q, uint64_t offset);
void qcow2_guard_close(struct qcow2 *q);
/* Other tables are active now: learn anew before the next write. */
void qcow2_guard_rebuild(struct qcow2 *q);

/* --- qcow2-map.c ---------------------------------------------------------------------------- */
/* -EIO, and reported, when a table lies behind the end of the file. */
int co_qcow2_check_end(struct qcow2 *q, uint64_t host, const char *what);

/* --- qcow2-writeback.c ---------------------------------------------------------------------- */
/* Copy the sectors of `table` that `dirty` marks, and unmark them. */
void qcow2_table_copy(struct qcow2_table_copy *copy, const uint64_t *table, uint64_t entries,
                      uint8_t *dirty);
int co_qcow2_table_copy_write(struct qcow2 *q, const struct qcow2_table_copy *copy,
                              uint64_t offset);
/* Mark the copied sectors dirty again. */
void qcow2_table_copy_thaw(const struct qcow2_table_copy *copy, uint8_t *dirty);
void qcow2_table_copy_free(struct qcow2_table_copy *copy);

#endif
