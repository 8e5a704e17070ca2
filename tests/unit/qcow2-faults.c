/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host that fails: errors of reads, writes and copies, a full disk, a flush that loses what it
 * was given.
 *
 * A request may fail then, but never half: each sector has its old or its new value, nothing is
 * corrupt, at worst clusters leak, and once the host is well again all goes on.
 */
#include "tests/unit/qcow2-model.h"

#define ROUNDS 6
#define OPS 60

static const struct config configs[] = {
    { .options = "cluster_size=65536", .window = 1 << 20, .tail = 1536 },
    { .options = "cluster_size=512,refcount_bits=64", .window = 512 << 10, .stride = 3 << 20,
      .cache = 8192 },
    { .options = "cluster_size=1024,refcount_bits=64", .window = 512 << 10, .snapshot = true,
      .preload = true },
    { .options = "cluster_size=4096,refcount_bits=8", .window = 512 << 10, .preload = true,
      .compress = true },
    { .options = "cluster_size=4096", .window = 512 << 10, .backing = true, .cache = 4096,
      .keep_stale = true },
    { .options = "cluster_size=16384,extended_l2=on", .window = 512 << 10, .backing = true,
      .tail = 1536 },
    { .options = "cluster_size=65536,compat=0.10", .window = 512 << 10, .backing = true },
};

struct run {
    const struct config *cfg;
    uint64_t seed;
    void (*co_round)(struct world *w);
};

static void co_round_of_errors(struct world *w)
{
    static const unsigned kinds[] = { IO_SIM_WRITE, IO_SIM_READ, IO_SIM_COPY,
                                      IO_SIM_WRITE | IO_SIM_READ | IO_SIM_COPY };

    for (int i = 0; i < 4; i++) {
        const struct io_sim_fault fault = {
            .kind = random_below(&w->rnd, 4) ? IO_SIM_FAULT_ERROR : IO_SIM_FAULT_SHORT,
            .path = IMAGE,
            .ops = kinds[random_below(&w->rnd, ARRAY_SIZE(kinds))],
            .after = random_below(&w->rnd, 60),
            .times = 1 + random_below(&w->rnd, 6),
        };
        io_sim_fault(&fault);
    }
    co_model_work(w, OPS);
    io_sim_faults_clear();
}

static void co_round_of_a_full_disk(struct world *w)
{
    uint64_t all = 0, bytes;

    for (struct node *node = w->node; node; node = node->backing) {
        assert_int_equal(co_io_allocated(node_host_file(node), &bytes), 0);
        all += bytes;
    }
    assert_int_equal(co_io_allocated(w->source, &bytes), 0);
    io_sim_set_quota(all + bytes + (random_below(&w->rnd, 64) << 10));
    co_model_work(w, OPS);
    io_sim_set_quota(0);
}

static void co_run(void *arg)
{
    const struct run *run = arg;
    struct world w;

    model_init(&w, run->cfg, run->seed);
    model_create_images(&w);
    co_model_open(&w);
    for (int i = 0; i < ROUNDS; i++) {
        w.may_fail = true;
        run->co_round(&w);
        w.may_fail = false;
        assert_int_equal(co_model_flush(&w), 0);
        co_model_work(&w, OPS / 4);
        co_model_verify(&w);
    }
    assert_true(w.failed > 0);
    co_model_settle(&w);
    co_model_close(&w);
    model_judge(&w, true);
    model_free(&w);
}

static void run_all(void (*co_round)(struct world *), uint64_t first_seed)
{
    const char *seed = getenv("SEED");

    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        struct run run = { .cfg = &configs[i],
                           .seed = (seed ? strtoull(seed, NULL, 0) : first_seed) + i,
                           .co_round = co_round };
        loop_run_co(co_run, &run);
    }
}

static void errors_of_the_host_tear_nothing(void **state)
{
    run_all(co_round_of_errors, 300);
}

static void a_full_disk_tears_nothing(void **state)
{
    run_all(co_round_of_a_full_disk, 400);
}

/* Flushes fail for ever after the first: nothing is released, nothing that was flushed before is
 * lost. */
static void co_lost_flush(void *arg)
{
    const struct run *run = arg;
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_SYNC_DROP,
                                  .path = IMAGE,
                                  .ops = IO_SIM_FLUSH };
    uint32_t *floor;
    struct world w;
    int status;

    model_init(&w, run->cfg, run->seed);
    model_create_images(&w);
    co_model_open(&w);
    co_model_work(&w, OPS);
    assert_int_equal(co_model_flush(&w), 0);
    fault.after = random_below(&w.rnd, 6);
    io_sim_fault(&fault);
    w.may_fail = true;
    co_model_work(&w, OPS * 3);
    assert_true(co_model_flush(&w) < 0);
    assert_true(w.failed > 0);
    co_model_close(&w);
    io_sim_faults_clear();
    io_sim_cut(IO_SIM_CUT_POWER, run->seed);
    status = model_qemu_check(&w);
    assert_true(status == 0 || status == 3);

    floor = mem_dup(w.floor, w.n_sectors * sizeof(*floor));
    for (uint32_t i = 0; i < w.n_sectors; i++) { /* all later values are possible */
        w.sectors[i].now = floor[i];
        w.sectors[i].torn = true;
    }
    co_model_open(&w);
    co_model_settle(&w);
    co_model_work(&w, OPS);
    co_model_verify(&w);
    co_model_close(&w);
    model_judge(&w, true);
    free(floor);
    model_free(&w);
}

static void a_failed_flush_loses_nothing_older(void **state)
{
    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        struct run run = { .cfg = &configs[i], .seed = 500 + i };
        loop_run_co(co_lost_flush, &run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_the_host_tear_nothing),
        cmocka_unit_test(a_full_disk_tears_nothing),
        cmocka_unit_test(a_failed_flush_loses_nothing_older),
    };
    return cmocka_run_group_tests(tests, model_setup, rig_teardown);
}
