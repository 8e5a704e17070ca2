/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How jobs begin: what a stream or a new image is refused for, in QEMU's words, and that nothing is held afterwards; bases by all
 * their names; images that cannot be made.
 */
#include "tests/unit/job-rig.h"

#include <errno.h>

#include "block/blockdev.h"
#include "tests/unit/tree-rows.h"

static struct disk *disk;

/* disk d: [a] <- [b] <- [c] <- [d], each with 64 KiB of its own; x beside them, in no disk. */
static void co_begin(void)
{
    static const char *const names[] = { "/img/a", "/img/b", "/img/c", "/img/d" };

    io_sim_reset();
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        struct node *node;

        co_rig_create(names[i], i ? names[i - 1] + 5 : NULL, 4 * MIB); /* recorded without the directory */
        node = co_rig_open(names[i]);
        co_rig_fill(node, i * MIB, 65536);
        co_node_unref(node);
    }
    co_rig_create("/img/x", NULL, 4 * MIB);
    disk = disk_new("d", co_rig_open("/img/d"));
    co_tree_add("{'driver':'qcow2','node-name':'x','file':{'driver':'file','node-name':'xf','filename':'/img/x'}}");
}

static void assert_nobody_is_held(void)
{
    struct node *node;

    assert_true(TAILQ_EMPTY(&all_jobs));
    TAILQ_FOREACH(node, &all_nodes, link) {
        assert_null(node->busy_reason);
        assert_int_equal(node->backing_frozen, 0);
        assert_int_equal(node->drained, 0);
    }
}

static void co_end(void)
{
    struct error err = ERROR_INIT;

    assert_nobody_is_held();
    co_disk_free(disk);
    assert_int_equal(co_blockdevs_end(&err), 0);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

/* --- Streams ------------------------------------------------------------------------------------------------- */

static const struct {
    struct stream_args args;
    const char *text;
} refused[] = {
    { { .device = "nobody" }, "Cannot find device='nobody' nor node-name='nobody'" },
    { { .device = "d", .base = "b", .base_node = "x" }, "'base' and 'base-node' cannot be specified at the same time" },
    { { .device = "d", .base = "b", .bottom = "x" }, "'base' and 'bottom' cannot be specified at the same time" },
    { { .device = "d", .base_node = "x", .bottom = "x" }, "'bottom' and 'base-node' cannot be specified at the same time" },
    { { .device = "d", .base = "nix" }, "Can't find 'nix' in the backing chain" },
    { { .device = "d", .base_node = "nix" }, "Cannot find device='' nor node-name='nix'" },
    { { .device = "d", .base_node = "x" }, "Node 'x' is not a backing image of 'd'" },
    { { .device = "d", .bottom = "nix" }, "Cannot find device='' nor node-name='nix'" },
    { { .device = "d", .bottom = "x" }, "Node 'x' is not in a chain starting from 'd'" },
    { { .device = "d", .backing_file = "y" }, "backing file specified, but streaming the entire chain" },
    { { .device = "x" }, "An explicit job ID is required for this node" },
    { { .device = "d", .job_id = "7up" }, "Invalid job ID '7up'" },
    { { .device = "d", .has_speed = true, .speed = -1 }, "Parameter 'speed' expects a non-negative value" },
    { { .device = "d", .latency = -1 }, "Parameter 'latency' expects a non-negative value" },
};

static void CO_ENTRY co_refusals(void *arg)
{
    co_begin();
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct row row = { refused[i].text, refused[i].text };
        struct error err = ERROR_INIT;

        assert_true(co_stream_start(&refused[i].args, &err) < 0);
        judge(&row, &err);
        assert_nobody_is_held();
    }
    co_end();
}

/* Each way to name the same base. */
static void CO_ENTRY co_bases(void *arg)
{
    static const char *const spellings[] = { "b", "/img/b", "img/b", "./img/b" };

    for (size_t i = 0; i < 2 + ARRAY_SIZE(spellings); i++) {
        struct stream_args args = { .device = "d", .auto_finalize = true, .auto_dismiss = true };
        struct error err = ERROR_INIT;
        struct job *job;
        struct node *b;

        co_begin();
        b = disk->root->backing->backing;
        if (i == 0) {
            args.base_node = b->name;
        } else if (i == 1) {
            args.bottom = disk->root->backing->name;
        } else {
            args.base = spellings[i - 2];
        }
        if (i == 5) { /* the name that was recorded is not always there */
            free(disk->root->backing->backing_name);
            disk->root->backing->backing_name = NULL;
        }
        assert_int_equal(co_stream_start(&args, &err), 0);
        job = job_ref(TAILQ_FIRST(&all_jobs));
        co_job_wait(job);
        job_unref(job);
        assert_ptr_equal(disk->root->backing, b);
        assert_string_equal(disk->root->backing_name, "b"); /* the spelling in use, or relative to the overlay */
        co_end();
    }
}

/* A layer in between that somebody has; and a stream that has nothing to do holds nobody long. */
static void CO_ENTRY co_held(void *arg)
{
    struct stream_args args = { .device = "d", .auto_finalize = true, .auto_dismiss = true };
    struct row target = { "target", "Node 'd' is busy: somebody has it" };
    struct error err = ERROR_INIT;
    struct node *b;

    co_begin();
    disk->root->busy_reason = "somebody has it";
    assert_true(co_stream_start(&args, &err) < 0);
    judge(&target, &err);
    disk->root->busy_reason = NULL;
    b = disk->root->backing->backing;
    b->busy_reason = "somebody has it";
    assert_true(co_stream_start(&args, &err) < 0);
    assert_non_null(strstr(err.text, b->name));
    error_clear(&err);
    b->busy_reason = NULL;
    assert_nobody_is_held();
    args.base_node = disk->root->backing->name;
    assert_int_equal(co_stream_start(&args, &err), 0); /* nothing lies between */
    co_end();
}

/* A read that fails under `ignore` does not end the job, but nothing is dropped. */
static void CO_ENTRY co_ignored_errors(void *arg)
{
    struct stream_args args = { .device = "d", .auto_finalize = true, .auto_dismiss = false, .on_error = JOB_ON_ERROR_IGNORE };
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .path = "/img/a", .ops = IO_SIM_READ | IO_SIM_COPY };
    struct error err = ERROR_INIT;
    struct job *job;
    uint8_t buf[512];

    co_begin();
    io_sim_fault(&fault);
    fault.path = "/img/b";
    io_sim_fault(&fault);
    assert_int_equal(co_stream_start(&args, &err), 0);
    job = job_ref(TAILQ_FIRST(&all_jobs));
    co_job_wait(job);
    assert_int_equal(job->ret, -EIO);
    assert_non_null(disk->root->backing->backing->backing); /* all of them are there */
    io_sim_faults_clear();
    assert_int_equal(co_node_read_buf(disk->root, 2 * MIB, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], 0x5a);
    assert_int_equal(job_dismiss(job, &err), 0);
    job_unref(job);
    co_end();
}

/* --- New images ------------------------------------------------------------------------------------------------ */

struct making {
    const char *options;
    const char *text; /* the job's error; NULL: it is made */
};

/* The job is started and told to be forgotten; 0 or its error. */
static void co_make(const char *text, const char *refusal)
{
    struct error err = ERROR_INIT;
    json_t *options = tree_of(text);
    struct create_args args = { .job_id = "j", .options = options, .overwrite = false };
    struct row row = { text, refusal };
    struct job *job;

    assert_int_equal(co_create_start(&args, &err), 0);
    job = job_ref(job_find("j"));
    co_job_wait(job);
    assert_int_equal(job->ret < 0, refusal != NULL);
    judge(&row, &job->err);
    assert_int_equal(job_dismiss(job, &err), 0);
    job_unref(job);
    json_decref(options);
}

#define QCOW2(file, more) "{'driver':'qcow2','size':1048576,'file':" file more "}"

static const struct making makings[] = {
    { QCOW2("'nobody'", ""), "Cannot find device='nobody' nor node-name='nobody'" },
    { QCOW2("'x'", ""), "Node 'x' cannot be used as the file of an image" },
    { QCOW2("'ro'", ""), "Block node is read-only" },
    { QCOW2("'of-disk'", ""), "Node 'of-disk' is in use" },
    { QCOW2("'held'", ""), "Node 'held' is busy: somebody has it" },
    { QCOW2("'xf'", ""), "Permission conflict on node 'xf': permissions 'write, resize' are both required by an unnamed block "
                         "device (uses node 'xf' as 'root' child) and unshared by node 'x' (uses node 'xf' as 'file' child)." },
    { QCOW2("'full'", ""), "'/full' is not empty, and making an image would destroy what is in it" },
    { QCOW2("{'driver':'file','filename':'/none'}", ""), "Could not open '/none': No such file or directory" },
    { "{'driver':'qcow2','size':1000,'file':'free'}", "Image size must be a multiple of 512 bytes" },
    { "{'driver':'file','filename':'/new','size':-1}", "Could not resize file: Invalid argument" },
    { "{'driver':'file','filename':'/img/x','size':512}", "Failed to get \"write\" lock" },
    { QCOW2("'free'", ",'version':'v2'"), NULL },
    { QCOW2("{'driver':'file','filename':'/free2'}", ",'version':'v3','preallocation':'metadata'"), NULL },
    { "{'driver':'file','filename':'/new1','size':65536}", NULL },
    { "{'driver':'file','filename':'/new2','size':65536,'preallocation':'off'}", NULL },
    { "{'driver':'file','filename':'/new3','size':65536,'preallocation':'full'}", NULL },
};

static void co_begin_makings(void)
{
    io_sim_reset();
    co_begin();
    for (unsigned i = 0; i < 5; i++) {
        static const char *const paths[] = { "/ro", "/of-disk", "/held", "/free", "/free2" };

        io_sim_create(paths[i], 0);
    }
    io_sim_create("/full", 512);
    assert_int_equal(io_sim_write("/full", 100, "x", 1), 0);
    co_tree_add("{'driver':'file','node-name':'ro','filename':'/ro','read-only':true}");
    co_tree_add("{'driver':'file','node-name':'of-disk','filename':'/of-disk'}");
    co_tree_add("{'driver':'file','node-name':'held','filename':'/held'}");
    co_tree_add("{'driver':'file','node-name':'free','filename':'/free'}");
    co_tree_add("{'driver':'file','node-name':'full','filename':'/full'}");
}

static void CO_ENTRY co_makings(void *arg)
{
    struct disk *other;

    co_begin_makings();
    other = disk_new("o", node_ref(node_find("of-disk")));
    for (size_t i = 0; i < ARRAY_SIZE(makings); i++) {
        node_find("held")->busy_reason = strstr(makings[i].options, "'held'") ? "somebody has it" : NULL;
        co_make(makings[i].options, makings[i].text);
        node_find("held")->busy_reason = NULL;
        assert_nobody_is_held();
    }
    co_disk_free(other);
    co_end();
}

/* A host that fails: the job says what. */
static void CO_ENTRY co_failing_makings(void *arg)
{
    static const struct {
        struct io_sim_fault fault;
        const char *text;
    } rows[] = {
        { { .ops = IO_SIM_READ, .path = "/full" }, "Could not read '/full': Input/output error" },
        { { .ops = IO_SIM_WRITE, .path = "/full" }, "Could not write '/full': Input/output error" },
        { { .ops = IO_SIM_SIZE, .path = "/full", .after = 1 }, "Could not look at the size of '/full': Input/output error" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct io_sim_fault fault = rows[i].fault;

        co_begin_makings();
        assert_int_equal(io_sim_write("/full", 100, "", 1), 0);
        fault.kind = IO_SIM_FAULT_ERROR;
        io_sim_fault(&fault);
        co_make(QCOW2("'full'", ""), rows[i].text);
        io_sim_faults_clear();
        co_end();
    }
}

#define TEST(name, co_test)            \
    static void name(void **state)     \
    {                                  \
        loop_run_co(co_test, NULL);    \
    }
TEST(a_stream_that_cannot_be_says_why_and_holds_nobody, co_refusals)
TEST(a_base_has_many_names, co_bases)
TEST(what_somebody_has_is_not_streamed, co_held)
TEST(ignored_errors_drop_nothing, co_ignored_errors)
TEST(an_image_that_cannot_be_made_says_why_and_holds_nobody, co_makings)
TEST(an_image_is_not_made_while_the_host_fails, co_failing_makings)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_that_cannot_be_says_why_and_holds_nobody),
        cmocka_unit_test(a_base_has_many_names),
        cmocka_unit_test(what_somebody_has_is_not_streamed),
        cmocka_unit_test(ignored_errors_drop_nothing),
        cmocka_unit_test(an_image_that_cannot_be_made_says_why_and_holds_nobody),
        cmocka_unit_test(an_image_is_not_made_while_the_host_fails),
    };
    return cmocka_run_group_tests_name("job-starts", tests, rig_setup, rig_teardown);
}
