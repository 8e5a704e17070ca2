/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blkdebug's rules: what files with rules say, and what is wrong with them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "block/blkdebug-config.h"
#include "core/mem.h"

/* What is wrong with it, malloc'ed, or NULL; the rules are left in *rules. */
static char *parse(struct blkdebug_rules *rules, const char *text)
{
    AUTOFREE char *copy = mem_strdup(text);
    struct error err = ERROR_INIT;
    char *said;

    TAILQ_INIT(rules);
    blkdebug_parse(rules, copy, &err);
    said = mem_strdup(err.text);
    error_clear(&err);
    return said;
}

static void clear(struct blkdebug_rules *rules)
{
    while (!TAILQ_EMPTY(rules)) {
        blkdebug_rule_free(rules, TAILQ_FIRST(rules));
    }
}

static void a_rule_has_what_is_written(void **state)
{
    struct blkdebug_rules rules;
    const struct blkdebug_rule *rule;

    assert_null(parse(&rules, "# tests\n[inject-error \"name\"]\n  event = \"cow_read\"\nstate = \"3\"\nerrno = \"28\"\nsector = \"8\"\n"
                              "once = \"on\"\nimmediately = \"on\"\niotype = \"flush\"\n\n[set-state]\nevent = \"none\"\n"
                              "new_state = \"7\""));
    rule = TAILQ_FIRST(&rules);
    assert_false(rule->sets_state);
    assert_int_equal(rule->event, EVENT_COW_READ);
    assert_int_equal(rule->state, 3);
    assert_int_equal(rule->error, 28);
    assert_int_equal(rule->offset, 8 * 512);
    assert_true(rule->once && rule->immediately);
    assert_int_equal(rule->iotypes, 1u << BLKDEBUG_FLUSH);
    rule = TAILQ_NEXT(rule, link);
    assert_true(rule->sets_state);
    assert_int_equal(rule->event, EVENT_NONE);
    assert_int_equal(rule->new_state, 7);
    assert_null(TAILQ_NEXT(rule, link));
    clear(&rules);
}

static void what_is_not_written_is_as_in_qemu(void **state)
{
    struct blkdebug_rules rules;
    const struct blkdebug_rule *rule;

    assert_null(parse(&rules, "[inject-error]\nevent = \"l1_update\""));
    rule = TAILQ_FIRST(&rules);
    assert_int_equal(rule->state, 0);
    assert_int_equal(rule->error, EIO);
    assert_int_equal(rule->offset, -1);
    assert_false(rule->once || rule->immediately || rule->armed);
    assert_int_equal(rule->iotypes, 31); /* all but block-status */
    clear(&rules);
}

static void mistakes_are_named(void **state)
{
    static const char *const rows[][2] = {
        { "event = \"none\"", "no group defined" },
        { "[inject-errors]", "There is no option group 'inject-errors'" },
        { "[inject-error]", "Missing event name for rule" },
        { "[inject-error]\nevent = \"nix\"", "invalid parameter value: nix" },
        { "[inject-error]\nevent = nix", "invalid parameter value: " },
        { "[inject-error]\nevent=\"none\"", "Invalid parameter 'event=\"none\"'" },
        { "[inject-error]\nevent = \"none\"\nsector = \"1k\"", "Parameter 'sector' expects a number" },
        { "[inject-error]\nevent = \"none\"\nerrno = \"99999999999999999999\"", "Parameter 'errno' expects a number" },
        { "[inject-error]\nevent = \"none\"\nonce = \"maybe\"", "Parameter 'once' expects 'on' or 'off'" },
        { "[inject-error]\nevent = \"none\"\nnew_state = \"2\"", "Invalid parameter 'new_state'" },
        { "[set-state]\nevent = \"none\"\nerrno = \"2\"", "Invalid parameter 'errno'" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct blkdebug_rules rules;
        AUTOFREE char *said = parse(&rules, rows[i][0]);

        assert_non_null(said);
        assert_string_equal(said, rows[i][1]);
        clear(&rules);
    }
}

/* Every beginning of a text, and every text with one byte less or another one, is read without harm. */
static void no_text_does_harm(void **state)
{
    static const char text[] = "[inject-error \"a\"]\nevent = \"read_aio\"\nsector = \"-1\"\n[set-state]\nevent = \"none\"\n";

    for (size_t i = 0; i < sizeof(text); i++) {
        static const char bytes[] = "\"[]=\n \t#\\\xff";

        for (size_t b = 0; b < sizeof(bytes); b++) {
            AUTOFREE char *changed = mem_strdup(text), *said = NULL;
            struct blkdebug_rules rules;

            changed[i] = bytes[b]; /* its end, last of all */
            changed[sizeof(text) - 1] = '\0';
            said = parse(&rules, changed);
            assert_true(said || !TAILQ_EMPTY(&rules) || strcspn(changed, "[") >= strlen(changed) || !*changed);
            clear(&rules);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_has_what_is_written),
        cmocka_unit_test(what_is_not_written_is_as_in_qemu),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(no_text_does_harm),
    };
    return cmocka_run_group_tests_name("blkdebug", tests, NULL, NULL);
}
