/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Profile replay: an iolog played on a disk of memory, in order and in time.
 */
#include <unistd.h>

#include "guest-rig.h"

#define OPEN "fio version 2 iolog\n/dev/sda add\n/dev/sda open\n"

static char path[] = "/tmp/guest-replay.XXXXXX";

static int setup(void **state)
{
    rig_begin(LOOP_CLOCK_VIRTUAL, 1, MIB);
    return 0;
}

static int teardown(void **state)
{
    rig_end();
    return 0;
}

static void write_log(const char *log)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(log, f);
    assert_int_equal(fclose(f), 0);
}

struct attempt {
    json_t *settings;
    struct error err;
    int result;
};

static CO_ENTRY void configure(void *arg)
{
    struct attempt *a = arg;

    a->result = co_guest_configure("virtio0", a->settings, &a->err);
}

static struct attempt try(const char *log, const char *more)
{
    struct attempt a = { .err = ERROR_INIT };

    write_log(log);
    a.settings = words(more);
    json_object_set_new(a.settings, "profile", json_string("replay"));
    json_object_set_new(a.settings, "iolog", json_string(path));
    loop_run_co(configure, &a);
    json_decref(a.settings);
    return a;
}

static void play(const char *log, const char *more)
{
    struct attempt a = try(log, more);

    if (a.result) {
        fail_msg("%s", a.err.text);
    }
}

static void refused(const char *log, const char *why)
{
    struct attempt a = try(log, "rwmixread=50");

    assert_int_not_equal(a.result, 0);
    assert_string_equal(a.err.text, why);
    error_clear(&a.err);
    assert_string_equal(words_of("profile"), "preserve");
}

static uint64_t run_ns;

static CO_ENTRY void run_for(void *arg)
{
    machine_cont();
    co_sleep_ns(run_ns);
    co_machine_stop(RUN_PAUSED);
}

static void run(uint64_t ns)
{
    run_ns = ns;
    loop_run_co(run_for, NULL);
}

static CO_ENTRY void verify(void *arg)
{
    assert(co_guest_verify_all() == 0);
}

static void a_log_is_played_once(void **state)
{
    fake.flush_is_last = true;
    play(OPEN "/dev/sda read 0 4096\n"
              "/dev/sda write 4096 8192\n"
              "/dev/sda trim 16384 4096\n"
              "/dev/sda sync\n"
              "/dev/sda write 1000 100\n"
              "/dev/sda datasync 0 0\n"
              "/dev/sda close\n",
         "iodepth=4");
    run(NS_PER_S);
    assert_int_equal(counter("reads"), 2); /* and the partition table */
    assert_int_equal(counter("writes"), 2);
    assert_int_equal(counter("written_bytes"), 8192 + 1024);
    assert_int_equal(counter("discards"), 1);
    assert_int_equal(counter("flushes"), 2);
    assert_memory_equal(fake.data + 4096, "MGSTAMP1", 8);
    assert_memory_equal(fake.data + 12288, fake.before + 12288, 4096);
    assert_clean();
    loop_run_co(verify, NULL);
    run(NS_PER_S);
    assert_int_equal(counter("writes"), 2);
}

static CO_ENTRY void look_while_running(void *arg)
{
    machine_cont();
    co_sleep_ns(NS_PER_S);
    assert(!strcmp(words_of("state"), "done"));
    assert(counter("writes") == 1);
    assert(guest_start("virtio0", NULL) == 0);
    co_sleep_ns(NS_PER_S);
    assert(counter("writes") == 2);
    co_machine_reset();
    co_sleep_ns(NS_PER_S);
    assert(counter("writes") == 3);
    co_machine_stop(RUN_PAUSED);
}

static void start_and_reset_play_it_again(void **state)
{
    play(OPEN "/dev/sda write 4096 8192\n", "iodepth=2");
    loop_run_co(look_while_running, NULL);
    assert_clean();
}

static void entries_come_at_their_time(void **state)
{
    play(OPEN "/dev/sda read 0 512\n"
              "/dev/sda wait 500000 0\n"
              "/dev/sda read 512 512\n"
              "/dev/sda wait 500000 0\n"
              "/dev/sda read 1024 512\n",
         "iodepth=4");
    run(400 * NS_PER_MS);
    assert_int_equal(counter("reads"), 1 + 1);
    run(200 * NS_PER_MS);
    assert_int_equal(counter("reads"), 1 + 2);
    run(300 * NS_PER_MS); /* the machine's pauses do not count */
    assert_int_equal(counter("reads"), 1 + 2);
    run(200 * NS_PER_MS);
    assert_int_equal(counter("reads"), 1 + 3);
}

static CO_ENTRY void stop_in_between(void *arg)
{
    machine_cont();
    co_sleep_ns(600 * NS_PER_MS);
    assert(counter("reads") == 1 + 2);
    assert(co_guest_stop("virtio0", NULL) == 0);
    co_sleep_ns(10 * NS_PER_S);
    assert(guest_start("virtio0", NULL) == 0);
    co_sleep_ns(300 * NS_PER_MS);
    assert(counter("reads") == 1 + 2); /* 400 ms of the log are left */
    co_sleep_ns(200 * NS_PER_MS);
    assert(counter("reads") == 1 + 3);
    co_machine_stop(RUN_PAUSED);
}

static void a_stopped_replay_goes_on_where_it_was(void **state)
{
    play("fio version 3 iolog\n0 a add\n0 a open\n0 a read 0 512\n500000 a read 512 512\n1000000 a "
         "read 1024 512\n",
         "iodepth=4");
    loop_run_co(stop_in_between, NULL);
}

static CO_ENTRY void reset_in_between(void *arg)
{
    machine_cont();
    co_sleep_ns(600 * NS_PER_MS);
    assert(counter("reads") == 1 + 1);
    co_machine_reset();
    co_sleep_ns(900 * NS_PER_MS);
    assert(counter("reads") == 2 + 2); /* booted again, and the first one */
    co_sleep_ns(200 * NS_PER_MS);
    assert(counter("reads") == 2 + 3);
    co_machine_stop(RUN_PAUSED);
}

static void after_a_reset_a_log_begins_anew(void **state)
{
    play(OPEN "/dev/sda read 0 512\n/dev/sda wait 1000000 0\n/dev/sda read 512 512\n", "iodepth=4");
    loop_run_co(reset_in_between, NULL);
}

/* The disk asserts that nothing overlaps; stamps tell which write came last. */
static void overlapping_entries_keep_the_order_of_the_log(void **state)
{
    char log[20000] = OPEN, *end = log + strlen(log);

    for (unsigned i = 0; i < 300; i++) {
        end += sprintf(end, "/dev/sda %s %u %u\n", i % 3 ? "write" : "read",
                       512 * (unsigned)random_below(&fake.random, 20),
                       512 * (1 + (unsigned)random_below(&fake.random, 20)));
    }
    strcpy(end, "/dev/sda write 0 20480\n/dev/sda sync\n/dev/sda write 512 512\n");
    fake.max_bytes = 2048;
    fake.flush_is_last = true;
    play(log, "iodepth=16");
    run(NS_PER_S);
    assert_true(fake.most_inflight > 1);
    assert_clean();
    loop_run_co(verify, NULL);
    /* Generations at byte 16 of each sector: all of the last but one, and one of the last. */
    for (unsigned i = 2; i < 40; i++) {
        assert_memory_equal(fake.data + i * 512 + 16, fake.data + 16, 8);
    }
    assert_memory_not_equal(fake.data + 512 + 16, fake.data + 16, 8);
}

static void what_the_disk_cannot_do_is_skipped(void **state)
{
    fake.read_only = true;
    play(
        OPEN
        "/dev/sda read 0 4096\n/dev/sda write 4096 8192\n/dev/sda trim 16384 4096\n/dev/sda sync\n",
        "iodepth=2");
    run(NS_PER_S);
    assert_int_equal(counter("reads"), 2);
    assert_int_equal(counter("skipped"), 2);
    assert_int_equal(counter("flushes"), 1);
    fake.size = 4096;
    play(OPEN "/dev/sda read 0 4096\n", "iodepth=2");
    fake.size = 2048; /* it shrank since */
    run(NS_PER_S);
    assert_int_equal(counter("skipped"), 3);
    assert_clean();
}

static void a_bad_log_is_refused_and_nothing_changes(void **state)
{
    struct error err = ERROR_INIT;
    json_t *missing = words("profile=replay,iolog=/nonexistent/log");
    char why[200];

    run(NS_PER_S / 10); /* booted: the size is known */
    refused(
        "nonsense\n",
        (sprintf(why, "'%s' is not an iolog of fio: it does not begin with 'fio version 2 iolog'",
                 path),
         why));
    refused(OPEN "/dev/sda eat 0 512\n",
            (sprintf(why, "Iolog '%s', line 4: unknown action 'eat'", path), why));
    refused(
        OPEN "/dev/sda read 1048576 512\n",
        (sprintf(
             why,
             "Iolog '%s', line 4: it reaches to byte 1049088, but device 'virtio0' ends at 1048576",
             path),
         why));
    assert_int_equal(guest_configure("virtio0", missing, &err), -ENOENT);
    assert_string_equal(err.text, "Could not open '/nonexistent/log': No such file or directory");
    error_clear(&err);
    json_decref(missing);
}

/* guest_configure() alone cannot read the file: the guest finds out when it starts. */
static void a_bad_log_that_is_found_late_stops_the_guest(void **state)
{
    write_log("nonsense\n");
    AUTOFREE char *list = mem_printf("profile=replay,iolog=%s", path);

    set(list);
    run(NS_PER_S);
    assert_string_equal(words_of("state"), "failed");
    assert_non_null(strstr(words_of("why"), "is not an iolog of fio"));
    write_log(OPEN "/dev/sda read 0 512\n");
    run(NS_PER_S); /* `cont` tries again */
    assert_int_equal(counter("reads"), 2);
}

static CO_ENTRY void change_while_it_plays(void *arg)
{
    machine_cont();
    for (unsigned i = 0; i < 100; i++) {
        AUTOFREE char *list = mem_printf("profile=replay,iolog=%s", path);

        set(i % 3 ? list : "profile=preserve");
        co_sleep_ns(random_below(&fake.random, 3 * NS_PER_MS));
        if (i % 5 == 0) {
            co_machine_reset();
        }
    }
    co_machine_stop(RUN_PAUSED);
}

static void changes_and_resets_while_it_plays_are_no_problem(void **state)
{
    char log[20000] = OPEN, *end = log + strlen(log);

    for (unsigned i = 0; i < 200; i++) {
        end += sprintf(end, i % 20 == 19 ? "/dev/sda sync\n" : "/dev/sda write %u 4096\n", i * 512);
        end += sprintf(end, "/dev/sda wait %u 0\n", i % 3 * 100);
    }
    write_log(log);
    set("iodepth=8");
    loop_run_co(change_while_it_plays, NULL);
    assert_clean();
    loop_run_co(verify, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_log_is_played_once),
        TEST(start_and_reset_play_it_again),
        TEST(entries_come_at_their_time),
        TEST(a_stopped_replay_goes_on_where_it_was),
        TEST(after_a_reset_a_log_begins_anew),
        TEST(overlapping_entries_keep_the_order_of_the_log),
        TEST(what_the_disk_cannot_do_is_skipped),
        TEST(a_bad_log_is_refused_and_nothing_changes),
        TEST(a_bad_log_that_is_found_late_stops_the_guest),
        TEST(changes_and_resets_while_it_plays_are_no_problem),
    };
    int fd = mkstemp(path);

    if (fd < 0) {
        return 1;
    }
    close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    unlink(path);
    return failed;
}
