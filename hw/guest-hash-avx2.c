/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash with registers of 256 bits (see guest-hash.h).  The library's header looks at what it may use when it is read.
 */
#include "hw/guest-hash.h"

#ifdef GUEST_HASH_AVX2
#pragma GCC target("avx2")
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t guest_hash_avx2(const void *p, size_t len)
{
    return XXH3_64bits(p, len);
}
#endif
