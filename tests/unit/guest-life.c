/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's life on a disk of memory: it boots, works, stops, survives resets, and notices what
 * is wrong.
 */
#include "guest-rig.h"

/* --- Running ---------------------------------------------------------------------------------- */

static uint64_t run_ns;

static CO_ENTRY void run_for(void *arg)
{
    machine_cont();
    co_sleep_ns(run_ns);
    co_machine_stop(RUN_PAUSED);
}

/* Let the machine run for a while, then stop it. */
static void run(uint64_t ns)
{
    run_ns = ns;
    loop_run_co(run_for, NULL);
    assert_int_equal(fake.inflight, 0);
    assert_int_equal(counter("inflight"), 0);
}

static int verify_result;

static CO_ENTRY void verify_all(void *arg)
{
    verify_result = co_guest_verify_all();
}

static int verify(void)
{
    loop_run_co(verify_all, NULL);
    return verify_result;
}

static void reset(void *arg)
{
    co_machine_reset();
}

static bool disk_unchanged(void)
{
    return !memcmp(fake.data, fake.before, fake.size);
}

static int setup(void **state)
{
    rig_begin(LOOP_CLOCK_VIRTUAL, 1, 2 * MIB);
    return 0;
}

static int setup_large(void **state)
{
    rig_begin(LOOP_CLOCK_VIRTUAL, 1, 128 * MIB);
    return 0;
}

static int teardown(void **state)
{
    rig_end();
    return 0;
}

/* --- Profiles --------------------------------------------------------------------------------- */

static void the_default_keeps_its_pace_and_changes_nothing(void **state)
{
    run(20 * NS_PER_S);
    uint64_t reads = counter("reads"), writes = counter("writes");

    assert_in_range(reads + writes, 3900, 4100);
    assert_in_range(reads, writes, writes + 2); /* the partition table */
    assert_int_equal(counter("read_bytes") - 512, counter("written_bytes"));
    assert_true(disk_unchanged());
    assert_clean();
    assert_true(counter("verified") > 1000);
    assert_string_equal(words_of("profile"), "preserve");
    assert_int_equal(verify(), 0);
}

static void the_default_touches_64_mib_of_a_large_disk(void **state)
{
    set("rate_iops=0,iodepth=8");
    run(NS_PER_S);
    assert_true(counter("known_bytes") > 20 * MIB);
    assert_true(counter("known_bytes") <= 64 * MIB);
    assert_true(counter("memory_bytes") < 64 * MIB / 40);
    assert_true(disk_unchanged());
}

static void preserve_changes_nothing_where_requests_overlap(void **state)
{
    set("iodepth=24,rate_iops=0,bs=512-16k,size=64k,rwmixread=60");
    run(2 * NS_PER_S);
    assert_true(fake.most_inflight > 1);
    assert_true(counter("writes") > 2000);
    assert_true(disk_unchanged());
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void a_read_only_disk_is_only_read(void **state)
{
    fake.read_only = true;
    run(NS_PER_S);
    assert_in_range(counter("reads"), 190, 215);
    assert_int_equal(counter("writes"), 0);
    assert_true(json_is_true(describe("read_only")));
    assert_clean();
}

static void stamp_writes_and_finds_what_it_wrote(void **state)
{
    set("profile=stamp,iodepth=16,rate_iops=0,bs=512-64k,size=1M,flush_every=10");
    run(NS_PER_S);
    assert_true(fake.most_inflight > 4);
    assert_true(counter("writes") > 1000);
    assert_in_range(counter("flushes"), counter("writes") / 10 - 20, counter("writes") / 10 + 20);
    assert_false(disk_unchanged());
    assert_memory_equal(fake.data + MIB, fake.before + MIB, MIB); /* behind its working set */
    assert_memory_equal(fake.data, "MGSTAMP1", 8);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void trimmed_blocks_may_hold_anything_once(void **state)
{
    set("profile=stamp,rw=randtrimwrite,iodepth=8,rate_iops=0,size=256k");
    run(NS_PER_S / 4);
    assert_true(counter("discards") > 500);
    set("rw=randtrim");
    run(NS_PER_S / 4);
    set("rw=randread");
    run(NS_PER_S / 4);
    set("rw=randrw");
    run(NS_PER_S / 4);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void a_disk_without_discard_is_told_so(void **state)
{
    fake.no_discard = true;
    set("profile=stamp,rw=randtrim");
    run(NS_PER_S);
    assert_string_equal(words_of("state"), "failed");
    assert_string_equal(words_of("why"), "The disk cannot discard, so the guest cannot trim");
    assert_int_equal(counter("discards"), 0);
    set("rw=randrw"); /* that is possible */
    run(NS_PER_S);
    assert_string_equal(words_of("state"), "paused");
    assert_true(counter("writes") > 50);
    assert_clean();
}

static void none_only_boots(void **state)
{
    set("profile=none");
    run(NS_PER_S);
    assert_int_equal(counter("reads"), 1);
    assert_int_equal(counter("boots"), 1);
    assert_int_equal(counter("known_bytes"), 512);
}

static void requests_fit_the_device(void **state)
{
    fake.max_bytes = 12 * KIB; /* asserted by the disk */
    set("profile=stamp,rate_iops=0,bs=64k-256k,iodepth=4");
    run(NS_PER_S / 10);
    assert_true(counter("writes") > 100);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void the_partition_table_is_read_at_boot(void **state)
{
    uint8_t *e = fake.data + 446;

    memset(e, 0, 64);
    e[4] = 0x83;
    e[9] = 8;  /* sector 2048 */
    e[13] = 4; /* 1024 sectors */
    fake.data[510] = 0x55;
    fake.data[511] = 0xaa;
    set("profile=none");
    run(NS_PER_S);
    assert_string_equal(words_of("table"), "mbr");
    json_t *p = json_array_get(describe("partitions"), 0);

    assert_int_equal(json_integer_value(json_object_get(p, "start")), MIB);
    assert_int_equal(json_integer_value(json_object_get(p, "size")), MIB / 2);
    assert_string_equal(json_string_value(json_object_get(p, "type")), "83");
}

/* --- Wrong data and errors -------------------------------------------------------------------- */

static void nothing_was_wrong_yet(void **state)
{
    run(NS_PER_S);
    assert_false(guest_any_mismatch());
    assert_false(guest_any_error());
}

static void one_wrong_byte_is_noticed_and_not_written_back(void **state)
{
    set("iodepth=4,rate_iops=0,size=64k");
    run(NS_PER_S / 10);
    fake.flip_at = 20000;
    run(NS_PER_S / 10);
    assert_true(fake.flip_at == UINT64_MAX);
    assert_int_equal(counter("mismatches"), 1);
    assert_string_equal(json_string_value(json_array_get(describe("mismatch_list"), 0)),
                        "virtio0: read of 4096 bytes at 16384: wrong sectors: 1, the first at "
                        "19968 holds other bytes");
    assert_true(disk_unchanged());
    assert_true(guest_any_mismatch());
    assert_int_equal(verify(), 0); /* it was wrong once only */
}

static void a_change_on_the_disk_is_found_by_verifying(void **state)
{
    set("profile=stamp,rw=write,rate_iops=0,size=128k");
    run(NS_PER_S / 100);
    assert_int_equal(verify(), 0);
    memcpy(fake.data + 8192, fake.data + 4096, 512);
    assert_int_equal(verify(), -EIO);
    assert_int_equal(counter("mismatches"), 1);
    assert_non_null(strstr(json_string_value(json_array_get(describe("mismatch_list"), 0)),
                           "the first at 8192 holds what was written to address 4096 (write "));
}

static void the_list_of_mismatches_keeps_the_last_ones(void **state)
{
    set("rw=read,rate_iops=0,size=512k,bs=4k");
    run(NS_PER_S / 10);
    for (unsigned i = 0; i < 40; i++) {
        fake.data[i * 8192] ^= 1;
    }
    set("bs=8k,size=320k");
    uint64_t before = counter("mismatches");

    run(NS_PER_S / 10);
    assert_true(counter("mismatches") - before >= 40);
    assert_int_equal(json_array_size(describe("mismatch_list")), 16);
}

static void a_wrong_place_that_is_read_often_is_listed_once(void **state)
{
    set("rw=read,rate_iops=0,size=64k");
    run(NS_PER_S / 10);
    fake.data[4096] ^= 1;
    fake.data[40000] ^= 1;
    run(NS_PER_S / 10);
    assert_true(counter("mismatches") > 20);
    assert_int_equal(json_array_size(describe("mismatch_list")), 2);
}

static void errors_are_counted_and_leave_old_or_new(void **state)
{
    set("profile=stamp,iodepth=8,rate_iops=0,size=128k,bs=4k-32k");
    run(NS_PER_S / 10);
    for (unsigned i = 0; i < 20; i++) {
        fake.fail_writes = 5;
        fake.fail_reads = 3;
        run(NS_PER_S / 10);
        assert_int_equal(fake.fail_writes + fake.fail_reads, 0);
    }
    assert_int_equal(counter("errors"), 20 * 8);
    assert_int_equal(counter("mismatches"), 0);
    assert_true(guest_any_error());
    assert_int_equal(verify(), 0);
}

static void failed_writes_of_preserve_do_no_harm(void **state)
{
    set("iodepth=8,rate_iops=0,size=128k");
    fake.fail_writes = 100;
    run(NS_PER_S);
    assert_int_equal(fake.fail_writes, 0);
    assert_true(disk_unchanged());
    assert_int_equal(counter("mismatches"), 0);
}

static void a_broken_disk_does_not_keep_the_guest_busy(void **state)
{
    set("rate_iops=0,iodepth=4");
    run(NS_PER_S / 10);
    fake.fail_reads = fake.fail_writes = 1000000;
    fake.max_ns = 0; /* fails at once */
    run(NS_PER_S);
    assert_in_range(counter("errors"), 2000, 4010);
}

static void reading_that_fails_is_no_success_of_verifying(void **state)
{
    run(NS_PER_S);
    fake.fail_reads = 1;
    assert_int_equal(verify(), -EIO);
    assert_int_equal(counter("errors"), 1);
    assert_int_equal(verify(), 0);
}

/* Whoever wants all of it read again hears that it cannot be. */
static void a_disk_that_does_not_come_up_cannot_be_verified(void **state)
{
    assert_int_equal(verify(), 0); /* nothing is known yet */
    assert_int_equal(counter("boots"), 0);
    run(NS_PER_S);
    fake.fail_boots = 1000;
    loop_run_co(reset, NULL);
    assert_int_equal(verify(), -EIO);
    fake.fail_boots = 0;
    run(NS_PER_S / 100);
    assert_int_equal(verify(), 0);
}

/* What lay behind the new end is nobody's. */
static void a_disk_that_shrank_is_verified_to_its_end(void **state)
{
    set("profile=stamp,iodepth=8,rate_iops=0,bs=4k");
    run(NS_PER_S / 5);
    fake.size = MIB; /* reads behind it are asserted against */
    assert_int_equal(verify(), 0);
    assert_clean();
}

static CO_ENTRY void grow_at_work(void *arg)
{
    machine_cont();
    while (fake.size < 2 * MIB) {
        co_sleep_ns(NS_PER_S / 50);
        fake.size += MIB / 8;
    }
    co_sleep_ns(NS_PER_S / 5);
    co_machine_stop(RUN_PAUSED);
}

/* The size may change between two requests. */
static void a_disk_that_grows_at_work_is_followed(void **state)
{
    fake.size = MIB;
    set("profile=stamp,iodepth=8,rate_iops=0,bs=4k,size=100%");
    loop_run_co(grow_at_work, NULL);
    assert_true(counter("known_bytes") > MIB + MIB / 2);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void a_disk_that_does_not_come_up_is_tried_again_with_cont(void **state)
{
    fake.fail_boots = 1;
    run(NS_PER_S);
    assert_string_equal(words_of("state"), "failed");
    assert_string_equal(words_of("why"), "The disk could not be brought up: No such device");
    assert_int_equal(counter("errors"), 1);
    run(NS_PER_S);
    assert_string_equal(words_of("state"), "paused");
    assert_int_equal(counter("boots"), 2);
    assert_in_range(counter("reads") + counter("writes"), 190, 215);
}

static void an_unreadable_partition_table_does_not_stop_the_guest(void **state)
{
    fake.fail_reads = 1;
    run(NS_PER_S);
    assert_string_equal(words_of("table"), "unreadable");
    assert_int_equal(counter("errors"), 1);
    assert_true(counter("reads") > 50);
}

/* --- Reset ------------------------------------------------------------------------------------ */

static CO_ENTRY void run_with_resets(void *arg)
{
    machine_cont();
    for (unsigned i = 0; i < 100; i++) {
        co_sleep_ns(random_below(&fake.random, 10 * NS_PER_MS));
        co_machine_reset();
        assert(machine_running());
    }
    co_sleep_ns(20 * NS_PER_MS);
    co_machine_stop(RUN_PAUSED);
}

static void resets_lose_nothing_that_was_acknowledged(void **state)
{
    set("profile=stamp,iodepth=16,rate_iops=0,size=128k,bs=512-16k");
    loop_run_co(run_with_resets, NULL);
    assert_in_range(counter("boots"), 80, 101);
    assert_true(counter("writes") > 1000);
    assert_clean();
    assert_int_equal(verify(), 0);
    /* And what is wrong is still found. */
    fake.data[5000] ^= 1;
    fake.data[50000] ^= 1;
    assert_int_equal(verify(), -EIO);
}

static CO_ENTRY void hang_and_reset(void *arg)
{
    machine_cont();
    co_sleep_ns(NS_PER_S / 10);
    fake.hang = true;
    co_sleep_ns(NS_PER_S / 10);
    assert(fake.inflight > 0);
    co_machine_reset();
    co_sleep_ns(NS_PER_S / 10);
    fake.hang = false;
    assert(counter("boots") == 2);
    uint64_t writes = counter("writes");

    fake_release(); /* of the second boot */
    co_sleep_ns(NS_PER_S / 10);
    assert(counter("writes") > writes);
    co_machine_stop(RUN_PAUSED);
}

static void a_reset_ends_requests_that_hang(void **state)
{
    set("profile=stamp,iodepth=4,rate_iops=0,size=128k");
    loop_run_co(hang_and_reset, NULL);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void resets_do_not_hurt_a_preserved_disk(void **state)
{
    set("iodepth=16,rate_iops=0,size=128k,bs=512-16k");
    loop_run_co(run_with_resets, NULL);
    assert_true(disk_unchanged());
    assert_clean();
}

static void verifying_a_machine_that_was_reset_boots_it(void **state)
{
    set("rate_iops=0");
    run(NS_PER_S / 10);
    loop_run_co(reset, NULL);
    assert_int_equal(machine_state(), RUN_PRELAUNCH);
    assert_string_equal(words_of("state"), "off");
    uint64_t writes = counter("writes");

    assert_int_equal(verify(), 0);
    assert_int_equal(counter("boots"), 2);
    assert_int_equal(counter("writes"), writes);
    fake.data[0] ^= 1;
    assert_int_equal(verify(), -EIO);
}

static CO_ENTRY void verify_and_reset(void *arg)
{
    co_start(verify_all, NULL);
    co_sleep_ns(150 * NS_PER_US);
    co_machine_reset();
    verify_result = 1;
    while (verify_result == 1) {
        co_sleep_ns(NS_PER_MS);
    }
}

static void a_reset_in_the_middle_of_verifying_is_survived(void **state)
{
    set("rate_iops=0,rw=read,bs=64k");
    run(NS_PER_S / 10);
    loop_run_co(verify_and_reset, NULL);
    assert_int_equal(verify_result, 0);
    assert_int_equal(counter("boots"), 2);
    assert_clean();
}

/* --- Stop, start, change ---------------------------------------------------------------------- */

static CO_ENTRY void stop_guest(void *arg)
{
    assert(co_guest_stop("virtio0", NULL) == 0);
}

static CO_ENTRY void stop_while_running(void *arg)
{
    machine_cont();
    co_sleep_ns(NS_PER_S);
    assert(!strcmp(words_of("state"), "running"));
    assert(co_guest_stop("virtio0", NULL) == 0);
    assert(counter("inflight") == 0);
    assert(!strcmp(words_of("state"), "stopped"));
    unsigned count = fake.count;

    co_sleep_ns(NS_PER_S);
    assert(fake.count == count);
    assert(guest_start("virtio0", NULL) == 0);
    co_sleep_ns(NS_PER_S);
    /* No burst for what it missed. */
    assert(fake.count >= count + 190 && fake.count <= count + 210);
    co_machine_stop(RUN_PAUSED);
    count = fake.count;
    co_sleep_ns(NS_PER_S);
    assert(fake.count == count);
}

static void a_stopped_guest_is_silent(void **state)
{
    set("iodepth=4");
    loop_run_co(stop_while_running, NULL);
    assert_int_equal(counter("boots"), 1);
    assert_clean();
}

static void a_guest_may_be_stopped_before_the_machine_runs(void **state)
{
    loop_run_co(stop_guest, NULL);
    run(NS_PER_S);
    assert_int_equal(fake.count, 0);
    assert_int_equal(guest_start("virtio0", NULL), 0);
    run(NS_PER_S);
    assert_true(fake.count > 100);
}

static void settings_change_while_it_runs_and_knowledge_stays(void **state)
{
    struct error err = ERROR_INIT;
    json_t *object = words("iodepth=4,colour=red");

    set("rw=read,bs=64k,rate_iops=0");
    run(NS_PER_S / 10);
    uint64_t known = counter("known_bytes");

    assert_int_equal(known, 2 * MIB);
    set("profile=stamp,rw=randwrite,bs=4k,size=64k,rate_iops=100");
    assert_string_equal(words_of("rw"), "randwrite");
    run(NS_PER_S);
    assert_int_equal(counter("known_bytes"), known);
    assert_in_range(counter("writes"), 90, 110);
    assert_int_equal(guest_configure("virtio0", object, &err), -EINVAL);
    assert_string_equal(err.text, "Invalid parameter 'colour'");
    assert_int_equal(counter("iodepth"), 1);
    error_clear(&err);
    json_decref(object);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static CO_ENTRY void change_often(void *arg)
{
    static const char *const settings[] = { "profile=preserve,rw=randrw,iodepth=8",
                                            "profile=stamp,bs=1k-8k,iodepth=2",
                                            "rate_iops=0,iodepth=5",
                                            "rate_iops=1,iodepth=7",
                                            "profile=none",
                                            "profile=stamp,rw=trimwrite,rate_iops=500" };

    machine_cont();
    for (unsigned i = 0; i < 300; i++) {
        set(settings[random_below(&fake.random, ARRAY_SIZE(settings))]);
        co_sleep_ns(random_below(&fake.random, 5 * NS_PER_MS));
    }
    co_machine_stop(RUN_PAUSED);
}

static void frequent_changes_are_no_problem(void **state)
{
    set("size=128k");
    loop_run_co(change_often, NULL);
    assert_clean();
    assert_int_equal(verify(), 0);
}

static CO_ENTRY void stop_and_cont_often(void *arg)
{
    for (unsigned i = 0; i < 200; i++) {
        machine_cont();
        co_sleep_ns(random_below(&fake.random, 3 * NS_PER_MS));
        co_machine_stop(RUN_PAUSED);
        assert(fake.inflight == 0);
    }
}

static void stop_waits_for_what_is_in_flight(void **state)
{
    set("iodepth=8,rate_iops=0,size=128k");
    loop_run_co(stop_and_cont_often, NULL);
    assert_true(disk_unchanged());
    assert_clean();
}

static void unknown_disks_are_named(void **state)
{
    struct error err = ERROR_INIT;
    json_t *object = words("iodepth=4");

    assert_int_equal(guest_start("virtio7", &err), -ENODEV);
    assert_string_equal(err.text, "Device 'virtio7' not found");
    assert_int_equal(err.class, ERROR_DEVICE_NOT_FOUND);
    error_clear(&err);
    assert_int_equal(guest_configure("virtio7", object, &err), -ENODEV);
    assert_string_equal(err.text, "Device 'virtio7' not found");
    error_clear(&err);
    loop_run_co(co_rig_free_guest, NULL);
    assert_int_equal(guest_start("virtio0", &err), -ENODEV);
    assert_string_equal(err.text, "Device 'virtio0' has no guest");
    error_clear(&err);
    json_decref(object);
}

static int configure_result, stop_result;
static const char *configure_words;

static CO_ENTRY void co_wrong_words(void *arg)
{
    json_t *object = words(configure_words);

    configure_result = co_guest_configure("virtio0", object, arg);
    json_decref(object);
}

static CO_ENTRY void co_unknown(void *arg)
{
    json_t *object = words("iodepth=4");
    struct error err = ERROR_INIT;

    configure_result = co_guest_configure("virtio7", object, arg);
    stop_result = co_guest_stop("virtio7", &err);
    error_clear(&err);
    json_decref(object);
}

static void wrong_words_change_nothing(void **state)
{
    static const char *const rows[][2] = {
        { "iodepth=many", "Parameter 'iodepth' expects a number" },
        { "profile=replay", "Profile 'replay' needs iolog=FILE" },
        { "profile=replay,iolog=/nowhere/log", "Could not open '/nowhere/log': No such file or directory" },
        { "profile=replay,iolog=/", "Could not open '/': Is a directory" },
    };
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        configure_words = rows[i][0];
        loop_run_co(co_wrong_words, &err);
        assert_true(configure_result < 0);
        assert_string_equal(err.text, rows[i][1]);
        error_clear(&err);
        assert_string_equal(words_of("profile"), "preserve");
    }
    loop_run_co(co_unknown, &err);
    assert_int_equal(configure_result, -ENODEV);
    assert_int_equal(stop_result, -ENODEV);
    error_clear(&err);
}

static int check_result;

static CO_ENTRY void check_settings(void *arg)
{
    check_result = co_guest_check_settings(arg);
}

static void words_before_the_disks_exist_are_kept_for_them(void **state)
{
    struct error err = ERROR_INIT;
    json_t *all = words("iodepth=4,rate_iops=50"), *one = words("disk=virtio0,rate_iops=70"),
           *bad = words("disk=virtio0,x=1"), *trim = words("disk=virtio0,rw=trim"),
           *other = words("disk=virtio9,rw=read");

    assert_int_equal(guest_set_default(one, NULL), 0);
    assert_int_equal(guest_set_default(all, NULL), 0);
    assert_int_equal(guest_set_default(bad, &err), -EINVAL);
    assert_string_equal(err.text, "Invalid parameter 'x'");
    error_clear(&err);
    loop_run_co(co_rig_free_guest, NULL);
    guest = guest_new(&fake.dev, &fake_driver);
    assert_int_equal(counter("iodepth"), 4);
    assert_int_equal(counter("rate_iops"), 70);
    loop_run_co(check_settings, &err);
    assert_int_equal(check_result, 0);

    assert_int_equal(guest_set_default(trim, NULL), 0);
    loop_run_co(co_rig_free_guest, NULL);
    guest = guest_new(&fake.dev, &fake_driver);
    loop_run_co(check_settings, &err);
    assert_string_equal(err.text,
                        "Profile 'preserve' cannot trim: that would change what is on the disk");
    error_clear(&err);
    run(NS_PER_S); /* nobody checked: it refuses by itself */
    assert_string_equal(words_of("state"), "failed");
    assert_true(disk_unchanged());

    assert_int_equal(guest_set_default(other, NULL), 0);
    loop_run_co(check_settings, &err);
    assert_string_equal(err.text, "Device 'virtio9' not found");
    error_clear(&err);
    json_decref(all);
    json_decref(one);
    json_decref(bad);
    json_decref(trim);
    json_decref(other);
}

/* --- Time ------------------------------------------------------------------------------------- */

static void latencies_are_those_of_the_disk(void **state)
{
    fake.min_ns = fake.max_ns = NS_PER_MS;
    run(10 * NS_PER_S);
    assert_in_range(counter("p50_ns"), NS_PER_MS, NS_PER_MS * 104 / 100);
    assert_in_range(counter("p99_ns"), NS_PER_MS, NS_PER_MS * 104 / 100);
    assert_int_equal(counter("max_ns"), NS_PER_MS);
    assert_int_equal(counter("longest_stall_ns"), NS_PER_MS);
}

static CO_ENTRY void hang_then_pause(void *arg)
{
    machine_cont();
    co_sleep_ns(NS_PER_S);
    fake.hang = true;
    co_sleep_ns(NS_PER_S);
    uint64_t stall = counter("longest_stall_ns"); /* it goes on */

    assert(stall >= NS_PER_S * 9 / 10 && stall <= NS_PER_S);
    machine_stop_request(RUN_IO_ERROR);
    co_sleep_ns(100 * NS_PER_S);
    machine_cont();
    co_sleep_ns(NS_PER_S);
    unsigned count = fake.count;

    fake_release();
    co_sleep_ns(NS_PER_S);
    /* 20 of the 400 that it missed are made good. */
    assert(fake.count - count >= 210 && fake.count - count <= 230);
    co_machine_stop(RUN_PAUSED);
}

static void stalls_count_but_not_while_the_machine_stands_still(void **state)
{
    loop_run_co(hang_then_pause, NULL);
    assert_in_range(counter("longest_stall_ns"), 2 * NS_PER_S * 9 / 10, 2 * NS_PER_S);
    assert_in_range(counter("max_ns"), 2 * NS_PER_S * 9 / 10, 2 * NS_PER_S);
    assert_clean();
}

static void a_disk_that_takes_no_time_does_not_stop_the_clock(void **state)
{
    fake.max_ns = 0;
    set("rate_iops=0,iodepth=4");
    run(10 * NS_PER_MS);
    assert_in_range(counter("reads"), 10000, 40010);
    assert_true(disk_unchanged());
}

static uint64_t trace_of(uint64_t seed, const char *settings)
{
    rig_begin(LOOP_CLOCK_VIRTUAL, seed, 2 * MIB);
    set(settings);
    run(NS_PER_S / 10);
    loop_run_co(reset, NULL);
    run(NS_PER_S / 10);
    uint64_t trace = fake.trace;

    rig_end();
    return trace;
}

static void the_same_seed_is_the_same_run(void **state)
{
    const char *settings = "profile=stamp,iodepth=8,rate_iops=5000,bs=512-8k";
    uint64_t first = trace_of(3, settings);

    assert_true(trace_of(3, settings) == first);
    assert_false(trace_of(4, settings) == first);
    assert_true(trace_of(3, "profile=stamp,iodepth=8,rate_iops=5000,bs=512-8k,seed=17") != first);
}

static void it_works_on_the_real_clock(void **state)
{
    rig_begin(LOOP_CLOCK_REAL, 1, 2 * MIB);
    set("profile=stamp,iodepth=8,rate_iops=0,size=256k");
    run(100 * NS_PER_MS);
    assert_true(counter("writes") > 10);
    assert_clean();
    assert_int_equal(verify(), 0);
    rig_end();
}

/* --- Others at the disk ----------------------------------------------------------------------- */

static CO_ENTRY void write_behind_its_back(void *arg)
{
    machine_cont();
    for (unsigned i = 0; i < 50; i++) {
        uint64_t offset = 1 + random_below(&fake.random, 100 * KIB),
                 len = 1 + random_below(&fake.random, 20 * KIB);

        co_sleep_ns(random_below(&fake.random, NS_PER_MS));
        struct guest_hold *hold = co_guest_hold("virtio0", offset, len);

        memset(fake.data + offset, i, len / 2);
        co_sleep_ns(NS_PER_MS);
        memset(fake.data + offset + len / 2, i, len - len / 2);
        memcpy(fake.before + offset, fake.data + offset, len);
        guest_release(hold);
    }
    assert(!co_guest_hold("virtio1", 0, 512));
    guest_release(NULL);
    co_machine_stop(RUN_PAUSED);
}

static void somebody_else_may_write_while_the_guest_is_held_off(void **state)
{
    set("iodepth=16,rate_iops=0,size=128k,bs=512-16k");
    loop_run_co(write_behind_its_back, NULL);
    assert_true(disk_unchanged()); /* but for what we wrote */
    assert_clean();
    assert_int_equal(verify(), 0);
}

static void a_disk_that_changes_its_size_is_followed(void **state)
{
    set("profile=stamp,iodepth=8,rate_iops=0");
    run(NS_PER_S / 5);
    fake.size = MIB + 512; /* the disk asserts that nothing lies beyond */
    run(NS_PER_S / 5);
    assert_true(counter("known_bytes") <= MIB + 512);
    memset(fake.data + MIB + 512, 0x77, MIB - 512);
    fake.size = 2 * MIB;
    run(NS_PER_S / 5);
    assert_true(counter("known_bytes") > MIB + MIB / 2);
    assert_clean();
    assert_int_equal(verify(), 0);
}

/* --- The end ---------------------------------------------------------------------------------- */

static CO_ENTRY void free_at_work(void *arg)
{
    set("profile=stamp,iodepth=16,rate_iops=0");
    machine_cont();
    co_sleep_ns(NS_PER_S / 100);
    assert(fake.inflight > 0);
    co_guest_free(guest);
    guest = NULL;
    assert(fake.inflight == 0);
    co_machine_stop(RUN_PAUSED);
}

static void a_guest_can_be_taken_away_at_work(void **state)
{
    loop_run_co(free_at_work, NULL);
}

static CO_ENTRY void free_while_stuck(void *arg)
{
    set("profile=stamp,iodepth=16,rate_iops=0,size=128k");
    machine_cont();
    co_sleep_ns(NS_PER_S / 100);
    fake.hang = true;
    machine_stop_request(RUN_IO_ERROR);
    co_sleep_ns(NS_PER_S);
    assert(fake.inflight > 0);
    assert(co_guest_verify_all() == 0);          /* what is not in flight */
    assert(co_guest_stop("virtio0", NULL) == 0); /* does not wait for it */
    assert(fake.inflight > 0);
    co_guest_free(guest);
    guest = NULL;
    assert(fake.inflight == 0);
}

static void requests_that_wait_for_cont_do_not_keep_anybody(void **state)
{
    fake.max_ns = NS_PER_MS;
    loop_run_co(free_while_stuck, NULL);
}

static CO_ENTRY void free_at_last(void *arg)
{
    co_guest_free(guest);
    guest = NULL;
}

static CO_ENTRY void wait_for_cont(void *arg)
{
    co_queue_wait(&fake.dev.disk->stopped);
}

static CO_ENTRY void free_after_shutdown(void *arg)
{
    set("profile=stamp,iodepth=16,rate_iops=0,size=128k");
    machine_cont();
    co_sleep_ns(NS_PER_S / 100);
    fake.hang = true;
    co_sleep_ns(NS_PER_S / 100);
    machine_stop_request(RUN_SHUTDOWN);
    co_start(free_at_last, NULL);
    co_sleep_ns(NS_PER_S);
    assert(guest); /* the host is at work, for all one knows */
    co_start(wait_for_cont, NULL);
    co_sleep_ns(NS_PER_S / 100);
    assert(!guest);
    co_queue_wake_all(&fake.dev.disk->stopped);
    co_yield();
}

static void a_guest_that_gets_stuck_while_it_goes_does_not_keep_the_program(void **state)
{
    loop_run_co(free_after_shutdown, NULL);
}

static CO_ENTRY void free_while_booting(void *arg)
{
    machine_cont();
    co_sleep_ns(NS_PER_MS / 2);
    co_guest_free(guest);
    guest = NULL;
    co_machine_stop(RUN_PAUSED);
}

static void a_guest_can_be_taken_away_while_it_boots(void **state)
{
    loop_run_co(free_while_booting, NULL);
    assert_int_equal(fake.boots, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_was_wrong_yet), /* first: those flags stay */
        TEST(the_default_keeps_its_pace_and_changes_nothing),
        cmocka_unit_test_setup_teardown(the_default_touches_64_mib_of_a_large_disk, setup_large,
                                        teardown),
        TEST(preserve_changes_nothing_where_requests_overlap),
        TEST(a_read_only_disk_is_only_read),
        TEST(stamp_writes_and_finds_what_it_wrote),
        TEST(trimmed_blocks_may_hold_anything_once),
        TEST(a_disk_without_discard_is_told_so),
        TEST(none_only_boots),
        TEST(requests_fit_the_device),
        TEST(the_partition_table_is_read_at_boot),
        TEST(one_wrong_byte_is_noticed_and_not_written_back),
        TEST(a_change_on_the_disk_is_found_by_verifying),
        TEST(the_list_of_mismatches_keeps_the_last_ones),
        TEST(a_wrong_place_that_is_read_often_is_listed_once),
        TEST(errors_are_counted_and_leave_old_or_new),
        TEST(failed_writes_of_preserve_do_no_harm),
        TEST(a_broken_disk_does_not_keep_the_guest_busy),
        TEST(reading_that_fails_is_no_success_of_verifying),
        TEST(a_disk_that_does_not_come_up_cannot_be_verified),
        TEST(a_disk_that_shrank_is_verified_to_its_end),
        TEST(a_disk_that_grows_at_work_is_followed),
        TEST(wrong_words_change_nothing),
        TEST(a_disk_that_does_not_come_up_is_tried_again_with_cont),
        TEST(an_unreadable_partition_table_does_not_stop_the_guest),
        TEST(resets_lose_nothing_that_was_acknowledged),
        TEST(a_reset_ends_requests_that_hang),
        TEST(resets_do_not_hurt_a_preserved_disk),
        TEST(verifying_a_machine_that_was_reset_boots_it),
        TEST(a_reset_in_the_middle_of_verifying_is_survived),
        TEST(a_stopped_guest_is_silent),
        TEST(a_guest_may_be_stopped_before_the_machine_runs),
        TEST(settings_change_while_it_runs_and_knowledge_stays),
        TEST(frequent_changes_are_no_problem),
        TEST(stop_waits_for_what_is_in_flight),
        TEST(unknown_disks_are_named),
        TEST(words_before_the_disks_exist_are_kept_for_them),
        TEST(latencies_are_those_of_the_disk),
        TEST(stalls_count_but_not_while_the_machine_stands_still),
        TEST(a_disk_that_takes_no_time_does_not_stop_the_clock),
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(it_works_on_the_real_clock),
        TEST(somebody_else_may_write_while_the_guest_is_held_off),
        TEST(a_disk_that_changes_its_size_is_followed),
        TEST(a_guest_can_be_taken_away_at_work),
        TEST(requests_that_wait_for_cont_do_not_keep_anybody),
        TEST(a_guest_that_gets_stuck_while_it_goes_does_not_keep_the_program),
        TEST(a_guest_can_be_taken_away_while_it_boots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
