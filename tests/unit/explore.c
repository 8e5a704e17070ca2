/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The explorer as a program: bounded and quick as a unit test, as long as wanted with arguments.
 *
 *   explore                     what `make check` runs
 *   explore --all [1|2|3]       every sequence up to that length (2) on every chain
 *   explore --every N           of those one plan in N
 *   explore --from N            begin with that plan
 *   explore --swarm N           N long random plans
 *   explore --go-on N           restart one state in N (16)
 *   explore --seconds N         stop after that time
 *   explore --seed N            1
 *   explore --qemu              one state in 1,000 is judged by qemu-img, too
 *   explore --sim seed=.. plan=.. cut=.. keep=..     one state again
 *
 * Exit code 1 when anything was bad.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/file.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/explore.h"

#define GO_ON_EVERY 16u
#define QEMU_EVERY 1000u
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1 /* slow: fewer of everything */
#else
#define SANITIZED 0
#endif

static double seconds_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void on_signal(int sig)
{
    static const char words[] = "\nended by a signal in ";

    if (write(STDERR_FILENO, words, sizeof(words) - 1) < 0 ||
        write(STDERR_FILENO, explore_where, strlen(explore_where)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(1);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void set_up(void)
{
    static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2,
                                                    NULL };

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    io_sim_init();
    io_engine_set_default(io_engine_find("sim"));
    node_set_drivers(drivers);
}

static void tear_down(void)
{
    io_sim_fini();
    io_fini();
    loop_fini();
}

/* --- Batches ---------------------------------------------------------------------------------- */

struct batch {
    struct explore_options options;
    unsigned max_len; /* sequences up to that length; 0: none */
    uint64_t every, from;
    unsigned three_layers; /* sequences of three on chains of so many layers at most */
    uint64_t swarm;
    double seconds;             /* 0: no limit */
    uint64_t numbered, skipped; /* plans that there are; that mean nothing on their chain */
    double began;
    const char *line;
    int replay_ret;
    struct explore *x;
    bool tell;
};

static bool is_time(const struct batch *b)
{
    return b->seconds == 0 || seconds_now() - b->began < b->seconds;
}

static void tell(const struct batch *b, const char *what)
{
    const struct explore_stats *s = explore_stats(b->x);
    double took = seconds_now() - b->began;

    printf("%s: %llu plans (%llu numbered, %llu without meaning), %llu moments, %llu sets tried, "
           "%llu distinct states, %llu judged, %llu restarted, %llu judged after a second crash, "
           "%llu second opinions, at most %llu leaked clusters, %.0f s, %.0f states/s, %llu bad\n",
           what, (unsigned long long)s->plans, (unsigned long long)b->numbered,
           (unsigned long long)b->skipped, (unsigned long long)s->points,
           (unsigned long long)s->visited, (unsigned long long)s->distinct,
           (unsigned long long)s->judged, (unsigned long long)s->gone_on,
           (unsigned long long)s->second, (unsigned long long)s->second_opinions,
           (unsigned long long)s->leaks_max, took, s->distinct / (took > 0 ? took : 1),
           (unsigned long long)s->bad);
    fflush(stdout);
}

static void co_sequences(struct batch *b, const struct shape *shape, const struct format *format,
                         unsigned len)
{
    for (uint64_t i = 0; i < plan_count(len) && is_time(b); i++) {
        struct plan plan;

        plan_number(shape, format, len, i, &plan);
        if (!plan_makes_sense(&plan)) {
            b->skipped++;
        } else if (b->numbered++ % b->every == 0 && b->numbered > b->from) {
            co_explore_plan(b->x, &plan);
        }
    }
}

static void co_batch(void *arg)
{
    struct batch *b = arg;

    for (unsigned len = 1; len <= b->max_len; len++) {
        for (unsigned s = 0; s < n_shapes; s++) {
            for (unsigned f = 0; f < n_formats; f++) {
                if (len < 3 || shapes[s].layers <= 2) { /* three: on the smallest shapes */
                    co_sequences(b, &shapes[s], &formats[f], len);
                }
            }
            if (b->tell && is_time(b)) {
                tell(b, shapes[s].name);
            }
        }
    }
    for (uint64_t i = 0; i < b->swarm && is_time(b); i++) {
        struct plan plan;

        plan_draw(b->options.seed * 1000003 + i, &plan);
        if (!co_explore_plan(b->x, &plan)) {
            co_explore_shrink(b->x, &plan);
        }
    }
}

static void run_batch(struct batch *b)
{
    set_up();
    b->x = explore_new(&b->options);
    b->began = seconds_now();
    b->every += !b->every;
    loop_run_co(co_batch, b);
    tell(b, "all");
    tear_down();
}

/* --- As a test -------------------------------------------------------------------------------- */

static const struct explore_options usual = {
    .seed = 1,
    .random_sets = 4,
    .singles_max = 24,
    .pairs_of = 4,
    .go_on_every = GO_ON_EVERY,
};

static uint64_t bad_in(struct batch *b)
{
    uint64_t bad;

    b->options.out = stdout;
    run_batch(b);
    bad = explore_stats(b->x)->bad;
    explore_free(b->x);
    return bad;
}

/* What was bad once. */
static const char *const found[] = {
    "short/64k-v2/stream", /* success was said of a pointer that a dead process had not flushed */
    "raw/512-v2/snapshot&snapshot",      /* two pivots met half-way */
    "two/4k-v3/set-backing+set-backing", /* a format freed while it was in use */
};

static CO_ENTRY void co_found(void *arg)
{
    struct batch *b = arg;

    for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
        struct plan plan;

        assert_true(plan_parse(found[i], &plan));
        co_explore_plan(b->x, &plan);
    }
}

static void what_was_bad_once_is_good(void **state)
{
    struct batch b = { .options = usual };

    b.options.out = stdout;
    b.options.go_on_every = 1;
    set_up();
    b.x = explore_new(&b.options);
    loop_run_co(co_found, &b);
    tear_down();
    assert_int_equal(explore_stats(b.x)->bad, 0);
    explore_free(b.x);
}

static void every_single_operation_survives_every_cut(void **state)
{
    struct batch b = { .options = usual, .max_len = 1 };

    b.options.go_on_every = SANITIZED ? GO_ON_EVERY : 1;
    assert_int_equal(bad_in(&b), 0);
}

static void pairs_of_operations_survive_every_cut(void **state)
{
    struct batch b = { .options = usual, .max_len = 2, .every = SANITIZED ? 197 : 17 };

    assert_int_equal(bad_in(&b), 0);
}

static void long_random_work_survives_cuts(void **state)
{
    struct batch b = { .options = usual, .swarm = SANITIZED ? 50 : 1300 };

    b.options.points_max = 60;
    b.options.out = stdout;
    run_batch(&b);
    assert_int_equal(explore_stats(b.x)->bad, 0);
    if (!SANITIZED) {
        assert_true(explore_stats(b.x)->distinct >= 200000);
    }
    explore_free(b.x);
}

/* --- As a program ----------------------------------------------------------------------------- */

/* qemu-img's opinion: copies of the images go to a directory of the host. */
static char *judge_with_qemu_img(const char *const *paths, unsigned n)
{
    char dir[] = "/tmp/merganser-explore.XXXXXX";
    char *words = NULL;

    if (!mkdtemp(dir)) {
        return mem_strdup("no directory for qemu-img");
    }
    for (unsigned i = 0; i < n; i++) {
        AUTOFREE char *to = mem_printf("%s%s", dir, paths[i]);

        io_sim_export(paths[i], to);
    }
    AUTOFREE char *command = mem_printf(
        "cd %s && qemu-img check -q %s >said 2>&1; r=$?; [ $r = 0 ] || [ $r = 3 ] || exit 1", dir,
        paths[0] + 1);

    if (system(command) != 0) {
        words = mem_printf("qemu-img check finds corruption, see %s/said", dir);
    } else {
        AUTOFREE char *clean = mem_printf("rm -r %s", dir);

        if (system(clean) != 0) {
            words = mem_printf("%s stays", dir);
        }
    }
    return words;
}

static void co_replay(void *arg)
{
    struct batch *b = arg;

    b->replay_ret = co_explore_replay(b->line, stdout);
}

static int replay(const char *line)
{
    struct batch b = { .line = line };

    set_up();
    loop_run_co(co_replay, &b);
    tear_down();
    if (b.replay_ret < 0) {
        fprintf(stderr, "explore: not a line to replay: %s\n", line);
        return 2;
    }
    printf("%s\n", b.replay_ret ? "bad" : "good");
    return b.replay_ret;
}

static char *join(char **words, int n)
{
    char *line = mem_strdup("");

    for (int i = 0; i < n; i++) {
        char *longer = mem_printf("%s%s%s", line, i ? " " : "", words[i]);

        free(line);
        line = longer;
    }
    return line;
}

static bool parse_number(const char *key, uint64_t value, struct batch *b)
{
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = { { "--every", &b->every },
                    { "--from", &b->from },
                    { "--swarm", &b->swarm },
                    { "--seed", &b->options.seed } };

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (strcmp(key, numbers[i].name) == 0) {
            *numbers[i].to = value;
            return true;
        }
    }
    if (strcmp(key, "--all") == 0) {
        b->max_len = value;
    } else if (strcmp(key, "--go-on") == 0) {
        b->options.go_on_every = value;
    } else if (strcmp(key, "--points") == 0) {
        b->options.points_max = value;
    } else if (strcmp(key, "--seconds") == 0) {
        b->seconds = value;
    } else {
        return false;
    }
    return true;
}

static int program(int argc, char **argv)
{
    struct batch b = { .options = usual, .tell = true };
    int bad;

    if (strcmp(argv[1], "--sim") == 0) {
        AUTOFREE char *line = join(argv + 2, argc - 2);

        return replay(line);
    }
    b.options.out = stdout;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--qemu") == 0) {
            b.options.judge = judge_with_qemu_img;
            b.options.judge_every = QEMU_EVERY;
        } else if (i + 1 >= argc || !parse_number(argv[i], strtoull(argv[i + 1], NULL, 0), &b)) {
            fprintf(stderr, "explore: what is %s?\n", argv[i]);
            return 2;
        } else {
            i++;
        }
    }
    run_batch(&b);
    bad = explore_stats(b.x)->bad > 0;
    explore_free(b.x);
    return bad;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_bad_once_is_good),
        cmocka_unit_test(every_single_operation_survives_every_cut),
        cmocka_unit_test(pairs_of_operations_survive_every_cut),
        cmocka_unit_test(long_random_work_survives_cuts),
    };

    return argc > 1 ? program(argc, argv)
                    : cmocka_run_group_tests_name("explore", tests, NULL, NULL);
}
