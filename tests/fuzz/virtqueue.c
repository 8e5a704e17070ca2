/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio block device whose driver does anything: descriptors, rings and registers as the input says.
 *
 * An input is a program for the driver, { u8 step, its operands }...  Addresses are mostly places that mean something: the
 * rings, an indirect table, the end of memory, registers.
 *
 * Demanded besides F1 to F4: after a reset and a proper negotiation the device serves a plain read, with the right content.
 */
#include <string.h>

#include "hw/machine.h"
#include "hw/virtio-blk.h"
#include "hw/virtio-mmio.h"
#include "tests/fuzz/lib/raw-disk.h"

#define RAM (128u << 10)
#define DISK (256u << 10)
#define QUEUES 2u
#define RING 16u
#define STEPS_MAX 400u

/* Where the driver keeps things; the rest of memory is data. */
enum { HEADER = 0x1000, STATUS = 0x1100, TABLE = 0x2000, RINGS = 0x4000, RING_BYTES = 0x3000, DATA = 0xa000 };

static struct machine_device *dev;
static struct disk *disk;
static uint16_t placed[QUEUES];

static uint32_t reg(unsigned offset)
{
    return machine_mmio_read(dev->mmio_base + offset, 4);
}

static void set_reg(unsigned offset, uint32_t value)
{
    machine_mmio_write(dev->mmio_base + offset, value, 4);
}

static uint64_t ring(unsigned queue)
{
    return RINGS + queue % QUEUES * RING_BYTES;
}

static uint8_t *at(uint64_t gpa, size_t len)
{
    return memory_map(gpa % RAM, MIN((uint64_t)len, RAM - gpa % RAM));
}

static void announce(unsigned queue, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
    const uint64_t places[] = { desc, avail, used };

    set_reg(VIRTIO_MMIO_QUEUE_SEL, queue);
    set_reg(VIRTIO_MMIO_QUEUE_NUM, size);
    for (unsigned i = 0; i < 3; i++) {
        set_reg(VIRTIO_MMIO_QUEUE_DESC + 16 * i, places[i]);
        set_reg(VIRTIO_MMIO_QUEUE_DESC + 16 * i + 4, places[i] >> 32);
    }
    set_reg(VIRTIO_MMIO_QUEUE_READY, 1);
}

static void up(uint64_t features)
{
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES, reg(VIRTIO_MMIO_DEVICE_FEATURES) & features >> 32 * half);
    }
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    for (unsigned q = 0; q < QUEUES; q++) {
        memset(at(ring(q), RING_BYTES), 0, RING_BYTES);
        placed[q] = 0;
        announce(q, RING, ring(q), ring(q) + 4096, ring(q) + 8192);
    }
    set_reg(VIRTIO_MMIO_STATUS,
            VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

static void offer(unsigned queue, uint16_t head)
{
    uint8_t *avail = at(ring(queue) + 4096, 4096);

    store_le16(avail + 4 + 2 * (placed[queue] % RING), head);
    store_le16(avail + 2, ++placed[queue]);
}

static void put(uint64_t table, unsigned index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t *desc = at(table + 16 * index, 16);

    store_le64(desc, addr);
    store_le32(desc + 8, len);
    store_le16(desc + 12, flags);
    store_le16(desc + 14, next);
}

/* --- What the input says ---------------------------------------------------------------------------- */

static uint64_t address(struct fuzz_input *in)
{
    uint8_t kind = fuzz_u8(in);
    uint16_t offset = fuzz_u16(in);

    switch (kind % 9) {
    case 0:
        return HEADER;
    case 1:
        return STATUS;
    case 2:
        return TABLE + offset % 4096;
    case 3:
        return RINGS + offset % (2 * RING_BYTES);
    case 4:
        return RAM - offset % 1024;
    case 5:
        return dev->mmio_base + offset;
    case 6:
        return -(uint64_t)offset;
    case 7:
        return fuzz_u64(in);
    default:
        return DATA + (offset & ~15u);
    }
}

static uint32_t length(struct fuzz_input *in)
{
    static const uint32_t lengths[] = { 0, 1, 16, 512, 4096, 32, 48, 1024, 65536, UINT32_MAX, 20, 15, 1 << 31 };
    uint8_t kind = fuzz_u8(in);

    return kind < 0xc0 ? lengths[kind % ARRAY_SIZE(lengths)] : fuzz_u32(in);
}

static void descriptor(struct fuzz_input *in, bool indirect)
{
    uint8_t where = fuzz_u8(in), how = fuzz_u8(in);
    uint64_t addr = address(in), table = indirect ? TABLE : ring(where >> 7);
    uint32_t len = length(in);

    put(table, where & 31, addr, len, how & 7, how >> 3);
}

/* Header, data, status: a request as it should be. */
static void request(struct fuzz_input *in, unsigned queue)
{
    uint8_t type = fuzz_u8(in);
    uint32_t sector = fuzz_u16(in), len = length(in);
    uint16_t head = type >> 4 & 12;
    uint8_t *header = at(HEADER, 16);

    store_le32(header, type & 15);
    store_le64(header + 8, sector % 1024);
    put(ring(queue), head, HEADER, 16, VIRTQ_DESC_NEXT, head + 1);
    put(ring(queue), head + 1, DATA, len, VIRTQ_DESC_NEXT | ((type & 15) == 1 || (type & 15) > 9 ? 0 : 2), head + 2);
    put(ring(queue), head + 2, STATUS, 1, VIRTQ_DESC_WRITE, 0);
    offer(queue, head);
    set_reg(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void poke(struct fuzz_input *in)
{
    uint64_t gpa = address(in);
    uint32_t value = fuzz_u32(in);

    if (gpa < RAM - 4) {
        store_le32(at(gpa, 4), value);
    }
}

static void access_register(struct fuzz_input *in)
{
    uint16_t offset = fuzz_u16(in) % (VIRTIO_MMIO_LEN + 16);
    unsigned size = 1u << (fuzz_u8(in) & 3);
    uint64_t value = fuzz_u32(in);

    (void)machine_mmio_read(dev->mmio_base + offset, size);
    machine_mmio_write(dev->mmio_base + offset, value, size);
}

static void step(struct fuzz_input *in)
{
    uint8_t kind = fuzz_u8(in);
    unsigned queue = kind >> 7;

    switch (kind % 12) {
    case 0:
    case 1:
        descriptor(in, kind & 1);
        break;
    case 2:
        request(in, queue);
        break;
    case 3:
        offer(queue, fuzz_u8(in));
        break;
    case 4:
        poke(in);
        break;
    case 5:
        access_register(in);
        break;
    case 6:
        fuzz_settle();
        break;
    case 7:
        set_reg(VIRTIO_MMIO_STATUS, 0);
        break;
    case 8:
        up(fuzz_u64(in));
        break;
    case 9:
        announce(queue, 1u << (fuzz_u8(in) & 31), address(in), address(in), address(in));
        break;
    case 10:
        store_le16(at(ring(queue) + 4096 + 2, 2), fuzz_u16(in));
        /* fall through */
    default:
        set_reg(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
        break;
    }
}

/* --- A life -------------------------------------------------------------------------------------------- */

static CO_ENTRY void co_read_direct(void *arg)
{
    struct iovec iov = { arg, 512 };

    FUZZ_CHECK(co_disk_read(disk, 7 * 512, &iov, 1) == 0, "the disk cannot be read");
}

static void check_alive(void)
{
    uint8_t sector[512];

    set_reg(VIRTIO_MMIO_STATUS, 0);
    fuzz_settle();
    FUZZ_CHECK(reg(VIRTIO_MMIO_STATUS) == 0, "a reset does not end");
    up(VIRTIO_F_VERSION_1);
    loop_run_co(co_read_direct, sector);
    memset(at(DATA, 512), 0, 512);
    request(&(struct fuzz_input){ (const uint8_t *)"\0\7\0\3", 4 }, 0);
    fuzz_settle();
    FUZZ_CHECK(load_le16(at(ring(0) + 8192 + 2, 2)) == 1, "a request is not answered");
    FUZZ_CHECK(*at(STATUS, 1) == VIRTIO_BLK_S_OK, "a read ends with status %u", *at(STATUS, 1));
    FUZZ_CHECK(memcmp(at(DATA, 512), sector, 512) == 0, "a read gives something else");
}

static CO_ENTRY void co_begin(void *arg)
{
    disk = co_raw_disk_open("disk");
}

static CO_ENTRY void co_end(void *arg)
{
    dev->kind->co_remove(dev);
    co_disk_free(disk);
}

static void run(struct fuzz_input *in)
{
    loop_run_co(co_begin, NULL);
    dev = virtio_blk_new(disk, QUEUES, RING);
    up(UINT64_MAX);
    for (unsigned n = 0; n < STEPS_MAX && fuzz_more(in); n++) {
        step(in);
    }
    fuzz_settle();
    check_alive();
    loop_run_co(co_end, NULL);
    memset(at(0, RAM), 0, RAM);
}

static void set_up(void)
{
    machine_init(RAM);
    raw_disk_make(DISK);
}

/* --- The mutator: whole steps ---------------------------------------------------------------------------- */

static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    static const uint8_t operands[12] = { 6, 6, 4, 1, 7, 7, 0, 0, 8, 10, 2, 0 };
    uint8_t steps[64];
    size_t n = 0;

    if (random_below(rnd, 3) == 0) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    for (uint64_t k = 1 + random_below(rnd, 4); k-- > 0;) {
        unsigned kind = random_below(rnd, 12);

        steps[n++] = kind + 12 * random_below(rnd, 20);
        for (unsigned i = 0; i < operands[kind]; i++) {
            steps[n++] = random_below(rnd, 2) ? random_next(rnd) : random_below(rnd, 16);
        }
    }
    size_t where = random_below(rnd, len + 1);

    n = MIN(n, max - len);
    memmove(data + where + n, data + where, len - where);
    memcpy(data + where, steps, n);
    return len + n;
}

const struct fuzz_target fuzz_target = {
    .name = "virtqueue",
    .set_up = set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 1024,
};
