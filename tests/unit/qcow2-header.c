/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 header: parsing against a list of wrong images, round trips, random damage; and the
 * planner of a new backing name, whose every crash is tried: whatever subset of the sectors of
 * stage 1 has reached the disk, the old header must still say what it said.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"

#define FILE_SIZE (196608u + 16)
#define SECTOR 512u

static struct random rnd;

/* A healthy image of 1 GiB with clusters of 64 KiB. */
static struct qcow2_header healthy(void)
{
    return (struct qcow2_header){
        .version = 3,
        .cluster_bits = 16,
        .size = 1ull << 30,
        .l1_size = 2,
        .l1_offset = 0x30000,
        .reftable_offset = 0x10000,
        .reftable_clusters = 1,
        .refcount_order = 4,
        .header_length = 112,
    };
}

static void build(const struct qcow2_header *h, uint8_t *buf, size_t len)
{
    struct qcow2_ext features = qcow2_feature_table();

    memset(buf, 0, len);
    qcow2_header_store(h, buf);
    if (h->version >= 3) {
        assert_true(qcow2_exts_store(&features, 1, buf, h->header_length, len));
    }
    free(features.data);
}

static int parse(const uint8_t *buf, size_t len, uint64_t file_size, char **text)
{
    struct qcow2_header h;
    struct qcow2_ext *exts = NULL;
    unsigned n = 0;
    struct error err = ERROR_INIT;
    int ret = qcow2_header_parse(buf, len, file_size, &h, &err);

    if (!ret) {
        ret = qcow2_exts_parse(buf, len, &h, &exts, &n, &err);
        if (!ret) {
            qcow2_exts_free(exts, n);
        }
    }
    assert_int_equal(error_is_set(&err), ret != 0 && ret != -EAGAIN);
    *text = mem_strdup(err.text);
    error_clear(&err);
    return ret;
}

/* --- One wrong field at a time ---------------------------------------------------------------- */

struct wrong {
    unsigned at, width; /* the field: offset and bytes */
    uint64_t value;
    const char *text;   /* NULL: this is fine */
};

static const struct wrong wrongs[] = {
    { 0, 4, 0x12345678, "Image is not in qcow2 format" },
    { 4, 4, 1, "Unsupported qcow2 version 1" },
    { 4, 4, 4, "Unsupported qcow2 version 4" },
    { 8, 8, 70000, "Invalid backing file offset" },
    { 8, 8, 50, "Invalid backing file offset" },
    { 8, 8, 1ull << 63, "Invalid backing file offset" },
    { 8, 8, 112, NULL },
    { 16, 4, 2000, NULL },
    { 20, 4, 8, "Unsupported cluster size: 2^8" },
    { 20, 4, 22, "Unsupported cluster size: 2^22" },
    { 20, 4, UINT32_MAX, "Unsupported cluster size: 2^4294967295" },
    { 24, 8, 1ull << 62, "Image is too big" },
    { 24, 8, 1ull << 63, "Image is too big" },
    { 24, 8, UINT64_MAX, "Image is too big" },
    { 24, 8, (1ull << 30) + 1, "L1 table is too small" },
    { 24, 8, 1000001, NULL },
    { 32, 4, 1, "Encrypted images (aes) are not supported" },
    { 32, 4, 2, "Encrypted images (luks) are not supported" },
    { 32, 4, 3, "Unsupported encryption method 3" },
    { 36, 4, 0, "L1 table is too small" },
    { 36, 4, 1, "L1 table is too small" },
    { 36, 4, 4194305, "Active L1 table too large" },
    { 36, 4, UINT32_MAX, "Active L1 table too large" },
    { 36, 4, 4194304, "Active L1 table lies beyond the end of the file" },
    { 36, 4, 3, "Active L1 table lies beyond the end of the file" },
    { 40, 8, 0x30001, "Active L1 table offset invalid" },
    { 40, 8, 0, "Active L1 table offset invalid" },
    { 40, 8, 1ull << 56, "Active L1 table offset invalid" },
    { 40, 8, 1ull << 57, "Active L1 table offset invalid" },
    { 40, 8, 0xffffffffffff0000, "Active L1 table offset invalid" },
    { 40, 8, 1ull << 40, "Active L1 table lies beyond the end of the file" },
    { 40, 8, 0x10000, "Reference count table and Active L1 table overlap" },
    { 48, 8, 0x10001, "Reference count table offset invalid" },
    { 48, 8, 0, "Reference count table offset invalid" },
    { 48, 8, 0x7fffffffffff0000, "Reference count table offset invalid" },
    { 48, 8, 1ull << 50, "Reference count table lies beyond the end of the file" },
    { 56, 4, 0, "Image does not contain a reference count table" },
    { 56, 4, 129, "Reference count table too large" },
    { 56, 4, UINT32_MAX, "Reference count table too large" },
    { 56, 4, 3, "Reference count table lies beyond the end of the file" },
    { 60, 4, 65537, "Snapshot table too large" },
    { 60, 4, UINT32_MAX, "Snapshot table too large" },
    { 60, 4, 1, "Snapshot table offset invalid" },
    { 64, 8, 1, "Snapshot table offset invalid" },
    { 64, 8, 0x10000, NULL }, /* no snapshot is there */
    { 72, 8, 1, NULL },       /* dirty: for the one who writes */
    { 72, 8, 2, NULL },       /* corrupt: likewise */
    { 72, 8, 4, "External data files are not supported" },
    { 72, 8, 8, "qcow2: Compression type incompatible feature bit must not be set" },
    { 72, 8, 16, "L1 table is too small" }, /* entries of 16 bytes cover half */
    { 72, 8, 32, "Unsupported qcow2 feature(s): Unknown incompatible feature: 20" },
    { 72, 8, 1ull << 63, "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000" },
    { 72, 8, 0xf0, "Unsupported qcow2 feature(s): Unknown incompatible feature: e0" },
    { 80, 8, UINT64_MAX, NULL },
    { 88, 8, ~2ull, NULL },
    { 88, 8, 2, "data-file-raw requires a data file" },
    { 96, 4, 6, NULL },
    { 96, 4, 7, "Reference count entry width too large; may not exceed 64 bits" },
    { 96, 4, UINT32_MAX, "Reference count entry width too large; may not exceed 64 bits" },
    { 100, 4, 103, "qcow2 header too short" },
    { 100, 4, 70000, "qcow2 header exceeds cluster size" },
    { 104, 1, 1, "qcow2: Compression type incompatible feature bit must be set" },
    { 104, 1, 2, "qcow2: unknown compression type: 2" },
    { 116, 4, 100000, "Header extension too large" },
    { 116, 4, UINT32_MAX, "Header extension too large" },
    { 112, 4, 0xe2792aca, "ERROR: ext_backing_format: len=384 too large (>=16)" },
    { 112, 4, 0x0537be77, "CRYPTO header extension only expected with LUKS encryption method" },
    { 112, 4, 0x23852875, "bitmaps_ext: Invalid extension length" },
    { 112, 4, 0x12345678, NULL }, /* unknown extensions are anybody's */
};

static void wrong_fields_are_refused_in_words(void **state)
{
    struct qcow2_header h = healthy();
    uint8_t buf[4096];
    char *text;

    build(&h, buf, sizeof(buf));
    assert_int_equal(parse(buf, sizeof(buf), FILE_SIZE, &text), 0);
    for (size_t i = 0; i < ARRAY_SIZE(wrongs); i++) {
        const struct wrong *w = &wrongs[i];

        build(&h, buf, sizeof(buf));
        for (unsigned k = 0; k < w->width; k++) {
            buf[w->at + k] = w->value >> 8 * (w->width - 1 - k);
        }
        int ret = parse(buf, sizeof(buf), FILE_SIZE, &text);

        assert_int_equal(ret < 0, w->text != NULL);
        if (w->text) {
            assert_string_equal(text, w->text);
        }
        free(text);
    }
}

static void truncated_headers_are_refused(void **state)
{
    static const struct {
        uint64_t size;
        const char *text;
    } cuts[] = {
        { 0, "Image is not in qcow2 format" },
        { 3, "Image is not in qcow2 format" },
        { 4, "qcow2 header too short" },
        { 71, "qcow2 header too short" },
        { 103, "qcow2 header too short" },
        { 104, "qcow2 header too short" },
        { 4096, "Reference count table lies beyond the end of the file" },
        { 196608, "Active L1 table lies beyond the end of the file" },
        { FILE_SIZE - 1, "Active L1 table lies beyond the end of the file" },
        { FILE_SIZE, NULL },
    };
    struct qcow2_header h = healthy();
    uint8_t buf[4096];

    build(&h, buf, sizeof(buf));
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        char *text;
        int ret = parse(buf, sizeof(buf), cuts[i].size, &text);

        assert_int_equal(ret < 0, cuts[i].text != NULL);
        if (cuts[i].text) {
            assert_string_equal(text, cuts[i].text);
        }
        free(text);
    }
}

static void unknown_features_are_refused_by_their_names(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext exts[2] = { { QCOW2_EXT_FEATURES, 3 * 48, mem_zalloc(3 * 48) } };
    uint8_t buf[4096] = { 0 };
    char *text;

    exts[0].data[1] = 5;
    strcpy((char *)exts[0].data + 2, "time travel");
    exts[0].data[48 + 1] = 6;
    memset(exts[0].data + 48 + 2, 'X', 46); /* without an end */
    exts[0].data[96] = 1;                   /* a compatible one of the same number */
    exts[0].data[96 + 1] = 7;
    strcpy((char *)exts[0].data + 96 + 2, "nothing");
    h.incompatible = 1 << 5 | 1 << 6 | 1 << 7;
    qcow2_header_store(&h, buf);
    qcow2_exts_store(exts, 1, buf, h.header_length, sizeof(buf));
    assert_int_equal(parse(buf, sizeof(buf), FILE_SIZE, &text), -ENOTSUP);
    assert_string_equal(text, "Unsupported qcow2 feature(s): time travel, "
                              "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX, Unknown incompatible feature: 80");
    free(text);
    h.incompatible = 1 << 5;
    qcow2_header_store(&h, buf);
    assert_int_equal(parse(buf, sizeof(buf), FILE_SIZE, &text), -ENOTSUP);
    assert_string_equal(text, "Unsupported qcow2 feature(s): time travel");
    free(text);
    free(exts[0].data);
}

static void version_2_has_the_defaults_of_version_3(void **state)
{
    struct qcow2_header h = healthy(), out;
    uint8_t buf[4096];

    h.version = 2;
    h.header_length = 72;
    build(&h, buf, sizeof(buf));
    memset(buf + 72, 0, 8);
    store_be64(buf + 80, UINT64_MAX); /* no fields of a header of version 2 */
    assert_int_equal(qcow2_header_parse(buf, sizeof(buf), FILE_SIZE, &out, NULL), 0);
    assert_int_equal(out.refcount_order, 4);
    assert_int_equal(out.header_length, 72);
    assert_int_equal(out.incompatible, 0);
    assert_int_equal(out.compatible, 0);
}

/* With clusters of 2 MiB even 2^63 bytes have an L1 table of a sane length. */
static void sizes_stay_below_2_to_the_63rd(void **state)
{
    static const uint64_t sizes[] = { 1ull << 63, UINT64_MAX };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct qcow2_header h = healthy();
        uint8_t buf[4096];
        char *text;

        h.cluster_bits = 21;
        h.reftable_offset = 1 << 21;
        h.l1_offset = 2 << 21;
        h.size = sizes[i];
        build(&h, buf, sizeof(buf));
        assert_true(parse(buf, sizeof(buf), 1 << 30, &text) < 0);
        assert_string_equal(text, "Image is too big");
        free(text);
    }
}

static void small_subclusters_are_refused(void **state)
{
    struct qcow2_header h = healthy();
    uint8_t buf[4096];
    char *text;

    h.cluster_bits = 12;
    h.incompatible = QCOW2_INCOMPAT_EXTL2;
    build(&h, buf, sizeof(buf));
    assert_true(parse(buf, sizeof(buf), 1 << 30, &text) < 0);
    assert_string_equal(text, "Unsupported subcluster size: 128");
    free(text);
}

static void backing_names_must_fit(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t len;
        const char *text;
    } names[] = {
        { 60000, 1023, NULL },
        { 60000, 1024, "Backing file name too long" },
        { 65530, 6, NULL },
        { 65530, 7, "Backing file name too long" },
        { 65536, 0, NULL },
        { 65536, 1, "Backing file name too long" },
        { 111, 5, "Invalid backing file offset" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct qcow2_header h = healthy(), out;
        struct error err = ERROR_INIT;
        uint8_t buf[4096];

        h.backing_offset = names[i].offset;
        h.backing_len = names[i].len;
        build(&h, buf, sizeof(buf));
        int ret = qcow2_header_parse(buf, sizeof(buf), FILE_SIZE, &out, &err);

        assert_int_equal(ret < 0, names[i].text != NULL);
        if (names[i].text) {
            assert_string_equal(err.text, names[i].text);
        }
        error_clear(&err);
    }
}

/* --- Extensions ------------------------------------------------------------------------------- */

static void unknown_extensions_are_kept(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext in[3] = {
        { 0x11111111, 3, (uint8_t *)"abc" },
        { 0x22222222, 0, (uint8_t *)"" },
        { 0x33333333, 16, (uint8_t *)"0123456789abcdef" },
    };
    struct qcow2_ext *out;
    unsigned n;
    uint8_t buf[512] = { 0 };
    uint64_t end = qcow2_exts_store(in, 3, buf, 112, sizeof(buf));

    assert_int_equal(end, 112 + 16 + 8 + 24 + 8);
    assert_int_equal(qcow2_exts_parse(buf, sizeof(buf), &h, &out, &n, NULL), 0);
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(out[i].type, in[i].type);
        assert_int_equal(out[i].len, in[i].len);
        assert_memory_equal(out[i].data, in[i].data, in[i].len);
    }
    assert_int_equal(qcow2_exts_end(&h, out, n), end);
    qcow2_exts_free(out, n);
    /* Not enough was read: says so at every length that cuts something. */
    for (size_t len = 112; len < end; len++) {
        assert_int_equal(qcow2_exts_parse(buf, len, &h, &out, &n, NULL), -EAGAIN);
    }
    assert_int_equal(qcow2_exts_parse(buf, end, &h, &out, &n, NULL), 0);
    qcow2_exts_free(out, n);
    assert_int_equal(qcow2_exts_store(in, 3, buf, 112, end), end);
    for (uint64_t limit = 100; limit < end; limit++) {
        assert_int_equal(qcow2_exts_store(in, 3, buf, 112, limit), 0);
        assert_int_equal(qcow2_exts_store(in, 0, buf, end, limit), 0);
    }
}

static void any_number_of_extensions_is_kept(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext in[9], *out;
    uint8_t buf[512] = { 0 };
    unsigned n;

    for (unsigned i = 0; i < ARRAY_SIZE(in); i++) {
        in[i] = (struct qcow2_ext){ 0x11111111 + i, 1, (uint8_t *)"abcdefghi" + i };
    }
    qcow2_exts_store(in, ARRAY_SIZE(in), buf, 112, sizeof(buf));
    assert_int_equal(qcow2_exts_parse(buf, sizeof(buf), &h, &out, &n, NULL), 0);
    assert_int_equal(n, ARRAY_SIZE(in));
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(out[i].type, in[i].type);
        assert_int_equal(out[i].data[0], 'a' + i);
    }
    qcow2_exts_free(out, n);
}

/* Of an image that is encrypted as well: the unknown feature is told, by its name. */
static void an_encrypted_image_tells_its_unknown_features(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext exts[2] = { { QCOW2_EXT_CRYPTO, 16, mem_zalloc(16) },
                                 { QCOW2_EXT_FEATURES, 48, mem_zalloc(48) } };
    uint8_t buf[4096] = { 0 };
    char *text;

    exts[1].data[1] = 5;
    strcpy((char *)exts[1].data + 2, "time travel");
    h.incompatible = 1 << 5;
    h.crypt_method = 2;
    qcow2_header_store(&h, buf);
    qcow2_exts_store(exts, 2, buf, h.header_length, sizeof(buf));
    assert_int_equal(parse(buf, sizeof(buf), FILE_SIZE, &text), -ENOTSUP);
    assert_string_equal(text, "Unsupported qcow2 feature(s): time travel");
    free(text);
    free(exts[0].data);
    free(exts[1].data);
}

static void only_a_whole_beginning_of_a_known_version_is_taken_for_qcow2(void **state)
{
    static const struct {
        const char *head;
        size_t len;
        bool is;
    } rows[] = {
        { "QFI\xfb\0\0\0\2", 8, true }, { "QFI\xfb\0\0\0\3", 8, true }, { "QFI\xfb\0\0\0\1", 8, false },
        { "QFI\xfb\0\0\0\3", 7, false }, { "QFI\xfc\0\0\0\3", 8, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(driver_qcow2.probe((const uint8_t *)rows[i].head, rows[i].len, "x") > 0, rows[i].is);
    }
}

/* The L1 table in front of the counts. */
static void tables_may_come_in_any_order(void **state)
{
    struct qcow2_header h = healthy();
    uint8_t buf[4096];
    char *text;

    h.l1_offset = 0x10000;
    h.reftable_offset = 0x20000;
    build(&h, buf, sizeof(buf));
    assert_int_equal(parse(buf, sizeof(buf), FILE_SIZE, &text), 0);
    free(text);
}

static void extensions_end_where_the_backing_name_begins(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext ext = { 0x11111111, 3, (uint8_t *)"abc" }, *out;
    unsigned n;
    uint8_t buf[512] = { 0 };

    qcow2_exts_store(&ext, 1, buf, 112, sizeof(buf));
    memcpy(buf + 128, "backing", 7); /* in the place of the end marker */
    h.backing_offset = 128;
    h.backing_len = 7;
    assert_int_equal(qcow2_exts_parse(buf, sizeof(buf), &h, &out, &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(qcow2_exts_end(&h, out, n), 128);
    qcow2_exts_free(out, n);
    /* The padding may be missing, the data not. */
    h.backing_offset = 123;
    assert_int_equal(qcow2_exts_parse(buf, sizeof(buf), &h, &out, &n, NULL), 0);
    qcow2_exts_free(out, n);
    h.backing_offset = 122;
    struct error err = ERROR_INIT;

    assert_int_equal(qcow2_exts_parse(buf, sizeof(buf), &h, &out, &n, &err), -EINVAL);
    assert_string_equal(err.text, "Header extension too large");
    error_clear(&err);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

static size_t put_snapshot(uint8_t *buf, size_t at, uint32_t extra, const char *id, const char *name)
{
    at = ROUND_UP(at, 8);
    memset(buf + at, 0, 40 + extra);
    store_be64(buf + at, 0x50000);
    store_be32(buf + at + 8, 7);
    store_be16(buf + at + 12, strlen(id));
    store_be16(buf + at + 14, strlen(name));
    store_be32(buf + at + 32, 99);
    store_be32(buf + at + 36, extra);
    if (extra >= 16) {
        store_be64(buf + at + 40, 1ull << 40);
        store_be64(buf + at + 48, 12345 * 512);
    }
    memcpy(buf + at + 40 + extra, id, strlen(id));
    memcpy(buf + at + 40 + extra + strlen(id), name, strlen(name));
    return at + 40 + extra + strlen(id) + strlen(name);
}

static void snapshots_are_read(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_snapshot *list;
    uint8_t buf[8192];
    uint64_t len;
    size_t end = put_snapshot(buf, 0, 0, "1", "before");

    end = put_snapshot(buf, end, 24, "2", "");
    end = put_snapshot(buf, end, 1024, "3", "x");
    h.nb_snapshots = 3;
    assert_int_equal(qcow2_snapshots_parse(buf, sizeof(buf), &h, &list, &len, NULL), 0);
    assert_int_equal(len, end);
    assert_string_equal(list[0].id, "1");
    assert_string_equal(list[0].name, "before");
    assert_int_equal(list[0].disk_size, h.size);
    assert_int_equal(list[0].vm_state_size, 99);
    assert_int_equal(list[1].vm_state_size, 1ull << 40);
    assert_int_equal(list[1].disk_size, 12345 * 512);
    assert_int_equal(list[1].l1_offset, 0x50000);
    assert_int_equal(list[1].l1_size, 7);
    assert_string_equal(list[2].name, "x");
    qcow2_snapshots_free(list, 3);
    for (size_t cut = 0; cut < end; cut++) {
        assert_int_equal(qcow2_snapshots_parse(buf, cut, &h, &list, &len, NULL), -EAGAIN);
    }
    struct error err = ERROR_INIT;

    store_be32(buf + 36, 1025);
    assert_int_equal(qcow2_snapshots_parse(buf, sizeof(buf), &h, &list, &len, &err), -EINVAL);
    assert_string_equal(err.text, "Too much extra metadata in snapshot table entry 0");
    error_clear(&err);
    h.nb_snapshots = QCOW2_MAX_SNAPSHOTS;
    assert_int_equal(qcow2_snapshots_parse(buf, 100, &h, &list, &len, NULL), -EINVAL);
}

/* --- Random damage ---------------------------------------------------------------------------- */

static void check_promises(const struct qcow2_header *h, uint64_t file_size)
{
    uint64_t cluster = 1ull << h->cluster_bits;
    uint64_t l2_entries = cluster / (h->incompatible & QCOW2_INCOMPAT_EXTL2 ? 16 : 8);

    assert_true(h->cluster_bits >= 9 && h->cluster_bits <= 21 && h->refcount_order <= 6);
    assert_true(h->header_length <= cluster);
    assert_true(h->l1_size == 0 || h->l1_offset >= cluster);
    assert_true(h->l1_size == 0 || h->l1_offset + h->l1_size * 8ull <= file_size);
    assert_true(h->l1_size * 8ull <= QCOW2_MAX_L1_BYTES);
    assert_true(h->reftable_offset >= cluster);
    assert_true(h->reftable_offset + h->reftable_clusters * cluster <= file_size);
    assert_true(h->l1_offset % cluster == 0 && h->reftable_offset % cluster == 0);
    assert_true((unsigned __int128)h->l1_size * l2_entries * cluster >= h->size);
    if (h->backing_offset) {
        assert_true(h->backing_offset >= h->header_length);
        assert_true(h->backing_offset + h->backing_len <= cluster);
    }
}

static void damaged_headers_break_nothing(void **state)
{
    unsigned accepted = 0;

    for (unsigned round = 0; round < 60000; round++) {
        struct qcow2_header h = healthy(), out;
        struct qcow2_ext *exts;
        uint8_t buf[4096];
        unsigned n;

        build(&h, buf, sizeof(buf));
        for (uint64_t k = random_below(&rnd, 4); k < 4; k++) {
            uint64_t at = random_below(&rnd, random_below(&rnd, 4) ? 128 : 640);

            buf[at] ^= random_below(&rnd, 2) ? random_next(&rnd) : 1u << random_below(&rnd, 8);
        }
        size_t len = random_below(&rnd, 8) ? sizeof(buf) : random_below(&rnd, sizeof(buf));
        /* What is read beyond `len` is a fault for the sanitizer: hand over a copy of that
         * length. */
        uint8_t *copy = mem_dup(buf, len);

        if (!qcow2_header_parse(copy, len, FILE_SIZE, &out, NULL)) {
            check_promises(&out, FILE_SIZE);
            accepted++;
            if (!qcow2_exts_parse(copy, len, &out, &exts, &n, NULL)) {
                assert_true(qcow2_exts_end(&out, exts, n) <= 1ull << out.cluster_bits);
                qcow2_exts_free(exts, n);
            }
        }
        free(copy);
    }
    assert_true(accepted > 1000); /* else the damage was too great to test anything */
}

static void damaged_snapshot_tables_break_nothing(void **state)
{
    for (unsigned round = 0; round < 20000; round++) {
        struct qcow2_header h = healthy();
        struct qcow2_snapshot *list;
        uint8_t buf[1024] = { 0 };
        uint64_t len;
        size_t end = 0;

        h.nb_snapshots = 1 + random_below(&rnd, 6);
        for (unsigned i = 0; i < 4; i++) {
            end = put_snapshot(buf, end, random_below(&rnd, 40), "17", "a name");
        }
        for (uint64_t k = random_below(&rnd, 5); k < 4; k++) {
            buf[random_below(&rnd, end)] = random_next(&rnd);
        }
        size_t size = random_below(&rnd, sizeof(buf));
        uint8_t *copy = mem_dup(buf, size);

        if (!qcow2_snapshots_parse(copy, size, &h, &list, &len, NULL)) {
            assert_true(len <= size);
            qcow2_snapshots_free(list, h.nb_snapshots);
        }
        free(copy);
    }
}

/* --- A new backing name ----------------------------------------------------------------------- */

/* What a header says. */
struct said {
    char name[1100], format[64];
    unsigned others; /* extensions that are neither the format nor the names of feature bits */
    uint32_t sum;    /* ... and a sum over them and over the other fields */
};

static bool read_back(const uint8_t *cluster, uint32_t cluster_size, struct said *out)
{
    struct qcow2_header h;
    struct qcow2_ext *exts;
    unsigned n;

    memset(out, 0, sizeof(*out));
    if (qcow2_header_parse(cluster, cluster_size, 1ull << 40, &h, NULL) ||
        qcow2_exts_parse(cluster, cluster_size, &h, &exts, &n, NULL)) {
        return false;
    }
    if (h.backing_offset) {
        memcpy(out->name, cluster + h.backing_offset, h.backing_len);
    }
    for (unsigned i = 0; i < n; i++) {
        if (exts[i].type == QCOW2_EXT_BACKING_FORMAT) {
            memcpy(out->format, exts[i].data, exts[i].len);
        } else if (exts[i].type != QCOW2_EXT_FEATURES) {
            out->others++;
            out->sum = out->sum * 31 + exts[i].type;
            for (uint32_t k = 0; k < exts[i].len; k++) {
                out->sum = out->sum * 31 + exts[i].data[k];
            }
        }
    }
    qcow2_exts_free(exts, n);
    out->sum += (uint32_t)(h.l1_offset + h.size + h.autoclear + cluster[h.header_length - 1]);
    return true;
}

static char *random_name(size_t most)
{
    size_t len = 1 + random_below(&rnd, most);
    char *name = mem_zalloc(len + 1);

    for (size_t i = 0; i < len; i++) {
        name[i] = 'a' + random_below(&rnd, 26);
    }
    return name;
}

/* Some header as others may have written it. */
static void random_header(uint8_t *cluster, uint32_t bits)
{
    static const char *const formats[] = { "raw", "qcow2", "host_device", "vmdk" };
    uint32_t size = 1u << bits;
    struct qcow2_header h = healthy();
    struct qcow2_ext exts[6], features = qcow2_feature_table();
    unsigned n = 0;

    h.version = 2 + random_below(&rnd, 2);
    h.header_length = h.version == 2 ? 72 : 104 + 8 * random_below(&rnd, 4);
    h.cluster_bits = bits;
    h.size = 512;
    h.l1_size = 1;
    h.l1_offset = 3ull << bits;
    h.reftable_offset = 1ull << bits;
    memset(cluster, random_next(&rnd), size); /* the unused rest is anything */
    memset(cluster + 72, 0, 104);
    if (random_below(&rnd, 2)) {
        const char *format = formats[random_below(&rnd, 4)];

        exts[n++] = (struct qcow2_ext){ QCOW2_EXT_BACKING_FORMAT, strlen(format), (uint8_t *)format };
    }
    if (h.version == 3 && bits > 9 && random_below(&rnd, 3)) {
        exts[n++] = features;
    }
    if (random_below(&rnd, 3) == 0) {
        exts[n++] = (struct qcow2_ext){ 0x12121212, random_below(&rnd, 50), features.data };
    }
    uint64_t end = qcow2_exts_store(exts, n, cluster, h.header_length, size);

    assert_true(end);
    if (random_below(&rnd, 4) == 0) {
        end -= 8; /* no end marker: the name comes in its place */
    }
    if (random_below(&rnd, 3) && end < size) {
        uint64_t gap = random_below(&rnd, 3) ? 0 : random_below(&rnd, size - end);
        char *name = random_name(MIN(MIN(size - end - gap, 1023ull), 1 + random_below(&rnd, 1023)));

        h.backing_offset = end + gap;
        h.backing_len = strlen(name);
        memcpy(cluster + h.backing_offset, name, h.backing_len);
        free(name);
    }
    qcow2_header_store(&h, cluster);
    free(features.data);
}

/* Stage 1 as the disk may have it after a power cut: any of the sectors that it writes. */
static void apply_stage_1(uint8_t *cluster, uint32_t size, const struct qcow2_backing_plan *plan, bool all)
{
    uint8_t *after = mem_dup(cluster, size);

    if (plan->tail_to > plan->tail_from) {
        assert_true(plan->tail_from >= SECTOR && plan->tail_to <= plan->head_len);
        memcpy(after + plan->tail_from, plan->head + plan->tail_from, plan->tail_to - plan->tail_from);
    }
    if (plan->name_len) {
        assert_true(plan->name_at >= SECTOR && plan->name_at + plan->name_len <= size);
        memcpy(after + plan->name_at, plan->name_part, plan->name_len);
    }
    for (uint32_t at = 0; at < size; at += SECTOR) {
        if (all || random_below(&rnd, 2)) {
            memcpy(cluster + at, after + at, SECTOR);
        }
    }
    free(after);
}

static unsigned try_plan(uint8_t *cluster, uint32_t bits, const char *name, const char *format)
{
    uint32_t size = 1u << bits;
    struct qcow2_header h;
    struct qcow2_ext *exts;
    struct qcow2_backing_plan plan;
    struct said before, now, target;
    unsigned n;

    assert_int_equal(qcow2_header_parse(cluster, size, 1ull << 40, &h, NULL), 0);
    assert_int_equal(qcow2_exts_parse(cluster, size, &h, &exts, &n, NULL), 0);
    uint32_t head_len = ROUND_UP(qcow2_exts_end(&h, exts, n), SECTOR);
    uint8_t *head = mem_dup(cluster, head_len);

    assert_true(read_back(cluster, size, &before));
    bool done = qcow2_backing_plan(&h, head, head_len, exts, n, name, format, &plan);

    if (done) {
        for (unsigned torn = 0; torn < 5; torn++) {
            uint8_t *crashed = mem_dup(cluster, size);

            apply_stage_1(crashed, size, &plan, torn == 0);
            assert_true(read_back(crashed, size, &now));
            assert_memory_equal(&now, &before, sizeof(now));
            free(crashed);
        }
        target = before;
        memset(target.name, 0, sizeof(target.name));
        memset(target.format, 0, sizeof(target.format));
        strcpy(target.name, name ? name : "");
        strcpy(target.format, name && format ? format : "");
        apply_stage_1(cluster, size, &plan, true);
        memcpy(cluster, plan.head, SECTOR);
        assert_true(read_back(cluster, size, &now));
        if (!name) {
            memset(now.format, 0, sizeof(now.format)); /* may stay behind */
        }
        assert_memory_equal(&now, &target, sizeof(now));
    }
    qcow2_backing_plan_free(&plan);
    qcow2_exts_free(exts, n);
    free(head);
    return done;
}

static void a_crash_leaves_the_old_name_or_the_new_one(void **state)
{
    static const char *const formats[] = { NULL, "raw", "qcow2", "host_device" };
    unsigned done = 0, refused = 0;

    for (unsigned round = 0; round < 3000; round++) {
        uint32_t bits = 9 + random_below(&rnd, 5);
        uint8_t *cluster = mem_alloc(1u << bits);

        random_header(cluster, bits);
        for (unsigned step = 0; step < 4; step++) {
            char *name = random_below(&rnd, 5) ? random_name(random_below(&rnd, 2) ? 30 : 1023) : NULL;

            if (try_plan(cluster, bits, name, formats[random_below(&rnd, 4)])) {
                done++;
            } else {
                refused++;
            }
            free(name);
        }
        free(cluster);
    }
    assert_true(done > 6000 && refused > 100);
}

static void usual_changes_have_room(void **state)
{
    uint8_t *cluster = mem_zalloc(65536);
    struct qcow2_header h = healthy();

    build(&h, cluster, 65536);
    assert_true(try_plan(cluster, 16, "file-D.img", "qcow2"));
    assert_true(try_plan(cluster, 16, "file-C.img", "qcow2"));
    assert_true(try_plan(cluster, 16, "file-A.img", "raw"));
    assert_true(try_plan(cluster, 16, NULL, NULL));
    assert_true(try_plan(cluster, 16, "file-A.img", NULL));
    char *longest = mem_alloc(1025);

    memset(longest, 'x', 1024);
    longest[1023] = 0;
    assert_true(try_plan(cluster, 16, longest, "qcow2"));
    longest[0] = 'y';
    assert_true(try_plan(cluster, 16, longest, "raw"));
    longest[1023] = 'x';
    longest[1024] = 0;
    assert_false(try_plan(cluster, 16, longest, "raw"));
    assert_false(try_plan(cluster, 16, "", "raw"));
    assert_false(try_plan(cluster, 16, "a", "a-format-too-long-for-its-field"));
    free(longest);
    free(cluster);
}

static void one_sector_is_enough_for_short_names(void **state)
{
    uint8_t cluster[512] = { 0 };
    struct qcow2_header h = healthy();

    h.cluster_bits = 9;
    h.size = 512;
    h.l1_size = 1;
    h.l1_offset = 1536;
    h.reftable_offset = 512;
    qcow2_header_store(&h, cluster);
    assert_true(try_plan(cluster, 9, "some-file.img", "qcow2"));
    assert_true(try_plan(cluster, 9, "another.img", "raw"));
    assert_true(try_plan(cluster, 9, NULL, NULL));
}

/* A header of which little more than its fields and an extension that nobody knows fits into the first sector. */
static struct qcow2_header crowded(uint8_t *cluster, uint32_t bits)
{
    struct qcow2_header h = healthy();
    uint8_t data[376] = { 1 };
    struct qcow2_ext ext = { 0x12345678, sizeof(data), data };

    h.cluster_bits = bits;
    h.size = 512;
    h.l1_size = 1;
    h.l1_offset = 3 << bits;
    h.reftable_offset = 1 << bits;
    memset(cluster, 0, 1 << bits);
    qcow2_header_store(&h, cluster);
    assert_true(qcow2_exts_store(&ext, 1, cluster, h.header_length, 512));
    return h;
}

static void extensions_that_leave_no_room_refuse_a_name_and_let_one_go(void **state)
{
    uint8_t cluster[512];

    crowded(cluster, 9);
    assert_false(try_plan(cluster, 9, "x", "raw"));
    assert_true(try_plan(cluster, 9, NULL, NULL));
}

static void an_empty_name_keeps_no_place(void **state)
{
    uint8_t cluster[4096];
    struct qcow2_header h = crowded(cluster, 12);

    h.backing_offset = 516;
    qcow2_header_store(&h, cluster);
    assert_true(try_plan(cluster, 12, "some-file.img", "qcow2"));
}

static void of_two_formats_one_is_left(void **state)
{
    struct qcow2_header h = healthy();
    struct qcow2_ext exts[] = { { QCOW2_EXT_BACKING_FORMAT, 3, (uint8_t *)"raw" }, { 0x12345678, 3, (uint8_t *)"abc" },
                                { QCOW2_EXT_BACKING_FORMAT, 5, (uint8_t *)"qcow2" } };
    static uint8_t cluster[65536];
    struct qcow2_backing_plan plan;

    qcow2_header_store(&h, cluster);
    assert_true(qcow2_exts_store(exts, 3, cluster, h.header_length, sizeof(cluster)));
    assert_true(qcow2_backing_plan(&h, cluster, SECTOR, exts, 3, "x", "vmdk", &plan));
    assert_int_equal(plan.n_exts, 2);
    assert_memory_equal(plan.exts[0].data, "vmdk", 4);
    assert_int_equal(plan.exts[1].type, 0x12345678);
    qcow2_backing_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_fields_are_refused_in_words),
        cmocka_unit_test(truncated_headers_are_refused),
        cmocka_unit_test(unknown_features_are_refused_by_their_names),
        cmocka_unit_test(version_2_has_the_defaults_of_version_3),
        cmocka_unit_test(sizes_stay_below_2_to_the_63rd),
        cmocka_unit_test(small_subclusters_are_refused),
        cmocka_unit_test(backing_names_must_fit),
        cmocka_unit_test(unknown_extensions_are_kept),
        cmocka_unit_test(extensions_end_where_the_backing_name_begins),
        cmocka_unit_test(snapshots_are_read),
        cmocka_unit_test(damaged_headers_break_nothing),
        cmocka_unit_test(damaged_snapshot_tables_break_nothing),
        cmocka_unit_test(a_crash_leaves_the_old_name_or_the_new_one),
        cmocka_unit_test(usual_changes_have_room),
        cmocka_unit_test(one_sector_is_enough_for_short_names),
        cmocka_unit_test(any_number_of_extensions_is_kept),
        cmocka_unit_test(an_encrypted_image_tells_its_unknown_features),
        cmocka_unit_test(tables_may_come_in_any_order),
        cmocka_unit_test(only_a_whole_beginning_of_a_known_version_is_taken_for_qcow2),
        cmocka_unit_test(extensions_that_leave_no_room_refuse_a_name_and_let_one_go),
        cmocka_unit_test(an_empty_name_keeps_no_place),
        cmocka_unit_test(of_two_formats_one_is_left),
    };

    random_seed(&rnd, 20240601);
    return cmocka_run_group_tests_name("qcow2-header", tests, NULL, NULL);
}
