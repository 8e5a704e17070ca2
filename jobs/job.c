/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a job (the drawing is in job.h): one coroutine from running to null.
 *
 *   J1  a job's status changes only in set_status(), which tells the listeners
 *   J2  the coroutine alone moves the job on; the operator's verbs set wishes (pause, cancel, finalize) and kick it
 *   J3  BLOCK_JOB_COMPLETED comes after co_prepare(), so after the result is durable and the graph re-linked
 *   J4  a cancelled job changes nothing any more: co_prepare() is not run for it
 */
#include "jobs/job-inside.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/filter.h"
#include "core/mem.h"
#include "core/trace.h"

#define SLICE_NS (100 * NS_PER_MS) /* a limited job moves at most this much time's worth at once */
#define TELL_IGNORED_NS (100 * NS_PER_MS) /* errors that are ignored are told this often */

struct job_list all_jobs = TAILQ_HEAD_INITIALIZER(all_jobs);
static LIST_HEAD(, job_listener) listeners = LIST_HEAD_INITIALIZER(listeners);

static const char *const status_names[] = {
    "undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null",
};

const char *job_status_name(enum job_status status)
{
    return status_names[status];
}

void job_listen(struct job_listener *l)
{
    LIST_INSERT_HEAD(&listeners, l, link);
}

void job_unlisten(struct job_listener *l)
{
    LIST_REMOVE(l, link);
}

#define TELL(job, member, ...)                                \
    do {                                                      \
        struct job_listener *l_;                              \
        LIST_FOREACH(l_, &listeners, link) {                  \
            if (l_->member) {                                 \
                l_->member(l_, job __VA_OPT__(, ) __VA_ARGS__); \
            }                                                 \
        }                                                     \
    } while (0)

static void set_status(struct job *job, enum job_status status)
{
    if (job->status != status) {
        trace(TRACE_JOB_STATE, "%s (%s-->%s)", job->id, job_status_name(job->status), job_status_name(status));
        job->status = status;
        TELL(job, status_changed);
    }
}

/* --- Birth and references ---------------------------------------------------------------------------------- */

struct job *job_find(const char *id)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (strcmp(job->id, id) == 0) {
            return job;
        }
    }
    return NULL;
}

struct job *job_ref(struct job *job)
{
    job->refs++;
    return job;
}

void job_unref(struct job *job)
{
    if (--job->refs > 0) {
        return;
    }
    assert(LIST_EMPTY(&job->holds));
    progress_fini(&job->progress);
    error_clear(&job->err);
    free(job->description);
    free(job->id);
    free(job);
}

void job_kick(struct job *job)
{
    struct co *sleeper = job->sleeper;

    loop_timer_cancel(&job->timer);
    job->sleeper = NULL;
    if (sleeper) {
        co_wake(sleeper);
    }
}

static void on_timer(void *arg)
{
    job_kick(arg);
}

struct job *job_new(const char *id, const struct job_kind *kind, enum job_on_error on_error, struct error *err)
{
    struct job *job;

    if (!id_wellformed(id)) {
        error_set(err, "Invalid job ID '%s'", id);
        return NULL;
    }
    if (job_find(id)) {
        error_set(err, "Job ID '%s' already in use", id);
        return NULL;
    }
    job = mem_zalloc(sizeof(*job));
    job->id = mem_strdup(id);
    job->kind = kind;
    job->refs = 1;
    job->on_error = on_error;
    job->auto_finalize = job->auto_dismiss = true;
    LIST_INIT(&job->holds);
    co_queue_init(&job->done_queue);
    loop_timer_init(&job->timer, on_timer, job);
    latency_control_init(&job->latency, 0, 0);
    TAILQ_INSERT_HEAD(&all_jobs, job, link);
    set_status(job, JOB_CREATED);
    return job;
}

int job_hold(struct job *job, struct node *node, struct error *err)
{
    static LIST_HEAD(, reason) reasons = LIST_HEAD_INITIALIZER(reasons);
    struct reason {
        LIST_ENTRY(reason) link;
        const struct job_kind *kind;
        char *text;
    } *reason;
    struct job_hold *hold;

    if (node_check_free(node, err) < 0) {
        return -EBUSY;
    }
    LIST_FOREACH(reason, &reasons, link) {
        if (reason->kind == job->kind) {
            break;
        }
    }
    if (!reason) { /* one string a kind, for the life of the program */
        reason = mem_zalloc(sizeof(*reason));
        reason->kind = job->kind;
        reason->text = mem_printf("block device is in use by block job: %s", job->kind->name);
        LIST_INSERT_HEAD(&reasons, reason, link);
    }
    hold = mem_zalloc(sizeof(*hold));
    hold->node = node_ref(node);
    node->busy_reason = reason->text;
    LIST_INSERT_HEAD(&job->holds, hold, link);
    return 0;
}

static struct node *release_hold(struct job *job)
{
    struct job_hold *hold = LIST_FIRST(&job->holds);
    struct node *node = hold->node;

    LIST_REMOVE(hold, link);
    node->busy_reason = NULL;
    free(hold);
    return node;
}

static void co_release_holds(struct job *job)
{
    while (!LIST_EMPTY(&job->holds)) {
        co_node_unref(release_hold(job)); /* layers that were merged away close here */
    }
}

void job_forget(struct job *job)
{
    set_status(job, JOB_NULL);
    TAILQ_REMOVE(&all_jobs, job, link);
    job_unref(job);
}

void job_abandon(struct job *job)
{
    while (!LIST_EMPTY(&job->holds)) {
        node_unref_shared(release_hold(job)); /* the chain it belongs to has a reference of its own */
    }
    job_forget(job);
}

/* --- Life ---------------------------------------------------------------------------------------------------- */

bool job_is_cancelled(const struct job *job)
{
    return job->cancelled;
}

bool job_ended(const struct job *job)
{
    return job->status == JOB_CONCLUDED || job->status == JOB_NULL;
}

/* Suspend the job's coroutine until it is kicked, or until `when` (0: only kicked). */
static void co_sleep_kickable(struct job *job, uint64_t when)
{
    assert(!job->sleeper);
    job->sleeper = co_self();
    if (when) {
        loop_timer_arm(&job->timer, when);
    }
    co_suspend();
}

static void co_stand_still(struct job *job)
{
    enum job_status before = job->status;

    set_status(job, before == JOB_READY ? JOB_STANDBY : JOB_PAUSED);
    job->paused = true;
    while (job->pause_count > 0 && !job->cancelled) {
        co_sleep_kickable(job, 0);
    }
    job->paused = false;
    progress_restart(&job->progress, loop_now(), job->data_done);
    set_status(job, before);
}

uint64_t job_pace(const struct job *job)
{
    uint64_t pace = job->latency.target_ns ? job->latency.pace : LATENCY_PACE_FREE;

    pace = job->speed ? MIN(job->speed, pace) : pace;
    return pace == LATENCY_PACE_FREE ? 0 : pace;
}

uint64_t job_slice(const struct job *job, uint64_t max)
{
    uint64_t pace = job_pace(job), ns = SLICE_NS;

    if (job->latency.target_ns) {
        ns = MIN(ns, job->latency.target_ns);
    }
    return pace ? (uint64_t)MIN((__uint128_t)pace * ns / NS_PER_S, (__uint128_t)max) : max;
}

/* Does this disk show its guest an image of ours? All images of a job are of one chain. */
static bool disk_is_above(const struct disk *disk, const struct job *job)
{
    const struct job_hold *hold = LIST_FIRST(&job->holds);

    return hold && disk->root && node_depth(filter_skip(disk->root), hold->node) >= 0;
}

uint64_t job_guest_p99(const struct job *job)
{
    uint64_t p99 = 0;
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk_is_above(disk, job)) {
            p99 = MAX(p99, latency_window_percentile(&disk->latencies, loop_now(), 990));
        }
    }
    return p99;
}

/* The guests of all disks that stand on an image of ours: do they suffer? */
static void look_at_guests(struct job *job)
{
    struct latency_control *c = &job->latency;
    uint64_t now = loop_now(), all = 0, above = 0, before = c->pace;
    bool busy = false; /* since the last look, a period before next_ns */
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk_is_above(disk, job)) {
            uint64_t n, slow;
            latency_window_count(&disk->latencies, c->since_ns, c->target_ns, &n, &slow);
            all += n;
            above += slow;
            busy |= disk->latencies.last_ns && disk->latencies.last_ns + LATENCY_PERIOD_NS > c->next_ns;
        }
    }
    latency_control_decide(c, now, all, above, busy);
    if (c->pace > before) {
        job->next_ns = MIN(job->next_ns, now); /* what it owes at the old pace is forgiven */
    }
}

/* Until when must it wait before the next byte?  0: not at all. */
static uint64_t wait_until(struct job *job)
{
    uint64_t now = loop_now();

    if (job->cancelled) {
        return 0;
    }
    if (job->latency.target_ns && now >= job->latency.next_ns) {
        look_at_guests(job);
    }
    if (!job_pace(job) || job->next_ns <= now) {
        return 0;
    }
    return job->latency.target_ns ? MIN(job->next_ns, job->latency.next_ns) : job->next_ns;
}

void co_job_pause_point(struct job *job, uint64_t bytes)
{
    uint64_t now = loop_now(), pace = job_pace(job), until;

    if (pace && bytes) {
        job->next_ns = MAX(job->next_ns, now) + (uint64_t)((__uint128_t)bytes * NS_PER_S / pace);
    }
    do {
        if (job->pause_count > 0 && !job->cancelled) {
            co_stand_still(job);
        }
        until = wait_until(job);
        if (until) {
            co_sleep_kickable(job, until);
        }
    } while (!job->cancelled && (job->pause_count > 0 || until));
}

int co_job_ready(struct job *job)
{
    set_status(job, JOB_READY);
    TELL(job, ready);
    while (job->decision == JOB_UNDECIDED && !job->cancelled) {
        if (job->pause_count > 0) {
            co_stand_still(job);
        } else {
            co_sleep_kickable(job, 0);
        }
    }
    return job->cancelled ? -ECANCELED : (int)job->decision;
}

void job_data_done(struct job *job, uint64_t done)
{
    job->data_done = done;
    progress_sample(&job->progress, loop_now(), done);
}

uint64_t job_data_total(const struct job *job)
{
    return job->counting ? 0 : MAX(job->progress.total, job->data_done);
}

void job_progress(struct job *job, uint64_t offset)
{
    job->offset = offset;
}

/* A table that is wrong may fail a hundred thousand windows in a second: more than a client can read (qmp.c). */
static bool tells_again(struct job *job)
{
    uint64_t now = loop_now();

    if (job->ignored_ns && now - job->ignored_ns < TELL_IGNORED_NS) {
        return false;
    }
    job->ignored_ns = now;
    return true;
}

enum job_error_action co_job_error(struct job *job, bool is_read, int error)
{
    enum job_error_action action;

    error = error < 0 ? -error : error;
    job->last_error = error;
    switch (job->on_error) {
    case JOB_ON_ERROR_IGNORE:
        action = JOB_ACTION_IGNORE;
        break;
    case JOB_ON_ERROR_STOP:
        action = JOB_ACTION_STOP;
        break;
    case JOB_ON_ERROR_ENOSPC:
        action = error == ENOSPC ? JOB_ACTION_STOP : JOB_ACTION_REPORT;
        break;
    default:
        action = JOB_ACTION_REPORT;
    }
    static const char *const names[] = { "report", "ignore", "stop" };
    if (action != JOB_ACTION_IGNORE || tells_again(job)) {
        TELL(job, error, is_read, names[action]);
    }
    if (action == JOB_ACTION_STOP) {
        job->io_status = error == ENOSPC ? JOB_IO_NOSPACE : JOB_IO_FAILED;
        if (!job->user_paused) {
            job->user_paused = true;
            job->pause_count++;
        }
        co_job_pause_point(job, 0);
    }
    return action;
}

static void co_wait_finalize(struct job *job)
{
    co_queue_wake_all(&job->done_queue); /* for who wants to hear of that as well */
    while (!job->auto_finalize && !job->finalize && !job->cancelled) {
        co_sleep_kickable(job, 0);
    }
}

static int co_finish_well(struct job *job)
{
    set_status(job, JOB_WAITING);
    set_status(job, JOB_PENDING);
    co_wait_finalize(job);
    if (job->cancelled) {
        return -ECANCELED;
    }
    return job->kind->co_prepare ? job->kind->co_prepare(job, &job->err) : 0;
}

static CO_ENTRY void co_job_life(void *arg)
{
    struct job *job = arg;
    int ret;

    set_status(job, JOB_RUNNING);
    job->started_ns = loop_now();
    ret = job->kind->co_run(job, &job->err);
    if (job->cancelled) {
        ret = -ECANCELED;
    }
    if (ret == 0) {
        ret = co_finish_well(job);
    }
    if (ret < 0) {
        set_status(job, JOB_ABORTING);
        if (!error_is_set(&job->err)) {
            error_set(&job->err, "%s", strerror(-ret));
        }
    }
    job->ret = ret;
    job->ended_ns = loop_now();
    if (job->kind->co_clean) {
        job->kind->co_clean(job);
    }
    co_release_holds(job);
    job->cancelled = ret == -ECANCELED;
    TELL(job, completed);
    set_status(job, JOB_CONCLUDED);
    job->co = NULL;
    co_queue_wake_all(&job->done_queue);
    if (job->auto_dismiss) {
        job_forget(job);
    }
}

void job_start(struct job *job)
{
    co_start(co_job_life, job);
}

/* --- All of them ---------------------------------------------------------------------------------------------------- */

void co_job_wait(struct job *job)
{
    while (!job_ended(job)) {
        co_queue_wait(&job->done_queue);
    }
}

void co_job_wait_decision(struct job *job)
{
    while (!job_ended(job) && job->status != JOB_PENDING) {
        co_queue_wait(&job->done_queue);
    }
}

bool job_any(void)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job_ended(job)) {
            return true;
        }
    }
    return false;
}

void co_job_cancel_all(void)
{
    struct job *job;
again:
    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job_ended(job)) {
            job_ref(job);
            job_cancel(job, true, NULL);
            co_job_wait(job);
            job_unref(job);
            goto again;
        }
    }
}
