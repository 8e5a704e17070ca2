/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two drivers at the bottom, file and raw: what they say when the host refuses, at each of their calls, and that nothing is left
 * then; what is read-only because it has to be; other programs' locks in QEMU's words.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/filter.h"
#include "tests/unit/co-test.h"
#include "tests/unit/tree-rows.h"

#define KIB 1024u

static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_blkdebug, &driver_null_co, NULL };
static uint8_t buf[128 * KIB];

/* An operation of the host that fails once. */
struct fault {
    unsigned op;
    int error;
    uint64_t after;
};

static void fail_next(const struct fault *f)
{
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = f->op, .error = f->error, .after = f->after, .times = 1 };

    if (f->op) {
        io_sim_fault(&fault);
    }
}

static void begin(void)
{
    io_sim_reset();
    io_sim_create("/f", 128 * KIB);
    memset(buf, 0x33, 64 * KIB);
    assert_int_equal(io_sim_write("/f", 0, buf, 64 * KIB), 0);
}

static struct node *co_open(const char *text, const char *refusal)
{
    struct row row = { text, refusal };
    struct error err = ERROR_INIT;
    json_t *options = tree_of(text);
    struct node *node = co_node_open(NULL, options, &err);

    json_decref(options);
    judge(&row, &err);
    assert_int_equal(node != NULL, refusal == NULL);
    return node;
}

#define FILE_NODE "{'driver':'file','filename':'/f'}"
#define AUTO "{'driver':'file','filename':'/f','auto-read-only':true}"

/* --- Opening ------------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_open(void *arg)
{
    static const struct {
        struct fault fault;
        const char *tree, *text;
    } rows[] = {
        { { IO_SIM_OPEN, EIO, 0 }, FILE_NODE, "Could not open '/f': Input/output error" },
        { { IO_SIM_OPEN, EIO, 0 }, AUTO, "Could not open '/f': Input/output error" },
        { { IO_SIM_OPEN, EISDIR, 0 }, FILE_NODE, "Could not open '/f': Is a directory" },
        { { IO_SIM_OPEN, EINVAL, 0 }, FILE_NODE, "'file' driver requires '/f' to be a regular file" },
        { { IO_SIM_OPEN, EACCES, 0 }, FILE_NODE, "Could not open '/f': Permission denied" },
        { { IO_SIM_SIZE, EIO, 0 }, FILE_NODE, "Could not open '/f': Input/output error" },
        { { IO_SIM_LOCK, EIO, 0 }, "{'driver':'raw','file':" FILE_NODE "}", "Failed to lock '/f': Input/output error" },
        { { IO_SIM_READ, EIO, 0 }, "{'file':{'filename':'/f'}}",
          "Could not read image for determining its format: Input/output error" },
        { { 0 }, "{'driver':'file','filename':'/f','aio':'native'}",
          "aio=native was specified, but it requires cache.direct=on, which was not specified." },
        { { 0 }, "{'driver':'file','filename':'/f','aio':'native','cache':{'direct':true}}", NULL },
        { { 0 }, "{'driver':'file','filename':'/f','locking':'perhaps'}", "invalid parameter value: perhaps" },
        { { 0 }, "{'driver':'file'}", "The 'file' block driver requires a file name" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        begin();
        fail_next(&rows[i].fault);
        co_node_unref(co_open(rows[i].tree, rows[i].text));
        assert_true(TAILQ_EMPTY(&all_nodes));
        io_sim_faults_clear();
        co_node_unref(co_open("{'driver':'raw','file':" FILE_NODE "}", NULL)); /* no lock is left, no handle */
    }
}

static void CO_ENTRY co_test_auto(void *arg)
{
    static const int forbidden[] = { EACCES, EPERM, EROFS };
    struct node *node;

    for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
        const struct fault fault = { IO_SIM_OPEN, forbidden[i], 0 };

        begin();
        fail_next(&fault);
        node = co_open(AUTO, NULL);
        assert_true(node->read_only);
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), -EPERM);
        co_node_unref(node);
    }
    begin();
    node = co_open(AUTO, NULL);
    assert_false(node->read_only);
    co_node_unref(node);
}

/* --- Holes ---------------------------------------------------------------------------------------------- */

/* Where the host cannot say what is a hole, or what lies below is no file, the content is the same. */
static void CO_ENTRY co_test_maps(void *arg)
{
    static const char *const trees[] = {
        "{'driver':'raw','read-only':true,'file':{'driver':'file','filename':'/f'}}",
        "{'driver':'raw','read-only':true,'file':{'driver':'raw','file':{'driver':'file','filename':'/f'}}}",
        "{'driver':'raw','read-only':true,'file':{'driver':'blkdebug','image':{'driver':'file','filename':'/f'}}}",
        "{'driver':'raw','read-only':true,'file':{'driver':'null-co','size':131072,'read-zeroes':true}}",
    };
    static const struct fault fault = { IO_SIM_MAP, EIO, 0 };

    for (size_t i = 0; i < 2 * ARRAY_SIZE(trees); i++) {
        struct node *node;

        begin();
        node = co_open(trees[i / 2], NULL);
        fail_next(i % 2 ? &fault : &(struct fault){ 0 });
        memset(buf, 0x77, sizeof(buf));
        assert_int_equal(co_node_read_buf(node, 0, buf, sizeof(buf)), 0);
        assert_int_equal(buf[0], i / 2 < 3 ? 0x33 : 0);
        assert_int_equal(buf[64 * KIB - 1], i / 2 < 3 ? 0x33 : 0);
        assert_true(bytes_are_zero(buf + 64 * KIB, 64 * KIB));
        co_node_unref(node);
    }
}

/* --- Read-only and back ----------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_switch(void *arg)
{
    static const struct {
        struct fault fault;
        bool writable;
        const char *text;
    } rows[] = {
        { { IO_SIM_OPEN, EIO, 0 }, false, "Could not reopen '/f' read-only: Input/output error" },
        { { IO_SIM_FLUSH, EIO, 0 }, false, "Could not flush '/f': Input/output error" },
        { { IO_SIM_LOCK, EIO, 0 }, true, "Failed to lock '/f': Input/output error" },
        { { IO_SIM_OPEN, EROFS, 0 }, true, "Could not open '/f': Read-only file system" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct row row = { "switch", rows[i].text };
        struct error err = ERROR_INIT;
        struct node *node;

        begin();
        node = co_open("{'driver':'raw','file':{'driver':'file','filename':'/f'}}", NULL);
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), 0);
        if (rows[i].writable) {
            assert_int_equal(co_node_set_writable(node, false, &err), 0);
        }
        fail_next(&rows[i].fault);
        assert_true(co_node_set_writable(node, rows[i].writable, &err) < 0);
        judge(&row, &err);
        assert_int_equal(node->read_only, rows[i].writable);
        assert_int_equal(node->file->read_only, rows[i].writable);
        io_sim_faults_clear();
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), rows[i].writable ? -EPERM : 0);
        co_node_unref(node);
    }
}

/* Whoever stands above it: a filter has nothing of its own to switch, a file that nobody uses has no locks. */
static void CO_ENTRY co_test_switch_all(void *arg)
{
    static const char *const trees[] = {
        FILE_NODE,
        "{'driver':'blkdebug','image':" FILE_NODE "}",
        "{'driver':'raw','cache':{'no-flush':true},'file':{'driver':'blkdebug','image':" FILE_NODE "}}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(trees); i++) {
        struct error err = ERROR_INIT;
        struct node *node;

        begin();
        node = co_open(trees[i], NULL);
        assert_int_equal(co_node_set_writable(node, false, &err), 0);
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), -EPERM);
        for (struct node *n = node; n; n = n->file) {
            assert_true(n->read_only);
        }
        assert_int_equal(co_node_set_writable(node, true, &err), 0);
        assert_int_equal(co_node_write_buf(node, 0, buf, 512), 0);
        co_node_unref(node);
    }
}

/* --- New images ---------------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_create(void *arg)
{
    static const struct {
        struct fault fault;
        const char *how, *text;
    } rows[] = {
        { { IO_SIM_OPEN, EACCES, 0 }, "off", "Could not create '/new': Permission denied" },
        { { IO_SIM_LOCK, EIO, 0 }, "off", "Failed to lock '/new': Input/output error" },
        { { IO_SIM_TRUNCATE, EIO, 0 }, "off", "Could not resize file: Input/output error" },
        { { IO_SIM_TRUNCATE, EFBIG, 1 }, "off", "Could not resize file: File too large" },
        { { IO_SIM_ALLOCATE, ENOSPC, 0 }, "falloc",
          "Could not preallocate new data: No space left on device" },
        { { IO_SIM_WRITE, ENOSPC, 1 }, "full", "Could not write zeros for preallocation: No space left on device" },
        { { IO_SIM_FLUSH, EIO, 0 }, "full", "Could not write zeros for preallocation: Input/output error" },
        { { IO_SIM_SYNC_DIR, EIO, 0 }, "off", "Could not make the name of '/new' durable: Input/output error" },
        { { 0 }, "metadata", "Unsupported preallocation mode: metadata" },
        { { 0 }, "much", "invalid parameter value: much" },
        { { 0 }, "off", NULL },
        { { 0 }, "falloc", NULL },
        { { 0 }, "full", NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct row row = { rows[i].how, rows[i].text };
        json_t *options = json_pack("{s:i, s:s}", "size", 3 << 20, "preallocation", rows[i].how);
        struct error err = ERROR_INIT;
        uint64_t size;

        begin();
        fail_next(&rows[i].fault);
        assert_int_equal(driver_raw.co_create("/new", options, &err) < 0, rows[i].text != NULL);
        judge(&row, &err);
        json_decref(options);
        if (!rows[i].text) { /* it stays when the power goes */
            assert_int_equal(io_sim_size_durable("/new", &size), 0);
            assert_int_equal(size, 3 << 20);
        }
    }
}

static void CO_ENTRY co_test_place(void *arg)
{
    static const struct fault unreadable = { IO_SIM_SIZE, EIO, 0 };
    struct row rows[] = {
        { "not empty", "'/f' is not empty: take the image in it with mode=existing (in words: -n), or let a new one take its place "
                       "with overwrite=true (-f)" },
        { "unreadable", "Could not read '/f': Input/output error" },
        { "ours", "Failed to get \"write\" lock" },
    };
    struct error err = ERROR_INIT;
    struct node *node;

    begin();
    io_sim_create("/empty", 0);
    assert_int_equal(co_file_check_place("/none", false, &err), 0);
    assert_int_equal(co_file_check_place("/empty", false, &err), 0);
    assert_int_equal(co_file_check_place("/f", true, &err), 0);
    assert_int_equal(co_file_check_place("/f", false, &err), -EEXIST);
    judge(rows, &err);
    fail_next(&unreadable);
    assert_int_equal(co_file_check_place("/f", false, &err), -EIO);
    judge(rows + 1, &err);
    io_sim_faults_clear();
    node = co_open(FILE_NODE, NULL);
    assert_int_equal(co_file_check_place("/f", true, &err), -EBUSY); /* whatever is asked */
    judge(rows + 2, &err);
    assert_int_equal(io_sim_write("/f", 1 << 20, buf, 100), 0);
    fail_next(&unreadable);
    assert_int_equal(co_file_look_at_size(node), -EIO);
    assert_int_equal(node->size, 128 * KIB);
    assert_int_equal(co_file_look_at_size(node), 0);
    assert_int_equal(node->size, (1 << 20) + 512);
    co_node_unref(node);
}

/* --- Other programs ------------------------------------------------------------------------------------------- */

/* Real files: a second handle is as good as another program (core/io-lock.c). */
static char *host_image(void)
{
    return mem_printf("%s/image", rig_dir);
}

struct other {
    unsigned used, unshared;
    const char *tree; /* %s is the image */
    const char *text;
};

#define HOST "'file':{'driver':'file','filename':'%s','aio':'threads'%s}"
#define QCOW2 "{'driver':'qcow2'," HOST "}"
#define RAW "{'driver':'raw'," HOST "}"

static void CO_ENTRY co_test_locks(void *arg)
{
    static const struct other rows[] = {
        { IO_PERM_CONSISTENT_READ, 0, QCOW2, NULL },
        { IO_PERM_WRITE_UNCHANGED, 0, QCOW2, NULL },
        { IO_PERM_WRITE, 0, QCOW2, "Failed to get shared \"write\" lock" },
        { IO_PERM_RESIZE, 0, QCOW2, "Failed to get shared \"resize\" lock" },
        { 0, IO_PERM_CONSISTENT_READ, QCOW2, "Failed to get \"consistent read\" lock" },
        { 0, IO_PERM_WRITE, QCOW2, "Failed to get \"write\" lock" },
        { 0, IO_PERM_RESIZE, QCOW2, "Failed to get \"resize\" lock" },
        { 0, IO_PERM_WRITE_UNCHANGED, QCOW2, NULL },
        { IO_PERM_WRITE | IO_PERM_RESIZE, 0, RAW, NULL },
        { 0, IO_PERM_WRITE, RAW, "Failed to get \"write\" lock" },
        { 0, IO_PERM_RESIZE, RAW, NULL },
    };
    static const char *const more[] = { "", ",'locking':'on'", ",'locking':'off'" };
    AUTOFREE char *path = host_image();
    struct io_file *other;
    unsigned bad;
    bool bad_shared;

    begin();
    json_t *options = json_pack("{s:s}", "size", "1M");
    struct error err = ERROR_INIT;

    assert_int_equal(driver_qcow2.co_create("/q", options, &err), 0);
    json_decref(options);
    assert_int_equal(io_sim_export("/q", path), 0);
    assert_int_equal(co_io_open(io_engine_find("threads"), path, IO_RDWR, &other), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows) * ARRAY_SIZE(more); i++) {
        const struct other *row = rows + i / ARRAY_SIZE(more);
        const char *locking = more[i % ARRAY_SIZE(more)];
        AUTOFREE char *tree = mem_printf(row->tree, path, locking);

        assert_int_equal(io_file_lock(other, row->used, IO_PERM_ALL & ~row->unshared, &bad, &bad_shared), 0);
        co_node_unref(co_open(tree, strstr(locking, "off") ? NULL : row->text));
    }
    co_io_close(other);
    unlink(path);
}

static void CO_ENTRY co_test_locked_places(void *arg)
{
    static const struct other rows[] = {
        { IO_PERM_CONSISTENT_READ, 0, NULL, NULL },
        { IO_PERM_RESIZE, 0, NULL, "Failed to get shared \"resize\" lock" },
        { 0, IO_PERM_WRITE, NULL, "Failed to get \"write\" lock" },
        { 0, IO_PERM_RESIZE, NULL, "Failed to get \"resize\" lock" },
    };
    json_t *options = json_pack("{s:i}", "size", 4096);
    AUTOFREE char *path = host_image();
    struct io_file *other;
    unsigned bad;
    bool bad_shared;

    assert_int_equal(co_io_open(io_engine_find("threads"), path, IO_RDWR | IO_CREATE, &other), 0);
    assert_int_equal(co_io_write(other, 0, "what was in it", 14), 0);
    io_engine_set_default(io_engine_find("threads"));
    for (size_t i = ARRAY_SIZE(rows); i-- > 0;) {
        struct row row = { "a new image", rows[i].text };
        struct error err = ERROR_INIT;
        char head[15] = "";

        assert_int_equal(io_file_lock(other, rows[i].used, IO_PERM_ALL & ~rows[i].unshared, &bad, &bad_shared), 0);
        assert_int_equal(driver_raw.co_create(path, options, &err) < 0, rows[i].text != NULL);
        judge(&row, &err);
        assert_int_equal(co_io_read(other, 0, head, 14), 0);
        assert_string_equal(head, rows[i].text ? "what was in it" : "");
    }
    io_engine_set_default(io_engine_find("sim"));
    co_io_close(other);
    json_decref(options);
    unlink(path);
}

static void run(void (*co_test)(void *arg))
{
    node_set_drivers(drivers);
    loop_run_co(co_test, NULL);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

TEST(a_file_that_cannot_be_opened_says_why_and_leaves_nothing, co_test_open)
TEST(what_the_host_forbids_to_write_is_read_only_when_it_may_be, co_test_auto)
TEST(holes_are_only_a_shortcut, co_test_maps)
TEST(a_switch_that_fails_leaves_the_image_as_it_was, co_test_switch)
TEST(a_switch_goes_down_to_the_file_and_back, co_test_switch_all)
TEST(a_new_image_says_what_failed, co_test_create)
TEST(a_place_for_an_image_is_looked_at_first, co_test_place)
TEST(locks_of_others_are_named_as_the_real_one_names_them, co_test_locks)
TEST(no_image_takes_the_place_of_one_that_others_use, co_test_locked_places)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_cannot_be_opened_says_why_and_leaves_nothing),
        cmocka_unit_test(what_the_host_forbids_to_write_is_read_only_when_it_may_be),
        cmocka_unit_test(holes_are_only_a_shortcut),
        cmocka_unit_test(a_switch_that_fails_leaves_the_image_as_it_was),
        cmocka_unit_test(a_switch_goes_down_to_the_file_and_back),
        cmocka_unit_test(a_new_image_says_what_failed),
        cmocka_unit_test(a_place_for_an_image_is_looked_at_first),
        cmocka_unit_test(locks_of_others_are_named_as_the_real_one_names_them),
        cmocka_unit_test(no_image_takes_the_place_of_one_that_others_use),
    };
    return cmocka_run_group_tests_name("files", tests, rig_setup, rig_teardown);
}
