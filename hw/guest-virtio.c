/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's own driver for a virtio block device behind virtio-mmio.
 *
 * It is software of the guest: it knows the device by its registers and rings only, and reaches
 * both through the machine, like a kernel's driver would.  Every request has a slot, a piece of
 * guest memory of its own:
 *
 *     0        16       32            64
 *     | header | status | ID, segment | descriptor table: header, data, ..., status |
 *
 * With indirect descriptors the ring's descriptor N points to the table of slot N, so a request
 * costs one entry of the ring however many parts it has.  Without them slot N owns the ring's
 * descriptors 3N to 3N+2 instead.
 *
 * All requests of one turn of the loop go to one queue and cost one notification; the next turn
 * takes the next queue.  Barriers: none, the device runs on the same thread (see virtqueue.h).
 */
#include <assert.h>
#include <errno.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "hw/virtio-blk.h"
#include "hw/virtio-mmio.h"

#define WANTED                                                                                    \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_BLK_F_SIZE_MAX |   \
     VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |         \
     VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_DISCARD |    \
     VIRTIO_BLK_F_WRITE_ZEROES)

/* A queue of the driver is not larger than this, whatever the device could do. */
#define QUEUE_SIZE 256u

#define RESET_POLL_NS (50 * NS_PER_US)

/* The slot's layout. */
#define SLOT_STATUS 16u
#define SLOT_DATA 32u
#define SLOT_TABLE 64u
#define SLOT_SEGMENTS 16u /* data descriptors in an indirect table */
#define SLOT_BYTES (SLOT_TABLE + 16u * (SLOT_SEGMENTS + 2))
#define DIRECT_DESCRIPTORS 3u

/* At most this much in one data descriptor, even if the device would take more. */
#define SEGMENT_BYTES (1u << 20)

#define STATUS_UNTOUCHED 0xff /* no device writes this one */

struct slot {
    SLIST_ENTRY(slot) link; /* in the free list of its queue */
    struct queue *queue;
    uint16_t index;
    uint64_t gpa;
    uint8_t *mem;
    struct co *co; /* who waits for it; NULL when nobody does */
    int result;
};

struct queue {
    struct driver *drv;
    unsigned index;
    uint16_t size, slot_count;
    uint64_t gpa; /* rings and slots: one allocation */
    size_t bytes;
    uint8_t *desc, *avail, *used;
    uint16_t placed; /* avail.idx */
    uint16_t told;   /* avail.idx when we last thought of notifying */
    uint16_t seen;   /* the next used entry to look at */
    struct slot *slots;
    SLIST_HEAD(, slot) free_slots;
    struct loop_task kick_task;
};

struct driver {
    struct machine_device *dev;
    uint64_t features;
    uint64_t capacity; /* bytes */
    uint32_t size_max, seg_max; /* bytes in one descriptor, data descriptors in one request */
    uint32_t discard_max, zero_max; /* sectors in one segment */
    char id[VIRTIO_BLK_ID_BYTES + 1];
    struct queue *queues;
    unsigned queue_count;
    unsigned current;  /* the queue of this turn */
    int error;         /* not 0: no more requests, this is why */
    bool aborted;      /* the machine was reset: the device is not ours any more */
    struct machine_listener boot_listener; /* hears of a reset while nobody can tell us */
    unsigned users;    /* coroutines inside co_virtio_request() */
    struct co_queue slot_waiters, idle_waiters;
};

/* --- Registers -------------------------------------------------------------------------------- */

static uint32_t reg_read(const struct driver *drv, unsigned offset)
{
    return machine_mmio_read(drv->dev->mmio_base + offset, 4);
}

static void reg_write(const struct driver *drv, unsigned offset, uint32_t value)
{
    machine_mmio_write(drv->dev->mmio_base + offset, value, 4);
}

static void reg_write64(const struct driver *drv, unsigned offset, uint64_t value)
{
    reg_write(drv, offset, value);
    reg_write(drv, offset + 4, value >> 32);
}

static uint32_t config_read(const struct driver *drv, unsigned offset, unsigned size)
{
    return machine_mmio_read(drv->dev->mmio_base + VIRTIO_MMIO_CONFIG + offset, size);
}

static bool has(const struct driver *drv, uint64_t feature)
{
    return drv->features & feature;
}

/* --- Completion ------------------------------------------------------------------------------- */

static void slot_complete(struct slot *slot, int result)
{
    struct co *co = slot->co;

    slot->co = NULL;
    slot->result = result;
    co_wake(co);
}

/* No request of this driver ends any more by itself. */
static void fail_all(struct driver *drv, int error)
{
    if (drv->error) {
        return;
    }
    drv->error = error;
    for (unsigned i = 0; i < drv->queue_count; i++) {
        struct queue *q = &drv->queues[i];

        for (unsigned s = 0; s < q->slot_count; s++) {
            if (q->slots[s].co) {
                slot_complete(&q->slots[s], error);
            }
        }
    }
    co_queue_wake_all(&drv->slot_waiters);
}

/* Take everything out of a used ring. */
static void queue_reap(struct queue *q)
{
    uint16_t done = load_le16(q->used + 2);

    while (q->seen != done) {
        const uint8_t *entry = q->used + 4 + 8 * (q->seen % q->size);
        uint32_t id = load_le32(entry);
        uint32_t index = has(q->drv, VIRTIO_F_INDIRECT_DESC) ? id : id / DIRECT_DESCRIPTORS;

        q->seen++;
        if (index >= q->slot_count || !q->slots[index].co) {
            fail_all(q->drv, -EIO); /* the device answers what was never asked */
            return;
        }
        struct slot *slot = &q->slots[index];

        slot_complete(slot, slot->mem[SLOT_STATUS] == VIRTIO_BLK_S_OK ? 0 : -EIO);
    }
    if (has(q->drv, VIRTIO_F_EVENT_IDX)) {
        store_le16(q->avail + 4 + 2 * q->size, q->seen); /* interrupt at the next one */
    }
}

/* What may change while the device runs.  The generation tells whether two halves belong
 * together. */
static void read_capacity(struct driver *drv)
{
    uint32_t generation;
    uint64_t sectors;

    do {
        generation = reg_read(drv, VIRTIO_MMIO_CONFIG_GENERATION);
        sectors = config_read(drv, VIRTIO_BLK_CAPACITY, 4) |
                  (uint64_t)config_read(drv, VIRTIO_BLK_CAPACITY + 4, 4) << 32;
    } while (generation != reg_read(drv, VIRTIO_MMIO_CONFIG_GENERATION));
    drv->capacity = sectors * VIRTIO_BLK_SECTOR;
}

static void on_interrupt(void *arg)
{
    struct driver *drv = arg;
    uint32_t why = reg_read(drv, VIRTIO_MMIO_INTERRUPT_STATUS);

    reg_write(drv, VIRTIO_MMIO_INTERRUPT_ACK, why);
    if (why & VIRTIO_INTERRUPT_CONFIG) {
        if (reg_read(drv, VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET) {
            fail_all(drv, -EIO);
            return;
        }
        read_capacity(drv);
    }
    if (why & VIRTIO_INTERRUPT_USED) {
        for (unsigned i = 0; i < drv->queue_count; i++) {
            queue_reap(&drv->queues[i]);
        }
    }
}

/* --- Requests --------------------------------------------------------------------------------- */

/* What a request is to the device: `gpa` and `len` are its data, none when len is 0. */
struct command {
    uint32_t type;
    uint64_t sector;
    uint64_t gpa;
    uint32_t len;
    bool device_writes;
};

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
static unsigned put_chain(const struct driver *drv, const struct slot *slot,
                          const struct command *cmd, uint8_t *table, unsigned at)
{
    unsigned first = at;
    uint16_t data_flags = VIRTQ_DESC_NEXT | (cmd->device_writes ? VIRTQ_DESC_WRITE : 0);
    uint32_t done = 0;

    put_desc(table, at, slot->gpa, VIRTIO_BLK_HEADER, VIRTQ_DESC_NEXT, at + 1);
    at++;
    while (done < cmd->len) {
        uint32_t part = MIN(cmd->len - done, drv->size_max);

        put_desc(table, at, cmd->gpa + done, part, data_flags, at + 1);
        at++;
        done += part;
    }
    put_desc(table, at, slot->gpa + SLOT_STATUS, 1, VIRTQ_DESC_WRITE, 0);
    return at - first + 1;
}

/* Notify the device of all that was placed in this turn, if it wants to know. */
static void queue_kick(void *arg)
{
    struct queue *q = arg;
    struct driver *drv = q->drv;
    uint16_t old = q->told;
    bool wanted;

    q->told = q->placed;
    if (has(drv, VIRTIO_F_EVENT_IDX)) {
        uint16_t event = load_le16(q->used + 4 + 8 * q->size);

        wanted = (uint16_t)(q->placed - event - 1) < (uint16_t)(q->placed - old);
    } else {
        wanted = !(load_le16(q->used) & VIRTQ_USED_NO_NOTIFY);
    }
    if (wanted && !drv->error) {
        reg_write(drv, VIRTIO_MMIO_QUEUE_NOTIFY, q->index);
    }
    drv->current = (q->index + 1) % drv->queue_count;
}

static void slot_place(struct driver *drv, struct slot *slot, const struct command *cmd)
{
    struct queue *q = slot->queue;
    unsigned head = slot->index;

    store_le32(slot->mem, cmd->type);
    store_le32(slot->mem + 4, 0);
    store_le64(slot->mem + 8, cmd->sector);
    slot->mem[SLOT_STATUS] = STATUS_UNTOUCHED;
    if (has(drv, VIRTIO_F_INDIRECT_DESC)) {
        unsigned count = put_chain(drv, slot, cmd, slot->mem + SLOT_TABLE, 0);

        put_desc(q->desc, head, slot->gpa + SLOT_TABLE, 16 * count, VIRTQ_DESC_INDIRECT, 0);
    } else {
        head *= DIRECT_DESCRIPTORS;
        put_chain(drv, slot, cmd, q->desc, head);
    }
    store_le16(q->avail + 4 + 2 * (q->placed % q->size), head);
    store_le16(q->avail + 2, ++q->placed);
    if (!q->kick_task.queued) {
        loop_defer(&q->kick_task, queue_kick, q);
    }
}

static struct slot *slot_take(struct driver *drv)
{
    for (unsigned i = 0; i < drv->queue_count; i++) {
        struct queue *q = &drv->queues[(drv->current + i) % drv->queue_count];
        struct slot *slot = SLIST_FIRST(&q->free_slots);

        if (slot) {
            SLIST_REMOVE_HEAD(&q->free_slots, link);
            return slot;
        }
    }
    return NULL;
}

/* Take a slot, waiting for one if need be.  NULL when the driver has come to its end. */
static struct slot *co_slot_get(struct driver *drv)
{
    while (!drv->error) {
        struct slot *slot = slot_take(drv);

        if (slot) {
            return slot;
        }
        co_queue_wait(&drv->slot_waiters);
    }
    return NULL;
}

static void slot_put(struct driver *drv, struct slot *slot)
{
    SLIST_INSERT_HEAD(&slot->queue->free_slots, slot, link);
    co_queue_wake_one(&drv->slot_waiters);
}

static int co_slot_run(struct driver *drv, struct slot *slot, const struct command *cmd)
{
    slot_place(drv, slot, cmd);
    slot->co = co_self();
    co_suspend();
    return slot->result;
}

static int co_transfer(struct driver *drv, const struct command *cmd)
{
    struct slot *slot = co_slot_get(drv);

    if (!slot) {
        return drv->error;
    }
    int ret = co_slot_run(drv, slot, cmd);

    slot_put(drv, slot);
    return ret;
}

/* DISCARD and WRITE_ZEROES, one segment a request. */
static int co_range(struct driver *drv, const struct guest_request *req)
{
    bool zero = req->op == GUEST_ZERO;
    uint64_t sector = req->offset / VIRTIO_BLK_SECTOR, left = req->len / VIRTIO_BLK_SECTOR;
    int ret = 0;

    while (left && !ret) {
        uint32_t part = MIN(left, (uint64_t)(zero ? drv->zero_max : drv->discard_max));
        struct slot *slot = co_slot_get(drv);

        if (!slot) {
            return drv->error;
        }
        uint8_t *segment = slot->mem + SLOT_DATA;
        struct command cmd = {
            .type = zero ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD,
            .gpa = slot->gpa + SLOT_DATA,
            .len = VIRTIO_BLK_SEGMENT,
        };

        store_le64(segment, sector);
        store_le32(segment + 8, part);
        store_le32(segment + 12, zero ? VIRTIO_BLK_SEGMENT_UNMAP : 0);
        ret = co_slot_run(drv, slot, &cmd);
        slot_put(drv, slot);
        sector += part;
        left -= part;
    }
    return ret;
}

static int co_get_id(struct driver *drv)
{
    struct slot *slot = co_slot_get(drv);

    if (!slot) {
        return drv->error;
    }
    struct command cmd = {
        .type = VIRTIO_BLK_T_GET_ID,
        .gpa = slot->gpa + SLOT_DATA,
        .len = VIRTIO_BLK_ID_BYTES,
        .device_writes = true,
    };
    int ret = co_slot_run(drv, slot, &cmd);

    if (!ret) {
        memcpy(drv->id, slot->mem + SLOT_DATA, VIRTIO_BLK_ID_BYTES);
    }
    slot_put(drv, slot);
    return ret;
}

static uint32_t virtio_max_bytes(void *arg)
{
    const struct driver *drv = arg;

    return drv->size_max * drv->seg_max;
}

static bool virtio_can(void *arg, enum guest_op op)
{
    const struct driver *drv = arg;
    bool writable = !has(drv, VIRTIO_BLK_F_RO);

    switch (op) {
    case GUEST_READ:
        return true;
    case GUEST_WRITE:
        return writable;
    case GUEST_FLUSH:
        return has(drv, VIRTIO_BLK_F_FLUSH);
    case GUEST_DISCARD:
        return writable && has(drv, VIRTIO_BLK_F_DISCARD) && drv->discard_max;
    case GUEST_ZERO:
        return writable && has(drv, VIRTIO_BLK_F_WRITE_ZEROES) && drv->zero_max;
    }
    return false;
}

static int co_dispatch(struct driver *drv, const struct guest_request *req)
{
    struct command cmd = { .sector = req->offset / VIRTIO_BLK_SECTOR, .gpa = req->gpa };

    if (!virtio_can(drv, req->op)) {
        return -EIO;
    }
    switch (req->op) {
    case GUEST_READ:
    case GUEST_WRITE:
        assert(req->len <= virtio_max_bytes(drv));
        cmd.type = req->op == GUEST_READ ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
        cmd.device_writes = req->op == GUEST_READ;
        cmd.len = req->len;
        return co_transfer(drv, &cmd);
    case GUEST_FLUSH:
        cmd = (struct command){ .type = VIRTIO_BLK_T_FLUSH };
        return co_transfer(drv, &cmd);
    default:
        return co_range(drv, req);
    }
}

static int co_virtio_request(void *arg, const struct guest_request *req)
{
    struct driver *drv = arg;

    assert(req->offset % VIRTIO_BLK_SECTOR == 0 && req->len % VIRTIO_BLK_SECTOR == 0);
    drv->users++;
    int ret = co_dispatch(drv, req);

    if (!--drv->users) {
        co_queue_wake_all(&drv->idle_waiters);
    }
    return ret;
}

/* --- Boot ------------------------------------------------------------------------------------- */

static void co_reset_device(const struct driver *drv)
{
    reg_write(drv, VIRTIO_MMIO_STATUS, 0);
    while (reg_read(drv, VIRTIO_MMIO_STATUS)) {
        co_sleep_ns(RESET_POLL_NS); /* until the host is done with our buffers */
    }
}

static void add_status(const struct driver *drv, uint32_t bit)
{
    reg_write(drv, VIRTIO_MMIO_STATUS, reg_read(drv, VIRTIO_MMIO_STATUS) | bit);
}

static bool is_virtio_blk(const struct driver *drv)
{
    return reg_read(drv, VIRTIO_MMIO_MAGIC) == VIRTIO_MAGIC &&
           reg_read(drv, VIRTIO_MMIO_VERSION) == VIRTIO_VERSION &&
           reg_read(drv, VIRTIO_MMIO_DEVICE_ID) == VIRTIO_ID_BLOCK;
}

/* Sections 3.1.1 and 4.2.3.1.1: what can you do, do we agree? */
static int co_negotiate(struct driver *drv)
{
    uint64_t offered = 0;

    co_reset_device(drv);
    if (drv->error) {
        return drv->error;
    }
    add_status(drv, VIRTIO_ACKNOWLEDGE);
    add_status(drv, VIRTIO_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        reg_write(drv, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        offered |= (uint64_t)reg_read(drv, VIRTIO_MMIO_DEVICE_FEATURES) << (32 * half);
    }
    drv->features = offered & WANTED;
    for (unsigned half = 0; half < 2; half++) {
        reg_write(drv, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        reg_write(drv, VIRTIO_MMIO_DRIVER_FEATURES, drv->features >> (32 * half));
    }
    add_status(drv, VIRTIO_FEATURES_OK);
    return reg_read(drv, VIRTIO_MMIO_STATUS) & VIRTIO_FEATURES_OK ? 0 : -ENOTSUP;
}

static void read_config(struct driver *drv)
{
    uint32_t bytes = SEGMENT_BYTES, segments = 1;

    read_capacity(drv);
    if (has(drv, VIRTIO_BLK_F_SIZE_MAX)) {
        bytes = MIN(bytes, config_read(drv, VIRTIO_BLK_SIZE_MAX, 4));
    }
    if (has(drv, VIRTIO_BLK_F_SEG_MAX) && has(drv, VIRTIO_F_INDIRECT_DESC)) {
        segments = MIN(SLOT_SEGMENTS, config_read(drv, VIRTIO_BLK_SEG_MAX, 4));
    }
    /* A device that says 0 gets one sector at a time. */
    drv->size_max = MAX(ROUND_DOWN(bytes, VIRTIO_BLK_SECTOR), VIRTIO_BLK_SECTOR);
    drv->seg_max = MAX(segments, 1u);
    if (has(drv, VIRTIO_BLK_F_DISCARD)) {
        drv->discard_max = config_read(drv, VIRTIO_BLK_MAX_DISCARD, 4);
    }
    if (has(drv, VIRTIO_BLK_F_WRITE_ZEROES)) {
        drv->zero_max = config_read(drv, VIRTIO_BLK_MAX_ZEROES, 4);
    }
    drv->queue_count = has(drv, VIRTIO_BLK_F_MQ) ? config_read(drv, VIRTIO_BLK_NUM_QUEUES, 2) : 1;
}

static uint64_t align_up(uint64_t at, uint64_t unit)
{
    return ROUND_UP(at, unit);
}

/* Lay rings and slots out in one piece of guest memory. */
static void queue_layout(struct queue *q, uint16_t size)
{
    uint64_t avail = VIRTQ_DESC_BYTES(size);
    uint64_t used = align_up(avail + VIRTQ_AVAIL_BYTES(size), 4);
    uint64_t slots = align_up(used + VIRTQ_USED_BYTES(size), 64);

    q->size = size;
    q->slot_count = has(q->drv, VIRTIO_F_INDIRECT_DESC) ? size : size / DIRECT_DESCRIPTORS;
    q->bytes = slots + (uint64_t)q->slot_count * SLOT_BYTES;
    q->gpa = guest_alloc(q->bytes);
    q->desc = memory_map(q->gpa, q->bytes);
    q->avail = q->desc + avail;
    q->used = q->desc + used;
    memset(q->desc, 0, slots); /* memory may hold anything */
    q->slots = mem_calloc(q->slot_count, sizeof(*q->slots));
    for (unsigned i = q->slot_count; i-- > 0;) {
        struct slot *slot = &q->slots[i];

        slot->queue = q;
        slot->index = i;
        slot->gpa = q->gpa + slots + (uint64_t)i * SLOT_BYTES;
        slot->mem = q->desc + slots + (uint64_t)i * SLOT_BYTES;
        SLIST_INSERT_HEAD(&q->free_slots, slot, link);
    }
}

static int queue_setup(struct driver *drv, unsigned index)
{
    struct queue *q = &drv->queues[index];

    q->drv = drv;
    q->index = index;
    reg_write(drv, VIRTIO_MMIO_QUEUE_SEL, index);
    uint32_t max = reg_read(drv, VIRTIO_MMIO_QUEUE_NUM_MAX);

    if (max < DIRECT_DESCRIPTORS || reg_read(drv, VIRTIO_MMIO_QUEUE_READY)) {
        return -ENODEV;
    }
    queue_layout(q, MIN(max, QUEUE_SIZE));
    reg_write(drv, VIRTIO_MMIO_QUEUE_NUM, q->size);
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DESC, q->gpa);
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DRIVER, q->gpa + (q->avail - q->desc));
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DEVICE, q->gpa + (q->used - q->desc));
    reg_write(drv, VIRTIO_MMIO_QUEUE_READY, 1);
    return reg_read(drv, VIRTIO_MMIO_QUEUE_READY) ? 0 : -EIO;
}

static int co_bring_up(struct driver *drv)
{
    int ret = co_negotiate(drv);

    if (ret) {
        return ret;
    }
    read_config(drv);
    drv->queues = mem_calloc(drv->queue_count, sizeof(*drv->queues));
    for (unsigned i = 0; i < drv->queue_count; i++) {
        ret = queue_setup(drv, i);
        if (ret) {
            return ret;
        }
    }
    irq_attach(drv->dev->irq, on_interrupt, drv);
    add_status(drv, VIRTIO_DRIVER_OK);
    return co_get_id(drv);
}

static void virtio_abort(void *arg)
{
    struct driver *drv = arg;

    irq_attach(drv->dev->irq, NULL, NULL);
    drv->aborted = true;
    fail_all(drv, -ECANCELED);
}

static void co_virtio_shutdown(void *arg)
{
    struct driver *drv = arg;

    if (!drv->aborted) {
        co_reset_device(drv); /* from here on it does not touch our memory */
        virtio_abort(drv);
    }
    while (drv->users) {
        co_queue_wait(&drv->idle_waiters);
    }
    for (unsigned i = 0; i < drv->queue_count && drv->queues; i++) {
        struct queue *q = &drv->queues[i];

        while (q->kick_task.queued) {
            co_yield();
        }
        if (q->gpa) {
            guest_free(q->gpa, q->bytes);
        }
        free(q->slots);
    }
    free(drv->queues);
    free(drv);
}

static void reset_while_booting(struct machine_listener *l)
{
    virtio_abort(CONTAINER_OF(l, struct driver, boot_listener));
}

static int co_virtio_boot(struct machine_device *dev, void **out)
{
    struct driver *drv = mem_zalloc(sizeof(*drv));

    drv->dev = dev;
    if (!is_virtio_blk(drv)) {
        free(drv);
        return -ENODEV;
    }
    drv->boot_listener.reset = reset_while_booting;
    co_queue_init(&drv->slot_waiters);
    co_queue_init(&drv->idle_waiters);
    machine_listen(&drv->boot_listener);
    int ret = co_bring_up(drv);

    machine_unlisten(&drv->boot_listener);
    if (ret) {
        if (!drv->aborted) {
            add_status(drv, VIRTIO_FAILED);
        }
        co_virtio_shutdown(drv);
        return ret;
    }
    *out = drv;
    return 0;
}

/* --- What the guest asks ---------------------------------------------------------------------- */

static uint64_t virtio_capacity(void *arg)
{
    return ((struct driver *)arg)->capacity;
}

static bool virtio_read_only(void *arg)
{
    return has(arg, VIRTIO_BLK_F_RO);
}

static unsigned virtio_depth(void *arg)
{
    const struct driver *drv = arg;
    unsigned depth = 0;

    for (unsigned i = 0; i < drv->queue_count; i++) {
        depth += drv->queues[i].slot_count;
    }
    return depth;
}

const struct guest_driver guest_virtio_driver = {
    .name = "virtio-blk",
    .co_boot = co_virtio_boot,
    .co_shutdown = co_virtio_shutdown,
    .co_request = co_virtio_request,
    .abort = virtio_abort,
    .capacity = virtio_capacity,
    .read_only = virtio_read_only,
    .can = virtio_can,
    .depth = virtio_depth,
    .max_bytes = virtio_max_bytes,
};
