/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option trees that make sense and such that do not: each row is a tree (' stands for "), and the one sentence that it is
 * refused with.  After a refusal nothing is left: no node, and no lock on a file.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/blockdev.h"
#include "tests/unit/tree-rows.h"

/* --- Trees checked ------------------------------------------------------------------------------ */

/* As JSON has them: types count. */
static const struct row json_trees[] = {
    { "{'driver':'file','filename':'/a'}", NULL },
    { "{'driver':'file','filename':'/a','read-only':true,'force-share':false,'cache':{'direct':true,'no-flush':false}}", NULL },
    { "{'driver':'qcow2','file':{'driver':'file','filename':'/a'},'backing':null}", NULL },
    { "{'driver':'qcow2','file':'node','backing':'other'}", NULL },
    { "{'driver':'qcow2','file':'node','backing':{'driver':'raw','file':'other'}}", NULL },
    { "{}", "Parameter 'driver' is missing" },
    { "{'driver':7}", "Invalid parameter type for 'driver', expected: string" },
    { "{'driver':'vmdk'}", "Parameter 'driver' does not accept value 'vmdk'" },
    { "{'driver':'file'}", "Parameter 'filename' is missing" },
    { "{'driver':'qcow2'}", "Parameter 'file' is missing" },
    { "{'driver':'qcow2','file':7}", "Invalid parameter type for 'file', expected: BlockdevRef" },
    { "{'driver':'qcow2','file':null}", "Invalid parameter type for 'file', expected: BlockdevRef" },
    { "{'driver':'qcow2','file':'node','backing':[]}",
      "Invalid parameter type for 'backing', expected: BlockdevRefOrNull" },
    { "{'driver':'qcow2','file':{'driver':'file'}}", "Parameter 'file.filename' is missing" },
    { "{'driver':'qcow2','file':{'driver':'file','filename':'/a','colour':'red'}}", "Parameter 'file.colour' is unexpected" },
    { "{'driver':'file','filename':'/a','read-only':'on'}", "Invalid parameter type for 'read-only', expected: boolean" },
    { "{'driver':'file','filename':'/a','discard':true}", "Invalid parameter type for 'discard', expected: string" },
    { "{'driver':'file','filename':'/a','discard':'perhaps'}", "Parameter 'discard' does not accept value 'perhaps'" },
    { "{'driver':'file','filename':'/a','detect-zeroes':'on'}", NULL },
    { "{'driver':'file','filename':'/a','detect-zeroes':'unmap','discard':'unmap'}", NULL },
    { "{'driver':'file','filename':'/a','detect-zeroes':'unmap','discard':'ignore'}",
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap" },
    { "{'driver':'file','filename':'/a','detect-zeroes':'unmap'}",
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap" },
    { "{'driver':'file','filename':'/a','cache':true}", "Invalid parameter type for 'cache', expected: object" },
    { "{'driver':'file','filename':'/a','cache':{'direct':1}}",
      "Invalid parameter type for 'cache.direct', expected: boolean" },
    { "{'driver':'file','filename':'/a','cache':{'writeback':true}}", "Parameter 'cache.writeback' is unexpected" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':'1'}",
      "Invalid parameter type for 'l2-cache-size', expected: integer" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':-1}", NULL }, /* it is an integer; qcow2 says no when it is opened */
    { "{'driver':'qcow2','file':'node','l2-cache-size':1048576}", NULL },
};

/* As words have them: all are strings. */
static const struct row word_trees[] = {
    { "{'driver':'file','filename':'/a','read-only':'on','cache':{'direct':'off'}}", NULL },
    { "{'driver':'file','filename':'/a','read-only':'maybe'}", "Parameter 'read-only' expects 'on' or 'off'" },
    { "{'driver':'file','filename':'/a','cache':{'direct':''}}", "Parameter 'cache.direct' expects 'on' or 'off'" },
    { "{'driver':'file','filename':'/a','read-only':{'x':'on'}}", "Parameters 'read-only.*' are unexpected" },
    { "{'driver':'file','filename':{'x':'/a'}}", "Parameters 'filename.*' are unexpected" },
    { "{'driver':'file','filename':'/a','discard':{'x':'/a'}}", "Parameters 'discard.*' are unexpected" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':'0x100000'}", NULL },
    { "{'driver':'qcow2','file':'node','l2-cache-size':'1M'}", "Parameter 'l2-cache-size' expects integer" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':''}", "Parameter 'l2-cache-size' expects integer" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':'-5'}", NULL },
    { "{'driver':'file','filename':'/a','read-only':[]}", "Parameter 'read-only' expects 'on' or 'off'" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':[]}", "Parameter 'l2-cache-size' expects integer" },
    { "{'driver':'qcow2','file':'node','l2-cache-size':'99999999999999999999'}",
      "Parameter 'l2-cache-size' expects integer" },
};

static void check_trees(const struct row *rows, size_t n, bool from_words)
{
    for (size_t i = 0; i < n; i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(rows[i].tree);
        int ret = blockdev_check(tree, from_words, &err);

        assert_int_equal(ret, rows[i].text ? -EINVAL : 0);
        judge(rows + i, &err);
        json_decref(tree);
    }
}

static void json_trees_are_checked_by_type(void **state)
{
    check_trees(json_trees, ARRAY_SIZE(json_trees), false);
}

static void word_trees_are_checked_by_spelling(void **state)
{
    check_trees(word_trees, ARRAY_SIZE(word_trees), true);
}

static void words_become_values(void **state)
{
    struct error err = ERROR_INIT;
    json_t *tree = tree_of("{'driver':'qcow2','file':{'driver':'file','filename':'/a','read-only':'on'},'l2-cache-size':'0x10'}");

    assert_int_equal(blockdev_check(tree, true, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(tree, "l2-cache-size")), 16);
    assert_true(json_is_true(json_object_get(json_object_get(tree, "file"), "read-only")));
    json_decref(tree);
}

/* --- Trees opened ------------------------------------------------------------------------------- */

/* /a.img: qcow2; /r.img: raw; /b.img: qcow2 on /a.img. */
static const struct row opened[] = {
    { "{'driver':'qcow2','file':{'driver':'file','filename':'/a.img'}}", NULL },
    { "{'file':{'filename':'/a.img'}}", NULL }, /* guessed */
    { "{'driver':'raw','file':{'filename':'/r.img','locking':'off'}}", NULL },
    { "{'driver':'raw','file':{'filename':'/r.img'},'read-only':'on','force-share':'on'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'discard':'on','detect-zeroes':'on'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'discard':'off','detect-zeroes':'unmap'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'backing':{'driver':'qcow2'}}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'cache':{'direct':'off','no-flush':'on'}}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'read-only':true,'force-share':true}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'backing':''}", NULL },
    { "{'driver':'file','filename':'/r.img'}", NULL },
    { "{}", "Must specify either driver or file" },
    { "{'driver':'qcow2'}", "A block device must be specified for \"file\"" },
    { "{'driver':'qcow2','file':{'filename':''}}", "The 'file' block driver requires a file name" },
    { "{'driver':'qcow2','file':{'filename':'ssh://host/x'}}", "Unknown protocol 'ssh'" },
    { "{'driver':'cow','file':{'filename':'/a.img'}}", "Unknown driver 'cow'" },
    { "{'driver':'qcow2','file':'nobody'}", "Cannot find device='nobody' nor node-name='nobody'" },
    { "{'driver':'qcow2','file':{'filename':'/none'}}", "Could not open '/none': No such file or directory" },
    { "{'driver':'qcow2','file':{'filename':'/r.img'}}", "Image is not in qcow2 format" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'colour':'red'}",
      "Block format 'qcow2' does not support the option 'colour'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img','colour':'red'}}",
      "Block protocol 'file' doesn't support the option 'colour'" },
    { "{'driver':'raw','file':{'filename':'/r.img','aio':'fast'}}", "invalid parameter value: fast" },
    /* The host's files, not the simulated ones. */
    { "{'driver':'raw','file':{'filename':'/nowhere/r.img','aio':'threads'}}", "Could not open '/nowhere/r.img': No such file or directory" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'read-only':'maybe'}",
      "Parameter 'read-only' expects 'on' or 'off'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'cache':{'direct':'maybe'}}",
      "Parameter 'direct' expects 'on' or 'off'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'cache':{'no-flush':7}}",
      "Parameter 'no-flush' expects 'on' or 'off'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'force-share':'on'}",
      "force-share=on can only be used with read-only images" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'discard':'perhaps'}", "Invalid discard option" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'detect-zeroes':'perhaps'}",
      "Parameter 'detect-zeroes' does not accept value 'perhaps'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'node-name':'7up'}", "Invalid node-name: '7up'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'node-name':'a b'}", "Invalid node-name: 'a b'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'node-name':'a1234567890123456789012345678901'}",
      "Node name too long" },
    { "{'driver':'qcow2','node-name':'twice','file':{'filename':'/a.img','node-name':'twice'}}",
      "Duplicate nodes with node-name='twice'" },
    { "{'driver':'raw','file':{'filename':'/r.img'},'backing':{'driver':'qcow2'}}",
      "Driver doesn't support backing files" },
    { "{'driver':'raw','file':{'filename':'/r.img'},'backing':'node'}", "Driver doesn't support backing files" },
    { "{'driver':'raw','file':{'filename':'/r.img'},'backing':''}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'detect-zeroes':'off'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img','read-only':'maybe','cache':{'direct':'on'}}}",
      "Parameter 'read-only' expects 'on' or 'off'" },
    { "{'file':{'filename':'/c.img'}}", "Could not open backing file: Unknown driver 'vmdk'" },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'backing':'nobody'}",
      "Could not open backing file: Cannot find device='nobody' nor node-name='nobody'" },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'backing':{'driver':'raw','file':{'filename':'/none'}}}",
      "Could not open backing file: Could not open '/none': No such file or directory" },
};

/* Names as people write them, with options inside of them. */
static const struct row named[] = {
    { "/a.img", NULL },
    { "file:/a.img", NULL },
    { "json:{'driver':'qcow2','file':{'driver':'file','filename':'/a.img'}}", NULL },
    { "json:{'driver':'qcow2','filename':'/a.img'}", NULL },
    { "json:{'driver':'file','filename':'/a.img'}", NULL },
    { "json:{", "Could not parse the JSON options: JSON parse error, premature EOI" },
    { "json:[]", "Invalid JSON object given" },
    { "json:{'driver':'qcow2'}", "A block device must be specified for \"file\"" },
    { "json:{'driver':'qcow2','file':'nobody'}", "Cannot find device='nobody' nor node-name='nobody'" },
    { "nbd:unix:/x", "Unknown protocol 'nbd'" },
    { "json:{'driver':'file','filename':'/a.img','file':{'filename':'/b.img'}}",
      "Block protocol 'file' doesn't support the option 'file.filename'" },
};

static void make_image(const char *path, const char *backing)
{
    struct error err = ERROR_INIT;
    json_t *options = backing ? json_pack("{s:s, s:s, s:s}", "size", "1M", "backing_file", backing, "backing_fmt", "qcow2")
                              : json_pack("{s:s}", "size", "1M");

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

static void make_images(void)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "1M");

    io_sim_reset();
    make_image("/a.img", NULL);
    make_image("/b.img", "/a.img");
    assert_int_equal(driver_raw.co_create("/r.img", options, &err), 0);
    json_object_set_new(options, "backing_file", json_string("/a.img")); /* what somebody else has written */
    json_object_set_new(options, "backing_fmt", json_string("vmdk"));
    assert_int_equal(driver_qcow2.co_create("/c.img", options, &err), 0);
    json_decref(options);
}

/* Open, or be refused; the very same files open for writing afterwards, so no lock is left. */
static void co_open_row(const struct row *row, const char *name, json_t *tree)
{
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(name, tree, &err);

    judge(row, &err);
    assert_int_equal(node != NULL, row->text == NULL);
    co_node_unref(node);
    assert_true(TAILQ_EMPTY(&all_nodes));
    co_node_unref(co_rig_open("/a.img", true));
    co_node_unref(co_rig_open("/b.img", true));
}

static void CO_ENTRY open_rows(void *arg)
{
    make_images();
    for (size_t i = 0; i < ARRAY_SIZE(opened); i++) {
        json_t *tree = tree_of(opened[i].tree);

        co_open_row(opened + i, NULL, tree);
        json_decref(tree);
    }
    for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
        AUTOFREE char *name = mem_strdup(named[i].tree);

        for (char *p = name; *p; p++) {
            *p = *p == '\'' ? '"' : *p;
        }
        co_open_row(named + i, name, NULL);
    }
}

static void trees_are_opened_or_refused_and_nothing_is_left(void **state)
{
    loop_run_co(open_rows, NULL);
}

/* --- Nodes of the monitor ----------------------------------------------------------------------- */

static struct node *co_add(const char *text, const char *refusal)
{
    struct row row = { text, refusal };
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);
    struct node *node = co_blockdev_add(tree, false, &err);

    json_decref(tree);
    judge(&row, &err);
    return node;
}

static void co_del(const char *name, const char *refusal)
{
    struct row row = { name, refusal };
    struct error err = ERROR_INIT;
    int ret = co_blockdev_del(name, &err);

    judge(&row, &err);
    assert_int_equal(ret < 0, refusal != NULL);
}

static void CO_ENTRY nodes_of_the_monitor(void *arg)
{
    struct error err = ERROR_INIT;

    make_images();
    assert_null(co_add("{'driver':'qcow2','file':{'driver':'file','filename':'/a.img'}}",
                       "'node-name' must be specified for the root node"));
    assert_null(co_add("{'driver':'qcow2'}", "Parameter 'file' is missing"));
    assert_null(co_add("{'driver':'file','filename':'/none','node-name':'f'}",
                       "Could not open '/none': No such file or directory"));
    assert_non_null(co_add("{'driver':'file','filename':'/a.img','node-name':'f'}", NULL));
    assert_non_null(co_add("{'driver':'qcow2','file':'f','node-name':'a'}", NULL));
    assert_non_null(co_add("{'driver':'qcow2','file':{'driver':'file','filename':'/b.img','node-name':'bf'},'node-name':'b',"
                           "'backing':'a'}", NULL));
    node_find("a")->busy_reason = "somebody has it";
    co_del("a", "Node 'a' is busy: somebody has it");
    node_find("a")->busy_reason = NULL;
    co_del("nobody", "Failed to find node with node-name='nobody'");
    co_del("bf", "Node bf is not owned by the monitor");
    co_del("a", "Node 'a' is busy: node is used as backing hd of 'b'");
    co_del("f", "Block device f is in use");
    co_del("b", NULL);
    assert_null(node_find("b"));
    assert_null(node_find("bf"));
    co_del("a", NULL);
    assert_non_null(node_find("f")); /* it has an owner of its own */
    assert_non_null(co_add("{'driver':'qcow2','file':'f','node-name':'a','backing':''}", NULL));
    assert_int_equal(co_blockdevs_end(&err), 0);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static void nodes_go_when_nobody_uses_them(void **state)
{
    loop_run_co(nodes_of_the_monitor, NULL);
}

/* --- New images --------------------------------------------------------------------------------- */

static const struct row new_qcow2[] = {
    { "{'size':1048576}", NULL },
    { "{'size':'1M','lazy_refcounts':true,'refcount_bits':8,'nocow':true,'extent_size_hint':'1M','encryption':'off','data_file_raw':'off'}", NULL },
    { "{'size':'1M','compat':'v2','backing_file':null}", NULL },
    { "{'size':'1M','refcount_bits':'0x20'}", NULL },
    { "{}", "Image creation needs a size parameter" },
    { "{'size':'1M','refcount_bits':'8 bits'}", "Parameter 'refcount_bits' expects a number" },
    { "{'size':'1M','refcount_bits':[]}", "Parameter 'refcount_bits' expects a number" },
    { "{'size':'1M','refcount_bits':'99999999999999999999'}", "Parameter 'refcount_bits' expects a number" },
    { "{'size':'1M','lazy_refcounts':7}", "Parameter 'lazy_refcounts' expects 'on' or 'off'" },
    { "{'size':'1M','encryption':'maybe'}", "Parameter 'encryption' expects 'on' or 'off'" },
    { "{'size':'1M','data_file_raw':'maybe'}", "Parameter 'data_file_raw' expects 'on' or 'off'" },
    { "{'size':'1M','nocow':'maybe'}", "Parameter 'nocow' expects 'on' or 'off'" },
    { "{'size':'1M','encryption':'on'}", "Encrypted images are not supported" },
    { "{'size':'1M','encrypt.format':'luks'}", "Encrypted images are not supported" },
    { "{'size':'1M','data_file':'/d'}", "External data files are not supported" },
    { "{'size':'1M','data_file':'/d','data_file_raw':'on'}", "External data files are not supported" },
    { "{'size':'1M','data_file_raw':'on'}", "data-file-raw requires data-file" },
    { "{'size':'1M','colour':'red'}", "Invalid parameter 'colour'" },
    { "{'size':'1M','backing_file':7}", "Parameter 'backing_file' expects a string" },
    { "{'size':'1M','backing_fmt':7}", "Parameter 'backing_fmt' expects a string" },
};
static const struct row new_raw[] = {
    { "{'size':'1M','preallocation':'falloc'}", NULL },
    { "{'size':'1M','preallocation':'full'}", NULL },
    { "{'size':'1M','preallocation':'off'}", NULL },
    { "{'size':'1M','preallocation':'metadata'}", "Unsupported preallocation mode: metadata" },
    { "{'size':'1M','preallocation':'some'}", "invalid parameter value: some" },
    { "{'size':'1M','preallocation':7}", "invalid parameter value: " },
};

static void co_create_rows(const struct driver *driver, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(rows[i].tree);
        uint64_t size = 0;

        io_sim_reset();
        int ret = driver->co_create("/new.img", tree, &err);

        judge(rows + i, &err);
        assert_int_equal(ret < 0, rows[i].text != NULL);
        /* What was refused made nothing. */
        assert_int_equal(io_sim_size("/new.img", &size) == 0, rows[i].text == NULL);
        json_decref(tree);
    }
}

static void CO_ENTRY create_rows(void *arg)
{
    co_create_rows(&driver_qcow2, new_qcow2, ARRAY_SIZE(new_qcow2));
    co_create_rows(&driver_raw, new_raw, ARRAY_SIZE(new_raw));
}

static void images_are_made_or_refused_and_nothing_is_left(void **state)
{
    loop_run_co(create_rows, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_trees_are_checked_by_type),
        cmocka_unit_test(word_trees_are_checked_by_spelling),
        cmocka_unit_test(words_become_values),
        cmocka_unit_test(trees_are_opened_or_refused_and_nothing_is_left),
        cmocka_unit_test(nodes_go_when_nobody_uses_them),
        cmocka_unit_test(images_are_made_or_refused_and_nothing_is_left),
    };
    return cmocka_run_group_tests_name("block-options", tests, rig_setup, rig_teardown);
}
