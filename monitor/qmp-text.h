/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's text: a stream of bytes into JSON values, and JSON values into lines.  Pure: no connection,
 * no command.
 *
 * Values in the stream need nothing between them; they end where their brackets close, wherever
 * lines and packets end. Strings may stand in single quotes.  Wrong text gives QEMU's sentence, and
 * reading goes on behind it: at the next structural character or line.  U+0000 in a string becomes
 * the two bytes C0 80, so that our strings have no NUL inside. Numbers that no signed integer of 64
 * bits can hold become floating-point numbers.
 */
#ifndef MONITOR_QMP_TEXT_H
#define MONITOR_QMP_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct qmp_parser;
struct qmp_parser *qmp_parser_new(void);
void qmp_parser_free(struct qmp_parser *p);
/* Take bytes from *data (moved on, *len made less) up to the end of the next value.  True with
 * *value (new reference), or with *value NULL and QEMU's words in err; false when all bytes are
 * taken and the value is not complete. */
bool qmp_parser_next(struct qmp_parser *p, const char **data, size_t *len, json_t **value,
                     struct error *err);

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
