/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fio's words: what they mean, what is refused and how, and that a refusal changes nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "hw/guest-settings.h"
#include "hw/guest.h"

static struct guest_settings s;

static int setup(void **state)
{
    guest_settings_init(&s);
    return 0;
}

static int teardown(void **state)
{
    guest_settings_fini(&s);
    return 0;
}

static int apply(const char *key, const char *value, struct error *err)
{
    json_t *words = json_pack("{s:s}", key, value);
    int ret = guest_settings_apply(&s, words, err);

    json_decref(words);
    return ret;
}

static void set(const char *key, const char *value)
{
    assert_int_equal(apply(key, value, NULL), 0);
}

static void refused(const char *key, const char *value, const char *why)
{
    struct error err = ERROR_INIT;
    struct guest_settings before = s;

    assert_int_not_equal(apply(key, value, &err), 0);
    assert_string_equal(err.text, why);
    assert_memory_equal(&before, &s, sizeof(s));
    error_clear(&err);
}

static void the_default_changes_nothing_and_is_gentle(void **state)
{
    assert_int_equal(s.profile, PROFILE_PRESERVE);
    assert_int_equal(s.rw, RW_RANDOM | RW_READ | RW_WRITE);
    assert_int_equal(s.rwmixread, 50);
    assert_int_equal(s.bs_min, 4096);
    assert_int_equal(s.bs_max, 4096);
    assert_int_equal(s.iodepth, 1);
    assert_int_equal(s.rate_iops, 200);
    assert_int_equal(s.size, 64 << 20);
    assert_true(s.spread);
    assert_int_equal(guest_settings_check(&s, NULL), 0);
}

static void all_words_are_taken(void **state)
{
    set("profile", "stamp");
    set("rw", "randtrimwrite");
    set("rwmixread", "70");
    set("bs", "4k-64k");
    set("iodepth", "32");
    set("rate_iops", "0");
    set("offset", "1M");
    assert_false(s.spread);
    set("size", "1.5g");
    set("flush_every", "16");
    set("seed", "0xffffffffffffffff");
    set("iolog", "dir/log file");
    assert_int_equal(s.profile, PROFILE_STAMP);
    assert_int_equal(s.rw, RW_RANDOM | RW_TRIM | RW_WRITE);
    assert_int_equal(s.rwmixread, 70);
    assert_int_equal(s.bs_min, 4096);
    assert_int_equal(s.bs_max, 65536);
    assert_int_equal(s.iodepth, 32);
    assert_int_equal(s.rate_iops, 0);
    assert_int_equal(s.offset, 1 << 20);
    assert_int_equal(s.size, 3u << 29);
    assert_int_equal(s.flush_every, 16);
    assert_true(s.seed == UINT64_MAX);
    assert_string_equal(s.iolog, "dir/log file");
    set("size", "100%");
    assert_int_equal(s.size_percent, 100);
    set("size", "8M");
    assert_int_equal(s.size_percent, 0);
    assert_int_equal(guest_settings_check(&s, NULL), 0);
}

static void fios_other_names_mean_the_same(void **state)
{
    set("readwrite", "readwrite");
    assert_int_equal(s.rw, RW_READ | RW_WRITE);
    set("blocksize", "8k");
    assert_int_equal(s.bs_max, 8192);
    set("bsrange", "1k-2k");
    assert_int_equal(s.bs_min, 1024);
    set("fsync", "3");
    assert_int_equal(s.flush_every, 3);
}

static void numbers_may_be_json_numbers(void **state)
{
    json_t *words = json_pack("{s:i, s:i}", "iodepth", 8, "bs", 8192);

    assert_int_equal(guest_settings_apply(&s, words, NULL), 0);
    assert_int_equal(s.iodepth, 8);
    assert_int_equal(s.bs_min, 8192);
    json_decref(words);
}

static void bad_words_are_refused(void **state)
{
    refused("speed", "1", "Invalid parameter 'speed'");
    refused("disk", "virtio0", "Invalid parameter 'disk'");
    refused("profile", "presrve", "Parameter 'profile' does not accept value 'presrve'");
    refused("rw", "random", "Parameter 'rw' does not accept value 'random'");
    refused("rwmixread", "101", "Parameter 'rwmixread' expects a number from 0 to 100");
    refused("rwmixread", "-1", "Parameter 'rwmixread' expects a number");
    refused("rwmixread", "50%", "Parameter 'rwmixread' expects a number");
    refused("rwmixread", "", "Parameter 'rwmixread' expects a number");
    refused("bs", "0",
            "Parameter 'bs' expects a size from 512 bytes to 64 MiB, or two of them (4k-64k), the "
            "smaller first");
    refused("bs", "65M",
            "Parameter 'bs' expects a size from 512 bytes to 64 MiB, or two of them (4k-64k), the "
            "smaller first");
    refused("bs", "8k-4k",
            "Parameter 'bs' expects a size from 512 bytes to 64 MiB, or two of them (4k-64k), the "
            "smaller first");
    refused("bs", "1000", "Parameter 'bs' expects a multiple of 512 bytes");
    refused("bs", "4k-", "Parameter 'bs' expects a size");
    refused("bs", "-4k", "Parameter 'bs' expects a size");
    refused("bs", "four", "Parameter 'bs' expects a size");
    refused("iodepth", "0", "Parameter 'iodepth' expects a number from 1 to 4096");
    refused("iodepth", "1k", "Parameter 'iodepth' expects a number");
    refused("iodepth", "0x", "Parameter 'iodepth' expects a number");
    refused("rate_iops", "1000000001",
            "Parameter 'rate_iops' expects a number from 0 to 1000000000");
    refused("size", "0", "Parameter 'size' expects more than 0 bytes");
    refused("size", "101%", "Parameter 'size' expects a number from 1 to 100");
    refused("size", "", "Parameter 'size' expects a size");
    refused("size", "%", "Parameter 'size' expects a number");
    refused("seed", "0Xg", "Parameter 'seed' expects a number");
    refused("offset", "-1", "Parameter 'offset' expects a size");
    refused("offset", "100", "Parameter 'offset' expects a multiple of 512 bytes");
    refused("seed", "18446744073709551616", "Parameter 'seed' expects a number");
    refused("iolog", "", "Parameter 'iolog' expects a file name");
}

static void only_text_and_numbers_are_words(void **state)
{
    static const char *const rows[] = { "{\"bs\": true}", "{\"bs\": null}", "{\"bs\": [4096]}", "{\"bs\": 4096.5}" };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error err = ERROR_INIT;
        json_t *words = json_loads(rows[i], 0, NULL);

        assert_non_null(words);
        assert_int_equal(guest_settings_apply(&s, words, &err), -EINVAL);
        assert_string_equal(err.text, "Invalid parameter type for 'bs', expected: string");
        error_clear(&err);
        json_decref(words);
    }
    assert_int_equal(s.bs_min, 4096);
}

static void one_bad_word_among_good_ones_changes_nothing(void **state)
{
    json_t *words = json_pack("{s:s, s:s, s:s}", "iodepth", "8", "iolog", "x", "bs", "x");
    struct error err = ERROR_INIT;

    assert_int_not_equal(guest_settings_apply(&s, words, &err), 0);
    assert_int_equal(s.iodepth, 1);
    assert_null(s.iolog);
    error_clear(&err);
    json_decref(words);
}

static void a_hint_lists_what_could_be_meant(void **state)
{
    struct error err = ERROR_INIT;

    apply("profile", "x", &err);
    assert_string_equal(err.hint, "It takes preserve, stamp, replay, none.");
    error_clear(&err);
    apply("x", "x", &err);
    for (const char *const *name = guest_setting_names; *name; name++) {
        assert_non_null(strstr(err.hint, *name));
    }
    error_clear(&err);
}

static void every_listed_word_is_known(void **state)
{
    for (const char *const *name = guest_setting_names; *name; name++) {
        struct error err = ERROR_INIT;

        apply(*name, "?", &err); /* refused for its value, if at all */
        assert_true(!err.text || !strstr(err.text, "Invalid parameter"));
        error_clear(&err);
    }
}

static void check_refused(const char *why)
{
    struct error err = ERROR_INIT;

    assert_int_not_equal(guest_settings_check(&s, &err), 0);
    assert_string_equal(err.text, why);
    error_clear(&err);
}

static void words_must_go_together(void **state)
{
    set("rw", "randtrim");
    check_refused("Profile 'preserve' cannot trim: that would change what is on the disk");
    set("profile", "replay");
    check_refused("Profile 'replay' needs iolog=FILE");
    set("profile", "stamp");
    assert_int_equal(guest_settings_check(&s, NULL), 0);
    set("bs", "1M");
    set("iodepth", "65");
    check_refused("A guest's requests in flight may have 64 MiB together; iodepth=65 times "
                  "bs=1048576 is more");
    set("iodepth", "64");
    assert_int_equal(guest_settings_check(&s, NULL), 0);
    set("size", "512k");
    check_refused("Parameter 'size' (524288) is smaller than one block (1048576)");
    set("size", "1%"); /* of a disk that nobody knows yet */
    assert_int_equal(guest_settings_check(&s, NULL), 0);
}

static void the_description_uses_the_words(void **state)
{
    json_t *object = json_object();
    const char *key;
    json_t *value;

    set("iolog", "x");
    guest_settings_describe(&s, object);
    assert_string_equal(json_string_value(json_object_get(object, "rw")), "randrw");
    assert_int_equal(json_integer_value(json_object_get(object, "bs")), 4096);
    /* What it says can be said to a guest again. */
    json_object_foreach(object, key, value) {
        json_t *word = json_pack("{s:O}", key, value);

        assert_int_equal(guest_settings_apply(&s, word, NULL), 0);
        json_decref(word);
    }
    set("size", "40%");
    guest_settings_describe(&s, object);
    assert_int_equal(json_integer_value(json_object_get(object, "size_percent")), 40);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_default_changes_nothing_and_is_gentle, setup, teardown),
        cmocka_unit_test_setup_teardown(all_words_are_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(fios_other_names_mean_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_may_be_json_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_words_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_text_and_numbers_are_words, setup, teardown),
        cmocka_unit_test_setup_teardown(one_bad_word_among_good_ones_changes_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_hint_lists_what_could_be_meant, setup, teardown),
        cmocka_unit_test_setup_teardown(every_listed_word_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(words_must_go_together, setup, teardown),
        cmocka_unit_test_setup_teardown(the_description_uses_the_words, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
