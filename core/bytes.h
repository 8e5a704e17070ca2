/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Explicit loads and stores of integers in byte buffers (be = big-endian, le = little-endian), and
 * scatter-gather lists.  No on-disk or on-bus struct is ever cast over a buffer.
 */
#ifndef CORE_BYTES_H
#define CORE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#define BYTES_DEFINE(order, bits)                                                        \
    static inline uint##bits##_t load_##order##bits(const void *p)                       \
    {                                                                                    \
        uint##bits##_t v;                                                                \
        memcpy(&v, p, sizeof(v));                                                        \
        return order##bits##toh(v);                                                      \
    }                                                                                    \
    static inline void store_##order##bits(void *p, uint##bits##_t v)                    \
    {                                                                                    \
        v = hto##order##bits(v);                                                         \
        memcpy(p, &v, sizeof(v));                                                        \
    }
BYTES_DEFINE(be, 16)
BYTES_DEFINE(be, 32)
BYTES_DEFINE(be, 64)
BYTES_DEFINE(le, 16)
BYTES_DEFINE(le, 32)
BYTES_DEFINE(le, 64)
#undef BYTES_DEFINE

/* True when all `len` bytes are zero. */
bool bytes_are_zero(const void *p, size_t len);

/* Scatter-gather lists.  `n` is the number of elements. */
static inline size_t iov_size(const struct iovec *iov, int n) /* here, as each floor asks for it anew, and mostly n is 1 */
{
    size_t total = 0;

    for (int i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    return total;
}
/* Copy between a list (from byte `skip` of it on) and a buffer; returns the bytes copied. */
size_t iov_to_buf(const struct iovec *iov, int n, size_t skip, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, int n, size_t skip, const void *buf, size_t len);
size_t iov_memset(const struct iovec *iov, int n, size_t skip, int byte, size_t len);
/* The part [skip, skip + len) of a list as a list of its own, in `out` which has room for `n`
 * elements.  Returns the number of elements used. */
int iov_slice(struct iovec *out, const struct iovec *iov, int n, size_t skip, size_t len);

#endif
