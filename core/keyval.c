/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option strings (see keyval.h).
 */
#include "core/keyval.h"

#include <errno.h>
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
            bool off = strncmp(item, "no", 2) == 0 && item[2];
            json_object_set_new_nocheck(out, off ? item + 2 : item,
                                        json_string(off ? "off" : "on"));
        }
        first = false;
    }
    return out;
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
            json_object_set_new(at, part, file); /* file=x.img,file.locking=off */
            next = file;
        }
        if (!next) {
            next = json_object();
            json_object_set_new(at, part, next);
        }
        if (!json_is_object(next)) {
            error_set(err, "Cannot mix scalar and non-scalar keys");
            return -1;
        }
        at = next;
        part = dot + 1;
    }
    json_t *old = json_object_get(at, part);
    if (json_is_object(old)) {
        if (strcmp(part, "file") == 0) {
            json_object_set(old, "filename", value);
            return 0;
        }
        error_set(err, "Cannot mix scalar and non-scalar keys");
        return -1;
    }
    json_object_set(at, part, value);
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
