/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chain map against a naive walk, over random chains of layers that live in memory.
 *
 * A fake layer is an array with a cell per 4 KiB block: nothing, zeroes, or data at a host offset.
 */
#include <assert.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "block/chain-map.h"
#include "block/copier.h"
#include "core/loop.h"
#include "core/mem.h"

#define BLOCK 4096u
#define BLOCKS 4096u /* 16 MiB of guest space: eight slices */
#define SLICE (512u * BLOCK)
#define LAYERS 40

struct cell {
    enum extent_kind kind;
    uint64_t host;
};
struct fake {
    struct cell cells[BLOCKS];
};

static struct random rnd;
static bool in_memory; /* all tables are */
static struct node *slow; /* reads its tables until it is told that it has them */
static struct co_queue has_tables;

static int co_fake_open(struct node *node, struct error *err)
{
    return 0;
}

static void co_fake_close(struct node *node)
{
    free(node->state);
    node->state = NULL;
}

static int co_fake_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    struct fake *f = node->state;
    struct cell c = f->cells[offset / BLOCK];
    uint64_t run = BLOCK - offset % BLOCK;

    while (c.kind == EXTENT_NONE && run < len && f->cells[(offset + run) / BLOCK].kind == EXTENT_NONE) {
        run += BLOCK;
    }
    *out = (struct extent){ .kind = c.kind, .len = MIN(len, run), .host = c.host + offset % BLOCK };
    if (!in_memory && random_below(&rnd, 50) == 0) {
        co_yield(); /* tables are read from disk now and then */
    }
    if (node == slow) {
        co_queue_wait(&has_tables);
    }
    return 0;
}

static const struct driver fake_driver = {
    .name = "fake", .is_protocol = true, .supports_backing = true,
    .co_open = co_fake_open, .co_close = co_fake_close, .co_map = co_fake_map,
};

static uint64_t next_host = 1u << 20;

static struct node *fake_layer(struct node *below, uint64_t size, unsigned density)
{
    struct node *node = mem_zalloc(sizeof(*node));
    struct fake *f = mem_zalloc(sizeof(*f));
    static unsigned number;
    unsigned from = 0, to = BLOCKS;

    if (random_below(&rnd, 2)) { /* an island, and slices with nothing in them around it */
        from = random_below(&rnd, BLOCKS);
        to = from + random_below(&rnd, BLOCKS - from);
    }
    node->driver = &fake_driver;
    node->state = f;
    node->name = mem_printf("fake%u", number++);
    node->refs = 1;
    node->size = size;
    node->cluster_size = BLOCK;
    node->backing = below;
    co_queue_init(&node->drain_queue);
    co_queue_init(&node->idle_queue);
    for (unsigned i = from; i < to; i++) {
        if (random_below(&rnd, 100) < density) {
            f->cells[i].kind = random_below(&rnd, 4) ? EXTENT_DATA : EXTENT_ZERO;
            next_host += random_below(&rnd, 3) ? BLOCK : 4 * BLOCK; /* often contiguous */
            f->cells[i].host = next_host;
        }
    }
    TAILQ_INSERT_TAIL(&all_nodes, node, link);
    return node;
}

static struct node *fake_chain(unsigned layers, unsigned density)
{
    struct node *top = NULL;

    for (unsigned i = 0; i < layers; i++) {
        uint64_t size = BLOCKS * BLOCK;
        if (i + 1 < layers && random_below(&rnd, 5) == 0) {
            size -= random_below(&rnd, BLOCKS / 2) * BLOCK; /* a shorter one */
        }
        top = fake_layer(top, size, density);
    }
    return top;
}

/* What reading through the layers says, byte by byte of blocks. */
static struct chain_extent naive(struct node *root, uint64_t offset)
{
    unsigned depth = 0;

    for (struct node *n = root; n; n = n->backing, depth++) {
        if (offset >= n->size) {
            return (struct chain_extent){ .kind = EXTENT_ZERO, .layer = n, .depth = depth };
        }
        struct cell c = ((struct fake *)n->state)->cells[offset / BLOCK];
        if (c.kind != EXTENT_NONE) {
            return (struct chain_extent){ .kind = c.kind, .layer = n, .depth = depth,
                                          .host = c.kind == EXTENT_DATA ? c.host + offset % BLOCK : 0 };
        }
    }
    return (struct chain_extent){ .kind = EXTENT_NONE, .depth = UINT_MAX };
}

static void co_compare(struct chain_map *map, struct node *root)
{
    for (uint64_t offset = 0; offset < root->size;) {
        struct chain_extent got;
        co_chain_map_find(map, offset, root->size - offset, &got);
        assert_true(got.len > 0);
        for (uint64_t at = 0; at < got.len; at += BLOCK) {
            struct chain_extent want = naive(root, offset + at);
            assert_int_equal(got.kind, want.kind);
            assert_ptr_equal(got.layer, want.layer);
            assert_int_equal(got.depth, want.depth);
            if (want.kind == EXTENT_DATA) {
                assert_int_equal(got.host + at, want.host);
            }
        }
        offset += got.len;
    }
}

static CO_ENTRY void run_walks(void *arg)
{
    for (unsigned round = 0; round < 20; round++) {
        struct node *root = fake_chain(1 + random_below(&rnd, LAYERS), 1 + random_below(&rnd, 60));
        struct chain_map *map = chain_map_get(root);
        co_compare(map, root);
        co_compare(map, root);
        chain_map_put(map);
        co_node_unref(root);
    }
}

static void change(struct node *root)
{
    struct node *n = root;
    unsigned depth = random_below(&rnd, node_depth(root, NULL) < 0 ? 4 : 1);

    while (depth-- > 0 && n->backing) {
        n = n->backing;
    }
    struct fake *f = n->state;
    unsigned blocks = n->size / BLOCK;
    unsigned first = random_below(&rnd, blocks), count = 1 + random_below(&rnd, MIN(20u, blocks - first));
    enum extent_kind kind = (enum extent_kind[]){ EXTENT_DATA, EXTENT_DATA, EXTENT_ZERO, EXTENT_NONE }[random_below(&rnd, 4)];

    next_host += 16 * BLOCK;
    for (unsigned i = 0; i < count; i++) {
        f->cells[first + i] = (struct cell){ .kind = kind, .host = next_host + i * BLOCK };
    }
    chain_map_patch(n, (uint64_t)first * BLOCK, (uint64_t)count * BLOCK, kind, next_host);
    next_host += count * BLOCK;
}

/* Keeps slices being filled while the layers change. */
static CO_ENTRY void run_finder(void *arg)
{
    struct chain_map *map = arg;
    struct chain_extent ext;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t offset = random_below(&rnd, BLOCKS) * BLOCK;
        co_chain_map_find(map, offset, BLOCK, &ext);
        co_yield();
    }
    chain_map_put(map);
}

static CO_ENTRY void run_patches(void *arg)
{
    struct node *root = fake_chain(6, 30);
    struct chain_map *map = chain_map_get(root);

    for (unsigned round = 0; round < 400; round++) {
        if (round % 3 == 0) {
            chain_map_forget_layer(root);
            co_start(run_finder, chain_map_get(root));
        }
        for (unsigned i = random_below(&rnd, 12); i > 0; i--) {
            change(root);
            if (round % 2) {
                co_yield();
            }
        }
        co_compare(map, root);
    }
    while (co_count() > 1) {
        co_yield();
    }
    chain_map_put(map);
    co_node_unref(root);
}

static CO_ENTRY void run_raise(void *arg)
{
    struct node *root = fake_chain(3, 50);
    struct chain_map *map = chain_map_get(root);

    co_compare(map, root);
    for (unsigned i = 0; i < 10; i++) {
        uint64_t fills = chain_map_stats.fills;
        struct node *overlay = fake_layer(root, root->size, 0);
        map = chain_map_raise(map, overlay);
        root = overlay;
        co_compare(map, root);
        assert_int_equal(chain_map_stats.fills, fills); /* nothing was resolved anew */
        change(root);
        co_compare(map, root);
    }
    chain_map_put(map);
    co_node_unref(root);
}

/* While a job looks through the old root's map, or somebody knows the overlay's already, the snapshot has a map of its own. */
static CO_ENTRY void run_raise_shared(void *arg)
{
    struct node *root = fake_chain(3, 50), *overlay;
    struct chain_map *map = chain_map_get(root), *job = chain_map_get(root), *known;

    co_compare(map, root);
    overlay = fake_layer(root, root->size, 0);
    map = chain_map_raise(map, overlay);
    assert_ptr_not_equal(map, job);
    co_compare(map, overlay);
    co_compare(job, root);
    change(overlay);
    co_compare(map, overlay);
    chain_map_put(job);
    root = overlay;
    overlay = fake_layer(root, root->size, 10);
    known = chain_map_get(overlay);
    map = chain_map_raise(map, overlay);
    assert_ptr_equal(map, known);
    assert_null(root->map);
    co_compare(map, overlay);
    chain_map_put(map);
    chain_map_put(known);
    co_node_unref(overlay);
}

static CO_ENTRY void run_relink(void *arg)
{
    struct node *root = fake_chain(8, 20);
    struct chain_map *map = chain_map_get(root);

    co_compare(map, root);
    while (root->backing && root->backing->backing) {
        struct node *n = root;
        for (unsigned skip = random_below(&rnd, 3); skip > 0 && n->backing->backing && n->backing->backing->backing; skip--) {
            n = n->backing;
        }
        co_node_set_backing_edge(n, n->backing->backing);
        co_compare(map, root);
    }
    co_node_set_backing_edge(root, NULL);
    co_compare(map, root);
    chain_map_put(map);
    co_node_unref(root);
}

static CO_ENTRY void run_budget(void *arg)
{
    struct node *root = fake_chain(4, 50);
    struct chain_map *map = chain_map_get(root);

    chain_map_set_budget(4096);
    for (unsigned i = 0; i < 5; i++) {
        co_compare(map, root);
        change(root);
        assert_true(chain_map_stats.bytes < 4096 + 64 * 24 + 4096);
    }
    assert_true(chain_map_stats.evictions > 0);
    chain_map_set_budget(8 << 20);
    chain_map_put(map);
    co_node_unref(root);
    assert_int_equal(chain_map_stats.bytes, 0);
}

/* --- While tables are read ------------------------------------------------------------------------------ */

static void let_slow_go_on(void)
{
    slow = NULL;
    co_queue_wake_all(&has_tables);
}

static unsigned ended;

static CO_ENTRY void co_find_first(void *arg)
{
    struct chain_map *map = arg;
    struct chain_extent ext;

    co_chain_map_find(map, 0, BLOCK, &ext);
    assert(ext.host == 7 * BLOCK);
    ended++;
}

/* Somebody who may not wait says that all of a layer is to be asked anew, while two wait for what was asked before. */
static CO_ENTRY void run_forget(void *arg)
{
    struct node *root = fake_chain(3, 50), *bottom = root->backing->backing;
    struct chain_map *map = chain_map_get(root);
    struct fake *f = root->state;

    slow = bottom;
    bottom->size = BLOCKS * BLOCK;
    f->cells[0] = (struct cell){ EXTENT_DATA, 5 * BLOCK };
    co_start(co_find_first, map);
    co_start(co_find_first, map);
    f->cells[0].host = 7 * BLOCK;
    chain_map_forget_layer(root);
    let_slow_go_on();
    co_compare(map, root);
    while (ended < 2) {
        co_yield();
    }
    chain_map_put(map);
    co_node_unref(root);
}

/* --- More than a slice ------------------------------------------------------------------------------------ */

static CO_ENTRY void run_nothing(void *arg)
{
    struct node *root = fake_layer(fake_layer(NULL, BLOCKS * BLOCK, 0), BLOCKS * BLOCK, 0);
    struct chain_map *map = chain_map_get(root);
    uint64_t fills = chain_map_stats.fills;
    struct fake *f = root->backing->state;
    struct chain_extent ext;

    f->cells[5 * SLICE / BLOCK + 3] = (struct cell){ EXTENT_DATA, BLOCK };
    for (unsigned i = 0; i < SLICE / BLOCK; i++) { /* zeroes, too, but of another layer each */
        f->cells[6 * SLICE / BLOCK + i].kind = EXTENT_ZERO;
        ((struct fake *)root->state)->cells[7 * SLICE / BLOCK + i].kind = EXTENT_ZERO;
    }
    co_chain_map_find(map, BLOCK, BLOCKS * BLOCK - BLOCK, &ext);
    assert_int_equal(ext.kind, EXTENT_NONE);
    assert_int_equal(ext.len, 5 * SLICE + 2 * BLOCK);
    assert_int_equal(chain_map_stats.fills, fills + 1);
    co_chain_map_find(map, 0, 3 * BLOCK, &ext);
    assert_int_equal(ext.len, 3 * BLOCK);
    co_chain_map_find(map, 6 * SLICE, 2 * SLICE, &ext);
    assert_ptr_equal(ext.layer, root->backing);
    assert_int_equal(ext.len, SLICE);
    co_compare(map, root);
    chain_map_put(map);
    co_node_unref(root);
}

static struct chain_extent found;

static CO_ENTRY void co_find_all(void *arg)
{
    co_chain_map_find(arg, 0, BLOCKS * BLOCK, &found);
    ended++;
}

/* What is above is written while what is below, and behind the slice, is still being asked for. */
static CO_ENTRY void run_change_behind(void *arg)
{
    struct node *root = fake_layer(fake_layer(NULL, BLOCKS * BLOCK, 0), BLOCKS * BLOCK, 0);
    struct chain_map *map = chain_map_get(root);
    struct fake *f = root->state;

    slow = root->backing;
    co_start(co_find_all, map);
    co_queue_wake_all(&has_tables); /* for the slice */
    co_yield();
    assert_int_equal(ended, 0);
    f->cells[SLICE / BLOCK] = (struct cell){ EXTENT_DATA, BLOCK };
    chain_map_patch(root, SLICE, BLOCK, EXTENT_DATA, BLOCK);
    let_slow_go_on();
    while (!ended) {
        co_yield();
    }
    assert_int_equal(found.kind, EXTENT_NONE);
    assert_int_equal(found.len, SLICE);
    chain_map_put(map);
    co_node_unref(root);
}

static CO_ENTRY void co_look_for_work(void *arg)
{
    struct copier *c = arg;
    uint64_t offset, len;

    co_copier_next(c, COPIER_WINDOW_MAX, &offset, &len);
    assert(offset == 0 && len == BLOCK); /* what the layer between has */
    ended++;
}

static CO_ENTRY void co_drop_below(void *arg)
{
    struct node *base = arg;
    struct node_drain *drain = co_node_drain_begin(base);

    assert(!slow); /* nobody asks it any more */
    co_node_set_backing_edge(base, base->backing->backing);
    co_node_drain_end(drain);
    ended++;
}

/* top <- mid <- base <- below <- bottom: one job brings mid into top, another one ends and drops below. */
static CO_ENTRY void run_two_jobs(void *arg)
{
    struct node *top = fake_chain(5, 0), *mid = top->backing, *base = mid->backing;
    struct copier c;

    mid->size = BLOCKS * BLOCK;
    ((struct fake *)mid->state)->cells[0] = (struct cell){ EXTENT_DATA, BLOCK };
    copier_init(&c, top, base);
    slow = base->backing;
    co_start(co_look_for_work, &c);
    co_start(co_drop_below, base);
    assert(ended == 0);
    let_slow_go_on();
    while (ended < 2) {
        co_yield();
    }
    assert(base->backing && !base->backing->backing);
    copier_fini(&c);
    co_node_unref(top);
}

static void what_is_forgotten_while_it_is_asked_for_is_asked_for_again(void **state)
{
    loop_run_co(run_forget, NULL);
}

static void nothing_in_many_slices_is_told_at_once(void **state)
{
    loop_run_co(run_nothing, NULL);
}

static void nothing_is_told_of_what_is_written_meanwhile(void **state)
{
    loop_run_co(run_change_behind, NULL);
}

static void a_job_that_looks_for_work_keeps_the_layers_below_its_base(void **state)
{
    loop_run_co(run_two_jobs, NULL);
}

static void the_map_says_what_a_walk_through_the_layers_says(void **state)
{
    loop_run_co(run_walks, NULL);
}

static void patches_keep_the_map_true_also_while_it_is_filled(void **state)
{
    loop_run_co(run_patches, NULL);
}

static void a_snapshot_keeps_everything_that_is_resolved(void **state)
{
    loop_run_co(run_raise, NULL);
}

static void a_snapshot_leaves_the_map_of_others_to_them(void **state)
{
    loop_run_co(run_raise_shared, NULL);
}

static void layers_that_leave_the_chain_leave_the_map(void **state)
{
    loop_run_co(run_relink, NULL);
}

static void the_budget_bounds_the_map(void **state)
{
    loop_run_co(run_budget, NULL);
}

static int setup(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    random_seed(&rnd, 7);
    co_queue_init(&has_tables);
    ended = 0;
    return 0;
}

static int teardown(void **state)
{
    loop_fini();
    return 0;
}

/* --- Turns ---------------------------------------------------------------------------------------------------- */

struct others {
    unsigned turns;
    bool over;
};

static CO_ENTRY void run_others(void *arg)
{
    struct others *o = arg;

    while (!o->over) {
        o->turns++;
        co_yield();
    }
}

static CO_ENTRY void run_long_fill(void *arg)
{
    struct node *root = fake_chain(1000, 0);
    struct chain_map *map = chain_map_get(root);
    struct others others = { 0 };
    struct chain_extent ext;

    in_memory = true;
    co_start(run_others, &others);
    co_chain_map_find(map, 0, BLOCK, &ext);
    in_memory = false;
    others.over = true;
    co_yield();
    assert_true(others.turns > 5);
    chain_map_put(map);
    co_node_unref(root);
}

static void a_look_through_many_layers_lets_others_have_their_turns(void **state)
{
    loop_run_co(run_long_fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_map_says_what_a_walk_through_the_layers_says, setup, teardown),
        cmocka_unit_test_setup_teardown(patches_keep_the_map_true_also_while_it_is_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_keeps_everything_that_is_resolved, setup, teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_leaves_the_map_of_others_to_them, setup, teardown),
        cmocka_unit_test_setup_teardown(layers_that_leave_the_chain_leave_the_map, setup, teardown),
        cmocka_unit_test_setup_teardown(the_budget_bounds_the_map, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_forgotten_while_it_is_asked_for_is_asked_for_again, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_in_many_slices_is_told_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_told_of_what_is_written_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_that_looks_for_work_keeps_the_layers_below_its_base, setup, teardown),
        cmocka_unit_test_setup_teardown(a_look_through_many_layers_lets_others_have_their_turns, setup, teardown),
    };
    return cmocka_run_group_tests_name("chain-map", tests, NULL, NULL);
}
