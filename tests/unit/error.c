/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors: the first one wins, texts are owned, nobody need ask.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/error.h"
#include "core/mem.h"

static void the_first_error_wins(void **state)
{
    struct error err = ERROR_INIT;

    assert_false(error_is_set(&err));
    error_set_class(&err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", "virtio9");
    error_set(&err, "something else");
    error_set_errno(&err, EIO, "and more");
    assert_true(error_is_set(&err));
    assert_string_equal(err.text, "Device 'virtio9' not found");
    assert_int_equal(err.class, ERROR_DEVICE_NOT_FOUND);
    assert_string_equal(error_class_name(err.class), "DeviceNotFound");
    error_clear(&err);
    assert_false(error_is_set(&err));
    assert_null(err.text);
    error_set(&err, "again");
    assert_string_equal(err.text, "again");
    assert_string_equal(error_class_name(err.class), "GenericError");
    error_clear(&err);
}

static void errno_may_have_either_sign(void **state)
{
    for (int sign = -1; sign <= 1; sign += 2) {
        struct error err = ERROR_INIT;

        error_set_errno(&err, sign * ENOENT, "Could not open '%s'", "x");
        assert_string_equal(err.text, "Could not open 'x': No such file or directory");
        error_clear(&err);
    }
}

static void hints_pile_up_and_words_go_in_front(void **state)
{
    struct error err = ERROR_INIT;

    error_set(&err, "invalid size");
    assert_null(err.hint);
    error_hint(&err, "the chain has %s", "A");
    error_hint(&err, "and B");
    error_prepend(&err, "Error: ");
    assert_string_equal(err.text, "Error: invalid size");
    assert_string_equal(err.hint, "the chain has A\nand B");
    error_clear(&err);
    assert_null(err.hint);
}

static void moving_leaves_the_source_clear_and_keeps_the_first(void **state)
{
    struct error a = ERROR_INIT, b = ERROR_INIT;

    error_move(&a, &b);
    assert_false(error_is_set(&a));
    error_set(&b, "one");
    error_hint(&b, "hint");
    error_move(&a, &b);
    assert_false(error_is_set(&b));
    assert_string_equal(a.text, "one");
    assert_string_equal(a.hint, "hint");
    error_set(&b, "two");
    error_move(&a, &b);
    assert_false(error_is_set(&b));
    assert_string_equal(a.text, "one");
    error_set(&b, "three");
    error_move(NULL, &b);
    assert_false(error_is_set(&b));
    error_clear(&a);
}

static void nobody_need_ask(void **state)
{
    error_set(NULL, "x");
    error_set_class(NULL, ERROR_GENERIC, "x");
    error_set_errno(NULL, EIO, "x");
    error_hint(NULL, "x");
    error_prepend(NULL, "x");
    assert_false(error_is_set(NULL));
}

static void strings_are_copied(void **state)
{
    AUTOFREE char *part = mem_strndup("abcdef", 3);
    AUTOFREE char *whole = mem_strndup("ab", 30);
    AUTOFREE char *text = mem_printf("%s-%d", part, 7);
    AUTOFREE char *aligned = mem_align(4096, 100);

    assert_string_equal(part, "abc");
    assert_string_equal(whole, "ab");
    assert_string_equal(text, "abc-7");
    assert_null(mem_strdup(NULL));
    assert_int_equal((uintptr_t)aligned % 4096, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_wins),
        cmocka_unit_test(errno_may_have_either_sign),
        cmocka_unit_test(hints_pile_up_and_words_go_in_front),
        cmocka_unit_test(moving_leaves_the_source_clear_and_keeps_the_first),
        cmocka_unit_test(nobody_need_ask),
        cmocka_unit_test(strings_are_copied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
