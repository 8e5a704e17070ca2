/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of blockdev-create, step by step: at every call of the host, when it is issued and when it completes, another
 * monitor cancels, pauses, ... the job.  Whatever that answers, the job ends soon, holds nobody, and an image that it says to
 * have made is whole after a power cut that keeps nothing but what was flushed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "block/file.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "tests/unit/sim-world.h"
#include "tests/unit/tree-rows.h"

#define SIZE (1u << 20)
#define ENDS_WITHIN_NS (NS_PER_S)

static const char *const makings[] = {
    "{'driver':'qcow2','size':1048576,'file':{'driver':'file','filename':'/new'}}",
    "{'driver':'qcow2','size':1048576,'file':{'driver':'file','filename':'/new'},'preallocation':'full'}",
    "{'driver':'file','size':1048576,'filename':'/made'}",
    "{'driver':'file','size':1048576,'filename':'/made','preallocation':'full'}",
};

struct life {
    const char *making;
    const struct verb *verb;
    unsigned at, seen;     /* the call at which the verb is said; how many there were */
    struct co_queue turn;
    bool said, over, begun;
    json_t *options;
};

/* --- Verbs ------------------------------------------------------------------------------------------------------------ */

static int co_cancel(struct job *job, struct error *err)
{
    return job_cancel(job, false, err);
}

static int co_cancel_hard(struct job *job, struct error *err)
{
    return job_cancel(job, true, err);
}

static int co_pause(struct job *job, struct error *err)
{
    return job_pause(job, err);
}

static int co_pause_and_cancel(struct job *job, struct error *err)
{
    return job_pause(job, err) < 0 ? -1 : job_cancel(job, true, err);
}

static int co_resume(struct job *job, struct error *err)
{
    return job_resume(job, err);
}

static int co_slow(struct job *job, struct error *err)
{
    return job_set_speed(job, 1, err);
}

static int co_finalize(struct job *job, struct error *err)
{
    return job_finalize(job, err);
}

static int co_dismiss(struct job *job, struct error *err)
{
    return job_dismiss(job, err);
}

static int co_quit(struct job *job, struct error *err)
{
    co_job_cancel_all();
    return 0;
}

static int co_query(struct job *job, struct error *err)
{
    json_decref(job_describe_short(job));
    json_decref(job_describe(job));
    return 0;
}

static const struct verb {
    const char *name;
    int (*co_do)(struct job *job, struct error *err);
    bool cancels;
} verbs[] = {
    { "cancel", co_cancel, true },
    { "cancel -f", co_cancel_hard, true },
    { "pause", co_pause, false },
    { "pause, cancel -f", co_pause_and_cancel, true },
    { "resume", co_resume, false },
    { "set-speed", co_slow, false },
    { "finalize", co_finalize, false },
    { "dismiss", co_dismiss, false },
    { "quit", co_quit, true },
    { "query", co_query, false },
};

/* --- Lives ------------------------------------------------------------------------------------------------------------ */

static void on_call(void *arg, const struct io_sim_event *event)
{
    struct life *life = arg;

    if (life->seen++ == life->at) {
        co_queue_wake_all(&life->turn);
    }
}

static void CO_ENTRY co_second_monitor(void *arg)
{
    struct life *life = arg;
    struct error err = ERROR_INIT;
    struct job *job;

    co_queue_wait(&life->turn);
    job = job_find("j");
    if (job) {
        int ret = life->verb->co_do(job_ref(job), &err);

        assert_int_equal(ret < 0, error_is_set(&err));
        error_clear(&err);
        job_unref(job);
    }
    life->said = true;
}

static void CO_ENTRY co_first_monitor(void *arg)
{
    struct life *life = arg;
    struct create_args args = { .job_id = "j", .options = life->options };
    struct error err = ERROR_INIT;

    assert_int_equal(co_create_start(&args, &err), 0);
    life->begun = true;
}

/* 0 or the job's error. */
static int co_end_of(struct life *life)
{
    struct job *job = job_find("j");
    uint64_t deadline = loop_now() + ENDS_WITHIN_NS;
    int ret;

    assert_non_null(job);
    job_ref(job);
    while (!job_ended(job) || !life->begun || (!life->said && life->seen > life->at)) {
        co_sleep_ns(NS_PER_MS);
        if (job->user_paused) {
            job_resume(job, NULL);
        }
        assert_true(loop_now() < deadline);
    }
    ret = job->ret;
    if (job_find("j")) { /* nobody has dismissed it */
        assert_int_equal(job_dismiss(job, NULL), 0);
    }
    job_unref(job);
    return ret;
}

static void co_judge_image(const struct life *life)
{
    struct error err = ERROR_INIT;
    struct node *node;
    uint64_t size = 0;

    io_sim_on_op(NULL, NULL);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 1);
    if (strstr(life->making, "/made")) {
        assert_int_equal(io_sim_size("/made", &size), 0);
        assert_int_equal(size, SIZE);
        return;
    }
    node = co_node_open("/new", NULL, &err);
    if (!node) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(node->size, SIZE);
    co_node_unref(node);
}

/* How many calls of the host there were. */
static unsigned co_live(const char *making, const struct verb *verb, unsigned at, bool *good)
{
    struct life life = { .making = making, .verb = verb, .at = at };
    int ret;

    io_sim_reset();
    io_sim_create("/new", 0);
    co_queue_init(&life.turn);
    life.options = tree_of(making);
    io_sim_on_op(on_call, &life);
    co_start(co_second_monitor, &life);
    co_start(co_first_monitor, &life);
    ret = co_end_of(&life);
    *good = ret == 0;
    assert_true(ret == 0 || ret == -ECANCELED);
    assert_true(ret == 0 || verb->cancels);
    if (ret == 0) {
        co_judge_image(&life);
    }
    io_sim_on_op(NULL, NULL);
    co_queue_wake_all(&life.turn); /* its call did not come */
    while (!life.said) {
        co_yield();
    }
    assert_true(TAILQ_EMPTY(&all_jobs) && TAILQ_EMPTY(&all_nodes));
    assert_int_equal(io_sim_handles(), 0);
    json_decref(life.options);
    return life.seen;
}

static void CO_ENTRY co_every_verb_at_every_call(void *arg)
{
    const char *making = arg;
    unsigned lives = 0, cancelled = 0;

    for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
        for (unsigned at = 0, calls = 1; at < calls; at++) {
            bool good;

            calls = co_live(making, &verbs[v], at, &good);
            lives++;
            cancelled += !good;
        }
    }
    print_message("%s: %u lives, %u of them cancelled\n", making, lives, cancelled);
    assert_true(cancelled > 0);
}

static void a_new_image_is_whole_or_not_said_to_be_made_whatever_the_operator_does(void **state)
{
    sim_begin(1);
    for (size_t i = 0; i < ARRAY_SIZE(makings); i++) {
        loop_run_co(co_every_verb_at_every_call, (void *)makings[i]);
    }
    sim_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_image_is_whole_or_not_said_to_be_made_whatever_the_operator_does),
    };

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests_name("create-life", tests, NULL, NULL);
}
