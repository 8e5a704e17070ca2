/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests that make the host fail: images on the simulated disk, what each of their sectors may
 * hold, and what was promised.
 *
 * A scenario works on that and takes whatever comes: a refused request is no failure of the test.
 * Afterwards nothing that was promised may be missing:
 *
 *   - a sector of the guest holds its last value, or, where requests on it failed, one of those;
 *     when all that no flush covered is gone, one since the last flush that said success;
 *   - an image that a command said to have made or changed is there, durable, of that size, on that
 *     backing file;
 *   - the chain opens for writing, and the checker finds nothing but leaks;
 *   - coroutines, nodes, disks, jobs and open files are back at none, in bounded virtual time.
 *
 * The first thing that is wrong is kept in run->trouble.
 */
#ifndef TESTS_UNIT_FAULTS_RIG_H
#define TESTS_UNIT_FAULTS_RIG_H

#include <fcntl.h>

#include "block/disk.h"
#include "block/snapshot.h"
#include "core/io-sim-disk.h"
#include "explore/checker.h"
#include "jobs/job.h"
#include "tests/unit/qcow2-rig.h"

#define SECTOR 512u
#define KIB 1024u
#define DISK_BYTES (256u * KIB)
#define CELLS (DISK_BYTES / SECTOR)
#define HISTORY 24u
#define PROMISES 8u
#define VIRTUAL_NS_MAX (600 * NS_PER_S)
#define OPS_MAX 200000u

/* What a sector may hold: value[now..n), and after a power cut value[floor..n). */
struct cell {
    uint16_t value[HISTORY];
    uint8_t n, now, floor;
};

struct promise {
    const char *path;
    uint64_t size;       /* 0: whatever it is */
    const char *backing; /* NULL: whatever it is; "": none */
};

struct run;
struct scenario {
    const char *name;
    void (*co_run)(struct run *run);
    const char *top; /* where the guest's content is before */
};

struct run {
    const struct scenario *scenario;
    struct cell cell[CELLS];
    uint16_t next_value;
    const char *top; /* where the guest's content is now; NULL: nobody looks */
    struct disk *disk;
    struct promise promise[PROMISES];
    unsigned n_promises;
    unsigned refused; /* requests and commands that failed and said so */
    unsigned steps;
    bool unsaved;        /* the last flush failed: what no flush covered may be gone */
    /* It was opened again after that.  The host shows what it dropped, and has forgotten that it is
     * nowhere: tables that later writes rely on may be among it, so later flushes promise nothing. */
    bool forgotten;
    bool must_go_on;     /* one failure, not of a sync: what comes later is served */
    bool damage_allowed; /* lies: what was hit may be damaged, if it is told */
    char trouble[400];
};

static inline void trouble(struct run *run, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void trouble(struct run *run, const char *fmt, ...)
{
    va_list ap;

    if (run->trouble[0]) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(run->trouble, sizeof(run->trouble), fmt, ap);
    va_end(ap);
}

/* A command's result: failure must be told in words. */
static inline bool went_well(struct run *run, int ret, struct error *err, const char *what)
{
    run->steps++;
    if (ret >= 0) {
        if (error_is_set(err)) {
            trouble(run, "%s succeeds and complains: %s", what, err->text);
        }
        error_clear(err);
        return true;
    }
    if (!error_is_set(err)) {
        trouble(run, "%s fails without a word", what);
    }
    run->refused++;
    error_clear(err);
    return false;
}

static inline void promise(struct run *run, const char *path, uint64_t size, const char *backing)
{
    assert_true(run->n_promises < PROMISES);
    run->promise[run->n_promises++] = (struct promise){ path, size, backing };
}

/* --- Sectors ---------------------------------------------------------------------------------- */

static inline void cell_pattern(uint16_t value, uint32_t index, uint8_t *out)
{
    for (unsigned i = 0; i < SECTOR; i += 8) {
        store_le64(out + i, value ? (uint64_t)value << 32 | index << 8 | i : 0);
    }
}

static inline void cell_add(struct cell *cell, uint16_t value)
{
    if (cell->n == HISTORY) { /* an old one goes, one that nobody may see any more if there is one */
        unsigned gone = cell->floor ? 0 : cell->now;

        memmove(cell->value + gone, cell->value + gone + 1,
                (HISTORY - 1 - gone) * sizeof(cell->value[0]));
        cell->n--;
        cell->now -= gone < cell->now;
        cell->floor -= gone < cell->floor;
    }
    cell->value[cell->n++] = value;
}

static inline bool cell_may_be(const struct cell *cell, unsigned from, uint32_t index,
                               const uint8_t *bytes)
{
    uint8_t pattern[SECTOR];

    for (unsigned i = from; i < cell->n; i++) {
        cell_pattern(cell->value[i], index, pattern);
        if (memcmp(pattern, bytes, SECTOR) == 0) {
            return true;
        }
    }
    return false;
}

static inline void cells_done(struct run *run, uint64_t at, uint64_t len, int ret)
{
    run->steps++;
    run->refused += ret < 0;
    for (uint64_t i = at / SECTOR; ret >= 0 && i < (at + len) / SECTOR; i++) {
        run->cell[i].now = run->cell[i].n - 1;
    }
}

/* --- The guest -------------------------------------------------------------------------------- */

static inline int co_guest_write(struct run *run, uint64_t at, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_alloc(len);
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    uint16_t value = ++run->next_value;
    int ret;

    for (uint64_t i = 0; i < len; i += SECTOR) {
        uint32_t index = (at + i) / SECTOR;

        cell_add(&run->cell[index], value);
        cell_pattern(value, index, buf + i);
    }
    ret = co_disk_write(run->disk, at, &iov, 1);
    cells_done(run, at, len, ret);
    return ret;
}

static inline void co_guest_clear(struct run *run, uint64_t at, uint64_t len, bool discard)
{
    int ret;

    for (uint64_t i = at / SECTOR; i < (at + len) / SECTOR; i++) {
        cell_add(&run->cell[i], 0);
    }
    ret = discard ? co_disk_discard(run->disk, at, len) : co_disk_zero(run->disk, at, len, true);
    run->steps++;
    if (discard) {
        run->refused += ret < 0; /* what a discard leaves may be old or zero, whatever it says */
    } else {
        run->steps--;
        cells_done(run, at, len, ret);
    }
}

static inline void co_guest_flush(struct run *run)
{
    AUTOFREE uint8_t *floor = mem_alloc(CELLS);
    int ret;

    for (uint32_t i = 0; i < CELLS; i++) {
        floor[i] = run->cell[i].now;
    }
    ret = co_disk_flush(run->disk);
    run->unsaved = ret < 0;
    run->steps++;
    run->refused += ret < 0;
    for (uint32_t i = 0; i < CELLS && ret >= 0 && !run->forgotten; i++) {
        run->cell[i].floor = MAX(run->cell[i].floor, floor[i]);
    }
}

static inline void check_bytes(struct run *run, uint64_t at, uint64_t len, const uint8_t *buf,
                               bool after_cut, const char *when)
{
    for (uint64_t i = 0; i < len; i += SECTOR) {
        uint32_t index = (at + i) / SECTOR;
        const struct cell *cell = &run->cell[index];

        if (!cell_may_be(cell, after_cut ? cell->floor : cell->now, index, buf + i)) {
            trouble(run, "%s: sector %u holds %016llx, expected value %u", when, index,
                    (unsigned long long)load_le64(buf + i + 8), cell->value[cell->now]);
            return;
        }
    }
}

static inline void co_guest_read(struct run *run, uint64_t at, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_alloc(len);
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    int ret = co_disk_read(run->disk, at, &iov, 1);

    run->steps++;
    run->refused += ret < 0;
    if (ret >= 0 && !run->damage_allowed) {
        check_bytes(run, at, len, buf, false, "a read");
    }
}

/* --- Chains ----------------------------------------------------------------------------------- */

/* A chain with this image on top, its second image called "mid".  False: refused. */
static inline bool co_run_open(struct run *run, const char *path, const char *driver)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s*, s:s}", "driver", driver, "discard", "unmap");
    struct node *node;

    if (strcmp(path, "/D") == 0) {
        json_object_set_new(options, "backing", json_pack("{s:s}", "node-name", "mid"));
    }
    node = co_node_open(path, options, &err);
    json_decref(options);
    if (went_well(run, node ? 0 : -1, &err, "open")) {
        run->disk = disk_new("virtio0", node);
        run->forgotten = run->forgotten || run->unsaved;
        run->disk->rerror = run->disk->werror = DISK_REPORT;
        return true;
    }
    return false;
}

static inline void co_run_close(struct run *run)
{
    if (run->disk) {
        if (run->must_go_on) {
            uint64_t cluster = run->top ? 60 * 4096 : 0;
            int ret = co_guest_write(run, cluster + SECTOR, SECTOR);

            if (ret < 0) { /* it may have been the one that failed */
                ret = co_guest_write(run, cluster + SECTOR, SECTOR);
            }
            if (ret < 0) {
                trouble(run, "later requests fail: %s", strerror(-ret));
            }
        }
        co_guest_flush(run); /* as the program does, which then says so */
        co_disk_free(run->disk);
        run->disk = NULL;
    }
}

static inline void co_run_stream(struct run *run, const char *device, const char *base,
                                 uint64_t cancel_after, void (*co_meanwhile)(struct run *run))
{
    struct stream_args args = { .device = device, .job_id = "job", .base = base,
                                .auto_finalize = true, .auto_dismiss = false };
    struct error err = ERROR_INIT;
    struct job *job;

    if (!went_well(run, co_stream_start(&args, &err), &err, "stream")) {
        return;
    }
    job = job_ref(job_find("job"));
    if (co_meanwhile) {
        co_meanwhile(run);
    }
    if (cancel_after) {
        co_sleep_ns(cancel_after);
        job_cancel(job, false, NULL);
    }
    co_job_wait(job);
    run->steps++;
    if (job->ret < 0 && !job->cancelled) {
        run->refused++;
        if (!error_is_set(&job->err)) {
            trouble(run, "the job fails without a word");
        }
    } else if (job->ret == 0 && !job->cancelled) {
        promise(run, strcmp(device, "mid") == 0 ? "/C" : run->top, 0, base ? base : "");
    }
    job_dismiss(job, NULL);
    job_unref(job);
    while (job_any()) {
        co_sleep_ns(NS_PER_US);
    }
}

/* --- Afterwards ------------------------------------------------------------------------------- */

static inline void rig_read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
    io_sim_read(arg, offset, buf, len);
}

static inline struct checker_image *rig_check(struct run *run, const char *path, const char *when)
{
    struct checker_source source = { .arg = (void *)path, .read = rig_read_image };
    struct checker_report report = { 0 };
    struct checker_image *image;

    if (io_sim_size(path, &source.size)) {
        trouble(run, "%s: %s is not there", when, path);
        return NULL;
    }
    if (path[1] == 'R') {
        return checker_open_raw(&source);
    }
    image = checker_open_qcow2(&source, &report);
    if (report.rule) {
        trouble(run, "%s: %s: rule %u: %s", when, path, report.rule, report.text);
    }
    return image;
}

static inline const char *without_slash(const char *name)
{
    while (*name == '.' || *name == '/') {
        name++;
    }
    return name;
}

static inline void rig_check_promise(struct run *run, const struct promise *p, const char *when)
{
    struct checker_image *image = rig_check(run, p->path, when);
    const char *backing;

    if (!image) {
        trouble(run, "%s: %s makes no sense", when, p->path);
        return;
    }
    backing = checker_backing(image);
    if (p->size && checker_size(image) != p->size) {
        trouble(run, "%s: %s: size %llu, promised %llu", when, p->path,
                (unsigned long long)checker_size(image), (unsigned long long)p->size);
    }
    if (p->backing && strcmp(without_slash(p->backing), without_slash(backing ? backing : ""))) {
        trouble(run, "%s: %s: backing file '%s', promised '%s'", when, p->path,
                backing ? backing : "", p->backing);
    }
    checker_close(image);
}

/* The disk as it is now: does it keep what was promised?  Opens the chain as the next start would. */
static inline void co_rig_judge(struct run *run, bool after_cut)
{
    const char *when = after_cut ? "after a power cut" : "afterwards";
    AUTOFREE uint8_t *buf = mem_alloc(DISK_BYTES);

    for (unsigned i = 0; i < run->n_promises; i++) {
        rig_check_promise(run, &run->promise[i], when);
    }
    if (!run->top) {
        return;
    }
    checker_close(rig_check(run, run->top, when));
    struct error err = ERROR_INIT;
    json_t *options =
        json_pack("{s:s}", "driver", run->top[1] == 'R' ? "raw" : "qcow2");
    struct node *node = co_node_open(run->top, options, &err);

    json_decref(options);
    if (!node) {
        trouble(run, "%s: %s does not open: %s", when, run->top, err.text);
        error_clear(&err);
        return;
    }
    int ret = co_node_read_buf(node, 0, buf, DISK_BYTES);

    if (ret) {
        trouble(run, "%s: reading: %s", when, strerror(-ret));
    } else {
        check_bytes(run, 0, DISK_BYTES, buf, after_cut || run->unsaved || run->forgotten,
                    when);
    }
    co_node_unref(node);
    checker_close(rig_check(run, run->top, "after that"));
}

/* The chain that must open, read-write. */
static inline struct node *co_rig_open_chain(const char *path)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "driver", path[1] == 'R' ? "raw" : "qcow2");
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    if (!node) {
        print_message("%s: %s\n", path, err.text);
    }
    assert_non_null(node);
    return node;
}

static inline void rig_check_counters(struct run *run, uint64_t began_ns, uint64_t ops)
{
    const struct sim_file *file;
    const struct sim_handle *h;

    if (co_count() > 1) { /* the one that asks */
        trouble(run, "%zu coroutines are left", co_count() - 1);
    }
    if (!TAILQ_EMPTY(&all_nodes) || !TAILQ_EMPTY(&all_disks) || job_any()) {
        trouble(run, "nodes, disks or jobs are left");
    }
    LIST_FOREACH(file, &sim_world->files, link) {
        LIST_FOREACH(h, &file->handles, link) {
            if (h->generation == sim_generation) {
                trouble(run, "%s is left open", file->path);
            }
        }
    }
    if (loop_now() - began_ns > VIRTUAL_NS_MAX || io_sim_ops() - ops > OPS_MAX) {
        trouble(run, "it took %llu ms, %llu operations",
                (unsigned long long)((loop_now() - began_ns) / NS_PER_MS),
                (unsigned long long)(io_sim_ops() - ops));
    }
}

/* --- For tables of places --------------------------------------------------------------------- */

/* "block/qcow2.c" of "../../main/block/qcow2.c" */
static inline const char *short_name(const char *file)
{
    static const char *const floors[] = { "core/",   "block/",   "jobs/",  "hw/",
                                          "export/", "monitor/", "start/", "explore/",
                                          "img/",    "tests/",   "labs/" };

    for (size_t i = 0; i < ARRAY_SIZE(floors); i++) {
        const char *found = NULL;

        for (const char *at = file; (at = strstr(at, floors[i])); at++) {
            found = at == file || at[-1] == '/' ? at : found;
        }
        if (found) {
            return found;
        }
    }
    return strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
}

static int voices[2]; /* standard output and standard error, as long as scenarios are silent */

/* Complaints of commands that fail are expected, hundreds of them.  LOUD=1 lets them through. */
static inline void silence(bool on)
{
    int nowhere;

    if (getenv("LOUD")) {
        return;
    }
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        if (on) {
            voices[i] = dup(STDOUT_FILENO + i);
            nowhere = open("/dev/null", O_WRONLY);
            dup2(nowhere, STDOUT_FILENO + i);
            close(nowhere);
        } else {
            dup2(voices[i], STDOUT_FILENO + i);
            close(voices[i]);
            voices[i] = 0;
        }
    }
}

#endif
