/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine: guest memory, register regions, interrupt lines, and the run state.
 *
 * There is no CPU.  The simulated guest's drivers are coroutines that touch hardware only through the
 * functions here: machine_mmio_*() and machine_port_*() reach device registers, memory_map() reaches guest
 * memory, an interrupt line calls the driver's handler.  Devices touch guest memory only through memory_map(), the one
 * checked mapping call, so no guest can make a device read or write anything but guest memory (never registers).
 *
 *   0x0000_0000_0000 .. ram size          guest memory (only as much host memory as is touched)
 *   0x000f_0000_0000 + n * 0x1000         virtio-mmio register blocks (far above any RAM)
 *   ports 0x1f0-0x1f7,0x3f6 / 0x170-0x177,0x376   IDE channels;  0xc040 / 0xc048  bus-master DMA
 */
#ifndef HW_MACHINE_H
#define HW_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/error.h"
#include "core/loop.h"

#define MACHINE_MMIO_BASE 0x000f00000000ull
#define MACHINE_MMIO_STRIDE 0x1000ull
#define MACHINE_RAM_DEFAULT (512ull << 20) /* address space; untouched pages cost nothing */

void machine_init(uint64_t ram_bytes);
void machine_fini(void);

/* --- Guest memory ------------------------------------------------------------------------------------------ */
/* A pointer to [gpa, gpa + len) of guest memory, or NULL when any byte of it is not RAM (wraps included). len 0 gives NULL. */
void *memory_map(uint64_t gpa, uint64_t len);
uint64_t memory_size(void);
void memory_init(uint64_t bytes); /* machine_init() and machine_fini() call these */
void memory_fini(void);
/* The guest's own page allocator for its drivers and buffers: `len` bytes aligned to 4096; asserts when RAM is used up. */
uint64_t guest_alloc(size_t len);
void guest_free(uint64_t gpa, size_t len);

/* --- Registers ------------------------------------------------------------------------------------------------ */
/* offset is relative to the region's base; size is 1, 2, 4 or 8 bytes. */
struct region_ops {
    uint64_t (*read)(void *arg, uint64_t offset, unsigned size);
    void (*write)(void *arg, uint64_t offset, uint64_t value, unsigned size);
};
void machine_add_mmio(uint64_t base, uint64_t len, const struct region_ops *ops, void *arg);
void machine_add_ports(uint16_t base, uint16_t len, const struct region_ops *ops, void *arg);
void machine_remove_regions(void *arg); /* every region registered with this arg */
/* Nobody answers: reads give all ones, writes are lost. */
uint64_t machine_mmio_read(uint64_t addr, unsigned size);
void machine_mmio_write(uint64_t addr, uint64_t value, unsigned size);
uint64_t machine_port_in(uint16_t port, unsigned size);
void machine_port_out(uint16_t port, uint64_t value, unsigned size);

/* --- Interrupt lines --------------------------------------------------------------------------------------------- */
/* The device owns the line; the guest driver attaches a handler.  Raising calls the handler in the next turn of the loop (once,
 * however often it was raised meanwhile), never inside the device. */
struct irq_line {
    loop_fn *handler;
    void *arg;
    bool level;
    struct loop_task task;
};
void irq_raise(struct irq_line *irq);
void irq_lower(struct irq_line *irq);
void irq_attach(struct irq_line *irq, loop_fn *handler, void *arg); /* NULL detaches */
/* The line goes away with its device: detach, and wait until the loop has forgotten it.  Suspends. */
void co_irq_close(struct irq_line *irq);

/* --- Devices ---------------------------------------------------------------------------------------------------------- */
struct disk;
struct machine_device;
struct device_kind {              /* one row of the table of devices that main owns */
    const char *name;             /* "virtio-blk-device", "ide-hd", "ide-cd" */
    /* Guest-visible reset: no request of before may write to guest memory or the disk afterwards
     * in the guest's name (those in flight on the host are waited for or their results are dropped).  Suspends. */
    void (*co_reset)(struct machine_device *dev);
    void (*co_remove)(struct machine_device *dev);
};
/* What a device says about itself and its disk; texts NULL: the device's own; they live as long as the device. */
struct device_identity {
    const char *serial, *model, *version;
    uint64_t wwn;                            /* 0: none */
    uint32_t logical_block, physical_block;  /* bytes; 0: 512 */
    uint64_t min_io, opt_io;                 /* bytes; 0: the device's own */
    uint16_t rotation_rate;                  /* 0: not said */
    bool no_discard, no_write_zeroes, no_config_wce; /* virtio: does not offer it */
};
struct machine_device {
    TAILQ_ENTRY(machine_device) link;
    const struct device_kind *kind;
    struct disk *disk;
    struct irq_line *irq;
    uint64_t mmio_base;           /* virtio */
    unsigned channel, unit;       /* IDE: channel 0-1, unit 0-1 */
    struct device_identity identity;
};
TAILQ_HEAD(machine_device_list, machine_device);
extern struct machine_device_list machine_devices;
void machine_add_device(struct machine_device *dev);
void machine_remove_device(struct machine_device *dev);
/* Around what takes a device away: no reset goes through the devices meanwhile.  Suspends. */
void co_machine_hold(void);
void machine_let_go(void);

/* Make devices (hw/virtio-blk.c, hw/ide.c). */
struct machine_device *virtio_blk_new(struct disk *disk, unsigned queues, unsigned queue_size);
/* Before its driver looks at it. */
void virtio_blk_identify(struct machine_device *dev, const struct device_identity *identity);
/* channel/unit must be free. cdrom: an ATAPI-less removable stub is not made; hard disks only. */
struct machine_device *ide_disk_new(struct disk *disk, unsigned channel, unsigned unit, struct error *err);

/* --- Run state ------------------------------------------------------------------------------------------------------- */
enum run_state { RUN_PRELAUNCH, RUN_RUNNING, RUN_PAUSED, RUN_IO_ERROR, RUN_SHUTDOWN };
enum run_state machine_state(void);
const char *machine_state_name(void); /* "prelaunch", "running", "paused", "io-error", "shutdown" */
bool machine_running(void);
/* Stop: guests start no new request; requests in flight complete; co_machine_stop() returns when none is in flight, caches
 * flushed as QEMU does on `stop`, or when the state changes again meanwhile (an error that stops the machine, `cont`).
 * machine_stop_request() only switches the state (error policy). */
void co_machine_stop(enum run_state why);
void machine_stop_request(enum run_state why);
void machine_cont(void);
void co_machine_reset(void); /* every device and guest; guests boot again */

struct machine_listener {
    LIST_ENTRY(machine_listener) link;
    void (*state_changed)(struct machine_listener *l, enum run_state now); /* may be NULL */
    void (*reset)(struct machine_listener *l); /* the devices are reset already; may be NULL */
};
void machine_listen(struct machine_listener *l);
void machine_unlisten(struct machine_listener *l);

#endif
