/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `merganser --sim WORD...`: the explorer at the command line.
 */
#ifndef EXPLORE_SIM_H
#define EXPLORE_SIM_H

/* The words behind --sim; runs to its end and returns the exit code: OUTCOME_GOOD, OUTCOME_NO_START
 * for wrong words (one sentence on stderr), OUTCOME_GUEST when a state is bad. */
int sim_main(int n, char **words);

#endif
