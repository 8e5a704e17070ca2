/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about what the program tells of its doings: log, logfile, trace-event, info trace-events.
 *
 * QEMU's log items are mostly about its CPU.  There is none here, so they are known and do nothing; trace:PATTERN and
 * guest_errors switch trace events on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/process.h"
#include "core/trace.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

/* --- log ----------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *help;
    bool idle; /* means nothing here */
} items[] = {
    { "none", "switch all of them off", false },
    { "guest_errors", "what a guest asks a device for and cannot have", false },
    { "out_asm", "", true },
    { "in_asm", "", true },
    { "op", "", true },
    { "op_opt", "", true },
    { "op_ind", "", true },
    { "int", "", true },
    { "exec", "", true },
    { "cpu", "", true },
    { "fpu", "", true },
    { "mmu", "", true },
    { "pcall", "", true },
    { "cpu_reset", "", true },
    { "unimp", "", true },
    { "page", "", true },
    { "nochain", "", true },
    { "plugin", "", true },
    { "strace", "", true },
};

static bool is_item(const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        if (!strcmp(items[i].name, word)) {
            return true;
        }
    }
    return !strncmp(word, "trace:", 6);
}

static void list_items(struct monitor *mon)
{
    monitor_puts(mon, "Log items (comma separated):\n");
    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        if (!items[i].idle) {
            monitor_printf(mon, "%-15s %s\n", items[i].name, items[i].help);
        }
    }
    monitor_printf(mon, "%-15s %s\n\nThe other items of QEMU are known and do nothing.\n", "trace:PATTERN",
                   "switch trace events on: info trace-events");
}

static void take_item(struct monitor *mon, const char *word)
{
    if (!strcmp(word, "guest_errors")) {
        trace_switch(trace_rows[TRACE_GUEST_ERROR].name, true);
    } else if (!strncmp(word, "trace:", 6) && !trace_switch(word + 6, true) && !strchr(word, '*')) {
        monitor_printf(mon, "warning: trace event '%s' does not exist\n", word + 6);
    }
}

/* All of them are known, or none is taken. */
static int co_log(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    AUTOFREE char *words = mem_strdup(member_text(args, "items"));
    AUTOFREE char *again = mem_strdup(words);
    char *save;

    for (char *word = strtok_r(words, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (!strcmp(word, "tid") || !strcmp(word, "all")) { /* "all" means that one, too */
            monitor_puts(mon, "Filename template with '%d' required for 'tid'\n");
            return -EINVAL;
        }
        if (!is_item(word)) {
            list_items(mon);
            return -EINVAL;
        }
    }
    trace_switch(trace_rows[TRACE_GUEST_ERROR].name, false); /* events that trace: switched on stay */
    for (char *word = strtok_r(again, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        take_item(mon, word);
    }
    return 0;
}

static int co_logfile(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *path = member_text(args, "filename"), *percent = strchr(path, '%');
    struct error why = ERROR_INIT;
    int ret;

    if (percent && (percent[1] != 'd' || strchr(percent + 1, '%'))) {
        monitor_printf(mon, "Bad logfile template: %s\n", path);
        return -EINVAL;
    }
    ret = process_open_log(path, &why);
    if (ret < 0) {
        monitor_printf(mon, "%s\n", why.text);
        error_clear(&why);
        return ret;
    }
    process_use_log();
    return 0;
}

/* --- trace-event ------------------------------------------------------------------------------------------------------ */

static int check_vcpu(struct monitor *mon, const json_t *vcpu)
{
    if (vcpu && json_integer_value(vcpu)) {
        monitor_printf(mon, "invalid vCPU index %lld\n", (long long)json_integer_value(vcpu));
        return -EINVAL;
    }
    return 0;
}

static int co_trace_event(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *name = member_text(args, "name");
    const json_t *vcpu = json_object_get(args, "vcpu");

    if (check_vcpu(mon, vcpu) < 0) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < TRACE_COUNT && vcpu; i++) {
        if (!strcmp(trace_rows[i].name, name)) {
            monitor_printf(mon, "event \"%s\" is not vCPU-specific\n", name);
            return -EINVAL;
        }
    }
    if (!trace_switch(name, member_true(args, "option")) && !strchr(name, '*')) {
        monitor_printf(mon, "unknown event \"%s\"\n", name);
        return -ENOENT;
    }
    return 0;
}

static int co_info_trace_events(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *pattern = member_text(args, "name") ? member_text(args, "name") : "*";

    if (check_vcpu(mon, json_object_get(args, "vcpu")) < 0) {
        return -EINVAL;
    }
    *result = json_array();
    for (unsigned i = TRACE_COUNT; i-- > 0;) {
        if (trace_fits(i, pattern)) {
            json_array_append_new(*result, json_pack("{s:s, s:s, s:s}", "name", trace_rows[i].name, "state",
                                                     trace_on[i] ? "enabled" : "disabled", "help", trace_rows[i].help));
        }
    }
    if (!json_array_size(*result) && !strchr(pattern, '*')) {
        monitor_printf(mon, "unknown event \"%s\"\n", pattern);
        return -ENOENT;
    }
    return 0;
}

static void print_trace_events(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *event;

    json_array_foreach(result, i, event) {
        monitor_printf(mon, "%s : state %d", member_text(event, "name"), !strcmp(member_text(event, "state"), "enabled"));
        monitor_printf(mon, mon->compat ? "\n" : "  (%s)\n", member_text(event, "help"));
    }
}

/* --- Rows ---------------------------------------------------------------------------------------------------------------- */

static void trace_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    for (size_t i = 0; i < TRACE_COUNT; i++) {
        offer(to, trace_rows[i].name);
    }
}

/* The last of several items, with those in front of it. */
static void item_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    const char *comma = strrchr(typed, ',');
    int kept = comma ? comma + 1 - typed : 0;

    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        AUTOFREE char *word = mem_printf("%.*s%s", kept, typed, items[i].name);

        if (!items[i].idle) {
            offer(to, word);
        }
    }
    for (size_t i = 0; i < TRACE_COUNT; i++) {
        AUTOFREE char *word = mem_printf("%.*strace:%s", kept, typed, trace_rows[i].name);

        offer(to, word);
    }
}

const struct command log_commands[] = {
    {
        .name = "log",
        .args = { { "items", ARG_STRING, .words = item_words, .doc = "guest_errors, trace:PATTERN, none, ... with commas between" } },
        .params = "item1[,...]",
        .help = "activate logging of the specified items",
        .group = "Monitor",
        .example = "log trace:job_*",
        .co_run = co_log,
    },
    {
        .name = "logfile",
        .args = { { "filename", ARG_FILE, .doc = "what is logged and said goes there" } },
        .params = "filename",
        .help = "output logs to 'filename'",
        .group = "Monitor",
        .co_run = co_logfile,
    },
    {
        .name = "trace-event",
        .args = {
            { "name", ARG_STRING, .words = trace_words, .doc = "an event, or several: job_*" },
            { "option", ARG_BOOL, .doc = "on or off" },
            { "vcpu", ARG_INT, .optional = true, .doc = "means nothing: there is no CPU" },
        },
        .params = "name on|off [vcpu]",
        .help = "changes status of a specific trace event (vcpu: vCPU to set, default is all)",
        .group = "Monitor",
        .example = "trace-event blk_co_pwritev on",
        .co_run = co_trace_event,
    },
    { 0 },
};

const struct command log_topics[] = {
    {
        .name = "trace-events",
        .args = {
            { "name", ARG_STRING, .optional = true, .words = trace_words, .doc = "an event, or several: job_*" },
            { "vcpu", ARG_INT, .optional = true, .doc = "means nothing: there is no CPU" },
        },
        .params = "[name] [vcpu]",
        .help = "show available trace-events & their state (name: event name pattern; vcpu: vCPU to query, default is any)",
        .group = "Monitor",
        .co_run = co_info_trace_events,
        .print = print_trace_events,
    },
    { 0 },
};
