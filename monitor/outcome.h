/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What became of the jobs, and the exit code.
 *
 * Jobs vanish when they end.  A script that starts one and then waits for it may come too late: how each job ended is
 * remembered here, by its name, until the next job of that name ends.
 *
 * The exit code, most telling first: 6 the guest saw wrong data; what the first failing line of a script came to (3, 4, 5,
 * 124); 4 a job failed that no script has forgiven, or a job or the machine is left waiting for a decision; 0.
 */
#ifndef MONITOR_OUTCOME_H
#define MONITOR_OUTCOME_H

#include "jobs/job.h"
#include "monitor/monitor.h"

struct job_record {
    TAILQ_ENTRY(job_record) link;
    char *id;
    int ret;          /* 0 or -errno */
    bool cancelled;
    char *text;       /* the error's sentence; NULL when it did not fail */
    bool told;        /* a wait has reported this failure */
    bool forgiven;    /* and the script said that it may happen */
};
TAILQ_HEAD(job_record_list, job_record);
extern struct job_record_list job_records; /* in the order in which they ended */

/* Begin and end to listen to jobs. */
void outcome_init(void);
void outcome_fini(void);

/* How the last job of that name ended, NULL when none has. */
struct job_record *job_record_find(const char *id);
bool job_record_failed(const struct job_record *record);
/* The line that told of failures was allowed to fail: they do not count any more. */
void outcome_forgive_told(void);
/* A script's line failed; the first such outcome stays. */
void outcome_note(enum outcome outcome);
/* Can this job go on by itself?  Not when it is paused by somebody, ready, or waits to be finalized. */
bool job_is_stuck(const struct job *job);
/* Wait until every job has ended or is stuck: at the end of the input.  As co_monitor_wait(). */
int co_outcome_wait_jobs(struct monitor *mon);
/* Is the machine stopped by an I/O error, so that somebody has to decide what becomes of its guests' requests? */
bool outcome_machine_waits(void);
/* The exit code as things stand.  To be asked before jobs are cancelled on the way out. */
int outcome_exit_code(void);

#endif
