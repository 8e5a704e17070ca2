/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's IDE driver on the real channels: boot, requests of every kind and form, two drives
 * that take turns, resets, shutdowns.
 */
#include "tests/unit/ide-rig.h"

#include "hw/guest.h"

static const struct guest_driver *const ops = &guest_ide_driver;
static void *drv[2];
static int result;

static CO_ENTRY void boot(void *arg)
{
    unsigned unit = (struct machine_device **)arg - rig.dev;

    result = 1;
    result = ops->co_boot(rig.dev[unit], &drv[unit]);
}

static CO_ENTRY void shut_down(void *arg)
{
    void **d = arg;

    ops->co_shutdown(*d);
    *d = NULL;
}

static void boot_unit(unsigned unit)
{
    loop_run_co(boot, &rig.dev[unit]);
    assert_int_equal(result, 0);
}

static int setup(void **state)
{
    rig_new(1);
    irq_attach(rig.dev[0]->irq, NULL, NULL);
    boot_unit(0);
    return 0;
}

static int setup_two(void **state)
{
    rig_new(2);
    irq_attach(rig.dev[0]->irq, NULL, NULL);
    boot_unit(0);
    boot_unit(1);
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        if (drv[i]) {
            loop_run_co(shut_down, &drv[i]);
        }
    }
    assert_int_equal(alternate() & (IDE_ST_BSY | IDE_ST_DRQ), 0);
    return rig_teardown(state);
}

/* --- Requests --------------------------------------------------------------------------------- */

struct call {
    struct guest_request req;
    unsigned unit;
    int result;
    bool done;
};

static CO_ENTRY void call_entry(void *arg)
{
    struct call *c = arg;

    c->result = ops->co_request(drv[c->unit], &c->req);
    c->done = true;
}

static int run_at(unsigned unit, enum guest_op op, uint64_t offset, uint64_t len, uint64_t gpa)
{
    struct call c = {
        .req = { .op = op, .offset = offset, .len = len, .gpa = gpa }, .unit = unit,
    };

    loop_run_co(call_entry, &c);
    return c.result;
}

static int run(enum guest_op op, uint64_t offset, uint64_t len)
{
    return run_at(0, op, offset, len, rig.data);
}

static struct call read_call(unsigned unit)
{
    return (struct call){
        .req = { .op = GUEST_READ, .offset = 8 * S, .len = S, .gpa = rig.data + unit * 4096 },
        .unit = unit,
        .result = 1,
    };
}

static struct ide_drive *drive(unsigned unit)
{
    return CONTAINER_OF(rig.dev[unit], struct ide_drive, dev);
}

static void boot_learns_the_drive(void **state)
{
    assert_int_equal(ops->capacity(drv[0]), DISK_SECTORS * S);
    assert_false(ops->read_only(drv[0]));
    assert_int_equal(ops->depth(drv[0]), 1);
    assert_int_equal(ops->max_bytes(drv[0]), 1 << 20);
    assert_true(ops->can(drv[0], GUEST_READ));
    assert_true(ops->can(drv[0], GUEST_WRITE));
    assert_true(ops->can(drv[0], GUEST_FLUSH));
    assert_true(ops->can(drv[0], GUEST_DISCARD));
    assert_false(ops->can(drv[0], GUEST_ZERO));
}

static void boot_sets_up_the_drive(void **state)
{
    assert_int_equal(drive(0)->dma_mode, IDE_MODE_UDMA | 5);
    assert_int_equal(drive(0)->multiple, 16);
    assert_true(drive(0)->keeps_settings);
    assert_true(drive(0)->write_cache);
    assert_int_equal(disk0.calls[DISK_READ] + disk0.calls[DISK_WRITE], 0);
}

static void boot_leaves_the_cache_as_the_machine_has_it(void **state)
{
    loop_run_co(shut_down, &drv[0]);
    drive(0)->write_cache = false;
    boot_unit(0);
    assert_false(drive(0)->write_cache);
}

static void a_place_without_a_drive_does_not_boot(void **state)
{
    struct machine_device nobody = { .irq = rig.dev[0]->irq, .unit = 1 };
    struct irq_line line = { 0 };
    struct machine_device nothing = { .irq = &line, .channel = 1 };

    rig.dev[1] = &nobody;
    loop_run_co(boot, &rig.dev[1]);
    assert_int_equal(result, -ENODEV);
    rig.dev[1] = &nothing;
    loop_run_co(boot, &rig.dev[1]);
    assert_int_equal(result, -ENODEV);
    rig.dev[1] = NULL;
    assert_int_equal(run(GUEST_READ, 0, S), 0);
}

static void every_operation_works(void **state)
{
    assert_int_equal(run(GUEST_READ, 8192, 4096), 0);
    assert_memory_equal(rig.data_p, disk0.bytes + 8192, 4096);
    memset(rig.data_p, 0xa5, 65536);
    assert_int_equal(run(GUEST_WRITE, 65536, 65536), 0);
    assert_memory_equal(disk0.bytes + 65536, rig.data_p, 65536);
    assert_int_equal(run(GUEST_FLUSH, 0, 0), 0);
    assert_int_equal(run(GUEST_FLUSH, 0, 0), 0);
    assert_int_equal(disk0.calls[DISK_FLUSH], 2);
    assert_int_equal(run(GUEST_DISCARD, 0, 4096), 0);
    assert_int_equal(disk0.bytes[4095], 0xdd);
    assert_int_not_equal(disk0.bytes[4096], 0xdd);
    assert_int_equal(run(GUEST_ZERO, 0, 4096), -EIO);
    assert_int_equal(run(GUEST_READ, 0, 0), 0);
}

/* 256 transfers of each kind and length: DMA, SECTORS and MULTIPLE, in both forms. */
static void all_forms_move_the_same_bytes(void **state)
{
    static const uint32_t lens[] = { S, 3 * S, 4096, 33 * S, 65536, 200000 / S * S };

    for (unsigned l = 0; l < ARRAY_SIZE(lens); l++) {
        for (unsigned i = 0; i < 256; i++) {
            uint64_t at = i * 5 * S;

            memset(rig.data_p, i, lens[l]);
            store_le32(rig.data_p + lens[l] - 4, i * 77);
            assert_int_equal(run(GUEST_WRITE, at, lens[l]), 0);
            assert_memory_equal(disk0.bytes + at, rig.data_p, lens[l]);
            memset(rig.data_p, ~i, lens[l]);
            i++;
            assert_int_equal(run(GUEST_READ, at, lens[l]), 0);
            assert_memory_equal(disk0.bytes + at, rig.data_p, lens[l]);
        }
    }
}

static void every_form_has_its_share(void **state)
{
    static const uint8_t codes[] = {
        IDE_CMD_READ, IDE_CMD_READ_EXT, IDE_CMD_READ_MULTIPLE, IDE_CMD_READ_MULTIPLE_EXT,
        IDE_CMD_WRITE, IDE_CMD_WRITE_EXT, IDE_CMD_WRITE_MULTIPLE, IDE_CMD_WRITE_MULTIPLE_EXT,
    };

    for (unsigned i = 0; i < 1024; i++) {
        assert_int_equal(run(i < 512 ? GUEST_WRITE : GUEST_READ, i * S, 16 * S), 0);
        assert_int_equal(run(GUEST_FLUSH, 0, 0), 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        assert_int_equal(commands_seen[codes[i]], 4);
    }
    assert_true(commands_seen[IDE_CMD_READ_DMA] > 200 && commands_seen[IDE_CMD_WRITE_DMA] > 200);
    assert_true(commands_seen[IDE_CMD_READ_DMA_EXT] > 200);
    assert_true(commands_seen[IDE_CMD_WRITE_DMA_EXT] > 200);
    assert_int_equal(commands_seen[IDE_CMD_FLUSH], 512);
    assert_int_equal(commands_seen[IDE_CMD_FLUSH_EXT], 512);
}

static void a_request_may_be_a_mebibyte(void **state)
{
    uint64_t gpa = guest_alloc(1 << 20);

    assert_int_equal(run_at(0, GUEST_READ, S, 1 << 20, gpa), 0);
    assert_memory_equal(memory_map(gpa, 1 << 20), disk0.bytes + S, 1 << 20);
    assert_int_equal(disk0.calls[DISK_READ], 1);
}

static void a_buffer_may_lie_across_64_kib(void **state)
{
    uint64_t gpa = ROUND_UP(rig.data, (uint64_t)65536) + 65536 - 1024;

    assert_int_equal(run_at(0, GUEST_READ, 5 * S, 65536 + 2048, gpa), 0);
    assert_memory_equal(memory_map(gpa, 65536 + 2048), disk0.bytes + 5 * S, 65536 + 2048);
}

/* Real bus masters wrap there. */
static void no_entry_of_a_table_crosses_64_kib(void **state)
{
    uint64_t gpa = rig.data + 1024;
    uint32_t table, total = 0, second = 0;

    assert_int_equal(run_at(0, GUEST_READ, 5 * S, 65536 * 2, gpa), 0);
    table = bm_in(IDE_BM_PRD, 4);
    for (; !(second & IDE_PRD_END); table += 8) {
        uint32_t base = load_le32(memory_map(table, 8)), count;

        second = load_le32(memory_map(table + 4, 4));
        assert_int_equal(second & 0x7fff0000, 0);
        count = second & 0xffff ? second & 0xffff : 0x10000;
        assert_int_equal(base >> 16, (base + count - 1) >> 16);
        assert_int_equal(base, gpa + total);
        total += count;
    }
    assert_int_equal(total, 65536 * 2);
}

static void beyond_28_bits_requests_take_the_long_form(void **state)
{
    loop_run_co(shut_down, &drv[0]);
    disk_make(0, 1ull << 40, false);
    boot_unit(0);
    for (unsigned i = 0; i < 128; i++) {
        assert_int_equal(run(GUEST_READ, (0x1234567890ull + i) * S, 8 * S), 0);
        assert_true(disk0.offset == (0x1234567890ull + i) * S);
        assert_int_equal(run(GUEST_READ, ((1u << 28) - 2) * (uint64_t)S, 4 * S), 0);
        assert_true(disk0.offset == ((1u << 28) - 2) * (uint64_t)S);
    }
}

static void long_ranges_are_trimmed_in_parts(void **state)
{
    disk_make(0, 1ull << 40, false);
    loop_run_co(shut_down, &drv[0]);
    boot_unit(0);
    assert_int_equal(run(GUEST_DISCARD, S, (40ull << 30)), 0);
    assert_int_equal(disk0.calls[DISK_UNMAP], 3); /* of 512 * 65535 sectors */
    assert_true(disk0.offset + disk0.len == (40ull << 30) + S);
}

static void errors_of_the_drive_are_eio(void **state)
{
    disk0.error = -ENOSPC;
    for (unsigned i = 0; i < 130; i++) { /* in every form */
        assert_int_equal(run(GUEST_WRITE, 0, 4096), -EIO);
    }
    for (unsigned i = 0; i < 130; i++) {
        assert_int_equal(run(GUEST_READ, 0, 4096), -EIO);
    }
    assert_int_equal(run(GUEST_FLUSH, 0, 0), -EIO);
    assert_int_equal(run(GUEST_FLUSH, 0, 0), -EIO);
    assert_int_equal(run(GUEST_DISCARD, 0, S), -EIO);
    disk0.error = 0;
    assert_int_equal(run(GUEST_READ, DISK_SECTORS * S, S), -EIO);
    assert_int_equal(run(GUEST_DISCARD, DISK_SECTORS * S, S), -EIO);
    assert_int_equal(run(GUEST_READ, 0, 4096), 0);
    assert_memory_equal(rig.data_p, disk0.bytes, 4096);
}

/* --- Many at once ----------------------------------------------------------------------------- */

static void run_many(unsigned units)
{
    enum { COUNT = 400 };
    static struct call calls[COUNT];
    uint64_t gpa = guest_alloc(COUNT * S);

    disk0.slow = disk1.slow = true;
    for (unsigned i = 0; i < COUNT; i++) {
        calls[i] = (struct call){
            .req = { .op = GUEST_READ, .offset = i * S, .len = S, .gpa = gpa + i * S },
            .unit = i % units,
            .result = 1,
        };
        co_start(call_entry, &calls[i]);
    }
    settle();
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(calls[i].result, 0);
        assert_memory_equal(memory_map(gpa + i * S, S), disks[i % units].bytes + i * S, S);
    }
}

static void many_requests_wait_their_turn(void **state)
{
    run_many(1);
}

static void two_drives_take_turns(void **state)
{
    run_many(2);
}

struct worker {
    unsigned unit, requests;
};

static CO_ENTRY void worker_entry(void *arg)
{
    struct worker *w = arg;

    while (!disk0.hold) {
        struct call c = read_call(w->unit);

        call_entry(&c);
        assert_int_equal(c.result, 0);
        w->requests++;
        if (w->requests == 1000) {
            disk0.hold = true;
        }
    }
}

/* One who comes back at once does not overtake one who waits. */
static void turns_are_fair(void **state)
{
    struct worker a = { 0 }, b = { .unit = 1 };

    co_start(worker_entry, &a);
    co_start(worker_entry, &b);
    settle();
    release(&disk0);
    settle();
    assert_true(a.requests >= 999 && b.requests >= 999);
}

static void the_second_boot_does_not_disturb_the_first_drive(void **state)
{
    struct call c = read_call(0);
    uint64_t resets = rig.ch->epoch;

    loop_run_co(shut_down, &drv[1]);
    disk0.hold = true;
    co_start(call_entry, &c);
    settle();
    co_start(boot, &rig.dev[1]);
    settle();
    assert_int_equal(result, 1); /* it waits for its turn */
    release(&disk0);
    settle();
    assert_int_equal(result, 0);
    assert_int_equal(c.result, 0);
    assert_int_equal(rig.ch->epoch, resets);
}

/* --- Resets ----------------------------------------------------------------------------------- */

static CO_ENTRY void reset_machine(void *arg)
{
    co_machine_reset();
    /* What the guest does when it hears of it. */
    for (unsigned i = 0; i < 2; i++) {
        if (drv[i]) {
            ops->abort(drv[i]);
        }
    }
}

static void a_reset_of_the_machine_ends_what_waits(void **state)
{
    struct call calls[20];

    disk0.hold = true;
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
        calls[i] = read_call(i % 2);
        co_start(call_entry, &calls[i]);
    }
    settle();
    co_start(reset_machine, NULL);
    settle();
    release(&disk0);
    settle();
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
        assert_true(calls[i].done);
        assert_int_equal(calls[i].result, -ECANCELED);
    }
    assert_int_equal(run(GUEST_READ, 0, S), -ECANCELED);
    for (unsigned i = 0; i < 2; i++) {
        loop_run_co(shut_down, &drv[i]);
        boot_unit(i);
    }
    run_many(2);
}

static CO_ENTRY void reset_in_turns(void *arg)
{
    for (unsigned turns = *(unsigned *)arg; turns; turns--) {
        co_yield();
    }
    reset_machine(NULL);
}

/* In each form of a transfer, between any two turns of the loop.  Of a write, the sectors may be
 * on the disk or not, and all others are as they were. */
static void a_reset_of_the_machine_comes_at_any_time(void **state)
{
    static const unsigned before[] = { 0, 1, 31, 63, 95, 127 }; /* this many: see hw/guest-ide.c */
    uint8_t *old = mem_dup(disk0.bytes, disk0.size);
    unsigned ended = 0, canceled = 0;

    disk0.slow = true;
    for (unsigned n = 0; n < 6 * 2 * 24; n++) {
        struct call c = read_call(0);
        unsigned turns = n % 24;

        for (unsigned i = 0; i < before[n / 48]; i++) {
            assert_int_equal(run(GUEST_READ, 0, S), 0);
        }
        c.req.op = n / 24 % 2 ? GUEST_WRITE : GUEST_READ;
        c.req.len = 3 * S;
        memset(rig.data_p, 0xee, 3 * S);
        co_start(call_entry, &c);
        loop_run_co(reset_in_turns, &turns);
        settle();
        assert_true(c.done);
        ended += c.result == 0;
        canceled += c.result == -ECANCELED;
        memcpy(disk0.bytes + 8 * S, old + 8 * S, 3 * S);
        assert_memory_equal(disk0.bytes, old, disk0.size);
        loop_run_co(shut_down, &drv[0]);
        boot_unit(0);
    }
    assert_int_equal(ended + canceled, 6 * 2 * 24);
    assert_true(ended > 50 && canceled > 50);
    free(old);
}

static void a_reset_of_the_machine_ends_a_boot(void **state)
{
    loop_run_co(shut_down, &drv[0]);
    co_start(boot, &rig.dev[0]); /* SRST is set */
    assert_int_equal(result, 1);
    loop_run_co(reset_machine, NULL);
    settle();
    assert_int_equal(result, -ECANCELED);
    assert_null(drv[0]);
    boot_unit(0);
    assert_int_equal(run(GUEST_READ, 0, S), 0);
}

/* The device is reset, and the driver has not heard of it: a request gets through all the same. */
static CO_ENTRY void reset_device(void *arg)
{
    rig.dev[0]->kind->co_reset(rig.dev[0]);
}

static void a_drive_that_forgot_its_settings_still_works(void **state)
{
    loop_run_co(reset_device, NULL);
    for (unsigned i = 0; i < 256; i++) {
        memset(rig.data_p, 0, 4096);
        assert_int_equal(run(GUEST_READ, i * S, 4096), 0);
        assert_memory_equal(rig.data_p, disk0.bytes + i * S, 4096);
    }
}

/* --- A drive that is busy --------------------------------------------------------------------- */

/* The firmware's command, which no driver has given: the drive is busy until the host is done. */
static void begin_firmware_command(void)
{
    disk0.hold = true;
    select_unit(0);
    begin28(0xe7, 0, 0); /* flush */
    assert_true(alternate() & IDE_ST_BSY);
}

static void a_request_waits_until_the_drive_is_ready(void **state)
{
    struct call c = read_call(0);

    begin_firmware_command();
    co_start(call_entry, &c);
    settle();
    assert_false(c.done);
    release(&disk0);
    settle();
    settle();
    assert_true(c.done);
    assert_int_equal(c.result, 0);
}

static void a_drive_that_stays_busy_is_given_up(void **state)
{
    struct call c = read_call(0);

    begin_firmware_command();
    co_start(call_entry, &c);
    for (unsigned i = 0; i < 10 && !c.done; i++) {
        settle();
    }
    assert_true(c.done);
    assert_int_equal(c.result, -EIO);
    release(&disk0);
    settle();
    assert_int_equal(run(GUEST_READ, 0, S), 0);
}

static void who_waits_for_a_busy_drive_can_be_told_to_stop(void **state)
{
    struct call c = read_call(0);

    begin_firmware_command();
    co_start(call_entry, &c);
    settle();
    ops->abort(drv[0]);
    settle();
    assert_int_equal(c.result, -ECANCELED);
    release(&disk0);
    settle();
}

/* --- Shutdown --------------------------------------------------------------------------------- */

static void a_shutdown_waits_for_the_host(void **state)
{
    struct call c = read_call(0);

    disk0.hold = true;
    co_start(call_entry, &c);
    settle();
    co_start(shut_down, &drv[0]);
    settle();
    assert_non_null(drv[0]);
    assert_true(disk0.cancelling); /* a request that waits for `cont` would fail now */
    release(&disk0);
    settle();
    assert_null(drv[0]);
    assert_int_equal(c.result, -ECANCELED);
    assert_int_equal(alternate(), READY);
}

static void a_shutdown_in_the_middle_of_pio(void **state)
{
    struct call c = read_call(0);

    for (unsigned i = 0; i < 63; i++) {
        assert_int_equal(run(GUEST_READ, 0, S), 0);
    }
    disk0.hold = true;
    c.req.op = GUEST_WRITE;
    c.req.len = 4 * S;
    co_start(call_entry, &c);
    settle();
    assert_int_equal(disk0.calls[DISK_WRITE], 1);
    co_start(shut_down, &drv[0]);
    release(&disk0);
    settle();
    assert_null(drv[0]);
    assert_int_equal(c.result, -ECANCELED);
    boot_unit(0);
    assert_int_equal(run(GUEST_READ, 0, S), 0);
}

static void a_shutdown_leaves_the_other_drive_alone(void **state)
{
    struct call c = read_call(0), other = read_call(1);

    disk0.hold = true;
    co_start(call_entry, &c);
    co_start(call_entry, &other);
    settle();
    co_start(shut_down, &drv[0]);
    settle();
    release(&disk0);
    settle();
    assert_null(drv[0]);
    assert_int_equal(c.result, -ECANCELED);
    assert_int_equal(other.result, 0);
    assert_int_equal(drive(1)->multiple, 16);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(run_at(1, GUEST_READ, i * S, 4096, rig.data), 0);
        assert_memory_equal(rig.data_p, disk1.bytes + i * S, 4096);
    }
}

/* The other drive's request may wait for the operator; that is no reason to wait for it. */
static void a_shutdown_does_not_wait_for_the_other_drive(void **state)
{
    struct call c = read_call(0), other = read_call(1);

    disk1.hold = true;
    co_start(call_entry, &other);
    co_start(call_entry, &c);
    settle();
    loop_run_co(shut_down, &drv[0]);
    assert_int_equal(c.result, -ECANCELED);
    assert_false(other.done);
    release(&disk1);
    settle();
    assert_int_equal(other.result, 0);
}

static void guest_memory_is_given_back(void **state)
{
    uint64_t before, after;

    loop_run_co(shut_down, &drv[0]);
    before = guest_alloc(4096);
    boot_unit(0);
    loop_run_co(shut_down, &drv[0]);
    after = guest_alloc(4096);
    assert_int_equal(after, before + 4096);
}

#define DRV(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define DRVS(name) cmocka_unit_test_setup_teardown(name, setup_two, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DRV(boot_learns_the_drive),
        DRV(boot_sets_up_the_drive),
        DRV(boot_leaves_the_cache_as_the_machine_has_it),
        DRV(a_place_without_a_drive_does_not_boot),
        DRV(every_operation_works),
        DRV(all_forms_move_the_same_bytes),
        DRV(every_form_has_its_share),
        DRV(a_request_may_be_a_mebibyte),
        DRV(a_buffer_may_lie_across_64_kib),
        DRV(no_entry_of_a_table_crosses_64_kib),
        DRV(beyond_28_bits_requests_take_the_long_form),
        DRV(long_ranges_are_trimmed_in_parts),
        DRV(errors_of_the_drive_are_eio),
        DRV(many_requests_wait_their_turn),
        DRVS(two_drives_take_turns),
        DRVS(turns_are_fair),
        DRVS(the_second_boot_does_not_disturb_the_first_drive),
        DRVS(a_reset_of_the_machine_ends_what_waits),
        DRV(a_reset_of_the_machine_comes_at_any_time),
        DRV(a_reset_of_the_machine_ends_a_boot),
        DRV(a_drive_that_forgot_its_settings_still_works),
        DRV(a_request_waits_until_the_drive_is_ready),
        DRV(a_drive_that_stays_busy_is_given_up),
        DRV(who_waits_for_a_busy_drive_can_be_told_to_stop),
        DRV(a_shutdown_waits_for_the_host),
        DRV(a_shutdown_in_the_middle_of_pio),
        DRVS(a_shutdown_leaves_the_other_drive_alone),
        DRVS(a_shutdown_does_not_wait_for_the_other_drive),
        DRV(guest_memory_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
