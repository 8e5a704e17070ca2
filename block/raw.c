/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * raw: the file's bytes are the guest's.  Every operation falls through to the file child; what is left is
 * the size, and the answer to "where is it?" that lets the chain map point straight into the file.
 */
#include <errno.h>

#include "block/node.h"
#include "core/mem.h"

static int raw_probe(const uint8_t *head, size_t len, const char *filename)
{
    return 1; /* anything is raw, if nothing else claims it */
}

static int co_raw_open(struct node *node, struct error *err)
{
    node->state = node;
    node->size = node->file->size;
    node->cluster_size = NODE_SECTOR;
    return 0;
}

static void co_raw_close(struct node *node)
{
    node->state = NULL;
}

static int co_raw_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    if (!node->read_only) { /* holes that a guest fills would have to be patched in: all is data */
        *out = (struct extent){ .kind = EXTENT_DATA, .len = len, .host = offset };
        return 0;
    }
    return node->file->driver->co_map(node->file, offset, len, out);
}

static int co_raw_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    return node->file->driver->co_read(node->file, offset, iov, n);
}

static int co_raw_truncate(struct node *node, uint64_t size, struct error *err)
{
    int ret = node->file->driver->co_truncate(node->file, size, err);

    if (ret == 0) {
        node->size = node->file->size;
    }
    return ret;
}

static int raw_check_backing(struct node *node, const char *name, const char *format, struct error *err)
{
    error_set(err, "Backing file not supported for file format 'raw'");
    return -ENOTSUP;
}

static int co_raw_set_backing(struct node *node, const char *name, const char *format, struct error *err)
{
    return raw_check_backing(node, name, format, err);
}

static int co_raw_create(const char *path, json_t *options, struct error *err)
{
    json_t *size = json_object_get(options, "size");
    struct io_file *file;
    int ret;

    if (json_object_get(options, "backing_file")) {
        error_set(err, "Backing file not supported for file format 'raw'");
        return -ENOTSUP;
    }
    ret = co_io_open(NULL, path, IO_RDWR | IO_CREATE | IO_TRUNC, &file);
    if (ret < 0) {
        error_set_errno(err, ret, "Could not create '%s'", path);
        return ret;
    }
    ret = co_io_truncate(file, json_is_integer(size) ? (uint64_t)json_integer_value(size) : 0);
    if (ret == 0) {
        ret = co_io_flush(file);
    }
    co_io_close(file);
    if (ret == 0) {
        ret = co_io_sync_dir(path);
    }
    if (ret < 0) {
        error_set_errno(err, ret, "Could not resize file");
    }
    return ret;
}

const struct driver driver_raw = {
    .name = "raw",
    .is_format = true,
    .probe = raw_probe,
    .co_open = co_raw_open,
    .co_close = co_raw_close,
    .co_read = co_raw_read,
    .co_map = co_raw_map,
    .co_truncate = co_raw_truncate,
    .co_set_backing = co_raw_set_backing,
    .check_backing = raw_check_backing,
    .co_create = co_raw_create,
};
