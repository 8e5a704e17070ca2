/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about exports: nbd_server_start, nbd_server_add, nbd_server_remove, nbd_server_stop, QMP's of these names, and
 * block-export-add, block-export-del and query-block-exports.
 *
 * QEMU lets an export write only where no device claims the disk for itself; so do we, in the same words.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/mem.h"
#include "export/nbd-server.h"
#include "monitor/events.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

#define CLIENTS_MAX 100 /* unless max-connections says otherwise */

/* --- The server -------------------------------------------------------------------------------------------------------- */

/* A member of QMP's address, named in full in what is said about it.  NULL with err. */
static json_t *member(json_t *tree, const char *key, const char *shown, json_type type, struct error *err)
{
    json_t *value = json_object_get(tree, key);

    if (!value) {
        error_set(err, "Parameter '%s' is missing", shown);
    } else if (json_typeof(value) != type) {
        error_set(err, "Invalid parameter type for '%s', expected: %s", shown, type == JSON_OBJECT ? "object" : "string");
        value = NULL;
    }
    return value;
}

static const char *only_member(json_t *tree, const char *a, const char *b)
{
    const char *key;
    json_t *value;

    json_object_foreach(tree, key, value) {
        if (strcmp(key, a) && strcmp(key, b)) {
            return key;
        }
    }
    return NULL;
}

/* {"type": "unix", "data": {"path": ...}}: the path, NULL with err. */
static const char *address_path(json_t *addr, struct error *err)
{
    json_t *type, *data, *path = NULL;
    const char *more;

    if (json_typeof(addr) != JSON_OBJECT) {
        error_set(err, "Invalid parameter type for 'addr', expected: object");
        return NULL;
    }
    type = member(addr, "type", "addr.type", JSON_STRING, err);
    data = type ? member(addr, "data", "addr.data", JSON_OBJECT, err) : NULL;
    if (!data) {
        return NULL;
    }
    if (strcmp(json_string_value(type), "unix")) {
        error_set(err, "Parameter 'type' does not accept value '%s'", json_string_value(type));
        return NULL;
    }
    path = member(data, "path", "addr.data.path", JSON_STRING, err);
    more = only_member(data, "path", "path");
    if (path && more) {
        error_set(err, "Parameter 'addr.data.%s' is unexpected", more);
        return NULL;
    }
    more = only_member(addr, "type", "data");
    if (path && more) {
        error_set(err, "Parameter 'addr.%s' is unexpected", more);
        return NULL;
    }
    return json_string_value(path);
}

static int start(const char *path, unsigned max_clients, struct error *err)
{
    nbd_on_export_deleted(events_export_deleted);
    return nbd_server_start(path, max_clients, err);
}

static int co_qmp_nbd_server_start(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    json_t *max = json_object_get(args, "max-connections");
    const char *path = address_path(json_object_get(args, "addr"), err);
    const char *creds = member_text(args, "tls-creds");

    if (!path) {
        return -EINVAL;
    }
    if (max && (json_integer_value(max) < 0 || json_integer_value(max) > UINT32_MAX)) {
        error_set(err, "Parameter 'max-connections' expects uint32_t");
        return -EINVAL;
    }
    if (!nbd_server_running() && creds) {
        error_set(err, "No TLS credentials with id '%s'", creds);
        return -EINVAL;
    }
    return start(path, max ? json_integer_value(max) : CLIENTS_MAX, err);
}

static int co_nbd_server_stop_command(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return co_nbd_server_stop(err);
}

/* --- Exports ------------------------------------------------------------------------------------------------------------- */

/* A disk is followed, whether named by its id or by its root; any other node is taken as it is: the caller has seen that it is
 * there.  What cannot be written to is offered without when that is to be `downgrade`d. */
static int add(struct nbd_export_spec *spec, const char *device, bool downgrade, struct error *err)
{
    struct node *node = disk_or_node(device, err);

    assert(node);
    spec->disk = disk_find(device);
    spec->disk = spec->disk ? spec->disk : disk_of_root(node);
    spec->node = node;
    /* A layer may be writable at the moment, but for a job alone. */
    if (spec->writable && (spec->disk ? spec->disk->read_only : node->read_only || node->want_read_only)) {
        if (!downgrade) {
            error_set(err, "Cannot export read-only node as writable");
            return -EINVAL;
        }
        spec->writable = false;
    }
    if (spec->writable && spec->disk && spec->disk->qdev) {
        error_set(err, "Permission conflict on node '%s': permissions 'write' are both required by an unnamed block device "
                  "(uses node '%s' as 'root' child) and unshared by block device '%s' (uses node '%s' as 'root' child).",
                  node->name, node->name, spec->disk->id, node->name);
        error_hint(err, "A device writes to this disk. A drive with if=none can be exported for writing.");
        return -EPERM;
    }
    if (!nbd_server_running()) {
        error_set(err, "NBD server not running");
        return -EINVAL;
    }
    return nbd_export_add(spec, err);
}

static int co_nbd_server_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device"), *name = member_text(args, "name");
    const char *bitmap = member_text(args, "bitmap");
    struct nbd_export_spec spec = {
        .name = name ? name : device,
        .description = member_text(args, "description"),
        .writable = member_true(args, "writable"),
    };

    if (!disk_or_node(device, err)) {
        return -ENODEV;
    }
    if (!id_wellformed(spec.name)) {
        error_set(err, "Invalid block export id");
        return -EINVAL;
    }
    if (bitmap && nbd_server_running()) {
        error_set(err, "Bitmap '%s' is not found", bitmap);
        return -ENOENT;
    }
    return add(&spec, device, true, err);
}

static int co_nbd_server_remove(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *mode = member_text(args, "mode"), *name = member_text(args, "name");
    const char *id = name ? name : member_text(args, "id"); /* block-export-del has it */
    struct nbd_export *e = nbd_export_find(id);

    if (!e) {
        error_set(err, "Export '%s' is not found", id);
        return -ENOENT;
    }
    return co_nbd_export_remove(e, member_true(args, "force") || (mode && !strcmp(mode, "hard")), err);
}

static int co_block_export_add(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "id"), *node_name = member_text(args, "node-name");
    struct nbd_export_spec spec = {
        .id = id,
        .name = member_text(args, "name") ? member_text(args, "name") : node_name,
        .description = member_text(args, "description"),
        .writable = member_true(args, "writable"),
    };

    if (!id_wellformed(id)) {
        error_set(err, "Invalid block export id");
        return -EINVAL;
    }
    if (nbd_export_find(id)) {
        error_set(err, "Block export id '%s' is already in use", id);
        return -EEXIST;
    }
    if (!node_find(node_name)) {
        error_set(err, "Cannot find device='' nor node-name='%s'", node_name);
        return -ENODEV;
    }
    return add(&spec, node_name, false, err);
}

static int co_query_block_exports(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct nbd_export *e;

    *result = json_array();
    TAILQ_FOREACH(e, &nbd_exports, link) {
        const struct node *node = e->disk ? e->disk->root : e->node;

        json_array_append_new(*result, json_pack("{s:s, s:b, s:s, s:s}", "node-name", node ? node->name : "", "shutting-down",
                                                 e->closing, "type", "nbd", "id", e->id));
    }
    return 0;
}

/* --- The human monitor's ----------------------------------------------------------------------------------------------------- */

/* Either all disks are exported, or the server is not there. */
static int co_export_all(bool writable, struct error *err)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        struct nbd_export_spec spec = { .name = disk->id, .writable = writable };

        if (*disk->id && disk->root && add(&spec, disk->id, true, err) < 0) {
            co_nbd_server_stop(NULL);
            return -EINVAL;
        }
    }
    return 0;
}

static int co_hmp_nbd_server_start(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *uri = member_text(args, "uri");
    bool all = member_true(args, "all"), writable = member_true(args, "writable");
    int ret;

    if (writable && !all) {
        error_set(err, "-w only valid together with -a");
        return -EINVAL;
    }
    if (strncmp(uri, "unix:", 5)) {
        if (!strchr(uri, ':')) {
            error_set(err, "error parsing address '%s'", uri);
        } else {
            error_set(err, "'%s': NBD over TCP is not supported by merganser", uri);
        }
        error_hint(err, "Use unix:PATH");
        return -EINVAL;
    }
    AUTOFREE char *path = mem_strndup(uri + 5, strcspn(uri + 5, ",")); /* QEMU passes over options behind a comma */

    ret = start(path, CLIENTS_MAX, err);
    return ret || !all ? ret : co_export_all(writable, err);
}

/* --- Rows ------------------------------------------------------------------------------------------------------------------- */

static const char *const uri_words[] = { "unix:", NULL };

static void export_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    struct nbd_export *e;

    TAILQ_FOREACH(e, &nbd_exports, link) {
        offer(to, e->id);
    }
}

const struct command export_commands[] = {
    {
        .name = "nbd_server_start",
        .args = {
            { "all", ARG_FLAG, .letter = 'a', .doc = "export all disks under their names" },
            { "writable", ARG_FLAG, .letter = 'w', .doc = "and let clients write to them" },
            { "uri", ARG_STRING, .choices = uri_words, .doc = "unix:PATH: the socket, for its owner alone" },
        },
        .params = "nbd_server_start [-a] [-w] host:port",
        .help = "serve block devices on the given host and port",
        .group = "Exports",
        .example = "nbd_server_start unix:/tmp/nbd.sock",
        .co_run = co_hmp_nbd_server_start,
    },
    {
        .name = "nbd_server_add",
        .args = {
            { "writable", ARG_FLAG, .letter = 'w', .doc = "let clients write to it" },
            { "device", ARG_DEVICE_OR_NODE, .doc = "a disk or a node" },
            { "name", ARG_STRING, .optional = true, .doc = "what clients call it; its own name unless given" },
        },
        .params = "nbd_server_add [-w] device [name]",
        .help = "export a block device via NBD",
        .group = "Exports",
        .example = "nbd_server_add virtio0\nnbd_server_add node-D yesterday",
        .co_run = co_nbd_server_add,
    },
    {
        .name = "nbd_server_remove",
        .args = {
            { "force", ARG_FLAG, .letter = 'f', .doc = "cut clients off that use it" },
            { "name", ARG_STRING, .words = export_words, .doc = "the export" },
        },
        .params = "nbd_server_remove [-f] name",
        .help = "remove an export previously exposed via NBD",
        .group = "Exports",
        .example = "nbd_server_remove virtio0",
        .co_run = co_nbd_server_remove,
    },
    {
        .name = "nbd_server_stop",
        .params = "nbd_server_stop",
        .help = "stop serving block devices using the NBD protocol",
        .group = "Exports",
        .co_run = co_nbd_server_stop_command,
    },
    { 0 },
};

static const char *const mode_choices[] = { "safe", "hard", NULL };
static const struct block_key export_members[] = {
    { .name = "type", .kind = KEY_STRING, .required = true },
    { .name = "id", .kind = KEY_STRING, .required = true },
    { .name = "node-name", .kind = KEY_STRING, .required = true },
    { .name = "writable", .kind = KEY_BOOL },
    { 0 },
};
static const struct block_key nbd_members[] = {
    { .name = "name", .kind = KEY_STRING },
    { .name = "description", .kind = KEY_STRING },
    { 0 },
};
static const struct block_variant export_variants[] = { { "nbd", nbd_members }, { 0 } };
static const struct block_key export_tree = {
    .kind = KEY_OBJECT, .members = export_members, .tag = "type", .variants = export_variants,
};

const struct command export_qmp_commands[] = {
    { .name = "nbd-server-start",
      .args = {
          { "addr", ARG_ANY },
          { "tls-creds", ARG_STRING, .optional = true },
          { "tls-authz", ARG_STRING, .optional = true },
          { "max-connections", ARG_INT, .optional = true },
      },
      .co_run = co_qmp_nbd_server_start },
    { .name = "nbd-server-add",
      .args = {
          { "name", ARG_STRING, .optional = true },
          { "description", ARG_STRING, .optional = true },
          { "device", ARG_STRING },
          { "writable", ARG_BOOL, .optional = true },
          { "bitmap", ARG_STRING, .optional = true },
      },
      .co_run = co_nbd_server_add },
    { .name = "nbd-server-remove",
      .args = { { "name", ARG_STRING }, { "mode", ARG_ENUM, .optional = true, .choices = mode_choices } },
      .co_run = co_nbd_server_remove },
    { .name = "nbd-server-stop", .co_run = co_nbd_server_stop_command },
    { .name = "block-export-add", .whole = &export_tree, .co_run = co_block_export_add },
    { .name = "block-export-del",
      .args = { { "id", ARG_STRING }, { "mode", ARG_ENUM, .optional = true, .choices = mode_choices } },
      .co_run = co_nbd_server_remove },
    { .name = "query-block-exports", .returns = "[any]", .co_run = co_query_block_exports },
    { 0 },
};
