/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE as a well-behaved driver meets it: registers, IDENTIFY, PIO, settings, interrupts, two drives
 * on a channel.  Bus-master DMA: ide-dma.c; resets and worse drivers: ide-reset.c.
 */
#include "tests/unit/ide-rig.h"

static uint8_t buffer[256 * S];

/* Bytes that no disk holds. */
static void fill_buffer(size_t len)
{
    for (size_t i = 0; i < len; i++) {
        buffer[i] = 0xa5 ^ i ^ i >> 8;
    }
}

/* --- IDENTIFY --------------------------------------------------------------------------------- */

static uint16_t word(unsigned at)
{
    return load_le16(buffer + 2 * at);
}

static void identify(void)
{
    begin28(IDE_CMD_IDENTIFY, 0, 0);
    take_blocks(buffer, 1, 1);
}

static void text(char *to, unsigned at, unsigned words)
{
    for (unsigned i = 0; i < words * 2; i++) {
        to[i] = buffer[(at * 2 + i) ^ 1];
    }
    to[words * 2] = 0;
}

static void identify_says_what_it_is(void **state)
{
    char name[41];

    identify();
    assert_int_equal(word(0), 0x0040);
    assert_int_equal(word(47), 0x8010);
    assert_int_equal(word(49), 0x0f00);
    assert_int_equal(word(53) & 7, 7);
    assert_int_equal(word(63), 0x0007);
    assert_int_equal(word(80), 0x00f0);
    assert_int_equal(word(83), 0x7400);
    assert_int_equal(word(86), 0x3400);
    assert_int_equal(word(88), 0x003f);
    assert_int_equal(word(105), 8);
    assert_int_equal(word(169), 1);
    text(name, 27, 20);
    assert_string_equal(name, "MERGANSER HARDDISK                      ");
    text(name, 10, 10);
    assert_string_equal(name, "MG0000              ");
}

static void identify_tells_the_size(void **state)
{
    identify();
    assert_int_equal(load_le32(buffer + 60 * 2), DISK_SECTORS);
    assert_int_equal(load_le64(buffer + 100 * 2), DISK_SECTORS);
    disk0.size = ((1ull << 28) + 5) * S;
    identify();
    assert_int_equal(load_le32(buffer + 60 * 2), 0x0fffffff);
    assert_int_equal(load_le64(buffer + 100 * 2), (1ull << 28) + 5);
    disk0.size = DISK_SECTORS * S;
}

static void identify_tells_the_translation(void **state)
{
    identify();
    assert_int_equal(word(1), 2);
    assert_int_equal(word(3), 16);
    assert_int_equal(word(6), 63);
    assert_int_equal(word(54), 2);
    assert_int_equal(load_le32(buffer + 57 * 2), 2 * 16 * 63);
    out(IDE_DEVICE, 9); /* ten heads of 20 sectors */
    out(IDE_NSECTOR, 20);
    out(IDE_COMMAND, IDE_CMD_INIT_PARAMS);
    settle();
    assert_good();
    identify();
    assert_int_equal(word(1), 2);
    assert_int_equal(word(54), 10);
    assert_int_equal(word(55), 10);
    assert_int_equal(word(56), 20);
    assert_int_equal(load_le32(buffer + 57 * 2), 2000);
}

static void a_tiny_disk_has_a_cylinder(void **state)
{
    disk0.size = 100 * S;
    identify();
    assert_int_equal(word(1), 1);
    assert_int_equal(load_le32(buffer + 57 * 2), 100);
    disk0.size = DISK_SECTORS * S;
}

static void a_large_disk_has_16383_cylinders(void **state)
{
    disk0.size = 1ull << 40;
    identify();
    assert_int_equal(word(1), 16383);
    disk0.size = DISK_SECTORS * S;
}

static void identify_shows_what_was_set(void **state)
{
    identify();
    assert_int_equal(word(59), 0);
    assert_int_equal(word(85) & 1 << 5, 1 << 5);
    run28(IDE_CMD_SET_MULTIPLE, 0, 8);
    set_features(IDE_FEATURE_CACHE_OFF, 0);
    set_features(IDE_FEATURE_TRANSFER_MODE, IDE_MODE_UDMA | 5);
    identify();
    assert_int_equal(word(59), 0x0108);
    assert_int_equal(word(85) & 1 << 5, 0);
    assert_int_equal(word(88), 0x203f);
    assert_int_equal(word(63), 0x0007);
    set_features(IDE_FEATURE_TRANSFER_MODE, IDE_MODE_MWDMA | 1);
    identify();
    assert_int_equal(word(88), 0x003f);
    assert_int_equal(word(63), 0x0207);
}

static void identify_says_what_the_device_was_told_to(void **state)
{
    struct device_identity own = { .serial = "S-1", .version = "2.0", .model = "A DISK", .wwn = 0x5000c50015ea71ac,
                                   .rotation_rate = 1 };
    char name[41];

    identify();
    assert_int_equal(word(108), 0);
    assert_int_equal(word(217), 0);
    rig.dev[0]->identity = own;
    identify();
    text(name, 10, 10);
    assert_string_equal(name, "S-1                 ");
    text(name, 23, 4);
    assert_string_equal(name, "2.0     ");
    text(name, 27, 20);
    assert_string_equal(name, "A DISK                                  ");
    assert_int_equal(word(108), 0x5000);
    assert_int_equal(word(109), 0xc500);
    assert_int_equal(word(110), 0x15ea);
    assert_int_equal(word(111), 0x71ac);
    assert_int_equal(word(217), 1);
}

static void a_disk_without_a_cache_says_so(void **state)
{
    loop_run_co(rig_remove, rig.dev[0]);
    disk0.root.writethrough = true;
    rig.dev[0] = ide_disk_new(&disk0.disk, 0, 0, NULL);
    irq_attach(rig.dev[0]->irq, rig_interrupt, NULL);
    identify();
    assert_int_equal(word(85) & 1 << 5, 0);
}

/* --- PIO -------------------------------------------------------------------------------------- */

static void read_sectors_gives_a_sector_an_interrupt(void **state)
{
    begin28(IDE_CMD_READ, 5, 3);
    take_blocks(buffer, 3, 1);
    assert_memory_equal(buffer, disk0.bytes + 5 * S, 3 * S);
}

static void read_sectors_takes_chs(void **state)
{
    begin_chs(IDE_CMD_READ, 1, 2, 7, 1);
    take_blocks(buffer, 1, 1);
    assert_memory_equal(buffer, disk0.bytes + ((16 + 2) * 63 + 6) * S, S);
}

static void chs_follows_the_translation(void **state)
{
    out(IDE_DEVICE, 9);
    out(IDE_NSECTOR, 20);
    out(IDE_COMMAND, IDE_CMD_INIT_PARAMS);
    settle();
    begin_chs(IDE_CMD_READ_ONCE, 3, 4, 20, 1);
    take_blocks(buffer, 1, 1);
    assert_memory_equal(buffer, disk0.bytes + ((30 + 4) * 20 + 19) * S, S);
    begin_chs(IDE_CMD_READ, 3, 10, 1, 1);
    settle();
    assert_bad(IDE_ERR_IDNF);
    begin_chs(IDE_CMD_READ, 3, 9, 21, 1);
    settle();
    assert_bad(IDE_ERR_IDNF);
}

static void read_sectors_takes_48_bits(void **state)
{
    begin48(IDE_CMD_READ_EXT, DISK_SECTORS - 2, 2);
    take_blocks(buffer, 2, 1);
    assert_memory_equal(buffer, disk0.bytes + (DISK_SECTORS - 2) * S, 2 * S);
}

static void count_0_is_256_sectors(void **state)
{
    begin28(IDE_CMD_READ, 1, 0);
    take_blocks(buffer, 256, 1);
    assert_memory_equal(buffer, disk0.bytes + S, 256 * S);
}

static void the_disk_is_asked_for_many_sectors_at_once(void **state)
{
    begin28(IDE_CMD_READ, 0, 128);
    take_blocks(buffer, 128, 1);
    assert_int_equal(disk0.calls[DISK_READ], 1);
    begin28(IDE_CMD_WRITE, 0, 128);
    give_blocks(buffer, 128, 1);
    assert_int_equal(disk0.calls[DISK_WRITE], 1);
}

static void write_sectors_ends_with_an_interrupt(void **state)
{
    fill_buffer(3 * S);
    begin28(IDE_CMD_WRITE, 9, 3);
    give_blocks(buffer, 3, 1);
    assert_memory_equal(disk0.bytes + 9 * S, buffer, 3 * S);
    assert_int_equal(disk0.written, 3 * S);
}

static void write_sectors_takes_chs_and_48_bits(void **state)
{
    fill_buffer(2 * S);
    begin_chs(IDE_CMD_WRITE_ONCE, 0, 1, 1, 1);
    give_blocks(buffer, 1, 1);
    assert_memory_equal(disk0.bytes + 63 * S, buffer, S);
    begin48(IDE_CMD_WRITE_EXT, 300, 2);
    give_blocks(buffer, 2, 1);
    assert_memory_equal(disk0.bytes + 300 * S, buffer, 2 * S);
}

static void write_count_0_is_256_sectors(void **state)
{
    fill_buffer(sizeof(buffer));
    begin28(IDE_CMD_WRITE, 2, 0);
    give_blocks(buffer, 256, 1);
    assert_memory_equal(disk0.bytes + 2 * S, buffer, 256 * S);
}

static void multiple_moves_blocks(void **state)
{
    run28(IDE_CMD_SET_MULTIPLE, 0, 4);
    assert_good();
    begin28(IDE_CMD_READ_MULTIPLE, 11, 10); /* the last block is a part */
    take_blocks(buffer, 10, 4);
    assert_memory_equal(buffer, disk0.bytes + 11 * S, 10 * S);
    fill_buffer(9 * S);
    begin28(IDE_CMD_WRITE_MULTIPLE, 40, 9);
    give_blocks(buffer, 9, 4);
    assert_memory_equal(disk0.bytes + 40 * S, buffer, 9 * S);
}

static void multiple_has_48_bit_forms(void **state)
{
    run28(IDE_CMD_SET_MULTIPLE, 0, 16);
    begin48(IDE_CMD_READ_MULTIPLE_EXT, 100, 200);
    take_blocks(buffer, 200, 16);
    assert_memory_equal(buffer, disk0.bytes + 100 * S, 200 * S);
    fill_buffer(200 * S);
    begin48(IDE_CMD_WRITE_MULTIPLE_EXT, 1000, 200);
    give_blocks(buffer, 200, 16);
    assert_memory_equal(disk0.bytes + 1000 * S, buffer, 200 * S);
}

static void multiple_must_be_switched_on(void **state)
{
    run28(IDE_CMD_READ_MULTIPLE, 0, 1);
    assert_bad(IDE_ERR_ABRT);
    run28(IDE_CMD_WRITE_MULTIPLE, 0, 1);
    assert_bad(IDE_ERR_ABRT);
    run28(IDE_CMD_SET_MULTIPLE, 0, 2);
    run28(IDE_CMD_SET_MULTIPLE, 0, 0);
    assert_good();
    run28(IDE_CMD_READ_MULTIPLE, 0, 1);
    assert_bad(IDE_ERR_ABRT);
}

static void set_multiple_takes_powers_of_two_up_to_16(void **state)
{
    for (unsigned count = 1; count < 256; count++) {
        run28(IDE_CMD_SET_MULTIPLE, 0, count);
        if (count <= 16 && (count & (count - 1)) == 0) {
            assert_good();
        } else {
            assert_bad(IDE_ERR_ABRT);
        }
    }
}

static void the_data_port_takes_accesses_of_any_width(void **state)
{
    for (unsigned width = 1; width <= 8; width *= 2) {
        memset(buffer, 0, S);
        begin28(IDE_CMD_READ, width, 1);
        settle();
        assert_asks();
        port_in(buffer, S, width);
        assert_memory_equal(buffer, disk0.bytes + width * S, S);
        fill_buffer(S);
        begin28(IDE_CMD_WRITE, 20 + width, 1);
        settle();
        port_out(buffer, S, width);
        settle();
        assert_memory_equal(disk0.bytes + (20 + width) * S, buffer, S);
    }
}

/* The guest may go on as soon as it has the last byte. */
static void the_next_command_may_follow_a_read_at_once(void **state)
{
    begin28(IDE_CMD_READ, 5, 1);
    settle();
    assert_asks();
    port_in(buffer, S, 2);
    assert_int_equal(alternate(), READY);
    begin28(IDE_CMD_READ, 6, 1);
    assert_int_equal(alternate() & IDE_ST_BSY, IDE_ST_BSY);
    take_blocks(buffer, 1, 1);
    assert_memory_equal(buffer, disk0.bytes + 6 * S, S);
}

/* --- Errors ----------------------------------------------------------------------------------- */

static uint32_t lba28(void)
{
    return in(IDE_LBA_LOW) | in(IDE_LBA_MID) << 8 | in(IDE_LBA_HIGH) << 16 |
           (in(IDE_DEVICE) & 0x0f) << 24;
}

static uint64_t lba48(void)
{
    uint64_t lba = in(IDE_LBA_LOW) | in(IDE_LBA_MID) << 8 | in(IDE_LBA_HIGH) << 16;

    control(IDE_CTL_HOB);
    lba |= (uint64_t)in(IDE_LBA_LOW) << 24 | (uint64_t)in(IDE_LBA_MID) << 32 |
           (uint64_t)in(IDE_LBA_HIGH) << 40;
    control(0);
    return lba;
}

static void what_lies_before_a_bad_sector_is_read(void **state)
{
    disk0.bad = 47 * S + 3;
    begin28(IDE_CMD_READ, 45, 6);
    for (unsigned i = 0; i < 2; i++) {
        settle();
        assert_asks();
        port_in(buffer, S, 2);
        assert_memory_equal(buffer, disk0.bytes + (45 + i) * S, S);
    }
    settle();
    assert_bad(IDE_ERR_UNC);
    assert_int_equal(lba28(), 47);
}

static void a_bad_sector_is_told_in_48_bits(void **state)
{
    disk_make(0, 1ull << 40, false);
    disk0.bad = 0xfedcba9876ull * S;
    begin48(IDE_CMD_READ_EXT, 0xfedcba9876ull, 1);
    settle();
    assert_bad(IDE_ERR_UNC);
    assert_true(lba48() == 0xfedcba9876ull);
}

static void a_bad_sector_is_told_in_chs(void **state)
{
    disk0.bad = ((16 + 3) * 63 + 4) * S;
    begin_chs(IDE_CMD_VERIFY, 1, 3, 1, 10);
    settle();
    assert_bad(IDE_ERR_UNC);
    begin_chs(IDE_CMD_READ, 1, 3, 5, 1);
    settle();
    assert_bad(IDE_ERR_UNC);
    assert_int_equal(in(IDE_LBA_LOW), 5);
    assert_int_equal(in(IDE_LBA_MID), 1);
    assert_int_equal(in(IDE_DEVICE) & 0x0f, 3);
}

static void a_failed_write_aborts(void **state)
{
    disk0.error = -ENOSPC;
    begin28(IDE_CMD_WRITE, 77, 1);
    settle();
    assert_asks();
    port_out(buffer, S, 2);
    settle();
    assert_bad(IDE_ERR_ABRT);
    assert_int_equal(lba28(), 77);
}

static void beyond_the_end_there_is_nothing(void **state)
{
    static const uint8_t codes[] = {
        IDE_CMD_READ, IDE_CMD_WRITE, IDE_CMD_READ_DMA, IDE_CMD_WRITE_DMA, IDE_CMD_VERIFY,
        IDE_CMD_SEEK,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        run28(codes[i], DISK_SECTORS, 1);
        assert_bad(IDE_ERR_IDNF);
        assert_int_equal(lba28(), DISK_SECTORS);
        run28(codes[i], 0x0fffffff, 0);
        assert_bad(IDE_ERR_IDNF);
        assert_int_equal(disk0.invalid, 2 * (i + 1));
    }
    run28(IDE_CMD_READ, DISK_SECTORS - 1, 2); /* half in, half out */
    assert_bad(IDE_ERR_IDNF);
    assert_int_equal(disk0.calls[DISK_READ] + disk0.calls[DISK_WRITE], 0);
}

static void extreme_addresses_are_nowhere(void **state)
{
    static const uint64_t lbas[] = {
        DISK_SECTORS, 1ull << 24, 1ull << 32, 1ull << 47, 0xffffffffffff, 0xffffffff0000,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lbas); i++) {
        begin48(IDE_CMD_READ_EXT, lbas[i], 0);
        settle();
        assert_bad(IDE_ERR_IDNF);
        assert_true(lba48() == lbas[i]);
        begin48(IDE_CMD_WRITE_DMA_EXT, lbas[i], 0xffff);
        settle();
        assert_bad(IDE_ERR_IDNF);
    }
    begin_chs(IDE_CMD_READ, 0, 0, 0, 1);
    settle();
    assert_bad(IDE_ERR_IDNF);
    begin_chs(IDE_CMD_READ, 0, 1, 0, 1); /* not the last sector of the track before */
    settle();
    assert_bad(IDE_ERR_IDNF);
    begin_chs(IDE_CMD_READ, 0xffff, 15, 63, 0);
    settle();
    assert_bad(IDE_ERR_IDNF);
    assert_int_equal(disk0.calls[DISK_READ], 0);
}

static void a_disk_without_sectors_has_none_to_read(void **state)
{
    disk0.size = 0;
    identify();
    run28(IDE_CMD_READ, 0, 1);
    assert_bad(IDE_ERR_IDNF);
    run28(IDE_CMD_READ_NATIVE_MAX, 0, 0);
    assert_good();
    disk0.size = DISK_SECTORS * S;
}

static void what_nobody_knows_aborts(void **state)
{
    for (unsigned code = 0; code < 256; code++) {
        bool known = false;

        for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
            known |= commands[i].code == code;
        }
        if (!known) {
            run28(code, 0, 1);
            assert_bad(IDE_ERR_ABRT);
        }
    }
    run28(IDE_CMD_NOP, 0, 0);
    assert_bad(IDE_ERR_ABRT);
}

/* --- Commands without data -------------------------------------------------------------------- */

static void verify_reads_what_it_verifies(void **state)
{
    run28(IDE_CMD_VERIFY, 100, 0);
    assert_good();
    assert_int_equal(disk0.offset + disk0.len, 356 * S);
    disk0.bad = 300 * S;
    run28(IDE_CMD_VERIFY_ONCE, 100, 0);
    assert_bad(IDE_ERR_UNC);
    begin48(IDE_CMD_VERIFY_EXT, 301, 1000);
    settle();
    assert_good();
}

static void seek_looks_at_the_address_only(void **state)
{
    run28(IDE_CMD_SEEK, DISK_SECTORS - 1, 0);
    assert_good();
    begin_chs(IDE_CMD_SEEK, 0, 15, 63, 9);
    settle();
    assert_good();
    begin_chs(IDE_CMD_SEEK, 0, 15, 64, 9);
    settle();
    assert_bad(IDE_ERR_IDNF);
}

static void flush_flushes(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_good();
    assert_int_equal(disk0.calls[DISK_FLUSH], 1);
    run28(IDE_CMD_FLUSH_EXT, 0, 0);
    assert_good();
    assert_int_equal(disk0.calls[DISK_FLUSH], 2);
    disk0.error = -EIO;
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_bad(IDE_ERR_ABRT);
}

static void flush_is_busy_until_it_is_done(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    assert_int_equal(alternate() & IDE_ST_BSY, IDE_ST_BSY);
    assert_int_equal(rig.interrupts, 0);
    release(&disk0);
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_good();
}

static void native_max_is_the_last_sector(void **state)
{
    run28(IDE_CMD_READ_NATIVE_MAX, 0, 0);
    assert_int_equal(lba28(), DISK_SECTORS - 1);
    disk_make(0, 1ull << 40, false);
    run28(IDE_CMD_READ_NATIVE_MAX, 0, 0);
    assert_int_equal(lba28(), 0x0fffffff);
    run28(IDE_CMD_READ_NATIVE_MAX_EXT, 0, 0);
    assert_true(lba48() == (1ull << 40) - 1);
}

static void power_commands_change_nothing(void **state)
{
    static const uint8_t codes[] = {
        IDE_CMD_STANDBY_NOW, IDE_CMD_IDLE_NOW, IDE_CMD_STANDBY, IDE_CMD_IDLE, IDE_CMD_SLEEP,
        IDE_CMD_RECALIBRATE,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        run28(codes[i], 0, 0);
        assert_good();
    }
    run28(IDE_CMD_CHECK_POWER, 0, 0);
    assert_good();
    assert_int_equal(in(IDE_NSECTOR), 0xff);
    assert_alive();
}

static void assert_signature(void)
{
    assert_int_equal(in(IDE_ERROR), 1);
    assert_int_equal(in(IDE_NSECTOR), 1);
    assert_int_equal(in(IDE_LBA_LOW), 1);
    assert_int_equal(in(IDE_LBA_MID), 0);
    assert_int_equal(in(IDE_LBA_HIGH), 0);
    assert_int_equal(in(IDE_DEVICE) & ~IDE_DEV_FIXED, 0);
}

static void a_drive_shows_its_signature_from_the_start(void **state)
{
    assert_int_equal(in(IDE_STATUS), READY);
    assert_signature();
}

static void diagnostics_pass(void **state)
{
    run28(IDE_CMD_DIAGNOSTIC, 0x123456, 9);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_signature();
}

static void diagnostics_reach_the_drive_that_is_not_selected(void **state)
{
    select_unit(1);
    rig.interrupts = 0;
    out(IDE_COMMAND, IDE_CMD_DIAGNOSTIC);
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_signature();
    assert_int_equal(in(IDE_STATUS), READY);
}

/* --- Settings --------------------------------------------------------------------------------- */

static void without_the_cache_each_write_is_flushed(void **state)
{
    begin28(IDE_CMD_WRITE, 1, 1);
    give_blocks(buffer, 1, 1);
    dma28(IDE_CMD_WRITE_DMA, 1, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 0);
    set_features(IDE_FEATURE_CACHE_OFF, 0);
    assert_good();
    assert_int_equal(disk0.calls[DISK_FLUSH], 1); /* what was cached */
    begin28(IDE_CMD_WRITE, 1, 2);
    give_blocks(buffer, 2, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 2);
    dma28(IDE_CMD_WRITE_DMA, 1, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 3);
    set_features(IDE_FEATURE_CACHE_ON, 0);
    dma28(IDE_CMD_WRITE_DMA, 1, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 3);
}

static void transfer_modes_are_those_that_identify_lists(void **state)
{
    for (unsigned mode = 0; mode < 256; mode++) {
        bool good = mode <= 1 || (mode >= 0x08 && mode <= 0x0c) || (mode >= 0x20 && mode <= 0x22) ||
                    (mode >= 0x40 && mode <= 0x45);

        set_features(IDE_FEATURE_TRANSFER_MODE, mode);
        if (good) {
            assert_good();
        } else {
            assert_bad(IDE_ERR_ABRT);
        }
    }
    identify();
    assert_int_equal(word(88), 0x203f); /* the last one that was good */
    set_features(IDE_FEATURE_TRANSFER_MODE, 0x0c);
    identify();
    assert_int_equal(word(88), 0x203f); /* a PIO mode is another matter */
}

static void unknown_features_abort(void **state)
{
    static const uint8_t good[] = { 0x02, 0x03, 0x55, 0x66, 0x82, 0xaa, 0xcc };

    for (unsigned feature = 0; feature < 256; feature++) {
        set_features(feature, 0);
        if (memchr(good, feature, sizeof(good))) {
            assert_good();
        } else {
            assert_bad(IDE_ERR_ABRT);
        }
    }
}

static void a_translation_without_sectors_is_refused(void **state)
{
    run28(IDE_CMD_INIT_PARAMS, 0, 0);
    assert_bad(IDE_ERR_ABRT);
    begin_chs(IDE_CMD_READ, 1, 2, 7, 1);
    take_blocks(buffer, 1, 1);
    assert_memory_equal(buffer, disk0.bytes + ((16 + 2) * 63 + 6) * S, S);
}

/* --- Registers and interrupts ----------------------------------------------------------------- */

static void the_status_acknowledges_and_the_alternate_does_not(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_int_equal(alternate(), READY);
    assert_true(rig.dev[0]->irq->level);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_false(rig.dev[0]->irq->level);
}

static void a_command_takes_the_interrupt_of_the_last_one_back(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    assert_false(rig.dev[0]->irq->level);
    release(&disk0);
    settle();
    assert_true(rig.dev[0]->irq->level);
}

static void nien_keeps_the_interrupt_from_the_line(void **state)
{
    control(IDE_CTL_NIEN);
    bm_out(IDE_BM_STATUS, IDE_BM_ST_IRQ, 1);
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    assert_int_equal(rig.interrupts, 0);
    assert_int_equal(bm_status(), 0);
    control(0); /* it is still pending */
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_good();
    control(IDE_CTL_NIEN);
    control(0);
    settle();
    assert_int_equal(rig.interrupts, 1);
}

static void nien_lowers_the_line(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    control(IDE_CTL_NIEN);
    assert_false(rig.dev[0]->irq->level);
}

static void polling_works_without_interrupts(void **state)
{
    control(IDE_CTL_NIEN);
    begin28(IDE_CMD_READ, 3, 2);
    for (unsigned i = 0; i < 2; i++) {
        settle();
        assert_asks();
        port_in(buffer + i * S, S, 4);
    }
    assert_memory_equal(buffer, disk0.bytes + 3 * S, 2 * S);
    assert_good();
    assert_int_equal(rig.interrupts, 0);
}

static void hob_shows_what_was_written_before(void **state)
{
    out(IDE_NSECTOR, 0x11);
    out(IDE_NSECTOR, 0x22);
    out(IDE_LBA_LOW, 0x33);
    out(IDE_LBA_LOW, 0x44);
    assert_int_equal(in(IDE_NSECTOR), 0x22);
    control(IDE_CTL_HOB);
    assert_int_equal(in(IDE_NSECTOR), 0x11);
    assert_int_equal(in(IDE_LBA_LOW), 0x33);
    out(IDE_LBA_MID, 0); /* any write takes it back */
    assert_int_equal(in(IDE_NSECTOR), 0x22);
    assert_int_equal(in(IDE_LBA_LOW), 0x44);
}

static void nothing_is_written_while_busy_or_asking(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_READ, 5, 1);
    for (unsigned i = 0; i < 2; i++) {
        out(IDE_NSECTOR, 9);
        out(IDE_LBA_LOW, 10);
        out(IDE_DEVICE, 0);
        out(IDE_COMMAND, IDE_CMD_FLUSH);
        assert_int_equal(lba28(), 5);
        assert_int_equal(in(IDE_NSECTOR), 1);
        release(&disk0);
        settle();
    }
    port_in(buffer, S, 2);
    assert_memory_equal(buffer, disk0.bytes + 5 * S, S);
    assert_int_equal(disk0.calls[DISK_FLUSH], 0);
}

static void the_device_register_reads_its_fixed_bits_as_ones(void **state)
{
    out(IDE_DEVICE, 0);
    assert_int_equal(in(IDE_DEVICE), 0xa0);
    out(IDE_DEVICE, 0x4f);
    assert_int_equal(in(IDE_DEVICE), 0xef);
}

static void the_data_port_without_a_command_is_empty(void **state)
{
    assert_int_equal(machine_port_in(IDE_PORT(0), 2), 0);
    machine_port_out(IDE_PORT(0), 0xffff, 2);
    begin28(IDE_CMD_READ, 3, 1);
    settle();
    machine_port_out(IDE_PORT(0), 0xffff, 2); /* the wrong way */
    assert_asks();
    port_in(buffer, S, 2);
    assert_memory_equal(buffer, disk0.bytes + 3 * S, S);
}

static void a_read_ends_with_its_last_byte(void **state)
{
    begin28(IDE_CMD_READ, 3, 1);
    settle();
    assert_asks();
    port_in(buffer, S, 2);
    assert_int_equal(machine_port_in(IDE_PORT(0), 4), 0);
    machine_port_out(IDE_PORT(0), 0xffffffff, 4);
    settle();
    assert_good();
    assert_alive();
}

static void a_write_takes_no_byte_more_than_it_asked_for(void **state)
{
    uint8_t behind[S];

    memcpy(behind, disk0.bytes + 4 * S, S);
    fill_buffer(3 * S);
    begin28(IDE_CMD_WRITE, 3, 1);
    settle();
    assert_asks();
    port_out(buffer, 3 * S, 8);
    settle();
    assert_good();
    assert_memory_equal(disk0.bytes + 3 * S, buffer, S);
    assert_memory_equal(disk0.bytes + 4 * S, behind, S);
}

static void an_access_across_the_last_byte_moves_what_was_asked_for(void **state)
{
    fill_buffer(2 * S);
    begin28(IDE_CMD_WRITE, 3, 1);
    settle();
    port_out(buffer, 1, 1);
    port_out(buffer + 1, S, 4); /* ends three bytes behind the block */
    settle();
    assert_good();
    assert_memory_equal(disk0.bytes + 3 * S, buffer, S);
    begin28(IDE_CMD_READ, 3, 1);
    settle();
    port_in(buffer, 1, 1);
    port_in(buffer + 1, S - 4, 4);
    assert_int_equal(machine_port_in(IDE_PORT(0), 4), disk0.bytes[4 * S - 3] | disk0.bytes[4 * S - 2] << 8 |
                                                          disk0.bytes[4 * S - 1] << 16);
    settle();
    assert_good();
    assert_alive();
}

/* --- Two drives, one, none -------------------------------------------------------------------- */

static void a_second_drive_that_is_not_there_reads_as_zeroes(void **state)
{
    select_unit(1);
    assert_int_equal(in(IDE_STATUS), 0);
    assert_int_equal(alternate(), 0);
    assert_int_equal(in(IDE_ERROR), 0);
    assert_int_equal(in(IDE_NSECTOR), 0);
    begin28(IDE_CMD_READ, 0, 1);
    begin28(IDE_CMD_WRITE_DMA, 0, 1);
    begin28(IDE_CMD_IDENTIFY, 0, 1);
    settle();
    assert_int_equal(rig.interrupts, 0);
    assert_int_equal(alternate(), 0);
    assert_int_equal(machine_port_in(IDE_PORT(0), 4), 0);
    select_unit(0);
    assert_alive();
}

static void a_channel_without_drives_reads_as_ones(void **state)
{
    rig.channel = 1;
    for (unsigned reg = 0; reg < 8; reg++) {
        assert_int_equal(in(reg), 0xff);
        out(reg, 0);
    }
    assert_int_equal(alternate(), 0xff);
    assert_int_equal(bm_in(IDE_BM_STATUS, 1), 0xff);
    control(IDE_CTL_SRST);
    rig.channel = 0;
    assert_alive();
}

static void a_drive_alone_may_be_the_second(void **state)
{
    struct machine_device *dev;

    disk_make(1, DISK_SECTORS, true);
    dev = ide_disk_new(&disk1.disk, 1, 1, NULL);
    irq_attach(dev->irq, rig_interrupt, NULL);
    rig.dev[1] = dev;
    rig.channel = 1;
    assert_int_equal(in(IDE_STATUS), 0);
    select_unit(1);
    assert_alive();
    rig.unit = 1;
    begin28(IDE_CMD_READ, 4, 1);
    take_blocks(buffer, 1, 1);
    assert_memory_equal(buffer, disk1.bytes + 4 * S, S);
}

static void a_place_is_taken_once(void **state)
{
    struct error err = ERROR_INIT;

    assert_null(ide_disk_new(&disk1.disk, 0, 0, &err));
    assert_string_equal(err.text, "IDE unit 0 is in use");
    error_clear(&err);
}

static void each_drive_has_its_own_disk(void **state)
{
    for (unsigned unit = 0; unit < 2; unit++) {
        select_unit(unit);
        begin28(IDE_CMD_READ, 12, 2);
        take_blocks(buffer, 2, 1);
        assert_memory_equal(buffer, disks[unit].bytes + 12 * S, 2 * S);
        fill_buffer(S);
        begin28(IDE_CMD_WRITE, 13 + unit, 1);
        give_blocks(buffer, 1, 1);
        assert_memory_equal(disks[unit].bytes + (13 + unit) * S, buffer, S);
    }
    assert_int_equal(disk0.written, S);
    assert_int_equal(disk1.written, S);
}

static void each_drive_has_its_own_status(void **state)
{
    run28(IDE_CMD_NOP, 0, 0);
    select_unit(1);
    assert_int_equal(in(IDE_STATUS), READY);
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_good();
    select_unit(0);
    assert_bad(IDE_ERR_ABRT);
}

static void each_drive_has_its_own_settings(void **state)
{
    select_unit(1);
    run28(IDE_CMD_SET_MULTIPLE, 0, 4);
    set_features(IDE_FEATURE_CACHE_OFF, 0);
    select_unit(0);
    run28(IDE_CMD_READ_MULTIPLE, 0, 1);
    assert_bad(IDE_ERR_ABRT);
    dma28(IDE_CMD_WRITE_DMA, 1, 1);
    assert_int_equal(disk0.calls[DISK_FLUSH], 0);
    select_unit(1);
    identify();
    assert_int_equal(word(59), 0x0104);
    assert_int_equal(word(93) & 0x1f00, 0x0b00);
}

static void the_selection_stands_while_a_drive_is_busy(void **state)
{
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    out(IDE_DEVICE, IDE_DEV_UNIT);
    assert_int_equal(in(IDE_STATUS) & IDE_ST_BSY, IDE_ST_BSY);
    release(&disk0);
    settle();
    assert_good();
}

static void channels_do_not_know_of_each_other(void **state)
{
    struct machine_device *dev;

    disk_make(1, DISK_SECTORS, true);
    dev = ide_disk_new(&disk1.disk, 1, 0, NULL);
    rig.dev[1] = dev;
    disk0.hold = true;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    rig.channel = 1;
    begin28(IDE_CMD_FLUSH, 0, 0);
    settle();
    assert_good();
    assert_int_equal(disk1.calls[DISK_FLUSH], 1);
    control(IDE_CTL_SRST);
    control(0);
    rig.channel = 0;
    assert_int_equal(alternate() & IDE_ST_BSY, IDE_ST_BSY);
    release(&disk0);
    settle();
    assert_good();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(identify_says_what_it_is),
        ONE(identify_tells_the_size),
        ONE(identify_tells_the_translation),
        ONE(a_tiny_disk_has_a_cylinder),
        ONE(a_large_disk_has_16383_cylinders),
        ONE(identify_shows_what_was_set),
        ONE(identify_says_what_the_device_was_told_to),
        ONE(a_disk_without_a_cache_says_so),
        ONE(read_sectors_gives_a_sector_an_interrupt),
        ONE(read_sectors_takes_chs),
        ONE(chs_follows_the_translation),
        ONE(read_sectors_takes_48_bits),
        ONE(count_0_is_256_sectors),
        ONE(the_disk_is_asked_for_many_sectors_at_once),
        ONE(write_sectors_ends_with_an_interrupt),
        ONE(write_sectors_takes_chs_and_48_bits),
        ONE(write_count_0_is_256_sectors),
        ONE(multiple_moves_blocks),
        ONE(multiple_has_48_bit_forms),
        ONE(multiple_must_be_switched_on),
        ONE(set_multiple_takes_powers_of_two_up_to_16),
        ONE(the_data_port_takes_accesses_of_any_width),
        ONE(the_next_command_may_follow_a_read_at_once),
        ONE(what_lies_before_a_bad_sector_is_read),
        ONE(a_bad_sector_is_told_in_48_bits),
        ONE(a_bad_sector_is_told_in_chs),
        ONE(a_failed_write_aborts),
        ONE(beyond_the_end_there_is_nothing),
        ONE(extreme_addresses_are_nowhere),
        ONE(a_disk_without_sectors_has_none_to_read),
        ONE(what_nobody_knows_aborts),
        ONE(verify_reads_what_it_verifies),
        ONE(seek_looks_at_the_address_only),
        ONE(flush_flushes),
        ONE(flush_is_busy_until_it_is_done),
        ONE(native_max_is_the_last_sector),
        ONE(power_commands_change_nothing),
        ONE(a_drive_shows_its_signature_from_the_start),
        ONE(diagnostics_pass),
        ONE(diagnostics_reach_the_drive_that_is_not_selected),
        ONE(without_the_cache_each_write_is_flushed),
        ONE(transfer_modes_are_those_that_identify_lists),
        ONE(unknown_features_abort),
        ONE(a_translation_without_sectors_is_refused),
        ONE(the_status_acknowledges_and_the_alternate_does_not),
        ONE(a_command_takes_the_interrupt_of_the_last_one_back),
        ONE(nien_keeps_the_interrupt_from_the_line),
        ONE(nien_lowers_the_line),
        ONE(polling_works_without_interrupts),
        ONE(hob_shows_what_was_written_before),
        ONE(nothing_is_written_while_busy_or_asking),
        ONE(the_device_register_reads_its_fixed_bits_as_ones),
        ONE(the_data_port_without_a_command_is_empty),
        ONE(a_read_ends_with_its_last_byte),
        ONE(a_write_takes_no_byte_more_than_it_asked_for),
        ONE(an_access_across_the_last_byte_moves_what_was_asked_for),
        ONE(a_second_drive_that_is_not_there_reads_as_zeroes),
        ONE(a_channel_without_drives_reads_as_ones),
        ONE(a_drive_alone_may_be_the_second),
        ONE(a_place_is_taken_once),
        TWO(each_drive_has_its_own_disk),
        TWO(each_drive_has_its_own_status),
        TWO(each_drive_has_its_own_settings),
        TWO(the_selection_stands_while_a_drive_is_busy),
        ONE(channels_do_not_know_of_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
