/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 inside: shared by the qcow2-*.c files only.
 *
 *   qcow2-header.c     parse, validate and build the header and its extensions
 *   qcow2-header-write.c  how the header changes on disk: fields, bits, the backing pointer
 *   qcow2-snapshots.c  the table of internal snapshots
 *   qcow2-open.c       open, close, the driver's table, describe
 *   qcow2-options.c    the driver's options
 *   qcow2-create.c     make new images
 *   qcow2-layout.c     where everything lies in a new image
 *   qcow2-check.c      walk all references and count them
 *   qcow2-bitmaps.c    persistent bitmaps: counted and described, never kept up to date
 *   qcow2-repair.c     rebuild reference counts (dirty bit)
 *   qcow2-report.c     check for people: all that is wrong, and repairs in place
 *   qcow2-compress.c   compressed clusters (zlib, zstd), on worker threads
 *   qcow2-cache.c      cached pieces of tables (L2 slices, refcount block slices) with a byte budget
 *   qcow2-refcount.c   reference counts: allocate, free; with qcow2-reftable.c (grow), qcow2-quarantine.c (freed, but
 *                      not free yet) and qcow2-guard.c (metadata is not for guests)
 *   qcow2-map.c        guest offset -> extent, whole slices at once
 *   qcow2-read.c       what this layer shows
 *   qcow2-write.c      write and copy-in; with qcow2-fill.c (copy on write)
 *   qcow2-zero.c       zero and discard
 *   qcow2-truncate.c   another size
 *   qcow2-writeback.c  the order in which all that becomes durable
 *
 * The order is the one idea.  All changes of tables are made in memory (the cache, the L1 copy)
 * and reach the disk only in a *generation*, co_qcow2_writeback():
 *
 *   freeze   copy every dirty table piece as it is now; new changes go to the next generation
 *   stage 1  write the frozen refcount blocks (counts only ever too high: increments are in, the decrements of
 *            clusters unlinked in this generation are not); wait for guest data linked so far; flush
 *   stage 2  write the frozen L2 slices; flush
 *   stage 3  if L1 entries changed: write them; flush
 *   release  clusters unlinked before the freeze are now unlinked on disk: their counts drop in memory (a dirty
 *            refcount block of the NEXT generation), and they may be used again once no request older than
 *            their unlinking is in flight (node_epoch_oldest())
 *
 * Invariants (cited by number in asserts):
 *   Q1  an L2 entry in the cache points only to a cluster whose refcount in the cache is >= 1
 *   Q2  an L2 entry on disk points only to a cluster whose refcount on disk is >= 1 and whose data is durable
 *   Q3  a cluster is handed out only if no table on disk or in memory and no request in flight refers to it
 *   Q4  COPIED (bit 63) is set exactly when the refcount is one
 *   Q5  on-disk counts are never too small; leaks are allowed after a crash
 *   Q6  clusters reachable from an internal snapshot are never written
 *
 * With the counts always kept exactly, lazy_refcounts is a permission that we do not use: the
 * dirty bit is never set by us; one that is found set is repaired at open (qcow2-repair.c) before
 * the first write.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/node.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES (32u << 20)       /* QEMU's limit, from the format's practice */
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_TABLE (16u << 20)
#define QCOW2_MAX_BACKING_NAME 1023u

#define QCOW2_INCOMPAT_DIRTY (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXTL2 (1ull << 4)
#define QCOW2_COMPAT_LAZY (1ull << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (1ull << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW (1ull << 1)

#define QCOW2_EXT_END 0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURES 0x6803f857u       /* names of feature bits */
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_CRYPTO 0x0537be77u
#define QCOW2_MAX_BACKING_FORMAT 15u
#define QCOW2_SNAPSHOT_ENTRY 40u             /* fixed bytes of an entry of the snapshot table */

#define QCOW2_L1_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_L2_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_L1_RESERVED 0x7f000000000001ffull
#define QCOW2_L2_RESERVED 0x3f000000000001feull /* of an entry that is not compressed */
#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO (1ull << 0) /* version 3, standard L2 entries */

/* The header, parsed.  Fields as in the specification; version 2 has the version 3 fields filled
 * with their defaults. */
struct qcow2_header {
    uint32_t version;
    uint64_t backing_offset;
    uint32_t backing_len;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size;             /* entries */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;     /* 0 zlib, 1 zstd */
};

/* A header extension kept as found (unknown ones too). */
struct qcow2_ext {
    uint32_t type;
    uint32_t len;
    uint8_t *data;
};

struct qcow2_snapshot { /* only what keeping them intact needs */
    uint64_t l1_offset;
    uint32_t l1_size;
    uint64_t disk_size;
    uint64_t vm_state_size;
    char *id, *name;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount; /* instructions executed; UINT64_MAX: not recorded */
};

struct qcow2_cache;   /* qcow2-cache.c */

struct qcow2 {
    struct node *node;
    struct io_file *file;         /* node->file's */
    struct qcow2_header h;
    uint8_t *head;                /* the first bytes as on disk: header and extensions, whole sectors */
    uint32_t head_len;
    struct co_mutex header_lock;  /* one change of the header at a time */
    bool corruption_reported;
    struct qcow2_ext *exts;
    unsigned n_exts;
    struct qcow2_snapshot *snapshots;
    uint64_t snapshots_len;       /* bytes of the snapshot table */

    /* Derived */
    uint32_t cluster_size;
    uint32_t l2_entry_size;       /* 8, or 16 with extended L2 */
    uint32_t l2_entries;          /* per table */
    uint32_t subclusters;         /* per cluster: 1 or 32 */
    uint32_t subcluster_size;
    uint32_t slice_entries;       /* L2 entries per cached slice: slice_bytes = slice_entries * l2_entry_size */
    uint32_t refblock_entries;    /* refcounts per refcount block (one cluster) */
    uint64_t refcount_max;

    uint64_t *l1;                 /* host order; what the cache's world believes */
    uint64_t *reftable;           /* host order */
    uint32_t reftable_entries;

    struct qcow2_cache *l2_cache, *ref_cache;

    /* Allocation */
    uint64_t free_hint;           /* cluster index below which nothing is free */
    uint64_t file_end;            /* first cluster index never used (bytes / cluster_size of the file, rounded up) */
    uint64_t packed_end;          /* where the last compressed stream that was written ends, bytes; 0: none */
    struct co_mutex lock;         /* held over any change of tables that may suspend; never over guest data I/O */

    /* Writeback */
    struct co_mutex writeback_lock; /* one generation at a time */
    uint64_t generation;          /* the one that collects changes now */
    bool l1_dirty_any;
    uint8_t *l1_dirty;            /* a bit per 512-byte sector of the L1 table */

    bool dirty_bit_found;
    bool writable;
    uint64_t l2_budget, refcount_budget; /* bytes for the caches, as asked; 0: the usual */
    void *priv_in_flight, *priv_refcount, *priv_writeback; /* module-private state */
};

/* --- qcow2-header.c (pure parsing: no I/O, unit-tested and fuzzed) ---------------------------- */
/* Parse and check the first `len` bytes of an image of `file_size` bytes.  One clear sentence on
 * failure (QEMU's words). */
int qcow2_header_parse(const uint8_t *buf, size_t len, uint64_t file_size, struct qcow2_header *out, struct error *err);
/* Extensions in their order, unknown ones too; *exts goes back with qcow2_exts_free().  -EAGAIN
 * without a text: they go on beyond `len`, come again with the whole first cluster. */
int qcow2_exts_parse(const uint8_t *buf, size_t len, const struct qcow2_header *h, struct qcow2_ext **exts, unsigned *n,
                     struct error *err);
void qcow2_exts_free(struct qcow2_ext *exts, unsigned n);
const struct qcow2_ext *qcow2_ext_find(const struct qcow2_ext *exts, unsigned n, uint32_t type);
/* Where the extensions that were parsed from an image end, the end marker included. */
uint64_t qcow2_exts_end(const struct qcow2_header *h, const struct qcow2_ext *exts, unsigned n);
/* Store extensions and an end marker in [pos, limit) of buf; returns the end, or 0 when they do
 * not fit. */
uint64_t qcow2_exts_store(const struct qcow2_ext *exts, unsigned n, uint8_t *buf, uint64_t pos, uint64_t limit);
/* The names of all feature bits that we know; the caller frees .data. */
struct qcow2_ext qcow2_feature_table(void);
/* Store the fields; what else lies in the header (fields of a later time) stays. */
void qcow2_header_store(const struct qcow2_header *h, uint8_t *buf);
void qcow2_header_store_backing(const struct qcow2_header *h, uint8_t *buf); /* these two fields only */
/* Is [offset, offset + len) usable for a table: aligned, not in the header, no overflow, inside
 * 2^56? */
int qcow2_check_table(const struct qcow2_header *h, uint64_t offset, uint64_t entries, size_t entry_size,
                      uint64_t max_bytes, const char *what, struct error *err);

/* --- qcow2-header-write.c --------------------------------------------------------------------- */
/* Write the fields of q->h durably (flush before and after, one sector).  A caller sets a field of
 * q->h only when the writes of what it points to have completed (not flushed: that is done here).
 * After an error the disk has the old or the new sector. */
int co_qcow2_write_header_sector(struct qcow2 *q);
int co_qcow2_set_backing(struct node *node, const char *name, const char *format, struct error *err);
int qcow2_check_backing(struct node *node, const char *name, const char *format, struct error *err);
/* The image was found inconsistent: set the corrupt bit (version 3) durably, make the node
 * read-only, report once through node_report_corrupt(); returns -EIO. */
int co_qcow2_signal_corruption(struct qcow2 *q, bool fatal, uint64_t offset, uint64_t size, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* How a new backing name gets in: worked out without I/O (unit-tested).  Stage 1 writes tail and
 * name_part, which lie in bytes without a meaning so far; stage 2 writes the first sector. */
struct qcow2_backing_plan {
    struct qcow2_header h;      /* with the new pointer */
    struct qcow2_ext *exts;     /* owned; .data is borrowed from the old ones or from `format` */
    unsigned n_exts;
    uint8_t *head;              /* owned: the new first bytes, head_len of them, whole sectors */
    uint32_t head_len;
    uint32_t tail_from, tail_to; /* bytes of `head` behind the first sector to write in stage 1 */
    uint64_t name_at;           /* where the part of the name behind the first sector goes, */
    const char *name_part;      /* borrowed; name_len bytes, 0: all of it lies in the first sector */
    uint32_t name_len;
};
/* False when there is no safe place.  `name` NULL: no backing file; `format` NULL: not recorded. */
bool qcow2_backing_plan(const struct qcow2_header *h, const uint8_t *head, uint32_t head_len, const struct qcow2_ext *exts,
                        unsigned n, const char *name, const char *format, struct qcow2_backing_plan *out);
void qcow2_backing_plan_free(struct qcow2_backing_plan *plan);

/* --- qcow2-snapshots.c ------------------------------------------------------------------------ */
/* -EAGAIN without a text: the table goes on beyond `len`.  *table_len is its length in bytes. */
int qcow2_snapshots_parse(const uint8_t *buf, size_t len, const struct qcow2_header *h, struct qcow2_snapshot **out,
                          uint64_t *table_len, struct error *err);
void qcow2_snapshots_free(struct qcow2_snapshot *list, unsigned n);
int co_qcow2_snapshots_load(struct qcow2 *q, uint64_t file_size, struct error *err);
/* A list of SnapshotInfo as QMP has it; new reference. */
json_t *qcow2_snapshot_trees(const struct node *node);
/* The persistent bitmaps as QMP's Qcow2BitmapInfo describes them: a new array, NULL when there are none that count (or
 * none that can be read).  Suspends. */
json_t *co_qcow2_bitmap_trees(struct node *node);
/* From now on the node, which is read-only and nobody else's, shows this snapshot.  Its size stays; it grows if the snapshot's
 * disk was larger. */
int co_qcow2_snapshot_show(struct node *node, const struct qcow2_snapshot *s, struct error *err);

/* --- qcow2-snapshot-change.c ------------------------------------------------------------------ */
/* Make a snapshot of the active state; make the active state what a snapshot holds (its size, too); delete a snapshot.  Nobody
 * uses the node meanwhile; it is writable.  Durable on return.  -ENOENT; -ERANGE: a reference count cannot be larger; -EFBIG:
 * no more snapshots fit, or this one is larger than can be; -EINVAL: what is recorded of it is nonsense. */
int co_qcow2_snapshot_make(struct node *node, const char *name);
int co_qcow2_snapshot_apply(struct node *node, const char *id_or_name);
int co_qcow2_snapshot_delete(struct node *node, const char *name);
/* By name, or by ID first; NULL. */
const struct qcow2_snapshot *qcow2_snapshot_find(const struct qcow2 *q, const char *word, bool by_id);

/* --- qcow2-open.c ----------------------------------------------------------------------------- */
/* A table of 64-bit entries of the file, in host order, with room for more of them (zeroes): at least `entries`.  The caller
 * frees it. */
int co_qcow2_load_table(struct qcow2 *q, uint64_t offset, uint64_t entries, uint64_t room, uint64_t **out);
/* Read the reference count table that q->h names into q->reftable. */
int co_qcow2_load_reftable(struct qcow2 *q);

/* --- qcow2-options.c -------------------------------------------------------------------------- */
/* What node->options say of caches and such.  0; -EINVAL with `err`: values that none of them takes, or not together. */
int qcow2_take_options(struct qcow2 *q, struct error *err);
/* The same for what can only be judged when the header is known. */
int qcow2_check_options(struct qcow2 *q, struct error *err);
/* Bytes for the cache of L2 tables and for that of reference counts. */
size_t qcow2_l2_budget(const struct qcow2 *q, bool writable);
size_t qcow2_refcount_budget(const struct qcow2 *q);

/* --- qcow2-create.c, qcow2-check.c, qcow2-compress.c ------------------------------------------ */
int co_qcow2_create(const char *path, json_t *options, struct error *err);
/* Count all references by walking every table (active and snapshots); write new refcount
 * structures so that they agree; clear the dirty bit last.  Run at open, before the caches
 * exist. */
int co_qcow2_rebuild_refcounts(struct qcow2 *q, struct error *err);
/* Read and decompress `n` whole clusters given their L2 entries, which follow each other, into `out` (as many times
 * cluster_size bytes): one read, one piece of work. */
#define QCOW2_COMPRESSED_RUN_MAX 64
int co_qcow2_read_compressed(struct qcow2 *q, const uint64_t *l2_entries, int n, uint8_t *out);
/* Does the second one's data begin where the first one's ends? */
bool qcow2_compressed_follows(const struct qcow2 *q, uint64_t before, uint64_t entry);
/* The host range of a compressed cluster: first byte and number of bytes (sector-rounded). */
void qcow2_compressed_extent(const struct qcow2 *q, uint64_t l2_entry, uint64_t *offset, uint64_t *len);

/* --- qcow2-pack.c ----------------------------------------------------------------------------- */
/* Compress a whole cluster (cluster_size bytes) into `out`, which has as much room.  The stream's length, or 0 when it would not
 * be shorter.  Several may run at the same time.  Suspends. */
size_t co_qcow2_compress(struct node *node, const void *cluster, void *out);
/* Make the cluster at `guest` this stream.  0 or a negative errno; suspends. */
int co_qcow2_write_packed(struct node *node, uint64_t guest, const void *bytes, size_t len);

/* --- qcow2-cache.c ---------------------------------------------------------------------------- */
/* A cache of fixed-size pieces of on-disk tables, keyed by their byte offset in the file.
 * Read-through; dirty pieces stay until a generation has written them.  They count against the
 * budget: from half of it on a writeback runs in the background, and who allocates waits for one
 * while the cache is crowded. */
struct qcow2_piece {
    uint64_t offset;     /* in the file; multiple of the piece size */
    uint8_t *data;       /* big-endian, as on disk */
    bool dirty;          /* changed since the last freeze */
    unsigned pins;
    /* private links follow in qcow2-cache.c */
};
struct qcow2_cache *qcow2_cache_new(struct qcow2 *q, uint32_t piece_size, size_t budget_bytes);
void qcow2_cache_free(struct qcow2_cache *c); /* or NULL */
void qcow2_cache_set_budget(struct qcow2_cache *c, size_t budget_bytes);
/* So many bytes more for a while, of the shared budget too; in place of what was lent before. */
void qcow2_cache_lend(struct qcow2_cache *c, size_t bytes);
/* Let a new cache live within the budget that all such caches have together, besides its own. */
void qcow2_cache_share(struct qcow2_cache *c);
uint32_t qcow2_cache_piece_size(const struct qcow2_cache *c);
/* Get a piece, pinned: from memory, or read from disk (suspends). Concurrent getters of one piece
 * share the read. */
int co_qcow2_cache_get(struct qcow2_cache *c, uint64_t offset, struct qcow2_piece **out);
/* As above but never suspends: NULL when it is not in memory. */
struct qcow2_piece *qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset);
void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_piece *p);
void qcow2_cache_mark_dirty(struct qcow2_cache *c, struct qcow2_piece *p);
/* A new table of one cluster, all zeroes, in a place that was never written: the next generation writes it whole.  The piece at
 * `offset` in it is dirty, and it is linked before the caller suspends. */
void qcow2_cache_born(struct qcow2_cache *c, uint64_t table, uint64_t offset);
/* Forget pieces in a range that has been freed (they must not be written any more). */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t len);
size_t qcow2_cache_bytes(const struct qcow2_cache *c);
bool qcow2_cache_dirty(const struct qcow2_cache *c);
bool qcow2_cache_crowded(const struct qcow2_cache *c); /* dirty pieces alone exceed the budget */
/* Freeze: copy all dirty pieces into a list, mark them clean.  Write them: co_..._write (in
 * parallel, adjacent ones merged); on failure thaw marks the pieces dirty again. */
struct qcow2_frozen;
struct qcow2_frozen *qcow2_cache_freeze(struct qcow2_cache *c);
size_t qcow2_frozen_count(const struct qcow2_frozen *f); /* pieces */
int co_qcow2_frozen_write(struct qcow2_frozen *f);
void qcow2_frozen_done(struct qcow2_frozen *f, bool written);

/* --- qcow2-refcount.c (call with q->lock held) ------------------------------------------------ */
int co_qcow2_refcount_get(struct qcow2 *q, uint64_t cluster_index, uint64_t *count);
/* Allocate `want` clusters in one contiguous host run, or at least one; *got says how many.
 * Refcounts become 1 in the cache. */
int co_qcow2_alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got);
/* Allocate exactly `n` contiguous clusters. */
int co_qcow2_alloc_exact(struct qcow2 *q, uint64_t n, uint64_t *offset);
/* Give back clusters that were never linked: at once reusable. */
int co_qcow2_free_unlinked(struct qcow2 *q, uint64_t offset, uint64_t n_clusters);
/* A reference to these bytes has been unlinked in memory: quarantine; the count drops after the
 * generation is durable. Works for compressed clusters too (byte range; each touched cluster loses
 * one reference). */
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Called by writeback at freeze and at its end. */
void qcow2_quarantine_freeze(struct qcow2 *q);
int co_qcow2_quarantine_release(struct qcow2 *q);
bool qcow2_quarantine_empty(const struct qcow2 *q);
/* What leaks if the power goes now, at most: clusters allocated, linked or unlinked since the last
 * generation.  0 for NULL and while it is not open for writing.  For the explorer. */
uint64_t qcow2_loose_clusters(struct qcow2 *q);
void qcow2_refcount_close(struct qcow2 *q);

/* --- qcow2-map.c ------------------------------------------------------------------------------ */
/* driver->co_map */
int co_qcow2_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out);
/* The cached slice that holds the entry of a guest offset, pinned; *piece = NULL when there is no
 * L2 table. */
int co_qcow2_slice_get(struct qcow2 *q, uint64_t guest, struct qcow2_piece **piece, uint32_t *index);
/* As above for writing (q->lock held): allocates the L2 table or copies one that a snapshot shares
 * (Q6). */
int co_qcow2_slice_get_writable(struct qcow2 *q, uint64_t guest, struct qcow2_piece **piece, uint32_t *index);
uint64_t qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_piece *p, uint32_t index);
uint64_t qcow2_l2_bitmap(const struct qcow2 *q, const struct qcow2_piece *p, uint32_t index); /* extended L2; else 0 */
void qcow2_l2_set(struct qcow2 *q, struct qcow2_piece *p, uint32_t index, uint64_t entry, uint64_t bitmap);

/* Entries of an L1 table for a disk of `size` bytes. */
uint64_t qcow2_l1_entries(const struct qcow2 *q, uint64_t size);
/* Change an entry of the active L1 table in memory. */
void qcow2_l1_set(struct qcow2 *q, uint64_t l1_index, uint64_t entry);

/* --- qcow2-read.c, qcow2-write.c, qcow2-zero.c ------------------------------------------------ */
int co_qcow2_read(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_qcow2_write(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_qcow2_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags);
int co_qcow2_discard(struct node *node, uint64_t offset, uint64_t len);
/* Clusters behind a new end: nothing of them stays, not even zeroes that hide a backing file. */
int co_qcow2_discard_all(struct node *node, uint64_t offset, uint64_t len);
/* Whole clusters of which nothing stays, so that the backing file shows. */
int co_qcow2_empty(struct node *node, uint64_t offset, uint64_t len);
int co_qcow2_copy_in(struct node *node, uint64_t offset, const struct io_piece *pieces, int n);
void co_qcow2_expect(struct node *node, uint64_t bytes);
enum qcow2_hold {
    QCOW2_HOLD_NOTHING,
    QCOW2_HOLD_HOLES,   /* clusters that the host need not store yet */
    QCOW2_HOLD_SPACE,   /* and that it has room for */
    QCOW2_HOLD_WRITTEN, /* zeroes are written */
};
/* Give clusters to a range that reads as zeroes (preallocation); those that are there stay as they are.  Nobody else uses the
 * node. */
int co_qcow2_hold(struct node *node, uint64_t offset, uint64_t len, enum qcow2_hold how);

/* --- qcow2-truncate.c ------------------------------------------------------------------------- */
int co_qcow2_truncate(struct node *node, uint64_t size, struct error *err);

/* --- qcow2-writeback.c ------------------------------------------------------------------------ */
int co_qcow2_writeback(struct qcow2 *q); /* one whole generation; what was changed before the call is durable on return */
int co_qcow2_flush(struct node *node);   /* driver->co_flush */
/* Until nothing is dirty and nothing is quarantined (close, reopen read-only). */
int co_qcow2_writeback_all(struct qcow2 *q);
/* Start one in the background, unless one is on its way. */
void qcow2_writeback_kick(struct qcow2 *q);
/* Before taking q->lock to allocate: wait for a writeback while too much is dirty. */
int co_qcow2_writeback_throttle(struct qcow2 *q);
void qcow2_writeback_init(struct qcow2 *q);
void qcow2_writeback_close(struct qcow2 *q);

extern const struct driver driver_qcow2;

#endif
