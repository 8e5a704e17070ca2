/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-io's requests: see qemu-io-run.h.
 *
 * Long ones are carried out in pieces, so that a buffer of 2 GiB is never needed.  What aio_* and *v add in qemu-io makes
 * no difference here: they are names for the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "hw/guest.h"
#include "core/loop.h"
#include "core/mem.h"
#include "monitor/qemu-io-run.h"

#define PIECE (8u << 20)
#define DEFAULT_PATTERN 0xcd

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
        return run->skip || run->length ? io_usage(run) : 0;
    }
    if (io_get_pattern(run, &want->byte) || (run->skip && io_get_size(run, run->skip, &skip)) ||
        (run->length && io_get_size(run, run->length, &count))) {
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

int co_io_cmd_read(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    AUTOFREE uint8_t *buf = NULL;
    struct expected want;
    bool wrong = false;

    if (io_get_range(run, &offset, &len) || get_expected(run, len, &want)) {
        return -EINVAL;
    }
    buf = mem_align(4096, MAX((uint64_t)1, MIN(len, (uint64_t)PIECE)));
    for (uint64_t done = 0; done < len;) {
        size_t piece = MIN(len - done, (uint64_t)PIECE);
        int ret = offset + len > run->node->size ? -EIO : co_node_read_buf(run->node, offset + done, buf, piece);

        if (ret) {
            return io_failed(run, ret);
        }
        wrong = wrong || !piece_fits(&want, buf, done, piece);
        if (run->dump && !run->quiet) {
            io_dump(run->mon, buf, offset + done, piece);
        }
        done += piece;
    }
    if (wrong) {
        monitor_printf(run->mon, "Pattern verification failed at offset %llu, %llu bytes\n",
                       (unsigned long long)(offset + want.from), (unsigned long long)(want.to - want.from));
    }
    io_report(run, "read", offset, len, started);
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
        return run->pattern ? io_get_pattern(run, &out->byte) : 0;
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
    } else if (run->zero + !!run->pattern + !!run->source > 1 && !run->cmd->lengths) {
        wrong = "Only one of -z, -P, and -s can be specified at the same time";
    } else if (run->zero && run->argc - run->first > 2) {
        wrong = "-z supports only a single length parameter";
    }
    run->any_length = run->no_fallback || (run->zero && run->cmd->lengths);
    if (wrong) {
        monitor_printf(run->mon, "%s\n", wrong);
    }
    return wrong ? -EINVAL : 0;
}

/* What is written behind the guest's back it must not take for wrong data. */
static struct guest_hold *co_hold_guest(const struct io_run *run, uint64_t offset, uint64_t len)
{
    struct disk *disk = disk_of_root(run->node);

    return disk && len ? co_guest_hold(disk->label, offset, len) : NULL;
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
    return ret ? io_failed(run, ret) : 0;
}

int co_io_cmd_write(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    int ret;

    if (check_write_options(run) || io_get_range(run, &offset, &len)) {
        return -EINVAL;
    }
    if (len > run->node->size || offset > run->node->size - len) {
        return io_failed(run, -EIO);
    }
    struct guest_hold *hold = co_hold_guest(run, offset, len);

    if (run->zero) {
        ret = len ? co_node_zero(run->node, offset, len, run->unmap ? NODE_MAY_UNMAP : 0) : 0;
        ret = ret ? io_failed(run, ret) : 0;
    } else {
        ret = co_write_pieces(run, offset, len);
    }
    guest_release(hold);
    if (!ret && run->fua) {
        ret = co_node_flush(run->node);
        ret = ret ? io_failed(run, ret) : 0;
    }
    if (!ret) {
        io_report(run, "wrote", offset, len, started);
    }
    return ret;
}

int co_io_cmd_discard(struct io_run *run)
{
    uint64_t offset, len, started = loop_now();
    int ret;

    if (io_get_range(run, &offset, &len)) {
        return -EINVAL;
    }
    if (len > run->node->size || offset > run->node->size - len) {
        return io_failed(run, -EIO);
    }
    struct guest_hold *hold = co_hold_guest(run, offset, len);

    ret = len ? co_node_discard(run->node, offset, len) : 0;
    guest_release(hold);
    if (ret) {
        return io_failed(run, ret);
    }
    io_report(run, "discard", offset, len, started);
    return 0;
}

int co_io_cmd_flush(struct io_run *run)
{
    int ret = co_node_flush(run->node);

    return ret ? io_failed(run, ret) : 0;
}
