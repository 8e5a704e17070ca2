/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commit (see commit.h), window by window:
 *
 *     (1) what the overlay holds in the window is written into the backing file
 *     (2) the backing file is flushed: that content and the tables that lead to it are durable
 *     (3) the overlay lets go of the window in memory; its next flush makes that durable, too
 *
 * An overlay is emptied only after everything below it is durable.  Until (3) is on disk the overlay still hides what
 * (1) wrote, so a half-written window below is never seen; from then on the backing file shows the same bytes.  So
 * a kill or a power cut at any moment changes no content, and whoever begins again finds the rest by looking at what the
 * overlay still holds.  Nothing is recorded about how far it went.
 *
 * A window is one request on the overlay that excludes overlapping writes: a guest that writes there waits for it, and
 * afterwards writes into the emptied overlay.  Writes elsewhere and all reads go on.  What a guest writes behind the
 * place where we are stays in the overlay.
 *
 * The backing file is written past its own count of requests (nested), because all this belongs to the
 * overlay's request: a drain of what lies further below must be able to wait for it.
 *
 * Several windows are under way at once while they hold little, each in the order above.  Their flushes meet in the backing
 * file's generations, so 3,000 clusters all over 1 TiB need some 100 generations and not 3,000.  Where windows are full they go
 * one by one: what a guest waits for is 16 MiB of copying and a flush, as ever.
 *
 * Refused: one flush for the whole disk in place of one a window, since every guest that writes would have to
 * stand still until then.
 */
#include "block/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "block/permission.h"
#include "core/bytes.h"
#include "core/mem.h"

#define WINDOW (16ull << 20) /* a multiple of every cluster size */
#define PIECE (1u << 20)     /* what moves through memory at once */
#define PIECE_MIN (64u << 10)
#define WINDOWS_MAX 32u      /* at once */
#define BUSY_REASON "block device is in use by a commit"

struct commit {
    struct node *top, *backing;
    bool made_writable;
    struct node_user writer; /* we are, in the backing file */
    bool writing;

    unsigned windows; /* under way */
    uint64_t held;    /* bytes of data in them */
    struct co_queue ended;
    int result; /* the first error of a window, or 0 */
};

struct window {
    struct commit *c;
    uint64_t offset, len, held;
};

/* --- A window ---------------------------------------------------------------------------------------------------- */

static int co_move(struct commit *c, uint64_t offset, uint64_t len, void *buf, uint64_t room)
{
    int ret = 0;

    for (uint64_t part; len > 0 && ret == 0; offset += part, len -= part) {
        struct iovec iov = { .iov_base = buf, .iov_len = part = MIN(len, room) };

        ret = co_node_read_nested(c->top, offset, &iov, 1);
        if (ret == 0) {
            ret = bytes_are_zero(buf, part) ? co_node_zero_nested(c->backing, offset, part, 0)
                                            : co_node_write_nested(c->backing, offset, &iov, 1);
        }
    }
    return ret;
}

/* As one request on the overlay. */
static int co_commit_window(struct node *top, uint64_t offset, uint64_t len, void *arg)
{
    const struct window *w = arg;
    struct commit *c = w->c;
    uint64_t end = offset + len, room = MIN(MAX(w->held, (uint64_t)PIECE_MIN), (uint64_t)PIECE);
    AUTOFREE void *buf = mem_align(NODE_SECTOR, room);
    struct extent ext;
    int ret = 0;

    for (uint64_t at = offset; at < end && ret == 0; at += ext.len) {
        co_take_turns();
        ret = top->driver->co_map(top, at, end - at, &ext);
        if (ret == 0 && ext.kind == EXTENT_ZERO) {
            ret = co_node_zero_nested(c->backing, at, ext.len, 0);
        } else if (ret == 0 && ext.kind != EXTENT_NONE) {
            ret = co_move(c, at, ext.len, buf, room);
        }
    }
    if (ret == 0) {
        ret = co_node_flush_nested(c->backing);
    }
    return ret < 0 ? ret : top->driver->co_empty(top, offset, len);
}

/* The next byte at or behind *offset that the overlay holds; its end when there is none. */
static int co_next_held(struct commit *c, uint64_t *offset)
{
    struct extent ext;

    while (*offset < c->top->size) {
        int ret = c->top->driver->co_map(c->top, *offset, c->top->size - *offset, &ext);

        if (ret < 0) {
            return ret;
        }
        if (ext.kind != EXTENT_NONE) {
            return 0;
        }
        *offset += ext.len;
        co_take_turns();
    }
    return 0;
}

/* How much data is to be moved; a guest may change that until the window has begun.  What cannot be read the window
 * will meet again. */
static uint64_t co_held_in(struct commit *c, uint64_t offset, uint64_t len)
{
    uint64_t held = 0;
    struct extent ext;

    for (uint64_t done = 0; done < len && c->top->driver->co_map(c->top, offset + done, len - done, &ext) == 0; done += ext.len) {
        held += ext.kind == EXTENT_NONE || ext.kind == EXTENT_ZERO ? 0 : ext.len;
        co_take_turns();
    }
    return held;
}

static CO_ENTRY void window_entry(void *arg)
{
    struct window *w = arg;
    struct commit *c = w->c;
    int ret = co_node_populate(c->top, w->offset, w->len, co_commit_window, w);

    c->result = c->result < 0 ? c->result : ret;
    c->windows--;
    c->held -= w->held;
    free(w);
    co_queue_wake_all(&c->ended);
}

/* Begins the window when there is room for it. */
static int co_begin_window(struct commit *c, uint64_t offset, uint64_t len)
{
    uint64_t held = co_held_in(c, offset, len);
    struct window *w;

    while (c->windows == WINDOWS_MAX || (c->windows > 0 && c->held + held > WINDOW)) {
        co_queue_wait(&c->ended);
    }
    if (c->result < 0) {
        return c->result;
    }
    w = mem_alloc(sizeof(*w));
    *w = (struct window){ .c = c, .offset = offset, .len = len, .held = held };
    c->windows++;
    c->held += held;
    co_start(window_entry, w);
    return 0;
}

static int co_end_windows(struct commit *c, int ret)
{
    while (c->windows > 0) {
        co_queue_wait(&c->ended);
    }
    return ret < 0 ? ret : c->result;
}

static int co_commit_all(struct commit *c, bool (*stop)(void *arg), void *arg)
{
    uint64_t offset = 0, done = 0, size = c->top->size;
    int ret = co_next_held(c, &offset);

    while (ret == 0 && offset < size) {
        uint64_t start = ROUND_DOWN(offset, WINDOW), end = MIN(start + WINDOW, size);

        ret = stop && stop(arg) ? -EINTR : co_begin_window(c, start, end - start);
        offset = done = end;
        if (ret == 0) {
            ret = co_next_held(c, &offset);
        }
    }
    /* The last cluster may hold something behind the end alone, where no map looks: subclusters that were left there when
     * the disk was made shorter. */
    if (ret == 0 && done < size) {
        offset = ROUND_DOWN(size - 1, WINDOW);
        ret = co_begin_window(c, offset, size - offset);
    }
    return co_end_windows(c, ret);
}

/* --- Who may, and what has to be so ---------------------------------------------------------------------------------- */

/* Whoever else looks through the backing file would see it change. */
static int check_alone(const struct commit *c, struct error *err)
{
    const struct node *n;
    const struct disk *disk = disk_of_root(c->backing);

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n != c->top && (n->backing == c->backing || n->file == c->backing)) {
            error_set(err,
                      "Permission conflict on node '%s': permissions 'write, resize' are both required by an unnamed "
                      "block device (uses node '%s' as 'root' child) and unshared by node '%s' (uses node '%s' as "
                      "'%s' child).",
                      c->backing->name, c->backing->name, n->name, c->backing->name,
                      n->backing == c->backing ? "backing" : "file");
            return -EPERM;
        }
    }
    if (disk) {
        error_set(err,
                  "Permission conflict on node '%s': permissions 'write, resize' are both required by an unnamed block "
                  "device (uses node '%s' as 'root' child) and unshared by block device '%s' (uses node '%s' as 'root' "
                  "child).",
                  c->backing->name, c->backing->name, disk->label, c->backing->name);
        return -EPERM;
    }
    return 0;
}

static int check(const struct commit *c, struct error *err)
{
    if (!c->top->driver->co_empty || !c->backing) {
        return -ENOTSUP;
    }
    if (c->top->busy_reason || c->backing->busy_reason || c->top->backing_frozen) {
        return -EBUSY;
    }
    if (c->top->read_only) {
        error_set(err, "Block node is read-only");
        return -EPERM;
    }
    return check_alone(c, err);
}

static int co_prepare(struct commit *c, struct error *err)
{
    int ret;

    c->writer = (struct node_user){ .node = c->backing, .used = IO_PERM_CONSISTENT_READ | IO_PERM_WRITE, .shared = IO_PERM_ALL,
                                    .apart = true };
    ret = node_use(&c->writer, err);
    c->writing = ret == 0;
    if (ret == 0 && c->backing->read_only) {
        ret = co_node_set_writable(c->backing, true, err);
        c->made_writable = ret == 0;
    }
    if (ret == 0 && c->backing->size < c->top->size) {
        ret = co_node_truncate(c->backing, c->top->size, err);
    }
    return ret;
}

/* Back to how it was; what is still unwritten there is written, so this can fail, too. */
static int co_finish(struct commit *c, struct error *err)
{
    int ret = c->made_writable ? co_node_set_writable(c->backing, false, err) : 0;

    if (c->writing) {
        node_unuse(&c->writer);
    }
    return ret;
}

int co_commit(struct node *top, bool (*stop)(void *arg), void *arg, struct error *err)
{
    struct commit c = { .top = top, .backing = top->backing };
    int ret = check(&c, err), finish;

    if (ret < 0) {
        return ret;
    }
    co_queue_init(&c.ended);
    node_ref(c.top);
    node_ref(c.backing);
    c.top->busy_reason = c.backing->busy_reason = BUSY_REASON;
    c.top->backing_frozen++;
    ret = co_prepare(&c, err);
    if (ret == 0) {
        ret = co_commit_all(&c, stop, arg);
    }
    if (ret == 0) {
        ret = co_node_flush(c.top);
    }
    finish = co_finish(&c, ret == 0 ? err : NULL);
    c.top->backing_frozen--;
    c.top->busy_reason = c.backing->busy_reason = NULL;
    co_node_unref(c.top);
    co_node_unref(c.backing);
    return ret < 0 ? ret : finish;
}
