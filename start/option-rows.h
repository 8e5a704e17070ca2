/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rows of the table of options, and the functions that take them: what start/options.c and start/take-*.c share.
 */
#ifndef START_OPTION_ROWS_H
#define START_OPTION_ROWS_H

#include <string.h>

#include "core/mem.h"
#include "start/options.h"

/* An option on the line. */
struct given {
    const struct option *row;
    const char *shown; /* as typed */
    const char *value; /* NULL: none */
};
typedef int take_fn(struct options *o, const struct given *g, struct error *err);

/* One more element at the end of an array: a pointer to it, zeroed. */
#define GROW(array, count)                                                  \
    ({                                                                      \
        (array) = mem_reallocarray((array), (count) + 1, sizeof(*(array))); \
        memset(&(array)[count], 0, sizeof(*(array)));                       \
        &(array)[(count)++];                                                \
    })

/* All return 0, or -EINVAL with err. */
take_fn take_drive, take_hd, take_cdrom, take_snapshot, take_blockdev, take_device; /* take-disks.c */
take_fn take_monitor, take_mon, take_chardev;            /* take-monitors.c */
take_fn take_object, take_msg, take_readconfig;          /* take-qemu.c */
take_fn take_machine, take_accel, take_kvm, take_memory, take_boot, take_kernel; /* take-hardware.c */
take_fn take_cpu, take_processors; /* take-processors.c */

/* An image that is named by its file alone: take-disks.c. */
void options_add_image(struct options *o, const char *shown, const char *path, unsigned index);
/* Take a switch out of keys. */
int take_switch(json_t *keys, const char *key, bool fallback, bool *out, struct error *err);
/* QEMU warns of a flag without '='; `implied`: the first item may be a value. */
void warn_of_flags(const struct given *g, bool implied);
int check_id(const char *id, struct error *err);
/* All options are read: -mon may come before its -chardev. */
int join_monitors(struct options *o, char **shown, struct error *err);
/* All options are read: does what was said of the machine fit together? */
int hardware_check(struct options *o, struct error *err);
/* -EINVAL for a key that is not among these (NULL ends them). */
int refuse_unknown_keys(json_t *keys, const char *const *known, struct error *err);
/* As if it stood on the line.  `shown` is borrowed. */
int option_apply(struct options *o, const char *name, const char *value, const char *shown, struct error *err);
/* The option that a group of a file stands for; NULL: there is no such group. */
const char *option_in_file(const char *name);
/* QEMU's options for what is not here. */
const struct option *ignored_option_find(const char *name, size_t len);
/* Number i of those that are accepted; NULL behind the last. */
const char *ignored_option_name(size_t i);

#endif
