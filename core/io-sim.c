/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated disk as a back end of the I/O engine: see io-sim.h for the model, io-engine.h for
 * the contract.
 *
 * Every operation has the same shape: begin (number, faults, time), put what it will do in flight,
 * wait, and unless the process or the power went meanwhile let it happen, end (hook).  An operation
 * happens at one instant, when it completes; only a cut can catch it half-way.
 */
#include "core/io-sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/io-sim-disk.h"

#define SECTOR 512u

#define DIRECT_ALIGN 512u

static struct sim_handle *handle_of(struct io_file *io)
{
    return CONTAINER_OF(io, struct sim_handle, io);
}

/* Begin an operation on an open file.  -EIO when its process is dead. */
static int begin(struct sim_request *r, struct sim_handle *h, enum io_sim_op op, uint64_t offset,
                 uint64_t len, uint64_t bytes)
{
    if (h->generation != sim_generation) {
        return -EIO;
    }
    sim_request_begin(r, op, &h->file->path, offset, len, bytes);
    return 0;
}

/* An operation that does nothing but take its time and fail. */
static int64_t co_fail(struct sim_request *r, int error)
{
    int ret = co_sim_request_wait(r);

    return sim_request_end(r, ret ? ret : error);
}

/* Carry out the change that `op` describes; takes the caller's reference over. */
static int64_t co_change(struct sim_request *r, struct sim_file *file, struct sim_op *op,
                         int64_t result)
{
    int ret;

    op = sim_lie_change(r, file, op);
    if (!op) {
        ret = co_sim_request_wait(r);
        return sim_request_end(r, ret ? ret : result);
    }
    sim_op_fly(file, op);
    ret = co_sim_request_wait(r);
    if (!ret) {
        sim_op_land(file, op);
    }
    sim_op_unref(op);
    return sim_request_end(r, ret ? ret : result);
}

/* --- Room on the medium ----------------------------------------------------------------------- */

/* Blocks that are neither held nor wanted by operations in flight. */
static uint64_t room(void)
{
    uint64_t taken = sim_world_held(sim_world);
    const struct sim_file *file;

    LIST_FOREACH(file, &sim_world->files, link) {
        for (size_t i = 0; i < file->flying.n; i++) {
            const struct sim_op *op = file->flying.op[i];

            if (op->kind != IO_SIM_PUNCH) {
                taken += sim_pages_missing(file->now.pages, op->offset, op->len);
            }
        }
    }
    return MAX(sim_quota / SIM_BLOCK_SIZE, taken) - taken;
}

/* How much of a write to [offset, offset + len) fits: all, or whole blocks less. */
static uint64_t that_fits(const struct sim_file *file, uint64_t offset, uint64_t len)
{
    uint64_t blocks = sim_quota ? room() : UINT64_MAX;

    while (len && blocks != UINT64_MAX &&
           sim_pages_missing(file->now.pages, offset, len) > blocks) {
        uint64_t end = ROUND_DOWN(offset + len - 1, SIM_BLOCK_SIZE);

        len = end > offset ? end - offset : 0;
    }
    return len;
}

/* --- Transfers -------------------------------------------------------------------------------- */

/* A part of a transfer, at least one unit of the file's alignment and less than all where that can
 * be. */
static uint64_t shortened(uint64_t unit, uint64_t len)
{
    uint64_t units = DIV_ROUND_UP(len, unit);

    return units < 2 ? len : (1 + loop_random_below(units - 1)) * unit;
}

/* Of a change whole sectors: a sector is one thing for a power cut, too. */
static uint64_t shortened_change(const struct io_file *io, uint64_t len)
{
    return shortened(MAX(io->align, SECTOR), len);
}

static ssize_t co_sim_read(struct io_file *io, uint64_t offset, const struct iovec *iov, int n)
{
    struct sim_handle *h = handle_of(io);
    const struct sim_content *now = &h->file->now;
    struct sim_request r;
    uint64_t len = iov_size(iov, n);
    uint64_t done = 0;
    int ret = begin(&r, h, IO_SIM_READ, offset, len, len);

    if (ret) {
        return ret;
    }
    assert(!(offset % io->align) && !(len % io->align));
    ret = co_sim_request_wait(&r);
    if (ret) {
        sim_lie_read(&r, 0, NULL, 0, 0);
        return sim_request_end(&r, ret);
    }
    len = r.shorten ? shortened(io->align, len) : len;
    len = offset < now->size ? MIN(len, now->size - offset) : 0;
    for (int i = 0; i < n && done < len; i++) {
        uint64_t piece = MIN(iov[i].iov_len, len - done);

        sim_pages_read(now->pages, offset + done, iov[i].iov_base, piece);
        done += piece;
    }
    sim_lie_read(&r, offset, iov, n, len);
    return sim_request_end(&r, len);
}

static ssize_t co_sim_write(struct io_file *io, uint64_t offset, const struct iovec *iov, int n)
{
    struct sim_handle *h = handle_of(io);
    struct sim_request r;
    uint64_t len = iov_size(iov, n);
    int ret = begin(&r, h, IO_SIM_WRITE, offset, len, len);

    if (ret) {
        return ret;
    }
    assert(!(offset % io->align) && !(len % io->align));
    len = that_fits(h->file, offset, r.shorten ? shortened_change(io, len) : len);
    if (r.error || !len) {
        return co_fail(&r, -ENOSPC);
    }
    struct sim_op *op = sim_op_new(IO_SIM_WRITE, offset, len, true);

    iov_to_buf(iov, n, 0, op->data, len);
    return co_change(&r, h->file, op, len);
}

static ssize_t co_sim_copy(struct io_file *src_io, uint64_t src_off, struct io_file *dst_io,
                           uint64_t dst_off, uint64_t len)
{
    struct sim_handle *src = handle_of(src_io);
    struct sim_handle *dst = handle_of(dst_io);
    const struct sim_content *from = &src->file->now;
    struct sim_request r;

    if (src->generation != sim_generation || begin(&r, dst, IO_SIM_COPY, dst_off, len, len)) {
        return -EIO;
    }
    len = src_off < from->size ? MIN(len, from->size - src_off) : 0;
    if (r.error || !len) {
        return co_fail(&r, 0);
    }
    len = that_fits(dst->file, dst_off, r.shorten ? shortened_change(dst_io, len) : len);
    if (!len) {
        return co_fail(&r, -ENOSPC);
    }
    struct sim_op *op = sim_op_new(IO_SIM_COPY, dst_off, len, true);

    sim_pages_read(from->pages, src_off, op->data, len);
    return co_change(&r, dst->file, op, len);
}

/* A range may be far larger than the medium: that is seen without counting it. */
static bool has_room(const struct sim_pages *pages, uint64_t offset, uint64_t len)
{
    uint64_t blocks = sim_quota ? room() : 0;

    return !sim_quota || (len / SIM_BLOCK_SIZE <= blocks + sim_pages_held(pages) &&
                          sim_pages_missing(pages, offset, len) <= blocks);
}

static int co_sim_range(struct io_file *io, enum io_range how, uint64_t offset, uint64_t len)
{
    static const enum io_sim_op kinds[] = {
        [IO_RANGE_ZERO] = IO_SIM_ZERO,
        [IO_RANGE_PUNCH] = IO_SIM_PUNCH,
        [IO_RANGE_ALLOCATE] = IO_SIM_ALLOCATE,
    };
    struct sim_handle *h = handle_of(io);
    struct sim_request r;
    int ret = begin(&r, h, kinds[how], offset, len, 0);

    if (ret) {
        return ret;
    }
    if (r.error || (how != IO_RANGE_PUNCH && !has_room(h->file->now.pages, offset, len))) {
        return co_fail(&r, -ENOSPC);
    }
    return co_change(&r, h->file, sim_op_new(kinds[how], offset, len, false), 0);
}

static int co_sim_truncate(struct io_file *io, uint64_t size)
{
    struct sim_handle *h = handle_of(io);
    struct sim_request r;
    int ret = begin(&r, h, IO_SIM_TRUNCATE, size, 0, 0);

    if (ret) {
        return ret;
    }
    if (r.error) {
        return co_fail(&r, 0);
    }
    return co_change(&r, h->file, sim_op_new(IO_SIM_TRUNCATE, size, 0, false), 0);
}

static int co_sim_flush(struct io_file *io)
{
    struct sim_handle *h = handle_of(io);
    struct sim_request r;
    uint64_t mark = sim_flush_mark(h->file);
    int ret = begin(&r, h, IO_SIM_FLUSH, 0, 0, 0);

    if (ret) {
        return ret;
    }
    ret = co_sim_request_wait(&r);
    if (!ret || (r.drop && !sim_request_stale(&r))) {
        sim_flush(h->file, mark, r.drop);
    }
    return sim_request_end(&r, ret);
}

/* --- What only looks -------------------------------------------------------------------------- */

static int co_sim_map(struct io_file *io, uint64_t offset, uint64_t *len, bool *data)
{
    struct sim_handle *h = handle_of(io);
    const struct sim_content *now = &h->file->now;
    struct sim_request r;
    int ret = begin(&r, h, IO_SIM_MAP, offset, *len, 0);

    if (ret) {
        return ret;
    }
    ret = co_sim_request_wait(&r);
    if (!ret && offset >= now->size) {
        *data = false;
    } else if (!ret) {
        *data = sim_pages_map(now->pages, offset, len);
        /* The last block is data as a whole, but the file ends within it. */
        *len = *data ? MIN(*len, now->size - offset) : *len;
    }
    return sim_request_end(&r, ret);
}

static int co_sim_size(struct io_file *io, uint64_t *size)
{
    struct sim_handle *h = handle_of(io);

    *size = h->file->now.size;
    return h->generation == sim_generation ? sim_fault_now(IO_SIM_SIZE, h->file->path) : -EIO;
}

static int co_sim_allocated(struct io_file *io, uint64_t *bytes)
{
    struct sim_handle *h = handle_of(io);

    *bytes = sim_pages_held(h->file->now.pages) * SIM_BLOCK_SIZE;
    return h->generation == sim_generation ? sim_fault_now(IO_SIM_SIZE, h->file->path) : -EIO;
}

static int sim_lock(struct io_file *io, unsigned used, unsigned shared, unsigned *bad,
                    bool *bad_shared)
{
    struct sim_handle *me = handle_of(io);
    const struct sim_handle *h;
    unsigned unshared_there = 0, used_there = 0;
    int ret = sim_fault_now(IO_SIM_LOCK, me->file->path);

    *bad = 0;
    *bad_shared = false;
    if (ret) {
        return ret;
    }
    LIST_FOREACH(h, &me->file->handles, link) {
        if (h != me && h->generation == sim_generation) {
            used_there |= h->io.lock_used;
            unshared_there |= IO_PERM_ALL & ~h->io.lock_shared;
        }
    }
    *bad_shared = !(used & unshared_there);
    unsigned conflict = *bad_shared ? used_there & ~shared : used & unshared_there;

    *bad = conflict & -conflict; /* the lowest: they are looked at in this order */
    return conflict ? -EAGAIN : 0;
}

/* --- Names ------------------------------------------------------------------------------------ */

static unsigned align_of(unsigned flags)
{
    return flags & IO_DIRECT ? DIRECT_ALIGN : 1;
}

/* The part of open that changes something, at the instant it completes. */
static int open_now(const char *path, unsigned flags, struct sim_file **out)
{
    struct sim_file *file = sim_find(sim_world, path);

    if (!strcmp(path, "/")) {
        return -EISDIR;
    }
    if (file && flags & IO_CREATE && flags & IO_EXCL) {
        return -EEXIST;
    }
    if (!file && !(flags & IO_CREATE)) {
        return -ENOENT;
    }
    if (!file) {
        file = sim_create(sim_world, path, false);
    } else if (flags & IO_TRUNC) {
        sim_op_cache(file, sim_op_new(IO_SIM_TRUNCATE, 0, 0, false));
    }
    *out = file;
    return 0;
}

static int co_sim_open(const struct io_engine *engine, const char *path, unsigned flags,
                       struct io_file **out)
{
    AUTOFREE char *name = sim_path(path);
    struct sim_request r;
    struct sim_file *file;
    int ret;

    sim_request_begin(&r, IO_SIM_OPEN, &name, 0, 0, 0);
    ret = co_sim_request_wait(&r);
    ret = ret ? ret : open_now(name, flags, &file);
    if (ret) {
        return sim_request_end(&r, ret);
    }
    struct sim_handle *h = mem_zalloc(sizeof(*h));

    h->file = file;
    file->refs++;
    h->generation = sim_generation;
    h->io.align = align_of(flags);
    h->io.id[0] = UINT64_MAX;
    h->io.id[1] = file->id;
    h->io.lock_shared = IO_PERM_ALL;
    LIST_INSERT_HEAD(&file->handles, h, link);
    *out = &h->io;
    return sim_request_end(&r, 0);
}

static void co_sim_close(struct io_file *io)
{
    struct sim_handle *h = handle_of(io);

    LIST_REMOVE(h, link);
    sim_file_unref(h->file);
}

static int co_sim_reopen(struct io_file *io, unsigned flags)
{
    struct sim_request r;
    int ret = begin(&r, handle_of(io), IO_SIM_OPEN, 0, 0, 0);

    if (ret) {
        return ret;
    }
    ret = co_sim_request_wait(&r);
    if (!ret) {
        io->align = align_of(flags);
    }
    return sim_request_end(&r, ret);
}

static int co_sim_sync_dir(const struct io_engine *engine, const char *path_in_dir)
{
    AUTOFREE char *path = sim_path(path_in_dir);
    uint64_t order = sim_world->dirops_issued;
    struct sim_request r;
    int ret;

    sim_request_begin(&r, IO_SIM_SYNC_DIR, &path, 0, 0, 0);
    ret = co_sim_request_wait(&r);
    if (!ret) {
        sim_sync_dir(sim_world, path, order);
    }
    return sim_request_end(&r, ret);
}

static int co_sim_unlink(const struct io_engine *engine, const char *name)
{
    AUTOFREE char *path = sim_path(name);
    struct sim_request r;
    int ret;

    sim_request_begin(&r, IO_SIM_UNLINK, &path, 0, 0, 0);
    ret = co_sim_request_wait(&r);
    ret = ret ? ret : sim_find(sim_world, path) ? 0 : -ENOENT;
    if (!ret) {
        sim_unlink(sim_world, path, false);
    }
    return sim_request_end(&r, ret);
}

static int co_sim_rename(const struct io_engine *engine, const char *from, const char *to)
{
    AUTOFREE char *old_path = sim_path(from);
    AUTOFREE char *new_path = sim_path(to);
    struct sim_request r;
    int ret;

    sim_request_begin(&r, IO_SIM_RENAME, &old_path, 0, 0, 0);
    ret = co_sim_request_wait(&r);
    ret = ret ? ret : sim_find(sim_world, old_path) ? 0 : -ENOENT;
    if (!ret) {
        sim_rename(sim_world, old_path, new_path);
    }
    return sim_request_end(&r, ret);
}

/* It has names only, as if all were in the root. */
static char *sim_working_dir(const struct io_engine *engine)
{
    return sim_fault_now(IO_SIM_SIZE, "/") ? NULL : mem_strdup("/");
}

static bool sim_exists(const struct io_engine *engine, const char *name)
{
    AUTOFREE char *path = sim_path(name);

    return !sim_fault_now(IO_SIM_SIZE, path) && sim_find(sim_world, path);
}

static int co_sim_load(const struct io_engine *engine, const char *name, char **out, size_t *len)
{
    AUTOFREE char *path = sim_path(name);
    struct sim_request r;
    int ret;

    sim_request_begin(&r, IO_SIM_LOAD, &path, 0, 0, 0);
    ret = co_sim_request_wait(&r);
    if (ret) {
        return sim_request_end(&r, ret);
    }
    const struct sim_file *file = sim_find(sim_world, path);

    if (!file) {
        return sim_request_end(&r, -ENOENT);
    }
    *len = file->now.size;
    *out = mem_alloc(*len + 1);
    sim_pages_read(file->now.pages, 0, *out, *len);
    (*out)[*len] = '\0';
    return sim_request_end(&r, 0);
}

static const struct io_engine engine = {
    .name = "sim",
    .co_open = co_sim_open,
    .co_close = co_sim_close,
    .co_reopen = co_sim_reopen,
    .co_read = co_sim_read,
    .co_write = co_sim_write,
    .co_flush = co_sim_flush,
    .co_range = co_sim_range,
    .co_copy = co_sim_copy,
    .co_map = co_sim_map,
    .co_truncate = co_sim_truncate,
    .co_size = co_sim_size,
    .co_allocated = co_sim_allocated,
    .lock = sim_lock,
    .co_sync_dir = co_sim_sync_dir,
    .co_unlink = co_sim_unlink,
    .co_rename = co_sim_rename,
    .exists = sim_exists,
    .working_dir = sim_working_dir,
    .co_load = co_sim_load,
};

void io_sim_init(void)
{
    assert(!sim_world);
    sim_world = sim_world_new();
    io_sim_reset();
    io_engine_register(&engine);
}

void io_sim_fini(void)
{
    io_sim_reset();
    io_engine_unregister(&engine);
    sim_world_free(sim_world);
    sim_world = NULL;
}
