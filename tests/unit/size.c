/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sizes and times as people write them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/size.h"

static void sizes_are_understood(void **state)
{
    static const struct {
        const char *text;
        uint64_t unit, value;
    } cases[] = {
        { "0", 1, 0 },
        { "123", 1, 123 },
        { " 12", 1, 12 },
        { "123", 1 << 20, 123ULL << 20 },
        { "0x200", 1, 512 },
        { "0X1B", 1, 27 },
        { "0x10", 1 << 20, 16 << 20 },
        { "64k", 1, 65536 },
        { "64K", 1 << 20, 65536 },
        { "512b", 1 << 20, 512 },
        { "1.5G", 1, 3ULL << 29 },
        { "1.", 1 << 20, 1 << 20 },
        { "1.", 1, 1 },
        { "0.0", 1, 0 },
        { "+64k", 1, 65536 },
        { "+0x10", 1, 16 },
        { "0.1k", 1, 102 },
        { "0.0005k", 1, 1 }, /* rounded */
        { "1.1g", 1, 1181116006 },
        { "2t", 1, 2ULL << 40 },
        { "3P", 1, 3ULL << 50 },
        { "15e", 1, 15ULL << 60 },
        { "15.9999999999999999e", 1, UINT64_MAX - 1 },
        { "18446744073709551615", 1, UINT64_MAX },
        { "0xffffffffffffffff", 1, UINT64_MAX },
        { "000000000000000000000000000001k", 1, 1024 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t value = 77;

        assert_int_equal(size_parse(cases[i].text, cases[i].unit, &value, NULL), 0);
        if (cases[i].value == UINT64_MAX - 1) {
            assert_true(value > 15ULL << 60 && value < UINT64_MAX);
        } else {
            assert_int_equal(value, cases[i].value);
        }
    }
}

static void wrong_sizes_are_refused_and_leave_the_result_alone(void **state)
{
    static const struct {
        const char *text;
        int ret;
    } cases[] = {
        { "", -EINVAL },       { " ", -EINVAL },        { ".", -EINVAL },     { "k", -EINVAL },
        { "-1", -EINVAL },     { "++1", -EINVAL },      { ".5k", -EINVAL },   { "+", -EINVAL },
          { "1x", -EINVAL },    { "1kk", -EINVAL },
        { "1 k", -EINVAL },    { "1e3", -EINVAL },      { "0x20M", -EINVAL }, { "0x", -EINVAL },
        { "0x1.8", -EINVAL },  { "1.5", -EINVAL },      { "1.5b", -EINVAL },  { "A", -EINVAL },
        { "file-A.img", -EINVAL },
        { "16e", -ERANGE },    { "18446744073709551616", -ERANGE },
        { "0x10000000000000000", -ERANGE }, { "17179869184g", -ERANGE },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t value = 77;

        assert_int_equal(size_parse(cases[i].text, 1, &value, NULL), cases[i].ret);
        assert_int_equal(value, 77);
    }
}

static void the_end_of_a_size_is_told(void **state)
{
    const char *text = "64k,rest";
    const char *end;
    uint64_t value;

    assert_int_equal(size_parse(text, 1, &value, &end), 0);
    assert_int_equal(value, 65536);
    assert_ptr_equal(end, text + 3);
    assert_int_equal(size_parse("7 ", 1, &value, &end), 0);
    assert_string_equal(end, " ");
    assert_int_equal(size_parse("1e3", 1, &value, &end), -EINVAL);
}

static void times_are_understood(void **state)
{
    static const struct {
        const char *text;
        int ret;
        uint64_t ns;
    } cases[] = {
        { "30s", 0, 30000000000 },
        { "30", 0, 30000000000 },
        { "2ms", 0, 2000000 },
        { "1.5us", 0, 1500 },
        { "7ns", 0, 7 },
        { "0.5", 0, 500000000 },
        { "2m", 0, 120000000000 },
        { "1.5h", 0, 5400000000000 },
        { "0", 0, 0 },
        { "", -EINVAL, 0 },
        { ".5s", -EINVAL, 0 },
        { "s", -EINVAL, 0 },
        { "1x", -EINVAL, 0 },
        { "1 s", -EINVAL, 0 },
        { "-1s", -EINVAL, 0 },
        { "0x10", -EINVAL, 0 },
        { "1m30", -EINVAL, 0 },
        { "18446744074", -ERANGE, 0 },
        { "99999999999999999999999h", -ERANGE, 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t ns = 77;

        assert_int_equal(time_parse(cases[i].text, &ns), cases[i].ret);
        assert_int_equal(ns, cases[i].ret ? 77 : cases[i].ns);
    }
}

/* What `qemu-img info` of QEMU 7.2 prints for files of these sizes. */
static void sizes_print_as_qemu_img_prints_them(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 B" },
        { 999, "999 B" },
        { 1000, "0.977 KiB" },
        { 1024, "1 KiB" },
        { 1536, "1.5 KiB" },
        { 65536, "64 KiB" },
        { 1000000, "977 KiB" },
        { 1023488, "1e+03 KiB" },
        { 1024000, "0.977 MiB" },
        { 8388608, "8 MiB" },
        { 10737418240, "10 GiB" },
        { 1ULL << 50, "1 PiB" },
        { UINT64_MAX, "16 EiB" },
    };
    char buf[32];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_string_equal(size_format(cases[i].bytes, buf), cases[i].text);
        assert_string_equal(size_format_plain(cases[i].bytes, buf), strstr(cases[i].text, "e+") ? "0.976 MiB" : cases[i].text);
    }
}

static void times_print_short(void **state)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        { 0, "0 ns" },
        { 512, "512 ns" },
        { 999, "999 ns" },
        { 1250000, "1.25 ms" },
        { 999600, "1 ms" },
        { 3200000000, "3.2 s" },
        { 59900000000, "59.9 s" },
        { 245000000000, "4m05s" },
        { 3723000000000, "1h02m03s" },
        { UINT64_MAX, "5124095h34m33s" },
    };
    char buf[32];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_string_equal(time_format(cases[i].ns, buf), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_understood),
        cmocka_unit_test(wrong_sizes_are_refused_and_leave_the_result_alone),
        cmocka_unit_test(the_end_of_a_size_is_told),
        cmocka_unit_test(times_are_understood),
        cmocka_unit_test(sizes_print_as_qemu_img_prints_them),
        cmocka_unit_test(times_print_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
