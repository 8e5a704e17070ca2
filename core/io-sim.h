/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated disk: files in memory, a volatile cache, power cuts, faults by plan.
 *
 * Files live in a name space of their own and are used through core/io.h like any others (engine
 * "sim").  The model is what POSIX promises, and not a bit more:
 *
 *                    completes             flush that was issued later, or write-back
 *     in flight ----------------> cached ---------------------------------------------> durable
 *     (not seen by readers)      (seen by readers; an ordered list of operations)
 *
 *   - A request completes after a seeded time (io_virtual_latency()), so requests overtake each
 *     other.
 *   - A flush makes durable what had completed on that file before the flush was issued; size
 *     changes included.
 *   - Names (create, unlink, rename) are durable after co_io_sync_dir() only; the file's own flush
 *     does not help.
 *   - When more than a bound is cached (io_sim_set_writeback()), the oldest becomes durable by
 *     itself.
 *
 * io_sim_cut() takes the power or the process away.  Requests in flight then fail with -EIO, and so
 * does every later use of a handle that was open: whoever held it unwinds and closes it.  Open anew
 * to see what is left.
 *
 * The hook of io_sim_on_op() runs after each change of this state, so a snapshot taken in each call
 * is a list of all the states in which the power could have gone.  Snapshots share memory with the
 * disk and each other.
 *
 * Paths are compared by their text: "." and ".." and doubled slashes are taken out, a relative path
 * starts at "/". There are no directories, permissions or links.  Not for use from other threads.
 */
#ifndef CORE_IO_SIM_H
#define CORE_IO_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Begin with no files, and register the engine "sim" (core/io.h, io_engine_find()).  The loop must
 * be up. */
void io_sim_init(void);
/* End it; all handles are closed. */
void io_sim_fini(void);
/* Forget files, faults, the hook, the quota; start counting operations at 0. */
void io_sim_reset(void);

/* --- Looking in from outside: at once, durable at once, not counted as operations, no faults -- */

/* Make a file of `size` zero bytes, replacing any of that name. */
void io_sim_create(const char *path, uint64_t size);
/* 0, or -ENOENT.  io_sim_write() extends the file. */
int io_sim_write(const char *path, uint64_t offset, const void *buf, size_t len);
/* What a reader sees; bytes beyond the end are zero. */
int io_sim_read(const char *path, uint64_t offset, void *buf, size_t len);
int io_sim_size(const char *path, uint64_t *size);
/* What is on the medium for certain under that name, were the power cut now. */
int io_sim_read_durable(const char *path, uint64_t offset, void *buf, size_t len);
int io_sim_size_durable(const char *path, uint64_t *size);
/* Copy a file from or to the host's file system (holes stay holes).  0 or a negative errno. */
int io_sim_import(const char *path, const char *host_path);
int io_sim_export(const char *path, const char *host_path);

/* --- Operations, as the hook and the faults see them ------------------------------------------ */

enum io_sim_op {
    IO_SIM_READ = 1 << 0,
    IO_SIM_WRITE = 1 << 1,
    IO_SIM_FLUSH = 1 << 2,
    IO_SIM_ZERO = 1 << 3,
    IO_SIM_PUNCH = 1 << 4,
    IO_SIM_ALLOCATE = 1 << 5,
    IO_SIM_COPY = 1 << 6,     /* path and offset are the target's */
    IO_SIM_TRUNCATE = 1 << 7, /* offset is the new size */
    IO_SIM_MAP = 1 << 8,
    IO_SIM_OPEN = 1 << 9,     /* also reopen */
    IO_SIM_LOAD = 1 << 10,
    IO_SIM_SYNC_DIR = 1 << 11,
    IO_SIM_UNLINK = 1 << 12,
    IO_SIM_RENAME = 1 << 13,  /* path is the old name */
    /* These two take no time and are not numbered nor shown to the hook; faults may strike them. */
    IO_SIM_LOCK = 1 << 14,
    IO_SIM_SIZE = 1 << 15,    /* also how much is allocated, whether a name is there, and where */
    IO_SIM_ANY = (1 << 16) - 1,
};
const char *io_sim_op_name(enum io_sim_op op); /* "write", "flush", ... */

struct io_sim_event {
    uint64_t number;  /* counts operations from 1; one operation has one number */
    enum io_sim_op op;
    bool completed;   /* false: issued, in flight from now on; true: its effect is there */
    const char *path;
    uint64_t offset, len;
    int64_t result;   /* when completed: bytes, 0, or a negative errno */
};
typedef void io_sim_hook(void *arg, const struct io_sim_event *event);

/* Called twice for every operation: when it has been issued and when it has completed.  Must not
 * suspend; may take snapshots, add faults, and cut.  NULL takes the hook away. */
void io_sim_on_op(io_sim_hook *hook, void *arg);
/* Handles that are open. */
size_t io_sim_handles(void);
/* Operations issued so far. */
uint64_t io_sim_ops(void);

/* --- Cuts and snapshots ----------------------------------------------------------------------- */

enum io_sim_cut {
    /* The power goes.  A seeded, arbitrary subset of what is cached or in flight is on the medium:
     * operations kept, lost, or torn at 512 bytes or 4 KiB; sizes apart from data; names as after a
     * seeded number of the pending changes of names, in their order.  The seed also decides how
     * much is kept at all. */
    IO_SIM_CUT_POWER,
    IO_SIM_CUT_POWER_LOSE, /* nothing that was not durable is left */
    IO_SIM_CUT_POWER_KEEP, /* everything is left, what was in flight included */
    /* The process dies, the host lives: what had completed stays cached, a seeded subset of what
     * was in flight too (writes perhaps in part: some whole blocks of 4 KiB from their start). */
    IO_SIM_CUT_KILL,
};
void io_sim_cut(enum io_sim_cut mode, uint64_t seed);

/* What a cut would decide about, in a fixed order: changes of names as they were made, then file by
 * file (the oldest file first) what is cached and what is in flight, each in its order. */
struct io_sim_pending {
    uint64_t id;       /* one operation has one, in all snapshots that hold it */
    uint64_t hash;     /* equal for those that do the same to the same file, in whatever run */
    enum io_sim_op op; /* of a name: OPEN (it appears), UNLINK, RENAME (`path` is the new one) */
    bool is_name, in_flight;
    const char *path;  /* until the next change */
    uint64_t offset, len;
};
/* How many; *list is malloc'ed. */
size_t io_sim_pending(struct io_sim_pending **list);
/* A cut that is told everything: one letter for each pending operation.
 *   0 lost   1 kept   d its data but not the new size   s the new size but not the data
 *   t torn at 512 bytes   T torn at 4 KiB (for `kill`: the first blocks of a write)
 * Names are kept up to the first that is not '1'.  `kill`: the process dies; names and what had
 * completed stay whatever their letters say, and stay pending. */
void io_sim_cut_exact(bool kill, const char *fates);
/* What readers see of a file, size included, as a number; 0 when there is no such file. */
uint64_t io_sim_hash(const char *path);
/* The same of all files together, with their names. */
uint64_t io_sim_hash_all(void);
/* What is durable, contents and names, as a number. */
uint64_t io_sim_hash_durable(void);

/* All files and names with what is durable, cached and in flight.  Restoring invalidates open
 * handles as a cut does, and leaves requests that were in flight at the time of the snapshot in
 * flight for ever: cut next.  A snapshot may be restored any number of times. */
struct io_sim_snapshot;
struct io_sim_snapshot *io_sim_snapshot(void);
void io_sim_restore(const struct io_sim_snapshot *snapshot);
void io_sim_snapshot_free(struct io_sim_snapshot *snapshot);
/* io_sim_pending(), io_sim_hash_durable() and io_sim_hash_all() of a snapshot, which need not be restored for it.  The paths live
 * as long as the snapshot. */
size_t io_sim_look_at(const struct io_sim_snapshot *snapshot, struct io_sim_pending **list, uint64_t *durable,
                      uint64_t *shown);

/* --- Faults ----------------------------------------------------------------------------------- */

enum io_sim_fault_kind {
    IO_SIM_FAULT_ERROR,     /* the operation does nothing and returns -error */
    IO_SIM_FAULT_SHORT,     /* a read, write or copy moves a seeded part only */
    /* A flush returns -error; readers go on seeing what it should have saved, but that will never
     * be durable: what Linux does when write-back fails. */
    IO_SIM_FAULT_SYNC_DROP,
    IO_SIM_FAULT_STALL,     /* it takes `ns` longer */
    /* Lies: success is said.  They strike transfers and ranges only (STALE: reads only). */
    IO_SIM_FAULT_LOST,      /* a change has no effect, now or ever */
    IO_SIM_FAULT_ASTRAY,    /* a change lands `shift` bytes beside its place */
    IO_SIM_FAULT_FLIP,      /* a bit of a read, write or copy is another one */
    IO_SIM_FAULT_STALE,     /* a read gets what was there when the fault was planned */
    IO_SIM_FAULT_KINDS,
};
struct io_sim_fault {
    enum io_sim_fault_kind kind;
    const char *path;     /* NULL: any file */
    unsigned ops;         /* set of enum io_sim_op; 0: any */
    uint64_t offset, len; /* only transfers and ranges that touch it; len 0: any */
    uint64_t after;       /* let so many matching operations pass first */
    uint64_t times;       /* strike so many times; 0: for ever */
    int error;            /* positive errno; 0: EIO */
    uint64_t ns;
    /* ASTRAY: not below the file's start; 0: a seeded place in the file, whole sectors away. */
    int64_t shift;
    /* FLIP: of the byte at `offset`; 0: one bit, seeded, of the part that touches the range. */
    unsigned mask;
    /* Asked last when all else matches; NULL: yes.  Must not suspend. */
    bool (*when)(void *arg);
    void *arg;
};
/* Add to the plan (copied).  Of several that match one operation all strike; the first error
 * counts. */
void io_sim_fault(const struct io_sim_fault *fault);
/* The same from words: "error,path=/A.img,ops=write+flush,offset=64k,len=512,after=3,times=1,
 * errno=ENOSPC,ns=1000000,shift=-512,mask=0x80".  Kinds: error, short, sync-drop, stall, lost,
 * astray, flip, stale.  False with err when it is none; nothing is planned then. */
bool io_sim_fault_words(const char *words, struct error *err);
/* Such words, drawn: one of `kinds` (a set of 1 << enum io_sim_fault_kind), on any operation that
 * it can strike, within the first `ops` of them, once, a few times or (but for lies) for ever.
 * malloc'ed. */
struct random;
char *io_sim_fault_draw(struct random *random, unsigned kinds, uint64_t ops);
void io_sim_faults_clear(void);
/* How often faults have struck since the last clear. */
uint64_t io_sim_faults_struck(void);
/* The medium's size: blocks held by all files together, in bytes; beyond it -ENOSPC, after what
 * still fits.  0: no limit. */
void io_sim_set_quota(uint64_t bytes);
/* Bytes that may be cached per file before the oldest operations become durable by themselves.
 * 64 MiB at first. */
void io_sim_set_writeback(uint64_t bytes);

#endif
