/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chains of qcow2 images with damaged metadata, opened and operated.
 *
 * An input is a recipe, so that every one of them gets far: which valid chain (lib/images.h); up to three words of metadata
 * and what they become; what is done then.
 *
 *     u8 chain, u8 damages, damages * { u8 place, u16 index, u8 how, u64 value }, { u8 operation, u16 sector, u8 sectors }...
 *
 * What is demanded besides F1 to F4 (lib/fuzz.h):
 *
 *     T1  an image in which the check finds nothing wrong behaves: every request succeeds, reads give what was written
 *         last or what was there before, and the check (ours, and the explorer's, which shares nothing with it) finds
 *         nothing wrong afterwards
 *     T2  whatever the damage, the image stays one: no request makes its header unreadable
 *     T3  a repair that reports success leaves an image in which the check finds nothing wrong
 *
 * Content in images that the check finds wrong is not compared: two entries for one cluster that is counted once look, from
 * either, as they should, and nobody can write to one without changing the other.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "block/qcow2-check.h"
#include "block/qcow2.h"
#include "block/snapshot.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "explore/checker.h"
#include "jobs/job.h"
#include "tests/fuzz/lib/fuzz.h"
#include "tests/fuzz/lib/images.h"

#define SECTOR 512u
#define SECTORS (IMAGES_MAX_DISK / SECTOR)
#define OPS_MAX 24u
#define DAMAGE_BYTES 12u

static bool talks;

enum knowledge { UNKNOWN, KNOWN };

static struct {
    const struct fuzz_image *image;
    struct disk *disk;
    uint64_t sectors;             /* of the disk, those we look at */
    uint8_t content[IMAGES_MAX_DISK];
    uint8_t known[SECTORS];       /* enum knowledge */
    bool clean;                   /* T1 holds */
    bool told;                    /* a request failed, or an image was marked corrupt */
    char top[16];                 /* path */
    unsigned overlays, writes;
    struct co_group group;        /* requests side by side */
} w;

/* --- Metadata words --------------------------------------------------------------------------------- */

static uint64_t peek(const char *path, uint64_t offset)
{
    uint8_t bytes[8] = { 0 };

    io_sim_read(path, offset, bytes, 8);
    return load_be64(bytes);
}

static uint64_t size_of(const char *path)
{
    uint64_t size = 0;

    io_sim_size(path, &size);
    return size;
}

enum place { HEADER, L1, L2, REFTABLE, REFBLOCK, SNAPSHOT, SNAPSHOT_L1, ANYWHERE, PLACES };

static uint64_t l2_table(const char *path, unsigned index)
{
    uint64_t entries = peek(path, 32) & UINT32_MAX;

    return entries ? peek(path, peek(path, 40) + index % entries * 8) & QCOW2_L1_OFFSET_MASK : 0;
}

/* Where the word lies; without such a table, somewhere in the header. */
static uint64_t place(const char *path, unsigned kind, uint16_t index, uint32_t cluster)
{
    uint64_t snapshots = peek(path, 64), per_table = MAX(cluster / 8, 1u);

    switch (kind % PLACES) {
    case L1:
        return peek(path, 40) + index % MAX(peek(path, 32) & UINT32_MAX, 1ull) * 8;
    case L2:
        return l2_table(path, index / per_table) + index % per_table * 8;
    case REFTABLE:
        return peek(path, 48) + index % per_table * 8;
    case REFBLOCK:
        return (peek(path, peek(path, 48)) & ~511ull) + index % per_table * 8;
    case SNAPSHOT:
        return snapshots ? snapshots + index % 16 * 4 : 60;
    case SNAPSHOT_L1:
        return snapshots ? peek(path, snapshots) + index % 4 * 8 : 64;
    case ANYWHERE:
        return (uint64_t)index * 8 % MAX(size_of(path), 8ull) & ~7ull;
    default:
        return index % 28 * 4;
    }
}

/* The offset of something, perhaps of another kind than is asked for. */
static uint64_t some_offset(const char *path, uint64_t value, uint32_t cluster)
{
    uint64_t snapshots = peek(path, 64), end = ROUND_UP(size_of(path), (uint64_t)cluster);

    switch (value % 10) {
    case 0:
        return peek(path, 40);
    case 1:
        return peek(path, 48);
    case 2:
        return peek(path, peek(path, 48)) & ~511ull;
    case 3:
    case 4:
        return l2_table(path, value / 10);
    case 5:
        return snapshots ? snapshots : cluster;
    case 6:
        return end - cluster;
    case 7:
        return end + value / 10 % 8 * cluster;
    default:
        return value / 10 % 64 * cluster;
    }
}

static uint64_t changed(const char *path, uint64_t old, unsigned how, uint64_t value, uint32_t cluster)
{
    uint64_t flags = value >> 56 << 56 | (value >> 55 & 1);

    switch (how % 6) {
    case 0:
        return value;
    case 1:
        return (1ull << value % 64) + value / 64 % 3 - 1;
    case 2:
        return some_offset(path, value & 0xffff, cluster) | (flags & (QCOW2_COPIED | QCOW2_ZERO));
    case 3:
        return some_offset(path, value & 0xffff, cluster) | flags;
    case 4:
        return old ^ 1ull << value % 64;
    default:
        return old + (int8_t)value * (value & 0x100 ? 512ull : value & 0x200 ? 1ull : cluster);
    }
}

static void damage(struct fuzz_input *in)
{
    unsigned kind = fuzz_u8(in);
    uint16_t index = fuzz_u16(in);
    unsigned how = fuzz_u8(in);
    uint64_t value = fuzz_u64(in);
    bool below = kind & 0x80 && w.image->below && strcmp(w.image->below, "/raw");
    const char *path = below ? w.image->below : w.image->path;
    uint32_t cluster = 1u << (peek(path, 16) & 31);
    uint64_t at = place(path, kind & 0x7f, index, cluster);
    uint8_t bytes[8];

    if ((kind & 0x7f) == 0x7f) { /* the file ends early */
        uint64_t size = value % (size_of(path) + 1);
        AUTOFREE uint8_t *copy = mem_alloc(size + 1);

        io_sim_read(path, 0, copy, size);
        io_sim_create(path, size);
        io_sim_write(path, 0, copy, size);
    } else if (at <= size_of(path) - 8 && size_of(path) >= 8) {
        store_be64(bytes, changed(path, peek(path, at), how, value, cluster));
        io_sim_write(path, at, bytes, 8);
    }
}

/* --- The check, and the other check ------------------------------------------------------------------- */

static struct node *co_open(const char *path, bool writable)
{
    json_t *options = json_pack("{s:s, s:b, s:s}", "driver", "qcow2", "read-only", (int)!writable, "discard", "unmap");
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(path, options, &err);

    FUZZ_CHECK(node || err.text, "refused without a word");
    json_decref(options);
    error_clear(&err);
    return node;
}

/* For whoever looks at a finding: MERGANSER_FUZZ_SAY=1 in the environment. */
static void say(void *arg, const char *line)
{
    fprintf(stderr, "# %s: %s\n", (const char *)arg, line);
}

/* -1: it could not be done. */
static int co_corruptions(const char *path, unsigned fix)
{
    struct qcow2_report report = { .say = talks ? say : NULL, .arg = (void *)path };
    struct error err = ERROR_INIT;
    struct node *node = co_open(path, false);
    int ret = -1;

    if (node) {
        if (!co_qcow2_report(node, fix, &report, &err)) {
            ret = MIN(report.corruptions, 1000ull);
        }
        co_node_unref(node);
    }
    error_clear(&err);
    return ret;
}

static void read_path(void *arg, uint64_t offset, void *buf, size_t len)
{
    io_sim_read(arg, offset, buf, len);
}

/* The other one must agree that references and counts are sound (rules 2, 8, 11).  Where it asks for more than ours (whole
 * sectors, reserved bits, nothing used twice even when the count says two) the image is not held to T1. */
static bool others_agree(const char *path)
{
    static const char *const more[] = { "COPIED without a cluster", " is ", "L1 table of 0 entries" };
    struct checker_source source = { .arg = (void *)path, .read = read_path, .size = size_of(path) };
    struct checker_report report = { 0 };

    checker_close(checker_open_qcow2(&source, &report));
    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        if (strstr(report.text, more[i])) {
            return false;
        }
    }
    FUZZ_CHECK(report.rule != 2 && report.rule != 8 && report.rule != 11, "%s is said to be sound, but (%u) %s", path,
               report.rule, report.text);
    return !report.rule;
}

/* A place that the active tables lead to twice.  Sound when it is counted twice; but when one of two entries for it goes, nobody
 * looks for the other to set COPIED (tests/unit/qcow2-shared.c has what must hold). */
static bool leads_there_twice(uint8_t *seen, uint64_t size, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;

    return !(entry & QCOW2_COMPRESSED) && offset && offset < size && seen[offset / SECTOR]++;
}

static bool shares(const char *path)
{
    uint64_t size = size_of(path), l1 = peek(path, 40), entries = MIN(peek(path, 32) & UINT32_MAX, 64ull);
    unsigned step = peek(path, 72) & QCOW2_INCOMPAT_EXTL2 && (peek(path, 0) & 3) == 3 ? 16 : 8;
    AUTOFREE uint8_t *seen = mem_zalloc(size / SECTOR + 1);
    uint32_t cluster = 1u << (peek(path, 16) & 31);
    AUTOFREE uint8_t *table = mem_alloc(cluster);
    bool twice = false;

    for (uint64_t i = 0; i < entries; i++) {
        uint64_t l2 = peek(path, l1 + 8 * i) & QCOW2_L1_OFFSET_MASK;

        twice = twice || leads_there_twice(seen, size, l2);
        io_sim_read(path, l2, table, cluster);
        for (uint32_t k = 0; l2 && k < cluster; k += step) {
            twice = twice || leads_there_twice(seen, size, load_be64(table + k));
        }
    }
    return twice;
}

static bool co_is_clean(const char *path)
{
    if (!path || strcmp(path, "/raw") == 0) {
        return true;
    }
    for (unsigned i = 0; i < fuzz_n_images; i++) {
        if (strcmp(fuzz_images[i].path, path) == 0 && !co_is_clean(fuzz_images[i].below)) {
            return false;
        }
    }
    return co_corruptions(path, 0) == 0 && others_agree(path) && !shares(path);
}

/* --- What is known --------------------------------------------------------------------------------------- */

static void note(int ret, const char *what)
{
    if (ret < 0) {
        w.told = true;
        FUZZ_CHECK(!w.clean, "%s of a sound image: %s", what, strerror(-ret));
    }
}

static int co_read(uint64_t sector, uint64_t sectors, uint8_t *buf)
{
    struct iovec iov = { buf, sectors * SECTOR };

    return co_disk_read(w.disk, sector * SECTOR, &iov, 1);
}

static void compare(const uint8_t *seen, uint64_t sector, const char *when)
{
    FUZZ_CHECK(w.known[sector] == UNKNOWN || memcmp(seen, w.content + sector * SECTOR, SECTOR) == 0,
               "sector %llu changed (%s)", (unsigned long long)sector, when);
}

/* All at once; by and by where that fails. */
static void co_each(void (*fn)(const uint8_t *seen, uint64_t sector, const char *when), const char *when)
{
    static uint8_t all[IMAGES_MAX_DISK];
    uint64_t step = w.sectors;

    for (uint64_t s = 0; s < w.sectors; s += step) {
        int ret = co_read(s, MIN(step, w.sectors - s), all);

        if (ret && step > 1) {
            step = MAX(w.image->cluster / SECTOR / 16, 1u);
            ret = co_read(s, MIN(step, w.sectors - s), all);
        }
        if (!ret) {
            for (uint64_t i = 0; i < step && s + i < w.sectors; i++) {
                fn(all + i * SECTOR, s + i, when);
            }
        } else {
            note(ret, "a read");
        }
    }
}

static void learn(const uint8_t *seen, uint64_t sector, const char *when)
{
    memcpy(w.content + sector * SECTOR, seen, SECTOR);
    w.known[sector] = KNOWN;
}

/* Only sound images are held to their content. */
static void co_verify(const char *when)
{
    if (w.clean) {
        co_each(compare, when);
    }
}

/* --- Operations --------------------------------------------------------------------------------------------- */

enum op { READ, WRITE, ZERO, UNMAP, DISCARD, FLUSH, SNAPSHOT_NEW, STREAM, REOPEN, GROW, WRITE_BIG, OPS };

struct request {
    enum op op;
    uint64_t sector, sectors;
    bool beside; /* others run meanwhile */
};

static void forget(const struct request *r)
{
    memset(w.known + r->sector, UNKNOWN, r->sectors);
}

static int co_change(const struct request *r, uint8_t *buf)
{
    struct iovec iov = { buf, r->sectors * SECTOR };
    uint64_t offset = r->sector * SECTOR, len = r->sectors * SECTOR;

    switch (r->op) {
    case ZERO:
    case UNMAP:
        memset(buf, 0, len);
        return co_disk_zero(w.disk, offset, len, r->op == UNMAP);
    case DISCARD:
        return co_disk_discard(w.disk, offset, len);
    default:
        for (uint64_t i = 0; i < len; i += 4) {
            store_le32(buf + i, (w.writes << 20) + i + 1);
        }
        w.writes++;
        return co_disk_write(w.disk, offset, &iov, 1);
    }
}

static void co_request(const struct request *r)
{
    AUTOFREE uint8_t *buf = mem_alloc(r->sectors * SECTOR);
    bool remembers = !r->beside && r->op != DISCARD;
    int ret;

    if (r->op == READ) {
        ret = co_read(r->sector, r->sectors, buf);
        note(ret, "a read");
        for (uint64_t i = 0; !ret && !r->beside && i < r->sectors; i++) {
            compare(buf + i * SECTOR, r->sector + i, "a read");
        }
        return;
    }
    forget(r);
    ret = co_change(r, buf);
    note(ret, "a change");
    if (r->beside) {
        forget(r);
    } else if (!ret && remembers && w.clean) {
        memcpy(w.content + r->sector * SECTOR, buf, r->sectors * SECTOR);
        memset(w.known + r->sector, KNOWN, r->sectors);
    }
}

static CO_ENTRY void co_beside(void *arg)
{
    struct request *r = arg;

    co_request(r);
    free(r);
    co_group_done(&w.group, 0);
}

static void co_snapshot(void)
{
    AUTOFREE char *path = mem_printf("/over%u", w.overlays);
    struct snapshot_args args = { .device = "disk", .file = path, .format = "qcow2" };
    struct error err = ERROR_INIT;
    int ret = w.overlays < 4 ? co_snapshot_sync(&args, &err) : -EBUSY;

    if (!ret) {
        w.overlays++;
        strcpy(w.top, path);
    }
    FUZZ_CHECK(!ret || !w.clean || ret == -EBUSY, "a snapshot of a sound image: %s", err.text);
    error_clear(&err);
}

static void co_stream(unsigned choice)
{
    struct stream_args args = { .device = "disk", .job_id = "job", .auto_finalize = true, .auto_dismiss = true,
                                .backing_file = choice & 2 ? "elsewhere" : NULL };
    struct error err = ERROR_INIT;
    struct node *node = w.disk->root->backing;

    if (choice & 1 && node && node->backing) {
        args.base_node = node->name;
    } else {
        args.backing_file = NULL;
    }
    if (job_find("job") || co_stream_start(&args, &err)) {
        error_clear(&err);
        return;
    }
    struct job *job = job_find("job");

    if (job && !(choice & 4)) {
        job_ref(job);
        co_job_wait(job);
        note(job->ret, "a stream");
        job_unref(job);
    }
}

static bool co_attach(void)
{
    struct node *node = co_open(w.top, true);

    FUZZ_CHECK(node || !w.clean, "a sound image does not open");
    w.disk = node ? disk_new("disk", node) : NULL;
    return node;
}

static void co_end_jobs(void)
{
    struct job *job;

    co_job_cancel_all();
    while ((job = job_find("job"))) {
        job_ref(job);
        co_job_wait(job);
        job_unref(job);
        co_sleep_ns(1000);
    }
}

static void co_detach(void)
{
    (void)co_group_wait(&w.group);
    co_end_jobs();
    if (w.disk) {
        co_disk_free(w.disk);
    }
    w.disk = NULL;
}

static bool co_reopen(void)
{
    co_detach();
    return co_attach();
}

static void co_grow(void)
{
    struct error err = ERROR_INIT;

    if (node_check_free(w.disk->root, &err) == 0) { /* a job's sizes stay */
        (void)co_node_truncate(w.disk->root, w.disk->root->size + 4096, &err);
    }
    error_clear(&err);
}

/* False: the disk is gone. */
static bool co_operate(struct fuzz_input *in)
{
    unsigned kind = fuzz_u8(in);
    struct request r = { .op = (kind & 0x3f) % OPS, .sector = fuzz_u16(in), .sectors = 1u + fuzz_u8(in) % 32 };

    r.beside = kind & 0x80;
    r.sectors = MIN(r.op == WRITE_BIG ? 8 * r.sectors : r.sectors, w.sectors);
    r.sector %= w.sectors - r.sectors + 1;
    switch (r.op) {
    case FLUSH:
        note(co_disk_flush(w.disk), "a flush");
        return true;
    case SNAPSHOT_NEW:
        co_snapshot();
        return true;
    case STREAM:
        co_stream(r.sectors);
        return true;
    case REOPEN:
        return co_reopen();
    case GROW:
        co_grow();
        return true;
    default:
        break;
    }
    if (r.beside) {
        forget(&r);
        co_group_add(&w.group);
        co_start(co_beside, mem_dup(&r, sizeof(r)));
    } else {
        (void)co_group_wait(&w.group);
        co_request(&r);
    }
    return true;
}

/* --- A life ---------------------------------------------------------------------------------------------------- */

static void check_header(const uint8_t *before, const char *path)
{
    uint8_t now[48];

    io_sim_read(path, 0, now, sizeof(now));
    FUZZ_CHECK(memcmp(before, now, 8) == 0, "%s is no image any more", path);
}

static void co_look_again(void)
{
    if (!w.clean) {
        return;
    }
    FUZZ_CHECK(co_corruptions(w.top, 0) == 0, "%s is not sound any more", w.top);
    FUZZ_CHECK(others_agree(w.top), "%s is not sound any more for the other check", w.top);
    if (co_attach()) {
        co_verify("opened again");
        co_detach();
    }
}

static void co_repair(unsigned choice)
{
    unsigned fix = choice & 0x40 ? QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS : 0;

    if (fix && co_corruptions(w.top, fix) == 0) {
        FUZZ_CHECK(co_corruptions(w.top, 0) == 0, "a repair said that all is well");
    }
}

static CO_ENTRY void co_life(void *arg)
{
    struct fuzz_input *in = arg;
    unsigned choice = fuzz_u8(in), damages = fuzz_u8(in) % 4;
    uint8_t head[48];

    memset(w.known, UNKNOWN, sizeof(w.known));
    w.image = &fuzz_images[(choice & 0x3f) % fuzz_n_images];
    w.sectors = w.image->disk / SECTOR;
    w.clean = w.told = false;
    w.overlays = w.writes = 0;
    co_group_init(&w.group);
    strcpy(w.top, w.image->path);
    while (damages-- > 0) {
        damage(in);
    }
    io_sim_read(w.top, 0, head, sizeof(head));
    co_repair(choice);
    w.clean = co_is_clean(w.top);
    /* Soundness is one thing, that we can write another (an unknown feature, a size that is refused). */
    struct node *node = co_open(w.top, true);

    if (!node) {
        return;
    }
    w.sectors = MIN(w.sectors, node->size / SECTOR);
    w.disk = disk_new("disk", node);
    if (w.sectors) {
        bool clean = w.clean;

        w.clean = false; /* compressed clusters may hold anything, which no check asks about */
        co_each(learn, "at first");
        w.clean = clean && !w.told;
        if (!w.clean) {
            memset(w.known, UNKNOWN, sizeof(w.known));
        }
        for (unsigned n = 0; n < OPS_MAX && fuzz_more(in) && co_operate(in); n++) {
        }
    }
    if (w.disk) {
        (void)co_group_wait(&w.group);
        co_end_jobs();
        co_verify("at the end");
    }
    co_detach();
    check_header(head, w.image->path);
    co_look_again();
}

static void run(struct fuzz_input *in)
{
    loop_run_co(co_life, in);
}

static void set_up(void)
{
    talks = getenv("MERGANSER_FUZZ_SAY");
    fuzz_make_images();
    fuzz_keep_disk();
}

/* --- The mutator -------------------------------------------------------------------------------------------------- */

static size_t new_damage(uint8_t *p, struct random *rnd)
{
    p[0] = random_below(rnd, PLACES) | (random_below(rnd, 4) ? 0 : 0x80);
    if (random_below(rnd, 32) == 0) {
        p[0] |= 0x7f;
    }
    store_le16(p + 1, random_below(rnd, 2) ? random_below(rnd, 16) : random_next(rnd));
    p[3] = random_below(rnd, 6);
    store_le64(p + 4, random_below(rnd, 3) ? random_next(rnd) >> random_below(rnd, 64) : fuzz_boundary(rnd));
    return DAMAGE_BYTES;
}

static size_t new_op(uint8_t *p, struct random *rnd)
{
    p[0] = random_below(rnd, OPS) | (random_below(rnd, 4) ? 0 : 0x80);
    store_le16(p + 1, random_next(rnd));
    p[3] = random_next(rnd);
    return 4;
}

static size_t new_recipe(uint8_t *data, struct random *rnd)
{
    unsigned damages = random_below(rnd, 4);
    size_t len = 2;

    data[0] = random_below(rnd, fuzz_n_images) | (random_below(rnd, 8) ? 0 : 0x40);
    data[1] = damages;
    while (damages-- > 0) {
        len += new_damage(data + len, rnd);
    }
    for (uint64_t n = random_below(rnd, 16); n-- > 0;) {
        len += new_op(data + len, rnd);
    }
    return len;
}

static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    size_t ops = 2 + (len > 1 ? data[1] % 4 : 0) * DAMAGE_BYTES;

    if (max < 2 + 3 * DAMAGE_BYTES + 4 * 16) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    if (len < ops || random_below(rnd, 10) == 0) {
        return new_recipe(data, rnd);
    }
    switch (random_below(rnd, 5)) {
    case 0:
        data[0] = random_below(rnd, fuzz_n_images) | (data[0] & 0x40);
        return len;
    case 1:
    case 2:
        if (ops > 2) {
            new_damage(data + 2 + random_below(rnd, data[1] % 4) * DAMAGE_BYTES, rnd);
        }
        return len;
    case 3:
        return len + 4 <= max ? len + new_op(data + len, rnd) : ops;
    default:
        if (len >= ops + 4) {
            new_op(data + ops + random_below(rnd, (len - ops) / 4) * 4, rnd);
        }
        return len;
    }
}

const struct fuzz_target fuzz_target = {
    .name = "qcow2-tables",
    .set_up = set_up,
    .run = run,
    .mutate = mutate,
    .max_len = 256,
};
