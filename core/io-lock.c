/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image locks: who uses a file how, told to other processes by byte locks that nobody ever waits
 * for.
 *
 *     byte 100 + i   somebody uses permission i        (i: bits of enum io_perm)
 *     byte 200 + i   somebody does not share permission i
 *
 * All locks are read locks: they never exclude each other, they only can be seen.  A user puts its
 * marks first and looks at the others' afterwards; so of two that come at once at least one sees
 * the other (both may give up, never both go on).  Looking is F_OFD_GETLK with a write lock: it
 * names any lock of another open file description in the way.  These bytes and this order are the
 * ones QEMU uses, so the two programs respect each other.
 *
 * Open file description locks belong to the open file, not to the process: closing some other
 * descriptor of the same file does not drop them, and two handles in one process conflict as two
 * processes do.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>

#define BYTE_USED 100
#define BYTE_UNSHARED 200
#define PERM_COUNT 4

static int byte_lock(int fd, int command, int type, off_t byte, short *found)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    int ret;

    do {
        ret = fcntl(fd, command, &lock);
    } while (ret < 0 && errno == EINTR);
    if (found) {
        *found = lock.l_type;
    }
    return ret < 0 ? -errno : 0;
}

/* File systems and kernels that have no such locks say so in many ways. */
static bool no_locks_here(int err)
{
    return err == -EINVAL || err == -ENOSYS || err == -ENOLCK || err == -EOPNOTSUPP;
}

/* Drop the marks of `mask` (bits of permissions) that start at byte `base`. */
static void drop(int fd, off_t base, unsigned mask)
{
    for (unsigned i = 0; i < PERM_COUNT; i++) {
        if (mask & (1u << i)) {
            byte_lock(fd, F_OFD_SETLK, F_UNLCK, base + i, NULL);
        }
    }
}

/* Put the marks of `mask`; after an error *bad is the one that failed. */
static int put(int fd, off_t base, unsigned mask, unsigned *bad)
{
    for (unsigned i = 0; i < PERM_COUNT; i++) {
        if (mask & (1u << i)) {
            int ret = byte_lock(fd, F_OFD_SETLK, F_RDLCK, base + i, NULL);

            if (ret) {
                *bad = 1u << i;
                return ret == -EACCES ? -EAGAIN : ret;
            }
        }
    }
    return 0;
}

/* -EAGAIN when another one has a mark of `mask` at `base`. */
static int look(int fd, off_t base, unsigned mask, unsigned *bad)
{
    for (unsigned i = 0; i < PERM_COUNT; i++) {
        if (mask & (1u << i)) {
            short found = F_UNLCK;
            int ret = byte_lock(fd, F_OFD_GETLK, F_WRLCK, base + i, &found);

            if (ret || found != F_UNLCK) {
                *bad = 1u << i;
                return ret ? ret : -EAGAIN;
            }
        }
    }
    return 0;
}

int io_lock_put(int fd, unsigned used, unsigned shared)
{
    unsigned bad;
    int ret = put(fd, BYTE_USED, used, &bad);

    ret = ret ? ret : put(fd, BYTE_UNSHARED, IO_PERM_ALL & ~shared, &bad);
    return no_locks_here(ret) ? 0 : ret;
}

int io_lock_fd(int fd, unsigned old_used, unsigned old_shared, unsigned used, unsigned shared,
               unsigned *bad, bool *bad_shared)
{
    unsigned old_unshared = IO_PERM_ALL & ~old_shared;
    unsigned unshared = IO_PERM_ALL & ~shared;
    int ret;

    assert(!(used & ~IO_PERM_ALL) && !(old_used & ~IO_PERM_ALL));
    *bad_shared = false;
    ret = put(fd, BYTE_USED, used & ~old_used, bad);
    if (!ret) {
        *bad_shared = true;
        ret = put(fd, BYTE_UNSHARED, unshared & ~old_unshared, bad);
    }
    if (!ret) {
        *bad_shared = false;
        ret = look(fd, BYTE_UNSHARED, used, bad);
    }
    if (!ret) {
        *bad_shared = true;
        ret = look(fd, BYTE_USED, unshared, bad);
    }
    if (ret) {
        drop(fd, BYTE_USED, used & ~old_used);
        drop(fd, BYTE_UNSHARED, unshared & ~old_unshared);
        return no_locks_here(ret) ? 0 : ret;
    }
    drop(fd, BYTE_USED, old_used & ~used);
    drop(fd, BYTE_UNSHARED, old_unshared & ~unshared);
    return 0;
}
