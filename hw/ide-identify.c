/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDENTIFY DEVICE (ATA/ATAPI-7, 6.17): 256 little-endian words.
 */
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define LBA28_MAX 0x0fffffffull
#define DEFAULT_HEADS 16u
#define DEFAULT_SECTORS 63u
#define DEFAULT_CYLINDERS_MAX 16383u
#define CYLINDERS_MAX 65535u

#define BIT(n) (1u << (n))

void ide_default_geometry(struct ide_drive *drive)
{
    drive->heads = DEFAULT_HEADS;
    drive->sectors = DEFAULT_SECTORS;
}

/* Whole cylinders only, but at least one: there is no disk without. */
static unsigned cylinders(uint64_t sectors, unsigned per_cylinder, unsigned most)
{
    uint64_t count = MIN(sectors / per_cylinder, (uint64_t)most);

    return MAX(count, 1u);
}

static void put_word(uint8_t *out, unsigned word, uint16_t value)
{
    store_le16(out + word * 2, value);
}

static void put_long(uint8_t *out, unsigned word, uint32_t value)
{
    store_le32(out + word * 2, value);
}

/* Strings are padded with blanks, two characters a word, the first one in the high byte. */
static void put_string(uint8_t *out, unsigned word, unsigned words, const char *text)
{
    size_t len = strlen(text);

    for (unsigned i = 0; i < words * 2; i++) {
        out[(word * 2 + i) ^ 1] = i < len ? text[i] : ' ';
    }
}

/* Words 1 to 6: the translation it begins with; 54 to 58: the current one. */
static void put_geometry(uint8_t *out, const struct ide_drive *drive)
{
    uint64_t sectors = ide_sectors(drive);
    unsigned per_cylinder = drive->heads * drive->sectors;
    unsigned current = cylinders(sectors, per_cylinder, CYLINDERS_MAX);

    put_word(out, 1, cylinders(sectors, DEFAULT_HEADS * DEFAULT_SECTORS, DEFAULT_CYLINDERS_MAX));
    put_word(out, 3, DEFAULT_HEADS);
    put_word(out, 6, DEFAULT_SECTORS);
    put_word(out, 54, current);
    put_word(out, 55, drive->heads);
    put_word(out, 56, drive->sectors);
    put_long(out, 57, MIN((uint64_t)current * per_cylinder, sectors));
}

/* Words 82 to 87: what is supported, and what is on. */
static void put_features(uint8_t *out, const struct ide_drive *drive)
{
    const unsigned power = BIT(3), cache = BIT(5), nop = BIT(14);
    const unsigned lba48 = BIT(10), flush = BIT(12), flush_ext = BIT(13);

    put_word(out, 82, power | cache | nop);
    put_word(out, 83, lba48 | flush | flush_ext | BIT(14)); /* bit 14: the word is valid */
    put_word(out, 84, BIT(14));
    put_word(out, 85, power | nop | (drive->write_cache ? cache : 0));
    put_word(out, 86, lba48 | flush | flush_ext);
    put_word(out, 87, BIT(14));
}

/* Words 49 to 68, 88 and 93: how data moves.  A mode that was chosen shows in the high byte. */
static void put_transfer(uint8_t *out, const struct ide_drive *drive)
{
    unsigned kind = drive->dma_mode & ~7u, chosen = BIT(8 + (drive->dma_mode & 7));

    put_word(out, 47, 0x8000 | IDE_MULTIPLE_MAX);
    put_word(out, 48, 1);                                /* 32-bit accesses of the data port */
    put_word(out, 49, BIT(8) | BIT(9) | BIT(10) | BIT(11)); /* DMA, LBA, IORDY */
    put_word(out, 50, BIT(14));
    put_word(out, 51, 0x0200);
    put_word(out, 52, 0x0200);
    put_word(out, 53, BIT(0) | BIT(1) | BIT(2)); /* words 54-58, 64-70 and 88 are valid */
    put_word(out, 59, drive->multiple ? BIT(8) | drive->multiple : 0);
    put_word(out, 63, (BIT(IDE_MWDMA_MAX + 1) - 1) | (kind == IDE_MODE_MWDMA ? chosen : 0));
    put_word(out, 64, BIT(0) | BIT(1)); /* PIO 3 and 4 */
    for (unsigned word = 65; word <= 68; word++) {
        put_word(out, word, 120); /* ns a cycle */
    }
    put_word(out, 88, (BIT(IDE_UDMA_MAX + 1) - 1) | (kind == IDE_MODE_UDMA ? chosen : 0));
    /* The hardware reset went well, 80 wires, the number of the drive is set by a jumper. */
    put_word(out, 93, BIT(14) | BIT(13) | (drive->dev.unit ? 0x0b00 : 0x000b));
}

void ide_identify(const struct ide_drive *drive, uint8_t out[IDE_SECTOR])
{
    uint64_t sectors = ide_sectors(drive);
    const struct device_identity *own = &drive->dev.identity;
    AUTOFREE char *serial = mem_printf("MG%02u%02u", drive->dev.channel, drive->dev.unit);

    memset(out, 0, IDE_SECTOR);
    put_word(out, 0, BIT(6));  /* a fixed disk */
    put_word(out, 2, 0xc837);  /* it spins, and this answer is complete */
    put_string(out, 10, 10, own->serial ? own->serial : serial);
    put_string(out, 23, 4, own->version ? own->version : "1.0");
    put_string(out, 27, 20, own->model ? own->model : "MERGANSER HARDDISK");
    put_geometry(out, drive);
    put_transfer(out, drive);
    put_features(out, drive);
    put_long(out, 60, MIN(sectors, LBA28_MAX));
    put_word(out, 80, BIT(4) | BIT(5) | BIT(6) | BIT(7)); /* ATA/ATAPI-4 to -7 */
    store_le64(out + 100 * 2, sectors);
    put_word(out, 105, IDE_DSM_MAX_BLOCKS);
    put_word(out, 106, BIT(14)); /* a physical sector is a logical one */
    put_word(out, 169, 1);       /* TRIM */
    put_word(out, 217, own->rotation_rate);
    for (unsigned i = 0; i < 4 && own->wwn; i++) {
        put_word(out, 108 + i, own->wwn >> (48 - 16 * i));
    }
}
