/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups under one set of limits: see throttle-group.h.
 *
 * For each direction the group has one timer, armed while anybody waits, for the moment when the buckets have room for one
 * more; then the member whose turn it is lets its first request go.  A request is accounted at the moment it is let go, not
 * when its coroutine runs again, so that no second one slips in between.
 */
#include "block/throttle-group.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/queue.h>

#include "core/loop.h"
#include "core/mem.h"

struct throttle_waiter { /* on the stack of the coroutine that waits */
    TAILQ_ENTRY(throttle_waiter) link;
    uint64_t bytes;
    struct co *co;
};

struct throttle_group {
    LIST_ENTRY(throttle_group) link;
    char *name;
    bool by_name; /* an object of the user's */
    struct throttle_limits limits;
    TAILQ_HEAD(throttle_members, throttle_member) members;
    struct throttle_member *last[2]; /* whose turn it was */
    unsigned pending[2];
    struct loop_timer timers[2];
};

static unsigned all_drained; /* > 0: nobody is held up */
static LIST_HEAD(, throttle_group) groups = LIST_HEAD_INITIALIZER(groups);

/* --- Turns ------------------------------------------------------------------------------------------ */

/* The first after the one whose turn it was that has a request waiting.  There is one. */
static struct throttle_member *next_turn(struct throttle_group *g, bool write)
{
    struct throttle_member *m = g->last[write];

    do {
        m = m ? TAILQ_NEXT(m, link) : NULL;
        m = m ? m : TAILQ_FIRST(&g->members);
    } while (TAILQ_EMPTY(&m->waiting[write]));
    return m;
}

static void let_go(struct throttle_member *m, bool write)
{
    struct throttle_waiter *w = TAILQ_FIRST(&m->waiting[write]);

    TAILQ_REMOVE(&m->waiting[write], w, link);
    m->group->pending[write]--;
    throttle_limits_account(&m->group->limits, write, w->bytes);
    co_wake(w->co);
}

static void dispatch(struct throttle_group *g, bool write)
{
    while (g->pending[write]) {
        uint64_t now = loop_now(), wait = throttle_limits_wait(&g->limits, write, now);

        if (wait) {
            loop_timer_arm(&g->timers[write], now + wait);
            return;
        }
        g->last[write] = next_turn(g, write);
        let_go(g->last[write], write);
    }
    loop_timer_cancel(&g->timers[write]);
}

static void time_for_reads(void *arg)
{
    dispatch(arg, false);
}

static void time_for_writes(void *arg)
{
    dispatch(arg, true);
}

void co_throttle(struct throttle_member *m, bool write, uint64_t bytes)
{
    struct throttle_group *g = m->group;
    struct throttle_waiter w = { .bytes = bytes };
    uint64_t now = loop_now(), wait;

    if (!g || m->drained || all_drained) {
        return;
    }
    wait = throttle_limits_wait(&g->limits, write, now);
    if (!g->pending[write] && !wait) {
        throttle_limits_account(&g->limits, write, bytes);
        return;
    }
    w.co = co_self();
    TAILQ_INSERT_TAIL(&m->waiting[write], &w, link);
    if (!g->pending[write]++) {
        loop_timer_arm(&g->timers[write], now + wait); /* dispatch() would ask the clock again, and might wake us before we sleep */
    }
    co_suspend();
}

static void let_all_go(struct throttle_member *m)
{
    for (int write = 0; m->group && write < 2; write++) {
        while (!TAILQ_EMPTY(&m->waiting[write])) {
            let_go(m, write);
        }
        dispatch(m->group, write);
    }
}

void throttle_member_drain(struct throttle_member *m, bool begin)
{
    m->drained += begin ? 1 : -1;
    if (begin) {
        let_all_go(m);
    }
}

void throttle_drain_all(bool begin)
{
    struct throttle_group *g;
    struct throttle_member *m;

    all_drained += begin ? 1 : -1;
    LIST_FOREACH(g, &groups, link) {
        TAILQ_FOREACH(m, &g->members, link) {
            let_all_go(m);
        }
    }
}

/* --- Groups -------------------------------------------------------------------------------------------- */

static struct throttle_group *find(const char *name)
{
    struct throttle_group *g;

    LIST_FOREACH(g, &groups, link) {
        if (!strcmp(g->name, name)) {
            return g;
        }
    }
    return NULL;
}

static struct throttle_group *make(const char *name)
{
    struct throttle_group *g = mem_zalloc(sizeof(*g));

    g->name = mem_strdup(name);
    throttle_limits_init(&g->limits);
    TAILQ_INIT(&g->members);
    loop_timer_init(&g->timers[0], time_for_reads, g);
    loop_timer_init(&g->timers[1], time_for_writes, g);
    LIST_INSERT_HEAD(&groups, g, link);
    return g;
}

static void drop_unused(struct throttle_group *g)
{
    if (!g->by_name && TAILQ_EMPTY(&g->members)) {
        LIST_REMOVE(g, link);
        free(g->name);
        free(g);
    }
}

static void use_limits(struct throttle_group *g, const struct throttle_limits *limits)
{
    g->limits = *limits;
    g->limits.since = 0; /* the buckets are empty, however long ago */
    dispatch(g, false);
    dispatch(g, true);
}

static int set_limits(struct throttle_group *g, const json_t *named, struct error *err)
{
    struct throttle_limits limits = g->limits;

    if (throttle_limits_set(&limits, named, err) < 0) {
        return -EINVAL;
    }
    use_limits(g, &limits);
    return 0;
}

/* --- Members --------------------------------------------------------------------------------------------- */

int throttle_member_join(struct throttle_member *m, const char *group, bool may_make, struct error *err)
{
    struct throttle_group *g = find(group);

    assert(!m->group);
    if (!g && !may_make) {
        error_set(err, "Throttle group '%s' does not exist", group);
        return -ENOENT;
    }
    m->group = g ? g : make(group);
    TAILQ_INIT(&m->waiting[0]);
    TAILQ_INIT(&m->waiting[1]);
    TAILQ_INSERT_TAIL(&m->group->members, m, link);
    return 0;
}

void throttle_member_leave(struct throttle_member *m)
{
    struct throttle_group *g = m->group;

    if (!g) {
        return;
    }
    for (int write = 0; write < 2; write++) {
        assert(TAILQ_EMPTY(&m->waiting[write]));
        if (g->last[write] == m) {
            g->last[write] = TAILQ_PREV(m, throttle_members, link);
        }
    }
    TAILQ_REMOVE(&g->members, m, link);
    m->group = NULL;
    drop_unused(g);
}

const char *throttle_member_group(const struct throttle_member *m)
{
    return m->group->name;
}

json_t *throttle_member_limits(const struct throttle_member *m)
{
    return throttle_limits_get(&m->group->limits);
}

void throttle_member_set_limits(struct throttle_member *m, const struct throttle_limits *limits)
{
    use_limits(m->group, limits);
}

/* --- The object ------------------------------------------------------------------------------------------ */

#define LIMIT(name_, what) { .name = name_, .kind = KEY_INT, .help = what }
#define LIMITS(prefix, of, unit) \
    LIMIT(prefix of, unit " a second"), LIMIT(prefix of "-max", unit " a second in bursts"), \
        LIMIT(prefix of "-max-length", "seconds that a burst may last")
#define ALL_LIMITS(prefix) \
    LIMITS(prefix, "iops-total", "requests"), LIMITS(prefix, "iops-read", "reads"), \
        LIMITS(prefix, "iops-write", "writes"), LIMITS(prefix, "bps-total", "bytes"), \
        LIMITS(prefix, "bps-read", "bytes read"), LIMITS(prefix, "bps-write", "bytes written"), \
        LIMIT(prefix "iops-size", "bytes that count as one request")

static const struct block_key limit_keys[] = { ALL_LIMITS(""), { 0 } };
const struct block_key throttle_group_keys[] = {
    { .name = "limits", .kind = KEY_OBJECT, .members = limit_keys, .help = "what the group may do" },
    ALL_LIMITS("x-"),
    { 0 },
};

/* {"limits": {...}, "x-iops-total": 5} to one object of limits (a new reference). */
static json_t *merged_limits(const json_t *props)
{
    json_t *all = json_object(), *value;
    const char *key;

    json_object_foreach((json_t *)props, key, value) {
        if (!strncmp(key, "x-", 2)) {
            json_object_set(all, key + 2, value);
        }
    }
    json_object_update(all, json_object_get(props, "limits"));
    return all;
}

/* Those with x- are judged one by one, before all limits are looked at together. */
static int check_old_names(const json_t *props, struct error *err)
{
    json_t *value;
    const char *key;

    json_object_foreach((json_t *)props, key, value) {
        if (!strncmp(key, "x-", 2) && json_integer_value(value) < 0) {
            error_set(err, "Property values cannot be negative");
            return -EINVAL;
        }
    }
    return 0;
}

int throttle_group_new(const char *id, const json_t *props, struct error *err)
{
    struct throttle_group *g = find(id);
    json_t *limits = merged_limits(props);
    int ret;

    if (g) {
        error_set(err, "attempt to add duplicate property '%s' to object (type 'container')", id);
        json_decref(limits);
        return -EEXIST;
    }
    g = make(id);
    ret = check_old_names(props, err);
    ret = ret ? ret : set_limits(g, limits, err);
    g->by_name = ret == 0;
    drop_unused(g);
    json_decref(limits);
    return ret;
}

int throttle_group_set(const char *id, const json_t *limits, struct error *err)
{
    struct throttle_group *g = find(id);

    return g ? set_limits(g, limits, err) : -ENOENT;
}

json_t *throttle_group_get(const char *id)
{
    struct throttle_group *g = find(id);

    return g ? throttle_limits_get(&g->limits) : NULL;
}

int throttle_group_del(const char *id, struct error *err)
{
    struct throttle_group *g = find(id);

    if (!g || !g->by_name) {
        return -ENOENT;
    }
    if (!TAILQ_EMPTY(&g->members)) {
        error_set(err, "object '%s' is in use, can not be deleted", id);
        return -EBUSY;
    }
    g->by_name = false;
    drop_unused(g);
    return 0;
}

void throttle_groups_end(void)
{
    struct throttle_group *g = LIST_FIRST(&groups), *next;

    for (; g; g = next) {
        next = LIST_NEXT(g, link);
        g->by_name = false;
        drop_unused(g);
    }
}
