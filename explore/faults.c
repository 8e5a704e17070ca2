/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which calls fail, and who helps: see faults.h.
 */
#include "explore/faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/checker.h"
#include "jobs/job.h"

#define FAULTS_MAX 3u
#define HELP_EVERY_NS (5 * NS_PER_MS)
#define PATIENCE 4u /* the operator helps so often, then mends the disk */
#define DESPAIR 8u  /* ... and then wants to hear of errors */
#define AFTER_MAX 60u
#define TRIES 64u /* to find a sector to lie about */
#define STALL_NS (20 * NS_PER_MS)

struct faults {
    struct world *w;
    unsigned helped;
    bool end, gone;
    struct block_listener listener;
};

static struct faults *present; /* for the listener, who has no argument */

/* --- What fails ------------------------------------------------------------------------------- */

static void fail_at(struct random *rnd, unsigned ops, int error, uint64_t times)
{
    io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_ERROR,
                                         .ops = ops,
                                         .after = random_below(rnd, AFTER_MAX),
                                         .times = times,
                                         .error = error });
}

static void fail_range(struct random *rnd)
{
    static const unsigned ops[] = { IO_SIM_READ, IO_SIM_WRITE, IO_SIM_READ | IO_SIM_WRITE };
    const char *path = world_path(random_below(rnd, WORLD_OVERLAYS + 1));
    uint64_t size = 0;

    io_sim_size(path, &size);
    io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_ERROR,
                                         .path = path,
                                         .ops = ops[random_below(rnd, ARRAY_SIZE(ops))],
                                         .offset = random_below(rnd, size / 512 + 16) * 512,
                                         .len = 512 });
}

static void limit_room(struct random *rnd)
{
    uint64_t sum = 0;

    for (int i = 0; i < WORLD_IMAGES; i++) {
        uint64_t size = 0;

        if (io_sim_size(world_path(i), &size) == 0) {
            sum += size;
        }
    }
    io_sim_set_quota(sum / 16 * (8 + random_below(rnd, 16)) + 4096);
}

static void draw(struct world *w, struct random *rnd)
{
    static const unsigned kinds[] = {
        IO_SIM_WRITE, IO_SIM_FLUSH, IO_SIM_READ, IO_SIM_ZERO | IO_SIM_PUNCH, IO_SIM_COPY,
        IO_SIM_TRUNCATE | IO_SIM_ALLOCATE, IO_SIM_SYNC_DIR | IO_SIM_OPEN | IO_SIM_UNLINK,
        IO_SIM_ANY,
    };
    unsigned ops = kinds[random_below(rnd, ARRAY_SIZE(kinds))];
    unsigned what = random_below(rnd, 9);

    w->faulty = w->faulty || what < 6;
    switch (what) {
    case 0:
    case 1:
        fail_at(rnd, ops, EIO, 1 + random_below(rnd, 2));
        break;
    case 2:
        fail_at(rnd, ops, EIO, 0); /* for ever */
        break;
    case 3:
        fail_range(rnd);
        break;
    case 4:
        limit_room(rnd);
        break;
    case 5:
        w->dropping = true;
        io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_SYNC_DROP,
                                             .after = random_below(rnd, AFTER_MAX / 4),
                                             .times = 1 });
        break;
    case 6:
        w->tearing = true;
        io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_SHORT,
                                             .after = random_below(rnd, AFTER_MAX / 4),
                                             .times = 1 + random_below(rnd, 8) });
        break;
    case 7:
        fail_at(rnd, IO_SIM_READ | IO_SIM_WRITE | IO_SIM_FLUSH, EINTR, 1 + random_below(rnd, 3));
        break;
    default:
        io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_STALL,
                                             .after = random_below(rnd, AFTER_MAX),
                                             .times = 1 + random_below(rnd, 3),
                                             .ns = STALL_NS });
    }
}

/* --- Lies ------------------------------------------------------------------------------------- */

static void read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
    io_sim_read(arg, offset, buf, len);
}

static struct checker_image *look_at(const struct world *w, int slot)
{
    struct checker_source source = { .arg = (char *)world_path(slot), .read = read_image };
    struct checker_report report;

    io_sim_size(world_path(slot), &source.size);
    return slot == 0 && w->shape->raw_base ? checker_open_raw(&source)
                                           : checker_open_qcow2(&source, &report);
}

/* Does the lowest image show there, with plain data?  *host: where in its file. */
static bool shows_lowest(struct checker_image *const *chain, unsigned n, uint64_t at,
                         uint64_t *host)
{
    for (unsigned i = 1; i < n; i++) {
        if (!checker_is_none(chain[i], at)) {
            return false;
        }
    }
    return checker_place(chain[0], at, host);
}

/* A sector of the lowest image's data that readers get wrong: that sector of the disk may be lost,
 * and all else holds. */
static void lie_about_data(struct world *w, struct random *rnd)
{
    struct checker_image *chain[WORLD_OVERLAYS];
    unsigned n = w->shape->layers;

    for (unsigned i = 0; i < n; i++) {
        chain[i] = look_at(w, i);
    }
    for (unsigned tries = 0; tries < TRIES; tries++) {
        const struct model_window *window = &w->model.window[random_below(rnd, MODEL_DISK_WINDOWS)];
        uint64_t at = window->at + random_below(rnd, window->len / MODEL_SECTOR) * MODEL_SECTOR;
        uint64_t host;

        if (shows_lowest(chain, n, at, &host)) {
            model_lied(&w->model, at, MODEL_SECTOR);
            io_sim_fault(&(struct io_sim_fault){ .kind = IO_SIM_FAULT_FLIP,
                                                 .path = world_path(0),
                                                 .ops = IO_SIM_READ,
                                                 .offset = host,
                                                 .len = MODEL_SECTOR });
            break;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        checker_close(chain[i]);
    }
}

/* Anything, anywhere: tables, too. */
static void lie_about_anything(struct world *w, struct random *rnd)
{
    static const enum io_sim_fault_kind kinds[] = { IO_SIM_FAULT_LOST, IO_SIM_FAULT_ASTRAY,
                                                    IO_SIM_FAULT_FLIP, IO_SIM_FAULT_STALE };

    w->lying = w->faulty = w->dropping = true;
    io_sim_fault(&(struct io_sim_fault){ .kind = kinds[random_below(rnd, ARRAY_SIZE(kinds))],
                                         .after = random_below(rnd, AFTER_MAX),
                                         .times = 1 + random_below(rnd, 3) });
}

static void lie(struct world *w, struct random *rnd)
{
    if (w->view.top > 0 && random_below(rnd, 2)) {
        lie_about_data(w, rnd);
    } else {
        lie_about_anything(w, rnd);
    }
}

/* --- Policies --------------------------------------------------------------------------------- */

static bool stops(enum disk_policy policy, int error)
{
    return policy == DISK_STOP || (policy == DISK_ENOSPC && error == ENOSPC);
}

static void heard(struct disk *disk, struct node *node, bool is_read, const char *action, int error)
{
    bool stop = stops(is_read ? disk->rerror : disk->werror, error);

    if (strcmp(action, stop ? "stop" : "report") != 0) {
        world_break(present->w, 18, "%s of %s, the policy is another", action, strerror(error));
    }
}

bool faults_allow(const struct world *w, bool is_read, int error)
{
    if (w->lying) {
        return true; /* found out */
    }
    return w->faulty && !stops(is_read ? w->disk->rerror : w->disk->werror, error);
}

/* --- The operator ----------------------------------------------------------------------------- */

static bool is_needed(const struct faults *f)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (job->user_paused) {
            return true;
        }
    }
    return f->w->disk->io_status_failed;
}

static void help(struct faults *f)
{
    struct error err = ERROR_INIT;
    struct job *job;

    f->helped++;
    if (f->helped == PATIENCE) {
        io_sim_faults_clear();
        io_sim_set_quota(0);
    }
    if (f->helped >= DESPAIR) { /* a failed flush never heals */
        f->w->disk->werror = f->w->disk->rerror = DISK_REPORT;
        f->w->job_policy = JOB_ON_ERROR_REPORT;
    }
    TAILQ_FOREACH(job, &all_jobs, link) {
        job->on_error = f->w->job_policy;
        if (job->user_paused) {
            (void)job_resume(job, &err);
            error_clear(&err);
        }
    }
    disk_resume_all();
}

static CO_ENTRY void co_operator(void *arg)
{
    struct faults *f = arg;

    while (!f->end) {
        co_sleep_ns(HELP_EVERY_NS);
        if (is_needed(f)) {
            help(f);
        }
    }
    f->gone = true;
}

struct faults *faults_attend(struct world *w)
{
    struct faults *f = mem_zalloc(sizeof(*f));

    f->w = w;
    f->listener.io_error = heard;
    present = f;
    block_set_listener(&f->listener);
    co_start(co_operator, f);
    return f;
}

struct faults *faults_begin(struct world *w, unsigned seed, bool lies)
{
    static const enum disk_policy policies[] = { DISK_REPORT, DISK_ENOSPC, DISK_STOP };
    static const enum job_on_error job_policies[] = { JOB_ON_ERROR_REPORT, JOB_ON_ERROR_ENOSPC,
                                                      JOB_ON_ERROR_STOP };
    struct random rnd;

    random_seed(&rnd, seed);
    if (lies) {
        lie(w, &rnd);
    }
    for (unsigned n = lies ? 0 : 1 + random_below(&rnd, FAULTS_MAX); n; n--) {
        draw(w, &rnd);
    }
    if (w->disk2) {
        w->disk2->werror = w->disk2->rerror = DISK_REPORT;
    }
    w->disk->werror = policies[random_below(&rnd, ARRAY_SIZE(policies))];
    w->disk->rerror = random_below(&rnd, 2) ? DISK_REPORT : DISK_STOP;
    w->job_policy = job_policies[random_below(&rnd, ARRAY_SIZE(job_policies))];
    return faults_attend(w);
}

void co_faults_end(struct faults *f)
{
    io_sim_faults_clear();
    io_sim_set_quota(0);
    f->end = true;
    while (!f->gone) {
        co_sleep_ns(HELP_EVERY_NS);
    }
    block_set_listener(NULL);
    f->w->disk->werror = f->w->disk->rerror = DISK_REPORT; /* nobody says `cont` any more */
    present = NULL;
    free(f);
}
