/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work on very many clusters whose tables are all in memory never has to wait for anything: others have their turns all the same.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2.h"

#define IMAGE "/x.img"
#define SIZE (1ull << 30)

static struct node *node;
static bool done;
static unsigned turns;

static void co_count_turns(void *arg)
{
    while (!done) {
        turns++;
        co_yield();
    }
}

/* Nothing changes any more, so no table is read or written. */
static void CO_ENTRY again_entry(void *arg)
{
    uint64_t reads = io_stats.reads, writes = io_stats.writes;

    done = false;
    turns = 0;
    co_start(co_count_turns, NULL);
    assert_int_equal(co_node_zero(node, 0, SIZE, 0), 0);
    done = true;
    assert_int_equal(io_stats.reads, reads);
    assert_int_equal(io_stats.writes, writes);
}

static void CO_ENTRY make_entry(void *arg)
{
    io_sim_reset();
    co_rig_create(IMAGE, "size=1G");
    node = co_rig_open(IMAGE, true);
    assert_int_equal(co_node_write_buf(node, 0, "0", 1), 0); /* there are two tables */
    assert_int_equal(co_node_write_buf(node, SIZE / 2, "1", 1), 0);
    assert_int_equal(co_node_zero(node, 0, SIZE, 0), 0);
}

static void CO_ENTRY end_entry(void *arg)
{
    co_node_unref(node);
}

static void others_have_their_turns_while_a_gibibyte_is_looked_at(void **state)
{
    loop_run_co(make_entry, NULL);
    loop_run_co(again_entry, NULL);
    assert_in_range(turns, 4, 100);
    loop_run_co(end_entry, NULL);
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_have_their_turns_while_a_gibibyte_is_looked_at),
    };

    return cmocka_run_group_tests_name("qcow2-turns", tests, rig_setup, rig_teardown);
}
