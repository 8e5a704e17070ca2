/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images with the dirty bit that cannot be repaired, as their references themselves are nonsense: they are refused, each with its
 * sentence, and left alone.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2-check.h"

#define IMAGE "/x.img"
#define INCOMPATIBLE_AT 72

static uint64_t get64(uint64_t offset)
{
    return rig_get64(IMAGE, offset);
}

static void put64(uint64_t offset, uint64_t value)
{
    rig_put64(IMAGE, offset, value);
}

static void CO_ENTRY make_entry(void *arg)
{
    co_rig_create(IMAGE, arg);
}

static void refused(const char *text)
{
    AUTOFREE char *whole = mem_printf("Could not repair dirty image: %s", text);

    put64(INCOMPATIBLE_AT, get64(INCOMPATIBLE_AT) | QCOW2_INCOMPAT_DIRTY);
    uint64_t sum = io_sim_hash(IMAGE);
    AUTOFREE char *refusal = rig_refusal(IMAGE, true);

    assert_string_equal(refusal, whole);
    assert_int_equal(io_sim_hash(IMAGE), sum);
}

/* Counting all references ends with this sentence; NULL: does not end before all are counted. */
static void CO_ENTRY walk_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    struct error err = ERROR_INIT;
    struct qcow2_check c;

    assert_int_equal(co_qcow2_check_init(&c, node->state, &err), 0);
    assert_int_equal(co_qcow2_check_walk(&c, &err), arg ? -EINVAL : 0);
    if (arg) {
        assert_string_equal(err.text, (const char *)arg);
    }
    error_clear(&err);
    qcow2_check_free(&c);
    co_node_unref(node);
}


static void what_cannot_be_is_refused_and_left_alone(void **state)
{
    /* header 0, table 10000, block 20000, L1 30000, L2 40000, data 50000.. */
    static const struct {
        uint64_t at, value;
        const char *text;
    } wrong[] = {
        { 0x30000, 0x12340000, "an L2 table at offset 0x12340000 lies beyond the end of the file" },
        { 0x30000, 0x40200, "an L2 table at offset 0x40200 is not aligned to a cluster" },
        { 0x30000, 0x30000, "an L2 table overlaps with other metadata at offset 0x30000" },
        { 0x40000, 0x50200, "a data cluster at offset 0x50200 is not aligned to a cluster" },
        { 0x40000, 0xfffff0000, "a data cluster at offset 0xfffff0000 lies beyond the end of the file" },
        { 0x40008, 0x40000, "a data cluster overlaps with other metadata at offset 0x40000" },
        { 0x40008, 0x30000, "a data cluster overlaps with other metadata at offset 0x30000" },
        { 0x40010, 0x4000000fffffff00, "a compressed cluster at offset 0xfffffff00 lies beyond the end of the file" },
        { 0x40010, 0x4000000000000010, "a compressed cluster overlaps with other metadata at offset 0" },
        { 0x40010, 0x720000000054ff00, "a compressed cluster at offset 0x54ff00 lies beyond the end of the file" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
        put64(wrong[i].at, wrong[i].value);
        refused(wrong[i].text);
    }
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=600M,preallocation=metadata");
    put64(0x30008, get64(0x30000));
    refused("the active L1 table refers to the L2 table at offset 0x40000 twice");
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata,refcount_bits=1");
    put64(0x40000, get64(0x40008));
    refused("too many references to the cluster at offset 0x60000");
    io_sim_reset();
}

/* Entries that lead to places far apart: their counts would need more memory than the file explains. */
static void a_thin_image_that_refers_to_everywhere_is_refused(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=4G,preallocation=metadata");
    uint64_t l2 = get64(get64(40)) & QCOW2_L1_OFFSET_MASK;

    for (uint64_t i = 0; i < 65536; i++) {
        put64(l2 + i * 8, (i + 1) << 24 | QCOW2_COPIED);
    }
    io_sim_write(IMAGE, 1ull << 41, "", 1);
    refused("the image refers to more places in the file than its size explains");
    io_sim_reset();
}

/* The first entry of the L2 table leads to a cluster far behind everything else. */
static void a_file_with_too_many_clusters_is_refused(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=64k,preallocation=metadata,cluster_size=512,refcount_bits=64");
    io_sim_write(IMAGE, 40ull << 30, "x", 1);
    put64(get64(get64(40)) & QCOW2_L1_OFFSET_MASK, 40ull << 30 | QCOW2_COPIED);
    refused("the file is too large to count its clusters");
    io_sim_reset();
}

/* A check for people goes on behind much, but not behind this. */
static void CO_ENTRY report_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;

    assert_int_equal(co_qcow2_report(node, 0, &report, &err), -EINVAL);
    assert_string_equal(err.text, (const char *)arg);
    error_clear(&err);
    co_node_unref(node);
}

/* An L1 table that a thousand snapshots share is as much work as a thousand tables. */
static void tables_of_snapshots_that_are_larger_than_the_file_are_refused(void **state)
{
    uint8_t entry[56] = { 0 }, n[4];

    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
    store_be64(entry, 0x680000);
    store_be32(entry + 8, 8192);
    store_be32(entry + 36, 16);
    for (unsigned i = 0; i < 1000; i++) {
        io_sim_write(IMAGE, 0x600000 + i * sizeof(entry), entry, sizeof(entry));
    }
    store_be32(n, 1000);
    io_sim_write(IMAGE, 60, n, sizeof(n));
    put64(64, 0x600000);
    io_sim_write(IMAGE, 0x700000 - 1, "", 1);
    loop_run_co(report_entry, (void *)"the L1 tables of the snapshots are larger than the file");
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
    store_be64(entry, 0x680001);
    io_sim_write(IMAGE, 0x600000, entry, sizeof(entry));
    store_be32(n, 1);
    io_sim_write(IMAGE, 60, n, sizeof(n));
    put64(64, 0x600000);
    refused("the L1 table of snapshot '' offset invalid");
    io_sim_reset();
}

static unsigned said;

static void hear(void *arg, const char *line)
{
    said += strcmp(line, arg) == 0;
}

static void CO_ENTRY mend_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, false);
    struct qcow2_report report = { .say = hear, .arg = arg };
    struct error err = ERROR_INIT;

    said = 0;
    assert_int_equal(co_qcow2_report(node, QCOW2_FIX_ERRORS | QCOW2_FIX_LEAKS, &report, &err), 0);
    assert_int_equal(said, 1);
    assert_true(report.corruptions > 0);
    co_node_unref(node);
}

/* Counts are wrong, and so is what they would have to be made from. */
static void counts_are_not_made_anew_from_nonsense(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
    put64(0x10000, 0);
    put64(0x40008, 0x60200 | QCOW2_COPIED);
    uint64_t sum = io_sim_hash(IMAGE);

    loop_run_co(mend_entry, (void *)"Could not repair dirty image: a data cluster at offset 0x60200 is not aligned to a cluster");
    assert_int_equal(io_sim_hash(IMAGE), sum);
    io_sim_reset();
}

/* The extension says where the directory lies; one bitmap, its table behind the directory. */
static void make_bitmap(uint64_t directory, uint64_t len, uint64_t table, uint32_t entries)
{
    uint8_t ext[40] = { 0 }, entry[32] = { 0 };

    io_sim_reset();
    loop_run_co(make_entry, (void *)"size=5M,preallocation=metadata");
    store_be32(ext, QCOW2_EXT_BITMAPS);
    store_be32(ext + 4, 24);
    store_be32(ext + 8, 1);
    store_be64(ext + 16, len);
    store_be64(ext + 24, directory);
    io_sim_write(IMAGE, 112, ext, sizeof(ext));
    store_be64(entry, table);
    store_be32(entry + 8, entries);
    store_be16(entry + 18, 1); /* of its name */
    io_sim_write(IMAGE, directory, entry, sizeof(entry));
    io_sim_write(IMAGE, 0x700000 - 1, "", 1);
    put64(88, QCOW2_AUTOCLEAR_BITMAPS);
}

static void bitmaps_that_cannot_be_end_a_check(void **state)
{
    static const struct {
        uint64_t directory, len, table;
        uint32_t entries;
        uint64_t part; /* the table's first entry */
        const char *text;
    } rows[] = {
        { 0x600200, 32, 0x610000, 1, 0, "the bitmap directory at offset 0x600200 is not sound" },
        { 0x600000, 1ull << 40, 0x610000, 1, 0, "the bitmap directory at offset 0x600000 is not sound" },
        { 0x600000, 32u << 20, 0x610000, 1, 0, "the bitmap directory at offset 0x600000 lies beyond the end of the file" },
        { 0x30000, 32, 0x610000, 1, 0, "the bitmap directory overlaps with other metadata at offset 0x30000" },
        { 0x600000, 32, 0x610200, 1, 0, "a bitmap's table at offset 0x610200 is not sound" },
        { 0x600000, 32, 0x610000, 1u << 30, 0, "a bitmap's table at offset 0x610000 is not sound" },
        { 0x600000, 32, 0x7000000, 1, 0, "a bitmap's table at offset 0x7000000 lies beyond the end of the file" },
        { 0x600000, 32, 0x610000, 1, 0x620200, "a part of a bitmap at offset 0x620200 is not aligned to a cluster" },
        { 0x600000, 32, 0x610000, 1, 0x40000, "a part of a bitmap overlaps with other metadata at offset 0x40000" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        make_bitmap(rows[i].directory, rows[i].len, rows[i].table, rows[i].entries);
        put64(0x610000, rows[i].part);
        loop_run_co(walk_entry, (void *)rows[i].text);
    }
    make_bitmap(0x600000, 32, 0x610000, 2);
    put64(0x610000, 0x620000);
    loop_run_co(walk_entry, NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused_and_left_alone),
        cmocka_unit_test(a_thin_image_that_refers_to_everywhere_is_refused),
        cmocka_unit_test(a_file_with_too_many_clusters_is_refused),
        cmocka_unit_test(tables_of_snapshots_that_are_larger_than_the_file_are_refused),
        cmocka_unit_test(counts_are_not_made_anew_from_nonsense),
        cmocka_unit_test(bitmaps_that_cannot_be_end_a_check),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
