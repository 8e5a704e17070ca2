/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory, and what happens when there is none: see mem.h.
 *
 * The one idea: nobody in the middle of something has a sensible answer to "out of memory", so it
 * is answered here.  Caches cannot be asked at that moment, for it may be one of them that is in
 * the middle of something; so the first failure lives on a reserve, and the caches are asked
 * between two turns of the loop, when all of them are whole.  The reserve is larger than what one
 * turn takes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core/mem.h"

#include <assert.h>
#include <jansson.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RESERVE_BYTES (4u << 20) /* never touched, so it costs addresses only */

bool (*mem_deny)(const struct mem_site *site, size_t size);
bool mem_is_low;

static void *reserve; /* taken by whoever is first, on any thread */
static bool ready;
static pthread_t owner;
static LIST_HEAD(, mem_shrinker) shrinkers = LIST_HEAD_INITIALIZER(shrinkers);
static void (*exit_fn)(void *arg);
static void *exit_arg;

/* --- When there is none ----------------------------------------------------------------------- */

static void *json_alloc(size_t size)
{
    return mem_alloc(size);
}

void mem_init(void)
{
    if (!ready) {
        ready = true;
        owner = pthread_self();
        reserve = malloc(RESERVE_BYTES);
        json_set_alloc_funcs(json_alloc, free);
    }
}

void mem_shrinker_add(struct mem_shrinker *shrinker)
{
    LIST_INSERT_HEAD(&shrinkers, shrinker, link);
}

void mem_shrinker_remove(struct mem_shrinker *shrinker)
{
    LIST_REMOVE(shrinker, link);
}

void mem_on_exit(void (*fn)(void *arg), void *arg)
{
    exit_fn = fn;
    exit_arg = arg;
}

void mem_exhausted(size_t size)
{
    void (*fn)(void *arg) = exit_fn;

    exit_fn = NULL; /* it may come here again */
    mem_deny = NULL;
    fprintf(stderr, "merganser: out of memory (%zu more bytes wanted), leaving as if killed\n",
            size);
    if (fn && pthread_equal(owner, pthread_self())) {
        fn(exit_arg);
    }
    _exit(MEM_EXIT);
}

/* There was no memory: may it be tried again? */
static bool again(size_t size)
{
    void *last = __atomic_exchange_n(&reserve, NULL, __ATOMIC_ACQ_REL);

    if (!last) {
        mem_exhausted(size);
    }
    free(last);
    __atomic_store_n(&mem_is_low, true, __ATOMIC_RELEASE);
    return true;
}

void mem_recover(void)
{
    static const struct mem_site refill = { __FILE__, __LINE__, "reserve", __func__ };
    struct mem_shrinker *shrinker;

    LIST_FOREACH(shrinker, &shrinkers, link) {
        shrinker->shrink(shrinker->arg);
    }
    reserve = mem_try_alloc_at(&refill, RESERVE_BYTES);
    mem_is_low = !reserve;
}

static bool denied(const struct mem_site *site, size_t size)
{
    return __builtin_expect(mem_deny != NULL, 0) && mem_deny(site, size);
}

/* --- What may fail ---------------------------------------------------------------------------- */

void *mem_try_alloc_at(const struct mem_site *site, size_t size)
{
    return denied(site, size) ? NULL : malloc(size ? size : 1);
}

void *mem_try_calloc_at(const struct mem_site *site, size_t count, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(count, size, &total) || denied(site, total)) {
        return NULL;
    }
    return total ? calloc(count, size) : calloc(1, 1);
}

void *mem_try_realloc_at(const struct mem_site *site, void *ptr, size_t size)
{
    /* realloc(ptr, 0) frees or does not, as the C library likes; one byte keeps it plain. */
    return denied(site, size) ? NULL : realloc(ptr, size ? size : 1);
}

void *mem_try_align_at(const struct mem_site *site, size_t align, size_t size)
{
    void *ptr;

    /* posix_memalign() wants at least the alignment of a pointer. */
    if (denied(site, size) ||
        posix_memalign(&ptr, MAX(align, sizeof(void *)), size ? size : 1)) {
        return NULL;
    }
    return ptr;
}

/* --- What may not ----------------------------------------------------------------------------- */

/* The value of an expression that may be NULL, or of a second try. */
#define TWICE(size, attempt) \
    ({ \
        void *got_ = (attempt); \
        if (__builtin_expect(!got_, 0) && again(size)) { \
            got_ = (attempt); \
        } \
        if (__builtin_expect(!got_, 0)) { \
            mem_exhausted(size); \
        } \
        got_; \
    })

void *mem_alloc_at(const struct mem_site *site, size_t size)
{
    return TWICE(size, mem_try_alloc_at(site, size));
}

void *mem_zalloc_at(const struct mem_site *site, size_t size)
{
    return TWICE(size, mem_try_calloc_at(site, 1, size));
}

static size_t checked_product(size_t count, size_t size)
{
    size_t total;
    bool wraps = __builtin_mul_overflow(count, size, &total);

    assert(!wraps);
    return total;
}

void *mem_calloc_at(const struct mem_site *site, size_t count, size_t size)
{
    return TWICE(checked_product(count, size), mem_try_calloc_at(site, count, size));
}

void *mem_realloc_at(const struct mem_site *site, void *ptr, size_t size)
{
    return TWICE(size, mem_try_realloc_at(site, ptr, size));
}

void *mem_reallocarray_at(const struct mem_site *site, void *ptr, size_t count, size_t size)
{
    return mem_realloc_at(site, ptr, checked_product(count, size));
}

void *mem_dup_at(const struct mem_site *site, const void *ptr, size_t size)
{
    void *copy = mem_alloc_at(site, size);

    if (size) {
        memcpy(copy, ptr, size);
    }
    return copy;
}

void *mem_align_at(const struct mem_site *site, size_t align, size_t size)
{
    return TWICE(size, mem_try_align_at(site, align, size));
}

static void *try_pages(const struct mem_site *site, size_t size)
{
    void *pages;

    if (denied(site, size)) {
        return NULL;
    }
    pages = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void *mem_pages_at(const struct mem_site *site, size_t size)
{
    return TWICE(size, try_pages(site, size));
}

/* --- Text ------------------------------------------------------------------------------------- */

char *mem_strdup_at(const struct mem_site *site, const char *str)
{
    return str ? mem_dup_at(site, str, strlen(str) + 1) : NULL;
}

char *mem_strndup_at(const struct mem_site *site, const char *str, size_t len)
{
    len = strnlen(str, len);
    char *copy = mem_alloc_at(site, len + 1);

    memcpy(copy, str, len);
    copy[len] = '\0';
    return copy;
}

char *mem_vprintf_at(const struct mem_site *site, const char *fmt, va_list ap)
{
    va_list count_ap;
    int len;

    va_copy(count_ap, ap);
    len = vsnprintf(NULL, 0, fmt, count_ap);
    va_end(count_ap);
    assert(len >= 0);
    char *text = mem_alloc_at(site, len + 1u);

    vsnprintf(text, len + 1u, fmt, ap);
    return text;
}

char *mem_printf_at(const struct mem_site *site, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *text = mem_vprintf_at(site, fmt, ap);
    va_end(ap);
    return text;
}
