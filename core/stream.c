/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Standard input and output, terminals, pipes, signals (see stream.h).
 */
#include "core/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"

int stream_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    return fd < 0 ? -errno : fd;
}

bool stream_trickles(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode) || S_ISSOCK(st.st_mode));
}

int stream_create(const char *path, bool append)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : O_TRUNC), 0666);

    return fd < 0 ? -errno : fd;
}

void stream_close(int fd)
{
    close(fd);
}

int stream_pipe(int ends[2])
{
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
}

int stream_of_signals(const sigset_t *set)
{
    int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

static ssize_t moved(ssize_t n)
{
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

ssize_t stream_read(int fd, void *buf, size_t len)
{
    return moved(read(fd, buf, len));
}

static bool ready(int fd, short events, int ms)
{
    struct pollfd p = { .fd = fd, .events = events };

    return poll(&p, 1, ms) > 0;
}

bool stream_readable(int fd, int ms)
{
    return ready(fd, POLLIN, ms);
}

bool stream_writable(int fd, int ms)
{
    return ready(fd, POLLOUT, ms);
}

ssize_t stream_write(int fd, const void *data, size_t len)
{
    ssize_t n;

    if (!stream_writable(fd, 0)) {
        return 0;
    }
    n = moved(write(fd, data, MIN(len, (size_t)PIPE_BUF)));
    return n == -EAGAIN ? 0 : n;
}

void stream_poke(int fd, char byte)
{
    int saved = errno;
    ssize_t n = write(fd, &byte, 1);

    (void)n; /* full: somebody will look anyway */
    errno = saved;
}

bool stream_is_terminal(int fd)
{
    return isatty(fd);
}

unsigned stream_columns(int fd)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) ? 0 : size.ws_col;
}
