/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects that users make: -object and object-add.  A table has the types that block clients use; all others are refused.
 *
 *   iothread         there is no such thread, but devices may name one
 *   throttle-group   block/throttle-group.h does the work
 */
#ifndef HW_OBJECT_H
#define HW_OBJECT_H

#include <jansson.h>
#include <sys/queue.h>

#include "block/blockdev.h"
#include "core/error.h"

struct object_type;
struct object {
    TAILQ_ENTRY(object) link;
    char *id;
    const struct object_type *type;
    json_t *properties; /* as given, and the defaults of the others; without "qom-type" and "id" */
};
struct object_type {
    const char *name;
    const struct block_key *keys; /* ends at name == NULL */
    int (*add)(const struct object *object, struct error *err);
    int (*del)(const char *id, struct error *err); /* may be NULL */
    json_t *(*get)(const char *id, const char *property);       /* instead of `properties`; NULL: those */
};
TAILQ_HEAD(object_list, object);
extern struct object_list all_objects; /* the newest first */
extern const struct object_type object_kinds[]; /* ends at name == NULL */
/* What object-add takes. */
extern const struct block_key object_tree;

/* `tree` has been checked against object_tree; borrowed.  0 or -errno with QEMU's words. */
int object_add(const json_t *tree, struct error *err);
int object_del(const char *id, struct error *err);
struct object *object_find(const char *id);
/* A property's value, new reference; NULL: there is none of that name. */
json_t *object_get(const struct object *object, const char *property);
/* The end of the program. */
void objects_end(void);

#endif
