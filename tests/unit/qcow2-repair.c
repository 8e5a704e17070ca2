/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images with the dirty bit: opened for writing they get right reference counts, judged by our own
 * walk and by qemu-img; a crash during the repair costs nothing.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/disk.h"
#include "block/qcow2-check.h"

#define INCOMPATIBLE_AT 72

static uint64_t get64(uint64_t offset)
{
    return rig_get64("/x.img", offset);
}

static void put64(uint64_t offset, uint64_t value)
{
    rig_put64("/x.img", offset, value);
}

static void mark_dirty(void)
{
    put64(INCOMPATIBLE_AT, get64(INCOMPATIBLE_AT) | QCOW2_INCOMPAT_DIRTY);
}

/* All reference counts become `byte`. */
static void scribble(uint8_t byte)
{
    uint8_t head[104];

    io_sim_read("/x.img", 0, head, sizeof(head));
    uint64_t cluster = 1ull << load_be32(head + 20);
    uint64_t table = load_be64(head + 48), len = load_be32(head + 56) * cluster;
    uint8_t *junk = mem_alloc(cluster);

    memset(junk, byte, cluster);
    for (uint64_t at = 0; at < len; at += 8) {
        uint64_t block = get64(table + at);

        if (block) {
            io_sim_write("/x.img", block, junk, cluster);
        }
    }
    free(junk);
}

static void CO_ENTRY make_entry(void *arg)
{
    co_rig_create("/x.img", arg);
}

static void open_for_writing(void)
{
    AUTOFREE char *refusal = rig_refusal("/x.img", true);

    if (refusal) {
        print_message("%s\n", refusal);
    }
    assert_null(refusal);
    assert_false(get64(INCOMPATIBLE_AT) & QCOW2_INCOMPAT_DIRTY);
}

static bool agrees;

static void CO_ENTRY agree_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", false);
    struct qcow2_check c;
    struct qcow2 *q = node->state;

    assert_int_equal(co_qcow2_load_reftable(q), 0);
    assert_int_equal(co_qcow2_check_init(&c, q, NULL), 0);
    assert_int_equal(co_qcow2_check_walk(&c, NULL), 0);
    assert_int_equal(co_qcow2_check_compare(&c, &agrees, NULL), 0);
    qcow2_check_free(&c);
    co_node_unref(node);
}

static bool counts_agree(void)
{
    loop_run_co(agree_entry, NULL);
    return agrees;
}

static const char *const kinds[] = {
    "size=20M,preallocation=metadata",
    "size=20M,preallocation=metadata,refcount_bits=1",
    "size=4M,preallocation=metadata,refcount_bits=64,cluster_size=4k",
    "size=1M,preallocation=metadata,refcount_bits=64,cluster_size=512",
    "size=1M,preallocation=metadata,refcount_bits=2,cluster_size=512",
    "size=20M,preallocation=metadata,extended_l2=on,refcount_bits=8",
    "size=20M,preallocation=metadata,cluster_size=2M",
    "size=20M",
};

static void dirty_images_get_right_counts(void **state)
{
    static const uint8_t junk[] = { 0x00, 0xff, 0x5a };

    for (size_t k = 0; k < ARRAY_SIZE(kinds) * ARRAY_SIZE(junk); k++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)kinds[k / ARRAY_SIZE(junk)]);
        assert_true(counts_agree());
        scribble(junk[k % ARRAY_SIZE(junk)]);
        mark_dirty();
        assert_false(counts_agree());
        open_for_writing();
        assert_true(counts_agree());
    }
    io_sim_reset();
}

/* Tables of counts that cannot be right are not believed, whatever the counts say. */
static void counts_in_impossible_places_are_made_anew(void **state)
{
    /* header 0, table 10000, block 20000, L1 30000, L2 40000, data 50000.. */
    static const struct {
        uint64_t at, value;
    } wrong[] = {
        { 0x10008, 0x20200 },    /* not aligned */
        { 0x10008, 0x40000021 }, /* bits that mean nothing */
        { 0x10008, 0x7000000 },  /* behind the end of the file */
        { 0x10008, 0x20000 },    /* the first block again */
        { 0x10008, 0x10000 },    /* the table itself */
        { 0x10008, 0x60000 },    /* data */
        { 0x10000, 0 },          /* none */
        { 48, 0x60000 },         /* the table where data are */
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
        put64(wrong[i].at, wrong[i].value);
        mark_dirty();
        assert_false(counts_agree());
        open_for_writing();
        assert_true(counts_agree());
    }
    io_sim_reset();
}

/* The first entry of the L2 table leads to a cluster far behind everything else; `to`: how far, in bytes. */
static void point_far_away(uint64_t to)
{
    io_sim_write("/x.img", to, "x", 1);
    put64(get64(get64(40)) & QCOW2_L1_OFFSET_MASK, to | QCOW2_COPIED);
    mark_dirty();
}

static void CO_ENTRY missing_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", false);
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;

    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_true(report.corruptions > 0);
    co_node_unref(node);
}

/* Between the two lie blocks for which there is nothing to count. */
static void clusters_that_no_block_counts_get_one(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=64k,preallocation=metadata,cluster_size=512");
    point_far_away(64u << 20); /* the table of counts ends before that */
    assert_false(counts_agree());
    loop_run_co(missing_entry, NULL);
    open_for_writing();
    assert_true(counts_agree());
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
    point_far_away(4ull << 30); /* the table could name a block, and does not */
    assert_false(counts_agree());
    open_for_writing();
    assert_true(counts_agree());
    io_sim_reset();
}

/* The table of counts lies where no block counts it. */
static void a_table_of_counts_that_nothing_counts_is_made_anew(void **state)
{
    uint8_t table[512];

    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=64k,preallocation=metadata,cluster_size=512");
    io_sim_read("/x.img", get64(48), table, sizeof(table));
    io_sim_write("/x.img", 1 << 20, table, sizeof(table));
    put64(48, 1 << 20);
    mark_dirty();
    assert_false(counts_agree());
    open_for_writing();
    assert_true(counts_agree());
    io_sim_reset();
}

static void right_counts_stay_where_they_are(void **state)
{
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        uint64_t before, after, table;

        io_sim_reset();
        loop_run_co(make_entry, (void *)kinds[k]);
        io_sim_size("/x.img", &before);
        table = get64(48);
        mark_dirty();
        open_for_writing();
        io_sim_size("/x.img", &after);
        assert_int_equal(before, after);
        assert_int_equal(get64(48), table);
        assert_true(counts_agree());
    }
    io_sim_reset();
}

static void a_crash_during_the_repair_costs_nothing(void **state)
{
    for (size_t k = 0; k < ARRAY_SIZE(kinds) - 2; k += 3) { /* large clusters would only take their time */
        struct rig_states states = { 0 };
        unsigned again = 0;

        io_sim_reset();
        loop_run_co(make_entry, (void *)kinds[k]);
        uint64_t l1 = get64(40), l2 = get64(l1) & QCOW2_L1_OFFSET_MASK;

        scribble(0);
        put64(l1, l2); /* and the flags are wrong too */
        put64(l2, get64(l2) & ~QCOW2_COPIED);
        mark_dirty();
        io_sim_on_op(rig_take_state, &states);
        assert_null(rig_refusal("/x.img", true));
        io_sim_on_op(NULL, NULL);
        for (size_t i = 0; i < states.n; i++) {
            for (unsigned seed = 0; seed < 8; seed++) {
                io_sim_restore(states.list[i]);
                io_sim_cut(seed % 4, 64 * i + seed);
                again += get64(INCOMPATIBLE_AT) & QCOW2_INCOMPAT_DIRTY;
                if (!(get64(INCOMPATIBLE_AT) & QCOW2_INCOMPAT_DIRTY)) {
                    assert_true(counts_agree()); /* the bit goes last */
                }
                open_for_writing();
                assert_true(counts_agree());
                assert_int_equal(get64(l1), l2 | QCOW2_COPIED);
                assert_true(get64(l2) & QCOW2_COPIED);
            }
        }
        assert_true(again > 0);
        rig_free_states(&states);
    }
    io_sim_reset();
}

/* Made by qemu: snapshots, compressed and zero clusters, bitmaps. */
static void images_with_everything_satisfy_qemu_afterwards(void **state)
{
    static const char *const options[] = {
        "cluster_size=64k", "cluster_size=4k,refcount_bits=64", "cluster_size=16k,extended_l2=on",
        "cluster_size=1k,compression_type=zstd,refcount_bits=32",
    };

    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        int status;
        AUTOFREE char *out = rig_shell(
            &status,
            "set -e; cd %s; qemu-img create -q -f qcow2 -o %s image 16M;"
            "qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 4M 1M' -c 'write -zu 6M 64k' image >/dev/null;"
            "qemu-io -f qcow2 -c 'write -c -P 9 8M 1M' image >/dev/null;"
            "qemu-img snapshot -c one image; qemu-img bitmap --add image b;"
            "qemu-io -f qcow2 -c 'write -P 8 1M 1M' -c 'write -P 8 8M 64k' -c 'discard 2M 512k' image >/dev/null;"
            "qemu-img snapshot -c two image; qemu-io -f qcow2 -c 'write -P 3 0 128k' image >/dev/null",
            rig_dir, options[i]);

        assert_string_equal(out, "");
        assert_int_equal(status, 0);
        io_sim_reset();
        assert_int_equal(io_sim_import("/x.img", rig_file), 0);
        assert_true(counts_agree());
        scribble(0);
        mark_dirty();
        open_for_writing();
        rig_qemu_check("/x.img");
        AUTOFREE char *read = rig_shell(
            &status,
            "qemu-io -r -f qcow2 -c 'read -P 3 0 128k' -c 'read -P 8 1M 1M' -c 'read -P 9 8448k 64k'"
            "   -c 'read -P 0 4M 1M' %s 2>/dev/null | grep -i 'verification failed'", rig_file);

        assert_string_equal(read, "");
    }
    io_sim_reset();
}

/* A job makes a layer writable that was opened read-only, and gives the right back. */
static void CO_ENTRY switch_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", false);
    struct error err = ERROR_INIT;
    uint8_t out[8192], in[8192];

    memset(out, 0x77, sizeof(out));
    assert_int_equal(co_node_read_buf(node, 1 << 20, in, sizeof(in)), 0); /* tables are in the cache */
    assert_int_equal(co_node_write_buf(node, 1 << 20, out, sizeof(out)), -EPERM);
    assert_int_equal(co_node_set_writable(node, true, &err), 0);
    assert_int_equal(co_node_write_buf(node, 1 << 20, out, sizeof(out)), 0);
    assert_int_equal(co_node_set_writable(node, false, &err), 0);
    assert_int_equal(co_node_write_buf(node, 1 << 20, out, sizeof(out)), -EPERM);
    assert_int_equal(node->driver->co_flush(node), 0); /* there is nothing to be done */
    assert_int_equal(co_node_read_buf(node, 1 << 20, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    co_node_unref(node);
}

static void layers_are_repaired_when_they_become_writable(void **state)
{
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)kinds[k]);
        if (!strstr(kinds[k], "size=1M")) {
            scribble(0);
            mark_dirty();
            loop_run_co(switch_entry, NULL);
            assert_false(get64(INCOMPATIBLE_AT) & QCOW2_INCOMPAT_DIRTY);
            assert_true(counts_agree());
        }
    }
    io_sim_reset();
}

/* Nothing that they stand for is kept up to date by us. */
static void autoclear_bits_go_with_the_first_right_to_write(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=20M");
    put64(80, 0xf0f0f0f0f0f0f0f0);
    put64(88, ~QCOW2_AUTOCLEAR_DATA_RAW); /* that one is refused without a data file */
    assert_true(counts_agree());           /* opens read-only */
    assert_int_equal(get64(88), ~QCOW2_AUTOCLEAR_DATA_RAW);
    open_for_writing();
    assert_int_equal(get64(80), 0xf0f0f0f0f0f0f0f0);
    assert_int_equal(get64(88), 0);
    io_sim_reset();
}

static void corrupt_images_are_only_read(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=20M");
    put64(INCOMPATIBLE_AT, QCOW2_INCOMPAT_CORRUPT);
    AUTOFREE char *refusal = rig_refusal("/x.img", true);

    assert_string_equal(refusal, "qcow2: Image is corrupt; cannot be opened read/write");
    assert_true(counts_agree());
    assert_int_equal(get64(INCOMPATIBLE_AT), QCOW2_INCOMPAT_CORRUPT);
    io_sim_reset();
}

static unsigned corruptions;
static bool corruption_fatal;

static void note_corruption(struct node *node, const char *device, const char *msg, uint64_t offset,
                            uint64_t size, bool fatal)
{
    corruptions++;
    corruption_fatal = fatal;
}

static void CO_ENTRY find_corrupt_entry(void *arg)
{
    bool writable = *(bool *)arg;
    struct node *node = co_rig_open("/x.img", writable);
    uint8_t data[4096] = { 0 };

    assert_int_equal(co_node_read_buf(node, 0, data, sizeof(data)), -EIO);
    assert_int_equal(co_node_read_buf(node, 0, data, sizeof(data)), -EIO);
    assert_int_equal(node->corrupt, writable);
    assert_true(co_node_write_buf(node, 590 << 20, data, sizeof(data)) < 0);
    assert_int_equal(co_node_read_buf(node, 590 << 20, data, sizeof(data)), 0);
    co_node_unref(node);
}

/* Version 2 has no mark: the node remembers. */
static void CO_ENTRY old_corrupt_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);
    struct error err = ERROR_INIT;
    uint8_t data[4096] = { 0 };

    assert_int_equal(co_node_write_buf(node, 1 << 20, data, sizeof(data)), 0); /* something is dirty */
    assert_int_equal(co_node_write_buf(node, 0, data, sizeof(data)), -EIO);
    assert_true(node->corrupt);
    assert_int_equal(co_node_set_writable(node, false, &err), 0); /* what was dirty is lost */
    assert_int_equal(co_node_set_writable(node, true, &err), -EACCES);
    assert_string_equal(err.text, "qcow2: Image is corrupt; cannot be opened read/write");
    error_clear(&err);
    co_node_unref(node);
}

static void an_image_of_version_2_found_corrupt_stays_closed_to_writes(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=20M,compat=0.10,preallocation=metadata");
    put64(get64(get64(40)) & QCOW2_L2_OFFSET_MASK, 0x123200);
    loop_run_co(old_corrupt_entry, NULL);
    io_sim_reset();
}

/* Bits that a later time may give a meaning to: as long as a cluster, and no extension behind it. */
static void a_header_as_long_as_its_cluster_is_read_whole(void **state)
{
    uint8_t before[8192], after[8192], length[4];

    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=20M,cluster_size=8192");
    store_be32(length, 8192);
    io_sim_write("/x.img", 100, length, sizeof(length));
    memset(before, 0x5a, sizeof(before));
    io_sim_write("/x.img", 112, before, sizeof(before) - 112);
    put64(88, 2ull << 40); /* has the header written when it is opened */
    open_for_writing();
    assert_int_equal(get64(88), 0);
    io_sim_read("/x.img", 112, after, sizeof(after) - 112);
    assert_memory_equal(after, before, sizeof(after) - 112);
    io_sim_reset();
}

/* A damaged table is met while the image is in use: marked, reported once, written no further. */
static void an_image_found_corrupt_is_marked_and_closed_to_writes(void **state)
{
    static const struct block_listener listener = { .image_corrupted = note_corruption };

    block_set_listener(&listener);
    for (unsigned i = 0; i < 2; i++) {
        bool writable = i;

        io_sim_reset();
        loop_run_co(make_entry, (void *)"size=600M,preallocation=metadata");
        put64(get64(get64(40)) & QCOW2_L2_OFFSET_MASK, 0x123200);
        corruptions = 0;
        loop_run_co(find_corrupt_entry, &writable);
        assert_int_equal(corruptions, 1);
        assert_int_equal(corruption_fatal, writable);
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, i);
        assert_int_equal(get64(INCOMPATIBLE_AT), writable ? QCOW2_INCOMPAT_CORRUPT : 0);
    }
    block_set_listener(NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_images_get_right_counts),
        cmocka_unit_test(right_counts_stay_where_they_are),
        cmocka_unit_test(a_crash_during_the_repair_costs_nothing),
        cmocka_unit_test(images_with_everything_satisfy_qemu_afterwards),
        cmocka_unit_test(layers_are_repaired_when_they_become_writable),
        cmocka_unit_test(autoclear_bits_go_with_the_first_right_to_write),
        cmocka_unit_test(corrupt_images_are_only_read),
        cmocka_unit_test(an_image_found_corrupt_is_marked_and_closed_to_writes),
        cmocka_unit_test(an_image_of_version_2_found_corrupt_stays_closed_to_writes),
        cmocka_unit_test(a_header_as_long_as_its_cluster_is_read_whole),
        cmocka_unit_test(counts_in_impossible_places_are_made_anew),
        cmocka_unit_test(clusters_that_no_block_counts_get_one),
        cmocka_unit_test(a_table_of_counts_that_nothing_counts_is_made_anew),
    };

    return cmocka_run_group_tests_name("qcow2-repair", tests, rig_setup, rig_teardown);
}
