/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of real files: what a back end does to them (io-engine.h), as system calls on a carrier.
 *
 * Nothing here has a file open for longer than the call; whether a name may be touched is the
 * caller's business.
 */
#include "core/io-host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io-engine.h"

struct naming {
    const char *path, *to;
    int result;
};

static int co_carry(const struct io_engine *engine, void (*fn)(void *), struct naming n)
{
    struct io_call call = { .op = IO_CALL_FN, .fn = fn, .arg = &n };

    engine->co_carry(&call);
    return n.result;
}

static void sync_dir_run(void *arg)
{
    struct naming *n = arg;
    const char *slash = strrchr(n->path, '/');
    AUTOFREE char *dir = !slash ? mem_strdup(".") : mem_strndup(n->path, slash - n->path + 1);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        n->result = -errno;
        return;
    }
    n->result = fsync(fd) < 0 ? -errno : 0;
    if (n->result == -EINVAL) {
        n->result = 0; /* a file system whose directories need none */
    }
    close(fd);
}

static void unlink_run(void *arg)
{
    struct naming *n = arg;

    n->result = unlink(n->path) < 0 ? -errno : 0;
}

static void rename_run(void *arg)
{
    struct naming *n = arg;

    n->result = rename(n->path, n->to) < 0 ? -errno : 0;
}

int co_io_host_sync_dir(const struct io_engine *engine, const char *path_in_dir)
{
    return co_carry(engine, sync_dir_run, (struct naming){ .path = path_in_dir });
}

int co_io_host_unlink(const struct io_engine *engine, const char *path)
{
    return co_carry(engine, unlink_run, (struct naming){ .path = path });
}

int co_io_host_rename(const struct io_engine *engine, const char *from, const char *to)
{
    return co_carry(engine, rename_run, (struct naming){ .path = from, .to = to });
}

bool io_host_exists(const struct io_engine *engine, const char *path)
{
    struct stat st;

    return !stat(path, &st);
}
