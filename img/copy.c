/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copier of `convert`: see convert.h.
 *
 * Workers claim pieces of the target from front to back; each reads its piece while others write theirs.  Unless any order
 * is allowed, a piece is written when all before it are: the target's clusters then lie in the guest's order.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"
#include "img/convert.h"

#define CHUNK_MAX (2u << 20)

enum kind { KIND_DATA, KIND_ZERO, KIND_BELOW };

struct piece {
    enum kind kind;
    uint64_t offset, len; /* in the target */
    struct copy_source *source;
    bool in_file;         /* data: they lie at `from` */
    struct io_piece from;
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
    uint64_t next_ns;            /* the rate lets the next byte pass from then on */
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

/* A compressed target takes whole clusters: one of data at a time, or a run of what need not be written.  A source that
 * begins inside a cluster of the target is read along. */
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

/* The tables cannot be read here, or a little further on.  What a sector is that has none is found out by reading. */
static int co_look_closer(const struct copy *c, struct copy_source *source, uint64_t at, struct img_status *s)
{
    int ret = co_img_status(&source->chain, at, NODE_SECTOR, s);

    if (ret < 0) {
        if (!c->quiet) {
            img_complain("warning: error while reading block status at offset %" PRIu64 ": %s", source->start + at,
                         strerror(-ret));
        }
        *s = (struct img_status){ .len = NODE_SECTOR, .present = true, .data = true };
    }
    return 0;
}

/* May the host copy it?  The target takes whole clusters. */
static void choose_offload(const struct copy *c, struct piece *p, const struct img_status *s)
{
    uint64_t unit = c->target->cluster_size, end = p->offset + p->len;

    end = end == c->target->size ? end : ROUND_DOWN(end, unit);
    if (c->offload && s->data && s->has_host && node_host_file(s->node) && p->offset % unit == 0 && end > p->offset) {
        p->len = end - p->offset;
        p->in_file = true;
        p->from = (struct io_piece){ .file = node_host_file(s->node), .offset = s->host, .len = p->len };
    }
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

    if (ret < 0 && c->salvage) { /* as data: reading decides */
        ret = co_look_closer(c, source, at, &s);
    }
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
        choose_offload(c, p, &s);
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

/* The run at `offset` that is zero, or is not, throughout; it is cut where the grid of `sparse` bytes says. */
static uint64_t run_at(const struct copy *c, const uint8_t *buf, uint64_t offset, uint64_t len, bool *zero)
{
    uint64_t at = 0;

    do {
        uint64_t step = MIN(len - at, c->sparse - (offset + at) % c->sparse);
        bool now = bytes_are_zero(buf + at, step);

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

static int co_fill(struct node *target, uint64_t offset, uint64_t len, void *arg)
{
    const struct io_piece *from = arg;
    struct extent e;

    if (target->driver->co_copy_in) {
        return target->driver->co_copy_in(target, offset, from, 1);
    }
    int ret = target->driver->co_map(target, offset, len, &e);

    if (ret == 0 && (e.kind != EXTENT_DATA || e.len < len || !node_host_file(target))) {
        ret = -ENOTSUP;
    }
    return ret ? ret : co_io_gather(from, 1, node_host_file(target), e.host);
}

static int co_write_piece(const struct copy *c, const struct piece *p, const uint8_t *buf, const struct packed *packed)
{
    int ret = 0;

    if (p->kind == KIND_DATA && packed->zero) {
        ret = co_write_zeroes(c, p->offset, p->len);
    } else if (p->in_file) {
        struct io_piece from = p->from;

        ret = co_node_populate(c->target, p->offset, p->len, co_fill, &from);
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

/* Each for itself. */
static void co_read_sectors(const struct copy *c, struct copy_source *source, uint64_t offset, uint8_t *buf, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += NODE_SECTOR) {
        uint64_t n = MIN(len - at, (uint64_t)NODE_SECTOR);
        int ret = co_node_read_buf(source->node, offset + at - source->start, buf + at, n);

        if (ret < 0) {
            memset(buf + at, 0, n);
        }
        if (ret < 0 && !c->quiet) {
            img_complain("warning: error while reading offset %" PRIu64 ": %s", offset + at, strerror(-ret));
        }
    }
}

/* Zeroes and all; it may lie across sources when whole clusters are wanted. */
static int co_read_data(struct copy *c, const struct piece *p, uint8_t *buf)
{
    int ret = 0;

    for (uint64_t at = p->offset, end = p->offset + p->len, n; at < end && ret == 0; at += n) {
        struct copy_source *source = source_at(c, at);

        n = MIN(end - at, source->start + source->node->size - at);
        ret = co_node_read_buf(source->node, at - source->start, buf + (at - p->offset), n);
        if (ret < 0 && c->salvage) {
            co_read_sectors(c, source, at, buf + (at - p->offset), n);
            ret = 0;
        }
    }
    return ret;
}

static int co_read_piece(struct copy *c, const struct piece *p, uint8_t *buf)
{
    int ret = p->kind == KIND_DATA && !p->in_file ? co_read_data(c, p, buf) : 0;

    if (ret < 0) {
        img_complain("error while reading at byte %" PRIu64 ": %s", p->offset, strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

/* Workers compress side by side; only the writing has an order. */
static void co_pack(const struct copy *c, const struct piece *p, uint8_t *buf, struct packed *packed)
{
    *packed = (struct packed){ .bytes = packed->bytes };
    packed->zero = c->packed_cluster && c->sparse && p->kind == KIND_DATA && bytes_are_zero(buf, p->len);
    if (c->packed_cluster && p->kind == KIND_DATA && !packed->zero) {
        memset(buf + p->len, 0, c->packed_cluster - p->len); /* the disk may end inside the cluster */
        packed->len = co_qcow2_compress(c->target, buf, packed->bytes);
    }
}

/* Wait for this piece's time, and give the next one its. */
static void co_pace(struct state *st, uint64_t len)
{
    uint64_t now = loop_now(), begin = MAX(st->next_ns, now);

    if (st->c->rate) {
        st->next_ns = begin + (uint64_t)((double)len * NS_PER_S / st->c->rate);
        co_sleep_ns(begin - now);
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
    if (p->kind == KIND_DATA) {
        co_pace(st, p->len);
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
