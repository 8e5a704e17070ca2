/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring: a carrier of struct io_call (see io-engine.h) on io_uring.
 *
 * Calls queue up during a turn of the loop and go to the kernel together at its end, with one
 * system call.  When the ring is full the rest stays in the queue and goes as soon as there is
 * room: the queue has no end, the ring's size is only the size of a batch.  Completions are found
 * in the ring's memory at the end of each turn, without a system call; the ring's descriptor in the
 * loop is only for waking up.
 *
 * Calls that io_uring has no operation for go to the pool, and so do those that the ring refuses
 * for lack of something (-EAGAIN), so nobody above ever sees a difference.
 *
 * Linked requests, registered files and registered buffers are left out: guest memory and image
 * files come and go, and the gain is below what can be measured here.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>

#include "core/co.h"

#define RING_ENTRIES 256
#define REAP_BATCH 32
#define LEN_MAX (1u << 30) /* an SQE's length has 32 bits; a transfer may be short at any time */

static struct io_uring ring;
static struct io_call_list queue = STAILQ_HEAD_INITIALIZER(queue);
static unsigned in_flight; /* in the ring */
static bool handed_over;   /* calls went to the pool since its last end of turn */
static struct loop_watch *watch;
static struct loop_poller poller;
static struct loop_timer again; /* the kernel took nothing, and nothing in flight would wake us */

static void prepare(struct io_uring_sqe *sqe, struct io_call *call)
{
    switch (call->op) {
    case IO_CALL_READ:
        if (call->n == 1) {
            io_uring_prep_read(sqe, call->fd, call->iov->iov_base,
                               MIN(call->iov->iov_len, (size_t)LEN_MAX), call->offset);
        } else {
            io_uring_prep_readv(sqe, call->fd, call->iov, call->n, call->offset);
        }
        break;
    case IO_CALL_WRITE:
        if (call->n == 1) {
            io_uring_prep_write(sqe, call->fd, call->iov->iov_base,
                                MIN(call->iov->iov_len, (size_t)LEN_MAX), call->offset);
        } else {
            io_uring_prep_writev(sqe, call->fd, call->iov, call->n, call->offset);
        }
        break;
    case IO_CALL_FLUSH:
        io_uring_prep_fsync(sqe, call->fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_CALL_FALLOCATE:
        io_uring_prep_fallocate(sqe, call->fd, call->mode, call->offset, call->len);
        break;
    case IO_CALL_FN:
        assert(!"io_uring has no such operation");
    }
    io_uring_sqe_set_data(sqe, call);
    if (call->big) {
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
}

/* Move calls from the queue into the ring while it has room. */
static void fill(void)
{
    struct io_call *call;

    while ((call = STAILQ_FIRST(&queue))) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

        if (!sqe) {
            return;
        }
        STAILQ_REMOVE_HEAD(&queue, link);
        prepare(sqe, call);
        in_flight++;
    }
}

static void complete(struct io_call *call, int result)
{
    in_flight--;
    if (result == -EAGAIN) {
        io_pool_send(call);
        handed_over = true;
        return;
    }
    call->result = result;
    co_wake(call->co);
}

static void reap(void)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    unsigned count;

    while ((count = io_uring_peek_batch_cqe(&ring, cqes, REAP_BATCH))) {
        for (unsigned i = 0; i < count; i++) {
            complete(io_uring_cqe_get_data(cqes[i]), cqes[i]->res);
        }
        io_uring_cq_advance(&ring, count);
    }
}

static void submit(void)
{
    while (!STAILQ_EMPTY(&queue) || io_uring_sq_ready(&ring)) {
        fill();
        io_stats.submissions++;
        int ret = io_uring_submit(&ring);

        reap();
        if (ret <= 0) {
            /* The kernel is short of something (-EAGAIN, -EBUSY): completions will make room. */
            if (in_flight == io_uring_sq_ready(&ring)) {
                loop_timer_arm(&again, loop_now() + NS_PER_MS);
            }
            return;
        }
    }
    if (in_flight) {
        reap();
    }
}

static void end_of_turn(void *arg)
{
    submit();
    if (handed_over) {
        /* The pool's own end of turn may be over, and the loop about to wait. */
        handed_over = false;
        io_pool_submit();
    }
}

static void ring_ready(void *arg, unsigned events)
{
    reap();
}

static void nothing(void *arg)
{
}

ssize_t co_io_ring_call(struct io_call *call)
{
    if (call->op == IO_CALL_FN || call->lane) {
        return co_io_pool_call(call);
    }
    call->co = co_self();
    STAILQ_INSERT_TAIL(&queue, call, link);
    co_suspend();
    return call->result;
}

static const int needed[] = { IORING_OP_READ,  IORING_OP_READV, IORING_OP_WRITE,
                              IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE };

static bool has_operations(void)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    bool all = probe;

    for (unsigned i = 0; all && i < ARRAY_SIZE(needed); i++) {
        all = io_uring_opcode_supported(probe, needed[i]);
    }
    io_uring_free_probe(probe);
    return all;
}

/* The ring is a second way into the kernel, which no filter of system calls sees: it is limited to
 * what we use it for, once and for all.  Kernels before 5.10 cannot: there threads do the work. */
static bool limit(void)
{
    struct io_uring_restriction r[ARRAY_SIZE(needed) + 1] = {
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_ASYNC },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        r[i + 1] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_OP,
                                                  .sqe_op = needed[i] };
    }
    /* The library has functions for these two calls, and forgot to export them (2.3). */
    return !io_uring_register(ring.ring_fd, IORING_REGISTER_RESTRICTIONS, r, ARRAY_SIZE(r)) &&
           !io_uring_register(ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

bool io_ring_init(void)
{
    /* Completions need not interrupt us (Linux 5.19; older ones refuse the flag): they appear at
     * our next system call.  DEFER_TASKRUN would go further, but with it nobody is woken who polls
     * the ring (seen on 6.18). */
    struct io_uring_params params = { .flags = IORING_SETUP_COOP_TASKRUN |
                                               IORING_SETUP_R_DISABLED };
    int ret = io_uring_queue_init_params(RING_ENTRIES, &ring, &params);

    if (ret == -EINVAL) {
        params = (struct io_uring_params){ .flags = IORING_SETUP_R_DISABLED };
        ret = io_uring_queue_init_params(RING_ENTRIES, &ring, &params);
    }
    if (ret) {
        return false; /* ENOSYS, EPERM: not for us */
    }
    if (!has_operations() || !(params.features & IORING_FEAT_NODROP) || !limit()) {
        io_uring_queue_exit(&ring);
        return false;
    }
    watch = loop_watch(ring.ring_fd, LOOP_READ, ring_ready, NULL);
    poller.submit = end_of_turn;
    loop_poller_add(&poller);
    loop_timer_init(&again, nothing, NULL);
    return true;
}

void io_ring_fini(void)
{
    assert(!in_flight && STAILQ_EMPTY(&queue));
    loop_timer_cancel(&again);
    loop_poller_remove(&poller);
    loop_unwatch(watch);
    io_uring_queue_exit(&ring);
}
