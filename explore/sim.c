/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words behind --sim, and states handed to others for a second opinion: see sim.h.
 */
#include "explore/sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/io-sim.h"
#include "core/mem.h"
#include "explore/batch.h"
#include "monitor/monitor.h"

static const char help[] =
    "usage: merganser --sim WORD...\n"
    "\n"
    "Runs work on image chains of a simulated disk, and visits the states in which the\n"
    "power could have gone or the process could have died meanwhile. No real file is\n"
    "touched.\n"
    "\n"
    "  plan=PLAN      this work, for example four/4k-v3/write-part+stream&discard-span:\n"
    "                 chain, format, operations ('+' waits for the one before, '&' does\n"
    "                 not; ~N behind one puts it somewhere else)\n"
    "  cut=N keep=K   of a plan only this state, in words; then= and again= if it died\n"
    "                 twice. What is found bad is printed as such a line, to be pasted;\n"
    "                 the numbers of the rules are those of docs/RELIABILITY.md\n"
    "  all=N          every sequence of up to N operations on every chain (three: on the\n"
    "                 smallest ones)\n"
    "  every=N from=N of those only one in N; begin there\n"
    "  chains=A,B     ... on these only\n"
    "  swarm=N        N long random plans, some with faults of the disk\n"
    "  seed=N         where chance comes from (1)\n"
    "  points=N       look at N moments of a run only (all)\n"
    "  go-on=N        restart the program in one state of N (16)\n"
    "  memory=N       look at one plan in N for memory that it keeps (with\n"
    "                 GLIBC_TUNABLES=glibc.malloc.tcache_count=0)\n"
    "  seconds=N      begin nothing new after that time\n"
    "  states=DIR     write one distinct state of judge-every=N (1000) to DIR, for qemu-img\n"
    "\n"
    "Chains, formats, operations:\n";

struct sim {
    struct batch batch;
    bool go_on_given, replay;
    const char *states, *cut;
    char *line; /* all words */
    struct plan plan;
    int replay_ret;
    uint64_t written; /* states */
};

static void print_help(void)
{
    printf("%s ", help);
    for (unsigned i = 0; i < n_shapes; i++) {
        printf(" %s", shapes[i].name);
    }
    printf("\n ");
    for (unsigned i = 0; i < n_formats; i++) {
        printf(" %s", formats[i].name);
    }
    for (unsigned i = 0; i < n_operations; i++) {
        printf("%s%s", i % 8 ? " " : "\n  ", operations[i].name);
    }
    printf("\n");
}

/* --- Words ------------------------------------------------------------------------------------ */

static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 0);
    return !errno && end != text && !*end && !strchr(text, '-') && *out <= max;
}

/* False: no such word. */
static bool take_number(struct sim *sim, const char *key, uint64_t value)
{
    struct batch *b = &sim->batch;
    struct explore_options *o = &b->options;
    const struct {
        const char *key;
        uint64_t *wide;
        unsigned *narrow;
    } places[] = {
        { "seed", &o->seed, NULL },   { "every", &b->every, NULL },
        { "from", &b->from, NULL },   { "swarm", &b->swarm, NULL },
        { "all", NULL, &b->max_len }, { "points", NULL, &o->points_max },
        { "go-on", NULL, &o->go_on_every },
        { "memory", NULL, &o->memory_every }, { "judge-every", NULL, &o->judge_every },
    };

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (strcmp(places[i].key, key) == 0) {
            if (places[i].wide) {
                *places[i].wide = value;
            } else {
                *places[i].narrow = value;
            }
            return true;
        }
    }
    return false;
}

/* A list of shapes as a set; 0: it is none. */
static unsigned parse_chains(const char *list)
{
    unsigned set = 0;

    while (*list) {
        size_t len = strcspn(list, ",");
        unsigned i = 0;

        while (i < n_shapes &&
               (strlen(shapes[i].name) != len || memcmp(shapes[i].name, list, len) != 0)) {
            i++;
        }
        if (i == n_shapes) {
            return 0;
        }
        set |= 1u << i;
        list += len + (list[len] == ',');
    }
    return set;
}

static const char *take_word(struct sim *sim, const char *key, const char *value)
{
    static const char *const of_a_state[] = { "keep", "then", "again" };
    uint64_t number;

    if (strcmp(key, "plan") == 0) {
        return plan_parse(value, &sim->plan) && plan_makes_sense(&sim->plan)
                   ? NULL
                   : "is no plan (try --sim help)";
    }
    if (strcmp(key, "states") == 0) {
        sim->states = value;
        return NULL;
    }
    if (strcmp(key, "chains") == 0) {
        sim->batch.chains = parse_chains(value);
        return sim->batch.chains ? NULL : "is no list of chains (try --sim help)";
    }
    for (size_t i = 0; i < ARRAY_SIZE(of_a_state); i++) {
        if (strcmp(key, of_a_state[i]) == 0) {
            return NULL; /* co_explore_replay() reads them */
        }
    }
    if (!parse_number(value, UINT32_MAX, &number)) {
        return "expects a number";
    }
    if (strcmp(key, "cut") == 0) {
        sim->replay = true;
    } else if (strcmp(key, "seconds") == 0) {
        sim->batch.seconds = number;
    } else if (!take_number(sim, key, number)) {
        return "is not known (try --sim help)";
    }
    sim->go_on_given = sim->go_on_given || strcmp(key, "go-on") == 0;
    return NULL;
}

static bool take_words(struct sim *sim, int n, char **words)
{
    sim->line = mem_strdup("");
    for (int i = 0; i < n; i++) {
        size_t len = strcspn(words[i], "=");
        AUTOFREE char *key = mem_strndup(words[i], len);
        const char *wrong =
            words[i][len] ? take_word(sim, key, words[i] + len + 1) : "has no value (KEY=VALUE)";
        char *longer;

        if (wrong) {
            fprintf(stderr, "merganser: --sim: '%s' %s\n", words[i], wrong);
            return false;
        }
        longer = mem_printf("%s%s%s", sim->line, i ? " " : "", words[i]);
        free(sim->line);
        sim->line = longer;
    }
    if (!sim->plan.n && !sim->batch.max_len && !sim->batch.swarm) {
        fprintf(stderr, "merganser: --sim: nothing to do: say plan=, all= or swarm= (try --sim "
                        "help)\n");
        return false;
    }
    return true;
}

/* --- States for others ------------------------------------------------------------------------ */

/* DIR/N.A.img and so on are the images, DIR/N.content what the chain must show as a raw image, and
 * last comes DIR/N.line: the top's format and name, and the line that replays the state.  The
 * latter two lie on the simulated disk for a moment, because that knows how to write real files. */
static int write_real(const struct sim *sim, const char *path)
{
    AUTOFREE char *to =
        mem_printf("%s/%llu.%s", sim->states, (unsigned long long)sim->written, path + 1);

    return io_sim_export(path, to);
}

static int write_content(const struct sim *sim, const struct explore_state *state)
{
    io_sim_create("/content", state->size);
    for (unsigned i = 0; i < MODEL_DISK_WINDOWS; i++) {
        uint64_t at = state->window[i].at, end = MIN(at + state->window[i].len, state->size);

        if (at < end) {
            io_sim_write("/content", at, state->content[i], end - at);
        }
    }
    return write_real(sim, "/content");
}

static int write_line(const struct sim *sim, const struct explore_state *state)
{
    AUTOFREE char *line = mem_printf("%s %s %s\n", state->raw_top ? "raw" : "qcow2",
                                     state->paths[0] + 1, state->line);

    io_sim_create("/line", 0);
    io_sim_write("/line", 0, line, strlen(line));
    return write_real(sim, "/line");
}

static char *write_state(void *arg, const struct explore_state *state)
{
    struct sim *sim = arg;
    int ret = 0;

    sim->written++;
    for (unsigned i = 0; ret == 0 && i < state->n; i++) {
        ret = write_real(sim, state->paths[i]);
    }
    ret = ret ? ret : write_content(sim, state);
    ret = ret ? ret : write_line(sim, state);
    return ret ? mem_printf("no state can be written to %s: %s", sim->states, strerror(-ret))
               : NULL;
}

/* --- Runs ------------------------------------------------------------------------------------- */

static CO_ENTRY void co_replay(void *arg)
{
    struct sim *sim = arg;

    sim->replay_ret = co_explore_replay(sim->line, stdout);
}

static int replay(struct sim *sim)
{
    batch_in_simulation(co_replay, sim);
    if (sim->replay_ret < 0) {
        fprintf(stderr, "merganser: --sim: cut= needs plan= and keep=, then= needs again=\n");
        return OUTCOME_NO_START;
    }
    printf("%s\n", sim->replay_ret ? "bad" : "good");
    return sim->replay_ret ? OUTCOME_GUEST : OUTCOME_GOOD;
}

static int run(struct sim *sim)
{
    struct batch *b = &sim->batch;

    b->options.out = b->out = stdout;
    if (sim->plan.n) {
        b->plans = &sim->plan;
        b->n_plans = 1;
        b->options.go_on_every = sim->go_on_given ? b->options.go_on_every : 1;
    }
    if (sim->states) {
        b->options.judge = write_state;
        b->options.judge_arg = sim;
    }
    b->tell = b->max_len > 0;
    batch_run(b);
    printf("hash=%016llx\n%llu bad\n", (unsigned long long)b->stats.hash,
           (unsigned long long)b->stats.bad);
    return b->stats.bad ? OUTCOME_GUEST : OUTCOME_GOOD;
}

int sim_main(int n, char **words)
{
    struct sim sim = { .batch.options = batch_usual };
    int ret = OUTCOME_NO_START;

    if (n && strcmp(words[0], "help") == 0) {
        print_help();
        return OUTCOME_GOOD;
    }
    if (take_words(&sim, n, words)) {
        ret = sim.replay ? replay(&sim) : run(&sim);
    }
    free(sim.line);
    return ret;
}
