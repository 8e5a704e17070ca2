/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which system calls are left inside of the sandbox.  Private to core/sandbox*.c.
 */
#ifndef CORE_SANDBOX_CALLS_H
#define CORE_SANDBOX_CALLS_H

/* No program that is run has more rights than we: the kernel wants that said first.  0 or -errno. */
int sandbox_no_new_privileges(void);
/* From now on, for this thread and its children: only what the program needs.  0 or -errno. */
int sandbox_restrict_calls(void);

#endif
