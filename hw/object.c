/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects that users make: see object.h.
 */
#include "hw/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/node.h"
#include "block/throttle-group.h"
#include "core/mem.h"

struct object_list all_objects = TAILQ_HEAD_INITIALIZER(all_objects);

/* --- The types ---------------------------------------------------------------------------------- */

static const struct block_key iothread_keys[] = {
    { .name = "poll-max-ns", .kind = KEY_INT, .help = "without effect" },
    { .name = "poll-grow", .kind = KEY_INT, .help = "without effect" },
    { .name = "poll-shrink", .kind = KEY_INT, .help = "without effect" },
    { .name = "aio-max-batch", .kind = KEY_INT, .help = "without effect" },
    { .name = "thread-pool-min", .kind = KEY_INT, .help = "without effect" },
    { .name = "thread-pool-max", .kind = KEY_INT, .help = "without effect" },
    { 0 },
};
static const struct {
    const char *name;
    int value;
} iothread_defaults[] = {
    { "poll-max-ns", 32768 }, { "poll-grow", 0 },       { "poll-shrink", 0 },
    { "aio-max-batch", 0 },   { "thread-pool-min", 0 }, { "thread-pool-max", 64 },
};

static int iothread_add(const struct object *object, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(iothread_defaults); i++) {
        if (!json_object_get(object->properties, iothread_defaults[i].name)) {
            json_object_set_new(object->properties, iothread_defaults[i].name,
                                json_integer(iothread_defaults[i].value));
        }
    }
    return 0;
}

static int group_add(const struct object *object, struct error *err)
{
    return throttle_group_new(object->id, object->properties, err);
}

/* All limits, or one of them as "x-NAME". */
static json_t *group_get(const char *id, const char *property)
{
    json_t *limits = throttle_group_get(id), *one;

    if (!strcmp(property, "limits")) {
        return limits;
    }
    one = strncmp(property, "x-", 2) ? NULL : json_incref(json_object_get(limits, property + 2));
    json_decref(limits);
    return one;
}

const struct object_type object_kinds[] = {
    { "iothread", iothread_keys, iothread_add, NULL, NULL },
    { "throttle-group", throttle_group_keys, group_add, throttle_group_del, group_get },
    { 0 },
};

static const struct block_variant variants[] = {
    { "iothread", iothread_keys },
    { "throttle-group", throttle_group_keys },
    { 0 },
};
static const struct block_key members[] = {
    { .name = "qom-type", .kind = KEY_STRING, .required = true, .help = "what it is" },
    { .name = "id", .kind = KEY_STRING, .required = true, .help = "what it is called" },
    { 0 },
};
const struct block_key object_tree = {
    .kind = KEY_OBJECT, .members = members, .tag = "qom-type", .variants = variants,
};

/* --- Objects ------------------------------------------------------------------------------------ */

struct object *object_find(const char *id)
{
    struct object *object;

    TAILQ_FOREACH(object, &all_objects, link) {
        if (!strcmp(object->id, id)) {
            return object;
        }
    }
    return NULL;
}

/* One of those in object_tree, which the properties were checked against. */
static const struct object_type *type_find(const char *name)
{
    const struct object_type *type = object_kinds;

    while (strcmp(type->name, name)) {
        type++;
    }
    return type;
}

static void object_free(struct object *object)
{
    json_decref(object->properties);
    free(object->id);
    free(object);
}

int object_add(const json_t *tree, struct error *err)
{
    const char *id = json_string_value(json_object_get(tree, "id"));
    struct object *object;

    if (!id_wellformed(id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
        return -EINVAL;
    }
    if (object_find(id)) {
        error_set(err, "attempt to add duplicate property '%s' to object (type 'container')", id);
        return -EEXIST;
    }
    object = mem_zalloc(sizeof(*object));
    object->id = mem_strdup(id);
    object->type = type_find(json_string_value(json_object_get(tree, "qom-type")));
    object->properties = json_copy((json_t *)tree);
    json_object_del(object->properties, "qom-type");
    json_object_del(object->properties, "id");
    if (object->type->add(object, err) < 0) {
        object_free(object);
        return -EINVAL;
    }
    TAILQ_INSERT_HEAD(&all_objects, object, link);
    return 0;
}

int object_del(const char *id, struct error *err)
{
    struct object *object = object_find(id);

    if (!object) {
        error_set(err, "object '%s' not found", id);
        return -ENOENT;
    }
    if (object->type->del && object->type->del(id, err) < 0) {
        return -EBUSY;
    }
    TAILQ_REMOVE(&all_objects, object, link);
    object_free(object);
    return 0;
}

json_t *object_get(const struct object *object, const char *property)
{
    return object->type->get ? object->type->get(object->id, property)
                             : json_incref(json_object_get(object->properties, property));
}

void objects_end(void)
{
    while (!TAILQ_EMPTY(&all_objects)) {
        struct object *object = TAILQ_FIRST(&all_objects);

        TAILQ_REMOVE(&all_objects, object, link);
        object_free(object);
    }
    throttle_groups_end();
}
