/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine is made of: device_add, device_del, info qtree, info chardev, info iothreads.
 *
 * `info qtree` has the form of QEMU's and holds what is here: the two busses that disks can be on, the devices, and the
 * properties that mean something.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/device.h"
#include "hw/machine.h"
#include "monitor/chardev.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

#define SECTOR 512u

/* --- info qtree -------------------------------------------------------------------------------------------------------- */

static char *size_text(uint64_t bytes)
{
    char text[32];

    return mem_printf("%llu (%s)", (unsigned long long)bytes, size_format(bytes, text));
}

static char *quoted(const char *text)
{
    return mem_printf("\"%s\"", text ? text : "");
}

/* The value as QEMU prints one of its kind; malloc'ed. */
static char *value_text(const struct device *dev, const struct device_property *p)
{
    uint64_t number = device_number(dev, p->name);

    switch (p->kind) {
    case PROPERTY_BOOL:
        return mem_strdup(device_flag(dev, p->name) ? "true" : "false");
    case PROPERTY_UINT16:
    case PROPERTY_UINT32:
    case PROPERTY_UINT64:
        return mem_printf("%llu (0x%llx)", (unsigned long long)number, (unsigned long long)number);
    case PROPERTY_INT32:
        return mem_printf("%lld (0x%llx)", (long long)number, (unsigned long long)number);
    case PROPERTY_BLOCK_SIZE:
        return size_text(number ? number : SECTOR);
    case PROPERTY_SIZE:
        return size_text(number);
    case PROPERTY_DRIVE:
        return quoted(*dev->disk->id || !dev->disk->root ? dev->disk->id : dev->disk->root->name);
    default:
        return quoted(device_text(dev, p->name) ? device_text(dev, p->name) : p->fallback);
    }
}

static void print_properties(struct monitor *mon, const struct device *dev, const char *indent)
{
    for (const struct device_property *p = dev->model->properties; p->name; p++) {
        AUTOFREE char *value = p->idle ? NULL : value_text(dev, p);

        if (value && strcmp(p->name, "unit")) {
            monitor_printf(mon, "%s%s = %s\n", indent, p->name, value);
        }
    }
}

static void print_pci(struct monitor *mon)
{
    struct device *dev;

    TAILQ_FOREACH_REVERSE(dev, &all_devices, device_list, link) {
        if (!strcmp(dev->model->bus, "PCI")) {
            monitor_printf(mon, "      dev: %s, id \"%s\"\n", dev->model->name, dev->id ? dev->id : "");
            monitor_puts(mon, "        bus: virtio-bus\n          type virtio-pci-bus\n");
            monitor_puts(mon, "          dev: virtio-blk-device, id \"\"\n");
            print_properties(mon, dev, "            ");
        }
    }
}

static void print_ide(struct monitor *mon, unsigned channel)
{
    struct device *dev;

    monitor_printf(mon, "        bus: ide.%u\n          type IDE\n", channel);
    TAILQ_FOREACH_REVERSE(dev, &all_devices, device_list, link) {
        if (!strcmp(dev->model->bus, "IDE") && dev->hardware->channel == channel) {
            monitor_printf(mon, "          dev: %s, id \"%s\"\n", dev->model->name, dev->id ? dev->id : "");
            print_properties(mon, dev, "            ");
            monitor_printf(mon, "            unit = %u (0x%x)\n", dev->hardware->unit, dev->hardware->unit);
        }
    }
}

static int co_info_qtree(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    monitor_puts(mon, "bus: main-system-bus\n  type System\n  dev: i440FX-pcihost, id \"\"\n    bus: pci.0\n      type PCI\n");
    print_pci(mon);
    monitor_puts(mon, "      dev: piix3-ide, id \"\"\n");
    print_ide(mon, 1);
    print_ide(mon, 0);
    return 0;
}

/* --- device_add --------------------------------------------------------------------------------------------------------- */

/* Is it a question: help, MODEL,help? Answers it. */
static bool answer_help(struct monitor *mon, const json_t *tree)
{
    const char *driver = member_text(tree, "driver");
    bool models = driver && (!strcmp(driver, "help") || !strcmp(driver, "?"));
    bool properties = driver && (json_object_get(tree, "help") || json_object_get(tree, "?"));
    const struct device_model *model = properties ? device_model_find(driver) : NULL;
    char *text = NULL;
    size_t len;
    FILE *out;

    if (!models && !properties) {
        return false;
    }
    if (!models && !model) {
        monitor_printf(mon, "Device '%s' not found\n", driver);
        return true;
    }
    out = open_memstream(&text, &len);
    if (models) {
        device_print_models(out);
    } else {
        device_print_properties(out, model);
    }
    fclose(out);
    monitor_puts(mon, text);
    free(text);
    return true;
}

static int co_hmp_device_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *words = member_text(args, "device");
    json_t *tree = keyval_parse(words ? words : "", "driver", err);
    int ret = -EINVAL;

    if (tree) {
        ret = answer_help(mon, tree) ? 0 : co_device_plug(tree, err);
    }
    json_decref(tree);
    return ret;
}

/* --- info iothreads ----------------------------------------------------------------------------------------------------- */

static void print_iothreads(struct monitor *mon, const json_t *args, const json_t *result)
{
    static const char *const members[] = { "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch" };
    size_t i;
    json_t *thread;

    json_array_foreach(result, i, thread) {
        monitor_printf(mon, "%s:\n  thread_id=%lld\n", member_text(thread, "id"),
                       (long long)member_int(thread, "thread-id"));
        for (size_t m = 0; m < ARRAY_SIZE(members); m++) {
            monitor_printf(mon, "  %s=%lld\n", members[m], (long long)member_int(thread, members[m]));
        }
    }
}

/* --- info chardev ------------------------------------------------------------------------------------------------------ */

int co_query_chardev(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = chardev_list();
    return 0;
}

static void print_chardevs(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *dev;

    json_array_foreach(result, i, dev) {
        monitor_printf(mon, "%s: filename=%s\n", member_text(dev, "label"),
                       member_text(dev, "filename"));
    }
}

/* --- Rows ---------------------------------------------------------------------------------------------------------------- */

static void plugged_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    struct device *dev;

    TAILQ_FOREACH(dev, &all_devices, link) {
        if (dev->id && device_hotpluggable(dev)) {
            offer(to, dev->id);
        }
    }
}

/* Disks and images that no device has. */
static void free_drives(const char *kept, completion_offer *offer, void *to)
{
    struct disk *disk;
    struct node *node;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (*disk->id && !disk->qdev) {
            AUTOFREE char *word = mem_printf("%s%s", kept, disk->id);

            offer(to, word);
        }
    }
    TAILQ_FOREACH(node, &all_nodes, link) {
        if (node->monitor_owned && node->driver->is_format && !node_parent(node) && !disk_of_root(node)) {
            AUTOFREE char *word = mem_printf("%s%s", kept, node->name);

            offer(to, word);
        }
    }
}

/* MODEL,property=...,drive=DISK: what comes behind the last comma. */
static void device_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    const char *comma = strrchr(typed, ',');
    AUTOFREE char *kept = mem_strndup(typed, comma ? comma + 1 - typed : 0), *name = mem_strndup(typed, strcspn(typed, ","));
    const struct device_model *model = comma ? device_model_find(name) : NULL;

    for (const struct device_model *m = device_models; !comma && m->name; m++) {
        if (device_pluggable(m)) {
            offer(to, m->name);
        }
    }
    for (const struct device_property *p = model ? model->properties : NULL; p && p->name; p++) {
        AUTOFREE char *word = mem_printf("%s%s=", kept, p->name);

        if (!p->idle && !strchr(comma, '=')) {
            offer(to, word);
        }
    }
    if (comma && !strncmp(comma + 1, "drive=", 6)) {
        AUTOFREE char *drive = mem_printf("%sdrive=", kept);

        free_drives(drive, offer, to);
    }
}

const struct command hardware_commands[] = {
    {
        .name = "device_add",
        .args = { { "device", ARG_STRING, .optional = true, .words = device_words, .doc = "as with -device" } },
        .params = "driver[,prop=value][,...]",
        .help = "add device, like -device on the command line",
        .group = "Machine",
        .example = "device_add virtio-blk,drive=data,id=vd1",
        .co_run = co_hmp_device_add,
    },
    {
        .name = "device_del",
        .args = { { "id", ARG_STRING, .words = plugged_words, .doc = "the device's id" } },
        .params = "device",
        .help = "remove device",
        .group = "Machine",
        .example = "device_del vd1",
        .co_run = co_device_del,
    },
    { 0 },
};

const struct command hardware_topics[] = {
    {
        .name = "iothreads",
        .params = "",
        .help = "show iothreads",
        .group = "Machine",
        .co_run = co_query_iothreads,
        .print = print_iothreads,
    },
    {
        .name = "qtree",
        .params = "",
        .help = "show device tree",
        .group = "Machine",
        .co_run = co_info_qtree,
    },
    {
        .name = "chardev",
        .params = "",
        .help = "show the character devices",
        .group = "Monitor",
        .co_run = co_query_chardev,
        .print = print_chardevs,
    },
    { 0 },
};
