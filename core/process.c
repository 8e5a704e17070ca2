/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process: see process.h.
 */
#include "core/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"

static int ready_fd = -1; /* in the background: who started us listens */
static char *pid_path;
static int pid_fd = -1, log_fd = -1;

/* Who was started: wait for the word, and end. */
static void __attribute__((noreturn)) wait_for_child(int fd)
{
    char word;
    ssize_t n;

    do {
        n = read(fd, &word, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

int process_daemonize(struct error *err)
{
    int ends[2];
    pid_t pid;

    fflush(NULL);
    if (pipe2(ends, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        int ret = -errno;

        error_set_errno(err, ret, "Could not go into the background");
        return ret;
    }
    if (pid > 0) {
        close(ends[1]);
        wait_for_child(ends[0]);
    }
    close(ends[0]);
    setsid();
    pid = fork(); /* no leader of a session: no terminal will ever be ours */
    if (pid) {
        _exit(pid < 0); /* the pipe's other end tells */
    }
    ready_fd = ends[1];
    return 0;
}

void process_daemon_ready(void)
{
    int null;

    if (ready_fd < 0) {
        return;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        if (log_fd < 0) {
            dup2(null, STDERR_FILENO);
        }
        close(null);
    }
    if (write(ready_fd, "", 1) != 1) {
        /* nobody waits any more */
    }
    close(ready_fd);
    ready_fd = -1;
}

static int pid_failed(const char *path, const char *what, struct error *err)
{
    int ret = -errno;

    error_set_errno(err, ret, "cannot create PID file: %s '%s'", what, path);
    if (pid_fd >= 0) {
        close(pid_fd);
        pid_fd = -1;
    }
    return ret;
}

int process_write_pid(const char *path, struct error *err)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    AUTOFREE char *text = mem_printf("%ld\n", (long)getpid());

    pid_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (pid_fd < 0) {
        return pid_failed(path, "Could not create", err);
    }
    if (fcntl(pid_fd, F_SETLK, &lock) < 0) {
        return pid_failed(path, "Failed to lock", err);
    }
    if (ftruncate(pid_fd, 0) < 0 || write(pid_fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        return pid_failed(path, "Failed to write", err);
    }
    pid_path = path[0] == '/' ? mem_strdup(path) : realpath(path, NULL);
    return 0;
}

void process_remove_pid(void)
{
    if (pid_path) {
        unlink(pid_path);
        free(pid_path);
        pid_path = NULL;
    }
}

int process_open_log(const char *path, struct error *err)
{
    log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (log_fd < 0) {
        int ret = -errno;

        error_set_errno(err, ret, "Error opening logfile %s", path);
        return ret;
    }
    return 0;
}

void process_use_log(void)
{
    if (log_fd >= 0) {
        dup2(log_fd, STDERR_FILENO);
        close(log_fd);
        log_fd = -1;
    }
}
