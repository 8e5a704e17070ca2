/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copier of `convert`: see convert.h.
 *
 * Workers claim pieces of the target from front to back; each reads its piece while others write theirs.  Unless any order
 * is allowed, a piece is written when all before it are: the target's clusters then lie in the guest's order.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "img/convert.h"

#define CHUNK_MAX (2u << 20)

enum kind { KIND_DATA, KIND_ZERO, KIND_BELOW };

struct piece {
    enum kind kind;
    uint64_t offset, len; /* in the target */
    struct copy_source *source;
};

/* A cluster on its way into a compressed target. */
struct packed {
    uint8_t *bytes;
    size_t len; /* 0: as it is */
    bool zero;
};

struct state {
    struct copy *c;
    struct co_mutex claiming;
    uint64_t claimed, written;   /* up to here */
    uint64_t data, data_done;    /* bytes to be written, for the progress */
    struct co_queue turn;        /* workers that wait for theirs */
    struct co_group group;
    bool failed;
};

/* --- Pieces ------------------------------------------------------------------------------------------------------- */

static struct copy_source *source_at(struct copy *c, uint64_t offset)
{
    size_t i = c->n - 1;

    while (c->sources[i].start > offset) {
        i--;
    }
    return &c->sources[i];
}

/* A compressed target takes whole clusters: one of data at a time, or a run of what need not be written.  A source that begins inside
 * a cluster of the target is read along. */
static int choose_whole_clusters(const struct copy *c, struct piece *p, const struct img_status *s, bool beyond)
{
    uint64_t cluster = c->packed_cluster, end = ROUND_DOWN(p->offset + p->len, cluster);
    bool below = !s->present && c->below && p->source->node->backing;

    if ((below || s->zero) && c->sparse && (end > p->offset || p->offset + p->len == c->size)) {
        p->kind = below || beyond ? KIND_BELOW : KIND_ZERO;
        p->len = (p->offset + p->len == c->size ? c->size : end) - p->offset;
    } else {
        p->kind = KIND_DATA;
        p->len = MIN(cluster, c->size - p->offset);
    }
    return 0;
}

static int co_classify(struct copy *c, uint64_t offset, struct piece *p)
{
    struct copy_source *source = source_at(c, offset);
    uint64_t at = offset - source->start, len = source->node->size - at;
    bool beyond = c->below && offset >= c->below_size; /* the backing file has nothing there but zeroes */
    struct img_status s;

    if (c->below && !beyond) {
        len = MIN(len, c->below_size - offset);
    }
    int ret = co_img_status(&source->chain, at, len, &s);

    if (ret < 0) {
        img_complain("error while reading block status at offset %" PRIu64 ": %s", offset, strerror(-ret));
        return -1;
    }
    *p = (struct piece){ .offset = offset, .len = s.len, .source = source };
    if (c->packed_cluster) {
        return choose_whole_clusters(c, p, &s, beyond);
    }
    if (!s.present && c->below && source->node->backing) {
        p->kind = KIND_BELOW;
    } else if (s.zero) {
        p->kind = beyond ? KIND_BELOW : KIND_ZERO;
    } else {
        p->kind = KIND_DATA;
    }
    if (p->kind == KIND_ZERO && !c->sparse) {
        p->kind = KIND_DATA; /* and is read as zeroes */
    }
    if (p->kind == KIND_DATA) {
        p->len = MIN(p->len, (uint64_t)CHUNK_MAX);
    }
    return 0;
}

/* How much will be written? */
static int co_measure(struct state *st)
{
    struct piece p;

    for (uint64_t at = 0; at < st->c->size; at += p.len) {
        if (co_classify(st->c, at, &p) < 0) {
            return -1;
        }
        st->data += p.kind == KIND_DATA ? p.len : 0;
    }
    return 0;
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

static bool is_zero(const uint8_t *buf, size_t len)
{
    return !*buf && !memcmp(buf, buf + 1, len - 1);
}

/* The run at `offset` that is zero, or is not, throughout; it is cut where the grid of `sparse` bytes says. */
static uint64_t run_at(const struct copy *c, const uint8_t *buf, uint64_t offset, uint64_t len, bool *zero)
{
    uint64_t at = 0;

    do {
        uint64_t step = MIN(len - at, c->sparse - (offset + at) % c->sparse);
        bool now = is_zero(buf + at, step);

        if (at == 0) {
            *zero = now;
        } else if (now != *zero) {
            break;
        }
        at += step;
    } while (at < len);
    return at;
}

static int co_write_zeroes(const struct copy *c, uint64_t offset, uint64_t len)
{
    return c->zeroed ? 0 : co_node_zero(c->target, offset, len, c->sparse ? NODE_MAY_UNMAP : 0);
}

static int co_write_data(const struct copy *c, const uint8_t *buf, uint64_t offset, uint64_t len)
{
    bool zero = false;
    int ret = 0;

    for (uint64_t at = 0, run; ret == 0 && at < len; at += run) {
        run = c->sparse ? run_at(c, buf + at, offset + at, len - at, &zero) : len;
        ret = zero ? co_write_zeroes(c, offset + at, run) : co_node_write_buf(c->target, offset + at, buf + at, run);
    }
    return ret;
}

static int co_write_piece(const struct copy *c, const struct piece *p, const uint8_t *buf, const struct packed *packed)
{
    int ret = 0;

    if (p->kind == KIND_DATA && packed->zero) {
        ret = co_write_zeroes(c, p->offset, p->len);
    } else if (p->kind == KIND_DATA && packed->len) {
        ret = co_qcow2_write_packed(c->target, p->offset, packed->bytes, packed->len);
    } else if (p->kind == KIND_DATA) {
        ret = co_write_data(c, buf, p->offset, p->len);
    } else if (p->kind == KIND_ZERO) {
        ret = co_write_zeroes(c, p->offset, p->len);
    }
    if (ret < 0) {
        img_complain("error while writing at byte %" PRIu64 ": %s", p->offset, strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

/* --- Workers ------------------------------------------------------------------------------------------------------ */

static int co_claim(struct state *st, struct piece *p)
{
    int ret = 0;

    co_mutex_lock(&st->claiming);
    *p = (struct piece){ .len = 0 };
    if (!st->failed && st->claimed < st->c->size) {
        ret = co_classify(st->c, st->claimed, p);
        st->claimed += p->len;
    }
    co_mutex_unlock(&st->claiming);
    return ret;
}

/* Zeroes and all; it may lie across sources when whole clusters are wanted. */
static int co_read_data(struct copy *c, const struct piece *p, uint8_t *buf)
{
    int ret = 0;

    for (uint64_t at = p->offset, end = p->offset + p->len, n; at < end && ret == 0; at += n) {
        struct copy_source *source = source_at(c, at);

        n = MIN(end - at, source->start + source->node->size - at);
        ret = co_node_read_buf(source->node, at - source->start, buf + (at - p->offset), n);
    }
    return ret;
}

static int co_read_piece(struct copy *c, const struct piece *p, uint8_t *buf)
{
    int ret = p->kind == KIND_DATA ? co_read_data(c, p, buf) : 0;

    if (ret < 0) {
        img_complain("error while reading at byte %" PRIu64 ": %s", p->offset, strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

/* Workers compress side by side; only the writing has an order. */
static void co_pack(const struct copy *c, const struct piece *p, uint8_t *buf, struct packed *packed)
{
    packed->len = 0;
    packed->zero = c->packed_cluster && c->sparse && p->kind == KIND_DATA && is_zero(buf, p->len);
    if (c->packed_cluster && p->kind == KIND_DATA && !packed->zero) {
        memset(buf + p->len, 0, c->packed_cluster - p->len); /* the disk may end inside the cluster */
        packed->len = co_qcow2_compress(c->target, buf, packed->bytes);
    }
}

static int co_do_piece(struct state *st, const struct piece *p, uint8_t *buf, struct packed *packed)
{
    struct copy *c = st->c;
    int ret = co_read_piece(c, p, buf);

    if (!ret) {
        co_pack(c, p, buf, packed);
    }

    while (!c->any_order && !ret && !st->failed && st->written != p->offset) {
        co_queue_wait(&st->turn);
    }
    if (ret || st->failed) {
        return -1;
    }
    ret = co_write_piece(c, p, buf, packed);
    if (!ret && p->kind == KIND_DATA) {
        st->data_done += p->len;
        img_progress_set(&c->progress, st->data_done, st->data);
    }
    st->written = p->offset + p->len;
    return ret;
}

static void CO_ENTRY worker(void *arg)
{
    struct state *st = arg;
    AUTOFREE uint8_t *buf = mem_align(4096, CHUNK_MAX), *stream = mem_alloc(CHUNK_MAX); /* a cluster is no longer */
    struct packed packed = { .bytes = stream };
    struct piece p;
    int ret;

    do {
        ret = co_claim(st, &p);
        if (!ret && p.len) {
            ret = co_do_piece(st, &p, buf, &packed);
        }
        st->failed = st->failed || ret;
        co_queue_wake_all(&st->turn);
    } while (!ret && p.len);
    co_group_done(&st->group, ret);
}

int co_img_copy(struct copy *c)
{
    struct state st = { .c = c };

    co_mutex_init(&st.claiming);
    co_queue_init(&st.turn);
    co_group_init(&st.group);
    if (co_measure(&st) < 0) {
        return -1;
    }
    for (unsigned i = 0; i < c->workers; i++) {
        co_group_add(&st.group);
        co_start(worker, &st);
    }
    int ret = co_group_wait(&st.group);

    if (!ret) {
        ret = co_node_flush(c->target); /* tables reach the file, or we say that they do not */
        if (ret < 0) {
            img_complain("error while writing the tables: %s", strerror(-ret));
        }
    }
    return ret < 0 ? -1 : 0;
}
