/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world of a run: one chain of images on the simulated disk, one disk on top of it, the model
 * of its content, and what is known of every image at each moment.
 *
 * Images have slots: the first layers, the lowest first; overlays that snapshots made; images that
 * were merely created; the second disk's first image and its overlays.  A slot's path never
 * changes.
 * There is a second disk only in plans that need one: it shares nothing with the first.
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

enum {
    WORLD_OVERLAYS = 4, WORLD_CREATED = 8, WORLD_SECOND = 10, WORLD_SECOND_OVERLAYS = 11,
    WORLD_IMAGES = 13, NO_IMAGE = -1, WORLD_SIZES = 12, WORLD_INNER = 2,
};
#define WORLD_BIT(slot) (1u << ((slot) + 1)) /* NO_IMAGE has one, too */
const char *world_path(int slot);
extern const char *const world_inner_names[WORLD_INNER];
/* The slot that a recorded name means, seen from an image of ours; NO_IMAGE when none. */
int world_slot(const char *name);

/* What is known at one moment. */
struct world_view {
    int top, top2; /* slots: where the guest writes, on the first disk, on the second (or none) */
    struct world_known {
        bool made;        /* it may be there */
        bool named;       /* its name must be there: somebody was told so */
        bool sure;        /* ... and it must be whole */
        unsigned backing; /* what its header may name: WORLD_BIT()s */
        bool empty;       /* a commit has emptied it, and nobody has written to it since */
        bool in_change;   /* internal snapshots are being changed: it may be dirty, flags may lie */
        uint64_t size[WORLD_SIZES]; /* bytes of its disk: one of these */
        uint64_t loose;   /* clusters that may leak if the power goes now, the driver says */
        uint64_t still;   /* nobody may write to it, and this is its hash; 0: somebody may */
        bool marked;      /* the disk has lied, it was found out, and the corrupt bit is durable */
        /* Internal snapshots: "inner", which some images have from the first, and "made". */
        struct world_inner {
            bool may_be, must_be;
            uint64_t content; /* as the checker sums it up */
        } inner[WORLD_INNER];
    } image[WORLD_IMAGES];
};

struct world {
    const struct shape *shape;
    const struct format *format;
    struct model model;
    struct disk *disk, *disk2;
    struct world_view view;
    bool over;     /* everything has been closed in order */
    bool small;    /* small caches */
    bool name_mid; /* the image below the top is to be called "mid" */
    unsigned jobs, spelling, resizes;
    /* Operations under way that change top or size; that must not meet those. */
    int reshapers, alone;
    int group, group2;    /* slots: the overlays that both disks are to get at one moment */
    unsigned begun, active; /* operations: all so far; under way */
    bool faulty;   /* the disk fails: requests may, too */
    bool lying;    /* ... or it lies about anything: faults.h says what holds then */
    bool tearing;  /* transfers may end within a sector */
    bool dropping; /* ... in a way that a new process cannot know of */
    enum job_on_error job_policy; /* what jobs do then */
    unsigned step;                     /* of the plan: the first one that may not have ended */
    int running;                       /* operations that run side by side */
    uint64_t first_hash[WORLD_IMAGES]; /* of the first layers as they were at first */
    unsigned claims[WORLD_IMAGES];     /* who writes to it: see claims.h */
    uint64_t leaked[WORLD_IMAGES]; /* clusters, before the run began */
    /* Told after each change of what is known. */
    void (*on_change)(void *arg);
    void *arg;
    /* The first thing that went wrong while the program ran. */
    unsigned broken_rule;
    char broken[200];
};

/* Make the images on the simulated disk (which is reset) and the model. */
void co_world_make(struct world *w, const struct shape *shape, const struct format *format,
                   bool second, uint64_t seed);
/* Do such a chain and such images exist? */
bool world_makes_sense(const struct shape *shape, const struct format *format);
void world_free(struct world *w);
/* Open the chain from view.top on and put the disk above it, and so for the second disk.  False: told in `broken`, and
 * nothing is open. */
bool co_world_open(struct world *w);
/* Close it in order; it may be opened again. */
void co_world_put_away(struct world *w);
/* The same, for good. */
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
/* Is the image marked corrupt, as it is on the medium for certain, or as readers see it? */
bool world_is_marked(int slot, bool durable);
/* An operation begins and ends. */
void world_begins(struct world *w);
void world_ends(struct world *w);
static inline bool world_is_first(int slot) /* was it there when the run began? */
{
    return slot < WORLD_OVERLAYS || slot == WORLD_SECOND;
}
static inline bool world_is_top(const struct world_view *view, int slot)
{
    return slot == view->top || slot == view->top2;
}

#endif
