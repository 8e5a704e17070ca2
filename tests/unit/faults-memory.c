/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every place in the sources that asks for memory, refused: once, and for ever from some call on,
 * in the scenarios that reach it (faults-scenarios.h).
 *
 *   once      mem_try_*: that request may fail and says so.  All others: nobody notices.
 *   for ever  mem_try_*: as once.  All others: the program leaves with its sentence and MEM_EXIT.
 *             At that moment the disk is as after a kill: the checker, which needs no driver, must
 *             find the chain whole and every sector one that it may be.
 *
 * Memory that jansson takes counts as one place; uthash's tables are places like others.
 *
 *   faults-memory           a part of it, as a unit test
 *   faults-memory --all     every scenario that reaches a place, more calls
 *   faults-memory --table   the table as well
 */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/faults-scenarios.h"

#define PLACES_MAX 1024u
#define SCENARIOS_USUAL 2u
#define CALLS_USUAL 3u
#define CALLS_ALL 20u
#define BAD_EXIT 99
#define SURVIVED_EXIT 98
#define CHAIN_MAX 6u

extern const struct mem_site *const __start_mem_sites[], *const __stop_mem_sites[];

struct place {
    const char *file, *what, *in;
    unsigned line;
    bool may_fail;
    unsigned hits[ARRAY_SIZE(scenarios)];
    unsigned total, once, ever;
    bool refused_once, refused_ever, left;
};

static struct place places[PLACES_MAX];
static unsigned n_places;
static const struct mem_site **known; /* sorted; the place of each: */
static struct place **place_of;
static size_t n_known;
static struct place *target;
static uint32_t from_hit, seen;
static bool for_ever, counting, denied;
static bool all, table;
static struct run run;
static char doing[300];
static unsigned runs, usually_refused[ARRAY_SIZE(scenarios)];

/* --- Places ----------------------------------------------------------------------------------- */

/* What the program never runs does not count: tests, and the simulated disk itself. */
static bool is_ours(const char *file)
{
    return strncmp(file, "tests/", 6) && strncmp(file, "explore/", 8) &&
           strncmp(file, "core/io-sim", 11);
}

static struct place *find_place(const struct mem_site *site)
{
    const char *file = short_name(site->file);

    for (unsigned i = 0; i < n_places; i++) {
        if (places[i].line == site->line && !strcmp(places[i].what, site->what) &&
            !strcmp(places[i].file, file)) {
            return &places[i];
        }
    }
    assert_true(n_places < PLACES_MAX);
    places[n_places] = (struct place){ .file = file, .line = site->line, .what = site->what,
                                       .in = site->in,
                                       .may_fail = strncmp(site->what, "mem_try", 7) == 0 };
    return &places[n_places++];
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

    return x < y ? -1 : x > y;
}

static void find_places(void)
{
    n_known = __stop_mem_sites - __start_mem_sites;
    known = mem_calloc(n_known, sizeof(*known));
    place_of = mem_calloc(n_known, sizeof(*place_of));
    for (size_t i = 0; i < n_known; i++) {
        known[i] = __start_mem_sites[i];
    }
    qsort(known, n_known, sizeof(*known), by_address);
    for (size_t i = 0; i < n_known; i++) {
        place_of[i] = is_ours(short_name(known[i]->file)) ? find_place(known[i]) : NULL;
    }
}

static struct place *place_at(const struct mem_site *site)
{
    const struct mem_site **found = bsearch(&site, known, n_known, sizeof(*known), by_address);

    return found ? place_of[found - known] : NULL;
}

static bool deny(const struct mem_site *site, size_t size)
{
    struct place *place = under_way ? place_at(site) : NULL;

    if (!place) {
        return false;
    }
    if (counting) {
        place->hits[run.scenario - scenarios]++;
        place->total++;
        return false;
    }
    if (denied && for_ever) { /* from now on nobody gets any, but those who can take it */
        return !target->may_fail || place == target;
    }
    if (place != target || ++seen != from_hit) {
        return false;
    }
    denied = true;
    return true;
}

/* --- Runs ------------------------------------------------------------------------------------- */

static void play(const struct scenario *s)
{
    struct whole_run w = { .run = &run };

    run_reset(&run, s);
    seen = 0;
    denied = false;
    runs++;
    silence(true);
    mem_deny = deny;
    loop_run_co(co_whole_run, &w);
    mem_deny = NULL;
    silence(false);
    if (mem_is_low) {
        mem_recover();
    }
}

static void describe(const struct place *p, const struct scenario *s, uint32_t hit)
{
    snprintf(doing, sizeof(doing), "%s:%u %s in %s, %s, call %u gets no memory%s\n", p->file,
             p->line, p->what, p->in, s->name, hit, for_ever ? ", nor do later ones" : "");
}

static unsigned play_once(struct place *p, const struct scenario *s, uint32_t hit, bool ever)
{
    target = p;
    from_hit = hit;
    for_ever = ever;
    describe(p, s, hit);
    play(s);
    *(ever ? &p->ever : &p->once) += denied;
    if (run.refused > usually_refused[s - scenarios]) {
        *(ever ? &p->refused_ever : &p->refused_once) = true;
        if (!p->may_fail) {
            trouble(&run, "%u refused of %u", run.refused, run.steps);
        }
    }
    if (run.trouble[0]) {
        print_message("%s    %s\n", doing, run.trouble);
        return 1;
    }
    return 0;
}

/* The process is about to leave.  What does the next one find?  Runs without any coroutine. */
static void judge_as_killed(void *arg)
{
    struct checker_image *chain[CHAIN_MAX];
    AUTOFREE uint8_t *buf = mem_alloc(DISK_BYTES);
    const char *path = run.top;
    unsigned n = 0;

    io_sim_cut(IO_SIM_CUT_KILL, from_hit);
    while (path && n < CHAIN_MAX && strcmp(path, "/F")) {
        AUTOFREE char *name = mem_printf("/%s", without_slash(path));

        /* The paths of images are kept by them. */
        path = NULL;
        for (const char *letter = name + 1; *letter && !letter[1]; letter++) {
            static char paths[256][3];

            snprintf(paths[(uint8_t)*letter], 3, "/%c", *letter);
            chain[n] = rig_check(&run, paths[(uint8_t)*letter], "as killed");
            path = chain[n] ? checker_backing(chain[n]) : NULL;
            n += chain[n] != NULL;
        }
    }
    if (n && strcmp(run.top, "/G") && checker_read(chain, n, 0, buf, DISK_BYTES)) {
        check_bytes(&run, 0, DISK_BYTES, buf, true, "as killed");
    }
    if (run.trouble[0]) {
        silence(false);
        print_message("%s    %s\n", doing, run.trouble);
        fflush(stdout);
        _exit(BAD_EXIT);
    }
}

static unsigned play_leaving(struct place *p, const struct scenario *s, uint32_t hit)
{
    pid_t pid;
    int status;

    target = p;
    from_hit = hit;
    for_ever = true;
    describe(p, s, hit);
    fflush(stdout);
    pid = fork();
    if (!pid) {
        mem_on_exit(judge_as_killed, NULL);
        play(s);
        _exit(denied ? SURVIVED_EXIT : 0);
    }
    runs++;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == MEM_EXIT) {
        p->ever++;
        p->left = true;
        return 0;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return 0; /* never came there: a pool had something left from the run before */
    }
    print_message("%s    ends with status %#x\n", doing, status);
    return 1;
}

/* What is asked for once in the life of a process: in a process of its own. */
static unsigned play_fresh(struct place *p, unsigned scenario, bool ever)
{
    char number[3][16];
    int status;
    pid_t pid;

    snprintf(number[0], sizeof(number[0]), "%u", (unsigned)(p - places));
    snprintf(number[1], sizeof(number[1]), "%u", scenario);
    snprintf(number[2], sizeof(number[2]), "%d", ever);
    fflush(stdout);
    pid = fork();
    if (!pid) {
        execl("/proc/self/exe", "faults-memory", "--one", number[0], number[1], number[2], NULL);
        _exit(BAD_EXIT);
    }
    runs++;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == (ever && !p->may_fail ? MEM_EXIT : SURVIVED_EXIT)) {
        *(ever ? &p->ever : &p->once) += 1;
        p->left = p->left || (ever && !p->may_fail);
        return 0;
    }
    return !WIFEXITED(status) || WEXITSTATUS(status) == BAD_EXIT;
}

static void last_words(int signal)
{
    if (write(voices[0] ? voices[0] : STDOUT_FILENO, doing, strlen(doing)) < 0) {
        _exit(1);
    }
}

static unsigned deny_place(struct place *p, struct random *random)
{
    unsigned bad = 0, done = 0, start = random_below(random, ARRAY_SIZE(scenarios));

    for (unsigned i = 0; i < ARRAY_SIZE(scenarios); i++) {
        unsigned at = (start + i) % ARRAY_SIZE(scenarios);
        unsigned hits = p->hits[at];

        if (!hits || (!all && done == SCENARIOS_USUAL)) {
            continue;
        }
        for (unsigned n = 0; n < MIN(hits, all ? CALLS_ALL : CALLS_USUAL); n++) {
            uint32_t hit = n ? 1 + random_below(random, hits) : 1;

            bad += play_once(p, &scenarios[at], hit, false);
            if (p->may_fail) {
                bad += play_once(p, &scenarios[at], hit, true);
            } else if (all || (!done && n < 2)) {
                bad += play_leaving(p, &scenarios[at], hit);
            }
        }
        done++;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(scenarios); i++) {
        for (int ever = 0; p->hits[i] && ever < 2; ever++) {
            bad += *(ever ? &p->ever : &p->once) ? 0 : play_fresh(p, i, ever);
        }
    }
    return bad;
}

/* --- The table -------------------------------------------------------------------------------- */

/* Why no scenario asks for memory there; by file, or by file and function. */
static const struct {
    const char *file, *in, *why;
} unreached[] = {
#include "tests/unit/faults-unreached.h"
};

static const char *reason(const struct place *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(unreached); i++) {
        if (strncmp(p->file, unreached[i].file, strlen(unreached[i].file)) == 0 &&
            (!unreached[i].in || strcmp(p->in, unreached[i].in) == 0)) {
            return unreached[i].why;
        }
    }
    /* The others have no failure of their own: tests/unit/mem.c has theirs. */
    return p->may_fail ? NULL : "never sees a failure; no scenario comes here";
}

static int by_place(const void *a, const void *b)
{
    const struct place *const *x = a, *const *y = b;
    int order = strcmp((*x)->file, (*y)->file);

    return order ? order : (*x)->line < (*y)->line ? -1 : (*x)->line > (*y)->line;
}

static void print_table(void)
{
    AUTOFREE struct place **sorted = mem_calloc(n_places, sizeof(*sorted));

    for (unsigned i = 0; i < n_places; i++) {
        sorted[i] = &places[i];
    }
    qsort(sorted, n_places, sizeof(*sorted), by_place);
    printf("%-34s %-18s %7s  %-10s %s\n", "place", "asks by", "hits", "once", "for ever");
    for (unsigned i = 0; i < n_places; i++) {
        const struct place *p = sorted[i];
        AUTOFREE char *at = mem_printf("%s:%u", p->file, p->line);

        if (p->total) {
            printf("%-34s %-18s %7u  %-10s %s\n", at, p->what, p->total,
                   !p->once            ? "HOLE"
                   : p->refused_once ? "told"
                                      : "survived",
                   !p->ever            ? "HOLE"
                   : p->left          ? "leaves"
                   : p->refused_ever ? "told"
                                      : "survived");
        } else {
            printf("%-34s %-18s %7s  %s\n", at, p->what, "-",
                   reason(p) ? reason(p) : "HOLE: not reached");
        }
    }
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void scenarios_go_well_when_there_is_memory(void **state)
{
    counting = true;
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        if (scenario_possible(&scenarios[i])) {
            snprintf(doing, sizeof(doing), "%s\n", scenarios[i].name);
            play(&scenarios[i]);
            usually_refused[i] = run.refused;
            assert_string_equal(run.trouble, "");
        }
    }
    counting = false;
}

static void every_place_that_asks_for_memory_may_get_none(void **state)
{
    struct random random;
    unsigned bad = 0;

    random_seed(&random, 11);
    for (unsigned i = 0; i < n_places; i++) {
        bad += deny_place(&places[i], &random);
    }
    if (table) {
        print_table();
    }
    print_message("%u places, %u runs\n", n_places, runs);
    assert_int_equal(bad, 0);
}

static void the_table_has_no_hole(void **state)
{
    unsigned holes = 0;

    for (unsigned i = 0; i < n_places; i++) {
        const struct place *p = &places[i];

        if (p->total ? !p->once || !p->ever : !reason(p)) {
            print_message("%s:%u %s in %s: %s\n", p->file, p->line, p->what, p->in,
                          p->total ? "was never refused" : "is never reached");
            holes++;
        }
    }
    assert_int_equal(holes, 0);
}

static int setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (rig_setup(state)) {
        return -1;
    }
    img_set_program("img");
    loop_run_co(co_make_first, &run);
    find_places();
    return 0;
}

/* In a fresh process: one refusal, and how it ends as the exit code. */
static int play_one(char **words)
{
    struct place *p;
    const struct scenario *s = &scenarios[atoi(words[1])];

    if (setup(NULL)) {
        return BAD_EXIT;
    }
    p = &places[atoi(words[0])];
    target = p;
    from_hit = 1;
    for_ever = atoi(words[2]);
    describe(p, s, 1);
    mem_on_exit(judge_as_killed, NULL);
    play(s);
    if (run.trouble[0] || (run.refused && !p->may_fail && s->co_run != co_img_reads)) {
        print_message("%s    %s\n", doing, run.trouble);
        return BAD_EXIT;
    }
    return denied ? SURVIVED_EXIT : 0;
}

static int teardown(void **state)
{
    free(known);
    free(place_of);
    io_sim_snapshot_free(first_disk);
    return rig_teardown(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenarios_go_well_when_there_is_memory),
        cmocka_unit_test(every_place_that_asks_for_memory_may_get_none),
        cmocka_unit_test(the_table_has_no_hole),
    };
    struct sigaction act = { .sa_handler = last_words, .sa_flags = SA_RESETHAND };

    sigaction(SIGABRT, &act, NULL);
    if (argc == 5 && strcmp(argv[1], "--one") == 0) {
        return play_one(argv + 2);
    }
    for (int i = 1; i < argc; i++) {
        all = all || strcmp(argv[i], "--all") == 0;
        table = table || strcmp(argv[i], "--table") == 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
