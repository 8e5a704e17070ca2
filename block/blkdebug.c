/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filter "blkdebug": requests that fail when a test wants them to.
 *
 * The node above tells what happens in it (block/events.h).  Rules on an event are armed by it, and stay armed until an event arms
 * others; a request that an armed rule fits fails.  A state, 1 at first, moves by rules too, so that tests can count.
 *
 * It can also be harder to please than its child: `align` makes it read, modify and write what does not fit, `max-transfer` and the
 * like make it cut requests.  In QEMU these are wishes to a block layer that everybody shares; here they are carried out in this
 * file, with the same events and the same requests below.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "block/blkdebug-config.h"
#include "block/filter.h"
#include "core/bytes.h"
#include "core/mem.h"

struct blkdebug {
    struct blkdebug_rules rules;
    int state;
    /* Bytes, 0: no wish. */
    uint64_t align, max_transfer, opt_write_zero, max_write_zero, opt_discard, max_discard;
    struct co_mutex turn; /* of those who read, modify and write */
    uint64_t written, flushed; /* how often; a flush of what is flushed is none, and cannot fail */
};

/* --- Rules -------------------------------------------------------------------------------------------- */

static bool rule_holds(const struct blkdebug *s, const struct blkdebug_rule *rule, enum node_event event)
{
    return rule->event == event && (!rule->state || rule->state == s->state);
}

static void blkdebug_event(struct node *node, enum node_event event)
{
    struct blkdebug *s = node->state;
    struct blkdebug_rule *rule, *other;
    int new_state = 0;
    bool injects = false;

    TAILQ_FOREACH(rule, &s->rules, link) {
        if (rule_holds(s, rule, event) && rule->sets_state) {
            new_state = new_state ? new_state : rule->new_state;
        } else if (rule_holds(s, rule, event)) {
            for (other = TAILQ_FIRST(&s->rules); !injects && other; other = TAILQ_NEXT(other, link)) {
                other->armed = false;
            }
            injects = rule->armed = true;
        }
    }
    s->state = new_state ? new_state : s->state;
}

/* 0, or the error that a request is to end with. */
static int co_check(struct node *node, uint64_t offset, uint64_t len, enum blkdebug_iotype iotype)
{
    struct blkdebug *s = node->state;
    struct blkdebug_rule *rule;
    bool immediately;
    int error;

    TAILQ_FOREACH(rule, &s->rules, link) {
        bool there = rule->offset == -1 ||
                     (rule->offset >= 0 && (uint64_t)rule->offset >= offset && (uint64_t)rule->offset - offset < len);

        if (rule->armed && there && rule->iotypes & 1u << iotype) {
            break;
        }
    }
    if (!rule || !rule->error) {
        return 0;
    }
    error = rule->error;
    immediately = rule->immediately;
    if (rule->once) {
        blkdebug_rule_free(&s->rules, rule);
    }
    if (!immediately) {
        co_yield();
    }
    return -error;
}

/* --- Reading -------------------------------------------------------------------------------------------- */

static int co_read_piece(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_check(node, offset, iov_size(iov, n), BLKDEBUG_READ);

    return ret ? ret : co_filter_read(node, offset, iov, n);
}

typedef int piece_fn(struct node *node, uint64_t offset, const struct iovec *iov, int n);

/* In pieces of max_transfer at most. */
static int co_cut(struct node *node, uint64_t offset, const struct iovec *iov, int n, piece_fn *co_piece)
{
    uint64_t len = iov_size(iov, n), most = ((struct blkdebug *)node->state)->max_transfer;
    AUTOFREE struct iovec *part = NULL;
    int ret = 0;

    if (!most || len <= most) {
        return co_piece(node, offset, iov, n);
    }
    part = mem_calloc(n, sizeof(*part));
    for (uint64_t done = 0; done < len && ret == 0; done += most) {
        int parts = iov_slice(part, iov, n, done, MIN(most, len - done));

        ret = co_piece(node, offset + done, part, parts);
    }
    return ret;
}

/* The blocks of `align` bytes that a request touches, cut off at the end of what there is. */
static bool widen(const struct node *node, uint64_t offset, uint64_t len, uint64_t *from, uint64_t *to)
{
    uint64_t align = ((struct blkdebug *)node->state)->align;

    *from = offset;
    *to = offset + len;
    if (align) {
        *from = ROUND_DOWN(offset, align);
        *to = MAX(MIN(ROUND_UP(*to, align), node->file->size), *to);
    }
    return *from != offset || *to != offset + len;
}

static int co_blkdebug_read(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    uint64_t len = iov_size(iov, n), from, to;

    if (!widen(node, offset, len, &from, &to)) {
        return co_cut(node, offset, iov, n, co_read_piece);
    }
    AUTOFREE uint8_t *buf = mem_align(4096, to - from);
    struct iovec whole = { .iov_base = buf, .iov_len = to - from };
    int ret = co_cut(node, from, &whole, 1, co_read_piece);

    if (ret == 0) {
        iov_from_buf(iov, n, 0, buf + (offset - from), len);
    }
    return ret;
}

/* --- Writing -------------------------------------------------------------------------------------------- */

static int co_write_piece(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    int ret = co_check(node, offset, iov_size(iov, n), BLKDEBUG_WRITE);

    return ret ? ret : co_filter_write(node, offset, iov, n);
}

static int co_write_aligned(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    int ret;

    ((struct blkdebug *)node->state)->written++;
    blkdebug_event(node, EVENT_PWRITEV);
    ret = co_cut(node, offset, iov, n, co_write_piece);
    blkdebug_event(node, EVENT_PWRITEV_DONE);
    return ret;
}

/* What surrounds the request in its first and last block is read and written with it. */
static int co_modify(struct node *node, uint64_t offset, const struct iovec *iov, int n, uint64_t from, uint64_t to)
{
    struct blkdebug *s = node->state;
    uint64_t len = iov_size(iov, n), last = ROUND_DOWN(offset + len - 1, s->align);
    AUTOFREE uint8_t *buf = mem_align(4096, to - from);
    struct iovec whole = { .iov_base = buf, .iov_len = to - from };
    int ret = 0;

    if (from != offset) {
        struct iovec head = { .iov_base = buf, .iov_len = MIN(s->align, to - from) };

        blkdebug_event(node, EVENT_PWRITEV_RMW_HEAD);
        ret = co_read_piece(node, from, &head, 1);
        blkdebug_event(node, EVENT_PWRITEV_RMW_AFTER_HEAD);
    }
    if (ret == 0 && to != offset + len && (from == offset || last != from)) {
        struct iovec tail = { .iov_base = buf + (last - from), .iov_len = to - last };

        blkdebug_event(node, EVENT_PWRITEV_RMW_TAIL);
        ret = co_read_piece(node, last, &tail, 1);
        blkdebug_event(node, EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    if (ret == 0) {
        iov_to_buf(iov, n, 0, buf + (offset - from), len);
        ret = co_write_aligned(node, from, &whole, 1);
    }
    return ret;
}

static int co_blkdebug_write(struct node *node, uint64_t offset, const struct iovec *iov, int n)
{
    struct blkdebug *s = node->state;
    uint64_t from, to;
    int ret;

    if (!s->align) {
        return co_write_aligned(node, offset, iov, n);
    }
    co_mutex_lock(&s->turn);
    ret = widen(node, offset, iov_size(iov, n), &from, &to) ? co_modify(node, offset, iov, n, from, to)
                                                            : co_write_aligned(node, offset, iov, n);
    co_mutex_unlock(&s->turn);
    return ret;
}

/* --- Ranges ----------------------------------------------------------------------------------------------- */

/* The part of a range that keeps a boundary: [*from, *to), empty when from >= to. */
static void inside(uint64_t offset, uint64_t len, uint64_t boundary, uint64_t *from, uint64_t *to)
{
    *from = boundary ? ROUND_UP(offset, boundary) : offset;
    *to = boundary ? ROUND_DOWN(offset + len, boundary) : offset + len;
}

static int co_write_zero_bytes(struct node *node, uint64_t offset, uint64_t len)
{
    AUTOFREE uint8_t *buf = mem_zalloc(len + 1);
    struct iovec iov = { .iov_base = buf, .iov_len = len };

    return len ? co_blkdebug_write(node, offset, &iov, 1) : 0;
}

static int co_blkdebug_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags)
{
    struct blkdebug *s = node->state;
    uint64_t most = s->max_write_zero ? s->max_write_zero : UINT64_MAX, from, to;
    int ret;

    inside(offset, len, MAX(s->opt_write_zero, s->align), &from, &to);
    if (from >= to) {
        return co_write_zero_bytes(node, offset, len);
    }
    s->written++;
    ret = co_write_zero_bytes(node, offset, from - offset);
    blkdebug_event(node, EVENT_PWRITEV_ZERO);
    while (from < to && ret == 0) {
        uint64_t part = MIN(to - from, most);

        ret = co_check(node, from, part, BLKDEBUG_WRITE_ZEROES);
        ret = ret ? ret : co_filter_zero(node, from, part, flags);
        from += part;
    }
    blkdebug_event(node, EVENT_PWRITEV_DONE);
    return ret ? ret : co_write_zero_bytes(node, to, offset + len - to);
}

static int co_blkdebug_discard(struct node *node, uint64_t offset, uint64_t len)
{
    struct blkdebug *s = node->state;
    uint64_t most = s->max_discard ? s->max_discard : UINT64_MAX, from, to;
    int ret = 0;

    s->written++;
    inside(offset, len, MAX(s->opt_discard, s->align), &from, &to);
    while (from < to && ret == 0) {
        uint64_t part = MIN(to - from, most);

        ret = co_check(node, from, part, BLKDEBUG_DISCARD);
        ret = ret ? ret : co_filter_discard(node, from, part);
        from += part;
    }
    return ret;
}

static int co_blkdebug_flush(struct node *node)
{
    struct blkdebug *s = node->state;
    uint64_t written = s->written;
    int ret = 0;

    if (written != s->flushed) {
        ret = co_check(node, 0, 0, BLKDEBUG_FLUSH);
        ret = ret ? ret : co_filter_flush(node);
        s->flushed = ret ? s->flushed : MAX(s->flushed, written);
    }
    return ret;
}

static int co_blkdebug_map(struct node *node, uint64_t offset, uint64_t len, struct extent *out)
{
    int ret = co_check(node, offset, len, BLKDEBUG_BLOCK_STATUS);

    *out = (struct extent){ .kind = EXTENT_OPAQUE, .len = len };
    return ret;
}

/* --- Opening ------------------------------------------------------------------------------------------------ */

/* A wish, in bytes: a multiple of `unit`, not too large. */
static int take_wish(struct node *node, const char *name, uint64_t unit, uint64_t *out, struct error *err)
{
    if (node_option_size(node, name, out, err) < 0) {
        return -EINVAL;
    }
    if (*out && (*out >= INT_MAX || *out % unit)) {
        error_set(err, "Cannot meet constraints with %s %llu", name, (unsigned long long)*out);
        return -EINVAL;
    }
    return 0;
}

static int take_wishes(struct node *node, struct blkdebug *s, struct error *err)
{
    uint64_t unit;

    if (take_wish(node, "align", 1, &s->align, err) < 0) {
        return -EINVAL;
    }
    if (s->align & (s->align - 1)) {
        error_set(err, "Cannot meet constraints with align %llu", (unsigned long long)s->align);
        return -EINVAL;
    }
    unit = MAX(s->align, 1u);
    if (take_wish(node, "max-transfer", unit, &s->max_transfer, err) < 0 ||
        take_wish(node, "opt-write-zero", unit, &s->opt_write_zero, err) < 0 ||
        take_wish(node, "max-write-zero", MAX(s->opt_write_zero, unit), &s->max_write_zero, err) < 0 ||
        take_wish(node, "opt-discard", unit, &s->opt_discard, err) < 0 ||
        take_wish(node, "max-discard", MAX(s->opt_discard, unit), &s->max_discard, err) < 0) {
        return -EINVAL;
    }
    return 0;
}

static void blkdebug_free(struct blkdebug *s)
{
    while (!TAILQ_EMPTY(&s->rules)) {
        blkdebug_rule_free(&s->rules, TAILQ_FIRST(&s->rules));
    }
    free(s);
}

static int co_blkdebug_open(struct node *node, struct error *err)
{
    const char *config = node_option_str(node, "config");
    struct blkdebug *s = mem_zalloc(sizeof(*s));
    int ret;

    TAILQ_INIT(&s->rules);
    co_mutex_init(&s->turn);
    s->state = 1;
    ret = config ? co_blkdebug_load(&s->rules, config, err) : 0;
    ret = ret ? ret : blkdebug_take_options(&s->rules, node, err);
    ret = ret ? ret : take_wishes(node, s, err);
    if (ret < 0) {
        blkdebug_free(s);
        return ret;
    }
    node->state = s;
    filter_open(node);
    blkdebug_event(node, EVENT_NONE);
    return 0;
}

static void co_blkdebug_close(struct node *node)
{
    blkdebug_free(node->state);
    node->state = NULL;
}

/* blkdebug:[CONFIG]:IMAGE */
static int blkdebug_parse_name(const char *rest, json_t *options, struct error *err)
{
    const char *colon = strchr(rest, ':');

    if (!colon) {
        error_set(err, "blkdebug requires both config file and image path");
        return -EINVAL;
    }
    if (colon > rest) {
        json_object_set_new(options, "config", json_stringn(rest, colon - rest));
    }
    json_object_set_new(options, "image", json_pack("{s:s}", "filename", colon + 1));
    return 0;
}

static const struct block_key blkdebug_keys[] = {
    { .name = "image", .kind = KEY_NODE, .required = true, .help = "what lies below: a node's name, or its options" },
    { .name = "config", .kind = KEY_STRING, .help = "file with rules" },
    { .name = "align", .kind = KEY_INT, .help = "requests below keep to multiples of it, in bytes" },
    { .name = "max-transfer", .kind = KEY_INT, .help = "bytes of a read or write below" },
    { .name = "opt-write-zero", .kind = KEY_INT, .help = "zeroes below keep to multiples of it" },
    { .name = "max-write-zero", .kind = KEY_INT, .help = "bytes of zeroes at once" },
    { .name = "opt-discard", .kind = KEY_INT, .help = "discards below keep to multiples of it" },
    { .name = "max-discard", .kind = KEY_INT, .help = "bytes of a discard" },
    { .name = "inject-error", .kind = KEY_LIST, .members = blkdebug_inject_keys, .help = "rules: which requests fail" },
    { .name = "set-state", .kind = KEY_LIST, .members = blkdebug_set_keys, .help = "rules: when the state changes" },
    { 0 },
};

const struct driver driver_blkdebug = {
    .name = "blkdebug",
    .is_filter = true,
    .passes_permissions = true,
    .child = "image",
    .keys = blkdebug_keys,
    .co_open = co_blkdebug_open,
    .co_close = co_blkdebug_close,
    .event = blkdebug_event,
    .parse_name = blkdebug_parse_name,
    .co_read = co_blkdebug_read,
    .co_write = co_blkdebug_write,
    .co_zero = co_blkdebug_zero,
    .co_discard = co_blkdebug_discard,
    .co_flush = co_blkdebug_flush,
    .co_map = co_blkdebug_map,
    .co_truncate = co_filter_truncate,
};
