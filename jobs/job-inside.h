/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between job.c (a job's life) and job-verbs.c (what is said to it), and for nobody else. */
#ifndef JOBS_JOB_INSIDE_H
#define JOBS_JOB_INSIDE_H

#include "jobs/job.h"

/* Wake the job's coroutine if it sleeps or stands still, so that it looks at what is wished. */
void job_kick(struct job *job);
/* Take a concluded job (or one that was never started) off the list; status null. */
void job_forget(struct job *job);

#endif
