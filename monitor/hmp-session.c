/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor on a connection: see hmp-session.h.
 *
 * A line that has not ended when the client goes is not run: who knows what it was going to be.
 */
#include "monitor/hmp-session.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "monitor/monitor.h"

#define PROMPT "(qemu) "
#define LINE_MAX_BYTES (1u << 20)
#define ECHO_MAX_BYTES 4095u /* drawing costs the square of it; QEMU takes no more either */
#define UNSENT_LOW (16u << 10) /* the next line is taken at that */

struct hmp_session {
    struct monitor mon;
    struct conn *conn;
    char *line;
    size_t len, size;
    bool after_cr; /* a LF right behind belongs to the same end of line */
    bool too_long;
    bool echo;
    enum { ESCAPE_NONE, ESCAPE_BEGUN, ESCAPE_OPEN } escape; /* within ESC [ 1 ; 2 C */
};

static void session_write(struct monitor *mon, const char *text, size_t len)
{
    struct hmp_session *s = CONTAINER_OF(mon, struct hmp_session, mon);

    for (const char *end = text + len; text < end;) {
        const char *newline = mon->compat ? memchr(text, '\n', end - text) : NULL,
                   *stop = newline ? newline : end;

        conn_write(s->conn, text, stop - text);
        if (newline) {
            conn_write(s->conn, "\r\n", 2);
        }
        text = stop + !!newline;
    }
}

static void keep(struct hmp_session *s, char c)
{
    if (s->len == LINE_MAX_BYTES) {
        s->too_long = true;
        return;
    }
    if (s->len + 1 >= s->size) {
        s->size = s->size ? 2 * s->size : 256;
        s->line = mem_realloc(s->line, s->size);
    }
    s->line[s->len++] = c;
}

/* --- Echo ------------------------------------------------------------------------------------- */

/* Back to where the line that was `shown` characters long begins, then the line of now. */
static void redraw(struct hmp_session *s, size_t shown)
{
    for (size_t i = 0; i < shown; i++) {
        conn_write(s->conn, "\x1b[D", 3);
    }
    conn_write(s->conn, s->line, s->len);
    conn_write(s->conn, "\x1b[K", 3);
}

/* Keys that move are taken and do nothing: a line is typed from its beginning to its end. */
static bool in_escape(struct hmp_session *s, char c)
{
    if (c == '\x1b') {
        s->escape = ESCAPE_BEGUN;
        return true;
    }
    if (s->escape == ESCAPE_BEGUN) {
        s->escape = c == '[' || c == 'O' ? ESCAPE_OPEN : ESCAPE_NONE;
        return true;
    }
    if (s->escape == ESCAPE_OPEN) {
        s->escape = c >= '@' && c <= '~' ? ESCAPE_NONE : ESCAPE_OPEN;
        return true;
    }
    return false;
}

static void keep_and_show(struct hmp_session *s, char c)
{
    size_t shown = s->len;

    if (in_escape(s, c)) {
        return;
    }
    if ((c == '\x7f' || c == '\b') && s->len) {
        s->len--;
        redraw(s, shown);
    } else if ((unsigned char)c >= ' ' && c != '\x7f' && s->len < ECHO_MAX_BYTES) {
        keep(s, c);
        redraw(s, shown);
    }
}

/* --- Lines ------------------------------------------------------------------------------------ */

static void co_run_line(struct hmp_session *s)
{
    if (s->too_long) {
        monitor_printf(&s->mon, "Error: a line of more than %u bytes is no command\n",
                       LINE_MAX_BYTES);
    } else if (s->len) {
        s->line[s->len] = '\0'; /* keep() leaves room */
        co_hmp_run(&s->mon, s->line);
    }
    s->len = 0;
    s->too_long = false;
    if (!monitor_quit_requested()) {
        monitor_puts(&s->mon, PROMPT);
    }
}

static void co_take(struct hmp_session *s, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len && !monitor_quit_requested(); i++) {
        char c = bytes[i];
        bool second = c == '\n' && s->after_cr && !s->echo;

        s->after_cr = c == '\r';
        if (second) {
            continue;
        }
        if (c == '\n' || c == '\r') {
            conn_write(s->conn, "\r\n", s->echo ? 2 : 0);
            co_run_line(s);
            co_conn_drain(s->conn, UNSENT_LOW);
        } else if (s->echo) {
            keep_and_show(s, c);
            co_conn_drain(s->conn, UNSENT_LOW);
        } else {
            keep(s, c);
        }
    }
}

static void client_gone(void *arg)
{
    struct hmp_session *s = arg;

    monitor_interrupt(&s->mon);
}

void co_hmp_serve(struct conn *c, void *arg)
{
    const struct monitor_style *style = arg;
    struct hmp_session s = {
        .mon = { .compat = style->compat, .name = "monitor", .write = session_write },
        .conn = c,
        .echo = style->echo,
    };
    char buf[4096];
    size_t n;

    monitor_init(&s.mon);
    conn_on_gone(c, client_gone, &s);
    monitor_banner(&s.mon);
    monitor_puts(&s.mon, PROMPT);
    while ((n = co_conn_read(c, buf, sizeof(buf)))) {
        co_take(&s, buf, n);
    }
    conn_on_gone(c, NULL, NULL);
    monitor_fini(&s.mon);
    free(s.line);
}
