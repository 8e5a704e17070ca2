/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-reopen, how it is done, for all nodes of the list at once:
 *
 *   drain     the guests of all these nodes stand still
 *   judge     would everybody agree with the graph as it will be?  (permission.h)
 *   lay down  who is to be opened anew writes back what it has: what it knows is in its old file
 *   relink    the edges; with them the locks, which another program may refuse
 *   open      the drivers, on their new file, with their new options; what they were is kept
 *   switch    read-only and writable, past the page cache or through it
 *   settle    what cannot fail: the policies, the old states go
 *
 * Each step up to the last one can be undone, the last done first.
 */
#include "block/reopen-change.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/disk.h"
#include "block/file.h"
#include "block/permission.h"
#include "core/mem.h"

typedef int co_step_fn(struct changes *all, struct change *c);

/* --- Edges ------------------------------------------------------------------------------------------------------------ */

/* Exchanges the edges with those that are to be, or back. */
static void exchange(struct change *c)
{
    struct node *file = c->node->file, *backing = c->node->backing;

    c->node->file = c->file;
    c->node->backing = c->backing;
    c->file = file;
    c->backing = backing;
    c->relinked = !c->relinked;
    node_measure_nesting(c->node);
}

static void exchange_all(struct changes *all, size_t n)
{
    while (n-- > 0) {
        exchange(&all->list[n]);
    }
}

/* The plan looked at each change by itself; together they must not close a circle. */
static int exchange_checked(struct changes *all)
{
    for (size_t i = 0; i < all->count; i++) {
        struct change *c = &all->list[i];
        struct node *file = c->file != c->node->file ? c->file : NULL;
        struct node *backing = c->backing != c->node->backing ? c->backing : NULL;

        if ((file && node_reaches(file, c->node)) || (backing && node_reaches(backing, c->node))) {
            error_set(all->err, "Making '%s' a %s child of '%s' would create a cycle", (file ? file : backing)->name,
                      file ? "file" : "backing", c->node->name);
            exchange_all(all, i);
            return -EINVAL;
        }
        exchange(c);
    }
    return 0;
}

static int check_written(const struct changes *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const struct node *node = all->list[i].node;

        if (node->read_only && !all->list[i].was_read_only && (node->new_perm.used & (IO_PERM_WRITE | IO_PERM_RESIZE))) {
            error_set(all->err, "Read-only block node '%s' cannot support read-write users", node->name);
            return -EACCES;
        }
    }
    return 0;
}

/* Without a pause: nobody sees the graph that is only thought of. */
static int judge(struct changes *all)
{
    int ret = exchange_checked(all);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < all->count; i++) {
        all->list[i].node->read_only = all->list[i].read_only;
    }
    ret = permissions_judge(all->err);
    if (ret == 0) {
        ret = check_written(all);
    }
    for (size_t i = 0; i < all->count; i++) {
        all->list[i].node->read_only = all->list[i].was_read_only;
    }
    exchange_all(all, all->count);
    return ret;
}

/* --- Drivers that are opened anew ------------------------------------------------------------------------------------- */

static int co_lay_down(struct changes *all, struct change *c)
{
    struct node *node = c->node;
    int ret = 0;

    if (c->anew && !node->read_only && node->driver->co_set_writable) {
        ret = node->driver->co_set_writable(node, false, all->err);
        c->laid_down = ret == 0;
    }
    return ret;
}

static void exchange_former(struct change *c)
{
    struct node *node = c->node;
    struct former now = { node->state, node->size, node->cluster_size, node->backing_name, node->backing_format,
                          node->filename, node->options };

    node->state = c->was.state;
    node->size = c->was.size;
    node->cluster_size = c->was.cluster_size;
    node->backing_name = c->was.backing_name;
    node->backing_format = c->was.backing_format;
    node->filename = c->was.filename;
    node->options = c->was.options;
    c->was = now;
    if (node->driver->inherit && node->state && now.state) {
        node->driver->inherit(node, now.state);
    }
}

/* What is kept in `was` goes for good. */
static void co_drop_former(struct change *c)
{
    struct node *node = c->node;
    struct former *was = &c->was;
    void *state = node->state;

    if (was->state) {
        node->state = was->state;
        node->driver->co_close(node);
        node->state = state;
    }
    free(was->backing_name);
    free(was->backing_format);
    free(was->filename);
    json_decref(was->options);
}

static int co_open(struct changes *all, struct change *c)
{
    struct node *node = c->node;
    struct error why = ERROR_INIT;
    void *before = node->state;
    int ret;

    if (!c->anew) {
        return 0;
    }
    /* Devices and monitors look at the size meanwhile. */
    c->was = (struct former){ .size = node->size, .cluster_size = node->cluster_size, .options = change_options(c),
                              .filename = mem_strdup(node->file->filename) };
    exchange_former(c);
    node->unused = json_copy(node->options);
    ret = node->driver->co_open(node, &why);
    json_decref(node->unused);
    node->unused = NULL;
    if (ret < 0) {
        if (!error_is_set(&why)) {
            error_set_errno(&why, ret, "Could not open '%s'", node->filename);
        }
        error_move(all->err, &why);
        exchange_former(c);
        co_drop_former(c);
        return ret;
    }
    if (node->driver->inherit) {
        node->driver->inherit(node, before);
    }
    c->opened = true;
    return 0;
}

/* --- Read-only, direct -------------------------------------------------------------------------------------------------- */

/* Its file was opened read-only, and nobody says anything else now. */
static bool file_stays_read_only(const struct changes *all, const struct node *node)
{
    for (size_t i = 0; i < all->count; i++) {
        if (all->list[i].node == node->file) {
            return false;
        }
    }
    return node->file && node->file->read_only && node->file->want_read_only;
}

static int co_switch_to(struct changes *all, struct change *c, bool read_only, bool direct, struct error *err)
{
    int ret = 0;

    if (!read_only && file_stays_read_only(all, c->node)) {
        error_set(err, "Block node is read-only");
        return -EACCES;
    }
    if (c->node->driver == &driver_file) {
        ret = co_file_set_direct(c->node, direct, err);
    }
    if (ret == 0 && c->node->read_only != read_only) {
        ret = read_only ? co_node_set_own_read_only(c->node, err) : co_node_set_writable(c->node, true, err);
    }
    return ret;
}

static int co_switch(struct changes *all, struct change *c)
{
    int ret = co_switch_to(all, c, c->read_only, c->direct, all->err);

    if (ret < 0) {
        co_switch_to(all, c, c->was_read_only, c->was_direct, NULL);
    }
    return ret;
}

/* --- All of them ---------------------------------------------------------------------------------------------------------- */

static int co_each(struct changes *all, co_step_fn *co_step, size_t *done)
{
    int ret = 0;

    for (*done = 0; *done < all->count; ++*done) {
        ret = co_step(all, &all->list[*done]);
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static void co_undo(struct changes *all, size_t switched)
{
    while (switched-- > 0) {
        struct change *c = &all->list[switched];

        co_switch_to(all, c, c->was_read_only, c->was_direct, NULL);
    }
    for (size_t i = all->count; i-- > 0;) {
        struct change *c = &all->list[i];

        if (c->opened) {
            exchange_former(c);
            co_drop_former(c);
        }
    }
    for (size_t i = all->count; i-- > 0;) {
        if (all->list[i].relinked) {
            exchange(&all->list[i]);
        }
    }
    permissions_settle(NULL);
    for (size_t i = all->count; i-- > 0;) {
        struct change *c = &all->list[i];

        if (c->laid_down && c->node->driver->co_set_writable(c->node, true, NULL) < 0) {
            c->node->read_only = true; /* it cannot write any more */
        }
    }
}

static void tell_size(struct node *node)
{
    struct disk *disk;

    node_size_changed(node);
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (disk->root == node && disk->on_resize) {
            disk->on_resize(disk, disk->dev_arg);
        }
    }
}

/* Files that are named change with those that stand above them; one that was opened read-only by name stays so. */
static void co_settle(struct change *c)
{
    struct node *node = c->node;
    bool resized = c->opened && node->size != c->was.size;

    node->want_read_only = c->read_only;
    node->discard_unmap = c->discard_unmap;
    node->detect_zeroes = c->detect_zeroes;
    node->cache_direct = c->direct;
    node->no_flush = c->no_flush;
    if (c->opened) {
        co_drop_former(c);
    } else {
        json_t *options = change_options(c);

        json_decref(node->options);
        node->options = options;
    }
    assert(c->opened || c->backing == node->backing); /* who can have another backing file is opened anew for it */
    if (c->opened) {
        chain_map_relink(node);
        chain_map_forget_layer(node);
    }
    if (resized) {
        tell_size(node);
    }
}

static void set_busy(struct changes *all, const char *reason)
{
    for (size_t i = 0; i < all->count; i++) {
        all->list[i].node->busy_reason = reason;
    }
}

static int co_look_at_file(struct changes *all, struct change *c)
{
    return c->anew && c->file ? co_node_look_at_size(c->file, all->err) : 0;
}

static int co_change(struct changes *all)
{
    size_t done, switched = 0;
    int ret = judge(all);

    if (ret < 0) {
        return ret;
    }
    ret = co_each(all, co_lay_down, &done);
    if (ret == 0) {
        ret = co_each(all, co_look_at_file, &done);
    }
    if (ret == 0) {
        ret = exchange_checked(all);
    }
    if (ret == 0) {
        ret = permissions_settle(all->err);
    }
    if (ret == 0) {
        ret = co_each(all, co_open, &done);
    }
    if (ret == 0) {
        ret = co_each(all, co_switch, &switched);
    }
    if (ret < 0) {
        co_undo(all, switched);
        return ret;
    }
    for (size_t i = 0; i < all->count; i++) {
        co_settle(&all->list[i]);
    }
    node_renew_stand_ins();
    return 0;
}

int co_changes_apply(struct changes *all)
{
    int ret = 0;

    for (size_t i = 0; i < all->count; i++) {
        all->list[i].drain = co_node_drain_begin(all->list[i].node);
    }
    for (size_t i = 0; i < all->count && ret == 0; i++) {
        ret = node_check_free(all->list[i].node, all->err); /* we suspended */
    }
    if (ret == 0) {
        set_busy(all, "block device is being reopened");
        ret = co_change(all);
        set_busy(all, NULL);
    }
    for (size_t i = all->count; i-- > 0;) {
        co_node_drain_end(all->list[i].drain);
    }
    return ret;
}
