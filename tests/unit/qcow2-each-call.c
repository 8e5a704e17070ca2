/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What commands do to an image when the host fails: each call that one of them makes of the host fails once, and in other runs
 * that one and all later ones. A second reader of the format (explore/checker.h) judges what is left, as it is and with all
 * gone that was not durable:
 *
 *     sound     no rule broken, at worst clusters leak; the next writer finds it sound or makes it so
 *     content   what the image showed before, or what the command was asked for; after success the latter
 *
 * What shrinks or discards may stop between the two: then only the first `kept` bytes are compared.
 */
#include "tests/unit/qcow2-rig.h"

#include <xxhash.h>

#include "block/qcow2-check.h"
#include "explore/checker.h"

#define IMAGE "/x.img"
#define KIB 1024u
#define CALLS_MAX 3000u

struct command {
    const char *name, *options;      /* the image's */
    uint64_t kept;                   /* bytes that keep their content whatever comes; 0: all or nothing changes */
    void (*co_prepare)(struct node *node);
    void (*spoil)(void);             /* behind the back of the driver, after that */
    int (*co_run)(struct error *err);
    bool unsound;                    /* before; the command mends it */
};

/* What the second reader sees; of snapshots, what ours does. */
struct view {
    uint64_t size, content, snapshots;
};

static const struct command *now;
static struct view before, after;

/* --- Content ------------------------------------------------------------------------------------------------------ */

static void co_put(struct node *node, uint64_t at, uint64_t len, uint8_t byte)
{
    AUTOFREE uint8_t *bytes = mem_alloc(len);

    memset(bytes, byte, len);
    assert_int_equal(co_node_write_buf(node, at, bytes, len), 0);
}

static void co_put_packed(struct node *node, uint64_t at, uint8_t seed)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;
    AUTOFREE uint8_t *bytes = mem_alloc(cluster), *packed = mem_alloc(cluster);

    for (uint32_t i = 0; i < cluster; i++) {
        bytes[i] = i % 7 ? seed : (i * 2654435761u) >> 24; /* makes about a third of it */
    }
    size_t len = co_qcow2_compress(node, bytes, packed);

    assert_true(len > 0);
    assert_int_equal(co_qcow2_write_packed(node, at, packed, len), 0);
}

/* Data, zeroes, holes, packed clusters. */
static void co_usual(struct node *node)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;

    co_put(node, 0, 3 * cluster, 1);
    for (unsigned i = 8; i < 13; i++) {
        co_put_packed(node, i * cluster, i);
    }
    assert_int_equal(co_node_zero(node, 2 * cluster, cluster, NODE_MAY_UNMAP), 0);
    co_put(node, node->size - cluster, cluster, 2);
}

/* --- What is left ------------------------------------------------------------------------------------------------- */

static void read_sim(void *arg, uint64_t offset, void *buf, size_t len)
{
    io_sim_read(IMAGE, offset, buf, len);
}

/* Names and contents. */
static CO_ENTRY void snapshots_entry(void *arg)
{
    uint64_t *sum = arg;
    uint32_t n = 1;

    for (uint32_t i = 0; i < n; i++) {
        struct node *node = co_rig_open(IMAGE, false);
        struct qcow2 *q = node->state;
        struct error err = ERROR_INIT;

        n = q->h.nb_snapshots;
        if (n) {
            const char *name = q->snapshots[i].name;

            assert_int_equal(co_qcow2_snapshot_show(node, &q->snapshots[i], &err), 0);
            AUTOFREE uint8_t *bytes = mem_alloc(node->size + 1);

            assert_int_equal(co_node_read_buf(node, 0, bytes, node->size), 0);
            *sum = XXH3_64bits_withSeed(bytes, node->size, *sum);
            *sum = XXH3_64bits_withSeed(name, strlen(name), *sum);
        }
        co_node_unref(node);
    }
}

/* Version 2 cannot say that a command was cut short: flags may lag behind counts that are too large. */
static bool is_excused(const struct checker_report *report)
{
    return strstr(now->options, "compat=0.10") && strstr(report->text, "entry") && strstr(report->text, "counted");
}

static struct view look(const char *when, bool judge)
{
    struct checker_source source = { .read = read_sim };
    struct checker_report report;

    assert_int_equal(io_sim_size(IMAGE, &source.size), 0);
    struct checker_image *image = checker_open_qcow2(&source, &report);

    if (judge && report.rule && !is_excused(&report)) {
        fail_msg("%s: %s: %s", now->name, when, report.text);
    }
    assert_non_null(image);
    struct view view = { .size = checker_size(image) };
    uint64_t len = now->kept ? now->kept : view.size;
    AUTOFREE uint8_t *bytes = mem_alloc(len + 1);

    assert_true(checker_read(&image, 1, 0, bytes, len));
    view.content = XXH3_64bits(bytes, len);
    checker_close(image);
    loop_run_co(snapshots_entry, &view.snapshots);
    return view;
}

static bool is_same(const struct view *a, const struct view *b)
{
    return a->size == b->size && a->content == b->content && a->snapshots == b->snapshots;
}

static void judge(const char *when, bool done)
{
    struct view view = look(when, true);

    if (!is_same(&view, &after) && (done || !is_same(&view, &before))) {
        fail_msg("%s: %s: neither the old state nor the new one%s", now->name, when, done ? ", after success" : "");
    }
}

/* --- Runs --------------------------------------------------------------------------------------------------------- */

static CO_ENTRY void prepare_entry(void *arg)
{
    co_rig_create(IMAGE, now->options);
    struct node *node = co_rig_open(IMAGE, true);

    now->co_prepare(node);
    co_node_unref(node);
}

static CO_ENTRY void run_entry(void *arg)
{
    struct error err = ERROR_INIT;

    *(int *)arg = now->co_run(&err);
    error_clear(&err);
}

/* The next writer. */
static CO_ENTRY void next_entry(void *arg)
{
    struct node *node = co_rig_open(IMAGE, true);

    co_node_unref(node);
}

static struct {
    unsigned calls, first; /* that fails, counted from 1 */
    bool for_ever, struck;
} plan;

static bool strikes(void *arg)
{
    plan.calls++;
    if (plan.calls != plan.first && !(plan.for_ever && plan.calls > plan.first)) {
        return false;
    }
    plan.struck = true;
    return true;
}

/* False: the command makes fewer calls. */
static bool fail_call(const struct io_sim_snapshot *first_state, unsigned call, bool for_ever)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .when = strikes };
    AUTOFREE char *when = mem_printf("call %u fails%s", call, for_ever ? " and all later ones" : "");
    AUTOFREE char *cut = mem_printf("%s, power cut", when);
    int ret;

    assert_true(call < CALLS_MAX);
    io_sim_restore(first_state);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    plan.calls = 0;
    plan.struck = false;
    plan.first = call;
    plan.for_ever = for_ever;
    io_sim_fault(&fault);
    loop_run_co(run_entry, &ret);
    io_sim_faults_clear();
    if (ret || !now->unsound) {
        judge(when, ret == 0);
    }
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
    judge(cut, ret == 0);
    loop_run_co(next_entry, NULL);
    judge("the next writer", ret == 0);
    return plan.struck;
}

static void fail_each_call(const struct command *command)
{
    int ret;

    now = command;
    io_sim_reset();
    loop_run_co(prepare_entry, NULL);
    if (now->spoil) {
        now->spoil();
    }
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    struct io_sim_snapshot *first_state = io_sim_snapshot();

    before = look("before", !now->unsound);
    loop_run_co(run_entry, &ret);
    assert_int_equal(ret, 0);
    after = look("after", true);
    unsigned call = 1;

    while (fail_call(first_state, call, false)) {
        fail_call(first_state, call, true);
        call++;
    }
    print_message("%s: %u calls\n", now->name, call - 1);
    assert_true(call > 5);
    io_sim_snapshot_free(first_state);
}

/* --- Internal snapshots ------------------------------------------------------------------------------------------- */

static int co_open_to_write(struct error *err, struct node **node)
{
    json_t *options = json_pack("{s:s, s:n}", "driver", "qcow2", "backing");

    *node = co_node_open(IMAGE, options, err);
    json_decref(options);
    return *node ? 0 : -EIO;
}

static int co_with_node(struct error *err, int (*co_act)(struct node *node, const char *name), const char *name)
{
    struct node *node;
    int ret = co_open_to_write(err, &node);

    if (ret == 0) {
        ret = co_act(node, name);
        co_node_unref(node);
    }
    return ret;
}

static void co_two_snapshots(struct node *node)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;

    co_usual(node);
    assert_int_equal(co_qcow2_snapshot_make(node, "one"), 0);
    co_put(node, cluster, 4 * cluster, 3);
    co_put_packed(node, 9 * cluster, 99);
    assert_int_equal(co_qcow2_snapshot_make(node, "two"), 0);
    co_put(node, 0, 2 * cluster, 4);
}

static int co_make_three(struct error *err)
{
    return co_with_node(err, co_qcow2_snapshot_make, "three");
}

static int co_apply_one(struct error *err)
{
    return co_with_node(err, co_qcow2_snapshot_apply, "one");
}

static int co_delete_one(struct error *err)
{
    return co_with_node(err, co_qcow2_snapshot_delete, "one");
}

static int co_delete_two(struct error *err)
{
    return co_with_node(err, co_qcow2_snapshot_delete, "two");
}

static const char *const snapshot_images[] = {
    "cluster_size=4096,size=256k",
    "cluster_size=512,size=128k,refcount_bits=64",
    "cluster_size=4096,size=256k,compat=0.10",
    "cluster_size=16384,size=1M,extended_l2=on,refcount_bits=8,compression_type=zstd",
};

static void fail_each_call_on_each(const char *name, int (*co_run)(struct error *err))
{
    for (size_t i = 0; i < ARRAY_SIZE(snapshot_images); i++) {
        const struct command command = { .name = name, .options = snapshot_images[i], .co_prepare = co_two_snapshots,
                                         .co_run = co_run };

        fail_each_call(&command);
    }
}

static void a_snapshot_is_made_or_not(void **state)
{
    fail_each_call_on_each("make", co_make_three);
}

static void a_snapshot_is_applied_or_not(void **state)
{
    fail_each_call_on_each("apply", co_apply_one);
}

static void a_snapshot_is_deleted_or_not(void **state)
{
    fail_each_call_on_each("delete the first", co_delete_one);
    fail_each_call_on_each("delete the last", co_delete_two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_is_made_or_not),
        cmocka_unit_test(a_snapshot_is_applied_or_not),
        cmocka_unit_test(a_snapshot_is_deleted_or_not),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
