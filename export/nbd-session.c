/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client's connection: the socket, its input, its output and its end.  See nbd-session.h for the drawing.
 *
 * System calls per turn: one wait, one receive for all requests that have come, one send for the answers that are
 * ready (more when they are many: the client shall work on the first ones while we make the rest).  A client that sends one
 * request at a time is not asked for more before the loop says that there is something.
 */
#include "export/nbd-session.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "core/socket.h"

#define WORKS_MAX 256u
#define HELD_MAX (8u << 20)        /* bytes of buffers in one session */
#define SEND_BYTES (32u << 10)     /* so much is ready: send it before the next request is begun */
#define TURN_WORKS 16u             /* so many begun: let others have a turn ... */
#define TURN_NS (NS_PER_MS / 2)    /* ... or after so long: what the page cache lacks makes the kernel read ahead, 2 ms each time */
#define HANDSHAKE_NS (10 * NS_PER_S)
#define IOV_BATCH 128
#define SOCKET_BUFFER (1 << 20)

struct nbd_session_list nbd_sessions = LIST_HEAD_INITIALIZER(nbd_sessions);

static void flush(struct nbd_session *s);

/* --- The reader sleeps and wakes -------------------------------------------------------------------------------------- */

static void kick(struct nbd_session *s, unsigned why)
{
    if (s->wait & why) {
        s->wait = NBD_WAIT_NOT;
        co_wake(s->reader);
    }
}

void nbd_reader_leave(struct nbd_session *s)
{
    flush(s);
    s->reading = false;
}

void nbd_reader_back(struct nbd_session *s)
{
    s->reading = true;
}

/* Callers ask for their reason again afterwards.  A dead session waits for the end of its works only. */
static void co_reader_wait(struct nbd_session *s, enum nbd_wait why)
{
    unsigned works = s->works;

    nbd_reader_leave(s);
    if (s->works < works && why & (NBD_WAIT_ROOM | NBD_WAIT_IDLE)) {
        /* Leaving has sent something, so the reason may be gone, and nobody would wake us. */
    } else if (!s->dead || why == NBD_WAIT_IDLE) {
        s->wait = why;
        if (why == NBD_WAIT_INPUT) {
            loop_watch_events(s->watch, LOOP_READ | (s->want_write ? LOOP_WRITE : 0));
        }
        co_suspend();
    }
    nbd_reader_back(s);
}

/* Input that nobody waits for is left in the socket: the watch is told so only when there is some. */
static void socket_ready(void *arg, unsigned events)
{
    struct nbd_session *s = arg;
    bool wanted = s->wait == NBD_WAIT_INPUT;

    if (events & LOOP_WRITE && s->want_write) {
        s->want_write = false;
        kick(s, NBD_WAIT_OUTPUT);
        flush(s);
    }
    if (!s->dead) {
        loop_watch_events(s->watch, (wanted ? LOOP_READ : 0) | (s->want_write ? LOOP_WRITE : 0));
    }
    if (events & LOOP_READ) {
        kick(s, NBD_WAIT_INPUT);
    }
}

/* --- Output ------------------------------------------------------------------------------------------------------------- */

static void work_release(struct nbd_work *w)
{
    struct nbd_session *s = w->session;

    nbd_buf_put(w->buf, w->buf_len);
    s->held_bytes -= w->buf_len;
    s->works--;
    STAILQ_INSERT_HEAD(&s->spare, w, link);
    kick(s, NBD_WAIT_ROOM | (s->works ? 0 : NBD_WAIT_IDLE));
}

/* Its message is in the socket, or will never be. */
static void work_sent(struct nbd_work *w)
{
    struct co *waiter = w->waiter;

    if (!waiter) {
        work_release(w);
        return;
    }
    w->waiter = NULL;
    co_wake(waiter);
}

static void want_write(struct nbd_session *s)
{
    s->want_write = true;
    loop_watch_events(s->watch, LOOP_WRITE | (s->wait == NBD_WAIT_INPUT ? LOOP_READ : 0));
}

static int gather(struct nbd_session *s, struct iovec *iov)
{
    size_t skip = s->out_done; /* of the first message */
    struct nbd_work *w;
    int n = 0;

    STAILQ_FOREACH(w, &s->out, link) {
        if (n + 2 > IOV_BATCH) {
            break;
        }
        if (skip < w->head_len) {
            iov[n++] = (struct iovec){ .iov_base = w->head + skip, .iov_len = w->head_len - skip };
            skip = w->head_len;
        }
        if (w->data_len) {
            skip -= w->head_len;
            iov[n++] = (struct iovec){ .iov_base = (uint8_t *)w->data + skip, .iov_len = w->data_len - skip };
        }
        skip = 0;
    }
    return n;
}

static void sent(struct nbd_session *s, size_t bytes)
{
    struct nbd_work *w;

    s->out_bytes -= bytes;
    s->out_done += bytes;
    while ((w = STAILQ_FIRST(&s->out)) && s->out_done >= w->head_len + w->data_len) {
        s->out_done -= w->head_len + w->data_len;
        STAILQ_REMOVE_HEAD(&s->out, link);
        work_sent(w);
    }
}

static void flush(struct nbd_session *s)
{
    while (!s->dead && !s->want_write && !STAILQ_EMPTY(&s->out)) {
        struct iovec iov[IOV_BATCH];
        int count = gather(s, iov);
        ssize_t whole = iov_size(iov, count), n = socket_sendv(s->fd, iov, count);

        if (n < 0 && n != -EAGAIN) {
            nbd_session_die(s);
            return;
        }
        if (n >= 0) {
            sent(s, n);
        }
        if (n < whole) {
            want_write(s);
        }
    }
}

static void flush_later(void *arg)
{
    flush(arg);
}

static void queue_out(struct nbd_work *w)
{
    struct nbd_session *s = w->session;

    if (s->dead) {
        work_sent(w);
        return;
    }
    s->out_bytes += w->head_len + w->data_len;
    if (s->streamer && s->streamer != w) {
        STAILQ_INSERT_TAIL(&s->held, w, link);
        return;
    }
    STAILQ_INSERT_TAIL(&s->out, w, link);
    if (!s->reading && !s->want_write && !s->flush_task.queued) {
        loop_defer(&s->flush_task, flush_later, s); /* what ends in the same turn goes with it */
    }
}

void nbd_work_finish(struct nbd_work *w)
{
    queue_out(w);
}

bool co_nbd_work_send(struct nbd_work *w)
{
    struct nbd_session *s = w->session;

    if (s->dead) {
        return false;
    }
    w->waiter = co_self();
    queue_out(w);
    co_suspend();
    return !s->dead;
}

void co_nbd_stream_begin(struct nbd_work *w)
{
    struct nbd_session *s = w->session;

    while (s->streamer) {
        co_queue_wait(&s->stream_queue);
    }
    s->streamer = w;
}

void nbd_stream_end(struct nbd_session *s)
{
    s->streamer = NULL;
    STAILQ_CONCAT(&s->out, &s->held);
    co_queue_wake_one(&s->stream_queue);
    if (!s->reading && !s->dead && !s->want_write && !s->flush_task.queued) {
        loop_defer(&s->flush_task, flush_later, s);
    }
}

void nbd_session_die(struct nbd_session *s)
{
    struct nbd_work *w;

    if (s->dead) {
        return;
    }
    s->dead = true;
    loop_timer_cancel(&s->deadline);
    loop_watch_events(s->watch, 0);
    socket_shut_down(s->fd);
    STAILQ_CONCAT(&s->out, &s->held);
    while ((w = STAILQ_FIRST(&s->out))) {
        STAILQ_REMOVE_HEAD(&s->out, link);
        work_sent(w);
    }
    kick(s, NBD_WAIT_INPUT | NBD_WAIT_OUTPUT | NBD_WAIT_ROOM);
}

/* --- Input -------------------------------------------------------------------------------------------------------------- */

/* After a receive that brought nothing: true when it may be tried again. */
static bool co_try_again(struct nbd_session *s, ssize_t n)
{
    if (n != -EAGAIN) {
        return false; /* it has gone, in one way or the other */
    }
    co_reader_wait(s, NBD_WAIT_INPUT);
    return !s->dead;
}

/* More bytes into `in`, at least one. */
static bool co_more_input(struct nbd_session *s)
{
    ssize_t n;

    flush(s);
    if (s->in_at) {
        memmove(s->in, s->in + s->in_at, s->in_len - s->in_at);
        s->in_len -= s->in_at;
        s->in_at = 0;
    }
    if (!s->eager) {
        co_reader_wait(s, NBD_WAIT_INPUT);
    }
    do {
        if (s->dead) {
            return false;
        }
        n = socket_receive(s->fd, s->in + s->in_len, NBD_IN_BYTES - s->in_len);
    } while (n <= 0 && co_try_again(s, n));
    if (n <= 0) {
        return false;
    }
    s->in_len += n;
    s->eager = s->in_len > NBD_REQUEST_BYTES;
    return true;
}

/* The bytes behind those that were asked for come along into `in`. */
bool co_nbd_receive(struct nbd_session *s, void *buf, size_t len)
{
    size_t have = MIN(len, s->in_len - s->in_at);
    uint8_t *at = buf;

    memcpy(at, s->in + s->in_at, have);
    s->in_at += have;
    at += have;
    len -= have;
    while (len && !s->dead) {
        struct iovec iov[2] = { { at, len }, { s->in, NBD_IN_BYTES } };
        ssize_t n = socket_receivev(s->fd, iov, 2);

        if (n <= 0) {
            if (!co_try_again(s, n)) {
                return false;
            }
            continue;
        }
        s->in_at = 0;
        s->in_len = (size_t)n > len ? n - len : 0;
        at += MIN((size_t)n, len);
        len -= MIN((size_t)n, len);
    }
    return !len;
}

/* Negotiation only: nothing is in `out`. */
bool co_nbd_send(struct nbd_session *s, const void *buf, size_t len)
{
    const uint8_t *at = buf;

    while (len && !s->dead) {
        ssize_t n = socket_send(s->fd, at, len);

        if (n > 0) {
            at += n;
            len -= n;
        } else if (n == -EAGAIN) {
            want_write(s);
            co_reader_wait(s, NBD_WAIT_OUTPUT);
        } else {
            return false;
        }
    }
    return !len;
}

/* --- Transmission --------------------------------------------------------------------------------------------------------- */

static bool co_next_request(struct nbd_session *s, struct nbd_request *req)
{
    while (s->in_len - s->in_at < NBD_REQUEST_BYTES) {
        if (!co_more_input(s)) {
            return false;
        }
    }
    if (!nbd_request_parse(s->in + s->in_at, req) || nbd_request_payload(req) > NBD_PAYLOAD_MAX) {
        nbd_session_die(s); /* where the next request begins nobody knows */
        return false;
    }
    s->in_at += NBD_REQUEST_BYTES;
    return true;
}

static bool has_room(const struct nbd_session *s, size_t bytes)
{
    return s->works < WORKS_MAX && (!s->held_bytes || s->held_bytes + bytes <= HELD_MAX);
}

/* NULL: the session died while we waited for room. */
static struct nbd_work *co_work_new(struct nbd_session *s, const struct nbd_request *req)
{
    size_t needs = nbd_work_needs(req);
    struct nbd_work *w;

    while (!s->dead && !has_room(s, needs)) {
        co_reader_wait(s, NBD_WAIT_ROOM);
    }
    if (s->dead) {
        return NULL;
    }
    w = STAILQ_FIRST(&s->spare);
    if (w) {
        STAILQ_REMOVE_HEAD(&s->spare, link);
    } else {
        w = mem_alloc(sizeof(*w));
    }
    w->session = s;
    w->req = *req;
    w->buf = needs ? nbd_buf_get(needs) : NULL;
    w->buf_len = needs;
    w->data_len = 0;
    w->waiter = NULL;
    s->works++;
    s->held_bytes += needs;
    return w;
}

static void co_transmit(struct nbd_session *s)
{
    struct nbd_request req;
    unsigned begun = 0;

    while (co_next_request(s, &req) && req.type != NBD_CMD_DISC) {
        struct nbd_work *w = co_work_new(s, &req);
        size_t payload = nbd_request_payload(&req);

        if (!w) {
            return;
        }
        if (payload > NBD_PIECE) {
            co_nbd_long_write(w);
        } else if (payload && !co_nbd_receive(s, w->buf, payload)) {
            work_release(w);
            return;
        } else {
            co_start(nbd_work_entry, w);
        }
        if (s->out_bytes >= SEND_BYTES) {
            flush(s);
        }
        if (++begun % TURN_WORKS == 0 || loop_held_ns() > TURN_NS) {
            nbd_reader_leave(s);
            co_yield();
            nbd_reader_back(s);
        }
    }
}

/* --- Life ------------------------------------------------------------------------------------------------------------------ */

static void (*end_listener)(void);

static void too_slow(void *arg)
{
    nbd_session_die(arg);
}

static void session_free(struct nbd_session *s)
{
    struct nbd_export *e = s->export;
    struct nbd_work *w;

    while ((w = STAILQ_FIRST(&s->spare))) {
        STAILQ_REMOVE_HEAD(&s->spare, link);
        free(w);
    }
    LIST_REMOVE(s, link);
    if (LIST_EMPTY(&nbd_sessions)) {
        nbd_buf_drain();
    }
    loop_unwatch(s->watch);
    socket_close(s->fd);
    if (e && --e->sessions == 0) {
        co_queue_wake_all(&e->idle);
    }
    free(s->context_of);
    free(s->in);
    free(s);
    end_listener();
}

static CO_ENTRY void session_life(void *arg)
{
    struct nbd_session *s = arg;
    bool chosen;

    s->reader = co_self();
    s->reading = true;
    chosen = co_nbd_negotiate(s);
    loop_timer_cancel(&s->deadline);
    if (chosen) {
        co_transmit(s);
    }
    /* A client that took its leave, or just closed, still gets its answers if it listens. */
    while (s->works) {
        co_reader_wait(s, NBD_WAIT_IDLE);
    }
    nbd_session_die(s);
    while (s->flush_task.queued) {
        co_yield();
    }
    session_free(s);
}

void nbd_session_start(int fd, void (*on_end)(void))
{
    struct nbd_session *s = mem_zalloc(sizeof(*s));

    s->fd = fd;
    s->in = mem_alloc(NBD_IN_BYTES);
    STAILQ_INIT(&s->out);
    STAILQ_INIT(&s->held);
    STAILQ_INIT(&s->spare);
    co_queue_init(&s->stream_queue);
    socket_set_send_buffer(fd, SOCKET_BUFFER);
    s->watch = loop_watch(fd, 0, socket_ready, s);
    end_listener = on_end;
    LIST_INSERT_HEAD(&nbd_sessions, s, link);
    loop_timer_init(&s->deadline, too_slow, s);
    if (!loop_is_virtual()) { /* whose clock does not wait for clients */
        loop_timer_arm(&s->deadline, loop_now() + HANDSHAKE_NS);
    }
    co_start(session_life, s);
}
