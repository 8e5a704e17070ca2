/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent bitmaps: counted by the check, and described.  Nothing here keeps them up to date: whoever writes the image
 * says so by clearing their bit in the header (qcow2-open.c).
 *
 *     header extension -> directory: an entry a bitmap, of its own length -> table of the bitmap -> its clusters
 *
 * Specification: docs/interop/qcow2.txt of QEMU, "Bitmaps".
 */
#include <errno.h>
#include <inttypes.h>

#include "block/qcow2-check.h"
#include "core/bytes.h"
#include "core/mem.h"

#define MAX_DIRECTORY (64u << 20)
#define MAX_TABLE (32u << 20)
#define ENTRY_BYTES 24u /* fixed part of an entry of the directory */
#define BITMAP_IN_USE 1u /* flags of an entry */
#define BITMAP_AUTO 2u

/* --- Counting ----------------------------------------------------------------------------------------------------- */

static int co_walk_bitmap(struct qcow2_check *c, uint64_t table, uint32_t entries,
                          struct error *err)
{
    uint64_t len = (uint64_t)entries * 8;
    int ret = 0;

    if (len > MAX_TABLE || table % c->q->cluster_size) {
        error_set(err, "a bitmap's table at offset %#" PRIx64 " is not sound", table);
        return -EINVAL;
    }
    ret = qcow2_check_add(c, table, len, "a bitmap's table", err);
    for (uint64_t at = 0; !ret && at < len; at += c->q->cluster_size) {
        size_t part = MIN(len - at, c->q->cluster_size);

        ret = co_qcow2_check_read(c, table + at, c->buf, part, "bitmap table", err);
        for (size_t i = 0; !ret && i < part; i += 8) {
            uint64_t offset = load_be64(c->buf + i) & QCOW2_L2_OFFSET_MASK;

            if (offset) {
                ret = qcow2_check_add_cluster(c, offset, "a part of a bitmap", err);
            }
        }
    }
    return ret;
}

static int co_walk_directory(struct qcow2_check *c, const uint8_t *dir, uint64_t len,
                             struct error *err)
{
    uint64_t at = 0;
    int ret = 0;

    while (!ret && at + ENTRY_BYTES <= len) {
        const uint8_t *entry = dir + at;

        ret = co_walk_bitmap(c, load_be64(entry), load_be32(entry + 8), err);
        at += ROUND_UP(ENTRY_BYTES + (uint64_t)load_be16(entry + 18) + load_be32(entry + 20), 8);
    }
    return ret;
}

int co_qcow2_check_bitmaps(struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    const struct qcow2_ext *ext = qcow2_ext_find(q->exts, q->n_exts, QCOW2_EXT_BITMAPS);

    if (!ext || !(q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        return 0; /* nothing there is valid: what it refers to is free */
    }
    uint64_t len = load_be64(ext->data + 8), offset = load_be64(ext->data + 16);

    if (len > MAX_DIRECTORY || offset % q->cluster_size) {
        error_set(err, "the bitmap directory at offset %#" PRIx64 " is not sound", offset);
        return -EINVAL;
    }
    int ret = qcow2_check_add(c, offset, len, "the bitmap directory", err);

    if (ret) {
        return ret;
    }
    AUTOFREE uint8_t *dir = mem_try_alloc(len + 1);

    if (!dir) {
        error_set_errno(err, ENOMEM, "Could not check the bitmap directory");
        return -ENOMEM;
    }
    ret = co_qcow2_check_read(c, offset, dir, len, "bitmap directory", err);
    return ret ? ret : co_walk_directory(c, dir, len, err);
}

/* --- Describing ---------------------------------------------------------------------------------------------------- */

/* NULL: the entry does not fit into what is left of the directory. */
static json_t *describe_bitmap(const uint8_t *entry, uint64_t left, uint64_t *len)
{
    uint32_t flags = load_be32(entry + 12), extra = load_be32(entry + 20);
    uint16_t name_len = load_be16(entry + 18);
    json_t *names = json_array();

    *len = ROUND_UP(ENTRY_BYTES + (uint64_t)name_len + extra, 8);
    if (*len > left || entry[17] > 63) {
        json_decref(names);
        return NULL;
    }
    if (flags & BITMAP_IN_USE) {
        json_array_append_new(names, json_string("in-use"));
    }
    if (flags & BITMAP_AUTO) {
        json_array_append_new(names, json_string("auto"));
    }
    return json_pack("{s:o, s:o, s:I}", "flags", names, "name",
                     json_stringn_nocheck((const char *)entry + ENTRY_BYTES + extra, name_len), "granularity",
                     (json_int_t)(1ull << entry[17]));
}

json_t *co_qcow2_bitmap_trees(struct node *node)
{
    struct qcow2 *q = node->state;
    const struct qcow2_ext *ext = qcow2_ext_find(q->exts, q->n_exts, QCOW2_EXT_BITMAPS);
    uint64_t len = ext ? load_be64(ext->data + 8) : 0, step;
    AUTOFREE uint8_t *dir = len && len <= MAX_DIRECTORY ? mem_try_alloc(len) : NULL;
    json_t *list, *one;

    if (!dir || !(q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS) || co_io_read(q->file, load_be64(ext->data + 16), dir, len) < 0) {
        return NULL;
    }
    list = json_array();
    for (uint64_t at = 0; at + ENTRY_BYTES <= len; at += step) {
        one = describe_bitmap(dir + at, len - at, &step);
        if (!one) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, one);
    }
    return list;
}
