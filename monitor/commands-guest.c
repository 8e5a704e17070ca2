/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated guest, seen and steered: `guest DISK rw=randread rate_iops=0`, `info guest`.
 */
#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "monitor/handlers.h"
#include "monitor/hmp.h"
#include "monitor/members.h"

int co_query_guest(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = guest_describe();
    return 0;
}

/* --- guest ----------------------------------------------------------------------------------------------------------- */

/* One word of settings, "rw=randread" or "rw=randread,bs=64k" (a comma in a value is doubled), into `settings`. */
static int take_setting(char *word, json_t *settings, struct error *err)
{
    while (*word) {
        char *key = word, *value = strchr(word, '='), *to;

        if (!value || value == key) {
            error_set(err, "'%s' is no setting: key=value, start or stop expected", word);
            return -EINVAL;
        }
        *value++ = '\0';
        for (to = word = value; *word && (*word != ',' || word[1] == ','); word++) {
            word += *word == ',';
            *to++ = *word;
        }
        word += *word == ',';
        *to = '\0';
        json_object_set_new(settings, key, json_string(value));
    }
    return 0;
}

static int take_settings(const char *text, json_t *settings, struct error *err)
{
    char *why = NULL, *word;
    int ret = 0;

    while (!ret && (word = hmp_word(&text, &why))) {
        ret = take_setting(word, settings, err);
        free(word);
    }
    if (why) {
        error_set(err, "%s", why);
        free(why);
        ret = -EINVAL;
    }
    return ret;
}

/* The guest of one disk; an empty array where the disk has none. */
static json_t *guest_of(const char *id)
{
    json_t *all = guest_describe(), *one = json_array(), *tree;
    size_t i;

    json_array_foreach(all, i, tree) {
        if (!strcmp(member_text(tree, "device"), id)) {
            json_array_append(one, tree);
        }
    }
    json_decref(all);
    return one;
}

static int check_disk(const char *id, struct error *err)
{
    if (!disk_find_label(id)) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
        return -ENODEV;
    }
    return 0;
}

static int co_guest_command(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "device"), *text = member_text(args, "settings");
    json_t *settings;
    int ret = check_disk(id, err);

    if (ret) {
        return ret;
    }
    if (!text) {
        *result = guest_of(id);
        return 0;
    }
    if (!strcmp(text, "stop")) {
        return co_guest_stop(id, err);
    }
    if (!strcmp(text, "start")) {
        return guest_start(id, err);
    }
    settings = json_object();
    ret = take_settings(text, settings, err);
    if (!ret) {
        ret = co_guest_configure(id, settings, err);
    }
    json_decref(settings);
    return ret;
}

/* --- info guest -------------------------------------------------------------------------------------------------------- */

static int co_info_guest(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "device");

    if (id && check_disk(id, err)) {
        return -ENODEV;
    }
    *result = id ? guest_of(id) : guest_describe();
    return 0;
}

static const char *const line_members[] = {
    "reads",    "writes", "flushes", "verified", "mismatches",       "errors",
    "inflight", "p50_ns", "p99_ns",  "max_ns",   "longest_stall_ns",
};

static bool is_on_the_line(const char *key)
{
    for (size_t m = 0; m < ARRAY_SIZE(line_members); m++) {
        if (!strcmp(line_members[m], key)) {
            return true;
        }
    }
    return !strcmp(key, "device") || !strcmp(key, "profile");
}

/* What the line has no room for. */
static void print_more(struct monitor *mon, const json_t *tree)
{
    const json_t *list = json_object_get(tree, "mismatch_list");
    const char *key;
    json_t *value;
    size_t i;

    monitor_puts(mon, "   ");
    json_object_foreach((json_t *)tree, key, value) {
        if (is_on_the_line(key)) {
            continue;
        }
        switch (json_typeof(value)) {
        case JSON_STRING:
            monitor_printf(mon, " %s=%s", key, json_string_value(value));
            break;
        case JSON_INTEGER:
            monitor_printf(mon, " %s=%" JSON_INTEGER_FORMAT, key, json_integer_value(value));
            break;
        case JSON_ARRAY: /* below */
            break;
        default:
            monitor_printf(mon, " %s=%s", key, value == json_true() ? "on" : "off");
        }
    }
    monitor_puts(mon, "\n");
    json_array_foreach(list, i, value) {
        monitor_printf(mon, "    %s\n", json_string_value(value));
    }
}

static void print_guest(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *tree;

    json_array_foreach(result, i, tree) {
        monitor_printf(mon, "%s: profile=%s", member_text(tree, "device"), member_text(tree, "profile"));
        for (size_t m = 0; m < ARRAY_SIZE(line_members); m++) {
            monitor_printf(mon, " %s=%" JSON_INTEGER_FORMAT, line_members[m],
                           member_int(tree, line_members[m]));
        }
        monitor_puts(mon, "\n");
        if (member_true(args, "verbose")) {
            print_more(mon, tree);
        }
    }
}

/* --- Rows ---------------------------------------------------------------------------------------------------------------- */

static const char *const settings_words[] = {
    "start",          "stop",         "profile=preserve", "profile=stamp", "profile=replay", "profile=none", "rw=read",
    "rw=write",       "rw=rw",        "rw=randread",      "rw=randwrite",  "rw=randrw",      NULL,
};

const struct command guest_commands[] = {
    {
        .name = "guest",
        .args = {
            { "device", ARG_GUEST, .doc = "the disk whose guest it is" },
            { "settings", ARG_REST, .optional = true, .choices = settings_words, .keys = guest_setting_names,
              .doc = "start, stop, or fio's words: profile=preserve|stamp|replay|none rw= rwmixread= bs= iodepth= rate_iops="
                     " size= offset= flush_every= seed= iolog=" },
        },
        .params = "device [start|stop|key=value...]",
        .help = "change what the guest does with a disk",
        .group = "Guest",
        .example = "guest virtio0 rw=randrw bs=64k rate_iops=0\nguest virtio0 stop",
        .co_run = co_guest_command,
        .print = print_guest,
        .flags = COMMAND_OURS,
    },
    { 0 },
};

const struct command guest_topics[] = {
    {
        .name = "guest",
        .args = {
            { "verbose", ARG_FLAG, .letter = 'v', .doc = "also its settings, and what it found wrong" },
            { "device", ARG_GUEST, .optional = true, .doc = "only this disk's" },
        },
        .params = "[-v] [device]",
        .help = "show what the guest has done with each disk, and whether its data was right",
        .group = "Guest",
        .co_run = co_info_guest,
        .print = print_guest,
        .flags = COMMAND_OURS,
    },
    { 0 },
};
