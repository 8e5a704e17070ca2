/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying the content of images, one behind the other, into a target (copy.c), for convert.c.
 */
#ifndef IMG_CONVERT_H
#define IMG_CONVERT_H

#include "img/command.h"
#include "img/status.h"

struct copy_source {
    struct node *node;
    struct img_chain chain; /* what is to be copied: all layers, or those above the backing file that target and source share */
    uint64_t start;         /* where it goes in the target */
};
struct copy {
    struct copy_source *sources;
    size_t n;
    struct node *target;
    uint64_t size;          /* of all sources together */
    uint64_t sparse;        /* bytes: so many zeroes in a row are not written; 0: everything is written */
    uint64_t below_size;    /* of the target's backing file */
    bool below;             /* the target has a backing file: what the source's layer does not hold is left to it */
    bool zeroed;            /* the target reads as zeroes where nothing is written */
    uint32_t packed_cluster; /* 0, or: whole clusters of the target (qcow2) of so many bytes, each compressed where that makes
                                it shorter */
    bool any_order;         /* writes need not go from front to back */
    bool offload;           /* data that lie in files are copied by the host, with their zeroes */
    bool salvage;           /* what cannot be read becomes zeroes */
    bool quiet;             /* without warnings */
    uint64_t rate;          /* bytes a second; 0: as fast as it goes */
    unsigned workers;
    struct img_progress progress;
};

/* 0, or -1 when the complaint is printed.  Suspends. */
int co_img_copy(struct copy *c);

#endif
