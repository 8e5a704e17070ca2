/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making chains: see world.h.
 *
 * The disks are small but cross what can be crossed: clusters that two layers share, two L2 tables
 * (where the cluster size allows), an end in the middle of a cluster, images with an extension and
 * a feature bit that nobody knows (rule 10).
 */
#include "explore/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/file.h"
#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/claims.h"
#include "explore/scene.h"

#define INCOMPATIBLE_AT 72
#define STRANGE_EXT 0x53545247u
#define STRANGE_BIT 40
#define STRANGE_LEN 8u
#define SECOND_CLUSTERS 3u
#define ODD_TAIL 1536u /* the disk ends so many bytes before the end of a cluster */

const struct shape shapes[] = {
    { .name = "one", .layers = 1, .smallest = true },
    { .name = "raw", .layers = 2, .raw_base = true, .smallest = true },
    { .name = "two", .layers = 2, .smallest = true },
    { .name = "three", .layers = 3 },
    { .name = "four", .layers = 4 },
    { .name = "short", .layers = 3, .short_base = true },
    { .name = "raw-top", .layers = 1, .raw_base = true },
    { .name = "packed", .layers = 2, .packed = true },
    { .name = "inner", .layers = 2, .inner = true },
};
const unsigned n_shapes = ARRAY_SIZE(shapes);

const struct format formats[] = {
    { .name = "512-v2", .cluster = 512, .version = 2 },
    { .name = "512-v3", .cluster = 512, .version = 3 },
    { .name = "4k-v2", .cluster = 4096, .version = 2 },
    { .name = "4k-v3", .cluster = 4096, .version = 3 },
    { .name = "64k-v2", .cluster = 65536, .version = 2 },
    { .name = "64k-v3", .cluster = 65536, .version = 3 },
    { .name = "64k-ext", .cluster = 65536, .version = 3, .extended = true },
    { .name = "4k-lazy", .cluster = 4096, .version = 3, .lazy = true },
    { .name = "512-lazy", .cluster = 512, .version = 3, .lazy = true, .rare = true },
    { .name = "512-counts1", .cluster = 512, .version = 3, .refcount_bits = 1, .rare = true },
    { .name = "512-counts64", .cluster = 512, .version = 3, .refcount_bits = 64, .rare = true },
    { .name = "4k-counts1", .cluster = 4096, .version = 3, .refcount_bits = 1, .rare = true },
    { .name = "4k-counts64", .cluster = 4096, .version = 3, .refcount_bits = 64, .rare = true },
    { .name = "4k-zstd", .cluster = 4096, .version = 3, .zstd = true, .rare = true },
    { .name = "64k-zstd", .cluster = 65536, .version = 3, .zstd = true, .rare = true },
    { .name = "16k-ext", .cluster = 16384, .version = 3, .extended = true, .rare = true },
};
const unsigned n_formats = ARRAY_SIZE(formats);

bool world_makes_sense(const struct shape *shape, const struct format *format)
{
    if (shape->inner) { /* what two share is counted twice */
        return format->refcount_bits != 1;
    }
    return !shape->packed || format->refcount_bits != 1; /* two in one host cluster */
}

static const char *const paths[WORLD_IMAGES] = {
    "/A.img",  "/B.img",  "/C.img",  "/D.img",  "/S0.img",
    "/S1.img", "/S2.img", "/S3.img", "/N0.img", "/N1.img",
    "/T.img",  "/T0.img", "/T1.img",
};
const char *const world_inner_names[WORLD_INNER] = { "inner", "made" };

const char *world_path(int slot)
{
    return paths[slot];
}

int world_slot(const char *name)
{
    while (name && (*name == '/' || strncmp(name, "./", 2) == 0)) {
        name += *name == '/' ? 1 : 2;
    }
    for (int i = 0; name && i < WORLD_IMAGES; i++) {
        if (strcmp(paths[i] + 1, name) == 0) {
            return i;
        }
    }
    return NO_IMAGE;
}

void world_break(struct world *w, unsigned rule, const char *fmt, ...)
{
    va_list ap;

    if (w->broken_rule) {
        return;
    }
    w->broken_rule = rule;
    va_start(ap, fmt);
    vsnprintf(w->broken, sizeof(w->broken), fmt, ap);
    va_end(ap);
}

void world_changed(struct world *w)
{
    world_look(w);
    if (w->on_change) {
        w->on_change(w->arg);
    }
}

void world_look(struct world *w)
{
    const struct node *node;

    if (w->disk) {
        w->view.top = world_slot(w->disk->root->filename);
    }
    if (w->disk2) {
        w->view.top2 = world_slot(w->disk2->root->filename);
    }
    if (w->group != NO_IMAGE && (w->view.top == w->group) != (w->view.top2 == w->group2)) {
        world_break(w, 15, "of a group of snapshots one disk has its overlay, the other has not");
    }
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        w->view.image[slot].loose = 0;
    }
    TAILQ_FOREACH(node, &all_nodes, link) {
        int slot = node->driver == &driver_qcow2 ? world_slot(node->filename) : NO_IMAGE;

        if (slot != NO_IMAGE) {
            w->view.image[slot].loose += qcow2_loose_clusters(node->state);
        }
    }
    for (int slot = 0; w->lying && slot < WORLD_IMAGES; slot++) {
        w->view.image[slot].marked = w->view.image[slot].marked || world_is_marked(slot, true);
    }
}

bool world_is_marked(int slot, bool durable)
{
    uint8_t head[INCOMPATIBLE_AT + 8];
    int ret = durable ? io_sim_read_durable(paths[slot], 0, head, sizeof(head))
                      : io_sim_read(paths[slot], 0, head, sizeof(head));

    return ret == 0 && load_be32(head) == QCOW2_MAGIC && load_be32(head + 4) >= 3 &&
           load_be64(head + INCOMPATIBLE_AT) & QCOW2_INCOMPAT_CORRUPT;
}

void world_begins(struct world *w)
{
    w->begun++;
    w->active++;
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        w->view.image[slot].empty = false;
    }
}

void world_ends(struct world *w)
{
    w->active--;
}

void world_sized(struct world_known *known, uint64_t size)
{
    for (unsigned i = 0; i < WORLD_SIZES; i++) {
        known->size[i] = size;
    }
}

bool world_size_is_known(const struct world_known *known, uint64_t size)
{
    for (unsigned i = 0; i < WORLD_SIZES; i++) {
        if (known->size[i] == size) {
            return true;
        }
    }
    return false;
}

void world_may_be_sized(struct world_known *known, uint64_t size)
{
    unsigned at = 0;

    while (at < WORLD_SIZES - 1 && known->size[at] != size) {
        at++;
    }
    memmove(known->size + 1, known->size, at * sizeof(known->size[0])); /* the oldest one goes */
    known->size[0] = size;
}

/* --- Making ----------------------------------------------------------------------------------- */

static uint64_t plan_windows(const struct format *f, bool second, struct model_window *windows)
{
    uint64_t table = (uint64_t)f->cluster * (f->cluster / 8); /* what one L2 table covers */
    uint64_t width = f->cluster == 512 ? 16384 : 8 * (uint64_t)f->cluster;
    uint64_t size;

    windows[MODEL_SECOND] =
        (struct model_window){ MODEL_SECOND_AT, second * SECOND_CLUSTERS * (uint64_t)f->cluster };
    if (f->cluster > 4096) { /* one table is more than we want to look at */
        size = 4 * (uint64_t)f->cluster - ODD_TAIL;
        windows[0] = (struct model_window){ 0, 3 * (uint64_t)f->cluster };
        windows[1] =
            (struct model_window){ 3 * (uint64_t)f->cluster, size - 3 * (uint64_t)f->cluster };
        return size;
    }
    size = table + width / 2 - (f->cluster > ODD_TAIL ? ODD_TAIL : 0);
    windows[0] = (struct model_window){ 0, width };
    windows[1] = (struct model_window){ table - width / 2, size - (table - width / 2) };
    return size;
}

static json_t *creation_options(const struct format *f, uint64_t size, const char *backing,
                                const char *backing_format)
{
    json_t *options = json_pack("{s:I, s:I, s:s, s:s, s:s*, s:s*}", "size", (json_int_t)size,
                                "cluster_size", (json_int_t)f->cluster, "compat",
                                f->version == 2 ? "0.10" : "1.1", "extended_l2",
                                f->extended ? "on" : "off", "backing_file", backing, "backing_fmt",
                                backing_format);

    if (f->refcount_bits) {
        json_object_set_new(options, "refcount_bits", json_integer(f->refcount_bits));
    }
    if (f->lazy) {
        json_object_set_new(options, "lazy_refcounts", json_string("on"));
    }
    if (f->zstd) {
        json_object_set_new(options, "compression_type", json_string("zstd"));
    }
    return options;
}

/* An extension, a compatible and an autoclear bit from the future.  The backing name moves to the
 * end of the cluster to make room. */
static void make_strange(const char *path, const struct format *f)
{
    AUTOFREE uint8_t *head = mem_alloc(f->cluster);
    char name[64] = "";
    uint64_t at;
    uint32_t name_len;

    if (f->version < 3 || f->cluster < 4096) {
        return; /* no such bits, or no room */
    }
    io_sim_read(path, 0, head, f->cluster);
    at = load_be64(head + 8);
    name_len = load_be32(head + 16);
    if (at) {
        memcpy(name, head + at, name_len);
        memset(head + at, 0, name_len);
        store_be64(head + 8, f->cluster - sizeof(name));
        memcpy(head + f->cluster - sizeof(name), name, name_len);
    }
    for (at = load_be32(head + 100); load_be32(head + at);) {
        at += 8 + ROUND_UP((uint64_t)load_be32(head + at + 4), 8);
    }
    store_be32(head + at, STRANGE_EXT);
    store_be32(head + at + 4, STRANGE_LEN);
    store_be64(head + at + 8, 0x6c656176652d6d65u);
    store_be64(head + at + 8 + STRANGE_LEN, 0);
    store_be64(head + 80, load_be64(head + 80) | 1ull << STRANGE_BIT);
    store_be64(head + 88, load_be64(head + 88) | 1ull << STRANGE_BIT);
    io_sim_write(path, 0, head, f->cluster);
}

/* One cluster of a layer: nothing, whole, in part, or zeroes.  In the model it lies `shift` bytes
 * further. */
static void co_fill_cluster(struct world *w, struct node *node, struct random *rnd, uint64_t at,
                            uint64_t len, uint64_t shift)
{
    unsigned fate = random_below(rnd, 5);
    AUTOFREE uint8_t *buf = mem_alloc(len);
    uint64_t from = 0, to = len;
    uint32_t value = w->model.next_value++;

    if (fate < 2) {
        return;
    }
    if (fate == 3) {
        from = random_below(rnd, len / 512) * 512;
        to = from + 512 + random_below(rnd, (len - from) / 512) * 512;
    }
    for (uint64_t i = from; i < to; i += 512) {
        uint32_t sector = model_sector_at(&w->model, shift + at + i);

        model_preset(&w->model, sector, fate == 4 ? 0 : value);
        model_pattern(fate == 4 ? 0 : value, sector, buf + i);
    }
    if (fate == 4) {
        co_node_zero(node, at, len, 0);
    } else {
        co_node_write_buf(node, at + from, buf + from, to - from);
    }
}

/* Every third cluster or so of the layer, whatever it held. */
static void pack_clusters(struct world *w, int slot, struct random *rnd)
{
    uint64_t cluster = w->format->cluster;
    AUTOFREE uint8_t *buf = mem_alloc(cluster);
    uint64_t end = 0;

    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        const struct model_window *window = &w->model.window[i];

        for (uint64_t at = window->at; at + cluster <= window->at + window->len; at += cluster) {
            uint32_t value = w->model.next_value++;

            if (random_below(rnd, 3) || !scene_is_free(paths[slot], at)) {
                continue;
            }
            for (uint64_t k = 0; k < cluster; k += 512) {
                uint32_t sector = model_sector_at(&w->model, at + k);

                model_preset(&w->model, sector, value);
                model_pattern(value, sector, buf + k);
            }
            scene_compress(paths[slot], at, buf, &end);
        }
    }
}

static void co_fill_layer(struct world *w, int slot, struct random *rnd)
{
    bool raw = slot == 0 && w->shape->raw_base;
    json_t *options = json_pack("{s:s}", "driver", raw ? "raw" : "qcow2");
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(paths[slot], options, &err);

    json_decref(options);
    if (!node) {
        world_break(w, 1, "%s", err.text);
        return;
    }
    for (unsigned i = 0; i < MODEL_WINDOWS; i++) {
        const struct model_window *window = &w->model.window[i];
        uint64_t shift = i == MODEL_SECOND ? MODEL_SECOND_AT : 0;
        uint64_t end = MIN(window->at - shift + window->len, node->size);

        for (uint64_t at = window->at - shift; (slot == WORLD_SECOND) == (shift > 0) && at < end;
             at += w->format->cluster) {
            co_fill_cluster(w, node, rnd, at, MIN(w->format->cluster, end - at), shift);
        }
    }
    co_node_unref(node);
}

/* What the driver does not make by itself. */
static void finish_layer(struct world *w, int slot, struct random *rnd)
{
    const struct shape *shape = w->shape;

    if (shape->packed) {
        pack_clusters(w, slot, rnd);
    }
    if (shape->inner) {
        scene_snapshot(paths[slot]);
    }
    make_strange(paths[slot], w->format); /* after the last time that it was open for writing */
    if (w->format->lazy) {
        scene_dirty(paths[slot]);
    }
}

static void co_make_layer(struct world *w, int slot, struct random *rnd)
{
    bool raw = slot == 0 && w->shape->raw_base;
    int below = slot == WORLD_SECOND ? NO_IMAGE : slot - 1;
    uint64_t size = below == slot - 1 ? w->model.disk_size : w->model.window[MODEL_SECOND].len;
    struct error err = ERROR_INIT;
    struct world_known *known = &w->view.image[slot];

    if (slot == 0 && w->shape->short_base) {
        size = w->model.window[1].at + 1024;
        if (w->model.window[1].at == w->model.window[0].len) {
            size = w->model.window[0].len / 2 + 1024;
        }
    }
    *known = (struct world_known){ .made = true, .sure = true, .backing = WORLD_BIT(below) };
    if (raw) {
        io_sim_create(paths[0], size);
    } else {
        json_t *options = creation_options(w->format, size,
                                           below == NO_IMAGE ? NULL : paths[below] + 1,
                                           below == NO_IMAGE                ? NULL
                                           : !below && w->shape->raw_base ? "raw"
                                                                            : "qcow2");
        int ret = driver_qcow2.co_create(paths[slot], options, &err);

        json_decref(options);
        if (ret < 0) {
            world_break(w, 1, "%s", err.text);
            return;
        }
    }
    world_sized(known, ROUND_UP(size, 512));
    /* What lies below a short base's end shows zeroes: fill lower layers first, so upper ones win.
     */
    co_fill_layer(w, slot, rnd);
    if (!raw && slot != WORLD_SECOND) {
        finish_layer(w, slot, rnd);
    }
}

void co_world_make(struct world *w, const struct shape *shape, const struct format *format,
                   bool second, uint64_t seed)
{
    struct model_window windows[MODEL_WINDOWS];
    struct random rnd;
    uint64_t size;

    *w = (struct world){
        .shape = shape, .format = format, .group = NO_IMAGE, .group2 = NO_IMAGE,
        .view.top2 = NO_IMAGE,
    };
    random_seed(&rnd, seed);
    io_sim_reset();
    size = plan_windows(format, second, windows);
    model_init(&w->model, size, windows);
    for (uint32_t i = 0; i < w->model.n; i++) {
        model_preset(&w->model, i, 0);
    }
    for (int i = 0; i < WORLD_IMAGES; i++) {
        w->view.image[i] = (struct world_known){ .backing = WORLD_BIT(NO_IMAGE) };
        world_sized(&w->view.image[i], size);
    }
    for (unsigned i = 0; i < shape->layers; i++) {
        co_make_layer(w, i, &rnd);
    }
    if (second) {
        co_make_layer(w, WORLD_SECOND, &rnd);
        w->view.top2 = WORLD_SECOND;
    }
    w->view.top = shape->layers - 1;
    w->name_mid = shape->layers == 4;
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0); /* nothing of this is pending when the run begins */
    for (int i = 0; i < WORLD_IMAGES; i++) {
        w->first_hash[i] = io_sim_hash(paths[i]);
    }
    claims_settle(w);
}

void world_free(struct world *w)
{
    model_fini(&w->model);
}

/* --- Opening ---------------------------------------------------------------------------------- */

/* The chain from this slot on; NULL: told in `broken`. */
static struct node *co_open_chain(struct world *w, int slot)
{
    struct error err = ERROR_INIT;
    bool raw = slot == 0 && w->shape->raw_base;
    json_t *options =
        json_pack("{s:s, s:s}", "driver", raw ? "raw" : "qcow2", "discard", "unmap");
    struct node *node;

    if (w->small && !raw) {
        json_object_set_new(options, "l2-cache-size", json_string("1024"));
        json_object_set_new(options, "refcount-cache-size", json_string("1024"));
    }
    if (w->name_mid && slot == w->view.top) {
        json_object_set_new(options, "backing", json_pack("{s:s}", "node-name", "mid"));
    }
    node = co_node_open(paths[slot], options, &err);
    json_decref(options);
    if (!node) {
        world_break(w, 1, "the chain does not open: %s", err.text);
        error_clear(&err);
    }
    return node;
}

bool co_world_open(struct world *w)
{
    struct node *node = co_open_chain(w, w->view.top);

    if (node) {
        w->disk = disk_new("virtio0", node);
    }
    if (node && w->view.top2 != NO_IMAGE) {
        node = co_open_chain(w, w->view.top2);
        w->disk2 = node ? disk_new("virtio1", node) : NULL;
    }
    if (!node && w->disk) { /* the second chain is refused: nothing stays */
        struct disk *first = w->disk;

        w->disk = NULL;
        co_disk_free(first);
    }
    if (node) {
        claims_settle(w);
    }
    return node;
}

/* As the program does at its end. */
static void co_put_away(struct world *w, struct disk **disk, bool second)
{
    uint16_t *promise = model_flush_begin(&w->model, second);
    int ret = co_node_flush((*disk)->root);
    struct disk *gone = *disk;

    *disk = NULL; /* nobody looks at it while it goes */
    co_disk_free(gone);
    if (ret == 0) {
        model_flushed(&w->model, promise);
    } else if (!w->faulty) {
        world_break(w, 18, "the last flush: %s", strerror(-ret));
    }
    free(promise);
}

void co_world_put_away(struct world *w)
{
    if (w->disk) {
        w->name_mid = w->name_mid && w->disk->root->backing;
        co_put_away(w, &w->disk, false);
    }
    if (w->disk2) {
        co_put_away(w, &w->disk2, true);
    }
}

void co_world_close(struct world *w)
{
    co_world_put_away(w);
    w->over = true;
    world_changed(w);
}
