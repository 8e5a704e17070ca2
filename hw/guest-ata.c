/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's way to an ATA drive: turns on the channel, interrupts, commands (see guest-ata.h).
 *
 *   take the turn -> select, wait for ready -> task file, command -> interrupts, data -> status
 *
 * It is software of the guest: it knows the drive by its ports and an interrupt line only.
 */
#include "hw/guest-ata.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"

#define READY_TIMEOUT_NS (5 * NS_PER_S)
#define POLL_NS (20 * NS_PER_US)
#define SRST_NS (5 * NS_PER_US) /* ATA: SRST is held for 5 us or more */
#define PAGE 4096u              /* of PRD entries: more than ATA_TRANSFER_MAX needs */
#define PRD_SPAN 0x10000u       /* an entry may not cross this */

/* Who waits for a turn; on his stack. */
struct turn {
    TAILQ_ENTRY(turn) link;
    struct ata *a;
    struct co *co;
    bool granted;
};

struct ata_channel {
    LIST_HEAD(, ata) drives; /* up to two */
    struct irq_line *irq;
    bool busy; /* it is somebody's turn */
    TAILQ_HEAD(, turn) turns;
    struct co *waiter; /* for an interrupt: the one whose turn it is */
    bool interrupted;
    struct machine_listener listener;
};
static struct ata_channel channels[IDE_CHANNELS];

/* --- Ports ------------------------------------------------------------------------------------ */

static void out(const struct ata *a, unsigned reg, uint8_t value)
{
    machine_port_out(IDE_PORT(a->number) + reg, value, 1);
}

static uint8_t in(const struct ata *a, unsigned reg)
{
    return machine_port_in(IDE_PORT(a->number) + reg, 1);
}

static uint8_t alternate_status(const struct ata *a)
{
    return machine_port_in(IDE_CONTROL_PORT(a->number), 1);
}

static void control(const struct ata *a, uint8_t value)
{
    machine_port_out(IDE_CONTROL_PORT(a->number), value, 1);
}

static void bm_out(const struct ata *a, unsigned reg, uint32_t value, unsigned size)
{
    machine_port_out(IDE_DMA_PORT(a->number) + reg, value, size);
}

static void select_drive(const struct ata *a, uint8_t bits)
{
    out(a, IDE_DEVICE, IDE_DEV_FIXED | (a->unit ? IDE_DEV_UNIT : 0) | bits);
}

/* --- Turns ------------------------------------------------------------------------------------ */

bool co_ata_turn_take(struct ata *a)
{
    struct turn turn = { .a = a };

    if (a->aborted) {
        return false;
    }
    if (!a->ch->busy) {
        a->ch->busy = true;
        return true;
    }
    turn.co = co_self();
    TAILQ_INSERT_TAIL(&a->ch->turns, &turn, link);
    co_suspend();
    return turn.granted;
}

void ata_turn_give_up(struct ata *a)
{
    struct ata_channel *ch = a->ch;
    struct turn *next = TAILQ_FIRST(&ch->turns);

    ch->busy = next;
    if (next) {
        TAILQ_REMOVE(&ch->turns, next, link);
        next->granted = true;
        co_wake(next->co);
    }
}

/* --- Interrupts and aborts -------------------------------------------------------------------- */

static void wake(struct ata_channel *ch)
{
    struct co *waiter = ch->waiter;

    ch->waiter = NULL;
    if (waiter) {
        co_wake(waiter);
    }
}

static void on_interrupt(void *arg)
{
    struct ata_channel *ch = arg;

    ch->interrupted = true;
    wake(ch);
}

/* Whoever waits for its turn or an interrupt looks again. */
void ata_abort(struct ata *a)
{
    struct turn *turn, *next;

    a->aborted = true;
    for (turn = TAILQ_FIRST(&a->ch->turns); turn; turn = next) {
        next = TAILQ_NEXT(turn, link);
        if (turn->a == a) {
            TAILQ_REMOVE(&a->ch->turns, turn, link);
            co_wake(turn->co);
        }
    }
    wake(a->ch);
}

static void on_machine_reset(struct machine_listener *l)
{
    struct ata_channel *ch = CONTAINER_OF(l, struct ata_channel, listener);
    struct ata *a;

    LIST_FOREACH(a, &ch->drives, link) {
        ata_abort(a);
    }
}

void co_ata_software_reset(struct ata *a)
{
    control(a, IDE_CTL_SRST);
    co_sleep_ns(SRST_NS);
    control(a, 0);
}

/* Our command is given up: the channel is left idle, and the drive touches no memory of ours any
 * more.  However long that takes: the host has to end what it has begun. */
static int co_break_off(struct ata *a)
{
    if (alternate_status(a) & (IDE_ST_BSY | IDE_ST_DRQ)) {
        bm_out(a, IDE_BM_COMMAND, 0, 1);
        co_ata_software_reset(a);
        while (alternate_status(a) & IDE_ST_BSY) {
            co_sleep_ns(POLL_NS);
        }
    }
    return -ECANCELED;
}

/* 0 when the drive has something to say. */
static int co_wait_interrupt(struct ata *a)
{
    struct ata_channel *ch = a->ch;

    while (!a->aborted && (!ch->interrupted || (alternate_status(a) & IDE_ST_BSY))) {
        ch->interrupted = false;
        ch->waiter = co_self();
        co_suspend();
    }
    ch->interrupted = false;
    return a->aborted ? co_break_off(a) : 0;
}

/* --- Commands --------------------------------------------------------------------------------- */

int co_ata_wait_ready(struct ata *a)
{
    uint64_t limit = loop_now() + READY_TIMEOUT_NS;
    uint8_t status;

    for (;;) {
        select_drive(a, 0);
        status = alternate_status(a);
        if (status == 0xff || status == 0) {
            return -ENODEV; /* an empty bus, or the other drive answers for it */
        }
        if (!(status & (IDE_ST_BSY | IDE_ST_DRQ))) {
            return status & IDE_ST_DRDY ? 0 : -ENODEV;
        }
        if (a->aborted) {
            return -ECANCELED;
        }
        if (loop_now() > limit) {
            return -ETIMEDOUT;
        }
        co_sleep_ns(POLL_NS);
    }
}

static int co_issue(struct ata *a, const struct ata_command *c)
{
    int ret = co_ata_wait_ready(a);

    if (ret < 0) {
        return ret;
    }
    a->ch->interrupted = false;
    select_drive(a, IDE_DEV_LBA | (c->ext ? 0 : (c->lba >> 24) & 0x0f));
    if (c->ext) { /* the bytes of the high half go first */
        out(a, IDE_FEATURE, 0);
        out(a, IDE_NSECTOR, c->count >> 8);
        out(a, IDE_LBA_LOW, c->lba >> 24);
        out(a, IDE_LBA_MID, c->lba >> 32);
        out(a, IDE_LBA_HIGH, c->lba >> 40);
    }
    out(a, IDE_FEATURE, c->feature);
    out(a, IDE_NSECTOR, c->count);
    out(a, IDE_LBA_LOW, c->lba);
    out(a, IDE_LBA_MID, c->lba >> 8);
    out(a, IDE_LBA_HIGH, c->lba >> 16);
    out(a, IDE_COMMAND, c->code);
    return 0;
}

/* Reads the status, which acknowledges the interrupt: these bits and no error? */
static int check_status(struct ata *a, uint8_t wanted)
{
    uint8_t status = in(a, IDE_STATUS);

    return (status & (IDE_ST_ERR | IDE_ST_DF)) || (status & wanted) != wanted ? -EIO : 0;
}

int co_ata_simple(struct ata *a, uint8_t code, uint8_t feature, uint32_t count)
{
    struct ata_command c = { .code = code, .feature = feature, .count = count };
    int ret = co_issue(a, &c);

    if (ret == 0) {
        ret = co_wait_interrupt(a);
    }
    return ret < 0 ? ret : check_status(a, 0);
}

static void port_read(struct ata *a, uint8_t *buf, size_t len)
{
    unsigned width = a->wide ? 4 : 2;

    for (size_t i = 0; i < len; i += width) {
        uint32_t value = htole32(machine_port_in(IDE_PORT(a->number), width));

        memcpy(buf + i, &value, width);
    }
}

static void port_write(struct ata *a, const uint8_t *buf, size_t len)
{
    unsigned width = a->wide ? 4 : 2;

    for (size_t i = 0; i < len; i += width) {
        uint32_t value = 0;

        memcpy(&value, buf + i, width);
        machine_port_out(IDE_PORT(a->number), le32toh(value), width);
    }
}

int co_ata_pio_in(struct ata *a, const struct ata_command *c, uint8_t *buf, size_t len,
                  size_t block)
{
    int ret = co_issue(a, c);

    for (size_t done = 0; ret == 0 && done < len; done += block) {
        ret = co_wait_interrupt(a);
        if (ret == 0) {
            ret = check_status(a, IDE_ST_DRQ);
        }
        if (ret == 0) {
            port_read(a, buf + done, MIN(block, len - done));
        }
    }
    return ret;
}

/* The first block of a write is asked for without an interrupt. */
static int co_poll_drq(struct ata *a)
{
    co_yield(); /* mostly that is all it takes */
    while (!(alternate_status(a) & (IDE_ST_DRQ | IDE_ST_ERR))) {
        if (a->aborted) {
            return co_break_off(a);
        }
        co_sleep_ns(POLL_NS);
    }
    return check_status(a, IDE_ST_DRQ);
}

int co_ata_pio_out(struct ata *a, const struct ata_command *c, const uint8_t *buf, size_t len,
                   size_t block)
{
    int ret = co_issue(a, c);

    if (ret == 0) {
        ret = co_poll_drq(a);
    }
    for (size_t done = 0; ret == 0 && done < len; done += block) {
        port_write(a, buf + done, MIN(block, len - done));
        ret = co_wait_interrupt(a);
        if (ret == 0) {
            ret = check_status(a, len - done > block ? IDE_ST_DRQ : 0);
        }
    }
    return ret;
}

static void build_prd(struct ata *a, uint64_t gpa, size_t len)
{
    uint8_t *prd = memory_map(a->prd, PAGE);

    assert(len <= ATA_TRANSFER_MAX && gpa + len <= 1ull << 32);
    for (size_t done = 0; done < len; prd += IDE_PRD_BYTES) {
        uint64_t at = gpa + done;
        size_t now = MIN(len - done, PRD_SPAN - (size_t)(at % PRD_SPAN));

        done += now;
        store_le32(prd, at);
        store_le32(prd + 4, now % PRD_SPAN | (done == len ? IDE_PRD_END : 0));
    }
}

int co_ata_dma(struct ata *a, const struct ata_command *c, uint64_t gpa, size_t len,
               bool to_memory)
{
    uint8_t direction = to_memory ? IDE_BM_CMD_TO_MEMORY : 0;

    build_prd(a, gpa, len);
    bm_out(a, IDE_BM_PRD, a->prd, 4);
    bm_out(a, IDE_BM_STATUS, IDE_BM_ST_ERROR | IDE_BM_ST_IRQ, 1);
    bm_out(a, IDE_BM_COMMAND, direction, 1);
    int ret = co_issue(a, c);

    if (ret < 0) {
        return ret;
    }
    bm_out(a, IDE_BM_COMMAND, direction | IDE_BM_CMD_START, 1);
    ret = co_wait_interrupt(a);
    if (ret < 0) {
        return ret;
    }
    uint8_t status = machine_port_in(IDE_DMA_PORT(a->number) + IDE_BM_STATUS, 1);

    bm_out(a, IDE_BM_COMMAND, 0, 1);
    ret = check_status(a, 0);
    return ret < 0 || !(status & (IDE_BM_ST_ERROR | IDE_BM_ST_ACTIVE)) ? ret : -EIO;
}

uint8_t ata_error(const struct ata *a)
{
    return in(a, IDE_ERROR);
}

/* --- Life ------------------------------------------------------------------------------------- */

void ata_open(struct ata *a, struct machine_device *dev)
{
    struct ata_channel *ch = &channels[dev->channel];

    *a = (struct ata){ .ch = ch, .number = dev->channel, .unit = dev->unit };
    a->prd = guest_alloc(PAGE);
    if (LIST_EMPTY(&ch->drives)) {
        *ch = (struct ata_channel){ .irq = dev->irq };
        TAILQ_INIT(&ch->turns);
        irq_attach(ch->irq, on_interrupt, ch);
        ch->listener.reset = on_machine_reset;
        machine_listen(&ch->listener);
    }
    LIST_INSERT_HEAD(&ch->drives, a, link);
}

void ata_close(struct ata *a)
{
    struct ata_channel *ch = a->ch;

    guest_free(a->prd, PAGE);
    LIST_REMOVE(a, link);
    if (LIST_EMPTY(&ch->drives)) {
        assert(!ch->busy);
        machine_unlisten(&ch->listener);
        irq_attach(ch->irq, NULL, NULL);
    }
}

bool ata_alone(const struct ata *a)
{
    return LIST_FIRST(&a->ch->drives) == a && !LIST_NEXT(a, link);
}
