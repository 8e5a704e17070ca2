/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stackful coroutines: see co.h for the contract.
 *
 * A coroutine is one mapping: a guard page, the stack, and the struct at its very top.
 *
 *     low                                                     high
 *     | guard page |  <- stack grows down ... | struct co |
 *
 * Control is nested, not free: whoever runs a coroutine (the loop, or another coroutine through
 * co_start()) is its `caller`, and a coroutine that suspends always goes back to its caller.  Only
 * the loop resumes, so after the first suspend the caller is the loop.
 *
 * A switch is a dozen instructions of our own on x86-64 and AArch64 (callee-saved registers and the
 * stack pointer; the floating-point control words are never changed in this program); elsewhere it
 * is swapcontext(), which is right but pays two system calls for the signal mask.
 */
#include "core/co.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/mem.h"

#if !defined(CO_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CO_UCONTEXT 1
#endif
#ifdef CO_UCONTEXT
#include <ucontext.h>
#endif

/* gcc says it by a macro, clang by a feature. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (1024 * 1024) /* instrumented frames are several times larger */
#else
#define STACK_SIZE (256 * 1024)
#endif

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

/* Stacks that stay in the pool whatever happens, and how many coroutine ends make up the period
 * over which the high-water mark is taken. */
#define POOL_MIN 16
#define POOL_PERIOD 256

enum co_state { CO_SUSPENDED, CO_READY, CO_RUNNING, CO_DONE };

struct co {
#ifdef CO_UCONTEXT
    ucontext_t context;
#else
    void *sp; /* saved registers lie on the stack; valid while the coroutine does not run */
#endif
    enum co_state state;
    co_entry *entry;
    const char *name; /* of the entry, for `info loop` */
    void *arg;
    struct co *caller; /* who continues when this one suspends; NULL while suspended */
    struct loop_task task;
    void *stack; /* lowest usable byte; for the loop's own stack known to the sanitizer only */
    size_t stack_size;
    unsigned valgrind_id;
    SLIST_ENTRY(co) pool_link;
};

static struct co loop_co = { .state = CO_RUNNING }; /* the loop's own stack */
static struct co *current = &loop_co;

static SLIST_HEAD(, co) pool = SLIST_HEAD_INITIALIZER(pool);
static size_t pool_size;
static size_t alive;
static size_t high_water;      /* most alive at once in the previous period */
static size_t period_water;    /* the same, in this period so far */
static unsigned period_ends;

/* --- Switching -------------------------------------------------------------------------------- */

static void co_main(struct co *co) __attribute__((noreturn));

#ifdef CO_UCONTEXT

static void context_entry(unsigned high, unsigned low)
{
    co_main((struct co *)(uintptr_t)((uint64_t)high << 32 | low));
}

static void context_make(struct co *co)
{
    uint64_t bits = (uintptr_t)co;

    getcontext(&co->context);
    co->context.uc_stack.ss_sp = co->stack;
    co->context.uc_stack.ss_size = co->stack_size;
    co->context.uc_link = NULL;
    makecontext(&co->context, (void (*)(void))context_entry, 2, (unsigned)(bits >> 32),
                (unsigned)bits);
}

static void context_switch(struct co *from, struct co *to)
{
    swapcontext(&from->context, &to->context);
}

#else

/* Save the callee-saved registers on the stack, exchange stack pointers, restore.  co_asm_entry is
 * where a new coroutine's first "return" leads; the fake frame put its struct co in a saved
 * register. Undefined return address: debuggers end their backtraces there. */
void co_asm_switch(void **save_sp, void *load_sp) __attribute__((visibility("hidden")));
void co_asm_entry(void) __attribute__((visibility("hidden")));
void co_asm_main(struct co *co) __attribute__((visibility("hidden"), noreturn, used));

#ifdef __x86_64__
asm(".text\n"
    ".p2align 4\n"
    ".globl co_asm_switch\n"
    ".hidden co_asm_switch\n"
    ".type co_asm_switch, @function\n"
    "co_asm_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size co_asm_switch, . - co_asm_switch\n"
    ".globl co_asm_entry\n"
    ".hidden co_asm_entry\n"
    ".type co_asm_entry, @function\n"
    "co_asm_entry:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined rip\n"
    "    movq %rbx, %rdi\n"
    "    call co_asm_main\n"
    "    ud2\n"
    "    .cfi_endproc\n"
    ".size co_asm_entry, . - co_asm_entry\n");

/* r15 r14 r13 r12 rbx rbp, return address; two more keep the alignment of 16. */
#define FRAME_WORDS 9
#define FRAME_CO 4
#define FRAME_RETURN 6
#else
asm(".text\n"
    ".p2align 4\n"
    ".globl co_asm_switch\n"
    ".hidden co_asm_switch\n"
    ".type co_asm_switch, %function\n"
    "co_asm_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n"
    "    stp x21, x22, [sp, #16]\n"
    "    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n"
    "    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n"
    "    ldp x21, x22, [sp, #16]\n"
    "    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n"
    "    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".size co_asm_switch, . - co_asm_switch\n"
    ".globl co_asm_entry\n"
    ".hidden co_asm_entry\n"
    ".type co_asm_entry, %function\n"
    "co_asm_entry:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined x30\n"
    "    mov x0, x19\n"
    "    bl co_asm_main\n"
    "    brk #0\n"
    "    .cfi_endproc\n"
    ".size co_asm_entry, . - co_asm_entry\n");

#define FRAME_WORDS 20 /* x19 ... x28 x29 x30 d8 ... d15 */
#define FRAME_CO 0
#define FRAME_RETURN 11
#endif

void co_asm_main(struct co *co)
{
    co_main(co);
}

static void context_make(struct co *co)
{
    uintptr_t top = ((uintptr_t)co->stack + co->stack_size) & ~(uintptr_t)15;
    uintptr_t *frame = (uintptr_t *)top - FRAME_WORDS;

    for (unsigned i = 0; i < FRAME_WORDS; i++) {
        frame[i] = 0;
    }
    frame[FRAME_CO] = (uintptr_t)co;
    frame[FRAME_RETURN] = (uintptr_t)co_asm_entry;
    co->sp = frame;
}

static void context_switch(struct co *from, struct co *to)
{
    co_asm_switch(&from->sp, to->sp);
}

#endif

/* Go from the running context to another one; returns when somebody comes back. */
static void switch_to(struct co *to)
{
    struct co *from = current;

    current = to;
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack = NULL;

    /* A coroutine that ends passes NULL: its fake stack is freed. */
    __sanitizer_start_switch_fiber(from->state == CO_DONE ? NULL : &fake_stack, to->stack,
                                   to->stack_size);
    context_switch(from, to);
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#else
    context_switch(from, to);
#endif
}

/* --- Stacks ----------------------------------------------------------------------------------- */

static struct co *co_map(void)
{
    size_t page = sysconf(_SC_PAGESIZE);
    char *base = mem_pages(page + STACK_SIZE);

    if (mprotect(base, page, PROT_NONE)) {
        mem_exhausted(page); /* the kernel counts mappings, too */
    }
    struct co *co = (struct co *)(base + page + STACK_SIZE) - 1;

    co->stack = base + page;
    co->stack_size = (char *)co - (base + page);
    co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack, co);
    return co;
}

static void co_unmap(struct co *co)
{
    size_t page = sysconf(_SC_PAGESIZE);

    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(co->stack, co->stack_size); /* something else will lie there */
#endif
    munmap((char *)co->stack - page, page + STACK_SIZE);
}

static struct co *co_new(co_entry *entry, void *arg, const char *name)
{
    struct co *co = SLIST_FIRST(&pool);

    if (co) {
        SLIST_REMOVE_HEAD(&pool, pool_link);
        pool_size--;
    } else {
        co = co_map();
    }
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(co->stack, co->stack_size);
#endif
    co->entry = entry;
    co->name = name;
    co->arg = arg;
    co->caller = NULL;
    co->task.queued = false;
    co->state = CO_SUSPENDED;
    context_make(co);
    alive++;
    period_water = MAX(period_water, alive);
    return co;
}

/* The pool covers the peaks of the last period, so that a steady load never maps or unmaps; a load
 * that went away is forgotten within two periods. */
static void co_free(struct co *co)
{
    alive--;
    if (++period_ends >= POOL_PERIOD) {
        high_water = period_water;
        period_water = alive;
        period_ends = 0;
    }
    SLIST_INSERT_HEAD(&pool, co, pool_link);
    pool_size++;

    size_t water = MAX(high_water, period_water);

    while (pool_size > POOL_MIN && pool_size + alive > water) {
        struct co *extra = SLIST_FIRST(&pool);

        SLIST_REMOVE_HEAD(&pool, pool_link);
        pool_size--;
        co_unmap(extra);
    }
}

void co_pool_drain(void)
{
    while (!SLIST_EMPTY(&pool)) {
        struct co *co = SLIST_FIRST(&pool);

        SLIST_REMOVE_HEAD(&pool, pool_link);
        pool_size--;
        co_unmap(co);
    }
}

size_t co_count(void)
{
    return alive;
}

/* --- Life ------------------------------------------------------------------------------------- */

/* The bottom frame of every coroutine. */
static void co_main(struct co *co)
{
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t size;

    __sanitizer_finish_switch_fiber(NULL, &stack, &size);
    if (co->caller == &loop_co) {
        loop_co.stack = (void *)stack;
        loop_co.stack_size = size;
    }
#endif
    co->entry(co->arg);
    co->state = CO_DONE;
    switch_to(co->caller);
    abort(); /* nobody resumes the dead */
}

/* Run `co` until it suspends or ends, then be back here. */
static void co_enter(struct co *co)
{
    assert(co->state == CO_SUSPENDED && !co->caller);
    co->state = CO_RUNNING;
    co->caller = current;
    switch_to(co);
    co->caller = NULL;
    if (co->state == CO_DONE) {
        co_free(co);
    }
}

static void co_resume(void *arg)
{
    struct co *co = arg;

    assert(co->state == CO_READY);
    co->state = CO_SUSPENDED;
    co_enter(co);
}

void co_start_named(co_entry *entry, void *arg, const char *name)
{
    co_enter(co_new(entry, arg, name));
}

void co_start_later_named(co_entry *entry, void *arg, const char *name)
{
    co_wake(co_new(entry, arg, name));
}

struct co *co_self(void)
{
    return current == &loop_co ? NULL : current;
}

void co_suspend(void)
{
    assert(current != &loop_co);
    current->state = CO_SUSPENDED;
    switch_to(current->caller);
}

void co_wake(struct co *co)
{
    assert(co->state == CO_SUSPENDED);
    co->state = CO_READY;
    loop_defer_named(&co->task, co_resume, co, co->name);
}

void co_yield(void)
{
    assert(current != &loop_co);
    current->state = CO_SUSPENDED;
    co_wake(current);
    switch_to(current->caller);
}

void co_take_turns(void)
{
    if (loop_held_ns() > NS_PER_MS) {
        co_yield();
    }
}

static void sleep_over(void *arg)
{
    co_wake(arg);
}

void co_sleep_ns(uint64_t ns)
{
    struct loop_timer timer;
    uint64_t now = loop_now();

    loop_timer_init(&timer, sleep_over, co_self());
    loop_timer_arm(&timer, ns > UINT64_MAX - now ? UINT64_MAX : now + ns);
    co_suspend();
}

/* --- Queue, mutex, group ---------------------------------------------------------------------- */

struct co_waiter {
    TAILQ_ENTRY(co_waiter) link;
    struct co *co;
};

void co_queue_init(struct co_queue *q)
{
    TAILQ_INIT(&q->waiters);
}

void co_queue_wait(struct co_queue *q)
{
    struct co_waiter waiter = { .co = co_self() };

    TAILQ_INSERT_TAIL(&q->waiters, &waiter, link);
    co_suspend();
}

static struct co *queue_take(struct co_queue *q)
{
    struct co_waiter *waiter = TAILQ_FIRST(&q->waiters);

    if (!waiter) {
        return NULL;
    }
    TAILQ_REMOVE(&q->waiters, waiter, link);
    return waiter->co;
}

bool co_queue_wake_one(struct co_queue *q)
{
    struct co *co = queue_take(q);

    if (co) {
        co_wake(co);
    }
    return co;
}

void co_queue_wake_all(struct co_queue *q)
{
    while (co_queue_wake_one(q)) {
    }
}

bool co_queue_empty(const struct co_queue *q)
{
    return TAILQ_EMPTY(&q->waiters);
}

void co_mutex_init(struct co_mutex *m)
{
    m->holder = NULL;
    co_queue_init(&m->queue);
}

void co_mutex_lock(struct co_mutex *m)
{
    assert(co_self() && m->holder != co_self());
    if (!m->holder) {
        m->holder = co_self();
        return;
    }
    co_queue_wait(&m->queue);
    assert(m->holder == co_self());
}

void co_mutex_unlock(struct co_mutex *m)
{
    assert(co_self() && m->holder == co_self());
    m->holder = queue_take(&m->queue);
    if (m->holder) {
        co_wake(m->holder);
    }
}

void co_group_init(struct co_group *g)
{
    *g = (struct co_group){ 0 };
}

void co_group_add(struct co_group *g)
{
    g->running++;
}

void co_group_done(struct co_group *g, int ret)
{
    assert(g->running);
    if (ret < 0 && !g->error) {
        g->error = ret;
    }
    if (!--g->running && g->waiter) {
        struct co *waiter = g->waiter;

        g->waiter = NULL;
        co_wake(waiter);
    }
}

int co_group_wait(struct co_group *g)
{
    assert(!g->waiter);
    while (g->running) {
        g->waiter = co_self();
        co_suspend();
    }
    return g->error;
}
