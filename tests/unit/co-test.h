/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A test that is a coroutine: TEST(what_is_to_be_so, co_function).  The file has a run() of its own,
 * which knows what must be there before and what must be gone afterwards.
 */
#ifndef TESTS_UNIT_CO_TEST_H
#define TESTS_UNIT_CO_TEST_H

#define TEST(name, co_test) \
    static void name(void **state) \
    { \
        run(co_test); \
    }

#endif
