/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Broken and hostile tables: whatever they say, nothing crashes, no metadata is overwritten by a
 * guest, and what is found wrong is reported, marked and written to no further.
 */
#include "tests/unit/qcow2-model.h"

#include "block/qcow2-l2.h"
#include "core/bytes.h"

#define DAMAGED 150

static const struct config shapes[] = {
    { .options = "cluster_size=65536", .window = 1 << 20, .preload = true },
    { .options = "cluster_size=512,refcount_bits=64", .window = 128 << 10, .preload = true,
      .cache = 4096 },
    { .options = "cluster_size=1024,refcount_bits=2", .window = 256 << 10, .snapshot = true,
      .preload = true },
    { .options = "cluster_size=4096,refcount_bits=8", .window = 512 << 10, .preload = true,
      .compress = true },
    { .options = "cluster_size=16384,extended_l2=on", .window = 512 << 10, .preload = true },
    { .options = "cluster_size=65536,compat=0.10", .window = 512 << 10, .preload = true },
};

/* --- Random damage -------------------------------------------------------------------------- */

static void poke(uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    assert_int_equal(io_sim_write(IMAGE, offset, bytes, 8), 0);
}

static uint64_t peek(uint64_t offset)
{
    uint8_t bytes[8];

    assert_int_equal(io_sim_read(IMAGE, offset, bytes, 8), 0);
    return load_be64(bytes);
}

/* A table's offset somewhere in the image: L1, an L2 table, the reftable, a refcount block. */
static uint64_t some_table(struct world *w, uint64_t *entries)
{
    uint64_t l1 = peek(40), reftable = peek(48), cluster = 1ull << (peek(16) & 0xff), offset;
    uint64_t l1_entries = peek(32) & 0xffffffff;

    *entries = cluster / 8;
    switch (random_below(&w->rnd, 4)) {
    case 0:
        *entries = l1_entries;
        return l1;
    case 1:
        offset = peek(l1 + random_below(&w->rnd, l1_entries) * 8) & QCOW2_L1_OFFSET_MASK;
        return offset ? offset : l1;
    case 2:
        return reftable;
    default:
        offset = peek(reftable) & ~511ull;
        return offset ? offset : reftable;
    }
}

static uint64_t strange_value(struct world *w, uint64_t old)
{
    static const uint64_t offsets[] = {
        0, 1, 512, 0x10000, 0x30000, 1ull << 40, 0x00fffffffffffe00, 1ull << 62
    };

    switch (random_below(&w->rnd, 5)) {
    case 0:
        return random_next(&w->rnd);
    case 1:
        return old ^ 1ull << random_below(&w->rnd, 64);
    case 2:
        return offsets[random_below(&w->rnd, ARRAY_SIZE(offsets))] | QCOW2_COPIED;
    case 3:
        return 0;
    default:
        return QCOW2_COPIED | peek(random_below(&w->rnd, 2) ? 40 : 48);
    }
}

static void damage(struct world *w)
{
    unsigned n = 1 + random_below(&w->rnd, 6);

    while (n-- > 0) {
        uint64_t entries, table = some_table(w, &entries);
        uint64_t size, at = table + random_below(&w->rnd, random_below(&w->rnd, 2)
                                                              ? entries
                                                              : MIN(entries, (uint64_t)8)) *
                                        8;

        assert_int_equal(io_sim_size(IMAGE, &size), 0);
        if (at + 8 <= size) {
            poke(at, strange_value(w, peek(at)));
        }
    }
}

static bool co_try_open(struct world *w)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:s}", "driver", "qcow2", "discard", "unmap");

    w->node = co_node_open(IMAGE, options, &err);
    json_decref(options);
    error_clear(&err);
    return w->node != NULL;
}

/* As co_model_read(), but nobody knows what is right. */
static void co_hostile_worker(void *arg)
{
    struct world *w = arg;

    while (w->ops_left > 0) {
        uint32_t first, n;

        w->ops_left--;
        if (random_below(&w->rnd, 10) == 0) {
            (void)co_node_flush(w->node);
            continue;
        }
        if (!model_take(w, &first, &n)) {
            co_sleep_ns(1000);
            continue;
        }
        AUTOFREE uint8_t *buf = mem_zalloc((size_t)n * SECTOR);
        uint64_t offset = model_offset(w, first), len = (uint64_t)n * SECTOR;
        switch (random_below(&w->rnd, 4)) {
        case 0:
            (void)co_node_read_buf(w->node, offset, buf, len);
            break;
        case 1:
            (void)co_node_write_buf(w->node, offset, buf, len);
            break;
        case 2:
            (void)co_node_zero(w->node, offset, len, NODE_MAY_UNMAP);
            break;
        default:
            (void)co_node_discard(w->node, offset, len);
            break;
        }
        model_give(w, first, n);
    }
    w->running--;
}

static void co_damaged(void *arg)
{
    const struct config *cfg = arg;
    struct world w;

    model_init(&w, cfg, 600 + (cfg - shapes));
    if (getenv("SEED")) {
        random_seed(&w.rnd, strtoull(getenv("SEED"), NULL, 0) + (cfg - shapes));
    }
    model_create_images(&w);
    struct io_sim_snapshot *healthy = io_sim_snapshot();
    for (int i = 0; i < DAMAGED; i++) {
        damage(&w);
        if (co_try_open(&w)) {
            uint8_t head[SECTOR], after[SECTOR];

            io_sim_read(IMAGE, 0, head, SECTOR);
            w.ops_left = 60;
            for (unsigned k = 0; k < WORKERS; k++) {
                w.running++;
                co_start(co_hostile_worker, &w);
            }
            while (w.running > 0) {
                co_sleep_ns(10000);
            }
            co_node_unref(w.node);
            io_sim_read(IMAGE, 0, after, SECTOR);
            assert_memory_equal(head, after, 8);            /* it is an image still */
            assert_memory_equal(head + 16, after + 16, 32); /* size, L1 ... */
        }
        io_sim_restore(healthy);
        io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    }
    io_sim_snapshot_free(healthy);
    model_free(&w);
}

static void random_damage_crashes_nothing(void **state)
{
    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        loop_run_co(co_damaged, (void *)&shapes[i]);
    }
}

/* --- One kind of damage at a time ----------------------------------------------------------- */

struct attack {
    const char *name;
    void (*strike)(void);
    bool read, write; /* expected to fail; otherwise to succeed */
    bool corrupt;     /* the image is marked afterwards */
};

/* Guest cluster 0 is allocated, cluster 1 is not. */
static uint64_t l2_table(void)
{
    return peek(peek(40)) & QCOW2_L1_OFFSET_MASK;
}

static void no_damage(void) {}
static void entry_to_header(void) { poke(l2_table(), QCOW2_COPIED); }
static void entry_to_l1(void) { poke(l2_table(), QCOW2_COPIED | peek(40)); }
static void entry_to_reftable(void) { poke(l2_table(), QCOW2_COPIED | peek(48)); }
static void entry_to_refblock(void) { poke(l2_table(), QCOW2_COPIED | peek(peek(48))); }
static void entry_to_l2(void) { poke(l2_table(), QCOW2_COPIED | l2_table()); }
static void entry_unaligned(void) { poke(l2_table(), peek(l2_table()) + 512); }
static void entry_beyond_end(void) { poke(l2_table(), QCOW2_COPIED | 1ull << 40); }
static void table_unaligned(void) { poke(peek(40), peek(peek(40)) + 512); }
static void table_beyond_end(void) { poke(peek(40), QCOW2_COPIED | 1ull << 40); }
static void table_is_header(void) { poke(peek(40), QCOW2_COPIED | peek(48)); }
static void counts_are_zero(void)
{
    uint64_t block = peek(peek(48));
    for (int i = 0; i < 32; i++) {
        poke(block + i * 8, 0);
    }
}
static void refblock_unaligned(void) { poke(peek(48), peek(peek(48)) + 512); }
static void refblock_beyond_end(void) { poke(peek(48), 1ull << 40); }

static const struct attack attacks[] = {
    { "none", no_damage, false, false, false },
    { "entry -> header", entry_to_header, false, false, false }, /* offset 0 is "unallocated" */
    { "entry -> L1", entry_to_l1, false, true, true },
    { "entry -> reftable", entry_to_reftable, false, true, true },
    { "entry -> refcount block", entry_to_refblock, false, true, true },
    { "entry -> L2 table", entry_to_l2, false, true, true },
    { "entry unaligned", entry_unaligned, true, true, true },
    { "entry beyond the end", entry_beyond_end, true, true, true },
    { "L2 table unaligned", table_unaligned, true, true, true },
    { "L2 table beyond the end", table_beyond_end, true, true, true },
    { "L2 table is the reftable", table_is_header, false, true, true },
    { "refcounts are zero", counts_are_zero, false, true, true },
    { "refcount block unaligned", refblock_unaligned, false, true, true },
    { "refcount block beyond the end", refblock_beyond_end, false, true, true },
};

#define WRITTEN_64K "qemu-img create -q -f qcow2 image.qcow2 64M && qemu-io -f qcow2 -c 'write -P 7 0 64k' image.qcow2"

/* What these commands make as image.qcow2, on the simulated disk. */
static void image_made_by(const char *commands)
{
    AUTOFREE char *image = mem_printf("%s/image.qcow2", rig_dir);

    io_sim_reset();
    model_shell(commands);
    assert_int_equal(io_sim_import(IMAGE, image), 0);
    model_shell("rm -f *.qcow2");
}

static struct node *co_open_it(void)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open(IMAGE, options, &err);

    json_decref(options);
    assert_non_null(node);
    return node;
}

static void co_attack(void *arg)
{
    const struct attack *a = arg;
    uint8_t buf[4096], head[4096], now[4096];
    struct node *node;
    int read, in_place, fresh;

    image_made_by(WRITTEN_64K);
    a->strike();
    node = co_open_it();
    io_sim_read(IMAGE, 0, head, sizeof(head));
    memset(buf, 9, sizeof(buf));
    read = co_node_read_buf(node, 0, now, sizeof(now));
    in_place = co_node_write_buf(node, 4096, buf, sizeof(buf));
    fresh = co_node_write_buf(node, 1 << 20, buf, sizeof(buf));
    if ((read < 0) != a->read || (in_place < 0 || fresh < 0) != a->write ||
        node->corrupt != a->corrupt) {
        print_message("%s: read %d, write %d %d, corrupt %d\n", a->name, read, in_place, fresh,
                      node->corrupt);
        fail();
    }
    co_node_unref(node);
    io_sim_read(IMAGE, 0, now, sizeof(now));
    assert_int_equal(now[79] & QCOW2_INCOMPAT_CORRUPT, a->corrupt ? QCOW2_INCOMPAT_CORRUPT : 0ull);
    now[79] &= ~QCOW2_INCOMPAT_CORRUPT;
    assert_memory_equal(head, now, sizeof(now));
}

static void each_kind_of_damage_is_found_in_time(void **state)
{
    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++) {
        loop_run_co(co_attack, (void *)&attacks[i]);
    }
}

/* The host does not say how long the file is: nobody can tell whether the entry is wrong. */
static void co_unknown_end(void *arg)
{
    const struct io_sim_fault fails = { .ops = IO_SIM_SIZE };
    uint8_t buf[4096];
    struct node *node;

    image_made_by(WRITTEN_64K);
    entry_beyond_end();
    node = co_open_it();
    io_sim_fault(&fails);
    assert_int_equal(co_node_read_buf(node, 0, buf, sizeof(buf)), -EIO);
    assert_false(node->corrupt);
    io_sim_faults_clear();
    assert_int_equal(co_node_read_buf(node, 0, buf, sizeof(buf)), -EIO);
    assert_true(node->corrupt);
    co_node_unref(node);
}

static void an_end_that_cannot_be_asked_for_is_no_corruption(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_unknown_end, NULL);
}

/* Tables lie upon each other: nothing is allocated, whoever asks. */
static void co_overlap(void *arg)
{
    struct error err = ERROR_INIT;
    bool snapshot = arg;
    struct node *node;

    image_made_by(WRITTEN_64K);
    table_is_header();
    node = co_open_it();
    if (snapshot) {
        assert_int_equal(co_qcow2_snapshot_make(node, "one"), -EIO);
    } else {
        assert_int_equal(co_node_truncate(node, 1ull << 40, &err), -EIO);
        assert_string_equal(err.text, "Failed to grow the L1 table: Input/output error");
        error_clear(&err);
        assert_int_equal(node->size, 64 << 20);
    }
    assert_true(node->corrupt);
    co_node_unref(node);
}

static void an_image_whose_tables_overlap_does_not_grow(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_overlap, NULL);
}

static void an_image_whose_tables_overlap_takes_no_snapshot(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_overlap, (void *)"snapshot");
}

/* Two clusters in one request: the second entry is nonsense. */
static void co_second_entry(void *arg)
{
    const uint64_t wrong = QCOW2_COPIED | 0x50200;
    AUTOFREE uint8_t *buf = mem_zalloc(2 << 16);
    struct node *node;
    uint64_t at;

    image_made_by(WRITTEN_64K);
    at = l2_table() + 9 * 8;
    poke(at, wrong);
    node = co_open_it();
    assert_int_equal(co_node_write_buf(node, 8 << 16, buf, 2 << 16), -EIO);
    assert_true(node->corrupt);
    co_node_unref(node);
    assert_int_equal(peek(at), wrong);
}

static void a_write_that_reaches_an_entry_that_is_wrong_goes_no_further(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_second_entry, NULL);
}

/* 4 KiB clusters, so an L2 table is for 2 MiB.  What is asked at `at` fails as far as `end`. */
static const struct reach {
    const char *name;
    bool in_l1;             /* else in the first L2 table */
    unsigned first, n;      /* entries that are `value`, each greater than the one before by `step` */
    uint64_t value, step;
    uint64_t at, end;
} reaches[] = {
    { "L1 entries", true, 1, 3, QCOW2_COPIED | 1ull << 40, 512, (2 << 20) + 1000, 8 << 20 },
    { "the last L1 entries", true, 5, 3, QCOW2_COPIED | 1ull << 40, 0, 12 << 20, 16 << 20 },
    { "entries that are unaligned", false, 5, 4, QCOW2_COPIED | 0x3200, 0x1000, (6 << 12) + 512, 9 << 12 },
    { "entries behind the end", false, 5, 4, QCOW2_COPIED | 1ull << 40, 0x1000, 5 << 12, 9 << 12 },
    { "entries to the end of the table", false, 500, 12, QCOW2_COPIED | 0x3200, 0, 510 << 12, 2 << 20 },
};

static void co_reach(void *arg)
{
    const struct reach *r = arg;
    struct extent e = { 0 };
    struct node *node;

    print_message("%s\n", r->name);
    image_made_by("qemu-img create -q -f qcow2 -o cluster_size=4096 image.qcow2 16M &&"
                  " qemu-io -f qcow2 -c 'write -P 7 0 2M' image.qcow2");
    for (unsigned i = 0; i < r->n; i++) {
        poke((r->in_l1 ? peek(40) : l2_table()) + (r->first + i) * 8, r->value + i * r->step);
    }
    node = co_open_it();
    assert_int_equal(node->driver->co_map(node, r->at, node->size - r->at, &e), -EIO);
    assert_int_equal(e.kind, EXTENT_OPAQUE);
    assert_int_equal(r->at + e.len, r->end);
    assert_int_equal(node->driver->co_map(node, r->at, 512, &e), -EIO);
    assert_int_equal(e.len, 512);
    co_node_unref(node);
}

static void an_error_is_told_as_far_as_the_tables_are_wrong(void **state)
{
    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(reaches); i++) {
        loop_run_co(co_reach, (void *)&reaches[i]);
    }
}

/* As far as the slice goes which the host did not give. */
static void co_no_slice(void *arg)
{
    struct io_sim_fault fails = { .ops = IO_SIM_READ, .len = 65536 };
    struct extent e = { 0 };
    struct node *node;

    image_made_by(WRITTEN_64K);
    node = co_open_it();
    fails.offset = l2_table();
    io_sim_fault(&fails);
    assert_int_equal(node->driver->co_map(node, 1 << 20, 63 << 20, &e), -EIO);
    assert_int_equal(e.kind, EXTENT_OPAQUE);
    assert_int_equal(e.len, (32 - 1) << 20);
    io_sim_faults_clear();
    co_node_unref(node);
}

static void an_error_of_the_host_is_told_for_the_slice_that_it_did_not_give(void **state)
{
    rig_need_qemu_img();
    loop_run_co(co_no_slice, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_damage_crashes_nothing),
        cmocka_unit_test(each_kind_of_damage_is_found_in_time),
        cmocka_unit_test(an_end_that_cannot_be_asked_for_is_no_corruption),
        cmocka_unit_test(an_image_whose_tables_overlap_does_not_grow),
        cmocka_unit_test(an_image_whose_tables_overlap_takes_no_snapshot),
        cmocka_unit_test(a_write_that_reaches_an_entry_that_is_wrong_goes_no_further),
        cmocka_unit_test(an_error_is_told_as_far_as_the_tables_are_wrong),
        cmocka_unit_test(an_error_of_the_host_is_told_for_the_slice_that_it_did_not_give),
    };
    return cmocka_run_group_tests(tests, model_setup, rig_teardown);
}
