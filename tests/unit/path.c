/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of backing files: how they resolve, and what is recorded so that they resolve again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/path.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

static char here[4096];

/* Fails the test unless the string is as wanted; `%` at its beginning is the working directory. */
static void expect(char *got, const char *wanted)
{
    AUTOFREE char *want = wanted[0] == '%' ? mem_printf("%s%s", here, wanted + 1) : mem_strdup(wanted);

    assert_string_equal(got, want);
    free(got);
}

static void a_protocol_ends_before_any_slash(void **state)
{
    assert_int_equal(path_protocol_length("nbd:host"), 3);
    assert_int_equal(path_protocol_length("a/b:c"), 0);
    assert_int_equal(path_protocol_length("plain"), 0);
    assert_int_equal(path_protocol_length(""), 0);
    assert_int_equal(path_protocol_length(":x"), 0);
}

static void names_resolve_from_the_overlays_directory(void **state)
{
    expect(path_combine("dir/top.img", "base.img"), "dir/base.img");
    expect(path_combine("/dir/sub/top.img", "../base.img"), "/dir/sub/../base.img");
    expect(path_combine("top.img", "base.img"), "base.img");
    expect(path_combine("dir/top.img", "/abs/base.img"), "/abs/base.img");
    expect(path_combine("dir/top.img", "nbd:host"), "nbd:host");
}

static void one_place_has_many_names(void **state)
{
    AUTOFREE char *whole = mem_printf("%s/a.img", here);

    assert_true(path_same("a.img", "./a.img"));
    assert_true(path_same("a.img", ".///.//a.img"));
    assert_true(path_same(whole, "a.img"));
    assert_false(path_same("a.img", "b.img"));
    assert_false(path_same("/a.img", "a.img"));
    assert_false(path_same("a.img", ".a.img"));
}

static void a_neighbour_is_recorded_by_its_name_others_absolutely(void **state)
{
    expect(path_to_record("top.img", "base.img"), "base.img");
    expect(path_to_record("./top.img", "base.img"), "base.img");
    expect(path_to_record("dir/top.img", "dir/sub/base.img"), "sub/base.img");
    expect(path_to_record("/x/top.img", "/x/base.img"), "base.img");
    expect(path_to_record("dir/top.img", "base.img"), "%/base.img");
    expect(path_to_record("/x/top.img", "/xy/base.img"), "/xy/base.img");
    /* Where a lexical answer could be wrong, or would read as a protocol. */
    expect(path_to_record("/x/top.img", "/x/link/../base.img"), "/x/link/../base.img");
    expect(path_to_record("/x/top.img", "/x/nbd:base.img"), "/x/nbd:base.img");
    expect(path_to_record("/x/top.img", "/x/sub/nbd:base.img"), "sub/nbd:base.img");
}

static void a_layer_keeps_its_spelling_where_it_still_resolves(void **state)
{
    struct node base = { .filename = "d/base.img" };
    struct node middle = { .filename = "d/middle.img", .backing = &base, .backing_name = "./base.img" };
    struct node top = { .filename = "d/top.img", .backing = &middle, .backing_name = "middle.img" };
    struct node stranger = { .filename = "d/stranger.img" };

    expect(path_to_record_layer(&top, &base), "./base.img");
    expect(path_to_record_layer(&top, &middle), "middle.img");
    expect(path_to_record_layer(&top, &stranger), "stranger.img");
    /* Not from another directory ... */
    top.filename = "top.img";
    expect(path_to_record_layer(&top, &base), "d/base.img");
    /* ... unless it is absolute. */
    middle.backing_name = "/elsewhere/base.img";
    expect(path_to_record_layer(&top, &base), "/elsewhere/base.img");
    /* Nothing recorded: below a layer that was given its base by the operator. */
    middle.backing_name = NULL;
    expect(path_to_record_layer(&top, &base), "d/base.img");
}

static int start(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    return getcwd(here, sizeof(here)) ? 0 : -1;
}

static int stop(void **state)
{
    io_fini();
    loop_fini();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_protocol_ends_before_any_slash),
        cmocka_unit_test(names_resolve_from_the_overlays_directory),
        cmocka_unit_test(one_place_has_many_names),
        cmocka_unit_test(a_neighbour_is_recorded_by_its_name_others_absolutely),
        cmocka_unit_test(a_layer_keeps_its_spelling_where_it_still_resolves),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
