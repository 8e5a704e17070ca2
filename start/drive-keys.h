/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keys of a -drive: values out of them, checked in QEMU's words.
 */
#ifndef START_DRIVE_KEYS_H
#define START_DRIVE_KEYS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "block/disk.h"
#include "core/error.h"

struct drive_settings {
    bool writeback, read_only, snapshot, copy_on_read;
    enum disk_policy werror, rerror;
    json_t *throttling; /* owned: {"bps-total": 1000, ..., "group": "g"}; NULL: no limits */
};

/* A key of -drive, for help and the manual. */
struct drive_key {
    const char *name, *values, *help; /* ends at name == NULL */
};
extern const struct drive_key drive_keys[];
/* -drive help lists them, -drive format=help the formats: true when that was asked for, and done. */
bool drive_help(json_t *keys, FILE *out);

/* Take a key out: its text in *keep (freed first, malloc'ed), or NULL. */
const char *drive_take(json_t *keys, const char *key, char **keep);
int drive_parse_number(const char *key, const char *value, int *out, struct error *err);
/* What `s` holds before stays where the keys do not say (read_only, snapshot).  0 or -EINVAL; free
 * it in both cases. */
int drive_take_settings(json_t *keys, struct drive_settings *s, struct error *err);
void drive_settings_free(struct drive_settings *s);

#endif
