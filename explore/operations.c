/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done to a chain while the power may go: one row an operation.  See plan.h.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "block/snapshot.h"
#include "core/bytes.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/claims.h"
#include "explore/operations.h"
#include "explore/scene.h"
#include "jobs/job.h"

#define CANCEL_AFTER_NS (400 * NS_PER_US)
#define GROW_MAX (2u << 20)
#define STREAM_BASE 0
#define LAST_INCOMPATIBLE 79 /* byte of the header, version 3 */

void op_judge_verb(struct world *w, const struct operation *op, int ret, const struct error *err)
{
    if (ret < 0 && !w->faulty) {
        world_break(w, 18, "%s: %s", op->name, err->text);
    }
    world_changed(w);
}

/* --- Jobs ------------------------------------------------------------------------------------- */

struct stream_watch {
    struct job_listener listener;
    struct world *w;
    char *id;
    int target, base;
    unsigned before; /* what the target's header could name */
    bool ended, good;
};

/* The event: from now on its promise counts. */
static void on_completed(struct job_listener *l, struct job *job)
{
    struct stream_watch *watch = CONTAINER_OF(l, struct stream_watch, listener);
    struct world_known *known = &watch->w->view.image[watch->target];

    if (strcmp(job->id, watch->id) != 0) {
        return;
    }
    watch->ended = true;
    watch->good = job->ret == 0 && !job->cancelled;
    if (watch->good) {
        known->backing = WORLD_BIT(watch->base);
    } else if (watch->w->faulty) {
        known->backing = watch->before | WORLD_BIT(watch->base); /* it may have been the last step */
    } else {
        known->backing = watch->before;
        if (!job->cancelled) {
            world_break(watch->w, 19, "the stream failed: %s", strerror(-job->ret));
        }
    }
    world_changed(watch->w);
}

static void co_wait_for_job(struct world *w, const char *id)
{
    uint64_t deadline = loop_now() + OP_ENDS_WITHIN_NS;

    while (job_find(id)) {
        co_sleep_ns(OP_POLL_NS);
        if (loop_now() > deadline) {
            world_break(w, 19, "the job does not end (%s%s)", job_status_name(job_find(id)->status),
                        job_find(id)->paused ? ", paused" : "");
            return;
        }
    }
}

/* `device` over everything down to `base` (a slot).  Cancelled after a while when that is not 0. */
static void co_stream(struct world *w, const char *device, int target, int base,
                      uint64_t cancel_after)
{
    struct stream_watch watch = {
        .listener.completed = on_completed, .w = w, .target = target, .base = base
    };
    struct stream_args args = { .device = device,
                                .on_error = w->job_policy,
                                .auto_finalize = true,
                                .auto_dismiss = true,
                                .base = base == NO_IMAGE ? NULL : world_path(base) };
    struct world_known *known = &w->view.image[target];
    struct error err = ERROR_INIT;
    struct job *job;

    watch.id = mem_printf("job%u", w->jobs++);
    args.job_id = watch.id;
    watch.before = known->backing;
    known->backing |= WORLD_BIT(base);
    claim(w, target);
    job_listen(&watch.listener);
    if (co_stream_start(&args, &err) < 0) {
        known->backing = watch.before; /* refused: another job is there, or nothing is to do */
    } else if (cancel_after) {
        co_sleep_ns(cancel_after);
        job = job_find(watch.id);
        if (job) {
            job_cancel(job, false, NULL);
        }
    }
    co_wait_for_job(w, watch.id);
    job_unlisten(&watch.listener);
    claim_end(w, target);
    error_clear(&err);
    free(watch.id);
    world_changed(w);
}

static void co_op_stream(struct world *w, const struct operation *op, unsigned salt)
{
    co_stream(w, "virtio0", w->view.top, NO_IMAGE, 0);
}

static void co_op_stream_base(struct world *w, const struct operation *op, unsigned salt)
{
    co_stream(w, "virtio0", w->view.top, STREAM_BASE, 0);
}

static void co_op_stream_mid(struct world *w, const struct operation *op, unsigned salt)
{
    struct node *mid = node_find("mid");
    int slot = mid ? world_slot(mid->filename) : NO_IMAGE;

    if (slot != NO_IMAGE) {
        co_stream(w, "mid", slot, STREAM_BASE, 0);
    }
}

static void co_op_cancel(struct world *w, const struct operation *op, unsigned salt)
{
    co_stream(w, "virtio0", w->view.top, NO_IMAGE,
              salt ? salt % 64 * 50 * NS_PER_US + 1 : CANCEL_AFTER_NS);
}

/* --- Images ----------------------------------------------------------------------------------- */

int op_next_overlay(const struct world *w)
{
    for (int slot = WORLD_OVERLAYS; slot < WORLD_CREATED; slot++) {
        if (!w->view.image[slot].made) {
            return slot;
        }
    }
    return NO_IMAGE;
}

void op_overlay_is_there(struct world *w, const struct disk *disk, int slot)
{
    struct world_known *known = &w->view.image[slot];

    known->sure = true;
    if (strcmp(disk->root->filename, world_path(slot)) == 0) {
        known->backing = WORLD_BIT(world_slot(disk->root->backing->filename));
        world_sized(known, disk_size(disk));
    }
}

static void co_snapshot(struct world *w, int slot, bool reuse)
{
    struct world_known *known = &w->view.image[slot];
    struct snapshot_args args = { .device = "virtio0", .file = world_path(slot), .reuse = reuse,
                                  .overwrite = true }; /* what a crash has left of it */
    struct error err = ERROR_INIT;

    if (co_snapshot_sync(&args, &err) == 0) {
        op_overlay_is_there(w, w->disk, slot);
    } else {
        known->made = w->faulty; /* refused; the name may be there nevertheless */
    }
    error_clear(&err);
    world_changed(w);
}

/* Who is the top when it is our turn is not known yet. */
void op_begin_overlay(struct world *w, int slot, int top_slot)
{
    const struct world_known *top = &w->view.image[top_slot];

    w->view.image[slot] = (struct world_known){ .made = true, .backing = UINT_MAX };
    memcpy(w->view.image[slot].size, top->size, sizeof(top->size));
}

static void co_op_snapshot(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = op_next_overlay(w);

    if (slot == NO_IMAGE) {
        return;
    }
    op_begin_overlay(w, slot, w->view.top);
    while (w->alone) {
        co_sleep_ns(OP_POLL_NS);
    }
    w->reshapers++;
    co_snapshot(w, slot, false);
    w->reshapers--;
}

int co_op_create_image(const struct world *w, int slot, uint64_t size, const char *backing,
                     const char *backing_format, struct error *err)
{
    json_t *options = json_pack("{s:I, s:I, s:s, s:s*, s:s*}", "size", (json_int_t)size,
                                "cluster_size", (json_int_t)w->format->cluster, "compat",
                                w->format->version == 2 ? "0.10" : "1.1", "backing_file", backing,
                                "backing_fmt", backing_format);
    int ret = driver_qcow2.co_create(world_path(slot), options, err);

    json_decref(options);
    return ret;
}

/* As with `snapshot_blkdev -n`: somebody has made the image for the top as it is, name and size;
 * whoever changes those in between deserves what he gets, so nobody does. */
static void co_op_snapshot_existing(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = op_next_overlay(w);
    struct error err = ERROR_INIT;
    struct node *root;

    if (slot == NO_IMAGE) {
        return;
    }
    op_begin_overlay(w, slot, w->view.top);
    while (w->alone || w->reshapers) {
        co_sleep_ns(OP_POLL_NS);
    }
    w->alone++;
    root = w->disk->root;
    if (co_op_create_image(w, slot, root->size, root->filename + 1, root->driver->name, &err) < 0) {
        op_judge_verb(w, op, -EIO, &err);
        error_clear(&err);
    } else {
        world_sized(&w->view.image[slot], root->size);
        co_snapshot(w, slot, true);
    }
    w->alone--;
}

static void co_op_create(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = w->view.image[WORLD_CREATED].made ? WORLD_CREATED + 1 : WORLD_CREATED;
    struct world_known *known = &w->view.image[slot];
    struct error err = ERROR_INIT;
    int ret;

    if (known->made) {
        return;
    }
    known->made = true;
    ret = co_op_create_image(w, slot, w->model.disk_size, NULL, NULL, &err);
    known->sure = ret == 0;
    op_judge_verb(w, op, ret, &err);
    error_clear(&err);
}

/* --- Size ------------------------------------------------------------------------------------- */

/* What of [from, to) is modelled begins or ends to change. */
static void each_window(struct world *w, uint64_t from, uint64_t to,
                        void (*fn)(struct model *m, uint64_t at, uint64_t len))
{
    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        const struct model_window *window = &w->model.window[i];
        uint64_t start = MAX(from, window->at), end = MIN(to, window->at + window->len);

        if (start < end) {
            fn(&w->model, start, end - start);
        }
    }
}

static void cut_begins(struct model *m, uint64_t at, uint64_t len)
{
    model_begin(m, MODEL_CUT_OFF, at, len, NULL);
}

static void cut_ends(struct model *m, uint64_t at, uint64_t len)
{
    model_end(m, at, len, true); /* or not: it is any of the values */
}

static void co_change_size(struct world *w, const struct operation *op, uint64_t size)
{
    struct node *root = w->disk->root;
    struct world_known *known = &w->view.image[world_slot(root->filename)];
    struct error err = ERROR_INIT;
    uint64_t old = root->size;
    int ret;

    if (node_check_free(root, &err) < 0) {
        error_clear(&err);
        return;
    }
    root->busy_reason = "its size is being changed"; /* as the monitor's command would */
    w->resizes++;
    world_may_be_sized(known, size);
    each_window(w, size, old, cut_begins);
    ret = co_node_truncate(root, size, &err);
    root->busy_reason = NULL;
    w->resizes++;
    each_window(w, size, old, cut_ends);
    if (ret == 0) {
        world_sized(known, size);
        each_window(w, size, old, model_is_zero);
    } else {
        world_may_be_sized(known, old);
    }
    /* -ENOTSUP: version 2 with internal snapshots. */
    op_judge_verb(w, op, ret == -ENOTSUP ? 0 : ret, &err);
    error_clear(&err);
}

static void co_resize(struct world *w, const struct operation *op, uint64_t size)
{
    while (w->alone) {
        co_sleep_ns(OP_POLL_NS);
    }
    w->reshapers++;
    co_change_size(w, op, size);
    w->reshapers--;
}

static void co_op_grow(struct world *w, const struct operation *op, unsigned salt)
{
    uint64_t cluster = w->format->cluster;
    /* So much that another L2 table is needed, or not even another cluster.  Small: a stream may have
     * to write zeroes over all of it. */
    uint64_t table = MIN(cluster * (cluster / 8), GROW_MAX);

    co_resize(w, op,
              disk_size(w->disk) + op->len.bytes + op->len.clusters * table + salt % 64 * 512);
}

static void co_op_shrink(struct world *w, const struct operation *op, unsigned salt)
{
    uint64_t size = disk_size(w->disk), cut = w->format->cluster + 512 + salt % 64 * 512;

    if (size > cut) {
        co_resize(w, op, size - cut);
    }
}

/* --- For tests of the explorer ---------------------------------------------------------------- */

/* What no program of ours does: the first L1 entry of the top gets bits that are reserved. */
static void co_op_damage(struct world *w, const struct operation *op, unsigned salt)
{
    const char *path = world_path(w->view.top);
    uint8_t at[8], entry[8];

    io_sim_read(path, 40, at, sizeof(at));
    store_be64(entry, 0x7f);
    io_sim_write(path, load_be64(at), entry, sizeof(entry));
    world_changed(w);
}

/* A cluster that nobody uses is counted. */
static void co_op_leak(struct world *w, const struct operation *op, unsigned salt)
{
    scene_leak(world_path(w->view.top));
    world_changed(w);
}

/* Somebody writes to the image below the top: one byte behind its end. */
static void co_op_stray(struct world *w, const struct operation *op, unsigned salt)
{
    const struct node *below = w->disk->root->backing;
    uint64_t size;

    if (below && io_sim_size(below->filename, &size) == 0) {
        io_sim_write(below->filename, size, "", 1);
        world_changed(w);
    }
}

static void set_mark(const struct world *w, bool marked)
{
    uint8_t bits = marked ? QCOW2_INCOMPAT_CORRUPT : 0;

    io_sim_write(world_path(w->view.top), LAST_INCOMPATIBLE, &bits, 1);
}

/* The top gets the corrupt bit, as if a lie had been found out, or loses it. */
static void co_op_mark(struct world *w, const struct operation *op, unsigned salt)
{
    set_mark(w, true);
    world_changed(w);
}

static void co_op_unmark(struct world *w, const struct operation *op, unsigned salt)
{
    set_mark(w, false);
    world_changed(w);
}

/* A job that somebody pauses and then waits for, or ~N: forgets. */
static void co_op_forget(struct world *w, const struct operation *op, unsigned salt)
{
    struct stream_args args = { .device = "virtio0", .job_id = "forgotten" };
    struct error err = ERROR_INIT;

    if (co_stream_start(&args, &err) == 0) {
        job_pause(job_find(args.job_id), NULL);
        if (!salt) {
            co_wait_for_job(w, args.job_id);
        }
    }
    error_clear(&err);
}

/* A request without an answer. */
static void co_op_hang(struct world *w, const struct operation *op, unsigned salt)
{
    struct co_queue nobody = CO_QUEUE_INIT(nobody);

    co_queue_wait(&nobody);
}

/* --- The table -------------------------------------------------------------------------------- */

const struct operation operations[] = {
    { .name = "write-part", .layers = 1, .co_run = co_op_write, .at = { 1, 0 }, .len = { 0, 512 } },
    { .name = "write-whole", .layers = 1, .co_run = co_op_write, .at = { 2, 0 }, .len = { 1, 0 } },
    { .name = "write-span", .layers = 1, .co_run = co_op_write,
      .at = { 2, 512 }, .len = { 1, 1024 } },
    { .name = "write-far", .layers = 1, .co_run = co_op_write, .len = { 0, 1024 }, .far = true },
    { .name = "flush", .layers = 1, .co_run = co_op_flush },
    { .name = "discard-whole", .layers = 1, .co_run = co_op_discard,
      .at = { 1, 0 }, .len = { 1, 0 } },
    { .name = "discard-span", .layers = 1, .co_run = co_op_discard,
      .at = { 1, 512 }, .len = { 2, 0 } },
    { .name = "zero-whole", .layers = 1, .co_run = co_op_zero, .len = { 1, 0 } },
    { .name = "zero-part", .layers = 1, .co_run = co_op_zero, .at = { 2, 0 }, .len = { 0, 512 } },
    { .name = "zero-keep", .layers = 1, .co_run = co_op_zero_keep,
      .at = { 1, 512 }, .len = { 1, 0 } },
    { .name = "snapshot", .layers = 1, .co_run = co_op_snapshot },
    { .name = "snapshot-existing", .layers = 1, .co_run = co_op_snapshot_existing },
    { .name = "stream", .layers = 2, .co_run = co_op_stream },
    { .name = "stream-base", .layers = 3, .co_run = co_op_stream_base },
    { .name = "stream-mid", .layers = 4, .co_run = co_op_stream_mid },
    { .name = "cancel", .layers = 2, .co_run = co_op_cancel },
    { .name = "set-backing", .layers = 2, .co_run = co_op_set_backing },
    { .name = "set-backing-mid", .layers = 3, .co_run = co_op_set_backing_below },
    { .name = "commit", .layers = 2, .co_run = co_op_commit },
    { .name = "copy-on-read", .layers = 2, .co_run = co_op_read_kept,
      .at = { 1, 512 }, .len = { 1, 0 } },
    { .name = "snapshot-node", .layers = 1, .co_run = co_op_snapshot_node },
    { .name = "snapshot-group", .layers = 1, .co_run = co_op_snapshot_group, .second = true },
    { .name = "blockdev-create", .layers = 1, .co_run = co_op_blockdev_create },
    { .name = "inner-make", .layers = 1, .co_run = co_op_inner_make, .apart = true },
    { .name = "inner-apply", .layers = 1, .co_run = co_op_inner_apply, .apart = true },
    { .name = "inner-delete", .layers = 1, .co_run = co_op_inner_delete, .apart = true },
    { .name = "create", .layers = 1, .co_run = co_op_create },
    { .name = "grow", .layers = 1, .co_run = co_op_grow, .len = { 1, 512 } },
    { .name = "grow-part", .layers = 1, .co_run = co_op_grow, .len = { 0, 1536 } },
    { .name = "shrink", .layers = 1, .co_run = co_op_shrink },
    { .name = "reopen", .layers = 1, .co_run = co_op_reopen, .looks = true },
    { .name = "read", .layers = 1, .co_run = co_op_read, .len = { 3, 512 }, .looks = true },
};
const unsigned n_operations = ARRAY_SIZE(operations);

const struct operation *operation_find(const char *name)
{
    static const struct operation others[] = {
        { .name = "damage", .layers = 1, .co_run = co_op_damage },
        { .name = "leak", .layers = 1, .co_run = co_op_leak },
        { .name = "stray", .layers = 1, .co_run = co_op_stray },
        { .name = "mark", .layers = 1, .co_run = co_op_mark },
        { .name = "unmark", .layers = 1, .co_run = co_op_unmark },
        { .name = "forget", .layers = 2, .co_run = co_op_forget },
        { .name = "hang", .layers = 1, .co_run = co_op_hang },
    };

    for (unsigned i = 0; i < n_operations; i++) {
        if (strcmp(operations[i].name, name) == 0) {
            return &operations[i];
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        if (strcmp(others[i].name, name) == 0) {
            return &others[i];
        }
    }
    return NULL;
}
