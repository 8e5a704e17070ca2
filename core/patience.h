/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether looking for news for a short while, awake, has been worth it lately.
 *
 * To sleep and be woken takes longer than what is waited for often does.  Who has looked in vain sleeps at once the next times, twice
 * as often after each failure: a slow disk, a slow guest or a single processor make looking useless, and soon it costs
 * nothing.
 */
#ifndef CORE_PATIENCE_H
#define CORE_PATIENCE_H

#include <stdbool.h>

#include "core/mem.h"

#define PATIENCE_NS 20000u /* one look at most */
#define PATIENCE_SKIP_MAX 256u

struct patience {
    unsigned skip; /* so many times not, after the last failure */
    unsigned left; /* of those */
};

/* Look now?  Whoever does says afterwards how it went. */
static inline bool patience_has(struct patience *p)
{
    if (p->left) {
        p->left--;
        return false;
    }
    return true;
}

static inline void patience_learn(struct patience *p, bool found)
{
    p->skip = found ? 0 : MIN(2 * p->skip + 1, PATIENCE_SKIP_MAX);
    p->left = p->skip;
}

#endif
