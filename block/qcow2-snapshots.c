/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of internal snapshots: read at open, so that what the snapshots hold is known and
 * kept.
 *
 * Entries follow one another without an index, each aligned to 8 bytes and of its own length, so the length of the
 * table is known only when its last entry has been read.  A node that is only read can show a snapshot instead of the
 * active state.  Changing the table is qcow2-snapshot-change.c's.  Whether the L1 tables it names are sound is asked by
 * those who follow them (qcow2-check.c).
 *
 * Specification: docs/interop/qcow2.txt of QEMU, "Snapshots".
 */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "core/bytes.h"
#include "core/loop.h"
#include "core/mem.h"

#define FIRST_READ (64u << 10)
#define MAX_EXTRA 1024u /* bytes of an entry that we know nothing of */

void qcow2_snapshots_free(struct qcow2_snapshot *list, unsigned n)
{
    for (unsigned i = 0; list && i < n; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

/* One entry at *pos; moves *pos behind it. */
static int parse_snapshot(const uint8_t *buf, size_t len, size_t *pos, unsigned index,
                          const struct qcow2_header *h, struct qcow2_snapshot *out,
                          struct error *err)
{
    size_t at = ROUND_UP(*pos, 8);

    if (at + QCOW2_SNAPSHOT_ENTRY > len) {
        return -EAGAIN;
    }
    const uint8_t *p = buf + at;
    size_t id_len = load_be16(p + 12), name_len = load_be16(p + 14);
    uint32_t extra = load_be32(p + 36);

    if (extra > MAX_EXTRA) {
        error_set(err, "Too much extra metadata in snapshot table entry %u", index);
        error_hint(err, "You can force-remove this extra metadata with qemu-img check -r all");
        return -EINVAL;
    }
    *pos = at + QCOW2_SNAPSHOT_ENTRY + extra + id_len + name_len;
    if (*pos > len) {
        return -EAGAIN;
    }
    const uint8_t *more = p + QCOW2_SNAPSHOT_ENTRY;
    const char *id = (const char *)more + extra;

    *out = (struct qcow2_snapshot){
        .l1_offset = load_be64(p),
        .l1_size = load_be32(p + 8),
        .date_sec = load_be32(p + 16),
        .date_nsec = load_be32(p + 20),
        .vm_clock_nsec = load_be64(p + 24),
        .vm_state_size = extra >= 8 ? load_be64(more) : load_be32(p + 32),
        .disk_size = extra >= 16 ? load_be64(more + 8) : h->size,
        .icount = extra >= 24 ? load_be64(more + 16) : UINT64_MAX,
        .id = mem_strndup(id, id_len),
        .name = mem_strndup(id + id_len, name_len),
    };
    return 0;
}

int qcow2_snapshots_parse(const uint8_t *buf, size_t len, const struct qcow2_header *h,
                          struct qcow2_snapshot **out, uint64_t *table_len, struct error *err)
{
    /* No more entries than fit, whatever the header says: the memory stays in proportion to the
     * bytes. */
    size_t room = MIN((size_t)h->nb_snapshots, len / QCOW2_SNAPSHOT_ENTRY);
    struct qcow2_snapshot *list = mem_try_calloc(room + 1, sizeof(*list));
    size_t pos = 0;

    if (!list) {
        error_set_errno(err, ENOMEM, "Failed to read snapshot table");
        return -ENOMEM;
    }
    for (unsigned i = 0; i < h->nb_snapshots; i++) {
        int ret = i < room ? parse_snapshot(buf, len, &pos, i, h, &list[i], err) : -EAGAIN;

        if (ret) {
            qcow2_snapshots_free(list, i);
            return ret;
        }
    }
    *out = list;
    *table_len = pos;
    return 0;
}

int co_qcow2_snapshots_load(struct qcow2 *q, uint64_t file_size, struct error *err)
{
    uint8_t *buf = NULL;
    int ret;

    if (!q->h.nb_snapshots) {
        return 0;
    }
    uint64_t most = MIN((uint64_t)QCOW2_MAX_SNAPSHOT_TABLE, file_size - q->h.snapshots_offset);
    uint64_t len = MIN((uint64_t)FIRST_READ, most);

    for (;;) {
        uint8_t *more = mem_try_realloc(buf, len);

        buf = more ? more : buf;
        ret = more ? co_io_read(q->file, q->h.snapshots_offset, buf, len) : -ENOMEM;
        if (ret) {
            error_set_errno(err, ret, "Failed to read snapshot table");
            break;
        }
        ret = qcow2_snapshots_parse(buf, len, &q->h, &q->snapshots, &q->snapshots_len, err);
        if (ret != -EAGAIN) {
            break;
        }
        if (len == most) {
            error_set(err, most == QCOW2_MAX_SNAPSHOT_TABLE ?
                               "Snapshot table too large" :
                               "Snapshot table lies beyond the end of the file");
            ret = -EINVAL;
            break;
        }
        len = MIN(4 * len, most);
    }
    free(buf);
    return ret;
}

/* --- Showing a snapshot ----------------------------------------------------------------------- */

int co_qcow2_snapshot_show(struct node *node, const struct qcow2_snapshot *s, struct error *err)
{
    struct qcow2 *q = node->state;
    uint64_t size = MAX(node->size, s->disk_size), *l1;
    uint64_t entries = MAX((uint64_t)s->l1_size, qcow2_l1_entries(q, size));
    int ret = qcow2_check_table(&q->h, s->l1_offset, s->l1_size, 8, QCOW2_MAX_L1_BYTES, "Snapshot L1 table", err);

    assert(node->read_only);
    if (ret == 0 && entries > QCOW2_MAX_L1_BYTES / 8) {
        error_set(err, "Snapshot's disk is too large");
        ret = -EFBIG;
    }
    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_load_table(q, s->l1_offset, s->l1_size, entries, &l1);
    if (ret < 0) {
        error_set_errno(err, ret, "Could not read L1 table");
        return ret;
    }
    free(q->l1);
    q->l1 = l1;
    q->h.l1_size = entries;
    node->size = size;
    chain_map_forget_layer(node);
    return 0;
}

/* --- For people and programs ------------------------------------------------------------------ */

/* Names are bytes of the image, UTF-8 or not. */
static json_t *text(const char *words)
{
    return json_stringn_nocheck(words, strlen(words));
}

static json_t *snapshot_tree(const struct qcow2_snapshot *s)
{
    json_t *tree = json_object();

    if (s->icount != UINT64_MAX) {
        json_object_set_new(tree, "icount", json_integer(s->icount));
    }
    json_object_set_new(tree, "vm-clock-nsec", json_integer(s->vm_clock_nsec % NS_PER_S));
    json_object_set_new(tree, "name", text(s->name));
    json_object_set_new(tree, "date-sec", json_integer(s->date_sec));
    json_object_set_new(tree, "date-nsec", json_integer(s->date_nsec));
    json_object_set_new(tree, "vm-clock-sec", json_integer(s->vm_clock_nsec / NS_PER_S));
    json_object_set_new(tree, "id", text(s->id));
    json_object_set_new(tree, "vm-state-size", json_integer(s->vm_state_size));
    return tree;
}

json_t *qcow2_snapshot_trees(const struct node *node)
{
    const struct qcow2 *q = node->state;
    json_t *list = json_array();

    for (uint32_t i = 0; i < q->h.nb_snapshots; i++) {
        json_array_append_new(list, snapshot_tree(&q->snapshots[i]));
    }
    return list;
}
