/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor on a terminal: GNU readline through its callback interface, so that the loop goes on while a person
 * types.
 *
 *        line typed                    command ended
 *   editing -----------> running --------------------> editing
 *
 * While a command runs the terminal is as the shell left it, and nothing is read: what is typed then is read afterwards.
 * There is one terminal: standard input and output.
 *
 * Under --qemu-compat it has no colours, no history from before, no news and no questions.
 */
#ifndef MONITOR_TERMINAL_H
#define MONITOR_TERMINAL_H

#include "monitor/monitor.h"

/* Are both standard input and output a terminal? */
bool terminal_possible(void);
/* Where the history of lines is kept, malloc'ed; NULL: nowhere. */
char *terminal_history(void);
/* Show the greeting and the prompt, and read lines from now on.  Ends with terminal_stop(); Ctrl-D asks the program to
 * end. */
void terminal_start(bool compat);
/* Give the terminal back as it was; keep the history.  No-op when it was not started. */
void terminal_stop(void);
/* A line of news: above the prompt and what is being typed, neither of which it harms.  Without a terminal, or when it does
 * not want any: nothing. */
void terminal_notice(const char *text);
/* `events on|off` */
void terminal_set_events(bool on);
bool terminal_events(void);
/* Ctrl-C came.  True when it was ours: the line being typed is dropped, or a command that waits is told to end.  False: the
 * program should end (no terminal, or the second one while a command does not listen and there is no job to be lost). */
bool terminal_interrupt(void);

#endif
