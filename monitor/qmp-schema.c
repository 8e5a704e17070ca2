/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-qmp-schema: what this program's QMP takes, in the form of QEMU's introspection, made from the tables by which
 * requests are checked and events are sent: rows of commands, rows of events, keys of drivers and objects.
 *
 * A list of entities that name each other: commands and events have an argument object, whose members have types.  QEMU's
 * names of types are numbers without meaning; ours say where they come from.  What commands return is said no further
 * than "any".
 */
#include <string.h>

#include "block/blockdev.h"
#include "core/mem.h"
#include "monitor/events.h"
#include "monitor/handlers.h"

#define EMPTY "0" /* the object without members; QEMU's readers know it by that name */

struct schema {
    json_t *entities;
    json_t *names; /* of those that are there, or are being made */
    bool compat;
};

/* False: it is there already. */
static bool is_new(struct schema *s, const char *name)
{
    if (json_object_get(s->names, name)) {
        return false;
    }
    json_object_set_new(s->names, name, json_true());
    return true;
}

static void add(struct schema *s, const char *name, const char *meta, json_t *entity)
{
    json_object_set_new(entity, "name", json_string(name));
    json_object_set_new(entity, "meta-type", json_string(meta));
    json_array_append_new(s->entities, entity);
}

static void add_builtin(struct schema *s, const char *name, const char *json_type)
{
    add(s, name, "builtin", json_pack("{s:s}", "json-type", json_type));
}

static char *array_of(struct schema *s, const char *element)
{
    char *name = mem_printf("[%s]", element);

    if (is_new(s, name)) {
        add(s, name, "array", json_pack("{s:s}", "element-type", element));
    }
    return name;
}

static void add_alternate(struct schema *s, const char *name, const char *const *types)
{
    json_t *members = json_array();

    for (; *types; types++) {
        json_array_append_new(members, json_pack("{s:s}", "type", *types));
    }
    add(s, name, "alternate", json_pack("{s:o}", "members", members));
}

static void add_value(json_t *values, json_t *members, const char *value)
{
    json_array_append_new(values, json_string(value));
    json_array_append_new(members, json_pack("{s:s}", "name", value));
}

static char *add_enum(struct schema *s, const char *name, json_t *values, json_t *members)
{
    add(s, name, "enum", json_pack("{s:o, s:o}", "values", values, "members", members));
    return mem_strdup(name);
}

static char *enum_of(struct schema *s, const char *name, const char *const *choices)
{
    json_t *values = json_array(), *members = json_array();

    for (; *choices; choices++) {
        add_value(values, members, *choices);
    }
    return add_enum(s, name, values, members);
}

static void add_member(json_t *members, const char *name, const char *type, bool optional)
{
    json_t *member = json_pack("{s:s, s:s}", "name", name, "type", type);

    if (optional) {
        json_object_set_new(member, "default", json_null());
    }
    json_array_append_new(members, member);
}

/* --- Keys ----------------------------------------------------------------------------------------------------------- */

static void add_object(struct schema *s, const char *name, const struct block_key *as);

static const char *const ref_types[] = { "str", "BlockdevOptions", NULL };
static const char *const ref_or_null_types[] = { "str", "BlockdevOptions", "null", NULL };

static char *node_type(struct schema *s, const char *name, const char *const *alternatives)
{
    static const struct block_key node = { .kind = KEY_NODE };

    add_object(s, "BlockdevOptions", &node);
    if (alternatives && is_new(s, name)) {
        add_alternate(s, name, alternatives);
    }
    return mem_strdup(name);
}

static char *object_type(struct schema *s, const char *name, const struct block_key *as)
{
    add_object(s, name, as);
    return mem_strdup(name);
}

/* Malloc'ed name; `owner` is that of the object whose member it is. */
static char *key_type(struct schema *s, const char *owner, const struct block_key *key)
{
    AUTOFREE char *name = mem_printf("%s-%s", owner, key->name), *element = NULL;

    switch (key->kind) {
    case KEY_BOOL:
        return mem_strdup("bool");
    case KEY_INT:
    case KEY_SIZE:
    case KEY_UINT64:
        return mem_strdup("int");
    case KEY_ENUM:
        return enum_of(s, name, key->choices);
    case KEY_NODE:
        return node_type(s, "BlockdevRef", ref_types);
    case KEY_NODE_OR_NULL:
        return node_type(s, "BlockdevRefOrNull", ref_or_null_types);
    case KEY_NODES:
        element = node_type(s, "BlockdevOptions", NULL);
        return array_of(s, element);
    case KEY_CREATE:
        return object_type(s, "BlockdevCreateOptions", key);
    case KEY_OBJECT:
        return object_type(s, name, key);
    case KEY_LIST:
        element = object_type(s, name, key);
        return array_of(s, element);
    default:
        return mem_strdup("str");
    }
}

static json_t *key_members(struct schema *s, const char *owner, const struct block_key *keys, const char *tag,
                           const char *tag_type)
{
    json_t *members = json_array();

    for (; keys && keys->name; keys++) {
        AUTOFREE char *type = tag && !strcmp(keys->name, tag) ? mem_strdup(tag_type) : key_type(s, owner, keys);

        add_member(members, keys->name, type, !keys->required);
    }
    return members;
}

/* --- Objects with variants ------------------------------------------------------------------------------------------ */

struct cases {
    json_t *values, *members; /* of the enum */
    json_t *variants;
};

static void add_case(struct schema *s, const char *owner, struct cases *c, const char *value,
                     const struct block_key *keys)
{
    AUTOFREE char *name = mem_printf("%s-%s", owner, value);

    add_value(c->values, c->members, value);
    if (!keys || !keys->name) {
        json_array_append_new(c->variants, json_pack("{s:s, s:s}", "case", value, "type", EMPTY));
        return;
    }
    json_array_append_new(c->variants, json_pack("{s:s, s:s}", "case", value, "type", name));
    add(s, name, "object", json_pack("{s:o}", "members", key_members(s, name, keys, NULL, NULL)));
}

static struct cases cases_of(struct schema *s, const char *name, const struct block_key *as)
{
    struct cases c = { json_array(), json_array(), json_array() };

    if (as->kind == KEY_OBJECT || as->kind == KEY_LIST) {
        for (const struct block_variant *v = as->variants; v && v->value; v++) {
            add_case(s, name, &c, v->value, v->members);
        }
        return c;
    }
    for (const struct driver *const *d = driver_list(); *d; d++) {
        if (as->kind != KEY_CREATE || (*d)->create_keys) {
            add_case(s, name, &c, (*d)->name, as->kind == KEY_CREATE ? (*d)->create_keys : (*d)->keys);
        }
    }
    return c;
}

static void add_object(struct schema *s, const char *name, const struct block_key *as)
{
    bool plain = as->kind == KEY_OBJECT || as->kind == KEY_LIST;
    const struct block_key *members = plain                    ? as->members
                                      : as->kind == KEY_CREATE ? block_create_keys
                                                               : block_common_keys;
    const char *tag = plain ? as->tag : "driver";
    AUTOFREE char *tag_type = mem_printf("%s-%s", name, tag ? tag : "");
    struct cases c;
    json_t *entity = json_object();

    if (!is_new(s, name)) {
        json_decref(entity);
        return;
    }
    if (tag) {
        c = cases_of(s, name, as);
        free(add_enum(s, tag_type, c.values, c.members));
        json_object_set_new(entity, "tag", json_string(tag));
        json_object_set_new(entity, "variants", c.variants);
    }
    json_object_set_new(entity, "members", key_members(s, name, members, tag, tag_type));
    add(s, name, "object", entity);
}

/* --- Commands and events -------------------------------------------------------------------------------------------- */

static char *arg_type(struct schema *s, const char *owner, const struct command_arg *arg)
{
    struct block_key key;
    AUTOFREE char *name = mem_printf("%s-%s", owner, arg->name);

    switch (arg->kind) {
    case ARG_SIZE:
    case ARG_TIME:
    case ARG_INT:
        return mem_strdup("int");
    case ARG_BOOL:
    case ARG_FLAG:
        return mem_strdup("bool");
    case ARG_ANY:
        return mem_strdup("any");
    case ARG_ENUM:
        return enum_of(s, name, arg->choices);
    case ARG_TREE:
        key = *arg->tree;
        key.name = arg->name;
        return key_type(s, owner, &key);
    default:
        return mem_strdup("str");
    }
}

/* Malloc'ed name of an object with these members. */
static char *arguments_of(struct schema *s, const char *name, const struct command_arg *args)
{
    char *owner = mem_printf("%s-arg", name);
    json_t *members = json_array();

    for (; args->name; args++) {
        if (!(args->ours && s->compat)) {
            AUTOFREE char *type = arg_type(s, owner, args);

            add_member(members, args->name, type, args->optional);
        }
    }
    if (json_array_size(members)) {
        add(s, owner, "object", json_pack("{s:o}", "members", members));
        return owner;
    }
    json_decref(members);
    free(owner);
    return mem_strdup(EMPTY);
}

static char *whole_type(struct schema *s, const struct command *cmd)
{
    AUTOFREE char *name = mem_printf("%s-arg", cmd->name);

    return cmd->whole->kind == KEY_NODE ? node_type(s, "BlockdevOptions", NULL) : object_type(s, name, cmd->whole);
}

static void add_command(void *arg, const struct command *cmd)
{
    struct schema *s = arg;
    AUTOFREE char *takes = cmd->whole ? whole_type(s, cmd) : arguments_of(s, cmd->name, cmd->args);
    const char *gives = cmd->returns ? cmd->returns : EMPTY;

    if (*gives == '[') {
        AUTOFREE char *element = mem_strdup(gives + 1);

        element[strlen(element) - 1] = '\0';
        free(array_of(s, element));
    }
    add(s, cmd->name, "command", json_pack("{s:s, s:s}", "arg-type", takes, "ret-type", gives));
}

static void add_event(struct schema *s, const struct event_row *row)
{
    AUTOFREE char *carries = arguments_of(s, row->name, row->data);

    add(s, row->name, "event", json_pack("{s:s}", "arg-type", carries));
}

int co_query_qmp_schema(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct schema s = { .entities = json_array(), .names = json_object(), .compat = mon->compat };

    command_each(qmp_command_tables, mon->compat, add_command, &s);
    for (const struct event_row *row = event_rows; row->name; row++) {
        add_event(&s, row);
    }
    add(&s, EMPTY, "object", json_pack("{s:[]}", "members"));
    add_builtin(&s, "str", "string");
    add_builtin(&s, "any", "value");
    add_builtin(&s, "bool", "boolean");
    add_builtin(&s, "int", "int");
    add_builtin(&s, "null", "null");
    add_builtin(&s, "number", "number");
    json_decref(s.names);
    *result = s.entities;
    return 0;
}
