/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks that lie: changes that are lost or land elsewhere, bits that flip, reads of what was there
 * long ago.  Success is said all the same.
 *
 * What a lie does is decided when the operation begins and is kept in the request, so the plan may
 * change while the operation is in flight.
 */
#include "core/io-sim-disk.h"

#include <assert.h>

#include "core/bytes.h"

#define SECTOR 512u
#define TRANSFERS (IO_SIM_READ | IO_SIM_WRITE | IO_SIM_COPY)
#define CHANGES \
    (IO_SIM_WRITE | IO_SIM_COPY | IO_SIM_ZERO | IO_SIM_PUNCH | IO_SIM_ALLOCATE | IO_SIM_TRUNCATE)

bool sim_fault_can(enum io_sim_fault_kind kind, enum io_sim_op op)
{
    static const unsigned of[IO_SIM_FAULT_KINDS] = {
        [IO_SIM_FAULT_ERROR] = IO_SIM_ANY,
        [IO_SIM_FAULT_SHORT] = TRANSFERS,
        [IO_SIM_FAULT_SYNC_DROP] = IO_SIM_FLUSH,
        [IO_SIM_FAULT_STALL] = IO_SIM_ANY & ~(IO_SIM_LOCK | IO_SIM_SIZE),
        [IO_SIM_FAULT_LOST] = CHANGES,
        [IO_SIM_FAULT_ASTRAY] = CHANGES & ~IO_SIM_TRUNCATE,
        [IO_SIM_FAULT_FLIP] = TRANSFERS,
        [IO_SIM_FAULT_STALE] = IO_SIM_READ,
    };

    return of[kind] & op;
}

/* Where the bit flips: the transfer's byte and what it is changed by. */
static void choose_flip(struct sim_request *r, const struct io_sim_fault *plan)
{
    uint64_t at = r->event.offset, end = at + r->event.len;
    uint64_t from = plan->len ? MAX(at, plan->offset) : at;
    uint64_t to = plan->len ? MIN(end, plan->offset + plan->len) : end;

    if (plan->mask) {
        r->flip_mask = plan->offset >= at && plan->offset < end ? plan->mask : 0;
        r->flip_at = plan->offset - at;
    } else if (to > from) {
        r->flip_at = from + loop_random_below(to - from) - at;
        r->flip_mask = 1u << loop_random_below(8);
    }
}

void sim_lie_begin(struct sim_request *r, const struct io_sim_fault *plan, struct sim_world *past)
{
    const struct sim_file *file;

    switch (plan->kind) {
    case IO_SIM_FAULT_LOST:
        r->lost = true;
        break;
    case IO_SIM_FAULT_ASTRAY:
        r->shift = plan->shift ? plan->shift : INT64_MAX;
        break;
    case IO_SIM_FAULT_FLIP:
        choose_flip(r, plan);
        break;
    default:
        assert(plan->kind == IO_SIM_FAULT_STALE);
        file = sim_find(past, r->event.path);
        if (r->past) {
            sim_pages_unref(r->past);
        }
        r->past = file ? sim_pages_ref(file->now.pages) : sim_pages_new();
    }
}

/* The place where a change goes that should go to `offset`. */
static uint64_t astray(const struct sim_request *r, const struct sim_file *file, uint64_t offset,
                       uint64_t len)
{
    uint64_t last = MAX(file->now.size, offset + len) - len;
    uint64_t first = offset % SECTOR;

    if (r->shift == INT64_MAX) {
        return first + loop_random_below((last - MIN(last, first)) / SECTOR + 1) * SECTOR;
    }
    return r->shift < 0 && offset < -(uint64_t)r->shift ? 0 : offset + r->shift;
}

struct sim_op *sim_lie_change(const struct sim_request *r, const struct sim_file *file,
                              struct sim_op *op)
{
    if (r->lost) {
        sim_op_unref(op);
        return NULL;
    }
    if (r->flip_mask && r->flip_at < op->len) {
        op->data[r->flip_at] ^= r->flip_mask;
    }
    if (r->shift) {
        op->offset = astray(r, file, op->offset, op->len);
    }
    return op;
}

void sim_lie_read(struct sim_request *r, uint64_t offset, const struct iovec *iov, int n,
                  uint64_t len)
{
    uint64_t done = 0;

    for (int i = 0; i < n && done < len; i++) {
        uint64_t piece = MIN(iov[i].iov_len, len - done);
        unsigned char *buf = iov[i].iov_base;

        if (r->past) {
            sim_pages_read(r->past, offset + done, buf, piece);
        }
        if (r->flip_mask && r->flip_at >= done && r->flip_at - done < piece) {
            buf[r->flip_at - done] ^= r->flip_mask;
        }
        done += piece;
    }
    if (r->past) {
        sim_pages_unref(r->past);
        r->past = NULL;
    }
}
