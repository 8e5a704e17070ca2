/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plans as text, and running them: see plan.h.
 */
#include "explore/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "explore/claims.h"

#define SMALL "small:"
#define FAULTS "faults~"
#define LIES "lies~"
#define SIDE_POLL_NS (10 * NS_PER_US)

char *plan_print(const struct plan *plan)
{
    char faults[32] = "";
    char *text;

    if (plan->faults) {
        snprintf(faults, sizeof(faults), "%s%u:", plan->lies ? LIES : FAULTS, plan->faults);
    }
    text = mem_printf("%s%s%s/%s/", plan->small ? SMALL : "", faults, plan->shape->name,
                      plan->format->name);

    for (unsigned i = 0; i < plan->n; i++) {
        const struct step *step = &plan->step[i];
        char salt[16] = "";
        char *longer;

        if (step->salt) {
            snprintf(salt, sizeof(salt), "~%u", step->salt);
        }
        longer = mem_printf("%s%s%s%s", text,
                            i == 0       ? ""
                            : step->side ? "&"
                                         : "+",
                            step->op->name, salt);
        free(text);
        text = longer;
    }
    return text;
}

static bool parse_step(const char *text, size_t len, struct step *step)
{
    AUTOFREE char *name = mem_strndup(text, len);
    char *salt = strchr(name, '~');

    if (salt) {
        *salt++ = '\0';
        step->salt = strtoul(salt, NULL, 10);
    }
    step->op = operation_find(name);
    return step->op;
}

bool plan_parse(const char *text, struct plan *plan)
{
    size_t len;

    *plan = (struct plan){ 0 };
    if (strncmp(text, SMALL, strlen(SMALL)) == 0) {
        plan->small = true;
        text += strlen(SMALL);
    }
    plan->lies = strncmp(text, LIES, strlen(LIES)) == 0;
    if (plan->lies || strncmp(text, FAULTS, strlen(FAULTS)) == 0) {
        char *end;

        plan->faults = strtoul(strchr(text, '~') + 1, &end, 10);
        if (!plan->faults || *end != ':') {
            return false;
        }
        text = end + 1;
    }
    len = strcspn(text, "/");
    for (unsigned i = 0; i < n_shapes; i++) {
        if (strlen(shapes[i].name) == len && memcmp(shapes[i].name, text, len) == 0) {
            plan->shape = &shapes[i];
        }
    }
    text += len + (text[len] == '/');
    len = strcspn(text, "/");
    for (unsigned i = 0; i < n_formats; i++) {
        if (strlen(formats[i].name) == len && memcmp(formats[i].name, text, len) == 0) {
            plan->format = &formats[i];
        }
    }
    text += len + (text[len] == '/');
    while (*text && plan->n < PLAN_MAX) {
        struct step *step = &plan->step[plan->n++];

        step->side = *text == '&';
        text += *text == '&' || *text == '+';
        len = strcspn(text, "+&");
        if (!parse_step(text, len, step)) {
            return false;
        }
        text += len;
    }
    return plan->shape && plan->format && plan->n && !*text;
}

/* Operations that sequences are made of. */
static unsigned n_numbered(void)
{
    unsigned n = n_operations;

    while (operations[n - 1].looks) {
        n--;
    }
    return n;
}

uint64_t plan_count(unsigned len)
{
    uint64_t count = n_numbered();

    while (len-- > 1) {
        count *= 2 * n_numbered();
    }
    return count;
}

void plan_number(const struct shape *shape, const struct format *format, unsigned len,
                 uint64_t number, struct plan *plan)
{
    unsigned n = n_numbered();

    *plan = (struct plan){ .shape = shape, .format = format, .n = len };
    for (unsigned i = 0; i < len; i++) {
        plan->step[i].op = &operations[number % n];
        number /= n;
        if (i > 0) {
            plan->step[i].side = number % 2;
            number /= 2;
        }
    }
}

void plan_draw(uint64_t seed, struct plan *plan)
{
    struct random rnd;

    random_seed(&rnd, seed);
    *plan = (struct plan){ 0 };
    do {
        plan->shape = &shapes[random_below(&rnd, n_shapes)];
        plan->format = &formats[random_below(&rnd, n_formats)];
    } while (!world_makes_sense(plan->shape, plan->format));
    plan->small = random_below(&rnd, 2);
    plan->faults = random_below(&rnd, 3) ? 0 : 1 + random_below(&rnd, 1000000);
    plan->lies = plan->faults % 4 == 1;
    plan->n = 4 + random_below(&rnd, PLAN_MAX - 4);
    for (unsigned i = 0; i < plan->n; i++) {
        struct step *step = &plan->step[i];

        do {
            step->op = &operations[random_below(&rnd, n_operations)];
        } while (step->op->layers > plan->shape->layers || (step->op->apart && plan->faults));
        step->salt = random_below(&rnd, 4) ? 1 + random_below(&rnd, 1000000) : 0;
        step->side = i > 0 && random_below(&rnd, 2) && !step->op->apart && !step[-1].op->apart;
    }
}

bool plan_makes_sense(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->n; i++) {
        const struct operation *op = plan->step[i].op;

        if (op->layers > plan->shape->layers) {
            return false;
        }
        if (op->apart &&
            (plan->step[i].side || (i + 1 < plan->n && plan->step[i + 1].side) || plan->faults)) {
            return false;
        }
    }
    return world_makes_sense(plan->shape, plan->format);
}

bool plan_needs_second(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->n; i++) {
        if (plan->step[i].op->second) {
            return true;
        }
    }
    return false;
}

unsigned plan_last_group(const struct plan *plan)
{
    unsigned first = plan->n - 1;

    while (plan->step[first].side) {
        first--;
    }
    return first;
}

struct side {
    struct world *w;
    const struct step *step;
};

static void co_step(struct world *w, const struct step *step)
{
    if (w->disk && !w->broken_rule) { /* else it could not be opened again, or what follows means nothing */
        int top = w->view.top, top2 = w->view.top2;

        world_begins(w);
        claim(w, top);
        claim(w, top2);
        step->op->co_run(w, step->op, step->salt);
        claim_end(w, top);
        claim_end(w, top2);
        claims_settle(w);
        world_ends(w);
    }
}

static CO_ENTRY void co_side(void *arg)
{
    struct side *side = arg;

    co_step(side->w, side->step);
    side->w->running--;
    free(side);
}

static void co_wait_for_sides(struct world *w)
{
    while (w->running) {
        co_sleep_ns(SIDE_POLL_NS);
    }
}

void co_plan_run(struct world *w, const struct plan *plan, unsigned first)
{
    for (unsigned i = first; i < plan->n; i++) {
        const struct step *step = &plan->step[i];

        if (!step->side) {
            co_wait_for_sides(w);
            w->step = i;
        }
        if (i + 1 < plan->n && plan->step[i + 1].side) {
            struct side *side = mem_alloc(sizeof(*side));

            *side = (struct side){ w, step };
            w->running++;
            co_start(co_side, side);
        } else {
            co_step(w, step);
        }
    }
    co_wait_for_sides(w);
    w->step = plan->n;
}
