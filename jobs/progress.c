/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plan and the rate (see progress.h).
 */
#include "jobs/progress.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "core/mem.h"

#define PIECE_MIN (2u << 20)
#define PIECES_MAX 16384u
#define SPACING_MIN (10 * NS_PER_MS)
#define SPACING_MAX (500 * NS_PER_MS) /* so the rate is that of the last 8 seconds */

void progress_init(struct progress *p, uint64_t size)
{
    *p = (struct progress){ .size = size, .piece = PIECE_MIN, .spacing_ns = SPACING_MIN };
    while (DIV_ROUND_UP(size, p->piece) > PIECES_MAX) {
        p->piece *= 2;
    }
    p->pieces = DIV_ROUND_UP(size, p->piece);
    p->planned = mem_calloc(p->pieces + 1, sizeof(*p->planned));
    p->stale = mem_calloc(p->pieces + 1, sizeof(*p->stale));
}

void progress_fini(struct progress *p)
{
    free(p->planned);
    free(p->stale);
    p->planned = NULL;
    p->stale = NULL;
    p->pieces = p->n_stale = 0;
}

/* --- The plan --------------------------------------------------------------------------------------------------- */

void progress_plan(struct progress *p, uint64_t offset, uint64_t bytes)
{
    p->total += bytes;
    while (bytes > 0) {
        uint64_t part = MIN(bytes, p->piece - offset % p->piece);

        assert(offset / p->piece < p->pieces);
        p->planned[offset / p->piece] += part;
        offset += part;
        bytes -= part;
    }
}

void progress_touch(struct progress *p, uint64_t offset, uint64_t len, uint64_t done_to)
{
    uint64_t first = MAX(offset / p->piece, DIV_ROUND_UP(done_to, p->piece));

    for (uint64_t i = first; i < p->pieces && i * p->piece < offset + len; i++) {
        if (!p->stale[i]) {
            p->stale[i] = true;
            p->n_stale++;
            p->next_stale = MIN(p->next_stale, (uint32_t)i);
        }
    }
}

bool progress_take_stale(struct progress *p, uint64_t from, uint64_t *offset, uint64_t *len)
{
    while (p->n_stale > 0) {
        uint32_t i = p->next_stale;

        while (!p->stale[i]) {
            i++; /* n_stale says that there is one, and next_stale that it is not before */
        }
        p->stale[i] = false;
        p->n_stale--;
        p->next_stale = p->n_stale ? i + 1 : UINT32_MAX;
        if (i * p->piece >= from) {
            p->total -= p->planned[i];
            p->planned[i] = 0;
            *offset = i * p->piece;
            *len = MIN(p->piece, p->size - *offset);
            return true;
        }
    }
    return false;
}

/* --- The rate ------------------------------------------------------------------------------------------------------ */

void progress_restart(struct progress *p, uint64_t now_ns, uint64_t done)
{
    p->samples[0] = (struct progress_sample){ .ns = now_ns, .done = done };
    p->n_samples = 1;
    p->spacing_ns = SPACING_MIN;
}

/* Full: every second one is enough from now on, or the oldest goes. */
static void make_room(struct progress *p)
{
    if (p->spacing_ns < SPACING_MAX) {
        p->spacing_ns = MIN(2 * p->spacing_ns, SPACING_MAX);
        for (unsigned i = 0; i < PROGRESS_SAMPLES / 2; i++) {
            p->samples[i] = p->samples[2 * i];
        }
        p->n_samples = PROGRESS_SAMPLES / 2;
    } else {
        memmove(&p->samples[0], &p->samples[1], (PROGRESS_SAMPLES - 1) * sizeof(p->samples[0]));
        p->n_samples--;
    }
}

void progress_sample(struct progress *p, uint64_t now_ns, uint64_t done)
{
    if (p->n_samples > 0 && now_ns - p->samples[p->n_samples - 1].ns < p->spacing_ns) {
        return;
    }
    if (p->n_samples == PROGRESS_SAMPLES) {
        make_room(p);
    }
    p->samples[p->n_samples++] = (struct progress_sample){ .ns = now_ns, .done = done };
}

uint64_t progress_rate(const struct progress *p, uint64_t now_ns, uint64_t done)
{
    const struct progress_sample *since = &p->samples[0];

    if (!p->n_samples || now_ns <= since->ns) {
        return 0;
    }
    return (unsigned __int128)(done - since->done) * NS_PER_S / (now_ns - since->ns);
}

uint64_t progress_time_left(const struct progress *p, uint64_t now_ns, uint64_t done)
{
    uint64_t rate = progress_rate(p, now_ns, done);

    if (done >= p->total) {
        return 0;
    }
    return rate ? (unsigned __int128)(p->total - done) * NS_PER_S / rate : UINT64_MAX;
}
