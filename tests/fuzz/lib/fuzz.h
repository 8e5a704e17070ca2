/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What fuzz targets share.  A target is one file of tests/fuzz/ that defines `fuzz_target`; with the files of this
 * directory it becomes two programs:
 *
 *     clang   libFuzzer finds the inputs           make fuzz,        scripts/fuzz
 *     gcc     driver.c replays files and mutates   make fuzz-replay, scripts/check
 *
 * Both call LLVMFuzzerTestOneInput() (harness.c), which gives every input the same world: virtual clock, simulated disk,
 * the same seed, nothing left of the input before.  What it demands of each input:
 *
 *     F1  it ends: nothing waits for ever, and no more than FUZZ_MS_MAX of processor time passes
 *     F2  at no moment more than FUZZ_BYTES of memory are held beyond what was held before
 *     F3  afterwards no coroutine, node or disk is left, and memory does not grow from input to input
 *     F4  no assertion, no sanitizer, and no FUZZ_CHECK() of the target complains
 */
#ifndef TESTS_FUZZ_LIB_FUZZ_H
#define TESTS_FUZZ_LIB_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FUZZ_SANITIZED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define FUZZ_SANITIZED 1
#endif

/* Processor time; sanitizers cost a factor of five to twenty, slow machines another. */
#ifdef FUZZ_SANITIZED
#define FUZZ_MS_MAX 2000u
#else
#define FUZZ_MS_MAX 100u
#endif
#define FUZZ_BYTES (64u << 20)

/* An input, read from its front.  Beyond the end there are zeroes. */
struct fuzz_input {
    const uint8_t *data;
    size_t len;
};
static inline bool fuzz_more(const struct fuzz_input *in)
{
    return in->len > 0;
}
/* Take `len` bytes into buf. */
void fuzz_take(struct fuzz_input *in, void *buf, size_t len);
uint8_t fuzz_u8(struct fuzz_input *in);
uint16_t fuzz_u16(struct fuzz_input *in);
uint32_t fuzz_u32(struct fuzz_input *in);
uint64_t fuzz_u64(struct fuzz_input *in);

struct fuzz_target {
    const char *name;
    /* Once, before the first input; the disk is simulated and empty, no coroutine runs.  May be NULL. */
    void (*set_up)(void);
    /* One input, on the loop's stack: loop_run_co() is there. */
    void (*run)(struct fuzz_input *in);
    /* Change an input where it hurts: `len` of `max` bytes are used; returns the new length.  NULL: bytes are as good as
     * anything. */
    size_t (*mutate)(uint8_t *data, size_t len, size_t max, struct random *rnd);
    /* The longest input worth a try; 0: 4096. */
    size_t max_len;
};
extern const struct fuzz_target fuzz_target;

/* F4: print a sentence and abort. */
#define FUZZ_CHECK(condition, ...) ((condition) ? (void)0 : fuzz_fail(__VA_ARGS__))
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Run until nothing is ready and no timer fires within a second of virtual time. */
void fuzz_settle(void);
/* Make the simulated disk hold these images again after each input: what is there now.  For set_up. */
void fuzz_keep_disk(void);

/* A text as an input gives it, NUL-terminated, at most `max` bytes, up to the next `end` (which is taken, too); malloc'ed. */
char *fuzz_text(struct fuzz_input *in, size_t max, char end);

/* harness.c, for the drivers. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- mutate.c: for those who have no libFuzzer, and for targets' own mutators -------------------------------------- */

/* One change of bytes as fuzzers make them; words of the dictionary are among them. */
size_t fuzz_mutate_bytes(uint8_t *data, size_t len, size_t max, struct random *rnd);
/* Read a dictionary (libFuzzer's format).  0 or -1. */
int fuzz_dictionary(const char *path);
/* A value that is likely to hurt: 0, 1, powers of two, all ones, neighbours of those. */
uint64_t fuzz_boundary(struct random *rnd);

/* --- memory.c: bytes held now, and the most since fuzz_memory_mark() -------------------------------------------------- */
size_t fuzz_memory_held(void);
size_t fuzz_memory_most(void);
void fuzz_memory_mark(void);

#endif
