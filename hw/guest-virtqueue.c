/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of a virtqueue: see guest-virtqueue.h for slots and their layout.
 */
#include "hw/guest-virtqueue.h"

#include <errno.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/machine.h"
#include "hw/virtio-blk.h"
#include "hw/virtqueue.h"

#define SLOT_BYTES (GUEST_SLOT_TABLE + 16u * (GUEST_SLOT_SEGMENTS + 2))
#define DIRECT_DESCRIPTORS (GUEST_DIRECT_SEGMENTS + 2)

#define STATUS_UNTOUCHED 0xff /* no device writes this one */

/* Lay rings and slots out in one piece of guest memory. */
void guest_queue_init(struct guest_queue *q, uint16_t size, bool indirect, bool event_idx)
{
    uint64_t avail = VIRTQ_DESC_BYTES(size);
    uint64_t used = ROUND_UP(avail + VIRTQ_AVAIL_BYTES(size), 4);
    uint64_t slots = ROUND_UP(used + VIRTQ_USED_BYTES(size), 64);

    q->size = size;
    q->indirect = indirect;
    q->event_idx = event_idx;
    q->slot_count = indirect ? size : size / DIRECT_DESCRIPTORS;
    q->bytes = slots + (uint64_t)q->slot_count * SLOT_BYTES;
    q->gpa = guest_alloc(q->bytes);
    q->desc = memory_map(q->gpa, q->bytes);
    q->avail = q->desc + avail;
    q->used = q->desc + used;
    memset(q->desc, 0, slots); /* memory may hold anything */
    q->slots = mem_calloc(q->slot_count, sizeof(*q->slots));
    for (unsigned i = q->slot_count; i-- > 0;) {
        struct guest_slot *slot = &q->slots[i];

        slot->queue = q;
        slot->index = i;
        slot->gpa = q->gpa + slots + (uint64_t)i * SLOT_BYTES;
        slot->mem = q->desc + slots + (uint64_t)i * SLOT_BYTES;
        SLIST_INSERT_HEAD(&q->free_slots, slot, link);
    }
}

void co_guest_queue_fini(struct guest_queue *q)
{
    while (q->turn_task.queued) {
        co_yield();
    }
    if (q->gpa) {
        guest_free(q->gpa, q->bytes);
    }
    free(q->slots);
}

struct guest_slot *guest_slot_take(struct guest_queue *q)
{
    struct guest_slot *slot = SLIST_FIRST(&q->free_slots);

    if (slot) {
        SLIST_REMOVE_HEAD(&q->free_slots, link);
    }
    return slot;
}

void guest_slot_put(struct guest_slot *slot)
{
    SLIST_INSERT_HEAD(&slot->queue->free_slots, slot, link);
}

/* --- Placing ---------------------------------------------------------------------------------- */

static void put_desc(uint8_t *table, unsigned at, uint64_t gpa, uint32_t len, uint16_t flags,
                     unsigned next)
{
    uint8_t *d = table + 16 * at;

    store_le64(d, gpa);
    store_le32(d + 8, len);
    store_le16(d + 12, flags);
    store_le16(d + 14, next);
}

/* Write the chain header -> data -> status into `table`, its first descriptor at `at`.  Returns
 * their number. */
static unsigned put_chain(const struct guest_slot *slot, const struct guest_command *cmd,
                          uint8_t *table, unsigned at)
{
    unsigned first = at;
    uint16_t data_flags = VIRTQ_DESC_NEXT | (cmd->device_writes ? VIRTQ_DESC_WRITE : 0);
    uint32_t done = 0;

    put_desc(table, at, slot->gpa, VIRTIO_BLK_HEADER, VIRTQ_DESC_NEXT, at + 1);
    at++;
    while (done < cmd->len) {
        uint32_t part = MIN(cmd->len - done, cmd->part);

        put_desc(table, at, cmd->gpa + done, part, data_flags, at + 1);
        at++;
        done += part;
    }
    put_desc(table, at, slot->gpa + GUEST_SLOT_STATUS, 1, VIRTQ_DESC_WRITE, 0);
    return at - first + 1;
}

static void turn_over(void *arg)
{
    struct guest_queue *q = arg;
    uint16_t old = q->told;
    bool wanted;

    q->told = q->placed;
    if (q->event_idx) {
        uint16_t event = load_le16(q->used + 4 + 8 * q->size);

        wanted = (uint16_t)(q->placed - event - 1) < (uint16_t)(q->placed - old);
    } else {
        wanted = !(load_le16(q->used) & VIRTQ_USED_NO_NOTIFY);
    }
    q->turn_over(q, wanted);
}

static void slot_place(struct guest_slot *slot, const struct guest_command *cmd)
{
    struct guest_queue *q = slot->queue;
    unsigned head = slot->index;

    store_le32(slot->mem, cmd->type);
    store_le32(slot->mem + 4, 0);
    store_le64(slot->mem + 8, cmd->sector);
    slot->mem[GUEST_SLOT_STATUS] = STATUS_UNTOUCHED;
    if (q->indirect) {
        unsigned count = put_chain(slot, cmd, slot->mem + GUEST_SLOT_TABLE, 0);

        put_desc(q->desc, head, slot->gpa + GUEST_SLOT_TABLE, 16 * count, VIRTQ_DESC_INDIRECT, 0);
    } else {
        head *= DIRECT_DESCRIPTORS;
        put_chain(slot, cmd, q->desc, head);
    }
    store_le16(q->avail + 4 + 2 * (q->placed % q->size), head);
    store_le16(q->avail + 2, ++q->placed);
    if (!q->turn_task.queued) {
        loop_defer(&q->turn_task, turn_over, q);
    }
}

int co_guest_slot_run(struct guest_slot *slot, const struct guest_command *cmd)
{
    slot_place(slot, cmd);
    slot->co = co_self();
    co_suspend();
    return slot->result;
}

/* --- Completion ------------------------------------------------------------------------------- */

static void slot_complete(struct guest_slot *slot, int result)
{
    struct co *co = slot->co;

    slot->co = NULL;
    slot->result = result;
    co_wake(co);
}

int guest_queue_reap(struct guest_queue *q)
{
    uint16_t done = load_le16(q->used + 2);

    while (q->seen != done) {
        const uint8_t *entry = q->used + 4 + 8 * (q->seen % q->size);
        uint32_t id = load_le32(entry);
        uint32_t index = q->indirect ? id : id / DIRECT_DESCRIPTORS;

        q->seen++;
        if (index >= q->slot_count || !q->slots[index].co) {
            return -EIO;
        }
        struct guest_slot *slot = &q->slots[index];

        slot_complete(slot, slot->mem[GUEST_SLOT_STATUS] == VIRTIO_BLK_S_OK ? 0 : -EIO);
    }
    if (q->event_idx) {
        store_le16(q->avail + 4 + 2 * q->size, q->seen); /* interrupt at the next one */
    }
    return 0;
}

void guest_queue_fail(struct guest_queue *q, int error)
{
    for (unsigned i = 0; i < q->slot_count; i++) {
        if (q->slots[i].co) {
            slot_complete(&q->slots[i], error);
        }
    }
}
