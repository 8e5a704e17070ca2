/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `info block`'s text, made from the trees of block-tree.h.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "core/size.h"
#include "monitor/block-tree.h"
#include "monitor/members.h"

/* What the driver describes is strings, booleans and numbers. */
static void print_members(struct monitor *mon, const json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value) {
        AUTOFREE char *name = mem_strdup(key);

        for (char *dash = name; (dash = strchr(dash, '-'));) {
            *dash = ' ';
        }
        monitor_printf(mon, "    %s: ", name);
        switch (json_typeof(value)) {
        case JSON_STRING:
            monitor_printf(mon, "%s\n", json_string_value(value));
            break;
        case JSON_INTEGER:
            monitor_printf(mon, "%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
            break;
        default:
            assert(json_is_boolean(value));
            monitor_puts(mon, value == json_true() ? "true\n" : "false\n");
        }
    }
}

/* As `qemu-img info` shows an image. */
void snapshot_print_head(struct monitor *mon, const char *words)
{
    monitor_printf(mon, "%s\n%-10s%-17s%8s%20s%13s%11s\n", words, "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
}

void snapshot_print(struct monitor *mon, const json_t *snapshot, const char *id)
{
    char date[32], icount[24] = "", size[32];
    time_t when = member_int(snapshot, "date-sec");
    long long seconds = member_int(snapshot, "vm-clock-sec");
    struct tm tm;

    localtime_r(&when, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    if (json_object_get(snapshot, "icount")) {
        snprintf(icount, sizeof(icount), "%lld", member_int(snapshot, "icount"));
    }
    AUTOFREE char *clock = mem_printf("%02lld:%02lld:%02lld.%03lld", seconds / 3600, seconds / 60 % 60, seconds % 60,
                                      member_int(snapshot, "vm-clock-nsec") / 1000000);

    monitor_printf(mon, "%-9s %-16s %8s%20s%13s%11s\n", id, member_text(snapshot, "name"),
                   size_format(member_int(snapshot, "vm-state-size"), size), date, clock, icount);
}

static void print_snapshots(struct monitor *mon, const json_t *list)
{
    size_t i;
    json_t *snapshot;

    json_array_foreach(list, i, snapshot) {
        if (i == 0) {
            snapshot_print_head(mon, "Snapshot list:");
        }
        snapshot_print(mon, snapshot, member_text(snapshot, "id"));
    }
}

static void print_image(struct monitor *mon, const json_t *image)
{
    const char *backing = member_text(image, "backing-filename"), *full = member_text(image, "full-backing-filename");
    const char *format = member_text(image, "backing-filename-format");
    const json_t *data = json_object_get(json_object_get(image, "format-specific"), "data");
    char text[32];

    monitor_printf(mon, "image: %s\nfile format: %s\n", member_text(image, "filename"), member_text(image, "format"));
    monitor_printf(mon, "virtual size: %s (%lld bytes)\n", size_format(member_int(image, "virtual-size"), text),
                   member_int(image, "virtual-size"));
    monitor_printf(mon, "disk size: %s\n", size_format(member_int(image, "actual-size"), text));
    if (json_object_get(image, "cluster-size")) {
        monitor_printf(mon, "cluster_size: %lld\n", member_int(image, "cluster-size"));
    }
    if (backing) {
        monitor_printf(mon, "backing file: %s", backing);
        if (strcmp(full, backing) != 0) {
            monitor_printf(mon, " (actual path: %s)", full);
        }
        monitor_puts(mon, "\n");
    }
    if (format) {
        monitor_printf(mon, "backing file format: %s\n", format);
    }
    print_snapshots(mon, json_object_get(image, "snapshots"));
    if (data) {
        monitor_puts(mon, "Format specific information:\n");
        print_members(mon, data);
    }
}

static void print_images(struct monitor *mon, const json_t *image)
{
    monitor_puts(mon, "\nImages:\n");
    for (; image; image = json_object_get(image, "backing-image")) {
        print_image(mon, image);
    }
}

static void print_device(struct monitor *mon, const json_t *info)
{
    const char *status = member_text(info, "io-status");

    if (member_text(info, "qdev")) {
        monitor_printf(mon, "    Attached to:      %s\n", member_text(info, "qdev"));
    }
    if (status && strcmp(status, "ok")) {
        monitor_printf(mon, "    I/O status:       %s\n", status);
    }
    if (member_true(info, "removable")) {
        monitor_printf(mon, "    Removable device: not locked, tray %s\n", member_true(info, "tray_open") ? "open" : "closed");
    }
}

static void print_limits(struct monitor *mon, const json_t *inserted)
{
    static const char *const members[] = { "bps", "bps_rd", "bps_wr", "bps_max", "bps_rd_max", "bps_wr_max", "iops", "iops_rd",
                                           "iops_wr", "iops_max", "iops_rd_max", "iops_wr_max", "iops_size" };

    if (!member_text(inserted, "group")) {
        return;
    }
    monitor_puts(mon, "    I/O throttling:  ");
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
        monitor_printf(mon, " %s=%lld", members[i], member_int(inserted, members[i]));
    }
    monitor_printf(mon, " group=%s\n", member_text(inserted, "group"));
}

void block_tree_print(struct monitor *mon, const json_t *info, const json_t *inserted, bool verbose)
{
    const json_t *cache = json_object_get(inserted, "cache");
    const char *zeroes = member_text(inserted, "detect_zeroes");

    const char *device = info ? member_text(info, "device") : "";

    if (info && !*device && !inserted) {
        monitor_puts(mon, member_text(info, "qdev"));
    } else if (*device) {
        monitor_puts(mon, device);
        if (inserted) {
            monitor_printf(mon, " (%s)", member_text(inserted, "node-name"));
        }
    } else {
        monitor_puts(mon, member_text(inserted, "node-name"));
    }
    if (inserted) {
        monitor_printf(mon, ": %s (%s%s)\n", member_text(inserted, "file"), member_text(inserted, "drv"),
                       member_true(inserted, "ro") ? ", read-only" : "");
    } else {
        monitor_puts(mon, ": [not inserted]\n");
    }
    print_device(mon, info);
    if (!inserted) {
        return;
    }
    monitor_printf(mon, "    Cache mode:       %s%s%s\n", member_true(cache, "writeback") ? "writeback" : "writethrough",
                   member_true(cache, "direct") ? ", direct" : "", member_true(cache, "no-flush") ? ", ignore flushes" : "");
    if (member_text(inserted, "backing_file")) {
        monitor_printf(mon, "    Backing file:     %s (chain depth: %lld)\n", member_text(inserted, "backing_file"),
                       member_int(inserted, "backing_file_depth"));
    }
    if (strcmp(zeroes, "off") != 0) {
        monitor_printf(mon, "    Detect zeroes:    %s\n", zeroes);
    }
    print_limits(mon, inserted);
    if (verbose) {
        print_images(mon, json_object_get(inserted, "image"));
    }
}
