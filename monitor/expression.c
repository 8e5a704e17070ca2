/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Expressions: see expression.h.  A parser by descent, one function a level; the first thing wrong ends it.
 *
 * Arithmetic is that of 64 bits that wrap.  Parentheses and signs may be nested as deep as a line is long, and a stack is not:
 * hence the limit.
 */
#include "monitor/expression.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define DEPTH_MAX 256

struct expression {
    const char *p;
    unsigned depth;
    char *wrong; /* NULL: nothing so far */
};

static uint64_t read_sum(struct expression *e);

static uint64_t fail(struct expression *e, char *text)
{
    if (e->wrong) {
        free(text);
    } else {
        e->wrong = text;
    }
    return 0;
}

static void skip(struct expression *e, size_t n)
{
    e->p += n;
    while (isspace((unsigned char)*e->p)) {
        e->p++;
    }
}

static uint64_t read_number(struct expression *e)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = strtoull(e->p, &end, 0);
    if (errno == ERANGE) {
        return fail(e, mem_strdup("number too large"));
    }
    if (end == e->p) {
        return fail(e, mem_printf("invalid char '%c' in expression", *e->p));
    }
    skip(e, end - e->p);
    return value;
}

static uint64_t read_character(struct expression *e)
{
    uint64_t value = (unsigned char)e->p[1];

    if (!value) {
        return fail(e, mem_strdup("character constant expected"));
    }
    if (e->p[2] != '\'') {
        return fail(e, mem_strdup("missing terminating \' character"));
    }
    skip(e, 3);
    return value;
}

static uint64_t read_unary(struct expression *e)
{
    char c = *e->p;
    uint64_t value;

    if (e->wrong || e->depth >= DEPTH_MAX) {
        return fail(e, mem_strdup("expression is nested too deep"));
    }
    if (!c) {
        return fail(e, mem_strdup("unexpected end of expression"));
    }
    if (c == '\'') {
        return read_character(e);
    }
    if (c == '$') {
        return fail(e, mem_strdup("unknown register"));
    }
    if (!strchr("+-~(", c)) {
        return read_number(e);
    }
    skip(e, 1);
    e->depth++;
    value = c == '(' ? read_sum(e) : read_unary(e);
    e->depth--;
    if (c == '(' && *e->p != ')') {
        return fail(e, mem_strdup("')' expected"));
    }
    if (c == '(') {
        skip(e, 1);
    }
    return c == '-' ? -value : c == '~' ? ~value : value;
}

static uint64_t read_product(struct expression *e)
{
    uint64_t value = read_unary(e);

    while (!e->wrong && *e->p && strchr("*/%", *e->p)) {
        char op = *e->p;
        int64_t other;

        skip(e, 1);
        other = read_unary(e);
        if (op == '*') {
            value *= other;
        } else if (!other) {
            fail(e, mem_strdup("division by zero"));
        } else if (other == -1) { /* the one quotient that may not fit */
            value = op == '/' ? -value : 0;
        } else {
            value = op == '/' ? (int64_t)value / other : (int64_t)value % other;
        }
    }
    return value;
}

static uint64_t read_logic(struct expression *e)
{
    uint64_t value = read_product(e);

    while (!e->wrong && *e->p && strchr("&|^", *e->p)) {
        char op = *e->p;
        uint64_t other;

        skip(e, 1);
        other = read_product(e);
        value = op == '&' ? value & other : op == '|' ? value | other : value ^ other;
    }
    return value;
}

static uint64_t read_sum(struct expression *e)
{
    uint64_t value = read_logic(e);

    while (!e->wrong && (*e->p == '+' || *e->p == '-')) {
        bool minus = *e->p == '-';
        uint64_t other;

        skip(e, 1);
        other = read_logic(e);
        value += minus ? -other : other;
    }
    return value;
}

char *expression_read(const char **p, int64_t *value)
{
    struct expression e = { .p = *p };

    skip(&e, 0);
    *value = read_sum(&e);
    *p = e.p;
    return e.wrong;
}
