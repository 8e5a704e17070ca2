/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of commands, the help that is made from it, and the parser of options.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "img/command.h"

#define LONG_ONLY 256 /* getopt's value of option i without a letter: this and i */

/* --- The table ---------------------------------------------------------------------------------------------------- */

#define HELP { 'h', "help", NULL, NULL }
#define QUIET { 'q', "quiet", NULL, NULL }
#define FORMAT { 'f', "format", "fmt", NULL }
#define IMAGE_OPTS { 0, "image-opts", NULL, NULL }
#define OUTPUT { 0, "output", "ofmt", NULL }
#define SHARE { 'U', "force-share", NULL, NULL }
#define OBJECT { 0, "object", "objectdef", img_check_object }
#define SNAPSHOT_PARAM { 'l', NULL, "snapshot_param", img_check_snapshot_param }
#define FLAG(letter) { letter, NULL, NULL, NULL }
#define LONG_FLAG(name) { 0, name, NULL, NULL }
#define TAKES(letter, value) { letter, NULL, value, NULL }
#define END { 0, NULL, NULL, NULL }

static const struct img_option check_options[] = {
    HELP, OBJECT, IMAGE_OPTS, FLAG('q'), FORMAT, OUTPUT, { 'r', "repair", "leaks|all", img_check_repair },
    TAKES('T', "src_cache"), SHARE, END,
};
/* A wrong object is no difference. */
static int check_object_for_compare(const char *text)
{
    int code = img_check_object(text);

    return code == 1 ? 2 : code;
}
static const struct img_option compare_options[] = {
    HELP, { 0, "object", "objectdef", check_object_for_compare }, IMAGE_OPTS, FORMAT, TAKES('F', "fmt"),
    TAKES('T', "src_cache"), FLAG('p'), FLAG('q'), FLAG('s'), SHARE, END,
};
static const struct img_option convert_options[] = {
    HELP, OBJECT, IMAGE_OPTS, LONG_FLAG("target-image-opts"), LONG_FLAG("target-is-zero"), LONG_FLAG("bitmaps"),
    LONG_FLAG("skip-broken-bitmaps"), SHARE, FLAG('C'), FLAG('c'), FLAG('p'), FLAG('q'), FLAG('n'), TAKES('f', "fmt"),
    TAKES('t', "cache"), TAKES('T', "src_cache"), TAKES('O', "output_fmt"), TAKES('B', "backing_file"),
    TAKES('F', "backing_fmt"), { 'o', NULL, "options", img_check_list }, SNAPSHOT_PARAM,
    { 'S', NULL, "sparse_size", img_check_sparse }, { 'r', NULL, "rate_limit", img_check_rate },
    { 'm', NULL, "num_coroutines", img_check_workers }, FLAG('W'), LONG_FLAG("salvage"), END,
};
static const struct img_option create_options[] = {
    HELP, OBJECT, FLAG('q'), TAKES('f', "fmt"), TAKES('b', "backing_file"), TAKES('F', "backing_fmt"), FLAG('u'),
    { 'o', NULL, "options", img_check_list }, END,
};
static const struct img_option info_options[] = {
    HELP, OBJECT, IMAGE_OPTS, FORMAT, OUTPUT, LONG_FLAG("backing-chain"), SHARE, END,
};
static const struct img_option map_options[] = {
    HELP, OBJECT, IMAGE_OPTS, FORMAT, { 's', "start-offset", "offset", img_check_start },
    { 'l', "max-length", "len", img_check_length }, OUTPUT, SHARE, END,
};
static const struct img_option measure_options[] = {
    HELP, OBJECT, IMAGE_OPTS, FORMAT, { 'o', NULL, "options", img_check_list }, TAKES('O', "output_fmt"),
    { 0, "output", "ofmt", img_check_form }, { 0, "size", "N", img_check_image_size }, SNAPSHOT_PARAM, SHARE, END,
};
static const struct img_option rebase_options[] = {
    HELP, OBJECT, IMAGE_OPTS, SHARE, FLAG('q'), FORMAT, TAKES('t', "cache"), TAKES('T', "src_cache"), FLAG('p'),
    FLAG('u'), TAKES('b', "backing_file"), TAKES('F', "backing_fmt"), END,
};
static const struct img_option resize_options[] = {
    HELP, OBJECT, IMAGE_OPTS, FORMAT, FLAG('q'), { 0, "preallocation", "prealloc", img_check_preallocation },
    LONG_FLAG("shrink"), END,
};
static const struct img_option snapshot_options[] = {
    HELP, OBJECT, IMAGE_OPTS, SHARE, FLAG('q'), FLAG('l'), TAKES('a', "snapshot"), TAKES('c', "snapshot"),
    TAKES('d', "snapshot"), END,
};

static const struct img_command commands[] = {
    { "check", check_options, "filename", false, co_img_check },
    { "compare", compare_options, "filename1 filename2", false, co_img_compare },
    { "convert", convert_options, "filename [filename2 [...]] output_filename", false, co_img_convert },
    { "create", create_options, "filename [size]", false, co_img_create },
    { "info", info_options, "filename", false, co_img_info },
    { "map", map_options, "filename", false, co_img_map },
    { "measure", measure_options, "[filename]", false, co_img_measure },
    { "rebase", rebase_options, "filename", false, co_img_rebase },
    { "resize", resize_options, "filename [+|-]size", true, co_img_resize },
    { "snapshot", snapshot_options, "filename", false, co_img_snapshot },
};

const struct img_command *img_command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(commands[i].name, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

/* --- Help --------------------------------------------------------------------------------------------------------- */

static void print_usage(const struct img_command *command)
{
    printf("  %s", command->name);
    for (const struct img_option *o = command->options; o->letter || o->name; o++) {
        if (o->letter == 'h') {
            continue;
        }
        if (o->letter) {
            printf(" [-%c%s%s]", o->letter, o->value ? " " : "", o->value ? o->value : "");
        } else {
            printf(" [--%s%s%s]", o->name, o->value ? "=" : "", o->value ? o->value : "");
        }
    }
    printf(" %s\n", command->operands);
}

void img_print_help(void)
{
    printf("%s version %s\n"
           "usage: %s [standard options] command [command options]\n"
           "Disk images: make them, look at them, change them\n"
           "\n"
           "    '-h', '--help'       display this help and exit\n"
           "    '-V', '--version'    output version information and exit\n"
           "\n"
           "Command syntax:\n",
           img_program(), MERGANSER_VERSION, img_program());
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        print_usage(&commands[i]);
    }
    printf("\nSupported formats:");
    for (const struct driver *const *d = driver_list(); *d; d++) {
        printf(" %s", (*d)->name);
    }
    printf("\n");
}

/* What commands and options are about, for the manual: an option means the same wherever it is, unless a row names the
 * command.  Rows end with an empty one. */
static const struct meaning {
    const char *command, *option, *text;
} meanings[] = {
    { "check", NULL, "Look whether an image is sound; with -r, mend it." },
    { "compare", NULL, "Do two images have the same content?  Exit code 0: yes; 1: no." },
    { "convert", NULL, "Copy the content of images, one behind the other, into a new one." },
    { "create", NULL, "Make an image." },
    { "info", NULL, "Say what an image is, and what it rests on." },
    { "map", NULL, "Say which layer holds what, and where." },
    { "measure", NULL, "Say how large the result of a conversion would be." },
    { "rebase", NULL, "Give an image another backing file; without -u its content stays the same." },
    { "resize", NULL, "Give an image another size, or a size relative to the old one." },
    { "snapshot", NULL, "List, apply, make or delete internal snapshots." },
    { NULL, "h", "Print the usage." },
    { NULL, "image-opts", "The file names are options (driver=qcow2,file.filename=...)." },
    { NULL, "target-image-opts", "As --image-opts, for the output." },
    { NULL, "target-is-zero", "The output reads as zeroes already: write none." },
    { NULL, "output", "human (unless given) or json." },
    { NULL, "U", "Look at an image that another program is writing." },
    { NULL, "f", "The image's format; guessed unless given." },
    { "compare", "F", "The second image's format." },
    { NULL, "F", "The format of the backing file." },
    { NULL, "q", "Say nothing but errors." },
    { NULL, "p", "Show progress." },
    { "convert", "r", "Write at most so many bytes a second." },
    { NULL, "r", "Mend leaks, or everything." },
    { NULL, "T", "The cache mode for reading: none, writeback, ..." },
    { NULL, "t", "The cache mode for writing." },
    { "compare", "s", "Strict: another size, or another allocation, is a difference." },
    { NULL, "s", "Begin at this offset." },
    { "map", "l", "Go on for so many bytes." },
    { NULL, "l", "Of this internal snapshot: its name or ID, or snapshot.id=ID,snapshot.name=NAME." },
    { "snapshot", "l", "List the snapshots." },
    { "snapshot", "a", "Make the active state what this snapshot holds." },
    { "snapshot", "c", "Make a snapshot of this name." },
    { "snapshot", "d", "Delete the snapshot of this name." },
    { NULL, "n", "Write into an image that is there." },
    { NULL, "c", "Compress clusters." },
    { NULL, "C", "Let the host copy where it can, and look for no zeroes." },
    { NULL, "salvage", "What cannot be read becomes zeroes, and a warning." },
    { NULL, "bitmaps", "Refuse to lose persistent bitmaps: they are not copied." },
    { NULL, "skip-broken-bitmaps", "Goes with --bitmaps." },
    { NULL, "object", "Taken for the sake of qemu-img's command lines: nothing here needs one." },
    { NULL, "preallocation", "What is allocated for the new part: off, metadata, falloc or full." },
    { NULL, "O", "The output's format (raw unless given)." },
    { NULL, "B", "The backing file of the output: what it holds is not copied." },
    { NULL, "b", "The backing file." },
    { NULL, "o", "Options of the format, -o help lists them." },
    { NULL, "S", "So many zero bytes in a row are not written; 0: everything is." },
    { NULL, "m", "How many pieces are on their way at the same time." },
    { NULL, "W", "They may be written in any order." },
    { NULL, "backing-chain", "Also of all images below." },
    { NULL, "size", "Of an image of this size, instead of a file's." },
    { "create", "u", "The backing file need not be there." },
    { NULL, "u", "Change the name only: the content below is known to be the same." },
    { NULL, "shrink", "The new size may be smaller: what lies behind it is lost." },
    { 0 },
};

static const char *meaning_of(const struct img_command *command, const struct img_option *o)
{
    char letter[2] = { o ? o->letter : 0, '\0' };
    const char *key = !o ? NULL : o->letter ? letter : o->name;

    for (const struct meaning *m = meanings; m->text; m++) {
        bool here = m->command ? !strcmp(m->command, command->name) : key != NULL;
        bool same = key && m->option ? !strcmp(m->option, key) : !key && !m->option;

        if (here && same) {
            return m->text;
        }
    }
    return "";
}

static json_t *option_row(const struct img_command *command, const struct img_option *o)
{
    char letter[2] = { o->letter, '\0' };
    json_t *row = json_object();

    if (o->letter) {
        json_object_set_new(row, "letter", json_string(letter));
    }
    if (o->name) {
        json_object_set_new(row, "name", json_string(o->name));
    }
    if (o->value) {
        json_object_set_new(row, "value", json_string(o->value));
    }
    json_object_set_new(row, "help", json_string(meaning_of(command, o)));
    return row;
}

void img_print_tables(void)
{
    json_t *all = json_object(), *list = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        json_t *row = json_object(), *options = json_array();

        json_object_set_new(row, "name", json_string(commands[i].name));
        json_object_set_new(row, "operands", json_string(commands[i].operands));
        json_object_set_new(row, "help", json_string(meaning_of(&commands[i], NULL)));
        for (const struct img_option *o = commands[i].options; o->letter || o->name; o++) {
            json_array_append_new(options, option_row(&commands[i], o));
        }
        json_object_set_new(row, "options", options);
        json_array_append_new(list, row);
    }
    json_object_set_new(all, "version", json_string(MERGANSER_VERSION));
    json_object_set_new(all, "commands", list);
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

/* --- Options ------------------------------------------------------------------------------------------------------ */

struct getopt_words {
    char letters[128];
    struct option *longs;
};

/* The row's options as getopt_long() wants them. */
static void make_words(const struct img_command *command, struct getopt_words *w)
{
    size_t n = 0, at = 0;

    while (command->options[n].letter || command->options[n].name) {
        n++;
    }
    w->longs = mem_calloc(n + 1, sizeof(*w->longs));
    w->letters[at++] = ':';
    for (size_t i = 0, k = 0; i < n; i++) {
        const struct img_option *o = &command->options[i];

        if (o->letter) {
            w->letters[at++] = o->letter;
            if (o->value) {
                w->letters[at++] = ':';
            }
        }
        if (o->name) {
            w->longs[k++] = (struct option){ o->name, o->value ? required_argument : no_argument, NULL,
                                             o->letter ? o->letter : LONG_ONLY + (int)i };
        }
    }
    w->letters[at] = '\0';
}

static const struct img_option *option_of(const struct img_command *command, int c)
{
    const struct img_option *o = command->options;

    if (c >= LONG_ONLY) {
        return &o[c - LONG_ONLY];
    }
    while (o->letter != c) {
        o++;
    }
    return o;
}

static int take_all(struct img_args *args, const struct getopt_words *w, int argc, char **argv, int *code)
{
    int c;

    optind = 0; /* anew */
    opterr = 0;
    while ((c = getopt_long(argc, argv, w->letters, w->longs, NULL)) != -1) {
        if (c == ':') {
            *code = img_complain_usage("missing argument for option '%s'", argv[optind - 1]);
            return -1;
        }
        if (c == '?') {
            *code = img_complain_usage("unrecognized option '%s'", argv[optind - 1]);
            return -1;
        }
        if (c == 'h') {
            img_print_help();
            *code = 0;
            return -1;
        }
        const struct img_option *o = option_of(args->command, c);
        int ret = o->check ? o->check(optarg) : 0;

        if (ret) {
            *code = ret == IMG_DONE ? 0 : ret;
            return -1;
        }
        args->given = mem_reallocarray(args->given, args->n_given + 1, sizeof(*args->given));
        args->given[args->n_given++] = (struct img_given){ o, optarg };
    }
    args->operands = argv + optind;
    args->n_operands = argc - optind;
    return 0;
}

int img_args_parse(struct img_args *args, const struct img_command *command, int argc, char **argv, int *code)
{
    struct getopt_words w;

    *args = (struct img_args){ .command = command };
    make_words(command, &w);
    /* Help stays help: "resize --help" has no size. */
    bool last = command->last_is_operand && strcmp(argv[argc - 1], "--help") && strcmp(argv[argc - 1], "-h");

    if (last && argc < 3) {
        *code = img_complain_usage("Not enough arguments");
        free(w.longs);
        return -1;
    }
    int ret = take_all(args, &w, argc - last, argv, code);

    args->n_operands += last;

    free(w.longs);
    return ret;
}

void img_args_free(struct img_args *args)
{
    free(args->given);
}

static bool is_called(const struct img_option *o, const char *key)
{
    return key[1] ? o->name && !strcmp(o->name, key) : o->letter == key[0];
}

bool img_has(const struct img_args *args, const char *key)
{
    for (size_t i = 0; i < args->n_given; i++) {
        if (is_called(args->given[i].option, key)) {
            return true;
        }
    }
    return false;
}

const char *img_value(const struct img_args *args, const char *key)
{
    for (size_t i = args->n_given; i > 0; i--) {
        if (is_called(args->given[i - 1].option, key)) {
            return args->given[i - 1].value;
        }
    }
    return NULL;
}
