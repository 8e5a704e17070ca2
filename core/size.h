/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers as people write them: sizes ("64k", "1.5G", "0x200"), times ("30s", "2ms"), and back.
 */
#ifndef CORE_SIZE_H
#define CORE_SIZE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What a person may have meant who wrote something else. */
#define SIZE_SUFFIXES_HINT \
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."

/* Parse a size as QEMU's options and monitor do: an optional plus sign; decimal or 0x hex; optional fraction (decimal
 * only, rounded); optional suffix b k m g t p e in either case, powers of 1024; `unit` is the factor when no suffix is
 * given (1 for bytes, 1 << 20 for megabytes).  The whole string must be consumed when `end` is NULL; otherwise *end is set
 * behind the number.  Returns 0, -EINVAL or -ERANGE. */
int size_parse(const char *text, uint64_t unit, uint64_t *out, const char **end);
/* Parse a time into nanoseconds: number (fractions allowed) and suffix ns us ms s m h; without a suffix
 * seconds.  Returns 0, -EINVAL or -ERANGE. */
int time_parse(const char *text, uint64_t *out_ns);
/* "64 KiB", "1.5 GiB", "0 B": at most three significant digits, as qemu-img prints sizes. `buf` holds 32 bytes or
 * more; returns buf. */
char *size_format(uint64_t bytes, char *buf);
/* The same where nothing of QEMU's is printed: 0.976 MiB, which qemu-img calls 1e+03 KiB. */
char *size_format_plain(uint64_t bytes, char *buf);
/* "512 ns", "1.25 ms", "3.2 s", "4m05s". */
char *time_format(uint64_t ns, char *buf);

#endif
