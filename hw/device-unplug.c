/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that are to go while the machine is there: the guest is asked, and lets go of them when it runs or at the next reset
 * (see device.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "core/co.h"
#include "core/mem.h"
#include "hw/device.h"
#include "hw/machine.h"

static unsigned removing;        /* coroutines that unplug */
static struct co_queue removed = CO_QUEUE_INIT(removed);
static void (*listener)(const char *id, const char *path);

void device_set_listener(void (*deleted)(const char *id, const char *path))
{
    listener = deleted;
}

static CO_ENTRY void co_unplug(void *arg)
{
    struct device *dev = arg;
    AUTOFREE char *id = mem_strdup(dev->id), *path = mem_strdup(dev->path);

    co_device_remove(dev, true);
    if (listener) {
        listener(id, path);
    }
    removing--;
    co_queue_wake_all(&removed);
}

/* The guest looks: all that it was asked for goes. */
static void unplug_asked(void)
{
    struct device *dev;

    TAILQ_FOREACH(dev, &all_devices, link) {
        if (dev->unplugging && !dev->leaving) {
            dev->leaving = true;
            removing++;
            co_start_later(co_unplug, dev);
        }
    }
}

static void machine_changed(struct machine_listener *l, enum run_state now)
{
    if (now == RUN_RUNNING) {
        unplug_asked();
    }
}

static void machine_was_reset(struct machine_listener *l)
{
    unplug_asked();
}

static struct machine_listener ears = { .state_changed = machine_changed, .reset = machine_was_reset };
static bool listening;

int device_unplug(struct device *dev, struct error *err)
{
    if (dev->unplugging) {
        error_set(err, "Device %s is already in the process of unplug", dev->id ? dev->id : dev->path);
        return -EBUSY;
    }
    if (!device_hotpluggable(dev)) {
        error_set(err, "Bus '%s' does not support hotplugging", device_text(dev, "bus") ?: "ide.1");
        return -ENOTSUP;
    }
    dev->unplugging = true;
    if (!listening) {
        machine_listen(&ears);
        listening = true;
    }
    if (machine_running()) {
        unplug_asked();
    }
    return 0;
}

void co_devices_settle(void)
{
    if (listening) {
        machine_unlisten(&ears);
        listening = false;
    }
    while (removing) {
        co_queue_wait(&removed);
    }
}
