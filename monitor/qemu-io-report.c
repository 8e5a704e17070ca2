/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers of qemu-io's commands, read and written in qemu-io's form: see qemu-io-run.h.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"
#include "monitor/qemu-io-run.h"

#define LENGTH_MAX 2147483136ull /* QEMU's largest request */
#define HUNDREDTH (NS_PER_S / 100)

/* --- Numbers in ---------------------------------------------------------------------------------------------------------- */

const char *io_amount(double value, char *buf)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned unit = 0;
    char *end;

    for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++) {
        value /= 1024;
    }
    sprintf(buf, "%.3f", value);
    end = strstr(buf, ".000");
    if (end) {
        *end = '\0';
    }
    sprintf(buf + strlen(buf), " %s", units[unit]);
    return buf;
}

int io_get_size(struct io_run *run, const char *text, uint64_t *out)
{
    int ret = size_parse(text, 1, out, NULL);

    if (!ret && *out > INT64_MAX) {
        ret = -ERANGE;
    }
    if (ret) {
        monitor_printf(run->mon, "Parsing error: %s -- %s\n",
                       ret == -ERANGE ? "argument too large" : "non-numeric argument, or extraneous/unrecognized suffix",
                       text);
        return -EINVAL;
    }
    return 0;
}

int io_get_pattern(struct io_run *run, int *out)
{
    char *end;
    long value = strtol(run->pattern, &end, 0);

    if (!*run->pattern || *end || value < 0 || value > 255) {
        monitor_printf(run->mon, "%s is not a valid pattern byte\n", run->pattern);
        return -EINVAL;
    }
    *out = value;
    return 0;
}

int io_get_range(struct io_run *run, uint64_t *offset, uint64_t *len)
{
    uint64_t more;

    if (io_get_size(run, run->argv[run->first], offset)) {
        return -EINVAL;
    }
    *len = 0;
    for (int i = run->first + 1; i < run->argc; i++) {
        if (io_get_size(run, run->argv[i], &more)) {
            return -EINVAL;
        }
        if (more > LENGTH_MAX && !run->any_length) {
            monitor_printf(run->mon, run->cmd->lengths ? "Argument '%s' exceeds maximum size %llu\n" :
                                     strchr(run->cmd->options, 'n') ? "length cannot exceed %2$llu without -n, given %1$s\n" :
                                                                      "length cannot exceed %2$llu, given %1$s\n",
                           run->argv[i], LENGTH_MAX);
            return -EINVAL;
        }
        *len += more;
        if (*len > LENGTH_MAX && !run->any_length) {
            monitor_printf(run->mon, "The total number of bytes exceed the maximum size %llu\n", LENGTH_MAX);
            return -EINVAL;
        }
    }
    return 0;
}

/* --- Reports ------------------------------------------------------------------------------------------------------------ */

static void print_duration(struct monitor *mon, unsigned long long hundredths, bool in_full)
{
    unsigned long long hours = hundredths / 360000, minutes = hundredths / 6000 % 60, seconds = hundredths / 100 % 60;

    if (hours || in_full) {
        monitor_printf(mon, "%llu:%02llu:%02llu.%02llu", hours, minutes, seconds, hundredths % 100);
    } else if (minutes) {
        monitor_printf(mon, "%02llu:%02llu.%02llu", minutes, seconds, hundredths % 100);
    } else {
        monitor_printf(mon, "%02llu.%02llu sec", seconds, hundredths % 100);
    }
}

void io_report(struct io_run *run, const char *verb, uint64_t offset, uint64_t len, uint64_t started)
{
    uint64_t ns = MAX(loop_now() - started, (uint64_t)1);
    double seconds = ns / 1e9;
    char size[48], speed[48];

    if (run->quiet) {
        return;
    }
    if (run->machine) {
        monitor_printf(run->mon, "%llu,1,", (unsigned long long)len);
        print_duration(run->mon, ns / HUNDREDTH, true);
        monitor_printf(run->mon, ",%.3f,%.3f\n", len / seconds, 1 / seconds);
        return;
    }
    monitor_printf(run->mon, "%s %llu/%llu bytes at offset %llu\n%s, 1 ops; ", verb, (unsigned long long)len,
                   (unsigned long long)len, (unsigned long long)offset, io_amount(len, size));
    print_duration(run->mon, ns / HUNDREDTH, false);
    monitor_printf(run->mon, " (%s/sec and %.4f ops/sec)\n", io_amount(len / seconds, speed), 1 / seconds);
}

int io_failed(struct io_run *run, int ret)
{
    const char *name = run->cmd->name;

    monitor_printf(run->mon, "%s failed: %s\n", strcmp(name, "aio_read") ? name : "readv", strerror(-ret));
    return ret;
}

void io_print_line(struct monitor *mon, const struct io_command *cmd)
{
    monitor_printf(mon, "%s%s%s -- %s\n", cmd->name, cmd->params ? " " : "", cmd->params ? cmd->params : "", cmd->line);
}

int io_usage(struct io_run *run)
{
    io_print_line(run->mon, run->cmd);
    return -EINVAL;
}

void io_dump(struct monitor *mon, const uint8_t *buf, uint64_t offset, size_t len)
{
    for (size_t i = 0; i < len; i += 16) {
        size_t n = MIN((size_t)16, len - i);

        monitor_printf(mon, "%08llx: ", (unsigned long long)(offset + i));
        for (size_t j = 0; j < n; j++) {
            monitor_printf(mon, " %02x", buf[i + j]);
        }
        monitor_puts(mon, "  ");
        for (size_t j = 0; j < n; j++) {
            monitor_printf(mon, "%c", isalnum(buf[i + j]) ? buf[i + j] : '.');
        }
        monitor_puts(mon, "\n");
    }
}
