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
 * Only clean pieces that nobody pins can be evicted, least recently used first, while the cache is over its budget.
 * Caches of usual size share a second budget besides their own, so that 500 layers do not cost 500 caches; there the
 * least recently used piece of all of them goes.  A piece whose copy is on its way to the disk stays pinned until it
 * has arrived: read anew too early it would show its past.
 *
 * A new table of zeroes where nothing was ever written is not written before its first generation, and then at once with what it
 * holds by then (qcow2_cache_born()); until then what is read of its place is not read, but known to be zero.
 *
 * A getter usually holds q->lock and must not wait for a writeback, which takes that lock.  So
 * dirty pieces may exceed the budget for a while: half a budget of them starts a writeback in the
 * background, and who allocates waits for one before taking the lock (qcow2_cache_crowded()).
 */
#include "block/qcow2-l2.h"

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

/* A table of one cluster that is not on the disk yet. */
struct born {
    uint64_t table; /* its offset in the file */
    UT_hash_handle hh;
};

struct qcow2_cache {
    struct qcow2 *q;
    uint32_t piece_size;
    size_t budget, loan; /* the one with the other */
    bool shared; /* its pieces count against the shared budget, too */
    size_t bytes, dirty_bytes;
    struct piece *by_offset;
    struct born *born; /* each has a dirty piece */
    TAILQ_HEAD(piece_list, piece) idle, dirty; /* idle: the least recently used first */
    struct mem_shrinker shrinker;
};

/* A piece's copy on its way, with the zeroes around it of a table that was never written. */
struct frozen_piece {
    struct piece *piece;
    uint32_t before, after; /* bytes */
};

struct qcow2_frozen {
    struct qcow2_cache *cache;
    struct frozen_piece *pieces; /* by offset */
    uint8_t *data;         /* their copies, in that order */
    struct born *born;     /* tables that it writes for the first time */
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
    c->budget = budget_bytes + c->loan;
    evict(c);
}

void qcow2_cache_lend(struct qcow2_cache *c, size_t bytes)
{
    c->budget += bytes - c->loan;
    table_counters.shared_budget += c->shared ? bytes - c->loan : 0;
    c->loan = bytes;
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

static struct born *find_born(struct qcow2_cache *c, uint64_t offset)
{
    uint64_t table = ROUND_DOWN(offset, (uint64_t)c->q->cluster_size);
    struct born *born;

    HASH_FIND(hh, c->born, &table, sizeof(table), born);
    return born;
}

static int co_load(struct qcow2_cache *c, struct piece *piece)
{
    if (find_born(c, piece->p.offset)) {
        memset(piece->bytes, 0, c->piece_size);
        return 0;
    }
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

static void forget_born(struct qcow2_cache *c, struct born *born)
{
    HASH_DEL(c->born, born);
    free(born);
}

void qcow2_cache_born(struct qcow2_cache *c, uint64_t table, uint64_t offset)
{
    struct born *born = mem_zalloc(sizeof(*born));
    struct piece *piece;

    assert(!find(c, offset) && offset - table < c->q->cluster_size);
    born->table = table;
    HASH_ADD(hh, c->born, table, sizeof(born->table), born);
    piece = add(c, offset);
    memset(piece->bytes, 0, c->piece_size);
    qcow2_cache_mark_dirty(c, &piece->p);
    qcow2_cache_put(c, &piece->p);
    if ((uint64_t)HASH_COUNT(c->born) * c->q->cluster_size > c->budget) { /* the zeroes have to be written, too */
        qcow2_writeback_kick(c->q);
    }
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t len)
{
    struct born *born = find_born(c, offset);

    if (born) {
        forget_born(c, born);
    }
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
    struct born *born, *next_born;

    if (!c) {
        return;
    }
    qcow2_cache_lend(c, 0);
    HASH_ITER(hh, c->born, born, next_born) {
        forget_born(c, born);
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
    const struct piece *x = ((const struct frozen_piece *)a)->piece, *y = ((const struct frozen_piece *)b)->piece;
    return x->p.offset < y->p.offset ? -1 : x->p.offset > y->p.offset;
}

/* The zeroes of tables that were never written go with the pieces between which they lie. */
static void add_zeroes(struct qcow2_frozen *f)
{
    uint32_t size = f->cache->piece_size, cluster = f->cache->q->cluster_size;

    for (size_t i = 0; i < f->n && f->born; i++) {
        struct frozen_piece *p = &f->pieces[i];
        uint64_t at = p->piece->p.offset, table = ROUND_DOWN(at, (uint64_t)cluster);
        uint64_t from = i > 0 ? p[-1].piece->p.offset + size : 0, to = i + 1 < f->n ? p[1].piece->p.offset : UINT64_MAX;
        struct born *born;

        HASH_FIND(hh, f->born, &table, sizeof(table), born);
        if (born) {
            p->before = at - MAX(table, from);
            p->after = to < table + cluster ? 0 : table + cluster - (at + size);
        }
    }
}

struct qcow2_frozen *qcow2_cache_freeze(struct qcow2_cache *c)
{
    struct qcow2_frozen *f = mem_zalloc(sizeof(*f));
    struct piece *piece;
    size_t n = c->dirty_bytes / c->piece_size;

    f->cache = c;
    f->pieces = mem_calloc(n, sizeof(*f->pieces));
    f->data = mem_alloc(n * c->piece_size);
    f->born = c->born;
    c->born = NULL;
    while ((piece = TAILQ_FIRST(&c->dirty))) {
        make_clean(c, piece);
        pin(c, piece);
        f->pieces[f->n++].piece = piece;
    }
    assert(f->n == n);
    qsort(f->pieces, f->n, sizeof(*f->pieces), compare_offsets);
    add_zeroes(f);
    for (size_t i = 0; i < n; i++) {
        memcpy(f->data + i * c->piece_size, f->pieces[i].piece->bytes, c->piece_size);
    }
    return f;
}

size_t qcow2_frozen_count(const struct qcow2_frozen *f)
{
    return f->n;
}

static uint64_t start_of(const struct frozen_piece *p)
{
    return p->piece->p.offset - p->before;
}

static uint64_t end_of(const struct qcow2_frozen *f, const struct frozen_piece *p)
{
    return p->piece->p.offset + f->cache->piece_size + p->after;
}

/* Take the next run of adjacent pieces; its length in pieces, 0 when none is left. */
static size_t take_run(struct qcow2_frozen *f, size_t *first)
{
    while (f->next < f->n && f->pieces[f->next].piece->forgotten) {
        f->next++; /* its place may belong to somebody else by now */
    }
    *first = f->next;
    while (f->next < f->n && !f->pieces[f->next].piece->forgotten) {
        const struct frozen_piece *p = &f->pieces[f->next];
        if (f->next > *first &&
            (end_of(f, p - 1) - start_of(&f->pieces[*first]) >= WRITE_MAX || end_of(f, p - 1) != start_of(p))) {
            break;
        }
        f->next++;
    }
    return f->next - *first;
}

static int list_run(const struct qcow2_frozen *f, size_t first, size_t n, struct iovec *iov)
{
    uint32_t size = f->cache->piece_size;
    int used = 0;

    for (size_t i = first; i < first + n; i++) {
        used += qcow2_list_zeroes(iov ? iov + used : NULL, f->pieces[i].before);
        if (iov) {
            iov[used] = (struct iovec){ .iov_base = f->data + i * size, .iov_len = size };
        }
        used += 1 + qcow2_list_zeroes(iov ? iov + used + 1 : NULL, f->pieces[i].after);
    }
    return used;
}

static int co_write_run(struct qcow2_frozen *f, size_t first, size_t n)
{
    uint64_t start = start_of(&f->pieces[first]);
    AUTOFREE struct iovec *iov = mem_calloc(list_run(f, first, n, NULL), sizeof(*iov));

    table_counters.bytes_written += end_of(f, &f->pieces[first + n - 1]) - start;
    return co_io_writev(f->cache->q->file, start, iov, list_run(f, first, n, iov));
}

static CO_ENTRY void co_write_runs(void *arg)
{
    struct qcow2_frozen *f = arg;
    size_t first, run;
    int ret = 0;

    while (ret == 0 && f->group.error == 0 && (run = take_run(f, &first)) > 0) {
        node_debug_event(f->cache->q->node,
                         f->cache == f->cache->q->l2_cache ? EVENT_L2_UPDATE : EVENT_REFBLOCK_UPDATE_PART);
        ret = co_write_run(f, first, run);
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

/* Without a generation that has written it a table is as unwritten as before. */
static void end_born(struct qcow2_frozen *f, bool written)
{
    struct born *born, *next;

    HASH_ITER(hh, f->born, born, next) {
        HASH_DEL(f->born, born);
        if (written) {
            free(born);
        } else {
            HASH_ADD(hh, f->cache->born, table, sizeof(born->table), born);
        }
    }
}

void qcow2_frozen_done(struct qcow2_frozen *f, bool written)
{
    end_born(f, written);
    for (size_t i = 0; i < f->n; i++) {
        if (!written) {
            qcow2_cache_mark_dirty(f->cache, &f->pieces[i].piece->p);
        }
        qcow2_cache_put(f->cache, &f->pieces[i].piece->p);
    }
    free(f->pieces);
    free(f->data);
    free(f);
}
