/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Generations: the order in which changes reach the disk.  The stages and invariants are at the top
 * of qcow2.h.
 *
 * Group commit.  A flush joins the commit that starts next; the one who opens that commit waits for
 * its turn (writeback_lock), closes it to newcomers, and runs it for all who joined.  So whatever a
 * caller did before it called is part of the generation that it waits for, and any number of
 * flushes cost two generations at most.
 *
 *     callers   A     B  C        D
 *     commit    [A runs ...........][B runs for B, C, D ......]
 *
 * Locks: writeback_lock, then q->lock (for the release, when counts drop).  So nobody may call for
 * a writeback while he holds q->lock: a cache under pressure starts one in the background
 * (qcow2_writeback_kick()), and allocating requests wait for one before they take the lock
 * (co_qcow2_writeback_throttle()).
 *
 * A stage that has nothing to write costs nothing, not even its flush:
 *
 *     nothing dirty            flush
 *     refcounts only           write, flush
 *     an allocating write      refcount blocks, flush (with the data), L2, flush
 *     ... that made a table    ... L1, flush
 */
#include <assert.h>
#include <errno.h>

#include "block/qcow2-l2.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

#define ENTRIES_PER_SECTOR (NODE_SECTOR / 8)
/* How often clusters may fail to lose their reference before we leave them as leaks and go. */
#define RELEASES_MAX 2u

/* One generation, seen by those who wait for it. */
struct commit {
    unsigned refs;
    bool done;
    int ret;
    struct co_queue waiters;
};

/* q->priv_writeback */
struct writeback {
    struct commit *next;             /* open to newcomers; NULL: the next caller opens one */
    bool background;                 /* a coroutine of ours is on its way */
    bool want_generation, want_lift; /* ... and has this to do */
    bool release_failed;             /* of the last generation: clusters that it unlinked still count */
    bool background_failed;          /* do not try again before somebody else succeeded */
    struct co_queue background_ended;
};

static struct writeback *writeback_of(struct qcow2 *q)
{
    return q->priv_writeback;
}

void qcow2_writeback_init(struct qcow2 *q)
{
    struct writeback *wb = mem_zalloc(sizeof(*wb));

    co_queue_init(&wb->background_ended);
    q->priv_writeback = wb;
    qcow2_refcount_init(q);
    qcow2_in_flight_init(q);
}

void qcow2_writeback_close(struct qcow2 *q)
{
    struct writeback *wb = writeback_of(q);

    assert(!wb->background && !wb->next);
    free(wb);
    q->priv_writeback = NULL;
    qcow2_in_flight_close(q);
}

/* --- Copies of tables ----------------------------------------------------------------------- */

static bool is_set(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

void qcow2_table_copy(struct qcow2_table_copy *copy, const uint64_t *table, uint64_t entries,
                      uint8_t *dirty)
{
    uint64_t sectors = DIV_ROUND_UP(entries, ENTRIES_PER_SECTOR);

    copy->len = entries * 8;
    copy->bytes = mem_alloc(sectors * NODE_SECTOR);
    copy->sectors = mem_zalloc(sectors / 8 + 1);
    for (uint64_t s = 0; s < sectors; s++) {
        if (!is_set(dirty, s)) {
            continue;
        }
        dirty[s / 8] &= ~(1u << s % 8);
        copy->sectors[s / 8] |= 1u << s % 8;
        for (uint64_t i = s * ENTRIES_PER_SECTOR; i < MIN(entries, (s + 1) * ENTRIES_PER_SECTOR);
             i++) {
            store_be64(copy->bytes + i * 8, table[i]);
        }
    }
}

int co_qcow2_table_copy_write(struct qcow2 *q, const struct qcow2_table_copy *copy, uint64_t offset)
{
    uint64_t sectors = DIV_ROUND_UP(copy->len, NODE_SECTOR), end;
    int ret = 0;

    for (uint64_t s = 0; s < sectors && ret == 0; s = end) {
        for (end = s; end < sectors && is_set(copy->sectors, end); end++) {
        }
        if (end > s) {
            uint64_t from = s * NODE_SECTOR, to = MIN(end * NODE_SECTOR, copy->len);
            ret = co_io_write(q->file, offset + from, copy->bytes + from, to - from);
        } else {
            end++;
        }
    }
    return ret;
}

void qcow2_table_copy_thaw(const struct qcow2_table_copy *copy, uint8_t *dirty)
{
    for (uint64_t s = 0; s < DIV_ROUND_UP(copy->len, NODE_SECTOR); s++) {
        if (is_set(copy->sectors, s)) {
            dirty[s / 8] |= 1u << s % 8;
        }
    }
}

void qcow2_table_copy_free(struct qcow2_table_copy *copy)
{
    free(copy->bytes);
    free(copy->sectors);
    *copy = (struct qcow2_table_copy){ 0 };
}

/* --- A generation --------------------------------------------------------------------------- */

struct generation {
    struct qcow2_frozen *refcounts, *l2;
    struct qcow2_table_copy l1;
    bool l1_any;
};

static void freeze(struct qcow2 *q, struct generation *g)
{
    *g = (struct generation){
        .refcounts = qcow2_cache_freeze(q->ref_cache),
        .l2 = qcow2_cache_freeze(q->l2_cache),
        .l1_any = q->l1_dirty_any,
    };
    qcow2_reftable_freeze(q);
    if (g->l1_any) {
        qcow2_table_copy(&g->l1, q->l1, q->h.l1_size, q->l1_dirty);
        q->l1_dirty_any = false;
    }
    qcow2_quarantine_freeze(q);
    q->generation++;
}

static int co_flush(struct qcow2 *q)
{
    if (q->node->corrupt) { /* found while we wrote: nothing more */
        return -EIO;
    }
    return q->node->no_flush ? 0 : co_io_flush(q->file);
}

static int co_stages(struct qcow2 *q, struct generation *g)
{
    int ret = co_qcow2_frozen_write(g->refcounts);

    if (ret == 0 && qcow2_reftable_frozen(q)) {
        ret = co_qcow2_reftable_write(q); /* flushes what it points to, and itself */
    }
    if (ret == 0) {
        ret = co_flush(q);
    }
    if (ret == 0 && qcow2_frozen_count(g->l2) > 0) {
        ret = co_qcow2_frozen_write(g->l2);
        ret = ret < 0 ? ret : co_flush(q);
    }
    if (ret == 0 && g->l1_any) {
        node_debug_event(q->node, EVENT_L1_UPDATE);
        ret = co_qcow2_table_copy_write(q, &g->l1, q->h.l1_offset);
        ret = ret < 0 ? ret : co_flush(q);
    }
    return ret;
}

/* All that was frozen is durable, or none of it counts and all is dirty again. */
static void end_generation(struct qcow2 *q, struct generation *g, bool written)
{
    qcow2_frozen_done(g->refcounts, written);
    qcow2_frozen_done(g->l2, written);
    qcow2_reftable_done(q, written);
    if (g->l1_any && !written) {
        qcow2_table_copy_thaw(&g->l1, q->l1_dirty);
        q->l1_dirty_any = true;
    }
    qcow2_table_copy_free(&g->l1);
    if (written) {
        qcow2_quarantine_settled(q);
    } else {
        qcow2_quarantine_thaw(q);
    }
}

/* writeback_lock held. */
static int co_generation(struct qcow2 *q)
{
    struct generation g;
    int ret;

    if (q->node->corrupt) {
        return -EIO;
    }
    freeze(q, &g);
    ret = co_stages(q, &g);
    end_generation(q, &g, ret == 0);
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&q->lock);
    /* What cannot be released now waits for the next generation: the caller's changes are durable
     * all the same. */
    writeback_of(q)->release_failed = co_qcow2_quarantine_release(q) < 0;
    co_mutex_unlock(&q->lock);
    co_qcow2_embargo_lift(q);
    return 0;
}

/* --- Commits -------------------------------------------------------------------------------- */

static void commit_put(struct commit *c)
{
    if (--c->refs == 0) {
        free(c);
    }
}

int co_qcow2_writeback(struct qcow2 *q)
{
    struct writeback *wb = writeback_of(q);
    struct commit *c = wb->next;
    int ret;

    if (c) {
        c->refs++;
        while (!c->done) {
            co_queue_wait(&c->waiters);
        }
    } else {
        c = wb->next = mem_zalloc(sizeof(*c));
        c->refs = 1;
        co_queue_init(&c->waiters);
        co_mutex_lock(&q->writeback_lock);
        wb->next = NULL;
        c->ret = co_generation(q);
        c->done = true;
        if (c->ret == 0) {
            wb->background_failed = false;
        }
        co_mutex_unlock(&q->writeback_lock);
        co_queue_wake_all(&c->waiters);
    }
    ret = c->ret;
    commit_put(c);
    return ret;
}

int co_qcow2_flush(struct node *node)
{
    struct qcow2 *q = node->state;
    return q->writable ? co_qcow2_writeback(q) : 0;
}

static bool anything_left(const struct qcow2 *q)
{
    return qcow2_cache_dirty(q->l2_cache) || qcow2_cache_dirty(q->ref_cache) || q->l1_dirty_any ||
           qcow2_reftable_dirty(q) || !qcow2_quarantine_empty(q);
}

int co_qcow2_writeback_all(struct qcow2 *q)
{
    struct writeback *wb = writeback_of(q);
    unsigned stuck = 0;
    int ret;

    do {
        while (wb->background) { /* what it has frozen is clean, but not on disk yet */
            co_queue_wait(&wb->background_ended);
        }
        ret = co_qcow2_writeback(q);
        stuck = wb->release_failed ? stuck + 1 : 0;
    } while (wb->background || (ret == 0 && anything_left(q) && stuck < RELEASES_MAX));
    return ret;
}

/* --- Pressure ------------------------------------------------------------------------------- */

static CO_ENTRY void co_background(void *arg)
{
    struct qcow2 *q = arg;
    struct writeback *wb = writeback_of(q);

    while (wb->want_generation || wb->want_lift) {
        if (wb->want_generation) {
            wb->want_generation = false;
            wb->background_failed = co_qcow2_writeback(q) < 0;
        } else {
            wb->want_lift = false;
            co_qcow2_embargo_lift(q);
        }
    }
    wb->background = false;
    co_queue_wake_all(&wb->background_ended);
}

static void start_background(struct qcow2 *q)
{
    struct writeback *wb = writeback_of(q);

    if (!wb->background) {
        wb->background = true;
        co_start_later(co_background, q);
    }
}

void qcow2_writeback_kick(struct qcow2 *q)
{
    struct writeback *wb = writeback_of(q);

    if (!wb->background_failed) {
        wb->want_generation = true;
        start_background(q);
    }
}

void qcow2_embargo_kick(struct qcow2 *q)
{
    writeback_of(q)->want_lift = true;
    start_background(q);
}

int co_qcow2_writeback_throttle(struct qcow2 *q)
{
    if (!qcow2_cache_crowded(q->l2_cache) && !qcow2_cache_crowded(q->ref_cache)) {
        return 0;
    }
    return co_qcow2_writeback(q);
}
