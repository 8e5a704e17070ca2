/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The choke points: every request to a node passes here.
 *
 * A request is counted on the node it is addressed to, waits while that node is drained, takes a number of the
 * global epoch, waits for overlapping writes when one of the two is serialising, and then runs the driver's
 * operation.  The graph itself (names, references, edges) is in graph.c, opening in open.c.
 *
 * Ordering rules:
 *   N1  reads wait for nobody: a writer that moves a cluster keeps the old one intact until every request
 *       with an older epoch has ended
 *   N2  two plain writes may overlap in time (as on real hardware); discards, zeroes and copies exclude overlapping writes
 *   N3  a request that waits is not yet registered, so waiting cannot form a cycle
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/copy-on-read.h"
#include "block/foreign.h"
#include "block/node.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "core/trace.h"

/* --- Epochs ------------------------------------------------------------------------------------------------ */

struct epoch_entry {
    TAILQ_ENTRY(epoch_entry) link;
    uint64_t number;
};
static TAILQ_HEAD(, epoch_entry) epochs = TAILQ_HEAD_INITIALIZER(epochs);
static uint64_t epoch_counter;

uint64_t node_epoch_now(void)
{
    return epoch_counter;
}

uint64_t node_epoch_oldest(void)
{
    return TAILQ_EMPTY(&epochs) ? UINT64_MAX : TAILQ_FIRST(&epochs)->number;
}

/* --- Entering and leaving ------------------------------------------------------------------------------------ */

static void co_enter(struct node *node, struct epoch_entry *epoch)
{
    while (node->drained) {
        co_queue_wait(&node->drain_queue);
    }
    node->in_flight++;
    epoch->number = ++epoch_counter;
    TAILQ_INSERT_TAIL(&epochs, epoch, link);
}

static void leave(struct node *node, struct epoch_entry *epoch)
{
    TAILQ_REMOVE(&epochs, epoch, link);
    assert(node->in_flight > 0);
    if (--node->in_flight == 0) {
        co_queue_wake_all(&node->idle_queue);
    }
}

static bool overlaps(const struct node_request *a, const struct node_request *b)
{
    return a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

/* Register a write-like request once nothing that excludes it is in flight (N2, N3). */
static void co_request_begin(struct node *node, struct node_request *req)
{
    struct node_request *other;

    co_queue_init(&req->waiters);
again:
    LIST_FOREACH(other, &node->requests, link) {
        if ((other->serialising || req->serialising) && overlaps(other, req)) {
            co_queue_wait(&other->waiters);
            goto again; /* the list may be quite another one now */
        }
    }
    LIST_INSERT_HEAD(&node->requests, req, link);
}

static void request_end(struct node_request *req)
{
    LIST_REMOVE(req, link);
    co_queue_wake_all(&req->waiters);
}

static int check_range(const struct node *node, uint64_t offset, uint64_t len)
{
    return offset > node->size || len > node->size - offset ? -EIO : 0;
}

static int check_writable(const struct node *node, uint64_t offset, uint64_t len)
{
    if (node->corrupt) {
        return -EIO;
    }
    if (node->read_only) {
        return -EPERM;
    }
    return check_range(node, offset, len);
}

/*
 * A raw image whose format was guessed: the guest must not write anything into sector 0 that another probe would
 * take for an image format, or the next start would open a backing file of the guest's choice.
 */
static bool sector_would_probe(const struct iovec *iov, int n, uint64_t offset, uint64_t len)
{
    uint8_t head[NODE_SECTOR] = { 0 };
    size_t take = MIN(len, sizeof(head) - offset);

    iov_to_buf(iov, n, 0, head + offset, take);
    for (const struct driver *const *d = driver_list(); *d; d++) {
        if ((*d)->probe && strcmp((*d)->name, "raw") != 0 && (*d)->probe(head, sizeof(head), "") > 0) {
            return true;
        }
    }
    return foreign_probe(head);
}

static bool guarded(const struct node *node, uint64_t offset, const struct iovec *iov, int n, uint64_t len)
{
    if (!node->probed_raw || offset >= NODE_SECTOR) {
        return false;
    }
    /* A write of a part of the sector could complete a magic piece by piece: only whole sectors are let through. */
    return offset != 0 || len < NODE_SECTOR || sector_would_probe(iov, n, offset, len);
}

/* --- Reading ---------------------------------------------------------------------------------------------------- */

#define PARTS_MAX 64u
#define ZEROES_A_TURN (4ull << 20)

struct part { /* a piece of a read that runs on its own */
    struct chain_extent ext;
    uint64_t offset;
    struct iovec *iov;
    int n;
    struct co_group *group;
};

/* Others have a turn in between: a request may be as large as the guest's memory. */
static int co_read_zeroes(const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n);

    for (uint64_t done = 0; done < len; done += MIN(len - done, ZEROES_A_TURN)) {
        if (done > 0) {
            co_yield();
        }
        iov_memset(iov, n, done, 0, MIN(len - done, ZEROES_A_TURN));
    }
    return 0;
}

static int co_read_extent(const struct chain_extent *ext, uint64_t offset, const struct iovec *iov, int n)
{
    if (ext->kind == EXTENT_NONE || ext->kind == EXTENT_ZERO) {
        return co_read_zeroes(iov, n);
    }
    if (ext->kind == EXTENT_DATA) {
        node_debug_event(ext->layer, EVENT_READ_AIO);
        return co_io_readv(node_host_file(ext->layer), ext->host, iov, n);
    }
    return ext->layer->driver->co_read(ext->layer, offset, iov, n);
}

static CO_ENTRY void co_read_part(void *arg)
{
    struct part *part = arg;
    int ret = co_read_extent(&part->ext, part->offset, part->iov, part->n);
    struct co_group *group = part->group;

    free(part->iov);
    free(part);
    co_group_done(group, ret);
}

/* A read over several extents: up to PARTS_MAX of them run side by side. */
static int co_read_parts(struct chain_map *map, uint64_t offset, const struct iovec *iov, int n, uint64_t len,
                         struct chain_extent *first)
{
    struct co_group group;
    uint64_t done = 0;
    unsigned started = 0;
    int ret = 0;

    co_group_init(&group);
    while (done < len && ret == 0) {
        struct part *part = mem_alloc(sizeof(*part));

        if (done == 0) {
            part->ext = *first;
        } else {
            co_chain_map_find(map, offset + done, len - done, &part->ext);
        }
        part->offset = offset + done;
        part->iov = mem_calloc(n, sizeof(*iov));
        part->n = iov_slice(part->iov, iov, n, done, part->ext.len);
        part->group = &group;
        done += part->ext.len;
        co_group_add(&group);
        co_start(co_read_part, part);
        if (++started % PARTS_MAX == 0 && done < len) {
            ret = co_group_wait(&group);
            co_yield();
        }
    }
    int children = co_group_wait(&group);
    return ret < 0 ? ret : children;
}

/* The layers above the one that has it look below themselves, as far as anybody listens. */
static void tell_reads_of_backing(struct node *top, const struct chain_extent *ext)
{
    for (struct node *n = top; n->backing && n != ext->layer; n = n->backing) {
        node_debug_event(n, EVENT_READ_BACKING_AIO);
    }
}

static int co_read_mapped(struct chain_map *map, struct node *root, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n);
    struct chain_extent ext;

    if (len == 0) {
        return 0;
    }
    if (!chain_map_peek(map, offset, len, &ext)) {
        co_chain_map_find(map, offset, len, &ext);
    }
    if (__builtin_expect(node_event_listeners != 0, 0)) {
        tell_reads_of_backing(root, &ext);
    }
    if (ext.len == len) {
        return co_read_extent(&ext, offset, iov, n);
    }
    return co_read_parts(map, offset, iov, n, len, &ext);
}

int co_node_read_nested(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    struct chain_map *map = chain_map_get(node);
    int ret = co_read_mapped(map, node, offset, iov, n);

    chain_map_put(map);
    return ret;
}

/*
 * What lies below a node.  Where the node itself has nothing, its own map already says which lower layer holds the range,
 * so copy-on-write costs no walk either.  Only where the node has content of its own is the backing node asked.
 */
static int co_read_below_part(struct node *node, struct chain_map *map, uint64_t offset, const struct iovec *iov,
                              int n, uint64_t *len)
{
    struct iovec *part = mem_calloc(n, sizeof(*part));
    struct chain_extent ext;
    int parts, ret = 0;

    co_chain_map_find(map, offset, *len, &ext);
    *len = ext.len;
    parts = iov_slice(part, iov, n, 0, ext.len);
    if (ext.layer == node && offset < node->backing->size) {
        *len = MIN(*len, node->backing->size - offset);
        parts = iov_slice(part, iov, n, 0, *len);
        ret = co_node_read_nested(node->backing, offset, part, parts);
    } else if (ext.layer == node) {
        iov_memset(part, parts, 0, 0, *len);
    } else {
        ret = co_read_extent(&ext, offset, part, parts);
    }
    free(part);
    return ret;
}

int co_node_read_below(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n);
    struct chain_map *map;
    int ret = 0;

    if (!node->backing || offset >= node->backing->size) {
        iov_memset(iov, n, 0, 0, len);
        return 0;
    }
    map = chain_map_get(node);
    struct iovec *rest = mem_calloc(n, sizeof(*rest));
    for (uint64_t done = 0; done < len && ret == 0;) {
        uint64_t part = len - done;
        int rest_n = iov_slice(rest, iov, n, done, part);
        ret = co_read_below_part(node, map, offset + done, rest, rest_n, &part);
        done += part;
    }
    free(rest);
    chain_map_put(map);
    return ret;
}

int co_node_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n);
    struct epoch_entry epoch;
    int ret;

    co_enter(node, &epoch); /* first: the size may change while we wait */
    ret = check_range(node, offset, len);
    if (ret == 0) {
        trace(TRACE_READ, "%s offset %llu bytes %llu", node->name, (unsigned long long)offset, (unsigned long long)len);
        node->stats.reads++;
        node->stats.bytes_read += len;
        ret = node->copy_on_read ? co_copy_on_read(node, offset, len, NULL) : 0;
        ret = ret ? ret : co_node_read_nested(node, offset, iov, n);
    }
    leave(node, &epoch);
    return ret;
}

int co_node_read_buf(struct node *node, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    return co_node_read(node, offset, &iov, 1);
}

int co_node_map(struct node *node, uint64_t offset, uint64_t len, struct chain_extent *out)
{
    struct epoch_entry epoch;
    struct chain_map *map;
    int ret;

    co_enter(node, &epoch); /* so that the chain stays as it is */
    ret = len ? check_range(node, offset, len) : -EIO;
    if (ret == 0) {
        map = chain_map_get(node);
        co_chain_map_find(map, offset, len, out);
        chain_map_put(map);
    }
    leave(node, &epoch);
    return ret;
}

int co_node_map_own(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    struct epoch_entry epoch;
    int ret;

    assert(len > 0);
    co_enter(node, &epoch); /* so that its driver keeps its tables */
    ret = check_range(node, offset, len);
    if (ret == 0) {
        *out = (struct extent){ .kind = EXTENT_OPAQUE, .len = len };
        ret = node->driver->co_map ? node->driver->co_map(node, offset, len, out) : 0;
    }
    leave(node, &epoch);
    return ret;
}

/* --- Writing ------------------------------------------------------------------------------------------------------- */

int co_driver_flush(struct node *node)
{
    while (!node->driver->co_flush) {
        node = node->file;
    }
    return node->driver->co_flush(node);
}

static int co_after_write(struct node *node, int ret)
{
    if (ret == 0 && node->writethrough && !node->no_flush) {
        ret = co_driver_flush(node);
    }
    return ret;
}

static bool all_zero(const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++) {
        if (!bytes_are_zero(iov[i].iov_base, iov[i].iov_len)) {
            return false;
        }
    }
    return true;
}

/* It may have changed while we waited. */
static int still_writable(const struct node *node)
{
    return node->corrupt ? -EIO : node->read_only ? -EPERM : 0;
}

int co_node_write_nested(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n);
    struct node_request req = { .offset = offset, .len = len };
    int ret;

    if (len == 0) {
        return 0;
    }
    if (guarded(node, offset, iov, n, len)) {
        return -EPERM;
    }
    bool zero = node->detect_zeroes && all_zero(iov, n);
    req.serialising = zero;
    co_request_begin(node, &req);
    trace(TRACE_WRITE, "%s offset %llu bytes %llu", node->name, (unsigned long long)offset, (unsigned long long)len);
    node->stats.writes++;
    node->stats.bytes_written += len;
    ret = still_writable(node);
    if (ret == 0 && zero) {
        ret = node->driver->co_zero(node, offset, len, node->detect_zeroes == 2 ? NODE_MAY_UNMAP : 0);
    } else if (ret == 0) {
        ret = node->driver->co_write(node, offset, iov, n);
    }
    ret = co_after_write(node, ret);
    request_end(&req);
    return ret;
}

int co_node_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    struct epoch_entry epoch;
    int ret;

    co_enter(node, &epoch);
    ret = check_writable(node, offset, iov_size(iov, n));
    ret = ret ? ret : co_node_write_nested(node, offset, iov, n);
    leave(node, &epoch);
    return ret;
}

int co_node_write_buf(struct node *node, uint64_t offset, const void *buf, size_t len)
{
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
    return co_node_write(node, offset, &iov, 1);
}

int co_node_zero_nested(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    struct node_request req = { .offset = offset, .len = len, .serialising = true };
    int ret;

    if (len == 0) {
        return 0;
    }
    co_request_begin(node, &req);
    trace(TRACE_ZERO, "%s offset %llu bytes %llu", node->name, (unsigned long long)offset, (unsigned long long)len);
    node->stats.zeroes++;
    ret = still_writable(node);
    for (uint64_t done = 0; done < len && ret == 0;) {
        uint64_t part = MIN(len - done, (uint64_t)NODE_REQUEST_MAX);
        ret = node->driver->co_zero(node, offset + done, part, flags);
        done += part;
    }
    ret = co_after_write(node, ret);
    request_end(&req);
    return ret;
}

int co_node_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    struct epoch_entry epoch;
    int ret;

    co_enter(node, &epoch);
    ret = check_writable(node, offset, len);
    flags &= node->discard_unmap ? ~0u : ~(unsigned)NODE_MAY_UNMAP;
    ret = ret ? ret : co_node_zero_nested(node, offset, len, flags);
    leave(node, &epoch);
    return ret;
}

int co_node_discard_nested(struct node *node, uint64_t offset, uint64_t len)
{
    struct node_request req = { .offset = offset, .len = len, .serialising = true };
    int ret;

    if (len == 0) {
        return 0;
    }
    co_request_begin(node, &req);
    trace(TRACE_DISCARD, "%s offset %llu bytes %llu", node->name, (unsigned long long)offset, (unsigned long long)len);
    node->stats.discards++;
    ret = still_writable(node);
    for (uint64_t done = 0; done < len && ret == 0;) {
        uint64_t part = MIN(len - done, (uint64_t)NODE_REQUEST_MAX);
        ret = node->driver->co_discard(node, offset + done, part);
        done += part;
    }
    request_end(&req);
    return ret == -EOPNOTSUPP ? 0 : ret;
}

int co_node_discard(struct node *node, uint64_t offset, uint64_t len)
{
    struct epoch_entry epoch;
    int ret;

    co_enter(node, &epoch);
    ret = check_writable(node, offset, len);
    if (ret == 0 && node->discard_unmap) { /* a hint: without discard=unmap it is ignored, as QEMU does */
        ret = co_node_discard_nested(node, offset, len);
    }
    leave(node, &epoch);
    return ret;
}

int co_node_flush_nested(struct node *node)
{
    if (node->read_only || node->no_flush) {
        return 0;
    }
    trace(TRACE_FLUSH, "%s", node->name);
    node->stats.flushes++;
    node_debug_event(node, EVENT_FLUSH_TO_OS);
    node_debug_event(node, EVENT_FLUSH_TO_DISK);
    return co_driver_flush(node);
}

int co_node_flush(struct node *node)
{
    struct epoch_entry epoch;
    int ret;

    if (node->read_only || node->no_flush) {
        return 0;
    }
    co_enter(node, &epoch);
    ret = co_node_flush_nested(node);
    leave(node, &epoch);
    return ret;
}

void co_node_write_out(struct node *node)
{
    struct io_file *file = node_host_file(node);
    struct epoch_entry epoch;

    if (file && !node->read_only && !node->no_flush) {
        co_enter(node, &epoch);
        co_io_write_out(file);
        leave(node, &epoch);
    }
}

/* A guest that writes 300 MiB a second, for 50 ms. */
#define ROOM_BYTES (16ull << 20)

void co_node_make_room(struct node *node)
{
    struct io_file *file = node_host_file(node);

    if (file && !node->read_only && node->driver->supports_backing) { /* else it does not grow */
        co_io_make_room(file, ROOM_BYTES);
    }
}

void co_node_give_room_back(struct node *node)
{
    struct io_file *file = node_host_file(node);

    if (file) {
        co_io_give_room_back(file);
    }
}

int co_node_populate_nested(struct node *node, uint64_t offset, uint64_t len, node_populate_fn *co_fill, void *arg)
{
    struct node_request req = { .offset = offset, .len = len, .serialising = true };
    int ret;

    co_request_begin(node, &req);
    node->stats.copies++;
    ret = check_writable(node, offset, len);
    if (ret == 0) {
        ret = co_fill(node, offset, len, arg);
    }
    request_end(&req);
    return ret;
}

int co_node_populate(struct node *node, uint64_t offset, uint64_t len, node_populate_fn *co_fill, void *arg)
{
    struct epoch_entry epoch;
    int ret;

    co_enter(node, &epoch);
    ret = co_node_populate_nested(node, offset, len, co_fill, arg);
    leave(node, &epoch);
    return ret;
}
