/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leaky buckets: see throttle-bucket.h.
 */
#include "block/throttle-bucket.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "core/mem.h"

#define NANO 1000000000ull
#define NANO_TENTH (NANO / 10)

typedef unsigned __int128 nano_t; /* units / 10^9 */

static const char *const names[THROTTLE_KINDS] = {
    "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
};

void throttle_limits_init(struct throttle_limits *l)
{
    *l = (struct throttle_limits){ 0 };
    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        l->buckets[i].length = 1;
    }
}

bool throttle_limits_any(const struct throttle_limits *l)
{
    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        if (l->buckets[i].average) {
            return true;
        }
    }
    return false;
}

/* --- Sense ---------------------------------------------------------------------------------------- */

/* A limit for all and one for reads or writes would both count. */
static bool contradicts(const struct throttle_bucket *total)
{
    return (total[0].average && (total[1].average || total[2].average)) ||
           (total[0].max && (total[1].max || total[2].max));
}

static int check_bucket(const struct throttle_bucket *b, struct error *err)
{
    if (b->average > THROTTLE_LIMIT_MAX || b->max > THROTTLE_LIMIT_MAX) {
        error_set(err, "bps/iops/max values must be within [0, %llu]", THROTTLE_LIMIT_MAX);
    } else if (!b->length) {
        error_set(err, "the burst length cannot be 0");
    } else if (b->length > 1 && !b->max) {
        error_set(err, "burst length set without burst rate");
    } else if (b->max && b->length > THROTTLE_LIMIT_MAX / b->max) {
        error_set(err, "burst length too high for this burst rate");
    } else if (b->max && !b->average) {
        error_set(err, "bps_max/iops_max require corresponding bps/iops values");
    } else if (b->max && b->max < b->average) {
        error_set(err, "bps_max/iops_max cannot be lower than bps/iops");
    } else {
        return 0;
    }
    return -EINVAL;
}

int throttle_limits_check(const struct throttle_limits *l, struct error *err)
{
    const struct throttle_bucket *iops = &l->buckets[THROTTLE_IOPS_TOTAL];

    if (contradicts(&l->buckets[THROTTLE_BPS_TOTAL]) || contradicts(iops)) {
        error_set(err, "bps/iops/max total values and read/write values cannot be used at the same time");
        return -EINVAL;
    }
    if (l->iops_size && !iops[0].average && !iops[1].average && !iops[2].average) {
        error_set(err, "iops size requires an iops value to be set");
        return -EINVAL;
    }
    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        if (check_bucket(&l->buckets[i], err) < 0) {
            return -EINVAL;
        }
    }
    return 0;
}

/* --- Names ------------------------------------------------------------------------------------------ */

/* The number of that name into *out, which stays when there is none.  A negative number becomes a huge one, and is too much. */
static void take(const json_t *named, const char *name, const char *suffix, uint64_t *out)
{
    AUTOFREE char *key = mem_printf("%s%s", name, suffix);
    json_t *value = json_object_get(named, key);

    if (json_is_integer(value)) {
        *out = json_integer_value(value);
    }
}

int throttle_limits_set(struct throttle_limits *l, const json_t *named, struct error *err)
{
    struct throttle_limits new = *l;

    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        struct throttle_bucket *b = &new.buckets[i];

        b->level = b->burst_level = 0;
        take(named, names[i], "", &b->average);
        take(named, names[i], "-max", &b->max);
        take(named, names[i], "-max-length", &b->length);
        if (b->length > UINT_MAX) {
            error_set(err, "%s-max-length value must be in the range [0, %u]", names[i], UINT_MAX);
            return -EINVAL;
        }
    }
    take(named, "iops-size", "", &new.iops_size);
    if (throttle_limits_check(&new, err) < 0) {
        return -EINVAL;
    }
    *l = new;
    return 0;
}

json_t *throttle_limits_get(const struct throttle_limits *l)
{
    json_t *tree = json_object();

    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        const struct throttle_bucket *b = &l->buckets[i];
        AUTOFREE char *max = mem_printf("%s-max", names[i]), *length = mem_printf("%s-max-length", names[i]);

        json_object_set_new(tree, names[i], json_integer(b->average));
        json_object_set_new(tree, max, json_integer(b->max));
        json_object_set_new(tree, length, json_integer(b->length));
    }
    json_object_set_new(tree, "iops-size", json_integer(l->iops_size));
    return tree;
}

/* --- Time --------------------------------------------------------------------------------------------- */

static nano_t leaked(nano_t level, uint64_t rate, uint64_t ns)
{
    nano_t out = (nano_t)rate * ns;

    return out < level ? level - out : 0;
}

static void leak(struct throttle_limits *l, uint64_t now)
{
    uint64_t ns = now - l->since;

    for (size_t i = 0; i < THROTTLE_KINDS; i++) {
        struct throttle_bucket *b = &l->buckets[i];

        b->level = leaked(b->level, b->average, ns);
        b->burst_level = leaked(b->burst_level, b->max, ns);
    }
    l->since = now;
}

/* Until what is above the room has leaked; rounded up, so that it really has. */
static uint64_t until(nano_t level, nano_t room, uint64_t rate)
{
    nano_t ns = level > room ? (level - room + rate - 1) / rate : 0;

    return ns > INT64_MAX ? INT64_MAX : ns;
}

static uint64_t bucket_wait(const struct throttle_bucket *b)
{
    uint64_t wait;

    if (!b->average) {
        return 0;
    }
    if (!b->max) {
        return until(b->level, (nano_t)b->average * NANO_TENTH, b->average);
    }
    wait = until(b->level, (nano_t)b->max * b->length * NANO, b->average);
    if (!wait && b->length > 1) {
        wait = until(b->burst_level, (nano_t)b->max * NANO_TENTH, b->max);
    }
    return wait;
}

/* The buckets that concern a request: the totals, and those of its kind. */
static size_t concerned(bool write, enum throttle_kind kinds[4])
{
    kinds[0] = THROTTLE_BPS_TOTAL;
    kinds[1] = write ? THROTTLE_BPS_WRITE : THROTTLE_BPS_READ;
    kinds[2] = THROTTLE_IOPS_TOTAL;
    kinds[3] = write ? THROTTLE_IOPS_WRITE : THROTTLE_IOPS_READ;
    return 4;
}

uint64_t throttle_limits_wait(struct throttle_limits *l, bool write, uint64_t now)
{
    enum throttle_kind kinds[4];
    size_t n = concerned(write, kinds);
    uint64_t most = 0;

    leak(l, now);
    for (size_t i = 0; i < n; i++) {
        most = MAX(most, bucket_wait(&l->buckets[kinds[i]]));
    }
    return most;
}

void throttle_limits_account(struct throttle_limits *l, bool write, uint64_t bytes)
{
    enum throttle_kind kinds[4];
    size_t n = concerned(write, kinds);
    nano_t ops = NANO;

    if (l->iops_size && bytes > l->iops_size) {
        ops = (nano_t)bytes * NANO / l->iops_size;
    }
    for (size_t i = 0; i < n; i++) {
        struct throttle_bucket *b = &l->buckets[kinds[i]];
        nano_t units = kinds[i] >= THROTTLE_IOPS_TOTAL ? ops : (nano_t)bytes * NANO;

        b->level += units;
        if (b->length > 1) {
            b->burst_level += units;
        }
    }
}
