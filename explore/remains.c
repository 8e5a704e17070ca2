/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rule 20: a run gives back what it takes.  Coroutines, handles of files, nodes, disks and jobs are counted after each
 * run, the restarted ones too.  After a finding, what would be in the way of the next run is ended here; when that does
 * not help, no more plans are run.  Memory is where that was asked for, by running a plan thrice more, and only when
 * malloc is exact: GLIBC_TUNABLES=glibc.malloc.tcache_count=0.
 */
#include <malloc.h>
#include <stdlib.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/states.h"
#include "jobs/job.h"

#define TIDY_POLL_NS NS_PER_MS
#define TIDY_WITHIN_NS NS_PER_S

/* By force, as the program does at its end. */
static void co_end_jobs(void)
{
    uint64_t deadline = loop_now() + TIDY_WITHIN_NS;

    while (!TAILQ_EMPTY(&all_jobs) && loop_now() < deadline) {
        for (struct job *job = TAILQ_FIRST(&all_jobs), *next; job; job = next) {
            next = TAILQ_NEXT(job, link);
            if (job->status == JOB_CONCLUDED) {
                job_dismiss(job, NULL);
            } else {
                job_cancel(job, true, NULL);
            }
        }
        co_sleep_ns(TIDY_POLL_NS);
    }
}

void co_leave(struct world *w)
{
    if (w->broken_rule) {
        co_end_jobs();
    }
    co_world_close(w);
}

void co_judge_remains(struct explore *x, struct world *w, size_t coroutines)
{
    if (co_count() != coroutines) {
        world_break(w, 20, "%zu coroutines are left over", co_count() - coroutines);
    }
    if (io_sim_handles()) {
        world_break(w, 20, "%zu handles are left open", io_sim_handles());
    }
    if (!TAILQ_EMPTY(&all_nodes) || !TAILQ_EMPTY(&all_jobs) || !TAILQ_EMPTY(&all_disks)) {
        world_break(w, 20, "a node, a disk or a job is left over");
    }
    x->spoiled = co_count() != coroutines || io_sim_handles() || !TAILQ_EMPTY(&all_nodes) ||
                 !TAILQ_EMPTY(&all_jobs) || !TAILQ_EMPTY(&all_disks);
}

/* The bytes of memory in use after the same run again. */
static size_t co_run_again(struct explore *x, const struct plan *plan)
{
    struct world w;
    uint64_t hash = 0;
    struct run run = { .w = &w, .plan = plan, .keep = 1, .hash = &hash };

    loop_random_seed(x->options.seed);
    random_seed(&run.rnd, x->options.seed);
    co_world_make(&w, plan->shape, plan->format, plan_needs_second(plan), x->options.seed);
    w.small = plan->small;
    co_run_plan(x, plan, &run);
    run_fini(&run);
    world_free(&w);
    io_sim_reset();
    return mallinfo2().uordblks;
}

/* More after the third run than after the second is lost (20). */
static void co_measure_memory(struct explore *x, const struct plan *plan, struct world *w)
{
    struct io_sim_snapshot *now = io_sim_snapshot();
    size_t before, after;

    (void)co_run_again(x, plan); /* what is kept for later is kept now */
    before = co_run_again(x, plan);
    after = co_run_again(x, plan);
    io_sim_restore(now);
    io_sim_snapshot_free(now);
    if (after > before) {
        world_break(w, 20, "%zu bytes are left over", after - before);
    }
}

/* malloc keeps small pieces for later and counts them as used, unless it is told not to. */
static bool memory_is_exact(void)
{
    size_t before = mallinfo2().uordblks, after;
    void *piece = mem_alloc(24);

    after = mallinfo2().uordblks;
    free(piece);
    return after > before && mallinfo2().uordblks == before;
}

void co_judge_memory(struct explore *x, const struct plan *plan, struct world *w)
{
    unsigned every = x->options.memory_every;

    if (every && x->stats.plans % every == 0 && !w->broken_rule && memory_is_exact()) {
        x->stats.measured++;
        co_measure_memory(x, plan, w);
    }
}
