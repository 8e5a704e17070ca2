/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor for machines: JSON in, JSON out, a session per connection.
 *
 *        connected             qmp_capabilities              end of input
 *   --> greeting -> negotiating ----------------> commands ---------------> gone
 *
 * Commands of a session run one after another in its coroutine; each has one answer.  Events go to
 * every session that has negotiated, between answers, never inside one.  What is told of a change
 * comes before the answer to the command that made it.  The answer to `quit` comes last, behind
 * what the end of the jobs had to tell.
 */
#ifndef MONITOR_QMP_H
#define MONITOR_QMP_H

#include "monitor/chardev.h"
#include "monitor/monitor.h"

/* Serve one client (chardev.h); `arg` points to a bool: --qemu-compat.  The end of standard input
 * ends the program when the jobs have ended. */
co_serve_fn co_qmp_serve;

/* Tell all sessions; takes over `data`, which may be NULL. */
void qmp_event(const char *name, json_t *data);

/* --- For the commands that are about the session itself (qmp-commands.c) ---------------------- */
/* The session's monitor leaves the negotiation.  0, or -errno with QEMU's words in err. */
int qmp_negotiate(struct monitor *mon, const json_t *enable, struct error *err);
/* Run a human line; what it prints, lines ending in CR LF, as a new string.  Suspends. */
json_t *co_qmp_human(struct monitor *mon, const char *line);

#endif
