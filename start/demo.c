/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The demonstration chain (see demo.h), written by our own formats.
 */
#include "start/demo.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block/node.h"
#include "core/mem.h"

#define DEMO_SIZE (8u << 20)
#define DEMO_PIECE (256u << 10)

static int co_make_layer(const char *path, const char *backing, struct error *err)
{
    json_t *options = json_pack("{s:I, s:s*, s:s*}", "size", (json_int_t)DEMO_SIZE, "backing_file",
                                backing, "backing_fmt", backing ? "qcow2" : NULL);
    const struct driver *qcow2 = driver_find("qcow2");
    int ret = qcow2->co_create(path, options, err);

    json_decref(options);
    return ret;
}

/* Every layer writes at a place of its own and over a part of the layer below, so that a merge has
 * something to get wrong. */
static int co_fill_layer(const char *path, unsigned layer, struct error *err)
{
    json_t *options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open(path, options, err);
    AUTOFREE uint8_t *data = mem_alloc(DEMO_PIECE * 2);
    int ret;

    json_decref(options);
    if (!node) {
        return -EINVAL;
    }
    memset(data, 0xa0 + (int)layer, DEMO_PIECE * 2);
    ret = co_node_write_buf(node, (uint64_t)layer * (DEMO_SIZE / 8), data, DEMO_PIECE * 2);
    if (ret == 0) {
        ret = co_node_write_buf(node, DEMO_SIZE / 8 * 7 + (uint64_t)layer * (DEMO_PIECE / 2), data,
                                DEMO_PIECE);
    }
    if (ret == 0) {
        ret = co_node_flush(node);
    }
    if (ret < 0) {
        error_set_errno(err, ret, "Could not write '%s'", path);
    }
    co_node_unref(node);
    return ret;
}

static int co_make_all(struct error *err)
{
    AUTOFREE char *below = NULL;

    for (unsigned i = 0; i < 5; i++) {
        char *path = mem_printf("file-%c.img", 'A' + i);
        int ret = co_make_layer(path, below, err);

        if (ret == 0) {
            ret = co_fill_layer(path, i, err);
        }
        free(below);
        below = path;
        if (ret < 0) {
            return ret;
        }
    }
    int ret = co_make_layer("ide.img", NULL, err);
    return ret < 0 ? ret : co_fill_layer("ide.img", 5, err);
}

/* Images that live as long as the program need no disk, and there a flush takes no time. */
static const char *choose_place(void)
{
    static const char memory[] = "/dev/shm";
    const char *asked = getenv("TMPDIR");

    return asked && *asked ? asked : access(memory, W_OK | X_OK) == 0 ? memory : "/tmp";
}

char *co_demo_make(struct error *err)
{
    char *dir = mem_printf("%s/merganser-demo-XXXXXX", choose_place());

    if (!mkdtemp(dir)) {
        error_set_errno(err, errno, "Could not make the demonstration directory '%s'", dir);
        free(dir);
        return NULL;
    }
    if (chdir(dir) < 0 || co_make_all(err) < 0) {
        error_set_errno(err, errno, "Could not use the directory '%s'", dir);
        demo_remove(dir);
        free(dir);
        return NULL;
    }
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void demo_remove(const char *dir)
{
    if (chdir("/") == 0) {
        nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}
