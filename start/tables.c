/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `--tables`: everything that the program's tables say, as one JSON object, for scripts/manual,
 * which makes the manual pages, the shells' completions and docs/QEMU-COMPAT.md of it.
 *
 * Nothing is said here that is not said in a row elsewhere.
 */
#include "start/tables.h"

#include <string.h>

#include "block/blockdev.h"
#include "core/bytes.h"
#include "hw/device.h"
#include "monitor/events.h"
#include "monitor/monitor.h"
#include "start/drive-keys.h"
#include "start/option-rows.h"

static void put(json_t *object, const char *key, const char *text)
{
    if (text) {
        json_object_set_new(object, key, json_string(text));
    }
}

static json_t *words(const char *const *list)
{
    json_t *array = json_array();

    for (; list && *list; list++) {
        json_array_append_new(array, json_string(*list));
    }
    return array;
}

/* --- The command line ------------------------------------------------------------------------- */

static json_t *options(void)
{
    size_t count;
    const struct option *rows = option_rows(&count);
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        json_t *row = json_object();

        put(row, "name", rows[i].name);
        put(row, "value", rows[i].value);
        put(row, "group", rows[i].group);
        put(row, "help", rows[i].help);
        json_object_set_new(row, "two_dashes", json_boolean(rows[i].two_dashes));
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *ignored(void)
{
    json_t *array = json_array();
    const char *name;

    for (size_t i = 0; (name = ignored_option_name(i)); i++) {
        json_array_append_new(array, json_string(name));
    }
    return array;
}

static json_t *keys_of_drive(void)
{
    json_t *array = json_array();

    for (const struct drive_key *k = drive_keys; k->name; k++) {
        json_t *row = json_object();

        put(row, "name", k->name);
        put(row, "values", k->values);
        put(row, "help", k->help);
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *keys_of_nodes(const struct block_key *keys)
{
    static const char *const kinds[] = {
        [KEY_STRING] = "string", [KEY_BOOL] = "bool", [KEY_INT] = "int", [KEY_SIZE] = "size", [KEY_ENUM] = "enum",
        [KEY_NODE] = "node", [KEY_NODE_OR_NULL] = "node or null", [KEY_OBJECT] = "object", [KEY_LIST] = "list",
    };
    json_t *array = json_array();

    for (const struct block_key *k = keys; k && k->name; k++) {
        json_t *row = json_object();

        put(row, "name", k->name);
        put(row, "kind", kinds[k->kind]);
        put(row, "help", k->help);
        json_object_set_new(row, "required", json_boolean(k->required));
        json_object_set_new(row, "choices", words(k->choices));
        json_object_set_new(row, "members", keys_of_nodes(k->members));
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *drivers(void)
{
    json_t *array = json_array();

    for (const struct driver *const *d = driver_list(); *d; d++) {
        json_t *row = json_object();

        put(row, "name", (*d)->name);
        json_object_set_new(row, "keys", keys_of_nodes((*d)->keys));
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *models(void)
{
    json_t *array = json_array();

    for (const struct device_model *m = device_models; m->name; m++) {
        json_t *row = json_object(), *list = json_array();

        put(row, "name", m->name);
        put(row, "alias", m->alias);
        put(row, "help", m->help);
        for (const struct device_property *p = m->properties; p->name; p++) {
            json_t *property = json_object();

            put(property, "name", p->name);
            put(property, "help", p->help);
            json_object_set_new(property, "idle", json_boolean(p->idle));
            json_array_append_new(list, property);
        }
        json_object_set_new(row, "properties", list);
        json_array_append_new(array, row);
    }
    return array;
}

/* --- The monitors ----------------------------------------------------------------------------- */

static json_t *arguments(const struct command_arg *a)
{
    json_t *array = json_array();

    for (; a->name; a++) {
        char letter[2] = { a->letter, '\0' };
        json_t *row = json_object();

        put(row, "name", a->name);
        put(row, "letter", a->letter ? letter : NULL);
        put(row, "help", a->doc);
        json_object_set_new(row, "optional", json_boolean(a->optional));
        json_object_set_new(row, "ours", json_boolean(a->ours));
        json_object_set_new(row, "choices", words(a->choices));
        json_array_append_new(array, row);
    }
    return array;
}

static json_t *commands(const struct command *const *tables)
{
    json_t *array = json_array();

    for (; *tables; tables++) {
        for (const struct command *c = *tables; c->name; c++) {
            json_t *row = json_object();

            put(row, "name", c->name);
            put(row, "params", c->params);
            put(row, "help", c->help);
            put(row, "group", c->group);
            put(row, "example", c->example);
            json_object_set_new(row, "ours", json_boolean(c->flags & COMMAND_OURS));
            json_object_set_new(row, "arguments", arguments(c->args));
            json_array_append_new(array, row);
        }
    }
    return array;
}

static json_t *events(void)
{
    json_t *array = json_array();

    for (const struct event_row *e = event_rows; e->name; e++) {
        json_t *row = json_object();

        put(row, "name", e->name);
        json_object_set_new(row, "data", arguments(e->data));
        json_array_append_new(array, row);
    }
    return array;
}

/* --- All of it -------------------------------------------------------------------------------- */

void tables_print(FILE *out)
{
    json_t *all = json_object();

    put(all, "version", MERGANSER_VERSION);
    json_object_set_new(all, "options", options());
    json_object_set_new(all, "ignored", ignored());
    json_object_set_new(all, "drive", keys_of_drive());
    json_object_set_new(all, "nodes", keys_of_nodes(block_common_keys));
    json_object_set_new(all, "drivers", drivers());
    json_object_set_new(all, "devices", models());
    json_object_set_new(all, "human", commands(hmp_command_tables));
    json_object_set_new(all, "info", commands(info_command_tables));
    json_object_set_new(all, "qmp", commands(qmp_command_tables));
    json_object_set_new(all, "events", events());
    json_dumpf(all, out, JSON_INDENT(1));
    fputc('\n', out);
    json_decref(all);
}
