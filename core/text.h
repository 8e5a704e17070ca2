/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text of strangers: names from images, lines from sockets and scripts.  They may be any bytes; what we print goes to a
 * person's terminal, which obeys some of them.
 */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdint.h>

/* The code point at *p (before `end`), *p moved on; -1 when the bytes there are none, then *p has moved past the wrong
 * ones.  C0 80 is 0, as for QEMU. */
int32_t text_utf8_take(const char **p, const char *end);

/* A copy (malloc'ed) that a terminal only shows: control characters but newline and tab, and bytes that are no UTF-8, are
 * written as \x1b. */
char *text_shown(const char *text);

#endif
