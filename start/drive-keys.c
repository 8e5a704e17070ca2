/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keys of a -drive say about the disk and its image, but for where it goes.
 *
 * Keys that are understood here are taken out; what is left belongs to the image (block/open.c),
 * which refuses what it does not know.
 */
#include "start/drive-keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"

/* --- Values ----------------------------------------------------------------------------------- */

const char *drive_take(json_t *keys, const char *key, char **keep)
{
    const char *value = json_string_value(json_object_get(keys, key));

    free(*keep);
    *keep = mem_strdup(value);
    json_object_del(keys, key);
    return *keep;
}

static int parse_on_off(const char *key, const char *value, bool *out, struct error *err)
{
    if (keyval_switch(value, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        return -EINVAL;
    }
    return 0;
}

static int check_on_off(const json_t *keys, const char *key, struct error *err)
{
    const char *value = json_string_value(json_object_get(keys, key));
    bool ignored;

    return value ? parse_on_off(key, value, &ignored, err) : 0;
}

int drive_parse_number(const char *key, const char *value, int *out, struct error *err)
{
    char *end;
    long n = strtol(value, &end, 0);

    if (!*value || *end || n > 1 << 20 || n < -(1 << 20)) {
        error_set(err, "Parameter '%s' expects a number", key);
        return -EINVAL;
    }
    *out = n;
    return 0;
}

static int parse_policy(const char *value, bool is_read, enum disk_policy *out, struct error *err)
{
    static const char *const names[] = { "report", "ignore", "stop", "enospc" };

    for (unsigned i = 0; i < (is_read ? 3 : 4); i++) {
        if (strcmp(value, names[i]) == 0) {
            *out = (enum disk_policy)i;
            return 0;
        }
    }
    error_set(err, "'%s' invalid %s error action", value, is_read ? "read" : "write");
    return -EINVAL;
}

/* --- What is it? ------------------------------------------------------------------------------ */

struct cache_mode {
    const char *name;
    bool writeback, direct, no_flush;
};
static const struct cache_mode cache_modes[] = {
    { "writeback", true, false, false },
    { "none", true, true, false },
    { "off", true, true, false },
    { "directsync", false, true, false },
    { "writethrough", false, false, false },
    { "unsafe", true, false, true },
};

static int take_cache(json_t *keys, struct drive_settings *s, struct error *err)
{
    AUTOFREE char *value = NULL;
    const struct cache_mode *mode = NULL;

    s->writeback = true;
    if (drive_take(keys, "cache", &value)) {
        for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++) {
            if (strcmp(value, cache_modes[i].name) == 0) {
                mode = &cache_modes[i];
            }
        }
        if (!mode) {
            error_set(err, "invalid cache option");
            return -EINVAL;
        }
        s->writeback = mode->writeback;
        if (!json_object_get(keys, "cache.direct")) {
            json_object_set_new(keys, "cache.direct", json_string(mode->direct ? "on" : "off"));
        }
        if (!json_object_get(keys, "cache.no-flush")) {
            json_object_set_new(keys, "cache.no-flush", json_string(mode->no_flush ? "on" : "off"));
        }
    }
    if (drive_take(keys, "cache.writeback", &value)) {
        return parse_on_off("cache.writeback", value, &s->writeback, err);
    }
    if (check_on_off(keys, "cache.direct", err) < 0) {
        return -EINVAL;
    }
    return check_on_off(keys, "cache.no-flush", err);
}

/* Values that the opening of an image would find wrong as well, in the words that QEMU has for
 * options. */
static int check_words(const json_t *keys, struct error *err)
{
    const char *zeroes = json_string_value(json_object_get(keys, "detect-zeroes"));

    if (zeroes && strcmp(zeroes, "off") && strcmp(zeroes, "on") && strcmp(zeroes, "unmap")) {
        error_set(err, "invalid parameter value: %s", zeroes);
        return -EINVAL;
    }
    if (json_object_get(keys, "read-only") && json_object_get(keys, "readonly")) {
        error_set(err, "'read-only' and its alias 'readonly' can't be used at the same time");
        return -EINVAL;
    }
    if (json_object_get(keys, "file") && json_object_get(keys, "file.filename")) {
        error_set(err, "Can't specify 'file' and 'filename' options at the same time");
        return -EINVAL;
    }
    return 0;
}

static int take_aio(json_t *keys, struct error *err)
{
    AUTOFREE char *value = NULL;

    if (!drive_take(keys, "aio", &value)) {
        return 0;
    }
    if (strcmp(value, "threads") && strcmp(value, "native") && strcmp(value, "io_uring")) {
        error_set(err, "invalid aio option");
        return -EINVAL;
    }
    if (strcmp(value, "native") == 0 &&
        strcmp(json_string_value(json_object_get(keys, "cache.direct")) ?: "off", "on") != 0) {
        error_set(err, "aio=native was specified, but it requires cache.direct=on, "
                       "which was not specified.");
        return -EINVAL;
    }
    json_object_set_new(keys, "file.aio", json_string(value));
    return 0;
}

static int take_switch(json_t *keys, const char *key, bool *out, struct error *err)
{
    AUTOFREE char *value = NULL;

    return drive_take(keys, key, &value) ? parse_on_off(key, value, out, err) : 0;
}

static int take_switches(json_t *keys, struct drive_settings *s, struct error *err)
{
    bool ignored;

    if (take_switch(keys, "snapshot", &s->snapshot, err) < 0 ||
        take_switch(keys, "copy-on-read", &s->copy_on_read, err) < 0 ||
        take_switch(keys, "stats-account-invalid", &ignored, err) < 0 ||
        take_switch(keys, "stats-account-failed", &ignored, err) < 0) {
        return -EINVAL;
    }
    return 0;
}

/* --- Throttling ------------------------------------------------------------------------------- */

/* The names of the limits, and their older spelling. */
static const struct {
    const char *name, *alias;
} limits[] = {
    { "throttling.iops-total", "iops" },
    { "throttling.iops-read", "iops_rd" },
    { "throttling.iops-write", "iops_wr" },
    { "throttling.bps-total", "bps" },
    { "throttling.bps-read", "bps_rd" },
    { "throttling.bps-write", "bps_wr" },
    { "throttling.iops-total-max", "iops_max" },
    { "throttling.iops-read-max", "iops_rd_max" },
    { "throttling.iops-write-max", "iops_wr_max" },
    { "throttling.bps-total-max", "bps_max" },
    { "throttling.bps-read-max", "bps_rd_max" },
    { "throttling.bps-write-max", "bps_wr_max" },
    { "throttling.iops-size", "iops_size" },
    { "throttling.group", "group" },
    { "throttling.iops-total-max-length", NULL },
    { "throttling.iops-read-max-length", NULL },
    { "throttling.iops-write-max-length", NULL },
    { "throttling.bps-total-max-length", NULL },
    { "throttling.bps-read-max-length", NULL },
    { "throttling.bps-write-max-length", NULL },
};
#define LIMIT_KINDS 6 /* iops and bps: total, read, write; their bursts come next, in that order */
#define LIMIT_MOST 1000000000000000ull

static int take_limit(json_t *keys, size_t i, struct drive_settings *s, struct error *err)
{
    const char *name = limits[i].name, *alias = limits[i].alias;
    json_t *value = json_object_get(keys, name);
    const char *text;
    char *end;

    if (alias && json_object_get(keys, alias)) {
        if (value) {
            error_set(err, "'%s' and its alias '%s' can't be used at the same time", name, alias);
            return -EINVAL;
        }
        value = json_object_get(keys, alias);
    }
    text = json_string_value(value);
    if (!text) {
        return 0;
    }
    s->throttling = s->throttling ? s->throttling : json_object();
    if (!strcmp(name, "throttling.group")) {
        json_object_set(s->throttling, "group", value);
    } else {
        long long number = strtoll(text, &end, 0);

        if (!*text || *end) {
            error_set(err, "Parameter '%s' expects a number", name);
            return -EINVAL;
        }
        json_object_set_new(s->throttling, strchr(name, '.') + 1, json_integer(number));
    }
    json_object_del(keys, name);
    if (alias) {
        json_object_del(keys, alias);
    }
    return 0;
}

static unsigned long long limit_of(const struct drive_settings *s, size_t i, const char *suffix)
{
    AUTOFREE char *name = mem_printf("%s%s", strchr(limits[i].name, '.') + 1, suffix);

    return json_integer_value(json_object_get(s->throttling, name));
}

/* Does it make sense? */
static int check_limits(const struct drive_settings *s, struct error *err)
{
    for (size_t first = 0; first < LIMIT_KINDS; first += 3) {
        for (size_t burst = 0; burst <= LIMIT_KINDS; burst += LIMIT_KINDS) {
            if (limit_of(s, first + burst, "") &&
                (limit_of(s, first + burst + 1, "") || limit_of(s, first + burst + 2, ""))) {
                error_set(err, "bps/iops/max total values and read/write values cannot be used at the same time");
                return -EINVAL;
            }
        }
    }
    if (limit_of(s, 12, "") && !limit_of(s, 0, "") && !limit_of(s, 1, "") && !limit_of(s, 2, "")) {
        error_set(err, "iops size requires an iops value to be set");
        return -EINVAL;
    }
    for (size_t i = 0; i < LIMIT_KINDS; i++) {
        unsigned long long average = limit_of(s, i, ""), most = limit_of(s, i, "-max");
        AUTOFREE char *length = mem_printf("%s-max-length", strchr(limits[i].name, '.') + 1);

        if (average > LIMIT_MOST || most > LIMIT_MOST) {
            error_set(err, "bps/iops/max values must be within [0, %llu]", LIMIT_MOST);
        } else if (json_object_get(s->throttling, length) && !limit_of(s, i, "-max-length")) {
            error_set(err, "the burst length cannot be 0");
        } else if (most && !average) {
            error_set(err, "bps_max/iops_max require corresponding bps/iops values");
        } else if (most && most < average) {
            error_set(err, "bps_max/iops_max cannot be lower than bps/iops");
        }
        if (error_is_set(err)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int take_throttling(json_t *keys, struct drive_settings *s, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        if (take_limit(keys, i, s, err) < 0) {
            return -EINVAL;
        }
    }
    return check_limits(s, err);
}

/* --- All of it -------------------------------------------------------------------------------- */

int drive_take_settings(json_t *keys, struct drive_settings *s, struct error *err)
{
    static const char *const read_only[] = { "readonly", "read-only" };
    AUTOFREE char *value = NULL;

    s->werror = DISK_ENOSPC;
    s->rerror = DISK_REPORT;
    if (check_words(keys, err) < 0 || take_cache(keys, s, err) < 0 || take_aio(keys, err) < 0 ||
        take_switches(keys, s, err) < 0 || take_throttling(keys, s, err) < 0) {
        return -EINVAL;
    }
    if (drive_take(keys, "werror", &value) && parse_policy(value, false, &s->werror, err) < 0) {
        return -EINVAL;
    }
    if (drive_take(keys, "rerror", &value) && parse_policy(value, true, &s->rerror, err) < 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
        if (drive_take(keys, read_only[i], &value) &&
            parse_on_off("read-only", value, &s->read_only, err) < 0) {
            return -EINVAL;
        }
    }
    if (json_object_get(keys, "format")) {
        if (json_object_get(keys, "driver")) {
            error_set(err, "Cannot specify both 'driver' and 'format'");
            return -EINVAL;
        }
        json_object_set(keys, "driver", json_object_get(keys, "format"));
        json_object_del(keys, "format");
    }
    return 0;
}

void drive_settings_free(struct drive_settings *s)
{
    json_decref(s->throttling);
}

/* --- Help ------------------------------------------------------------------------------------- */

const struct drive_key drive_keys[] = {
    { "file", "PATH", "the image" },
    { "if", "ide|virtio|none", "what it is attached to; none: nothing yet, -device does it" },
    { "index", "N", "its place on that bus" },
    { "bus", "N", "instead of index: the IDE channel" },
    { "unit", "N", "and the unit on it" },
    { "media", "disk|cdrom", "with a tray, and read-only" },
    { "id", "ID", "what the monitor calls the disk; made from its place unless given" },
    { "node-name", "NAME", "and its image" },
    { "format", "qcow2|raw", "of the image; guessed unless given" },
    { "readonly", "on|off", "no writing (also read-only)" },
    { "auto-read-only", "on|off", "no writing where the host forbids it" },
    { "force-share", "on|off", "open although another program writes to it" },
    { "snapshot", "on|off", "what the guest writes goes to a temporary file" },
    { "cache", "writeback|none|writethrough|directsync|unsafe", "how the host's cache is used" },
    { "cache.direct", "on|off", "past the host's cache" },
    { "cache.no-flush", "on|off", "never flush" },
    { "cache.writeback", "on|off", "stable after a flush only" },
    { "aio", "threads|native|io_uring", "who carries out input and output" },
    { "discard", "ignore|unmap", "what becomes of a guest's discards (also off, on)" },
    { "detect-zeroes", "off|on|unmap", "zeroes that are written become holes" },
    { "werror", "report|ignore|stop|enospc", "what a failed write does" },
    { "rerror", "report|ignore|stop", "what a failed read does" },
    { "copy-on-read", "on|off", "what is read from below is kept" },
    { "throttling.LIMIT", "N", "bps-total, iops-read, ..., also bps, iops_rd, ..." },
    { "file.KEY", "VALUE", "options of the file below the image: filename, driver, node-name, aio, locking" },
    { "backing.KEY", "VALUE", "options of the image that it stands on, backing.backing.KEY of the next" },
    { NULL, NULL, NULL },
};

static void print_formats(FILE *out, const char *title)
{
    fputs(title, out);
    for (const struct driver *const *d = driver_list(); *d; d++) {
        fprintf(out, " %s", (*d)->name);
    }
    fputs("\n", out);
}

bool drive_help(json_t *keys, FILE *out)
{
    const char *format = json_string_value(json_object_get(keys, "format"));

    if (format && (!strcmp(format, "help") || !strcmp(format, "?"))) {
        print_formats(out, "Supported formats:");
        print_formats(out, "Supported formats (read-only):");
        return true;
    }
    if (json_object_size(keys) != 1 || (!json_object_get(keys, "help") && !json_object_get(keys, "?"))) {
        return false;
    }
    for (const struct drive_key *key = drive_keys; key->name; key++) {
        AUTOFREE char *left = mem_printf("%s=%s", key->name, key->values);

        fprintf(out, "  %-38s %s\n", left, key->help);
    }
    return true;
}
