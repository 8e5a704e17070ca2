/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A check for people: everything that is wrong with an image, a line each, in QEMU's words; and repairs that do no more than
 * they must.
 *
 *     walk       follow all references and count them; what cannot be is said and left out (qcow2-check.c)
 *     structures the reference count table and its blocks count too
 *     compare    each cluster's count with what was counted: too high is a leak, too low an error
 *     COPIED     bit 63 must say "the count is one" (Q4), by the counts on disk
 *
 * Repairs: a wrong count is set in place, a leak loses its surplus references in the usual way of freed clusters, both in the
 * order of writes that every change has; flags come last.  Where clusters in use have no count at all, or the image is marked
 * dirty or corrupt, counts are not to be trusted and are made anew (qcow2-repair.c); that changes nothing when references
 * themselves are wrong.
 */
#include <errno.h>
#include <inttypes.h>

#include "block/qcow2-check.h"
#include "block/qcow2-refcount.h"
#include "core/bytes.h"
#include "core/mem.h"

static void __attribute__((format(printf, 2, 3))) say(struct qcow2_report *r, const char *fmt, ...)
{
    va_list ap;

    if (!r->say) {
        return; /* there may be millions of lines */
    }
    va_start(ap, fmt);
    AUTOFREE char *line = mem_vprintf(fmt, ap);
    va_end(ap);
    r->say(r->arg, line);
}

void qcow2_report_beyond(struct qcow2_report *r, uint64_t offset, uint64_t len)
{
    r->corruptions++;
    say(r, "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
           "offset 0x%" PRIx64 " size 0x%" PRIx64, offset, len);
}

void qcow2_report_reserved(struct qcow2_report *r, const char *which, uint64_t entry)
{
    r->corruptions++;
    r->unmendable++;
    say(r, "ERROR found %s entry with reserved bits set: %" PRIx64, which, entry);
}

void qcow2_report_copied(struct qcow2_report *r, uint64_t offset)
{
    r->corruptions++;
    r->unmendable++;
    say(r, "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for compressed clusters", offset);
}

void qcow2_report_unaligned(struct qcow2_report *r, uint64_t offset, const char *cluster)
{
    r->corruptions++;
    if (cluster) {
        say(r, "ERROR offset=%" PRIx64 ": %s cluster is not properly aligned; L2 entry corrupted.", offset, cluster);
    } else {
        say(r, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted", offset);
    }
}

void qcow2_report_made_plain(struct qcow2_report *r, uint64_t offset)
{
    r->corruptions_fixed++;
    say(r, "Repairing offset=%" PRIx64 ": Preallocated cluster is not properly aligned; L2 entry corrupted.", offset);
}

/* --- The counts on disk ------------------------------------------------------------------------------------------- */

struct counts {
    struct qcow2 *q;
    uint64_t clusters; /* of the file */
    uint64_t loaded;   /* this block is in buf; UINT64_MAX: none */
    uint8_t *buf;
};

/* Where block `t` lies; 0 when there is none or it cannot be read. */
static uint64_t block_place(const struct counts *n, uint64_t t)
{
    uint64_t offset = t < n->q->reftable_entries ? n->q->reftable[t] & QCOW2_REFTABLE_OFFSET_MASK : 0;

    return offset % n->q->cluster_size || offset >> n->q->h.cluster_bits >= n->clusters ? 0 : offset;
}

static int co_count_on_disk(struct counts *n, uint64_t cluster, uint64_t *count)
{
    uint64_t t = cluster / n->q->refblock_entries, place = block_place(n, t);
    int ret = 0;

    *count = 0;
    if (!place) {
        return 0;
    }
    if (n->loaded != t) {
        ret = co_io_read(n->q->file, place, n->buf, n->q->cluster_size);
        n->loaded = ret ? UINT64_MAX : t;
    }
    if (!ret) {
        *count = qcow2_refcount_load(n->q, n->buf, cluster % n->q->refblock_entries);
    }
    return ret;
}

/* Stops counting when it knows, so a full image costs as little as a thin one. */
int co_qcow2_clusters_may_be_holes(struct node *node, bool *may)
{
    struct qcow2 *q = node->state;
    AUTOFREE uint8_t *buf = mem_alloc(q->cluster_size);
    struct counts n = { .q = q, .loaded = UINT64_MAX, .buf = buf };
    uint64_t size, allocated, count, used = 0;
    int ret = co_io_size(q->file, &size);

    if (!ret) {
        ret = co_io_allocated(q->file, &allocated);
    }
    if (!ret && !q->reftable) {
        ret = co_qcow2_load_reftable(q);
    }
    if (ret) {
        return ret;
    }
    n.clusters = DIV_ROUND_UP(size, (uint64_t)q->cluster_size);
    uint64_t real = allocated / q->cluster_size, enough = MAX(real * 10 / 9, real + 2);

    for (uint64_t i = 0; !ret && i < n.clusters && used < enough; i++) {
        ret = co_count_on_disk(&n, i, &count);
        used += count > 0;
    }
    *may = used >= enough;
    return ret;
}

/* --- Counting ----------------------------------------------------------------------------------------------------- */

/* Entry `t` of the reference count table.  Counts that lie where something else does are never mended in place: *rebuild.  Those
 * behind the end of the file are none, and in nobody's way. */
static int add_block(struct qcow2_check *c, struct qcow2_report *r, uint32_t t, unsigned fix, bool *rebuild,
                     struct error *err)
{
    struct qcow2 *q = c->q;
    uint64_t offset = q->reftable[t], cluster = offset >> q->h.cluster_bits;
    bool wrong = true;

    if (offset & ~QCOW2_REFTABLE_OFFSET_MASK) {
        say(r, "ERROR refcount table entry %" PRIu32 " has reserved bits set", t);
    } else if (offset % q->cluster_size) {
        say(r, "ERROR refcount block %" PRIu32 " is not cluster aligned; refcount table entry corrupted", t);
    } else if (cluster >= c->clusters) {
        say(r, "ERROR refcount block %" PRIu32 " is outside image", t);
        wrong = fix & QCOW2_FIX_ERRORS;
    } else {
        int ret = qcow2_check_add(c, offset, q->cluster_size, "a reference count block", err);

        if (ret || qcow2_check_count(c, cluster) == 1) {
            return ret;
        }
        say(r, "ERROR refcount block %" PRIu32 " refcount=%" PRIu64, t, qcow2_check_count(c, cluster));
    }
    r->corruptions++;
    *rebuild = *rebuild || wrong;
    return 0;
}

static int add_structures(struct qcow2_check *c, struct qcow2_report *r, unsigned fix, bool *rebuild, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = qcow2_check_add(c, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->h.cluster_bits,
                              "the reference count table", err);

    for (uint32_t t = 0; !ret && t < q->reftable_entries; t++) {
        ret = q->reftable[t] ? add_block(c, r, t, fix, rebuild, err) : 0;
    }
    return ret;
}

/* Say what is wrong with one cluster's count, and whether it is to be mended. */
static void judge(struct qcow2_report *r, uint64_t cluster, uint64_t has, uint64_t wants, unsigned fix, bool *mend)
{
    bool error = has < wants;

    *mend = has && fix & (error ? QCOW2_FIX_ERRORS : QCOW2_FIX_LEAKS);
    say(r, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
        *mend ? "Repairing" : error ? "ERROR" : "Leaked", cluster, has, wants);
    if (*mend) {
        *(error ? &r->corruptions_fixed : &r->leaks_fixed) += 1;
    } else {
        *(error ? &r->corruptions : &r->leaks) += 1;
    }
}

/* To what refers to it, at once, however high the count; the last reference to nothing as of any freed cluster. */
static int co_mend(struct qcow2 *q, uint64_t cluster, uint64_t has, uint64_t wants)
{
    uint64_t least = MAX(wants, (uint64_t)1);
    int ret = 0;

    if (has != least) {
        co_mutex_lock(&q->lock);
        ret = co_qcow2_refcount_set(q, cluster, least);
        co_mutex_unlock(&q->lock);
    }
    if (!ret && !wants) {
        qcow2_free_later(q, cluster << q->h.cluster_bits, q->cluster_size);
    }
    return ret;
}

/* *rebuild: there are clusters in use that nothing counts. */
static int co_compare(struct qcow2_check *c, struct counts *n, struct qcow2_report *r, unsigned fix, bool *rebuild)
{
    uint64_t has, wants, highest = 0;
    bool mend;
    int ret = 0;

    for (uint64_t i = 0; !ret && i < c->clusters; i++) {
        ret = co_count_on_disk(n, i, &has);
        wants = qcow2_check_count(c, i);
        if (has || wants) {
            highest = i;
        }
        if (ret || has == wants) {
            continue;
        }
        *rebuild = *rebuild || !has;
        judge(r, i, has, wants, fix, &mend);
        if (mend) {
            ret = co_mend(c->q, i, has, wants);
        }
    }
    r->image_end = (highest + 1) << c->q->h.cluster_bits;
    return ret;
}

/* --- COPIED ------------------------------------------------------------------------------------------------------- */

static bool flag_is_right(uint64_t entry, uint64_t count)
{
    return (count == 1) == !!(entry & QCOW2_COPIED);
}

/* Count a wrong flag; returns the word for what becomes of it. */
static const char *judge_flag(struct qcow2_report *r, bool fix)
{
    *(fix ? &r->corruptions_fixed : &r->corruptions) += 1;
    return fix ? "Repairing" : "ERROR";
}

static int co_flags_of_table(struct qcow2_check *c, struct counts *n, uint64_t table, bool fix,
                             struct qcow2_report *r)
{
    struct qcow2 *q = c->q;
    uint64_t count;
    int ret = co_io_read(q->file, table, c->buf, q->cluster_size);

    for (uint32_t i = 0; !ret && i < q->l2_entries; i++) {
        uint64_t entry = load_be64(c->buf + i * q->l2_entry_size), offset = entry & QCOW2_L2_OFFSET_MASK;

        if (entry & QCOW2_COMPRESSED || !offset) {
            continue;
        }
        ret = co_count_on_disk(n, offset >> q->h.cluster_bits, &count);
        if (!ret && !flag_is_right(entry, count)) {
            say(r, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64, judge_flag(r, fix), entry,
                count);
        }
    }
    return ret;
}

static int co_flags(struct qcow2_check *c, struct counts *n, bool fix, struct qcow2_report *r)
{
    struct qcow2 *q = c->q;
    uint64_t count;
    int ret = 0;

    for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
        uint64_t table = q->l1[i] & QCOW2_L1_OFFSET_MASK;

        if (!table) {
            continue;
        }
        ret = co_count_on_disk(n, table >> q->h.cluster_bits, &count);
        if (!ret && !flag_is_right(q->l1[i], count)) {
            say(r, "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu32 " l1_entry=%" PRIx64 " refcount=%" PRIu64,
                judge_flag(r, fix), i, q->l1[i], count);
        }
        if (!ret && table >> q->h.cluster_bits < c->clusters && qcow2_check_once(c, table, QCOW2_ONCE_FLAGS_SEEN)) {
            ret = co_flags_of_table(c, n, table, fix, r);
        }
    }
    return ret;
}

/* --- Repairs ------------------------------------------------------------------------------------------------------ */

/* What a dirty image gets before its first write: new counts where they do not agree, flags, and no mark any more.  1: references
 * themselves are wrong, nothing has changed, and nothing else is to be mended. */
static int co_rebuild(struct node *node, struct qcow2_report *r, struct error *err)
{
    struct qcow2 *q = node->state;
    uint64_t before = q->h.incompatible;
    struct error why = ERROR_INIT;

    if (r->leaks || r->corruptions) {
        say(r, "Rebuilding refcount structure");
    }
    q->h.incompatible = (before | QCOW2_INCOMPAT_DIRTY) & ~QCOW2_INCOMPAT_CORRUPT;
    int ret = co_node_set_writable(node, true, &why);

    if (ret == 0) {
        q->dirty_bit_found = false;
        r->corruptions_fixed += r->corruptions - r->unmendable;
        r->leaks_fixed = r->leaks;
        r->corruptions = r->unmendable;
        r->leaks = 0;
        return 0;
    }
    q->h.incompatible = before;
    if (ret == -EINVAL) {
        say(r, "%s", why.text);
        ret = 1;
    } else {
        error_move(err, &why);
    }
    error_clear(&why);
    return ret;
}

/* Count by count, in place; `before` is what was wrong but the counts. */
static int co_mend_counts(struct node *node, struct qcow2_check *c, struct counts *n, struct qcow2_report *r,
                          uint64_t before, unsigned fix, struct error *err)
{
    bool rebuild = false; /* not asked any more */

    if (!r->leaks && !r->corruptions) {
        return 0;
    }
    int ret = co_node_set_writable(node, true, err);

    if (ret == 0) {
        r->leaks = 0;
        r->corruptions = before;
        ret = co_compare(c, n, r, fix, &rebuild);
    }
    n->loaded = UINT64_MAX;
    return ret ? ret : co_qcow2_writeback_all(c->q);
}

/* The flags that were wrong are said to be repaired already. */
static int co_mend_flags(struct node *node, struct qcow2_check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = co_node_set_writable(node, true, err);

    if (!ret) {
        ret = co_qcow2_repair_flags(c);
    }
    return ret ? ret : co_io_flush(q->file);
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

static int co_counts(struct node *node, struct qcow2_check *c, struct counts *n, struct qcow2_report *r, unsigned fix,
                     bool rebuild, struct error *err)
{
    struct qcow2 *q = c->q;
    uint64_t before = r->corruptions;
    int ret = co_compare(c, n, r, 0, &rebuild);

    if (ret || !fix) {
        return ret;
    }
    if (q->h.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT) || (rebuild && fix & QCOW2_FIX_ERRORS)) {
        n->loaded = UINT64_MAX;
        n->clusters = UINT64_MAX; /* new blocks lie behind the old end */
        return co_rebuild(node, r, err);
    }
    if (rebuild) { /* which is not the mending of leaks that was asked for */
        say(r, "ERROR need to rebuild refcount structures");
        return -EIO;
    }
    return co_mend_counts(node, c, n, r, before, fix, err);
}

/* Said already; before the counts, so that what these clusters held is a leak at most. */
static int co_mend_askew(struct node *node, struct qcow2_check *c, struct error *err)
{
    int ret;

    if (!c->askew_count) {
        return 0;
    }
    node->wants_write++; /* the file's locks say so; the image itself is not ready to be written */
    ret = co_node_set_writable(node->file, true, err);
    for (size_t i = 0; ret == 0 && i < c->askew_count; i++) {
        uint64_t entry;

        store_be64(&entry, QCOW2_ZERO);
        ret = co_io_write(c->q->file, c->askew[i], &entry, sizeof(entry));
        qcow2_cache_forget(c->q->l2_cache, ROUND_DOWN(c->askew[i], (uint64_t)c->q->cluster_size), c->q->cluster_size);
    }
    if (ret == 0) {
        ret = co_io_flush(c->q->file);
    }
    node->wants_write--;
    return ret;
}

static int co_look(struct node *node, struct qcow2_check *c, struct counts *n, struct qcow2_report *r, unsigned fix,
                   struct error *err)
{
    bool rebuild = false;
    int ret = co_qcow2_check_walk(c, err);

    if (!ret) {
        ret = co_mend_askew(node, c, err);
    }
    if (!ret) {
        ret = add_structures(c, r, fix, &rebuild, err);
    }
    if (!ret) {
        ret = co_counts(node, c, n, r, fix, rebuild, err);
    }
    /* Flags follow the counts: they are mended only where those are good. */
    bool mend = ret == 0 && (fix & QCOW2_FIX_ERRORS || (fix && !r->corruptions && !r->leaks));
    uint64_t fixed = r->corruptions_fixed;

    if (ret >= 0) {
        ret = co_flags(c, n, mend, r);
    }
    return ret || r->corruptions_fixed == fixed ? ret : co_mend_flags(node, c, err);
}

int co_qcow2_report(struct node *node, unsigned fix, struct qcow2_report *r, struct error *err)
{
    struct qcow2 *q = node->state;
    struct counts n = { .q = q, .loaded = UINT64_MAX };
    struct qcow2_check c;
    int ret = co_qcow2_check_init(&c, q, err);

    if (ret) {
        return ret;
    }
    r->total = DIV_ROUND_UP(q->h.size, (uint64_t)q->cluster_size);
    c.report = r;
    r->fix = fix;
    n.clusters = c.clusters;
    n.buf = mem_alloc(q->cluster_size);
    ret = q->reftable ? 0 : co_qcow2_load_reftable(q);
    if (!ret) {
        ret = co_look(node, &c, &n, r, fix, err);
    }
    if (ret && !error_is_set(err)) {
        error_set_errno(err, ret, "Check failed");
    }
    free(n.buf);
    qcow2_check_free(&c);
    return ret;
}
