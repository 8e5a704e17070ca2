/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kill points: random requests on images of every shape while the process dies or the power goes.
 *
 * While requests run, states of the disk are taken at random moments, between any two host
 * operations.  Each is then cut: seeded subsets of what was cached or in flight are lost, kept or
 * torn.  Whatever is left: qemu-img check finds no corruption (leaks are allowed), every sector
 * holds what it held at the last flush or something that was written later, and work goes on with
 * the image as it is.
 */
#include "tests/unit/qcow2-model.h"

#include "block/qcow2-refcount.h"

#define OPS 250
#define STATES 4u

static const struct config configs[] = {
    { .options = "cluster_size=512,refcount_bits=64", .window = 2 << 20, .cache = 16384 },
    { .options = "cluster_size=512,refcount_bits=64", .window = 1 << 20, .preload = true },
    { .options = "cluster_size=65536", .window = 1 << 20, .tail = 1536 },
    { .options = "cluster_size=65536", .window = 1 << 20, .stride = 1ull << 30, .backing = true },
    { .options = "cluster_size=65536,compat=0.10", .window = 512 << 10, .backing = true,
      .cache = 16384 },
    { .options = "cluster_size=512,refcount_bits=64", .window = 512 << 10, .stride = 3 << 20,
      .cache = 8192 },
    { .options = "cluster_size=512,refcount_bits=1", .window = 256 << 10, .keep_stale = true },
    { .options = "cluster_size=1024,refcount_bits=64", .window = 1 << 20, .snapshot = true,
      .preload = true },
    { .options = "cluster_size=4096,refcount_bits=8", .window = 512 << 10, .preload = true,
      .compress = true },
    { .options = "cluster_size=4096", .window = 512 << 10, .preload = true, .compress = true,
      .keep_stale = true },
    { .options = "cluster_size=4096", .window = 512 << 10, .backing = true, .cache = 4096,
      .keep_stale = true },
    { .options = "cluster_size=16384,extended_l2=on", .window = 512 << 10, .backing = true,
      .tail = 1536 },
    { .options = "cluster_size=65536,extended_l2=on", .window = 512 << 10, .preload = true,
      .snapshot = true },
};

/* Which moments are taken. */
enum when {
    ANY,
    GENERATION, /* while changes are being written in their order */
    GROWTH,     /* while the reftable is on its way to a new place */
};

/* A state, and what is known of it. */
struct moment {
    struct io_sim_snapshot *snapshot;
    uint32_t *floor;
    uint64_t before;
};

struct camera {
    struct world *w;
    struct moment moments[STATES];
    uint64_t seen;
    enum when when;
};

static void moment_free(struct moment *m)
{
    if (m->snapshot) {
        io_sim_snapshot_free(m->snapshot);
        free(m->floor);
        *m = (struct moment){ 0 };
    }
}

static bool is_time(const struct world *w, enum when when)
{
    const struct qcow2 *q = w->node->state;
    const struct qcow2_refs *refs = q->priv_refcount;

    switch (when) {
    case GENERATION:
        return q->writeback_lock.holder != NULL;
    case GROWTH:
        return refs->place != 0;
    default:
        return true;
    }
}

/* Any moment is as likely as any other to be among those that are kept. */
static void maybe_take(void *arg, const struct io_sim_event *event)
{
    struct camera *camera = arg;
    struct world *w = camera->w;
    uint64_t slot;
    struct moment *m;

    if (!is_time(w, camera->when)) {
        return;
    }
    slot = random_below(&w->rnd, ++camera->seen);
    if (camera->seen <= STATES) {
        slot = camera->seen - 1;
    } else if (slot >= STATES) {
        return;
    }
    m = &camera->moments[slot];
    moment_free(m);
    m->snapshot = io_sim_snapshot();
    m->floor = mem_dup(w->floor, w->n_sectors * sizeof(*w->floor));
    m->before = w->issued + 1;
}

/* Every sector holds something that it may hold; from now on it is what it holds. */
static void adopt(struct world *w, const struct moment *m)
{
    AUTOFREE char *path = mem_printf("%s/left.raw", rig_dir);
    int fd;

    model_shell("qemu-img convert -f qcow2 -O raw image.qcow2 left.raw");
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        struct sector *s = &w->sectors[i];
        uint8_t bytes[SECTOR], want[SECTOR];
        uint32_t k;

        assert_int_equal(pread(fd, bytes, SECTOR, model_offset(w, i)), SECTOR);
        if (!model_matches(s, m->floor[i], m->before, bytes)) {
            print_message("%s: sector %u: flushed was value %u of %u, found %016llx\n",
                          w->cfg->options, i, m->floor[i], s->n,
                          (unsigned long long)load_be64(bytes));
            fail();
        }
        for (k = m->floor[i];
             model_pattern(s->history[k].id, want), memcmp(want, bytes, SECTOR) != 0; k++) {
        }
        s->history[0] = (struct value){ .id = s->history[k].id };
        s->n = 1;
        s->now = 0;
        s->torn = s->busy = false;
        w->floor[i] = 0;
    }
    close(fd);
}

/* The same history again for the next moment. */
struct copy {
    struct sector *sectors;
    uint32_t *floor;
};

static void copy_save(const struct world *w, struct copy *c)
{
    c->sectors = mem_dup(w->sectors, w->n_sectors * sizeof(*w->sectors));
    c->floor = mem_dup(w->floor, w->n_sectors * sizeof(*w->floor));
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        c->sectors[i].history =
            mem_dup(w->sectors[i].history, w->sectors[i].room * sizeof(struct value));
    }
}

static void copy_swap(struct world *w, struct copy *c)
{
    struct copy mine = { w->sectors, w->floor };

    w->sectors = c->sectors;
    w->floor = c->floor;
    *c = mine;
}

static void copy_free(const struct world *w, struct copy *c)
{
    for (uint32_t i = 0; i < w->n_sectors; i++) {
        free(c->sectors[i].history);
    }
    free(c->sectors);
    free(c->floor);
}

static void co_judge_moment(struct world *w, const struct moment *m)
{
    static const enum io_sim_cut modes[] = { IO_SIM_CUT_KILL, IO_SIM_CUT_POWER, IO_SIM_CUT_POWER,
                                             IO_SIM_CUT_POWER_LOSE, IO_SIM_CUT_POWER_KEEP };
    struct copy copy;
    int status;

    io_sim_restore(m->snapshot);
    io_sim_cut(modes[random_below(&w->rnd, ARRAY_SIZE(modes))], random_next(&w->rnd));
    status = model_qemu_check(w);
    assert_true(status == 0 || status == 3);
    copy_save(w, &copy);
    adopt(w, m);
    co_model_open(w);
    co_model_work(w, OPS / 5);
    co_model_verify(w);
    co_model_close(w);
    model_judge(w, true);
    copy_swap(w, &copy);
    copy_free(w, &copy);
}

struct run {
    const struct config *cfg;
    uint64_t seed;
    enum when when;
};

/* Every cluster, with a flush now and then. */
static void co_fill_all(struct world *w)
{
    for (uint32_t i = 0, n; i < w->n_sectors; i += n) {
        n = MIN(model_room(w, i), 64u);
        co_model_write(w, i, n);
        if (random_below(&w->rnd, 8) == 0) {
            co_model_flush(w);
        }
    }
}

static void co_run(void *arg)
{
    const struct run *run = arg;
    struct world w;
    struct camera camera = { .w = &w, .when = run->when };

    model_init(&w, run->cfg, run->seed);
    model_create_images(&w);
    co_model_open(&w);
    io_sim_on_op(maybe_take, &camera);
    if (run->when == GROWTH) {
        co_fill_all(&w);
    }
    co_model_work(&w, OPS);
    io_sim_on_op(NULL, NULL);
    co_model_close(&w);
    assert_true(camera.seen > STATES);
    for (unsigned i = 0; i < STATES; i++) {
        co_judge_moment(&w, &camera.moments[i]);
        moment_free(&camera.moments[i]);
    }
    model_free(&w);
}

static void run_all(size_t n, enum when when, uint64_t first_seed)
{
    const char *seed = getenv("SEED");

    rig_need_qemu_img();
    for (size_t i = 0; i < n; i++) {
        struct run run = { .cfg = &configs[i],
                           .seed = (seed ? strtoull(seed, NULL, 0) : first_seed) + i,
                           .when = when };
        loop_run_co(co_run, &run);
    }
}

static void death_at_any_moment_corrupts_nothing(void **state)
{
    run_all(ARRAY_SIZE(configs), ANY, 200);
}

static void death_while_tables_are_written_corrupts_nothing(void **state)
{
    run_all(ARRAY_SIZE(configs), GENERATION, 250);
}

static void death_while_the_reftable_moves_corrupts_nothing(void **state)
{
    run_all(2, GROWTH, 700); /* the shapes that fill the reftable */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_at_any_moment_corrupts_nothing),
        cmocka_unit_test(death_while_tables_are_written_corrupts_nothing),
        cmocka_unit_test(death_while_the_reftable_moves_corrupts_nothing),
    };
    return cmocka_run_group_tests(tests, model_setup, rig_teardown);
}
