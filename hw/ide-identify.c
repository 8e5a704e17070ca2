/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDENTIFY DEVICE (ATA/ATAPI-7, 6.17): 256 little-endian words.
 */
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/ide.h"

#define LBA28_MAX 0x0fffffffull
#define MAX_CYLINDERS 16383u

void ide_default_geometry(uint64_t sectors, unsigned *cylinders, unsigned *heads, unsigned *per_track)
{
    uint64_t c = sectors / (16 * 63);

    *heads = 16;
    *per_track = 63;
    *cylinders = c > MAX_CYLINDERS ? MAX_CYLINDERS : c < 2 ? 2 : c;
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

/* Words 82 to 87: what is supported, and what is on. */
static void put_features(uint8_t *out, const struct ide_drive *drive)
{
    uint16_t cache = drive->write_cache ? 1 << 5 : 0;

    put_word(out, 82, 1 << 14 | 1 << 5);                     /* NOP, write cache */
    put_word(out, 83, 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10); /* FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses */
    put_word(out, 84, 1 << 14);
    put_word(out, 85, 1 << 14 | cache);
    put_word(out, 86, 1 << 13 | 1 << 12 | 1 << 10);
    put_word(out, 87, 1 << 14);
}

void ide_identify(const struct ide_drive *drive, uint8_t out[IDE_SECTOR])
{
    uint64_t sectors = disk_size(drive->disk) / IDE_SECTOR;
    unsigned cylinders, heads, per_track;
    uint8_t mode = drive->transfer_mode;
    AUTOFREE char *serial = mem_printf("MG%02u%02u", drive->dev.channel, drive->dev.unit);

    memset(out, 0, IDE_SECTOR);
    ide_default_geometry(sectors, &cylinders, &heads, &per_track);
    put_word(out, 0, 0x0040); /* a fixed disk */
    put_word(out, 1, cylinders);
    put_word(out, 3, heads);
    put_word(out, 6, per_track);
    put_string(out, 10, 10, serial);
    put_string(out, 23, 4, "1.0");
    put_string(out, 27, 20, "MERGANSER HARDDISK");
    put_word(out, 47, 0x8000 | IDE_MULTIPLE_MAX);
    put_word(out, 48, 1);                              /* 32-bit accesses of the data port */
    put_word(out, 49, 1 << 11 | 1 << 10 | 1 << 9 | 1 << 8); /* IORDY, LBA, DMA */
    put_word(out, 50, 0x4000);
    put_word(out, 51, 0x0200);
    put_word(out, 52, 0x0200);
    put_word(out, 53, 1 | 2 | 4);                      /* words 54-58, 64-70 and 88 are valid */
    put_word(out, 54, cylinders);
    put_word(out, 55, drive->heads);
    put_word(out, 56, drive->sectors);
    put_long(out, 57, MIN((uint64_t)cylinders * drive->heads * drive->sectors, sectors));
    put_word(out, 59, drive->multiple ? 0x100 | drive->multiple : 0);
    put_long(out, 60, MIN(sectors, LBA28_MAX));
    put_word(out, 63, 0x07 | ((mode >> 3) == 4 ? 1 << (8 + (mode & 7)) : 0)); /* multiword DMA 0-2 */
    put_word(out, 64, 0x03);                           /* PIO 3 and 4 */
    for (unsigned word = 65; word <= 68; word++) {
        put_word(out, word, 120);                      /* ns a cycle */
    }
    put_word(out, 80, 0x00f0);                         /* ATA/ATAPI-4 to -7 */
    put_word(out, 81, 0x0016);
    put_features(out, drive);
    put_word(out, 88, 0x3f | ((mode >> 3) == 8 ? 1 << (8 + (mode & 7)) : 0)); /* Ultra DMA 0-5 */
    put_word(out, 93, 1 | 1 << 14 | 0x2000);           /* hardware reset result: 80 wires */
    store_le64(out + 200, sectors);
    put_word(out, 105, IDE_DSM_MAX_BLOCKS);
    put_word(out, 106, 0x6000);                        /* 512-byte sectors, one logical in a physical one */
    put_word(out, 169, 1);                             /* TRIM */
}
