/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A test bench for the virtio block device: a disk in memory behind it, and a driver in the test
 * that pokes registers and rings by hand, right or wrong.
 *
 * The device is compiled into the test under other names, so that it meets the disk below instead
 * of block/disk.c; queues, transport and machine are the program's own.  Everything runs on the
 * virtual clock.
 */
#ifndef TESTS_UNIT_VIRTIO_RIG_H
#define TESTS_UNIT_VIRTIO_RIG_H

#define co_disk_read fake_disk_read
#define co_disk_write fake_disk_write
#define co_disk_zero fake_disk_zero
#define co_disk_discard fake_disk_discard
#define co_disk_flush fake_disk_flush
#define disk_size fake_disk_size
#define disk_cancel fake_disk_cancel
#define disk_account_invalid fake_disk_account_invalid
#define virtio_blk_new fake_virtio_blk_new
#define virtio_blk_identify fake_virtio_blk_identify

/* After the names: the headers declare our disk under them. */
#include "hw/virtio-blk.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* --- The disk --------------------------------------------------------------------------------- */

#define DISK_BYTES (1u << 20)

struct fake {
    struct disk disk;
    struct node root;
    uint8_t *bytes;
    uint64_t size;
    bool hold;   /* requests wait in `held` until release() */
    bool slow;   /* requests wait a turn of the loop */
    bool dry;    /* zeroes and discards touch no byte */
    int error;   /* what requests end with */
    struct co_queue held;
    unsigned calls[DISK_OP_COUNT], zeroes, invalid, cancels;
    uint64_t range_bytes; /* of zeroes and discards */
    bool cancelling, unmap;
};

static struct fake fake;

static int co_fake_enter(enum disk_op op)
{
    fake.calls[op]++;
    if (fake.hold) {
        co_queue_wait(&fake.held);
    } else if (fake.slow) {
        co_yield();
    }
    return fake.error;
}

static inline void release(void)
{
    fake.hold = false;
    co_queue_wake_all(&fake.held);
}

int co_disk_read(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_fake_enter(DISK_READ);

    assert_true(offset + iov_size(iov, n) <= fake.size);
    if (!ret) {
        iov_from_buf(iov, n, 0, fake.bytes + offset, iov_size(iov, n));
    }
    return ret;
}

int co_disk_write(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_fake_enter(DISK_WRITE);

    assert_true(offset + iov_size(iov, n) <= fake.size);
    if (!ret) {
        iov_to_buf(iov, n, 0, fake.bytes + offset, iov_size(iov, n));
    }
    return ret;
}

int co_disk_zero(struct disk *disk, uint64_t offset, uint64_t len, bool may_unmap)
{
    int ret = co_fake_enter(DISK_WRITE);

    assert_true(len && offset + len <= fake.size);
    fake.zeroes++;
    fake.unmap = may_unmap;
    fake.range_bytes += len;
    if (!fake.dry) {
        memset(fake.bytes + offset, 0, len);
    }
    return ret;
}

int co_disk_discard(struct disk *disk, uint64_t offset, uint64_t len)
{
    int ret = co_fake_enter(DISK_UNMAP);

    assert_true(len && offset + len <= fake.size);
    fake.range_bytes += len;
    if (!fake.dry) {
        memset(fake.bytes + offset, 0xdd, len);
    }
    return ret;
}

int co_disk_flush(struct disk *disk)
{
    return co_fake_enter(DISK_FLUSH);
}

uint64_t disk_size(const struct disk *disk)
{
    return fake.size;
}

void disk_cancel(struct disk *disk, bool on)
{
    fake.cancelling = on;
    fake.cancels += on;
}

void disk_account_invalid(struct disk *disk, enum disk_op op)
{
    fake.invalid++;
}

/* --- The driver ------------------------------------------------------------------------------- */

#define RING_SIZE 16u
#define QUEUES 3u
#define BUFFER (64u << 10)

struct ring {
    uint64_t gpa;
    uint16_t size, placed, seen;
    uint8_t *desc, *avail, *used;
};

static struct {
    struct machine_device *dev;
    struct virtio_mmio *mmio;
    struct ring rings[QUEUES];
    uint64_t header, status, data, table; /* guest addresses */
    uint8_t *header_p, *status_p, *data_p, *table_p;
    unsigned interrupts; /* calls of the handler */
    uint32_t causes;     /* InterruptStatus as the handler saw it, all together */
} rig;

static inline uint32_t reg(unsigned offset)
{
    return machine_mmio_read(rig.dev->mmio_base + offset, 4);
}

static inline void set_reg(unsigned offset, uint32_t value)
{
    machine_mmio_write(rig.dev->mmio_base + offset, value, 4);
}

static inline uint64_t config(unsigned offset, unsigned size)
{
    return machine_mmio_read(rig.dev->mmio_base + VIRTIO_MMIO_CONFIG + offset, size);
}

static inline void set_reg64(unsigned offset, uint64_t value)
{
    set_reg(offset, value);
    set_reg(offset + 4, value >> 32);
}

static bool timer_fired(void *arg)
{
    return !loop_timer_armed(arg);
}

static void timer_nothing(void *arg)
{
}

/* Let everything run that can.  On the virtual clock a timer fires when nothing is ready any
 * more. */
static inline void settle(void)
{
    struct loop_timer timer;

    loop_timer_init(&timer, timer_nothing, NULL);
    loop_timer_arm(&timer, loop_now() + NS_PER_S);
    loop_run_until(timer_fired, &timer);
}

static inline void rig_interrupt(void *arg)
{
    uint32_t causes = reg(VIRTIO_MMIO_INTERRUPT_STATUS);

    rig.interrupts++;
    rig.causes |= causes;
    set_reg(VIRTIO_MMIO_INTERRUPT_ACK, causes);
}

/* Reset, and negotiate these features.  Returns the status register. */
static inline uint32_t negotiate(uint64_t features)
{
    set_reg(VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES, features >> (32 * half));
    }
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    return reg(VIRTIO_MMIO_STATUS);
}

/* Tell the device where a queue is; it takes it or not. */
static inline void ring_announce(unsigned queue, uint32_t size, uint64_t desc, uint64_t avail,
                                 uint64_t used)
{
    set_reg(VIRTIO_MMIO_QUEUE_SEL, queue);
    set_reg(VIRTIO_MMIO_QUEUE_NUM, size);
    set_reg64(VIRTIO_MMIO_QUEUE_DESC, desc);
    set_reg64(VIRTIO_MMIO_QUEUE_DRIVER, avail);
    set_reg64(VIRTIO_MMIO_QUEUE_DEVICE, used);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 1);
}

/* A fresh ring in the queue's memory: one page each for descriptors, available and used ring. */
static inline void ring_up(unsigned queue)
{
    struct ring *r = &rig.rings[queue];

    if (!r->gpa) {
        r->gpa = guest_alloc(3 * 4096);
    }
    r->desc = memory_map(r->gpa, 3 * 4096);
    r->avail = r->desc + 4096;
    r->used = r->avail + 4096;
    r->size = RING_SIZE;
    r->placed = r->seen = 0;
    memset(r->desc, 0, 3 * 4096);
    ring_announce(queue, RING_SIZE, r->gpa, r->gpa + 4096, r->gpa + 8192);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
}

#define ALL_FEATURES (FEATURES | FEATURES_WRITABLE | VIRTIO_F_ALL)

/* From any state to a live device. */
static inline void rig_up(uint64_t features)
{
    assert_true(negotiate(features) & VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < QUEUES; i++) {
        ring_up(i);
    }
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK |
                                    VIRTIO_DRIVER_OK);
    settle();
    rig.interrupts = rig.causes = 0;
}

static inline void put(uint8_t *table, unsigned at, uint64_t addr, uint32_t len, uint16_t flags,
                       uint16_t next)
{
    store_le64(table + 16 * at, addr);
    store_le32(table + 16 * at + 8, len);
    store_le16(table + 16 * at + 12, flags);
    store_le16(table + 16 * at + 14, next);
}

static inline void put_header(uint32_t type, uint64_t sector)
{
    store_le32(rig.header_p, type);
    store_le32(rig.header_p + 4, 0);
    store_le64(rig.header_p + 8, sector);
}

/* Put a chain's head into the available ring. */
static inline void offer(unsigned queue, uint16_t head)
{
    struct ring *r = &rig.rings[queue];

    store_le16(r->avail + 4 + 2 * (r->placed % r->size), head);
    store_le16(r->avail + 2, ++r->placed);
}

static inline void kick(unsigned queue)
{
    set_reg(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static inline uint16_t used_idx(unsigned queue)
{
    return load_le16(rig.rings[queue].used + 2);
}

/* What was written into the next used entry; there must be one. */
static inline uint32_t take_used(unsigned queue, uint32_t *len)
{
    struct ring *r = &rig.rings[queue];

    assert_true(used_idx(queue) != r->seen);
    const uint8_t *entry = r->used + 4 + 8 * (r->seen++ % r->size);

    if (len) {
        *len = load_le32(entry + 4);
    }
    return load_le32(entry);
}

/* The plain chain: header in descriptor `at`, data (if any), status.  Returns its head. */
static inline uint16_t chain(unsigned queue, unsigned at, uint64_t data, uint32_t len, bool in)
{
    uint8_t *desc = rig.rings[queue].desc;
    unsigned next = at + 1;

    put(desc, at, rig.header, VIRTIO_BLK_HEADER, VIRTQ_DESC_NEXT, next);
    if (len) {
        put(desc, next, data, len, VIRTQ_DESC_NEXT | (in ? VIRTQ_DESC_WRITE : 0), next + 1);
        next++;
    }
    put(desc, next, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    return at;
}

/* Offer one chain, let it run, and see it answered exactly once.  Returns the status byte. */
static inline uint8_t answer_of(unsigned queue, uint16_t head, uint32_t *len)
{
    uint16_t before = used_idx(queue);

    *rig.status_p = 0xee;
    offer(queue, head);
    kick(queue);
    settle();
    assert_int_equal((uint16_t)(used_idx(queue) - before), 1);
    assert_int_equal(take_used(queue, len), head);
    return *rig.status_p;
}

static inline uint8_t request(uint32_t type, uint64_t sector, uint32_t len, bool in)
{
    put_header(type, sector);
    return answer_of(0, chain(0, 0, rig.data, len, in), NULL);
}

static inline void assert_alive(void)
{
    assert_int_equal(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET, 0);
    memset(rig.data_p, 0, 512);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 7, 512, true), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes + 7 * 512, 512);
}

/* --- Life ------------------------------------------------------------------------------------- */

static inline void rig_new(unsigned queues, unsigned queue_size, bool read_only)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    machine_init(256 << 20);
    fake = (struct fake){ .size = DISK_BYTES, .bytes = mem_alloc(DISK_BYTES) };
    fake.disk.id = fake.disk.label = (char *)"virtio0";
    fake.disk.read_only = read_only;
    co_queue_init(&fake.held);
    for (unsigned i = 0; i < DISK_BYTES; i++) {
        fake.bytes[i] = i / 512 * 7 + i;
    }
    memset(&rig, 0, sizeof(rig));
    rig.dev = virtio_blk_new(&fake.disk, queues, queue_size);
    rig.mmio = &CONTAINER_OF(rig.dev, struct virtio_blk, dev)->mmio;
    rig.header = guest_alloc(4096);
    rig.header_p = memory_map(rig.header, 4096);
    rig.status = rig.header + 512;
    rig.status_p = rig.header_p + 512;
    rig.table = guest_alloc(16 * 4096);
    rig.table_p = memory_map(rig.table, 16 * 4096);
    rig.data = guest_alloc(BUFFER);
    rig.data_p = memory_map(rig.data, BUFFER);
    irq_attach(rig.dev->irq, rig_interrupt, NULL);
}

static inline int rig_setup(void **state)
{
    rig_new(QUEUES, RING_SIZE, false);
    rig_up(ALL_FEATURES);
    return 0;
}

static CO_ENTRY void rig_remove(void *arg)
{
    rig.dev->kind->co_remove(rig.dev);
}

static inline int rig_teardown(void **state)
{
    loop_run_co(rig_remove, NULL);
    settle();
    assert_int_equal(co_count(), 0);
    machine_fini();
    loop_fini();
    free(fake.bytes);
    return 0;
}

#endif
