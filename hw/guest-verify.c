/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's knowledge: see guest-verify.h.
 *
 * A tree like a page table, six bits of the sector number a level.  It grows at the root as higher
 * sectors are touched, so a small disk has a shallow one.  The leaves' 64 cells hold hashes; two
 * values are reserved:
 *
 *     0  nothing is known        1  one of several, see the side table        others: the hash
 *
 * The side table is empty but after errors and resets.
 */
#include "hw/guest-verify.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/guest-hash.h"

#define uthash_fatal(msg) abort()
#include <uthash.h>

#define LEVEL_BITS 6u
#define FAN 64u

#define CELL_UNKNOWN 0u
#define CELL_EITHER 1u
#define CELL_FIRST_HASH 2u

/* More guesses than this are no knowledge: the sector becomes unknown. */
#define GUESSES_MAX 8u

union tree {
    union tree *below[FAN];
    uint64_t cells[FAN]; /* of a leaf */
};

struct guesses {
    uint64_t sector;
    unsigned count;
    uint64_t hash[GUESSES_MAX];
    UT_hash_handle hh;
};

struct guest_verify {
    union tree *root;
    unsigned levels; /* 1: the root is a leaf; 0: no root yet; 10 are enough for 2^64 bytes */
    uint64_t known;  /* sectors */
    size_t memory;
    uint64_t id;
    struct guesses *guesses; /* uthash */
};

/* --- The tree --------------------------------------------------------------------------------- */

static union tree *tree_new(struct guest_verify *v)
{
    v->memory += sizeof(union tree);
    return mem_zalloc(sizeof(union tree));
}

static void tree_free(union tree *t, unsigned level)
{
    if (level > 1) {
        for (unsigned i = 0; i < FAN; i++) {
            if (t->below[i]) {
                tree_free(t->below[i], level - 1);
            }
        }
    }
    free(t);
}

static bool tree_covers(const struct guest_verify *v, uint64_t sector)
{
    return v->levels && sector >> (LEVEL_BITS * v->levels) == 0;
}

static unsigned index_at(uint64_t sector, unsigned level)
{
    return sector >> (LEVEL_BITS * (level - 1)) & (FAN - 1);
}

/* The leaf of a sector, or NULL when nothing near it was ever touched. */
static uint64_t *leaf_find(const struct guest_verify *v, uint64_t sector)
{
    if (!tree_covers(v, sector)) {
        return NULL;
    }
    union tree *t = v->root;

    for (unsigned level = v->levels; level > 1 && t; level--) {
        t = t->below[index_at(sector, level)];
    }
    return t ? t->cells : NULL;
}

/* The leaf of a sector, made if need be. */
static uint64_t *leaf_get(struct guest_verify *v, uint64_t sector)
{
    if (!v->root) {
        v->root = tree_new(v);
        v->levels = 1;
    }
    while (!tree_covers(v, sector)) {
        union tree *higher = tree_new(v);

        higher->below[0] = v->root;
        v->root = higher;
        v->levels++;
    }
    union tree *t = v->root;

    for (unsigned level = v->levels; level > 1; level--) {
        union tree **slot = &t->below[index_at(sector, level)];

        if (!*slot) {
            *slot = tree_new(v);
        }
        t = *slot;
    }
    return t->cells;
}

/* The first sector at or behind `sector` that has a leaf, or UINT64_MAX. */
static uint64_t leaf_next(const struct guest_verify *v, uint64_t sector)
{
    while (tree_covers(v, sector)) {
        union tree *t = v->root;
        unsigned level = v->levels;

        while (level > 1 && t->below[index_at(sector, level)]) {
            t = t->below[index_at(sector, level)];
            level--;
        }
        if (level == 1) {
            return sector;
        }
        /* Nothing below this slot: on to where the next slot begins. */
        uint64_t span = 1ull << (LEVEL_BITS * (level - 1));

        sector = (sector & ~(span - 1)) + span;
    }
    return UINT64_MAX;
}

/* --- Guesses ---------------------------------------------------------------------------------- */

static struct guesses *guesses_find(const struct guest_verify *v, uint64_t sector)
{
    struct guesses *g;

    HASH_FIND(hh, v->guesses, &sector, sizeof(sector), g);
    return g;
}

static void guesses_drop(struct guest_verify *v, struct guesses *g)
{
    HASH_DEL(v->guesses, g);
    v->memory -= sizeof(*g);
    free(g);
}

static bool guesses_hold(const struct guesses *g, uint64_t hash)
{
    for (unsigned i = 0; i < g->count; i++) {
        if (g->hash[i] == hash) {
            return true;
        }
    }
    return false;
}

/* Set a cell to what it is from now on, leaving no guesses behind. */
static void cell_set(struct guest_verify *v, uint64_t *cell, uint64_t sector, uint64_t value)
{
    if (*cell == CELL_EITHER) {
        guesses_drop(v, guesses_find(v, sector));
    }
    v->known += (value != CELL_UNKNOWN) - (*cell != CELL_UNKNOWN);
    *cell = value;
}

static void cell_add_guess(struct guest_verify *v, uint64_t *cell, uint64_t sector, uint64_t hash)
{
    struct guesses *g;

    if (*cell == CELL_UNKNOWN || *cell == hash) {
        return; /* anything or this, this or this */
    }
    if (*cell != CELL_EITHER) {
        g = mem_zalloc(sizeof(*g));
        g->sector = sector;
        g->hash[g->count++] = *cell;
        HASH_ADD(hh, v->guesses, sector, sizeof(g->sector), g);
        v->memory += sizeof(*g);
        *cell = CELL_EITHER;
    } else {
        g = guesses_find(v, sector);
    }
    if (guesses_hold(g, hash)) {
        return;
    }
    if (g->count == GUESSES_MAX) {
        cell_set(v, cell, sector, CELL_UNKNOWN);
        return;
    }
    g->hash[g->count++] = hash;
}

/* --- Knowledge -------------------------------------------------------------------------------- */

static uint64_t sector_hash(const void *sector)
{
    uint64_t hash = guest_hash(sector, GUEST_SECTOR);

    return hash < CELL_FIRST_HASH ? hash + CELL_FIRST_HASH : hash;
}

struct guest_verify *guest_verify_new(uint64_t id)
{
    struct guest_verify *v = mem_zalloc(sizeof(*v));

    v->id = id;
    return v;
}

void guest_verify_free(struct guest_verify *v)
{
    struct guesses *g, *next;

    HASH_ITER(hh, v->guesses, g, next) {
        guesses_drop(v, g);
    }
    if (v->root) {
        tree_free(v->root, v->levels);
    }
    free(v);
}

/* The cell of a sector, for walks upwards: `leaf` is looked up anew where the next one begins. */
static uint64_t *cell_at(struct guest_verify *v, uint64_t sector, uint64_t **leaf)
{
    if (!*leaf || sector % FAN == 0) {
        *leaf = leaf_get(v, sector);
    }
    return &(*leaf)[sector % FAN];
}

void guest_verify_wrote(struct guest_verify *v, uint64_t offset, const void *data, size_t len)
{
    uint64_t sector = offset / GUEST_SECTOR, end = sector + len / GUEST_SECTOR, *leaf = NULL;

    for (const uint8_t *p = data; sector < end; sector++, p += GUEST_SECTOR) {
        cell_set(v, cell_at(v, sector, &leaf), sector, sector_hash(p));
    }
}

void guest_verify_may_have_written(struct guest_verify *v, uint64_t offset, const void *data,
                                   size_t len)
{
    uint64_t sector = offset / GUEST_SECTOR, end = sector + len / GUEST_SECTOR, *leaf = NULL;

    for (const uint8_t *p = data; sector < end; sector++, p += GUEST_SECTOR) {
        cell_add_guess(v, cell_at(v, sector, &leaf), sector, sector_hash(p));
    }
}

void guest_verify_forget(struct guest_verify *v, uint64_t offset, uint64_t len)
{
    uint64_t sector = offset / GUEST_SECTOR;
    uint64_t end = len > UINT64_MAX - offset ? UINT64_MAX : (offset + len) / GUEST_SECTOR;

    while ((sector = leaf_next(v, sector)) < end) {
        uint64_t *leaf = leaf_find(v, sector);

        do {
            cell_set(v, &leaf[sector % FAN], sector, CELL_UNKNOWN);
            sector++;
        } while (sector < end && sector % FAN);
    }
}

/* --- Judgement -------------------------------------------------------------------------------- */

/* Words for a sector that should hold something else. */
static void describe(const void *sector, uint64_t address, const struct guest_verify *v, char *out,
                     size_t room)
{
    struct guest_stamp stamp;

    if (bytes_are_zero(sector, GUEST_SECTOR)) {
        snprintf(out, room, "zeroes");
    } else if (!guest_stamp_parse(sector, &stamp)) {
        snprintf(out, room, "other bytes");
    } else if (stamp.id != v->id) {
        snprintf(out, room, "another guest's stamp, of address %llu",
                 (unsigned long long)stamp.address);
    } else if (stamp.address != address) {
        snprintf(out, room, "what was written to address %llu (write %llu)",
                 (unsigned long long)stamp.address, (unsigned long long)stamp.generation);
    } else {
        snprintf(out, room, "an older content of this place (write %llu)",
                 (unsigned long long)stamp.generation);
    }
}

static void note_wrong(struct guest_finding *out, const void *sector, uint64_t address,
                       const struct guest_verify *v)
{
    if (!out->wrong++) {
        out->first = address;
        describe(sector, address, v, out->found, sizeof(out->found));
    }
}

/* Of an unknown sector one thing can be said: our own stamp belongs to its address. */
static bool misplaced(const struct guest_verify *v, const void *sector, uint64_t address)
{
    struct guest_stamp stamp;

    return guest_stamp_parse(sector, &stamp) && stamp.id == v->id && stamp.address != address;
}

void guest_verify_read(struct guest_verify *v, uint64_t offset, const void *data, size_t len,
                       struct guest_finding *out)
{
    uint64_t sector = offset / GUEST_SECTOR, end = sector + len / GUEST_SECTOR, *leaf = NULL;

    *out = (struct guest_finding){ .found = "" };
    for (const uint8_t *p = data; sector < end; sector++, p += GUEST_SECTOR) {
        uint64_t *cell = cell_at(v, sector, &leaf), address = sector * GUEST_SECTOR;
        uint64_t hash = sector_hash(p);

        if (*cell == CELL_UNKNOWN) {
            if (misplaced(v, p, address)) {
                note_wrong(out, p, address, v);
            }
            cell_set(v, cell, sector, hash);
            out->learned++;
            continue;
        }
        out->compared++;
        if (*cell == CELL_EITHER && guesses_hold(guesses_find(v, sector), hash)) {
            cell_set(v, cell, sector, hash);
        } else if (*cell != hash) {
            note_wrong(out, p, address, v);
        }
    }
}

/* The first sector at or behind this one of which something is known, or UINT64_MAX. */
static uint64_t known_next(const struct guest_verify *v, uint64_t sector)
{
    while ((sector = leaf_next(v, sector)) != UINT64_MAX) {
        const uint64_t *leaf = leaf_find(v, sector);

        do {
            if (leaf[sector % FAN] != CELL_UNKNOWN) {
                return sector;
            }
            sector++;
        } while (sector % FAN);
    }
    return UINT64_MAX;
}

bool guest_verify_next(const struct guest_verify *v, uint64_t from, uint64_t max, uint64_t *offset,
                       uint64_t *len)
{
    uint64_t first = known_next(v, DIV_ROUND_UP(from, GUEST_SECTOR)), end = first + 1;

    assert(max >= GUEST_SECTOR);
    if (first == UINT64_MAX) {
        return false;
    }
    while ((end + 1 - first) * GUEST_SECTOR <= max && known_next(v, end) == end) {
        end++;
    }
    *offset = first * GUEST_SECTOR;
    *len = (end - first) * GUEST_SECTOR;
    return true;
}

uint64_t guest_verify_known(const struct guest_verify *v)
{
    return v->known * GUEST_SECTOR;
}

size_t guest_verify_memory(const struct guest_verify *v)
{
    return v->memory;
}

/* --- Stamps ----------------------------------------------------------------------------------- */

static const char stamp_magic[8] = { 'M', 'G', 'S', 'T', 'A', 'M', 'P', '1' };

enum {
    STAMP_ADDRESS = 8,
    STAMP_GENERATION = 16,
    STAMP_ID = 24,
    STAMP_FILLER = 32,
    STAMP_SUM = 504,
};

void guest_stamp_fill(void *data, size_t len, uint64_t offset, uint64_t generation, uint64_t id)
{
    for (uint8_t *p = data, *end = p + len; p < end; p += GUEST_SECTOR, offset += GUEST_SECTOR) {
        uint64_t filler = (offset ^ id) + generation * 0x9e3779b97f4a7c15;

        memcpy(p, stamp_magic, sizeof(stamp_magic));
        store_le64(p + STAMP_ADDRESS, offset);
        store_le64(p + STAMP_GENERATION, generation);
        store_le64(p + STAMP_ID, id);
        for (unsigned at = STAMP_FILLER; at < STAMP_SUM; at += 8) {
            store_le64(p + at, filler);
            filler += 0x9e3779b97f4a7c15; /* no two words alike: no stamp compresses away */
        }
        store_le64(p + STAMP_SUM, guest_hash(p, STAMP_SUM));
    }
}

bool guest_stamp_parse(const void *sector, struct guest_stamp *out)
{
    const uint8_t *p = sector;

    if (memcmp(p, stamp_magic, sizeof(stamp_magic)) ||
        load_le64(p + STAMP_SUM) != guest_hash(p, STAMP_SUM)) {
        return false;
    }
    *out = (struct guest_stamp){
        .address = load_le64(p + STAMP_ADDRESS),
        .generation = load_le64(p + STAMP_GENERATION),
        .id = load_le64(p + STAMP_ID),
    };
    return true;
}
