/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making new qcow2 images.
 *
 * The order, so that a crash leaves either the new image, whole, or something that nobody takes
 * for an image:
 *
 *     options      all are checked and the header is built before the file is touched
 *     empty it     the file is cut to nothing (its locks held), durably: an image that was there
 *                  is gone before the first byte of the new one could mix with it
 *     body         tables, preallocated clusters, and the header's bytes behind its first sector
 *     flush
 *     sector 0     the magic number, and every pointer to what is durable by now
 *     flush        file and directory
 *
 * Writing at the final place instead of renaming a finished file keeps the inode, which carries
 * the locks, and works on block devices.  When anything fails, a file that we made is removed
 * again.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "block/qcow2-layout.h"
#include "block/qcow2.h"
#include "core/keyval.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "core/size.h"

#define SECTOR NODE_SECTOR

struct creation {
    uint64_t size;
    uint64_t cluster_size;
    unsigned version;
    uint64_t refcount_bits;
    bool lazy_refcounts, extended_l2, zstd;
    enum qcow2_preallocation preallocation;
    const char *backing_file, *backing_fmt; /* borrowed from the options, or NULL */

    struct qcow2_layout layout;
    uint8_t *head;               /* the header, its extensions and the name: whole sectors */
    size_t head_len;
};

/* --- Options ---------------------------------------------------------------------------------- */

static int bad_value(struct error *err, const char *param, const char *value)
{
    error_set(err, "Parameter '%s' does not accept value '%s'", param, value);
    return -EINVAL;
}

static int take_size(json_t *options, const char *key, uint64_t *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);
    int ret = -EINVAL;

    if (!value) {
        return 0;
    }
    if (text) {
        ret = size_parse(text, 1, out, NULL);
    } else if (json_typeof(value) == JSON_INTEGER && json_integer_value(value) >= 0) {
        *out = json_integer_value(value);
        ret = 0;
    }
    if (ret == -ERANGE) {
        error_set(err, "Value '%s' is out of range for parameter '%s'", text, key);
    } else if (ret) {
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", key);
        error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                        "peta-\nand exabytes, respectively.");
    }
    return ret;
}

static int take_bool(json_t *options, const char *key, bool *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);

    if (!value) {
        return 0;
    }
    if (json_typeof(value) == JSON_TRUE || json_typeof(value) == JSON_FALSE) {
        *out = json_typeof(value) == JSON_TRUE;
        return 0;
    }
    if (text && keyval_switch(text, out) == 0) {
        return 0;
    }
    error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
    return -EINVAL;
}

/* A plain number, without a suffix. */
static int take_number(json_t *options, const char *key, uint64_t *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);
    char *end = NULL;

    if (!value) {
        return 0;
    }
    if (json_typeof(value) == JSON_INTEGER) {
        *out = json_integer_value(value);
        return 0;
    }
    errno = 0;
    *out = text ? strtoull(text, &end, 0) : 0;
    if (!text || end == text || *end || errno) {
        error_set(err, "Parameter '%s' expects a number", key);
        return -EINVAL;
    }
    return 0;
}

/* Which of `words` (NULL-terminated)?  `param` is the name that messages use. */
static int take_word(json_t *options, const char *key, const char *param, const char *const *words,
                     unsigned *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);

    if (!value) {
        return 0;
    }
    for (unsigned i = 0; text && words[i]; i++) {
        if (!strcmp(text, words[i])) {
            *out = i;
            return 0;
        }
    }
    return bad_value(err, param, text ? text : "");
}

/* What QEMU knows and we do not do: refused in words, unless it asks for nothing. */
static int refuse_unsupported(json_t *options, struct error *err)
{
    static const char *const known[] = {
        "size",           "backing_file", "backing_fmt",   "cluster_size", "compat",
        "lazy_refcounts", "refcount_bits", "extended_l2", "compression_type",
        "preallocation",  "encryption",   "data_file_raw", "nocow", "extent_size_hint",
    };
    bool encryption = false, raw = false, nocow; /* wishes to the host's file system, which may not hear them */
    const char *key;
    json_t *value;

    if (take_bool(options, "encryption", &encryption, err) ||
        take_bool(options, "data_file_raw", &raw, err) ||
        take_bool(options, "nocow", &nocow, err)) {
        return -EINVAL;
    }
    if (encryption) {
        error_set(err, "Encrypted images are not supported");
        return -ENOTSUP;
    }
    if (raw && !json_object_get(options, "data_file")) {
        error_set(err, "data-file-raw requires data-file");
        return -EINVAL;
    }
    json_object_foreach(options, key, value) {
        bool found = false;

        for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
            found = found || !strcmp(key, known[i]);
        }
        if (!strncmp(key, "encrypt.", 8)) {
            error_set(err, "Encrypted images are not supported");
        } else if (!strcmp(key, "data_file")) {
            error_set(err, "External data files are not supported");
        } else if (!found) {
            error_set(err, "Invalid parameter '%s'", key);
        } else {
            continue;
        }
        return -ENOTSUP;
    }
    return 0;
}

static int take_name(json_t *options, const char *key, const char **out, struct error *err)
{
    json_t *value = json_object_get(options, key);

    if (!value || json_typeof(value) == JSON_NULL) {
        return 0;
    }
    *out = json_string_value(value);
    if (!*out) {
        error_set(err, "Parameter '%s' expects a string", key);
        return -EINVAL;
    }
    return 0;
}

static int take_options(json_t *options, struct creation *c, struct error *err)
{
    static const char *const compat[] = { "0.10", "v2", "1.1", "v3", NULL };
    static const char *const compression[] = { "zlib", "zstd", NULL };
    static const char *const preallocation[] = { "off", "metadata", "falloc", "full", NULL };
    unsigned version = 2, method = 0, how = QCOW2_PREALLOC_OFF;

    if (!json_object_get(options, "size")) {
        error_set(err, "Image creation needs a size parameter");
        return -EINVAL;
    }
    if (refuse_unsupported(options, err) ||
        take_size(options, "size", &c->size, err) ||
        take_size(options, "cluster_size", &c->cluster_size, err) ||
        take_word(options, "compat", "version", compat, &version, err) ||
        take_number(options, "refcount_bits", &c->refcount_bits, err) ||
        take_bool(options, "lazy_refcounts", &c->lazy_refcounts, err) ||
        take_bool(options, "extended_l2", &c->extended_l2, err) ||
        take_word(options, "compression_type", "compression-type", compression, &method, err) ||
        take_word(options, "preallocation", "preallocation", preallocation, &how, err) ||
        take_name(options, "backing_file", &c->backing_file, err) ||
        take_name(options, "backing_fmt", &c->backing_fmt, err)) {
        return -EINVAL;
    }
    c->version = version < 2 ? 2 : 3;
    c->zstd = method == 1;
    c->preallocation = how;
    return 0;
}

static int needs_version_3(const struct creation *c, struct error *err)
{
    const char *what = NULL;

    if (c->version >= 3) {
        return 0;
    }
    if (c->extended_l2) {
        what = "Extended L2 entries are only supported with compatibility level 1.1 and above";
    } else if (c->lazy_refcounts) {
        what = "Lazy refcounts only supported with compatibility level 1.1 and above";
    } else if (c->refcount_bits != 16) {
        what = "Different refcount widths than 16 bits require compatibility level 1.1 or above";
    } else if (c->zstd) {
        what = "Non-zlib compression type is only supported with compatibility level 1.1 and above";
    } else {
        return 0;
    }
    error_set(err, "%s (use version=v3 or greater)", what);
    return -EINVAL;
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static int check_options(const struct creation *c, struct error *err)
{
    if (!power_of_two(c->cluster_size) || c->cluster_size < 1u << QCOW2_MIN_CLUSTER_BITS ||
        c->cluster_size > 1u << QCOW2_MAX_CLUSTER_BITS) {
        error_set(err, "Cluster size must be a power of two between %u and %uk",
                  1u << QCOW2_MIN_CLUSTER_BITS, 1u << (QCOW2_MAX_CLUSTER_BITS - 10));
        return -EINVAL;
    }
    if (c->backing_fmt && !c->backing_file) {
        error_set(err, "Backing format cannot be used without backing file");
        return -EINVAL;
    }
    if (c->backing_file && !*c->backing_file) {
        error_set(err, "Expected backing file name, got empty string");
        return -EINVAL;
    }
    if (c->preallocation != QCOW2_PREALLOC_OFF && c->backing_file && !c->extended_l2) {
        error_set(err, "Backing file and preallocation can only be used at the same time if "
                       "extended_l2 is on");
        return -EINVAL;
    }
    if (!power_of_two(c->refcount_bits) || c->refcount_bits > 64) {
        error_set(err, "Refcount width must be a power of two and may not exceed 64 bits");
        return -EINVAL;
    }
    if (c->extended_l2 && c->version >= 3 && c->cluster_size < 32 * SECTOR) {
        error_set(err, "Extended L2 entries are only supported with cluster sizes of at least "
                       "%u bytes", 32 * SECTOR);
        return -EINVAL;
    }
    return needs_version_3(c, err);
}

/* --- The header ------------------------------------------------------------------------------- */

static struct qcow2_header make_header(const struct creation *c)
{
    const struct qcow2_layout *l = &c->layout;
    struct qcow2_header h = {
        .version = c->version,
        .cluster_bits = l->cluster_bits,
        .size = c->size,
        .l1_size = l->l1_entries,
        .l1_offset = l->l1_entries ? l->l1 << l->cluster_bits : 0,
        .reftable_offset = l->reftable << l->cluster_bits,
        .reftable_clusters = l->reftable_clusters,
        .incompatible = (c->zstd ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                        (c->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0),
        .compatible = c->lazy_refcounts ? QCOW2_COMPAT_LAZY : 0,
        .refcount_order = l->refcount_order,
        .header_length = c->version >= 3 ? 112 : 72,
        .compression_type = c->zstd,
    };

    return h;
}

/* Header, extensions, name: do they fit? */
static bool build_head(struct creation *c, struct qcow2_ext *exts, unsigned n)
{
    struct qcow2_header h = make_header(c);
    size_t name_len = c->backing_file ? strlen(c->backing_file) : 0;
    uint64_t end = qcow2_exts_store(exts, n, c->head, h.header_length, c->cluster_size);

    assert(end); /* there are two at most, and the large one in large clusters only */
    if (name_len > c->cluster_size - end) {
        return false;
    }
    if (name_len) {
        h.backing_offset = end;
        h.backing_len = name_len;
        memcpy(c->head + end, c->backing_file, name_len);
    }
    qcow2_header_store(&h, c->head);
    c->head_len = ROUND_UP(end + name_len, SECTOR);
    return true;
}

static int make_head(struct creation *c, struct error *err)
{
    struct qcow2_ext exts[2], features = qcow2_feature_table();
    unsigned n = 0;
    int ret = 0;

    if (c->backing_file && c->backing_fmt) {
        exts[n++] = (struct qcow2_ext){ QCOW2_EXT_BACKING_FORMAT, strlen(c->backing_fmt),
                                        (uint8_t *)c->backing_fmt };
    }
    exts[n] = features;
    /* In small clusters the room is kept for a long backing name. */
    bool with_features = c->version >= 3 && c->cluster_size > 4096;

    c->head = mem_zalloc(c->cluster_size);
    if (c->backing_file && (strlen(c->backing_file) > QCOW2_MAX_BACKING_NAME ||
                            (n && exts[0].len > QCOW2_MAX_BACKING_FORMAT))) {
        ret = -EINVAL;
    } else {
        ret = build_head(c, exts, with_features ? n + 1 : n) ? 0 : -ENOSPC;
    }
    if (ret) {
        error_set_errno(err, ret, "Could not assign backing file '%s' with format '%s'",
                        c->backing_file, c->backing_fmt ? c->backing_fmt : "");
    }
    free(features.data);
    return ret;
}

static int make_layout(struct creation *c, struct error *err)
{
    struct qcow2_layout *l = &c->layout;

    l->cluster_bits = __builtin_ctzll(c->cluster_size);
    l->refcount_order = __builtin_ctzll(c->refcount_bits);
    l->extended = c->extended_l2;
    l->reserve_only = c->backing_file;
    if (c->size > INT64_MAX - SECTOR) {
        error_set(err, "Image size must be between 0 and %lld", (long long)INT64_MAX - SECTOR);
        return -EFBIG;
    }
    c->size = ROUND_UP(c->size, SECTOR);
    int ret = qcow2_layout_plan(l, c->size, c->preallocation != QCOW2_PREALLOC_OFF);

    if (ret) {
        error_set(err, "The image size is too large for file format 'qcow2' "
                       "(try using a larger cluster size)");
    }
    return ret;
}

/* --- The file --------------------------------------------------------------------------------- */

static int lock_new(struct io_file *file, const char *path, struct error *err)
{
    unsigned bad = 0;
    bool bad_shared = false;
    int ret = io_file_lock(file, IO_PERM_WRITE | IO_PERM_RESIZE, IO_PERM_ALL & ~IO_PERM_RESIZE,
                           &bad, &bad_shared);

    if (ret == -EAGAIN) {
        error_set(err, "Failed to get %s\"%s\" lock", bad_shared ? "shared " : "",
                  bad == IO_PERM_WRITE ? "write" : "resize");
        error_hint(err, "Is another process using the image [%s]?", path);
    } else if (ret) {
        error_set_errno(err, ret, "Failed to lock '%s'", path);
    }
    return ret;
}

/* What was there is gone, durably, before anything new comes. */
static int co_empty(struct io_file *file)
{
    static const uint8_t zeroes[SECTOR];
    uint64_t size;
    int ret = co_io_size(file, &size);

    if (ret || !size) {
        return ret;
    }
    ret = co_io_truncate(file, 0);
    if (ret == -EINVAL) {
        /* A block device cannot be cut: its first sector is what made it an image. */
        ret = co_io_write(file, 0, zeroes, sizeof(zeroes));
    }
    return ret ? ret : co_io_flush(file);
}

static int co_fill(struct io_file *file, const struct creation *c)
{
    int ret = co_empty(file);

    if (!ret) {
        ret = co_qcow2_layout_write(&c->layout, file);
    }
    if (!ret) {
        ret = co_qcow2_layout_preallocate(&c->layout, file, c->preallocation);
    }
    if (!ret && c->head_len > SECTOR) {
        ret = co_io_write(file, SECTOR, c->head + SECTOR, c->head_len - SECTOR);
    }
    if (!ret) {
        ret = co_io_flush(file);
    }
    if (!ret) {
        ret = co_io_write(file, 0, c->head, SECTOR);
    }
    return ret ? ret : co_io_flush(file);
}

static int co_make_file(const char *path, const struct creation *c, struct error *err)
{
    struct io_file *file;
    bool ours = true;
    int ret = co_io_open(NULL, path, IO_RDWR | IO_CREATE | IO_EXCL, &file);

    if (ret == -EEXIST) {
        ours = false;
        ret = co_io_open(NULL, path, IO_RDWR, &file);
    }
    if (ret == -EINVAL) { /* /dev/null, a pipe */
        error_set(err, "'file' driver requires '%s' to be a regular file", path);
        return ret;
    }
    if (ret) {
        error_set_errno(err, ret, "Could not create '%s'", path);
        return ret;
    }
    ret = lock_new(file, path, err);
    if (!ret) {
        ret = co_fill(file, c);
        if (ret) {
            error_set_errno(err, ret, "Could not write '%s'", path);
        }
    }
    co_io_close(file);
    if (!ret) {
        ret = co_io_sync_dir(path);
        if (ret) {
            error_set_errno(err, ret, "Could not make the name of '%s' durable", path);
        }
    }
    if (ret && ours) {
        (void)co_io_unlink(path);
    }
    return ret;
}

int co_qcow2_create(const char *path, json_t *options, struct error *err)
{
    struct creation c = { .cluster_size = 64 << 10, .version = 3, .refcount_bits = 16 };
    int ret = take_options(options, &c, err);

    if (!ret) {
        ret = check_options(&c, err);
    }
    if (!ret) {
        ret = make_layout(&c, err);
    }
    if (!ret) {
        ret = make_head(&c, err);
    }
    if (!ret) {
        ret = co_make_file(path, &c, err);
    }
    free(c.head);
    return ret;
}
