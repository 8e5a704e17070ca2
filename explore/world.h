/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world of a run: one chain of images on the simulated disk, one disk on top of it, the model
 * of its content, and what is known of every image at each moment.
 *
 * Images have slots: the first layers, the lowest first; overlays that snapshots made; images that
 * were merely created.  A slot's path never changes.
 */
#ifndef EXPLORE_WORLD_H
#define EXPLORE_WORLD_H

#include "block/disk.h"
#include "explore/model.h"

struct shape {
    const char *name;
    unsigned layers;
    bool raw_base;
    bool short_base; /* the lowest layer ends in the middle of the disk */
};
struct format {
    const char *name;
    uint32_t cluster; /* bytes */
    unsigned version;
    bool extended;
};
extern const struct shape shapes[];
extern const unsigned n_shapes;
extern const struct format formats[];
extern const unsigned n_formats;

enum { WORLD_OVERLAYS = 4, WORLD_CREATED = 8, WORLD_IMAGES = 10, NO_IMAGE = -1 };
#define WORLD_BIT(slot) (1u << ((slot) + 1)) /* NO_IMAGE has one, too */
const char *world_path(int slot);
/* The slot that a recorded name means, seen from an image of ours; NO_IMAGE when none. */
int world_slot(const char *name);

/* What is known at one moment. */
struct world_view {
    int top; /* slot: where the guest writes */
    struct world_known {
        bool made;        /* it may be there */
        bool sure;        /* it must be there, whole: somebody was told so */
        unsigned backing; /* what its header may name: WORLD_BIT()s */
    } image[WORLD_IMAGES];
};

struct world {
    const struct shape *shape;
    const struct format *format;
    struct model model;
    struct disk *disk;
    struct world_view view;
    bool small;    /* small caches */
    bool name_mid; /* the image below the top is to be called "mid" */
    unsigned jobs, spelling;
    unsigned step;                     /* of the plan: the first one that may not have ended */
    int running;                       /* operations that run side by side */
    uint64_t first_hash[WORLD_IMAGES]; /* of the first layers as they were at first */
    uint64_t first_unknown[WORLD_IMAGES];
    bool may_change[WORLD_IMAGES];
    /* Told after each change of what is known. */
    void (*on_change)(void *arg);
    void *arg;
    /* The first thing that went wrong while the program ran. */
    unsigned broken_rule;
    char broken[200];
};

/* Make the images on the simulated disk (which is reset) and the model. */
void co_world_make(struct world *w, const struct shape *shape, const struct format *format,
                   uint64_t seed);
void world_free(struct world *w);
/* Open the chain from view.top on and put the disk above it.  False: told in `broken`. */
bool co_world_open(struct world *w);
void co_world_close(struct world *w);
void world_break(struct world *w, unsigned rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void world_changed(struct world *w);
/* Find out which image the guest writes to now. */
void world_look(struct world *w);

#endif
