/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client's connection.  Inside the server only.
 *
 *     socket --> in[] --> reader coroutine --> work (a coroutine each) --> disk or node
 *       ^                                        |
 *       +---- one sendmsg() for all <-- out <----+
 *
 * The reader (nbd-session.c, which also negotiates: nbd-negotiate.c) takes requests out of `in`, as many as one recv()
 * brought, and starts a work for each (nbd-request.c).  A work that is done puts itself into `out`, whose head and data
 * go straight from its memory into the socket; then it is used again.
 *
 * Bounds.  A work holds at most NBD_PIECE bytes, however long its request: longer ones go piece by piece, and the next
 * piece is made when the one before is sent.  The reader takes no further request while WORKS_MAX works are under way or
 * unsent, or while they hold more than HELD_MAX bytes.  So a client that does not read makes us stop reading, and that is all.
 *
 * Whatever the client does wrong ends the session (nbd_session_die()): what waits is woken, what is unsent is dropped,
 * requests under way come to their end, and the reader, which leaves last, frees everything.
 */
#ifndef EXPORT_NBD_SESSION_H
#define EXPORT_NBD_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/co.h"
#include "core/loop.h"
#include "export/nbd-protocol.h"
#include "export/nbd-server.h"

#define NBD_PIECE (1u << 20)
#define NBD_READ_PIECE (256u << 10) /* is in the processor's cache still when it is sent, and the client takes one meanwhile */
#define NBD_IN_BYTES (64u << 10)

/* What a suspended reader waits for. */
enum nbd_wait { NBD_WAIT_NOT = 0, NBD_WAIT_INPUT = 1, NBD_WAIT_OUTPUT = 2, NBD_WAIT_ROOM = 4, NBD_WAIT_IDLE = 8 };

/* A request from its arrival until its answer is sent. */
struct nbd_work {
    STAILQ_ENTRY(nbd_work) link; /* in the session's output, held output, or free list */
    struct nbd_session *session;
    struct nbd_request req;
    uint8_t *buf;                /* from nbd_buf_get(), NULL: none */
    size_t buf_len;              /* bytes wanted of it: these count against the session */
    uint8_t head[NBD_CHUNK_BYTES + 12]; /* the message that is being sent, */
    size_t head_len;
    const uint8_t *data;         /* and what follows it */
    size_t data_len;
    struct co *waiter;           /* waits until it is sent and has more to say */
};
STAILQ_HEAD(nbd_work_list, nbd_work);

struct nbd_session {
    LIST_ENTRY(nbd_session) link;
    int fd;
    struct loop_watch *watch;
    struct loop_timer deadline;   /* of the negotiation */
    struct co *reader;
    enum nbd_wait wait;           /* why the reader is suspended, as far as we can wake it */
    bool reading;                 /* the reader runs, and will send what becomes ready meanwhile */
    bool dead;                    /* nothing more is read or sent */
    bool registered;              /* counted in export->sessions */

    struct nbd_export *export;    /* once chosen */
    struct nbd_terms terms;
    bool no_zeroes;
    char *context_of;             /* the export for which base:allocation was agreed on; NULL: none */

    uint8_t *in;                  /* NBD_IN_BYTES */
    size_t in_at, in_len;
    bool eager;                   /* the last look brought several requests: look again before waiting */

    struct nbd_work_list out;     /* complete messages, in the order in which they go */
    size_t out_done;              /* bytes of the first one that are sent */
    size_t out_bytes;             /* of all, unsent */
    struct nbd_work *streamer;    /* a simple reply whose data comes in pieces: nobody may come between */
    struct nbd_work_list held;    /* those who wait for its end */
    struct co_queue stream_queue; /* others of that kind */
    bool want_write;              /* the socket is full */
    struct loop_task flush_task;

    struct nbd_work_list spare;
    unsigned works;               /* not spare */
    size_t held_bytes;            /* buffers of works */
};

/* Serve a client that has just come; `fd` is the session's from now on.  `on_end` is called once it has gone. */
void nbd_session_start(int fd, void (*on_end)(void));
/* All sessions, those that still negotiate too. */
LIST_HEAD(nbd_session_list, nbd_session);
extern struct nbd_session_list nbd_sessions;
/* Cut it off.  It frees itself in one of the next turns, when its last request has ended. */
void nbd_session_die(struct nbd_session *s);

/* The reader's means: suspend; false when the session is dead or the client has gone. */
bool co_nbd_receive(struct nbd_session *s, void *buf, size_t len);
bool co_nbd_send(struct nbd_session *s, const void *buf, size_t len);

/* Memory for data: at most NBD_PIECE bytes, aligned to pages; kept for the next one. */
uint8_t *nbd_buf_get(size_t len);
void nbd_buf_put(uint8_t *buf, size_t len); /* the `len` it was taken with */
void nbd_buf_drain(void);

/* nbd-negotiate.c: true when the client has chosen an export and transmission begins. */
bool co_nbd_negotiate(struct nbd_session *s);
/* How many bytes of buffer a request needs. */
size_t nbd_work_needs(const struct nbd_request *req);

/* nbd-request.c: carry it out and answer; the entry of a coroutine. */
void nbd_work_entry(void *arg);
/* The message in w->head, w->data goes out; then the work is used again. */
void nbd_work_finish(struct nbd_work *w);
/* The same, but come back when it is sent.  False: the session is dead. */
bool co_nbd_work_send(struct nbd_work *w);
/* For simple replies in pieces: nobody else's message comes between begin and end. */
void co_nbd_stream_begin(struct nbd_work *w);
void nbd_stream_end(struct nbd_session *s);
/* A write longer than a piece, by the reader itself: its data is taken and written piece by piece. */
void co_nbd_long_write(struct nbd_work *w);
/* The reader goes to work on something that suspends in its own way, and comes back. */
void nbd_reader_leave(struct nbd_session *s);
void nbd_reader_back(struct nbd_session *s);

#endif
