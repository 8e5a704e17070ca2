/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: a coroutine with a drawn state machine, the same for all kinds, states and events as QMP's.
 *
 *   created -> running <-> paused
 *                |  \____> ready <-> standby          (mirror-like kinds only)
 *                |            |
 *                +-> waiting -> pending -> concluded -> null
 *                |              | failure or cancel
 *                +-> aborting --+-> concluded -> null
 *
 * A job holds the nodes it uses (job_block()): a second job that would conflict is refused by naming the holder.  A job asks
 * co_job_pause_point() between slices; it sleeps for its speed limit there, and pauses there.
 */
#ifndef JOBS_JOB_H
#define JOBS_JOB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/disk.h"
#include "block/node.h"
#include "core/co.h"
#include "core/error.h"
#include "core/loop.h"
#include "jobs/latency.h"
#include "jobs/progress.h"

enum job_status {
    JOB_UNDEFINED, JOB_CREATED, JOB_RUNNING, JOB_PAUSED, JOB_READY, JOB_STANDBY, JOB_WAITING, JOB_PENDING,
    JOB_ABORTING, JOB_CONCLUDED, JOB_NULL,
};
enum job_on_error { JOB_ON_ERROR_REPORT, JOB_ON_ERROR_IGNORE, JOB_ON_ERROR_STOP, JOB_ON_ERROR_ENOSPC };
enum job_decision { JOB_UNDECIDED, JOB_COMPLETE, JOB_LEAVE }; /* what is to become of a job that is ready */
enum job_io_status { JOB_IO_OK, JOB_IO_FAILED, JOB_IO_NOSPACE };

struct job;
struct job_kind {
    const char *name; /* "stream" */
    bool plain;       /* no block job in QEMU's sense: only the job-* commands and JOB_STATUS_CHANGE know it */
    /* The work.  0 or -errno with err filled when it has more to say.  Must end soon after job_is_cancelled(). */
    int (*co_run)(struct job *job, struct error *err);
    /* The last step (state pending, after job-finalize): make the result durable, then pivot.  Nothing has changed for anybody when
     * it fails.  May be NULL. */
    int (*co_prepare)(struct job *job, struct error *err);
    /* Give back what start took; after all that, whatever its result. */
    void (*co_clean)(struct job *job);
};

struct job_hold { /* a node that the job uses */
    LIST_ENTRY(job_hold) link;
    struct node *node;
};

struct job {
    TAILQ_ENTRY(job) link;
    char *id;
    const struct job_kind *kind;
    enum job_status status;
    void *state;             /* the kind's own */
    char *description;       /* what it does between which images, for people: "A.img <- D.img"; owned */
    uint64_t offset, len;    /* progress as QMP shows it, bytes */
    uint64_t data_done;      /* bytes of real data copied */
    struct progress progress; /* bytes of real data to copy, and how fast it goes; size 0: the kind does not know */
    bool counting;           /* finding out what there is to copy */
    struct latency_control latency; /* holds back for the guest's sake */
    uint64_t speed;          /* bytes per second, 0 = no limit */
    enum job_on_error on_error;
    enum job_io_status io_status;
    int last_error;          /* errno of what came up last */
    bool auto_finalize, auto_dismiss;
    bool finalize;           /* job-finalize was said */
    bool user_paused;
    unsigned pause_count;
    bool paused;             /* really standing still */
    bool cancelled, force;
    enum job_decision decision;
    int ret;
    struct error err;
    uint64_t started_ns, ended_ns;
    struct co *co;
    /* private to job.c */
    LIST_HEAD(, job_hold) holds;
    struct co_queue done_queue;  /* co_job_wait() */
    struct co *sleeper;          /* the job's coroutine while it sleeps or stands still */
    struct loop_timer timer;
    uint64_t next_ns;            /* the speed limit lets the next byte pass from then on */
    uint64_t ignored_ns;         /* when an error that is ignored was told last; 0: never */
    unsigned refs;
};
TAILQ_HEAD(job_list, job);
extern struct job_list all_jobs; /* the newest first, as QEMU lists them */

/* Make a job in state created; id must be well-formed (QEMU's rules) and free.  NULL with QEMU's words in err. */
struct job *job_new(const char *id, const struct job_kind *kind, enum job_on_error on_error, struct error *err);
void job_start(struct job *job);
/* Undo job_new() before job_start(). */
void job_abandon(struct job *job);
struct job *job_find(const char *id);
struct job *job_ref(struct job *job);
void job_unref(struct job *job);
const char *job_status_name(enum job_status status);
bool job_is_cancelled(const struct job *job);
bool job_ended(const struct job *job);

/* For kinds: hold a node as busy; refuse politely when it is. */
int job_hold(struct job *job, struct node *node, struct error *err);
void job_progress(struct job *job, uint64_t offset);
/* `done` bytes of real data have been copied. */
void job_data_done(struct job *job, uint64_t done);
/* Bytes of real data, copied and to copy; 0 while that is not known (and when there is none). */
uint64_t job_data_total(const struct job *job);
/* How fast the job may go now, bytes per second: its speed limit, or less when a guest suffers; 0: no limit. */
uint64_t job_pace(const struct job *job);
/* How many bytes to move at once at most, so that this pace is even and a guest's request does not have to wait for long. */
uint64_t job_slice(const struct job *job, uint64_t max);
/* The p99 latency of the guests of the job's disks over the last seconds, ns; 0: no requests. */
uint64_t job_guest_p99(const struct job *job);
/* Account `bytes` against the speed limit, then pause or sleep as long as asked for. */
void co_job_pause_point(struct job *job, uint64_t bytes);
/* A read or write failed: what does the policy say?  Raises BLOCK_JOB_ERROR, for what is ignored at most ten times a second;
 * pauses the job for `stop`. */
enum job_error_action { JOB_ACTION_REPORT, JOB_ACTION_IGNORE, JOB_ACTION_STOP };
enum job_error_action co_job_error(struct job *job, bool is_read, int error);

/* For kinds that hold two images the same until the operator decides: all is copied and stays so.  Says so (BLOCK_JOB_READY) and
 * waits: JOB_COMPLETE (block-job-complete: end in the new place), JOB_LEAVE (cancelled without force: end well in the old one),
 * or -ECANCELED (by force).  Suspends. */
int co_job_ready(struct job *job);

/* The operator's verbs; 0 or -errno with QEMU's words in err. */
int job_set_speed(struct job *job, int64_t speed, struct error *err);
/* Back off while the guest's p99 is above this, ns; 0: no target. */
int job_set_latency(struct job *job, int64_t target_ns, struct error *err);
int job_pause(struct job *job, struct error *err);
int job_resume(struct job *job, struct error *err);
/* Returns at once; the job ends later.  One that is ready and not forced ends well, and its images stay as they are. */
int job_cancel(struct job *job, bool force, struct error *err);
/* Wait until the job has concluded. Takes no reference: use job_ref(). */
void co_job_wait(struct job *job);
/* Or until it waits for job-finalize. */
void co_job_wait_decision(struct job *job);
/* Only a job that is ready, see co_job_ready(). */
int job_complete(struct job *job, struct error *err);
int job_finalize(struct job *job, struct error *err);
int job_dismiss(struct job *job, struct error *err);
void co_job_cancel_all(void);
bool job_any(void);

/* query-block-jobs' object: {"auto-finalize", "io-status", "device", "auto-dismiss", "busy", "len", "offset", "status",
 * "paused", "speed", "ready", "type"[, "error"]}; new reference. */
json_t *job_describe(const struct job *job);
/* query-jobs': {"current-progress", "status", "total-progress", "type", "id"[, "error"]}; new reference. */
json_t *job_describe_short(const struct job *job);

struct job_listener {
    LIST_ENTRY(job_listener) link;
    void (*status_changed)(struct job_listener *l, struct job *job); /* JOB_STATUS_CHANGE */
    /* BLOCK_JOB_COMPLETED (ret 0, or failure with job->err) or _CANCELLED when job->cancelled. */
    void (*completed)(struct job_listener *l, struct job *job);
    void (*error)(struct job_listener *l, struct job *job, bool is_read, const char *action);
    void (*ready)(struct job_listener *l, struct job *job);
};
void job_listen(struct job_listener *l);
void job_unlisten(struct job_listener *l);

/* --- Kinds ------------------------------------------------------------------------------------------------------------- */
struct stream_args {
    const char *device;       /* disk id or node-name */
    const char *job_id;       /* NULL: the disk's id */
    const char *base;         /* file name as recorded, or path; or NULL */
    const char *base_node;    /* node-name; or NULL */
    const char *bottom;       /* node-name of the lowest image that is merged; or NULL */
    const char *backing_file; /* string to record instead of the base's own; or NULL */
    const char *filter_name;  /* of the node that QEMU's job has; or NULL */
    bool has_speed;
    int64_t speed;
    int64_t latency;          /* ns; 0: no target */
    enum job_on_error on_error;
    bool auto_finalize, auto_dismiss;
    bool finalize;           /* job-finalize was said */
};
/* Start a stream.  Suspends (reopens the target read-write when it is an intermediate image). */
int co_stream_start(const struct stream_args *args, struct error *err);

struct create_args {
    const char *job_id;
    json_t *options;          /* {"driver": ..., and what that driver's create_keys say}, checked; borrowed */
    bool overwrite;           /* also where something is */
};
/* Start to make an image: blockdev-create.  What goes wrong at once, and small images, are done when it returns. */
int co_create_start(const struct create_args *args, struct error *err);

#endif
