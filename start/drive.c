/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives (see drive.h).  Names are QEMU's: virtio0, ide0-hd0, ide1-cd0, none0.
 */
#include "start/drive.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/guest.h"
#include "hw/machine.h"

#define VIRTIO_QUEUES 4
#define VIRTIO_QUEUE_SIZE 256

enum bus { BUS_IDE, BUS_VIRTIO, BUS_NONE };
static const char *const bus_names[] = { "ide", "virtio", "none" };

struct place {
    enum bus bus;
    unsigned index;
    bool cdrom;
};

/* --- Values ----------------------------------------------------------------------------------- */

static const char *take(json_t *keys, const char *key, char **keep)
{
    const char *value = json_string_value(json_object_get(keys, key));

    free(*keep);
    *keep = mem_strdup(value);
    json_object_del(keys, key);
    return *keep;
}

static int parse_on_off(const char *key, const char *value, bool *out, struct error *err)
{
    if (keyval_switch(value, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        return -EINVAL;
    }
    return 0;
}

static int check_on_off(const json_t *keys, const char *key, struct error *err)
{
    const char *value = json_string_value(json_object_get(keys, key));
    bool ignored;

    return value ? parse_on_off(key, value, &ignored, err) : 0;
}

static int parse_number(const char *key, const char *value, unsigned *out, struct error *err)
{
    char *end;
    unsigned long n = strtoul(value, &end, 0);

    if (!*value || *end || n > 1u << 20) {
        error_set(err, "Parameter '%s' expects a number", key);
        return -EINVAL;
    }
    *out = n;
    return 0;
}

static int parse_policy(const char *value, bool is_read, enum disk_policy *out, struct error *err)
{
    static const char *const names[] = { "report", "ignore", "stop", "enospc" };

    for (unsigned i = 0; i < (is_read ? 3 : 4); i++) {
        if (strcmp(value, names[i]) == 0) {
            *out = (enum disk_policy)i;
            return 0;
        }
    }
    error_set(err, "'%s' invalid %s error action", value, is_read ? "read" : "write");
    return -EINVAL;
}

/* --- Where does it go? ------------------------------------------------------------------------ */

static bool place_taken(const struct place *places, size_t n, enum bus bus, unsigned index)
{
    for (size_t i = 0; i < n; i++) {
        if (places[i].bus == bus && places[i].index == index) {
            return true;
        }
    }
    return false;
}

static int choose_bus(json_t *keys, struct place *place, struct error *err)
{
    AUTOFREE char *keep = NULL;
    const char *value = take(keys, "if", &keep);

    place->bus = BUS_IDE;
    if (value) {
        for (place->bus = BUS_IDE; place->bus <= BUS_NONE; place->bus++) {
            if (strcmp(value, bus_names[place->bus]) == 0) {
                break;
            }
        }
        if (place->bus > BUS_NONE) {
            error_set(err, "unsupported bus type '%s'", value);
            return -EINVAL;
        }
    }
    value = take(keys, "media", &keep);
    if (value && strcmp(value, "disk") != 0 && strcmp(value, "cdrom") != 0) {
        error_set(err, "'%s' invalid media", value);
        return -EINVAL;
    }
    place->cdrom = value && strcmp(value, "cdrom") == 0;
    return 0;
}

static int choose_index(json_t *keys, struct place *places, size_t n, struct error *err)
{
    struct place *place = &places[n];
    unsigned units = place->bus == BUS_IDE ? 2 : 1, bus = 0, unit = 0;
    AUTOFREE char *index = NULL, *bus_text = NULL, *unit_text = NULL;

    take(keys, "index", &index);
    take(keys, "bus", &bus_text);
    take(keys, "unit", &unit_text);
    if (index && (bus_text || unit_text)) {
        error_set(err, "index cannot be used with bus and unit");
        return -EINVAL;
    }
    if ((bus_text && parse_number("bus", bus_text, &bus, err) < 0) ||
        (unit_text && parse_number("unit", unit_text, &unit, err) < 0) ||
        (index && strcmp(index, "-1") != 0 &&
         parse_number("index", index, &place->index, err) < 0)) {
        return -EINVAL;
    }
    if (unit_text && units > 1 && unit >= units) {
        error_set(err, "unit %u too big (max is %u)", unit, units - 1);
        return -EINVAL;
    }
    if (bus_text || unit_text) {
        place->index = bus * units + unit;
    } else if (!index || strcmp(index, "-1") == 0) {
        for (place->index = 0; place_taken(places, n, place->bus, place->index);) {
            place->index++;
        }
    }
    if (place_taken(places, n, place->bus, place->index)) {
        error_set(err, "drive with bus=%u, unit=%u (index=%u) exists", place->index / units,
                  place->index % units, place->index);
        return -EEXIST;
    }
    if (place->bus == BUS_IDE && place->index > 3) {
        error_set(err, "machine type does not support if=ide,bus=%u,unit=%u", place->index / 2,
                  place->index % 2);
        return -EINVAL;
    }
    return 0;
}

static char *choose_id(json_t *keys, const struct place *place, struct error *err)
{
    AUTOFREE char *given = NULL;
    char *id;

    take(keys, "id", &given);
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
        id = mem_printf("%s%s%u", bus_names[place->bus], place->cdrom ? "-cd" : "", place->index);
    }
    if (disk_find(id)) {
        error_set(err, given ? "Duplicate ID '%s' for drive" : "Device with id '%s' already exists",
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

/* --- What is it? ------------------------------------------------------------------------------ */

struct cache_mode {
    const char *name;
    bool writeback, direct, no_flush;
};
static const struct cache_mode cache_modes[] = {
    { "writeback", true, false, false },
    { "none", true, true, false },
    { "off", true, true, false },
    { "directsync", false, true, false },
    { "writethrough", false, false, false },
    { "unsafe", true, false, true },
};

struct settings {
    bool writeback, read_only;
    enum disk_policy werror, rerror;
};

static int take_cache(json_t *keys, struct settings *s, struct error *err)
{
    AUTOFREE char *value = NULL;
    const struct cache_mode *mode = NULL;

    s->writeback = true;
    if (take(keys, "cache", &value)) {
        for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++) {
            if (strcmp(value, cache_modes[i].name) == 0) {
                mode = &cache_modes[i];
            }
        }
        if (!mode) {
            error_set(err, "invalid cache option");
            return -EINVAL;
        }
        s->writeback = mode->writeback;
        if (!json_object_get(keys, "cache.direct")) {
            json_object_set_new(keys, "cache.direct", json_string(mode->direct ? "on" : "off"));
        }
        if (!json_object_get(keys, "cache.no-flush")) {
            json_object_set_new(keys, "cache.no-flush", json_string(mode->no_flush ? "on" : "off"));
        }
    }
    if (take(keys, "cache.writeback", &value)) {
        return parse_on_off("cache.writeback", value, &s->writeback, err);
    }
    if (check_on_off(keys, "cache.direct", err) < 0) {
        return -EINVAL;
    }
    return check_on_off(keys, "cache.no-flush", err);
}

/* Values that the opening of an image would find wrong as well, in the words that QEMU has for
 * options. */
static int check_words(const json_t *keys, struct error *err)
{
    const char *zeroes = json_string_value(json_object_get(keys, "detect-zeroes"));

    if (zeroes && strcmp(zeroes, "off") && strcmp(zeroes, "on") && strcmp(zeroes, "unmap")) {
        error_set(err, "invalid parameter value: %s", zeroes);
        return -EINVAL;
    }
    if (json_object_get(keys, "read-only") && json_object_get(keys, "readonly")) {
        error_set(err, "'read-only' and its alias 'readonly' can't be used at the same time");
        return -EINVAL;
    }
    if (json_object_get(keys, "file") && json_object_get(keys, "file.filename")) {
        error_set(err, "Can't specify 'file' and 'filename' options at the same time");
        return -EINVAL;
    }
    return 0;
}

static int take_aio(json_t *keys, struct error *err)
{
    AUTOFREE char *value = NULL;

    if (!take(keys, "aio", &value)) {
        return 0;
    }
    if (strcmp(value, "threads") && strcmp(value, "native") && strcmp(value, "io_uring")) {
        error_set(err, "invalid aio option");
        return -EINVAL;
    }
    if (strcmp(value, "native") == 0 &&
        strcmp(json_string_value(json_object_get(keys, "cache.direct")) ?: "off", "on") != 0) {
        error_set(err, "aio=native was specified, but it requires cache.direct=on, "
                       "which was not specified.");
        return -EINVAL;
    }
    json_object_set_new(keys, "file.aio", json_string(value));
    return 0;
}

/* Keys that ask for something that a disk here cannot do yet are refused, not ignored. */
static int take_unsupported(json_t *keys, struct error *err)
{
    static const char *const names[] = { "snapshot", "copy-on-read" };
    AUTOFREE char *value = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        bool on = false;
        if (take(keys, names[i], &value)) {
            if (parse_on_off(names[i], value, &on, err) < 0) {
                return -EINVAL;
            }
            if (on) {
                error_set(err, "%s=on is not supported by merganser", names[i]);
                return -ENOTSUP;
            }
        }
    }
    return 0;
}

static int take_settings(json_t *keys, struct settings *s, struct error *err)
{
    static const char *const read_only[] = { "readonly", "read-only" };
    AUTOFREE char *value = NULL;

    *s = (struct settings){ .werror = DISK_ENOSPC, .rerror = DISK_REPORT };
    if (check_words(keys, err) < 0 || take_cache(keys, s, err) < 0 || take_aio(keys, err) < 0 ||
        take_unsupported(keys, err) < 0) {
        return -EINVAL;
    }
    if (take(keys, "werror", &value) && parse_policy(value, false, &s->werror, err) < 0) {
        return -EINVAL;
    }
    if (take(keys, "rerror", &value) && parse_policy(value, true, &s->rerror, err) < 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
        if (take(keys, read_only[i], &value) &&
            parse_on_off("read-only", value, &s->read_only, err) < 0) {
            return -EINVAL;
        }
    }
    if (json_object_get(keys, "format")) {
        if (json_object_get(keys, "driver")) {
            error_set(err, "Cannot specify both 'driver' and 'format'");
            return -EINVAL;
        }
        json_object_set(keys, "driver", json_object_get(keys, "format"));
        json_object_del(keys, "format");
    }
    return 0;
}

static struct node *co_open_root(json_t *keys, const struct settings *s, struct error *err)
{
    AUTOFREE char *file = NULL;
    json_t *options;
    struct node *node;

    /* A plain file= is a file name (or a node-name with driver=); file.x=y are the options of the
     * file child. */
    take(keys, "file", &file);
    options = keyval_nest(keys, err);
    if (!options) {
        return NULL;
    }
    if (json_is_string(json_object_get(options, "backing")) &&
        !*json_string_value(json_object_get(options, "backing"))) {
        json_object_set_new(options, "backing", json_null());
    }
    json_object_set_new(options, "read-only", json_boolean(s->read_only));
    node = co_node_open(file, options, err);
    json_decref(options);
    if (node) {
        node->writethrough = !s->writeback;
    }
    return node;
}

static struct guest **guests;
static size_t guest_count;

static void add_guest(struct machine_device *dev, const struct guest_driver *driver)
{
    guests = mem_reallocarray(guests, guest_count + 1, sizeof(*guests));
    guests[guest_count++] = guest_new(dev, driver);
}

static int attach(struct disk *disk, const struct place *place, struct error *err)
{
    static unsigned virtio_count, ide_count;
    struct machine_device *dev;

    if (place->bus == BUS_NONE) {
        disk->removable = true;
        return 0;
    }
    if (place->bus == BUS_VIRTIO) {
        dev = virtio_blk_new(disk, VIRTIO_QUEUES, VIRTIO_QUEUE_SIZE);
        disk->qdev =
            mem_printf("/machine/peripheral-anon/device[%u]/virtio-backend", virtio_count++);
        add_guest(dev, &guest_virtio_driver);
        return 0;
    }
    if (disk->read_only) {
        error_set(err, "Block node is read-only");
        return -EROFS;
    }
    dev = ide_disk_new(disk, place->index / 2, place->index % 2, err);
    if (!dev) {
        return -EINVAL;
    }
    disk->qdev = mem_printf("/machine/unattached/device[%u]", 18 + ide_count++);
    add_guest(dev, &guest_ide_driver);
    return 0;
}

static int co_drive_start(struct drive *drive, struct place *places, size_t n, struct error *err)
{
    struct place *place = &places[n];
    json_t *keys = json_copy(drive->keys);
    const char *file = json_string_value(json_object_get(keys, "file"));
    AUTOFREE char *id = NULL;
    struct settings s;
    struct node *node = NULL;
    struct disk *disk;
    int ret = -EINVAL;

    if (file && !*file) {
        json_object_del(keys, "file"); /* an empty name is no name */
    }
    if (choose_bus(keys, place, err) < 0 || choose_index(keys, places, n, err) < 0 ||
        !(id = choose_id(keys, place, err)) || take_settings(keys, &s, err) < 0) {
        json_decref(keys);
        return ret;
    }
    if (json_object_size(keys) == 0 && place->bus == BUS_NONE) {
        disk = disk_new(id, NULL);
        disk->removable = true;
        ret = 0;
    } else if (json_object_size(keys) == 0) {
        error_set(err, "Device needs media, but drive is empty");
    } else if ((node = co_open_root(keys, &s, err))) {
        if (node_find(id)) {
            error_set(err, "Device name '%s' conflicts with an existing node name", id);
            co_node_unref(node);
        } else {
            disk = disk_new(id, node);
            disk->werror = s.werror;
            disk->rerror = s.rerror;
            ret = attach(disk, place, err);
        }
    }
    json_decref(keys);
    return ret;
}

int co_drives_start(struct drive *drives, size_t count, const struct drive **failed,
                    struct error *err)
{
    AUTOFREE struct place *places = mem_calloc(count + 1, sizeof(*places));

    for (size_t i = 0; i < count; i++) {
        if (co_drive_start(&drives[i], places, i, err) < 0) {
            *failed = &drives[i];
            return -EINVAL;
        }
    }
    return 0;
}

int co_drives_end(struct error *err)
{
    struct machine_device *dev;
    struct disk *disk;
    int first = 0;

    TAILQ_FOREACH(disk, &all_disks, link) {
        disk->werror = disk->rerror = DISK_REPORT; /* nobody will say `cont` any more */
    }
    while (guest_count > 0) {
        co_guest_free(guests[--guest_count]);
    }
    free(guests);
    guests = NULL;
    while ((dev = TAILQ_FIRST(&machine_devices))) {
        dev->kind->co_remove(dev);
    }
    while ((disk = TAILQ_FIRST(&all_disks))) {
        int ret = disk->root ? co_node_flush(disk->root) : 0;
        if (ret < 0 && first == 0) {
            first = ret;
            error_set_errno(err, ret, "Could not flush '%s'", disk->id);
        }
        co_disk_free(disk);
    }
    return first;
}
