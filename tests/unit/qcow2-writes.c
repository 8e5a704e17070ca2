/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests on images of every shape, several at a time, against a model; afterwards qemu-img
 * finds no error, no leak and the same bytes.
 */
#include "tests/unit/qcow2-model.h"

#define OPS 400

static const struct config configs[] = {
    { .options = "cluster_size=65536", .window = 1 << 20, .tail = 1536 },
    { .options = "cluster_size=65536", .window = 1 << 20, .tail = 1536, .keep_stale = true },
    { .options = "cluster_size=65536", .window = 1 << 20, .stride = 1ull << 30, .backing = true },
    { .options = "cluster_size=65536,compat=0.10", .window = 1 << 20, .tail = 512 },
    { .options = "cluster_size=65536,compat=0.10", .window = 1 << 20, .backing = true,
      .cache = 16384 },
    { .options = "cluster_size=512,refcount_bits=1", .window = 256 << 10, .cache = 4096 },
    { .options = "cluster_size=512,refcount_bits=64", .window = 512 << 10, .backing = true,
      .cache = 8192 },
    { .options = "cluster_size=512,refcount_bits=64", .window = 512 << 10, .stride = 3 << 20 },
    { .options = "cluster_size=1024,refcount_bits=2", .window = 512 << 10, .snapshot = true,
      .preload = true },
    { .options = "cluster_size=4096,refcount_bits=4", .window = 1 << 20, .tail = 2560,
      .backing = true },
    { .options = "cluster_size=4096,refcount_bits=8", .window = 1 << 20, .stride = 64 << 20,
      .preload = true, .compress = true },
    { .options = "cluster_size=16384,refcount_bits=32", .window = 1 << 20, .tail = 512,
      .preload = true, .snapshot = true, .cache = 16384 },
    { .options = "cluster_size=4096", .window = 1 << 20, .preload = true, .compress = true,
      .keep_stale = true },
    { .options = "cluster_size=2M", .window = 6 << 20, .tail = 1024, .backing = true },
    { .options = "cluster_size=65536", .window = 2 << 20, .preload = true, .compress = true,
      .snapshot = true },
    { .options = "cluster_size=65536,compression_type=zstd", .window = 1 << 20, .preload = true,
      .compress = true, .stride = 600ull << 20 },
    { .options = "cluster_size=16384,extended_l2=on", .window = 1 << 20, .tail = 1536 },
    { .options = "cluster_size=32768,extended_l2=on", .window = 1 << 20, .keep_stale = true },
    { .options = "cluster_size=65536,extended_l2=on", .window = 1 << 20, .backing = true,
      .tail = 512 },
    { .options = "cluster_size=65536,extended_l2=on", .window = 1 << 20, .preload = true,
      .compress = true, .snapshot = true, .cache = 16384 },
    { .options = "cluster_size=2M,extended_l2=on", .window = 5 << 20, .backing = true },
};

struct run {
    const struct config *cfg;
    uint64_t seed;
};

static void co_rounds(void *arg)
{
    const struct run *run = arg;
    struct world w;

    model_init(&w, run->cfg, run->seed);
    model_create_images(&w);
    for (int round = 0; round < 2; round++) {
        co_model_open(&w);
        co_model_work(&w, OPS);
        co_model_verify(&w);
        co_model_close(&w);
        model_judge(&w, false);
    }
    co_model_open(&w);
    co_model_verify(&w);
    co_model_close(&w);
    model_free(&w);
}

static void requests_of_all_kinds_at_once(void **state)
{
    const char *seed = getenv("SEED");

    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        struct run run = { .cfg = &configs[i],
                           .seed = seed ? strtoull(seed, NULL, 0) + i : 100 + i };
        loop_run_co(co_rounds, &run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_all_kinds_at_once),
    };
    return cmocka_run_group_tests(tests, model_setup, rig_teardown);
}
