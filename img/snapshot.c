/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `snapshot`: list (-l), make (-c), apply (-a) and delete (-d) the internal snapshots of an image.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/keyval.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

static long long number(const json_t *tree, const char *key)
{
    return json_integer_value(json_object_get(tree, key));
}

static void print_one(const json_t *s)
{
    char date[32], clock[48], icount[24] = "", size[32];
    time_t when = number(s, "date-sec");
    long long seconds = number(s, "vm-clock-sec");
    struct tm tm;

    localtime_r(&when, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(clock, sizeof(clock), "%02lld:%02lld:%02lld.%03lld", seconds / 3600, seconds / 60 % 60, seconds % 60,
             number(s, "vm-clock-nsec") / 1000000);
    if (json_object_get(s, "icount")) {
        snprintf(icount, sizeof(icount), "%lld", number(s, "icount"));
    }
    img_print("%-9s %-16s %8s%20s%13s%11s\n", json_string_value(json_object_get(s, "id")),
              json_string_value(json_object_get(s, "name")), size_format(number(s, "vm-state-size"), size), date, clock,
              icount);
}

void img_print_snapshots(const json_t *list)
{
    printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < json_array_size(list); i++) {
        print_one(json_array_get(list, i));
    }
}

/* --- -l of other commands ----------------------------------------------------------------------------------------- */

struct wanted {
    char *id, *name; /* NULL: any */
};

static int parse_param(const char *param, struct wanted *w, struct error *err)
{
    json_t *items = keyval_parse(param, NULL, err), *value;
    const char *key;

    *w = (struct wanted){ 0 };
    json_object_foreach(items, key, value) {
        char **into = !strcmp(key, "snapshot.id") ? &w->id : !strcmp(key, "snapshot.name") ? &w->name : NULL;

        if (!into) {
            error_set(err, "Invalid parameter '%s'", key);
            break;
        }
        *into = mem_strdup(json_string_value(value));
    }
    json_decref(items);
    return error_is_set(err) ? -EINVAL : 0;
}

static bool is_described(const char *param)
{
    return strncmp(param, "snapshot.", strlen("snapshot.")) == 0;
}

static void free_wanted(struct wanted *w)
{
    free(w->id);
    free(w->name);
}

int img_check_snapshot_param(const char *param)
{
    struct error err = ERROR_INIT;
    struct wanted w = { 0 };
    int ret = is_described(param) ? parse_param(param, &w, &err) : 0;

    free_wanted(&w);
    if (ret < 0) {
        img_complain_error(&err);
        img_complain("Failed in parsing snapshot param '%s'", param);
    }
    return ret < 0;
}

static const struct qcow2_snapshot *find_wanted(const struct qcow2 *q, const char *param)
{
    const struct qcow2_snapshot *found = NULL;
    struct wanted w;

    if (!is_described(param)) {
        return qcow2_snapshot_find(q, param, true);
    }
    parse_param(param, &w, NULL);
    for (uint32_t i = 0; i < q->h.nb_snapshots && !found; i++) {
        const struct qcow2_snapshot *s = &q->snapshots[i];

        if ((!w.id || !strcmp(w.id, s->id)) && (!w.name || !strcmp(w.name, s->name))) {
            found = s;
        }
    }
    free_wanted(&w);
    return found;
}

int co_img_show_snapshot(struct node *node, const char *param)
{
    struct error err = ERROR_INIT;
    const struct qcow2_snapshot *found = NULL;

    if (node->driver != &driver_qcow2) {
        error_set(&err, "Block format '%s' used by device '' does not support temporarily loading internal snapshots",
                  node->driver->name);
    } else {
        found = find_wanted(node->state, param);
    }
    if (found && co_qcow2_snapshot_show(node, found, &err) == 0) {
        return 0;
    }
    if (!error_is_set(&err)) {
        error_set(&err, "Can't find snapshot");
    }
    error_prepend(&err, "Failed to load snapshot: ");
    img_complain_error(&err);
    return -1;
}

/* --- The command -------------------------------------------------------------------------------------------------- */

static int co_nothing(struct node *node, const char *unused)
{
    return 0;
}

static int co_list(struct node *node, const char *unused)
{
    if (node->driver == &driver_qcow2) {
        json_t *list = qcow2_snapshot_trees(node);

        if (json_array_size(list)) {
            img_print_snapshots(list);
        }
        json_decref(list);
    }
    return 0;
}

static int co_make(struct node *node, const char *name)
{
    int ret = node->driver == &driver_qcow2 ? co_qcow2_snapshot_make(node, name) : -ENOTSUP;

    ret = ret == -ERANGE ? -EINVAL : ret; /* as QEMU calls a count that cannot be larger */
    if (ret < 0) {
        img_complain("Could not create snapshot '%s': %d (%s)", name, ret, strerror(-ret));
    }
    return ret;
}

static int co_apply(struct node *node, const char *name)
{
    int ret = node->driver == &driver_qcow2 ? co_qcow2_snapshot_apply(node, name) : -ENOTSUP;

    if (ret == -ENOTSUP) {
        img_complain("Could not apply snapshot '%s': Block driver does not support snapshots", name);
    } else if (ret < 0) {
        img_complain("Could not apply snapshot '%s': Failed to load snapshot: %s", name, strerror(-ret));
    }
    return ret;
}

static int co_delete(struct node *node, const char *name)
{
    int ret = node->driver == &driver_qcow2 ? co_qcow2_snapshot_delete(node, name) : -ENOENT;

    if (ret == -ENOENT) {
        img_complain("Could not delete snapshot '%s': snapshot not found", name);
    } else if (ret < 0) {
        img_complain("Could not delete snapshot '%s': %s", name, strerror(-ret));
    }
    return ret;
}

static const struct {
    const char *option;
    int (*co_act)(struct node *node, const char *name);
} actions[] = { { "", co_nothing }, { "l", co_list }, { "a", co_apply }, { "c", co_make }, { "d", co_delete } };

/* The one action that was asked for. */
static int find_action(const struct img_args *args, size_t *index)
{
    size_t found = 0;

    *index = 0;
    for (size_t i = 0; i < args->n_given; i++) {
        for (size_t k = 1; k < ARRAY_SIZE(actions); k++) {
            if (args->given[i].option->letter == actions[k].option[0]) {
                *index = k;
                found++;
            }
        }
    }
    return found > 1 ? img_complain_usage("Cannot mix '-l', '-a', '-c', '-d'") : 0;
}

int co_img_snapshot(const struct img_args *args)
{
    struct img_open o = { 0 };
    size_t action;

    if (find_action(args, &action)) {
        return 1;
    }
    if (args->n_operands != 1) {
        return img_complain_usage("Expecting one image file name");
    }
    o.filename = args->operands[0];
    o.writable = actions[action].co_act != co_list; /* without an action, too, as with qemu-img */
    if (img_open_args(args, &o) < 0) {
        return 1;
    }
    struct node *node = co_img_open(&o);

    if (!node) {
        return 1;
    }
    int ret = actions[action].co_act(node, action ? img_value(args, actions[action].option) : NULL);

    co_node_unref(node);
    return ret < 0 ? 1 : 0;
}
