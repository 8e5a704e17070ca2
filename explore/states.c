/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Points of a run, and sets of pending operations: see states.h.
 */
#include "explore/states.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/mem.h"

#define SCATTER 0x9e3779b97f4a7c15u
#define RUN_ENDS_WITHIN_NS (300 * NS_PER_S) /* of the virtual clock */
#define RESULTS_ROOM (1u << 24)
#define WORTHLESS (IO_SIM_READ | IO_SIM_MAP | IO_SIM_LOAD) /* change nothing */

/* --- Numbers ---------------------------------------------------------------------------------- */

static size_t slot_for(const struct seen *seen, uint64_t key)
{
    size_t i = (key * SCATTER >> 20) & (seen->room - 1);

    while (seen->slot[i] && seen->slot[i] != key) {
        i = (i + 1) & (seen->room - 1);
    }
    return i;
}

bool seen_add(struct seen *seen, uint64_t key)
{
    size_t i;

    key += !key;
    if (seen->n * 2 >= seen->room) {
        struct seen old = *seen;

        seen->room = old.room ? old.room * 2 : 1024;
        seen->slot = mem_calloc(seen->room, sizeof(*seen->slot));
        for (i = 0; i < old.room; i++) {
            if (old.slot[i]) {
                seen->slot[slot_for(seen, old.slot[i])] = old.slot[i];
            }
        }
        free(old.slot);
    }
    i = slot_for(seen, key);
    if (seen->slot[i]) {
        return false;
    }
    seen->slot[i] = key;
    seen->n++;
    return true;
}

bool seen_has(const struct seen *seen, uint64_t key)
{
    return seen->room && seen->slot[slot_for(seen, key + !key)];
}

void seen_free(struct seen *seen)
{
    free(seen->slot);
    *seen = (struct seen){ 0 };
}

uint64_t *result_of(struct results *results, uint64_t set)
{
    size_t i = (set * SCATTER >> 20) & (RESULTS_ROOM - 1);

    set += !set;
    if (results->n * 2 >= RESULTS_ROOM || !results->slot) {
        free(results->slot);
        results->slot = mem_calloc(RESULTS_ROOM, sizeof(*results->slot));
        results->n = 0;
    }
    while (results->slot[i][0] && results->slot[i][0] != set) {
        i = (i + 1) & (RESULTS_ROOM - 1);
    }
    results->n += !results->slot[i][0];
    results->slot[i][0] = set;
    return &results->slot[i][1];
}

/* --- Points ----------------------------------------------------------------------------------- */

static uint64_t view_key(const struct world_view *view)
{
    uint64_t key = view->top + 1 + (view->top2 + 1) * 64;

    for (int i = 0; i < WORLD_IMAGES; i++) {
        const struct world_known *k = &view->image[i];

        key ^= k->made | k->sure << 1 | k->named << 2 | (uint64_t)k->backing << 3;
        key *= SCATTER;
        key ^= k->loose << 8 | k->marked << 2 | k->empty << 1 | k->in_change;
        key = (key ^ k->still) * SCATTER;
        for (int n = 0; n < WORLD_INNER; n++) {
            key = (key ^ (k->inner[n].content + k->inner[n].may_be * 2 + k->inner[n].must_be)) *
                  SCATTER;
        }
        for (int n = 0; n < WORLD_SIZES; n++) {
            key = (key ^ k->size[n]) * SCATTER;
        }
        key ^= key >> 31;
    }
    return key;
}

static struct model_bounds *bounds_now(struct run *run)
{
    struct model_bounds *bounds = model_bounds(&run->w->model);

    if (run->n_bounds && run->bounds[run->n_bounds - 1]->hash == bounds->hash) {
        free(bounds);
        return run->bounds[run->n_bounds - 1];
    }
    run->bounds = mem_reallocarray(run->bounds, run->n_bounds + 1, sizeof(*run->bounds));
    run->bounds[run->n_bounds++] = bounds;
    return bounds;
}

void run_record(struct run *run)
{
    uint64_t slot = run->seen_points++;
    struct point *p;

    if (run->keep && slot >= run->keep) {
        slot = random_below(&run->rnd, slot + 1);
        if (slot >= run->keep) {
            return;
        }
        io_sim_snapshot_free(run->points[slot].disk);
    } else {
        run->points = mem_reallocarray(run->points, run->n_points + 1, sizeof(*run->points));
        run->n_points++;
    }
    p = &run->points[slot];
    world_look(run->w);
    *p = (struct point){
        .disk = io_sim_snapshot(),
        .view = run->w->view,
        .bounds = bounds_now(run),
        .step = run->w->step,
        .closed = run->w->over,
    };
    p->key = p->bounds->hash ^ view_key(&p->view);
}

void roll(uint64_t *hash, const uint64_t *numbers, size_t n)
{
    *hash = XXH3_64bits_withSeed(numbers, n * sizeof(*numbers), *hash);
}

static void roll_op(struct run *run, const struct io_sim_event *event)
{
    bool changed = event->completed && !(event->op & WORTHLESS);
    uint64_t numbers[] = {
        loop_now() - run->began,
        event->number - run->first_op,
        event->op | (uint64_t)event->completed << 32,
        event->offset,
        event->len,
        event->result,
        changed ? io_sim_hash(event->path) : 0,
        XXH3_64bits(event->path, strlen(event->path)),
    };

    roll(run->hash, numbers, ARRAY_SIZE(numbers));
}

static void on_op(void *arg, const struct io_sim_event *event)
{
    roll_op(arg, event);
    if (event->op & WORTHLESS || (event->op == IO_SIM_OPEN && !event->completed)) {
        return;
    }
    run_record(arg);
}

/* A reply, an event: what is promised now. */
static void on_change(void *arg)
{
    struct run *run = arg;
    uint64_t numbers[] = { loop_now() - run->began, view_key(&run->w->view), bounds_now(run)->hash };

    roll(run->hash, numbers, ARRAY_SIZE(numbers));
    run_record(run);
}

/* Somebody waits for ever, so the run would never end (18).  There is no way out of that. */
static void on_hang(void *arg)
{
    fprintf(stderr, "rule 18: after %llu s something still has no answer\n",
            (unsigned long long)(RUN_ENDS_WITHIN_NS / NS_PER_S));
    abort();
}

void run_start(struct run *run)
{
    run->began = loop_now();
    loop_timer_init(&run->patience, on_hang, NULL);
    loop_timer_arm(&run->patience, run->began + RUN_ENDS_WITHIN_NS);
    run->first_op = io_sim_ops();
    io_sim_on_op(on_op, run);
    run->w->on_change = on_change;
    run->w->arg = run;
}

void run_stop(struct run *run)
{
    io_sim_on_op(NULL, NULL);
    loop_timer_cancel(&run->patience);
    run->w->on_change = NULL;
}

void run_fini(struct run *run)
{
    for (size_t i = 0; i < run->n_points; i++) {
        io_sim_snapshot_free(run->points[i].disk);
    }
    for (size_t i = 0; i < run->n_bounds; i++) {
        free(run->bounds[i]);
    }
    free(run->points);
    free(run->bounds);
}

/* --- Sets ------------------------------------------------------------------------------------- */

struct sets {
    const struct explore_options *options;
    struct cut cut;
    co_cut_fn *co_fn;
    void *arg;
    struct random rnd;
};

static void set_all(struct sets *s, char fate)
{
    memset(s->cut.fates, fate, s->cut.n);
    for (size_t i = 0; s->cut.kill && i < s->cut.n; i++) {
        if (!s->cut.pending[i].in_flight) {
            s->cut.fates[i] = '1'; /* it has happened */
        }
    }
}

static bool is_open(const struct sets *s, size_t i)
{
    return !s->cut.kill || s->cut.pending[i].in_flight;
}

static bool co_try(struct sets *s)
{
    return s->co_fn(s->arg, &s->cut);
}

static bool co_try_singles(struct sets *s, char one, char rest)
{
    size_t n = s->cut.n, first = n > s->options->singles_max ? n - s->options->singles_max : 0;

    for (size_t i = first; i < n; i++) {
        if (is_open(s, i)) {
            set_all(s, rest);
            s->cut.fates[i] = one;
            if (!co_try(s)) {
                return false;
            }
        }
    }
    return true;
}

static bool co_try_pairs(struct sets *s, char both, char rest)
{
    size_t n = s->cut.n, first = n > s->options->pairs_of ? n - s->options->pairs_of : 0;

    for (size_t i = first; i < n; i++) {
        for (size_t k = i + 1; k < n; k++) {
            if (is_open(s, i) && is_open(s, k)) {
                set_all(s, rest);
                s->cut.fates[i] = s->cut.fates[k] = both;
                if (!co_try(s)) {
                    return false;
                }
            }
        }
    }
    return true;
}

static bool co_try_random(struct sets *s)
{
    static const char others[] = "0000dstT";

    for (unsigned r = 0; r < s->options->random_sets; r++) {
        unsigned kept = random_below(&s->rnd, 9);

        set_all(s, '1');
        for (size_t i = 0; i < s->cut.n; i++) {
            if (is_open(s, i) && random_below(&s->rnd, 8) >= kept) {
                s->cut.fates[i] = others[random_below(&s->rnd, sizeof(others) - 1)];
            }
        }
        if (!co_try(s)) {
            return false;
        }
    }
    return true;
}

static bool co_try_mode(struct sets *s)
{
    set_all(s, '1');
    if (!co_try(s)) {
        return false;
    }
    set_all(s, '0');
    return co_try(s) && co_try_singles(s, '0', '1') && co_try_singles(s, '1', '0') &&
           co_try_pairs(s, '0', '1') && co_try_pairs(s, '1', '0') && co_try_random(s);
}

bool co_each_cut(const struct explore_options *options, uint64_t seed,
                 const struct io_sim_pending *pending, size_t n, co_cut_fn *co_fn, void *arg)
{
    AUTOFREE char *fates = mem_zalloc(n + 1);
    struct sets s = { .options = options,
                      .cut = { .fates = fates, .pending = pending, .n = n },
                      .co_fn = co_fn,
                      .arg = arg };

    random_seed(&s.rnd, seed);
    if (!co_try_mode(&s)) {
        return false;
    }
    s.cut.kill = true;
    return co_try_mode(&s);
}

/* --- Words ------------------------------------------------------------------------------------ */

char *cut_print(const struct cut *cut)
{
    char *text = mem_strdup(cut->kill ? "kill:" : "power:");

    for (size_t i = 0, end; i < cut->n; i = end) {
        char *longer;

        for (end = i; end < cut->n && cut->fates[end] == cut->fates[i]; end++) {
        }
        longer = mem_printf("%s%s%c*%zu", text, i ? "." : "", cut->fates[i], end - i);
        free(text);
        text = longer;
    }
    return text;
}

bool cut_parse(const char *text, size_t n, bool *kill, char *fates)
{
    size_t at = 0;

    *kill = strncmp(text, "kill:", 5) == 0;
    if (!*kill && strncmp(text, "power:", 6) != 0) {
        return false;
    }
    text = strchr(text, ':') + 1;
    while (*text) {
        char fate = *text++, *end;
        size_t times = *text == '*' ? strtoul(text + 1, &end, 10) : 0;

        if (!times || times > n - at || !strchr("01dstT", fate)) {
            return false;
        }
        memset(fates + at, fate, times);
        at += times;
        text = end + (*end == '.');
    }
    return at == n;
}
