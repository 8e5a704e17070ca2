/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request that failed and waits for `cont` (werror=stop), from the guest's driver through the virtio
 * device and the disk down to a node that fails on demand: tried again at `cont`, forgotten at a reset.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "hw/machine.h"

/* --- A node that fails on demand -------------------------------------------------------------- */

static int error;         /* what writes end with */
static bool hold;         /* writes wait in `held` */
static unsigned writes;   /* writes that reached the node */
static struct co_queue held = CO_QUEUE_INIT(held);

static int co_moody_open(struct node *node, struct error *err)
{
    node->size = 1 << 20;
    node->cluster_size = NODE_SECTOR;
    return 0;
}

static void co_moody_close(struct node *node)
{
}

static int co_moody_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    return 0;
}

static int co_moody_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    writes++;
    if (hold) {
        co_queue_wait(&held);
    }
    return error;
}

static int co_moody_flush(struct node *node)
{
    return 0;
}

static const struct driver moody = {
    .name = "moody",
    .is_protocol = true,
    .co_open = co_moody_open,
    .co_close = co_moody_close,
    .co_read = co_moody_read,
    .co_write = co_moody_write,
    .co_flush = co_moody_flush,
};

static const struct driver *const drivers[] = { &moody, NULL };

/* --- The bench -------------------------------------------------------------------------------- */

static const struct guest_driver *const ops = &guest_virtio_driver;
static struct disk *disk;
static struct machine_device *dev;
static void *drv;
static uint64_t buffer;
static unsigned stops;

struct write {
    int result;
    bool done;
};

static void on_error(struct disk *failed, struct node *node, bool is_read, const char *action,
                     int errnum)
{
    if (!strcmp(action, "stop")) {
        stops++;
        machine_stop_request(RUN_IO_ERROR);
    }
}

static void on_reset(struct machine_listener *l)
{
    ops->abort(drv);
}

static const struct block_listener block_listener = { .io_error = on_error };
static struct machine_listener machine_listener = { .reset = on_reset };

static bool timer_fired(void *arg)
{
    return !loop_timer_armed(arg);
}

static void nothing(void *arg)
{
}

static void settle(void)
{
    struct loop_timer timer;

    loop_timer_init(&timer, nothing, NULL);
    loop_timer_arm(&timer, loop_now() + NS_PER_S);
    loop_run_until(timer_fired, &timer);
}

static CO_ENTRY void bring_up(void *arg)
{
    json_t *options = json_pack("{s:s, s:s}", "driver", "moody", "filename", "nowhere");

    disk = disk_new("virtio0", co_node_open(NULL, options, NULL));
    json_decref(options);
    disk->werror = DISK_STOP;
    dev = virtio_blk_new(disk, 1, 64);
    *(int *)arg = ops->co_boot(dev, &drv);
}

static CO_ENTRY void take_down(void *arg)
{
    if (drv) {
        ops->co_shutdown(drv);
    }
    drv = NULL;
    dev->kind->co_remove(dev);
    co_disk_free(disk);
}

static int setup(void **state)
{
    int ret = -1;

    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    machine_init(16 << 20);
    node_set_drivers(drivers);
    block_set_listener(&block_listener);
    machine_listen(&machine_listener);
    error = writes = stops = 0;
    hold = false;
    loop_run_co(bring_up, &ret);
    buffer = guest_alloc(4096);
    machine_cont();
    return ret;
}

static int teardown(void **state)
{
    loop_run_co(take_down, NULL);
    settle();
    assert_int_equal(co_count(), 0);
    machine_unlisten(&machine_listener);
    machine_fini();
    loop_fini();
    return 0;
}

static CO_ENTRY void do_write(void *arg)
{
    struct write *w = arg;
    struct guest_request req = { .op = GUEST_WRITE, .len = 4096, .gpa = buffer };

    w->result = ops->co_request(drv, &req);
    w->done = true;
}

static void start_write(struct write *w)
{
    *w = (struct write){ 0 };
    co_start(do_write, w);
    settle();
}

static CO_ENTRY void reset(void *arg)
{
    co_machine_reset();
    *(bool *)arg = true;
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void a_write_is_tried_again_at_cont(void **state)
{
    struct write w;

    error = -ENOSPC;
    start_write(&w);
    assert_false(w.done);
    assert_int_equal(machine_state(), RUN_IO_ERROR);
    machine_cont(); /* too early: it fails again */
    settle();
    assert_false(w.done);
    assert_int_equal(stops, 2);
    error = 0;
    machine_cont();
    settle();
    assert_true(w.done);
    assert_int_equal(w.result, 0);
    assert_int_equal(writes, 3);
}

static void a_reset_forgets_the_write(void **state)
{
    struct write w;
    bool done = false;

    error = -ENOSPC;
    start_write(&w);
    co_start(reset, &done);
    settle();
    assert_true(done);
    assert_int_equal(w.result, -ECANCELED);
    assert_int_equal(machine_state(), RUN_PRELAUNCH);
    error = 0;
    machine_cont();
    settle();
    assert_int_equal(writes, 1); /* not done in the name of a guest that is no more */
}

static void a_write_that_fails_during_a_reset_does_not_wait(void **state)
{
    struct write w;
    bool done = false;

    hold = true;
    error = -ENOSPC;
    start_write(&w);
    co_start(reset, &done);
    settle();
    assert_false(done);
    co_queue_wake_all(&held);
    settle();
    assert_true(done);
    assert_int_equal(stops, 0);
    assert_true(machine_running());
    assert_int_equal(w.result, -ECANCELED);
}

static void the_disk_waits_again_after_a_reset(void **state)
{
    bool done = false;
    struct write w;
    int ret = -1;

    co_start(reset, &done);
    settle();
    assert_true(done);
    loop_run_co(take_down, NULL);
    loop_run_co(bring_up, &ret);
    assert_int_equal(ret, 0);
    error = -EIO;
    start_write(&w);
    assert_false(w.done);
    assert_int_equal(stops, 1);
    error = 0;
    machine_cont();
    settle();
    assert_int_equal(w.result, 0);
}

static CO_ENTRY void shut_down(void *arg)
{
    ops->co_shutdown(drv);
    drv = NULL;
}

static void a_shutdown_does_not_wait_for_cont(void **state)
{
    struct write w;

    error = -EIO;
    start_write(&w);
    co_start(shut_down, NULL);
    settle();
    assert_null(drv);
    assert_int_equal(w.result, -ECANCELED);
}

static CO_ENTRY void stop(void *arg)
{
    co_machine_stop(RUN_PAUSED);
    *(bool *)arg = true;
}

static void stop_of_a_machine_with_an_error_returns(void **state)
{
    struct write w;
    bool done = false;

    error = -EIO;
    start_write(&w);
    co_start(stop, &done);
    settle();
    assert_true(done);
    assert_int_equal(machine_state(), RUN_IO_ERROR);
    error = 0; /* the write lives on our stack: it ends before we do */
    machine_cont();
    settle();
    assert_true(w.done);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_write_is_tried_again_at_cont),
        TEST(a_reset_forgets_the_write),
        TEST(a_write_that_fails_during_a_reset_does_not_wait),
        TEST(the_disk_waits_again_after_a_reset),
        TEST(a_shutdown_does_not_wait_for_cont),
        TEST(stop_of_a_machine_with_an_error_returns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
