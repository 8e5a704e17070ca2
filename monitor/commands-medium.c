/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands that change a drive's medium: eject, change; and the words by which QMP names the drive.
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "export/nbd-server.h"
#include "hw/device.h"
#include "monitor/events.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

/* The path that query-block tells. */
static struct disk *disk_of_path(const char *path)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->qdev && !strcmp(disk->qdev, path)) {
            return disk;
        }
    }
    return NULL;
}

struct disk *disk_of_args(const json_t *args, struct error *err)
{
    const char *device = member_text(args, "device"), *id = member_text(args, "id");
    struct disk *disk;

    if (!device == !id) {
        error_set(err, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    disk = device ? disk_find(device) : NULL;
    if (id) {
        struct device *dev = device_find_any(id);

        disk = disk_of_path(id);
        if (!disk && dev) { /* what is plugged in is a bridge to it */
            error_set(err, "Device does not have a block device backend");
            error_hint(err, "Its disk has the id '%s'.", dev->disk->qdev);
            return NULL;
        }
    }
    if (!disk) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", device ? device : id);
    }
    return disk;
}

static void move_tray(struct disk *disk, bool open)
{
    if (disk_has_tray(disk) && disk->tray_open != open) {
        disk->tray_open = open;
        events_tray_moved(disk);
    }
}

/* The caller holds the disk. */
static int co_take_out(struct disk *disk, const char *name, struct error *err)
{
    if (!disk->removable) {
        error_set(err, "Device '%s' is not removable", name);
        return -ENOTSUP;
    }
    if (disk->root && node_check_free(disk->root, err) < 0) {
        return -EBUSY;
    }
    move_tray(disk, true);
    co_nbd_end_exports_of(disk);
    co_disk_take_medium(disk);
    return 0;
}

static const char *name_of(const json_t *args)
{
    return member_text(args, "device") ? member_text(args, "device") : member_text(args, "id");
}

int co_eject(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct disk *disk = disk_of_args(args, err);
    int ret;

    if (!disk) {
        return -EINVAL;
    }
    disk_hold(disk);
    ret = co_take_out(disk, name_of(args), err);
    disk_release(disk);
    return ret;
}

static bool wants_read_only(const struct disk *disk, const json_t *args)
{
    const char *mode = member_text(args, "read-only-mode");

    return !mode || !strcmp(mode, "retain") ? disk->read_only : !strcmp(mode, "read-only");
}

/* As the medium before it was opened, but for what is asked. */
static struct node *co_open_medium(const struct disk *disk, const json_t *args, struct error *err)
{
    json_t *options = json_pack("{s:b}", "read-only", wants_read_only(disk, args));
    const char *format = member_text(args, "format");
    const struct node *before = disk->root;
    bool writethrough = before && before->writethrough;
    struct node *node;

    if (format) {
        json_object_set_new(options, "driver", json_string(format));
    }
    if (before) {
        json_object_set_new(options, "cache",
                            json_pack("{s:b, s:b}", "direct", before->cache_direct, "no-flush", before->no_flush));
    }
    node = co_node_open_idle(member_text(args, "filename"), options, err); /* `disk` and `before` may be gone now */
    if (node) {
        node->writethrough = writethrough;
    }
    json_decref(options);
    return node;
}

int co_blockdev_change_medium(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct disk *disk = disk_of_args(args, err);
    struct node *node = disk ? co_open_medium(disk, args, err) : NULL;
    int ret;

    if (!node) {
        return -EINVAL;
    }
    disk = disk_of_args(args, err); /* opening took a while */
    if (!disk) {
        co_node_unref(node);
        return -EINVAL;
    }
    disk_hold(disk);
    ret = co_take_out(disk, name_of(args), err);
    if (ret == 0 && disk->gone) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name_of(args));
        ret = -ENODEV;
    }
    ret = ret ? ret : disk_put_medium(disk, node, err);
    if (ret == 0) {
        move_tray(disk, false);
    } else {
        co_node_unref(node);
    }
    disk_release(disk);
    return ret;
}

const char *const read_only_modes[] = { "retain", "read-only", "read-write", NULL };

static int co_hmp_change(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *mode = member_text(args, "read-only-mode");

    for (size_t i = 0; mode && (!read_only_modes[i] || strcmp(read_only_modes[i], mode)); i++) {
        if (!read_only_modes[i]) {
            error_set(err, "invalid parameter value: %s", mode);
            return -EINVAL;
        }
    }
    return co_blockdev_change_medium(mon, args, result, err);
}

/* --- Rows --------------------------------------------------------------------------------------------------------------------- */

const struct command medium_commands[] = {
    {
        .name = "eject",
        .args = {
            { "force", ARG_FLAG, .letter = 'f', .doc = "also when the guest has locked it" },
            { "device", ARG_DEVICE, .doc = "a drive with a tray, or a disk that no device has" },
        },
        .params = "[-f] device",
        .help = "eject a removable medium (use -f to force it)",
        .group = "Disks and images",
        .example = "eject ide1-cd0",
        .co_run = co_eject,
    },
    {
        .name = "change",
        .args = {
            { "device", ARG_DEVICE, .doc = "a drive with a tray, or a disk that no device has" },
            { "force", ARG_FLAG, .letter = 'f', .doc = "also when the guest has locked it" },
            { "filename", ARG_FILE, .doc = "the medium" },
            { "format", ARG_FORMAT, .optional = true, .doc = "its format, guessed unless given" },
            { "read-only-mode", ARG_STRING, .optional = true, .choices = read_only_modes,
              .doc = "retain (as the one before), read-only or read-write" },
        },
        .params = "device [-f] filename [format [read-only-mode]]",
        .help = "change a removable medium, optional format, use -f to force the operation",
        .group = "Disks and images",
        .example = "change ide1-cd0 other.iso raw",
        .co_run = co_hmp_change,
    },
    { 0 },
};
