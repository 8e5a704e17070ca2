/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -chardev, -mon, -monitor, -qmp: which monitors there are to be, and where.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/node.h"
#include "core/keyval.h"
#include "start/option-rows.h"
#include "start/places.h"

static int refuse_stdio_twice(struct options *o, struct error *err)
{
    if (o->stdio_taken) {
        error_set(err, "cannot use stdio by multiple character devices");
        return -EINVAL;
    }
    o->stdio_taken = true;
    return 0;
}

int check_id(const char *id, struct error *err)
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

int take_chardev(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys;
    int ret;

    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        puts("Available chardev backend types: ");
        for (const char *const *name = place_backends; *name; name++) {
            printf("  %s\n", *name);
        }
        o->done = true;
        return 0;
    }
    keys = keyval_parse(g->value, "backend", err);
    warn_of_flags(g, true);
    ret = keys ? chardev_from_keys(o, g, keys, err) : -EINVAL;
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

int take_monitor(struct options *o, const struct given *g, struct error *err)
{
    bool qmp = g->row->name[0] == 'q';
    struct option_place place = { .use = PLACE_IDLE, .style.pretty = !strcmp(g->row->name, "qmp-pretty") };
    int ret;

    if (!strncmp(g->value, "chardev:", 8)) {
        struct option_mon *mon = GROW(o->mons, o->mon_count);

        *mon = (struct option_mon){ mem_strdup(g->shown), mem_strdup(g->value + 8), qmp, place.style.pretty };
        return 0;
    }
    if (!qmp && !strncmp(g->value, "none", 4)) {
        place.spec = (struct chardev_spec){ .kind = CHARDEV_NONE };
        ret = 0;
    } else {
        ret = place_from_word(g->value, g->shown, &place.spec, err);
    }
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

int take_mon(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "chardev", err);

    warn_of_flags(g, true);
    int ret = keys ? mon_from_keys(o, g, keys, err) : -EINVAL;

    json_decref(keys);
    return ret;
}

static bool programs_come(const struct options *o)
{
    for (size_t i = 0; i < o->place_count; i++) {
        if (o->places[i].use == PLACE_QMP) {
            return true;
        }
    }
    return false;
}

/* All options are read: -mon may come before its -chardev. */
int join_monitors(struct options *o, char **shown, struct error *err)
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
        /* A program that starts this one for its QMP leaves standard input empty, as it may with QEMU. */
        o->stdin_may_end = programs_come(o) && !o->script_count;
    }
    for (size_t i = 0; i < o->place_count && o->daemonize; i++) {
        if (o->places[i].spec.kind == CHARDEV_STDIO) {
            error_set(err, "cannot use stdio with -daemonize");
            *shown = mem_strdup(o->places[i].shown);
            return -EINVAL;
        }
    }
    return 0;
}
