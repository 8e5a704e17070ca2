/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside qemu-io: shared by the qemu-io*.c files only.
 *
 *   qemu-io.c           the table, options, help; what is allocated where
 *   qemu-io-requests.c  read, write, discard, flush
 *   qemu-io-report.c    numbers in and out: arguments, the lines that tell how it went
 */
#ifndef MONITOR_QEMU_IO_RUN_H
#define MONITOR_QEMU_IO_RUN_H

#include "block/node.h"
#include "block/permission.h"
#include "monitor/monitor.h"

struct io_command;
struct io_run {
    struct monitor *mon;
    struct node *node;
    const struct io_command *cmd;
    int argc;
    char **argv;
    /* What the options said. */
    bool machine, quiet, dump, zero, unmap, no_fallback, fua;
    bool any_length; /* not only what fits into one request */
    const char *pattern, *source, *skip, *length;
    int first; /* the first argument behind the options, in argv */
};
struct io_command {
    const char *name, *alias;
    int (*co_run)(struct io_run *run);
    int min, max;        /* arguments; max -1: any number */
    bool writes, lengths; /* lengths: there may be several, which add up */
    const char *options; /* as getopt has them */
    const char *params; /* NULL: none */
    const char *line, *help;
};

/* --- qemu-io-report.c: all say themselves, on the monitor, what is wrong. ------------------------------------------- */
/* "64 KiB", "3.750 MiB", "512 bytes"; `buf` holds 48 bytes or more; returns it. */
const char *io_amount(double value, char *buf);
int io_get_size(struct io_run *run, const char *text, uint64_t *out);
int io_get_pattern(struct io_run *run, int *out);
/* Offset and length in the first two arguments behind the options; further lengths add up. */
int io_get_range(struct io_run *run, uint64_t *offset, uint64_t *len);
/* "wrote 512/512 bytes at offset 0" and how fast; `started` on loop_now()'s clock. */
void io_report(struct io_run *run, const char *verb, uint64_t offset, uint64_t len, uint64_t started);
/* "read failed: ..."; returns ret. */
int io_failed(struct io_run *run, int ret);
void io_print_line(struct monitor *mon, const struct io_command *cmd);
/* The command's line of help, for who used it wrongly; returns -EINVAL. */
int io_usage(struct io_run *run);
void io_dump(struct monitor *mon, const uint8_t *buf, uint64_t offset, size_t len);

/* --- qemu-io-requests.c: 0 or -errno, said on the monitor. ------------------------------------------------------------ */
int co_io_cmd_read(struct io_run *run);
int co_io_cmd_write(struct io_run *run);
int co_io_cmd_discard(struct io_run *run);
int co_io_cmd_flush(struct io_run *run);

#endif
