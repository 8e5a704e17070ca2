/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sparse contents: see io-sim-pages.h.
 *
 * The table is open addressing by page number (linear probing, a power of two, at most three
 * quarters full), because a table that is one block of memory is copied in one go.  Entries are
 * never removed: a page that lost everything stays as an empty struct until the table goes.
 */
#include "core/io-sim-pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/mem.h"

#define BLOCKS_PER_PAGE (SIM_PAGE_SIZE / SIM_BLOCK_SIZE)
#define SLOTS_MIN 16

struct page {
    unsigned refs;
    uint16_t held;        /* bit i: space is held for block i; includes all of `data` */
    uint16_t data;        /* bit i: block i holds bytes; the others read as zeroes */
    uint16_t hashed;      /* bit i: block_hash[i] is that of block i as it is */
    bool summed;
    uint64_t hash;        /* of all blocks together, while `summed` */
    uint64_t block_hash[BLOCKS_PER_PAGE];
    unsigned char *bytes; /* SIM_PAGE_SIZE, good where `data` says so; NULL: none at all */
};

struct slot {
    uint64_t number;
    struct page *page; /* NULL: free slot */
};

struct sim_pages {
    unsigned refs;
    size_t slots; /* a power of two */
    size_t used;
    uint64_t held;
    struct slot *slot;
};

/* --- Pages ------------------------------------------------------------------------------------ */

static void page_unref(struct page *page)
{
    if (!--page->refs) {
        free(page->bytes);
        free(page);
    }
}

static struct page *page_copy(const struct page *from)
{
    struct page *page = mem_alloc(sizeof(*page));

    *page = *from;
    page->refs = 1;
    page->summed = false;
    page->bytes = NULL;
    if (page->data) {
        page->bytes = mem_alloc(SIM_PAGE_SIZE);
        for (unsigned block = 0; block < BLOCKS_PER_PAGE; block++) {
            if (page->data & 1u << block) {
                memcpy(page->bytes + block * SIM_BLOCK_SIZE, from->bytes + block * SIM_BLOCK_SIZE,
                       SIM_BLOCK_SIZE);
            }
        }
    }
    return page;
}

/* Bits of the blocks that [from, to) of a page touches. */
static uint16_t touched(unsigned from, unsigned to)
{
    unsigned first = from / SIM_BLOCK_SIZE;
    unsigned end = DIV_ROUND_UP(to, SIM_BLOCK_SIZE);

    return first >= end ? 0 : ((1u << (end - first)) - 1) << first;
}

/* Bits of the blocks that lie in [from, to) as a whole. */
static uint16_t covered(unsigned from, unsigned to)
{
    return touched(ROUND_UP(from, SIM_BLOCK_SIZE), ROUND_DOWN(to, SIM_BLOCK_SIZE));
}

static void page_write(struct page *page, unsigned at, const unsigned char *buf, unsigned len)
{
    uint16_t bits = touched(at, at + len);
    uint16_t fresh = bits & ~page->data & ~covered(at, at + len);

    if (!page->bytes) {
        page->bytes = mem_alloc(SIM_PAGE_SIZE);
    }
    for (; fresh; fresh &= fresh - 1) {
        memset(page->bytes + __builtin_ctz(fresh) * SIM_BLOCK_SIZE, 0, SIM_BLOCK_SIZE);
    }
    memcpy(page->bytes + at, buf, len);
    page->data |= bits;
    page->held |= bits;
    page->hashed &= ~bits;
}

static void page_zero(struct page *page, unsigned from, unsigned to, bool hold)
{
    uint16_t whole = covered(from, to);
    uint16_t edges = touched(from, to) & ~whole & page->data;

    page->data &= ~whole;
    page->hashed &= ~touched(from, to);
    page->held = hold ? page->held | touched(from, to) : page->held & ~whole;
    for (; edges; edges &= edges - 1) {
        unsigned block = __builtin_ctz(edges) * SIM_BLOCK_SIZE;
        unsigned first = MAX(from, block);

        memset(page->bytes + first, 0, MIN(to, block + SIM_BLOCK_SIZE) - first);
    }
    if (!page->data) {
        free(page->bytes);
        page->bytes = NULL;
    }
}

static void page_read(const struct page *page, unsigned at, unsigned char *buf, unsigned len)
{
    while (len) {
        unsigned piece = MIN(len, SIM_BLOCK_SIZE - at % SIM_BLOCK_SIZE);

        if (page && page->data & 1u << at / SIM_BLOCK_SIZE) {
            memcpy(buf, page->bytes + at, piece);
        } else {
            memset(buf, 0, piece);
        }
        at += piece;
        buf += piece;
        len -= piece;
    }
}

/* --- The table -------------------------------------------------------------------------------- */

static size_t slot_of(const struct sim_pages *pages, uint64_t number)
{
    size_t mask = pages->slots - 1;
    size_t i = (number * 0x9e3779b97f4a7c15 >> 32) & mask;

    while (pages->slot[i].page && pages->slot[i].number != number) {
        i = (i + 1) & mask;
    }
    return i;
}

static struct page *find(const struct sim_pages *pages, uint64_t number)
{
    return pages->used ? pages->slot[slot_of(pages, number)].page : NULL;
}

struct sim_pages *sim_pages_new(void)
{
    struct sim_pages *pages = mem_zalloc(sizeof(*pages));

    pages->refs = 1;
    return pages;
}

struct sim_pages *sim_pages_ref(struct sim_pages *pages)
{
    pages->refs++;
    return pages;
}

void sim_pages_unref(struct sim_pages *pages)
{
    if (--pages->refs) {
        return;
    }
    for (size_t i = 0; i < pages->slots; i++) {
        if (pages->slot[i].page) {
            page_unref(pages->slot[i].page);
        }
    }
    free(pages->slot);
    free(pages);
}

/* Make *pages ours alone. */
static void own(struct sim_pages **pages)
{
    struct sim_pages *from = *pages;

    if (from->refs == 1) {
        return;
    }
    struct sim_pages *copy = mem_dup(from, sizeof(*from));

    copy->refs = 1;
    if (from->slots) {
        copy->slot = mem_dup(from->slot, from->slots * sizeof(*from->slot));
        for (size_t i = 0; i < copy->slots; i++) {
            if (copy->slot[i].page) {
                copy->slot[i].page->refs++;
            }
        }
    }
    from->refs--;
    *pages = copy;
}

static void grow(struct sim_pages *pages)
{
    size_t old_slots = pages->slots;
    struct slot *old = pages->slot;

    pages->slots = MAX(old_slots * 2, (size_t)SLOTS_MIN);
    pages->slot = mem_calloc(pages->slots, sizeof(*pages->slot));
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i].page) {
            pages->slot[slot_of(pages, old[i].number)] = old[i];
        }
    }
    free(old);
}

/* The page of that number for changing: ours alone, made when missing.  `pages` is ours alone. */
static struct page *page_for_change(struct sim_pages *pages, uint64_t number)
{
    struct page *page = find(pages, number);

    if (page && page->refs == 1) {
        page->summed = false;
        return page;
    }
    if (page) {
        pages->slot[slot_of(pages, number)].page = page_copy(page);
        page->refs--;
        return find(pages, number);
    }
    if ((pages->used + 1) * 4 > pages->slots * 3) {
        grow(pages);
    }
    page = mem_zalloc(sizeof(*page));
    page->refs = 1;
    pages->slot[slot_of(pages, number)] = (struct slot){ .number = number, .page = page };
    pages->used++;
    return page;
}

/* --- Ranges ----------------------------------------------------------------------------------- */

void sim_pages_write(struct sim_pages **pages, uint64_t offset, const void *buf, size_t len)
{
    const unsigned char *from = buf;

    own(pages);
    while (len) {
        unsigned at = offset % SIM_PAGE_SIZE;
        unsigned piece = MIN(len, SIM_PAGE_SIZE - at);
        struct page *page = page_for_change(*pages, offset / SIM_PAGE_SIZE);
        uint16_t held = page->held;

        page_write(page, at, from, piece);
        (*pages)->held += __builtin_popcount(page->held ^ held);
        offset += piece;
        from += piece;
        len -= piece;
    }
}

/* Zero the part of [offset, end) that lies in one page.  Nothing is copied when there is nothing to
 * change. */
static void zero_in_page(struct sim_pages **pages, uint64_t number, uint64_t offset, uint64_t end,
                         bool hold)
{
    uint64_t start = number * SIM_PAGE_SIZE;
    unsigned from = MAX(offset, start) - start;
    unsigned to = MIN(end - start, SIM_PAGE_SIZE);
    struct page *page = find(*pages, number);
    uint16_t held = page ? page->held : 0;
    uint16_t data = page ? page->data : 0;
    uint16_t bits = touched(from, to);

    if (hold ? !(bits & ~held) && !(bits & data) : !(covered(from, to) & held) && !(bits & data)) {
        return;
    }
    own(pages);
    page = page_for_change(*pages, number);
    page_zero(page, from, to, hold);
    (*pages)->held += __builtin_popcount(page->held);
    (*pages)->held -= __builtin_popcount(held);
}

void sim_pages_zero(struct sim_pages **pages, uint64_t offset, uint64_t len, bool hold)
{
    uint64_t end = len > UINT64_MAX - offset ? UINT64_MAX : offset + len;
    uint64_t first = offset / SIM_PAGE_SIZE;
    uint64_t last = (end - 1) / SIM_PAGE_SIZE;

    if (offset == end) {
        return;
    }
    if (!hold && last - first >= (*pages)->slots) {
        /* A range far larger than what there is: look at what there is.  No page is added, so the
         * slots stay. */
        for (size_t i = 0; i < (*pages)->slots; i++) {
            const struct slot *slot = &(*pages)->slot[i];

            if (slot->page && slot->number >= first && slot->number <= last) {
                zero_in_page(pages, slot->number, offset, end, hold);
            }
        }
        return;
    }
    for (uint64_t number = first; number <= last; number++) {
        zero_in_page(pages, number, offset, end, hold);
    }
}

void sim_pages_hold(struct sim_pages **pages, uint64_t offset, uint64_t len)
{
    own(pages);
    while (len) {
        unsigned at = offset % SIM_PAGE_SIZE;
        unsigned piece = MIN(len, SIM_PAGE_SIZE - at);
        struct page *page = page_for_change(*pages, offset / SIM_PAGE_SIZE);
        uint16_t missing = touched(at, at + piece) & ~page->held;

        page->held |= missing;
        (*pages)->held += __builtin_popcount(missing);
        offset += piece;
        len -= piece;
    }
}

void sim_pages_read(const struct sim_pages *pages, uint64_t offset, void *buf, size_t len)
{
    unsigned char *to = buf;

    while (len) {
        unsigned at = offset % SIM_PAGE_SIZE;
        unsigned piece = MIN(len, SIM_PAGE_SIZE - at);

        page_read(find(pages, offset / SIM_PAGE_SIZE), at, to, piece);
        offset += piece;
        to += piece;
        len -= piece;
    }
}

/* The first page at or behind `number` with data; UINT64_MAX when there is none. */
static uint64_t next_data_page(const struct sim_pages *pages, uint64_t number)
{
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < pages->slots; i++) {
        const struct slot *slot = &pages->slot[i];

        if (slot->page && slot->page->data && slot->number >= number && slot->number < next) {
            next = slot->number;
        }
    }
    return next;
}

bool sim_pages_map(const struct sim_pages *pages, uint64_t offset, uint64_t *len)
{
    uint64_t end = *len > UINT64_MAX - offset ? UINT64_MAX : offset + *len;
    const struct page *page = find(pages, offset / SIM_PAGE_SIZE);
    bool data = page && page->data & 1u << offset % SIM_PAGE_SIZE / SIM_BLOCK_SIZE;
    uint64_t at = offset;

    while (at < end) {
        page = find(pages, at / SIM_PAGE_SIZE);
        if (!page || !page->data) {
            if (data) {
                break;
            }
            uint64_t next = next_data_page(pages, at / SIM_PAGE_SIZE);

            at = next == UINT64_MAX ? end : next * SIM_PAGE_SIZE;
        } else if (data == !!(page->data & 1u << at % SIM_PAGE_SIZE / SIM_BLOCK_SIZE)) {
            at = ROUND_DOWN(at, SIM_BLOCK_SIZE) + SIM_BLOCK_SIZE;
        } else {
            break;
        }
    }
    *len = MIN(at, end) - offset;
    return data;
}

uint64_t sim_pages_held(const struct sim_pages *pages)
{
    return pages->held;
}

uint64_t sim_pages_missing(const struct sim_pages *pages, uint64_t offset, uint64_t len)
{
    uint64_t missing = 0;

    while (len) {
        unsigned at = offset % SIM_PAGE_SIZE;
        unsigned piece = MIN(len, SIM_PAGE_SIZE - at);
        const struct page *page = find(pages, offset / SIM_PAGE_SIZE);

        missing += __builtin_popcount(touched(at, at + piece) & ~(page ? page->held : 0));
        offset += piece;
        len -= piece;
    }
    return missing;
}

/* --- Hashes ----------------------------------------------------------------------------------- */

static uint64_t block_hash(const unsigned char *bytes)
{
    static uint64_t of_zeroes;
    static const unsigned char zeroes[SIM_BLOCK_SIZE];

    if (!of_zeroes) {
        of_zeroes = XXH3_64bits(zeroes, SIM_BLOCK_SIZE);
    }
    return XXH3_64bits(bytes, SIM_BLOCK_SIZE) - of_zeroes;
}

static uint64_t page_hash(struct page *page)
{
    if (!page->summed) {
        page->hash = 0;
        for (uint16_t left = page->data; left; left &= left - 1) {
            unsigned block = __builtin_ctz(left);

            if (!(page->hashed & 1u << block)) {
                page->block_hash[block] = block_hash(page->bytes + block * SIM_BLOCK_SIZE);
            }
            page->hash += page->block_hash[block] * (2 * block + 1);
        }
        page->hashed |= page->data;
        page->summed = true;
    }
    return page->hash;
}

uint64_t sim_pages_hash(const struct sim_pages *pages)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < pages->slots; i++) {
        if (pages->slot[i].page) {
            hash += page_hash(pages->slot[i].page) * (pages->slot[i].number * 0x9e3779b97f4a7c16u + 1);
        }
    }
    return hash;
}
