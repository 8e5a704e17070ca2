/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory: one private mapping of the host, reserved as addresses only, so RAM costs what is
 * touched.
 *
 *     | guard page | RAM: gpa 0 ... memory_size() | guard page |
 *
 * memory_map() is the one way from a guest-physical address to a pointer.  RAM never moves while
 * the machine lives, so a pointer stays good until machine_fini(): devices may keep what they
 * mapped once (rings) and hand it to the I/O engine (zero copy).  The guard pages turn a
 * miscalculation of ours into a fault, never into a silent write elsewhere.
 *
 * The second half is the guest's own page allocator: first fit over a list of free ranges, kept
 * outside of guest memory so that a device which writes astray cannot harm it.  Guests allocate
 * when they boot and when their workload changes, not per request, so walking the list is cheap
 * enough.
 */
#include <assert.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/mem.h"
#include "hw/machine.h"

#define PAGE 4096u

/* Freed ranges of at least this many bytes are given back to the host at once. */
#define GIVE_BACK (1u << 20)

struct range {
    TAILQ_ENTRY(range) link;
    uint64_t start, len; /* guest-physical bytes, multiples of PAGE, len > 0 */
};

static uint8_t *ram;
static uint64_t ram_size;
/* Invariant: sorted by address, no two ranges touch. */
static TAILQ_HEAD(range_list, range) free_ranges = TAILQ_HEAD_INITIALIZER(free_ranges);

static struct range *range_new(uint64_t start, uint64_t len)
{
    struct range *range = mem_zalloc(sizeof(*range));

    range->start = start;
    range->len = len;
    return range;
}

void memory_init(uint64_t bytes)
{
    assert(!ram && bytes >= 2 * PAGE && bytes <= MACHINE_MMIO_BASE);
    ram_size = ROUND_DOWN(bytes, PAGE);
    uint8_t *base = mem_pages(ram_size + 2 * PAGE);

    if (mprotect(base, PAGE, PROT_NONE) || mprotect(base + PAGE + ram_size, PAGE, PROT_NONE)) {
        mem_exhausted(PAGE); /* the kernel counts mappings, too */
    }
    ram = base + PAGE;
    /* Huge pages would make a guest that touches a page here and there cost 2 MiB each time. */
    madvise(ram, ram_size, MADV_NOHUGEPAGE);
    /* Page 0 is never given out: address 0 in a ring or a table is always a mistake. */
    struct range *all = range_new(PAGE, ram_size - PAGE);

    TAILQ_INSERT_HEAD(&free_ranges, all, link);
}

void memory_fini(void)
{
    struct range *range;

    while ((range = TAILQ_FIRST(&free_ranges))) {
        TAILQ_REMOVE(&free_ranges, range, link);
        free(range);
    }
    munmap(ram - PAGE, ram_size + 2 * PAGE);
    ram = NULL;
    ram_size = 0;
}

uint64_t memory_size(void)
{
    return ram_size;
}

void *memory_map(uint64_t gpa, uint64_t len)
{
    /* No sum is formed of what the guest gave, so nothing can wrap. */
    if (!len || len > ram_size || gpa > ram_size - len) {
        return NULL;
    }
    return ram + gpa;
}

uint64_t guest_alloc(size_t len)
{
    struct range *range;

    assert(len);
    len = ROUND_UP(len, (size_t)PAGE);
    TAILQ_FOREACH(range, &free_ranges, link) {
        if (range->len >= len) {
            break;
        }
    }
    assert(range && "guest memory is used up");
    uint64_t gpa = range->start;

    range->start += len;
    range->len -= len;
    if (!range->len) {
        TAILQ_REMOVE(&free_ranges, range, link);
        free(range);
    }
    return gpa;
}

void guest_free(uint64_t gpa, size_t len)
{
    struct range *next, *range;

    len = ROUND_UP(len, (size_t)PAGE);
    assert(gpa && gpa % PAGE == 0 && memory_map(gpa, len));
    if (len >= GIVE_BACK) {
        madvise(ram + gpa, len, MADV_DONTNEED);
    }
    TAILQ_FOREACH(next, &free_ranges, link) {
        if (next->start > gpa) {
            break;
        }
    }
    struct range *previous = next ? TAILQ_PREV(next, range_list, link)
                                  : TAILQ_LAST(&free_ranges, range_list);

    assert(!next || gpa + len <= next->start);
    assert(!previous || previous->start + previous->len <= gpa);
    if (previous && previous->start + previous->len == gpa) {
        range = previous;
        range->len += len;
    } else {
        range = range_new(gpa, len);
        if (next) {
            TAILQ_INSERT_BEFORE(next, range, link);
        } else {
            TAILQ_INSERT_TAIL(&free_ranges, range, link);
        }
    }
    if (next && range->start + range->len == next->start) {
        range->len += next->len;
        TAILQ_REMOVE(&free_ranges, next, link);
        free(next);
    }
}
