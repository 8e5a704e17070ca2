/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's life: boot, run, stop; and the table of guests.
 *
 * guest-state.h draws the states.  The life is the only one that brings a driver up, and one of two
 * that bring it down: the other is co_guest_free(), for a disk whose requests wait for a `cont`
 * that will not come.  Whoever takes the driver's pointer out of the guest shuts it down.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "block/disk.h"
#include "core/mem.h"
#include "hw/guest-control.h"
#include "hw/guest-state.h"

/* How often a guest that goes is asked whether it is stuck. */
#define LOOK_AGAIN_NS (100 * NS_PER_US)

struct guest_list guests = TAILQ_HEAD_INITIALIZER(guests);

/* --- The guests' clock ------------------------------------------------------------------------ */

static bool clock_runs;
static uint64_t clock_stopped_at; /* while it does not run: loop_now() of that moment */
static uint64_t clock_lost;       /* how long it has stood still */

uint64_t guest_clock(void)
{
    return (clock_runs ? loop_now() : clock_stopped_at) - clock_lost;
}

static void clock_set(bool runs)
{
    if (runs && !clock_runs) {
        clock_lost += loop_now() - clock_stopped_at;
    } else if (!runs && clock_runs) {
        clock_stopped_at = loop_now();
    }
    clock_runs = runs;
}

/* --- What the life is told -------------------------------------------------------------------- */

struct guest *guest_find(const char *disk_id)
{
    struct guest *g;

    TAILQ_FOREACH(g, &guests, link) {
        if (strcmp(g->id, disk_id) == 0) {
            return g;
        }
    }
    return NULL;
}

static bool may_run(const struct guest *g)
{
    return machine_running() && !g->stopped && !g->gone && !g->reset;
}

bool guest_must_pause(const struct guest *g)
{
    return !may_run(g) || g->changed;
}

bool guest_is_stuck(const struct guest *g)
{
    return machine_state() == RUN_IO_ERROR || !co_queue_empty(&g->dev->disk->stopped);
}

void guest_poke(struct guest *g)
{
    g->poked = true;
    co_queue_wake_all(&g->life);
    co_queue_wake_all(&g->watchers);
    co_queue_wake_all(&g->ranges.waiters);
    if (guest_must_pause(g)) {
        guest_wake_workers(g);
    }
}

/* The guest has given up, or has not: a new reason replaces the old one; takes it over. */
static void set_why(struct guest *g, char *why)
{
    free(g->why);
    g->why = why;
}

void guest_encourage(struct guest *g)
{
    set_why(g, NULL);
    g->boot_failed = false;
    guest_poke(g);
}

void guest_rewind(struct guest *g)
{
    g->cursor = 0;
    g->replayed_ns = 0;
    g->finished = false;
}

static void on_state(struct machine_listener *l, enum run_state now)
{
    struct guest *g;

    clock_set(now == RUN_RUNNING);
    TAILQ_FOREACH(g, &guests, link) {
        guest_poke(g);
    }
}

static void on_reset(struct machine_listener *l)
{
    struct guest *g;

    TAILQ_FOREACH(g, &guests, link) {
        if (g->drv && !g->reset) {
            g->driver->abort(g->drv);
        }
        g->reset = true;
        g->booted = false;
        guest_rewind(g);
        guest_encourage(g);
    }
}

static struct machine_listener listener = { .state_changed = on_state, .reset = on_reset };

/* --- Life ------------------------------------------------------------------------------------- */

struct boot_reader {
    struct guest *g;
    uint64_t gpa;
};

static int co_boot_read(void *arg, uint64_t offset, uint32_t len, const uint8_t **data)
{
    struct boot_reader *r = arg;
    struct guest *g = r->g;
    uint32_t most = g->drv ? g->driver->max_bytes(g->drv) : GUEST_SECTOR;
    uint64_t ticket = guest_range_enter(&g->ranges, offset, len, false);
    int ret = 0;

    co_guest_range_wait(&g->ranges, ticket);
    most = MAX(ROUND_DOWN(most, GUEST_SECTOR), GUEST_SECTOR);
    for (uint32_t done = 0; done < len && ret >= 0; done += most) {
        ret = co_guest_read(g, offset + done, MIN(len - done, most), r->gpa + done);
    }
    guest_range_leave(&g->ranges, ticket);
    *data = memory_map(r->gpa, len);
    return MIN(ret, 0);
}

static void co_read_table(struct guest *g)
{
    uint32_t len = PARTITION_READ_MAX;
    struct boot_reader reader = { .g = g, .gpa = guest_buffer_alloc(&len) };
    struct partition_table table;

    co_partition_table_read(&table, g->driver->capacity(g->drv), co_boot_read, &reader);
    partition_table_free(&g->table);
    g->table = table;
    guest_buffer_free(reader.gpa, len);
}

static void co_boot(struct guest *g)
{
    void *drv;

    g->stats.boots++;
    int ret = g->driver->co_boot(g->dev, &drv);

    if (!ret) {
        g->drv = drv;
        co_read_table(g);
        g->booted = g->drv && !g->reset;
    } else if (!g->reset && !g->gone) {
        g->boot_failed = true;
        guest_count_error(g);
        set_why(g, mem_printf("The disk could not be brought up: %s", strerror(-ret)));
    }
}

static void co_go_down(struct guest *g)
{
    void *drv = g->drv;

    g->drv = NULL;
    g->booted = false;
    g->reset = false;
    if (drv) {
        g->driver->co_shutdown(drv);
    }
}

/* The log of a replay is read when it is needed and not there yet. */
static int co_need_log(struct guest *g, struct error *err)
{
    AUTOFREE char *path = mem_strdup(g->settings.iolog);
    struct guest_iolog *log = NULL;
    int ret = co_guest_iolog_load(&log, path, err);

    if (ret || g->log || g->changed) {
        guest_iolog_free(log);
    } else {
        g->log = log;
    }
    return ret;
}

static void co_work(struct guest *g)
{
    struct error err = ERROR_INIT;

    g->changed = false;
    guest_settings_check(&g->settings, &err);
    if (!error_is_set(&err) && g->settings.profile == PROFILE_REPLAY && !g->log) {
        co_need_log(g, &err);
    }
    if (!error_is_set(&err) && g->booted && !guest_must_pause(g)) {
        g->working = true;
        co_guest_work(g, &err);
        g->working = false;
    }
    if (error_is_set(&err)) {
        set_why(g, mem_strdup(err.text));
    }
    error_clear(&err);
}

static void co_rest(struct guest *g)
{
    g->active = false;
    co_queue_wake_all(&g->watchers);
    if (!g->poked) {
        co_queue_wait(&g->life);
    }
    g->poked = false;
}

static bool wants_up(const struct guest *g)
{
    return !g->drv && !g->boot_failed && (may_run(g) || g->verifiers);
}

static bool wants_work(const struct guest *g)
{
    return g->booted && may_run(g) && !g->why && !g->finished &&
           g->settings.profile != PROFILE_NONE;
}

static CO_ENTRY void guest_life(void *arg)
{
    struct guest *g = arg;

    while (!g->gone) {
        g->active = true;
        if (g->reset) {
            co_go_down(g);
        } else if (wants_up(g)) {
            co_boot(g);
        } else if (wants_work(g)) {
            co_work(g);
        } else {
            co_rest(g);
        }
    }
    co_go_down(g);
    g->active = false;
    g->ended = true;
    co_queue_wake_all(&g->watchers);
}

/* --- Coming and going ------------------------------------------------------------------------- */

struct guest *guest_new(struct machine_device *dev, const struct guest_driver *driver)
{
    struct guest *g = mem_zalloc(sizeof(*g));

    if (TAILQ_EMPTY(&guests)) {
        clock_runs = machine_running();
        clock_stopped_at = loop_now();
        clock_lost = 0;
        machine_listen(&listener);
    }
    g->dev = dev;
    g->driver = driver;
    g->id = mem_strdup(dev->disk->label);
    g->id_hash = XXH64(g->id, strlen(g->id), loop_random());
    g->table.kind = "none";
    co_queue_init(&g->life);
    co_queue_init(&g->watchers);
    co_queue_init(&g->idle);
    co_queue_init(&g->ranges.waiters);
    co_mutex_init(&g->turn);
    g->verify = guest_verify_new(g->id_hash);
    guest_initial_settings(g);
    TAILQ_INSERT_TAIL(&guests, g, link);
    co_start_later(guest_life, g);
    return g;
}

static bool quiet(const struct guest *g)
{
    return !g->active && !g->stats.inflight;
}

void co_guest_free(struct guest *g)
{
    g->gone = true;
    guest_poke(g);
    /* Requests that the host works on come to their end; those that wait for `cont` do not, and
     * nobody tells when one of the former becomes one of the latter. */
    while (!g->ended && !guest_is_stuck(g)) {
        co_sleep_ns(LOOK_AGAIN_NS);
    }
    if (g->drv) {
        co_go_down(g);
    }
    while (!g->ended || g->visitors) {
        co_queue_wait(&g->watchers);
    }
    TAILQ_REMOVE(&guests, g, link);
    if (TAILQ_EMPTY(&guests)) {
        machine_unlisten(&listener);
    }
    for (unsigned i = 0; i < MISMATCH_LIST; i++) {
        free(g->mismatch_list[i]);
    }
    partition_table_free(&g->table);
    guest_verify_free(g->verify);
    guest_settings_fini(&g->settings);
    guest_iolog_free(g->log);
    free(g->ranges.list);
    free(g->why);
    free(g->id);
    free(g);
}

/* --- Stop and start --------------------------------------------------------------------------- */

struct guest *guest_by_name(const char *disk_id, struct error *err)
{
    struct guest *g = guest_find(disk_id);

    if (!g && disk_find_label(disk_id)) {
        error_set(err, "Device '%s' has no guest", disk_id);
    } else if (!g) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", disk_id);
    }
    return g;
}

int co_guest_stop(const char *disk_id, struct error *err)
{
    struct guest *g = guest_by_name(disk_id, err);

    if (!g) {
        return -ENODEV;
    }
    g->stopped = true;
    guest_poke(g);
    g->visitors++;
    /* Requests that wait for `cont` do not keep the one who would type it. */
    while (g->stopped && !quiet(g) && !g->gone && !guest_is_stuck(g)) {
        co_queue_wait(&g->watchers);
    }
    guest_leave(g);
    return 0;
}

int guest_start(const char *disk_id, struct error *err)
{
    struct guest *g = guest_by_name(disk_id, err);

    if (!g) {
        return -ENODEV;
    }
    if (g->finished) {
        guest_rewind(g);
    }
    g->stopped = false;
    guest_encourage(g);
    return 0;
}

void guest_start_all(void)
{
    struct guest *g;

    TAILQ_FOREACH(g, &guests, link) {
        guest_encourage(g);
    }
}

static struct guest *first_noisy(void)
{
    struct guest *g;

    TAILQ_FOREACH(g, &guests, link) {
        if (!quiet(g)) {
            return g;
        }
    }
    return NULL;
}

void co_guest_stop_all(void)
{
    struct guest *g;

    while (!machine_running() && (g = first_noisy())) {
        g->visitors++;
        co_queue_wait(&g->watchers);
        guest_leave(g);
    }
}

void guest_leave(struct guest *g)
{
    g->visitors--;
    co_queue_wake_all(&g->watchers);
}
