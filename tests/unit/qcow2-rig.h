/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of qcow2 images: the simulated disk, nodes on it, and the real qemu-img as a judge
 * (images are carried out to the host's file system for it).
 */
#ifndef TESTS_UNIT_QCOW2_RIG_H
#define TESTS_UNIT_QCOW2_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/file.h"
#include "block/node.h"
#include "block/qcow2.h"
#include "core/bytes.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "tests/unit/sim-world.h"

static char rig_dir[] = "/tmp/merganser-unit.XXXXXX";
static char rig_file[sizeof(rig_dir) + 16];

static inline int rig_setup(void **state)
{
    sim_begin(11);
    if (!mkdtemp(rig_dir)) {
        return -1;
    }
    sprintf(rig_file, "%s/image", rig_dir);
    return 0;
}

static inline int rig_teardown(void **state)
{
    unlink(rig_file);
    rmdir(rig_dir);
    sim_end();
    return 0;
}

/* Run a command of the host; its output (malloc'ed), *status its exit status. */
static inline char *rig_shell(int *status, const char *fmt, ...)
{
    char *out = mem_zalloc(1 << 16);
    va_list ap;

    va_start(ap, fmt);
    AUTOFREE char *command = mem_vprintf(fmt, ap);
    va_end(ap);
    AUTOFREE char *both = mem_printf("{ %s; } 2>&1", command);
    FILE *pipe = popen(both, "r");

    assert_non_null(pipe);
    size_t n = fread(out, 1, (1 << 16) - 1, pipe);

    out[n] = 0;
    int ret = pclose(pipe);

    *status = WIFEXITED(ret) ? WEXITSTATUS(ret) : -1;
    return out;
}

static inline void rig_need_qemu_img(void)
{
    int status;

    free(rig_shell(&status, "qemu-img --version"));
    if (status) {
        print_message("qemu-img is not here to judge\n");
        skip();
    }
}

/* What `qemu-img check` says of a simulated file: fails the test unless it is content. */
static inline void rig_qemu_check(const char *path)
{
    int status;

    assert_int_equal(io_sim_export(path, rig_file), 0);
    AUTOFREE char *out = rig_shell(&status, "qemu-img check -U -f qcow2 %s", rig_file);

    if (status) {
        print_message("%s\n", out);
    }
    assert_int_equal(status, 0);
}

/* "cluster_size=512,compat=0.10" as a tree of options. */
static inline json_t *rig_options(const char *words)
{
    AUTOFREE char *copy = mem_strdup(words);
    json_t *options = json_object();
    char *rest = copy, *word;

    while ((word = strsep(&rest, ",")) && *word) {
        char *value = strchr(word, '=');

        *value++ = '\0';
        json_object_set_new(options, word, json_string(value));
    }
    return options;
}

/* A new image that must get made. */
static inline void co_rig_create(const char *path, const char *words)
{
    struct error err = ERROR_INIT;
    json_t *options = rig_options(words);
    int ret = co_qcow2_create(path, options, &err);

    json_decref(options);
    if (ret) {
        print_message("%s (%s): %s\n", path, words, err.text);
    }
    assert_int_equal(ret, 0);
}

static inline uint64_t rig_get64(const char *path, uint64_t offset)
{
    uint8_t bytes[8];

    assert_int_equal(io_sim_read(path, offset, bytes, sizeof(bytes)), 0);
    return load_be64(bytes);
}

static inline void rig_put64(const char *path, uint64_t offset, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    assert_int_equal(io_sim_write(path, offset, bytes, sizeof(bytes)), 0);
}

/* Open an image that must open. */
static inline struct node *co_rig_open(const char *path, bool writable)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b, s:n}", "driver", "qcow2", "read-only", (int)!writable, "backing");
    struct node *node = co_node_open(path, options, &err);

    json_decref(options);
    if (!node) {
        print_message("%s: %s\n", path, err.text);
    }
    assert_non_null(node);
    return node;
}

struct rig_attempt {
    const char *path;
    bool writable;
    char *text;
};

static CO_ENTRY inline void rig_attempt_entry(void *arg)
{
    struct rig_attempt *a = arg;
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b, s:n}", "driver", "qcow2", "read-only", (int)!a->writable, "backing");
    struct node *node = co_node_open(a->path, options, &err);

    json_decref(options);
    a->text = node ? NULL : mem_strdup(err.text);
    error_clear(&err);
    if (node) {
        co_node_unref(node);
    }
}

/* Open and close an image; the sentence with which it refuses (the caller frees it), or NULL. */
static inline char *rig_refusal(const char *path, bool writable)
{
    struct rig_attempt a = { .path = path, .writable = writable };

    loop_run_co(rig_attempt_entry, &a);
    return a.text;
}

/* Every state of the disk in which the power could have gone while something ran. */
struct rig_states {
    struct io_sim_snapshot **list;
    size_t n;
};

static inline void rig_take_state(void *arg, const struct io_sim_event *event)
{
    struct rig_states *states = arg;

    if (event->op & (IO_SIM_READ | IO_SIM_MAP | IO_SIM_OPEN)) {
        return;
    }
    states->list = mem_reallocarray(states->list, states->n + 1, sizeof(*states->list));
    states->list[states->n++] = io_sim_snapshot();
}

static inline void rig_free_states(struct rig_states *states)
{
    for (size_t i = 0; i < states->n; i++) {
        io_sim_snapshot_free(states->list[i]);
    }
    free(states->list);
    *states = (struct rig_states){ 0 };
}

#endif
