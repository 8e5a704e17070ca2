/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs that become ready: what follows what, and what QMP's clients hear of it.  The kind here copies nothing; it is what a
 * kind that holds two images the same will be to the rest of the program.
 */
#define qmp_event heard_event
#define events_init heard_events_init
#define events_fini heard_events_fini
#define events_set_notice heard_events_set_notice
#define events_shutdown heard_events_shutdown
#define events_powerdown heard_events_powerdown
#define events_tray_moved heard_events_tray_moved
#define events_export_deleted heard_events_export_deleted
#define event_rows heard_event_rows
#include "monitor/events.c"

#include "tests/unit/job-rig.h"

static char heard[2048];
static int decided;

/* "ready STATUS", or the event's name. */
void heard_event(const char *name, json_t *data)
{
    const char *status = json_string_value(json_object_get(data, "status"));

    snprintf(heard + strlen(heard), sizeof(heard) - strlen(heard), "%s%s", *heard ? " " : "", status ? status : name);
    json_decref(data);
}

static int co_mirror_run(struct job *job, struct error *err)
{
    decided = co_job_ready(job);
    return decided < 0 ? decided : 0;
}

static const struct job_kind mirror = { .name = "mirror", .co_run = co_mirror_run };

static struct job *begin(void)
{
    struct error err = ERROR_INIT;
    struct job *job = job_new("m", &mirror, JOB_ON_ERROR_REPORT, &err);

    *heard = '\0';
    decided = JOB_UNDECIDED;
    assert_non_null(job);
    job_start(job_ref(job));
    return job;
}

static void end(struct job *job)
{
    co_job_wait(job);
    job_unref(job);
}

#define CO_TEST(name)                              \
    static CO_ENTRY void co_##name(void *arg);     \
    static void name(void **state)                 \
    {                                              \
        heard_events_init();                       \
        loop_run_co(co_##name, NULL);              \
        heard_events_fini();                       \
    }                                              \
    static CO_ENTRY void co_##name(void *arg)

CO_TEST(a_ready_job_says_so_and_waits_to_be_completed)
{
    struct error err = ERROR_INIT;
    struct job *job = begin();

    co_sleep_ns(NS_PER_S);
    assert_string_equal(heard, "running ready BLOCK_JOB_READY");
    json_t *told = job_describe(job);
    assert_true(json_is_true(json_object_get(told, "ready")));
    json_decref(told);
    assert_int_equal(job_complete(job, &err), 0);
    end(job);
    assert_int_equal(decided, JOB_COMPLETE);
    assert_string_equal(heard, "running ready BLOCK_JOB_READY waiting pending BLOCK_JOB_COMPLETED concluded null");
}

CO_TEST(a_ready_job_that_is_cancelled_without_force_ends_well_where_it_was)
{
    struct error err = ERROR_INIT;
    struct job *job = begin();

    co_sleep_ns(1);
    assert_int_equal(job_cancel(job, false, &err), 0);
    end(job);
    assert_int_equal(decided, JOB_LEAVE);
    assert_string_equal(heard, "running ready BLOCK_JOB_READY waiting pending BLOCK_JOB_COMPLETED concluded null");
}

CO_TEST(a_ready_job_that_is_cancelled_by_force_is_undone)
{
    struct error err = ERROR_INIT;
    struct job *job = begin();

    co_sleep_ns(1);
    assert_int_equal(job_cancel(job, true, &err), 0);
    end(job);
    assert_int_equal(decided, -ECANCELED);
    assert_string_equal(heard, "running ready BLOCK_JOB_READY aborting BLOCK_JOB_CANCELLED concluded null");
}

CO_TEST(a_ready_job_that_is_paused_stands_by_and_cannot_be_completed)
{
    struct error err = ERROR_INIT;
    struct job *job = begin();

    co_sleep_ns(1);
    assert_int_equal(job_pause(job, &err), 0);
    co_sleep_ns(1);
    assert_int_equal(job->status, JOB_STANDBY);
    assert_int_equal(job_complete(job, &err), -EPERM);
    assert_string_equal(err.text, "Job 'm' in state 'standby' cannot accept command verb 'complete'");
    error_clear(&err);
    assert_int_equal(job_resume(job, &err), 0);
    co_sleep_ns(1);
    assert_int_equal(job_complete(job, &err), 0);
    end(job);
    assert_string_equal(heard, "running ready BLOCK_JOB_READY standby ready waiting pending BLOCK_JOB_COMPLETED concluded null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_ready_job_says_so_and_waits_to_be_completed, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_ready_job_that_is_cancelled_without_force_ends_well_where_it_was, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_ready_job_that_is_cancelled_by_force_is_undone, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_ready_job_that_is_paused_stands_by_and_cannot_be_completed, rig_setup, rig_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
