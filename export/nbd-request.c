/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests: from what the client asked to what the block layer does, and to the answer.
 *
 * Reads with structured replies go chunk by chunk, at most NBD_READ_PIECE bytes each; where the chain map says that a stretch
 * worth the trouble is zeroes, a hole is sent and nothing is read.  Simple replies have one head for all their data, so long
 * ones reserve the way out until their last piece, and an error after the first piece can only end the session.
 *
 * BLOCK_STATUS is told from the chain map alone, and may tell less than was asked for: the client asks again from there.
 */
#include <errno.h>

#include "block/chain-map.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "export/nbd-session.h"

#define HOLE_MIN (64u << 10)      /* shorter stretches of zeroes are sent as data */
#define EXTENTS_MAX 1023u         /* in one answer: with the context's number 8 KiB */
#define LOOKUPS_MAX 8192u         /* in the chain map, for one answer */
#define LOOKUPS_PER_TURN 64u
#define STATUS_BYTES (4 + EXTENTS_MAX * NBD_EXTENT_BYTES)

size_t nbd_work_needs(const struct nbd_request *req)
{
    switch (req->type) {
    case NBD_CMD_READ:
        return MIN(req->len, NBD_READ_PIECE);
    case NBD_CMD_WRITE:
    case NBD_CMD_CACHE:
        return MIN(req->len, NBD_PIECE);
    case NBD_CMD_BLOCK_STATUS:
        return STATUS_BYTES;
    default:
        return 0;
    }
}

/* --- The disk ----------------------------------------------------------------------------------------------------------- */

static int co_read_into(struct nbd_work *w, uint64_t offset, size_t len)
{
    struct nbd_export *e = w->session->export;
    uint64_t started = loop_now();
    struct node *root = co_nbd_export_root(e);
    struct iovec iov = { .iov_base = w->buf, .iov_len = len };
    int ret = root ? co_node_read(root, offset, &iov, 1) : -ENOMEDIUM;

    nbd_export_took(e, started);
    return ret;
}

static int co_write_from(struct nbd_work *w, uint64_t offset, size_t len)
{
    struct nbd_export *e = w->session->export;
    uint64_t started = loop_now();
    struct node *root = co_nbd_export_root(e);
    struct iovec iov = { .iov_base = w->buf, .iov_len = len };
    int ret = root ? co_node_write(root, offset, &iov, 1) : -ENOMEDIUM;

    nbd_export_took(e, started);
    return ret;
}

static int co_flush(struct nbd_work *w)
{
    struct node *root = co_nbd_export_root(w->session->export);

    return root ? co_node_flush(root) : -ENOMEDIUM;
}

/* What a change has come to, once it is as durable as was asked for. */
static int co_changed(struct nbd_work *w, int ret)
{
    return !ret && w->req.flags & NBD_CMD_FUA ? co_flush(w) : ret;
}

static int co_zero(struct nbd_work *w)
{
    unsigned flags = w->req.flags & NBD_CMD_NO_HOLE ? 0 : NODE_MAY_UNMAP;
    struct node *root;

    if (w->req.flags & NBD_CMD_FAST_ZERO) {
        return -ENOTSUP; /* "only if it is faster than writing": no driver promises that */
    }
    root = co_nbd_export_root(w->session->export);
    return root ? co_node_zero(root, w->req.offset, w->req.len, flags) : -ENOMEDIUM;
}

static int co_trim(struct nbd_work *w)
{
    struct node *root = co_nbd_export_root(w->session->export);

    return root ? co_node_discard(root, w->req.offset, w->req.len) : -ENOMEDIUM;
}

/* Into the host's page cache; what comes of it nobody is told. */
static void co_cache(struct nbd_work *w)
{
    for (uint64_t done = 0; done < w->req.len && !w->session->dead;) {
        uint32_t part = MIN(w->req.len - done, (uint64_t)NBD_PIECE);

        if (co_read_into(w, w->req.offset + done, part) < 0) {
            return;
        }
        done += part;
    }
}

/* --- Answers ---------------------------------------------------------------------------------------------------------------- */

static void finish_simple(struct nbd_work *w, int ret)
{
    nbd_simple_reply(w->head, w->req.handle, nbd_error(ret));
    w->head_len = NBD_SIMPLE_BYTES;
    w->data_len = 0;
    nbd_work_finish(w);
}

/* A command whose answer would be chunks. */
static void finish_error(struct nbd_work *w, int ret)
{
    if (!w->session->terms.structured) {
        finish_simple(w, ret);
        return;
    }
    nbd_chunk(w->head, w->req.handle, NBD_CHUNK_ERROR, true, 6);
    store_be32(w->head + NBD_CHUNK_BYTES, nbd_error(ret));
    store_be16(w->head + NBD_CHUNK_BYTES + 4, 0); /* no text */
    w->head_len = NBD_CHUNK_BYTES + 6;
    w->data_len = 0;
    nbd_work_finish(w);
}

static void make_data_chunk(struct nbd_work *w, uint64_t offset, uint32_t len, bool last)
{
    nbd_chunk(w->head, w->req.handle, NBD_CHUNK_DATA, last, 8 + len);
    store_be64(w->head + NBD_CHUNK_BYTES, offset);
    w->head_len = NBD_CHUNK_BYTES + 8;
    w->data = w->buf;
    w->data_len = len;
}

static void make_hole_chunk(struct nbd_work *w, uint64_t offset, uint32_t len, bool last)
{
    nbd_chunk(w->head, w->req.handle, NBD_CHUNK_HOLE, last, 12);
    store_be64(w->head + NBD_CHUNK_BYTES, offset);
    store_be32(w->head + NBD_CHUNK_BYTES + 8, len);
    w->head_len = NBD_CHUNK_BYTES + 12;
    w->data_len = 0;
}

/* --- What is where ------------------------------------------------------------------------------------------------------------ */

struct stretch {
    uint32_t len;
    uint32_t state; /* enum nbd_state */
};

static int co_look(struct nbd_export *e, uint64_t offset, uint64_t len, struct stretch *out)
{
    struct node *root = co_nbd_export_root(e);
    struct chain_extent ext;
    int ret = root ? co_node_map(root, offset, len, &ext) : -ENOMEDIUM;

    if (!ret) {
        bool zero = ext.kind == EXTENT_NONE || ext.kind == EXTENT_ZERO;

        *out = (struct stretch){ .len = ext.len, .state = zero ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0 };
    }
    return ret;
}

/* How a read goes on at `offset`: a hole of *len bytes (true), or that many bytes of data. */
static bool co_look_for_hole(struct nbd_work *w, uint64_t offset, uint64_t left, uint32_t *len)
{
    uint64_t seen = 0, zeroes = 0; /* bytes looked at, and how many at their end are zeroes */
    struct stretch st;

    while (seen < left && (seen < NBD_READ_PIECE || zeroes == seen) &&
           !co_look(w->session->export, offset + seen, left - seen, &st)) {
        seen += st.len;
        if (st.state & NBD_STATE_ZERO) {
            zeroes += st.len;
        } else if (zeroes >= HOLE_MIN && zeroes + st.len == seen) {
            *len = zeroes;
            return true;
        } else {
            zeroes = 0;
        }
        if (zeroes >= HOLE_MIN && zeroes < seen) {
            *len = MIN(seen - zeroes, (uint64_t)NBD_READ_PIECE);
            return false;
        }
    }
    if (seen && zeroes == seen && (zeroes >= HOLE_MIN || zeroes == left)) {
        *len = zeroes;
        return true;
    }
    *len = MIN(left, (uint64_t)NBD_READ_PIECE);
    return false;
}

/* --- Commands ----------------------------------------------------------------------------------------------------- */

static void co_read_structured(struct nbd_work *w)
{
    uint64_t at = w->req.offset, end = at + w->req.len;
    bool split = !(w->req.flags & NBD_CMD_DF);

    if (!split && w->req.len > NBD_READ_PIECE) {
        finish_error(w, -EOVERFLOW);
        return;
    }
    while (at < end) {
        uint32_t len = MIN(end - at, (uint64_t)NBD_READ_PIECE);
        bool hole = split && w->req.len >= HOLE_MIN && co_look_for_hole(w, at, end - at, &len);
        int ret = hole ? 0 : co_read_into(w, at, len);

        if (ret < 0) {
            finish_error(w, ret);
            return;
        }
        if (hole) {
            make_hole_chunk(w, at, len, at + len == end);
        } else {
            make_data_chunk(w, at, len, at + len == end);
        }
        at += len;
        if (at < end && !co_nbd_work_send(w)) {
            break;
        }
    }
    if (!w->req.len) {
        nbd_chunk(w->head, w->req.handle, NBD_CHUNK_NONE, true, 0);
        w->head_len = NBD_CHUNK_BYTES;
    }
    nbd_work_finish(w);
}

static void co_read_simple(struct nbd_work *w)
{
    struct nbd_session *s = w->session;
    bool stream = w->req.len > NBD_READ_PIECE;
    int ret = co_read_into(w, w->req.offset, MIN(w->req.len, NBD_READ_PIECE));

    if (ret < 0) {
        finish_simple(w, ret);
        return;
    }
    if (stream) {
        co_nbd_stream_begin(w);
    }
    nbd_simple_reply(w->head, w->req.handle, 0);
    w->head_len = NBD_SIMPLE_BYTES;
    w->data = w->buf;
    w->data_len = MIN(w->req.len, NBD_READ_PIECE);
    for (uint32_t done = w->data_len; done < w->req.len; done += w->data_len) {
        uint32_t part = MIN(w->req.len - done, NBD_READ_PIECE);

        if (!co_nbd_work_send(w)) {
            break;
        }
        if (co_read_into(w, w->req.offset + done, part) < 0) {
            nbd_session_die(s); /* the head has said that all is well */
            break;
        }
        w->head_len = 0;
        w->data_len = part;
    }
    nbd_work_finish(w);
    if (stream) {
        nbd_stream_end(s);
    }
}

static void co_block_status(struct nbd_work *w)
{
    uint64_t at = w->req.offset, end = at + w->req.len;
    unsigned room = w->req.flags & NBD_CMD_REQ_ONE ? 1 : EXTENTS_MAX, n = 0, lookups = 0;
    struct stretch st, last = { 0 };

    while (at < end && lookups < LOOKUPS_MAX && !w->session->dead) {
        int ret = co_look(w->session->export, at, end - at, &st);

        if (ret < 0 && !n) {
            finish_error(w, ret);
            return;
        }
        if (ret < 0 || (n == room && st.state != last.state)) {
            break;
        }
        if (n && st.state == last.state) {
            last.len += st.len;
        } else {
            n++;
            last = st;
        }
        nbd_extent(w->buf + 4 + (n - 1) * NBD_EXTENT_BYTES, last.len, last.state);
        at += st.len;
        if (++lookups % LOOKUPS_PER_TURN == 0) {
            co_yield();
        }
    }
    store_be32(w->buf, NBD_BASE_ALLOCATION_ID);
    w->data = w->buf;
    w->data_len = 4 + n * NBD_EXTENT_BYTES;
    nbd_chunk(w->head, w->req.handle, NBD_CHUNK_STATUS, true, w->data_len);
    w->head_len = NBD_CHUNK_BYTES;
    nbd_work_finish(w);
}

/* Those that end with one word. */
static int co_plain(struct nbd_work *w)
{
    switch (w->req.type) {
    case NBD_CMD_WRITE:
        return co_changed(w, co_write_from(w, w->req.offset, w->req.len));
    case NBD_CMD_FLUSH:
        return co_flush(w);
    case NBD_CMD_TRIM:
        return co_changed(w, co_trim(w));
    case NBD_CMD_WRITE_ZEROES:
        return co_changed(w, co_zero(w));
    case NBD_CMD_CACHE:
        co_cache(w);
        return 0;
    default:
        return -EINVAL;
    }
}

CO_ENTRY void nbd_work_entry(void *arg)
{
    struct nbd_work *w = arg;
    bool chunks = w->req.type == NBD_CMD_READ || w->req.type == NBD_CMD_BLOCK_STATUS;
    int ret = nbd_request_check(&w->req, &w->session->terms);

    if (ret < 0 && chunks) {
        finish_error(w, ret);
    } else if (ret < 0) {
        finish_simple(w, ret);
    } else if (w->req.type == NBD_CMD_BLOCK_STATUS) {
        co_block_status(w);
    } else if (w->req.type == NBD_CMD_READ && w->session->terms.structured) {
        co_read_structured(w);
    } else if (w->req.type == NBD_CMD_READ) {
        co_read_simple(w);
    } else {
        finish_simple(w, co_plain(w));
    }
}

/* After an error the rest of the data is still taken off the wire. */
void co_nbd_long_write(struct nbd_work *w)
{
    struct nbd_session *s = w->session;
    int ret = nbd_request_check(&w->req, &s->terms);
    bool there = true;

    for (uint32_t done = 0; there && done < w->req.len;) {
        uint32_t part = MIN(w->req.len - done, NBD_PIECE);

        there = co_nbd_receive(s, w->buf, part);
        nbd_reader_leave(s);
        if (there && !ret) {
            ret = co_write_from(w, w->req.offset + done, part);
        }
        nbd_reader_back(s);
        done += part;
    }
    nbd_reader_leave(s);
    ret = there ? co_changed(w, ret) : -EIO;
    nbd_reader_back(s);
    finish_simple(w, ret);
}
