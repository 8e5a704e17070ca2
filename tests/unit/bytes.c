/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integers in buffers, zero detection, scatter-gather lists against a plain buffer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"

static void integers_have_the_order_of_their_name(void **state)
{
    unsigned char b[9] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };

    assert_int_equal(load_be16(b + 1), 0x0102);
    assert_int_equal(load_be32(b + 1), 0x01020304);
    assert_int_equal(load_be64(b + 1), 0x0102030405060708);
    assert_int_equal(load_le16(b + 1), 0x0201);
    assert_int_equal(load_le32(b + 1), 0x04030201);
    assert_int_equal(load_le64(b + 1), 0x0807060504030201);
    store_be32(b + 1, 0xa1b2c3d4);
    assert_memory_equal(b, "\0\xa1\xb2\xc3\xd4\5\6\7\10", 9);
    store_le64(b + 1, 0x1122334455667788);
    assert_memory_equal(b, "\0\x88\x77\x66\x55\x44\x33\x22\x11", 9);
    store_be16(b, 0xfedc);
    assert_memory_equal(b, "\xfe\xdc", 2);
}

static void every_single_byte_counts_against_zero(void **state)
{
    unsigned char b[200] = { 0 };

    for (size_t start = 0; start < 9; start++) {
        for (size_t len = 0; len <= sizeof(b) - 9; len++) {
            assert_true(bytes_are_zero(b + start, len));
        }
    }
    for (size_t at = 3; at < 190; at++) {
        b[at] = 0x80;
        assert_false(bytes_are_zero(b + 3, 187));
        assert_true(bytes_are_zero(b + 3, at - 3));
        assert_true(bytes_are_zero(b + at + 1, sizeof(b) - at - 1));
        b[at] = 0;
    }
}

#define TOTAL 500

/* A list of random pieces (some empty) that covers `flat` in order. */
static int random_list(struct random *r, struct iovec *iov, int max, char *flat)
{
    size_t at = 0;
    int n = 0;

    while (n < max - 1 && at < TOTAL) {
        size_t len = MIN(random_below(r, 90), TOTAL - at);

        iov[n++] = (struct iovec){ .iov_base = flat + at, .iov_len = len };
        at += len;
    }
    iov[n++] = (struct iovec){ .iov_base = flat + at, .iov_len = TOTAL - at };
    return n;
}

static void lists_behave_like_one_buffer(void **state)
{
    struct random r;
    char flat[TOTAL], model[TOTAL], buf[TOTAL + 100];
    struct iovec iov[20], part[20];

    random_seed(&r, 5);
    memset(flat, 0, sizeof(flat));
    memset(model, 0, sizeof(model));
    for (int round = 0; round < 2000; round++) {
        int n = random_list(&r, iov, ARRAY_SIZE(iov), flat);
        size_t skip = random_below(&r, TOTAL + 50);
        size_t len = random_below(&r, TOTAL + 50);
        size_t want = skip >= TOTAL ? 0 : MIN(len, TOTAL - skip);

        assert_int_equal(iov_size(iov, n), TOTAL);
        for (size_t i = 0; i < len; i++) {
            buf[i] = random_next(&r);
        }
        assert_int_equal(iov_from_buf(iov, n, skip, buf, len), want);
        memcpy(model + (want ? skip : 0), buf, want);
        assert_memory_equal(flat, model, TOTAL);

        skip = random_below(&r, TOTAL);
        len = random_below(&r, 40);
        want = MIN(len, TOTAL - skip);
        assert_int_equal(iov_memset(iov, n, skip, round, len), want);
        memset(model + skip, round, want);
        assert_memory_equal(flat, model, TOTAL);

        skip = random_below(&r, TOTAL);
        len = random_below(&r, TOTAL);
        want = MIN(len, TOTAL - skip);
        assert_int_equal(iov_to_buf(iov, n, skip, buf, len), want);
        assert_memory_equal(buf, model + skip, want);

        int used = iov_slice(part, iov, n, skip, len);

        assert_true(used <= n);
        assert_int_equal(iov_size(part, used), want);
        assert_int_equal(iov_to_buf(part, used, 0, buf, sizeof(buf)), want);
        assert_memory_equal(buf, model + skip, want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_have_the_order_of_their_name),
        cmocka_unit_test(every_single_byte_counts_against_zero),
        cmocka_unit_test(lists_behave_like_one_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
