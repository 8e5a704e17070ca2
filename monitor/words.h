/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The argument of an option that is a tree: key=value with dots, or JSON.
 */
#ifndef MONITOR_WORDS_H
#define MONITOR_WORDS_H

#include <jansson.h>
#include <stdbool.h>

#include "core/error.h"

/* Text that begins with a brace is JSON (single quotes are fine), else key=value,... (keyval_tree()).
 * *from_words tells which: then all values are strings.  New reference, or NULL with QEMU's words. */
json_t *words_tree(const char *text, const char *implied, bool *from_words, struct error *err);

#endif
