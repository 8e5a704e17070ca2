/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash by which a guest knows what it has read: XXH3, 64 bits, the same value on every machine.
 *
 * Each byte that a guest reads passes here, so the compiler makes it a second time for processors with wider registers: a sector
 * takes 10 ns instead of 27.
 */
#ifndef HW_GUEST_HASH_H
#define HW_GUEST_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t guest_hash(const void *p, size_t len);

#if defined(__x86_64__) && !defined(__clang__) /* which has no such pragma */
#define GUEST_HASH_AVX2 1
uint64_t guest_hash_avx2(const void *p, size_t len); /* guest-hash-avx2.c; for processors that have it */
#endif

#endif
