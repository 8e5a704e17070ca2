/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model: what every sector may hold, at each moment of a run and after a crash (rules 3 to 6).
 *
 * A sector has a list of values in the order in which they were issued:
 *
 *     v0   v1   v2   v3
 *          |         +-- issued: the last that may be there
 *          +------------ floor: the last that was there when a flush that has succeeded began
 *
 * After a crash a sector holds one of floor..issued, whole.  A discarded value may be zeroes or
 * what was there before; one that was cut off with the end of the disk also anything that a lower
 * layer held.  Of requests that overlapped in time nobody knows the order: the floor then stays at
 * the first of them.  A request that failed may have happened or not: it moves no floor.
 *
 * Disks are larger than what is modelled: two windows of them.  Nobody writes outside of those.
 * A second disk has one window, at offsets that the first one does not reach (MODEL_SECOND_AT).
 */
#ifndef EXPLORE_MODEL_H
#define EXPLORE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_SECTOR 512u
#define MODEL_DISK_WINDOWS 2u       /* of the first disk */
#define MODEL_SECOND 2u             /* the window of the second one */
#define MODEL_WINDOWS 3u
#define MODEL_SECOND_AT (1ull << 40) /* bytes; where the second disk begins */

struct model_window {
    uint64_t at, len; /* bytes */
};

struct model_sector {
    uint32_t *value; /* numbers of patterns, 0 is zeroes */
    uint16_t n, room;
    uint16_t floor, low; /* `low`: the first that readers may see while nothing is in flight */
    uint16_t group;      /* the first of those that overlap now */
    uint16_t in_flight;
    bool good;               /* one of them has succeeded */
    bool lied;               /* the disk has lied about it: it may hold anything */
    uint64_t key;            /* of the values that it may hold, when `key_of` says so */
    uint32_t key_of;         /* the floor and the number of values that it was made of */
};

struct model {
    uint64_t disk_size;
    struct model_window window[MODEL_WINDOWS];
    uint32_t n; /* sectors in all windows */
    struct model_sector *sector;
    uint32_t next_value;
};

/* The bounds of all sectors at one moment. */
struct model_bounds {
    uint64_t hash; /* equal: the same contents are allowed, in whatever run */
    struct {
        uint16_t floor, issued;
    } of[];
};

void model_init(struct model *model, uint64_t disk_size, const struct model_window *windows);
void model_fini(struct model *model);
struct model model_copy(const struct model *from);
/* The number of the sector at a guest offset, UINT32_MAX outside of the windows. */
uint32_t model_sector_at(const struct model *model, uint64_t offset);
void model_pattern(uint32_t value, uint32_t sector, uint8_t *buf);

/* Before the run: the sector holds this, durably; a lower layer holds what was preset before. */
void model_preset(struct model *model, uint32_t sector, uint32_t value);
/* A request: how it begins (writes: *buf gets what to write, when not NULL) and how it ends. */
enum model_change { MODEL_WRITE, MODEL_ZERO, MODEL_DISCARD, MODEL_CUT_OFF };
/* The disk lies about these bytes: they may be anything from now on, the others not. */
void model_lied(struct model *model, uint64_t offset, uint64_t len);
/* The number of the pattern that these bytes are; -1: of none. */
int64_t model_value_of(uint32_t sector, const uint8_t *bytes);
/* All sectors of the first disk change to `content` (its windows, one after the other), whose bytes
 * are patterns or zeroes; to be ended like any other request. */
void model_begin_content(struct model *model, const uint8_t *content);
void model_end_content(struct model *model, bool good);
void model_begin(struct model *model, enum model_change change, uint64_t offset, uint64_t len,
                 uint8_t *buf);
void model_end(struct model *model, uint64_t offset, uint64_t len, bool good);
/* What holds zeroes from now on, durably. */
void model_is_zero(struct model *model, uint64_t offset, uint64_t len);
/* What a flush that begins now will promise, of the first or of the second disk; hand it to
 * model_flushed() when it has succeeded. */
uint16_t *model_flush_begin(const struct model *model, bool second);
void model_flushed(struct model *model, const uint16_t *promise);

/* malloc'ed. */
struct model_bounds *model_bounds(struct model *model);
/* The same for readers, while the machine runs and nothing is in flight. */
struct model_bounds *model_shown(struct model *model);
/* Is `content` (all windows one after the other) allowed?  The first sector that is not, or
 * UINT32_MAX. */
uint32_t model_judge(const struct model *model, const struct model_bounds *bounds,
                     const uint8_t *content);
/* The same for one sector. */
bool model_judge_one(const struct model *model, const struct model_bounds *bounds, uint32_t sector,
                     const uint8_t *bytes);
/* May a reader be shown the beginning of one of its values and the end of another? That is so when somebody writes the sector
 * meanwhile, and transfers end within it. */
bool model_judge_torn(const struct model *model, const struct model_bounds *bounds, uint32_t sector, const uint8_t *bytes);
/* After a crash: what is there now is where work goes on.  `durable`: and nothing else can come
 * back. */
void model_adopt(struct model *model, const struct model_bounds *bounds, const uint8_t *content,
                 bool durable);
/* For people: what a sector holds and what it might have held; malloc'ed. */
char *model_explain(const struct model *model, const struct model_bounds *bounds, uint32_t sector,
                    const uint8_t *content);

#endif
