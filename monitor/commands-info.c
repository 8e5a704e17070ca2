/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * help, info, info history; and the tables of the human monitor.
 *
 * `help` is made from the rows.  Under --qemu-compat it is QEMU's alphabetical list, else the same lines in groups.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "monitor/handlers.h"
#include "monitor/hints.h"
#include "monitor/hmp.h"
#include "monitor/members.h"

const struct command *const hmp_command_tables[] = {
    job_commands, block_commands, drive_commands, medium_commands, throttle_commands, hardware_commands, export_commands,
    guest_commands, script_commands, machine_commands,
    help_commands, terminal_commands, log_commands, NULL,
};
const struct command *const info_command_tables[] = {
    job_topics, block_topics, drive_topics, hardware_topics, log_topics, guest_topics, machine_topics, counter_topics, help_topics, NULL,
};

/* --- Lists ----------------------------------------------------------------------------------------------------------- */

struct listing {
    struct monitor *mon;
    const char *prefix;
    const char *group; /* of list_short() */
};

static void list_row(void *arg, const struct command *cmd)
{
    struct listing *l = arg;

    command_print_line(l->mon, cmd, l->prefix);
}

/* What a command does, in a few words: QEMU's text up to the first full stop, bracket or line about a flag, on one line; malloc'ed. */
static char *in_short(const char *help)
{
    char *out = mem_alloc(strlen(help) + 1), *q = out;

    for (const char *p = help; *p && *p != '.' && strncmp(p, " (", 2); p++) {
        bool blank = strchr(" \t\n", *p);

        if (*p == '\n' && p[strspn(p, " \t\n")] == '-') {
            break;
        }
        if (!blank || (q > out && q[-1] != ' ')) {
            *q++ = blank ? ' ' : *p;
        }
    }
    *q = '\0';
    return out;
}

/* "  block_stream         copy data from ...", cut to the terminal's width. */
static void list_short(void *arg, const struct command *cmd)
{
    struct listing *l = arg;
    unsigned width = l->mon->width ? l->mon->width(l->mon) : 0;
    AUTOFREE char *words = in_short(cmd->help), *line = mem_printf("  %-22s %s", cmd->name, words);

    if (strcmp(l->group, cmd->group)) {
        return;
    }
    if (width > 24 && strlen(line) > width) {
        strcpy(line + width - 3, "...");
    }
    monitor_printf(l->mon, "%s\n", line);
}

/* Has a table before this one brought its group? */
static bool is_listed(const struct command *const *table)
{
    for (const struct command *const *t = hmp_command_tables; t < table; t++) {
        if (!strcmp((*t)->group, (*table)->group)) {
            return true;
        }
    }
    return false;
}

static void list_groups(struct monitor *mon)
{
    for (const struct command *const *table = hmp_command_tables; *table; table++) {
        struct listing l = { .mon = mon, .prefix = "", .group = (*table)->group };

        if (is_listed(table)) {
            continue;
        }
        monitor_puts(mon, table == hmp_command_tables ? "" : "\n");
        monitor_tone(mon, TONE_HEAD);
        monitor_printf(mon, "%s:\n", l.group);
        monitor_tone(mon, TONE_PLAIN);
        command_each(hmp_command_tables, false, list_short, &l);
    }
    monitor_puts(mon, "\n'help COMMAND' tells more, 'help info' what there is to see.\n");
}

/* --- help ------------------------------------------------------------------------------------------------------------- */

/* Below QEMU's line: what the words mean, and how it looks. */
static void print_details(struct monitor *mon, const struct command *cmd)
{
    size_t widest = 2; /* a flag */

    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        widest = MAX(widest, strlen(arg->name));
    }
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        assert(arg->doc);
        if (arg->letter) {
            monitor_printf(mon, "  -%c%*s  %s\n", arg->letter, (int)widest - 2, "", arg->doc);
        } else {
            monitor_printf(mon, "  %-*s  %s\n", (int)widest, arg->name, arg->doc);
        }
    }
    for (const char *line = cmd->example; line && *line;) {
        size_t len = strcspn(line, "\n");

        monitor_printf(mon, "%s%.*s\n", line == cmd->example ? "Example: " : "         ", (int)len, line);
        line += len + (line[len] == '\n');
    }
}

static int help_unknown(struct monitor *mon, const char *text, const struct command *const *tables, const char *prefix,
                        const char *word)
{
    struct error err = ERROR_INIT;

    monitor_printf(mon, "unknown command: '%s'\n", text);
    error_set(&err, "%s", text);
    hint_command(&err, tables, prefix, word);
    monitor_hint(mon, &err);
    error_clear(&err);
    return -ENOENT;
}

static int help_topic(struct monitor *mon, const char *topic)
{
    struct listing l = { .mon = mon, .prefix = "info " };
    const struct command *cmd;

    if (!topic) {
        command_each(info_command_tables, mon->compat, list_row, &l);
        return 0;
    }
    cmd = command_find(info_command_tables, topic, mon->compat);
    if (!cmd) {
        AUTOFREE char *text = mem_printf("info %s", topic);

        return help_unknown(mon, text, info_command_tables, "info ", topic);
    }
    command_print_line(mon, cmd, "info ");
    if (!mon->compat) {
        print_details(mon, cmd);
    }
    return 0;
}

static int co_help(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *text = member_text(args, "name");
    AUTOFREE char *word = text ? hmp_word(&text, NULL) : NULL;
    AUTOFREE char *topic = word ? hmp_word(&text, NULL) : NULL;
    struct listing l = { .mon = mon, .prefix = "" };
    const struct command *cmd;

    if (!word) {
        if (mon->compat) {
            command_each(hmp_command_tables, true, list_row, &l);
        } else {
            list_groups(mon);
        }
        return 0;
    }
    cmd = command_find(hmp_command_tables, word, mon->compat);
    if (!cmd) {
        return help_unknown(mon, word, hmp_command_tables, "", word);
    }
    if (cmd->args[0].name && cmd->args[0].kind == ARG_TOPIC) {
        return help_topic(mon, topic);
    }
    command_print_line(mon, cmd, "");
    if (!mon->compat) {
        print_details(mon, cmd);
    }
    return 0;
}

/* `info` alone; with a topic, the topic's own row runs. */
static int co_info(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return help_topic(mon, NULL);
}

/* --- info history -------------------------------------------------------------------------------------------------------- */

static int co_info_history(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_copy(mon->history);
    return 0;
}

static void print_history(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *line;

    json_array_foreach(result, i, line) {
        monitor_printf(mon, "%zu: '%s'\n", i, json_string_value(line));
    }
}

/* --- Rows ------------------------------------------------------------------------------------------------------------------ */

const struct command help_commands[] = {
    {
        .name = "help|?",
        .args = { { "name", ARG_COMMAND, .optional = true, .doc = "a command; for info also a topic" } },
        .params = "[cmd]",
        .help = "show the help",
        .group = "Monitor",
        .example = "help block_stream\nhelp info chain",
        .co_run = co_help,
    },
    {
        .name = "info",
        .args = { { "topic", ARG_TOPIC, .optional = true, .doc = "what to show; -json behind it shows it as JSON" } },
        .params = "[subcommand]",
        .help = "show various information about the system state",
        .group = "Monitor",
        .co_run = co_info,
    },
    { 0 },
};

const struct command help_topics[] = {
    {
        .name = "history",
        .params = "",
        .help = "show the command line history",
        .group = "Monitor",
        .co_run = co_info_history,
        .print = print_history,
    },
    { 0 },
};
