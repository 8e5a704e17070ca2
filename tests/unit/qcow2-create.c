/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New qcow2 images: every combination of options is judged by qemu-img; wrong options are refused
 * in words and touch nothing; and wherever the power goes while an image is made over an old one,
 * no third image is left.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/qcow2-check.h"

struct request {
    const char *path;
    json_t *options;
    int ret;
    struct error err;
};

static void CO_ENTRY create_entry(void *arg)
{
    struct request *r = arg;

    r->err = ERROR_INIT;
    r->ret = co_qcow2_create(r->path, r->options, &r->err);
}

/* `options` are given away. */
static int create_tree(const char *path, json_t *options, char **text)
{
    struct request r = { .path = path, .options = options };

    loop_run_co(create_entry, &r);
    assert_int_equal(error_is_set(&r.err), r.ret != 0);
    if (text) {
        *text = mem_strdup(r.err.text);
    } else if (r.ret) {
        print_message("%s\n", r.err.text);
    }
    json_decref(options);
    error_clear(&r.err);
    return r.ret;
}

static int create(const char *path, const char *options, char **text)
{
    return create_tree(path, rig_options(options), text);
}

/* --- All options ------------------------------------------------------------------------------ */

/* Our own judge: everything that refers to a cluster is followed, and the counts agree. */
static void CO_ENTRY agree_entry(void *arg)
{
    struct node *node = co_rig_open(arg, false);
    struct qcow2_check c;
    struct error err = ERROR_INIT;
    struct qcow2 *q = node->state;
    bool agree = false;

    assert_int_equal(co_qcow2_load_reftable(q), 0);
    assert_int_equal(co_qcow2_check_init(&c, q, &err), 0);
    assert_int_equal(co_qcow2_check_walk(&c, &err), 0);
    assert_int_equal(co_qcow2_check_compare(&c, &agree, &err), 0);
    assert_true(agree);
    qcow2_check_free(&c);
    co_node_unref(node);
}

static void check_info(const char *options, unsigned bits, unsigned width, const char *more)
{
    int status;
    AUTOFREE char *info = rig_shell(&status, "qemu-img info -U --output=json -f qcow2 %s", rig_file);
    json_t *root = json_loads(info, 0, NULL);
    json_t *data = json_object_get(json_object_get(root, "format-specific"), "data");
    bool v2 = strstr(more, "compat=0.10");

    assert_non_null(data);
    assert_int_equal(json_integer_value(json_object_get(root, "cluster-size")), 1 << bits);
    assert_int_equal(json_integer_value(json_object_get(data, "refcount-bits")), width);
    assert_string_equal(json_string_value(json_object_get(data, "compat")), v2 ? "0.10" : "1.1");
    assert_int_equal(json_is_true(json_object_get(data, "lazy-refcounts")), !!strstr(more, "lazy"));
    assert_int_equal(json_is_true(json_object_get(data, "extended-l2")), !!strstr(more, "extended"));
    assert_string_equal(json_string_value(json_object_get(data, "compression-type")),
                        strstr(more, "zstd") ? "zstd" : "zlib");
    if (strstr(more, "backing_file")) {
        assert_string_equal(json_string_value(json_object_get(root, "backing-filename")), "base.img");
        assert_string_equal(json_string_value(json_object_get(root, "backing-filename-format")), "raw");
    }
    json_decref(root);
}

static void every_combination_is_an_image_to_qemu(void **state)
{
    static const struct {
        unsigned width;
        const char *more;
    } kinds[] = {
        { 16, "" },
        { 16, ",compat=0.10" },
        { 1, ",compat=v3" },
        { 2, ",lazy_refcounts=on" },
        { 4, ",compression_type=zstd" },
        { 8, ",preallocation=metadata" },
        { 32, ",preallocation=falloc" },
        { 64, ",preallocation=full" },
        { 16, ",extended_l2=on" },
        { 1, ",extended_l2=on,preallocation=metadata" },
        { 64, ",backing_file=base.img,backing_fmt=raw" },
        { 16, ",compat=0.10,backing_file=base.img,backing_fmt=raw" },
        { 16, ",extended_l2=on,preallocation=metadata,backing_file=base.img,backing_fmt=raw" },
    };
    static const unsigned clusters[] = { 9, 12, 14, 16, 21 };
    static const uint64_t sizes[] = { 0, 512, 3 * 1000 * 512, 40 << 20 };
    unsigned made = 0;
    int status;

    rig_need_qemu_img();
    free(rig_shell(&status, "truncate -s 40M %s/base.img", rig_dir));
    for (unsigned i = 0; i < ARRAY_SIZE(kinds) * ARRAY_SIZE(clusters); i++) {
        unsigned bits = clusters[i / ARRAY_SIZE(kinds)], kind = i % ARRAY_SIZE(kinds);
        const char *more = kinds[kind].more;

        if (strstr(more, "extended") && bits < 14) {
            continue;
        }
        AUTOFREE char *options = mem_printf("size=%llu,cluster_size=%u,refcount_bits=%u%s",
                                            (unsigned long long)sizes[i % ARRAY_SIZE(sizes)], 1 << bits,
                                            kinds[kind].width, more);

        assert_int_equal(create("/new.img", options, NULL), 0);
        loop_run_co(agree_entry, (void *)"/new.img");
        rig_qemu_check("/new.img");
        check_info(options, bits, kinds[kind].width, more);
        made++;
        io_sim_reset();
    }
    assert_true(made > 50);
    free(rig_shell(&status, "rm %s/base.img", rig_dir));
}

static void the_largest_disks_have_room_for_their_tables(void **state)
{
    assert_int_equal(create("/a.img", "size=2P", NULL), 0);
    loop_run_co(agree_entry, (void *)"/a.img");
    assert_int_equal(create("/b.img", "size=16G,cluster_size=512,refcount_bits=64", NULL), 0);
    loop_run_co(agree_entry, (void *)"/b.img");
    assert_int_equal(create("/c.img", "size=1P,cluster_size=2M,extended_l2=on", NULL), 0);
    loop_run_co(agree_entry, (void *)"/c.img");
    io_sim_reset();
}

/* Byte for byte what qemu-img makes. */
static void plain_images_are_those_of_qemu(void **state)
{
    static const char *const options[] = {
        "size=1G",
        "size=1G,compat=0.10",
        "size=1G,cluster_size=4096,lazy_refcounts=on,refcount_bits=1",
        "size=8M,backing_file=base.img,backing_fmt=raw",
        "size=8M,backing_file=base.img,backing_fmt=raw,compat=0.10,cluster_size=2M",
        "size=1M,cluster_size=512,backing_file=base.img,backing_fmt=raw",
        "size=1M,extended_l2=on,compression_type=zstd",
    };

    rig_need_qemu_img();
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        int status;
        uint64_t size;

        assert_int_equal(create("/ours.img", options[i], NULL), 0);
        AUTOFREE char *out = rig_shell(&status, "qemu-img create -u -q -f qcow2 -o %s %s", options[i], rig_file);

        assert_int_equal(status, 0);
        assert_int_equal(io_sim_import("/theirs.img", rig_file), 0);
        assert_int_equal(io_sim_size("/ours.img", &size), 0);
        uint8_t *ours = mem_alloc(size), *theirs = mem_alloc(size);
        uint64_t their_size;

        assert_int_equal(io_sim_size("/theirs.img", &their_size), 0);
        assert_int_equal(size, their_size);
        io_sim_read("/ours.img", 0, ours, size);
        io_sim_read("/theirs.img", 0, theirs, size);
        assert_memory_equal(ours, theirs, size);
        free(ours);
        free(theirs);
    }
    io_sim_reset();
}

/* --- Wrong options ---------------------------------------------------------------------------- */

static void wrong_options_are_refused_and_touch_nothing(void **state)
{
    static const struct {
        const char *options, *text;
    } wrong[] = {
        { "compat=v3", "Image creation needs a size parameter" },
        { "size=x", "Parameter 'size' expects a non-negative number below 2^64" },
        { "size=-1", "Parameter 'size' expects a non-negative number below 2^64" },
        { "size=99999999999999999999", "Value '99999999999999999999' is out of range for parameter 'size'" },
        { "size=1M,cluster_size=0", "Cluster size must be a power of two between 512 and 2048k" },
        { "size=1M,cluster_size=3k", "Cluster size must be a power of two between 512 and 2048k" },
        { "size=1M,cluster_size=4M", "Cluster size must be a power of two between 512 and 2048k" },
        { "size=1M,cluster_size=1e3", "Parameter 'cluster_size' expects a non-negative number below 2^64" },
        { "size=1M,compat=v4", "Parameter 'version' does not accept value 'v4'" },
        { "size=1M,compat=", "Parameter 'version' does not accept value ''" },
        { "size=1M,compat=0.10,lazy_refcounts=on",
          "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,compat=0.10,refcount_bits=8",
          "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)" },
        { "size=1M,compat=0.10,extended_l2=on",
          "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,compat=0.10,compression_type=zstd",
          "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)" },
        { "size=1M,lazy_refcounts=maybe", "Parameter 'lazy_refcounts' expects 'on' or 'off'" },
        { "size=1M,refcount_bits=3", "Refcount width must be a power of two and may not exceed 64 bits" },
        { "size=1M,refcount_bits=128", "Refcount width must be a power of two and may not exceed 64 bits" },
        { "size=1M,refcount_bits=0", "Refcount width must be a power of two and may not exceed 64 bits" },
        { "size=1M,refcount_bits=16k", "Parameter 'refcount_bits' expects a number" },
        { "size=1M,extended_l2=on,cluster_size=8k",
          "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes" },
        { "size=1M,compression_type=lz4", "Parameter 'compression-type' does not accept value 'lz4'" },
        { "size=1M,preallocation=foo", "Parameter 'preallocation' does not accept value 'foo'" },
        { "size=1M,preallocation=full,backing_file=b,backing_fmt=raw",
          "Backing file and preallocation can only be used at the same time if extended_l2 is on" },
        { "size=1M,backing_fmt=raw", "Backing format cannot be used without backing file" },
        { "size=1M,backing_file=,backing_fmt=raw", "Expected backing file name, got empty string" },
        { "size=1M,encryption=on", "Encrypted images are not supported" },
        { "size=1M,encrypt.format=luks", "Encrypted images are not supported" },
        { "size=1M,data_file=x", "External data files are not supported" },
        { "size=1M,data_file_raw=on", "data-file-raw requires data-file" },
        { "size=1M,foo=bar", "Invalid parameter 'foo'" },
        { "size=7E", "The image size is too large for file format 'qcow2' (try using a larger cluster size)" },
        { "size=129G,cluster_size=512",
          "The image size is too large for file format 'qcow2' (try using a larger cluster size)" },
        { "size=100G,cluster_size=512,refcount_bits=64,preallocation=metadata", /* too many counts */
          "The image size is too large for file format 'qcow2' (try using a larger cluster size)" },
        { "size=128P,cluster_size=2M,refcount_bits=1,preallocation=metadata", /* the file too long */
          "The image size is too large for file format 'qcow2' (try using a larger cluster size)" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        char *text;

        assert_int_not_equal(create("/wrong.img", wrong[i].options, &text), 0);
        assert_string_equal(text, wrong[i].text);
        free(text);
    }
    assert_false(io_exists("/wrong.img"));
    assert_int_equal(create("/fine.img", "size=1M,encryption=off,nocow=on,extent_size_hint=1M,data_file_raw=off", NULL), 0);
    io_sim_reset();
}

/* Numbers and switches as JSON has them. */
static void options_of_another_type_are_refused(void **state)
{
    static const struct {
        const char *key, *value, *text; /* value: JSON; text NULL: fine */
    } rows[] = {
        { "size", "-1", "Parameter 'size' expects a non-negative number below 2^64" },
        { "size", "1.5", "Parameter 'size' expects a non-negative number below 2^64" },
        { "size", "null", "Parameter 'size' expects a non-negative number below 2^64" },
        { "size", "9223372036854775807", "Image size must be between 0 and 9223372036854775295" },
        { "size", "3000", NULL },
        { "cluster_size", "[]", "Parameter 'cluster_size' expects a non-negative number below 2^64" },
        { "lazy_refcounts", "true", NULL },
        { "lazy_refcounts", "false", NULL },
        { "lazy_refcounts", "1", "Parameter 'lazy_refcounts' expects 'on' or 'off'" },
        { "extended_l2", "{}", "Parameter 'extended_l2' expects 'on' or 'off'" },
        { "refcount_bits", "8", NULL },
        { "refcount_bits", "true", "Parameter 'refcount_bits' expects a number" },
        { "refcount_bits", "\"\"", "Parameter 'refcount_bits' expects a number" },
        { "refcount_bits", "\"99999999999999999999\"", "Parameter 'refcount_bits' expects a number" },
        { "compat", "3", "Parameter 'version' does not accept value ''" },
        { "compression_type", "1", "Parameter 'compression-type' does not accept value ''" },
        { "preallocation", "false", "Parameter 'preallocation' does not accept value ''" },
        { "backing_file", "5", "Parameter 'backing_file' expects a string" },
        { "backing_file", "null", NULL },
        { "backing_file", "\"b.img\"", NULL },
        { "backing_fmt", "5", "Parameter 'backing_fmt' expects a string" },
        { "encryption", "\"maybe\"", "Parameter 'encryption' expects 'on' or 'off'" },
        { "data_file_raw", "3", "Parameter 'data_file_raw' expects 'on' or 'off'" },
        { "nocow", "3", "Parameter 'nocow' expects 'on' or 'off'" },
        { "nocow", "false", NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        json_t *options = json_pack("{s:s}", "size", "1M");
        char *text;

        json_object_set_new(options, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        int ret = create_tree("/typed.img", options, &text);

        if (rows[i].text) {
            assert_int_not_equal(ret, 0);
            assert_string_equal(text, rows[i].text);
        } else {
            assert_int_equal(ret, 0);
            loop_run_co(agree_entry, (void *)"/typed.img");
        }
        free(text);
        io_sim_reset();
    }
}

static void a_raw_data_file_is_refused_for_being_one_at_all(void **state)
{
    char *text;

    assert_int_not_equal(create("/x.img", "size=1M,data_file=d,data_file_raw=on", &text), 0);
    assert_string_equal(text, "External data files are not supported");
    free(text);
}

static void backing_names_that_do_not_fit_are_refused(void **state)
{
    char name[1025], *text;

    memset(name, 'n', sizeof(name));
    name[440] = 0;
    AUTOFREE char *small = mem_printf("size=1M,cluster_size=512,backing_file=%s,backing_fmt=qcow2", name);
    AUTOFREE char *small_text =
        mem_printf("Could not assign backing file '%s' with format 'qcow2': No space left on device", name);

    assert_int_not_equal(create("/wrong.img", small, &text), 0);
    assert_string_equal(text, small_text);
    free(text);
    name[440] = 'n';
    name[1024] = 0;
    AUTOFREE char *large = mem_printf("size=1M,backing_file=%s,backing_fmt=qcow2", name);

    assert_int_not_equal(create("/wrong.img", large, &text), 0);
    assert_non_null(strstr(text, "Invalid argument"));
    free(text);
    AUTOFREE char *bare = mem_printf("size=1M,backing_file=%s", name);

    assert_int_not_equal(create("/wrong.img", bare, &text), 0);
    assert_non_null(strstr(text, "with format '': Invalid argument"));
    free(text);
    assert_int_not_equal(create("/wrong.img", "size=1M,backing_file=b,backing_fmt=sixteen-letters-", &text), 0);
    assert_string_equal(text, "Could not assign backing file 'b' with format 'sixteen-letters-': Invalid argument");
    free(text);
    name[1023] = 0;
    AUTOFREE char *fits = mem_printf("size=1M,backing_file=%s,backing_fmt=qcow2", name);

    assert_int_equal(create("/fits.img", fits, NULL), 0);
    assert_false(io_exists("/wrong.img"));
    io_sim_reset();
}

/* --- Crashes and faults ----------------------------------------------------------------------- */

struct judged {
    const char *path;
    char *backing; /* out: as recorded; NULL when the image does not open */
    bool opens;
};

static void CO_ENTRY judge_entry(void *arg)
{
    struct judged *j = arg;
    json_t *options = json_pack("{s:s, s:b, s:n}", "driver", "qcow2", "read-only", 1, "backing");
    struct node *node = co_node_open(j->path, options, NULL);

    json_decref(options);
    j->opens = node;
    j->backing = node ? mem_strdup(node->backing_name) : NULL;
    if (node) {
        co_node_unref(node);
    }
}

static void a_crash_leaves_the_new_image_or_none(void **state)
{
    static const char *const kinds[] = {
        "size=1G,backing_file=new.img,backing_fmt=raw",
        "size=3M,cluster_size=512,backing_file=new.img,backing_fmt=raw",
        "size=3M,cluster_size=16k,preallocation=metadata,extended_l2=on,backing_file=new.img,backing_fmt=raw",
    };

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct rig_states states = { 0 };
        unsigned old = 0, none = 0, made = 0;

        io_sim_reset();
        assert_int_equal(create("/x.img", "size=64M,cluster_size=4k,backing_file=old.img,backing_fmt=qcow2", NULL), 0);
        io_sim_on_op(rig_take_state, &states);
        assert_int_equal(create("/x.img", kinds[k], NULL), 0);
        io_sim_on_op(NULL, NULL);
        assert_true(states.n > 10);
        for (size_t i = 0; i < states.n; i++) {
            for (unsigned seed = 0; seed < 12; seed++) {
                struct judged j = { .path = "/x.img" };

                io_sim_restore(states.list[i]);
                io_sim_cut(seed % 4, 100 * i + seed);
                loop_run_co(judge_entry, &j);
                if (!j.opens) {
                    none++;
                } else {
                    bool is_old = !strcmp(j.backing, "old.img");

                    /* The other one or this one, but sound: the walk would stumble over anything
                     * else. */
                    assert_true(is_old || !strcmp(j.backing, "new.img"));
                    loop_run_co(agree_entry, (void *)"/x.img");
                    old += is_old;
                    made += !is_old;
                }
                free(j.backing);
            }
        }
        assert_true(old && none && made);
        /* What was reported as made is there, whatever happens. */
        io_sim_restore(states.list[states.n - 1]);
        io_sim_cut(IO_SIM_CUT_POWER_LOSE, 1);
        loop_run_co(agree_entry, (void *)"/x.img");
        rig_free_states(&states);
    }
    io_sim_reset();
}

/* From call to call until none is left to fail; how many failed. */
static unsigned fail_each_call(const char *options)
{
    unsigned failures = 0;
    char *text;

    for (uint64_t after = 0;; after++) {
        struct io_sim_fault fault = {
            .ops = IO_SIM_ANY & ~(IO_SIM_UNLINK | IO_SIM_READ), .after = after, .times = 1, .error = ENOSPC,
        };

        io_sim_reset();
        io_sim_fault(&fault);
        int ret = create("/x.img", options, &text);

        if (!ret) {
            assert_int_equal(io_sim_faults_struck(), 0);
            free(text);
            return failures;
        }
        assert_int_equal(ret, -ENOSPC);
        assert_false(io_exists("/x.img"));
        assert_non_null(strstr(text, "No space left on device"));
        free(text);
        failures++;
    }
}

static void a_failure_leaves_no_file_behind(void **state)
{
    static const char *const kinds[] = {
        "size=64M,preallocation=metadata,cluster_size=4k",
        "size=5M,preallocation=full",
        "size=80M,preallocation=metadata,cluster_size=512,refcount_bits=64", /* tables in several parts */
        "size=5M,preallocation=falloc,cluster_size=2M,refcount_bits=1",
    };

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        assert_true(fail_each_call(kinds[k]) > 5);
    }
    io_sim_reset();
}

/* --- Two at once ------------------------------------------------------------------------------ */

static unsigned held_perms, held_shared;

static CO_ENTRY void locked_entry(void *arg)
{
    struct request *r = arg;
    struct io_file *file;
    unsigned bad;
    bool bad_shared;

    assert_int_equal(co_io_open(NULL, r->path, IO_RDWR | IO_CREATE, &file), 0);
    assert_int_equal(io_file_lock(file, held_perms, held_shared, &bad, &bad_shared), 0);
    create_entry(r);
    co_io_close(file);
}

static void a_place_that_somebody_uses_is_left_alone(void **state)
{
    static const struct {
        unsigned perms, shared;
        const char *text;
    } rows[] = {
        { IO_PERM_WRITE, IO_PERM_CONSISTENT_READ, "Failed to get \"write\" lock" },
        { IO_PERM_WRITE | IO_PERM_RESIZE, IO_PERM_ALL & ~IO_PERM_RESIZE, "Failed to get \"resize\" lock" },
        { IO_PERM_RESIZE, IO_PERM_ALL, "Failed to get shared \"resize\" lock" },
    };

    io_engine_set_default(io_engine_find("virtual"));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct request r = { .path = rig_file, .options = rig_options("size=1M"), .err = ERROR_INIT };

        held_perms = rows[i].perms;
        held_shared = rows[i].shared;
        loop_run_co(locked_entry, &r);
        assert_int_equal(r.ret, -EAGAIN);
        assert_string_equal(r.err.text, rows[i].text);
        error_clear(&r.err);
        json_decref(r.options);
    }
    io_engine_set_default(io_engine_find("sim"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination_is_an_image_to_qemu),
        cmocka_unit_test(plain_images_are_those_of_qemu),
        cmocka_unit_test(the_largest_disks_have_room_for_their_tables),
        cmocka_unit_test(wrong_options_are_refused_and_touch_nothing),
        cmocka_unit_test(options_of_another_type_are_refused),
        cmocka_unit_test(a_raw_data_file_is_refused_for_being_one_at_all),
        cmocka_unit_test(backing_names_that_do_not_fit_are_refused),
        cmocka_unit_test(a_crash_leaves_the_new_image_or_none),
        cmocka_unit_test(a_failure_leaves_no_file_behind),
        cmocka_unit_test(a_place_that_somebody_uses_is_left_alone),
    };

    return cmocka_run_group_tests_name("qcow2-create", tests, rig_setup, rig_teardown);
}
