/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stream tells how much there is to do before the first byte moves, and from the first tenth on how long it will take.
 */
#include "block/copier-count.h"
#include "tests/unit/job-rig.h"

/* --- The plan alone ------------------------------------------------------------------------------------------------- */

static void what_was_touched_ahead_of_the_job_is_planned_anew(void **state)
{
    struct progress p;
    uint64_t offset, len;

    progress_init(&p, 64 * MIB);
    progress_plan(&p, MIB, 4 * MIB); /* over the edges of pieces */
    assert_int_equal(p.total, 4 * MIB);
    progress_touch(&p, 4 * MIB, 4096, 3 * MIB); /* the piece at 4 MiB */
    progress_touch(&p, 2 * MIB, 4096, 3 * MIB); /* where the job is: too late */
    assert_true(progress_take_stale(&p, 3 * MIB, &offset, &len));
    assert_int_equal(offset, 4 * MIB);
    assert_int_equal(len, 2 * MIB);
    assert_int_equal(p.total, 3 * MIB);
    progress_plan(&p, offset, 65536);
    assert_int_equal(p.total, 3 * MIB + 65536);
    assert_false(progress_take_stale(&p, 0, &offset, &len));
    progress_touch(&p, 10 * MIB, 30 * MIB, 0);
    assert_false(progress_take_stale(&p, 40 * MIB, &offset, &len)); /* the job has passed all of them */
    assert_int_equal(p.n_stale, 0);
    progress_fini(&p);
}

static void a_huge_disk_has_a_small_plan(void **state)
{
    struct progress p;

    progress_init(&p, 64ull << 40);
    assert_true(p.pieces <= 16384);
    progress_plan(&p, (64ull << 40) - 65536, 65536);
    assert_int_equal(p.total, 65536);
    progress_fini(&p);
}

static void the_rate_is_that_of_the_last_seconds(void **state)
{
    struct progress p;
    uint64_t now = 0, done = 0;

    progress_init(&p, 1ull << 40);
    progress_plan(&p, 0, 1000 * MIB);
    assert_int_equal(progress_rate(&p, now, done), 0);
    assert_true(progress_time_left(&p, now, done) == UINT64_MAX);
    progress_restart(&p, now, done);
    for (unsigned i = 0; i < 300; i++) { /* 30 s of 10 MiB/s, then 30 s of 20 MiB/s */
        now += NS_PER_S / 10;
        progress_sample(&p, now, done += MIB);
    }
    assert_int_equal(progress_rate(&p, now, done), 10 * MIB);
    for (unsigned i = 0; i < 300; i++) {
        now += NS_PER_S / 10;
        progress_sample(&p, now, done += 2 * MIB);
    }
    assert_int_equal(progress_rate(&p, now, done), 20 * MIB);
    assert_int_equal(progress_time_left(&p, now, done), 5 * NS_PER_S);
    progress_fini(&p);
}

/* --- Whole jobs ---------------------------------------------------------------------------------------------------------- */

#define LOOKS 64
struct scene {
    const char *name;
    uint64_t size, step, piece;   /* data: `piece` bytes at each multiple of `step` */
    bool zero_half, keep_base;    /* every second step holds zeroes that hide the base's data */
    bool compressed;              /* the base's clusters are */
    unsigned layers;              /* more below the base, and its clusters dealt out to all of them */
    int64_t speed;
    uint64_t medium;              /* bytes per second */
};

#define CLUSTER 65536u

/* What compresses to a half. */
static void co_pack(struct node *node, uint64_t at)
{
    AUTOFREE uint8_t *bytes = mem_zalloc(CLUSTER), *packed = mem_alloc(CLUSTER);

    for (unsigned i = 0; i < CLUSTER; i += 2) {
        bytes[i] = loop_random();
    }
    size_t len = co_qcow2_compress(node, bytes, packed);

    assert_in_range(len, 1, CLUSTER - 1);
    assert_int_equal(co_qcow2_write_packed(node, at, packed, len), 0);
}

static void co_make_base(const struct scene *sc, const char *name, const char *backing, unsigned layer)
{
    unsigned layers = sc->layers + 1, n = 0;

    co_rig_create(name, backing, sc->size);
    struct node *node = co_rig_open(name);

    for (uint64_t at = 0; at < sc->size; at += sc->step) {
        if (sc->compressed) {
            co_pack(node, at);
        } else if (n++ % layers == layer) {
            co_rig_fill(node, at, sc->piece);
        }
    }
    co_node_unref(node);
}

static void co_make_scene(const struct scene *sc)
{
    char name[32], below[32] = "";

    for (unsigned layer = 0; layer < sc->layers; layer++) {
        snprintf(name, sizeof(name), "/layer-%u.img", layer);
        co_make_base(sc, name, layer ? below + 1 : NULL, layer);
        memcpy(below, name, sizeof(below));
    }
    co_make_base(sc, "/base.img", sc->layers ? below + 1 : NULL, sc->layers);
    co_rig_create("/mid.img", "base.img", sc->size);
    struct node *mid = co_rig_open("/mid.img");

    for (uint64_t at = 0, i = 0; sc->zero_half && at < sc->size; at += sc->step, i++) {
        if (i % 2) {
            assert_int_equal(co_node_zero(mid, at, sc->piece, 0), 0);
        } else {
            co_rig_fill(mid, at, sc->piece);
        }
    }
    co_node_unref(mid);
    co_rig_create("/top.img", "mid.img", sc->size);
}

struct look {
    uint64_t at_ns, left_ns, rate, done;
};

/* From the first tenth on: was what it said right? The last tenth also holds the flush, so times below it are not asked. */
static void judge(const struct scene *sc, const struct look *looks, unsigned n, uint64_t end_ns, uint64_t total)
{
    unsigned judged = 0;

    for (unsigned i = 0; i < n; i++) {
        double really = end_ns - looks[i].at_ns, rate = (double)(total - looks[i].done) * NS_PER_S / really;

        if (looks[i].done * 10 < total || looks[i].done * 10 > total * 9) {
            continue;
        }
        if (looks[i].left_ns < really * 0.8 || looks[i].left_ns > really * 1.2 || looks[i].rate < rate * 0.8 ||
            looks[i].rate > rate * 1.2) {
            fail_msg("%s: at %llu%% it said %.3f s at %.1f MiB/s, it was %.3f s at %.1f MiB/s", sc->name,
                     (unsigned long long)(looks[i].done * 100 / total), looks[i].left_ns / 1e9, looks[i].rate / 1048576.0,
                     really / 1e9, rate / 1048576.0);
        }
        judged++;
    }
    assert_true(judged >= 10);
}

static void co_run_scene(const struct scene *sc)
{
    struct stream_args args = { .device = "d", .base = sc->keep_base ? "base.img" : NULL, .has_speed = true,
                                .speed = sc->speed, .auto_finalize = true, .auto_dismiss = true };
    struct look looks[LOOKS];
    struct error err = ERROR_INIT;
    unsigned n = 0;

    co_make_scene(sc);
    struct disk *disk = disk_new("d", co_rig_open("/top.img"));

    medium.bytes_per_s = sc->medium;
    assert_int_equal(co_stream_start(&args, &err), 0);
    struct job *job = job_ref(job_find("d"));

    while (!job_data_total(job)) {
        assert_int_equal(job->data_done, 0); /* known before the first byte moves */
        co_sleep_ns(20000);
    }
    uint64_t total = job_data_total(job), step = total / LOOKS;

    for (uint64_t next = step; !job_ended(job); co_sleep_ns(20000)) {
        if (job->data_done >= next && n < LOOKS && job->data_done < total) {
            uint64_t now = loop_now();
            looks[n++] = (struct look){ .at_ns = now, .done = job->data_done,
                                        .left_ns = progress_time_left(&job->progress, now, job->data_done),
                                        .rate = progress_rate(&job->progress, now, job->data_done) };
            next = job->data_done + step;
        }
    }
    assert_int_equal(job->ret, 0);
    assert_int_equal(job->data_done, total); /* what was promised, to the byte */
    judge(sc, looks, n, job->ended_ns, total);
    job_unref(job);
    co_disk_free(disk);
}

static void run_scene(void *arg)
{
    co_run_scene(arg);
}

static void dense(void **state)
{
    struct scene sc = { .name = "dense", .size = 64 * MIB, .step = MIB, .piece = MIB, .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

static void sparse(void **state)
{
    struct scene sc = { .name = "sparse", .size = 1ull << 40, .step = 8ull << 30, .piece = 512 << 10, .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

static void lopsided(void **state)
{
    struct scene sc = { .name = "lopsided", .size = 256 * MIB, .step = 256 * MIB, .piece = 64 * MIB, .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

static void half_zero(void **state)
{
    struct scene sc = { .name = "half zero", .size = 128 * MIB, .step = MIB, .piece = MIB, .zero_half = true,
                        .keep_base = true, .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

/* Large beside the 4 MiB in flight: all windows go on side by side here, and end together. */
static void deep(void **state)
{
    struct scene sc = { .name = "deep", .size = 256 * MIB, .step = CLUSTER, .piece = CLUSTER, .layers = 15, .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

static void compressed(void **state)
{
    struct scene sc = { .name = "compressed", .size = 64 * MIB, .step = CLUSTER, .piece = CLUSTER, .compressed = true,
                        .medium = 100 * MIB };
    loop_run_co(run_scene, &sc);
}

static void limited(void **state)
{
    struct scene sc = { .name = "limited", .size = 64 * MIB, .step = MIB, .piece = MIB, .speed = 5 * MIB };
    loop_run_co(run_scene, &sc);
}

static void limited_and_scattered(void **state)
{
    struct scene sc = { .name = "limited and scattered", .size = 512 * MIB, .step = 2 * MIB, .piece = 192 << 10,
                        .speed = 5 * MIB };
    loop_run_co(run_scene, &sc);
}

/* --- A guest changes it ----------------------------------------------------------------------------------------------- */

static void run_overtaken(void *arg)
{
    struct scene sc = { .size = 64 * MIB, .step = MIB, .piece = MIB };
    struct stream_args args = { .device = "d", .has_speed = true, .speed = 4 * MIB, .auto_finalize = true,
                                .auto_dismiss = true };
    struct error err = ERROR_INIT;

    co_make_scene(&sc);
    struct disk *disk = disk_new("d", co_rig_open("/top.img"));

    assert_int_equal(co_stream_start(&args, &err), 0);
    struct job *job = job_ref(job_find("d"));

    co_sleep_ns(NS_PER_S);
    assert_int_equal(job_data_total(job), 64 * MIB);
    AUTOFREE uint8_t *data = mem_zalloc(16 * MIB);
    struct iovec iov = { .iov_base = data, .iov_len = 16 * MIB };

    data[0] = 1;
    assert_int_equal(co_disk_write(disk, 32 * MIB, &iov, 1), 0);
    assert_int_equal(co_disk_zero(disk, 56 * MIB, 4 * MIB, true), 0);
    co_sleep_ns(NS_PER_S);
    assert_int_equal(job_data_total(job), 44 * MIB); /* 20 MiB less to bring in */
    assert_int_equal(job_set_speed(job, 0, &err), 0);
    co_job_wait(job);
    assert_int_equal(job->data_done, 44 * MIB);
    job_unref(job);
    co_disk_free(disk);
}

static void what_a_guest_writes_or_discards_ahead_is_not_to_do_any_more(void **state)
{
    loop_run_co(run_overtaken, NULL);
}

/* --- The cost -------------------------------------------------------------------------------------------------------------- */

static uint64_t looks_into_tables;
static struct driver spy;

static int co_spy_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    looks_into_tables++;
    return driver_qcow2.co_map(node, offset, len, out);
}

static void nothing(void *arg, uint64_t offset, uint64_t bytes)
{
    *(uint64_t *)arg += bytes;
}

static void run_cost(void *arg)
{
    struct copier c = { 0 };
    struct copier_count cc;
    uint64_t bytes = 0;

    co_rig_create("/base.img", NULL, 1ull << 40);
    c.target = co_rig_open("/base.img");
    co_rig_fill(c.target, 700ull << 30, 3 * MIB);
    co_node_unref(c.target);
    co_rig_create("/top.img", "base.img", 1ull << 40);
    c.target = co_rig_open("/top.img");
    spy = driver_qcow2;
    spy.co_map = co_spy_map;
    c.target->driver = c.target->backing->driver = &spy;
    copier_count_begin(&cc, &c, 0, c.target->size, nothing, &bytes);
    while (co_copier_count_go_on(&cc)) {
        co_yield();
    }
    copier_count_end(&cc);
    assert_int_equal(bytes, 3 * MIB);
    assert_in_range(looks_into_tables, 1, 64); /* a table has 16 parts that are read one by one */
    c.target->driver = c.target->backing->driver = &driver_qcow2;
    co_node_unref(c.target);
}

static void counting_a_terabyte_of_nothing_costs_a_few_looks(void **state)
{
    loop_run_co(run_cost, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_touched_ahead_of_the_job_is_planned_anew),
        cmocka_unit_test(a_huge_disk_has_a_small_plan),
        cmocka_unit_test(the_rate_is_that_of_the_last_seconds),
        cmocka_unit_test_setup_teardown(dense, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(sparse, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(lopsided, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(half_zero, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(deep, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(compressed, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(limited, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(limited_and_scattered, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(what_a_guest_writes_or_discards_ahead_is_not_to_do_any_more, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(counting_a_terabyte_of_nothing_costs_a_few_looks, rig_setup, rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
