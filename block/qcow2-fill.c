/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copy on write: what surrounds the bytes that are written into a cluster that is allocated for
 * them.
 *
 *      start        pos                 end          stop
 *        |   head    |  the guest's data |    tail     |       one vectored write
 *
 * Head and tail come from wherever the guest sees them now: this layer's former cluster, a
 * compressed one, the layers below, or nowhere (zeroes).  Zeroes are found out from the tables
 * where possible, without reading.
 */
#include <assert.h>
#include <errno.h>

#include "block/qcow2-l2.h"

#include "block/chain-map.h"
#include "core/bytes.h"
#include "core/mem.h"

#define ZERO_CHUNK (64u << 10)
#define ONE_READ_MAX \
    (64u << 10) /* bytes between head and tail that are read along to save a request */

/* Never written to. */
static uint8_t zeroes[ZERO_CHUNK] __attribute__((aligned(4096)));

static bool co_reads_as_zero(struct qcow2 *q, uint64_t guest, uint64_t len)
{
    struct extent e;

    for (uint64_t done = 0; done < len; done += e.len) {
        if (guest + done >= q->node->size) {
            break;
        }
        if (co_qcow2_map(q->node, guest + done, MIN(len - done, q->node->size - guest - done), &e) <
            0) {
            return false; /* who reads it will see the error */
        }
        if (e.kind != EXTENT_ZERO && (e.kind != EXTENT_NONE || q->node->backing)) {
            return false;
        }
    }
    return true;
}

/* Beyond the end of the disk there are zeroes; what begins there is not read at all (co_reads_as_zero()). */
static int co_read(struct qcow2 *q, uint64_t guest, uint64_t len, uint8_t **out)
{
    uint8_t *bytes = mem_try_alloc(len);
    uint64_t visible = MIN(len, q->node->size - guest);
    struct iovec iov = { .iov_base = bytes, .iov_len = visible };
    int ret = bytes ? 0 : -ENOMEM;

    assert(guest < q->node->size);
    if (ret == 0) {
        node_debug_event(q->node, EVENT_COW_READ);
        ret = co_qcow2_read(q->node, guest, &iov, 1);
    }
    if (ret < 0) {
        free(bytes);
        return ret;
    }
    memset(bytes + visible, 0, len - visible);
    *out = bytes;
    return 0;
}

static int co_fill(struct qcow2 *q, struct qcow2_fill *f)
{
    int ret = co_read(q, f->guest, f->len, &f->owned);

    f->bytes = f->owned;
    return ret;
}

int co_qcow2_fill_load(struct qcow2 *q, uint64_t start, uint64_t pos, uint64_t end, uint64_t stop,
                       bool zeroes_known, struct qcow2_fill *head, struct qcow2_fill *tail)
{
    bool read_head, read_tail;
    int ret = 0;

    *head = (struct qcow2_fill){ .guest = start, .len = pos - start };
    *tail = (struct qcow2_fill){ .guest = end, .len = stop - end };
    if (zeroes_known) {
        return 0;
    }
    read_head = head->len > 0 && !co_reads_as_zero(q, head->guest, head->len);
    read_tail = tail->len > 0 && !co_reads_as_zero(q, tail->guest, tail->len);
    if (read_head && read_tail && end - pos <= ONE_READ_MAX) {
        ret = co_read(q, start, stop - start, &head->owned);
        if (ret == 0) {
            head->bytes = head->owned;
            tail->bytes = head->owned + (end - start);
        }
        return ret;
    }
    if (read_head) {
        ret = co_fill(q, head);
    }
    if (ret == 0 && read_tail) {
        ret = co_fill(q, tail);
    }
    return ret;
}

void qcow2_sources_add(struct qcow2_sources *s, struct io_piece piece)
{
    if (s->n == s->room) {
        s->room = MAX(2 * s->room, 8);
        s->pieces = mem_reallocarray(s->pieces, s->room, sizeof(*s->pieces));
    }
    s->pieces[s->n++] = piece;
}

int co_qcow2_fill_sources(struct qcow2 *q, uint64_t guest, uint64_t len, struct qcow2_sources *out)
{
    struct chain_map *map;
    int ret = 0;

    if (len == 0) {
        return 0;
    }
    if (len > q->node->size - guest) {
        return -EAGAIN; /* what lies beyond the end of the disk nobody has */
    }
    map = chain_map_get(q->node);
    while (len > 0 && ret == 0) {
        struct chain_extent ext;
        struct io_file *file;

        co_chain_map_find(map, guest, len, &ext);
        file = ext.kind == EXTENT_DATA ? node_host_file(ext.layer) : NULL;
        if (file) {
            qcow2_sources_add(out, (struct io_piece){ .file = file, .offset = ext.host, .len = ext.len });
        }
        ret = file ? 0 : -EAGAIN;
        guest += ext.len;
        len -= ext.len;
    }
    chain_map_put(map);
    return ret;
}

void qcow2_fill_free(struct qcow2_fill *head, struct qcow2_fill *tail)
{
    free(head->owned);
    free(tail->owned);
}

bool qcow2_fill_is_zero(const struct qcow2_fill *f)
{
    return !f->bytes || bytes_are_zero(f->bytes, f->len);
}

int qcow2_list_zeroes(struct iovec *out, uint64_t len)
{
    int n = 0;

    for (uint64_t done = 0; out && done < len; n++) {
        out[n] = (struct iovec){ .iov_base = zeroes, .iov_len = MIN(len - done, ZERO_CHUNK) };
        done += out[n].iov_len;
    }
    return out ? n : (int)DIV_ROUND_UP(len, ZERO_CHUNK);
}

int qcow2_fill_elements(const struct qcow2_fill *f)
{
    return f->bytes ? f->len > 0 : qcow2_list_zeroes(NULL, f->len);
}

int qcow2_fill_list(const struct qcow2_fill *f, struct iovec *out)
{
    if (!f->bytes) {
        return qcow2_list_zeroes(out, f->len);
    }
    *out = (struct iovec){ .iov_base = f->bytes, .iov_len = f->len };
    return f->len > 0;
}

struct iovec *qcow2_zero_list(uint64_t len, int *n)
{
    struct iovec *iov = mem_calloc(qcow2_list_zeroes(NULL, len), sizeof(*iov));

    *n = qcow2_list_zeroes(iov, len);
    return iov;
}
