/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device's side of a split virtqueue (virtio 1.2, section 2.7).
 *
 *     descriptor table     available ring            used ring
 *     (driver writes)      (driver writes)           (device writes)
 *     [addr len flags n]   flags idx ring[] used_ev  flags idx ring[{id len}] avail_ev
 *
 * The driver links descriptors to chains and puts the number of a chain's head into the available
 * ring; the device takes it (virtqueue_pop), works, and puts it into the used ring
 * (virtqueue_push), which the driver sees from the next virtqueue_publish() on.
 *
 * Nothing in guest memory is believed.  What an attack by the guest can do:
 *   - to the rings themselves (wrong index, loop, bad table): virtqueue_pop() gives -EINVAL and the
 *     queue is broken, which is for the device to tell (DEVICE_NEEDS_RESET);
 *   - inside one walkable chain (memory that is not RAM, empty or misplaced descriptors): the chain
 *     comes with `fault` set, for the device to answer with its error status.
 * A call of virtqueue_pop() takes at most `size` steps.
 *
 * Memory barriers: none.  Driver and device are coroutines of one thread, so each sees the other's
 * stores in program order.  Still, guest memory does change under our hands: the guest may aim the
 * buffer of a read, which a worker or the kernel fills, at its own rings.  Hence each field is
 * fetched exactly once, then checked, then used.
 */
#ifndef HW_VIRTQUEUE_H
#define HW_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* Entries of a queue, by the specification: powers of two up to here. */
#define VIRTQUEUE_SIZE_MAX 32768u

/* Flags of descriptors, of the available and of the used ring. */
#define VIRTQ_DESC_NEXT 1u
#define VIRTQ_DESC_WRITE 2u
#define VIRTQ_DESC_INDIRECT 4u
#define VIRTQ_AVAIL_NO_INTERRUPT 1u
#define VIRTQ_USED_NO_NOTIFY 1u

/* Bytes of the three parts for a queue of `size` entries, event index included. */
#define VIRTQ_DESC_BYTES(size) (16ull * (size))
#define VIRTQ_AVAIL_BYTES(size) (6ull + 2ull * (size))
#define VIRTQ_USED_BYTES(size) (6ull + 8ull * (size))

struct virtqueue {
    uint16_t size;
    bool indirect, event_idx;  /* negotiated features */
    uint8_t *desc, *avail, *used; /* mapped; NULL while the queue is not started */
    uint16_t avail_next;       /* the next entry of the available ring to take */
    uint16_t used_next;        /* the next entry of the used ring to fill */
    uint16_t used_published;   /* used.idx as the driver sees it */
    uint16_t in_flight;        /* popped and not pushed; at most `size` */
    bool no_notify;            /* without the event index: what used.flags says */
};

/* A chain as it was popped.  `iov` is the caller's storage and grows with mem_realloc() up to the
 * queue's size; it points into guest memory. */
struct virtqueue_chain {
    struct iovec *iov;      /* first `out` elements the device reads, then `in` it writes */
    unsigned room;          /* elements that `iov` can hold */
    unsigned out, in;
    uint64_t out_bytes, in_bytes;
    unsigned steps;         /* descriptors walked: what taking this chain has cost */
    uint16_t head;
    bool fault;             /* a descriptor is empty, not RAM, or readable behind a writable one */
    uint8_t *last;          /* the last byte of the chain if the device may write it, else NULL */
};

/* Start with rings at these guest-physical addresses.  0, or -EINVAL when `size` is no power of
 * two within the limits, an address is misaligned, or a ring is not RAM; the queue is stopped
 * then. */
int virtqueue_start(struct virtqueue *vq, uint32_t size, uint64_t desc, uint64_t avail,
                    uint64_t used);
/* Forget the rings: nothing of this queue touches guest memory after this. */
void virtqueue_stop(struct virtqueue *vq);

/* Take the next chain.  1: *chain is filled; 0: the ring is empty; -EINVAL: the ring is broken. */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
/* Is something to take?  (May say yes of a broken ring.) */
bool virtqueue_has_work(const struct virtqueue *vq);
/* Give a chain back, `written` bytes from the start of its writable part being valid.  The
 * driver sees it after virtqueue_publish(). */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);
/* A chain of this queue will never be given back (the device is being reset). */
void virtqueue_drop(struct virtqueue *vq);
/* Show the driver what was pushed.  True when it wants an interrupt for that. */
bool virtqueue_publish(struct virtqueue *vq);
/* Ask the driver for a notification at the next chain it adds, or (false) not to bother.  After
 * asking, look at virtqueue_has_work() once more. */
void virtqueue_ask_notify(struct virtqueue *vq, bool want);

#endif
