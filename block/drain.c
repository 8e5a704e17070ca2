/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drains: a subtree and everything that stands on it at rest, so that edges can be changed.
 *
 * New requests wait at the choke points (node.c) of every node from which the drained one can be reached; what is in flight is
 * waited for.  Drains nest: a node is at rest while its count is not zero.
 */
#include <assert.h>

#include "block/node.h"
#include "core/mem.h"

static uint64_t mark; /* of the last search; 0 is nobody's */

static bool is_marked(const struct node *n)
{
    return n && n->mark == mark;
}

static bool mark_above(struct node *n)
{
    if (is_marked(n) || !(is_marked(n->file) || is_marked(n->backing))) {
        return false;
    }
    n->mark = mark;
    return true;
}

/* Mark those from which `wanted` can be reached, by any edges.  Children are older than what was opened above them and younger
 * than what was opened above and found its backing file later, so few passes are needed, however deep chains are. */
static void mark_reaching(struct node *wanted)
{
    struct node *n;
    bool more, up = true;

    wanted->mark = ++mark;
    do {
        more = false;
        if (up) {
            TAILQ_FOREACH(n, &all_nodes, link) {
                more |= mark_above(n);
            }
        } else {
            TAILQ_FOREACH_REVERSE(n, &all_nodes, node_list, link) {
                more |= mark_above(n);
            }
        }
        up = !up;
    } while (more);
}

bool node_reaches(const struct node *from, struct node *wanted)
{
    mark_reaching(wanted);
    return is_marked(from);
}

struct node_drain {
    struct node **nodes; /* a reference each */
    size_t count;
    struct node **holders; /* a reference each: whose driver has been told */
    size_t holder_count;
};

static void drain_add(struct node ***list, size_t *count, struct node *node)
{
    *list = mem_reallocarray(*list, *count + 1, sizeof(node));
    (*list)[(*count)++] = node_ref(node);
}

/* Stop all that reach `node` and have not been stopped yet: how many there are. */
static size_t stop_those_above(struct node_drain *drain, struct node *node)
{
    size_t before = drain->count;
    struct node *n;

    mark_reaching(node);
    for (size_t i = 0; i < before; i++) {
        drain->nodes[i]->mark = 0;
    }
    TAILQ_FOREACH(n, &all_nodes, link) {
        if (node_alive(n) && is_marked(n)) {
            drain_add(&drain->nodes, &drain->count, n);
            n->drained++;
        }
    }
    return drain->count - before;
}

static bool is_holder(const struct node_drain *drain, const struct node *n)
{
    for (size_t i = 0; i < drain->holder_count; i++) {
        if (drain->holders[i] == n) {
            return true;
        }
    }
    return false;
}

/* A driver that holds requests up at its pleasure must not do so while somebody waits for their end. */
static void tell_holders(struct node_drain *drain)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (!node_alive(n) || !n->driver->drained || is_holder(drain, n)) {
            continue;
        }
        mark_reaching(n);
        for (size_t i = 0; i < drain->count; i++) {
            if (is_marked(drain->nodes[i])) {
                drain_add(&drain->holders, &drain->holder_count, n);
                n->driver->drained(n, true);
                break;
            }
        }
    }
}

/* While we wait for some, a snapshot may put an overlay on others that were at rest: its requests reach us, too. */
struct node_drain *co_node_drain_begin(struct node *node)
{
    struct node_drain *drain = mem_zalloc(sizeof(*drain));
    bool waited = true;

    while (waited && stop_those_above(drain, node)) {
        tell_holders(drain);
        waited = false;
        for (size_t i = 0; i < drain->count; i++) {
            while (drain->nodes[i]->in_flight > 0) {
                co_queue_wait(&drain->nodes[i]->idle_queue);
                waited = true;
            }
        }
    }
    return drain;
}

void co_node_close_door(struct node *node)
{
    node->drained++;
    while (node->in_flight > 0) {
        co_queue_wait(&node->idle_queue);
    }
}

void node_open_door(struct node *node)
{
    assert(node->drained > 0);
    if (--node->drained == 0) {
        co_queue_wake_all(&node->drain_queue);
    }
}

void co_node_drain_end(struct node_drain *drain)
{
    for (size_t i = 0; i < drain->count; i++) {
        node_open_door(drain->nodes[i]);
        co_node_let_go(drain->nodes[i]);
    }
    for (size_t i = 0; i < drain->holder_count; i++) {
        drain->holders[i]->driver->drained(drain->holders[i], false);
        co_node_let_go(drain->holders[i]);
    }
    free(drain->nodes);
    free(drain->holders);
    free(drain);
}
