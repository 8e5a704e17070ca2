/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The I/O engine's front: see io.h for what callers get, io-engine.h for what back ends give.  Here
 * the one becomes the other: whole transfers out of short ones, zeroes by whatever way the host
 * has, copies by reading and writing where need be, and the memory of what must not be forgotten (a
 * failed flush, held locks).
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "core/bytes.h"

#define COPY_BUFFER (1024 * 1024)
#define ZERO_BUFFER (64 * 1024)
#define ZERO_BUFFERS_PER_WRITE 16

struct io_stats io_stats;
void (*io_site_hook)(const struct io_site *site);

/* A call that a signal interrupted is made again. */
#define UNINTERRUPTED(call) \
    ({ \
        int ret_; \
        do { \
            ret_ = (call); \
        } while (ret_ == -EINTR); \
        ret_; \
    })

/* --- Files ------------------------------------------------------------------------------------ */

int co_io_open(const struct io_engine *engine, const char *path, unsigned flags,
               struct io_file **out)
{
    struct io_file *file;
    int ret;

    engine = engine ? engine : io_engine_find(NULL);
    ret = UNINTERRUPTED(engine->co_open(engine, path, flags, &file));
    if (ret) {
        return ret;
    }
    assert(file->align && !(file->align & (file->align - 1)));
    file->engine = engine;
    file->path = mem_strdup(path);
    file->flags = flags;
    file->lock_shared = IO_PERM_ALL;
    LIST_INIT(&file->direct);
    *out = file;
    return 0;
}

void co_io_close(struct io_file *file)
{
    assert(LIST_EMPTY(&file->direct));
    file->engine->co_close(file);
    free(file->path);
    free(file);
}

int co_io_reopen(struct io_file *file, unsigned flags)
{
    int ret;

    assert(!(flags & (IO_CREATE | IO_EXCL | IO_TRUNC)));
    ret = UNINTERRUPTED(file->engine->co_reopen(file, flags));
    if (!ret) {
        file->flags = flags;
        file->no_zero = file->no_punch = false;
    }
    return ret;
}

bool io_file_same(const struct io_file *a, const struct io_file *b)
{
    return a->id[0] == b->id[0] && a->id[1] == b->id[1];
}

const char *io_file_path(const struct io_file *file)
{
    return file->path;
}

bool io_file_is_device(const struct io_file *file)
{
    return file->id[0] == 0;
}

bool io_file_writable(const struct io_file *file)
{
    return file->flags & IO_RDWR;
}

unsigned io_file_alignment(const struct io_file *file)
{
    return file->align;
}

int co_io_size(struct io_file *file, uint64_t *size)
{
    return UNINTERRUPTED(file->engine->co_size(file, size));
}

int co_io_allocated(struct io_file *file, uint64_t *bytes)
{
    return UNINTERRUPTED(file->engine->co_allocated(file, bytes));
}

int io_file_lock(struct io_file *file, unsigned used, unsigned shared, unsigned *bad,
                 bool *bad_shared)
{
    int ret = UNINTERRUPTED(file->engine->lock(file, used, shared, bad, bad_shared));

    if (!ret) {
        file->lock_used = used;
        file->lock_shared = shared;
    }
    return ret;
}

/* --- Transfers -------------------------------------------------------------------------------- */

/* The host counts bytes of files in 63 bits. */
static int check_range(uint64_t offset, uint64_t len)
{
    return offset > INT64_MAX || len > INT64_MAX - offset ? -EFBIG : 0;
}

static int check_change(const struct io_file *file, uint64_t offset, uint64_t len)
{
    return io_file_writable(file) ? check_range(offset, len) : -EBADF;
}

/* What is left of a list after `done` bytes, in *rest (allocated once, as long as the list). */
static int list_rest(struct iovec **rest, const struct iovec *iov, int n, size_t done, size_t len)
{
    if (!*rest) {
        *rest = mem_calloc(n, sizeof(**rest));
    }
    return iov_slice(*rest, iov, n, done, len - done);
}

int co_io_transfer(struct io_file *file, uint64_t offset, const struct iovec *iov, int n,
                   bool write)
{
    const struct io_engine *engine = file->engine;
    AUTOFREE struct iovec *rest = NULL;
    const struct iovec *list = iov;
    size_t len = iov_size(iov, n);
    size_t done = 0;
    int count = n;
    ssize_t ret;

    while (done < len) {
        ret = write ? engine->co_write(file, offset + done, list, MIN(count, IOV_MAX))
                    : engine->co_read(file, offset + done, list, MIN(count, IOV_MAX));
        if (ret == -EINTR) {
            continue;
        }
        if (ret < 0) {
            return ret;
        }
        if (!ret && write) {
            return -EIO; /* a host that neither writes nor says why: do not ask for ever */
        }
        done += ret;
        if (!write && done < len && (!ret || (done & (file->align - 1)))) {
            /* The end of the file; with IO_DIRECT also when a read stopped inside of a block. */
            iov_memset(iov, n, done, 0, len - done);
            break;
        }
        if (done < len) {
            count = list_rest(&rest, iov, n, done, len);
            list = rest;
        }
    }
    return 0;
}

static int co_any(struct io_file *file, uint64_t offset, const struct iovec *iov, int n, bool write)
{
    return file->align == 1 ? co_io_transfer(file, offset, iov, n, write)
                            : co_io_direct_transfer(file, offset, iov, n, write);
}

int co_io_readv(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    size_t len = iov_size(iov, n);
    int ret = check_range(offset, len);

    if (ret || !len) {
        return ret;
    }
    io_stats.reads++;
    io_stats.bytes_read += len;
    return co_any(file, offset, iov, n, false);
}

int co_io_writev(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    size_t len = iov_size(iov, n);
    int ret = check_change(file, offset, len);

    if (ret || !len) {
        return ret;
    }
    io_stats.writes++;
    io_stats.bytes_written += len;
    return co_any(file, offset, iov, n, true);
}

int co_io_read(struct io_file *file, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };

    return co_io_readv(file, offset, &iov, 1);
}

int co_io_write(struct io_file *file, uint64_t offset, const void *buf, size_t len)
{
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };

    return co_io_writev(file, offset, &iov, 1);
}

int co_io_flush(struct io_file *file)
{
    int ret;

    io_stats.flushes++;
    ret = UNINTERRUPTED(file->engine->co_flush(file));
    if (ret && !file->flush_error) {
        file->flush_error = ret;
    }
    return file->flush_error;
}

/* An error is told once per open file, so it is kept for the flush that it belongs to. */
void co_io_write_out(struct io_file *file)
{
    int ret = file->engine->co_write_out ? file->engine->co_write_out(file) : 0;

    if (ret && !file->flush_error) {
        file->flush_error = ret;
    }
}

void co_io_make_room(struct io_file *file, uint64_t bytes)
{
    if (file->engine->co_make_room) {
        file->engine->co_make_room(file, bytes);
    }
}

void co_io_give_room_back(struct io_file *file)
{
    if (file->engine->co_give_room_back) {
        file->engine->co_give_room_back(file);
    }
}

/* --- Ranges ----------------------------------------------------------------------------------- */

/* One operation of the back end on a range, announced to unaligned writers.  -EOPNOTSUPP: try
 * another way. */
static int co_range(struct io_file *file, enum io_range how, uint64_t offset, uint64_t len)
{
    bool *never = how == IO_RANGE_ZERO    ? &file->no_zero
                  : how == IO_RANGE_PUNCH ? &file->no_punch
                                          : NULL;
    struct io_direct_range range;
    int ret;

    if (never && *never) {
        return -EOPNOTSUPP;
    }
    if (file->align > 1) {
        co_io_direct_begin(file, &range, offset, offset + len, false);
    }
    ret = UNINTERRUPTED(file->engine->co_range(file, how, offset, len));
    if (file->align > 1) {
        io_direct_end(&range);
    }
    if (never && ret == -EOPNOTSUPP) {
        *never = true;
    }
    return ret == -EINVAL ? -EOPNOTSUPP : ret;
}

static int co_write_zeroes(struct io_file *file, uint64_t offset, uint64_t len)
{
    static const char zeroes[ZERO_BUFFER] __attribute__((aligned(4096)));
    struct iovec iov[ZERO_BUFFERS_PER_WRITE];
    int ret = 0;

    while (len && !ret) {
        uint64_t left = len;
        int n = 0;

        for (; left && n < ZERO_BUFFERS_PER_WRITE; n++) {
            iov[n].iov_base = (void *)zeroes;
            iov[n].iov_len = MIN(left, (uint64_t)ZERO_BUFFER);
            left -= iov[n].iov_len;
        }
        ret = co_any(file, offset, iov, n, true);
        offset += len - left;
        len = left;
    }
    return ret;
}

/* Make the file end at `size` or later.  Not by truncating: somebody else's write may just have
 * extended it further. */
static int co_extend(struct io_file *file, uint64_t size)
{
    uint64_t now;
    int ret = co_io_size(file, &now);

    if (ret || now >= size) {
        return ret;
    }
    ret = co_range(file, IO_RANGE_ZERO, size - 1, 1);
    return ret == -EOPNOTSUPP ? co_write_zeroes(file, size - 1, 1) : ret;
}

int co_io_zero(struct io_file *file, uint64_t offset, uint64_t len, bool unmap)
{
    int ret = check_change(file, offset, len);

    if (ret || !len) {
        return ret;
    }
    io_stats.zeroes++;
    if (unmap) {
        ret = co_range(file, IO_RANGE_PUNCH, offset, len);
        if (ret != -EOPNOTSUPP) {
            return ret ? ret : co_extend(file, offset + len);
        }
    }
    ret = co_range(file, IO_RANGE_ZERO, offset, len);
    if (ret == -EOPNOTSUPP && !co_range(file, IO_RANGE_PUNCH, offset, len)) {
        ret = co_range(file, IO_RANGE_ALLOCATE, offset, len);
    }
    return ret == -EOPNOTSUPP ? co_write_zeroes(file, offset, len) : ret;
}

int co_io_discard(struct io_file *file, uint64_t offset, uint64_t len)
{
    int ret = check_change(file, offset, len);

    if (ret || !len) {
        return ret;
    }
    io_stats.discards++;
    return file->engine->co_discard ? file->engine->co_discard(file, offset, len)
                                    : co_range(file, IO_RANGE_PUNCH, offset, len);
}

int co_io_allocate(struct io_file *file, uint64_t offset, uint64_t len)
{
    int ret = check_change(file, offset, len);

    return ret || !len ? ret : co_range(file, IO_RANGE_ALLOCATE, offset, len);
}

int co_io_truncate(struct io_file *file, uint64_t size)
{
    struct io_direct_range range;
    int ret = check_change(file, size, 0);

    if (ret) {
        return ret;
    }
    if (file->align > 1) {
        co_io_direct_begin(file, &range, 0, UINT64_MAX, false);
    }
    ret = UNINTERRUPTED(file->engine->co_truncate(file, size));
    if (file->align > 1) {
        io_direct_end(&range);
    }
    return ret;
}

int co_io_map(struct io_file *file, uint64_t offset, uint64_t *len, bool *data)
{
    uint64_t asked = *len, size;
    int ret = check_range(offset, asked);

    if (ret || !asked) {
        return ret ? ret : -EINVAL;
    }
    ret = UNINTERRUPTED(file->engine->co_map(file, offset, len, data));
    if (ret == -EOPNOTSUPP) {
        ret = co_io_size(file, &size);
        if (!ret) {
            *data = offset < size;
            *len = *data ? MIN(asked, size - offset) : asked;
        }
    }
    assert(ret || (*len && *len <= asked));
    return ret;
}

/* --- Copies ----------------------------------------------------------------------------------- */

/* One buffer's worth by reading and writing; returns the bytes copied. */
static ssize_t co_copy_through_us(struct io_file *src, uint64_t src_off, struct io_file *dst,
                                  uint64_t dst_off, uint64_t len)
{
    size_t part = MIN(len, (uint64_t)COPY_BUFFER);
    AUTOFREE char *buf = mem_align(4096, part);
    struct iovec iov = { .iov_base = buf, .iov_len = part };
    int ret = co_any(src, src_off, &iov, 1, false);

    ret = ret ? ret : co_any(dst, dst_off, &iov, 1, true);
    return ret ? ret : (ssize_t)part;
}

/* The engines on real files are one family: they share the function. */
static bool host_can_copy(const struct io_file *src, const struct io_file *dst)
{
    return src->engine->co_copy && src->engine->co_copy == dst->engine->co_copy &&
           src->align == 1 && dst->align == 1;
}

int co_io_copy(struct io_file *src, uint64_t src_off, struct io_file *dst, uint64_t dst_off,
               uint64_t len)
{
    bool by_host = host_can_copy(src, dst);
    int bad = check_range(src_off, len);
    uint64_t done = 0;

    bad = bad ? bad : check_change(dst, dst_off, len);
    if (bad || !len) {
        return bad;
    }
    io_stats.copies++;
    io_stats.bytes_copied += len;
    while (done < len) {
        uint64_t from = src_off + done, to = dst_off + done, left = len - done;
        ssize_t ret = by_host ? dst->engine->co_copy(src, from, dst, to, left)
                              : co_copy_through_us(src, from, dst, to, left);

        if (ret == -EOPNOTSUPP && by_host) {
            by_host = false;
        } else if (ret < 0 && ret != -EINTR) {
            return ret;
        } else if (!ret) {
            return co_io_zero(dst, to, left, false); /* beyond the end of src */
        } else if (ret > 0) {
            done += ret;
        }
    }
    return 0;
}

/* --- Names ------------------------------------------------------------------------------------ */

int co_io_sync_dir(const char *path_in_dir)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return UNINTERRUPTED(engine->co_sync_dir(engine, path_in_dir));
}

int co_io_unlink(const char *path)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return UNINTERRUPTED(engine->co_unlink(engine, path));
}

int co_io_rename(const char *from, const char *to)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return UNINTERRUPTED(engine->co_rename(engine, from, to));
}

bool io_exists(const char *path)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return engine->exists(engine, path);
}

char *io_working_dir(void)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return engine->working_dir(engine);
}

int co_io_load(const char *path, char **out, size_t *len)
{
    const struct io_engine *engine = io_engine_find(NULL);

    return UNINTERRUPTED(engine->co_load(engine, path, out, len));
}

/* --- Work ------------------------------------------------------------------------------------- */

void co_io_work(void (*fn)(void *arg), void *arg)
{
    struct io_call call = { .op = IO_CALL_FN, .fn = fn, .arg = arg, .bulk = true };

    if (loop_is_virtual()) {
        co_io_virtual_call(&call);
    } else {
        co_io_pool_call(&call);
    }
}
