/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stream, or a commit, under a writing guest on the simulated disk: the power is cut at every flush, and the process killed,
 * then the chain is opened again and every sector judged.
 *
 * The model: each write of a block has a version.  A sector may show any version from the last one that was flushed to the last one
 * that was issued; nothing else, ever.  Version 0 is what the layers held before.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/commit.h"
#include "block/disk.h"
#include "block/file.h"
#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "tests/unit/sim-world.h"

#define SIZE (2u << 20)
#define BLOCK 2048u
#define BLOCKS (SIZE / BLOCK)
#define LAYERS 4
#define CUTS_A_POINT 5

struct variant {
    const char *name;
    const char *cluster_size, *compat, *extended_l2;
    const char *base; /* NULL: flatten */
    bool intermediate;
    bool commit; /* no stream: the top goes down into the layer below it */
};

struct point { /* a moment in which the power could have gone */
    struct io_sim_snapshot *disk;
    uint16_t flushed[BLOCKS], issued[BLOCKS];
    bool completed;
};

static struct {
    const struct variant *variant;
    uint16_t flushed[BLOCKS], issued[BLOCKS], written[BLOCKS];
    uint8_t initial[SIZE];
    struct point *points;
    size_t n_points;
    bool recording, completed, stop_writers;
    unsigned writers;
    struct random rnd;
    struct disk *disk;
} run;

/* --- Content -------------------------------------------------------------------------------------------------- */

static void stamp(uint8_t *out, unsigned block, unsigned sector, uint16_t version)
{
    if (version == 0) {
        memcpy(out, run.initial + block * BLOCK + sector * NODE_SECTOR, NODE_SECTOR);
        return;
    }
    for (unsigned i = 0; i < NODE_SECTOR; i += 8) {
        store_le64(out + i, ((uint64_t)version << 40) ^ ((uint64_t)block << 16) ^ (sector << 8) ^ i ^ 0x5a);
    }
}

static json_t *image_options(const char *backing)
{
    return json_pack("{s:i, s:s, s:s, s:s, s:s*, s:s*}", "size", SIZE, "cluster_size", run.variant->cluster_size, "compat",
                     run.variant->compat, "extended_l2", run.variant->extended_l2, "backing_file", backing,
                     "backing_fmt", backing ? "qcow2" : NULL);
}

static void co_make_layer(unsigned layer)
{
    AUTOFREE char *path = mem_printf("/%c.img", 'A' + layer);
    AUTOFREE char *below = layer ? mem_printf("%c.img", 'A' + layer - 1) : NULL;
    json_t *options = image_options(below);
    struct error err = ERROR_INIT;
    uint8_t data[BLOCK];

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
    options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open(path, options, &err);
    json_decref(options);
    assert_non_null(node);
    for (unsigned b = 0; b < BLOCKS; b++) {
        if (random_below(&run.rnd, 3) == 0) {
            for (unsigned i = 0; i < BLOCK; i += 8) {
                store_le64(data + i, random_next(&run.rnd));
            }
            memcpy(run.initial + b * BLOCK, data, BLOCK);
            assert_int_equal(co_node_write_buf(node, b * BLOCK, data, BLOCK), 0);
        } else if (random_below(&run.rnd, 12) == 0) {
            memset(run.initial + b * BLOCK, 0, BLOCK);
            assert_int_equal(co_node_zero(node, b * BLOCK, BLOCK, 0), 0);
        }
    }
    co_node_unref(node);
}

/* --- The guest ------------------------------------------------------------------------------------------------------ */

static void co_guest_write(void)
{
    unsigned block = random_below(&run.rnd, BLOCKS);
    uint16_t version;
    uint8_t data[BLOCK];
    struct iovec iov = { .iov_base = data, .iov_len = BLOCK };

    if (run.issued[block] != run.written[block]) {
        return; /* one at a time a block */
    }
    version = ++run.issued[block];
    for (unsigned s = 0; s < BLOCK / NODE_SECTOR; s++) {
        stamp(data + s * NODE_SECTOR, block, s, version);
    }
    assert_int_equal(co_disk_write(run.disk, block * BLOCK, &iov, 1), 0);
    run.written[block] = version;
}

static void co_guest_flush(void)
{
    uint16_t before[BLOCKS];

    memcpy(before, run.written, sizeof(before));
    assert_int_equal(co_disk_flush(run.disk), 0);
    for (unsigned b = 0; b < BLOCKS; b++) {
        run.flushed[b] = MAX(run.flushed[b], before[b]);
    }
}

static CO_ENTRY void co_guest(void *arg)
{
    while (!run.stop_writers) {
        if (random_below(&run.rnd, 16) == 0) {
            co_guest_flush();
        } else {
            co_guest_write();
        }
        co_sleep_ns(random_below(&run.rnd, 1000000));
    }
    run.writers--;
}

/* --- The run --------------------------------------------------------------------------------------------------------- */

static void on_op(void *arg, const struct io_sim_event *event)
{
    if (!run.recording || event->op == IO_SIM_READ || (event->op != IO_SIM_FLUSH && random_below(&run.rnd, 12))) {
        return;
    }
    run.points = mem_reallocarray(run.points, run.n_points + 1, sizeof(*run.points));
    struct point *p = &run.points[run.n_points++];
    p->disk = io_sim_snapshot();
    memcpy(p->flushed, run.flushed, sizeof(p->flushed));
    memcpy(p->issued, run.issued, sizeof(p->issued));
    p->completed = run.completed;
}

static void on_completed(struct job_listener *l, struct job *job)
{
    assert_int_equal(job->ret, 0);
    run.completed = true;
}

/* Each crash leaves something that can be committed, too. */
static void co_commit_again(struct node *node, const uint8_t *content)
{
    AUTOFREE uint8_t *got = mem_alloc(SIZE);
    struct error err = ERROR_INIT;

    if (co_commit(node, NULL, NULL, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(co_node_read_buf(node, 0, got, SIZE), 0);
    assert_memory_equal(got, content, SIZE);
}

static void co_stream_or_commit(void)
{
    struct stream_args args = { .device = run.variant->intermediate ? "mid" : "virtio0", .base = run.variant->base,
                                .job_id = "job", .has_speed = true, .speed = 16 << 20, .auto_finalize = true,
                                .auto_dismiss = true };
    struct error err = ERROR_INIT;
    int ret = run.variant->commit ? co_commit(run.disk->root, NULL, NULL, &err) : co_stream_start(&args, &err);

    if (ret < 0) {
        fail_msg("%s", err.text);
    }
    while (job_any()) {
        co_sleep_ns(NS_PER_MS);
    }
    run.completed = run.completed || run.variant->commit;
}

static void co_run_stream(void)
{
    struct job_listener listener = { .completed = on_completed };
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:{s:s}}", "driver", "qcow2", "backing", "node-name", "mid");
    struct node *node = co_node_open("/D.img", options, &err);

    json_decref(options);
    assert_non_null(node);
    run.disk = disk_new("virtio0", node);
    job_listen(&listener);
    run.recording = true;
    run.writers = 3;
    for (unsigned i = 0; i < 3; i++) {
        co_start(co_guest, NULL);
    }
    co_sleep_ns(5 * NS_PER_MS);
    co_stream_or_commit();
    assert_true(run.completed);
    co_sleep_ns(20 * NS_PER_MS);
    run.stop_writers = true;
    while (run.writers > 0) {
        co_sleep_ns(NS_PER_MS);
    }
    run.recording = false;
    io_sim_on_op(NULL, NULL);
    job_unlisten(&listener);
    co_disk_free(run.disk);
}

/* --- Judging -------------------------------------------------------------------------------------------------------------- */

static void judge_sector(const struct point *p, unsigned block, unsigned sector, const uint8_t *got, const char *where)
{
    uint8_t want[NODE_SECTOR];

    for (unsigned v = p->flushed[block]; v <= p->issued[block]; v++) {
        stamp(want, block, sector, v);
        if (memcmp(want, got, NODE_SECTOR) == 0) {
            return;
        }
    }
    fail_msg("%s %s: block %u sector %u is none of the versions %u to %u", run.variant->name, where, block, sector,
             p->flushed[block], p->issued[block]);
}

static void judge_with_qemu_img(const char *where)
{
    static const char *const names[] = { "A.img", "B.img", "C.img", "D.img" };
    char dir[] = "/tmp/merganser-crash-XXXXXX";
    AUTOFREE char *command = NULL;

    assert_non_null(mkdtemp(dir));
    for (unsigned i = 0; i < LAYERS; i++) {
        AUTOFREE char *from = mem_printf("/%s", names[i]);
        AUTOFREE char *to = mem_printf("%s/%s", dir, names[i]);
        assert_int_equal(io_sim_export(from, to), 0);
    }
    command = mem_printf("cd %s && for f in A B C D; do qemu-img check -q $f.img >/dev/null 2>&1; r=$?; "
                         "[ $r = 0 ] || [ $r = 3 ] || { qemu-img check $f.img; exit 1; }; done; rm -r %s", dir, dir);
    if (system(command) != 0) {
        fail_msg("%s %s: qemu-img check finds corruption, images kept in %s", run.variant->name, where, dir);
    }
}

static void co_judge(const struct point *p, size_t number, unsigned cut)
{
    static const char *const cut_names[] = { "power", "lose", "keep", "kill" };
    enum io_sim_cut mode = (enum io_sim_cut)(cut < 4 ? cut : cut % 2 ? IO_SIM_CUT_KILL : IO_SIM_CUT_POWER);
    AUTOFREE char *where = mem_printf("point %zu, cut %s, seed %u", number, cut_names[mode], cut);
    AUTOFREE uint8_t *got = mem_alloc(SIZE);
    struct error err = ERROR_INIT;

    io_sim_restore(p->disk);
    io_sim_cut(mode, number * 16 + cut);
    if (cut == number % 40) {
        judge_with_qemu_img(where);
    }
    json_t *options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open("/D.img", options, &err);
    json_decref(options);
    if (!node) {
        fail_msg("%s %s: %s", run.variant->name, where, err.text);
    }
    if (p->completed && !run.variant->intermediate && !run.variant->commit) {
        assert_int_equal(node->backing != NULL, run.variant->base != NULL);
    }
    assert_int_equal(co_node_read_buf(node, 0, got, SIZE), 0);
    for (unsigned b = 0; b < BLOCKS; b++) {
        for (unsigned s = 0; s < BLOCK / NODE_SECTOR; s++) {
            judge_sector(p, b, s, got + b * BLOCK + s * NODE_SECTOR, where);
        }
    }
    if (run.variant->commit && cut == number % CUTS_A_POINT) {
        co_commit_again(node, got);
    }
    co_node_unref(node);
}

static CO_ENTRY void co_whole(void *arg)
{
    for (unsigned i = 0; i < LAYERS; i++) {
        co_make_layer(i);
    }
    io_sim_on_op(on_op, NULL);
    co_run_stream();
    assert_true(run.n_points > 20);
    for (size_t i = 0; i < run.n_points; i++) {
        for (unsigned cut = 0; cut < CUTS_A_POINT; cut++) {
            co_judge(&run.points[i], i, cut);
        }
        io_sim_snapshot_free(run.points[i].disk);
    }
    print_message("%s: %zu moments, %zu states judged\n", run.variant->name, run.n_points, run.n_points * CUTS_A_POINT);
    free(run.points);
}

static void crash(const struct variant *variant)
{
    memset(&run, 0, sizeof(run));
    run.variant = variant;
    sim_begin(1);
    random_seed(&run.rnd, 3);
    loop_run_co(co_whole, NULL);
    sim_end();
}

static void flattening_survives_every_cut(void **state)
{
    crash(&(struct variant){ "flatten", "4096", "1.1", "off", NULL, false, false });
}

static void flattening_with_small_clusters_survives_every_cut(void **state)
{
    crash(&(struct variant){ "flatten-512", "512", "1.1", "off", NULL, false, false });
}

static void flattening_version_2_survives_every_cut(void **state)
{
    crash(&(struct variant){ "flatten-v2", "4096", "0.10", "off", NULL, false, false });
}

static void flattening_with_extended_l2_survives_every_cut(void **state)
{
    crash(&(struct variant){ "flatten-extl2", "65536", "1.1", "on", NULL, false, false });
}

static void keeping_the_base_survives_every_cut(void **state)
{
    crash(&(struct variant){ "base", "4096", "1.1", "off", "A.img", false, false });
}

static void an_intermediate_stream_survives_every_cut(void **state)
{
    crash(&(struct variant){ "intermediate", "4096", "1.1", "off", "A.img", true, false });
}

static void a_commit_survives_every_cut(void **state)
{
    crash(&(struct variant){ "commit", "4096", "1.1", "off", NULL, false, true });
}

static void a_commit_of_version_2_survives_every_cut(void **state)
{
    crash(&(struct variant){ "commit-v2", "4096", "0.10", "off", NULL, false, true });
}

static void a_commit_with_extended_l2_survives_every_cut(void **state)
{
    crash(&(struct variant){ "commit-extl2", "65536", "1.1", "on", NULL, false, true });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flattening_survives_every_cut),
        cmocka_unit_test(flattening_with_small_clusters_survives_every_cut),
        cmocka_unit_test(flattening_version_2_survives_every_cut),
        cmocka_unit_test(flattening_with_extended_l2_survives_every_cut),
        cmocka_unit_test(keeping_the_base_survives_every_cut),
        cmocka_unit_test(an_intermediate_stream_survives_every_cut),
        cmocka_unit_test(a_commit_survives_every_cut),
        cmocka_unit_test(a_commit_of_version_2_survives_every_cut),
        cmocka_unit_test(a_commit_with_extended_l2_survives_every_cut),
    };
    return cmocka_run_group_tests_name("stream-crash", tests, NULL, NULL);
}
