/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filter blkdebug at work, on a file of the simulated disk: requests that are cut and rounded as it was asked to, and requests
 * that fail by rule; after either no byte beside the request is another one.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/filter.h"
#include "tests/unit/co-test.h"
#include "tests/unit/tree-rows.h"

#define SIZE (1u << 20)
#define KIB 1024u

static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_blkdebug, NULL };

static uint8_t content[SIZE], buf[SIZE];

/* --- The bench ------------------------------------------------------------------------------------- */

/* What arrives at the file. */
static struct {
    unsigned reads, writes, zeroes, punches;
    uint64_t longest, misfits; /* what is no multiple of `unit` */
    uint64_t unit;
} seen;

static void look(void *arg, const struct io_sim_event *event)
{
    if (event->completed || !event->len) {
        return;
    }
    seen.reads += event->op == IO_SIM_READ;
    seen.writes += event->op == IO_SIM_WRITE;
    seen.zeroes += event->op == IO_SIM_ZERO;
    seen.punches += event->op == IO_SIM_PUNCH;
    seen.longest = MAX(seen.longest, event->len);
    seen.misfits += seen.unit && (event->offset % seen.unit || event->len % seen.unit);
}

static void watch(uint64_t unit)
{
    memset(&seen, 0, sizeof(seen));
    seen.unit = unit;
    io_sim_on_op(look, NULL);
}

/* blkdebug on /f, which holds random bytes; `more` are options (' for "). */
static struct node *co_begin(const char *more)
{
    AUTOFREE char *text = mem_printf("{'driver':'blkdebug','node-name':'b','discard':'unmap',"
                                     "'image':{'driver':'file','filename':'/f','discard':'unmap'}%s%s}", *more ? "," : "", more);
    struct random random;

    random_seed(&random, 5);
    for (size_t i = 0; i < SIZE; i += 8) {
        store_le64(content + i, random_next(&random));
    }
    io_sim_reset();
    io_sim_create("/f", SIZE);
    assert_int_equal(io_sim_write("/f", 0, content, SIZE), 0);
    return co_tree_open(text);
}

/* The file holds what it is to hold, all of it. */
static void co_end(struct node *node)
{
    io_sim_on_op(NULL, NULL);
    co_node_unref(node);
    assert_int_equal(io_sim_read("/f", 0, buf, SIZE), 0);
    for (size_t i = 0; i < SIZE; i++) {
        if (buf[i] != content[i]) {
            print_message("byte %zu is %02x, not %02x\n", i, buf[i], content[i]);
            assert_int_equal(buf[i], content[i]);
        }
    }
}

static int co_write(struct node *node, uint64_t at, size_t len, uint8_t byte)
{
    memset(buf, byte, len);
    return co_node_write_buf(node, at, buf, len);
}

/* --- Cut and rounded ----------------------------------------------------------------------------------- */

static void CO_ENTRY co_zero_wishes(void *arg)
{
    struct node *node = co_begin("'opt-write-zero':65536,'max-write-zero':131072");

    watch(0);
    assert_int_equal(co_node_zero(node, 60 * KIB, 300 * KIB, NODE_MAY_UNMAP), 0);
    memset(content + 60 * KIB, 0, 300 * KIB);
    assert_int_equal(seen.writes, 2); /* what comes before the first and behind the last multiple */
    assert_int_equal(seen.zeroes + seen.punches, 2);
    assert_int_equal(seen.longest, 128 * KIB);
    watch(0);
    assert_int_equal(co_node_zero(node, 600 * KIB, 3 * KIB, 0), 0); /* no multiple in it */
    memset(content + 600 * KIB, 0, 3 * KIB);
    assert_int_equal(seen.writes, 1);
    assert_int_equal(seen.zeroes + seen.punches, 0);
    co_end(node);
}

static void CO_ENTRY co_discard_wishes(void *arg)
{
    struct node *node = co_begin("'opt-discard':65536,'max-discard':65536");

    watch(64 * KIB);
    assert_int_equal(co_node_discard(node, 60 * KIB, 200 * KIB), 0);
    memset(content + 64 * KIB, 0, 192 * KIB);
    assert_int_equal(seen.punches, 3);
    assert_int_equal(seen.misfits, 0);
    assert_int_equal(co_node_discard(node, 700 * KIB, 4 * KIB), 0); /* less than one: a hint, left alone */
    assert_int_equal(seen.punches, 3);
    co_end(node);
    node = co_begin("");
    assert_int_equal(co_node_discard(node, 4 * KIB, 12 * KIB), 0); /* no wish, no limit */
    memset(content + 4 * KIB, 0, 12 * KIB);
    assert_int_equal(co_node_zero(node, 32 * KIB, 512, 0), 0);
    memset(content + 32 * KIB, 0, 512);
    co_end(node);
}

static void CO_ENTRY co_aligned(void *arg)
{
    struct node *node = co_begin("'align':4096,'max-transfer':16384");

    watch(4096);
    assert_int_equal(co_write(node, 100 * KIB + 512, 1024, 1), 0); /* within one block */
    memset(content + 100 * KIB + 512, 1, 1024);
    assert_int_equal(co_write(node, 202 * KIB, 40 * KIB, 2), 0); /* begins and ends in the middle */
    memset(content + 202 * KIB, 2, 40 * KIB);
    assert_int_equal(co_write(node, 300 * KIB, 6 * KIB, 3), 0); /* ends in the middle */
    memset(content + 300 * KIB, 3, 6 * KIB);
    assert_int_equal(co_write(node, 402 * KIB, 6 * KIB, 4), 0); /* begins there */
    memset(content + 402 * KIB, 4, 6 * KIB);
    assert_int_equal(co_write(node, 500 * KIB, 8 * KIB, 5), 0); /* fits */
    memset(content + 500 * KIB, 5, 8 * KIB);
    assert_int_equal(co_node_read_buf(node, 99 * KIB, buf, 150 * KIB), 0);
    assert_memory_equal(buf, content + 99 * KIB, 150 * KIB);
    assert_int_equal(co_node_zero(node, 602 * KIB, 12 * KIB, 0), 0);
    memset(content + 602 * KIB, 0, 12 * KIB);
    assert_int_equal(seen.misfits, 0);
    assert_int_equal(seen.longest, 16 * KIB);
    co_end(node);
}

/* --- Failing by rule --------------------------------------------------------------------------------------- */

#define RULE(event, iotype, more) \
    "'inject-error':[{'event':'" event "','iotype':'" iotype "','errno':28" more "}]"

/* One request that fails, at the node with such options; afterwards the file is as it was. */
struct failure {
    const char *options;
    char what; /* write, read, zero, discard, flush */
    uint64_t at, len;
    uint64_t done; /* bytes that were done before it failed */
};

static const struct failure failures[] = {
    { "'align':4096," RULE("pwritev_rmw_head", "read", ""), 'w', 512, 512, 0 },
    { "'align':4096," RULE("pwritev_rmw_head", "read", ""), 'w', 512, 8192, 0 },
    { "'align':4096," RULE("pwritev_rmw_tail", "read", ""), 'w', 4096, 512, 0 },
    { "'align':4096," RULE("pwritev_rmw_after_tail", "write", ""), 'w', 4096, 512, 0 },
    { "'align':4096," RULE("none", "read", ""), 'r', 512, 512, 0 },
    { "'max-transfer':4096," RULE("none", "write", ",'sector':8"), 'w', 0, 16384, 4096 },
    { "'max-transfer':4096," RULE("none", "read", ",'sector':8"), 'r', 0, 16384, 0 },
    { RULE("pwritev", "write", ",'immediately':true"), 'w', 0, 512, 0 },
    { RULE("none", "write-zeroes", ""), 'z', 0, 65536, 0 },
    { RULE("pwritev_zero", "write-zeroes", ""), 'z', 0, 65536, 0 },
    { "'max-write-zero':4096," RULE("none", "write-zeroes", ",'sector':8"), 'z', 0, 65536, 4096 },
    { "'opt-write-zero':4096," RULE("none", "write", ""), 'z', 512, 65536, 0 },
    { RULE("none", "discard", ""), 'd', 0, 65536, 0 },
    { "'max-discard':4096," RULE("none", "discard", ",'sector':8"), 'd', 0, 65536, 4096 },
};

static int co_do(struct node *node, const struct failure *f)
{
    switch (f->what) {
    case 'r':
        return co_node_read_buf(node, f->at, buf, f->len);
    case 'w':
        return co_write(node, f->at, f->len, 7);
    case 'z':
        return co_node_zero(node, f->at, f->len, 0);
    default:
        return co_node_discard(node, f->at, f->len);
    }
}

static void CO_ENTRY co_failures(void *arg)
{
    for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
        const struct failure *f = failures + i;
        struct node *node = co_begin(f->options);
        int ret = co_do(node, f);

        if (ret != -ENOSPC) {
            print_message("%s: %d\n", f->options, ret);
        }
        assert_int_equal(ret, -ENOSPC);
        memset(content + f->at, f->what == 'w' ? 7 : 0, f->done);
        co_end(node);
    }
}

/* As many times as it was asked for, and requests beside the sector pass. */
static void CO_ENTRY co_once(void *arg)
{
    struct node *node = co_begin(RULE("none", "write", ",'sector':100,'once':true"));

    assert_int_equal(co_write(node, 0, 50 * KIB, 1), 0);
    assert_int_equal(co_write(node, 51 * KIB, 512, 1), 0);
    assert_int_equal(co_write(node, 0, 51 * KIB, 2), -ENOSPC);
    assert_int_equal(co_write(node, 0, 51 * KIB, 3), 0);
    memset(content, 3, 51 * KIB);
    memset(content + 51 * KIB, 1, 512);
    co_end(node);
}

/* A flush of what is flushed is none. */
static void CO_ENTRY co_flush_rule(void *arg)
{
    struct node *node = co_begin(RULE("none", "flush", ",'once':true"));

    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_write(node, 0, 512, 1), 0);
    assert_int_equal(co_node_flush(node), -ENOSPC);
    assert_int_equal(co_node_flush(node), 0);
    assert_int_equal(co_node_flush(node), 0);
    memset(content, 1, 512);
    co_end(node);
}

/* Of several rules that change the state at one event the first one counts, and all that inject are armed by it. */
static void CO_ENTRY co_states(void *arg)
{
    struct node *node = co_begin("'set-state':[{'event':'pwritev','state':1,'new_state':2},{'event':'pwritev','new_state':9},"
                                 "{'event':'pwritev_done','state':2,'new_state':3}],"
                                 "'inject-error':[{'event':'pwritev','state':3,'iotype':'read','errno':28,'sector':0},"
                                 "{'event':'pwritev','state':3,'iotype':'read','errno':5,'sector':16}]");

    assert_int_equal(co_write(node, 0, 512, 1), 0); /* 1, 2, 3 */
    assert_int_equal(co_node_read_buf(node, 0, buf, 512), 0);
    assert_int_equal(co_write(node, 0, 512, 2), 0); /* 3: armed, and then 9 */
    assert_int_equal(co_node_read_buf(node, 0, buf, 512), -ENOSPC);
    assert_int_equal(co_node_read_buf(node, 8192, buf, 512), -EIO);
    assert_int_equal(co_node_read_buf(node, 4096, buf, 512), 0);
    memset(content, 2, 512);
    co_end(node);
}

/* --- What is refused ------------------------------------------------------------------------------------- */

#define ON(more) "{'driver':'blkdebug','image':{'driver':'file','filename':'/f'}," more "}"

static const struct row refused[] = {
    { ON("'align':3"), "Cannot meet constraints with align 3" },
    { ON("'align':'x'"), "Parameter 'align' expects a non-negative number below 2^64" },
    { ON("'align':2147483648"), "Cannot meet constraints with align 2147483648" },
    { ON("'max-transfer':-1"), "Parameter 'max-transfer' expects a non-negative number below 2^64" },
    { ON("'align':512,'max-transfer':100"), "Cannot meet constraints with max-transfer 100" },
    { ON("'align':512,'opt-write-zero':100"), "Cannot meet constraints with opt-write-zero 100" },
    { ON("'opt-write-zero':4096,'max-write-zero':6144"), "Cannot meet constraints with max-write-zero 6144" },
    { ON("'align':512,'opt-discard':100"), "Cannot meet constraints with opt-discard 100" },
    { ON("'opt-discard':4096,'max-discard':6144"), "Cannot meet constraints with max-discard 6144" },
    { ON("'config':'/none'"), "Could not read blkdebug config file: No such file or directory" },
    { ON("'inject-error':[{'event':'nix'}]"), "invalid parameter value: nix" },
    { ON("'inject-error':[{'iotype':'read'}]"), "Missing event name for rule" },
    { ON("'inject-error':[{'event':'none','iotype':'nix'}]"), "invalid parameter value: nix" },
    { ON("'inject-error':[{'event':'nix'},{'event':'none'}]"), "invalid parameter value: nix" },
    { ON("'inject-error':[{'event':'none','colour':'red'}]"),
      "[inject-error] section doesn't support the option 'colour'" },
    { ON("'inject-error':{'0':{'event':'none'},'1':7}"), "[inject-error] section (index 1) does not consist of keys" },
    { ON("'inject-error':{'0':{'event':'none'},'2':{'event':'none'}}"),
      "Block protocol 'blkdebug' doesn't support the option 'inject-error.2.event'" },
    { ON("'inject-error':{'event':'none','once':'maybe'}"), "Parameter 'once' expects 'on' or 'off'" },
    { ON("'set-state':[{'event':'none','new_state':'x'}]"), "Parameter 'new_state' expects a number" },
    { ON("'set-state':{'event':'none','new_state':'7'}"), NULL },
    { ON("'inject-error':{'event':'none','state':'1','once':'on'}"), NULL },
    { "{'driver':'blkdebug','image':{'driver':'file','filename':'/none'}}", "Could not open '/none': No such file or directory" },
    { "{'driver':'qcow2','file':{'filename':'blkdebug:/f'}}", "blkdebug requires both config file and image path" },
    { "{'driver':'raw','file':{'filename':'blkdebug::/f'}}", NULL },
};

static void CO_ENTRY co_refused(void *arg)
{
    io_sim_reset();
    io_sim_create("/f", SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct error err = ERROR_INIT;
        json_t *options = tree_of(refused[i].tree);
        struct node *node = co_node_open(NULL, options, &err);

        json_decref(options);
        judge(refused + i, &err);
        assert_int_equal(node != NULL, refused[i].text == NULL);
        co_node_unref(node);
        assert_true(TAILQ_EMPTY(&all_nodes));
    }
}

static void run(void (*co_test)(void *arg))
{
    node_set_drivers(drivers);
    loop_run_co(co_test, NULL);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

TEST(zeroes_are_rounded_and_cut_as_wished, co_zero_wishes)
TEST(discards_are_rounded_and_cut_as_wished, co_discard_wishes)
TEST(what_does_not_fit_is_read_modified_and_written, co_aligned)
TEST(a_request_that_fails_by_rule_changes_nothing_more, co_failures)
TEST(a_rule_for_once_strikes_once, co_once)
TEST(a_flush_fails_only_when_there_is_something_to_flush, co_flush_rule)
TEST(states_count_and_an_event_arms_all_its_rules, co_states)
TEST(wrong_wishes_and_rules_are_named, co_refused)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroes_are_rounded_and_cut_as_wished),
        cmocka_unit_test(discards_are_rounded_and_cut_as_wished),
        cmocka_unit_test(what_does_not_fit_is_read_modified_and_written),
        cmocka_unit_test(a_request_that_fails_by_rule_changes_nothing_more),
        cmocka_unit_test(a_rule_for_once_strikes_once),
        cmocka_unit_test(a_flush_fails_only_when_there_is_something_to_flush),
        cmocka_unit_test(states_count_and_an_event_arms_all_its_rules),
        cmocka_unit_test(wrong_wishes_and_rules_are_named),
    };
    return cmocka_run_group_tests_name("blkdebug-requests", tests, rig_setup, rig_teardown);
}
