/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP sessions: see qmp.h.
 *
 * A client that reads slowly is not served faster than it reads: its next command is taken when the
 * answer before has all but gone out.  Events cannot wait for it; they are kept, and when too many
 * are kept the connection is cut.  A client that is cut off knows that it has missed something; one
 * from which events were withheld would wait for them in vain.
 */
#include "monitor/qmp.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/trace.h"
#include "monitor/handlers.h"
#include "monitor/outcome.h"
#include "core/json-parse.h"
#include "monitor/qmp-text.h"

#define UNSENT_LOW (16u << 10) /* the next command is taken at that */
#define EVENTS_MAX (1u << 20)  /* bytes of events that a client may have left unread */

struct qmp_session {
    bool pretty;
    LIST_ENTRY(qmp_session) link;
    struct monitor mon;
    struct monitor *human; /* human-monitor-command is running here */
    struct conn *conn;
    struct json_parser *parser;
    bool negotiated;
    bool oob;           /* out-of-band execution was negotiated */
    size_t event_bytes; /* written since the client last had everything */
};
static LIST_HEAD(, qmp_session) sessions = LIST_HEAD_INITIALIZER(sessions);

/* --- Out -------------------------------------------------------------------------------------- */

static size_t send_line(struct qmp_session *s, const json_t *value)
{
    AUTOFREE char *text = s->pretty ? qmp_print_pretty(value) : qmp_print(value);
    size_t len = strlen(text);

    text = mem_realloc(text, len + 2);
    memcpy(text + len, "\r\n", 2);
    conn_write(s->conn, text, len + 2);
    return len + 2;
}

/* Takes over `value`, and `id` (NULL: there was none). */
static void send_answer(struct qmp_session *s, const char *key, json_t *value, json_t *id)
{
    json_t *answer = json_pack("{s:o}", key, value);

    if (id) {
        json_object_set_new(answer, "id", id);
    }
    send_line(s, answer);
    monitor_free_json(answer);
}

static json_t *error_tree(const struct error *err)
{
    json_t *tree = json_pack("{s:s}", "class", error_class_name(err->class));

    json_object_set_new_nocheck(tree, "desc", json_stringn_nocheck(err->text, strlen(err->text)));
    return tree;
}

void qmp_event(const char *name, json_t *data)
{
    uint64_t us = loop_wall_us();
    json_t *event =
        json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds", (json_int_t)(us / 1000000),
                  "microseconds", (json_int_t)(us % 1000000), "event", name);
    struct qmp_session *s;

    if (data) {
        json_object_set_new(event, "data", data);
    }
    LIST_FOREACH(s, &sessions, link) {
        if (!s->negotiated) {
            continue;
        }
        if (!conn_unsent(s->conn)) {
            s->event_bytes = 0;
        }
        s->event_bytes += send_line(s, event);
        if (s->event_bytes > EVENTS_MAX && conn_unsent(s->conn)) {
            conn_cut(s->conn);
        }
    }
    json_decref(event);
}

static void greet(struct qmp_session *s)
{
    json_t *greeting =
        json_pack("{s:{s:o, s:[s]}}", "QMP", "version", version_tree(), "capabilities", "oob");

    send_line(s, greeting);
    json_decref(greeting);
}

/* --- Commands about the session --------------------------------------------------------------- */

static struct qmp_session *session_of(struct monitor *mon)
{
    assert(mon->is_qmp);
    return CONTAINER_OF(mon, struct qmp_session, mon);
}

int qmp_negotiate(struct monitor *mon, const json_t *enable, struct error *err)
{
    struct qmp_session *s = session_of(mon);
    bool oob = false;
    json_t *name;
    size_t i;

    if (s->negotiated) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND,
                        "Capabilities negotiation is already complete, command ignored");
        return -EALREADY;
    }
    if (enable && json_typeof(enable) != JSON_ARRAY) {
        error_set(err, "Invalid parameter type for 'enable', expected: array");
        return -EINVAL;
    }
    json_array_foreach(enable, i, name) {
        if (json_typeof(name) != JSON_STRING) {
            error_set(err, "Invalid parameter type for 'enable[%zu]', expected: string", i);
            return -EINVAL;
        }
        if (strcmp(json_string_value(name), "oob")) {
            error_set(err, "Parameter 'null' does not accept value '%s'", json_string_value(name));
            return -EINVAL;
        }
        oob = true;
    }
    s->negotiated = true;
    s->oob = oob;
    return 0;
}

struct human {
    struct monitor mon;
    char *text;
    size_t len, size;
};

static void human_put(struct human *h, const char *bytes, size_t len)
{
    if (!h->text || h->len + len > h->size) {
        h->size = MAX(2 * h->size, h->len + len + 256);
        h->text = mem_realloc(h->text, h->size);
    }
    memcpy(h->text + h->len, bytes, len);
    h->len += len;
}

static void human_write(struct monitor *mon, const char *text, size_t len)
{
    struct human *h = CONTAINER_OF(mon, struct human, mon);

    for (const char *end = text + len; text < end;) {
        const char *newline = memchr(text, '\n', end - text), *stop = newline ? newline : end;

        human_put(h, text, stop - text);
        if (newline) {
            human_put(h, "\r\n", 2);
        }
        text = stop + !!newline;
    }
}

json_t *co_qmp_human(struct monitor *mon, const char *line)
{
    struct qmp_session *s = session_of(mon);
    struct human h = {
        .mon = { .name = "human-monitor-command", .compat = mon->compat, .write = human_write },
    };
    json_t *text;

    monitor_init(&h.mon);
    json_decref(h.mon.history); /* such lines leave no trace */
    h.mon.history = NULL;
    s->human = &h.mon;
    co_hmp_run(&h.mon, line);
    s->human = NULL;
    monitor_fini(&h.mon);
    text = json_stringn_nocheck(h.text ? h.text : "", h.len);
    free(h.text);
    return text;
}

/* --- In --------------------------------------------------------------------------------------- */

/* A request taken apart; nothing is owned. */
struct request {
    const char *verb; /* "execute" or "exec-oob" */
    const char *command;
    json_t *arguments, *id;
};

static int take_verb(struct request *r, const char *name, const json_t *value, struct error *err)
{
    if (json_typeof(value) != JSON_STRING) {
        error_set(err, "QMP input member '%s' must be a string", name);
        return -EINVAL;
    }
    if (r->verb) {
        error_set(err, "QMP input member '%s' clashes with '%s'", name, r->verb);
        return -EINVAL;
    }
    r->verb = name;
    r->command = json_string_value(value);
    return 0;
}

static int take_member(const struct qmp_session *s, struct request *r, const char *name,
                       json_t *value, struct error *err)
{
    if (!strcmp(name, "execute") || (!strcmp(name, "exec-oob") && s->oob)) {
        return take_verb(r, name, value, err);
    }
    if (!strcmp(name, "arguments")) {
        r->arguments = value;
        if (json_typeof(value) != JSON_OBJECT) {
            error_set(err, "QMP input member 'arguments' must be an object");
            return -EINVAL;
        }
    } else if (strcmp(name, "id")) {
        error_set(err, "QMP input member '%s' is unexpected", name);
        return -EINVAL;
    }
    return 0;
}

/* Faults are found in the order in which QEMU looks at members. */
static int parse_request(const struct qmp_session *s, const json_t *tree, struct request *r,
                         struct error *err)
{
    AUTOFREE const char **names = NULL;
    int ret = 0;

    *r = (struct request){ .id = json_object_get(tree, "id") };
    if (json_typeof(tree) != JSON_OBJECT) {
        error_set(err, "QMP input must be a JSON object");
        return -EINVAL;
    }
    names = qmp_member_order(tree);
    for (size_t i = 0; names[i] && !ret; i++) {
        ret = take_member(s, r, names[i], json_object_get(tree, names[i]), err);
    }
    if (!ret && !r->verb) {
        error_set(err, "QMP input lacks member 'execute'");
        ret = -EINVAL;
    }
    return ret;
}

static const struct command *find_command(const struct qmp_session *s, const struct request *r,
                                          struct error *err)
{
    const struct command *cmd = command_find(qmp_command_tables, r->command, s->mon.compat);

    if (!s->negotiated && !(cmd && cmd->flags & COMMAND_PRECONFIG)) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND,
                        "Expecting capabilities negotiation with 'qmp_capabilities'");
        return NULL;
    }
    if (!cmd) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND, "The command %s has not been found",
                        r->command);
        return NULL;
    }
    if (strcmp(r->verb, "execute")) {
        error_set(err, "The command %s does not support OOB", r->command);
        return NULL;
    }
    return cmd;
}

/* `tree` is the request, or NULL when it could not be read: then err says why. */
static void co_handle(struct qmp_session *s, json_t *tree, struct error *err)
{
    struct request r = { 0 };
    const struct command *cmd = NULL;
    json_t *result = NULL;

    if (tree && !parse_request(s, tree, &r, err)) {
        cmd = find_command(s, &r, err);
    }
    if (cmd) {
        trace(TRACE_QMP, "%s", cmd->name);
        co_command_run(&s->mon, cmd, r.arguments, &result, err);
        s->mon.interrupted = false;
        if (monitor_quit_requested()) {
            co_conn_wait_end(s->conn);
        }
    }
    json_incref(r.id);
    if (error_is_set(err)) {
        send_answer(s, "error", error_tree(err), r.id);
        monitor_free_json(result);
    } else {
        send_answer(s, "return", result ? result : json_object(), r.id);
    }
}

/* --- A session -------------------------------------------------------------------------------- */

static void say_nothing(struct monitor *mon, const char *text, size_t len)
{
}

static void client_gone(void *arg)
{
    struct qmp_session *s = arg;

    monitor_interrupt(&s->mon);
    if (s->human) {
        monitor_interrupt(s->human);
    }
}

static void co_take(struct qmp_session *s, const char *bytes, size_t len)
{
    struct error err = ERROR_INIT;
    json_t *value;

    while (!monitor_quit_requested() && json_parser_next(s->parser, &bytes, &len, &value, &err)) {
        co_handle(s, value, &err);
        json_decref(value);
        error_clear(&err);
        co_conn_drain(s->conn, UNSENT_LOW);
    }
}

void co_qmp_serve(struct conn *c, void *arg)
{
    struct qmp_session s = {
        .mon = { .is_qmp = true, .compat = ((struct monitor_style *)arg)->compat, .name = "qmp", .write = say_nothing },
        .conn = c,
        .parser = json_parser_new(),
        .pretty = ((struct monitor_style *)arg)->pretty,
    };
    char buf[4096];
    size_t n;

    monitor_init(&s.mon);
    LIST_INSERT_HEAD(&sessions, &s, link);
    conn_on_gone(c, client_gone, &s);
    greet(&s);
    while ((n = co_conn_read(c, buf, sizeof(buf)))) {
        co_take(&s, buf, n);
    }
    if (conn_is_stdio(c) && !monitor_quit_requested()) {
        co_outcome_wait_jobs(&s.mon);
        monitor_quit_request(-1);
        co_conn_wait_end(c);
    }
    conn_on_gone(c, NULL, NULL);
    LIST_REMOVE(&s, link);
    monitor_fini(&s.mon);
    json_parser_free(s.parser);
}
