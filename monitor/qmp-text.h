/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's text: JSON values into lines (what comes the other way is core/json-parse.h's).  Pure: no connection, no command.
 */
#ifndef MONITOR_QMP_TEXT_H
#define MONITOR_QMP_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* One line without its end, malloc'ed, ASCII.  Members stand in QEMU's order: that of a hash of
 * their names (two with one hash in the order of the object).  Trees may be as deep as they like.
 */
char *qmp_print(const json_t *value);
/* The same on many lines, indented as QEMU does it. */
char *qmp_print_pretty(const json_t *value);
/* The members of an object in that order; malloc'ed array, NULL-terminated; the strings are the
 * object's. */
const char **qmp_member_order(const json_t *object);

#endif
