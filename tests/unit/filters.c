/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filters above images that others use too: sizes, drains, requests that exclude each other, and what is held when they close.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/filter.h"
#include "block/throttle-group.h"
#include "tests/unit/co-test.h"
#include "tests/unit/tree-rows.h"

static const struct driver *const drivers[] = { &driver_file,    &driver_raw,     &driver_qcow2,        &driver_throttle,
                                                &driver_blkdebug, &driver_null_co, &driver_copy_on_read, NULL };

static void co_make(const char *path)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:i}", "size", 4 << 20);

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

#define CHAIN(name) \
    "{\"driver\": \"throttle\", \"throttle-group\": \"g\", \"node-name\": \"" name "\", \"file\": {\"driver\": \"qcow2\", " \
    "\"node-name\": \"q\", \"discard\": \"unmap\", \"file\": {\"driver\": \"blkdebug\", \"node-name\": \"b\", " \
    "\"image\": {\"driver\": \"file\", \"filename\": \"/a\"}}}}"

static void group(const char *limits)
{
    struct error err = ERROR_INIT;
    json_t *props = json_pack("{s:o}", "limits", json_loads(limits, 0, NULL));

    assert_int_equal(throttle_group_new("g", props, &err), 0);
    json_decref(props);
}

static uint8_t buf[1 << 20];

static void co_test_content(void *arg)
{
    struct error err = ERROR_INIT;
    struct node *t, *q;

    co_make("/a");
    group("{}");
    t = co_tree_open(CHAIN("t"));
    q = node_find("q");
    memset(buf, 7, sizeof(buf));
    assert_int_equal(co_node_write_buf(t, 65536, buf, sizeof(buf)), 0);
    assert_int_equal(co_node_zero(t, 65536, 65536, 0), 0);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(co_node_read_buf(q, 131072, buf, 65536), 0);
    assert_int_equal(buf[0], 7);
    assert_int_equal(buf[65535], 7);
    assert_int_equal(co_node_read_buf(t, 65536, buf, 65536), 0);
    assert_true(bytes_are_zero(buf, 65536));
    assert_int_equal(t->size, 4 << 20);
    assert_int_equal(co_node_truncate(q, 8 << 20, &err), 0); /* below the filter */
    assert_int_equal(t->size, 8 << 20);
    assert_int_equal(co_node_truncate(t, 16 << 20, &err), 0); /* through it */
    assert_int_equal(q->size, 16 << 20);
    assert_int_equal(co_node_write_buf(t, (16 << 20) - 512, buf, 512), 0);
    assert_int_equal(co_node_flush(t), 0);
    co_node_unref(t);
    assert_null(node_find("q"));
    assert_null(node_find("b"));
}

/* A guest's discards go all the way down: clusters are given back, and the host's file has holes. */
static void co_test_discard(void *arg)
{
    uint64_t before, after;
    struct node *t;

    co_make("/a");
    group("{}");
    t = co_tree_open(CHAIN("t"));
    t->discard_unmap = true;
    memset(buf, 7, sizeof(buf));
    assert_int_equal(co_node_write_buf(t, 0, buf, sizeof(buf)), 0);
    assert_int_equal(co_node_flush(t), 0);
    assert_int_equal(co_io_allocated(node_host_file(t), &before), 0);
    assert_int_equal(co_node_discard(t, 0, sizeof(buf)), 0);
    assert_int_equal(co_node_flush(t), 0);
    co_sleep_ns(NS_PER_S);
    assert_int_equal(co_io_allocated(node_host_file(t), &after), 0);
    assert_true(after + sizeof(buf) <= before);
    assert_int_equal(co_node_read_buf(t, 0, buf, sizeof(buf)), 0);
    assert_true(bytes_are_zero(buf, sizeof(buf)));
    co_node_unref(t);
}

/* What a format sees of a node that is no host file. */
static void co_test_stand_in(void *arg)
{
    struct node *node = co_tree_open("{\"driver\": \"blkdebug\", \"discard\": \"unmap\", \"image\": {\"driver\": \"file\", "
                                "\"filename\": \"/plain\"}}");
    struct io_file *file = node_as_file(node);
    uint64_t size, bytes;

    assert_ptr_equal(node_as_file(node), file);
    memset(buf, 5, 65536);
    assert_int_equal(co_io_write(file, 0, buf, 65536), 0);
    assert_int_equal(co_io_zero(file, 4096, 4096, true), 0);
    assert_int_equal(co_io_zero(file, 8192, 4096, false), 0);
    assert_int_equal(co_io_discard(file, 16384, 4096), 0);
    assert_int_equal(co_io_truncate(file, 131072), 0);
    assert_int_equal(co_io_flush(file), 0);
    assert_int_equal(co_io_size(file, &size), 0);
    assert_int_equal(size, 131072);
    assert_int_equal(co_io_allocated(file, &bytes), 0);
    assert_in_range(bytes, 4096, 65536);
    assert_int_equal(co_io_read(file, 0, buf, 131072), 0);
    for (size_t i = 0; i < 131072; i += 512) {
        bool zero = (i >= 4096 && i < 12288) || (i >= 16384 && i < 20480) || i >= 65536;

        assert_int_equal(buf[i], zero ? 0 : 5);
    }
    co_node_unref(node);
    node = co_tree_open("{\"driver\": \"null-co\", \"size\": 65536}"); /* and of one below which there is none */
    file = node_as_file(node);
    assert_int_equal(co_io_truncate(file, 131072), -ENOTSUP);
    assert_int_equal(co_io_allocated(file, &bytes), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(co_io_discard(file, 0, 4096), 0);
    co_node_unref(node);
}

static unsigned ended;

static CO_ENTRY void co_writer(void *arg)
{
    assert_int_equal(co_node_write_buf(arg, 0, buf, 65536), 0);
    ended++;
}

/* A drain of the image waits for a request that the filter above it holds up; so the filter lets it go. */
static void co_test_drain(void *arg)
{
    json_t *none = json_pack("{s:i}", "bps-write", 0);
    struct node_drain *drain;
    struct node *t;
    uint64_t before;

    co_make("/a");
    group("{\"bps-write\": 1}");
    t = co_tree_open(CHAIN("t"));
    ended = 0;
    co_start(co_writer, t);
    co_start(co_writer, t);
    co_sleep_ns(NS_PER_S);
    assert_int_equal(ended, 1);
    before = loop_now();
    drain = co_node_drain_begin(node_find("q"));
    assert_int_equal(ended, 2);
    co_start(co_writer, t); /* not while it lasts */
    co_sleep_ns(NS_PER_S);
    assert_int_equal(ended, 2);
    assert_in_range(loop_now() - before, NS_PER_S, 2 * NS_PER_S);
    co_node_drain_end(drain);
    throttle_group_set("g", none, NULL);
    while (ended < 3) {
        co_sleep_ns(NS_PER_MS);
    }
    json_decref(none);
    co_node_unref(t);
}

static int co_hold_up(struct node *node, uint64_t offset, uint64_t len, void *arg)
{
    co_sleep_ns(NS_PER_S);
    assert_int_equal(ended, 0);
    return 0;
}

/* A job on the image excludes what comes through the filter. */
static void co_test_exclusion(void *arg)
{
    struct node *t;

    co_make("/a");
    group("{}");
    t = co_tree_open(CHAIN("t"));
    ended = 0;
    co_start_later(co_writer, t);
    assert_int_equal(co_node_populate(node_find("q"), 0, 65536, co_hold_up, NULL), 0);
    while (!ended) {
        co_sleep_ns(NS_PER_MS);
    }
    co_node_unref(t);
}

static void co_test_null(void *arg)
{
    struct node *node = co_tree_open("{\"driver\": \"null-co\", \"size\": 1024}");

    memset(buf, 0xab, 512);
    assert_int_equal(co_node_read_buf(node, 0, buf, 512), 0);
    assert_int_equal(buf[0], 0xab);
    assert_int_equal(buf[511], 0xab);
    assert_int_equal(co_node_read_buf(node, 1024, buf, 512), -EIO);
    co_node_unref(node);
    node = co_tree_open("{\"driver\": \"null-co\", \"read-zeroes\": true}");
    assert_int_equal(co_node_read_buf(node, 0, buf, 512), 0);
    assert_true(bytes_are_zero(buf, 512));
    co_node_unref(node);
}

static void run(void (*co_test)(void *arg))
{
    node_set_drivers(drivers);
    io_sim_create("/plain", 65536);
    loop_run_co(co_test, NULL);
    throttle_groups_end();
    assert_true(TAILQ_EMPTY(&all_nodes));
}

TEST(content_and_sizes_are_the_childs, co_test_content)
TEST(discards_reach_the_host, co_test_discard)
TEST(a_node_stands_in_for_a_file, co_test_stand_in)
TEST(a_drain_below_a_filter_does_not_wait_for_its_limits, co_test_drain)
TEST(jobs_below_a_filter_exclude_what_comes_through_it, co_test_exclusion)
TEST(null_reads_zeroes_if_asked_to, co_test_null)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_and_sizes_are_the_childs),
        cmocka_unit_test(discards_reach_the_host),
        cmocka_unit_test(a_node_stands_in_for_a_file),
        cmocka_unit_test(a_drain_below_a_filter_does_not_wait_for_its_limits),
        cmocka_unit_test(jobs_below_a_filter_exclude_what_comes_through_it),
        cmocka_unit_test(null_reads_zeroes_if_asked_to),
    };
    return cmocka_run_group_tests_name("filters", tests, rig_setup, rig_teardown);
}
