/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -drive: from one option string to a chain, a disk, a device and its guest.
 */
#ifndef START_DRIVE_H
#define START_DRIVE_H

#include <jansson.h>

#include "core/error.h"

/* What was said on the command line, in its order. */
struct drive {
    char *shown;  /* the option as typed, for errors: "-drive file=x", "-hda x", "x" */
    json_t *keys; /* flat; "if", "index", "file", ... */
};

/* Choose bus, index and name of all drives in their order, then open and attach them.  `failed` is
 * the drive that the error is about. */
int co_drives_start(struct drive *drives, size_t count, const struct drive **failed,
                    struct error *err);
/* Detach everything: guests end, devices go, disks are flushed and closed.  0, or the first error
 * (said in err). */
int co_drives_end(struct error *err);

#endif
