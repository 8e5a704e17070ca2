/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -blockdev, -drive and -device: from option strings to chains, disks, devices and their guests.
 */
#ifndef START_DRIVE_H
#define START_DRIVE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

/* What was said on the command line, in its order. */
struct drive {
    char *shown;  /* the option as typed, for errors: "-drive file=x", "-hda x", "x" */
    json_t *keys; /* flat; "if", "index", "file", ... */
};
/* -blockdev, -device */
struct option_tree {
    char *shown;
    json_t *tree;
    bool from_words; /* key=value: all values are strings */
};
struct drives {
    struct option_tree *blockdevs;
    size_t blockdev_count;
    struct drive *drives;
    size_t drive_count;
    struct option_tree *devices;
    size_t device_count;
    bool snapshot; /* -snapshot: for all drives that do not say otherwise */
};

/* Make all of it: nodes, then drives in their order, then the IDE disks' devices, -device, and the virtio
 * disks' devices, as QEMU does.  `failed` is the option that the error is about, NULL: none.
 * Suspends. */
int co_drives_start(const struct drives *all, const char **failed, struct error *err);
/* A drive from the words of -drive while the program runs.  `*help` (free()) is what was asked for in
 * its place, NULL: a drive was made, and stays when its *type is 0 (if=none).  Suspends. */
int co_drive_hot_add(const char *words, char **help, int *type, struct error *err);
/* Detach everything: guests end, devices go, disks and nodes are flushed and closed, temporary
 * overlays removed.  0, or the first error (said in err). */
int co_drives_end(struct error *err);
/* Only remove the temporary overlays' names: for a program that cannot end in order. */
void drives_remove_temporaries(void);

#endif
