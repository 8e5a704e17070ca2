/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's text: values out of bytes, however the bytes arrive, and what QEMU 7.2 says about wrong
 * ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/json-parse.h"
#include "monitor/qmp-text.h"

/* Feed `bytes` in pieces of `piece`; all answers, one a line: a value as it prints, or ! and the
 * fault. */
static char *answers(const char *bytes, size_t len, size_t piece)
{
    struct json_parser *p = json_parser_new();
    char *out = mem_strdup("");

    for (size_t at = 0; at < len; at += piece) {
        const char *data = bytes + at;
        size_t rest = MIN(piece, len - at);
        struct error err = ERROR_INIT;
        json_t *value;

        while (json_parser_next(p, &data, &rest, &value, &err)) {
            char *text = value ? qmp_print(value) : NULL;
            char *longer = mem_printf("%s%s%s\n", out, value ? "" : "!", value ? text : err.text);

            assert_true(!value == error_is_set(&err));
            free(text);
            free(out);
            out = longer;
            json_decref(value);
            error_clear(&err);
        }
        assert_int_equal(rest, 0);
    }
    json_parser_free(p);
    return out;
}

struct example {
    const char *bytes, *answers;
};

static void check_bytes(const char *bytes, size_t len, const char *expected)
{
    static const size_t pieces[] = { 1, 3, 1u << 20 };

    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        AUTOFREE char *got = answers(bytes, len, pieces[i]);

        if (strcmp(got, expected) != 0) {
            print_message("input: %s\n", bytes);
        }
        assert_string_equal(got, expected);
    }
}

static void check(const struct example *e)
{
    check_bytes(e->bytes, strlen(e->bytes), e->answers);
}

static void values_need_nothing_between_them(void **state)
{
    static const struct example examples[] = {
        { "{\"execute\":\"query-status\"}{\"execute\":\"query-name\"}",
          "{\"execute\": \"query-status\"}\n{\"execute\": \"query-name\"}\n" },
        { "{\"a\":1}", "{\"a\": 1}\n" },
        { "{\"a\"\n\r\t :\n 1 }\r\n", "{\"a\": 1}\n" },
        { "[[[\n\n{'a':'b'}\n]]]", "[[[{\"a\": \"b\"}]]]\n" },
        { "1 2\n", "1\n2\n" },
        { "12abc\n", "12\n!JSON parse error, invalid keyword 'abc'\n" },
        { "\"a\"\"b\"", "\"a\"\n\"b\"\n" },
        { "null1\n", "null\n1\n" },
        { "{}[]", "{}\n[]\n" },
        { "true false null ", "true\nfalse\nnull\n" },
        { "{\"execute\":\"x\"", "" },
        { "", "" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void strings_may_stand_in_single_quotes(void **state)
{
    check(&(struct example){ "{'execute':'x','id':'a\"b\\'c'}",
                             "{\"execute\": \"x\", \"id\": \"a\\\"b'c\"}\n" });
    check(&(struct example){ "\"a'b\\'c\"", "\"a'b'c\"\n" });
}

static void strings_are_printed_in_ascii(void **state)
{
    static const struct example examples[] = {
        { "\"\\u00e9\\n\\u0000x\"", "\"\\u00E9\\n\\u0000x\"\n" },
        { "\"\xc3\xa9/\\\"\\\\\"", "\"\\u00E9/\\\"\\\\\"\n" },
        { "\"\x7f\\b\\f\\t\\r\\/\"", "\"\\u007F\\b\\f\\t\\r/\"\n" },
        { "\"\\ud83d\\ude00\xf0\x9f\x98\x80\"", "\"\\uD83D\\uDE00\\uD83D\\uDE00\"\n" },
        { "\"\xf4\x8f\xbf\xbd\"", "\"\\uDBFF\\uDFFD\"\n" },
        { "\"\xc0\x80\"", "\"\\u0000\"\n" },
        { "{\"\\u0000x\":1}", "{\"\\u0000x\": 1}\n" },
        { "\"\\u20ac\"", "\"\\u20AC\"\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void numbers_print_as_qemu_prints_them(void **state)
{
    static const struct example examples[] = {
        { "[-1,0,-0,9223372036854775807,-9223372036854775808]",
          "[-1, 0, 0, 9223372036854775807, -9223372036854775808]\n" },
        { "[1.0,0.1,1e3,1E5,1e-7,-1E+2,123456.789,2.5]",
          "[1, 0.10000000000000001, 1000, 100000, 9.9999999999999995e-08, -100, 123456.789, "
          "2.5]\n" },
        { "[-9223372036854775809,18446744073709551616]",
          "[-9.2233720368547758e+18, 1.8446744073709552e+19]\n" },
        { "123456789012345678901234567890 ", "1.2345678901234568e+29\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void a_number_beyond_all_bounds_stays_a_number(void **state)
{
    check(&(struct example){ "[1e400,-1e400]",
                             "[1.7976931348623157e+308, -1.7976931348623157e+308]\n" });
}

static void wrong_values_are_told_in_qemus_words(void **state)
{
    static const struct example examples[] = {
        { "{\"execute\":\"a\",\"execute\":\"b\"}", "!JSON parse error, duplicate key\n" },
        { "{\"execute\" \"x\"}", "!JSON parse error, missing : in object pair\n" },
        { "{foo}", "!JSON parse error, invalid keyword 'foo'\n" },
        { "{\"a\":1,}", "!JSON parse error, expecting value\n" },
        { "{\"a\":1]", "!JSON parse error, expected separator in dict\n" },
        { "[1 2]", "!JSON parse error, expected separator in list\n" },
        { "[1,]", "!JSON parse error, expecting value\n" },
        { "{1:2}", "!JSON parse error, key is not a string in object\n" },
        { "{\"a\"}", "!JSON parse error, missing : in object pair\n" },
        { "}]{]", "!JSON parse error, expecting value\n!JSON parse error, expecting value\n"
                  "!JSON parse error, expecting value\n" },
        { "{\"x\":1,\"x\":nul}", "!JSON parse error, invalid keyword 'nul'\n" },
        { "truefalse ", "!JSON parse error, invalid keyword 'truefalse'\n" },
        { "\"\\q\"", "!JSON parse error, invalid escape sequence in string\n" },
        { "\"\\u12\"", "!JSON parse error, \\u12\" is not a valid Unicode character\n" },
        { "\"\\u+123\"", "!JSON parse error, \\u+123 is not a valid Unicode character\n" },
        { "\"\\ud800\\u0041\"", "!JSON parse error, \\ud800 is not a valid Unicode character\n" },
        { "\"\\udc00\\ud800\"", "!JSON parse error, \\udc00 is not a valid Unicode character\n" },
        { "\"\\uFFFE\"", "!JSON parse error, \\uFFFE is not a valid Unicode character\n" },
        { "\"\xc3\"", "!JSON parse error, invalid UTF-8 sequence in string\n" },
        { "\"\xed\xa0\x80\"", "!JSON parse error, invalid UTF-8 sequence in string\n" },
        { "\"\xc1\x81\"", "!JSON parse error, invalid UTF-8 sequence in string\n" },
        { "\"\xef\xb7\x90\"", "!JSON parse error, invalid UTF-8 sequence in string\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void behind_a_wrong_byte_reading_goes_on_where_qemu_goes_on(void **state)
{
    static const struct example examples[] = {
        { "TRUE\n1\n", "!JSON parse error, stray 'T'\n1\n" },
        { "-\n2\n", "!JSON parse error, stray '-\n'\n" },
        { "-\n2\n3\n", "!JSON parse error, stray '-\n'\n3\n" },
        { "01\n", "!JSON parse error, stray '01'\n" },
        { "1.5.5\n", "1.5\n!JSON parse error, stray '.'\n" },
        { "\"unterminated\n{\"a\":1}",
          "!JSON parse error, stray '\"unterminated\n'\n{\"a\": 1}\n" },
        { "{\"a\":\"x\ty\"}1\n",
          "!JSON parse error, stray '\"x\t'\n!JSON parse error, expecting value\n1\n" },
        { "# comment\n1\n", "!JSON parse error, stray '#'\n1\n" },
        { "\t#{\"a\":1}", "!JSON parse error, stray '#'\n{\"a\": 1}\n" },
        { "\xef\xbb\xbf{\"a\":1}", "!JSON parse error, stray '\xef'\n{\"a\": 1}\n" },
        { "\"\xff\"\n", "!JSON parse error, stray '\"\xff'\n" },
        { "garbage{\"a\":1}", "!JSON parse error, invalid keyword 'garbage'\n{\"a\": 1}\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
    check_bytes("\0\n1\n", 4, "!JSON parse error, stray ''\n1\n");
}

static char *repeat(const char *what, size_t times)
{
    char *out = mem_alloc(strlen(what) * times + 1), *at = out;

    *out = '\0';
    for (size_t i = 0; i < times; i++) {
        at = stpcpy(at, what);
    }
    return out;
}

static void half_a_pair_of_surrogates_is_no_character(void **state)
{
    static const char *const halves[] = {
        "\\ud800", "\\ud800\\u0041", "\\ud800\\ue000", "\\ud800\\n0000x", "\\ud800xu0000x", "\\udc00", "\\ud800\\u",
    };

    for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
        AUTOFREE char *bytes = mem_printf("\"%s\"", halves[i]);
        AUTOFREE char *expected = mem_printf("!JSON parse error, %.6s is not a valid Unicode character\n", halves[i]);

        check(&(struct example){ bytes, expected });
    }
}

static void brackets_that_do_not_match_are_one_fault(void **state)
{
    static const struct example examples[] = {
        { "{]", "!JSON parse error, expecting value\n" },
        { "[}", "!JSON parse error, expecting value\n" },
        { "[{]}", "!JSON parse error, expecting value\n" },
        { "{\"a\":[}]", "!JSON parse error, expecting value\n" },
        { "{\"a\":]", "!JSON parse error, expecting value\n" },
        { "{\"a\"}", "!JSON parse error, missing : in object pair\n" },
        { "[1,]", "!JSON parse error, expecting value\n" },
        { "}", "!JSON parse error, expecting value\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void many_tokens_are_read_and_too_many_refused(void **state)
{
    AUTOFREE char *some = repeat("1,", 5000);
    AUTOFREE char *many = repeat("1,", (2 << 20) / 2);
    AUTOFREE char *bytes = mem_printf("[%s1] 2 [%s", some, many);
    AUTOFREE char *got = answers(bytes, strlen(bytes), 1 << 20);
    char *rest = strchr(got, '\n');

    assert_non_null(rest);
    assert_string_equal(rest, "\n2\n!JSON token count limit exceeded\n");
}

static void deep_nesting_is_refused_and_reading_goes_on(void **state)
{
    AUTOFREE char *open = repeat("[", 257);
    AUTOFREE char *fine = repeat("[", 256);
    AUTOFREE char *close = repeat("]", 256);
    AUTOFREE char *bytes = mem_printf("%s{\"a\":1}%s%s", open, fine, close);
    AUTOFREE char *expected =
        mem_printf("!JSON nesting depth limit exceeded\n{\"a\": 1}\n%s%s\n", fine, close);

    check(&(struct example){ bytes, expected });
}

static void members_come_in_the_order_of_qemus_table(void **state)
{
    static const struct example examples[] = {
        { "{'major':7,'minor':2,'package':'p'}",
          "{\"minor\": 2, \"package\": \"p\", \"major\": 7}\n" },
        { "{'data':1,'event':2,'timestamp':{'microseconds':1,'seconds':2}}",
          "{\"timestamp\": {\"seconds\": 2, \"microseconds\": 1}, \"event\": 2, \"data\": 1}\n" },
        { "{'error':1,'id':2}", "{\"id\": 2, \"error\": 1}\n" },
        { "{'return':1,'id':2}", "{\"return\": 1, \"id\": 2}\n" },
        { "{'b':1,'a':2,'zz':3,'':4}", "{\"\": 4, \"a\": 2, \"zz\": 3, \"b\": 1}\n" },
        { "{'type':1,'speed':2,'offset':3,'len':4,'device':5,'error':6}",
          "{\"device\": 5, \"len\": 4, \"offset\": 3, \"speed\": 2, \"type\": 1, \"error\": 6}\n" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        check(&examples[i]);
    }
}

static void a_tree_of_a_thousand_levels_prints(void **state)
{
    json_t *tree = json_object();
    char *text;

    for (int i = 0; i < 1000; i++) {
        json_t *above = json_object();

        json_object_set_new(above, "backing-image", tree);
        tree = above;
    }
    text = qmp_print(tree);
    assert_int_equal(strlen(text), 1000 * strlen("{\"backing-image\": }") + 2);
    free(text);
    json_decref(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_need_nothing_between_them),
        cmocka_unit_test(strings_may_stand_in_single_quotes),
        cmocka_unit_test(strings_are_printed_in_ascii),
        cmocka_unit_test(numbers_print_as_qemu_prints_them),
        cmocka_unit_test(a_number_beyond_all_bounds_stays_a_number),
        cmocka_unit_test(wrong_values_are_told_in_qemus_words),
        cmocka_unit_test(behind_a_wrong_byte_reading_goes_on_where_qemu_goes_on),
        cmocka_unit_test(deep_nesting_is_refused_and_reading_goes_on),
        cmocka_unit_test(half_a_pair_of_surrogates_is_no_character),
        cmocka_unit_test(brackets_that_do_not_match_are_one_fault),
        cmocka_unit_test(many_tokens_are_read_and_too_many_refused),
        cmocka_unit_test(members_come_in_the_order_of_qemus_table),
        cmocka_unit_test(a_tree_of_a_thousand_levels_prints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
