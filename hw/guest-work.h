/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest does next: the working set, the order (random or sequential), the mix and the pace.
 *
 * Pure: it draws numbers from a generator of its own and touches neither disk nor clock.  The same
 * settings on a disk of the same size give the same steps.
 */
#ifndef HW_GUEST_WORK_H
#define HW_GUEST_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/loop.h"
#include "hw/guest-settings.h"

/* A working set that is spread has this many pieces of this size: no cluster is larger than 2
 * MiB, so writing to them allocates no more than they are. */
#define GUEST_PIECES 16u
#define GUEST_PIECE_SIZE (GUEST_DEFAULT_SIZE / GUEST_PIECES)

enum guest_action {
    STEP_READ,
    STEP_WRITE,   /* new content */
    STEP_REWRITE, /* read, then write the very same bytes */
    STEP_TRIM,
    STEP_TRIM_WRITE, /* trim, then write */
};

struct guest_step {
    enum guest_action action;
    uint64_t offset; /* bytes, within the disk */
    uint32_t len;
};

/* What the disk is able to do. */
struct guest_disk {
    uint64_t capacity; /* bytes */
    bool read_only;
    bool can_trim;
};

struct guest_work {
    struct random random;
    enum guest_profile profile;
    unsigned rw;
    unsigned rwmixread;
    uint32_t bs_min, bs_max;
    uint64_t interval_ns; /* mean time from one request to the next, 0: no limit */
    /* The working set: pieces in ascending order, all `piece_units` long, in units of bs_min. */
    uint64_t pieces[GUEST_PIECES];
    unsigned piece_count;
    uint64_t piece_units;
    uint64_t next_unit[3]; /* sequential: where the next read, write, trim begins */
};

/* Set it up for a disk.  -EINVAL with one sentence when there is nothing that could be done (the
 * working set lies behind the end of the disk, ...). */
int guest_work_init(struct guest_work *w, const struct guest_settings *s,
                    const struct guest_disk *disk, struct error *err);
void guest_work_next(struct guest_work *w, struct guest_step *out);
/* Nanoseconds from this request to the next one: random around the mean, 0 when there is no
 * limit. */
uint64_t guest_work_interval(struct guest_work *w);

#endif
