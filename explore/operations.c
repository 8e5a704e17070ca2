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
#include "explore/faults.h"
#include "explore/operations.h"
#include "explore/scene.h"
#include "jobs/job.h"

#define CANCEL_AFTER_NS (400 * NS_PER_US)
#define GROW_MAX (2u << 20)
#define STREAM_BASE 0

/* --- The guest -------------------------------------------------------------------------------- */

struct range op_place(const struct world *w, const struct operation *op, unsigned salt)
{
    const struct model *m = &w->model;
    uint64_t cluster = w->format->cluster;
    struct range r = { op->at.clusters * cluster + op->at.bytes,
                       op->len.clusters * cluster + op->len.bytes };
    const struct model_window *window;
    uint64_t size = disk_size(w->disk);
    struct random rnd;

    if (op->far) {
        r.at += m->window[1].at + m->window[1].len / 2 / MODEL_SECTOR * MODEL_SECTOR - MODEL_SECTOR;
    }
    if (salt) {
        random_seed(&rnd, salt);
        window = &m->window[random_below(&rnd, MODEL_DISK_WINDOWS)];
        r.at = window->at + random_below(&rnd, window->len / MODEL_SECTOR) * MODEL_SECTOR;
        r.len = (1 + random_below(&rnd, 3 * cluster / MODEL_SECTOR)) * MODEL_SECTOR;
        if (random_below(&rnd, 2)) {
            r.at = ROUND_DOWN(r.at, cluster);
            r.len = ROUND_UP(r.len, cluster);
        }
        r.len = MIN(r.len, window->at + window->len - r.at);
    }
    r.len = r.at < size ? MIN(r.len, size - r.at) : 0; /* the disk may have become smaller */
    return r;
}

void op_judge_request(struct world *w, const struct operation *op, unsigned resizes, bool is_read,
                      int ret)
{
    if (ret < 0 && resizes == w->resizes && !faults_allow(w, is_read, -ret)) {
        world_break(w, 18, "%s: %s", op->name, strerror(-ret));
    }
    world_changed(w);
}

void op_judge_verb(struct world *w, const struct operation *op, int ret, const struct error *err)
{
    if (ret < 0 && !w->faulty) {
        world_break(w, 18, "%s: %s", op->name, err->text);
    }
    world_changed(w);
}

static void co_op_write(struct world *w, const struct operation *op, unsigned salt)
{
    struct range r = op_place(w, op, salt);
    AUTOFREE uint8_t *buf = mem_alloc(r.len + 1);
    struct iovec iov = { .iov_base = buf, .iov_len = r.len };
    unsigned resizes = w->resizes;

    if (!r.len) {
        return;
    }
    model_begin(&w->model, MODEL_WRITE, r.at, r.len, buf);
    int ret = co_disk_write(w->disk, r.at, &iov, 1);
    model_end(&w->model, r.at, r.len, ret == 0);
    op_judge_request(w, op, resizes, false, ret);
}

static void co_zero(struct world *w, const struct operation *op, unsigned salt, bool may_unmap)
{
    struct range r = op_place(w, op, salt);
    unsigned resizes = w->resizes;

    if (!r.len) {
        return;
    }
    model_begin(&w->model, MODEL_ZERO, r.at, r.len, NULL);
    int ret = co_disk_zero(w->disk, r.at, r.len, may_unmap);
    model_end(&w->model, r.at, r.len, ret == 0);
    op_judge_request(w, op, resizes, false, ret);
}

static void co_op_zero(struct world *w, const struct operation *op, unsigned salt)
{
    co_zero(w, op, salt, true);
}

static void co_op_zero_keep(struct world *w, const struct operation *op, unsigned salt)
{
    co_zero(w, op, salt, false);
}

static void co_op_discard(struct world *w, const struct operation *op, unsigned salt)
{
    struct range r = op_place(w, op, salt);
    unsigned resizes = w->resizes;

    if (!r.len) {
        return;
    }
    model_begin(&w->model, MODEL_DISCARD, r.at, r.len, NULL);
    int ret = co_disk_discard(w->disk, r.at, r.len);
    model_end(&w->model, r.at, r.len, ret == 0);
    op_judge_request(w, op, resizes, false, ret);
}

/* What a reader is shown between the two moments. */
static void judge_read(struct world *w, const struct operation *op, struct range r,
                       const struct model_bounds *before, const uint8_t *buf)
{
    struct model_bounds *bounds = model_shown(&w->model);

    for (uint64_t at = 0; at < r.len; at += MODEL_SECTOR) {
        uint32_t sector = model_sector_at(&w->model, r.at + at);

        bounds->of[sector].floor = before->of[sector].floor;
        if (!model_judge_one(&w->model, bounds, sector, buf + at) &&
            !(w->tearing && model_judge_torn(&w->model, bounds, sector, buf + at))) {
            world_break(w, 4, "%s: sector %u shows what it never held", op->name, sector);
        }
    }
    free(bounds);
}

static void co_read(struct world *w, const struct operation *op, unsigned salt, bool keep)
{
    struct range r = op_place(w, op, salt);
    AUTOFREE uint8_t *buf = mem_alloc(r.len + 1);
    struct iovec iov = { .iov_base = buf, .iov_len = r.len };
    AUTOFREE struct model_bounds *before = model_shown(&w->model);
    struct node *root = w->disk->root;
    unsigned resizes = w->resizes;

    if (!r.len) {
        return;
    }
    node_ref(root);
    root->copy_on_read = keep;
    int ret = co_disk_read(w->disk, r.at, &iov, 1);
    root->copy_on_read = false;
    co_node_unref(root);
    if (ret == 0 && resizes == w->resizes && !w->lying) {
        judge_read(w, op, r, before, buf);
    }
    /* It may also be the copy that could not be written. */
    op_judge_request(w, op, resizes, !keep || !faults_allow(w, false, -ret), ret);
}

static void co_op_read(struct world *w, const struct operation *op, unsigned salt)
{
    co_read(w, op, salt, false);
}

/* With copy-on-read=on. */
static void co_op_read_kept(struct world *w, const struct operation *op, unsigned salt)
{
    co_read(w, op, salt, true);
}

static void co_op_flush(struct world *w, const struct operation *op, unsigned salt)
{
    uint16_t *promise = model_flush_begin(&w->model, false);
    int ret = co_disk_flush(w->disk);

    if (ret == 0) {
        model_flushed(&w->model, promise);
    }
    free(promise);
    op_judge_request(w, op, w->resizes, false, ret);
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
        w->may_change[slot] = true;
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
