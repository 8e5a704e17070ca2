/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a chain holds at a place, as qemu-img sees it: block status, layer by layer.
 *
 * The tool looks at each place once, so a map that remembers would be of no use here.
 */
#ifndef IMG_STATUS_H
#define IMG_STATUS_H

#include "block/node.h"

struct img_layer {
    struct node *node;
    bool asked, holes; /* clusters may be holes in the host's file (preallocation); asked: we know */
};
struct img_chain {
    struct img_layer *layers; /* the top first */
    size_t n;
};
struct img_status {
    uint64_t len;
    bool present;     /* a layer of the chain says it; else it is the chain's end that reads as zeroes */
    bool data, zero;  /* it has to be read; it is known to read as zeroes */
    bool has_host;
    uint64_t host;    /* where in the file of `node` */
    unsigned depth;   /* of the layer that says it */
    struct node *node;
};

/* The layers from `top` down to, but without, `base` (NULL: all). */
void img_chain_init(struct img_chain *chain, struct node *top, const struct node *base);
void img_chain_free(struct img_chain *chain);
/* The longest uniform piece at `offset`, at most `len` bytes.  0 or -errno. */
int co_img_status(struct img_chain *chain, uint64_t offset, uint64_t len, struct img_status *out);

#endif
