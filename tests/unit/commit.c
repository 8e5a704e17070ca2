/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commit on the simulated disk: every operation of the host fails once, and no content is another one; the same command does the
 * rest.  And who may not.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/commit.h"
#include "block/disk.h"
#include "block/filter.h"
#include "block/permission.h"
#include "block/throttle-group.h"

#define SIZE (4u << 20)
#define KIB 1024u
#define OPS_MAX 400u /* that a commit takes at most */

static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_throttle, NULL };

static uint8_t content[SIZE], buf[SIZE];

/* /low <- /top: the lower image is `low_size` long; both hold something, and the upper one zeroes, too. */
static void make(const char *path, const char *size, const char *backing)
{
    struct error err = ERROR_INIT;
    json_t *options = backing ? json_pack("{s:s, s:s, s:s}", "size", size, "backing_file", backing, "backing_fmt", "qcow2")
                              : json_pack("{s:s}", "size", size);

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

static struct node *co_open(const char *path)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    assert_non_null(node);
    return node;
}

static void co_put(struct node *node, uint64_t at, uint64_t len, uint8_t byte)
{
    memset(buf, byte, len);
    assert_int_equal(byte ? co_node_write_buf(node, at, buf, len) : co_node_zero(node, at, len, 0), 0);
}

static void co_make_chain(const char *low_size)
{
    struct node *node;

    io_sim_reset();
    make("/low", low_size, NULL);
    make("/top", "4M", "low");
    node = co_open("/low");
    co_put(node, 0, 900 * KIB, 1);
    co_node_unref(node);
    node = co_open("/top");
    co_put(node, 300 * KIB, 200 * KIB, 2);
    co_put(node, 600 * KIB, 100 * KIB, 0);
    co_put(node, 3000 * KIB, 700 * KIB, 3);
    memset(buf, 0, 64 * KIB);
    assert_int_equal(co_node_write_buf(node, 3840 * KIB, buf, 64 * KIB), 0); /* zeroes that are data */
    assert_int_equal(co_node_read_buf(node, 0, content, SIZE), 0);
    co_node_unref(node);
}

/* What the image at `path` shows is what was there in the beginning. */
static void co_same(const char *path)
{
    struct node *node = co_open(path);

    assert_int_equal(node->size, SIZE);
    assert_int_equal(co_node_read_buf(node, 0, buf, SIZE), 0);
    assert_memory_equal(buf, content, SIZE);
    co_node_unref(node);
}

static bool holds_nothing(struct node *node)
{
    struct extent ext;

    for (uint64_t at = 0; at < node->size; at += ext.len) {
        if (node->driver->co_map(node, at, node->size - at, &ext) < 0 || ext.kind != EXTENT_NONE) {
            return false;
        }
    }
    return true;
}

/* What the real program says of both images: sound, and the same content. */
static void judge_images(void)
{
    AUTOFREE char *low = mem_printf("%s/low", rig_dir), *top = mem_printf("%s/top", rig_dir);
    int status;

    assert_int_equal(io_sim_export("/low", low), 0);
    assert_int_equal(io_sim_export("/top", top), 0);
    AUTOFREE char *out = rig_shell(&status, "cd %s && qemu-img check -q -f qcow2 low && qemu-img check -q -f qcow2 top && "
                                            "qemu-img compare -f qcow2 -F qcow2 low top", rig_dir);
    if (status) {
        print_message("%s\n", out);
    }
    assert_int_equal(status, 0);
    unlink(low);
    unlink(top);
}

/* --- A host that fails ------------------------------------------------------------------------------- */

/* After so many operations of a kind one fails.  True: it did. */
static bool co_commit_failing(const struct io_sim_snapshot *before, unsigned kind, uint64_t after)
{
    struct io_sim_fault fault = { .kind = kind == IO_SIM_FLUSH ? IO_SIM_FAULT_SYNC_DROP : IO_SIM_FAULT_ERROR, .ops = kind,
                                  .after = after, .times = 1 };
    struct error err = ERROR_INIT;
    struct node *top;
    bool struck;
    int ret;

    io_sim_restore(before);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    top = co_open("/top");
    io_sim_fault(&fault);
    ret = co_commit(top, NULL, NULL, &err);
    struck = io_sim_faults_struck() > 0;
    io_sim_faults_clear();
    assert_null(top->busy_reason);
    assert_null(top->backing->busy_reason);
    assert_int_equal(top->backing_frozen, 0);
    if (ret == 0) {
        assert_true(holds_nothing(top));
    } else {
        assert_true(struck);
    }
    error_clear(&err);
    co_node_unref(top);
    if (ret < 0 && kind == IO_SIM_FLUSH) {
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0); /* what was dropped is nowhere */
    }
    co_same("/top");
    top = co_open("/top");
    assert_int_equal(co_commit(top, NULL, NULL, &err), 0);
    assert_true(holds_nothing(top));
    co_node_unref(top);
    co_same("/low");
    return struck;
}

static void co_all_failures(const char *low_size)
{
    static const unsigned kinds[] = { IO_SIM_READ, IO_SIM_WRITE, IO_SIM_FLUSH, IO_SIM_ZERO | IO_SIM_PUNCH | IO_SIM_ALLOCATE,
                                      IO_SIM_COPY, IO_SIM_TRUNCATE, IO_SIM_OPEN, IO_SIM_LOCK };
    struct io_sim_snapshot *before;
    unsigned runs = 0;

    co_make_chain(low_size);
    before = io_sim_snapshot();
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        for (uint64_t after = 0; after < OPS_MAX && co_commit_failing(before, kinds[i], after); after++) {
            runs++;
        }
    }
    io_sim_snapshot_free(before);
    assert_in_range(runs, 10, OPS_MAX);
    judge_images();
}

static void CO_ENTRY co_test_failures(void *arg)
{
    co_all_failures("4M");
}

static void CO_ENTRY co_test_failures_while_growing(void *arg)
{
    co_all_failures("1M");
}

/* --- Little in each of many places --------------------------------------------------------------------- */

#define PLACES 40u /* windows, more than are under way at once */
#define STRIDE (16ull << 20)

/* Small clusters, so that a window's two pieces are in two tables. */
static void co_make_scattered(void)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:i, s:s, s:s}", "size", "640M", "cluster_size", 4096, "backing_file", "low",
                                "backing_fmt", "qcow2");
    struct node *top;

    io_sim_reset();
    make("/low", "640M", NULL);
    assert_int_equal(driver_qcow2.co_create("/top", options, &err), 0);
    json_decref(options);
    top = co_open("/top");
    for (unsigned i = 0; i < PLACES; i++) {
        co_put(top, i * STRIDE, 64 * KIB, i + 1);
        co_put(top, i * STRIDE + STRIDE / 2, 4 * KIB, PLACES + i);
    }
    co_node_unref(top);
}

static void co_scattered_are_there(struct node *node)
{
    for (unsigned i = 0; i < PLACES; i++) {
        assert_int_equal(co_node_read_buf(node, i * STRIDE + 60 * KIB, buf, 8 * KIB), 0);
        assert_int_equal(buf[0], i + 1);
        assert_int_equal(buf[4 * KIB - 1], i + 1);
        assert_int_equal(buf[4 * KIB], 0);
        assert_int_equal(co_node_read_buf(node, i * STRIDE + STRIDE / 2, buf, 8 * KIB), 0);
        assert_int_equal(buf[0], PLACES + i);
        assert_int_equal(buf[4 * KIB], 0);
    }
}

/* True: one call failed. */
static bool co_scattered_failing(const struct io_sim_snapshot *before, unsigned kind, uint64_t after)
{
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = kind, .after = after, .times = 1 };
    struct error err = ERROR_INIT;
    struct node *top;
    bool struck;

    io_sim_restore(before);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    top = co_open("/top");
    io_sim_fault(&fault);
    assert_true(co_commit(top, NULL, NULL, &err) < 0 || holds_nothing(top));
    struck = io_sim_faults_struck() > 0;
    io_sim_faults_clear();
    error_clear(&err);
    assert_null(top->busy_reason);
    co_scattered_are_there(top);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
    co_node_unref(top);
    top = co_open("/top");
    co_scattered_are_there(top);
    assert_int_equal(co_commit(top, NULL, NULL, &err), 0);
    assert_true(holds_nothing(top));
    co_scattered_are_there(top->backing);
    co_node_unref(top);
    return struck;
}

static void CO_ENTRY co_test_scattered_failures(void *arg)
{
    struct io_sim_snapshot *before;

    co_make_scattered();
    before = io_sim_snapshot();
    for (uint64_t after = 0; after < OPS_MAX && co_scattered_failing(before, IO_SIM_WRITE, after); after += 5) {
    }
    for (uint64_t after = 0; after < OPS_MAX && co_scattered_failing(before, IO_SIM_FLUSH, after); after++) {
    }
    for (uint64_t after = 0; after < OPS_MAX && co_scattered_failing(before, IO_SIM_READ, after); after += 5) {
    }
    io_sim_snapshot_free(before);
}

static void CO_ENTRY co_test_few_flushes(void *arg)
{
    struct error err = ERROR_INIT;
    struct node *top;
    uint64_t flushes;

    co_make_scattered();
    top = co_open("/top");
    flushes = io_stats.flushes;
    assert_int_equal(co_commit(top, NULL, NULL, &err), 0);
    assert_in_range(io_stats.flushes - flushes, 2, PLACES * 3 / 2); /* one by one they take more than twice as many as windows */
    co_scattered_are_there(top->backing);
    co_node_unref(top);
}

/* --- An operator who has thought better of it ----------------------------------------------------------- */

static bool stop_at_second(void *arg)
{
    unsigned *asked = arg;

    return ++*asked == 2;
}

static void CO_ENTRY co_test_stop(void *arg)
{
    struct error err = ERROR_INIT;
    unsigned asked = 0;
    struct node *top;

    io_sim_reset();
    make("/low", "40M", NULL);
    make("/top", "40M", "low");
    top = co_open("/top");
    co_put(top, 0, 64 * KIB, 1);
    co_put(top, 20 << 20, 64 * KIB, 2); /* in the second window */
    assert_int_equal(co_commit(top, stop_at_second, &asked, &err), -EINTR);
    assert_int_equal(asked, 2);
    assert_false(holds_nothing(top));
    co_node_read_buf(top, 0, buf, 512);
    assert_int_equal(buf[0], 1);
    co_node_read_buf(top, 20 << 20, buf, 512);
    assert_int_equal(buf[0], 2);
    asked = 2; /* and he does not ask again */
    assert_int_equal(co_commit(top, stop_at_second, &asked, &err), 0);
    assert_true(holds_nothing(top));
    co_node_unref(top);
}

/* --- Who may not --------------------------------------------------------------------------------------- */

/* Asked between two windows: somebody wants to write to the backing file, too.  The commit is none of those who object. */
static bool asks_to_write(void *arg)
{
    const struct node *top = arg;
    const char *low = top->backing->name;
    struct error err = ERROR_INIT;
    struct node_user user = { .node = top->backing, .used = IO_PERM_WRITE, .shared = IO_PERM_ALL };
    AUTOFREE char *words = mem_printf("Permission conflict on node '%s': permissions 'write' are both required by an unnamed block "
                                      "device (uses node '%s' as 'root' child) and unshared by node '%s' (uses node '%s' as "
                                      "'backing' child).", low, low, top->name, low);

    assert_int_equal(node_use(&user, &err), -EPERM);
    assert_string_equal(err.text, words);
    error_clear(&err);
    return false;
}

static void CO_ENTRY co_test_others(void *arg)
{
    struct error err = ERROR_INIT;
    struct node *top;

    co_make_chain("4M");
    top = co_open("/top");
    assert_int_equal(co_commit(top, asks_to_write, top, &err), 0);
    assert_true(holds_nothing(top));
    co_node_unref(top);
}

static void co_refused(struct node *top, int code, const char *words)
{
    struct error err = ERROR_INIT;

    assert_int_equal(co_commit(top, NULL, NULL, &err), code);
    if (words) {
        assert_non_null(err.text);
        assert_string_equal(err.text, words);
    } else {
        assert_false(error_is_set(&err));
    }
    error_clear(&err);
}

static struct node *co_open_tree(json_t *options)
{
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(NULL, options, &err);

    json_decref(options);
    assert_non_null(node);
    return node;
}

static void CO_ENTRY co_test_refusals(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *props = json_pack("{s:{}}", "limits");
    struct node *low, *top, *other;
    struct disk *disk;

    assert_int_equal(throttle_group_new("g", props, &err), 0);
    json_decref(props);
    co_make_chain("4M");
    io_sim_create("/raw", 65536);
    other = co_open_tree(json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver", "file", "filename", "/raw"));
    co_refused(other, -ENOTSUP, NULL);
    co_node_unref(other);
    low = co_open_tree(json_pack("{s:s, s:s, s:b, s:{s:s, s:s}}", "driver", "qcow2", "node-name", "low", "read-only", 1, "file",
                                 "driver", "file", "filename", "/low"));
    co_refused(low, -ENOTSUP, NULL);
    top = co_open_tree(json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "driver", "qcow2", "node-name", "top", "backing", "low", "file",
                                 "driver", "file", "filename", "/top"));
    low->busy_reason = "somebody has it";
    co_refused(top, -EBUSY, NULL);
    low->busy_reason = NULL;
    top->busy_reason = "somebody has it";
    co_refused(top, -EBUSY, NULL);
    top->busy_reason = NULL;
    top->backing_frozen++;
    co_refused(top, -EBUSY, NULL);
    top->backing_frozen--;
    top->read_only = true;
    co_refused(top, -EPERM, "Block node is read-only");
    top->read_only = false;
    disk = disk_new("d", node_ref(low));
    co_refused(top, -EPERM, "Permission conflict on node 'low': permissions 'write, resize' are both required by an unnamed block "
                            "device (uses node 'low' as 'root' child) and unshared by block device 'd' (uses node 'low' as 'root' "
                            "child).");
    co_disk_free(disk);
    other = co_open_tree(json_pack("{s:s, s:s, s:s, s:b, s:s}", "driver", "throttle", "node-name", "t", "throttle-group", "g",
                                   "read-only", 1, "file", "low"));
    co_refused(top, -EPERM, "Permission conflict on node 'low': permissions 'write, resize' are both required by an unnamed block "
                            "device (uses node 'low' as 'root' child) and unshared by node 't' (uses node 'low' as 'file' child).");
    co_node_unref(other);
    co_refused(top, 0, NULL);
    assert_true(low->read_only); /* as before */
    co_node_unref(top);
    co_node_unref(low);
    co_same("/low");
}

static void run(void (*co_test)(void *arg))
{
    rig_need_qemu_img();
    node_set_drivers(drivers);
    loop_run_co(co_test, NULL);
    throttle_groups_end();
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static void a_failure_of_the_host_changes_no_content_and_the_next_commit_does_the_rest(void **state)
{
    run(co_test_failures);
}

static void neither_does_one_while_the_backing_file_grows(void **state)
{
    run(co_test_failures_while_growing);
}

static void nor_does_one_while_several_windows_are_under_way(void **state)
{
    run(co_test_scattered_failures);
}

static void windows_that_hold_little_share_their_flushes(void **state)
{
    run(co_test_few_flushes);
}

static void a_commit_that_is_stopped_has_emptied_nothing_that_it_did_not_write(void **state)
{
    run(co_test_stop);
}

static void nobody_else_begins_to_write_below_a_commit(void **state)
{
    run(co_test_others);
}

static void nothing_is_committed_below_somebody_who_looks(void **state)
{
    run(co_test_refusals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_of_the_host_changes_no_content_and_the_next_commit_does_the_rest),
        cmocka_unit_test(neither_does_one_while_the_backing_file_grows),
        cmocka_unit_test(nor_does_one_while_several_windows_are_under_way),
        cmocka_unit_test(windows_that_hold_little_share_their_flushes),
        cmocka_unit_test(a_commit_that_is_stopped_has_emptied_nothing_that_it_did_not_write),
        cmocka_unit_test(nobody_else_begins_to_write_below_a_commit),
        cmocka_unit_test(nothing_is_committed_below_somebody_who_looks),
    };
    return cmocka_run_group_tests_name("commit", tests, rig_setup, rig_teardown);
}
