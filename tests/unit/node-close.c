/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A node whose last reference is gone is closed, and closing suspends. Meanwhile it is still in the list of all nodes, and
 * nobody may take it from there: who gave his reference back would close it a second time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "block/node.h"
#include "core/loop.h"
#include "monitor/handlers.h"

static unsigned closed;

static int co_slow_open(struct node *node, struct error *err)
{
    node->state = &closed;
    node->size = 1 << 20;
    return 0;
}

static void co_slow_close(struct node *node)
{
    co_sleep_ns(NS_PER_MS);
    closed++;
}

static const struct driver driver_slow = {
    .name = "slow", .is_protocol = true, .co_open = co_slow_open, .co_close = co_slow_close,
};
static const struct driver *const drivers[] = { &driver_slow, NULL };

static struct node *co_open_slow(const char *name)
{
    json_t *options = json_pack("{s:s, s:s}", "driver", "slow", "node-name", name);
    struct error err = ERROR_INIT;
    struct node *node = co_node_open("/slow", options, &err);

    json_decref(options);
    return node;
}

static CO_ENTRY void co_let_go(void *node)
{
    co_node_unref(node);
}

static size_t co_nodes_shown(void)
{
    struct error err = ERROR_INIT;
    json_t *args = json_object(), *tree = NULL;

    co_query_named_block_nodes(NULL, args, &tree, &err);
    size_t n = json_array_size(tree);
    json_decref(tree);
    json_decref(args);
    return n;
}

static struct seen {
    bool opened, found, alive;
    size_t shown, shown_before;
    unsigned closed;
} seen;

static CO_ENTRY void co_look_at_a_closing_node(void *arg)
{
    struct node *going = co_open_slow("going"), *staying = co_open_slow("staying");

    seen.opened = going && staying;
    if (!seen.opened) {
        return;
    }
    seen.shown_before = co_nodes_shown();
    co_start(co_let_go, going);
    co_yield();
    seen.alive = node_alive(going);
    seen.found = node_find("going");
    seen.shown = co_nodes_shown();
    co_node_drain_end(co_node_drain_begin(going)); /* of all that reach it, which is itself alone */
    co_sleep_ns(5 * NS_PER_MS);
    seen.closed = closed;
    co_node_unref(staying);
}

static void a_node_that_is_being_closed_is_left_alone_by_all(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    node_set_drivers(drivers);
    loop_run_co(co_look_at_a_closing_node, NULL);
    assert_true(seen.opened);
    assert_int_equal(seen.shown_before, 2);
    assert_false(seen.alive);
    assert_false(seen.found);
    assert_int_equal(seen.shown, 1);
    assert_int_equal(seen.closed, 1);
    io_fini();
    loop_fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_is_being_closed_is_left_alone_by_all),
    };
    return cmocka_run_group_tests_name("node-close", tests, NULL, NULL);
}
