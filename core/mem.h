/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory: allocation that either cannot fail, or fails the request it is for; and give-back on
 * scope exit.
 *
 * Two kinds:
 *
 *   mem_try_*    for sizes that an image, a client or a guest decides: NULL when there is no
 *                memory.  The caller fails that request with -ENOMEM and goes on.
 *   the others   never return NULL.  The first failure is answered from an emergency reserve; in
 *                the next turn of the loop caches give back what they can (struct mem_shrinker) and
 *                the reserve is filled again.  When the reserve is gone, too, the program leaves:
 *                one sentence on stderr, exit code MEM_EXIT, no signal.  Images are then as after a
 *                kill, which is safe at every moment (docs/RELIABILITY.md).
 *
 * Sizes from outside must be bounded by the caller before they come here, whichever kind.
 *
 * Every call is a site (file, line), so that tests can make each one fail and see that none was
 * forgotten: mem_deny.
 */
#ifndef CORE_MEM_H
#define CORE_MEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>

#define MEM_EXIT 7 /* the exit code of a program that has no memory */

/* A place in the sources that asks for memory. */
struct mem_site {
    const char *file;
    unsigned line;
    const char *what; /* the function that it calls */
    const char *in;   /* the one that it stands in */
};

/* The site of the line that this stands on.  All of them are in the section mem_sites, as
 * pointers; one place may be there several times. */
#define MEM_SITE(what) \
    ({ \
        static const struct mem_site site_ = { __FILE__, __LINE__, what, __func__ }; \
        static const struct mem_site *const listed_ \
            __attribute__((section("mem_sites"), used)) = &site_; \
        &site_; \
    })

#define mem_alloc(...) mem_alloc_at(MEM_SITE("mem_alloc"), __VA_ARGS__)
#define mem_zalloc(...) mem_zalloc_at(MEM_SITE("mem_zalloc"), __VA_ARGS__)
#define mem_calloc(...) mem_calloc_at(MEM_SITE("mem_calloc"), __VA_ARGS__)
#define mem_realloc(...) mem_realloc_at(MEM_SITE("mem_realloc"), __VA_ARGS__)
#define mem_reallocarray(...) mem_reallocarray_at(MEM_SITE("mem_reallocarray"), __VA_ARGS__)
#define mem_dup(...) mem_dup_at(MEM_SITE("mem_dup"), __VA_ARGS__)
#define mem_align(...) mem_align_at(MEM_SITE("mem_align"), __VA_ARGS__)
#define mem_strdup(...) mem_strdup_at(MEM_SITE("mem_strdup"), __VA_ARGS__)
#define mem_strndup(...) mem_strndup_at(MEM_SITE("mem_strndup"), __VA_ARGS__)
#define mem_printf(...) mem_printf_at(MEM_SITE("mem_printf"), __VA_ARGS__)
#define mem_vprintf(...) mem_vprintf_at(MEM_SITE("mem_vprintf"), __VA_ARGS__)
#define mem_pages(...) mem_pages_at(MEM_SITE("mem_pages"), __VA_ARGS__)
#define mem_try_alloc(...) mem_try_alloc_at(MEM_SITE("mem_try_alloc"), __VA_ARGS__)
#define mem_try_calloc(...) mem_try_calloc_at(MEM_SITE("mem_try_calloc"), __VA_ARGS__)
#define mem_try_realloc(...) mem_try_realloc_at(MEM_SITE("mem_try_realloc"), __VA_ARGS__)
#define mem_try_align(...) mem_try_align_at(MEM_SITE("mem_try_align"), __VA_ARGS__)

void *mem_alloc_at(const struct mem_site *site, size_t size);  /* uninitialised */
void *mem_zalloc_at(const struct mem_site *site, size_t size); /* zeroed */
/* Zeroed; a product that overflows is a broken invariant (but NULL for mem_try_calloc()). */
void *mem_calloc_at(const struct mem_site *site, size_t count, size_t size);
void *mem_realloc_at(const struct mem_site *site, void *ptr, size_t size);
void *mem_reallocarray_at(const struct mem_site *site, void *ptr, size_t count, size_t size);
void *mem_dup_at(const struct mem_site *site, const void *ptr, size_t size);
/* `size` bytes aligned to `align` (a power of two); free() gives it back. */
void *mem_align_at(const struct mem_site *site, size_t align, size_t size);
char *mem_strdup_at(const struct mem_site *site, const char *str); /* NULL gives NULL */
char *mem_strndup_at(const struct mem_site *site, const char *str, size_t len);
char *mem_printf_at(const struct mem_site *site, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
char *mem_vprintf_at(const struct mem_site *site, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
/* Pages of zeroes with no memory behind them yet; munmap() gives them back. */
void *mem_pages_at(const struct mem_site *site, size_t size);

void *mem_try_alloc_at(const struct mem_site *site, size_t size);
void *mem_try_calloc_at(const struct mem_site *site, size_t count, size_t size);
/* NULL: `ptr` is as it was. */
void *mem_try_realloc_at(const struct mem_site *site, void *ptr, size_t size);
void *mem_try_align_at(const struct mem_site *site, size_t align, size_t size);

static inline void mem_autofree(void *pptr)
{
    free(*(void **)pptr);
}
/* `AUTOFREE char *s = mem_strdup(...)`: freed when the scope ends. */
#define AUTOFREE __attribute__((cleanup(mem_autofree)))

/* --- When there is none ----------------------------------------------------------------------- */

/* Once, early: lays the reserve in, and gives jansson our allocation.  Called again: nothing. */
void mem_init(void);
/* A cache that can give memory back.  Asked between two turns of the loop, on its stack. */
struct mem_shrinker {
    LIST_ENTRY(mem_shrinker) link;
    void (*shrink)(void *arg);
    void *arg;
};
void mem_shrinker_add(struct mem_shrinker *shrinker);
void mem_shrinker_remove(struct mem_shrinker *shrinker);
/* The loop's: set once the reserve has been used; between turns it then calls mem_recover(). */
extern bool mem_is_low;
void mem_recover(void);
/* What else is to be put in order when the program leaves; on the thread that called mem_init()
 * only.  May not count on memory. */
void mem_on_exit(void (*fn)(void *arg), void *arg);
/* Leave: no memory for `size` more bytes. */
void mem_exhausted(size_t size) __attribute__((noreturn));

/* For tests: asked before each attempt to get memory; true: there is none.  Usually NULL. */
extern bool (*mem_deny)(const struct mem_site *site, size_t size);

/* uthash's tables, too. */
#undef uthash_malloc
#define uthash_malloc(size) mem_alloc(size)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define MAX(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })
#define ROUND_DOWN(x, unit) ((x) / (unit) * (unit))
#define ROUND_UP(x, unit) (((x) + (unit)-1) / (unit) * (unit))
#define DIV_ROUND_UP(x, unit) (((x) + (unit)-1) / (unit))

#endif
