/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the I/O engine: what the front (io.c) asks of a back end.  Nobody above core/ includes
 * this.
 *
 *     io.h -> front (io.c, io-direct.c) -> struct io_engine -+-> io-host.c -> a carrier
 *                                                            +-> io-sim.c (files in memory)
 *
 * A back end does ONE host operation per call and reports what happened, as a system call would:
 * short transfers, -EINTR and -EOPNOTSUPP are honest answers.  Everything that turns those into the
 * promises of core/io.h is the front's and is written once:
 *
 *   - carrying on after a short transfer or EINTR; lists longer than IOV_MAX;
 *   - zero-filling reads beyond the end of the file;
 *   - zeroing by punching and allocating, or by writing zeroes, where there is no better call;
 *   - copying by reading and writing, where co_copy is missing or declines;
 *   - bouncing what does not keep IO_DIRECT's alignment;
 *   - remembering that a flush failed; remembering the locks that are held; statistics.
 *
 * So a back end sees neither empty requests nor lists beyond IOV_MAX, nor unaligned ones on a file
 * that asks for alignment, nor a write to a file that was opened read-only (the front answers
 * -EBADF).
 *
 * Real files have one implementation, io-host.c, that describes each system call in a struct
 * io_call; a carrier says when and where the call is carried out: on the ring, on a worker thread,
 * or on the loop's thread at a seeded time of the virtual clock.  Back ends in memory fill a struct
 * io_engine directly and know nothing of calls.
 */
#ifndef CORE_IO_ENGINE_H
#define CORE_IO_ENGINE_H

#define IO_WITHOUT_SITES
#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#include <sys/queue.h>

struct io_call;
struct io_direct_range;

/* A carrier (see below): makes the call happen, suspends until it has, and returns its result. */
typedef ssize_t co_io_carrier(struct io_call *call);

/* The common head of an open file.  A back end puts it first in its own struct. */
struct io_file {
    /* Filled by the back end's co_open and kept true by its co_reopen: */
    unsigned align;   /* 1, or what IO_DIRECT asks of offsets, lengths, buffers (a power of two) */
    uint64_t id[2];   /* of one file, whatever the handle: device, inode; 0 and a block
                       * device's number; in memory UINT64_MAX, n */

    /* The front's; back ends read at most: */
    const struct io_engine *engine;
    char *path;       /* as given to co_io_open() */
    unsigned flags;   /* enum io_open_flags of the last open or reopen */
    int flush_error;  /* what the first failed flush said (sticky), or 0 */
    unsigned lock_used, lock_shared; /* of the last successful lock; 0 and IO_PERM_ALL when none */
    bool no_zero, no_punch; /* said -EOPNOTSUPP once, not asked again */
    LIST_HEAD(, io_direct_range) direct; /* io-direct.c: changes in flight on an IO_DIRECT file */
};

enum io_range {
    IO_RANGE_ZERO,     /* reads as zeroes, space held; extends the file, never shrinks it */
    IO_RANGE_PUNCH,    /* reads as zeroes, space given back; never changes the file's size */
    IO_RANGE_ALLOCATE, /* space held, content kept; extends the file, never shrinks it */
};

/*
 * A back end.  co_* may suspend, the others must not.  Results are 0 or a count, or a negative
 * errno.  All members are required unless marked optional.
 */
struct io_engine {
    const char *name;

    /* Allocate (mem_zalloc, head first) and open.  Answers for path and flags as core/io.h says.
     * After an error nothing is left. */
    int (*co_open)(const struct io_engine *engine, const char *path, unsigned flags,
                   struct io_file **out);
    /* Give back the back end's own part, locks included; the front frees the struct itself with
     * free(). */
    void (*co_close)(struct io_file *file);
    /* Swap in a new handle of the same file with `flags`, lock_used and lock_shared carried over
     * without an instant in which they are not held.  On error all is as before. */
    int (*co_reopen)(struct io_file *file, unsigned flags);

    /* One transfer: bytes moved, perhaps fewer than asked.  A read gives 0 only at or beyond the
     * end of the file. */
    ssize_t (*co_read)(struct io_file *file, uint64_t offset, const struct iovec *iov, int n);
    ssize_t (*co_write)(struct io_file *file, uint64_t offset, const struct iovec *iov, int n);
    int (*co_flush)(struct io_file *file); /* fdatasync */
    /* Optional.  As co_io_write_out(); an error is one of writing, not of the call. */
    int (*co_write_out)(struct io_file *file);
    /* -EOPNOTSUPP: never on this file; -EINVAL: not this range (devices want whole sectors). */
    int (*co_range)(struct io_file *file, enum io_range how, uint64_t offset, uint64_t len);
    /* Optional: a discard that is not a punch, as what is read there later may be anything.  Without it co_io_discard() punches. */
    int (*co_discard)(struct io_file *file, uint64_t offset, uint64_t len);
    /* Optional.  Both files are this engine's and ask for no alignment.  Bytes copied, perhaps
     * fewer than asked; 0 when `src_off` is at or beyond the end of `src`; -EOPNOTSUPP to decline
     * this pair (the front then reads and writes). */
    ssize_t (*co_copy)(struct io_file *src, uint64_t src_off, struct io_file *dst, uint64_t dst_off,
                       uint64_t len);
    /* Optional.  As co_io_gather(), all or nothing that counts: 0, -EOPNOTSUPP to decline (the front then goes
     * piece by piece), or an error.  All files are this engine's and ask for no alignment. */
    int (*co_gather)(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off);
    /* Optional.  As co_io_assemble().  All files are this engine's and ask for no alignment. */
    int (*co_assemble)(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off, bool fresh);
    /* Optional, both or none.  As io_expect() and co_io_expect_end(). */
    void (*expect)(struct io_file *file, uint64_t from, uint64_t to);
    void (*co_expect_end)(struct io_file *file, uint64_t end);
    /* Optional, both or none.  As their namesakes. */
    void (*co_make_room)(struct io_file *file, uint64_t bytes);
    void (*co_give_room_back)(struct io_file *file);
    /* As co_io_map().  -EOPNOTSUPP where the host cannot tell (the front then answers "data" up to
     * the size). */
    int (*co_map)(struct io_file *file, uint64_t offset, uint64_t *len, bool *data);
    int (*co_truncate)(struct io_file *file, uint64_t size);
    int (*co_size)(struct io_file *file, uint64_t *size);
    int (*co_allocated)(struct io_file *file, uint64_t *bytes);
    /* As io_file_lock(), with the roll-back; the locks held before are file->lock_used and
     * lock_shared. */
    int (*lock)(struct io_file *file, unsigned used, unsigned shared, unsigned *bad,
                bool *bad_shared);

    /* Names: co_io_*() of the default engine end here. */
    int (*co_sync_dir)(const struct io_engine *engine, const char *path_in_dir);
    int (*co_unlink)(const struct io_engine *engine, const char *path);
    int (*co_rename)(const struct io_engine *engine, const char *from, const char *to);
    bool (*exists)(const struct io_engine *engine, const char *path);
    char *(*working_dir)(const struct io_engine *engine);
    int (*co_load)(const struct io_engine *engine, const char *path, char **out, size_t *len);

    /* io-host.c's own; other back ends leave them out. */
    co_io_carrier *co_carry;
    bool inline_reads; /* try the page cache on the loop's thread first */
};

/* Make an engine known to io_engine_find(), and unknown again before it goes away.  A back end in
 * memory calls these as its world comes and goes; it stays the caller's. */
void io_engine_register(const struct io_engine *engine);
void io_engine_unregister(const struct io_engine *engine);

/* --- The front's two halves ------------------------------------------------------------------- */

/* io.c: move the whole list, carrying on after short transfers, zero-filling reads.  Aligned if the
 * file asks for it. */
int co_io_transfer(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                   bool write);

/* io-direct.c: the same for lists and offsets of any alignment. */
int co_io_direct_transfer(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                          bool write);
/* Other changes to an IO_DIRECT file are announced, too, so that none is lost under a
 * read-modify-write. */
struct io_direct_range {
    uint64_t start, end; /* bytes; end exclusive */
    bool exclusive;      /* nothing else may touch the range */
    struct co_queue waiters;
    LIST_ENTRY(io_direct_range) link;
};
void co_io_direct_begin(struct io_file *file, struct io_direct_range *range, uint64_t start,
                        uint64_t end, bool exclusive);
void io_direct_end(struct io_direct_range *range);

/* --- Real files ------------------------------------------------------------------------------- */

enum io_call_op {
    IO_CALL_READ,      /* preadv */
    IO_CALL_WRITE,     /* pwritev */
    IO_CALL_FLUSH,     /* fdatasync */
    IO_CALL_FALLOCATE, /* mode */
    IO_CALL_FN,        /* fn(arg): whatever has no asynchronous form */
};

/* One host operation on its way.  It lives on the stack of the coroutine that waits for it. */
struct io_call {
    enum io_call_op op;
    int fd;
    int mode;
    bool bulk;        /* long work (copies, loads): must not keep the guest from a worker */
    bool big;         /* copies much memory: not on the loop's thread even if possible at once */
    uint64_t offset, len;
    const struct iovec *iov;
    int n;
    void (*fn)(void *arg);
    void *arg;
    ssize_t result;   /* out: a count or a negative errno */
    struct io_lane *lane; /* or NULL; then it is the pool's, on any carrier */
    struct co *co;    /* the carrier's: who waits */
    STAILQ_ENTRY(io_call) link; /* the carrier's */
};
STAILQ_HEAD(io_call_list, io_call);

/* Calls that a worker carries out one after the other: the pool's, under its lock.  Idle when all calls
 * in it are complete. */
struct io_lane {
    struct io_call_list calls;
    bool busy; /* a worker serves it, or one of its calls is queued for a worker */
};

/* Carry the call out now, on the calling thread; sets call->result. */
void io_call_run(struct io_call *call);

/* The pool: worker threads started on demand.  fini waits for them; no call may be in flight. */
void io_pool_init(void);
void io_pool_fini(void);
ssize_t co_io_pool_call(struct io_call *call);
/* For carriers that pass a call on: queue it (call->co is set and suspended); hand the queue over
 * now instead of at the end of the turn. */
void io_pool_send(struct io_call *call);
void io_pool_submit(void);

/* The ring.  False when the kernel has none.  What it cannot do it hands to the pool. */
bool io_ring_init(void);
void io_ring_fini(void);
ssize_t co_io_ring_call(struct io_call *call);

/* The virtual clock: sleeps a seeded while, then carries the call out on this thread. */
ssize_t co_io_virtual_call(struct io_call *call);

/* The seeded while itself, ns, for a transfer of `bytes` (0 for calls that move none). */
uint64_t io_virtual_latency(uint64_t bytes);

/* The three engines on real files; they differ in their carrier only. */
extern const struct io_engine io_engine_threads, io_engine_uring, io_engine_virtual;
/* A new turn of the loop has begun (see io-host-cached.c). */
void io_host_new_turn(void);

/* Bring the byte locks of `fd` from (old_used, old_shared) to (used, shared), see core/io.h. */
int io_lock_fd(int fd, unsigned old_used, unsigned old_shared, unsigned used, unsigned shared,
               unsigned *bad, bool *bad_shared);
/* Only put the marks on a further descriptor of a file whose locks are held already. */
int io_lock_put(int fd, unsigned used, unsigned shared);

#endif
