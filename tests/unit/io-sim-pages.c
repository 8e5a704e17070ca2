/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sparse shared contents against plain buffers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/bytes.h"
#include "core/io-sim-pages.h"
#include "core/loop.h"
#include "core/mem.h"

#define BLOCKS 80u
#define TOTAL (BLOCKS * SIM_BLOCK_SIZE)
#define COPIES 4u

struct model {
    struct sim_pages *pages;
    unsigned char bytes[TOTAL];
    bool held[BLOCKS], data[BLOCKS];
};

static struct random chance;

static void change(struct model *m)
{
    static unsigned char buf[TOTAL];
    unsigned how = random_below(&chance, 4);
    uint64_t offset = random_below(&chance, TOTAL);
    uint64_t most = 1ull << random_below(&chance, 18);
    uint64_t len = 1 + random_below(&chance, MIN(TOTAL - offset, most));

    if (!random_below(&chance, 4)) {
        offset = ROUND_DOWN(offset, SIM_BLOCK_SIZE);
    }
    if (how == 0) {
        memset(buf, 1 + random_below(&chance, 255), len);
        sim_pages_write(&m->pages, offset, buf, len);
        memcpy(m->bytes + offset, buf, len);
    } else if (how == 1) {
        sim_pages_hold(&m->pages, offset, len);
    } else {
        sim_pages_zero(&m->pages, offset, len, how == 2);
        memset(m->bytes + offset, 0, len);
    }
    for (uint64_t b = offset / SIM_BLOCK_SIZE; b * SIM_BLOCK_SIZE < offset + len; b++) {
        bool whole = b * SIM_BLOCK_SIZE >= offset && (b + 1) * SIM_BLOCK_SIZE <= offset + len;

        m->held[b] = how < 3 || (m->held[b] && !whole);
        m->data[b] = how == 0 || (m->data[b] && (how == 1 || !whole));
    }
}

static void compare(const struct model *m)
{
    static unsigned char buf[TOTAL];
    uint64_t offset = random_below(&chance, TOTAL);
    uint64_t len = TOTAL - offset;
    uint64_t end = offset;
    unsigned held = 0, missing = 0;
    bool data = m->data[offset / SIM_BLOCK_SIZE];

    sim_pages_read(m->pages, 0, buf, TOTAL);
    assert_memory_equal(buf, m->bytes, TOTAL);
    for (unsigned b = 0; b < BLOCKS; b++) {
        held += m->held[b];
        missing += b >= offset / SIM_BLOCK_SIZE && !m->held[b];
    }
    assert_int_equal(sim_pages_held(m->pages), held);
    assert_int_equal(sim_pages_missing(m->pages, offset, len), missing);
    while (end < TOTAL && m->data[end / SIM_BLOCK_SIZE] == data) {
        end = ROUND_DOWN(end, SIM_BLOCK_SIZE) + SIM_BLOCK_SIZE;
    }
    assert_int_equal(sim_pages_map(m->pages, offset, &len), data);
    assert_int_equal(len, end - offset);
}

static void contents_behave_like_buffers_and_copies_keep_apart(void **state)
{
    struct model *m = mem_calloc(COPIES, sizeof(*m));

    random_seed(&chance, 11);
    for (unsigned i = 0; i < COPIES; i++) {
        m[i].pages = sim_pages_new();
    }
    for (unsigned round = 0; round < 3000; round++) {
        unsigned i = random_below(&chance, COPIES);
        unsigned from = random_below(&chance, COPIES);

        if (i != from && !random_below(&chance, 20)) {
            sim_pages_unref(m[i].pages);
            m[i] = m[from];
            sim_pages_ref(m[i].pages);
        }
        change(&m[i]);
        if (round % 8 == 0) {
            compare(&m[random_below(&chance, COPIES)]);
        }
    }
    for (unsigned i = 0; i < COPIES; i++) {
        compare(&m[i]);
        sim_pages_unref(m[i].pages);
    }
    free(m);
}

static void huge_ranges_cost_what_there_is(void **state)
{
    struct sim_pages *pages = sim_pages_new();
    const uint64_t far = 1ULL << 60;
    uint64_t len = UINT64_MAX;
    char c = 0;

    assert_false(sim_pages_map(pages, 0, &len));
    assert_int_equal(len, UINT64_MAX);
    sim_pages_write(&pages, far, "x", 1);
    assert_false(sim_pages_map(pages, 5, &len));
    assert_int_equal(len, far - 5);
    sim_pages_zero(&pages, 0, far, false);
    sim_pages_read(pages, far, &c, 1);
    assert_int_equal(c, 'x');
    sim_pages_zero(&pages, 1, UINT64_MAX, false);
    assert_int_equal(sim_pages_held(pages), 0);
    sim_pages_unref(pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_behave_like_buffers_and_copies_keep_apart),
        cmocka_unit_test(huge_ranges_cost_what_there_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
