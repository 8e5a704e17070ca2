/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of options, the words of the command line brought to its rows, and what the simpler ones do; start/take-*.c
 * have the others.  See options.h.
 */
#include "start/option-rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uuid/uuid.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"

/* --- Guests ----------------------------------------------------------------------------------- */

static int take_guest(struct options *o, const struct given *g, struct error *err)
{
    json_t *words = keyval_parse(g->value, NULL, err);
    struct option_guest *guest;

    if (!words) {
        return -EINVAL;
    }
    guest = GROW(o->guests, o->guest_count);
    guest->shown = mem_strdup(g->shown);
    guest->words = words;
    return 0;
}

static int take_stopped(struct options *o, const struct given *g, struct error *err)
{
    o->stopped = true;
    return 0;
}

/* --- Scripts ---------------------------------------------------------------------------------- */

static int take_script(struct options *o, const struct given *g, struct error *err)
{
    struct option_script *script = GROW(o->scripts, o->script_count);

    script->is_file = g->row->name[0] == 'f';
    script->text = mem_strdup(g->value);
    return 0;
}

static int refuse_value(const struct given *g, struct error *err)
{
    error_set(err, "Parameter '%s' does not accept value '%s'", g->row->name, g->value);
    error_hint(err, "It takes %s.", g->row->value);
    return -EINVAL;
}

static int take_on_error(struct options *o, const struct given *g, struct error *err)
{
    if (strcmp(g->value, "stop") && strcmp(g->value, "continue")) {
        return refuse_value(g, err);
    }
    o->on_error = g->value[0] == 's' ? ERRORS_STOP : ERRORS_CONTINUE;
    return 0;
}

/* --- The program ------------------------------------------------------------------------------ */

int take_switch(json_t *keys, const char *key, bool fallback, bool *out, struct error *err)
{
    const char *value = json_string_value(json_object_get(keys, key));

    *out = fallback;
    if (value && keyval_switch(value, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        return -EINVAL;
    }
    json_object_del(keys, key);
    return 0;
}

static int take_clock(struct options *o, const struct given *g, struct error *err)
{
    if (strcmp(g->value, "real") && strcmp(g->value, "virtual")) {
        return refuse_value(g, err);
    }
    o->clock = g->value[0] == 'r' ? LOOP_CLOCK_REAL : LOOP_CLOCK_VIRTUAL;
    return 0;
}

static int take_seed(struct options *o, const struct given *g, struct error *err)
{
    char *end;

    errno = 0;
    o->seed = strtoull(g->value, &end, 0);
    o->has_seed = true;
    if (errno || end == g->value || *end || strchr(g->value, '-')) {
        error_set(err, "Parameter 'seed' expects a non-negative number below 2^64");
        return -EINVAL;
    }
    return 0;
}

static int take_map_cache_size(struct options *o, const struct given *g, struct error *err)
{
    if (size_parse(g->value, 1, &o->map_cache_size, NULL) < 0 || !o->map_cache_size) {
        error_set(err, "Parameter 'map-cache-size' expects a size");
        return -EINVAL;
    }
    return 0;
}

static int take_name(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "process", "debug-threads" }; /* of no use here */
    bool ignored;
    json_t *keys = keyval_parse(g->value, "guest", err);
    const char *guest, *key;

    if (!keys) {
        return -EINVAL;
    }
    take_switch(keys, "debug-threads", false, &ignored, err);
    guest = json_string_value(json_object_get(keys, "guest"));
    if (guest) {
        free(o->name);
        o->name = mem_strdup(guest);
    }
    json_object_del(keys, "guest");
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        json_object_del(keys, known[i]);
    }
    key = json_object_iter_key(json_object_iter(keys));
    if (key) {
        error_set(err, "Invalid parameter '%s'", key);
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

static int take_uuid(struct options *o, const struct given *g, struct error *err)
{
    char text[UUID_STR_LEN];
    uuid_t uuid;

    if (uuid_parse(g->value, uuid) < 0) {
        error_set(err, "failed to parse UUID string: wrong format");
        return -EINVAL;
    }
    uuid_unparse_lower(uuid, text);
    free(o->uuid);
    o->uuid = mem_strdup(text);
    return 0;
}

/* QEMU's words for what else may be denied; here all of it is, without being asked. */
static const char *const denied[] = { "obsolete", "elevateprivileges", "spawn", "resourcecontrol" };

static int sandbox_from_keys(struct options *o, json_t *keys, struct error *err)
{
    const char *landlock = json_string_value(json_object_get(keys, "landlock")), *key;
    int ret = take_switch(keys, "enable", false, &o->sandbox, err);

    if (ret) {
        return ret;
    }
    o->landlock_optional = landlock && !strcmp(landlock, "optional");
    if (landlock && !o->landlock_optional && strcmp(landlock, "required")) {
        error_set(err, "Parameter 'landlock' expects 'required' or 'optional'");
        return -EINVAL;
    }
    json_object_del(keys, "landlock");
    for (size_t i = 0; i < ARRAY_SIZE(denied); i++) {
        const char *value = json_string_value(json_object_get(keys, denied[i]));

        if (value && strcmp(value, "allow") && strcmp(value, "deny")) {
            error_set(err, "invalid argument for %s", denied[i]);
            return -EINVAL;
        }
        if (value && strcmp(value, "deny")) {
            error_set(err, "Parameter '%s' expects 'deny': the sandbox always does", denied[i]);
            return -EINVAL;
        }
        json_object_del(keys, denied[i]);
    }
    key = json_object_iter_key(json_object_iter(keys));
    if (key) {
        error_set(err, "Invalid parameter '%s'", key);
    }
    return key ? -EINVAL : 0;
}

static int take_sandbox(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "enable", err);
    int ret = keys ? sandbox_from_keys(o, keys, err) : -EINVAL;

    json_decref(keys);
    return ret;
}

static int take_pidfile(struct options *o, const struct given *g, struct error *err)
{
    free(o->pidfile);
    o->pidfile = mem_strdup(g->value);
    return 0;
}

static int take_logfile(struct options *o, const struct given *g, struct error *err)
{
    free(o->logfile);
    o->logfile = mem_strdup(g->value);
    return 0;
}

static int take_daemonize(struct options *o, const struct given *g, struct error *err)
{
    o->daemonize = true;
    return 0;
}

static int take_compat(struct options *o, const struct given *g, struct error *err)
{
    o->compat = true;
    return 0;
}

static int take_safe(struct options *o, const struct given *g, struct error *err)
{
    o->safe = true;
    return 0;
}

static int take_sim(struct options *o, const struct given *g, struct error *err)
{
    error_set(err, "must be the first word"); /* then it is not seen here */
    return -EINVAL;
}

static int take_help(struct options *o, const struct given *g, struct error *err)
{
    o->help = true;
    return 0;
}

static int take_tables(struct options *o, const struct given *g, struct error *err)
{
    o->tables = true;
    return 0;
}

static int take_version(struct options *o, const struct given *g, struct error *err)
{
    o->version = true;
    return 0;
}

/* --- The table -------------------------------------------------------------------------------- */

static const struct option table[] = {
    { "drive", "KEY=VALUE,...", "Disks",
      "a disk: file=, if=virtio|ide|none, index=, format=, id=, node-name=,\n"
      "readonly=, cache=, aio=threads|io_uring, werror=, rerror=, discard=,\n"
      "and options of the images below it as backing.KEY=, backing.backing.KEY=;\n"
      "a comma in a value is doubled",
      false, take_drive },
    { "blockdev", "DRIVER,KEY=VALUE,...|JSON", "Disks",
      "one node of a graph: node-name=, file.driver=file, file.filename=, backing=, ...;\n"
      "what lies below is given in place (file.KEY=) or by its node-name (file=NAME)",
      false, take_blockdev },
    { "device", "MODEL,KEY=VALUE,...|JSON", "Disks",
      "hardware for a disk: virtio-blk or ide-hd, drive=ID-OR-NODE, id=, bus=, serial=, ...;\n"
      "-device help lists the models, -device MODEL,help their keys",
      false, take_device },
    { "snapshot", NULL, "Disks", "what guests write goes to temporary files, for all drives", false, take_snapshot },
    { "hda", "FILE", "Disks", "the first IDE disk; an IMAGE is the same", false, take_hd },
    { "hdb", "FILE", "Disks", "the second", false, take_hd },
    { "hdc", "FILE", "Disks", "the third", false, take_hd },
    { "hdd", "FILE", "Disks", "the fourth", false, take_hd },
    { "cdrom", "FILE", "Disks", "a medium in a drive with a tray, the third IDE disk's place", false, take_cdrom },
    { "guest", "KEY=VALUE,...", "Guests",
      "what the simulated guests do, in fio's words: disk=ID (all disks unless\n"
      "given), profile=preserve|stamp|replay|none, rw=, rwmixread=, bs=, iodepth=,\n"
      "rate_iops=, size=, offset=, flush_every=, seed=, iolog=FILE",
      false, take_guest },
    { "S", NULL, "Guests", "do not start them: `cont` does", false, take_stopped },
    { "monitor", "PLACE", "Monitors",
      "where the human monitor lives: stdio (unless another is said), none, file:PATH,\n"
      "unix:PATH, tcp:[HOST]:PORT or telnet:[HOST]:PORT, with ,server=on,wait=off behind it\n"
      "to listen; without a host only this machine can connect",
      false, take_monitor },
    { "qmp", "PLACE", "Monitors", "and the monitor for machines (JSON)", false, take_monitor },
    { "qmp-pretty", "PLACE", "Monitors", "the same, indented", false, take_monitor },
    { "chardev", "socket|file|stdio|null,KEY=VALUE,...", "Monitors",
      "a place with a name: id=, path= or host=,port=, server=on, wait=off, telnet=on, append=on",
      false, take_chardev },
    { "mon", "CHARDEV,mode=readline|control", "Monitors", "a monitor in such a place", false, take_mon },
    { "f", "FILE", "Scripts", "run monitor commands from a file, - is standard input", false,
      take_script },
    { "c", "COMMAND", "Scripts", "run a monitor command; -f and -c run in the order given", false,
      take_script },
    { "on-error", "stop|continue", "Scripts",
      "when a command fails; unless given, stop in -f and -c, continue on\n"
      "standard input",
      true, take_on_error },
    { "clock", "real|virtual", "Program",
      "virtual: waiting takes no time, and the same seed gives the same run",
      true, take_clock },
    { "seed", "NUMBER", "Program", "where all chance comes from", true, take_seed },
    { "map-cache-size", "SIZE", "Program",
      "memory for the resolved tables of all chains (8M); those of one image have\n"
      "cache-size=, l2-cache-size=, refcount-cache-size= of -drive",
      true, take_map_cache_size },
    { "name", "NAME", "Program", "what `info name` shows", false, take_name },
    { "uuid", "UUID", "Program", "what `info uuid` shows", false, take_uuid },
    { "pidfile", "FILE", "Program", "our process number goes there, and away at the end", false, take_pidfile },
    { "daemonize", NULL, "Program", "go on in the background, once all is open and listening", false,
      take_daemonize },
    { "D", "FILE", "Program", "messages go there instead of to standard error, once all is open", false,
      take_logfile },
    { "msg", "timestamp=on|off,guest-name=on|off", "Program", "what stands before each message", false, take_msg },
    { "readconfig", "FILE", "Program", "more options, in QEMU's format: [drive \"id\"] and lines of key = \"value\"",
      false, take_readconfig },
    { "object", "TYPE,id=ID,...|JSON", "Program", "iothread, throttle-group; others are ignored", false, take_object },
    { "sandbox", "on|off", "Program",
      "on: after the start only the images and places that were named can be\n"
      "reached, no program can be run, nothing be connected to;\n"
      "on,landlock=optional: also where the kernel cannot guard files",
      true, take_sandbox },
    { "qemu-compat", NULL, "Program", "speak like QEMU 7.2, without the words that it lacks", true,
      take_compat },
    { "safe", NULL, "Program",
      "refuse commands that are known traps, instead of warning of them: a backing file\n"
      "that the next start will not find, a commit into one, a smaller size that cuts off data",
      true, take_safe },
    { "sim", "WORD...", "Program",
      "explore crashes on simulated disks; the first option; --sim help tells more", true,
      take_sim },
    { "help", NULL, "Program", "this text", true, take_help },
    { "h", NULL, NULL, NULL, false, take_help },
    { "version", NULL, "Program", "which version this is", true, take_version },
    { "tables", NULL, "Program", "all of this as JSON, for what is made from it", true, take_tables },
};

const struct option *option_rows(size_t *count)
{
    *count = ARRAY_SIZE(table);
    return table;
}

/* --- Words ------------------------------------------------------------------------------------ */

static const struct option *find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len)) {
            return &table[i];
        }
    }
    return ignored_option_find(name, len);
}

/* Options that QEMU has not.  Their wrong use has an exit code of its own. */
static bool is_ours(const struct option *row)
{
    static const char *const names[] = { "guest", "f", "c", "on-error", "clock", "seed", "map-cache-size",
                                         "qemu-compat", "safe", "sim" };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (!strcmp(names[i], row->name)) {
            return true;
        }
    }
    return false;
}

int option_apply(struct options *o, const char *name, const char *value, const char *shown, struct error *err)
{
    const struct option *row = find(name, strlen(name));

    return row->take(o, &(struct given){ row, shown, value }, err);
}

/* Most groups have the names of their options. */
const char *option_in_file(const char *name)
{
    static const char *const same[] = { "drive", "device", "chardev", "mon", "name", "object", "msg", "machine", "accel", "global",
                                        "netdev", "net", "nic", "rtc", "numa", "smbios", "overcommit", "action", "audiodev",
                                        "fw_cfg", "spice", "icount", "trace", "tpmdev", "fsdev", "virtfs", "vnc", "sandbox" };
    static const char *const others[][2] = { { "memory", "m" }, { "smp-opts", "smp" }, { "boot-opts", "boot" } };

    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        if (!strcmp(same[i], name)) {
            return same[i];
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        if (!strcmp(others[i][0], name)) {
            return others[i][1];
        }
    }
    return NULL;
}

/* One option at argv[*i]; *i stands on the last word of it afterwards. */
static int take_option(struct options *o, int argc, char **argv, int *i, char **shown,
                       struct error *err)
{
    const char *word = argv[*i], *name = word + 1 + (word[1] == '-');
    size_t len = strcspn(name, "=");
    const struct option *row = find(name, len);
    const char *value = name[len] ? name + len + 1 : NULL;

    *shown = mem_strdup(word);
    o->usage_code = row && is_ours(row) ? 2 : 1;
    if (!row || (value && !row->value)) {
        error_set(err, "invalid option");
        return -EINVAL;
    }
    if (row->value && !value) {
        if (*i + 1 >= argc) {
            error_set(err, "requires an argument");
            return -EINVAL;
        }
        value = argv[++*i];
        free(*shown);
        *shown = mem_printf("%s %s", word, value);
    }
    if (row->take == take_help && *i + 1 < argc && !strcmp(argv[*i + 1], "all")) {
        o->help_all = true;
        ++*i;
    }
    return row->take(o, &(struct given){ row, *shown, value }, err);
}

bool options_are_sim(int argc, char **argv)
{
    return argc > 1 && argv[1][0] == '-' && !strcmp(argv[1] + 1 + (argv[1][1] == '-'), "sim");
}

int options_parse(struct options *o, int argc, char **argv, char **shown, struct error *err)
{
    bool only_images = false;

    *o = (struct options){ .clock = LOOP_CLOCK_REAL, .usage_code = 1 };
    *shown = NULL;
    for (int i = 1; i < argc; i++) {
        if (only_images || argv[i][0] != '-') {
            options_add_image(o, argv[i], argv[i], 0);
        } else if (!strcmp(argv[i], "--")) {
            only_images = true;
        } else {
            int ret = take_option(o, argc, argv, &i, shown, err);

            if (ret) {
                if (o->where || o->bare) {
                    free(*shown);
                    *shown = o->where;
                    o->where = NULL;
                }
                return ret;
            }
            o->bare = false;
            if (o->done || o->help || o->version) {
                free(*shown);
                *shown = NULL;
                return 0;
            }
            free(*shown);
            *shown = NULL;
        }
    }
    if (o->safe && o->compat) {
        error_set(err, "--safe and --qemu-compat: QEMU refuses nothing of what --safe refuses");
        o->usage_code = 2;
        return -EINVAL;
    }
    o->usage_code = 1;
    return hardware_check(o, err) < 0 ? -EINVAL : join_monitors(o, shown, err);
}

static void free_trees(struct option_tree *trees, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(trees[i].shown);
        json_decref(trees[i].tree);
    }
    free(trees);
}

void options_free(struct options *o)
{
    json_decref(o->hardware);
    for (size_t i = 0; i < o->disks.drive_count; i++) {
        free(o->disks.drives[i].shown);
        json_decref(o->disks.drives[i].keys);
    }
    free_trees(o->disks.blockdevs, o->disks.blockdev_count);
    free_trees(o->disks.devices, o->disks.device_count);
    for (size_t i = 0; i < o->guest_count; i++) {
        free(o->guests[i].shown);
        json_decref(o->guests[i].words);
    }
    for (size_t i = 0; i < o->place_count; i++) {
        free(o->places[i].shown);
        chardev_spec_free(&o->places[i].spec);
    }
    for (size_t i = 0; i < o->mon_count; i++) {
        free(o->mons[i].shown);
        free(o->mons[i].chardev);
    }
    for (size_t i = 0; i < o->script_count; i++) {
        free(o->scripts[i].text);
    }
    free_trees(o->objects, o->object_count);
    free(o->pidfile);
    free(o->logfile);
    free(o->where);
    free(o->disks.drives);
    free(o->guests);
    free(o->places);
    free(o->mons);
    free(o->scripts);
    free(o->name);
    free(o->uuid);
}
