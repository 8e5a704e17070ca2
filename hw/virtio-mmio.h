/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio transport over memory-mapped registers (virtio 1.2, section 4.2, version 2; no legacy
 * interface).
 *
 * It owns what all virtio devices share: the register block, feature negotiation, the status
 * machine, the configuration space's bytes, the queues and the interrupt.  A device is a struct
 * virtio_ops: it is told of notifications, takes chains with virtio_pop(), and gives each back with
 * virtio_done().
 *
 *     0 --ACKNOWLEDGE--> --DRIVER--> --FEATURES_OK--> (queues) --DRIVER_OK--> live --> NEEDS_RESET
 *     ^                                                                         |         |
 *     +--- Status reads 0 when nothing is in flight any more <--- resetting <---+ write 0 +
 *
 * A reset takes time when requests are in flight, because the host may still be filling the guest's
 * buffers. Until it is over, Status reads as before and writes are ignored; a driver waits until
 * Status reads 0 (section 4.2.3.1).  The results of those requests are dropped: no status byte, no
 * used entry.
 */
#ifndef HW_VIRTIO_MMIO_H
#define HW_VIRTIO_MMIO_H

#include "core/co.h"
#include "core/loop.h"
#include "hw/machine.h"
#include "hw/virtqueue.h"

/* Registers: offsets in the block.  The device-specific configuration space follows. */
enum virtio_mmio_register {
    VIRTIO_MMIO_MAGIC = 0x000,
    VIRTIO_MMIO_VERSION = 0x004,
    VIRTIO_MMIO_DEVICE_ID = 0x008,
    VIRTIO_MMIO_VENDOR_ID = 0x00c,
    VIRTIO_MMIO_DEVICE_FEATURES = 0x010,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL = 0x014,
    VIRTIO_MMIO_DRIVER_FEATURES = 0x020,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL = 0x024,
    VIRTIO_MMIO_QUEUE_SEL = 0x030,
    VIRTIO_MMIO_QUEUE_NUM_MAX = 0x034,
    VIRTIO_MMIO_QUEUE_NUM = 0x038,
    VIRTIO_MMIO_QUEUE_READY = 0x044,
    VIRTIO_MMIO_QUEUE_NOTIFY = 0x050,
    VIRTIO_MMIO_INTERRUPT_STATUS = 0x060,
    VIRTIO_MMIO_INTERRUPT_ACK = 0x064,
    VIRTIO_MMIO_STATUS = 0x070,
    VIRTIO_MMIO_QUEUE_DESC = 0x080,   /* low word; the high one is 4 bytes on, here and below */
    VIRTIO_MMIO_QUEUE_DRIVER = 0x090, /* the available ring */
    VIRTIO_MMIO_QUEUE_DEVICE = 0x0a0, /* the used ring */
    VIRTIO_MMIO_SHM_LEN = 0x0b0,
    VIRTIO_MMIO_SHM_BASE = 0x0b8,
    VIRTIO_MMIO_CONFIG_GENERATION = 0x0fc,
    VIRTIO_MMIO_CONFIG = 0x100,
    VIRTIO_MMIO_LEN = 0x200,
};

#define VIRTIO_MAGIC 0x74726976u
#define VIRTIO_VERSION 2u
#define VIRTIO_INTERRUPT_USED 1u
#define VIRTIO_INTERRUPT_CONFIG 2u

enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* Features of the transport; those of a device have the bits below 24. */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_ALL (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

struct virtio_mmio;

/* None of these may suspend. */
struct virtio_ops {
    uint32_t device_id;
    /* The driver has set FEATURES_OK: v->driver_features are final until the next reset. */
    void (*negotiated)(struct virtio_mmio *v);
    /* There may be chains in a queue: take them, virtio_again() if there are too many for one
     * go. */
    void (*notify)(struct virtio_mmio *v, unsigned queue);
    /* The driver wrote to the configuration space, [offset, offset + len) lies within. */
    void (*config_write)(struct virtio_mmio *v, unsigned offset, const uint8_t *bytes,
                         unsigned len);
    /* A reset begins: hurry what is in flight along.  It is over: nothing is in flight, put the
     * configuration back to its defaults. */
    void (*reset_begin)(struct virtio_mmio *v);
    void (*reset_end)(struct virtio_mmio *v);
};

struct virtio_queue {
    struct virtqueue vq;       /* started while QueueReady is 1 */
    uint32_t num;              /* what the driver wrote, believed by nobody until QueueReady */
    uint64_t desc, driver, device;
    bool stopping;             /* the driver wrote 0 to QueueReady, requests are still in flight */
    bool again;                /* to be looked at in the next turn */
};

struct virtio_mmio {
    const struct virtio_ops *ops;
    struct irq_line *irq;
    uint8_t *config;           /* the device's, little-endian as the driver reads it */
    unsigned config_len;
    uint32_t generation;       /* of the configuration */
    uint64_t device_features, driver_features;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint8_t status;            /* enum virtio_status */
    uint32_t interrupts;       /* InterruptStatus */
    uint32_t queue_size_max;
    unsigned queue_count;
    struct virtio_queue *queues;
    unsigned in_flight;        /* over all queues */
    bool resetting;
    struct co_queue reset_waiters;
    struct loop_task publish_task, again_task;
};

/* `queue_size_max` is a power of two.  `config` stays the device's and must live as long as `v`. */
void virtio_mmio_init(struct virtio_mmio *v, const struct virtio_ops *ops, uint64_t base,
                      struct irq_line *irq, uint64_t features, unsigned queues,
                      uint32_t queue_size_max, uint8_t *config, unsigned config_len);
/* Reset, wait for what is in flight, take the registers away.  Suspends. */
void co_virtio_mmio_fini(struct virtio_mmio *v);
/* As if the driver had written 0 to Status; returns when the reset is over.  Suspends. */
void co_virtio_reset(struct virtio_mmio *v);

/* Take the next chain of a queue.  False: there is none, the device is not live, or the ring is
 * broken, which was told to the driver (DEVICE_NEEDS_RESET). */
bool virtio_pop(struct virtio_mmio *v, unsigned queue, struct virtqueue_chain *chain);
/* Nothing was left to take: ask for a notification.  True: something has come meanwhile, go on
 * taking. */
bool virtio_rearm(struct virtio_mmio *v, unsigned queue);
/* Call notify for this queue in the next turn of the loop; until then the driver need not
 * notify. */
void virtio_again(struct virtio_mmio *v, unsigned queue);
/* May the results of requests still be written to guest memory? */
bool virtio_wanted(const struct virtio_mmio *v);
/* A chain is done with: give it back, or forget it during a reset.  Used entries are shown to
 * the driver and the interrupt is raised once per turn of the loop. */
void virtio_done(struct virtio_mmio *v, unsigned queue, uint16_t head, uint32_t written);
/* The driver broke the rules and there is no way to answer that request: DEVICE_NEEDS_RESET. */
void virtio_fail(struct virtio_mmio *v);
/* The device has changed bytes of the configuration. */
void virtio_config_changed(struct virtio_mmio *v);

#endif
