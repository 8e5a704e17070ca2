/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor on a connection: the greeting, a prompt, lines in, answers out.  What was typed
 * is not echoed; a terminal that wants to see it shows it by itself.  Lines end in LF.
 *
 * Under --qemu-compat lines end in CR LF, and with `echo` each character that comes draws the line anew,
 * as QEMU does on every connection: programs that speak to QEMU expect to read their command first.
 * Telnet shows what is typed by itself (telnet.h).
 */
#ifndef MONITOR_HMP_SESSION_H
#define MONITOR_HMP_SESSION_H

#include "monitor/chardev.h"

/* Serve one client (chardev.h); `arg` is a struct monitor_style. */
co_serve_fn co_hmp_serve;

#endif
