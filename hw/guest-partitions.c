/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading partition tables: see guest-partitions.h.  GPT as in the UEFI specification, chapter 5.
 *
 * Whatever a table says is checked against the disk's size, and no table makes us read without end:
 * entries of a GPT up to 1 MiB (the usual 128 take 16 KiB), and a chain of logical partitions leads
 * upwards only.
 */
#include "hw/guest-partitions.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "core/bytes.h"
#include "core/mem.h"

#define SECTOR 512u

/* MBR */
#define MBR_ENTRIES 446u
#define MBR_ENTRY 16u
#define MBR_SIGNATURE 510u
#define MBR_TYPE_GPT 0xee
#define LOGICAL_MAX 256u /* as many as Linux takes notice of */

/* GPT */
#define GPT_HEADER_MIN 92u
#define GPT_ENTRY_MIN 128u
#define GPT_ENTRIES_MAX (1u << 20) /* bytes */

struct reader {
    struct partition_table *out;
    uint64_t disk_bytes;
    co_partition_read *co_read;
    void *arg;
    int error; /* of the last failed read */
};

static bool co_get(struct reader *r, uint64_t offset, uint32_t len, const uint8_t **data)
{
    if (len > r->disk_bytes || offset > r->disk_bytes - len) {
        return false;
    }
    int ret = r->co_read(r->arg, offset, len, data);

    r->error = ret ? ret : r->error;
    return !ret;
}

/* Returns the new partition, or NULL when it does not lie on the disk. */
static struct partition *add(struct reader *r, unsigned number, uint64_t first, uint64_t sectors)
{
    struct partition_table *t = r->out;
    uint64_t disk = r->disk_bytes / SECTOR;

    if (!sectors || sectors > disk || first > disk - sectors) {
        return NULL;
    }
    t->partitions = mem_reallocarray(t->partitions, t->count + 1, sizeof(*t->partitions));
    struct partition *p = &t->partitions[t->count++];

    *p = (struct partition){ .number = number, .offset = first * SECTOR, .len = sectors * SECTOR };
    return p;
}

/* --- MBR -------------------------------------------------------------------------------------- */

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

static bool has_signature(const uint8_t *sector)
{
    return sector[MBR_SIGNATURE] == 0x55 && sector[MBR_SIGNATURE + 1] == 0xaa;
}

/* Boot sectors of file systems carry the signature too, but code where the entries would be. */
static bool looks_like_mbr(const uint8_t *sector)
{
    bool any = false;

    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = sector + MBR_ENTRIES + i * MBR_ENTRY;

        if (e[0] & 0x7f) {
            return false; /* the active flag is 0x80 or 0 */
        }
        any = any || (e[4] && load_le32(e + 12));
    }
    return has_signature(sector) && any;
}

static void add_mbr(struct reader *r, unsigned number, const uint8_t *entry, uint64_t base)
{
    struct partition *p = add(r, number, base + load_le32(entry + 8), load_le32(entry + 12));

    if (p) {
        snprintf(p->type, sizeof(p->type), "%02x", entry[4]);
    }
}

/* Each logical partition has a sector like an MBR's: first entry the partition, second the next
 * such sector. */
static void co_read_logical(struct reader *r, uint64_t extended)
{
    uint64_t at = extended;

    for (unsigned number = 5; number < 5 + LOGICAL_MAX; number++) {
        const uint8_t *sector;

        if (!co_get(r, at * SECTOR, SECTOR, &sector) || !has_signature(sector)) {
            return;
        }
        const uint8_t *entry = sector + MBR_ENTRIES, *link = entry + MBR_ENTRY;
        uint64_t next = extended + load_le32(link + 8);

        if (entry[4]) {
            add_mbr(r, number, entry, at);
        }
        if (!is_extended(link[4]) || next <= at) {
            return;
        }
        at = next;
    }
}

static void co_read_mbr(struct reader *r, const uint8_t *sector)
{
    uint64_t extended = 0;
    uint8_t entries[4 * MBR_ENTRY];

    memcpy(entries, sector + MBR_ENTRIES, sizeof(entries));
    r->out->kind = "mbr";
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = entries + i * MBR_ENTRY;

        if (e[4]) {
            add_mbr(r, i + 1, e, 0);
            extended = is_extended(e[4]) && !extended ? load_le32(e + 8) : extended;
        }
    }
    if (extended) {
        co_read_logical(r, extended);
    }
}

/* --- GPT -------------------------------------------------------------------------------------- */

struct gpt {
    uint64_t entries; /* the first sector of them */
    uint32_t count, entry_size;
    uint32_t sum;
};

/* A mixed-endian GUID in its usual form. */
static void format_guid(const uint8_t *g, char *out, size_t room)
{
    snprintf(out, room, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", load_le32(g),
             load_le16(g + 4), load_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
             g[15]);
}

static bool parse_gpt_header(const uint8_t *sector, uint64_t lba, struct gpt *out)
{
    uint8_t header[SECTOR];
    uint32_t size = load_le32(sector + 12);

    if (memcmp(sector, "EFI PART", 8) || size < GPT_HEADER_MIN || size > SECTOR ||
        load_le64(sector + 24) != lba) {
        return false;
    }
    memcpy(header, sector, size);
    store_le32(header + 16, 0); /* the sum is made over itself as 0 */
    *out = (struct gpt){
        .entries = load_le64(sector + 72),
        .count = load_le32(sector + 80),
        .entry_size = load_le32(sector + 84),
        .sum = load_le32(sector + 88),
    };
    return crc32(0, header, size) == load_le32(sector + 16) && out->entry_size >= GPT_ENTRY_MIN &&
           out->entry_size <= PARTITION_READ_MAX &&
           (out->entry_size & (out->entry_size - 1)) == 0 &&
           (uint64_t)out->count * out->entry_size <= GPT_ENTRIES_MAX &&
           out->entries < UINT64_MAX / SECTOR;
}

static void add_gpt(struct reader *r, unsigned number, const uint8_t *e)
{
    uint64_t first = load_le64(e + 32), last = load_le64(e + 40);

    if (bytes_are_zero(e, 16) || last < first) {
        return;
    }
    struct partition *p = add(r, number, first, last - first + 1);

    if (p) {
        format_guid(e, p->type, sizeof(p->type));
    }
}

/* The header at a sector, and its entries.  False: there is no sound table. */
static bool co_read_gpt(struct reader *r, uint64_t lba)
{
    const uint8_t *data;
    struct gpt gpt;

    if (!co_get(r, lba * SECTOR, SECTOR, &data) || !parse_gpt_header(data, lba, &gpt)) {
        return false;
    }
    uint64_t total = (uint64_t)gpt.count * gpt.entry_size;
    uint32_t sum = crc32(0, NULL, 0);

    for (uint64_t at = 0; at < total; at += PARTITION_READ_MAX) {
        uint32_t used = MIN(total - at, (uint64_t)PARTITION_READ_MAX);

        if (!co_get(r, gpt.entries * SECTOR + at, ROUND_UP(used, SECTOR), &data)) {
            return false;
        }
        sum = crc32(sum, data, used);
        for (uint32_t i = 0; i < used; i += gpt.entry_size) {
            add_gpt(r, (at + i) / gpt.entry_size + 1, data + i);
        }
    }
    return sum == gpt.sum;
}

/* --- Both ------------------------------------------------------------------------------------- */

static void forget_partitions(struct partition_table *t)
{
    free(t->partitions);
    t->partitions = NULL;
    t->count = 0;
}

static void co_read_either_gpt(struct reader *r)
{
    uint64_t last = r->disk_bytes / SECTOR - 1;

    r->out->kind = "gpt";
    if (co_read_gpt(r, 1)) {
        return;
    }
    forget_partitions(r->out);
    if (!co_read_gpt(r, last)) { /* the spare one at the end */
        forget_partitions(r->out);
        r->out->kind = "none";
    }
}

int co_partition_table_read(struct partition_table *out, uint64_t disk_bytes,
                            co_partition_read *co_read, void *arg)
{
    struct reader r = { .out = out, .disk_bytes = disk_bytes, .co_read = co_read, .arg = arg };
    const uint8_t *sector;
    bool protective = false;

    *out = (struct partition_table){ .kind = "none" };
    if (disk_bytes >= SECTOR && co_get(&r, 0, SECTOR, &sector) && looks_like_mbr(sector)) {
        for (unsigned i = 0; i < 4; i++) {
            protective = protective || sector[MBR_ENTRIES + i * MBR_ENTRY + 4] == MBR_TYPE_GPT;
        }
        if (protective) {
            co_read_either_gpt(&r);
        } else {
            co_read_mbr(&r, sector);
        }
    }
    if (r.error) {
        out->kind = "unreadable";
    }
    return r.error;
}

void partition_table_free(struct partition_table *table)
{
    forget_partitions(table);
}

json_t *partition_table_describe(const struct partition_table *table)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < table->count; i++) {
        const struct partition *p = &table->partitions[i];

        json_array_append_new(array, json_pack("{s:i, s:I, s:I, s:s}", "number", (int)p->number,
                                               "start", (json_int_t)p->offset, "size",
                                               (json_int_t)p->len, "type", p->type));
    }
    return array;
}
