/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's requests: workers, each a coroutine with a buffer in guest memory, and what they
 * share (pace, flushes, the iolog).  Nothing is allocated per request.
 *
 * A step is one operation of the workload: one range, entered once, and one or two requests per
 * buffer-full of it. What happens to knowledge after each request is decided here:
 *
 *     read      compare, learn         write done      it is so
 *     trim      forget                 write failed,
 *     (failed   forget as well)        or reset        old or new
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "hw/guest-state.h"

#define PAGE 4096u

/* A guest that fell behind its pace makes good this much of it at most. */
#define CATCH_UP_NS (100 * NS_PER_MS)
/* After an error a worker rests, so that a broken disk does not keep the program busy. */
#define ERROR_REST_NS NS_PER_MS
/* On the virtual clock nothing takes time but waiting, and requests that need no file do not
 * wait.  A step takes this long at least, or time would never come to anything else. */
#define VIRTUAL_STEP_NS NS_PER_US

struct guest_worker {
    struct guest *g;
    struct co_group *group;
    uint64_t gpa;
    uint32_t buffer; /* bytes of guest memory at gpa */
    uint32_t most;   /* the largest request: multiple of 512, not more than `buffer` */
    struct loop_timer timer;
    struct co *sleeper; /* waits for the timer */
};

static bool any_mismatch, any_error;

bool guest_any_mismatch(void)
{
    return any_mismatch;
}

bool guest_any_error(void)
{
    return any_error;
}

void guest_count_error(struct guest *g)
{
    g->stats.errors++;
    any_error = true;
}

/* --- Buffers ---------------------------------------------------------------------------------- */

static uint64_t buffers_total;

uint64_t guest_buffer_alloc(uint32_t *len)
{
    uint32_t size = ROUND_UP(*len, PAGE);

    while (size > PAGE && buffers_total + size > memory_size() / 2) {
        size = ROUND_UP(size / 2, PAGE);
    }
    buffers_total += size;
    *len = size;
    return guest_alloc(size);
}

void guest_buffer_free(uint64_t gpa, uint32_t len)
{
    buffers_total -= len;
    guest_free(gpa, len);
}

/* --- Requests --------------------------------------------------------------------------------- */

static void count_request(struct guest *g, const struct guest_request *req)
{
    switch (req->op) {
    case GUEST_READ:
        g->stats.reads++;
        g->stats.read_bytes += req->len;
        break;
    case GUEST_WRITE:
    case GUEST_ZERO:
        g->stats.writes++;
        g->stats.written_bytes += req->len;
        break;
    case GUEST_FLUSH:
        g->stats.flushes++;
        break;
    case GUEST_DISCARD:
        g->stats.discards++;
        break;
    }
}

int co_guest_request(struct guest *g, const struct guest_request *req)
{
    if (!g->drv) {
        return -ECANCELED;
    }
    uint64_t began = guest_clock();

    guest_stats_begin(&g->stats, began);
    int ret = g->driver->co_request(g->drv, req);
    uint64_t now = guest_clock();

    guest_stats_end(&g->stats, now);
    if (!g->stats.inflight) {
        co_queue_wake_all(&g->watchers);
    }
    if (ret == -ECANCELED) {
        return ret;
    }
    count_request(g, req);
    if (ret) {
        guest_count_error(g);
    }
    if (machine_running()) {
        guest_latency_add(&g->stats.latency, now - began);
    }
    return ret;
}

/* One place that is read again and again must not push the others out of the list. */
static bool is_listed(const struct guest *g, const char *text)
{
    for (unsigned i = 0; i < MISMATCH_LIST; i++) {
        if (g->mismatch_list[i] && strcmp(g->mismatch_list[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static void note_mismatch(struct guest *g, uint64_t offset, uint32_t len,
                          const struct guest_finding *finding)
{
    char *text =
        mem_printf("%s: read of %u bytes at %llu: wrong sectors: %u, the first at %llu holds %s",
                   g->id, len, (unsigned long long)offset, finding->wrong,
                   (unsigned long long)finding->first, finding->found);

    any_mismatch = true;
    g->stats.mismatches++;
    if (is_listed(g, text)) {
        free(text);
        return;
    }
    char **slot = &g->mismatch_list[g->mismatches_listed++ % MISMATCH_LIST];

    free(*slot);
    *slot = text;
}

int co_guest_read(struct guest *g, uint64_t offset, uint32_t len, uint64_t gpa)
{
    struct guest_request req = { .op = GUEST_READ, .offset = offset, .len = len, .gpa = gpa };
    struct guest_finding finding;
    int ret = co_guest_request(g, &req);

    if (ret) {
        return ret;
    }
    guest_verify_read(g->verify, offset, memory_map(gpa, len), len, &finding);
    if (finding.wrong) {
        note_mismatch(g, offset, len, &finding);
        return 1;
    }
    g->stats.verified += finding.compared > 0;
    return 0;
}

static int co_write(struct guest_worker *wk, uint64_t offset, uint32_t len)
{
    struct guest *g = wk->g;
    struct guest_request req = { .op = GUEST_WRITE, .offset = offset, .len = len, .gpa = wk->gpa };
    int ret = co_guest_request(g, &req);

    if (ret) {
        guest_verify_may_have_written(g->verify, offset, memory_map(wk->gpa, len), len);
    } else {
        guest_verify_wrote(g->verify, offset, memory_map(wk->gpa, len), len);
    }
    return ret;
}

static int co_write_stamp(struct guest_worker *wk, uint64_t offset, uint32_t len,
                          uint64_t generation)
{
    guest_stamp_fill(memory_map(wk->gpa, len), len, offset, generation, wk->g->id_hash);
    return co_write(wk, offset, len);
}

static int co_trim(struct guest *g, uint64_t offset, uint64_t len)
{
    struct guest_request req = { .op = GUEST_DISCARD, .offset = offset, .len = len };
    int ret = co_guest_request(g, &req);

    guest_verify_forget(g->verify, offset, len);
    return ret;
}

static int co_flush(struct guest *g)
{
    struct guest_request req = { .op = GUEST_FLUSH };

    return g->drv && g->driver->can(g->drv, GUEST_FLUSH) ? co_guest_request(g, &req) : 0;
}

/* --- Waiting for the time --------------------------------------------------------------------- */

static void worker_wake(void *arg)
{
    struct guest_worker *wk = arg;
    struct co *sleeper = wk->sleeper;

    wk->sleeper = NULL;
    co_wake(sleeper);
}

void guest_wake_workers(struct guest *g)
{
    for (unsigned i = 0; i < g->worker_count; i++) {
        struct guest_worker *wk = &g->workers[i];

        if (wk->sleeper) {
            loop_timer_cancel(&wk->timer);
            worker_wake(wk);
        }
    }
}

/* Sleep until that time on the guest's clock, or until the guest should pause. */
static void co_sleep_until(struct guest_worker *wk, uint64_t when_ns)
{
    uint64_t now = guest_clock();

    if (when_ns > now && !guest_must_pause(wk->g)) {
        wk->sleeper = co_self();
        loop_timer_arm(&wk->timer, loop_now() + (when_ns - now));
        co_suspend();
    }
}

/* Wait for this worker's turn in the pace that all of them share. */
static void co_pace(struct guest_worker *wk)
{
    struct guest *g = wk->g;
    uint64_t interval = guest_work_interval(&g->work);

    if (interval) {
        uint64_t now = guest_clock();
        uint64_t due = g->next_ns;

        if (now > due && now - due > CATCH_UP_NS) {
            due = now - CATCH_UP_NS;
        }
        g->next_ns = due + interval;
        co_sleep_until(wk, due);
    }
}

/* --- Steps ------------------------------------------------------------------------------------ */

/* One buffer-full. */
static int co_do_part(struct guest_worker *wk, enum guest_action action, uint64_t offset,
                      uint32_t len, uint64_t generation)
{
    struct guest *g = wk->g;
    int ret;

    switch (action) {
    case STEP_READ:
        return co_guest_read(g, offset, len, wk->gpa);
    case STEP_REWRITE:
        ret = co_guest_read(g, offset, len, wk->gpa);
        if (ret) {
            return ret; /* wrong bytes are not written back: that would make them last */
        }
        g->next_ns += guest_work_interval(&g->work); /* a request of its own in the pace */
        return co_write(wk, offset, len);
    default:
        return co_write_stamp(wk, offset, len, generation);
    }
}

/* Do a step whose range was entered under `ticket`, and leave the range.  0, a negative errno,
 * or 1 for wrong data. */
static int co_do_step(struct guest_worker *wk, enum guest_action action, uint64_t offset,
                      uint64_t len, uint64_t ticket)
{
    struct guest *g = wk->g;
    uint64_t generation = ++g->generation;
    int ret = 0;

    co_guest_range_wait(&g->ranges, ticket);
    if (action == STEP_TRIM || action == STEP_TRIM_WRITE) {
        ret = co_trim(g, offset, len);
    }
    if (action != STEP_TRIM) {
        for (uint64_t done = 0; done < len && !ret; done += wk->most) {
            ret = co_do_part(wk, action, offset + done, MIN(len - done, (uint64_t)wk->most),
                             generation);
        }
    }
    guest_range_leave(&g->ranges, ticket);
    return ret;
}

static void co_flush_if_due(struct guest *g)
{
    if (g->settings.flush_every && ++g->writes_unflushed >= g->settings.flush_every) {
        g->writes_unflushed = 0;
        co_flush(g);
    }
}

static void co_generated_step(struct guest_worker *wk)
{
    struct guest *g = wk->g;
    struct guest_step step;

    guest_work_next(&g->work, &step);
    uint64_t began = guest_clock();
    uint64_t ticket =
        guest_range_enter(&g->ranges, step.offset, step.len, step.action != STEP_READ);
    int ret = co_do_step(wk, step.action, step.offset, step.len, ticket);

    if (ret < 0) {
        co_sleep_until(wk, guest_clock() + ERROR_REST_NS);
    } else if (!ret && (step.action != STEP_READ && step.action != STEP_TRIM)) {
        co_flush_if_due(g);
    }
    if (loop_is_virtual() && guest_clock() == began) {
        co_sleep_until(wk, began + VIRTUAL_STEP_NS);
    }
}

/* The disk grew or shrank: the working set is chosen anew. */
static bool size_changed(struct guest *g)
{
    if (g->drv && g->driver->capacity(g->drv) != g->disk_bytes) {
        g->changed = true;
        guest_poke(g);
        return true;
    }
    return false;
}

static void co_generated(struct guest_worker *wk)
{
    struct guest *g = wk->g;

    while (!guest_must_pause(g)) {
        co_pace(wk);
        if (guest_must_pause(g) || size_changed(g)) {
            break;
        }
        co_generated_step(wk);
    }
}

/* --- Replay ----------------------------------------------------------------------------------- */

static uint64_t replay_time(const struct guest *g, const struct guest_iolog_entry *entry)
{
    return g->replay_start_ns + MIN(entry->at_us, UINT64_MAX / 4 / NS_PER_US) * NS_PER_US;
}

static bool can_replay(const struct guest *g, const struct guest_iolog_entry *entry)
{
    static const enum guest_op ops[] = {
        [IOLOG_READ] = GUEST_READ,
        [IOLOG_WRITE] = GUEST_WRITE,
        [IOLOG_TRIM] = GUEST_DISCARD,
    };

    if (entry->action != IOLOG_READ && g->dev->disk->read_only) {
        return false;
    }
    return g->drv && g->driver->can(g->drv, ops[entry->action]) &&
           entry->offset + entry->len <= g->driver->capacity(g->drv);
}

/* A sync waits for all before it, and all behind it wait for the sync. */
static void co_replay_sync(struct guest *g)
{
    while (g->busy) {
        co_queue_wait(&g->idle);
    }
    co_flush(g);
}

/* Take the next entry when its time has come, and enter its range while nobody else can take
 * one: overlapping entries keep the log's order.  False: there is none, or the guest should
 * pause. */
static bool co_replay_take(struct guest_worker *wk, struct guest_iolog_entry *out, uint64_t *ticket)
{
    struct guest *g = wk->g;

    while (!guest_must_pause(g) && g->cursor < g->log->count) {
        *out = g->log->entries[g->cursor];
        co_sleep_until(wk, replay_time(g, out));
        if (guest_must_pause(g)) {
            break;
        }
        g->cursor++;
        if (out->action == IOLOG_SYNC) {
            co_replay_sync(g);
        } else if (!can_replay(g, out)) {
            g->stats.skipped++;
        } else {
            *ticket =
                guest_range_enter(&g->ranges, out->offset, out->len, out->action != IOLOG_READ);
            g->busy++;
            return true;
        }
    }
    return false;
}

static bool co_replay_step(struct guest_worker *wk)
{
    static const enum guest_action actions[] = {
        [IOLOG_READ] = STEP_READ,
        [IOLOG_WRITE] = STEP_WRITE,
        [IOLOG_TRIM] = STEP_TRIM,
    };
    struct guest *g = wk->g;
    struct guest_iolog_entry entry;
    uint64_t ticket;

    co_mutex_lock(&g->turn);
    bool taken = co_replay_take(wk, &entry, &ticket);

    co_mutex_unlock(&g->turn);
    if (!taken) {
        return false;
    }
    int ret = co_do_step(wk, actions[entry.action], entry.offset, entry.len, ticket);

    if (!--g->busy) {
        co_queue_wake_all(&g->idle);
    }
    if (ret < 0) {
        co_sleep_until(wk, guest_clock() + ERROR_REST_NS);
    }
    return true;
}

/* --- Workers ---------------------------------------------------------------------------------- */

static CO_ENTRY void worker(void *arg)
{
    struct guest_worker *wk = arg;

    if (wk->g->settings.profile == PROFILE_REPLAY) {
        while (co_replay_step(wk)) {
        }
    } else {
        co_generated(wk);
    }
    co_group_done(wk->group, 0);
}

static int prepare(struct guest *g, struct error *err)
{
    struct guest_disk disk = {
        .capacity = g->driver->capacity(g->drv),
        /* An IDE disk cannot say that it is read-only, and a guest that tried would only count
         * errors. */
        .read_only = g->driver->read_only(g->drv) || g->dev->disk->read_only,
        .can_trim = g->driver->can(g->drv, GUEST_DISCARD),
    };

    if (disk.capacity < g->disk_bytes) {
        guest_verify_forget(g->verify, ROUND_DOWN(disk.capacity, GUEST_SECTOR), UINT64_MAX);
    }
    g->disk_bytes = disk.capacity;
    if (g->settings.profile == PROFILE_REPLAY) {
        g->replay_start_ns = guest_clock() - g->replayed_ns; /* it goes on where it was */
        return 0;
    }
    int ret = guest_work_init(&g->work, &g->settings, &disk, err);

    if (!ret) {
        g->next_ns = guest_clock() + guest_work_interval(&g->work);
    }
    return ret;
}

static void worker_init(struct guest_worker *wk, struct guest *g, struct co_group *group,
                        uint32_t size)
{
    uint32_t limit = MAX(ROUND_DOWN(g->driver->max_bytes(g->drv), GUEST_SECTOR), GUEST_SECTOR);

    wk->g = g;
    wk->group = group;
    wk->buffer = MIN(size, limit);
    wk->gpa = guest_buffer_alloc(&wk->buffer);
    wk->most = MIN(wk->buffer, limit);
    loop_timer_init(&wk->timer, worker_wake, wk);
}

/* The largest buffer of use: a block, or what an iolog's requests are likely to be. */
static uint32_t buffer_size(const struct guest *g)
{
    return g->settings.profile == PROFILE_REPLAY
               ? MIN(GUEST_BUFFERS_MAX / g->settings.iodepth, 1u << 20)
               : g->settings.bs_max;
}

int co_guest_work(struct guest *g, struct error *err)
{
    unsigned count = g->settings.iodepth;
    struct co_group group;
    int ret = prepare(g, err);

    if (ret) {
        return ret;
    }
    struct guest_worker *workers = mem_calloc(count, sizeof(*workers));

    co_group_init(&group);
    for (unsigned i = 0; i < count; i++) {
        worker_init(&workers[i], g, &group, buffer_size(g));
        co_group_add(&group);
    }
    g->workers = workers;
    g->worker_count = count;
    for (unsigned i = 0; i < count; i++) {
        co_start_later(worker, &workers[i]);
    }
    co_group_wait(&group);
    g->replayed_ns = g->changed || g->reset ? 0 : guest_clock() - g->replay_start_ns;
    g->workers = NULL;
    g->worker_count = 0;
    for (unsigned i = 0; i < count; i++) {
        guest_buffer_free(workers[i].gpa, workers[i].buffer);
    }
    free(workers);
    if (g->settings.profile == PROFILE_REPLAY && g->log && g->cursor == g->log->count &&
        !g->changed) {
        g->finished = true;
    }
    return 0;
}
