/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handlers, for the tables of both monitors.  Arguments and results are shaped as QMP's command of that name has
 * them; our own say here how they look.  All are co_command_fn: they may suspend.
 *
 * A row of the QMP table lists the arguments with their JSON types (monitor.h), and co_command_run() has checked them
 * when a handler begins.
 */
#ifndef MONITOR_HANDLERS_H
#define MONITOR_HANDLERS_H

#include "monitor/monitor.h"

/* The QEMU whose words and shapes these are. */
#define QEMU_VERSION_MAJOR 7
#define QEMU_VERSION_MINOR 2
#define QEMU_VERSION_MICRO 22
#define QEMU_VERSION_TEXT "7.2.22"

/* --- commands-job.c ------------------------------------------------------------------------------------------------ */
co_command_fn co_block_stream;         /* device, base, base-node, bottom, backing-file, speed, on-error, job-id, auto-*;
                                          ours: latency (ns) */
co_command_fn co_block_job_set_speed;  /* device, speed */
co_command_fn co_job_set_latency;      /* ours: id, latency (ns) */
co_command_fn co_block_job_complete;   /* device; qmp-commands.c */
co_command_fn co_block_job_cancel;     /* device, force */
co_command_fn co_block_job_pause;      /* device */
co_command_fn co_block_job_resume;     /* device */
co_command_fn co_query_block_jobs;

/* --- commands-block.c ---------------------------------------------------------------------------------------------- */
co_command_fn co_query_block;
co_command_fn co_query_blockstats;
co_command_fn co_query_named_block_nodes; /* flat */
/* Ours: device (a disk, optional).  An array, one object a chain: chain-view.h. */
co_command_fn co_query_chain;

/* --- commands-drive.c ---------------------------------------------------------------------------------------------- */
co_command_fn co_block_resize;           /* device, node-name, size */
/* How a drive is made from the words of -drive: the floor above knows.  *help (free()): what was asked for in its place; *type:
 * QEMU's number of the bus, and the drive is there when that is 0.  Set once by main. */
typedef int co_drive_maker(const char *words, char **help, int *type, struct error *err);
void drive_set_maker(co_drive_maker *co_make);

/* --- commands-medium.c --------------------------------------------------------------------------------------------- */
/* The disk that `device`, or else `id` (of what it is attached to) means; NULL with QEMU's words. */
struct disk *disk_of_args(const json_t *args, struct error *err);
co_command_fn co_eject;                  /* device, id, force */
co_command_fn co_blockdev_change_medium; /* device, id, filename, format, read-only-mode, force */

/* --- commands-hardware.c --- */
co_command_fn co_query_chardev;

/* --- commands-machine.c -------------------------------------------------------------------------------------------- */
co_command_fn co_stop;
co_command_fn co_cont;
co_command_fn co_system_reset;
co_command_fn co_quit;
co_command_fn co_query_status;
co_command_fn co_query_name;
co_command_fn co_query_uuid;
co_command_fn co_query_version;
/* What -name and -uuid said; NULL: not given.  Copied. */
void machine_identity_set(const char *name, const char *uuid);
/* {"qemu": {...}, "package": "..."} as in the greeting; new reference. */
json_t *version_tree(void);

/* --- commands-counters.c ------------------------------------------------------------------------------------------- */
co_command_fn co_query_loop;           /* ours: reset; who held the loop: {"longest-ns", "longest": [{"name", "ns"}], ...} */
co_command_fn co_query_counters;       /* ours: {"chain-map", "tables", "host"}, each an object of numbers */

/* --- commands-guest.c ---------------------------------------------------------------------------------------------- */
co_command_fn co_query_guest;          /* ours: guest_describe() */

/* --- QMP only ------------------------------------------------------------------------------------------------------ */
co_command_fn co_blockdev_snapshot_sync; /* device, node-name, snapshot-file, snapshot-node-name, format, mode */
co_command_fn co_device_del;           /* id; commands-device.c */
co_command_fn co_system_powerdown;     /* commands-device.c */
co_command_fn co_query_iothreads;      /* commands-object.c */
co_command_fn co_query_qmp_schema;     /* qmp-schema.c */
extern const struct command blockdev_qmp_commands[], throttle_qmp_commands[], device_qmp_commands[], object_qmp_commands[];

/* --- commands-export.c --------------------------------------------------------------------------------------------- */
extern const struct command export_qmp_commands[];

/* --- Tables of rows -------------------------------------------------------------------------------------------------- */
extern const struct command job_commands[], block_commands[], machine_commands[], guest_commands[], script_commands[],
    help_commands[], export_commands[], terminal_commands[], drive_commands[], medium_commands[], throttle_commands[],
    log_commands[], hardware_commands[];
extern const struct command counter_topics[], job_topics[], block_topics[], machine_topics[], guest_topics[], help_topics[],
    drive_topics[], log_topics[], hardware_topics[];

/* What becomes of "read-only" with another medium: retain, read-only, read-write. */
extern const char *const read_only_modes[];

#endif
