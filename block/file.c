/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol driver "file".  It turns node operations into calls of the I/O engine, opens what the options ask for
 * (aio, cache, locking), and holds the image locks that keep two programs from writing one image.
 */
#include "block/file.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/bytes.h"
#include "core/mem.h"

#define PLACE_HEAD 65536u

struct file_state {
    struct io_file *io;
    struct node_perm held; /* by locks */
    bool locking;      /* locking=off: none */
    bool direct;
};

struct io_file *file_io(struct node *file)
{
    return ((struct file_state *)file->state)->io;
}

static struct io_file *file_host_file(struct node *node)
{
    return file_io(node);
}

/* --- Locks ------------------------------------------------------------------------------------------------ */

static const char *perm_name(unsigned perm)
{
    switch (perm) {
    case IO_PERM_CONSISTENT_READ:
        return "consistent read";
    case IO_PERM_WRITE:
        return "write";
    default: /* nobody refuses to share unchanged writes, and nobody uses them */
        return "resize";
    }
}

int file_lock(struct node *file, struct node_perm perm, struct error *err)
{
    struct file_state *s = file->state;
    unsigned bad = 0;
    bool bad_shared = false;
    int ret;

    if (file->force_share) { /* use what we must, share everything */
        perm.shared = IO_PERM_ALL;
    }
    if (!s->locking || (perm.used == s->held.used && perm.shared == s->held.shared)) {
        return 0;
    }
    ret = io_file_lock(s->io, perm.used, perm.shared, &bad, &bad_shared);
    if (ret == -EAGAIN) {
        error_set(err, "Failed to get %s\"%s\" lock", bad_shared ? "shared " : "", perm_name(bad));
        error_hint(err, "Is another process using the image [%s]?", file->filename);
    } else if (ret < 0) {
        error_set_errno(err, ret, "Failed to lock '%s'", file->filename);
    } else {
        s->held = perm;
    }
    return ret;
}

int co_file_look_at_size(struct node *file)
{
    uint64_t size;
    int ret = co_io_size(file_io(file), &size);

    if (ret == 0) {
        file->size = ROUND_UP(size, NODE_SECTOR);
    }
    return ret;
}

/* --- A place for a new image ---------------------------------------------------------------------------------- */

/* A device always has a size: one whose head is all zeroes counts as empty, as one that was never written. */
static int co_is_empty(struct io_file *file, bool *empty)
{
    AUTOFREE uint8_t *head = mem_alloc(PLACE_HEAD);
    uint64_t size;
    int ret = co_io_size(file, &size);

    *empty = ret == 0 && size == 0;
    if (ret == 0 && !*empty && io_file_is_device(file)) {
        ret = co_io_read(file, 0, head, PLACE_HEAD);
        *empty = ret == 0 && bytes_are_zero(head, PLACE_HEAD);
    }
    return ret;
}

static int co_check_place(struct io_file *file, const char *path, bool overwrite, struct error *err)
{
    struct node *n;
    bool empty = true;
    int ret;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->driver == &driver_file && io_file_same(file, file_io(n))) {
            error_set(err, "Failed to get \"write\" lock");
            error_hint(err, "Is another process using the image [%s]?", path);
            return -EBUSY;
        }
    }
    ret = overwrite ? 0 : co_is_empty(file, &empty);
    if (ret < 0) {
        error_set_errno(err, ret, "Could not read '%s'", path);
    } else if (!empty) {
        error_set(err, "'%s' is not empty: take the image in it with mode=existing (in words: -n), or let a new one take "
                  "its place with overwrite=true (-f)", path);
        ret = -EEXIST;
    }
    return ret;
}

int co_file_check_place(const char *path, bool overwrite, struct error *err)
{
    struct io_file *file;
    int ret = co_io_open(NULL, path, IO_READ_ONLY, &file);

    if (ret < 0) {
        return 0;
    }
    ret = co_check_place(file, path, overwrite, err);
    co_io_close(file);
    return ret;
}

/* --- Open and close ------------------------------------------------------------------------------------------ */

static unsigned open_flags(const struct file_state *s, bool writable)
{
    return (writable ? IO_RDWR : IO_READ_ONLY) | (s->direct ? IO_DIRECT : 0);
}

static int choose_engine(struct node *node, const struct io_engine **engine, struct error *err)
{
    const char *aio = node_option_str(node, "aio");

    *engine = NULL;
    if (!aio) {
        return 0;
    }
    if (strcmp(aio, "threads") != 0 && strcmp(aio, "io_uring") != 0 && strcmp(aio, "native") != 0) {
        error_set(err, "invalid parameter value: %s", aio);
        return -EINVAL;
    }
    if (strcmp(aio, "native") == 0) { /* the nearest thing we have to Linux AIO */
        return 0;
    }
    *engine = io_engine_find(aio);
    if (!*engine && strcmp(aio, "io_uring") == 0) {
        error_set(err, "aio=io_uring is not available: the kernel or this build has none");
        return -ENOTSUP;
    }
    return 0;
}

static int co_file_open(struct node *node, struct error *err)
{
    const char *filename = node_option_str(node, "filename");
    const char *locking = node_option_str(node, "locking");
    const struct io_engine *engine;
    struct file_state *s;
    int ret;

    if (!filename || !*filename) {
        error_set(err, "The 'file' block driver requires a file name");
        return -EINVAL;
    }
    ret = choose_engine(node, &engine, err);
    if (ret < 0) {
        return ret;
    }
    if (locking && strcmp(locking, "auto") && strcmp(locking, "on") && strcmp(locking, "off")) {
        error_set(err, "invalid parameter value: %s", locking);
        return -EINVAL;
    }
    s = mem_zalloc(sizeof(*s));
    s->locking = !locking || strcmp(locking, "off") != 0;
    s->direct = node->cache_direct;
    s->held.shared = IO_PERM_ALL;
    if (!s->direct && !strcmp(json_string_value(json_object_get(node->options, "aio")) ?: "", "native")) {
        error_set(err, "aio=native was specified, but it requires cache.direct=on, which was not specified.");
        free(s);
        return -EINVAL;
    }
    node_option_str(node, "discard"); /* the format's answer counts */
    node_option_str(node, "drop-cache"); /* of another host, to which a running guest moves */
    ret = co_io_open(engine, filename, open_flags(s, !node->read_only), &s->io);
    if (!node->read_only && (ret == -EACCES || ret == -EPERM || ret == -EROFS) &&
        node->auto_read_only) {
        node->read_only = true;
        ret = co_io_open(engine, filename, open_flags(s, false), &s->io);
    }
    if (ret == 0) {
        ret = co_io_size(s->io, &node->size);
        if (ret < 0) {
            co_io_close(s->io);
        }
    }
    if (ret < 0) {
        if ((ret == -EISDIR && (node->read_only || node->auto_read_only)) || ret == -EINVAL) {
            error_set(err, "'file' driver requires '%s' to be a regular file", filename);
        } else {
            error_set_errno(err, ret, "Could not open '%s'", filename);
        }
        free(s);
        return ret;
    }
    node->state = s;
    node->size = ROUND_UP(node->size, NODE_SECTOR);
    node->cluster_size = NODE_SECTOR;
    return 0;
}

static void co_file_close(struct node *node)
{
    struct file_state *s = node->state;

    co_io_close(s->io);
    free(s);
    node->state = NULL;
}

int co_file_set_direct(struct node *file, bool direct, struct error *err)
{
    struct file_state *s = file->state;
    bool before = s->direct;
    int ret;

    if (direct == before) {
        return 0;
    }
    s->direct = direct;
    ret = co_io_reopen(s->io, open_flags(s, !file->read_only));
    if (ret < 0) {
        s->direct = before;
        error_set_errno(err, ret, "Could not reopen '%s'", file->filename);
    }
    return ret;
}

/* Locks are not our business here (permission.h): they are there before, and go afterwards. */
static int co_file_set_writable(struct node *node, bool writable, struct error *err)
{
    struct file_state *s = node->state;
    int ret = co_io_reopen(s->io, open_flags(s, writable));

    if (ret < 0) {
        error_set_errno(err, ret, writable ? "Could not open '%s'" : "Could not reopen '%s' read-only", node->filename);
    }
    return ret;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void note_written(struct node *node, uint64_t end)
{
    node->stats.highest_written = MAX(node->stats.highest_written, end);
    node->size = MAX(node->size, ROUND_UP(end, NODE_SECTOR));
}

static int co_file_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    return co_io_readv(file_io(node), offset, iov, n);
}

static int co_file_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_io_writev(file_io(node), offset, iov, n);

    if (ret == 0) {
        note_written(node, offset + iov_size(iov, n));
    }
    return ret;
}

static int co_file_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    int ret = co_io_zero(file_io(node), offset, len, flags & NODE_MAY_UNMAP);

    if (ret == 0) {
        note_written(node, offset + len);
    }
    return ret;
}

static int co_file_discard(struct node *node, uint64_t offset, uint64_t len)
{
    int ret = co_io_discard(file_io(node), offset, len);

    node_note_host_discard(node, len, ret);
    return ret;
}

static int co_file_flush(struct node *node)
{
    return co_io_flush(file_io(node));
}

static int co_file_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    uint64_t run = len;
    bool data = true;
    /* Holes that a guest fills would have to be patched in the chain map: all is data then. */
    int ret = node->read_only ? co_io_map(file_io(node), offset, &run, &data) : 0;

    if (ret < 0) {
        *out = (struct extent){ .kind = EXTENT_OPAQUE, .len = len };
        return ret;
    }
    assert(run > 0 && run <= len);
    *out = (struct extent){ .kind = data ? EXTENT_DATA : EXTENT_ZERO, .len = run, .host = offset };
    return 0;
}

static int co_file_truncate(struct node *node, uint64_t size, struct error *err)
{
    int ret = co_io_truncate(file_io(node), size);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not resize file");
        return ret;
    }
    node->size = ROUND_UP(size, NODE_SECTOR);
    return 0;
}

static const char *const aio_words[] = { "threads", "native", "io_uring", NULL };
static const char *const locking_words[] = { "auto", "on", "off", NULL };
static const struct block_key file_keys[] = {
    { .name = "filename", .kind = KEY_STRING, .required = true, .help = "path of the host's file" },
    { .name = "aio", .kind = KEY_ENUM, .choices = aio_words, .help = "who carries out input and output" },
    { .name = "drop-cache", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "locking", .kind = KEY_ENUM, .choices = locking_words, .help = "tell other programs what we do with the file" },
    { 0 },
};

static const char *const preallocations[] = { "off", "falloc", "full", NULL };
static const struct block_key file_create_keys[] = {
    { .name = "filename", .kind = KEY_STRING, .required = true, .help = "path of the new file" },
    { .name = "size", .kind = KEY_UINT64, .required = true, .help = "bytes" },
    { .name = "preallocation", .kind = KEY_ENUM, .choices = preallocations, .help = "what is allocated at once" },
    { 0 },
};

const struct driver driver_file = {
    .name = "file",
    .create_keys = file_create_keys,
    .is_protocol = true,
    .keys = file_keys,
    .co_open = co_file_open,
    .co_close = co_file_close,
    .co_set_writable = co_file_set_writable,
    .co_read = co_file_read,
    .co_write = co_file_write,
    .co_zero = co_file_zero,
    .co_discard = co_file_discard,
    .co_flush = co_file_flush,
    .co_map = co_file_map,
    .host_file = file_host_file,
    .co_truncate = co_file_truncate,
};
