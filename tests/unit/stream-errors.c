/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streams in whose life something fails: what each policy does of it, and that all is well again when the fault is gone.  The
 * bench (life-rig.h) judges content, images, the order of events and what is durable.
 *
 * Each kind of stream meets each fault under each policy of jobs, and is then resumed or cancelled; a guest meets errors of
 * writing and reading under each policy of its disk, while a stream runs beside it.
 */
#include "tests/unit/life-rig.h"

enum { DENSE_B = 1 << 1 };

/* --- Errors of the job ------------------------------------------------------------------------------------------------------- */

static const struct kind {
    const char *name;
    char target, base;
    const char *done;
} kinds[] = {
    { "everything", 'D', 0, "D" },
    { "with a base", 'D', 'A', "DA" },
    { "intermediate", 'C', 'A', "DCA" },
    { "intermediate, everything", 'C', 0, "DC" },
};

enum place { TARGET, SOURCE };

static const struct fault {
    const char *name;
    enum place place;
    struct io_sim_fault plan;
    bool sync_fails;    /* what could not be flushed is never forgotten */
    const char *expect; /* for report, ignore, stop, enospc: fails, or stops; never after the copying */
} faults[] = {
    { "copying fails once", TARGET, { .ops = IO_SIM_COPY, .times = 1, .after = 2 }, false, "ffsf" },
    { "copying fails for good", TARGET, { .ops = IO_SIM_COPY, .after = 1 }, false, "ffsf" },
    { "the disk is full", TARGET, { .ops = IO_SIM_WRITE | IO_SIM_COPY, .error = ENOSPC, .after = 1 }, false, "ffss" },
    { "a table below cannot be read", SOURCE, { .ops = IO_SIM_READ | IO_SIM_LOAD | IO_SIM_MAP }, false, "ffsf" },
    { "nothing can be flushed", TARGET, { .ops = IO_SIM_FLUSH }, true, "ffff" },
    { "the header cannot be written", TARGET, { .ops = IO_SIM_WRITE, .len = 4096 }, false, "ffff" },
};
enum { THEN_RESUME, THEN_CANCEL, N_THENS };
static const char *const policy_names[] = { "report", "ignore", "stop", "enospc" };

struct fault_case {
    const struct kind *kind;
    const struct fault *fault;
    enum job_on_error policy;
    int then;
};

static bool stands_or_over(void *arg)
{
    struct life_job *j = arg;

    return j->job->paused || life_is_over(j);
}

/* It stands still until the fault is gone and somebody says what is to become of it. */
static void co_stands(const struct fault_case *c, struct life_job *j)
{
    struct error err = ERROR_INIT;

    life_check(j->job->io_status == (c->fault->plan.error == ENOSPC ? JOB_IO_NOSPACE : JOB_IO_FAILED), "io-status %d",
               j->job->io_status);
    co_sleep_ns(NS_PER_S);
    life_check(j->job->paused, "it does not wait");
    io_sim_faults_clear();
    life_check((c->then == THEN_RESUME ? job_resume(j->job, &err) : job_cancel(j->job, true, &err)) == 0, "%s", TEXT(err));
    life_check(c->then != THEN_RESUME || j->job->io_status == JOB_IO_OK, "the io-status stays");
}

static void co_life_with_a_fault(void *arg)
{
    const struct fault_case *c = arg;
    struct stream_args args = { .has_speed = true, .speed = 8 << 20, .on_error = c->policy, .auto_finalize = true,
                                .auto_dismiss = true };
    bool stops = c->fault->expect[c->policy] == 's', meets = c->kind->target == 'D' || c->fault->place == SOURCE;
    enum outcome_of_job expect = !stops ? FAILS : c->then == THEN_RESUME ? COMPLETES : CANCELLED;
    AUTOFREE char *path = mem_printf("/%c.img", c->fault->place == TARGET ? c->kind->target : 'B');
    struct io_sim_fault plan = c->fault->plan;
    struct error err = ERROR_INIT;

    co_life_start(meets ? NULL : "3000", NULL); /* none where a guest would meet the fault itself */
    struct life_job *j = co_life_stream(&args, c->kind->target, c->kind->base, &err);
    life_check(j != NULL, "refused: %s", TEXT(err));
    if (!j) {
        return;
    }
    plan.path = path;
    io_sim_fault(&plan);
    co_life_wait(stands_or_over, j, "the fault");
    life_check(io_sim_faults_struck() > 0, "no fault has struck");
    life_check(j->job->paused == stops, stops ? "it goes on" : "it stands still");
    if (stops) {
        co_stands(c, j);
    }
    co_life_wait(life_is_gone, j, "the end");
    life_check(j->outcome == expect, "outcome %d", j->outcome);
    life_check((j->outcome != COMPLETES) == error_is_set(&j->job->err), "the error has no text");
    /* Of the image on top it is told when that is closed, of one below by the job alone. */
    co_life_finish(expect == COMPLETES ? c->kind->done : "DCBA",
                   !c->fault->sync_fails ? 0 : c->kind->target == 'D' ? CLOSING_FAILS : SYNC_FAILED);
}

static void every_policy_of_every_kind(const struct fault *fault)
{
    struct fault_case c = { .fault = fault };

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        c.kind = &kinds[k];
        for (c.policy = JOB_ON_ERROR_REPORT; c.policy <= JOB_ON_ERROR_ENOSPC; c.policy++) {
            for (c.then = 0; c.then < N_THENS; c.then++) {
                life_run(co_life_with_a_fault, &c, "%s, %s, %s, %s", c.kind->name, fault->name, policy_names[c.policy],
                         c.then ? "cancel" : "resume");
            }
        }
    }
}

static void every_policy_of_a_job_is_obeyed_and_it_recovers(void **state)
{
    life_begin(4, DENSE_B, "512");
    for (size_t f = 0; f < ARRAY_SIZE(faults); f++) {
        every_policy_of_every_kind(&faults[f]);
    }
    print_message("%zu lives, %u durable states judged\n", ARRAY_SIZE(faults) * ARRAY_SIZE(kinds) * 4 * N_THENS, life.states);
    life_end();
}

/* --- Errors of the guest's requests while a job runs --------------------------------------------------------------------------- */

static const struct policy {
    const char *name;
    enum io_sim_op op;
    bool stops_on_eio, stops_on_enospc, tells;
} policies[] = {
    { "werror=report", IO_SIM_WRITE, false, false, true },
    { "werror=ignore", IO_SIM_WRITE, false, false, false }, /* this guest writes what was there */
    { "werror=stop", IO_SIM_WRITE, true, true, false },
    { "werror=enospc", IO_SIM_WRITE, false, true, true },
    { "rerror=report", IO_SIM_READ, false, false, true },
    { "rerror=stop", IO_SIM_READ, true, true, false },
};

struct policy_case {
    const struct policy *policy;
    int error;
};

static bool machine_stands_or_over(void *arg)
{
    return !machine_running() || life_is_over(arg);
}

static void co_life_with_a_failing_guest(void *arg)
{
    const struct policy_case *c = arg;
    struct stream_args args = { .has_speed = true, .speed = 4 << 20, .auto_finalize = true, .auto_dismiss = true };
    struct io_sim_fault fault = { .path = "/D.img", .ops = c->policy->op, .error = c->error, .times = 3, .after = 5 };
    bool stops = c->error == ENOSPC ? c->policy->stops_on_enospc : c->policy->stops_on_eio;
    struct error err = ERROR_INIT;

    co_life_start("3000", c->policy->name);
    struct life_job *j = co_life_stream(&args, 'C', 'A', &err); /* does not touch D, where the guest writes */
    life_check(j != NULL, "refused: %s", TEXT(err));
    if (!j) {
        return;
    }
    io_sim_fault(&fault);
    co_life_wait(machine_stands_or_over, j, "the fault");
    life_check(io_sim_faults_struck() > 0, "no fault has struck");
    life_check(machine_running() != stops, stops ? "the machine runs" : "the machine stands");
    life_check(!stops || machine_state() == RUN_IO_ERROR, "the machine is %s", machine_state_name());
    co_life_wait(life_is_gone, j, "the end, whatever the guest does");
    life_check(j->outcome == COMPLETES, "outcome %d", j->outcome);
    co_life_finish("DCA", !stops && c->policy->tells ? GUEST_FAILS : 0);
}

static void every_policy_of_a_disk_is_obeyed_while_a_job_runs(void **state)
{
    life_begin(4, DENSE_B, "512");
    for (size_t p = 0; p < ARRAY_SIZE(policies); p++) {
        for (int full = 0; full < 2; full++) {
            struct policy_case c = { &policies[p], full ? ENOSPC : EIO };
            life_run(co_life_with_a_failing_guest, &c, "%s, %s", policies[p].name, full ? "ENOSPC" : "EIO");
        }
    }
    life_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy_of_a_job_is_obeyed_and_it_recovers),
        cmocka_unit_test(every_policy_of_a_disk_is_obeyed_while_a_job_runs),
    };
    return cmocka_run_group_tests_name("stream-errors", tests, NULL, NULL);
}
