/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening images: from a file name and options to a node with its whole backing chain.
 *
 * Options are QEMU's tree ("driver", "node-name", "file": {...}, "backing": {...}, ...).  Whatever is not consumed by
 * somebody is refused by name.  A chain is opened from the top down in a loop, so its depth costs no stack.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/disk.h"
#include "block/file.h"
#include "block/node.h"
#include "block/path.h"
#include "core/keyval.h"
#include "core/loop.h"
#include "core/mem.h"

#define NODE_NAME_MAX 31
#define PROBE_BYTES 2048

/* --- Options ------------------------------------------------------------------------------------------------ */

const char *node_option_str(struct node *node, const char *key)
{
    json_t *value = json_object_get(node->options, key);

    json_object_del(node->unused, key);
    return json_string_value(value);
}

bool node_option_bool(struct node *node, const char *key, bool fallback)
{
    json_t *value = json_object_get(node->options, key);
    const char *text = json_string_value(value);
    bool on = false;

    json_object_del(node->unused, key);
    if (text) {
        return keyval_switch(text, &on) == 0 && on;
    }
    return value ? json_is_true(value) : fallback;
}

/* A boolean that must be well-formed, "on" or "off" as people write it. */
static int take_bool(json_t *options, const char *key, bool *out, struct error *err)
{
    json_t *value = json_object_get(options, key);
    const char *text = json_string_value(value);

    if (!value) {
        return 0;
    }
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
    } else if (!text || keyval_switch(text, out) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        return -EINVAL;
    }
    return 0;
}

/* --- Names -------------------------------------------------------------------------------------------------- */

bool id_wellformed(const char *id)
{
    if (!isalpha((unsigned char)id[0])) {
        return false;
    }
    for (; *id; id++) {
        if (!isalnum((unsigned char)*id) && !strchr("-._", *id)) {
            return false;
        }
    }
    return true;
}

static int name_node(struct node *node, const char *wanted, struct error *err)
{
    static unsigned long counter;

    if (!wanted) {
        do {
            free(node->name);
            node->name = mem_printf("#block%lu%02u", counter++, (unsigned)loop_random_below(100));
        } while (node_find(node->name));
        return 0;
    }
    if (!id_wellformed(wanted)) {
        error_set(err, "Invalid node-name: '%s'", wanted);
        return -EINVAL;
    }
    if (disk_find(wanted)) {
        error_set(err, "node-name=%s is conflicting with a device id", wanted);
        return -EINVAL;
    }
    if (node_find(wanted)) {
        error_set(err, "Duplicate nodes with node-name='%s'", wanted);
        return -EINVAL;
    }
    if (strlen(wanted) > NODE_NAME_MAX) {
        error_set(err, "Node name too long");
        return -EINVAL;
    }
    node->name = mem_strdup(wanted);
    return 0;
}

/* --- One node -------------------------------------------------------------------------------------------------- */

static struct node *node_new(const struct driver *driver, json_t *options)
{
    struct node *node = mem_zalloc(sizeof(*node));

    node->driver = driver;
    node->refs = 1;
    node->options = options ? json_deep_copy(options) : json_object();
    node->unused = json_copy(node->options);
    LIST_INIT(&node->layer_of);
    LIST_INIT(&node->requests);
    co_queue_init(&node->drain_queue);
    co_queue_init(&node->idle_queue);
    return node;
}

static void co_node_discard_unopened(struct node *node)
{
    struct node *file = node->file;

    json_decref(node->options);
    json_decref(node->unused);
    free(node->name);
    free(node->filename);
    free(node->backing_name);
    free(node->backing_format);
    free(node);
    co_node_unref(file);
}

static int take_policies(struct node *node, struct error *err)
{
    const char *discard = node_option_str(node, "discard");
    const char *zeroes = node_option_str(node, "detect-zeroes");

    node->discard_unmap = false; /* as in QEMU, a guest's discard is a hint that is ignored unless asked for */
    if (discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"))) {
        node->discard_unmap = true;
    } else if (discard && strcmp(discard, "ignore") != 0 && strcmp(discard, "off") != 0) {
        error_set(err, "Invalid discard option");
        return -EINVAL;
    }
    if (zeroes && !strcmp(zeroes, "on")) {
        node->detect_zeroes = 1;
    } else if (zeroes && !strcmp(zeroes, "unmap")) {
        node->detect_zeroes = 2;
    } else if (zeroes && strcmp(zeroes, "off") != 0) {
        error_set(err, "Parameter 'detect-zeroes' does not accept value '%s'", zeroes);
        return -EINVAL;
    }
    return 0;
}

/* What every driver has.  `inherit` is the parent's options for what children take over. */
static int take_common(struct node *node, bool read_only, struct error *err)
{
    static const char *const generic[] = { "driver", "node-name", "file", "backing", "filename", "read-only",
                                           "auto-read-only", "force-share", "cache", "throttling-group" };
    json_t *cache = json_object_get(node->options, "cache");
    bool direct = false, no_flush = false, share = false;
    int ret = take_bool(node->options, "read-only", &read_only, err);

    if (ret == 0 && cache) {
        ret = take_bool(cache, "direct", &direct, err);
        if (ret == 0) {
            ret = take_bool(cache, "no-flush", &no_flush, err);
        }
    }
    if (ret == 0) {
        ret = take_bool(node->options, "force-share", &share, err);
    }
    if (ret == 0 && share && !read_only) {
        error_set(err, "force-share=on can only be used with read-only images");
        ret = -EINVAL;
    }
    if (ret == 0) {
        ret = take_policies(node, err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(generic); i++) {
        json_object_del(node->unused, generic[i]);
    }
    node->read_only = node->want_read_only = read_only;
    node->cache_direct = direct;
    node->no_flush = no_flush;
    return ret;
}

static int refuse_unused(struct node *node, struct error *err)
{
    const char *key = json_object_iter_key(json_object_iter(node->unused));

    if (!key) {
        return 0;
    }
    if (node->driver->is_protocol) {
        error_set(err, "Block protocol '%s' doesn't support the option '%s'", node->driver->name, key);
    } else {
        error_set(err, "Block format '%s' does not support the option '%s'", node->driver->name, key);
    }
    return -EINVAL;
}

/* Run the driver's open on a node that has a name and a file; takes the node over on success, frees it on failure. */
static struct node *co_finish_open(struct node *node, struct error *err)
{
    struct error why = ERROR_INIT;
    int ret = node->driver->co_open(node, &why);

    if (ret == 0) {
        ret = refuse_unused(node, &why);
        if (ret < 0) {
            node->driver->co_close(node);
        }
    }
    if (ret < 0) {
        if (!error_is_set(&why)) {
            error_set_errno(&why, ret, "Could not open '%s'", node->filename);
        }
        error_move(err, &why);
        co_node_discard_unopened(node);
        return NULL;
    }
    json_decref(node->unused);
    node->unused = NULL;
    TAILQ_INSERT_TAIL(&all_nodes, node, link);
    return node;
}

static struct node *co_open_protocol(const char *filename, json_t *options, bool read_only, struct error *err)
{
    const char *driver_name = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = driver_find(driver_name ? driver_name : "file");
    struct node *node;

    if (!driver || !driver->is_protocol) {
        error_set(err, "Unknown driver '%s'", driver_name ? driver_name : "file");
        return NULL;
    }
    node = node_new(driver, options);
    node->filename = mem_strdup(filename);
    if (filename) {
        json_object_set_new(node->options, "filename", json_string(filename));
    }
    if (take_common(node, read_only, err) < 0 ||
        name_node(node, json_string_value(json_object_get(options, "node-name")), err) < 0) {
        co_node_discard_unopened(node);
        return NULL;
    }
    json_object_set_new(node->options, "cache.direct", json_boolean(node->cache_direct));
    return co_finish_open(node, err);
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
    if (!best) {
        error_set(err, "Could not determine image format: No compatible driver found");
    }
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
};

/* The options of the file child: what the user said, and what is taken over from the node and from the overlay. */
static json_t *file_options(const struct open_request *req, json_t *options)
{
    json_t *asked = json_object_get(options, "file");
    json_t *file = json_is_object(asked) ? json_deep_copy(asked) : json_object();
    static const char *const down[] = { "cache", "force-share", "auto-read-only" };
    static const char *const along[] = { "aio", "locking" };

    for (size_t i = 0; i < ARRAY_SIZE(down); i++) {
        json_t *value = json_object_get(options, down[i]);
        if (value && !json_object_get(file, down[i])) {
            json_object_set(file, down[i], value);
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
        error_set(err, "A block device must be specified for \"file\"");
        return -EINVAL;
    }
    return 0;
}

/* The file child: a node by name, or opened from options. */
static struct node *co_open_file_child(const struct open_request *req, json_t *options, const char *filename,
                                       bool read_only, struct error *err)
{
    json_t *asked = json_object_get(options, "file");
    const char *ref = json_string_value(asked);
    struct node *file;

    if (ref) {
        file = node_find(ref);
        if (!file) {
            error_set(err, "Cannot find device='%s' nor node-name='%s'", ref, ref);
            return NULL;
        }
        if (!file->driver->is_protocol) {
            error_set(err, "Node '%s' cannot be used as the file of an image", ref);
            return NULL;
        }
        return node_ref(file);
    }
    json_t *child = file_options(req, options);
    const char *own = json_string_value(json_object_get(child, "filename"));
    if (!filename) {
        filename = own;
    }
    if (!filename) {
        error_set(err, json_object_get(options, "driver")
                           ? "A block device must be specified for \"file\""
                           : "Must specify either driver or file");
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

    for (struct node *n = req->top; n && mine; n = n->backing) {
        struct io_file *other = node_host_file(n);
        if (other && io_file_same(mine, other)) {
            error_set(err, "Backing file '%s' is already part of the chain: the chain is a loop", file->filename);
            return -ELOOP;
        }
    }
    return 0;
}

static struct node *co_open_format(const struct open_request *req, json_t *options, struct node *file,
                                   bool read_only, struct error *err)
{
    bool probed = false;
    const struct driver *driver = co_choose_format(req, options, file, &probed, err);
    struct node *node;
    enum file_user user;

    if (!driver) {
        co_node_unref(file);
        return NULL;
    }
    node = node_new(driver, options);
    node->file = file;
    node->filename = mem_strdup(file->filename);
    user = req->backing ? FILE_USER_BACKING : driver == &driver_raw ? FILE_USER_RAW : FILE_USER_FORMAT;
    if (check_loop(req, file, err) < 0 || take_common(node, read_only, err) < 0 ||
        name_node(node, json_string_value(json_object_get(options, "node-name")), err) < 0 ||
        (file->driver == &driver_file && file_lock(file, user, err) < 0)) {
        co_node_discard_unopened(node);
        return NULL;
    }
    if (probed && driver == &driver_raw && !node->read_only) {
        node->probed_raw = true;
        warn_probed_raw(node->filename);
    }
    return co_finish_open(node, err);
}

/* "json:{...}" as a file name carries options; those given beside it win. */
static json_t *merge_json_name(const char **filename, json_t *options, struct error *err)
{
    json_t *merged;
    json_error_t why;

    if (!*filename || strncmp(*filename, "json:", 5) != 0) {
        return options ? json_deep_copy(options) : json_object();
    }
    merged = json_loads(*filename + 5, 0, &why);
    if (!json_is_object(merged)) {
        error_set(err, "Could not parse the JSON options: %s", merged ? "Invalid JSON object given" : why.text);
        json_decref(merged);
        return NULL;
    }
    if (options) {
        json_object_update(merged, options);
    }
    if (json_object_get(merged, "filename") && !json_object_get(merged, "file")) {
        json_object_set_new(merged, "file",
                            json_pack("{s:O}", "filename", json_object_get(merged, "filename")));
        json_object_del(merged, "filename");
        if (!strcmp(json_string_value(json_object_get(merged, "driver")) ?: "", "file")) {
            json_object_del(merged, "driver"); /* a protocol named where a format stands: probe above it */
        }
    }
    *filename = NULL;
    return merged;
}

/* One layer: its file and its format, not yet what lies below. */
static struct node *co_open_layer(const struct open_request *req, struct error *err)
{
    const char *filename = req->filename;
    json_t *options = merge_json_name(&filename, req->options, err);
    bool read_only = req->backing;
    struct node *node = NULL, *file;

    if (!options) {
        return NULL;
    }
    const char *name = json_string_value(json_object_get(options, "driver"));
    const struct driver *driver = name ? driver_find(name) : NULL;
    if (name && !driver) {
        error_set(err, "Unknown driver '%s'", name);
    } else if (take_bool(options, "read-only", &read_only, err) == 0) {
        if (driver && driver->is_protocol) { /* -blockdev driver=file */
            node = co_open_protocol(filename ?: json_string_value(json_object_get(options, "filename")), options,
                                    read_only, err);
        } else {
            file = co_open_file_child(req, options, filename, read_only, err);
            node = file ? co_open_format(req, options, file, read_only, err) : NULL;
        }
    }
    json_decref(options);
    return node;
}

/* --- Chains ---------------------------------------------------------------------------------------------------------- */

static json_t *backing_options(struct node *node, struct error *err)
{
    json_t *asked = json_object_get(node->options, "backing");
    json_t *options = json_is_object(asked) ? json_deep_copy(asked) : json_object();
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
static int co_open_below(struct node *top, struct node *node, struct node **out, struct error *err)
{
    json_t *asked = json_object_get(node->options, "backing");
    const char *ref = json_string_value(asked);
    AUTOFREE char *path = NULL;

    *out = NULL;
    if (json_is_null(asked) || (ref && !*ref) || (!node->driver->supports_backing)) {
        if (json_is_object(asked)) {
            error_set(err, "Driver doesn't support backing files");
            return -EINVAL;
        }
        return 0;
    }
    if (ref) {
        struct node *below = node_find(ref);
        if (!below) {
            error_set(err, "Cannot find device='%s' nor node-name='%s'", ref, ref);
            return -ENOENT;
        }
        *out = node_ref(below);
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

struct node *co_node_open(const char *filename, json_t *options, struct error *err)
{
    struct open_request req = { .filename = filename, .options = options };
    struct node *top = co_open_layer(&req, err);
    struct node *below;
    unsigned depth = 0;

    for (struct node *node = top; node; node = below) {
        struct error why = ERROR_INIT;
        int ret = co_open_below(top, node, &below, &why);

        if (ret < 0) {
            for (unsigned i = 0; i <= depth; i++) {
                error_prepend(&why, "Could not open backing file: ");
            }
            error_move(err, &why);
            co_node_unref(top);
            return NULL;
        }
        node->backing = below;
        depth++;
        if (below && below->backing) {
            break; /* an existing node that brought its own chain */
        }
    }
    return top;
}
