/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image formats that merganser does not read and that QEMU recognises by their first sector.
 *
 * They matter for one reason: a guest that writes such a sector to a raw disk makes an image of it for the next program that
 * guesses, and some of these formats name other files of the host to be read.
 */
#ifndef BLOCK_FOREIGN_H
#define BLOCK_FOREIGN_H

#include <stdbool.h>
#include <stdint.h>

#define FOREIGN_HEAD 512u

/* Would any of them take these first bytes of a file for its own? */
bool foreign_probe(const uint8_t head[FOREIGN_HEAD]);

#endif
