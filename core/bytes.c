/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zero detection and scatter-gather lists: see bytes.h.  Lists are short and visited from the
 * front; nothing here allocates.
 */
#include "core/bytes.h"

#include "core/mem.h"

bool bytes_are_zero(const void *p, size_t len)
{
    const unsigned char *at = p;
    uint64_t word[8];

    /* Whole cache lines with one test each: the compiler makes vector code of this. */
    for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word)) {
        memcpy(word, at, sizeof(word));
        if (word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7]) {
            return false;
        }
    }
    for (; len; len--, at++) {
        if (*at) {
            return false;
        }
    }
    return true;
}

/* The next piece of [*skip, *skip + *len) in element `e`: its length, its start in *at; both
 * counters move on. */
static size_t next_piece(const struct iovec *e, size_t *skip, size_t *len, char **at)
{
    if (*skip >= e->iov_len) {
        *skip -= e->iov_len;
        return 0;
    }
    size_t piece = MIN(e->iov_len - *skip, *len);

    *at = (char *)e->iov_base + *skip;
    *skip = 0;
    *len -= piece;
    return piece;
}

size_t iov_to_buf(const struct iovec *iov, int n, size_t skip, void *buf, size_t len)
{
    size_t done = 0;
    char *at;

    for (int i = 0; i < n && len; i++) {
        size_t piece = next_piece(&iov[i], &skip, &len, &at);

        if (piece) {
            memcpy((char *)buf + done, at, piece);
            done += piece;
        }
    }
    return done;
}

size_t iov_from_buf(const struct iovec *iov, int n, size_t skip, const void *buf, size_t len)
{
    size_t done = 0;
    char *at;

    for (int i = 0; i < n && len; i++) {
        size_t piece = next_piece(&iov[i], &skip, &len, &at);

        if (piece) {
            memcpy(at, (const char *)buf + done, piece);
            done += piece;
        }
    }
    return done;
}

size_t iov_memset(const struct iovec *iov, int n, size_t skip, int byte, size_t len)
{
    size_t done = 0;
    char *at;

    for (int i = 0; i < n && len; i++) {
        size_t piece = next_piece(&iov[i], &skip, &len, &at);

        if (piece) {
            memset(at, byte, piece);
            done += piece;
        }
    }
    return done;
}

int iov_slice(struct iovec *out, const struct iovec *iov, int n, size_t skip, size_t len)
{
    int used = 0;
    char *at;

    for (int i = 0; i < n && len; i++) {
        size_t piece = next_piece(&iov[i], &skip, &len, &at);

        if (piece) {
            out[used++] = (struct iovec){ .iov_base = at, .iov_len = piece };
        }
    }
    return used;
}
