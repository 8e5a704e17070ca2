/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueues, device side: see virtqueue.h for the idea and for what is promised about bad
 * rings.
 *
 * Invariants:
 *   Q1  started: desc, avail and used point to RAM of the sizes that VIRTQ_*_BYTES(size) give
 *   Q2  in_flight + (used_next - used_published) <= size: the driver, which sees what is published,
 *       may have as many chains out as the ring has entries; more is refused, whatever avail.idx is
 *   Q3  hence virtqueue_push() never overtakes what the driver has not seen
 */
#include "hw/virtqueue.h"

#include <assert.h>
#include <errno.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "hw/machine.h"

/* Offsets in the available and the used ring. */
#define RING_FLAGS 0
#define RING_IDX 2
#define RING_ENTRIES 4

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* Where a walk through a chain stands. */
struct walk {
    const uint8_t *table;
    uint32_t count; /* entries of `table` */
    bool nested;    /* in an indirect table */
    bool writable;  /* a writable descriptor was seen */
};

/* One fetch each: the compiler may not go back to guest memory for a second look. */
static uint16_t fetch16(const uint8_t *p)
{
    return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED));
}

static struct desc fetch_desc(const uint8_t *p)
{
    uint8_t raw[16]; /* indirect tables may lie at any address */

    memcpy(raw, p, sizeof(raw));
    __asm__ volatile("" : "+m"(raw));
    return (struct desc){
        .addr = load_le64(raw),
        .len = load_le32(raw + 8),
        .flags = load_le16(raw + 12),
        .next = load_le16(raw + 14),
    };
}

static void put16(uint8_t *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELAXED);
}

static uint8_t *used_event(const struct virtqueue *vq)
{
    return vq->avail + RING_ENTRIES + 2 * vq->size;
}

static uint8_t *avail_event(const struct virtqueue *vq)
{
    return vq->used + RING_ENTRIES + 8 * vq->size;
}

int virtqueue_start(struct virtqueue *vq, uint32_t size, uint64_t desc, uint64_t avail,
                    uint64_t used)
{
    virtqueue_stop(vq);
    if (!size || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1))) {
        return -EINVAL;
    }
    if (desc % 16 || avail % 2 || used % 4) {
        return -EINVAL;
    }
    uint8_t *d = memory_map(desc, VIRTQ_DESC_BYTES(size));
    uint8_t *a = memory_map(avail, VIRTQ_AVAIL_BYTES(size));
    uint8_t *u = memory_map(used, VIRTQ_USED_BYTES(size));

    if (!d || !a || !u) {
        return -EINVAL;
    }
    vq->size = size;
    vq->desc = d;
    vq->avail = a;
    vq->used = u;
    return 0;
}

void virtqueue_stop(struct virtqueue *vq)
{
    assert(!vq->in_flight);
    vq->size = 0;
    vq->desc = vq->avail = vq->used = NULL;
    vq->avail_next = vq->used_next = vq->used_published = 0;
    vq->no_notify = false;
}

bool virtqueue_has_work(const struct virtqueue *vq)
{
    return fetch16(vq->avail + RING_IDX) != vq->avail_next;
}

/* --- Chains ----------------------------------------------------------------------------------- */

/* Add one data descriptor to the chain.  What is wrong with it is noted, not fatal: the walk
 * goes on, because the device may find its status byte at the end. */
static void chain_add(struct virtqueue_chain *chain, struct walk *walk, const struct desc *d,
                      unsigned limit)
{
    bool write = d->flags & VIRTQ_DESC_WRITE;
    uint8_t *p = memory_map(d->addr, d->len); /* NULL for empty ones too */

    chain->last = write && p ? p + d->len - 1 : NULL;
    if (!p || (walk->writable && !write)) {
        chain->fault = true;
        return;
    }
    walk->writable |= write;
    if (chain->out + chain->in == chain->room) {
        chain->room = MIN(MAX(chain->room * 2, 8u), limit);
        chain->iov = mem_reallocarray(chain->iov, chain->room, sizeof(*chain->iov));
    }
    chain->iov[chain->out + chain->in] = (struct iovec){ .iov_base = p, .iov_len = d->len };
    if (write) {
        chain->in++;
        chain->in_bytes += d->len;
    } else {
        chain->out++;
        chain->out_bytes += d->len;
    }
}

/* The walk meets an indirect table: it goes on at its first entry and ends there (section
 * 2.7.5.3). */
static int walk_enter(struct walk *walk, const struct virtqueue *vq, const struct desc *d)
{
    if (!vq->indirect || walk->nested || (d->flags & VIRTQ_DESC_NEXT) || d->len % 16) {
        return -EINVAL;
    }
    walk->table = memory_map(d->addr, d->len);
    walk->count = d->len / 16;
    walk->nested = true;
    return walk->table ? 0 : -EINVAL;
}

static int walk_chain(const struct virtqueue *vq, struct virtqueue_chain *chain)
{
    struct walk walk = { .table = vq->desc, .count = vq->size };
    uint32_t index = chain->head;

    for (;;) {
        if (index >= walk.count) {
            return -EINVAL;
        }
        struct desc d = fetch_desc(walk.table + 16 * index);

        if (d.flags & VIRTQ_DESC_INDIRECT) {
            if (walk_enter(&walk, vq, &d)) {
                return -EINVAL;
            }
            index = 0;
            continue;
        }
        /* A chain is never longer than the queue (2.7.5.3.1): a loop ends here as well. */
        if (chain->steps == vq->size) {
            return -EINVAL;
        }
        chain->steps++;
        chain_add(chain, &walk, &d, vq->size);
        if (!(d.flags & VIRTQ_DESC_NEXT)) {
            return 0;
        }
        index = d.next;
    }
}

static uint16_t unpublished(const struct virtqueue *vq)
{
    return vq->used_next - vq->used_published;
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
    uint16_t waiting = fetch16(vq->avail + RING_IDX) - vq->avail_next;

    if (!waiting) {
        return 0;
    }
    if (waiting > vq->size || vq->in_flight + unpublished(vq) >= vq->size) { /* Q2 */
        return -EINVAL;
    }
    chain->head = fetch16(vq->avail + RING_ENTRIES + 2 * (vq->avail_next & (vq->size - 1)));
    chain->out = chain->in = 0;
    chain->out_bytes = chain->in_bytes = 0;
    chain->steps = 0;
    chain->fault = false;
    chain->last = NULL;
    if (walk_chain(vq, chain)) {
        return -EINVAL;
    }
    vq->avail_next++;
    vq->in_flight++;
    return 1;
}

/* --- Giving back ------------------------------------------------------------------------------ */

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    uint8_t *entry = vq->used + RING_ENTRIES + 8 * (vq->used_next & (vq->size - 1));

    assert(vq->in_flight && unpublished(vq) < vq->size); /* Q3 */
    store_le32(entry, head);
    store_le32(entry + 4, written);
    vq->used_next++;
    vq->in_flight--;
}

void virtqueue_drop(struct virtqueue *vq)
{
    assert(vq->in_flight);
    vq->in_flight--;
}

bool virtqueue_publish(struct virtqueue *vq)
{
    uint16_t old = vq->used_published, now = vq->used_next;

    if (old == now) {
        return false;
    }
    put16(vq->used + RING_IDX, now);
    vq->used_published = now;
    if (vq->event_idx) {
        /* Wanted when the index passed the driver's mark: old <= mark < now, modulo 2^16
         * (2.7.10). */
        return (uint16_t)(now - fetch16(used_event(vq)) - 1) < (uint16_t)(now - old);
    }
    return !(fetch16(vq->avail + RING_FLAGS) & VIRTQ_AVAIL_NO_INTERRUPT);
}

void virtqueue_ask_notify(struct virtqueue *vq, bool want)
{
    if (vq->event_idx) {
        /* The mark stays behind while nothing is wanted: the driver's index has passed it. */
        if (want) {
            put16(avail_event(vq), vq->avail_next);
        }
    } else if (vq->no_notify == want) {
        vq->no_notify = !want;
        put16(vq->used + RING_FLAGS, want ? 0 : VIRTQ_USED_NO_NOTIFY);
    }
}
