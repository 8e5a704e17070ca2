/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing the backing file of a real image: wherever the power goes, the header has the old name
 * or the new one, and with the new one everything is there that was written before.
 */
#include "tests/unit/qcow2-rig.h"

#define DATA_AT (3u << 20)
#define DATA_LEN 70000u

struct change {
    const char *options;  /* of the image; it is made with the backing file "old-name.img" */
    const char *name, *format;
    int ret;
    char *text;
    const struct io_sim_fault *fault; /* planned once the image is open; may be NULL */
};

static void CO_ENTRY make_entry(void *arg)
{
    AUTOFREE char *words = mem_printf("size=8M,backing_file=old-name.img,backing_fmt=qcow2,%s", (const char *)arg);

    co_rig_create("/x.img", words);
}

static uint8_t pattern(uint32_t i)
{
    return i * 31 + i / 509 + 1;
}

static void CO_ENTRY change_entry(void *arg)
{
    struct change *c = arg;
    struct error err = ERROR_INIT;
    struct node *node = co_rig_open("/x.img", true);
    uint8_t *data = mem_alloc(DATA_LEN);

    if (c->fault) {
        io_sim_fault(c->fault);
    }
    for (uint32_t i = 0; i < DATA_LEN; i++) {
        data[i] = pattern(i);
    }
    struct iovec iov = { data, ROUND_DOWN(DATA_LEN, NODE_SECTOR) };

    c->ret = co_node_write(node, DATA_AT, &iov, 1);
    c->text = c->ret ? mem_strdup("the guest's write failed") : NULL;
    if (!c->ret) {
        c->ret = co_qcow2_set_backing(node, c->name, c->format, &err);
        c->text = mem_strdup(err.text);
    }
    if (!c->ret) {
        assert_true(c->name ? !strcmp(node->backing_name, c->name) : !node->backing_name);
    }
    error_clear(&err);
    free(data);
    co_node_unref(node);
}

struct seen {
    char *name, *format;
    bool data;
};

static void CO_ENTRY look_entry(void *arg)
{
    struct seen *s = arg;
    struct node *node = co_rig_open("/x.img", false);
    uint32_t len = ROUND_DOWN(DATA_LEN, NODE_SECTOR);
    uint8_t *data = mem_alloc(len);

    s->name = mem_strdup(node->backing_name);
    s->format = mem_strdup(node->backing_format);
    assert_int_equal(co_node_read_buf(node, DATA_AT, data, len), 0);
    s->data = true;
    for (uint32_t i = 0; i < len; i++) {
        s->data = s->data && data[i] == pattern(i);
    }
    free(data);
    co_node_unref(node);
}

static struct seen look(void)
{
    struct seen s;

    loop_run_co(look_entry, &s);
    return s;
}

static bool same(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static char long_name[1024];

static const struct change changes[] = {
    { .options = "", .name = "new.img", .format = "raw" },
    { .options = "", .name = "../a/much/longer/name/than/before.qcow2", .format = "qcow2" },
    { .options = "", .name = long_name, .format = "qcow2" },
    { .options = "", .name = NULL },
    { .options = "", .name = "new.img", .format = NULL },
    { .options = "", .name = "new.img", .format = "host_device" },
    { .options = "compat=0.10", .name = "new.img", .format = "raw" },
    { .options = "compat=0.10", .name = NULL },
    { .options = "cluster_size=512", .name = "new.img", .format = "raw" },
    { .options = "cluster_size=512", .name = NULL },
    { .options = "cluster_size=1k", .name = "a-new-name-that-is-longer.img", .format = "raw" },
    { .options = "cluster_size=2M", .name = "new.img", .format = "raw" },
};

static void a_crash_leaves_the_old_backing_file_or_the_new_one(void **state)
{
    memset(long_name, 'n', sizeof(long_name) - 1);
    for (size_t k = 0; k < ARRAY_SIZE(changes); k++) {
        struct change c = changes[k];
        struct rig_states states = { 0 };
        unsigned old = 0, new = 0;

        io_sim_reset();
        loop_run_co(make_entry, (void *)c.options);
        io_sim_on_op(rig_take_state, &states);
        loop_run_co(change_entry, &c);
        io_sim_on_op(NULL, NULL);
        assert_int_equal(c.ret, 0);
        for (size_t i = 0; i < states.n; i++) {
            for (unsigned seed = 0; seed < 8; seed++) {
                io_sim_restore(states.list[i]);
                io_sim_cut(seed % 4, 64 * i + seed);
                struct seen s = look();

                if (same(s.name, "old-name.img")) {
                    assert_true(same(s.format, "qcow2"));
                    old++;
                } else {
                    assert_true(same(s.name, c.name));
                    assert_true(same(s.format, c.name ? c.format : NULL));
                    assert_true(s.data);
                    new++;
                }
                free(s.name);
                free(s.format);
            }
        }
        assert_true(old && new);
        rig_free_states(&states);
    }
    io_sim_reset();
}

static void what_was_reported_is_durable(void **state)
{
    for (size_t k = 0; k < ARRAY_SIZE(changes); k++) {
        struct change c = changes[k];

        io_sim_reset();
        loop_run_co(make_entry, (void *)c.options);
        loop_run_co(change_entry, &c);
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, k);
        struct seen s = look();

        assert_true(same(s.name, c.name) && s.data);
        free(s.name);
        free(s.format);
    }
    io_sim_reset();
}

static void a_name_without_room_is_refused_and_changes_nothing(void **state)
{
    struct change c = { .options = "cluster_size=512", .name = long_name, .format = "raw" };

    memset(long_name, 'n', sizeof(long_name) - 1);
    io_sim_reset();
    loop_run_co(make_entry, (void *)c.options);
    loop_run_co(change_entry, &c);
    assert_int_equal(c.ret, -ENOSPC);
    assert_non_null(strstr(c.text, "does not fit into the header of '/x.img'"));
    free(c.text);
    struct seen s = look();

    assert_string_equal(s.name, "old-name.img");
    assert_string_equal(s.format, "qcow2");
    assert_true(s.data);
    free(s.name);
    free(s.format);
    io_sim_reset();
}

/* A header of a later time: 16 KiB long, with bytes of a meaning that we do not know, and the name
 * behind it. */
static void lengthen_header(const uint8_t *fields, size_t len)
{
    uint8_t number[8];

    io_sim_write("/x.img", 112, fields, len);
    store_be32(number, 112 + len);
    io_sim_write("/x.img", 100, number, 4);
    store_be64(number, 20000);
    io_sim_write("/x.img", 8, number, 8);
    io_sim_write("/x.img", 20000, "old-name.img", 12);
}

static void bytes_of_a_longer_header_are_kept(void **state)
{
    uint8_t fields[16384 - 112], after[16384 - 112];

    for (size_t i = 0; i < sizeof(fields); i++) {
        fields[i] = i % 251;
    }
    for (unsigned with_format = 0; with_format < 2; with_format++) {
        /* A format could not change together with the name: its place is not in the first
         * sector. */
        struct change c = { .options = "", .name = "new.img", .format = with_format ? "raw" : NULL };

        io_sim_reset();
        loop_run_co(make_entry, (void *)c.options);
        lengthen_header(fields, sizeof(fields));
        loop_run_co(change_entry, &c);
        assert_int_equal(c.ret, with_format ? -ENOSPC : 0);
        free(c.text);
        struct seen s = look();

        assert_string_equal(s.name, with_format ? "old-name.img" : "new.img");
        free(s.name);
        free(s.format);
        io_sim_read("/x.img", 112, after, sizeof(after));
        assert_memory_equal(after, fields, sizeof(fields));
    }
    io_sim_reset();
}

/* Any single operation fails: an error is reported and the old name stands, or nothing failed. */
static void a_failure_leaves_the_old_backing_file(void **state)
{
    for (uint64_t after = 0;; after++) {
        struct change c = { .options = "", .name = "new.img", .format = "raw" };
        struct io_sim_fault fault = { .ops = IO_SIM_WRITE | IO_SIM_FLUSH, .after = after, .times = 1 };

        io_sim_reset();
        loop_run_co(make_entry, (void *)c.options);
        c.fault = &fault;
        loop_run_co(change_entry, &c);
        bool struck = io_sim_faults_struck();

        io_sim_faults_clear();
        struct seen s = look();

        assert_string_equal(s.name, c.ret ? "old-name.img" : "new.img");
        assert_true(!c.ret == !c.text);
        free(c.text);
        free(s.name);
        free(s.format);
        if (!struck) {
            assert_true(after > 4);
            break;
        }
    }
    io_sim_reset();
}

/* Back and forth, with qemu-img as the judge in between. */
static void CO_ENTRY closed_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", arg != NULL);
    struct error err = ERROR_INIT;

    node->corrupt = arg;
    assert_int_equal(co_qcow2_set_backing(node, "new.img", "raw", &err), -EPERM);
    assert_string_equal(err.text, arg ? "The header of '/x.img' cannot be changed: the image is corrupt"
                                      : "The header of '/x.img' cannot be changed: the image is read-only");
    error_clear(&err);
    co_node_unref(node);
}

static void an_image_that_is_only_read_keeps_its_header(void **state)
{
    io_sim_reset();
    loop_run_co(make_entry, (void *)"");
    uint64_t sum = io_sim_hash("/x.img");

    loop_run_co(closed_entry, NULL);
    loop_run_co(closed_entry, (void *)"corrupt");
    assert_int_equal(io_sim_hash("/x.img"), sum);
    io_sim_reset();
}

/* Header fields of a later time fill the cluster: there is no room even for the end of the extensions. */
static void CO_ENTRY full_entry(void *arg)
{
    struct node *node = co_rig_open("/x.img", true);
    struct error err = ERROR_INIT;

    assert_int_equal(co_qcow2_set_backing(node, NULL, NULL, &err), -ENOSPC);
    assert_string_equal(err.text, "The header of '/x.img' has no room to remove the backing file");
    error_clear(&err);
    co_node_unref(node);
}

static void a_header_without_room_says_so(void **state)
{
    uint8_t length[4];

    io_sim_reset();
    loop_run_co(make_entry, (void *)"cluster_size=512");
    store_be32(length, 512);
    io_sim_write("/x.img", 100, length, 4);
    rig_put64("/x.img", 8, 512); /* a name of no bytes, behind it */
    io_sim_write("/x.img", 16, "\0\0\0", 4);
    uint64_t sum = io_sim_hash("/x.img");

    loop_run_co(full_entry, NULL);
    assert_int_equal(io_sim_hash("/x.img"), sum);
    io_sim_reset();
}

static void CO_ENTRY many_entry(void *arg)
{
    static const char *const names[] = { "a.img", "a-longer-name.img", "b.img", "dir/c.img", "old-name.img" };
    struct node *node = co_rig_open("/x.img", true);
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < 40; i++) {
        const char *name = i % 7 == 6 ? NULL : names[i % ARRAY_SIZE(names)];

        assert_int_equal(co_qcow2_set_backing(node, name, i % 3 ? "qcow2" : "raw", &err), 0);
    }
    co_node_unref(node);
}

static void many_changes_leave_an_image_that_qemu_likes(void **state)
{
    static const char *const options[] = { "", "compat=0.10", "cluster_size=512", "cluster_size=4k" };
    int status;

    rig_need_qemu_img();
    free(rig_shell(&status, "cd %s && qemu-img create -q -f qcow2 old-name.img 8M", rig_dir));
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        io_sim_reset();
        loop_run_co(make_entry, (void *)options[i]);
        loop_run_co(many_entry, NULL);
        rig_qemu_check("/x.img");
        AUTOFREE char *info = rig_shell(&status, "qemu-img info -U -f qcow2 %s", rig_file);

        assert_non_null(strstr(info, "backing file: old-name.img"));
        assert_non_null(strstr(info, "backing file format: raw"));
    }
    free(rig_shell(&status, "rm %s/old-name.img", rig_dir));
    io_sim_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_leaves_the_old_backing_file_or_the_new_one),
        cmocka_unit_test(what_was_reported_is_durable),
        cmocka_unit_test(a_name_without_room_is_refused_and_changes_nothing),
        cmocka_unit_test(bytes_of_a_longer_header_are_kept),
        cmocka_unit_test(a_failure_leaves_the_old_backing_file),
        cmocka_unit_test(an_image_that_is_only_read_keeps_its_header),
        cmocka_unit_test(a_header_without_room_says_so),
        cmocka_unit_test(many_changes_leave_an_image_that_qemu_likes),
    };

    return cmocka_run_group_tests_name("qcow2-backing", tests, rig_setup, rig_teardown);
}
