/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of blkdebug: what they say, and how they are read from a file or from options.
 *
 *     [inject-error]              # requests fail from the next such event on
 *     event = "l2_update"
 *     errno = "28"
 *     once = "on"
 *
 *     [set-state]                 # at this event a rule's `state` may begin to hold
 *     event = "write_aio"
 *     state = "1"
 *     new_state = "2"
 *
 * As options: inject-error.0.event=l2_update,..., or a list in JSON.
 */
#ifndef BLOCK_BLKDEBUG_CONFIG_H
#define BLOCK_BLKDEBUG_CONFIG_H

#include <stdbool.h>
#include <sys/queue.h>

#include "block/blockdev.h"
#include "block/node.h"

enum blkdebug_iotype {
    BLKDEBUG_READ, BLKDEBUG_WRITE, BLKDEBUG_WRITE_ZEROES, BLKDEBUG_DISCARD, BLKDEBUG_FLUSH, BLKDEBUG_BLOCK_STATUS,
};

struct blkdebug_rule {
    TAILQ_ENTRY(blkdebug_rule) link;
    bool sets_state;       /* else it injects an error */
    enum node_event event;
    int state;             /* it holds in this one only; 0: in each */
    int new_state;
    int error;             /* positive; 0: such requests are let through */
    unsigned iotypes;      /* bits of enum blkdebug_iotype */
    int64_t offset;        /* bytes: requests that touch it only; -1: all */
    bool once, immediately;
    bool armed;            /* its event has happened */
};
TAILQ_HEAD(blkdebug_rules, blkdebug_rule);

/* Rows for the table of keys. */
extern const struct block_key blkdebug_inject_keys[], blkdebug_set_keys[];

/* Those of a file.  Suspends. */
int co_blkdebug_load(struct blkdebug_rules *rules, const char *path, struct error *err);
/* Those of the node's options "inject-error" and "set-state". */
int blkdebug_take_options(struct blkdebug_rules *rules, struct node *node, struct error *err);
void blkdebug_rule_free(struct blkdebug_rules *rules, struct blkdebug_rule *rule);
/* The text of such a file, added to `rules`; `text` is changed. */
int blkdebug_parse(struct blkdebug_rules *rules, char *text, struct error *err);

#endif
