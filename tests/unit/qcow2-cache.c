/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of pieces of tables by itself: reads that are shared, also when they fail; what is forgotten while it is on its way in
 * or out; budgets that pieces in use may exceed; neighbours that are written at once; new tables.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/counters.h"

#define IMAGE "/x.img"
#define PIECE 4096u

static struct node *node;
static struct qcow2 *q;
static struct qcow2_cache *cache;

static void co_begin(size_t budget)
{
    co_rig_create(IMAGE, "size=1M");
    io_sim_write(IMAGE, (8u << 20) - 1, "", 1);
    node = co_rig_open(IMAGE, true);
    q = node->state;
    cache = qcow2_cache_new(q, PIECE, budget);
}

static void co_end(void)
{
    qcow2_cache_free(cache);
    co_node_unref(node);
}

static struct qcow2_piece *co_get(uint64_t offset)
{
    struct qcow2_piece *piece;

    assert_int_equal(co_qcow2_cache_get(cache, offset, &piece), 0);
    return piece;
}

static void co_dirty(uint64_t offset, uint8_t byte)
{
    struct qcow2_piece *piece = co_get(offset);

    memset(piece->data, byte, PIECE);
    qcow2_cache_mark_dirty(cache, piece);
    qcow2_cache_put(cache, piece);
}

static uint8_t on_disk(uint64_t offset)
{
    uint8_t byte;

    assert_int_equal(io_sim_read(IMAGE, offset, &byte, 1), 0);
    return byte;
}

/* --- Reads -------------------------------------------------------------------------------------------------------- */

struct getter {
    struct co_group *group;
    int ret;
};

static CO_ENTRY void co_one_getter(void *arg)
{
    struct getter *g = arg;
    struct qcow2_piece *piece;

    g->ret = co_qcow2_cache_get(cache, PIECE, &piece);
    if (g->ret == 0) {
        qcow2_cache_put(cache, piece);
    }
    co_group_done(g->group, 0);
}

/* Of three at once; `forget` it while it comes in. */
static void co_three(bool forget, int want)
{
    struct co_group group;
    struct getter getters[3];

    co_group_init(&group);
    for (unsigned i = 0; i < ARRAY_SIZE(getters); i++) {
        getters[i] = (struct getter){ .group = &group };
        co_group_add(&group);
        co_start(co_one_getter, &getters[i]);
    }
    assert_null(qcow2_cache_peek(cache, PIECE)); /* not there yet */
    if (forget) {
        qcow2_cache_forget(cache, PIECE, PIECE);
    }
    co_group_wait(&group);
    for (unsigned i = 0; i < ARRAY_SIZE(getters); i++) {
        assert_int_equal(getters[i].ret, want);
    }
}

static CO_ENTRY void co_shared_reads(void *arg)
{
    const struct io_sim_fault fails = { .ops = IO_SIM_READ };
    uint64_t loads = table_counters.loads;

    co_begin(1 << 20);
    co_three(false, 0);
    assert_int_equal(table_counters.loads - loads, 1);
    qcow2_cache_forget(cache, PIECE, PIECE);
    for (unsigned forget = 0; forget < 2; forget++) {
        io_sim_fault(&fails);
        co_three(forget, -EIO);
        assert_int_equal(qcow2_cache_bytes(cache), 0); /* an error is not remembered */
        io_sim_faults_clear();
        co_three(forget, 0);
        qcow2_cache_forget(cache, PIECE, PIECE);
    }
    co_end();
}

static void a_read_and_its_error_are_shared(void **state)
{
    io_sim_reset();
    loop_run_co(co_shared_reads, NULL);
    io_sim_reset();
}

/* --- Writes ------------------------------------------------------------------------------------------------------- */

static CO_ENTRY void co_forgotten(void *arg)
{
    bool written = arg;
    const struct io_sim_fault fails = { .ops = IO_SIM_WRITE };

    co_begin(1 << 20);
    for (unsigned i = 0; i < 6; i++) {
        co_dirty((i + 1) * PIECE, 10 + i);
    }
    struct qcow2_frozen *f = qcow2_cache_freeze(cache);

    assert_int_equal(qcow2_frozen_count(f), 6);
    qcow2_cache_forget(cache, PIECE, 2 * PIECE);     /* the first two, */
    qcow2_cache_forget(cache, 4 * PIECE, PIECE);     /* one in the middle */
    if (!written) {
        io_sim_fault(&fails);
    }
    assert_int_equal(co_qcow2_frozen_write(f), written ? 0 : -EIO);
    io_sim_faults_clear();
    for (unsigned i = 0; i < 6; i++) {
        bool gone = i < 2 || i == 3;

        assert_int_equal(on_disk((i + 1) * PIECE), gone || !written ? 0 : 10 + i);
    }
    qcow2_frozen_done(f, written);
    assert_int_equal(qcow2_cache_dirty(cache), !written); /* the three that are left */
    f = qcow2_cache_freeze(cache);
    assert_int_equal(qcow2_frozen_count(f), written ? 0 : 3);
    assert_int_equal(co_qcow2_frozen_write(f), 0);
    qcow2_frozen_done(f, true);
    assert_int_equal(on_disk(PIECE), 0);
    assert_int_equal(on_disk(3 * PIECE), 12);
    co_end();
}

static void what_is_forgotten_on_its_way_out_is_not_written_and_not_dirty_again(void **state)
{
    for (unsigned written = 0; written < 2; written++) {
        io_sim_reset();
        loop_run_co(co_forgotten, written ? "written" : NULL);
    }
    io_sim_reset();
}

static CO_ENTRY void co_neighbours(void *arg)
{
    uint64_t before;

    co_begin(16 << 20);
    for (unsigned i = 0; i < 600; i++) { /* more than one write takes */
        co_dirty((i + 1) * PIECE, 1 + i % 250);
    }
    co_dirty(1000 * PIECE, 7); /* apart */
    struct qcow2_frozen *f = qcow2_cache_freeze(cache);

    before = io_stats.writes;
    assert_int_equal(co_qcow2_frozen_write(f), 0);
    assert_int_equal(io_stats.writes - before, 4); /* 1 MiB, 1 MiB, the rest, and the one */
    qcow2_frozen_done(f, true);
    for (unsigned i = 0; i < 600; i++) {
        assert_int_equal(on_disk((i + 1) * PIECE), 1 + i % 250);
    }
    assert_int_equal(on_disk(1000 * PIECE), 7);
    co_end();
}

static void neighbours_are_written_at_once_in_parts_of_a_mebibyte(void **state)
{
    io_sim_reset();
    loop_run_co(co_neighbours, NULL);
    io_sim_reset();
}

/* --- New tables --------------------------------------------------------------------------------------------------- */

#define TABLE (4ull << 20) /* where nothing was ever written; a cluster is 64 KiB */
#define CLUSTER 65536u

/* So that zeroes can be told from what was not written. */
static void spoil(uint64_t from, uint64_t to)
{
    for (; from < to; from += PIECE) {
        io_sim_write(IMAGE, from, (uint8_t[]){ 0xee }, 1);
    }
}

static void co_write_back(bool works, size_t pieces)
{
    const struct io_sim_fault fails = { .ops = IO_SIM_WRITE };
    struct qcow2_frozen *f = qcow2_cache_freeze(cache);

    assert_int_equal(qcow2_frozen_count(f), pieces);
    if (!works) {
        io_sim_fault(&fails);
    }
    assert_int_equal(co_qcow2_frozen_write(f), works ? 0 : -EIO);
    io_sim_faults_clear();
    qcow2_frozen_done(f, works);
}

static void expect_table(uint8_t third, uint8_t fifth, uint8_t others)
{
    for (unsigned i = 0; i < CLUSTER / PIECE; i++) {
        assert_int_equal(on_disk(TABLE + i * PIECE), i == 3 ? third : i == 5 ? fifth : others);
    }
}

static CO_ENTRY void co_new_table(void *arg)
{
    struct qcow2_piece *piece;
    uint64_t before, reads;

    co_begin(1 << 20);
    spoil(TABLE - PIECE, TABLE + 2 * CLUSTER);
    qcow2_cache_born(cache, TABLE, TABLE + 3 * PIECE);
    reads = io_stats.reads;
    piece = co_get(TABLE + 4 * PIECE); /* not what the disk says */
    assert_true(bytes_are_zero(piece->data, PIECE));
    assert_int_equal(io_stats.reads, reads);
    qcow2_cache_put(cache, piece);
    co_dirty(TABLE + 3 * PIECE, 3);
    co_dirty(TABLE + 5 * PIECE, 5);
    expect_table(0xee, 0xee, 0xee);

    co_write_back(false, 2); /* what failed is tried again as a whole */
    before = io_stats.writes;
    co_write_back(true, 2);
    assert_int_equal(io_stats.writes - before, 1);
    expect_table(3, 5, 0);
    assert_int_equal(on_disk(TABLE - PIECE), 0xee);
    assert_int_equal(on_disk(TABLE + CLUSTER), 0xee);

    spoil(TABLE + 6 * PIECE, TABLE + CLUSTER); /* from now on it is like any other */
    co_dirty(TABLE + 5 * PIECE, 6);
    co_write_back(true, 1);
    assert_int_equal(on_disk(TABLE + 5 * PIECE), 6);
    assert_int_equal(on_disk(TABLE + 6 * PIECE), 0xee);
    co_end();
}

static void a_new_table_is_written_once_and_whole_by_its_first_generation(void **state)
{
    io_sim_reset();
    loop_run_co(co_new_table, NULL);
    io_sim_reset();
}

static CO_ENTRY void co_neighbouring_tables(void *arg)
{
    uint64_t before;

    co_begin(1 << 20);
    spoil(TABLE, TABLE + 4 * CLUSTER);
    co_dirty(TABLE - PIECE, 1);
    qcow2_cache_born(cache, TABLE + CLUSTER, TABLE + CLUSTER + 15 * PIECE);
    qcow2_cache_born(cache, TABLE, TABLE);
    qcow2_cache_born(cache, TABLE + 3 * CLUSTER, TABLE + 3 * CLUSTER + PIECE);
    qcow2_cache_forget(cache, TABLE + 3 * CLUSTER, CLUSTER); /* it is not needed after all */
    co_dirty(TABLE + 2 * CLUSTER, 2);
    before = io_stats.writes;
    co_write_back(true, 4);
    assert_int_equal(io_stats.writes - before, 1);
    for (unsigned i = 0; i < 4 * CLUSTER / PIECE; i++) {
        assert_int_equal(on_disk(TABLE + i * PIECE), i < 32 ? 0 : i == 32 ? 2 : 0xee);
    }
    co_end();
}

static void new_tables_side_by_side_are_one_write(void **state)
{
    io_sim_reset();
    loop_run_co(co_neighbouring_tables, NULL);
    io_sim_reset();
}

/* --- Budgets ------------------------------------------------------------------------------------------------------ */

static CO_ENTRY void co_budgets(void *arg)
{
    size_t budget = table_counters.shared_budget;
    struct qcow2_piece *held[4];

    co_begin(1 << 20);
    qcow2_cache_share(cache);
    table_counters.shared_budget = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(held); i++) {
        held[i] = co_get((i + 1) * PIECE); /* nobody's budget takes what is in use */
    }
    assert_true(qcow2_cache_bytes(cache) >= ARRAY_SIZE(held) * PIECE);
    for (unsigned i = 0; i < ARRAY_SIZE(held); i++) {
        assert_ptr_equal(qcow2_cache_peek(cache, (i + 1) * PIECE), held[i]);
        qcow2_cache_put(cache, held[i]);
        qcow2_cache_put(cache, held[i]);
    }
    assert_int_equal(qcow2_cache_bytes(cache), 0); /* and what is not goes at once */
    table_counters.shared_budget = budget;
    for (unsigned i = 0; i < ARRAY_SIZE(held); i++) {
        qcow2_cache_put(cache, co_get((i + 1) * PIECE));
    }
    qcow2_cache_put(cache, co_get(PIECE)); /* used again: the second is the oldest now */
    qcow2_cache_set_budget(cache, qcow2_cache_bytes(cache) - 1);
    assert_null(qcow2_cache_peek(cache, 2 * PIECE));
    struct qcow2_piece *first = qcow2_cache_peek(cache, PIECE);

    assert_non_null(first);
    qcow2_cache_put(cache, first);
    co_end();
}

static void budgets_take_the_least_recently_used_and_nothing_in_use(void **state)
{
    io_sim_reset();
    loop_run_co(co_budgets, NULL);
    io_sim_reset();
}

static CO_ENTRY void co_loan(void *arg)
{
    size_t shared = table_counters.shared_budget;

    co_begin(3 * (PIECE + 512));
    qcow2_cache_share(cache);
    qcow2_cache_lend(cache, 4 * (PIECE + 512));
    for (unsigned i = 0; i < 6; i++) {
        qcow2_cache_put(cache, co_get((i + 1) * PIECE));
    }
    assert_true(qcow2_cache_bytes(cache) >= 6 * PIECE);
    assert_int_equal(table_counters.shared_budget, shared + 4 * (PIECE + 512));
    qcow2_cache_lend(cache, 0);
    assert_true(qcow2_cache_bytes(cache) <= 3 * (PIECE + 512));
    assert_int_equal(table_counters.shared_budget, shared);
    qcow2_cache_lend(cache, PIECE); /* who is gone has given it back */
    co_end();
    assert_int_equal(table_counters.shared_budget, shared);
}

static void a_loan_raises_both_budgets_until_it_is_given_back(void **state)
{
    io_sim_reset();
    loop_run_co(co_loan, NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_and_its_error_are_shared),
        cmocka_unit_test(what_is_forgotten_on_its_way_out_is_not_written_and_not_dirty_again),
        cmocka_unit_test(neighbours_are_written_at_once_in_parts_of_a_mebibyte),
        cmocka_unit_test(a_new_table_is_written_once_and_whole_by_its_first_generation),
        cmocka_unit_test(new_tables_side_by_side_are_one_write),
        cmocka_unit_test(a_loan_raises_both_budgets_until_it_is_given_back),
        cmocka_unit_test(budgets_take_the_least_recently_used_and_nothing_in_use),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
