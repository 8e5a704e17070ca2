/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * L2 tables to which more than one entry of the active L1 table leads: nothing of ours makes them, but counted as often they are
 * as sound as tables that a snapshot shares, and a hostile image can have thousands.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/disk.h"
#include "block/qcow2-check.h"

#define SPAN (512u << 20) /* bytes of one L2 table */
#define TABLES 64u

static uint64_t get64(uint64_t offset)
{
    return rig_get64("/x.img", offset);
}

static void put64(uint64_t offset, uint64_t value)
{
    rig_put64("/x.img", offset, value);
}

static void put_count(uint64_t offset, uint16_t count)
{
    uint8_t bytes[2];

    store_be16(bytes, count);
    io_sim_write("/x.img", get64(get64(48)) + (offset >> 16) * 2, bytes, 2);
}

static void CO_ENTRY make_entry(void *arg)
{
    json_t *options = json_pack("{s:I}", "size", (json_int_t)SPAN * TABLES);
    struct error err = ERROR_INIT;
    uint8_t data[4096];

    io_sim_reset();
    assert_int_equal(co_qcow2_create("/x.img", options, &err), 0);
    json_decref(options);
    struct node *node = co_rig_open("/x.img", true);

    memset(data, 1, sizeof(data));
    assert_int_equal(co_node_write_buf(node, 0, data, sizeof(data)), 0);
    co_node_unref(node);
}

/* The first `n` entries lead to the first table, its one cluster of data has as many references; `flags` are theirs. */
static void share(unsigned n, uint64_t flags, uint16_t count)
{
    loop_run_co(make_entry, NULL);
    uint64_t l1 = get64(40), l2 = get64(l1) & QCOW2_L1_OFFSET_MASK, data = get64(l2) & QCOW2_L2_OFFSET_MASK;

    for (unsigned i = 0; i < n; i++) {
        put64(l1 + 8 * i, l2 | flags);
    }
    put64(l2, data | flags);
    put_count(l2, count);
    put_count(data, count);
}

static struct qcow2_report report;

static void CO_ENTRY report_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", false);
    struct error err = ERROR_INIT;

    report = (struct qcow2_report){ 0 };
    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    co_node_unref(node);
}

static void co_expect(struct node *node, uint64_t offset, uint8_t byte)
{
    uint8_t data[4096], same[4096];

    memset(same, byte, sizeof(same));
    assert_int_equal(co_node_read_buf(node, offset, data, sizeof(data)), 0);
    assert_memory_equal(data, same, sizeof(data));
}

static void co_put(struct node *node, uint64_t offset, uint8_t byte)
{
    uint8_t data[4096];

    memset(data, byte, sizeof(data));
    assert_int_equal(co_node_write_buf(node, offset, data, sizeof(data)), 0);
}

static unsigned corruptions;

static void note_corruption(struct node *node, const char *device, const char *msg, uint64_t offset, uint64_t size, bool fatal)
{
    corruptions++;
}

static const struct block_listener listener = { .image_corrupted = note_corruption };

static void CO_ENTRY write_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);

    co_put(node, SPAN, 2);
    co_expect(node, 0, 1);
    co_expect(node, SPAN, 2);
    assert_int_equal(co_node_flush(node), 0);
    co_put(node, 0, 3);
    co_put(node, 2ull * SPAN, 4);
    assert_int_equal(co_node_flush(node), 0);
    co_put(node, 5ull * SPAN, 5); /* would come to lie in clusters that were given back too early */
    co_node_unref(node);
    node = co_rig_open("/x.img", false);
    for (unsigned i = 0; i < 3; i++) {
        co_expect(node, (uint64_t)i * SPAN, i == 0 ? 3 : i == 1 ? 2 : 4);
    }
    co_node_unref(node);
}

static void a_shared_table_is_copied_by_whoever_writes(void **state)
{
    share(3, 0, 3);
    loop_run_co(report_entry, NULL);
    assert_int_equal(report.corruptions, 0);
    assert_int_equal(report.leaks, 0);
    assert_int_equal(report.allocated, 3);
    corruptions = 0;
    block_set_listener(&listener);
    loop_run_co(write_entry, NULL);
    block_set_listener(NULL);
    assert_int_equal(corruptions, 0);
    loop_run_co(report_entry, NULL);
    assert_int_equal(report.leaks, 0);
    assert_in_range(report.corruptions, 0, 1); /* the last one that leads there need not be COPIED: it costs a copy */
}

static void CO_ENTRY refused_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);
    uint8_t data[4096] = { 0 };

    assert_int_equal(co_node_write_buf(node, 0, data, sizeof(data)), -EIO);
    assert_true(node->corrupt);
    co_node_unref(node);
    node = co_rig_open("/x.img", false);
    co_expect(node, 0, 1);
    co_expect(node, SPAN, 1);
    co_node_unref(node);
}

/* A write in place would show up at the other place, too. */
static void a_shared_table_that_says_copied_is_not_written(void **state)
{
    share(2, QCOW2_COPIED, 2);
    loop_run_co(report_entry, NULL);
    assert_int_equal(report.corruptions, 3); /* both entries, and that of the data */
    loop_run_co(refused_entry, NULL);
}

/* Also when only the second one says so: what is written through that one shows up at the first. */
static void a_shared_table_of_which_one_entry_says_copied_is_not_written(void **state)
{
    share(2, 0, 2);
    put64(get64(40) + 8, get64(get64(40)) | QCOW2_COPIED);
    loop_run_co(report_entry, NULL);
    assert_int_equal(report.corruptions, 1);
    loop_run_co(refused_entry, NULL);
}

/* The first of two drops the last reference that is counted. */
static void CO_ENTRY short_count_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);

    co_put(node, 0, 3);
    (void)co_node_flush(node);
    co_expect(node, SPAN, 1);
    co_node_unref(node);
}

static void a_shared_table_that_is_counted_once_is_not_given_back(void **state)
{
    share(2, 0, 1);
    put_count(get64(get64(get64(40)) & QCOW2_L1_OFFSET_MASK) & QCOW2_L2_OFFSET_MASK, 2);
    corruptions = 0;
    block_set_listener(&listener);
    loop_run_co(short_count_entry, NULL);
    block_set_listener(NULL);
    assert_int_equal(corruptions, 1);
}

static uint64_t table_reads, table;

static void count_reads(void *arg, const struct io_sim_event *event)
{
    table_reads += event->op == IO_SIM_READ && !event->completed && event->offset <= table && table < event->offset + event->len;
}

static void a_table_to_which_many_lead_is_walked_once(void **state)
{
    share(TABLES, 0, TABLES);
    table = get64(get64(40)) & QCOW2_L1_OFFSET_MASK;
    table_reads = 0;
    io_sim_on_op(count_reads, NULL);
    loop_run_co(report_entry, NULL);
    io_sim_on_op(NULL, NULL);
    assert_int_equal(report.corruptions, 0);
    assert_int_equal(report.allocated, TABLES);
    assert_in_range(table_reads, 1, 3); /* references, and flags */
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_table_is_copied_by_whoever_writes),
        cmocka_unit_test(a_shared_table_that_says_copied_is_not_written),
        cmocka_unit_test(a_shared_table_of_which_one_entry_says_copied_is_not_written),
        cmocka_unit_test(a_shared_table_that_is_counted_once_is_not_given_back),
        cmocka_unit_test(a_table_to_which_many_lead_is_walked_once),
    };

    return cmocka_run_group_tests_name("qcow2-shared", tests, rig_setup, rig_teardown);
}
