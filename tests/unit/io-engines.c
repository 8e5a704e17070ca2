/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What makes one engine on real files differ from another: batches, the order of completions on the
 * virtual clock, who waits for whom in the pool, and what happens where the kernel has no io_uring.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define REQUESTS 100

static char path[300];

/* --- Many writes ------------------------------------------------------------------------------ */

struct batch {
    const char *engine;
    struct io_file *file;
    struct co_group group;
    unsigned started;
    unsigned order[REQUESTS]; /* of completion */
    uint64_t when[REQUESTS];
    unsigned done;
    uint64_t submissions;
};

static void CO_ENTRY write_entry(void *arg)
{
    struct batch *b = arg;
    unsigned number = b->started++;
    char block[512];

    memset(block, number, sizeof(block));
    assert_int_equal(co_io_write(b->file, number * sizeof(block), block, sizeof(block)), 0);
    b->when[b->done] = loop_now();
    b->order[b->done++] = number;
    co_group_done(&b->group, 0);
}

static void CO_ENTRY batch_entry(void *arg)
{
    struct batch *b = arg;
    const struct io_engine *engine = io_engine_find(b->engine);

    if (!engine) {
        return;
    }
    assert_int_equal(co_io_open(engine, path, IO_RDWR | IO_CREATE | IO_TRUNC, &b->file), 0);
    co_group_init(&b->group);
    b->submissions = io_stats.submissions;
    for (unsigned i = 0; i < REQUESTS; i++) {
        co_group_add(&b->group);
        co_start(write_entry, b);
    }
    assert_int_equal(co_group_wait(&b->group), 0);
    b->submissions = io_stats.submissions - b->submissions;
    assert_int_equal(b->done, REQUESTS);
    co_io_close(b->file);
}

static void run_batch(struct batch *b, const char *engine, enum loop_clock clock, uint64_t seed)
{
    *b = (struct batch){ .engine = engine };
    loop_init(clock, seed);
    io_init();
    loop_run_co(batch_entry, b);
    io_fini();
    loop_fini();
    unlink(path);
}

static void one_turn_is_one_submission(void **state)
{
    static const char *const engines[] = { "threads", "io_uring" };
    struct batch b;

    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        run_batch(&b, engines[i], LOOP_CLOCK_REAL, 1);
        if (!b.started) {
            print_message("no engine %s here\n", engines[i]);
        } else {
            assert_int_equal(b.submissions, 1);
        }
    }
}

static void one_seed_is_one_order(void **state)
{
    struct batch a, b, c;
    unsigned overtaken = 0;

    run_batch(&a, NULL, LOOP_CLOCK_VIRTUAL, 11);
    run_batch(&b, NULL, LOOP_CLOCK_VIRTUAL, 11);
    run_batch(&c, NULL, LOOP_CLOCK_VIRTUAL, 12);
    assert_memory_equal(a.order, b.order, sizeof(a.order));
    assert_memory_equal(a.when, b.when, sizeof(a.when));
    assert_memory_not_equal(a.order, c.order, sizeof(a.order));
    for (unsigned i = 1; i < REQUESTS; i++) {
        assert_true(a.when[i] >= a.when[i - 1]);
        overtaken += a.order[i] < a.order[i - 1];
    }
    assert_in_range(overtaken, 10, REQUESTS); /* a disk that keeps the order would hide mistakes */
}

/* --- Names ------------------------------------------------------------------------------------ */

static void names_lead_to_engines(void **state)
{
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    assert_string_equal(io_engine_name(io_engine_find("threads")), "threads");
    assert_null(io_engine_find("virtual"));
    assert_null(io_engine_find("native"));
    assert_ptr_equal(io_engine_find(NULL), io_engine_find("io_uring") ? io_engine_find("io_uring")
                                                                     : io_engine_find("threads"));
    io_fini();
    loop_fini();

    /* On the virtual clock every name of a real engine leads to its stand-in. */
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    io_init();
    assert_string_equal(io_engine_name(io_engine_find(NULL)), "virtual");
    assert_ptr_equal(io_engine_find("threads"), io_engine_find(NULL));
    assert_ptr_equal(io_engine_find("io_uring"), io_engine_find(NULL));
    assert_null(io_engine_find("native"));
    io_fini();
    loop_fini();
}

/* --- Without io_uring ------------------------------------------------------------------------- */

static void forbid_io_uring(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        _exit(77);
    }
}

/* In a child: 0 when all is as it should be, 77 when this cannot be tried here. */
static int without_io_uring(int err)
{
    struct batch b;
    bool gone;

    forbid_io_uring(err);
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    gone = !io_engine_find("io_uring") && io_engine_find(NULL) == io_engine_find("threads");
    io_fini();
    loop_fini();
    run_batch(&b, NULL, LOOP_CLOCK_REAL, 1);
    return gone && b.done == REQUESTS ? 0 : 1;
}

static void kernels_without_io_uring_get_threads(void **state)
{
    static const int errors[] = { EPERM, ENOSYS };

    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        int status = -1;
        pid_t pid = fork();

        if (!pid) {
            alarm(60);
            _exit(without_io_uring(errors[i]));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            print_message("no seccomp filters here\n");
            skip();
        }
        assert_int_equal(status, 0);
    }
}

/* --- The pool's two classes ------------------------------------------------------------------- */

struct jam {
    sem_t gate;
    struct co_group group;
    unsigned through;
};

static void wait_at_gate(void *arg)
{
    struct jam *jam = arg;

    while (sem_wait(&jam->gate) && errno == EINTR) {
    }
}

static void CO_ENTRY bulk_entry(void *arg)
{
    struct jam *jam = arg;

    co_io_work(wait_at_gate, jam);
    jam->through++;
    co_group_done(&jam->group, 0);
}

static void CO_ENTRY jam_entry(void *arg)
{
    struct jam *jam = arg;
    struct io_file *file;

    co_group_init(&jam->group);
    for (unsigned i = 0; i < 20; i++) {
        co_group_add(&jam->group);
        co_start(bulk_entry, jam);
    }
    co_sleep_ns(20 * NS_PER_MS); /* they are with the workers now, and wait */
    /* Would stand still for ever if long work had all the workers. */
    assert_int_equal(co_io_open(io_engine_find("threads"), path, IO_RDWR | IO_CREATE, &file), 0);
    assert_int_equal(co_io_write(file, 0, "x", 1), 0);
    assert_int_equal(co_io_flush(file), 0);
    co_io_close(file);
    assert_int_equal(jam->through, 0);
    for (unsigned i = 0; i < 20; i++) {
        sem_post(&jam->gate);
    }
    assert_int_equal(co_group_wait(&jam->group), 0);
    assert_int_equal(jam->through, 20);
}

static void long_work_leaves_workers_for_requests(void **state)
{
    struct jam jam = { 0 };

    alarm(60);
    sem_init(&jam.gate, 0, 0);
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    loop_run_co(jam_entry, &jam);
    io_fini();
    loop_fini();
    sem_destroy(&jam.gate);
    unlink(path);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_turn_is_one_submission),
        cmocka_unit_test(one_seed_is_one_order),
        cmocka_unit_test(names_lead_to_engines),
        cmocka_unit_test(kernels_without_io_uring_get_threads),
        cmocka_unit_test(long_work_leaves_workers_for_requests),
    };
    const char *tmp = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%s/io-engines-%d", tmp ? tmp : "/tmp", getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
