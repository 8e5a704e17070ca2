/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One state of the disk against the rules: the checker for each image, the names between them, the
 * model for what the guest sees.
 *
 * An image whose bytes are those of last time has the verdict of last time.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "explore/checker.h"
#include "explore/states.h"

struct image {
    uint64_t hash; /* 0: nothing known */
    struct checker_image *parsed;
    struct checker_report report;
    const char *path;
    uint64_t inner; /* its internal snapshots */
};

struct judge {
    struct image image[WORLD_IMAGES];
    /* As made: */
    uint64_t unknown[WORLD_IMAGES], inner[WORLD_IMAGES];
};

struct judge *judge_new(void)
{
    struct judge *j = mem_zalloc(sizeof(*j));

    for (int i = 0; i < WORLD_IMAGES; i++) {
        j->image[i].path = world_path(i);
    }
    return j;
}

void judge_free(struct judge *j)
{
    for (int i = 0; i < WORLD_IMAGES; i++) {
        checker_close(j->image[i].parsed);
    }
    free(j);
}

static void find(struct finding *out, unsigned rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void find(struct finding *out, unsigned rule, const char *fmt, ...)
{
    va_list ap;

    if (out->rule) {
        return;
    }
    out->rule = rule;
    va_start(ap, fmt);
    vsnprintf(out->text, sizeof(out->text), fmt, ap);
    va_end(ap);
}

static void read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
    const struct image *image = arg;

    io_sim_read(image->path, offset, buf, len);
}

/* The image in this slot as it is now; parsed is NULL when it makes no sense. */
static struct image *look(struct judge *j, const struct world *w, int slot)
{
    struct image *image = &j->image[slot];
    uint64_t hash = io_sim_hash(image->path);
    struct checker_source source = { .arg = image, .read = read_image };

    if (hash == image->hash && hash) {
        return image;
    }
    checker_close(image->parsed);
    image->parsed = NULL;
    image->report = (struct checker_report){ 0 };
    image->hash = hash;
    if (!hash) {
        image->report.rule = 1;
        strcpy(image->report.text, "it is not there");
        return image;
    }
    io_sim_size(image->path, &source.size);
    image->parsed = slot == 0 && w->shape->raw_base ? checker_open_raw(&source)
                                                    : checker_open_qcow2(&source, &image->report);
    image->inner = image->parsed ? checker_snapshots(image->parsed) : 0;
    return image;
}

int judge_backing(struct judge *j, const struct world *w, int slot)
{
    struct image *image = look(j, w, slot);

    return image->parsed ? world_slot(checker_backing(image->parsed)) : NO_IMAGE;
}

uint64_t judge_size(struct judge *j, const struct world *w, int slot)
{
    struct image *image = look(j, w, slot);

    return image->parsed ? checker_size(image->parsed) : 0;
}

void judge_learn(struct judge *j, struct world *w)
{
    for (int i = 0; i < WORLD_IMAGES; i++) {
        struct image *image;

        j->image[i].hash = 0;
        if (w->view.image[i].sure) {
            image = look(j, w, i);
            if (!image->parsed || image->report.rule) {
                world_break(w, image->report.rule, "%s as made: %s", image->path,
                            image->report.text);
                continue;
            }
            j->unknown[i] = checker_unknown(image->parsed);
            j->inner[i] = image->inner;
        }
    }
}

/* What was there when the run began and must outlive it. */
static void judge_first(struct judge *j, const struct world *w, int slot, struct finding *out)
{
    const struct image *image = &j->image[slot];
    bool changed = image->hash != w->first_hash[slot];

    if (checker_unknown(image->parsed) != j->unknown[slot]) {
        find(out, 10, "%s: an unknown extension or bit has changed", image->path);
    }
    if (image->inner != j->inner[slot]) {
        find(out, 11, "%s: an internal snapshot has changed", image->path);
    }
    if (changed && checker_autoclear(image->parsed)) {
        find(out, 10, "%s: changed by somebody who leaves autoclear bits as they were (%llx)",
             image->path, (unsigned long long)checker_autoclear(image->parsed));
    }
    if (changed && !w->may_change[slot]) {
        find(out, 14, "%s has been written to", image->path);
    }
}

static void judge_names(const struct world *w, const struct world_known *known,
                        const struct image *image, struct finding *out)
{
    const char *name = checker_backing(image->parsed);
    const char *format = checker_backing_format(image->parsed);
    int backing = world_slot(name);

    if ((name && backing == NO_IMAGE) || !(WORLD_BIT(backing) & known->backing)) {
        find(out, 13, "%s: its backing file is '%s' (allowed: %x)", image->path, name ? name : "",
             known->backing);
    }
    if (backing != NO_IMAGE &&
        (!format || strcmp(format, backing == 0 && w->shape->raw_base ? "raw" : "qcow2") != 0)) {
        find(out, 13, "%s: the format of its backing file is '%s'", image->path,
             format ? format : "");
    }
}

static void judge_image(struct judge *j, const struct world *w, const struct point *p, int slot,
                        uint64_t *leaks, struct finding *out)
{
    struct image *image = look(j, w, slot);
    const struct world_known *known = &p->view.image[slot];

    if (image->report.rule) {
        find(out, image->report.rule, "%s: %s", image->path, image->report.text);
    }
    if (!image->parsed) {
        return;
    }
    if (!checker_dirty(image->parsed)) { /* else counts mean nothing */
        *leaks = MAX(*leaks, image->report.leaks);
    } else if (!w->format->lazy || slot >= WORLD_OVERLAYS) {
        find(out, 9, "%s: the dirty bit is set", image->path);
    } else if (p->closed && slot == p->view.top) {
        find(out, 9, "%s: the dirty bit is left set at the end", image->path);
    }
    if (!world_size_is_known(known, checker_size(image->parsed))) {
        find(out, 7, "%s: size %llu", image->path, (unsigned long long)checker_size(image->parsed));
    }
    judge_names(w, known, image, out);
    if (slot < WORLD_OVERLAYS) {
        judge_first(j, w, slot, out);
    }
}

static void judge_content(struct judge *j, const struct world *w, const struct point *p,
                          uint8_t *content, struct finding *out)
{
    struct checker_image *chain[WORLD_IMAGES + 1];
    unsigned n = 0;
    uint32_t bad;

    for (int slot = p->view.top; slot != NO_IMAGE; slot = judge_backing(j, w, slot)) {
        struct image *image = look(j, w, slot);

        if (!image->parsed || n == WORLD_IMAGES) {
            find(out, 1, "%s: the chain has no end", image->path);
            return;
        }
        chain[n++] = image->parsed;
    }
    for (unsigned i = 0; i < MODEL_WINDOWS; i++) {
        const struct model_window *window = &w->model.window[i];

        if (!checker_read(chain, n, window->at, content, window->len)) {
            find(out, 1, "window %u cannot be read", i);
            return;
        }
        content += window->len;
    }
    content -= (size_t)w->model.n * MODEL_SECTOR;
    bad = model_judge(&w->model, p->bounds, content);
    if (bad != UINT32_MAX) {
        AUTOFREE char *words = model_explain(&w->model, p->bounds, bad, content);

        find(out, p->bounds->of[bad].floor ? 3 : 4, "%s", words);
    }
}

void judge_world(struct judge *j, const struct world *w, const struct point *p, uint8_t *content,
                 uint64_t *leaks, struct finding *out)
{
    *out = (struct finding){ 0 };
    *leaks = 0;
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        if (p->view.image[slot].sure || slot == p->view.top) {
            judge_image(j, w, p, slot, leaks, out);
        }
    }
    judge_content(j, w, p, content, out);
}
