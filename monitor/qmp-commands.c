/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's table.  Rows list arguments in the order in which QEMU finds fault with them; the work is
 * that of the handlers which both monitors share.  What only QMP has is here: the session's own
 * commands, and the corners of block-stream.
 */
#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/loop.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "monitor/handlers.h"
#include "monitor/members.h"
#include "monitor/qmp.h"

/* --- The session ------------------------------------------------------------------------------ */

static int co_qmp_capabilities(struct monitor *mon, json_t *args, json_t **result,
                               struct error *err)
{
    return qmp_negotiate(mon, json_object_get(args, "enable"), err);
}

static void add_name(void *arg, const struct command *cmd)
{
    json_array_append_new(arg, json_pack("{s:s}", "name", cmd->name));
}

static int co_query_commands(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_array();
    command_each(qmp_command_tables, mon->compat, add_name, *result);
    return 0;
}

static int co_human_monitor_command(struct monitor *mon, json_t *args, json_t **result,
                                    struct error *err)
{
    if (member_int(args, "cpu-index") != 0) {
        error_set(err, "Parameter 'cpu-index' expects a CPU number");
        return -EINVAL;
    }
    *result = co_qmp_human(mon, member_text(args, "command-line"));
    return 0;
}

/* --- Jobs ------------------------------------------------------------------------------------- */

static int co_qmp_block_stream(struct monitor *mon, json_t *args, json_t **result,
                               struct error *err)
{
    const char *device = member_text(args, "device");
    struct node *node = disk_find(device) ? NULL : node_find(device);

    /* A job is called like its disk; an image in the middle of a chain has none, and then QEMU
     * finds the name wrong. */
    if (node && !disk_of_root(node) && !json_object_get(args, "job-id")) {
        json_object_set_new(args, "job-id", json_string(""));
    }
    return co_block_stream(mon, args, result, err);
}

/* QEMU's jobs obey at once when they can, so that the answer comes behind the events.  Ours obey in
 * the next turn of the loop; one that is in the midst of a request obeys later in both. */
#define OBEDIENCE_NS NS_PER_S
/* What is finalized is durable when the answer comes, as far as a host that is not stuck can do it. */
#define FINALIZED_NS (10 * NS_PER_S)

static bool has_ended(void *arg)
{
    struct job *job = job_find(arg);

    return !job || job_ended(job);
}

static bool is_paused(void *arg)
{
    struct job *job = job_find(arg);

    return !job || job_ended(job) || job->paused;
}

static bool is_not_paused(void *arg)
{
    struct job *job = job_find(arg);

    return !job || !job->paused;
}

static int co_obeyed(struct monitor *mon, int ret, bool (*done)(void *arg), const char *id)
{
    if (!ret) {
        co_monitor_wait(mon, done, (void *)id, loop_now() + OBEDIENCE_NS);
    }
    return ret;
}

static int co_finalized(struct monitor *mon, struct job *job, const char *id, struct error *err)
{
    int ret = job ? job_finalize(job, err) : -ENOENT;

    if (!ret) {
        co_monitor_wait(mon, has_ended, (void *)id, loop_now() + FINALIZED_NS);
    }
    return ret;
}

static int co_qmp_block_job_cancel(struct monitor *mon, json_t *args, json_t **result,
                                   struct error *err)
{
    return co_obeyed(mon, co_block_job_cancel(mon, args, result, err), has_ended,
                     member_text(args, "device"));
}

static int co_qmp_block_job_pause(struct monitor *mon, json_t *args, json_t **result,
                                  struct error *err)
{
    return co_obeyed(mon, co_block_job_pause(mon, args, result, err), is_paused,
                     member_text(args, "device"));
}

static int co_qmp_block_job_resume(struct monitor *mon, json_t *args, json_t **result,
                                   struct error *err)
{
    return co_obeyed(mon, co_block_job_resume(mon, args, result, err), is_not_paused,
                     member_text(args, "device"));
}

/* QEMU knows a job by two names of its commands: block-job-* with an error class of its own, and job-*. */
static struct job *find_block_job(const json_t *args, const char *key, struct error *err)
{
    const char *id = member_text(args, key);
    struct job *job = job_find(id);

    if (!job || job->kind->plain) {
        error_set_class(err, ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
        return NULL;
    }
    return job;
}

static struct job *find_job(const json_t *args, struct error *err)
{
    struct job *job = job_find(member_text(args, "id"));

    if (!job) {
        error_set(err, "Job not found");
    }
    return job;
}

int co_block_job_complete(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_block_job(args, "device", err);

    return job ? job_complete(job, err) : -ENOENT;
}

static int co_block_job_finalize(struct monitor *mon, json_t *args, json_t **result,
                                 struct error *err)
{
    struct job *job = find_block_job(args, "id", err);

    return co_finalized(mon, job, member_text(args, "id"), err);
}

static int co_block_job_dismiss(struct monitor *mon, json_t *args, json_t **result,
                                struct error *err)
{
    struct job *job = find_block_job(args, "id", err);

    return job ? job_dismiss(job, err) : -ENOENT;
}

static int co_query_jobs(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job;

    *result = json_array();
    TAILQ_FOREACH(job, &all_jobs, link) {
        json_array_append_new(*result, job_describe_short(job));
    }
    return 0;
}

static int co_job_pause(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return co_obeyed(mon, job ? job_pause(job, err) : -ENOENT, is_paused, member_text(args, "id"));
}

static int co_job_resume(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return co_obeyed(mon, job ? job_resume(job, err) : -ENOENT, is_not_paused, member_text(args, "id"));
}

static int co_job_cancel(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return co_obeyed(mon, job ? job_cancel(job, true, err) : -ENOENT, has_ended,
                     member_text(args, "id"));
}

static int co_job_complete(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_complete(job, err) : -ENOENT;
}

static int co_job_finalize(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return co_finalized(mon, job, member_text(args, "id"), err);
}

static int co_job_dismiss(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_dismiss(job, err) : -ENOENT;
}

/* --- Rows ------------------------------------------------------------------------------------- */

static const char *const on_error_choices[] = {
    "report", "ignore", "enospc", "stop", "auto", NULL,
};
static const char *const mode_choices[] = { "existing", "absolute-paths", NULL };

static const struct command session_rows[] = {
    { .name = "qmp_capabilities", .args = { { "enable", ARG_ANY, .optional = true } },
      .co_run = co_qmp_capabilities, .flags = COMMAND_PRECONFIG },
    { .name = "query-qmp-schema", .returns = "[any]", .co_run = co_query_qmp_schema },
    { .name = "query-chardev", .returns = "[any]", .co_run = co_query_chardev },
    { .name = "query-commands", .returns = "[any]", .co_run = co_query_commands },
    { .name = "query-version", .returns = "any", .co_run = co_query_version },
    { .name = "human-monitor-command",
      .args = { { "command-line", ARG_STRING }, { "cpu-index", ARG_INT, .optional = true } },
      .returns = "str",
      .co_run = co_human_monitor_command },
    { 0 },
};

static const struct command machine_rows[] = {
    { .name = "stop", .co_run = co_stop },
    { .name = "cont", .co_run = co_cont },
    { .name = "system_reset", .co_run = co_system_reset },
    { .name = "quit", .co_run = co_quit },
    { .name = "query-status", .returns = "any", .co_run = co_query_status },
    { .name = "query-name", .returns = "any", .co_run = co_query_name },
    { .name = "query-uuid", .returns = "any", .co_run = co_query_uuid },
    { .name = "query-guest", .returns = "any", .co_run = co_query_guest, .flags = COMMAND_OURS },
    { .name = "query-loop", .args = { { "reset", ARG_BOOL, .optional = true } }, .returns = "any",
      .co_run = co_query_loop, .flags = COMMAND_OURS },
    { .name = "query-counters", .returns = "any", .co_run = co_query_counters, .flags = COMMAND_OURS },
    { 0 },
};

static const struct command block_rows[] = {
    { .name = "query-block", .returns = "[any]", .co_run = co_query_block },
    { .name = "query-blockstats", .args = { { "query-nodes", ARG_BOOL, .optional = true } },
      .returns = "[any]", .co_run = co_query_blockstats },
    { .name = "query-named-block-nodes", .args = { { "flat", ARG_BOOL, .optional = true } },
      .returns = "[any]",
      .co_run = co_query_named_block_nodes },
    { .name = "query-chain", .args = { { "device", ARG_STRING, .optional = true } }, .returns = "[any]",
      .co_run = co_query_chain, .flags = COMMAND_OURS },
    { .name = "blockdev-snapshot-sync",
      .args = {
          { "device", ARG_STRING, .optional = true },
          { "node-name", ARG_STRING, .optional = true },
          { "snapshot-file", ARG_STRING },
          { "snapshot-node-name", ARG_STRING, .optional = true },
          { "format", ARG_STRING, .optional = true },
          { "mode", ARG_ENUM, .optional = true, .choices = mode_choices },
          { "overwrite", ARG_BOOL, .optional = true, .ours = true },
      },
      .co_run = co_blockdev_snapshot_sync },
    { 0 },
};

static const struct command job_rows[] = {
    { .name = "block-stream",
      .args = {
          { "job-id", ARG_STRING, .optional = true },
          { "device", ARG_STRING },
          { "base", ARG_STRING, .optional = true },
          { "base-node", ARG_STRING, .optional = true },
          { "backing-file", ARG_STRING, .optional = true },
          { "bottom", ARG_STRING, .optional = true },
          { "speed", ARG_INT, .optional = true },
          { "latency", ARG_INT, .optional = true, .ours = true },
          { "on-error", ARG_ENUM, .optional = true, .choices = on_error_choices },
          { "filter-node-name", ARG_STRING, .optional = true },
          { "auto-finalize", ARG_BOOL, .optional = true },
          { "auto-dismiss", ARG_BOOL, .optional = true },
      },
      .co_run = co_qmp_block_stream },
    { .name = "query-block-jobs", .returns = "[any]", .co_run = co_query_block_jobs },
    { .name = "block-job-set-speed", .args = { { "device", ARG_STRING }, { "speed", ARG_INT } },
      .co_run = co_block_job_set_speed },
    { .name = "job-set-latency", .args = { { "id", ARG_STRING }, { "latency", ARG_INT } },
      .co_run = co_job_set_latency, .flags = COMMAND_OURS },
    { .name = "block-job-cancel",
      .args = { { "device", ARG_STRING }, { "force", ARG_BOOL, .optional = true } },
      .co_run = co_qmp_block_job_cancel },
    { .name = "block-job-pause", .args = { { "device", ARG_STRING } },
      .co_run = co_qmp_block_job_pause },
    { .name = "block-job-resume", .args = { { "device", ARG_STRING } },
      .co_run = co_qmp_block_job_resume },
    { .name = "block-job-complete", .args = { { "device", ARG_STRING } },
      .co_run = co_block_job_complete },
    { .name = "block-job-finalize", .args = { { "id", ARG_STRING } },
      .co_run = co_block_job_finalize },
    { .name = "block-job-dismiss", .args = { { "id", ARG_STRING } },
      .co_run = co_block_job_dismiss },
    { .name = "query-jobs", .returns = "[any]", .co_run = co_query_jobs },
    { .name = "job-pause", .args = { { "id", ARG_STRING } }, .co_run = co_job_pause },
    { .name = "job-resume", .args = { { "id", ARG_STRING } }, .co_run = co_job_resume },
    { .name = "job-cancel", .args = { { "id", ARG_STRING } }, .co_run = co_job_cancel },
    { .name = "job-complete", .args = { { "id", ARG_STRING } }, .co_run = co_job_complete },
    { .name = "job-dismiss", .args = { { "id", ARG_STRING } }, .co_run = co_job_dismiss },
    { .name = "job-finalize", .args = { { "id", ARG_STRING } }, .co_run = co_job_finalize },
    { 0 },
};

const struct command *const qmp_command_tables[] = {
    session_rows,         machine_rows,        block_rows,          job_rows,
    blockdev_qmp_commands, throttle_qmp_commands, device_qmp_commands, object_qmp_commands, export_qmp_commands,
    NULL,
};
