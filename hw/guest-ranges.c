/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranges of the disk in use by a guest's own requests: see guest-state.h.
 *
 * A short list that is searched from end to end: it has as many entries as operations are in
 * flight, mostly a few dozen, and is one or two cache lines per four of them.  A range waits for
 * earlier ones only, so nobody starves and no two wait for each other.
 */
#include "hw/guest-state.h"

#include <assert.h>

#include "core/mem.h"

static unsigned find(const struct guest_ranges *r, uint64_t ticket)
{
    unsigned i = 0;

    while (r->list[i].ticket != ticket) {
        i++;
        assert(i < r->count);
    }
    return i;
}

bool guest_range_blocked(const struct guest_ranges *r, uint64_t ticket)
{
    const struct guest_range *me;

    if (!r->exclusive) {
        return false; /* nothing but reads */
    }
    me = &r->list[find(r, ticket)];
    for (unsigned i = 0; i < r->count; i++) {
        const struct guest_range *o = &r->list[i];

        if (o->start < me->end && me->start < o->end && o->ticket < me->ticket &&
            (o->exclusive || me->exclusive)) {
            return true;
        }
    }
    return false;
}

uint64_t guest_range_enter(struct guest_ranges *r, uint64_t offset, uint64_t len, bool exclusive)
{
    if (r->count == r->room) {
        r->room = r->room ? r->room * 2 : 8;
        r->list = mem_reallocarray(r->list, r->room, sizeof(*r->list));
    }
    r->exclusive += exclusive;
    r->list[r->count++] = (struct guest_range){
        .start = offset,
        .end = offset + len,
        .ticket = ++r->last_ticket,
        .exclusive = exclusive,
    };
    return r->last_ticket;
}

void co_guest_range_wait(struct guest_ranges *r, uint64_t ticket)
{
    while (guest_range_blocked(r, ticket)) {
        co_queue_wait(&r->waiters);
    }
}

void guest_range_leave(struct guest_ranges *r, uint64_t ticket)
{
    unsigned i = find(r, ticket);

    r->exclusive -= r->list[i].exclusive;
    r->list[i] = r->list[r->count - 1];
    r->count--;
    if (!co_queue_empty(&r->waiters)) {
        co_queue_wake_all(&r->waiters);
    }
}
