/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rows: looking them up, checking arguments against them, printing help from them.
 *
 * Both monitors meet here: HMP has turned words into JSON, QMP got JSON.  What is checked here is checked nowhere else,
 * so a handler may take the types of its arguments for granted.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "monitor/guards.h"
#include "monitor/monitor.h"
#include "monitor/qmp-text.h"

/* --- Look-up ---------------------------------------------------------------------------------------------------- */

bool command_is(const struct command *cmd, const char *word, size_t len)
{
    const char *name = cmd->name;

    for (;;) {
        size_t n = strcspn(name, "|");

        if (n == len && !strncmp(name, word, len)) {
            return true;
        }
        if (!name[n]) {
            return false;
        }
        name += n + 1;
    }
}

const struct command *command_find(const struct command *const *tables, const char *name, bool compat)
{
    size_t len = strlen(name);

    for (; *tables; tables++) {
        for (const struct command *cmd = *tables; cmd->name; cmd++) {
            if (command_is(cmd, name, len) && !(compat && (cmd->flags & COMMAND_OURS))) {
                return cmd;
            }
        }
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    const struct command *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

void command_each(const struct command *const *tables, bool compat,
                  void (*fn)(void *arg, const struct command *cmd), void *arg)
{
    AUTOFREE const struct command **rows = NULL;
    size_t n = 0;

    for (; *tables; tables++) {
        for (const struct command *cmd = *tables; cmd->name; cmd++) {
            if (!(compat && (cmd->flags & COMMAND_OURS))) {
                rows = mem_reallocarray(rows, n + 1, sizeof(*rows));
                rows[n++] = cmd;
            }
        }
    }
    if (n) {
        qsort(rows, n, sizeof(*rows), by_name);
    }
    for (size_t i = 0; i < n; i++) {
        fn(arg, rows[i]);
    }
}

void command_print_line(struct monitor *mon, const struct command *cmd, const char *prefix)
{
    monitor_printf(mon, "%s%s %s -- %s\n", prefix, cmd->name, cmd->params, cmd->help);
}

/* --- Arguments ----------------------------------------------------------------------------------------------------- */

static const char *kind_type(enum arg_kind kind)
{
    switch (kind) {
    case ARG_SIZE:
    case ARG_TIME:
    case ARG_INT:
        return "integer";
    case ARG_BOOL:
    case ARG_FLAG:
        return "boolean";
    case ARG_ANY:
    case ARG_TREE:
        return NULL;
    default:
        return "string";
    }
}

static bool has_type(const json_t *value, const char *type)
{
    if (!type) {
        return true;
    }
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        return type[0] == 'i';
    case JSON_TRUE:
    case JSON_FALSE:
        return type[0] == 'b';
    case JSON_STRING:
        return type[0] == 's';
    default:
        return false;
    }
}

static bool is_choice(const char *const *choices, const char *value)
{
    for (; *choices; choices++) {
        if (!strcmp(*choices, value)) {
            return true;
        }
    }
    return false;
}

static int check_arg(const struct command_arg *arg, json_t *args, struct error *err)
{
    const char *type = kind_type(arg->kind);
    const json_t *value = json_object_get(args, arg->name);

    if (!value) {
        if (!arg->optional && arg->kind != ARG_FLAG) {
            error_set(err, "Parameter '%s' is missing", arg->name);
            return -EINVAL;
        }
        return 0;
    }
    if (!has_type(value, type)) {
        error_set(err, "Invalid parameter type for '%s', expected: %s", arg->name, type);
        return -EINVAL;
    }
    if (arg->kind == ARG_ENUM && !is_choice(arg->choices, json_string_value(value))) {
        error_set(err, "Parameter '%s' does not accept value '%s'", arg->name, json_string_value(value));
        return -EINVAL;
    }
    if (arg->kind == ARG_TREE) {
        struct block_key key = *arg->tree;

        key.name = arg->name;
        return blockdev_check_member(args, &key, err);
    }
    return 0;
}

static const struct command_arg *arg_find(const struct command *cmd, const char *name)
{
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        if (!strcmp(arg->name, name)) {
            return arg;
        }
    }
    return NULL;
}

/* In the order of the row, then what the row does not know: the order in which QEMU finds fault. */
static int check_args(const struct command *cmd, json_t *args, bool compat, struct error *err)
{
    AUTOFREE const char **names = qmp_member_order(args);

    if (cmd->flags & COMMAND_FREE) {
        return 0;
    }
    if (cmd->whole) {
        return blockdev_check_object(args, false, cmd->whole, err);
    }
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        int ret = check_arg(arg, args, err);

        if (ret) {
            return ret;
        }
    }
    for (size_t i = 0; names[i]; i++) {
        const struct command_arg *arg = arg_find(cmd, names[i]);

        if (!arg || (arg->ours && compat)) {
            error_set(err, "Parameter '%s' is unexpected", names[i]);
            return -EINVAL;
        }
    }
    return 0;
}

static unsigned running; /* commands, those that a command runs included */

int co_command_run(struct monitor *mon, const struct command *cmd, json_t *args, json_t **result, struct error *err)
{
    json_t *given = args ? json_incref(args) : json_object();
    int ret = check_args(cmd, given, mon->compat, err);

    *result = NULL;
    if (!ret) {
        running++;
        ret = co_guards_look(mon, cmd, given, err);
        ret = ret ? ret : cmd->co_run(mon, given, result, err);
        running--;
        sandbox_explain(err);
    }
    assert(ret <= 0);
    assert(ret || !error_is_set(err));
    mon->last_status = ret;
    json_decref(given);
    return ret;
}

bool commands_running(void)
{
    return running > 0;
}
