/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio-mmio transport: see virtio-mmio.h for the state machine and the contract.
 *
 * Control registers take aligned 32-bit accesses only (section 4.2.2.2); others read 0 and write
 * nothing. What a driver may not do is ignored where that is harmless (clearing status bits, moving
 * the rings of a running queue, notifying before DRIVER_OK) and answered with DEVICE_NEEDS_RESET
 * where it would wait for ever otherwise (a queue that cannot be started).
 */
#include "hw/virtio-mmio.h"

#include <assert.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"

/* "MERG": who made this device; drivers print it at most. */
#define VENDOR_ID 0x4752454du

/* --- Interrupts ------------------------------------------------------------------------------- */

static void interrupt(struct virtio_mmio *v, uint32_t why)
{
    v->interrupts |= why;
    irq_raise(v->irq);
}

static void acknowledge(struct virtio_mmio *v, uint32_t bits)
{
    v->interrupts &= ~bits;
    if (!v->interrupts) {
        irq_lower(v->irq);
    }
}

static void interrupt_config(struct virtio_mmio *v)
{
    if (v->status & VIRTIO_DRIVER_OK) {
        interrupt(v, VIRTIO_INTERRUPT_CONFIG);
    }
}

void virtio_fail(struct virtio_mmio *v)
{
    if (v->resetting || (v->status & VIRTIO_NEEDS_RESET)) {
        return;
    }
    v->status |= VIRTIO_NEEDS_RESET;
    interrupt_config(v); /* section 2.1.2 */
}

void virtio_config_changed(struct virtio_mmio *v)
{
    v->generation++;
    if (!v->resetting) {
        interrupt_config(v);
    }
}

/* --- Queues ----------------------------------------------------------------------------------- */

static bool queue_ready(const struct virtio_queue *q)
{
    return q->vq.desc;
}

static bool live(const struct virtio_mmio *v)
{
    return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET | VIRTIO_FAILED)) ==
               VIRTIO_DRIVER_OK && !v->resetting;
}

static void notify(struct virtio_mmio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queues[queue];

    if (live(v) && queue_ready(q) && !q->stopping) {
        v->ops->notify(v, queue);
    }
}

static void again(void *arg)
{
    struct virtio_mmio *v = arg;

    for (unsigned i = 0; i < v->queue_count; i++) {
        if (v->queues[i].again) {
            v->queues[i].again = false;
            notify(v, i);
        }
    }
}

void virtio_again(struct virtio_mmio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queues[queue];

    q->again = true;
    if (queue_ready(q)) {
        virtqueue_ask_notify(&q->vq, false);
    }
    if (!v->again_task.queued) {
        loop_defer(&v->again_task, again, v);
    }
}

bool virtio_pop(struct virtio_mmio *v, unsigned queue, struct virtqueue_chain *chain)
{
    struct virtio_queue *q = &v->queues[queue];

    /* Asked each time: the request before may have broken the device. */
    if (!live(v)) {
        return false;
    }
    int ret = virtqueue_pop(&q->vq, chain);

    if (ret < 0) {
        virtio_fail(v);
    } else if (ret > 0) {
        v->in_flight++;
    }
    return ret > 0;
}

bool virtio_rearm(struct virtio_mmio *v, unsigned queue)
{
    struct virtio_queue *q = &v->queues[queue];

    if (!live(v)) {
        return false;
    }
    virtqueue_ask_notify(&q->vq, true);
    return virtqueue_has_work(&q->vq);
}

/* Show the driver all that was pushed in the last turn: one store per queue and at most one
 * interrupt. */
static void publish(void *arg)
{
    struct virtio_mmio *v = arg;
    bool wanted = false;

    if (v->resetting) {
        return;
    }
    for (unsigned i = 0; i < v->queue_count; i++) {
        if (queue_ready(&v->queues[i])) {
            wanted |= virtqueue_publish(&v->queues[i].vq);
        }
    }
    if (wanted) {
        interrupt(v, VIRTIO_INTERRUPT_USED);
    }
}

static void queue_stop(struct virtio_mmio *v, struct virtio_queue *q)
{
    if (virtqueue_publish(&q->vq)) {
        interrupt(v, VIRTIO_INTERRUPT_USED);
    }
    virtqueue_stop(&q->vq);
    q->stopping = false;
}

static void queue_set_ready(struct virtio_mmio *v, struct virtio_queue *q, bool ready)
{
    if (ready && !queue_ready(q) && (v->status & VIRTIO_FEATURES_OK)) {
        q->vq.indirect = v->driver_features & VIRTIO_F_INDIRECT_DESC;
        q->vq.event_idx = v->driver_features & VIRTIO_F_EVENT_IDX;
        if (q->num > v->queue_size_max ||
            virtqueue_start(&q->vq, q->num, q->desc, q->driver, q->device)) {
            virtio_fail(v);
        }
    } else if (!ready && queue_ready(q)) {
        q->stopping = true;
        if (!q->vq.in_flight) {
            queue_stop(v, q);
        }
    }
}

/* --- Reset ------------------------------------------------------------------------------------ */

static void reset_finish(struct virtio_mmio *v)
{
    for (unsigned i = 0; i < v->queue_count; i++) {
        struct virtio_queue *q = &v->queues[i];

        virtqueue_stop(&q->vq);
        *q = (struct virtio_queue){ 0 };
    }
    v->driver_features = 0;
    v->device_features_sel = v->driver_features_sel = v->queue_sel = 0;
    v->status = 0;
    v->ops->reset_end(v);
    v->resetting = false;
    co_queue_wake_all(&v->reset_waiters);
}

static void reset_begin(struct virtio_mmio *v)
{
    v->resetting = true;
    acknowledge(v, UINT32_MAX);
    v->ops->reset_begin(v);
    if (!v->in_flight) {
        reset_finish(v);
    }
}

void co_virtio_reset(struct virtio_mmio *v)
{
    if (!v->resetting) {
        reset_begin(v);
    }
    while (v->resetting) {
        co_queue_wait(&v->reset_waiters);
    }
}

bool virtio_wanted(const struct virtio_mmio *v)
{
    return !v->resetting;
}

void virtio_done(struct virtio_mmio *v, unsigned queue, uint16_t head, uint32_t written)
{
    struct virtio_queue *q = &v->queues[queue];

    assert(v->in_flight);
    v->in_flight--;
    if (v->resetting) {
        virtqueue_drop(&q->vq);
        if (!v->in_flight) {
            reset_finish(v);
        }
        return;
    }
    virtqueue_push(&q->vq, head, written);
    if (q->stopping && !q->vq.in_flight) {
        queue_stop(v, q);
    } else if (!v->publish_task.queued) {
        loop_defer(&v->publish_task, publish, v);
    }
}

/* --- Status ----------------------------------------------------------------------------------- */

static bool features_acceptable(const struct virtio_mmio *v)
{
    return !(v->driver_features & ~v->device_features) && (v->driver_features & VIRTIO_F_VERSION_1);
}

static void status_write(struct virtio_mmio *v, uint32_t value)
{
    if (!value) {
        reset_begin(v);
        return;
    }
    /* The driver adds bits, it cannot take one back; NEEDS_RESET is ours. */
    uint8_t added = value & 0xff & ~VIRTIO_NEEDS_RESET & ~v->status;

    if ((added & VIRTIO_FEATURES_OK) &&
        (!((v->status | added) & VIRTIO_DRIVER) || !features_acceptable(v))) {
        added &= ~VIRTIO_FEATURES_OK; /* the driver reads back and sees it refused */
    }
    if (!((v->status | added) & VIRTIO_FEATURES_OK)) {
        added &= ~VIRTIO_DRIVER_OK;
    }
    v->status |= added;
    if (added & VIRTIO_FEATURES_OK) {
        v->ops->negotiated(v);
    }
    if (added & VIRTIO_DRIVER_OK) {
        for (unsigned i = 0; i < v->queue_count; i++) {
            virtio_again(v, i); /* chains may have been waiting for this */
        }
    }
}

/* --- Registers -------------------------------------------------------------------------------- */

/* 32 bits of a 64-bit mask of features; nothing is behind the second half. */
static uint32_t features_word(uint64_t features, uint32_t sel)
{
    return sel > 1 ? 0 : features >> (32 * sel);
}

static void set_half(uint64_t *word, bool high, uint32_t value)
{
    *word = high ? (*word & UINT32_MAX) | (uint64_t)value << 32
                 : (*word & ~(uint64_t)UINT32_MAX) | value;
}

static struct virtio_queue *selected(struct virtio_mmio *v)
{
    return v->queue_sel < v->queue_count ? &v->queues[v->queue_sel] : NULL;
}

static uint64_t config_read(const struct virtio_mmio *v, uint64_t offset, unsigned size)
{
    uint8_t bytes[8] = { 0 };

    if (offset <= v->config_len && size <= v->config_len - offset) {
        memcpy(bytes, v->config + offset, size);
    }
    return load_le64(bytes);
}

static uint64_t register_read(void *arg, uint64_t offset, unsigned size)
{
    struct virtio_mmio *v = arg;
    struct virtio_queue *q = selected(v);

    if (offset >= VIRTIO_MMIO_CONFIG) {
        return config_read(v, offset - VIRTIO_MMIO_CONFIG, size);
    }
    if (size != 4 || offset % 4) {
        return 0;
    }
    switch (offset) {
    case VIRTIO_MMIO_MAGIC:
        return VIRTIO_MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VIRTIO_VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return v->ops->device_id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR_ID;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return features_word(v->device_features, v->device_features_sel);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return q ? v->queue_size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return q && queue_ready(q);
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return v->interrupts;
    case VIRTIO_MMIO_STATUS:
        return v->status;
    case VIRTIO_MMIO_SHM_LEN:
    case VIRTIO_MMIO_SHM_LEN + 4:
    case VIRTIO_MMIO_SHM_BASE:
    case VIRTIO_MMIO_SHM_BASE + 4:
        return UINT32_MAX; /* no shared memory region */
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return v->generation;
    default:
        return 0;
    }
}

/* Registers of the selected queue.  Its rings cannot be moved while it is ready. */
static void queue_write(struct virtio_mmio *v, uint64_t offset, uint32_t value)
{
    struct virtio_queue *q = selected(v);

    if (!q) {
        return;
    }
    if (offset == VIRTIO_MMIO_QUEUE_READY) {
        queue_set_ready(v, q, value & 1);
        return;
    }
    if (queue_ready(q)) {
        return;
    }
    switch (offset & ~4ull) {
    case VIRTIO_MMIO_QUEUE_NUM & ~4:
        q->num = value;
        break;
    case VIRTIO_MMIO_QUEUE_DESC:
        set_half(&q->desc, offset & 4, value);
        break;
    case VIRTIO_MMIO_QUEUE_DRIVER:
        set_half(&q->driver, offset & 4, value);
        break;
    case VIRTIO_MMIO_QUEUE_DEVICE:
        set_half(&q->device, offset & 4, value);
        break;
    }
}

static void config_write(struct virtio_mmio *v, uint64_t offset, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    store_le64(bytes, value);
    if ((v->status & VIRTIO_FEATURES_OK) && offset <= v->config_len &&
        size <= v->config_len - offset) {
        v->ops->config_write(v, offset, bytes, size);
    }
}

static void register_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *v = arg;

    if (v->resetting) {
        return;
    }
    if (offset >= VIRTIO_MMIO_CONFIG) {
        config_write(v, offset - VIRTIO_MMIO_CONFIG, value, size);
        return;
    }
    if (size != 4 || offset % 4) {
        return;
    }
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        v->device_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        v->driver_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        if (!(v->status & VIRTIO_FEATURES_OK) && v->driver_features_sel <= 1) {
            set_half(&v->driver_features, v->driver_features_sel, value);
        }
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        v->queue_sel = value;
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        if (value < v->queue_count) {
            notify(v, value);
        }
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        acknowledge(v, value);
        break;
    case VIRTIO_MMIO_STATUS:
        status_write(v, value);
        break;
    default:
        queue_write(v, offset, value);
    }
}

static const struct region_ops registers = { .read = register_read, .write = register_write };

/* --- Life ------------------------------------------------------------------------------------- */

void virtio_mmio_init(struct virtio_mmio *v, const struct virtio_ops *ops, uint64_t base,
                      struct irq_line *irq, uint64_t features, unsigned queues,
                      uint32_t queue_size_max, uint8_t *config, unsigned config_len)
{
    assert(queues && queue_size_max && queue_size_max <= VIRTQUEUE_SIZE_MAX);
    assert(config_len <= VIRTIO_MMIO_LEN - VIRTIO_MMIO_CONFIG);
    *v = (struct virtio_mmio){
        .ops = ops,
        .irq = irq,
        .config = config,
        .config_len = config_len,
        .device_features = features | VIRTIO_F_ALL,
        .queue_size_max = queue_size_max,
        .queue_count = queues,
        .queues = mem_calloc(queues, sizeof(*v->queues)),
    };
    co_queue_init(&v->reset_waiters);
    machine_add_mmio(base, VIRTIO_MMIO_LEN, &registers, v);
}

void co_virtio_mmio_fini(struct virtio_mmio *v)
{
    machine_remove_regions(v);
    co_virtio_reset(v);
    co_irq_close(v->irq);
    while (v->publish_task.queued || v->again_task.queued) {
        co_yield();
    }
    free(v->queues);
}
