/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's way to an ATA drive: one command at a time, by PIO or bus-master DMA.
 *
 * The two drives of a channel share registers and interrupt, so whoever wants to give a command
 * takes a turn first.  He who gives up his turn leaves the channel idle: a command that is not
 * waited for any more is ended by a software reset, and from then on the drive touches no memory of
 * ours.
 *
 * All co_ata_*() but the taking of a turn want the turn, suspend, and return 0, -EIO when the drive
 * reports an error, -ECANCELED after ata_abort(), -ENODEV or -ETIMEDOUT.
 */
#ifndef HW_GUEST_ATA_H
#define HW_GUEST_ATA_H

#include "core/co.h"
#include "hw/ide.h"

#define ATA_TRANSFER_MAX (1u << 20) /* bytes in one DMA command */

struct ata {
    LIST_ENTRY(ata) link; /* of its channel */
    struct ata_channel *ch;
    unsigned number, unit; /* channel and drive */
    uint64_t prd;          /* guest-physical, one page */
    bool wide;             /* the data port takes 32 bits at a time */
    bool aborted;          /* no more commands: the machine was reset, or we are shut down */
};

struct ata_command {
    uint8_t code;
    uint8_t feature;
    bool ext;       /* a 48-bit form: registers take two values each */
    uint64_t lba;
    uint32_t count; /* sectors, or the count register's value */
};

/* Attach to the interrupt (the first of the channel), and to resets of the machine, which abort. */
void ata_open(struct ata *a, struct machine_device *dev);
/* Nobody may have or wait for a turn. */
void ata_close(struct ata *a);
/* Is nobody else here who relies on the state of the channel? */
bool ata_alone(const struct ata *a);
/* Whoever waits for a turn, or for the drive in one, comes back with -ECANCELED.  Any time. */
void ata_abort(struct ata *a);

/* First come, first served.  False: aborted, and it is not our turn. */
bool co_ata_turn_take(struct ata *a);
void ata_turn_give_up(struct ata *a);

void co_ata_software_reset(struct ata *a); /* of both drives */
/* Select the drive and wait until it takes commands; -ENODEV when nobody is there. */
int co_ata_wait_ready(struct ata *a);
/* A command without data. */
int co_ata_simple(struct ata *a, uint8_t code, uint8_t feature, uint32_t count);
/* `block` bytes between two interrupts. */
int co_ata_pio_in(struct ata *a, const struct ata_command *c, uint8_t *buf, size_t len,
                  size_t block);
int co_ata_pio_out(struct ata *a, const struct ata_command *c, const uint8_t *buf, size_t len,
                   size_t block);
int co_ata_dma(struct ata *a, const struct ata_command *c, uint64_t gpa, size_t len,
               bool to_memory);
/* The error register: why the last command ended with -EIO. */
uint8_t ata_error(const struct ata *a);

#endif
