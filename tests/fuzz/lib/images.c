/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Valid images: see images.h.
 */
#include "tests/fuzz/lib/images.h"

#include <string.h>
#include <zlib.h>

#include "block/qcow2-check.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/keyval.h"
#include "tests/fuzz/lib/fuzz.h"

const struct fuzz_image fuzz_images[] = {
    { "/small", NULL, 512, 40 << 10, "cluster_size=512", false, false },
    { "/v2", "/small", 512, 40 << 10, "cluster_size=512,compat=0.10,backing_fmt=qcow2", false, false },
    { "/kept", NULL, 512, 36 << 10, "cluster_size=512,lazy_refcounts=on", true, false },
    { "/wide", "/raw", 1024, 128 << 10, "cluster_size=1024,refcount_bits=64,backing_fmt=raw", false, false },
    { "/bits", "/kept", 1024, 40 << 10, "cluster_size=1024,refcount_bits=1,backing_fmt=qcow2", false, false },
    { "/zlib", NULL, 4096, 96 << 10, "cluster_size=4096", false, true },
    { "/both", "/zlib", 4096, 96 << 10, "cluster_size=4096,refcount_bits=4,backing_fmt=qcow2", true, true },
    { "/extended", "/raw", 16384, 256 << 10, "cluster_size=16384,extended_l2=on,backing_fmt=raw", false, false },
    { "/usual", "/extended", 65536, 320 << 10, "cluster_size=65536,backing_fmt=qcow2", false, false },
};
const unsigned fuzz_n_images = ARRAY_SIZE(fuzz_images);

#define RAW_BYTES (60u << 10) /* shorter than the disks above it */

static uint64_t peek(const char *path, uint64_t offset)
{
    uint8_t bytes[8];

    io_sim_read(path, offset, bytes, 8);
    return load_be64(bytes);
}

static void poke(const char *path, uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    io_sim_write(path, offset, bytes, 8);
}

/* --- By hand -------------------------------------------------------------------------------------- */

static struct node *co_open(const char *path, bool writable)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b}", "driver", "qcow2", "read-only", (int)!writable);
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    FUZZ_CHECK(node, "%s: %s", path, err.text);
    return node;
}

/* The last cluster of the file and more become this; counts follow by a repair. */
static uint64_t append(const struct fuzz_image *image, const void *data, size_t len)
{
    uint64_t end;

    io_sim_size(image->path, &end);
    end = ROUND_UP(end, (uint64_t)image->cluster);
    io_sim_write(image->path, end, data, len);
    uint8_t zero = 0;

    io_sim_write(image->path, ROUND_UP(end + len, (uint64_t)image->cluster) - 1, &zero, 1);
    return end;
}

static void add_compressed(const struct fuzz_image *image)
{
    AUTOFREE uint8_t *plain = mem_alloc(image->cluster);
    uint8_t packed[1024];
    z_stream z = { .next_in = plain, .avail_in = image->cluster, .next_out = packed, .avail_out = sizeof(packed) };

    for (uint32_t i = 0; i < image->cluster; i++) {
        plain[i] = i / 100;
    }
    deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
    deflate(&z, Z_FINISH);
    deflateEnd(&z);
    uint64_t at = append(image, packed, sizeof(packed));
    uint64_t l2 = peek(image->path, peek(image->path, 40)) & QCOW2_L2_OFFSET_MASK;
    unsigned shift = 62 - (__builtin_ctz(image->cluster) - 8);

    /* Two clusters of the disk in one of the file. */
    for (unsigned i = 0; i < 2; i++) {
        poke(image->path, l2 + (image->disk / image->cluster - 1 - i) * 8, QCOW2_COMPRESSED | 1ull << shift | at);
    }
}

static void add_snapshot(const struct fuzz_image *image)
{
    uint32_t entries = peek(image->path, 32) & UINT32_MAX;
    AUTOFREE uint8_t *l1 = mem_alloc(entries * 8);
    uint8_t table[QCOW2_SNAPSHOT_ENTRY + 16 + 8] = { 0 };

    io_sim_read(image->path, peek(image->path, 40), l1, entries * 8);
    store_be64(table, append(image, l1, entries * 8));
    store_be32(table + 8, entries);
    store_be16(table + 12, 1);
    store_be16(table + 14, 4);
    store_be32(table + 36, 16);
    store_be64(table + 48, image->disk);
    memcpy(table + 56, "1kept", 5);
    uint64_t at = append(image, table, 61);
    uint8_t words[12];

    store_be32(words, 1);
    store_be64(words + 4, at);
    io_sim_write(image->path, 60, words, sizeof(words));
}

/* --- With our own code ------------------------------------------------------------------------------ */

static void co_make(const struct fuzz_image *image)
{
    json_t *options = keyval_parse(image->options, NULL, NULL);
    struct error err = ERROR_INIT;

    json_object_set_new(options, "size", json_integer(image->disk));
    if (image->below) {
        json_object_set_new(options, "backing_file", json_string(image->below));
    }
    FUZZ_CHECK(driver_qcow2.co_create(image->path, options, &err) == 0, "%s: %s", image->path, err.text);
    json_decref(options);
}

/* Of five clusters: data, a part, zeroes, nothing, data. */
static void co_fill(const struct fuzz_image *image)
{
    AUTOFREE uint8_t *buf = mem_alloc(image->cluster);
    struct node *node = co_open(image->path, true);

    for (uint64_t at = 0; at < image->disk; at += image->cluster) {
        uint64_t len = MIN(image->disk - at, (uint64_t)image->cluster);
        unsigned fate = at / image->cluster % 5;

        for (uint32_t i = 0; i < len; i += 4) {
            store_le32(buf + i, (at + i) * 2654435761u + (image - fuzz_images));
        }
        if (fate == 2) {
            co_node_zero(node, at, len, 0);
        } else if (fate != 3) {
            co_node_write_buf(node, at, buf, fate == 1 ? 512 : len);
        }
    }
    co_node_unref(node);
}

static void co_repair(const struct fuzz_image *image)
{
    struct qcow2_report report = { 0 };
    struct error err = ERROR_INIT;

    for (unsigned fix = 0; fix < 2; fix++) {
        struct node *node = co_open(image->path, false);

        FUZZ_CHECK(co_qcow2_report(node, fix ? 0 : QCOW2_FIX_ERRORS | QCOW2_FIX_LEAKS, &report, &err) == 0,
                   "%s: %s", image->path, err.text);
        co_node_unref(node);
        FUZZ_CHECK(!report.corruptions && !report.leaks, "%s is not valid", image->path);
    }
}

static CO_ENTRY void co_make_all(void *arg)
{
    AUTOFREE uint8_t *raw = mem_alloc(RAW_BYTES);

    memset(raw, 'r', RAW_BYTES);
    io_sim_create("/raw", RAW_BYTES);
    io_sim_write("/raw", 0, raw, RAW_BYTES);
    for (unsigned i = 0; i < fuzz_n_images; i++) {
        const struct fuzz_image *image = &fuzz_images[i];

        co_make(image);
        co_fill(image);
        if (image->compressed) {
            add_compressed(image);
        }
        if (image->snapshot) {
            add_snapshot(image);
        }
        co_repair(image);
    }
}

void fuzz_make_images(void)
{
    loop_run_co(co_make_all, NULL);
}
