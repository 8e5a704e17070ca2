/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ATA commands.  One row a command; each runs in the coroutine of its channel and ends with
 * ide_finish(), with the last block of a PIO read, or by a reset.
 *
 * What a bad command gets: ABRT when we do not know it, when a parameter is wrong, or when a write
 * failed; IDNF when it reaches beyond the disk; UNC when a read failed.  With the last two, and
 * after a failed write, the address registers tell the first sector that was not transferred (or,
 * since data goes to the disk in larger pieces, may not have been).
 */
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define LBA28_LIMIT (1ull << 28)
#define LBA48_MASK 0xffffffffffffull
#define NOWHERE UINT64_MAX

/* PIO moves a sector or a block at a time; the disk is asked for this many sectors at once.  A
 * multiple of IDE_MULTIPLE_MAX. */
#define CHUNK 128u

/* --- Addresses -------------------------------------------------------------------------------- */

struct span {
    uint64_t lba;
    uint32_t count; /* sectors */
};

static uint64_t chs_to_lba(const struct ide_channel *ch, const struct ide_drive *drive)
{
    uint64_t cylinder = ch->lba_mid[0] | ch->lba_high[0] << 8;
    unsigned head = ch->device & 0x0f, sector = ch->lba_low[0];

    if (sector == 0 || sector > drive->sectors || head >= drive->heads) {
        return NOWHERE;
    }
    return (cylinder * drive->heads + head) * drive->sectors + sector - 1;
}

static uint64_t address28(const struct ide_task *t)
{
    const struct ide_channel *ch = t->ch;

    if (!(ch->device & IDE_DEV_LBA)) {
        return chs_to_lba(ch, t->drive);
    }
    return ch->lba_low[0] | ch->lba_mid[0] << 8 | ch->lba_high[0] << 16 |
           (uint64_t)(ch->device & 0x0f) << 24;
}

static struct span read_span(const struct ide_task *t, bool ext)
{
    const struct ide_channel *ch = t->ch;
    struct span s;

    if (!ext) {
        s.lba = address28(t);
        s.count = ch->nsector[0] ? ch->nsector[0] : 256;
        return s;
    }
    s.count = ch->nsector[0] | ch->nsector[1] << 8;
    s.count = s.count ? s.count : 65536;
    s.lba = ch->lba_low[0] | (uint64_t)ch->lba_mid[0] << 8 | (uint64_t)ch->lba_high[0] << 16 |
            (uint64_t)ch->lba_low[1] << 24 | (uint64_t)ch->lba_mid[1] << 32 |
            (uint64_t)ch->lba_high[1] << 40;
    return s;
}

static void store_lba(struct ide_task *t, uint64_t lba, bool ext)
{
    struct ide_channel *ch = t->ch;

    ch->lba_low[0] = lba;
    ch->lba_mid[0] = lba >> 8;
    ch->lba_high[0] = lba >> 16;
    if (ext) {
        ch->lba_low[1] = lba >> 24;
        ch->lba_mid[1] = lba >> 32;
        ch->lba_high[1] = lba >> 40;
    } else {
        ch->device = (ch->device & 0xf0) | ((lba >> 24) & 0x0f);
    }
}

/* In the words in which the command gave its address. */
static void store_address(struct ide_task *t, uint64_t lba, bool ext)
{
    struct ide_channel *ch = t->ch;
    const struct ide_drive *drive = t->drive;

    if (lba == NOWHERE) {
        return; /* the registers hold what was asked for */
    }
    if (ext || (ch->device & IDE_DEV_LBA)) {
        store_lba(t, lba, ext);
        return;
    }
    uint64_t track = lba / drive->sectors, cylinder = track / drive->heads;

    ch->lba_low[0] = lba % drive->sectors + 1;
    ch->lba_mid[0] = cylinder;
    ch->lba_high[0] = cylinder >> 8;
    ch->device = (ch->device & 0xf0) | track % drive->heads;
}

static bool in_range(const struct ide_task *t, const struct span *s)
{
    uint64_t sectors = ide_sectors(t->drive);

    return s->lba < sectors && s->count <= sectors - s->lba;
}

/* --- What a command is ------------------------------------------------------------------------ */

enum { EXT = 1, WRITE = 2, MULTIPLE = 4 };
struct command_row {
    uint8_t code;
    void (*co_run)(struct ide_task *t, unsigned flags);
    unsigned flags;
};

static void refuse(struct ide_task *t, const struct span *s, enum disk_op op, unsigned flags)
{
    disk_account_invalid(t->drive->disk, op);
    store_address(t, s->lba, flags & EXT);
    ide_finish(t, IDE_ERR_IDNF);
}

/* Where to?  False: nowhere, and the command has ended. */
static bool take_span(struct ide_task *t, struct span *s, unsigned flags)
{
    *s = read_span(t, flags & EXT);
    if (!in_range(t, s)) {
        refuse(t, s, flags & WRITE ? DISK_WRITE : DISK_READ, flags);
        return false;
    }
    return true;
}

/* The end of a command that moves data; on failure at s->lba. */
static void finish_io(struct ide_task *t, int ret, const struct span *s, unsigned flags)
{
    if (ide_stale(t)) {
        return;
    }
    if (ret < 0) {
        store_address(t, s->lba, flags & EXT);
    }
    ide_finish(t, ret == 0 ? 0 : flags & WRITE ? IDE_ERR_ABRT : IDE_ERR_UNC);
}

static int co_read(struct ide_task *t, uint64_t lba, const struct iovec *iov, int n)
{
    return co_disk_read(t->drive->disk, lba * IDE_SECTOR, iov, n);
}

static int co_write(struct ide_task *t, uint64_t lba, const struct iovec *iov, int n)
{
    int ret = co_disk_write(t->drive->disk, lba * IDE_SECTOR, iov, n);

    return ret == 0 && !t->drive->write_cache ? co_disk_flush(t->drive->disk) : ret;
}

/* --- PIO -------------------------------------------------------------------------------------- */

/* Sectors between two interrupts; 0, and the command has ended: MULTIPLE is switched off. */
static uint32_t take_block(struct ide_task *t, unsigned flags)
{
    uint32_t block = flags & MULTIPLE ? t->drive->multiple : 1;

    if (block == 0) {
        ide_finish(t, IDE_ERR_ABRT);
    }
    return block;
}

/* Hand `count` sectors to the guest; LAST is true of the last block of them.  False: reset. */
static bool co_hand_out(struct ide_task *t, uint8_t *buf, uint32_t count, uint32_t block, bool last)
{
    for (uint32_t done = 0; done < count; done += block) {
        uint32_t now = MIN(block, count - done);
        bool end = last && done + now == count;

        if (!co_ide_pio(t, buf + done * IDE_SECTOR, now * IDE_SECTOR,
                        IDE_PIO_IN | IDE_PIO_RAISE | (end ? IDE_PIO_LAST : 0))) {
            return false;
        }
    }
    return true;
}

static void co_pio_read(struct ide_task *t, unsigned flags)
{
    struct span s;
    uint32_t block = take_block(t, flags), chunk = CHUNK;
    AUTOFREE uint8_t *buf = NULL;

    if (block == 0 || !take_span(t, &s, flags)) {
        return;
    }
    buf = mem_alloc(MIN(s.count, chunk) * IDE_SECTOR);
    while (s.count > 0) {
        uint32_t now = MIN(s.count, chunk);
        struct iovec iov = { .iov_base = buf, .iov_len = now * IDE_SECTOR };
        int ret = co_read(t, s.lba, &iov, 1);

        if (ide_stale(t)) {
            return;
        }
        if (ret < 0 && now > block) {
            chunk = block; /* what lies before the bad sector is the guest's */
            continue;
        }
        if (ret < 0) {
            finish_io(t, ret, &s, flags);
            return;
        }
        if (!co_hand_out(t, buf, now, block, now == s.count)) {
            return;
        }
        s.lba += now;
        s.count -= now;
    }
}

/* Take `count` sectors from the guest.  The first block of a command is asked for without an
 * interrupt.  False: reset. */
static bool co_take_in(struct ide_task *t, uint8_t *buf, uint32_t count, uint32_t block, bool first)
{
    for (uint32_t done = 0; done < count; done += block) {
        uint32_t now = MIN(block, count - done);

        if (!co_ide_pio(t, buf + done * IDE_SECTOR, now * IDE_SECTOR,
                        first && done == 0 ? 0 : IDE_PIO_RAISE)) {
            return false;
        }
    }
    return true;
}

static void co_pio_write(struct ide_task *t, unsigned flags)
{
    struct span s;
    uint32_t block = take_block(t, flags);
    AUTOFREE uint8_t *buf = NULL;

    if (block == 0 || !take_span(t, &s, flags)) {
        return;
    }
    buf = mem_alloc(MIN(s.count, CHUNK) * IDE_SECTOR);
    for (bool first = true; s.count > 0; first = false) {
        uint32_t now = MIN(s.count, CHUNK);
        struct iovec iov = { .iov_base = buf, .iov_len = now * IDE_SECTOR };

        if (!co_take_in(t, buf, now, block, first)) {
            return;
        }
        int ret = co_write(t, s.lba, &iov, 1);
        if (ret < 0 || ide_stale(t)) {
            finish_io(t, ret, &s, flags);
            return;
        }
        s.lba += now;
        s.count -= now;
    }
    ide_finish(t, 0);
}

/* --- DMA -------------------------------------------------------------------------------------- */

static void co_dma(struct ide_task *t, unsigned flags)
{
    struct span s;
    struct ide_dma dma;

    if (!take_span(t, &s, flags)) {
        return;
    }
    int ret = co_ide_dma_map(t, (size_t)s.count * IDE_SECTOR, !(flags & WRITE), &dma);

    if (ret == -ECANCELED) {
        return;
    }
    if (ret < 0) {
        ide_dma_done(t, &dma, false);
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    ret = flags & WRITE ? co_write(t, s.lba, dma.iov, dma.n) : co_read(t, s.lba, dma.iov, dma.n);
    ide_dma_done(t, &dma, true);
    finish_io(t, ret, &s, flags);
}

/* --- TRIM ------------------------------------------------------------------------------------- */

static struct span trim_range(const uint8_t *ranges, size_t at)
{
    uint64_t entry = load_le64(ranges + at);

    return (struct span){ .lba = entry & LBA48_MASK, .count = entry >> 48 };
}

/* A hint: a disk that cannot has done its part. */
static int co_discard(struct ide_task *t, const struct span *s)
{
    int ret = s->count == 0 ? 0 : co_disk_discard(t->drive->disk, s->lba * IDE_SECTOR,
                                                  (uint64_t)s->count * IDE_SECTOR);

    return ret == -ENOTSUP ? 0 : ret;
}

/* Ranges have at most 65,535 sectors, so what was one range to the guest comes in parts that end
 * within clusters: join them. */
static int co_trim(struct ide_task *t, const uint8_t *ranges, size_t len)
{
    struct span run = { 0 };
    int ret = 0;

    for (size_t at = 0; at < len && ret == 0 && !ide_stale(t); at += 8) {
        struct span s = trim_range(ranges, at);

        if (s.count > 0 && s.lba == run.lba + run.count) {
            run.count += s.count;
        } else if (s.count > 0) {
            ret = co_discard(t, &run);
            run = s;
        }
    }
    return ret < 0 || ide_stale(t) ? ret : co_discard(t, &run);
}

/* All ranges lie on the disk, or nothing is trimmed; false: the command has ended. */
static bool trim_check(struct ide_task *t, const uint8_t *ranges, size_t len, unsigned flags)
{
    for (size_t at = 0; at < len; at += 8) {
        struct span s = trim_range(ranges, at);

        if (s.count > 0 && !in_range(t, &s)) {
            refuse(t, &s, DISK_UNMAP, flags);
            return false;
        }
    }
    return true;
}

static void co_dsm(struct ide_task *t, unsigned flags)
{
    size_t len = (t->ch->nsector[0] | t->ch->nsector[1] << 8) * IDE_SECTOR;
    uint8_t ranges[IDE_DSM_MAX_BLOCKS * IDE_SECTOR];
    struct ide_dma dma;

    if (!(t->ch->feature[0] & 1) || len == 0 || len > sizeof(ranges)) {
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    int ret = co_ide_dma_map(t, len, false, &dma);

    if (ret == -ECANCELED) {
        return;
    }
    iov_to_buf(dma.iov, dma.n, 0, ranges, len);
    ide_dma_done(t, &dma, ret == 0);
    if (ret == 0 && !trim_check(t, ranges, len, flags)) {
        return;
    }
    if (ret == 0) {
        ret = co_trim(t, ranges, len);
    }
    ide_finish(t, ret == 0 ? 0 : IDE_ERR_ABRT);
}

/* --- Without data ----------------------------------------------------------------------------- */

static void co_identify(struct ide_task *t, unsigned flags)
{
    uint8_t buf[IDE_SECTOR];

    ide_identify(t->drive, buf);
    co_ide_pio(t, buf, sizeof(buf), IDE_PIO_IN | IDE_PIO_RAISE | IDE_PIO_LAST);
}

static void co_flush(struct ide_task *t, unsigned flags)
{
    ide_finish(t, co_disk_flush(t->drive->disk) == 0 ? 0 : IDE_ERR_ABRT);
}

/* Reads, and forgets what it read. */
static void co_verify(struct ide_task *t, unsigned flags)
{
    struct span s;
    AUTOFREE uint8_t *buf = NULL;
    int ret = 0;

    if (!take_span(t, &s, flags)) {
        return;
    }
    buf = mem_alloc(MIN(s.count, CHUNK) * IDE_SECTOR);
    while (s.count > 0 && !ide_stale(t)) {
        uint32_t now = MIN(s.count, CHUNK);
        struct iovec iov = { .iov_base = buf, .iov_len = now * IDE_SECTOR };

        ret = co_read(t, s.lba, &iov, 1);
        if (ret < 0) {
            break;
        }
        s.lba += now;
        s.count -= now;
    }
    finish_io(t, ret, &s, flags);
}

static void run_seek(struct ide_task *t, unsigned flags)
{
    struct span s = { .lba = address28(t), .count = 1 };

    if (in_range(t, &s)) {
        ide_finish(t, 0);
    } else {
        refuse(t, &s, DISK_READ, flags);
    }
}

static void run_set_multiple(struct ide_task *t, unsigned flags)
{
    unsigned count = t->ch->nsector[0];
    bool power_of_two = (count & (count - 1)) == 0;

    if (count > IDE_MULTIPLE_MAX || !power_of_two) {
        t->drive->multiple = 0;
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    t->drive->multiple = count;
    ide_finish(t, 0);
}

/* PIO modes are all the same to us and leave the DMA mode alone. */
static int set_transfer_mode(struct ide_drive *drive, uint8_t mode)
{
    unsigned kind = mode & ~7u, number = mode & 7;

    if ((kind == IDE_MODE_MWDMA && number <= IDE_MWDMA_MAX) ||
        (kind == IDE_MODE_UDMA && number <= IDE_UDMA_MAX)) {
        drive->dma_mode = mode;
        return 0;
    }
    return mode <= 0x01 || (kind == 0x08 && number <= 4) ? 0 : -EINVAL;
}

static void co_set_features(struct ide_task *t, unsigned flags)
{
    struct ide_drive *drive = t->drive;
    int ret = 0;

    switch (t->ch->feature[0]) {
    case IDE_FEATURE_CACHE_ON:
        drive->write_cache = true;
        break;
    case IDE_FEATURE_CACHE_OFF: /* what is cached becomes durable */
        drive->write_cache = false;
        ret = co_disk_flush(drive->disk);
        break;
    case IDE_FEATURE_TRANSFER_MODE:
        ret = set_transfer_mode(drive, t->ch->nsector[0]);
        break;
    case IDE_FEATURE_KEEP:
    case IDE_FEATURE_REVERT:
        drive->keeps_settings = t->ch->feature[0] == IDE_FEATURE_KEEP;
        break;
    case IDE_FEATURE_LOOK_AHEAD_OFF: /* nothing to switch */
    case IDE_FEATURE_LOOK_AHEAD_ON:
        break;
    default:
        ret = -EINVAL;
    }
    ide_finish(t, ret == 0 ? 0 : IDE_ERR_ABRT);
}

static void run_init_params(struct ide_task *t, unsigned flags)
{
    unsigned sectors = t->ch->nsector[0], heads = (t->ch->device & 0x0f) + 1;

    if (sectors == 0) {
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    t->drive->sectors = sectors;
    t->drive->heads = heads;
    ide_finish(t, 0);
}

static void run_native_max(struct ide_task *t, unsigned flags)
{
    uint64_t sectors = ide_sectors(t->drive), last = sectors ? sectors - 1 : 0;

    store_lba(t, flags & EXT ? last : MIN(last, LBA28_LIMIT - 1), flags & EXT);
    ide_finish(t, 0);
}

static void run_check_power(struct ide_task *t, unsigned flags)
{
    t->ch->nsector[0] = 0xff; /* active or idle */
    ide_finish(t, 0);
}

static void run_diagnostic(struct ide_task *t, unsigned flags)
{
    ide_finish(t, 0);
    ide_set_signature(t->ch);
}

static void run_nothing(struct ide_task *t, unsigned flags)
{
    ide_finish(t, 0);
}

static const struct command_row commands[] = {
    { IDE_CMD_READ, co_pio_read, 0 },
    { IDE_CMD_READ_ONCE, co_pio_read, 0 },
    { IDE_CMD_READ_EXT, co_pio_read, EXT },
    { IDE_CMD_READ_MULTIPLE, co_pio_read, MULTIPLE },
    { IDE_CMD_READ_MULTIPLE_EXT, co_pio_read, MULTIPLE | EXT },
    { IDE_CMD_WRITE, co_pio_write, WRITE },
    { IDE_CMD_WRITE_ONCE, co_pio_write, WRITE },
    { IDE_CMD_WRITE_EXT, co_pio_write, WRITE | EXT },
    { IDE_CMD_WRITE_MULTIPLE, co_pio_write, WRITE | MULTIPLE },
    { IDE_CMD_WRITE_MULTIPLE_EXT, co_pio_write, WRITE | MULTIPLE | EXT },
    { IDE_CMD_READ_DMA, co_dma, 0 },
    { IDE_CMD_READ_DMA_ONCE, co_dma, 0 },
    { IDE_CMD_READ_DMA_EXT, co_dma, EXT },
    { IDE_CMD_WRITE_DMA, co_dma, WRITE },
    { IDE_CMD_WRITE_DMA_ONCE, co_dma, WRITE },
    { IDE_CMD_WRITE_DMA_EXT, co_dma, WRITE | EXT },
    { IDE_CMD_DSM, co_dsm, EXT },
    { IDE_CMD_IDENTIFY, co_identify, 0 },
    { IDE_CMD_FLUSH, co_flush, 0 },
    { IDE_CMD_FLUSH_EXT, co_flush, EXT },
    { IDE_CMD_VERIFY, co_verify, 0 },
    { IDE_CMD_VERIFY_ONCE, co_verify, 0 },
    { IDE_CMD_VERIFY_EXT, co_verify, EXT },
    { IDE_CMD_SEEK, run_seek, 0 },
    { IDE_CMD_SET_MULTIPLE, run_set_multiple, 0 },
    { IDE_CMD_SET_FEATURES, co_set_features, 0 },
    { IDE_CMD_INIT_PARAMS, run_init_params, 0 },
    { IDE_CMD_READ_NATIVE_MAX, run_native_max, 0 },
    { IDE_CMD_READ_NATIVE_MAX_EXT, run_native_max, EXT },
    { IDE_CMD_CHECK_POWER, run_check_power, 0 },
    { IDE_CMD_DIAGNOSTIC, run_diagnostic, 0 },
    { IDE_CMD_RECALIBRATE, run_nothing, 0 },
    { IDE_CMD_STANDBY_NOW, run_nothing, 0 },
    { IDE_CMD_IDLE_NOW, run_nothing, 0 },
    { IDE_CMD_STANDBY, run_nothing, 0 },
    { IDE_CMD_IDLE, run_nothing, 0 },
    { IDE_CMD_SLEEP, run_nothing, 0 },
};

void co_ide_execute(struct ide_task *t)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].code == t->command) {
            commands[i].co_run(t, commands[i].flags);
            return;
        }
    }
    ide_finish(t, IDE_ERR_ABRT); /* NOP, and all that an ATA disk does not know */
}
