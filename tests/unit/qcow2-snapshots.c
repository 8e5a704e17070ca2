/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots in odd states: lists that say nonsense, counts that can be no larger, lists as long as can be, and more to give
 * back than is kept in one list.  What is refused changes nothing.
 */
#include "tests/unit/qcow2-rig.h"

#include <xxhash.h>

#include "block/qcow2-check.h"

#define IMAGE "/x.img"
#define CLUSTER 4096u
#define LIST_AT 0x100000u /* lists that are written by hand: behind everything else */

struct attempt {
    int (*co_act)(struct node *node, const char *name);
    const char *name, *options; /* of opening, JSON; NULL: none */
    int ret;
};

static CO_ENTRY void tree_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    json_t *list = qcow2_snapshot_trees(node), *first = json_array_get(list, 0);

    assert_int_equal(!!json_object_get(first, "icount"), arg != NULL);
    json_decref(list);
    co_node_unref(node);
}

static CO_ENTRY void act_entry(void *arg)
{
    struct attempt *a = arg;
    struct node *node = co_rig_open(IMAGE, true);

    a->ret = a->co_act(node, a->name);
    co_node_unref(node);
}

static int act(int (*co_act)(struct node *node, const char *name), const char *name)
{
    struct attempt a = { .co_act = co_act, .name = name };

    loop_run_co(act_entry, &a);
    return a.ret;
}

/* As a number, what the active state shows. */
static CO_ENTRY void content_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    AUTOFREE uint8_t *bytes = mem_alloc(node->size + 1);

    assert_int_equal(co_node_read_buf(node, 0, bytes, node->size), 0);
    *(uint64_t *)arg = XXH3_64bits(bytes, node->size);
    co_node_unref(node);
}

static uint64_t content(void)
{
    uint64_t sum;

    loop_run_co(content_entry, &sum);
    return sum;
}

static CO_ENTRY void sound_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;

    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_int_equal(report.corruptions, 0);
    assert_int_equal(report.leaks, 0);
    co_node_unref(node);
}

static void co_put(struct node *node, uint64_t at, uint64_t len, uint8_t byte)
{
    AUTOFREE uint8_t *bytes = mem_alloc(len);

    memset(bytes, byte, len);
    assert_int_equal(co_node_write_buf(node, at, bytes, len), 0);
}

static CO_ENTRY void make_entry(void *arg)
{
    co_rig_create(IMAGE, arg);
    struct node *node = co_rig_open(IMAGE, true);

    co_put(node, 0, 8 * CLUSTER, 1);
    assert_int_equal(co_qcow2_snapshot_make(node, "one"), 0);
    co_put(node, CLUSTER, 2 * CLUSTER, 2);
    co_node_unref(node);
}

static void make(const char *options)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)options);
}

/* --- Nonsense ----------------------------------------------------------------------------------------------------- */

static void what_the_list_says_of_a_snapshot_is_not_believed(void **state)
{
    static const struct {
        unsigned at, bytes; /* in the entry */
        uint64_t value;
        int apply, delete;
    } rows[] = {
        { 0, 8, 0x12345, -EINVAL, -EINVAL },  /* the L1 table's place */
        { 0, 8, 1ull << 60, -EINVAL, -EINVAL },
        { 0, 8, 1ull << 40, -EINVAL, 0 },     /* behind the end of the file: zeroes, not content */
        { 8, 4, UINT32_MAX, -EFBIG, -EFBIG }, /* its length */
        { 8, 4, QCOW2_MAX_L1_BYTES / 8 + 1, -EFBIG, -EFBIG },
        { 48, 8, 1ull << 62, -EFBIG, 0 },     /* the disk's size */
        { 48, 8, 1000, -EINVAL, 0 },
    };

    for (size_t i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
        bool deletes = i >= ARRAY_SIZE(rows);
        size_t k = i % ARRAY_SIZE(rows);
        uint8_t bytes[8];

        make("size=1M,cluster_size=4096");
        uint64_t before = content();

        store_be64(bytes, rows[k].value);
        io_sim_write(IMAGE, rig_get64(IMAGE, 64) + rows[k].at, bytes + 8 - rows[k].bytes, rows[k].bytes);
        uint64_t sum = io_sim_hash(IMAGE);
        int want = deletes ? rows[k].delete : rows[k].apply;

        assert_int_equal(act(deletes ? co_qcow2_snapshot_delete : co_qcow2_snapshot_apply, "one"), want);
        assert_int_equal(content(), before);
        if (want < 0) {
            assert_int_equal(io_sim_hash(IMAGE), sum);
        }
    }
    io_sim_reset();
}

static CO_ENTRY void larger_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, true);
    uint8_t byte;

    assert_int_equal(node->size, *(uint64_t *)arg);
    assert_int_equal(co_node_read_buf(node, node->size - 1, &byte, 1), 0);
    assert_int_equal(byte, 0);
    co_put(node, node->size - CLUSTER, CLUSTER, 7);
    co_node_unref(node);
}

static void a_snapshot_of_a_disk_that_its_table_does_not_cover_is_applied_with_a_longer_one(void **state)
{
    uint64_t size = 1ull << 30;

    make("size=1M,cluster_size=4096");
    rig_put64(IMAGE, rig_get64(IMAGE, 64) + 48, size);
    assert_int_equal(act(co_qcow2_snapshot_apply, "one"), 0);
    loop_run_co(larger_entry, &size);
    loop_run_co(sound_entry, NULL);
    io_sim_reset();
}

static void a_cluster_without_a_count_makes_no_snapshot(void **state)
{
    make("size=1M,cluster_size=4096");
    assert_int_equal(act(co_qcow2_snapshot_delete, "one"), 0); /* leaves free places in front of that cluster */
    uint64_t l2 = rig_get64(IMAGE, rig_get64(IMAGE, 40)) & QCOW2_L1_OFFSET_MASK, before = content();
    uint64_t data = rig_get64(IMAGE, l2 + 8) & QCOW2_L2_OFFSET_MASK;
    uint64_t counts = rig_get64(IMAGE, rig_get64(IMAGE, 48));

    io_sim_write(IMAGE, counts + data / CLUSTER * 2, "\0\0", 2);
    assert_int_equal(act(co_qcow2_snapshot_make, "two"), -EIO);
    assert_int_equal(act(co_qcow2_snapshot_delete, "two"), -ENOENT);
    assert_int_equal(content(), before);
    io_sim_reset();
}

/* A node that is only read shows a snapshot, unless it is one of these. */
static CO_ENTRY void show_entry(void *arg)
{
    static const struct {
        uint64_t disk_size, l1_offset;
        int ret;
        const char *text;
    } rows[] = {
        { 1ull << 62, 0, -EFBIG, "Snapshot's disk is too large" },
        { 1 << 20, 0x12345, -EINVAL, "Snapshot L1 table offset invalid" },
        { 1 << 20, 0, -EIO, "Could not read L1 table: Input/output error" }, /* the host says so */
    };
    const struct io_sim_fault fails = { .ops = IO_SIM_READ };
    struct node *node = co_rig_open(IMAGE, false);
    struct qcow2 *q = node->state;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct qcow2_snapshot s = q->snapshots[0];
        struct error err = ERROR_INIT;

        s.disk_size = rows[i].disk_size;
        s.l1_offset = rows[i].l1_offset ? rows[i].l1_offset : s.l1_offset;
        if (rows[i].ret == -EIO) {
            io_sim_fault(&fails);
        }
        assert_int_equal(co_qcow2_snapshot_show(node, &s, &err), rows[i].ret);
        assert_string_equal(err.text, rows[i].text);
        error_clear(&err);
        io_sim_faults_clear();
        assert_int_equal(node->size, 1 << 20);
    }
    co_node_unref(node);
}

static void what_cannot_be_shown_is_told(void **state)
{
    make("size=1M,cluster_size=4096");
    loop_run_co(show_entry, NULL);
    io_sim_reset();
}

/* Nothing counts the cluster of a snapshot's L1 table: it looks free, and is not. */
static CO_ENTRY void uncounted_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, true);
    uint8_t data[CLUSTER] = { 1 };

    assert_int_equal(co_node_write_buf(node, 100 * CLUSTER, data, sizeof(data)), -EIO);
    assert_true(node->corrupt);
    co_node_unref(node);
}

static void an_l1_table_of_a_snapshot_is_never_written_over(void **state)
{
    make("size=1M,cluster_size=4096");
    uint64_t l1 = rig_get64(IMAGE, rig_get64(IMAGE, 64)), entry = rig_get64(IMAGE, l1);

    io_sim_write(IMAGE, rig_get64(IMAGE, rig_get64(IMAGE, 48)) + l1 / CLUSTER * 2, "\0\0", 2);
    loop_run_co(uncounted_entry, NULL);
    assert_int_equal(rig_get64(IMAGE, l1), entry);
    io_sim_reset();
}

/* --- Limits ------------------------------------------------------------------------------------------------------- */

static void co_pack(struct node *node, uint64_t at, uint32_t noise)
{
    uint8_t bytes[CLUSTER] = { 0 }, packed[CLUSTER];

    for (uint32_t i = 0; i < noise; i++) {
        uint64_t place = at + i;

        bytes[i] = XXH3_64bits(&place, sizeof(place));
    }
    size_t len = co_qcow2_compress(node, bytes, packed);

    assert_true(len > 0);
    assert_int_equal(co_qcow2_write_packed(node, at, packed, len), 0);
}

/* Of the second stream the first host cluster could be counted once more, the other one could not. */
static CO_ENTRY void crowded_entry(void *arg)
{
    co_rig_create(IMAGE, "size=1M,cluster_size=4096,refcount_bits=4");
    struct node *node = co_rig_open(IMAGE, true);

    co_put(node, 32 * CLUSTER, CLUSTER, 1); /* or the table would lie between the two */
    co_pack(node, 0, 3900);
    co_pack(node, CLUSTER, 400);
    for (unsigned i = 2; i < 16; i++) {
        co_pack(node, i * CLUSTER, 1);
    }
    co_node_unref(node);
}

static void a_count_that_can_be_no_larger_makes_no_snapshot(void **state)
{
    io_sim_reset();
    loop_run_co(crowded_entry, NULL);
    uint64_t before = content();

    assert_int_equal(act(co_qcow2_snapshot_make, "one"), -ERANGE);
    assert_int_equal(content(), before);
    loop_run_co(sound_entry, NULL);
    rig_qemu_check(IMAGE);
    io_sim_reset();
}

static void a_name_that_no_list_can_hold_is_refused(void **state)
{
    AUTOFREE char *name = mem_zalloc(65537);

    make("size=1M,cluster_size=4096");
    memset(name, 'n', 65536);
    assert_int_equal(act(co_qcow2_snapshot_make, name), -EINVAL);
    name[65535] = '\0';
    assert_int_equal(act(co_qcow2_snapshot_make, name), 0);
    assert_int_equal(act(co_qcow2_snapshot_delete, name), 0);
    loop_run_co(sound_entry, NULL);
    io_sim_reset();
}

/* A list by hand: `n` snapshots of nothing with names of `name_len` bytes.  Returns its length. */
static uint64_t write_list(uint32_t n, uint16_t name_len)
{
    uint64_t each = ROUND_UP(QCOW2_SNAPSHOT_ENTRY + 16 + name_len, 8), len = n * each;
    AUTOFREE uint8_t *list = mem_zalloc(len);
    uint8_t bytes[4];

    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = list + i * each;

        store_be16(entry + 14, name_len);
        store_be32(entry + 36, 16);
        memset(entry + QCOW2_SNAPSHOT_ENTRY + 16, 'a', name_len);
    }
    io_sim_write(IMAGE, LIST_AT, list, len);
    store_be32(bytes, n);
    io_sim_write(IMAGE, 60, bytes, sizeof(bytes));
    rig_put64(IMAGE, 64, LIST_AT);
    return len;
}

static void a_list_that_can_be_no_longer_takes_no_snapshot(void **state)
{
    static const struct {
        uint32_t n;
        uint16_t name_len;
    } rows[] = { { QCOW2_MAX_SNAPSHOTS, 0 }, { 279, 60000 } };
    char name[30000] = { 0 };

    memset(name, 'n', sizeof(name) - 1);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        make("size=256k,cluster_size=4096");
        assert_int_equal(act(co_qcow2_snapshot_delete, "one"), 0);
        uint64_t before = content();
        uint64_t len = write_list(rows[i].n, rows[i].name_len);

        assert_true(len <= QCOW2_MAX_SNAPSHOT_TABLE);
        assert_int_equal(act(co_qcow2_snapshot_make, name), -EFBIG);
        assert_int_equal(rig_get64(IMAGE, 64), LIST_AT);
        assert_int_equal(content(), before);
    }
    io_sim_reset();
}

/* Nothing counts the list's clusters: they look free, and are not. */
static void a_list_is_never_written_over(void **state)
{
    make("size=256k,cluster_size=4096");
    assert_int_equal(act(co_qcow2_snapshot_delete, "one"), 0);
    uint64_t len = write_list(200, 10000);
    AUTOFREE uint8_t *before = mem_alloc(len), *after = mem_alloc(len);

    io_sim_read(IMAGE, LIST_AT, before, len);
    assert_int_equal(act(co_qcow2_snapshot_make, "one"), -EIO);
    io_sim_read(IMAGE, LIST_AT, after, len);
    assert_memory_equal(before, after, len);
    io_sim_reset();
}

/* Entries of an older time say nothing of instructions. */
static void only_what_is_recorded_is_told(void **state)
{
    make("size=256k,cluster_size=4096");
    loop_run_co(tree_entry, (void *)"recorded");
    write_list(1, 3);
    loop_run_co(tree_entry, NULL);
    io_sim_reset();
}

static void a_list_that_is_too_long_or_cut_off_is_refused(void **state)
{
    for (unsigned cut = 0; cut < 2; cut++) {
        make("size=256k,cluster_size=4096");
        uint64_t len = write_list(cut ? 10 : 300, 60000), short_of = 16;

        if (cut) {
            AUTOFREE uint8_t *bytes = mem_alloc(LIST_AT + len);

            io_sim_read(IMAGE, 0, bytes, LIST_AT + len);
            io_sim_create(IMAGE, 0);
            io_sim_write(IMAGE, 0, bytes, LIST_AT + len - short_of);
        }
        AUTOFREE char *refusal = rig_refusal(IMAGE, false);

        assert_string_equal(refusal,
                            cut ? "Snapshot table lies beyond the end of the file" : "Snapshot table too large");
    }
    io_sim_reset();
}

/* --- Much to give back -------------------------------------------------------------------------------------------- */

static void more_clusters_than_wait_together_are_all_given_back(void **state)
{
    make("size=40M,cluster_size=512,preallocation=metadata");
    uint64_t before = content();

    assert_int_equal(act(co_qcow2_snapshot_delete, "one"), 0);
    assert_int_equal(content(), before);
    loop_run_co(sound_entry, NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_list_says_of_a_snapshot_is_not_believed),
        cmocka_unit_test(a_snapshot_of_a_disk_that_its_table_does_not_cover_is_applied_with_a_longer_one),
        cmocka_unit_test(a_cluster_without_a_count_makes_no_snapshot),
        cmocka_unit_test(what_cannot_be_shown_is_told),
        cmocka_unit_test(an_l1_table_of_a_snapshot_is_never_written_over),
        cmocka_unit_test(a_count_that_can_be_no_larger_makes_no_snapshot),
        cmocka_unit_test(a_name_that_no_list_can_hold_is_refused),
        cmocka_unit_test(a_list_that_can_be_no_longer_takes_no_snapshot),
        cmocka_unit_test(a_list_is_never_written_over),
        cmocka_unit_test(only_what_is_recorded_is_told),
        cmocka_unit_test(a_list_that_is_too_long_or_cut_off_is_refused),
        cmocka_unit_test(more_clusters_than_wait_together_are_all_given_back),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
