/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE (ATA/ATAPI-7, volume 1): names of registers, bits and commands, and what ide*.c share.
 *
 *   ide.c            channels: registers, command dispatch, reset, interrupts
 *   ide-command.c    the commands
 *   ide-identify.c   what IDENTIFY DEVICE says
 *   ide-dma.c        bus-master DMA: registers, PRD tables
 *
 * A channel carries out one command at a time, in a coroutine of its own; registers are the meeting point:
 *
 *   guest writes the command register --> BSY --> coroutine --> disk I/O --> buffer or DMA
 *   PIO: buffer full, DRQ, interrupt --> the guest empties it through the data port --> coroutine goes on
 *   the end: BSY and DRQ clear, interrupt
 *
 * I1  while BSY is set no register but the device control register is written (ATA says so; we ignore such writes)
 * I2  a reset makes the running command stale (epoch): it finishes its host I/O, touches neither registers nor guest
 *     memory afterwards, and BSY stays set until it has ended
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
    IDE_DATA, IDE_ERROR, IDE_NSECTOR, IDE_LBA_LOW, IDE_LBA_MID, IDE_LBA_HIGH, IDE_DEVICE, IDE_STATUS,
    IDE_FEATURE = IDE_ERROR, IDE_COMMAND = IDE_STATUS,
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
    IDE_CMD_NOP = 0x00, IDE_CMD_DSM = 0x06, IDE_CMD_DEVICE_RESET = 0x08, IDE_CMD_RECALIBRATE = 0x10,
    IDE_CMD_READ = 0x20, IDE_CMD_READ_ONCE = 0x21, IDE_CMD_READ_EXT = 0x24, IDE_CMD_READ_DMA_EXT = 0x25,
    IDE_CMD_READ_NATIVE_MAX_EXT = 0x27, IDE_CMD_READ_MULTIPLE_EXT = 0x29,
    IDE_CMD_WRITE = 0x30, IDE_CMD_WRITE_ONCE = 0x31, IDE_CMD_WRITE_EXT = 0x34, IDE_CMD_WRITE_DMA_EXT = 0x35,
    IDE_CMD_WRITE_MULTIPLE_EXT = 0x39, IDE_CMD_VERIFY = 0x40, IDE_CMD_VERIFY_ONCE = 0x41, IDE_CMD_VERIFY_EXT = 0x42,
    IDE_CMD_SEEK = 0x70, IDE_CMD_DIAGNOSTIC = 0x90, IDE_CMD_INIT_PARAMS = 0x91,
    IDE_CMD_READ_MULTIPLE = 0xc4, IDE_CMD_WRITE_MULTIPLE = 0xc5, IDE_CMD_SET_MULTIPLE = 0xc6,
    IDE_CMD_READ_DMA = 0xc8, IDE_CMD_READ_DMA_ONCE = 0xc9, IDE_CMD_WRITE_DMA = 0xca, IDE_CMD_WRITE_DMA_ONCE = 0xcb,
    IDE_CMD_STANDBY_NOW = 0xe0, IDE_CMD_IDLE_NOW = 0xe1, IDE_CMD_STANDBY = 0xe2, IDE_CMD_IDLE = 0xe3,
    IDE_CMD_CHECK_POWER = 0xe5, IDE_CMD_SLEEP = 0xe6, IDE_CMD_FLUSH = 0xe7, IDE_CMD_FLUSH_EXT = 0xea,
    IDE_CMD_IDENTIFY = 0xec, IDE_CMD_SET_FEATURES = 0xef, IDE_CMD_READ_NATIVE_MAX = 0xf8,
};

/* Bus master registers, offsets from IDE_DMA_PORT. */
#define IDE_BM_COMMAND 0
#define IDE_BM_STATUS 2
#define IDE_BM_PRD 4
#define IDE_BM_CMD_START 0x01
#define IDE_BM_CMD_TO_MEMORY 0x08
#define IDE_BM_ST_ACTIVE 0x01
#define IDE_BM_ST_ERROR 0x02
#define IDE_BM_ST_IRQ 0x04

struct ide_drive {
    struct machine_device dev;
    struct ide_channel *channel;
    struct disk *disk;
    unsigned heads, sectors;  /* the current translation, INITIALIZE DEVICE PARAMETERS changes it */
    unsigned multiple;        /* sectors a block; 0 = off */
    uint8_t transfer_mode;    /* SET FEATURES 03h: as given */
    bool write_cache;
};

struct ide_channel {
    unsigned number;
    struct ide_drive *drive[2];
    struct irq_line irq;

    /* The task file; the 48-bit forms read the value written before, too. */
    uint8_t feature[2], nsector[2], lba_low[2], lba_mid[2], lba_high[2]; /* [0] now, [1] before */
    uint8_t device, status, error, control;

    /* The command that runs. */
    unsigned running;         /* coroutines alive; more than one only while stale ones end */
    uint64_t epoch;           /* a reset makes commands of older epochs stale (I2) */
    uint8_t *data;            /* PIO: the running command's buffer while DRQ is set */
    size_t data_pos, data_len;
    bool data_in;             /* device to host */
    struct co *waiter;        /* the command's coroutine, waiting for the guest (PIO) or for the bus master */
    struct co_queue idle;     /* resets wait for running == 0 */
    bool reset_pending;       /* SRST was seen, the signature follows when the stale commands have ended */

    /* Bus master. */
    uint8_t bm_command, bm_status;
    uint32_t bm_prd;
};

/* One command, on its coroutine's stack. */
struct ide_task {
    struct ide_channel *ch;
    struct ide_drive *drive;
    uint8_t command;
    uint64_t epoch;
};

/* --- ide.c ---- */
struct ide_drive *ide_selected(struct ide_channel *ch); /* NULL: absent */
bool ide_stale(const struct ide_task *t);
/* The end of a command: status, interrupt. `error` is 0 or error register bits. */
void ide_finish(struct ide_task *t, uint8_t error);
void ide_raise(struct ide_channel *ch);
/* Offer `len` bytes to the guest (data_in) or ask for them; returns when all have passed the data port. False: reset. */
bool co_ide_pio(struct ide_task *t, uint8_t *buf, size_t len, bool data_in, bool raise);
/* Suspend until ide_wake(); false: reset meanwhile. */
bool co_ide_wait(struct ide_task *t);
void ide_wake(struct ide_channel *ch);

/* --- ide-command.c ---- */
void co_ide_execute(struct ide_task *t);

/* --- ide-identify.c ---- */
void ide_identify(const struct ide_drive *drive, uint8_t out[IDE_SECTOR]);
/* Cylinders, heads and sectors that a drive of this size pretends to have. */
void ide_default_geometry(uint64_t sectors, unsigned *cylinders, unsigned *heads, unsigned *per_track);

/* --- ide-dma.c ---- */
extern const struct region_ops ide_dma_ops;
/* Wait for the start bit, then gather [0, len) of the PRD table into a list of guest memory.  0; -ECANCELED after a reset; -EFAULT
 * when the table is short, malformed or leads out of memory. *iov is malloc'ed. */
int co_ide_dma_map(struct ide_task *t, size_t len, bool to_memory, struct iovec **iov, int *n);
void ide_dma_done(struct ide_task *t, bool ok);
void ide_dma_reset(struct ide_channel *ch);

#endif
