/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol driver "file": a node over one host file, and the image locks.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "block/node.h"

/* Who sits above the file decides what must be locked (the table of QEMU's behaviour):
 *   format, writing     uses read, write, resize;  shares read
 *   format, reading     uses read;                 shares read, write-unchanged
 *   raw, writing        uses read, write;          shares all
 *   raw, reading        uses read;                 shares all
 *   raw under a guest   the same;                  shares all but write
 *   backing file        as a format that reads */
enum file_user { FILE_USER_NONE, FILE_USER_FORMAT, FILE_USER_RAW, FILE_USER_GUEST, FILE_USER_BACKING };

/* Take the locks for this user; `writable` as the node is now.  Never suspends. -EAGAIN with QEMU's words in err. */
int file_lock(struct node *file, enum file_user user, struct error *err);
/* Whose locks it holds now. */
enum file_user file_user_now(const struct node *file);
struct io_file *file_io(struct node *file);
/* Past the host's page cache or through it, from now on.  0 or -errno with err; suspends. */
int co_file_set_direct(struct node *file, bool direct, struct error *err);
/* The file has got another size behind the node's back: look again.  0 or -errno; suspends. */
int co_file_look_at_size(struct node *file);
/* May an image be made at this path?  -EBUSY when this program has it open (the locks of one process do not stop itself),
 * whatever is asked; -EEXIST when something is in it, unless `overwrite`.  0 also when it cannot be opened: making the
 * image will say why.  Suspends. */
int co_file_check_place(const char *path, bool overwrite, struct error *err);

extern const struct driver driver_file, driver_raw;

#endif
