/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values out of a stream of bytes, with the faults found where QEMU finds them and told in its
 * words.
 *
 * Two steps.  Bytes become tokens; tokens are collected until as many brackets have closed as were
 * opened (or one too many), and only then they are read as a value.  So a fault inside a value is
 * told when the value is over, and a client that sends one wrong command gets one answer.  A byte
 * that no token can hold is told at once and ends the value.
 */
#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json-parse.h"
#include "core/mem.h"
#include "core/text.h"

/* What a client may make us keep.  Fewer levels than QEMU has (1024): reading and freeing 1024 takes a
 * half of a coroutine's stack, and a `blockdev-add` may be a filter on a filter as deep as its text, each
 * of them a frame or two under every request. */
#define TEXT_MAX (64u << 20)
#define TOKENS_MAX (2u << 20)
#define DEPTH_MAX 256

enum token_kind { TOKEN_STRUCTURE, TOKEN_STRING, TOKEN_INTEGER, TOKEN_FLOAT, TOKEN_KEYWORD };
struct token {
    enum token_kind kind;
    uint32_t start, len; /* in the parser's text; strings with their quotes */
};

enum state {
    AT_START,    /* between tokens */
    IN_RECOVERY, /* behind a wrong byte */
    IN_STRING,
    IN_ESCAPE,
    AFTER_MINUS,
    AFTER_ZERO,
    IN_INTEGER,
    AFTER_POINT,
    IN_FRACTION,
    AFTER_E,
    AFTER_E_SIGN,
    IN_EXPONENT,
    IN_KEYWORD,
};

struct json_parser {
    enum state state;
    char quote; /* IN_STRING, IN_ESCAPE */
    char *text; /* of all tokens of this value */
    size_t len, size;
    size_t token_start; /* of the unfinished token */
    struct token *tokens;
    size_t count, room;
    int braces, brackets; /* open ones */
};

struct json_parser *json_parser_new(void)
{
    return mem_zalloc(sizeof(struct json_parser));
}

void json_parser_free(struct json_parser *p)
{
    free(p->text);
    free(p->tokens);
    free(p);
}

/* --- Values out of tokens --------------------------------------------------------------------- */

struct reading {
    const struct json_parser *p;
    size_t next;
    struct error *err;
};

static json_t *fault(struct reading *r, const char *what)
{
    error_set(r->err, "JSON parse error, %s", what);
    return NULL;
}

/* There is one: a value is read when its last bracket has come, and that ends what is read of it. */
static const struct token *take(struct reading *r)
{
    assert(r->next < r->p->count);
    return &r->p->tokens[r->next++];
}

static bool is_structure(const struct reading *r, const struct token *token, char c)
{
    return token->kind == TOKEN_STRUCTURE && r->p->text[token->start] == c;
}

static bool next_is(const struct reading *r, char c)
{
    assert(r->next < r->p->count);
    return is_structure(r, &r->p->tokens[r->next], c);
}

/* A character, not a surrogate and not one of those that Unicode will never assign. */
static bool is_character(int32_t cp)
{
    return cp >= 0 && !(cp >= 0xd800 && cp <= 0xdfff) &&
           !(cp >= 0xfdd0 && cp <= 0xfdef) && (cp & 0xfffe) != 0xfffe;
}

static char *encode(char *out, int32_t cp)
{
    if (cp && cp < 0x80) {
        *out++ = cp;
    } else if (cp < 0x800) { /* 0 too: C0 80 */
        *out++ = 0xc0 | cp >> 6;
        *out++ = 0x80 | (cp & 0x3f);
    } else if (cp < 0x10000) {
        *out++ = 0xe0 | cp >> 12;
        *out++ = 0x80 | (cp >> 6 & 0x3f);
        *out++ = 0x80 | (cp & 0x3f);
    } else {
        *out++ = 0xf0 | cp >> 18;
        *out++ = 0x80 | (cp >> 12 & 0x3f);
        *out++ = 0x80 | (cp >> 6 & 0x3f);
        *out++ = 0x80 | (cp & 0x3f);
    }
    return out;
}

/* Four hex digits, or -1. */
static int32_t hex4(const char *s, const char *end)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++, s++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *digit = s < end ? strchr(digits, *s) : NULL;

        if (!digit) {
            return -1;
        }
        value = value * 16 + (digit - digits) % 16;
    }
    return value;
}

/* \uXXXX at *s (on the backslash), or two of them that make one character; -1 when it is none. */
static int32_t unicode_escape(const char **s, const char *end)
{
    int32_t cp = hex4(*s + 2, end), low;

    if (cp >= 0xd800 && cp <= 0xdbff && end - *s >= 12 && (*s)[6] == '\\' && (*s)[7] == 'u') {
        low = hex4(*s + 8, end);
        if (low >= 0xdc00 && low <= 0xdfff) {
            cp = 0x10000 + ((cp & 0x3ff) << 10 | (low & 0x3ff));
            *s += 6;
        }
    }
    *s += 6;
    return is_character(cp) ? cp : -1;
}

static bool read_escape(struct reading *r, const char **s, const char *end, char **out)
{
    static const char codes[] = "\"'\\/bfnrt", meanings[] = "\"'\\/\b\f\n\r\t";
    const char *escape = *s, *code = strchr(codes, escape[1]);

    if (escape[1] == 'u') {
        int32_t cp = unicode_escape(s, end);

        if (cp < 0) {
            /* At most six bytes of it; the quote that ends the string may be one. */
            AUTOFREE char *what = mem_printf("%.*s is not a valid Unicode character",
                                             (int)MIN(6, end + 1 - escape), escape);

            fault(r, what);
            return false;
        }
        *out = encode(*out, cp);
        return true;
    }
    if (!code) {
        fault(r, "invalid escape sequence in string");
        return false;
    }
    *(*out)++ = meanings[code - codes];
    *s += 2;
    return true;
}

static json_t *read_string(struct reading *r, const struct token *token)
{
    const char *s = r->p->text + token->start + 1, *end = s + token->len - 2;
    AUTOFREE char *buf = mem_alloc(token->len + 1); /* nothing grows: \u1234 makes 3 bytes */
    char *out = buf;

    while (s < end) {
        const char *from = s;

        if (*s == '\\') {
            if (!read_escape(r, &s, end, &out)) {
                return NULL;
            }
        } else {
            if (!is_character(text_utf8_take(&s, end))) {
                return fault(r, "invalid UTF-8 sequence in string");
            }
            memcpy(out, from, s - from);
            out += s - from;
        }
    }
    return json_stringn_nocheck(buf, out - buf);
}

static json_t *read_number(struct reading *r, const struct token *token)
{
    AUTOFREE char *text = mem_strndup(r->p->text + token->start, token->len);
    double real;

    if (token->kind == TOKEN_INTEGER) {
        long long value;

        errno = 0;
        value = strtoll(text, NULL, 10);
        if (!errno) {
            return json_integer(value);
        }
    }
    real = strtod(text, NULL);
    /* QEMU keeps an infinity and prints `inf`, which no client can read. */
    return json_real(isfinite(real) ? real : copysign(DBL_MAX, real));
}

static json_t *read_keyword(struct reading *r, const struct token *token)
{
    AUTOFREE char *word = mem_strndup(r->p->text + token->start, token->len);
    AUTOFREE char *what = NULL;

    if (!strcmp(word, "true")) {
        return json_true();
    }
    if (!strcmp(word, "false")) {
        return json_false();
    }
    if (!strcmp(word, "null")) {
        return json_null();
    }
    what = mem_printf("invalid keyword '%s'", word);
    return fault(r, what);
}

static json_t *read_value(struct reading *r);

/* Behind a member: true when there is another; false at the end or, with err set, when there should
 * be a comma. */
static bool another_member(struct reading *r, char close, const char *what)
{
    const struct token *token = take(r);

    if (is_structure(r, token, ',')) {
        return true;
    }
    if (!is_structure(r, token, close)) {
        fault(r, what);
    }
    return false;
}

static bool read_pair(struct reading *r, json_t *object)
{
    json_t *key = read_value(r), *value = NULL;

    if (key && json_typeof(key) != JSON_STRING) {
        fault(r, "key is not a string in object");
    } else if (key && !is_structure(r, take(r), ':')) {
        fault(r, "missing : in object pair");
    } else if (key) {
        value = read_value(r);
    }
    if (value && json_object_get(object, json_string_value(key))) {
        fault(r, "duplicate key");
        json_decref(value);
        value = NULL;
    }
    if (value) {
        json_object_set_new_nocheck(object, json_string_value(key), value);
    }
    json_decref(key);
    return value;
}

static json_t *read_object(struct reading *r)
{
    json_t *object = json_object();

    if (next_is(r, '}')) {
        take(r);
        return object;
    }
    while (read_pair(r, object) && another_member(r, '}', "expected separator in dict")) {
    }
    if (error_is_set(r->err)) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *read_array(struct reading *r)
{
    json_t *array = json_array();

    if (next_is(r, ']')) {
        take(r);
        return array;
    }
    do {
        json_t *value = read_value(r);

        if (!value) {
            break;
        }
        json_array_append_new(array, value);
    } while (another_member(r, ']', "expected separator in list"));
    if (error_is_set(r->err)) {
        json_decref(array);
        return NULL;
    }
    return array;
}

static json_t *read_value(struct reading *r)
{
    const struct token *token = take(r);

    switch (token->kind) {
    case TOKEN_STRING:
        return read_string(r, token);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        return read_number(r, token);
    case TOKEN_KEYWORD:
        return read_keyword(r, token);
    default:
        if (is_structure(r, token, '{')) {
            return read_object(r);
        }
        return is_structure(r, token, '[') ? read_array(r) : fault(r, "expecting value");
    }
}

/* --- Tokens out of bytes ---------------------------------------------------------------------- */

static void keep(struct json_parser *p, char c)
{
    if (p->len + 1 >= p->size) {
        p->size = p->size ? 2 * p->size : 256;
        p->text = mem_realloc(p->text, p->size);
    }
    p->text[p->len++] = c;
    p->text[p->len] = '\0';
}

/* Forget this value; what a rare big one took is given back. */
static void begin_value(struct json_parser *p)
{
    if (p->size > 65536 || p->room > 4096) {
        free(p->text);
        free(p->tokens);
        p->text = NULL;
        p->tokens = NULL;
        p->size = p->room = 0;
    }
    p->len = p->token_start = p->count = 0;
    p->braces = p->brackets = 0;
}

static void end_token(struct json_parser *p, enum token_kind kind)
{
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : 32;
        p->tokens = mem_reallocarray(p->tokens, p->room, sizeof(*p->tokens));
    }
    p->tokens[p->count++] = (struct token){ kind, p->token_start, p->len - p->token_start };
    p->token_start = p->len;
    p->state = AT_START;
}

static bool is_structural(char c)
{
    return c && strchr("{}[],:", c);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return c >= 'a' && c <= 'z';
}

/* May this byte stand in a string? */
static bool string_byte(unsigned char c)
{
    return c >= 0x20 && c < 0xfe;
}

enum step {
    STEP_TAKEN,  /* the byte belongs to the token */
    STEP_PASSED, /* the byte belongs to nothing */
    STEP_BEFORE, /* the token ended before the byte, which is still to be looked at */
    STEP_LAST,   /* the token ends with the byte */
    STEP_WRONG,
};

static enum step step_start(struct json_parser *p, char c)
{
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        return STEP_PASSED;
    }
    if (is_structural(c)) {
        return STEP_LAST;
    }
    if (c == '"' || c == '\'') {
        p->quote = c;
        p->state = IN_STRING;
    } else if (c == '-') {
        p->state = AFTER_MINUS;
    } else if (is_digit(c)) {
        p->state = c == '0' ? AFTER_ZERO : IN_INTEGER;
    } else if (is_letter(c)) {
        p->state = IN_KEYWORD;
    } else {
        return STEP_WRONG;
    }
    return STEP_TAKEN;
}

/* Take the byte and go on to `state` where `fits`. */
static enum step step_to(struct json_parser *p, bool fits, enum state state, enum step otherwise)
{
    if (!fits) {
        return otherwise;
    }
    p->state = state;
    return STEP_TAKEN;
}

static enum step step_string(struct json_parser *p, char c)
{
    if (!string_byte(c)) {
        return STEP_WRONG;
    }
    if (p->state == IN_ESCAPE) {
        p->state = IN_STRING;
        return STEP_TAKEN;
    }
    if (c == p->quote) {
        return STEP_LAST;
    }
    p->state = c == '\\' ? IN_ESCAPE : IN_STRING;
    return STEP_TAKEN;
}

static enum step step_number(struct json_parser *p, char c)
{
    bool exponent = c == 'e' || c == 'E';

    switch (p->state) {
    case AFTER_MINUS:
        return step_to(p, is_digit(c), c == '0' ? AFTER_ZERO : IN_INTEGER, STEP_WRONG);
    case AFTER_ZERO:
    case IN_INTEGER:
        if (is_digit(c)) {
            return p->state == AFTER_ZERO ? STEP_WRONG : STEP_TAKEN;
        }
        return exponent ? step_to(p, true, AFTER_E, STEP_BEFORE)
                        : step_to(p, c == '.', AFTER_POINT, STEP_BEFORE);
    case AFTER_POINT:
        return step_to(p, is_digit(c), IN_FRACTION, STEP_WRONG);
    case IN_FRACTION:
        return is_digit(c) ? STEP_TAKEN : step_to(p, exponent, AFTER_E, STEP_BEFORE);
    case AFTER_E:
        return c == '+' || c == '-' ? step_to(p, true, AFTER_E_SIGN, STEP_WRONG)
                                    : step_to(p, is_digit(c), IN_EXPONENT, STEP_WRONG);
    case AFTER_E_SIGN:
        return step_to(p, is_digit(c), IN_EXPONENT, STEP_WRONG);
    default:
        return is_digit(c) ? STEP_TAKEN : STEP_BEFORE;
    }
}

static enum step step(struct json_parser *p, char c)
{
    switch (p->state) {
    case AT_START:
        return step_start(p, c);
    case IN_RECOVERY:
        if (is_structural(c) || (c != '\t' && !string_byte(c))) {
            p->state = AT_START;
            return STEP_BEFORE;
        }
        return STEP_PASSED;
    case IN_STRING:
    case IN_ESCAPE:
        return step_string(p, c);
    case IN_KEYWORD:
        return is_letter(c) ? STEP_TAKEN : STEP_BEFORE;
    default:
        return step_number(p, c);
    }
}

static enum token_kind kind_of(enum state state)
{
    switch (state) {
    case IN_STRING:
        return TOKEN_STRING;
    case IN_KEYWORD:
        return TOKEN_KEYWORD;
    case AFTER_ZERO:
    case IN_INTEGER:
        return TOKEN_INTEGER;
    case IN_FRACTION:
    case IN_EXPONENT:
        return TOKEN_FLOAT;
    default:
        return TOKEN_STRUCTURE;
    }
}

/* A token has been added.  True: the value is over, well (*value) or not (err). */
static bool value_over(struct json_parser *p, json_t **value, struct error *err)
{
    const struct token *last = &p->tokens[p->count - 1];
    struct reading r = { .p = p, .err = err };
    char c = last->kind == TOKEN_STRUCTURE ? p->text[last->start] : 0;

    p->braces += (c == '{') - (c == '}');
    p->brackets += (c == '[') - (c == ']');
    if (p->braces + p->brackets > DEPTH_MAX) {
        error_set(err, "JSON nesting depth limit exceeded");
    } else if (p->count > TOKENS_MAX) {
        error_set(err, "JSON token count limit exceeded");
    } else if (p->braces >= 0 && p->brackets >= 0 && p->braces + p->brackets > 0) {
        return false;
    } else {
        *value = read_value(&r);
    }
    begin_value(p);
    return true;
}

static bool give_up(struct json_parser *p)
{
    begin_value(p);
    p->state = IN_RECOVERY;
    return true;
}

bool json_parser_next(struct json_parser *p, const char **data, size_t *len, json_t **value,
                     struct error *err)
{
    *value = NULL;
    while (*len) {
        char c = **data;
        enum state before = p->state;
        enum step how = step(p, c);

        if (how != STEP_BEFORE) {
            (*data)++;
            (*len)--;
        }
        if (how == STEP_TAKEN || how == STEP_LAST || how == STEP_WRONG) {
            keep(p, c);
        }
        if (how == STEP_WRONG) {
            error_set(err, "JSON parse error, stray '%s'", p->text + p->token_start);
            return give_up(p);
        }
        if (p->len > TEXT_MAX) {
            error_set(err, "JSON token size limit exceeded");
            return give_up(p);
        }
        if (how == STEP_LAST || (how == STEP_BEFORE && before != IN_RECOVERY)) {
            end_token(p, kind_of(before));
            if (value_over(p, value, err)) {
                return true;
            }
        }
    }
    return false;
}

json_t *json_parse_text(const char *text, struct error *err)
{
    struct json_parser *p = json_parser_new();
    bool empty = !text[strspn(text, " \t\r\n")];
    size_t len = strlen(text), end = 1;
    const char *line_end = "\n"; /* a number ends where something else begins */
    json_t *value = NULL;
    bool whole = json_parser_next(p, &text, &len, &value, err) || json_parser_next(p, &line_end, &end, &value, err);

    json_parser_free(p);
    if (!whole) {
        error_set(err, empty ? "Expecting a JSON value" : "JSON parse error, premature EOI");
    } else if (value && text[strspn(text, " \t\r\n")]) {
        error_set(err, "Expecting at most one JSON value");
        json_decref(value);
        value = NULL;
    }
    return value;
}
