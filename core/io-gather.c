/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front of co_io_gather(): one run of a file out of many pieces.  A back end that can does it in one step; else the
 * pieces are copied and written one after the other.
 */
#include "core/io-engine.h"

#include <errno.h>
#include <limits.h>

static bool host_can_gather(const struct io_piece *pieces, int n, const struct io_file *dst)
{
    if (!dst->engine->co_gather || dst->align != 1) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        const struct io_file *file = pieces[i].file;

        if (file && (file->align != 1 || file->engine->co_gather != dst->engine->co_gather)) {
            return false;
        }
    }
    return true;
}

static int co_one(const struct io_piece *piece, struct io_file *dst, uint64_t dst_off)
{
    return piece->file ? co_io_copy(piece->file, piece->offset, dst, dst_off, piece->len)
                       : co_io_write(dst, dst_off, piece->mem, piece->len);
}

int co_io_gather(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off)
{
    int ret = -EOPNOTSUPP;

    if (!io_file_writable(dst)) {
        return -EBADF;
    }
    if ((n > 1 || !pieces->file) && host_can_gather(pieces, n, dst)) { /* one range is co_io_copy()'s */
        ret = dst->engine->co_gather(pieces, n, dst, dst_off);
    }
    if (ret != -EOPNOTSUPP) {
        io_stats.copies += ret == 0;
        for (int i = 0; i < n && ret == 0; i++) {
            io_stats.bytes_copied += pieces[i].len;
        }
        return ret;
    }
    ret = 0;
    for (int i = 0; i < n && ret == 0; i++) {
        ret = co_one(&pieces[i], dst, dst_off);
        dst_off += pieces[i].len;
    }
    return ret;
}

bool io_can_assemble(const struct io_file *dst)
{
    return dst->engine->co_assemble && dst->align == 1;
}

int co_io_assemble(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off, bool fresh)
{
    uint64_t len = 0;
    int ret;

    if (!io_can_assemble(dst) || n > IOV_MAX) {
        return -EAGAIN;
    }
    for (int i = 0; i < n; i++) {
        const struct io_file *file = pieces[i].file;

        if (file && (file->align != 1 || file->engine->co_assemble != dst->engine->co_assemble)) {
            return -EAGAIN;
        }
        len += pieces[i].len;
    }
    if (!io_file_writable(dst)) {
        return -EBADF;
    }
    ret = dst->engine->co_assemble(pieces, n, dst, dst_off, fresh);
    if (ret == 0) {
        io_stats.writes++;
        io_stats.bytes_written += len;
    }
    return ret;
}

void io_expect(struct io_file *file, uint64_t from, uint64_t to)
{
    if (file->engine->expect) {
        file->engine->expect(file, from, to);
    }
}

void co_io_expect_end(struct io_file *file, uint64_t end)
{
    if (file->engine->co_expect_end) {
        file->engine->co_expect_end(file, end);
    }
}
