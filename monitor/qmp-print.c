/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values as QEMU prints them.
 *
 * QEMU keeps objects in hash tables of 512 buckets and prints them bucket by bucket.  Clients do
 * not care, people who compare transcripts do.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/text.h"
#include "monitor/qmp-text.h"

/* --- Order ------------------------------------------------------------------------------------ */

#define BUCKETS 512

static uint32_t bucket_of(const char *name)
{
    uint32_t hash = 0x238f13af * (uint32_t)strlen(name);

    for (uint32_t i = 0; name[i]; i++) {
        hash += (uint32_t)(unsigned char)name[i] << (i * 5 % 24);
    }
    return (1103515243 * hash + 12345) % BUCKETS;
}

struct member {
    const char *name;
    uint32_t bucket;
    uint32_t position;
};

static int by_bucket(const void *a, const void *b)
{
    const struct member *x = a, *y = b;

    if (x->bucket != y->bucket) {
        return x->bucket < y->bucket ? -1 : 1;
    }
    return x->position < y->position ? -1 : 1;
}

const char **qmp_member_order(const json_t *object)
{
    size_t n = json_object_size(object), i = 0;
    AUTOFREE struct member *members = mem_calloc(n + 1, sizeof(*members));
    const char **names = mem_calloc(n + 1, sizeof(*names));
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)object, name, value) {
        members[i] = (struct member){ name, bucket_of(name), i };
        i++;
    }
    qsort(members, n, sizeof(*members), by_bucket);
    for (i = 0; i < n; i++) {
        names[i] = members[i].name;
    }
    return names;
}

/* --- Text ------------------------------------------------------------------------------------- */

struct text {
    char *bytes;
    size_t len, size;
};

static void put(struct text *t, const char *bytes, size_t len)
{
    if (t->len + len + 1 > t->size) {
        t->size = MAX(t->size * 2, t->len + len + 256);
        t->bytes = mem_realloc(t->bytes, t->size);
    }
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

static void put_text(struct text *t, const char *text)
{
    put(t, text, strlen(text));
}

/* What cannot stand for itself. */
static void put_code_point(struct text *t, int32_t cp)
{
    static const char codes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *code = cp > 0 && cp < 0x80 ? strchr(codes, cp) : NULL;
    char buf[16];

    if (code) {
        snprintf(buf, sizeof(buf), "\\%c", letters[code - codes]);
    } else if (cp < 0x10000) {
        snprintf(buf, sizeof(buf), "\\u%04X", (unsigned)(cp < 0 ? 0xfffd : cp));
    } else {
        snprintf(buf, sizeof(buf), "\\u%04X\\u%04X", (unsigned)(0xd800 + ((cp - 0x10000) >> 10)),
                 (unsigned)(0xdc00 + ((cp - 0x10000) & 0x3ff)));
    }
    put_text(t, buf);
}

static void put_string(struct text *t, const char *string, size_t len)
{
    const char *p = string, *end = string + len;

    put(t, "\"", 1);
    while (p < end) {
        const char *plain = p;

        while (p < end && *p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') {
            p++;
        }
        put(t, plain, p - plain);
        if (p < end) {
            put_code_point(t, text_utf8_take(&p, end));
        }
    }
    put(t, "\"", 1);
}

static void put_scalar(struct text *t, const json_t *value)
{
    char buf[64];

    switch (json_typeof(value)) {
    case JSON_STRING:
        put_string(t, json_string_value(value), json_string_length(value));
        return;
    case JSON_INTEGER:
        snprintf(buf, sizeof(buf), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(buf, sizeof(buf), "%.17g", json_real_value(value));
        break;
    default:
        put_text(t, value == json_null() ? "null" : value == json_true() ? "true" : "false");
        return;
    }
    put_text(t, buf);
}

/* --- Trees ------------------------------------------------------------------------------------ */

/* A container whose members are being printed.  Kept on a list of our own, not on the stack: the
 * description of a chain of 1,000 images is an object 1,000 levels deep, and coroutines have small
 * stacks. */
struct level {
    const json_t *container;
    const char **names; /* of an object */
    size_t next, count;
};
struct levels {
    struct level *at;
    size_t count, room;
};

static void open_level(struct text *t, struct levels *levels, const json_t *container)
{
    bool object = json_typeof(container) == JSON_OBJECT;

    if (levels->count == levels->room) {
        levels->room = levels->room ? 2 * levels->room : 16;
        levels->at = mem_reallocarray(levels->at, levels->room, sizeof(*levels->at));
    }
    levels->at[levels->count++] = (struct level){
        .container = container,
        .names = object ? qmp_member_order(container) : NULL,
        .count = object ? json_object_size(container) : json_array_size(container),
    };
    put_text(t, object ? "{" : "[");
}

static void put_value(struct text *t, struct levels *levels, const json_t *value)
{
    if (json_typeof(value) == JSON_OBJECT || json_typeof(value) == JSON_ARRAY) {
        open_level(t, levels, value);
    } else {
        put_scalar(t, value);
    }
}

char *qmp_print(const json_t *value)
{
    struct text t = { 0 };
    struct levels levels = { 0 };

    put_value(&t, &levels, value);
    while (levels.count) {
        struct level *level = &levels.at[levels.count - 1];

        if (level->next == level->count) {
            put_text(&t, level->names ? "}" : "]");
            free(level->names);
            levels.count--;
            continue;
        }
        if (level->next) {
            put_text(&t, ", ");
        }
        if (level->names) {
            const char *name = level->names[level->next++];

            put_string(&t, name, strlen(name));
            put_text(&t, ": ");
            put_value(&t, &levels, json_object_get(level->container, name));
        } else {
            put_value(&t, &levels, json_array_get(level->container, level->next++));
        }
    }
    free(levels.at);
    put(&t, "", 1);
    return t.bytes;
}

static void put_line(struct text *t, unsigned depth)
{
    put_text(t, "\n");
    while (depth--) {
        put_text(t, "    ");
    }
}

char *qmp_print_pretty(const json_t *value)
{
    AUTOFREE char *line = qmp_print(value);
    struct text t = { 0 };
    unsigned depth = 0;
    bool quoted = false;

    for (const char *p = line; *p; p++) {
        if (quoted || *p == '"') {
            put(&t, p, 1);
            if (*p == '\\') {
                put(&t, ++p, 1);
            } else if (*p == '"') {
                quoted = !quoted;
            }
        } else if (strchr("{[", *p)) {
            put(&t, p, 1);
            depth++;
            if (!strchr("]}", p[1])) {
                put_line(&t, depth);
            }
        } else if (strchr("}]", *p)) {
            put_line(&t, --depth);
            put(&t, p, 1);
        } else if (*p == ',') {
            put(&t, p++, 1); /* and not the blank behind it */
            put_line(&t, depth);
        } else {
            put(&t, p, 1);
        }
    }
    put(&t, "", 1);
    return t.bytes;
}
