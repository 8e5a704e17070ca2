/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What operators tell guests and hear of them: settings before and after the disks exist,
 * descriptions.  The public half is in guest.h.
 */
#ifndef HW_GUEST_CONTROL_H
#define HW_GUEST_CONTROL_H

struct guest;

/* Settings of a new guest: the defaults, what -guest said for all and for its disk, a seed of
 * its own. */
void guest_initial_settings(struct guest *g);

#endif
