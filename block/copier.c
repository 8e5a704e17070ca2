/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copier (see copier.h).
 */
#include "block/copier.h"

#include "core/bytes.h"
#include "core/mem.h"

/* How much of the map one call of co_copier_next() may walk over. */
#define LOOK_AHEAD_STEPS 256

void copier_init(struct copier *c, struct node *target, struct node *base)
{
    *c = (struct copier){ .target = target, .base = base, .map = chain_map_get(target) };
}

void copier_fini(struct copier *c)
{
    chain_map_put(c->map);
    c->map = NULL;
}

/*
 * Does the target need this extent for itself?  Its own content: no.  The base's or what lies below it: no, that
 * stays readable.  Zeroes of a layer that goes: only when a base stays that could have something else there.  Where the
 * target's own tables could not be read, nobody knows whether it has anything there: whoever tries to find out gets the error.
 */
static bool wanted(const struct copier *c, const struct chain_extent *ext)
{
    int base_depth = c->base ? node_depth(c->target, c->base) : -1;

    if (ext->layer == c->target && ext->kind == EXTENT_OPAQUE) {
        return true;
    }
    if (!ext->layer || ext->layer == c->target || (c->base && ext->depth >= (unsigned)base_depth)) {
        return false;
    }
    return ext->kind != EXTENT_ZERO || c->base;
}

int co_copier_next(struct copier *c, uint64_t max, uint64_t *offset, uint64_t *len)
{
    uint32_t unit = c->target->cluster_size;
    uint64_t size = c->target->size;
    struct chain_extent ext;

    *len = 0;
    for (int step = 0; step < LOOK_AHEAD_STEPS && c->offset < size; step++) {
        int ret = co_chain_map_find(c->map, c->offset, size - c->offset, &ext);
        if (ret < 0) {
            return ret;
        }
        if (wanted(c, &ext)) {
            *offset = ROUND_DOWN(c->offset, unit);
            *len = MIN(MAX(ROUND_DOWN(max, unit), unit), size - *offset);
            c->offset = *offset + *len;
            return 0;
        }
        c->offset += ext.len;
    }
    return 0;
}

static int co_write_zeroes(struct node *target, uint64_t offset, uint64_t len)
{
    /* MAY_UNMAP is not given: nothing of the target's own is here to be given back */
    return target->driver->co_zero(target, offset, len, 0);
}

static int co_through_buffer(struct copier *c, uint64_t offset, uint64_t len)
{
    AUTOFREE void *buf = mem_align(4096, len);
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    int ret = co_node_read_nested(c->target, offset, &iov, 1);

    if (ret == 0) {
        c->copied += len;
        ret = bytes_are_zero(buf, len) ? co_write_zeroes(c->target, offset, len)
                                       : c->target->driver->co_write(c->target, offset, &iov, 1);
    }
    return ret;
}

/* Any part of one cluster wanted? */
static int co_mixed_wanted(struct copier *c, uint64_t offset, uint64_t len, bool *any)
{
    struct chain_extent ext;

    *any = false;
    for (uint64_t done = 0; done < len && !*any; done += ext.len) {
        int ret = co_chain_map_find(c->map, offset + done, len - done, &ext);
        if (ret < 0) {
            return ret;
        }
        *any = wanted(c, &ext);
    }
    return 0;
}

/* A run of whole clusters that one extent covers. */
static int co_fill_run(struct copier *c, uint64_t offset, uint64_t len, const struct chain_extent *ext)
{
    if (ext->kind == EXTENT_ZERO) {
        return co_write_zeroes(c->target, offset, len);
    }
    if (ext->kind == EXTENT_DATA && c->target->driver->co_copy_in) {
        int ret = c->target->driver->co_copy_in(c->target, offset, len, node_host_file(ext->layer), ext->host);
        c->copied += ret == 0 ? len : 0;
        return ret;
    }
    return co_through_buffer(c, offset, len);
}

static int co_fill_window(struct node *target, uint64_t offset, uint64_t len, void *arg)
{
    struct copier *c = arg;
    uint32_t unit = target->cluster_size;
    uint64_t end = offset + len;
    struct chain_extent ext;
    int ret = 0;

    while (offset < end && ret == 0) {
        uint64_t cluster = MIN((uint64_t)unit, end - offset);
        bool any;

        ret = co_chain_map_find(c->map, offset, end - offset, &ext);
        if (ret < 0) {
            break;
        }
        if (ext.len >= cluster) {
            uint64_t run = offset + ext.len == end ? ext.len : MAX(ROUND_DOWN(ext.len, unit), cluster);
            ret = wanted(c, &ext) ? co_fill_run(c, offset, run, &ext) : 0;
            offset += run;
            continue;
        }
        ret = co_mixed_wanted(c, offset, cluster, &any);
        if (ret == 0 && any) {
            ret = co_through_buffer(c, offset, cluster);
        }
        offset += cluster;
    }
    return ret;
}

int co_copier_fill(struct copier *c, uint64_t offset, uint64_t len)
{
    return co_node_populate(c->target, offset, len, co_fill_window, c);
}
