/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's own driver for IDE disks: reset, IDENTIFY, PIO and bus-master DMA.
 *
 * It is software of the guest: it knows the disk by its ports and an interrupt line only.  The two drives of a channel share its
 * registers, so they share one `struct channel` here and take turns.
 *
 * Requests go by DMA, in the 28-bit form where it fits and the 48-bit form elsewhere; now and then one goes by READ/WRITE SECTORS or
 * MULTIPLE instead, so that every path of the device is walked by any guest that runs for a while.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "hw/ide.h"

#define RESET_TIMEOUT_NS (5 * NS_PER_S)
#define POLL_NS (20 * NS_PER_US)
#define REQUEST_MAX (1u << 20)
#define PRD_ENTRIES (REQUEST_MAX / 65536 + 2)
#define PRD_TABLE_BYTES 4096u
#define UDMA5 0x45
/* Every so many requests one goes by PIO, if it is small. */
#define PIO_EVERY 64
#define MULTIPLE_EVERY 32
#define PIO_MAX (64u << 10)

struct channel {
    unsigned users;             /* drivers that hold it */
    struct irq_line *irq;
    struct co_mutex lock;       /* one command at a time */
    struct co *waiter;          /* for an interrupt */
    bool interrupted, aborted;
    struct machine_listener listener;
};
static struct channel channels[IDE_CHANNELS];

struct ide_guest {
    struct machine_device *dev;
    struct channel *ch;
    uint64_t sectors;
    uint8_t identify[IDE_SECTOR];
    uint64_t prd;               /* guest-physical, one page */
    unsigned multiple;
    uint64_t counter;
    bool aborted;
};

/* --- Ports ---------------------------------------------------------------------------------------------------- */

static void out(const struct ide_guest *d, unsigned reg, uint8_t value)
{
    machine_port_out(IDE_PORT(d->dev->channel) + reg, value, 1);
}

static uint8_t in(const struct ide_guest *d, unsigned reg)
{
    return machine_port_in(IDE_PORT(d->dev->channel) + reg, 1);
}

static uint8_t alternate_status(const struct ide_guest *d)
{
    return machine_port_in(IDE_CONTROL_PORT(d->dev->channel), 1);
}

static void bm_out(const struct ide_guest *d, unsigned reg, uint32_t value, unsigned size)
{
    machine_port_out(IDE_DMA_PORT(d->dev->channel) + reg, value, size);
}

static void select_drive(const struct ide_guest *d, uint8_t bits)
{
    out(d, IDE_DEVICE, IDE_DEV_FIXED | (d->dev->unit ? IDE_DEV_UNIT : 0) | bits);
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

static void wake(struct channel *ch)
{
    struct co *waiter = ch->waiter;

    ch->waiter = NULL;
    if (waiter) {
        co_wake(waiter);
    }
}

static void on_interrupt(void *arg)
{
    struct channel *ch = arg;

    ch->interrupted = true;
    wake(ch);
}

static void on_machine_reset(struct machine_listener *l)
{
    struct channel *ch = CONTAINER_OF(l, struct channel, listener);

    ch->aborted = true;
    wake(ch);
}

/* 0, or -ECANCELED when the machine was reset. */
static int co_wait_interrupt(struct ide_guest *d)
{
    struct channel *ch = d->ch;

    while (!ch->interrupted && !ch->aborted && !d->aborted) {
        ch->waiter = co_self();
        co_suspend();
    }
    ch->interrupted = false;
    return ch->aborted || d->aborted ? -ECANCELED : 0;
}

/* --- Commands ------------------------------------------------------------------------------------------------------- */

struct command {
    uint8_t code;
    uint64_t lba;
    uint32_t count;   /* sectors, or the count register's value */
    uint8_t feature;
    bool ext;
};

static void issue(struct ide_guest *d, const struct command *c)
{
    d->ch->interrupted = false;
    select_drive(d, IDE_DEV_LBA | (c->ext ? 0 : (c->lba >> 24) & 0x0f));
    if (c->ext) { /* the bytes of the high half go first */
        out(d, IDE_FEATURE, 0);
        out(d, IDE_NSECTOR, c->count >> 8);
        out(d, IDE_LBA_LOW, c->lba >> 24);
        out(d, IDE_LBA_MID, c->lba >> 32);
        out(d, IDE_LBA_HIGH, c->lba >> 40);
    }
    out(d, IDE_FEATURE, c->feature);
    out(d, IDE_NSECTOR, c->count);
    out(d, IDE_LBA_LOW, c->lba);
    out(d, IDE_LBA_MID, c->lba >> 8);
    out(d, IDE_LBA_HIGH, c->lba >> 16);
    out(d, IDE_COMMAND, c->code);
}

/* The interrupt has come: what does the status say? */
static int status_result(struct ide_guest *d)
{
    uint8_t status = in(d, IDE_STATUS);

    return status & (IDE_ST_ERR | IDE_ST_DF) ? -EIO : 0;
}

static int co_simple(struct ide_guest *d, uint8_t code, uint8_t feature, uint32_t count)
{
    struct command c = { .code = code, .feature = feature, .count = count };
    int ret;

    issue(d, &c);
    ret = co_wait_interrupt(d);
    return ret < 0 ? ret : status_result(d);
}

static void port_read(struct ide_guest *d, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i += 2) {
        store_le16(buf + i, machine_port_in(IDE_PORT(d->dev->channel), 2));
    }
}

static void port_write(struct ide_guest *d, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i += 2) {
        machine_port_out(IDE_PORT(d->dev->channel), load_le16(buf + i), 2);
    }
}

static int co_pio_in(struct ide_guest *d, const struct command *c, uint8_t *buf, size_t len, size_t block)
{
    issue(d, c);
    while (len > 0) {
        size_t now = MIN(block, len);
        int ret = co_wait_interrupt(d);

        if (ret == 0) {
            ret = status_result(d);
        }
        if (ret < 0) {
            return ret;
        }
        port_read(d, buf, now);
        buf += now;
        len -= now;
    }
    return 0;
}

/* Wait for DRQ without an interrupt: the first block of a write. */
static int co_poll_drq(struct ide_guest *d)
{
    while (!(alternate_status(d) & (IDE_ST_DRQ | IDE_ST_ERR))) {
        if (d->aborted || d->ch->aborted) {
            return -ECANCELED;
        }
        co_sleep_ns(POLL_NS);
    }
    return alternate_status(d) & IDE_ST_ERR ? -EIO : 0;
}

static int co_pio_out(struct ide_guest *d, const struct command *c, const uint8_t *buf, size_t len, size_t block)
{
    int ret;

    issue(d, c);
    ret = co_poll_drq(d);
    while (ret == 0 && len > 0) {
        size_t now = MIN(block, len);

        port_write(d, buf, now);
        buf += now;
        len -= now;
        ret = co_wait_interrupt(d);
        if (ret == 0) {
            ret = status_result(d);
        }
    }
    return ret;
}

/* A PRD may not cross 64 KiB. */
static void build_prd(struct ide_guest *d, uint64_t gpa, size_t len)
{
    uint8_t *prd = memory_map(d->prd, PRD_TABLE_BYTES);

    for (size_t done = 0; done < len;) {
        uint64_t at = gpa + done;
        size_t now = MIN(len - done, 0x10000 - (size_t)(at & 0xffff));

        done += now;
        store_le32(prd, at);
        store_le32(prd + 4, (now & 0xffff) | (done == len ? 0x80000000u : 0));
        prd += 8;
    }
}

static int co_dma(struct ide_guest *d, const struct command *c, uint64_t gpa, size_t len, bool to_memory)
{
    uint8_t direction = to_memory ? IDE_BM_CMD_TO_MEMORY : 0;
    int ret;

    build_prd(d, gpa, len);
    bm_out(d, IDE_BM_PRD, d->prd, 4);
    bm_out(d, IDE_BM_STATUS, IDE_BM_ST_ERROR | IDE_BM_ST_IRQ, 1);
    bm_out(d, IDE_BM_COMMAND, direction, 1);
    issue(d, c);
    bm_out(d, IDE_BM_COMMAND, direction | IDE_BM_CMD_START, 1);
    ret = co_wait_interrupt(d);
    if (ret < 0) {
        return ret;
    }
    uint8_t bm = machine_port_in(IDE_DMA_PORT(d->dev->channel) + IDE_BM_STATUS, 1);
    bm_out(d, IDE_BM_COMMAND, 0, 1);
    ret = status_result(d);
    return ret < 0 ? ret : bm & IDE_BM_ST_ERROR ? -EIO : 0;
}

/* --- Boot -------------------------------------------------------------------------------------------------------------- */

static void channel_get(struct ide_guest *d)
{
    struct channel *ch = &channels[d->dev->channel];

    d->ch = ch;
    if (ch->users++ == 0) {
        memset(ch, 0, sizeof(*ch));
        ch->users = 1;
        ch->irq = d->dev->irq;
        co_mutex_init(&ch->lock);
        irq_attach(ch->irq, on_interrupt, ch);
        ch->listener.reset = on_machine_reset;
        machine_listen(&ch->listener);
    }
}

static void channel_put(struct channel *ch)
{
    if (--ch->users == 0) {
        machine_unlisten(&ch->listener);
        irq_attach(ch->irq, NULL, NULL);
    }
}

/* Wait until the drive is ready; -ETIMEDOUT, -ENODEV when nobody is there. */
static int co_wait_ready(struct ide_guest *d)
{
    uint64_t limit = loop_now() + RESET_TIMEOUT_NS;

    select_drive(d, 0);
    while (alternate_status(d) & IDE_ST_BSY) {
        if (d->aborted || d->ch->aborted) {
            return -ECANCELED;
        }
        if (loop_now() > limit) {
            return -ETIMEDOUT;
        }
        co_sleep_ns(POLL_NS);
        select_drive(d, 0);
    }
    return alternate_status(d) & IDE_ST_DRDY ? 0 : -ENODEV;
}

static int co_bring_up(struct ide_guest *d)
{
    struct command identify = { .code = IDE_CMD_IDENTIFY };
    uint16_t features;
    int ret = co_wait_ready(d);

    if (ret == 0) {
        ret = co_pio_in(d, &identify, d->identify, IDE_SECTOR, IDE_SECTOR);
    }
    if (ret < 0) {
        return ret;
    }
    features = load_le16(d->identify + 83 * 2);
    d->sectors = features & 1 << 10 ? load_le64(d->identify + 200) : load_le32(d->identify + 120);
    d->multiple = d->identify[47 * 2];
    ret = co_simple(d, IDE_CMD_SET_FEATURES, 0x03, UDMA5);
    if (ret == 0) {
        ret = co_simple(d, IDE_CMD_SET_FEATURES, 0x02, 0); /* write cache on */
    }
    if (ret == 0 && d->multiple > 0) {
        ret = co_simple(d, IDE_CMD_SET_MULTIPLE, 0, d->multiple);
    }
    return ret;
}

/* The first driver of a channel resets it, the second one finds it ready. */
static int co_reset_channel(struct ide_guest *d)
{
    if (d->ch->users > 1) {
        return 0;
    }
    machine_port_out(IDE_CONTROL_PORT(d->dev->channel), IDE_CTL_SRST, 1);
    co_sleep_ns(5 * NS_PER_US); /* ATA: SRST is held for 5 us or more */
    machine_port_out(IDE_CONTROL_PORT(d->dev->channel), 0, 1);
    return co_wait_ready(d);
}

static void ide_abort(void *arg)
{
    struct ide_guest *d = arg;

    d->aborted = true;
    wake(d->ch);
}

static void co_ide_shutdown(void *arg)
{
    struct ide_guest *d = arg;
    struct channel *ch = d->ch;

    ide_abort(d);
    co_mutex_lock(&ch->lock); /* whoever is inside leaves with -ECANCELED first */
    co_mutex_unlock(&ch->lock);
    guest_free(d->prd, PRD_TABLE_BYTES);
    channel_put(ch);
    free(d);
}

static int co_ide_boot(struct machine_device *dev, void **out_driver)
{
    struct ide_guest *d = mem_zalloc(sizeof(*d));
    int ret;

    d->dev = dev;
    d->prd = guest_alloc(PRD_TABLE_BYTES);
    channel_get(d);
    co_mutex_lock(&d->ch->lock);
    d->ch->aborted = false;
    ret = co_reset_channel(d);
    if (ret == 0) {
        ret = co_bring_up(d);
    }
    co_mutex_unlock(&d->ch->lock);
    if (ret < 0) {
        co_ide_shutdown(d);
        return ret;
    }
    *out_driver = d;
    return 0;
}

/* --- Requests ------------------------------------------------------------------------------------------------------------- */

static int co_transfer(struct ide_guest *d, const struct guest_request *req)
{
    bool write = req->op == GUEST_WRITE;
    struct command c = { .lba = req->offset / IDE_SECTOR, .count = req->len / IDE_SECTOR };
    uint64_t turn = d->counter++;

    c.ext = c.lba + c.count > (1u << 28) || c.count > 256 || turn % 2; /* both forms get their share */
    if (turn % PIO_EVERY == PIO_EVERY - 1 && req->len <= PIO_MAX) {
        c.code = write ? (c.ext ? IDE_CMD_WRITE_EXT : IDE_CMD_WRITE) : (c.ext ? IDE_CMD_READ_EXT : IDE_CMD_READ);
        return write ? co_pio_out(d, &c, memory_map(req->gpa, req->len), req->len, IDE_SECTOR)
                     : co_pio_in(d, &c, memory_map(req->gpa, req->len), req->len, IDE_SECTOR);
    }
    if (turn % MULTIPLE_EVERY == MULTIPLE_EVERY - 1 && req->len <= PIO_MAX && d->multiple > 0) {
        c.code = write ? (c.ext ? IDE_CMD_WRITE_MULTIPLE_EXT : IDE_CMD_WRITE_MULTIPLE)
                       : (c.ext ? IDE_CMD_READ_MULTIPLE_EXT : IDE_CMD_READ_MULTIPLE);
        return write ? co_pio_out(d, &c, memory_map(req->gpa, req->len), req->len, d->multiple * IDE_SECTOR)
                     : co_pio_in(d, &c, memory_map(req->gpa, req->len), req->len, d->multiple * IDE_SECTOR);
    }
    c.code = write ? (c.ext ? IDE_CMD_WRITE_DMA_EXT : IDE_CMD_WRITE_DMA)
                   : (c.ext ? IDE_CMD_READ_DMA_EXT : IDE_CMD_READ_DMA);
    return co_dma(d, &c, req->gpa, req->len, !write);
}

/* Ranges of at most 65,535 sectors, eight bytes each, in blocks of 512 bytes. */
static int co_trim(struct ide_guest *d, const struct guest_request *req)
{
    size_t room = IDE_DSM_MAX_BLOCKS * IDE_SECTOR;
    uint64_t gpa = guest_alloc(room), lba = req->offset / IDE_SECTOR, left = req->len / IDE_SECTOR;
    uint8_t *ranges = memory_map(gpa, room);
    int ret = 0;

    while (left > 0 && ret == 0) {
        struct command c = { .code = IDE_CMD_DSM, .feature = 1, .ext = true };
        size_t n = 0;

        memset(ranges, 0, room);
        for (; n < room / 8 && left > 0; n++) {
            uint64_t now = MIN(left, (uint64_t)0xffff);
            store_le64(ranges + n * 8, lba | now << 48);
            lba += now;
            left -= now;
        }
        c.count = DIV_ROUND_UP(n * 8, IDE_SECTOR);
        ret = co_dma(d, &c, gpa, c.count * IDE_SECTOR, false);
    }
    guest_free(gpa, room);
    return ret;
}

static int co_ide_request(void *arg, const struct guest_request *req)
{
    struct ide_guest *d = arg;
    struct channel *ch = d->ch;
    int ret;

    co_mutex_lock(&ch->lock);
    if (d->aborted || ch->aborted) {
        ret = -ECANCELED;
    } else if (req->op == GUEST_READ || req->op == GUEST_WRITE) {
        ret = co_transfer(d, req);
    } else if (req->op == GUEST_FLUSH) {
        ret = co_simple(d, d->counter % 2 ? IDE_CMD_FLUSH : IDE_CMD_FLUSH_EXT, 0, 0);
    } else if (req->op == GUEST_DISCARD) {
        ret = co_trim(d, req);
    } else {
        ret = -EOPNOTSUPP;
    }
    co_mutex_unlock(&ch->lock);
    return ret;
}

static uint64_t ide_capacity(void *arg)
{
    return ((struct ide_guest *)arg)->sectors * IDE_SECTOR;
}

static bool ide_read_only(void *arg)
{
    return false; /* ATA has no such disks */
}

static bool ide_can(void *arg, enum guest_op op)
{
    return op != GUEST_ZERO && (op != GUEST_DISCARD || ((struct ide_guest *)arg)->identify[169 * 2] & 1);
}

static unsigned ide_depth(void *arg)
{
    return 1;
}

static uint32_t ide_max_bytes(void *arg)
{
    return REQUEST_MAX;
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
