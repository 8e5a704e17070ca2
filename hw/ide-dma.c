/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus-master DMA (Programming Interface for Bus Master IDE Controller, 1.0).
 *
 * The guest writes the PRD table's address, issues a DMA command on the channel, and sets the start bit; either may come first.  A
 * table is a list of {address, byte count (0 = 64 KiB), end mark in bit 31 of the second word}; it may not cross a 64 KiB boundary,
 * which is also what bounds our walk.  Every region goes through memory_map(): DMA reaches memory only.
 *
 *   the table is as long as the command     active clears, interrupt
 *   longer                                  interrupt, active stays set until the guest clears start
 *   shorter, or leads out of memory         error bit, the command aborts and nothing is moved
 */
#include <errno.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define PRD_BYTES 8u
#define PRD_END 0x80000000u
#define PRD_BOUNDARY 0x10000u

static uint64_t dma_read(void *arg, uint64_t offset, unsigned size)
{
    struct ide_channel *ch = arg;

    switch (offset) {
    case IDE_BM_COMMAND:
        return ch->bm_command;
    case IDE_BM_STATUS:
        return ch->bm_status | (ch->drive[0] ? 0x20 : 0) | (ch->drive[1] ? 0x40 : 0);
    case IDE_BM_PRD:
        return ch->bm_prd;
    default:
        return 0;
    }
}

static void write_command(struct ide_channel *ch, uint8_t value)
{
    bool was_started = ch->bm_command & IDE_BM_CMD_START;

    ch->bm_command = value & (IDE_BM_CMD_START | IDE_BM_CMD_TO_MEMORY);
    if (!was_started && (value & IDE_BM_CMD_START)) {
        ch->bm_status |= IDE_BM_ST_ACTIVE;
        if (!ch->data) {
            ide_wake(ch); /* a command that waits for us; one that waits for the data port has data set */
        }
    } else if (was_started && !(value & IDE_BM_CMD_START)) {
        ch->bm_status &= ~IDE_BM_ST_ACTIVE;
    }
}

static void dma_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct ide_channel *ch = arg;

    switch (offset) {
    case IDE_BM_COMMAND:
        write_command(ch, value);
        break;
    case IDE_BM_STATUS:
        ch->bm_status &= ~(value & (IDE_BM_ST_ERROR | IDE_BM_ST_IRQ)); /* write one to clear */
        break;
    case IDE_BM_PRD:
        ch->bm_prd = value & ~3u;
        break;
    }
}

const struct region_ops ide_dma_ops = { dma_read, dma_write };

void ide_dma_reset(struct ide_channel *ch)
{
    ch->bm_command = 0;
    ch->bm_status &= ~(IDE_BM_ST_ACTIVE | IDE_BM_ST_ERROR | IDE_BM_ST_IRQ);
}

void ide_dma_done(struct ide_task *t, bool ok)
{
    if (!ide_stale(t)) {
        t->ch->bm_status &= ~IDE_BM_ST_ACTIVE;
        t->ch->bm_status |= ok ? 0 : IDE_BM_ST_ERROR;
    }
}

/* Walk the table until `len` bytes are found. */
static int gather(uint32_t table, size_t len, struct iovec **iov, int *n)
{
    size_t found = 0, room = 0;
    uint32_t at = table;

    *iov = NULL;
    *n = 0;
    while (found < len) {
        const uint8_t *prd = memory_map(at, PRD_BYTES);
        if (!prd) {
            return -EFAULT;
        }
        uint32_t base = load_le32(prd) & ~1u, second = load_le32(prd + 4);
        size_t count = second & 0xfffe ? second & 0xfffe : 0x10000;
        size_t take = MIN(count, len - found);
        void *ptr = memory_map(base, take);
        if (!ptr) {
            return -EFAULT;
        }
        if ((size_t)*n == room) {
            room = room ? room * 2 : 16;
            *iov = mem_reallocarray(*iov, room, sizeof(**iov));
        }
        (*iov)[(*n)++] = (struct iovec){ .iov_base = ptr, .iov_len = take };
        found += take;
        at += PRD_BYTES;
        if (found < len && ((second & PRD_END) || at % PRD_BOUNDARY == 0)) {
            return -EFAULT; /* too short, or a table without an end */
        }
    }
    return 0;
}

int co_ide_dma_map(struct ide_task *t, size_t len, bool to_memory, struct iovec **iov, int *n)
{
    struct ide_channel *ch = t->ch;
    int ret;

    *iov = NULL;
    ch->status = IDE_ST_DRDY | IDE_ST_DSC | IDE_ST_DRQ;
    while (!(ch->bm_command & IDE_BM_CMD_START)) {
        if (!co_ide_wait(t)) {
            return -ECANCELED;
        }
    }
    ch->status = IDE_ST_BSY | IDE_ST_DRDY;
    if (to_memory != !!(ch->bm_command & IDE_BM_CMD_TO_MEMORY)) {
        return -EFAULT; /* the two sides disagree about the direction */
    }
    ret = gather(ch->bm_prd, len, iov, n);
    if (ret < 0) {
        free(*iov);
        *iov = NULL;
    }
    return ret;
}
