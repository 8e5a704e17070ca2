/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One guest: what guest.c (life), guest-worker.c (requests) and guest-check.c (verifying, holding)
 * share.  Private to hw/guest*.c.
 *
 * A guest is one coroutine, its life, which boots the disk and then starts `iodepth` workers, each
 * a coroutine with a buffer of guest memory that does one step after the other.  Whatever should
 * make the life look up (stop, cont, new settings, reset, removal) sets its flag and calls
 * guest_poke(); workers end on their own between two requests when guest_must_pause() says so, and
 * the life decides what comes next:
 *
 *     down --- boot ---> up, idle <--- workers end --- up, working
 *      ^                  |   +----- start workers -------->  |
 *      +------------------+-- the machine was reset ----------+
 *
 * Own requests that overlap are put in order (struct guest_ranges): readers together, a writer
 * alone, first come first served.  So a worker that has entered a range exclusively may read it,
 * think, and write it.
 */
#ifndef HW_GUEST_STATE_H
#define HW_GUEST_STATE_H

#include "hw/guest-iolog.h"
#include "hw/guest-partitions.h"
#include "hw/guest-settings.h"
#include "hw/guest-stats.h"
#include "hw/guest-verify.h"
#include "hw/guest-work.h"
#include "hw/guest.h"

/* The last so many mismatches are kept in words. */
#define MISMATCH_LIST 16u

/* --- Ranges that are in use ------------------------------------------------------------------- */

struct guest_range {
    uint64_t start, end; /* bytes */
    uint64_t ticket;     /* when it came: it waits for those of before that conflict */
    bool exclusive;
};

struct guest_ranges {
    struct guest_range *list; /* in no order; those that wait included */
    unsigned count, room;
    unsigned exclusive;       /* of them */
    uint64_t last_ticket;
    struct co_queue waiters;
};

/* Take a place in the queue for a range.  Returns the ticket. */
uint64_t guest_range_enter(struct guest_ranges *r, uint64_t offset, uint64_t len, bool exclusive);
/* Wait until nobody of before conflicts. */
void co_guest_range_wait(struct guest_ranges *r, uint64_t ticket);
/* Must it wait now? */
bool guest_range_blocked(const struct guest_ranges *r, uint64_t ticket);
void guest_range_leave(struct guest_ranges *r, uint64_t ticket);

/* --- The guest -------------------------------------------------------------------------------- */

struct guest_worker;

struct guest {
    TAILQ_ENTRY(guest) link;
    struct machine_device *dev;
    const struct guest_driver *driver;
    char *id;         /* the disk's at first; it stays */
    uint64_t id_hash; /* the mark in its stamps, and the source of its default seed */

    struct guest_settings settings;
    struct guest_iolog *log; /* of settings.iolog, once it was needed */

    /* What others want of the life. */
    bool stopped;       /* `guest DISK stop` */
    bool gone;          /* co_guest_free() */
    bool reset;         /* the machine was reset: the driver must be brought up anew */
    bool changed;       /* settings or the disk's size: begin the workload anew */
    unsigned visitors;  /* who uses this guest from outside: it must not be freed */
    unsigned verifiers; /* those of them that need it booted */

    /* The life. */
    struct co_queue life; /* it alone waits here */
    bool poked;
    bool active; /* it boots, works, or shuts down */
    bool booted; /* the driver is up and the partition table read */
    bool working;
    bool finished; /* the iolog was played to its end */
    bool ended;
    char *why; /* why it does not work, or NULL */
    bool boot_failed;
    struct co_queue watchers; /* those who wait for a change */
    void *drv;                /* the driver's; NULL: down */
    struct partition_table table;

    /* The workload. */
    uint64_t disk_bytes; /* the disk's size when the workload began */
    struct guest_work work;
    struct guest_worker *workers;
    unsigned worker_count;
    uint64_t next_ns;          /* when the next request is due (guest_clock()) */
    uint64_t writes_unflushed; /* since the last flush of flush_every */
    uint64_t generation;       /* of the last stamp */
    struct co_mutex turn;      /* replay: who takes the next entry */
    size_t cursor;             /* replay: the next entry */
    uint64_t replay_start_ns;  /* replay: guest_clock() at the log's time 0 */
    uint64_t replayed_ns;      /* replay: how far it had come when it was stopped */
    unsigned busy;             /* replay: entries in flight */
    struct co_queue idle;      /* replay: a sync waits for those of before */

    struct guest_ranges ranges;
    struct guest_verify *verify;
    struct guest_stats stats;
    /* The last different ones, a ring: number n, from 0, is at n % MISMATCH_LIST. */
    char *mismatch_list[MISMATCH_LIST];
    uint64_t mismatches_listed;
};
TAILQ_HEAD(guest_list, guest);
extern struct guest_list guests;

/* Nanoseconds; it stands still while the machine does. */
uint64_t guest_clock(void);
/* Should the workers of this guest come to an end? */
bool guest_must_pause(const struct guest *g);
/* Do requests of this guest wait for a `cont`, since the machine stopped over an error? */
bool guest_is_stuck(const struct guest *g);
/* Something changed: the life and those who wait for it look up. */
void guest_poke(struct guest *g);
struct guest *guest_find(const char *disk_id);
/* The same, with a sentence for the one who asked. */
struct guest *guest_by_name(const char *disk_id, struct error *err);
/* Try again what failed, whatever it was. */
void guest_encourage(struct guest *g);
/* A replay begins anew. */
void guest_rewind(struct guest *g);
/* One visitor less. */
void guest_leave(struct guest *g);
/* An error that the guest should not have seen. */
void guest_count_error(struct guest *g);

/* One request through the driver, counted; -ECANCELED when the machine was reset or the guest is
 * gone.  Suspends. */
int co_guest_request(struct guest *g, const struct guest_request *req);
/* Read into the buffer at `gpa` and judge what came.  0, a negative errno, or 1 when it was
 * wrong.  Suspends. */
int co_guest_read(struct guest *g, uint64_t offset, uint32_t len, uint64_t gpa);

/* Run the workload until guest_must_pause() or the end of the iolog.  -EINVAL with a sentence
 * when it cannot be run. Suspends. */
int co_guest_work(struct guest *g, struct error *err);
/* Wake the workers that wait for their time. */
void guest_wake_workers(struct guest *g);

/* Guest memory for data.  All guests together take at most half of it: the result may be smaller
 * than asked, but not smaller than one page.  *len is in bytes. */
uint64_t guest_buffer_alloc(uint32_t *len);
void guest_buffer_free(uint64_t gpa, uint32_t len);

#endif
