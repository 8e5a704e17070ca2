/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands for monitors, made from the program's own tables: any row, with arguments that are right more often than not.  A row
 * that is added to a table is tried from then on.
 */
#ifndef TESTS_FUZZ_LIB_MONITOR_WORDS_H
#define TESTS_FUZZ_LIB_MONITOR_WORDS_H

#include "tests/fuzz/lib/fuzz.h"

/* One command as a line with its newline, malloc'ed: JSON; or words of the human monitor. */
char *fuzz_qmp_command(struct random *rnd);
char *fuzz_human_line(struct random *rnd);

/* Put such a line into a text of lines that begins at `from`: in place of one, or between two.  Returns the new length. */
size_t fuzz_mutate_lines(uint8_t *data, size_t len, size_t max, size_t from, char *(*make)(struct random *rnd),
                         struct random *rnd);

#endif
