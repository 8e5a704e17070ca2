/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mutations without libFuzzer: from a seed, so that a run can be repeated.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/lib/fuzz.h"

#define WORDS_MAX 1024

static struct word {
    uint8_t *bytes;
    size_t len;
} words[WORDS_MAX];
static size_t n_words;

uint64_t fuzz_boundary(struct random *rnd)
{
    uint64_t value = 1ull << random_below(rnd, 64);

    switch (random_below(rnd, 8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return UINT64_MAX >> (8 * random_below(rnd, 8));
    case 3:
        return value - 1;
    case 4:
        return value + 1;
    case 5:
        return -value;
    case 6:
        return random_next(rnd) >> random_below(rnd, 64);
    default:
        return value;
    }
}

/* --- The dictionary ----------------------------------------------------------------------------- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* name="text with \\ \" \xAB" */
static void add_line(const char *line)
{
    const char *p = strchr(line, '"'), *end = strrchr(line, '"');

    if (*line == '#' || !p || end == p || n_words == WORDS_MAX) {
        return;
    }
    struct word *word = &words[n_words++];

    word->bytes = mem_alloc(end - p);
    for (p++; p < end; p++) {
        if (*p == '\\' && p[1] == 'x' && end - p > 3) {
            word->bytes[word->len++] = hex(p[2]) * 16 + hex(p[3]);
            p += 3;
        } else {
            p += *p == '\\';
            word->bytes[word->len++] = *p;
        }
    }
}

int fuzz_dictionary(const char *path)
{
    FILE *in = fopen(path, "r");
    char line[512];

    if (!in) {
        return -1;
    }
    while (fgets(line, sizeof(line), in)) {
        add_line(line);
    }
    fclose(in);
    return 0;
}

/* --- Bytes ----------------------------------------------------------------------------------------- */

static size_t insert(uint8_t *data, size_t len, size_t max, size_t at, const uint8_t *bytes, size_t n)
{
    n = MIN(n, max - len);
    memmove(data + at + n, data + at, len - at);
    if (bytes) {
        memcpy(data + at, bytes, n);
    }
    return len + n;
}

static size_t insert_word(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    size_t at = random_below(rnd, len + 1);

    if (n_words && random_below(rnd, 4)) {
        const struct word *word = &words[random_below(rnd, n_words)];

        if (random_below(rnd, 3) == 0 && word->len <= len - at) {
            memcpy(data + at, word->bytes, word->len);
            return len;
        }
        return insert(data, len, max, at, word->bytes, word->len);
    }
    uint8_t byte = random_next(rnd);

    return insert(data, len, max, at, &byte, 1);
}

/* A part of the input once more, elsewhere. */
static size_t copy_part(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    size_t from = random_below(rnd, len), n = 1 + random_below(rnd, MIN(len - from, (size_t)64));
    uint8_t part[64];

    memcpy(part, data + from, n);
    return insert(data, len, max, random_below(rnd, len + 1), part, n);
}

static void set_number(uint8_t *data, size_t len, struct random *rnd)
{
    size_t width = 1u << random_below(rnd, 4), at = random_below(rnd, len);
    uint64_t value = fuzz_boundary(rnd);
    uint8_t bytes[8];

    if (random_below(rnd, 2)) {
        store_be64(bytes, value << (64 - 8 * width));
    } else {
        store_le64(bytes, value);
    }
    memcpy(data + at, bytes, MIN(width, len - at));
}

size_t fuzz_mutate_bytes(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    if (!len) {
        return insert_word(data, len, max, rnd);
    }
    size_t at = random_below(rnd, len), n = 1 + random_below(rnd, MIN(len - at, (size_t)64));

    switch (random_below(rnd, 7)) {
    case 0:
        data[at] ^= 1u << random_below(rnd, 8);
        return len;
    case 1:
        data[at] = random_next(rnd);
        return len;
    case 2:
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    case 3:
        return copy_part(data, len, max, rnd);
    case 4:
        set_number(data, len, rnd);
        return len;
    default:
        return insert_word(data, len, max, rnd);
    }
}
