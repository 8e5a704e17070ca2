/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON as QEMU reads it: a stream of bytes into values.  Pure: no connection, no command.
 *
 * Values in the stream need nothing between them; they end where their brackets close, wherever
 * lines and packets end. Strings may stand in single quotes.  Wrong text gives QEMU's sentence, and
 * reading goes on behind it: at the next structural character or line.  U+0000 in a string becomes
 * the two bytes C0 80, so that our strings have no NUL inside. Numbers that no signed integer of 64
 * bits can hold become floating-point numbers.
 */
#ifndef CORE_JSON_PARSE_H
#define CORE_JSON_PARSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct json_parser;
struct json_parser *json_parser_new(void);
void json_parser_free(struct json_parser *p);
/* Take bytes from *data (moved on, *len made less) up to the end of the next value.  True with
 * *value (new reference), or with *value NULL and QEMU's words in err; false when all bytes are
 * taken and the value is not complete. */
bool json_parser_next(struct json_parser *p, const char **data, size_t *len, json_t **value,
                     struct error *err);

/* The one value that a text holds; new reference, or NULL with QEMU's words. */
json_t *json_parse_text(const char *text, struct error *err);

#endif
