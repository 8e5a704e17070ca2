/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guard: no write of guest data and no allocation ever touches a cluster that holds metadata.
 *
 * In a sound image that cannot happen.  In a broken or hostile one an L2 entry may point to the
 * header, or a refcount block may call the L1 table's clusters free; written to, such an image
 * would destroy itself or obey the guest.  The single tables (header, L1, reftable, snapshots) are
 * compared as ranges, L2 tables and refcount blocks through a hash of their clusters, built before
 * the first write from tables that are in memory anyway.
 *
 * Not looked at: L2 tables that only internal snapshots use, as finding them means reading them.
 */
#include "block/qcow2-refcount.h"

#include <errno.h>
#include <inttypes.h>
#include <uthash.h>

#include "core/mem.h"

struct qcow2_guarded {
    UT_hash_handle hh;
    uint64_t index; /* of the cluster */
    uint32_t users; /* entries that lead to it: the active L1 table may share an L2 table with itself */
    bool still;     /* found so: is not changed in place */
    const char *what;
};

/* Does [offset, offset + len) touch the clusters of a table of `n` bytes?  An L1 table of a disk without a byte has none. */
static bool touches(const struct qcow2 *q, uint64_t offset, uint64_t len, uint64_t from, uint64_t n)
{
    return n > 0 && offset < from + ROUND_UP(n, (uint64_t)q->cluster_size) && from < offset + len;
}

/* The tables that are one range each. */
static const char *hit_range(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    if (offset < q->cluster_size) {
        return "qcow2_header";
    }
    if (touches(q, offset, len, q->h.l1_offset, (uint64_t)q->h.l1_size * 8)) {
        return "active L1 table";
    }
    if (touches(q, offset, len, q->h.reftable_offset,
                (uint64_t)q->h.reftable_clusters * q->cluster_size)) {
        return "refcount table";
    }
    for (uint32_t i = 0; i < q->h.nb_snapshots; i++) {
        if (touches(q, offset, len, q->snapshots[i].l1_offset,
                    (uint64_t)q->snapshots[i].l1_size * 8)) {
            return "inactive L1 table";
        }
    }
    if (q->h.nb_snapshots > 0 && touches(q, offset, len, q->h.snapshots_offset, q->snapshots_len)) {
        return "snapshot table";
    }
    return NULL;
}

static struct qcow2_guarded *find(const struct qcow2_refs *refs, uint64_t index)
{
    struct qcow2_guarded *g;

    HASH_FIND(hh, refs->guarded, &index, sizeof(index), g);
    return g;
}

static const char *guard_hit(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    const char *what = hit_range(q, offset, len);
    uint64_t last = (offset + len - 1) / q->cluster_size;

    for (uint64_t index = offset / q->cluster_size; !what && index <= last; index++) {
        struct qcow2_guarded *g = find(refs, index);

        if (g) {
            what = g->what;
        }
    }
    return what;
}

void qcow2_guard_add(struct qcow2 *q, uint64_t offset, const char *what)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_guarded *g = mem_zalloc(sizeof(*g));

    g->index = offset / q->cluster_size;
    g->users = 1;
    g->what = what;
    HASH_ADD(hh, refs->guarded, index, sizeof(g->index), g);
}

void qcow2_guard_remove(struct qcow2 *q, uint64_t offset)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_guarded *g = find(refs, offset / q->cluster_size);

    if (g && --g->users == 0) {
        HASH_DEL(refs->guarded, g);
        free(g);
    }
}

static void note_still(struct qcow2 *q, uint64_t entry)
{
    struct qcow2_guarded *g = find(qcow2_refs(q), (entry & QCOW2_L1_OFFSET_MASK) / q->cluster_size);

    if (g) {
        g->still = !(entry & QCOW2_COPIED);
    }
}

/* Another entry leads to the same L2 table.  If the table is never changed in place (it is not COPIED) that does no harm: it
 * counts twice, and whoever writes first takes a copy. */
static bool share_table(struct qcow2 *q, uint64_t entry)
{
    struct qcow2_guarded *g = find(qcow2_refs(q), (entry & QCOW2_L1_OFFSET_MASK) / q->cluster_size);
    bool shared = g && g->still && !(entry & QCOW2_COPIED);

    if (shared) {
        g->users++;
        qcow2_refs(q)->guard_shared = true;
    }
    return shared;
}

static int co_add_table(struct qcow2 *q, uint64_t offset, const char *what)
{
    const char *other;

    if (offset % q->cluster_size != 0) {
        return 0; /* told when somebody uses it */
    }
    other = guard_hit(q, offset, q->cluster_size);
    if (other) {
        return co_qcow2_signal_corruption(q, true, offset, q->cluster_size,
                                          "%s at offset %#" PRIx64 " overlaps with %s", what,
                                          offset, other);
    }
    qcow2_guard_add(q, offset, what);
    return 0;
}

int co_qcow2_guard_build(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    int ret = 0;

    if (refs->guard_built) {
        return 0;
    }
    for (uint64_t t = 0; t < q->reftable_entries && ret == 0; t++) {
        uint64_t offset = q->reftable[t] & QCOW2_REFTABLE_OFFSET_MASK;
        if (offset != 0) {
            ret = co_add_table(q, offset, "refcount block");
        }
    }
    for (uint32_t i = 0; i < q->h.l1_size && ret == 0; i++) {
        uint64_t offset = q->l1[i] & QCOW2_L1_OFFSET_MASK;
        if (offset != 0 && !share_table(q, q->l1[i])) {
            ret = co_add_table(q, offset, "active L2 table");
            note_still(q, q->l1[i]);
        }
    }
    refs->guard_built = ret == 0;
    return ret;
}

int co_qcow2_guard_check(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    const char *what;
    int ret = co_qcow2_guard_build(q);

    if (ret < 0) {
        return ret;
    }
    what = guard_hit(q, offset, len);
    return what ? co_qcow2_signal_corruption(
                      q, true, offset, len,
                      "Preventing invalid write on metadata (overlaps with %s)", what)
                : 0;
}

int co_qcow2_guard_check_drop(struct qcow2 *q, uint64_t first, uint64_t n)
{
    int ret = co_qcow2_guard_build(q);

    if (ret == 0 && !qcow2_refs(q)->guard_shared) {
        return co_qcow2_guard_check(q, first * q->cluster_size, n * q->cluster_size);
    }
    for (uint64_t i = first; i < first + n && ret == 0; i++) {
        struct qcow2_guarded *g = find(qcow2_refs(q), i);
        uint64_t count = 0;

        if (g && g->still) {
            ret = co_qcow2_refcount_get(q, i, &count);
        }
        if (ret == 0 && count < 2) {
            ret = co_qcow2_guard_check(q, i * q->cluster_size, q->cluster_size);
        }
    }
    return ret;
}

void qcow2_guard_close(struct qcow2 *q)
{
    struct qcow2_refs *refs = qcow2_refs(q);
    struct qcow2_guarded *g, *next;

    HASH_ITER(hh, refs->guarded, g, next) {
        HASH_DEL(refs->guarded, g);
        free(g);
    }
}

void qcow2_guard_rebuild(struct qcow2 *q)
{
    qcow2_guard_close(q);
    qcow2_refs(q)->guarded = NULL;
    qcow2_refs(q)->guard_built = false;
}
