/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2: the driver's options: how much memory the caches of tables may have, and what QEMU's driver is tuned with, which is
 * looked at and does nothing here.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "block/qcow2.h"
#include "core/mem.h"

#define L2_BUDGET_WRITABLE (1u << 20) /* 8 GiB of disk with clusters of 64 KiB */
#define L2_BUDGET_READ_ONLY (128u << 10)
#define REFCOUNT_BUDGET (256u << 10)

static size_t budget(uint64_t asked, size_t fallback)
{
    return asked ? MIN(asked, SIZE_MAX / 2) : fallback;
}

/* A layer that is only read gets little: the chain map remembers what it said. */
size_t qcow2_l2_budget(const struct qcow2 *q, bool writable)
{
    return budget(q->l2_budget, writable ? L2_BUDGET_WRITABLE : L2_BUDGET_READ_ONLY);
}

size_t qcow2_refcount_budget(const struct qcow2 *q)
{
    return budget(q->refcount_budget, REFCOUNT_BUDGET);
}

/* `both` bytes for both caches: who was not given a part of its own gets what is left, counts a quarter of all at most. */
static int divide_budget(struct qcow2 *q, uint64_t both, struct error *err)
{
    if (q->l2_budget && q->refcount_budget) {
        error_set(err, "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
        return -EINVAL;
    }
    if (q->l2_budget > both || q->refcount_budget > both) {
        error_set(err, "%s may not exceed cache-size", q->l2_budget > both ? "l2-cache-size" : "refcount-cache-size");
        return -EINVAL;
    }
    if (!q->refcount_budget) {
        q->refcount_budget = MAX(q->l2_budget ? both - q->l2_budget : MIN(both / 4, (uint64_t)REFCOUNT_BUDGET), 1u);
    }
    if (!q->l2_budget) {
        q->l2_budget = MAX(both - q->refcount_budget, 1u);
    }
    return 0;
}

static int take_overlap_check(struct node *node, struct error *err)
{
    json_t *whole = json_object_get(node->options, "overlap-check");
    const char *check = json_string_value(json_is_object(whole) ? json_object_get(whole, "template") : whole);

    json_object_del(node->unused, "overlap-check");
    if (check && strcmp(check, "none") && strcmp(check, "constant") && strcmp(check, "cached") && strcmp(check, "all")) {
        error_set(err, "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any of the following: "
                       "none, constant, cached, all", check);
        return -EINVAL;
    }
    return 0;
}

/* What tunes QEMU's driver and has no counterpart here (counts are always kept exactly): checked, nothing more. */
static int take_idle_options(struct node *node, struct error *err)
{
    static const char *const switches[] = { "pass-discard-request", "pass-discard-snapshot",
                                            "pass-discard-other" };
    uint64_t interval = 0;

    if (node_option_size(node, "cache-clean-interval", &interval, err)) {
        return -EINVAL;
    }
    if (interval > UINT32_MAX) {
        error_set(err, "Cache clean interval too big");
        return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
        bool on;

        if (node_option_bool(node, switches[i], &on, err) < 0) {
            return -EINVAL;
        }
    }
    return take_overlap_check(node, err);
}

int qcow2_check_options(struct qcow2 *q, struct error *err)
{
    uint64_t entry = q->cluster_size;
    bool lazy = false;

    if (node_option_size(q->node, "l2-cache-entry-size", &entry, err) || node_option_bool(q->node, "lazy-refcounts", &lazy, err)) {
        return -EINVAL;
    }
    if (entry < NODE_SECTOR || entry > q->cluster_size || (entry & (entry - 1))) {
        error_set(err, "L2 cache entry size must be a power of two between %u and the cluster size (%u)", NODE_SECTOR,
                  q->cluster_size);
        return -EINVAL;
    }
    if (lazy && q->h.version < 3) {
        error_set(err, "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
        return -EINVAL;
    }
    return 0;
}

int qcow2_take_options(struct qcow2 *q, struct error *err)
{
    uint64_t both = 0;
    int ret = node_option_size(q->node, "l2-cache-size", &q->l2_budget, err);

    ret = ret ? ret : node_option_size(q->node, "refcount-cache-size", &q->refcount_budget, err);
    ret = ret ? ret : node_option_size(q->node, "cache-size", &both, err);
    ret = ret ? ret : take_idle_options(q->node, err);
    return ret || !both ? ret : divide_budget(q, both, err);
}
