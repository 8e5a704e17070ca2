/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2: open, close, switch between reading and writing; the driver's table.
 *
 * Opening is cheap, because chains are long: one read for the header (what lies in its first 4
 * KiB, which is nearly always all of it), one for the L1 table.  The snapshot table is read where
 * there is one.  All that only a writer needs (the reference count table, its cache, the room for
 * changes) comes with becoming writable, at open or when a job makes a layer writable, and goes
 * with it.  Caches hold nothing until something is asked of them; a layer that is only read gets a
 * small one, since the chain map remembers what it said.
 *
 *     read-only  --co_set_writable(true)-->  writable
 *                <-co_set_writable(false)--
 *
 * Becoming writable, in this order: refuse an image that is marked corrupt; clear the autoclear
 * bits, as nothing they stand for is kept up to date here (bitmaps: the extension stays and counts
 * as inconsistent from then on); repair an image that is marked dirty, whose reference counts are
 * not to be trusted.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/blockdev.h"
#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/mem.h"

#define FIRST_READ 4096u
#define PIECE_MAX 4096u              /* bytes of a table that are cached at once */

static int qcow2_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= 8 && load_be32(head) == QCOW2_MAGIC && load_be32(head + 4) >= 2 ? 100 : 0;
}

/* --- The header ------------------------------------------------------------------------------- */

static int co_read_name(struct qcow2 *q, const uint8_t *buf, size_t len, struct error *err)
{
    uint32_t name_len = q->h.backing_len;
    int ret = 0;

    if (!q->h.backing_offset || !name_len) {
        return 0;
    }
    char *name = mem_zalloc(name_len + 1);

    if (q->h.backing_offset + name_len <= len) {
        memcpy(name, buf + q->h.backing_offset, name_len);
    } else {
        ret = co_io_read(q->file, q->h.backing_offset, name, name_len);
    }
    if (ret) {
        error_set_errno(err, ret, "Could not read backing file name");
        free(name);
    } else if (!*name) {
        free(name);
    } else {
        q->node->backing_name = name;
    }
    return ret;
}

/* Have all of the first cluster. */
static int co_read_cluster(struct qcow2 *q, uint8_t **buf, size_t *len, struct error *err)
{
    *len = 1u << q->h.cluster_bits;
    uint8_t *all = mem_try_realloc(*buf, *len);
    int ret = all ? 0 : -ENOMEM;

    if (all) {
        *buf = all;
        ret = co_io_read(q->file, 0, *buf, *len);
    }

    if (ret) {
        error_set_errno(err, ret, "Could not read qcow2 header");
    }
    return ret;
}

static int co_read_exts(struct qcow2 *q, uint8_t **buf, size_t *len, struct error *err)
{
    int ret = qcow2_exts_parse(*buf, *len, &q->h, &q->exts, &q->n_exts, err);

    if (ret == -EAGAIN) {
        ret = co_read_cluster(q, buf, len, err);
        if (!ret) {
            ret = qcow2_exts_parse(*buf, *len, &q->h, &q->exts, &q->n_exts, err);
            assert(ret != -EAGAIN);
        }
    }
    if (ret) {
        return ret;
    }
    q->head_len = ROUND_UP(qcow2_exts_end(&q->h, q->exts, q->n_exts), NODE_SECTOR);
    /* A long header without extensions. */
    return q->head_len > *len ? co_read_cluster(q, buf, len, err) : 0;
}

static int co_load_header(struct qcow2 *q, uint64_t file_size, struct error *err)
{
    size_t len = FIRST_READ;
    AUTOFREE uint8_t *buf = mem_alloc(len);
    int ret = co_io_read(q->file, 0, buf, len);

    if (ret) {
        error_set_errno(err, ret, "Could not read qcow2 header");
        return ret;
    }
    ret = qcow2_header_parse(buf, len, file_size, &q->h, err);
    if (!ret) {
        ret = co_read_exts(q, &buf, &len, err);
    }
    if (!ret) {
        ret = co_read_name(q, buf, len, err);
    }
    if (ret) {
        return ret;
    }
    const struct qcow2_ext *format = qcow2_ext_find(q->exts, q->n_exts, QCOW2_EXT_BACKING_FORMAT);

    if (format && q->node->backing_name) {
        q->node->backing_format = mem_strndup((char *)format->data, format->len);
    }
    q->head = mem_dup(buf, q->head_len);
    q->dirty_bit_found = q->h.incompatible & QCOW2_INCOMPAT_DIRTY;
    return 0;
}

static void derive(struct qcow2 *q)
{
    bool extended = q->h.incompatible & QCOW2_INCOMPAT_EXTL2;

    q->cluster_size = 1u << q->h.cluster_bits;
    q->l2_entry_size = extended ? 16 : 8;
    q->l2_entries = q->cluster_size / q->l2_entry_size;
    q->subclusters = extended ? 32 : 1;
    q->subcluster_size = q->cluster_size / q->subclusters;
    q->slice_entries = MIN(q->cluster_size, PIECE_MAX) / q->l2_entry_size;
    q->refblock_entries = (uint64_t)q->cluster_size * 8 >> q->h.refcount_order;
    q->refcount_max = UINT64_MAX >> (64 - (1u << q->h.refcount_order));
}

/* --- Tables ----------------------------------------------------------------------------------- */

int co_qcow2_load_table(struct qcow2 *q, uint64_t offset, uint64_t entries, uint64_t room, uint64_t **out)
{
    uint64_t *table = mem_try_calloc(room + 1, sizeof(*table));
    int ret = table ? co_io_read(q->file, offset, table, entries * sizeof(*table)) : -ENOMEM;

    if (ret) {
        free(table);
        return ret;
    }
    for (uint64_t i = 0; i < entries; i++) {
        table[i] = load_be64(&table[i]);
    }
    *out = table;
    return 0;
}

int co_qcow2_load_reftable(struct qcow2 *q)
{
    uint32_t entries = ((uint64_t)q->h.reftable_clusters << q->h.cluster_bits) / 8;
    uint64_t *table;
    int ret;

    node_debug_event(q->node, EVENT_REFTABLE_LOAD);
    ret = co_qcow2_load_table(q, q->h.reftable_offset, entries, entries, &table);
    if (ret) {
        return ret;
    }
    free(q->reftable);
    q->reftable = table;
    q->reftable_entries = entries;
    return 0;
}

/* --- Reading and writing ---------------------------------------------------------------------- */

static int co_repair(struct qcow2 *q, struct error *err)
{
    int ret = co_qcow2_rebuild_refcounts(q, err);

    /* The flags in the L2 tables have changed on disk. */
    for (uint32_t i = 0; !ret && q->l2_cache && i < q->h.l1_size; i++) {
        if (q->l1[i] & QCOW2_L1_OFFSET_MASK) {
            qcow2_cache_forget(q->l2_cache, q->l1[i] & QCOW2_L1_OFFSET_MASK, q->cluster_size);
        }
    }
    return ret;
}

static int co_find_file_end(struct qcow2 *q, struct error *err)
{
    uint64_t bytes;
    int ret = co_io_size(q->file, &bytes);

    if (ret) {
        error_set_errno(err, ret, "Could not get the size of '%s'", q->node->filename);
        return ret;
    }
    q->file_end = DIV_ROUND_UP(bytes, q->cluster_size);
    return 0;
}

static void leave_writable(struct qcow2 *q)
{
    if (q->writable) {
        qcow2_writeback_close(q);
        qcow2_refcount_close(q);
    }
    qcow2_cache_free(q->ref_cache);
    free(q->reftable);
    free(q->l1_dirty);
    q->ref_cache = NULL;
    q->reftable = NULL;
    q->l1_dirty = NULL;
    q->reftable_entries = 0;
    q->writable = false;
}

static int co_enter_writable(struct qcow2 *q, struct error *err)
{
    int ret;

    if (q->h.incompatible & QCOW2_INCOMPAT_CORRUPT || q->node->corrupt) {
        error_set(err, "qcow2: Image is corrupt; cannot be opened read/write");
        return -EACCES;
    }
    /* What is there may be the last words of a process that died, and not be durable yet.  All that
     * we build on it from now on takes it for granted. */
    ret = co_io_flush(q->file);
    if (ret) {
        error_set_errno(err, ret, "Could not open '%s' for writing", q->node->filename);
        return ret;
    }
    ret = co_find_file_end(q, err);
    if (ret) {
        return ret;
    }
    ret = co_qcow2_load_reftable(q);
    if (ret) {
        error_set_errno(err, ret, "Could not initialize refcount handling");
        return ret;
    }
    if (q->h.autoclear) {
        uint64_t before = q->h.autoclear;

        q->h.autoclear = 0;
        ret = co_qcow2_write_header_sector(q);
        if (ret) {
            q->h.autoclear = before; /* for the next try */
            error_set_errno(err, ret, "Could not update qcow2 header");
        }
    }
    if (!ret && (q->h.incompatible & QCOW2_INCOMPAT_DIRTY)) {
        ret = co_repair(q, err);
    }
    if (!ret) {
        q->ref_cache = qcow2_cache_new(q, MIN(q->cluster_size, PIECE_MAX), qcow2_refcount_budget(q));
        if (!q->refcount_budget) {
            qcow2_cache_share(q->ref_cache);
        }
        q->l1_dirty = mem_zalloc(q->h.l1_size / 64 / 8 + 1);
        q->free_hint = 0;
        qcow2_writeback_init(q);
        q->writable = true;
    } else {
        leave_writable(q);
    }
    return ret;
}

static int co_qcow2_set_writable(struct node *node, bool writable, struct error *err)
{
    struct qcow2 *q = node->state;
    int ret;

    if (writable == q->writable) {
        return 0;
    }
    if (writable) {
        ret = co_enter_writable(q, err);
        if (!ret) {
            qcow2_cache_set_budget(q->l2_cache, qcow2_l2_budget(q, true));
        }
        return ret;
    }
    ret = co_qcow2_writeback_all(q); /* waits for one in the background, too */
    if (ret && !node->corrupt) {
        error_set_errno(err, ret, "Could not write back the tables of '%s'", node->filename);
        return ret;
    }
    leave_writable(q);
    qcow2_cache_set_budget(q->l2_cache, qcow2_l2_budget(q, false));
    return 0;
}

/* --- Open and close --------------------------------------------------------------------------- */

static int co_load(struct qcow2 *q, struct error *err)
{
    struct node *node = q->node;
    uint64_t file_size;
    int ret = qcow2_take_options(q, err);

    if (ret) {
        return ret;
    }
    q->file = node_as_file(node->file);
    ret = co_io_size(q->file, &file_size);
    if (ret) {
        error_set_errno(err, ret, "Could not get image size");
        return ret;
    }
    ret = co_load_header(q, file_size, err);
    if (ret) {
        return ret;
    }
    derive(q);
    ret = qcow2_check_options(q, err);
    if (ret) {
        return ret;
    }
    ret = co_qcow2_snapshots_load(q, file_size, err);
    if (ret) {
        return ret;
    }
    ret = co_qcow2_load_table(q, q->h.l1_offset, q->h.l1_size, q->h.l1_size, &q->l1);
    if (ret) {
        error_set_errno(err, ret, "Could not read L1 table");
        return ret;
    }
    if (!node->read_only) {
        ret = co_enter_writable(q, err);
        if (ret) {
            return ret;
        }
    }
    q->l2_cache = qcow2_cache_new(q, q->slice_entries * q->l2_entry_size,
                                  qcow2_l2_budget(q, q->writable));
    if (!q->l2_budget) {
        qcow2_cache_share(q->l2_cache);
    }
    node->size = ROUND_DOWN(q->h.size, NODE_SECTOR);
    node->cluster_size = q->subcluster_size;
    return 0;
}

static void free_all(struct qcow2 *q)
{
    leave_writable(q);
    qcow2_cache_free(q->l2_cache);
    qcow2_snapshots_free(q->snapshots, q->h.nb_snapshots);
    qcow2_exts_free(q->exts, q->n_exts);
    free(q->head);
    free(q->l1);
    free(q);
}

static int co_qcow2_open(struct node *node, struct error *err)
{
    struct qcow2 *q = mem_zalloc(sizeof(*q));
    int ret;

    q->node = node;
    node->state = q;
    co_mutex_init(&q->lock);
    co_mutex_init(&q->writeback_lock);
    co_mutex_init(&q->header_lock);
    ret = co_load(q, err);
    if (ret) {
        free_all(q);
        node->state = NULL;
    }
    return ret;
}

static void co_qcow2_close(struct node *node)
{
    struct qcow2 *q = node->state;

    if (q->writable) {
        /* Nobody is left who could be told of a failure; what was promised by a flush is on disk
         * already.  Waits for one in the background, too; writes nothing to a corrupt image. */
        (void)co_qcow2_writeback_all(q);
    }
    free_all(q);
    node->state = NULL;
}

/* --- The table -------------------------------------------------------------------------------- */

static struct io_file *qcow2_host_file(struct node *node)
{
    return ((struct qcow2 *)node->state)->file;
}

static json_t *qcow2_describe(struct node *node)
{
    const struct qcow2 *q = node->state;
    const char *compression = q->h.compression_type ? "zstd" : "zlib";
    int bits = 1 << q->h.refcount_order;

    if (q->h.version < 3) {
        return json_pack("{s:s, s:{s:s, s:s, s:i}}", "type", "qcow2", "data", "compat", "0.10",
                         "compression-type", compression, "refcount-bits", bits);
    }
    return json_pack("{s:s, s:{s:s, s:s, s:b, s:i, s:b, s:b}}", "type", "qcow2", "data",
                     "compat", "1.1", "compression-type", compression,
                     "lazy-refcounts", (int)!!(q->h.compatible & QCOW2_COMPAT_LAZY),
                     "refcount-bits", bits,
                     "corrupt", (int)!!(q->h.incompatible & QCOW2_INCOMPAT_CORRUPT),
                     "extended-l2", (int)!!(q->h.incompatible & QCOW2_INCOMPAT_EXTL2));
}

static const char *const overlap_checks[] = { "none", "constant", "cached", "all", NULL };
static const struct block_key overlap_members[] = {
    { .name = "template", .kind = KEY_ENUM, .choices = overlap_checks, .help = "what the others begin with" },
    { .name = "main-header", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "active-l1", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "active-l2", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "refcount-table", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "refcount-block", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "snapshot-table", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "inactive-l1", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "inactive-l2", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "bitmap-directory", .kind = KEY_BOOL, .help = "without effect" },
    { 0 },
};
static const struct block_key qcow2_keys[] = {
    BLOCK_KEY_FILE,
    { .name = "backing", .kind = KEY_NODE_OR_NULL, .help = "what lies under the image, instead of what it records" },
    { .name = "lazy-refcounts", .kind = KEY_BOOL, .help = "a permission that is not used: counts are always exact" },
    { .name = "cache-size", .kind = KEY_INT, .help = "bytes of tables kept in memory" },
    { .name = "l2-cache-size", .kind = KEY_INT, .help = "bytes of L2 tables kept in memory" },
    { .name = "refcount-cache-size", .kind = KEY_INT, .help = "bytes of refcount blocks kept in memory" },
    { .name = "l2-cache-entry-size", .kind = KEY_INT, .help = "without effect" },
    { .name = "cache-clean-interval", .kind = KEY_INT, .help = "without effect" },
    { .name = "pass-discard-request", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "pass-discard-snapshot", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "pass-discard-other", .kind = KEY_BOOL, .help = "without effect" },
    { .name = "overlap-check", .kind = KEY_ENUM, .choices = overlap_checks, .members = overlap_members,
      .help = "without effect: all is always checked" },
    { 0 },
};

static const char *const versions[] = { "v2", "v3", NULL };
static const char *const preallocations[] = { "off", "metadata", "falloc", "full", NULL };
static const char *const compressions[] = { "zlib", "zstd", NULL };
static const char *const formats[] = {
    "blkdebug", "copy-on-read", "file", "null-aio", "null-co", "qcow2", "raw", "throttle", NULL,
};
static const struct block_key qcow2_create_keys[] = {
    BLOCK_KEY_FILE,
    { .name = "extended-l2", .kind = KEY_BOOL, .help = "32 subclusters in each cluster" },
    { .name = "size", .kind = KEY_UINT64, .required = true, .help = "bytes that a guest sees" },
    { .name = "version", .kind = KEY_ENUM, .choices = versions, .help = "of the format, v3 unless given" },
    { .name = "backing-file", .kind = KEY_STRING, .help = "the image below, as it is to be recorded" },
    { .name = "backing-fmt", .kind = KEY_ENUM, .choices = formats, .help = "its format" },
    { .name = "cluster-size", .kind = KEY_UINT64, .help = "bytes, a power of two" },
    { .name = "preallocation", .kind = KEY_ENUM, .choices = preallocations, .help = "what is allocated at once" },
    { .name = "lazy-refcounts", .kind = KEY_BOOL, .help = "permission to let counts lag behind" },
    { .name = "refcount-bits", .kind = KEY_INT, .help = "width of a count" },
    { .name = "compression-type", .kind = KEY_ENUM, .choices = compressions, .help = "of compressed clusters" },
    { 0 },
};

const struct driver driver_qcow2 = {
    .name = "qcow2",
    .create_keys = qcow2_create_keys,
    .keys = qcow2_keys,
    .own_reopen = true,
    .is_format = true,
    .supports_backing = true,
    .probe = qcow2_probe,
    .co_open = co_qcow2_open,
    .co_close = co_qcow2_close,
    .co_set_writable = co_qcow2_set_writable,
    .co_read = co_qcow2_read,
    .co_write = co_qcow2_write,
    .co_zero = co_qcow2_zero,
    .co_discard = co_qcow2_discard,
    .co_empty = co_qcow2_empty,
    .co_flush = co_qcow2_flush,
    .co_copy_in = co_qcow2_copy_in,
    .co_expect = co_qcow2_expect,
    .co_map = co_qcow2_map,
    .host_file = qcow2_host_file,
    .co_set_backing = co_qcow2_set_backing,
    .check_backing = qcow2_check_backing,
    .co_truncate = co_qcow2_truncate,
    .describe = qcow2_describe,
    .co_create = co_qcow2_create,
};
