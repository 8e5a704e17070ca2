/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of one simulated file: how they are described, what they do, which are pending, what a
 * flush and a cut make of them.
 *
 * Invariants:
 *   D1  `now` is what results from `durable` when the operations in `cached` are applied in their
 *       order, but for what a failed sync dropped (that is in `now` only).
 *   D2  Operations in `flying` have touched neither content.
 *   D3  No block wholly at or beyond a content's size is held, and the last block is zero behind
 *       the size.
 */
#include "core/io-sim-disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t sim_writeback;

static uint64_t last_op;

/* --- Operations ------------------------------------------------------------------------------- */

struct sim_op *sim_op_new(enum io_sim_op kind, uint64_t offset, uint64_t len, bool with_data)
{
    struct sim_op *op = mem_alloc(sizeof(*op) + (with_data ? len : 0));

    op->refs = 1;
    op->id = ++last_op;
    op->kind = kind;
    op->offset = offset;
    op->len = len;
    op->hash = 0;
    return op;
}

void sim_op_unref(struct sim_op *op)
{
    if (!--op->refs) {
        free(op);
    }
}

static bool has_data(const struct sim_op *op)
{
    return op->kind & (IO_SIM_WRITE | IO_SIM_COPY);
}

uint64_t sim_op_hash(struct sim_op *op)
{
    if (!op->hash) {
        uint64_t numbers[] = { op->kind, op->offset, op->len,
                               has_data(op) ? XXH3_64bits(op->data, op->len) : 0 };

        op->hash = XXH3_64bits(numbers, sizeof(numbers));
    }
    return op->hash;
}

static uint64_t op_bytes(const struct sim_op *op)
{
    return sizeof(*op) + (has_data(op) ? op->len : 0);
}

/* What the operation does to the bytes [from, to), counted from its offset. */
static void apply_data(struct sim_content *content, const struct sim_op *op, uint64_t from,
                       uint64_t to)
{
    uint64_t offset = op->offset + from;

    switch (op->kind) {
    case IO_SIM_WRITE:
    case IO_SIM_COPY:
        sim_pages_write(&content->pages, offset, op->data + from, to - from);
        break;
    case IO_SIM_ZERO:
    case IO_SIM_PUNCH:
        sim_pages_zero(&content->pages, offset, to - from, op->kind == IO_SIM_ZERO);
        break;
    case IO_SIM_ALLOCATE:
        sim_pages_hold(&content->pages, offset, to - from);
        break;
    default:
        assert(op->kind == IO_SIM_TRUNCATE);
    }
}

/* What it does to the size. */
static void apply_size(struct sim_content *content, const struct sim_op *op)
{
    if (op->kind == IO_SIM_TRUNCATE) {
        sim_pages_zero(&content->pages, op->offset, UINT64_MAX, false);
        content->size = op->offset;
    } else if (op->kind != IO_SIM_PUNCH) {
        content->size = MAX(content->size, op->offset + op->len);
    }
}

void sim_op_apply(struct sim_content *content, const struct sim_op *op)
{
    apply_data(content, op, 0, op->len);
    apply_size(content, op);
}

static void list_add(struct sim_op_list *list, struct sim_op *op)
{
    if (list->n == list->room) {
        list->room = MAX(list->room * 2, (size_t)16);
        list->op = mem_reallocarray(list->op, list->room, sizeof(*list->op));
    }
    list->op[list->n++] = op;
}

/* Take the first `n` out; their references are given back. */
static void list_drop(struct sim_op_list *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sim_op_unref(list->op[i]);
    }
    list->n -= n;
    if (list->n) {
        memmove(list->op, list->op + n, list->n * sizeof(*list->op));
    }
}

void sim_op_list_free(struct sim_op_list *list)
{
    list_drop(list, list->n);
    free(list->op);
    *list = (struct sim_op_list){ 0 };
}

struct sim_op_list sim_op_list_copy(const struct sim_op_list *from)
{
    struct sim_op_list list = { .n = from->n, .room = from->n };

    if (list.n) {
        list.op = mem_dup(from->op, list.n * sizeof(*list.op));
    }
    for (size_t i = 0; i < list.n; i++) {
        list.op[i]->refs++;
    }
    return list;
}

struct sim_content sim_content_copy(const struct sim_content *from)
{
    return (struct sim_content){ .pages = sim_pages_ref(from->pages), .size = from->size };
}

static void content_set(struct sim_content *to, const struct sim_content *from)
{
    struct sim_pages *old = to->pages;

    *to = sim_content_copy(from);
    sim_pages_unref(old);
}

void sim_op_fly(struct sim_file *file, struct sim_op *op)
{
    op->refs++;
    list_add(&file->flying, op);
}

void sim_op_land(struct sim_file *file, struct sim_op *op)
{
    struct sim_op_list *list = &file->flying;
    size_t i = 0;

    while (list->op[i] != op) {
        i++;
        assert(i < list->n);
    }
    list->n--;
    memmove(list->op + i, list->op + i + 1, (list->n - i) * sizeof(*list->op));
    sim_op_cache(file, op); /* the list's reference goes over */
}

void sim_op_cache(struct sim_file *file, struct sim_op *op)
{
    sim_op_apply(&file->now, op);
    list_add(&file->cached, op);
    file->cached_bytes += op_bytes(op);
    if (file->cached_bytes > sim_writeback) {
        /* Half at once: moving the list down is not free. */
        uint64_t want = file->cached_bytes / 2;
        uint64_t bytes = 0;
        size_t n = 0;

        while (bytes < want) {
            bytes += op_bytes(file->cached.op[n++]);
        }
        sim_flush(file, file->cached_before + n, false);
    }
}

uint64_t sim_flush_mark(const struct sim_file *file)
{
    return file->cached_before + file->cached.n;
}

void sim_flush(struct sim_file *file, uint64_t mark, bool drop)
{
    /* A flush that was issued earlier and completes later finds its part done. */
    size_t n = mark > file->cached_before ? mark - file->cached_before : 0;

    assert(n <= file->cached.n);
    for (size_t i = 0; i < n; i++) {
        if (!drop) {
            sim_op_apply(&file->durable, file->cached.op[i]);
        }
        file->cached_bytes -= op_bytes(file->cached.op[i]);
    }
    list_drop(&file->cached, n);
    file->cached_before += n;
}

/* --- Cuts ------------------------------------------------------------------------------------- */

bool sim_cut_chance(struct sim_cut *cut, unsigned eighths)
{
    return random_below(&cut->random, SIM_EIGHTHS) < eighths;
}

static void tear_op(struct sim_cut *cut, struct sim_content *content, const struct sim_op *op)
{
    if (!has_data(op)) {
        /* Extents change piecewise: some part of the range. */
        uint64_t from = ROUND_DOWN(random_below(&cut->random, op->len + 1), SIM_BLOCK_SIZE);
        uint64_t to = from + random_below(&cut->random, op->len - from + 1);

        apply_data(content, op, from, MIN(ROUND_UP(to, SIM_BLOCK_SIZE), op->len));
        return;
    }
    for (uint64_t at = 0, next; at < op->len; at = next) {
        next = MIN(op->len, ROUND_DOWN(op->offset + at, cut->grain) + cut->grain - op->offset);
        if (sim_cut_chance(cut, SIM_EIGHTHS / 2)) {
            apply_data(content, op, at, next);
        }
    }
}

static void cut_op(struct sim_cut *cut, struct sim_content *content, const struct sim_op *op)
{
    if (sim_cut_chance(cut, cut->keep)) {
        apply_data(content, op, 0, op->len);
    } else if (sim_cut_chance(cut, cut->tear)) {
        tear_op(cut, content, op);
    }
    if (sim_cut_chance(cut, cut->keep)) {
        apply_size(content, op);
    }
}

static void only_durable_is_left(struct sim_file *file)
{
    sim_pages_zero(&file->durable.pages, file->durable.size, UINT64_MAX, false);
    content_set(&file->now, &file->durable);
    file->cached_before += file->cached.n;
    file->cached_bytes = 0;
    sim_op_list_free(&file->cached);
    sim_op_list_free(&file->flying);
}

void sim_file_cut(struct sim_cut *cut, struct sim_file *file)
{
    bool backwards = sim_cut_chance(cut, SIM_EIGHTHS / 2);
    struct sim_op_list *flying = &file->flying;

    for (size_t i = 0; i < file->cached.n; i++) {
        cut_op(cut, &file->durable, file->cached.op[i]);
    }
    /* In flight there is no order yet. */
    for (size_t i = 0; i < flying->n; i++) {
        cut_op(cut, &file->durable, flying->op[backwards ? flying->n - 1 - i : i]);
    }
    only_durable_is_left(file);
}

/* The write got so far, then the process died. */
static void cache_part(struct sim_file *file, const struct sim_op *op, uint64_t bytes)
{
    uint64_t end = MAX(ROUND_DOWN(op->offset + bytes, SIM_BLOCK_SIZE), op->offset);

    if (end > op->offset) {
        struct sim_op *part = sim_op_new(op->kind, op->offset, end - op->offset, true);

        memcpy(part->data, op->data, part->len);
        sim_op_cache(file, part);
    }
}

void sim_file_kill(struct sim_cut *cut, struct sim_file *file)
{
    struct sim_op_list flying = file->flying;

    file->flying = (struct sim_op_list){ 0 };
    for (size_t i = 0; i < flying.n; i++) {
        struct sim_op *op = flying.op[i];
        unsigned fate = random_below(&cut->random, 3);

        if (fate == 2 && has_data(op)) {
            cache_part(file, op, random_below(&cut->random, op->len + 1));
        } else if (fate) {
            op->refs++;
            sim_op_cache(file, op);
        }
    }
    sim_op_list_free(&flying);
}

/* --- Cuts that are told everything ------------------------------------------------------------ */

static void cut_op_exact(struct sim_content *content, const struct sim_op *op, char fate)
{
    struct sim_cut cut = { .grain = fate == 't' ? 512 : SIM_BLOCK_SIZE };

    if (fate == '1' || fate == 'd') {
        apply_data(content, op, 0, op->len);
    } else if (fate == 't' || fate == 'T') {
        random_seed(&cut.random, op->offset ^ op->len << 32); /* the same in every replay */
        tear_op(&cut, content, op);
    }
    if (fate != '0' && fate != 'd') {
        apply_size(content, op);
    }
}

void sim_file_cut_exact(struct sim_file *file, const char *fates)
{
    for (size_t i = 0; i < file->cached.n; i++) {
        cut_op_exact(&file->durable, file->cached.op[i], fates[i]);
    }
    fates += file->cached.n;
    for (size_t i = 0; i < file->flying.n; i++) {
        cut_op_exact(&file->durable, file->flying.op[i], fates[i]);
    }
    only_durable_is_left(file);
}

void sim_file_kill_exact(struct sim_file *file, const char *fates)
{
    struct sim_op_list flying = file->flying;

    fates += file->cached.n;
    file->flying = (struct sim_op_list){ 0 };
    for (size_t i = 0; i < flying.n; i++) {
        struct sim_op *op = flying.op[i];

        if (fates[i] == '1') {
            op->refs++;
            sim_op_cache(file, op);
        } else if (fates[i] != '0' && has_data(op)) {
            cache_part(file, op, op->len / 2);
        }
    }
    sim_op_list_free(&flying);
}
