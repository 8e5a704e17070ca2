/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many blocks of memory are alive: malloc() and its relatives, counted on their way to the C
 * library.  Libraries count, too.  Under a sanitizer, which takes those names for itself, nothing
 * is counted: it looks for leaks in its own way.
 */
#ifndef TESTS_UNIT_FAULTS_LIVE_H
#define TESTS_UNIT_FAULTS_LIVE_H

#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>

static size_t live_blocks __attribute__((unused));

#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *ptr);

static void *counted(void *ptr)
{
    live_blocks += ptr != NULL;
    return ptr;
}

void *malloc(size_t size)
{
    return counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return counted(__libc_calloc(count, size));
}

void *realloc(void *ptr, size_t size)
{
    void *got = __libc_realloc(ptr, size);

    live_blocks += got && !ptr;
    live_blocks -= !got && ptr && !size; /* that was a free() */
    return got;
}

void *memalign(size_t align, size_t size)
{
    return counted(__libc_memalign(align, size));
}

void *aligned_alloc(size_t align, size_t size)
{
    return counted(__libc_memalign(align, size));
}

int posix_memalign(void **out, size_t align, size_t size)
{
    *out = counted(__libc_memalign(align, size));
    return *out ? 0 : ENOMEM;
}

void free(void *ptr)
{
    live_blocks -= ptr != NULL;
    __libc_free(ptr);
}
#endif

#endif
