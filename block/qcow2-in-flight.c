/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clusters in flight: whose entries are about to change, who else has to wait for that, and how
 * many there are.  Only allocating writes put clusters here (qcow2-write.c); there are as many
 * entries as such writes at the same time, so a plain list is fast enough.
 */
#include "block/qcow2-l2.h"

#include <assert.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/mem.h"

LIST_HEAD(alloc_list, qcow2_alloc);

static struct alloc_list *in_flight(struct qcow2 *q)
{
    return q->priv_in_flight;
}

void qcow2_in_flight_init(struct qcow2 *q)
{
    struct alloc_list *list = mem_alloc(sizeof(*list));

    LIST_INIT(list);
    q->priv_in_flight = list;
}

void qcow2_in_flight_close(struct qcow2 *q)
{
    assert(!q->priv_in_flight || LIST_EMPTY(in_flight(q)));
    free(q->priv_in_flight);
    q->priv_in_flight = NULL;
}

static struct qcow2_alloc *find_in_flight(struct qcow2 *q, uint64_t guest)
{
    struct qcow2_alloc *a;

    LIST_FOREACH(a, in_flight(q), link) {
        if (guest >= a->start && guest < a->end) {
            break;
        }
    }
    return a;
}

uint64_t qcow2_in_flight_from(struct qcow2 *q, uint64_t guest, uint64_t end)
{
    struct qcow2_alloc *a;

    LIST_FOREACH(a, in_flight(q), link) {
        if (a->start < end && a->end > guest) {
            end = MAX(a->start, guest);
        }
    }
    return end;
}

uint64_t qcow2_in_flight_clusters(struct qcow2 *q)
{
    struct qcow2_alloc *a;
    uint64_t sum = 0;

    LIST_FOREACH(a, in_flight(q), link) {
        sum += (a->end - a->start) / q->cluster_size;
    }
    return sum;
}

void co_qcow2_in_flight_wait(struct qcow2 *q, uint64_t guest)
{
    struct qcow2_alloc *a = find_in_flight(q, guest);

    if (a) {
        co_queue_wait(&a->waiters);
    }
}

void qcow2_in_flight_begin(struct qcow2 *q, struct qcow2_alloc *a)
{
    co_queue_init(&a->waiters);
    LIST_INSERT_HEAD(in_flight(q), a, link);
}

void qcow2_in_flight_end(struct qcow2_alloc *a)
{
    LIST_REMOVE(a, link);
    co_queue_wake_all(&a->waiters);
}
