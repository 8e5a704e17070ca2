/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE channels: the task file, resets, interrupts, and the coroutine in which a command runs (see ide.h).
 */
#include "hw/ide.h"

#include <assert.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"

static struct ide_channel *channels[IDE_CHANNELS];

struct ide_drive *ide_selected(struct ide_channel *ch)
{
    return ch->drive[ch->device & IDE_DEV_UNIT ? 1 : 0];
}

bool ide_stale(const struct ide_task *t)
{
    return t->epoch != t->ch->epoch;
}

/* --- Interrupts ---------------------------------------------------------------------------------------------- */

void ide_raise(struct ide_channel *ch)
{
    ch->bm_status |= IDE_BM_ST_IRQ;
    if (!(ch->control & IDE_CTL_NIEN)) {
        irq_raise(&ch->irq);
    }
}

/* --- The life of a command -------------------------------------------------------------------------------------- */

void ide_finish(struct ide_task *t, uint8_t error)
{
    struct ide_channel *ch = t->ch;

    if (ide_stale(t)) {
        return;
    }
    ch->error = error;
    ch->status = IDE_ST_DRDY | IDE_ST_DSC | (error ? IDE_ST_ERR : 0);
    ide_raise(ch);
}

bool co_ide_wait(struct ide_task *t)
{
    assert(!t->ch->waiter);
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

bool co_ide_pio(struct ide_task *t, uint8_t *buf, size_t len, bool data_in, bool raise)
{
    struct ide_channel *ch = t->ch;

    ch->data = buf;
    ch->data_pos = 0;
    ch->data_len = len;
    ch->data_in = data_in;
    ch->status = IDE_ST_DRDY | IDE_ST_DSC | IDE_ST_DRQ;
    if (raise) {
        ide_raise(ch);
    }
    return co_ide_wait(t);
}

/* All bytes of a block have passed: the command goes on. */
static void pio_done(struct ide_channel *ch)
{
    ch->data = NULL;
    ch->status = IDE_ST_BSY | IDE_ST_DRDY;
    ide_wake(ch);
}

/* ATA: what the registers hold after a reset tells that this is an ATA device. */
static void set_signature(struct ide_channel *ch)
{
    ch->nsector[0] = ch->lba_low[0] = 1;
    ch->lba_mid[0] = ch->lba_high[0] = 0;
    ch->device = IDE_DEV_FIXED;
    ch->error = 1; /* diagnostics passed */
    ch->status = IDE_ST_DRDY | IDE_ST_DSC;
    ch->reset_pending = false;
}

static CO_ENTRY void co_ide_command(void *arg)
{
    struct ide_task t = *(struct ide_task *)arg;
    struct ide_channel *ch = t.ch;

    free(arg);
    co_ide_execute(&t);
    if (--ch->running == 0) {
        if (ch->reset_pending && !(ch->control & IDE_CTL_SRST)) {
            set_signature(ch);
        }
        co_queue_wake_all(&ch->idle);
    }
}

static void start_command(struct ide_channel *ch, uint8_t command)
{
    struct ide_drive *drive = ide_selected(ch);
    struct ide_task *t;

    if (!drive || (ch->status & (IDE_ST_BSY | IDE_ST_DRQ))) {
        return; /* nobody there, or I1 */
    }
    t = mem_alloc(sizeof(*t));
    *t = (struct ide_task){ .ch = ch, .drive = drive, .command = command, .epoch = ch->epoch };
    irq_lower(&ch->irq);
    ch->error = 0;
    ch->status = IDE_ST_BSY | IDE_ST_DRDY;
    ch->running++;
    co_start_later(co_ide_command, t);
}

/* Whatever runs becomes stale; the signature appears at once, or when it has ended (I2). */
static void begin_reset(struct ide_channel *ch)
{
    ch->epoch++;
    ch->data = NULL;
    ch->status = IDE_ST_BSY;
    ch->reset_pending = true;
    irq_lower(&ch->irq);
    ide_dma_reset(ch);
    for (unsigned i = 0; i < 2; i++) {
        if (ch->drive[i]) {
            ch->drive[i]->multiple = 0;
        }
    }
    ide_wake(ch);
}

/* --- Registers ---------------------------------------------------------------------------------------------------- */

static uint32_t read_data(struct ide_channel *ch, unsigned size)
{
    uint32_t value = 0;
    size_t left;

    if (!ch->data || !ch->data_in) {
        return 0;
    }
    left = ch->data_len - ch->data_pos;
    for (unsigned i = 0; i < size && i < left; i++) {
        value |= (uint32_t)ch->data[ch->data_pos++] << (8 * i);
    }
    if (ch->data_pos == ch->data_len) {
        pio_done(ch);
    }
    return value;
}

static void write_data(struct ide_channel *ch, uint32_t value, unsigned size)
{
    size_t left;

    if (!ch->data || ch->data_in) {
        return;
    }
    left = ch->data_len - ch->data_pos;
    for (unsigned i = 0; i < size && i < left; i++) {
        ch->data[ch->data_pos++] = value >> (8 * i);
    }
    if (ch->data_pos == ch->data_len) {
        pio_done(ch);
    }
}

static uint8_t read_status(struct ide_channel *ch)
{
    return ide_selected(ch) ? ch->status : 0;
}

static uint64_t command_block_read(void *arg, uint64_t offset, unsigned size)
{
    struct ide_channel *ch = arg;
    unsigned hob = ch->control & IDE_CTL_HOB ? 1 : 0;

    if (offset == IDE_DATA) {
        return read_data(ch, size);
    }
    if (!ide_selected(ch)) {
        return offset == IDE_DEVICE ? ch->device : 0;
    }
    switch (offset) {
    case IDE_ERROR:
        return hob ? 0 : ch->error;
    case IDE_NSECTOR:
        return ch->nsector[hob];
    case IDE_LBA_LOW:
        return ch->lba_low[hob];
    case IDE_LBA_MID:
        return ch->lba_mid[hob];
    case IDE_LBA_HIGH:
        return ch->lba_high[hob];
    case IDE_DEVICE:
        return ch->device;
    default:
        irq_lower(&ch->irq); /* reading the status acknowledges the interrupt */
        return read_status(ch);
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

    if (offset == IDE_DATA) {
        write_data(ch, value, size);
        return;
    }
    if ((ch->status & IDE_ST_BSY) && !(offset == IDE_COMMAND && value == IDE_CMD_DEVICE_RESET)) {
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

static uint64_t control_read(void *arg, uint64_t offset, unsigned size)
{
    return read_status(arg); /* the alternate status does not acknowledge */
}

static void control_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct ide_channel *ch = arg;
    uint8_t before = ch->control;

    ch->control = value;
    if ((value & IDE_CTL_SRST) && !(before & IDE_CTL_SRST)) {
        begin_reset(ch);
    } else if (!(value & IDE_CTL_SRST) && (before & IDE_CTL_SRST) && ch->running == 0) {
        set_signature(ch);
    }
    if (value & IDE_CTL_NIEN) {
        irq_lower(&ch->irq);
    }
}

static const struct region_ops command_block_ops = { command_block_read, command_block_write };
static const struct region_ops control_ops = { control_read, control_write };

/* --- Devices --------------------------------------------------------------------------------------------------------- */

static struct ide_channel *channel_get(unsigned number)
{
    struct ide_channel *ch = channels[number];

    if (!ch) {
        ch = channels[number] = mem_zalloc(sizeof(*ch));
        ch->number = number;
        co_queue_init(&ch->idle);
        set_signature(ch);
        machine_add_ports(IDE_PORT(number), 8, &command_block_ops, ch);
        machine_add_ports(IDE_CONTROL_PORT(number), 1, &control_ops, ch);
        machine_add_ports(IDE_DMA_PORT(number), 8, &ide_dma_ops, ch);
    }
    return ch;
}

/* A hard reset of the machine resets the channel, so both drives of it. */
static void co_ide_reset(struct machine_device *dev)
{
    struct ide_channel *ch = CONTAINER_OF(dev, struct ide_drive, dev)->channel;

    begin_reset(ch);
    ch->control = 0;
    while (ch->running > 0) {
        co_queue_wait(&ch->idle);
    }
    set_signature(ch);
}

static void co_ide_remove(struct machine_device *dev)
{
    struct ide_drive *drive = CONTAINER_OF(dev, struct ide_drive, dev);
    struct ide_channel *ch = drive->channel;

    co_ide_reset(dev);
    machine_remove_device(dev);
    drive->disk->on_resize = NULL;
    ch->drive[dev->unit] = NULL;
    free(drive);
    if (!ch->drive[0] && !ch->drive[1]) {
        machine_remove_regions(ch);
        co_irq_close(&ch->irq);
        channels[ch->number] = NULL;
        free(ch);
    }
}

static const struct device_kind ide_kind = {
    .name = "ide-hd",
    .co_reset = co_ide_reset,
    .co_remove = co_ide_remove,
};

struct machine_device *ide_disk_new(struct disk *disk, unsigned channel, unsigned unit, struct error *err)
{
    struct ide_channel *ch;
    struct ide_drive *drive;
    unsigned cylinders;

    assert(channel < IDE_CHANNELS && unit < 2);
    ch = channel_get(channel);
    if (ch->drive[unit]) {
        error_set(err, "IDE unit %u is in use", unit);
        return NULL;
    }
    drive = mem_zalloc(sizeof(*drive));
    drive->channel = ch;
    drive->disk = disk;
    drive->write_cache = true;
    ide_default_geometry(disk_size(disk) / IDE_SECTOR, &cylinders, &drive->heads, &drive->sectors);
    drive->dev = (struct machine_device){
        .kind = &ide_kind, .disk = disk, .irq = &ch->irq, .channel = channel, .unit = unit,
    };
    ch->drive[unit] = drive;
    machine_add_device(&drive->dev);
    return &drive->dev;
}
