/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Settings of guests before and after their disks exist, and the description of all guests.
 *
 * What -guest says before there are disks is kept here: one set of words for all, and one for each
 * disk named.  A new guest starts with the defaults, the words for all over them, and the words for
 * its disk over those.
 */
#include "hw/guest-control.h"

#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/io.h"
#include "core/mem.h"
#include "hw/guest-state.h"

/* --- Before the disks exist ------------------------------------------------------------------- */

static json_t *words_for_all;   /* NULL: none */
static json_t *words_for_disks; /* disk id -> words */

/* Would these words be understood? */
static int try_words(json_t *words, struct error *err)
{
    struct guest_settings s;

    guest_settings_init(&s);
    int ret = guest_settings_apply(&s, words, err);

    guest_settings_fini(&s);
    return ret;
}

static int remember(json_t **words, json_t *more, struct error *err)
{
    int ret = try_words(more, err);

    if (!ret) {
        *words = *words ? *words : json_object();
        json_object_update(*words, more);
    }
    return ret;
}

static void forget_defaults(void)
{
    json_decref(words_for_all);
    json_decref(words_for_disks);
    words_for_all = words_for_disks = NULL;
}

int guest_set_default(json_t *settings, struct error *err)
{
    if (!settings) {
        forget_defaults();
        return 0;
    }
    json_t *words = json_copy(settings);
    AUTOFREE char *disk = mem_strdup(json_string_value(json_object_get(words, "disk")));
    int ret;

    if (!disk) {
        ret = remember(&words_for_all, words, err); /* a disk that is no string is no known word */
    } else {
        json_object_del(words, "disk");
        words_for_disks = words_for_disks ? words_for_disks : json_object();
        json_t *own = json_object_get(words_for_disks, disk), *all = json_incref(own);

        ret = remember(&all, words, err);
        if (!ret && !own) {
            json_object_set(words_for_disks, disk, all);
        }
        json_decref(all);
    }
    json_decref(words);
    return ret;
}

void guest_initial_settings(struct guest *g)
{
    json_t *own = json_object_get(words_for_disks, g->id);

    guest_settings_init(&g->settings);
    if (words_for_all) {
        guest_settings_apply(&g->settings, words_for_all, NULL);
    }
    if (own) {
        guest_settings_apply(&g->settings, own, NULL);
    }
    if (!g->settings.seed_given) {
        g->settings.seed = g->id_hash;
    }
}

/* --- Changes ---------------------------------------------------------------------------------- */

/* A replay that reaches beyond the disk is of another disk. */
static int check_log(const struct guest *g, const char *path, const struct guest_iolog *log,
                     struct error *err)
{
    uint64_t size = g->booted ? g->driver->capacity(g->drv) : disk_size(g->dev->disk);

    if (size && log->end > size) { /* 0: there is no medium to compare with */
        error_set(err, "Iolog '%s', line %u: it reaches to byte %llu, but device '%s' ends at %llu",
                  path, log->end_line, (unsigned long long)log->end, g->id,
                  (unsigned long long)size);
        return -EINVAL;
    }
    return 0;
}

/* The guest's settings with words put over them, checked. */
static int changed_settings(struct guest_settings *out, const struct guest *g, json_t *words,
                            struct error *err)
{
    guest_settings_copy(out, &g->settings);
    int ret = guest_settings_apply(out, words, err);

    ret = ret ? ret : guest_settings_check(out, err);
    if (!ret && out->profile == PROFILE_REPLAY && !io_exists(out->iolog)) {
        error_set_errno(err, ENOENT, "Could not open '%s'", out->iolog);
        ret = -ENOENT;
    }
    if (ret) {
        guest_settings_fini(out);
    }
    return ret;
}

/* Takes settings and log (may be NULL: read when needed) over. */
static void change(struct guest *g, struct guest_settings *settings, struct guest_iolog *log)
{
    guest_settings_fini(&g->settings);
    g->settings = *settings;
    guest_iolog_free(g->log);
    g->log = log;
    g->writes_unflushed = 0;
    g->changed = true;
    guest_rewind(g);
    guest_encourage(g);
}

int guest_configure(const char *disk_id, json_t *settings, struct error *err)
{
    struct guest *g = guest_by_name(disk_id, err);
    struct guest_settings s;

    if (!g) {
        return -ENODEV;
    }
    int ret = changed_settings(&s, g, settings, err);

    if (!ret) {
        change(g, &s, NULL);
    }
    return ret;
}

int co_guest_configure(const char *disk_id, json_t *settings, struct error *err)
{
    struct guest *g = guest_by_name(disk_id, err);
    struct guest_iolog *log = NULL;
    struct guest_settings s;

    if (!g) {
        return -ENODEV;
    }
    int ret = changed_settings(&s, g, settings, err);

    if (ret) {
        return ret;
    }
    if (s.profile == PROFILE_REPLAY) {
        g->visitors++;
        ret = co_guest_iolog_load(&log, s.iolog, err);
        ret = ret ? ret : check_log(g, s.iolog, log, err);
        guest_leave(g);
    }
    if (ret) {
        guest_iolog_free(log);
        guest_settings_fini(&s);
        return ret;
    }
    change(g, &s, log);
    return 0;
}

static int co_check_guest(struct guest *g, struct error *err)
{
    struct guest_iolog *log = NULL;
    int ret = guest_settings_check(&g->settings, err);

    if (ret || g->settings.profile != PROFILE_REPLAY) {
        return ret;
    }
    AUTOFREE char *path = mem_strdup(g->settings.iolog);

    ret = co_guest_iolog_load(&log, path, err);
    ret = ret ? ret : check_log(g, path, log, err);
    guest_iolog_free(log);
    return ret;
}

int co_guest_check_settings(struct error *err)
{
    const char *disk;
    json_t *words;
    int ret = 0;

    json_object_foreach(words_for_disks, disk, words) {
        if (!guest_by_name(disk, err)) {
            return -ENODEV;
        }
    }
    for (struct guest *g = TAILQ_FIRST(&guests), *next; g && !ret; g = next) {
        g->visitors++;
        ret = co_check_guest(g, err);
        next = TAILQ_NEXT(g, link);
        guest_leave(g);
    }
    return ret;
}

/* --- Description ------------------------------------------------------------------------------ */

static const char *state_name(const struct guest *g)
{
    if (g->boot_failed || g->why) {
        return "failed";
    }
    if (g->working && machine_running() && !g->stopped) {
        return "running";
    }
    if (g->active && !g->booted) {
        return "booting";
    }
    if (g->stopped) {
        return "stopped";
    }
    if (!machine_running()) {
        return g->booted ? "paused" : "off";
    }
    if (g->finished) {
        return "done";
    }
    return g->settings.profile == PROFILE_NONE ? "idle" : "running";
}

static void put(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer(value));
}

static void put_stats(json_t *object, const struct guest *g)
{
    const struct guest_stats *s = &g->stats;

    put(object, "reads", s->reads);
    put(object, "writes", s->writes);
    put(object, "flushes", s->flushes);
    put(object, "discards", s->discards);
    put(object, "verified", s->verified);
    put(object, "mismatches", s->mismatches);
    put(object, "errors", s->errors);
    put(object, "inflight", s->inflight);
    put(object, "p50_ns", guest_latency_percentile(&s->latency, 500));
    put(object, "p99_ns", guest_latency_percentile(&s->latency, 990));
    put(object, "max_ns", s->latency.max_ns);
    put(object, "longest_stall_ns", guest_stats_stall(s, guest_clock()));
    put(object, "read_bytes", s->read_bytes);
    put(object, "written_bytes", s->written_bytes);
    put(object, "skipped", s->skipped);
    put(object, "boots", s->boots);
    put(object, "known_bytes", guest_verify_known(g->verify));
    put(object, "memory_bytes", guest_verify_memory(g->verify));
}

static json_t *mismatch_list(const struct guest *g)
{
    uint64_t count = g->mismatches_listed;
    json_t *list = json_array();

    for (uint64_t n = count > MISMATCH_LIST ? count - MISMATCH_LIST : 0; n < count; n++) {
        json_array_append_new(list, json_string(g->mismatch_list[n % MISMATCH_LIST]));
    }
    return list;
}

static json_t *describe(const struct guest *g)
{
    json_t *object = json_object();

    json_object_set_new(object, "device", json_string(g->id));
    json_object_set_new(object, "driver", json_string(g->driver->name));
    json_object_set_new(object, "profile", json_string(guest_profile_name(g->settings.profile)));
    json_object_set_new(object, "state", json_string(state_name(g)));
    if (g->why) {
        json_object_set_new(object, "why", json_string(g->why));
    }
    put_stats(object, g);
    guest_settings_describe(&g->settings, object);
    if (g->booted) {
        put(object, "capacity", g->driver->capacity(g->drv));
        json_object_set_new(object, "read_only", json_boolean(g->driver->read_only(g->drv)));
        json_object_set_new(object, "table", json_string(g->table.kind));
        json_object_set_new(object, "partitions", partition_table_describe(&g->table));
    }
    json_object_set_new(object, "mismatch_list", mismatch_list(g));
    return object;
}

json_t *guest_describe(void)
{
    json_t *array = json_array();
    struct guest *g;

    TAILQ_FOREACH(g, &guests, link) {
        json_array_append_new(array, describe(g));
    }
    return array;
}
