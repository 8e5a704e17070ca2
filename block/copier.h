/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copier: brings what lies between a target and a base into the target, while guests go on.
 *
 * It looks for the next window of the target's address space that holds anything to bring in (skipping the rest without
 * I/O), and fills it as one request that excludes overlapping guest writes.  Inside the window the chain map is asked
 * again, so whatever a guest wrote in the meantime is left alone.  Plain runs, from whatever layers, move from file to
 * file at once (co_io_gather()); zeroes become zero clusters; the rest (compressed, smaller clusters than the target's)
 * goes through memory.
 */
#ifndef BLOCK_COPIER_H
#define BLOCK_COPIER_H

#include "block/chain-map.h"
#include "block/node.h"

/* A guest that writes into a window waits for it; twice as much is no faster. */
#define COPIER_WINDOW_MAX (512u << 10)

struct copier {
    struct node *target;
    struct node *base;        /* the first layer that stays below; NULL: everything is merged */
    struct chain_map *map;    /* as seen from the target */
    uint64_t offset;          /* up to here everything is found; windows in flight may lie before it */
    uint64_t copied;          /* bytes of data moved so far */
    uint64_t end;             /* nothing behind it is looked for; 0: the target's size */
    bool zeroes_too;          /* what reads as zeroes is to be the target's own as well */
    void *spare;              /* large buffers at rest, linked by their first bytes: fresh memory costs as much as a copy */
    bool nested;              /* all this is inside of a request that is counted already */
};

void copier_init(struct copier *c, struct node *target, struct node *base);
void copier_fini(struct copier *c);
/* The next window at or behind c->offset, all of it something to bring in: aligned to the target's clusters, at most
 * `max` bytes (at least one cluster), and c->offset moves behind it.  *len = 0 means "nothing found so far": all is
 * seen when c->offset has come to the end; else ask again (a call looks at a bounded piece of the map, so that the
 * caller can pause).  Where tables cannot be read there is something: whoever fills that window gets the error. */
void co_copier_next(struct copier *c, uint64_t max, uint64_t *offset, uint64_t *len);
/* Bring in what the window holds.  Can be repeated after an error. */
int co_copier_fill(struct copier *c, uint64_t offset, uint64_t len);

#endif
