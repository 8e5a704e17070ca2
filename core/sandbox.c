/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Landlock (see sandbox.h); the system calls are core/sandbox-calls.c.
 */
#include "core/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sandbox-calls.h"

/* The kernel's interface, here and not from its header: that of the machine which compiles may be
 * older than the kernel which runs. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1

enum {
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_REG = 1 << 8,
    FS_MAKE_SOCK = 1 << 9,
    FS_FIRST = (1 << 13) - 1, /* all that the first version knows */
    FS_REFER = 1 << 13,       /* a link or rename to another directory: since version 2 */
    FS_TRUNCATE = 1 << 14,    /* 3 */
    FS_IOCTL_DEV = 1 << 15,   /* 5 */
    FS_OF_FILES = FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
};
#define NET_TCP 3u   /* bind, connect: 4 */
#define SCOPED_ALL 3u /* abstract unix sockets, signals: 6 */

struct ruleset {
    uint64_t fs, net, scoped;
};
struct path_beneath {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

struct place {
    char *path;
    enum sandbox_use use;
    int fd;
    bool directory;
};
struct sandbox {
    struct place *places;
    size_t count;
};

/* Inside: where new files can be, for people. */
static char *inside;

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return !slash ? mem_strdup(".") : mem_strndup(path, slash == path ? 1 : slash - path);
}

/* A descriptor of the place, or -1: there is nothing to be allowed. */
static int open_place(const char *path, enum sandbox_use use, struct stat *st)
{
    AUTOFREE char *dir = NULL;
    int fd = open(path, O_PATH | O_CLOEXEC);

    if (fd < 0 || fstat(fd, st) < 0) {
        return -1;
    }
    if (use == SANDBOX_NEIGHBOURS) {
        close(fd);
        dir = directory_of(path);
        fd = S_ISREG(st->st_mode) ? open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    }
    return fd >= 0 && fstat(fd, st) == 0 ? fd : -1;
}

struct sandbox *sandbox_new(void)
{
    return mem_zalloc(sizeof(struct sandbox));
}

void sandbox_allow(struct sandbox *s, const char *path, enum sandbox_use use)
{
    struct stat st;
    int fd = open_place(path, use, &st);

    if (fd >= 0) {
        s->places = mem_reallocarray(s->places, s->count + 1, sizeof(*s->places));
        s->places[s->count++] =
            (struct place){ mem_strdup(path), use, fd, S_ISDIR(st.st_mode) };
    }
}

static void sandbox_free(struct sandbox *s)
{
    for (size_t i = 0; i < s->count; i++) {
        close(s->places[i].fd);
        free(s->places[i].path);
    }
    free(s->places);
    free(s);
}

/* The version of the interface; 0: there is none. */
static int landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);

    return version > 0 ? version : 0;
}

bool sandbox_has_landlock(void)
{
    return landlock_version() > 0;
}

/* All that this kernel can forbid. */
static struct ruleset everything(int version)
{
    return (struct ruleset){
        .fs = FS_FIRST | (version >= 2 ? FS_REFER : 0) | (version >= 3 ? FS_TRUNCATE : 0) |
              (version >= 5 ? FS_IOCTL_DEV : 0),
        .net = version >= 4 ? NET_TCP : 0,
        .scoped = version >= 6 ? SCOPED_ALL : 0,
    };
}

static uint64_t rights(enum sandbox_use use, bool directory)
{
    switch (use) {
    case SANDBOX_READ:
        return FS_READ_FILE | (directory ? FS_READ_DIR : 0);
    case SANDBOX_IMAGE:
        return directory ? 0 : FS_OF_FILES;
    case SANDBOX_NEIGHBOURS:
        return FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE | FS_READ_DIR | FS_MAKE_REG |
               FS_REMOVE_FILE | FS_MAKE_SOCK;
    case SANDBOX_REMOVE_DIR:
        return FS_REMOVE_DIR;
    }
    return 0;
}

static void note_directory(const struct place *p)
{
    AUTOFREE char *dir = directory_of(p->path);
    AUTOFREE char *quoted = mem_printf("'%s'", dir);

    if (!strstr(inside, quoted)) {
        char *longer = mem_printf("%s%s%s", inside, *inside ? ", " : "", quoted);

        free(inside);
        inside = longer;
    }
}

static int allow_place(int ruleset, const struct place *p, uint64_t handled)
{
    struct path_beneath rule = { .allowed = rights(p->use, p->directory) & handled,
                                 .parent = p->fd };
    int ret = 0;

    if (rule.allowed &&
        syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0 &&
        errno != EBADFD) { /* a pipe: there is nothing that would forbid it */
        ret = -errno;
    }
    if (ret == 0 && p->use == SANDBOX_NEIGHBOURS) {
        note_directory(p);
    }
    return ret;
}

static int restrict_files(const struct sandbox *s)
{
    int version = landlock_version(), ret = 0, fd;
    struct ruleset all = everything(version);
    size_t size = version >= 6 ? sizeof(all) : version >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);

    fd = syscall(SYS_landlock_create_ruleset, &all, size, 0);
    if (fd < 0) {
        return -errno;
    }
    for (size_t i = 0; ret == 0 && i < s->count; i++) {
        ret = allow_place(fd, &s->places[i], all.fs);
    }
    if (ret == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0) {
        ret = -errno;
    }
    close(fd);
    return ret;
}

int sandbox_enter(struct sandbox *s, bool landlock, struct error *err)
{
    int ret = sandbox_no_new_privileges();

    inside = mem_strdup("");
    if (ret == 0 && landlock) {
        ret = restrict_files(s);
    }
    if (ret == 0) {
        ret = sandbox_restrict_calls();
    }
    if (ret < 0) {
        error_set_errno(err, ret, "Could not enter the sandbox");
    }
    sandbox_free(s);
    return ret;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);

    return len >= tail && !strcmp(text + len - tail, end);
}

void sandbox_explain(struct error *err)
{
    if (inside && error_is_set(err) && (ends_with(err->text, strerror(EACCES)) ||
                                ends_with(err->text, strerror(EPERM)))) {
        error_hint(err, *inside ? "The sandbox is on: new files can be made in %s only."
                                : "The sandbox is on.", inside);
    }
}
