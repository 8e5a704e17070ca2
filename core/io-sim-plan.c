/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bracket around each operation of the simulated disk: its number, the faults that strike it,
 * the time it takes, and the calls of the hook.  What an operation does to files is none of this
 * file's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/co.h"
#include "core/io-sim-disk.h"

struct fault {
    STAILQ_ENTRY(fault) link;
    struct io_sim_fault plan; /* path is ours */
    uint64_t seen;            /* operations that matched */
    struct sim_world *past;   /* STALE: as it was when this was planned */
};

uint64_t sim_quota;

static STAILQ_HEAD(, fault) faults = STAILQ_HEAD_INITIALIZER(faults);
static uint64_t struck;
static uint64_t ops;
static io_sim_hook *hook;
static void *hook_arg;

const char *io_sim_op_name(enum io_sim_op op)
{
    static const char *const names[] = {
        "read", "write", "flush", "zero", "punch", "allocate", "copy",
        "truncate", "map", "open", "load", "sync-dir", "unlink", "rename", "lock", "size",
    };

    return names[__builtin_ctz(op)];
}

void io_sim_on_op(io_sim_hook *fn, void *arg)
{
    hook = fn;
    hook_arg = arg;
}

uint64_t io_sim_ops(void)
{
    return ops;
}

void io_sim_fault(const struct io_sim_fault *plan)
{
    struct fault *fault = mem_zalloc(sizeof(*fault));

    fault->plan = *plan;
    fault->plan.path = plan->path ? sim_path(plan->path) : NULL;
    fault->past = plan->kind == IO_SIM_FAULT_STALE ? sim_world_copy(sim_world) : NULL;
    STAILQ_INSERT_TAIL(&faults, fault, link);
}

void io_sim_faults_clear(void)
{
    struct fault *fault;

    while ((fault = STAILQ_FIRST(&faults))) {
        STAILQ_REMOVE_HEAD(&faults, link);
        if (fault->past) {
            sim_world_free(fault->past);
        }
        free((char *)fault->plan.path);
        free(fault);
    }
    struck = 0;
}

uint64_t io_sim_faults_struck(void)
{
    return struck;
}

void io_sim_set_quota(uint64_t bytes)
{
    sim_quota = bytes;
}

void io_sim_set_writeback(uint64_t bytes)
{
    sim_writeback = bytes;
}

void sim_plan_reset(void)
{
    io_sim_faults_clear();
    io_sim_on_op(NULL, NULL);
    sim_quota = 0;
    ops = 0;
}

static bool has_range(enum io_sim_op op)
{
    return op & (IO_SIM_READ | IO_SIM_WRITE | IO_SIM_ZERO | IO_SIM_PUNCH | IO_SIM_ALLOCATE |
                 IO_SIM_COPY | IO_SIM_MAP);
}

static bool matches(const struct io_sim_fault *plan, const struct io_sim_event *event)
{
    if (plan->ops && !(plan->ops & event->op)) {
        return false;
    }
    if (plan->path && strcmp(plan->path, event->path)) {
        return false;
    }
    if (!sim_fault_can(plan->kind, event->op)) {
        return false;
    }
    if (plan->len && has_range(event->op) &&
        (event->offset >= plan->offset + plan->len || plan->offset >= event->offset + event->len)) {
        return false;
    }
    return !plan->when || plan->when(plan->arg);
}

static void strike(struct sim_request *r, const struct fault *fault)
{
    const struct io_sim_fault *plan = &fault->plan;
    int error = plan->error ? -plan->error : -EIO;

    struck++;
    switch (plan->kind) {
    case IO_SIM_FAULT_ERROR:
        r->error = r->error ? r->error : error;
        break;
    case IO_SIM_FAULT_SHORT:
        r->shorten = true;
        break;
    case IO_SIM_FAULT_SYNC_DROP:
        r->error = error; /* whatever else befalls it: a host that drops data does not say EINTR */
        r->drop = true;
        break;
    case IO_SIM_FAULT_STALL:
        r->ns += plan->ns;
        break;
    default:
        sim_lie_begin(r, plan, fault->past);
    }
}

static void ask_plan(struct sim_request *r)
{
    struct fault *fault;

    STAILQ_FOREACH(fault, &faults, link) {
        const struct io_sim_fault *plan = &fault->plan;

        if (!matches(plan, &r->event) || fault->seen++ < plan->after) {
            continue;
        }
        if (!plan->times || fault->seen - plan->after <= plan->times) {
            strike(r, fault);
        }
    }
}

int sim_fault_now(enum io_sim_op op, const char *path)
{
    struct sim_request r = { .event = { .op = op, .path = path } };

    ask_plan(&r);
    return r.error;
}

void sim_request_begin(struct sim_request *r, enum io_sim_op op, char *const *path, uint64_t offset,
                       uint64_t len, uint64_t bytes)
{
    *r = (struct sim_request){
        .event = { .number = ++ops, .op = op, .path = *path, .offset = offset, .len = len },
        .path = path,
        .generation = sim_generation,
        .ns = io_virtual_latency(bytes),
    };
    ask_plan(r);
}

bool sim_request_stale(const struct sim_request *r)
{
    return r->generation != sim_generation;
}

static void tell(struct sim_request *r)
{
    if (hook && !sim_request_stale(r)) {
        r->event.path = *r->path;
        hook(hook_arg, &r->event);
    }
}

int co_sim_request_wait(struct sim_request *r)
{
    tell(r);
    co_sleep_ns(r->ns);
    return sim_request_stale(r) ? -EIO : r->error;
}

int64_t sim_request_end(struct sim_request *r, int64_t result)
{
    r->event.completed = true;
    r->event.result = result;
    tell(r);
    return result;
}
