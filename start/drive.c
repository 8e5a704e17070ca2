/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives (see drive.h).  Names are QEMU's: virtio0, ide0-hd0, ide1-cd0, none0.
 */
#include "start/drive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/disk.h"
#include "block/filter.h"
#include "core/io.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/message.h"
#include "hw/device.h"
#include "monitor/monitor.h"
#include "start/drive-keys.h"

enum bus { BUS_NOWHERE, BUS_IDE, BUS_VIRTIO, BUS_NONE };
static const struct {
    const char *name;
    int type; /* the number that QEMU has for it */
} buses[] = { [BUS_IDE] = { "ide", 1 }, [BUS_VIRTIO] = { "virtio", 7 }, [BUS_NONE] = { "none", 0 } };

struct place {
    enum bus bus;
    unsigned index;
    bool cdrom;
    struct disk *disk;
};

/* --- Where does it go? ------------------------------------------------------------------------ */

static bool place_taken(enum bus bus, unsigned index)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->bus == bus && disk->index == index) {
            return true;
        }
    }
    return false;
}

/* Buses that QEMU knows and its PC has not either. */
static bool is_elsewhere(const char *bus)
{
    return !strcmp(bus, "scsi") || !strcmp(bus, "sd") || !strcmp(bus, "mtd") || !strcmp(bus, "xen");
}

static int choose_bus(json_t *keys, struct place *place, struct error *err)
{
    AUTOFREE char *keep = NULL;
    const char *value = drive_take(keys, "if", &keep);

    place->bus = BUS_IDE;
    if (value) {
        for (place->bus = BUS_IDE; place->bus <= BUS_NONE; place->bus++) {
            if (strcmp(value, buses[place->bus].name) == 0) {
                break;
            }
        }
        if (place->bus > BUS_NONE) {
            error_set(err, is_elsewhere(value) ? "machine type does not support if=%s,bus=0,unit=0" : "unsupported bus type '%s'",
                      value);
            return -EINVAL;
        }
    }
    value = drive_take(keys, "media", &keep);
    if (value && strcmp(value, "disk") != 0 && strcmp(value, "cdrom") != 0) {
        error_set(err, "'%s' invalid media", value);
        return -EINVAL;
    }
    place->cdrom = value && strcmp(value, "cdrom") == 0;
    return 0;
}

struct slot {
    int index, bus, unit; /* as said; -1: not said */
};

static int take_slot(json_t *keys, struct slot *slot, struct error *err)
{
    struct { const char *key; int *out; } rows[] = { { "bus", &slot->bus }, { "unit", &slot->unit }, { "index", &slot->index } };

    *slot = (struct slot){ .index = -1, .bus = 0, .unit = -1 };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTOFREE char *text = NULL;

        if (drive_take(keys, rows[i].key, &text) && drive_parse_number(rows[i].key, text, rows[i].out, err) < 0) {
            return -EINVAL;
        }
    }
    if (slot->index != -1 && (slot->bus != 0 || slot->unit != -1)) {
        error_set(err, "index cannot be used with bus and unit");
        return -EINVAL;
    }
    return 0;
}

/* Where: an IDE channel has two units, all other buses are one row. */
static int choose_index(json_t *keys, struct place *place, struct error *err)
{
    struct slot s;
    int units = place->bus == BUS_IDE ? 2 : 0;

    if (take_slot(keys, &s, err) < 0) {
        return -EINVAL;
    }
    if (s.index != -1) {
        s.bus = units ? s.index / units : 0;
        s.unit = units ? s.index % units : s.index;
    }
    if (s.unit == -1) {
        for (s.unit = 0; place_taken(place->bus, s.bus * units + s.unit); s.unit++) {
        }
        s.bus += units ? s.unit / units : 0;
        s.unit = units ? s.unit % units : s.unit;
    }
    if (units && s.unit >= units) {
        error_set(err, "unit %d too big (max is %d)", s.unit, units - 1);
        return -EINVAL;
    }
    if (s.bus < 0 || s.unit < 0 || (place->bus == BUS_IDE && s.bus > 1)) {
        error_set(err, "machine type does not support if=%s,bus=%d,unit=%d", buses[place->bus].name, s.bus, s.unit);
        return -EINVAL;
    }
    place->index = s.bus * units + s.unit;
    if (place_taken(place->bus, place->index)) {
        error_set(err, "drive with bus=%d, unit=%d (index=%d) exists", s.bus, s.unit, s.index);
        return -EEXIST;
    }
    return 0;
}

static char *choose_id(json_t *keys, const struct place *place, struct error *err)
{
    AUTOFREE char *given = NULL;
    const struct disk *other;
    char *id;

    drive_take(keys, "id", &given);
    if (given && !id_wellformed(given)) {
        error_set(err, "Parameter 'id' expects an identifier");
        error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', "
                        "starting with a letter.");
        return NULL;
    }
    if (given) {
        id = mem_strdup(given);
    } else if (place->bus == BUS_IDE) {
        id = mem_printf("ide%u-%s%u", place->index / 2, place->cdrom ? "cd" : "hd",
                        place->index % 2);
    } else {
        id = mem_printf("%s%s%u", buses[place->bus].name, place->cdrom ? "-cd" : "", place->index);
    }
    other = disk_find(id);
    if (other) {
        error_set(err, given && other->id_given ? "Duplicate ID '%s' for drive" : "Device with id '%s' already exists",
                  id);
        free(id);
        return NULL;
    }
    if (node_find(id)) {
        error_set(err, "Device name '%s' conflicts with an existing node name", id);
        free(id);
        return NULL;
    }
    return id;
}

/* --- Temporary overlays ----------------------------------------------------------------------- */

/* snapshot=on: what the guest writes goes there, and away with the program. */
static char **temporaries;
static size_t temporary_count;

static char *make_temporary(struct error *err)
{
    const char *asked = getenv("TMPDIR");
    char *path = mem_printf("%s/vl.XXXXXX", asked && *asked ? asked : "/var/tmp");
    int ret = io_make_temp_file(path);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not get temporary filename");
        free(path);
        return NULL;
    }
    temporaries = mem_reallocarray(temporaries, temporary_count + 1, sizeof(*temporaries));
    temporaries[temporary_count++] = path;
    return path;
}

void drives_remove_temporaries(void)
{
    while (temporary_count > 0) {
        io_remove_tree(temporaries[--temporary_count]);
        free(temporaries[temporary_count]);
    }
    free(temporaries);
    temporaries = NULL;
}

/* Takes over the reference to `base`; NULL with err. */
static struct node *co_add_temporary(struct node *base, struct error *err)
{
    const struct driver *qcow2 = driver_find("qcow2");
    const char *path = make_temporary(err);
    json_t *size = json_pack("{s:I}", "size", (json_int_t)base->size), *options;
    struct node *node = NULL;

    if (path && qcow2->co_create(path, size, err) == 0) {
        options = json_pack("{s:s, s:{s:s, s:s}, s:s, s:{s:b}}", "driver", "qcow2", "file", "driver", "file",
                            "filename", path, "backing", base->name, "cache", "no-flush", 1);
        node = co_node_open(NULL, options, err);
        json_decref(options);
    }
    if (node) {
        node->temporary = node->file->temporary = true;
    }
    json_decref(size);
    co_node_unref(base); /* the overlay has its own */
    return node;
}

/* --- From keys to a disk ------------------------------------------------------------------------ */

/* What stands between a disk's device and its image, though it is no node: copies on read, limits. */
static int apply_settings(struct disk *disk, const struct drive_settings *s, const char *shown, struct error *err)
{
    const char *group = json_string_value(json_object_get(s->throttling, "group"));

    if (s->copy_on_read && s->read_only) {
        message("%s: warning: disabling copy-on-read on read-only drive", shown);
    } else if (s->copy_on_read && disk->root) {
        filter_skip(disk->root)->copy_on_read = true;
    }
    return s->throttling ? disk_set_limits(disk, group ? group : disk->id, s->throttling, err) : 0;
}

static struct node *co_open_root(json_t *keys, const struct drive_settings *s, struct error *err)
{
    AUTOFREE char *file = NULL;
    bool temporary = s->snapshot && !s->read_only;
    json_t *options, *backing;
    struct node *node;

    /* A plain file= is a file name (or a node-name with driver=); file.x=y are the options of the
     * file child. */
    drive_take(keys, "file", &file);
    options = keyval_nest(keys, err);
    if (!options) {
        return NULL;
    }
    backing = json_object_get(options, "backing");
    if (json_is_string(backing) && !*json_string_value(backing)) {
        json_object_set_new(options, "backing", json_null());
    }
    json_object_set_new(options, "read-only", json_boolean(s->read_only || temporary));
    if (!json_object_get(options, "auto-read-only")) {
        json_object_set_new(options, "auto-read-only", json_true()); /* drives have it on, nodes off */
    }
    node = co_node_open(file, options, err);
    monitor_free_json(options);
    if (node && temporary) {
        node = co_add_temporary(node, err);
    }
    if (node) {
        node->writethrough = !s->writeback && !temporary;
    }
    return node;
}

/* The disk of a drive whose place and id are settled; *disk stays NULL when it is an empty one that a device would need. */
static int co_make_disk(const char *id, json_t *keys, const struct drive_settings *s, const char *shown,
                        struct disk **disk, struct error *err)
{
    struct node *node = NULL;

    if (json_object_size(keys) > 0) {
        node = co_open_root(keys, s, err);
        if (!node) {
            return -EINVAL;
        }
        if (node_find(id)) {
            error_set(err, "Device name '%s' conflicts with an existing node name", id);
            co_node_unref(node);
            return -EEXIST;
        }
    }
    *disk = disk_new(id, node);
    (*disk)->werror = s->werror;
    (*disk)->rerror = s->rerror;
    (*disk)->read_only = node ? node->read_only : s->read_only;
    (*disk)->removable = true; /* until a device without a tray has it */
    return apply_settings(*disk, s, shown, err);
}

static int co_drive_start(const struct drive *drive, bool snapshot, struct place *place, struct error *err)
{
    json_t *keys = json_copy(drive->keys);
    bool id_given = json_object_get(keys, "id");
    const char *file = json_string_value(json_object_get(keys, "file"));
    struct drive_settings s = { .snapshot = snapshot };
    AUTOFREE char *id = NULL;
    int ret = -EINVAL;

    if (file && !*file) {
        json_object_del(keys, "file"); /* an empty name is no name */
    }
    if (choose_bus(keys, place, err) == 0 && choose_index(keys, place, err) == 0 &&
        (id = choose_id(keys, place, err)) && drive_take_settings(keys, &s, err) == 0) {
        s.read_only = s.read_only || place->cdrom;
        ret = co_make_disk(id, keys, &s, drive->shown, &place->disk, err);
    }
    if (ret == 0) {
        place->disk->id_given = id_given;
        place->disk->bus = place->bus;
        place->disk->index = place->index;
    }
    drive_settings_free(&s);
    json_decref(keys);
    return ret;
}

static int co_attach(const struct place *place, struct error *err)
{
    if (place->bus == BUS_VIRTIO) {
        return co_device_for_drive(place->disk, "virtio-blk", 0, 0, err);
    }
    return co_device_for_drive(place->disk, place->cdrom ? "ide-cd" : "ide-hd", place->index / 2, place->index % 2,
                               err);
}

/* The devices that drives on this bus bring along. */
static int co_attach_all(const struct drives *all, const struct place *places, enum bus bus, const char **failed,
                         struct error *err)
{
    for (size_t i = 0; i < all->drive_count; i++) {
        if (places[i].bus == bus && co_attach(&places[i], err) < 0) {
            *failed = bus == BUS_IDE ? NULL : all->drives[i].shown; /* QEMU's machine makes those, and names no option */
            return -EINVAL;
        }
    }
    return 0;
}

static int co_start_devices(const struct drives *all, const char **failed, struct error *err)
{
    for (size_t i = 0; i < all->device_count; i++) {
        const struct option_tree *device = &all->devices[i];

        if (co_device_add(device->tree, device->from_words, device->shown, err) < 0) {
            *failed = device->shown;
            return -EINVAL;
        }
    }
    return 0;
}

static void warn_of_old_null(json_t *keys, const char *shown)
{
    const char *backing = json_string_value(json_object_get(keys, "backing"));

    if (backing && !*backing) {
        message("%s: warning: Use of \"backing\": \"\" is deprecated; use \"backing\": null instead", shown);
    }
}

int co_drives_start(const struct drives *all, const char **failed, struct error *err)
{
    AUTOFREE struct place *places = mem_calloc(all->drive_count + 1, sizeof(*places));

    for (size_t i = 0; i < all->blockdev_count; i++) {
        const struct option_tree *blockdev = &all->blockdevs[i];

        warn_of_old_null(blockdev->tree, blockdev->shown);
        if (!co_blockdev_add(blockdev->tree, blockdev->from_words, err)) {
            *failed = blockdev->shown;
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < all->drive_count; i++) {
        warn_of_old_null(all->drives[i].keys, all->drives[i].shown);
        if (co_drive_start(&all->drives[i], all->snapshot, &places[i], err) < 0) {
            *failed = all->drives[i].shown;
            return -EINVAL;
        }
    }
    if (co_attach_all(all, places, BUS_IDE, failed, err) < 0 || co_start_devices(all, failed, err) < 0 ||
        co_attach_all(all, places, BUS_VIRTIO, failed, err) < 0) {
        return -EINVAL;
    }
    return 0;
}

/* --- While it runs ------------------------------------------------------------------------------ */

int co_drive_hot_add(const char *words, char **help, int *type, struct error *err)
{
    struct drive drive = { .shown = (char *)words, .keys = keyval_parse(words, NULL, err) };
    struct place place = { 0 };
    int ret = -EINVAL;
    size_t len;
    FILE *out;

    *help = NULL;
    *type = 0;
    if (!drive.keys) {
        return ret;
    }
    out = open_memstream(help, &len);
    if (drive_help(drive.keys, out)) {
        ret = 0;
    }
    fclose(out);
    if (ret < 0) {
        free(*help);
        *help = NULL;
        warn_of_old_null(drive.keys, words);
        ret = co_drive_start(&drive, false, &place, err);
        *type = ret == 0 ? buses[place.bus].type : 0;
    }
    if (place.disk && place.bus != BUS_NONE) {
        co_disk_free(place.disk); /* no device of its own can come now */
    }
    json_decref(drive.keys);
    return ret;
}

/* --- The end ------------------------------------------------------------------------------------ */

int co_drives_end(struct error *err)
{
    struct device *dev;
    struct disk *disk;
    int first = 0, ret;

    throttle_drain_all(true);
    TAILQ_FOREACH(disk, &all_disks, link) {
        disk->werror = disk->rerror = DISK_REPORT; /* nobody will say `cont` any more */
    }
    co_devices_settle();
    while ((dev = TAILQ_LAST(&all_devices, device_list))) {
        co_device_remove(dev, false); /* the disks go below, when they are flushed */
    }
    while ((disk = TAILQ_FIRST(&all_disks))) {
        ret = disk->root ? co_node_flush(disk->root) : 0;
        if (ret < 0 && first == 0) {
            first = ret;
            error_set_errno(err, ret, "Could not flush '%s'", disk->label);
        }
        co_disk_free(disk);
    }
    ret = co_blockdevs_end(err);
    throttle_drain_all(false);
    drives_remove_temporaries();
    return first ? first : ret;
}
