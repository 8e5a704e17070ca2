/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image locks against the real thing: qemu-io is the other process, in both directions, and
 * /proc/locks says which bytes each of us holds.  The image is qcow2: a reader of a raw image does
 * not mind writers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"

#define WRITER (IO_PERM_CONSISTENT_READ | IO_PERM_WRITE | IO_PERM_RESIZE)
#define NO_WRITERS (IO_PERM_CONSISTENT_READ | IO_PERM_WRITE_UNCHANGED)
#define PATIENCE 1000 /* hundredths of a second */

static char dir[256];
static char path[300];

/* --- Looking ---------------------------------------------------------------------------------- */

/* The locked bytes of the file, as "100 101 201 ", each counted once. */
static char *look_once(void)
{
    bool locked[400] = { false };
    char line[300];
    struct stat st;
    char *out = mem_strdup("");
    FILE *f = fopen("/proc/locks", "re");

    assert_non_null(f);
    assert_int_equal(stat(path, &st), 0);
    while (fgets(line, sizeof(line), f)) {
        unsigned long inode;
        unsigned first, last;
        char kind[20];

        if (sscanf(line, "%*s %19s %*s %*s %*s %*x:%*x:%lu %u %u", kind, &inode, &first,
                   &last) == 4 &&
            inode == st.st_ino && !strcmp(kind, "OFDLCK")) {
            assert_in_range(last, first, 399);
            for (; first <= last; first++) {
                locked[first] = true;
            }
        }
    }
    fclose(f);
    for (unsigned i = 0; i < 400; i++) {
        if (locked[i]) {
            char *longer = mem_printf("%s%u ", out, i);

            free(out);
            out = longer;
        }
    }
    return out;
}

/* The kernel hands the list over a page at a time, and locks of others come and go in between. */
static char *locked_bytes(void)
{
    char *before = look_once(), *now = look_once();

    while (strcmp(before, now) != 0) {
        free(before);
        before = now;
        now = look_once();
    }
    free(before);
    return now;
}

static void expect_locked(const char *bytes)
{
    AUTOFREE char *now = locked_bytes();

    assert_string_equal(now, bytes);
}

/* --- The other process ------------------------------------------------------------------------ */

/* Run to its end; returns what it printed. */
static char *run_qemu(const char *command)
{
    AUTOFREE char *line = mem_printf("timeout 30 %s '%s' 2>&1 </dev/null", command, path);
    char *text = mem_zalloc(4096);
    FILE *p = popen(line, "re");

    assert_non_null(p);
    assert_in_range(fread(text, 1, 4095, p), 0, 4095);
    pclose(p);
    return text;
}

static void expect_says(const char *command, const char *words)
{
    AUTOFREE char *text = run_qemu(command);

    if (!strstr(text, words)) {
        fail_msg("%s: not \"%s\" but: %s", command, words, text);
    }
}

static void expect_works(const char *command)
{
    AUTOFREE char *text = run_qemu(command);

    if (strstr(text, "\" lock")) {
        fail_msg("%s: %s", command, text);
    }
}

/* A qemu-io that has the file open until end_holder(). */
static FILE *start_holder(const char *options)
{
    AUTOFREE char *line = mem_printf("timeout 60 stdbuf -oL qemu-io %s '%s' >'%s/said' 2>&1", options, path, dir);
    AUTOFREE char *said = mem_printf("grep -qs 'read 512/512' '%s/said'", dir);
    FILE *p = popen(line, "we");
    unsigned i = 0;

    assert_non_null(p);
    /* Its marks come one by one, and some are for opening only: all is settled when it carries a command out. */
    fputs("read 0 512\n", p);
    fflush(p);
    while (system(said) != 0 && i++ < PATIENCE) {
        usleep(10000);
    }
    assert_in_range(i, 0, PATIENCE - 1);
    return p;
}

static void end_holder(FILE *p)
{
    AUTOFREE char *said = mem_printf("%s/said", dir);

    fputs("quit\n", p);
    pclose(p);
    unlink(said);
    expect_locked("");
}

/* --- Tests ------------------------------------------------------------------------------------ */

static struct io_file *co_open_rw(void)
{
    struct io_file *file = NULL;

    assert_int_equal(co_io_open(NULL, path, IO_RDWR, &file), 0);
    return file;
}

static int lock(struct io_file *file, unsigned used, unsigned shared)
{
    unsigned bad = 0;
    bool bad_shared = false;

    return io_file_lock(file, used, shared, &bad, &bad_shared);
}

static void expect_refused(struct io_file *file, unsigned used, unsigned shared, unsigned want_bad,
                           bool want_shared)
{
    AUTOFREE char *before = locked_bytes();
    unsigned bad = 0;
    bool bad_shared = !want_shared;

    assert_int_equal(io_file_lock(file, used, shared, &bad, &bad_shared), -EAGAIN);
    assert_int_equal(bad, want_bad);
    assert_int_equal(bad_shared, want_shared);
    expect_locked(before);
}

static void co_our_writer_keeps_qemu_out(void)
{
    struct io_file *file = co_open_rw();

    assert_int_equal(lock(file, WRITER, NO_WRITERS), 0);
    expect_says("qemu-io -c 'write 0 512'", "Failed to get \"write\" lock");
    expect_says("qemu-io -r -c 'read 0 512'", "Failed to get shared \"write\" lock");
    expect_says("qemu-img info", "Failed to get shared \"write\" lock");
    expect_works("qemu-img info -U");
    co_io_close(file);
    expect_locked("");
    expect_works("qemu-io -c 'write 0 512'");
}

static void co_our_reader_shares_with_readers_only(void)
{
    struct io_file *file = co_open_rw();

    assert_int_equal(lock(file, IO_PERM_CONSISTENT_READ, NO_WRITERS), 0);
    expect_works("qemu-io -r -c 'read 0 512'");
    expect_works("qemu-img info");
    expect_says("qemu-io -c 'write 0 512'", "Failed to get \"write\" lock");
    assert_int_equal(lock(file, 0, IO_PERM_ALL), 0);
    expect_locked("");
    expect_works("qemu-io -c 'write 0 512'");
    co_io_close(file);
}

static void co_qemus_writer_keeps_us_out(void)
{
    struct io_file *file = co_open_rw();
    FILE *holder = start_holder("");

    expect_refused(file, WRITER, NO_WRITERS, IO_PERM_WRITE, false);
    expect_refused(file, IO_PERM_CONSISTENT_READ, NO_WRITERS, IO_PERM_WRITE, true);
    assert_int_equal(lock(file, 0, IO_PERM_ALL), 0);
    assert_int_equal(lock(file, IO_PERM_CONSISTENT_READ, IO_PERM_ALL), 0);
    assert_int_equal(lock(file, 0, IO_PERM_ALL), 0);
    end_holder(holder);
    assert_int_equal(lock(file, WRITER, NO_WRITERS), 0);
    co_io_close(file);
}

static void co_qemus_reader_lets_us_read(void)
{
    struct io_file *file = co_open_rw();
    FILE *holder = start_holder("-r");

    assert_int_equal(lock(file, IO_PERM_CONSISTENT_READ, NO_WRITERS), 0);
    expect_refused(file, WRITER, NO_WRITERS, IO_PERM_WRITE, false);
    /* Still a reader, and seen as one. */
    expect_says("qemu-io -c 'write 0 512'", "Failed to get \"write\" lock");
    assert_int_equal(lock(file, 0, IO_PERM_ALL), 0);
    end_holder(holder);
    co_io_close(file);
}

/* Byte for byte: a writer of ours leaves the marks that a writer of QEMU's leaves. */
static void co_marks_are_the_same(void)
{
    struct io_file *file = co_open_rw();
    FILE *holder = start_holder("");
    AUTOFREE char *theirs = locked_bytes();

    end_holder(holder);
    assert_int_equal(lock(file, WRITER, NO_WRITERS), 0);
    expect_locked(theirs);
    assert_int_equal(lock(file, IO_PERM_ALL, 0), 0);
    expect_locked("100 101 102 103 200 201 202 203 ");
    assert_int_equal(lock(file, IO_PERM_WRITE_UNCHANGED, IO_PERM_ALL & ~IO_PERM_RESIZE), 0);
    expect_locked("102 203 ");
    co_io_close(file);
    expect_locked("");
}

static void co_two_handles_here_are_two_users(void)
{
    struct io_file *a = co_open_rw(), *b = co_open_rw(), *c = co_open_rw();

    assert_int_equal(lock(a, WRITER, NO_WRITERS), 0);
    expect_refused(b, WRITER, NO_WRITERS, IO_PERM_WRITE, false);
    expect_refused(b, IO_PERM_CONSISTENT_READ, NO_WRITERS, IO_PERM_WRITE, true);
    co_io_close(c); /* somebody's close takes nobody's locks */
    expect_refused(b, WRITER, NO_WRITERS, IO_PERM_WRITE, false);
    /* A failed change of locks keeps the old ones. */
    assert_int_equal(lock(b, 0, IO_PERM_ALL), 0);
    assert_int_equal(lock(a, IO_PERM_CONSISTENT_READ, IO_PERM_ALL), 0);
    assert_int_equal(lock(b, IO_PERM_CONSISTENT_READ, NO_WRITERS), 0);
    expect_refused(a, WRITER, NO_WRITERS, IO_PERM_WRITE, false);
    expect_locked("100 201 203 ");
    co_io_close(b);
    assert_int_equal(lock(a, WRITER, NO_WRITERS), 0);
    co_io_close(a);
}

/* Between read-only and read-write the locks are never away: the other process is looked for
 * before, while, after. */
static void co_reopening_keeps_qemu_out(void)
{
    struct io_file *file = co_open_rw();

    assert_int_equal(lock(file, WRITER, NO_WRITERS), 0);
    AUTOFREE char *before = locked_bytes();

    assert_int_equal(co_io_reopen(file, IO_READ_ONLY), 0);
    expect_locked(before);
    expect_says("qemu-io -c 'write 0 512'", "Failed to get \"write\" lock");
    assert_int_equal(co_io_reopen(file, IO_RDWR), 0);
    expect_locked(before);
    expect_says("qemu-io -c 'write 0 512'", "Failed to get \"write\" lock");
    assert_int_equal(lock(file, 0, IO_PERM_ALL), 0);
    expect_locked("");
    co_io_close(file);
}

/* --- Running ---------------------------------------------------------------------------------- */

struct test {
    void (*co_run)(void);
};

static void CO_ENTRY test_entry(void *arg)
{
    struct test *test = arg;

    test->co_run();
}

static void run(void **state)
{
    if (system("qemu-io --version >/dev/null 2>&1")) {
        print_message("no qemu-io here\n");
        skip();
    }
    loop_init(LOOP_CLOCK_REAL, 1);
    io_init();
    loop_run_co(test_entry, *state);
    io_fini();
    loop_fini();
}

static int make_file(void **state)
{
    const char *tmp = getenv("TMPDIR");
    AUTOFREE char *command = NULL;

    snprintf(dir, sizeof(dir), "%s/io-lock-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/image.qcow2", dir);
    command = mem_printf("qemu-img create -q -f qcow2 '%s' 1M || touch '%s'", path, path);
    return system(command);
}

static int remove_file(void **state)
{
    return unlink(path) || rmdir(dir);
}

#define TEST(name) { #name + 3, run, make_file, remove_file, &(struct test){ name } }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(co_our_writer_keeps_qemu_out),
        TEST(co_our_reader_shares_with_readers_only),
        TEST(co_qemus_writer_keeps_us_out),
        TEST(co_qemus_reader_lets_us_read),
        TEST(co_marks_are_the_same),
        TEST(co_two_handles_here_are_two_users),
        TEST(co_reopening_keeps_qemu_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
