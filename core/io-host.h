/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Longer pieces of work on real files, each a description and a function that carries it out on
 * whatever thread the carrier chooses (IO_CALL_FN).  Private to the io-host files.
 */
#ifndef CORE_IO_HOST_H
#define CORE_IO_HOST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/co.h"

struct io_engine;

/* Open, or open anew what `old_fd` has open, with its locks. */
struct io_opening {
    const char *path;
    unsigned flags;   /* enum io_open_flags */
    int old_fd;       /* -1: open `path` */
    unsigned lock_used, lock_shared;

    int result;       /* 0 or a negative errno; the rest is set when 0 */
    int fd;
    bool block_device;
    unsigned align;
    uint64_t dev, ino;
};
void io_open_run(void *arg);

/* What copying into a file has taught, kept per target so that each refusal costs one call only.
 * Several workers may copy into one file. */
struct io_copy_memory {
    _Atomic uint64_t refused; /* which ways (io-host-copy.c), from which source's device */
};

struct io_copy {
    int src, dst;
    uint64_t src_off, dst_off, len;
    uint64_t src_dev;
    struct io_copy_memory *memory;

    ssize_t result;   /* bytes copied (fewer only at the end of src), or a negative errno */
};
void io_copy_run(void *arg);
bool io_copy_refuses_to_share(struct io_copy_memory *memory, uint64_t src_dev);

/* Bytes below which the disk's latency costs more than making the target's pages. */
#define IO_DIRECT_MIN (128 * 1024)

/* One run out of many pieces, past the page cache. */
struct io_host_piece {
    int fd; /* -1: memory */
    uint64_t offset;
    const void *mem;
    uint64_t len;
};
struct io_gathering {
    const struct io_host_piece *pieces;
    int n, dst;
    uint64_t dst_off, len;

    int result;        /* 0; -ENOSYS: the target takes no O_DIRECT; -EOPNOTSUPP: not this list; an error */
    int direct;        /* while it is 0: what to write, and where to */
    struct iovec *iov; /* n */
    char *buffer;      /* the caller's, may be NULL: used if it is large enough, else another takes its place */
    uint64_t room;     /* in it */
};
/* Its three steps: the first and the last one are work for a thread, the write between them, of `iov` to `direct`, is
 * anybody's, and not needed when the first one failed; then there is nothing to end either. */
void io_gather_begin(void *arg);
int io_gather_judge(const struct io_gathering *g, ssize_t ret); /* what the write came to: 0 or as `result` */
void io_gather_end(void *arg);

/* io-room.c: room behind the end of a file that is there for a guest's next writes. */
struct io_room {
    uint64_t to;   /* 0: there is none */
    int fd;        /* while there is: ours, of the file as it was open for writing */
    bool changing; /* a worker makes it or gives it back */
    uint64_t grown; /* bytes that the file has become longer by since it was made last */
};
void co_io_room_make(const struct io_engine *engine, struct io_room *room, int fd, uint64_t bytes);

/* For a file that grows by what a worker writes: whoever sends the write asks first whether room is due behind `end` (then r->room
 * is set; it is NULL otherwise), the worker makes it, and then the sender says by how much data the file has grown. */
struct io_room_request {
    struct io_room *room;
    int fd;
    uint64_t bytes;
};
void io_room_ask(struct io_room *room, int fd, uint64_t end, struct io_room_request *r);
void io_room_make_run(void *request);
void io_room_answered(struct io_room *room, struct io_room_request *r, uint64_t grown);

void co_io_room_give_back(const struct io_engine *engine, struct io_room *room);
uint64_t io_room_unused(const struct io_room *room, uint64_t size, unsigned block); /* bytes behind a file of that size */

/* io-past-cache.c: runs on their way past the cache into one file, and the room that is held for them. */
struct io_past_cache {
    bool refused;          /* nothing goes past the cache here */
    uint64_t from, to;     /* bytes that are expected to be written so; none: from == to */
    uint64_t room_to;      /* room is held from `from` up to here */
    bool touched;          /* ... or that has been tried at least */
    bool making;           /* of more room */
    unsigned in_flight;    /* writes */
    struct co_queue changed;
    unsigned users;        /* gatherings under way */
    struct { char *buffer; uint64_t room; } spare[8]; /* buffers, kept while there are users */
    unsigned spares;
};
void io_past_cache_init(struct io_past_cache *p);
/* Carries the gathering out; its result is returned. */
int co_io_past_cache(const struct io_engine *engine, struct io_past_cache *p, struct io_gathering *g);
void io_past_cache_expect(struct io_past_cache *p, uint64_t from, uint64_t to);
void co_io_past_cache_expect_end(const struct io_engine *engine, struct io_past_cache *p, int fd, uint64_t end);

/* io-join.c: runs that are small, and often next to each other. */
#define IO_JOIN_MAX (256 * 1024)
struct io_join {
    TAILQ_HEAD(io_joined_list, io_joined) waiting;
    bool collecting;       /* one of them cuts all into runs in the next turn */
};
void io_join_init(struct io_join *j);
/* As co_io_past_cache(), perhaps with others.  -EOPNOTSUPP when they are too small together. */
int co_io_join(const struct io_engine *engine, struct io_join *j, struct io_past_cache *p, const struct io_gathering *g);

/* Buffered writes reach the page cache in pieces of this size (io-host.c). */
#define IO_WRITE_UNIT (64 * 1024u)

/* One run out of memory and of what the page cache has of other files. */
struct io_assembly {
    const struct io_host_piece *pieces;
    int n, dst;
    uint64_t dst_off, len;
    bool fresh; /* nothing was ever written there */

    struct io_room_request room; /* made first, if .room is set */

    int result; /* 0; -EAGAIN: the page cache does not have it; an error */
    bool holes; /* something was left out */
};
void io_assemble_run(void *arg);

/* io-host-cached.c */
#define IO_INLINE_MAX (256 * 1024) /* bytes of one such read: 30 us of copying */
/* What the page cache has right now: a count (0: end of the file), or negative when it must be asked properly.  *refused: never
 * on this file. */
ssize_t co_io_host_read_cached(int fd, bool *refused, uint64_t offset, const struct iovec *iov, int n, size_t size);

/* io-host-names.c; as struct io_engine's members of the same names. */
int co_io_host_sync_dir(const struct io_engine *engine, const char *path_in_dir);
int co_io_host_unlink(const struct io_engine *engine, const char *path);
int co_io_host_rename(const struct io_engine *engine, const char *from, const char *to);
bool io_host_exists(const struct io_engine *engine, const char *path);

/* io-host-places.c; as struct io_engine's working_dir. */
char *io_host_working_dir(const struct io_engine *engine);

struct io_loading {
    const char *path;

    int result;
    char *text;
    size_t len;
};
void io_load_run(void *arg);

#endif
