/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first bytes of a qcow2 image: header, extensions, backing name, snapshot table.
 *
 * Input: 32 bits, the size of the file in sectors (modulo 24 MiB); then the file's bytes; what is missing is zeroes.
 *
 * Each goes through the pure parsers in memory of exactly its length, and through the driver on the simulated disk:
 * opened to be read and to be written, described, its backing file renamed.  What set-backing promised must be there when
 * the image is opened again, and everything else must be as it was.
 */
#include <string.h>

#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/fuzz/lib/images.h"

#define IMAGE "/image"
#define MAX_BYTES 8192u
#define FILE_MAX (24u << 20) /* an L1 table of 32 MiB, which is allowed, is held twice while an image is repaired */

static void parse(const uint8_t *bytes, size_t len, uint64_t file_size)
{
    AUTOFREE uint8_t *exact = mem_dup(bytes, len);
    struct qcow2_header h;
    struct qcow2_ext *exts = NULL;
    struct qcow2_snapshot *snapshots;
    uint64_t table_len;
    unsigned n = 0;

    if (qcow2_header_parse(exact, len, file_size, &h, NULL)) {
        return;
    }
    if (qcow2_exts_parse(exact, len, &h, &exts, &n, NULL) == 0) {
        /* The last one's padding and the end marker may have had no room. */
        uint64_t room = qcow2_exts_end(&h, exts, n) + 16;
        AUTOFREE uint8_t *again = mem_zalloc(room);

        qcow2_header_store(&h, again);
        FUZZ_CHECK(qcow2_exts_store(exts, n, again, h.header_length, room), "extensions became longer");
        qcow2_exts_free(exts, n);
    }
    if (qcow2_snapshots_parse(exact, len, &h, &snapshots, &table_len, NULL) == 0) {
        FUZZ_CHECK(table_len <= len, "a snapshot table of %llu bytes in %zu", (unsigned long long)table_len, len);
        qcow2_snapshots_free(snapshots, h.nb_snapshots);
    }
}

static struct node *co_open(bool writable)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b, s:n}", "driver", "qcow2", "read-only", (int)!writable, "backing");
    struct node *node = co_node_open(IMAGE, options, &err);

    FUZZ_CHECK(node || err.text, "refused without a word");
    json_decref(options);
    error_clear(&err);
    return node;
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void co_rename(struct node *node, const char *name, const char *format)
{
    struct error err = ERROR_INIT;
    const struct qcow2 *q = node->state;
    struct qcow2_header h = q->h;
    int ret = co_qcow2_set_backing(node, name, format, &err);

    FUZZ_CHECK(ret == 0 || err.text, "refused without a word");
    error_clear(&err);
    co_node_unref(node);
    if (ret) {
        return;
    }
    node = co_open(false);
    FUZZ_CHECK(node, "the image does not open any more");
    q = node->state;
    FUZZ_CHECK(same(node->backing_name, name), "the backing file is '%s'", node->backing_name);
    FUZZ_CHECK(q->h.size == h.size && q->h.l1_offset == h.l1_offset && q->h.l1_size == h.l1_size &&
                   q->h.reftable_offset == h.reftable_offset && q->h.incompatible == h.incompatible,
               "another field changed");
    co_node_unref(node);
}

static CO_ENTRY void co_drive(void *arg)
{
    struct fuzz_input *in = arg;
    struct node *node = co_open(false);

    if (!node) {
        return;
    }
    json_decref(node->driver->describe(node));
    co_node_unref(node);
    node = co_open(true);
    if (node) {
        static const char *const names[] = { "b", NULL, "a rather long name of a backing file.qcow2", "/" };
        unsigned last = in->len ? in->data[in->len - 1] : 0;

        co_rename(node, names[last % 4], last % 4 == 1 ? NULL : last & 4 ? "raw" : "qcow2");
    }
}

static void run(struct fuzz_input *in)
{
    uint64_t size = (uint64_t)fuzz_u32(in) * 512 % FILE_MAX;
    size_t len = MIN(in->len, (size_t)MAX_BYTES);

    parse(in->data, len, MAX(size, (uint64_t)len));
    io_sim_create(IMAGE, MAX(size, (uint64_t)len));
    io_sim_write(IMAGE, 0, in->data, len);
    loop_run_co(co_drive, in);
}

/* --- Valid images, and what to do to them ------------------------------------------------------------ */

static struct {
    uint8_t bytes[MAX_BYTES];
    size_t len;
    uint64_t size;
} valid[16];

static void set_up(void)
{
    fuzz_make_images();
    for (unsigned i = 0; i < fuzz_n_images; i++) {
        io_sim_size(fuzz_images[i].path, &valid[i].size);
        valid[i].len = MIN(valid[i].size, (uint64_t)MAX_BYTES);
        io_sim_read(fuzz_images[i].path, 0, valid[i].bytes, valid[i].len);
    }
    io_sim_reset();
}

struct field {
    uint16_t offset;
    uint8_t width;
};
static const struct field fields[] = {
    { 0, 4 },  { 4, 4 },  { 8, 8 },  { 16, 4 }, { 20, 4 }, { 24, 8 }, { 32, 4 },  { 36, 4 },  { 40, 8 },  { 48, 8 },
    { 56, 4 }, { 60, 4 }, { 64, 8 }, { 72, 8 }, { 80, 8 }, { 88, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 },
};

static uint64_t load(const uint8_t *p, unsigned width)
{
    return width == 8 ? load_be64(p) : width == 4 ? load_be32(p) : *p;
}

static void store(uint8_t *p, unsigned width, uint64_t value)
{
    if (width == 8) {
        store_be64(p, value);
    } else if (width == 4) {
        store_be32(p, value);
    } else {
        *p = value;
    }
}

/* A field of the header, or a word of the extensions or of the snapshot table. */
static struct field some_field(const uint8_t *head, size_t len, struct random *rnd)
{
    uint64_t at;

    switch (random_below(rnd, 4)) {
    case 0:
        at = load_be32(head + 100) + 4 * random_below(rnd, 32);
        break;
    case 1:
        at = load_be64(head + 64) + 4 * random_below(rnd, 20);
        break;
    default:
        return fields[random_below(rnd, ARRAY_SIZE(fields))];
    }
    return at <= len - 8 ? (struct field){ at, random_below(rnd, 2) ? 8 : 4 } : fields[0];
}

static uint64_t some_value(const uint8_t *head, uint64_t old, struct random *rnd)
{
    const struct field *other = &fields[random_below(rnd, ARRAY_SIZE(fields))];
    uint64_t cluster = 1ull << (load_be32(head + 20) & 31);

    switch (random_below(rnd, 6)) {
    case 0:
        return load(head + other->offset, other->width);
    case 1:
        return old + (random_below(rnd, 2) ? 1 : -1) * (random_below(rnd, 2) ? 1 : cluster);
    case 2:
        return old ^ 1ull << random_below(rnd, 64);
    case 3:
        return cluster * random_below(rnd, 16);
    default:
        return fuzz_boundary(rnd);
    }
}

static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    unsigned i = random_below(rnd, fuzz_n_images);

    if (max < 4 + 640) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    if (len < 4 + 112 || random_below(rnd, 8) == 0) {
        len = MIN(max, 4 + (random_below(rnd, 2) ? valid[i].len : 640));
        store_le32(data, valid[i].size / 512);
        memcpy(data + 4, valid[i].bytes, len - 4);
    }
    for (uint64_t n = 1 + random_below(rnd, 3); n-- > 0;) {
        struct field f = some_field(data + 4, len - 4, rnd);

        store(data + 4 + f.offset, f.width, some_value(data + 4, load(data + 4 + f.offset, f.width), rnd));
    }
    if (random_below(rnd, 16) == 0) {
        store_le32(data, fuzz_boundary(rnd));
    }
    return len;
}

const struct fuzz_target fuzz_target = {
    .name = "qcow2-header",
    .set_up = set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 4 + MAX_BYTES,
};
