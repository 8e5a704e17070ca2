/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio block device as a well-behaved driver meets it: registers, negotiation, requests of
 * every kind and layout, queues, interrupts, the configuration space, reset.  The other kind of
 * driver: virtio-hostile.c.
 */
#include "tests/unit/virtio-rig.h"

/* --- Registers and negotiation ---------------------------------------------------------------- */

static void the_registers_say_what_it_is(void **state)
{
    assert_int_equal(reg(VIRTIO_MMIO_MAGIC), 0x74726976);
    assert_int_equal(reg(VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(reg(VIRTIO_MMIO_DEVICE_ID), 2);
    assert_int_not_equal(reg(VIRTIO_MMIO_VENDOR_ID), 0);
    set_reg(VIRTIO_MMIO_QUEUE_SEL, QUEUES - 1);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), RING_SIZE);
    set_reg(VIRTIO_MMIO_QUEUE_SEL, QUEUES);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    assert_int_equal(reg(VIRTIO_MMIO_SHM_LEN), UINT32_MAX);
}

static void control_registers_take_whole_words_only(void **state)
{
    uint64_t base = rig.dev->mmio_base;

    assert_int_equal(machine_mmio_read(base + VIRTIO_MMIO_MAGIC, 1), 0);
    assert_int_equal(machine_mmio_read(base + VIRTIO_MMIO_MAGIC, 8), 0);
    assert_int_equal(machine_mmio_read(base + VIRTIO_MMIO_MAGIC + 2, 4), 0);
    machine_mmio_write(base + VIRTIO_MMIO_STATUS, 0, 1);
    machine_mmio_write(base + VIRTIO_MMIO_STATUS, 0, 2);
    assert_alive();
    /* Beyond the block nobody answers. */
    assert_int_equal(machine_mmio_read(base + VIRTIO_MMIO_LEN, 4), UINT32_MAX);
    assert_int_equal(machine_mmio_read(base + VIRTIO_MMIO_LEN - 4, 4), 0);
}

/* What is not in the specification, or only for writing, reads as 0 and takes nothing. */
static void registers_that_are_not_there_do_nothing(void **state)
{
    static const uint32_t none[] = { 0x018, 0x01c, 0x028, 0x03c, 0x04c, 0x05c, 0x088, 0x098, 0x0c0, 0x0f8 };
    static const uint32_t write_only[] = { VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_QUEUE_SEL,
                                           VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_DESC };

    negotiate(ALL_FEATURES);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        set_reg(none[i], UINT32_MAX);
        assert_int_equal(reg(none[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(write_only); i++) {
        assert_int_equal(reg(write_only[i]), 0);
    }
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX); /* no third word */
    set_reg(VIRTIO_MMIO_QUEUE_SEL, QUEUES); /* no such queue */
    set_reg(VIRTIO_MMIO_QUEUE_NUM, 8);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    set_reg(VIRTIO_MMIO_QUEUE_NOTIFY, QUEUES);
    rig_up(ALL_FEATURES);
    assert_alive();
}

static void there_is_no_third_word_of_features(void **state)
{
    set_reg(VIRTIO_MMIO_STATUS, 0);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    for (uint32_t word = 2; word; word *= 2) {
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
        set_reg(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
        assert_int_equal(rig.mmio->driver_features, 0);
        set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
        assert_int_equal(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    }
}

static void features_want_a_driver(void **state)
{
    set_reg(VIRTIO_MMIO_STATUS, 0);
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_F_VERSION_1 >> 32);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_FEATURES_OK);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), VIRTIO_ACKNOWLEDGE);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
}

static void features_come_in_two_words_and_no_more(void **state)
{
    uint64_t features = 0;

    for (unsigned half = 0; half < 2; half++) {
        set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        features |= (uint64_t)reg(VIRTIO_MMIO_DEVICE_FEATURES) << (32 * half);
    }
    assert_int_equal(features, ALL_FEATURES);
    set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_int_equal(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, UINT32_MAX);
    assert_int_equal(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

static void features_are_refused_without_version_1(void **state)
{
    assert_int_equal(negotiate(VIRTIO_BLK_F_FLUSH) & VIRTIO_FEATURES_OK, 0);
    assert_int_equal(negotiate(VIRTIO_F_VERSION_1) & VIRTIO_FEATURES_OK, VIRTIO_FEATURES_OK);
}

static void features_that_were_not_offered_are_refused(void **state)
{
    assert_int_equal(negotiate(VIRTIO_F_VERSION_1 | 1u << 31) & VIRTIO_FEATURES_OK, 0);
    assert_int_equal(negotiate(VIRTIO_F_VERSION_1 | 1ull << 63) & VIRTIO_FEATURES_OK, 0);
}

static void features_are_final_once_accepted(void **state)
{
    negotiate(VIRTIO_F_VERSION_1);
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    set_reg(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
    assert_int_equal(rig.mmio->driver_features, VIRTIO_F_VERSION_1);
}

static void status_bits_are_only_added(void **state)
{
    uint32_t before = reg(VIRTIO_MMIO_STATUS);

    assert_int_equal(before, 15);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), before);
    set_reg(VIRTIO_MMIO_STATUS, before | VIRTIO_NEEDS_RESET);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), before);
}

static void driver_ok_wants_features_ok_first(void **state)
{
    set_reg(VIRTIO_MMIO_STATUS, 0);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
}

static void a_failed_driver_is_left_alone(void **state)
{
    set_reg(VIRTIO_MMIO_STATUS, 15 | VIRTIO_FAILED);
    put_header(VIRTIO_BLK_T_IN, 0);
    offer(0, chain(0, 0, rig.data, 512, true));
    kick(0);
    settle();
    assert_int_equal(used_idx(0), 0);
    rig_up(ALL_FEATURES);
    assert_alive();
}

static void a_reset_forgets_everything(void **state)
{
    assert_alive();
    set_reg(VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    assert_int_equal(rig.mmio->driver_features, 0);
    rig_up(VIRTIO_F_VERSION_1);
    assert_alive();
}

/* --- Requests --------------------------------------------------------------------------------- */

static void reads_arrive_and_are_counted_to_the_byte(void **state)
{
    uint32_t len;

    put_header(VIRTIO_BLK_T_IN, 5);
    assert_int_equal(answer_of(0, chain(0, 0, rig.data, 8192, true), &len), VIRTIO_BLK_S_OK);
    assert_int_equal(len, 8193);
    assert_memory_equal(rig.data_p, fake.bytes + 5 * 512, 8192);
    assert_int_equal(rig.causes, VIRTIO_INTERRUPT_USED);
}

static void writes_arrive(void **state)
{
    uint32_t len;

    memset(rig.data_p, 0x5a, 4096);
    put_header(VIRTIO_BLK_T_OUT, 2047 - 7);
    assert_int_equal(answer_of(0, chain(0, 0, rig.data, 4096, false), &len), VIRTIO_BLK_S_OK);
    assert_int_equal(len, 1);
    assert_memory_equal(fake.bytes + DISK_BYTES - 4096, rig.data_p, 4096);
    assert_int_equal(fake.calls[DISK_FLUSH], 0);
}

static void a_flush_is_a_flush(void **state)
{
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
}

static void the_id_is_the_disks_name(void **state)
{
    memset(rig.data_p, 0xff, 64);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, "virtio0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(rig.data_p[20], 0xff);
    fake.disk.label = (char *)"a-name-that-is-longer-than-the-field";
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, "a-name-that-is-longer", 20);
    assert_int_equal(rig.data_p[20], 0xff);
    rig.dev->identity.serial = "S-1";
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, "S-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
}

static void put_segment(unsigned at, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    store_le64(rig.data_p + 16 * at, sector);
    store_le32(rig.data_p + 16 * at + 8, sectors);
    store_le32(rig.data_p + 16 * at + 12, flags);
}

static void discard_takes_several_segments(void **state)
{
    put_segment(0, 0, 2, 0);
    put_segment(1, 2046, 2, 0);
    put_segment(2, 100, 0, 0);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 48, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_UNMAP], 2);
    assert_int_equal(fake.bytes[1023], 0xdd);
    assert_int_equal(fake.bytes[DISK_BYTES - 1024], 0xdd);
    assert_int_not_equal(fake.bytes[1024 + 3], 0xdd);
}

static void write_zeroes_passes_the_unmap_flag_on(void **state)
{
    put_segment(0, 8, 8, VIRTIO_BLK_SEGMENT_UNMAP);
    assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_OK);
    assert_true(fake.unmap);
    assert_true(bytes_are_zero(fake.bytes + 4096, 4096));
    put_segment(0, 16, 8, 0);
    assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_OK);
    assert_false(fake.unmap);
    assert_int_equal(fake.zeroes, 2);
}

static void host_errors_reach_the_status_byte(void **state)
{
    uint32_t len;

    fake.error = -EIO;
    put_header(VIRTIO_BLK_T_IN, 0);
    assert_int_equal(answer_of(0, chain(0, 0, rig.data, 512, true), &len), VIRTIO_BLK_S_IOERR);
    assert_int_equal(len, 0);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(fake.invalid, 0);
    fake.error = -ENOTSUP;
    put_segment(0, 0, 1, 0);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    fake.error = 0;
    assert_alive();
}

/* Section 2.7.4: where one descriptor ends and the next begins means nothing. */
static void any_layout_of_a_request_is_understood(void **state)
{
    uint8_t *desc = rig.rings[0].desc;

    /* The header in two parts, the second with data behind it; status alone. */
    memset(rig.header_p + 16, 0x77, 112);
    memset(rig.data_p, 0x88, 512 - 112);
    put_header(VIRTIO_BLK_T_OUT, 3);
    put(desc, 4, rig.header, 5, VIRTQ_DESC_NEXT, 9);
    put(desc, 9, rig.header + 5, 11 + 112, VIRTQ_DESC_NEXT, 2);
    put(desc, 2, rig.data, 512 - 112, VIRTQ_DESC_NEXT, 7);
    put(desc, 7, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 4, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.bytes[3 * 512 + 111], 0x77);
    assert_int_equal(fake.bytes[3 * 512 + 112], 0x88);
    assert_int_equal(fake.bytes[3 * 512 + 511], 0x88);

    /* Data and status in one descriptor. */
    put_header(VIRTIO_BLK_T_IN, 3);
    put(desc, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc, 1, rig.data, 100, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 2);
    put(desc, 2, rig.status - 412, 413, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes + 3 * 512, 100);
    assert_memory_equal(rig.status_p - 412, fake.bytes + 3 * 512 + 100, 412);
}

static void a_chain_of_any_length_works(void **state)
{
    uint8_t *desc = rig.rings[0].desc;

    put_header(VIRTIO_BLK_T_IN, 0);
    put(desc, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    for (unsigned i = 1; i < RING_SIZE - 1; i++) {
        put(desc, i, rig.data + 512 * (i - 1), 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, i + 1);
    }
    put(desc, RING_SIZE - 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes, 512 * (RING_SIZE - 2));
}

static void indirect_tables_work(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 9);
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 2);
    put(rig.table_p, 2, rig.data, 1024, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 1);
    put(rig.table_p, 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    put(rig.rings[0].desc, 11, rig.table, 48, VIRTQ_DESC_INDIRECT, 0);
    assert_int_equal(answer_of(0, 11, NULL), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes + 9 * 512, 1024);
    /* A table may lie at an odd address. */
    memmove(rig.table_p + 1, rig.table_p, 48);
    put(rig.rings[0].desc, 11, rig.table + 1, 48, VIRTQ_DESC_INDIRECT, 0);
    memset(rig.data_p, 0, 1024);
    assert_int_equal(answer_of(0, 11, NULL), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes + 9 * 512, 1024);
}

/* Section 2.7.5.3.2. */
static void an_indirect_table_may_end_a_plain_chain(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 0);
    put(rig.rings[0].desc, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(rig.rings[0].desc, 1, rig.table, 32, VIRTQ_DESC_INDIRECT, 0);
    put(rig.table_p, 0, rig.data, 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 1);
    put(rig.table_p, 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_memory_equal(rig.data_p, fake.bytes, 512);
}

/* --- Rings ------------------------------------------------------------------------------------ */

static void indices_wrap_around(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 1);
    for (unsigned i = 0; i < RING_SIZE; i += 2) {
        chain(0, i & ~1u, rig.data, 0, true);
    }
    /* 70,000 reads of nothing: two descriptors each, eight at once. */
    for (unsigned batch = 0; batch < 70000 / 8; batch++) {
        for (unsigned i = 0; i < 8; i++) {
            offer(0, 2 * i);
        }
        kick(0);
        settle();
        for (unsigned i = 0; i < 8; i++) {
            take_used(0, NULL);
        }
        assert_int_equal(used_idx(0), rig.rings[0].seen);
    }
    assert_alive();
}

static void queues_do_not_mind_each_other(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(0, chain(0, 0, rig.data, 512, true));
    kick(0);
    settle();
    fake.hold = false;
    put_header(VIRTIO_BLK_T_GET_ID, 0);
    assert_int_equal(answer_of(2, chain(2, 5, rig.data, 20, true), NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(used_idx(0), 0);
    assert_int_equal(used_idx(1), 0);
    release();
    settle();
    assert_int_equal(take_used(0, NULL), 0);
}

static void what_ends_together_is_shown_together(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    for (unsigned i = 0; i < 5; i++) {
        offer(0, chain(0, 3 * i, rig.data, 512, true));
    }
    kick(0);
    settle();
    assert_int_equal(fake.calls[DISK_READ], 5);
    release();
    settle();
    assert_int_equal(used_idx(0), 5);
    assert_int_equal(rig.interrupts, 1);
}

static void the_event_index_holds_interrupts_back(void **state)
{
    store_le16(rig.rings[0].avail + 4 + 2 * RING_SIZE, 2); /* used_event: tell me of the third */
    for (unsigned i = 0; i < 4; i++) {
        request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
        assert_int_equal(rig.interrupts, i >= 2);
    }
}

static void the_event_index_asks_for_the_next_notification(void **state)
{
    request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
    request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
    assert_int_equal(load_le16(rig.rings[0].used + 4 + 8 * RING_SIZE), 2);
}

static void flags_hold_interrupts_back_without_the_event_index(void **state)
{
    rig_up(ALL_FEATURES & ~VIRTIO_F_EVENT_IDX);
    store_le16(rig.rings[0].avail, VIRTQ_AVAIL_NO_INTERRUPT);
    request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
    assert_int_equal(rig.interrupts, 0);
    store_le16(rig.rings[0].avail, 0);
    request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
    assert_int_equal(rig.interrupts, 1);
    assert_int_equal(load_le16(rig.rings[0].used), 0);
    /* No event index: the words behind the rings are not touched. */
    assert_int_equal(load_le16(rig.rings[0].used + 4 + 8 * RING_SIZE), 0);
}

static void chains_that_wait_for_driver_ok_are_found(void **state)
{
    negotiate(ALL_FEATURES);
    ring_up(0);
    put_header(VIRTIO_BLK_T_FLUSH, 0);
    offer(0, chain(0, 0, 0, 0, false));
    kick(0);
    settle();
    assert_int_equal(fake.calls[DISK_FLUSH], 0);
    set_reg(VIRTIO_MMIO_STATUS, 15);
    settle();
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
    assert_int_equal(used_idx(0), 1);
}

static void a_queue_is_stopped_when_its_last_request_is_done(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(1, chain(1, 0, rig.data, 512, true));
    kick(1);
    settle();
    set_reg(VIRTIO_MMIO_QUEUE_SEL, 1);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
    offer(1, chain(1, 3, rig.data, 512, true)); /* too late */
    kick(1);
    release();
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    assert_int_equal(used_idx(1), 1);
    assert_int_equal(fake.calls[DISK_READ], 1);
    assert_alive();
    ring_up(1);
    put_header(VIRTIO_BLK_T_IN, 1);
    assert_int_equal(answer_of(1, chain(1, 0, rig.data, 512, true), NULL), VIRTIO_BLK_S_OK);
}

static void a_queue_without_requests_is_stopped_at_once(void **state)
{
    set_reg(VIRTIO_MMIO_QUEUE_SEL, 1);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 0); /* it is */
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(1, chain(1, 0, rig.data, 512, true));
    kick(1);
    settle();
    assert_int_equal(used_idx(1), 0);
    assert_int_equal(fake.calls[DISK_READ], 0);
    assert_alive();
    ring_up(1);
    put_header(VIRTIO_BLK_T_IN, 1);
    assert_int_equal(answer_of(1, chain(1, 0, rig.data, 512, true), NULL), VIRTIO_BLK_S_OK);
}

static void a_queue_of_two_requests_is_stopped_after_the_second(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(1, chain(1, 0, rig.data, 512, true));
    offer(1, chain(1, 3, rig.data + 512, 512, true));
    kick(1);
    settle();
    set_reg(VIRTIO_MMIO_QUEUE_SEL, 1);
    set_reg(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
    release();
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    assert_int_equal(used_idx(1), 2);
    assert_alive();
}

/* --- Reset with requests in flight ------------------------------------------------------------ */

static void a_reset_waits_for_the_host_and_drops_the_results(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    *rig.status_p = 0xee;
    offer(0, chain(0, 0, rig.data, 512, true));
    offer(0, chain(0, 3, rig.data, 512, true));
    kick(0);
    settle();
    set_reg(VIRTIO_MMIO_STATUS, 0);
    assert_int_not_equal(reg(VIRTIO_MMIO_STATUS), 0); /* not yet: the host may still write */
    assert_true(fake.cancelling);
    set_reg(VIRTIO_MMIO_STATUS, VIRTIO_ACKNOWLEDGE); /* ignored until the reset is over */
    set_reg(VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(fake.cancels, 2); /* the one in rig_up() and this one */
    release();
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    assert_false(fake.cancelling);
    assert_int_equal(used_idx(0), 0);
    assert_int_equal(*rig.status_p, 0xee);
    assert_int_equal(rig.interrupts, 0);
    rig_up(ALL_FEATURES);
    assert_alive();
}

static void results_that_were_not_shown_yet_are_dropped_as_well(void **state)
{
    put_header(VIRTIO_BLK_T_FLUSH, 0);
    offer(0, chain(0, 0, 0, 0, false));
    kick(0); /* done at once, to be shown in the next turn */
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
    set_reg(VIRTIO_MMIO_STATUS, 0);
    settle();
    assert_int_equal(used_idx(0), 0);
    assert_int_equal(rig.interrupts, 0);
}

static void machine_reset(void *arg)
{
    rig.dev->kind->co_reset(rig.dev);
    *(bool *)arg = true;
}

static CO_ENTRY void release_later(void *arg)
{
    co_sleep_ns(NS_PER_MS);
    release();
}

static void the_machines_reset_returns_when_it_is_over(void **state)
{
    bool done = false;

    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(0, chain(0, 0, rig.data, 512, true));
    kick(0);
    co_start(release_later, NULL);
    co_start(machine_reset, &done);
    assert_false(done);
    settle();
    assert_true(done);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    assert_int_equal(used_idx(0), 0);
}

/* --- Configuration ---------------------------------------------------------------------------- */

static void the_configuration_tells_the_disk(void **state)
{
    assert_int_equal(config(VIRTIO_BLK_CAPACITY, 8), DISK_BYTES / 512);
    assert_int_equal(config(VIRTIO_BLK_CAPACITY, 4), DISK_BYTES / 512);
    assert_int_equal(config(VIRTIO_BLK_SEG_MAX, 4), RING_SIZE - 2);
    assert_int_equal(config(VIRTIO_BLK_BLK_SIZE, 4), 512);
    assert_int_equal(config(VIRTIO_BLK_NUM_QUEUES, 2), QUEUES);
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 1);
    assert_int_equal(config(VIRTIO_BLK_MAX_DISCARD_SEG, 4), RANGE_SEGMENTS);
    assert_int_equal(config(VIRTIO_BLK_CONFIG_LEN, 1), 0);
    assert_int_equal(config(VIRTIO_BLK_CONFIG_LEN - 1, 4), 0);
    assert_true((uint64_t)config(VIRTIO_BLK_SIZE_MAX, 4) * config(VIRTIO_BLK_SEG_MAX, 4) <=
                NODE_REQUEST_MAX);
}

static void a_resize_is_told_and_counts(void **state)
{
    uint32_t generation = reg(VIRTIO_MMIO_CONFIG_GENERATION);

    fake.size = 2 * 512;
    fake.disk.on_resize(&fake.disk, fake.disk.dev_arg);
    settle();
    assert_int_equal(rig.causes, VIRTIO_INTERRUPT_CONFIG);
    assert_int_not_equal(reg(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert_int_equal(config(VIRTIO_BLK_CAPACITY, 8), 2);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 2, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 1, 512, true), VIRTIO_BLK_S_OK);
}

static void nobody_acknowledges(void *arg)
{
    rig.interrupts++;
}

static void the_line_is_up_until_the_last_cause_is_acknowledged(void **state)
{
    irq_attach(rig.mmio->irq, nobody_acknowledges, NULL);
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(0, chain(0, 0, rig.data, 512, true));
    kick(0);
    settle();
    fake.disk.on_resize(&fake.disk, fake.disk.dev_arg);
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED | VIRTIO_INTERRUPT_CONFIG);
    set_reg(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_USED);
    assert_true(rig.mmio->irq->level);
    set_reg(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_CONFIG);
    assert_false(rig.mmio->irq->level);
}

/* A driver that is being reset hears of it when it reads the configuration again. */
static void a_resize_during_a_reset_interrupts_nobody(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 1);
    offer(0, chain(0, 0, rig.data, 512, true));
    kick(0);
    settle();
    set_reg(VIRTIO_MMIO_STATUS, 0);
    fake.size = 2 * 512;
    fake.disk.on_resize(&fake.disk, fake.disk.dev_arg);
    settle();
    assert_int_equal(rig.causes, 0);
    release();
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    rig_up(ALL_FEATURES);
    assert_int_equal(config(VIRTIO_BLK_CAPACITY, 8), 2);
}

static void the_driver_can_turn_the_write_cache_off(void **state)
{
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 0);
    machine_mmio_write(rig.dev->mmio_base + VIRTIO_MMIO_CONFIG + VIRTIO_BLK_WRITEBACK, 0, 1);
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 0);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
    rig_up(ALL_FEATURES);
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 1);
}

static void other_bytes_of_the_configuration_are_not_writable(void **state)
{
    uint64_t base = rig.dev->mmio_base + VIRTIO_MMIO_CONFIG;

    machine_mmio_write(base + VIRTIO_BLK_CAPACITY, UINT64_MAX, 8);
    machine_mmio_write(base + VIRTIO_BLK_CONFIG_LEN, 1, 1);
    machine_mmio_write(base + VIRTIO_BLK_CONFIG_LEN - 2, 1, 4);
    assert_int_equal(config(VIRTIO_BLK_CAPACITY, 8), DISK_BYTES / 512);
    rig_up(ALL_FEATURES & ~VIRTIO_BLK_F_CONFIG_WCE);
    machine_mmio_write(base + VIRTIO_BLK_WRITEBACK, 0, 1);
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 1);
}

/* Section 3.1.1: the features are agreed on before the configuration is written. */
static void the_configuration_is_not_writable_before_the_features_are_agreed_on(void **state)
{
    set_reg(VIRTIO_MMIO_STATUS, 0);
    settle();
    machine_mmio_write(rig.dev->mmio_base + VIRTIO_MMIO_CONFIG + VIRTIO_BLK_WRITEBACK, 0, 1);
    rig_up(ALL_FEATURES);
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 1);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 0);
}

/* Section 5.2.6.2: nobody who cannot flush may need to. */
static void writes_are_stable_for_a_driver_that_does_not_flush(void **state)
{
    rig_up(VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_WRITE_ZEROES);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
    put_segment(0, 0, 1, 0);
    assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_FLUSH], 2);
}

static int setup_read_only(void **state)
{
    rig_new(1, RING_SIZE, true);
    return 0;
}

static void a_read_only_disk_says_so_and_refuses_writes(void **state)
{
    set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    uint32_t features = reg(VIRTIO_MMIO_DEVICE_FEATURES);

    assert_true(features & VIRTIO_BLK_F_RO);
    assert_false(features & FEATURES_WRITABLE);
    assert_true(negotiate(features | VIRTIO_F_VERSION_1) & VIRTIO_FEATURES_OK);
    ring_up(0);
    set_reg(VIRTIO_MMIO_STATUS, 15);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(fake.calls[DISK_WRITE], 0);
    assert_alive();
}

static int setup_writethrough(void **state)
{
    rig_new(QUEUES, RING_SIZE, false);
    loop_run_co(rig_remove, NULL);
    fake.root.writethrough = true;
    fake.root.cluster_size = 65536;
    fake.disk.root = &fake.root;
    rig.dev = virtio_blk_new(&fake.disk, 1, 64);
    rig.mmio = &CONTAINER_OF(rig.dev, struct virtio_blk, dev)->mmio;
    return 0;
}

static void the_configuration_tells_the_image(void **state)
{
    assert_int_equal(config(VIRTIO_BLK_WRITEBACK, 1), 0);
    assert_int_equal(config(VIRTIO_BLK_OPT_IO, 4), 128);
    assert_int_equal(config(VIRTIO_BLK_DISCARD_ALIGNMENT, 4), 128);
    assert_int_equal(config(VIRTIO_BLK_SEG_MAX, 4), 62);
    assert_int_equal(config(VIRTIO_BLK_NUM_QUEUES, 2), 1);
}

static void every_device_has_a_register_block_of_its_own(void **state)
{
    struct machine_device *first = rig.dev, *second, *third;

    second = virtio_blk_new(&fake.disk, 1, 16);
    assert_int_equal(second->mmio_base, first->mmio_base + MACHINE_MMIO_STRIDE);
    loop_run_co(rig_remove, NULL);
    rig.dev = second;
    third = virtio_blk_new(&fake.disk, 1, 16);
    assert_int_equal(third->mmio_base, MACHINE_MMIO_BASE);
    loop_run_co(rig_remove, NULL);
    rig.dev = third;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_registers_say_what_it_is),
        TEST(control_registers_take_whole_words_only),
        TEST(registers_that_are_not_there_do_nothing),
        TEST(there_is_no_third_word_of_features),
        TEST(features_want_a_driver),
        TEST(features_come_in_two_words_and_no_more),
        TEST(features_are_refused_without_version_1),
        TEST(features_that_were_not_offered_are_refused),
        TEST(features_are_final_once_accepted),
        TEST(status_bits_are_only_added),
        TEST(driver_ok_wants_features_ok_first),
        TEST(a_failed_driver_is_left_alone),
        TEST(a_reset_forgets_everything),
        TEST(reads_arrive_and_are_counted_to_the_byte),
        TEST(writes_arrive),
        TEST(a_flush_is_a_flush),
        TEST(the_id_is_the_disks_name),
        TEST(discard_takes_several_segments),
        TEST(write_zeroes_passes_the_unmap_flag_on),
        TEST(host_errors_reach_the_status_byte),
        TEST(any_layout_of_a_request_is_understood),
        TEST(a_chain_of_any_length_works),
        TEST(indirect_tables_work),
        TEST(an_indirect_table_may_end_a_plain_chain),
        TEST(indices_wrap_around),
        TEST(queues_do_not_mind_each_other),
        TEST(what_ends_together_is_shown_together),
        TEST(the_event_index_holds_interrupts_back),
        TEST(the_event_index_asks_for_the_next_notification),
        TEST(flags_hold_interrupts_back_without_the_event_index),
        TEST(chains_that_wait_for_driver_ok_are_found),
        TEST(a_queue_without_requests_is_stopped_at_once),
        TEST(a_queue_of_two_requests_is_stopped_after_the_second),
        TEST(a_resize_during_a_reset_interrupts_nobody),
        TEST(the_line_is_up_until_the_last_cause_is_acknowledged),
        TEST(a_queue_is_stopped_when_its_last_request_is_done),
        TEST(a_reset_waits_for_the_host_and_drops_the_results),
        TEST(results_that_were_not_shown_yet_are_dropped_as_well),
        TEST(the_machines_reset_returns_when_it_is_over),
        TEST(the_configuration_tells_the_disk),
        TEST(a_resize_is_told_and_counts),
        TEST(the_driver_can_turn_the_write_cache_off),
        TEST(other_bytes_of_the_configuration_are_not_writable),
        TEST(the_configuration_is_not_writable_before_the_features_are_agreed_on),
        TEST(writes_are_stable_for_a_driver_that_does_not_flush),
        cmocka_unit_test_setup_teardown(a_read_only_disk_says_so_and_refuses_writes,
                                        setup_read_only, rig_teardown),
        cmocka_unit_test_setup_teardown(the_configuration_tells_the_image, setup_writethrough,
                                        rig_teardown),
        TEST(every_device_has_a_register_block_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
