/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who looks for news before he sleeps, and for how long he does without it after failures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/patience.h"

/* How many times in a row nobody looks. */
static unsigned looks_left_out(struct patience *p)
{
    unsigned n = 0;

    while (!patience_has(p)) {
        n++;
    }
    return n;
}

static void each_look_that_fails_makes_the_next_one_twice_as_far_away(void **state)
{
    struct patience p = { 0 };
    unsigned last = looks_left_out(&p);

    assert_int_equal(last, 0);
    for (int i = 0; i < 8; i++) {
        patience_learn(&p, false);
        assert_int_equal(looks_left_out(&p), 2 * last + 1);
        last = 2 * last + 1;
    }
}

static void it_is_never_further_away_than_the_limit(void **state)
{
    struct patience p = { 0 };

    for (int i = 0; i < 100; i++) {
        patience_learn(&p, false);
        assert_true(looks_left_out(&p) <= PATIENCE_SKIP_MAX);
    }
}

static void one_that_succeeds_makes_up_for_all_failures(void **state)
{
    struct patience p = { 0 };

    for (int i = 0; i < 5; i++) {
        patience_learn(&p, false);
    }
    patience_learn(&p, true);
    assert_int_equal(looks_left_out(&p), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_look_that_fails_makes_the_next_one_twice_as_far_away),
        cmocka_unit_test(it_is_never_further_away_than_the_limit),
        cmocka_unit_test(one_that_succeeds_makes_up_for_all_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
