/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus-master DMA: its registers, tables of every kind, right and wrong, and what goes by DMA: reads
 * and writes in all forms, TRIM.
 */
#include "tests/unit/ide-rig.h"

static const uint64_t nowhere = 0xf0000000; /* behind the end of guest memory */

static void fill(size_t len, uint8_t with)
{
    for (size_t i = 0; i < len; i++) {
        rig.data_p[i] = with ^ i ^ i >> 8;
    }
}

/* Start a command with the table as it is. */
static void go(uint8_t command, uint32_t lba, uint8_t count, bool to_memory)
{
    rig.interrupts = 0;
    begin28(command, lba, count);
    start(to_memory);
    settle();
}

static void go_read(uint32_t lba, uint8_t count)
{
    go(IDE_CMD_READ_DMA, lba, count, true);
}

/* The table is no good: the drive aborts, and the bus master says that it was him. */
static void assert_fault(void)
{
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ | IDE_BM_ST_ERROR);
    assert_bad(IDE_ERR_ABRT);
    assert_int_equal(disk0.calls[DISK_READ] + disk0.calls[DISK_WRITE] + disk0.calls[DISK_UNMAP], 0);
    stop();
    bm_out(IDE_BM_STATUS, IDE_BM_ST_IRQ | IDE_BM_ST_ERROR, 1);
    assert_int_equal(bm_status(), 0);
    assert_alive();
}

/* --- Registers -------------------------------------------------------------------------------- */

static void the_table_register_holds_a_word(void **state)
{
    bm_out(IDE_BM_PRD, 0x12345678, 4);
    assert_int_equal(bm_in(IDE_BM_PRD, 4), 0x12345678);
    bm_out(IDE_BM_PRD, 0xabcf, 2);
    bm_out(IDE_BM_PRD + 2, 0x77, 1);
    assert_int_equal(bm_in(IDE_BM_PRD, 4), 0x1277abcc); /* the lowest two bits are zero */
    assert_int_equal(bm_in(IDE_BM_PRD + 1, 1), 0xab);
    assert_int_equal(bm_in(IDE_BM_PRD + 2, 2), 0x1277);
}

static void the_status_says_which_drives_are_there(void **state)
{
    assert_int_equal(bm_in(IDE_BM_STATUS, 1), 0x20);
    disk_make(1, DISK_SECTORS, true);
    rig.dev[1] = ide_disk_new(&disk1.disk, 0, 1, NULL);
    assert_int_equal(bm_in(IDE_BM_STATUS, 1), 0x60);
    assert_int_equal(bm_in(IDE_BM_COMMAND, 4), 0x600000);
}

static void status_bits_are_cleared_by_ones(void **state)
{
    run28(IDE_CMD_FLUSH, 0, 0);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    bm_out(IDE_BM_STATUS, IDE_BM_ST_ERROR | IDE_BM_ST_ACTIVE, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    bm_out(IDE_BM_STATUS, IDE_BM_ST_IRQ, 1);
    assert_int_equal(bm_status(), 0);
}

static void only_two_bits_of_the_command_are_there(void **state)
{
    bm_out(IDE_BM_COMMAND, 0xff, 1);
    assert_int_equal(bm_in(IDE_BM_COMMAND, 1), 0x09);
    assert_int_equal(bm_status(), IDE_BM_ST_ACTIVE);
    stop();
    assert_int_equal(bm_status(), 0);
}

/* --- Good tables ------------------------------------------------------------------------------ */

static void a_table_as_long_as_the_data(void **state)
{
    dma28(IDE_CMD_READ_DMA, 10, 8);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 10 * S, 8 * S);
    fill(8 * S, 1);
    dma28(IDE_CMD_WRITE_DMA, 20, 8);
    assert_good();
    assert_memory_equal(disk0.bytes + 20 * S, rig.data_p, 8 * S);
    assert_int_equal(disk0.written, 8 * S);
}

static void a_longer_table_stays_active(void **state)
{
    fill(8 * S, 2);
    entry(0, rig.data, 8 * S, true);
    go_read(10, 3);
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ | IDE_BM_ST_ACTIVE);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 10 * S, 3 * S);
    assert_int_equal(rig.data_p[3 * S], (uint8_t)(2 ^ (3 * S) >> 8));
    stop();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_alive();
}

static void a_table_with_entries_left_stays_active(void **state)
{
    entry(0, rig.data, S, false);
    entry(1, nowhere, S, true); /* not looked at */
    go_read(10, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ | IDE_BM_ST_ACTIVE);
    assert_good();
}

/* Table 2-2 of the bus master's specification: neither active nor interrupt. */
static void a_shorter_table_stops_the_bus_master_without_a_word(void **state)
{
    fill(2 * S, 3);
    entry(0, rig.data, S, true);
    go_read(10, 2);
    assert_int_equal(rig.interrupts, 0);
    assert_int_equal(bm_status(), 0);
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    assert_int_equal(disk0.calls[DISK_READ], 0);
    assert_int_equal(rig.data_p[1], 3 ^ 1);
    stop();
    settle();
    entry(0, rig.data, 2 * S, true); /* a better one */
    start(true);
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 10 * S, 2 * S);
}

static void a_reset_ends_a_drive_whose_table_was_short(void **state)
{
    entry(0, rig.data, S, true);
    go(IDE_CMD_WRITE_DMA, 10, 2, false);
    assert_int_equal(bm_status(), 0);
    stop();
    srst();
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk0.calls[DISK_WRITE], 0);
    assert_alive();
}

static void entries_of_any_size_make_up_the_data(void **state)
{
    static const uint16_t sizes[] = { 2, 510, 4, 1000, 30, 502 };
    uint32_t at = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        entry(i, rig.data + 6 * i * 1024 + 2 * i, sizes[i], i == ARRAY_SIZE(sizes) - 1);
    }
    go_read(30, 4);
    assert_good();
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        assert_memory_equal(rig.data_p + 6 * i * 1024 + 2 * i, disk0.bytes + 30 * S + at, sizes[i]);
        at += sizes[i];
    }
    assert_int_equal(at, 4 * S);
    assert_int_equal(disk0.elements, 6);
}

static void neighbours_become_one(void **state)
{
    for (unsigned i = 0; i < 16; i++) {
        entry(i, rig.data + i * 4096, 4096, i == 15);
    }
    go_read(0, 128);
    assert_good();
    assert_int_equal(disk0.elements, 1);
    assert_memory_equal(rig.data_p, disk0.bytes, 65536);
}

static void count_0_is_64_kib(void **state)
{
    entry(0, rig.data, 0, false);
    entry(1, rig.data + 65536, 65536, true);
    go_read(3, 0);
    assert_good();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_memory_equal(rig.data_p, disk0.bytes + 3 * S, 256 * S);
}

static void odd_bits_are_no_bits(void **state)
{
    entry(0, rig.data + 1, S + 1, true);
    store_le32(rig.table_p + 4, load_le32(rig.table_p + 4) | 0x7fff0000);
    go_read(3, 1);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 3 * S, S);
}

static void the_whole_table_may_be_entries_of_two_bytes(void **state)
{
    for (unsigned i = 0; i < TABLE / 8; i++) {
        entry(i, rig.data + i * 4, 2, i == TABLE / 8 - 1);
    }
    go_read(5, 32); /* 8192 * 2 bytes */
    assert_good();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_int_equal(disk0.elements, 8192);
    for (unsigned i = 0; i < TABLE / 8; i++) {
        assert_memory_equal(rig.data_p + i * 4, disk0.bytes + 5 * S + i * 2, 2);
    }
}

static void data_goes_up_to_the_last_byte_of_memory(void **state)
{
    entry(0, memory_size() - S, S, true);
    go_read(3, 1);
    assert_good();
    assert_memory_equal(memory_map(memory_size() - S, S), disk0.bytes + 3 * S, S);
}

/* --- Before and after ------------------------------------------------------------------------- */

static void the_start_bit_may_come_first(void **state)
{
    entry(0, rig.data, S, true);
    start(true);
    settle();
    assert_int_equal(bm_status(), IDE_BM_ST_ACTIVE);
    begin28(IDE_CMD_READ_DMA, 3, 1);
    settle();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 3 * S, S);
}

static void the_start_bit_may_come_late(void **state)
{
    entry(0, rig.data, S, true);
    begin28(IDE_CMD_READ_DMA, 3, 1);
    settle();
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    assert_int_equal(rig.interrupts, 0);
    start(true);
    settle();
    assert_int_equal(rig.interrupts, 1);
    assert_good();
}

static void a_start_bit_serves_one_command(void **state)
{
    entry(0, rig.data, S, true);
    go_read(3, 1);
    assert_good();
    begin28(IDE_CMD_READ_DMA, 4, 1); /* and the bit still set */
    settle();
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    assert_int_equal(disk0.calls[DISK_READ], 1);
    stop();
    start(true);
    settle();
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 4 * S, S);
}

static void a_start_that_was_taken_back_is_none(void **state)
{
    entry(0, rig.data, S, true);
    start(true);
    stop();
    begin28(IDE_CMD_READ_DMA, 4, 1);
    settle();
    assert_int_equal(alternate(), READY | IDE_ST_DRQ);
    assert_int_equal(disk0.calls[DISK_READ], 0);
    start(true);
    settle();
    assert_good();
}

static void stopping_in_the_middle_lets_the_command_end(void **state)
{
    disk0.hold = true;
    entry(0, rig.data, S, true);
    go_read(4, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_ACTIVE);
    stop();
    assert_int_equal(bm_status(), 0);
    release(&disk0);
    settle();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_good();
    assert_alive();
}

static void a_start_in_the_middle_is_for_the_next_command(void **state)
{
    disk0.hold = true;
    entry(0, rig.data, S, true);
    go_read(4, 1);
    stop();
    start(true);
    release(&disk0);
    settle();
    assert_good();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ | IDE_BM_ST_ACTIVE);
    begin28(IDE_CMD_READ_DMA, 5, 1);
    settle();
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + 5 * S, S);
}

static void the_start_bit_is_not_for_the_data_port(void **state)
{
    begin28(IDE_CMD_WRITE, 3, 1);
    settle();
    entry(0, rig.data, S, true);
    start(false);
    settle();
    assert_asks();
    assert_int_equal(disk0.calls[DISK_WRITE], 0);
    fill(S, 5);
    port_out(rig.data_p, S, 2);
    settle();
    assert_memory_equal(disk0.bytes + 3 * S, rig.data_p, S);
    stop();
}

/* --- Bad tables ------------------------------------------------------------------------------- */

static void data_in_nowhere_is_a_fault(void **state)
{
    entry(0, nowhere, S, true);
    go_read(3, 1);
    assert_fault();
}

static void data_half_in_nowhere_is_a_fault(void **state)
{
    fill(S, 6);
    entry(0, rig.data, S, false);
    entry(1, memory_size() - 256, S, true);
    go_read(3, 2);
    assert_int_equal(rig.data_p[0], 6); /* the good half has not moved either */
    assert_fault();
}

static void data_that_wraps_is_a_fault(void **state)
{
    entry(0, 0xfffffffe, 4096, true);
    go(IDE_CMD_WRITE_DMA, 3, 8, false);
    assert_fault();
}

static void a_table_in_nowhere_is_a_fault(void **state)
{
    static const uint32_t tables[] = { 0xf0000000, 0xfffffff8, 0xfffffffc };

    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        rig.interrupts = 0;
        disk0.calls[DISK_READ] = 0;
        begin28(IDE_CMD_READ_DMA, 3, 1);
        bm_out(IDE_BM_PRD, tables[i], 4);
        bm_out(IDE_BM_STATUS, IDE_BM_ST_IRQ, 1);
        bm_out(IDE_BM_COMMAND, IDE_BM_CMD_START | IDE_BM_CMD_TO_MEMORY, 1);
        settle();
        assert_fault();
    }
}

static void a_table_that_leaves_memory_is_a_fault(void **state)
{
    uint64_t table = memory_size() - 8;

    store_le32(memory_map(table, 8), rig.data);
    store_le32((uint8_t *)memory_map(table, 8) + 4, S);
    begin28(IDE_CMD_READ_DMA, 3, 2);
    bm_out(IDE_BM_PRD, table, 4);
    bm_out(IDE_BM_COMMAND, IDE_BM_CMD_START | IDE_BM_CMD_TO_MEMORY, 1);
    settle();
    assert_fault();
}

static void a_table_without_end_is_a_fault(void **state)
{
    for (unsigned i = 0; i < TABLE / 8; i++) {
        entry(i, rig.data, 2, false);
    }
    rig.interrupts = 0;
    begin48(IDE_CMD_READ_DMA_EXT, 3, 2000);
    start(true);
    settle();
    assert_fault();
}

static void a_table_across_64_kib_is_a_fault(void **state)
{
    rig.table += TABLE - 8;
    rig.table_p += TABLE - 8;
    entry(0, rig.data, S, false);
    entry(1, rig.data, S, true);
    go_read(3, 2);
    assert_fault();
}

/* Addresses of tables are multiples of four, entries have eight bytes. */
static void an_entry_across_64_kib_is_a_fault(void **state)
{
    rig.table += TABLE - 4;
    rig.table_p += TABLE - 4;
    entry(0, rig.data, S, true);
    go_read(3, 1);
    rig.table += 4;
    rig.table_p += 4;
    assert_fault();
}

static void the_directions_must_agree(void **state)
{
    fill(S, 7);
    entry(0, rig.data, S, true);
    go(IDE_CMD_READ_DMA, 3, 1, false);
    assert_int_equal(rig.data_p[0], 7);
    assert_fault();
    disk0.calls[DISK_READ] = 0;
    entry(0, rig.data, S, true);
    go(IDE_CMD_WRITE_DMA, 3, 1, true);
    assert_int_equal(disk0.written, 0);
    assert_fault();
}

/* --- Forms ------------------------------------------------------------------------------------ */

static void chs_works_with_dma(void **state)
{
    entry(0, rig.data, S, true);
    begin_chs(IDE_CMD_READ_DMA_ONCE, 1, 2, 3, 1);
    start(true);
    settle();
    assert_good();
    assert_memory_equal(rig.data_p, disk0.bytes + ((16 + 2) * 63 + 2) * S, S);
    fill(S, 8);
    stop();
    begin_chs(IDE_CMD_WRITE_DMA_ONCE, 0, 0, 63, 1);
    start(false);
    settle();
    assert_good();
    assert_memory_equal(disk0.bytes + 62 * S, rig.data_p, S);
}

static void the_48_bit_form_reaches_beyond_28_bits(void **state)
{
    disk_make(0, 1ull << 40, false);
    entry(0, rig.data, 4 * S, true);
    begin48(IDE_CMD_READ_DMA_EXT, 0xabcdef1234, 4);
    start(true);
    settle();
    assert_good();
    assert_true(disk0.offset == 0xabcdef1234 * S);
    assert_int_equal(rig.data_p[0], 0x77);
    stop();
    begin48(IDE_CMD_WRITE_DMA_EXT, 0xabcdef1234, 4);
    start(false);
    settle();
    assert_good();
    assert_int_equal(disk0.written, 4 * S);
}

static void count_0_is_65536_sectors(void **state)
{
    uint64_t gpa = guest_alloc(32 << 20);
    uint8_t *data = memory_map(gpa, 32 << 20);

    disk_make(0, 70000, true);
    for (unsigned i = 0; i < 512; i++) {
        entry(i, gpa + i * 65536, 0, i == 511);
    }
    begin48(IDE_CMD_READ_DMA_EXT, 1000, 0);
    start(true);
    settle();
    assert_good();
    assert_int_equal(disk0.calls[DISK_READ], 1);
    assert_memory_equal(data, disk0.bytes + 1000 * S, 32 << 20);
    stop();
    memset(data, 0x5a, 32 << 20);
    begin48(IDE_CMD_WRITE_DMA_EXT, 1000, 0);
    start(false);
    settle();
    assert_good();
    assert_memory_equal(data, disk0.bytes + 1000 * S, 32 << 20);
}

static void an_error_of_the_disk_is_none_of_the_bus_master(void **state)
{
    disk0.error = -EIO;
    dma28(IDE_CMD_READ_DMA, 9, 2);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_bad(IDE_ERR_UNC);
    assert_int_equal(in(IDE_LBA_LOW), 9);
    dma28(IDE_CMD_WRITE_DMA, 11, 2);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ);
    assert_bad(IDE_ERR_ABRT);
    assert_int_equal(in(IDE_LBA_LOW), 11);
}

static void beyond_the_end_the_table_is_not_looked_at(void **state)
{
    entry(0, nowhere, S, true);
    go_read(DISK_SECTORS, 1);
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(bm_status(), IDE_BM_ST_IRQ | IDE_BM_ST_ACTIVE);
    assert_bad(IDE_ERR_IDNF);
    stop();
    assert_alive();
}

static void the_second_drive_has_the_same_bus_master(void **state)
{
    select_unit(1);
    dma28(IDE_CMD_READ_DMA, 10, 8);
    assert_good();
    assert_memory_equal(rig.data_p, disk1.bytes + 10 * S, 8 * S);
    assert_int_equal(disk0.calls[DISK_READ], 0);
}

/* --- TRIM ------------------------------------------------------------------------------------- */

static void range(unsigned at, uint64_t lba, uint64_t count)
{
    store_le64(rig.data_p + at * 8, lba | count << 48);
}

static void trim(uint16_t blocks)
{
    entry(0, rig.data, MAX(blocks, 1) * S, true);
    rig.interrupts = 0;
    out(IDE_FEATURE, 1);
    begin48(IDE_CMD_DSM, 0, blocks);
    start(false);
    settle();
    assert_int_equal(rig.interrupts, 1);
    stop();
    memset(rig.data_p, 0, 8 * S);
}

static void trim_discards_ranges(void **state)
{
    range(0, 100, 3);
    range(1, 0, 0); /* filler */
    range(5, DISK_SECTORS - 1, 1);
    trim(1);
    assert_good();
    assert_int_equal(disk0.calls[DISK_UNMAP], 2);
    assert_int_equal(disk0.bytes[100 * S], 0xdd);
    assert_int_equal(disk0.bytes[103 * S - 1], 0xdd);
    assert_int_equal(disk0.bytes[DISK_SECTORS * S - 1], 0xdd);
    assert_int_not_equal(disk0.bytes[103 * S], 0xdd);
}

static void trim_joins_what_belongs_together(void **state)
{
    disk_make(0, 1ull << 30, false);
    for (unsigned i = 0; i < 8 * 64; i++) {
        range(i, 1000 + i * 65535ull, 65535);
    }
    trim(8);
    assert_good();
    assert_int_equal(disk0.calls[DISK_UNMAP], 1);
    assert_true(disk0.offset == 1000 * S);
    assert_true(disk0.len == 512ull * 65535 * S);
}

static void trim_beyond_the_end_trims_nothing(void **state)
{
    range(0, 100, 3);
    range(1, DISK_SECTORS - 1, 2);
    trim(1);
    assert_bad(IDE_ERR_IDNF);
    assert_int_equal(disk0.calls[DISK_UNMAP], 0);
    assert_int_equal(disk0.invalid, 1);
    range(0, 0xffffffffffff, 0xffff);
    trim(1);
    assert_bad(IDE_ERR_IDNF);
}

static void trim_takes_1_to_8_blocks(void **state)
{
    range(0, 100, 3);
    trim(8);
    assert_good();
    trim(9);
    assert_bad(IDE_ERR_ABRT);
    trim(0);
    assert_bad(IDE_ERR_ABRT);
    trim(0xffff);
    assert_bad(IDE_ERR_ABRT);
}

static void other_data_set_management_aborts(void **state)
{
    out(IDE_FEATURE, 0);
    begin48(IDE_CMD_DSM, 0, 1);
    settle();
    assert_bad(IDE_ERR_ABRT);
}

static void trim_is_a_hint(void **state)
{
    disk0.error = -ENOTSUP;
    range(0, 100, 3);
    trim(1);
    assert_good();
    disk0.error = -EIO;
    range(0, 100, 3);
    trim(1);
    assert_bad(IDE_ERR_ABRT);
}

static void trim_with_a_bad_table_is_a_fault(void **state)
{
    entry(0, nowhere, S, true);
    rig.interrupts = 0;
    out(IDE_FEATURE, 1);
    begin48(IDE_CMD_DSM, 0, 1);
    start(false);
    settle();
    assert_fault();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(the_table_register_holds_a_word),
        ONE(the_status_says_which_drives_are_there),
        ONE(status_bits_are_cleared_by_ones),
        ONE(only_two_bits_of_the_command_are_there),
        ONE(a_table_as_long_as_the_data),
        ONE(a_longer_table_stays_active),
        ONE(a_table_with_entries_left_stays_active),
        ONE(a_shorter_table_stops_the_bus_master_without_a_word),
        ONE(a_reset_ends_a_drive_whose_table_was_short),
        ONE(entries_of_any_size_make_up_the_data),
        ONE(neighbours_become_one),
        ONE(count_0_is_64_kib),
        ONE(odd_bits_are_no_bits),
        ONE(the_whole_table_may_be_entries_of_two_bytes),
        ONE(data_goes_up_to_the_last_byte_of_memory),
        ONE(the_start_bit_may_come_first),
        ONE(the_start_bit_may_come_late),
        ONE(a_start_bit_serves_one_command),
        ONE(a_start_that_was_taken_back_is_none),
        ONE(stopping_in_the_middle_lets_the_command_end),
        ONE(a_start_in_the_middle_is_for_the_next_command),
        ONE(the_start_bit_is_not_for_the_data_port),
        ONE(data_in_nowhere_is_a_fault),
        ONE(data_half_in_nowhere_is_a_fault),
        ONE(data_that_wraps_is_a_fault),
        ONE(a_table_in_nowhere_is_a_fault),
        ONE(a_table_that_leaves_memory_is_a_fault),
        ONE(a_table_without_end_is_a_fault),
        ONE(a_table_across_64_kib_is_a_fault),
        ONE(an_entry_across_64_kib_is_a_fault),
        ONE(the_directions_must_agree),
        ONE(chs_works_with_dma),
        ONE(the_48_bit_form_reaches_beyond_28_bits),
        ONE(count_0_is_65536_sectors),
        ONE(an_error_of_the_disk_is_none_of_the_bus_master),
        ONE(beyond_the_end_the_table_is_not_looked_at),
        TWO(the_second_drive_has_the_same_bus_master),
        ONE(trim_discards_ranges),
        ONE(trim_joins_what_belongs_together),
        ONE(trim_beyond_the_end_trims_nothing),
        ONE(trim_takes_1_to_8_blocks),
        ONE(other_data_set_management_aborts),
        ONE(trim_is_a_hint),
        ONE(trim_with_a_bad_table_is_a_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
