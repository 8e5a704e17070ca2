/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strangers' text: what a terminal would obey is written out, everything else stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/text.h"

static void expect_shown(const char *text, const char *expected)
{
    AUTOFREE char *shown = text_shown(text);

    assert_string_equal(shown, expected);
}

static void plain_text_stays(void **state)
{
    expect_shown("", "");
    expect_shown("two words\n\tand a line\n", "two words\n\tand a line\n");
    expect_shown(" ~\\x", " ~\\x");
    expect_shown("Gr\xc3\xbc\xc3\x9f" "e \xe2\x82\xac \xf0\x9f\x90\xa6 \xc2\xa0", "Gr\xc3\xbc\xc3\x9f" "e \xe2\x82\xac \xf0\x9f\x90\xa6 \xc2\xa0");
}

static void control_characters_are_written_out(void **state)
{
    expect_shown("\x1b[31m", "\\x1b[31m");
    expect_shown("a\rb\bc\x7f\x01", "a\\x0db\\x08c\\x7f\\x01");
    /* Those of eight bits as well, as UTF-8 has them and alone. */
    expect_shown("\xc2\x9b" "2J", "\\xc2\\x9b2J");
    expect_shown("\xc2\x80\xc2\x9f", "\\xc2\\x80\\xc2\\x9f");
    expect_shown("\x9b" "2J", "\\x9b2J");
}

static void what_is_no_utf8_is_written_out(void **state)
{
    expect_shown("\xff\xfe", "\\xff\\xfe");
    expect_shown("\xc3", "\\xc3");
    expect_shown("\xc3(", "\\xc3(");
    expect_shown("\xc0\x80", "\\xc0\\x80");             /* zero in two bytes */
    expect_shown("\xc1\x9b", "\\xc1\\x9b");             /* '[' in two */
    expect_shown("\xe0\x80\x9b", "\\xe0\\x80\\x9b");    /* ESC in three */
    expect_shown("\xed\xa0\x80", "\\xed\\xa0\\x80");    /* half of a pair */
    expect_shown("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
    expect_shown("\xf0\x9f\x90", "\\xf0\\x9f\\x90");
}

/* All of two bytes: what is shown is printable ASCII, a newline, a tab, or a character beyond the controls. */
static void nothing_of_two_bytes_is_obeyed(void **state)
{
    for (unsigned i = 1; i < 65536; i++) {
        char text[3] = { i & 0xff, i >> 8, 0 };
        AUTOFREE char *shown = text_shown(text);

        for (const unsigned char *p = (unsigned char *)shown; *p; p++) {
            assert_true(*p >= ' ' || *p == '\n' || *p == '\t');
            assert_int_not_equal(*p, 0x7f);
            if (*p >= 0x80) {
                assert_in_range(p[0], 0xc2, 0xdf);
                assert_in_range(p[1], p[0] == 0xc2 ? 0xa0 : 0x80, 0xbf);
                p++;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_stays),
        cmocka_unit_test(control_characters_are_written_out),
        cmocka_unit_test(what_is_no_utf8_is_written_out),
        cmocka_unit_test(nothing_of_two_bytes_is_obeyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
