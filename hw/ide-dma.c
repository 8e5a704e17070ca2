/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus-master DMA (Programming Interface for Bus Master IDE Controller, revision 1.0).
 *
 * The guest writes the PRD table's address, issues a DMA command on the channel, and sets the start
 * bit; either of the last two may come first.  A table is a list of {address, byte count (0 = 64
 * KiB), end mark in bit 31 of the second word}; it may not cross a 64 KiB boundary, which is also
 * what bounds our walk.  Memory is found by memory_map() only, so no entry leads to registers or
 * out of RAM.  The whole table is looked at before a byte moves.
 *
 *   the table ...                           active  error  interrupt, command
 *   is as long as the data                  clears  -      the device's
 *   is longer                               stays   -      the device's; clearing start ends it
 *   is shorter                              clears  -      none: the drive goes on waiting for a
 *                                                          start with a table, or for a reset
 *   leads out of memory, has no end, or     clears  set    the device's, the command aborts
 *   the directions of the two sides differ
 *
 * Clearing the start bit does not call back what the host does already: memory is the guest's again
 * when the command has ended, or BSY after a reset.
 *
 * Not here: entries that cross 64 KiB are taken as they stand, where real controllers wrap.
 */
#include <errno.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define PRD_COUNT_MASK 0xfffeu
#define PRD_COUNT_MAX 0x10000u
#define TABLE_BOUNDARY 0x10000u

/* --- Registers: bytes, in accesses of any size ------------------------------------------------ */

static uint8_t read_byte(const struct ide_channel *ch, unsigned offset)
{
    switch (offset) {
    case IDE_BM_COMMAND:
        return ch->bm_command;
    case IDE_BM_STATUS: /* "drive 0/1 is DMA capable" is for the BIOS to set; we know */
        return ch->bm_status | (ch->drive[0] ? 0x20 : 0) | (ch->drive[1] ? 0x40 : 0);
    case IDE_BM_PRD ... IDE_BM_PRD + 3:
        return ch->bm_prd >> 8 * (offset - IDE_BM_PRD);
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
        ch->bm_armed = true;
        if (!ch->data) {
            ide_wake(ch); /* who waits for the data port has data set */
        }
    } else if (was_started && !(value & IDE_BM_CMD_START)) {
        ch->bm_status &= ~IDE_BM_ST_ACTIVE;
        ch->bm_armed = false;
    }
}

static void write_byte(struct ide_channel *ch, unsigned offset, uint8_t value)
{
    switch (offset) {
    case IDE_BM_COMMAND:
        write_command(ch, value);
        break;
    case IDE_BM_STATUS:
        ch->bm_status &= ~(value & (IDE_BM_ST_ERROR | IDE_BM_ST_IRQ)); /* write one to clear */
        break;
    case IDE_BM_PRD ... IDE_BM_PRD + 3: {
        unsigned shift = 8 * (offset - IDE_BM_PRD);

        ch->bm_prd = ((ch->bm_prd & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
        break;
    }
    }
}

static uint64_t dma_read(void *arg, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)read_byte(arg, offset + i) << 8 * i;
    }
    return value;
}

static void dma_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        write_byte(arg, offset + i, value >> 8 * i);
    }
}

const struct region_ops ide_dma_ops = { dma_read, dma_write };

void ide_dma_disarm(struct ide_channel *ch)
{
    ch->bm_armed = false;
}

void ide_dma_reset(struct ide_channel *ch)
{
    ch->bm_command = ch->bm_status = 0;
    ch->bm_prd = 0;
    ch->bm_armed = false;
}

/* --- Tables ----------------------------------------------------------------------------------- */

/* Neighbours in memory become one element. */
static void append(struct ide_dma *dma, size_t *room, char *ptr, size_t len)
{
    struct iovec *last = dma->n ? &dma->iov[dma->n - 1] : NULL;

    if (last && (char *)last->iov_base + last->iov_len == ptr) {
        last->iov_len += len;
        return;
    }
    if ((size_t)dma->n == *room) {
        *room = *room ? *room * 2 : 16;
        dma->iov = mem_reallocarray(dma->iov, *room, sizeof(*dma->iov));
    }
    dma->iov[dma->n++] = (struct iovec){ .iov_base = ptr, .iov_len = len };
}

/* Walk the table until `len` bytes are found; at most TABLE_BOUNDARY / IDE_PRD_BYTES entries.
 * -EMSGSIZE when it is shorter. */
static int gather(uint32_t table, size_t len, struct ide_dma *dma)
{
    uint64_t end = ROUND_DOWN((uint64_t)table, TABLE_BOUNDARY) + TABLE_BOUNDARY;
    size_t found = 0, room = 0;

    *dma = (struct ide_dma){ 0 };
    for (uint64_t at = table; at + IDE_PRD_BYTES <= end; at += IDE_PRD_BYTES) {
        const uint8_t *prd = memory_map(at, IDE_PRD_BYTES);

        if (!prd) {
            return -EFAULT;
        }
        uint32_t base = load_le32(prd) & ~1u, second = load_le32(prd + 4);
        size_t count = second & PRD_COUNT_MASK ? second & PRD_COUNT_MASK : PRD_COUNT_MAX;
        size_t take = MIN(count, len - found);
        char *ptr = memory_map(base, take);

        if (!ptr) {
            return -EFAULT;
        }
        append(dma, &room, ptr, take);
        found += take;
        if (found == len) {
            dma->exact = take == count && (second & IDE_PRD_END);
            return 0;
        }
        if (second & IDE_PRD_END) {
            return -EMSGSIZE;
        }
    }
    return -EFAULT; /* no end before the boundary */
}

int co_ide_dma_map(struct ide_task *t, size_t len, bool to_memory, struct ide_dma *dma)
{
    struct ide_channel *ch = t->ch;
    int ret;

    *dma = (struct ide_dma){ 0 };
    do {
        t->drive->status = IDE_ST_DRDY | IDE_ST_DSC | IDE_ST_DRQ;
        while (!ch->bm_armed) {
            if (!co_ide_wait(t)) {
                return -ECANCELED;
            }
        }
        ch->bm_armed = false;
        t->drive->status = IDE_ST_BSY | IDE_ST_DRDY;
        if (to_memory != !!(ch->bm_command & IDE_BM_CMD_TO_MEMORY)) {
            return -EFAULT;
        }
        ret = gather(ch->bm_prd, len, dma);
        if (ret < 0) {
            free(dma->iov);
            *dma = (struct ide_dma){ 0 };
        }
        if (ret == -EMSGSIZE) {
            ch->bm_status &= ~IDE_BM_ST_ACTIVE;
        }
    } while (ret == -EMSGSIZE);
    return ret;
}

void ide_dma_done(struct ide_task *t, struct ide_dma *dma, bool ok)
{
    struct ide_channel *ch = t->ch;

    free(dma->iov);
    if (ide_stale(t)) {
        return;
    }
    if (!ok) {
        ch->bm_status |= IDE_BM_ST_ERROR;
    }
    if ((!ok || dma->exact) && !ch->bm_armed) {
        ch->bm_status &= ~IDE_BM_ST_ACTIVE;
    }
}
