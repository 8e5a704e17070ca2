/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words of `qemu-io DISK "..."`, with qemu-io's output: requests of the operator's own.
 */
#ifndef MONITOR_QEMU_IO_H
#define MONITOR_QEMU_IO_H

#include "block/disk.h"
#include "monitor/monitor.h"

/* Run one line of qemu-io's on a node, on behalf of a disk or (NULL) as somebody else; prints to the monitor.  0 or -errno; err is filled only by what has no words of
 * qemu-io's.  Suspends. */
int co_qemu_io(struct monitor *mon, struct disk *disk, struct node *node, const char *line, struct error *err);

#endif
