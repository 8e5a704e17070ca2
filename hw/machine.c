/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine: who answers at which address, interrupt lines, the list of devices, and the run
 * state.
 *
 *                   machine_cont()                      machine_cont()
 *     prelaunch ------------------> running <------------------------------ paused, io-error
 *         ^                            | co_machine_stop(), machine_stop_request()  ^
 *         | co_machine_reset()         +--------------------------------------------+
 *         | of a machine that does not run                any ---> shutdown, for good
 *
 * Guests look at machine_running() before each request and are woken by guest_start_all(); that is
 * all that "stopped" means.  Interrupts are delivered in every state: a driver that waits for a
 * request which was in flight at `stop` hears of its end, and whoever reads through a driver of a
 * stopped machine (to verify) may.
 */
#include "hw/machine.h"

#include <assert.h>
#include <string.h>

#include "block/disk.h"
#include "core/co.h"
#include "core/mem.h"
#include "hw/guest.h"

/* --- Registers -------------------------------------------------------------------------------- */

struct region {
    uint64_t base, len;
    const struct region_ops *ops;
    void *arg;
};

/* An address space: regions sorted by base, none overlap. */
struct space {
    struct region *regions;
    size_t count, room;
};

static struct space mmio, ports;

/* The index of the first region that begins behind `addr`. */
static size_t space_behind(const struct space *space, uint64_t addr)
{
    size_t low = 0, high = space->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (space->regions[middle].base > addr) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void space_add(struct space *space, const struct region *region)
{
    size_t at = space_behind(space, region->base);
    struct region *r;

    assert(region->len && region->base + region->len > region->base);
    assert(!at || space->regions[at - 1].base + space->regions[at - 1].len <= region->base);
    assert(at == space->count || region->base + region->len <= space->regions[at].base);
    if (space->count == space->room) {
        space->room = space->room ? space->room * 2 : 16;
        space->regions = mem_reallocarray(space->regions, space->room, sizeof(*space->regions));
    }
    r = &space->regions[at];
    memmove(r + 1, r, (space->count - at) * sizeof(*r));
    *r = *region;
    space->count++;
}

static void space_remove(struct space *space, void *arg)
{
    size_t kept = 0;

    for (size_t i = 0; i < space->count; i++) {
        if (space->regions[i].arg != arg) {
            space->regions[kept++] = space->regions[i];
        }
    }
    space->count = kept;
}

/* Who answers an access?  False: nobody, or it does not lie within one region. */
static bool space_find(const struct space *space, uint64_t addr, unsigned size, struct region *out)
{
    size_t at = space_behind(space, addr);

    assert(size == 1 || size == 2 || size == 4 || size == 8);
    if (!at) {
        return false;
    }
    /* A copy: the callback may add or remove regions. */
    *out = space->regions[at - 1];
    return out->len >= size && addr - out->base <= out->len - size;
}

static uint64_t space_read(const struct space *space, uint64_t addr, unsigned size)
{
    uint64_t mask = UINT64_MAX >> (64 - 8 * size);
    struct region r;

    if (!space_find(space, addr, size, &r)) {
        return mask;
    }
    return r.ops->read(r.arg, addr - r.base, size) & mask;
}

static void space_write(const struct space *space, uint64_t addr, uint64_t value, unsigned size)
{
    uint64_t mask = UINT64_MAX >> (64 - 8 * size);
    struct region r;

    if (space_find(space, addr, size, &r)) {
        r.ops->write(r.arg, addr - r.base, value & mask, size);
    }
}

void machine_add_mmio(uint64_t base, uint64_t len, const struct region_ops *ops, void *arg)
{
    assert(base >= memory_size());
    space_add(&mmio, &(struct region){ .base = base, .len = len, .ops = ops, .arg = arg });
}

void machine_add_ports(uint16_t base, uint16_t len, const struct region_ops *ops, void *arg)
{
    assert(base + len <= 0x10000);
    space_add(&ports, &(struct region){ .base = base, .len = len, .ops = ops, .arg = arg });
}

void machine_remove_regions(void *arg)
{
    space_remove(&mmio, arg);
    space_remove(&ports, arg);
}

uint64_t machine_mmio_read(uint64_t addr, unsigned size)
{
    return space_read(&mmio, addr, size);
}

void machine_mmio_write(uint64_t addr, uint64_t value, unsigned size)
{
    space_write(&mmio, addr, value, size);
}

uint64_t machine_port_in(uint16_t port, unsigned size)
{
    return space_read(&ports, port, size);
}

void machine_port_out(uint16_t port, uint64_t value, unsigned size)
{
    space_write(&ports, port, value, size);
}

/* --- Interrupt lines -------------------------------------------------------------------------- */

static void irq_deliver(void *arg)
{
    struct irq_line *irq = arg;

    /* Lowered meanwhile: the driver has looked at the device by itself. */
    if (irq->level && irq->handler) {
        irq->handler(irq->arg);
    }
}

static void irq_schedule(struct irq_line *irq)
{
    if (irq->level && irq->handler && !irq->task.queued) {
        loop_defer(&irq->task, irq_deliver, irq);
    }
}

void irq_raise(struct irq_line *irq)
{
    irq->level = true;
    irq_schedule(irq);
}

void irq_lower(struct irq_line *irq)
{
    irq->level = false;
}

void irq_attach(struct irq_line *irq, loop_fn *handler, void *arg)
{
    irq->handler = handler;
    irq->arg = arg;
    irq_schedule(irq); /* what was raised while nobody listened */
}

void co_irq_close(struct irq_line *irq)
{
    irq->handler = NULL;
    while (irq->task.queued) {
        co_yield();
    }
}

/* --- Devices ---------------------------------------------------------------------------------- */

struct machine_device_list machine_devices = TAILQ_HEAD_INITIALIZER(machine_devices);

void machine_add_device(struct machine_device *dev)
{
    TAILQ_INSERT_TAIL(&machine_devices, dev, link);
}

void machine_remove_device(struct machine_device *dev)
{
    TAILQ_REMOVE(&machine_devices, dev, link);
}

static struct co_mutex devices_held = { .queue = CO_QUEUE_INIT(devices_held.queue) };

void co_machine_hold(void)
{
    co_mutex_lock(&devices_held);
}

void machine_let_go(void)
{
    co_mutex_unlock(&devices_held);
}

/* --- Run state -------------------------------------------------------------------------------- */

static enum run_state state;
static LIST_HEAD(, machine_listener) listeners = LIST_HEAD_INITIALIZER(listeners);
/* Those in co_machine_stop() who wait: for the guests, or for another change of state. */
static struct co_queue stoppers = CO_QUEUE_INIT(stoppers);
static unsigned guests_stopping; /* coroutines in co_guest_stop_all() */
static unsigned stop_requests;   /* counts the calls of machine_stop_request() */

enum run_state machine_state(void)
{
    return state;
}

const char *machine_state_name(void)
{
    static const char *const names[] = {
        [RUN_PRELAUNCH] = "prelaunch", [RUN_RUNNING] = "running",   [RUN_PAUSED] = "paused",
        [RUN_IO_ERROR] = "io-error",   [RUN_SHUTDOWN] = "shutdown",
    };

    return names[state];
}

bool machine_running(void)
{
    return state == RUN_RUNNING;
}

static void set_state(enum run_state now)
{
    struct machine_listener *l, *next;

    if (state == now || state == RUN_SHUTDOWN) {
        return;
    }
    state = now;
    co_queue_wake_all(&stoppers);
    for (l = LIST_FIRST(&listeners); l; l = next) {
        next = LIST_NEXT(l, link); /* it may unlisten */
        if (l->state_changed) {
            l->state_changed(l, now);
        }
    }
}

static CO_ENTRY void stop_guests(void *arg)
{
    co_guest_stop_all();
    guests_stopping--;
    co_queue_wake_all(&stoppers);
}

/* Not through the disks: this flush is ours, it neither counts as the guest's nor may it wait
 * for `cont` under an error policy.  A failure is remembered below and shows at the guest's next
 * flush. */
static void co_flush_everything(void)
{
    struct disk *disk;
    struct node **roots;
    size_t count = 0, n = 0;

    TAILQ_FOREACH(disk, &all_disks, link) {
        count++;
    }
    roots = mem_calloc(count, sizeof(*roots));
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->root) {
            roots[n++] = node_ref(disk->root); /* the list may change while we wait */
        }
    }
    for (size_t i = 0; i < n; i++) {
        co_node_flush(roots[i]);
        co_node_unref(roots[i]);
    }
    free(roots);
}

void co_machine_stop(enum run_state why)
{
    assert(why != RUN_RUNNING && why != RUN_PRELAUNCH);
    bool was_running = machine_running();

    if (was_running || why == RUN_SHUTDOWN) {
        set_state(why);
    }
    if (was_running) {
        /* In a coroutine of its own: a request that fails now may wait for `cont` (policy `stop`),
         * and whoever typed `stop` must not wait for his own next command. */
        unsigned requests = stop_requests;

        guests_stopping++;
        throttle_drain_all(true);
        co_start(stop_guests, NULL);
        while (guests_stopping && state == why && requests == stop_requests) {
            co_queue_wait(&stoppers);
        }
        throttle_drain_all(false);
    }
    co_flush_everything();
}

void machine_stop_request(enum run_state why)
{
    assert(why != RUN_RUNNING && why != RUN_PRELAUNCH);
    stop_requests++;
    co_queue_wake_all(&stoppers);
    if (machine_running() || why == RUN_SHUTDOWN) {
        set_state(why);
    }
}

void machine_cont(void)
{
    if (state == RUN_RUNNING || state == RUN_SHUTDOWN) {
        return;
    }
    set_state(RUN_RUNNING);
    disk_resume_all();
    guest_start_all();
}

void co_machine_reset(void)
{
    struct machine_device *dev;
    struct machine_listener *l, *next;

    co_machine_hold(); /* the list stands still while we wait */
    TAILQ_FOREACH(dev, &machine_devices, link) {
        dev->kind->co_reset(dev);
    }
    machine_let_go();
    if (!machine_running()) {
        set_state(RUN_PRELAUNCH);
    }
    for (l = LIST_FIRST(&listeners); l; l = next) {
        next = LIST_NEXT(l, link);
        if (l->reset) {
            l->reset(l);
        }
    }
}

void machine_listen(struct machine_listener *l)
{
    LIST_INSERT_HEAD(&listeners, l, link);
}

void machine_unlisten(struct machine_listener *l)
{
    LIST_REMOVE(l, link);
}

void machine_init(uint64_t ram_bytes)
{
    state = RUN_PRELAUNCH;
    memory_init(ram_bytes);
}

void machine_fini(void)
{
    assert(TAILQ_EMPTY(&machine_devices) && LIST_EMPTY(&listeners));
    assert(!mmio.count && !ports.count && !guests_stopping);
    free(mmio.regions);
    free(ports.regions);
    mmio = ports = (struct space){ 0 };
    memory_fini();
}
