/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Partition tables on disks of memory: MBR with logical partitions, GPT and its spare, and what is
 * no table.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/guest-partitions.h"

#define SECTORS 20000u

static uint8_t disk[SECTORS * 512];
static unsigned reads, good_reads; /* as many go well before one fails */
static int fail_with;
static struct partition_table table;

static int setup(void **state)
{
    memset(disk, 0, sizeof(disk));
    reads = good_reads = 0;
    fail_with = 0;
    return 0;
}

static int teardown(void **state)
{
    partition_table_free(&table);
    return 0;
}

static int co_fake_read(void *arg, uint64_t offset, uint32_t len, const uint8_t **data)
{
    assert_true(len <= PARTITION_READ_MAX && len % 512 == 0 && offset % 512 == 0 &&
                offset + len <= sizeof(disk));
    assert_true(++reads < 1000);
    *data = disk + offset;
    return reads > good_reads ? fail_with : 0;
}

/* Nothing here suspends, so no coroutine is needed. */
static int co_look(void)
{
    partition_table_free(&table);
    return co_partition_table_read(&table, sizeof(disk), co_fake_read, NULL);
}

static void see(const char *kind, unsigned count)
{
    assert_int_equal(co_look(), 0);
    assert_string_equal(table.kind, kind);
    assert_int_equal(table.count, count);
}

static void mbr_entry(uint32_t sector, unsigned i, uint8_t type, uint32_t first, uint32_t count)
{
    uint8_t *s = disk + (uint64_t)sector * 512, *e = s + 446 + 16 * i;

    e[4] = type;
    store_le32(e + 8, first);
    store_le32(e + 12, count);
    s[510] = 0x55;
    s[511] = 0xaa;
}

static void has(unsigned i, unsigned number, uint64_t first, uint64_t sectors, const char *type)
{
    assert_int_equal(table.partitions[i].number, number);
    assert_int_equal(table.partitions[i].offset, first * 512);
    assert_int_equal(table.partitions[i].len, sectors * 512);
    assert_string_equal(table.partitions[i].type, type);
}

static void an_empty_disk_has_none(void **state)
{
    see("none", 0);
    memset(disk, 0xff, sizeof(disk));
    see("none", 0);
}

static void a_boot_sector_of_a_file_system_is_no_table(void **state)
{
    memset(disk + 446, 0x4d, 64);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    see("none", 0);
}

static void a_table_without_signature_or_entries_is_none(void **state)
{
    mbr_entry(0, 0, 0x83, 63, 1000);
    disk[511] = 0;
    see("none", 0);
    disk[511] = 0xaa;
    see("mbr", 1);
    store_le32(disk + 446 + 12, 0); /* no sectors */
    see("none", 0);
}

static void an_mbr_has_primary_and_logical_partitions(void **state)
{
    mbr_entry(0, 0, 0x83, 63, 1000);
    mbr_entry(0, 2, 0x05, 2000, 8000);
    mbr_entry(2000, 0, 0x82, 10, 500);   /* relative to its own sector */
    mbr_entry(2000, 1, 0x05, 3000, 600); /* relative to the extended partition */
    mbr_entry(5000, 0, 0x83, 20, 400);
    see("mbr", 4);
    has(0, 1, 63, 1000, "83");
    has(1, 3, 2000, 8000, "05");
    has(2, 5, 2010, 500, "82");
    has(3, 6, 5020, 400, "83");
}

static void the_first_extended_partition_has_the_logical_ones(void **state)
{
    mbr_entry(0, 0, 0x85, 2000, 8000);
    mbr_entry(0, 1, 0x05, 12000, 1000);
    mbr_entry(0, 2, 0x83, 100, 0);
    mbr_entry(2000, 0, 0x82, 10, 500);
    mbr_entry(12000, 0, 0x83, 10, 400);
    see("mbr", 3);
    has(0, 1, 2000, 8000, "85");
    has(1, 2, 12000, 1000, "05");
    has(2, 5, 2010, 500, "82");
}

static void a_chain_of_logical_partitions_ends_where_nothing_is(void **state)
{
    mbr_entry(0, 0, 0x05, 2000, 8000);
    see("mbr", 1); /* not one of them has been made */
    mbr_entry(2000, 1, 0x05, 3000, 600);
    see("mbr", 1); /* room for one was left */
    mbr_entry(2000, 1, 0x05, SECTORS, 600);
    see("mbr", 1); /* beyond the disk */
}

static void partitions_beyond_the_disk_are_left_out(void **state)
{
    mbr_entry(0, 0, 0x83, 63, SECTORS);
    mbr_entry(0, 1, 0x83, SECTORS - 1, 1);
    mbr_entry(0, 2, 0x83, UINT32_MAX, UINT32_MAX);
    see("mbr", 1);
    has(0, 2, SECTORS - 1, 1, "83");
}

static void a_chain_that_goes_round_ends(void **state)
{
    mbr_entry(0, 0, 0x0f, 100, 1000);
    mbr_entry(100, 1, 0x05, 100, 1); /* to 200 */
    mbr_entry(200, 1, 0x05, 0, 1);   /* and back */
    see("mbr", 1);
    assert_true(reads < 5);
    for (unsigned i = 1; i < 900; i++) { /* upwards, sector by sector */
        mbr_entry(100 + i - 1, 1, 0x05, i, 1);
    }
    see("mbr", 1);
    assert_true(reads < 300);
}

static void gpt_sums(uint64_t header, uint32_t entries_bytes)
{
    uint8_t *h = disk + header * 512;

    store_le32(h + 88, crc32(0, disk + load_le64(h + 72) * 512, entries_bytes));
    store_le32(h + 16, 0);
    store_le32(h + 16, crc32(0, h, load_le32(h + 12)));
}

static void gpt(uint64_t header, uint64_t entries, uint32_t count, uint32_t size)
{
    uint8_t *h = disk + header * 512, *e = disk + entries * 512;

    mbr_entry(0, 0, 0xee, 1, SECTORS - 1);
    memcpy(h, "EFI PART", 8);
    store_le32(h + 8, 0x10000);
    store_le32(h + 12, 92);
    store_le64(h + 24, header);
    store_le64(h + 72, entries);
    store_le32(h + 80, count);
    store_le32(h + 84, size);
    for (unsigned i = 0; i < 2;
         i++, e += 40 * size) { /* entries 1 and 41: the latter in the second read of 4 KiB */
        memcpy(e, "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", 16);
        store_le64(e + 32, 2048 * (i + 1));
        store_le64(e + 40, 2048 * (i + 2) - 1);
    }
    gpt_sums(header, count * size);
}

static void see_gpt(void)
{
    see("gpt", 2);
    has(0, 1, 2048, 2048, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    has(1, 41, 4096, 2048, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
}

static void a_gpt_is_read(void **state)
{
    gpt(1, 2, 128, 128);
    see_gpt();
}

static void a_broken_gpt_is_replaced_by_its_spare(void **state)
{
    gpt(1, 2, 128, 128);
    gpt(SECTORS - 1, SECTORS - 33, 128, 128);
    disk[2 * 512 + 100]++; /* the first one's entries */
    see_gpt();
    disk[512]++;
    see_gpt();
    disk[(SECTORS - 1) * 512 + 40]++;
    see("none", 0);
}

static void hostile_gpts_are_none(void **state)
{
    static const uint32_t bad[][2] = { { 128, 64 }, { 128, 200 },         { 128, 8192 },
                                       { 128, 0 },  { UINT32_MAX, 4096 }, { 1, UINT32_MAX } };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        setup(NULL);
        gpt(1, 2, 128, 128);
        store_le32(disk + 512 + 80, bad[i][0]);
        store_le32(disk + 512 + 84, bad[i][1]);
        gpt_sums(1, 0);
        see("none", 0);
    }
    setup(NULL);
    gpt(1, 2, 128, 128);
    store_le64(disk + 512 + 72, UINT64_MAX / 512); /* entries far away */
    store_le32(disk + 512 + 16, 0);
    store_le32(disk + 512 + 16, crc32(0, disk + 512, 92));
    see("none", 0);
    setup(NULL);
    gpt(1, 2, 128, 128);
    store_le32(disk + 512 + 12, UINT32_MAX); /* a header that never ends */
    see("none", 0);
}

static void entries_that_make_no_sense_are_left_out(void **state)
{
    uint8_t *e = disk + 2 * 512;

    gpt(1, 2, 128, 128);
    for (unsigned i = 2; i < 4; i++) {
        memcpy(e + i * 128, e, 128);
    }
    store_le64(e + 2 * 128 + 40, 2047);          /* ends before it begins */
    store_le64(e + 3 * 128 + 40, SECTORS + 100); /* ends beyond the disk */
    gpt_sums(1, 128 * 128);
    see_gpt();
}

static void a_header_is_believed_at_its_own_place_only(void **state)
{
    gpt(1, 2, 128, 128);
    store_le64(disk + 512 + 24, 2); /* a copy of what belongs elsewhere */
    gpt_sums(1, 128 * 128);
    see("none", 0);
    gpt(1, 2, 128, 128);
    store_le32(disk + 512 + 12, 91); /* too short for its own members */
    gpt_sums(1, 128 * 128);
    see("none", 0);
    gpt(1, 2, 128, 128);
    store_le64(disk + 512 + 72, SECTORS); /* entries behind the last sector */
    store_le32(disk + 512 + 16, 0);
    store_le32(disk + 512 + 16, crc32(0, disk + 512, 92));
    see("none", 0);
}

static void a_table_of_which_a_part_cannot_be_read_is_called_unreadable(void **state)
{
    mbr_entry(0, 0, 0x05, 2000, 8000);
    mbr_entry(2000, 0, 0x82, 10, 500);
    fail_with = -EIO;
    good_reads = 1;
    assert_int_equal(co_look(), -EIO);
    assert_string_equal(table.kind, "unreadable");
    assert_int_equal(table.count, 1); /* what was read before */
    setup(NULL);
    gpt(1, 2, 128, 128);
    fail_with = -EIO;
    good_reads = 3; /* its first entries; the spare table cannot be read either */
    assert_int_equal(co_look(), -EIO);
    assert_string_equal(table.kind, "unreadable");
    assert_int_equal(table.count, 0);
}

static void a_disk_that_cannot_be_read_is_called_so(void **state)
{
    fail_with = -EIO;
    assert_int_equal(co_look(), -EIO);
    assert_string_equal(table.kind, "unreadable");
    partition_table_free(&table);
    assert_int_equal(co_partition_table_read(&table, 0, co_fake_read, NULL), 0);
    assert_string_equal(table.kind, "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_disk_has_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_boot_sector_of_a_file_system_is_no_table, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_table_without_signature_or_entries_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_extended_partition_has_the_logical_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(a_chain_of_logical_partitions_ends_where_nothing_is, setup, teardown),
        cmocka_unit_test_setup_teardown(entries_that_make_no_sense_are_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_header_is_believed_at_its_own_place_only, setup, teardown),
        cmocka_unit_test_setup_teardown(a_table_of_which_a_part_cannot_be_read_is_called_unreadable, setup, teardown),
        cmocka_unit_test_setup_teardown(an_mbr_has_primary_and_logical_partitions, setup, teardown),
        cmocka_unit_test_setup_teardown(partitions_beyond_the_disk_are_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_chain_that_goes_round_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(a_gpt_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_broken_gpt_is_replaced_by_its_spare, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_gpts_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_cannot_be_read_is_called_so, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
