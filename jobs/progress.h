/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much is there to do, how fast does it go, how long will it take?
 *
 *   the plan   bytes of data to move, by piece of the disk. What a guest changes ahead of the job makes a piece stale; a
 *              stale piece is counted again (by the job) and the total follows.
 *   the rate   over the last seconds, from samples of (time, bytes done); begun anew when something has changed the pace
 *              for good (a pause, another limit).
 *
 * Knows nothing of jobs and images: numbers in, numbers out. No function suspends.
 */
#ifndef JOBS_PROGRESS_H
#define JOBS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#define PROGRESS_SAMPLES 16

struct progress {
    uint64_t size, piece;  /* bytes of the disk, and of one piece of it */
    uint32_t pieces;
    uint64_t *planned;     /* bytes to move, by piece */
    bool *stale;
    uint32_t n_stale, next_stale;
    uint64_t total;        /* all that is planned */

    struct progress_sample { uint64_t ns, done; } samples[PROGRESS_SAMPLES]; /* the oldest first */
    unsigned n_samples;
    uint64_t spacing_ns;   /* between two samples */
};

/* For a disk of `size` bytes. */
void progress_init(struct progress *p, uint64_t size);
void progress_fini(struct progress *p);

/* `bytes` at `offset` are to be moved, in addition to what is planned there. */
void progress_plan(struct progress *p, uint64_t offset, uint64_t bytes);
/* What was planned for [offset, offset + len) may have changed; pieces that begin before `done_to` are behind the job. */
void progress_touch(struct progress *p, uint64_t offset, uint64_t len, uint64_t done_to);
/* Take a stale piece that begins at `from` or later: its range, nothing planned there any more. False: there is none. */
bool progress_take_stale(struct progress *p, uint64_t from, uint64_t *offset, uint64_t *len);

/* `done` bytes have been moved by `now`. */
void progress_sample(struct progress *p, uint64_t now_ns, uint64_t done);
/* What was measured so far tells nothing about what comes. */
void progress_restart(struct progress *p, uint64_t now_ns, uint64_t done);
/* Bytes per second lately; 0: not known. */
uint64_t progress_rate(const struct progress *p, uint64_t now_ns, uint64_t done);
/* Time until all is done, ns; UINT64_MAX: not known. */
uint64_t progress_time_left(const struct progress *p, uint64_t now_ns, uint64_t done);

#endif
