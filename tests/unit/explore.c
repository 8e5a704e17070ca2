/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What must hold of every state in which the power could go, on bounded work: all single operations,
 * some pairs, and enough random work for 200,000 distinct states.  scripts/explore does more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/mem.h"
#include "explore/batch.h"

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1 /* slow: fewer of everything */
#else
#define SANITIZED 0
#endif

/* What was bad once. */
static const struct {
    unsigned seed;
    const char *plan;
} found[] = {
    /* Success was said of a pointer that a dead process had not flushed. */
    { 1, "short/64k-v2/stream" },
    { 1, "raw/512-v2/snapshot&snapshot" },      /* two pivots met half-way */
    { 1, "two/4k-v3/set-backing+set-backing" }, /* a format freed while it was in use */
    /* The autoclear bits that a dead process had cleared came back under what was written next. */
    { 1, "one/4k-v3/write-part" },
    /* What lies below shone through a disk that grew again: a map still held zeroes there. */
    { 1, "small:two/4k-v2/shrink~10+cancel+grow-part~43" },
    { 1, "raw-top/512-v2/grow" }, /* success was said of a size that was not durable */
    /* A write that came in while a raw disk was flushed for its snapshot was never flushed. */
    { 5, "raw-top/512-v2/snapshot&write-part" },
    /* What a killed commit had written below was in the page cache only; a guest saw it, since the
     * overlay's own entries had died with the process, and a flush promised it. */
    { 1, "small:raw/512-v3/zero-keep~761344+shrink+set-backing+inner-delete+snapshot-existing&"
         "flush~939631&commit&write-span~591981+cancel+grow" },
    /* A commit failed because the autoclear bits could not be cleared; the next one took them for
     * cleared, and wrote. */
    { 1, "small:faults~438696:inner/4k-counts64/grow+snapshot&snapshot-group+commit+commit" },
    /* A disk that blockdev-reopen opened anew had no size meanwhile. */
    { 3, "two/4k-v3/write-whole+snapshot-existing&reopen&snapshot-node" },
    /* A node that a failed blockdev-reopen could not make writable again was written to. */
    { 1, "small:faults~242160:raw/4k-lazy/discard-span~135257+copy-on-read~81869+blockdev-create~363200&"
         "shrink~613165&zero-whole~916520+discard-span~141525+write-part~110626+reopen+grow~65470" },
    /* A commit left zeroes behind the end of a disk that had become shorter. */
    { 1, "small:two/16k-ext/grow-part~474992+commit+zero-whole~734590+shrink~659108+commit" },
    /* Not bad: of an image that nobody claims any more a failed sync had dropped something. */
    { 1, "faults~847714:short/4k-lazy/set-backing-mid" },
    /* Not bad: a transfer that ended within a sector while somebody wrote there. */
    { 1, "small:faults~302876:raw-top/4k-zstd/zero-whole+discard-span+discard-span+zero-keep+create+create+"
         "read+write-part+grow-part+write-whole&read~762591&write-far~33429" },
};

static struct batch usual(void)
{
    struct batch b = { .options = batch_usual, .out = stdout };

    b.options.out = stdout;
    return b;
}

static void what_was_bad_once_is_good(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
        struct plan plan;
        struct batch b = usual();

        assert_true(plan_parse(found[i].plan, &plan));
        b.plans = &plan;
        b.n_plans = 1;
        b.out = NULL;
        b.options.seed = found[i].seed;
        b.options.go_on_every = 1;
        batch_run(&b);
        assert_int_equal(b.stats.bad, 0);
    }
}

static void every_single_operation_survives_every_cut(void **state)
{
    struct batch b = usual();

    b.max_len = 1;
    b.options.go_on_every = SANITIZED ? b.options.go_on_every : 4;
    batch_run(&b);
    assert_int_equal(b.stats.bad, 0);
}

static void pairs_of_operations_survive_every_cut(void **state)
{
    struct batch b = usual();

    b.max_len = 2;
    b.every = SANITIZED ? 997 : 131;
    batch_run(&b);
    assert_int_equal(b.stats.bad, 0);
}

static void long_random_work_survives_cuts_and_faults(void **state)
{
    struct batch b = usual();

    b.swarm = SANITIZED ? 50 : 1100;
    b.options.points_max = 60;
    batch_run(&b);
    assert_int_equal(b.stats.bad, 0);
    if (!SANITIZED) {
        assert_true(b.stats.distinct >= 200000);
    }
}

static void the_same_seed_gives_the_same_hash(void **state)
{
    uint64_t first = 0;

    for (int i = 0; i < 2; i++) {
        struct batch b = usual();

        b.swarm = 6;
        b.options.seed = 7;
        b.options.points_max = 20;
        b.options.go_on_every = 4;
        batch_run(&b);
        assert_true(b.stats.hash != 0);
        if (i) {
            assert_int_equal(b.stats.hash, first);
        }
        first = b.stats.hash;
    }
}

/* The first plan is bad, the second one good. */
static uint64_t plans_explored_after(const char *bad)
{
    struct plan plans[2];
    struct batch b = usual();

    assert_true(plan_parse(bad, &plans[0]));
    assert_true(plan_parse("two/4k-v3/stream", &plans[1]));
    b.plans = plans;
    b.n_plans = ARRAY_SIZE(plans);
    b.out = b.options.out = NULL;
    batch_run(&b);
    assert_int_equal(b.stats.bad, 1);
    return b.stats.plans;
}

static void a_job_that_does_not_end_is_found_and_spoils_no_other_plan(void **state)
{
    assert_int_equal(plans_explored_after("two/4k-v3/forget"), 2);
}

static void no_plan_follows_one_that_leaves_something_behind_for_good(void **state)
{
    assert_int_equal(plans_explored_after("two/4k-v3/forget~1"), 1);
}

static void another_seed_gives_another_hash(void **state)
{
    uint64_t first = 0;

    for (unsigned i = 0; i < 2; i++) {
        struct plan plan;
        struct batch b = usual();

        assert_true(plan_parse("two/4k-v3/write-part&stream", &plan));
        b.plans = &plan;
        b.n_plans = 1;
        b.options.seed = 1 + i;
        batch_run(&b);
        assert_true(b.stats.hash != first);
        first = b.stats.hash;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_bad_once_is_good),
        cmocka_unit_test(every_single_operation_survives_every_cut),
        cmocka_unit_test(pairs_of_operations_survive_every_cut),
        cmocka_unit_test(long_random_work_survives_cuts_and_faults),
        cmocka_unit_test(the_same_seed_gives_the_same_hash),
        cmocka_unit_test(another_seed_gives_another_hash),
        cmocka_unit_test(a_job_that_does_not_end_is_found_and_spoils_no_other_plan),
        cmocka_unit_test(no_plan_follows_one_that_leaves_something_behind_for_good),
    };

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests_name("explore", tests, NULL, NULL);
}
