/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Longer pieces of work on real files: opening and loading.  All of it runs on a worker
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
