/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filter "throttle": requests pass as fast as its group allows (throttle-group.h).
 *
 * Reads are reads; writes, zeroes and discards are writes; flushes pass.
 */
#include <errno.h>

#include "block/blockdev.h"
#include "block/filter.h"
#include "block/throttle-group.h"
#include "core/bytes.h"
#include "core/mem.h"

static int co_throttle_open(struct node *node, struct error *err)
{
    const char *group = node_option_str(node, "throttle-group");
    struct throttle_member *m;

    if (!group) {
        error_set(err, "Please specify a throttle group");
        return -EINVAL;
    }
    m = mem_zalloc(sizeof(*m));
    if (throttle_member_join(m, group, false, err) < 0) {
        free(m);
        return -EINVAL;
    }
    node->state = m;
    filter_open(node);
    return 0;
}

static void co_throttle_close(struct node *node)
{
    throttle_member_leave(node->state);
    free(node->state);
    node->state = NULL;
}

static void throttle_drained(struct node *node, bool begin)
{
    throttle_member_drain(node->state, begin);
}

static void throttle_inherit(struct node *node, const void *former)
{
    struct throttle_member *m = node->state;

    m->drained = ((const struct throttle_member *)former)->drained;
}

static int co_throttle_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    co_throttle(node->state, false, iov_size(iov, n));
    return co_filter_read(node, offset, iov, n);
}

static int co_throttle_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    co_throttle(node->state, true, iov_size(iov, n));
    return co_filter_write(node, offset, iov, n);
}

static int co_throttle_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    co_throttle(node->state, true, len);
    return co_filter_zero(node, offset, len, flags);
}

static int co_throttle_discard(struct node *node, uint64_t offset, uint64_t len)
{
    co_throttle(node->state, true, len);
    return co_filter_discard(node, offset, len);
}

static const struct block_key throttle_keys[] = {
    { .name = "throttle-group", .kind = KEY_STRING, .required = true, .help = "whose limits count; an object's id" },
    BLOCK_KEY_FILE,
    { 0 },
};

const struct driver driver_throttle = {
    .name = "throttle",
    .is_filter = true,
    .passes_permissions = true,
    .keys = throttle_keys,
    .own_reopen = true,
    .co_open = co_throttle_open,
    .co_close = co_throttle_close,
    .drained = throttle_drained,
    .inherit = throttle_inherit,
    .co_read = co_throttle_read,
    .co_write = co_throttle_write,
    .co_zero = co_throttle_zero,
    .co_discard = co_throttle_discard,
    .co_flush = co_filter_flush,
    .co_truncate = co_filter_truncate,
};
