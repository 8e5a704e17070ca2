/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices as a person names them: -device and device_add, and what -drive makes by itself.
 *
 *   properties (a tree)  ->  model (a row of device_models)  ->  hardware + disk + its guest
 *
 * Which devices and properties there are is said in the tables of device-models.c and nowhere else;
 * checks, `-device help` and the manual are made from them.  Properties of QEMU's that mean nothing
 * here are rows too: their values are checked, then listed by `info ignored`.
 */
#ifndef HW_DEVICE_H
#define HW_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>

#include "core/error.h"

struct disk;
struct device;
struct device_model;
struct guest;
struct machine_device;

/* --- The tables ---------------------------------------------------------------------------------- */

enum property_kind {
    PROPERTY_STR,
    PROPERTY_DRIVE, /* a disk's id or a node-name */
    PROPERTY_BOOL,
    PROPERTY_ON_OFF_AUTO,
    PROPERTY_POLICY, /* rerror, werror */
    PROPERTY_UINT16,
    PROPERTY_UINT32,
    PROPERTY_INT32,
    PROPERTY_UINT64,
    PROPERTY_SIZE,
    PROPERTY_BLOCK_SIZE,
    PROPERTY_PCI_ADDRESS,
    PROPERTY_IOTHREAD,
};
struct device_property {
    const char *name;
    enum property_kind kind;
    bool idle;            /* means nothing here */
    const char *fallback; /* its value when not given, as text; NULL: none */
    const char *help;
};
struct device_model {
    const char *name, *alias; /* alias may be NULL */
    const char *bus;          /* "PCI", "IDE" */
    const char *help;
    bool needs_medium;
    const struct device_property *properties; /* ends at name == NULL */
    /* Make the hardware of a device whose disk and properties are there.  0 or -errno with err. */
    int (*realize)(struct device *dev, struct error *err);
};
extern const struct device_model device_models[]; /* ends at name == NULL */
/* By name or alias; NULL. */
const struct device_model *device_model_find(const char *name);
/* Is this the name of hardware that QEMU has and that guests here do not miss? */
bool device_is_ignored(const char *name);
/* `-device help` and `-device MODEL,help`. */
void device_print_models(FILE *out);
void device_print_properties(FILE *out, const struct device_model *model);
/* What QEMU calls a kind: "bool", "uint32". */
const char *property_kind_name(enum property_kind kind);

/* --- Devices ------------------------------------------------------------------------------------- */

struct device {
    TAILQ_ENTRY(device) link;
    const struct device_model *model;
    char *id;             /* NULL: none */
    char *path;           /* "/machine/peripheral/ID", "/machine/peripheral-anon/device[N]", ... */
    json_t *properties;   /* as given, each of its JSON type */
    struct disk *disk;
    bool own_disk;        /* made for the device: it goes with it */
    struct machine_device *hardware;
    struct guest *guest;  /* NULL: nobody uses it */
    bool hotplugged;
    bool unplugging;      /* the guest has been asked to let go of it */
    bool leaving;         /* and does */
};
TAILQ_HEAD(device_list, device);
extern struct device_list all_devices;

/* What a device was given, or its model's fallback. */
const char *device_text(const struct device *dev, const char *property); /* NULL: none */
uint64_t device_number(const struct device *dev, const char *property);
bool device_flag(const struct device *dev, const char *property);

/* Make a device from {"driver": ..., "drive": ..., "id": ..., "bus": ..., properties}.  With
 * `from_words` all values are strings, else JSON's types must be right.  `tree` is borrowed.
 * `shown` (may be NULL) is what `info ignored` says about properties without effect.  0, or -errno
 * with QEMU's words.  Suspends. */
int co_device_add(json_t *tree, bool from_words, const char *shown, struct error *err);
/* The device that a drive brings by itself: `disk` is on if=virtio or if=ide at this place. */
int co_device_for_drive(struct disk *disk, const char *model, unsigned bus, unsigned unit, struct error *err);
/* device_add: as it, into a machine that is there already; all values are strings. */
int co_device_plug(json_t *tree, struct error *err);
struct device *device_find(const char *id);
/* By id or by its whole path. */
struct device *device_find_any(const char *name);
/* Is it on a bus from which it can be taken while the machine is there? */
bool device_hotpluggable(const struct device *dev);
bool device_pluggable(const struct device_model *model);
/* Unplug: its guest goes down, the hardware goes, and the disk as well: a -drive goes with its device.
 * Without that the disk is the caller's.  Suspends. */
void co_device_remove(struct device *dev, bool with_disk);
/* device_del: ask the guest to let go of it.  It does when it runs, or at the next reset; then the device is removed and
 * the listener told.  0 or -errno with QEMU's words. */
int device_unplug(struct device *dev, struct error *err);
/* Who is told of devices that went after device_unplug(); NULL: nobody.  `id` may be NULL. */
void device_set_listener(void (*deleted)(const char *id, const char *path));
/* The end of the program: no device is on its way out any more.  Suspends. */
void co_devices_settle(void);

#endif
