/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From "nothing in memory points to it any more" to "free": two things must have happened.
 *
 *   collecting --freeze--> frozen --the generation is durable--> counts drop --epoch over--> free
 *                            |                                   (embargo)
 *                            +--the generation failed--> collecting
 *
 *   durable   The table that has let go of the cluster is on disk, or a crash would bring back an
 *             entry that points to somebody else's bytes.  Then the count drops, in the cache; the
 *             next generation writes it.
 *   embargo   No request in flight is old enough to have resolved the former entry
 *             (node_epoch_oldest()), or a slow read would see somebody else's bytes.  Until then
 *             the count is zero, but the allocator passes the cluster by.
 *
 * With discard=unmap a hole is punched into the host file between embargo and "free".
 */
#include "block/qcow2-refcount.h"
#include "block/qcow2-l2.h"

#include <assert.h>
#include <string.h>

#include "core/mem.h"

/* Runs that wait for a generation; with more of them nobody should have to ask for a flush. */
#define COLLECT_MAX 4096u

static void append(struct qcow2_unlinked_list *list, uint64_t first, uint64_t n, uint64_t epoch)
{
    struct qcow2_unlinked *last = list->n ? &list->v[list->n - 1] : NULL;

    if (last && last->first + last->n == first) {
        last->n += n;
        last->epoch = MAX(last->epoch, epoch);
        return;
    }
    if (list->n == list->room) {
        list->room = list->room ? list->room * 2 : 16;
        list->v = mem_reallocarray(list->v, list->room, sizeof(*list->v));
    }
    list->v[list->n++] = (struct qcow2_unlinked){ .first = first, .n = n, .epoch = epoch };
}

static void clear(struct qcow2_unlinked_list *list)
{
    free(list->v);
    *list = (struct qcow2_unlinked_list){ 0 };
}

void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    uint64_t first = offset / q->cluster_size, last = (offset + len - 1) / q->cluster_size;

    assert(len > 0);
    append(&refs->collecting, first, last - first + 1, node_epoch_now());
    if (refs->collecting.n > COLLECT_MAX) {
        qcow2_writeback_kick(q);
    }
}

void qcow2_free_with_generation(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    append(&qcow2_refs(q)->frozen, offset / q->cluster_size, len / q->cluster_size, 0);
}

bool qcow2_quarantine_empty(const struct qcow2 *q)
{
    const struct qcow2_refs *refs = q->priv_refcount;
    return refs->collecting.n == 0 && refs->frozen.n == 0;
}

void qcow2_quarantine_freeze(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);

    assert(refs->frozen.n == 0);
    clear(&refs->frozen);
    refs->loose_frozen = refs->loose;
    refs->loose = 0;
    refs->frozen = refs->collecting;
    refs->collecting = (struct qcow2_unlinked_list){ 0 };
}

/* What is left in `frozen` goes back in front of `collecting`. */
void qcow2_quarantine_thaw(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_unlinked_list later = refs->collecting;

    refs->loose += refs->loose_frozen;
    refs->loose_frozen = 0;
    refs->collecting = refs->frozen;
    refs->frozen = (struct qcow2_unlinked_list){ 0 };
    for (size_t i = 0; i < later.n; i++) {
        append(&refs->collecting, later.v[i].first, later.v[i].n, later.v[i].epoch);
    }
    clear(&later);
}

void qcow2_quarantine_settled(struct qcow2 *q)
{
    qcow2_refs(q)->loose_frozen = 0;
}

static uint64_t clusters_in(const struct qcow2_unlinked_list *list)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < list->n; i++) {
        sum += list->v[i].n;
    }
    return sum;
}

uint64_t qcow2_loose_clusters(struct qcow2 *q)
{
    const struct qcow2_refs *refs = q ? q->priv_refcount : NULL;

    if (!refs || !q->priv_in_flight) {
        return 0;
    }
    return refs->loose + refs->loose_frozen + refs->held + clusters_in(&refs->collecting) +
           clusters_in(&refs->frozen) + qcow2_in_flight_clusters(q);
}

/* --- The counts drop ------------------------------------------------------------------------ */

struct released {
    struct qcow2_unlinked_list list;
    uint64_t epoch;
};

static void gone(void *arg, uint64_t first, uint64_t n)
{
    struct released *released = arg;
    append(&released->list, first, n, released->epoch);
}

static int compare_first(const void *a, const void *b)
{
    const struct qcow2_unlinked *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Sort and melt. */
static void impose(struct qcow2 *q, struct released *released)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_embargo *e;
    struct qcow2_unlinked *v = released->list.v;

    if (released->list.n == 0) {
        return;
    }
    qsort(v, released->list.n, sizeof(*v), compare_first);
    e = mem_zalloc(sizeof(*e));
    e->v = v;
    for (size_t i = 0; i < released->list.n; i++) {
        e->epoch = MAX(e->epoch, v[i].epoch);
        if (e->n > 0 && v[e->n - 1].first + v[e->n - 1].n == v[i].first) {
            v[e->n - 1].n += v[i].n;
        } else {
            v[e->n++] = v[i];
        }
    }
    STAILQ_INSERT_TAIL(&refs->embargo, e, link);
}

/*
 * The clusters must be under embargo in the same breath in which their counts become zero, but the
 * counts drop piece by piece, with waits between: q->lock is held, so no allocator looks before all
 * is done.
 */
int co_qcow2_quarantine_release(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct released released = { 0 };
    struct qcow2_unlinked_list *frozen = &refs->frozen;
    size_t i;
    int ret = 0;

    assert(q->lock.holder == co_self());
    for (i = 0; i < frozen->n && ret == 0; i++) {
        struct qcow2_unlinked *u = &frozen->v[i];
        uint64_t done;

        released.epoch = u->epoch;
        done = 0;
        /* A hostile entry may have led to metadata: without their last reference these clusters
         * would be punched out of the file. */
        ret = co_qcow2_guard_check_drop(q, u->first, u->n);
        if (ret == 0) {
            ret = co_qcow2_refcount_drop(q, u->first, u->n, &done, gone, &released);
        }
        if (ret < 0) { /* the rest waits for another generation */
            u->first += done;
            u->n -= done;
            memmove(frozen->v, u, (frozen->n - i) * sizeof(*u));
            frozen->n -= i;
            qcow2_quarantine_thaw(q);
            break;
        }
    }
    if (ret == 0) {
        clear(frozen);
    }
    impose(q, &released);
    return ret;
}

/* --- The embargo ---------------------------------------------------------------------------- */

uint64_t qcow2_embargo_end(struct qcow2 *q, uint64_t index)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_embargo *e;

    STAILQ_FOREACH(e, &refs->embargo, link) {
        size_t low = 0, high = e->n;
        while (low < high) { /* the first range that ends behind index */
            size_t mid = low + (high - low) / 2;
            if (e->v[mid].first + e->v[mid].n <= index) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        if (low < e->n && e->v[low].first <= index) {
            return e->v[low].first + e->v[low].n;
        }
    }
    return 0;
}

static struct qcow2_embargo *next_over(struct qcow2_refs *refs)
{
    struct qcow2_embargo *e;

    STAILQ_FOREACH(e, &refs->embargo, link) {
        if (e->epoch < node_epoch_oldest() && !e->punching) {
            return e;
        }
    }
    return NULL;
}

static void lift(struct qcow2 *q, struct qcow2_embargo *e)
{
    struct qcow2_refs *refs = qcow2_refs(q);

    STAILQ_REMOVE(&refs->embargo, e, qcow2_embargo, link);
    for (size_t i = 0; i < e->n; i++) {
        qcow2_hint_free(q, e->v[i].first, e->v[i].n);
    }
    free(e->v);
    free(e);
}

void qcow2_embargo_lift(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_embargo *e = next_over(refs);

    if (e && q->node->discard_unmap) {
        qcow2_embargo_kick(q); /* punches, then lifts */
        return;
    }
    for (; e; e = next_over(refs)) {
        lift(q, e);
    }
}

void co_qcow2_embargo_lift(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_embargo *e;

    while ((e = next_over(refs))) {
        e->punching = true;
        for (size_t i = 0; q->node->discard_unmap && i < e->n; i++) {
            int ret = co_io_discard(q->file, e->v[i].first * q->cluster_size,
                                    e->v[i].n * q->cluster_size);
            node_note_host_discard(q->node->file, e->v[i].n * q->cluster_size, ret);
            if (ret < 0) {
                break; /* a hint, no more */
            }
        }
        lift(q, e);
    }
}

void qcow2_quarantine_close(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_embargo *e;

    clear(&refs->collecting);
    clear(&refs->frozen);
    while ((e = STAILQ_FIRST(&refs->embargo))) {
        STAILQ_REMOVE_HEAD(&refs->embargo, link);
        free(e->v);
        free(e);
    }
}
