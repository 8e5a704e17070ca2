/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE (ATA/ATAPI-7, volume 1): names of registers, bits and commands, and what ide*.c share.
 *
 *   ide.c            channels: registers, the start and end of commands, resets, interrupts
 *   ide-command.c    the commands
 *   ide-identify.c   what IDENTIFY DEVICE says
 *   ide-dma.c        bus-master DMA: registers, PRD tables
 *
 * A channel carries out one command at a time, in a coroutine of its own; registers are the
 * meeting point:
 *
 *   guest writes the command register --> BSY --> coroutine --> disk I/O --> buffer or DMA
 *   PIO: DRQ, interrupt --> the guest empties or fills the buffer through the data port --> BSY
 *   the end: BSY and DRQ clear, interrupt
 *
 * I1  while BSY or DRQ is set no register but data and device control takes a write (ATA forbids
 *     them; we ignore them), so a running command may look at the registers any time
 * I2  a reset makes the running command stale (epoch): it ends the host I/O that it has begun and
 *     touches no register afterwards; BSY stays set until it has ended, so a guest that waits for
 *     BSY gets its memory back, and no command of after the reset meets one of before
 * I3  a buffer belongs to its command, so a stale command writes what it was given and nothing else
 */
#ifndef HW_IDE_H
#define HW_IDE_H

#include "block/disk.h"
#include "core/co.h"
#include "hw/machine.h"

#define IDE_CHANNELS 2
#define IDE_SECTOR 512u
#define IDE_MULTIPLE_MAX 16u
#define IDE_DSM_MAX_BLOCKS 8u /* of 512 bytes, 64 ranges each */

/* Ports: command block, control block, bus master. */
#define IDE_PORT(channel) ((channel) ? 0x170 : 0x1f0)
#define IDE_CONTROL_PORT(channel) ((channel) ? 0x376 : 0x3f6)
#define IDE_DMA_PORT(channel) (0xc040 + (channel) * 8)

enum ide_register { /* offsets from IDE_PORT */
    IDE_DATA,
    IDE_ERROR,
    IDE_NSECTOR,
    IDE_LBA_LOW,
    IDE_LBA_MID,
    IDE_LBA_HIGH,
    IDE_DEVICE,
    IDE_STATUS,
    IDE_FEATURE = IDE_ERROR,
    IDE_COMMAND = IDE_STATUS,
};

#define IDE_ST_ERR 0x01
#define IDE_ST_DRQ 0x08
#define IDE_ST_DSC 0x10
#define IDE_ST_DF 0x20
#define IDE_ST_DRDY 0x40
#define IDE_ST_BSY 0x80

#define IDE_ERR_ABRT 0x04
#define IDE_ERR_IDNF 0x10
#define IDE_ERR_UNC 0x40

#define IDE_DEV_UNIT 0x10
#define IDE_DEV_LBA 0x40
#define IDE_DEV_FIXED 0xa0 /* obsolete bits that read as ones */

#define IDE_CTL_NIEN 0x02
#define IDE_CTL_SRST 0x04
#define IDE_CTL_HOB 0x80

enum ide_command {
    IDE_CMD_NOP = 0x00,
    IDE_CMD_DSM = 0x06,
    IDE_CMD_RECALIBRATE = 0x10,
    IDE_CMD_READ = 0x20,
    IDE_CMD_READ_ONCE = 0x21,
    IDE_CMD_READ_EXT = 0x24,
    IDE_CMD_READ_DMA_EXT = 0x25,
    IDE_CMD_READ_NATIVE_MAX_EXT = 0x27,
    IDE_CMD_READ_MULTIPLE_EXT = 0x29,
    IDE_CMD_WRITE = 0x30,
    IDE_CMD_WRITE_ONCE = 0x31,
    IDE_CMD_WRITE_EXT = 0x34,
    IDE_CMD_WRITE_DMA_EXT = 0x35,
    IDE_CMD_WRITE_MULTIPLE_EXT = 0x39,
    IDE_CMD_VERIFY = 0x40,
    IDE_CMD_VERIFY_ONCE = 0x41,
    IDE_CMD_VERIFY_EXT = 0x42,
    IDE_CMD_SEEK = 0x70,
    IDE_CMD_DIAGNOSTIC = 0x90,
    IDE_CMD_INIT_PARAMS = 0x91,
    IDE_CMD_READ_MULTIPLE = 0xc4,
    IDE_CMD_WRITE_MULTIPLE = 0xc5,
    IDE_CMD_SET_MULTIPLE = 0xc6,
    IDE_CMD_READ_DMA = 0xc8,
    IDE_CMD_READ_DMA_ONCE = 0xc9,
    IDE_CMD_WRITE_DMA = 0xca,
    IDE_CMD_WRITE_DMA_ONCE = 0xcb,
    IDE_CMD_STANDBY_NOW = 0xe0,
    IDE_CMD_IDLE_NOW = 0xe1,
    IDE_CMD_STANDBY = 0xe2,
    IDE_CMD_IDLE = 0xe3,
    IDE_CMD_CHECK_POWER = 0xe5,
    IDE_CMD_SLEEP = 0xe6,
    IDE_CMD_FLUSH = 0xe7,
    IDE_CMD_FLUSH_EXT = 0xea,
    IDE_CMD_IDENTIFY = 0xec,
    IDE_CMD_SET_FEATURES = 0xef,
    IDE_CMD_READ_NATIVE_MAX = 0xf8,
};

/* SET FEATURES: what the feature register asks for. */
enum ide_feature {
    IDE_FEATURE_CACHE_ON = 0x02,
    IDE_FEATURE_TRANSFER_MODE = 0x03,
    IDE_FEATURE_LOOK_AHEAD_OFF = 0x55,
    IDE_FEATURE_KEEP = 0x66, /* a software reset changes no setting ... */
    IDE_FEATURE_CACHE_OFF = 0x82,
    IDE_FEATURE_LOOK_AHEAD_ON = 0xaa,
    IDE_FEATURE_REVERT = 0xcc, /* ... or brings the defaults back */
};
#define IDE_MODE_MWDMA 0x20 /* transfer modes: | number */
#define IDE_MODE_UDMA 0x40
#define IDE_MWDMA_MAX 2u
#define IDE_UDMA_MAX 5u

/* Bus master registers, offsets from IDE_DMA_PORT. */
#define IDE_BM_COMMAND 0
#define IDE_BM_STATUS 2
#define IDE_BM_PRD 4
#define IDE_BM_CMD_START 0x01
#define IDE_BM_CMD_TO_MEMORY 0x08
#define IDE_BM_ST_ACTIVE 0x01
#define IDE_BM_ST_ERROR 0x02
#define IDE_BM_ST_IRQ 0x04

/* An entry of a PRD table: address, byte count (0 = 64 KiB) and end mark. */
#define IDE_PRD_BYTES 8u
#define IDE_PRD_END 0x80000000u

struct ide_drive {
    struct machine_device dev;
    struct ide_channel *channel;
    struct disk *disk;
    uint8_t status, error;   /* what the registers show while this drive is selected */
    unsigned heads, sectors; /* the current translation, INITIALIZE DEVICE PARAMETERS changes it */
    unsigned multiple;       /* sectors a block; 0 = off */
    uint8_t dma_mode;        /* as SET FEATURES gave it; 0 = none yet */
    bool write_cache;        /* off: a write is stable before it is answered */
    bool keeps_settings;     /* over a software reset */
};

struct ide_channel {
    unsigned number;
    struct ide_drive *drive[2];
    struct irq_line irq;

    /* The task file, which both drives share; 48-bit commands take the values before, too. */
    uint8_t feature[2], nsector[2], lba_low[2], lba_mid[2], lba_high[2]; /* [0] now, [1] before */
    uint8_t device, control;
    bool interrupt; /* a drive asks for attention; nIEN keeps that from the line */

    /* The command that runs. */
    unsigned running; /* coroutines alive; more than one only while earlier ones just return */
    uint64_t epoch;   /* a reset makes commands of older epochs stale (I2) */
    uint8_t *data;    /* PIO: what passes the data port while DRQ is set; NULL otherwise */
    size_t data_pos, data_len;
    bool data_in, data_last; /* device to host; the command is done with this block */
    struct co *waiter;       /* waits for the guest: the data port or the bus master's start */
    struct co_queue idle;    /* hard resets wait for running == 0 */
    unsigned hard_resets;    /* under way: BSY stays set */
    bool reset_pending;      /* the signature follows when nothing runs and nothing holds it back */

    /* Bus master. */
    uint8_t bm_command, bm_status;
    uint32_t bm_prd;
    bool bm_armed; /* the start bit was set, and no command has used the table since */
};

/* One command, on its coroutine's stack. */
struct ide_task {
    struct ide_channel *ch;
    struct ide_drive *drive;
    uint8_t command;
    uint64_t epoch;
};

static inline uint64_t ide_sectors(const struct ide_drive *drive)
{
    return disk_size(drive->disk) / IDE_SECTOR;
}

/* --- ide.c ---- */
bool ide_stale(const struct ide_task *t);
/* The end of a command: status, interrupt. `error` is 0 or error register bits. */
void ide_finish(struct ide_task *t, uint8_t error);
/* The registers by which software knows an ATA disk (9.12), and device 0 selected. */
void ide_set_signature(struct ide_channel *ch);
enum { IDE_PIO_IN = 1, IDE_PIO_RAISE = 2, IDE_PIO_LAST = 4 };
/* Offer `len` bytes to the guest (IN) or ask for them, with an interrupt (RAISE) or without;
 * returns when all have passed the data port.  LAST: the command ends with them, and the guest may
 * have begun another one when we return.  False: reset. */
bool co_ide_pio(struct ide_task *t, uint8_t *buf, size_t len, unsigned flags);
/* Suspend until ide_wake(); false: reset meanwhile. */
bool co_ide_wait(struct ide_task *t);
void ide_wake(struct ide_channel *ch);

/* --- ide-command.c ---- */
void co_ide_execute(struct ide_task *t);

/* --- ide-identify.c ---- */
void ide_identify(const struct ide_drive *drive, uint8_t out[IDE_SECTOR]);
/* The translation that a drive begins with. */
void ide_default_geometry(struct ide_drive *drive);

/* --- ide-dma.c ---- */
extern const struct region_ops ide_dma_ops;
/* Where `len` bytes go or come from: a list of guest memory, malloc'ed. */
struct ide_dma {
    struct iovec *iov;
    int n;
    bool exact; /* the table ends where the data ends */
};
/* Wait for the start bit, then gather [0, len) of the PRD table.  0; -ECANCELED after a reset;
 * -EFAULT when the table leads out of memory, has no end, or is for the other direction. */
int co_ide_dma_map(struct ide_task *t, size_t len, bool to_memory, struct ide_dma *dma);
/* The data has moved, or will not: frees the list; before ide_finish(). */
void ide_dma_done(struct ide_task *t, struct ide_dma *dma, bool ok);
/* A reset of the device: a table that waited for a command of before is not for those after it. */
void ide_dma_disarm(struct ide_channel *ch);
void ide_dma_reset(struct ide_channel *ch);

#endif
