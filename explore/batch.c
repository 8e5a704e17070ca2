/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which plans are run, and what is said of them: see batch.h.
 */
#include "explore/batch.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "block/file.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "explore/states.h"

#define SWARM_STRIDE 1000003u /* swarms of different seeds do not overlap */
#define SHRUNK_MAX 5u         /* findings for which fewer operations are looked for */

const struct explore_options batch_usual = {
    .seed = 1,
    .random_sets = 4,
    .singles_max = 24,
    .pairs_of = 4,
    .go_on_every = 16,
    .judge_every = 1000,
};

/* --- Surroundings ----------------------------------------------------------------------------- */

/* Last words.  stderr has no buffer and nobody else holds it: good enough for somebody who dies. */
static void on_signal(int sig)
{
    fprintf(stderr, "\nended by a signal in %s\n", explore_where);
    signal(sig, SIG_DFL);
    raise(sig);
}

void batch_in_simulation(void (*co_fn)(void *arg), void *arg)
{
    static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2,
                                                    NULL };

    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    io_sim_init();
    io_engine_set_default(io_engine_find("sim"));
    node_set_drivers(drivers);
    loop_run_co(co_fn, arg);
    io_sim_fini();
    io_fini();
    loop_fini();
    co_pool_drain();
}

/* --- Counts ----------------------------------------------------------------------------------- */

static double seconds_now(void)
{
    struct rusage used; /* of the processor: batches run on machines that do other work, too */

    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static bool goes_on(const struct batch *b)
{
    return !b->x->spoiled && (b->seconds == 0 || seconds_now() - b->began < b->seconds);
}

static void tell(const struct batch *b, const char *what)
{
    const struct explore_stats *s = explore_stats(b->x);
    double took = seconds_now() - b->began;
    double rate = took > 0 ? 1 / took : 0;

    if (!b->out) {
        return;
    }
    fprintf(b->out,
            "%s: %llu plans (of %llu sequences %llu without meaning), %llu moments, %llu sets "
            "tried, %llu distinct states, %llu judged, %llu restarted, %llu judged after a second "
            "crash, %llu known from other plans, %llu second opinions, at most %llu leaked "
            "clusters, %.0f s, %.0f distinct and "
            "%.0f judged a second, %llu bad\n",
            what, (unsigned long long)s->plans, (unsigned long long)b->numbered,
            (unsigned long long)b->skipped, (unsigned long long)s->points,
            (unsigned long long)s->visited, (unsigned long long)s->distinct,
            (unsigned long long)s->judged, (unsigned long long)s->gone_on,
            (unsigned long long)s->second, (unsigned long long)s->known,
            (unsigned long long)s->second_opinions,
            (unsigned long long)s->leaks_max, took, s->distinct * rate,
            (s->judged + s->second) * rate, (unsigned long long)s->bad);
    fflush(b->out);
}

/* --- Plans ------------------------------------------------------------------------------------ */

static void co_explore(struct batch *b, const struct plan *plan)
{
    if (co_explore_plan(b->x, plan)) {
        return;
    }
    if (b->x->spoiled && b->out) {
        fprintf(b->out, "what is left of that would spoil other plans: none is run any more\n");
    }
    if (!b->x->spoiled && b->shrunk < SHRUNK_MAX) {
        b->shrunk++;
        co_explore_shrink(b->x, plan);
    }
}

static void co_sequences(struct batch *b, const struct shape *shape, const struct format *format,
                         unsigned len)
{
    uint64_t count = plan_count(len);

    for (uint64_t i = 0; i < count && goes_on(b); i++) {
        struct plan plan;

        plan_number(shape, format, len, i, &plan);
        if (!plan_makes_sense(&plan)) {
            b->skipped++;
        } else if (b->numbered++ % b->every == 0 && b->numbered > b->from) {
            b->x->options.prefixes_known = b->every == 1 && !b->from;
            co_explore(b, &plan);
            b->x->options.prefixes_known = false;
        }
    }
}

static void co_all_sequences(struct batch *b, unsigned len)
{
    for (unsigned s = 0; s < n_shapes; s++) {
        if ((b->chains && !(b->chains & 1u << s)) || (len > 2 && !shapes[s].smallest)) {
            continue;
        }
        for (unsigned f = 0; f < n_formats; f++) {
            if (!formats[f].rare) {
                co_sequences(b, &shapes[s], &formats[f], len);
            }
        }
        if (b->tell && goes_on(b)) {
            tell(b, shapes[s].name);
        }
    }
}

static CO_ENTRY void co_batch(void *arg)
{
    struct batch *b = arg;

    for (size_t i = 0; i < b->n_plans && goes_on(b); i++) {
        co_explore(b, &b->plans[i]);
    }
    for (unsigned len = 1; len <= b->max_len; len++) {
        co_all_sequences(b, len);
    }
    for (uint64_t i = 0; i < b->swarm && goes_on(b); i++) {
        struct plan plan;

        plan_draw(b->options.seed * SWARM_STRIDE + i, &plan);
        co_explore(b, &plan);
    }
}

void batch_run(struct batch *b)
{
    b->x = explore_new(&b->options);
    b->began = seconds_now();
    b->every += !b->every;
    batch_in_simulation(co_batch, b);
    tell(b, "all");
    b->stats = *explore_stats(b->x);
    explore_free(b->x);
}
