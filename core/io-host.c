/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real files: what a back end does (io-engine.h), as system calls.
 *
 * Each call is described in a struct io_call and given to the engine's carrier (the ring, the pool,
 * the virtual clock); the three engines on real files are this file with another carrier.  Calls
 * that only look at memory of the kernel (fstat, fcntl locks) are made on the spot.
 *
 * Reads first ask the page cache, on the loop's thread (io-host-cached.c).
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/io-host.h"

struct host_file {
    struct io_file io;
    int fd;
    bool block_device;
    bool no_nowait;       /* the file system has no RWF_NOWAIT */
    struct io_past_cache past;
    struct io_join join;        /* small runs past the cache */
    struct io_room room;
    struct io_copy_memory copy; /* what copying into this file has taught us */
    struct io_lane lane;  /* writes through the page cache */
    struct io_lane copies; /* small ones into this file: so that no guest's write is behind many of them */
};

static struct host_file *host(const struct io_file *file)
{
    return CONTAINER_OF(file, struct host_file, io);
}

/* --- Carrying out ----------------------------------------------------------------------------- */

static ssize_t result(ssize_t ret)
{
    return ret < 0 ? -errno : ret;
}

/*
 * A write through the page cache makes the cache's pages as large as itself (ext4 and XFS on recent kernels), and on
 * ext4 each later write of 4 KiB visits all blocks of the page it touches: 0.8 us in pages of 4 KiB, 1.8 in 32 KiB, 3.3
 * in 64 to 256 KiB, 19 in 2 MiB.  Small pages cost more when they are made.
 */
static ssize_t write_in_units(const struct io_call *call)
{
    AUTOFREE struct iovec *unit = mem_calloc(call->n, sizeof(*unit));
    uint64_t done = 0;

    while (done < call->len) {
        uint64_t at = call->offset + done, len = MIN(call->len - done, IO_WRITE_UNIT - at % IO_WRITE_UNIT);
        int n = iov_slice(unit, call->iov, call->n, done, len);
        ssize_t ret = pwritev(call->fd, unit, n, at);

        if (ret < 0 && !done) {
            return -errno;
        }
        done += MAX(ret, 0);
        if (ret != (ssize_t)len) {
            break; /* whoever asks for the rest is told why */
        }
    }
    return done;
}

void io_call_run(struct io_call *call)
{
    switch (call->op) {
    case IO_CALL_READ:
        call->result = result(preadv(call->fd, call->iov, call->n, call->offset));
        break;
    case IO_CALL_WRITE:
        call->result = call->lane && call->len > IO_WRITE_UNIT ? write_in_units(call)
                                                            : result(pwritev(call->fd, call->iov, call->n, call->offset));
        break;
    case IO_CALL_FLUSH:
        call->result = result(fdatasync(call->fd));
        break;
    case IO_CALL_FALLOCATE:
        call->result = result(fallocate(call->fd, call->mode, call->offset, call->len));
        break;
    case IO_CALL_FN:
        call->fn(call->arg);
        call->result = 0;
        break;
    }
}

/* Whatever is not one of the ring's operations: fn(arg) on the carrier. */
static void co_carry_fn(const struct io_engine *engine, void (*fn)(void *), void *arg)
{
    struct io_call call = { .op = IO_CALL_FN, .fn = fn, .arg = arg };

    engine->co_carry(&call);
}

/* --- Data ------------------------------------------------------------------------------------- */

static ssize_t co_host_read(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    struct host_file *f = host(file);
    size_t size = iov_size(iov, n);
    bool direct = file->align > 1;
    ssize_t ret = -EAGAIN;

    if (file->engine->inline_reads && !direct && !f->no_nowait && size <= IO_INLINE_MAX) {
        ret = co_io_host_read_cached(f->fd, &f->no_nowait, offset, iov, n, size);
    }
    if (ret < 0) {
        struct io_call call = {
            .op = IO_CALL_READ, .fd = f->fd, .offset = offset, .iov = iov, .n = n, .len = size,
            .big = !direct && size > IO_INLINE_MAX,
        };

        ret = file->engine->co_carry(&call);
    }
    return ret;
}

/*
 * Writes are never made on the loop's thread.  4 KiB into the page cache of ext4 take 1 us, but RWF_NOWAIT is
 * refused for buffered writes (EOPNOTSUPP), and without it one in 10,000 takes 50 to 130 us and some 350
 * us beside an fdatasync, on a disk that answers in 15 us; on one that takes milliseconds, so would the loop.
 *
 * For that refusal the ring hands them to the kernel's workers, which costs 20 us each one at a time: our own
 * do it better.
 */
static ssize_t co_host_write(struct io_file *file, uint64_t offset, const struct iovec *iov, int n)
{
    size_t size = iov_size(iov, n);
    struct io_call call = {
        .op = IO_CALL_WRITE, .fd = host(file)->fd, .offset = offset, .iov = iov, .n = n,
        .len = size, .lane = file->align == 1 ? &host(file)->lane : NULL,
    };

    return file->engine->co_carry(&call);
}

static struct io_host_piece host_piece(const struct io_piece *p)
{
    return (struct io_host_piece){
        .fd = p->file ? host(p->file)->fd : -1, .offset = p->offset, .mem = p->mem, .len = p->len,
    };
}

/* In the file's lane, as any write.  Where the host cannot say what its cache has, it is not asked. */
static int co_host_assemble(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off,
                            bool fresh)
{
    AUTOFREE struct io_host_piece *list = mem_calloc(n, sizeof(*list));
    struct io_assembly a = {
        .pieces = list, .n = n, .dst = host(dst)->fd, .dst_off = dst_off, .fresh = fresh,
    };
    struct io_call call = { .op = IO_CALL_FN, .fn = io_assemble_run, .arg = &a, .lane = &host(dst)->lane };

    for (int i = 0; i < n; i++) {
        const struct io_file *file = pieces[i].file;

        if (file && host(file)->no_nowait) {
            return -EAGAIN;
        }
        list[i] = host_piece(&pieces[i]);
        a.len += pieces[i].len;
    }
    if (fresh && host(dst)->past.from == host(dst)->past.to) { /* a copy has made room, and making more would wait for its writes */
        io_room_ask(&host(dst)->room, a.dst, dst_off + a.len, &a.room);
    }
    dst->engine->co_carry(&call);
    io_room_answered(&host(dst)->room, &a.room, fresh && a.result == 0 && !a.holes ? a.len : 0);
    return a.result;
}

static int co_host_flush(struct io_file *file)
{
    struct io_call call = { .op = IO_CALL_FLUSH, .fd = host(file)->fd };

    return file->engine->co_carry(&call);
}

struct writing_out {
    int fd, result;
};

static void write_out_run(void *arg)
{
    struct writing_out *w = arg;
    unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

    w->result = result(sync_file_range(w->fd, 0, 0, all));
}

static int co_host_write_out(struct io_file *file)
{
    struct writing_out w = { .fd = host(file)->fd };
    struct io_call call = { .op = IO_CALL_FN, .fn = write_out_run, .arg = &w, .bulk = true };

    file->engine->co_carry(&call);
    return w.result == -EINVAL || w.result == -ENOSYS || w.result == -ESPIPE ? 0 : w.result;
}

/* Direct writes make a file longer under its own lock, with room or without. */
static void co_host_make_room(struct io_file *file, uint64_t bytes)
{
    if (file->align == 1) {
        co_io_room_make(file->engine, &host(file)->room, host(file)->fd, bytes);
    }
}

static void co_host_give_room_back(struct io_file *file)
{
    co_io_room_give_back(file->engine, &host(file)->room);
}

static int co_host_range(struct io_file *file, enum io_range how, uint64_t offset, uint64_t len)
{
    static const int modes[] = {
        [IO_RANGE_ZERO] = FALLOC_FL_ZERO_RANGE,
        [IO_RANGE_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        [IO_RANGE_ALLOCATE] = 0,
    };
    struct io_call call = {
        .op = IO_CALL_FALLOCATE, .fd = host(file)->fd, .mode = modes[how], .offset = offset,
        .len = len,
    };
    int ret = file->engine->co_carry(&call);

    return ret == -ENOSYS || ret == -ENODEV ? -EOPNOTSUPP : ret;
}

static int co_host_size(struct io_file *file, uint64_t *size)
{
    struct host_file *f = host(file);
    struct stat st;

    if (f->block_device) {
        return ioctl(f->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
    }
    if (fstat(f->fd, &st) < 0) {
        return -errno;
    }
    *size = st.st_size;
    return 0;
}

static int co_gather_or_join(struct io_file *dst, struct io_gathering *g)
{
    struct host_file *f = host(dst);

    return g->len > IO_JOIN_MAX ? co_io_past_cache(dst->engine, &f->past, g) : co_io_join(dst->engine, &f->join, &f->past, g);
}

/* Whole pages of one range, where sharing them is out of the question.  0: it has to be done another way. */
static ssize_t co_copy_past_cache(struct io_file *src, uint64_t src_off, struct io_file *dst, uint64_t dst_off,
                                  uint64_t len)
{
    struct io_host_piece piece = { .fd = host(src)->fd, .offset = src_off };
    struct io_gathering g = { .pieces = &piece, .n = 1, .dst = host(dst)->fd, .dst_off = dst_off };
    uint64_t size;
    int ret;

    if (!dst->engine->co_gather || !io_copy_refuses_to_share(&host(dst)->copy, src->id[0]) ||
        co_host_size(src, &size) < 0 || src_off >= size) {
        return 0;
    }
    piece.len = g.len = ROUND_DOWN(MIN(len, size - src_off), (uint64_t)4096);
    if (g.len == 0) {
        return 0;
    }
    ret = co_gather_or_join(dst, &g);
    return ret == -ENOSYS || ret == -EOPNOTSUPP ? 0 : ret < 0 ? ret : (ssize_t)g.len;
}

static ssize_t co_host_copy(struct io_file *src, uint64_t src_off, struct io_file *dst,
                            uint64_t dst_off, uint64_t len)
{
    struct io_copy copy = {
        .src = host(src)->fd, .dst = host(dst)->fd, .src_off = src_off, .dst_off = dst_off,
        .len = len, .src_dev = src->id[0], .memory = &host(dst)->copy,
    };
    struct io_call call = {
        .op = IO_CALL_FN, .fn = io_copy_run, .arg = &copy, .len = len, .bulk = true,
        .lane = len <= IO_DIRECT_MIN ? &host(dst)->copies : NULL,
    };
    ssize_t ret = co_copy_past_cache(src, src_off, dst, dst_off, len);

    if (ret == 0) {
        dst->engine->co_carry(&call);
        ret = copy.result;
    }
    return ret;
}

/* Worth its while only where it saves making the target's pages. */
static int co_host_gather(const struct io_piece *pieces, int n, struct io_file *dst, uint64_t dst_off)
{
    AUTOFREE struct io_host_piece *list = mem_calloc(n, sizeof(*list));
    struct io_gathering g = { .pieces = list, .n = n, .dst = host(dst)->fd, .dst_off = dst_off };
    int ret;

    for (int i = 0; i < n; i++) {
        const struct io_file *file = pieces[i].file;

        if (file && !io_copy_refuses_to_share(&host(dst)->copy, file->id[0])) {
            return -EOPNOTSUPP; /* co_io_copy() may move nothing at all, or will find that out */
        }
        list[i] = host_piece(&pieces[i]);
        g.len += pieces[i].len;
    }
    ret = co_gather_or_join(dst, &g);
    return ret == -ENOSYS ? -EOPNOTSUPP : ret;
}

static void host_expect(struct io_file *file, uint64_t from, uint64_t to)
{
    io_past_cache_expect(&host(file)->past, from, to);
}

static void co_host_expect_end(struct io_file *file, uint64_t end)
{
    co_io_past_cache_expect_end(file->engine, &host(file)->past, host(file)->fd, end);
}

struct map {
    int fd;
    uint64_t offset, len;
    bool data;
    int result;
};

static void map_run(void *arg)
{
    struct map *map = arg;
    off_t data = lseek(map->fd, map->offset, SEEK_DATA);
    off_t hole;

    map->result = 0;
    if (data < 0 && errno == ENXIO) {
        map->data = false; /* no data up to the end, or beyond the end */
    } else if (data < 0) {
        map->result = errno == EINVAL ? -EOPNOTSUPP : -errno;
    } else if ((uint64_t)data > map->offset) {
        map->data = false;
        map->len = MIN(map->len, (uint64_t)data - map->offset);
    } else {
        map->data = true;
        hole = lseek(map->fd, map->offset, SEEK_HOLE);
        if (hole > (off_t)map->offset) {
            map->len = MIN(map->len, (uint64_t)hole - map->offset);
        } else {
            /* It failed, or the file was changed in between: both leave us without knowledge. */
            map->result = hole < 0 && errno != ENXIO ? -errno : -EOPNOTSUPP;
        }
    }
}

static int co_host_map(struct io_file *file, uint64_t offset, uint64_t *len, bool *data)
{
    struct map map = { .fd = host(file)->fd, .offset = offset, .len = *len };

    co_carry_fn(file->engine, map_run, &map);
    if (!map.result) {
        *len = map.len;
        *data = map.data;
    }
    return map.result;
}

struct truncation {
    int fd;
    uint64_t size;
    int result;
};

static void truncate_run(void *arg)
{
    struct truncation *t = arg;

    t->result = result(ftruncate(t->fd, t->size));
}

static int co_host_truncate(struct io_file *file, uint64_t size)
{
    struct truncation t = { .fd = host(file)->fd, .size = size };

    co_carry_fn(file->engine, truncate_run, &t);
    return t.result;
}

static int co_host_allocated(struct io_file *file, uint64_t *bytes)
{
    struct stat st;

    if (host(file)->block_device) {
        return co_host_size(file, bytes);
    }
    if (fstat(host(file)->fd, &st) < 0) {
        return -errno;
    }
    *bytes = (uint64_t)st.st_blocks * 512;
    *bytes -= MIN(*bytes, io_room_unused(&host(file)->room, st.st_size, st.st_blksize));
    return 0;
}

static int host_lock(struct io_file *file, unsigned used, unsigned shared, unsigned *bad,
                     bool *bad_shared)
{
    return io_lock_fd(host(file)->fd, file->lock_used, file->lock_shared, used, shared, bad,
                      bad_shared);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static int co_host_open(const struct io_engine *engine, const char *path, unsigned flags,
                        struct io_file **out)
{
    struct io_opening o = { .path = path, .flags = flags, .old_fd = -1 };
    struct host_file *f;

    co_carry_fn(engine, io_open_run, &o);
    if (o.result) {
        return o.result;
    }
    f = mem_zalloc(sizeof(*f));
    io_past_cache_init(&f->past);
    io_join_init(&f->join);
    f->fd = o.fd;
    f->block_device = o.block_device;
    f->io.align = o.align;
    f->io.id[0] = o.dev;
    f->io.id[1] = o.ino;
    STAILQ_INIT(&f->lane.calls);
    STAILQ_INIT(&f->copies.calls);
    *out = &f->io;
    return 0;
}

static void close_run(void *arg)
{
    close(*(int *)arg);
}

/* Locks end with the last reference to the open file, and the kernel may hold one for a moment after the last request of
 * the ring: who opens the image next should not meet them. */
static void co_host_close(struct io_file *file)
{
    unsigned bad;
    bool bad_shared;

    co_host_give_room_back(file); /* while nobody else may write */
    if (file->lock_used || file->lock_shared != IO_PERM_ALL) {
        host_lock(file, 0, IO_PERM_ALL, &bad, &bad_shared);
    }
    co_carry_fn(file->engine, close_run, &host(file)->fd);
}

struct handover {
    int from, to;
    unsigned lock_used, lock_shared;
    int result;
};

/* Requests in flight keep the old open file alive for a while, and its marks with it: they would be seen as somebody
 * else's.  The new one has its own by now. */
static void handover_run(void *arg)
{
    struct handover *h = arg;
    bool bad_shared;
    unsigned bad;

    io_lock_fd(h->to, h->lock_used, h->lock_shared, 0, IO_PERM_ALL, &bad, &bad_shared);
    h->result = dup3(h->from, h->to, O_CLOEXEC) < 0 ? -errno : 0;
    if (h->result < 0) {
        io_lock_put(h->to, h->lock_used, h->lock_shared);
    }
    close(h->from);
}

/*
 * Two handles hold the same read locks for a moment; they do not exclude each other.  The number of the
 * descriptor stays what it was: requests that are on their way with it find the old file or the new one, never
 * none, and never what somebody else opened meanwhile.
 */
static int co_host_reopen(struct io_file *file, unsigned flags)
{
    struct host_file *f = host(file);
    struct io_opening o = {
        .path = file->path, .flags = flags, .old_fd = f->fd,
        .lock_used = file->lock_used, .lock_shared = file->lock_shared,
    };
    struct handover h = { .to = f->fd, .lock_used = file->lock_used, .lock_shared = file->lock_shared };

    co_carry_fn(file->engine, io_open_run, &o);
    if (o.result) {
        return o.result;
    }
    h.from = o.fd;
    co_carry_fn(file->engine, handover_run, &h);
    if (h.result == 0) {
        f->io.align = o.align;
    }
    return h.result;
}

/* --- Whole files ------------------------------------------------------------------------------ */

static int co_host_load(const struct io_engine *engine, const char *path, char **out, size_t *len)
{
    struct io_loading l = { .path = path };
    struct io_call call = { .op = IO_CALL_FN, .fn = io_load_run, .arg = &l, .bulk = true };

    engine->co_carry(&call);
    if (!l.result) {
        *out = l.text;
        *len = l.len;
    }
    return l.result;
}

/* --- The engines ------------------------------------------------------------------------------ */

#define HOST_ENGINE                                                                      \
    .co_open = co_host_open, .co_close = co_host_close, .co_reopen = co_host_reopen,     \
    .co_read = co_host_read, .co_write = co_host_write, .co_flush = co_host_flush,       \
    .co_range = co_host_range, .co_copy = co_host_copy, .co_map = co_host_map,           \
    .co_truncate = co_host_truncate, .co_size = co_host_size,                            \
    .co_allocated = co_host_allocated, .lock = host_lock,                                \
    .co_sync_dir = co_io_host_sync_dir, .co_unlink = co_io_host_unlink,                  \
    .co_rename = co_io_host_rename, .exists = io_host_exists,                            \
    .working_dir = io_host_working_dir, .co_load = co_host_load

const struct io_engine io_engine_threads = {
    .name = "threads", HOST_ENGINE, .co_carry = co_io_pool_call, .inline_reads = true,
    .co_gather = co_host_gather, .co_assemble = co_host_assemble, .expect = host_expect, .co_expect_end = co_host_expect_end,
    .co_write_out = co_host_write_out, .co_make_room = co_host_make_room, .co_give_room_back = co_host_give_room_back,
};

#ifdef CONFIG_IO_URING
const struct io_engine io_engine_uring = {
    .name = "io_uring", HOST_ENGINE, .co_carry = co_io_ring_call, .inline_reads = true,
    .co_gather = co_host_gather, .co_assemble = co_host_assemble, .expect = host_expect, .co_expect_end = co_host_expect_end,
    .co_write_out = co_host_write_out, .co_make_room = co_host_make_room, .co_give_room_back = co_host_give_room_back,
};
#endif

/* No gathering: whether it is done depends on the file system, and the same seed is to make the same calls on any. */
const struct io_engine io_engine_virtual = {
    .name = "virtual", HOST_ENGINE, .co_carry = co_io_virtual_call,
};
