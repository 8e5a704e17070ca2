/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD's messages, taken apart and put together: what is right comes out as it went in, and what is wrong is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "export/nbd-protocol.h"

static size_t put_string(uint8_t *at, const char *text, uint32_t claimed)
{
    store_be32(at, claimed);
    memcpy(at + 4, text, strlen(text));
    return 4 + strlen(text);
}

/* --- Options ------------------------------------------------------------------------------------------------------------ */

static void the_greeting_is_the_protocols(void **state)
{
    static const uint8_t wanted[] = "NBDMAGICIHAVEOPT\0\3";
    uint8_t out[NBD_GREETING_BYTES];

    nbd_greeting(out);
    assert_memory_equal(out, wanted, sizeof(out));
}

static void an_option_needs_its_magic(void **state)
{
    uint8_t raw[NBD_OPTION_BYTES] = "IHAVEOPT\0\0\0\7\0\0\1\2";
    struct nbd_option_head head;

    assert_true(nbd_option_parse(raw, &head));
    assert_int_equal(head.option, NBD_OPT_GO);
    assert_int_equal(head.len, 258);
    raw[0] = 'i';
    assert_false(nbd_option_parse(raw, &head));
}

static void info_names_an_export_and_what_is_wanted(void **state)
{
    uint8_t data[64];
    struct nbd_string name;
    unsigned wanted;
    size_t n = put_string(data, "disk", 4);

    store_be16(data + n, 3);
    store_be16(data + n + 2, NBD_INFO_BLOCK_SIZE);
    store_be16(data + n + 4, 77);
    store_be16(data + n + 6, NBD_INFO_NAME);
    assert_true(nbd_info_parse(data, n + 8, &name, &wanted));
    assert_true(nbd_string_is(&name, "disk"));
    assert_false(nbd_string_is(&name, "dis"));
    assert_int_equal(wanted, 1 << NBD_INFO_BLOCK_SIZE | 1 << NBD_INFO_NAME);
    for (size_t len = 0; len < n + 8; len++) {
        assert_false(nbd_info_parse(data, len, &name, &wanted));
    }
    assert_false(nbd_info_parse(data, n + 9, &name, &wanted));
}

static void a_string_is_never_longer_than_its_message(void **state)
{
    static const uint32_t claims[] = { 5, 6, 7, 4096, 4097, 0x7fffffff, 0xfffffffc, 0xffffffff };
    uint8_t data[16] = { 0 };
    struct nbd_string name;
    bool base;
    unsigned wanted;

    for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
        size_t n = put_string(data, "disk", claims[i]);

        assert_false(nbd_info_parse(data, n + 2 - (claims[i] == 5), &name, &wanted));
        assert_false(nbd_meta_parse(data, n + 4 - (claims[i] == 5), false, &name, &base));
    }
}

static size_t meta(uint8_t *data, const char *const *queries, uint32_t n)
{
    size_t at = put_string(data, "disk", 4);

    store_be32(data + at, n);
    at += 4;
    for (uint32_t i = 0; i < n; i++) {
        at += put_string(data + at, queries[i], strlen(queries[i]));
    }
    return at;
}

static void contexts_are_found_among_the_queries(void **state)
{
    static const struct {
        const char *queries[2];
        uint32_t n;
        bool set, list;
    } cases[] = {
        { { NULL }, 0, false, true },
        { { "base:allocation" }, 1, true, true },
        { { "x:y", "base:allocation" }, 2, true, true },
        { { "base:" }, 1, false, true },
        { { "base:alloc" }, 1, false, false },
        { { "qemu:" }, 1, false, false },
        { { "" }, 1, false, false },
    };
    struct nbd_string name;
    uint8_t data[128];
    bool base;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t len = meta(data, cases[i].queries, cases[i].n);

        assert_true(nbd_meta_parse(data, len, false, &name, &base));
        assert_int_equal(base, cases[i].set);
        assert_true(nbd_meta_parse(data, len, true, &name, &base));
        assert_int_equal(base, cases[i].list);
        assert_true(nbd_string_is(&name, "disk"));
        for (size_t less = 0; less < len; less++) {
            assert_false(nbd_meta_parse(data, less, false, &name, &base));
        }
        assert_false(nbd_meta_parse(data, len + 1, false, &name, &base));
    }
}

static void more_queries_than_there_are_is_refused(void **state)
{
    uint8_t data[32];
    struct nbd_string name;
    bool base;
    size_t at = put_string(data, "disk", 4);

    store_be32(data + at, UINT32_MAX);
    assert_false(nbd_meta_parse(data, at + 4, true, &name, &base));
}

/* --- Requests ------------------------------------------------------------------------------------------------------------- */

static void a_request_comes_apart(void **state)
{
    static const uint8_t raw[] = { 0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8,
                                   0,    0,    0,    1,    0, 0, 2, 0, 0, 0, 16, 0 };
    uint8_t wrong[sizeof(raw)];
    uint8_t reply[NBD_SIMPLE_BYTES];
    struct nbd_request req;

    assert_true(nbd_request_parse(raw, &req));
    assert_int_equal(req.flags, NBD_CMD_FUA);
    assert_int_equal(req.type, NBD_CMD_WRITE_ZEROES);
    assert_int_equal(req.offset, 0x100000200);
    assert_int_equal(req.len, 4096);
    nbd_simple_reply(reply, req.handle, 22);
    assert_memory_equal(reply + 8, raw + 8, 8);
    assert_int_equal(load_be32(reply + 4), 22);
    for (size_t bit = 0; bit < 32; bit++) {
        memcpy(wrong, raw, sizeof(raw));
        wrong[bit / 8] ^= 1 << bit % 8;
        assert_false(nbd_request_parse(wrong, &req));
    }
}

#define SIZE (1u << 20)

static void ranges_flags_and_rights_are_checked(void **state)
{
    static const struct {
        uint16_t type, flags;
        uint64_t offset;
        uint32_t len;
        int writable, read_only;
    } cases[] = {
        { NBD_CMD_READ, 0, 0, SIZE, 0, 0 },
        { NBD_CMD_READ, 0, SIZE, 0, 0, 0 },
        { NBD_CMD_READ, 0, SIZE, 1, -EINVAL, -EINVAL },
        { NBD_CMD_READ, 0, 1, SIZE, -EINVAL, -EINVAL },
        { NBD_CMD_READ, 0, UINT64_MAX, 2, -EINVAL, -EINVAL },
        { NBD_CMD_READ, 0, UINT64_MAX - 1, UINT32_MAX, -EINVAL, -EINVAL },
        { NBD_CMD_READ, NBD_CMD_DF, 0, 512, 0, 0 },
        { NBD_CMD_READ, NBD_CMD_NO_HOLE, 0, 512, -EINVAL, -EINVAL },
        { NBD_CMD_READ, 0x8000, 0, 512, -EINVAL, -EINVAL },
        { NBD_CMD_WRITE, NBD_CMD_FUA, 0, 512, 0, -EPERM },
        { NBD_CMD_WRITE, 0, SIZE - 1, 2, -ENOSPC, -EPERM },
        { NBD_CMD_WRITE, NBD_CMD_DF, 0, 512, -EINVAL, -EINVAL },
        { NBD_CMD_FLUSH, 0, 0, 0, 0, 0 },
        { NBD_CMD_FLUSH, 0, 512, 0, -EINVAL, -EINVAL },
        { NBD_CMD_FLUSH, 0, 0, 1, -EINVAL, -EINVAL },
        { NBD_CMD_TRIM, 0, 0, SIZE, 0, -EPERM },
        { NBD_CMD_TRIM, 0, 1, SIZE, -EINVAL, -EPERM },
        { NBD_CMD_WRITE_ZEROES, NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO | NBD_CMD_FUA, 0, SIZE, 0, -EPERM },
        { NBD_CMD_WRITE_ZEROES, 0, 512, SIZE, -ENOSPC, -EPERM },
        { NBD_CMD_BLOCK_STATUS, NBD_CMD_REQ_ONE, 0, SIZE, 0, 0 },
        { NBD_CMD_BLOCK_STATUS, 0, 0, 0, -EINVAL, -EINVAL },
        { NBD_CMD_DISC, 0, 0, 0, -EINVAL, -EINVAL },
        { 8, 0, 0, 0, -EINVAL, -EINVAL },
        { 0xffff, 0, 0, 0, -EINVAL, -EINVAL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct nbd_request req = { cases[i].flags, cases[i].type, 0, cases[i].offset, cases[i].len };
        struct nbd_terms terms = { .size = SIZE, .structured = true, .base_allocation = true };

        assert_int_equal(nbd_request_check(&req, &terms), cases[i].writable);
        terms.read_only = true;
        assert_int_equal(nbd_request_check(&req, &terms), cases[i].read_only);
    }
}

static void what_was_not_negotiated_is_refused(void **state)
{
    struct nbd_request status = { .type = NBD_CMD_BLOCK_STATUS, .len = 512 };
    struct nbd_request whole = { .type = NBD_CMD_READ, .flags = NBD_CMD_DF, .len = 512 };
    struct nbd_request big = { .type = NBD_CMD_READ, .len = NBD_PAYLOAD_MAX + 1 };
    struct nbd_terms terms = { .size = 1ull << 40 };

    assert_int_equal(nbd_request_check(&status, &terms), -EINVAL);
    assert_int_equal(nbd_request_check(&whole, &terms), -EINVAL);
    assert_int_equal(nbd_request_check(&big, &terms), -EINVAL);
    big.len--;
    assert_int_equal(nbd_request_check(&big, &terms), 0);
}

static void errors_are_the_protocols_numbers(void **state)
{
    static const struct {
        int ret;
        uint32_t wire;
    } cases[] = {
        { 0, 0 },        { -EPERM, 1 },   { -EROFS, 1 },     { -EIO, 5 },       { -ENOMEM, 12 },    { -EINVAL, 22 },
        { -ENOSPC, 28 }, { -EFBIG, 28 },  { -EDQUOT, 28 },   { -EOVERFLOW, 75 }, { -ENOTSUP, 95 },  { -ESHUTDOWN, 108 },
        { -EBADF, 5 },   { -ENOMEDIUM, 5 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(nbd_error(cases[i].ret), cases[i].wire);
    }
}

static void an_export_name_is_answered_with_or_without_zeroes(void **state)
{
    uint8_t out[NBD_EXPORT_NAME_BYTES];

    assert_int_equal(nbd_export_name_reply(out, SIZE, 3, true), 10);
    assert_int_equal(nbd_export_name_reply(out, SIZE, 3, false), 134);
    assert_int_equal(load_be64(out), SIZE);
    assert_int_equal(load_be16(out + 8), 3);
    assert_true(bytes_are_zero(out + 10, 124));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greeting_is_the_protocols),
        cmocka_unit_test(an_option_needs_its_magic),
        cmocka_unit_test(info_names_an_export_and_what_is_wanted),
        cmocka_unit_test(a_string_is_never_longer_than_its_message),
        cmocka_unit_test(contexts_are_found_among_the_queries),
        cmocka_unit_test(more_queries_than_there_are_is_refused),
        cmocka_unit_test(a_request_comes_apart),
        cmocka_unit_test(ranges_flags_and_rights_are_checked),
        cmocka_unit_test(what_was_not_negotiated_is_refused),
        cmocka_unit_test(errors_are_the_protocols_numbers),
        cmocka_unit_test(an_export_name_is_answered_with_or_without_zeroes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
