/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: a driver plus named edges to its children.  Floor 2's centre.
 *
 *      disk virtio0                 what the monitor calls a device (disk.h)
 *         |  root
 *      node-E  qcow2 --file--> node "#block1" driver file --> struct io_file
 *         |  backing
 *      node-D  qcow2 --file--> ...
 *         |  backing
 *      node-A  raw   --file--> ...
 *
 * One choke point per operation (co_node_read, co_node_write, ...) owns bounds, the read-only check, drain,
 * request tracking, overlap ordering and statistics, so drivers may assume all of it.  A driver is one
 * table that names only the operations it changes.
 *
 * Reads never walk the chain: they ask the chain map (chain-map.h) of the node, which holds for each guest
 * range the layer and the host offset, and read the layer's host file directly.
 *
 * Who may wait for whom: a request enters through the node it is addressed to (its root), is counted there,
 * and waits there while that root is drained.  What a driver does below (copy-on-write reads, metadata) is
 * part of the same request and uses the uncounted functions, so a drain cannot deadlock on it.
 */
#ifndef BLOCK_NODE_H
#define BLOCK_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "block/events.h"
#include "core/co.h"
#include "core/error.h"
#include "core/io.h"

struct block_key;
struct chain_map;
struct chain_extent;
struct chain_layer;
struct driver;
struct node;
struct node_perm;

#define NODE_SECTOR 512u
#define NODE_SIZE_MAX 0x7fffffffc0000000ull /* bytes of a disk; what is more QEMU calls too large */
/* The largest single request drivers get to see; the choke points split what is larger. */
#define NODE_REQUEST_MAX (1u << 30)

/* What a range of ONE layer holds (co_map), or what the whole chain resolves it to (chain map). */
enum extent_kind {
    EXTENT_NONE,       /* this layer says nothing: look below (at the chain's end: zeroes) */
    EXTENT_DATA,       /* plain bytes at `host` of the layer's host file (node_host_file()) */
    EXTENT_ZERO,       /* reads as zeroes, nothing to read */
    EXTENT_COMPRESSED, /* this layer has it, ask its driver's co_read */
    EXTENT_OPAQUE,     /* a driver that cannot be resolved (filters): ask its co_read */
};
struct extent {
    enum extent_kind kind;
    uint64_t len;  /* bytes from the offset asked, > 0 */
    uint64_t host; /* EXTENT_DATA: byte offset in the layer's host file (also for a zero cluster that is allocated) */
};

enum node_write_flags {
    NODE_MAY_UNMAP = 1, /* co_zero: clusters may be deallocated */
    NODE_UNCHANGED = 2, /* the content seen by a guest does not change (copy-on-read, stream): no write permission needed
                         * beyond WRITE_UNCHANGED, no detect-zeroes */
    NODE_ZERO_STAYS = 4, /* co_zero: zeroes that this layer says itself, also where nothing lies below it yet */
};

/*
 * A block driver.  Each has co_read, co_write, co_zero and co_discard; with supports_backing it has co_copy_in, co_set_backing and
 * check_backing, too.  All offsets and lengths are bytes inside [0, node->size), already checked and tracked.  co_* may suspend and
 * return 0 or a negative errno.
 */
struct driver {
    const char *name;     /* "qcow2", "raw", "file" */
    bool is_format;       /* has a `file` child and an image of its own */
    bool is_protocol;     /* sits on the host (driver file) */
    bool is_filter;       /* stands above any node and works through its `file` child's node operations */
    bool own_reopen;      /* blockdev-reopen gives it other options of its own, and another file: it is opened anew (reopen.c) */
    bool no_reopen;       /* not even the options that all nodes have */
    bool passes_permissions; /* uses its file as its own users use it (permission.h) */
    bool supports_backing;           /* and then it has co_set_backing and check_backing */
    const char *child;    /* the option that says what the `file` child is; NULL: "file" */
    const struct block_key *keys; /* its own options (blockdev.h), ends at name == NULL; may be NULL */
    const struct block_key *create_keys; /* what blockdev-create makes an image of it from; NULL: it makes none */
    /* How surely is this our format? 0 = no, 100 = surely.  `head` is the start of the image, `len` bytes of it. */
    int (*probe)(const uint8_t *head, size_t len, const char *filename);

    /* Open: node->file is open (formats), node->options holds what was asked; own keys are consumed with
     * node_option_*().  Fills state, size, backing_name, backing_format, cluster_size.  Does not open the backing file. */
    int (*co_open)(struct node *node, struct error *err);
    /* Flush first if writable, then free everything. Called with no request in flight. */
    void (*co_close)(struct node *node);
    /* Switch between read-only and read-write; node->file has switched already (to rw before, to ro after).
     * Write back everything on the way to read-only. */
    int (*co_set_writable)(struct node *node, bool writable, struct error *err);

    int (*co_read)(struct node *node, uint64_t offset, const struct iovec *iov, int n);
    int (*co_write)(struct node *node, uint64_t offset, const struct iovec *iov, int n);
    int (*co_zero)(struct node *node, uint64_t offset, uint64_t len, unsigned flags);
    int (*co_discard)(struct node *node, uint64_t offset, uint64_t len);
    int (*co_flush)(struct node *node); /* NULL: that of its file is enough */
    /* Let go of all that this layer holds in the range (whole clusters, or up to the end): what lies below shows.  NULL:
     * it cannot. */
    int (*co_empty)(struct node *node, uint64_t offset, uint64_t len);
    /* Take the pieces (ranges of host files, and memory) as the content from `offset` on: allocate the target's run at
     * once, move the bytes with co_io_gather(), update the tables once.  Offset and the sum of the lengths are
     * multiples of node->cluster_size (subcluster size with extended L2) or end at node->size. */
    int (*co_copy_in)(struct node *node, uint64_t offset, const struct io_piece *pieces, int n);
    /* About so many bytes will come that way: the host may make room ahead (io_expect()).  0: that is over, and what was not
     * used is given back.  A hint, cannot fail.  NULL: no need. */
    void (*co_expect)(struct node *node, uint64_t bytes);
    /* What this layer alone holds at `offset`, at most `len` bytes on.  Maximal runs, please: the same table may be wrong for
     * millions of clusters.  On error `out` is EXTENT_OPAQUE as far as the error is known to reach. */
    int (*co_map)(struct node *node, uint64_t offset, uint64_t len, struct extent *out);
    /* The host file in which EXTENT_DATA's host offsets lie (NULL op: that of node->file). */
    struct io_file *(*host_file)(struct node *node);
    /* Record another backing file (NULL: none) in the image, atomically and durably: when it returns 0 the new pointer
     * is durable; on error the old one stands.  All data and tables written before are durable before the pointer is. */
    int (*co_set_backing)(struct node *node, const char *name, const char *format, struct error *err);
    /* May this name be recorded later? Checked before a long job starts (header space). */
    int (*check_backing)(struct node *node, const char *name, const char *format, struct error *err);
    int (*co_truncate)(struct node *node, uint64_t size, struct error *err);
    /* Format-specific details as in QMP's ImageInfoSpecific (new reference), may be NULL. */
    json_t *(*describe)(struct node *node);
    /* Its file has another size.  Filters need none: their size is their file's. */
    void (*follow_size)(struct node *node);
    /* Of filters, when all that lies below has been opened: does it suit?  0 or -errno.  NULL: yes. */
    int (*look_below)(struct node *node, struct error *err);
    /* Of those that pass permissions: what it needs besides.  Suspends never.  NULL: nothing. */
    void (*adjust_permissions)(const struct node *node, struct node_perm *below);
    /* It may hold requests up (throttling): until the end of a drain (begin == false) it does not.  NULL: it never does. */
    void (*drained)(struct node *node, bool begin);
    /* Opened anew: what it has to take over from a state that it had (drains).  NULL: nothing. */
    void (*inherit)(struct node *node, const void *former);
    /* It listens to what happens in the node that has it as its `file` (blkdebug).  Suspends never. */
    void (*event)(struct node *node, enum node_event event);
    /* What "name:rest" as a file name means, when `name` is the driver's: put it into options.  NULL: no such names. */
    int (*parse_name)(const char *rest, json_t *options, struct error *err);
    /* Make a new image: path exists not or is overwritten; options are QEMU's creation options ("size", "backing_file",
     * "backing_fmt", "cluster_size", "compat", ...).  Durable, directory entry included, on return. */
    int (*co_create)(const char *path, json_t *options, struct error *err);
};

struct node_stats {
    uint64_t reads, writes, flushes, zeroes, discards, copies;
    uint64_t bytes_read, bytes_written;
    uint64_t host_discards, host_discards_failed, host_discarded_bytes; /* a file's holes, on protocol nodes */
    uint64_t highest_written; /* QEMU's wr_highest_offset, on protocol nodes */
};

/* Sets of enum io_perm: what a node is used for, and what others may do with it meanwhile (permission.h). */
struct node_perm {
    unsigned used, shared;
};

/* A request in flight on a node; lives on the requester's stack. */
struct node_request {
    LIST_ENTRY(node_request) link;
    uint64_t offset, len;
    bool serialising;      /* excludes every overlapping write (discard, zero, copy-in) */
    uint64_t order;
    struct co_queue waiters;
};

struct node {
    TAILQ_ENTRY(node) link;      /* in the list of all nodes, oldest first */
    char *name;                  /* node-name, unique; generated ones are "#block123" */
    const struct driver *driver;
    void *state;                 /* the driver's own */
    struct node *file;           /* owned reference */
    struct node *backing;        /* owned reference */
    unsigned refs;
    bool read_only;              /* now */
    bool for_later;              /* nobody uses it until he says so (co_node_open_idle()) */

    /* Here, as each change of the graph looks at these of all nodes, and what lies far apart takes twice as long. */
    uint64_t mark;               /* drain.c's */
    bool clash, used_from_outside; /* permission.c's, with what follows */
    unsigned above;              /* 0 between two passes */
    unsigned wants_write;        /* > 0: about to become writable */
    struct node_perm perm;       /* what all its users together come to */
    struct node_perm new_perm, apart;
    const char *busy_reason;     /* "block device is in use by block job: stream", NULL when free */

    json_t *options;             /* as asked (owned) */
    json_t *unused;              /* while opening: what no driver has asked for yet */
    char *filename;              /* path it was opened by; a format node has that of its file; never NULL once it is open */
    char *backing_name;          /* as recorded in the image, NULL when none */
    char *backing_format;        /* as recorded, NULL when none */
    uint64_t size;               /* bytes, a multiple of NODE_SECTOR */
    uint32_t cluster_size;       /* allocation unit in bytes (subcluster with extended L2); raw: NODE_SECTOR */
    bool opening;                /* in opening_nodes */
    bool monitor_owned;          /* made by -blockdev or blockdev-add: one of the references is the monitor's */
    bool want_read_only;         /* what the user asked: the state to return to after a job */
    bool probed_raw;             /* format raw was guessed: sector 0 is guarded */
    bool corrupt;                /* found corrupt at run time: no write any more */
    bool temporary;              /* its file goes away with the program (snapshot=on) */
    bool discard_unmap;          /* discard=unmap */
    bool force_share;            /* open it although others write it */
    bool auto_read_only;         /* read-only where the host forbids writing */
    bool no_flush;               /* cache=unsafe */
    bool writethrough;           /* cache=writethrough|directsync: flush after each write */
    unsigned detect_zeroes;      /* 0 off, 1 on, 2 unmap */
    bool cache_direct;           /* cache=none|directsync: O_DIRECT */

    struct io_file *stand_in;    /* what parents see that work on files (node_as_file()), once one has asked */
    struct chain_map *held_map;  /* a reference to `map` for a filter above; see node_hold_map() */
    bool read_at_source;         /* what is copied in from files below is still read there (chain-map.h) */
    bool copy_on_read;           /* what is read from below is kept (copy-on-read.h) */
    struct chain_map *map;       /* resolved chain as seen from here, while somebody uses it */
    LIST_HEAD(, chain_layer) layer_of; /* the maps in which this node is a layer (chain-map.c) */

    LIST_HEAD(, node_request) requests; /* writes, zeroes, discards, copies in flight */
    unsigned in_flight;          /* counted requests that entered here, reads too */
    unsigned drained;            /* > 0: no new request enters */
    struct co_queue drain_queue; /* requests that wait for the end of the drain */
    struct co_queue idle_queue;  /* drainers that wait for in_flight == 0 */

    unsigned nesting;            /* see node_measure_nesting() */
    unsigned backing_frozen;     /* > 0: the backing edge may not change */
    struct node_stats stats;
};

/* Whoever takes a reference to what he finds here looks at node_alive() first. */
TAILQ_HEAD(node_list, node);
extern struct node_list all_nodes;
extern struct node_list opening_nodes; /* have edges already, and nobody can see them yet */

/* How many drivers a request on this node may have to pass one inside the other, on one stack: its file and what that
 * stands on, and below its images (which the chain map walks without nesting) the first filter.  Sets node->nesting
 * from the children's; a node that would go deeper than NODE_NESTING_MAX is refused when it is opened. */
#define NODE_NESTING_MAX 100
void node_measure_nesting(struct node *node);
int node_check_nesting(const struct node *node, struct error *err); /* 0 or -ELOOP with words */

/* --- Requests ------------------------------------------------------------------------------------------ */
/* All: bytes; suspend; 0 or -errno: -EIO beyond the end, -EPERM read-only or guarded, -ENOSPC, ... */
int co_node_read(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_node_write(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_node_zero(struct node *node, uint64_t offset, uint64_t len, unsigned flags);
int co_node_discard(struct node *node, uint64_t offset, uint64_t len);
int co_node_flush(struct node *node);
/* Before a flush that has much to write, so that guests notice less of it: co_io_write_out() of its file. */
void co_node_write_out(struct node *node);
/* Between these two its guest may write behind the end of its file without waiting for that: co_io_make_room() of it, for what
 * guests write in so short a time, and co_io_give_room_back(). */
void co_node_make_room(struct node *node);
void co_node_give_room_back(struct node *node);
int co_node_read_buf(struct node *node, uint64_t offset, void *buf, size_t len);
int co_node_write_buf(struct node *node, uint64_t offset, const void *buf, size_t len);
/* Where [offset, offset + len), or a first part of it, comes from; len > 0 (chain-map.h).  out->layer is good until the caller
 * suspends. */
int co_node_map(struct node *node, uint64_t offset, uint64_t len, struct chain_extent *out);
/* What this image alone says of it; EXTENT_OPAQUE of a driver that cannot say. */
int co_node_map_own(struct node *node, uint64_t offset, uint64_t len, struct extent *out);
/* Jobs: run co_fill(node, offset, len, arg) as one request that excludes every overlapping write of a guest; reads go on.  Inside,
 * look at the map, then call the driver's operations directly. */
typedef int node_populate_fn(struct node *node, uint64_t offset, uint64_t len, void *arg);
int co_node_populate(struct node *node, uint64_t offset, uint64_t len, node_populate_fn *co_fill, void *arg);
/* The same inside a request that is counted already. */
int co_node_populate_nested(struct node *node, uint64_t offset, uint64_t len, node_populate_fn *co_fill, void *arg);
/* Uncounted: for drivers, inside a request.  The content of a range as the chain from `node` on shows it. */
int co_node_read_nested(struct node *node, uint64_t offset, const struct iovec *iov, int n);
/* Uncounted, for filters: as their namesakes, but nobody waits for a drain here, as the request is counted above.  Discard
 * and unmapping are not subject to the node's `discard` option. */
int co_node_write_nested(struct node *node, uint64_t offset, const struct iovec *iov, int n);
int co_node_zero_nested(struct node *node, uint64_t offset, uint64_t len, unsigned flags);
int co_node_discard_nested(struct node *node, uint64_t offset, uint64_t len);
int co_node_flush_nested(struct node *node);
/* Not even ordered against others: the driver's operation, or that of the first file below that has it. */
int co_driver_flush(struct node *node);
/* Uncounted: the content that lies BELOW `node` (its backing chain), zeroes where nothing does or beyond the backing file's end. */
int co_node_read_below(struct node *node, uint64_t offset, const struct iovec *iov, int n);
/* A hole was punched into the file of this node, or was not (ret). */
void node_note_host_discard(struct node *file, uint64_t len, int ret);
/* The host file that carries EXTENT_DATA of this layer, NULL when the driver cannot say. */
struct io_file *node_host_file(struct node *node);
/* The node as a file for a format above it: the host's where there is nothing between, else one that is made of the
 * node's operations (node-file.c).  It stays the node's. */
struct io_file *node_as_file(struct node *node);
/* Something else lies below: what stands in is the same file as that from now on. */
void node_renew_stand_ins(void);
/* The node is to be closed: neither that file nor the map below is kept any longer. */
void node_drop_stand_in(struct node *node);
/* Keep the chain map of a node that is read through requests of others (a filter's child) until the node is closed. */
void node_hold_map(struct node *node);

/* Tell the driver below `node` that something happens in it. */
extern unsigned node_event_listeners; /* nodes that have it */
void node_tell_event(struct node *node, enum node_event event);
static inline void node_debug_event(struct node *node, enum node_event event)
{
    if (__builtin_expect(node_event_listeners != 0, 0)) {
        node_tell_event(node, event);
    }
}

/* --- In-flight epochs: when may a freed host cluster be used again? -------------------------------------- */
/* Every request takes a number when it starts.  A cluster unlinked now may still be read or written by requests that
 * resolved it before: it is free for others once node_epoch_oldest() > the node_epoch_now() of its unlinking. */
uint64_t node_epoch_now(void);
uint64_t node_epoch_oldest(void); /* UINT64_MAX when nothing is in flight */

/* --- Drain: until node_drain_end() no request is in flight on any root whose chain holds `node`. ---------- */
/* Requests that arrive meanwhile wait; a disk's requests look again for the disk's root when they go on, so the graph
 * may be re-linked in between.  Drains may nest and overlap. */
struct node_drain;
struct node_drain *co_node_drain_begin(struct node *node);
void co_node_drain_end(struct node_drain *drain);
/* The same of this very node: those who use it by its name, not through what stands on it, wait until the second. */
void co_node_close_door(struct node *node);
void node_open_door(struct node *node);

/* --- Graph ------------------------------------------------------------------------------------------------ */
/* The tables: set once by main (or a test): a NULL-terminated array of drivers. */
void node_set_drivers(const struct driver *const *drivers);
const struct driver *driver_find(const char *name);
const struct driver *const *driver_list(void);
struct node *node_find(const char *name);      /* by node-name */
struct node *node_ref(struct node *node);
/* False: its last reference is gone and it is being closed, which suspends.  It is to be left alone. */
bool node_alive(const struct node *node);
void co_node_unref(struct node *node);         /* closes at zero, children too (iteratively) */
/* Give back a reference that is not the last one: suspends never. */
void node_unref_shared(struct node *node);
/* The same as co_node_unref() for a reference that is no edge, no disk's root and no user's: unless it was the last one, nobody
 * may do more or less than before. */
void co_node_let_go(struct node *node);
/* A node of the chain below and including `top`?  Distance, or -1. */
int node_depth(const struct node *top, const struct node *below);
/* Can `wanted` be reached from this node, by any edges?  Each reaches itself. */
bool node_reaches(const struct node *from, struct node *wanted);
/* Make `below` the backing node of `node` (NULL: none) in memory: takes a new reference, drops the old one, tells the
 * chain maps.  The caller has drained. */
void co_node_set_backing_edge(struct node *node, struct node *below);
/* One that has this node below it, as its file or its backing node; NULL: none. */
const struct node *node_parent(const struct node *node);
/* "block device is in use by block job: stream" refusal in QEMU's words; 0 or -EBUSY. */
int node_check_free(const struct node *node, struct error *err);
/* Another size: drains, asks the driver, forgets what the chain maps knew.  Bytes.  Suspends. */
int co_node_truncate(struct node *node, uint64_t size, struct error *err);
/* Formats write into a host's file past its node, and it grows: before somebody else stands on a node, all down to that file get
 * the size that they have now.  0 or -errno with err; suspends. */
int co_node_look_at_size(struct node *node, struct error *err);
/* A node's size changed: the filters above it have another one, too. */
void node_size_changed(struct node *node);
/* Switch a node (and its file) to read-write or back, locks included. */
int co_node_set_writable(struct node *node, bool writable, struct error *err);
/* A file of an image that is being opened and has asked for the permission already. */
int co_node_open_for_writing(struct node *file, struct error *err);
/* To read-only, together with files that were made for it, but not with those that have been there before. */
int co_node_set_own_read_only(struct node *node, struct error *err);

/* --- Opening (open.c) --------------------------------------------------------------------------------------- */
/* Open an image and its whole backing chain (iteratively; 1,000 layers are fine; a loop is refused).
 * `options` (borrowed, may be NULL) is QEMU's option tree: {"driver", "node-name", "read-only", "filename" or
 * "file": {"driver", "filename", "node-name", "aio", "locking", ...}, "backing": {...} | null | "node-name",
 * "cache": {"direct", "no-flush"}, "discard", "detect-zeroes", "force-share"}.  Returns a reference or NULL with err. */
struct node *co_node_open(const char *filename, json_t *options, struct error *err);
/* The same for one that is not worked with yet: it is shared for everything until a disk or another user has it. */
struct node *co_node_open_idle(const char *filename, json_t *options, struct error *err);
/* Where a recorded backing name leads, seen from the overlay's path: absolute and protocol names unchanged, relative
 * ones against the overlay's directory.  malloc'ed. */
char *path_combine(const char *overlay_path, const char *name);
/* Letters, digits, '-', '.', '_', starting with a letter: what ids and node-names are made of. */
bool id_wellformed(const char *id);
/* Options for drivers: take a value out of node->options; unknown rest is refused by co_node_open(). */
const char *node_option_str(struct node *node, const char *key);
/* *out stays when it is not there.  0 or -EINVAL with QEMU's words. */
int node_option_bool(struct node *node, const char *key, bool *out, struct error *err);
/* A number of bytes or of something else; as text ("64k") or a number.  *out stays when it is not there.  0 or -EINVAL with QEMU's
 * words. */
int node_option_size(struct node *node, const char *key, uint64_t *out, struct error *err);

#endif
