/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program's own places on the host: its working directory, the directory of the demonstration,
 * the file of the terminal's history.  No image is touched here, nothing suspends, and a run on the
 * simulated disk has none of it.
 */
#include "core/io-host.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io-engine.h"

char *io_host_working_dir(const struct io_engine *engine)
{
    return getcwd(NULL, 0);
}

int io_change_dir(const char *path)
{
    return chdir(path) < 0 ? -errno : 0;
}

int io_make_temp_dir(char *template)
{
    return mkdtemp(template) ? 0 : -errno;
}

int io_make_temp_file(char *template)
{
    int fd = mkostemp(template, O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return 0;
}

/* remove() would try the wrong call first, and the sandbox's answer to that ends its attempts. */
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

void io_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int io_make_private_file(const char *path)
{
    AUTOFREE char *dir = mem_strdup(path);
    int fd;

    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(dir, 0700); /* it may be there; if it cannot be, opening the file will say so */
        *slash = '/';
    }
    fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return 0;
}
