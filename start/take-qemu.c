/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options of QEMU's that say how others are given: -object, -msg, -readconfig.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/message.h"
#include "core/stream.h"
#include "core/text.h"
#include "hw/ignored.h"
#include "hw/object.h"
#include "start/option-rows.h"
#include "monitor/words.h"

/* --- Objects -------------------------------------------------------------------------------------- */

static const char *const object_types[] = {
    "authz-list", "authz-list-file", "authz-simple", "can-bus", "colo-compare", "cryptodev-backend",
    "cryptodev-backend-builtin", "cryptodev-vhost-user", "dbus-vmstate", "filter-buffer", "filter-dump",
    "filter-mirror", "filter-redirector", "filter-replay", "filter-rewriter", "input-barrier", "input-linux",
    "iothread", "memory-backend-epc", "memory-backend-file", "memory-backend-memfd", "memory-backend-ram",
    "pr-manager-helper", "qtest", "rng-builtin", "rng-egd", "rng-random", "secret", "secret_keyring", "sev-guest",
    "thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
    "x-remote-object", NULL,
};

static bool object_exists(const struct options *o, const char *id)
{
    for (size_t i = 0; i < o->object_count; i++) {
        if (!strcmp(json_string_value(json_object_get(o->objects[i].tree, "id")), id)) {
            return true;
        }
    }
    return false;
}

static int check_object(const struct options *o, json_t *tree, struct error *err)
{
    const char *type = json_string_value(json_object_get(tree, "qom-type"));
    const char *id = json_string_value(json_object_get(tree, "id"));
    bool known = false;

    for (const char *const *name = object_types; type && *name; name++) {
        known = known || !strcmp(*name, type);
    }
    if (!type) {
        error_set(err, "Parameter 'qom-type' is missing");
    } else if (!known) {
        error_set(err, "Parameter 'qom-type' does not accept value '%s'", type);
    } else if (!id) {
        error_set(err, "Parameter 'id' is missing");
    } else if (check_id(id, err) == 0 && object_exists(o, id)) {
        error_set(err, "Duplicate ID '%s' for object", id);
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* Those that are more here than a name. */
static int make_object(json_t *tree, bool from_words, struct error *err)
{
    const char *type = json_string_value(json_object_get(tree, "qom-type")), *names[64] = { "qom-type", "id" };
    const struct object_type *kind = object_kinds;
    size_t n = 2;

    while (kind->name && strcmp(kind->name, type)) {
        kind++;
    }
    if (!kind->name) {
        return 0;
    }
    for (const struct block_key *key = kind->keys; key->name && n < ARRAY_SIZE(names) - 1; key++) {
        names[n++] = key->name;
    }
    if (from_words && refuse_unknown_keys(tree, names, err) < 0) {
        return -EINVAL;
    }
    return blockdev_check_object(tree, from_words, &object_tree, err) < 0 ? -EINVAL : object_add(tree, err);
}

int take_object(struct options *o, const struct given *g, struct error *err)
{
    const char *type;
    bool from_words;
    json_t *tree;

    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        puts("List of user creatable objects:");
        for (const char *const *name = object_types; *name; name++) {
            printf("  %s\n", *name);
        }
        o->done = true;
        return 0;
    }
    tree = words_tree(g->value, "qom-type", &from_words, err);
    if (!tree || check_object(o, tree, err) < 0) {
        json_decref(tree);
        return -EINVAL;
    }
    type = json_string_value(json_object_get(tree, "qom-type"));
    if (strcmp(type, "throttle-group")) {
        ignored_note(g->shown);
    }
    if (make_object(tree, from_words, err) < 0) {
        json_decref(tree);
        return -EINVAL;
    }
    *GROW(o->objects, o->object_count) = (struct option_tree){ mem_strdup(g->shown), tree, from_words };
    return 0;
}

/* --- Messages --------------------------------------------------------------------------------------- */

int take_msg(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "timestamp", "guest-name", NULL };
    json_t *keys = keyval_parse(g->value, NULL, err);
    bool timestamp = false, guest_name = false;
    int ret = keys ? 0 : -EINVAL;

    warn_of_flags(g, false);
    if (keys) {
        ret = refuse_unknown_keys(keys, known, err);
    }
    if (!ret && (take_switch(keys, "timestamp", false, &timestamp, err) < 0 ||
                 take_switch(keys, "guest-name", false, &guest_name, err) < 0)) {
        ret = -EINVAL;
    }
    json_decref(keys);
    o->timestamp = timestamp;
    o->guest_name = guest_name;
    message_show_time(timestamp);
    return ret;
}

static void warn_of_flag(const char *flag, const char *key, bool on, void *arg)
{
    const struct given *g = arg;
    AUTOFREE char *where = text_shown(g->shown), *word = text_shown(flag), *shown = text_shown(key);

    message("%s: warning: short-form boolean option '%s' deprecated", where, word);
    fprintf(stderr, "Please use %s=%s instead\n", shown, on ? "on" : "off");
}

void warn_of_flags(const struct given *g, bool implied)
{
    keyval_each_flag(g->value, implied, warn_of_flag, (void *)g);
}

/* --- Options from a file ------------------------------------------------------------------------------ */

#define CONFIG_MAX (1u << 20)

static char *read_whole(const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    ssize_t n;
    int fd = stream_open(path);

    if (fd < 0) {
        error_set_errno(err, fd, "Could not open '%s'", path);
        return NULL;
    }
    do {
        text = mem_realloc(text, len + 4096 + 1);
        n = stream_read(fd, text + len, 4096);
        len += n > 0 ? n : 0;
    } while (n > 0 && len < CONFIG_MAX);
    stream_close(fd);
    text[len] = '\0';
    if (n < 0) {
        error_set_errno(err, n, "Could not read '%s'", path);
        free(text);
        return NULL;
    }
    return text;
}

/* A group that is being read. */
struct group {
    char *name, *words; /* words: "id=x,file=y", with commas doubled */
    char *shown;        /* ":FILE:LINE", as QEMU shows where */
};

static void group_add(struct group *group, const char *key, const char *value, size_t len)
{
    char *more = mem_alloc(2 * len + 1), *words;
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (value[i] == ',') {
            more[n++] = ',';
        }
        more[n++] = value[i];
    }
    words = mem_printf("%s%s%s=%.*s", group->words, *group->words ? "," : "", key, (int)n, more);
    free(more);
    free(group->words);
    group->words = words;
}

static int group_apply(struct options *o, struct group *group, struct error *err)
{
    const char *option = group->name ? option_in_file(group->name) : NULL;

    return option ? option_apply(o, option, group->words, group->shown, err) : 0;
}

static void group_clear(struct group *group)
{
    free(group->name);
    free(group->words);
    *group = (struct group){ .shown = group->shown };
}

/* [name] or [name "id"] */
static int group_begin(struct group *group, const char *line, struct error *err)
{
    size_t len = strcspn(line + 1, " \t]");
    const char *id = strchr(line, '"'), *end = id ? strchr(id + 1, '"') : NULL;

    if (!strchr(line, ']') || (id && !end)) {
        error_set(err, "parse error");
        return -EINVAL;
    }
    group->name = mem_printf("%.*s", (int)len, line + 1);
    group->words = mem_strdup("");
    if (id) {
        group_add(group, "id", id + 1, end - id - 1);
    }
    return 0;
}

/* key = "value" */
static int group_line(struct group *group, char *line, struct error *err)
{
    size_t len = strcspn(line, " \t=");
    char *value = strchr(line, '"'), *end = value ? strrchr(value, '"') : NULL;

    if (!group->name) {
        error_set(err, "no group defined");
        return -EINVAL;
    }
    if (!option_in_file(group->name)) {
        error_set(err, "There is no option group '%s'", group->name);
        return -EINVAL;
    }
    if (!value || end == value || line[len + strspn(line + len, " \t")] != '=') {
        error_set(err, "parse error");
        return -EINVAL;
    }
    line[len] = '\0';
    group_add(group, line, value + 1, end - value - 1);
    return 0;
}

static int config_line(struct options *o, struct group *group, char *line, struct error *err)
{
    line += strspn(line, " \t");
    if (!*line || *line == '#') {
        return 0;
    }
    if (*line == '[') {
        int ret = group_apply(o, group, err);

        group_clear(group);
        return ret ? ret : group_begin(group, line, err);
    }
    return group_line(group, line, err);
}

int take_readconfig(struct options *o, const struct given *g, struct error *err)
{
    AUTOFREE char *text = read_whole(g->value, err);
    struct group group = { .name = NULL };
    unsigned number = 0;
    int ret = text ? 0 : -EINVAL;

    for (char *line = text, *next; line && *line && ret == 0; line = next) {
        size_t len = strcspn(line, "\n");

        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        if (line[strspn(line, " \t")] != '[' || !group.shown) { /* a group's option is where its last line is */
            free(group.shown);
            group.shown = mem_printf(":%s:%u", g->value, number + 1);
        }
        number++;
        ret = config_line(o, &group, line, err);
    }
    if (ret == 0 && text) {
        ret = group_apply(o, &group, err);
    }
    if (ret < 0 && group.shown) {
        free(o->where);
        o->where = mem_strdup(group.shown);
    }
    group_clear(&group);
    free(group.shown);
    return ret;
}
