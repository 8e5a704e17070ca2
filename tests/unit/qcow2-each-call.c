/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What commands do to an image when the host fails: each call that one of them makes of the host fails once, and in some runs
 * all later ones as well. A second reader of the format (explore/checker.h) judges what is left, as it is and with all
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
    bool forgetful;                  /* tables are read again and again */
};

/* What the second reader sees; of snapshots, what ours does. */
struct view {
    uint64_t size, content, snapshots, backing;
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
    const char *backing = checker_backing(image);
    struct view view = { .size = checker_size(image), .backing = backing ? XXH3_64bits(backing, strlen(backing)) : 0 };
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
    return a->size == b->size && a->content == b->content && a->snapshots == b->snapshots && a->backing == b->backing;
}

/* What was not sound before may be as it was. */
static void judge(const char *when, bool done)
{
    struct view view = look(when, done || !now->unsound);

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
    const struct io_site *site; /* the place in the sources that called last, */
    const struct io_site *failed; /* and the one whose call failed */
} plan;

static void note_site(const struct io_site *site)
{
    plan.site = site;
}

static bool strikes(void *arg)
{
    plan.calls++;
    if (plan.calls != plan.first && !(plan.for_ever && plan.calls > plan.first)) {
        return false;
    }
    plan.failed = plan.struck ? plan.failed : plan.site;
    plan.struck = true;
    return true;
}

/* False: the command makes fewer calls. */
static bool fail_call(const struct io_sim_snapshot *first_state, unsigned call, bool for_ever)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .when = strikes };
    int ret;

    assert_true(call < CALLS_MAX);
    io_sim_restore(first_state);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    plan.calls = 0;
    plan.struck = false;
    plan.failed = NULL;
    plan.first = call;
    plan.for_ever = for_ever;
    io_sim_fault(&fault);
    io_site_hook = note_site;
    loop_run_co(run_entry, &ret);
    io_site_hook = NULL;
    io_sim_faults_clear();
    AUTOFREE char *when = mem_printf("call %u (%s in %s) fails%s", call, plan.failed ? plan.failed->what : "none",
                                     plan.failed ? plan.failed->in : "none", for_ever ? " and all later ones" : "");
    AUTOFREE char *cut = mem_printf("%s, power cut", when);

    judge(when, ret == 0);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
    judge(cut, ret == 0);
    loop_run_co(next_entry, NULL);
    judge("the next writer", ret == 0);
    if (ret && now->unsound) {
        loop_run_co(run_entry, &ret);
        judge("tried again", ret == 0);
        assert_int_equal(ret, 0);
    }
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
        if (call % 3 == 0) {
            fail_call(first_state, call, true);
        }
        call++;
    }
    print_message("%s: %u calls\n", now->name, call - 1);
    assert_true(call > 5);
    io_sim_snapshot_free(first_state);
}

/* --- Internal snapshots ------------------------------------------------------------------------------------------- */

static int co_open_to_write(struct error *err, struct node **node)
{
    json_t *options = json_pack("{s:s, s:n, s:s}", "driver", "qcow2", "backing", "discard", "unmap");

    if (now->forgetful) {
        json_object_set_new(options, "cache-size", json_integer(2));
    }

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
    for (size_t i = 0; i < 2 * ARRAY_SIZE(snapshot_images); i++) {
        const struct command command = { .name = name, .options = snapshot_images[i / 2], .co_prepare = co_two_snapshots,
                                         .co_run = co_run, .forgetful = i % 2 };

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

/* --- Sizes and contents ------------------------------------------------------------------------------------------- */

static const char *const small_images[] = {
    "cluster_size=4096,size=256k",
    "cluster_size=512,size=128k,refcount_bits=64",
    "cluster_size=4096,size=256k,compat=0.10",
    "cluster_size=16384,size=1M,extended_l2=on,compression_type=zstd",
};

/* The first `kept` clusters stay what they are, whatever comes. */
static void fail_each_call_on_small(const char *name, uint64_t kept, int (*co_run)(struct error *err))
{
    static const uint64_t clusters[] = { 4096, 512, 4096, 16384 };

    for (size_t i = 0; i < 2 * ARRAY_SIZE(small_images); i++) {
        const struct command command = { .name = name, .options = small_images[i / 2], .co_prepare = co_usual,
                                         .co_run = co_run, .forgetful = i % 2, .kept = kept * clusters[i / 2] };

        fail_each_call(&command);
    }
}

static int co_with_node_flushed(struct error *err, int (*co_act)(struct node *node))
{
    struct node *node;
    int ret = co_open_to_write(err, &node);

    if (ret == 0) {
        ret = co_act(node);
        ret = ret ? ret : co_node_flush(node);
        co_node_unref(node);
    }
    return ret;
}

static int co_grow_node(struct node *node)
{
    return co_node_truncate(node, 40 * node->size, NULL);
}

static int co_grow(struct error *err)
{
    return co_with_node_flushed(err, co_grow_node);
}

static int co_shrink_node(struct node *node)
{
    return co_node_truncate(node, node->size / 4, NULL);
}

static int co_shrink(struct error *err)
{
    return co_with_node_flushed(err, co_shrink_node);
}

static void a_disk_grows_or_stays(void **state)
{
    fail_each_call_on_small("grow", 0, co_grow);
}

static int co_grow_a_little_node(struct node *node)
{
    return co_node_truncate(node, node->size * 5 / 4, NULL);
}

static int co_grow_a_little(struct error *err)
{
    return co_with_node_flushed(err, co_grow_a_little_node);
}

static void co_named(struct node *node);

/* The image below is not there now; at the next start it could shine through. */
static void a_disk_on_another_grows_with_zeroes_of_its_own(void **state)
{
    static const char *const images[] = { "cluster_size=4096,size=256k", "cluster_size=4096,size=256k,compat=0.10" };

    for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
        const struct command command = { .name = "grow above", .options = images[i], .co_prepare = co_named,
                                         .co_run = co_grow_a_little, .forgetful = true };

        fail_each_call(&command);
    }
}

static void a_disk_shrinks_and_keeps_what_is_in_front(void **state)
{
    fail_each_call_on_small("shrink", 16, co_shrink);
}

static int co_pack_node(struct node *node)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;
    AUTOFREE uint8_t *bytes = mem_zalloc(cluster), *packed = mem_alloc(cluster);
    int ret = 0;

    for (unsigned i = 16; i < 26 && ret == 0; i++) {
        for (uint32_t k = 0; k < cluster * 2 / 5; k++) { /* so much cannot be packed: every third lies in two clusters */
            uint64_t place = k * 64 + i;

            bytes[k] = XXH3_64bits(&place, sizeof(place));
        }
        size_t len = co_qcow2_compress(node, bytes, packed);

        ret = co_qcow2_write_packed(node, i * cluster, packed, len);
    }
    return ret;
}

static int co_pack(struct error *err)
{
    return co_with_node_flushed(err, co_pack_node);
}

static void packed_clusters_come_whole(void **state)
{
    fail_each_call_on_small("pack", 16, co_pack);
}

static int co_copy_some(struct node *target, uint64_t offset, uint64_t len, void *arg)
{
    uint8_t bytes[512] = { 1, 2, 3 };
    const struct io_piece piece = { .mem = bytes, .len = len };

    return target->driver->co_copy_in(target, offset, &piece, 1);
}

/* Data over packed clusters, zeroes over data, and what is given back. */
static int co_change_node(struct node *node)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;
    AUTOFREE uint8_t *bytes = mem_zalloc(cluster);
    int ret = co_node_write_buf(node, 9 * cluster + 512 % cluster, bytes, 1);

    ret = ret ? ret : co_node_zero(node, 10 * cluster, cluster, 0);
    ret = ret ? ret : co_node_zero(node, 11 * cluster + 1, cluster, NODE_MAY_UNMAP);
    ret = ret ? ret : co_qcow2_hold(node, 14 * cluster, 3 * cluster, QCOW2_HOLD_HOLES);
    ret = ret ? ret : co_qcow2_hold(node, 18 * cluster, cluster, QCOW2_HOLD_SPACE);
    ret = ret ? ret : co_qcow2_hold(node, 20 * cluster + 512 % cluster, cluster, QCOW2_HOLD_WRITTEN);
    ret = ret ? ret : co_qcow2_hold(node, 0, 2 * cluster, QCOW2_HOLD_SPACE); /* is there */
    ret = ret ? ret : co_node_populate(node, 12 * cluster + 512 % cluster, 512, co_copy_some, NULL);
    ret = ret ? ret : co_node_discard(node, 8 * cluster, cluster);
    return ret ? ret : co_qcow2_empty(node, node->size - cluster, cluster);
}

static int co_change(struct error *err)
{
    return co_with_node_flushed(err, co_change_node);
}

static void what_is_not_changed_keeps_its_content(void **state)
{
    fail_each_call_on_small("change", 8, co_change);
}

static int co_no_backing_node(struct node *node)
{
    return co_qcow2_set_backing(node, NULL, NULL, NULL);
}

static int co_no_backing(struct error *err)
{
    return co_with_node_flushed(err, co_no_backing_node);
}

/* It does not lie in the header's first sector where there are others. */
static int co_long_backing_node(struct node *node)
{
    char name[1000] = { 0 };

    memset(name, 'n', MIN(sizeof(name) - 1, ((struct qcow2 *)node->state)->cluster_size / 2));
    return co_qcow2_set_backing(node, name, "raw", NULL);
}

static void co_named(struct node *node)
{
    co_usual(node);
    assert_int_equal(co_long_backing_node(node), 0);
}

static int co_long_backing(struct error *err)
{
    return co_with_node_flushed(err, co_long_backing_node);
}

/* An extension that nobody knows: with the format in front of it, its end lies behind the first sector. */
static void crowd_header(void)
{
    uint8_t ext[392] = { 0 };

    store_be32(ext, 0x12345678);
    store_be32(ext + 4, 376);
    io_sim_write(IMAGE, 112, ext, sizeof(ext));
}

static void the_name_below_changes_or_not(void **state)
{
    static const struct command in_a_crowd = { .name = "long name, crowded header", .co_prepare = co_usual,
                                               .options = "cluster_size=4096,size=256k", .spoil = crowd_header,
                                               .co_run = co_long_backing };

    fail_each_call(&in_a_crowd);
    fail_each_call_on_small("long name", 0, co_long_backing);
    for (size_t i = 0; i < ARRAY_SIZE(small_images); i++) {
        const struct command command = { .name = "no name", .options = small_images[i], .co_prepare = co_named,
                                         .co_run = co_no_backing };

        fail_each_call(&command);
    }
}

/* --- Repairs ------------------------------------------------------------------------------------------------------ */

/* Counts of nothing but zeroes, and the mark that says so. */
static void spoil_counts(void)
{
    uint8_t bytes[4096] = { 0 };
    uint64_t cluster = 1ull << (rig_get64(IMAGE, 16) & 0xff);

    io_sim_write(IMAGE, rig_get64(IMAGE, rig_get64(IMAGE, 48)), bytes, MIN(cluster, sizeof(bytes)));
    rig_put64(IMAGE, 72, rig_get64(IMAGE, 72) | QCOW2_INCOMPAT_DIRTY);
}

static void put_count(uint64_t cluster, uint8_t count)
{
    uint8_t bytes[2] = { 0, count };

    io_sim_write(IMAGE, rig_get64(IMAGE, rig_get64(IMAGE, 48)) + cluster * 2, bytes, 2);
}

/* Of the cluster that holds the disk's first. */
static uint64_t first_cluster(void)
{
    uint64_t l2 = rig_get64(IMAGE, rig_get64(IMAGE, 40)) & QCOW2_L1_OFFSET_MASK;

    return (rig_get64(IMAGE, l2) & QCOW2_L2_OFFSET_MASK) / 4096;
}

static void spoil_with_leaks(void)
{
    uint64_t size;

    assert_int_equal(io_sim_size(IMAGE, &size), 0);
    io_sim_write(IMAGE, size + 4095, "", 1);
    put_count(size / 4096, 1);
    put_count(first_cluster(), 3);
}

static void spoil_a_count(void)
{
    spoil_with_leaks();
    put_count(first_cluster(), 0);
}

/* All that is COPIED says that it is not. */
static void spoil_flags(void)
{
    uint64_t l1 = rig_get64(IMAGE, 40), l2 = rig_get64(IMAGE, l1) & ~QCOW2_COPIED;

    rig_put64(IMAGE, l1, l2);
    for (uint64_t at = 0; at < 4096; at += 8) {
        rig_put64(IMAGE, l2 + at, rig_get64(IMAGE, l2 + at) & ~QCOW2_COPIED);
    }
}

static int co_just_open(struct error *err)
{
    struct node *node;
    int ret = co_open_to_write(err, &node);

    if (ret == 0) {
        co_node_unref(node);
    }
    return ret;
}

static int co_repair(struct error *err, unsigned fix)
{
    json_t *options = json_pack("{s:s, s:b, s:n}", "driver", "qcow2", "read-only", 1, "backing");
    struct node *node = co_node_open(IMAGE, options, err);
    struct qcow2_report report = { 0 };
    int ret = node ? co_qcow2_report(node, fix, &report, err) : -EIO;

    json_decref(options);
    if (node) {
        co_node_unref(node);
    }
    return ret;
}

static int co_repair_all(struct error *err)
{
    return co_repair(err, QCOW2_FIX_ERRORS | QCOW2_FIX_LEAKS);
}

static int co_repair_leaks(struct error *err)
{
    return co_repair(err, QCOW2_FIX_LEAKS);
}

/* Bits that a writer has to clear. */
static void mark_for_writers(void)
{
    rig_put64(IMAGE, 88, 1ull << 40);
}

static void an_image_is_opened_for_writing_or_not(void **state)
{
    static const struct command command = { .name = "open", .co_prepare = co_usual, .spoil = mark_for_writers,
                                            .options = "cluster_size=4096,size=256k", .co_run = co_just_open };

    fail_each_call(&command);
}

static void an_image_gets_repaired_or_asks_for_it_again(void **state)
{
    static const struct command commands[] = {
        { .name = "open a dirty one", .spoil = spoil_counts, .co_run = co_just_open, .unsound = true },
        { .name = "repair a dirty one", .spoil = spoil_counts, .co_run = co_repair_all, .unsound = true },
        { .name = "repair a missing count", .spoil = spoil_a_count, .co_run = co_repair_all, .unsound = true },
        { .name = "repair leaks and flags", .spoil = spoil_with_leaks, .co_run = co_repair_all, .unsound = true },
        { .name = "repair leaks", .spoil = spoil_with_leaks, .co_run = co_repair_leaks, .unsound = true },
        { .name = "repair flags", .spoil = spoil_flags, .co_run = co_repair_all, .unsound = true },
    };

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        struct command command = commands[i];

        command.options = "cluster_size=4096,size=256k";
        command.co_prepare = co_usual;
        fail_each_call(&command);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_is_made_or_not),
        cmocka_unit_test(a_snapshot_is_applied_or_not),
        cmocka_unit_test(a_snapshot_is_deleted_or_not),
        cmocka_unit_test(a_disk_grows_or_stays),
        cmocka_unit_test(a_disk_on_another_grows_with_zeroes_of_its_own),
        cmocka_unit_test(a_disk_shrinks_and_keeps_what_is_in_front),
        cmocka_unit_test(packed_clusters_come_whole),
        cmocka_unit_test(what_is_not_changed_keeps_its_content),
        cmocka_unit_test(the_name_below_changes_or_not),
        cmocka_unit_test(an_image_is_opened_for_writing_or_not),
        cmocka_unit_test(an_image_gets_repaired_or_asks_for_it_again),
    };

    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
