/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cached pieces of on-disk tables: L2 slices and parts of refcount blocks.
 *
 * A piece is a fixed number of bytes at a multiple of that number in the file, kept as it is on
 * disk. It is read when first asked for; concurrent getters of one piece share the read.
 *
 *              get                 mark_dirty              freeze
 *   absent ----------> clean ----------------> dirty ----------------+
 *     ^                  ^  ^                    ^                   v
 *     |    eviction      |  |  written, not      |    failed     clean, pinned by
 *     +------------------+  |  changed since     +-------------- the generation
 *                           +----------------------------------------+
 *
 * Only clean pieces that nobody pins can be evicted, least recently used first, while the cache is
 * over its budget.  Caches of usual size share a second budget besides their own, so that 500 layers
 * do not cost 500 caches; there the least recently used piece of all of them goes.  A piece whose copy is on its way to the disk stays pinned until it has arrived:
 * read anew too early it would show its past.
 *
 * A getter usually holds q->lock and must not wait for a writeback, which takes that lock.  So
 * dirty pieces may exceed the budget for a while: half a budget of them starts a writeback in the
 * background, and who allocates waits for one before taking the lock (qcow2_cache_crowded()).
 */
#include "block/qcow2.h"

#include <assert.h>
#include <string.h>
#include <uthash.h>

#include "block/counters.h"
#include "core/bytes.h"
#include "core/mem.h"

#define SHARED_BUDGET (3u << 20)
#define WRITERS_MAX 16u      /* frozen runs on their way at once */
#define WRITE_MAX (1u << 20) /* bytes of one such run */

struct piece {
    struct qcow2_piece p;
    UT_hash_handle hh;
    TAILQ_ENTRY(piece) order; /* in `idle` (clean, unpinned) or `dirty` */
    TAILQ_ENTRY(piece) shared_order; /* in shared_idle, while idle in a cache that shares */
    struct qcow2_cache *cache;
    bool idle;
    bool loading, forgotten;
    int error; /* of the load, for those who shared it */
    struct co_queue loaded;
    uint8_t bytes[];
};

struct qcow2_cache {
    struct qcow2 *q;
    uint32_t piece_size;
    size_t budget;
    bool shared; /* its pieces count against the shared budget, too */
    size_t bytes, dirty_bytes;
    struct piece *by_offset;
    TAILQ_HEAD(piece_list, piece) idle, dirty; /* idle: the least recently used first */
    struct mem_shrinker shrinker;
};

struct qcow2_frozen {
    struct qcow2_cache *cache;
    struct piece **pieces; /* by offset */
    uint8_t *data;         /* their copies, in that order */
    size_t n, next;        /* next: the first that no writer has taken */
    struct co_group group;
};

static void evict(struct qcow2_cache *c);

/* Memory has run out: what is clean and idle goes. */
static void shrink(void *arg)
{
    struct qcow2_cache *c = arg;
    size_t budget = c->budget;

    c->budget = 0;
    evict(c);
    c->budget = budget;
}

struct table_counters table_counters = { .shared_budget = SHARED_BUDGET };
/* The least recently used first, of all caches that share. */
static TAILQ_HEAD(, piece) shared_idle = TAILQ_HEAD_INITIALIZER(shared_idle);

static void count_bytes(struct qcow2_cache *c, ssize_t bytes)
{
    c->bytes += bytes;
    table_counters.bytes += bytes;
    table_counters.shared_bytes += c->shared ? bytes : 0;
}

struct qcow2_cache *qcow2_cache_new(struct qcow2 *q, uint32_t piece_size, size_t budget_bytes)
{
    struct qcow2_cache *c = mem_zalloc(sizeof(*c));

    c->q = q;
    c->piece_size = piece_size;
    c->budget = budget_bytes;
    TAILQ_INIT(&c->idle);
    TAILQ_INIT(&c->dirty);
    c->shrinker.shrink = shrink;
    c->shrinker.arg = c;
    mem_shrinker_add(&c->shrinker);
    return c;
}

uint32_t qcow2_cache_piece_size(const struct qcow2_cache *c)
{
    return c->piece_size;
}

size_t qcow2_cache_bytes(const struct qcow2_cache *c)
{
    return c->bytes;
}

bool qcow2_cache_dirty(const struct qcow2_cache *c)
{
    return !TAILQ_EMPTY(&c->dirty);
}

bool qcow2_cache_crowded(const struct qcow2_cache *c)
{
    return c->dirty_bytes > c->budget;
}

/* --- Life of a piece ------------------------------------------------------------------------ */

static struct piece *find(struct qcow2_cache *c, uint64_t offset)
{
    struct piece *piece;

    HASH_FIND(hh, c->by_offset, &offset, sizeof(offset), piece);
    return piece;
}

static void destroy(struct qcow2_cache *c, struct piece *piece)
{
    assert(piece->p.pins == 0 && !piece->idle && !piece->p.dirty);
    count_bytes(c, -(ssize_t)(sizeof(*piece) + c->piece_size));
    free(piece);
}

static void leave_idle(struct qcow2_cache *c, struct piece *piece)
{
    if (piece->idle) {
        TAILQ_REMOVE(&c->idle, piece, order);
        if (c->shared) {
            TAILQ_REMOVE(&shared_idle, piece, shared_order);
        }
        piece->idle = false;
    }
}

static void enter_idle(struct qcow2_cache *c, struct piece *piece)
{
    TAILQ_INSERT_TAIL(&c->idle, piece, order);
    if (c->shared) {
        TAILQ_INSERT_TAIL(&shared_idle, piece, shared_order);
    }
    piece->idle = true;
}

static void make_clean(struct qcow2_cache *c, struct piece *piece)
{
    if (piece->p.dirty) {
        TAILQ_REMOVE(&c->dirty, piece, order);
        c->dirty_bytes -= c->piece_size;
        piece->p.dirty = false;
    }
}

/* Out of the cache; the memory lives on while somebody pins it. */
static void forget(struct qcow2_cache *c, struct piece *piece)
{
    leave_idle(c, piece);
    make_clean(c, piece);
    HASH_DEL(c->by_offset, piece);
    piece->forgotten = true;
    if (piece->p.pins == 0) {
        destroy(c, piece);
    }
}

static void evict(struct qcow2_cache *c)
{
    struct piece *piece;

    while (c->bytes > c->budget && (piece = TAILQ_FIRST(&c->idle))) {
        table_counters.evictions++;
        forget(c, piece);
    }
    while (table_counters.shared_bytes > table_counters.shared_budget && (piece = TAILQ_FIRST(&shared_idle))) {
        table_counters.evictions++;
        forget(piece->cache, piece);
    }
}

void qcow2_cache_share(struct qcow2_cache *c)
{
    assert(c->bytes == 0);
    c->shared = true;
}

void qcow2_cache_set_budget(struct qcow2_cache *c, size_t budget_bytes)
{
    c->budget = budget_bytes;
    evict(c);
}

static void pin(struct qcow2_cache *c, struct piece *piece)
{
    leave_idle(c, piece);
    piece->p.pins++;
}

void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_piece *p)
{
    struct piece *piece = CONTAINER_OF(p, struct piece, p);

    assert(p->pins > 0);
    if (--p->pins > 0) {
        return;
    }
    if (piece->forgotten) {
        destroy(c, piece);
    } else if (!p->dirty) {
        enter_idle(c, piece);
        evict(c);
    }
}

void qcow2_cache_mark_dirty(struct qcow2_cache *c, struct qcow2_piece *p)
{
    struct piece *piece = CONTAINER_OF(p, struct piece, p);

    assert(p->pins > 0);
    if (p->dirty || piece->forgotten) {
        return;
    }
    TAILQ_INSERT_TAIL(&c->dirty, piece, order);
    c->dirty_bytes += c->piece_size;
    p->dirty = true;
    if (c->dirty_bytes > c->budget / 2) {
        qcow2_writeback_kick(c->q);
    }
}

/* --- Getting -------------------------------------------------------------------------------- */

struct qcow2_piece *qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset)
{
    struct piece *piece = find(c, offset);

    if (!piece || piece->loading) {
        return NULL;
    }
    pin(c, piece);
    return &piece->p;
}

static struct piece *add(struct qcow2_cache *c, uint64_t offset)
{
    struct piece *piece = mem_alloc(sizeof(*piece) + c->piece_size);

    memset(piece, 0, sizeof(*piece));
    piece->p.offset = offset;
    piece->p.data = piece->bytes;
    piece->p.pins = 1;
    piece->cache = c;
    co_queue_init(&piece->loaded);
    HASH_ADD(hh, c->by_offset, p.offset, sizeof(piece->p.offset), piece);
    count_bytes(c, sizeof(*piece) + c->piece_size);
    table_counters.loads++;
    evict(c);
    return piece;
}

static int co_load(struct qcow2_cache *c, struct piece *piece)
{
    piece->loading = true;
    node_debug_event(c->q->node, c == c->q->l2_cache ? EVENT_L2_LOAD : EVENT_REFBLOCK_LOAD);
    piece->error = co_io_read(c->q->file, piece->p.offset, piece->bytes, c->piece_size);
    piece->loading = false;
    if (piece->error < 0 && !piece->forgotten) {
        forget(c, piece);
    }
    co_queue_wake_all(&piece->loaded);
    return piece->error;
}

int co_qcow2_cache_get(struct qcow2_cache *c, uint64_t offset, struct qcow2_piece **out)
{
    struct piece *piece = find(c, offset);
    int ret = 0;

    assert(offset % c->piece_size == 0);
    if (!piece) {
        piece = add(c, offset);
        ret = co_load(c, piece);
    } else {
        pin(c, piece);
        while (piece->loading) {
            co_queue_wait(&piece->loaded);
        }
        ret = piece->error;
    }
    if (ret < 0) {
        qcow2_cache_put(c, &piece->p);
        return ret;
    }
    *out = &piece->p;
    return 0;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t len)
{
    for (uint64_t at = offset; at < offset + len; at += c->piece_size) {
        struct piece *piece = find(c, at);
        if (piece) {
            forget(c, piece);
        }
    }
}

void qcow2_cache_free(struct qcow2_cache *c)
{
    struct piece *piece, *next;

    if (!c) {
        return;
    }
    HASH_ITER(hh, c->by_offset, piece, next) {
        assert(piece->p.pins == 0);
        forget(c, piece);
    }
    assert(c->bytes == 0);
    mem_shrinker_remove(&c->shrinker);
    free(c);
}

/* --- A generation's copies ------------------------------------------------------------------ */

static int compare_offsets(const void *a, const void *b)
{
    const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;
    return x->p.offset < y->p.offset ? -1 : x->p.offset > y->p.offset;
}

struct qcow2_frozen *qcow2_cache_freeze(struct qcow2_cache *c)
{
    struct qcow2_frozen *f = mem_zalloc(sizeof(*f));
    struct piece *piece;
    size_t n = c->dirty_bytes / c->piece_size;

    f->cache = c;
    f->pieces = mem_calloc(n, sizeof(piece));
    f->data = mem_alloc(n * c->piece_size);
    while ((piece = TAILQ_FIRST(&c->dirty))) {
        make_clean(c, piece);
        pin(c, piece);
        f->pieces[f->n++] = piece;
    }
    assert(f->n == n);
    qsort(f->pieces, f->n, sizeof(piece), compare_offsets);
    for (size_t i = 0; i < n; i++) {
        memcpy(f->data + i * c->piece_size, f->pieces[i]->bytes, c->piece_size);
    }
    return f;
}

size_t qcow2_frozen_count(const struct qcow2_frozen *f)
{
    return f->n;
}

/* Take the next run of adjacent pieces; its length in pieces, 0 when none is left. */
static size_t take_run(struct qcow2_frozen *f, size_t *first)
{
    uint32_t size = f->cache->piece_size;

    while (f->next < f->n && f->pieces[f->next]->forgotten) {
        f->next++; /* its place may belong to somebody else by now */
    }
    *first = f->next;
    while (f->next < f->n && !f->pieces[f->next]->forgotten) {
        size_t run = f->next - *first;
        if (run > 0 && (run * size >= WRITE_MAX ||
                        f->pieces[f->next - 1]->p.offset + size != f->pieces[f->next]->p.offset)) {
            break;
        }
        f->next++;
    }
    return f->next - *first;
}

static CO_ENTRY void co_write_runs(void *arg)
{
    struct qcow2_frozen *f = arg;
    uint32_t size = f->cache->piece_size;
    size_t first, run;
    int ret = 0;

    while (ret == 0 && f->group.error == 0 && (run = take_run(f, &first)) > 0) {
        node_debug_event(f->cache->q->node,
                         f->cache == f->cache->q->l2_cache ? EVENT_L2_UPDATE : EVENT_REFBLOCK_UPDATE_PART);
        ret = co_io_write(f->cache->q->file, f->pieces[first]->p.offset, f->data + first * size,
                          run * size);
        table_counters.bytes_written += run * size;
    }
    co_group_done(&f->group, ret);
}

int co_qcow2_frozen_write(struct qcow2_frozen *f)
{
    f->next = 0;
    co_group_init(&f->group);
    for (unsigned i = 0; i < WRITERS_MAX && f->next < f->n; i++) {
        co_group_add(&f->group);
        co_start(co_write_runs, f);
    }
    return co_group_wait(&f->group);
}

void qcow2_frozen_done(struct qcow2_frozen *f, bool written)
{
    for (size_t i = 0; i < f->n; i++) {
        if (!written) {
            qcow2_cache_mark_dirty(f->cache, &f->pieces[i]->p);
        }
        qcow2_cache_put(f->cache, &f->pieces[i]->p);
    }
    free(f->pieces);
    free(f->data);
    free(f);
}
