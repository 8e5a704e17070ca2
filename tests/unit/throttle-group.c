/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups: who goes when several wait, on the virtual clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "block/throttle-group.h"
#include "core/loop.h"
#include "tests/unit/co-test.h"

#define MEMBERS 3

struct bench {
    struct throttle_member members[MEMBERS];
    unsigned done[MEMBERS];
    char order[64];
    unsigned n;
};
static struct bench bench;

struct asker {
    unsigned member, times;
    bool write;
};

static CO_ENTRY void co_ask(void *arg)
{
    struct asker *a = arg;

    for (unsigned i = 0; i < a->times; i++) {
        co_throttle(&bench.members[a->member], a->write, 512);
        bench.done[a->member]++;
        bench.order[bench.n++ % sizeof(bench.order)] = 'a' + a->member;
    }
}

static void group(const char *id, const char *props)
{
    struct error err = ERROR_INIT;
    json_t *tree = json_loads(props, 0, NULL);

    assert_non_null(tree);
    assert_int_equal(throttle_group_new(id, tree, &err), 0);
    json_decref(tree);
}

static void join_all(const char *id)
{
    for (unsigned i = 0; i < MEMBERS; i++) {
        assert_int_equal(throttle_member_join(&bench.members[i], id, false, NULL), 0);
    }
}

static void leave_all(void)
{
    for (unsigned i = 0; i < MEMBERS; i++) {
        throttle_member_leave(&bench.members[i]);
    }
}

/* One with four requests at a time and two with one each: each has a third. */
static void co_fair(void *arg)
{
    struct asker many = { 0, 1000, false }, one = { 1, 1000, false }, other = { 2, 1000, false };

    group("g", "{\"limits\": {\"iops-total\": 100}}");
    join_all("g");
    for (int i = 0; i < 4; i++) {
        co_start(co_ask, &many);
    }
    co_start(co_ask, &one);
    co_start(co_ask, &other);
    co_sleep_ns(9 * NS_PER_S);
    for (unsigned i = 0; i < MEMBERS; i++) {
        assert_in_range(bench.done[i], 299, 311);
    }
    assert_in_range(bench.done[0] + bench.done[1] + bench.done[2], 910, 911);
    for (unsigned i = 0; i < MEMBERS; i++) { /* let them end */
        throttle_member_drain(&bench.members[i], true);
    }
    co_yield();
    co_yield();
    assert_int_equal(bench.done[0], 4000);
    leave_all();
}

static void co_drain(void *arg)
{
    struct asker slow = { 0, 14, true }, other = { 1, 1, true };

    group("g", "{\"x-iops-write\": 1}");
    join_all("g");
    co_start(co_ask, &slow);
    co_start(co_ask, &other);
    assert_int_equal(bench.done[0], 1);
    throttle_member_drain(&bench.members[0], true);
    co_yield();
    co_yield();
    assert_int_equal(bench.done[0], 14); /* what waited and what came */
    assert_int_equal(bench.done[1], 0);
    throttle_member_drain(&bench.members[0], false);
    co_sleep_ns(3 * NS_PER_S);
    assert_int_equal(bench.done[1], 1);
    leave_all();
}

/* A reader does not stand behind writers that wait. */
static void co_directions(void *arg)
{
    struct asker writer = { 0, 5, true }, reader = { 0, 5, false };

    group("g", "{\"limits\": {\"iops-write\": 1}}");
    join_all("g");
    co_start(co_ask, &writer);
    co_start(co_ask, &reader);
    assert_int_equal(bench.done[0], 1 + 5);
    co_sleep_ns(10 * NS_PER_S);
    assert_int_equal(bench.done[0], 5 + 5);
    leave_all();
}

static void co_new_limits(void *arg)
{
    struct asker a = { 0, 3, false };
    struct error err = ERROR_INIT;
    json_t *more = json_pack("{s:i}", "iops-total", 0);

    group("g", "{\"limits\": {\"iops-total\": 1}}");
    join_all("g");
    co_start(co_ask, &a);
    assert_int_equal(bench.done[0], 1);
    assert_int_equal(throttle_group_set("g", more, &err), 0);
    co_yield();
    assert_int_equal(bench.done[0], 3);
    json_decref(more);
    leave_all();
}

/* Somebody waits until all guests are done. */
static void co_all(void *arg)
{
    struct asker reader = { 0, 5, false }, writer = { 1, 5, true };

    group("g", "{\"limits\": {\"iops-total\": 1}}");
    join_all("g");
    co_start(co_ask, &reader);
    co_start(co_ask, &writer);
    throttle_drain_all(true);
    co_yield();
    co_yield();
    assert_int_equal(bench.done[0] + bench.done[1], 10); /* what waited and what came */
    throttle_drain_all(false);
    leave_all();
}

static void co_objects(void *arg)
{
    struct error err = ERROR_INIT;
    struct throttle_member m = { 0 };

    group("g", "{}");
    assert_int_equal(throttle_group_new("g", NULL, &err), -EEXIST);
    assert_string_equal(err.text, "attempt to add duplicate property 'g' to object (type 'container')");
    error_clear(&err);
    assert_int_equal(throttle_member_join(&m, "h", false, &err), -ENOENT);
    assert_string_equal(err.text, "Throttle group 'h' does not exist");
    error_clear(&err);
    assert_int_equal(throttle_member_join(&m, "g", false, &err), 0);
    assert_int_equal(throttle_group_del("g", &err), -EBUSY);
    assert_string_equal(err.text, "object 'g' is in use, can not be deleted");
    error_clear(&err);
    throttle_member_leave(&m);
    assert_int_equal(throttle_group_del("g", &err), 0);
    assert_int_equal(throttle_group_del("g", &err), -ENOENT);
    assert_int_equal(throttle_group_set("g", NULL, &err), -ENOENT);
    assert_null(throttle_group_get("g"));
    assert_int_equal(throttle_member_join(&m, "mine", true, &err), 0); /* lives as long as its members */
    assert_int_equal(throttle_group_del("mine", &err), -ENOENT);
    throttle_member_leave(&m);
    assert_null(throttle_group_get("mine"));
}

static void run(void (*co_test)(void *arg))
{
    bench = (struct bench){ 0 };
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    loop_run_co(co_test, NULL);
    throttle_groups_end();
    loop_fini();
}

TEST(members_take_turns, co_fair)
TEST(a_drained_member_is_let_through_and_the_others_are_not, co_drain)
TEST(reads_do_not_wait_for_writes, co_directions)
TEST(other_limits_hold_at_once, co_new_limits)
TEST(nobody_is_held_up_while_all_are_drained, co_all)
TEST(a_group_stays_while_it_has_members, co_objects)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_take_turns),
        cmocka_unit_test(a_drained_member_is_let_through_and_the_others_are_not),
        cmocka_unit_test(reads_do_not_wait_for_writes),
        cmocka_unit_test(other_limits_hold_at_once),
        cmocka_unit_test(nobody_is_held_up_while_all_are_drained),
        cmocka_unit_test(a_group_stays_while_it_has_members),
    };
    return cmocka_run_group_tests_name("throttle-group", tests, NULL, NULL);
}
