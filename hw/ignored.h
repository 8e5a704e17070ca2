/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was asked for and changes nothing, because this machine has no such part: `info ignored`.
 */
#ifndef HW_IGNORED_H
#define HW_IGNORED_H

#include <jansson.h>

/* Remember an option as it was typed ("-m 512"), or a property ("-device virtio-blk,addr=4: addr"). */
void ignored_note(const char *text);
/* An array of strings, in the order they came; borrowed. */
const json_t *ignored_list(void);
void ignored_forget(void);

#endif
