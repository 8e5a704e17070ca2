/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Editing images by hand: see scene.h.
 */
#include "explore/scene.h"

#include <assert.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "core/bytes.h"
#include "core/io-sim.h"
#include "core/mem.h"

#define OFFSET 0x00fffffffffffe00u
#define COPIED (1ull << 63)
#define COMPRESSED (1ull << 62)
#define SECTOR 512u
#define ZLIB_WINDOW (-12) /* raw, as the format wants it */
#define SNAPSHOT_EXTRA 16u

struct scene {
    const char *path;
    uint8_t head[112];
    unsigned version, cluster_bits, refcount_order;
    uint64_t cluster, l1, reftable;
    uint32_t l1_size;
    unsigned entry_size;
};

static uint64_t get64(const struct scene *s, uint64_t at)
{
    uint8_t bytes[8];

    io_sim_read(s->path, at, bytes, sizeof(bytes));
    return load_be64(bytes);
}

static void put64(const struct scene *s, uint64_t at, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    io_sim_write(s->path, at, bytes, sizeof(bytes));
}

static void put32(const struct scene *s, uint64_t at, uint32_t value)
{
    uint8_t bytes[4];

    store_be32(bytes, value);
    io_sim_write(s->path, at, bytes, sizeof(bytes));
}

static struct scene look_at(const char *path)
{
    struct scene s = { .path = path };

    io_sim_read(path, 0, s.head, sizeof(s.head));
    s.version = load_be32(s.head + 4);
    s.cluster_bits = load_be32(s.head + 20);
    s.cluster = 1ull << s.cluster_bits;
    s.l1_size = load_be32(s.head + 36);
    s.l1 = load_be64(s.head + 40);
    s.reftable = load_be64(s.head + 48);
    s.refcount_order = s.version == 2 ? 4 : load_be32(s.head + 96);
    s.entry_size = s.version == 3 && s.head[79] & 16 ? 16 : 8;
    return s;
}

/* --- Counts ----------------------------------------------------------------------------------- */

/* The bytes that hold the count of a host cluster (whole bytes); 0: there is no block for it. */
static uint64_t count_at(const struct scene *s, uint64_t index)
{
    uint64_t per_block = s->cluster * 8 >> s->refcount_order;
    uint64_t block = get64(s, s->reftable + index / per_block * 8);

    assert(s->refcount_order >= 3 && index / per_block < s->cluster / 8);
    return block ? block + (index % per_block << s->refcount_order) / 8 : 0;
}

static void add_count(const struct scene *s, uint64_t index, int by)
{
    uint64_t at = count_at(s, index);
    unsigned len = 1u << (s->refcount_order - 3);
    uint8_t bytes[8] = { 0 };

    assert(at);
    io_sim_read(s->path, at, bytes + 8 - len, len);
    store_be64(bytes, load_be64(bytes) + by);
    io_sim_write(s->path, at, bytes + 8 - len, len);
}

/* Clusters of zeroes at the end of the file, not counted. */
static uint64_t extend(const struct scene *s, uint64_t n)
{
    static const uint8_t zero;
    uint64_t size;

    io_sim_size(s->path, &size);
    size = ROUND_UP(size, s->cluster);
    io_sim_write(s->path, size + n * s->cluster - 1, &zero, 1);
    return size;
}

static uint64_t take_clusters(const struct scene *s, uint64_t n)
{
    uint64_t at = extend(s, n), per_block = s->cluster * 8 >> s->refcount_order;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t index = (at >> s->cluster_bits) + i;

        if (!count_at(s, index)) {
            uint64_t block = extend(s, 1);

            put64(s, s->reftable + index / per_block * 8, block);
            add_count(s, block >> s->cluster_bits, 1);
        }
        add_count(s, index, 1);
    }
    return at;
}

/* --- Tables ----------------------------------------------------------------------------------- */

/* Where the entry of a guest offset is; 0: there is no L2 table. */
static uint64_t entry_at(const struct scene *s, uint64_t offset)
{
    uint64_t entries = s->cluster / s->entry_size, index = offset >> s->cluster_bits;
    uint64_t table = get64(s, s->l1 + index / entries * 8) & OFFSET;

    assert(index / entries < s->l1_size);
    return table ? table + index % entries * s->entry_size : 0;
}

bool scene_is_free(const char *path, uint64_t offset)
{
    struct scene s = look_at(path);
    uint64_t at = entry_at(&s, offset);

    return !at || (!get64(&s, at) && (s.entry_size == 8 || !get64(&s, at + 8)));
}

static size_t squeeze_zlib(const uint8_t *data, size_t len, uint8_t *out)
{
    z_stream z = { .next_in = (uint8_t *)data, .avail_in = len, .next_out = out,
                   .avail_out = len };
    int ret = deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, ZLIB_WINDOW, 9, Z_DEFAULT_STRATEGY);

    assert(ret == Z_OK);
    ret = deflate(&z, Z_FINISH);
    assert(ret == Z_STREAM_END); /* patterns are regular */
    deflateEnd(&z);
    return len - z.avail_out;
}

static size_t squeeze(const struct scene *s, const uint8_t *data, uint8_t *out)
{
    bool zstd = s->version == 3 && s->head[79] & 8 && s->head[104] == 1;
    size_t len;

    if (!zstd) {
        return squeeze_zlib(data, s->cluster, out);
    }
    len = ZSTD_compress(out, s->cluster, data, s->cluster, 1);
    assert(!ZSTD_isError(len));
    return len;
}

void scene_compress(const char *path, uint64_t offset, const uint8_t *data, uint64_t *end)
{
    struct scene s = look_at(path);
    AUTOFREE uint8_t *out = mem_alloc(s.cluster);
    size_t len = squeeze(&s, data, out);
    uint64_t entries = s.cluster / s.entry_size, place = *end, sectors;

    if (!entry_at(&s, offset)) {
        put64(&s, s.l1 + (offset >> s.cluster_bits) / entries * 8, take_clusters(&s, 1) | COPIED);
    }
    if (place % s.cluster == 0 || place % s.cluster + len > s.cluster) {
        place = take_clusters(&s, 1);
    } else {
        add_count(&s, place >> s.cluster_bits, 1);
    }
    io_sim_write(path, place, out, len);
    *end = place + len;
    sectors = (place + len - 1) / SECTOR - place / SECTOR;
    put64(&s, entry_at(&s, offset), COMPRESSED | sectors << (62 - (s.cluster_bits - 8)) | place);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

/* What this entry refers to has one user more. */
static void share_entry(const struct scene *s, uint64_t at)
{
    uint64_t entry = get64(s, at);

    if (entry & COMPRESSED) {
        unsigned bits = 62 - (s->cluster_bits - 8);
        uint64_t from = entry & ((1ull << bits) - 1);
        uint64_t sectors = (entry & ~(COPIED | COMPRESSED)) >> bits;
        uint64_t last = from - from % SECTOR + sectors * SECTOR + SECTOR - 1;

        for (uint64_t i = from >> s->cluster_bits; i <= last >> s->cluster_bits; i++) {
            add_count(s, i, 1);
        }
    } else if (entry & OFFSET) {
        add_count(s, (entry & OFFSET) >> s->cluster_bits, 1);
        put64(s, at, entry & ~COPIED);
    }
}

static void share_tables(const struct scene *s)
{
    for (uint32_t i = 0; i < s->l1_size; i++) {
        uint64_t at = s->l1 + i * 8, table = get64(s, at) & OFFSET;

        if (table) {
            for (uint64_t k = 0; k < s->cluster; k += s->entry_size) {
                share_entry(s, table + k);
            }
            add_count(s, table >> s->cluster_bits, 1);
            put64(s, at, table);
        }
    }
}

void scene_snapshot(const char *path)
{
    static const char id[] = "1", name[] = "inner";
    struct scene s = look_at(path);
    uint64_t bytes = (uint64_t)s.l1_size * 8;
    AUTOFREE uint8_t *l1 = mem_alloc(bytes + 1);
    uint8_t entry[40 + SNAPSHOT_EXTRA + 8] = { 0 };
    uint64_t l1_at = take_clusters(&s, DIV_ROUND_UP(bytes, s.cluster)), at;

    share_tables(&s);
    io_sim_read(path, s.l1, l1, bytes);
    io_sim_write(path, l1_at, l1, bytes);
    store_be64(entry, l1_at);
    store_be32(entry + 8, s.l1_size);
    store_be16(entry + 12, strlen(id));
    store_be16(entry + 14, strlen(name));
    store_be32(entry + 36, SNAPSHOT_EXTRA);
    store_be64(entry + 48, load_be64(s.head + 24)); /* the disk's size; its memory's is 0 */
    memcpy(entry + 40 + SNAPSHOT_EXTRA, id, strlen(id));
    memcpy(entry + 40 + SNAPSHOT_EXTRA + strlen(id), name, strlen(name));
    at = take_clusters(&s, 1);
    io_sim_write(path, at, entry, sizeof(entry));
    put32(&s, 60, 1);
    put64(&s, 64, at);
}

void scene_leak(const char *path)
{
    struct scene s = look_at(path);

    (void)take_clusters(&s, 1);
}

/* --- Dirty ------------------------------------------------------------------------------------ */

void scene_dirty(const char *path)
{
    struct scene s = look_at(path);
    uint64_t size, zeroes = 0;

    io_sim_size(path, &size);
    for (uint64_t i = DIV_ROUND_UP(size, s.cluster) / 2; i < DIV_ROUND_UP(size, s.cluster); i++) {
        io_sim_write(path, count_at(&s, i), &zeroes, 1u << (s.refcount_order - 3));
    }
    put64(&s, 72, load_be64(s.head + 72) | 1);
}
