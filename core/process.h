/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * This program as a process of the host: into the background, the file with its number, where its
 * messages go.  Before the loop, or for an instant: nothing suspends.
 */
#ifndef CORE_PROCESS_H
#define CORE_PROCESS_H

#include "core/error.h"

/* Go on in the background, in a session of our own.  The process that was started waits until
 * process_daemon_ready() or our end, and ends with 0 or 1 itself; so this returns in the child only.
 * Before any thread is there.  0 or -errno with err. */
int process_daemonize(struct error *err);
/* Tell it; standard input, output and error are /dev/null from now on, unless messages go to a file.
 * Nothing when we are not in the background. */
void process_daemon_ready(void);

/* Write our number to a file, locked as long as we live.  0 or -errno with QEMU's words. */
int process_write_pid(const char *path, struct error *err);
void process_remove_pid(void);

/* Open (and empty) the file for messages; standard error goes there from process_use_log() on.  0 or -errno with
 * QEMU's words. */
int process_open_log(const char *path, struct error *err);
void process_use_log(void);

#endif
