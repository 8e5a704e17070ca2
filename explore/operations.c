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
#include "core/mem.h"
#include "explore/plan.h"
#include "jobs/job.h"

#define CANCEL_AFTER_NS (400 * NS_PER_US)
#define JOB_POLL_NS (100 * NS_PER_US)
#define JOB_ENDS_WITHIN_NS (60 * NS_PER_S)
#define STREAM_BASE 0

/* --- The guest -------------------------------------------------------------------------------- */

struct range {
    uint64_t at, len;
};

static struct range place(const struct world *w, const struct operation *op, unsigned salt)
{
    const struct model *m = &w->model;
    uint64_t cluster = w->format->cluster;
    struct range r = { op->at_clusters * cluster + op->at_bytes,
                       op->len_clusters * cluster + op->len_bytes };
    const struct model_window *window;
    struct random rnd;

    if (op->far) {
        r.at += m->window[1].at + m->window[1].len / 2 / MODEL_SECTOR * MODEL_SECTOR - MODEL_SECTOR;
    }
    if (salt) {
        random_seed(&rnd, salt);
        window = &m->window[random_below(&rnd, MODEL_WINDOWS)];
        r.at = window->at + random_below(&rnd, window->len / MODEL_SECTOR) * MODEL_SECTOR;
        r.len = (1 + random_below(&rnd, 3 * cluster / MODEL_SECTOR)) * MODEL_SECTOR;
        if (random_below(&rnd, 2)) {
            r.at = ROUND_DOWN(r.at, cluster);
            r.len = ROUND_UP(r.len, cluster);
        }
        r.len = MIN(r.len, window->at + window->len - r.at);
    }
    return r;
}

static void judge_result(struct world *w, const struct operation *op, int ret)
{
    if (ret < 0) {
        world_break(w, 18, "%s: %s", op->name, strerror(-ret));
    }
    world_changed(w);
}

static void co_op_write(struct world *w, const struct operation *op, unsigned salt)
{
    struct range r = place(w, op, salt);
    AUTOFREE uint8_t *buf = mem_alloc(r.len);
    struct iovec iov = { .iov_base = buf, .iov_len = r.len };

    model_begin(&w->model, MODEL_WRITE, r.at, r.len, buf);
    int ret = co_disk_write(w->disk, r.at, &iov, 1);
    model_end(&w->model, r.at, r.len);
    judge_result(w, op, ret);
}

static void co_op_zero(struct world *w, const struct operation *op, unsigned salt)
{
    struct range r = place(w, op, salt);

    model_begin(&w->model, MODEL_ZERO, r.at, r.len, NULL);
    int ret = co_disk_zero(w->disk, r.at, r.len, true);
    model_end(&w->model, r.at, r.len);
    judge_result(w, op, ret);
}

static void co_op_discard(struct world *w, const struct operation *op, unsigned salt)
{
    struct range r = place(w, op, salt);

    model_begin(&w->model, MODEL_DISCARD, r.at, r.len, NULL);
    int ret = co_disk_discard(w->disk, r.at, r.len);
    model_end(&w->model, r.at, r.len);
    judge_result(w, op, ret);
}

static void co_op_flush(struct world *w, const struct operation *op, unsigned salt)
{
    uint16_t *promise = model_flush_begin(&w->model);
    int ret = co_disk_flush(w->disk);

    if (ret == 0) {
        model_flushed(&w->model, promise);
    }
    free(promise);
    judge_result(w, op, ret);
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
    uint64_t deadline = loop_now() + JOB_ENDS_WITHIN_NS;

    while (job_find(id)) {
        co_sleep_ns(JOB_POLL_NS);
        if (loop_now() > deadline) {
            world_break(w, 19, "the job does not end");
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

static void co_op_snapshot(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = WORLD_OVERLAYS;
    struct world_known *known;
    struct error err = ERROR_INIT;
    struct snapshot_args args = { .device = "virtio0", .overwrite = true /* what a crash has left */ };

    while (slot < WORLD_CREATED && w->view.image[slot].made) {
        slot++;
    }
    if (slot == WORLD_CREATED) {
        return;
    }
    known = &w->view.image[slot];
    /* Who is the top when it is our turn is not known yet. */
    *known = (struct world_known){ .made = true, .backing = UINT_MAX };
    args.file = world_path(slot);
    if (co_snapshot_sync(&args, &err) == 0) {
        known->sure = true;
        if (strcmp(w->disk->root->filename, args.file) == 0) {
            known->backing = WORLD_BIT(world_slot(w->disk->root->backing->filename));
        }
    } else {
        known->made = false; /* refused */
    }
    error_clear(&err);
    world_changed(w);
}

static void co_op_create(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = w->view.image[WORLD_CREATED].made ? WORLD_CREATED + 1 : WORLD_CREATED;
    struct world_known *known = &w->view.image[slot];
    struct error err = ERROR_INIT;
    json_t *options;

    if (known->made) {
        return;
    }
    known->made = true;
    options = json_pack("{s:I, s:I, s:s}", "size", (json_int_t)w->model.disk_size, "cluster_size",
                        (json_int_t)w->format->cluster, "compat",
                        w->format->version == 2 ? "0.10" : "1.1");
    if (driver_qcow2.co_create(world_path(slot), options, &err) < 0) {
        world_break(w, 18, "create: %s", err.text);
    }
    json_decref(options);
    error_clear(&err);
    known->sure = true;
    world_changed(w);
}

/* Another spelling of the same name, so that every content stays what it is. */
static void co_op_set_backing(struct world *w, const struct operation *op, unsigned salt)
{
    static const char *const spellings[] = { "./", "", "././././././././", "././" };
    struct node *root = w->disk->root;
    struct error err = ERROR_INIT;

    if (!root->backing || root->backing_frozen || root->busy_reason) {
        return;
    }
    AUTOFREE char *name = mem_printf("%s%s", spellings[w->spelling++ % ARRAY_SIZE(spellings)],
                                     root->backing->filename + 1);
    root->busy_reason = "its backing file is being changed"; /* as the monitor's command would */
    int ret = root->driver->co_set_backing(root, name, root->backing_format, &err);

    root->busy_reason = NULL;
    if (ret < 0 && ret != -ENOSPC) { /* no room for the name in a header of 512 bytes */
        world_break(w, 18, "set-backing: %s", err.text);
    }
    error_clear(&err);
    world_changed(w);
}

/* --- The table -------------------------------------------------------------------------------- */

const struct operation operations[] = {
    { "write-part", 1, co_op_write, 1, 0, 0, 512, false },
    { "write-whole", 1, co_op_write, 2, 0, 1, 0, false },
    { "write-span", 1, co_op_write, 2, 512, 1, 1024, false },
    { "write-far", 1, co_op_write, 0, 0, 0, 1024, true },
    { "flush", 1, co_op_flush, 0, 0, 0, 0, false },
    { "discard-whole", 1, co_op_discard, 1, 0, 1, 0, false },
    { "discard-span", 1, co_op_discard, 1, 512, 2, 0, false },
    { "zero-whole", 1, co_op_zero, 0, 0, 1, 0, false },
    { "zero-part", 1, co_op_zero, 2, 0, 0, 512, false },
    { "snapshot", 1, co_op_snapshot, 0, 0, 0, 0, false },
    { "stream", 2, co_op_stream, 0, 0, 0, 0, false },
    { "stream-base", 3, co_op_stream_base, 0, 0, 0, 0, false },
    { "stream-mid", 4, co_op_stream_mid, 0, 0, 0, 0, false },
    { "cancel", 2, co_op_cancel, 0, 0, 0, 0, false },
    { "set-backing", 2, co_op_set_backing, 0, 0, 0, 0, false },
    { "create", 1, co_op_create, 0, 0, 0, 0, false },
};
const unsigned n_operations = ARRAY_SIZE(operations);
