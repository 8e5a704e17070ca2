/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio block device under attack by its guest.  Every case must end in an error status or in
 * DEVICE_NEEDS_RESET, and the device must be well afterwards: as it is after an error status, after
 * a reset otherwise.  What must not happen (a crash, an access outside of guest memory or of the
 * disk, an endless loop) is watched by the bench's disk, by asserts and by the sanitizers.
 */
#include "tests/unit/virtio-rig.h"

/* The device has given up, has said so, and a reset brings it back. */
static void assert_needs_reset(void)
{
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET, VIRTIO_NEEDS_RESET);
    assert_true(rig.causes & VIRTIO_INTERRUPT_CONFIG);
    /* Deaf until then. */
    unsigned calls = fake.calls[DISK_FLUSH];

    put_header(VIRTIO_BLK_T_FLUSH, 0);
    offer(1, chain(1, 0, 0, 0, false));
    kick(1);
    settle();
    assert_int_equal(fake.calls[DISK_FLUSH], calls);
    rig_up(ALL_FEATURES);
    assert_alive();
}

/* Offer a chain that the device cannot even walk. */
static void assert_breaks_the_ring(uint16_t head)
{
    uint16_t before = used_idx(0);

    offer(0, head);
    kick(0);
    settle();
    assert_int_equal(used_idx(0), before);
    assert_needs_reset();
}

static uint8_t *desc0(void)
{
    return rig.rings[0].desc;
}

/* --- Requests: an error status ---------------------------------------------------------------- */

static void unknown_types_are_unsupported(void **state)
{
    static const uint32_t types[] = { 2,  3,  5,  6,  7,  9,          10,
                                      12, 14, 15, 16, 99, 0x80000000, UINT32_MAX };

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        assert_int_equal(request(types[i], 0, 512, true), VIRTIO_BLK_S_UNSUPP);
        assert_int_equal(request(types[i], 0, 0, true), VIRTIO_BLK_S_UNSUPP);
    }
    assert_alive();
}

static void what_was_not_negotiated_is_unsupported(void **state)
{
    rig_up(VIRTIO_F_VERSION_1);
    store_le64(rig.data_p, 0);
    store_le64(rig.data_p + 8, 1);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(fake.calls[DISK_UNMAP] + fake.zeroes, 0);
    assert_alive();
}

static void parts_of_a_sector_are_refused(void **state)
{
    static const uint32_t lengths[] = { 1, 511, 513, 4095, 65535 };

    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(request(VIRTIO_BLK_T_IN, 0, lengths[i], true), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, lengths[i], false), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE], 0);
    assert_int_equal(fake.invalid, 2 * ARRAY_SIZE(lengths));
    assert_alive();
}

static void sectors_beyond_the_end_are_refused(void **state)
{
    static const uint64_t sectors[] = { 2047, 2048, UINT32_MAX, 1ull << 55, (1ull << 55) - 1,
                                        INT64_MAX, UINT64_MAX, UINT64_MAX - 1 };

    for (unsigned i = 0; i < ARRAY_SIZE(sectors); i++) {
        assert_int_equal(request(VIRTIO_BLK_T_IN, sectors[i], 1024, true), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(VIRTIO_BLK_T_OUT, sectors[i], 1024, false), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE], 0);
    assert_alive();
}

static void more_than_the_whole_disk_is_refused(void **state)
{
    fake.size = 4 * 512;
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 8 * 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, UINT64_MAX - 3, 8 * 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 5 * 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE], 0);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 4 * 512, false), VIRTIO_BLK_S_OK);
}

static void a_transfer_of_nothing_is_done_without_the_disk(void **state)
{
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 0, false), VIRTIO_BLK_S_OK);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 0, true), VIRTIO_BLK_S_OK);
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE], 0);
    assert_alive();
}

static void a_short_header_is_refused(void **state)
{
    put(desc0(), 0, rig.header, 15, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
    put(desc0(), 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 1, NULL), VIRTIO_BLK_S_IOERR); /* no header at all */
    assert_alive();
}

static void data_in_the_wrong_direction_is_refused(void **state)
{
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 20, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 16, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE] + fake.calls[DISK_FLUSH], 0);
    assert_alive();
}

static void data_in_both_directions_is_refused(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.data, 512, VIRTQ_DESC_NEXT, 2);
    put(desc0(), 2, rig.data, 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 3);
    put(desc0(), 3, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
    assert_alive();
}

static void the_id_has_exactly_its_length(void **state)
{
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 19, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 21, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 0, true), VIRTIO_BLK_S_IOERR);
    assert_alive();
}

static void bad_segments_are_refused_before_any_is_done(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t sectors, flags;
        uint8_t discard, zero; /* status */
    } bad[] = {
        { 2048, 1, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { 2047, 2, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { UINT64_MAX, 1, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { UINT64_MAX, 0, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { 0, UINT32_MAX, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { 0, 2049, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR }, /* more than the disk, not more than a request may have */
        { 2047, 2049, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
        { 0, 1, VIRTIO_BLK_SEGMENT_UNMAP, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_OK },
        { 0, 1, 2, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP },
        { 0, 1, UINT32_MAX, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        /* A good one first: it must not be done when the second is bad. */
        memset(rig.data_p, 0, 16);
        store_le32(rig.data_p + 8, 1);
        store_le64(rig.data_p + 16, bad[i].sector);
        store_le32(rig.data_p + 24, bad[i].sectors);
        store_le32(rig.data_p + 28, bad[i].flags);
        fake.calls[DISK_UNMAP] = fake.zeroes = 0;
        assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 32, false), bad[i].discard);
        assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 32, false), bad[i].zero);
        assert_int_equal(fake.calls[DISK_UNMAP], 0);
        assert_int_equal(fake.zeroes, bad[i].zero ? 0 : 2);
    }
    assert_alive();
}

static void segment_lists_of_a_wrong_length_are_refused(void **state)
{
    static const uint32_t lengths[] = { 0, 1, 15, 17, 16 * (RANGE_SEGMENTS + 1), BUFFER };

    memset(rig.data_p, 0, BUFFER);
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, lengths[i], false), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, lengths[i], false),
                         VIRTIO_BLK_S_IOERR);
    }
    assert_alive();
}

/* --- Data that is not memory: an error status where there is a byte for it -------------------- */

static void data_outside_of_memory_is_refused(void **state)
{
    const struct {
        uint64_t addr;
        uint32_t len;
    } bad[] = {
        { memory_size(), 512 },
        { memory_size() - 511, 512 },
        { memory_size() - 512, UINT32_MAX },
        { MACHINE_MMIO_BASE, 512 },
        { rig.dev->mmio_base + VIRTIO_MMIO_STATUS, 512 },
        { UINT64_MAX, 512 },
        { UINT64_MAX - 511, 512 },
        { UINT64_MAX - 510, 512 },
        { 1ull << 63, 512 },
        { 0, UINT32_MAX },
        { 4096, 0 }, /* nothing at all is no memory either */
        { UINT64_MAX, 0 },
        { UINT64_MAX, UINT32_MAX },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put_header(VIRTIO_BLK_T_IN, 0);
        chain(0, 0, rig.data, 512, true);
        put(desc0(), 1, bad[i].addr, bad[i].len, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 2);
        assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
        put_header(VIRTIO_BLK_T_OUT, 0);
        put(desc0(), 1, bad[i].addr, bad[i].len, VIRTQ_DESC_NEXT, 2);
        assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
        /* The header itself. */
        put(desc0(), 0, bad[i].addr, bad[i].len, VIRTQ_DESC_NEXT, 1);
        put(desc0(), 1, rig.data, 512, VIRTQ_DESC_NEXT, 2);
        assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(fake.calls[DISK_READ] + fake.calls[DISK_WRITE], 0);
    assert_alive();
}

static void readable_parts_behind_writable_ones_are_refused(void **state)
{
    /* Whoever confuses the two would take the first for a header and write the ID to the second. */
    store_le32(rig.data_p, VIRTIO_BLK_T_GET_ID);
    put_header(VIRTIO_BLK_T_GET_ID, 0);
    put(desc0(), 0, rig.data, 16, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 1);
    put(desc0(), 1, rig.header, 16, VIRTQ_DESC_NEXT, 2);
    put(desc0(), 2, rig.status - 4, 5, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(load_le32(rig.header_p), VIRTIO_BLK_T_GET_ID);
    assert_alive();
}

/* Each descriptor is all of guest memory. */
static void a_request_of_gigabytes_is_refused(void **state)
{
    assert_true((RING_SIZE - 2) * memory_size() > NODE_REQUEST_MAX);
    fake.size = 1ull << 60;
    put_header(VIRTIO_BLK_T_IN, 0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    for (unsigned i = 1; i < RING_SIZE - 1; i++) {
        put(desc0(), i, 0, memory_size(), VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, i + 1);
    }
    put(desc0(), RING_SIZE - 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(fake.calls[DISK_READ], 0);
    fake.size = DISK_BYTES;
    assert_alive();
}

/* --- No byte for a status: the device needs a reset ------------------------------------------- */

static void a_chain_without_a_writable_end_needs_a_reset(void **state)
{
    put_header(VIRTIO_BLK_T_FLUSH, 0);
    put(desc0(), 0, rig.header, 16, 0, 0);
    offer(0, 0);
    kick(0);
    assert_int_equal(fake.calls[DISK_FLUSH], 0);
    assert_needs_reset();
    put_header(VIRTIO_BLK_T_OUT, 0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.data, 512, 0, 0);
    offer(0, 0);
    kick(0);
    assert_needs_reset();
    assert_int_equal(fake.calls[DISK_WRITE], 0);
}

static void a_status_outside_of_memory_needs_a_reset(void **state)
{
    const uint64_t bad[] = { memory_size(), MACHINE_MMIO_BASE, UINT64_MAX };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put_header(VIRTIO_BLK_T_FLUSH, 0);
        put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
        put(desc0(), 1, bad[i], 1, VIRTQ_DESC_WRITE, 0);
        offer(0, 0);
        kick(0);
        assert_needs_reset();
    }
}

static void an_empty_status_needs_a_reset(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.data, 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 2);
    put(desc0(), 2, rig.status, 0, VIRTQ_DESC_WRITE, 0);
    offer(0, 0);
    kick(0);
    assert_int_equal(fake.calls[DISK_READ], 0);
    assert_needs_reset();
}

/* --- Rings and tables: the device needs a reset ----------------------------------------------- */

static void a_loop_of_descriptors_needs_a_reset(void **state)
{
    put_header(VIRTIO_BLK_T_IN, 0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.data, 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 1);
    assert_breaks_the_ring(0);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(desc0(), 1, rig.data, 512, VIRTQ_DESC_NEXT, 0);
    assert_breaks_the_ring(0);
}

static void a_loop_in_an_indirect_table_needs_a_reset(void **state)
{
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 0);
    put(desc0(), 0, rig.table, 16, VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
}

static void a_chain_longer_than_the_queue_needs_a_reset(void **state)
{
    for (unsigned i = 0; i <= RING_SIZE; i++) {
        put(rig.table_p, i, rig.data, 16, VIRTQ_DESC_NEXT, i + 1);
    }
    put(rig.table_p, RING_SIZE, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    put(desc0(), 0, rig.table, 16 * (RING_SIZE + 1), VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
    /* As long as the queue is long is allowed. */
    put_header(VIRTIO_BLK_T_OUT, 0);
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(rig.table_p, 1, rig.data, 512 - 16 * (RING_SIZE - 3), VIRTQ_DESC_NEXT, 2);
    put(rig.table_p, RING_SIZE - 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    put(desc0(), 0, rig.table, 16 * RING_SIZE, VIRTQ_DESC_INDIRECT, 0);
    assert_int_equal(answer_of(0, 0, NULL), VIRTIO_BLK_S_OK);
}

static void descriptors_beyond_the_table_need_a_reset(void **state)
{
    assert_breaks_the_ring(RING_SIZE);
    assert_breaks_the_ring(UINT16_MAX);
    put(desc0(), 0, rig.header, 16, VIRTQ_DESC_NEXT, RING_SIZE);
    assert_breaks_the_ring(0);
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 2);
    put(desc0(), 0, rig.table, 32, VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
}

static void bad_indirect_tables_need_a_reset(void **state)
{
    const struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
    } bad[] = {
        { rig.table, 0, 0 },
        { rig.table, 15, 0 },
        { rig.table, 33, 0 },
        { rig.table, 49, 0 },
        { rig.table, UINT32_MAX, 0 },
        { rig.table, 48, VIRTQ_DESC_NEXT },
        { memory_size() - 32, 48, 0 },
        { memory_size(), 48, 0 },
        { UINT64_MAX - 15, 48, 0 },
        { UINT64_MAX - 47, 48, 0 },
        { rig.dev->mmio_base, 48, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
        put(rig.table_p, 1, rig.data, 512, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, 2);
        put(rig.table_p, 2, rig.status, 1, VIRTQ_DESC_WRITE, 0);
        put(desc0(), 0, bad[i].addr, bad[i].len, VIRTQ_DESC_INDIRECT | bad[i].flags, 1);
        assert_breaks_the_ring(0);
    }
}

static void nested_indirect_tables_need_a_reset(void **state)
{
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(rig.table_p, 1, rig.table + 48, 16, VIRTQ_DESC_INDIRECT, 0);
    put(rig.table_p, 3, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    put(desc0(), 0, rig.table, 32, VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
    /* A table that holds itself. */
    put(rig.table_p, 0, rig.table, 16, VIRTQ_DESC_INDIRECT, 0);
    put(desc0(), 0, rig.table, 16, VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
}

static void indirect_tables_that_were_not_negotiated_need_a_reset(void **state)
{
    rig_up(ALL_FEATURES & ~VIRTIO_F_INDIRECT_DESC);
    put(rig.table_p, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    put(rig.table_p, 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    put(desc0(), 0, rig.table, 32, VIRTQ_DESC_INDIRECT, 0);
    assert_breaks_the_ring(0);
}

static void a_jump_of_the_available_index_needs_a_reset(void **state)
{
    static const uint16_t jumps[] = { RING_SIZE + 1, 255, 0x8000, UINT16_MAX };

    for (unsigned i = 0; i < ARRAY_SIZE(jumps); i++) {
        put_header(VIRTIO_BLK_T_FLUSH, 0);
        chain(0, 0, 0, 0, false); /* what every entry of the fresh ring names */
        store_le16(rig.rings[0].avail + 2, jumps[i]);
        kick(0);
        assert_int_equal(fake.calls[DISK_FLUSH], 0);
        assert_needs_reset();
    }
}

static void more_requests_than_the_ring_holds_need_a_reset(void **state)
{
    fake.hold = true;
    put_header(VIRTIO_BLK_T_IN, 0);
    chain(0, 0, rig.data, 512, true);
    for (unsigned i = 0; i < RING_SIZE; i++) {
        offer(0, 0); /* the same chain again and again */
    }
    kick(0);
    settle();
    assert_int_equal(fake.calls[DISK_READ], RING_SIZE);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET, 0);
    offer(0, 0);
    kick(0);
    settle();
    assert_int_equal(fake.calls[DISK_READ], RING_SIZE);
    assert_int_equal(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET, VIRTIO_NEEDS_RESET);
    release();
    settle();
    assert_needs_reset();
}

/* Requests that end at once are not in flight, but the driver has not seen them yet either. */
static void requests_beyond_what_was_shown_need_a_reset(void **state)
{
    put_header(VIRTIO_BLK_T_FLUSH, 0);
    chain(0, 0, 0, 0, false);
    for (unsigned i = 0; i < 2 * RING_SIZE; i++) {
        offer(0, 0);
        kick(0);
    }
    assert_int_equal(fake.calls[DISK_FLUSH], RING_SIZE);
    settle();
    assert_int_equal(used_idx(0), RING_SIZE);
    assert_needs_reset();
}

static void queues_that_cannot_be_need_a_reset(void **state)
{
    static const uint32_t sizes[] = { 0, 3, 15, RING_SIZE * 2, 32768, 65536, UINT32_MAX };
    uint64_t gpa = rig.rings[0].gpa;

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        negotiate(ALL_FEATURES);
        ring_announce(0, sizes[i], gpa, gpa + 4096, gpa + 8192);
        assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
        assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET);
    }
    rig_up(ALL_FEATURES);
    assert_alive();
}

/* Whatever the transport lets through. */
static void a_ring_is_never_larger_than_the_standard_has_it(void **state)
{
    struct virtqueue vq = { 0 };

    assert_true(memory_size() > (4u << 20));
    assert_int_equal(virtqueue_start(&vq, 2 * VIRTQUEUE_SIZE_MAX, 0, 2u << 20, 3u << 20), -EINVAL);
    assert_int_equal(virtqueue_start(&vq, VIRTQUEUE_SIZE_MAX, 0, 2u << 20, 3u << 20), 0);
    virtqueue_stop(&vq);
}

static void rings_outside_of_memory_or_misaligned_need_a_reset(void **state)
{
    uint64_t gpa = rig.rings[0].gpa, end = memory_size();
    const uint64_t bad[][3] = {
        { end, gpa, gpa },
        { gpa, end, gpa },
        { gpa, gpa, end },
        { end - VIRTQ_DESC_BYTES(RING_SIZE) + 16, gpa, gpa },
        { gpa, end - VIRTQ_AVAIL_BYTES(RING_SIZE) + 2, gpa },
        { gpa, gpa, end - VIRTQ_USED_BYTES(RING_SIZE) + 4 },
        { UINT64_MAX - 15, gpa, gpa },
        { gpa, UINT64_MAX - 1, gpa },
        { gpa, gpa, UINT64_MAX - 3 },
        { rig.dev->mmio_base, gpa, gpa },
        { gpa + 8, gpa, gpa },
        { gpa, gpa + 1, gpa },
        { gpa, gpa, gpa + 2 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        negotiate(ALL_FEATURES);
        ring_announce(0, RING_SIZE, bad[i][0], bad[i][1], bad[i][2]);
        assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
        assert_true(reg(VIRTIO_MMIO_STATUS) & VIRTIO_NEEDS_RESET);
    }
    rig_up(ALL_FEATURES);
    assert_alive();
}

/* --- Registers at the wrong time -------------------------------------------------------------- */

static void rings_cannot_be_moved_while_they_run(void **state)
{
    ring_announce(0, 8, memory_size() - 16, UINT64_MAX, UINT64_MAX);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
    assert_alive();
    assert_int_equal(rig.mmio->queues[0].num, RING_SIZE);
}

static void queues_wait_for_the_features(void **state)
{
    uint64_t gpa = rig.rings[0].gpa;

    set_reg(VIRTIO_MMIO_STATUS, 0);
    ring_announce(0, RING_SIZE, gpa, gpa + 4096, gpa + 8192);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    rig_up(ALL_FEATURES);
    assert_alive();
}

static void queues_that_do_not_exist_are_ignored(void **state)
{
    static const uint32_t queues[] = { QUEUES, 255, 65536, UINT32_MAX };

    for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
        kick(queues[i]);
        ring_announce(queues[i], RING_SIZE, rig.rings[0].gpa, rig.rings[0].gpa, rig.rings[0].gpa);
        assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 0);
    }
    assert_alive();
}

static void a_queue_that_is_not_ready_is_not_looked_at(void **state)
{
    negotiate(ALL_FEATURES);
    set_reg(VIRTIO_MMIO_STATUS, 15);
    for (unsigned i = 0; i < QUEUES; i++) {
        kick(i);
    }
    settle();
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 15);
}

/* --- Rings under fire ------------------------------------------------------------------------- */

static void a_read_may_overwrite_the_rings(void **state)
{
    uint64_t gpa = rig.rings[0].gpa;

    for (unsigned part = 0; part < 3; part++) {
        for (unsigned sector = 0; sector < 64; sector++) {
            put_header(VIRTIO_BLK_T_IN, sector);
            offer(0, chain(0, 0, gpa + 4096 * part, 512, true));
            offer(0, chain(0, 3, rig.data, 512, true));
            kick(0);
            settle();
            rig_up(ALL_FEATURES);
        }
    }
    assert_alive();
}

static void rings_may_lie_on_top_of_each_other(void **state)
{
    uint64_t gpa = rig.rings[0].gpa;

    for (unsigned shift = 0; shift < 256; shift += 4) {
        negotiate(ALL_FEATURES);
        memset(rig.rings[0].desc, 0, 3 * 4096);
        ring_announce(0, RING_SIZE, gpa, gpa + shift, gpa + shift / 2 / 4 * 4);
        set_reg(VIRTIO_MMIO_STATUS, 15);
        chain(0, 0, gpa, 512, true);
        for (unsigned i = 0; i < RING_SIZE; i++) {
            store_le16(memory_map(gpa + shift + 2, 2), i + 1);
            kick(0);
            settle();
        }
    }
    rig_up(ALL_FEATURES);
    assert_alive();
}

/* What one notification costs is bounded, whatever the ring holds. */
static int setup_huge(void **state)
{
    rig_new(1, VIRTQUEUE_SIZE_MAX, false);
    return 0;
}

static void a_notification_does_bounded_work(void **state)
{
    const unsigned size = VIRTQUEUE_SIZE_MAX, length = 512;
    uint64_t gpa = guest_alloc(VIRTQ_DESC_BYTES(size) + 4 * VIRTQ_USED_BYTES(size));
    uint64_t avail = gpa + VIRTQ_DESC_BYTES(size), used = avail + 8ull * size;
    uint8_t *desc = memory_map(gpa, VIRTQ_DESC_BYTES(size)), *ring = memory_map(avail, 4);

    negotiate(ALL_FEATURES);
    ring_announce(0, size, gpa, avail, used);
    assert_int_equal(reg(VIRTIO_MMIO_QUEUE_READY), 1);
    set_reg(VIRTIO_MMIO_STATUS, 15);
    settle();
    /* Every head is the same chain of 512 descriptors, offered 32,768 times. */
    put_header(VIRTIO_BLK_T_FLUSH, 0);
    put(desc, 0, rig.header, 16, VIRTQ_DESC_NEXT, 1);
    for (unsigned i = 1; i < length - 1; i++) {
        put(desc, i, rig.data, 1, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE, i + 1);
    }
    put(desc, length - 1, rig.status, 1, VIRTQ_DESC_WRITE, 0);
    store_le16(ring + 2, size);
    kick(0);
    assert_in_range(rig.mmio->queues[0].vq.avail_next, 1, STEPS_PER_NOTIFY / length + 1);
    settle();
    assert_int_equal(load_le16((uint8_t *)memory_map(used, 4) + 2), size);
}

/* Everything at random: descriptors, rings, registers, with addresses that often mean something. */
static uint64_t random_address(void)
{
    switch (loop_random_below(8)) {
    case 0:
        return loop_random();
    case 1:
        return memory_size() - loop_random_below(600);
    case 2:
        return rig.rings[0].gpa + loop_random_below(3 * 4096);
    case 3:
        return rig.table + loop_random_below(4096);
    case 4:
        return rig.header;
    case 5:
        return rig.status;
    default:
        return rig.data + 512 * loop_random_below(64);
    }
}

static uint32_t random_length(void)
{
    static const uint32_t lengths[] = { 0, 1, 16, 32, 48, 512, 4096, 65536, UINT32_MAX };

    return loop_random_below(4) ? lengths[loop_random_below(ARRAY_SIZE(lengths))]
                                : loop_random_below(2000);
}

static void fire_once(void)
{
    struct ring *r = &rig.rings[loop_random_below(QUEUES)];
    unsigned queue = r - rig.rings;

    put_header(loop_random_below(16), loop_random_below(3000));
    for (unsigned i = 0; i < RING_SIZE; i++) {
        uint16_t flags = loop_random_below(8) ? loop_random_below(4) : loop_random_below(8);

        put(r->desc, i, random_address(), random_length(), flags, loop_random_below(RING_SIZE + 1));
        put(rig.table_p, i, random_address(), random_length(), loop_random_below(4),
            loop_random_below(RING_SIZE + 1));
    }
    for (unsigned i = loop_random_below(4); i-- > 0;) {
        offer(queue, loop_random_below(RING_SIZE + (loop_random_below(20) == 0)));
    }
    if (loop_random_below(50) == 0) {
        set_reg(loop_random_below(VIRTIO_MMIO_LEN), loop_random_below(8));
    }
    fake.slow = loop_random_below(2);
    fake.error = loop_random_below(5) ? 0 : -EIO;
    kick(queue);
}

static void random_fire_does_no_harm(void **state)
{
    unsigned broken = 0;

    for (unsigned i = 0; i < 20000; i++) {
        fire_once();
        if (loop_random_below(4)) {
            settle();
        }
        if ((reg(VIRTIO_MMIO_STATUS) & (15 | VIRTIO_NEEDS_RESET | VIRTIO_FAILED)) != 15) {
            broken++;
            set_reg(VIRTIO_MMIO_STATUS, 0);
            settle();
            rig_up(ALL_FEATURES);
        }
    }
    assert_in_range(broken, 100, 19900); /* both kinds of ends were met */
    fake.error = 0;
    set_reg(VIRTIO_MMIO_STATUS, 0);
    settle();
    rig_up(ALL_FEATURES);
    assert_alive();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_types_are_unsupported),
        TEST(what_was_not_negotiated_is_unsupported),
        TEST(parts_of_a_sector_are_refused),
        TEST(sectors_beyond_the_end_are_refused),
        TEST(more_than_the_whole_disk_is_refused),
        TEST(a_transfer_of_nothing_is_done_without_the_disk),
        TEST(a_short_header_is_refused),
        TEST(data_in_the_wrong_direction_is_refused),
        TEST(data_in_both_directions_is_refused),
        TEST(the_id_has_exactly_its_length),
        TEST(bad_segments_are_refused_before_any_is_done),
        TEST(segment_lists_of_a_wrong_length_are_refused),
        TEST(data_outside_of_memory_is_refused),
        TEST(readable_parts_behind_writable_ones_are_refused),
        TEST(a_request_of_gigabytes_is_refused),
        TEST(a_chain_without_a_writable_end_needs_a_reset),
        TEST(a_status_outside_of_memory_needs_a_reset),
        TEST(an_empty_status_needs_a_reset),
        TEST(a_loop_of_descriptors_needs_a_reset),
        TEST(a_loop_in_an_indirect_table_needs_a_reset),
        TEST(a_chain_longer_than_the_queue_needs_a_reset),
        TEST(descriptors_beyond_the_table_need_a_reset),
        TEST(bad_indirect_tables_need_a_reset),
        TEST(nested_indirect_tables_need_a_reset),
        TEST(indirect_tables_that_were_not_negotiated_need_a_reset),
        TEST(a_jump_of_the_available_index_needs_a_reset),
        TEST(more_requests_than_the_ring_holds_need_a_reset),
        TEST(requests_beyond_what_was_shown_need_a_reset),
        TEST(queues_that_cannot_be_need_a_reset),
        TEST(a_ring_is_never_larger_than_the_standard_has_it),
        TEST(rings_outside_of_memory_or_misaligned_need_a_reset),
        TEST(rings_cannot_be_moved_while_they_run),
        TEST(queues_wait_for_the_features),
        TEST(queues_that_do_not_exist_are_ignored),
        TEST(a_queue_that_is_not_ready_is_not_looked_at),
        TEST(a_read_may_overwrite_the_rings),
        TEST(rings_may_lie_on_top_of_each_other),
        cmocka_unit_test_setup_teardown(a_notification_does_bounded_work, setup_huge, rig_teardown),
        TEST(random_fire_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
