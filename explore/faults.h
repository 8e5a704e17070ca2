/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults of the disk during a run, drawn from a seed, and the operator who then says `cont` and
 * `block-job-resume`.
 *
 * Some faults harm nobody (short transfers, EINTR, a stall): requests must succeed as ever.  With
 * the others requests may fail, as the policies say that were drawn, too; but rules 3 to 13 hold,
 * and what was refused may have happened or not.
 *
 * A disk that lies says success of a change that is lost or lands elsewhere, flips a bit, or shows
 * what was there long ago.  About a sector of data: that sector may be lost, no other rule changes.
 * About anything: nobody crashes or hangs, no other image changes, and what is left opens or is
 * refused in words.
 */
#ifndef EXPLORE_FAULTS_H
#define EXPLORE_FAULTS_H

#include "explore/world.h"

struct faults;
/* The world is open.  Sets world->faulty, dropping and lying. */
struct faults *faults_begin(struct world *w, unsigned seed, bool lies);
/* Only the operator: after a restart the disk is a new one, but where it has lied tables may be wrong. */
struct faults *faults_attend(struct world *w);
/* The disk is whole again, and the operator goes. */
void co_faults_end(struct faults *f);
/* May this request have failed like that? */
bool faults_allow(const struct world *w, bool is_read, int error);

#endif
