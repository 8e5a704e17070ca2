/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of streams under a busy guest, step by step: what each verb of the operator answers at each step, and how the
 * job ends then. The bench (life-rig.h) judges content, images, the order of events and what is durable; the tables here
 * say only what is expected.
 *
 * For each kind of stream every cell of `verbs` is one life; several jobs on neighbouring parts of one chain end in every
 * order, each well, cancelled or failed.  stream-errors.c has the policies.
 */
#include "tests/unit/life-rig.h"

enum { DENSE_B = 1 << 1, DENSE_CEG = 1 << 2 | 1 << 4 | 1 << 6 };

static const struct kind {
    const char *name;
    char target, base;
    const char *done, *undone; /* the chain afterwards */
} kinds[] = {
    { "everything", 'D', 0, "D", "DCBA" },
    { "with a base", 'D', 'A', "DA", "DCBA" },
    { "intermediate", 'C', 'A', "DCA", "DCBA" },
    { "intermediate, everything", 'C', 0, "DC", "DCBA" },
};

/* --- Steps ------------------------------------------------------------------------------------------------------------- */

enum step { START, EARLY, MIDDLE, LATE, PENDING, HEADER, WRITTEN, PAUSED, WAITS, ENDED, N_STEPS };
static const char *const step_names[] = { "at the start", "early", "in the middle", "late", "at the pivot", "as the header is written",
                                          "when the header is written", "paused", "waiting for finalize", "concluded" };

struct life_case {
    const struct kind *kind;
    enum step step;
    const struct verb *verb;
    struct life_job *job;
};

static bool is_at(void *arg)
{
    const struct life_case *c = arg;
    const struct job *job = c->job->job;

    switch (c->step) {
    case START:
        return true;
    case EARLY:
        return job->offset > 0;
    case MIDDLE:
        return job->offset >= LIFE_SIZE / 8 * 3;
    case LATE:
        return job->offset >= LIFE_SIZE / 4 * 3;
    case HEADER:
        return life.header_issued;
    case WRITTEN:
        return life.header_done;
    case PAUSED:
        return job->paused;
    case ENDED:
        return job->status == JOB_CONCLUDED;
    default:
        return job->status == JOB_PENDING;
    }
}

static bool is_paused(void *arg)
{
    struct life_job *j = arg;

    return j->job->paused || life_is_over(j);
}

static void co_to_the_step(struct life_case *c)
{
    struct life_case middle = { .step = MIDDLE, .job = c->job };

    if (c->step == PAUSED) {
        co_life_wait(is_at, &middle, "the middle");
        life_check(job_pause(c->job->job, NULL) == 0, "cannot pause");
    }
    co_life_wait(is_at, c, step_names[c->step]);
}

/* --- Verbs --------------------------------------------------------------------------------------------------------------- */

/* What a verb comes to at a step: it is refused ('-', and the job completes), or accepted and the job completes ('c') or is
 * cancelled ('x'). `top`: where the disk's own image is the target, it is refused while the job lives. */
struct verb {
    const char *name;
    int (*co_do)(struct life_case *c, struct error *err);
    const char *expect; /* a letter for each step */
    bool refused_on_top;
};

static int co_cancel(struct life_case *c, struct error *err)
{
    return job_cancel(c->job->job, false, err);
}

static int co_cancel_hard(struct life_case *c, struct error *err)
{
    return job_cancel(c->job->job, true, err);
}

static int co_pause(struct life_case *c, struct error *err)
{
    int ret = job_pause(c->job->job, err);

    if (ret == 0) {
        uint64_t offset;
        co_life_wait(is_paused, c->job, "the pause");
        offset = c->job->job->offset;
        co_sleep_ns(NS_PER_S);
        life_check(c->job->job->paused && c->job->last == JOB_PAUSED && c->job->job->offset == offset, "it does not stand still");
        life_check(job_pause(c->job->job, NULL) == -EBUSY, "paused twice");
        life_check(job_resume(c->job->job, NULL) == 0, "cannot resume");
    }
    return ret;
}

static int co_resume(struct life_case *c, struct error *err)
{
    return job_resume(c->job->job, err);
}

static int co_slow(struct life_case *c, struct error *err)
{
    int ret = job_set_speed(c->job->job, 1, err);

    if (ret == 0) {
        co_sleep_ns(NS_PER_S);
        /* What is in flight at that moment may be the last there is to do. */
        life_check(c->step >= LATE || !life_is_over(c->job), "a byte a second is too fast");
        life_check(life_is_over(c->job) || job_set_speed(c->job->job, 0, NULL) == 0, "cannot set the speed again");
    }
    return ret;
}

static int co_quit_jobs(struct life_case *c, struct error *err)
{
    co_job_cancel_all();
    life_check(!job_any(), "a job survives quit");
    return 0;
}

static int co_stop_and_cont(struct life_case *c, struct error *err)
{
    co_machine_stop(RUN_PAUSED);
    co_sleep_ns(50 * NS_PER_MS);
    machine_cont();
    return 0;
}

static int co_reset(struct life_case *c, struct error *err)
{
    co_machine_reset();
    return 0;
}

static int co_snapshot(struct life_case *c, struct error *err)
{
    struct snapshot_args args = { .device = "virtio0", .file = "/S.img", .snapshot_node_name = "S" };
    int ret = co_snapshot_sync(&args, err);

    life.top = ret == 0 ? 'S' : life.top;
    return ret;
}

static int co_another(struct life_case *c, struct error *err)
{
    struct stream_args args = { .device = "C", .job_id = "other", .auto_finalize = true, .auto_dismiss = true };

    return co_stream_start(&args, err);
}

static int co_finalize(struct life_case *c, struct error *err)
{
    return job_finalize(c->job->job, err);
}

static int co_dismiss(struct life_case *c, struct error *err)
{
    return job_dismiss(c->job->job, err);
}

static int co_query(struct life_case *c, struct error *err)
{
    json_t *args = json_object(), *tree = NULL, *mine = job_describe(c->job->job);
    int ret = co_query_named_block_nodes(NULL, args, &tree, err);

    life_check(json_array_size(tree) >= 2, "no nodes");
    life_check(strcmp(json_string_value(json_object_get(mine, "status")), job_status_name(c->job->last)) == 0, "another status");
    json_decref(mine);
    json_decref(args);
    json_decref(tree);
    return ret;
}

static const struct verb verbs[] = {
    /*                             start, early, middle, late, pivot, header, written, paused, waits, ended */
    { "cancel", co_cancel,         "xxxxccc-" "x-", false },
    { "cancel -f", co_cancel_hard, "xxxxcccx" "x-", false },
    { "pause", co_pause,           "cccc----" "--", false },
    { "resume", co_resume,         "-------c" "--", false },
    { "set-speed", co_slow,        "cccc---c" "--", false },
    { "quit", co_quit_jobs,        "xxxxcccx" "xc", false },
    { "stop, cont", co_stop_and_cont, "cccccccc" "cc", false },
    { "system_reset", co_reset,    "cccccccc" "cc", false },
    { "snapshot", co_snapshot,     "cccccccc" "cc", true },
    { "another stream", co_another, "--------" "-?", false },
    { "finalize", co_finalize,     "--------" "c-", false },
    { "dismiss", co_dismiss,       "--------" "-c", false },
    { "query", co_query,           "cccccccc" "cc", false },
};

static void co_life_of_a_cell(void *arg)
{
    struct life_case *c = arg;
    struct stream_args args = { .has_speed = true, .speed = 2 << 20, .auto_finalize = c->step != WAITS,
                                .auto_dismiss = c->step != ENDED };
    char expect = c->verb->expect[c->step], chain[16];
    struct error err = ERROR_INIT;
    uint64_t said;
    int ret;

    co_life_start("3000", NULL);
    c->job = co_life_stream(&args, c->kind->target, c->kind->base, &err);
    life_check(c->job != NULL, "refused: %s", TEXT(err));
    if (!c->job) {
        return;
    }
    co_to_the_step(c);
    if (c->verb->refused_on_top && c->kind->target == 'D' && c->step != ENDED) {
        expect = '-';
    }
    said = loop_now();
    ret = c->verb->co_do(c, &err);
    life_check(expect == '?' || (ret < 0) == (expect == '-'), "%s", ret < 0 ? TEXT(err) : "it is not refused");
    life_check((ret < 0) == error_is_set(&err), "refused without a word, or a word without a refusal");
    error_clear(&err);
    if (expect != 'x') { /* what was cancelled ends without help */
        job_resume(c->job->job, NULL);
        job_finalize(c->job->job, NULL);
    }
    co_life_wait(life_is_over, c->job, "the end");
    life_check(expect != 'x' || loop_now() - said < NS_PER_S / 5, "cancelled, and it goes on for %llu ns",
               (unsigned long long)(loop_now() - said));
    life_check(expect != 'x' || c->step > EARLY || c->job->job->offset < LIFE_SIZE / 2, "cancelled, and it copies on");
    job_dismiss(c->job->job, NULL);
    co_life_wait(life_is_gone, c->job, "the very end");
    co_job_cancel_all();
    life_check(c->job->outcome == (expect == 'x' ? CANCELLED : COMPLETES), "outcome %d", c->job->outcome);
    snprintf(chain, sizeof(chain), "%s%s", life.top == 'S' ? "S" : "", expect == 'x' ? c->kind->undone : c->kind->done);
    co_life_finish(expect == '?' ? NULL : chain, 0);
}

static void every_verb_at_every_step(const struct kind *kind, const char *cluster_size)
{
    life_begin(4, DENSE_B, cluster_size);
    for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
        for (enum step step = 0; step < N_STEPS; step++) {
            struct life_case c = { .kind = kind, .step = step, .verb = &verbs[v] };
            life_run(co_life_of_a_cell, &c, "%s, %s, %s", kind->name, verbs[v].name, step_names[step]);
        }
    }
    print_message("%s: %zu lives, %u durable states judged\n", kind->name, ARRAY_SIZE(verbs) * N_STEPS, life.states);
    life_end();
}

static void every_verb_does_what_it_should_at_every_step_of_a_whole_stream(void **state)
{
    every_verb_at_every_step(&kinds[0], "65536");
}

static void every_verb_does_what_it_should_at_every_step_of_a_stream_with_a_base(void **state)
{
    every_verb_at_every_step(&kinds[1], "4096");
}

static void every_verb_does_what_it_should_at_every_step_of_an_intermediate_stream(void **state)
{
    every_verb_at_every_step(&kinds[2], "65536");
}

static void every_verb_does_what_it_should_at_every_step_of_a_whole_intermediate_stream(void **state)
{
    every_verb_at_every_step(&kinds[3], "4096");
}

/* --- Several jobs ---------------------------------------------------------------------------------------------------------- */

/* H to A: each one's base is the next one's target. */
static const struct { char target, base, dropped; } neighbours[] = { { 'H', 'F', 'G' }, { 'F', 'D', 'E' }, { 'D', 'B', 'C' } };

enum neighbour_end { FINALIZED, TAKEN_BACK, BROKEN, N_NEIGHBOUR_ENDS };

struct together {
    unsigned n, order[3];
    unsigned ends[3];    /* enum neighbour_end of each job */
    bool by_speed;       /* they end by themselves, in that order */
};

static void expected_chain(const struct together *t, char *out)
{
    for (char letter = 'H'; letter >= 'A'; letter--) {
        bool gone = false;
        for (unsigned i = 0; i < t->n; i++) {
            gone |= neighbours[i].dropped == letter && t->ends[i] == FINALIZED;
        }
        if (!gone) {
            *out++ = letter;
        }
    }
    *out = '\0';
}

static bool all_pending(void *arg)
{
    for (unsigned i = 0; i < life.n_jobs; i++) {
        if (life.jobs[i].last != JOB_PENDING) {
            return false;
        }
    }
    return true;
}

static void end_neighbour(struct life_job *j, enum neighbour_end end)
{
    AUTOFREE char *path = mem_printf("/%c.img", j->target);
    struct io_sim_fault no_header = { .path = path, .ops = IO_SIM_WRITE, .len = 4096, .times = 1 };

    if (end == BROKEN) {
        io_sim_fault(&no_header);
    }
    life_check((end == TAKEN_BACK ? job_cancel(j->job, true, NULL) : job_finalize(j->job, NULL)) == 0, "cannot end %s", j->id);
}

static void co_end_in_order(const struct together *t)
{
    static const enum outcome_of_job ends[] = { COMPLETES, CANCELLED, FAILS };

    for (unsigned i = 0; i < t->n; i++) {
        struct life_job *j = &life.jobs[t->order[i]];

        if (!t->by_speed) {
            end_neighbour(j, t->ends[t->order[i]]);
        }
        co_life_wait(life_is_gone, j, "the end");
        life_check(j->outcome == ends[t->ends[t->order[i]]], "%s: outcome %d", j->id, j->outcome);
        for (unsigned k = i + 1; k < t->n; k++) {
            life_check(!life_is_over(&life.jobs[t->order[k]]), "job%u ended early", t->order[k]);
        }
    }
}

static void co_lives_together(void *arg)
{
    const struct together *t = arg;
    struct error err = ERROR_INIT;
    char chain[16];

    co_life_start("3000", NULL);
    for (unsigned i = 0; i < t->n; i++) {
        unsigned place = 0;
        while (t->order[place] != i) {
            place++;
        }
        struct stream_args args = { .auto_finalize = t->by_speed, .auto_dismiss = true, .has_speed = t->by_speed,
                                    .speed = (8u << 20) >> (2 * place) };
        life_check(co_life_stream(&args, neighbours[i].target, neighbours[i].base, &err) != NULL, "refused: %s", TEXT(err));
    }
    if (!t->by_speed) {
        co_life_wait(all_pending, NULL, "all of them");
    }
    co_end_in_order(t);
    expected_chain(t, chain);
    co_life_finish(chain, 0);
}

static const unsigned orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };

static void neighbouring_jobs_end_in_every_order(unsigned n)
{
    unsigned lives = 0, ways = n == 2 ? N_NEIGHBOUR_ENDS * N_NEIGHBOUR_ENDS : N_NEIGHBOUR_ENDS * N_NEIGHBOUR_ENDS * N_NEIGHBOUR_ENDS;

    life_begin(8, DENSE_CEG, "65536");
    for (unsigned o = 0; o < ARRAY_SIZE(orders); o++) {
        struct together t = { .n = n };
        unsigned k = 0;
        for (unsigned i = 0; i < 3; i++) {
            if (orders[o][i] < n) {
                t.order[k++] = orders[o][i];
            }
        }
        for (unsigned how = 0; how <= ways; how++, lives++) {
            t.by_speed = how == ways;
            for (unsigned i = 0, left = how; i < n; i++, left /= N_NEIGHBOUR_ENDS) {
                t.ends[i] = t.by_speed ? FINALIZED : left % N_NEIGHBOUR_ENDS;
            }
            life_run(co_lives_together, &t, "%u jobs, order %u%u%u, how %u", n, t.order[0], t.order[1], t.order[2], how);
        }
    }
    print_message("%u jobs: %u lives, %u durable states judged\n", n, lives, life.states);
    life_end();
}

static void two_neighbouring_jobs_end_in_every_order(void **state)
{
    neighbouring_jobs_end_in_every_order(2);
}

static void three_neighbouring_jobs_end_in_every_order(void **state)
{
    neighbouring_jobs_end_in_every_order(3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_does_what_it_should_at_every_step_of_a_whole_stream),
        cmocka_unit_test(every_verb_does_what_it_should_at_every_step_of_a_stream_with_a_base),
        cmocka_unit_test(every_verb_does_what_it_should_at_every_step_of_an_intermediate_stream),
        cmocka_unit_test(every_verb_does_what_it_should_at_every_step_of_a_whole_intermediate_stream),
        cmocka_unit_test(two_neighbouring_jobs_end_in_every_order),
        cmocka_unit_test(three_neighbouring_jobs_end_in_every_order),
    };
    return cmocka_run_group_tests_name("stream-life", tests, NULL, NULL);
}
