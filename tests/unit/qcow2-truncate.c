/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size, while the power goes: whatever is left opens, has sound counts and the old size or the new one, keeps what
 * lies in front of both ends, and shows only zeroes behind the old one.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2-check.h"

#define IMAGE "/x.img"
#define KIB 1024u

struct size_case {
    const char *options;
    uint64_t from, to;
};

static const struct size_case cases[] = {
    { "cluster_size=512", 100 * KIB, 9000 * KIB }, /* a longer L1 table, in more clusters */
    { "cluster_size=512", 9000 * KIB, 100 * KIB },
    { "cluster_size=4096,refcount_bits=1", 100 * KIB, 70000 * KIB },
    { "cluster_size=65536", 100 * KIB, 150 * KIB },
    { "cluster_size=65536", 1000 * KIB, 70 * KIB },
    { "cluster_size=65536,compat=0.10", 1000 * KIB, 4000 * KIB },
    { "cluster_size=16384,extended_l2=on", 1000 * KIB, 50 * KIB },
    { "cluster_size=4096", 0, 70000 * KIB },
};

static const struct size_case *now;

static uint8_t byte_at(uint64_t offset)
{
    return offset / 512 % 255 + 1;
}

static void co_make(void)
{
    AUTOFREE char *words = mem_printf("%s,size=%llu", now->options, (unsigned long long)now->from);

    co_rig_create(IMAGE, words);
}

/* Every second KiB holds data. */
static void co_write_some(struct node *node)
{
    uint8_t buf[KIB];

    for (uint64_t at = 0; at < node->size; at += 2 * KIB) {
        memset(buf, byte_at(at), sizeof(buf));
        assert_int_equal(co_node_write_buf(node, at, buf, MIN((uint64_t)KIB, node->size - at)), 0);
    }
    assert_int_equal(co_node_flush(node), 0);
}

static CO_ENTRY void make_entry(void *arg)
{
    co_make();
    struct node *node = co_rig_open(IMAGE, true);

    co_write_some(node);
    co_node_unref(node);
}

static CO_ENTRY void resize_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, true);
    struct error err = ERROR_INIT;

    assert_int_equal(co_node_truncate(node, now->to, &err), 0);
    assert_int_equal(node->size, now->to);
    co_node_unref(node);
}

static void co_judge_content(struct node *node)
{
    uint64_t kept = MIN(now->from, now->to);
    AUTOFREE uint8_t *buf = mem_alloc(node->size + 1);

    assert_int_equal(co_node_read_buf(node, 0, buf, node->size), 0);
    for (uint64_t at = 0; at < node->size; at += 512) {
        uint8_t want = at / 512 % 4 < 2 && at < now->from ? byte_at(at / (2 * KIB) * 2 * KIB) : 0;

        if (at < kept || now->to > now->from) {
            assert_int_equal(buf[at], want);
        } else { /* cut off: still there, or gone */
            assert_true(buf[at] == want || buf[at] == 0);
        }
    }
}

/* What is left is sound, and goes on: what was cut off does not come back with a longer disk. */
static CO_ENTRY void judge_entry(void *arg)
{
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;
    struct node *node = co_rig_open(IMAGE, false);

    assert_true(node->size == now->from || node->size == now->to);
    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_int_equal(report.corruptions, 0);
    co_judge_content(node);
    co_node_unref(node);

    node = co_rig_open(IMAGE, true);
    uint64_t end = node->size;
    static uint8_t buf[300 * KIB];

    assert_int_equal(co_node_truncate(node, end + sizeof(buf), &err), 0);
    assert_int_equal(co_node_read_buf(node, end, buf, sizeof(buf)), 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        assert_int_equal(buf[i], 0);
    }
    co_node_unref(node);
}

static void a_crash_leaves_the_old_size_or_the_new(void **state)
{
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        struct rig_states states = { 0 };

        now = &cases[k];
        io_sim_reset();
        loop_run_co(make_entry, NULL);
        io_sim_on_op(rig_take_state, &states);
        loop_run_co(resize_entry, NULL);
        io_sim_on_op(NULL, NULL);
        assert_true(states.n > 2);
        for (size_t i = 0; i < states.n; i += 1 + states.n / 20) {
            for (unsigned seed = 0; seed < 4; seed++) {
                io_sim_restore(states.list[i]);
                io_sim_cut(seed, 64 * i + seed);
                loop_run_co(judge_entry, NULL);
            }
        }
        rig_free_states(&states);
    }
    io_sim_reset();
}

static void qemu_finds_the_resized_image_sound(void **state)
{
    rig_need_qemu_img();
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        now = &cases[k];
        io_sim_reset();
        loop_run_co(make_entry, NULL);
        loop_run_co(resize_entry, NULL);
        rig_qemu_check(IMAGE);
    }
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_leaves_the_old_size_or_the_new),
        cmocka_unit_test(qemu_finds_the_resized_image_sound),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
