/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors of commands and of set-up: one sentence a person can act on.
 *
 * The data path returns negative errno values and no text; whatever a person asked for fills a
 * struct error.  `text` is QEMU's wording where QEMU has one and is always printed first; `hint` is
 * ours and comes on lines below it (and vanishes under --qemu-compat).
 */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

#include <stdbool.h>

/* QMP error classes.  Almost everything is ERROR_GENERIC. */
enum error_class {
    ERROR_GENERIC,
    ERROR_COMMAND_NOT_FOUND,
    ERROR_DEVICE_NOT_ACTIVE,
    ERROR_DEVICE_NOT_FOUND,
    ERROR_KVM_MISSING_CAP,
};

/* Start with `struct error err = ERROR_INIT;` and end with error_clear(). */
struct error {
    enum error_class class;
    char *text; /* owned; NULL while nothing went wrong; no trailing newline */
    char *hint; /* owned; may hold several lines; NULL when there is none */
};

#define ERROR_INIT ((struct error){ .text = 0 })

/* Set the error.  The first one wins: a call on an error that is set already is ignored, because the
 * first failure is the cause and what follows is clean-up.  `err` may be NULL (nobody asks). */
void error_set(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void error_set_class(struct error *err, enum error_class class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* "<text>: <strerror(errnum)>"; errnum may be given positive or negative. */
void error_set_errno(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Append a line to the hint.  Only on an error that is set. */
void error_hint(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Put words in front of the text of an error that is set ("Could not open 'x': "). */
void error_prepend(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A text for people, malloc'ed: words that QEMU says once for each image of a chain are said once, with their number. */
char *error_in_short(const char *text);
bool error_is_set(const struct error *err);
/* Hand the texts over to *dst (may be NULL) and leave *src clear. */
void error_move(struct error *dst, struct error *src);
void error_clear(struct error *err);
/* QMP's name of the class: "GenericError", "CommandNotFound", ... */
const char *error_class_name(enum error_class class);

#endif
