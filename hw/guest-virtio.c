/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's own driver for a virtio block device behind virtio-mmio: reset, negotiation, queues,
 * interrupts, requests.
 *
 * It is software of the guest: it knows the device by its registers and rings only, and reaches
 * both through the machine, like a kernel's driver would.  Rings and requests in guest memory are
 * guest-virtqueue.c's.
 *
 * All requests of one turn of the loop go to one queue and cost one notification; the next turn
 * takes the next queue.
 */
#include <assert.h>
#include <errno.h>

#include "core/bytes.h"
#include "core/co.h"
#include "core/mem.h"
#include "hw/guest-virtqueue.h"
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
#define QUEUE_SIZE_MIN 3u /* the smallest request has three descriptors */

#define RESET_POLL_NS (50 * NS_PER_US)

/* At most this much in one data descriptor, even if the device would take more. */
#define SEGMENT_BYTES (1u << 20)

struct queue {
    struct guest_queue ring;
    struct driver *drv;
    unsigned index;
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

/* --- Interrupts ------------------------------------------------------------------------------- */

/* No request of this driver ends any more by itself. */
static void fail_all(struct driver *drv, int error)
{
    if (drv->error) {
        return;
    }
    drv->error = error;
    for (unsigned i = 0; i < drv->queue_count; i++) {
        guest_queue_fail(&drv->queues[i].ring, error);
    }
    co_queue_wake_all(&drv->slot_waiters);
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
            if (guest_queue_reap(&drv->queues[i].ring)) {
                fail_all(drv, -EIO);
            }
        }
    }
}

/* --- Requests --------------------------------------------------------------------------------- */

static void queue_turn_over(struct guest_queue *ring, bool wanted)
{
    struct queue *q = CONTAINER_OF(ring, struct queue, ring);

    if (wanted && !q->drv->error) {
        reg_write(q->drv, VIRTIO_MMIO_QUEUE_NOTIFY, q->index);
    }
    q->drv->current = (q->index + 1) % q->drv->queue_count;
}

static struct guest_slot *slot_take(struct driver *drv)
{
    struct guest_slot *slot = NULL;

    for (unsigned i = 0; i < drv->queue_count && !slot; i++) {
        slot = guest_slot_take(&drv->queues[(drv->current + i) % drv->queue_count].ring);
    }
    return slot;
}

/* Take a slot, waiting for one if need be.  NULL when the driver has come to its end. */
static struct guest_slot *co_slot_get(struct driver *drv)
{
    while (!drv->error) {
        struct guest_slot *slot = slot_take(drv);

        if (slot) {
            return slot;
        }
        co_queue_wait(&drv->slot_waiters);
    }
    return NULL;
}

static void slot_put(struct driver *drv, struct guest_slot *slot)
{
    guest_slot_put(slot);
    co_queue_wake_one(&drv->slot_waiters);
}

static int co_transfer(struct driver *drv, const struct guest_command *cmd)
{
    struct guest_slot *slot = co_slot_get(drv);

    if (!slot) {
        return drv->error;
    }
    int ret = co_guest_slot_run(slot, cmd);

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
        struct guest_slot *slot = co_slot_get(drv);

        if (!slot) {
            return drv->error;
        }
        uint8_t *segment = slot->mem + GUEST_SLOT_DATA;
        struct guest_command cmd = {
            .type = zero ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD,
            .gpa = slot->gpa + GUEST_SLOT_DATA,
            .len = VIRTIO_BLK_SEGMENT,
            .part = VIRTIO_BLK_SEGMENT,
        };

        store_le64(segment, sector);
        store_le32(segment + 8, part);
        store_le32(segment + 12, zero ? VIRTIO_BLK_SEGMENT_UNMAP : 0);
        ret = co_guest_slot_run(slot, &cmd);
        slot_put(drv, slot);
        sector += part;
        left -= part;
    }
    return ret;
}

static int co_get_id(struct driver *drv)
{
    struct guest_slot *slot = co_slot_get(drv);

    if (!slot) {
        return drv->error;
    }
    struct guest_command cmd = {
        .type = VIRTIO_BLK_T_GET_ID,
        .gpa = slot->gpa + GUEST_SLOT_DATA,
        .len = VIRTIO_BLK_ID_BYTES,
        .part = VIRTIO_BLK_ID_BYTES,
        .device_writes = true,
    };
    int ret = co_guest_slot_run(slot, &cmd);

    if (!ret) {
        memcpy(drv->id, slot->mem + GUEST_SLOT_DATA, VIRTIO_BLK_ID_BYTES);
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
    struct guest_command cmd = {
        .sector = req->offset / VIRTIO_BLK_SECTOR,
        .gpa = req->gpa,
        .part = drv->size_max,
    };

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
        cmd = (struct guest_command){ .type = VIRTIO_BLK_T_FLUSH };
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
    uint32_t bytes = SEGMENT_BYTES, segments = GUEST_DIRECT_SEGMENTS;

    read_capacity(drv);
    if (has(drv, VIRTIO_BLK_F_SIZE_MAX)) {
        bytes = MIN(bytes, config_read(drv, VIRTIO_BLK_SIZE_MAX, 4));
    }
    if (has(drv, VIRTIO_BLK_F_SEG_MAX) && has(drv, VIRTIO_F_INDIRECT_DESC)) {
        segments = MIN(GUEST_SLOT_SEGMENTS, config_read(drv, VIRTIO_BLK_SEG_MAX, 4));
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

static int queue_setup(struct driver *drv, unsigned index)
{
    struct queue *q = &drv->queues[index];
    struct guest_queue *ring = &q->ring;

    q->drv = drv;
    q->index = index;
    ring->turn_over = queue_turn_over;
    reg_write(drv, VIRTIO_MMIO_QUEUE_SEL, index);
    uint32_t max = reg_read(drv, VIRTIO_MMIO_QUEUE_NUM_MAX);

    if (max < QUEUE_SIZE_MIN || reg_read(drv, VIRTIO_MMIO_QUEUE_READY)) {
        return -ENODEV;
    }
    guest_queue_init(ring, MIN(max, QUEUE_SIZE), has(drv, VIRTIO_F_INDIRECT_DESC),
                     has(drv, VIRTIO_F_EVENT_IDX));
    reg_write(drv, VIRTIO_MMIO_QUEUE_NUM, ring->size);
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DESC, ring->gpa);
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DRIVER, ring->gpa + (ring->avail - ring->desc));
    reg_write64(drv, VIRTIO_MMIO_QUEUE_DEVICE, ring->gpa + (ring->used - ring->desc));
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
        co_guest_queue_fini(&drv->queues[i].ring);
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
        depth += drv->queues[i].ring.slot_count;
    }
    return depth;
}

static const char *virtio_id(void *arg)
{
    return ((struct driver *)arg)->id;
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
    .id = virtio_id,
};
