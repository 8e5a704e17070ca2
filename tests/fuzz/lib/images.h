/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Valid images to be damaged: made by our own create and write code on the simulated disk; compressed clusters and an
 * internal snapshot, which the program does not make, are put in by hand.  The check finds nothing wrong with any.
 */
#ifndef TESTS_FUZZ_LIB_IMAGES_H
#define TESTS_FUZZ_LIB_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGES_MAX_DISK (512u << 10)

struct fuzz_image {
    const char *path;    /* the top of the chain */
    const char *below;   /* path of its backing file, NULL: none */
    uint32_t cluster;    /* bytes */
    uint64_t disk;       /* bytes */
    const char *options; /* of its creation */
    bool snapshot, compressed;
};
extern const struct fuzz_image fuzz_images[];
extern const unsigned fuzz_n_images;

/* Make all of them; on the loop's stack. */
void fuzz_make_images(void);

#endif
