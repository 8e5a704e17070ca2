/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pace of a job under a latency target (the law is in latency.h).
 */
#include "jobs/latency.h"

#include "core/loop.h"
#include "core/mem.h"

#define QUIET_PERIODS 3
#define CALM_REQUESTS 20
#define CALM_NS (500 * NS_PER_MS)
#define PROBE_NS NS_PER_S
#define FLOOR_PART 100 /* of the time that the medium may always be busy for the job */
#define PACE_MAX (64ull << 30) /* nothing is as fast: beyond it there is no limit to speak of */

void latency_control_init(struct latency_control *c, uint64_t target_ns, uint64_t now_ns)
{
    /* Nothing is known of the guest yet: as if it were idle. */
    *c = (struct latency_control){ .target_ns = target_ns, .pace = LATENCY_PACE_FREE, .next_ns = now_ns,
                                   .since_ns = now_ns, .raised_ns = now_ns };
}

void latency_control_served(struct latency_control *c, uint64_t bytes, uint64_t ns)
{
    uint64_t rate = (unsigned __int128)bytes * NS_PER_S / MAX(ns, 1u);

    c->served = c->served ? c->served - c->served / 8 + rate / 8 : rate;
}

static void set_pace(struct latency_control *c, uint64_t now_ns, uint64_t pace, uint64_t evidence_from)
{
    c->pace = MIN(MAX(pace, MAX(LATENCY_PACE_FLOOR, c->served / FLOOR_PART)), PACE_MAX);
    c->since_ns = evidence_from;
    c->raised_ns = now_ns;
}

static void back_off(struct latency_control *c, uint64_t now_ns)
{
    c->ceiling = c->pace;
    set_pace(c, now_ns, c->pace / 2, now_ns + LATENCY_PERIOD_NS);
}

static void raise(struct latency_control *c, uint64_t now_ns)
{
    uint64_t near = c->ceiling - c->ceiling / 8;

    if (!c->ceiling) {
        set_pace(c, now_ns, c->pace * 2, now_ns);
    } else if (c->pace < near) {
        set_pace(c, now_ns, MIN(c->pace + c->pace / 4, near), now_ns);
    } else if (now_ns - c->raised_ns >= PROBE_NS) {
        set_pace(c, now_ns, c->pace + c->ceiling / 64, now_ns);
        if (c->pace > c->ceiling) {
            c->ceiling += c->ceiling / 4; /* it can take more than it could */
        }
    }
}

/* True while the guest is idle. */
static bool is_free(struct latency_control *c, uint64_t now_ns, bool busy)
{
    c->quiet = busy ? 0 : c->quiet + 1;
    if (c->pace == LATENCY_PACE_FREE) {
        if (busy) {
            set_pace(c, now_ns, c->good ? c->good : LATENCY_PACE_START, now_ns + LATENCY_PERIOD_NS);
        }
        return true;
    }
    if (c->quiet >= QUIET_PERIODS) {
        c->good = c->pace;
        c->pace = LATENCY_PACE_FREE;
        return true;
    }
    return false;
}

void latency_control_decide(struct latency_control *c, uint64_t now_ns, uint64_t all, uint64_t above, bool busy)
{
    c->next_ns = now_ns + LATENCY_PERIOD_NS;
    if (!c->target_ns || is_free(c, now_ns, busy)) {
        return;
    }
    if (above >= 2 && above * 200 > all) {
        back_off(c, now_ns);
    } else if (now_ns > c->since_ns && all > 0 && above * 400 <= all &&
               (all >= CALM_REQUESTS || now_ns - c->since_ns >= CALM_NS)) {
        raise(c, now_ns);
    }
}
