/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The demonstration chain (see demo.h), written by our own formats.
 */
#include "start/demo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/node.h"
#include "core/io.h"
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

/* A new directory.  Images that live as long as the program need no disk, and in memory a flush takes
 * no time. */
static char *make_place(struct error *err)
{
    const char *asked = getenv("TMPDIR");
    const char *places[] = { "/dev/shm", "/tmp" };
    size_t first = 0;
    char *dir;
    int ret;

    if (asked && *asked) {
        places[first = 1] = asked;
    }
    for (size_t i = first; i < 2; i++) {
        dir = mem_printf("%s/merganser-demo-XXXXXX", places[i]);
        ret = io_make_temp_dir(dir);
        if (ret == 0) {
            return dir;
        }
        if (i == 1) {
            error_set_errno(err, ret, "Could not make the demonstration directory '%s'", dir);
        }
        free(dir);
    }
    return NULL;
}

char *co_demo_make(struct error *err)
{
    char *dir = make_place(err);
    int ret;

    if (!dir) {
        return NULL;
    }
    ret = io_change_dir(dir);
    if (ret < 0 || co_make_all(err) < 0) {
        error_set_errno(err, ret, "Could not use the directory '%s'", dir);
        demo_remove(dir);
        free(dir);
        return NULL;
    }
    return dir;
}

void demo_remove(const char *dir)
{
    if (io_change_dir("/") == 0) {
        io_remove_tree(dir);
    }
}
