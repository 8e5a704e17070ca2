/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a copier is going to move (see copier-count.h).
 */
#include "block/copier-count.h"

#include <stdlib.h>

#include "core/mem.h"

#define WORK_AT_ONCE 1024       /* cursors passed */
#define LOOK_WORK 32            /* and what a look into tables counts for */
#define NOTHING_NOTED UINT64_MAX

struct count_cursor {
    struct node *node;
    enum extent_kind kind; /* of what lies before `end` */
    uint64_t end;
};

void copier_count_begin(struct copier_count *cc, const struct copier *copier, uint64_t from, uint64_t to,
                        void (*note)(void *arg, uint64_t offset, uint64_t bytes), void *arg)
{
    *cc = (struct copier_count){ .copier = copier, .at = from, .end = to, .noted = NOTHING_NOTED, .note = note, .arg = arg };
    for (struct node *node = copier->target; node && node != copier->base; node = node->backing) {
        cc->layers = mem_reallocarray(cc->layers, cc->n + 1, sizeof(*cc->layers));
        cc->layers[cc->n++] = (struct count_cursor){ .node = node };
    }
}

void copier_count_end(struct copier_count *cc)
{
    free(cc->layers);
    cc->layers = NULL;
}

/* The run of this layer at the sweep. */
static unsigned co_look(const struct copier_count *cc, struct count_cursor *cur)
{
    struct node *node = cur->node;
    uint64_t at = cc->at;
    struct extent e = { .kind = EXTENT_ZERO, .len = cc->end - at }; /* beyond its end: chain-map-fill.c says why */

    if (at < node->size) {
        uint64_t max = MIN(cc->end, node->size) - at;

        e = (struct extent){ .kind = EXTENT_OPAQUE, .len = max };
        if (node->driver->co_map) {
            node->driver->co_map(node, at, max, &e); /* what cannot be read is EXTENT_OPAQUE, too */
        }
    }
    cur->kind = e.kind;
    cur->end = at + e.len;
    return LOOK_WORK;
}

/* A part of a cluster: the copier takes the whole one, once. */
static void note_piece(struct copier_count *cc, uint64_t at, bool wanted)
{
    const struct node *target = cc->copier->target;
    uint64_t cluster = ROUND_DOWN(at, target->cluster_size);

    if (wanted && cluster != cc->noted) {
        cc->noted = cluster;
        cc->note(cc->arg, cluster, MIN((uint64_t)target->cluster_size, target->size - cluster));
    }
}

/* [at, to) is alike: is it to be brought in, and is it data? */
static void note_run(struct copier_count *cc, uint64_t to, bool wanted, bool data)
{
    uint32_t unit = cc->copier->target->cluster_size;
    uint64_t at = cc->at, whole;

    if (at % unit) {
        note_piece(cc, at, wanted);
        at = MIN(ROUND_UP(at, unit), to);
    }
    whole = to >= cc->copier->target->size ? to - at : ROUND_DOWN(to - at, unit);
    if (data && whole) {
        cc->note(cc->arg, at, whole);
    }
    if (at + whole < to) {
        note_piece(cc, at + whole, wanted);
    }
}

bool co_copier_count_go_on(struct copier_count *cc)
{
    for (unsigned work = 0; work < WORK_AT_ONCE && cc->at < cc->end;) {
        enum extent_kind kind = EXTENT_NONE;
        uint64_t to = cc->end;
        unsigned depth;

        for (depth = 0; depth < cc->n && kind == EXTENT_NONE; depth++, work++) {
            struct count_cursor *cur = &cc->layers[depth];
            if (cur->end <= cc->at) {
                work += co_look(cc, cur);
            }
            kind = cur->kind;
            to = MIN(to, cur->end);
        }
        bool own = depth == 1 && kind != EXTENT_OPAQUE;
        bool wanted = !own && kind != EXTENT_NONE && (kind != EXTENT_ZERO || cc->copier->base);
        note_run(cc, to, wanted, wanted && kind != EXTENT_ZERO);
        cc->at = to;
    }
    return cc->at < cc->end;
}
