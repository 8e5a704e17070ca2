/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-io's commands on nodes of the running machine: see qemu-io.h.
 *
 * One row a command.  Options are read as getopt does, wherever they stand.  Long requests are carried out in pieces, so
 * that a buffer of 2 GiB is never needed; what aio_* and *v add in qemu-io makes no difference here, they are names for
 * the same.
 */
#include "monitor/qemu-io.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"

#define PIECE (8u << 20)
#define LENGTH_MAX 2147483136ull /* QEMU's largest request */
#define DEFAULT_PATTERN 0xcd

struct io_command;
struct io_run {
    struct monitor *mon;
    struct node *node;
    const struct io_command *cmd;
    int argc;
    char **argv;
    /* What the options said. */
    bool machine, quiet, dump, zero, unmap, no_fallback, fua;
    const char *pattern, *source, *skip, *length;
    int first; /* the first argument behind the options, in argv */
};
struct io_command {
    const char *name, *alias;
    int (*co_run)(struct io_run *run);
    int min, max;        /* arguments; max -1: any number */
    bool writes;
    const char *options; /* as getopt has them */
    const char *params; /* NULL: none */
    const char *line, *help;
};

static const struct io_command io_commands[];

/* --- Numbers ---------------------------------------------------------------------------------------------------------- */

/* "64 KiB", "3.750 MiB", "512 bytes". */
static const char *amount(double value, char *buf)
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

/* A size argument; says itself what is wrong with it. */
static int get_size(struct io_run *run, const char *text, uint64_t *out)
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

static int get_pattern(struct io_run *run, int *out)
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

/* Offset and length in the first two arguments; further lengths add up (readv). */
static int get_range(struct io_run *run, uint64_t *offset, uint64_t *len)
{
    uint64_t more;

    if (get_size(run, run->argv[run->first], offset)) {
        return -EINVAL;
    }
    *len = 0;
    for (int i = run->first + 1; i < run->argc; i++) {
        if (get_size(run, run->argv[i], &more)) {
            return -EINVAL;
        }
        *len += more;
        if ((more > LENGTH_MAX || *len > LENGTH_MAX) && !run->no_fallback) {
            monitor_printf(run->mon, "length cannot exceed %llu%s, given %s\n", LENGTH_MAX,
                           strchr(run->cmd->options, 'n') ? " without -n" : "", run->argv[i]);
            return -EINVAL;
        }
    }
    return 0;
}

/* --- Reports ------------------------------------------------------------------------------------------------------------ */

static void report(struct io_run *run, const char *verb, uint64_t offset, uint64_t len, uint64_t started)
{
    uint64_t ns = MAX(loop_now() - started, (uint64_t)1);
    double seconds = ns / 1e9;
    unsigned long long hundredths = ns / 10000000;
    char size[48], speed[48];

    if (run->quiet) {
        return;
    }
    if (run->machine) {
        monitor_printf(run->mon, "%llu,1,%llu:%02llu:%02llu.%02llu,%.3f,%.3f\n", (unsigned long long)len,
                       hundredths / 360000, hundredths / 6000 % 60, hundredths / 100 % 60, hundredths % 100, len / seconds,
                       1 / seconds);
        return;
    }
    monitor_printf(run->mon, "%s %llu/%llu bytes at offset %llu\n%s, 1 ops; ", verb, (unsigned long long)len,
                   (unsigned long long)len, (unsigned long long)offset, amount(len, size));
    if (hundredths < 6000) {
        monitor_printf(run->mon, "%02llu.%02llu sec", hundredths / 100, hundredths % 100);
    } else {
        monitor_printf(run->mon, "%02llu:%02llu.%02llu", hundredths / 6000, hundredths / 100 % 60, hundredths % 100);
    }
    monitor_printf(run->mon, " (%s/sec and %.4f ops/sec)\n", amount(len / seconds, speed), 1 / seconds);
}

static int failed(struct io_run *run, int ret)
{
    const char *verb = run->cmd->name;

    verb = strstr(verb, "read") ? "read" : strstr(verb, "write") ? "write" : verb;
    monitor_printf(run->mon, "%s failed: %s\n", verb, strerror(-ret));
    return ret;
}

static void print_line(struct monitor *mon, const struct io_command *cmd)
{
    monitor_printf(mon, "%s%s%s -- %s\n", cmd->name, cmd->params ? " " : "", cmd->params ? cmd->params : "", cmd->line);
}

static int usage(struct io_run *run)
{
    print_line(run->mon, run->cmd);
    return -EINVAL;
}

static void dump(struct monitor *mon, const uint8_t *buf, uint64_t offset, size_t len)
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

/* --- Reading ------------------------------------------------------------------------------------------------------------- */

/* The part of the read data that -P speaks of. */
struct expected {
    bool any;
    int byte;
    uint64_t from, to; /* relative to the start of the request */
};

static int get_expected(struct io_run *run, uint64_t len, struct expected *want)
{
    uint64_t skip = 0, count = 0;

    *want = (struct expected){ .any = run->pattern };
    if (!run->pattern) {
        return run->skip || run->length ? usage(run) : 0;
    }
    if (get_pattern(run, &want->byte) || (run->skip && get_size(run, run->skip, &skip)) ||
        (run->length && get_size(run, run->length, &count))) {
        return -EINVAL;
    }
    if (skip > len || (run->length && count > len - skip)) {
        monitor_puts(run->mon, "pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    want->from = skip;
    want->to = run->length ? skip + count : len;
    return 0;
}

static bool piece_fits(const struct expected *want, const uint8_t *buf, uint64_t done, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (want->any && done + i >= want->from && done + i < want->to && buf[i] != want->byte) {
            return false;
        }
    }
    return true;
}

static int co_read(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    AUTOFREE uint8_t *buf = NULL;
    struct expected want;
    bool wrong = false;

    if (get_range(run, &offset, &len) || get_expected(run, len, &want)) {
        return -EINVAL;
    }
    buf = mem_align(4096, MAX((uint64_t)1, MIN(len, (uint64_t)PIECE)));
    for (uint64_t done = 0; done < len;) {
        size_t piece = MIN(len - done, (uint64_t)PIECE);
        int ret = offset + len > run->node->size ? -EIO : co_node_read_buf(run->node, offset + done, buf, piece);

        if (ret) {
            return failed(run, ret);
        }
        wrong = wrong || !piece_fits(&want, buf, done, piece);
        if (run->dump && !run->quiet) {
            dump(run->mon, buf, offset + done, piece);
        }
        done += piece;
    }
    if (wrong) {
        monitor_printf(run->mon, "Pattern verification failed at offset %llu, %llu bytes\n",
                       (unsigned long long)(offset + want.from), (unsigned long long)(want.to - want.from));
    }
    report(run, "read", offset, len, started);
    return wrong ? -EINVAL : 0;
}

/* --- Writing --------------------------------------------------------------------------------------------------------------- */

/* What a write writes: a byte, or a file's content again and again. */
struct filling {
    int byte;
    char *content; /* owned; NULL: the byte */
    size_t size;
};

static int co_get_filling(struct io_run *run, struct filling *out)
{
    int ret;

    *out = (struct filling){ .byte = DEFAULT_PATTERN };
    if (!run->source) {
        return run->pattern ? get_pattern(run, &out->byte) : 0;
    }
    ret = co_io_load(run->source, &out->content, &out->size);
    if (ret) {
        monitor_printf(run->mon, "%s: %s\n", run->source, strerror(-ret));
    } else if (!out->size) {
        monitor_printf(run->mon, "%s: file is empty\n", run->source);
        free(out->content);
        ret = -EINVAL;
    }
    return ret;
}

static void fill(const struct filling *filling, uint64_t done, uint8_t *buf, size_t len)
{
    if (!filling->content) {
        memset(buf, filling->byte, len);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        buf[i] = filling->content[(done + i) % filling->size];
    }
}

static int check_write_options(struct io_run *run)
{
    const char *wrong = NULL;

    if (run->no_fallback && !run->zero) {
        wrong = "-n requires -z to be specified";
    } else if (run->unmap && !run->zero) {
        wrong = "-u requires -z to be specified";
    } else if (run->zero + !!run->pattern + !!run->source > 1) {
        wrong = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (wrong) {
        monitor_printf(run->mon, "%s\n", wrong);
    }
    return wrong ? -EINVAL : 0;
}

static int co_write_pieces(struct io_run *run, uint64_t offset, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_align(4096, MAX((uint64_t)1, MIN(len, (uint64_t)PIECE)));
    struct filling filling;
    int ret = co_get_filling(run, &filling);

    if (ret) {
        return ret;
    }
    for (uint64_t done = 0; done < len && !ret;) {
        size_t piece = MIN(len - done, (uint64_t)PIECE);

        fill(&filling, done, buf, piece);
        ret = co_node_write_buf(run->node, offset + done, buf, piece);
        done += piece;
    }
    free(filling.content);
    return ret ? failed(run, ret) : 0;
}

static int co_write(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    int ret;

    if (check_write_options(run) || get_range(run, &offset, &len)) {
        return -EINVAL;
    }
    if (len > run->node->size || offset > run->node->size - len) {
        return failed(run, -EIO);
    }
    if (run->zero) {
        ret = len ? co_node_zero(run->node, offset, len, run->unmap ? NODE_MAY_UNMAP : 0) : 0;
        ret = ret ? failed(run, ret) : 0;
    } else {
        ret = co_write_pieces(run, offset, len);
    }
    if (!ret && run->fua) {
        ret = co_node_flush(run->node);
        ret = ret ? failed(run, ret) : 0;
    }
    if (!ret) {
        report(run, "wrote", offset, len, started);
    }
    return ret;
}

static int co_discard(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    int ret;

    if (run->argc - run->first > 2) {
        return usage(run);
    }
    if (get_range(run, &offset, &len)) {
        return -EINVAL;
    }
    if (len > run->node->size || offset > run->node->size - len) {
        return failed(run, -EIO);
    }
    ret = len ? co_node_discard(run->node, offset, len) : 0;
    if (ret) {
        return failed(run, ret);
    }
    report(run, "discard", offset, len, started);
    return 0;
}

static int co_flush(struct io_run *run)
{
    int ret = co_node_flush(run->node);

    return ret ? failed(run, ret) : 0;
}

/* --- What is where ------------------------------------------------------------------------------------------------------------ */

/* How long is the run at `offset` in which this layer says something, or nothing; `len` at most. */
static int co_allocated_run(struct node *node, uint64_t offset, uint64_t len, uint64_t *run_len, bool *allocated)
{
    struct extent e = { .kind = EXTENT_OPAQUE, .len = len };

    *run_len = 0;
    while (*run_len < len) {
        int ret = node->driver->co_map ? node->driver->co_map(node, offset + *run_len, len - *run_len, &e) : 0;

        if (ret) {
            return ret;
        }
        if (*run_len && *allocated != (e.kind != EXTENT_NONE)) {
            break;
        }
        *allocated = e.kind != EXTENT_NONE;
        *run_len += e.len;
    }
    return 0;
}

static int co_map(struct io_run *run)
{
    uint64_t len;
    bool allocated = false;
    char size[48], at[48];

    for (uint64_t offset = 0; offset < run->node->size; offset += len) {
        int ret = co_allocated_run(run->node, offset, run->node->size - offset, &len, &allocated);

        if (ret) {
            monitor_printf(run->mon, "Failed to get allocation status: %s\n", strerror(-ret));
            return ret;
        }
        monitor_printf(run->mon, "%s (0x%llx) bytes %s allocated at offset %s (0x%llx)\n", amount(len, size),
                       (unsigned long long)len, allocated ? "   " : "not", amount(offset, at), (unsigned long long)offset);
    }
    return 0;
}

static int co_alloc(struct io_run *run)
{
    uint64_t offset, len = NODE_SECTOR, sum = 0, part;
    bool allocated = false;
    char at[48];

    if (get_size(run, run->argv[1], &offset) || (run->argc > 2 && get_size(run, run->argv[2], &len))) {
        return -EINVAL;
    }
    len = MIN(len, run->node->size - MIN(offset, run->node->size));
    for (uint64_t done = 0; done < len; done += part) {
        int ret = co_allocated_run(run->node, offset + done, len - done, &part, &allocated);

        if (ret) {
            monitor_printf(run->mon, "is_allocated failed: %s\n", strerror(-ret));
            return ret;
        }
        sum += allocated ? part : 0;
    }
    monitor_printf(run->mon, "%llu/%llu bytes allocated at offset %s\n", (unsigned long long)sum, (unsigned long long)len,
                   amount(offset, at));
    return 0;
}

static int co_length(struct io_run *run)
{
    char size[48];

    monitor_printf(run->mon, "%s\n", amount(run->node->size, size));
    return 0;
}

/* --- Help ------------------------------------------------------------------------------------------------------------------------ */

static const struct io_command *io_find(const char *name)
{
    for (const struct io_command *cmd = io_commands; cmd->name; cmd++) {
        if (!strcmp(cmd->name, name) || (cmd->alias && !strcmp(cmd->alias, name))) {
            return cmd;
        }
    }
    return NULL;
}

static int co_help(struct io_run *run)
{
    const struct io_command *cmd;

    if (run->argc > 1) {
        cmd = io_find(run->argv[1]);
        if (!cmd) {
            monitor_printf(run->mon, "command %s not found\n", run->argv[1]);
            return -ENOENT;
        }
        print_line(run->mon, cmd);
        if (cmd->help) {
            monitor_printf(run->mon, "\n%s\n", cmd->help);
        }
        return 0;
    }
    for (cmd = io_commands; cmd->name; cmd++) {
        print_line(run->mon, cmd);
    }
    monitor_puts(run->mon, "\nUse 'help commandname' for extended help.\n");
    return 0;
}

#define READ_HELP                                                                                                    \
    " reads a range of bytes from the given offset\n\n Example:\n"                                                   \
    " 'read -v 512 1k' - shows 1 kilobyte, from byte 512 on\n\n"                                                     \
    " -C, -- report statistics in a machine parsable format\n"                                                       \
    " -l, -- length for pattern verification (only with -P)\n"                                                       \
    " -P, -- use a pattern to verify read data\n"                                                                    \
    " -q, -- quiet mode, do not show I/O statistics\n"                                                               \
    " -s, -- start offset for pattern verification (only with -P)\n"                                                 \
    " -v, -- show the data"
#define WRITE_HELP                                                                                                   \
    " writes a range of bytes from the given offset\n\n Example:\n"                                                  \
    " 'write -P 7 512 1k' - writes 1 kilobyte of sevens, from byte 512 on\n\n"                                       \
    " -C, -- report statistics in a machine parsable format\n"                                                       \
    " -f, -- flush afterwards\n"                                                                                     \
    " -n, -- with -z, take any length\n"                                                                             \
    " -P, -- the byte to write (0xcd unless given)\n"                                                                \
    " -q, -- quiet mode, do not show I/O statistics\n"                                                               \
    " -s, -- a file whose content to write, again and again\n"                                                       \
    " -u, -- with -z, allow unmapping\n"                                                                             \
    " -z, -- write zeroes without data"
#define READ_LINE "reads a number of bytes at a specified offset"
#define WRITE_LINE "writes a number of bytes at a specified offset"

static const struct io_command io_commands[] = {
    { "aio_flush", NULL, co_flush, 0, 0, false, "", NULL, "completes all outstanding aio requests", NULL },
    { "aio_read", NULL, co_read, 2, -1, false, "CqvP:", "[-Cqv] [-P pattern] off len [len..]",
      "asynchronously reads a number of bytes", NULL },
    { "aio_write", NULL, co_write, 2, -1, true, "CfquzP:", "[-Cfquz] [-P pattern] off len [len..]",
      "asynchronously writes a number of bytes", NULL },
    { "alloc", NULL, co_alloc, 1, 2, false, "", "offset [count]", "checks if offset is allocated in the file", NULL },
    { "discard", "d", co_discard, 2, -1, true, "Cq", "[-Cq] off len", "discards a number of bytes at a specified offset",
      " discards a range of bytes from the given offset\n\n Example:\n"
      " 'discard 512 1k' - discards 1 kilobyte, from byte 512 on\n\n"
      " -C, -- report statistics in a machine parsable format\n"
      " -q, -- quiet mode, do not show I/O statistics" },
    { "flush", "f", co_flush, 0, 0, false, "", NULL, "flush all in-core file state to disk", NULL },
    { "help", "?", co_help, 0, 1, false, "", "[command]", "help for one or all commands", NULL },
    { "length", "l", co_length, 0, 0, false, "", NULL, "gets the length of the current file", NULL },
    { "map", NULL, co_map, 0, 0, false, "", "", "prints the allocated areas of a file", NULL },
    { "read", "r", co_read, 2, -1, false, "abCqvpl:P:s:", "[-abCqv] [-P pattern [-s off] [-l len]] off len", READ_LINE,
      READ_HELP },
    { "readv", NULL, co_read, 2, -1, false, "CqvP:", "[-Cqv] [-P pattern] off len [len..]", READ_LINE, NULL },
    { "write", "w", co_write, 2, -1, true, "bcCfnpquzP:s:", "[-bcCfnquz] [-P pattern | -s source_file] off len",
      WRITE_LINE, WRITE_HELP },
    { "writev", NULL, co_write, 2, -1, true, "CfqP:", "[-Cfq] [-P pattern] off len [len..]", WRITE_LINE, NULL },
    { 0 },
};

/* --- Lines ----------------------------------------------------------------------------------------------------------------------- */

static char **split(const char *line, int *argc)
{
    char **argv = NULL;
    int n = 0;

    for (line += strspn(line, " \t"); *line; line += strspn(line, " \t")) {
        size_t len = strcspn(line, " \t");

        argv = mem_reallocarray(argv, n + 2, sizeof(*argv));
        argv[n++] = mem_strndup(line, len);
        argv[n] = NULL;
        line += len;
    }
    *argc = n;
    return argv;
}

static int check_count(const struct io_run *run)
{
    const struct io_command *cmd = run->cmd;
    int n = run->argc - 1;

    if (n >= cmd->min && (cmd->max < 0 || n <= cmd->max)) {
        return 0;
    }
    monitor_printf(run->mon, "bad argument count %d to %s, expected ", n, run->argv[0]);
    if (cmd->max < 0) {
        monitor_printf(run->mon, "at least %d arguments\n", cmd->min);
    } else if (cmd->min == cmd->max) {
        monitor_printf(run->mon, "%d arguments\n", cmd->min);
    } else {
        monitor_printf(run->mon, "between %d and %d arguments\n", cmd->min, cmd->max);
    }
    return -EINVAL;
}

static bool take_option(struct io_run *run, int letter)
{
    switch (letter) {
    case 'C': run->machine = true; break;
    case 'q': run->quiet = true; break;
    case 'v': run->dump = true; break;
    case 'z': run->zero = true; break;
    case 'u': run->unmap = true; break;
    case 'n': run->no_fallback = true; break;
    case 'f': run->fua = true; break;
    case 'P': run->pattern = optarg; break;
    case 'l': run->length = optarg; break;
    case 's':
        if (run->cmd->writes) {
            run->source = optarg;
        } else {
            run->skip = optarg;
        }
        break;
    case 'a': case 'p': break; /* make no difference any more */
    default: return false;
    }
    return true;
}

static int take_options(struct io_run *run)
{
    AUTOFREE char *options = mem_printf(":%s", run->cmd->options);
    int letter;

    optind = 0; /* GNU: begin anew */
    while ((letter = getopt(run->argc, run->argv, options)) != -1) {
        if (letter == 'b' || letter == 'c') {
            monitor_printf(run->mon, "%s: -%c is not supported here\n", run->cmd->name, letter);
            return -ENOTSUP;
        }
        if (!take_option(run, letter)) {
            monitor_printf(run->mon, letter == ':' ? "%s: option requires an argument -- '%c'\n" : "%s: invalid option -- '%c'\n",
                           run->cmd->name, optopt);
            return usage(run);
        }
    }
    run->first = optind;
    if (run->argc - run->first < run->cmd->min ||
        (run->argc - run->first > 2 && run->cmd->min == 2 && !strstr(run->cmd->params, "[len..]"))) {
        return usage(run);
    }
    return 0;
}

/* Nobody writes behind the back of the image above, or of the format that is kept in this file. */
static int check_writable(struct monitor *mon, struct node *node, struct error *err)
{
    struct node *other;

    TAILQ_FOREACH(other, &all_nodes, link) {
        if (other->backing == node || other->file == node) {
            monitor_printf(mon, "Permission conflict on node '%s': permissions 'write' are both required by an unnamed block "
                           "device (uses node '%s' as 'root' child) and unshared by node '%s' (uses node '%s' as '%s' child).\n",
                           node->name, node->name, other->name, node->name, other->backing == node ? "backing" : "file");
            return -EPERM;
        }
    }
    if (node->read_only) {
        error_set(err, "Block node is read-only");
        return -EROFS;
    }
    return 0;
}

int co_qemu_io(struct monitor *mon, struct node *node, const char *line, struct error *err)
{
    struct io_run run = { .mon = mon, .node = node_ref(node) };
    int ret = 0;

    run.argv = split(line, &run.argc);
    if (run.argc) {
        run.cmd = io_find(run.argv[0]);
        if (!run.cmd) {
            monitor_printf(mon, "command \"%s\" not found\n", run.argv[0]);
            ret = -ENOENT;
        } else {
            ret = check_count(&run);
        }
        if (!ret && run.cmd->writes) {
            ret = check_writable(mon, node, err);
        }
        if (!ret) {
            ret = take_options(&run);
        }
        if (!ret) {
            ret = run.cmd->co_run(&run);
        }
    }
    for (int i = 0; i < run.argc; i++) {
        free(run.argv[i]);
    }
    free(run.argv);
    co_node_unref(run.node);
    return ret;
}
