/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Members of JSON objects, for whoever knows which types they have: arguments that have been checked, trees of our own.
 */
#ifndef MONITOR_MEMBERS_H
#define MONITOR_MEMBERS_H

#include <jansson.h>
#include <stdbool.h>

/* NULL, 0, false where there is no such member, or no tree.  The text is the tree's. */
const char *member_text(const json_t *tree, const char *key);
json_int_t member_int(const json_t *tree, const char *key);
bool member_true(const json_t *tree, const char *key);

/* Text that need not be UTF-8: names of files, what a driver says of them.  Printers show what is not as U+FFFD. */
void member_set_text(json_t *tree, const char *key, const char *text);

#endif
