/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening images: from a file name and options to a node with its whole backing chain.
 *
 * Options are QEMU's tree ("driver", "node-name", "file": {...}, "backing": {...}, ...).  Whatever is not consumed by
 * somebody is refused by name.  A chain is opened from the top down in a loop, so its depth costs no stack.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/open.h"
#include "block/path.h"
#include "block/permission.h"
#include "core/mem.h"

#define PROBE_BYTES 2048

static struct node *co_open_protocol(const char *filename, json_t *options, bool read_only, struct error *err)
{
    const char *driver_name = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = driver_find(driver_name ? driver_name : "file");
    struct node *node;

    assert(driver && driver->is_protocol); /* others are levels of their own (nested_child()) */
    node = node_new(driver, options);
    node->for_later = true; /* a host's file by itself is used for nothing */
    node->filename = mem_strdup(filename);
    if (filename) {
        json_object_set_new(node->options, "filename", json_stringn_nocheck(filename, strlen(filename)));
    }
    if (node_take_common(node, read_only, err) < 0 ||
        node_give_name(node, json_string_value(json_object_get(options, "node-name")), err) < 0) {
        co_node_discard_unopened(node);
        return NULL;
    }
    return co_node_finish_open(node, err);
}

/* --- Formats ------------------------------------------------------------------------------------------------------ */

static const struct driver *co_probe(struct node *file, struct error *err)
{
    uint8_t head[PROBE_BYTES] = { 0 };
    const struct driver *best = NULL;
    size_t len = MIN(file->size, (uint64_t)sizeof(head));
    int best_score = 0;
    int ret = co_node_read_buf(file, 0, head, len);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not read image for determining its format");
        return NULL;
    }
    for (const struct driver *const *d = driver_list(); *d; d++) {
        int score = (*d)->probe ? (*d)->probe(head, len, file->filename) : 0;
        if (score > best_score) {
            best = *d;
            best_score = score;
        }
    }
    assert(best); /* anything is raw, if nothing else claims it */
    return best;
}

static void warn_probed_raw(const char *filename)
{
    fprintf(stderr,
            "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw images, write operations on "
            "block 0 will be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the restrictions.\n",
            filename);
}

struct open_request {
    const char *filename; /* may be NULL when the options say it */
    json_t *options;      /* borrowed, may be NULL */
    const char *format;   /* as recorded in the overlay, or NULL */
    bool backing;         /* a backing file: read-only, other locks */
    const struct node *parent; /* the overlay, whose file options are taken over; or NULL */
    struct node *top;     /* of the chain that is being opened, or NULL */
    bool idle;            /* nobody uses it yet */
};

/* A key of "cache" that is none. */
static const char *first_foreign(json_t *options)
{
    const char *key;
    json_t *value;

    json_object_foreach(json_object_get(options, "cache"), key, value) {
        if (strcmp(key, "direct") && strcmp(key, "no-flush")) {
            return key;
        }
    }
    return NULL;
}

/* The options of the file child: what the user said, and what is taken over from the node and from the overlay. */
static json_t *file_options(const struct open_request *req, json_t *options)
{
    json_t *asked = json_object_get(options, open_child_key(options));
    json_t *file = json_is_object(asked) ? json_copy(asked) : json_object();
    static const char *const down[] = { "cache", "force-share", "auto-read-only" };
    static const char *const along[] = { "aio", "locking" };

    for (size_t i = 0; i < ARRAY_SIZE(down); i++) {
        json_t *value = json_object_get(options, down[i]);
        if (value && !json_object_get(file, down[i])) {
            json_object_set_new(file, down[i], json_copy(value));
        }
    }
    if (!json_is_object(asked) || !json_object_get(asked, "cache")) { /* what is wrong with it is the node's to say */
        for (const char *key = first_foreign(file); key; key = first_foreign(file)) {
            json_object_del(json_object_get(file, "cache"), key);
        }
    }
    for (size_t i = 0; req->parent && req->parent->file && i < ARRAY_SIZE(along); i++) {
        json_t *value = json_object_get(req->parent->file->options, along[i]);
        if (value && !json_object_get(file, along[i])) {
            json_object_set(file, along[i], value);
        }
    }
    return file;
}

static int check_filename(const char *filename, struct error *err)
{
    size_t proto = path_protocol_length(filename);

    if (proto > 0) {
        error_set(err, "Unknown protocol '%.*s'", (int)proto, filename);
        return -EINVAL;
    }
    if (!*filename) {
        error_set(err, "The 'file' block driver requires a file name");
        return -EINVAL;
    }
    return 0;
}

bool open_may_stand_on(const struct driver *driver, const struct node *file)
{
    return file->driver->is_protocol || file->driver->is_filter || file->driver == &driver_raw ||
           (driver && driver->is_filter);
}

/* A node that is there already, as the file of a new one. */
static struct node *file_by_name(const char *name, json_t *options, struct error *err)
{
    const struct driver *driver = driver_find(json_string_value(json_object_get(options, "driver")) ?: "");
    struct node *file = disk_or_node(name, err);

    if (!file) {
        return NULL;
    }
    if (!open_may_stand_on(driver, file)) {
        error_set(err, "Node '%s' cannot be used as the file of an image", name);
        return NULL;
    }
    return node_ref(file);
}

/* The file child: a node by name, or opened from options. */
static struct node *co_open_file_child(const struct open_request *req, json_t *options, const char *filename,
                                       bool read_only, struct error *err)
{
    const char *key = open_child_key(options), *ref = json_string_value(json_object_get(options, key));
    struct node *file;

    if (ref) {
        file = file_by_name(ref, options, err);
        if (file && co_node_look_at_size(file, err) < 0) {
            co_node_unref(file);
            return NULL;
        }
        return file;
    }
    json_t *child = file_options(req, options);
    const char *own = json_string_value(json_object_get(json_object_get(options, key) ? child : options, "filename"));
    const struct driver *driver = driver_find(json_string_value(json_object_get(child, "driver")) ?: "file");

    if (driver && driver->is_protocol && driver != &driver_file) { /* on no file */
        file = co_open_protocol(filename, child, read_only, err);
        json_decref(child);
        return file;
    }
    if (!filename) {
        filename = own;
    }
    if (!filename) {
        error_set(err, json_object_get(child, "driver") ? "The 'file' block driver requires a file name"
                       : json_object_get(options, "driver") && !json_is_object(json_object_get(options, key)) &&
                           !json_is_array(json_object_get(options, key))
                           ? "A block device must be specified for \"%s\""
                           : "Must specify either driver or file", key);
        json_decref(child);
        return NULL;
    }
    if (!strncmp(filename, "file:", 5)) {
        filename += 5;
    }
    file = check_filename(filename, err) < 0 ? NULL : co_open_protocol(filename, child, read_only, err);
    json_decref(child);
    return file;
}

static const struct driver *co_choose_format(const struct open_request *req, json_t *options, struct node *file,
                                             bool *probed, struct error *err)
{
    const char *name = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver;

    if (!name) {
        name = req->format;
    }
    if (!name) {
        *probed = true;
        return co_probe(file, err);
    }
    driver = driver_find(name);
    if (!driver) {
        error_set(err, "Unknown driver '%s'", name);
    }
    return driver;
}

/* Is the file that was just opened one of the chain already?  Asked before its locks are taken: a chain that bites its own
 * tail would find them taken by itself, and blame another process. */
static int check_loop(const struct open_request *req, struct node *file, struct error *err)
{
    struct io_file *mine = node_host_file(file);

    for (struct node *n = req->top; n && mine; n = n->backing) { /* each of them has something below it, so it has a file */
        struct io_file *other = node_host_file(n);
        if (io_file_same(mine, other)) {
            error_set(err, "Backing file '%s' is already part of the chain: the chain is a loop", file->filename);
            return -ELOOP;
        }
    }
    return 0;
}

/* What a new node needs of its file, before it looks into it; and whether it may write at all. */
static int co_claim_file(struct node *node, struct node *file, struct error *err)
{
    bool own = node_has_own_file(node); /* no need to look at all the others */
    int ret = 0;

    if (file->read_only && !node->read_only && file->want_read_only) {
        if (!node->driver->passes_permissions) {
            error_set(err, "Block node is read-only");
            return -EROFS;
        }
        node->read_only = node->want_read_only = true;
    }
    node_enter_opening(node);
    if (own) {
        ret = permission_of_new_file(node, err);
    } else if (file->refs > 1 || file->driver != &driver_file) {
        ret = permissions_settle(err);
    }
    if (ret < 0 || node->read_only) {
        return ret;
    }
    /* A file that was opened by itself with auto-read-only=on. */
    return own ? co_node_open_for_writing(file, err) : co_node_set_writable(file, true, err);
}

static struct node *co_open_format(const struct open_request *req, json_t *options, struct node *file,
                                   bool read_only, struct error *err)
{
    bool probed = false;
    const struct driver *driver = co_choose_format(req, options, file, &probed, err);
    struct node *node;

    if (!driver) {
        co_node_unref(file);
        return NULL;
    }
    node = node_new(driver, options);
    node->file = file;
    node->for_later = req->idle;
    node->filename = mem_strdup(file->filename);
    if (check_loop(req, file, err) < 0 || node_take_common(node, read_only, err) < 0 ||
        node_give_name(node, json_string_value(json_object_get(options, "node-name")), err) < 0 ||
        co_claim_file(node, file, err) < 0) {
        co_node_discard_unopened(node);
        return NULL;
    }
    if (probed && driver == &driver_raw && !node->read_only) {
        node->probed_raw = true;
        warn_probed_raw(node->filename);
    }
    return co_node_finish_open(node, err);
}

/* A node and its file, or a protocol node alone. */
static struct node *co_open_pair(const struct open_request *req, json_t *options, const char *filename,
                                 bool read_only, struct error *err)
{
    const char *name = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = name ? driver_find(name) : NULL;
    struct node *file;

    if (name && !driver) {
        error_set(err, "Unknown driver '%s'", name);
        return NULL;
    }
    if (driver && driver->is_protocol) { /* -blockdev driver=file */
        return co_open_protocol(filename ?: json_string_value(json_object_get(options, "filename")), options,
                                read_only, err);
    }
    file = co_open_file_child(req, options, filename, read_only, err);
    return file ? co_open_format(req, options, file, read_only, err) : NULL;
}

/* The options of a child that is more than a file: it has a driver of its own above its file.  Below a filter a format
 * may be guessed, but not when that filter is itself in the place of a format's file.  Borrowed, or NULL. */
static json_t *nested_child(json_t *options, bool below_format)
{
    const char *own = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = own ? driver_find(own) : NULL;
    json_t *child = own && (!driver || driver->is_protocol) ? NULL : json_object_get(options, open_child_key(options));
    const char *name = json_string_value(json_object_get(child, "driver"));
    const struct driver *below = name ? driver_find(name) : NULL;
    bool nested = name ? !below || !below->is_protocol : driver && driver->is_filter && !below_format;

    return json_is_object(child) && nested ? child : NULL;
}

/* Open the nodes of levels[0..n-1], one above the other, the innermost first. */
static struct node *co_open_levels(const struct open_request *req, json_t **levels, size_t n, const char *filename,
                                   struct error *err)
{
    AUTOFREE bool *read_only = mem_calloc(n, sizeof(*read_only));
    struct open_request inner = *req;
    struct node *node;

    for (size_t i = 0; i < n; i++) {
        read_only[i] = i ? read_only[i - 1] : req->backing;
        if (open_take_bool(levels[i], "read-only", &read_only[i], err) < 0) {
            return NULL;
        }
    }
    if (n > 1) {
        inner.format = NULL;
    }
    node = co_open_pair(&inner, levels[n - 1], filename, read_only[n - 1], err);
    for (size_t i = n - 1; node && i-- > 0;) {
        const struct driver *driver = driver_find(json_string_value(json_object_get(levels[i], "driver")) ?: "");

        if (open_may_stand_on(driver, node)) {
            node = co_open_format(req, levels[i], node, read_only[i], err);
        } else {
            error_set(err, "Node '%s' cannot be used as the file of an image", node->name);
            co_node_unref(node);
            node = NULL;
        }
    }
    return node;
}

/* One layer: its format, what filters stand above it, and its file; not yet what lies below. */
static struct node *co_open_layer(const struct open_request *req, struct error *err)
{
    const char *filename = req->filename;
    json_t *options = open_merge_json_name(&filename, req->options, err), *child;
    json_t **levels = mem_calloc(1, sizeof(*levels));
    struct node *node = NULL;
    bool below_format = false;
    size_t n = 1;

    levels[0] = options;
    if (options && open_expand_names(&filename, options, err) < 0) {
        json_decref(options);
        options = NULL;
    }
    while (options && (child = nested_child(levels[n - 1], below_format))) {
        const struct driver *above = driver_find(json_string_value(json_object_get(levels[n - 1], "driver")) ?: "");

        below_format = below_format || !above || above->is_format;
        levels = mem_reallocarray(levels, n + 1, sizeof(*levels));
        levels[n++] = child;
    }
    if (options) {
        node = co_open_levels(req, levels, n, filename, err);
    }
    free(levels);
    json_decref(options);
    return node;
}

/* --- Chains ---------------------------------------------------------------------------------------------------------- */

static json_t *backing_options(struct node *node, struct error *err)
{
    json_t *asked = json_object_get(node->options, "backing");
    json_t *options = json_is_object(asked) ? json_copy(asked) : json_object();
    json_t *cache = json_object_get(node->options, "cache");
    json_t *share = json_object_get(node->options, "force-share");

    if (cache && !json_object_get(options, "cache")) {
        json_object_set(options, "cache", cache);
    }
    if (share && !json_object_get(options, "force-share")) {
        json_object_set(options, "force-share", share);
    }
    return options;
}

/* Open what lies below `node`: *out = NULL when nothing does. */
static int co_open_below(struct node *top, struct node *node, struct node **out, bool *existed, struct error *err)
{
    json_t *asked = json_object_get(node->options, "backing");
    const char *ref = json_string_value(asked);
    AUTOFREE char *path = NULL;

    *out = NULL;
    *existed = false;
    if (json_is_null(asked) || (ref && !*ref) || (!node->driver->supports_backing)) {
        if (json_is_object(asked) || (ref && *ref)) {
            error_set(err, "Driver doesn't support backing files");
            return -ENOTSUP;
        }
        return 0;
    }
    if (ref) {
        struct node *below = disk_or_node(ref, err);
        if (!below) {
            return -ENOENT;
        }
        *out = node_ref(below);
        *existed = true;
        return 0;
    }
    if (!node->backing_name && !json_is_object(asked)) {
        return 0;
    }
    json_t *options = backing_options(node, err);
    json_t *file = json_object_get(options, "file"); /* a node's name; or an object, that need not say which file */
    bool named = file || json_object_get(options, "driver");
    if (node->backing_name && !json_is_string(file) && !json_object_get(file, "filename")) {
        path = path_combine(node->filename, node->backing_name);
    }
    struct open_request req = {
        .filename = path, .options = options, .backing = true, .parent = node, .top = top,
        .format = named && !path ? NULL : node->backing_format,
    };
    *out = co_open_layer(&req, err);
    json_decref(options);
    return *out ? 0 : -EINVAL;
}

/* The node of a layer that may have something below it: filters stand above it. */
static struct node *layer_format(struct node *node)
{
    while (node->driver->is_filter) {
        node = node->file;
    }
    return node;
}

/* A commit that was killed has left in the page cache what it had written below, and a guest sees it
 * where the overlay's own entries died with the process.  A flush of the overlay would promise it. */
static int co_settle_below(const struct node *image, struct error *err)
{
    struct io_file *file = image->backing ? node_host_file(image->backing) : NULL;
    int ret = file && !image->read_only && !image->no_flush ? co_io_flush(file) : 0;

    if (ret < 0 && ret != -EROFS && ret != -EINVAL) { /* what cannot be synced has nothing to sync */
        error_set_errno(err, ret, "Could not flush '%s'", image->backing->filename);
        return ret;
    }
    return 0;
}

/* The layers came from the top down; what a request has to pass is known from the bottom up. */
static int measure_chain(struct node *top, struct error *err)
{
    AUTOFREE struct node **path = NULL;
    size_t count = 0;

    for (struct node *n = top; n; n = n->driver->is_filter ? n->file : n->backing) {
        path = mem_reallocarray(path, count + 1, sizeof(struct node *));
        path[count++] = n;
    }
    while (count-- > 0) {
        node_measure_nesting(path[count]);
        if (node_check_nesting(path[count], err) < 0) {
            return -ELOOP;
        }
    }
    return 0;
}

static struct node *co_open_chain(const struct open_request *req, struct error *err)
{
    struct node *top = co_open_layer(req, err);
    struct node *below;
    unsigned depth = 0;

    for (struct node *node = top; node; node = below) {
        struct error why = ERROR_INIT;
        bool existed;
        int ret;

        node = layer_format(node);
        if (node->refs > 1) {
            break; /* a filter above a node that was there already, with its own chain */
        }
        ret = co_open_below(top, node, &below, &existed, &why);
        json_object_del(node->options, "backing");
        if (ret < 0) {
            for (unsigned i = ret == -ENOTSUP ? 1 : 0; i <= depth; i++) { /* then it is about the node itself */
                error_prepend(&why, "Could not open backing file: ");
            }
            error_move(err, &why);
            co_node_unref(top);
            return NULL;
        }
        node->backing = below;
        depth++;
        if (existed) {
            break; /* with its own chain */
        }
    }
    if (top && (permissions_of_new_image(top, err) < 0 || measure_chain(top, err) < 0 || co_settle_below(layer_format(top), err) < 0)) {
        co_node_unref(top);
        return NULL;
    }
    for (struct node *node = top; node && node->driver->is_filter; node = node->file) {
        if (node->driver->look_below && node->driver->look_below(node, err) < 0) {
            co_node_unref(top);
            return NULL;
        }
    }
    return top;
}

struct node *co_node_open(const char *filename, json_t *options, struct error *err)
{
    return co_open_chain(&(struct open_request){ .filename = filename, .options = options }, err);
}

struct node *co_node_open_idle(const char *filename, json_t *options, struct error *err)
{
    return co_open_chain(&(struct open_request){ .filename = filename, .options = options, .idle = true }, err);
}
