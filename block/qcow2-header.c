/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 header and its extensions: bytes to structs and back, without any I/O.
 *
 *     0        72/104      header_length            backing_offset              cluster_size
 *     | fields | v3 fields | extensions ... | end   | backing file name | unused |
 *
 * The contract: whatever the bytes are, parsing ends with structs that keep every promise below,
 * or with one sentence and nothing allocated.  The words are QEMU's where QEMU has words.
 *
 *   - tables (L1, reference counts, snapshots) are aligned to clusters, lie behind the header
 *     cluster and below 2^56, within the format's limits and inside the file, and none overlaps
 *     another;
 *   - the L1 table covers the whole size of the disk;
 *   - the backing name and the extensions lie inside the first cluster and behind the header's
 *     fields.
 *
 * We refuse a little more than QEMU 7.2: it opens tables that lie beyond the end of the file, and
 * then shows zeroes in the place of data.  Unknown extensions are kept and stored again in their
 * order.
 *
 * Specification: docs/interop/qcow2.txt of QEMU, "Header" and "Header extensions".  How a header
 * changes on disk is in qcow2-header-write.c.
 */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "core/bytes.h"
#include "core/mem.h"

/* Offsets of the fields that have a name in struct qcow2_header. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_BACKING_OFFSET = 8,
    AT_BACKING_LEN = 16,
    AT_CLUSTER_BITS = 20,
    AT_SIZE = 24,
    AT_CRYPT_METHOD = 32,
    AT_L1_SIZE = 36,
    AT_L1_OFFSET = 40,
    AT_REFTABLE_OFFSET = 48,
    AT_REFTABLE_CLUSTERS = 56,
    AT_NB_SNAPSHOTS = 60,
    AT_SNAPSHOTS_OFFSET = 64,
    V2_LENGTH = 72,
    AT_INCOMPATIBLE = 72,
    AT_COMPATIBLE = 80,
    AT_AUTOCLEAR = 88,
    AT_REFCOUNT_ORDER = 96,
    AT_HEADER_LENGTH = 100,
    V3_LENGTH = 104, /* the least that version 3 has */
    AT_COMPRESSION = 104,
};

#define KNOWN_INCOMPATIBLE                                                                        \
    (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DATA_FILE |                   \
     QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTL2)

#define HOST_OFFSET_END (1ull << 56) /* entries of tables have no bits above */
#define FEATURE_ENTRY 48u            /* of the feature name table: type, bit, 46 bytes of name */
#define FEATURE_NAME 46u

/* --- Fields ----------------------------------------------------------------------------------- */

static void load_fields(const uint8_t *buf, struct qcow2_header *h)
{
    *h = (struct qcow2_header){
        .version = load_be32(buf + AT_VERSION),
        .backing_offset = load_be64(buf + AT_BACKING_OFFSET),
        .backing_len = load_be32(buf + AT_BACKING_LEN),
        .cluster_bits = load_be32(buf + AT_CLUSTER_BITS),
        .size = load_be64(buf + AT_SIZE),
        .crypt_method = load_be32(buf + AT_CRYPT_METHOD),
        .l1_size = load_be32(buf + AT_L1_SIZE),
        .l1_offset = load_be64(buf + AT_L1_OFFSET),
        .reftable_offset = load_be64(buf + AT_REFTABLE_OFFSET),
        .reftable_clusters = load_be32(buf + AT_REFTABLE_CLUSTERS),
        .nb_snapshots = load_be32(buf + AT_NB_SNAPSHOTS),
        .snapshots_offset = load_be64(buf + AT_SNAPSHOTS_OFFSET),
        .refcount_order = 4,
        .header_length = V2_LENGTH,
    };
}

static void load_v3_fields(const uint8_t *buf, struct qcow2_header *h)
{
    h->incompatible = load_be64(buf + AT_INCOMPATIBLE);
    h->compatible = load_be64(buf + AT_COMPATIBLE);
    h->autoclear = load_be64(buf + AT_AUTOCLEAR);
    h->refcount_order = load_be32(buf + AT_REFCOUNT_ORDER);
    h->header_length = load_be32(buf + AT_HEADER_LENGTH);
}

void qcow2_header_store_backing(const struct qcow2_header *h, uint8_t *buf)
{
    store_be64(buf + AT_BACKING_OFFSET, h->backing_offset);
    store_be32(buf + AT_BACKING_LEN, h->backing_len);
}

void qcow2_header_store(const struct qcow2_header *h, uint8_t *buf)
{
    store_be32(buf + AT_MAGIC, QCOW2_MAGIC);
    store_be32(buf + AT_VERSION, h->version);
    qcow2_header_store_backing(h, buf);
    store_be32(buf + AT_CLUSTER_BITS, h->cluster_bits);
    store_be64(buf + AT_SIZE, h->size);
    store_be32(buf + AT_CRYPT_METHOD, h->crypt_method);
    store_be32(buf + AT_L1_SIZE, h->l1_size);
    store_be64(buf + AT_L1_OFFSET, h->l1_offset);
    store_be64(buf + AT_REFTABLE_OFFSET, h->reftable_offset);
    store_be32(buf + AT_REFTABLE_CLUSTERS, h->reftable_clusters);
    store_be32(buf + AT_NB_SNAPSHOTS, h->nb_snapshots);
    store_be64(buf + AT_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version < 3) {
        return;
    }
    store_be64(buf + AT_INCOMPATIBLE, h->incompatible);
    store_be64(buf + AT_COMPATIBLE, h->compatible);
    store_be64(buf + AT_AUTOCLEAR, h->autoclear);
    store_be32(buf + AT_REFCOUNT_ORDER, h->refcount_order);
    store_be32(buf + AT_HEADER_LENGTH, h->header_length);
    if (h->header_length > AT_COMPRESSION) {
        buf[AT_COMPRESSION] = h->compression_type;
    }
}

/* --- Extensions ------------------------------------------------------------------------------- */

/* Where the area of the extensions ends at the latest. */
static uint64_t exts_limit(const struct qcow2_header *h)
{
    return h->backing_offset ? h->backing_offset : 1ull << h->cluster_bits;
}

void qcow2_exts_free(struct qcow2_ext *exts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(exts[i].data);
    }
    free(exts);
}

const struct qcow2_ext *qcow2_ext_find(const struct qcow2_ext *exts, unsigned n, uint32_t type)
{
    for (unsigned i = 0; i < n; i++) {
        if (exts[i].type == type) {
            return &exts[i];
        }
    }
    return NULL;
}

/* What we know of a type must hold; other types are anybody's. */
static int check_ext(const struct qcow2_header *h, uint32_t type, uint32_t len, struct error *err)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        if (len > QCOW2_MAX_BACKING_FORMAT) {
            error_set(err, "ERROR: ext_backing_format: len=%" PRIu32 " too large (>=%u)", len,
                      QCOW2_MAX_BACKING_FORMAT + 1);
            return -EINVAL;
        }
        return 0;
    case QCOW2_EXT_CRYPTO:
        if (h->crypt_method != 2) {
            error_set(err, "CRYPTO header extension only expected with LUKS encryption method");
            return -EINVAL;
        }
        return 0;
    case QCOW2_EXT_BITMAPS:
        if (len != 24) {
            error_set(err, "bitmaps_ext: Invalid extension length");
            return -EINVAL;
        }
        return 0;
    default:
        return 0;
    }
}

int qcow2_exts_parse(const uint8_t *buf, size_t len, const struct qcow2_header *h,
                     struct qcow2_ext **exts, unsigned *n, struct error *err)
{
    uint64_t limit = exts_limit(h);
    uint64_t pos = h->header_length;
    struct qcow2_ext *list = NULL;
    unsigned count = 0, room = 0;
    int ret = 0;

    /* Less than 8 bytes before the limit hold no extension and need no end marker. */
    while (pos + 8 <= limit) {
        if (pos + 8 > len) {
            ret = -EAGAIN;
            break;
        }
        uint32_t type = load_be32(buf + pos);
        uint32_t ext_len = load_be32(buf + pos + 4);

        if (type == QCOW2_EXT_END) {
            break;
        }
        pos += 8;
        if (ext_len > limit - pos) {
            error_set(err, "Header extension too large");
            ret = -EINVAL;
            break;
        }
        ret = check_ext(h, type, ext_len, err);
        if (!ret && pos + ext_len > len) {
            ret = -EAGAIN;
        }
        if (ret) {
            break;
        }
        if (count == room) {
            room = room ? 2 * room : 4;
            list = mem_reallocarray(list, room, sizeof(*list));
        }
        list[count++] = (struct qcow2_ext){ type, ext_len, mem_dup(buf + pos, ext_len) };
        pos += ROUND_UP((uint64_t)ext_len, 8);
    }
    if (ret) {
        qcow2_exts_free(list, count);
        return ret;
    }
    *exts = list;
    *n = count;
    return 0;
}

uint64_t qcow2_exts_end(const struct qcow2_header *h, const struct qcow2_ext *exts, unsigned n)
{
    uint64_t limit = exts_limit(h);
    uint64_t pos = h->header_length;

    for (unsigned i = 0; i < n; i++) {
        pos += 8 + ROUND_UP((uint64_t)exts[i].len, 8);
    }
    /* The padding of the last one may stick out; the end marker is there only when it has room. */
    return pos + 8 <= limit ? pos + 8 : MAX(MIN(pos, limit), h->header_length);
}

uint64_t qcow2_exts_store(const struct qcow2_ext *exts, unsigned n, uint8_t *buf, uint64_t pos,
                          uint64_t limit)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t padded = ROUND_UP((uint64_t)exts[i].len, 8);

        if (pos > limit || 8 + padded > limit - pos) {
            return 0;
        }
        store_be32(buf + pos, exts[i].type);
        store_be32(buf + pos + 4, exts[i].len);
        memset(buf + pos + 8, 0, padded);
        memcpy(buf + pos + 8, exts[i].data, exts[i].len);
        pos += 8 + padded;
    }
    if (pos > limit || limit - pos < 8) {
        return 0;
    }
    memset(buf + pos, 0, 8);
    return pos + 8;
}

struct qcow2_ext qcow2_feature_table(void)
{
    static const struct {
        uint8_t type, bit; /* type: 0 incompatible, 1 compatible, 2 autoclear */
        const char *name;
    } features[] = {
        { 0, 0, "dirty bit" },
        { 0, 1, "corrupt bit" },
        { 0, 2, "external data file" },
        { 0, 3, "compression type" },
        { 0, 4, "extended L2 entries" },
        { 1, 0, "lazy refcounts" },
        { 2, 0, "bitmaps" },
        { 2, 1, "raw external data" },
    };
    struct qcow2_ext ext = { QCOW2_EXT_FEATURES, ARRAY_SIZE(features) * FEATURE_ENTRY, NULL };

    ext.data = mem_zalloc(ext.len);
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        uint8_t *entry = ext.data + i * FEATURE_ENTRY;

        entry[0] = features[i].type;
        entry[1] = features[i].bit;
        memcpy(entry + 2, features[i].name, strlen(features[i].name));
    }
    return ext;
}

/* --- Checks ----------------------------------------------------------------------------------- */

/* Refuse unknown incompatible features by the names that the image itself gives them. */
static int refuse_features(const uint8_t *buf, size_t len, const struct qcow2_header *h,
                           struct error *err)
{
    uint64_t unknown = h->incompatible & ~KNOWN_INCOMPATIBLE;
    AUTOFREE char *names = mem_strdup("");
    struct qcow2_ext *exts = NULL;
    unsigned n = 0;

    if (!unknown) {
        return 0;
    }
    /* The extensions may be broken too, or lie outside of what was read: then there are no
     * names. */
    (void)qcow2_exts_parse(buf, len, h, &exts, &n, NULL);
    const struct qcow2_ext *table = qcow2_ext_find(exts, n, QCOW2_EXT_FEATURES);

    for (uint32_t at = 0; table && at + FEATURE_ENTRY <= table->len; at += FEATURE_ENTRY) {
        const uint8_t *entry = table->data + at;

        if (entry[0] == 0 && entry[1] < 64 && (unknown & 1ull << entry[1])) {
            char *longer = mem_printf("%s%s%.*s", names, *names ? ", " : "", (int)FEATURE_NAME,
                                      (const char *)entry + 2);

            free(names);
            names = longer;
            unknown &= ~(1ull << entry[1]);
        }
    }
    qcow2_exts_free(exts, n);
    if (unknown) {
        error_set(err, "Unsupported qcow2 feature(s): %s%sUnknown incompatible feature: %" PRIx64,
                  names, *names ? ", " : "", unknown);
    } else {
        error_set(err, "Unsupported qcow2 feature(s): %s", names);
    }
    return -ENOTSUP;
}

static int check_compression(const uint8_t *buf, struct qcow2_header *h, struct error *err)
{
    bool bit = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;

    if (h->version >= 3 && h->header_length > AT_COMPRESSION) {
        h->compression_type = buf[AT_COMPRESSION];
    }
    if (h->compression_type > 1) {
        error_set(err, "qcow2: unknown compression type: %u", h->compression_type);
        return -ENOTSUP;
    }
    if (bit != (h->compression_type != 0)) {
        error_set(err, "qcow2: Compression type incompatible feature bit must%s be set",
                  bit ? " not" : "");
        return -EINVAL;
    }
    return 0;
}

static int check_encryption(const struct qcow2_header *h, struct error *err)
{
    if (h->crypt_method > 2) {
        error_set(err, "Unsupported encryption method %" PRIu32, h->crypt_method);
        return -EINVAL;
    }
    if (h->crypt_method) {
        error_set(err, "Encrypted images (%s) are not supported",
                  h->crypt_method == 1 ? "aes" : "luks");
        return -ENOTSUP;
    }
    return 0;
}

static int check_backing(const struct qcow2_header *h, struct error *err)
{
    uint64_t cluster = 1ull << h->cluster_bits;

    if (!h->backing_offset) {
        return 0;
    }
    if (h->backing_offset > cluster || h->backing_offset < h->header_length) {
        error_set(err, "Invalid backing file offset");
        return -EINVAL;
    }
    if (h->backing_len > MIN(QCOW2_MAX_BACKING_NAME, cluster - h->backing_offset)) {
        error_set(err, "Backing file name too long");
        return -EINVAL;
    }
    return 0;
}

int qcow2_check_table(const struct qcow2_header *h, uint64_t offset, uint64_t entries,
                      size_t entry_size, uint64_t max_bytes, const char *what, struct error *err)
{
    uint64_t cluster = 1ull << h->cluster_bits;

    if (entries > max_bytes / entry_size) {
        error_set(err, "%s too large", what);
        return -EFBIG;
    }
    uint64_t bytes = entries * entry_size;

    if (offset % cluster || offset > HOST_OFFSET_END || bytes > HOST_OFFSET_END - offset ||
        (bytes && offset < cluster)) {
        error_set(err, "%s offset invalid", what);
        return -EINVAL;
    }
    return 0;
}

struct range {
    uint64_t offset, len;
    const char *what;
};

static int check_ranges(const struct range *ranges, unsigned n, uint64_t file_size,
                        struct error *err)
{
    for (unsigned i = 0; i < n; i++) {
        const struct range *a = &ranges[i];

        if (a->len && (a->offset > file_size || a->len > file_size - a->offset)) {
            error_set(err, "%s lies beyond the end of the file", a->what);
            return -EINVAL;
        }
        for (unsigned k = 0; k < i; k++) {
            const struct range *b = &ranges[k];

            if (a->len && b->len && a->offset < b->offset + b->len &&
                b->offset < a->offset + a->len) {
                error_set(err, "%s and %s overlap", b->what, a->what);
                return -EINVAL;
            }
        }
    }
    return 0;
}

static int check_tables(const struct qcow2_header *h, uint64_t file_size, struct error *err)
{
    uint64_t cluster = 1ull << h->cluster_bits;
    uint64_t l2_entries = cluster / (h->incompatible & QCOW2_INCOMPAT_EXTL2 ? 16 : 8);
    uint64_t l2_covers = l2_entries << h->cluster_bits; /* at most 2^39 */
    uint64_t l1_needed = h->size / l2_covers + (h->size % l2_covers != 0);
    int ret;

    if (!h->reftable_clusters) {
        error_set(err, "Image does not contain a reference count table");
        return -EINVAL;
    }
    ret = qcow2_check_table(h, h->reftable_offset, h->reftable_clusters, cluster,
                            QCOW2_MAX_REFTABLE_BYTES, "Reference count table", err);
    if (!ret) {
        /* The entries have variable lengths; this is the least that they need. */
        ret = qcow2_check_table(h, h->snapshots_offset, h->nb_snapshots, QCOW2_SNAPSHOT_ENTRY,
                                QCOW2_MAX_SNAPSHOTS * QCOW2_SNAPSHOT_ENTRY, "Snapshot table", err);
    }
    if (!ret) {
        ret = qcow2_check_table(h, h->l1_offset, h->l1_size, 8, QCOW2_MAX_L1_BYTES,
                                "Active L1 table", err);
    }
    if (ret) {
        return ret;
    }
    if (h->size > INT64_MAX || l1_needed > INT32_MAX) {
        error_set(err, "Image is too big");
        return -EFBIG;
    }
    if (h->l1_size < l1_needed) {
        error_set(err, "L1 table is too small");
        return -EINVAL;
    }
    const struct range ranges[] = {
        { h->reftable_offset, (uint64_t)h->reftable_clusters << h->cluster_bits,
          "Reference count table" },
        { h->l1_offset, (uint64_t)h->l1_size * 8, "Active L1 table" },
        { h->snapshots_offset, (uint64_t)h->nb_snapshots * QCOW2_SNAPSHOT_ENTRY, "Snapshot table" },
    };
    return check_ranges(ranges, ARRAY_SIZE(ranges), file_size, err);
}

/* Everything that the fixed fields say about the format itself. */
static int check_format(const uint8_t *buf, size_t len, struct qcow2_header *h, struct error *err)
{
    uint64_t cluster = 1ull << h->cluster_bits;
    int ret;

    if (h->version >= 3 && h->header_length < V3_LENGTH) {
        error_set(err, "qcow2 header too short");
        return -EINVAL;
    }
    if (h->header_length > cluster) {
        error_set(err, "qcow2 header exceeds cluster size");
        return -EINVAL;
    }
    ret = check_backing(h, err);
    if (!ret) {
        ret = refuse_features(buf, len, h, err);
    }
    if (!ret) {
        ret = check_compression(buf, h, err);
    }
    if (ret) {
        return ret;
    }
    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        error_set(err, "External data files are not supported");
        return -ENOTSUP;
    }
    if (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW) {
        error_set(err, "data-file-raw requires a data file");
        return -EINVAL;
    }
    if ((h->incompatible & QCOW2_INCOMPAT_EXTL2) && cluster / 32 < NODE_SECTOR) {
        error_set(err, "Unsupported subcluster size: %" PRIu64, cluster / 32);
        return -EINVAL;
    }
    if (h->refcount_order > 6) {
        error_set(err, "Reference count entry width too large; may not exceed 64 bits");
        return -EINVAL;
    }
    return check_encryption(h, err);
}

int qcow2_header_parse(const uint8_t *buf, size_t len, uint64_t file_size, struct qcow2_header *out,
                       struct error *err)
{
    uint64_t have = MIN((uint64_t)len, file_size);
    struct qcow2_header h;
    int ret;

    if (have < 4 || load_be32(buf) != QCOW2_MAGIC) {
        error_set(err, "Image is not in qcow2 format");
        return -EINVAL;
    }
    if (have < V2_LENGTH) {
        error_set(err, "qcow2 header too short");
        return -EINVAL;
    }
    load_fields(buf, &h);
    if (h.version < 2 || h.version > 3) {
        error_set(err, "Unsupported qcow2 version %" PRIu32, h.version);
        return -ENOTSUP;
    }
    if (h.cluster_bits < QCOW2_MIN_CLUSTER_BITS || h.cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        error_set(err, "Unsupported cluster size: 2^%" PRIu32, h.cluster_bits);
        return -EINVAL;
    }
    if (h.version >= 3) {
        if (have < V3_LENGTH) {
            error_set(err, "qcow2 header too short");
            return -EINVAL;
        }
        load_v3_fields(buf, &h);
        if (h.header_length > AT_COMPRESSION && have <= AT_COMPRESSION) {
            error_set(err, "qcow2 header too short");
            return -EINVAL;
        }
    }
    ret = check_format(buf, len, &h, err);
    if (!ret) {
        ret = check_tables(&h, file_size, err);
    }
    if (!ret) {
        *out = h;
    }
    return ret;
}
