/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the writing half of qcow2 does with the tables and the host, one behaviour at a time: how
 * many flushes, which entries, which clusters.
 */
#include "tests/unit/qcow2-model.h"

#include "block/qcow2-l2.h"
#include "block/qcow2-refcount.h"

#define CLUSTER 65536u

static struct node *node;
static struct qcow2 *q;

static void co_image(const char *create, const char *options)
{
    struct error err = ERROR_INIT;
    json_t *opts = json_loads(options, 0, NULL);
    AUTOFREE char *image = mem_printf("%s/image.qcow2", rig_dir);
    AUTOFREE char *base = mem_printf("%s/base.qcow2", rig_dir);

    io_sim_reset();
    model_shell("qemu-img create -q -f qcow2 base.qcow2 16M && qemu-io -f qcow2 -c 'write -P 5 0 "
                "2M' base.qcow2");
    model_shell(create);
    assert_int_equal(io_sim_import(IMAGE, image), 0);
    assert_int_equal(io_sim_import(BASE, base), 0);
    assert_non_null(opts);
    json_object_set_new(opts, "driver", json_string("qcow2"));
    node = co_node_open(IMAGE, opts, &err);
    json_decref(opts);
    if (!node) {
        print_message("%s\n", err.text);
    }
    assert_non_null(node);
    q = node->state;
}

static void co_plain_image(void)
{
    co_image("qemu-img create -q -f qcow2 image.qcow2 64M", "{\"discard\": \"unmap\"}");
}

static void co_overlay(const char *options)
{
    AUTOFREE char *create = mem_printf(
        "qemu-img create -q -f qcow2 -o %s -b base.qcow2 -F qcow2 image.qcow2 16M", options);
    co_image(create, "{\"discard\": \"unmap\"}");
}

static void co_done(void)
{
    AUTOFREE char *image = mem_printf("%s/image.qcow2", rig_dir);
    int status;

    co_node_unref(node);
    assert_int_equal(io_sim_export(IMAGE, image), 0);
    AUTOFREE char *out =
        rig_shell(&status, "cd %s && qemu-img check -f qcow2 image.qcow2", rig_dir);
    if (status != 0) {
        print_message("%s\n", out);
    }
    assert_int_equal(status, 0);
    model_shell("rm -f *.qcow2");
}

static void co_write_byte(uint64_t offset, uint64_t len, int byte)
{
    AUTOFREE uint8_t *buf = mem_alloc(len);

    memset(buf, byte, len);
    assert_int_equal(co_node_write_buf(node, offset, buf, len), 0);
}

static void co_expect_byte(uint64_t offset, uint64_t len, int byte)
{
    AUTOFREE uint8_t *buf = mem_alloc(len), *want = mem_alloc(len);

    memset(want, byte, len);
    assert_int_equal(co_node_read_buf(node, offset, buf, len), 0);
    assert_memory_equal(buf, want, len);
}

static struct extent co_map(uint64_t offset)
{
    struct extent e;

    assert_int_equal(co_qcow2_map(node, offset, node->size - offset, &e), 0);
    return e;
}

static uint64_t co_refcount(uint64_t host)
{
    uint64_t count;

    co_mutex_lock(&q->lock);
    assert_int_equal(co_qcow2_refcount_get(q, host / q->cluster_size, &count), 0);
    co_mutex_unlock(&q->lock);
    return count;
}

static uint64_t flushes(void)
{
    return io_stats.flushes;
}

/* --- Flushes -------------------------------------------------------------------------------- */

static void co_flush_costs(void *arg)
{
    uint64_t before;

    co_plain_image();
    before = flushes();
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(flushes() - before, 1); /* nothing dirty */

    co_write_byte(0, CLUSTER, 1);
    before = flushes();
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(flushes() - before, 3); /* data and counts; L2; L1 */

    co_write_byte(CLUSTER, 4096, 1);
    before = flushes();
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(flushes() - before, 2); /* data and counts; L2 */

    co_write_byte(CLUSTER, 4096, 2);
    before = flushes();
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(flushes() - before, 1); /* written in place */
    co_done();
}

static void a_flush_costs_no_more_than_the_order_needs(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_flush_costs, NULL);
}

static void co_one_flush(void *arg)
{
    unsigned *running = arg;

    assert_int_equal(co_node_flush(node), 0);
    --*running;
}

static void co_many_flushes(void *arg)
{
    unsigned running = 0;
    uint64_t before;

    co_plain_image();
    co_write_byte(0, CLUSTER, 1);
    before = flushes();
    for (int i = 0; i < 50; i++) {
        running++;
        co_start(co_one_flush, &running);
    }
    while (running > 0) {
        co_sleep_ns(1000);
    }
    assert_true(flushes() - before <= 4); /* the first one's three, and one for all the others */
    co_done();
}

static void many_flushes_at_once_share_two_generations(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_many_flushes, NULL);
}

static void co_pressure(void *arg)
{
    size_t most = 0;

    co_image("qemu-img create -q -f qcow2 -o cluster_size=512 image.qcow2 64M",
             "{\"l2-cache-size\": 65536, \"refcount-cache-size\": 65536}");
    for (uint64_t i = 0; i < 2000; i++) {
        co_write_byte(i * 32768, 512, 1 + i % 200);
        most = MAX(most, qcow2_cache_bytes(q->l2_cache) + qcow2_cache_bytes(q->ref_cache));
    }
    assert_true(most < 512 << 10);
    assert_true(q->generation > 4);
    for (uint64_t i = 0; i < 2000; i++) {
        co_expect_byte(i * 32768, 512, 1 + i % 200);
        co_expect_byte(i * 32768 + 512, 512, 0);
    }
    co_done();
}

static void without_flushes_the_caches_keep_to_their_budget(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_pressure, NULL);
}

/* --- Entries -------------------------------------------------------------------------------- */

static void co_zero_kinds(void *arg)
{
    uint64_t host;

    co_plain_image();
    assert_int_equal(co_node_zero(node, 0, 1 << 20, 0), 0);
    assert_int_equal(co_map(0).kind, EXTENT_NONE); /* reads as zero anyway */
    assert_int_equal(co_map(0).len, node->size);

    co_write_byte(0, 2 * CLUSTER, 1);
    host = co_map(0).host;
    assert_int_equal(co_node_zero(node, 0, CLUSTER, 0), 0);
    assert_int_equal(co_map(0).kind, EXTENT_ZERO);
    assert_int_equal(co_map(0).host, host); /* kept */
    co_write_byte(4096, 4096, 2);           /* into the stale cluster */
    assert_int_equal(co_map(0).kind, EXTENT_DATA);
    assert_int_equal(co_map(0).host, host);
    co_expect_byte(0, 4096, 0);
    co_expect_byte(4096, 4096, 2);
    co_expect_byte(8192, CLUSTER - 8192, 0);

    assert_int_equal(co_node_zero(node, 0, CLUSTER, NODE_MAY_UNMAP), 0);
    assert_int_equal(co_map(0).kind, EXTENT_ZERO);
    assert_int_equal(co_map(0).host, 0);
    assert_int_equal(co_refcount(host), 1);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_refcount(host), 0);

    assert_int_equal(co_node_discard(node, 0, 2 * CLUSTER), 0);
    assert_int_equal(co_map(0).kind, EXTENT_ZERO); /* stays */
    assert_int_equal(co_map(0).len, CLUSTER);
    assert_int_equal(co_map(CLUSTER).kind, EXTENT_NONE);
    co_done();
}

static void zeroes_keep_or_give_back_host_clusters(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_zero_kinds, NULL);
}

static void co_discards(void *arg)
{
    co_overlay("compat=1.1");
    co_write_byte(0, 4096, 1);
    assert_int_equal(co_node_discard(node, 0, 2 * CLUSTER + 4096), 0);
    assert_int_equal(co_map(0).kind, EXTENT_ZERO);
    assert_int_equal(co_map(0).len, 2 * CLUSTER); /* the unaligned rest is left alone */
    co_expect_byte(0, 2 * CLUSTER, 0);
    co_expect_byte(2 * CLUSTER, CLUSTER, 5);
    co_done();

    co_overlay("compat=0.10");
    co_write_byte(0, 4096, 1);
    assert_int_equal(co_node_discard(node, 0, 2 * CLUSTER), 0);
    co_expect_byte(0, 4096, 1);
    co_expect_byte(4096, 2 * CLUSTER - 4096, 5);
    assert_int_equal(co_node_zero(node, 0, 2 * CLUSTER, NODE_MAY_UNMAP), 0);
    assert_int_equal(co_map(0).kind, EXTENT_DATA); /* written: there are no zero clusters */
    co_expect_byte(0, 2 * CLUSTER, 0);
    co_done();
}

static void discards_never_show_the_backing_file(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_discards, NULL);
}

static void co_subclusters(void *arg)
{
    struct extent e;

    co_overlay("extended_l2=on");
    co_write_byte(5000, 100, 1); /* subclusters of 2 KiB: 2 */
    e = co_map(4096);
    assert_int_equal(e.kind, EXTENT_DATA);
    assert_int_equal(e.len, 2048);
    assert_int_equal(co_map(0).kind, EXTENT_NONE);
    co_expect_byte(4096, 904, 5);
    co_expect_byte(5000, 100, 1);
    co_expect_byte(5100, 8192, 5);
    co_write_byte(8192, 2048, 2); /* into the host cluster that is there */
    assert_int_equal(co_map(8192).host, e.host + 4096);
    assert_int_equal(co_node_zero(node, 4096, 2048, 0), 0);
    assert_int_equal(co_map(4096).kind, EXTENT_ZERO);
    assert_int_equal(co_map(6144).kind, EXTENT_NONE);
    co_expect_byte(4096, 2048, 0);
    co_expect_byte(6144, 2048, 5);
    co_done();
}

static void subclusters_are_filled_one_by_one(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_subclusters, NULL);
}

/* --- Clusters ------------------------------------------------------------------------------- */

static int co_populate(struct node *target, uint64_t offset, uint64_t len, void *arg)
{
    const struct io_piece piece = { .file = arg, .len = len };

    return target->driver->co_copy_in(target, offset, &piece, 1);
}

static void co_copies(void *arg)
{
    struct io_file *source;
    AUTOFREE uint8_t *buf = mem_alloc(2 << 20);
    uint64_t before;

    co_plain_image();
    memset(buf, 7, 2 << 20);
    io_sim_create(SOURCE, 2 << 20);
    io_sim_write(SOURCE, 0, buf, 2 << 20);
    assert_int_equal(co_io_open(NULL, SOURCE, IO_READ_ONLY, &source), 0);
    co_write_byte(0, 4096, 1);
    before = io_stats.copies;
    assert_int_equal(co_node_populate(node, 1 << 20, 2 << 20, co_populate, source), 0);
    assert_int_equal(io_stats.copies - before, 1);
    assert_int_equal(co_map(1 << 20).len, 2 << 20); /* one run on the host too */
    co_expect_byte(1 << 20, 2 << 20, 7);
    co_io_close(source);
    co_done();
}

static void a_copied_run_is_one_host_operation(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_copies, NULL);
}

static void co_reuse(void *arg)
{
    uint64_t host, held, now;

    co_plain_image();
    for (unsigned i = 0; i < 8; i++) {
        co_write_byte(i * CLUSTER, CLUSTER, 1 + i);
    }
    host = co_map(2 * CLUSTER).host;
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_io_allocated(q->file, &held), 0);
    assert_int_equal(co_node_discard(node, 2 * CLUSTER, CLUSTER), 0);
    co_write_byte(20 * CLUSTER, 4096, 9);
    assert_int_not_equal(co_map(20 * CLUSTER).host, host); /* not before the discard is durable */
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_io_allocated(q->file, &now), 0);
    assert_true(now < held); /* a hole, and a cluster of which one block is written */
    co_write_byte(21 * CLUSTER, 4096, 9);
    assert_int_equal(co_map(21 * CLUSTER).host, host); /* filled again */
    co_expect_byte(21 * CLUSTER + 4096, CLUSTER - 4096, 0);
    co_done();
}

static void freed_clusters_are_used_again_once_that_is_durable(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_reuse, NULL);
}

struct slow_read {
    uint8_t buf[CLUSTER];
    bool done;
};

static void co_slow_read(void *arg)
{
    struct slow_read *r = arg;

    assert_int_equal(co_node_read_buf(node, 0, r->buf, sizeof(r->buf)), 0);
    r->done = true;
}

static void co_embargo(void *arg)
{
    struct io_sim_fault stall = { .kind = IO_SIM_FAULT_STALL,
                                  .path = IMAGE,
                                  .ops = IO_SIM_READ,
                                  .times = 1,
                                  .ns = 1000 * NS_PER_MS };
    struct slow_read *r = mem_zalloc(sizeof(*r));
    uint8_t want[CLUSTER];
    uint64_t host;

    co_plain_image();
    co_write_byte(0, CLUSTER, 1);
    assert_int_equal(co_node_flush(node), 0);
    co_expect_byte(0, CLUSTER, 1); /* resolved */
    host = co_map(0).host;
    io_sim_fault(&stall);
    co_start(co_slow_read, r);
    assert_int_equal(co_node_discard(node, 0, CLUSTER), 0);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_refcount(host), 0);
    for (unsigned i = 1; i < 4; i++) {
        co_write_byte(i * CLUSTER, CLUSTER, 9);
        assert_int_not_equal(co_map(i * CLUSTER).host, host); /* somebody still reads it */
    }
    assert_false(r->done);
    while (!r->done) {
        co_sleep_ns(NS_PER_MS);
    }
    memset(want, 1, sizeof(want));
    assert_memory_equal(r->buf, want, sizeof(want));
    assert_int_equal(co_node_flush(node), 0);
    co_write_byte(8 * CLUSTER, CLUSTER, 9);
    assert_int_equal(co_map(8 * CLUSTER).host, host);
    free(r);
    co_done();
}

static void a_slow_reader_keeps_its_cluster(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_embargo, NULL);
}

static void co_snapshot_kept(void *arg)
{
    uint64_t old_table, old_data;

    co_image("qemu-img create -q -f qcow2 image.qcow2 16M && "
             "qemu-io -f qcow2 -c 'write -P 3 0 128k' image.qcow2 && qemu-img snapshot -c s1 "
             "image.qcow2",
             "{\"discard\": \"unmap\"}");
    old_table = q->l1[0] & QCOW2_L1_OFFSET_MASK;
    old_data = co_map(0).host;
    assert_false(q->l1[0] & QCOW2_COPIED);
    co_write_byte(0, 4096, 1);
    assert_int_not_equal(q->l1[0] & QCOW2_L1_OFFSET_MASK, old_table);
    assert_true(q->l1[0] & QCOW2_COPIED);
    assert_int_not_equal(co_map(0).host, old_data);
    co_expect_byte(4096, 124 << 10, 3);
    assert_int_equal(co_refcount(old_table), 2);
    assert_int_equal(co_refcount(old_data), 2);
    assert_int_equal(co_node_discard(node, CLUSTER, CLUSTER), 0);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_refcount(old_table), 1);
    assert_int_equal(co_refcount(old_data), 1);
    assert_int_equal(co_refcount(old_data + CLUSTER), 1);
    co_done();
}

static void what_a_snapshot_holds_is_copied_on_write(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_snapshot_kept, NULL);
}

static void co_again_writable(void *arg)
{
    struct error err = ERROR_INIT;
    uint64_t end;

    co_plain_image();
    co_write_byte(0, 4 * CLUSTER, 1);
    assert_int_equal(co_node_discard(node, 0, CLUSTER), 0);
    assert_int_equal(co_node_set_writable(node, false, &err), 0);
    assert_int_equal(co_node_write_buf(node, 0, "x", 0), -EPERM);
    assert_int_equal(co_node_set_writable(node, true, &err), 0);
    end = q->file_end;
    co_write_byte(8 * CLUSTER, CLUSTER,
                  2); /* its own request is the oldest: the hole may be used */
    assert_int_equal(q->file_end, end);
    co_expect_byte(CLUSTER, 3 * CLUSTER, 1);
    co_done();
}

static void becoming_read_only_and_writable_again_keeps_all(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_again_writable, NULL);
}

static void co_limit(void *arg)
{
    uint64_t limit;
    int ret = 0;

    co_image("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 image.qcow2 64M",
             "{}");
    co_write_byte(0, 1 << 20, 1);
    limit = qcow2_reftable_limit(q);
    q->free_hint = qcow2_refs(q)->run_hint = limit - 12000; /* pretend */
    for (uint64_t at = 1 << 20; at < node->size && ret == 0; at += 65536) {
        AUTOFREE uint8_t *buf = mem_zalloc(65536);
        ret = co_node_write_buf(node, at, buf, 65536);
    }
    assert_int_equal(ret, -EFBIG);
    assert_int_equal(co_node_flush(node), 0);
    co_expect_byte(0, 1 << 20, 1);
    q->free_hint = 0; /* there is room elsewhere after all */
    co_write_byte(32 << 20, 1 << 20, 2);
    co_expect_byte(32 << 20, 1 << 20, 2);
    co_done();
}

static void at_the_formats_limit_writes_fail_cleanly(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_limit, NULL);
}

/* --- Refcounts of every width --------------------------------------------------------------- */

static void refcounts_of_every_width_are_stored_and_loaded(void **state)
{
    uint8_t bytes[512] = { 0 };

    for (unsigned order = 0; order <= 6; order++) {
        struct qcow2 fake = { .h.refcount_order = order };
        uint64_t max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;

        fake.refcount_max = max;
        memset(bytes, 0xff, sizeof(bytes));
        for (uint64_t i = 0; i < 64; i++) {
            qcow2_refcount_store(&fake, bytes, i, i & max);
        }
        for (uint64_t i = 0; i < 64; i++) {
            assert_int_equal(qcow2_refcount_load(&fake, bytes, i), i & max);
        }
        if (order == 6) {
            break;
        }
        assert_int_equal(qcow2_refcount_load(&fake, bytes, 64),
                         max); /* the neighbour is untouched */
    }
    struct qcow2 bits = { .h.refcount_order = 0, .refcount_max = 1 };
    memset(bytes, 0, sizeof(bytes));
    qcow2_refcount_store(&bits, bytes, 9, 1);
    assert_int_equal(bytes[1], 2); /* the least significant bit comes first */
}

/* Larger than one host operation: the first part fails, and nothing of it is there. */
static void co_failed_copy(void *arg)
{
    const uint64_t len = 6 << 20;
    const struct io_sim_fault fails = { .path = IMAGE, .ops = IO_SIM_COPY | IO_SIM_WRITE, .times = 0 };
    struct io_file *source;

    co_plain_image();
    co_write_byte(0, 4096, 1);
    io_sim_create(SOURCE, len);
    assert_int_equal(co_io_open(NULL, SOURCE, IO_READ_ONLY, &source), 0);
    io_sim_fault(&fails);
    assert_int_equal(co_node_populate(node, 1 << 20, len, co_populate, source), -EIO);
    io_sim_faults_clear();
    assert_int_equal(co_map(1 << 20).kind, EXTENT_NONE);
    assert_int_equal(co_node_populate(node, 1 << 20, len, co_populate, source), 0);
    co_expect_byte(1 << 20, len, 0);
    co_io_close(source);
    co_done();
}

static void a_copy_that_fails_leaves_nothing_behind(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_failed_copy, NULL);
}

/* --- Odd requests ---------------------------------------------------------------------------- */

static void co_scattered(void *arg)
{
    uint8_t bytes[40][512];
    struct iovec iov[40];
    uint64_t before;

    co_plain_image();
    for (int i = 0; i < 40; i++) {
        memset(bytes[i], i + 1, sizeof(bytes[i]));
        iov[i] = (struct iovec){ bytes[i], sizeof(bytes[i]) };
    }
    co_write_byte(0, 512, 1); /* has the table made */
    before = io_stats.writes;
    assert_int_equal(co_node_write(node, CLUSTER + 512, iov, 40), 0);
    assert_int_equal(io_stats.writes - before, 1);
    co_expect_byte(CLUSTER, 512, 0);
    for (int i = 0; i < 40; i++) {
        co_expect_byte(CLUSTER + 512 + i * 512, 512, i + 1);
    }
    co_expect_byte(CLUSTER + 41 * 512, 512, 0);
    co_done();
}

static void many_pieces_of_memory_and_what_surrounds_them_are_one_write(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_scattered, NULL);
}

/* The disk ends in the middle of a subcluster of 2 KiB. */
static void co_ragged_end(void *arg)
{
    co_image("qemu-img create -q -f qcow2 -o extended_l2=on -b base.qcow2 -F qcow2 image.qcow2 1051136",
             "{\"discard\": \"unmap\"}");
    co_expect_byte(node->size - 2560, 2560, 5);
    assert_int_equal(co_node_zero(node, node->size - 512, 512, 0), 0);
    co_expect_byte(node->size - 2560, 2048, 5);
    co_expect_byte(node->size - 512, 512, 0);
    assert_int_equal(co_node_zero(node, node->size - 2560, 2560, NODE_MAY_UNMAP), 0);
    co_expect_byte(node->size - 2560, 2560, 0);
    co_done();
}

static void zeroes_reach_the_end_of_a_disk_wherever_it_is(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_ragged_end, NULL);
}

struct held_up_read {
    struct co_group group;
    uint64_t at;
    uint8_t bytes[4096];
};

static void co_held_up_read(void *arg)
{
    struct held_up_read *r = arg;

    assert_int_equal(co_node_read_buf(node, r->at, r->bytes, sizeof(r->bytes)), 0);
    co_group_done(&r->group, 0);
}

/* The snapshot's table is read by one while another, who writes elsewhere in it, takes a copy. */
static void co_copied_meanwhile(void *arg)
{
    struct held_up_read r = { .at = 600 * CLUSTER };
    struct co_group *group = &r.group;

    co_image("qemu-img create -q -f qcow2 image.qcow2 64M && qemu-io -f qcow2 -c 'write -P 6 0 64k' -c 'write -P 8 37M 4M' "
             "image.qcow2 && qemu-img snapshot -c one image.qcow2", "{\"discard\": \"unmap\"}");
    uint64_t table = q->l1[0] & QCOW2_L1_OFFSET_MASK;
    const struct io_sim_fault stall = { .kind = IO_SIM_FAULT_STALL, .ops = IO_SIM_READ, .offset = table + 600 / 512 * 4096,
                                        .len = 4096, .ns = NS_PER_S, .times = 1 };

    io_sim_fault(&stall);
    co_group_init(group);
    co_group_add(group);
    co_start(co_held_up_read, &r);
    co_sleep_ns(NS_PER_MS);
    assert_int_equal(io_sim_faults_struck(), 1);
    co_write_byte(0, 512, 1);
    assert_true((q->l1[0] & QCOW2_L1_OFFSET_MASK) != table);
    co_group_wait(group);
    for (size_t i = 0; i < sizeof(r.bytes); i++) {
        assert_int_equal(r.bytes[i], 8);
    }
    io_sim_faults_clear();
    co_done();
}

static void a_reader_of_a_table_that_is_copied_meanwhile_reads_the_copy(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_copied_meanwhile, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refcounts_of_every_width_are_stored_and_loaded),
        cmocka_unit_test(a_flush_costs_no_more_than_the_order_needs),
        cmocka_unit_test(many_flushes_at_once_share_two_generations),
        cmocka_unit_test(without_flushes_the_caches_keep_to_their_budget),
        cmocka_unit_test(zeroes_keep_or_give_back_host_clusters),
        cmocka_unit_test(discards_never_show_the_backing_file),
        cmocka_unit_test(subclusters_are_filled_one_by_one),
        cmocka_unit_test(a_copied_run_is_one_host_operation),
        cmocka_unit_test(freed_clusters_are_used_again_once_that_is_durable),
        cmocka_unit_test(a_slow_reader_keeps_its_cluster),
        cmocka_unit_test(at_the_formats_limit_writes_fail_cleanly),
        cmocka_unit_test(what_a_snapshot_holds_is_copied_on_write),
        cmocka_unit_test(becoming_read_only_and_writable_again_keeps_all),
        cmocka_unit_test(a_copy_that_fails_leaves_nothing_behind),
        cmocka_unit_test(many_pieces_of_memory_and_what_surrounds_them_are_one_write),
        cmocka_unit_test(zeroes_reach_the_end_of_a_disk_wherever_it_is),
        cmocka_unit_test(a_reader_of_a_table_that_is_copied_meanwhile_reads_the_copy),
    };
    return cmocka_run_group_tests(tests, model_setup, rig_teardown);
}
