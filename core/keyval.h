/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "key=value,key=value": how options are written.  A comma in a value is doubled.  A key without
 * '=' is a flag (key=on, noKEY=off, deprecated in QEMU but understood), or the value of the implied
 * key when it comes first.
 */
#ifndef CORE_KEYVAL_H
#define CORE_KEYVAL_H

#include <jansson.h>
#include <stdbool.h>

#include "core/error.h"

/* Flat object of strings in the order given; a key that comes twice counts the last time. `implied`
 * may be NULL.  NULL with err on an empty key. */
json_t *keyval_parse(const char *text, const char *implied, struct error *err);
/* For each flag without '=' (which QEMU deprecates): the item as it was written, the key and the value that it means.  With
 * `implied` the first item may be a value.  "help" and "?" are none of them. */
void keyval_each_flag(const char *text, bool implied,
                      void (*say)(const char *flag, const char *key, bool on, void *arg), void *arg);
/* {"a.b": "x", "a.c": "y"} -> {"a": {"b": "x", "c": "y"}}; new reference; NULL with err when a key
 * is a value and an object at once. */
json_t *keyval_nest(json_t *flat, struct error *err);

/* The newer spelling (-blockdev, -object): dotted keys at once into a tree, lists as a.0=, a.1=.  Stricter:
 * no flags without '='; only the first item may go without its key, when there is an `implied` one
 * (NULL: none).  New reference, or NULL with QEMU's words. */
json_t *keyval_tree(const char *text, const char *implied, struct error *err);

/* A switch as QEMU's options spell it: on, yes, true, y; off, no, false, n.  0 or -EINVAL. */
int keyval_switch(const char *text, bool *out);

#endif
