/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices from properties: see device.h.
 */
#include "hw/device-values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "block/permission.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "hw/ignored.h"
#include "hw/machine.h"

/* Where QEMU's PC puts the drives that come with it. */
#define UNATTACHED_FIRST 18

struct device_list all_devices = TAILQ_HEAD_INITIALIZER(all_devices);
static unsigned anonymous_count, unattached_count;

struct device *device_find(const char *id)
{
    struct device *dev;

    TAILQ_FOREACH(dev, &all_devices, link) {
        if (dev->id && !strcmp(dev->id, id)) {
            return dev;
        }
    }
    return NULL;
}

/* --- The disk --------------------------------------------------------------------------------------- */

static struct device *device_of(const struct disk *disk)
{
    struct device *dev;

    TAILQ_FOREACH(dev, &all_devices, link) {
        if (dev->disk == disk) {
            return dev;
        }
    }
    return NULL;
}

/* virtio-blk-pci hands its disk on to the part behind the bus. */
static const char *owner_of_drive(const struct device *dev)
{
    return strncmp(dev->model->name, "virtio-", 7) ? dev->model->name : "virtio-blk-device";
}

static int disk_from_node(struct device *dev, struct node *root, struct error *err)
{
    if (node_check_free(root, err) < 0) {
        return -EBUSY;
    }
    dev->disk = disk_new("", node_ref(root));
    dev->own_disk = true;
    disk_set_label(dev->disk, dev->id ? dev->id : root->name);
    return 0;
}

static int find_disk(struct device *dev, struct error *err)
{
    const char *name = device_text(dev, "drive");
    struct device *other;
    struct node *root;

    if (!name || !*name) {
        return 0;
    }
    dev->disk = disk_find(name);
    if (!dev->disk) {
        root = node_find(name);
        if (!root) {
            error_set(err, "Property '%s.drive' can't find value '%s'", owner_of_drive(dev), name);
            return -ENOENT;
        }
        return disk_from_node(dev, root, err);
    }
    other = device_of(dev->disk);
    if (other || dev->disk->qdev) { /* a device that is on its way out is in no list, and takes the disk along */
        error_set(err,
                  !other || json_object_get(other->properties, "drive")
                      ? "Drive '%s' is already in use by another device"
                      : "Drive '%s' is already in use because it has been automatically connected to another device "
                        "(did you need 'if=none' in the drive options?)",
                  name);
        dev->disk = NULL;
        return -EBUSY;
    }
    return 0;
}

static const struct {
    const char *name;
    enum disk_policy policy;
} policies[] = {
    { "report", DISK_REPORT }, { "ignore", DISK_IGNORE }, { "stop", DISK_STOP }, { "enospc", DISK_ENOSPC },
};

static void take_policy(const struct device *dev, const char *property, enum disk_policy *out)
{
    const char *word = device_text(dev, property);

    for (size_t i = 0; word && i < ARRAY_SIZE(policies); i++) {
        if (!strcmp(word, policies[i].name)) {
            *out = policies[i].policy;
        }
    }
}

/* What `info block` says: the path; for an IDE device with an id, that. */
static void name_place(struct device *dev)
{
    bool behind_bus = !strcmp(dev->model->bus, "PCI");
    struct disk *disk = dev->disk;

    free(disk->qdev);
    free(disk->place);
    disk->place = behind_bus ? mem_printf("%s/virtio-backend", dev->path) : mem_strdup(dev->path);
    disk->qdev = mem_strdup(behind_bus || !dev->id ? disk->place : dev->id);
}

static void leave_disk(struct device *dev)
{
    free(dev->disk->qdev);
    free(dev->disk->place);
    dev->disk->qdev = dev->disk->place = NULL;
    dev->disk->shared = IO_PERM_ALL;
    if (!dev->own_disk) {
        permissions_settle(NULL);
    }
}

/* A guest does not expect its disk to change, nor that in a drive another size. */
static int claim_disk(struct device *dev, struct error *err)
{
    unsigned shared = IO_PERM_ALL;
    int ret;

    if (!device_flag(dev, "share-rw")) {
        shared &= ~(unsigned)IO_PERM_WRITE;
    }
    if (!strcmp(dev->model->name, "ide-cd")) {
        shared &= ~(unsigned)IO_PERM_RESIZE;
    }
    name_place(dev); /* for the words */
    dev->disk->shared = shared;
    ret = permissions_settle(err);
    if (ret < 0) {
        leave_disk(dev);
    }
    return ret;
}

/* What the device says about its disk. */
static int complete_disk(struct device *dev, struct error *err)
{
    const char *cache = device_text(dev, "write-cache");

    if (!dev->disk && dev->model->needs_medium) {
        error_set(err, !strcmp(dev->model->bus, "IDE") ? "No drive specified" : "drive property not set");
        return -EINVAL;
    }
    if (!dev->disk) {
        dev->disk = disk_new("", NULL);
        dev->own_disk = true;
        disk_set_label(dev->disk, dev->id ? dev->id : dev->path);
    }
    if (!dev->disk->root && dev->model->needs_medium) {
        error_set(err, "Device needs media, but drive is empty");
        return -ENOMEDIUM;
    }
    take_policy(dev, "werror", &dev->disk->werror);
    take_policy(dev, "rerror", &dev->disk->rerror);
    if (cache && strcmp(cache, "auto") && dev->disk->root) {
        dev->disk->root->writethrough = !strcmp(cache, "off");
    }
    return claim_disk(dev, err);
}

/* --- Coming ------------------------------------------------------------------------------------------ */

static int check_bus(const struct device *dev, const char *bus, struct error *err)
{
    const char *kind = !strcmp(bus, "pci.0")                               ? "PCI"
                       : !strcmp(bus, "ide.0") || !strcmp(bus, "ide.1") ? "IDE"
                                                                        : NULL;

    if (!kind) {
        error_set(err, "Bus '%s' not found", bus);
        return -ENOENT;
    }
    if (strcmp(kind, dev->model->bus)) {
        error_set(err, "Device '%s' can't go on %s bus", dev->model->name, kind);
        return -EINVAL;
    }
    return 0;
}

/* How the properties of a device are given. */
enum given { GIVEN_JSON, GIVEN_WORDS, GIVEN_PLUG /* words, in a running program */ };

static int take_id(struct device *dev, json_t *tree, enum given how, struct error *err)
{
    json_t *value = json_object_get(tree, "id");
    const char *id = json_string_value(value);

    if (value && !id) {
        error_set(err, "Invalid parameter type for 'id', expected: string");
        return -EINVAL;
    }
    if (id && how != GIVEN_JSON && !id_wellformed(id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
        return -EINVAL;
    }
    if (id && device_find(id)) {
        error_set(err, how == GIVEN_WORDS ? "Duplicate ID '%s' for device" : "Duplicate device ID '%s'", id);
        return -EEXIST;
    }
    dev->id = mem_strdup(id);
    dev->path = id ? mem_printf("/machine/peripheral/%s", id)
                   : mem_printf("/machine/peripheral-anon/device[%u]", anonymous_count);
    return 0;
}

static int take_properties(struct device *dev, json_t *tree, bool from_words, const char *shown, struct error *err)
{
    const char *bus = json_string_value(json_object_get(tree, "bus")), *name;
    json_t *value;

    if (bus) {
        if (check_bus(dev, bus, err) < 0) {
            return -EINVAL;
        }
        json_object_set_new(dev->properties, "bus", json_string(bus));
    }
    json_object_foreach(tree, name, value) {
        const struct device_property *row = device_property_find(dev->model, name);

        if (!strcmp(name, "driver") || !strcmp(name, "id") || !strcmp(name, "bus")) {
            continue;
        }
        if (!row) {
            error_set(err, "Property '%s.%s' not found", dev->model->name, name);
            return -EINVAL;
        }
        if (device_set(dev, row, value, from_words, err) < 0 || (row->kind == PROPERTY_DRIVE && find_disk(dev, err) < 0)) {
            return -EINVAL;
        }
        if (row->idle && shown) {
            AUTOFREE char *text = mem_printf("%s: %s", shown, name);

            ignored_note(text);
        }
    }
    return 0;
}

static void device_free(struct device *dev)
{
    free(dev->id);
    free(dev->path);
    json_decref(dev->properties);
    free(dev);
}

/* A device that came to nothing. */
static void co_device_discard(struct device *dev)
{
    if (dev->disk) {
        leave_disk(dev);
    }
    if (dev->own_disk) {
        co_disk_free(dev->disk);
    }
    device_free(dev);
}

static const struct device_model *find_model(json_t *tree, struct error *err)
{
    json_t *value = json_object_get(tree, "driver");
    const char *name = json_string_value(value);
    const struct device_model *model = name ? device_model_find(name) : NULL;

    if (!value) {
        error_set(err, "Parameter 'driver' is missing");
    } else if (!name) {
        error_set(err, "Invalid parameter type for 'driver', expected: string");
    } else if (!strcmp(name, "virtio-blk-device")) {
        error_set(err, "No 'virtio-bus' bus found for device '%s'", name);
    } else if (!model) {
        error_set(err, "'%s' is not a valid device model name", name);
    }
    return model;
}

static int co_add(const struct device_model *model, json_t *tree, enum given how, const char *shown, struct error *err)
{
    struct device *dev = mem_zalloc(sizeof(*dev));

    dev->model = model;
    dev->hotplugged = how == GIVEN_PLUG;
    dev->properties = json_object();
    if (take_id(dev, tree, how, err) < 0 || take_properties(dev, tree, how != GIVEN_JSON, shown, err) < 0 ||
        (dev->own_disk && co_node_look_at_size(dev->disk->root, err) < 0) || complete_disk(dev, err) < 0 ||
        model->realize(dev, err) < 0) {
        co_device_discard(dev);
        return -EINVAL;
    }
    anonymous_count += !dev->id;
    name_place(dev);
    TAILQ_INSERT_TAIL(&all_devices, dev, link);
    return 0;
}

int co_device_add(json_t *tree, bool from_words, const char *shown, struct error *err)
{
    const struct device_model *model = find_model(tree, err);

    return model ? co_add(model, tree, from_words ? GIVEN_WORDS : GIVEN_JSON, shown, err) : -EINVAL;
}

int co_device_plug(json_t *tree, struct error *err)
{
    const char *id = json_string_value(json_object_get(tree, "id"));
    const char *bus = json_string_value(json_object_get(tree, "bus"));
    const struct device_model *model;
    struct device named = { 0 };

    if (id && !id_wellformed(id)) {
        error_set(err, "Parameter 'id' expects an identifier");
        return -EINVAL;
    }
    model = find_model(tree, err);
    named.model = model;
    if (!model || (bus && check_bus(&named, bus, err) < 0)) {
        return -EINVAL;
    }
    if (!device_pluggable(model)) {
        error_set(err, "Bus '%s' does not support hotplugging", bus ? bus : "ide.1");
        return -ENOTSUP;
    }
    return co_add(model, tree, GIVEN_PLUG, NULL, err);
}

int co_device_for_drive(struct disk *disk, const char *model, unsigned bus, unsigned unit, struct error *err)
{
    struct device *dev = mem_zalloc(sizeof(*dev));
    bool pci;

    dev->model = device_model_find(model);
    dev->disk = disk;
    pci = !strcmp(dev->model->bus, "PCI");
    dev->path = pci ? mem_printf("/machine/peripheral-anon/device[%u]", anonymous_count)
                    : mem_printf("/machine/unattached/device[%u]", UNATTACHED_FIRST + unattached_count);
    dev->properties = json_object();
    if (!pci) {
        AUTOFREE char *name = mem_printf("ide.%u", bus);

        json_object_set_new(dev->properties, "bus", json_string(name));
        json_object_set_new(dev->properties, "unit", json_integer(unit));
    }
    if (complete_disk(dev, err) < 0 || dev->model->realize(dev, err) < 0) {
        co_device_discard(dev);
        return -EINVAL;
    }
    *(pci ? &anonymous_count : &unattached_count) += 1;
    name_place(dev);
    TAILQ_INSERT_TAIL(&all_devices, dev, link);
    return 0;
}

/* --- Going -------------------------------------------------------------------------------------------- */

struct device *device_find_any(const char *name)
{
    struct device *dev = device_find(name);

    for (dev = dev ? dev : TAILQ_FIRST(&all_devices); dev; dev = TAILQ_NEXT(dev, link)) {
        if ((dev->id && !strcmp(dev->id, name)) || !strcmp(dev->path, name)) {
            break;
        }
    }
    return dev;
}

bool device_pluggable(const struct device_model *model)
{
    return !strcmp(model->bus, "PCI");
}

bool device_hotpluggable(const struct device *dev)
{
    return device_pluggable(dev->model);
}

void co_device_remove(struct device *dev, bool with_disk)
{
    TAILQ_REMOVE(&all_devices, dev, link);
    if (dev->guest) {
        co_guest_free(dev->guest);
    }
    co_machine_hold(); /* a reset goes from device to device */
    dev->hardware->kind->co_remove(dev->hardware);
    machine_let_go();
    leave_disk(dev);
    if (with_disk) {
        co_disk_free(dev->disk);
    }
    device_free(dev);
}

/* --- Help --------------------------------------------------------------------------------------------- */

void device_print_models(FILE *out)
{
    fprintf(out, "Storage devices:\n");
    for (const struct device_model *m = device_models; m->name; m++) {
        fprintf(out, "name \"%s\", bus %s", m->name, m->bus);
        if (m->alias) {
            fprintf(out, ", alias \"%s\"", m->alias);
        }
        if (m->help) {
            fprintf(out, ", desc \"%s\"", m->help);
        }
        fprintf(out, "\n");
    }
}

void device_print_properties(FILE *out, const struct device_model *model)
{
    fprintf(out, "%s options:\n", model->name);
    for (const struct device_property *p = model->properties; p->name; p++) {
        AUTOFREE char *left = mem_printf("%s=<%s>", p->name, property_kind_name(p->kind));
        const char *quote = p->kind == PROPERTY_ON_OFF_AUTO || p->kind == PROPERTY_POLICY ? "\"" : "";

        fprintf(out, "  %-22s - %s%s", left, p->idle ? "ignored" : p->help, p->fallback ? " (default: " : "");
        fprintf(out, "%s%s%s%s\n", p->fallback ? quote : "", p->fallback ? p->fallback : "", p->fallback ? quote : "",
                p->fallback ? ")" : "");
    }
}
