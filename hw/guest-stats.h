/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest counts: requests, latencies, stalls.
 *
 * Times are nanoseconds on the guest's clock, which stands still while the machine does: neither
 * `stop` nor waiting for `cont` after an error counts as latency or as a stall.
 */
#ifndef HW_GUEST_STATS_H
#define HW_GUEST_STATS_H

#include <stdint.h>

/* Latencies in classes: exact below 32 ns, then 32 classes to each power of two, so a percentile
 * is off by 3 percent at most. */
#define LATENCY_STEP_BITS 5u
#define LATENCY_CLASSES ((64u - LATENCY_STEP_BITS + 1) << LATENCY_STEP_BITS)

struct guest_latency {
    uint64_t count, max_ns;
    uint64_t classes[LATENCY_CLASSES];
};
void guest_latency_add(struct guest_latency *l, uint64_t ns);
/* The latency that `thousandths` of a thousand requests do not exceed; 0 when there was none. */
uint64_t guest_latency_percentile(const struct guest_latency *l, unsigned thousandths);

struct guest_stats {
    uint64_t reads, writes, flushes,
        discards; /* requests that the device finished, failed ones included */
    uint64_t read_bytes, written_bytes;
    uint64_t verified;   /* reads that were compared with what was known, and agreed */
    uint64_t mismatches; /* reads that did not */
    uint64_t errors;     /* requests that failed; a reset of the machine is no failure */
    uint64_t skipped;    /* of an iolog: what this disk cannot do */
    uint64_t boots;
    unsigned inflight;
    uint64_t progress_ns; /* when a request last ended, or the first of those in flight began */
    uint64_t longest_stall_ns; /* the longest time with requests in flight and none ending */
    struct guest_latency latency;
};
void guest_stats_begin(struct guest_stats *s, uint64_t now_ns);
void guest_stats_end(struct guest_stats *s, uint64_t now_ns);
/* The longest stall, that of this moment included. */
uint64_t guest_stats_stall(const struct guest_stats *s, uint64_t now_ns);

#endif
