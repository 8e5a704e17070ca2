/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls inside of the sandbox: a list of those that the program and its libraries need, a few
 * with conditions, as a program for the kernel's filter (seccomp, classic BPF).
 *
 *     wrong architecture   the process ends
 *     on the list          allowed (the kernel remembers that without running the filter again)
 *     with a condition     allowed where the arguments are right, else EPERM
 *     a way out            EPERM
 *     any other            ENOSYS: libc takes the way that it takes on older kernels
 */
#include "core/sandbox-calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/mem.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#define X32_BIT 0x40000000u /* another numbering of the same calls */
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

static const int allowed[] = {
    /* descriptors */
    SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_write, SYS_writev, SYS_pwrite64,
    SYS_pwritev, SYS_pwritev2, SYS_close, SYS_close_range, SYS_lseek, SYS_fstat, SYS_fcntl,
    SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_copy_file_range, SYS_fadvise64,
    SYS_dup, SYS_dup3, SYS_ioctl, SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_pipe2, SYS_signalfd4, SYS_io_uring_enter,
    /* names; which ones is Landlock's business */
    SYS_openat, SYS_newfstatat, SYS_statx, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_mkdirat,
    SYS_readlinkat, SYS_faccessat, SYS_faccessat2, SYS_fchmod, SYS_fchmodat, SYS_getdents64,
    SYS_getcwd, SYS_chdir, SYS_fstatfs, SYS_umask,
    /* sockets that are there, and unix ones that listen */
    SYS_accept, SYS_accept4, SYS_bind, SYS_listen, SYS_shutdown, SYS_sendto, SYS_sendmsg,
    SYS_recvfrom, SYS_recvmsg, SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_getpeername,
    /* memory, threads */
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_futex, SYS_set_robust_list, SYS_rseq,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getscheduler, SYS_sched_setscheduler,
    SYS_sched_get_priority_min, SYS_sched_getattr, SYS_sched_setattr, SYS_membarrier, SYS_gettid,
    SYS_getpid, SYS_getppid, SYS_getpgid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_exit, SYS_exit_group,
    SYS_set_tid_address, SYS_uname, SYS_sysinfo, SYS_getrlimit,
    /* signals, time, chance */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait,
    SYS_sigaltstack, SYS_restart_syscall, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep,
    SYS_nanosleep, SYS_gettimeofday, SYS_getrandom,
#ifdef __x86_64__ /* which still has the old forms */
    SYS_open, SYS_stat, SYS_lstat, SYS_poll, SYS_select, SYS_epoll_wait, SYS_access, SYS_unlink,
    SYS_rename, SYS_mkdir, SYS_rmdir, SYS_readlink, SYS_chmod, SYS_dup2, SYS_time, SYS_getpgrp,
#endif
};

/* What must not seem to be missing: libc would look for another way. */
static const int ways_out[] = {
    SYS_execve, SYS_execveat, SYS_connect, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev,
#ifdef __x86_64__
    SYS_fork, SYS_vfork,
#endif
};

/* --- The filter ------------------------------------------------------------------------------- */

struct filter {
    struct sock_filter code[512];
    unsigned short len;
};

static void emit(struct filter *f, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    f->code[f->len++] = (struct sock_filter){ .code = code, .jt = yes, .jf = no, .k = k };
}

static void load(struct filter *f, size_t offset)
{
    emit(f, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void answer(struct filter *f, uint32_t action)
{
    emit(f, BPF_RET | BPF_K, action, 0, 0);
}

static void on_call(struct filter *f, int number, uint32_t action)
{
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    answer(f, action);
}

/* A call whose argument `index`, of which only `mask` counts, has to be `wanted`. */
static void on_argument(struct filter *f, int number, unsigned index, uint32_t mask,
                        uint32_t wanted)
{
    /* the lower half: all machines above are little-endian */
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, number, 0, 5);
    load(f, offsetof(struct seccomp_data, args[0]) + index * sizeof(uint64_t));
    emit(f, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, wanted, 0, 1);
    answer(f, SECCOMP_RET_ALLOW);
    answer(f, SECCOMP_RET_ERRNO | EPERM);
}

/* Two arguments of one call; the number has to be looked at again for the second. */
static void refuse_argument(struct filter *f, int number, unsigned index, uint32_t mask,
                            uint32_t wanted)
{
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, number, 0, 5);
    load(f, offsetof(struct seccomp_data, args[0]) + index * sizeof(uint64_t));
    emit(f, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, wanted, 1, 0);
    answer(f, SECCOMP_RET_ERRNO | EPERM);
    load(f, offsetof(struct seccomp_data, nr));
}

static void conditions(struct filter *f)
{
    refuse_argument(f, SYS_socket, 0, UINT32_MAX, AF_UNIX);
    on_argument(f, SYS_socket, 1, ~(uint32_t)(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_STREAM);
    on_argument(f, SYS_mmap, 2, PROT_EXEC, 0);
    on_argument(f, SYS_mprotect, 2, PROT_EXEC, 0);
    on_argument(f, SYS_clone, 0, CLONE_THREAD, CLONE_THREAD);
    on_argument(f, SYS_kill, 0, UINT32_MAX, getpid()); /* readline passes signals on */
    on_argument(f, SYS_tgkill, 0, UINT32_MAX, getpid());
    on_argument(f, SYS_prctl, 0, UINT32_MAX, PR_SET_NAME);
    on_argument(f, SYS_prlimit64, 2, UINT32_MAX, 0); /* asking, not setting */
}

#ifdef OUR_ARCH
static void build(struct filter *f)
{
    load(f, offsetof(struct seccomp_data, arch));
    emit(f, BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
    answer(f, SECCOMP_RET_KILL_PROCESS);
    load(f, offsetof(struct seccomp_data, nr));
#ifdef X32_BIT
    emit(f, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    answer(f, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
        on_call(f, allowed[i], SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < ARRAY_SIZE(ways_out); i++) {
        on_call(f, ways_out[i], SECCOMP_RET_ERRNO | EPERM);
    }
    conditions(f);
    answer(f, SECCOMP_RET_ERRNO | ENOSYS);
}

int sandbox_restrict_calls(void)
{
    struct filter f = { .len = 0 };
    struct sock_fprog program = { .filter = f.code };

    build(&f);
    program.len = f.len;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
#else
int sandbox_restrict_calls(void)
{
    (void)conditions; /* the numbers and their halves are known for the machines above only */
    return -ENOTSUP;
}
#endif

int sandbox_no_new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}
