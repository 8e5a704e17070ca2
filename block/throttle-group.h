/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups of those who share limits: disks (-drive throttling.*) and throttle nodes.
 *
 *   group      limits, and two rings (reads, writes) of members whose requests wait
 *   member     somebody whose requests are limited: its own requests go in their order
 *
 * When the buckets have room again the members take turns, one request each, so a member with many requests waiting does not
 * starve another with one.  A member that is being drained is let through.
 *
 * A group is there from its making by name (-object, object-add) until it is deleted and its last member has left; or, made by a
 * disk's key throttling.group (or the disk's id), as long as it has members.
 */
#ifndef BLOCK_THROTTLE_GROUP_H
#define BLOCK_THROTTLE_GROUP_H

#include <jansson.h>
#include <sys/queue.h>

#include "block/blockdev.h"
#include "block/throttle-bucket.h"
#include "core/co.h"

struct throttle_group;

/* --- The object "throttle-group" ------------------------------------------------------------------------------------ */
/* What -object and object-add take: rows "limits" (an object) and "x-iops-total" and so on; ends at name == NULL. */
extern const struct block_key throttle_group_keys[];
/* `props` (borrowed) is checked by those rows already; without "qom-type" and "id" or with them.  The id must be new among
 * objects (the caller's words).  A group with no limits is one. 0 or -errno with QEMU's words. */
int throttle_group_new(const char *id, const json_t *props, struct error *err);
/* qom-set of "limits": what is not named stays. */
int throttle_group_set(const char *id, const json_t *limits, struct error *err);
/* qom-get of "limits": new reference; NULL: no such group. */
json_t *throttle_group_get(const char *id);
/* object-del: -EBUSY with QEMU's words while it has members, -ENOENT when there is no such object (no words). */
int throttle_group_del(const char *id, struct error *err);
/* The end of the program: all that were made by name. */
void throttle_groups_end(void);

/* --- Members ---------------------------------------------------------------------------------------------------------- */
struct throttle_waiter;
struct throttle_member { /* all zero: in no group */
    struct throttle_group *group;             /* NULL: in none, never held up */
    TAILQ_ENTRY(throttle_member) link;        /* of the group's members */
    TAILQ_HEAD(, throttle_waiter) waiting[2]; /* reads, writes */
    unsigned drained;                         /* > 0: let through */
};
/* Join the group of that name.  With `make` it is made when there is none; else NULL is refused: "Throttle group '%s' does not
 * exist". */
int throttle_member_join(struct throttle_member *m, const char *group, bool make, struct error *err);
/* No request of it waits. */
void throttle_member_leave(struct throttle_member *m);
const char *throttle_member_group(const struct throttle_member *m);
/* The limits of the member's group, and other ones for it. */
json_t *throttle_member_limits(const struct throttle_member *m);
void throttle_member_set_limits(struct throttle_member *m, const struct throttle_limits *limits);
/* Before a request: suspends until it may go. */
void co_throttle(struct throttle_member *m, bool write, uint64_t bytes);
/* A drain begins: what waits goes, and what comes is not held up until it ends. */
void throttle_member_drain(struct throttle_member *m, bool begin);
/* The same for everybody: somebody waits until all guests are done. */
void throttle_drain_all(bool begin);

#endif
