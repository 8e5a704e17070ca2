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
#include "jobs/job.h"

struct shape {
    const char *name;
    unsigned layers;
    bool raw_base;   /* the lowest layer is raw */
    bool short_base; /* the lowest layer ends in the middle of the disk */
    bool packed;     /* some clusters of all layers are compressed */
    bool inner;      /* all layers have an internal snapshot */
    bool smallest;   /* long sequences are run on it */
};
struct format {
    const char *name;
    uint32_t cluster; /* bytes */
    unsigned version;
    bool extended;
    bool lazy;        /* lazy reference counts: dirty at first, with counts that are too small */
    bool zstd;        /* how clusters are compressed; else zlib */
    unsigned refcount_bits; /* 0: 16 */
    bool rare;        /* for swarms only */
};
extern const struct shape shapes[];
extern const unsigned n_shapes;
extern const struct format formats[];
extern const unsigned n_formats;

enum { WORLD_OVERLAYS = 4, WORLD_CREATED = 8, WORLD_IMAGES = 10, NO_IMAGE = -1, WORLD_SIZES = 12 };
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
        uint64_t size[WORLD_SIZES]; /* bytes of its disk: one of these */
    } image[WORLD_IMAGES];
};

struct world {
    const struct shape *shape;
    const struct format *format;
    struct model model;
    struct disk *disk;
    struct world_view view;
    bool over;     /* everything has been closed in order */
    bool small;    /* small caches */
    bool name_mid; /* the image below the top is to be called "mid" */
    unsigned jobs, spelling, resizes;
    int reshapers, alone; /* operations under way that change top or size; that must not meet those */
    bool faulty;   /* the disk fails: requests may, too */
    bool dropping; /* ... in a way that a new process cannot know of */
    enum job_on_error job_policy; /* what jobs do then */
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
/* Do such a chain and such images exist? */
bool world_makes_sense(const struct shape *shape, const struct format *format);
void world_free(struct world *w);
/* Open the chain from view.top on and put the disk above it.  False: told in `broken`. */
bool co_world_open(struct world *w);
void co_world_close(struct world *w);
void world_break(struct world *w, unsigned rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void world_changed(struct world *w);
/* It has this size for certain; it may have this one, too. */
void world_sized(struct world_known *known, uint64_t size);
void world_may_be_sized(struct world_known *known, uint64_t size);
bool world_size_is_known(const struct world_known *known, uint64_t size);
/* Find out which image the guest writes to now. */
void world_look(struct world *w);

#endif
