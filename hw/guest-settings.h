/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest is asked to do, in fio's words:
 * `profile=stamp,rw=randrw,bs=4k-64k,iodepth=32,rate_iops=0`.
 *
 * Words are strings as typed.  There is one table of them (guest-settings.c); it serves -guest, the
 * monitor's `guest DISK key=value...`, completion and the description.  Words that are not given
 * keep what they were.
 */
#ifndef HW_GUEST_SETTINGS_H
#define HW_GUEST_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* The working set of a guest that was told neither size nor offset. */
#define GUEST_DEFAULT_SIZE (64u << 20)
/* Requests of one guest in flight may have this many bytes together: they are guest memory. */
#define GUEST_BUFFERS_MAX (64u << 20)

enum guest_profile { PROFILE_PRESERVE, PROFILE_STAMP, PROFILE_REPLAY, PROFILE_NONE };

/* fio's rw=, taken apart. */
enum guest_rw { RW_READ = 1, RW_WRITE = 2, RW_TRIM = 4, RW_RANDOM = 8 };

struct guest_settings {
    enum guest_profile profile;
    unsigned rw;             /* enum guest_rw, or'ed */
    unsigned rwmixread;      /* percent, where rw both reads and writes */
    uint32_t bs_min, bs_max; /* bytes, multiples of 512; requests are aligned to bs_min */
    unsigned iodepth;        /* operations at the same time */
    uint64_t rate_iops;      /* requests a second, 0: no limit */
    uint64_t size;           /* the working set in bytes ... */
    unsigned size_percent;   /* ... or, when not 0, in percent of the disk */
    uint64_t offset;         /* where it begins, bytes */
    bool spread;             /* neither size nor offset was given: pieces all over the disk */
    uint64_t flush_every;    /* a flush after so many writes, 0: never */
    uint64_t seed;
    bool seed_given;
    char *iolog; /* path as given, or NULL; owned */
};

void guest_settings_init(struct guest_settings *s); /* the defaults */
void guest_settings_copy(struct guest_settings *dst,
                         const struct guest_settings *src); /* dst is raw memory */
void guest_settings_fini(struct guest_settings *s);

/* Put words over the settings.  Unknown keys and bad values are refused and nothing changes.  0
 * or -EINVAL. */
int guest_settings_apply(struct guest_settings *s, json_t *words, struct error *err);
/* Do the settings go together?  0 or -EINVAL. */
int guest_settings_check(const struct guest_settings *s, struct error *err);
/* Put them into an object, under the words' names: numbers as numbers. */
void guest_settings_describe(const struct guest_settings *s, json_t *object);

const char *guest_profile_name(enum guest_profile profile);

#endif
