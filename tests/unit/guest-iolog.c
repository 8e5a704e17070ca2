/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fio's iologs: what is understood, what is refused, and in which words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "hw/guest-iolog.h"

#define HEAD "fio version 2 iolog\n"
#define OPEN HEAD "/dev/sda add\n/dev/sda open\n"

static struct guest_iolog *parse(const char *text, struct error *err)
{
    AUTOFREE char *copy = mem_strdup(text);
    struct guest_iolog *log = NULL;

    if (guest_iolog_parse(&log, "log", copy, strlen(copy), err)) {
        assert_null(log);
    }
    return log;
}

static void refused(const char *text, const char *why)
{
    struct error err = ERROR_INIT;

    assert_null(parse(text, &err));
    assert_string_equal(err.text, why);
    error_clear(&err);
}

static void check(const struct guest_iolog *log, size_t i, enum guest_iolog_action action,
                  uint64_t at, uint64_t offset, uint64_t len)
{
    assert_true(i < log->count);
    assert_int_equal(log->entries[i].action, action);
    assert_int_equal(log->entries[i].at_us, at);
    assert_int_equal(log->entries[i].offset, offset);
    assert_int_equal(log->entries[i].len, len);
}

static void version_2_is_read(void **state)
{
    struct guest_iolog *log = parse(OPEN "/dev/sda read 0 4096\n"
                                         "/dev/sda wait 1500 0\n"
                                         "/dev/sda wait 99 0\n"
                                         "\n"
                                         "/dev/sda write 8192 512\r\n"
                                         "/dev/sdb add\n/dev/sdb open\n"
                                         "/dev/sdb trim 65536 65536\n"
                                         "/dev/sda wait 500\n"
                                         "/dev/sda datasync 65536 0\n"
                                         "/dev/sda sync\n"
                                         "/dev/sda close",
                                    NULL);

    assert_non_null(log);
    assert_int_equal(log->count, 5);
    check(log, 0, IOLOG_READ, 0, 0, 4096);
    check(log, 1, IOLOG_WRITE, 1500, 8192, 512);
    check(log, 2, IOLOG_TRIM, 1500, 65536, 65536);
    check(log, 3, IOLOG_SYNC, 2000, 0, 0);
    check(log, 4, IOLOG_SYNC, 2000, 0, 0);
    assert_int_equal(log->end, 131072);
    assert_int_equal(log->end_line, 11);
    guest_iolog_free(log);
}

/* Lines as fio 3.33 wrote them. */
static void version_3_has_times_in_front(void **state)
{
    struct guest_iolog *log =
        parse("fio version 3 iolog\n"
              "14 /tmp/f.img add\n111 /tmp/f.img open\n115 /tmp/f.img read 61440 4096\n"
              "9569 /tmp/f.img datasync 954368 0\n9500 /tmp/f.img write 0 4096\n"
              "21464 /tmp/f.img close\n",
              NULL);

    assert_non_null(log);
    assert_int_equal(log->count, 3);
    check(log, 0, IOLOG_READ, 115, 61440, 4096);
    check(log, 1, IOLOG_SYNC, 9569, 0, 0);
    check(log, 2, IOLOG_WRITE, 9569, 0, 4096); /* time does not go back */
    guest_iolog_free(log);
}

static void ranges_are_rounded_outwards(void **state)
{
    struct guest_iolog *log = parse(OPEN "/dev/sda write 1000 100\n/dev/sda read 511 2\n", NULL);

    check(log, 0, IOLOG_WRITE, 0, 512, 1024);
    check(log, 1, IOLOG_READ, 0, 0, 1024);
    guest_iolog_free(log);
}

static void an_empty_log_does_nothing(void **state)
{
    struct guest_iolog *log = parse(HEAD, NULL);

    assert_int_equal(log->count, 0);
    guest_iolog_free(log);
}

static void bad_logs_are_refused_with_the_line(void **state)
{
    const char *none = "'log' is not an iolog of fio: it does not begin with 'fio version 2 iolog'";

    refused("", none);
    refused("fio version 1 iolog\n", none);
    refused("read 0 4096\n", none);
    refused(HEAD "/dev/sda\n",
            "Iolog 'log', line 2: a line is: file, action, and mostly offset and length");
    refused(HEAD "/dev/sda open\n", "Iolog 'log', line 2: '/dev/sda' was not added before");
    refused(HEAD "/dev/sda add\n/dev/sda close\n", "Iolog 'log', line 3: '/dev/sda' is not open");
    refused(HEAD "/dev/sda add\n/dev/sda read 0 4096\n",
            "Iolog 'log', line 3: '/dev/sda' is not open");
    refused(HEAD "/dev/sda add\n/dev/sdb read 0 4096\n",
            "Iolog 'log', line 3: '/dev/sdb' is not open");
    refused(HEAD "/dev/sda add\n/dev/sda add\n/dev/sda close\n", "Iolog 'log', line 4: '/dev/sda' is not open");
    refused(OPEN "/dev/sda close\n/dev/sda read 0 4096\n",
            "Iolog 'log', line 5: '/dev/sda' is not open");
    refused(OPEN "/dev/sda open now\n", "Iolog 'log', line 4: 'open' takes nothing more");
    refused(OPEN "/dev/sda erase 0 4096\n", "Iolog 'log', line 4: unknown action 'erase'");
    refused(OPEN "/dev/sda read 0\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda read 0 0\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda read 0 4k\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda read -4096 4096\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda read 0 4096 1\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda wait\n", "Iolog 'log', line 4: 'wait' takes a time in microseconds");
    refused(OPEN "/dev/sda read 18446744073709551615 512\n",
            "Iolog 'log', line 4: offset and length are too large");
    refused(OPEN "/dev/sda read 9223372036854775807 1\n",
            "Iolog 'log', line 4: offset and length are too large");
    refused(OPEN "/dev/sda read 99999999999999999999 1\n",
            "Iolog 'log', line 4: 'read' takes an offset and a length in bytes");
    refused(OPEN "/dev/sda wait 18446744073709551615 0\n/dev/sda wait 100 0\n",
            "Iolog 'log', line 5: the waits add up to too long a time");
    refused("fio version 3 iolog\n1 a add\nb a open\n",
            "Iolog 'log', line 3: 'b' is not a time in microseconds");
    refused("fio version 3 iolog\n1 a add\n2 a open\n3 a wait 100 0\n",
            "Iolog 'log', line 4: there is no 'wait' in version 3");
}

static void zero_bytes_are_no_text(void **state)
{
    char text[] = HEAD "a add\0 x\n";
    struct error err = ERROR_INIT;
    struct guest_iolog *log;

    assert_int_not_equal(guest_iolog_parse(&log, "log", text, sizeof(text) - 1, &err), 0);
    assert_string_equal(err.text, "Iolog 'log', line 2: not a line of text");
    error_clear(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(version_3_has_times_in_front),
        cmocka_unit_test(ranges_are_rounded_outwards),
        cmocka_unit_test(an_empty_log_does_nothing),
        cmocka_unit_test(bad_logs_are_refused_with_the_line),
        cmocka_unit_test(zero_bytes_are_no_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
