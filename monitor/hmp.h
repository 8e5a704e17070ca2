/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One human line, taken apart.  Apart from names of images (a base in the place of the speed) this needs nothing that
 * lives: tests call it with tables of their own.
 */
#ifndef MONITOR_HMP_H
#define MONITOR_HMP_H

#include "monitor/monitor.h"

struct hmp_call {
    const struct command *cmd; /* NULL: an empty line */
    json_t *args;              /* an object; owned */
    bool as_json;              /* `-json` on an info command */
};

/* Take a line apart.  0, or -EINVAL with QEMU's lines in err->text (printed without "Error: " before them). */
int hmp_parse(struct monitor *mon, const char *line, struct hmp_call *call, struct error *err);
void hmp_call_free(struct hmp_call *call);

/* The next word at *p, a "quoted string" with its escapes resolved, or what stands up to a blank; malloc'ed.  NULL where
 * there is none, or where the quotation is wrong (then a line in *why, which may be NULL, malloc'ed). */
char *hmp_word(const char **p, char **why);
/* A size as QEMU's monitor reads it at *p: it ends where the number does, blank or not; a number without a suffix counts
 * units of `unit` bytes.  0, -EINVAL. */
int hmp_size(const char **p, uint64_t unit, uint64_t *out);
/* Does `word` need quotes to be one word?  Malloc'ed: the word as it must be typed. */
char *hmp_quote(const char *word);

#endif
