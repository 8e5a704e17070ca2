/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's commands about objects, and the tree of paths in which QEMU shows them:
 *
 *   /                                        /machine                        /objects
 *     machine, objects, chardevs               peripheral      by id           by id
 *                                              peripheral-anon
 *                                              unattached
 *
 * Below a virtio device stands its "virtio-backend".  Properties of a device are the rows of its model; an object's are
 * the keys of its type.  A path may be shortened to what it ends with.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/disk.h"
#include "core/mem.h"
#include "hw/device.h"
#include "hw/machine.h"
#include "hw/object.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

/* --- Objects that users make ---------------------------------------------------------------------------------------- */

static int co_object_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return object_add(args, err);
}

static int co_object_del(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return object_del(member_text(args, "id"), err);
}

int co_query_iothreads(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    static const char *const shown[] = { "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch" };
    struct object *object;

    *result = json_array();
    TAILQ_FOREACH(object, &all_objects, link) {
        json_t *tree = json_pack("{s:s, s:i}", "id", object->id, "thread-id", (int)getpid());

        for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
            json_object_set(tree, shown[i], json_object_get(object->properties, shown[i]));
        }
        if (!strcmp(object->type->name, "iothread")) {
            json_array_append_new(*result, tree);
        } else {
            json_decref(tree);
        }
    }
    return 0;
}

/* --- What a path leads to ------------------------------------------------------------------------------------------- */

static const struct place {
    const char *path, *type;
} places[] = {
    { "/", "container" },
    { "/objects", "container" },
    { "/machine", "pc-i440fx-7.2-machine" },
    { "/chardevs", "container" },
    { "/machine/unattached", "container" },
    { "/machine/peripheral-anon", "container" },
    { "/machine/peripheral", "container" },
};
#define BACKEND "/virtio-backend"
#define BACKEND_TYPE "virtio-blk-device"

struct target { /* one of the three */
    const struct place *place;
    struct device *device;
    bool backend; /* the part of it behind the bus */
    struct object *object;
};

/* Does the path end with what was typed? */
static bool leads_to(const char *path, const char *typed)
{
    size_t all = strlen(path), len = strlen(typed);

    return *typed == '/' ? !strcmp(path, typed)
                         : len && len < all && path[all - len - 1] == '/' && !strcmp(path + all - len, typed);
}

static bool find_device(const char *typed, struct target *t)
{
    TAILQ_FOREACH(t->device, &all_devices, link) {
        AUTOFREE char *backend = mem_printf("%s%s", t->device->path, BACKEND);

        t->backend = device_hotpluggable(t->device) && leads_to(backend, typed);
        if (t->backend || leads_to(t->device->path, typed)) {
            return true;
        }
    }
    return false;
}

static bool find_object(const char *typed, struct target *t)
{
    TAILQ_FOREACH(t->object, &all_objects, link) {
        AUTOFREE char *path = mem_printf("/objects/%s", t->object->id);

        if (leads_to(path, typed)) {
            return true;
        }
    }
    return false;
}

static int find_target(const char *typed, struct target *t, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (leads_to(places[i].path, typed)) {
            *t = (struct target){ .place = &places[i] };
            return 0;
        }
    }
    *t = (struct target){ 0 };
    if (find_device(typed, t) || find_object(typed, t)) {
        return 0;
    }
    error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", typed);
    return -ENOENT;
}

static const char *type_of(const struct target *t)
{
    return t->place     ? t->place->type
           : t->backend ? BACKEND_TYPE
           : t->device  ? t->device->model->name
                        : t->object->type->name;
}

/* --- qom-list ------------------------------------------------------------------------------------------------------- */

static void add_property(json_t *list, const char *name, const char *type)
{
    json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "type", type));
}

static void add_child(json_t *list, const char *name, const char *type)
{
    AUTOFREE char *child = mem_printf("child<%s>", type);

    add_property(list, name, child);
}

/* What stands right below a path. */
static const char *below(const char *path, const char *place)
{
    size_t len = strcmp(place, "/") ? strlen(place) : 0;
    const char *rest = path + len;

    return !strncmp(path, place, len) && *rest == '/' && rest[1] && !strchr(rest + 1, '/') ? rest + 1 : NULL;
}

static void list_place(json_t *list, const struct place *at)
{
    struct object *object;
    struct device *dev;

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        const char *name = below(places[i].path, at->path);

        if (name) {
            add_child(list, name, places[i].type);
        }
    }
    TAILQ_FOREACH(dev, &all_devices, link) {
        const char *name = below(dev->path, at->path);

        if (name) {
            add_child(list, name, dev->model->name);
        }
    }
    TAILQ_FOREACH(object, &all_objects, link) {
        if (!strcmp(at->path, "/objects")) {
            add_child(list, object->id, object->type->name);
        }
    }
}

static void list_device(json_t *list, const struct target *t)
{
    add_property(list, "realized", "bool");
    add_property(list, "hotplugged", "bool");
    add_property(list, "hotpluggable", "bool");
    for (const struct device_property *p = t->device->model->properties; p->name; p++) {
        add_property(list, p->name, property_kind_name(p->kind));
    }
    if (!t->backend && device_hotpluggable(t->device)) {
        add_child(list, BACKEND + 1, BACKEND_TYPE);
    }
}

static const char *key_type(const struct block_key *key)
{
    switch (key->kind) {
    case KEY_BOOL:
        return "bool";
    case KEY_INT:
    case KEY_SIZE:
    case KEY_UINT64:
        return "int";
    case KEY_OBJECT:
        return "ThrottleLimits";
    default:
        return "string";
    }
}

static int co_qom_list(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct target t;

    if (find_target(member_text(args, "path"), &t, err) < 0) {
        return -ENOENT;
    }
    *result = json_array();
    add_property(*result, "type", "string");
    if (t.place) {
        list_place(*result, t.place);
    } else if (t.device) {
        list_device(*result, &t);
    } else {
        for (const struct block_key *key = t.object->type->keys; key && key->name; key++) {
            add_property(*result, key->name, key_type(key));
        }
    }
    return 0;
}

/* --- qom-get, qom-set ----------------------------------------------------------------------------------------------- */

static const struct device_property *find_row(const struct device *dev, const char *name)
{
    const struct device_property *row = dev->model->properties;

    while (row->name && strcmp(row->name, name)) {
        row++;
    }
    return row->name ? row : NULL;
}

static json_t *fallback_value(const struct device_property *row)
{
    const char *text = row->fallback;

    switch (row->kind) {
    case PROPERTY_BOOL:
        return json_boolean(!strcmp(text, "true"));
    case PROPERTY_BLOCK_SIZE:
        return json_integer(NODE_SECTOR);
    case PROPERTY_UINT16:
    case PROPERTY_UINT32:
    case PROPERTY_INT32:
    case PROPERTY_UINT64:
    case PROPERTY_SIZE:
    case PROPERTY_PCI_ADDRESS:
        return json_integer(text ? strtoll(text, NULL, 0) : -1);
    default:
        return json_string(text ? text : "");
    }
}

static json_t *device_value(const struct target *t, const char *name)
{
    const struct device *dev = t->device;
    const struct device_property *row = find_row(dev, name);
    const struct disk *disk = dev->disk;
    json_t *value = json_object_get(dev->properties, name);

    if (!strcmp(name, "realized")) {
        return json_true();
    }
    if (!strcmp(name, "hotpluggable")) {
        return json_boolean(device_hotpluggable(dev) && !t->backend);
    }
    if (!strcmp(name, "hotplugged")) {
        return json_boolean(dev->hotplugged);
    }
    if (!strcmp(name, BACKEND + 1) && device_hotpluggable(dev) && !t->backend) {
        AUTOFREE char *path = mem_printf("%s%s", dev->path, BACKEND);

        return json_string(path);
    }
    if (!row) {
        return NULL;
    }
    if (row->kind == PROPERTY_DRIVE) {
        return json_string(*disk->id ? disk->id : disk->root ? disk->root->name : "");
    }
    if (!strcmp(name, "unit")) {
        return json_integer(dev->hardware->unit);
    }
    return value ? json_incref(value) : fallback_value(row);
}

static int not_found(const struct target *t, const char *property, struct error *err)
{
    error_set(err, "Property '%s.%s' not found", type_of(t), property);
    return -ENOENT;
}

static int co_qom_get(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *property = member_text(args, "property");
    struct target t;

    if (find_target(member_text(args, "path"), &t, err) < 0) {
        return -ENOENT;
    }
    if (!strcmp(property, "type")) {
        *result = json_string(type_of(&t));
    } else if (t.device) {
        *result = device_value(&t, property);
    } else if (t.object) {
        *result = object_get(t.object, property);
    }
    return *result ? 0 : not_found(&t, property, err);
}

static int co_qom_set(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *property = member_text(args, "property");
    json_t *value = json_object_get(args, "value");
    struct target t;

    if (find_target(member_text(args, "path"), &t, err) < 0) {
        return -ENOENT;
    }
    if (!t.device || !find_row(t.device, property)) {
        return not_found(&t, property, err);
    }
    if (strcmp(property, "bootindex")) {
        /* A virtio device's properties are those of the nameless one behind its bus. */
        const char *id = device_hotpluggable(t.device) ? NULL : t.device->id;
        AUTOFREE char *named = id ? mem_printf("device '%s'", id) : mem_strdup("anonymous device");

        error_set(err, "Attempt to set property '%s' on %s (type '%s') after it was realized", property, named,
                  device_hotpluggable(t.device) ? BACKEND_TYPE : type_of(&t));
        return -EPERM;
    }
    if (json_typeof(value) != JSON_INTEGER) {
        error_set(err, "Invalid parameter type for 'bootindex', expected: integer");
        return -EINVAL;
    }
    json_object_set(t.device->properties, property, value);
    return 0;
}

/* --- Rows ----------------------------------------------------------------------------------------------------------- */

const struct command object_qmp_commands[] = {
    { .name = "object-add", .whole = &object_tree, .co_run = co_object_add },
    { .name = "object-del", .args = { { "id", ARG_STRING } }, .co_run = co_object_del },
    { .name = "query-iothreads", .returns = "[any]", .co_run = co_query_iothreads },
    { .name = "qom-list", .args = { { "path", ARG_STRING } }, .returns = "[any]", .co_run = co_qom_list },
    { .name = "qom-get", .args = { { "path", ARG_STRING }, { "property", ARG_STRING } }, .returns = "any",
      .co_run = co_qom_get },
    { .name = "qom-set", .args = { { "path", ARG_STRING }, { "property", ARG_STRING }, { "value", ARG_ANY } },
      .co_run = co_qom_set },
    { 0 },
};
