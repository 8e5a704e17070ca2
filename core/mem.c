/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocation that cannot fail.  The one idea: nobody above has a sensible answer to "out of
 * memory", so it is answered here, once, with a sentence and abort().  Sizes that come from outside
 * are bounded by the callers; an absurd size that arrives here is a bug and ends the same way.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void *checked(void *ptr, size_t size)
{
    if (!ptr && size) {
        fprintf(stderr, "merganser: out of memory (%zu bytes wanted)\n", size);
        abort();
    }
    return ptr;
}

static size_t checked_product(size_t count, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(count, size, &total)) {
        fprintf(stderr, "merganser: out of memory (%zu times %zu bytes wanted)\n", count, size);
        abort();
    }
    return total;
}

void *mem_alloc(size_t size)
{
    return checked(malloc(size), size);
}

void *mem_zalloc(size_t size)
{
    return checked(calloc(1, size), size);
}

void *mem_calloc(size_t count, size_t size)
{
    return checked(calloc(count, size), checked_product(count, size));
}

void *mem_realloc(void *ptr, size_t size)
{
    /* realloc(ptr, 0) frees or does not, as the C library likes; one byte keeps it plain. */
    return checked(realloc(ptr, size ? size : 1), size);
}

void *mem_reallocarray(void *ptr, size_t count, size_t size)
{
    return mem_realloc(ptr, checked_product(count, size));
}

void *mem_dup(const void *ptr, size_t size)
{
    void *copy = mem_alloc(size);

    if (size) {
        memcpy(copy, ptr, size);
    }
    return copy;
}

void *mem_align(size_t align, size_t size)
{
    void *ptr = NULL;

    /* posix_memalign() wants at least the alignment of a pointer. */
    if (posix_memalign(&ptr, MAX(align, sizeof(void *)), size)) {
        ptr = NULL;
    }
    return checked(ptr, size);
}

char *mem_strdup(const char *str)
{
    return str ? mem_dup(str, strlen(str) + 1) : NULL;
}

char *mem_strndup(const char *str, size_t len)
{
    len = strnlen(str, len);
    char *copy = mem_alloc(len + 1);

    memcpy(copy, str, len);
    copy[len] = '\0';
    return copy;
}

char *mem_vprintf(const char *fmt, va_list ap)
{
    char *text;

    return vasprintf(&text, fmt, ap) < 0 ? checked(NULL, 1) : text;
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *text = mem_vprintf(fmt, ap);
    va_end(ap);
    return text;
}
