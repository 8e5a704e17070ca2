/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's knowledge of its disk: what counts as wrong, what is learned, what it costs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/loop.h"
#include "core/mem.h"
#include "hw/guest-verify.h"

#define ID 0x1234u
#define KIB 1024u

static struct guest_verify *v;
static struct guest_finding finding;
static uint8_t buf[64 * KIB];

static int setup(void **state)
{
    v = guest_verify_new(ID);
    return 0;
}

static int teardown(void **state)
{
    guest_verify_free(v);
    return 0;
}

/* Content number `c` of a sector; 0 is zeroes. */
static void content(uint8_t *sector, unsigned c)
{
    memset(sector, c, GUEST_SECTOR);
    if (c > 255) {
        memcpy(sector, &c, sizeof(c));
    }
}

static void read_one(uint64_t offset, unsigned c)
{
    content(buf, c);
    guest_verify_read(v, offset, buf, GUEST_SECTOR, &finding);
}

static void write_one(uint64_t offset, unsigned c)
{
    content(buf, c);
    guest_verify_wrote(v, offset, buf, GUEST_SECTOR);
}

static void maybe_one(uint64_t offset, unsigned c)
{
    content(buf, c);
    guest_verify_may_have_written(v, offset, buf, GUEST_SECTOR);
}

static void what_was_read_once_must_stay(void **state)
{
    read_one(4096, 1);
    assert_int_equal(finding.learned, 1);
    assert_int_equal(finding.compared, 0);
    assert_int_equal(finding.wrong, 0);
    read_one(4096, 1);
    assert_int_equal(finding.learned, 0);
    assert_int_equal(finding.compared, 1);
    assert_int_equal(finding.wrong, 0);
    read_one(4096, 0);
    assert_int_equal(finding.wrong, 1);
    assert_int_equal(finding.first, 4096);
    assert_string_equal(finding.found, "zeroes");
    read_one(4096, 1); /* wrong data did not become knowledge */
    assert_int_equal(finding.wrong, 0);
}

static void one_wrong_byte_in_a_large_read_is_found(void **state)
{
    memset(buf, 7, sizeof(buf));
    guest_verify_wrote(v, 1 << 20, buf, sizeof(buf));
    buf[33 * KIB + 5] ^= 1;
    guest_verify_read(v, 1 << 20, buf, sizeof(buf), &finding);
    assert_int_equal(finding.compared, sizeof(buf) / GUEST_SECTOR);
    assert_int_equal(finding.wrong, 1);
    assert_int_equal(finding.first, (1 << 20) + 33 * KIB);
    assert_string_equal(finding.found, "other bytes");
}

static void a_failed_write_leaves_old_or_new(void **state)
{
    write_one(0, 1);
    maybe_one(0, 2);
    maybe_one(0, 3);
    read_one(0, 4);
    assert_int_equal(finding.wrong, 1);
    read_one(0, 2); /* now it is known which */
    assert_int_equal(finding.wrong, 0);
    read_one(0, 1);
    assert_int_equal(finding.wrong, 1);
    read_one(0, 2);
    assert_int_equal(finding.wrong, 0);
}

static void a_failed_write_of_the_same_bytes_leaves_no_doubt(void **state)
{
    size_t before;

    write_one(512, 1);
    before = guest_verify_memory(v);
    maybe_one(512, 1);
    assert_int_equal(guest_verify_memory(v), before);
    read_one(512, 2);
    assert_int_equal(finding.wrong, 1);
}

static void a_failed_write_over_the_unknown_leaves_it_unknown(void **state)
{
    maybe_one(0, 1);
    assert_int_equal(guest_verify_known(v), 0);
    read_one(0, 9);
    assert_int_equal(finding.learned, 1);
    assert_int_equal(finding.wrong, 0);
}

static void an_acknowledged_write_ends_all_guesses(void **state)
{
    write_one(0, 1);
    maybe_one(0, 2);
    write_one(0, 3);
    read_one(0, 2);
    assert_int_equal(finding.wrong, 1);
    read_one(0, 3);
    assert_int_equal(finding.wrong, 0);
}

static void many_guesses_become_unknown_and_cost_nothing(void **state)
{
    write_one(0, 1);
    size_t before = guest_verify_memory(v);

    for (unsigned c = 2; c < 100; c++) {
        maybe_one(0, c);
    }
    assert_int_equal(guest_verify_memory(v), before);
    assert_int_equal(guest_verify_known(v), 0);
    read_one(0, 250);
    assert_int_equal(finding.wrong, 0);
}

static void a_discarded_range_is_unknown_until_it_is_read(void **state)
{
    memset(buf, 5, sizeof(buf));
    guest_verify_wrote(v, 0, buf, sizeof(buf));
    maybe_one(8192, 6);
    guest_verify_forget(v, 4096, 8192);
    assert_int_equal(guest_verify_known(v), sizeof(buf) - 8192);
    read_one(4096, 0);
    assert_int_equal(finding.learned, 1);
    read_one(4096, 5);
    assert_int_equal(finding.wrong, 1);
    read_one(4096 - 512, 0);
    assert_int_equal(finding.wrong, 1);
    read_one(4096 + 8192, 0);
    assert_int_equal(finding.wrong, 1);
}

static void forgetting_may_reach_beyond_everything(void **state)
{
    write_one(0, 1);
    write_one(1ull << 40, 1);
    write_one((1ull << 63) - 512, 1);
    assert_int_equal(guest_verify_known(v), 3 * 512);
    guest_verify_forget(v, 512, UINT64_MAX);
    assert_int_equal(guest_verify_known(v), 512);
    guest_verify_forget(v, 0, UINT64_MAX);
    assert_int_equal(guest_verify_known(v), 0);
}

static void memory_follows_what_was_touched(void **state)
{
    /* 1 MiB in pieces of 32 KiB over a disk of 8 EiB. */
    for (unsigned i = 0; i < 32; i++) {
        memset(buf, i, 32 * KIB);
        guest_verify_wrote(v, (uint64_t)i << 58, buf, 32 * KIB);
    }
    assert_int_equal(guest_verify_known(v), 1 << 20);
    assert_true(guest_verify_memory(v) < 32 * 10 * 512 + 4096);

    guest_verify_free(v);
    v = guest_verify_new(ID);
    for (uint64_t at = 0; at < 64u << 20; at += sizeof(buf)) {
        guest_verify_wrote(v, at, buf, sizeof(buf));
    }
    assert_true(guest_verify_memory(v) < (64u << 20) / 60);
}

static void runs_of_knowledge_are_found_in_order(void **state)
{
    uint64_t offset, len;

    memset(buf, 1, sizeof(buf));
    assert_false(guest_verify_next(v, 0, 4096, &offset, &len));
    guest_verify_wrote(v, 31 * KIB, buf, 3 * KIB); /* over the edge of a leaf */
    guest_verify_wrote(v, 1ull << 45, buf, 8 * KIB);
    assert_true(guest_verify_next(v, 0, 1 << 20, &offset, &len));
    assert_int_equal(offset, 31 * KIB);
    assert_int_equal(len, 3 * KIB);
    assert_true(guest_verify_next(v, offset + 512, 1024, &offset, &len));
    assert_int_equal(offset, 31 * KIB + 512);
    assert_int_equal(len, 1024);
    assert_true(guest_verify_next(v, 34 * KIB, 1 << 20, &offset, &len));
    assert_int_equal(offset, 1ull << 45);
    assert_int_equal(len, 8 * KIB);
    assert_false(guest_verify_next(v, offset + len, 1 << 20, &offset, &len));
}

static void stamps_say_where_they_belong(void **state)
{
    struct guest_stamp stamp;

    guest_stamp_fill(buf, 2 * GUEST_SECTOR, 8192, 7, ID);
    assert_true(guest_stamp_parse(buf + GUEST_SECTOR, &stamp));
    assert_int_equal(stamp.address, 8192 + GUEST_SECTOR);
    assert_int_equal(stamp.generation, 7);
    assert_int_equal(stamp.id, ID);
    /* Unknown so far, and yet wrong: it is ours and belongs elsewhere. */
    guest_verify_read(v, 0, buf, GUEST_SECTOR, &finding);
    assert_int_equal(finding.wrong, 1);
    assert_string_equal(finding.found, "what was written to address 8192 (write 7)");
    buf[100] ^= 1;
    assert_false(guest_stamp_parse(buf, &stamp));
}

static void an_older_stamp_is_called_so(void **state)
{
    guest_stamp_fill(buf, GUEST_SECTOR, 0, 2, ID);
    guest_verify_wrote(v, 0, buf, GUEST_SECTOR);
    guest_stamp_fill(buf, GUEST_SECTOR, 0, 1, ID);
    guest_verify_read(v, 0, buf, GUEST_SECTOR, &finding);
    assert_string_equal(finding.found, "an older content of this place (write 1)");
    guest_stamp_fill(buf, GUEST_SECTOR, 0, 1, ID + 1);
    guest_verify_read(v, 0, buf, GUEST_SECTOR, &finding);
    assert_string_equal(finding.found, "another guest's stamp, of address 0");
}

/* The same story told to the tree and to a plain array of bit sets: which contents are allowed. */
static void random_stories_agree_with_a_naive_model(void **state)
{
    enum { SECTORS = 300, CONTENTS = 6, UNKNOWN = 1 << CONTENTS };
    static unsigned allowed[SECTORS];
    struct random rnd;

    random_seed(&rnd, 11);
    for (unsigned i = 0; i < SECTORS; i++) {
        allowed[i] = UNKNOWN;
    }
    for (unsigned step = 0; step < 60000; step++) {
        unsigned first = random_below(&rnd, SECTORS),
                 n = 1 + random_below(&rnd, MIN(4u, SECTORS - first));
        unsigned c = random_below(&rnd, CONTENTS), op = random_below(&rnd, 10), wrong = 0;
        uint64_t offset = (uint64_t)first * 61 * GUEST_SECTOR; /* gaps: several leaves */

        for (unsigned i = 0; i < n; i++) {
            content(buf + i * GUEST_SECTOR, c);
        }
        for (unsigned i = 0; i < n; i++) {
            unsigned *a = &allowed[first + i];

            if (op == 0) {
                *a = UNKNOWN;
            } else if (op <= 2) {
                *a = 1u << c;
            } else if (op <= 4) {
                *a = *a == UNKNOWN ? UNKNOWN : *a | 1u << c;
            } else if (*a == UNKNOWN || (*a & 1u << c)) {
                *a = 1u << c;
            } else {
                wrong++;
            }
            offset = (uint64_t)(first + i) * 61 * GUEST_SECTOR;
            const uint8_t *data = buf + i * GUEST_SECTOR;

            if (op == 0) {
                guest_verify_forget(v, offset, GUEST_SECTOR);
            } else if (op <= 2) {
                guest_verify_wrote(v, offset, data, GUEST_SECTOR);
            } else if (op <= 4) {
                guest_verify_may_have_written(v, offset, data, GUEST_SECTOR);
            } else {
                guest_verify_read(v, offset, data, GUEST_SECTOR, &finding);
                wrong -= finding.wrong;
            }
        }
        assert_int_equal(wrong, 0);
    }
    unsigned known = 0;

    for (unsigned i = 0; i < SECTORS; i++) {
        known += allowed[i] != UNKNOWN;
    }
    assert_int_equal(guest_verify_known(v), known * GUEST_SECTOR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_read_once_must_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(one_wrong_byte_in_a_large_read_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_leaves_old_or_new, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_of_the_same_bytes_leaves_no_doubt, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_over_the_unknown_leaves_it_unknown, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_acknowledged_write_ends_all_guesses, setup, teardown),
        cmocka_unit_test_setup_teardown(many_guesses_become_unknown_and_cost_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_discarded_range_is_unknown_until_it_is_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(forgetting_may_reach_beyond_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_follows_what_was_touched, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_of_knowledge_are_found_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(stamps_say_where_they_belong, setup, teardown),
        cmocka_unit_test_setup_teardown(an_older_stamp_is_called_so, setup, teardown),
        cmocka_unit_test_setup_teardown(random_stories_agree_with_a_naive_model, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
