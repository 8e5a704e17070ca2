/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random work on a qcow2 image, and a model that knows what every sector may hold: after each
 * request, after a flush, and after the power went.
 *
 * Each sector has a history of values, in the order in which requests were issued.  Value 0 is
 * zeroes, others are a pattern made from their number.  Several coroutines work at once, on ranges
 * that do not overlap byte for byte (but share clusters as they happen to), so what a sector holds
 * is never in doubt while all is well:
 *
 *     history    v0   v1   v2   v3   v4
 *                     |         |    +-- issued, not complete
 *                     |         +------- now: what a reader sees
 *                     +----------------- floor: flushed; after a crash it is this one or a later
 * one
 *
 * Big disks are modelled in a few windows that lie `stride` bytes apart.
 */
#ifndef TESTS_UNIT_QCOW2_MODEL_H
#define TESTS_UNIT_QCOW2_MODEL_H

#include <fcntl.h>

#include "tests/unit/qcow2-rig.h"

#define SECTOR 512u
#define WINDOWS 4u
#define WORKERS 8u
#define IMAGE "/t/image.qcow2"
#define BASE "/t/base.qcow2"
#define SOURCE "/t/source"
#define SOURCE_BYTES (8u << 20)

struct config {
    const char *options; /* of qemu-img create */
    uint32_t window;     /* bytes modelled in each window */
    uint64_t stride;     /* 0: windows touch */
    uint32_t tail;       /* the disk's size is no multiple of a cluster */
    bool backing, preload, compress, snapshot;
    bool keep_stale; /* freed clusters are not punched: they keep their bytes, and are free sooner */
    uint32_t cache;  /* bytes for either cache; 0: the usual */
};

struct value {
    uint64_t issued; /* number of the request */
    uint32_t id;
};

struct sector {
    struct value *history;
    uint32_t n, room;
    uint32_t now; /* index; while `torn` the first of those that it may be */
    bool torn;    /* a request failed */
    bool busy;
};

struct world {
    const struct config *cfg;
    struct node *node;
    struct io_file *source;
    uint64_t source_at;
    struct random rnd;
    struct sector *sectors;
    uint32_t n_sectors, per_window, cluster;
    uint64_t size;
    uint32_t *floor; /* index in the history */
    uint64_t issued;
    uint32_t next_id;
    unsigned ops_left, running;
    unsigned failed; /* requests that may fail did */
    bool may_fail, old_version;
};

/* An assertion that fails on a coroutine's stack must not jump out of it. */
static inline int model_setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return rig_setup(state);
}

/* --- Geometry ------------------------------------------------------------------------------- */

static inline uint64_t model_offset(const struct world *w, uint32_t sector)
{
    uint64_t stride = w->cfg->stride ? w->cfg->stride : (uint64_t)w->per_window * SECTOR;
    return sector / w->per_window * stride + sector % w->per_window * SECTOR;
}

/* Sectors from this one on whose offsets follow each other. */
static inline uint32_t model_room(const struct world *w, uint32_t sector)
{
    return w->cfg->stride ? MIN(w->per_window - sector % w->per_window, w->n_sectors - sector)
                          : w->n_sectors - sector;
}

static inline void model_pattern(uint32_t id, uint8_t *buf)
{
    uint64_t v = id * 0x9e3779b97f4a7c15ull;

    for (unsigned i = 0; i < SECTOR; i += 8) {
        store_be64(buf + i, v);
    }
}

/* --- Values --------------------------------------------------------------------------------- */

static inline void model_issue(struct world *w, uint32_t sector, uint32_t id)
{
    struct sector *s = &w->sectors[sector];

    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 2;
        s->history = mem_reallocarray(s->history, s->room, sizeof(*s->history));
    }
    s->history[s->n++] = (struct value){ .issued = w->issued, .id = id };
}

static inline void model_complete(struct world *w, uint32_t sector, int ret)
{
    struct sector *s = &w->sectors[sector];

    s->torn = ret < 0;
    if (ret == 0) {
        s->now = s->n - 1;
    }
}

/* Is this content one of the values from index `from` on that were issued before request `before`?
 */
static inline bool model_matches(const struct sector *s, uint32_t from, uint64_t before,
                                 const uint8_t *bytes)
{
    for (uint32_t i = from; i < s->n && (i == from || s->history[i].issued < before); i++) {
        uint8_t want[SECTOR];
        model_pattern(s->history[i].id, want);
        if (memcmp(want, bytes, SECTOR) == 0) {
            return true;
        }
    }
    return false;
}

/* After requests that failed half-way each byte may be the old one or that of any of them. */
static inline bool model_matches_torn(const struct sector *s, const uint8_t *bytes)
{
    bool good[SECTOR] = { false };
    unsigned count = 0;

    for (uint32_t i = s->now; i < s->n; i++) {
        uint8_t want[SECTOR];
        model_pattern(s->history[i].id, want);
        for (unsigned k = 0; k < SECTOR; k++) {
            count += !good[k] && want[k] == bytes[k];
            good[k] = good[k] || want[k] == bytes[k];
        }
    }
    return count == SECTOR;
}

static inline void model_expect_now(struct world *w, uint32_t sector, const uint8_t *bytes)
{
    const struct sector *s = &w->sectors[sector];
    bool good = s->torn ? model_matches_torn(s, bytes) : model_matches(s, s->now, 0, bytes);

    if (!good) {
        print_message("%s: sector %u (byte %llu) holds %016llx, should hold value %u (%016llx)\n",
                      w->cfg->options, sector, (unsigned long long)model_offset(w, sector),
                      (unsigned long long)load_be64(bytes), s->history[s->now].id,
                      (unsigned long long)(s->history[s->now].id * 0x9e3779b97f4a7c15ull));
    }
    assert_true(good);
}

/* --- Requests ------------------------------------------------------------------------------- */

static inline void model_check_result(struct world *w, int ret, const char *what)
{
    if (ret < 0 && !w->may_fail) {
        print_message("%s: %s: %s\n", w->cfg->options, what, strerror(-ret));
    }
    assert_true(ret == 0 || w->may_fail);
    w->failed += ret < 0;
}

/* Take a free range; false when the try hit a busy one. */
static inline bool model_take(struct world *w, uint32_t *first, uint32_t *n)
{
    static const uint32_t sizes[] = { 1, 2, 8, 8, 8, 16, 64, 128, 300, 1024 };

    *first = random_below(&w->rnd, w->n_sectors);
    *n = 1 + random_below(&w->rnd, sizes[random_below(&w->rnd, ARRAY_SIZE(sizes))]);
    if (random_below(&w->rnd, 4) == 0) { /* aligned, like a guest's file system */
        *first = ROUND_DOWN(*first, 8u);
        *n = ROUND_UP(*n, 8u);
    }
    *n = MIN(*n, model_room(w, *first));
    for (uint32_t i = *first; i < *first + *n; i++) {
        if (w->sectors[i].busy) {
            return false;
        }
    }
    for (uint32_t i = *first; i < *first + *n; i++) {
        w->sectors[i].busy = true;
    }
    return true;
}

static inline void model_give(struct world *w, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        assert_true(w->sectors[i].busy);
        w->sectors[i].busy = false;
    }
}

static inline void model_end(struct world *w, uint32_t first, uint32_t n, int ret)
{
    for (uint32_t i = first; i < first + n; i++) {
        model_complete(w, i, ret);
    }
}

static inline void model_fill(struct world *w, uint32_t first, uint32_t n, uint8_t *buf)
{
    w->issued++;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = random_below(&w->rnd, 20) ? w->next_id++ : 0;
        model_issue(w, first + i, id);
        model_pattern(id, buf + i * SECTOR);
    }
}

static inline void co_model_write(struct world *w, uint32_t first, uint32_t n)
{
    AUTOFREE uint8_t *buf = mem_alloc((size_t)n * SECTOR);
    struct iovec iov[3];
    size_t len = (size_t)n * SECTOR, a = random_below(&w->rnd, len + 1),
           b = a + random_below(&w->rnd, len - a + 1);
    int ret;

    model_fill(w, first, n, buf);
    iov[0] = (struct iovec){ buf, a };
    iov[1] = (struct iovec){ buf + a, b - a };
    iov[2] = (struct iovec){ buf + b, len - b };
    ret = co_node_write(w->node, model_offset(w, first), iov, 3);
    model_end(w, first, n, ret);
    model_check_result(w, ret, "write");
}

static inline void co_model_read(struct world *w, uint32_t first, uint32_t n)
{
    AUTOFREE uint8_t *buf = mem_alloc((size_t)n * SECTOR);
    int ret = co_node_read_buf(w->node, model_offset(w, first), buf, (size_t)n * SECTOR);

    model_check_result(w, ret, "read");
    for (uint32_t i = 0; ret == 0 && i < n; i++) {
        model_expect_now(w, first + i, buf + i * SECTOR);
    }
}

/* For discard=ignore: past the node's check, so that clusters are freed all the same. */
static inline int co_model_release(struct node *node, uint64_t offset, uint64_t len, void *arg)
{
    return arg ? node->driver->co_zero(node, offset, len, NODE_MAY_UNMAP)
               : node->driver->co_discard(node, offset, len);
}

static inline void co_model_zero(struct world *w, uint32_t first, uint32_t n)
{
    int ret;

    w->issued++;
    for (uint32_t i = first; i < first + n; i++) {
        model_issue(w, i, 0);
    }
    if (w->cfg->keep_stale && random_below(&w->rnd, 2)) {
        ret = co_node_populate(w->node, model_offset(w, first), (uint64_t)n * SECTOR,
                               co_model_release, w);
    } else {
        ret = co_node_zero(w->node, model_offset(w, first), (uint64_t)n * SECTOR,
                           random_below(&w->rnd, 2) ? NODE_MAY_UNMAP : 0);
    }
    model_end(w, first, n, ret);
    model_check_result(w, ret, "zero");
}

/* Whole clusters become zeroes, where the format can say so; what sticks out stays. */
static inline void co_model_discard(struct world *w, uint32_t first, uint32_t n)
{
    uint64_t start = model_offset(w, first), end = start + (uint64_t)n * SECTOR;
    uint64_t from = ROUND_UP(start, (uint64_t)w->cluster),
             to = ROUND_DOWN(end, (uint64_t)w->cluster);
    bool effect = !(w->old_version && w->cfg->backing);
    int ret;

    if (end == w->size) {
        to = ROUND_UP(end, (uint64_t)w->cluster);
    }
    w->issued++;
    for (uint32_t i = first; effect && i < first + n; i++) {
        uint64_t at = model_offset(w, i);
        if (at >= from && at < to) {
            model_issue(w, i, 0);
        }
    }
    if (w->cfg->keep_stale) {
        ret = co_node_populate(w->node, start, (uint64_t)n * SECTOR, co_model_release, NULL);
    } else {
        ret = co_node_discard(w->node, start, (uint64_t)n * SECTOR);
    }
    for (uint32_t i = first; effect && i < first + n; i++) {
        uint64_t at = model_offset(w, i);
        if (at >= from && at < to) {
            model_complete(w, i, ret);
        }
    }
    model_check_result(w, ret, "discard");
}

struct model_copy {
    struct world *w;
    uint64_t source_at;
};

static inline int co_model_populate(struct node *node, uint64_t offset, uint64_t len, void *arg)
{
    struct model_copy *copy = arg;
    const struct io_piece piece = { .file = copy->w->source, .offset = copy->source_at, .len = len };

    return node->driver->co_copy_in(node, offset, &piece, 1);
}

static inline void co_model_copy_in(struct world *w, uint32_t first, uint32_t n)
{
    uint32_t unit = w->node->cluster_size / SECTOR;
    uint64_t window_start = model_offset(w, first) / SECTOR;
    uint32_t skip = ROUND_UP(window_start, unit) - window_start, len;
    struct model_copy copy = { .w = w };

    if (skip >= n) {
        return;
    }
    first += skip;
    n -= skip;
    if (model_offset(w, first) + (uint64_t)n * SECTOR != w->size) {
        n = ROUND_DOWN(n, unit);
    }
    if (n == 0) {
        return;
    }
    len = n * SECTOR;
    AUTOFREE uint8_t *buf = mem_alloc(len);
    model_fill(w, first, n, buf);
    if (w->source_at + len > SOURCE_BYTES) {
        w->source_at = 0;
    }
    copy.source_at = w->source_at;
    w->source_at += len;
    io_sim_write(SOURCE, copy.source_at, buf, len);
    int ret = co_node_populate(w->node, model_offset(w, first), len, co_model_populate, &copy);
    model_end(w, first, n, ret);
    model_check_result(w, ret, "copy in");
}

static inline int co_model_flush(struct world *w)
{
    uint32_t *floor = mem_calloc(w->n_sectors, sizeof(*floor));
    int ret;

    for (uint32_t i = 0; i < w->n_sectors; i++) {
        floor[i] = w->sectors[i].torn ? w->floor[i] : w->sectors[i].now;
    }
    ret = co_node_flush(w->node);
    for (uint32_t i = 0; ret == 0 && i < w->n_sectors; i++) {
        w->floor[i] = MAX(w->floor[i], floor[i]);
    }
    free(floor);
    model_check_result(w, ret, "flush");
    return ret;
}

static inline void co_model_op(struct world *w)
{
    uint32_t first, n;
    unsigned die = random_below(&w->rnd, 100);

    if (die < 6) {
        co_model_flush(w);
        return;
    }
    if (!model_take(w, &first, &n)) {
        co_sleep_ns(1000);
        return;
    }
    if (die < 55) {
        co_model_write(w, first, n);
    } else if (die < 67) {
        co_model_zero(w, first, n);
    } else if (die < 75) {
        co_model_discard(w, first, n);
    } else if (die < 85) {
        co_model_copy_in(w, first, n);
    } else {
        co_model_read(w, first, n);
    }
    model_give(w, first, n);
}

static inline void co_model_worker(void *arg)
{
    struct world *w = arg;

    while (w->ops_left > 0) {
        w->ops_left--;
        co_model_op(w);
    }
    w->running--;
}

/* Do `ops` random requests with several at a time, and wait for them. */
static inline void co_model_work(struct world *w, unsigned ops)
{
    w->ops_left = ops;
    for (unsigned i = 0; i < WORKERS; i++) {
        w->running++;
        co_start(co_model_worker, w);
    }
    while (w->running > 0) {
        co_sleep_ns(10000);
    }
}

static inline void co_model_verify(struct world *w)
{
    bool may_fail = w->may_fail;

    w->may_fail = false;
    for (uint32_t i = 0, n; i < w->n_sectors; i += n) {
        n = MIN(model_room(w, i), 1024u);
        co_model_read(w, i, n);
    }
    w->may_fail = may_fail;
}

/* After failures: write the torn sectors anew. */
static inline void co_model_settle(struct world *w)
{
    w->may_fail = false;
    co_model_verify(w);
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        if (w->sectors[i].torn) {
            co_model_write(w, i, 1);
        }
    }
}

/* --- Images --------------------------------------------------------------------------------- */

static inline void model_shell(const char *command)
{
    int status;
    AUTOFREE char *out = rig_shell(&status, "cd %s && %s", rig_dir, command);

    if (status != 0) {
        print_message("%s\n%s\n", command, out);
    }
    assert_int_equal(status, 0);
}

/* What the model holds now (or held at first), as a raw file of the host. */
static inline void model_write_raw(struct world *w, const char *name, bool at_first)
{
    AUTOFREE char *path = mem_printf("%s/%s", rig_dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, w->size), 0);
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        const struct sector *s = &w->sectors[i];
        uint32_t id = s->history[at_first ? 0 : s->now].id;
        uint8_t buf[SECTOR];
        if (id != 0) {
            model_pattern(id, buf);
            assert_int_equal(pwrite(fd, buf, SECTOR, model_offset(w, i)), SECTOR);
        }
    }
    close(fd);
}

/* Random first values, in runs. */
static inline void model_first_values(struct world *w, bool some)
{
    for (uint32_t i = 0, left = 0, id = 0; i < w->n_sectors; i++, left--) {
        if (left == 0) {
            left = 1 + random_below(&w->rnd, 600);
            id = some && random_below(&w->rnd, 2);
        }
        if (w->sectors[i].n > 0) {
            continue;
        }
        model_issue(w, i, id ? w->next_id++ : 0);
    }
}

static inline void model_create_images(struct world *w)
{
    const struct config *cfg = w->cfg;

    model_first_values(w, cfg->backing || cfg->preload);
    model_write_raw(w, "first.raw", true);
    if (cfg->backing) {
        model_shell("qemu-img convert -O qcow2 -o cluster_size=4096 first.raw base.qcow2");
        AUTOFREE char *create =
            mem_printf("qemu-img create -q -f qcow2 -o %s -b base.qcow2 -F qcow2 image.qcow2 %llu",
                       cfg->options, (unsigned long long)w->size);
        model_shell(create);
    } else if (cfg->preload) {
        AUTOFREE char *convert =
            mem_printf("qemu-img convert -q %s -f raw -O qcow2 -o %s first.raw image.qcow2",
                       cfg->compress ? "-c" : "", cfg->options);
        model_shell(convert);
    } else {
        AUTOFREE char *create = mem_printf("qemu-img create -q -f qcow2 -o %s image.qcow2 %llu",
                                           cfg->options, (unsigned long long)w->size);
        model_shell(create);
    }
    if (cfg->snapshot) {
        model_shell("qemu-img snapshot -c s1 image.qcow2");
    }
    AUTOFREE char *image = mem_printf("%s/image.qcow2", rig_dir);
    AUTOFREE char *base = mem_printf("%s/base.qcow2", rig_dir);
    assert_int_equal(io_sim_import(IMAGE, image), 0);
    if (cfg->backing) {
        assert_int_equal(io_sim_import(BASE, base), 0);
    }
    io_sim_create(SOURCE, SOURCE_BYTES);
}

static inline void co_model_open(struct world *w)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:s}", "driver", "qcow2", "discard",
                                w->cfg->keep_stale ? "ignore" : "unmap");

    if (w->cfg->cache) {
        json_object_set_new(options, "l2-cache-size", json_integer(w->cfg->cache));
        json_object_set_new(options, "refcount-cache-size", json_integer(w->cfg->cache));
    }
    w->node = co_node_open(IMAGE, options, &err);
    json_decref(options);
    if (!w->node) {
        print_message("%s: %s\n", w->cfg->options, err.text);
    }
    assert_non_null(w->node);
    assert_int_equal(w->node->size, w->size);
    w->cluster = ((struct qcow2 *)w->node->state)->cluster_size;
    w->old_version = ((struct qcow2 *)w->node->state)->h.version < 3;
    assert_int_equal(co_io_open(NULL, SOURCE, IO_READ_ONLY, &w->source), 0);
}

static inline void co_model_close(struct world *w)
{
    co_node_unref(w->node);
    co_io_close(w->source);
    w->node = NULL;
}

static inline void model_init(struct world *w, const struct config *cfg, uint64_t seed)
{
    *w = (struct world){ .cfg = cfg, .next_id = 1 };
    random_seed(&w->rnd, seed);
    w->per_window = cfg->window / SECTOR;
    w->n_sectors = WINDOWS * w->per_window + cfg->tail / SECTOR;
    if (cfg->stride) { /* the last window ends the disk */
        w->n_sectors = WINDOWS * w->per_window;
    }
    w->sectors = mem_calloc(w->n_sectors, sizeof(*w->sectors));
    w->floor = mem_calloc(w->n_sectors, sizeof(*w->floor));
    w->size = model_offset(w, w->n_sectors - 1) + SECTOR;
    io_sim_reset();
}

static inline void model_free(struct world *w)
{
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        free(w->sectors[i].history);
    }
    free(w->sectors);
    free(w->floor);
    model_shell("rm -f *.raw *.qcow2");
}

/* --- The judge ------------------------------------------------------------------------------ */

/* 0: clean; 3: leaked clusters only; anything else is said on the way. */
static inline int model_qemu_check(const struct world *w)
{
    int status;

    AUTOFREE char *image = mem_printf("%s/image.qcow2", rig_dir);
    assert_int_equal(io_sim_export(IMAGE, image), 0);
    AUTOFREE char *out =
        rig_shell(&status, "cd %s && qemu-img check -f qcow2 image.qcow2", rig_dir);
    if (status != 0 && status != 3) {
        print_message("%s\n%s\n", w->cfg->options, out);
    }
    return status;
}

/* The image is closed: clean, and its content is the model's. */
static inline void model_judge(struct world *w, bool leaks_allowed)
{
    int status = model_qemu_check(w);

    assert_true(status == 0 || (leaks_allowed && status == 3));
    model_write_raw(w, "now.raw", false);
    model_shell("qemu-img compare -f qcow2 -F raw image.qcow2 now.raw");
    if (w->cfg->snapshot) {
        model_shell("qemu-img convert -l snapshot.name=s1 -f qcow2 -O raw image.qcow2 s1.raw");
        model_shell("qemu-img compare -f raw -F raw s1.raw first.raw");
    }
}

#endif
