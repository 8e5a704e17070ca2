/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fio's iolog, read: what profile `replay` plays.
 *
 *     fio version 2 iolog                     fio version 3 iolog
 *     /dev/sda add                            0 /dev/sda add
 *     /dev/sda open                           0 /dev/sda open
 *     /dev/sda read 0 4096                    115 /dev/sda read 0 4096
 *     /dev/sda wait 1000 0                    1115 /dev/sda write 4096 4096
 *     /dev/sda write 4096 4096                1200 /dev/sda datasync 4096 0
 *     /dev/sda datasync 4096 0                2000 /dev/sda close
 *     /dev/sda close
 *
 * Version 2 is what the guest was promised to understand; version 3 (a time in microseconds in
 * front of each line, no `wait`) is what the fio of Debian 12 writes.  Both become the same list:
 * what to do, and when at the earliest. All files of a log mean the guest's one disk.  As a kernel
 * would do it, a range that is no multiple of 512 bytes is rounded outwards.
 */
#ifndef HW_GUEST_IOLOG_H
#define HW_GUEST_IOLOG_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum guest_iolog_action { IOLOG_READ, IOLOG_WRITE, IOLOG_TRIM, IOLOG_SYNC };

struct guest_iolog_entry {
    enum guest_iolog_action action;
    unsigned line;        /* in the file, from 1 */
    uint64_t at_us;       /* microseconds from the beginning of the replay */
    uint64_t offset, len; /* bytes; 0 for a sync */
};

struct guest_iolog {
    struct guest_iolog_entry *entries;
    size_t count;
    uint64_t end;      /* where the highest range ends, bytes */
    unsigned end_line; /* the line that says so */
};

/* Parse a log's text (`len` bytes, NUL-terminated; it is changed).  `name` is for the error's
 * sentence.  -EINVAL when it is none. */
int guest_iolog_parse(struct guest_iolog **out, const char *name, char *text, size_t len,
                      struct error *err);
/* Read and parse a file.  Suspends. */
int co_guest_iolog_load(struct guest_iolog **out, const char *path, struct error *err);
void guest_iolog_free(struct guest_iolog *log); /* NULL is fine */

#endif
