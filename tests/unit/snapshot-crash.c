/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots made, applied and deleted on the simulated disk: the power is cut, and the process killed, at every
 * operation; then the image is judged.
 *
 *     as it is    no count is too small; nothing is wrong but leaks, and where the dirty bit says so or cannot (version 2)
 *                 the COPIED bit of clusters that are counted too high
 *     content     the active state is the old or the new one, and so is the list; every snapshot in it holds what it held
 *     repaired    by the first right to write: a version 3 image is exactly right then, version 2 may leak
 *     written     all over, the snapshots are what they were: no COPIED bit lies
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2-check.h"

#define SIZE (128u << 10)
#define UNIT 512u
#define CUTS 6

enum content { KEEP, ACT, NOW, N_CONTENTS }; /* of snapshot "keep", of snapshot "act", of the active state */

static const struct variant {
    const char *name, *compat, *cluster_size, *extended_l2, *refcount_bits;
} variants[] = {
    { "version 2", "0.10", "4096", "off", "16" },
    { "version 2, clusters of 512", "0.10", "512", "off", "16" },
    { "version 3", "1.1", "4096", "off", "16" },
    { "version 3, clusters of 512, counts of 8 bits", "1.1", "512", "off", "8" },
    { "extended L2", "1.1", "16384", "on", "16" },
};

struct act {
    const char *name;
    int (*co_run)(struct node *node, const char *snapshot);
    const char *snapshot;
};

static struct {
    const struct variant *variant;
    const struct act *act;
    uint8_t content[N_CONTENTS][SIZE];
    struct rig_states states;
    size_t done_at;  /* from this state on it had */
    uint64_t judged;
    unsigned wrong;  /* lines of a check that are not allowed */
} run;

/* --- The image ---------------------------------------------------------------------------------------------------- */

/* Some of the units get new content, and some become zeroes. */
static void co_change(struct node *node, enum content which, struct random *rnd)
{
    uint8_t data[UNIT];

    for (uint64_t at = 0; at < SIZE; at += UNIT) {
        uint64_t dice = random_below(rnd, 10);

        memset(data, dice ? 1 + random_below(rnd, 255) : 0, UNIT);
        if (dice < 4) {
            assert_int_equal(dice ? co_node_write_buf(node, at, data, UNIT) : co_node_zero(node, at, UNIT, NODE_MAY_UNMAP), 0);
            memcpy(run.content[which] + at, data, UNIT);
        }
    }
}

static void co_pack_one(struct node *node, enum content which)
{
    uint32_t cluster = ((struct qcow2 *)node->state)->cluster_size;
    AUTOFREE uint8_t *bytes = mem_alloc(cluster), *packed = mem_alloc(cluster);

    memset(bytes, 0x11 + which, cluster);
    size_t len = co_qcow2_compress(node, bytes, packed);

    assert_true(len > 0);
    assert_int_equal(co_qcow2_write_packed(node, cluster, packed, len), 0);
    memcpy(run.content[which] + cluster, bytes, cluster);
}

static void CO_ENTRY make_entry(void *arg)
{
    const struct variant *v = run.variant;
    json_t *options = json_pack("{s:i, s:s, s:s, s:s, s:s}", "size", SIZE, "compat", v->compat, "cluster_size",
                                v->cluster_size, "extended_l2", v->extended_l2, "refcount_bits", v->refcount_bits);
    struct error err = ERROR_INIT;
    struct random rnd;

    random_seed(&rnd, 7);
    memset(run.content, 0, sizeof(run.content));
    assert_int_equal(co_qcow2_create("/x.img", options, &err), 0);
    json_decref(options);
    struct node *node = co_rig_open("/x.img", true);

    for (enum content which = KEEP; which < N_CONTENTS; which++) {
        if (which > KEEP) {
            memcpy(run.content[which], run.content[which - 1], SIZE);
        }
        co_change(node, which, &rnd);
        co_pack_one(node, which);
        if (which < NOW) {
            assert_int_equal(co_qcow2_snapshot_make(node, which == KEEP ? "keep" : "act"), 0);
        }
    }
    co_node_unref(node);
}

static void CO_ENTRY act_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);

    io_sim_on_op(rig_take_state, &run.states);
    assert_int_equal(run.act->co_run(node, run.act->snapshot), 0);
    run.done_at = run.states.n;
    run.states.list = mem_reallocarray(run.states.list, run.states.n + 1, sizeof(*run.states.list));
    run.states.list[run.states.n++] = io_sim_snapshot();
    co_node_unref(node);
    io_sim_on_op(NULL, NULL);
}

/* --- Judging ------------------------------------------------------------------------------------------------------ */

static bool is_dirty(const struct node *node)
{
    return ((const struct qcow2 *)node->state)->h.incompatible & QCOW2_INCOMPAT_DIRTY;
}

static void hear(void *arg, const char *line)
{
    bool flags_may_lie = *(bool *)arg;

    if (strncmp(line, "Leaked", 6) == 0 || (flags_may_lie && strstr(line, "OFLAG_COPIED"))) {
        return;
    }
    print_message("%s, %s: %s\n", run.variant->name, run.act->name, line);
    run.wrong++;
}

static void co_check(bool exact)
{
    struct node *node = co_rig_open("/x.img", false);
    bool dirty = is_dirty(node), flags_may_lie = dirty || run.variant->compat[0] == '0';
    struct qcow2_report report = { .say = hear, .arg = &flags_may_lie };
    struct error err = ERROR_INIT;

    run.wrong = 0;
    assert_int_equal(co_qcow2_report(node, 0, &report, &err), 0);
    assert_int_equal(run.wrong, 0);
    if (exact) {
        assert_false(dirty);
        assert_int_equal(report.corruptions, 0);
    }
    if (exact && run.variant->compat[0] == '1') {
        assert_int_equal(report.leaks, 0);
    }
    co_node_unref(node);
}

static bool co_shows(struct node *node, enum content which)
{
    AUTOFREE uint8_t *bytes = mem_alloc(SIZE);

    assert_int_equal(node->size, SIZE);
    assert_int_equal(co_node_read_buf(node, 0, bytes, SIZE), 0);
    return memcmp(bytes, run.content[which], SIZE) == 0;
}

/* True: the snapshot is there; it must hold its content then. */
static bool co_snapshot_is_whole(const char *name, enum content which)
{
    struct node *node = co_rig_open("/x.img", false);
    const struct qcow2_snapshot *s = qcow2_snapshot_find(node->state, name, false);
    struct error err = ERROR_INIT;

    if (s) {
        assert_int_equal(co_qcow2_snapshot_show(node, s, &err), 0);
        assert_true(co_shows(node, which));
    }
    co_node_unref(node);
    return s;
}

/* Old or new, but for what was said to be done. */
static void co_judge_content(bool done, bool active_too)
{
    bool makes = !strcmp(run.act->name, "make"), applies = !strcmp(run.act->name, "apply");
    bool old, made, act;

    assert_true(co_snapshot_is_whole("keep", KEEP));
    made = co_snapshot_is_whole("made", NOW);
    act = co_snapshot_is_whole("act", ACT);
    assert_true(makes ? made || !done : !made);
    assert_true(!makes && !applies ? !(act && done) : act);
    if (active_too) {
        struct node *node = co_rig_open("/x.img", false);

        old = co_shows(node, NOW);
        assert_true(applies ? (old && !done) || co_shows(node, ACT) : old);
        co_node_unref(node);
    }
}

struct visit {
    size_t state;
    unsigned cut;
};

static void CO_ENTRY judge_entry(void *arg)
{
    const struct visit *v = arg;
    bool done = v->state >= run.done_at;
    uint8_t data[4096];

    co_check(false);
    co_judge_content(done, true);
    struct node *node = co_rig_open("/x.img", true);

    co_node_unref(node);
    if (run.variant->compat[0] == '1') {
        co_check(true);
    }
    co_judge_content(done, true);
    node = co_rig_open("/x.img", true);
    memset(data, 0xee, sizeof(data));
    for (uint64_t at = 0; at < SIZE; at += sizeof(data)) {
        assert_int_equal(co_node_write_buf(node, at, data, sizeof(data)), 0);
    }
    co_node_unref(node);
    co_check(run.variant->compat[0] == '1');
    co_judge_content(done, false);
}

static void visit_all(void)
{
    static const enum io_sim_cut modes[CUTS] = { IO_SIM_CUT_POWER_LOSE, IO_SIM_CUT_POWER_KEEP, IO_SIM_CUT_KILL,
                                                 IO_SIM_CUT_POWER, IO_SIM_CUT_POWER, IO_SIM_CUT_POWER };
    struct visit v;

    for (v.state = 0; v.state < run.states.n; v.state++) {
        for (v.cut = 0; v.cut < CUTS; v.cut++) {
            io_sim_restore(run.states.list[v.state]);
            io_sim_cut(modes[v.cut], v.state * CUTS + v.cut);
            loop_run_co(judge_entry, &v);
            run.judged++;
        }
    }
}

static void crash_everywhere(const struct act *act)
{
    run.judged = 0;
    run.act = act;
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        run.variant = &variants[i];
        io_sim_reset();
        loop_run_co(make_entry, NULL);
        loop_run_co(act_entry, NULL);
        assert_true(run.done_at > 10);
        visit_all();
        rig_free_states(&run.states);
    }
    io_sim_reset();
    print_message("%s: %llu states\n", act->name, (unsigned long long)run.judged);
}

static void making_a_snapshot_survives_a_crash_at_any_moment(void **state)
{
    crash_everywhere(&(struct act){ "make", co_qcow2_snapshot_make, "made" });
}

static void applying_a_snapshot_survives_a_crash_at_any_moment(void **state)
{
    crash_everywhere(&(struct act){ "apply", co_qcow2_snapshot_apply, "act" });
}

static void deleting_a_snapshot_survives_a_crash_at_any_moment(void **state)
{
    crash_everywhere(&(struct act){ "delete", co_qcow2_snapshot_delete, "act" });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_a_snapshot_survives_a_crash_at_any_moment),
        cmocka_unit_test(applying_a_snapshot_survives_a_crash_at_any_moment),
        cmocka_unit_test(deleting_a_snapshot_survives_a_crash_at_any_moment),
    };

    return cmocka_run_group_tests_name("snapshot-crash", tests, rig_setup, rig_teardown);
}
