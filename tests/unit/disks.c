/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks (block/disk.c): media that come and go, limits that change while requests wait, error policies, names, and who is told
 * of what.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/disk.h"
#include "tests/unit/co-test.h"
#include "tests/unit/tree-rows.h"

#define KIB 1024u

static uint8_t buf[64 * KIB];

static struct node *co_open_raw(const char *path, bool read_only)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b}", "driver", "raw", "read-only", (int)read_only);
    struct node *node;

    if (!io_exists(path)) {
        io_sim_create(path, 1 << 20);
    }
    node = co_node_open(path, options, &err);
    json_decref(options);
    assert_non_null(node);
    return node;
}

static struct disk *co_begin(void)
{
    io_sim_reset();
    return disk_new("d", co_open_raw("/f", false));
}

static int co_access(struct disk *disk, enum disk_op op)
{
    struct iovec iov = { buf, 4096 };

    switch (op) {
    case DISK_READ:
        return co_disk_read(disk, 0, &iov, 1);
    case DISK_WRITE:
        return co_disk_write(disk, 0, &iov, 1);
    case DISK_UNMAP:
        return co_disk_discard(disk, 0, 4096);
    default:
        return co_disk_flush(disk);
    }
}

static void fail_next(unsigned op, int error, uint64_t times)
{
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = op, .error = error, .times = times };

    io_sim_fault(&fault);
}

/* Somebody else's request. */
struct request {
    struct disk *disk;
    enum disk_op op;
    int ret;
    bool ended;
};

static CO_ENTRY void co_request(void *arg)
{
    struct request *r = arg;

    r->ret = co_access(r->disk, r->op);
    r->ended = true;
}

static void co_settle(void)
{
    co_sleep_ns(NS_PER_S);
}

/* --- What is told ---------------------------------------------------------------------------------------- */

static struct {
    unsigned errors, corrupt;
    char action[16], device[16];
    bool is_read;
    int error;
} told;

static void on_io_error(struct disk *disk, struct node *node, bool is_read, const char *action, int error)
{
    told.errors++;
    told.is_read = is_read;
    told.error = error;
    snprintf(told.action, sizeof(told.action), "%s", action);
}

static void on_corrupt(struct node *node, const char *device, const char *msg, uint64_t offset, uint64_t size, bool fatal)
{
    told.corrupt++;
    snprintf(told.device, sizeof(told.device), "%s", device);
}

static const struct block_listener listener = { on_io_error, on_corrupt }, deaf = { NULL, NULL };

/* --- Media ------------------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_media(void *arg)
{
    struct disk *disk = co_begin();
    struct request waiting[4];
    struct node_drain *drain;

    block_set_listener(&listener);
    memset(&told, 0, sizeof(told));
    drain = co_node_drain_begin(disk->root);
    for (enum disk_op op = 0; op < 4; op++) {
        waiting[op] = (struct request){ .disk = disk, .op = op };
        co_start(co_request, waiting + op);
    }
    co_disk_take_medium(disk); /* they have not begun */
    co_node_drain_end(drain);
    co_settle();
    for (enum disk_op op = 0; op < 4; op++) {
        assert_true(waiting[op].ended);
        assert_int_equal(waiting[op].ret, -ENOMEDIUM);
        assert_int_equal(co_access(disk, op), -ENOMEDIUM);
    }
    assert_int_equal(told.errors, 0); /* that is no error of a medium */
    assert_int_equal(disk_size(disk), 0);
    co_disk_take_medium(disk);
    assert_int_equal(disk_put_medium(disk, co_open_raw("/f", true), NULL), 0);
    assert_true(disk->read_only);
    assert_int_equal(co_access(disk, DISK_READ), 0);
    assert_int_equal(co_access(disk, DISK_WRITE), -EPERM);
    assert_int_equal(co_access(disk, DISK_UNMAP), -EPERM);
    assert_int_equal(co_disk_zero(disk, 0, 4096, true), -EPERM);
    assert_int_equal(co_access(disk, DISK_FLUSH), 0);
    co_disk_free(disk);
    block_set_listener(NULL);
}

static unsigned takers;

static CO_ENTRY void co_taker(void *arg)
{
    co_disk_take_medium(arg);
    takers--;
}

/* Two monitors eject, and a third one deletes the drive, while the guest's request is on its way. */
static void CO_ENTRY co_test_takers(void *arg)
{
    struct disk *disk = co_begin();
    struct request r = { .disk = disk, .op = DISK_WRITE };

    for (takers = 0; takers < 2; takers++) {
        if (takers == 0) {
            co_start(co_request, &r);
        }
        co_start(co_taker, disk);
    }
    assert_false(r.ended);
    assert_non_null(disk->root);
    co_settle();
    assert_true(r.ended && r.ret == 0);
    assert_int_equal(takers, 0);
    assert_null(disk->root);
    assert_true(TAILQ_EMPTY(&all_nodes));
    assert_int_equal(disk_put_medium(disk, co_open_raw("/f", false), NULL), 0);
    disk_hold(disk);
    co_disk_free(disk);
    assert_true(disk->gone && !disk->root && !disk_find("d"));
    disk_release(disk);
}

/* A snapshot ends while the medium is about to go: the new root is what goes. */
static void CO_ENTRY co_test_new_root(void *arg)
{
    struct disk *disk = co_begin();
    struct request r = { .disk = disk, .op = DISK_WRITE };
    json_t *options = json_pack("{s:s, s:n}", "driver", "qcow2", "backing");
    struct error err = ERROR_INIT;
    struct node *over;

    co_rig_create("/over", "size=1M");
    over = co_node_open("/over", options, &err);
    assert_non_null(over);
    json_decref(options);
    co_node_set_backing_edge(over, disk->root);
    co_start(co_request, &r);
    takers = 1;
    co_start(co_taker, disk);
    disk_set_root(disk, over);
    co_node_unref(over);
    co_settle();
    assert_true(r.ended && !takers);
    assert_null(disk->root);
    assert_true(TAILQ_EMPTY(&all_nodes));
    co_disk_free(disk);
}

/* --- Errors -------------------------------------------------------------------------------------------------- */

static const struct {
    enum disk_policy policy;
    int error;
    const char *action;
} policies[] = {
    { DISK_REPORT, EIO, "report" }, { DISK_REPORT, ENOSPC, "report" }, { DISK_IGNORE, EIO, "ignore" },
    { DISK_STOP, EIO, "stop" },     { DISK_ENOSPC, EIO, "report" },    { DISK_ENOSPC, ENOSPC, "stop" },
};

static void co_policy(size_t i, bool is_read)
{
    struct disk *disk = co_begin();
    struct request r = { .disk = disk, .op = is_read ? DISK_READ : DISK_WRITE };
    bool stops = !strcmp(policies[i].action, "stop");

    *(is_read ? &disk->rerror : &disk->werror) = policies[i].policy;
    memset(buf, 7, sizeof(buf));
    memset(&told, 0, sizeof(told));
    fail_next(is_read ? IO_SIM_READ : IO_SIM_WRITE, policies[i].error, 1);
    co_start(co_request, &r);
    co_settle();
    assert_int_equal(told.errors, 1);
    assert_string_equal(told.action, policies[i].action);
    assert_int_equal(told.error, policies[i].error);
    assert_int_equal(told.is_read, is_read);
    assert_int_equal(r.ended, !stops);
    assert_int_equal(disk->io_status_failed, stops);
    assert_int_equal(disk->io_status_nospace, stops && policies[i].error == ENOSPC);
    disk_resume_all();
    co_settle();
    assert_true(r.ended);
    assert_int_equal(r.ret, !strcmp(policies[i].action, "report") ? -policies[i].error : 0);
    assert_int_equal(buf[0], is_read && r.ret == 0 ? 0 : 7); /* what is ignored reads as zeroes */
    assert_false(disk->io_status_failed);
    assert_int_equal(disk->stats.failed[r.op], 1);
    co_disk_free(disk);
}

static void CO_ENTRY co_test_policies(void *arg)
{
    block_set_listener(&listener);
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        co_policy(i, true);
        co_policy(i, false);
    }
    block_set_listener(NULL);
}

/* A reset: what waits for the operator is forgotten, and nothing begins to wait. */
static void CO_ENTRY co_test_cancel(void *arg)
{
    struct disk *disk = co_begin();
    struct request r = { .disk = disk, .op = DISK_WRITE };

    block_set_listener(&listener);
    memset(&told, 0, sizeof(told));
    disk->werror = disk->rerror = DISK_STOP;
    fail_next(IO_SIM_WRITE, EIO, 0);
    co_start(co_request, &r);
    co_settle();
    assert_false(r.ended);
    assert_int_equal(disk->in_flight, 0);
    disk_cancel(disk, true);
    disk_cancel(disk, true); /* once more is not twice */
    co_settle();
    assert_int_equal(r.ret, -ECANCELED);
    assert_int_equal(co_access(disk, DISK_WRITE), -EIO);
    assert_string_equal(told.action, "report");
    disk->werror = DISK_IGNORE;
    assert_int_equal(co_access(disk, DISK_WRITE), 0);
    assert_string_equal(told.action, "ignore");
    disk_cancel(disk, false);
    io_sim_faults_clear();
    assert_int_equal(co_access(disk, DISK_WRITE), 0);
    block_set_listener(NULL);
    co_disk_free(disk);
}

/* Without a listener, or with one that does not care, errors are as they are. */
static void CO_ENTRY co_test_nobody_listens(void *arg)
{
    struct disk *disk = co_begin(), *empty = disk_new("e", NULL);
    struct node *other = co_open_raw("/g", false);

    for (unsigned i = 0; i < 2; i++) {
        block_set_listener(i ? &deaf : NULL);
        fail_next(IO_SIM_READ, EIO, 1);
        assert_int_equal(co_access(disk, DISK_READ), -EIO);
        node_report_corrupt(disk->root, "damage", 0, 512, true);
    }
    block_set_listener(&listener);
    memset(&told, 0, sizeof(told));
    node_report_corrupt(disk->root, "damage", 0, 512, true);
    assert_string_equal(told.device, "d");
    node_report_corrupt(other, "damage", 0, 512, true); /* no disk's */
    assert_string_equal(told.device, "");
    assert_int_equal(told.corrupt, 2);
    disk_account_invalid(disk, DISK_WRITE);
    assert_int_equal(disk->stats.invalid[DISK_WRITE], 1);
    block_set_listener(NULL);
    co_node_unref(other);
    co_disk_free(empty);
    co_disk_free(disk);
}

/* --- Limits -------------------------------------------------------------------------------------------------------- */

static void set_limits(struct disk *disk, const char *group, const char *limits, const char *refusal)
{
    struct row row = { limits, refusal };
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(limits);

    assert_int_equal(disk_set_limits(disk, group, tree, &err) < 0, refusal != NULL);
    judge(&row, &err);
    json_decref(tree);
}

static void CO_ENTRY co_test_limits(void *arg)
{
    struct disk *disk = co_begin();
    struct request r = { .disk = disk, .op = DISK_WRITE };
    json_t *limits;

    set_limits(disk, "g", "{}", NULL);
    assert_null(disk->throttle.group);
    set_limits(disk, "g", "{'bps-write':1,'bps-total':1}",
               "bps/iops/max total values and read/write values cannot be used at the same time");
    assert_null(disk->throttle.group);
    set_limits(disk, "g", "{'bps-write':1}", NULL);
    assert_int_equal(co_access(disk, DISK_WRITE), 0); /* on credit */
    co_start(co_request, &r);
    co_settle();
    assert_false(r.ended);
    set_limits(disk, "g", "{'bps-write':2}", NULL); /* the same group: its buckets are empty again */
    limits = throttle_member_limits(&disk->throttle);
    assert_int_equal(json_integer_value(json_object_get(limits, "bps-write")), 2);
    json_decref(limits);
    co_settle();
    assert_true(r.ended);
    r.ended = false;
    co_start(co_request, &r);
    co_settle();
    assert_false(r.ended);
    set_limits(disk, "h", "{'bps-write':1}", NULL); /* another one: it has nothing to wait for there */
    assert_string_equal(throttle_member_group(&disk->throttle), "h");
    co_settle();
    assert_true(r.ended);
    assert_int_equal(co_access(disk, DISK_WRITE), 0);
    r.ended = false;
    co_start(co_request, &r);
    co_settle();
    assert_false(r.ended);
    set_limits(disk, "h", "{}", NULL); /* none any more */
    assert_null(disk->throttle.group);
    co_settle();
    assert_true(r.ended);
    co_disk_free(disk);
}

/* --- Names ------------------------------------------------------------------------------------------------------------ */

static void CO_ENTRY co_test_names(void *arg)
{
    struct row missing = { "nobody", "Cannot find device='nobody' nor node-name='nobody'" };
    struct row empty = { "e", "Device 'e' has no medium" };
    struct disk *d = co_begin(), *e = disk_new("e", NULL), *labelled = disk_new("", NULL);
    struct error err = ERROR_INIT;

    disk_set_label(labelled, "node7");
    disk_set_label(d, "other");
    assert_ptr_equal(disk_find("d"), d);
    assert_null(disk_find(""));
    assert_null(disk_find("node7"));
    assert_ptr_equal(disk_find_label("d"), d);
    assert_ptr_equal(disk_find_label("node7"), labelled);
    assert_null(disk_find_label("other")); /* who has an id is not called by its label */
    assert_ptr_equal(disk_or_node("d", &err), d->root);
    assert_ptr_equal(disk_or_node(d->root->name, &err), d->root);
    assert_null(disk_or_node("e", &err));
    judge(&empty, &err);
    assert_null(disk_or_node("nobody", &err));
    judge(&missing, &err);
    d->root->busy_reason = "somebody has it"; /* by its device's name where it has one */
    assert_int_equal(node_check_free(d->root, &err), -EBUSY);
    assert_string_equal(err.text, "Node 'd' is busy: somebody has it");
    error_clear(&err);
    d->root->busy_reason = NULL;
    assert_int_equal(disk_put_medium(labelled, co_open_raw("/l", false), NULL), 0);
    labelled->root->busy_reason = "somebody has it";
    assert_int_equal(node_check_free(labelled->root, &err), -EBUSY);
    assert_non_null(strstr(err.text, labelled->root->name));
    error_clear(&err);
    labelled->root->busy_reason = NULL;
    co_disk_free(labelled);
    co_disk_free(e);
    co_disk_free(d);
}

static void run(void (*co_test)(void *arg))
{
    loop_run_co(co_test, NULL);
    assert_true(TAILQ_EMPTY(&all_nodes));
    assert_true(TAILQ_EMPTY(&all_disks));
}

TEST(a_disk_without_medium_or_with_a_protected_one_says_so, co_test_media)
TEST(a_medium_that_several_take_goes_once, co_test_takers)
TEST(a_medium_that_got_an_overlay_meanwhile_goes_with_it, co_test_new_root)
TEST(an_error_is_treated_as_the_policy_says, co_test_policies)
TEST(a_reset_forgets_what_waits_for_the_operator, co_test_cancel)
TEST(errors_need_nobody_who_listens, co_test_nobody_listens)
TEST(limits_that_change_let_go_of_what_waits_for_old_ones, co_test_limits)
TEST(a_disk_is_found_by_its_id_or_else_by_its_label, co_test_names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_without_medium_or_with_a_protected_one_says_so),
        cmocka_unit_test(a_medium_that_several_take_goes_once),
        cmocka_unit_test(a_medium_that_got_an_overlay_meanwhile_goes_with_it),
        cmocka_unit_test(an_error_is_treated_as_the_policy_says),
        cmocka_unit_test(a_reset_forgets_what_waits_for_the_operator),
        cmocka_unit_test(errors_need_nobody_who_listens),
        cmocka_unit_test(limits_that_change_let_go_of_what_waits_for_old_ones),
        cmocka_unit_test(a_disk_is_found_by_its_id_or_else_by_its_label),
    };
    return cmocka_run_group_tests_name("disks", tests, rig_setup, rig_teardown);
}
