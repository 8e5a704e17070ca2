/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Armed timers in the order (time, armed): what the loop asks of them.  Arming and cancelling are in loop.h.
 */
#ifndef CORE_LOOP_TIMERS_H
#define CORE_LOOP_TIMERS_H

#include "core/loop.h"

struct loop_timer *loop_timers_first(void); /* NULL: none is armed */
uint64_t loop_timers_order(void); /* the next one to be armed gets this, all that are armed have less */
void loop_timers_init(void);
void loop_timers_fini(void); /* none is armed */

#endif
