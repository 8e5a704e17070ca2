/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-create: a new image, made by a job.
 *
 *   file     a host file of that size
 *   format   an empty image in a file node that is open already (or is opened for it)
 *
 * The work is the driver's co_create(), which takes a path: it opens the node's file a second time, and the node looks at
 * its size again afterwards.  The job holds the node meanwhile.  Something that is not all zeroes is not overwritten unless
 * that was asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/file.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "jobs/job.h"

#define HEAD_BYTES (64u << 10) /* of a file that is to be overwritten: where all formats have their magic numbers */

struct create {
    json_t *options;        /* own reference */
    bool overwrite;
    const struct driver *driver;
    struct node *file;      /* own reference; NULL: the image is the file */
    bool *begun;            /* the starter's; NULL when nobody waits */
};

/* What it was started for is under way: the starter may go on. */
static void tell_begun(struct job *job)
{
    struct create *c = job->state;

    if (c->begun) {
        *c->begun = true;
        c->begun = NULL;
        co_queue_wake_all(&job->done_queue);
    }
}

static const char *word(const struct create *c, const char *key)
{
    return json_string_value(json_object_get(c->options, key));
}

/* --- The node of the file ------------------------------------------------------------------------------------------- */

static const struct node *user_of_file(const struct node *file)
{
    struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->file == file) {
            return n;
        }
    }
    return NULL;
}

static int check_file(const struct node *file, struct error *err)
{
    const struct node *user = user_of_file(file);

    if (file->driver != &driver_file) {
        error_set(err, "Node '%s' cannot be used as the file of an image", file->name);
        return -EINVAL;
    }
    if (user) {
        error_set(err,
                  "Permission conflict on node '%s': permissions 'write, resize' are both required by an unnamed block "
                  "device (uses node '%s' as 'root' child) and unshared by node '%s' (uses node '%s' as 'file' child).",
                  file->name, file->name, user->name, file->name);
        return -EBUSY;
    }
    if (disk_of_root(file)) {
        error_set(err, "Node '%s' is in use", file->name);
        return -EBUSY;
    }
    if (file->read_only && file->want_read_only) {
        error_set(err, "Block node is read-only");
        return -EROFS;
    }
    return 0;
}

static int co_check_empty(struct node *file, struct error *err)
{
    size_t len = MIN(file->size, (uint64_t)HEAD_BYTES);
    AUTOFREE uint8_t *head = mem_alloc(len + 1);
    int ret = co_node_read_buf(file, 0, head, len);

    if (ret < 0) {
        error_set_errno(err, ret, "Could not read '%s'", file->filename);
    } else if (!bytes_are_zero(head, len)) {
        error_set(err, "'%s' is not empty, and making an image would destroy what is in it", file->filename);
        ret = -EEXIST;
    }
    return ret;
}

static int co_take_file(struct job *job, struct error *err)
{
    struct create *c = job->state;
    json_t *ref = json_object_get(c->options, "file");
    const char *name = json_string_value(ref);
    struct node *file = name ? node_find(name) : co_node_open(NULL, ref, err);
    int ret;

    if (!file) {
        if (name) {
            error_set(err, "Cannot find device='%s' nor node-name='%s'", name, name);
        }
        return -ENOENT;
    }
    c->file = name ? node_ref(file) : file;
    ret = check_file(file, err);
    if (ret == 0) {
        ret = job_hold(job, file, err);
    }
    return ret == 0 && !c->overwrite ? co_check_empty(file, err) : ret;
}

/* --- Options -------------------------------------------------------------------------------------------------------- */

/* co_create() knows them by the names that they have on command lines. */
static json_t *creation_options(const struct create *c)
{
    json_t *out = json_object(), *value;
    const char *key;

    json_object_foreach(c->options, key, value) {
        AUTOFREE char *plain = mem_strdup(key);

        for (char *p = plain; *p; p++) {
            *p = *p == '-' ? '_' : *p;
        }
        if (!strcmp(key, "version")) {
            json_object_set_new(out, "compat", json_string(strcmp(word(c, key), "v2") ? "1.1" : "0.10"));
        } else if (strcmp(key, "driver") && strcmp(key, "file") && strcmp(key, "filename")) {
            json_object_set(out, plain, value);
        }
    }
    return out;
}

/* Does it take no longer than a few writes? */
static bool is_quick(const struct create *c)
{
    const char *how = word(c, "preallocation");

    return !how || !strcmp(how, "off") || !strcmp(how, "metadata");
}

static int check_size(const struct create *c, struct error *err)
{
    json_int_t size = json_integer_value(json_object_get(c->options, "size"));

    if (c->driver->is_protocol && size < 0) {
        error_set_errno(err, EINVAL, "Could not resize file");
        return -EINVAL;
    }
    if (!c->driver->is_protocol && size % NODE_SECTOR) {
        error_set(err, "Image size must be a multiple of %u bytes", NODE_SECTOR);
        return -EINVAL;
    }
    return 0;
}

/* --- The job -------------------------------------------------------------------------------------------------------- */

static int co_make(struct job *job, struct error *err)
{
    struct create *c = job->state;
    const struct driver *maker = c->driver->is_protocol ? &driver_raw : c->driver;
    const char *path = c->file ? c->file->filename : word(c, "filename");
    json_t *options;
    int ret = check_size(c, err);

    if (!is_quick(c) || (ret < 0 && c->driver->is_protocol)) {
        tell_begun(job);
        co_yield();
    }
    if (ret < 0) {
        return ret;
    }
    options = creation_options(c);
    ret = maker->co_create(path, options, err);
    json_decref(options);
    if (ret == 0 && c->file) {
        ret = co_file_look_at_size(c->file);
        if (ret < 0) {
            error_set_errno(err, ret, "Could not look at the size of '%s'", path);
        }
    }
    return ret;
}

static int co_create_run(struct job *job, struct error *err)
{
    struct create *c = job->state;
    int ret = c->driver->is_protocol ? co_file_check_place(word(c, "filename"), c->overwrite, err)
                                     : co_take_file(job, err);

    if (ret == 0) {
        ret = co_make(job, err);
    }
    job_progress(job, job->len);
    if (ret == 0) {
        tell_begun(job);
        co_yield(); /* the answer comes before the events of a good end */
    }
    return ret;
}

static void co_create_clean(struct job *job)
{
    struct create *c = job->state;

    tell_begun(job);
    if (c->file) {
        co_node_unref(c->file);
    }
    json_decref(c->options);
    free(c);
    job->state = NULL;
}

static const struct job_kind create_kind = {
    .name = "create",
    .plain = true,
    .co_run = co_create_run,
    .co_clean = co_create_clean,
};

int co_create_start(const struct create_args *args, struct error *err)
{
    const struct driver *driver = driver_find(json_string_value(json_object_get(args->options, "driver")));
    struct job *job;
    struct create *c;
    bool begun = false;

    if (!driver->create_keys) {
        error_set(err, "Driver does not support blockdev-create");
        return -ENOTSUP;
    }
    job = job_new(args->job_id, &create_kind, JOB_ON_ERROR_REPORT, err);
    if (!job) {
        return -EINVAL;
    }
    c = mem_zalloc(sizeof(*c));
    *c = (struct create){ json_incref(args->options), args->overwrite, driver, NULL, &begun };
    job->state = c;
    job->len = 1;
    job->auto_dismiss = false;
    job_ref(job);
    job_start(job);
    while (!begun || (job->ret < 0 && !job_ended(job))) {
        co_queue_wait(&job->done_queue);
    }
    job_unref(job);
    return 0;
}
