/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scripts: see script.h.
 *
 * A file is read as a whole before its first line runs; a stream (standard input, a named pipe) line by line.  On the
 * virtual clock time stands still while we wait for a line of a stream, so that a script in a pipe gives the same
 * transcript however slowly it is written.
 */
#include "monitor/script.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/stream.h"
#include "core/text.h"
#include "monitor/outcome.h"

/* No command is that long: what is comes from a file that is no script, or from one that never ends. */
#define LINE_BYTES_MAX (1u << 20)

/* What is wrong with these bytes of one line, in words; or NULL. */
static const char *wrong_line(const char *line, size_t len)
{
    if (memchr(line, '\0', len)) {
        return "has a zero byte in it";
    }
    return len > LINE_BYTES_MAX ? "is too long for a command" : NULL;
}

/* --- One line ---------------------------------------------------------------------------------------------------------- */

static const char *skip_blanks(const char *p)
{
    while (isspace((unsigned char)*p)) {
        p++;
    }
    return p;
}

/* What the line came to, its prefix considered. */
static enum outcome co_run_line(struct monitor *mon, const char *line)
{
    const char *command = skip_blanks(line);
    char prefix = *command == '-' || *command == '!' ? *command : 0;
    int ret;

    if (!*command || *command == '#') {
        return OUTCOME_GOOD;
    }
    monitor_printf(mon, "(qemu) %s\n", line);
    ret = co_hmp_run(mon, prefix ? command + 1 : line);
    if (prefix && ret && ret != -ECANCELED) {
        outcome_forgive_told();
        return OUTCOME_GOOD;
    }
    if (prefix == '!' && !ret) {
        monitor_puts(mon, "Error: the command above should have failed\n");
        return OUTCOME_EXPECT;
    }
    return ret ? mon->last_outcome : OUTCOME_GOOD;
}

/* A script being run. */
struct script_frame {
    struct script_frame *up;
    const char *path;
    bool stop;
    bool sourced;         /* its end is the `source` command's answer, and no one else's business */
    bool plain;           /* lines for a monitor, no script */
    unsigned line;
    enum outcome outcome; /* of the first line that failed */
};

static bool co_plain_line(struct monitor *mon, char *line)
{
    size_t len = strlen(line);

    if (len && line[len - 1] == '\r') {
        line[len - 1] = '\0';
    }
    monitor_printf(mon, "(qemu) %s\n", line);
    co_hmp_run(mon, line);
    return !monitor_quit_requested();
}

/* Run a line, keep count.  False: the script is over. */
static bool co_script_line(struct monitor *mon, struct script_frame *frame, char *line)
{
    enum outcome outcome;
    size_t len = strlen(line);

    if (frame->plain) {
        return co_plain_line(mon, line);
    }
    frame->line++;
    while (len && isspace((unsigned char)line[len - 1])) {
        line[--len] = '\0';
    }
    outcome = co_run_line(mon, line);
    if (monitor_quit_requested()) {
        return false; /* what failed because of that is no failure */
    }
    if (frame->sourced && mon->interrupted) {
        return false; /* and no prefix forgives it */
    }
    if (outcome == OUTCOME_GOOD) {
        return true;
    }
    if (frame->outcome == OUTCOME_GOOD) {
        frame->outcome = outcome;
    }
    if (!frame->sourced) {
        outcome_note(outcome);
    }
    if (!frame->sourced && frame->stop) {
        fflush(stdout);
        AUTOFREE char *shown = text_shown(line);
        fprintf(stderr, "merganser: %s:%u: stopped here: %s\n", frame->path, frame->line, shown);
    }
    return !frame->stop;
}

static void push(struct monitor *mon, struct script_frame *frame)
{
    frame->up = mon->scripts;
    mon->scripts = frame;
}

static void pop(struct monitor *mon)
{
    mon->scripts = mon->scripts->up;
}

/* Cuts `text` into its lines. */
static void co_script_lines(struct monitor *mon, struct script_frame *frame, char *text)
{
    char *next;

    for (char *line = text; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        if (!co_script_line(mon, frame, line)) {
            break;
        }
    }
}

enum outcome co_script_text(struct monitor *mon, const char *name, const char *text, bool stop)
{
    struct script_frame frame = { .path = name, .stop = stop };
    AUTOFREE char *copy = mem_strdup(text);

    push(mon, &frame);
    co_script_lines(mon, &frame, copy);
    pop(mon);
    return frame.outcome;
}

/* --- Streams ------------------------------------------------------------------------------------------------------------ */

struct stream {
    int fd;
    const char *wrong; /* with the line that comes next; NULL: nothing */
    char *buf;         /* what has been read and not been handed out */
    size_t len, size;
    bool ready;        /* something can be read, or its end has come */
    bool end;
};

static void stream_ready(void *arg, unsigned events)
{
    struct stream *s = arg;

    s->ready = true;
    monitor_wake_waiters();
}

static bool stream_is_ready(void *arg)
{
    struct stream *s = arg;

    return s->ready;
}

/* On the virtual clock: wait right here, so that no time passes; look up when a signal has come. */
static bool wait_in_place(int fd)
{
    sigset_t pending;

    while (!stream_readable(fd, 100)) {
        if (!sigpending(&pending) && (sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) ||
                                      sigismember(&pending, SIGHUP))) {
            return false;
        }
    }
    return true;
}

/* Read some more.  False at the end, or when somebody does not want to wait for it: `mon`, or the program that is to end. */
static bool co_stream_fill(struct stream *s, struct monitor *mon)
{
    ssize_t n;

    s->ready = loop_is_virtual() && wait_in_place(s->fd);
    if (!s->ready) {
        struct loop_watch *watch = loop_watch(s->fd, LOOP_READ, stream_ready, s);
        int ret = co_monitor_wait(mon, stream_is_ready, s, UINT64_MAX);

        loop_unwatch(watch);
        if (ret) {
            return false;
        }
    }
    if (s->size - s->len < 4096) {
        s->size = s->size ? 2 * s->size : 8192;
        s->buf = mem_realloc(s->buf, s->size);
    }
    n = stream_read(s->fd, s->buf + s->len, s->size - s->len);
    if (n == -EAGAIN) {
        return true;
    }
    s->len += n > 0 ? n : 0;
    s->end = n <= 0;
    return !s->end;
}

/* The next line without its newline, malloc'ed; NULL at the end. */
static char *co_stream_line(struct stream *s, struct monitor *mon)
{
    char *newline, *line;
    size_t len;

    do {
        newline = s->len ? memchr(s->buf, '\n', s->len) : NULL;
    } while (!newline && !s->end && s->len <= LINE_BYTES_MAX && co_stream_fill(s, mon));
    newline = s->len ? memchr(s->buf, '\n', s->len) : NULL;
    len = newline ? (size_t)(newline - s->buf) : s->len;
    s->wrong = len ? wrong_line(s->buf, len) : NULL;
    if (s->wrong || (!newline && (!s->end || !s->len))) {
        return NULL;
    }
    line = mem_strndup(s->buf, len);
    len += newline != NULL;
    memmove(s->buf, s->buf + len, s->len - len);
    s->len -= len;
    return line;
}

static void co_stream_lines(struct monitor *mon, struct script_frame *frame, int fd)
{
    struct stream s = { .fd = fd };
    bool more;

    do {
        AUTOFREE char *line = co_stream_line(&s, frame->sourced ? mon : NULL);

        more = line && co_script_line(mon, frame, line);
    } while (more);
    if (s.wrong) {
        fflush(stdout);
        fprintf(stderr, "merganser: %s is no script: line %u %s\n", frame->path, frame->line + 1, s.wrong);
        frame->outcome = OUTCOME_COMMAND;
        if (!frame->sourced) {
            outcome_note(frame->outcome);
        }
    }
    free(s.buf);
}

enum outcome co_script_stream(struct monitor *mon, const char *name, int fd, bool stop, bool plain)
{
    struct script_frame frame = { .path = name, .stop = stop, .plain = plain };

    push(mon, &frame);
    co_stream_lines(mon, &frame, fd);
    pop(mon);
    return frame.outcome;
}

/* --- Files ---------------------------------------------------------------------------------------------------------------- */

static bool is_running(const struct monitor *mon, const char *path)
{
    for (const struct script_frame *f = mon->scripts; f; f = f->up) {
        if (!strcmp(f->path, path)) {
            return true;
        }
    }
    return false;
}

/* Is all of it lines of text?  Nothing is run of a file that is something else. */
static int check_text(const char *path, const char *text, size_t len, struct error *err)
{
    unsigned number = 1;

    for (const char *line = text, *end = text + len; line < end; number++) {
        const char *newline = memchr(line, '\n', end - line), *stop = newline ? newline : end;
        const char *wrong = wrong_line(line, stop - line);

        if (wrong) {
            error_set(err, "'%s' is no script: line %u %s", path, number, wrong);
            return -EINVAL;
        }
        line = newline ? newline + 1 : end;
    }
    return 0;
}

/* Run the file of `frame`: 0, what it came to is in the frame; or -errno when it is no script.  A pipe by name
 * (`-f <(...)`) is read as it comes. */
static int co_run_file(struct monitor *mon, struct script_frame *frame, struct error *err)
{
    AUTOFREE char *text = NULL;
    size_t len;
    int fd = stream_open(frame->path), ret = 0;

    if (fd < 0 || !stream_trickles(fd)) {
        if (fd >= 0) {
            stream_close(fd);
        }
        fd = -1;
        ret = co_io_load(frame->path, &text, &len);
    }
    if (ret) {
        error_set_errno(err, -ret, "Could not open '%s'", frame->path);
        return ret;
    }
    if (fd < 0 && check_text(frame->path, text, len, err) < 0) {
        return -EINVAL;
    }
    push(mon, frame);
    if (fd < 0) {
        co_script_lines(mon, frame, text);
    } else {
        co_stream_lines(mon, frame, fd);
        stream_close(fd);
    }
    pop(mon);
    return 0;
}

enum outcome co_script_file(struct monitor *mon, const char *path, bool stop)
{
    struct script_frame frame = { .path = path, .stop = stop };
    struct error err = ERROR_INIT;

    if (!strcmp(path, "-")) {
        return co_script_stream(mon, "standard input", STDIN_FILENO, stop, false);
    }
    if (co_run_file(mon, &frame, &err) < 0) {
        fflush(stdout);
        fprintf(stderr, "merganser: -f %s: %s\n", path, err.text);
        error_clear(&err);
        frame.outcome = OUTCOME_NO_START;
        outcome_note(frame.outcome);
    }
    return frame.outcome;
}

int co_script_source(struct monitor *mon, const char *path, struct error *err)
{
    struct script_frame frame = { .path = path, .stop = true, .sourced = true };
    int ret;

    if (is_running(mon, path)) {
        error_set(err, "The script '%s' is running already: it would source itself without end", path);
        return -ELOOP;
    }
    ret = co_run_file(mon, &frame, err);
    if (ret) {
        return ret;
    }
    mon->last_outcome = frame.outcome;
    if (monitor_quit_requested()) {
        return -ECANCELED;
    }
    if (mon->interrupted) {
        error_set(err, "Interrupted");
        return -EINTR;
    }
    if (frame.outcome != OUTCOME_GOOD) {
        error_set(err, "The script '%s' failed", path);
        return -EIO;
    }
    return 0;
}
