/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all monitors share: output, errors, the request to quit, and waiting for something to change.
 *
 * Whoever waits (`wait`, `sleep`, the end of a script) does it here, so that one place knows how to end a wait early:
 * Ctrl-C on the monitor that waits, or the end of the program.  Waiters ask their condition anew each time a job changes
 * its state; there are never many of them.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/text.h"
#include "monitor/handlers.h"
#include "monitor/monitor.h"

struct monitor_list all_monitors = LIST_HEAD_INITIALIZER(all_monitors);

void monitor_init(struct monitor *mon)
{
    mon->history = json_array();
    LIST_INSERT_HEAD(&all_monitors, mon, link);
}

void monitor_fini(struct monitor *mon)
{
    LIST_REMOVE(mon, link);
    json_decref(mon->history);
    mon->history = NULL;
}

/* --- Output ----------------------------------------------------------------------------------------------------- */

void monitor_puts(struct monitor *mon, const char *text)
{
    AUTOFREE char *shown = text_shown(text);

    mon->write(mon, shown, strlen(shown));
}

void monitor_printf(struct monitor *mon, const char *fmt, ...)
{
    AUTOFREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = mem_vprintf(fmt, ap);
    va_end(ap);
    monitor_puts(mon, text);
}

const char *monitor_tone_code(const struct monitor *mon, enum monitor_tone tone)
{
    static const char *const codes[] = {
        [TONE_PLAIN] = "\x1b[0m",   [TONE_ERROR] = "\x1b[31m", [TONE_HINT] = "\x1b[36m", [TONE_WARNING] = "\x1b[33m",
        [TONE_NEWS] = "\x1b[35m", [TONE_HEAD] = "\x1b[1m",   [TONE_GOOD] = "\x1b[32m",
    };

    return mon->colour ? codes[tone] : "";
}

void monitor_tone(struct monitor *mon, enum monitor_tone tone)
{
    const char *code = monitor_tone_code(mon, tone);

    mon->write(mon, code, strlen(code));
}

/* One line QEMU hints at itself. */
static const char *const qemu_hints[] = { "Is another process using the image [", "Identifiers consist of " };

static bool is_qemu_hint(const char *line)
{
    for (size_t i = 0; i < ARRAY_SIZE(qemu_hints); i++) {
        if (!strncmp(line, qemu_hints[i], strlen(qemu_hints[i]))) {
            return true;
        }
    }
    return false;
}

void monitor_hint(struct monitor *mon, const struct error *err)
{
    monitor_tone(mon, TONE_HINT);
    for (const char *line = err->hint; line && *line;) {
        size_t len = strcspn(line, "\n");

        if (!mon->compat || is_qemu_hint(line)) {
            monitor_printf(mon, "%.*s\n", (int)len, line);
        }
        line += len + (line[len] == '\n');
    }
    monitor_tone(mon, TONE_PLAIN);
}

void monitor_error(struct monitor *mon, const struct error *err)
{
    if (err->text) {
        monitor_tone(mon, TONE_ERROR);
        AUTOFREE char *text = mon->compat ? mem_strdup(err->text) : error_in_short(err->text);

        monitor_printf(mon, "Error: %s\n", text);
        monitor_tone(mon, TONE_PLAIN);
        monitor_hint(mon, err);
    }
}

void monitor_banner(struct monitor *mon)
{
    if (mon->compat) {
        monitor_printf(mon, "QEMU %s monitor - type 'help' for more information\n", QEMU_VERSION_TEXT);
    } else {
        monitor_printf(mon, "merganser %s monitor - type 'help' for more information\n", MERGANSER_VERSION);
    }
}

/* --- Waiting ------------------------------------------------------------------------------------------------------ */

struct waiter {
    LIST_ENTRY(waiter) link;
    struct co *co; /* NULL while it is awake or on its way */
    struct loop_timer timer;
};
static LIST_HEAD(, waiter) waiters = LIST_HEAD_INITIALIZER(waiters);

static void waiter_wake(struct waiter *w)
{
    struct co *co = w->co;

    if (co) {
        w->co = NULL;
        co_wake(co);
    }
}

static void waiter_timeout(void *arg)
{
    waiter_wake(arg);
}

void monitor_wake_waiters(void)
{
    struct waiter *w;

    LIST_FOREACH(w, &waiters, link) {
        waiter_wake(w);
    }
}

int co_monitor_wait(struct monitor *mon, bool (*done)(void *arg), void *arg, uint64_t deadline_ns)
{
    struct waiter w = { .co = NULL };
    int ret;

    loop_timer_init(&w.timer, waiter_timeout, &w);
    LIST_INSERT_HEAD(&waiters, &w, link);
    if (deadline_ns != UINT64_MAX) {
        loop_timer_arm(&w.timer, deadline_ns);
    }
    for (;;) {
        if (done && done(arg)) {
            ret = 0;
        } else if (monitor_quit_requested()) {
            ret = -ECANCELED;
        } else if (mon && mon->interrupted) {
            ret = -EINTR;
        } else if (deadline_ns != UINT64_MAX && loop_now() >= deadline_ns) {
            ret = -ETIMEDOUT;
        } else {
            w.co = co_self();
            co_suspend();
            continue;
        }
        break;
    }
    loop_timer_cancel(&w.timer);
    LIST_REMOVE(&w, link);
    return ret;
}

void monitor_interrupt(struct monitor *mon)
{
    mon->interrupted = true;
    monitor_wake_waiters();
}

/* --- The end of the program --------------------------------------------------------------------------------------- */

static bool quit_requested;
static int quit_code = -1;

void monitor_quit_request(int exit_code_or_minus_one)
{
    quit_requested = true;
    if (quit_code < 0) {
        quit_code = exit_code_or_minus_one;
    }
    monitor_wake_waiters();
}

bool monitor_quit_requested(void)
{
    return quit_requested;
}

int monitor_quit_code(void)
{
    return quit_code;
}
