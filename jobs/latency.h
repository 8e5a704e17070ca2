/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A job that backs off when the guest becomes slow: from what the guest's requests took to the pace that the job may have.
 *
 *           no request of a guest for 300 ms
 *     any ------------------------------------> free      (no limit at all)
 *     free --- a request ends ----> the pace that was good before, or the start pace
 *
 *     climbing    each calm look: pace * 2            until the first violation names a ceiling
 *     violation   ceiling = pace; pace / 2            (more than 0.5 % of the requests took longer than the target)
 *     recovering  each calm look: pace * 5/4          up to 7/8 of the ceiling
 *     probing     each calm second: + ceiling / 64    beyond 7/8; past the ceiling: ceiling * 5/4
 *
 * It looks 10 times a second and wants evidence: a violation is two slow requests at least, calm is 20 requests or half a
 * second. After a violation 100 ms are passed over: their requests met what had been begun at the old pace. Probing is slow
 * on purpose, and half of the 1 % that may be slow is left for it: so the p99 keeps the target while the pace is sought.
 *
 * The pace never falls below a floor: what keeps the medium busy with the job's requests for 1 % of the time, measured
 * by how long they take. Less than that cannot be what moves the p99, so a target that others spoil (or that cannot be
 * met at all) costs the guest nothing more, and the job ends.
 *
 * Knows nothing of jobs and disks: numbers in, numbers out. No function suspends.
 */
#ifndef JOBS_LATENCY_H
#define JOBS_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#define LATENCY_PERIOD_NS 100000000ull      /* between two decisions */
#define LATENCY_PACE_FREE UINT64_MAX
#define LATENCY_PACE_FLOOR (1ull << 20)     /* bytes per second: the lowest floor */
#define LATENCY_PACE_START (64ull << 20)

struct latency_control {
    uint64_t target_ns;  /* 0: no target, pace free */
    uint64_t pace;       /* bytes per second that the job may move now */
    uint64_t next_ns;    /* the next decision */
    uint64_t since_ns;   /* evidence counts from here */
    /* private */
    uint64_t good;       /* the pace to return to when the guest is back; 0: none known */
    uint64_t served;     /* bytes per second that the medium moves while it serves the job, smoothed; 0: not known */
    uint64_t ceiling;    /* the pace of the last violation; 0: none known */
    uint64_t raised_ns;  /* when the pace was raised last */
    unsigned quiet;      /* decisions in a row without a request */
};

/* Begin to hold a target (0: none) at `now_ns`. */
void latency_control_init(struct latency_control *c, uint64_t target_ns, uint64_t now_ns);
/* A request of the job's moved so many bytes in so much time. */
void latency_control_served(struct latency_control *c, uint64_t bytes, uint64_t ns);
/* A decision is due: since c->since_ns `all` requests of guests have ended, `above` of them too slow; `busy`: one has since the
 * last decision. */
void latency_control_decide(struct latency_control *c, uint64_t now_ns, uint64_t all, uint64_t above, bool busy);

#endif
