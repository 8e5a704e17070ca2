/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scripts: lines of the human monitor from a file, from the command line, from a pipe; with a transcript.
 *
 *   blank lines, and lines that begin with #      are passed over
 *   -COMMAND                                      may fail
 *   !COMMAND                                      must fail
 *
 * The transcript is the prompt and the line once, then the answer.  All functions suspend; they return what the script
 * came to: OUTCOME_GOOD, or the outcome of the first line that failed, which has been given to outcome_note() as well.
 */
#ifndef MONITOR_SCRIPT_H
#define MONITOR_SCRIPT_H

#include "monitor/monitor.h"

/* -f FILE; "-" is standard input.  `stop`: at the first line that fails.  What cannot be read is said on standard error. */
enum outcome co_script_file(struct monitor *mon, const char *path, bool stop);
/* -c COMMAND: one line, or several. */
enum outcome co_script_text(struct monitor *mon, const char *name, const char *text, bool stop);
/* Lines from a descriptor to its end, or until the program is to end.  `plain`: as QEMU's monitor reads them: what begins
 * with #, - or ! is a command like any other, and one that fails does not count in the exit code. */
enum outcome co_script_stream(struct monitor *mon, const char *name, int fd, bool stop, bool plain);
/* The command `source FILE`: stops at the first failing line and fails then. */
int co_script_source(struct monitor *mon, const char *path, struct error *err);

#endif
