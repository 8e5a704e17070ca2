/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards: see guards.h.
 *
 * The traps are a backing file that will not be found at the next start (the worse when what is above has been emptied into
 * it), and a disk that is made smaller than what is in it.  That a new image would take the place of another one is refused by
 * the snapshot itself (block/snapshot.c), --safe or not: there are words to ask for it.
 *
 * What cannot be told for certain (a name that is no path, a file that may not be opened) is no trap: a warning that is
 * often wrong is not read.
 */
#include "monitor/guards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/disk.h"
#include "block/path.h"
#include "core/bytes.h"
#include "core/io.h"
#include "core/mem.h"
#include "core/message.h"
#include "core/size.h"
#include "monitor/chain-names.h"
#include "monitor/members.h"

static bool refuse;

void guards_set_safe(bool safe)
{
    refuse = safe;
}

/* The node that a command is about: "device" names a disk or a node, "node-name" a node. */
static struct node *node_of(const json_t *args)
{
    const char *device = member_text(args, "device"), *name = member_text(args, "node-name");
    struct node *node = device ? disk_or_node(device, NULL) : NULL;

    return node ? node : name ? node_find(name) : NULL;
}

/* --- Recorded names --------------------------------------------------------------------------------------------------- */

/* 0 when `path` is the file of `layer`, or when nobody can tell; -ENOENT: no such file; -ESTALE: another one. */
static int co_leads_to(const char *path, struct node *layer)
{
    struct io_file *file, *host = node_host_file(layer);
    int ret = co_io_open(NULL, path, IO_READ_ONLY, &file);

    if (ret == -ENOENT || ret == -ENOTDIR) {
        return -ENOENT;
    }
    if (ret < 0) {
        return 0;
    }
    ret = host && io_file_same(file, host) ? 0 : -ESTALE;
    co_io_close(file);
    return ret;
}

/* What is wrong with `name` as the backing file recorded in the image at `overlay`, where it stands for `layer`; NULL when
 * nothing is.  malloc'ed. */
static char *co_wrong_name(const char *overlay, const char *name, struct node *layer)
{
    AUTOFREE char *path = path_combine(overlay, name), *is = mem_strdup(layer->filename);
    int ret;

    if (!*name || path_protocol_length(name) > 0) {
        return NULL;
    }
    node_ref(layer);
    ret = co_leads_to(path, layer);
    co_node_let_go(layer);
    if (ret == -ENOENT) {
        return mem_printf("the backing file of '%s' is recorded as '%s', which is looked for at '%s', and nothing is there",
                          overlay, name, path);
    }
    return ret == -ESTALE ? mem_printf("the backing file of '%s' is recorded as '%s', which is looked for at '%s', and that "
                                       "is another file than '%s'", overlay, name, path, is)
                          : NULL;
}

/* -n, mode=existing: what the image that is there says. */
static char *co_existing_overlay(const char *path, const char *format, struct node *root)
{
    json_t *options = json_pack("{s:s, s:n, s:b, s:{s:s, s:s}}", "driver", format, "backing", "read-only", 1, "file",
                                "driver", "file", "locking", "off");
    struct node *overlay = co_node_open(path, options, NULL);
    char *wrong = NULL;

    json_decref(options);
    if (!overlay) {
        return NULL; /* the command will say why */
    }
    if (overlay->backing_name) {
        wrong = co_wrong_name(path, overlay->backing_name, root);
    } else if (overlay->driver->supports_backing) {
        wrong = mem_printf("'%s' records no backing file, and so will be without '%s' at the next start", path,
                           root->filename);
    }
    co_node_let_go(overlay);
    return wrong;
}

static char *co_look_at_snapshot(const json_t *args)
{
    const char *path = member_text(args, "snapshot-file"), *mode = member_text(args, "mode"), *format = member_text(args, "format");
    bool existing = (mode && !strcmp(mode, "existing")) || member_true(args, "reuse");
    struct node *root = node_of(args);
    char *wrong = NULL;

    if (!root || !path) {
        return NULL;
    }
    node_ref(root);
    if (existing) {
        wrong = co_existing_overlay(path, format ? format : "qcow2", root);
    } else {
        AUTOFREE char *recorded = path_to_record(path, root->filename);

        wrong = co_wrong_name(path, recorded, root);
    }
    co_node_let_go(root);
    return wrong;
}

/* The image that stays below a stream; NULL when none does or the command will refuse it. */
static struct node *stream_base(const json_t *args, struct node *top)
{
    const char *base = member_text(args, "base"), *node = member_text(args, "base-node"), *bottom = member_text(args, "bottom");
    struct node *found = base ? chain_find_below(top, base, NULL) : node ? node_find(node) : bottom ? node_find(bottom) : NULL;

    return found && bottom ? found->backing : found;
}

static char *co_look_at_stream(const json_t *args)
{
    const char *name = member_text(args, "backing-file");
    struct node *top = node_of(args), *base = top ? stream_base(args, top) : NULL;
    AUTOFREE char *recorded = NULL;

    if (!base || top->backing == base || node_depth(top, base) <= 0) {
        return NULL;
    }
    recorded = name ? mem_strdup(name) : path_to_record_layer(top, base);
    AUTOFREE char *overlay = mem_strdup(top->filename);
    return co_wrong_name(overlay, recorded, base);
}

static char *co_look_at_backing_file(const json_t *args)
{
    const char *name = member_text(args, "image-node-name");
    struct node *image = node_find(name);
    AUTOFREE char *overlay = image ? mem_strdup(image->filename) : NULL;

    return image && image->backing ? co_wrong_name(overlay, member_text(args, "backing-file"), image->backing) : NULL;
}

/* What the next start will not find below an image that `commit` empties; NULL also when the command will refuse it.  A temporary
 * image has no next start. */
static char *co_look_at_emptying(const char *label)
{
    const struct disk *disk = disk_find_label(label);
    struct node *top = disk ? disk->root : NULL;
    AUTOFREE char *overlay = NULL, *recorded = NULL, *wrong = NULL;

    if (!top || !top->backing || top->read_only || top->temporary) {
        return NULL;
    }
    if (!top->backing_name) {
        return mem_printf("'%s' records no backing file: emptied, it reads as zeroes when it is opened without '%s'",
                          top->filename, top->backing->filename);
    }
    overlay = mem_strdup(top->filename);
    recorded = mem_strdup(top->backing_name);
    wrong = co_wrong_name(overlay, recorded, top->backing);
    return wrong ? mem_printf("what is in '%s' leaves it, but %s", overlay, wrong) : NULL;
}

static char *co_look_at_commit(const json_t *args)
{
    const char *device = member_text(args, "device");
    json_t *labels = strcmp(device, "all") == 0 ? disk_labels() : json_pack("[s]", device), *label;
    char *wrong = NULL;
    size_t i;

    json_array_foreach(labels, i, label) {
        wrong = wrong ? wrong : co_look_at_emptying(json_string_value(label));
    }
    json_decref(labels);
    return wrong;
}

/* --- What a smaller size cuts off ----------------------------------------------------------------------------------------- */

#define PIECE (1u << 20)

/* The first byte from `offset` on that is not zero; node->size when all are, or when it cannot be read. */
static uint64_t co_first_data(struct node *node, uint64_t offset)
{
    AUTOFREE uint8_t *buf = mem_align(4096, PIECE);

    while (offset < node->size) {
        struct chain_extent extent;
        uint64_t len = MIN(node->size - offset, PIECE);

        if (co_node_map(node, offset, node->size - offset, &extent) < 0) {
            return node->size;
        }
        if (extent.kind == EXTENT_NONE || extent.kind == EXTENT_ZERO) {
            offset += extent.len;
            continue;
        }
        len = MIN(len, extent.len);
        if (co_node_read_buf(node, offset, buf, len) < 0) {
            return node->size;
        }
        for (size_t i = bytes_are_zero(buf, len) ? len : 0; i < len; i++) {
            if (buf[i]) {
                return offset + i;
            }
        }
        offset += len;
    }
    return node->size;
}

static char *co_look_at_resize(const json_t *args)
{
    json_int_t size = member_int(args, "size");
    uint64_t new = size, at;
    struct node *node = node_of(args);
    char text[32], from[32], to[32], *wrong = NULL;

    if (!node || size < 0 || new >= node->size) {
        return NULL;
    }
    node_ref(node);
    at = co_first_data(node, new);
    if (at < node->size) {
        const char *device = member_text(args, "device"), *name = device ? device : node->name;

        wrong = mem_printf("making '%s' smaller, from %s to %s, cuts off data: there is some at %s", name,
                           size_format_plain(node->size, from), size_format_plain(new, to), size_format_plain(at, text));
    }
    co_node_let_go(node);
    return wrong;
}

/* --- The table -------------------------------------------------------------------------------------------------------------- */

static const struct guard {
    const char *command; /* of either monitor */
    char *(*co_look)(const json_t *args); /* the sentence, malloc'ed; NULL: no trap */
} guards[] = {
    { "snapshot_blkdev", co_look_at_snapshot },
    { "blockdev-snapshot-sync", co_look_at_snapshot },
    { "block_stream", co_look_at_stream },
    { "block-stream", co_look_at_stream },
    { "change-backing-file", co_look_at_backing_file },
    { "commit", co_look_at_commit },
    { "block_resize", co_look_at_resize },
};

int co_guards_look(struct monitor *mon, const struct command *cmd, const json_t *args, struct error *err)
{
    AUTOFREE char *wrong = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(guards) && !mon->compat && !wrong; i++) {
        if (!strcmp(guards[i].command, cmd->name)) {
            wrong = guards[i].co_look(args);
        }
    }
    if (wrong && refuse) {
        error_set(err, "Refused by --safe: %s", wrong);
        return -EPERM;
    }
    if (wrong && mon->is_qmp) {
        message("warning: %s", wrong); /* QMP has no place for it */
    } else if (wrong) {
        monitor_tone(mon, TONE_WARNING);
        monitor_printf(mon, "Warning: %s\n", wrong);
        monitor_tone(mon, TONE_PLAIN);
    }
    return 0;
}
