/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The choke points of a node (block/node.c): what is judged when a request is let in and not before, zeroes that are noticed,
 * flushes that belong to writes, what lies below, and whom a drain concerns.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/chain-map.h"
#include "block/filter.h"
#include "block/throttle-group.h"
#include "core/trace.h"
#include "tests/unit/co-test.h"
#include "tests/unit/tree-rows.h"

#define KIB 1024u

static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_throttle, &driver_blkdebug,
                                                &driver_null_co, NULL };
static uint8_t buf[8 << 20];

static void group(const char *name, const char *text)
{
    struct error err = ERROR_INIT;
    json_t *props = tree_of(text);

    assert_int_equal(throttle_group_new(name, props, &err), 0);
    json_decref(props);
}

#define RAW "{'driver':'raw','node-name':'r','file':{'driver':'file','filename':'/f'}}"

/* A raw image of 1 MiB, all of it 0x55. */
static struct node *co_begin(const char *text)
{
    io_sim_reset();
    io_sim_create("/f", 1 << 20);
    memset(buf, 0x55, 1 << 20);
    assert_int_equal(io_sim_write("/f", 0, buf, 1 << 20), 0);
    return co_tree_open(text);
}

static struct {
    unsigned writes, zeroes, punches, flushes;
} seen;

static void look(void *arg, const struct io_sim_event *event)
{
    if (!event->completed) {
        seen.writes += event->op == IO_SIM_WRITE;
        seen.zeroes += event->op == IO_SIM_ZERO;
        seen.punches += event->op == IO_SIM_PUNCH;
        seen.flushes += event->op == IO_SIM_FLUSH;
    }
}

static void watch(void)
{
    memset(&seen, 0, sizeof(seen));
    io_sim_on_op(look, NULL);
}

/* --- Who waits is judged afterwards ------------------------------------------------------------------------- */

enum what { READ, WRITE, ZERO, DISCARD, MAP, MAP_OWN, FLUSH };

struct waiter {
    struct node *node;
    enum what what;
    int ret;
    bool ended;
    bool damage; /* what happens meanwhile; else it becomes read-only */
};

static CO_ENTRY void co_request(void *arg)
{
    static uint8_t own[64 * KIB];
    struct waiter *w = arg;
    uint64_t at = 512 * KIB;
    struct chain_extent ext;
    struct extent own_ext;

    switch (w->what) {
    case READ:
        w->ret = co_node_read_buf(w->node, at, own, sizeof(own));
        break;
    case WRITE:
        w->ret = co_node_write_buf(w->node, at, own, sizeof(own));
        break;
    case ZERO:
        w->ret = co_node_zero(w->node, at, sizeof(own), 0);
        break;
    case DISCARD:
        w->ret = co_node_discard(w->node, at, sizeof(own));
        break;
    case MAP:
        w->ret = co_node_map(w->node, at, sizeof(own), &ext);
        break;
    case MAP_OWN:
        w->ret = co_node_map_own(w->node, at, sizeof(own), &own_ext);
        break;
    default:
        w->ret = co_node_flush(w->node);
    }
    w->ended = true;
}

/* Requests of all kinds come during a drain in which the image changes. */
static void co_wait_for_drain(struct node *node, void (*change)(struct node *node), const int *wanted)
{
    struct waiter waiters[FLUSH + 1];
    struct node_drain *drain = co_node_drain_begin(node);

    for (unsigned i = 0; i <= FLUSH; i++) {
        waiters[i] = (struct waiter){ .node = node, .what = i };
        co_start(co_request, waiters + i);
        assert_false(waiters[i].ended);
    }
    change(node);
    co_node_drain_end(drain);
    for (unsigned i = 0; i <= FLUSH; i++) {
        while (!waiters[i].ended) {
            co_sleep_ns(NS_PER_MS);
        }
        assert_int_equal(waiters[i].ret, wanted[i]);
    }
}

static void shrink(struct node *node)
{
    node->size = 512 * KIB + NODE_SECTOR;
}

static void forbid(struct node *node)
{
    node->read_only = true;
}

static void CO_ENTRY co_test_waiting(void *arg)
{
    static const int shrunk[] = { -EIO, -EIO, -EIO, -EIO, -EIO, -EIO, 0 }, forbidden[] = { 0, -EPERM, -EPERM, -EPERM, 0, 0, 0 };
    struct node *node = co_begin(RAW);

    co_wait_for_drain(node, shrink, shrunk);
    node->size = 1 << 20;
    co_wait_for_drain(node, forbid, forbidden);
    co_node_unref(node);
}

static int co_damage(struct node *node, uint64_t offset, uint64_t len, void *arg)
{
    struct waiter *w = arg;

    co_start(co_request, w); /* it overlaps us, and waits */
    co_yield();
    assert_false(w->ended);
    node->corrupt = w->damage;
    node->read_only = !w->damage;
    return 0;
}

/* An image that is found to be damaged takes no more writes, nor does one that has become read-only, not even those that were on
 * their way. */
static void CO_ENTRY co_test_damage(void *arg)
{
    struct node *node = co_begin(RAW);

    for (unsigned i = 0; i < 6; i++) {
        struct waiter w = { .node = node, .what = WRITE + i % 3, .damage = i < 3 };

        node->corrupt = node->read_only = false;
        node->discard_unmap = true;
        assert_int_equal(co_node_populate(node, 512 * KIB, 64 * KIB, co_damage, &w), 0);
        while (!w.ended) {
            co_sleep_ns(NS_PER_MS);
        }
        assert_int_equal(w.ret, w.damage ? -EIO : -EPERM);
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), w.ret);
    }
    co_node_unref(node);
}

/* --- Ranges ------------------------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_ranges(void *arg)
{
    struct node *node = co_begin("{'driver':'raw','node-name':'r','discard':'unmap','file':{'driver':'file','filename':'/f'}}");
    struct chain_extent ext;

    watch();
    assert_int_equal(co_node_write_buf(node, 1 << 20, buf, 0), 0);
    assert_int_equal(co_node_zero(node, 0, 0, 0), 0);
    assert_int_equal(co_node_discard(node, 512, 0), 0);
    assert_int_equal(co_node_read_buf(node, 1 << 20, buf, 0), 0);
    assert_int_equal(seen.writes + seen.zeroes + seen.punches, 0);
    assert_int_equal(co_node_write_buf(node, (1 << 20) - 512, buf, 1024), -EIO);
    assert_int_equal(co_node_write_buf(node, (1 << 20) + 512, buf, 0), -EIO);
    assert_int_equal(co_node_read_buf(node, UINT64_MAX - 511, buf, 512), -EIO);
    assert_int_equal(co_node_map(node, 0, 0, &ext), -EIO);
    assert_int_equal(co_node_map(node, 1 << 20, 512, &ext), -EIO);
    assert_int_equal(co_node_map(node, (1 << 20) - 512, 512, &ext), 0);
    io_sim_on_op(NULL, NULL);
    co_node_unref(node);
}

/* A request for more than one turn of the loop should take lets others have theirs. */
static void CO_ENTRY co_test_turns(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "64M");
    struct waiter w = { .what = READ };
    struct node *node;

    io_sim_reset();
    assert_int_equal(driver_qcow2.co_create("/q", options, &err), 0);
    json_decref(options);
    node = w.node = co_tree_open("{'driver':'qcow2','file':{'driver':'file','filename':'/q'}}");
    memset(buf, 1, sizeof(buf));
    co_node_read_buf(node, 0, buf, 512); /* its table is known now */
    co_start_later(co_request, &w);
    assert_int_equal(co_node_read_buf(node, 0, buf, sizeof(buf)), 0);
    assert_true(w.ended);
    assert_true(bytes_are_zero(buf, sizeof(buf)));
    co_node_unref(node);
}

/* --- Zeroes that are noticed ---------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_zeroes(void *arg)
{
    struct node *node = co_begin(RAW);
    struct iovec two[] = { { buf, 4 * KIB }, { buf + 64 * KIB, 4 * KIB } };

    memset(buf, 0, 128 * KIB);
    watch();
    assert_int_equal(co_node_write_buf(node, 0, buf, 64 * KIB), 0); /* nobody asked for it */
    assert_int_equal(seen.writes, 1);
    node->detect_zeroes = 1;
    watch();
    assert_int_equal(co_node_write_buf(node, 64 * KIB, buf, 64 * KIB), 0);
    assert_int_equal(co_node_write(node, 128 * KIB, two, 2), 0);
    assert_int_equal(seen.writes + seen.punches, 0);
    assert_int_equal(seen.zeroes, 2);
    node->detect_zeroes = 2;
    watch();
    assert_int_equal(co_node_write_buf(node, 192 * KIB, buf, 64 * KIB), 0);
    assert_int_equal(seen.writes, 0);
    assert_int_equal(seen.punches, 1);
    buf[64 * KIB + 4095] = 1; /* the last byte of all */
    watch();
    assert_int_equal(co_node_write(node, 256 * KIB, two, 2), 0);
    assert_int_equal(seen.writes, 1);
    assert_int_equal(seen.zeroes + seen.punches, 0);
    io_sim_on_op(NULL, NULL);
    assert_int_equal(io_sim_read("/f", 0, buf, 1 << 20), 0);
    assert_true(bytes_are_zero(buf, 136 * KIB));
    assert_int_equal(buf[136 * KIB], 0x55);
    assert_true(bytes_are_zero(buf + 192 * KIB, 64 * KIB + 8191));
    assert_int_equal(buf[264 * KIB - 1], 1);
    co_node_unref(node);
}

/* --- Flushes ------------------------------------------------------------------------------------------------------------ */

static void CO_ENTRY co_test_writethrough(void *arg)
{
    struct node *node = co_begin(RAW);
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_FLUSH, .error = ENOSPC, .times = 1 };

    watch();
    assert_int_equal(co_node_write_buf(node, 0, buf, 512), 0);
    assert_int_equal(seen.flushes, 0);
    node->writethrough = true;
    assert_int_equal(co_node_write_buf(node, 0, buf, 512), 0);
    assert_int_equal(co_node_zero(node, 0, 4096, 0), 0);
    assert_int_equal(seen.flushes, 2);
    node->no_flush = true; /* whoever said so does not get any */
    assert_int_equal(co_node_write_buf(node, 0, buf, 512), 0);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_node_flush_nested(node), 0);
    assert_int_equal(seen.flushes, 2);
    node->no_flush = false;
    io_sim_fault(&fault); /* a write that is not durable has not gone well */
    assert_int_equal(co_node_write_buf(node, 0, buf, 512), -ENOSPC);
    io_sim_on_op(NULL, NULL);
    io_sim_faults_clear();
    node->read_only = true;
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_node_flush_nested(node), 0);
    co_node_unref(node);
}

/* --- What lies below ------------------------------------------------------------------------------------------------------ */

/* /low is 512 KiB of 0x11; /top, 1 MiB, has 0x22 at each second cluster of 64 KiB. */
static void CO_ENTRY co_test_below(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "512k");
    struct node *node;
    struct iovec iov = { buf, 1 << 20 };

    io_sim_reset();
    assert_int_equal(driver_qcow2.co_create("/low", options, &err), 0);
    json_object_set_new(options, "size", json_string("1M"));
    json_object_set_new(options, "backing_file", json_string("/low"));
    json_object_set_new(options, "backing_fmt", json_string("qcow2"));
    assert_int_equal(driver_qcow2.co_create("/top", options, &err), 0);
    json_decref(options);
    node = co_tree_open("{'driver':'qcow2','file':{'driver':'file','filename':'/low'}}");
    memset(buf, 0x11, 512 * KIB);
    assert_int_equal(co_node_write_buf(node, 0, buf, 512 * KIB), 0);
    co_node_unref(node);
    node = co_tree_open("{'driver':'qcow2','file':{'driver':'file','filename':'/top'}}");
    memset(buf, 0x22, 64 * KIB);
    for (uint64_t at = 0; at < 1 << 20; at += 128 * KIB) {
        assert_int_equal(co_node_write_buf(node, at, buf, 64 * KIB), 0);
    }
    memset(buf, 0x77, 1 << 20);
    assert_int_equal(co_node_read_below(node, 0, &iov, 1), 0);
    for (size_t i = 0; i < 1 << 20; i++) {
        assert_int_equal(buf[i], i < 512 * KIB ? 0x11 : 0);
    }
    memset(buf, 0x77, 64 * KIB);
    iov.iov_len = 64 * KIB;
    assert_int_equal(co_node_read_below(node, 512 * KIB, &iov, 1), 0);
    assert_true(bytes_are_zero(buf, 64 * KIB));
    co_node_unref(node);
    node = co_tree_open("{'driver':'qcow2','backing':null,'file':{'driver':'file','filename':'/top'}}");
    memset(buf, 0x77, 64 * KIB);
    assert_int_equal(co_node_read_below(node, 0, &iov, 1), 0); /* nothing at all */
    assert_true(bytes_are_zero(buf, 64 * KIB));
    co_node_unref(node);
}

/* Of a read over many pieces one fails: so does the read, when the others have ended. */
static void CO_ENTRY co_test_pieces(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:i}", "size", "4M", "cluster_size", 4096);
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_READ, .error = ENXIO, .times = 1 };
    struct node *node;

    io_sim_reset();
    assert_int_equal(driver_qcow2.co_create("/q", options, &err), 0);
    json_decref(options);
    node = co_tree_open("{'driver':'qcow2','file':{'driver':'file','filename':'/q'}}");
    for (unsigned i = 0; i < 200; i++) {
        memset(buf, i + 1, 4096);
        assert_int_equal(co_node_write_buf(node, i * 8192, buf, 4096), 0);
    }
    assert_int_equal(co_node_read_buf(node, 0, buf, 200 * 8192), 0);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(buf[i * 8192], (uint8_t)(i + 1));
        assert_int_equal(buf[i * 8192 + 4096], 0);
    }
    for (fault.after = 0; fault.after < 200; fault.after += 33) {
        io_sim_fault(&fault);
        assert_int_equal(co_node_read_buf(node, 0, buf, 200 * 8192), -ENXIO);
        io_sim_faults_clear();
    }
    assert_int_equal(co_node_read_buf(node, 0, buf, 200 * 8192), 0);
    co_node_unref(node);
}

/* --- Sizes ------------------------------------------------------------------------------------------------------------------ */

static void CO_ENTRY co_test_sizes(void *arg)
{
    static const struct row rows[] = {
        { "{'driver':'null-co','size':65536}", "Image format driver does not support resize" },
        { "{'driver':'raw','file':{'driver':'null-co','size':65536}}", "Image format driver does not support resize" },
        { "{'driver':'throttle','throttle-group':'g','file':{'driver':'null-co','size':65536}}",
          "Image format driver does not support resize" },
        { "{'driver':'raw','read-only':true,'file':{'driver':'file','filename':'/f'}}", "Image is read-only" },
        { "{'driver':'raw','offset':512,'size':65536,'file':{'driver':'file','filename':'/f'}}",
          "Cannot resize fixed-size raw disks" },
        { RAW, NULL },
    };
    struct error err = ERROR_INIT;
    struct node *node;

    group("g", "{'limits':{}}");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        node = co_begin(rows[i].tree);
        uint64_t before = node->size;

        assert_int_equal(co_node_truncate(node, 2 << 20, &err) < 0, rows[i].text != NULL);
        judge(rows + i, &err);
        assert_int_equal(node->size, rows[i].text ? before : 2 << 20);
        co_node_unref(node);
    }
    io_sim_create("/g", 3ull << 30);
    node = co_tree_open("{'driver':'raw','offset':2147483648,'file':{'driver':'file','filename':'/g'}}");
    assert_int_equal(co_node_truncate(node, NODE_SIZE_MAX, &err), -EINVAL);
    assert_string_equal(err.text, "Disk size too large for the chosen offset");
    error_clear(&err);
    assert_int_equal(co_node_truncate(node, NODE_SIZE_MAX + 512, &err), -EFBIG);
    error_clear(&err);
    assert_int_equal(node->size, 1ull << 30);
    co_node_unref(node);
}

/* --- Drains ------------------------------------------------------------------------------------------------------------------- */

static CO_ENTRY void co_slow_writer(void *arg)
{
    struct waiter *w = arg;
    static uint8_t own[4096];

    w->ret = co_node_write_buf(w->node, 0, own, sizeof(own));
    w->ended = true;
}

/* A drain lets go of the limits of those above, and of no others. */
static void CO_ENTRY co_test_drain(void *arg)
{
    struct waiter above = { 0 }, beside = { 0 };
    struct node_drain *drain;
    struct node *other;

    group("g", "{'limits':{'bps-write':1}}");
    group("h", "{'limits':{'bps-write':1}}");
    above.node = co_begin("{'driver':'throttle','throttle-group':'g','file':{'driver':'raw','node-name':'r','file':"
                          "{'driver':'file','filename':'/f'}}}");
    other = beside.node = co_tree_open("{'driver':'throttle','throttle-group':'h','file':{'driver':'null-co'}}");
    assert_int_equal(co_node_write_buf(above.node, 0, buf, 4096), 0); /* on credit */
    assert_int_equal(co_node_write_buf(other, 0, buf, 4096), 0);
    co_start(co_slow_writer, &above);
    co_start(co_slow_writer, &beside);
    drain = co_node_drain_begin(node_find("r"));
    assert_true(above.ended);
    assert_false(beside.ended);
    co_node_drain_end(drain);
    drain = co_node_drain_begin(other);
    assert_true(beside.ended);
    co_node_drain_end(drain);
    co_node_unref(above.node);
    co_node_unref(other);
}

static bool reading;

/* Never at rest unless it is held up. */
static CO_ENTRY void co_reader(void *arg)
{
    static uint8_t own[4096];
    struct waiter *w = arg;

    while (reading && w->ret == 0) {
        w->ret = co_node_read_buf(w->node, 0, own, sizeof(own));
    }
    w->ended = true;
}

static struct drainer {
    struct node *node, *above;
    bool ended;
} drainer;

static CO_ENTRY void co_drainer(void *arg)
{
    struct node_drain *drain = co_node_drain_begin(drainer.node);

    assert_int_equal(drainer.node->in_flight, 0);
    assert_int_equal(drainer.above->in_flight, 0);
    co_sleep_ns(NS_PER_MS);
    assert_int_equal(drainer.above->in_flight, 0);
    co_node_drain_end(drain);
    drainer.ended = true;
}

/* A snapshot puts an overlay on a node while a drain of that waits for a request. */
static void CO_ENTRY co_test_newcomer(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "1M");
    struct waiter first = { .what = READ }, second = { 0 };

    drainer = (struct drainer){ .node = first.node = co_begin(RAW) };
    assert_int_equal(driver_qcow2.co_create("/over", options, &err), 0);
    json_decref(options);
    drainer.above = second.node = co_tree_open("{'driver':'qcow2','backing':null,'file':{'driver':'file','filename':'/over'}}");
    co_start(co_request, &first);
    co_start(co_drainer, NULL);
    assert_false(first.ended || drainer.ended);
    co_node_set_backing_edge(second.node, first.node);
    reading = true;
    co_start(co_reader, &second);
    while (!drainer.ended) {
        co_sleep_ns(NS_PER_MS);
    }
    assert_false(second.ended);
    reading = false;
    while (!second.ended) {
        co_sleep_ns(NS_PER_MS);
    }
    assert_int_equal(first.ret + second.ret, 0);
    co_node_unref(second.node);
    co_node_unref(first.node);
}

/* --- Who comes as an image becomes read-only --------------------------------------------------------------------------------- */

static CO_ENTRY void co_becomes_read_only(void *arg)
{
    struct waiter *w = arg;

    w->ret = co_node_set_writable(w->node, false, NULL);
    w->ended = true;
}

/* One whose tables are being written, as a commit or a stream of it ends; others use it by its name. */
static void CO_ENTRY co_test_leaving(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "1M");
    struct waiter before = { .what = FLUSH }, leaving = { 0 }, flush = { .what = FLUSH }, write = { .what = WRITE };

    io_sim_reset();
    assert_int_equal(driver_qcow2.co_create("/image", options, &err), 0);
    json_decref(options);
    before.node = leaving.node = flush.node = write.node =
        co_tree_open("{'driver':'qcow2','file':{'driver':'file','filename':'/image'}}");
    assert_int_equal(co_node_write_buf(leaving.node, 0, buf, 64 * KIB), 0);
    co_start(co_request, &before);
    co_start(co_becomes_read_only, &leaving);
    assert_false(before.ended);
    assert_false(leaving.ended);
    co_start(co_request, &flush);
    co_start(co_request, &write);
    while (!leaving.ended || !flush.ended || !write.ended) {
        co_sleep_ns(NS_PER_MS);
    }
    assert_true(before.ended);
    assert_int_equal(before.ret + leaving.ret, 0);
    assert_int_equal(flush.ret, 0);
    assert_int_equal(write.ret, -EPERM);
    co_node_unref(leaving.node);
}

/* --- Tests -------------------------------------------------------------------------------------------------------------------- */

static void run(void (*co_test)(void *arg))
{
    node_set_drivers(drivers);
    loop_run_co(co_test, NULL);
    throttle_groups_end();
    assert_true(TAILQ_EMPTY(&all_nodes));
}

TEST(a_request_that_waited_is_judged_by_what_is_then, co_test_waiting)
TEST(a_damaged_image_takes_no_write_that_was_on_its_way, co_test_damage)
TEST(nothing_is_done_for_no_bytes_and_refused_beyond_the_end, co_test_ranges)
TEST(a_large_read_of_zeroes_lets_others_have_their_turn, co_test_turns)
TEST(zeroes_are_noticed_when_asked_for, co_test_zeroes)
TEST(writethrough_means_a_flush_with_each_write, co_test_writethrough)
TEST(below_an_image_lies_its_backing_file_and_then_zeroes, co_test_below)
TEST(a_read_of_many_pieces_fails_when_one_does, co_test_pieces)
TEST(what_cannot_be_resized_says_so, co_test_sizes)
TEST(a_drain_lets_go_of_the_limits_above_only, co_test_drain)
TEST(a_drain_stops_who_comes_on_top_while_it_waits, co_test_newcomer)
TEST(who_comes_while_an_image_becomes_read_only_waits, co_test_leaving)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_waited_is_judged_by_what_is_then),
        cmocka_unit_test(a_damaged_image_takes_no_write_that_was_on_its_way),
        cmocka_unit_test(nothing_is_done_for_no_bytes_and_refused_beyond_the_end),
        cmocka_unit_test(a_large_read_of_zeroes_lets_others_have_their_turn),
        cmocka_unit_test(zeroes_are_noticed_when_asked_for),
        cmocka_unit_test(writethrough_means_a_flush_with_each_write),
        cmocka_unit_test(below_an_image_lies_its_backing_file_and_then_zeroes),
        cmocka_unit_test(a_read_of_many_pieces_fails_when_one_does),
        cmocka_unit_test(what_cannot_be_resized_says_so),
        cmocka_unit_test(a_drain_lets_go_of_the_limits_above_only),
        cmocka_unit_test(a_drain_stops_who_comes_on_top_while_it_waits),
        cmocka_unit_test(who_comes_while_an_image_becomes_read_only_waits),
    };
    return cmocka_run_group_tests_name("node-requests", tests, rig_setup, rig_teardown);
}
