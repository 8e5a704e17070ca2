/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Large runs past the page cache, so that nobody who uses the file meanwhile notices.
 *
 * A file's lock is what a guest's write would wait for: ext4 gives it to a direct write alone, and until the disk is done, when
 * the write makes the file longer or has to find space for it.  Where the space is there already (even if nothing was ever
 * written to it) writers share the lock, and an asynchronous write gives it back as soon as the disk has the request.  So
 *
 *     worker   map the sources' pages          io_gather_begin()
 *     ring     write them                      the lock is held, shared, for some 20 us a MiB
 *     worker   unmap                           io_gather_end()
 *
 * and room is made ahead for what the user expects to write, much at a time.  4 KiB of a guest into the page cache beside such
 * writes, 2 GiB of them, 99th percentile: 25 us when idle, 1,200 us with synchronous writes, 3,500 us with asynchronous ones into
 * a hole, 25 us with asynchronous ones into room that was made.  (A longer file alone, without space, is the hole's case.)
 *
 * Making room waits, with the lock, for all direct writes in flight: so we let ours end first.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/io-host.h"

/* Made at once.  What is left of it after a kill is lost room, which the next one who writes there uses. */
#define ROOM_STEP (1ull << 30)
/* ... and with the file's lock held at once: some 0.1 ms. */
#define ROOM_PIECE (32ull << 20)

void io_past_cache_init(struct io_past_cache *p)
{
    *p = (struct io_past_cache){ 0 };
    co_queue_init(&p->changed);
}

void io_past_cache_expect(struct io_past_cache *p, uint64_t from, uint64_t to)
{
    assert(from <= to && !p->in_flight && !p->making);
    p->from = p->room_to = from;
    p->to = to;
}

/* Without room it goes on as well, only not as quietly: a refusal ends the attempts. */
static void co_make_room(const struct io_engine *engine, struct io_past_cache *p, const struct io_gathering *g)
{
    uint64_t end = g->dst_off + g->len, goal;
    ssize_t ret = 0;

    while (p->making) {
        co_queue_wait(&p->changed);
    }
    if (g->dst_off < p->from || end > p->to || end <= p->room_to) {
        return;
    }
    p->making = p->touched = true;
    while (p->in_flight > 0) {
        co_queue_wait(&p->changed);
    }
    goal = MIN(MAX(end, p->room_to + ROOM_STEP), p->to);
    while (ret == 0 && p->room_to < goal) {
        struct io_call call = {
            .op = IO_CALL_FALLOCATE, .fd = g->dst, .offset = p->room_to, .len = MIN(goal - p->room_to, ROOM_PIECE),
        };

        ret = engine->co_carry(&call);
        p->room_to += ret == 0 ? call.len : 0;
    }
    if (ret < 0) {
        p->to = p->from;
    }
    p->making = false;
    co_queue_wake_all(&p->changed);
}

static int co_write(const struct io_engine *engine, const struct io_gathering *g)
{
    struct io_call call = {
        .op = IO_CALL_WRITE, .fd = g->direct, .offset = g->dst_off, .iov = g->iov, .n = g->n, .len = g->len,
        .big = true, .bulk = true,
    };
    ssize_t ret;

    do {
        ret = engine->co_carry(&call);
    } while (ret == -EINTR);
    return io_gather_judge(g, ret);
}

static void co_run(const struct io_engine *engine, void (*fn)(void *), struct io_gathering *g)
{
    struct io_call call = { .op = IO_CALL_FN, .fn = fn, .arg = g, .len = g->len, .bulk = true };

    engine->co_carry(&call);
}

/* Fresh memory is a page fault for every 4 KiB, which for small pieces is a quarter of all the work. */
static void take_buffer(struct io_past_cache *p, struct io_gathering *g)
{
    p->users++;
    if (p->spares > 0) {
        g->buffer = p->spare[--p->spares].buffer;
        g->room = p->spare[p->spares].room;
    }
}

static void give_buffer_back(struct io_past_cache *p, struct io_gathering *g)
{
    p->users--;
    if (g->buffer && p->users > 0 && p->spares < ARRAY_SIZE(p->spare)) {
        p->spare[p->spares].buffer = g->buffer;
        p->spare[p->spares++].room = g->room;
    } else {
        free(g->buffer);
    }
    while (p->users == 0 && p->spares > 0) {
        free(p->spare[--p->spares].buffer);
    }
}

int co_io_past_cache(const struct io_engine *engine, struct io_past_cache *p, struct io_gathering *g)
{
    if (p->refused) {
        return -ENOSYS;
    }
    take_buffer(p, g);
    co_run(engine, io_gather_begin, g);
    if (g->result == 0) {
        co_make_room(engine, p, g);
        p->in_flight++;
        g->result = co_write(engine, g);
        p->in_flight--;
        co_queue_wake_all(&p->changed);
        co_run(engine, io_gather_end, g);
    }
    give_buffer_back(p, g);
    p->refused |= g->result == -ENOSYS;
    return g->result;
}

/* --- Giving back what was not used ------------------------------------------------------------ */

struct cut {
    int fd;
    uint64_t end;
};

/* It is room, no more: an error changes nothing for anybody. */
static void cut_run(void *arg)
{
    const struct cut *cut = arg;
    struct stat st;

    if (!fstat(cut->fd, &st) && (uint64_t)st.st_size > cut->end && ftruncate(cut->fd, cut->end)) {
        return;
    }
}

void co_io_past_cache_expect_end(const struct io_engine *engine, struct io_past_cache *p, int fd, uint64_t end)
{
    struct cut cut = { .fd = fd, .end = end };
    struct io_call call = { .op = IO_CALL_FN, .fn = cut_run, .arg = &cut };

    assert(!p->in_flight && !p->making);
    p->from = p->to = 0;
    if (p->touched) {
        engine->co_carry(&call);
    }
    p->touched = false;
}
