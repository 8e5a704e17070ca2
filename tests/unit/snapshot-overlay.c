/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots that meet something odd: nodes that are no disks, overlays that cannot be one, groups of which one fails late,
 * and other people who change the graph while a snapshot is being made. What fails leaves the graph as it was, and no file.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/filter.h"
#include "block/snapshot.h"

static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_null_co, NULL };

static struct node *co_open(const char *words)
{
    struct error err = ERROR_INIT;
    json_t *options = json_loads(words, 0, NULL);
    const char *file = json_string_value(json_object_get(options, "filename"));
    AUTOFREE char *path = mem_strdup(file);

    json_object_del(options, "filename");
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    if (!node) {
        print_message("%s\n", err.text);
    }
    assert_non_null(node);
    return node;
}

/* As blockdev-add does: nobody uses it yet. */
static struct node *co_open_idle(const char *words)
{
    json_t *options = json_loads(words, 0, NULL);
    struct node *node = co_node_open_idle(NULL, options, NULL);

    json_decref(options);
    assert_non_null(node);
    return node;
}

/* A disk of 1 MiB, "d0" or so, on an image of that name and a node that is called n0. */
static struct disk *co_disk(char n)
{
    AUTOFREE char *path = mem_printf("/d%c", n), *id = mem_printf("d%c", n);
    AUTOFREE char *words = mem_printf("{\"driver\": \"qcow2\", \"filename\": \"/d%c\", \"node-name\": \"n%c\"}", n, n);

    co_rig_create(path, "size=1M,cluster_size=4096");
    struct disk *disk = disk_new(id, co_open(words));

    disk->rerror = disk->werror = DISK_REPORT;
    return disk;
}

static void co_expect(const struct snapshot_args *args, size_t n, const char *text)
{
    struct error err = ERROR_INIT;
    int ret = co_snapshot_group(args, n, &err);

    if (text) {
        assert_true(ret < 0);
        assert_string_equal(err.text, text);
    } else {
        assert_int_equal(ret, 0);
    }
    error_clear(&err);
}

static void co_still_writable(struct disk *disk)
{
    uint8_t data[512] = { 1 };
    struct iovec iov = { data, sizeof(data) };

    assert_int_equal(co_disk_write(disk, 0, &iov, 1), 0);
    assert_null(disk->root->busy_reason);
}

/* --- Who may be an overlay ---------------------------------------------------------------------------------------- */

static CO_ENTRY void co_odd_overlays(void *arg)
{
    struct disk *disk = co_disk('0');
    struct node *with_backing = co_open("{\"driver\": \"qcow2\", \"filename\": \"/d0\", \"read-only\": true, \"node-name\": \"own\","
                                        " \"force-share\": true}");
    const struct snapshot_args raw = { .device = "d0", .file = "/raw", .format = "raw", .reuse = true };
    const struct snapshot_args nobody = { .node_name = "own", .snapshot_node_name = "over", .file = "/over" };
    const struct snapshot_args used = { .node = "d0", .overlay = "n0" };
    const struct snapshot_args twice = { .node = "d0", .overlay = "top" };

    io_sim_create("/raw", 1 << 20);
    co_expect(&raw, 1, "The overlay does not support backing images");
    co_expect(&nobody, 1, "Node 'own' is not in use by a disk");
    co_expect(&used, 1, "The overlay is already in use");
    co_rig_create("/top", "size=1M,backing_file=d0,backing_fmt=qcow2");
    struct node *top = co_open("{\"driver\": \"qcow2\", \"filename\": \"/top\", \"backing\": \"own\", \"node-name\": \"top\"}");

    co_expect(&twice, 1, "The overlay already has a backing image");
    assert_false(io_exists("/over"));
    co_still_writable(disk);
    co_node_unref(top);
    co_node_unref(with_backing);
    co_disk_free(disk);
}

static void what_cannot_be_an_overlay_is_refused(void **state)
{
    io_sim_reset();
    loop_run_co(co_odd_overlays, NULL);
    io_sim_reset();
}

/* blockdev-snapshot works on nodes; a disk need not be among them, nor a file. */
static CO_ENTRY void co_no_disk(void *arg)
{
    struct node *below = co_open("{\"driver\": \"null-co\", \"size\": 1048576, \"node-name\": \"below\"}");
    const struct snapshot_args args = { .node = "below", .overlay = "over" };

    co_rig_create("/over", "size=1M");
    struct node *over = co_open("{\"driver\": \"qcow2\", \"filename\": \"/over\", \"backing\": null, \"node-name\": \"over\"}");

    co_expect(&args, 1, NULL);
    assert_ptr_equal(over->backing, below);
    assert_true(below->read_only);
    co_node_unref(over);
    co_node_unref(below);
}

static void nodes_without_a_disk_take_an_overlay(void **state)
{
    io_sim_reset();
    loop_run_co(co_no_disk, NULL);
    io_sim_reset();
}

/* A disk whose image has no file of its own, and one that lies in a part of another: what was taken from the first is given back
 * when the second fails. */
static CO_ENTRY void co_odd_files(void *arg)
{
    struct node *null = co_open("{\"driver\": \"null-co\", \"size\": 1048576, \"node-name\": \"null\"}");

    co_rig_create("/d1", "size=1M");
    co_rig_create("/d2", "size=1M");
    struct node *raw = co_open("{\"driver\": \"qcow2\", \"node-name\": \"n1\", \"file\": {\"driver\": \"raw\", "
                               "\"file\": {\"driver\": \"file\", \"filename\": \"/d1\"}}}");
    struct disk *disk = disk_new("d2", co_open("{\"driver\": \"qcow2\", \"filename\": \"/d2\", \"node-name\": \"n2\"}"));
    const char *const over[] = { "{\"driver\": \"qcow2\", \"filename\": \"/o0\", \"backing\": null, \"node-name\": \"o0\"}",
                                 "{\"driver\": \"qcow2\", \"filename\": \"/o1\", \"backing\": null, \"node-name\": \"o1\"}" };
    const struct snapshot_args args[] = {
        { .node = "null", .overlay = "o0" },
        { .node = "n1", .overlay = "o1" },
        { .device = "d2", .file = "/o2" },
    };
    const struct io_sim_fault fails = { .path = "/d2", .ops = IO_SIM_OPEN };
    struct node *overlays[2];
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < 2; i++) {
        AUTOFREE char *path = mem_printf("/o%u", i);

        co_rig_create(path, "size=1M");
        overlays[i] = co_open(over[i]);
    }
    io_sim_fault(&fails); /* the third cannot become read-only */
    assert_true(co_snapshot_group(args, 3, &err) < 0);
    error_clear(&err);
    io_sim_faults_clear();
    assert_false(null->read_only || raw->read_only || disk->root->read_only);
    assert_false(null->busy_reason || raw->busy_reason || overlays[0]->busy_reason);
    assert_null(overlays[0]->backing);
    co_still_writable(disk);
    co_expect(args, 3, NULL);
    assert_ptr_equal(overlays[0]->backing, null);
    assert_ptr_equal(overlays[1]->backing, raw);
    assert_true(null->read_only && raw->read_only);
    co_disk_free(disk);
    for (unsigned i = 0; i < 2; i++) {
        co_node_unref(overlays[i]);
    }
    co_node_unref(raw);
    co_node_unref(null);
}

static void a_group_of_odd_images_is_all_or_none(void **state)
{
    io_sim_reset();
    loop_run_co(co_odd_files, NULL);
    io_sim_reset();
}

/* --- Groups ------------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t call; /* on the second disk's file, that fails */
    unsigned ops;
    bool struck, failed;
} group;

static CO_ENTRY void co_group(void *arg)
{
    const struct io_sim_fault fault = { .path = "/d1", .ops = group.ops, .after = group.call, .times = 1 };
    struct disk *a = co_disk('0'), *b = co_disk('1');
    struct node *root_a = a->root, *root_b = b->root;
    const struct snapshot_args args[] = {
        { .device = "d0", .file = "/over0" },
        { .device = "d1", .file = "/over1" },
    };
    struct error err = ERROR_INIT;

    co_still_writable(a);
    co_still_writable(b);
    io_sim_fault(&fault);
    int ret = co_snapshot_group(args, 2, &err);

    group.struck = io_sim_faults_struck() > 0;
    group.failed = ret < 0;
    io_sim_faults_clear();
    assert_int_equal(error_is_set(&err), ret < 0);
    error_clear(&err);
    if (ret < 0) {
        assert_ptr_equal(a->root, root_a);
        assert_ptr_equal(b->root, root_b);
        assert_false(io_exists("/over0") || io_exists("/over1"));
        assert_false(root_a->read_only || root_b->read_only);
        co_still_writable(a);
        co_still_writable(b);
    }
    if (ret < 0 && group.ops != IO_SIM_FLUSH) { /* what a flush has lost stays lost */
        co_expect(args, 2, NULL);
        ret = 0;
    }
    assert_true(ret < 0 || (a->root->backing == root_a && b->root->backing == root_b));
    co_disk_free(a);
    co_disk_free(b);
}

static void a_group_is_all_or_none_wherever_it_fails(void **state)
{
    static const unsigned kinds[] = { IO_SIM_FLUSH, IO_SIM_ANY & ~IO_SIM_FLUSH };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        unsigned failures = 0;

        group.ops = kinds[i];
        group.struck = true;
        for (group.call = 0; group.struck; group.call++) {
            io_sim_reset();
            loop_run_co(co_group, NULL);
            failures += group.failed;
        }
        assert_true(failures > 2);
    }
    io_sim_reset();
}

/* The first one finds nothing to stand on: the second is not even begun. */
static CO_ENTRY void co_first_is_wrong(void *arg)
{
    struct disk *disk = co_disk('0');
    const struct snapshot_args args[] = { { .device = "nope", .file = "/over0" }, { .device = "d0", .file = "/over1" } };

    co_expect(args, 2, "Cannot find device='nope' nor node-name=''");
    assert_false(io_exists("/over1"));
    co_still_writable(disk);
    co_disk_free(disk);
}

static void a_group_whose_first_is_wrong_begins_no_other(void **state)
{
    io_sim_reset();
    loop_run_co(co_first_is_wrong, NULL);
    io_sim_reset();
}

/* --- Meanwhile ---------------------------------------------------------------------------------------------------- */

struct meanwhile {
    struct snapshot_args args;
    struct co_group group;
    struct error err;
    int ret;
};

static CO_ENTRY void co_make(void *arg)
{
    struct meanwhile *m = arg;

    m->ret = co_snapshot_sync(&m->args, &m->err);
    co_group_done(&m->group, 0);
}

/* Begun, and held up by a host that takes its time. */
static void start(struct meanwhile *m)
{
    const struct io_sim_fault stall = { .kind = IO_SIM_FAULT_STALL, .path = "/d0", .ops = IO_SIM_FLUSH, .ns = NS_PER_S,
                                        .times = 1 };

    m->err = ERROR_INIT;
    io_sim_fault(&stall);
    co_group_init(&m->group);
    co_group_add(&m->group);
    co_start(co_make, m);
}

static void co_end(struct meanwhile *m, const char *text)
{
    co_group_wait(&m->group);
    assert_int_equal(m->ret, -EBUSY);
    assert_string_equal(m->err.text, text);
    error_clear(&m->err);
    io_sim_faults_clear();
}

static struct node *co_ready_overlay(void)
{
    co_rig_create("/over", "size=1M");
    return co_open("{\"driver\": \"qcow2\", \"filename\": \"/over\", \"backing\": null, \"node-name\": \"over\"}");
}

static CO_ENTRY void co_somebody_is_faster(void *arg)
{
    struct meanwhile m = { .args = { .node = "d0", .overlay = "over" } };
    struct disk *disk = co_disk('0'), *other;
    struct node *over = co_ready_overlay(), *top;

    start(&m);
    other = disk_new("other", node_ref(over)); /* somebody shows the overlay to a guest */
    co_sleep_ns(NS_PER_MS);
    co_end(&m, "The root of 'n0' has changed meanwhile");
    co_disk_free(other);

    start(&m);
    co_rig_create("/top", "size=1M");
    top = co_open_idle("{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"/top\"}, \"backing\": \"n0\", "
                       "\"node-name\": \"top\"}");
    co_end(&m, "The root of 'n0' has changed meanwhile"); /* somebody stands on the root */
    co_node_unref(top);

    co_still_writable(disk);
    co_node_unref(over);
    co_disk_free(disk);
}

static void who_is_faster_wins(void **state)
{
    io_sim_reset();
    loop_run_co(co_somebody_is_faster, NULL);
    io_sim_reset();
}

/* The root has no other user then, and the disk is gone: while the overlay is being made, opened, or the old root flushed. */
static CO_ENTRY void co_disk_goes(void *arg)
{
    const uint64_t *after_ns = arg;
    struct meanwhile m = { .args = { .device = "d0", .file = "/over" } };
    struct disk *disk = co_disk('0');

    start(&m);
    co_sleep_ns(*after_ns);
    co_disk_free(disk);
    co_end(&m, "The root of 'd0' has changed meanwhile");
    assert_false(io_exists("/over"));
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static void a_disk_that_goes_meanwhile_takes_its_snapshot_along(void **state)
{
    for (uint64_t after_ns = 10 * NS_PER_US; after_ns <= NS_PER_MS; after_ns += 90 * NS_PER_US) {
        io_sim_reset();
        loop_run_co(co_disk_goes, &after_ns);
        io_sim_reset();
    }
}

static int setup(void **state)
{
    int ret = rig_setup(state);

    node_set_drivers(drivers);
    return ret;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_an_overlay_is_refused),
        cmocka_unit_test(nodes_without_a_disk_take_an_overlay),
        cmocka_unit_test(a_group_of_odd_images_is_all_or_none),
        cmocka_unit_test(a_group_is_all_or_none_wherever_it_fails),
        cmocka_unit_test(a_group_whose_first_is_wrong_begins_no_other),
        cmocka_unit_test(who_is_faster_wins),
        cmocka_unit_test(a_disk_that_goes_meanwhile_takes_its_snapshot_along),
    };

    return cmocka_run_group_tests(tests, setup, rig_teardown);
}
