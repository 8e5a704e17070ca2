/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --sandbox on: what the operator named, told to core/sandbox.h.
 */
#ifndef START_SANDBOX_H
#define START_SANDBOX_H

#include "start/options.h"

/* Enter it: 0, or -errno with the sentence in err; then the program has to end.  All images are open
 * and no request is in flight.  `demo_dir` NULL: there is none. */
int program_sandbox(const struct options *o, const char *demo_dir, struct error *err);

#endif
