/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main() for programs without libFuzzer: replays inputs, then mutates them from a seed.
 *
 *   NAME [-d DICTIONARY] [-r RUNS] [-t SECONDS] [-s SEED] [-q] FILE|DIRECTORY...
 *
 * Prints TAP (one test for the replay, one for the mutations) and speeds.  When an input kills the program, it lies in
 * ./crash-NAME, from where it goes to tests/fuzz/corpus/NAME/ under a name that says what it broke.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/lib/fuzz.h"

#define MAX_LEN 4096u
#define HANG_MS (5 * FUZZ_MS_MAX) /* of processor time for one input: the harness has no word any more */

struct input {
    char *name;
    uint8_t *data;
    size_t len;
};
static struct input *inputs;
static size_t n_inputs;
static struct input now; /* the one that runs */

/* --- Inputs ------------------------------------------------------------------------------------------ */

static int add_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    struct stat st;

    if (!in || fstat(fileno(in), &st)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    inputs = mem_reallocarray(inputs, n_inputs + 1, sizeof(*inputs));
    struct input *i = &inputs[n_inputs++];

    i->name = mem_strdup(path);
    i->data = mem_alloc(st.st_size + 1);
    i->len = fread(i->data, 1, st.st_size, in);
    fclose(in);
    return 0;
}

static int add(const char *path)
{
    struct dirent **list;
    int n = scandir(path, &list, NULL, alphasort), ret = 0;

    if (n < 0) {
        return add_file(path);
    }
    for (int i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.') {
            AUTOFREE char *name = mem_printf("%s/%s", path, list[i]->d_name);

            ret = ret ? ret : add_file(name);
        }
        free(list[i]);
    }
    free(list);
    return ret;
}

/* --- The end of an input that kills -------------------------------------------------------------------- */

static void save(void)
{
    char path[64] = "crash-";

    strncat(path, fuzz_target.name, 40);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);

    if (fd >= 0) {
        ssize_t n = write(fd, now.data, now.len);

        fprintf(stderr, "fuzz %s: %s: %zd bytes saved as %s\n", fuzz_target.name, now.name, n, path);
        close(fd);
    }
}

static void killed(int number)
{
    signal(number, SIG_DFL);
    if (number == SIGPROF) {
        fprintf(stderr, "fuzz %s: an input does not end\n", fuzz_target.name);
    }
    save();
    raise(number == SIGPROF ? SIGABRT : number);
}

void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void catch_death(void)
{
    static const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF };

    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(save);
        signal(SIGPROF, killed);
        signal(SIGABRT, killed);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        signal(signals[i], killed);
    }
}

static void run(struct input i)
{
    struct itimerval limit = { .it_value = { HANG_MS / 1000, HANG_MS % 1000 * 1000 } };

    setitimer(ITIMER_PROF, &limit, NULL);
    now = i;
    LLVMFuzzerTestOneInput(i.data, i.len);
}

/* --- Runs ----------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void replay(bool quiet)
{
    double begin = seconds();

    for (size_t i = 0; i < n_inputs; i++) {
        if (!quiet) {
            printf("# %s\n", inputs[i].name);
            fflush(stdout);
        }
        run(inputs[i]);
    }
    printf("ok 1 - %zu inputs of %s replayed in %.2f s\n", n_inputs, fuzz_target.name, seconds() - begin);
    fflush(stdout);
}

/* Inputs grow out of those that were given: nothing is learnt on the way. */
static void mutate(uint64_t runs, double time, uint64_t seed)
{
    size_t max = fuzz_target.max_len ? fuzz_target.max_len : MAX_LEN;
    AUTOFREE uint8_t *data = mem_alloc(max);
    double begin = seconds();
    struct random rnd;
    uint64_t n;

    random_seed(&rnd, seed);
    for (n = 0; n < runs && (n % 16 || seconds() - begin < time); n++) {
        const struct input *from = n_inputs ? &inputs[random_below(&rnd, n_inputs)] : NULL;
        size_t len = from ? MIN(from->len, max) : 0;

        if (from) {
            memcpy(data, from->data, len);
        }
        for (uint64_t k = 1 + random_below(&rnd, 4); k-- > 0;) {
            len = fuzz_target.mutate && random_below(&rnd, 4)
                      ? fuzz_target.mutate(data, len, max, &rnd)
                      : fuzz_mutate_bytes(data, len, max, &rnd);
        }
        run((struct input){ "a mutation", data, len });
    }
    double took = seconds() - begin;

    now = (struct input){ "none", NULL, 0 };
    printf("ok 2 - %llu mutations of %s in %.2f s, %.0f a second\n", (unsigned long long)n, fuzz_target.name, took,
           took > 0 ? n / took : 0);
}

int main(int argc, char **argv)
{
    uint64_t runs = 0, seed = 1;
    double time = 1e9;
    bool quiet = false;
    int c;

    while ((c = getopt(argc, argv, "d:r:t:s:q")) != -1) {
        if (c == 'd' && fuzz_dictionary(optarg)) {
            perror(optarg);
            return 2;
        } else if (c == 'r' || c == 's') {
            *(c == 'r' ? &runs : &seed) = strtoull(optarg, NULL, 0);
        } else if (c == 't') {
            time = atof(optarg);
            runs = runs ? runs : UINT64_MAX;
        } else if (c == 'q') {
            quiet = true;
        } else if (c == '?') {
            return 2;
        }
    }
    for (; optind < argc; optind++) {
        if (add(argv[optind])) {
            return 2;
        }
    }
    catch_death();
    printf("1..%d\n", runs ? 2 : 1);
    fflush(stdout);
    run((struct input){ "the empty input", (uint8_t *)"", 0 }); /* the world is there for the mutators */
    replay(quiet);
    if (runs) {
        mutate(runs, time, seed);
    }
    return 0;
}
