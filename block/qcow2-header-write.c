/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the header of an image changes on disk: always by ONE write of its first 512-byte sector.
 *
 * A disk writes a sector whole or not at all, so after a crash at any moment the image has the
 * header from before or the one from after, and never a mixture.  Fields and feature bits all lie
 * in that sector.  The backing file's name usually does not, and neither need the extensions,
 * which hold the backing file's format:
 *
 *     sector 0                            sectors 1 ...
 *     | fields | extensions ............. .... | old name |   new name   |    |
 *       ^ pointer to the name
 *
 * So a new backing name goes in like this (co_qcow2_set_backing):
 *
 *     writeback   guest data, reference counts and tables are durable: whoever reads the new
 *                 pointer finds everything
 *     stage 1     write the bytes of the new header that lie behind sector 0: the name, and at
 *                 times the end of the extensions.  All of them are bytes WITHOUT A MEANING in the
 *                 old header: behind the end of its extensions and outside of its name.  A crash
 *                 now leaves the old header, whole.
 *     flush
 *     stage 2     write sector 0, which holds the pointer, and all other bytes with a meaning in
 *                 the old header that change.  Old or new, nothing between.
 *     flush
 *
 * The planner looks for such a place, first with the extensions as they should be, then without
 * the names of the feature bits (they are for error messages only), and, when a name only goes
 * away, with the extensions as they were (the format of a backing file that is not there harms
 * nobody).  Where there is no place it says so and nothing changes.
 */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>

#include "block/disk.h"
#include "core/bytes.h"
#include "core/mem.h"

#define SECTOR NODE_SECTOR

/* --- Fields ----------------------------------------------------------------------------------- */

static int co_write_sector(struct qcow2 *q, const uint8_t *sector)
{
    int ret = co_io_write(q->file, 0, sector, SECTOR);

    return ret ? ret : co_io_flush(q->file);
}

int co_qcow2_write_header_sector(struct qcow2 *q)
{
    uint8_t sector[SECTOR];
    int ret;

    co_mutex_lock(&q->header_lock);
    /* Taken before the flush: a field that somebody sets meanwhile points to what this flush need
     * not cover. */
    memcpy(sector, q->head, SECTOR);
    qcow2_header_store(&q->h, sector);
    ret = co_io_flush(q->file);
    if (!ret) {
        ret = co_write_sector(q, sector);
    }
    if (!ret) {
        memcpy(q->head, sector, SECTOR);
    }
    co_mutex_unlock(&q->header_lock);
    return ret;
}

int co_qcow2_signal_corruption(struct qcow2 *q, bool fatal, uint64_t offset, uint64_t size,
                               const char *fmt, ...)
{
    struct node *node = q->node;
    va_list ap;

    /* What is only read cannot get worse, and cannot be marked. */
    fatal = fatal && q->writable;
    if (q->corruption_reported && (!fatal || node->corrupt)) {
        return -EIO;
    }
    q->corruption_reported = true;
    va_start(ap, fmt);
    AUTOFREE char *msg = mem_vprintf(fmt, ap);
    va_end(ap);
    if (fatal) {
        node->corrupt = true;
    }
    node_report_corrupt(node, msg, offset, size, fatal);
    if (fatal && q->h.version >= 3) {
        q->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
        /* When this fails the image is as corrupt as before and the node stays closed to writes
         * all the same. */
        (void)co_qcow2_write_header_sector(q);
    }
    return -EIO;
}

/* --- The planner ------------------------------------------------------------------------------ */

/* What must keep its meaning until sector 0 is written. */
struct old_header {
    const struct qcow2_header *h;
    const uint8_t *head;
    uint64_t exts_end;
    uint64_t name_from, name_to;
};

static bool overlaps(uint64_t from, uint64_t to, uint64_t other_from, uint64_t other_to)
{
    return from < other_to && other_from < to && from < to && other_from < other_to;
}

/* May these bytes be written in stage 1?  Those in sector 0 always: they wait for stage 2. */
static bool is_unused(const struct old_header *old, uint64_t from, uint64_t to)
{
    from = MAX(from, SECTOR);
    return !overlaps(from, to, 0, old->exts_end) &&
           !overlaps(from, to, old->name_from, old->name_to);
}

/* The bytes of the new extensions behind sector 0 that differ from the old header's. */
static bool plan_tail(const struct old_header *old, uint64_t exts_end,
                      struct qcow2_backing_plan *plan)
{
    uint64_t same = SECTOR;

    while (same < MIN(exts_end, old->exts_end) && plan->head[same] == old->head[same]) {
        same++;
    }
    if (same >= exts_end) {
        return true;
    }
    plan->tail_from = same;
    plan->tail_to = exts_end;
    return is_unused(old, same, exts_end);
}

/* Somewhere behind the new extensions; they end where the name begins, so never before them. */
static bool place_name(const struct old_header *old, uint64_t exts_end, const char *name,
                       struct qcow2_backing_plan *plan)
{
    uint64_t cluster = 1ull << old->h->cluster_bits;
    uint64_t len = strlen(name);
    const uint64_t places[] = {
        exts_end,
        ROUND_UP(old->exts_end, 8),
        ROUND_UP(old->name_to, 8),
        cluster > len ? ROUND_DOWN(cluster - len, 8) : 0,
    };

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        uint64_t at = places[i];

        if (at >= exts_end && at + len <= cluster && is_unused(old, at, at + len)) {
            uint64_t in_first = at < SECTOR ? MIN(SECTOR - at, len) : 0;

            memcpy(plan->head + MIN(at, SECTOR), name, in_first);
            plan->h.backing_offset = at;
            plan->h.backing_len = len;
            plan->name_at = at + in_first;
            plan->name_part = name + in_first;
            plan->name_len = len - in_first;
            return true;
        }
    }
    return false;
}

/* Try the extensions in plan->exts. */
static bool plan_layout(const struct old_header *old, const char *name,
                        struct qcow2_backing_plan *plan)
{
    uint64_t cluster = 1ull << old->h->cluster_bits;
    uint64_t exts_end = old->h->header_length + 8;

    for (unsigned i = 0; i < plan->n_exts; i++) {
        exts_end += 8 + ROUND_UP((uint64_t)plan->exts[i].len, 8);
    }
    if (exts_end > cluster) {
        return false;
    }
    plan->h = *old->h;
    plan->h.backing_offset = plan->h.backing_len = 0;
    plan->tail_from = plan->tail_to = plan->name_len = 0;
    plan->head_len = MAX(SECTOR, ROUND_UP(exts_end, SECTOR));
    plan->head = mem_zalloc(plan->head_len);
    memcpy(plan->head, old->head, old->h->header_length);
    qcow2_exts_store(plan->exts, plan->n_exts, plan->head, old->h->header_length, exts_end);
    if (plan_tail(old, exts_end, plan) && (!name || place_name(old, exts_end, name, plan))) {
        /* Only the pointer: fields that others have set in q->h meanwhile wait for their own
         * flush. */
        qcow2_header_store_backing(&plan->h, plan->head);
        return true;
    }
    free(plan->head);
    plan->head = NULL;
    return false;
}

/* The wanted list: with `format` in the place of the old one, or in front as others have it;
 * `bare` leaves the names of the feature bits out. */
static void list_exts(const struct qcow2_ext *exts, unsigned n, const char *format, bool bare,
                      struct qcow2_backing_plan *plan)
{
    bool placed = !format || qcow2_ext_find(exts, n, QCOW2_EXT_BACKING_FORMAT);
    struct qcow2_ext wanted = { QCOW2_EXT_BACKING_FORMAT, format ? strlen(format) : 0,
                                (uint8_t *)format };

    plan->n_exts = 0;
    if (!placed) {
        plan->exts[plan->n_exts++] = wanted;
    }
    for (unsigned i = 0; i < n; i++) {
        if (exts[i].type == QCOW2_EXT_BACKING_FORMAT) {
            if (format && placed) {
                plan->exts[plan->n_exts++] = wanted;
                placed = false; /* one is enough */
            }
        } else if (!bare || exts[i].type != QCOW2_EXT_FEATURES) {
            plan->exts[plan->n_exts++] = exts[i];
        }
    }
}

bool qcow2_backing_plan(const struct qcow2_header *h, const uint8_t *head, uint32_t head_len,
                        const struct qcow2_ext *exts, unsigned n, const char *name,
                        const char *format, struct qcow2_backing_plan *out)
{
    const struct old_header old = {
        .h = h,
        .head = head,
        .exts_end = qcow2_exts_end(h, exts, n),
        .name_from = h->backing_offset,
        .name_to = h->backing_offset ? h->backing_offset + h->backing_len : 0,
    };

    assert(head_len >= old.exts_end && head_len >= SECTOR);
    *out = (struct qcow2_backing_plan){ .exts = mem_calloc(n + 1, sizeof(*exts)) };
    if (name && (!*name || strlen(name) > QCOW2_MAX_BACKING_NAME ||
                 (format && strlen(format) > QCOW2_MAX_BACKING_FORMAT))) {
        return false;
    }
    for (int bare = 0; bare < 2; bare++) {
        list_exts(exts, n, name ? format : NULL, bare, out);
        if (plan_layout(&old, name, out)) {
            return true;
        }
    }
    if (name) {
        return false;
    }
    if (n) {
        memcpy(out->exts, exts, n * sizeof(*exts));
    }
    out->n_exts = n;
    return plan_layout(&old, NULL, out);
}

void qcow2_backing_plan_free(struct qcow2_backing_plan *plan)
{
    free(plan->exts);
    free(plan->head);
}

/* --- The backing pointer ---------------------------------------------------------------------- */

static int make_plan(struct qcow2 *q, const char *name, const char *format,
                     struct qcow2_backing_plan *plan, struct error *err)
{
    if (qcow2_backing_plan(&q->h, q->head, q->head_len, q->exts, q->n_exts, name, format, plan)) {
        return 0;
    }
    if (name) {
        error_set(err, "The backing file name '%s' does not fit into the header of '%s'", name,
                  q->node->filename);
    } else {
        error_set(err, "The header of '%s' has no room to remove the backing file",
                  q->node->filename);
    }
    return -ENOSPC;
}

int qcow2_check_backing(struct node *node, const char *name, const char *format, struct error *err)
{
    struct qcow2_backing_plan plan;
    int ret = make_plan(node->state, name, format, &plan, err);

    qcow2_backing_plan_free(&plan);
    return ret;
}

static int co_stage_1(struct qcow2 *q, const struct qcow2_backing_plan *plan)
{
    int ret = 0;

    if (plan->tail_to == plan->tail_from && !plan->name_len) {
        return 0; /* all of it lies in the first sector */
    }
    if (plan->tail_to > plan->tail_from) {
        ret = co_io_write(q->file, plan->tail_from, plan->head + plan->tail_from,
                          plan->tail_to - plan->tail_from);
    }
    if (!ret && plan->name_len) {
        ret = co_io_write(q->file, plan->name_at, plan->name_part, plan->name_len);
    }
    return ret ? ret : co_io_flush(q->file);
}

/* The plan becomes what we know of the header: own the extensions' bytes. */
static void adopt_plan(struct qcow2 *q, struct qcow2_backing_plan *plan)
{
    for (unsigned i = 0; i < plan->n_exts; i++) {
        plan->exts[i].data = mem_dup(plan->exts[i].data, plan->exts[i].len);
    }
    qcow2_exts_free(q->exts, q->n_exts);
    q->exts = plan->exts;
    q->n_exts = plan->n_exts;
    plan->exts = NULL;
    free(q->head);
    q->head = plan->head;
    q->head_len = plan->head_len;
    plan->head = NULL;
    q->h.backing_offset = plan->h.backing_offset;
    q->h.backing_len = plan->h.backing_len;
}

static int co_set_pointer(struct qcow2 *q, const char *name, const char *format, struct error *err)
{
    struct qcow2_backing_plan plan;
    int ret = make_plan(q, name, format, &plan, err);

    if (!ret) {
        ret = co_stage_1(q, &plan);
        if (!ret) {
            ret = co_write_sector(q, plan.head);
            if (ret) {
                /* The disk may have taken the sector before it failed: put the old one back, as
                 * far as it lets us. */
                (void)co_write_sector(q, q->head);
            }
        }
        if (ret) {
            error_set_errno(err, ret, "Could not change the backing file in the header of '%s'",
                            q->node->filename);
        } else {
            adopt_plan(q, &plan);
        }
    }
    qcow2_backing_plan_free(&plan);
    return ret;
}

int co_qcow2_set_backing(struct node *node, const char *name, const char *format, struct error *err)
{
    struct qcow2 *q = node->state;
    int ret;

    if (!q->writable || node->corrupt) {
        error_set(err, "The header of '%s' cannot be changed: the image is %s", node->filename,
                  node->corrupt ? "corrupt" : "read-only");
        return -EPERM;
    }
    ret = co_qcow2_writeback(q);
    if (ret) {
        error_set_errno(err, ret, "Could not write back the tables of '%s'", node->filename);
        return ret;
    }
    co_mutex_lock(&q->header_lock);
    ret = co_set_pointer(q, name, format, err);
    co_mutex_unlock(&q->header_lock);
    if (!ret) {
        char *old_name = node->backing_name, *old_format = node->backing_format;

        node->backing_name = mem_strdup(name);
        node->backing_format = name ? mem_strdup(format) : NULL;
        free(old_name); /* now: they may be what we were given */
        free(old_format);
    }
    return ret;
}
