/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done with a finding: fewer operations that show it, too; one state again.  See explore.h.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "explore/states.h"

/* --- Fewer operations ------------------------------------------------------------------------- */

static bool co_is_bad(struct explore *x, const struct plan *plan, FILE *out)
{
    struct explore_options options = x->options;
    struct explore *other;
    bool bad;

    options.out = out;
    other = explore_new(&options);
    bad = !x->spoiled && !co_explore_plan(other, plan);
    x->spoiled = x->spoiled || other->spoiled;
    explore_free(other);
    return bad;
}

void co_explore_shrink(struct explore *x, const struct plan *plan)
{
    struct plan best = *plan;
    unsigned n = best.n;

    while (n-- > 0) {
        struct plan fewer = best;

        memmove(fewer.step + n, fewer.step + n + 1, (fewer.n - n - 1) * sizeof(*fewer.step));
        fewer.n--;
        fewer.step[0].side = false;
        if (fewer.n && plan_makes_sense(&fewer) && co_is_bad(x, &fewer, NULL)) {
            best = fewer;
        }
    }
    for (unsigned i = 0; i < best.n; i++) {
        struct plan plainer = best;

        plainer.step[i].salt = 0;
        plainer.step[i].side = false;
        if (co_is_bad(x, &plainer, NULL)) {
            best = plainer;
        }
    }
    if (x->options.out && memcmp(&best, plan, sizeof(best)) != 0) {
        fprintf(x->options.out, "the same in a plan with as little in it as shows it:\n");
        (void)co_is_bad(x, &best, x->options.out);
    }
}

/* --- Replay ----------------------------------------------------------------------------------- */

/* The value of "key=" in a line of words, malloc'ed; NULL when it is not there. */
static char *value_of(const char *line, const char *key)
{
    size_t len = strlen(key);

    for (const char *at = line; (at = strstr(at, key)); at += len) {
        if ((at == line || at[-1] == ' ') && at[len] == '=') {
            return mem_strndup(at + len + 1, strcspn(at + len + 1, " \n"));
        }
    }
    return NULL;
}

int co_explore_replay(const char *line, FILE *out)
{
    AUTOFREE char *seed = value_of(line, "seed"), *text = value_of(line, "plan"),
                  *points = value_of(line, "points"), *cut = value_of(line, "cut"),
                  *keep = value_of(line, "keep"), *then = value_of(line, "then"),
                  *again = value_of(line, "again");
    struct explore_options options = { .seed = seed ? strtoull(seed, NULL, 0) : 1,
                                       .out = out,
                                       .points_max = points ? strtoul(points, NULL, 0) : 0 };
    struct explore *x;
    struct plan plan;
    bool good;

    if (!text || !plan_parse(text, &plan) || !cut != !keep || !then != !again) {
        return -1;
    }
    x = explore_new(&options);
    x->replay = true;
    x->only_keep = keep;
    x->only_again_keep = again;
    x->only_point = cut ? strtoull(cut, NULL, 10) : SIZE_MAX;
    x->only_again = then ? strtoull(then, NULL, 10) : SIZE_MAX;
    good = co_explore_plan(x, &plan);
    explore_free(x);
    return !good;
}
