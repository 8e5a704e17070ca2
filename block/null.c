/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * null-co and null-aio: a disk that takes everything and keeps nothing.
 *
 * Each request takes `latency-ns`.  What is read is zeroes with read-zeroes=on; else the buffer stays as it was, as in
 * QEMU, which makes the two drivers what benchmarks measure themselves with.  In QEMU the two differ in who waits (a
 * coroutine, a callback); here everything is a coroutine.
 */
#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/filter.h"
#include "core/bytes.h"
#include "core/mem.h"

#define NULL_SIZE (1ull << 30)

struct null {
    uint64_t latency; /* ns */
    bool zeroes;
};

static int co_null_open(struct node *node, struct error *err)
{
    uint64_t size = NULL_SIZE, latency = 0;
    bool zeroes = false;
    struct null *s;

    if (json_integer_value(json_object_get(node->options, "latency-ns")) < 0) {
        error_set(err, "latency-ns is invalid");
        return -EINVAL;
    }
    if (node_option_size(node, "size", &size, err) < 0 || node_option_size(node, "latency-ns", &latency, err) < 0 ||
        node_option_bool(node, "read-zeroes", &zeroes, err) < 0) {
        return -EINVAL;
    }
    if (latency > INT64_MAX) {
        error_set(err, "latency-ns is invalid");
        return -EINVAL;
    }
    if (size > NODE_SIZE_MAX) {
        error_set_errno(err, -EFBIG, "Could not refresh total sector count");
        return -EFBIG;
    }
    s = mem_zalloc(sizeof(*s));
    s->latency = latency;
    s->zeroes = zeroes;
    node->state = s;
    node->size = ROUND_UP(size, NODE_SECTOR);
    node->cluster_size = NODE_SECTOR;
    free(node->filename);
    node->filename = mem_printf("%s://", node->driver->name);
    return 0;
}

static void co_null_close(struct node *node)
{
    free(node->state);
    node->state = NULL;
}

static int co_take_time(struct node *node)
{
    struct null *s = node->state;

    if (s->latency) {
        co_sleep_ns(s->latency);
    }
    return 0;
}

static int co_null_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    if (((struct null *)node->state)->zeroes) {
        iov_memset(iov, n, 0, 0, iov_size(iov, n));
    }
    return co_take_time(node);
}

static int co_null_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    return co_take_time(node);
}

static int co_null_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    return co_take_time(node);
}

static int co_null_discard(struct node *node, uint64_t offset, uint64_t len)
{
    return co_take_time(node);
}

static int null_parse_name(const char *rest, json_t *options, struct error *err)
{
    const char *name = json_string_value(json_object_get(options, "driver"));

    if (strcmp(rest, "//") != 0) {
        error_set(err, "The only allowed filename for this driver is '%s://'", name);
        return -EINVAL;
    }
    return 0;
}

static const struct block_key null_keys[] = {
    { .name = "size", .kind = KEY_SIZE, .help = "bytes that it shows; 1 GiB unless given" },
    { .name = "latency-ns", .kind = KEY_INT, .help = "how long each request takes" },
    { .name = "read-zeroes", .kind = KEY_BOOL, .help = "reads give zeroes; off: they leave memory as it was" },
    { 0 },
};

#define NULL_DRIVER(name_) \
    { \
        .name = name_, .is_protocol = true, .keys = null_keys, .co_open = co_null_open, .co_close = co_null_close, \
        .co_read = co_null_read, .co_write = co_null_write, .co_zero = co_null_zero, .co_discard = co_null_discard, \
        .co_flush = co_take_time, .parse_name = null_parse_name, \
    }
const struct driver driver_null_co = NULL_DRIVER("null-co");
const struct driver driver_null_aio = NULL_DRIVER("null-aio");
