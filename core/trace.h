/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trace events: what happens, one line each on standard error (or where `logfile` and -D send it), for those events that
 * somebody has switched on (`trace-event`, `log trace:PATTERN`).
 *
 * One table (trace.c) has them all; they have QEMU's names where QEMU has them.  An event that is off costs one comparison.
 */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

#include <stdbool.h>
#include <stddef.h>

enum trace_event {
    TRACE_READ,
    TRACE_WRITE,
    TRACE_ZERO,
    TRACE_DISCARD,
    TRACE_FLUSH,
    TRACE_DISK_ERROR,
    TRACE_GUEST_ERROR,
    TRACE_JOB_STATE,
    TRACE_HMP,
    TRACE_QMP,
    TRACE_COUNT,
};
extern bool trace_on[TRACE_COUNT];
extern const struct trace_row {
    const char *name, *help;
} trace_rows[TRACE_COUNT];

#define trace(event, ...)                                                                                                 \
    do {                                                                                                                  \
        if (__builtin_expect(trace_on[event], 0)) {                                                                       \
            trace_write(event, __VA_ARGS__);                                                                              \
        }                                                                                                                 \
    } while (0)
void trace_write(enum trace_event event, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Switch all events that fit (* and ? stand for what they do in file names); how many there are. */
size_t trace_switch(const char *pattern, bool on);
bool trace_fits(enum trace_event event, const char *pattern);

#endif
