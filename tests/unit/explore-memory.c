/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every operation of the explorer, and long random work, give back the memory that they take
 * (rule 20).  malloc is told to count exactly, which it can only be told before it begins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mem.h"
#include "explore/batch.h"

#define TUNABLES "GLIBC_TUNABLES"
#define EXACT "glibc.malloc.tcache_count=0"

static struct batch measuring(void)
{
    struct batch b = { .options = batch_usual, .out = stdout };

    b.options.out = stdout;
    b.options.points_max = 1;
    b.options.go_on_every = 0;
    b.options.random_sets = 0;
    b.options.memory_every = 1;
    return b;
}

static void judge(const struct batch *b)
{
    assert_int_equal(b->stats.bad, 0);
#ifndef __SANITIZE_ADDRESS__ /* which looks for lost memory itself */
    assert_int_equal(b->stats.measured, b->stats.plans);
#endif
}

static void every_operation_gives_back_its_memory(void **state)
{
    struct batch b = measuring();

    b.max_len = 1;
    batch_run(&b);
    judge(&b);
}

static void long_random_work_with_faults_gives_back_its_memory(void **state)
{
    struct batch b = measuring();

    b.swarm = 100;
    batch_run(&b);
    judge(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_gives_back_its_memory),
        cmocka_unit_test(long_random_work_with_faults_gives_back_its_memory),
    };
    const char *now = getenv(TUNABLES);

    if (!now || strcmp(now, EXACT) != 0) {
        setenv(TUNABLES, EXACT, 1);
        execv("/proc/self/exe", argv);
        return 1;
    }
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests_name("explore-memory", tests, NULL, NULL);
}
