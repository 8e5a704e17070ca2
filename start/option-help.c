/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --help and -help all, from the table of options.
 */
#include <stdio.h>
#include <string.h>

#include "start/option-rows.h"

static const char introduction[] =
    "usage: merganser [options] [IMAGE]\n\n"
    "Boots disks on image chains, lets simulated guests work on them, and opens a\n"
    "monitor to merge, snapshot and inspect the chains meanwhile. Without any image\n"
    "it makes a chain to try.\n";

static const char examples[] =
    "\nExamples:\n"
    "  merganser                          a chain to try, and a monitor on this terminal\n"
    "  merganser -drive file=top.qcow2,if=virtio -c 'block_stream virtio0' -c wait\n"
    "  merganser -blockdev qcow2,node-name=a,file.driver=file,file.filename=a.qcow2 \\\n"
    "            -device virtio-blk,drive=a,id=virtio0 -qmp unix:qmp,server=on,wait=off\n";

static const char ending[] =
    "\nExit codes: 0 all well, 1 could not start (QEMU's options used wrongly, too),\n"
    "2 an option of merganser's own used wrongly, 3 a command failed, 4 a job failed,\n"
    "5 an expectation failed, 6 the guest saw wrong data, 7 no memory was left,\n"
    "124 a wait ran out of time, 128+N ended by signal N.\n";

/* The first line of a row's help, or all of it. */
static void print_row(FILE *out, const struct option *row, bool whole)
{
    AUTOFREE char *left = mem_printf("%s%s%s%s", row->two_dashes ? "--" : "-", row->name, row->value ? " " : "",
                                     row->value ? row->value : "");

    if (strlen(left) > 25) {
        fprintf(out, "  %s\n", left);
        *left = '\0';
    }
    for (const char *line = row->help; *line;) {
        size_t len = strcspn(line, "\n");

        fprintf(out, "  %-25s %.*s%s\n", line == row->help ? left : "", (int)len, line,
                !whole && line[len] ? " ..." : "");
        if (!whole) {
            return;
        }
        line += len + (line[len] == '\n');
    }
}

static void print_ignored(FILE *out)
{
    size_t column = 0;
    const char *name;

    fprintf(out, "\nTaken as QEMU takes them, and listed by `info ignored`, as they are about hardware\n"
                 "that is not here:\n ");
    for (size_t i = 0; (name = ignored_option_name(i)); i++) {
        if (column + strlen(name) > 75) {
            fprintf(out, "\n ");
            column = 0;
        }
        column += fprintf(out, " -%s", name);
    }
    fprintf(out, "\n");
}

void options_print_help(FILE *out, bool all)
{
    const char *group = "";
    size_t count;
    const struct option *rows = option_rows(&count);

    fputs(introduction, out);
    for (size_t i = 0; i < count; i++) {
        if (!rows[i].help) {
            continue;
        }
        if (strcmp(group, rows[i].group)) {
            group = rows[i].group;
            fprintf(out, "\n%s:\n", group);
        }
        print_row(out, &rows[i], all);
    }
    if (all) {
        print_ignored(out);
    }
    fputs(examples, out);
    fputs(ending, out);
    if (!all) {
        fprintf(out, "\n-help all tells everything; -drive help, -device help and -chardev help list keys.\n");
    }
}
