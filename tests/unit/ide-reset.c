/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE and resets: by software and of the machine, at any moment of a command; and drivers that do
 * whatever comes into their heads.
 */
#include "tests/unit/ide-rig.h"

static uint8_t buffer[256 * S];

static CO_ENTRY void hard_reset(void *arg)
{
    struct machine_device *dev = arg;

    dev->kind->co_reset(dev);
    rig.unit = 0;
}

static bool busy(void)
{
    return alternate() & IDE_ST_BSY;
}

static void assert_reset(void)
{
    assert_int_equal(alternate(), READY);
    assert_int_equal(in(IDE_ERROR), 1);
    assert_int_equal(in(IDE_NSECTOR), 1);
    assert_int_equal(in(IDE_LBA_LOW), 1);
    assert_int_equal(in(IDE_LBA_MID), 0);
    assert_int_equal(in(IDE_LBA_HIGH), 0);
    assert_int_equal(in(IDE_DEVICE), IDE_DEV_FIXED);
    assert_false(rig.dev[0]->irq->level);
    assert_false(disk0.cancelling);
}

/* --- Software reset --------------------------------------------------------------------------- */

static void a_software_reset_shows_the_signature(void **state)
{
    begin28(IDE_CMD_READ, DISK_SECTORS, 1);
    settle();
    srst();
    assert_reset();
    assert_alive();
}

static void a_drive_is_busy_while_srst_is_set(void **state)
{
    control(IDE_CTL_SRST);
    settle();
    assert_int_equal(alternate(), IDE_ST_BSY);
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    assert_int_equal(disk0.calls[DISK_FLUSH], 0);
    control(IDE_CTL_SRST); /* still */
    assert_true(busy());
    control(0);
    assert_reset();
}

static void a_software_reset_selects_the_first_drive(void **state)
{
    select_unit(1);
    begin28(IDE_CMD_NOP, 0, 0);
    settle();
    srst();
    assert_reset();
    select_unit(1);
    assert_int_equal(alternate(), READY);
    assert_int_equal(in(IDE_ERROR), 1);
    assert_alive();
}

static void a_drive_is_busy_until_the_host_is_done(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    srst();
    assert_true(busy());
    assert_true(disk0.cancelling);
    begin28(IDE_CMD_FLUSH, 0, 0); /* nobody hears it */
    settle();
    rig.interrupts = 0;
    release(&disk0);
    settle();
    assert_int_equal(rig.interrupts, 0);
    assert_int_equal(disk0.calls[DISK_FLUSH], 1);
    assert_reset();
    assert_alive();
}

/* A diagnosis is heard by the second drive although the first one is selected, which is not there. */
static void a_second_drive_alone_begins_nothing_during_a_reset(void **state)
{
    disk_make(1, DISK_SECTORS, true);
    rig.dev[1] = ide_disk_new(&disk1.disk, 1, 1, NULL);
    irq_attach(rig.dev[1]->irq, rig_interrupt, NULL);
    rig.channel = 1;
    rig.interrupts = commands_seen[IDE_CMD_DIAGNOSTIC] = 0;
    control(IDE_CTL_SRST);
    out(IDE_COMMAND, IDE_CMD_DIAGNOSTIC);
    settle();
    control(0);
    settle();
    assert_int_equal(commands_seen[IDE_CMD_DIAGNOSTIC], 0);
    assert_int_equal(rig.interrupts, 0);
    out(IDE_COMMAND, IDE_CMD_DIAGNOSTIC);
    settle();
    assert_int_equal(commands_seen[IDE_CMD_DIAGNOSTIC], 1);
}

static void a_reset_takes_the_interrupt_back(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_true(rig.dev[0]->irq->level);
    srst();
    assert_reset();
    control(IDE_CTL_NIEN);
    control(0);
    assert_false(rig.dev[0]->irq->level);
}

static void a_reset_before_the_command_began(void **state)
{
    begin28(IDE_CMD_FLUSH, 0, 0);
    control(IDE_CTL_SRST);
    control(0);
    assert_true(busy());
    settle();
    assert_int_equal(disk0.calls[DISK_FLUSH], 0);
    assert_reset();
    assert_alive();
}

static void many_resets_are_one(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    for (unsigned i = 0; i < 10; i++) {
        srst();
    }
    assert_true(busy());
    release(&disk0);
    settle();
    assert_reset();
    assert_alive();
}

/* --- In the middle of data -------------------------------------------------------------------- */

static void a_reset_ends_a_pio_read(void **state)
{
    begin28(IDE_CMD_READ, 3, 10);
    settle();
    assert_asks();
    port_in(buffer, 100, 2);
    srst();
    assert_reset();
    assert_int_equal(machine_port_in(IDE_PORT(0), 2), 0);
    assert_alive();
}

static void a_reset_between_two_blocks_ends_a_pio_read(void **state)
{
    begin28(IDE_CMD_READ, 3, 10);
    settle();
    assert_asks();
    port_in(buffer, S, 2);
    control(IDE_CTL_SRST); /* before the drive has the next one ready */
    control(0);
    settle();
    assert_reset();
    assert_alive();
}

/* Whatever was given, no sector is written: not where it was to go, and not at sector 0. */
static void a_reset_ends_a_pio_write(void **state)
{
    static const unsigned given[] = { 0, 2, S - 2, S, S + 2, 5 * S };

    for (unsigned i = 0; i < ARRAY_SIZE(given); i++) {
        memset(buffer, 0xee, sizeof(buffer));
        begin28(IDE_CMD_WRITE, 50, 10);
        for (unsigned done = 0; done < given[i]; done += S) {
            settle();
            port_out(buffer, MIN(given[i] - done, S), 2);
        }
        srst();
        assert_reset();
        assert_int_equal(disk0.calls[DISK_WRITE], 0);
        port_out(buffer, S, 2); /* the port is closed */
        settle();
        assert_int_equal(disk0.calls[DISK_WRITE], 0);
        assert_alive();
    }
}

static void a_write_that_the_host_has_goes_where_it_was_told(void **state)
{
    uint8_t first[S];

    memcpy(first, disk0.bytes, S);
    memset(buffer, 0xee, S);
    disk0.hold = true;
    begin28(IDE_CMD_WRITE, 50, 1);
    settle();
    port_out(buffer, S, 2);
    settle();
    assert_int_equal(disk0.calls[DISK_WRITE], 1);
    srst();
    assert_true(busy());
    release(&disk0);
    settle();
    assert_reset();
    assert_int_equal(disk0.calls[DISK_WRITE], 1);
    assert_memory_equal(disk0.bytes + 50 * S, buffer, S);
    assert_memory_equal(disk0.bytes, first, S);
}

static void a_reset_between_two_pieces_of_a_long_write(void **state)
{
    memset(buffer, 0xee, sizeof(buffer));
    begin28(IDE_CMD_WRITE, 50, 200);
    for (unsigned i = 0; i < CHUNK; i++) {
        disk0.hold = true;
        settle();
        port_out(buffer, S, 8);
    }
    settle();
    assert_int_equal(disk0.calls[DISK_WRITE], 1);
    srst();
    release(&disk0);
    settle();
    assert_reset();
    assert_int_equal(disk0.written, CHUNK * S);
    assert_alive();
}

static void a_reset_ends_the_wait_for_the_bus_master(void **state)
{
    memset(rig.data_p, 0xee, S);
    begin28(IDE_CMD_WRITE_DMA, 50, 1);
    settle();
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    srst();
    assert_reset();
    entry(0, rig.data, S, true);
    start(false); /* for nobody */
    settle();
    assert_int_equal(disk0.calls[DISK_WRITE], 0);
    stop();
    assert_alive();
}

/* The table was for the command that the reset ended. */
static void a_reset_forgets_a_start_that_nobody_used(void **state)
{
    entry(0, rig.data, S, true);
    start(true);
    srst();
    begin28(IDE_CMD_READ_DMA, 50, 1);
    settle();
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    assert_int_equal(disk0.calls[DISK_READ], 0);
    stop();
    start(true);
    settle();
    assert_good();
}

static void a_reset_waits_for_dma(void **state)
{
    uint8_t first[S];

    memcpy(first, disk0.bytes, S);
    memset(rig.data_p, 0xee, 4 * S);
    disk0.hold = true;
    entry(0, rig.data, 4 * S, true);
    begin28(IDE_CMD_WRITE_DMA, 60, 4);
    start(false);
    settle();
    stop();
    rig.interrupts = 0;
    srst();
    assert_true(busy());
    release(&disk0);
    settle();
    assert_int_equal(rig.interrupts, 0);
    assert_reset();
    assert_int_equal(bm_status() & (IDE_BM_ST_IRQ | IDE_BM_ST_ERROR), 0);
    assert_memory_equal(disk0.bytes + 60 * S, rig.data_p, 4 * S);
    assert_memory_equal(disk0.bytes, first, S);
    assert_alive();
}

/* It is another chip: the driver stops it. */
static void a_software_reset_is_none_of_the_bus_master(void **state)
{
    disk0.hold = true;
    entry(0, rig.data, S, true);
    begin28(IDE_CMD_READ_DMA, 60, 1);
    start(true);
    settle();
    srst();
    release(&disk0);
    settle();
    assert_int_equal(bm_status(), IDE_BM_ST_ACTIVE);
    assert_int_equal(bm_in(IDE_BM_PRD, 4), rig.table);
    stop();
    assert_int_equal(bm_status(), 0);
    assert_alive();
}

static void after_busy_no_read_lands_in_memory(void **state)
{
    disk0.hold = true;
    entry(0, rig.data, 4 * S, true);
    begin28(IDE_CMD_READ_DMA, 60, 4);
    start(true);
    settle();
    stop();
    srst();
    release(&disk0);
    while (busy()) {
        settle();
    }
    memset(rig.data_p, 0x11, 4 * S);
    settle();
    for (unsigned i = 0; i < 4 * S; i++) {
        assert_int_equal(rig.data_p[i], 0x11);
    }
    assert_alive();
}

static void a_reset_ends_a_verify(void **state)
{
    disk0.hold = true;
    begin48(IDE_CMD_VERIFY_EXT, 0, 2000);
    settle();
    srst();
    release(&disk0);
    settle();
    assert_int_equal(disk0.calls[DISK_READ], 1);
    assert_reset();
}

static void a_reset_ends_trim(void **state)
{
    for (unsigned i = 0; i < 64; i++) {
        store_le64(rig.data_p + i * 8, 2 * i | 1ull << 48);
    }
    disk0.hold = true;
    entry(0, rig.data, S, true);
    out(IDE_FEATURE, 1);
    begin48(IDE_CMD_DSM, 0, 1);
    start(false);
    settle();
    assert_int_equal(disk0.calls[DISK_UNMAP], 1);
    stop();
    srst();
    release(&disk0);
    settle();
    assert_int_equal(disk0.calls[DISK_UNMAP], 1);
    assert_reset();
}

/* The last block of a read has passed, its coroutine has not returned yet, and the next command
 * has begun: two alive, one of them current. */
static void a_reset_finds_two_commands(void **state)
{
    begin28(IDE_CMD_READ, 3, 1);
    settle();
    assert_asks();
    port_in(buffer, S, 2);
    begin28(IDE_CMD_READ, 4, 1);
    assert_int_equal(rig.ch->running, 2);
    control(IDE_CTL_SRST);
    control(0);
    assert_true(busy());
    settle();
    assert_reset();
    assert_alive();
}

/* --- Settings --------------------------------------------------------------------------------- */

static void set(void)
{
    run28(IDE_CMD_SET_MULTIPLE, 0, 4);
    set_features(IDE_FEATURE_TRANSFER_MODE, IDE_MODE_UDMA | 2);
    set_features(IDE_FEATURE_CACHE_OFF, 0);
    out(IDE_DEVICE, 3);
    out(IDE_NSECTOR, 10);
    out(IDE_COMMAND, IDE_CMD_INIT_PARAMS);
    settle();
}

static uint16_t word(unsigned at)
{
    begin28(IDE_CMD_IDENTIFY, 0, 0);
    take_blocks(buffer, 1, 1);
    return load_le16(buffer + 2 * at);
}

static void a_software_reset_brings_defaults_back(void **state)
{
    set();
    srst();
    assert_int_equal(word(59), 0);
    assert_int_equal(word(88), 0x003f);
    assert_int_equal(word(55), 16);
    assert_int_equal(word(56), 63);
}

static void a_software_reset_leaves_the_cache_off(void **state)
{
    set();
    srst();
    assert_int_equal(word(85) & 1 << 5, 0);
    dma28(IDE_CMD_WRITE_DMA, 1, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 2);
}

static void settings_may_outlive_a_software_reset(void **state)
{
    set();
    set_features(IDE_FEATURE_KEEP, 0);
    srst();
    assert_int_equal(word(59), 0x0104);
    assert_int_equal(word(88), 0x043f);
    assert_int_equal(word(55), 4);
    set_features(IDE_FEATURE_REVERT, 0);
    srst();
    assert_int_equal(word(59), 0);
}

static void a_reset_of_the_machine_leaves_nothing(void **state)
{
    set();
    set_features(IDE_FEATURE_KEEP, 0);
    control(IDE_CTL_NIEN | IDE_CTL_HOB);
    bm_out(IDE_BM_PRD, rig.table, 4);
    bm_out(IDE_BM_COMMAND, IDE_BM_CMD_START, 1);
    loop_run_co(hard_reset, rig.dev[0]);
    assert_reset();
    assert_int_equal(bm_in(IDE_BM_COMMAND, 1), 0);
    assert_int_equal(bm_in(IDE_BM_PRD, 4), 0);
    assert_int_equal(bm_status(), 0);
    assert_int_equal(word(59), 0);
    assert_int_equal(word(88), 0x003f);
    assert_int_equal(word(55), 16);
    assert_int_equal(word(85) & 1 << 5, 1 << 5);
    run28(IDE_CMD_SET_MULTIPLE, 0, 4);
    srst();
    assert_int_equal(word(59), 0); /* what was to be kept is not kept any more */
}

/* --- Reset of the machine --------------------------------------------------------------------- */

static bool done;

static CO_ENTRY void hard_reset_and_tell(void *arg)
{
    done = false;
    hard_reset(arg);
    done = true;
}

static void a_reset_of_the_machine_waits_for_the_host(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    co_start(hard_reset_and_tell, rig.dev[0]);
    settle();
    assert_false(done);
    assert_true(busy());
    assert_true(disk0.cancelling);
    release(&disk0);
    settle();
    assert_true(done);
    assert_reset();
    assert_alive();
}

static void the_second_drive_is_waited_for_too(void **state)
{
    disk1.hold = true;
    select_unit(1);
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    co_start(hard_reset_and_tell, rig.dev[0]);
    settle();
    assert_false(done);
    release(&disk1);
    settle();
    assert_true(done);
    assert_reset();
    assert_false(disk1.cancelling);
}

static void srst_does_not_hold_up_a_reset_of_the_machine(void **state)
{
    control(IDE_CTL_SRST);
    loop_run_co(hard_reset, rig.dev[0]);
    assert_reset();
    assert_alive();
}

static CO_ENTRY void give_commands(void *arg)
{
    while (!done) {
        out(IDE_COMMAND, IDE_CMD_READ_DMA); /* would wait for the bus master for ever */
        co_yield();
    }
}

/* A guest that does not know of the reset yet cannot get in between its parts. */
static void no_command_slips_into_a_reset_of_the_machine(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    co_start(hard_reset_and_tell, rig.dev[0]);
    co_start(hard_reset_and_tell, rig.dev[0]);
    co_start(give_commands, NULL);
    release(&disk0);
    settle();
    assert_true(done);
    srst();
    assert_alive();
}

static void a_drive_may_go_in_the_middle_of_a_command(void **state)
{
    static const uint8_t codes[] = { IDE_CMD_READ, IDE_CMD_WRITE, IDE_CMD_READ_DMA };

    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        begin28(codes[i], 3, 2);
        settle();
        loop_run_co(rig_remove, rig.dev[0]);
        assert_int_equal(alternate(), 0xff);
        rig.dev[0] = ide_disk_new(&disk0.disk, 0, 0, NULL);
        irq_attach(rig.dev[0]->irq, rig_interrupt, NULL);
    }
    rig.ch = CONTAINER_OF(rig.dev[0], struct ide_drive, dev)->channel;
    assert_int_equal(disk0.calls[DISK_WRITE], 0);
    assert_alive();
}

static void a_drive_may_go_before_the_other(void **state)
{
    loop_run_co(rig_remove, rig.dev[0]);
    rig.dev[0] = NULL;
    assert_int_equal(alternate(), 0);
    select_unit(1);
    assert_alive();
}

/* --- Any driver ------------------------------------------------------------------------------- */

/* Mostly what makes sense a little, so that commands get somewhere. */
static void random_table(void)
{
    unsigned n = 1 + loop_random_below(20);

    for (unsigned i = 0; i < n; i++) {
        uint64_t addr = rig.data + loop_random_below(BUFFER);

        if (loop_random_below(50) == 0) {
            addr = loop_random();
        }
        entry(i, addr, loop_random_below(4) ? S << loop_random_below(8) : loop_random(),
              i == n - 1 && loop_random_below(10));
    }
}

static void random_trim(void)
{
    for (unsigned i = 0; i < 64; i++) {
        store_le64(rig.data_p + i * 8, loop_random_below(DISK_SECTORS) |
                                           (loop_random_below(8) ? 0 : 1ull << 48));
    }
    entry(0, rig.data, S, true);
    out(IDE_FEATURE, 1);
    begin48(IDE_CMD_DSM, 0, 1);
    start(false);
}

static void random_command(void)
{
    static const uint8_t features[] = { 1, 2, 3, 0x66, 0x82, 0xcc };
    uint8_t code = commands[loop_random_below(ARRAY_SIZE(commands))].code;

    out(IDE_FEATURE, features[loop_random_below(sizeof(features))]);
    rig.unit = loop_random_below(2);
    if (loop_random_below(2)) {
        begin28(code, loop_random_below(DISK_SECTORS + 10), loop_random_below(10));
    } else {
        begin48(code, loop_random_below(DISK_SECTORS + 10), loop_random_below(300));
    }
}

static void random_access_of(uint16_t base, unsigned len)
{
    unsigned size = 1u << loop_random_below(4), at = loop_random_below(len);

    if (loop_random_below(2)) {
        machine_port_in(base + at, size);
    } else {
        machine_port_out(base + at, loop_random(), size);
    }
}

static void random_step(void)
{
    switch (loop_random_below(25)) {
    case 0:
        random_access_of(IDE_PORT(0), 8);
        break;
    case 1:
        random_access_of(IDE_DMA_PORT(0), 8);
        break;
    case 2:
        control(loop_random() & ~(loop_random_below(4) ? IDE_CTL_SRST : 0));
        break;
    case 3 ... 6:
        port_in(buffer, loop_random_below(4) ? S : 2, 2);
        break;
    case 7 ... 10:
        port_out(buffer, loop_random_below(4) ? S : 2, 4);
        break;
    case 11 ... 13:
        random_table();
        start(loop_random_below(2));
        break;
    case 14:
        stop();
        break;
    case 15:
        disk0.error = loop_random_below(4) ? 0 : -EIO;
        disk1.hold = loop_random_below(2);
        release(loop_random_below(2) ? &disk0 : &disk1);
        break;
    case 16 ... 19:
        random_command();
        break;
    case 20:
        random_trim();
        break;
    case 21:
        if (loop_random_below(100) == 0) {
            co_start(hard_reset, rig.dev[loop_random_below(2)]);
        }
        break;
    default:
        co_yield();
    }
}

static CO_ENTRY void random_driver(void *arg)
{
    for (unsigned i = 0; i < 300000; i++) {
        random_step();
    }
}

static void no_driver_can_do_harm(void **state)
{
    disk0.slow = true;
    loop_run_co(random_driver, NULL);
    release(&disk0);
    release(&disk1);
    disk0.error = 0;
    disk0.slow = false;
    stop();
    settle();
    srst();
    assert_reset();
    assert_true(disk0.calls[DISK_READ] > 100 && disk0.calls[DISK_WRITE] > 100);
    assert_true(disk1.calls[DISK_READ] > 100 && disk1.calls[DISK_WRITE] > 100);
    assert_true(disk0.calls[DISK_UNMAP] > 10);
    assert_alive();
    select_unit(1);
    assert_alive();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_software_reset_shows_the_signature),
        ONE(a_drive_is_busy_while_srst_is_set),
        TWO(a_software_reset_selects_the_first_drive),
        ONE(a_drive_is_busy_until_the_host_is_done),
        ONE(a_second_drive_alone_begins_nothing_during_a_reset),
        ONE(a_reset_takes_the_interrupt_back),
        ONE(a_reset_before_the_command_began),
        ONE(many_resets_are_one),
        ONE(a_reset_ends_a_pio_read),
        ONE(a_reset_between_two_blocks_ends_a_pio_read),
        ONE(a_reset_ends_a_pio_write),
        ONE(a_write_that_the_host_has_goes_where_it_was_told),
        ONE(a_reset_between_two_pieces_of_a_long_write),
        ONE(a_reset_ends_the_wait_for_the_bus_master),
        ONE(a_reset_forgets_a_start_that_nobody_used),
        ONE(a_reset_waits_for_dma),
        ONE(a_software_reset_is_none_of_the_bus_master),
        ONE(after_busy_no_read_lands_in_memory),
        ONE(a_reset_ends_a_verify),
        ONE(a_reset_ends_trim),
        ONE(a_reset_finds_two_commands),
        ONE(a_software_reset_brings_defaults_back),
        ONE(a_software_reset_leaves_the_cache_off),
        ONE(settings_may_outlive_a_software_reset),
        ONE(a_reset_of_the_machine_leaves_nothing),
        ONE(a_reset_of_the_machine_waits_for_the_host),
        TWO(the_second_drive_is_waited_for_too),
        ONE(srst_does_not_hold_up_a_reset_of_the_machine),
        ONE(no_command_slips_into_a_reset_of_the_machine),
        ONE(a_drive_may_go_in_the_middle_of_a_command),
        TWO(a_drive_may_go_before_the_other),
        TWO(no_driver_can_do_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
