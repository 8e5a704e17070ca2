/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules read from text and options: see blkdebug-config.h.
 *
 * Both become an object of members first ("event": "l2_update"), and rules are made from that in one place.
 */
#include "block/blkdebug-config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io.h"
#include "core/keyval.h"
#include "core/mem.h"

#define SECTION_MAX 63 /* QEMU's lengths of names and values */
#define VALUE_MAX 1023

#define NODE_EVENT_NAME(id, name) name,
static const char *const event_names[] = { NODE_EVENTS(NODE_EVENT_NAME) NULL };
static const char *const iotype_names[] = { "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL };

#define EVENT_KEY { .name = "event", .kind = KEY_ENUM, .required = true, .choices = event_names, .help = "when" }
#define STATE_KEY { .name = "state", .kind = KEY_INT, .help = "only in this state; 0: in each" }
const struct block_key blkdebug_inject_keys[] = {
    EVENT_KEY,
    STATE_KEY,
    { .name = "iotype", .kind = KEY_ENUM, .choices = iotype_names, .help = "only requests of this kind" },
    { .name = "errno", .kind = KEY_INT, .help = "the error's number; 5 (EIO) unless given" },
    { .name = "sector", .kind = KEY_INT, .help = "only requests that touch it; in 512 bytes of the image" },
    { .name = "once", .kind = KEY_BOOL, .help = "the first such request only" },
    { .name = "immediately", .kind = KEY_BOOL, .help = "fail before the request would have waited" },
    { 0 },
};
const struct block_key blkdebug_set_keys[] = {
    EVENT_KEY,
    STATE_KEY,
    { .name = "new_state", .kind = KEY_INT, .required = true, .help = "the state from then on" },
    { 0 },
};

static const char *section_name(bool sets_state)
{
    return sets_state ? "set-state" : "inject-error";
}

static bool has_member(bool sets_state, const char *name)
{
    const struct block_key *key = sets_state ? blkdebug_set_keys : blkdebug_inject_keys;

    while (key->name && strcmp(key->name, name) != 0) {
        key++;
    }
    return key->name;
}

/* --- One rule ------------------------------------------------------------------------------------- */

static int take_number(json_t *members, const char *name, int64_t *out, struct error *err)
{
    json_t *value = json_object_get(members, name);
    const char *text = json_string_value(value);
    char *end;

    if (text) {
        errno = 0;
        *out = strtoll(text, &end, 0);
        if (!*text || *end || errno) {
            error_set(err, "Parameter '%s' expects a number", name);
            return -EINVAL;
        }
    } else if (value) {
        *out = json_integer_value(value);
    }
    return 0;
}

static int take_switch(json_t *members, const char *name, bool *out, struct error *err)
{
    json_t *value = json_object_get(members, name);
    const char *text = json_string_value(value);

    if (text && keyval_switch(text, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", name);
        return -EINVAL;
    }
    *out = text ? *out : json_is_true(value);
    return 0;
}

static int take_word(json_t *members, const char *name, const char *const *words, int *out, struct error *err)
{
    const char *text = json_string_value(json_object_get(members, name));

    for (int i = 0; text && words[i]; i++) {
        if (!strcmp(words[i], text)) {
            *out = i;
            return 0;
        }
    }
    if (text) {
        error_set(err, "invalid parameter value: %s", text);
    }
    return text ? -EINVAL : 0;
}

static int take_injection(struct blkdebug_rule *rule, json_t *members, struct error *err)
{
    int64_t error = EIO, sector = -1;
    int iotype = -1;

    if (take_number(members, "errno", &error, err) < 0 || take_number(members, "sector", &sector, err) < 0 ||
        take_switch(members, "once", &rule->once, err) < 0 ||
        take_switch(members, "immediately", &rule->immediately, err) < 0 ||
        take_word(members, "iotype", iotype_names, &iotype, err) < 0) {
        return -EINVAL;
    }
    rule->error = error;
    rule->offset = sector == -1 ? -1 : sector * NODE_SECTOR;
    rule->iotypes = iotype >= 0 ? 1u << iotype : (1u << BLKDEBUG_BLOCK_STATUS) - 1; /* all but that one */
    return 0;
}

static int add_rule(struct blkdebug_rules *rules, bool sets_state, json_t *members, struct error *err)
{
    struct blkdebug_rule *rule = mem_zalloc(sizeof(*rule));
    int64_t state = 0, new_state = 0;
    int event = -1, ret;

    rule->sets_state = sets_state;
    ret = take_word(members, "event", event_names, &event, err);
    if (ret == 0 && event < 0) {
        error_set(err, "Missing event name for rule");
        ret = -EINVAL;
    }
    ret = ret ? ret : take_number(members, "state", &state, err);
    ret = ret ? ret : sets_state ? take_number(members, "new_state", &new_state, err) : take_injection(rule, members, err);
    if (ret < 0) {
        free(rule);
        return ret;
    }
    rule->event = event;
    rule->state = state;
    rule->new_state = new_state;
    TAILQ_INSERT_TAIL(rules, rule, link);
    return 0;
}

void blkdebug_rule_free(struct blkdebug_rules *rules, struct blkdebug_rule *rule)
{
    TAILQ_REMOVE(rules, rule, link);
    free(rule);
}

/* --- A file ------------------------------------------------------------------------------------------ */

struct section {
    json_t *members; /* NULL: before the first one */
    bool sets_state;
};

static int end_section(struct section *s, struct blkdebug_rules *rules, struct error *err)
{
    int ret = s->members ? add_rule(rules, s->sets_state, s->members, err) : 0;

    json_decref(s->members);
    s->members = NULL;
    return ret;
}

/* [name], [name "id"]; what follows is not looked at. */
static int begin_section(struct section *s, const char *line, struct error *err)
{
    size_t len = strcspn(line + 1, "]"), word = strcspn(line + 1, " \t]\"");

    len = word < len && strchr(line + 1 + word, '"') ? word : len;
    for (int sets_state = 0; sets_state < 2; sets_state++) {
        const char *name = section_name(sets_state);

        if (len == strlen(name) && !memcmp(name, line + 1, len)) {
            *s = (struct section){ .members = json_object(), .sets_state = sets_state };
            return 0;
        }
    }
    error_set(err, "There is no option group '%.*s'", (int)MIN(len, (size_t)SECTION_MAX), line + 1);
    return -EINVAL;
}

/* key = "value"; a value that is not so written is none. */
static int take_member(struct section *s, const char *line, struct error *err)
{
    size_t len = strcspn(line, " \t\r"), value_len;
    AUTOFREE char *name = mem_printf("%.*s", (int)MIN(len, (size_t)SECTION_MAX), line), *value = NULL;
    const char *at = line + len;

    at += strspn(at, " \t");
    at += *at == '=';
    at += strspn(at, " \t");
    value_len = *at == '"' && at[-1] != '"' ? strcspn(at + 1, "\"") : 0;
    value = mem_printf("%.*s", (int)MIN(value_len, (size_t)VALUE_MAX), at + (value_len > 0));
    if (!s->members) {
        error_set(err, "no group defined");
        return -EINVAL;
    }
    if (!has_member(s->sets_state, name)) {
        error_set(err, "Invalid parameter '%s'", name);
        return -EINVAL;
    }
    json_object_set_new(s->members, name, json_string(value) ?: json_string("?"));
    return 0;
}

static int parse_line(struct section *s, struct blkdebug_rules *rules, const char *line, struct error *err)
{
    line += strspn(line, " \t\r");
    if (!*line || *line == '#') {
        return 0;
    }
    if (*line == '[') {
        int ret = end_section(s, rules, err);

        return ret ? ret : begin_section(s, line, err);
    }
    return take_member(s, line, err);
}

int blkdebug_parse(struct blkdebug_rules *rules, char *text, struct error *err)
{
    struct section s = { .members = NULL };
    int ret = 0;

    for (char *line = text, *next; *line && ret == 0; line = next) {
        size_t len = strcspn(line, "\n");

        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        ret = parse_line(&s, rules, line, err);
    }
    if (ret == 0) {
        ret = end_section(&s, rules, err);
    }
    json_decref(s.members);
    return ret;
}

int co_blkdebug_load(struct blkdebug_rules *rules, const char *path, struct error *err)
{
    AUTOFREE char *text = NULL;
    size_t len;
    int ret = co_io_load(path, &text, &len);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not read blkdebug config file");
        return ret;
    }
    return blkdebug_parse(rules, text, err);
}

/* --- Options -------------------------------------------------------------------------------------------- */

static int option_rule(struct blkdebug_rules *rules, bool sets_state, json_t *members, struct error *err)
{
    const char *name;
    json_t *value;

    json_object_foreach(members, name, value) {
        if (!has_member(sets_state, name)) {
            error_set(err, "[%s] section doesn't support the option '%s'", section_name(sets_state), name);
            return -EINVAL;
        }
    }
    return add_rule(rules, sets_state, members, err);
}

/* {"0": {...}, "1": {...}}; or the members of one rule.  What does not count on from 0 is left, for whoever refuses
 * unknown options. */
static int numbered_rules(struct blkdebug_rules *rules, bool sets_state, json_t *list, struct error *err)
{
    char number[24] = "0";
    json_t *rule;
    int ret = 0;

    if (!json_object_get(list, "0")) {
        ret = option_rule(rules, sets_state, list, err);
        json_object_clear(list);
        return ret;
    }
    for (unsigned i = 0; ret == 0 && (rule = json_object_get(list, number)); i++) {
        if (!json_is_object(rule)) {
            error_set(err, "[%s] section (index %u) does not consist of keys", section_name(sets_state), i);
            return -EINVAL;
        }
        ret = option_rule(rules, sets_state, rule, err);
        json_object_del(list, number);
        snprintf(number, sizeof(number), "%u", i + 1);
    }
    return ret;
}

int blkdebug_take_options(struct blkdebug_rules *rules, struct node *node, struct error *err)
{
    int ret = 0;

    for (int sets_state = 0; sets_state < 2 && ret == 0; sets_state++) {
        const char *key = section_name(sets_state);
        json_t *value = json_object_get(node->options, key), *rest, *rule;
        size_t i;

        json_object_del(node->unused, key);
        json_array_foreach(value, i, rule) {
            ret = ret ? ret : option_rule(rules, sets_state, rule, err);
        }
        if (json_is_object(value)) {
            rest = json_copy(value);
            ret = numbered_rules(rules, sets_state, rest, err);
            if (json_object_size(rest)) {
                json_object_set(node->unused, key, rest);
            }
            json_decref(rest);
        }
    }
    return ret;
}
