/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who gets which clusters, and how the table of counts grows: runs in holes, the end of what can be counted, a table that grows
 * again before the last one was used, and one that finds no place at first.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2-check.h"
#include "block/qcow2-refcount.h"

#define IMAGE "/x.img"
#define KIB 1024u

static struct node *node;
static struct qcow2 *q;

static void co_open(const char *create, const char *options)
{
    struct error err = ERROR_INIT;
    json_t *opts = json_loads(options, 0, NULL);

    assert_non_null(opts);
    json_object_set_new(opts, "driver", json_string("qcow2"));
    co_rig_create(IMAGE, create);
    node = co_node_open(IMAGE, opts, &err);
    json_decref(opts);
    assert_non_null(node);
    q = node->state;
}

/* Closed, and then neither a leak nor an error. */
static void co_done(void)
{
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;

    co_node_unref(node);
    node = co_rig_open(IMAGE, false);
    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_int_equal(report.corruptions, 0);
    assert_int_equal(report.leaks, 0);
    co_node_unref(node);
}

static int co_put(uint64_t at, uint64_t len, uint8_t byte)
{
    AUTOFREE uint8_t *bytes = mem_alloc(len);

    memset(bytes, byte, len);
    return co_node_write_buf(node, at, bytes, len);
}

static void co_expect(uint64_t at, uint64_t len, uint8_t byte)
{
    AUTOFREE uint8_t *bytes = mem_alloc(len);

    assert_int_equal(co_node_read_buf(node, at, bytes, len), 0);
    for (uint64_t i = 0; i < len; i++) {
        assert_int_equal(bytes[i], byte);
    }
}

/* --- Runs --------------------------------------------------------------------------------------------------------- */

static int co_alloc(uint64_t want, uint64_t *first, uint64_t *got)
{
    uint64_t offset;

    co_mutex_lock(&q->lock);
    int ret = co_qcow2_alloc_clusters(q, want, &offset, got);

    if (ret == 0) {
        *first = offset / q->cluster_size;
        assert_int_equal(co_qcow2_free_unlinked(q, offset, *got), 0);
    }
    co_mutex_unlock(&q->lock);
    return ret;
}

static CO_ENTRY void co_holes(void *arg)
{
    uint64_t first, got, end;

    co_open("size=64M", "{\"discard\": \"unmap\"}");
    assert_int_equal(co_put(0, 100 * 64 * KIB, 1), 0);
    end = q->file_end;
    assert_int_equal(co_node_discard(node, 20 * 64 * KIB, 20 * 64 * KIB), 0);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_node_flush(node), 0);
    co_sleep_ns(NS_PER_S);
    assert_int_equal(co_alloc(40, &first, &got), 0); /* not as much as was wanted, but enough */
    assert_true(first < end);
    assert_int_equal(got, 20);
    assert_int_equal(co_alloc(10, &first, &got), 0);
    assert_true(first < end);
    assert_int_equal(got, 10);
    co_done();
}

static void a_hole_that_is_large_enough_is_used_before_the_end(void **state)
{
    io_sim_reset();
    loop_run_co(co_holes, NULL);
    io_sim_reset();
}

static CO_ENTRY void co_limit(void *arg)
{
    uint64_t first, got, limit, offset, end;

    co_open("size=1M,cluster_size=512,refcount_bits=64", "{}");
    assert_int_equal(co_put(0, KIB, 1), 0);
    end = q->file_end;
    limit = qcow2_reftable_limit(q);
    qcow2_refs(q)->run_hint = limit - 4;
    assert_int_equal(co_alloc(3000, &first, &got), 0); /* nothing there: what is left elsewhere */
    assert_true(first < end + 200); /* behind the blocks that now count it */
    assert_true(got >= 1);
    qcow2_refs(q)->run_hint = q->free_hint = limit - 4;
    co_mutex_lock(&q->lock);
    assert_int_equal(co_qcow2_alloc_exact(q, 8, &offset), -EFBIG);
    q->free_hint = limit;
    assert_int_equal(co_qcow2_alloc_exact(q, 1, &offset), -EFBIG);
    q->free_hint = 0;
    co_mutex_unlock(&q->lock);
    assert_false(node->corrupt);
    co_done();
}

static void behind_the_last_cluster_that_can_be_counted_there_is_nothing(void **state)
{
    io_sim_reset();
    loop_run_co(co_limit, NULL);
    io_sim_reset();
}

/* A cluster behind all that is counted, and an L2 table in it. */
static CO_ENTRY void co_uncounted(void *arg)
{
    co_open("size=64k,preallocation=metadata,cluster_size=512", "{}");
    co_node_unref(node);
    uint64_t block = rig_get64(IMAGE, rig_get64(IMAGE, 48)), l1 = rig_get64(IMAGE, 40);
    uint8_t table[512], ones[512];

    memset(ones, 1, sizeof(ones));
    io_sim_write(IMAGE, block, ones, sizeof(ones)); /* all of the first 256 clusters are in use */
    io_sim_read(IMAGE, rig_get64(IMAGE, l1) & QCOW2_L1_OFFSET_MASK, table, sizeof(table));
    io_sim_write(IMAGE, 256 * 512, table, sizeof(table));
    rig_put64(IMAGE, l1, 256 * 512 | QCOW2_COPIED);
    node = co_rig_open(IMAGE, true);
    q = node->state;
    uint64_t offset;

    co_mutex_lock(&q->lock);
    assert_int_equal(co_qcow2_alloc_exact(q, 1, &offset), -EIO);
    co_mutex_unlock(&q->lock);
    assert_true(node->corrupt);
    co_node_unref(node);
    io_sim_read(IMAGE, 256 * 512, ones, sizeof(ones));
    assert_memory_equal(ones, table, sizeof(table));
}

static void a_new_block_of_counts_is_never_put_over_a_table(void **state)
{
    io_sim_reset();
    loop_run_co(co_uncounted, NULL);
    io_sim_reset();
}

/* --- The table of counts grows ------------------------------------------------------------------------------------ */

#define SMALL "size=32M,cluster_size=512,refcount_bits=64" /* a cluster of the table counts 2 MiB */
#define PART (256 * KIB)
/* Caches in which so much may be dirty that nothing has to be written. */
#define LARGE "\"l2-cache-size\": 33554432, \"refcount-cache-size\": 33554432"

static CO_ENTRY void co_twice(void *arg)
{
    bool unsafe = arg;

    co_open(SMALL, unsafe ? "{" LARGE ", \"cache\": {\"no-flush\": true}}" : "{" LARGE "}");
    uint64_t place = q->h.reftable_offset, flushes = io_stats.flushes;

    for (uint64_t at = 0; at < 12 << 20; at += PART) {
        assert_int_equal(co_put(at, PART, 1 + at / PART), 0);
    }
    assert_int_equal(q->h.reftable_offset, place); /* on disk it is still the first one */
    assert_true(q->reftable_entries > 3 * 64);
    assert_int_equal(co_node_flush(node), 0);
    for (uint64_t at = 0; at < 12 << 20; at += PART) {
        co_expect(at, PART, 1 + at / PART);
    }
    if (unsafe) {
        assert_int_equal(io_stats.flushes - flushes, 0);
    }
    co_done();
}

static void a_table_may_be_outgrown_before_it_was_used(void **state)
{
    io_sim_reset();
    loop_run_co(co_twice, NULL);
    io_sim_reset();
}

static void without_flushes_it_grows_all_the_same(void **state)
{
    io_sim_reset();
    loop_run_co(co_twice, (void *)"no-flush");
    io_sim_reset();
}

static CO_ENTRY void co_flush_it(void *arg)
{
    assert_int_equal(co_node_flush(node), 0);
    co_group_done(arg, 0);
}

/* While the table moves (the host takes its time with the header) it grows again. */
static CO_ENTRY void co_meanwhile(void *arg)
{
    const struct io_sim_fault stall = { .kind = IO_SIM_FAULT_STALL, .ops = IO_SIM_WRITE, .offset = 0, .len = 512,
                                        .ns = 10 * NS_PER_S, .times = 1 };
    struct co_group group;
    uint64_t at;

    co_open(SMALL, "{" LARGE "}");
    for (at = 0; at < 3 << 20; at += PART) {
        assert_int_equal(co_put(at, PART, 1 + at / PART), 0);
    }
    uint32_t entries = q->reftable_entries;

    assert_true(entries > 64);
    io_sim_fault(&stall);
    co_group_init(&group);
    co_group_add(&group);
    co_start(co_flush_it, &group);
    co_sleep_ns(NS_PER_S);
    assert_int_equal(io_sim_faults_struck(), 1);
    for (; at < 12 << 20; at += PART) {
        assert_int_equal(co_put(at, PART, 1 + at / PART), 0);
    }
    assert_true(q->reftable_entries > entries);
    co_group_wait(&group);
    assert_int_equal(co_node_flush(node), 0);
    for (at = 0; at < 12 << 20; at += PART) {
        co_expect(at, PART, 1 + at / PART);
    }
    co_done();
}

static void a_table_may_grow_while_it_moves(void **state)
{
    io_sim_reset();
    loop_run_co(co_meanwhile, NULL);
    io_sim_reset();
}

/* From call to call: what fails once is tried again and goes well, and all is there in the end. */
static struct {
    unsigned calls, first;
    bool struck;
} plan;

static bool strikes(void *arg)
{
    if (++plan.calls != plan.first) {
        return false;
    }
    plan.struck = true;
    return true;
}

static CO_ENTRY void co_grow_failing(void *arg)
{
    const struct io_sim_fault fault = { .ops = IO_SIM_WRITE | IO_SIM_READ, .when = strikes };
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:n, s:i}", "driver", "qcow2", "backing", "cache-size", 2);
    int ret;

    node = co_node_open(IMAGE, options, &err);
    json_decref(options);
    assert_non_null(node);
    q = node->state;
    plan.calls = 0;
    plan.struck = false;
    io_sim_fault(&fault);
    for (uint64_t at = 2000 * KIB; at < 2080 * KIB; at += 16 * KIB) {
        ret = co_put(at, 16 * KIB, 9);
        ret = ret ? co_put(at, 16 * KIB, 9) : 0;
        assert_int_equal(ret, 0);
    }
    ret = co_node_flush(node);
    assert_int_equal(ret ? co_node_flush(node) : 0, 0);
    io_sim_faults_clear();
    assert_true(q->reftable_entries > 64);
    co_expect(1900 * KIB, 100 * KIB, 1);
    co_expect(2000 * KIB, 80 * KIB, 9);
    co_node_unref(node);
    node = co_rig_open(IMAGE, false);
    struct qcow2_report report = { 0 };

    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_int_equal(report.corruptions, 0); /* at worst clusters leak */
    co_node_unref(node);
}

static CO_ENTRY void co_almost_full(void *arg)
{
    co_open(SMALL, "{}");
    assert_int_equal(co_put(0, 2000 * KIB, 1), 0);
    co_done();
}

static void growing_that_fails_once_goes_well_the_next_time(void **state)
{
    io_sim_reset();
    loop_run_co(co_almost_full, NULL);
    struct io_sim_snapshot *first = io_sim_snapshot();

    plan.struck = true;
    for (plan.first = 1; plan.struck; plan.first++) {
        io_sim_restore(first);
        io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
        loop_run_co(co_grow_failing, NULL);
    }
    assert_true(plan.first > 100);
    io_sim_snapshot_free(first);
    io_sim_reset();
}

/* --- Many at once ------------------------------------------------------------------------------------------------- */

static CO_ENTRY void co_many(void *arg)
{
    uint64_t size;

    co_open("size=8M,cluster_size=512,preallocation=metadata", "{\"discard\": \"unmap\"}");
    uint64_t generation = q->generation;

    for (uint64_t at = 0; at < node->size; at += KIB) { /* every second cluster */
        assert_int_equal(co_node_discard(node, at, 512), 0);
    }
    co_sleep_ns(NS_PER_S);
    assert_true(q->generation > generation); /* nobody asked for a flush */
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(io_sim_size(IMAGE, &size), 0);
    for (uint64_t at = 0; at < 2 << 20; at += 512) {
        assert_int_equal(co_put(at, 512, 3), 0);
    }
    uint64_t after;

    assert_int_equal(io_sim_size(IMAGE, &after), 0);
    assert_int_equal(after, size); /* they were used again */
    co_done();
}

static void many_that_are_given_back_are_free_without_a_flush(void **state)
{
    io_sim_reset();
    loop_run_co(co_many, NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hole_that_is_large_enough_is_used_before_the_end),
        cmocka_unit_test(behind_the_last_cluster_that_can_be_counted_there_is_nothing),
        cmocka_unit_test(a_new_block_of_counts_is_never_put_over_a_table),
        cmocka_unit_test(a_table_may_be_outgrown_before_it_was_used),
        cmocka_unit_test(without_flushes_it_grows_all_the_same),
        cmocka_unit_test(a_table_may_grow_while_it_moves),
        cmocka_unit_test(growing_that_fails_once_goes_well_the_next_time),
        cmocka_unit_test(many_that_are_given_back_are_free_without_a_flush),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
