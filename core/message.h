/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages of the program itself: one line each on standard error, "merganser: ...", with the time and
 * the guest's name before it where that was asked for (-msg).
 */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include <stdbool.h>

/* The line; the end of it is put there.  A message that begins with ':' follows the program's name
 * without a blank ("merganser:FILE:LINE: ..."). */
void message(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Only what stands before `text`. */
void message_begin(const char *text);
void message_show_time(bool on);
/* Put before each message; NULL: nothing. Kept by reference. */
void message_show_name(const char *name);

#endif
