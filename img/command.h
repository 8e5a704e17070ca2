/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * merganser-img: commands, and what they share.
 *
 * A command is one row of a table (command.c): its name, its options, what stands behind them, and a coroutine that does it
 * and returns the exit code.  --help and the parser of the command line are made from the rows.
 *
 * Words, output and exit codes are qemu-img's, so that scripts need not care which of the two they call: results go to
 * standard output, complaints to standard error behind the name that the program was called by.
 */
#ifndef IMG_COMMAND_H
#define IMG_COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/node.h"
#include "core/error.h"

/* One way to write an option; rows end with an empty one.  A letter, a long name, or both. */
struct img_option {
    char letter;
    const char *name;
    const char *value; /* what --help calls it; NULL: it has none */
    /* Is the value good?  Asked as soon as it is read; complains, and returns an exit code, 0 or IMG_DONE.  May be NULL. */
    int (*check)(const char *value);
};
#define IMG_DONE (-1) /* all is said: exit code 0 */
struct img_given {
    const struct img_option *option;
    const char *value; /* NULL: the option has none */
};
struct img_args {
    const struct img_command *command;
    struct img_given *given; /* in the order of the command line */
    size_t n_given;
    char **operands;
    int n_operands;
};
struct img_command {
    const char *name;
    const struct img_option *options;
    const char *operands; /* for --help */
    bool last_is_operand; /* the last word, even if it begins with a dash */
    int (*co_run)(const struct img_args *args);
};

/* --- command.c ---------------------------------------------------------------------------------------------------- */
const struct img_command *img_command_find(const char *name);
void img_print_help(void);
/* All rows as JSON, for scripts/manual. */
void img_print_tables(void);
/* argv[0] is the command.  0; or -1 when all is said, with the exit code in *code. */
int img_args_parse(struct img_args *args, const struct img_command *command, int argc, char **argv, int *code);
void img_args_free(struct img_args *args);
/* `key` is a long name, or a letter.  The value given last (NULL: not given), and whether it was given. */
const char *img_value(const struct img_args *args, const char *key);
bool img_has(const struct img_args *args, const char *key);

/* --- output.c ----------------------------------------------------------------------------------------------------- */
void img_set_program(const char *argv0);
const char *img_program(void);
/* "merganser-img: <words>" on standard error; what was printed before comes before it. */
void img_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with a line that points to --help; returns the exit code. */
int img_complain_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* To standard output, for lines that hold words of strangers (names in images): a terminal only shows them. */
void img_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* An error and its hint; clears it. */
void img_complain_error(struct error *err);
/* "[\n    {...}\n]": QEMU's order of members. */
void img_print_json(const json_t *value);
/* SIGUSR1 asks for the progress of a command that shows none. */
void img_progress_listen(void);
/* A running percentage on one line of standard output, as with -p; without it, a line on standard error whenever it was asked
 * for. */
struct img_progress {
    bool on;
    float step; /* percent: smaller ones are not printed */
    float current, printed;
};
void img_progress_begin(struct img_progress *p, bool on, float step);
void img_progress_set(struct img_progress *p, uint64_t done, uint64_t total);
void img_progress_end(struct img_progress *p);

/* --- words.c: values of options ----------------------------------------------------------------------------------- */
/* All return 0, or -1 when the complaint is printed. */
/* A size; `what` is how complaints call it. */
int img_take_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* --output: is it json? */
int img_take_output(const struct img_args *args, bool *json);
/* Is it a cache mode (NULL: yes)?  `what` begins the complaint: "Invalid cache option". */
int img_check_cache(const char *mode, const char *what);
/* convert's -S, -m and -r; a NULL leaves *out alone. */
int img_take_sparse(const char *text, uint64_t *out);
int img_take_workers(const char *text, unsigned *out);
int img_take_rate(const char *text, uint64_t *out);
/* A good mode as the option "cache" of a node. */
json_t *img_cache_options(const char *mode);

/* --- checks of values: see struct img_option ---------------------------------------------------------------------- */
int img_check_object(const char *text); /* object.c */
int img_check_list(const char *text);   /* create-options.c */
int img_check_preallocation(const char *text); /* resize.c */
/* snapshot.c: a name, or "snapshot.id=ID,snapshot.name=NAME". */
int img_check_snapshot_param(const char *text);
/* words.c */
int img_check_sparse(const char *text);
int img_check_workers(const char *text);
int img_check_rate(const char *text);
int img_check_start(const char *text);
int img_check_length(const char *text);
int img_check_image_size(const char *text);
int img_check_form(const char *text);
int img_check_repair(const char *text);

/* --- open.c ------------------------------------------------------------------------------------------------------- */
struct img_open {
    const char *filename; /* or the text of --image-opts */
    const char *format;   /* NULL: find out */
    const char *cache;    /* a mode, checked; NULL: writeback */
    bool image_opts, writable, no_backing, share;
};
/* A reference, or NULL when the complaint is printed. */
struct node *co_img_open(const struct img_open *open);
/* What -f, --image-opts and -U of a command say; -1 when they do not go together. */
int img_open_args(const struct img_args *args, struct img_open *out);

/* --- snapshot.c --------------------------------------------------------------------------------------------------- */
/* qcow2_snapshot_trees() as a table. */
void img_print_snapshots(const json_t *list);
/* -l of convert and measure: the image, which only this command reads, shows a snapshot from now on.  `param` is a name, an ID, or
 * "snapshot.id=ID,snapshot.name=NAME".  0, or -1 when the complaint is printed. */
int co_img_show_snapshot(struct node *node, const char *param);

/* --- create-options.c: -o ----------------------------------------------------------------------------------------- */
/* What -o (all of them) say, as one list; malloc'ed, NULL when there is none. */
char *img_creation_list(const struct img_args *args);
bool img_creation_wants_help(const char *list);
/* The list for people; `filename` NULL: without what the host's files offer.  Returns the exit code. */
int img_creation_help(const char *format, const char *filename);
/* Parse into an object: sizes and numbers become integers, switches booleans, the rest strings.  Adds to `options`. */
int img_creation_parse(const struct driver *driver, const char *list, json_t *options, struct error *err);
bool img_creation_knows(const struct driver *driver, const char *name);
/* "cluster_size=65536 extended_l2=off ...", in QEMU's order and with its defaults. */
void img_creation_print(const struct driver *driver, const json_t *options);
/* Make the image: what the driver's co_create says, with QEMU's words where it differs. */
int co_img_creation_make(const struct driver *driver, const char *filename, json_t *options, struct error *err);

/* --- the commands ------------------------------------------------------------------------------------------------- */
int co_img_check(const struct img_args *args);
int co_img_compare(const struct img_args *args);
int co_img_convert(const struct img_args *args);
int co_img_create(const struct img_args *args);
int co_img_info(const struct img_args *args);
int co_img_map(const struct img_args *args);
int co_img_measure(const struct img_args *args);
int co_img_rebase(const struct img_args *args);
int co_img_resize(const struct img_args *args);
int co_img_snapshot(const struct img_args *args);

#endif
