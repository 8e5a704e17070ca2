/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations that are commands of the monitor, and go through its tables: what the explorer runs is
 * what an operator runs.  See operations.h.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/claims.h"
#include "explore/operations.h"
#include "jobs/job.h"
#include "monitor/monitor.h"

static void say_nothing(struct monitor *mon, const char *text, size_t len)
{
}

/* Takes over `args`.  What is in the way of a new image is a crash's leavings, so it may go. */
static int co_verb(const struct command *const *tables, const char *name, json_t *args,
                   struct error *err)
{
    struct monitor mon = { .compat = true, .write = say_nothing };
    const struct command *cmd = command_find(tables, name, false);
    json_t *result = NULL;
    int ret;

    assert(cmd && args);
    ret = cmd->co_run(&mon, args, &result, err);
    monitor_free_json(result);
    json_decref(args);
    return ret;
}

/* --- commit ----------------------------------------------------------------------------------- */

static bool is_busy(const struct node *node)
{
    return node->busy_reason || node->backing_frozen;
}

void co_op_commit(struct world *w, const struct operation *op, unsigned salt)
{
    struct node *top = w->disk->root, *below = top->backing;
    unsigned begun = w->begun;
    bool alone = w->active == 1;
    struct error err = ERROR_INIT;
    uint64_t size = top->size;
    int slot, below_slot, ret;

    if (!below || is_busy(top) || is_busy(below)) {
        return;
    }
    slot = world_slot(top->filename);
    below_slot = world_slot(below->filename);
    struct world_known *known = &w->view.image[below_slot];

    claim(w, below_slot);
    if (below->size < size) {
        world_may_be_sized(known, size);
    }
    ret = co_verb(hmp_command_tables, "commit", json_pack("{s:s}", "device", "virtio0"), &err);
    claim_end(w, below_slot);
    if (ret == 0 && below->size <= size) {
        world_sized(known, size);
    }
    /* Somebody who wrote meanwhile has written into the emptied overlay. */
    w->view.image[slot].empty = ret == 0 && alone && w->begun == begun;
    error_set(&err, "%s", strerror(-ret));
    /* -ENOTSUP: version 2 with internal snapshots cannot grow. */
    op_judge_verb(w, op, ret == -ENOTSUP && below->size < size ? 0 : ret, &err);
    error_clear(&err);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

/* The guest of the second disk, meanwhile. */
struct guest {
    struct world *w;
    bool gone;
};

static void co_second_write(struct world *w, uint64_t at, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_alloc(len);
    struct iovec iov = { .iov_base = buf, .iov_len = len };

    model_begin(&w->model, MODEL_WRITE, MODEL_SECOND_AT + at, len, buf);
    int ret = co_disk_write(w->disk2, at, &iov, 1);
    model_end(&w->model, MODEL_SECOND_AT + at, len, ret == 0);
    if (ret < 0 && !w->faulty) {
        world_break(w, 18, "a write on the second disk: %s", strerror(-ret));
    }
    world_changed(w);
}

static void co_second_flush(struct world *w)
{
    uint16_t *promise = model_flush_begin(&w->model, true);

    if (co_disk_flush(w->disk2) == 0) {
        model_flushed(&w->model, promise);
    }
    free(promise);
    world_changed(w);
}

static CO_ENTRY void co_second_guest(void *arg)
{
    struct guest *guest = arg;
    uint64_t cluster = guest->w->format->cluster;

    co_second_write(guest->w, cluster, 1024 > cluster ? 512 : 1024);
    co_second_flush(guest->w);
    co_second_write(guest->w, cluster + 512 % cluster, cluster);
    guest->gone = true;
}

static json_t *group_actions(int slot, int slot2, bool abort)
{
    json_t *actions = json_pack(
        "[{s:s, s:{s:s, s:s}}, {s:s, s:{s:s, s:s}}]", "type", "blockdev-snapshot-sync", "data",
        "device", "virtio0", "snapshot-file", world_path(slot), "type", "blockdev-snapshot-sync",
        "data", "device", "virtio1", "snapshot-file", world_path(slot2));

    if (abort) {
        json_array_append_new(actions, json_pack("{s:s, s:{}}", "type", "abort", "data"));
    }
    return json_pack("{s:o}", "actions", actions);
}

static bool is_there(int slot)
{
    uint64_t size;

    return io_sim_size(world_path(slot), &size) == 0;
}

/* All new or none (15).  What of it was there before is a crash's leavings. */
static void judge_group(struct world *w, int slot, int slot2, int ret, bool abort, bool before)
{
    world_look(w);
    if (ret == 0) {
        op_overlay_is_there(w, w->disk, slot);
        op_overlay_is_there(w, w->disk2, slot2);
    } else {
        w->view.image[slot].made = w->view.image[slot2].made = w->faulty;
    }
    if (ret == 0 && abort) {
        world_break(w, 15, "a group of snapshots with an abort in it was done");
    } else if (ret < 0 && (w->view.top == slot || w->view.top2 == slot2)) {
        world_break(w, 15, "a group of snapshots has failed, but a disk has its overlay");
    } else if (ret < 0 && !w->faulty && !before && (is_there(slot) || is_there(slot2))) {
        world_break(w, 15, "a group of snapshots has failed and left an image");
    }
}

/* Two disks at one moment; now and then with something in the group that fails. */
void co_op_snapshot_group(struct world *w, const struct operation *op, unsigned salt)
{
    int slot2 = w->view.image[WORLD_SECOND_OVERLAYS].made ? WORLD_SECOND_OVERLAYS + 1
                                                          : WORLD_SECOND_OVERLAYS;
    int slot = op_next_overlay(w);
    struct guest guest = { .w = w };
    struct error err = ERROR_INIT;
    bool abort = salt % 4 == 3, before;

    if (slot == NO_IMAGE || w->view.image[slot2].made) {
        return;
    }
    op_begin_overlay(w, slot, w->view.top);
    op_begin_overlay(w, slot2, w->view.top2);
    while (w->alone || w->group != NO_IMAGE) {
        co_sleep_ns(OP_POLL_NS);
    }
    w->reshapers++;
    w->group = slot;
    w->group2 = slot2;
    before = is_there(slot) || is_there(slot2);
    co_start(co_second_guest, &guest);
    int ret = co_verb(qmp_command_tables, "transaction", group_actions(slot, slot2, abort), &err);

    judge_group(w, slot, slot2, ret, abort, before);
    w->group = w->group2 = NO_IMAGE;
    w->reshapers--;
    world_changed(w);
    while (!guest.gone) {
        co_sleep_ns(OP_POLL_NS);
    }
    error_clear(&err);
}

/* The image has been made for the top as it is and opened without its backing file. */
static int co_put_on_top(struct world *w, int slot, struct error *err)
{
    struct node *root = w->disk->root, *overlay;
    AUTOFREE char *name = mem_printf("over%u", w->jobs++);
    int ret = co_op_create_image(w, slot, root->size, root->filename + 1, root->driver->name, err);
    json_t *options;

    if (ret < 0) {
        return ret;
    }
    world_sized(&w->view.image[slot], root->size);
    options = json_pack("{s:s, s:s, s:n, s:s}", "driver", "qcow2", "node-name", name, "backing",
                        "discard", "unmap");
    overlay = co_node_open(world_path(slot), options, err);
    json_decref(options);
    if (!overlay) {
        return -EIO;
    }
    ret = co_verb(qmp_command_tables, "blockdev-snapshot",
                  json_pack("{s:s, s:s}", "node", "virtio0", "overlay", name), err);
    if (ret == 0) {
        op_overlay_is_there(w, w->disk, slot);
    }
    co_node_unref(overlay);
    return ret;
}

void co_op_snapshot_node(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = op_next_overlay(w);
    struct error err = ERROR_INIT;

    if (slot == NO_IMAGE) {
        return;
    }
    op_begin_overlay(w, slot, w->view.top);
    while (w->alone || w->reshapers) {
        co_sleep_ns(OP_POLL_NS);
    }
    w->alone++;
    if (co_put_on_top(w, slot, &err) < 0) {
        w->view.image[slot].made = w->faulty; /* refused; the name is there nevertheless */
    }
    w->alone--;
    error_clear(&err);
    world_changed(w);
}

/* --- blockdev-create -------------------------------------------------------------------------- */

static int co_create_job(struct world *w, json_t *options, struct error *err)
{
    AUTOFREE char *id = mem_printf("create%u", w->jobs++);
    uint64_t deadline = loop_now() + OP_ENDS_WITHIN_NS;
    struct job *job;
    int ret = co_verb(qmp_command_tables, "blockdev-create",
                      json_pack("{s:s, s:o}", "job-id", id, "options", options), err);

    while (ret == 0 && (job = job_find(id)) && job->status != JOB_CONCLUDED) {
        co_sleep_ns(OP_POLL_NS);
        if (loop_now() > deadline) {
            world_break(w, 19, "blockdev-create does not end");
            return -EIO;
        }
    }
    if (ret == 0) {
        job = job_find(id);
        ret = job->ret;
        error_set(err, "%s", ret < 0 ? strerror(-ret) : "");
        job_dismiss(job, NULL);
    }
    return ret;
}

/* First the file, then the image in it. */
void co_op_blockdev_create(struct world *w, const struct operation *op, unsigned salt)
{
    int slot = w->view.image[WORLD_CREATED].made ? WORLD_CREATED + 1 : WORLD_CREATED;
    struct world_known *known = &w->view.image[slot];
    struct error err = ERROR_INIT;
    int ret;

    if (known->made) {
        return;
    }
    known->made = true;
    ret = co_create_job(w,
                        json_pack("{s:s, s:s, s:i}", "driver", "file", "filename",
                                  world_path(slot), "size", 0),
                        &err);
    known->named = ret == 0;
    world_changed(w);
    if (ret == 0) {
        error_clear(&err);
        ret = co_create_job(
            w,
            json_pack("{s:s, s:{s:s, s:s}, s:I, s:I, s:s}", "driver", "qcow2", "file", "driver",
                      "file", "filename", world_path(slot), "size",
                      (json_int_t)w->model.disk_size, "cluster-size",
                      (json_int_t)w->format->cluster, "version",
                      w->format->version == 2 ? "v2" : "v3"),
            &err);
    }
    known->sure = ret == 0;
    op_judge_verb(w, op, ret, &err);
    error_clear(&err);
}

/* --- blockdev-reopen --------------------------------------------------------------------------- */

static const char *given(const struct node *node, const char *key)
{
    return json_string_value(json_object_get(node->options, key));
}

/* Other policies for the top, past the page cache or through it; the image and all below it stay. */
void co_op_reopen(struct world *w, const struct operation *op, unsigned salt)
{
    struct node *top = w->disk->root;
    struct error err = ERROR_INIT;

    if (is_busy(top) || top->driver != &driver_qcow2) {
        return;
    }
    int ret = co_verb(qmp_command_tables, "blockdev-reopen",
                      json_pack("{s:[{s:s, s:s, s:s?, s:s, s:s, s:{s:b}, s:s*, s:s*}]}", "options",
                                "driver", "qcow2", "node-name", top->name, "backing",
                                top->backing ? top->backing->name : NULL, "discard", "unmap",
                                "detect-zeroes", salt % 2 ? "unmap" : "off", "cache", "direct",
                                salt / 2 % 2, "l2-cache-size", given(top, "l2-cache-size"),
                                "refcount-cache-size", given(top, "refcount-cache-size")),
                      &err);

    op_judge_verb(w, op, ret == -EBUSY ? 0 : ret, &err); /* a job has come meanwhile */
    error_clear(&err);
}

/* --- change-backing-file ---------------------------------------------------------------------- */

/* Another spelling of the same name, so that every content stays what it is. */
static void co_spell(struct world *w, const struct operation *op, struct node *image)
{
    static const char *const spellings[] = { "./", "", "././././././././", "././" };
    struct error err = ERROR_INIT;

    if (!image || !image->backing || is_busy(image)) {
        return;
    }
    AUTOFREE char *name = mem_printf("%s%s", spellings[w->spelling++ % ARRAY_SIZE(spellings)],
                                     image->backing->filename + 1);
    int slot = world_slot(image->filename);

    claim(w, slot);
    int ret = co_verb(qmp_command_tables, "change-backing-file",
                      json_pack("{s:s, s:s, s:s}", "device", "virtio0", "image-node-name",
                                image->name, "backing-file", name),
                      &err);
    claim_end(w, slot);

    /* -ENOSPC: no room for the name in a header of 512 bytes. */
    op_judge_verb(w, op, ret == -ENOSPC ? 0 : ret, &err);
    error_clear(&err);
}

void co_op_set_backing(struct world *w, const struct operation *op, unsigned salt)
{
    co_spell(w, op, w->disk->root);
}

void co_op_set_backing_below(struct world *w, const struct operation *op, unsigned salt)
{
    co_spell(w, op, w->disk->root->backing);
}
