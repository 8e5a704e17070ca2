/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option strings (see keyval.h).
 */
#include "core/keyval.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* Up to the next single comma, doubled ones turned into one; *p is set behind it. */
static char *take_item(const char **p)
{
    char *out = mem_alloc(strlen(*p) + 1);
    size_t n = 0;

    while (**p) {
        if (**p == ',') {
            if ((*p)[1] != ',') {
                break;
            }
            (*p)++;
        }
        out[n++] = *(*p)++;
    }
    if (**p == ',') {
        (*p)++;
    }
    out[n] = '\0';
    return out;
}

/* "noKEY" is KEY=off. */
static bool flag_is_on(const char *flag)
{
    return strncmp(flag, "no", 2) != 0 || !flag[2];
}

void keyval_each_flag(const char *text, bool implied,
                      void (*say)(const char *flag, const char *key, bool on, void *arg), void *arg)
{
    for (bool first = true; *text; first = false) {
        AUTOFREE char *item = take_item(&text);

        if (*item && !strchr(item, '=') && !(first && implied) && strcmp(item, "help") && strcmp(item, "?")) {
            bool on = flag_is_on(item);

            say(item, on ? item : item + 2, on, arg);
        }
    }
}

json_t *keyval_parse(const char *text, const char *implied, struct error *err)
{
    json_t *out = json_object();
    bool first = true;

    while (*text) {
        AUTOFREE char *item = take_item(&text);
        char *equals = strchr(item, '=');

        if (equals) {
            *equals = '\0';
        }
        if (equals && !*item) {
            error_set(err, "Invalid parameter ''");
            json_decref(out);
            return NULL;
        }
        if (equals) {
            json_object_set_new_nocheck(out, item,
                                        json_stringn_nocheck(equals + 1, strlen(equals + 1)));
        } else if (first && implied) {
            json_object_set_new_nocheck(out, implied, json_stringn_nocheck(item, strlen(item)));
        } else if (*item) {
            bool on = flag_is_on(item);

            json_object_set_new_nocheck(out, on ? item : item + 2, json_string(on ? "on" : "off"));
        }
        first = false;
    }
    return out;
}

static int mixed(const char *part, struct error *err)
{
    error_set(err, strcmp(part, "backing") ? "Cannot mix scalar and non-scalar keys"
                                           : "Could not open backing file: Cannot reference an existing block device with "
                                             "additional options or a new filename");
    return -1;
}

static int nest_one(json_t *top, const char *key, json_t *value, struct error *err)
{
    AUTOFREE char *copy = mem_strdup(key);
    char *part = copy, *dot;
    json_t *at = top;

    while ((dot = strchr(part, '.'))) {
        *dot = '\0';
        json_t *next = json_object_get(at, part);
        if (next && json_is_string(next) && strcmp(part, "file") == 0) {
            json_t *file = json_pack("{s:O}", "filename", next);
            json_object_set_new_nocheck(at, part, file); /* file=x.img,file.locking=off */
            next = file;
        }
        if (!next) {
            next = json_object();
            json_object_set_new_nocheck(at, part, next); /* whatever bytes the key has */
        }
        if (!json_is_object(next)) {
            return mixed(part, err);
        }
        at = next;
        part = dot + 1;
    }
    json_t *old = json_object_get(at, part);
    if (json_is_object(old) && json_is_object(value)) { /* JSON may say one part of it with dots */
        json_object_update(old, value);
        return 0;
    }
    if (json_is_object(old)) {
        if (strcmp(part, "file") == 0) {
            json_object_set(old, "filename", value);
            return 0;
        }
        return mixed(part, err);
    }
    json_object_set_nocheck(at, part, value);
    return 0;
}

json_t *keyval_nest(json_t *flat, struct error *err)
{
    json_t *top = json_object(), *value;
    const char *key;

    json_object_foreach(flat, key, value) {
        if (nest_one(top, key, value, err) < 0) {
            json_decref(top);
            return NULL;
        }
    }
    return top;
}

/* --- Trees --------------------------------------------------------------------------------------- */

static bool is_index(const char *part)
{
    return *part && !part[strspn(part, "0123456789")];
}

/* A part of a dotted key: a name, or behind a name the index of a list. */
static bool part_wellformed(const char *part, bool first)
{
    if (is_index(part)) {
        return !first;
    }
    for (const char *p = part; *p; p++) {
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_') {
            return false;
        }
    }
    return isalpha((unsigned char)part[0]);
}

static json_t *used_inconsistently(const char *key, const char *end, struct error *err)
{
    error_set(err, "Parameters '%.*s.*' used inconsistently", (int)(end - key), key);
    return NULL;
}

/* Where the value of `key` goes: the object that has it, made if need be; *last is its name there
 * (within `parts`). */
static json_t *walk_to(json_t *top, const char *key, char *parts, char **last, struct error *err)
{
    json_t *at = top;
    char *part = parts, *dot;

    for (;; part = dot + 1) {
        dot = strchr(part, '.');
        if (dot) {
            *dot = '\0';
        }
        if (!part_wellformed(part, part == parts)) {
            error_set(err, "Invalid parameter '%s'", key);
            return NULL;
        }
        json_t *next = json_object_get(at, part);
        if (!dot) {
            *last = part;
            return json_is_object(next) ? used_inconsistently(key, key + strlen(key), err) : at;
        }
        if (!next) {
            next = json_object();
            json_object_set_new_nocheck(at, part, next); /* whatever bytes the key has */
        }
        if (!json_is_object(next)) {
            return used_inconsistently(key, key + (dot - parts), err);
        }
        at = next;
    }
}

static int tree_item(json_t *top, char *item, const char *implied, struct error *err)
{
    char *equals = strchr(item, '='), *last;
    const char *key = equals ? item : implied, *value = equals ? equals + 1 : item;
    json_t *at;

    if (!equals && (!strcmp(item, "help") || !strcmp(item, "?"))) {
        error_set(err, "Help is not available for this option");
        return -EINVAL;
    }
    if (!key) {
        error_set(err, "Expected '=' after parameter '%s'", item);
        return -EINVAL;
    }
    if (equals) {
        *equals = '\0';
    }
    AUTOFREE char *parts = mem_strdup(key);
    at = walk_to(top, key, parts, &last, err);
    if (!at) {
        return -EINVAL;
    }
    json_object_set_new_nocheck(at, last, json_stringn_nocheck(value, strlen(value)));
    return 0;
}

/* An object whose members are 0, 1, 2... is a list.  NULL with err when one is missing, or when
 * there are names beside the numbers. */
static json_t *list_of(json_t *object, const char *path, struct error *err)
{
    size_t count = json_object_size(object);
    json_t *list = json_array();
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value) {
        if (!is_index(key)) {
            error_set(err, "Parameters '%s.*' used inconsistently", path);
        }
    }
    for (size_t i = 0; i < count && !error_is_set(err); i++) {
        AUTOFREE char *index = mem_printf("%zu", i);

        value = json_object_get(object, index);
        if (!value) {
            error_set(err, "Parameter '%s.%s' missing", path, index);
        } else {
            json_array_append(list, value);
        }
    }
    if (error_is_set(err)) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static bool has_index(json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value) {
        if (is_index(key)) {
            return true;
        }
    }
    return false;
}

/* An object still to be looked through for lists. */
struct listing {
    json_t *object;
    char *path;
};

/* Breadth first, so that a deep tree takes no stack; new lists are put in place bottom up. */
static int make_lists(json_t *top, struct error *err)
{
    struct listing *all = mem_calloc(1, sizeof(*all));
    size_t count = 1;

    all[0] = (struct listing){ top, mem_strdup("") };
    for (size_t i = 0; i < count; i++) {
        const char *key;
        json_t *value;

        json_object_foreach(all[i].object, key, value) {
            if (json_is_object(value)) {
                all = mem_reallocarray(all, count + 1, sizeof(*all));
                all[count++] =
                    (struct listing){ value, mem_printf("%s%s%s", all[i].path,
                                                        *all[i].path ? "." : "", key) };
            }
        }
    }
    while (count-- > 0) {
        const char *key;
        json_t *value;
        void *safe;

        json_object_foreach_safe(all[count].object, safe, key, value) {
            if (!error_is_set(err) && json_is_object(value) && has_index(value)) {
                AUTOFREE char *path =
                    mem_printf("%s%s%s", all[count].path, *all[count].path ? "." : "", key);
                json_t *list = list_of(value, path, err);

                if (list) {
                    json_object_set_new(all[count].object, key, list);
                }
            }
        }
        free(all[count].path);
    }
    free(all);
    return error_is_set(err) ? -EINVAL : 0;
}

json_t *keyval_tree(const char *text, const char *implied, struct error *err)
{
    struct error why = ERROR_INIT;
    json_t *top = json_object();
    int ret = 0;

    while (*text && ret == 0) {
        AUTOFREE char *item = take_item(&text);

        ret = tree_item(top, item, implied, &why);
        implied = NULL;
    }
    if (ret == 0) {
        ret = make_lists(top, &why);
    }
    error_move(err, &why);
    if (ret < 0) {
        json_decref(top);
        return NULL;
    }
    return top;
}

int keyval_switch(const char *text, bool *out)
{
    static const char *const words[] = { "on", "off", "yes", "no", "true", "false", "y", "n" };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!strcmp(text, words[i])) {
            *out = i % 2 == 0;
            return 0;
        }
    }
    return -EINVAL;
}
