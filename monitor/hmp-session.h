/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The human monitor on a connection: the greeting, a prompt, lines in, answers out.  What was typed
 * is not echoed; a terminal that wants to see it shows it by itself.  Lines end in LF, under
 * --qemu-compat in CR LF.
 */
#ifndef MONITOR_HMP_SESSION_H
#define MONITOR_HMP_SESSION_H

#include "monitor/chardev.h"

/* Serve one client (chardev.h); `arg` points to a bool: --qemu-compat. */
co_serve_fn co_hmp_serve;

#endif
