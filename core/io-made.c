/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A back end of functions: see io-made.h.
 *
 * Names mean nothing to it, so files are not opened but made, and it is in no list of engines.  It cannot copy, so the
 * front reads and writes; and it holds no locks, as whatever lies below has its own.
 */
#include "core/io-made.h"

#include <assert.h>
#include <errno.h>

#include "core/bytes.h"
#include "core/io-engine.h"

struct made {
    struct io_file f;
    const struct io_made_ops *ops;
    void *arg;
};

static struct made *made_of(struct io_file *file)
{
    return (struct made *)file;
}

/* The functions take what lies inside; the front fills up what does not with zeroes. */
static ssize_t co_made_read(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    struct made *m = made_of(file);
    AUTOFREE struct iovec *part = NULL;
    uint64_t size, len = iov_size(iov, n);
    int ret = m->ops->co_size(m->arg, &size);

    if (ret < 0) {
        return ret;
    }
    if (offset >= size) {
        return 0;
    }
    if (len > size - offset) {
        len = size - offset;
        part = mem_calloc(n, sizeof(*part));
        n = iov_slice(part, iov, n, 0, len);
        iov = part;
    }
    ret = m->ops->co_read(m->arg, offset, iov, n);
    return ret < 0 ? ret : (ssize_t)len;
}

static ssize_t co_made_write(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    struct made *m = made_of(file);
    int ret = m->ops->co_write(m->arg, offset, iov, n);

    return ret < 0 ? ret : (ssize_t)iov_size(iov, n);
}

/* What failed is remembered by the file below, if there is one, and not here as well. */
static int co_made_flush(struct io_file *file)
{
    int ret = made_of(file)->ops->co_flush(made_of(file)->arg);

    file->flush_error = 0;
    return ret;
}

static int co_made_range(struct io_file *file, enum io_range how, uint64_t offset, uint64_t len)
{
    struct made *m = made_of(file);

    return how == IO_RANGE_ALLOCATE ? -EOPNOTSUPP : m->ops->co_zero(m->arg, offset, len, how == IO_RANGE_PUNCH);
}

static int co_made_discard(struct io_file *file, uint64_t offset, uint64_t len)
{
    return made_of(file)->ops->co_discard(made_of(file)->arg, offset, len);
}

static int co_made_map(struct io_file *file, uint64_t offset, uint64_t *len, bool *data)
{
    return -EOPNOTSUPP;
}

static int co_made_truncate(struct io_file *file, uint64_t size)
{
    return made_of(file)->ops->co_truncate(made_of(file)->arg, size);
}

static int co_made_size(struct io_file *file, uint64_t *size)
{
    return made_of(file)->ops->co_size(made_of(file)->arg, size);
}

static int co_made_allocated(struct io_file *file, uint64_t *bytes)
{
    return made_of(file)->ops->co_allocated(made_of(file)->arg, bytes);
}

static int made_lock(struct io_file *file, unsigned used, unsigned shared, unsigned *bad, bool *bad_shared)
{
    return 0;
}

static const struct io_engine engine = {
    .name = "made",
    .co_read = co_made_read,
    .co_write = co_made_write,
    .co_flush = co_made_flush,
    .co_range = co_made_range,
    .co_discard = co_made_discard,
    .co_map = co_made_map,
    .co_truncate = co_made_truncate,
    .co_size = co_made_size,
    .co_allocated = co_made_allocated,
    .lock = made_lock,
};

void io_file_made_below(struct io_file *file, const struct io_file *below)
{
    static uint64_t serial;

    file->id[0] = below ? below->id[0] : UINT64_MAX - 1;
    file->id[1] = below ? below->id[1] : ++serial;
    free(file->path);
    file->path = mem_strdup(below ? below->path : "");
}

struct io_file *io_file_make(const struct io_made_ops *ops, void *arg, const struct io_file *below)
{
    struct made *m = mem_zalloc(sizeof(*m));

    *m = (struct made){ .ops = ops, .arg = arg };
    m->f.align = 1;
    m->f.engine = &engine;
    io_file_made_below(&m->f, below);
    m->f.flags = IO_RDWR; /* whether it may be written is the maker's business */
    m->f.lock_shared = IO_PERM_ALL;
    LIST_INIT(&m->f.direct);
    return &m->f;
}

void io_file_unmake(struct io_file *file)
{
    assert(LIST_EMPTY(&file->direct));
    free(file->path);
    free(file);
}
