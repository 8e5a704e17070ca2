/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images whose tables are damaged at random are opened, read, written, flushed and closed.  What
 * comes back may be an error or wrong data; what must not happen is a fault, a broken invariant,
 * an endless loop, or a write into the header.
 */
#include "tests/unit/qcow2-rig.h"

#define ROUNDS 400u
#define READ_AT_ONCE (256u << 10)

static struct random rnd;

/* --- Victims ---------------------------------------------------------------------------------- */

static void CO_ENTRY make_entry(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_object();
    char *copy = mem_strdup(arg), *rest = copy, *word;

    while ((word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');

        *value++ = 0;
        json_object_set_new(options, word, json_string(value));
    }
    assert_int_equal(co_qcow2_create("/x.img", options, &err), 0);
    json_decref(options);
    free(copy);

    struct node *node = co_rig_open("/x.img", true);
    uint8_t *data = mem_alloc(64 << 10);

    for (unsigned i = 0; i < 20; i++) {
        memset(data, i + 1, 64 << 10);
        assert_int_equal(co_node_write_buf(node, random_below(&rnd, 30) * (128 << 10), data, 64 << 10), 0);
    }
    assert_int_equal(co_node_zero(node, 1 << 20, 300 << 10, 0), 0);
    free(data);
    co_node_unref(node);
}

static uint64_t get64(uint64_t offset)
{
    uint8_t bytes[8];

    io_sim_read("/x.img", offset, bytes, 8);
    return load_be64(bytes);
}

/* The places of all tables: header, reference count table, blocks, L1, L2, snapshot table. */
static unsigned find_tables(uint64_t *tables, unsigned room)
{
    uint64_t l1 = get64(40), reftable = get64(48), snapshots = get64(64);
    unsigned n = 0;

    tables[n++] = 0;
    tables[n++] = l1;
    tables[n++] = reftable;
    tables[n++] = get64(reftable) & QCOW2_L2_OFFSET_MASK;
    if (snapshots) {
        tables[n++] = snapshots;
        tables[n++] = get64(snapshots);
    }
    for (unsigned i = 0; n < room && i < 8; i++) {
        uint64_t l2 = get64(l1 + 8 * i) & QCOW2_L2_OFFSET_MASK;

        if (l2) {
            tables[n++] = l2;
        }
    }
    return n;
}

/* An entry as an attacker likes it. */
static uint64_t nasty_entry(const uint64_t *tables, unsigned n)
{
    static const uint64_t flags[] = { 0, QCOW2_COPIED, QCOW2_COMPRESSED, QCOW2_COPIED | QCOW2_COMPRESSED };
    uint64_t entry = flags[random_below(&rnd, 4)] | random_below(&rnd, 3);

    switch (random_below(&rnd, 4)) {
    case 0:
        return entry | tables[random_below(&rnd, n)];
    case 1:
        return entry | random_below(&rnd, 64) << (9 + random_below(&rnd, 9));
    case 2:
        return entry | (random_next(&rnd) & QCOW2_L2_OFFSET_MASK);
    default:
        return random_next(&rnd);
    }
}

static void damage(void)
{
    uint64_t tables[16];
    unsigned n = find_tables(tables, ARRAY_SIZE(tables));

    for (uint64_t k = random_below(&rnd, 5); k < 6; k++) {
        uint64_t at = tables[random_below(&rnd, n)] + 8 * random_below(&rnd, 1 + random_below(&rnd, 40));
        uint8_t bytes[8];

        store_be64(bytes, nasty_entry(tables, n));
        if (at < 1024 && random_below(&rnd, 2)) {
            io_sim_write("/x.img", random_below(&rnd, 600), bytes, 1 + random_below(&rnd, 3));
        } else if (at >= 8 || random_below(&rnd, 20) == 0) {
            io_sim_write("/x.img", at, bytes, sizeof(bytes));
        }
    }
    if (random_below(&rnd, 10) == 0) {
        uint64_t size;

        io_sim_size("/x.img", &size);
        AUTOFREE uint8_t *start = mem_alloc(size);
        uint64_t cut = random_below(&rnd, size);

        io_sim_read("/x.img", 0, start, cut);
        io_sim_create("/x.img", 0);
        io_sim_write("/x.img", 0, start, cut);
    }
}

/* --- Use -------------------------------------------------------------------------------------- */

static unsigned opened, writes_done;

static void CO_ENTRY use_entry(void *arg)
{
    bool writable = *(bool *)arg;
    json_t *options = json_pack("{s:s, s:b, s:n, s:s}", "driver", "qcow2", "read-only", (int)!writable, "backing",
                                "discard", "unmap");
    struct error err = ERROR_INIT;
    struct node *node = co_node_open("/x.img", options, &err);
    uint8_t *data = mem_alloc(READ_AT_ONCE);

    json_decref(options);
    assert_int_equal(error_is_set(&err), !node);
    error_clear(&err);
    opened += node != NULL;
    for (unsigned i = 0; node && i < 24 && node->size > READ_AT_ONCE; i++) {
        uint64_t at = random_below(&rnd, MIN(node->size, 16ull << 20) / 512 - READ_AT_ONCE / 512) * 512;
        size_t len = (1 + random_below(&rnd, READ_AT_ONCE / 512)) * 512;
        int ret;

        switch (random_below(&rnd, writable ? 5 : 1)) {
        case 0:
            ret = co_node_read_buf(node, at, data, len);
            break;
        case 1:
            memset(data, i, len);
            ret = co_node_write_buf(node, at, data, len);
            writes_done += !ret;
            break;
        case 2:
            ret = co_node_zero(node, at, len, random_below(&rnd, 2));
            break;
        case 3:
            ret = co_node_discard(node, at, len);
            break;
        default:
            ret = co_node_flush(node);
        }
        assert_true(ret <= 0);
    }
    if (node && writable && random_below(&rnd, 3) == 0) {
        (void)co_qcow2_set_backing(node, "other.img", "raw", NULL);
    }
    free(data);
    if (node) {
        co_node_unref(node);
    }
}

static void attack(unsigned rounds)
{
    struct io_sim_snapshot *whole = io_sim_snapshot();

    opened = writes_done = 0;
    for (unsigned i = 0; i < rounds; i++) {
        bool writable = i % 2;

        io_sim_restore(whole);
        io_sim_cut(IO_SIM_CUT_POWER_KEEP, i);
        damage();
        loop_run_co(use_entry, &writable);
        if (get64(0) >> 32 == QCOW2_MAGIC && writable) {
            loop_run_co(use_entry, &writable); /* and once more, as it was left */
        }
    }
    io_sim_snapshot_free(whole);
    assert_true(opened > rounds / 10);
    assert_true(writes_done > rounds / 10);
}

static void damaged_images_break_nothing(void **state)
{
    static const char *const kinds[] = {
        "size=16M",
        "size=16M,cluster_size=4k,refcount_bits=1",
        "size=16M,cluster_size=16k,extended_l2=on",
        "size=16M,cluster_size=512,refcount_bits=64",
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)kinds[i]);
        attack(ROUNDS);
    }
    io_sim_reset();
}

static void damaged_images_of_qemu_break_nothing(void **state)
{
    static const char *const options[] = { "cluster_size=64k", "cluster_size=4k,compression_type=zstd" };

    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        int status;
        AUTOFREE char *out = rig_shell(
            &status,
            "set -e; cd %s; qemu-img create -q -f qcow2 -o %s image 16M;"
            "qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 4M 1M' image >/dev/null;"
            "qemu-io -f qcow2 -c 'write -c -P 9 8M 1M' image >/dev/null;"
            "qemu-img snapshot -c one image; qemu-img snapshot -c two image;"
            "qemu-io -f qcow2 -c 'write -P 8 1M 1M' image >/dev/null",
            rig_dir, options[i]);

        assert_string_equal(out, "");
        io_sim_reset();
        assert_int_equal(io_sim_import("/x.img", rig_file), 0);
        attack(ROUNDS);
    }
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_images_break_nothing),
        cmocka_unit_test(damaged_images_of_qemu_break_nothing),
    };

    random_seed(&rnd, 7);
    return cmocka_run_group_tests_name("qcow2-hostile", tests, rig_setup, rig_teardown);
}
