/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to jobs, disks and the machine, told to those who listen: QMP sessions as events
 * with QEMU's members, a person at the terminal as a line of news.
 */
#ifndef MONITOR_EVENTS_H
#define MONITOR_EVENTS_H

#include "block/disk.h"
#include "monitor/monitor.h"

/* Begin and end to listen.  It is here that an error policy's `stop` stops the machine. */
void events_init(void);
void events_fini(void);
/* Lines of news (a job has ended or stands still, the machine was stopped by an error, an image is
 * corrupt) go to fn; NULL: nowhere. */
void events_set_notice(void (*fn)(const char *text));
/* SHUTDOWN; `reason` is "host-qmp-quit" or "host-signal". */
void events_shutdown(const char *reason);
/* POWERDOWN. */
void events_powerdown(void);
/* DEVICE_TRAY_MOVED: it is open now, or closed. */
void events_tray_moved(const struct disk *disk);
/* BLOCK_EXPORT_DELETED. */
void events_export_deleted(const char *id);

/* What QMP clients may hear of: the table of all events.  An event that is sent is one of them, with members that its row
 * names. */
struct event_row {
    const char *name;
    struct command_arg data[8]; /* ends at name == NULL */
};
extern const struct event_row event_rows[]; /* ends at name == NULL */

#endif
