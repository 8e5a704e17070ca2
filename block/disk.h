/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk: what the monitor calls a device (virtio0, ide0-hd0).  It sits above a root node and owns the
 * error policy (rerror/werror), the guest-visible statistics and the requests that wait for a
 * stopped machine.  Devices (hw/) talk to disks; jobs and the monitor find disks by name.
 */
#ifndef BLOCK_DISK_H
#define BLOCK_DISK_H

#include "block/latency-window.h"
#include "block/node.h"
#include "block/throttle-group.h"

enum disk_policy { DISK_REPORT, DISK_IGNORE, DISK_STOP, DISK_ENOSPC /* stop on ENOSPC, else report */ };
enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_UNMAP, DISK_OP_COUNT };

struct disk_stats {
    uint64_t bytes[DISK_OP_COUNT], ops[DISK_OP_COUNT], total_ns[DISK_OP_COUNT];
    uint64_t failed[DISK_OP_COUNT], invalid[DISK_OP_COUNT];
    uint64_t last_access_ns;
    uint64_t longest_ns; /* the slowest request so far */
};

/* Who wants to hear that the disk goes: while its medium is still there, and may take a reference to that.  Does not suspend. */
struct disk_follower {
    LIST_ENTRY(disk_follower) link;
    void (*gone)(struct disk_follower *follower);
};

struct disk {
    TAILQ_ENTRY(disk) link;
    LIST_HEAD(, disk_follower) followers;
    unsigned holders;          /* see disk_hold() */
    bool gone;                 /* in no list any more */
    char *id;                  /* "virtio0" */
    char *qdev;                /* "/machine/peripheral-anon/device[0]" or the -device id; may be NULL */
    char *place;               /* of its device among all objects, for words; may be NULL */
    char *label;               /* what people call it: the id, or what its device is called when it has none (-blockdev) */
    struct node *root;         /* owned reference; NULL = no medium */
    struct chain_map *map;     /* kept for the disk's life, so that it stays filled */
    enum disk_policy rerror, werror;
    bool read_only, removable, tray_open;
    unsigned shared;           /* what its device lets others do with the root (enum io_perm); all without one */
    bool id_given;             /* by a person */
    unsigned bus, index;       /* where a -drive was put; 0: nowhere (start/drive.c) */
    bool io_status_failed, io_status_nospace;
    struct disk_stats stats;
    struct latency_window latencies; /* of the device's requests lately, all kinds; without those that waited for `cont` */
    struct co_queue stopped;   /* requests that failed under policy stop and wait for `cont` */
    bool cancelling;           /* see disk_cancel() */
    unsigned in_flight;
    struct throttle_member throttle; /* limits for the device's reads and writes; in no group: none */
    /* The device's ear: the size changed, the medium changed.  May be NULL. */
    void (*on_resize)(struct disk *disk, void *arg);
    void *dev_arg;
};

TAILQ_HEAD(disk_list, disk);
extern struct disk_list all_disks;

/* Takes over the reference to `root`.  The id must be free (checked by the caller, who has the words). */
struct disk *disk_new(const char *id, struct node *root);
/* The disk goes, its medium first as with co_disk_take_medium(); its device has gone already.  Suspends. */
void co_disk_free(struct disk *disk);
/* Whoever suspends and looks at the disk again holds it: it may go meanwhile, and is `gone` and without a medium then, but still
 * there to be looked at. */
void disk_hold(struct disk *disk);
void disk_release(struct disk *disk);
struct disk *disk_find(const char *id); /* NULL for "" */
/* Limits: as throttle_limits_set() has them, in the group of that name; all zero: none, and out of the group (the
 * disk's requests that wait go on).  0 or -EINVAL with QEMU's words. */
int disk_set_limits(struct disk *disk, const char *group, const json_t *limits, struct error *err);
/* What it is called where a device is meant: the id, or else the place of its device. */
const char *disk_user_name(const struct disk *disk);
void disk_set_label(struct disk *disk, const char *label);
/* By id, or else by label: for what is about the guest's side. */
struct disk *disk_find_label(const char *label);
/* All labels of now, the caller's: whoever goes through the disks and suspends meets some that have come or gone. */
json_t *disk_labels(void);
struct disk *disk_of_root(const struct node *root);
/* The root of the chain that a name means: a disk's id, or a node-name.  NULL with QEMU's words in err. */
struct node *disk_or_node(const char *name, struct error *err);
/* And back: the id of the disk whose root this is, or else the node-name. */
const char *disk_or_node_name(const struct node *node);

/* A snapshot: `root` (whose backing node is the old root) becomes the root; takes its own reference.  The disk is drained. */
void disk_set_root(struct disk *disk, struct node *root);

/* The medium goes: requests in flight end first, later ones fail with -ENOMEDIUM.  Nothing happens without one.  Suspends. */
void co_disk_take_medium(struct disk *disk);
/* A medium for a disk that has none; takes over the reference.  0, or a negative errno when it may not be used so: the
 * reference stays the caller's. */
int disk_put_medium(struct disk *disk, struct node *root, struct error *err);
/* A device with a tray has it? */
bool disk_has_tray(const struct disk *disk);

uint64_t disk_size(const struct disk *disk); /* bytes; 0 without a medium */
/* Requests of devices: bytes, multiples of NODE_SECTOR checked by the device.  They obey the error policy: with `stop` they raise
 * the event, stop the machine and wait for `cont`, then try again. */
int co_disk_read(struct disk *disk, uint64_t offset, const struct iovec *iov, int n);
int co_disk_write(struct disk *disk, uint64_t offset, const struct iovec *iov, int n);
int co_disk_zero(struct disk *disk, uint64_t offset, uint64_t len, bool may_unmap);
int co_disk_discard(struct disk *disk, uint64_t offset, uint64_t len);
int co_disk_flush(struct disk *disk);
/* A request that the device refused by itself (bad range, ...): counted as invalid. */
void disk_account_invalid(struct disk *disk, enum disk_op op);
/* The device is being reset (true) until it is done with its last request (false): requests that wait for
 * `cont` fail with -ECANCELED, and none begins to wait. */
void disk_cancel(struct disk *disk, bool on);
/* The machine runs again: retry what waits. */
void disk_resume_all(void);

/* What the floors above want to hear of; set once by main.  Callbacks do not suspend. */
struct block_listener {
    /* policy: "report", "ignore", "stop"; the machine must be stopped by the listener when it is "stop" */
    void (*io_error)(struct disk *disk, struct node *node, bool is_read, const char *action, int error);
    /* device: "" when no disk shows it */
    void (*image_corrupted)(struct node *node, const char *device, const char *msg, uint64_t offset, uint64_t size, bool fatal);
};
void block_set_listener(const struct block_listener *listener);
/* For drivers (qcow2): tell it. */
void node_report_corrupt(struct node *node, const char *msg, uint64_t offset, uint64_t size, bool fatal);

#endif
