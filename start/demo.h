/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The demonstration chain: what merganser boots when it is given no image.
 */
#ifndef START_DEMO_H
#define START_DEMO_H

#include "core/error.h"

/* Make file-A.img <- ... <- file-E.img and ide.img in a new directory, each layer with data of its
 * own; the working directory becomes that directory, so that the documents' short names work.
 * Returns the directory (malloc'ed), NULL with err. */
char *co_demo_make(struct error *err);
/* Remove the directory with whatever has been made in it. */
void demo_remove(const char *dir);

#endif
