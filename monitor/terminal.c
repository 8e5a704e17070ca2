/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor on a terminal: see terminal.h.
 */
#include "monitor/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/stream.h"
#include "jobs/job.h"
#include "monitor/completion.h"

#define PROMPT "(qemu) "
#define HISTORY_LINES 5000 /* kept in the file */

static struct monitor terminal;
static struct loop_watch *input;
static bool started, editing;
static bool no_events;            /* `events off` */
static bool asking, answered, yes; /* co_ask() */
static char *history_path; /* NULL: none */
static char *line_to_run;
static struct loop_task resume_task;
static int signal_pipe[2] = { -1, -1 };
static struct loop_watch *signal_watch;

/* --- Output ----------------------------------------------------------------------------------------------------------- */

static void terminal_write(struct monitor *mon, const char *text, size_t len)
{
    fwrite(text, 1, len, stdout);
    fflush(stdout);
}

static unsigned terminal_width(struct monitor *mon)
{
    return stream_columns(STDOUT_FILENO);
}

void terminal_set_events(bool on)
{
    no_events = !on;
}

bool terminal_events(void)
{
    return started && !no_events;
}

void terminal_notice(const char *text)
{
    if (!terminal_events()) {
        return;
    }
    if (editing) {
        rl_clear_visible_line();
    }
    fprintf(rl_outstream, "%s%s%s\n", monitor_tone_code(&terminal, TONE_NEWS), text,
            monitor_tone_code(&terminal, TONE_PLAIN));
    fflush(rl_outstream);
    if (editing) {
        rl_on_new_line();
        rl_redisplay();
    }
}

/* --- History ----------------------------------------------------------------------------------------------------------- */

char *terminal_history(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (state && state[0] == '/') {
        return mem_printf("%s/merganser/history", state);
    }
    return home && home[0] == '/' ? mem_printf("%s/.local/state/merganser/history", home) : NULL;
}

static void history_start(void)
{
    using_history();
    history_path = terminal.compat ? NULL : terminal_history();
    if (!history_path) {
        return;
    }
    if (io_make_private_file(history_path) < 0) {
        free(history_path);
        history_path = NULL;
        return;
    }
    read_history(history_path);
}

static void history_keep(const char *line)
{
    HIST_ENTRY *last = history_length ? history_get(history_base + history_length - 1) : NULL;

    if (!*line || (last && !strcmp(last->line, line))) {
        return;
    }
    add_history(line);
    if (history_path) {
        append_history(1, history_path);
    }
}

/* --- Completion ---------------------------------------------------------------------------------------------------------- */

static struct completion found;

/* Readline asks with 0 for the first word and with more for each further one. */
static char *next_word(const char *text, int state)
{
    static size_t next;

    next = state ? next + 1 : 0;
    return next < found.count ? strdup(found.words[next]) : NULL;
}

/* What a word may not hold without quotes, and what not within them without a backslash (hmp_word()). */
#define IN_QUOTES " \t\"\\"
#define ESCAPED "\"\\"

/* Readline closes the quote where the word ends. */
static char *quote_name(char *name, int type, char *quote)
{
    char *out = mem_alloc(2 * strlen(name) + 2), *q = out;

    *q++ = '"';
    for (const char *p = name; *p; p++) {
        if (strchr(ESCAPED, *p)) {
            *q++ = '\\';
        }
        *q++ = *p;
    }
    *q = '\0';
    if (quote) {
        *quote = '"';
    }
    return out;
}

static char *unquote_name(char *text, int quote)
{
    char *out = mem_strdup(text), *q = out;

    for (const char *p = text; *p; p++) {
        p += *p == '\\' && p[1];
        *q++ = *p;
    }
    *q = '\0';
    return out;
}

static int is_escaped(char *line, int at)
{
    int n = 0;

    while (at > n && line[at - n - 1] == '\\') {
        n++;
    }
    return n % 2;
}

static bool need_quotes(const struct completion *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strpbrk(c->words[i], IN_QUOTES)) {
            return true;
        }
    }
    return false;
}

static char **complete(const char *text, int start, int end)
{
    char **matches;

    rl_attempted_completion_over = true;
    if (asking) {
        return NULL;
    }
    found = completion_find(&terminal, rl_line_buffer, start, text);
    matches = found.count ? rl_completion_matches(text, next_word) : NULL;
    rl_filename_completion_desired = matches && need_quotes(&found);
    rl_attempted_completion_over = !found.files;
    rl_completion_suppress_append = matches && matches[0][0] && strchr("=:", matches[0][strlen(matches[0]) - 1]);
    completion_free(&found);
    return matches;
}

static void readline_start(void)
{
    rl_readline_name = "merganser";
    rl_instream = stdin;
    rl_outstream = stdout;
    rl_catch_signals = 0;  /* SIGINT comes by terminal_interrupt() */
    rl_catch_sigwinch = 0; /* and the window's size by our pipe */
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = " \t";
    rl_completer_quote_characters = "\"";
    rl_filename_quote_characters = IN_QUOTES;
    rl_filename_quoting_function = quote_name;
    rl_filename_dequoting_function = unquote_name;
    rl_char_is_quoted_p = is_escaped;
    rl_variable_bind("show-all-if-ambiguous", "on"); /* what there is to choose from comes with the first Tab, as in QEMU */
    if (terminal.compat) {
        rl_variable_bind("enable-bracketed-paste", "off");
    }
}

/* --- Lines ------------------------------------------------------------------------------------------------------------------ */

static void line_typed(char *line);

static void edit(void)
{
    editing = true;
    rl_callback_handler_install(PROMPT, line_typed);
    loop_watch_events(input, LOOP_READ);
}

static void stop_editing(void)
{
    if (editing) {
        editing = false;
        rl_callback_handler_remove();
        loop_watch_events(input, 0);
    }
}

static CO_ENTRY void run_line(void *arg)
{
    char *line = line_to_run;

    co_hmp_run(&terminal, line);
    free(line);
    line_to_run = NULL;
    if (started && !monitor_quit_requested()) {
        edit();
    }
}

/* In the next turn: readline has returned by then. */
static void start_line(void *arg)
{
    co_start(run_line, NULL);
}

/* Behind a Ctrl-D. */
static void end_line(void)
{
    const char *paste = rl_variable_value("enable-bracketed-paste");

    if (!paste || strcmp(paste, "on")) { /* else readline has ended the line */
        fputs("\n", stdout);
        fflush(stdout);
    }
}

static void line_typed(char *line)
{
    if (!line) { /* Ctrl-D */
        end_line();
        line = mem_strdup("quit");
    }
    for (size_t len = strlen(line); len && (line[len - 1] == ' ' || line[len - 1] == '\t');) {
        line[--len] = '\0'; /* completion leaves a blank behind */
    }
    history_keep(line);
    stop_editing();
    line_to_run = line;
    loop_defer(&resume_task, start_line, NULL);
}

/* --- Questions ---------------------------------------------------------------------------------------------------------------- */

/* A second Ctrl-D is a yes: else an input that has ended would be asked for ever. */
static void answer_typed(char *line)
{
    if (!line) {
        end_line();
    }
    yes = !line || !strcmp(line, "y") || !strcmp(line, "yes");
    free(line);
    answered = true;
    stop_editing();
    monitor_wake_waiters();
}

static bool is_answered(void *arg)
{
    return answered;
}

static bool co_terminal_ask(struct monitor *mon, const char *question)
{
    asking = true;
    answered = yes = false;
    editing = true;
    rl_callback_handler_install(question, answer_typed);
    loop_watch_events(input, LOOP_READ);
    co_monitor_wait(mon, is_answered, NULL, UINT64_MAX);
    stop_editing(); /* unless terminal_stop() has done it */
    asking = false;
    return yes;
}

/* --- Keys --------------------------------------------------------------------------------------------------------- */

static void input_ready(void *arg, unsigned events)
{
    if (editing) {
        rl_callback_read_char();
    }
}

/* Who presses the keys twice wants to be rid of the command, not of a merge of hours. */
static bool job_goes_on(void)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job_ended(job)) {
            printf("\nJob '%s' (%s) goes on, so Ctrl-C does not end the program; SIGTERM would.\n", job->id, job->kind->name);
            fflush(stdout);
            return true;
        }
    }
    return false;
}

bool terminal_interrupt(void)
{
    if (!started) {
        return false;
    }
    if (asking) { /* no */
        rl_callback_sigcleanup();
        fputs("^C\n", rl_outstream);
        fflush(rl_outstream);
        monitor_interrupt(&terminal);
        return true;
    }
    if (editing) {
        rl_callback_sigcleanup();
        fputs("^C\n", rl_outstream);
        rl_free_line_state();
        rl_replace_line("", 0);
        rl_on_new_line();
        rl_redisplay();
        return true;
    }
    if (terminal.interrupted) {
        return job_goes_on();
    }
    fputs("\n", stdout); /* behind the ^C that the terminal shows */
    fflush(stdout);
    monitor_interrupt(&terminal);
    return true;
}

/* --- The window, and being stopped -------------------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    stream_poke(signal_pipe[1], number == SIGCONT);
}

static void signal_came(void *arg, unsigned events)
{
    char bytes[64];
    ssize_t n = stream_read(signal_pipe[0], bytes, sizeof(bytes));

    if (!editing || n <= 0) {
        return;
    }
    if (memchr(bytes, 1, n)) { /* continued: the shell has set the terminal to its own liking */
        rl_prep_terminal(1);
        rl_forced_update_display();
    }
    rl_resize_terminal();
}

static void signals_start(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    if (stream_pipe(signal_pipe) < 0) {
        return; /* lines will be drawn for the width of the start */
    }
    signal_watch = loop_watch(signal_pipe[0], LOOP_READ, signal_came, NULL);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
}

static void signals_stop(void)
{
    if (signal_watch) {
        signal(SIGWINCH, SIG_DFL);
        signal(SIGCONT, SIG_DFL);
        loop_unwatch(signal_watch);
        signal_watch = NULL;
        stream_close(signal_pipe[0]);
        stream_close(signal_pipe[1]);
    }
}

/* --- Life --------------------------------------------------------------------------------------------------------------------- */

/* NO_COLOR: see no-color.org; a dumb terminal has none. */
static bool colours_wanted(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return !(no && *no) && term && *term && strcmp(term, "dumb");
}

bool terminal_possible(void)
{
    return stream_is_terminal(STDIN_FILENO) && stream_is_terminal(STDOUT_FILENO);
}

void terminal_start(bool compat)
{
    terminal = (struct monitor){
        .interactive = true,
        .compat = compat,
        .on_stdout = true,
        .name = "stdio",
        .write = terminal_write,
        .width = terminal_width,
        .colour = !compat && colours_wanted(),
        .co_ask = compat ? NULL : co_terminal_ask,
    };
    monitor_init(&terminal);
    started = true;
    readline_start();
    history_start();
    signals_start();
    input = loop_watch(STDIN_FILENO, 0, input_ready, NULL);
    monitor_banner(&terminal);
    edit();
}

void terminal_stop(void)
{
    if (!started) {
        return;
    }
    started = false;
    stop_editing();
    loop_unwatch(input);
    signals_stop();
    if (history_path) {
        history_truncate_file(history_path, HISTORY_LINES);
        free(history_path);
        history_path = NULL;
    }
    clear_history();
    monitor_fini(&terminal);
}
