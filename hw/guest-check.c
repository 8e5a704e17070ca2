/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking at a guest's disk from outside of its workload: reading everything that it knows, and
 * keeping it off a range that somebody else writes.
 *
 * Both go the way of the guest's own requests: they enter ranges, so they see no write half done.
 */
#include <errno.h>

#include "core/mem.h"
#include "hw/guest-state.h"

/* One read of a verification takes at most this many bytes. */
#define VERIFY_BYTES (256u << 10)

/* Wait for a range as its own requests do, but not for one that waits for a `cont`: that might be
 * typed by the very one who waits for us.  False: it is stuck. */
static bool co_wait_unless_stuck(struct guest *g, uint64_t ticket)
{
    while (guest_range_blocked(&g->ranges, ticket)) {
        if (guest_is_stuck(g)) {
            return false;
        }
        co_queue_wait(&g->ranges.waiters);
    }
    return true;
}

/* Wait until the guest's driver is up.  False: that will not be. */
static bool co_wait_booted(struct guest *g)
{
    guest_poke(g);
    while (!g->booted && !g->gone && !g->boot_failed) {
        co_queue_wait(&g->watchers);
    }
    return g->booted && !g->gone;
}

/* Read one run of what is known.  As co_guest_read().  A run that a request waiting for `cont`
 * has entered is left out. */
static int co_verify_run(struct guest *g, uint64_t offset, uint32_t len, uint64_t gpa)
{
    uint64_t ticket = guest_range_enter(&g->ranges, offset, len, false);

    int ret = co_wait_unless_stuck(g, ticket) ? co_guest_read(g, offset, len, gpa) : 0;

    guest_range_leave(&g->ranges, ticket);
    return ret;
}

static int co_verify_all_known(struct guest *g, uint64_t gpa, uint32_t room)
{
    uint64_t offset, len, from = 0;
    int result = 0;

    while (guest_verify_next(g->verify, from, room, &offset, &len)) {
        if (!co_wait_booted(g)) {
            return g->gone ? result : -EIO;
        }
        uint64_t most = MAX(ROUND_DOWN(g->driver->max_bytes(g->drv), GUEST_SECTOR), GUEST_SECTOR);
        uint64_t end = ROUND_DOWN(g->driver->capacity(g->drv), GUEST_SECTOR);

        if (offset >= end) {
            break; /* the disk shrank */
        }
        len = MIN(MIN(len, most), end - offset);
        int ret = co_verify_run(g, offset, len, gpa);

        if (ret == -ECANCELED) {
            co_yield();
            continue; /* the machine was reset: once more */
        }
        result = ret ? -EIO : result;
        from = offset + len;
    }
    return result;
}

static int co_verify_guest(struct guest *g)
{
    uint32_t room = VERIFY_BYTES;

    if (!guest_verify_known(g->verify)) {
        return 0;
    }
    uint64_t gpa = guest_buffer_alloc(&room);

    g->verifiers++;
    int ret = co_verify_all_known(g, gpa, room);

    g->verifiers--;
    guest_buffer_free(gpa, room);
    return ret;
}

int co_guest_verify_all(void)
{
    int result = 0;

    for (struct guest *g = TAILQ_FIRST(&guests), *next; g; g = next) {
        g->visitors++; /* it stays in the list while we are with it */
        int ret = co_verify_guest(g);

        result = ret ? ret : result;
        next = TAILQ_NEXT(g, link);
        guest_leave(g);
    }
    return result;
}

/* --- Holding ---------------------------------------------------------------------------------- */

struct guest_hold {
    struct guest *g;
    uint64_t offset, len, ticket;
};

struct guest_hold *co_guest_hold(const char *disk_id, uint64_t offset, uint64_t len)
{
    struct guest *g = guest_find(disk_id);

    if (!g) {
        return NULL;
    }
    struct guest_hold *hold = mem_zalloc(sizeof(*hold));

    /* Whole sectors: the guest knows no smaller piece. */
    hold->g = g;
    hold->offset = ROUND_DOWN(offset, GUEST_SECTOR);
    hold->len = ROUND_UP(offset + len, GUEST_SECTOR) - hold->offset;
    g->visitors++;
    hold->ticket = guest_range_enter(&g->ranges, hold->offset, hold->len, true);
    /* Where it is stuck the guest's write comes last, and it knows what it wrote. */
    co_wait_unless_stuck(g, hold->ticket);
    return hold;
}

void guest_release(struct guest_hold *hold)
{
    if (hold) {
        guest_verify_forget(hold->g->verify, hold->offset, hold->len);
        guest_range_leave(&hold->g->ranges, hold->ticket);
        guest_leave(hold->g);
        free(hold);
    }
}
