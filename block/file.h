/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol driver "file": a node over one host file, and the image locks.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "block/node.h"

/* Tell other processes what the file is used for, by locks.  Never suspends.  -EAGAIN with QEMU's words in err, and nothing has changed. */
int file_lock(struct node *file, struct node_perm perm, struct error *err);
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
