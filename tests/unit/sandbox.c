/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox from inside: each test is a child that enters and tries the doors.  The child's exit
 * code is the number of the attempt that went wrong, so a door that stands open has a name.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/sandbox.h"

static char top[] = "/tmp/merganser-sandbox-XXXXXX";

static char *at(const char *name)
{
    static char path[2][128];
    static unsigned turn;

    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", top, name);
    return path[turn];
}

static void touch(const char *name)
{
    close(open(at(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}

static int make_tree(void **state)
{
    assert_non_null(mkdtemp(top));
    mkdir(at("images"), 0700);
    mkdir(at("bases"), 0700);
    touch("images/named");
    touch("bases/base");
    touch("bases/foreign");
    touch("script");
    return 0;
}

static int remove_tree(void **state)
{
    AUTOFREE char *command = mem_printf("rm -rf %s", top);

    return system(command);
}

/* Fails with this error. */
#define REFUSED(call, error) (errno = 0, (long)(call) == -1 && errno == (error))

static void enter(bool landlock)
{
    struct sandbox *s = sandbox_new();
    struct error err = ERROR_INIT;

    sandbox_allow(s, at("images/named"), SANDBOX_NEIGHBOURS);
    sandbox_allow(s, at("bases/base"), SANDBOX_IMAGE);
    sandbox_allow(s, at("script"), SANDBOX_READ);
    sandbox_allow(s, at("is not there"), SANDBOX_READ);
    if (sandbox_enter(s, landlock, &err) < 0) {
        _exit(100);
    }
}

/* 0, or the number of what went wrong. */
static void in_child(int (*attempts)(void), bool landlock)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        enter(landlock);
        _exit(attempts());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int try_processes(void)
{
    char *words[] = { "true", NULL };

    if (!REFUSED(execv("/bin/true", words), EPERM)) {
        return 1;
    }
    if (!REFUSED(fork(), EPERM)) {
        return 2;
    }
    if (!REFUSED(vfork(), EPERM)) {
        return 3;
    }
    if (!REFUSED(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM)) {
        return 4;
    }
    if (!REFUSED(kill(getppid(), 0), EPERM)) {
        return 5;
    }
    return system("true") == 0 ? 6 : 0;
}

static void no_program_is_run_and_no_process_made(void **state)
{
    in_child(try_processes, false);
}

static int try_sockets(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "/tmp/nobody" };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return 1;
    }
    if (!REFUSED(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), EPERM)) {
        return 2;
    }
    if (!REFUSED(socket(AF_INET, SOCK_STREAM, 0), EPERM)) {
        return 3;
    }
    if (!REFUSED(socket(AF_INET6, SOCK_DGRAM, 0), EPERM)) {
        return 4;
    }
    if (!REFUSED(socket(AF_UNIX, SOCK_DGRAM, 0), EPERM)) {
        return 5;
    }
    return REFUSED(socket(AF_NETLINK, SOCK_RAW, 0), EPERM) ? 0 : 6;
}

static void nothing_is_connected_to(void **state)
{
    in_child(try_sockets, false);
}

static int try_kernel(void)
{
    struct io_uring_params params = { 0 };
    struct rlimit limit = { 1, 1 };

    if (!REFUSED(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EPERM)) {
        return 1;
    }
    if (!REFUSED(syscall(SYS_io_uring_setup, 1, &params), ENOSYS)) {
        return 2;
    }
    if (!REFUSED(syscall(SYS_mount, "a", "b", "c", 0, NULL), ENOSYS)) {
        return 3;
    }
    if (!REFUSED(syscall(SYS_bpf, 0, NULL, 0), ENOSYS)) {
        return 4;
    }
    if (!REFUSED(setrlimit(RLIMIT_NOFILE, &limit), EPERM)) {
        return 5;
    }
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : 6;
}

static void the_kernels_other_doors_are_shut(void **state)
{
    in_child(try_kernel, false);
}

static void *make_file(void *arg)
{
    intptr_t fd = open(arg, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return (void *)(fd >= 0 ? (intptr_t)0 : (intptr_t)errno);
}

static int try_threads(void)
{
    pthread_t thread;
    void *result;

    if (pthread_create(&thread, NULL, make_file, at("images/by-thread")) ||
        pthread_join(thread, &result) || result) {
        return 1;
    }
    if (!sandbox_has_landlock()) {
        return 0;
    }
    if (pthread_create(&thread, NULL, make_file, at("bases/by-thread")) ||
        pthread_join(thread, &result)) {
        return 2;
    }
    return result == (void *)(intptr_t)EACCES ? 0 : 3;
}

static void threads_are_started_and_are_inside(void **state)
{
    in_child(try_threads, sandbox_has_landlock());
}

static bool opens(const char *name, int flags)
{
    int fd = open(at(name), flags | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static int try_files(void)
{
    if (!opens("images/named", O_RDWR) || !opens("images/new", O_RDWR | O_CREAT | O_EXCL) ||
        !opens("images", O_RDONLY | O_DIRECTORY) || unlink(at("images/new")) < 0) {
        return 1;
    }
    if (!opens("bases/base", O_RDWR | O_TRUNC)) {
        return 2;
    }
    if (opens("bases/foreign", O_RDONLY) || opens("bases/foreign", O_RDWR)) {
        return 3;
    }
    if (!REFUSED(open(at("bases/new"), O_RDWR | O_CREAT, 0600), EACCES) ||
        !REFUSED(unlink(at("bases/base")), EACCES)) {
        return 4;
    }
    if (!opens("script", O_RDONLY) || opens("script", O_WRONLY)) {
        return 5;
    }
    if (open("/etc/passwd", O_RDONLY) >= 0 || open("/proc/self/mem", O_RDWR) >= 0) {
        return 6;
    }
    return REFUSED(symlink("/etc", at("images/link")), ENOSYS) ? 0 : 7;
}

static void only_named_files_can_be_opened(void **state)
{
    if (!sandbox_has_landlock()) {
        skip();
    }
    in_child(try_files, true);
}

static int try_words(void)
{
    struct error err = ERROR_INIT;
    AUTOFREE char *hint = mem_printf("The sandbox is on: new files can be made in '%s' only.",
                                     at("images"));

    error_set(&err, "no such device");
    sandbox_explain(&err);
    if (err.hint) {
        return 1;
    }
    error_clear(&err);
    error_set_errno(&err, EACCES, "Could not create 'x'");
    sandbox_explain(&err);
    return err.hint && !strcmp(err.hint, hint) ? 0 : 2;
}

static void an_error_says_that_it_was_the_sandbox(void **state)
{
    struct error err = ERROR_INIT;

    error_set_errno(&err, EACCES, "Could not create 'x'");
    sandbox_explain(&err); /* outside */
    assert_null(err.hint);
    error_clear(&err);
    if (!sandbox_has_landlock()) {
        skip();
    }
    in_child(try_words, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_program_is_run_and_no_process_made),
        cmocka_unit_test(nothing_is_connected_to),
        cmocka_unit_test(the_kernels_other_doors_are_shut),
        cmocka_unit_test(threads_are_started_and_are_inside),
        cmocka_unit_test(only_named_files_can_be_opened),
        cmocka_unit_test(an_error_says_that_it_was_the_sandbox),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
