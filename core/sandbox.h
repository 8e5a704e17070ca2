/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox: doors that the program shuts behind itself and cannot open again.
 *
 *     sandbox_new() -> sandbox_allow() ... -> sandbox_enter()
 *
 * Landlock: of the files of the host only those that were allowed can still be opened, made or
 * removed (what is open already stays open).  Seccomp: no program is run, no process is made or
 * traced, nothing is connected to, no socket is made but listening unix ones, no memory becomes
 * executable, and system calls that the program has no use for are not there.
 *
 * Both hold for the thread that enters and for those that it starts later; so there must be no other
 * one (io_threads_end()).  What goes through the ring (core/io-uring.c) was limited when that was
 * made.
 */
#ifndef CORE_SANDBOX_H
#define CORE_SANDBOX_H

#include <stdbool.h>

#include "core/error.h"

enum sandbox_use {
    SANDBOX_READ,       /* a file, or a directory with all below it: read only */
    SANDBOX_IMAGE,      /* a file or a device: read and write */
    SANDBOX_NEIGHBOURS, /* the directory of this file, with all below it: files read, written, made,
                         * removed; sockets made; nothing when the path is that of a device */
    SANDBOX_REMOVE_DIR, /* a directory below this one can be removed when it is empty */
};

struct sandbox;
struct sandbox *sandbox_new(void);
/* The path as it leads now: the name may be taken away before the doors are shut.  One that is not there
 * is nothing to be allowed. */
void sandbox_allow(struct sandbox *s, const char *path, enum sandbox_use use);
/* Does the kernel have Landlock, and is it on? */
bool sandbox_has_landlock(void);
/* Shut the doors; frees `s` in any case.  0 or -errno with the sentence in err: then some may be shut
 * already, and the program has to end.  `landlock` false: leave the files alone. */
int sandbox_enter(struct sandbox *s, bool landlock, struct error *err);

/* On an error which says that something is not permitted, once inside: a hint that it was us, and
 * where new files can be. */
void sandbox_explain(struct error *err);

#endif
