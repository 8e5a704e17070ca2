/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kinds of faults and what must hold for each: the table "Faults" of docs/RELIABILITY.md, row by
 * row, on the images and scenarios of faults-scenarios.h.
 *
 *   faults-lies --all       more seeds: a minute
 */
#include <signal.h>

#include "tests/unit/faults-scenarios.h"

#define SEEDS_USUAL 6u
#define SEEDS_ALL 200u
#define EVERY 3u /* of the system calls one is interrupted */
#define WHERE (20u * CLUSTER)
#define SECTION_BYTES (32u * KIB) /* of /S, described by one L2 table */

static struct run run;
static bool all;
static char doing[300];
static unsigned corrupt_told;

static void last_words(int signal)
{
    if (write(voices[0] ? voices[0] : STDOUT_FILENO, doing, strlen(doing)) < 0) {
        _exit(1);
    }
}

static void on_corrupt(struct node *node, const char *device, const char *msg, uint64_t offset,
                       uint64_t size, bool fatal)
{
    corrupt_told++;
}

static const struct block_listener listener = { .image_corrupted = on_corrupt };

static void plan(const char *words)
{
    struct error err = ERROR_INIT;

    assert_true(io_sim_fault_words(words, &err));
}

/* --- Whole scenarios -------------------------------------------------------------------------- */

struct trial {
    const char *words;
    uint64_t spare; /* bytes that the medium has left; 0: no end */
    bool now_and_then;
};

static bool now_and_then(void *arg)
{
    static unsigned calls;

    return calls++ % EVERY == 0;
}

static void arm(void *arg)
{
    const struct trial *trial = arg;
    const struct io_sim_fault interrupted = { .kind = IO_SIM_FAULT_ERROR, .error = EINTR,
                                              .when = now_and_then };

    if (trial->words) {
        plan(trial->words);
    }
    if (trial->now_and_then) {
        io_sim_fault(&interrupted);
    }
    if (trial->spare) {
        io_sim_set_quota(sim_world_held(sim_world) * SIM_BLOCK_SIZE + trial->spare);
    }
}

static void play(const struct scenario *s, struct trial *trial)
{
    struct whole_run w = { .run = &run, .arm = arm, .arg = trial };

    run_reset(&run, s);
    snprintf(doing, sizeof(doing), "%s with %s, %llu bytes left\n", s->name,
             trial->words ? trial->words : "interruptions", (unsigned long long)trial->spare);
    silence(true);
    loop_run_co(co_whole_run, &w);
    silence(false);
    if (run.trouble[0]) {
        print_message("%s    %s\n", doing, run.trouble);
    }
    assert_string_equal(run.trouble, "");
}

static void short_transfers_interruptions_and_stalls_are_survived(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        const struct scenario *s = &scenarios[i];
        struct trial trials[] = {
            { .words = "short" },
            { .now_and_then = true },
            { .words = "stall,ns=50000000,times=20" },
        };

        for (size_t t = 0; scenario_possible(s) && t < ARRAY_SIZE(trials); t++) {
            play(s, &trials[t]);
            assert_true(run.refused <= (s->co_run == co_img_reads));
        }
    }
}

static void a_full_medium_refuses_and_tears_nothing(void **state)
{
    unsigned refused = 0;

    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        for (unsigned blocks = 0; scenario_possible(&scenarios[i]) && blocks < (all ? 60 : 8); blocks++) {
            struct trial trial = { .words = "error,times=1,after=1000000",
                                   .spare = blocks * SIM_BLOCK_SIZE + 1 };

            play(&scenarios[i], &trial);
            refused += run.refused > 0;
        }
    }
    assert_true(refused > ARRAY_SIZE(scenarios));
}

static void errors_are_told_wherever_a_seed_puts_them(void **state)
{
    struct random random;

    random_seed(&random, 21);
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        for (unsigned n = 0; scenario_possible(&scenarios[i]) && n < (all ? SEEDS_ALL : SEEDS_USUAL); n++) {
            AUTOFREE char *words = io_sim_fault_draw(
                &random, 1 << IO_SIM_FAULT_ERROR | 1 << IO_SIM_FAULT_SYNC_DROP, 60);
            struct trial trial = { .words = words };

            play(&scenarios[i], &trial);
        }
    }
}

/* --- Lies, anywhere --------------------------------------------------------------------------- */

struct lie {
    const struct scenario *s;
    char *words;
    uint64_t seed;
};

static const char *const untouched[] = { "/A", "/B", "/Q", "/P", "/I", "/K", "/W" };

/* Nobody crashes, hangs or writes to images that he has no business with, and what is there then
 * opens or is refused in words. */
static CO_ENTRY void co_lie(void *arg)
{
    struct lie *lie = arg;
    uint64_t began = loop_now(), ops = io_sim_ops(), hash[ARRAY_SIZE(untouched)];
    AUTOFREE uint8_t *buf = mem_alloc(DISK_BYTES);
    struct error err = ERROR_INIT;
    struct random random;

    io_sim_restore(first_disk);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    for (size_t i = 0; i < ARRAY_SIZE(untouched); i++) {
        hash[i] = io_sim_hash(untouched[i]);
    }
    random_seed(&random, lie->seed);
    AUTOFREE char *words = mem_printf("%s,path=%s", lie->words, lie->s->top);

    plan(words);
    run.damage_allowed = true;
    run.scenario->co_run(&run);
    io_sim_faults_clear();
    co_sleep_ns(NS_PER_S);
    rig_check_counters(&run, began, ops);
    for (size_t i = 0; i < ARRAY_SIZE(untouched); i++) {
        if (io_sim_hash(untouched[i]) != hash[i]) {
            trouble(&run, "%s has been written to", untouched[i]);
        }
    }
    for (int cut = 0; run.top && cut < 2; cut++) {
        json_t *options = json_pack("{s:s}", "driver", run.top[1] == 'R' ? "raw" : "qcow2");
        struct node *node = co_node_open(run.top, options, &err);

        json_decref(options);
        if (!node && !error_is_set(&err)) {
            trouble(&run, "refused without a word");
        }
        error_clear(&err);
        if (node) {
            co_node_read_buf(node, 0, buf, DISK_BYTES);
            co_node_write_buf(node, random_below(&random, CELLS) * SECTOR, buf, SECTOR);
            co_node_unref(node);
        }
        io_sim_cut(IO_SIM_CUT_POWER, lie->seed);
    }
}

static void lies_crash_nobody_and_spread_to_no_other_image(void **state)
{
    static const char *const tops[] = { "/D", "/T", "/V", "/E", "/S" };
    struct random random;

    random_seed(&random, 31);
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        const struct scenario *s = &scenarios[i];
        bool ours = s->co_run != co_stream_mid && s->co_run != co_img_reads;
        bool known = false;

        for (size_t t = 0; s->top && t < ARRAY_SIZE(tops); t++) {
            known = known || strcmp(s->top, tops[t]) == 0;
        }
        for (unsigned n = 0; ours && known && n < (all ? SEEDS_ALL : 2 * SEEDS_USUAL); n++) {
            struct lie lie = { .s = s, .seed = n };

            lie.words = io_sim_fault_draw(&random, 1 << IO_SIM_FAULT_LOST | 1 << IO_SIM_FAULT_FLIP |
                                                       1 << IO_SIM_FAULT_ASTRAY |
                                                       1 << IO_SIM_FAULT_STALE, 60);
            run_reset(&run, s);
            snprintf(doing, sizeof(doing), "%s with %s, seed %u\n", s->name, lie.words, n);
            silence(true);
            loop_run_co(co_lie, &lie);
            silence(false);
            if (run.trouble[0]) {
                print_message("%s    %s\n", doing, run.trouble);
            }
            assert_string_equal(run.trouble, "");
            free(lie.words);
        }
    }
}

/* --- Lies about data -------------------------------------------------------------------------- */

static uint8_t seen[DISK_BYTES];

/* How many sectors outside of [from, to) are not what they should be. */
static unsigned wrong_outside(uint64_t from, uint64_t to)
{
    unsigned wrong = 0;

    for (uint32_t i = 0; i < CELLS; i++) {
        bool outside = i * SECTOR < from || i * SECTOR >= to;

        wrong += outside && !cell_may_be(&run.cell[i], run.cell[i].now, i, seen + i * SECTOR);
    }
    return wrong;
}

static void co_see(const char *path)
{
    struct node *node = co_rig_open_chain(path);

    assert_int_equal(co_node_read_buf(node, 0, seen, DISK_BYTES), 0);
    co_node_unref(node);
}

static void co_begin(const char *path)
{
    static const struct scenario nothing = { .name = "nothing" };

    run_reset(&run, &nothing);
    run.top = path;
    for (unsigned i = 0; i < n_first; i++) {
        if (strcmp(first[i].top, path) == 0) {
            memcpy(run.cell, first[i].cell, sizeof(run.cell));
        }
    }
    io_sim_restore(first_disk);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    io_sim_faults_clear();
    block_set_listener(&listener); /* the monitor has had its own */
    corrupt_told = 0;
    run.damage_allowed = true;
}

/* One write of data meets the lie, another does not. */
static CO_ENTRY void co_lie_about_data(void *arg)
{
    struct checker_image *image;

    co_begin("/D");
    assert_true(co_run_open(&run, "/D", "qcow2"));
    plan(arg);
    assert_int_equal(co_guest_write(&run, WHERE, 2 * CLUSTER), 0);
    assert_int_equal(io_sim_faults_struck(), 1);
    /* So much that the file ends behind the lie, which would be found otherwise. */
    assert_int_equal(co_guest_write(&run, 40 * CLUSTER, 20 * CLUSTER), 0);
    co_run_close(&run);
    assert_int_equal(run.refused, 0);
    io_sim_faults_clear();
    co_see("/D");
    assert_int_equal(wrong_outside(WHERE, WHERE + 2 * CLUSTER), 0);
    assert_true(wrong_outside(0, 0) > 0); /* the lie was one */
    image = rig_check(&run, "/D", "afterwards");
    checker_close(image);
    assert_string_equal(run.trouble, "");
}

static void a_lost_write_of_data_loses_that_data_only(void **state)
{
    loop_run_co(co_lie_about_data, "lost,path=/D,ops=write,times=1");
}

static void a_flipped_bit_of_data_harms_that_data_only(void **state)
{
    loop_run_co(co_lie_about_data, "flip,path=/D,ops=write,times=1");
}

static void a_write_of_data_that_goes_nowhere_harms_that_data_only(void **state)
{
    loop_run_co(co_lie_about_data, "astray,path=/D,ops=write,times=1,shift=1M");
}

static CO_ENTRY void co_stale_data(void *arg)
{
    co_begin("/V");
    assert_true(co_run_open(&run, "/V", "qcow2"));
    assert_int_equal(co_guest_write(&run, 0, CLUSTER), 0);
    plan("stale,path=/V,ops=read,times=1,after=0");
    assert_int_equal(co_guest_write(&run, 0, CLUSTER), 0);
    co_guest_read(&run, 0, CLUSTER); /* this one is lied to */
    assert_int_equal(io_sim_faults_struck(), 1);
    run.damage_allowed = false;
    co_guest_read(&run, 0, DISK_BYTES);
    co_run_close(&run);
    assert_string_equal(run.trouble, "");
}

static void a_stale_read_of_data_harms_nothing(void **state)
{
    loop_run_co(co_stale_data, NULL);
}

/* --- Lies about tables ------------------------------------------------------------------------ */

static uint64_t word_at(const char *path, uint64_t offset)
{
    uint8_t bytes[8];

    assert_int_equal(io_sim_read(path, offset, bytes, 8), 0);
    return load_be64(bytes);
}

static uint64_t l2_entry_at(const char *path, uint64_t guest)
{
    uint64_t l2 = word_at(path, word_at(path, 40)) & QCOW2_L1_OFFSET_MASK;

    return l2 + guest / CLUSTER * 8;
}

/* An L2 entry is written with a wrong bit; the next start meets it. */
static CO_ENTRY void co_flipped_entry(void *arg)
{
    const char *byte_and_mask = arg; /* "7,mask=0x02" */
    struct node *node;

    co_begin("/D");
    AUTOFREE char *words =
        mem_printf("flip,path=/D,ops=write,times=1,len=1,offset=%llu,mask=%s",
                   (unsigned long long)l2_entry_at("/D", WHERE) + byte_and_mask[0] - '0',
                   byte_and_mask + 2);

    assert_true(co_run_open(&run, "/D", "qcow2"));
    plan(words);
    assert_int_equal(co_guest_write(&run, WHERE, CLUSTER), 0);
    co_run_close(&run);
    assert_int_equal(io_sim_faults_struck(), 1);
    io_sim_faults_clear();

    node = co_rig_open_chain("/D");
    for (uint64_t at = 0; at < DISK_BYTES; at += CLUSTER) {
        int ret = co_node_read_buf(node, at, seen + at, CLUSTER);

        assert_int_equal(ret, at == WHERE ? -EIO : 0);
    }
    assert_true(corrupt_told > 0);
    assert_int_equal(wrong_outside(WHERE, WHERE + CLUSTER), 0);
    assert_true(co_node_write_buf(node, 0, seen, SECTOR) < 0);
    co_node_unref(node);
    assert_true(word_at("/D", 72) & QCOW2_INCOMPAT_CORRUPT);
}

static void a_flipped_table_entry_is_found_told_marked_and_harms_nothing_else(void **state)
{
    loop_run_co(co_flipped_entry, "6,0x02"); /* not at the start of a cluster */
    loop_run_co(co_flipped_entry, "1,0x20"); /* beyond the end of the file */
}

/* A reserved bit has no meaning: readers need not care, as QEMU does not; the check says so. */
static CO_ENTRY void co_flipped_reserved(void *arg)
{
    int found;

    co_begin("/D");
    AUTOFREE char *words = mem_printf("flip,path=/D,ops=write,times=1,len=1,offset=%llu,mask=2",
                                      (unsigned long long)l2_entry_at("/D", WHERE) + 7);

    assert_true(co_run_open(&run, "/D", "qcow2"));
    plan(words);
    assert_int_equal(co_guest_write(&run, WHERE, CLUSTER), 0);
    co_run_close(&run);
    assert_int_equal(io_sim_faults_struck(), 1);
    io_sim_faults_clear();
    co_see("/D");
    assert_int_equal(wrong_outside(0, 0), 0);
    silence(true);
    found = co_img(&run, "check D");
    silence(false);
    assert_int_equal(found, 2);
}

static void a_flipped_bit_without_meaning_is_found_by_check(void **state)
{
    loop_run_co(co_flipped_reserved, NULL);
}

/* What an L2 table held before everything is read back: its part of the disk may be old, no more. */
static CO_ENTRY void co_stale_table(void *arg)
{
    uint64_t l2;
    struct checker_image *image;

    co_begin("/S");
    l2 = word_at("/S", word_at("/S", 40)) & QCOW2_L1_OFFSET_MASK;
    AUTOFREE char *words = mem_printf("stale,path=/S,ops=read,after=1,times=1,len=512,offset=%llu",
                                      (unsigned long long)l2);

    assert_true(l2 != 0);
    plan(words); /* what is stale then is what there is now */
    assert_true(co_run_open(&run, "/S", "qcow2"));
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t at = 0; at < DISK_BYTES; at += SECTION_BYTES) {
            assert_int_equal(co_guest_write(&run, at + round * 7 * SECTOR, 5 * SECTOR), 0);
        }
        co_guest_flush(&run);
        co_run_close(&run); /* so that tables are read again */
        assert_true(co_run_open(&run, "/S", "qcow2"));
    }
    co_run_close(&run);
    assert_int_equal(io_sim_faults_struck(), 1);
    io_sim_faults_clear();
    co_see("/S");
    assert_int_equal(wrong_outside(0, SECTION_BYTES), 0);
    image = rig_check(&run, "/S", "afterwards");
    checker_close(image);
    assert_string_equal(run.trouble, "");
}

static void a_stale_read_of_a_table_harms_its_part_of_the_disk_only(void **state)
{
    loop_run_co(co_stale_table, NULL);
}

/* The counts of new clusters are lost: nobody can know before somebody counts.  The check does. */
static CO_ENTRY void co_lost_counts(void *arg)
{
    uint64_t block;

    co_begin("/D");
    block = word_at("/D", word_at("/D", 48));
    AUTOFREE char *words = mem_printf("lost,path=/D,ops=write,len=4096,offset=%llu",
                                      (unsigned long long)block);

    assert_true(co_run_open(&run, "/D", "qcow2"));
    plan(words);
    assert_int_equal(co_guest_write(&run, WHERE, CLUSTER), 0);
    co_run_close(&run);
    assert_true(io_sim_faults_struck() > 0);
    io_sim_faults_clear();
    silence(true);
    int found = co_img(&run, "check D"), mended = co_img(&run, "check -r all D");

    silence(false);
    assert_int_equal(found, 2);
    assert_int_equal(mended, 0);
    co_see("/D");
    assert_int_equal(wrong_outside(0, 0), 0);
}

static void lost_counts_are_found_and_mended_by_check(void **state)
{
    loop_run_co(co_lost_counts, NULL);
}

/* --- All of it -------------------------------------------------------------------------------- */

static int setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (rig_setup(state)) {
        return -1;
    }
    img_set_program("img");
    loop_run_co(co_make_first, &run);
    return 0;
}

static int teardown(void **state)
{
    io_sim_snapshot_free(first_disk);
    return rig_teardown(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_transfers_interruptions_and_stalls_are_survived),
        cmocka_unit_test(a_full_medium_refuses_and_tears_nothing),
        cmocka_unit_test(errors_are_told_wherever_a_seed_puts_them),
        cmocka_unit_test(lies_crash_nobody_and_spread_to_no_other_image),
        cmocka_unit_test(a_lost_write_of_data_loses_that_data_only),
        cmocka_unit_test(a_flipped_bit_of_data_harms_that_data_only),
        cmocka_unit_test(a_write_of_data_that_goes_nowhere_harms_that_data_only),
        cmocka_unit_test(a_stale_read_of_data_harms_nothing),
        cmocka_unit_test(a_flipped_table_entry_is_found_told_marked_and_harms_nothing_else),
        cmocka_unit_test(a_flipped_bit_without_meaning_is_found_by_check),
        cmocka_unit_test(a_stale_read_of_a_table_harms_its_part_of_the_disk_only),
        cmocka_unit_test(lost_counts_are_found_and_mended_by_check),
    };
    struct sigaction act = { .sa_handler = last_words, .sa_flags = SA_RESETHAND };

    sigaction(SIGABRT, &act, NULL);
    for (int i = 1; i < argc; i++) {
        all = all || strcmp(argv[i], "--all") == 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
