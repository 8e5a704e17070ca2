/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of sectors: see model.h.
 */
#include "explore/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"

#define DISCARDED 0x80000000u /* | the first value that it may have left as it was */
#define SCATTER 0x9e3779b97f4a7c15u
#define GATHER 0xf1de83e19937733du /* SCATTER times it is 1 */

void model_init(struct model *m, uint64_t disk_size, const struct model_window *windows)
{
    *m = (struct model){ .disk_size = disk_size, .next_value = 1 };
    for (unsigned i = 0; i < MODEL_WINDOWS; i++) {
        m->window[i] = windows[i];
        m->n += windows[i].len / MODEL_SECTOR;
    }
    m->sector = mem_calloc(m->n, sizeof(*m->sector));
}

void model_fini(struct model *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        free(m->sector[i].value);
    }
    free(m->sector);
    *m = (struct model){ 0 };
}

struct model model_copy(const struct model *from)
{
    struct model m = *from;

    m.sector = mem_dup(from->sector, from->n * sizeof(*from->sector));
    for (uint32_t i = 0; i < m.n; i++) {
        m.sector[i].value = mem_dup(from->sector[i].value, from->sector[i].room * sizeof(uint32_t));
    }
    return m;
}

uint32_t model_sector_at(const struct model *m, uint64_t offset)
{
    uint32_t first = 0;

    for (unsigned i = 0; i < MODEL_WINDOWS; i++) {
        const struct model_window *w = &m->window[i];

        if (offset >= w->at && offset < w->at + w->len) {
            return first + (offset - w->at) / MODEL_SECTOR;
        }
        first += w->len / MODEL_SECTOR;
    }
    return UINT32_MAX;
}

/* --- Values ----------------------------------------------------------------------------------- */

static uint64_t first_word(uint32_t value, uint32_t sector)
{
    return (((uint64_t)value << 32) + sector + 1) * SCATTER;
}

void model_pattern(uint32_t value, uint32_t sector, uint8_t *buf)
{
    uint64_t word = first_word(value, sector);

    if (!value) {
        memset(buf, 0, MODEL_SECTOR);
        return;
    }
    for (unsigned i = 0; i < MODEL_SECTOR / 8; i++) {
        store_le64(buf + i * 8, word + i);
    }
}

int64_t model_value_of(uint32_t sector, const uint8_t *bytes)
{
    uint64_t first = load_le64(bytes), word = first * GATHER - sector - 1;
    uint8_t want[MODEL_SECTOR];

    if (!first) {
        return bytes_are_zero(bytes, MODEL_SECTOR) ? 0 : -1;
    }
    model_pattern(word >> 32, sector, want);
    return !(uint32_t)word && memcmp(want, bytes, MODEL_SECTOR) == 0 ? (int64_t)(word >> 32) : -1;
}

/* May a sector that shows the pattern `held` have this one of its values? */
static bool matches(const struct model *m, uint32_t sector, unsigned index, int64_t held)
{
    uint32_t value = m->sector[sector].value[index];

    if (!(value & DISCARDED)) {
        return held == value;
    }
    for (unsigned i = value & ~DISCARDED; i < index && held; i++) {
        if (matches(m, sector, i, held)) {
            return true;
        }
    }
    return held == 0;
}

static unsigned add_value(struct model_sector *s, uint32_t value)
{
    if (s->n == s->room) {
        s->room = s->room * 2 + 2;
        s->value = mem_reallocarray(s->value, s->room, sizeof(*s->value));
    }
    s->value[s->n] = value;
    return s->n++;
}

void model_preset(struct model *m, uint32_t sector, uint32_t value)
{
    struct model_sector *s = &m->sector[sector];

    add_value(s, value);
    s->floor = s->low = s->group = s->n - 1;
}

/* --- Requests --------------------------------------------------------------------------------- */

void model_begin(struct model *m, enum model_change change, uint64_t offset, uint64_t len,
                 uint8_t *buf)
{
    uint32_t value = change == MODEL_WRITE ? m->next_value++ : 0;

    for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
        uint32_t sector = model_sector_at(m, offset + at);
        struct model_sector *s = &m->sector[sector];

        assert(sector != UINT32_MAX);
        if (s->in_flight++ == 0) {
            s->group = s->n;
            s->good = false;
        }
        add_value(s, change == MODEL_DISCARD   ? DISCARDED | s->low
                     : change == MODEL_CUT_OFF ? DISCARDED
                                               : value);
        if (buf) {
            model_pattern(value, sector, buf + at);
        }
    }
}

void model_end(struct model *m, uint64_t offset, uint64_t len, bool good)
{
    for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
        struct model_sector *s = &m->sector[model_sector_at(m, offset + at)];

        s->good = s->good || good;
        if (--s->in_flight == 0 && s->good) {
            s->low = s->group;
        }
    }
}

void model_lied(struct model *m, uint64_t offset, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
        uint32_t sector = model_sector_at(m, offset + at);

        if (sector != UINT32_MAX) {
            m->sector[sector].lied = true;
        }
    }
}

void model_begin_content(struct model *m, const uint8_t *content)
{
    uint32_t at = 0;

    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        for (uint64_t done = 0; done < m->window[i].len; done += MODEL_SECTOR, at++) {
            int64_t value = model_value_of(at, content + (size_t)at * MODEL_SECTOR);

            assert(value >= 0);
            model_begin(m, MODEL_ZERO, m->window[i].at + done, MODEL_SECTOR, NULL);
            m->sector[at].value[m->sector[at].n - 1] = value;
            m->sector[at].key_of = 0;
        }
    }
}

void model_end_content(struct model *m, bool good)
{
    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        model_end(m, m->window[i].at, m->window[i].len, good);
    }
}

void model_is_zero(struct model *m, uint64_t offset, uint64_t len)
{
    model_begin(m, MODEL_ZERO, offset, len, NULL);
    model_end(m, offset, len, true);
    for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
        struct model_sector *s = &m->sector[model_sector_at(m, offset + at)];

        s->floor = s->low;
    }
}

/* The sectors of the first disk; the others are the second one's. */
static uint32_t first_disk(const struct model *m)
{
    return m->n - m->window[MODEL_SECOND].len / MODEL_SECTOR;
}

uint16_t *model_flush_begin(const struct model *m, bool second)
{
    uint16_t *promise = mem_calloc(m->n, sizeof(*promise));
    uint32_t split = first_disk(m);

    for (uint32_t i = second ? split : 0; i < (second ? m->n : split); i++) {
        promise[i] = m->sector[i].low;
    }
    return promise;
}

void model_flushed(struct model *m, const uint16_t *promise)
{
    for (uint32_t i = 0; i < m->n; i++) {
        m->sector[i].floor = MAX(m->sector[i].floor, promise[i]);
    }
}

/* --- Judging ---------------------------------------------------------------------------------- */

/* Equal for equal lists of values that count: from the floor on, or further back where a discard may
 * have brought one back. */
static uint64_t sector_key(struct model_sector *s)
{
    uint32_t of = (uint32_t)s->floor << 16 | s->n;
    unsigned from = s->floor;

    if (s->key_of == of) {
        return s->key;
    }
    for (unsigned i = s->floor; i < s->n; i++) {
        if (s->value[i] & DISCARDED) {
            from = MIN(from, s->value[i] & ~DISCARDED);
        }
    }
    s->key = s->floor - from;
    for (unsigned i = from; i < s->n; i++) {
        uint32_t value = s->value[i];

        value -= value & DISCARDED ? from : 0;
        s->key = (s->key ^ value) * SCATTER;
        s->key ^= s->key >> 31;
    }
    s->key_of = of;
    return s->key;
}

static struct model_bounds *bounds_from(struct model *m, bool shown)
{
    struct model_bounds *bounds = mem_alloc(sizeof(*bounds) + m->n * sizeof(bounds->of[0]));

    bounds->hash = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct model_sector *s = &m->sector[i];

        bounds->of[i].floor = shown ? s->low : s->floor;
        bounds->of[i].issued = s->n - 1;
        bounds->hash = (bounds->hash ^ sector_key(s)) * SCATTER;
        bounds->hash ^= bounds->hash >> 29;
    }
    return bounds;
}

struct model_bounds *model_bounds(struct model *m)
{
    return bounds_from(m, false);
}

struct model_bounds *model_shown(struct model *m)
{
    return bounds_from(m, true);
}

/* The first value that is there, or -1. */
static int find_value(const struct model *m, const struct model_bounds *bounds, uint32_t sector,
                      const uint8_t *bytes)
{
    int64_t held;

    if (m->sector[sector].lied) {
        return bounds->of[sector].floor;
    }
    held = model_value_of(sector, bytes);
    for (unsigned v = bounds->of[sector].floor; v <= bounds->of[sector].issued && held >= 0; v++) {
        if (matches(m, sector, v, held)) {
            return v;
        }
    }
    return -1;
}

bool model_judge_one(const struct model *m, const struct model_bounds *bounds, uint32_t sector,
                     const uint8_t *bytes)
{
    return find_value(m, bounds, sector, bytes) >= 0;
}

/* Bytes that begin (or end) the sector as one of these values does. */
static unsigned longest(const struct model *m, const struct model_bounds *bounds, uint32_t sector, const uint8_t *bytes, bool end)
{
    unsigned most = 0;

    for (unsigned v = bounds->of[sector].floor; v <= bounds->of[sector].issued; v++) {
        uint32_t value = m->sector[sector].value[v];
        uint8_t want[MODEL_SECTOR];
        unsigned n = 0;

        model_pattern(value & DISCARDED ? 0 : value, sector, want);
        while (n < MODEL_SECTOR && (end ? want[MODEL_SECTOR - 1 - n] == bytes[MODEL_SECTOR - 1 - n] : want[n] == bytes[n])) {
            n++;
        }
        most = MAX(most, n);
    }
    return most;
}

bool model_judge_torn(const struct model *m, const struct model_bounds *bounds, uint32_t sector, const uint8_t *bytes)
{
    return longest(m, bounds, sector, bytes, false) + longest(m, bounds, sector, bytes, true) >= MODEL_SECTOR;
}

uint32_t model_judge(const struct model *m, const struct model_bounds *bounds,
                     const uint8_t *content)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (find_value(m, bounds, i, content + (size_t)i * MODEL_SECTOR) < 0) {
            return i;
        }
    }
    return UINT32_MAX;
}

void model_adopt(struct model *m, const struct model_bounds *bounds, const uint8_t *content,
                 bool durable)
{
    for (uint32_t i = 0; i < m->n; i++) {
        struct model_sector *s = &m->sector[i];
        const uint8_t *bytes = content + (size_t)i * MODEL_SECTOR;
        int v = find_value(m, bounds, i, bytes);

        assert(v >= 0);
        s->in_flight = 0;
        s->key_of = 0;
        s->n = bounds->of[i].issued + 1;
        s->floor = bounds->of[i].floor;
        s->low = v;
        if (durable && !s->lied) {
            model_preset(m, i, model_value_of(i, bytes));
        }
    }
}

char *model_explain(const struct model *m, const struct model_bounds *bounds, uint32_t sector,
                    const uint8_t *content)
{
    const struct model_sector *s = &m->sector[sector];
    const uint8_t *bytes = content + (size_t)sector * MODEL_SECTOR;
    uint64_t word = load_le64(bytes);
    const char *what = bytes_are_zero(bytes, MODEL_SECTOR) ? "zeroes" : "strange bytes";

    for (unsigned v = 0; v < s->n; v++) {
        if (s->value[v] == model_value_of(sector, bytes)) {
            return mem_printf("sector %u holds value %u, flushed was %u, issued %u", sector, v,
                              bounds->of[sector].floor, bounds->of[sector].issued);
        }
    }
    return mem_printf("sector %u holds %s (%016llx), flushed was value %u, issued %u", sector, what,
                      (unsigned long long)word, bounds->of[sector].floor,
                      bounds->of[sector].issued);
}
