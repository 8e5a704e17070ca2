/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying between two real files on a worker thread: the part of a merge that takes the time.
 *
 * Four ways, the best first; each can refuse, which is remembered for the pair, and then the next
 * one goes on where it stopped:
 *
 *     share        the target's file system refers to the source's extents (XFS, Btrfs): nothing moves
 *     past_cache   O_DIRECT from the source's pages: no page of the target is made; a run may also come from
 *                  many places at once (io-past-cache.c)
 *     in_kernel    copy_file_range(): a server copies (NFS), else through the page cache
 *     by_buffer    pread, pwrite
 *
 * 2 GiB whose source is in the page cache, units of 2 MiB, two workers, ext4, Linux 6.18, virtual
 * machine with two processors, seconds until fdatasync() has returned (medians of 4; the machine was
 * not idle, so compare the lines only):
 *
 *     past the page cache                                            0.49
 *     copy_file_range(), sync_file_range() after each piece          0.95
 *     past the page cache, then read back into it                    1.24
 *     copy_file_range()                                              1.66
 *
 * Nearly all of what the others spend is the making of the target's pages (0.3 s of processor time a
 * GiB, under the file's own lock, so two workers are no faster than one), and then they have to be
 * written back.  Past the cache a merge also leaves the guest its working set and its processor.  The
 * price: what a guest reads of the target next comes from the disk once.
 */
#include "core/io-host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/mem.h"

#define PAGE 4096u
#define BUFFER_SIZE (128 * 1024) /* stays in the second-level cache between read and write */
#define MAP_MIN (128 * 1024)     /* below, reading a piece is cheaper than mapping it */

/* --- What was refused ------------------------------------------------------------------------- */

enum { REFUSED_SHARE = 1, REFUSED_DIRECT = 2, REFUSED_KERNEL = 4, REFUSED_BITS = 3 };

/* One word, so that workers never mix one source's answers with another's. */
static unsigned refused_by(struct io_copy_memory *memory, uint64_t src_dev)
{
    uint64_t word = atomic_load(&memory->refused);

    return word >> REFUSED_BITS == src_dev ? word & ((1u << REFUSED_BITS) - 1) : 0;
}

static unsigned refused_before(const struct io_copy *c)
{
    return refused_by(c->memory, c->src_dev);
}

bool io_copy_refuses_to_share(struct io_copy_memory *memory, uint64_t src_dev)
{
    return refused_by(memory, src_dev) & REFUSED_SHARE;
}

static void remember(const struct io_copy *c, unsigned way)
{
    atomic_store(&c->memory->refused, c->src_dev << REFUSED_BITS | refused_before(c) | way);
}

static bool is_refusal(int err)
{
    return err == EXDEV || err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL ||
           err == EPERM || err == ETXTBSY || err == EBADF;
}

/* --- The ways --------------------------------------------------------------------------------- */

/* Goes on at *done and moves it.  0: all is done, or the source's end was met; a negative errno; 1: another way
 * should carry on. */
typedef int copy_way(const struct io_copy *c, uint64_t *done);

static int share(const struct io_copy *c, uint64_t *done)
{
    struct file_clone_range range = {
        .src_fd = c->src, .src_offset = c->src_off, .src_length = c->len, .dest_offset = c->dst_off,
    };

    if ((c->src_off | c->dst_off | c->len) % PAGE) {
        return 1;
    }
    if (ioctl(c->dst, FICLONERANGE, &range) < 0) {
        if (is_refusal(errno) && errno != EINVAL) { /* EINVAL may be about this range only */
            remember(c, REFUSED_SHARE);
        }
        return 1;
    }
    *done = c->len;
    return 0;
}

/* The same file once more, past the page cache; *align is what it asks of offsets and lengths.  -1: cannot. */
static int open_direct(int fd, uint64_t *align)
{
#ifdef STATX_DIOALIGN
    struct statx stx;
    char self[64];

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) || !(stx.stx_mask & STATX_DIOALIGN) ||
        !stx.stx_dio_offset_align || stx.stx_dio_mem_align > PAGE) {
        return -1;
    }
    *align = stx.stx_dio_offset_align;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    return open(self, O_RDWR | O_DIRECT | O_CLOEXEC | O_NOCTTY);
#else
    return -1;
#endif
}

static bool is_mapped(const struct io_host_piece *p)
{
    return p->fd >= 0 && p->len >= MAP_MIN && !(p->offset % PAGE);
}

static bool is_in_place(const struct io_host_piece *p)
{
    return p->fd < 0 && !((uintptr_t)p->mem % PAGE);
}

/* The source must have all of it, and be another file than the target: the kernel would look at pages of a file
 * whose lock it holds. */
static bool is_sound(const struct io_host_piece *p, const struct stat *dst)
{
    struct stat st;

    return p->fd < 0 || (!fstat(p->fd, &st) && S_ISREG(st.st_mode) && p->offset + p->len <= (uint64_t)st.st_size &&
                         (st.st_dev != dst->st_dev || st.st_ino != dst->st_ino));
}

static bool fill_buffer(char *at, const struct io_host_piece *p)
{
    uint64_t done = 0;

    if (p->fd < 0) {
        memcpy(at, p->mem, p->len);
        return true;
    }
    while (done < p->len) {
        ssize_t got = pread(p->fd, at + done, p->len - done, p->offset + done);

        if (got <= 0 && !(got < 0 && errno == EINTR)) {
            return false; /* the other ways find out what is wrong */
        }
        done += MAX(got, 0);
    }
    return true;
}

/* The pages are looked up here rather than by the write, which holds the file's lock meanwhile.  What cannot be read is found
 * out there. */
static void populate(void *at, uint64_t len)
{
#ifdef MADV_POPULATE_READ
    madvise(at, len, MADV_POPULATE_READ);
#endif
}

/* Mapped where that is cheap, else read into the buffer, from `*used` on. */
static bool put_piece(struct io_gathering *g, int i, uint64_t *used)
{
    const struct io_host_piece *p = &g->pieces[i];
    void *at = (void *)p->mem;

    if (is_mapped(p)) {
        at = mmap(NULL, p->len, PROT_READ, MAP_SHARED, p->fd, p->offset);
        if (at == MAP_FAILED) {
            return false;
        }
        posix_fadvise(p->fd, p->offset, p->len, POSIX_FADV_WILLNEED); /* if it is cold: in one go */
        populate(at, p->len);
    } else if (!is_in_place(p)) {
        at = g->buffer + *used;
        *used += p->len;
        if (!fill_buffer(at, p)) {
            return false;
        }
    }
    g->iov[i] = (struct iovec){ .iov_base = at, .iov_len = p->len };
    return true;
}

static void give_back(struct io_gathering *g, int n)
{
    for (int i = 0; i < n; i++) {
        if (is_mapped(&g->pieces[i])) {
            munmap(g->iov[i].iov_base, g->iov[i].iov_len);
        }
    }
    free(g->iov);
}

static bool put_together(struct io_gathering *g, uint64_t align)
{
    uint64_t room = 0, used = 0;
    struct stat st;
    int i;

    if (fstat(g->dst, &st) || g->dst_off % align || g->n > IOV_MAX) {
        return false;
    }
    for (i = 0; i < g->n; i++) {
        if (g->pieces[i].len % align || !is_sound(&g->pieces[i], &st)) {
            return false;
        }
        room += is_mapped(&g->pieces[i]) || is_in_place(&g->pieces[i]) ? 0 : g->pieces[i].len;
    }
    g->iov = mem_calloc(g->n, sizeof(*g->iov));
    if (room > g->room) {
        free(g->buffer);
        g->buffer = mem_align(PAGE, room);
        g->room = room;
    }
    for (i = 0; i < g->n && put_piece(g, i, &used); i++) {
    }
    if (i < g->n) {
        give_back(g, i);
    }
    return i == g->n;
}

/* EFAULT: a page of a source could not be read (no signal is raised for it); EINVAL: not the alignment that was
 * promised.  What was written short is rare, and written again another way. */
int io_gather_judge(const struct io_gathering *g, ssize_t ret)
{
    if (ret == (ssize_t)g->len) {
        return 0;
    }
    return ret >= 0 || ret == -EFAULT || ret == -EINVAL ? -EOPNOTSUPP : ret;
}

/* Nothing is kept open or mapped from one run to the next: that costs 10 us in 500. */
void io_gather_begin(void *arg)
{
    struct io_gathering *g = arg;
    uint64_t align;

    g->iov = NULL;
    g->direct = open_direct(g->dst, &align);
    g->result = g->direct < 0 ? -ENOSYS : put_together(g, align) ? 0 : -EOPNOTSUPP;
    if (g->result == -EOPNOTSUPP) {
        close(g->direct);
    }
}

void io_gather_end(void *arg)
{
    struct io_gathering *g = arg;

    give_back(g, g->n);
    close(g->direct);
}

static void gather_run(struct io_gathering *g)
{
    ssize_t ret;

    io_gather_begin(g);
    if (g->result == 0) {
        do {
            ret = pwritev(g->direct, g->iov, g->n, g->dst_off);
        } while (ret < 0 && errno == EINTR);
        g->result = io_gather_judge(g, ret < 0 ? -errno : ret);
        io_gather_end(g);
    }
    free(g->buffer);
}

/* As much of one range as there is in whole units. */
static int past_cache(const struct io_copy *c, uint64_t *done)
{
    struct io_host_piece piece = { .fd = c->src, .offset = c->src_off };
    struct io_gathering g = { .pieces = &piece, .n = 1, .dst = c->dst, .dst_off = c->dst_off };
    struct stat st;

    if (fstat(c->src, &st) || c->src_off >= (uint64_t)st.st_size) {
        return 1;
    }
    piece.len = g.len = ROUND_DOWN(MIN(c->len, (uint64_t)st.st_size - c->src_off), (uint64_t)PAGE);
    if (piece.len < IO_DIRECT_MIN) {
        return 1;
    }
    gather_run(&g);
    if (g.result == -ENOSYS) {
        remember(c, REFUSED_DIRECT);
    }
    *done = g.result == 0 ? piece.len : 0;
    return *done < c->len;
}

static int in_kernel(const struct io_copy *c, uint64_t *done)
{
    off_t src_off = c->src_off + *done, dst_off = c->dst_off + *done;

    while (*done < c->len) {
        ssize_t ret = copy_file_range(c->src, &src_off, c->dst, &dst_off, c->len - *done, 0);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret < 0 && is_refusal(errno)) {
            remember(c, REFUSED_KERNEL);
            return 1;
        }
        if (ret <= 0) { /* 0 is the end, says the kernel; some said so wrongly, a read is the judge */
            return ret < 0 ? -errno : 1;
        }
        *done += ret;
    }
    return 0;
}

static int write_all(int fd, const char *buf, size_t len, uint64_t offset)
{
    size_t done = 0;

    while (done < len) {
        ssize_t ret = pwrite(fd, buf + done, len - done, offset + done);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret <= 0) {
            return ret < 0 ? -errno : -EIO;
        }
        done += ret;
    }
    return 0;
}

static int by_buffer(const struct io_copy *c, uint64_t *done)
{
    AUTOFREE char *buf = mem_align(PAGE, BUFFER_SIZE);

    while (*done < c->len) {
        size_t want = MIN(c->len - *done, (uint64_t)BUFFER_SIZE);
        ssize_t got = pread(c->src, buf, want, c->src_off + *done);
        int ret;

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? -errno : 0;
        }
        ret = write_all(c->dst, buf, got, c->dst_off + *done);
        if (ret < 0) {
            return ret;
        }
        *done += got;
    }
    return 0;
}

void io_copy_run(void *arg)
{
    static const struct {
        unsigned refused;
        copy_way *way;
    } ways[] = {
        { REFUSED_SHARE, share }, { REFUSED_DIRECT, past_cache }, { REFUSED_KERNEL, in_kernel },
        { 0, by_buffer },
    };
    struct io_copy *c = arg;
    uint64_t done = 0;
    int ret = 1;

    for (size_t i = 0; ret > 0; i++) {
        ret = refused_before(c) & ways[i].refused ? 1 : ways[i].way(c, &done);
    }
    c->result = ret < 0 ? ret : (ssize_t)done;
}
