/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An IDE channel with two drives whose driver does anything: task files, data port, resets, bus master and PRD tables.
 *
 * An input is a program for the driver, { u8 step, its operands }...
 *
 * Demanded besides F1 to F4: after a software reset a plain read by DMA gives the right content; and sector 0 of both
 * disks changes only when a command that names it was begun (no reset may turn a write into one there).
 */
#include <string.h>

#include "hw/ide.h"
#include "hw/machine.h"
#include "tests/fuzz/lib/raw-disk.h"

#define RAM (256u << 10)
#define DISK (1u << 20)
#define STEPS_MAX 400u
#define BLOCK_MAX 8192u /* bytes through the data port in one step */

enum { TABLE = 0x10000, DATA = 0x20000 };

static struct machine_device *dev[2];
static struct disk *disk[2];
static bool sector_0_named;

static uint8_t *at(uint64_t gpa, size_t len)
{
    return memory_map(gpa % RAM, MIN((uint64_t)len, RAM - gpa % RAM));
}

static void out(unsigned r, uint8_t value)
{
    machine_port_out(IDE_PORT(0) + r, value, 1);
}

static void bus_master(unsigned r, uint32_t value, unsigned size)
{
    machine_port_out(IDE_DMA_PORT(0) + r, value, size);
}

/* --- What the input says ---------------------------------------------------------------------------- */

static const uint8_t commands[] = {
    IDE_CMD_READ, IDE_CMD_READ_EXT, IDE_CMD_READ_DMA, IDE_CMD_READ_DMA_EXT, IDE_CMD_READ_MULTIPLE,
    IDE_CMD_READ_MULTIPLE_EXT, IDE_CMD_WRITE, IDE_CMD_WRITE_EXT, IDE_CMD_WRITE_DMA, IDE_CMD_WRITE_DMA_EXT,
    IDE_CMD_WRITE_MULTIPLE, IDE_CMD_WRITE_MULTIPLE_EXT, IDE_CMD_VERIFY, IDE_CMD_VERIFY_EXT, IDE_CMD_DSM,
    IDE_CMD_SET_MULTIPLE, IDE_CMD_SET_FEATURES, IDE_CMD_IDENTIFY, IDE_CMD_FLUSH, IDE_CMD_FLUSH_EXT,
    IDE_CMD_DIAGNOSTIC, IDE_CMD_INIT_PARAMS, IDE_CMD_READ_NATIVE_MAX, IDE_CMD_READ_NATIVE_MAX_EXT, IDE_CMD_SEEK,
    IDE_CMD_CHECK_POWER, IDE_CMD_SLEEP, IDE_CMD_NOP,
};

/* The low byte of the address is never 0, unless a step of its own says so; CHS counts from 1, and translations can be
 * such that any address is sector 0, so those may be named. */
static void command(struct fuzz_input *in)
{
    uint8_t which = fuzz_u8(in), device = fuzz_u8(in);
    uint8_t code = which < 0xf0 ? commands[which % ARRAY_SIZE(commands)] : fuzz_u8(in);

    if (code == IDE_CMD_DSM || !(device & IDE_DEV_LBA)) {
        sector_0_named = true;
    }
    out(IDE_DEVICE, device);
    for (unsigned i = 0; i < (which & 1 ? 2 : 1); i++) {
        out(IDE_FEATURE, fuzz_u8(in));
        out(IDE_NSECTOR, fuzz_u8(in));
        out(IDE_LBA_MID, fuzz_u8(in) & 7);
        out(IDE_LBA_HIGH, fuzz_u8(in) & 1);
        out(IDE_LBA_LOW, fuzz_u8(in) | 1);
    }
    out(IDE_COMMAND, code);
}

/* A register by itself: any value anywhere. */
static void access_port(struct fuzz_input *in)
{
    uint8_t r = fuzz_u8(in), value = fuzz_u8(in);
    unsigned size = 1u << (r >> 6 & 1);

    (void)machine_port_in(IDE_PORT(0) + (r & 7), size);
    if ((r & 7) != IDE_DATA) {
        sector_0_named = true;
        machine_port_out(IDE_PORT(0) + (r & 7), value, size);
    }
}

static void data_port(struct fuzz_input *in)
{
    uint8_t how = fuzz_u8(in);
    unsigned width = 1u << (how & 3), n = MIN((1u + (how >> 2)) * 256 / width, BLOCK_MAX / width);

    for (unsigned i = 0; i < n; i++) {
        if (machine_port_in(IDE_CONTROL_PORT(0), 1) & IDE_ST_BSY) {
            fuzz_settle();
        }
        if (how & 0x80) {
            machine_port_out(IDE_PORT(0), 0x0101010101010101ull * i, width);
        } else {
            (void)machine_port_in(IDE_PORT(0), width);
        }
    }
}

static uint32_t address(struct fuzz_input *in)
{
    uint8_t kind = fuzz_u8(in);
    uint16_t offset = fuzz_u16(in);

    switch (kind % 6) {
    case 0:
        return TABLE + offset;
    case 1:
        return RAM - offset % 2048;
    case 2:
        return fuzz_u32(in);
    case 3:
        return -(uint32_t)offset;
    default:
        return DATA + (offset & ~1u);
    }
}

static void table_entry(struct fuzz_input *in)
{
    uint8_t where = fuzz_u8(in);
    uint32_t addr = address(in), len = fuzz_u16(in);
    uint8_t *entry = at(TABLE + where % 64 * IDE_PRD_BYTES, IDE_PRD_BYTES);

    store_le32(entry, addr);
    store_le32(entry + 4, (where & 0x40 ? len & 0xfe00 : len) | (where & 0x80 ? IDE_PRD_END : 0));
}

static void step(struct fuzz_input *in)
{
    uint8_t kind = fuzz_u8(in);

    switch (kind % 10) {
    case 0:
    case 1:
        command(in);
        break;
    case 2:
        access_port(in);
        break;
    case 3:
        data_port(in);
        break;
    case 4:
        table_entry(in);
        break;
    case 5:
        bus_master(IDE_BM_PRD, kind & 0x80 ? address(in) : TABLE, 4);
        bus_master(IDE_BM_COMMAND, kind & 0x40 ? 0 : IDE_BM_CMD_TO_MEMORY, 1);
        bus_master(IDE_BM_COMMAND, IDE_BM_CMD_START | (kind & 0x40 ? 0 : IDE_BM_CMD_TO_MEMORY), 1);
        break;
    case 6:
        fuzz_settle();
        break;
    case 7:
        machine_port_out(IDE_CONTROL_PORT(0), fuzz_u8(in), 1);
        break;
    case 8:
        (void)machine_port_in(IDE_DMA_PORT(0) + (kind >> 5), 1u << (kind & 1));
        bus_master(kind >> 5, fuzz_u32(in), 1u << (kind >> 3 & 3));
        break;
    default:
        bus_master(IDE_BM_COMMAND, 0, 1);
        break;
    }
}

/* --- A life -------------------------------------------------------------------------------------------- */

static uint8_t content[2][512];

static CO_ENTRY void co_look(void *arg)
{
    uint64_t *sector = arg;

    for (unsigned i = 0; i < 2; i++) {
        struct iovec iov = { content[i], 512 };

        FUZZ_CHECK(co_disk_read(disk[i], *sector * 512, &iov, 1) == 0, "the disk cannot be read");
    }
}

static void look(uint64_t sector)
{
    loop_run_co(co_look, &sector);
}

static void check_alive(void)
{
    uint8_t *entry = at(TABLE, IDE_PRD_BYTES);

    machine_port_out(IDE_CONTROL_PORT(0), IDE_CTL_SRST, 1);
    machine_port_out(IDE_CONTROL_PORT(0), 0, 1);
    bus_master(IDE_BM_COMMAND, 0, 1);
    fuzz_settle();
    FUZZ_CHECK(!(machine_port_in(IDE_CONTROL_PORT(0), 1) & (IDE_ST_BSY | IDE_ST_DRQ)), "a reset does not end");
    look(9);
    memset(at(DATA, 512), 0, 512);
    store_le32(entry, DATA);
    store_le32(entry + 4, 512 | IDE_PRD_END);
    command(&(struct fuzz_input){ (const uint8_t *)"\2\x40\0\1\0\0\11", 7 });
    bus_master(IDE_BM_PRD, TABLE, 4);
    bus_master(IDE_BM_COMMAND, IDE_BM_CMD_TO_MEMORY, 1);
    bus_master(IDE_BM_COMMAND, IDE_BM_CMD_START | IDE_BM_CMD_TO_MEMORY, 1);
    fuzz_settle();
    uint8_t status = machine_port_in(IDE_PORT(0) + IDE_STATUS, 1);

    FUZZ_CHECK(!(status & (IDE_ST_ERR | IDE_ST_BSY | IDE_ST_DRQ)), "a read ends with status %02x", status);
    FUZZ_CHECK(memcmp(at(DATA, 512), content[0], 512) == 0, "a read gives something else");
}

static CO_ENTRY void co_begin(void *arg)
{
    disk[0] = co_raw_disk_open("disk");
    json_t *options = json_pack("{s:s, s:b}", "driver", "raw", "read-only", 0);

    disk[1] = disk_new("other", co_node_open("/other", options, NULL));
    json_decref(options);
}

static CO_ENTRY void co_end(void *arg)
{
    for (unsigned i = 0; i < 2; i++) {
        dev[i]->kind->co_remove(dev[i]);
        co_disk_free(disk[i]);
    }
}

static void run(struct fuzz_input *in)
{
    uint8_t first[2][512];

    loop_run_co(co_begin, NULL);
    for (unsigned i = 0; i < 2; i++) {
        dev[i] = ide_disk_new(disk[i], 0, i, NULL);
    }
    look(0);
    memcpy(first, content, sizeof(first));
    sector_0_named = false;
    for (unsigned n = 0; n < STEPS_MAX && fuzz_more(in); n++) {
        step(in);
    }
    fuzz_settle();
    look(0);
    FUZZ_CHECK(sector_0_named || memcmp(first, content, sizeof(first)) == 0, "sector 0 changed");
    check_alive();
    loop_run_co(co_end, NULL);
    memset(at(0, RAM), 0, RAM);
}

static void set_up(void)
{
    machine_init(RAM);
    io_sim_create("/other", DISK);
    raw_disk_make(DISK);
}

/* --- The mutator: whole steps ---------------------------------------------------------------------------- */

static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    static const uint8_t operands[10] = { 12, 7, 2, 1, 8, 0, 0, 1, 4, 0 };
    uint8_t steps[64];
    size_t n = 0;

    if (random_below(rnd, 3) == 0) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    for (uint64_t k = 1 + random_below(rnd, 4); k-- > 0;) {
        unsigned kind = random_below(rnd, 10);

        steps[n++] = kind + 10 * random_below(rnd, 25);
        for (unsigned i = 0; i < operands[kind]; i++) {
            steps[n++] = random_below(rnd, 2) ? random_next(rnd) : random_below(rnd, 16);
        }
        if (kind < 2) {
            steps[n - operands[kind] + 1] = IDE_DEV_LBA | (random_below(rnd, 4) ? 0 : IDE_DEV_UNIT);
        }
    }
    size_t where = random_below(rnd, len + 1);

    n = MIN(n, max - len);
    memmove(data + where + n, data + where, len - where);
    memcpy(data + where, steps, n);
    return len + n;
}

const struct fuzz_target fuzz_target = {
    .name = "ide",
    .set_up = set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 1024,
};
