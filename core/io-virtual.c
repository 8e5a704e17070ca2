/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real files on the virtual clock: a carrier of struct io_call (see io-engine.h).
 *
 * A call first sleeps for a while drawn from the loop's generator, then is carried out on the
 * loop's thread, in no virtual time.  So requests happen one by one, in the order of their drawn
 * times: what the kernel would do first cannot show, and a run with the same seed is the same run.
 *
 * The times look like a good disk's: a fixed part, a part by size, and now and then a slow one, so
 * that requests overtake each other and time-outs have something to find.
 */
#include "core/io-engine.h"

#include "core/co.h"

#define LATENCY_MIN (40 * NS_PER_US)
#define LATENCY_SPREAD (80 * NS_PER_US)
#define BYTES_PER_US 2000 /* 2 GB/s */
#define SLOW_ONE_IN 64
#define SLOW_MAX (4 * NS_PER_MS)

uint64_t io_virtual_latency(uint64_t bytes)
{
    uint64_t ns = LATENCY_MIN + bytes * NS_PER_US / BYTES_PER_US;

    ns += loop_random_below(LATENCY_SPREAD);
    if (!loop_random_below(SLOW_ONE_IN)) {
        ns += loop_random_below(SLOW_MAX);
    }
    return ns;
}

ssize_t co_io_virtual_call(struct io_call *call)
{
    co_sleep_ns(io_virtual_latency(call->len));
    io_call_run(call);
    return call->result;
}
