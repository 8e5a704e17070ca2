/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -drive, -blockdev, -device and their short forms (-hda, -cdrom, an image alone): kept as they were said.
 *
 * Nothing is opened here, and little is judged: what a key means is known where disks are made (start/drive.h), when all
 * options are read.
 */
#include "start/option-rows.h"

#include <errno.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "hw/device.h"
#include "hw/ignored.h"
#include "start/drive-keys.h"
#include "monitor/words.h"

void options_add_drive(struct options *o, const char *shown, json_t *keys)
{
    struct drive *drive = GROW(o->disks.drives, o->disks.drive_count);

    drive->shown = mem_strdup(shown);
    drive->keys = keys;
}

int take_drive(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, NULL, err);

    if (!keys) {
        return -EINVAL;
    }
    if (drive_help(keys, stdout)) {
        json_decref(keys);
        o->done = true;
        return 0;
    }
    warn_of_flags(g, false);
    options_add_drive(o, g->shown, keys);
    return 0;
}

/* The name is taken as it is: a comma in it is a comma. */
void options_add_image(struct options *o, const char *shown, const char *path, unsigned index)
{
    AUTOFREE char *number = mem_printf("%u", index);
    json_t *keys = json_pack("{s:s, s:s}", "index", number, "media", "disk");

    json_object_set_new(keys, "file", json_stringn_nocheck(path, strlen(path)));
    options_add_drive(o, shown, keys);
}

int take_hd(struct options *o, const struct given *g, struct error *err)
{
    options_add_image(o, g->shown, g->value, g->row->name[2] - 'a');
    return 0;
}

int take_cdrom(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = json_pack("{s:s, s:s}", "index", "2", "media", "cdrom");

    json_object_set_new(keys, "file", json_stringn_nocheck(g->value, strlen(g->value)));
    options_add_drive(o, g->shown, keys);
    return 0;
}

int take_snapshot(struct options *o, const struct given *g, struct error *err)
{
    o->disks.snapshot = true;
    return 0;
}

static int add_tree(struct option_tree **trees, size_t *count, const struct given *g, const char *implied,
                    struct error *err)
{
    bool from_words;
    json_t *tree = words_tree(g->value, implied, &from_words, err);
    struct option_tree *item;

    if (!tree) {
        return -EINVAL;
    }
    item = GROW(*trees, *count);
    *item = (struct option_tree){ mem_strdup(g->shown), tree, from_words };
    return 0;
}

int take_blockdev(struct options *o, const struct given *g, struct error *err)
{
    return add_tree(&o->disks.blockdevs, &o->disks.blockdev_count, g, "driver", err);
}

/* -device help, -device MODEL,help: a model that is not there is no failure here, as with QEMU. */
static bool device_help(const struct given *g, json_t *keys, const char *name)
{
    const struct device_model *model = device_model_find(name);
    bool wanted = json_object_get(keys, "help") || json_object_get(keys, "?");

    if (!strcmp(name, "help") || !strcmp(name, "?")) {
        device_print_models(stdout);
        return true;
    }
    if (model && wanted) {
        device_print_properties(stdout, model);
    } else if (wanted && !device_is_ignored(name)) {
        fprintf(stderr, "merganser: %s: Device '%s' not found\n", g->shown, name);
        return true;
    }
    return model && wanted;
}

/* QEMU's older spelling: flat keys, a flag without '=' is "on". */
int take_device(struct options *o, const struct given *g, struct error *err)
{
    const char *name;
    json_t *keys;

    if (g->value[0] == '{') {
        return add_tree(&o->disks.devices, &o->disks.device_count, g, NULL, err);
    }
    keys = keyval_parse(g->value, "driver", err);
    if (!keys) {
        return -EINVAL;
    }
    name = json_string_value(json_object_get(keys, "driver"));
    if (name && (device_help(g, keys, name) || device_is_ignored(name))) {
        o->done = o->done || !device_is_ignored(name);
        if (!o->done) {
            ignored_note(g->shown);
        }
        json_decref(keys);
        return 0;
    }
    warn_of_flags(g, true);
    *GROW(o->disks.devices, o->disks.device_count) = (struct option_tree){ mem_strdup(g->shown), keys, true };
    return 0;
}
