/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor: words in, words out.  One row a command, one handler that returns a value tree, one optional printer.
 *
 *   command.c      the tables' type, look-up, typed arguments (check and convert), help from the rows
 *   commands-*.c   the rows and handlers: job, block, machine, guest, script, info
 *   hmp.c          one human line -> command + json arguments; errors in QEMU's words with our hints below
 *   qmp.c          JSON in, JSON out; capabilities; one session per connection
 *   events.c       listens to jobs, disks and the machine; makes QMP events and the terminal's lines
 *   chardev.c      where monitors live: stdio, unix sockets (files that appear as streams of bytes)
 *   terminal.c     readline on a terminal through its callback interface
 *   script.c       -f, -c, source; wait, expect; exit codes
 *   completion.c   what could come next, from the rows and the live objects
 *
 * Every command of every monitor passes command_run(), in a coroutine.  A handler fills `err` (first line QEMU's text)
 * or gives `*result` (new reference; NULL = nothing to say).  HMP prints the result by the row's printer (-json: as JSON).
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/queue.h>

#include "core/error.h"

enum arg_kind {
    ARG_DEVICE,    /* a disk's id */
    ARG_DEVICE_OR_NODE,
    ARG_NODE,
    ARG_JOB,
    ARG_BASE,      /* an image of the chain of the device before it */
    ARG_FORMAT,    /* qcow2, raw, ... */
    ARG_FILE,      /* a path */
    ARG_STRING,    /* a word or "quoted string" */
    ARG_REST,      /* the rest of the line, as it is */
    ARG_SIZE,      /* bytes by default, suffixes (HMP type 'o' is MiB by default: unit in `unit`) */
    ARG_INT,
    ARG_BOOL,      /* on|off in HMP, JSON booleans in QMP */
    ARG_FLAG,      /* -x in HMP; JSON boolean in QMP */
    ARG_ENUM,      /* one of `choices` */
    ARG_COMMAND,   /* a command's name (help) */
    ARG_TOPIC,     /* an info topic */
    ARG_ANY,       /* QMP: any JSON value */
};
struct command_arg {
    const char *name;             /* JSON key */
    enum arg_kind kind;
    bool optional;
    char letter;                  /* ARG_FLAG */
    uint64_t unit;                /* ARG_SIZE in HMP: factor without a suffix; 0 means 1 */
    const char *const *choices;   /* ARG_ENUM, NULL-terminated */
    const char *doc;              /* for help and the manual */
};
#define COMMAND_MAX_ARGS 16

struct monitor;
typedef int co_command_fn(struct monitor *mon, json_t *args, json_t **result, struct error *err);
struct command {
    const char *name;             /* "block_stream" in HMP tables, "block-stream" in QMP's */
    struct command_arg args[COMMAND_MAX_ARGS]; /* ends at name == NULL */
    const char *params;           /* "device [speed [base]]" as QEMU's help prints it */
    const char *help;             /* one line, as QEMU's */
    const char *group;            /* for our grouped help */
    const char *example;
    co_command_fn *co_run;        /* 0, or -errno with err filled */
    void (*print)(struct monitor *mon, const json_t *result); /* HMP */
    unsigned flags;
};
enum command_flags {
    COMMAND_OURS = 1,             /* QEMU has no such command: absent under --qemu-compat */
    COMMAND_PRECONFIG = 2,        /* QMP: allowed before qmp_capabilities */
    COMMAND_SCRIPT = 4,           /* wait, expect, sleep, source */
};
/* The tables, one array each, ended by name == NULL. main hands them down so that nothing else lists commands. */
extern const struct command *const hmp_command_tables[];   /* NULL-terminated list of tables */
extern const struct command *const info_command_tables[];  /* info's topics */
extern const struct command *const qmp_command_tables[];

/* --- A monitor session ------------------------------------------------------------------------------------------ */
struct monitor {
    LIST_ENTRY(monitor) link;
    bool is_qmp;
    bool interactive;             /* a person on a terminal */
    bool compat;                  /* --qemu-compat */
    const char *name;             /* for traces: "stdio", "script FILE" */
    /* Text that a command prints, flushed when the command ends; also while it runs when it waits. */
    void (*write)(struct monitor *mon, const char *text, size_t len);
    void *arg;
    int last_status;              /* of the last command: 0 or -errno */
};
void monitor_printf(struct monitor *mon, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void monitor_puts(struct monitor *mon, const char *text);
/* "Error: text" and the hint lines. */
void monitor_error(struct monitor *mon, const struct error *err);

/* Run one human line (no prompt, no echo).  Errors are printed to the monitor.  0 or -errno.  Suspends. */
int co_hmp_run(struct monitor *mon, const char *line);
/* Find and check arguments, then run: used by QMP and by hmp.  *result may be NULL. */
int co_command_run(struct monitor *mon, const struct command *cmd, json_t *args, json_t **result, struct error *err);
const struct command *command_find(const struct command *const *tables, const char *name);

/* --- Program-wide ------------------------------------------------------------------------------------------------ */
/* Ask the program to end (quit command, signal, end of the script); main's loop sees it. */
void monitor_quit_request(int exit_code_or_minus_one);
bool monitor_quit_requested(void);

#endif
