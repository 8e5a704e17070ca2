/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the simulated disk (io-sim*.c): the world of files, its pending operations, what cuts do
 * to it, and the bracket around each operation in which hook and faults have their say.
 */
#ifndef CORE_IO_SIM_DISK_H
#define CORE_IO_SIM_DISK_H

#include <uthash.h>

#include "core/io-engine.h"
#include "core/io-sim-pages.h"
#include "core/io-sim.h"

/* A change of a file.  Never changed once made, so snapshots share it. */
struct sim_op {
    unsigned refs;
    uint64_t id; /* counts all that were ever made */
    enum io_sim_op kind;
    uint64_t offset, len; /* truncate: offset is the new size */
    uint64_t hash;        /* of all that, once somebody has asked */
    unsigned char data[]; /* write and copy: `len` bytes */
};

struct sim_op_list {
    struct sim_op **op;
    size_t n, room;
};

struct sim_content {
    struct sim_pages *pages; /* nothing held at or beyond `size`, but for its last block */
    uint64_t size;
};

struct sim_file {
    LIST_ENTRY(sim_file) link; /* in its world's `files`, while `listed` */
    bool listed;
    unsigned refs;             /* names, pending changes of names, handles */
    uint64_t id;
    char *path;                /* the last name it was given */
    struct sim_content now;     /* what readers see */
    struct sim_content durable;
    struct sim_op_list cached;  /* completed, in order; see D1 in io-sim-ops.c */
    uint64_t cached_before;     /* how many have left the front of `cached` */
    uint64_t cached_bytes;
    struct sim_op_list flying;  /* issued, not completed */
    LIST_HEAD(, sim_handle) handles;
    struct sim_file *twin;      /* while a world is copied */
    size_t place;               /* by age, as sim_world_files() has found it */
};

struct sim_handle {
    struct io_file io;
    struct sim_file *file;
    uint64_t generation; /* of the process that opened it */
    LIST_ENTRY(sim_handle) link;
};

struct sim_name {
    UT_hash_handle hh;
    struct sim_file *now, *durable; /* NULL: no such name */
    char path[];
};

/* A change of names that no directory sync has made durable yet. */
struct sim_dirop {
    TAILQ_ENTRY(sim_dirop) link;
    uint64_t order;
    struct sim_file *file; /* NULL: `path` is removed */
    char *path;
    char *from;            /* renamed from; NULL otherwise */
};

struct sim_world {
    LIST_HEAD(, sim_file) files;
    struct sim_name *names;
    TAILQ_HEAD(, sim_dirop) dirops;
    uint64_t dirops_issued;
};

/* --- The world -------------------------------------------------------------------------------- */

extern struct sim_world *sim_world; /* the present one */
extern uint64_t sim_generation;     /* counts cuts and restores: older handles are stale */
extern uint64_t sim_writeback;      /* bytes */

struct sim_world *sim_world_new(void);
struct sim_world *sim_world_copy(const struct sim_world *from);
void sim_world_free(struct sim_world *world);
void sim_world_cut(struct sim_world *world, enum io_sim_cut mode, uint64_t seed);
void sim_world_cut_exact(struct sim_world *world, bool kill, const char *fates);
/* The files in the order in which they were made; malloc'ed. */
size_t sim_world_files(const struct sim_world *world, struct sim_file ***list);
uint64_t sim_world_held(const struct sim_world *world); /* blocks */

/* "/" and the path without ".", ".." and doubled slashes; the caller frees it. */
char *sim_path(const char *path);

/* Names.  The paths are as from sim_path(). */
struct sim_file *sim_find(struct sim_world *world, const char *path); /* NULL when there is none */
struct sim_file *sim_find_durable(struct sim_world *world, const char *path);
/* `durable`: at once, as for files from outside; otherwise after a directory sync. */
struct sim_file *sim_create(struct sim_world *world, const char *path, bool durable);
void sim_unlink(struct sim_world *world, const char *path, bool durable);
void sim_rename(struct sim_world *world, const char *from, const char *to);
/* Make durable the changes of names in the directory of `path` that are older than `order`
 * (dirops_issued, once). */
void sim_sync_dir(struct sim_world *world, const char *path, uint64_t order);

void sim_file_unref(struct sim_file *file);

/* Operations on contents. */
struct sim_op *sim_op_new(enum io_sim_op kind, uint64_t offset, uint64_t len, bool with_data);
void sim_op_unref(struct sim_op *op);
/* Equal for operations that do the same. */
uint64_t sim_op_hash(struct sim_op *op);
void sim_op_apply(struct sim_content *content, const struct sim_op *op);
void sim_op_fly(struct sim_file *file, struct sim_op *op);  /* takes a reference */
/* From flying to cached, seen by readers. */
void sim_op_land(struct sim_file *file, struct sim_op *op);
/* The same for one that never flew; takes it over. */
void sim_op_cache(struct sim_file *file, struct sim_op *op);
/* The order number of the next operation to complete: what a flush issued now covers ends before
 * it. */
uint64_t sim_flush_mark(const struct sim_file *file);
/* Make durable (or, when `drop`, take out for ever) what completed before the mark. */
void sim_flush(struct sim_file *file, uint64_t mark, bool drop);
struct sim_op_list sim_op_list_copy(const struct sim_op_list *from);
void sim_op_list_free(struct sim_op_list *list);
struct sim_content sim_content_copy(const struct sim_content *from);

/* How a cut decides, drawn from its seed. */
#define SIM_EIGHTHS 8
struct sim_cut {
    struct random random;
    unsigned keep;  /* of eight operations so many are kept as a whole */
    unsigned tear;  /* of eight others so many are torn, the rest is lost */
    unsigned grain; /* bytes that are written all or none */
};
bool sim_cut_chance(struct sim_cut *cut, unsigned eighths);
/* The power goes: some of what was pending is on the medium, and that is what there is now. */
void sim_file_cut(struct sim_cut *cut, struct sim_file *file);
/* The process dies: a system call that was under way has been carried out, or not, or a write in
 * part. */
void sim_file_kill(struct sim_cut *cut, struct sim_file *file);
/* One letter (see io_sim_cut_exact()) for each operation, the cached ones first. */
void sim_file_cut_exact(struct sim_file *file, const char *fates);
void sim_file_kill_exact(struct sim_file *file, const char *fates);

/* --- The bracket around an operation ---------------------------------------------------------- */

struct sim_request {
    struct io_sim_event event;
    char *const *path; /* where the path is found: a file may be renamed meanwhile */
    uint64_t generation;
    uint64_t ns;     /* how long it takes */
    int error;       /* negative errno that a fault asks for, or 0 */
    bool shorten;
    bool drop;
    /* Lies, see io-sim-lies.c. */
    bool lost;
    int64_t shift;           /* bytes */
    uint64_t flip_at;        /* of the transfer */
    uint8_t flip_mask;       /* 0: nothing is flipped */
    struct sim_pages *past;  /* what a read gets instead; our reference, or NULL */
};

/* Number the operation and ask the fault plan.  `bytes` decides about the time.  *path lives as
 * long as the request. */
void sim_request_begin(struct sim_request *r, enum io_sim_op op, char *const *path, uint64_t offset,
                       uint64_t len, uint64_t bytes);
/* The process that issued it is dead. */
bool sim_request_stale(const struct sim_request *r);
/* Tell the hook, let the time pass.  -EIO when stale now, else the fault's error, else 0. */
int co_sim_request_wait(struct sim_request *r);
/* Tell the hook, unless stale; returns `result`. */
int64_t sim_request_end(struct sim_request *r, int64_t result);

/* The faults' say in an operation that takes no time: 0 or a negative errno. */
int sim_fault_now(enum io_sim_op op, const char *path);

/* --- Lies (io-sim-lies.c) --------------------------------------------------------------------- */

/* May this kind strike that operation? */
bool sim_fault_can(enum io_sim_fault_kind kind, enum io_sim_op op);
/* Decide how the operation will be lied about. `past` is the world as the fault was planned. */
void sim_lie_begin(struct sim_request *r, const struct io_sim_fault *plan, struct sim_world *past);
/* What becomes of a change: the operation to be carried out, NULL for none.  Takes `op` over. */
struct sim_op *sim_lie_change(const struct sim_request *r, const struct sim_file *file,
                              struct sim_op *op);
/* What becomes of a read of `len` bytes at `offset`. */
void sim_lie_read(struct sim_request *r, uint64_t offset, const struct iovec *iov, int n,
                  uint64_t len);

extern uint64_t sim_quota;
void sim_plan_reset(void);

#endif
