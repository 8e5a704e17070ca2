/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's virtio driver on the real device model: boot, requests of every kind, many at once,
 * resizes, resets, and a device that gives up.
 */
#include "tests/unit/virtio-rig.h"

#include "hw/guest.h"

static const struct guest_driver *const ops = &guest_virtio_driver;
static void *drv;
static int result;

static CO_ENTRY void boot(void *arg)
{
    result = ops->co_boot(rig.dev, &drv);
}

static CO_ENTRY void shut_down(void *arg)
{
    ops->co_shutdown(drv);
    drv = NULL;
}

static void boot_with(uint64_t features)
{
    irq_attach(rig.dev->irq, NULL, NULL);
    rig.mmio->device_features = features;
    loop_run_co(boot, NULL);
    assert_int_equal(result, 0);
}

static int setup(void **state)
{
    rig_new(QUEUES, RING_SIZE, false);
    boot_with(ALL_FEATURES);
    return 0;
}

static int teardown(void **state)
{
    if (drv) {
        loop_run_co(shut_down, NULL);
    }
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 0);
    return rig_teardown(state);
}

static void do_request(void *arg)
{
    result = ops->co_request(drv, arg);
}

static int run(enum guest_op op, uint64_t offset, uint64_t len)
{
    struct guest_request req = { .op = op, .offset = offset, .len = len, .gpa = rig.data };

    loop_run_co(do_request, &req);
    return result;
}

/* Requests that run side by side. */
struct parallel {
    struct guest_request req;
    int result;
    bool done;
};

static CO_ENTRY void parallel_entry(void *arg)
{
    struct parallel *p = arg;

    p->result = ops->co_request(drv, &p->req);
    p->done = true;
}

static void boot_tells_the_device(void **state)
{
    assert_string_equal(ops->id(drv), "virtio0");
    assert_int_equal(ops->capacity(drv), DISK_BYTES);
    assert_false(ops->read_only(drv));
    assert_int_equal(ops->depth(drv), QUEUES * RING_SIZE);
    assert_int_equal(ops->max_bytes(drv), (RING_SIZE - 2) << 20);
    for (enum guest_op op = GUEST_READ; op <= GUEST_ZERO; op++) {
        assert_true(ops->can(drv, op));
    }
    assert_int_equal(reg(VIRTIO_MMIO_STATUS), 15);
    assert_int_equal(rig.mmio->driver_features, ALL_FEATURES);
}

static void boot_leaves_alone_what_is_no_virtio_block_device(void **state)
{
    struct machine_device nothing = { .irq = rig.dev->irq, .mmio_base = rig.dev->mmio_base + 4096 };
    struct machine_device *old = rig.dev;

    loop_run_co(shut_down, NULL);
    rig.dev = &nothing;
    loop_run_co(boot, NULL);
    assert_int_equal(result, -ENODEV);
    rig.dev = old;
}

static void boot_gives_up_on_a_device_of_old(void **state)
{
    loop_run_co(shut_down, NULL);
    rig.mmio->device_features &= ~VIRTIO_F_VERSION_1;
    loop_run_co(boot, NULL);
    assert_int_equal(result, -ENOTSUP);
    assert_null(drv);
}

static void every_operation_works(void **state)
{
    assert_int_equal(run(GUEST_READ, 8192, 4096), 0);
    assert_memory_equal(rig.data_p, fake.bytes + 8192, 4096);
    memset(rig.data_p, 0xa5, 65536);
    assert_int_equal(run(GUEST_WRITE, 65536, 65536), 0);
    assert_memory_equal(fake.bytes + 65536, rig.data_p, 65536);
    assert_int_equal(run(GUEST_FLUSH, 0, 0), 0);
    assert_int_equal(fake.calls[DISK_FLUSH], 1);
    assert_int_equal(run(GUEST_ZERO, 65536, 4096), 0);
    assert_true(bytes_are_zero(fake.bytes + 65536, 4096));
    assert_true(fake.unmap);
    assert_int_equal(run(GUEST_DISCARD, 0, 4096), 0);
    assert_int_equal(fake.bytes[4095], 0xdd);
}

static void it_works_without_indirect_descriptors_and_event_index(void **state)
{
    loop_run_co(shut_down, NULL);
    boot_with(ALL_FEATURES & ~VIRTIO_F_INDIRECT_DESC & ~VIRTIO_F_EVENT_IDX);
    assert_int_equal(ops->depth(drv), QUEUES * (RING_SIZE / 3));
    assert_int_equal(ops->max_bytes(drv), 1 << 20);
    every_operation_works(state);
}

static void it_works_with_the_bare_minimum(void **state)
{
    loop_run_co(shut_down, NULL);
    boot_with(VIRTIO_F_VERSION_1);
    assert_int_equal(ops->depth(drv), RING_SIZE / 3);
    assert_false(ops->can(drv, GUEST_FLUSH));
    assert_false(ops->can(drv, GUEST_DISCARD));
    assert_int_equal(run(GUEST_READ, 0, 4096), 0);
    assert_memory_equal(rig.data_p, fake.bytes, 4096);
    assert_int_equal(run(GUEST_FLUSH, 0, 0), -EIO);
}

static void a_large_request_is_one_request(void **state)
{
    uint64_t gpa = guest_alloc(8 << 20);
    struct guest_request req = { .op = GUEST_WRITE, .len = 8 << 20, .gpa = gpa };

    free(fake.bytes);
    fake.bytes = mem_zalloc(8 << 20);
    fake.size = 8 << 20;
    fake.disk.on_resize(&fake.disk, fake.disk.dev_arg);
    settle();
    assert_int_equal(ops->capacity(drv), 8 << 20);
    for (unsigned i = 0; i < 8 << 20; i += 4096) {
        store_le32(memory_map(gpa + i, 4), i + 1);
    }
    loop_run_co(do_request, &req);
    assert_int_equal(result, 0);
    assert_int_equal(fake.calls[DISK_WRITE], 1);
    assert_memory_equal(fake.bytes, memory_map(gpa, 8 << 20), 8 << 20);
}

static void many_at_once_wait_their_turn(void **state)
{
    enum { COUNT = 500 };
    static struct parallel p[COUNT];
    uint64_t gpa = guest_alloc(COUNT * 512);

    fake.slow = true;
    for (unsigned i = 0; i < COUNT; i++) {
        p[i] = (struct parallel){
            .req = { .op = GUEST_READ, .offset = i * 512, .len = 512, .gpa = gpa + i * 512 },
            .result = -1,
        };
        co_start(parallel_entry, &p[i]);
    }
    settle();
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(p[i].result, 0);
        assert_memory_equal(memory_map(p[i].req.gpa, 512), fake.bytes + i * 512, 512);
    }
    /* All queues had a share. */
    for (unsigned i = 0; i < QUEUES; i++) {
        assert_true(rig.mmio->queues[i].vq.used_published);
    }
}

static void errors_of_the_device_are_eio(void **state)
{
    fake.error = -ENOSPC;
    assert_int_equal(run(GUEST_WRITE, 0, 512), -EIO);
    fake.error = -ENOTSUP;
    assert_int_equal(run(GUEST_DISCARD, 0, 512), -EIO);
    fake.error = 0;
    assert_int_equal(run(GUEST_READ, DISK_BYTES, 512), -EIO);
    assert_int_equal(run(GUEST_READ, 0, 512), 0);
}

static void long_ranges_go_in_parts(void **state)
{
    fake.size = 6ull << 30;
    fake.dry = true;
    assert_int_equal(run(GUEST_ZERO, 512, (5ull << 30) + 512), 0);
    assert_int_equal(fake.zeroes, 6);
    assert_int_equal(run(GUEST_DISCARD, 0, 5ull << 30), 0);
    assert_int_equal(fake.calls[DISK_UNMAP], 5);
    assert_int_equal(fake.range_bytes, (10ull << 30) + 512);
}

static void a_reset_of_the_machine_ends_what_waits(void **state)
{
    struct parallel p[QUEUES * RING_SIZE + 3];

    fake.hold = true;
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
        p[i] = (struct parallel){ .req = { .op = GUEST_READ, .len = 512, .gpa = rig.data } };
        co_start(parallel_entry, &p[i]);
    }
    settle();
    fake.hold = false;
    set_reg(VIRTIO_MMIO_STATUS, 0);
    release();
    settle();
    ops->abort(drv);
    settle();
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
        assert_true(p[i].done);
        assert_int_equal(p[i].result, -ECANCELED);
    }
    assert_int_equal(run(GUEST_READ, 0, 512), -ECANCELED);
    loop_run_co(shut_down, NULL);
    boot_with(ALL_FEATURES);
    assert_int_equal(run(GUEST_READ, 0, 512), 0);
}

static CO_ENTRY void reset_machine(void *arg)
{
    co_machine_reset();
}

static CO_ENTRY void boot_and_note(void *arg)
{
    result = 1;
    result = ops->co_boot(rig.dev, &drv);
}

static void a_reset_of_the_machine_ends_a_boot(void **state)
{
    loop_run_co(shut_down, NULL);
    store_le16(rig.data_p, 0);
    co_start(boot_and_note, NULL); /* as far as the first request */
    assert_int_equal(result, 1);
    co_start(reset_machine, NULL);
    settle();
    assert_int_equal(result, -ECANCELED);
    assert_null(drv);
    boot_with(ALL_FEATURES);
    assert_int_equal(run(GUEST_READ, 0, 512), 0);
}

static void a_shutdown_waits_for_the_host(void **state)
{
    struct parallel p = { .req = { .op = GUEST_READ, .len = 512, .gpa = rig.data } };

    fake.hold = true;
    co_start(parallel_entry, &p);
    settle();
    co_start(shut_down, NULL);
    settle();
    assert_non_null(drv);
    release();
    settle();
    assert_null(drv);
    assert_int_equal(p.result, -ECANCELED);
}

static void a_device_that_gives_up_fails_everything(void **state)
{
    struct parallel p = { .req = { .op = GUEST_READ, .len = 512, .gpa = rig.data } };

    fake.hold = true;
    co_start(parallel_entry, &p);
    settle();
    virtio_fail(rig.mmio);
    settle();
    assert_true(p.done);
    assert_int_equal(p.result, -EIO);
    assert_int_equal(run(GUEST_READ, 0, 512), -EIO);
    release();
    settle();
}

static void guest_memory_is_given_back(void **state)
{
    uint64_t before, after;

    loop_run_co(shut_down, NULL);
    before = guest_alloc(4096);
    boot_with(ALL_FEATURES);
    loop_run_co(shut_down, NULL);
    after = guest_alloc(4096);
    assert_int_equal(after, before + 4096);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(boot_tells_the_device),
        TEST(boot_leaves_alone_what_is_no_virtio_block_device),
        TEST(boot_gives_up_on_a_device_of_old),
        TEST(every_operation_works),
        TEST(it_works_without_indirect_descriptors_and_event_index),
        TEST(it_works_with_the_bare_minimum),
        TEST(a_large_request_is_one_request),
        TEST(many_at_once_wait_their_turn),
        TEST(errors_of_the_device_are_eio),
        TEST(long_ranges_go_in_parts),
        TEST(a_reset_of_the_machine_ends_what_waits),
        TEST(a_reset_of_the_machine_ends_a_boot),
        TEST(a_shutdown_waits_for_the_host),
        TEST(a_device_that_gives_up_fails_everything),
        TEST(guest_memory_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
