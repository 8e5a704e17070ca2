/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Telnet as bytes in, bytes out: what the client sends is given whole and byte by byte, and what comes of it is written as a
 * row: the text for the monitor, and the answer to the client.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mem.h"
#include "monitor/telnet.h"

#define IAC "\xff"
#define DONT IAC "\xfe"
#define DO IAC "\xfd"
#define WONT IAC "\xfc"
#define WILL IAC "\xfb"
#define SB IAC "\xfa"
#define EL IAC "\xf8"
#define EC IAC "\xf7"
#define AYT IAC "\xf6"
#define IP IAC "\xf4"
#define SE IAC "\xf0"
#define BINARY "\0"
#define ECHO "\1"
#define AHEAD "\3"
#define STATUS "\5"

/* A text that may hold NUL. */
struct bytes {
    const char *at;
    size_t len;
};
#define B(text) { text, sizeof(text) - 1 }

struct row {
    struct bytes sent, text, answer;
};

static bool same(const char *got, size_t len, struct bytes wanted)
{
    return len == wanted.len && (len == 0 || !memcmp(got, wanted.at, len));
}

static void print_bytes(const char *what, const char *at, size_t len)
{
    print_message("  %s:", what);
    for (size_t i = 0; i < len; i++) {
        print_message(" %02x", (unsigned char)at[i]);
    }
    print_message("\n");
}

static void decode(const struct row *row, bool lines, size_t piece)
{
    struct telnet_output hello = { 0 }, answer = { 0 };
    struct telnet *t = telnet_new(lines, &hello);
    AUTOFREE char *out = mem_alloc(2 * row->sent.len + 2 * TELNET_LINE_MAX);
    size_t n = 0;

    for (size_t at = 0; at < row->sent.len; at += piece) {
        n += telnet_decode(t, row->sent.at + at, MIN(piece, row->sent.len - at), out + n, &answer);
    }
    if (!same(out, n, row->text) || !same(answer.bytes, answer.len, row->answer)) {
        print_bytes("sent", row->sent.at, row->sent.len);
        print_bytes("text", out, n);
        print_bytes("answer", answer.bytes, answer.len);
        fail();
    }
    free(hello.bytes);
    free(answer.bytes);
    telnet_free(t);
}

static void decode_rows(const struct row *rows, size_t n, bool lines)
{
    for (size_t i = 0; i < n; i++) {
        decode(rows + i, lines, 1);
        decode(rows + i, lines, rows[i].sent.len + 1);
    }
}

static void a_person_is_promised_the_echo_and_a_program_is_not(void **state)
{
    static const struct bytes person = B(WILL ECHO WILL AHEAD WILL BINARY DO BINARY),
                              program = B(WILL AHEAD WILL BINARY DO BINARY);

    for (int lines = 0; lines < 2; lines++) {
        struct telnet_output hello = { 0 };
        struct telnet *t = telnet_new(lines, &hello);

        assert_true(same(hello.bytes, hello.len, lines ? person : program));
        free(hello.bytes);
        telnet_free(t);
    }
    telnet_free(NULL);
}

static const struct row of_programs[] = {
    { B("info\n"), B("info\n"), B("") },
    { B("info\r\n"), B("info\n"), B("") },
    { B("info\r\0x"), B("info\nx"), B("") },
    { B("a\r\rb"), B("a\n\nb"), B("") },
    { B("a\nb"), B("a\nb"), B("") },
    { B("a\0b"), B("ab"), B("") },
    { B("\b\t\x15\x7f"), B("\b\t\x15\x7f"), B("") },
    { B("a" IAC IAC "b"), B("a\xff" "b"), B("") },
    /* What changes nothing is not answered; what we cannot do is refused each time that it is asked for. */
    { B(DO AHEAD DO BINARY WILL BINARY), B(""), B("") },
    { B(DO ECHO "x" DO STATUS), B("x"), B(WONT ECHO WONT STATUS) },
    { B(WILL STATUS WILL ECHO), B(""), B(DONT STATUS DONT ECHO) },
    { B(WILL AHEAD WILL AHEAD WONT AHEAD WONT AHEAD), B(""), B(DO AHEAD DONT AHEAD) },
    { B(DONT BINARY DONT BINARY DO BINARY), B(""), B(WONT BINARY WILL BINARY) },
    { B(WONT BINARY WILL BINARY), B(""), B(DONT BINARY DO BINARY) },
    { B(DONT STATUS WONT STATUS), B(""), B("") },
    /* Subnegotiations are passed over, whatever is in them. */
    { B("a" SB STATUS "quit\n" SE "b"), B("ab"), B("") },
    { B("a" SB "x" IAC IAC "y" SE "b"), B("ab"), B("") },
    { B(AYT), B(""), B("\r\n[Yes]\r\n") },
    /* Editing is the monitor's own. */
    { B("ab" EC EL IP "c\n"), B("abc\n"), B("") },
    { B("a" IAC "\xf1" "b"), B("ab"), B("") }, /* NOP */
};

static void a_programs_bytes_are_passed_on(void **state)
{
    decode_rows(of_programs, ARRAY_SIZE(of_programs), false);
}

static const struct row of_people[] = {
    { B("info\r\n"), B("info\n"), B("info\r\n") },
    { B("info\n"), B("info\n"), B("info\r\n") },
    { B("\r\0\r\0"), B("\n\n"), B("\r\n\r\n") },
    { B("in"), B(""), B("in") },
    { B("ax\bb\n"), B("ab\n"), B("ax\b \bb\r\n") },
    { B("ax\x7f" "b\n"), B("ab\n"), B("ax\b \bb\r\n") },
    { B("\b\bb\n"), B("b\n"), B("b\r\n") },
    { B("a\xc3\xbc\bb\n"), B("ab\n"), B("a\xc3\xbc\b \bb\r\n") },
    { B("\xbc\bb\n"), B("b\n"), B("\xbc\b \bb\r\n") }, /* the rest of a character */
    { B("ab\x15" "c\n"), B("c\n"), B("ab\b \b\b \bc\r\n") },
    { B("a bc \x17" "d\n"), B("a d\n"), B("a bc \b \b\b \b\b \bd\r\n") },
    { B("bc  \x17\x17" "d\n"), B("d\n"), B("bc  \b \b\b \b\b \b\b \bd\r\n") },
    { B("quit\3x\n"), B("\nx\n"), B("quit\r\nx\r\n") },
    { B("a\tb\x1b\1\n"), B("a\tb\n"), B("a\tb\r\n") },
    { B(IAC IAC "\n"), B("\xff\n"), B(IAC IAC "\r\n") },
    { B("ab" EC "c" EL "d\n"), B("d\n"), B("ab\b \bc\b \b\b \bd\r\n") },
    { B("ab" IP "c\n"), B("\nc\n"), B("ab\r\nc\r\n") },
    /* A client that echoes by itself. */
    { B(DONT ECHO "ab\bc\xff\xff\n"), B("ac\xff\n"), B(WONT ECHO) },
    { B(DONT ECHO DO ECHO "a\n"), B("a\n"), B(WONT ECHO WILL ECHO "a\r\n") },
};

static void a_persons_lines_are_shown_and_edited(void **state)
{
    decode_rows(of_people, ARRAY_SIZE(of_people), true);
}

static void a_line_without_an_end_is_not_taken_beyond_its_limit(void **state)
{
    struct telnet_output hello = { 0 }, answer = { 0 };
    struct telnet *t = telnet_new(true, &hello);
    AUTOFREE char *sent = mem_alloc(2 * TELNET_LINE_MAX), *out = mem_alloc(4 * TELNET_LINE_MAX);

    memset(sent, 'a', 2 * TELNET_LINE_MAX);
    assert_int_equal(telnet_decode(t, sent, TELNET_LINE_MAX - 1, out, &answer), 0);
    assert_int_equal(answer.len, TELNET_LINE_MAX - 1);
    assert_int_equal(telnet_decode(t, sent, 3, out, &answer), 0);
    assert_int_equal(answer.len, TELNET_LINE_MAX + 2);
    assert_memory_equal(answer.bytes + TELNET_LINE_MAX - 2, "a\a\a\a", 4);
    assert_int_equal(telnet_decode(t, "\n", 1, out, &answer), TELNET_LINE_MAX);
    assert_int_equal(out[TELNET_LINE_MAX - 1], '\n');
    free(hello.bytes);
    free(answer.bytes);
    telnet_free(t);
}

static void what_the_monitor_says_has_a_telnets_line_ends(void **state)
{
    static const struct {
        const char *said;
        struct bytes sent;
    } rows[] = {
        { "a\nb", B("a\r\nb") },
        { "a\r\nb", B("a\r\nb") },
        { "\n\n", B("\r\n\r\n") },
        { "\xff" "a", B("\xff\xff" "a") },
        { "", B("") },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct telnet_output hello = { 0 };
        struct telnet *t = telnet_new(true, &hello);
        size_t len = strlen(rows[i].said);
        AUTOFREE char *sent = telnet_encode(t, rows[i].said, &len);

        assert_true(same(sent, len, rows[i].sent));
        free(hello.bytes);
        telnet_free(t);
    }
}

static void a_line_end_may_be_said_in_two_pieces(void **state)
{
    struct telnet_output hello = { 0 };
    struct telnet *t = telnet_new(true, &hello);
    size_t len = 2;
    AUTOFREE char *first = telnet_encode(t, "a\r", &len);

    assert_int_equal(len, 2);
    len = 2;
    AUTOFREE char *second = telnet_encode(t, "\nb", &len);

    assert_int_equal(len, 2);
    assert_memory_equal(second, "\nb", 2);
    free(hello.bytes);
    telnet_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_person_is_promised_the_echo_and_a_program_is_not),
        cmocka_unit_test(a_programs_bytes_are_passed_on),
        cmocka_unit_test(a_persons_lines_are_shown_and_edited),
        cmocka_unit_test(a_line_without_an_end_is_not_taken_beyond_its_limit),
        cmocka_unit_test(what_the_monitor_says_has_a_telnets_line_ends),
        cmocka_unit_test(a_line_end_may_be_said_in_two_pieces),
    };
    return cmocka_run_group_tests_name("telnet", tests, NULL, NULL);
}
