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
    /* Its internal snapshots; `strange`: there is one that nobody has made. */
    struct {
        bool is;
        uint64_t content;
    } inner[WORLD_INNER];
    bool strange;
};

struct judge {
    struct image image[WORLD_IMAGES];
    /* As made: */
    uint64_t unknown[WORLD_IMAGES];
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

static void look_inside(struct image *image)
{
    char name[32];
    uint64_t content;

    image->strange = false;
    memset(image->inner, 0, sizeof(image->inner));
    for (unsigned i = 0; checker_snapshot(image->parsed, i, name, sizeof(name), &content); i++) {
        unsigned k = 0;

        while (k < WORLD_INNER && strcmp(name, world_inner_names[k]) != 0) {
            k++;
        }
        image->strange = image->strange || k == WORLD_INNER || image->inner[k].is;
        if (k < WORLD_INNER) {
            image->inner[k].is = true;
            image->inner[k].content = content;
        }
    }
}

/* The image in this slot as it is now; parsed is NULL when it makes no sense. */
static struct image *look(struct judge *j, const struct world *w, int slot)
{
    struct image *image = &j->image[slot];
    uint64_t hash = io_sim_hash(image->path);
    struct checker_source source = { .arg = image, .read = read_image, .flags_may_lie = true };

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
    if (image->parsed) {
        look_inside(image);
    }
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

uint64_t judge_leaks(struct judge *j, const struct world *w, int slot)
{
    struct image *image = look(j, w, slot);

    return image->parsed && !checker_dirty(image->parsed) ? image->report.leaks : 0;
}

bool judge_inner(struct judge *j, const struct world *w, int slot, unsigned k)
{
    return look(j, w, slot)->inner[k].is;
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
            w->leaked[i] = image->report.leaks;
            for (unsigned k = 0; k < WORLD_INNER; k++) {
                w->view.image[i].inner[k] = (struct world_inner){
                    image->inner[k].is, image->inner[k].is, image->inner[k].content
                };
            }
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
    if (changed && checker_autoclear(image->parsed)) {
        find(out, 10, "%s: changed by somebody who leaves autoclear bits as they were (%llx)",
             image->path, (unsigned long long)checker_autoclear(image->parsed));
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

static void judge_snapshots(const struct world_known *known, const struct image *image,
                            struct finding *out)
{
    for (unsigned k = 0; k < WORLD_INNER; k++) {
        const struct world_inner *inner = &known->inner[k];

        if (image->inner[k].is ? !inner->may_be || inner->content != image->inner[k].content
                               : inner->must_be) {
            find(out, 11, "%s: internal snapshot '%s' %s", image->path, world_inner_names[k],
                 !image->inner[k].is ? "is gone"
                 : inner->may_be     ? "has changed"
                                     : "is there");
        }
    }
    if (image->strange) {
        find(out, 11, "%s: an internal snapshot that nobody has made", image->path);
    }
}

/* Version 3 is dirty while its internal snapshots are being changed; version 2 cannot say so. */
static bool may_lie(const struct world *w, const struct world_known *known)
{
    return known->in_change && w->format->version == 2;
}

/* Clusters that a crash leaks are those that were on their way (2). */
static void judge_leaks_of(const struct world *w, const struct world_known *known, int slot,
                           const struct image *image, struct finding *out)
{
    uint64_t allowed = w->leaked[slot] + known->loose;

    if (image->report.leaks > allowed && !w->faulty && !may_lie(w, known)) {
        find(out, 2, "%s: %llu clusters leaked, %llu were on their way", image->path,
             (unsigned long long)image->report.leaks, (unsigned long long)allowed);
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
    if (image->report.flags[0] && !may_lie(w, known)) {
        find(out, 8, "%s: %s", image->path, image->report.flags);
    }
    if (!checker_dirty(image->parsed)) { /* else counts mean nothing */
        *leaks = MAX(*leaks, may_lie(w, known) ? 0 : image->report.leaks);
        judge_leaks_of(w, known, slot, image, out);
    } else if (!known->in_change && (!w->format->lazy || !world_is_first(slot))) {
        find(out, 9, "%s: the dirty bit is set", image->path);
    } else if (p->closed && world_is_top(&p->view, slot)) {
        find(out, 9, "%s: the dirty bit is left set at the end", image->path);
    }
    if (known->empty && !checker_is_empty(image->parsed)) {
        find(out, 16, "%s: a commit was said to be done, and it is not empty", image->path);
    }
    judge_snapshots(known, image, out);
    if (!world_size_is_known(known, checker_size(image->parsed))) {
        find(out, 7, "%s: size %llu", image->path, (unsigned long long)checker_size(image->parsed));
    }
    judge_names(w, known, image, out);
    if (known->still && image->hash != known->still) {
        find(out, 14, "%s has been written to", image->path);
    }
    if (world_is_first(slot)) {
        judge_first(j, w, slot, out);
    }
}

/* The chain from `slot` down; 0: it has no end. */
static unsigned find_chain(struct judge *j, const struct world *w, int slot,
                           struct checker_image **chain, struct finding *out)
{
    unsigned n = 0;

    for (; slot != NO_IMAGE; slot = judge_backing(j, w, slot)) {
        struct image *image = look(j, w, slot);

        if (!image->parsed || n == WORLD_IMAGES) {
            find(out, 1, "%s: the chain has no end", image->path);
            return 0;
        }
        chain[n++] = image->parsed;
    }
    return n;
}

static void judge_content(struct judge *j, const struct world *w, const struct point *p,
                          uint8_t *content, struct finding *out)
{
    struct checker_image *chain[WORLD_IMAGES + 1];
    unsigned n = find_chain(j, w, p->view.top, chain, out);
    uint32_t bad;

    for (unsigned i = 0; i < MODEL_WINDOWS && n; i++) {
        const struct model_window *window = &w->model.window[i];
        bool second = i == MODEL_SECOND;

        if (second && p->view.top2 != NO_IMAGE) {
            n = find_chain(j, w, p->view.top2, chain, out);
        }
        if (!checker_read(chain, n, window->at - second * MODEL_SECOND_AT, content, window->len)) {
            find(out, 1, "window %u cannot be read", i);
            return;
        }
        content += window->len;
    }
    if (!n) {
        return;
    }
    content -= (size_t)w->model.n * MODEL_SECTOR;
    bad = model_judge(&w->model, p->bounds, content);
    if (bad != UINT32_MAX) {
        AUTOFREE char *words = model_explain(&w->model, p->bounds, bad, content);

        find(out, p->bounds->of[bad].floor ? 3 : 4, "%s", words);
    }
}

/* The disk has lied.  That may have cost any data of the images that are written to, and no other
 * image; who was found out and marked stays so. */
static void judge_after_lies(const struct point *p, struct finding *out)
{
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        const struct world_known *known = &p->view.image[slot];

        if (known->still && io_sim_hash(world_path(slot)) != known->still) {
            find(out, 14, "%s has been written to", world_path(slot));
        }
        if (known->marked && !world_is_marked(slot, false)) {
            find(out, 9, "%s: the corrupt bit is gone", world_path(slot));
        }
    }
}

void judge_world(struct judge *j, const struct world *w, const struct point *p, uint8_t *content,
                 uint64_t *leaks, struct finding *out)
{
    *out = (struct finding){ 0 };
    *leaks = 0;
    if (w->lying) {
        judge_after_lies(p, out);
        return;
    }
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        if (p->view.image[slot].sure || world_is_top(&p->view, slot)) {
            judge_image(j, w, p, slot, leaks, out);
        } else if (p->view.image[slot].named && !io_sim_hash(world_path(slot))) {
            find(out, 16, "%s: it was said to be made, and its name is not there",
                 world_path(slot));
        }
    }
    judge_content(j, w, p, content, out);
}
