/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's own driver for IDE disks: boot and requests.  How a command is given to a drive is
 * guest-ata.c's.
 *
 * Requests go by DMA, in the 28-bit form where it fits and the 48-bit form elsewhere; now and then
 * one goes by READ/WRITE SECTORS or MULTIPLE instead, so that every path of the device is walked by
 * any guest that runs for a while.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/guest-ata.h"
#include "hw/guest.h"

#define RANGES_BYTES 4096u /* memory for lists of ranges */
#define RANGE_BYTES 8u
#define RANGE_SECTORS 0xffffu
/* One transfer in so many goes by PIO, if it is small. */
#define PIO_EVERY 64
#define MULTIPLE_EVERY 32
#define PIO_MAX (64u << 10)

struct ide_guest {
    struct ata ata;
    uint64_t sectors;
    uint8_t identify[IDE_SECTOR];
    uint64_t ranges;      /* guest-physical */
    unsigned multiple;    /* sectors a block; 0: no such commands */
    unsigned trim_blocks; /* most in one command */
    bool lba48;
    uint64_t transfers, flushes; /* so far */
    unsigned users; /* coroutines inside co_ide_request() */
    struct co_queue idle;
};

/* --- Boot ------------------------------------------------------------------------------------- */

/* The fastest DMA mode that the drive has. */
static uint8_t best_mode(const struct ide_guest *d)
{
    unsigned ultra = d->identify[88 * 2] & 0x7f, multiword = d->identify[63 * 2] & 0x07;

    return ultra ? IDE_MODE_UDMA | (31 - __builtin_clz(ultra))
                 : IDE_MODE_MWDMA | (multiword ? 31 - __builtin_clz(multiword) : 0);
}

static void take_identity(struct ide_guest *d)
{
    const uint8_t *id = d->identify;
    unsigned blocks = load_le16(id + 105 * 2);

    d->lba48 = load_le16(id + 83 * 2) & 1 << 10;
    d->sectors = d->lba48 ? load_le64(id + 100 * 2) : load_le32(id + 60 * 2);
    d->ata.wide = load_le16(id + 48 * 2) & 1;
    d->multiple = id[47 * 2];
    if (load_le16(id + 169 * 2) & 1) {
        d->trim_blocks = MIN(MAX(blocks, 1u), RANGES_BYTES / IDE_SECTOR);
    }
}

/* The write cache stays as we find it: whoever set up the machine has chosen. */
static int co_bring_up(struct ide_guest *d)
{
    struct ata_command identify = { .code = IDE_CMD_IDENTIFY };
    int ret = co_ata_pio_in(&d->ata, &identify, d->identify, IDE_SECTOR, IDE_SECTOR);

    if (ret < 0) {
        return ret;
    }
    take_identity(d);
    ret = co_ata_simple(&d->ata, IDE_CMD_SET_FEATURES, IDE_FEATURE_TRANSFER_MODE, best_mode(d));
    if (ret == 0 && d->multiple > 0) {
        ret = co_ata_simple(&d->ata, IDE_CMD_SET_MULTIPLE, 0, d->multiple);
    }
    if (ret == 0) { /* the other driver may reset the channel */
        ret = co_ata_simple(&d->ata, IDE_CMD_SET_FEATURES, IDE_FEATURE_KEEP, 0);
    }
    return ret;
}

/* The first driver of a channel resets it, the second one finds it ready. */
static int co_boot_channel(struct ide_guest *d)
{
    if (ata_alone(&d->ata)) {
        co_ata_software_reset(&d->ata);
    }
    int ret = co_ata_wait_ready(&d->ata);

    return ret < 0 ? ret : co_bring_up(d);
}

static void ide_abort(void *arg)
{
    ata_abort(&((struct ide_guest *)arg)->ata);
}

static void co_ide_shutdown(void *arg)
{
    struct ide_guest *d = arg;

    ata_abort(&d->ata);
    while (d->users) {
        co_queue_wait(&d->idle);
    }
    guest_free(d->ranges, RANGES_BYTES);
    ata_close(&d->ata);
    free(d);
}

static int co_ide_boot(struct machine_device *dev, void **out_driver)
{
    struct ide_guest *d = mem_zalloc(sizeof(*d));
    int ret = -ECANCELED;

    d->ranges = guest_alloc(RANGES_BYTES);
    co_queue_init(&d->idle);
    ata_open(&d->ata, dev);
    if (co_ata_turn_take(&d->ata)) {
        ret = co_boot_channel(d);
        ata_turn_give_up(&d->ata);
    }
    if (ret < 0) {
        co_ide_shutdown(d);
        return ret;
    }
    *out_driver = d;
    return 0;
}

/* --- Requests --------------------------------------------------------------------------------- */

static uint8_t pio_code(bool write, bool ext, bool multiple)
{
    static const uint8_t codes[2][2][2] = {
        { { IDE_CMD_READ, IDE_CMD_READ_MULTIPLE },
          { IDE_CMD_READ_EXT, IDE_CMD_READ_MULTIPLE_EXT } },
        { { IDE_CMD_WRITE, IDE_CMD_WRITE_MULTIPLE },
          { IDE_CMD_WRITE_EXT, IDE_CMD_WRITE_MULTIPLE_EXT } },
    };

    return codes[write][ext][multiple];
}

static int co_pio(struct ide_guest *d, struct ata_command *c, const struct guest_request *req,
                  bool multiple)
{
    bool write = req->op == GUEST_WRITE;
    size_t block = multiple ? d->multiple * IDE_SECTOR : IDE_SECTOR;
    uint8_t *buf = memory_map(req->gpa, req->len);

    c->code = pio_code(write, c->ext, multiple);
    return write ? co_ata_pio_out(&d->ata, c, buf, req->len, block)
                 : co_ata_pio_in(&d->ata, c, buf, req->len, block);
}

static int co_transfer(struct ide_guest *d, const struct guest_request *req)
{
    bool write = req->op == GUEST_WRITE, small = req->len <= PIO_MAX;
    struct ata_command c = { .lba = req->offset / IDE_SECTOR, .count = req->len / IDE_SECTOR };
    uint64_t turn = d->transfers++;

    /* Both forms get their share, of DMA as of PIO. */
    c.ext = c.lba + c.count > 1u << 28 || c.count > 256 ||
            (d->lba48 && (turn + turn / PIO_EVERY) % 2);
    if (small && turn % PIO_EVERY == PIO_EVERY - 1) {
        return co_pio(d, &c, req, false);
    }
    if (small && turn % MULTIPLE_EVERY == MULTIPLE_EVERY - 1 && d->multiple > 0) {
        int ret = co_pio(d, &c, req, true);

        if (ret != -EIO || !(ata_error(&d->ata) & IDE_ERR_ABRT)) {
            return ret;
        }
        d->multiple = 0; /* it forgot the setting, in a reset that we have not heard of yet */
    }
    c.code = write ? (c.ext ? IDE_CMD_WRITE_DMA_EXT : IDE_CMD_WRITE_DMA)
                   : (c.ext ? IDE_CMD_READ_DMA_EXT : IDE_CMD_READ_DMA);
    return co_ata_dma(&d->ata, &c, req->gpa, req->len, !write);
}

static int co_trim(struct ide_guest *d, const struct guest_request *req)
{
    uint64_t lba = req->offset / IDE_SECTOR, left = req->len / IDE_SECTOR;
    size_t room = d->trim_blocks * IDE_SECTOR;
    uint8_t *ranges = memory_map(d->ranges, room);
    int ret = 0;

    while (left > 0 && ret == 0) {
        struct ata_command c = { .code = IDE_CMD_DSM, .feature = 1, .ext = true };
        size_t n = 0;

        memset(ranges, 0, room);
        for (; n < room && left > 0; n += RANGE_BYTES) {
            uint64_t now = MIN(left, (uint64_t)RANGE_SECTORS);

            store_le64(ranges + n, lba | now << 48);
            lba += now;
            left -= now;
        }
        c.count = DIV_ROUND_UP(n, IDE_SECTOR);
        ret = co_ata_dma(&d->ata, &c, d->ranges, c.count * IDE_SECTOR, false);
    }
    return ret;
}

static bool ide_can(void *arg, enum guest_op op)
{
    const struct ide_guest *d = arg;

    return op == GUEST_DISCARD ? d->trim_blocks > 0 : op != GUEST_ZERO;
}

static int co_dispatch(struct ide_guest *d, const struct guest_request *req)
{
    if (!ide_can(d, req->op)) {
        return -EIO;
    }
    switch (req->op) {
    case GUEST_READ:
    case GUEST_WRITE:
        assert(req->len <= ATA_TRANSFER_MAX);
        return req->len ? co_transfer(d, req) : 0;
    case GUEST_FLUSH: {
        bool ext = d->lba48 && d->flushes++ % 2;

        return co_ata_simple(&d->ata, ext ? IDE_CMD_FLUSH_EXT : IDE_CMD_FLUSH, 0, 0);
    }
    default:
        return co_trim(d, req);
    }
}

static int co_ide_request(void *arg, const struct guest_request *req)
{
    struct ide_guest *d = arg;
    int ret = -ECANCELED;

    assert(req->offset % IDE_SECTOR == 0 && req->len % IDE_SECTOR == 0);
    d->users++;
    if (co_ata_turn_take(&d->ata)) {
        if (!d->ata.aborted) {
            ret = co_dispatch(d, req);
        }
        ata_turn_give_up(&d->ata);
    }
    if (!--d->users) {
        co_queue_wake_all(&d->idle);
    }
    return ret == 0 || ret == -ECANCELED ? ret : -EIO;
}

/* --- What the guest asks ---------------------------------------------------------------------- */

static uint64_t ide_capacity(void *arg)
{
    return ((struct ide_guest *)arg)->sectors * IDE_SECTOR;
}

static bool ide_read_only(void *arg)
{
    return false; /* ATA has no such disks */
}

static unsigned ide_depth(void *arg)
{
    return 1;
}

static uint32_t ide_max_bytes(void *arg)
{
    return ((struct ide_guest *)arg)->lba48 ? ATA_TRANSFER_MAX : 256 * IDE_SECTOR;
}

const struct guest_driver guest_ide_driver = {
    .name = "ide",
    .co_boot = co_ide_boot,
    .co_shutdown = co_ide_shutdown,
    .co_request = co_ide_request,
    .abort = ide_abort,
    .capacity = ide_capacity,
    .read_only = ide_read_only,
    .can = ide_can,
    .depth = ide_depth,
    .max_bytes = ide_max_bytes,
};
