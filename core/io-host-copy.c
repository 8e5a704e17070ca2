/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying between two real files on a worker thread: the part of a merge that takes the time.
 *
 * Four ways, the best first; each can refuse, which is remembered for the pair, and then the next
 * one goes on where it stopped:
 *
 *     share        the target's file system refers to the source's extents (XFS, Btrfs): nothing moves
 *     past_cache   O_DIRECT from the source's pages: no page of the target is made
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
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/mem.h"

#define PAGE 4096u
#define BUFFER_SIZE (128 * 1024) /* stays in the second-level cache between read and write */
#define DIRECT_MIN (128 * 1024)  /* below, the disk's latency costs more than making the pages */

/* --- What was refused ------------------------------------------------------------------------- */

enum { REFUSED_SHARE = 1, REFUSED_DIRECT = 2, REFUSED_KERNEL = 4, REFUSED_BITS = 3 };

/* One word, so that workers never mix one source's answers with another's. */
static unsigned refused_before(const struct io_copy *c)
{
    uint64_t word = atomic_load(&c->memory->refused);

    return word >> REFUSED_BITS == c->src_dev ? word & ((1u << REFUSED_BITS) - 1) : 0;
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

/* Write what is mapped.  0 also when it stopped early: the other ways carry on and say why. */
static uint64_t write_mapped(int fd, const char *map, uint64_t len, uint64_t offset)
{
    uint64_t done = 0;

    while (done < len) {
        ssize_t ret = pwrite(fd, map + done, len - done, offset + done);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret <= 0) {
            break; /* EFAULT: a page of the source could not be read, and no signal is raised for it */
        }
        done += ret;
    }
    return done;
}

/* How much of the source there is to map: whole units of the target's alignment, not beyond the end.  Nothing of
 * the target itself: the kernel would look at a page of a file whose lock it holds. */
static uint64_t mappable(const struct io_copy *c, uint64_t align)
{
    struct stat st, target;
    uint64_t end;

    if (fstat(c->src, &st) < 0 || fstat(c->dst, &target) < 0 || !S_ISREG(st.st_mode) ||
        (st.st_dev == target.st_dev && st.st_ino == target.st_ino) || c->src_off % PAGE ||
        c->dst_off % align) {
        return 0;
    }
    end = MIN(c->src_off + c->len, (uint64_t)st.st_size);
    return end > c->src_off ? ROUND_DOWN(end - c->src_off, align) : 0;
}

/* Nothing is kept open or mapped from one piece to the next: that costs 10 us in 500. */
static int past_cache(const struct io_copy *c, uint64_t *done)
{
    uint64_t align, len;
    char *map;
    int fd;

    if (c->len < DIRECT_MIN) {
        return 1;
    }
    fd = open_direct(c->dst, &align);
    if (fd < 0) {
        remember(c, REFUSED_DIRECT);
        return 1;
    }
    len = mappable(c, align);
    map = len ? mmap(NULL, len, PROT_READ, MAP_SHARED, c->src, c->src_off) : MAP_FAILED;
    if (map != MAP_FAILED) {
        posix_fadvise(c->src, c->src_off, len, POSIX_FADV_WILLNEED); /* if it is cold: in one go */
        *done = write_mapped(fd, map, len, c->dst_off);
        munmap(map, len);
    }
    close(fd);
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
