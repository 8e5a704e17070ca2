/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The choice of the next step: see guest-work.h.
 *
 * The mix counts requests at the disk.  A rewrite is one read and one write, so with rwmixread=50
 * profile `preserve` does nothing but rewrites, and never writes more often than it reads.
 */
#include "hw/guest-work.h"

#include <assert.h>
#include <errno.h>

#include "core/mem.h"

/* The seeds of a guest's two uses of chance must not give the same numbers. */
#define PLACES_SALT 0x706c61636573ull

/* --- The working set -------------------------------------------------------------------------- */

/* Pieces all over the disk: the first at its beginning, where the partition table is, each of
 * the others somewhere in its own sixteenth of the disk. */
static void spread(struct guest_work *w, uint64_t seed, uint64_t capacity)
{
    uint64_t slots = capacity / GUEST_PIECE_SIZE;
    struct random places;

    random_seed(&places, seed ^ PLACES_SALT);
    for (unsigned i = 0; i < GUEST_PIECES; i++) {
        uint64_t from = slots * i / GUEST_PIECES, to = slots * (i + 1) / GUEST_PIECES;

        w->pieces[i] = i ? (from + random_below(&places, to - from)) * GUEST_PIECE_SIZE : 0;
    }
    w->piece_count = GUEST_PIECES;
    w->piece_units = GUEST_PIECE_SIZE / w->bs_min;
}

static int place(struct guest_work *w, const struct guest_settings *s, uint64_t capacity,
                 struct error *err)
{
    if (s->spread && capacity >= GUEST_DEFAULT_SIZE && s->bs_max <= GUEST_PIECE_SIZE) {
        spread(w, s->seed, capacity);
        return 0;
    }
    uint64_t size = s->size_percent ? capacity / 100 * s->size_percent : s->size;
    uint64_t room = s->offset < capacity ? capacity - s->offset : 0;

    w->pieces[0] = s->offset;
    w->piece_count = 1;
    w->piece_units = MIN(size, room) / w->bs_min;
    if (!w->piece_units) {
        error_set(
            err,
            "The working set is empty: no block of %u bytes at offset %llu on a disk of %llu bytes",
            s->bs_min, (unsigned long long)s->offset, (unsigned long long)capacity);
        return -EINVAL;
    }
    return 0;
}

int guest_work_init(struct guest_work *w, const struct guest_settings *s,
                    const struct guest_disk *disk, struct error *err)
{
    *w = (struct guest_work){
        .profile = s->profile,
        .rw = disk->read_only ? RW_READ | (s->rw & RW_RANDOM) : s->rw,
        .rwmixread = s->rwmixread,
        .bs_min = s->bs_min,
        .bs_max = s->bs_max,
        .interval_ns = s->rate_iops ? NS_PER_S / s->rate_iops : 0,
    };
    random_seed(&w->random, s->seed);
    if ((w->rw & RW_TRIM) && !disk->can_trim) {
        error_set(err, "The disk cannot discard, so the guest cannot trim");
        return -EINVAL;
    }
    return place(w, s, disk->capacity, err);
}

/* --- Steps ------------------------------------------------------------------------------------ */

static bool percent(struct guest_work *w, unsigned of)
{
    return random_below(&w->random, 100) < of;
}

static enum guest_action choose_action(struct guest_work *w)
{
    bool mixed = (w->rw & RW_READ) && (w->rw & RW_WRITE);

    if (w->profile == PROFILE_PRESERVE && (w->rw & RW_WRITE)) {
        /* So many rewrites that rwmixread percent of all requests are reads: 100 / (100 + p) =
         * mix / 100. */
        unsigned rewrites =
            !mixed || w->rwmixread <= 50 ? 100 : (100 - w->rwmixread) * 100 / w->rwmixread;

        return percent(w, rewrites) ? STEP_REWRITE : STEP_READ;
    }
    if (mixed) {
        return percent(w, w->rwmixread) ? STEP_READ : STEP_WRITE;
    }
    if (w->rw & RW_TRIM) {
        return w->rw & RW_WRITE ? STEP_TRIM_WRITE : STEP_TRIM;
    }
    return w->rw & RW_WRITE ? STEP_WRITE : STEP_READ;
}

static unsigned choose_units(struct guest_work *w)
{
    unsigned most = w->bs_max / w->bs_min;

    return most > 1 ? 1 + random_below(&w->random, most) : 1;
}

/* Sequential workloads have a place for each kind of step, as in fio. */
static uint64_t *position(struct guest_work *w, enum guest_action action)
{
    return &w->next_unit[action == STEP_READ ? 0 : action == STEP_TRIM ? 2 : 1];
}

void guest_work_next(struct guest_work *w, struct guest_step *out)
{
    uint64_t total = w->piece_units * w->piece_count, unit;
    unsigned units = choose_units(w);

    out->action = choose_action(w);
    if (w->rw & RW_RANDOM) {
        unit = random_below(&w->random, total);
    } else {
        unit = *position(w, out->action);
    }
    /* A step ends with its piece at the latest. */
    units = MIN((uint64_t)units, w->piece_units - unit % w->piece_units);
    out->offset = w->pieces[unit / w->piece_units] + unit % w->piece_units * w->bs_min;
    out->len = units * w->bs_min;
    if (!(w->rw & RW_RANDOM)) {
        *position(w, out->action) = (unit + units) % total;
    }
}

uint64_t guest_work_interval(struct guest_work *w)
{
    if (!w->interval_ns) {
        return 0;
    }
    /* From half to one and a half times the mean. */
    return w->interval_ns / 2 + random_below(&w->random, w->interval_ns + 1);
}
