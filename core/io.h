/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O engine's contract: every call to the host's files passes here.
 *
 * The front (io.c) owns what all back ends share: retrying short transfers and EINTR, zero-filling
 * reads beyond the end of the file, statistics, and the fall-backs.  Back ends do single host operations:
 *
 *   io-uring    liburing, one submission per turn of the loop
 *   io-pool     worker threads with preadv/pwritev/copy_file_range, and calls without an asynchronous form
 *   io-virtual  the virtual clock on real files: each request is carried out and completed by a timer
 *               with a seeded latency, in the order of those times
 *   io-sim      files in memory with a volatile cache, faults by plan: see io-sim.h
 *
 * All data-path functions return 0 or a negative errno.  Buffers stay the caller's and must live until the
 * call returns.  Requests of one file may complete in any order; whoever needs an order waits.
 * A failed flush is never forgotten: once co_io_flush() has failed on a file, every later one fails
 * as well (the kernel may have dropped the dirty pages).
 */
#ifndef CORE_IO_H
#define CORE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct io_file;    /* an open file; reference-free: one owner */
struct io_engine;  /* one of the back ends */

enum io_open_flags {
    IO_READ_ONLY = 0,
    IO_RDWR = 1,
    IO_CREATE = 2,       /* create when missing, mode 0644 */
    IO_EXCL = 4,         /* with IO_CREATE: must not exist */
    IO_TRUNC = 8,
    IO_DIRECT = 16,      /* O_DIRECT (cache=none|directsync) */
};

/* Engines.  io_init() brings up the default engine for the loop's clock (io_uring where the kernel has it and
 * it was built in, else the pool; io-virtual on the virtual clock) and io_fini() ends it.  `name` may
 * be NULL (default), "io_uring", "threads", "sim".  io_engine_find() returns NULL when unknown or unavailable. */
void io_init(void);
void io_fini(void);
/* End the worker threads, once they are done with what they were given; the next request starts new ones, which inherit
 * what the loop's thread is by then (core/sandbox.h).  Waits on the spot. */
void io_threads_end(void);
const struct io_engine *io_engine_find(const char *name);
const char *io_engine_name(const struct io_engine *engine);
/* Replace the default engine (tests and --sim run everything on io-sim). */
void io_engine_set_default(const struct io_engine *engine);

/* Open a regular file or block device; refuses directories (-EISDIR), FIFOs and sockets (-EINVAL).  Never blocks on a
 * FIFO; O_CLOEXEC always.  `engine` NULL = default.  Suspends. */
int co_io_open(const struct io_engine *engine, const char *path, unsigned flags, struct io_file **out);
/* Waits for nothing: the caller has no request in flight.  Locks go with the file.  Suspends. */
void co_io_close(struct io_file *file);
/* Open the same file anew with other flags (read-only <-> read-write) behind the same handle, keeping the
 * locks held throughout: no instant without them.  On error the old handle is unchanged.  Suspends. */
int co_io_reopen(struct io_file *file, unsigned flags);

/* Read: bytes beyond the end of the file read as zeroes. */
int co_io_readv(struct io_file *file, uint64_t offset, const struct iovec *iov, int n);
int co_io_read(struct io_file *file, uint64_t offset, void *buf, size_t len);
/* Write: extends the file when needed. */
int co_io_writev(struct io_file *file, uint64_t offset, const struct iovec *iov, int n);
int co_io_write(struct io_file *file, uint64_t offset, const void *buf, size_t len);
/* fdatasync: when it returns 0 all writes, size changes, discards that had completed before it was called are
 * durable. */
int co_io_flush(struct io_file *file);
/* Hand what the page cache holds back of the file to the disk, and wait for that; nothing is durable by it, but a flush right
 * afterwards is short, and the file system's journal does not wait for the data.  A hint: what goes wrong is told by the next
 * flush. */
void co_io_write_out(struct io_file *file);
/* A guest is going to write behind the end of the file while it is written out: let the host have `bytes` of room there, so
 * that those writes do not wait for this one.  The file's size does not change.  What was not used is given back by the second
 * one, when nobody writes any more, or by closing the file.  Neither can fail. */
void co_io_make_room(struct io_file *file, uint64_t bytes);
void co_io_give_room_back(struct io_file *file);
/* Make a range read as zeroes (extending the file as needed); may deallocate when `unmap`. Falls back to writing zeroes. */
int co_io_zero(struct io_file *file, uint64_t offset, uint64_t len, bool unmap);
/* Deallocate (punch a hole).  -EOPNOTSUPP where the host cannot: a hint, callers ignore that. */
int co_io_discard(struct io_file *file, uint64_t offset, uint64_t len);
/* Copy between two files without passing our memory where the host can (copy_file_range), through a buffer on
 * a worker thread otherwise.  Source bytes beyond its end copy as zeroes.  One call is one unit of progress and should
 * be a few MiB at most.  Both files must be of the same engine family or it reads and writes. */
int co_io_copy(struct io_file *src, uint64_t src_off, struct io_file *dst, uint64_t dst_off, uint64_t len);
/* Write one run from many places: other files' ranges (`file`, `offset`) and memory (`mem`), in this order.  What
 * co_io_copy() and co_io_write() do one by one, in as few steps as the host can; large runs go past the page cache.
 * After an error any part may have been written. */
struct io_piece {
    struct io_file *file; /* NULL: memory */
    uint64_t offset;
    const void *mem;
    uint64_t len;         /* bytes, not 0 */
};
int co_io_gather(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off);
/* The bytes [from, to), at the end of the file or behind it, are going to be written by the two above: the host may make room
 * ahead (the file grows, nothing in it changes), so that such writes do not keep others from the file.  Until
 * co_io_expect_end(): none of them is in flight then, nothing is used behind `end`, and room there is given back.  Neither can
 * fail. */
void io_expect(struct io_file *file, uint64_t from, uint64_t to);
void co_io_expect_end(struct io_file *file, uint64_t end);
/* As co_io_gather() for a run that is to be in the host's cache afterwards, and only if all that it needs is there already:
 * -EAGAIN when not, or when the host cannot say; then co_io_readv() and co_io_writev() do it, and any part may have been written.
 * `fresh`: nothing was ever written to the run, so that the pieces' zeroes need not be. */
int co_io_assemble(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off, bool fresh);
bool io_can_assemble(const struct io_file *dst); /* else it is -EAGAIN always */
/* Data or hole at `offset`: *data says which and *len how far it goes (at most to `offset + *len` as given). Where the
 * host cannot tell, all is data.  Beyond the end is a hole. */
int co_io_map(struct io_file *file, uint64_t offset, uint64_t *len, bool *data);
int co_io_truncate(struct io_file *file, uint64_t size);
int co_io_size(struct io_file *file, uint64_t *size);     /* bytes; block devices too */
int co_io_allocated(struct io_file *file, uint64_t *bytes); /* bytes the host really holds (st_blocks * 512) */
/* Preallocate without changing content (fallocate); -EOPNOTSUPP is possible. */
int co_io_allocate(struct io_file *file, uint64_t offset, uint64_t len);

bool io_file_same(const struct io_file *a, const struct io_file *b); /* same inode */
const char *io_file_path(const struct io_file *file);
bool io_file_writable(const struct io_file *file);
bool io_file_is_device(const struct io_file *file); /* a block device */
/* Alignment in bytes that requests must keep (1, or 512/4096 with IO_DIRECT; the front bounces what is not aligned). */
unsigned io_file_alignment(const struct io_file *file);

/* --- Names ---------------------------------------------------------------------------------------------- */
int co_io_sync_dir(const char *path_in_dir); /* fsync of the directory that holds this path */
int co_io_unlink(const char *path);
int co_io_rename(const char *from, const char *to);
bool io_exists(const char *path);            /* engine-aware stat; does not suspend */
/* The working directory, malloc'ed; NULL when it is gone.  Engine-aware: "/" on the simulated disk. */
char *io_working_dir(void);
/* Read a whole small file (scripts, iologs); *out is malloc'ed and NUL-terminated. */
int co_io_load(const char *path, char **out, size_t *len);

/* --- The program's own places, on the host whatever the engine; nothing here suspends --------------------- */
int io_change_dir(const char *path);
/* Make a directory for us alone; its name replaces the six X at the end of `template`. */
int io_make_temp_dir(char *template);
/* As it, an empty file (0600). */
int io_make_temp_file(char *template);
void io_remove_tree(const char *path);
/* Make a file for us alone (0600) where there is none, and the directories above it (0700). */
int io_make_private_file(const char *path);

/* --- Image locks: open file description locks, byte for byte those of QEMU ------------------------------- */
enum io_perm {
    IO_PERM_CONSISTENT_READ = 0x01,
    IO_PERM_WRITE = 0x02,
    IO_PERM_WRITE_UNCHANGED = 0x04,
    IO_PERM_RESIZE = 0x08,
    IO_PERM_ALL = 0x0f,
};
/* Hold exactly the locks for "I use `used`, others may use `shared`": for bit i a shared lock on byte 100 + i when
 * used, and on byte 200 + i when not shared; then test that nobody else's locks conflict.  On conflict
 * returns -EAGAIN with *bad = the permission that failed (bit) and *bad_shared = it was the sharing side, and
 * the former locks are back in place.  A file system without such locks: 0.  Never suspends. */
int io_file_lock(struct io_file *file, unsigned used, unsigned shared, unsigned *bad, bool *bad_shared);

/* --- Work off the loop's thread ---------------------------------------------------------------------------- */
/* Run fn(arg) on a worker thread (inline and in seeded time on the virtual clock) and suspend until it is done.
 * fn must touch nothing but what arg describes. */
void co_io_work(void (*fn)(void *arg), void *arg);

/* --- Counters -------------------------------------------------------------------------------------------------- */
struct io_stats {
    uint64_t reads, writes, flushes, zeroes, discards, copies;
    uint64_t bytes_read, bytes_written, bytes_copied;
    uint64_t submissions; /* io_uring_enter calls or pool hand-overs */
    uint64_t inline_reads; /* satisfied from the page cache without leaving the thread */
};
extern struct io_stats io_stats;

/* --- Call sites -------------------------------------------------------------------------------------------------- */
/* Each place in the sources that calls the host is known, so that tests can make every one of them fail and see that
 * none was forgotten.  All are in the section io_sites, as pointers; one place may be there several times. */
struct io_site {
    const char *file;
    unsigned line;
    const char *what; /* the function that it calls */
    const char *in;   /* the one that it stands in */
};
/* For tests: told just before each call, on the caller's coroutine.  Usually NULL. */
extern void (*io_site_hook)(const struct io_site *site);

#ifndef IO_WITHOUT_SITES /* where the functions are made */
#define IO_CALLED(what) \
    ({ \
        static const struct io_site site_ = { __FILE__, __LINE__, what, __func__ }; \
        static const struct io_site *const listed_ \
            __attribute__((section("io_sites"), used)) = &site_; \
        if (__builtin_expect(io_site_hook != NULL, 0)) { \
            io_site_hook(&site_); \
        } \
    })
#define co_io_open(...) (IO_CALLED("co_io_open"), co_io_open(__VA_ARGS__))
#define co_io_reopen(...) (IO_CALLED("co_io_reopen"), co_io_reopen(__VA_ARGS__))
#define co_io_readv(...) (IO_CALLED("co_io_readv"), co_io_readv(__VA_ARGS__))
#define co_io_read(...) (IO_CALLED("co_io_read"), co_io_read(__VA_ARGS__))
#define co_io_writev(...) (IO_CALLED("co_io_writev"), co_io_writev(__VA_ARGS__))
#define co_io_write(...) (IO_CALLED("co_io_write"), co_io_write(__VA_ARGS__))
#define co_io_flush(...) (IO_CALLED("co_io_flush"), co_io_flush(__VA_ARGS__))
#define co_io_zero(...) (IO_CALLED("co_io_zero"), co_io_zero(__VA_ARGS__))
#define co_io_discard(...) (IO_CALLED("co_io_discard"), co_io_discard(__VA_ARGS__))
#define co_io_copy(...) (IO_CALLED("co_io_copy"), co_io_copy(__VA_ARGS__))
#define co_io_map(...) (IO_CALLED("co_io_map"), co_io_map(__VA_ARGS__))
#define co_io_truncate(...) (IO_CALLED("co_io_truncate"), co_io_truncate(__VA_ARGS__))
#define co_io_size(...) (IO_CALLED("co_io_size"), co_io_size(__VA_ARGS__))
#define co_io_allocated(...) (IO_CALLED("co_io_allocated"), co_io_allocated(__VA_ARGS__))
#define co_io_allocate(...) (IO_CALLED("co_io_allocate"), co_io_allocate(__VA_ARGS__))
#define co_io_sync_dir(...) (IO_CALLED("co_io_sync_dir"), co_io_sync_dir(__VA_ARGS__))
#define co_io_unlink(...) (IO_CALLED("co_io_unlink"), co_io_unlink(__VA_ARGS__))
#define co_io_rename(...) (IO_CALLED("co_io_rename"), co_io_rename(__VA_ARGS__))
#define co_io_load(...) (IO_CALLED("co_io_load"), co_io_load(__VA_ARGS__))
#define io_exists(...) (IO_CALLED("io_exists"), io_exists(__VA_ARGS__))
#define io_working_dir(...) (IO_CALLED("io_working_dir"), io_working_dir(__VA_ARGS__))
#define io_file_lock(...) (IO_CALLED("io_file_lock"), io_file_lock(__VA_ARGS__))
#endif

#endif
