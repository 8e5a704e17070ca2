/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of the human monitor, taken apart as QEMU 7.2 does it.  Every answer here was seen from QEMU.  No disk lives; the chain for
 * names of images is made of bare nodes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "monitor/hints.h"
#include "monitor/hmp.h"

static void write_nothing(struct monitor *mon, const char *text, size_t len)
{
}

static struct monitor human = { .write = write_nothing, .name = "test" };
static struct monitor compat = { .write = write_nothing, .name = "compat", .compat = true };

/* --- A chain of bare nodes --------------------------------------------------------------------------------------------- */

static const struct driver format = { .name = "qcow2", .is_format = true, .supports_backing = true };
static struct node chain[5];

static int make_chain(void **state)
{
    static char *const names[] = { "node-A", "node-B", "node-C", "node-D", "node-E" };
    static char *const files[] = { "file-A.img", "dir/file-B.img", "file-C.img", "1-mid.qcow2", "file-E.img" };

    for (int i = 0; i < 5; i++) {
        chain[i] = (struct node){ .name = names[i], .driver = &format, .filename = files[i], .refs = 1 };
        chain[i].backing = i ? &chain[i - 1] : NULL;
        chain[i].backing_name = i == 2 ? "file-B.img" : i ? files[i - 1] : NULL;
        TAILQ_INSERT_TAIL(&all_nodes, &chain[i], link);
    }
    return 0;
}

static int drop_chain(void **state)
{
    for (int i = 0; i < 5; i++) {
        TAILQ_REMOVE(&all_nodes, &chain[i], link);
    }
    return 0;
}

/* --- What comes of a line ------------------------------------------------------------------------------------------------ */

/* The line gives these arguments (JSON, single quotes for double ones). */
static void gives(struct monitor *mon, const char *line, const char *json)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;
    AUTOFREE char *text = mem_strdup(json);
    json_t *want;

    for (char *p = text; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    want = json_loads(text, 0, NULL);
    assert_non_null(want);
    if (hmp_parse(mon, line, &call, &err)) {
        fail_msg("%s: %s", line, err.text);
    }
    AUTOFREE char *is = json_dumps(call.args, JSON_COMPACT);

    if (!json_equal(call.args, want)) {
        fail_msg("%s gives %s, not %s", line, is, text);
    }
    json_decref(want);
    hmp_call_free(&call);
}

static void refuses(struct monitor *mon, const char *line, const char *want)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;

    if (!hmp_parse(mon, line, &call, &err)) {
        fail_msg("%s is taken", line);
    }
    assert_string_equal(err.text, want);
    error_clear(&err);
    hmp_call_free(&call);
}

#define TRY(command) "\nTry \"help " command "\" for more information"

static void empty_lines_are_no_command(void **state)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;

    assert_int_equal(hmp_parse(&human, "", &call, &err), 0);
    assert_null(call.cmd);
    hmp_call_free(&call);
    assert_int_equal(hmp_parse(&human, "  \t ", &call, &err), 0);
    assert_null(call.cmd);
    hmp_call_free(&call);
}

static void unknown_words_are_named(void **state)
{
    refuses(&human, "foo", "unknown command: 'foo'");
    refuses(&human, "foo bar", "unknown command: 'foo'");
    refuses(&human, "info foo", "unknown command: 'info foo'");
    refuses(&human, "info \"block\"", "unknown command: 'info \"block\"'");
    refuses(&human, "info -v", "unknown command: 'info -v'");
    refuses(&human, "INFO status", "unknown command: 'INFO'");
    refuses(&human, "stop|s", "unknown command: 'stop|s'");
    refuses(&compat, "wait", "unknown command: 'wait'");
    refuses(&compat, "info chain", "unknown command: 'info chain'");
}

static void what_is_too_much_is_refused(void **state)
{
    refuses(&human, "stop x", "stop|s: extraneous characters at the end of line" TRY("stop"));
    refuses(&human, "s x", "stop|s: extraneous characters at the end of line" TRY("s"));
    refuses(&human, "  s   x", "stop|s: extraneous characters at the end of line" TRY("  s"));
    refuses(&human, "info status x", "status: extraneous characters at the end of line" TRY("info status"));
    refuses(&human, "info block virtio0 -v", "block: extraneous characters at the end of line" TRY("info block"));
    refuses(&human, "info block -v -n ide0-hd0", "block: extraneous characters at the end of line" TRY("info block"));
    refuses(&human, "qemu-io virtio0 read 0 512", "qemu-io: extraneous characters at the end of line" TRY("qemu-io"));
    refuses(&human, "qemu-io virtio0 \"write 0 512\"extra",
            "qemu-io: extraneous characters at the end of line" TRY("qemu-io"));
    refuses(&compat, "info block-jobs -v", "block-jobs: extraneous characters at the end of line" TRY("info block-jobs"));
    refuses(&compat, "info status -json", "status: extraneous characters at the end of line" TRY("info status"));
}

static void switches_are_on_or_off(void **state)
{
    gives(&human, "events on", "{'on': true}");
    gives(&human, "events off", "{'on': false}");
    gives(&human, "events", "{}");
    refuses(&human, "events maybe", "Expected 'on' or 'off'" TRY("events"));
    refuses(&human, "events \"", "Expected 'on' or 'off'" TRY("events"));
}

static void what_is_missing_is_named(void **state)
{
    refuses(&human, "block_stream", "block_stream: block device name expected" TRY("block_stream"));
    refuses(&human, "block_job_cancel -f", "block_job_cancel: block device name expected" TRY("block_job_cancel"));
    refuses(&human, "block_job_set_speed virtio0", "invalid size" TRY("block_job_set_speed"));
    refuses(&human, "qemu-io virtio0", "qemu-io: string expected" TRY("qemu-io"));
    refuses(&human, "source", "source: filename expected" TRY("source"));
}

static void flags_stand_in_front(void **state)
{
    gives(&human, "info block -n -v virtio0", "{'nodes': true, 'verbose': true, 'device': 'virtio0'}");
    gives(&human, "info block -v", "{'verbose': true}");
    gives(&human, "block_job_cancel -f virtio0", "{'force': true, 'device': 'virtio0'}");
    gives(&human, "block_job_cancel -fvirtio0", "{'force': true, 'device': 'virtio0'}");
    gives(&human, "info block -nv", "{'nodes': true, 'device': 'v'}");
    gives(&human, "snapshot_blkdev -n virtio0 new.img raw",
          "{'reuse': true, 'device': 'virtio0', 'snapshot-file': 'new.img', 'format': 'raw'}");
    refuses(&human, "info block -x", "block: unsupported option -x" TRY("info block"));
    refuses(&human, "info  block   -x", "block: unsupported option -x" TRY("info  block"));
    refuses(&human, "info block -- virtio0", "block: unsupported option --" TRY("info block"));
    refuses(&human, "info block -", "block: unsupported option -Try \"help info block\" for more information");
    refuses(&human, "block_job_cancel - virtio0", "block_job_cancel: unsupported option - " TRY("block_job_cancel"));
    gives(&human, "block_stream -l 2ms virtio0", "{'latency': 2000000, 'device': 'virtio0'}");
    refuses(&human, "block_stream -n", "block_stream: unsupported option -n" TRY("block_stream"));
    gives(&compat, "block_stream -n", "{'device': '-n'}"); /* QEMU's has no flags */
}

static void quotes_make_one_word(void **state)
{
    gives(&human, "info block \"virtio0\"", "{'device': 'virtio0'}");
    gives(&human, "info block 'virtio0'", "{'device': '\\u0027virtio0\\u0027'}");
    gives(&human, "qemu-io virtio0 \"read -P 1 0 64k\"", "{'device': 'virtio0', 'command': 'read -P 1 0 64k'}");
    gives(&human, "snapshot_blkdev virtio0 \"a b\\\"c\\\\d\"",
          "{'device': 'virtio0', 'snapshot-file': 'a b\\u0022c\\\\d'}");
    gives(&human, "block_stream \"\"", "{'device': ''}");
    refuses(&human, "info block \"virtio0", "block: block device name expected" TRY("info block"));
    refuses(&human, "info block \"a\\qb\"", "block: block device name expected" TRY("info block"));
    refuses(&human, "info block \"virtio0\\", "block: block device name expected" TRY("info block"));
}

static void a_word_quoted_by_us_is_read_back(void **state)
{
    static const char *const words[] = { "plain", "", "two words", "\"", "a\\b", "tab\there", "line\nend", "re\rturn", "é" };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        AUTOFREE char *quoted = hmp_quote(words[i]);
        const char *p = quoted;
        AUTOFREE char *back = hmp_word(&p, NULL);

        assert_non_null(back);
        assert_string_equal(back, words[i]);
        assert_string_equal(p, "");
    }
}

/* --- Sizes ----------------------------------------------------------------------------------------------------------------- */

/* The speed of `block_stream virtio0 TEXT`, and the base that is left of it. */
static void speed_is(const char *text, int64_t speed, const char *base)
{
    AUTOFREE char *line = mem_printf("block_stream virtio0 %s", text);
    AUTOFREE char *json = base ? mem_printf("{'device': 'virtio0', 'speed': %lld, 'base': '%s'}", (long long)speed, base) :
                                 mem_printf("{'device': 'virtio0', 'speed': %lld}", (long long)speed);

    gives(&compat, line, json);
    gives(&human, line, json);
}

static void not_a_size(const char *text)
{
    AUTOFREE char *line = mem_printf("block_stream virtio0 %s", text);

    refuses(&compat, line, "invalid size" TRY("block_stream"));
    refuses(&human, line, "invalid size" TRY("block_stream"));
}

static void sizes_are_mebibytes_without_a_suffix(void **state)
{
    speed_is("0", 0, NULL);
    speed_is("1", 1 << 20, NULL);
    speed_is("1.5", 3 << 19, NULL);
    speed_is("1b", 1, NULL);
    speed_is("1k", 1024, NULL);
    speed_is("1K", 1024, NULL);
    speed_is("1.5M", 3 << 19, NULL);
    speed_is("0.5k", 512, NULL);
    speed_is("5.", 5 << 20, NULL);
    speed_is("+5", 5 << 20, NULL);
    speed_is("010", 10 << 20, NULL);
    speed_is("0x10", 16 << 20, NULL);
    speed_is("0x10k", 16 << 10, NULL);
    speed_is("0X1F", 31 << 20, NULL);
    speed_is("1e", 1ll << 60, NULL);
}

static void a_size_ends_where_the_number_ends(void **state)
{
    speed_is("1z", 1 << 20, "z");
    speed_is("1.5.5", 3 << 19, ".5");
    speed_is("1kb", 1024, "b");
    speed_is("0x10z", 16 << 20, "z");
    speed_is("7.5E nosuch", (int64_t)(7.5 * (1ull << 60)), "nosuch");
    refuses(&compat, "block_stream virtio0 1e3 nosuch",
            "block_stream: extraneous characters at the end of line" TRY("block_stream"));
    refuses(&compat, "block_stream virtio0 1 k nosuch",
            "block_stream: extraneous characters at the end of line" TRY("block_stream"));
    refuses(&compat, "block_stream virtio0 1,5 nosuch",
            "block_stream: extraneous characters at the end of line" TRY("block_stream"));
}

static void what_is_no_size_is_refused(void **state)
{
    static const char *const wrong[] = {
        "A", "-1", ".5M", "k", "1.1b", "1.5B", "1.5e3", "inf", "nan", "0x1.8k", "8E", "9223372036854775807",
        "18446744073709551616", "9999999999999999999999",
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        not_a_size(wrong[i]);
    }
}

static void a_sign_or_a_digit_behind_an_exponent_is_refused(void **state)
{
    not_a_size("1.5e+3");
    not_a_size("1.5e-3");
    speed_is("1.5e", 3ll << 59, NULL);
    speed_is("1.5e+", 3ll << 59, "+");
    speed_is("0x", 0, "x");
    speed_is("0xg", 0, "xg");
}

static void times_have_units(void **state)
{
    gives(&human, "block_job_set_latency virtio0 2ms", "{'id': 'virtio0', 'latency': 2000000}");
    gives(&human, "block_job_set_latency virtio0 0", "{'id': 'virtio0', 'latency': 0}");
    gives(&human, "block_stream -l 500us virtio0", "{'latency': 500000, 'device': 'virtio0'}");
    refuses(&human, "block_job_set_latency virtio0", "block_job_set_latency: time expected" TRY("block_job_set_latency"));
    refuses(&human, "block_job_set_latency virtio0 soon", "block_job_set_latency: time expected" TRY("block_job_set_latency"));
    refuses(&human, "block_job_set_latency virtio0 400000000h", "block_job_set_latency: time expected" TRY("block_job_set_latency"));
    refuses(&human, "block_stream -l", "block_stream: time expected" TRY("block_stream"));
}

static void whole_numbers_may_be_of_base_8_and_16(void **state)
{
    gives(&human, "trace-event x on 1", "{'name': 'x', 'option': true, 'vcpu': 1}");
    gives(&human, "trace-event x off 0x10", "{'name': 'x', 'option': false, 'vcpu': 16}");
    gives(&human, "trace-event x on -010", "{'name': 'x', 'option': true, 'vcpu': -8}");
    gives(&human, "trace-event x on + --1", "{'name': 'x', 'option': true, 'vcpu': 1}");
    refuses(&human, "trace-event x on -", "unexpected end of expression" TRY("trace-event"));
    refuses(&human, "trace-event x on y", "invalid char 'y' in expression" TRY("trace-event"));
    refuses(&human, "trace-event x on 99999999999999999999", "number too large" TRY("trace-event"));
    refuses(&human, "trace-event x", "Expected 'on' or 'off'" TRY("trace-event"));
}

static void blanks_behind_the_rest_of_a_line_are_not_of_it(void **state)
{
    gives(&human, "wait virtio0 ready  \t ", "{'what': 'virtio0 ready'}");
    gives(&human, "help  info block ", "{'name': 'info block'}");
    gives(&human, "info", "{}");
    gives(&human, "info  ", "{}");
}

static void bytes_that_are_not_utf_8_are_taken_as_they_are(void **state)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;

    assert_int_equal(hmp_parse(&human, "source \xe9\xff.hmp", &call, &err), 0);
    assert_string_equal(json_string_value(json_object_get(call.args, "file")), "\xe9\xff.hmp");
    hmp_call_free(&call);
    assert_int_equal(hmp_parse(&human, "wait \xe9 \xff", &call, &err), 0);
    assert_string_equal(json_string_value(json_object_get(call.args, "what")), "\xe9 \xff");
    hmp_call_free(&call);
}

/* --- Images in the place of the speed ------------------------------------------------------------------------------------------ */

static void an_image_may_stand_for_the_speed(void **state)
{
    gives(&human, "block_stream node-E A", "{'device': 'node-E', 'base': 'A'}");
    gives(&human, "block_stream node-E file-A.img", "{'device': 'node-E', 'base': 'file-A.img'}");
    gives(&human, "block_stream node-E file-A", "{'device': 'node-E', 'base': 'file-A'}");
    gives(&human, "block_stream node-E node-B", "{'device': 'node-E', 'base': 'node-B'}");
    gives(&human, "block_stream node-E dir/file-B.img", "{'device': 'node-E', 'base': 'dir/file-B.img'}");
    gives(&human, "block_stream node-E file-B.img", "{'device': 'node-E', 'base': 'file-B.img'}");
    gives(&human, "block_stream node-E \"file-A.img\"", "{'device': 'node-E', 'base': 'file-A.img'}");
    gives(&human, "block_stream node-D file-B.img", "{'device': 'node-D', 'base': 'file-B.img'}");
    /* As a whole it is no size, though it begins like one. */
    gives(&human, "block_stream node-E 1-mid.qcow2", "{'device': 'node-E', 'base': '1-mid.qcow2'}");
    gives(&human, "block_stream node-E 0 file-A.img", "{'device': 'node-E', 'speed': 0, 'base': 'file-A.img'}");
}

static void only_images_below_stand_for_the_speed(void **state)
{
    refuses(&human, "block_stream node-E E", "invalid size" TRY("block_stream"));
    refuses(&human, "block_stream node-D file-E.img", "invalid size" TRY("block_stream"));
    refuses(&human, "block_stream nosuch file-A.img", "invalid size" TRY("block_stream"));
    refuses(&compat, "block_stream node-E file-A.img", "invalid size" TRY("block_stream"));
    refuses(&human, "block_job_set_speed node-E file-A.img", "invalid size" TRY("block_job_set_speed"));
}

static void an_invalid_size_hints_at_the_images(void **state)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;

    assert_int_equal(hmp_parse(&human, "block_stream node-C Q", &call, &err), -EINVAL);
    assert_non_null(strstr(err.hint, "B (dir/file-B.img), A (file-A.img)"));
    error_clear(&err);
    hmp_call_free(&call);
}

/* --- info ---------------------------------------------------------------------------------------------------------------------- */

static void json_is_a_flag_of_every_topic(void **state)
{
    static const char *const lines[] = { "info block -json", "info block -json virtio0", "info block virtio0 -json",
                                         "info status -json", "info block-jobs -v -json" };
    struct error err = ERROR_INIT;
    struct hmp_call call;

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        assert_int_equal(hmp_parse(&human, lines[i], &call, &err), 0);
        assert_true(call.as_json);
        hmp_call_free(&call);
    }
    static const char *const none[] = { "info block \"-json\"", "info block x-json", "info block -jsonx", "info block \"\\\"-json \"" };

    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        assert_int_equal(hmp_parse(&human, none[i], &call, &err), none[i][11] == '-' ? -EINVAL : 0);
        assert_false(call.as_json);
        error_clear(&err);
        hmp_call_free(&call);
    }
}

static void near_words_are_found(void **state)
{
    struct error err = ERROR_INIT;
    struct hmp_call call;

    assert_int_equal(word_distance("stop", "stop"), 0);
    assert_int_equal(word_distance("stop", "sotp"), 1);
    assert_int_equal(word_distance("", "abc"), 3);
    assert_int_equal(word_distance("kitten", "sitting"), 3);
    assert_int_equal(hmp_parse(&human, "blok_stream virtio0", &call, &err), -ENOENT);
    assert_string_equal(err.hint, "                  ^~~~~~~~~~~\nDid you mean: block_stream.");
    error_clear(&err);
    hmp_call_free(&call);
}

/* Names are compared as paths, below the directory in which the I/O engine works. */
static int engine_start(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    return 0;
}

static int engine_stop(void **state)
{
    io_fini();
    loop_fini();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_lines_are_no_command),
        cmocka_unit_test(unknown_words_are_named),
        cmocka_unit_test(what_is_too_much_is_refused),
        cmocka_unit_test(switches_are_on_or_off),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(flags_stand_in_front),
        cmocka_unit_test(quotes_make_one_word),
        cmocka_unit_test(a_word_quoted_by_us_is_read_back),
        cmocka_unit_test(sizes_are_mebibytes_without_a_suffix),
        cmocka_unit_test(a_size_ends_where_the_number_ends),
        cmocka_unit_test(what_is_no_size_is_refused),
        cmocka_unit_test(a_sign_or_a_digit_behind_an_exponent_is_refused),
        cmocka_unit_test(times_have_units),
        cmocka_unit_test(whole_numbers_may_be_of_base_8_and_16),
        cmocka_unit_test(blanks_behind_the_rest_of_a_line_are_not_of_it),
        cmocka_unit_test(bytes_that_are_not_utf_8_are_taken_as_they_are),
        cmocka_unit_test_setup_teardown(an_image_may_stand_for_the_speed, make_chain, drop_chain),
        cmocka_unit_test_setup_teardown(only_images_below_stand_for_the_speed, make_chain, drop_chain),
        cmocka_unit_test_setup_teardown(an_invalid_size_hints_at_the_images, make_chain, drop_chain),
        cmocka_unit_test(json_is_a_flag_of_every_topic),
        cmocka_unit_test(near_words_are_found),
    };

    return cmocka_run_group_tests(tests, engine_start, engine_stop);
}
