/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of images in a chain, and what can be completed.  The chain is made of bare nodes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "monitor/chain-names.h"
#include "monitor/completion.h"

#define DEPTH_MAX 8

static const struct driver format = { .name = "qcow2", .is_format = true, .supports_backing = true };
static struct node nodes[DEPTH_MAX];
static char names[DEPTH_MAX][32];

/* A chain of these files, base first; nodes are called #0, #1, ... unless a name is given as "node=file". */
static struct node *chain_of(const char *const *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *equals = strchr(files[i], '=');

        snprintf(names[i], sizeof(names[i]), "#%zu", i);
        if (equals) {
            snprintf(names[i], sizeof(names[i]), "%.*s", (int)(equals - files[i]), files[i]);
        }
        nodes[i] = (struct node){
            .name = names[i],
            .driver = &format,
            .filename = (char *)(equals ? equals + 1 : files[i]),
            .backing = i ? &nodes[i - 1] : NULL,
        };
    }
    return &nodes[n - 1];
}

#define CHAIN(...)                                                                                                    \
    ({                                                                                                                \
        static const char *const files_[] = { __VA_ARGS__ };                                                          \
        chain_of(files_, ARRAY_SIZE(files_));                                                                         \
    })

static void labels_are(struct node *top, const char *want)
{
    size_t count;
    char **labels = chain_labels(top, &count);
    char text[256] = "";

    for (size_t i = count; i > 0; i--) {
        strcat(text, labels[i - 1]);
        strcat(text, i > 1 ? " <- " : "");
    }
    assert_string_equal(text, want);
    chain_labels_free(labels, count);
}

static void labels_are_base_names_without_suffix(void **state)
{
    labels_are(CHAIN("base.qcow2", "/images/mid.raw", "top"), "base <- mid <- top");
    labels_are(CHAIN(".hidden", "a.b.c"), ".hidden <- a.b");
    labels_are(CHAIN("layer-1.img", "layer-2.img"), "layer-1 <- layer-2");
}

static void a_single_letter_behind_a_dash_stands_alone(void **state)
{
    labels_are(CHAIN("file-A.img", "file-B.img", "snap-1.img"), "A <- B <- snap-1");
}

static void labels_grow_until_they_are_unique(void **state)
{
    labels_are(CHAIN("disk.raw", "disk.qcow2", "top.img"), "disk.raw <- disk.qcow2 <- top");
    labels_are(CHAIN("a/disk.img", "b/disk.img"), "a/disk.img <- b/disk.img");
    labels_are(CHAIN("x-A.img", "y-A.img"), "x-A.img <- y-A.img");
    labels_are(CHAIN("same.img", "same.img"), "#0 <- #1");
}

static void finds(struct node *top, const char *name, const char *file)
{
    struct error err = ERROR_INIT;
    struct node *found = chain_find_below(top, name, &err);

    assert_false(error_is_set(&err));
    if (!file) {
        assert_null(found);
    } else {
        assert_non_null(found);
        assert_string_equal(found->filename, file);
    }
}

static void an_image_answers_to_many_names(void **state)
{
    struct node *top = CHAIN("node-A=dir/file-A.img", "node-X=file-B.img", "top.img");

    nodes[1].backing_name = "../dir/file-A.img";
    finds(top, "node-A", "dir/file-A.img");
    finds(top, "dir/file-A.img", "dir/file-A.img");
    finds(top, "../dir/file-A.img", "dir/file-A.img");
    finds(top, "file-A.img", "dir/file-A.img");
    finds(top, "file-A", "dir/file-A.img");
    finds(top, "A", "dir/file-A.img");
    finds(top, "B", "file-B.img");
    finds(top, "X", "file-B.img");
    finds(top, "", NULL);
    finds(top, "C", NULL);
    finds(top, "top.img", NULL);
    finds(top, "file-", NULL);
}

static void the_closer_name_wins(void **state)
{
    struct node *top = CHAIN("A.img", "file-A.img", "top.img");

    finds(top, "A", "A.img");
    finds(CHAIN("x=file-A.img", "A=other.img", "top.img"), "A", "other.img");
}

static void a_name_of_two_is_refused(void **state)
{
    struct error err = ERROR_INIT;
    struct node *top = CHAIN("x-A.img", "y-A.img", "top.img");

    assert_null(chain_find_below(top, "A", &err));
    assert_string_equal(err.text, "'A' could be 'y-A.img' or 'x-A.img' of the backing chain");
    error_clear(&err);
    finds(top, "x-A", "x-A.img");
}

static void candidates_are_listed_from_the_top(void **state)
{
    AUTOFREE char *some = chain_candidates(CHAIN("file-A.img", "plain", "top.img"));
    AUTOFREE char *none = chain_candidates(CHAIN("alone.img"));

    assert_string_equal(some, "plain, A (file-A.img)");
    assert_null(none);
}

/* --- Completion ------------------------------------------------------------------------------------------------------- */

static const struct monitor human = { .name = "test" };
static const struct monitor compat = { .name = "compat", .compat = true };

static void completes(const struct monitor *mon, const char *line, const char *want)
{
    const char *last = strrchr(line, ' ');
    size_t start = last ? (size_t)(last - line) + 1 : 0;
    struct completion found = completion_find(mon, line, start, line + start);
    char text[512] = "";

    for (size_t i = 0; i < found.count; i++) {
        strcat(text, i ? " " : "");
        strcat(text, found.words[i]);
    }
    strcat(text, found.files ? " FILES" : "");
    assert_string_equal(text, want);
    completion_free(&found);
}

static int list_chain(void **state)
{
    CHAIN("node-A=file-A.img", "node-B=file-B.img", "node-C=file-C.img");
    nodes[2].backing_name = "./file-B.img";
    for (int i = 0; i < 3; i++) {
        nodes[i].refs = 1;
        TAILQ_INSERT_TAIL(&all_nodes, &nodes[i], link);
    }
    return 0;
}

static int unlist_chain(void **state)
{
    for (int i = 0; i < 3; i++) {
        TAILQ_REMOVE(&all_nodes, &nodes[i], link);
    }
    return 0;
}

static void words_are_completed_from_the_rows(void **state)
{
    completes(&human, "block_st", "block_stream");
    completes(&human, "info blo", "block block-jobs blockstats");
    completes(&human, "help info chai", "chain");
    completes(&compat, "help info chai", "");
    completes(&human, "help block_str", "block_stream");
    completes(&human, "info block -", "-json -n -v");
    completes(&compat, "info block -", "-n -v");
    completes(&human, "block_job_cancel -", "-f");
    completes(&human, "source x", " FILES");
    completes(&human, "wait d", "done");
    completes(&human, "guest virtio0 profile=s", "profile=stamp");
    completes(&human, "nosuch x", "");
    completes(&compat, "wai", "");
}

static void images_are_completed_from_the_chain(void **state)
{
    completes(&human, "block_stream node-", "node-A node-B node-C");
    completes(&human, "block_stream node-B ", "file-A.img node-A");
    completes(&human, "block_stream node-C ", "./file-B.img file-A.img file-B.img node-A node-B");
    completes(&human, "block_stream node-C 0 node-", "node-A node-B");
    completes(&compat, "block_stream node-C ", "");
    completes(&human, "info block -v node-C", "node-C");
}

/* A disk, one that has no id of its own, and two jobs. */
static struct disk disks[] = { { .id = "disk0" }, { .id = "" } };
static struct job jobs[] = { { .id = "job-a" }, { .id = "job-b" } };

static int list_living(void **state)
{
    static const struct driver file = { .name = "file", .is_protocol = true };
    static const struct driver *const drivers[] = { &format, &file, NULL };

    list_chain(state);
    node_set_drivers(drivers);
    nodes[0].driver = &file;
    disks[0].root = &nodes[2];
    for (int i = 0; i < 2; i++) {
        TAILQ_INSERT_TAIL(&all_disks, &disks[i], link);
        TAILQ_INSERT_TAIL(&all_jobs, &jobs[i], link);
    }
    return 0;
}

static int unlist_living(void **state)
{
    for (int i = 0; i < 2; i++) {
        TAILQ_REMOVE(&all_disks, &disks[i], link);
        TAILQ_REMOVE(&all_jobs, &jobs[i], link);
    }
    return unlist_chain(state);
}

static void what_lives_is_completed_where_it_fits(void **state)
{
    completes(&human, "snapshot_blkdev ", "disk0");
    completes(&human, "snapshot_blkdev disk0 new.img q", "qcow2");
    completes(&human, "snapshot_blkdev disk0 new.img f", "");
    completes(&human, "snapshot_blkdev -n disk0 ", " FILES");
    completes(&human, "block_stream ", "disk0 node-B node-C");
    completes(&human, "block_stream disk0 ", "./file-B.img file-A.img file-B.img node-A node-B");
    completes(&human, "block_stream disk0 0 node-", "node-A node-B");
    completes(&human, "block_stream nobody ", "");
    completes(&human, "block_job_cancel ", "job-a job-b");
    completes(&human, "block_job_cancel -f job-b", "job-b");
    completes(&human, "block_job_cancel job-a ", "");
    completes(&human, "block_stream -l 2ms d", "disk0");
    completes(&human, "block_stream -l2ms d", "disk0");
    completes(&human, "block_stream -z d", "disk0");
    completes(&human, "block_stream -", "-l");
    completes(&compat, "block_stream -", "");
    completes(&human, "wait j", "job-a job-b");
    completes(&human, "wait job-a timeout", "");
    completes(&human, "expect chain d", "disk0");
    completes(&human, "events o", "off on");
    completes(&human, "events x", "");
    completes(&human, "help help ", "");
    completes(&human, "help block_stream x", "");
    completes(&human, "help info block x", "");
    completes(&human, "info nosuch ", "");
}

/* Names are compared as paths, below the directory in which the I/O engine works. */
static int engine_start(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    return 0;
}

static int engine_stop(void **state)
{
    io_fini();
    loop_fini();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_base_names_without_suffix),
        cmocka_unit_test(a_single_letter_behind_a_dash_stands_alone),
        cmocka_unit_test(labels_grow_until_they_are_unique),
        cmocka_unit_test(an_image_answers_to_many_names),
        cmocka_unit_test(the_closer_name_wins),
        cmocka_unit_test(a_name_of_two_is_refused),
        cmocka_unit_test(candidates_are_listed_from_the_top),
        cmocka_unit_test(words_are_completed_from_the_rows),
        cmocka_unit_test_setup_teardown(images_are_completed_from_the_chain, list_chain, unlist_chain),
        cmocka_unit_test_setup_teardown(what_lives_is_completed_where_it_fits, list_living, unlist_living),
    };

    return cmocka_run_group_tests(tests, engine_start, engine_stop);
}
