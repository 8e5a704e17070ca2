/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much memory is held: every allocation of the program and its libraries is counted.  With the address sanitizer its
 * hooks tell; otherwise we stand in for malloc() in front of the C library's.  Coroutines' stacks are not counted.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "tests/fuzz/lib/fuzz.h"

static size_t held, most;

size_t fuzz_memory_held(void)
{
    return held;
}

size_t fuzz_memory_most(void)
{
    return most;
}

void fuzz_memory_mark(void)
{
    most = held;
}

static void count(size_t more)
{
    size_t now = __atomic_add_fetch(&held, more, __ATOMIC_RELAXED);

    if (now > most) {
        most = now;
    }
}

static void discount(size_t less)
{
    __atomic_sub_fetch(&held, less, __ATOMIC_RELAXED);
}

#ifdef FUZZ_SANITIZED
/* gcc does not install the header. */
int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *ptr, size_t size),
                                              void (*freed)(const volatile void *ptr));
size_t __sanitizer_get_allocated_size(const volatile void *ptr);

static void allocated(const volatile void *ptr, size_t size)
{
    count(size);
}

static void freed(const volatile void *ptr)
{
    discount(ptr ? __sanitizer_get_allocated_size(ptr) : 0);
}

static __attribute__((constructor)) void begin(void)
{
    __sanitizer_install_malloc_and_free_hooks(allocated, freed);
}
#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void __libc_free(void *ptr);

static void *counted(void *ptr)
{
    if (ptr) {
        count(malloc_usable_size(ptr));
    }
    return ptr;
}

void *malloc(size_t size)
{
    return counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return counted(__libc_calloc(n, size));
}

void *realloc(void *ptr, size_t size)
{
    size_t before = ptr ? malloc_usable_size(ptr) : 0;
    void *now = __libc_realloc(ptr, size);

    if (now || !size) {
        discount(before);
    }
    return counted(now);
}

void *memalign(size_t align, size_t size)
{
    return counted(__libc_memalign(align, size));
}

void *aligned_alloc(size_t align, size_t size)
{
    return memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    void *ptr = memalign(align, size);

    if (!ptr) {
        return ENOMEM;
    }
    *out = ptr;
    return 0;
}

void free(void *ptr)
{
    if (ptr) {
        discount(malloc_usable_size(ptr));
    }
    __libc_free(ptr);
}
#endif
