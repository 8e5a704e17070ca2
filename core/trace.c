/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The events and their switches: see trace.h.
 */
#include "core/trace.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/mem.h"

bool trace_on[TRACE_COUNT];

const struct trace_row trace_rows[TRACE_COUNT] = {
    [TRACE_READ] = { "blk_co_preadv", "a request reads" },
    [TRACE_WRITE] = { "blk_co_pwritev", "a request writes" },
    [TRACE_ZERO] = { "bdrv_co_pwrite_zeroes", "a request writes zeroes" },
    [TRACE_DISCARD] = { "bdrv_co_pdiscard", "a request discards" },
    [TRACE_FLUSH] = { "bdrv_co_flush", "a flush" },
    [TRACE_DISK_ERROR] = { "send_qmp_error_event", "a guest's request has failed" },
    [TRACE_GUEST_ERROR] = { "guest_error", "a guest asks a device for what cannot be" },
    [TRACE_JOB_STATE] = { "job_state_transition", "a job goes on to another state" },
    [TRACE_HMP] = { "handle_hmp_command", "a line for the human monitor" },
    [TRACE_QMP] = { "handle_qmp_command", "a command over QMP" },
};

bool trace_fits(enum trace_event event, const char *pattern)
{
    return !fnmatch(pattern, trace_rows[event].name, 0);
}

size_t trace_switch(const char *pattern, bool on)
{
    size_t n = 0;

    for (unsigned i = 0; i < TRACE_COUNT; i++) {
        if (trace_fits(i, pattern)) {
            trace_on[i] = on;
            n++;
        }
    }
    return n;
}

void trace_write(enum trace_event event, const char *fmt, ...)
{
    AUTOFREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = mem_vprintf(fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s %s\n", trace_rows[event].name, text);
}
