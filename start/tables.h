/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All tables as JSON, for what is made from them.
 */
#ifndef START_TABLES_H
#define START_TABLES_H

#include <stdio.h>

/* Drivers are set (node_set_drivers()). */
void tables_print(FILE *out);

#endif
