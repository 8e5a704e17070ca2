/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every place in the sources that calls the host, made to fail: once at its first call, once at a
 * later one, and for ever from some call on, in the scenarios that reach it (faults-scenarios.h).
 * Nothing that was promised may be missing afterwards (faults-rig.h); no memory is left.
 *
 * The places are known by core/io.h (struct io_site); which one an operation of the simulated disk
 * comes from is remembered by coroutine.  A failing sync drops what it should have saved.
 *
 *   faults-sites            a part of it, as a unit test
 *   faults-sites --all      every scenario that reaches a place, more calls: minutes
 *   faults-sites --table    the table as well
 */
#include <signal.h>

#include "tests/unit/faults-live.h"
#include "tests/unit/faults-scenarios.h"

#define SITES_MAX 256u
#define COS_MAX 512u
#define SCENARIOS_USUAL 6u /* that are tried for one place; --all: all that reach it */
#define CALLS_USUAL 12u    /* that fail in one scenario */
#define CALLS_ALL 60u
#define STRIKES_MAX 10000u

extern const struct io_site *const __start_io_sites[], *const __stop_io_sites[];

/* Why nobody calls here in a scenario. */
static const struct {
    const char *file, *in, *why; /* in: NULL for all of the file */
} unreached[] = {
    { "block/file.c", "co_is_empty", "the head of a block device, which the simulated disk has not" },
    { "block/file.c", "co_file_read", "only for what no driver can map, and ours map all" },
    { "block/qcow2-write.c", "co_write_fill", "tests/unit/qcow2-writes.c: copies into parts of clusters" },
    { "block/qcow2-header-write.c", "co_stage_1", "tests/unit/qcow2-backing.c: crowded headers" },
    { "start/", NULL, "the program's own start: demonstration and drives, run by tests/start" },
    { "main.c", NULL, "the working directory of scripts of the demonstration" },
    { "explore/", NULL, "no part of the program's work" },
    { "monitor/terminal.c", NULL, "the history of the terminal" },
    { "monitor/script.c", NULL, "tests/monitor/scripts.bats" },
    { "hw/", NULL, "iologs of the guest, read and written by tests/unit/guest-iolog.c" },
    { "block/blkdebug", NULL, "a driver that makes faults itself; its rules' file is read before anything is opened" },
    { "block/node-file.c", NULL, "formats above formats, which no scenario has" },
    { "monitor/guards.c", NULL, "a look at a name that is to be recorded; an error means that nobody can tell" },
    { "block/file.c", "co_file_look_at_size", "blockdev-create, which no scenario has; a failure is the job's" },
    { "block/qcow2-report.c", "co_mend_askew", "check -r of entries that no scenario has: one of them changes, or none" },
    { "block/file.c", "co_file_set_direct", "blockdev-reopen, which no scenario has; a failure undoes the whole command" },
};

struct site {
    const char *file, *what, *in;
    unsigned line;
    /* Reached when something else had failed: how. */
    struct site *after;
    const struct scenario *after_in;
    uint32_t after_hit;
    bool after_ever;
    unsigned hits[ARRAY_SIZE(scenarios)];
    unsigned total, struck_once, struck_ever; /* runs */
    bool refused_once, refused_ever;
};

static struct site sites[SITES_MAX];
static unsigned n_sites;
static struct {
    const void *co;
    struct site *site;
} of_co[COS_MAX];
static struct site *target, *second; /* `second` fails at its first call, as `for_ever` says */
static bool second_struck;
static uint32_t from_hit; /* the first one that fails; counted from 1 */
static bool for_ever;
static uint32_t seen, struck;
static bool all, table;
static struct run run;
static char doing[300]; /* for whoever kills us */
static unsigned runs;

/* --- Places ----------------------------------------------------------------------------------- */

static struct site *site_of(const struct io_site *io)
{
    const char *file = short_name(io->file);

    for (unsigned i = 0; i < n_sites; i++) {
        if (sites[i].line == io->line && !strcmp(sites[i].what, io->what) &&
            !strcmp(sites[i].file, file)) {
            return &sites[i];
        }
    }
    assert_true(n_sites < SITES_MAX);
    sites[n_sites] = (struct site){ .file = file, .line = io->line, .what = io->what,
                                      .in = io->in };
    return &sites[n_sites++];
}

static int by_place(const void *a, const void *b)
{
    const struct site *x = a, *y = b;
    int order = strcmp(x->file, y->file);

    return order ? order : x->line < y->line ? -1 : x->line > y->line;
}

static void find_sites(void)
{
    for (const struct io_site *const *s = __start_io_sites; s < __stop_io_sites; s++) {
        if (strncmp(short_name((*s)->file), "tests/", 6)) {
            site_of(*s);
        }
    }
    qsort(sites, n_sites, sizeof(*sites), by_place);
}

static struct site **slot_of_co(void)
{
    const void *co = co_self();
    unsigned i = (uintptr_t)co / 64 % COS_MAX;

    while (of_co[i].co && of_co[i].co != co) {
        i = (i + 1) % COS_MAX;
    }
    of_co[i].co = co;
    return &of_co[i].site;
}

static void called(const struct io_site *io)
{
    if (strncmp(short_name(io->file), "tests/", 6)) {
        *slot_of_co() = site_of(io);
    } else {
        *slot_of_co() = NULL;
    }
}

/* --- Faults ----------------------------------------------------------------------------------- */

static bool only_count(void *arg)
{
    struct site *site = *slot_of_co();

    if (site) {
        site->hits[run.scenario - scenarios]++;
        site->total++;
    }
    return false;
}

static bool strikes(void *arg)
{
    struct site *site = *slot_of_co();

    assert_true(struck < STRIKES_MAX); /* it asks for ever */
    if (site && !site->total && !site->after && target != site && struck) {
        site->after = target;
        site->after_in = run.scenario;
        site->after_hit = from_hit;
        site->after_ever = for_ever;
    }
    if (site && site == second && struck) {
        second_struck = true;
        return true;
    }
    if (!target || site != target || (++seen != from_hit && !for_ever) ||
        seen < from_hit) {
        return false;
    }
    struck++;
    return true;
}

static void plan_counting(void *arg)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .when = only_count };

    io_sim_fault(&fault);
}

static void plan_failures(void *arg)
{
    const int *error = arg;
    const struct io_sim_fault fails = { .kind = IO_SIM_FAULT_ERROR,
                                        .ops = IO_SIM_ANY & ~IO_SIM_FLUSH,
                                        .error = *error,
                                        .when = strikes };
    const struct io_sim_fault drops = { .kind = IO_SIM_FAULT_SYNC_DROP, .when = strikes };

    io_sim_fault(&fails);
    io_sim_fault(&drops);
}

/* --- Runs ------------------------------------------------------------------------------------- */

static void last_words(int signal)
{
    if (write(voices[0] ? voices[0] : STDOUT_FILENO, doing, strlen(doing)) < 0) {
        _exit(1);
    }
}

static size_t live_usually; /* blocks between runs when nothing has failed; 0: not known yet */

static void play(const struct scenario *s, void (*arm)(void *arg), int *error)
{
    struct whole_run w = { .run = &run, .arm = arm, .arg = error };

    memset(of_co, 0, sizeof(of_co));
    run_reset(&run, s);
    run.must_go_on = target && !second && !for_ever && strcmp(target->what, "co_io_flush");
    seen = struck = 0;
    runs++;
    silence(true);
    loop_run_co(co_whole_run, &w);
    silence(false);
    io_sim_restore(first_disk);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    if (mem_is_low) {
        mem_recover();
    }
    if (live_usually && live_blocks > live_usually) {
        trouble(&run, "%zu blocks of memory are left", live_blocks - live_usually);
        live_usually = live_blocks;
    }
}

static unsigned play_failing(struct site *site, const struct scenario *s, uint32_t hit, bool ever)
{
    static const int errors[] = { EIO, ENOSPC };
    int error = errors[(site->line + hit) % ARRAY_SIZE(errors)];

    target = site;
    from_hit = hit;
    for_ever = ever;
    snprintf(doing, sizeof(doing), "%s:%u %s, %s, call %u fails %s with %s\n", site->file,
             site->line, site->what, s->name, hit, ever ? "and all later ones" : "once",
             strerrorname_np(error));
    second_struck = false;
    play(s, plan_failures, &error);
    target = NULL;
    if (second) {
        second->struck_once += second_struck;
        second->struck_ever += second_struck;
        second->refused_once = second->refused_ever = run.refused;
    } else if (ever) {
        site->struck_ever += struck > 0;
        site->refused_ever = site->refused_ever || run.refused;
    } else {
        site->struck_once += struck > 0;
        site->refused_once = site->refused_once || run.refused;
    }
    if (run.trouble[0]) {
        print_message("%s    %s\n", doing, run.trouble);
        return 1;
    }
    return 0;
}

static unsigned fail_site(struct site *site, struct random *random)
{
    unsigned bad = 0, done = 0, first_s = random_below(random, ARRAY_SIZE(scenarios));

    for (unsigned i = 0; i < ARRAY_SIZE(scenarios); i++) {
        unsigned at = (first_s + i) % ARRAY_SIZE(scenarios);
        const struct scenario *s = &scenarios[at];
        unsigned hits = site->hits[at];

        /* What a lock means depends on who takes it: all of them. */
        if (!hits || (!all && done == SCENARIOS_USUAL && strcmp(site->what, "io_file_lock"))) {
            continue;
        }
        done++;
        bad += play_failing(site, s, 1, false);
        bad += play_failing(site, s, 1, true);
        for (unsigned more = MIN(hits, all ? CALLS_ALL : CALLS_USUAL); more > 1; more--) {
            bool each = hits <= (all ? CALLS_ALL : CALLS_USUAL);
            unsigned hit = each ? more : 2 + random_below(random, hits - 1);

            bad += play_failing(site, s, hit, false);
            bad += all || more == 2 ? play_failing(site, s, hit, true) : 0;
        }
    }
    return bad;
}

/* --- The table -------------------------------------------------------------------------------- */

static const char *reason(const struct site *site)
{
    for (size_t i = 0; i < ARRAY_SIZE(unreached); i++) {
        if (strncmp(site->file, unreached[i].file, strlen(unreached[i].file)) == 0 &&
            (!unreached[i].in || strcmp(site->in, unreached[i].in) == 0)) {
            return unreached[i].why;
        }
    }
    return NULL;
}

static void print_table(void)
{
    printf("%-34s %-16s %6s %5s  %-16s %s\n", "place", "calls", "hits", "runs", "fails once",
           "fails for ever");
    for (unsigned i = 0; i < n_sites; i++) {
        const struct site *site = &sites[i];
        AUTOFREE char *place = mem_printf("%s:%u", site->file, site->line);

        if (!site->total && !site->after) {
            printf("%-34s %-16s %6s        %s\n", place, site->what, "-",
                   reason(site) ? reason(site) : "HOLE: not reached");
            continue;
        }
        printf("%-34s %-16s %6u %5u  %-16s %s\n", place, site->what, site->total,
               site->struck_once + site->struck_ever,
               !site->struck_once    ? "HOLE"
               : site->refused_once ? "told"
                                    : "survived",
               !site->struck_ever    ? "HOLE"
               : site->refused_ever ? "told"
                                    : "survived");
    }
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void scenarios_go_well_when_nothing_fails(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        if (!scenario_possible(&scenarios[i])) {
            continue;
        }
        snprintf(doing, sizeof(doing), "%s, nothing fails\n", scenarios[i].name);
        play(&scenarios[i], plan_counting, NULL);
        if (run.trouble[0] || run.refused > (scenarios[i].co_run == co_img_reads)) {
            print_message("%s    %s (%u refused of %u)\n", doing, run.trouble, run.refused,
                          run.steps);
        }
        assert_true(run.steps > 0 && !run.trouble[0]);
        assert_true(run.refused <= (scenarios[i].co_run == co_img_reads)); /* "they differ" */
    }
    play(&scenarios[0], NULL, NULL);
    live_usually = live_blocks;
}

static void every_call_of_the_host_may_fail(void **state)
{
    struct random random;
    unsigned bad = 0;

    random_seed(&random, 7);
    for (unsigned i = 0; i < n_sites; i++) {
        bad += fail_site(&sites[i], &random);
    }
    for (unsigned i = 0; i < n_sites; i++) {
        second = sites[i].after ? &sites[i] : NULL;
        if (second) {
            bad += play_failing(second->after, second->after_in, second->after_hit,
                                second->after_ever);
        }
    }
    second = NULL;
    if (table) {
        print_table();
    }
    print_message("%u places, %u runs\n", n_sites, runs);
    assert_int_equal(bad, 0);
}

static void the_table_has_no_hole(void **state)
{
    unsigned holes = 0;

    for (unsigned i = 0; i < n_sites; i++) {
        const struct site *site = &sites[i];

        if (site->total || site->after ? !site->struck_once || !site->struck_ever : !reason(site)) {
            print_message("%s:%u %s: %s\n", site->file, site->line, site->what,
                          site->total || site->after ? "did not fail" : "is never reached");
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
    find_sites();
    io_site_hook = called;
    return 0;
}

static int teardown(void **state)
{
    io_site_hook = NULL;
    io_sim_snapshot_free(first_disk);
    return rig_teardown(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenarios_go_well_when_nothing_fails),
        cmocka_unit_test(every_call_of_the_host_may_fail),
        cmocka_unit_test(the_table_has_no_hole),
    };
    struct sigaction act = { .sa_handler = last_words, .sa_flags = SA_RESETHAND };

    sigaction(SIGABRT, &act, NULL);
    for (int i = 1; i < argc; i++) {
        all = all || strcmp(argv[i], "--all") == 0;
        table = table || strcmp(argv[i], "--table") == 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
