/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * merganser-img: the tool's table of drivers, and its life: one command, in one coroutine.
 */
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/filter.h"
#include "block/qcow2.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "img/command.h"

static const struct driver *const drivers[] = { &driver_qcow2, &driver_raw, &driver_file, &driver_blkdebug,
                                                &driver_copy_on_read, &driver_null_aio, &driver_null_co, &driver_throttle,
                                                NULL };

static void image_corrupted(struct node *node, const char *device, const char *msg, uint64_t offset, uint64_t size, bool fatal)
{
    fprintf(stderr, "%s: %s: %s; further %scorruption events will be suppressed\n", node->driver->name,
            fatal ? "Marking image as corrupt" : "Image is corrupt", msg, fatal ? "" : "non-fatal ");
}

static const struct block_listener ears = { .image_corrupted = image_corrupted };

struct work {
    const struct img_args *args;
    int code;
};

static void CO_ENTRY work(void *arg)
{
    struct work *w = arg;

    w->code = w->args->command->co_run(w->args);
}

static int run(const struct img_command *command, int argc, char **argv)
{
    struct img_args args;
    struct work w = { .args = &args };

    if (img_args_parse(&args, command, argc, argv, &w.code) == 0) {
        loop_init(LOOP_CLOCK_REAL, 0);
        io_init();
        loop_run_co(work, &w);
        io_fini();
        loop_fini();
        co_pool_drain();
    }
    img_args_free(&args);
    if (fflush(stdout) != 0 && w.code == 0) {
        img_complain("cannot write to standard output");
        w.code = 1;
    }
    return w.code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "version", no_argument, NULL, 'V' },
                                             { "tables", no_argument, NULL, 't' },
                                             { 0 } };
    const struct img_command *command;
    int c;

    mem_init();
    setlocale(LC_CTYPE, "");
    json_object_seed(loop_entropy() | 1); /* it would ask the host itself */
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error like others */
    img_progress_listen();
    img_set_program(argv[0]);
    node_set_drivers(drivers);
    block_set_listener(&ears);
    opterr = 0;
    while ((c = getopt_long(argc, argv, "+:hV", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            img_print_help();
            return 0;
        case 'V':
            printf("%s version %s\n", img_program(), MERGANSER_VERSION);
            return 0;
        case 't':
            img_print_tables();
            return 0;
        default:
            return img_complain_usage("unrecognized option '%s'", argv[optind - 1]);
        }
    }
    if (optind >= argc) {
        return img_complain_usage("Not enough arguments");
    }
    command = img_command_find(argv[optind]);
    if (!command) {
        return img_complain_usage("Command not found: %s", argv[optind]);
    }
    return run(command, argc - optind, argv + optind);
}
