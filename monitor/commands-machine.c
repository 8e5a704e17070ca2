/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about the machine as a whole: run, stop, reset, quit; who and which version it is.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hw/ignored.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

static char *machine_name, *machine_uuid;

void machine_identity_set(const char *name, const char *uuid)
{
    free(machine_name);
    free(machine_uuid);
    machine_name = mem_strdup(name);
    machine_uuid = mem_strdup(uuid);
}

/* --- Running ------------------------------------------------------------------------------------------------------- */

int co_stop(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    co_machine_stop(RUN_PAUSED);
    return 0;
}

int co_cont(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    machine_cont();
    return 0;
}

int co_system_reset(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    co_machine_reset();
    return 0;
}

/* A person may have forgotten what is going on.  Nobody else is asked. */
static bool co_quit_is_meant(struct monitor *mon)
{
    AUTOFREE char *question = NULL;
    const struct job *first = NULL;
    unsigned count = 0;
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job_ended(job)) {
            first = first ? first : job;
            count++;
        }
    }
    if (!count || !mon->co_ask) {
        return true;
    }
    question = count > 1 ? mem_printf("%u jobs have not ended, and will be cancelled. Quit? (y/n) ", count)
                         : mem_printf("Job '%s' (%s) has not ended, and will be cancelled. Quit? (y/n) ", first->id,
                                      first->kind->name);
    return mon->co_ask(mon, question);
}

int co_quit(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    if (co_quit_is_meant(mon)) {
        monitor_quit_request(-1);
    }
    return 0;
}

/* --- Queries --------------------------------------------------------------------------------------------------------- */

int co_query_status(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_pack("{s:s, s:b, s:b}", "status", machine_state_name(), "singlestep", 0, "running", machine_running());
    return 0;
}

int co_query_name(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_object();
    if (machine_name) {
        json_object_set_new(*result, "name", json_string(machine_name));
    }
    return 0;
}

int co_query_uuid(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_pack("{s:s}", "UUID", machine_uuid ? machine_uuid : "00000000-0000-0000-0000-000000000000");
    return 0;
}

json_t *version_tree(void)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", QEMU_VERSION_MICRO, "minor", QEMU_VERSION_MINOR, "major",
                     QEMU_VERSION_MAJOR, "package", " (merganser " MERGANSER_VERSION ")");
}

int co_query_version(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = version_tree();
    return 0;
}

static int co_query_ignored(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_deep_copy(ignored_list());
    return 0;
}

/* One line each, so that nothing is hidden. */
static void print_ignored(struct monitor *mon, const json_t *args, const json_t *result)
{
    json_t *text;
    size_t i;

    json_array_foreach(result, i, text) {
        monitor_printf(mon, "%s\n", json_string_value(text));
    }
}

static void print_status(struct monitor *mon, const json_t *args, const json_t *result)
{
    const char *status = member_text(result, "status");
    bool running = member_true(result, "running");

    monitor_printf(mon, "VM status: %s", running ? "running" : "paused");
    if (!running && strcmp(status, "paused")) {
        monitor_printf(mon, " (%s)", status);
    }
    monitor_puts(mon, "\n");
}

static void print_name(struct monitor *mon, const json_t *args, const json_t *result)
{
    if (member_text(result, "name")) {
        monitor_printf(mon, "%s\n", member_text(result, "name"));
    }
}

static void print_uuid(struct monitor *mon, const json_t *args, const json_t *result)
{
    monitor_printf(mon, "%s\n", member_text(result, "UUID"));
}

static void print_version(struct monitor *mon, const json_t *args, const json_t *result)
{
    monitor_printf(mon, "%s%s\n", QEMU_VERSION_TEXT, member_text(result, "package"));
}

/* --- Rows -------------------------------------------------------------------------------------------------------------- */

const struct command machine_commands[] = {
    {
        .name = "stop|s",
        .params = "",
        .help = "stop emulation",
        .group = "Machine",
        .co_run = co_stop,
    },
    {
        .name = "cont|c",
        .params = "",
        .help = "resume emulation",
        .group = "Machine",
        .co_run = co_cont,
    },
    {
        .name = "system_reset",
        .params = "",
        .help = "reset the system",
        .group = "Machine",
        .co_run = co_system_reset,
    },
    {
        .name = "system_powerdown",
        .params = "",
        .help = "send system power down event",
        .group = "Machine",
        .co_run = co_system_powerdown,
    },
    {
        .name = "quit|q",
        .params = "",
        .help = "quit the emulator",
        .group = "Machine",
        .co_run = co_quit,
    },
    { 0 },
};

const struct command machine_topics[] = {
    {
        .name = "ignored",
        .params = "",
        .help = "show what the command line asked for and this machine has not",
        .group = "Machine",
        .co_run = co_query_ignored,
        .print = print_ignored,
        .flags = COMMAND_OURS,
    },
    {
        .name = "status",
        .params = "",
        .help = "show the current VM status (running|paused)",
        .group = "Machine",
        .co_run = co_query_status,
        .print = print_status,
    },
    {
        .name = "name",
        .params = "",
        .help = "show the current VM name",
        .group = "Machine",
        .co_run = co_query_name,
        .print = print_name,
    },
    {
        .name = "uuid",
        .params = "",
        .help = "show the current VM UUID",
        .group = "Machine",
        .co_run = co_query_uuid,
        .print = print_uuid,
    },
    {
        .name = "version",
        .params = "",
        .help = "show the version of QEMU",
        .group = "Machine",
        .co_run = co_query_version,
        .print = print_version,
    },
    { 0 },
};
