/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards: commands that QEMU carries out without a word although they are known to cost people their data.
 *
 * One table (guards.c) names the command and what looks at its arguments before it runs.  A trap is told in one
 * sentence: as a warning, and the command runs all the same; under --safe as its error, and it does not run.  Under
 * --qemu-compat there are no guards.
 */
#ifndef MONITOR_GUARDS_H
#define MONITOR_GUARDS_H

#include "monitor/monitor.h"

/* --safe: refuse instead of warning. */
void guards_set_safe(bool safe);
/* Look at a command about to run, its arguments checked.  0: go on, perhaps after a warning; -EPERM with the sentence in
 * err.  May suspend. */
int co_guards_look(struct monitor *mon, const struct command *cmd, const json_t *args, struct error *err);

#endif
