/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers of the human monitor, which are expressions: 4096, 0x1000, 4*1024, (1+2)<blank>*3, 'c'.
 */
#ifndef MONITOR_EXPRESSION_H
#define MONITOR_EXPRESSION_H

#include <stdint.h>

/* Evaluate what *p begins with and set *p behind it and the blanks that follow.  As in QEMU, * / % bind closer than & |
 * ^, and those closer than + -, which also means that blanks do not end it: "1000 -1" is 999.  NULL, or what is wrong
 * (free()). */
char *expression_read(const char **p, int64_t *value);

#endif
