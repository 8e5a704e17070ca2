/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of any alignment on files that take whole blocks only (IO_DIRECT).
 *
 * What is aligned goes straight through.  The rest passes a buffer of ours; a write that begins or
 * ends inside a block reads that block, changes its part, and writes it back:
 *
 *     file    |  block  |  block  |  block  |
 *     request       [=============]
 *     buffer  |rrrrr====|=========|===rrrrrr|        r: read first, written back unchanged
 *
 * Writing back what was read would undo whatever else happened to these bytes in between.  So
 * changes in flight are kept in a list, and a read-modify-write has its blocks for itself
 * (`exclusive`).  At the end of the file it has everything from its first block on: it makes the
 * file longer than it should be and cuts it back, which must not hit somebody else's extension.
 */
#include "core/io-engine.h"

#include <errno.h>

#include "core/bytes.h"

#define BUFFER_MAX (1024 * 1024)

/* --- Who changes what ------------------------------------------------------------------------- */

static struct io_direct_range *in_the_way(struct io_file *file, const struct io_direct_range *range)
{
    struct io_direct_range *other;

    LIST_FOREACH(other, &file->direct, link) {
        if ((range->exclusive || other->exclusive) && other->start < range->end &&
            range->start < other->end) {
            return other;
        }
    }
    return NULL;
}

void co_io_direct_begin(struct io_file *file, struct io_direct_range *range, uint64_t start,
                        uint64_t end, bool exclusive)
{
    struct io_direct_range *other;

    range->start = start;
    range->end = end;
    range->exclusive = exclusive;
    co_queue_init(&range->waiters);
    while ((other = in_the_way(file, range))) {
        co_queue_wait(&other->waiters);
    }
    LIST_INSERT_HEAD(&file->direct, range, link);
}

void io_direct_end(struct io_direct_range *range)
{
    LIST_REMOVE(range, link);
    co_queue_wake_all(&range->waiters);
}

/* --- Transfers -------------------------------------------------------------------------------- */

static bool list_aligned(const struct iovec *iov, int n, unsigned align)
{
    uintptr_t bits = 0;

    for (int i = 0; i < n; i++) {
        bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    }
    return !(bits & (align - 1));
}

/* Where the piece that begins at `at` ends: on a block boundary, but for the last one. */
static uint64_t piece_end(const struct io_file *file, uint64_t at, uint64_t end)
{
    return MIN(end, ROUND_DOWN(at, file->align) + BUFFER_MAX);
}

static int co_plain(struct io_file *file, uint64_t offset, void *buf, size_t len, bool write)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };

    return co_io_transfer(file, offset, &iov, 1, write);
}

static int co_read_unaligned(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                             char *buf)
{
    uint64_t end = offset + iov_size(iov, n);
    uint64_t at, next;

    for (at = offset; at < end; at = next) {
        next = piece_end(file, at, end);
        uint64_t first = ROUND_DOWN(at, file->align);
        uint64_t last = ROUND_UP(next, file->align);
        int ret = co_plain(file, first, buf, last - first, false);

        if (ret) {
            return ret;
        }
        iov_from_buf(iov, n, at - offset, buf + (at - first), next - at);
    }
    return 0;
}

/* Fill the parts of the buffer [first, last) that lie outside of [at, next) from the file. */
static int co_read_edges(struct io_file *file, uint64_t first, uint64_t at, uint64_t next,
                         uint64_t last, char *buf)
{
    unsigned align = file->align;
    int ret = 0;

    if (at > first) {
        ret = co_plain(file, first, buf, align, false);
    }
    if (!ret && next < last && (at == first || last - align > first)) {
        ret = co_plain(file, last - align, buf + (last - align - first), align, false);
    }
    return ret;
}

static int co_write_pieces(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                           char *buf)
{
    uint64_t end = offset + iov_size(iov, n);
    uint64_t at, next;

    for (at = offset; at < end; at = next) {
        next = piece_end(file, at, end);
        uint64_t first = ROUND_DOWN(at, file->align);
        uint64_t last = ROUND_UP(next, file->align);
        int ret = co_read_edges(file, first, at, next, last, buf);

        if (ret) {
            return ret;
        }
        iov_to_buf(iov, n, at - offset, buf + (at - first), next - at);
        ret = co_plain(file, first, buf, last - first, true);
        if (ret) {
            return ret;
        }
    }
    return 0;
}

static int co_write_unaligned(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                              char *buf)
{
    uint64_t end = offset + iov_size(iov, n);
    uint64_t first = ROUND_DOWN(offset, file->align);
    uint64_t last = ROUND_UP(end, file->align);
    struct io_direct_range range;
    uint64_t size;
    int ret, cut;

    co_io_direct_begin(file, &range, first, last, first != offset || last != end);
    ret = file->engine->co_size(file, &size);
    if (!ret && last > size && last != end) {
        io_direct_end(&range);
        co_io_direct_begin(file, &range, first, UINT64_MAX, true);
        ret = file->engine->co_size(file, &size);
    }
    if (!ret) {
        ret = co_write_pieces(file, offset, iov, n, buf);
        if (last > MAX(size, end)) {
            cut = file->engine->co_truncate(file, MAX(size, end));
            ret = ret ? ret : cut;
        }
    }
    io_direct_end(&range);
    return ret;
}

int co_io_direct_transfer(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                          bool write)
{
    size_t len = iov_size(iov, n);
    bool whole_blocks = !((offset | len) & (file->align - 1));
    struct io_direct_range range;
    int ret;

    if (!whole_blocks || !list_aligned(iov, n, file->align)) {
        size_t room = MIN(ROUND_UP(len, file->align) + file->align, (size_t)BUFFER_MAX);
        AUTOFREE char *buf = mem_align(file->align, MAX(room, (size_t)file->align));

        return write ? co_write_unaligned(file, offset, iov, n, buf)
                     : co_read_unaligned(file, offset, iov, n, buf);
    }
    if (!write) {
        return co_io_transfer(file, offset, iov, n, false);
    }
    co_io_direct_begin(file, &range, offset, offset + len, false);
    ret = co_io_transfer(file, offset, iov, n, true);
    io_direct_end(&range);
    return ret;
}
