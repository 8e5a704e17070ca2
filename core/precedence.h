/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who of our threads gets a processor first when several want one.
 *
 * A thread that wakes waits until the one that runs has used up its slice, 1.4 to 3 ms as Linux has it, unless its own slice is
 * shorter (Linux 6.12, EEVDF: "latency nice" without a nice value).  So a guest's request waited that long behind a copy of
 * half a MiB that nobody waits for.  A slice says when, not how much: each thread's share stays fair, and a thread that was set
 * back waits for no longer than it takes the others to have had theirs.
 *
 * Threads inherit: what a thread that goes first starts (workers, those of the kernel's ring) goes first, too, until it says
 * otherwise. Refusals change nothing but latencies.  No function suspends.
 */
#ifndef CORE_PRECEDENCE_H
#define CORE_PRECEDENCE_H

/* The calling thread answers somebody.  In any scheduling class but the usual one nothing happens: that was chosen. */
void precedence_first(void);
/* The calling thread does what nobody waits for: the last of its class. */
void precedence_last(void);

#endif
