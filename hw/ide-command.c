/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ATA commands.  One row a command; each runs in the coroutine of its channel and ends with ide_finish().
 */
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define LBA28_LIMIT (1ull << 28)

/* --- Addresses ------------------------------------------------------------------------------------------------ */

struct span {
    uint64_t lba;
    uint32_t count; /* sectors */
};

static uint64_t chs_to_lba(const struct ide_channel *ch, const struct ide_drive *drive)
{
    uint64_t cylinder = ch->lba_mid[0] | ch->lba_high[0] << 8;
    unsigned head = ch->device & 0x0f, sector = ch->lba_low[0];

    if (sector == 0 || sector > drive->sectors || head >= drive->heads) {
        return UINT64_MAX;
    }
    return (cylinder * drive->heads + head) * drive->sectors + sector - 1;
}

static struct span read_span(const struct ide_task *t, bool ext)
{
    const struct ide_channel *ch = t->ch;
    struct span s;

    if (ext) {
        s.count = ch->nsector[0] | ch->nsector[1] << 8;
        s.count = s.count ? s.count : 65536;
        s.lba = ch->lba_low[0] | (uint64_t)ch->lba_mid[0] << 8 | (uint64_t)ch->lba_high[0] << 16 |
                (uint64_t)ch->lba_low[1] << 24 | (uint64_t)ch->lba_mid[1] << 32 | (uint64_t)ch->lba_high[1] << 40;
        return s;
    }
    s.count = ch->nsector[0] ? ch->nsector[0] : 256;
    if (ch->device & IDE_DEV_LBA) {
        s.lba = ch->lba_low[0] | ch->lba_mid[0] << 8 | ch->lba_high[0] << 16 |
                (uint64_t)(ch->device & 0x0f) << 24;
    } else {
        s.lba = chs_to_lba(ch, t->drive);
    }
    return s;
}

/* After an error the registers tell the sector; after success they are free to hold anything. */
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
    } else if (ch->device & IDE_DEV_LBA) {
        ch->device = (ch->device & 0xf0) | ((lba >> 24) & 0x0f);
    }
}

static bool in_range(const struct ide_task *t, const struct span *s)
{
    uint64_t sectors = disk_size(t->drive->disk) / IDE_SECTOR;
    return s->lba < sectors && s->count <= sectors - s->lba;
}

/* --- What a command is -------------------------------------------------------------------------------------------- */

enum { EXT = 1, WRITE = 2, MULTIPLE = 4, DMA = 8 };
struct command_row {
    uint8_t code;
    void (*co_run)(struct ide_task *t, unsigned flags);
    unsigned flags;
};

static void refuse(struct ide_task *t, const struct span *s, unsigned flags)
{
    disk_account_invalid(t->drive->disk, flags & WRITE ? DISK_WRITE : DISK_READ);
    if (s->lba != UINT64_MAX) {
        store_lba(t, s->lba, flags & EXT);
    }
    ide_finish(t, IDE_ERR_IDNF | IDE_ERR_ABRT);
}

static void finish_io(struct ide_task *t, int ret, const struct span *s, unsigned flags)
{
    if (ret < 0 && !ide_stale(t)) {
        store_lba(t, s->lba, flags & EXT);
    }
    ide_finish(t, ret == 0 ? 0 : flags & WRITE ? IDE_ERR_ABRT : IDE_ERR_UNC);
}

/* Durable before the answer when the guest has switched the cache off. */
static int co_write_through(struct ide_task *t, int ret)
{
    return ret == 0 && !t->drive->write_cache ? co_disk_flush(t->drive->disk) : ret;
}

/* --- PIO -------------------------------------------------------------------------------------------------------------- */

static void co_pio_read(struct ide_task *t, unsigned flags)
{
    struct span s = read_span(t, flags & EXT);
    uint32_t block = flags & MULTIPLE ? t->drive->multiple : 1;
    AUTOFREE uint8_t *buf = NULL;

    if ((flags & MULTIPLE) && block == 0) {
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    if (!in_range(t, &s)) {
        refuse(t, &s, flags);
        return;
    }
    buf = mem_alloc(block * IDE_SECTOR);
    while (s.count > 0) {
        uint32_t now = MIN(block, s.count);
        struct iovec iov = { .iov_base = buf, .iov_len = now * IDE_SECTOR };
        int ret = co_disk_read(t->drive->disk, s.lba * IDE_SECTOR, &iov, 1);

        if (ide_stale(t)) {
            return;
        }
        if (ret < 0) {
            finish_io(t, ret, &s, flags);
            return;
        }
        if (!co_ide_pio(t, buf, iov.iov_len, true, true)) {
            return;
        }
        s.lba += now;
        s.count -= now;
    }
    t->ch->status = IDE_ST_DRDY | IDE_ST_DSC; /* the last block's interrupt was the last one */
}

static void co_pio_write(struct ide_task *t, unsigned flags)
{
    struct span s = read_span(t, flags & EXT);
    uint32_t block = flags & MULTIPLE ? t->drive->multiple : 1;
    AUTOFREE uint8_t *buf = NULL;
    bool first = true;

    if ((flags & MULTIPLE) && block == 0) {
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    if (!in_range(t, &s)) {
        refuse(t, &s, flags);
        return;
    }
    buf = mem_alloc(block * IDE_SECTOR);
    while (s.count > 0) {
        uint32_t now = MIN(block, s.count);
        struct iovec iov = { .iov_base = buf, .iov_len = now * IDE_SECTOR };

        if (!co_ide_pio(t, buf, iov.iov_len, false, !first)) { /* the first block is asked for without an interrupt */
            return;
        }
        first = false;
        int ret = co_write_through(t, co_disk_write(t->drive->disk, s.lba * IDE_SECTOR, &iov, 1));
        if (ide_stale(t)) {
            return;
        }
        if (ret < 0) {
            finish_io(t, ret, &s, flags);
            return;
        }
        s.lba += now;
        s.count -= now;
    }
    ide_finish(t, 0);
}

/* --- DMA ---------------------------------------------------------------------------------------------------------------- */

/*
 * A read goes to memory directly.  After a reset the guest may use that memory for something else, so from then on nothing
 * may land in it: BSY stays set until we have ended (I2), and a guest that reuses memory under BSY asks for it, as on real hardware.
 */
static void co_dma(struct ide_task *t, unsigned flags)
{
    struct span s = read_span(t, flags & EXT);
    struct iovec *iov;
    int n, ret;

    if (!in_range(t, &s)) {
        refuse(t, &s, flags);
        return;
    }
    ret = co_ide_dma_map(t, (size_t)s.count * IDE_SECTOR, !(flags & WRITE), &iov, &n);
    if (ret == -ECANCELED) {
        return;
    }
    if (ret == 0) {
        struct disk *disk = t->drive->disk;
        ret = flags & WRITE ? co_write_through(t, co_disk_write(disk, s.lba * IDE_SECTOR, iov, n))
                            : co_disk_read(disk, s.lba * IDE_SECTOR, iov, n);
        free(iov);
        ide_dma_done(t, true);
        finish_io(t, ret, &s, flags);
        return;
    }
    ide_dma_done(t, false);
    ide_finish(t, IDE_ERR_ABRT);
}

/* DATA SET MANAGEMENT with TRIM: blocks of 64 ranges, 48 bits of address and 16 of count each. */
static int co_trim(struct ide_task *t, const uint8_t *ranges, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t entry = load_le64(ranges + i);
        struct span s = { .lba = entry & 0xffffffffffffull, .count = entry >> 48 };

        if (s.count == 0) {
            continue;
        }
        if (!in_range(t, &s)) {
            disk_account_invalid(t->drive->disk, DISK_UNMAP);
            return -EINVAL;
        }
        int ret = co_disk_discard(t->drive->disk, s.lba * IDE_SECTOR, (uint64_t)s.count * IDE_SECTOR);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void co_dsm(struct ide_task *t, unsigned flags)
{
    uint32_t blocks = t->ch->nsector[0] | t->ch->nsector[1] << 8;
    struct iovec *iov;
    int n, ret;

    if (!(t->ch->feature[0] & 1) || blocks == 0 || blocks > IDE_DSM_MAX_BLOCKS) {
        ide_finish(t, IDE_ERR_ABRT);
        return;
    }
    ret = co_ide_dma_map(t, blocks * IDE_SECTOR, false, &iov, &n);
    if (ret == -ECANCELED) {
        return;
    }
    if (ret == 0) {
        uint8_t ranges[IDE_DSM_MAX_BLOCKS * IDE_SECTOR];
        iov_to_buf(iov, n, 0, ranges, blocks * IDE_SECTOR);
        free(iov);
        ret = co_trim(t, ranges, blocks * IDE_SECTOR);
    }
    ide_dma_done(t, ret == 0);
    ide_finish(t, ret == 0 ? 0 : IDE_ERR_ABRT);
}

/* --- Without data --------------------------------------------------------------------------------------------------------- */

static void co_identify(struct ide_task *t, unsigned flags)
{
    uint8_t buf[IDE_SECTOR];

    ide_identify(t->drive, buf);
    if (co_ide_pio(t, buf, sizeof(buf), true, true)) {
        t->ch->status = IDE_ST_DRDY | IDE_ST_DSC;
    }
}

static void co_flush(struct ide_task *t, unsigned flags)
{
    ide_finish(t, co_disk_flush(t->drive->disk) == 0 ? 0 : IDE_ERR_ABRT);
}

static void run_verify(struct ide_task *t, unsigned flags)
{
    struct span s = read_span(t, flags & EXT);

    if (in_range(t, &s)) {
        ide_finish(t, 0);
    } else {
        refuse(t, &s, flags);
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

static void co_set_features(struct ide_task *t, unsigned flags)
{
    uint8_t mode = t->ch->nsector[0];
    int ret = 0;

    switch (t->ch->feature[0]) {
    case 0x02: /* write cache on */
        t->drive->write_cache = true;
        break;
    case 0x82: /* and off: what is cached becomes durable */
        t->drive->write_cache = false;
        ret = co_disk_flush(t->drive->disk);
        break;
    case 0x03: /* transfer mode: PIO default, PIO 0-4, multiword DMA 0-2, Ultra DMA 0-5 */
        if (mode > 0x01 && !(mode >= 0x08 && mode <= 0x0c) && !(mode >= 0x20 && mode <= 0x22) &&
            !(mode >= 0x40 && mode <= 0x45)) {
            ret = -EINVAL;
        } else {
            t->drive->transfer_mode = mode;
        }
        break;
    case 0x55: case 0xaa: /* read look-ahead: nothing to switch */
    case 0x66: case 0xcc: /* defaults at a software reset */
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
    uint64_t last = disk_size(t->drive->disk) / IDE_SECTOR;

    last = last ? last - 1 : 0;
    if (!(flags & EXT)) {
        last = MIN(last, LBA28_LIMIT - 1);
    }
    store_lba(t, last, flags & EXT);
    ide_finish(t, 0);
}

static void run_check_power(struct ide_task *t, unsigned flags)
{
    t->ch->nsector[0] = 0xff; /* active or idle */
    ide_finish(t, 0);
}

static void run_diagnostic(struct ide_task *t, unsigned flags)
{
    struct ide_channel *ch = t->ch;

    ch->nsector[0] = ch->lba_low[0] = 1;
    ch->lba_mid[0] = ch->lba_high[0] = 0;
    ch->device = IDE_DEV_FIXED;
    ide_finish(t, 0);
    ch->error = 1; /* both passed */
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
    { IDE_CMD_READ_DMA, co_dma, DMA },
    { IDE_CMD_READ_DMA_ONCE, co_dma, DMA },
    { IDE_CMD_READ_DMA_EXT, co_dma, DMA | EXT },
    { IDE_CMD_WRITE_DMA, co_dma, WRITE | DMA },
    { IDE_CMD_WRITE_DMA_ONCE, co_dma, WRITE | DMA },
    { IDE_CMD_WRITE_DMA_EXT, co_dma, WRITE | DMA | EXT },
    { IDE_CMD_DSM, co_dsm, DMA },
    { IDE_CMD_IDENTIFY, co_identify, 0 },
    { IDE_CMD_FLUSH, co_flush, 0 },
    { IDE_CMD_FLUSH_EXT, co_flush, EXT },
    { IDE_CMD_VERIFY, run_verify, 0 },
    { IDE_CMD_VERIFY_ONCE, run_verify, 0 },
    { IDE_CMD_VERIFY_EXT, run_verify, EXT },
    { IDE_CMD_SEEK, run_verify, 0 },
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
    if (ide_stale(t)) {
        return; /* reset before it began */
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].code == t->command) {
            commands[i].co_run(t, commands[i].flags);
            return;
        }
    }
    ide_finish(t, IDE_ERR_ABRT); /* NOP, DEVICE RESET and all that an ATA disk does not know */
}
