/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small runs past the page cache (io-past-cache.c) that lie one after the other in a file, made as one.
 *
 * A merge of scattered clusters moves many of them at the same time, from anywhere to places that follow each other, as
 * clusters are given out in order.  One by one each would cost the making of the target's pages, or the disk's latency.
 *
 *     A ->+  waits for one turn of the loop: whoever has more comes within it
 *     B ->+-> sorted by place, and cut into runs where they do not follow each other
 *     C ->+   the first of each run carries it out, and tells the others what came of it
 *
 * Nothing waits longer for company: what comes later is the next to wait for a turn.
 */
#include "core/io-engine.h"

#include <limits.h>

#include <errno.h>

#include "core/io-host.h"

/* As much as a merge moves at once anyway: what a guest would wait for. */
#define RUN_MAX (512u << 10)

/* One of them, on the stack of whoever waits for it. */
struct io_joined {
    const struct io_gathering *g;
    TAILQ_ENTRY(io_joined) link;  /* by place, until the runs are cut */
    struct io_joined *next;       /* of the same run */
    bool first;                   /* of its run, which has */
    uint64_t len;                 /* so many bytes */
    int n;                        /* in so many pieces */
    bool done;
    int result;
    struct co_queue changed;
};

void io_join_init(struct io_join *j)
{
    *j = (struct io_join){ .waiting = TAILQ_HEAD_INITIALIZER(j->waiting) };
}

/* Nearly always behind all others. */
static void insert(struct io_join *j, struct io_joined *m)
{
    struct io_joined *before = TAILQ_LAST(&j->waiting, io_joined_list);

    while (before && before->g->dst_off > m->g->dst_off) {
        before = TAILQ_PREV(before, io_joined_list, link);
    }
    if (before) {
        TAILQ_INSERT_AFTER(&j->waiting, before, m, link);
    } else {
        TAILQ_INSERT_HEAD(&j->waiting, m, link);
    }
}

static bool goes_on(const struct io_joined *first, const struct io_joined *m)
{
    return first && first->g->dst_off + first->len == m->g->dst_off && first->len + m->g->len <= RUN_MAX &&
           first->n + m->g->n <= IOV_MAX;
}

static void cut_into_runs(struct io_join *j)
{
    struct io_joined *first = NULL, *last = NULL, *m;

    while ((m = TAILQ_FIRST(&j->waiting))) {
        TAILQ_REMOVE(&j->waiting, m, link);
        if (goes_on(first, m)) {
            last->next = m;
        } else {
            first = m;
            first->first = true;
            co_queue_wake_all(&first->changed);
        }
        first->len += m->g->len;
        first->n += m->g->n;
        last = m;
    }
}

static int co_carry_out(const struct io_engine *engine, struct io_past_cache *p, const struct io_joined *first)
{
    AUTOFREE struct io_host_piece *pieces = mem_calloc(first->n, sizeof(*pieces));
    struct io_gathering g = {
        .pieces = pieces, .n = first->n, .dst = first->g->dst, .dst_off = first->g->dst_off, .len = first->len,
    };
    int n = 0;

    for (const struct io_joined *m = first; m; m = m->next) {
        for (int i = 0; i < m->g->n; i++) {
            pieces[n++] = m->g->pieces[i];
        }
    }
    return g.len < IO_DIRECT_MIN ? -EOPNOTSUPP : co_io_past_cache(engine, p, &g);
}

int co_io_join(const struct io_engine *engine, struct io_join *j, struct io_past_cache *p, const struct io_gathering *g)
{
    struct io_joined m = { .g = g };

    if (p->refused) {
        return -ENOSYS;
    }
    co_queue_init(&m.changed);
    insert(j, &m);
    if (!j->collecting) {
        j->collecting = true;
        co_yield();
        j->collecting = false;
        cut_into_runs(j);
    }
    while (!m.first && !m.done) {
        co_queue_wait(&m.changed);
    }
    if (m.done) {
        return m.result;
    }
    m.result = co_carry_out(engine, p, &m);
    for (struct io_joined *other = m.next, *next; other; other = next) {
        next = other->next;
        other->result = m.result;
        other->done = true;
        co_queue_wake_all(&other->changed);
    }
    return m.result;
}
