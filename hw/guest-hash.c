/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash with the registers that every processor has, and the choice (see guest-hash.h).
 */
#include "hw/guest-hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t guest_hash(const void *p, size_t len)
{
#ifdef GUEST_HASH_AVX2
    if (__builtin_cpu_supports("avx2")) {
        return guest_hash_avx2(p, len);
    }
#endif
    return XXH3_64bits(p, len);
}
