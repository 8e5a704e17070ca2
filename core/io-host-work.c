/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Longer pieces of work on real files: opening, copying, loading.  All of it runs on a worker
 * thread (or on the virtual clock), touches nothing but its description, and blocks as it likes.
 */
#include "core/io-host.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io-engine.h"

/* --- Opening ---------------------------------------------------------------------------------- */

#define ALIGN_FALLBACK 4096 /* right for every disk whose own alignment nobody tells */

static int check_kind(const struct stat *st)
{
    if (S_ISDIR(st->st_mode)) {
        return -EISDIR;
    }
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode) ? 0 : -EINVAL;
}

static int open_flags(unsigned flags)
{
    int f = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

    f |= flags & IO_RDWR ? O_RDWR : O_RDONLY;
    f |= flags & IO_CREATE ? O_CREAT : 0;
    f |= flags & IO_EXCL ? O_EXCL : 0;
    f |= flags & IO_TRUNC ? O_TRUNC : 0;
    f |= flags & IO_DIRECT ? O_DIRECT : 0;
    return f;
}

static unsigned direct_alignment(int fd, bool block_device)
{
    int sector;
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) && (stx.stx_mask & STATX_DIOALIGN) &&
        stx.stx_dio_offset_align) {
        return MAX(stx.stx_dio_offset_align, stx.stx_dio_mem_align);
    }
#endif
    if (block_device && !ioctl(fd, BLKSSZGET, &sector)) {
        return sector;
    }
    return ALIGN_FALLBACK;
}

/* A second open of the file behind o->old_fd, whatever its name is by now. */
static int open_again(struct io_opening *o)
{
    char self[64];
    struct stat old, new;
    int fd;

    snprintf(self, sizeof(self), "/proc/self/fd/%d", o->old_fd);
    fd = open(self, open_flags(o->flags & (IO_RDWR | IO_DIRECT)));
    if (fd >= 0 || errno != ENOENT) {
        return fd < 0 ? -errno : fd;
    }
    /* No /proc: by name, if the name still leads to the same file. */
    fd = open(o->path, open_flags(o->flags & (IO_RDWR | IO_DIRECT)));
    if (fd < 0) {
        return -errno;
    }
    if (fstat(o->old_fd, &old) < 0 || fstat(fd, &new) < 0 || old.st_dev != new.st_dev ||
        old.st_ino != new.st_ino) {
        close(fd);
        return -ESTALE;
    }
    return fd;
}

/* Look before opening: to open some devices is to act on them.  Then open without waiting, look
 * again at what was really opened, and let later calls wait as usual (io_uring takes O_NONBLOCK at
 * its word for files, too). */
static int open_new(struct io_opening *o)
{
    struct stat st;
    int fd, ret;

    if (!stat(o->path, &st)) {
        ret = check_kind(&st);
        if (ret) {
            return ret;
        }
    }
    do {
        fd = open(o->path, open_flags(o->flags), 0644);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

void io_open_run(void *arg)
{
    struct io_opening *o = arg;
    int fd = o->old_fd >= 0 ? open_again(o) : open_new(o);
    struct stat st;
    int flags;

    if (fd < 0) {
        o->result = fd;
        return;
    }
    if (fstat(fd, &st) < 0 || (flags = fcntl(fd, F_GETFL)) < 0 ||
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        o->result = -errno;
    } else {
        o->result = check_kind(&st);
    }
    if (!o->result && o->old_fd >= 0) {
        o->result = io_lock_put(fd, o->lock_used, o->lock_shared);
    }
    if (o->result) {
        close(fd);
        return;
    }
    o->fd = fd;
    o->block_device = S_ISBLK(st.st_mode);
    o->align = o->flags & IO_DIRECT ? direct_alignment(fd, o->block_device) : 1;
    o->dev = o->block_device ? 0 : st.st_dev; /* a device has many names, on several file systems */
    o->ino = o->block_device ? st.st_rdev : st.st_ino;
}

/* --- Copying ---------------------------------------------------------------------------------- */

/*
 * Why copy_file_range() first: where the file system shares extents (XFS, Btrfs) or the server
 * copies (NFS), it moves no data at all, and elsewhere nothing is faster.  2 GiB from a warm page
 * cache into a new file on ext4 in units of 4 MiB (Linux 6.18, virtual machine with two processors;
 * the best of 4 to 10 runs, which differ by +-40 % from each other):
 *
 *                                        one worker      two workers
 *     copy_file_range()                  0.33 s          0.37 s
 *     pread, pwrite, 1 MiB buffer        0.49 s          0.40 s
 *     pread, pwrite, 128 KiB buffer      0.41 s          0.33 s
 *     mmap populated, pwrite             0.34 s          0.28 s
 *     mmap of the whole file, pwrite     0.61 s          0.52 s
 *
 * In processor time, means of 5: 0.45 s, 0.87 s (1 MiB), 0.55 s (128 KiB); qemu-img convert, which
 * reads and writes 2 MiB at a time, 0.80 s (and 0.24 to 0.9 s of time).
 * Nearly all of it is the making of new pages of the target.  mmap gains nothing that is worth its
 * costs: the loop's thread would wait for the address space's lock.
 */
#define COPY_BUFFER (128 * 1024) /* stays in the second-level cache between read and write */

static bool refusal(int err)
{
    return err == EXDEV || err == EOPNOTSUPP || err == ENOSYS || err == EINVAL || err == EPERM ||
           err == ETXTBSY || err == EBADF;
}

/* Returns the bytes copied so far, or a negative errno.  *more: the rest should be tried through a
 * buffer. */
static ssize_t copy_in_kernel(const struct io_copy *c, bool *more, bool *refused)
{
    off_t src_off = c->src_off, dst_off = c->dst_off;
    uint64_t done = 0;

    while (done < c->len) {
        ssize_t ret = copy_file_range(c->src, &src_off, c->dst, &dst_off, c->len - done, 0);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret < 0) {
            *more = *refused = refusal(errno);
            return *refused ? (ssize_t)done : -errno;
        }
        if (!ret) {
            *more = true; /* the end, says the kernel; some said so wrongly, a read is the judge */
            break;
        }
        done += ret;
    }
    return done;
}

static ssize_t write_all(int fd, const char *buf, size_t len, uint64_t offset)
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
    return done;
}

static ssize_t copy_through_buffer(const struct io_copy *c, uint64_t done)
{
    AUTOFREE char *buf = mem_align(4096, COPY_BUFFER);

    while (done < c->len) {
        size_t want = MIN(c->len - done, (uint64_t)COPY_BUFFER);
        ssize_t got = pread(c->src, buf, want, c->src_off + done);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? -errno : (ssize_t)done;
        }
        got = write_all(c->dst, buf, got, c->dst_off + done);
        if (got < 0) {
            return got;
        }
        done += got;
    }
    return done;
}

void io_copy_run(void *arg)
{
    struct io_copy *c = arg;
    bool refused = atomic_load(&c->memory->refused) &&
                   atomic_load(&c->memory->refused_dev) == c->src_dev;
    bool more = refused;
    ssize_t done = 0;

    if (!refused) {
        done = copy_in_kernel(c, &more, &refused);
        if (refused) {
            atomic_store(&c->memory->refused_dev, c->src_dev);
            atomic_store(&c->memory->refused, true);
        }
    }
    c->result = more ? copy_through_buffer(c, done) : done;
}

/* --- Loading ---------------------------------------------------------------------------------- */

#define LOAD_STEP 65536

/* Files and pipes (a script may come from a shell's process substitution); not devices, which may
 * have no end. */
void io_load_run(void *arg)
{
    struct io_loading *l = arg;
    size_t room = 0;
    struct stat st;
    ssize_t got;
    int fd;

    fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        l->result = -errno;
        return;
    }
    if (fstat(fd, &st) < 0) {
        l->result = -errno;
    } else if (!S_ISFIFO(st.st_mode)) {
        l->result = check_kind(&st);
    }
    while (!l->result) {
        if (room - l->len < LOAD_STEP + 1) {
            room = MAX(room * 2, (size_t)LOAD_STEP * 2);
            l->text = mem_realloc(l->text, room);
        }
        got = read(fd, l->text + l->len, room - l->len - 1);
        if (got < 0 && errno != EINTR) {
            l->result = -errno;
        } else if (!got) {
            break;
        } else if (got > 0) {
            l->len += got;
        }
    }
    close(fd);
    if (l->result) {
        free(l->text);
        l->text = NULL;
    } else {
        l->text[l->len] = '\0';
    }
}
