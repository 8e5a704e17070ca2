/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations of the guest: where they happen, and what the model is told of them.  See operations.h.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "explore/faults.h"
#include "explore/operations.h"

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

void co_op_write(struct world *w, const struct operation *op, unsigned salt)
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

void co_op_zero(struct world *w, const struct operation *op, unsigned salt)
{
    co_zero(w, op, salt, true);
}

void co_op_zero_keep(struct world *w, const struct operation *op, unsigned salt)
{
    co_zero(w, op, salt, false);
}

void co_op_discard(struct world *w, const struct operation *op, unsigned salt)
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

void co_op_read(struct world *w, const struct operation *op, unsigned salt)
{
    co_read(w, op, salt, false);
}

/* With copy-on-read=on. */
void co_op_read_kept(struct world *w, const struct operation *op, unsigned salt)
{
    co_read(w, op, salt, true);
}

void co_op_flush(struct world *w, const struct operation *op, unsigned salt)
{
    uint16_t *promise = model_flush_begin(&w->model, false);
    int ret = co_disk_flush(w->disk);

    if (ret == 0) {
        model_flushed(&w->model, promise);
    }
    free(promise);
    op_judge_request(w, op, w->resizes, false, ret);
}
