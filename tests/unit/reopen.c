/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen: what is refused and in which words, what changes, and that a list changes as a whole or not at all, also when
 * the host refuses in the middle.
 */
#include "tests/unit/qcow2-rig.h"

#include "block/blockdev.h"
#include "block/disk.h"
#include "block/filter.h"
#include "block/reopen.h"
#include "tests/unit/tree-rows.h"

static struct disk *disk;

static void make(const char *path, const char *backing)
{
    struct error err = ERROR_INIT;
    json_t *options = backing ? json_pack("{s:s, s:s, s:s}", "size", "1M", "backing_file", backing, "backing_fmt", "qcow2")
                              : json_pack("{s:s}", "size", "1M");

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

/*
 *   disk d -> a (writes) -> f <- g     r (raw, writes) -> rf         top (writes) -> tf
 *                                      ro (raw, reads) -> rof         `- low (reads) -> lf
 */
static void co_begin(void)
{
    io_sim_reset();
    make("/a.img", NULL);
    make("/low.img", NULL);
    make("/top.img", "/low.img");
    io_sim_create("/r.img", 65536);
    io_sim_create("/ro.img", 65536);
    co_tree_add("{'driver':'file','node-name':'f','filename':'/a.img'}");
    disk = disk_new("d", node_ref(co_tree_add("{'driver':'qcow2','node-name':'a','file':'f','lazy-refcounts':false}")));
    co_tree_add("{'driver':'raw','node-name':'r','file':{'driver':'file','node-name':'rf','filename':'/r.img'}}");
    co_tree_add("{'driver':'file','node-name':'rof','filename':'/ro.img','read-only':true}");
    co_tree_add("{'driver':'raw','node-name':'ro','file':'rof'}");
    co_tree_add("{'driver':'raw','node-name':'g','file':'f'}");
    co_tree_add("{'driver':'qcow2','node-name':'low','read-only':true,'file':{'driver':'file','node-name':'lf','filename':'/low.img'}}");
    co_tree_add("{'driver':'qcow2','node-name':'top','backing':'low','file':{'driver':'file','node-name':'tf','filename':'/top.img'}}");
}

static void co_end(void)
{
    struct error err = ERROR_INIT;

    io_sim_faults_clear();
    co_disk_free(disk);
    assert_int_equal(co_blockdevs_end(&err), 0);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static void co_reopen(const char *list, const char *refusal)
{
    struct row row = { list, refusal };
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(list);
    int ret = co_blockdev_reopen(tree, &err);

    json_decref(tree);
    judge(&row, &err);
    assert_int_equal(ret < 0, refusal != NULL);
}

/* --- What is refused ----------------------------------------------------------------------------------- */

#define TOP "'driver':'qcow2','node-name':'top','file':'tf'"
#define A "'driver':'qcow2','node-name':'a','file':'f','lazy-refcounts':false"

static const struct row refused[] = {
    { "[{'driver':'qcow2'}]", "node-name not specified" },
    { "[{'driver':'qcow2','node-name':'x'}]", "Failed to find node with node-name='x'" },
    { "[{'driver':'raw','node-name':'a','file':'f'}]", "Cannot change the option 'driver'" },
    { "[{'driver':'qcow2','node-name':'a','file':'rf'}]", "Image is not in qcow2 format" },
    { "[{'driver':'qcow2','node-name':'a','file':'x'}]", "Cannot find device='' nor node-name='x'" },
    { "[{'driver':'qcow2','node-name':'a','file':'a'}]", "Making 'a' a file child of 'a' would create a cycle" },
    { "[{'driver':'qcow2','node-name':'a','file':'rof'}]", "Block node is read-only" },
    { "[{'driver':'qcow2','node-name':'a','file':'top'}]", "Node 'top' cannot be used as the file of an image" },
    { "[{'driver':'qcow2','node-name':'a','file':'tf'}]",
      "Permission conflict on node 'tf': permissions 'write, resize' are both required by node 'a' (uses node 'tf' as 'file' child) "
      "and unshared by node 'top' (uses node 'tf' as 'file' child)." },
    { "[{'driver':'qcow2','node-name':'a','file':{'driver':'file','filename':'/a.img'}}]", "Cannot change the option 'file.driver'" },
    { "[{" TOP ",'backing':'low','node-name':'other'}]", "Failed to find node with node-name='other'" },
    { "[{'driver':'qcow2','node-name':'top','file':{'driver':'file','filename':'/top.img','node-name':'x'},'backing':'low'}]",
      "Cannot change the option 'node-name'" },
    { "[{'driver':'qcow2','node-name':'top','file':{'driver':'file','filename':'/x'},'backing':'low'}]",
      "Cannot change the option 'filename'" },
    { "[{'driver':'qcow2','node-name':'top','file':{'driver':'file'},'backing':'low'}]",
      "Option 'filename' cannot be reset to its default value" },
    { "[{" A ",'l2-cache-entry-size':5000}]",
      "L2 cache entry size must be a power of two between 512 and the cluster size (65536)" },
    { "[{" A ",'detect-zeroes':'unmap'}]",
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap" },
    { "[{" A ",'read-only':true}]", "Read-only block node 'a' cannot support read-write users" },
    { "[{'driver':'file','node-name':'f','filename':'/a.img','read-only':true}]",
      "Read-only block node 'f' cannot support read-write users" },
    { "[{'driver':'raw','node-name':'ro','file':'rof','read-only':false}]", "Block node is read-only" },
    { "[{'driver':'qcow2','node-name':'low','file':'lf','read-only':false}]",
      "Node 'low' is busy: node is used as backing hd of 'top'" },
    { "[{'driver':'qcow2','node-name':'low','file':'lf','backing':'top'}]",
      "Making 'top' a backing child of 'low' would create a cycle" },
    { "[{" TOP "}]", "backing is missing for 'top'" },
    { "[{" TOP ",'backing':{'driver':'qcow2','file':'lf'}}]", "Cannot change the option 'backing.driver'" },
    { "[{" TOP ",'backing':'x'}]", "Cannot find device='' nor node-name='x'" },
    /* The second one is wrong: the first one stays as it was, too. */
    { "[{" TOP ",'backing':null,'read-only':true},{'driver':'raw','node-name':'ro','file':'rof','read-only':false}]",
      "Block node is read-only" },
    { "[{" TOP ",'backing':null},{'driver':'qcow2','node-name':'x'}]", "Failed to find node with node-name='x'" },
};

static void assert_as_before(void)
{
    assert_false(node_find("a")->read_only);
    assert_false(node_find("f")->read_only);
    assert_true(node_find("ro")->read_only);
    assert_true(node_find("low")->read_only);
    assert_false(node_find("top")->read_only);
    assert_false(node_find("tf")->read_only);
    assert_ptr_equal(node_find("top")->backing, node_find("low"));
    assert_null(node_find("low")->backing);
}

static void CO_ENTRY co_test_refusals(void *arg)
{
    co_begin();
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        co_reopen(refused[i].tree, refused[i].text);
        assert_as_before();
    }
    node_find("top")->backing_frozen++;
    co_reopen("[{" TOP ",'backing':null}]", "Cannot change frozen 'backing' link from 'top' to 'low'");
    co_reopen("[{" TOP ",'backing':'low'}]", NULL);
    node_find("top")->backing_frozen--;
    node_find("top")->busy_reason = "somebody has it";
    co_reopen("[{" TOP ",'backing':'low'}]", "Node 'top' is busy: somebody has it");
    node_find("top")->busy_reason = NULL;
    assert_as_before();
    co_end();
}

/* --- What changes -------------------------------------------------------------------------------------------- */

static void CO_ENTRY co_test_changes(void *arg)
{
    struct node *a, *top, *low;

    co_begin();
    a = node_find("a");
    top = node_find("top");
    low = node_find("low");
    co_reopen("[{" A ",'detect-zeroes':'unmap','discard':'unmap','cache':{'no-flush':true}}]", NULL);
    assert_int_equal(a->detect_zeroes, 2);
    assert_true(a->discard_unmap && a->no_flush);
    co_reopen("[{" A ",'detect-zeroes':'on','discard':'ignore'}]", NULL);
    assert_int_equal(a->detect_zeroes, 1);
    assert_false(a->discard_unmap || a->no_flush);
    co_reopen("[{" A ",'detect-zeroes':'off'}]", NULL);
    assert_int_equal(a->detect_zeroes, 0);
    co_reopen("[{" TOP ",'backing':''}]", NULL);
    assert_null(top->backing);
    co_reopen("[{'driver':'qcow2','node-name':'low','file':{'driver':'file','filename':'/low.img','node-name':'lf'},"
              "'read-only':false}]", NULL);
    assert_false(low->read_only || low->file->read_only);
    co_reopen("[{'driver':'qcow2','node-name':'low','file':{'driver':'file','filename':'/low.img','node-name':'lf',"
              "'cache':{'direct':true}},'read-only':true}]", NULL);
    assert_true(low->read_only && low->file->read_only && low->file->cache_direct && !low->cache_direct);
    co_reopen("[{" TOP ",'backing':'low'}]", NULL);
    assert_ptr_equal(top->backing, low);
    co_reopen("[{'driver':'qcow2','node-name':'low','file':'lf'}]", NULL); /* a backing file stays read-only by itself */
    assert_true(low->read_only);
    co_end();
}

static void CO_ENTRY co_assert_holds(struct node *node, uint8_t byte)
{
    uint8_t buf[512];

    assert_int_equal(co_node_read_buf(node, 65536, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], byte);
    assert_int_equal(buf[511], byte);
}

static void CO_ENTRY co_fill(struct node *node, uint8_t byte)
{
    uint8_t buf[512];

    memset(buf, byte, sizeof(buf));
    assert_int_equal(co_node_write_buf(node, 65536, buf, sizeof(buf)), 0);
}

/* What the first file holds is durable in it before another one takes its place, and there again afterwards. */
static void CO_ENTRY co_test_file(void *arg)
{
    struct node *a;

    co_begin();
    a = node_find("a");
    make("/b.img", NULL);
    co_tree_add("{'driver':'file','node-name':'bf','filename':'/b.img'}");
    co_fill(a, 1);
    co_reopen("[{'driver':'qcow2','node-name':'a','file':'g'}]", NULL); /* a part of it stands between, as it were */
    assert_ptr_equal(a->file, node_find("g"));
    co_assert_holds(a, 1);
    co_fill(a, 2);
    co_reopen("[{'driver':'qcow2','node-name':'a','file':'bf'}]", NULL);
    assert_string_equal(a->filename, "/b.img");
    co_assert_holds(a, 0);
    co_fill(a, 3);
    co_reopen("[{'driver':'qcow2','node-name':'a','file':'f','l2-cache-size':65536,'lazy-refcounts':true}]", NULL);
    co_assert_holds(a, 2);
    co_reopen("[{'driver':'qcow2','node-name':'a','file':'bf','read-only':false}]", NULL);
    co_assert_holds(a, 3);
    co_end();
}

/* The second item fails when the first image has been opened on its other file already. */
static void CO_ENTRY co_test_file_undone(void *arg)
{
    static const struct row rows[] = {
        { "{'driver':'raw','node-name':'r','file':'rf','offset':131072}",
          "Offset (131072) cannot be greater than size of the containing file (65536)" },
        { "{'driver':'raw','node-name':'r','file':'rf','offset':512,'size':65536}",
          "The sum of offset (512) and size (65536) has to be smaller or equal to the  actual size of the containing file (65536)" },
    };
    struct node *a, *r;

    co_begin();
    a = node_find("a");
    r = node_find("r");
    make("/b.img", NULL);
    co_tree_add("{'driver':'file','node-name':'bf','filename':'/b.img'}");
    co_fill(a, 1);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTOFREE char *list = mem_printf("[{'driver':'qcow2','node-name':'a','file':'bf'},%s]", rows[i].tree);

        co_reopen(list, rows[i].text);
        assert_ptr_equal(a->file, node_find("f"));
        assert_int_equal(r->size, 65536);
        co_assert_holds(a, 1);
        co_fill(a, 1 + i);
        co_fill(a, 1);
    }
    co_reopen("[{'driver':'raw','node-name':'r','file':'rf','offset':512},{'driver':'qcow2','node-name':'a','file':'bf'}]", NULL);
    assert_int_equal(r->size, 65536 - 512);
    co_assert_holds(a, 0);
    co_reopen("[{'driver':'raw','node-name':'r','file':'rf'}]", NULL);
    assert_int_equal(r->size, 65536);
    co_end();
}

static void an_image_is_read_anew_from_its_new_file(void **state)
{
    loop_run_co(co_test_file, NULL);
}

static void an_image_is_on_its_old_file_again_when_another_one_fails(void **state)
{
    loop_run_co(co_test_file_undone, NULL);
}

/* Filters call their child by another name, and take it along. */
static void CO_ENTRY co_test_filter(void *arg)
{
    static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, &driver_blkdebug, NULL };
    struct node *filter;

    node_set_drivers(drivers);
    co_begin();
    io_sim_create("/b.img", 65536);
    filter = co_tree_add("{'driver':'blkdebug','node-name':'b','align':512,'image':{'driver':'file','node-name':'bf','filename':'/b.img'}}");
    co_reopen("[{'driver':'blkdebug','node-name':'b','align':512,'image':{'driver':'file','filename':'/b.img'},'read-only':true}]", NULL);
    assert_true(filter->read_only && filter->file->read_only);
    co_reopen("[{'driver':'blkdebug','node-name':'b','align':512}]", "Block node is read-only"); /* its file was not named */
    co_reopen("[{'driver':'blkdebug','node-name':'b','align':512,'image':{'driver':'file','filename':'/b.img','read-only':false}}]", NULL);
    assert_false(filter->read_only || filter->file->read_only);
    co_reopen("[{'driver':'blkdebug','node-name':'b','align':512,'image':'tf'}]", "Cannot change the option 'image'");
    co_reopen("[{'driver':'blkdebug','node-name':'b','align':1024,'image':'bf'}]", "Cannot change the option 'align'");
    co_reopen("[{'driver':'blkdebug','node-name':'b','image':'bf'}]", "Option 'align' cannot be reset to its default value");
    co_end();
}

static void a_filter_takes_its_child_along(void **state)
{
    loop_run_co(co_test_filter, NULL);
}

/* --- A host that refuses ---------------------------------------------------------------------------------------- */

static void fail_next(unsigned op, const char *path)
{
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = op, .path = path, .times = 1 };

    io_sim_fault(&fault);
}

static void CO_ENTRY co_test_faults(void *arg)
{
    struct error err = ERROR_INIT;
    struct node *r, *top;
    uint8_t byte[512] = { 7 };

    co_begin();
    r = node_find("r");
    top = node_find("top");
    fail_next(IO_SIM_OPEN, "/a.img");
    co_reopen("[{'driver':'file','node-name':'f','filename':'/a.img','cache':{'direct':true}}]",
              "Could not reopen '/a.img': Input/output error");
    assert_false(node_find("f")->cache_direct);
    /* The first one is read-only already when the second one fails: it writes again afterwards. */
    fail_next(IO_SIM_OPEN, "/r.img");
    co_reopen("[{" TOP ",'backing':'low','read-only':true},{'driver':'raw','node-name':'r','file':'rf','read-only':true}]",
              "Could not reopen '/r.img' read-only: Input/output error");
    assert_false(top->read_only || top->file->read_only || r->read_only || r->file->read_only);
    assert_int_equal(co_node_write_buf(top, 0, byte, sizeof(byte)), 0);
    assert_int_equal(co_node_write_buf(r, 0, byte, sizeof(byte)), 0);
    /* What was written has to be durable before a node is read-only. */
    fail_next(IO_SIM_FLUSH, "/r.img");
    co_reopen("[{'driver':'raw','node-name':'r','file':'rf','read-only':true}]", "Could not flush '/r.img': Input/output error");
    assert_false(r->read_only);
    assert_as_before();
    io_sim_faults_clear();
    co_disk_free(disk);
    assert_int_equal(co_blockdevs_end(&err), -EIO); /* a flush that has failed is never forgotten */
    assert_string_equal(err.text, "Could not flush 'r': Input/output error");
    error_clear(&err);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

/* --- Races ------------------------------------------------------------------------------------------------------- */

static unsigned ended;
static char *said;

static CO_ENTRY void co_writer(void *arg)
{
    static uint8_t data[65536];

    assert_int_equal(co_node_write_buf(arg, 0, data, sizeof(data)), 0);
    ended++;
}

static CO_ENTRY void co_reopener(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(arg);

    assert_int_equal(co_blockdev_reopen(tree, &err), -EBUSY);
    said = mem_strdup(err.text);
    error_clear(&err);
    json_decref(tree);
    ended++;
}

/* A job begins on a node while the guests of the list's nodes are being stopped. */
static void CO_ENTRY co_test_race(void *arg)
{
    struct node *top;

    co_begin();
    top = node_find("top");
    ended = 0;
    co_start(co_writer, top);
    co_start(co_reopener, "[{" A ",'detect-zeroes':'on'},{" TOP ",'backing':null}]");
    assert_int_equal(ended, 0);
    top->busy_reason = "somebody has it";
    while (ended < 2) {
        co_sleep_ns(NS_PER_MS);
    }
    assert_string_equal(said, "Node 'top' is busy: somebody has it");
    free(said);
    top->busy_reason = NULL;
    assert_as_before();
    assert_int_equal(node_find("a")->detect_zeroes, 0);
    assert_int_equal(top->drained + node_find("a")->drained, 0);
    co_end();
}

static void who_takes_a_node_while_guests_are_being_stopped_is_first(void **state)
{
    loop_run_co(co_test_race, NULL);
}

static void what_cannot_change_is_named_and_nothing_changes(void **state)
{
    loop_run_co(co_test_refusals, NULL);
}

static void what_is_not_said_goes_back_to_its_default(void **state)
{
    loop_run_co(co_test_changes, NULL);
}

static void a_host_that_refuses_in_the_middle_undoes_the_whole_list(void **state)
{
    loop_run_co(co_test_faults, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_change_is_named_and_nothing_changes),
        cmocka_unit_test(what_is_not_said_goes_back_to_its_default),
        cmocka_unit_test(an_image_is_read_anew_from_its_new_file),
        cmocka_unit_test(an_image_is_on_its_old_file_again_when_another_one_fails),
        cmocka_unit_test(a_filter_takes_its_child_along),
        cmocka_unit_test(who_takes_a_node_while_guests_are_being_stopped_is_first),
        cmocka_unit_test(a_host_that_refuses_in_the_middle_undoes_the_whole_list),
    };
    return cmocka_run_group_tests_name("reopen", tests, rig_setup, rig_teardown);
}
