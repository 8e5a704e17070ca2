/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees of nodes: lists and variants inside of option trees, nodes on nodes on nodes, who may share a file with whom, and
 * which nodes take a snapshot.  Each row is a tree (' stands for ") and the one sentence that it is refused with; after a refusal
 * there are as many nodes as before.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/blockdev.h"
#include "block/disk.h"
#include "block/filter.h"
#include "block/snapshot.h"
#include "tests/unit/tree-rows.h"

static unsigned count_nodes(void)
{
    struct node *node;
    unsigned n = 0;

    TAILQ_FOREACH(node, &all_nodes, link) {
        n++;
    }
    return n;
}

/* --- Lists and variants ----------------------------------------------------------------------------- */

static const struct block_key rule_keys[] = {
    { .name = "n", .kind = KEY_INT, .required = true },
    { 0 },
};
static const struct block_key sized_keys[] = {
    { .name = "x", .kind = KEY_SIZE },
    { 0 },
};
static const struct block_variant variants[] = {
    { "a", sized_keys },
    { "b", NULL },
    { 0 },
};
static const struct block_key tag_keys[] = {
    { .name = "kind", .kind = KEY_STRING, .required = true },
    { 0 },
};
static const struct block_key top_keys[] = {
    { .name = "list", .kind = KEY_LIST, .members = rule_keys },
    { .name = "nodes", .kind = KEY_NODES },
    { .name = "big", .kind = KEY_UINT64 },
    { .name = "object", .kind = KEY_OBJECT, .members = tag_keys, .tag = "kind", .variants = variants },
    { 0 },
};
static const struct block_key top = { .kind = KEY_OBJECT, .members = top_keys };

static const struct row listed[] = {
    { "{}", NULL },
    { "{'list':[]}", NULL },
    { "{'list':[{'n':1},{'n':-2}]}", NULL },
    { "{'list':{}}", "Invalid parameter type for 'list', expected: array" },
    { "{'list':[7]}", "Invalid parameter type for 'list[0]', expected: object" },
    { "{'list':[{'n':1},{}]}", "Parameter 'list[1].n' is missing" },
    { "{'list':[{'n':1.5}]}", "Invalid parameter type for 'list[0].n', expected: integer" },
    { "{'list':[{'n':1,'m':2}]}", "Parameter 'list[0].m' is unexpected" },
    { "{'nodes':[{'driver':'file','filename':'/a'}]}", NULL },
    { "{'nodes':[{'driver':'file'}]}", "Parameter 'nodes[0].filename' is missing" },
    { "{'nodes':['a']}", "Invalid parameter type for 'nodes[0]', expected: object" },
    { "{'big':-1}", NULL },
    { "{'big':'1'}", "Parameter 'big' expects uint64" },
    { "{'object':{'kind':'a','x':5}}", NULL },
    { "{'object':{'kind':'a','x':-5}}", "Parameter 'x' expects a non-negative number below 2^64" },
    { "{'object':{'kind':'a','x':true}}", "Invalid parameter type for 'object.x', expected: integer" },
    { "{'object':{'kind':'b'}}", NULL },
    { "{'object':{'kind':'b','x':5}}", "Parameter 'object.x' is unexpected" },
    { "{'object':{'kind':'c'}}", "Parameter 'kind' does not accept value 'c'" },
    { "{'object':{'kind':7}}", "Invalid parameter type for 'object.kind', expected: string" },
    { "{'object':{}}", "Parameter 'object.kind' is missing" },
    { "{'object':'a'}", "Invalid parameter type for 'object', expected: object" },
};

static void lists_and_variants_are_checked_to_the_last_member(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(listed); i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(listed[i].tree);

        assert_int_equal(blockdev_check_object(tree, false, &top, &err), listed[i].text ? -EINVAL : 0);
        judge(listed + i, &err);
        json_decref(tree);
    }
}

static void a_member_alone_is_checked_as_in_its_object(void **state)
{
    static const struct row rows[] = {
        { "{'list':[{'n':1}],'other':7}", NULL },
        { "{}", NULL },
        { "{'list':[{'n':'1'}]}", "Invalid parameter type for 'list[0].n', expected: integer" },
        { "{'list':7}", "Invalid parameter type for 'list', expected: array" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(rows[i].tree);

        assert_int_equal(blockdev_check_member(tree, top_keys, &err), rows[i].text ? -EINVAL : 0);
        judge(rows + i, &err);
        json_decref(tree);
    }
}

/* --- Nodes on nodes ------------------------------------------------------------------------------------ */

static void make_image(const char *path, const char *backing)
{
    struct error err = ERROR_INIT;
    json_t *options = backing ? json_pack("{s:s, s:s, s:s}", "size", "1M", "backing_file", backing, "backing_fmt", "qcow2")
                              : json_pack("{s:s}", "size", "1M");

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

/* /a.img; /b.img and /d.img on /a.img; /c.img. */
static void begin(void)
{
    io_sim_reset();
    make_image("/a.img", NULL);
    make_image("/b.img", "/a.img");
    make_image("/c.img", NULL);
    make_image("/d.img", "/a.img");
}

static void co_end(void)
{
    struct error err = ERROR_INIT;

    assert_int_equal(co_blockdevs_end(&err), 0);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static struct node *co_add(const char *text, const char *refusal)
{
    struct row row = { text, refusal };
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);
    unsigned before = count_nodes();
    struct node *node = co_blockdev_add(tree, false, &err);

    json_decref(tree);
    judge(&row, &err);
    assert_int_equal(node == NULL, refusal != NULL);
    if (!node) {
        assert_int_equal(count_nodes(), before);
    }
    return node;
}

static void CO_ENTRY co_levels(void *arg)
{
    struct node *node;

    begin();
    node = co_add("{'driver':'raw','node-name':'r','file':{'driver':'raw','file':{'driver':'raw','file':"
                  "{'driver':'file','filename':'/c.img'}}}}", NULL);
    assert_ptr_equal(node->file->file->file->driver, &driver_file);
    co_add("{'driver':'qcow2','node-name':'q','file':{'driver':'qcow2','node-name':'inner','file':"
           "{'driver':'file','filename':'/a.img'}}}", "Node 'inner' cannot be used as the file of an image");
    node = co_add("{'driver':'copy-on-read','node-name':'c','file':{'driver':'qcow2','node-name':'in','file':"
                  "{'driver':'file','filename':'/b.img'}}}", NULL);
    assert_string_equal(node->file->backing->filename, "/a.img");
    co_add("{'driver':'qcow2','node-name':'q','file':'in'}", "Node 'in' cannot be used as the file of an image");
    co_add("{'driver':'copy-on-read','node-name':'q','file':{'driver':'raw','file':{'driver':'file','filename':'/none'}}}",
           "Could not open '/none': No such file or directory");
    co_add("{'driver':'raw','node-name':'q','file':{'driver':'null-co','size':65536}}", NULL);
    co_add("{'driver':'file','node-name':'below','filename':'/a.img','read-only':true}", NULL);
    node = co_add("{'driver':'qcow2','node-name':'up','file':{'driver':'file','filename':'/d.img'},"
                  "'backing':{'driver':'qcow2','file':'below'}}", NULL); /* a node by name under a backing file */
    assert_ptr_equal(node->backing->file, node_find("below"));
    co_add("{'driver':'file','node-name':'ro','filename':'/b.img','read-only':true}", NULL);
    node = co_add("{'driver':'copy-on-read','node-name':'r2','file':'ro'}", NULL);
    assert_true(node->read_only); /* as its file is */
    co_end();
}

static void a_tree_of_any_depth_is_opened_from_the_bottom_up(void **state)
{
    loop_run_co(co_levels, NULL);
}

static void CO_ENTRY co_shares(void *arg)
{
    struct node *node;

    begin();
    co_add("{'driver':'file','node-name':'f','filename':'/a.img'}", NULL);
    co_add("{'driver':'qcow2','node-name':'a','file':'f'}", NULL);
    co_add("{'driver':'raw','node-name':'r','file':'f'}", NULL); /* nobody uses it */
    co_add("{'driver':'qcow2','node-name':'a2','file':'f'}",
           "Permission conflict on node 'f': permissions 'write, resize' are both required by node 'a' (uses node 'f' as "
           "'file' child) and unshared by node 'a2' (uses node 'f' as 'file' child).");
    co_add("{'driver':'file','node-name':'g','filename':'/c.img'}", NULL);
    co_add("{'driver':'qcow2','node-name':'c1','file':'g','read-only':true}", NULL);
    co_add("{'driver':'qcow2','node-name':'c2','file':'g','read-only':true}", NULL);
    co_add("{'driver':'qcow2','node-name':'c3','file':'g'}",
           "Permission conflict on node 'g': permissions 'write, resize' are both required by node 'c3' (uses node 'g' as "
           "'file' child) and unshared by node 'c2' (uses node 'g' as 'file' child).");
    co_add("{'driver':'file','node-name':'ro','filename':'/b.img','read-only':true}", NULL);
    co_add("{'driver':'qcow2','node-name':'b','file':'ro'}", "Block node is read-only");
    node = co_add("{'driver':'raw','node-name':'b','file':'ro'}", NULL);
    assert_true(node->read_only);
    co_end();
}

static void a_file_has_one_writer_or_many_readers(void **state)
{
    loop_run_co(co_shares, NULL);
}

static void CO_ENTRY co_names(void *arg)
{
    struct error err = ERROR_INIT;
    struct row used = { "a disk's root", "Node a is in use" };
    struct disk *disk;

    begin();
    co_add("{'driver':'qcow2','node-name':'a','file':{'driver':'file','filename':'/a.img'}}", NULL);
    disk = disk_new("d", node_ref(node_find("a")));
    co_add("{'driver':'qcow2','node-name':'d','file':{'driver':'file','filename':'/c.img'}}",
           "node-name=d is conflicting with a device id");
    co_add("{'driver':'qcow2','node-name':'a','file':{'driver':'file','filename':'/c.img'}}",
           "Duplicate nodes with node-name='a'");
    assert_int_equal(co_blockdev_del("a", &err), -EBUSY);
    judge(&used, &err);
    co_disk_free(disk);
    assert_int_equal(co_blockdev_del("a", &err), 0);
    assert_null(node_find("a"));
    co_end();
}

static void names_are_of_one_thing_each(void **state)
{
    loop_run_co(co_names, NULL);
}

/* --- As -drive has it ----------------------------------------------------------------------------------- */

#define TUNED(options) "{'driver':'qcow2','file':{'filename':'/a.img'}," options "}"

static const struct row opened[] = {
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'cache':{'writeback':'on'}}",
      "Block format 'qcow2' does not support the option 'cache.writeback'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img','cache':{'colour':'red'}}}",
      "Block protocol 'file' doesn't support the option 'cache.colour'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'x':{'y':{'z':'1'}}}",
      "Block format 'qcow2' does not support the option 'x.y.z'" },
    { "{'driver':'qcow2','file':{'driver':'cow','filename':'/a.img'}}", "Unknown driver 'cow'" },
    { "{'driver':'qcow2','file':{'filename':'file:/a.img'}}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'cache':{'direct':'on'},'backing':{'cache':{'direct':'off'}}}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'read-only':'on','force-share':'on','backing':{'force-share':'on'}}",
      NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img','auto-read-only':'off'},'auto-read-only':'on'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'auto-read-only':'maybe'}",
      "Parameter 'auto-read-only' expects 'on' or 'off'" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'l2-cache-size':'much'}",
      "Parameter 'l2-cache-size' expects a non-negative number below 2^64" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'l2-cache-size':-1}",
      "Parameter 'l2-cache-size' expects a non-negative number below 2^64" },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'lazy-refcounts':false}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'lazy-refcounts':'on'}", NULL },
    { "{'driver':'qcow2','file':{'filename':'/a.img'},'lazy-refcounts':'maybe'}",
      "Parameter 'lazy-refcounts' expects 'on' or 'off'" },
    /* What tunes QEMU's caches. */
    { TUNED("'cache-size':'1M'"), NULL },
    { TUNED("'cache-size':1048576,'l2-cache-size':524288"), NULL },
    { TUNED("'cache-size':'1M','refcount-cache-size':'1M'"), NULL },
    { TUNED("'cache-size':'1M','l2-cache-size':'2M'"), "l2-cache-size may not exceed cache-size" },
    { TUNED("'cache-size':'1M','refcount-cache-size':'2M'"), "refcount-cache-size may not exceed cache-size" },
    { TUNED("'cache-size':'1M','refcount-cache-size':'1k','l2-cache-size':'1k'"),
      "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time" },
    { TUNED("'cache-size':'much'"), "Parameter 'cache-size' expects a non-negative number below 2^64" },
    { TUNED("'refcount-cache-size':true"), "Parameter 'refcount-cache-size' expects a non-negative number below 2^64" },
    { TUNED("'cache-clean-interval':'600','l2-cache-entry-size':'4k'"), NULL },
    { TUNED("'cache-clean-interval':'often'"), "Parameter 'cache-clean-interval' expects a non-negative number below 2^64" },
    { TUNED("'l2-cache-entry-size':'big'"), "Parameter 'l2-cache-entry-size' expects a non-negative number below 2^64" },
    { TUNED("'pass-discard-request':'on','pass-discard-snapshot':'off','pass-discard-other':true"), NULL },
    { TUNED("'pass-discard-other':'maybe'"), "Parameter 'pass-discard-other' expects 'on' or 'off'" },
    { TUNED("'overlap-check':'none'"), NULL },
    { TUNED("'overlap-check':'constant'"), NULL },
    { TUNED("'overlap-check':'cached'"), NULL },
    { TUNED("'overlap-check':'all'"), NULL },
    { TUNED("'overlap-check':'some'"), "Unsupported value 'some' for qcow2 option 'overlap-check'. Allowed are any of the "
                                       "following: none, constant, cached, all" },
    /* Files. */
    { "{'driver':'raw','file':{'filename':'/c.img','locking':'auto'}}", NULL },
    { "{'driver':'raw','file':{'filename':'/c.img','locking':'on'}}", NULL },
    { "{'driver':'raw','file':{'filename':'/c.img','locking':'perhaps'}}", "invalid parameter value: perhaps" },
    { "{'driver':'file'}", "The 'file' block driver requires a file name" },
    { "{'driver':'raw','offset':'x','file':{'filename':'/c.img'}}",
      "Parameter 'offset' expects a non-negative number below 2^64" },
    { "{'driver':'raw','size':'x','file':{'filename':'/c.img'}}",
      "Parameter 'size' expects a non-negative number below 2^64" },
    /* No files. */
    { "{'driver':'null-co','read-zeroes':'on','latency-ns':'1000','size':'1M'}", NULL },
    { "{'driver':'null-co','read-zeroes':true}", NULL },
    { "{'driver':'null-co','read-zeroes':'maybe'}", "Parameter 'read-zeroes' expects 'on' or 'off'" },
    { "{'driver':'null-co','size':'x'}", "Parameter 'size' expects a non-negative number below 2^64" },
    { "{'driver':'null-co','latency-ns':'x'}", "Parameter 'latency-ns' expects a non-negative number below 2^64" },
    { "{'driver':'null-co','latency-ns':'9223372036854775808'}", "latency-ns is invalid" },
    { "{'driver':'qcow2','file':{'filename':'/b.img'},'backing':{'driver':'raw','file':{'driver':'null-co'}}}", NULL },
    { "{'driver':'raw','file':{'filename':'null-co://'}}", NULL },
    { "{'driver':'raw','file':{'filename':'null-co:x'}}", "The only allowed filename for this driver is 'null-co://'" },
    /* Filters. */
    { "{'driver':'throttle','file':{'filename':'/c.img'}}", "Please specify a throttle group" },
    { "{'driver':'throttle','throttle-group':'x','file':{'filename':'/c.img'}}", "Throttle group 'x' does not exist" },
    { "{'driver':'copy-on-read','bottom':'x','file':{'driver':'qcow2','file':{'filename':'/b.img'}}}",
      "Bottom node 'x' not found" },
    { "{'driver':'copy-on-read','bottom':'t','file':{'driver':'copy-on-read','node-name':'t','file':{'driver':'qcow2','file':"
      "{'filename':'/b.img'}}}}", "Bottom node 't' is a filter" },
    { "{'driver':'copy-on-read','bottom':'f','file':{'driver':'qcow2','node-name':'q','file':{'filename':'/b.img','node-name':'f'}}}",
      "Bottom node 'f' is not in the backing chain of 'q'" },
    { "{'driver':'copy-on-read','bottom':'q','file':{'driver':'qcow2','node-name':'q','file':{'filename':'/b.img'}}}", NULL },
    { "{'driver':'copy-on-read','file':{'driver':'raw','file':{'filename':'/c.img'}}}", NULL },
};

/* File names that are more than a path, and what stands beside them. */
static const struct {
    const char *name;
    struct row row;
} named[] = {
    { "null-co://", { "{'driver':'null-co','size':'1M'}", NULL } },
    { "null-co://", { "{'driver':'raw'}", NULL } },
    { "null-co://", { "{'driver':'raw','file':{'size':'1M'}}", NULL } },
    { "null-co://", { "{'driver':'raw','file':7}", NULL } },
    { "null-co:x", { "{'driver':'null-co'}", "The only allowed filename for this driver is 'null-co://'" } },
    { "null-coo://", { "{'driver':'null-co'}", NULL } }, /* a name like any other to a driver without files */
};

static void CO_ENTRY co_named(void *arg)
{
    begin();
    for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(named[i].row.tree);
        struct node *node = co_node_open(named[i].name, tree, &err);

        judge(&named[i].row, &err);
        assert_int_equal(node != NULL, named[i].row.text == NULL);
        assert_true(!node || !strcmp(node->filename, "null-co://"));
        json_decref(tree);
        co_node_unref(node);
        assert_true(TAILQ_EMPTY(&all_nodes));
    }
}

static void names_that_are_options_are_read_as_such(void **state)
{
    loop_run_co(co_named, NULL);
}

/* Two want the same name at the same time: whoever is the second one finds it taken. */
struct race {
    const char *tree;
    struct node *node;
    char *said;
    bool ended;
};

static CO_ENTRY void co_race(void *arg)
{
    struct race *r = arg;
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(r->tree);

    r->node = co_blockdev_add(tree, false, &err);
    r->said = mem_strdup(err.text);
    error_clear(&err);
    json_decref(tree);
    r->ended = true;
}

static void CO_ENTRY co_races(void *arg)
{
    struct race a = { "{'driver':'qcow2','node-name':'x','file':{'driver':'file','filename':'/a.img'}}", NULL, NULL, false };
    struct race c = { "{'driver':'qcow2','node-name':'x','file':{'driver':'file','filename':'/c.img'}}", NULL, NULL, false };

    begin();
    co_start(co_race, &a);
    co_start(co_race, &c);
    while (!a.ended || !c.ended) {
        co_sleep_ns(NS_PER_MS);
    }
    assert_true(!a.node != !c.node);
    assert_string_equal(a.node ? c.said : a.said, "Duplicate nodes with node-name='x'");
    assert_null(a.node ? a.said : c.said);
    assert_int_equal(count_nodes(), 2);
    free(a.said);
    free(c.said);
    co_end();
}

static void of_two_that_want_a_name_at_once_one_has_it(void **state)
{
    loop_run_co(co_races, NULL);
}

static void CO_ENTRY co_opened(void *arg)
{
    begin();
    for (size_t i = 0; i < ARRAY_SIZE(opened); i++) {
        struct error err = ERROR_INIT;
        json_t *tree = tree_of(opened[i].tree);
        struct node *node = co_node_open(NULL, tree, &err);

        judge(opened + i, &err);
        assert_int_equal(node != NULL, opened[i].text == NULL);
        json_decref(tree);
        co_node_unref(node);
        assert_true(TAILQ_EMPTY(&all_nodes));
    }
}

static void options_go_down_the_tree_or_are_refused_by_name(void **state)
{
    loop_run_co(co_opened, NULL);
}

static void CO_ENTRY co_along(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *tree;
    struct node *node;

    begin();
    tree = tree_of("{'driver':'qcow2','file':{'filename':'/b.img','locking':'off'}}");
    node = co_node_open(NULL, tree, &err);
    json_decref(tree);
    assert_non_null(node);
    assert_string_equal(json_string_value(json_object_get(node->backing->file->options, "locking")), "off");
    co_node_unref(node);
    tree = tree_of("{'driver':'qcow2','file':{'filename':'/b.img','locking':'off'},'backing':{'file':{'locking':'on'}}}");
    node = co_node_open(NULL, tree, &err);
    json_decref(tree);
    assert_non_null(node);
    assert_string_equal(json_string_value(json_object_get(node->backing->file->options, "locking")), "on");
    co_node_unref(node);
}

static void a_backing_file_is_opened_as_its_overlay_unless_told(void **state)
{
    loop_run_co(co_along, NULL);
}

/* --- Snapshots ------------------------------------------------------------------------------------------- */

static const struct {
    struct snapshot_args args;
    const char *text;
} snapshots[] = {
    { { .device = "nobody" }, "Cannot find device='nobody' nor node-name=''" },
    { { .node_name = "nobody", .snapshot_node_name = "s" }, "Cannot find device='' nor node-name='nobody'" },
    { { .device = "nobody", .node_name = "d", .snapshot_node_name = "s" }, "Cannot find device='nobody' nor node-name='d'" },
    { { .device = "nobody", .node_name = "b" }, "New overlay node-name missing" },
    { { .device = "empty" }, "Device 'empty' has no medium" },
    { { .node_name = "b" }, "New overlay node-name missing" },
    { { .node_name = "b", .snapshot_node_name = "c" }, "New overlay node-name already in use" },
    { { .node_name = "b", .snapshot_node_name = "d" }, "New overlay node-name already in use" },
    { { .node_name = "low", .snapshot_node_name = "s" }, "Node 'low' is busy: node is used as backing hd of 'b'" },
    { { .node_name = "c", .snapshot_node_name = "s" }, "Node 'c' is not in use by a disk" },
    { { .device = "d", .format = "cow" }, "Unknown file format 'cow'" },
    { { .device = "d", .format = "raw" }, "Backing file not supported for file format 'raw'" },
    { { .device = "d", .format = "file" }, "Backing file not supported for file format 'file'" },
    { { .device = "d", .format = "file", .reuse = true }, "Unknown file format 'file'" },
};

static void CO_ENTRY co_snapshots(void *arg)
{
    struct snapshot_args fine = { .device = "d", .file = "/s.img", .snapshot_node_name = "s" };
    struct error err = ERROR_INIT;
    struct disk *disk, *empty;
    uint64_t size;

    begin();
    co_add("{'driver':'qcow2','node-name':'low','read-only':true,'file':{'driver':'file','filename':'/a.img'}}", NULL);
    co_add("{'driver':'qcow2','node-name':'b','discard':'unmap','backing':'low',"
           "'file':{'driver':'file','filename':'/b.img','locking':'off'}}", NULL);
    co_add("{'driver':'qcow2','node-name':'c','file':{'driver':'file','filename':'/c.img'}}", NULL);
    disk = disk_new("d", node_ref(node_find("b")));
    empty = disk_new("empty", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(snapshots); i++) {
        struct snapshot_args args = snapshots[i].args;
        struct row row = { "snapshot", snapshots[i].text };

        args.file = "/s.img";
        assert_true(co_snapshot_sync(&args, &err) < 0);
        judge(&row, &err);
        assert_int_equal(io_sim_size("/s.img", &size), -ENOENT);
        assert_ptr_equal(disk->root, node_find("b"));
    }
    assert_int_equal(co_snapshot_sync(&fine, &err), 0);
    assert_ptr_equal(disk->root, node_find("s"));
    assert_ptr_equal(disk->root->backing, node_find("b"));
    assert_true(disk->root->discard_unmap);
    assert_string_equal(json_string_value(json_object_get(disk->root->file->options, "locking")), "off");
    co_disk_free(disk);
    co_disk_free(empty);
    co_end();
}

static void only_the_root_of_a_disk_takes_a_snapshot(void **state)
{
    loop_run_co(co_snapshots, NULL);
}

static int setup(void **state)
{
    static const struct driver *const drivers[] = {
        &driver_file, &driver_raw, &driver_qcow2, &driver_null_co, &driver_copy_on_read,
        &driver_throttle, NULL,
    };
    int ret = rig_setup(state);

    node_set_drivers(drivers);
    return ret;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_and_variants_are_checked_to_the_last_member),
        cmocka_unit_test(a_member_alone_is_checked_as_in_its_object),
        cmocka_unit_test(a_tree_of_any_depth_is_opened_from_the_bottom_up),
        cmocka_unit_test(a_file_has_one_writer_or_many_readers),
        cmocka_unit_test(names_are_of_one_thing_each),
        cmocka_unit_test(options_go_down_the_tree_or_are_refused_by_name),
        cmocka_unit_test(names_that_are_options_are_read_as_such),
        cmocka_unit_test(of_two_that_want_a_name_at_once_one_has_it),
        cmocka_unit_test(a_backing_file_is_opened_as_its_overlay_unless_told),
        cmocka_unit_test(only_the_root_of_a_disk_takes_a_snapshot),
    };
    return cmocka_run_group_tests_name("block-trees", tests, setup, rig_teardown);
}
