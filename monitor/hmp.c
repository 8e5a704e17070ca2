/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor: from a line to a command with JSON arguments, and from its result to text.
 *
 * Lines are read as QEMU's monitor reads them, strange corners included (`1z` is the size 1 and the word z; flags stand
 * in front, in the order of the row).  Ours is: -json behind any info command, and an image's name where block_stream
 * expects a speed.
 */
#include "monitor/hmp.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "core/size.h"
#include "core/trace.h"
#include "monitor/chain-names.h"
#include "monitor/expression.h"
#include "monitor/hints.h"
#include "monitor/members.h"

static const char *skip_blanks(const char *p)
{
    while (isspace((unsigned char)*p)) {
        p++;
    }
    return p;
}

/* --- Words ----------------------------------------------------------------------------------------------------------- */

static char *quoted_word(const char **p, char **why)
{
    static const char codes[] = "nr\\'\"", meanings[] = "\n\r\\'\"";
    char *out = mem_alloc(strlen(*p) + 1), *q = out;
    const char *s = *p + 1;

    for (; *s && *s != '"'; s++) {
        if (*s == '\\') {
            const char *code = s[1] ? strchr(codes, s[1]) : NULL;

            if (!code && s[1]) {
                *why = mem_printf("unsupported escape code: '\\%c'", s[1]);
                goto wrong;
            }
            if (!code) {
                break;
            }
            *q++ = meanings[code - codes];
            s++;
        } else {
            *q++ = *s;
        }
    }
    if (*s != '"') {
        *why = mem_strdup("unterminated string");
        goto wrong;
    }
    *q = '\0';
    *p = s + 1;
    return out;
wrong:
    free(out);
    return NULL;
}

char *hmp_word(const char **p, char **why)
{
    char *ignored = NULL, *word;
    const char *start = skip_blanks(*p), *end = start;

    *p = start;
    if (*start == '"') {
        word = quoted_word(p, why ? why : &ignored);
        free(ignored);
        return word;
    }
    while (*end && !isspace((unsigned char)*end)) {
        end++;
    }
    *p = end;
    return end > start ? mem_strndup(start, end - start) : NULL;
}

char *hmp_quote(const char *word)
{
    char *out = mem_alloc(2 * strlen(word) + 3), *q = out;

    if (*word && *word != '"' && !word[strcspn(word, " \t\r\n")]) {
        strcpy(out, word);
        return out;
    }
    *q++ = '"';
    for (; *word; word++) {
        if (strchr("\"\\\n\r", *word)) {
            *q++ = '\\';
        }
        *q++ = *word == '\n' ? 'n' : *word == '\r' ? 'r' : *word;
    }
    strcpy(q, "\"");
    return out;
}

/* --- Sizes ------------------------------------------------------------------------------------------------------------- */

static bool suffix_factor(char c, uint64_t *factor)
{
    static const char suffixes[] = "bkmgtpe";
    const char *at = c ? strchr(suffixes, tolower((unsigned char)c)) : NULL;

    if (at) {
        *factor = 1ULL << (10 * (at - suffixes));
    }
    return at;
}

int hmp_size(const char **p, uint64_t unit, uint64_t *out)
{
    const char *s = skip_blanks(*p), *start, *end;
    uint64_t factor = unit;
    bool fraction = false;

    s += *s == '+';
    if (!isdigit((unsigned char)*s)) {
        return -EINVAL;
    }
    start = end = s;
    if (s[0] == '0' && tolower((unsigned char)s[1]) == 'x' && isxdigit((unsigned char)s[2])) {
        for (end += 2; isxdigit((unsigned char)*end); end++) {
        }
        if (*end == '.') {
            return -EINVAL; /* a fraction in base 16 is nobody's size */
        }
    } else {
        end += strspn(end, "0123456789");
        if (*end == '.') {
            fraction = true;
            end += 1 + strspn(end + 1, "0123456789");
            /* 1.5e3 has an exponent, and that is refused; 1e3 is 1e and then a word 3. */
            if (tolower((unsigned char)*end) == 'e' && isdigit((unsigned char)end[1 + (end[1] == '-' || end[1] == '+')])) {
                return -EINVAL;
            }
        }
    }
    AUTOFREE char *number = mem_strndup(start, end - start);

    end += suffix_factor(*end, &factor);
    if (fraction && factor == 1) {
        return -EINVAL;
    }
    if (size_parse(number, factor, out, NULL) || *out > INT64_MAX) {
        return -EINVAL;
    }
    *p = end;
    return 0;
}

/* --- Arguments ----------------------------------------------------------------------------------------------------------- */

/* A line being read. */
struct reading {
    struct monitor *mon;
    const struct command *cmd;
    const char *typed;  /* the command as it was typed: "info  block" */
    size_t typed_len;
    const char *p;
    const char *word;   /* where the argument being read begins */
    json_t *args;
    struct error *err;
};

static int refuse(struct reading *r, const char *text)
{
    error_set(r->err, "%s\nTry \"help %.*s\" for more information", text, (int)r->typed_len, r->typed);
    return -EINVAL;
}

static int refuse_named(struct reading *r, const char *what)
{
    AUTOFREE char *text = mem_printf("%s: %s", r->cmd->name, what);

    return refuse(r, text);
}

static const char *expected(enum arg_kind kind)
{
    switch (kind) {
    case ARG_DEVICE:
    case ARG_DEVICE_OR_NODE:
    case ARG_GUEST:
    case ARG_JOB:
        return "block device name expected";
    case ARG_FILE:
        return "filename expected";
    default:
        return "string expected";
    }
}

static int read_string(struct reading *r, const struct command_arg *arg)
{
    char *why = NULL;
    AUTOFREE char *word = hmp_word(&r->p, &why);
    AUTOFREE char *reason = why;

    if (!word) {
        int ret = refuse_named(r, expected(arg->kind));

        if (reason) {
            error_hint(r->err, "%s", reason);
        }
        return ret;
    }
    member_set_text(r->args, arg->name, word);
    return 0;
}

static bool letter_known(const struct reading *r, char letter)
{
    for (const struct command_arg *arg = r->cmd->args; arg->name; arg++) {
        if (letter && arg->letter == letter && !(arg->ours && r->mon->compat)) {
            return true;
        }
    }
    return false;
}

static int read_time(struct reading *r, const struct command_arg *arg)
{
    AUTOFREE char *word = hmp_word(&r->p, NULL);
    uint64_t ns;

    if (!word || time_parse(word, &ns) < 0 || ns > INT64_MAX) {
        int ret = refuse_named(r, "time expected");

        error_hint(r->err, "For example 2ms, 500us or 0.");
        return ret;
    }
    json_object_set_new(r->args, arg->name, json_integer(ns));
    return 0;
}

static int read_flag(struct reading *r, const struct command_arg *arg)
{
    if (r->p[0] != '-') {
        return 0;
    }
    if (r->p[1] == arg->letter) {
        r->p += 2;
        if (arg->kind == ARG_TIME) {
            r->p = skip_blanks(r->p);
            return read_time(r, arg);
        }
        json_object_set_new(r->args, arg->name, json_true());
        return 0;
    }
    if (letter_known(r, r->p[1])) {
        return 0; /* a later one, or one too late: then it is read as a word */
    }
    AUTOFREE char *text = mem_printf("%s: unsupported option -%c", r->cmd->name, r->p[1] ? r->p[1] : '?');

    if (!r->p[1]) { /* QEMU prints no newline here */
        error_set(r->err, "%s: unsupported option -Try \"help %.*s\" for more information", r->cmd->name,
                  (int)r->typed_len, r->typed);
        return -EINVAL;
    }
    return refuse(r, text);
}

static int read_bool(struct reading *r, const struct command_arg *arg)
{
    AUTOFREE char *word = hmp_word(&r->p, NULL);

    if (word && !strcmp(word, "on")) {
        json_object_set_new(r->args, arg->name, json_true());
    } else if (word && !strcmp(word, "off")) {
        json_object_set_new(r->args, arg->name, json_false());
    } else {
        return refuse(r, "Expected 'on' or 'off'");
    }
    return 0;
}

static int read_int(struct reading *r, const struct command_arg *arg)
{
    int64_t value;
    AUTOFREE char *wrong = expression_read(&r->p, &value);

    if (wrong) {
        return refuse(r, wrong);
    }
    json_object_set_new(r->args, arg->name, json_integer(value));
    return 0;
}

/* A size in whose place the name of an image may stand.  Behind a device always. */
static bool takes_base(const struct command_arg *arg)
{
    return arg->kind == ARG_SIZE && arg[1].kind == ARG_BASE;
}

/* A word that is no size as a whole, but names an image of the chain: the base in the place of the speed. */
static bool read_base_for_size(struct reading *r, const struct command_arg *size, const struct command_arg *base)
{
    const char *p = r->p, *rest = r->p;
    struct node *top = disk_or_node(member_text(r->args, "device"), NULL);
    AUTOFREE char *word = hmp_word(&rest, NULL);
    uint64_t value;
    struct error err = ERROR_INIT;
    bool found;

    if (!word || !top || (!hmp_size(&p, size->unit, &value) && p == rest)) {
        return false;
    }
    /* An ambiguous name is a name: whoever takes the base will say between what it cannot decide. */
    found = chain_find_below(top, word, &err) || error_is_set(&err);
    error_clear(&err);
    if (found) {
        member_set_text(r->args, base->name, word);
        r->p = rest;
    }
    return found;
}

static int read_size(struct reading *r, const struct command_arg *arg)
{
    uint64_t value;

    if (!hmp_size(&r->p, arg->unit, &value)) {
        json_object_set_new(r->args, arg->name, json_integer(value));
        return 0;
    }
    refuse(r, "invalid size");
    if (takes_base(arg)) {
        hint_chain(r->err, member_text(r->args, "device"));
        error_hint(r->err, "It takes a speed (1M, 64k, 0 for no limit) or the name of an image of the chain.");
    }
    return -EINVAL;
}

static int read_rest(struct reading *r, const struct command_arg *arg)
{
    size_t len = strlen(r->p);

    while (len && isspace((unsigned char)r->p[len - 1])) {
        len--;
    }
    AUTOFREE char *text = mem_strndup(r->p, len);
    member_set_text(r->args, arg->name, text);
    r->p += strlen(r->p);
    return 0;
}

static int read_arg(struct reading *r, const struct command_arg *arg)
{
    if (arg->letter) {
        return read_flag(r, arg);
    }
    switch (arg->kind) {
    case ARG_TIME:
        return read_time(r, arg);
    case ARG_SIZE:
        return read_size(r, arg);
    case ARG_INT:
        return read_int(r, arg);
    case ARG_BOOL:
        return read_bool(r, arg);
    case ARG_REST:
    case ARG_COMMAND:
    case ARG_TOPIC:
        return *r->p ? read_rest(r, arg) : refuse_named(r, "string expected");
    default:
        return read_string(r, arg);
    }
}

static int read_args(struct reading *r)
{
    for (const struct command_arg *arg = r->cmd->args; arg->name; arg++) {
        bool base_may_come = takes_base(arg) && !r->mon->compat;
        int ret;

        if (arg->ours && r->mon->compat) {
            continue;
        }
        r->p = r->word = skip_blanks(r->p);
        if (arg->optional && !*r->p) {
            continue;
        }
        if (base_may_come && read_base_for_size(r, arg, arg + 1)) {
            arg++;
            continue;
        }
        ret = read_arg(r, arg);
        if (ret) {
            return ret;
        }
    }
    r->word = skip_blanks(r->p);
    if (*r->word) {
        return refuse_named(r, "extraneous characters at the end of line");
    }
    return 0;
}

/* --- Lines ------------------------------------------------------------------------------------------------------------------ */

/* The command's name at *p as one word; *p is set behind it. */
static char *command_word(const char **p)
{
    const char *start = skip_blanks(*p), *end = start;

    while (*end && !isspace((unsigned char)*end)) {
        end++;
    }
    *p = end;
    return mem_strndup(start, end - start);
}

/* Take the word -json out of what follows an info command; not from within quotes. */
static bool take_json_flag(char *text)
{
    static const char flag[] = "-json";
    bool quoted = false;

    for (char *p = text; *p; p++) {
        if (*p == '\\' && quoted && p[1]) {
            p++;
        } else if (*p == '"') {
            quoted = !quoted;
        } else if (!quoted && !strncmp(p, flag, strlen(flag)) && (p == text || isspace((unsigned char)p[-1])) &&
                   (!p[strlen(flag)] || isspace((unsigned char)p[strlen(flag)]))) {
            memset(p, ' ', strlen(flag));
            return true;
        }
    }
    return false;
}

static int unknown(struct monitor *mon, const char *line, const char *end, const struct command *const *tables,
                   const char *prefix, const char *word, struct error *err)
{
    static const char before[] = "unknown command: '";

    error_set(err, "%s%.*s'", before, (int)(end - line), line);
    hint_caret(err, mon, NULL, err->text, strlen(before) + (end - line) - strlen(word), strlen(word));
    hint_command(err, tables, prefix, word);
    return -ENOENT;
}

/* QEMU's line does not say which word it means: the line once more, and a caret below that word.  It stands in front of
 * what other hints there are. */
static void show_word(struct reading *r, const char *line, size_t at)
{
    struct error shown = ERROR_INIT;
    size_t len = strlen(line);

    while (len > at && isspace((unsigned char)line[len - 1])) {
        len--;
    }
    AUTOFREE char *typed = mem_strndup(line, len);

    error_set(&shown, "%s", r->err->text);
    at = MIN(at, len);
    hint_caret(&shown, r->mon, typed, typed, at, strcspn(typed + at, " \t"));
    if (r->err->hint) {
        error_hint(&shown, "%s", r->err->hint);
    }
    shown.class = r->err->class;
    error_clear(r->err);
    error_move(r->err, &shown);
}

int hmp_parse(struct monitor *mon, const char *line, struct hmp_call *call, struct error *err)
{
    struct reading r = { .mon = mon, .typed = line, .p = line, .args = json_object(), .err = err };
    const struct command *const *tables = hmp_command_tables;
    const char *prefix = "";
    AUTOFREE char *word = command_word(&r.p);
    AUTOFREE char *topic = NULL;
    AUTOFREE char *tail = NULL;
    int ret;

    *call = (struct hmp_call){ .args = r.args };
    if (!*word) {
        return 0;
    }
    r.cmd = command_find(tables, word, mon->compat);
    if (r.cmd && r.cmd->args[0].name && r.cmd->args[0].kind == ARG_TOPIC && *skip_blanks(r.p)) {
        tables = info_command_tables;
        prefix = "info ";
        topic = command_word(&r.p);
        r.cmd = command_find(tables, topic, mon->compat);
    }
    if (!r.cmd) {
        return unknown(mon, line, r.p, tables, prefix, topic ? topic : word, err);
    }
    r.typed_len = r.p - line;
    tail = mem_strdup(r.p);
    call->cmd = r.cmd;
    call->as_json = topic && !mon->compat && take_json_flag(tail);
    r.p = r.word = tail;
    ret = read_args(&r);
    if (ret) {
        show_word(&r, line, r.typed_len + (r.word - tail));
    }
    return ret;
}

void hmp_call_free(struct hmp_call *call)
{
    json_decref(call->args);
    call->args = NULL;
}

/* --- Running ------------------------------------------------------------------------------------------------------------------ */

/* As QEMU keeps it: a line that was there already moves to the end. */
static void remember(struct monitor *mon, const char *line)
{
    json_t *new = json_stringn_nocheck(line, strlen(line));

    if (!*skip_blanks(line)) {
        json_decref(new);
        return;
    }
    for (size_t i = json_array_size(mon->history); i > 0; i--) {
        if (json_equal(json_array_get(mon->history, i - 1), new)) {
            json_array_remove(mon->history, i - 1);
            break;
        }
    }
    json_array_append_new(mon->history, new);
}

static void show(struct monitor *mon, const struct hmp_call *call, const json_t *result)
{
    if (!result) {
        return;
    }
    if (call->as_json) {
        monitor_print_json(mon, result);
    } else if (call->cmd->print) {
        call->cmd->print(mon, call->args, result);
    }
}

int co_hmp_run(struct monitor *mon, const char *line)
{
    struct hmp_call call;
    struct error err = ERROR_INIT;
    json_t *result = NULL;
    int ret;

    trace(TRACE_HMP, "%s", line);
    remember(mon, line);
    mon->interrupted = mon->interrupted && mon->scripts; /* who interrupts a script means all of it */
    mon->last_outcome = OUTCOME_GOOD;
    ret = hmp_parse(mon, line, &call, &err);
    if (ret) {
        monitor_tone(mon, TONE_ERROR);
        monitor_printf(mon, "%s\n", err.text);
        monitor_tone(mon, TONE_PLAIN);
        monitor_hint(mon, &err);
    } else if (call.cmd) {
        ret = co_command_run(mon, call.cmd, call.args, &result, &err);
        show(mon, &call, result);
        if (error_is_set(&err)) {
            hint_arguments(&err, mon, call.cmd, call.args);
            monitor_error(mon, &err);
        }
    }
    if (ret && mon->last_outcome == OUTCOME_GOOD) {
        mon->last_outcome = OUTCOME_COMMAND;
    }
    mon->last_status = ret;
    monitor_free_json(result);
    error_clear(&err);
    hmp_call_free(&call);
    return ret;
}
