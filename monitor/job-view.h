/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `info block-jobs`: QEMU's line a job, and below it, with -v, what a person wants to know who waits for it.
 */
#ifndef MONITOR_JOB_VIEW_H
#define MONITOR_JOB_VIEW_H

#include "monitor/monitor.h"

/* The row's printer: an array of query-block-jobs' objects, with or without what -v adds (commands-job.c). */
void job_view_print(struct monitor *mon, const json_t *args, const json_t *result);

#endif
