/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON trees for people (`info ... -json`), and their end.
 *
 * A chain of 1,000 images is a tree of 1,000 levels, and a coroutine's stack is small: nothing here recurses.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "monitor/monitor.h"
#include "monitor/qmp-text.h"

#define INDENT_MAX 40 /* deeper levels are not moved further to the right */

/* --- Freeing --------------------------------------------------------------------------------------------------------- */

struct stack {
    json_t **items;
    size_t count, room;
};

static void push(struct stack *s, json_t *value)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->items = mem_reallocarray(s->items, s->room, sizeof(*s->items));
    }
    s->items[s->count++] = value;
}

static bool is_container(const json_t *value)
{
    return json_typeof(value) == JSON_OBJECT || json_typeof(value) == JSON_ARRAY;
}

static void push_container(struct stack *s, json_t *value)
{
    if (is_container(value)) {
        push(s, json_incref(value));
    }
}

static void push_children(struct stack *s, json_t *value)
{
    const char *key;
    json_t *child;
    size_t i;

    if (json_typeof(value) == JSON_OBJECT) {
        json_object_foreach(value, key, child) {
            push_container(s, child);
        }
        json_object_clear(value);
    } else if (json_typeof(value) == JSON_ARRAY) {
        json_array_foreach(value, i, child) {
            push_container(s, child);
        }
        json_array_clear(value);
    }
}

void monitor_free_json(json_t *tree)
{
    struct stack s = { 0 };

    if (tree) {
        push(&s, tree);
    }
    while (s.count) {
        json_t *value = s.items[--s.count];

        if (value->refcount == 1) { /* nobody else wants what is in it */
            push_children(&s, value);
        }
        json_decref(value);
    }
    free(s.items);
}

/* --- Printing --------------------------------------------------------------------------------------------------------- */

/* A container being printed. */
struct level {
    json_t *value;
    void *member;  /* of an object: the next one */
    size_t index;  /* how many have been printed */
};

struct printer {
    struct monitor *mon;
    struct level *levels;
    size_t depth, room;
};

static void new_line(struct printer *p)
{
    monitor_printf(p->mon, "\n%*s", (int)MIN(4 * p->depth, (size_t)INDENT_MAX), "");
}

static void print_scalar(struct printer *p, const json_t *value)
{
    AUTOFREE char *text = json_dumps(value, JSON_ENCODE_ANY);
    AUTOFREE char *plain = text ? NULL : qmp_print(value); /* it is not UTF-8 */

    monitor_puts(p->mon, text ? text : plain);
}

/* A scalar, an empty container, or the beginning of a container. */
static void print_value(struct printer *p, json_t *value)
{
    bool object = json_typeof(value) == JSON_OBJECT;
    size_t size = object ? json_object_size(value) : json_array_size(value);

    if (!is_container(value)) {
        print_scalar(p, value);
        return;
    }
    monitor_puts(p->mon, object ? (size ? "{" : "{}") : (size ? "[" : "[]"));
    if (!size) {
        return;
    }
    if (p->depth == p->room) {
        p->room = p->room ? 2 * p->room : 32;
        p->levels = mem_reallocarray(p->levels, p->room, sizeof(*p->levels));
    }
    p->levels[p->depth++] = (struct level){
        .value = value,
        .member = object ? json_object_iter(value) : NULL,
    };
}

static void print_next(struct printer *p)
{
    struct level *level = &p->levels[p->depth - 1];
    bool object = json_typeof(level->value) == JSON_OBJECT;
    json_t *child;

    if (object ? !level->member : level->index == json_array_size(level->value)) {
        p->depth--;
        new_line(p);
        monitor_puts(p->mon, object ? "}" : "]");
        return;
    }
    if (level->index) {
        monitor_puts(p->mon, ",");
    }
    new_line(p);
    if (object) {
        json_t *key = json_string(json_object_iter_key(level->member));

        print_scalar(p, key);
        json_decref(key);
        monitor_puts(p->mon, ": ");
        child = json_object_iter_value(level->member);
        level->member = json_object_iter_next(level->value, level->member);
    } else {
        child = json_array_get(level->value, level->index);
    }
    level->index++;
    print_value(p, child); /* `level` may have moved */
}

void monitor_print_json(struct monitor *mon, const json_t *value)
{
    struct printer p = { .mon = mon };

    print_value(&p, (json_t *)value);
    while (p.depth) {
        print_next(&p);
    }
    monitor_puts(mon, "\n");
    free(p.levels);
}
