/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How jobs ended, and the exit code: see outcome.h.
 */
#include "monitor/outcome.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hw/guest.h"
#include "hw/machine.h"

struct job_record_list job_records = TAILQ_HEAD_INITIALIZER(job_records);
static enum outcome noted;

struct job_record *job_record_find(const char *id)
{
    struct job_record *record;

    TAILQ_FOREACH(record, &job_records, link) {
        if (!strcmp(record->id, id)) {
            return record;
        }
    }
    return NULL;
}

bool job_record_failed(const struct job_record *record)
{
    return record->ret < 0 && !record->cancelled;
}

static void record_free(struct job_record *record)
{
    TAILQ_REMOVE(&job_records, record, link);
    free(record->id);
    free(record->text);
    free(record);
}

/* --- Listening ------------------------------------------------------------------------------------------------------- */

static void job_changed(struct job_listener *l, struct job *job)
{
    monitor_wake_waiters();
}

static void job_completed(struct job_listener *l, struct job *job)
{
    struct job_record *old = job_record_find(job->id), *record = mem_zalloc(sizeof(*record));

    record->id = mem_strdup(job->id);
    record->ret = job->ret;
    record->cancelled = job->cancelled;
    if (job_record_failed(record)) {
        record->text = mem_strdup(job->err.text ? job->err.text : strerror(-job->ret));
    }
    if (old && job_record_failed(old) && !old->forgiven) {
        outcome_note(OUTCOME_JOB); /* its record goes, what it came to stays */
    }
    if (old) {
        record_free(old);
    }
    TAILQ_INSERT_TAIL(&job_records, record, link);
    monitor_wake_waiters();
}

static void job_error(struct job_listener *l, struct job *job, bool is_read, const char *action)
{
    monitor_wake_waiters(); /* it may be paused now */
}

static struct job_listener listener = {
    .status_changed = job_changed,
    .completed = job_completed,
    .error = job_error,
    .ready = job_changed,
};

void outcome_init(void)
{
    noted = OUTCOME_GOOD;
    job_listen(&listener);
}

void outcome_fini(void)
{
    job_unlisten(&listener);
    while (!TAILQ_EMPTY(&job_records)) {
        record_free(TAILQ_FIRST(&job_records));
    }
}

/* --- The exit code ----------------------------------------------------------------------------------------------------- */

void outcome_forgive_told(void)
{
    struct job_record *record;

    TAILQ_FOREACH(record, &job_records, link) {
        record->forgiven = record->forgiven || record->told;
    }
}

void outcome_note(enum outcome outcome)
{
    if (noted == OUTCOME_GOOD) {
        noted = outcome;
    }
}

bool job_is_stuck(const struct job *job)
{
    return !job_ended(job) && (job->user_paused || (job->status == JOB_READY && job->decision == JOB_UNDECIDED) ||
                               (job->status == JOB_PENDING && !job->auto_finalize && !job->finalize));
}

static bool nothing_goes_on(void *arg)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job_ended(job) && !job_is_stuck(job)) {
            return false;
        }
    }
    return true;
}

int co_outcome_wait_jobs(struct monitor *mon)
{
    return co_monitor_wait(mon, nothing_goes_on, NULL, UINT64_MAX);
}

bool outcome_machine_waits(void)
{
    return machine_state() == RUN_IO_ERROR;
}

int outcome_exit_code(void)
{
    struct job_record *record;
    struct job *job;

    if (guest_any_mismatch() || guest_any_error()) {
        return OUTCOME_GUEST;
    }
    if (noted != OUTCOME_GOOD) {
        return noted;
    }
    TAILQ_FOREACH(record, &job_records, link) {
        if (job_record_failed(record) && !record->forgiven) {
            return OUTCOME_JOB;
        }
    }
    TAILQ_FOREACH(job, &all_jobs, link) {
        if (job_is_stuck(job)) {
            return OUTCOME_JOB;
        }
    }
    return outcome_machine_waits() ? OUTCOME_JOB : OUTCOME_GOOD;
}
