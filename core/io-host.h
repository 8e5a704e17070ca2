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
