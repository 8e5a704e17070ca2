/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the human monitor and scripts say of jobs in every state.  The kind here copies nothing and does what its test wants;
 * `ready` is what a kind that holds two images the same will be.
 */
#include "tests/unit/job-rig.h"

#include <errno.h>

#include "monitor/events.h"
#include "monitor/outcome.h"

/* --- A monitor whose words are kept ------------------------------------------------------------------------------------ */

static char said[8192], told[8192];

static void keep(char *to, size_t size, const char *text, size_t len)
{
    snprintf(to + strlen(to), size - strlen(to), "%.*s", (int)len, text);
}

static void keep_words(struct monitor *mon, const char *text, size_t len)
{
    keep(said, sizeof(said), text, len);
}

static void keep_news(const char *text)
{
    keep(told, sizeof(told), text, strlen(text));
    keep(told, sizeof(told), "\n", 1);
}

static struct monitor human;

static int co_say(const char *line)
{
    *said = '\0';
    return co_hmp_run(&human, line);
}

#define CO_EXPECT(line, ret, words)                                  \
    do {                                                             \
        assert_int_equal(co_say(line), ret);                         \
        if (*(words) ? !strstr(said, words) : *said != '\0') {       \
            fail_msg("%s: %s is not in: %s", line, words, said);     \
        }                                                            \
    } while (0)

#define assert_told(words)                                    \
    do {                                                      \
        if (!strstr(told, words)) {                           \
            fail_msg("%s is not in the news: %s", words, told); \
        }                                                     \
    } while (0)

/* --- Jobs ---------------------------------------------------------------------------------------------------------------- */

struct plan {
    bool ready;       /* become ready, and wait for the operator */
    uint64_t sleep_ns;
    int error;        /* a read fails with it, and the policy decides */
    int ret;
    const char *why;  /* NULL: no words for it */
};

static int co_planned_run(struct job *job, struct error *err)
{
    const struct plan *plan = job->state;

    job->len = 100;
    job_progress(job, 50);
    if (plan->sleep_ns) {
        co_sleep_ns(plan->sleep_ns);
        co_job_pause_point(job, 0);
    }
    if (plan->error && co_job_error(job, true, plan->error) == JOB_ACTION_STOP) {
        co_job_pause_point(job, 0);
    }
    if (plan->ready) {
        int decided = co_job_ready(job);

        return decided < 0 ? decided : 0;
    }
    if (plan->why) {
        error_set(err, "%s", plan->why);
    }
    return job->cancelled ? -ECANCELED : plan->ret;
}

static const struct job_kind planned = { .name = "mirror", .co_run = co_planned_run };

static struct job *begin(const char *id, struct plan *plan)
{
    struct error err = ERROR_INIT;
    struct job *job = job_new(id, &planned, JOB_ON_ERROR_STOP, &err);

    assert_non_null(job);
    job->state = plan;
    job_start(job_ref(job));
    return job;
}

#define CO_TEST(test)                                                                             \
    static CO_ENTRY void co_##test(void *arg);                                                    \
    static void test(void **state)                                                                \
    {                                                                                             \
        human = (struct monitor){ .write = keep_words, .name = "test" };                          \
        monitor_init(&human);                                                                     \
        *told = '\0';                                                                             \
        outcome_init();                                                                           \
        events_init();                                                                            \
        events_set_notice(keep_news);                                                             \
        loop_run_co(co_##test, NULL);                                                             \
        events_set_notice(NULL);                                                                  \
        events_fini();                                                                            \
        outcome_fini();                                                                           \
        monitor_fini(&human);                                                                     \
    }                                                                                             \
    static CO_ENTRY void co_##test(void *arg)

CO_TEST(a_wait_for_ready_ends_when_the_job_is_and_a_wait_for_its_end_fails)
{
    struct plan plan = { .ready = true, .sleep_ns = NS_PER_S };
    struct job *job = begin("m", &plan);

    CO_EXPECT("wait m ready", 0, "");
    assert_told("Job 'm' (mirror) is ready");
    CO_EXPECT("expect job m ready", 0, "");
    CO_EXPECT("wait all ready", 0, "");
    CO_EXPECT("wait m", -EBUSY, "Job 'm' is ready and waits for a decision");
    CO_EXPECT("wait", -EBUSY, "Job 'm' is ready and waits for a decision");
    CO_EXPECT("wait m done 1s", -ETIMEDOUT, "Timed out after 1 s: job 'm' is still there");
    CO_EXPECT("wait 1s", -ETIMEDOUT, "Timed out after 1 s: jobs are still there");
    assert_int_equal(outcome_exit_code(), OUTCOME_JOB);
    CO_EXPECT("info block-jobs -v", 0, "block_job_complete ends it, block_job_cancel leaves it undone");
    CO_EXPECT("block_job_pause m", 0, "");
    co_sleep_ns(1);
    CO_EXPECT("info block-jobs -v", 0, "block_job_resume lets it go on");
    CO_EXPECT("wait m ready", 0, "");
    CO_EXPECT("wait m", -EBUSY, "Job 'm' is standby and waits for a decision");
    CO_EXPECT("block_job_resume m", 0, "");
    co_sleep_ns(1);
    CO_EXPECT("block_job_complete m", 0, "");
    CO_EXPECT("wait m", 0, "");
    CO_EXPECT("wait m ready", -ESRCH, "Job 'm' has ended and was never ready");
    CO_EXPECT("expect job m completed", 0, "");
    CO_EXPECT("expect job m null", 0, "");
    assert_int_equal(outcome_exit_code(), OUTCOME_GOOD);
    job_unref(job);
}

CO_TEST(a_job_that_was_cancelled_need_not_have_been_ready)
{
    struct plan plan = { .sleep_ns = NS_PER_S };
    struct job *job = begin("m", &plan);

    CO_EXPECT("expect job m ready", -EILSEQ, "Job 'm' is running");
    CO_EXPECT("block_job_cancel m", 0, "");
    CO_EXPECT("wait m ready", 0, "");
    CO_EXPECT("expect job m cancelled", 0, "");
    CO_EXPECT("expect job m completed", -EILSEQ, "Job 'm' is cancelled");
    assert_told("Job 'm' (mirror) was cancelled");
    job_unref(job);
}

CO_TEST(a_job_that_may_not_finalize_by_itself_is_waited_for_in_vain)
{
    struct plan plan = { .ret = 0 };
    struct error err = ERROR_INIT;
    struct job *job = job_new("m", &planned, JOB_ON_ERROR_STOP, &err), *other;

    job->state = &plan;
    job->auto_finalize = false;
    job_start(job_ref(job));
    other = begin("o", &(struct plan){ .sleep_ns = NS_PER_S });
    CO_EXPECT("wait o", 0, "");
    CO_EXPECT("wait m", -EBUSY, "Job 'm' is pending and waits for a decision");
    CO_EXPECT("expect no jobs", -EILSEQ, "Job 'm' is pending");
    CO_EXPECT("info block-jobs -v", 0, "job-finalize (QMP) puts the result in its place, block_job_cancel drops it");
    assert_int_equal(outcome_exit_code(), OUTCOME_JOB);
    assert_int_equal(job_finalize(job, &err), 0);
    CO_EXPECT("wait", 0, "");
    CO_EXPECT("expect no jobs", 0, "");
    job_unref(job);
    job_unref(other);
}

CO_TEST(each_failure_is_told_once_when_all_jobs_are_waited_for)
{
    struct plan wordless = { .ret = -EIO, .sleep_ns = 1 }, plan = { .ret = -ENOSPC, .why = "no room", .sleep_ns = 2 };
    struct job *one = begin("one", &wordless), *two = begin("two", &plan);

    CO_EXPECT("wait", -EIO, "Job 'one' failed: Input/output error");
    assert_int_equal(human.last_outcome, OUTCOME_JOB);
    assert_told("Job 'one' (mirror) failed: Input/output error");
    assert_told("Job 'two' (mirror) failed: no room");
    CO_EXPECT("wait", 0, "");
    CO_EXPECT("wait two", -EIO, "Job 'two' failed: no room");
    CO_EXPECT("expect job two completed", -EILSEQ, "Job 'two' is failed");
    assert_int_equal(outcome_exit_code(), OUTCOME_JOB);
    CO_EXPECT("expect job one failed", 0, ""); /* then it was expected */
    CO_EXPECT("expect job two failed", 0, "");
    assert_int_equal(outcome_exit_code(), OUTCOME_GOOD);
    job_unref(one);
    job_unref(two);
}

CO_TEST(what_an_earlier_job_of_the_name_came_to_stays_unless_it_was_forgiven)
{
    struct plan bad = { .ret = -EIO }, good = { .ret = 0 };
    struct job *job = begin("m", &bad);

    CO_EXPECT("wait m", -EIO, "failed");
    outcome_forgive_told();
    outcome_forgive_told();
    job_unref(job);
    job_unref(begin("m", &good));
    CO_EXPECT("wait m", 0, "");
    assert_int_equal(outcome_exit_code(), OUTCOME_GOOD);
    job_unref(begin("m", &bad));
    CO_EXPECT("wait m", -EIO, "failed");
    job_unref(begin("m", &good));
    CO_EXPECT("wait m", 0, "");
    CO_EXPECT("expect job m completed", 0, "");
    assert_int_equal(outcome_exit_code(), OUTCOME_JOB);
}

CO_TEST(a_job_that_an_error_stopped_says_who_may_go_on)
{
    struct plan plan = { .error = EIO, .sleep_ns = NS_PER_S };
    struct job *job = begin("m", &plan);

    CO_EXPECT("wait m", -EBUSY, "Job 'm' is paused and waits for a decision");
    assert_told("Job 'm' (mirror) is paused by an error: Input/output error");
    CO_EXPECT("info block-jobs -v", 0, "stopped by an error: Input/output error");
    CO_EXPECT("info block-jobs -v", 0, "block_job_resume tries again, block_job_cancel gives up");
    CO_EXPECT("block_job_pause n", -ENOENT, "The jobs are: m.");
    CO_EXPECT("block_job_resume m", 0, "");
    CO_EXPECT("wait m", 0, "");
    job_unref(job);
}

CO_TEST(one_that_is_about_to_pause_says_so_and_one_that_has_ended_waits_to_be_dismissed)
{
    struct plan plan = { .sleep_ns = NS_PER_S };
    struct job *job = begin("m", &plan);
    struct error err = ERROR_INIT;

    job->auto_dismiss = false;
    CO_EXPECT("block_job_pause m", 0, "");
    CO_EXPECT("info block-jobs -v", 0, "about to pause");
    co_sleep_ns(2 * NS_PER_S);
    CO_EXPECT("expect job m paused", 0, "");
    CO_EXPECT("block_job_resume m", 0, "");
    CO_EXPECT("wait m", 0, "");
    CO_EXPECT("expect job m concluded", 0, "");
    CO_EXPECT("expect job m completed", 0, "");
    CO_EXPECT("info block-jobs -v", 0, "job-dismiss (QMP) forgets it");
    assert_int_equal(outcome_exit_code(), OUTCOME_GOOD);
    assert_int_equal(job_dismiss(job, &err), 0);
    job_unref(job);
}

CO_TEST(a_cancelled_job_that_is_not_dismissed_says_so_and_who_cancelled_it_waits_no_longer)
{
    struct plan plan = { .sleep_ns = NS_PER_S };
    struct job *job = begin("m", &plan);
    struct error err = ERROR_INIT;
    uint64_t started = loop_now();

    job->auto_dismiss = false;
    CO_EXPECT("block_job_cancel m", 0, "");
    assert_true(loop_now() - started < 2 * NS_PER_S);
    CO_EXPECT("info block-jobs -v", 0, "cancelled, 1 s from the start to the end");
    assert_int_equal(job_dismiss(job, &err), 0);
    job_unref(job);
}

CO_TEST(a_rate_from_before_a_limit_is_not_what_the_rest_will_have)
{
    struct plan plan = { .sleep_ns = 3 * NS_PER_S };
    struct job *job = begin("m", &plan);

    co_yield();
    progress_init(&job->progress, 100 << 20);
    progress_plan(&job->progress, 0, 100 << 20);
    progress_sample(&job->progress, loop_now(), 0);
    co_sleep_ns(NS_PER_S);
    job->data_done = 50 << 20;
    job->speed = 10 << 20;
    CO_EXPECT("info block-jobs -v", 0, "10 MiB/s, about 5 s left");
    CO_EXPECT("wait m", 0, "");
    job_unref(job);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_wait_for_ready_ends_when_the_job_is_and_a_wait_for_its_end_fails),
        TEST(a_job_that_was_cancelled_need_not_have_been_ready),
        TEST(a_job_that_may_not_finalize_by_itself_is_waited_for_in_vain),
        TEST(each_failure_is_told_once_when_all_jobs_are_waited_for),
        TEST(what_an_earlier_job_of_the_name_came_to_stays_unless_it_was_forgiven),
        TEST(a_job_that_an_error_stopped_says_who_may_go_on),
        TEST(one_that_is_about_to_pause_says_so_and_one_that_has_ended_waits_to_be_dismissed),
        TEST(a_cancelled_job_that_is_not_dismissed_says_so_and_who_cancelled_it_waits_no_longer),
        TEST(a_rate_from_before_a_limit_is_not_what_the_rest_will_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
