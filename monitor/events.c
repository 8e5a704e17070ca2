/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: see events.h.
 */
#include "monitor/events.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/device.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/members.h"
#include "monitor/qmp.h"

static void (*notice)(const char *text);

/* --- The table -------------------------------------------------------------------------------- */

static const char *const job_types[] = { "stream", "create", NULL };
static const char *const job_states[] = { "undefined", "created", "running",  "paused",    "ready", "standby",
                                          "waiting",   "pending", "aborting", "concluded", "null",  NULL };
static const char *const operations[] = { "read", "write", NULL };
static const char *const actions[] = { "ignore", "report", "stop", NULL };
static const char *const reasons[] = { "host-qmp-quit", "host-qmp-system-reset", "host-signal", NULL };

#define JOB_MEMBERS \
    { "type", ARG_ENUM, .choices = job_types }, { "device", ARG_STRING }, { "len", ARG_INT }, { "offset", ARG_INT }, \
        { "speed", ARG_INT }
#define WHY { "guest", ARG_BOOL }, { "reason", ARG_ENUM, .choices = reasons }

const struct event_row event_rows[] = {
    { .name = "SHUTDOWN", .data = { WHY } },
    { .name = "POWERDOWN" },
    { .name = "RESET", .data = { WHY } },
    { .name = "STOP" },
    { .name = "RESUME" },
    { .name = "BLOCK_IMAGE_CORRUPTED",
      .data = {
          { "device", ARG_STRING },
          { "node-name", ARG_STRING, .optional = true },
          { "msg", ARG_STRING },
          { "offset", ARG_INT, .optional = true },
          { "size", ARG_INT, .optional = true },
          { "fatal", ARG_BOOL },
      } },
    { .name = "BLOCK_IO_ERROR",
      .data = {
          { "device", ARG_STRING },
          { "node-name", ARG_STRING, .optional = true },
          { "operation", ARG_ENUM, .choices = operations },
          { "action", ARG_ENUM, .choices = actions },
          { "nospace", ARG_BOOL, .optional = true },
          { "reason", ARG_STRING },
      } },
    { .name = "BLOCK_JOB_COMPLETED", .data = { JOB_MEMBERS, { "error", ARG_STRING, .optional = true } } },
    { .name = "BLOCK_JOB_CANCELLED", .data = { JOB_MEMBERS } },
    { .name = "BLOCK_JOB_ERROR",
      .data = {
          { "device", ARG_STRING },
          { "operation", ARG_ENUM, .choices = operations },
          { "action", ARG_ENUM, .choices = actions },
      } },
    { .name = "BLOCK_JOB_READY", .data = { JOB_MEMBERS } },
    { .name = "BLOCK_JOB_PENDING", .data = { { "type", ARG_ENUM, .choices = job_types }, { "id", ARG_STRING } } },
    { .name = "JOB_STATUS_CHANGE", .data = { { "id", ARG_STRING }, { "status", ARG_ENUM, .choices = job_states } } },
    { .name = "DEVICE_TRAY_MOVED",
      .data = { { "device", ARG_STRING }, { "id", ARG_STRING }, { "tray-open", ARG_BOOL } } },
    { .name = "BLOCK_EXPORT_DELETED", .data = { { "id", ARG_STRING } } },
    { .name = "DEVICE_DELETED", .data = { { "device", ARG_STRING, .optional = true }, { "path", ARG_STRING } } },
    { 0 },
};

/* What the table does not know would be missing in the schema. */
static bool is_listed(const char *name, json_t *data)
{
    const struct event_row *row = event_rows;
    const char *key;
    json_t *value;

    while (row->name && strcmp(row->name, name)) {
        row++;
    }
    json_object_foreach(data, key, value) {
        const struct command_arg *member = row->data;

        while (member->name && strcmp(member->name, key)) {
            member++;
        }
        if (!member->name) {
            return false;
        }
    }
    return row->name;
}

/* Takes over `data`. */
static void send_event(const char *name, json_t *data)
{
    assert(is_listed(name, data));
    qmp_event(name, data);
}

void events_set_notice(void (*fn)(const char *text))
{
    notice = fn;
}

static void __attribute__((format(printf, 1, 2))) tell(const char *fmt, ...)
{
    AUTOFREE char *text = NULL;
    va_list ap;

    if (notice) {
        va_start(ap, fmt);
        text = mem_vprintf(fmt, ap);
        va_end(ap);
        notice(text);
    }
}

/* --- Jobs ------------------------------------------------------------------------------------- */

static json_t *job_tree(const struct job *job)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", job->kind->name, "device", job->id, "len",
                     (json_int_t)job->len, "offset", (json_int_t)job->offset, "speed",
                     (json_int_t)job->speed);
}

static void job_status_changed(struct job_listener *l, struct job *job)
{
    send_event("JOB_STATUS_CHANGE",
              json_pack("{s:s, s:s}", "id", job->id, "status", job_status_name(job->status)));
    if (job->status == JOB_PENDING && !job->auto_finalize && !job->kind->plain) {
        send_event("BLOCK_JOB_PENDING",
                  json_pack("{s:s, s:s}", "type", job->kind->name, "id", job->id));
        tell("Job '%s' waits to be finalized", job->id);
    }
}

static void tell_end(const struct job *job)
{
    const char *what = job->description;
    char size[32], time[32];

    if (job->cancelled) {
        tell("Job '%s' (%s) was cancelled", job->id, job->kind->name);
    } else if (job->ret < 0) {
        tell("Job '%s' (%s) failed: %s", job->id, job->kind->name,
             job->err.text ? job->err.text : strerror(-job->ret));
    } else {
        tell("Job '%s' (%s) is done: %s%s%s in %s", job->id, job->kind->name, what ? what : "",
             what ? ", " : "", size_format_plain(job->data_done, size),
             time_format(job->ended_ns - job->started_ns, time));
    }
}

static void job_completed(struct job_listener *l, struct job *job)
{
    json_t *data;

    tell_end(job);
    if (job->kind->plain) {
        return;
    }
    data = job_tree(job);
    if (job->ret < 0 && !job->cancelled) {
        member_set_text(data, "error", job->err.text ? job->err.text : strerror(-job->ret));
    }
    send_event(job->cancelled ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", data);
}

static void job_error(struct job_listener *l, struct job *job, bool is_read, const char *action)
{
    send_event("BLOCK_JOB_ERROR", json_pack("{s:s, s:s, s:s}", "device", job->id, "operation",
                                           is_read ? "read" : "write", "action", action));
    if (!strcmp(action, "stop")) {
        tell("Job '%s' (%s) is paused by an error: %s", job->id, job->kind->name, strerror(job->last_error));
    }
}

static void job_ready(struct job_listener *l, struct job *job)
{
    send_event("BLOCK_JOB_READY", job_tree(job));
    tell("Job '%s' (%s) is ready", job->id, job->kind->name);
}

static struct job_listener job_ears = {
    .status_changed = job_status_changed,
    .completed = job_completed,
    .error = job_error,
    .ready = job_ready,
};

/* --- Disks ------------------------------------------------------------------------------------ */

static void disk_io_error(struct disk *disk, struct node *node, bool is_read, const char *action,
                          int error)
{
    enum disk_policy policy = is_read ? disk->rerror : disk->werror;
    json_t *data = json_object();

    error = error < 0 ? -error : error;
    member_set_text(data, "device", disk->id);
    member_set_text(data, "node-name", node->name);
    member_set_text(data, "operation", is_read ? "read" : "write");
    member_set_text(data, "action", action);
    member_set_text(data, "reason", strerror(error));
    if (disk->rerror == DISK_STOP || disk->rerror == DISK_ENOSPC || disk->werror == DISK_STOP ||
        disk->werror == DISK_ENOSPC) {
        json_object_set_new(data, "nospace", json_boolean(error == ENOSPC));
    }
    send_event("BLOCK_IO_ERROR", data);
    if (!strcmp(action, "stop")) {
        tell("The machine is stopped: '%s' cannot %s: %s (%s=%s; `cont` tries again)", disk->label,
             is_read ? "read" : "write", strerror(error), is_read ? "rerror" : "werror",
             policy == DISK_STOP ? "stop" : "enospc");
        machine_stop_request(RUN_IO_ERROR);
    }
}

static void image_corrupted(struct node *node, const char *device, const char *msg, uint64_t offset,
                            uint64_t size, bool fatal)
{
    json_t *data = json_object();

    member_set_text(data, "device", device);
    member_set_text(data, "msg", msg);
    member_set_text(data, "node-name", node->name);
    if (offset != UINT64_MAX) { /* else it is about no place of the file */
        json_object_set_new(data, "offset", json_integer(offset));
        json_object_set_new(data, "size", json_integer(size));
    }
    json_object_set_new(data, "fatal", json_boolean(fatal));
    send_event("BLOCK_IMAGE_CORRUPTED", data);
    if (notice) {
        tell("Image '%s' is corrupt: %s", node->filename, msg);
    } else {
        fprintf(stderr, "%s: %s: %s; further %scorruption events will be suppressed\n",
                node->driver->name, fatal ? "Marking image as corrupt" : "Image is corrupt", msg,
                fatal ? "" : "non-fatal ");
    }
}

static const struct block_listener disk_ears = {
    .io_error = disk_io_error,
    .image_corrupted = image_corrupted,
};

/* --- The machine ------------------------------------------------------------------------------ */

static bool machine_ran;

static void machine_changed(struct machine_listener *l, enum run_state now)
{
    if (now == RUN_RUNNING) {
        send_event("RESUME", NULL);
    } else if (machine_ran && now != RUN_SHUTDOWN) {
        send_event("STOP", NULL);
    }
    machine_ran = now == RUN_RUNNING;
}

static void machine_was_reset(struct machine_listener *l)
{
    send_event("RESET", json_pack("{s:b, s:s}", "guest", 0, "reason", "host-qmp-system-reset"));
}

static struct machine_listener machine_ears = {
    .state_changed = machine_changed,
    .reset = machine_was_reset,
};

void events_shutdown(const char *reason)
{
    send_event("SHUTDOWN", json_pack("{s:b, s:s}", "guest", 0, "reason", reason));
}

void events_powerdown(void)
{
    send_event("POWERDOWN", NULL);
}

void events_tray_moved(const struct disk *disk)
{
    send_event("DEVICE_TRAY_MOVED",
               json_pack("{s:s, s:s, s:b}", "device", disk->id, "id", disk->qdev, "tray-open", disk->tray_open));
}

void events_export_deleted(const char *id)
{
    send_event("BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", id));
}

static void device_deleted(const char *id, const char *path)
{
    AUTOFREE char *backend = mem_printf("%s/virtio-backend", path);
    json_t *data = json_object();

    send_event("DEVICE_DELETED", json_pack("{s:s}", "path", backend));
    if (id) {
        member_set_text(data, "device", id);
    }
    member_set_text(data, "path", path);
    send_event("DEVICE_DELETED", data);
    tell("Device '%s' is gone", id ? id : path);
}

void events_init(void)
{
    machine_ran = machine_running();
    job_listen(&job_ears);
    machine_listen(&machine_ears);
    block_set_listener(&disk_ears);
    device_set_listener(device_deleted);
}

void events_fini(void)
{
    device_set_listener(NULL);
    block_set_listener(NULL);
    machine_unlisten(&machine_ears);
    job_unlisten(&job_ears);
}
