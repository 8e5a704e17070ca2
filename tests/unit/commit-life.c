/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the monitor's `commit`, step by step: at every call of the host, when it is issued and when it completes, a
 * guest or another monitor wants something of the same disk.  Whatever that answers, the commit ends, nobody is held, and the
 * guest sees what was written last, then and after a power cut; when the power goes as the commit is said to be done, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/checker.h"
#include "jobs/job.h"
#include "monitor/monitor.h"
#include "tests/unit/sim-world.h"
#include "tests/unit/tree-rows.h"

#define SIZE (1u << 20)
#define GROWN (SIZE + 65536)
#define PLACE 65536u /* where the overlay has something of its own, and the guest writes */
#define ENDS_WITHIN_NS (10 * NS_PER_S)

static uint8_t content[SIZE], shown[SIZE];

static struct life {
    const struct want *want;
    struct disk *disk;
    unsigned at, seen; /* the call at which it is wanted; how many there were */
    struct co_queue turn;
    bool said, over;
    struct io_sim_snapshot *after; /* the disk as the commit was said to be done */
} life;

/* --- What somebody wants ---------------------------------------------------------------------------------------------- */

static int co_say(const char *command, const char *args, struct error *err)
{
    struct monitor mon = { .compat = true, .write = NULL };
    const struct command *cmd = command_find(qmp_command_tables, command, false);
    json_t *words = tree_of(args), *result = NULL;
    int ret;

    assert_non_null(cmd);
    ret = cmd->co_run(&mon, words, &result, err);
    monitor_free_json(result);
    json_decref(words);
    return ret;
}

static void co_write(void)
{
    struct iovec iov = { .iov_base = content + PLACE, .iov_len = 4096 };

    memset(content + PLACE, 0x77, 4096);
    assert_int_equal(co_disk_write(life.disk, PLACE, &iov, 1), 0);
}

static void co_zero(void)
{
    memset(content + PLACE, 0, 65536);
    assert_int_equal(co_disk_zero(life.disk, PLACE, 65536, true), 0);
}

static void co_flush(void)
{
    assert_int_equal(co_disk_flush(life.disk), 0);
}

static void co_reset(void)
{
    disk_cancel(life.disk, true); /* as a device does that is reset */
    co_yield();
    disk_cancel(life.disk, false);
}

static const struct want {
    const char *command, *args; /* QMP's, or: */
    void (*co_do)(void);
    const char *name;
    bool refused; /* while the commit runs */
} wants[] = {
    { .name = "a write", .co_do = co_write },
    { .name = "zeroes", .co_do = co_zero },
    { .name = "a flush", .co_do = co_flush },
    { .name = "a reset", .co_do = co_reset },
    { "block-stream", "{'device':'d','job-id':'j'}", .refused = true },
    { "blockdev-snapshot-sync", "{'device':'d','snapshot-file':'/over'}", .refused = true },
    { "block_resize", "{'device':'d','size':1114112}", .refused = true },
    { "change-backing-file", "{'device':'d','image-node-name':'top','backing-file':'./low'}", .refused = true },
    { "blockdev-reopen", "{'options':[{'driver':'qcow2','node-name':'top','backing':'low'}]}", .refused = true },
    { .command = "query-named-block-nodes", .args = "{}" },
    { .command = "query-block", .args = "{}" },
    { .command = "query-blockstats", .args = "{}" },
};

/* --- Lives ------------------------------------------------------------------------------------------------------------ */

static void on_call(void *arg, const struct io_sim_event *event)
{
    if (life.seen++ == life.at) {
        co_queue_wake_all(&life.turn);
    }
}

static void CO_ENTRY co_somebody(void *arg)
{
    const struct want *want = life.want;
    struct error err = ERROR_INIT;

    co_queue_wait(&life.turn);
    if (!life.over && want->co_do) {
        want->co_do();
    } else if (!life.over) {
        int ret = co_say(want->command, want->args, &err);

        assert_int_equal(ret < 0, error_is_set(&err));
        if (!life.over && (ret < 0) != want->refused) {
            fail_msg("%s: %s", want->command, ret < 0 ? err.text : "it is not refused");
        }
        error_clear(&err);
    }
    life.said = true;
}

static void CO_ENTRY co_committing(void *arg)
{
    struct monitor mon = { .compat = true };
    const struct command *cmd = command_find(hmp_command_tables, "commit", false);
    struct error err = ERROR_INIT;
    json_t *args = tree_of("{'device':'d'}"), *result = NULL;

    assert_int_equal(cmd->co_run(&mon, args, &result, &err), 0);
    monitor_free_json(result);
    json_decref(args);
    life.over = true;
    life.after = io_sim_snapshot();
}

static struct node *co_open(void)
{
    return co_tree_open("{'driver':'qcow2','node-name':'top','file':{'driver':'file','filename':'/top'},'backing':"
                       "{'driver':'qcow2','node-name':'low','file':{'driver':'file','filename':'/low'}}}");
}

static void co_make_chain(void)
{
    static const char *const rows[] = { "{'size':'1M'}", "{'size':'1M','backing_file':'low','backing_fmt':'qcow2'}" };
    struct error err = ERROR_INIT;
    struct node *node;

    for (int i = 0; i < 2; i++) {
        json_t *options = tree_of(rows[i]);

        assert_int_equal(driver_qcow2.co_create(i ? "/top" : "/low", options, &err), 0);
        json_decref(options);
        node = co_node_open(i ? "/top" : "/low", NULL, &err);
        assert_non_null(node);
        memset(shown, i + 1, sizeof(shown));
        assert_int_equal(co_node_write_buf(node, i * PLACE, shown, 3 * PLACE), 0);
        if (i) {
            assert_int_equal(co_node_zero(node, 5 * PLACE, PLACE, 0), 0);
            assert_int_equal(co_node_read_buf(node, 0, content, SIZE), 0);
        }
        co_node_unref(node);
    }
}

static void co_same(struct node *node)
{
    assert_int_equal(co_node_read_buf(node, 0, shown, SIZE), 0);
    assert_memory_equal(shown, content, SIZE);
}

static void read_image(void *arg, uint64_t offset, void *out, size_t len)
{
    io_sim_read(arg, offset, out, len);
}

static void judge_image(const char *path)
{
    struct checker_source source = { .arg = (char *)path, .read = read_image };
    struct checker_report report = { 0 };
    struct checker_image *image;

    io_sim_size(path, &source.size);
    image = checker_open_qcow2(&source, &report);
    if (!image || report.rule) {
        fail_msg("%s: rule %u: %s", path, report.rule, report.text);
    }
    checker_close(image);
}

/* The power goes now; what was flushed is there.  `written`: what the guest has written may be, too. */
static void co_judge_images(bool written)
{
    struct error err = ERROR_INIT;
    struct node *node;

    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 1);
    judge_image("/low");
    judge_image("/top");
    node = co_node_open("/top", NULL, &err);
    assert_non_null(node);
    if (written) {
        co_same(node);
    } else {
        assert_int_equal(co_node_read_buf(node, 0, shown, SIZE), 0);
        assert_memory_equal(shown, content, PLACE);
        assert_memory_equal(shown + 2 * PLACE, content + 2 * PLACE, SIZE - 2 * PLACE);
    }
    co_node_unref(node);
}

static void co_wait(const bool *done, uint64_t deadline)
{
    while (!*done) {
        co_sleep_ns(NS_PER_MS);
        assert_true(loop_now() < deadline);
    }
}

/* How many calls of the host there were. */
static unsigned co_live(const struct want *want, unsigned at)
{
    uint64_t deadline = loop_now() + ENDS_WITHIN_NS;
    struct node *node;

    io_sim_reset();
    co_make_chain();
    life = (struct life){ .want = want, .at = at };
    co_queue_init(&life.turn);
    life.disk = disk_new("d", co_open());
    io_sim_on_op(on_call, NULL);
    co_start(co_somebody, NULL);
    co_start(co_committing, NULL);
    co_wait(&life.over, deadline);
    co_queue_wake_all(&life.turn); /* its call did not come */
    co_wait(&life.said, deadline);
    io_sim_on_op(NULL, NULL);
    co_job_cancel_all();
    TAILQ_FOREACH(node, &all_nodes, link) {
        assert_null(node->busy_reason);
        assert_int_equal(node->backing_frozen, 0);
        assert_int_equal(node->drained, 0);
    }
    co_same(life.disk->root);
    assert_int_equal(co_disk_flush(life.disk), 0);
    co_disk_free(life.disk);
    co_judge_images(true);
    io_sim_restore(life.after);
    io_sim_snapshot_free(life.after);
    co_judge_images(false);
    assert_true(TAILQ_EMPTY(&all_jobs) && TAILQ_EMPTY(&all_nodes));
    assert_int_equal(io_sim_handles(), 0);
    return life.seen;
}

static void CO_ENTRY co_every_want_at_every_call(void *arg)
{
    unsigned lives = 0;

    for (size_t i = 0; i < ARRAY_SIZE(wants); i++) {
        for (unsigned at = 0, calls = 1; at < calls; at++, lives++) {
            calls = co_live(&wants[i], at);
        }
    }
    print_message("%u lives\n", lives);
    assert_true(lives > 200);
}

static void a_commit_ends_well_whatever_is_wanted_of_its_disk_meanwhile(void **state)
{
    sim_begin(1);
    loop_run_co(co_every_want_at_every_call, NULL);
    sim_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_ends_well_whatever_is_wanted_of_its_disk_meanwhile),
    };

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests_name("commit-life", tests, NULL, NULL);
}
