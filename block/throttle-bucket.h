/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arithmetic of throttling: six leaky buckets, and how long the next request has to wait for them.
 *
 * A bucket leaks at its limit.  A request may go as soon as no bucket that concerns it holds more than it has room for; then its
 * units (bytes, or operations) are poured in, however many they are.  So a large request goes at once and is paid for by those
 * after it.  Room, as QEMU has it:
 *
 *   average alone           a tenth of a second of it
 *   and a burst (`max`)     `length` seconds of the burst; when length > 1 a second level that leaks at `max` and has a tenth of a
 *                           second of room keeps the burst itself within its rate
 *
 * Pure: no clock, no list, no request.  Levels are counted in units / 10^9, so that a limit in units a second leaks whole numbers
 * each nanosecond and nothing is ever rounded.
 */
#ifndef BLOCK_THROTTLE_BUCKET_H
#define BLOCK_THROTTLE_BUCKET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

enum throttle_kind {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE_KINDS
};
#define THROTTLE_LIMIT_MAX 1000000000000000ull

struct throttle_bucket {
    uint64_t average; /* units a second; 0: no limit */
    uint64_t max;     /* of a burst, units a second; 0: none */
    uint64_t length;  /* of a burst, seconds */
    unsigned __int128 level, burst_level; /* units / 10^9 */
};
struct throttle_limits {
    struct throttle_bucket buckets[THROTTLE_KINDS];
    uint64_t iops_size; /* bytes that count as one operation; 0: each request is one */
    uint64_t since;     /* ns: the levels are those of then */
};

/* No limits, empty buckets. */
void throttle_limits_init(struct throttle_limits *l);
bool throttle_limits_any(const struct throttle_limits *l);
/* Do they make sense?  0 or -EINVAL with QEMU's words. */
int throttle_limits_check(const struct throttle_limits *l, struct error *err);
/* {"iops-total": 5, "bps-read-max-length": 2, ..., "iops-size": 0}: what is not named stays; checked; levels start anew.  After an
 * error nothing has changed. */
int throttle_limits_set(struct throttle_limits *l, const json_t *named, struct error *err);
/* All nineteen by name (a new reference). */
json_t *throttle_limits_get(const struct throttle_limits *l);

/* How many ns from `now` until a request (a write?) may go; 0: now. */
uint64_t throttle_limits_wait(struct throttle_limits *l, bool write, uint64_t now);
/* It goes. */
void throttle_limits_account(struct throttle_limits *l, bool write, uint64_t bytes);

#endif
