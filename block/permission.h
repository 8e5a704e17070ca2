/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Permissions: who uses a node how, and what he lets others do with it meanwhile.
 *
 * Nobody says it of a node.  It follows from those above: disks and other users from outside say what they do, edges
 * hand it down.
 *
 *      above                                  uses what is below for            shares it for
 *      a format, its file                     read; writable: write, resize     read, unchanged writes
 *      a filter, raw: their file              what its own users do             what they share
 *      an image, its backing file             read, when somebody uses it       read, unchanged writes; else all
 *
 * So a filter or a raw image that nobody uses has no part in its file.  What a host's file comes to is told to other
 * processes by its locks (core/io-lock.c).
 */
#ifndef BLOCK_PERMISSION_H
#define BLOCK_PERMISSION_H

#include <stdbool.h>
#include <sys/queue.h>

#include "block/disk.h"
#include "block/node.h"

/* Somebody outside of the graph, besides disks: an export, an operator's request, a commit. */
struct node_user {
    LIST_ENTRY(node_user) link;
    struct disk *disk;     /* its root, whichever that is at the moment; or */
    struct node *node;     /* this node, to which he has a reference */
    unsigned used, shared; /* sets of enum io_perm */
    bool apart;            /* others see no change by it, so they do not object; other processes may */
};

/* To be called after each change of an edge, of a disk's root, of who writes.  Judges the whole graph and, if all agree,
 * changes the locks.  0; -EPERM (two users do not agree) or that of a lock with QEMU's words, and nothing has changed.
 * With fewer users or fewer rights it cannot fail.  Never suspends. */
int permissions_settle(struct error *err);

/* Several changes that cannot fail (`err` is NULL), judged once, at the release. Nobody may suspend in between. */
void permissions_hold(void);
void permissions_release(void);

/* Has this image a file that nobody else has (users have a reference, too)?  Then who stands above the image, and what it stands on,
 * makes no difference to the file, nor the other way round. */
bool node_has_own_file(const struct node *image);
/* The short way for such an image. */
int permission_of_new_file(const struct node *format, struct error *err);
/* As permissions_settle(), after `top` was opened, and while `node` becomes writable or read-only.  Where that concerns
 * nobody but an image and a file of its own the others are not looked at. */
int permissions_of_new_image(const struct node *top, struct error *err);
int permissions_of_writer(const struct node *node, struct error *err);

/* Would they agree?  Leaves what each node would be used and shared for in node->new_perm; changes nothing else. */
int permissions_judge(struct error *err);

/* The user (caller's memory) begins, as above, and ends.  The node must not go meanwhile. */
int node_use(struct node_user *user, struct error *err);
void node_unuse(struct node_user *user);

#endif
