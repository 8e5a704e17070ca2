/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands that start, steer and show block jobs.  The work and the refusals are the jobs' own.
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "core/size.h"
#include "jobs/job.h"
#include "monitor/chain-names.h"
#include "monitor/handlers.h"
#include "monitor/job-view.h"
#include "monitor/members.h"

#define CANCEL_PATIENCE (2 * NS_PER_S)

static bool bool_arg(const json_t *args, const char *key, bool fallback)
{
    const json_t *value = json_object_get(args, key);

    return value ? value == json_true() : fallback;
}

/* --- block_stream -------------------------------------------------------------------------------------------------- */

static enum job_on_error on_error_arg(const json_t *args)
{
    const char *text = member_text(args, "on-error");

    if (!text || !strcmp(text, "report")) {
        return JOB_ON_ERROR_REPORT;
    }
    return !strcmp(text, "ignore") ? JOB_ON_ERROR_IGNORE :
           !strcmp(text, "stop")   ? JOB_ON_ERROR_STOP :
                                     JOB_ON_ERROR_ENOSPC;
}

int co_block_stream(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const json_t *speed = json_object_get(args, "speed");
    struct stream_args stream = {
        .device = member_text(args, "device"),
        .job_id = member_text(args, "job-id"),
        .base = member_text(args, "base"),
        .base_node = member_text(args, "base-node"),
        .bottom = member_text(args, "bottom"),
        .backing_file = member_text(args, "backing-file"),
        .filter_name = member_text(args, "filter-node-name"),
        .has_speed = speed,
        .speed = json_integer_value(speed),
        .latency = member_int(args, "latency"),
        .on_error = on_error_arg(args),
        .auto_finalize = bool_arg(args, "auto-finalize", true),
        .auto_dismiss = bool_arg(args, "auto-dismiss", true),
    };

    return co_stream_start(&stream, err);
}

/* HMP: the job is called as the device was.  The base may be any name of an image; once it is known, its node-name says it
 * best. */
static int co_hmp_block_stream(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *device = member_text(args, "device"), *base = member_text(args, "base");
    struct disk *disk = disk_find(device);
    struct node *top = disk ? disk->root : node_find(device), *found;

    json_object_set_new(args, "job-id", json_string(device));
    if (base && top && !mon->compat) {
        found = chain_find_below(top, base, err);
        if (error_is_set(err)) {
            return -EINVAL;
        }
        if (found) {
            json_object_set_new(args, "base-node", json_string(found->name));
            json_object_del(args, "base");
        }
    }
    return co_block_stream(mon, args, result, err);
}

/* --- block_job_* ------------------------------------------------------------------------------------------------------ */

static struct job *find_job(const json_t *args, struct error *err)
{
    const char *id = member_text(args, "device");
    struct job *job = job_find(id);

    if (!job || job->kind->plain) {
        error_set_class(err, ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
        return NULL;
    }
    return job;
}

int co_block_job_set_speed(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_set_speed(job, member_int(args, "speed"), err) : -ENOENT;
}

int co_job_set_latency(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "id");
    struct job *job = job_find(id);

    if (!job) {
        error_set_class(err, ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
        return -ENOENT;
    }
    return job_set_latency(job, member_int(args, "latency"), err);
}

int co_block_job_cancel(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_cancel(job, bool_arg(args, "force", false), err) : -ENOENT;
}

static bool is_over(void *arg)
{
    struct job *job = job_find(arg);

    return !job || job_ended(job);
}

/* HMP: the job ends a moment later.  Give it that moment, so that the next line of a script finds it ended. */
static int co_hmp_block_job_cancel(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    int ret = co_block_job_cancel(mon, args, result, err);

    if (!ret) {
        co_monitor_wait(mon, is_over, (void *)member_text(args, "device"), loop_now() + CANCEL_PATIENCE);
    }
    return ret;
}

int co_block_job_pause(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_pause(job, err) : -ENOENT;
}

int co_block_job_resume(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job = find_job(args, err);

    return job ? job_resume(job, err) : -ENOENT;
}

/* --- info block-jobs ------------------------------------------------------------------------------------------------- */

/* The newest first, as QEMU has it. */
int co_query_block_jobs(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    struct job *job;

    *result = json_array();
    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!job->kind->plain) {
            json_array_append_new(*result, job_describe(job));
        }
    }
    return 0;
}

/* What has to happen before the job ends; NULL: nothing but time. */
static const char *finisher(const struct job *job)
{
    switch (job->status) {
    case JOB_PAUSED:
    case JOB_STANDBY:
        return job->io_status == JOB_IO_OK ? "block_job_resume lets it go on"
                                           : "block_job_resume tries again, block_job_cancel gives up";
    case JOB_READY:
        return "block_job_complete ends it, block_job_cancel leaves it undone";
    case JOB_PENDING:
        return job->auto_finalize ? NULL : "job-finalize (QMP) puts the result in its place, block_job_cancel drops it";
    case JOB_CONCLUDED:
        return "job-dismiss (QMP) forgets it";
    default:
        return NULL;
    }
}

static const char *state_words(const struct job *job)
{
    if (job->status == JOB_RUNNING && job->pause_count) {
        return "about to pause"; /* with what is in flight it has to end first */
    }
    if (job->status == JOB_CONCLUDED && job->cancelled) {
        return "cancelled";
    }
    return job->counting && job->status == JOB_RUNNING ? "counting what there is to copy" : job_status_name(job->status);
}

/* What -v adds, under names that QMP does not use; job-view.c shows it. */
static void describe_more(json_t *tree, const struct job *job)
{
    uint64_t now = loop_now(), total = job_data_total(job);
    uint64_t rate = progress_rate(&job->progress, now, job->data_done);
    uint64_t left = progress_time_left(&job->progress, now, job->data_done);

    if (job->speed && rate > job->speed) { /* what was in flight when the limit came is not what comes */
        rate = job->speed;
        left = (__uint128_t)(total - MIN(total, job->data_done)) * NS_PER_S / rate;
    }

    json_object_set_new(tree, "x-elapsed-ns", json_integer((job->ended_ns ? job->ended_ns : now) - job->started_ns));
    json_object_set_new(tree, "x-state", json_string(state_words(job)));
    json_object_set_new(tree, "x-data-done", json_integer(job->data_done));
    json_object_set_new(tree, "x-data-total", json_integer(total));
    json_object_set_new(tree, "x-data-counted", json_boolean(!job->counting && job->progress.size));
    if (job->status == JOB_RUNNING && !job->counting) {
        json_object_set_new(tree, "x-rate", json_integer(rate));
        if (left != UINT64_MAX) {
            json_object_set_new(tree, "x-left-ns", json_integer(left));
        }
    }
    if (job->latency.target_ns) {
        json_object_set_new(tree, "x-latency-ns", json_integer(job->latency.target_ns));
        if (job->latency.pace < (job->speed ? job->speed : LATENCY_PACE_FREE)) {
            json_object_set_new(tree, "x-pace", json_integer(job->latency.pace));
        }
    }
    json_object_set_new(tree, "x-guest-p99-ns", json_integer(job_guest_p99(job)));
    if (job->ret < 0 && !job->cancelled && job->err.text) {
        member_set_text(tree, "x-error", job->err.text);
    } else if (job->io_status != JOB_IO_OK && job->pause_count) {
        member_set_text(tree, "x-error", strerror(job->last_error));
    }
    if (finisher(job)) {
        json_object_set_new(tree, "x-ends-by", json_string(finisher(job)));
    }
    if (job->description && *job->description) {
        json_object_set_new(tree, "x-what", json_string(job->description));
    }
}

static int co_info_block_jobs(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    size_t i;
    json_t *tree;

    co_query_block_jobs(mon, args, result, err);
    if (bool_arg(args, "verbose", false)) {
        json_array_foreach(*result, i, tree) {
            struct job *job = job_find(member_text(tree, "device"));

            if (job) {
                describe_more(tree, job);
            }
        }
    }
    return 0;
}

/* --- Rows --------------------------------------------------------------------------------------------------------------- */

#define MIB (1ull << 20)
#define JOB_ARG { "device", ARG_JOB, .doc = "the job's name: the disk's, unless it was given another" }

const struct command job_commands[] = {
    {
        .name = "block_stream",
        .args = {
            { "latency", ARG_TIME, .letter = 'l', .ours = true, .optional = true,
              .doc = "hold back while the guest's p99 is above this time (2ms, 500us)" },
            { "device", ARG_DEVICE_OR_NODE, .doc = "a disk, or the node of an image in the middle of a chain" },
            { "speed", ARG_SIZE, .optional = true, .unit = MIB,
              .doc = "bytes per second (64k, 1M; MiB without a suffix), 0 for no limit" },
            { "base", ARG_BASE, .optional = true,
              .doc = "the image that stays below: its file name, node-name, or base name; it may stand in the place of"
                     " the speed" },
        },
        .params = "device [speed [base]]",
        .help = "copy data from a backing file into a block device",
        .group = "Jobs",
        .example = "block_stream virtio0\nblock_stream virtio0 file-A.img\nblock_stream node-D 1M file-B.img\n"
                   "block_stream -l 2ms virtio0",
        .co_run = co_hmp_block_stream,
    },
    {
        .name = "block_job_set_speed",
        .args = {
            JOB_ARG,
            { "speed", ARG_SIZE, .unit = MIB, .doc = "bytes per second (64k, 1M; MiB without a suffix), 0 for no limit" },
        },
        .params = "device speed",
        .help = "set maximum speed for a background block operation",
        .group = "Jobs",
        .example = "block_job_set_speed virtio0 10M",
        .co_run = co_block_job_set_speed,
    },
    {
        .name = "block_job_set_latency",
        .args = {
            { "id", ARG_JOB, .doc = "the job's name: the disk's, unless it was given another" },
            { "latency", ARG_TIME, .doc = "the time (2ms, 500us) that the guest's p99 is to stay below, 0 for no target" },
        },
        .params = "device latency",
        .help = "set the guest's latency for which a background block operation holds back",
        .group = "Jobs",
        .example = "block_job_set_latency virtio0 2ms",
        .co_run = co_job_set_latency,
        .flags = COMMAND_OURS,
    },
    {
        .name = "block_job_cancel",
        .args = {
            { "force", ARG_FLAG, .letter = 'f', .doc = "also when it is paused; end at once" },
            JOB_ARG,
        },
        .params = "[-f] device",
        .help = "stop an active background block operation (use -f\n"
                "\t\t\t if you want to abort the operation immediately\n"
                "\t\t\t instead of keep running until data is in sync)",
        .group = "Jobs",
        .example = "block_job_cancel virtio0",
        .co_run = co_hmp_block_job_cancel,
    },
    {
        .name = "block_job_complete",
        .args = { JOB_ARG },
        .params = "device",
        .help = "stop an active background block operation",
        .group = "Jobs",
        .example = "block_job_complete virtio0",
        .co_run = co_block_job_complete,
    },
    {
        .name = "block_job_pause",
        .args = { JOB_ARG },
        .params = "device",
        .help = "pause an active background block operation",
        .group = "Jobs",
        .example = "block_job_pause virtio0",
        .co_run = co_block_job_pause,
    },
    {
        .name = "block_job_resume",
        .args = { JOB_ARG },
        .params = "device",
        .help = "resume a paused background block operation",
        .group = "Jobs",
        .example = "block_job_resume virtio0",
        .co_run = co_block_job_resume,
    },
    { 0 },
};

const struct command job_topics[] = {
    {
        .name = "block-jobs",
        .args = {
            { "verbose", ARG_FLAG, .letter = 'v', .ours = true, .doc = "also what is done and to do, how fast, how long, what would end it" },
        },
        .params = "",
        .help = "show progress of ongoing block device operations",
        .group = "Jobs",
        .example = "info block-jobs -v",
        .co_run = co_info_block_jobs,
        .print = job_view_print,
    },
    { 0 },
};
