/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines below an error that say what would have worked.  They append to err->hint and vanish under --qemu-compat.
 */
#ifndef MONITOR_HINTS_H
#define MONITOR_HINTS_H

#include "monitor/monitor.h"

/* A caret below the bad word: `len` bytes at `at` of `line`, which is what was typed, or the error's own line as it will be
 * printed.  `above` is the line to stand below: it is repeated first; NULL: it is there already.  Nothing when the line
 * would not fit into the monitor's width, or holds what a terminal does not show as it is. */
void hint_caret(struct error *err, const struct monitor *mon, const char *above, const char *line, size_t at, size_t len);
/* `word` is no command (prefix "") or topic ("info "): which ones are near?  A command of QMP: which one here does that? */
void hint_command(struct error *err, const struct command *const *tables, const char *prefix, const char *word);
/* After a command failed: for each argument that names something that does not exist, what does exist. */
void hint_arguments(struct error *err, const struct monitor *mon, const struct command *cmd, const json_t *args);
/* The images that may be the base of a stream on this device. */
void hint_chain(struct error *err, const char *device);
/* How many letters must change, come, go or swap to make one word of the other. */
unsigned word_distance(const char *a, const char *b);

#endif
