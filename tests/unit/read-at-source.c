/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a copier has brought into an overlay goes on being read at the source: the map says so, and no guest can tell, whatever it
 * writes, zeroes or discards meanwhile, and whether or not the map is forgotten in between.
 */
#include "block/chain-map.h"
#include "block/copier.h"
#include "tests/unit/qcow2-rig.h"

#define SIZE (8u << 20)
#define SECTORS (SIZE / NODE_SECTOR)
#define WORKERS 6u
#define OPS 400u

static uint8_t content[SIZE]; /* what the guest must see */

static void co_make(const char *path, const char *backing, const char *cluster)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:I, s:s}", "size", (json_int_t)SIZE, "cluster_size", cluster);

    if (backing) {
        json_object_set_new(options, "backing_file", json_string(backing));
        json_object_set_new(options, "backing_fmt", json_string("qcow2"));
    }
    assert_int_equal(co_qcow2_create(path, options, &err), 0);
    json_decref(options);
}

/* Data with gaps, runs of many lengths, some of them no whole clusters of the overlay. */
static void co_fill_base(struct random *rnd)
{
    struct node *node = co_rig_open("/base.img", true);

    memset(content, 0, SIZE);
    for (uint32_t at = 0; at < SECTORS;) {
        uint32_t n = MIN(1 + random_below(rnd, 1500), SECTORS - at);
        uint64_t offset = (uint64_t)at * NODE_SECTOR, len = (uint64_t)n * NODE_SECTOR;

        at += n;
        if (random_below(rnd, 4) > 0) {
            struct iovec iov = { content + offset, len };

            memset(content + offset, 1 + random_below(rnd, 250), len);
            assert_int_equal(co_node_write(node, offset, &iov, 1), 0);
        }
    }
    co_node_unref(node);
}

static struct node *co_open_chain(const char *base_cluster, uint64_t seed)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b}", "driver", "qcow2", "read-only", 0);
    struct random rnd;
    struct node *top;

    random_seed(&rnd, seed);
    co_make("/base.img", NULL, base_cluster);
    co_fill_base(&rnd);
    co_make("/top.img", "base.img", "65536");
    top = co_node_open("/top.img", options, &err);
    json_decref(options);
    assert_non_null(top);
    top->read_at_source = true;
    return top;
}

static void co_expect_content(struct node *top, uint64_t offset, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_alloc(len);

    assert_int_equal(co_node_read_buf(top, offset, buf, len), 0);
    assert_memory_equal(buf, content + offset, len);
}

static void co_write(struct node *top, uint64_t offset, uint64_t len, int byte)
{
    struct iovec iov = { content + offset, len };

    memset(content + offset, byte, len);
    assert_int_equal(co_node_write(top, offset, &iov, 1), 0);
}

static struct node *co_holder(struct copier *c, uint64_t offset)
{
    struct chain_extent ext;

    co_chain_map_find(c->map, offset, NODE_SECTOR, &ext);
    return ext.layer;
}

static CO_ENTRY void copied_entry(void *arg)
{
    struct node *top = co_open_chain("65536", 3);
    uint64_t at = 0;
    struct copier c;

    copier_init(&c, top, NULL);
    while (co_holder(&c, at) != top->backing) {
        at += 65536;
    }
    assert_int_equal(co_copier_fill(&c, at, 65536), 0);
    assert_ptr_equal(co_holder(&c, at), top->backing);
    co_write(top, at + 4096, 4096, 252); /* in place now */
    assert_ptr_equal(co_holder(&c, at), top->backing);
    assert_ptr_equal(co_holder(&c, at + 4096), top);
    assert_ptr_equal(co_holder(&c, at + 8192), top->backing);
    co_expect_content(top, at, 65536);
    chain_map_forget_layer(top);
    assert_ptr_equal(co_holder(&c, at), top);
    co_expect_content(top, at, 65536);
    copier_fini(&c);
    co_node_unref(top);
}

static void what_was_copied_is_read_where_it_came_from_until_it_is_written(void **state)
{
    loop_run_co(copied_entry, NULL);
}

/* --- Many at once ----------------------------------------------------------------------------- */

struct worker {
    struct node *top;
    struct co_group *group;
    unsigned number; /* its own are pieces of 8 KiB whose index leaves this remainder */
    struct random rnd;
};

static void co_one_operation(struct worker *w)
{
    uint64_t pieces = SIZE / 8192 / WORKERS, at = (random_below(&w->rnd, pieces) * WORKERS + w->number) * 8192;
    uint64_t from = random_below(&w->rnd, 16), to = from + 1 + random_below(&w->rnd, 16 - from);
    uint64_t offset = at + from * NODE_SECTOR, len = (to - from) * NODE_SECTOR;

    switch (random_below(&w->rnd, 8)) {
    case 0:
        memset(content + offset, 0, len);
        assert_int_equal(co_node_zero(w->top, offset, len, random_below(&w->rnd, 2) ? NODE_MAY_UNMAP : 0), 0);
        break;
    case 1:
        chain_map_forget_layer(w->top);
        break;
    case 2:
    case 3:
    case 4:
        co_write(w->top, offset, len, 1 + random_below(&w->rnd, 250));
        break;
    default:
        break;
    }
    co_expect_content(w->top, at, 8192);
}

static CO_ENTRY void run_worker(void *arg)
{
    struct worker *w = arg;

    for (unsigned i = 0; i < OPS; i++) {
        co_one_operation(w);
    }
    co_group_done(w->group, 0);
}

static void co_copy_all(struct copier *c)
{
    uint64_t offset, len;

    while (c->offset < SIZE) {
        co_copier_next(c, 256 << 10, &offset, &len);
        if (len > 0) {
            assert_int_equal(co_copier_fill(c, offset, len), 0);
        }
    }
}

static CO_ENTRY void together_entry(void *arg)
{
    static const char *const clusters[] = { "65536", "4096", "512" };

    for (unsigned i = 0; i < ARRAY_SIZE(clusters); i++) {
        struct node *top = co_open_chain(clusters[i], 40 + i);
        struct worker workers[WORKERS];
        struct co_group group;
        struct copier c;

        copier_init(&c, top, NULL);
        co_group_init(&group);
        for (unsigned n = 0; n < WORKERS; n++) {
            workers[n] = (struct worker){ .top = top, .group = &group, .number = n };
            random_seed(&workers[n].rnd, i * 100 + n);
            co_group_add(&group);
            co_start(run_worker, &workers[n]);
        }
        co_copy_all(&c);
        co_group_wait(&group);
        co_expect_content(top, 0, SIZE);
        chain_map_forget_layer(top);
        co_expect_content(top, 0, SIZE);
        for (uint64_t at = 0; at < SIZE; at += 65536) { /* all is there */
            assert_true(co_holder(&c, at) != top->backing);
        }
        copier_fini(&c);
        co_node_unref(top);
    }
}

static void no_guest_sees_the_difference_whatever_it_does(void **state)
{
    loop_run_co(together_entry, NULL);
}

static int setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return rig_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_copied_is_read_where_it_came_from_until_it_is_written),
        cmocka_unit_test(no_guest_sees_the_difference_whatever_it_does),
    };
    return cmocka_run_group_tests(tests, setup, rig_teardown);
}
