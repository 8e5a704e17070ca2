/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-io's commands on nodes of the running machine: see qemu-io.h.
 *
 * One row a command.  Options are read as getopt does, wherever they stand.
 */
#include "monitor/qemu-io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "monitor/qemu-io-run.h"

static const struct io_command io_commands[];

/* --- What is where ------------------------------------------------------------------------------------------------------------ */

/* How long is the run at `offset` in which this layer says something, or nothing; `len` at most. */
static int co_allocated_run(struct node *node, uint64_t offset, uint64_t len, uint64_t *run_len, bool *allocated)
{
    struct extent e;

    *run_len = 0;
    while (*run_len < len) {
        int ret = co_node_map_own(node, offset + *run_len, len - *run_len, &e);

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
        monitor_printf(run->mon, "%s (0x%llx) bytes %s allocated at offset %s (0x%llx)\n", io_amount(len, size),
                       (unsigned long long)len, allocated ? "   " : "not", io_amount(offset, at), (unsigned long long)offset);
    }
    return 0;
}

static int co_alloc(struct io_run *run)
{
    uint64_t offset, len = NODE_SECTOR, sum = 0, part;
    bool allocated = false;
    char at[48];

    if (io_get_size(run, run->argv[1], &offset) || (run->argc > 2 && io_get_size(run, run->argv[2], &len))) {
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
                   io_amount(offset, at));
    return 0;
}

static int co_length(struct io_run *run)
{
    char size[48];

    monitor_printf(run->mon, "%s\n", io_amount(run->node->size, size));
    return 0;
}

/* --- Help --------------------------------------------------------------------------------------------------------- */

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
        io_print_line(run->mon, cmd);
        if (cmd->help) {
            monitor_printf(run->mon, "\n%s\n", cmd->help);
        }
        return 0;
    }
    for (cmd = io_commands; cmd->name; cmd++) {
        io_print_line(run->mon, cmd);
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
    { "aio_flush", NULL, co_io_cmd_flush, 0, 0, false, false, "", NULL, "completes all outstanding aio requests", NULL },
    { "aio_read", NULL, co_io_cmd_read, 2, -1, false, true, "CqvP:", "[-Cqv] [-P pattern] off len [len..]",
      "asynchronously reads a number of bytes", NULL },
    { "aio_write", NULL, co_io_cmd_write, 2, -1, true, true, "CfquzP:", "[-Cfquz] [-P pattern] off len [len..]",
      "asynchronously writes a number of bytes", NULL },
    { "alloc", NULL, co_alloc, 1, 2, false, false, "", "offset [count]", "checks if offset is allocated in the file", NULL },
    { "discard", "d", co_io_cmd_discard, 2, -1, true, false, "Cq", "[-Cq] off len", "discards a number of bytes at a specified offset",
      " discards a range of bytes from the given offset\n\n Example:\n"
      " 'discard 512 1k' - discards 1 kilobyte, from byte 512 on\n\n"
      " -C, -- report statistics in a machine parsable format\n"
      " -q, -- quiet mode, do not show I/O statistics" },
    { "flush", "f", co_io_cmd_flush, 0, 0, false, false, "", NULL, "flush all in-core file state to disk", NULL },
    { "help", "?", co_help, 0, 1, false, false, "", "[command]", "help for one or all commands", NULL },
    { "length", "l", co_length, 0, 0, false, false, "", NULL, "gets the length of the current file", NULL },
    { "map", NULL, co_map, 0, 0, false, false, "", "", "prints the allocated areas of a file", NULL },
    { "read", "r", co_io_cmd_read, 2, -1, false, false, "bCqvpl:P:s:", "[-abCqv] [-P pattern [-s off] [-l len]] off len", READ_LINE,
      READ_HELP },
    { "readv", NULL, co_io_cmd_read, 2, -1, false, true, "CqvP:", "[-Cqv] [-P pattern] off len [len..]", READ_LINE, NULL },
    { "write", "w", co_io_cmd_write, 2, -1, true, false, "bcCfnpquzP:s:", "[-bcCfnquz] [-P pattern | -s source_file] off len",
      WRITE_LINE, WRITE_HELP },
    { "writev", NULL, co_io_cmd_write, 2, -1, true, true, "CfqP:", "[-Cfq] [-P pattern] off len [len..]", WRITE_LINE, NULL },
    { 0 },
};

/* --- Lines -------------------------------------------------------------------------------------------------------- */

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
    case 'p': break; /* makes no difference any more */
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
            return io_usage(run);
        }
    }
    run->first = optind;
    if (run->argc - run->first < run->cmd->min ||
        (run->argc - run->first > 2 && run->cmd->min == 2 && !run->cmd->lengths)) {
        return io_usage(run);
    }
    return 0;
}

/* Nobody writes behind the back of those above: they are asked, unless it is the disk itself that writes. */
static int ask_others(struct io_run *run, struct node_user *user, struct error *err)
{
    struct error why = ERROR_INIT;

    if (node_use(user, &why) < 0) {
        monitor_printf(run->mon, "%s\n", why.text);
        error_clear(&why);
        return -EPERM;
    }
    if (run->node->read_only) {
        node_unuse(user);
        error_set(err, "Block node is read-only");
        return -EROFS;
    }
    return 0;
}

static int co_run(struct io_run *run, const struct disk *disk, struct error *err)
{
    struct node_user user = { .node = run->node, .used = run->cmd->writes ? IO_PERM_WRITE : 0, .shared = IO_PERM_ALL,
                              .apart = disk };
    int ret = check_count(run);

    if (!ret && run->cmd->writes) {
        ret = ask_others(run, &user, err);
    }
    if (ret) {
        return ret;
    }
    ret = take_options(run);
    if (!ret) {
        ret = run->cmd->co_run(run);
    }
    if (run->cmd->writes) {
        node_unuse(&user);
    }
    return ret;
}

int co_qemu_io(struct monitor *mon, struct disk *disk, struct node *node, const char *line, struct error *err)
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
            ret = co_run(&run, disk, err);
        }
    }
    for (int i = 0; i < run.argc; i++) {
        free(run.argv[i]);
    }
    free(run.argv);
    co_node_unref(run.node);
    return ret;
}
