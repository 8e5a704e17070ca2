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
#include <sys/types.h>

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

    int result; /* 0; -ENOSYS: the target takes no O_DIRECT; -EOPNOTSUPP: not this list; an error */
};
void io_gather_run(void *arg);

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
