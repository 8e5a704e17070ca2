/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated guest: one per disk.  It boots through its device (reset, negotiate or identify,
 * read the partition table), then runs a workload described in fio's words through the same
 * registers, rings and DMA, remembers a hash of every block it has seen and checks every read
 * against it.
 *
 *   guest.c          life: boot, run, stop, the table of guests
 *   guest-settings.c fio's words
 *   guest-control.c  settings before and after the disks exist, descriptions
 *   guest-work.c     what to do next: random/sequential, mix, rate, profiles preserve and stamp
 *   guest-worker.c   doing it: requests in flight, pace, replay
 *   guest-ranges.c   its own requests that overlap keep an order
 *   guest-verify.c   what the content must be: hashes per sector, stamps
 *   guest-check.c    reading everything again; keeping off a range that somebody else writes
 *   guest-stats.c    latencies and stalls
 *   guest-iolog.c    fio's iolog (profile replay)
 *   guest-partitions.c  MBR and GPT, read at boot
 *   guest-virtio.c   the guest's virtio-mmio block driver
 *   guest-ide.c      the guest's IDE driver: boot and requests
 *   guest-ata.c      ... and how it gives a command to a drive (PIO and bus-master DMA)
 */
#ifndef HW_GUEST_H
#define HW_GUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/co.h"
#include "core/error.h"
#include "hw/machine.h"

struct guest;

/* --- The guest's device drivers --------------------------------------------------------------- */
enum guest_op { GUEST_READ, GUEST_WRITE, GUEST_FLUSH, GUEST_DISCARD, GUEST_ZERO };
struct guest_request {
    enum guest_op op;
    uint64_t offset, len;  /* bytes, multiples of 512 */
    uint64_t gpa;          /* guest-physical address of the data buffer (one contiguous buffer) */
};
struct guest_driver {
    const char *name;
    /* Reset and bring up the device.  Fills *out (owned by the driver until co_shutdown).  0 or
     * -errno. */
    int (*co_boot)(struct machine_device *dev, void **out);
    /* Reset the device if it was not reset already, so that it leaves our memory alone, and free
     * everything.  Requests that are still in flight return -ECANCELED first; none begins any
     * more. */
    void (*co_shutdown)(void *drv);
    /* Do one request and wait for it.  Any number may run at the same time (the driver queues
     * for device depth itself).  0; -EIO when the device reported an error; -ECANCELED when it
     * was reset meanwhile. */
    int (*co_request)(void *drv, const struct guest_request *req);
    /* The machine was reset under the driver: every waiting request returns -ECANCELED. */
    void (*abort)(void *drv);
    uint64_t (*capacity)(void *drv); /* bytes, as the device told */
    bool (*read_only)(void *drv);
    bool (*can)(void *drv, enum guest_op op);
    unsigned (*depth)(void *drv);    /* useful number of requests in flight */
    uint32_t (*max_bytes)(void *drv); /* largest data request */
    const char *(*id)(void *drv);     /* what the device calls itself; the op may be NULL */
};
extern const struct guest_driver guest_virtio_driver, guest_ide_driver;

/* --- Workloads -------------------------------------------------------------------------------- */
/* Change or set up the guest of a disk.  `settings` is fio's words: {"profile": "preserve",
 * "rw": "randrw", "rwmixread": "50", "bs": "4k", "iodepth": "1", "rate_iops": "200", "size":
 * "64M", "offset": "0", "flush_every": "0", "seed": "1", "iolog": "file"}, all strings as typed;
 * unknown keys and bad values are refused with one sentence and nothing changes. */
int guest_configure(const char *disk_id, json_t *settings, struct error *err);
/* The same; besides, an iolog is read at once, so that a bad one is refused here and not found
 * when the guest starts.  Suspends when there is one. */
int co_guest_configure(const char *disk_id, json_t *settings, struct error *err);
/* As `-guest` gives it before disks exist: without a disk key, the default for all disks.  NULL
 * forgets all that was set so. */
int guest_set_default(json_t *settings, struct error *err);
/* When all disks are there: was every disk that -guest named made, do its words go together, can
 * the iologs be read?  0, or negative with one sentence.  Suspends when there are iologs. */
int co_guest_check_settings(struct error *err);
/* All words, for help and completion; ends with NULL. */
extern const char *const guest_setting_names[];
/* Make the guest of a device (main, after the device is there) and remove it. */
struct guest *guest_new(struct machine_device *dev, const struct guest_driver *driver);
void co_guest_free(struct guest *guest);
/* `guest DISK stop`: returns when its requests are done.  Suspends. */
int co_guest_stop(const char *disk_id, struct error *err);
int guest_start(const char *disk_id, struct error *err);
/* Start all guests (machine runs), called by machine run-state changes itself; what had failed
 * is tried again. */
void guest_start_all(void);
/* Wait until nobody has a request in flight, or the machine runs again. */
void co_guest_stop_all(void);
/* True when any guest has ever seen wrong data, or an error it should not have seen. */
bool guest_any_mismatch(void);
bool guest_any_error(void);
/* Read and check everything that a guest remembers on its disk now; counts in its statistics.  0
 * or -EIO when something differed. */
int co_guest_verify_all(void);
/* Somebody else is about to write to a disk (`qemu-io write`): from now until guest_release()
 * its guest keeps off that range (what is in flight is waited for), and afterwards it knows
 * nothing of it.  NULL when the disk has no guest.  Suspends. */
struct guest_hold;
struct guest_hold *co_guest_hold(const char *disk_id, uint64_t offset, uint64_t len);
void guest_release(struct guest_hold *hold); /* NULL is fine */

/* For `info guest` and query-guest: an array of objects {device, driver, profile, state, reads,
 * writes, flushes, discards, verified, mismatches, errors, inflight, p50_ns, p99_ns, max_ns,
 * longest_stall_ns, ...}; new reference. */
json_t *guest_describe(void);
/* The last mismatches in words ("virtio0: read of 4096 bytes at 8192: ..."), for `info guest -v`;
 * included in guest_describe() as "mismatch_list". */

#endif
