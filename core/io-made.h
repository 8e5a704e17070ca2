/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that the program makes itself: an io_file whose operations are somebody's functions.
 *
 * Whoever works on an io_file (a format on its file, the copier on its sources) thereby works on whatever stands in for
 * the host: a filter, a part of another file, nothing at all.  The front's promises (core/io.h) hold here as
 * for every back end.
 */
#ifndef CORE_IO_MADE_H
#define CORE_IO_MADE_H

#include "core/io.h"

/* All may suspend, take whole requests in bytes and return 0 or a negative errno.  None may be missing. */
struct io_made_ops {
    int (*co_read)(void *arg, uint64_t offset, const struct iovec *iov, int n); /* inside [0, size) */
    int (*co_write)(void *arg, uint64_t offset, const struct iovec *iov, int n);
    int (*co_flush)(void *arg);
    /* Reads as zeroes from then on; with `unmap` space may be given back. */
    int (*co_zero)(void *arg, uint64_t offset, uint64_t len, bool unmap);
    int (*co_discard)(void *arg, uint64_t offset, uint64_t len);
    int (*co_truncate)(void *arg, uint64_t size);
    int (*co_size)(void *arg, uint64_t *size);
    int (*co_allocated)(void *arg, uint64_t *bytes);
};

/* `below` may be NULL: the file in which its bytes lie, to which it is "the same" (io_file_same()) and whose locks it has. */
struct io_file *io_file_make(const struct io_made_ops *ops, void *arg, const struct io_file *below);
/* Another file lies below from now on. */
void io_file_made_below(struct io_file *file, const struct io_file *below);
/* Nothing is in flight. */
void io_file_unmake(struct io_file *file);

#endif
