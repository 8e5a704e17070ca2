/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of a split virtqueue, as the guest's block driver uses it (its other side is
 * virtqueue.h; the two share the format and nothing else).
 *
 * Every request has a slot, a piece of guest memory of its own:
 *
 *     0        16       32            64
 *     | header | status | ID, segment | descriptor table: header, data, ..., status |
 *
 * With indirect descriptors the ring's descriptor N points to the table of slot N, so a request
 * costs one entry of the ring however many parts it has.  Without them slot N owns the ring's
 * descriptors 3N to 3N+2 instead.
 *
 * Barriers: none, the device runs on the same thread (see virtqueue.h).
 */
#ifndef HW_GUEST_VIRTQUEUE_H
#define HW_GUEST_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/co.h"
#include "core/loop.h"

/* The slot's layout, bytes. */
#define GUEST_SLOT_STATUS 16u
#define GUEST_SLOT_DATA 32u /* room for the data of small requests */
#define GUEST_SLOT_TABLE 64u
#define GUEST_SLOT_SEGMENTS 16u /* data descriptors in an indirect table */
#define GUEST_DIRECT_SEGMENTS 1u

struct guest_queue;

struct guest_slot {
    SLIST_ENTRY(guest_slot) link; /* in the free list of its queue */
    struct guest_queue *queue;
    uint16_t index;
    uint64_t gpa;
    uint8_t *mem;
    struct co *co; /* who waits for it; NULL when nobody does */
    int result;
};

struct guest_queue {
    uint16_t size, slot_count;
    bool indirect, event_idx; /* negotiated */
    uint64_t gpa;             /* rings and slots: one allocation */
    size_t bytes;
    uint8_t *desc, *avail, *used;
    uint16_t placed; /* avail.idx */
    uint16_t told;   /* avail.idx when we last thought of notifying */
    uint16_t seen;   /* the next used entry to look at */
    struct guest_slot *slots;
    SLIST_HEAD(, guest_slot) free_slots;
    struct loop_task turn_task;
    /* The turn of the loop in which requests were placed is over: all of them in one go.
     * `wanted`: the device wants to be notified of them. */
    void (*turn_over)(struct guest_queue *q, bool wanted);
};

/* What a request is to the device: `gpa` and `len` are its data, none when len is 0; cut into
 * descriptors of at most `part` bytes. */
struct guest_command {
    uint32_t type;
    uint64_t sector;
    uint64_t gpa;
    uint32_t len, part;
    bool device_writes;
};

/* Make rings and slots in guest memory.  The queue must be zeroed but for turn_over. */
void guest_queue_init(struct guest_queue *q, uint16_t size, bool indirect, bool event_idx);
/* Free them; nobody waits and the device is off them.  No-op on a queue that was never made.
 * Suspends. */
void co_guest_queue_fini(struct guest_queue *q);
/* A free slot of this queue, or NULL. */
struct guest_slot *guest_slot_take(struct guest_queue *q);
void guest_slot_put(struct guest_slot *slot);
/* Do one request in this slot and wait for its end.  0, -EIO by the status byte, or what
 * guest_queue_fail() said. */
int co_guest_slot_run(struct guest_slot *slot, const struct guest_command *cmd);
/* Take everything out of the used ring.  -EIO when the device answers what was never asked. */
int guest_queue_reap(struct guest_queue *q);
/* End every request that waits with this error. */
void guest_queue_fail(struct guest_queue *q, int error);

#endif
