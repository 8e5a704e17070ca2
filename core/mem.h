/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory: allocation that cannot fail (it aborts with one sentence), and give-back on scope exit.
 * Sizes that a guest or an image decides must be bounded by the caller before they come here.
 */
#ifndef CORE_MEM_H
#define CORE_MEM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

void *mem_alloc(size_t size);                 /* uninitialised */
void *mem_zalloc(size_t size);                /* zeroed */
void *mem_calloc(size_t count, size_t size);  /* zeroed; aborts on overflow */
void *mem_realloc(void *ptr, size_t size);
void *mem_reallocarray(void *ptr, size_t count, size_t size);
void *mem_dup(const void *ptr, size_t size);
/* `size` bytes aligned to `align` (a power of two); free() gives it back. */
void *mem_align(size_t align, size_t size);
char *mem_strdup(const char *str);            /* NULL gives NULL */
char *mem_strndup(const char *str, size_t len);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *mem_vprintf(const char *fmt, va_list ap);

static inline void mem_autofree(void *pptr)
{
    free(*(void **)pptr);
}
/* `AUTOFREE char *s = mem_strdup(...)`: freed when the scope ends. */
#define AUTOFREE __attribute__((cleanup(mem_autofree)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define MAX(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })
#define ROUND_DOWN(x, unit) ((x) / (unit) * (unit))
#define ROUND_UP(x, unit) (((x) + (unit)-1) / (unit) * (unit))
#define DIV_ROUND_UP(x, unit) (((x) + (unit)-1) / (unit))

#endif
