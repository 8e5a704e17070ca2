/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option strings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/keyval.h"
#include "core/mem.h"

/* "{...}" in the order of the keys, or "!" and what is wrong. */
static char *parsed(const char *text, const char *implied, bool nest)
{
    struct error err = ERROR_INIT;
    json_t *flat = keyval_parse(text, implied, &err);
    json_t *tree = flat && nest ? keyval_nest(flat, &err) : json_incref(flat);
    char *out =
        tree ? json_dumps(tree, JSON_COMPACT | JSON_PRESERVE_ORDER) : mem_printf("!%s", err.text);

    assert_true(!tree == error_is_set(&err));
    json_decref(flat);
    json_decref(tree);
    error_clear(&err);
    return out;
}

struct example {
    const char *text, *implied, *expected;
};

static void check(const struct example *examples, size_t count, bool nest)
{
    for (size_t i = 0; i < count; i++) {
        AUTOFREE char *got = parsed(examples[i].text, examples[i].implied, nest);

        assert_string_equal(got, examples[i].expected);
    }
}

static void keys_and_values_keep_their_order(void **state)
{
    static const struct example examples[] = {
        { "", NULL, "{}" },
        { "file=x.img", NULL, "{\"file\":\"x.img\"}" },
        { "b=1,a=2,c=", NULL, "{\"b\":\"1\",\"a\":\"2\",\"c\":\"\"}" },
        { "a=b=c", NULL, "{\"a\":\"b=c\"}" },
        { "a=1,", NULL, "{\"a\":\"1\"}" },
    };

    check(examples, ARRAY_SIZE(examples), false);
}

static void a_doubled_comma_is_one_comma_of_the_value(void **state)
{
    static const struct example examples[] = {
        { "file=x,,y.img,if=none", NULL, "{\"file\":\"x,y.img\",\"if\":\"none\"}" },
        { "file=,,", NULL, "{\"file\":\",\"}" },
        { "file=a,,,b=1", NULL, "{\"file\":\"a,\",\"b\":\"1\"}" },
        { "file=a,,,,b", NULL, "{\"file\":\"a,,b\"}" },
    };

    check(examples, ARRAY_SIZE(examples), false);
}

static void the_last_of_equal_keys_counts(void **state)
{
    static const struct example examples[] = { { "a=1,b=2,a=3", NULL,
                                                 "{\"a\":\"3\",\"b\":\"2\"}" } };

    check(examples, ARRAY_SIZE(examples), false);
}

static void a_key_alone_is_on_or_off_or_the_implied_value(void **state)
{
    static const struct example examples[] = {
        { "readonly", NULL, "{\"readonly\":\"on\"}" },
        { "a=1,noreadonly", NULL, "{\"a\":\"1\",\"readonly\":\"off\"}" },
        { "no", NULL, "{\"no\":\"on\"}" },
        { "x", "path", "{\"path\":\"x\"}" },
        { "nose,server", "path", "{\"path\":\"nose\",\"server\":\"on\"}" },
        { "path=y,x", "path", "{\"path\":\"y\",\"x\":\"on\"}" },
    };

    check(examples, ARRAY_SIZE(examples), false);
}

static void a_value_without_a_key_is_refused(void **state)
{
    static const struct example examples[] = {
        { "=x", NULL, "!Invalid parameter ''" },
        { "a=1,=x", NULL, "!Invalid parameter ''" },
    };

    check(examples, ARRAY_SIZE(examples), false);
}

static void dots_make_trees(void **state)
{
    static const struct example examples[] = {
        { "backing.node-name=D,backing.backing.node-name=C", NULL,
          "{\"backing\":{\"node-name\":\"D\",\"backing\":{\"node-name\":\"C\"}}}" },
        { "a.b=1,c=2,a.d=3", NULL, "{\"a\":{\"b\":\"1\",\"d\":\"3\"},\"c\":\"2\"}" },
        { "file=x,file.locking=off", NULL, "{\"file\":{\"filename\":\"x\",\"locking\":\"off\"}}" },
        { "file.locking=off,file=x", NULL, "{\"file\":{\"locking\":\"off\",\"filename\":\"x\"}}" },
        { "a=1,a.b=2", NULL, "!Cannot mix scalar and non-scalar keys" },
        { "a.b=2,a=1", NULL, "!Cannot mix scalar and non-scalar keys" },
    };

    check(examples, ARRAY_SIZE(examples), true);
}

static void bytes_that_are_no_text_stay_as_they_are(void **state)
{
    struct error err = ERROR_INIT;
    json_t *keys = keyval_parse("file=\xff\xfe,\xe9=1", NULL, &err);

    assert_string_equal(json_string_value(json_object_get(keys, "file")), "\xff\xfe");
    assert_string_equal(json_string_value(json_object_get(keys, "\xe9")), "1");
    json_decref(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_values_keep_their_order),
        cmocka_unit_test(a_doubled_comma_is_one_comma_of_the_value),
        cmocka_unit_test(the_last_of_equal_keys_counts),
        cmocka_unit_test(a_key_alone_is_on_or_off_or_the_implied_value),
        cmocka_unit_test(a_value_without_a_key_is_refused),
        cmocka_unit_test(dots_make_trees),
        cmocka_unit_test(bytes_that_are_no_text_stay_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
