/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an image holds: through a chain of layers, decompressed where it must be, and in its
 * internal snapshots.  See checker.h.
 */
#include <string.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "explore/checker-image.h"

#define OFFSET 0x00fffffffffffe00u
#define COPIED (1ull << 63)
#define COMPRESSED (1ull << 62)
#define ZERO 1u
#define SECTOR 512u
#define L1_MAX (32u << 20)
#define SNAPSHOT_FIXED 40u

static void read_at(const struct checker_image *image, uint64_t offset, void *buf, size_t len)
{
    image->source.read(image->source.arg, offset, buf, len);
}

/* --- Compressed clusters ---------------------------------------------------------------------- */

static bool inflate_all(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    z_stream z = { .next_in = (uint8_t *)in, .avail_in = len, .next_out = out, .avail_out = room };

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) {
        return false;
    }
    (void)inflate(&z, Z_FINISH); /* what follows the stream is somebody else's */
    inflateEnd(&z);
    return z.avail_out == 0;
}

static bool unzstd_all(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    ZSTD_inBuffer from = { in, len, 0 };
    ZSTD_outBuffer to = { out, room, 0 };
    ZSTD_DStream *stream = ZSTD_createDStream();
    size_t ret = 1;

    while (ret && !ZSTD_isError(ret) && from.pos < from.size && to.pos < to.size) {
        ret = ZSTD_decompressStream(stream, &to, &from);
    }
    ZSTD_freeDStream(stream);
    return !ZSTD_isError(ret) && to.pos == room;
}

bool checker_decompress(const struct checker_image *im, uint64_t entry, uint8_t *out)
{
    unsigned bits = 62 - (im->cluster_bits - 8);
    uint64_t from = entry & ((1ull << bits) - 1);
    uint64_t len = ((entry & ~(COPIED | COMPRESSED)) >> bits) * SECTOR + SECTOR - from % SECTOR;
    AUTOFREE uint8_t *in = mem_alloc(len);

    read_at(im, from, in, len);
    return im->zstd ? unzstd_all(in, len, out, im->cluster)
                    : inflate_all(in, len, out, im->cluster);
}

/* --- Content ---------------------------------------------------------------------------------- */

/* What this layer says of one unit (cluster, or subcluster), and where it lies; of a compressed
 * cluster *host is the entry. */
static enum checker_kind look_up(const struct checker_image *im, uint64_t offset, uint64_t *host)
{
    uint64_t index = offset >> im->cluster_bits;
    const uint8_t *table = im->l2[index / im->l2_entries];
    const uint8_t *at;
    uint64_t entry;

    if (!table) {
        return CHECKER_NONE;
    }
    at = table + index % im->l2_entries * (im->extended ? 16 : 8);
    entry = load_be64(at);
    *host = (entry & OFFSET) + offset % im->cluster;
    if (entry & COMPRESSED) {
        *host = entry;
        return CHECKER_COMPRESSED;
    }
    if (im->extended) {
        uint64_t bitmap = load_be64(at + 8);
        unsigned sub = offset % im->cluster * 32 / im->cluster;

        return bitmap >> (32 + sub) & 1 ? CHECKER_ZERO
               : bitmap >> sub & 1      ? CHECKER_DATA
                                        : CHECKER_NONE;
    }
    if (im->version >= 3 && entry & ZERO) {
        return CHECKER_ZERO;
    }
    return entry & OFFSET ? CHECKER_DATA : CHECKER_NONE;
}

static bool read_compressed(const struct checker_image *im, uint64_t entry, uint64_t offset,
                            uint8_t *out, uint64_t len)
{
    AUTOFREE uint8_t *cluster = mem_alloc(im->cluster);

    if (!checker_decompress(im, entry, cluster)) {
        return false;
    }
    memcpy(out, cluster + offset % im->cluster, len);
    return true;
}

bool checker_read(struct checker_image *const *chain, unsigned n, uint64_t offset, void *buf,
                  size_t len)
{
    const struct checker_image *im;
    uint8_t *out = buf;

    if (!n) {
        memset(buf, 0, len);
        return true;
    }
    im = chain[0];
    while (len) {
        uint64_t unit = im->raw ? len : im->extended ? im->cluster / 32 : im->cluster;
        uint64_t piece = im->raw ? len : MIN(len, unit - offset % unit), host = offset;
        enum checker_kind kind = im->raw ? CHECKER_DATA : CHECKER_NONE;

        if (offset >= im->size) {
            memset(out, 0, len);
            return true;
        }
        if (!im->raw) {
            piece = MIN(piece, im->size - offset);
            kind = look_up(im, offset, &host);
        }
        if (kind == CHECKER_DATA) {
            read_at(im, host, out, piece);
        } else if (kind == CHECKER_ZERO) {
            memset(out, 0, piece);
        } else if (kind == CHECKER_COMPRESSED) {
            if (!read_compressed(im, host, offset, out, piece)) {
                return false;
            }
        } else if (!checker_read(chain + 1, n - 1, offset, out, piece)) {
            return false;
        }
        offset += piece;
        out += piece;
        len -= piece;
    }
    return true;
}

/* --- Internal snapshots ----------------------------------------------------------------------- */

/* An entry without the bit that may change, and what it refers to. */
static uint64_t mix_entry(const struct checker_image *im, const uint8_t *at, uint64_t sum)
{
    uint64_t entry = load_be64(at) & ~COPIED;
    uint64_t words[2] = { entry, im->extended ? load_be64(at + 8) : 0 };
    AUTOFREE uint8_t *data = mem_alloc(im->cluster);

    if (entry & COMPRESSED) {
        if (!checker_decompress(im, entry, data)) {
            return 1;
        }
        sum = XXH3_64bits_withSeed(data, im->cluster, sum);
    } else if (entry & OFFSET) {
        read_at(im, entry & OFFSET, data, im->cluster);
        sum = XXH3_64bits_withSeed(data, im->cluster, sum);
    }
    return XXH3_64bits_withSeed(words, sizeof(words), sum);
}

static uint64_t mix_table(const struct checker_image *im, uint64_t offset, uint64_t sum)
{
    AUTOFREE uint8_t *table = mem_alloc(im->cluster);
    size_t size = im->extended ? 16 : 8;

    read_at(im, offset, table, im->cluster);
    for (size_t at = 0; at < im->cluster; at += size) {
        if (!bytes_are_zero(table + at, size)) {
            sum = mix_entry(im, table + at, sum + at);
        }
    }
    return sum;
}

static uint64_t mix_snapshot(const struct checker_image *im, uint64_t l1, uint32_t entries,
                             uint64_t sum)
{
    AUTOFREE uint8_t *table = NULL;

    if ((uint64_t)entries * 8 > L1_MAX) {
        return 1;
    }
    table = mem_alloc((size_t)entries * 8 + 1);
    read_at(im, l1, table, (size_t)entries * 8);
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t offset = load_be64(table + i * 8) & OFFSET;

        sum = offset ? mix_table(im, offset, sum + i) : sum * 3 + i;
    }
    return sum;
}

/* Entry `i` of the list: its fixed part, and where its words begin. */
static bool find_entry(const struct checker_image *im, unsigned i, uint8_t *fixed, uint64_t *words)
{
    uint64_t at = im->snapshots_offset;

    for (unsigned k = 0; k < im->n_snapshots && at < im->source.size; k++) {
        uint64_t len;

        read_at(im, at, fixed, SNAPSHOT_FIXED);
        len = (uint64_t)load_be32(fixed + 36) + load_be16(fixed + 12) + load_be16(fixed + 14);
        *words = at + SNAPSHOT_FIXED;
        if (k == i) {
            return len < im->source.size;
        }
        at += ROUND_UP(SNAPSHOT_FIXED + len, 8);
    }
    return false;
}

bool checker_snapshot(struct checker_image *im, unsigned i, char *name, size_t room,
                      uint64_t *content)
{
    uint8_t fixed[SNAPSHOT_FIXED];
    uint64_t words;
    size_t len;

    if (!find_entry(im, i, fixed, &words)) {
        return false;
    }
    len = MIN((size_t)load_be16(fixed + 14), room - 1);
    read_at(im, words + load_be32(fixed + 36) + load_be16(fixed + 12), name, len);
    name[len] = '\0';
    *content = mix_snapshot(im, load_be64(fixed), load_be32(fixed + 8), 0);
    return true;
}

uint64_t checker_active(struct checker_image *im)
{
    return mix_snapshot(im, im->l1_offset, im->l1_size, 0);
}

bool checker_show_snapshot(struct checker_image *im, unsigned i)
{
    uint8_t fixed[SNAPSHOT_FIXED], size[8];
    uint64_t words;

    if (!find_entry(im, i, fixed, &words)) {
        return false;
    }
    if (load_be32(fixed + 36) >= 16) {
        read_at(im, words + 8, size, sizeof(size));
        im->size = load_be64(size);
    }
    return checker_use_table(im, load_be64(fixed), load_be32(fixed + 8));
}

bool checker_is_none(const struct checker_image *im, uint64_t offset)
{
    uint64_t host;

    return offset < im->size && !im->raw && look_up(im, offset, &host) == CHECKER_NONE;
}

bool checker_place(const struct checker_image *im, uint64_t offset, uint64_t *host)
{
    *host = offset;
    return offset < im->size && (im->raw || look_up(im, offset, host) == CHECKER_DATA);
}

bool checker_is_empty(const struct checker_image *im)
{
    uint64_t left = DIV_ROUND_UP(im->size, im->cluster) * (im->extended ? 16 : 8);

    for (uint32_t i = 0; !im->raw && i < im->l1_size && left; i++) {
        uint64_t bytes = MIN(left, im->cluster);

        if (im->l2[i] && !bytes_are_zero(im->l2[i], bytes)) {
            return false;
        }
        left -= bytes;
    }
    return !im->raw;
}
