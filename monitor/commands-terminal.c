/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about the terminal itself.
 */
#include <errno.h>

#include "monitor/handlers.h"
#include "monitor/members.h"
#include "monitor/terminal.h"

/* --- events ------------------------------------------------------------------------------------------------------------ */

static int co_events(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const json_t *on = json_object_get(args, "on");

    if (!mon->interactive) {
        error_set(err, "News are for a terminal: this monitor gets answers only (QMP has the events)");
        return -ENOTSUP;
    }
    if (on) {
        terminal_set_events(on == json_true());
        return 0;
    }
    *result = json_pack("{s:b}", "on", terminal_events());
    return 0;
}

static void print_events(struct monitor *mon, const json_t *args, const json_t *result)
{
    monitor_printf(mon, "events are %s\n", member_true(result, "on") ? "on" : "off");
}

/* --- Rows -------------------------------------------------------------------------------------------------------------- */

const struct command terminal_commands[] = {
    {
        .name = "events",
        .args = { { "on", ARG_BOOL, .optional = true, .doc = "on or off; which of them it is, unless given" } },
        .params = "[on|off]",
        .help = "show above the prompt what happens to jobs, images and the machine",
        .group = "Monitor",
        .example = "events off",
        .co_run = co_events,
        .print = print_events,
        .flags = COMMAND_OURS,
    },
    { 0 },
};
