/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an operator says to a job, and what a job says of itself.  The verbs only set wishes and kick the job (J2 in job.c); each
 * is refused with QEMU's words in a state in which it means nothing.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "jobs/job-inside.h"

static int refuse(const struct job *job, const char *verb, struct error *err)
{
    error_set(err, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id, job_status_name(job->status), verb);
    return -EPERM;
}

static int refuse_ended(const struct job *job, const char *verb, struct error *err)
{
    return job->status < JOB_WAITING && job->status > JOB_CREATED ? 0 : refuse(job, verb, err);
}

/* The pace is another one from now on. */
static void forget_pace(struct job *job)
{
    job->next_ns = 0;
    progress_restart(&job->progress, loop_now(), job->data_done);
    if (!job->paused) {
        job_kick(job);
    }
}

int job_set_speed(struct job *job, int64_t speed, struct error *err)
{
    if (speed < 0) {
        error_set(err, "Parameter 'speed' expects a non-negative value");
        return -EINVAL;
    }
    if (job->status != JOB_CREATED && refuse_ended(job, "set-speed", err) < 0) {
        return -EPERM;
    }
    job->speed = speed;
    forget_pace(job);
    return 0;
}

int job_set_latency(struct job *job, int64_t target_ns, struct error *err)
{
    if (target_ns < 0) {
        error_set(err, "Parameter 'latency' expects a non-negative value");
        return -EINVAL;
    }
    if (job->status != JOB_CREATED && refuse_ended(job, "set-latency", err) < 0) {
        return -EPERM;
    }
    latency_control_init(&job->latency, target_ns, loop_now());
    forget_pace(job);
    return 0;
}

int job_pause(struct job *job, struct error *err)
{
    if (refuse_ended(job, "pause", err) < 0) {
        return -EPERM;
    }
    if (job->user_paused) {
        error_set(err, "Job is already paused");
        return -EBUSY;
    }
    job->user_paused = true;
    job->pause_count++;
    job_kick(job);
    return 0;
}

int job_resume(struct job *job, struct error *err)
{
    if (!job->user_paused) {
        error_set(err, "Can't resume a job that was not paused");
        return -EPERM;
    }
    if (refuse_ended(job, "resume", err) < 0) {
        return -EPERM;
    }
    job->user_paused = false;
    job->io_status = JOB_IO_OK;
    assert(job->pause_count > 0);
    job->pause_count--;
    job_kick(job);
    return 0;
}

int job_cancel(struct job *job, bool force, struct error *err)
{
    if (job->user_paused && !force) {
        error_set(err, "The block job for device '%s' is currently paused", job->id);
        return -EBUSY;
    }
    if (job->status == JOB_CONCLUDED || job->status == JOB_NULL || job->status == JOB_ABORTING) {
        return refuse(job, "cancel", err);
    }
    if (job->status == JOB_READY && !force) {
        job->decision = JOB_LEAVE;
    } else {
        job->cancelled = true;
        job->force |= force;
        if (job->user_paused) { /* it does not stand still any more */
            job->user_paused = false;
            job->pause_count--;
        }
    }
    job_kick(job);
    return 0;
}

int job_complete(struct job *job, struct error *err)
{
    if (job->status != JOB_READY) {
        return refuse(job, "complete", err);
    }
    job->decision = JOB_COMPLETE;
    job_kick(job);
    return 0;
}

int job_finalize(struct job *job, struct error *err)
{
    if (job->status != JOB_PENDING || job->auto_finalize) {
        return refuse(job, "finalize", err);
    }
    job->finalize = true;
    job_kick(job);
    return 0;
}

int job_dismiss(struct job *job, struct error *err)
{
    if (job->status != JOB_CONCLUDED) {
        return refuse(job, "dismiss", err);
    }
    job_forget(job);
    return 0;
}

/* --- Descriptions --------------------------------------------------------------------------------------------------- */

json_t *job_describe(const struct job *job)
{
    static const char *const io[] = { "ok", "failed", "nospace" };
    bool busy = job->status == JOB_RUNNING && !job->sleeper;
    json_t *out = json_pack("{s:b, s:s, s:s, s:b, s:b, s:I, s:I, s:s, s:b, s:I, s:b, s:s}",
                            "auto-finalize", job->auto_finalize, "io-status", io[job->io_status], "device", job->id,
                            "auto-dismiss", job->auto_dismiss, "busy", busy, "len", (json_int_t)job->len,
                            "offset", (json_int_t)job->offset, "status", job_status_name(job->status),
                            "paused", job->pause_count > 0, "speed", (json_int_t)job->speed,
                            "ready", job->status == JOB_READY || job->status == JOB_STANDBY, "type", job->kind->name);

    if (error_is_set(&job->err)) {
        json_object_set_new(out, "error", json_string(job->err.text));
    }
    return out;
}

json_t *job_describe_short(const struct job *job)
{
    json_t *out = json_pack("{s:I, s:s, s:I, s:s, s:s}", "current-progress", (json_int_t)job->offset, "status",
                            job_status_name(job->status), "total-progress", (json_int_t)job->len, "type", job->kind->name,
                            "id", job->id);

    if (error_is_set(&job->err)) {
        const char *text = job->err.text;

        json_object_set_new_nocheck(out, "error", json_stringn_nocheck(text, strlen(text)));
    }
    return out;
}
