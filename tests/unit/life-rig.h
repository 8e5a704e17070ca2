/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A chain on the simulated disk with a drive, a device and a busy guest above it, on the virtual clock, for tests of whole
 * lives of jobs.
 *
 * The guest has profile `preserve`: it reads and writes back what it read, so the content never changes, whatever happens.
 * That makes the judgement exact and possible at any moment: at each change of a job's status, what is durable at that
 * moment is read by the independent checker (explore/checker.h) and compared byte for byte.  After BLOCK_JOB_COMPLETED the
 * durable header must name the new base.  In the end each image is checked again, leaks included.
 *
 * What is wrong is noted (life_check()) and told after the coroutines have ended: cmocka leaves a test with a jump.
 */
#ifndef TESTS_UNIT_LIFE_RIG_H
#define TESTS_UNIT_LIFE_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/qcow2.h"
#include "block/snapshot.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/checker.h"
#include "hw/guest.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/events.h"
#include "monitor/handlers.h"
#include "start/drive.h"
#include "tests/unit/sim-world.h"

#define LIFE_SIZE (2u << 20)
#define LIFE_PIECE 65536u
#define LIFE_LIMIT (100 * NS_PER_S) /* nothing takes longer than that, on the virtual clock */
#define LIFE_JOBS 4
#define TEXT(err) ((err).text ? (err).text : "nothing was said")

enum outcome_of_job { ENDS_NOT, COMPLETES, CANCELLED, FAILS };

struct life_job {
    char id[16];
    struct job *job; /* a reference */
    char target, base; /* letters of images; base 0: none */
    enum job_status last;
    enum outcome_of_job outcome;
    unsigned verdicts; /* how many events told the end */
};

static struct life {
    uint8_t initial[LIFE_SIZE], got[LIFE_SIZE];
    struct io_sim_snapshot *fresh;
    unsigned layers; /* 'A' ... */
    char top;        /* the image that the guest writes to */
    struct life_job jobs[LIFE_JOBS];
    unsigned n_jobs;
    struct co_queue step; /* something has happened */
    char target;          /* its header is watched: */
    bool header_issued, header_done;
    bool ended;           /* the ticker goes */
    unsigned states;      /* durable states that were judged */
    char what[120], why[600];
} life;

static bool life_broken;

__attribute__((format(printf, 2, 3))) static void life_check(bool good, const char *fmt, ...)
{
    va_list ap;

    if (good || life.why[0]) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(life.why, sizeof(life.why), fmt, ap);
    va_end(ap);
}

/* --- Judging ---------------------------------------------------------------------------------- */

struct life_reader {
    char path[8];
    bool durable;
};

static void life_read(void *arg, uint64_t offset, void *buf, size_t len)
{
    const struct life_reader *r = arg;

    (r->durable ? io_sim_read_durable : io_sim_read)(r->path, offset, buf, len);
}

static struct checker_image *life_image(struct life_reader *r, char letter, bool durable)
{
    struct checker_source source = { .arg = r, .read = life_read };
    struct checker_report report = { 0 };
    struct checker_image *image;

    snprintf(r->path, sizeof(r->path), "/%c.img", letter);
    r->durable = durable;
    (durable ? io_sim_size_durable : io_sim_size)(r->path, &source.size);
    image = checker_open_qcow2(&source, &report);
    life_check(image && report.rule == 0, "%s: rule %u: %s", r->path, report.rule, report.text);
    life_check(durable || report.leaks == 0, "%s leaks %llu clusters", r->path, (unsigned long long)report.leaks);
    return image;
}

/* The letters of the chain from `top` on; its content is right.  `durable`: as it would be found were the power cut now. */
static const char *life_chain(char top, bool durable)
{
    static char letters[32];
    struct life_reader readers[26];
    struct checker_image *images[26] = { 0 };
    unsigned n = 0;

    for (char letter = top; letter && n < 26;) {
        images[n] = life_image(&readers[n], letter, durable);
        if (!images[n]) {
            break;
        }
        letters[n++] = letter;
        const char *below = checker_backing(images[n - 1]);
        letter = below ? below[below[0] == '/'] : 0;
    }
    letters[n] = '\0';
    life_check(n > 0 && checker_read(images, n, 0, life.got, LIFE_SIZE), "the chain %s cannot be read", letters);
    if (memcmp(life.got, life.initial, LIFE_SIZE) != 0) {
        unsigned at = 0;
        while (life.got[at] == life.initial[at]) {
            at++;
        }
        life_check(false, "the %s content of %s differs at %u", durable ? "durable" : "final", letters, at);
    }
    for (unsigned i = 0; i < n; i++) {
        checker_close(images[i]);
    }
    life.states++;
    return letters;
}

static char life_durable_base(char letter)
{
    struct life_reader reader;
    struct checker_image *image = life_image(&reader, letter, true);
    const char *below = image ? checker_backing(image) : NULL;
    char base = below ? below[below[0] == '/'] : 0;

    checker_close(image);
    return base;
}

/* --- Ears ------------------------------------------------------------------------------------- */

static struct life_job *life_job_of(const struct job *job)
{
    for (unsigned i = 0; i < life.n_jobs; i++) {
        if (strcmp(life.jobs[i].id, job->id) == 0) {
            return &life.jobs[i];
        }
    }
    return NULL;
}

static bool may_follow(enum job_status before, enum job_status now)
{
    static const unsigned next[] = {
        [JOB_UNDEFINED] = 1 << JOB_CREATED,
        [JOB_CREATED] = 1 << JOB_RUNNING | 1 << JOB_NULL, /* null: refused at the start */
        [JOB_RUNNING] = 1 << JOB_PAUSED | 1 << JOB_WAITING | 1 << JOB_ABORTING,
        [JOB_PAUSED] = 1 << JOB_RUNNING,
        [JOB_WAITING] = 1 << JOB_PENDING,
        [JOB_PENDING] = 1 << JOB_CONCLUDED | 1 << JOB_ABORTING,
        [JOB_ABORTING] = 1 << JOB_CONCLUDED,
        [JOB_CONCLUDED] = 1 << JOB_NULL,
        [JOB_NULL] = 0,
    };
    return next[before] & 1u << now;
}

static void life_status(struct job_listener *l, struct job *job)
{
    struct life_job *j = life_job_of(job);

    if (!j) {
        return; /* one that was refused */
    }
    life_check(may_follow(j->last, job->status), "%s went from %s to %s", job->id, job_status_name(j->last),
               job_status_name(job->status));
    life_check(j->verdicts == (job->status == JOB_CONCLUDED || job->status == JOB_NULL), "%s is %s after %u verdicts", job->id,
               job_status_name(job->status), j->verdicts);
    j->last = job->status;
    life_chain(life.top, true);
    co_queue_wake_all(&life.step);
}

static void life_completed(struct job_listener *l, struct job *job)
{
    struct life_job *j = life_job_of(job);

    if (!j) {
        return;
    }
    j->verdicts++;
    j->outcome = job->cancelled ? CANCELLED : job->ret < 0 ? FAILS : COMPLETES;
    life_chain(life.top, true);
    life_check(j->outcome != COMPLETES || life_durable_base(j->target) == j->base,
               "BLOCK_JOB_COMPLETED of %s, and the durable header names '%c'", j->id, life_durable_base(j->target));
}

static struct job_listener life_ears = { .status_changed = life_status, .completed = life_completed };

static void life_on_op(void *arg, const struct io_sim_event *e)
{
    if (e->op == IO_SIM_WRITE && e->path[1] == life.target && e->offset < 512 && life.n_jobs &&
        life.jobs[0].last == JOB_PENDING) {
        life.header_issued = true;
        life.header_done |= e->completed;
    }
    co_queue_wake_all(&life.step);
}

/* Bounds every wait. */
static CO_ENTRY void co_life_ticker(void *arg)
{
    while (!life.ended) {
        co_sleep_ns(NS_PER_MS);
        co_queue_wake_all(&life.step);
    }
}

static void co_life_wait(bool (*reached)(void *arg), void *arg, const char *what)
{
    uint64_t limit = loop_now() + LIFE_LIMIT;

    while (!reached(arg)) {
        if (loop_now() >= limit) { /* there is no way on from here */
            fprintf(stderr, "%s: waited in vain for %s (%s)\n", life.what, what, life.why);
            abort();
        }
        co_queue_wait(&life.step);
    }
}

/* For such waits. */
static inline bool life_is_over(void *arg)
{
    struct life_job *j = arg;

    return j->last == JOB_NULL || j->last == JOB_CONCLUDED;
}

static inline bool life_is_gone(void *arg)
{
    struct life_job *j = arg;

    return j->last == JOB_NULL;
}

/* --- Making ----------------------------------------------------------------------------------- */

/* Of eight pieces a layer holds one, a dense one seven; whole, or the first part of it. */
static void co_life_layer(unsigned layer, bool dense, const char *cluster_size, struct random *rnd)
{
    AUTOFREE char *path = mem_printf("/%c.img", 'A' + layer);
    AUTOFREE char *below = layer ? mem_printf("%c.img", 'A' + layer - 1) : NULL;
    json_t *options = json_pack("{s:i, s:s, s:s*, s:s*}", "size", LIFE_SIZE, "cluster_size", cluster_size, "backing_file", below,
                                "backing_fmt", below ? "qcow2" : NULL);
    struct error err = ERROR_INIT;
    static uint64_t data[LIFE_PIECE / 8];

    int ret = driver_qcow2.co_create(path, options, &err);
    life_check(ret == 0, "%s", TEXT(err));
    json_decref(options);
    options = json_pack("{s:s}", "driver", "qcow2");
    struct node *node = co_node_open(path, options, &err);
    json_decref(options);
    for (unsigned at = 0; at < LIFE_SIZE; at += LIFE_PIECE) {
        unsigned len = random_below(rnd, 2) ? LIFE_PIECE : 4096 * (1 + random_below(rnd, 8));

        for (unsigned i = 0; i < len / 8; i++) {
            data[i] = random_next(rnd);
        }
        if ((random_below(rnd, 8) == 0) != dense) {
            memcpy(life.initial + at, data, len);
            life_check(co_node_write_buf(node, at, data, len) == 0, "the first writes");
        }
    }
    co_node_unref(node);
}

struct life_making {
    unsigned layers, dense; /* dense: a bit for each layer */
    const char *cluster_size;
};

static void co_life_make(void *arg)
{
    const struct life_making *m = arg;
    struct random rnd;

    random_seed(&rnd, 7);
    for (unsigned i = 0; i < m->layers; i++) {
        co_life_layer(i, m->dense & 1u << i, m->cluster_size, &rnd);
    }
}

/* The world for a table: its chain is made once.  Layers that are to be merged away had better be dense (a bit for each). */
static void life_begin(unsigned layers, unsigned dense, const char *cluster_size)
{
    if (life_broken) {
        fail_msg("an earlier failure has left its world behind");
    }
    memset(&life, 0, sizeof(life));
    life.layers = layers;
    co_queue_init(&life.step);
    sim_begin(1);
    machine_init(64 << 20);
    events_init();
    job_listen(&life_ears);
    loop_run_co(co_life_make, &(struct life_making){ layers, dense, cluster_size });
    life.fresh = io_sim_snapshot();
}

static void life_end(void)
{
    job_unlisten(&life_ears);
    events_fini();
    guest_set_default(NULL, NULL);
    machine_fini();
    io_sim_snapshot_free(life.fresh);
    sim_end();
}

/* --- One life ---------------------------------------------------------------------------------- */

/* `policy`: "werror=stop" or the like, or NULL. */
static json_t *life_drive_keys(const char *policy)
{
    json_t *keys = json_pack("{s:s, s:s, s:s}", "if", "virtio", "format", "qcow2", "discard", "unmap");
    AUTOFREE char *prefix = mem_strdup("");

    json_object_set_new(keys, "file", json_sprintf("/%c.img", life.top));
    for (unsigned i = life.layers; i-- > 0;) {
        AUTOFREE char *key = mem_printf("%snode-name", prefix);
        char *next = mem_printf("%sbacking.", prefix);

        json_object_set_new(keys, key, json_sprintf("%c", 'A' + i));
        free(prefix);
        prefix = next;
    }
    if (policy) {
        AUTOFREE char *key = mem_strndup(policy, strcspn(policy, "="));

        json_object_set_new(keys, key, json_string(strchr(policy, '=') + 1));
    }
    return keys;
}

static json_int_t life_guest(const char *counter)
{
    json_t *all = guest_describe();
    json_int_t n = json_integer_value(json_object_get(json_array_get(all, 0), counter));

    json_decref(all);
    return n;
}

/* Put everything together and let the guest run: so many requests a second, or NULL: none.  `policy` is the disk's for
 * requests that fail ("werror=stop"), or NULL. */
static void co_life_start(const char *rate, const char *policy)
{
    struct error err = ERROR_INIT;
    const char *failed;
    const char *rw = policy && strncmp(policy, "rerror", 6) == 0 ? "randread" : "randrw"; /* a write may have to read, too */
    /* In a part only: elsewhere copy-on-write would leave the job nothing to do. */
    json_t *words = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "profile", rate ? "preserve" : "none", "rw", rw,
                              "rate_iops", rate ? rate : "0", "iodepth", "4", "bs", "512-8k", "offset", "768k", "size", "512k",
                              "flush_every", "15");

    io_sim_restore(life.fresh);
    io_sim_faults_clear();
    life.top = 'A' + life.layers - 1;
    life.n_jobs = 0;
    life.ended = life.header_issued = life.header_done = false;
    life.why[0] = '\0';
    io_sim_on_op(life_on_op, NULL);
    guest_set_default(NULL, NULL);
    guest_set_default(words, &err);
    json_decref(words);
    struct drive drive = { .shown = (char *)"-drive", .keys = life_drive_keys(policy) };
    struct drives drives = { .drives = &drive, .drive_count = 1 };
    co_drives_start(&drives, &failed, &err);
    life_check(!error_is_set(&err), "%s", TEXT(err));
    json_decref(drive.keys);
    co_start(co_life_ticker, NULL);
    machine_cont();
    for (int ms = 0; life_guest("capacity") == 0 && ms < 1000; ms++) { /* it boots */
        co_sleep_ns(NS_PER_MS);
    }
    co_sleep_ns(5 * NS_PER_MS);
}

/* Begin a stream.  Its answer is in err. */
static struct life_job *co_life_stream(struct stream_args *args, char target, char base, struct error *err)
{
    struct life_job *j = &life.jobs[life.n_jobs];
    char device[2] = { target }, base_node[2] = { base };

    *j = (struct life_job){ .target = target, .base = base };
    snprintf(j->id, sizeof(j->id), "job%u", life.n_jobs);
    life.target = life.n_jobs ? life.target : target;
    life.n_jobs++;
    args->device = device;
    args->job_id = j->id;
    args->base_node = base ? base_node : NULL;
    if (co_stream_start(args, err) < 0) {
        life.n_jobs--;
        return NULL;
    }
    j->job = job_find(j->id);
    if (j->job) {
        job_ref(j->job);
    }
    return j;
}

enum { GUEST_FAILS = 1, CLOSING_FAILS = 2, SYNC_FAILED = 4 };

/* All jobs have ended; the guest reads everything again; everything closes; every image is right.  `flags`: what must go wrong;
 * SYNC_FAILED: what was not flushed by then may be lost, clusters with it. */
static void co_life_finish(const char *chain, unsigned flags)
{
    bool guest_fails = flags & GUEST_FAILS, closing_fails = flags & CLOSING_FAILS;
    bool durable_only = flags & (CLOSING_FAILS | SYNC_FAILED);
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < life.n_jobs; i++) {
        life_check(life.jobs[i].last == JOB_NULL && life.jobs[i].verdicts == 1, "%s is left in %s after %u verdicts",
                   life.jobs[i].id, job_status_name(life.jobs[i].last), life.jobs[i].verdicts);
        if (life.jobs[i].job) {
            job_unref(life.jobs[i].job);
        }
    }
    life_check(TAILQ_EMPTY(&all_jobs), "a job is left");
    io_sim_faults_clear();
    if (!machine_running()) {
        machine_cont();
    }
    co_sleep_ns(20 * NS_PER_MS);
    life_check(co_guest_verify_all() == 0 && life_guest("mismatches") == 0, "the guest saw wrong data");
    life_check((life_guest("errors") > 0) == guest_fails, guest_fails ? "the guest saw no error" : "the guest saw an error");
    co_machine_stop(RUN_PAUSED);
    int ret = co_drives_end(&err);
    life_check((ret < 0) == closing_fails && error_is_set(&err) == closing_fails, "closing: %s", TEXT(err));
    error_clear(&err);
    life.ended = true;
    co_sleep_ns(2 * NS_PER_MS);
    io_sim_on_op(NULL, NULL);
    const char *found = life_chain(life.top, durable_only);
    life_check(!chain || strcmp(found, chain) == 0, "the chain is %s, not %s", found, chain);
    life_chain(life.top, true);
    for (char letter = 'A'; letter < 'A' + (char)life.layers; letter++) {
        struct life_reader reader;
        checker_close(life_image(&reader, letter, durable_only));
    }
}

/* Run one row; its failure ends the test, with its name. */
static void life_run(void (*co_row)(void *arg), void *arg, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void life_run(void (*co_row)(void *arg), void *arg, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(life.what, sizeof(life.what), fmt, ap);
    va_end(ap);
    loop_run_co(co_row, arg);
    life_check(co_count() == 0, "%zu coroutines are left", co_count());
    if (life.why[0]) {
        life_broken = true;
        fail_msg("%s: %s", life.what, life.why);
    }
}

#endif
