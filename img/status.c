/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block status: see status.h.
 *
 * Data in clusters may be a hole in the host's file all the same, when tables were preallocated; then the host is asked
 * too, as QEMU does where an image has notably fewer blocks than clusters.
 */
#include "img/status.h"

#include <string.h>

#include "block/qcow2-check.h"
#include "core/mem.h"

void img_chain_init(struct img_chain *chain, struct node *top, const struct node *base)
{
    *chain = (struct img_chain){ 0 };
    for (; top && top != base; top = top->backing) {
        chain->layers = mem_reallocarray(chain->layers, chain->n + 1, sizeof(*chain->layers));
        chain->layers[chain->n++] = (struct img_layer){ .node = top };
    }
}

void img_chain_free(struct img_chain *chain)
{
    free(chain->layers);
}

static int co_may_be_hole(struct img_layer *layer, bool *may)
{
    int ret = 0;

    if (!layer->asked && layer->node->driver == &driver_qcow2) {
        ret = co_qcow2_clusters_may_be_holes(layer->node, &layer->holes);
    }
    layer->asked = true;
    *may = layer->holes;
    return ret;
}

/* Plain data of a format: zeroes for all that, if the host has nothing there. */
static int co_ask_host(struct img_layer *layer, struct img_status *s)
{
    struct io_file *file = node_host_file(layer->node);
    uint64_t len = s->len, size;
    bool data = true, may;
    int ret = co_may_be_hole(layer, &may);

    if (ret || !may) {
        return ret;
    }
    ret = co_io_size(file, &size);
    if (!ret && s->host >= size) {
        s->zero = true;
        return 0;
    }
    if (!ret) {
        ret = co_io_map(file, s->host, &len, &data);
    }
    if (!ret) {
        s->len = len;
        s->zero = !data;
    }
    return ret;
}

static int co_from_extent(struct img_layer *layer, unsigned depth, const struct extent *e, struct img_status *out)
{
    struct node *node = layer->node;
    bool data = e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED || e->kind == EXTENT_OPAQUE;

    *out = (struct img_status){
        .len = e->len, .present = true, .data = data, .zero = e->kind == EXTENT_ZERO, .depth = depth, .node = node,
        .has_host = e->kind == EXTENT_DATA || (e->kind == EXTENT_ZERO && (!node->driver->supports_backing || e->host)),
        .host = e->host,
    };
    return e->kind == EXTENT_DATA && node->driver->supports_backing ? co_ask_host(layer, out) : 0;
}

int co_img_status(struct img_chain *chain, uint64_t offset, uint64_t len, struct img_status *out)
{
    for (unsigned depth = 0; depth < chain->n; depth++) {
        struct node *node = chain->layers[depth].node;
        struct extent e = { 0 };

        if (offset >= node->size) { /* the layer above sees zeroes here */
            *out = (struct img_status){ .len = len, .zero = true, .depth = depth - 1, .node = node };
            return 0;
        }
        int ret = node->driver->co_map(node, offset, MIN(len, node->size - offset), &e);

        if (ret < 0) {
            return ret;
        }
        len = e.len;
        if (e.kind != EXTENT_NONE) {
            return co_from_extent(&chain->layers[depth], depth, &e, out);
        }
        *out = (struct img_status){ .len = len, .zero = true, .depth = depth, .node = node };
    }
    return 0;
}
