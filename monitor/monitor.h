/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor: words in, words out.  One row a command, one handler that returns a value tree, one optional printer.
 *
 *   command.c      look-up in the tables, typed arguments checked, help from the rows
 *   commands-*.c   the rows and handlers: job, block, machine, guest, script, info
 *   session.c      what all monitors share: output, history, interrupts, the request to quit, waiting
 *   hmp.c          one human line -> command + JSON arguments; errors in QEMU's words with our hints below
 *   members.c      members of JSON objects, whose types are known
 *   json-tree.c    trees for people, and their end
 *   hints.c        "did you mean", candidates
 *   chain-names.c  what a person may call an image of a chain, and what we call it
 *   chain-view.c   `info chain`: the tree and the drawing
 *   block-tree.c   query-block and its relatives as trees, and `info block`'s text from them
 *   qemu-io.c      the words of `qemu-io DISK "..."`
 *   qmp.c          JSON in, JSON out; capabilities; one session per connection
 *   qmp-commands.c QMP's table
 *   qmp-print.c                the text of it, as QEMU prints it (core/json-parse.c reads it)
 *   hmp-session.c  the human monitor on a connection
 *   events.c       listens to jobs, disks and the machine; makes QMP events and the terminal's lines
 *   chardev.c      where monitors live: stdio, unix sockets (files that appear as streams of bytes)
 *   terminal.c     readline on a terminal through its callback interface
 *   script.c       -f, -c, source; line prefixes; the transcript
 *   outcome.c      jobs that ended, and the exit code
 *   completion.c   what could come next, from the rows and the live objects
 *
 * Every command of every monitor passes co_command_run(), in a coroutine.  A handler fills `err` (first line QEMU's
 * text) or gives `*result` (new reference; NULL = nothing to say).  HMP prints the result by the row's printer (-json:
 * as JSON).  A handler that fails without filling `err` has said in its result what went wrong.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>

#include "core/error.h"

enum arg_kind {
    ARG_DEVICE,    /* a disk's id */
    ARG_DEVICE_OR_NODE,
    ARG_GUEST,     /* a disk by its id, or by its label if it has none: whose guest it is */
    ARG_JOB,
    ARG_BASE,      /* an image of the chain of the device before it; may stand in the place of an ARG_SIZE before it */
    ARG_FORMAT,    /* qcow2, raw, ... */
    ARG_FILE,      /* a path */
    ARG_STRING,    /* a word or "quoted string" */
    ARG_REST,      /* the rest of the line, as it is */
    ARG_SIZE,      /* bytes; suffixes in HMP, `unit` when there is none (QEMU's type 'o' takes MiB) */
    ARG_TIME,      /* nanoseconds; with suffixes in HMP (2ms); with a letter it is an option: -l 2ms */
    ARG_INT,
    ARG_BOOL,      /* on|off in HMP, JSON booleans in QMP */
    ARG_FLAG,      /* -x in HMP; JSON boolean in QMP */
    ARG_ENUM,      /* one of `choices` */
    ARG_COMMAND,   /* the rest of the line: a command's name (help) */
    ARG_TOPIC,     /* an info topic; the rest of the line belongs to it */
    ARG_ANY,       /* QMP: any JSON value */
    ARG_TREE,      /* QMP: what `tree` says */
};
struct block_key;
/* Words that may stand somewhere, for completion: calls offer(to, word) with each; those that do not begin as `typed` does are passed
 * over.  `before` is the word in front of it. */
typedef void completion_offer(void *to, const char *word);
typedef void command_words_fn(const char *before, const char *typed, completion_offer *offer, void *to);

struct command_arg {
    const char *name;             /* JSON key */
    enum arg_kind kind;
    bool optional;
    bool ours;                    /* QEMU has no such argument: absent under --qemu-compat */
    char letter;                  /* ARG_FLAG, ARG_TIME that is an option */
    uint64_t unit;                /* ARG_SIZE in HMP: factor without a suffix; 0 means 1 */
    const char *const *choices;   /* ARG_ENUM: the only values; ARG_REST: words for completion; NULL-terminated */
    const char *const *keys;      /* ARG_REST: words that take =VALUE, for completion; NULL-terminated */
    command_words_fn *words;      /* for completion, beside what its kind says; or NULL */
    const struct block_key *tree; /* ARG_TREE; its name and whether it is required are said here */
    const char *doc;              /* for help and the manual */
};
#define COMMAND_MAX_ARGS 24

struct monitor;
typedef int co_command_fn(struct monitor *mon, json_t *args, json_t **result, struct error *err);
struct command {
    const char *name;             /* "block_stream" in HMP tables (aliases: "stop|s"), "block-stream" in QMP's */
    struct command_arg args[COMMAND_MAX_ARGS]; /* ends at name == NULL */
    const struct block_key *whole; /* QMP: the arguments are one tree, whose members depend on one of them */
    const char *returns;          /* QMP: what *result is: "str", "any", "[any]" (a list); NULL: nothing */
    const char *params;           /* "device [speed [base]]" as QEMU's help prints it */
    const char *help;             /* QEMU's text, may have several lines */
    const char *group;            /* for our grouped help */
    const char *example;          /* may have several lines */
    co_command_fn *co_run;        /* 0, or -errno with err filled */
    void (*print)(struct monitor *mon, const json_t *args, const json_t *result); /* HMP */
    unsigned flags;
};
enum command_flags {
    COMMAND_OURS = 1,             /* QEMU has no such command: absent under --qemu-compat */
    COMMAND_PRECONFIG = 2,        /* QMP: allowed before qmp_capabilities */
    COMMAND_SCRIPT = 4,           /* wait, expect, sleep, source */
    COMMAND_FREE = 8,             /* QMP: there are other arguments than `args` says, and the handler checks all */
};
/* The tables, one array each, ended by name == NULL.  Nothing else lists commands. */
extern const struct command *const hmp_command_tables[];   /* NULL-terminated list of tables (commands-info.c) */
extern const struct command *const info_command_tables[];  /* info's topics (commands-info.c) */
extern const struct command *const qmp_command_tables[];   /* with the QMP monitor */

/* --- A monitor session ------------------------------------------------------------------------------------------ */

/* What a command, a script, the program came to: exit codes. */
enum outcome {
    OUTCOME_GOOD = 0,
    OUTCOME_NO_START = 1,
    OUTCOME_USAGE = 2,
    OUTCOME_COMMAND = 3,          /* a command failed */
    OUTCOME_JOB = 4,              /* a job failed or was left waiting for a decision */
    OUTCOME_EXPECT = 5,           /* an expectation failed */
    OUTCOME_GUEST = 6,            /* the guest saw wrong data, or an error it should not have seen */
    OUTCOME_TIMEOUT = 124,        /* a wait ran out of time */
    OUTCOME_SIGNAL = 128,         /* plus the signal's number */
};

/* How the monitors of a place speak. */
struct monitor_style {
    bool compat; /* --qemu-compat */
    bool pretty; /* QMP: indented */
    bool echo;   /* HMP: what is typed is shown by us */
};
struct script_frame;
struct monitor {
    LIST_ENTRY(monitor) link;
    bool is_qmp;
    bool interactive;             /* a person on a terminal */
    bool compat;                  /* --qemu-compat */
    bool colour;                  /* monitor_tone() colours what is written */
    bool on_stdout;               /* its text goes to the program's standard output */
    const char *name;             /* for traces: "stdio", "script FILE" */
    /* Text that a command prints, flushed when the command ends; also while it runs when it waits. */
    void (*write)(struct monitor *mon, const char *text, size_t len);
    void *arg;
    unsigned (*width)(struct monitor *mon); /* columns; NULL or 0: no limit */
    /* Ask the person who sits there, yes or no; suspends.  NULL: nobody does. */
    bool (*co_ask)(struct monitor *mon, const char *question);
    int last_status;              /* of the last command: 0 or -errno */
    enum outcome last_outcome;    /* of the last command */
    json_t *history;              /* lines typed in this session, oldest first */
    bool interrupted;             /* somebody wants the running command to end (Ctrl-C, the connection is gone) */
    struct script_frame *scripts; /* `source` in progress, innermost first (script.c) */
};
/* Put a monitor whose fields are set into the list of all, and take it out again (frees the history). */
void monitor_init(struct monitor *mon);
void monitor_fini(struct monitor *mon);

void monitor_printf(struct monitor *mon, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void monitor_puts(struct monitor *mon, const char *text);
/* What follows is of this kind, until it is TONE_PLAIN again: a colour where there are colours, else nothing. */
enum monitor_tone { TONE_PLAIN, TONE_ERROR, TONE_HINT, TONE_WARNING, TONE_NEWS, TONE_HEAD, TONE_GOOD };
void monitor_tone(struct monitor *mon, enum monitor_tone tone);
/* The same as an escape sequence, "" where there are no colours. */
const char *monitor_tone_code(const struct monitor *mon, enum monitor_tone tone);
/* "Error: text" and the hint lines. */
void monitor_error(struct monitor *mon, const struct error *err);
/* The hint lines alone; under compat only those that are QEMU's. */
void monitor_hint(struct monitor *mon, const struct error *err);
/* The greeting of a human monitor: "... monitor - type 'help' for more information". */
void monitor_banner(struct monitor *mon);
/* Any JSON value, indented, and a newline (json-tree.c).  The tree may be as deep as it likes. */
void monitor_print_json(struct monitor *mon, const json_t *value);
/* json_decref() for results: a tree of 1,000 levels does not take 1,000 frames of our small stack.  NULL is fine. */
void monitor_free_json(json_t *tree);

/* Run one human line (no prompt, no echo).  Errors are printed to the monitor.  0 or -errno.  Suspends. */
int co_hmp_run(struct monitor *mon, const char *line);

/* --- Commands ------------------------------------------------------------------------------------------------------ */
/* Check the arguments, then run: used by QMP and by HMP.  `args` is an object, or NULL for none; *result may be NULL.
 * 0 or -errno; suspends. */
int co_command_run(struct monitor *mon, const struct command *cmd, json_t *args, json_t **result, struct error *err);
/* Is there any that has not come back yet?  The end of the program waits for them. */
bool commands_running(void);
/* By name or alias; under `compat` commands of ours are not found. */
const struct command *command_find(const struct command *const *tables, const char *name, bool compat);
/* Is `word` the name or an alias of this row?  `len` bytes of it. */
bool command_is(const struct command *cmd, const char *word, size_t len);
/* Call fn for every row that this monitor may use; sorted by name. */
void command_each(const struct command *const *tables, bool compat,
                  void (*fn)(void *arg, const struct command *cmd), void *arg);
/* "name params -- help" as QEMU prints it; `prefix` is "" or "info ". */
void command_print_line(struct monitor *mon, const struct command *cmd, const char *prefix);

/* --- Waiting ------------------------------------------------------------------------------------------------------- */
/* Suspend until done(arg) is true: asked now, and anew when a job changes its state and after monitor_wake_waiters().
 * `deadline_ns` is on loop_now()'s clock, UINT64_MAX for none.  0; -ETIMEDOUT; -EINTR when the monitor was interrupted;
 * -ECANCELED when the program is to end.  `mon` may be NULL.  `done` may be NULL: a sleep. */
int co_monitor_wait(struct monitor *mon, bool (*done)(void *arg), void *arg, uint64_t deadline_ns);
/* Something that somebody may wait for has changed. */
void monitor_wake_waiters(void);
/* Make the command that runs on this monitor end early, if it waits. */
void monitor_interrupt(struct monitor *mon);

/* --- Program-wide ------------------------------------------------------------------------------------------------ */
/* Ask the program to end: -1 with the exit code that outcome_exit_code() will say, else with this one.  The first explicit
 * code stays.  main's loop looks between turns. */
void monitor_quit_request(int exit_code_or_minus_one);
bool monitor_quit_requested(void);
int monitor_quit_code(void); /* the explicit code, or -1 */

LIST_HEAD(monitor_list, monitor);
extern struct monitor_list all_monitors;

#endif
