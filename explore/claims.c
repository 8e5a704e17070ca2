/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images that nobody may write to: see claims.h.
 */
#include "explore/claims.h"

#include <stdlib.h>
#include <string.h>

#include "core/io-sim.h"
#include "core/mem.h"

void claim(struct world *w, int slot)
{
    if (slot != NO_IMAGE) {
        w->claims[slot]++;
        w->view.image[slot].still = 0;
    }
}

void claim_end(struct world *w, int slot)
{
    if (slot != NO_IMAGE) {
        w->claims[slot]--;
    }
}

/* Where the disk fails, an operation may fail to give back what it had made writable. */
static bool is_writable(int slot)
{
    const struct node *node;

    TAILQ_FOREACH(node, &all_nodes, link) {
        if (!node->read_only && world_slot(node->filename) == slot) {
            return true;
        }
    }
    return false;
}

/* What a killed process has left in the page cache may or may not be there later; what a failed sync
 * has dropped is shown, and will not be there. */
static bool is_durable(const struct world *w, int slot)
{
    AUTOFREE struct io_sim_pending *list = NULL;
    size_t n = io_sim_pending(&list), i = 0;

    while (i < n && strcmp(list[i].path, world_path(slot)) != 0) {
        i++;
    }
    return i == n && (!w->dropping || w->lying);
}

void claims_settle(struct world *w)
{
    world_look(w);
    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        struct world_known *known = &w->view.image[slot];

        if (known->sure && !known->still && !w->claims[slot] && !world_is_top(&w->view, slot) &&
            !(w->faulty && is_writable(slot)) && is_durable(w, slot)) {
            known->still = io_sim_hash(world_path(slot));
        }
    }
}
