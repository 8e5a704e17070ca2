/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sparse contents of a simulated file: bytes by address, shared until written.
 *
 * One idea, twice: a content is a table of pages (64 KiB), both counted by reference and copied
 * when a shared one is changed.  So keeping a content (what is durable, a snapshot) costs one
 * reference, and the first change after that the table and the blocks in use of one page.  A page
 * knows of each of its 16 blocks (4 KiB) whether space is held for it and whether it holds data; a
 * block without data is never stored nor copied.
 *
 * Contents have no size; whoever owns one keeps everything beyond the file's end free of data.
 */
#ifndef CORE_IO_SIM_PAGES_H
#define CORE_IO_SIM_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_BLOCK_SIZE 4096u
#define SIM_PAGE_SIZE 32768u

struct sim_pages;

/* An empty content, owned by the caller. */
struct sim_pages *sim_pages_new(void);
struct sim_pages *sim_pages_ref(struct sim_pages *pages); /* returns `pages` */
void sim_pages_unref(struct sim_pages *pages);

/* Changes replace *pages when it is shared. */
void sim_pages_write(struct sim_pages **pages, uint64_t offset, const void *buf, size_t len);
/* Make a range read as zeroes.  Whole blocks lose their data; their space is held afterwards or
 * not, as `hold` says. */
void sim_pages_zero(struct sim_pages **pages, uint64_t offset, uint64_t len, bool hold);
/* Hold space for the blocks that the range touches. */
void sim_pages_hold(struct sim_pages **pages, uint64_t offset, uint64_t len);

void sim_pages_read(const struct sim_pages *pages, uint64_t offset, void *buf, size_t len);
/* Data or not at `offset`; shortens *len to where that changes. */
bool sim_pages_map(const struct sim_pages *pages, uint64_t offset, uint64_t *len);
/* Blocks for which space is held, in all. */
uint64_t sim_pages_held(const struct sim_pages *pages);
/* The bytes as a number; what is zero counts alike, held or not.  Pages remember theirs, so a
 * change costs its page only. */
uint64_t sim_pages_hash(const struct sim_pages *pages);
/* Blocks that a write to the range would have to find space for. */
uint64_t sim_pages_missing(const struct sim_pages *pages, uint64_t offset, uint64_t len);

#endif
