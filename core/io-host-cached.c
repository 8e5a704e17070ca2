/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads of real files that the page cache can answer, on the loop's thread.
 *
 * With preadv2() and RWF_NOWAIT a hit costs one system call of 1 us and no change of thread or
 * context, a miss a fraction of that on top of a disk access.  So that a caller that reads in a loop
 * cannot hold up everybody else, a turn of the loop has a budget for such reads; when it is used up
 * the caller goes on in the next turn.
 */
#include "core/io-host.h"

#include <errno.h>
#include <sys/uio.h>

#include "core/co.h"
#include "core/io-engine.h"

#define TURN_MAX (1024 * 1024) /* bytes in a turn of the loop */

static uint64_t budget; /* of those, what is left */

/* Readers that found the budget used up, in the order in which they go on. */
struct reader {
    struct co *co;
    size_t size;
    STAILQ_ENTRY(reader) link;
};
static STAILQ_HEAD(, reader) readers = STAILQ_HEAD_INITIALIZER(readers);
static bool contended; /* several want more than a turn has: one read each in this turn */

void io_host_new_turn(void)
{
    struct reader *reader = STAILQ_FIRST(&readers);

    budget = TURN_MAX;
    contended = reader && STAILQ_NEXT(reader, link);
    while ((reader = STAILQ_FIRST(&readers)) && budget >= reader->size) {
        budget -= reader->size;
        STAILQ_REMOVE_HEAD(&readers, link);
        co_wake(reader->co);
    }
}

/* First come, first served: who comes back for more goes behind those who wait. */
static void co_take_budget(size_t size)
{
    struct reader reader = { .co = co_self(), .size = size };

    if (!contended && STAILQ_EMPTY(&readers) && budget >= size) {
        budget -= size;
        return;
    }
    STAILQ_INSERT_TAIL(&readers, &reader, link);
    co_suspend();
}

ssize_t co_io_host_read_cached(int fd, bool *refused, uint64_t offset, const struct iovec *iov, int n, size_t size)
{
    ssize_t ret;

    co_take_budget(size);
    ret = preadv2(fd, iov, n, offset, RWF_NOWAIT);
    if (ret < 0) {
        budget += size;
        *refused = errno == EOPNOTSUPP;
        return -errno;
    }
    io_stats.inline_reads += (size_t)ret == size;
    return ret;
}
