/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes made from QEMU's option tree: what -blockdev, blockdev-add and blockdev-reopen have in common.
 *
 *      text                 key=value,...  {"json": ...}      monitor/words.h makes a tree of it
 *      co_blockdev_add()    blockdev_check(), then co_node_open(); the node belongs to the monitor
 *      co_blockdev_del()    and back
 *
 * Which options there are is said in tables and nowhere else: `block_common_keys` for all nodes,
 * `keys` of struct driver for its own.  A row names the option, its kind, and what it is good for;
 * the check, the manual and QMP's schema are made from them.
 */
#ifndef BLOCK_BLOCKDEV_H
#define BLOCK_BLOCKDEV_H

#include <jansson.h>
#include <stdbool.h>

#include "block/node.h"

enum block_key_kind {
    KEY_STRING,
    KEY_BOOL,
    KEY_INT,          /* 64 bits, may be negative */
    KEY_SIZE,         /* bytes, or another number that is not negative */
    KEY_UINT64,       /* in JSON a negative number stands for a large one */
    KEY_ENUM,         /* one of `choices`; where there are `members`, an object of those as well */
    KEY_NODE,         /* a node: by name, or an object with its options */
    KEY_NODE_OR_NULL, /* or null: none */
    KEY_NODES,        /* a list of objects with nodes' options */
    KEY_CREATE,       /* an object: the driver, and what it makes a new image from (its create_keys) */
    KEY_OBJECT,       /* `members`, and those of the variant that `tag` names */
    KEY_LIST,         /* of such objects */
};
/* What an object holds besides when its tag has this value. */
struct block_variant {
    const char *value;
    const struct block_key *members; /* NULL: nothing */
};
struct block_key {
    const char *name;
    enum block_key_kind kind;
    bool required;
    const char *const *choices;      /* NULL-terminated */
    const struct block_key *members; /* ends at name == NULL */
    const char *tag;                 /* the member that chooses among `variants` */
    const struct block_variant *variants; /* ends at value == NULL */
    const char *help;
};
/* What every node has; ends at name == NULL. */
extern const struct block_key block_common_keys[];
/* The row of that name, or NULL; `keys` may be NULL. */
const struct block_key *block_key_find(const struct block_key *keys, const char *name);
/* Rows for drivers that stand above a file. */
#define BLOCK_KEY_FILE \
    { .name = "file", .kind = KEY_NODE, .required = true, .help = "what lies below: a node's name, or its options" }

/*
 * Is this a tree that a node can be opened from?  Every option known, none missing, each of its
 * kind, at any depth.  With `from_words` all values are strings, as on a command line (on|off,
 * numbers), and the tree is changed to hold what they mean; without it JSON's types must be right.
 * Changes nothing else.  0, or -EINVAL with QEMU's words.
 */
int blockdev_check(json_t *tree, bool from_words, struct error *err);

/* The same for other trees: is `tree` an object as `as` (KEY_NODE, KEY_OBJECT) says? */
int blockdev_check_object(json_t *tree, bool from_words, const struct block_key *as, struct error *err);
/* And for one member of a JSON object, which may be missing when it is not required. */
int blockdev_check_member(json_t *object, const struct block_key *key, struct error *err);
/* The one member that all trees of KEY_CREATE have besides the driver's create_keys. */
extern const struct block_key block_create_keys[];

/* Check and open.  The root must have a node-name.  The node stays until co_blockdev_del(); the
 * reference is the monitor's.  `tree` is borrowed (changed as by blockdev_check()).  NULL with err;
 * suspends. */
struct node *co_blockdev_add(json_t *tree, bool from_words, struct error *err);
/* Let go of a node that co_blockdev_add() made and that nobody uses.  0 or -errno with QEMU's
 * words; suspends. */
int co_blockdev_del(const char *node_name, struct error *err);
/* The end of the program: all of them, the newest first.  0, or the first error of a last flush
 * (said in err). */
int co_blockdevs_end(struct error *err);

#endif
