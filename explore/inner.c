/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots of the top made, applied and deleted as the image tool does it: the program
 * has closed the chain, the tool opens the one image, and afterwards the guest goes on.  See
 * operations.h.
 *
 * There are two at most: "inner", which images of some chains have from the first, and "made".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/io-sim.h"
#include "core/mem.h"
#include "explore/checker.h"
#include "explore/operations.h"

enum { INNER, MADE };

/* --- What it will show ------------------------------------------------------------------------ */

static void read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
    io_sim_read(arg, offset, buf, len);
}

static struct checker_image *look_at(const struct world *w, int slot)
{
    struct checker_source source = { .arg = (char *)world_path(slot), .read = read_image,
                                     .flags_may_lie = true };
    struct checker_report report;

    io_sim_size(world_path(slot), &source.size);
    return slot == 0 && w->shape->raw_base ? checker_open_raw(&source)
                                           : checker_open_qcow2(&source, &report);
}

static uint64_t active_content(const struct world *w, int slot)
{
    struct checker_image *image = look_at(w, slot);
    uint64_t content = image ? checker_active(image) : 0;

    checker_close(image);
    return content;
}

static bool show(struct checker_image *image, unsigned which)
{
    char name[32];
    uint64_t content;

    for (unsigned i = 0; checker_snapshot(image, i, name, sizeof(name), &content); i++) {
        if (strcmp(name, world_inner_names[which]) == 0) {
            return checker_show_snapshot(image, i);
        }
    }
    return false;
}

/* The first disk's windows and size once that snapshot of the top is applied. */
static bool foresee(const struct world *w, unsigned which, uint8_t *content, uint64_t *size)
{
    struct checker_image *chain[WORLD_IMAGES];
    unsigned n = 0;
    bool good = true;

    for (int slot = w->view.top; slot != NO_IMAGE && good && n < WORLD_IMAGES;) {
        struct checker_image *image = look_at(w, slot);

        good = image && (n > 0 || show(image, which));
        slot = good ? world_slot(checker_backing(image)) : NO_IMAGE;
        chain[n++] = image;
    }
    *size = good ? checker_size(chain[0]) : 0;
    for (unsigned i = 0; i < MODEL_DISK_WINDOWS && good; i++) {
        const struct model_window *window = &w->model.window[i];

        good = checker_read(chain, n, window->at, content, window->len);
        content += window->len;
    }
    while (n-- > 0) {
        checker_close(chain[n]);
    }
    return good;
}

/* --- The tool --------------------------------------------------------------------------------- */

static struct node *co_begin(struct world *w, struct world_known *known)
{
    json_t *options = json_pack("{s:s, s:n}", "driver", "qcow2", "backing");
    struct error err = ERROR_INIT;
    struct node *node;

    known->in_change = true;
    world_changed(w);
    node = co_node_open(world_path(w->view.top), options, &err);
    json_decref(options);
    if (!node) {
        world_break(w, 1, "the image tool cannot open the image: %s", err.text);
        error_clear(&err);
    }
    return node;
}

/* -ERANGE: counts of that width can be no larger. */
static void co_end(struct world *w, const struct operation *op, struct world_known *known,
                   struct node *node, bool lies, int ret)
{
    struct error err = ERROR_INIT;

    error_set(&err, "%s", strerror(-ret));
    op_judge_verb(w, op, ret == -ERANGE ? 0 : ret, &err);
    error_clear(&err);
    co_node_unref(node);
    known->in_change = lies;
    world_changed(w);
}

/* The chain is closed, and there is an image that can have such things.  *lies: a crash has left
 * flags that version 2 cannot say anything about. */
static struct world_known *co_take(struct world *w, bool *lies)
{
    struct world_known *known = &w->view.image[w->view.top];

    if (w->view.top == 0 && w->shape->raw_base) {
        return NULL;
    }
    *lies = known->in_change && w->format->version == 2;
    co_world_put_away(w);
    return known;
}

static int find_one(const struct world_known *known)
{
    return known->inner[MADE].must_be ? MADE : known->inner[INNER].must_be ? INNER : -1;
}

void co_op_inner_make(struct world *w, const struct operation *op, unsigned salt)
{
    bool lies;
    struct world_known *known = co_take(w, &lies);
    struct node *node;

    if (!known) {
        return;
    }
    struct world_inner *made = &known->inner[MADE];

    if (!made->may_be) {
        *made = (struct world_inner){ true, false, active_content(w, w->view.top) };
        node = co_begin(w, known);
        if (node) {
            int ret = co_qcow2_snapshot_make(node, world_inner_names[MADE]);

            made->may_be = made->must_be = ret == 0;
            co_end(w, op, known, node, lies, ret);
        }
    } else {
        known->in_change = lies;
    }
    (void)co_world_open(w);
}

static void co_apply(struct world *w, const struct operation *op, struct world_known *known,
                     int which, bool lies)
{
    AUTOFREE uint8_t *content = mem_alloc((size_t)w->model.n * MODEL_SECTOR);
    uint64_t size;
    struct node *node;

    if (!foresee(w, which, content, &size)) {
        world_break(w, 11, "internal snapshot '%s' cannot be read", world_inner_names[which]);
        return;
    }
    model_begin_content(&w->model, content);
    world_may_be_sized(known, size);
    node = co_begin(w, known);
    if (!node) {
        return;
    }
    int ret = co_qcow2_snapshot_apply(node, world_inner_names[which]);

    model_end_content(&w->model, ret == 0);
    if (ret == 0) {
        uint16_t *promise = model_flush_begin(&w->model, false);

        model_flushed(&w->model, promise);
        free(promise);
        world_sized(known, size);
    }
    co_end(w, op, known, node, lies, ret);
}

void co_op_inner_apply(struct world *w, const struct operation *op, unsigned salt)
{
    bool lies;
    struct world_known *known = co_take(w, &lies);
    int which;

    if (!known) {
        return;
    }
    which = find_one(known);
    if (which >= 0) {
        co_apply(w, op, known, which, lies);
    } else {
        known->in_change = lies;
    }
    if (!w->broken_rule) {
        (void)co_world_open(w);
    }
}

void co_op_inner_delete(struct world *w, const struct operation *op, unsigned salt)
{
    bool lies;
    struct world_known *known = co_take(w, &lies);
    struct node *node;
    int which;

    if (!known) {
        return;
    }
    which = find_one(known);
    known->in_change = which < 0 ? lies : known->in_change;
    if (which >= 0) {
        known->inner[which].must_be = false;
        node = co_begin(w, known);
        if (node) {
            int ret = co_qcow2_snapshot_delete(node, world_inner_names[which]);

            known->inner[which].may_be = known->inner[which].must_be = ret < 0;
            co_end(w, op, known, node, lies, ret);
        }
    }
    (void)co_world_open(w);
}
