/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line.  One table (options.c) lists the options; --help is made from it.
 *
 * One dash or two, as in QEMU; a value is the next word, or stands behind a '='.  What is wrong
 * with the line itself is found here, before anything is opened.
 */
#ifndef START_OPTIONS_H
#define START_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"
#include "core/loop.h"
#include "monitor/chardev.h"
#include "monitor/monitor.h"
#include "start/drive.h"

/* A row of the table of options: --help, the manual and completions are made from it. */
struct options;
struct given;
struct option {
    const char *name;
    const char *value; /* what --help calls it; NULL: it has none */
    const char *group;
    const char *help;  /* may have several lines; NULL: another row has said it */
    bool two_dashes;   /* how --help shows it; both forms are taken */
    int (*take)(struct options *o, const struct given *g, struct error *err);
};
const struct option *option_rows(size_t *count);

/* `shown`: the option as typed, for errors. */
struct option_guest {
    char *shown;
    json_t *words; /* with or without "disk" */
};
/* -chardev, or what -monitor and -qmp bring along. */
enum place_use { PLACE_IDLE, PLACE_HUMAN, PLACE_QMP };
struct option_place {
    char *shown;
    enum place_use use; /* the human monitor on stdio is the terminal's: see human_stdio */
    struct monitor_style style;
    struct chardev_spec spec;
};
/* -mon */
struct option_mon {
    char *shown, *chardev;
    bool qmp, pretty;
};
struct option_script {
    bool is_file;
    char *text; /* the path, or the command */
};

enum option_errors { ERRORS_DEFAULT, ERRORS_STOP, ERRORS_CONTINUE };

struct options {
    struct drives disks;
    struct option_guest *guests;
    size_t guest_count;
    struct option_place *places;
    size_t place_count;
    struct option_mon *mons; /* joined with their places already */
    size_t mon_count;
    struct option_script *scripts; /* in the order given */
    size_t script_count;
    bool human_stdio; /* the human monitor is on standard input and output */
    bool stdin_may_end; /* nobody asked for that monitor, others were asked for: its end is not the program's */
    bool stopped;     /* -S */
    bool no_defaults; /* -nodefaults: no demonstration */
    bool daemonize;
    bool timestamp, guest_name; /* before messages */
    bool done;                  /* all that was asked for has been printed */
    char *pidfile, *logfile;    /* NULL: none */
    struct option_tree *objects;
    size_t object_count;
    int usage_code; /* when options_parse() fails: of the program */
    bool compat;      /* --qemu-compat */
    bool safe;        /* --safe */
    bool sandbox, landlock_optional;
    bool help, help_all, version, tables;
    enum option_errors on_error;
    enum loop_clock clock;
    bool has_seed;
    uint64_t seed;
    uint64_t map_cache_size; /* bytes for all chain maps together; 0: the usual */
    char *name, *uuid; /* NULL: not given */
    /* private to options.c */
    bool monitor_given, stdio_taken;
    json_t *hardware; /* what was said of the machine: hardware.h */
    char *where; /* -readconfig: the line that is wrong */
    bool bare;   /* QEMU's complaint about the last option does not name it */
};

/* 0; or -EINVAL with the sentence in err and the option as typed in *shown (malloc'ed, may be
 * NULL). */
int options_parse(struct options *o, int argc, char **argv, char **shown, struct error *err);
void options_free(struct options *o);
void options_print_help(FILE *out, bool all); /* option-help.c */
/* Is it --sim, whose words follow? */
bool options_are_sim(int argc, char **argv);
/* One more drive; takes over `keys`, copies `shown`. */
void options_add_drive(struct options *o, const char *shown, json_t *keys);

#endif
