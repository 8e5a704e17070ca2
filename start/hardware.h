/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine that is not here, as the start line describes it: what start/take-hardware.c and start/take-processors.c share.
 */
#ifndef START_HARDWARE_H
#define START_HARDWARE_H

#include <jansson.h>

#include "start/option-rows.h"

/* All that was said of the machine; the keys that all options of one name have given together ("machine", "smp", "memory",
 * "boot", "accel"); one of these, NULL when it is not there.  All borrowed. */
json_t *hardware_all(struct options *o);
json_t *hardware_group(struct options *o, const char *name);
const char *hardware_word(const struct options *o, const char *group, const char *key);
/* More keys for a group: takes the reference; NULL is -EINVAL. */
int hardware_add(struct options *o, const char *name, json_t *keys);

/* Is `name` (len bytes) one of these words, separated by blanks? NULL has none. */
bool hardware_listed(const char *words, const char *name, size_t len);
bool hardware_number(const char *text);

/* When all is read.  0, or -EINVAL with QEMU's sentence. */
int check_cpu(struct options *o, struct error *err);
int check_topology(struct options *o, const char *machine, int most, bool has_dies, struct error *err);

#endif
