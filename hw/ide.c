/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE channels: the task file, resets, interrupts, and the coroutine in which a command runs (see
 * ide.h).
 *
 * A drive that is not there reads as zeroes, and commands to it are lost; on a channel without
 * drives nobody answers at all.
 */
#include "hw/ide.h"

#include <assert.h>

#include "core/mem.h"

#define ST_READY (IDE_ST_DRDY | IDE_ST_DSC)
#define ST_BUSY (IDE_ST_BSY | IDE_ST_DRDY)
#define DIAGNOSTICS_PASSED 1

static struct ide_channel *channels[IDE_CHANNELS];

static struct ide_drive *selected(const struct ide_channel *ch)
{
    return ch->drive[ch->device & IDE_DEV_UNIT ? 1 : 0];
}

bool ide_stale(const struct ide_task *t)
{
    return t->epoch != t->ch->epoch;
}

/* --- Interrupts ------------------------------------------------------------------------------- */

static void let_interrupt_out(struct ide_channel *ch)
{
    ch->bm_status |= IDE_BM_ST_IRQ; /* it notes the edge of the line */
    irq_raise(&ch->irq);
}

static void raise_interrupt(struct ide_channel *ch)
{
    ch->interrupt = true;
    if (!(ch->control & IDE_CTL_NIEN)) {
        let_interrupt_out(ch);
    }
}

static void withdraw_interrupt(struct ide_channel *ch)
{
    ch->interrupt = false;
    irq_lower(&ch->irq);
}

/* --- The life of a command -------------------------------------------------------------------- */

void ide_finish(struct ide_task *t, uint8_t error)
{
    if (ide_stale(t)) {
        return;
    }
    t->drive->error = error;
    t->drive->status = ST_READY | (error ? IDE_ST_ERR : 0);
    raise_interrupt(t->ch);
}

bool co_ide_wait(struct ide_task *t)
{
    assert(!t->ch->waiter && !ide_stale(t));
    t->ch->waiter = co_self();
    co_suspend();
    return !ide_stale(t);
}

void ide_wake(struct ide_channel *ch)
{
    struct co *waiter = ch->waiter;

    if (waiter) {
        ch->waiter = NULL;
        co_wake(waiter);
    }
}

bool co_ide_pio(struct ide_task *t, uint8_t *buf, size_t len, unsigned flags)
{
    struct ide_channel *ch = t->ch;

    ch->data = buf;
    ch->data_pos = 0;
    ch->data_len = len;
    ch->data_in = flags & IDE_PIO_IN;
    ch->data_last = flags & IDE_PIO_LAST;
    t->drive->status = ST_READY | IDE_ST_DRQ;
    if (flags & IDE_PIO_RAISE) {
        raise_interrupt(ch);
    }
    return co_ide_wait(t);
}

/* All bytes of a block have passed.  The last block's interrupt was the last one, so whoever has
 * taken that block may go on to the next command at once. */
static void pio_done(struct ide_channel *ch)
{
    ch->data = NULL;
    selected(ch)->status = ch->data_last ? ST_READY : ST_BUSY;
    ide_wake(ch);
}

void ide_set_signature(struct ide_channel *ch)
{
    ch->nsector[0] = ch->lba_low[0] = 1;
    ch->lba_mid[0] = ch->lba_high[0] = 0;
    ch->device = IDE_DEV_FIXED;
    for (unsigned i = 0; i < 2; i++) {
        if (ch->drive[i]) {
            ch->drive[i]->error = DIAGNOSTICS_PASSED;
        }
    }
}

/* A reset is over when nothing of before runs any more (I2) and nobody holds it. */
static void end_reset(struct ide_channel *ch)
{
    if (!ch->reset_pending || ch->running || ch->hard_resets || (ch->control & IDE_CTL_SRST)) {
        return;
    }
    ch->reset_pending = false;
    ide_set_signature(ch);
    for (unsigned i = 0; i < 2; i++) {
        if (ch->drive[i]) {
            ch->drive[i]->status = ST_READY;
            disk_cancel(ch->drive[i]->disk, false);
        }
    }
}

static CO_ENTRY void command_entry(void *arg)
{
    struct ide_task t = *(struct ide_task *)arg;
    struct ide_channel *ch = t.ch;

    free(arg);
    if (!ide_stale(&t)) {
        co_ide_execute(&t);
    }
    if (--ch->running == 0) {
        end_reset(ch);
        co_queue_wake_all(&ch->idle);
    }
}

static void start_command(struct ide_channel *ch, uint8_t command)
{
    struct ide_drive *drive = selected(ch);
    struct ide_task *t;

    if (!drive && command == IDE_CMD_DIAGNOSTIC) {
        drive = ch->drive[0] ? ch->drive[0] : ch->drive[1]; /* all hear it, whoever is selected */
    }
    if (!drive || (drive->status & IDE_ST_BSY)) {
        return;
    }
    t = mem_alloc(sizeof(*t));
    *t = (struct ide_task){ .ch = ch, .drive = drive, .command = command, .epoch = ch->epoch };
    withdraw_interrupt(ch);
    drive->error = 0;
    drive->status = ST_BUSY;
    ch->running++;
    co_start_later(command_entry, t);
}

/* What runs becomes stale; the signature appears when it has ended. */
static void begin_reset(struct ide_channel *ch)
{
    ch->epoch++;
    ch->data = NULL;
    ch->reset_pending = true;
    withdraw_interrupt(ch);
    ide_dma_disarm(ch);
    for (unsigned i = 0; i < 2; i++) {
        struct ide_drive *drive = ch->drive[i];

        if (drive) {
            drive->status = IDE_ST_BSY;
            disk_cancel(drive->disk, true);
        }
    }
    ide_wake(ch);
}

/* --- Settings --------------------------------------------------------------------------------- */

/* The cache is not among them: whoever switched it off relies on it, and the software reset may
 * have been meant for the other drive of the channel. */
static void settings_soft(struct ide_drive *drive)
{
    drive->multiple = 0;
    drive->dma_mode = 0;
    ide_default_geometry(drive);
}

static void settings_hard(struct ide_drive *drive)
{
    const struct node *root = drive->disk->root;

    settings_soft(drive);
    drive->keeps_settings = false;
    drive->write_cache = !root || !root->writethrough;
}

static void soft_reset(struct ide_channel *ch)
{
    begin_reset(ch);
    for (unsigned i = 0; i < 2; i++) {
        if (ch->drive[i] && !ch->drive[i]->keeps_settings) {
            settings_soft(ch->drive[i]);
        }
    }
}

/* --- Registers -------------------------------------------------------------------------------- */

static uint64_t read_data(struct ide_channel *ch, unsigned size)
{
    uint64_t value = 0;

    if (!ch->data || !ch->data_in) {
        return 0;
    }
    for (unsigned i = 0; i < size && ch->data_pos < ch->data_len; i++) {
        value |= (uint64_t)ch->data[ch->data_pos++] << (8 * i);
    }
    if (ch->data_pos == ch->data_len) {
        pio_done(ch);
    }
    return value;
}

static void write_data(struct ide_channel *ch, uint64_t value, unsigned size)
{
    if (!ch->data || ch->data_in) {
        return;
    }
    for (unsigned i = 0; i < size && ch->data_pos < ch->data_len; i++) {
        ch->data[ch->data_pos++] = value >> (8 * i);
    }
    if (ch->data_pos == ch->data_len) {
        pio_done(ch);
    }
}

static uint64_t command_block_read(void *arg, uint64_t offset, unsigned size)
{
    struct ide_channel *ch = arg;
    const struct ide_drive *drive = selected(ch);
    unsigned hob = ch->control & IDE_CTL_HOB ? 1 : 0;

    if (offset == IDE_DEVICE) {
        return ch->device;
    }
    if (!drive) {
        return 0;
    }
    switch (offset) {
    case IDE_DATA:
        return read_data(ch, size);
    case IDE_ERROR:
        return drive->error;
    case IDE_NSECTOR:
        return ch->nsector[hob];
    case IDE_LBA_LOW:
        return ch->lba_low[hob];
    case IDE_LBA_MID:
        return ch->lba_mid[hob];
    case IDE_LBA_HIGH:
        return ch->lba_high[hob];
    default:
        withdraw_interrupt(ch); /* reading the status acknowledges */
        return drive->status;
    }
}

static void push(uint8_t reg[2], uint8_t value)
{
    reg[1] = reg[0];
    reg[0] = value;
}

static void command_block_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct ide_channel *ch = arg;
    const struct ide_drive *drive = selected(ch);

    if (offset == IDE_DATA) {
        write_data(ch, value, size);
        return;
    }
    if (drive && (drive->status & (IDE_ST_BSY | IDE_ST_DRQ))) {
        return; /* I1 */
    }
    ch->control &= ~IDE_CTL_HOB; /* any write to the command block clears it */
    switch (offset) {
    case IDE_FEATURE:
        push(ch->feature, value);
        break;
    case IDE_NSECTOR:
        push(ch->nsector, value);
        break;
    case IDE_LBA_LOW:
        push(ch->lba_low, value);
        break;
    case IDE_LBA_MID:
        push(ch->lba_mid, value);
        break;
    case IDE_LBA_HIGH:
        push(ch->lba_high, value);
        break;
    case IDE_DEVICE:
        ch->device = value | IDE_DEV_FIXED;
        break;
    default:
        start_command(ch, value);
    }
}

/* The alternate status: does not acknowledge. */
static uint64_t control_read(void *arg, uint64_t offset, unsigned size)
{
    const struct ide_drive *drive = selected(arg);

    return drive ? drive->status : 0;
}

static void control_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct ide_channel *ch = arg;
    uint8_t before = ch->control;

    ch->control = value;
    if (value & ~before & IDE_CTL_SRST) {
        soft_reset(ch);
    }
    end_reset(ch); /* if SRST was all that held it */
    if (value & IDE_CTL_NIEN) {
        irq_lower(&ch->irq);
    } else if ((before & IDE_CTL_NIEN) && ch->interrupt) {
        let_interrupt_out(ch);
    }
}

static const struct region_ops command_block_ops = { command_block_read, command_block_write };
static const struct region_ops control_ops = { control_read, control_write };

/* --- Devices ---------------------------------------------------------------------------------- */

static struct ide_channel *channel_get(unsigned number)
{
    struct ide_channel *ch = channels[number];

    if (!ch) {
        ch = channels[number] = mem_zalloc(sizeof(*ch));
        ch->number = number;
        co_queue_init(&ch->idle);
        ide_set_signature(ch);
        machine_add_ports(IDE_PORT(number), 8, &command_block_ops, ch);
        machine_add_ports(IDE_CONTROL_PORT(number), 1, &control_ops, ch);
        machine_add_ports(IDE_DMA_PORT(number), 8, &ide_dma_ops, ch);
    }
    return ch;
}

/* A reset of the machine resets the channel, so both of its drives; nothing of before runs when it
 * returns. */
static void co_ide_reset(struct machine_device *dev)
{
    struct ide_channel *ch = CONTAINER_OF(dev, struct ide_drive, dev)->channel;

    ch->hard_resets++;
    begin_reset(ch);
    ch->control = 0;
    ide_dma_reset(ch);
    for (unsigned i = 0; i < 2; i++) {
        if (ch->drive[i]) {
            settings_hard(ch->drive[i]);
        }
    }
    while (ch->running > 0) {
        co_queue_wait(&ch->idle);
    }
    ch->hard_resets--;
    end_reset(ch);
}

static void co_ide_remove(struct machine_device *dev)
{
    struct ide_drive *drive = CONTAINER_OF(dev, struct ide_drive, dev);
    struct ide_channel *ch = drive->channel;

    co_ide_reset(dev);
    machine_remove_device(dev);
    ch->drive[dev->unit] = NULL;
    free(drive);
    if (!ch->drive[0] && !ch->drive[1]) {
        machine_remove_regions(ch);
        channels[ch->number] = NULL;
        co_irq_close(&ch->irq);
        free(ch);
    }
}

static const struct device_kind ide_kind = {
    .name = "ide-hd",
    .co_reset = co_ide_reset,
    .co_remove = co_ide_remove,
};

struct machine_device *ide_disk_new(struct disk *disk, unsigned channel, unsigned unit,
                                    struct error *err)
{
    struct ide_channel *ch;
    struct ide_drive *drive;

    assert(channel < IDE_CHANNELS && unit < 2);
    ch = channel_get(channel);
    if (ch->drive[unit]) {
        error_set(err, "IDE unit %u is in use", unit);
        return NULL;
    }
    drive = mem_zalloc(sizeof(*drive));
    drive->channel = ch;
    drive->disk = disk;
    drive->status = ST_READY;
    drive->error = DIAGNOSTICS_PASSED;
    settings_hard(drive);
    drive->dev = (struct machine_device){
        .kind = &ide_kind, .disk = disk, .irq = &ch->irq, .channel = channel, .unit = unit,
    };
    ch->drive[unit] = drive;
    machine_add_device(&drive->dev);
    return &drive->dev;
}
