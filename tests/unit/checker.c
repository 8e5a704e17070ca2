/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checker sees what is wrong with an image: each case damages a good one in one place and names
 * the rule that must be broken then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "explore/checker.h"

#define CLUSTER 512u
#define CLUSTERS 8u
/* By hand: header, reftable, refcount block, L1, L2, two clusters of data; the last is free. */
enum { HEADER, REFTABLE, REFBLOCK, L1, L2, DATA_A, DATA_B, FREE };
#define AT(cluster, byte) ((cluster)*CLUSTER + (byte))
#define COPIED (1ull << 63)

struct image {
    uint8_t bytes[CLUSTERS * CLUSTER];
};

static void read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
    const struct image *image = arg;

    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)buf)[i] = offset + i < sizeof(image->bytes) ? image->bytes[offset + i] : 0;
    }
}

static void make(struct image *image)
{
    uint8_t *b = image->bytes;

    memset(b, 0, sizeof(image->bytes));
    store_be32(b, 0x514649fb);
    store_be32(b + 4, 3);
    store_be32(b + 20, 9);
    store_be64(b + 24, 64 * CLUSTER); /* one L2 table */
    store_be32(b + 36, 1);
    store_be64(b + 40, AT(L1, 0));
    store_be64(b + 48, AT(REFTABLE, 0));
    store_be32(b + 56, 1);
    store_be32(b + 96, 4);
    store_be32(b + 100, 104);
    store_be64(b + AT(REFTABLE, 0), AT(REFBLOCK, 0));
    for (unsigned i = HEADER; i < FREE; i++) {
        store_be16(b + AT(REFBLOCK, i * 2), 1);
    }
    store_be64(b + AT(L1, 0), AT(L2, 0) | COPIED);
    store_be64(b + AT(L2, 0), AT(DATA_A, 0) | COPIED);
    store_be64(b + AT(L2, 8), AT(DATA_B, 0) | COPIED);
    store_be64(b + AT(L2, 16), 1); /* zeroes */
    memset(b + AT(DATA_A, 0), 'a', CLUSTER);
    memset(b + AT(DATA_B, 0), 'b', CLUSTER);
}

static struct checker_image *open_image(struct image *image, struct checker_report *report)
{
    struct checker_source source = { .arg = image, .read = read_image, .size = sizeof(image->bytes) };

    return checker_open_qcow2(&source, report);
}

static void a_good_image_is_good(void **state)
{
    struct image image;
    struct checker_report report;
    struct checker_image *im;
    uint8_t got[4 * CLUSTER];

    make(&image);
    im = open_image(&image, &report);
    assert_non_null(im);
    assert_int_equal(report.rule, 0);
    assert_int_equal(report.leaks, 0);
    assert_int_equal(report.used, FREE);
    assert_int_equal(checker_size(im), 64 * CLUSTER);
    assert_null(checker_backing(im));
    assert_true(checker_read(&im, 1, 0, got, sizeof(got)));
    assert_int_equal(got[0], 'a');
    assert_int_equal(got[CLUSTER], 'b');
    assert_true(bytes_are_zero(got + 2 * CLUSTER, 2 * CLUSTER));
    checker_close(im);
}

static void each_damage_breaks_its_rule(void **state)
{
    static const struct {
        const char *what;
        unsigned at, bytes;
        uint64_t value;
        unsigned rule, leaks;
    } cases[] = {
        { "a count too small", AT(REFBLOCK, DATA_A * 2), 2, 0, 8, 0 },
        { "a leak is allowed", AT(REFBLOCK, FREE * 2), 2, 1, 0, 1 },
        { "a leak behind the end", AT(REFBLOCK, 200 * 2), 2, 1, 0, 1 },
        { "a count of two and COPIED", AT(REFBLOCK, DATA_A * 2), 2, 2, 8, 1 },
        { "COPIED missing", AT(L2, 0), 8, AT(DATA_A, 0), 8, 0 },
        { "COPIED missing in L1", AT(L1, 0), 8, AT(L2, 0), 8, 0 },
        { "two entries, one cluster", AT(L2, 8), 8, AT(DATA_A, 0) | COPIED, 8, 1 },
        { "data in the L2 table", AT(L2, 8), 8, AT(L2, 0) | COPIED, 8, 1 },
        { "data beyond the end", AT(L2, 8), 8, AT(CLUSTERS, 0) | COPIED, 8, 1 },
        { "L2 beyond the end", AT(L1, 0), 8, AT(CLUSTERS, 0) | COPIED, 8, 3 },
        { "no refcount block", AT(REFTABLE, 0), 8, 0, 8, 0 },
        { "a reserved bit in L2", AT(L2, 0), 8, AT(DATA_A, 0) | COPIED | 2, 10, 0 },
        { "a reserved bit in L1", AT(L1, 0), 8, AT(L2, 0) | COPIED | 1, 10, 0 },
        { "the corrupt bit", 72, 8, 2, 9, 0 },
        { "an L1 table that is too short", 24, 8, 65 * CLUSTER, 7, 0 },
        { "an extension that is too long", 104, 8, 0x1234567800000fffu, 10, 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct image image;
        struct checker_report report;
        struct checker_image *im;

        make(&image);
        if (cases[i].bytes == 2) {
            store_be16(image.bytes + cases[i].at, cases[i].value);
        } else {
            store_be64(image.bytes + cases[i].at, cases[i].value);
        }
        im = open_image(&image, &report);
        assert_non_null(im);
        if (report.rule != cases[i].rule || report.leaks != cases[i].leaks) {
            fail_msg("%s: rule %u (%s), %u leaks", cases[i].what, report.rule, report.text,
                     (unsigned)report.leaks);
        }
        checker_close(im);
    }
}

static void what_is_no_image_is_refused(void **state)
{
    struct image image;
    struct checker_report report;

    make(&image);
    store_be32(image.bytes, 0);
    assert_null(open_image(&image, &report));
    assert_int_equal(report.rule, 2);
    make(&image);
    store_be64(image.bytes + 72, 1 << 10);
    assert_null(open_image(&image, &report));
    assert_int_equal(report.rule, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_image_is_good),
        cmocka_unit_test(each_damage_breaks_its_rule),
        cmocka_unit_test(what_is_no_image_is_refused),
    };

    return cmocka_run_group_tests_name("checker", tests, NULL, NULL);
}
