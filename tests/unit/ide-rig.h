/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A test bench for IDE: disks in memory, and a driver in the test that pokes ports by hand, right
 * or wrong.
 *
 * The channels are compiled into the test under other names, so that they meet the disks below
 * instead of block/disk.c; the machine is the program's own.  Everything runs on the virtual clock.
 */
#ifndef TESTS_UNIT_IDE_RIG_H
#define TESTS_UNIT_IDE_RIG_H

#define co_disk_read fake_disk_read
#define co_disk_write fake_disk_write
#define co_disk_zero fake_disk_zero
#define co_disk_discard fake_disk_discard
#define co_disk_flush fake_disk_flush
#define disk_size fake_disk_size
#define disk_cancel fake_disk_cancel
#define disk_account_invalid fake_disk_account_invalid
#define ide_disk_new fake_ide_disk_new
#define ide_stale fake_ide_stale
#define ide_finish fake_ide_finish
#define ide_set_signature fake_ide_set_signature
#define co_ide_pio fake_ide_pio
#define co_ide_wait fake_ide_wait
#define ide_wake fake_ide_wake
#define co_ide_execute fake_ide_execute
#define ide_identify fake_ide_identify
#define ide_default_geometry fake_ide_default_geometry
#define ide_dma_ops fake_ide_dma_ops
#define co_ide_dma_map fake_ide_dma_map
#define ide_dma_done fake_ide_dma_done
#define ide_dma_disarm fake_ide_dma_disarm
#define ide_dma_reset fake_ide_dma_reset

/* After the names: the headers declare our disks under them. */
#include "hw/ide-command.c"
#include "hw/ide-dma.c"
#include "hw/ide-identify.c"

static unsigned commands_seen[256]; /* by code */

static void co_noted_execute(struct ide_task *t)
{
    commands_seen[t->command]++;
    co_ide_execute(t);
}

#undef co_ide_execute
#define co_ide_execute co_noted_execute
#include "hw/ide.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define S IDE_SECTOR

/* --- The disks -------------------------------------------------------------------------------- */

#define DISK_SECTORS 2100u /* two cylinders and a bit */

struct fake {
    struct disk disk; /* first */
    struct node root;
    uint8_t *bytes;   /* NULL: a disk of any size that remembers nothing */
    uint64_t size;
    bool hold;        /* requests wait in `held` until release() */
    bool slow;        /* requests wait a turn of the loop */
    int error;        /* what requests end with ... */
    uint64_t bad;     /* ... or those that touch this byte; UINT64_MAX: none */
    struct co_queue held;
    unsigned calls[DISK_OP_COUNT], invalid, cancels;
    int elements;     /* of the last request's list */
    uint64_t offset, len; /* of the last request */
    uint64_t written;     /* bytes, all together */
    bool cancelling;
};

static struct fake disks[2];
#define disk0 (disks[0])
#define disk1 (disks[1])

static struct fake *fake_of(const struct disk *disk)
{
    return (struct fake *)disk;
}

static int co_fake_enter(struct fake *f, enum disk_op op, uint64_t offset, uint64_t len)
{
    assert_true(len <= f->size && offset <= f->size - len);
    assert_int_equal((offset | len) % S, 0);
    f->calls[op]++;
    f->offset = offset;
    f->len = len;
    if (f->hold) {
        co_queue_wait(&f->held);
    } else if (f->slow) {
        co_yield();
    }
    if (f->bad != UINT64_MAX) {
        return offset <= f->bad && f->bad < offset + len ? -EIO : 0;
    }
    return f->error;
}

static inline void release(struct fake *f)
{
    f->hold = false;
    co_queue_wake_all(&f->held);
}

/* Guest memory or a buffer of the device: no list leads half out of RAM. */
static void check_list(const struct iovec *iov, int n)
{
    char *ram = memory_map(0, memory_size()), *end = ram + memory_size();

    for (int i = 0; i < n; i++) {
        char *from = iov[i].iov_base, *to = from + iov[i].iov_len;

        assert_true((from >= ram && to <= end) || to <= ram || from >= end);
    }
}

int co_disk_read(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    struct fake *f = fake_of(disk);
    int ret = co_fake_enter(f, DISK_READ, offset, iov_size(iov, n));

    f->elements = n;
    check_list(iov, n);
    if (!ret && f->bytes) {
        iov_from_buf(iov, n, 0, f->bytes + offset, iov_size(iov, n));
    } else if (!ret) {
        iov_memset(iov, n, 0, 0x77, iov_size(iov, n));
    }
    return ret;
}

int co_disk_write(struct disk *disk, uint64_t offset, const struct iovec *iov, int n)
{
    struct fake *f = fake_of(disk);
    int ret = co_fake_enter(f, DISK_WRITE, offset, iov_size(iov, n));

    f->elements = n;
    check_list(iov, n);
    if (!ret && f->bytes) {
        iov_to_buf(iov, n, 0, f->bytes + offset, iov_size(iov, n));
    }
    f->written += ret ? 0 : iov_size(iov, n);
    return ret;
}

int co_disk_discard(struct disk *disk, uint64_t offset, uint64_t len)
{
    struct fake *f = fake_of(disk);
    int ret = co_fake_enter(f, DISK_UNMAP, offset, len);

    assert_true(len);
    if (!ret && f->bytes) {
        memset(f->bytes + offset, 0xdd, len);
    }
    return ret;
}

int co_disk_flush(struct disk *disk)
{
    return co_fake_enter(fake_of(disk), DISK_FLUSH, 0, 0);
}

uint64_t disk_size(const struct disk *disk)
{
    return fake_of(disk)->size;
}

void disk_cancel(struct disk *disk, bool on)
{
    fake_of(disk)->cancelling = on;
    fake_of(disk)->cancels += on;
}

void disk_account_invalid(struct disk *disk, enum disk_op op)
{
    fake_of(disk)->invalid++;
}

/* --- The driver ------------------------------------------------------------------------------- */

#define BUFFER (256u << 10)
#define TABLE (64u << 10) /* the longest PRD table */

static struct {
    unsigned channel, unit;
    struct machine_device *dev[2];
    struct ide_channel *ch;
    uint64_t data, table; /* guest addresses */
    uint8_t *data_p, *table_p;
    unsigned interrupts; /* calls of the handler */
} rig;

static inline void out(unsigned reg, uint8_t value)
{
    machine_port_out(IDE_PORT(rig.channel) + reg, value, 1);
}

static inline uint8_t in(unsigned reg)
{
    return machine_port_in(IDE_PORT(rig.channel) + reg, 1);
}

static inline void control(uint8_t value)
{
    machine_port_out(IDE_CONTROL_PORT(rig.channel), value, 1);
}

static inline uint8_t alternate(void)
{
    return machine_port_in(IDE_CONTROL_PORT(rig.channel), 1);
}

static inline void bm_out(unsigned reg, uint32_t value, unsigned size)
{
    machine_port_out(IDE_DMA_PORT(rig.channel) + reg, value, size);
}

static inline uint32_t bm_in(unsigned reg, unsigned size)
{
    return machine_port_in(IDE_DMA_PORT(rig.channel) + reg, size);
}

/* Active, error, interrupt. */
static inline uint8_t bm_status(void)
{
    return bm_in(IDE_BM_STATUS, 1) & 7;
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
    rig.interrupts++;
}

static inline void select_unit(unsigned unit)
{
    rig.unit = unit;
    out(IDE_DEVICE, unit ? IDE_DEV_UNIT : 0);
}

static inline void begin28(uint8_t command, uint32_t lba, uint8_t count)
{
    out(IDE_DEVICE, (rig.unit ? IDE_DEV_UNIT : 0) | IDE_DEV_LBA | lba >> 24);
    out(IDE_NSECTOR, count);
    out(IDE_LBA_LOW, lba);
    out(IDE_LBA_MID, lba >> 8);
    out(IDE_LBA_HIGH, lba >> 16);
    out(IDE_COMMAND, command);
}

static inline void begin48(uint8_t command, uint64_t lba, uint16_t count)
{
    out(IDE_DEVICE, (rig.unit ? IDE_DEV_UNIT : 0) | IDE_DEV_LBA);
    out(IDE_NSECTOR, count >> 8);
    out(IDE_LBA_LOW, lba >> 24);
    out(IDE_LBA_MID, lba >> 32);
    out(IDE_LBA_HIGH, lba >> 40);
    out(IDE_NSECTOR, count);
    out(IDE_LBA_LOW, lba);
    out(IDE_LBA_MID, lba >> 8);
    out(IDE_LBA_HIGH, lba >> 16);
    out(IDE_COMMAND, command);
}

static inline void begin_chs(uint8_t command, unsigned cylinder, unsigned head, unsigned sector,
                             uint8_t count)
{
    out(IDE_DEVICE, (rig.unit ? IDE_DEV_UNIT : 0) | head);
    out(IDE_NSECTOR, count);
    out(IDE_LBA_LOW, sector);
    out(IDE_LBA_MID, cylinder);
    out(IDE_LBA_HIGH, cylinder >> 8);
    out(IDE_COMMAND, command);
}

#define READY (IDE_ST_DRDY | IDE_ST_DSC)

static inline void assert_good(void)
{
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(in(IDE_ERROR), 0);
}

static inline void assert_bad(uint8_t error)
{
    assert_int_equal(in(IDE_STATUS), READY | IDE_ST_ERR);
    assert_int_equal(in(IDE_ERROR), error);
}

/* A command without data, or one that fails before any moves: it ends with one interrupt. */
static inline void run28(uint8_t command, uint32_t lba, uint8_t count)
{
    rig.interrupts = 0;
    begin28(command, lba, count);
    settle();
    assert_int_equal(rig.interrupts, 1);
}

static inline void set_features(uint8_t feature, uint8_t count)
{
    out(IDE_FEATURE, feature);
    run28(IDE_CMD_SET_FEATURES, 0, count);
}

/* The drive has a block for us, or wants one.  Acknowledges. */
static inline void assert_asks(void)
{
    assert_int_equal(in(IDE_STATUS), READY | IDE_ST_DRQ);
}

static inline void port_in(void *buf, size_t len, unsigned width)
{
    for (size_t i = 0; i < len; i += width) {
        uint64_t value = htole64(machine_port_in(IDE_PORT(rig.channel), width));

        memcpy((char *)buf + i, &value, width);
    }
}

static inline void port_out(const void *buf, size_t len, unsigned width)
{
    for (size_t i = 0; i < len; i += width) {
        uint64_t value = 0;

        memcpy(&value, (const char *)buf + i, width);
        machine_port_out(IDE_PORT(rig.channel), le64toh(value), width);
    }
}

/* Take `count` sectors in blocks: one interrupt each, and none after the last. */
static inline void take_blocks(uint8_t *buf, unsigned count, unsigned block)
{
    for (unsigned done = 0; done < count; done += block) {
        rig.interrupts = 0;
        settle();
        assert_int_equal(rig.interrupts, 1);
        assert_asks();
        port_in(buf + done * S, MIN(block, count - done) * S, 2);
    }
    rig.interrupts = 0;
    settle();
    assert_int_equal(rig.interrupts, 0);
    assert_good();
}

/* Give `count` sectors in blocks: the first is asked for without an interrupt, and one more comes
 * at the end. */
static inline void give_blocks(const uint8_t *buf, unsigned count, unsigned block)
{
    rig.interrupts = 0;
    settle();
    assert_int_equal(rig.interrupts, 0);
    for (unsigned done = 0; done < count; done += block) {
        assert_asks();
        port_out(buf + done * S, MIN(block, count - done) * S, 2);
        rig.interrupts = 0;
        settle();
        assert_int_equal(rig.interrupts, 1);
    }
    assert_good();
}

static inline void entry(unsigned at, uint32_t addr, uint32_t len, bool end)
{
    store_le32(rig.table_p + at * 8, addr);
    store_le32(rig.table_p + at * 8 + 4, (len & 0xffff) | (end ? IDE_PRD_END : 0));
}

/* Set the start bit with our table. */
static inline void start(bool to_memory)
{
    bm_out(IDE_BM_PRD, rig.table, 4);
    bm_out(IDE_BM_STATUS, IDE_BM_ST_ERROR | IDE_BM_ST_IRQ, 1);
    bm_out(IDE_BM_COMMAND, to_memory ? IDE_BM_CMD_TO_MEMORY : 0, 1);
    bm_out(IDE_BM_COMMAND, IDE_BM_CMD_START | (to_memory ? IDE_BM_CMD_TO_MEMORY : 0), 1);
}

static inline void stop(void)
{
    bm_out(IDE_BM_COMMAND, 0, 1);
}

/* A whole DMA command of up to 64 KiB on our buffer, in the 28-bit form. */
static inline void dma28(uint8_t command, uint32_t lba, uint8_t count)
{
    rig.interrupts = 0;
    entry(0, rig.data, count * S, true);
    begin28(command, lba, count);
    start(command == IDE_CMD_READ_DMA);
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status() & ~IDE_BM_ST_ERROR, IDE_BM_ST_IRQ);
    stop();
}

/* Software reset, as a driver does it. */
static inline void srst(void)
{
    control(IDE_CTL_SRST);
    control(0);
    settle();
    rig.unit = 0;
}

static inline void assert_alive(void)
{
    memset(rig.data_p, 0, S);
    dma28(IDE_CMD_READ_DMA, 7, 1);
    assert_good();
    if (disks[rig.unit].bytes) {
        assert_memory_equal(rig.data_p, disks[rig.unit].bytes + 7 * S, S);
    }
}

/* --- Life ------------------------------------------------------------------------------------- */

static inline void disk_make(unsigned unit, uint64_t sectors, bool real)
{
    struct fake *f = &disks[unit];

    free(f->bytes);
    *f = (struct fake){ .size = sectors * S, .bad = UINT64_MAX };
    f->disk.id = f->disk.label = unit ? "ide0-hd1" : "ide0-hd0";
    f->disk.root = &f->root;
    co_queue_init(&f->held);
    if (real) {
        f->bytes = mem_alloc(f->size);
        for (uint64_t i = 0; i < f->size; i += 4) {
            store_le32(f->bytes + i, (i / S) * 2654435761u + i + unit * 77);
        }
    }
}

static inline void rig_new(unsigned drives)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    machine_init(64 << 20);
    memset(&rig, 0, sizeof(rig));
    memset(commands_seen, 0, sizeof(commands_seen));
    for (unsigned i = 0; i < drives; i++) {
        disk_make(i, DISK_SECTORS, true);
        rig.dev[i] = ide_disk_new(&disks[i].disk, 0, i, NULL);
        assert_non_null(rig.dev[i]);
    }
    rig.ch = CONTAINER_OF(rig.dev[0], struct ide_drive, dev)->channel;
    rig.table = ROUND_UP(guest_alloc(2 * TABLE), (uint64_t)TABLE);
    rig.table_p = memory_map(rig.table, TABLE);
    rig.data = guest_alloc(BUFFER);
    rig.data_p = memory_map(rig.data, BUFFER);
    irq_attach(rig.dev[0]->irq, rig_interrupt, NULL);
}

static CO_ENTRY void rig_remove(void *arg)
{
    struct machine_device *dev = arg;

    dev->kind->co_remove(dev);
}

static inline void rig_end(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (rig.dev[i]) {
            loop_run_co(rig_remove, rig.dev[i]);
        }
        free(disks[i].bytes);
        disks[i].bytes = NULL;
    }
    settle();
    assert_int_equal(co_count(), 0);
    machine_fini();
    loop_fini();
}

static inline int rig_setup(void **state)
{
    rig_new(1);
    return 0;
}

static inline int rig_setup_two(void **state)
{
    rig_new(2);
    return 0;
}

static inline int rig_teardown(void **state)
{
    rig_end();
    return 0;
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define TWO(name) cmocka_unit_test_setup_teardown(name, rig_setup_two, rig_teardown)

#endif
