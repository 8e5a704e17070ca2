/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Visiting the states of a plan: see explore.h.
 */
#include "explore/explore.h"

#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/co.h"
#include "core/mem.h"
#include "explore/faults.h"
#include "explore/states.h"

#define SCATTER 0x9e3779b97f4a7c15u
#define SIM_LINE "merganser --sim seed=%llu" /* to be pasted: plans and sets are quoted */
#define SECOND_POINTS 3u
#define SECOND_RANDOM 2u

char explore_where[2048];

/* Everything about visiting one run's states. */
struct visit {
    struct explore *x;
    struct run *run;
    const struct point *p;
    size_t point;
    struct seen *tried, *judged; /* sets of operations; states with expectations */
    uint64_t durable, shown;     /* at this point: hashes of what no cut can take; of what readers see */
    bool found; /* something bad, at this run */
    uint8_t *content;
};

struct explore *explore_new(const struct explore_options *options)
{
    struct explore *x = mem_zalloc(sizeof(*x));

    x->options = *options;
    x->only_point = x->only_again = SIZE_MAX;
    x->judge = judge_new();
    return x;
}

void explore_free(struct explore *x)
{
    seen_free(&x->bytes);
    seen_free(&x->asked);
    seen_free(&x->good);
    free(x->results.slot);
    judge_free(x->judge);
    free(x->content);
    free(x->shown);
    free(x->again_content);
    free(x);
}

const struct explore_stats *explore_stats(const struct explore *x)
{
    return &x->stats;
}

static void make_room(struct explore *x, const struct world *w)
{
    size_t bytes = (size_t)w->model.n * MODEL_SECTOR;

    x->content = mem_realloc(x->content, bytes);
    x->shown = mem_realloc(x->shown, bytes);
    x->again_content = mem_realloc(x->again_content, bytes);
}

/* --- Findings --------------------------------------------------------------------------------- */

static char *where(const struct visit *v, const struct cut *cut)
{
    AUTOFREE char *keep = cut_print(cut);
    AUTOFREE char *plan = plan_print(v->run->plan);
    AUTOFREE char *start =
        mem_printf(SIM_LINE " points=%u 'plan=%s'", (unsigned long long)v->x->options.seed,
                   v->x->options.points_max, plan);

    if (v->run->before) {
        return mem_printf("%s %s then=%zu 'again=%s'", start, v->run->crash, v->point, keep);
    }
    return mem_printf("%s cut=%zu 'keep=%s'", start, v->point, keep);
}

static void report(struct visit *v, const struct cut *cut, const struct finding *finding)
{
    FILE *out = v->x->options.out;

    v->x->stats.bad++;
    if (!v->x->told && out && !v->x->options.quiet) {
        AUTOFREE char *line = where(v, cut);

        fprintf(out, "rule %u: %s\n  %s\n", finding->rule, finding->text, line);
        for (size_t i = 0; i < cut->n; i++) {
            const struct io_sim_pending *op = &cut->pending[i];

            if (cut->fates[i] != '1' || v->x->replay) {
                fprintf(out, "    %c %s %s %s %llu+%llu\n", cut->fates[i],
                        op->in_flight ? "in flight" : "cached", io_sim_op_name(op->op), op->path,
                        (unsigned long long)op->offset, (unsigned long long)op->len);
            }
        }
        fflush(out);
        v->x->told = true;
    }
    v->found = true;
}

/* --- States ----------------------------------------------------------------------------------- */

/* Which operations take effect on what, in their order: equal numbers, equal states, in whatever run. */
static uint64_t set_key(const struct visit *v, const struct cut *cut)
{
    uint64_t key = cut->kill ? ~v->shown : v->durable;

    for (size_t i = 0; i < cut->n; i++) {
        if (cut->fates[i] != '0' && (!cut->kill || cut->pending[i].in_flight)) {
            key = (key ^ (cut->pending[i].hash * 256 + cut->fates[i])) * SCATTER;
            key ^= key >> 32;
        }
    }
    return key;
}

static void enter(const struct visit *v, const struct cut *cut)
{
    io_sim_restore(v->p->disk);
    io_sim_cut_exact(cut->kill, cut->fates);
}

static struct finding judge_now(struct visit *v, const struct cut *cut)
{
    struct finding finding;
    uint64_t leaks;

    judge_world(v->x->judge, v->run->w, v->p, v->content, &leaks, &finding);
    v->x->stats.leaks_max = MAX(v->x->stats.leaks_max, leaks);
    if (!finding.rule && v->p->closed && leaks && !v->run->before && !v->run->w->faulty &&
        !strpbrk(cut->fates, "0dstT")) {
        finding.rule = 2;
        snprintf(finding.text, sizeof(finding.text), "%llu clusters leaked by an orderly end",
                 (unsigned long long)leaks);
    }
    return finding;
}

/* The same finding with fewer operations lost, or where that does not work, as it is. */
static void shrink(struct visit *v, const struct cut *cut, struct finding *finding)
{
    for (size_t i = 0; i < cut->n; i++) {
        char fate = cut->fates[i];
        struct finding other;

        if (fate == '1' || (cut->kill && !cut->pending[i].in_flight)) {
            continue;
        }
        cut->fates[i] = '1';
        enter(v, cut);
        other = judge_now(v, cut);
        if (other.rule) {
            *finding = other;
        } else {
            cut->fates[i] = fate;
        }
    }
}

/* --- Going on --------------------------------------------------------------------------------- */

static bool co_visit_points(struct explore *x, struct run *run);

/* What is known of a world that has just crashed. */
static struct world reborn(const struct visit *v, bool durable)
{
    struct world w = *v->run->w;

    w.model = model_copy(&v->run->w->model);
    if (w.lying) {
        for (uint32_t i = 0; i < w.model.n; i++) {
            w.model.sector[i].lied = true;
        }
    }
    model_adopt(&w.model, v->p->bounds, v->content, durable);
    w.view = v->p->view;
    w.disk = w.disk2 = NULL;
    w.group = w.group2 = NO_IMAGE;
    w.over = false;
    w.faulty = w.lying; /* a new disk has been put in */
    w.running = w.reshapers = w.alone = w.active = 0;
    memset(w.claims, 0, sizeof(w.claims));
    for (int i = 0; i < WORLD_IMAGES; i++) {
        struct world_known *known = &w.view.image[i];

        if (!known->sure && !world_is_top(&w.view, i)) {
            *known = (struct world_known){ .backing = WORLD_BIT(NO_IMAGE) };
            world_sized(known, w.model.disk_size);
            w.leaked[i] = 0;
            continue;
        }
        if (w.lying) {
            continue;
        }
        w.leaked[i] = judge_leaks(v->x->judge, &w, i) + (durable ? 0 : known->loose);
            known->sure = true;
        if (durable) { /* else the other pointer, size or list may come back */
            known->backing = WORLD_BIT(judge_backing(v->x->judge, &w, i));
            world_sized(known, judge_size(v->x->judge, &w, i));
            for (unsigned k = 0; k < WORLD_INNER; k++) {
                known->inner[k].may_be = known->inner[k].must_be =
                    judge_inner(v->x->judge, &w, i, k);
            }
        }
    }
    w.name_mid = !w.lying && w.view.top == 3 && judge_backing(v->x->judge, &w, 3) != NO_IMAGE;
    return w;
}

/* Read everything through the driver. */
static void co_read_all(struct explore *x, struct world *w)
{
    uint8_t *to = x->shown;

    for (unsigned i = 0; i < MODEL_WINDOWS && !w->broken_rule; i++) {
        const struct model_window *window = &w->model.window[i];
        struct disk *disk = i == MODEL_SECOND ? w->disk2 : w->disk;
        uint64_t at = window->at - (i == MODEL_SECOND ? MODEL_SECOND_AT : 0);
        uint64_t size = disk ? disk_size(disk) : 0;
        uint64_t len = size > at ? MIN(window->len, size - at) : 0;
        struct iovec iov = { .iov_base = to, .iov_len = len };
        int ret = len ? co_disk_read(disk, at, &iov, 1) : 0;

        if (ret < 0 && !w->lying) {
            world_break(w, 1, "reading the disk: %s", strerror(-ret));
        }
        memset(to + len, 0, window->len - len);
        to += window->len;
    }
}

/* It must show what the checker saw. */
static void co_compare(struct visit *v, struct world *w)
{
    co_read_all(v->x, w);
    if (!w->broken_rule && !w->lying &&
        memcmp(v->x->shown, v->content, (size_t)w->model.n * MODEL_SECTOR) != 0) {
        world_break(w, 4, "the driver shows something else than the checker");
    }
}

/* When all is over, readers see what was written last. */
static void co_look_back(struct explore *x, struct world *w)
{
    struct model_bounds *bounds = model_shown(&w->model);
    uint32_t bad;

    co_read_all(x, w);
    bad = w->broken_rule || w->lying ? UINT32_MAX : model_judge(&w->model, bounds, x->shown);
    if (bad != UINT32_MAX) {
        AUTOFREE char *words = model_explain(&w->model, bounds, bad, x->shown);

        world_break(w, 4, "at the end of the run %s", words);
    }
    free(bounds);
}

/* Images that are marked corrupt now, WORLD_BIT()s. */
static unsigned marked_images(void)
{
    unsigned marked = 0;

    for (int slot = 0; slot < WORLD_IMAGES; slot++) {
        marked |= world_is_marked(slot, false) ? WORLD_BIT(slot) : 0;
    }
    return marked;
}

/* They must not be opened for writing (9). */
static void judge_refusal(struct world *w, unsigned marked)
{
    const struct node *node;

    TAILQ_FOREACH(node, &all_nodes, link) {
        if (node->driver == &driver_qcow2 && !node->read_only &&
            WORLD_BIT(world_slot(node->filename)) & marked) {
            world_break(w, 9, "%s is marked corrupt and has been opened for writing",
                        node->filename);
        }
    }
}

/* The machine starts again, the work that was going on is done again, and dies again. */
static bool co_go_on(struct visit *v, const struct cut *cut, uint64_t key)
{
    struct world w = reborn(v, !cut->kill);
    AUTOFREE char *keep = cut_print(cut);
    AUTOFREE char *crash = mem_printf("cut=%zu 'keep=%s'", v->point, keep);
    struct run run = {
        .w = &w, .plan = v->run->plan, .keep = SECOND_POINTS, .hash = &v->x->stats.hash,
        .before = v->run, .crash = crash
    };
    size_t coroutines = co_count();
    unsigned marked = w.lying ? marked_images() : 0;
    bool good;

    v->x->stats.gone_on++;
    loop_random_seed(key);
    random_seed(&run.rnd, key);
    run_start(&run);
    if (co_world_open(&w)) {
        struct faults *operator = w.lying ? faults_attend(&w) : NULL;

        judge_refusal(&w, marked);
        co_compare(v, &w);
        if (!w.broken_rule) {
            co_plan_run(&w, v->run->plan, v->p->step);
        }
        if (operator) {
            co_faults_end(operator);
        }
        co_leave(&w);
    } else if (w.lying && w.broken[0]) {
        w.broken_rule = 0; /* refused, in words */
    }
    co_judge_remains(v->x, &w, coroutines);
    run_stop(&run);
    good = !w.broken_rule;
    if (!good) {
        struct finding finding = { .rule = w.broken_rule };

        snprintf(finding.text, sizeof(finding.text), "after the crash: %s", w.broken);
        report(v, cut, &finding);
    } else {
        good = co_visit_points(v->x, &run);
    }
    v->found = v->found || !good;
    run_fini(&run);
    world_free(&w);
    return good;
}

/* --- Visits ----------------------------------------------------------------------------------- */

static bool co_second_opinion(struct visit *v, const struct cut *cut)
{
    const struct explore_options *o = &v->x->options;
    const struct world *w = v->run->w;
    int top = v->p->view.top;
    const char *paths[WORLD_IMAGES];
    AUTOFREE char *line = where(v, cut);
    struct explore_state state = { .paths = paths,
                                   .raw_top = top == 0 && w->shape->raw_base,
                                   .size = judge_size(v->x->judge, w, top),
                                   .window = w->model.window,
                                   .line = line };
    struct finding finding = { .rule = 2 };
    const uint8_t *content = v->content;
    char *words;

    for (int slot = top; slot != NO_IMAGE && state.n < WORLD_IMAGES;
         slot = judge_backing(v->x->judge, w, slot)) {
        paths[state.n++] = world_path(slot);
    }
    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        state.content[i] = content;
        content += w->model.window[i].len;
    }
    v->x->stats.second_opinions++;
    words = o->judge(o->judge_arg, &state);
    if (words) {
        snprintf(finding.text, sizeof(finding.text), "%s", words);
        free(words);
        report(v, cut, &finding);
        return false;
    }
    return true;
}

/* What a verdict depends on besides the bytes and what is expected of them. */
static uint64_t world_key(const struct world *w)
{
    uint64_t key = (w->shape - shapes) * 64 + (w->format - formats) + 1;

    for (int i = 0; i < WORLD_IMAGES; i++) {
        key = (key ^ w->leaked[i]) * SCATTER;
        key ^= key >> 30;
    }
    return key + w->faulty + w->lying * 2;
}

static bool co_judge_state(struct visit *v, const struct cut *cut)
{
    struct finding finding = judge_now(v, cut);

    if (finding.rule) {
        if (!v->found && !v->x->replay) {
            shrink(v, cut, &finding);
        }
        report(v, cut, &finding);
    }
    return !finding.rule;
}

/* Of these bytes, once: others know nothing of what is expected.  Nor do they know that internal snapshots of version 2 are being
 * changed; and a disk that has lied has promised nothing. */
static bool wants_second_opinion(const struct visit *v, uint64_t bytes)
{
    const struct explore_options *o = &v->x->options;

    for (int i = 0; i < WORLD_IMAGES; i++) {
        if (v->run->w->lying || v->p->view.image[i].in_change) {
            return false;
        }
    }
    return o->judge && o->judge_every && bytes % o->judge_every == 0 &&
           (v->x->replay || seen_add(&v->x->asked, bytes + v->p->view.top));
}

/* What a failed sync has dropped a killed process still shows: nobody could know. */
static bool wants_to_go_on(const struct visit *v, const struct cut *cut, uint64_t key)
{
    const struct explore_options *o = &v->x->options;

    return !v->run->before && !(cut->kill && v->run->w->dropping && !v->run->w->lying) &&
           (v->x->replay || (o->go_on_every && (key >> 20) % o->go_on_every == 0));
}

/* One set of operations.  False ends the visit of this point. */
static bool co_visit_cut(void *arg, const struct cut *cut)
{
    struct visit *v = arg;
    struct explore *x = v->x;
    uint64_t set = set_key(v, cut), key, whole, *result;
    bool opinion, go_on, known;

    x->stats.visited++;
    if (!x->replay && !seen_add(v->tried, set + v->p->key * 3)) {
        return true;
    }
    result = result_of(&x->results, set);
    known = *result;
    if (!known) {
        enter(v, cut);
        *result = io_sim_hash_all();
        x->stats.distinct += seen_add(&x->bytes, *result);
    }
    key = *result;
    roll(&x->stats.hash, (uint64_t[]){ v->point, key }, 2);
    key ^= v->p->key + cut->kill * SCATTER;
    if (!x->replay && !seen_add(v->judged, key)) {
        return true;
    }
    *(v->run->before ? &x->stats.second : &x->stats.judged) += 1;
    opinion = wants_second_opinion(v, *result);
    go_on = wants_to_go_on(v, cut, key);
    whole = key ^ world_key(v->run->w);
    if (!opinion && !go_on && !v->p->closed && seen_has(&x->good, whole)) {
        x->stats.known++;
        return true;
    }
    if (known) {
        enter(v, cut);
    }
    if (!co_judge_state(v, cut)) {
        return true;
    }
    seen_add(&x->good, whole);
    if (opinion && !co_second_opinion(v, cut)) {
        return true;
    }
    if (go_on) {
        AUTOFREE char *line = where(v, cut);

        snprintf(explore_where, sizeof(explore_where), "%s", line);
        co_go_on(v, cut, key);
    }
    return !x->spoiled;
}

/* A replay tries one set. */
static bool co_replay_point(struct visit *v, const struct io_sim_pending *pending, size_t n)
{
    const char *keep = v->run->before ? v->x->only_again_keep : v->x->only_keep;
    AUTOFREE char *fates = mem_zalloc(n + 1);
    struct cut cut = { .fates = fates, .pending = pending, .n = n };

    if (!cut_parse(keep, n, &cut.kill, fates)) {
        fprintf(v->x->options.out, "the set '%s' does not fit: %zu operations are pending\n", keep,
                n);
        v->found = true;
        return false;
    }
    return co_visit_cut(v, &cut);
}

static bool co_visit_points(struct explore *x, struct run *run)
{
    struct seen tried = { 0 }, judged = { 0 };
    struct explore_options options = x->options;
    size_t only = run->before ? x->only_again : x->only_point;
    struct visit v = { .x = x,
                       .run = run,
                       .tried = &tried,
                       .judged = &judged,
                       .content = run->before ? x->again_content : x->content };

    if (run->before) {
        options.singles_max = 2;
        options.pairs_of = 0;
        options.random_sets = SECOND_RANDOM;
    }
    for (size_t i = 0; i < run->n_points && !x->spoiled; i++) {
        AUTOFREE struct io_sim_pending *pending = NULL;
        size_t n;

        v.p = &run->points[i];
        v.point = i;
        if (x->replay ? i != only : v.p->step < run->first_step) {
            continue;
        }
        x->stats.points += !run->before;
        n = io_sim_look_at(v.p->disk, &pending, &v.durable, &v.shown);
        if (x->replay) {
            co_replay_point(&v, pending, n);
        } else {
            co_each_cut(&options, x->options.seed + i, pending, n, co_visit_cut, &v);
        }
    }
    seen_free(&tried);
    seen_free(&judged);
    return !v.found;
}

static void say_broken(struct explore *x, const struct plan *plan, const struct world *w)
{
    AUTOFREE char *text = plan_print(plan);

    x->stats.bad++;
    if (x->options.out) {
        fprintf(x->options.out, "rule %u: %s\n  " SIM_LINE " 'plan=%s'\n", w->broken_rule,
                w->broken, (unsigned long long)x->options.seed, text);
    }
}

void co_run_plan(struct explore *x, const struct plan *plan, struct run *run)
{
    struct world *w = run->w;
    struct faults *faults = NULL;

    run_start(run);
    if (!w->broken_rule && co_world_open(w)) {
        run_record(run);
        if (plan->faults) {
            faults = faults_begin(w, plan->faults, plan->lies);
        }
        co_plan_run(w, plan, 0);
        if (faults) {
            co_faults_end(faults);
        }
        if (w->disk) {
            co_look_back(x, w);
        }
        co_leave(w);
    }
    run_stop(run);
}

bool co_explore_plan(struct explore *x, const struct plan *plan)
{
    struct world w;
    struct run run = {
        .w = &w, .plan = plan, .keep = x->options.points_max, .hash = &x->stats.hash
    };
    AUTOFREE char *text = plan_print(plan);
    size_t coroutines = co_count();
    bool good = false;

    snprintf(explore_where, sizeof(explore_where), SIM_LINE " 'plan=%s'",
             (unsigned long long)x->options.seed, text);
    loop_random_seed(x->options.seed);
    random_seed(&run.rnd, x->options.seed);
    x->stats.plans++;
    x->told = false;
    co_world_make(&w, plan->shape, plan->format, plan_needs_second(plan), x->options.seed);
    w.small = plan->small;
    make_room(x, &w);
    judge_learn(x->judge, &w);
    co_run_plan(x, plan, &run);
    co_judge_remains(x, &w, coroutines);
    co_judge_memory(x, plan, &w);
    if (x->options.prefixes_known) {
        run.first_step = plan_last_group(plan);
    }
    if (w.broken_rule) {
        say_broken(x, plan, &w);
    } else {
        good = co_visit_points(x, &run);
    }
    run_fini(&run);
    world_free(&w);
    return good;
}
