/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of options, and what each does: see options.h.
 */
#include "start/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uuid/uuid.h>

#include "block/node.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "start/places.h"
#include "start/words.h"

struct given;
struct option {
    const char *name;
    const char *value; /* what --help calls it; NULL: it has none */
    const char *group;
    const char *help;  /* may have several lines; NULL: another row has said it */
    bool two_dashes;   /* how --help shows it; both forms are taken */
    int (*take)(struct options *o, const struct given *g, struct error *err);
};
/* An option on the line. */
struct given {
    const struct option *row;
    const char *shown; /* as typed */
    const char *value; /* NULL: none */
};

/* One more element at the end of an array: a pointer to it, zeroed. */
#define GROW(array, count)                                                  \
    ({                                                                      \
        (array) = mem_reallocarray((array), (count) + 1, sizeof(*(array))); \
        memset(&(array)[count], 0, sizeof(*(array)));                       \
        &(array)[(count)++];                                                \
    })

/* --- Disks ------------------------------------------------------------------------------------ */

void options_add_drive(struct options *o, const char *shown, json_t *keys)
{
    struct drive *drive = GROW(o->disks.drives, o->disks.drive_count);

    drive->shown = mem_strdup(shown);
    drive->keys = keys;
}

static int take_drive(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, NULL, err);

    if (!keys) {
        return -EINVAL;
    }
    options_add_drive(o, g->shown, keys);
    return 0;
}

/* The name is taken as it is: a comma in it is a comma. */
static void add_image(struct options *o, const char *shown, const char *path, unsigned index)
{
    AUTOFREE char *number = mem_printf("%u", index);
    json_t *keys = json_pack("{s:s, s:s}", "index", number, "media", "disk");

    json_object_set_new(keys, "file", json_stringn_nocheck(path, strlen(path)));
    options_add_drive(o, shown, keys);
}

static int take_hd(struct options *o, const struct given *g, struct error *err)
{
    add_image(o, g->shown, g->value, g->row->name[2] - 'a');
    return 0;
}

static int take_snapshot(struct options *o, const struct given *g, struct error *err)
{
    o->disks.snapshot = true;
    return 0;
}

static int add_tree(struct option_tree **trees, size_t *count, const struct given *g, const char *implied,
                    struct error *err)
{
    bool from_words;
    json_t *tree = words_tree(g->value, implied, &from_words, err);
    struct option_tree *item;

    if (!tree) {
        return -EINVAL;
    }
    item = GROW(*trees, *count);
    *item = (struct option_tree){ mem_strdup(g->shown), tree, from_words };
    return 0;
}

static int take_blockdev(struct options *o, const struct given *g, struct error *err)
{
    return add_tree(&o->disks.blockdevs, &o->disks.blockdev_count, g, "driver", err);
}

/* QEMU's older spelling: flat keys, a flag without '=' is "on". */
static int take_device(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys;

    if (g->value[0] == '{') {
        return add_tree(&o->disks.devices, &o->disks.device_count, g, NULL, err);
    }
    keys = keyval_parse(g->value, "driver", err);
    if (!keys) {
        return -EINVAL;
    }
    *GROW(o->disks.devices, o->disks.device_count) = (struct option_tree){ mem_strdup(g->shown), keys, true };
    return 0;
}

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

/* --- Monitors --------------------------------------------------------------------------------- */

static int take_switch(json_t *keys, const char *key, bool fallback, bool *out, struct error *err)
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

static int refuse_stdio_twice(struct options *o, struct error *err)
{
    if (o->stdio_taken) {
        error_set(err, "cannot use stdio by multiple character devices");
        return -EINVAL;
    }
    o->stdio_taken = true;
    return 0;
}

static int check_id(const char *id, struct error *err)
{
    if (!id_wellformed(id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
        return -EINVAL;
    }
    return 0;
}

static struct option_place *place_find(const struct options *o, const char *id)
{
    for (size_t i = 0; i < o->place_count; i++) {
        if (o->places[i].spec.id && !strcmp(o->places[i].spec.id, id)) {
            return &o->places[i];
        }
    }
    return NULL;
}

static int chardev_from_keys(struct options *o, const struct given *g, json_t *keys, struct error *err)
{
    const char *id = json_string_value(json_object_get(keys, "id"));
    struct chardev_spec spec;
    int ret;

    if (!id) {
        error_set(err, "chardev: no id specified");
        return -EINVAL;
    }
    if (check_id(id, err) < 0) {
        return -EINVAL;
    }
    if (place_find(o, id)) {
        error_set(err, "Duplicate ID '%s' for chardev", id);
        return -EEXIST;
    }
    if (!json_object_get(keys, "backend")) {
        error_set(err, "chardev: \"%s\" missing backend", id);
        return -EINVAL;
    }
    ret = place_from_keys(keys, &spec, err);
    if (ret == 0 && spec.kind == CHARDEV_STDIO) {
        ret = refuse_stdio_twice(o, err);
    }
    if (ret < 0) {
        chardev_spec_free(&spec);
        return ret;
    }
    *GROW(o->places, o->place_count) = (struct option_place){ .shown = mem_strdup(g->shown), .spec = spec };
    return 0;
}

static int take_chardev(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "backend", err);
    int ret = keys ? chardev_from_keys(o, g, keys, err) : -EINVAL;

    json_decref(keys);
    return ret;
}

/* Make `place` a monitor's. */
static int use_place(struct options *o, struct option_place *place, enum place_use use, struct error *err)
{
    if (place->use != PLACE_IDLE) {
        error_set(err, "Device '%s' is in use", place->spec.id);
        return -EBUSY;
    }
    place->use = use;
    place->spec.lines = use == PLACE_HUMAN;
    o->monitor_given = o->monitor_given || use == PLACE_HUMAN;
    o->human_stdio = o->human_stdio || (use == PLACE_HUMAN && place->spec.kind == CHARDEV_STDIO);
    return 0;
}

static int take_monitor(struct options *o, const struct given *g, struct error *err)
{
    bool qmp = g->row->name[0] == 'q';
    struct option_place place = { .use = PLACE_IDLE, .style.pretty = !strcmp(g->row->name, "qmp-pretty") };
    int ret;

    if (!strncmp(g->value, "chardev:", 8)) {
        struct option_mon *mon = GROW(o->mons, o->mon_count);

        *mon = (struct option_mon){ mem_strdup(g->shown), mem_strdup(g->value + 8), qmp, place.style.pretty };
        return 0;
    }
    ret = place_from_word(g->value, g->shown, &place.spec, err);
    if (ret == 0 && place.spec.kind == CHARDEV_STDIO) {
        ret = refuse_stdio_twice(o, err);
    }
    if (ret == 0) {
        ret = use_place(o, &place, qmp ? PLACE_QMP : PLACE_HUMAN, err);
    }
    if (ret) {
        chardev_spec_free(&place.spec);
        return ret;
    }
    place.shown = mem_strdup(g->shown);
    *GROW(o->places, o->place_count) = place;
    return 0;
}

static int mon_from_keys(struct options *o, const struct given *g, json_t *keys, struct error *err)
{
    const char *mode = json_string_value(json_object_get(keys, "mode"));
    const char *chardev = json_string_value(json_object_get(keys, "chardev")), *key;
    bool qmp = mode && !strcmp(mode, "control"), has_pretty = json_object_get(keys, "pretty"), pretty;
    json_t *value;

    json_object_foreach(keys, key, value) {
        if (strcmp(key, "mode") && strcmp(key, "chardev") && strcmp(key, "pretty") && strcmp(key, "id")) {
            error_set(err, "Invalid parameter '%s'", key);
            return -EINVAL;
        }
    }
    if (take_switch(keys, "pretty", false, &pretty, err) < 0) {
        return -EINVAL;
    }
    if (!chardev) {
        error_set(err, "Parameter 'chardev' is missing");
    } else if (mode && !qmp && strcmp(mode, "readline")) {
        error_set(err, "Parameter 'mode' does not accept value '%s'", mode);
    } else if (has_pretty && !qmp) {
        error_set(err, "'pretty' is not compatible with HMP monitors");
    } else {
        *GROW(o->mons, o->mon_count) =
            (struct option_mon){ mem_strdup(g->shown), mem_strdup(chardev), qmp, pretty };
        return 0;
    }
    return -EINVAL;
}

static int take_mon(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "chardev", err);
    int ret = keys ? mon_from_keys(o, g, keys, err) : -EINVAL;

    json_decref(keys);
    return ret;
}

/* All options are read: -mon may come before its -chardev. */
static int join_monitors(struct options *o, char **shown, struct error *err)
{
    for (size_t i = 0; i < o->mon_count; i++) {
        const struct option_mon *mon = &o->mons[i];
        struct option_place *place = place_find(o, mon->chardev);

        if (!place) {
            error_set(err, "chardev \"%s\" not found", mon->chardev);
        } else if (use_place(o, place, mon->qmp ? PLACE_QMP : PLACE_HUMAN, err) == 0) {
            place->style.pretty = mon->pretty;
            continue;
        }
        *shown = mem_strdup(mon->shown);
        return -EINVAL;
    }
    if (!o->monitor_given && !o->stdio_taken && !o->daemonize) {
        o->human_stdio = true;
    }
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
    json_t *keys = keyval_parse(g->value, "guest", err);
    const char *guest, *key;

    if (!keys) {
        return -EINVAL;
    }
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

static int take_compat(struct options *o, const struct given *g, struct error *err)
{
    o->compat = true;
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
    { "sandbox", "on|off", "Program",
      "on: after the start only the images and places that were named can be\n"
      "reached, no program can be run, nothing be connected to;\n"
      "on,landlock=optional: also where the kernel cannot guard files",
      true, take_sandbox },
    { "qemu-compat", NULL, "Program", "speak like QEMU 7.2, without the words that it lacks", true,
      take_compat },
    { "sim", "WORD...", "Program",
      "explore crashes on simulated disks; the first option; --sim help tells more", true,
      take_sim },
    { "help", NULL, "Program", "this text", true, take_help },
    { "h", NULL, NULL, NULL, false, take_help },
    { "version", NULL, "Program", "which version this is", true, take_version },
};

void options_print_help(FILE *out)
{
    const char *group = "";

    fprintf(out, "usage: merganser [options] [IMAGE]\n\n"
                 "Boots disks on image chains, lets simulated guests work on them, and opens a\n"
                 "monitor to merge, snapshot and inspect the chains meanwhile. Without any image\n"
                 "it makes a chain to try.\n");
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const struct option *row = &table[i];
        AUTOFREE char *left = mem_printf("%s%s %s", row->two_dashes ? "--" : "-", row->name,
                                         row->value ? row->value : "");

        if (!row->help) {
            continue;
        }
        if (strcmp(group, row->group)) {
            fprintf(out, "\n%s:\n", row->group);
            group = row->group;
        }
        for (const char *line = row->help; *line;) {
            size_t len = strcspn(line, "\n");

            fprintf(out, "  %-25s %.*s\n", line == row->help ? left : "", (int)len, line);
            line += len + (line[len] == '\n');
        }
    }
    fprintf(out, "\nExit codes: 0 all well, 1 could not start, 2 usage, 3 a command failed,\n"
                 "4 a job failed, 5 an expectation failed, 6 the guest saw wrong data,\n"
                 "124 a wait ran out of time, 128+N ended by signal N.\n");
}

/* --- Words ------------------------------------------------------------------------------------ */

static const struct option *find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len)) {
            return &table[i];
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
    return row->take(o, &(struct given){ row, *shown, value }, err);
}

bool options_are_sim(int argc, char **argv)
{
    return argc > 1 && argv[1][0] == '-' && !strcmp(argv[1] + 1 + (argv[1][1] == '-'), "sim");
}

int options_parse(struct options *o, int argc, char **argv, char **shown, struct error *err)
{
    bool only_images = false;

    *o = (struct options){ .clock = LOOP_CLOCK_REAL };
    *shown = NULL;
    for (int i = 1; i < argc; i++) {
        if (only_images || argv[i][0] != '-' || !argv[i][1]) {
            add_image(o, argv[i], argv[i], 0);
        } else if (!strcmp(argv[i], "--")) {
            only_images = true;
        } else {
            int ret = take_option(o, argc, argv, &i, shown, err);

            if (ret) {
                return ret;
            }
            free(*shown);
            *shown = NULL;
        }
    }
    return join_monitors(o, shown, err);
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
    free(o->disks.drives);
    free(o->guests);
    free(o->places);
    free(o->mons);
    free(o->scripts);
    free(o->name);
    free(o->uuid);
}
