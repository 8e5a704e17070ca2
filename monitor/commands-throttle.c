/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block_set_io_throttle: how fast a disk's guest may be, changed while it runs.
 *
 * Both monitors mean QMP's command; the human one has the six averages alone.  A disk stays in its group unless another one is
 * named, and leaves it when no limit is left.
 */
#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

/* "bps_rd_max_length" -> "bps-read-max-length"; malloc'ed. */
static char *limit_name(const char *member)
{
    const char *rest = strchr(member, '_');
    const char *what = !rest || !strncmp(rest, "_max", 4) ? "total" : !strncmp(rest, "_rd", 3) ? "read" : "write";
    size_t len = rest ? (size_t)(rest - member) : strlen(member);
    char *name;

    if (!strcmp(member, "iops_size")) {
        return mem_strdup("iops-size");
    }
    rest = rest && strcmp(what, "total") ? strchr(rest + 1, '_') : rest;
    name = mem_printf("%.*s-%s%s", (int)len, member, what, rest ? rest : "");
    for (char *p = name; *p; p++) {
        *p = *p == '_' ? '-' : *p;
    }
    return name;
}

static json_t *limits_of(const json_t *args)
{
    json_t *limits = json_object(), *value;
    const char *key;

    json_object_foreach((json_t *)args, key, value) {
        if (json_is_integer(value)) {
            AUTOFREE char *name = limit_name(key);

            json_object_set(limits, name, value);
        }
    }
    return limits;
}

static int co_block_set_io_throttle(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct disk *disk = disk_of_args(args, err);
    const char *group = member_text(args, "group");
    AUTOFREE char *name = NULL;
    json_t *limits;
    int ret;

    if (!disk) {
        return -ENODEV;
    }
    if (!disk->root) {
        error_set(err, "Device has no medium");
        return -ENOMEDIUM;
    }
    if (!group) {
        group = disk->throttle.group        ? throttle_member_group(&disk->throttle)
                : member_text(args, "device") ? member_text(args, "device")
                                              : member_text(args, "id");
    }
    name = mem_strdup(group); /* the group may end */
    limits = limits_of(args);
    ret = disk_set_limits(disk, name, limits, err);
    json_decref(limits);
    return ret;
}

/* The device is a disk's name, or else the name of what it is attached to. */
static int co_hmp_block_set_io_throttle(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device");

    if (!disk_find(device)) {
        json_object_set(args, "id", json_object_get(args, "device"));
        json_object_del(args, "device");
    }
    return co_block_set_io_throttle(mon, args, result, err);
}

#define AVERAGES \
    { "bps", ARG_INT, .doc = "bytes a second, 0: no limit" }, { "bps_rd", ARG_INT, .doc = "those that are read" }, \
        { "bps_wr", ARG_INT, .doc = "those that are written" }, { "iops", ARG_INT, .doc = "requests a second" }, \
        { "iops_rd", ARG_INT, .doc = "reads" }, { "iops_wr", ARG_INT, .doc = "writes" }

const struct command throttle_commands[] = {
    {
        .name = "block_set_io_throttle",
        .args = { { "device", ARG_DEVICE, .doc = "the disk" }, AVERAGES },
        .params = "device bps bps_rd bps_wr iops iops_rd iops_wr",
        .help = "change I/O throttle limits for a block drive",
        .group = "Disks and images",
        .example = "block_set_io_throttle virtio0 10485760 0 0 0 0 0",
        .co_run = co_hmp_block_set_io_throttle,
    },
    { 0 },
};

#define BURST(name) { name, ARG_INT, .optional = true }

const struct command throttle_qmp_commands[] = {
    {
        .name = "block_set_io_throttle",
        .args = {
            { "device", ARG_STRING, .optional = true }, { "id", ARG_STRING, .optional = true }, AVERAGES,
            BURST("bps_max"), BURST("bps_rd_max"), BURST("bps_wr_max"),
            BURST("iops_max"), BURST("iops_rd_max"), BURST("iops_wr_max"),
            BURST("bps_max_length"), BURST("bps_rd_max_length"), BURST("bps_wr_max_length"),
            BURST("iops_max_length"), BURST("iops_rd_max_length"), BURST("iops_wr_max_length"),
            BURST("iops_size"), { "group", ARG_STRING, .optional = true },
        },
        .co_run = co_block_set_io_throttle,
    },
    { 0 },
};
