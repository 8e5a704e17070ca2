/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a monitor is to live, as -chardev, -monitor and -qmp say it.
 */
#ifndef START_PLACES_H
#define START_PLACES_H

#include <jansson.h>

#include "core/error.h"
#include "monitor/chardev.h"

/* -chardev BACKEND,id=ID,KEY=VALUE,...: flat keys, "backend" among them (borrowed, changed).  0 or
 * -EINVAL with QEMU's words; free the spec in both cases. */
int place_from_keys(json_t *keys, struct chardev_spec *spec, struct error *err);
/* The short form: stdio, none, file:PATH, unix:PATH,..., tcp:HOST:PORT,..., telnet:HOST:PORT,... .
 * `shown` is the option as typed: QEMU complains twice about what it cannot read. */
int place_from_word(const char *word, const char *shown, struct chardev_spec *spec, struct error *err);
/* What `-chardev help` lists; ends with NULL. */
extern const char *const place_backends[];

#endif
