/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block_stream: bring the content between a target image and a base into the target, then drop what lay between.
 *
 *     before   [A] <- [B] <- [C] <- [D] <- [E]        block_stream D, base B
 *     copy     D gets what C holds and D has not       (guests write E meanwhile, or D itself when it is the top)
 *     after    [A] <- [B] <- [D] <- [E]
 *
 * Order, for a kill at any moment: (1) data, counts and tables of the target durable; (2) the new backing name into unused
 * header space, flush; (3) offset and length in one sector, flush: both are the driver's co_set_backing(); (4) drain, the
 * edge in memory, go on; (5) the event.  Before (3) the old pointer gives the same content as the new one after it, because what
 * was copied equals what shows through.  The guest is held only in (4), which does no I/O on the disk.
 *
 * Only the target is ever written.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/copier-count.h"
#include "block/filter.h"
#include "block/path.h"
#include "core/mem.h"
#include "jobs/job.h"

/* At the same time: what keeps the workers busy, of large windows and of small ones. */
#define IN_FLIGHT_BYTES (8 * COPIER_WINDOW_MAX)
#define IN_FLIGHT_MAX 32
#define COUNT_NS (50 * NS_PER_MS) /* what guests changed ahead is counted again this often, */
#define COUNT_PIECES 16           /* and not more of it at once */

struct window {
    TAILQ_ENTRY(window) link;
    struct job *job;
    uint64_t offset, len;
    int ret;
    bool done;
};

struct stream {
    struct node *target;  /* held by the job */
    struct node *base;    /* own reference; NULL: the whole chain is merged */
    char *backing_name;   /* to record; NULL: none */
    char *backing_format;
    struct copier copier;
    TAILQ_HEAD(, window) windows; /* in flight, by offset */
    unsigned in_flight;
    uint64_t in_flight_bytes;
    bool failed;                  /* a window, not judged yet: none is started behind it */
    struct co_queue ended;        /* a window has ended */
    uint64_t counted_ns;          /* when that was done last */
    bool made_writable;
};

/* --- Copying ---------------------------------------------------------------------------------------------------- */

/* How far it is: the start of the earliest window that is not in the target. */
static void tell_progress(struct job *job)
{
    const struct stream *s = job->state;
    const struct window *w = TAILQ_FIRST(&s->windows);

    while (w && w->done && w->ret == 0) {
        w = TAILQ_NEXT(w, link);
    }
    job_progress(job, w ? w->offset : s->copier.offset);
    job_data_done(job, s->copier.copied);
}

/* Fill one window; a `stop` policy tries it again after the operator resumed the job. */
static CO_ENTRY void co_stream_window(void *arg)
{
    struct window *w = arg;
    struct stream *s = w->job->state;
    uint64_t started = loop_now();

    w->ret = co_copier_fill(&s->copier, w->offset, w->len);
    s->failed |= w->ret < 0;
    if (job_pace(w->job)) { /* alone, so the time is its own */
        latency_control_served(&w->job->latency, w->len, loop_now() - started);
    }
    w->done = true;
    s->in_flight--;
    s->in_flight_bytes -= w->len;
    if (!w->job->paused) { /* what is told of a job that stands still does so, too */
        tell_progress(w->job); /* one with a speed limit looks for its windows later */
    }
    co_queue_wake_all(&s->ended);
}

static void reap(struct job *job, int *error)
{
    struct stream *s = job->state;
    struct window *w;

    while ((w = TAILQ_FIRST(&s->windows)) && w->done) {
        if (w->ret < 0 && *error == 0) {
            *error = w->ret;
        }
        TAILQ_REMOVE(&s->windows, w, link);
        free(w);
    }
    tell_progress(job);
}

/* Nothing in flight any more, and every window judged: what failed together is one error. */
static void co_settle(struct job *job, int *error)
{
    struct stream *s = job->state;

    while (s->in_flight > 0) {
        co_queue_wait(&s->ended);
    }
    reap(job, error);
    s->failed = false;
}

static void start_window(struct job *job, uint64_t offset, uint64_t len)
{
    struct stream *s = job->state;
    struct window *w = mem_zalloc(sizeof(*w));

    *w = (struct window){ .job = job, .offset = offset, .len = len };
    TAILQ_INSERT_TAIL(&s->windows, w, link);
    s->in_flight++;
    s->in_flight_bytes += len;
    co_start(co_stream_window, w);
}

/* An error of a window: what now?  True: go on. */
static bool co_judge(struct job *job, int error, uint64_t again_from, int *first_error)
{
    struct stream *s = job->state;

    job_progress(job, again_from);
    switch (co_job_error(job, true, error)) {
    case JOB_ACTION_STOP:
        s->copier.offset = again_from;
        chain_map_forget_layer(s->target); /* or what is there behind it would be brought in again */
        return !job_is_cancelled(job);
    case JOB_ACTION_IGNORE: /* go on with the rest, but the job has failed: nothing may be dropped */
        *first_error = *first_error ? *first_error : error;
        co_yield();
        return true;
    default:
        *first_error = *first_error ? *first_error : error;
        return false;
    }
}

/* --- How much there is to copy ------------------------------------------------------------------------------------- */

static void plan_data(void *arg, uint64_t offset, uint64_t bytes)
{
    progress_plan(arg, offset, bytes);
}

static void co_count_range(struct job *job, uint64_t from, uint64_t to)
{
    struct stream *s = job->state;
    struct copier_count cc;

    copier_count_begin(&cc, &s->copier, from, to, plan_data, &job->progress);
    while (!job_is_cancelled(job) && co_copier_count_go_on(&cc)) {
        co_yield();
        co_job_pause_point(job, 0);
    }
    copier_count_end(&cc);
}

static void note_change(void *arg, uint64_t offset, uint64_t len)
{
    struct job *job = arg;
    struct stream *s = job->state;

    progress_touch(&job->progress, offset, len, s->copier.offset);
}

static void co_count_all(struct job *job)
{
    struct stream *s = job->state;

    progress_init(&job->progress, s->target->size);
    chain_map_watch(s->copier.map, note_change, job);
    job->counting = true;
    co_count_range(job, 0, s->target->size);
    job->counting = false;
    progress_restart(&job->progress, loop_now(), 0);
}

/* A guest wrote ahead of us: not every time, a guest writes all the time. */
static void co_count_stale(struct job *job)
{
    struct stream *s = job->state;
    uint64_t offset, len;

    if (!job->progress.n_stale || loop_now() - s->counted_ns < COUNT_NS) {
        return;
    }
    s->counted_ns = loop_now();
    for (unsigned i = 0; i < COUNT_PIECES && progress_take_stale(&job->progress, s->copier.offset, &offset, &len); i++) {
        co_count_range(job, offset, offset + len);
    }
}

/* --- The loop over windows ------------------------------------------------------------------------------------------- */

static bool is_busy(const struct job *job)
{
    const struct stream *s = job->state;

    return job_pace(job) ? s->in_flight >= 1
                         : s->in_flight >= IN_FLIGHT_MAX || s->in_flight_bytes >= IN_FLIGHT_BYTES;
}

/* Start the next window, or wait for what is in flight; false: everything has been copied.  *len: of the window, or 0. */
static bool co_next_window(struct job *job, uint64_t *len)
{
    struct stream *s = job->state;
    uint64_t offset;

    if (s->copier.offset < s->target->size) {
        co_copier_next(&s->copier, job_slice(job, COPIER_WINDOW_MAX), &offset, len);
        if (*len > 0) {
            start_window(job, offset, *len);
        } else if (s->copier.offset < s->target->size) {
            co_yield();
        }
    } else if (s->in_flight > 0) {
        co_queue_wait(&s->ended);
    } else {
        return !TAILQ_EMPTY(&s->windows); /* the last ones may have ended while we counted */
    }
    return true;
}

static int co_stream_copy(struct job *job)
{
    struct stream *s = job->state;
    int failed = 0;

    while (!job_is_cancelled(job)) {
        uint64_t len = 0;

        while (is_busy(job)) {
            co_queue_wait(&s->ended);
        }
        if (s->failed) {
            uint64_t from = TAILQ_FIRST(&s->windows)->offset; /* what failed is still there, all before is in the target */
            int error = 0;

            co_settle(job, &error);
            if (!co_judge(job, error, from, &failed)) {
                break;
            }
        } else {
            reap(job, &failed);
            co_count_stale(job);
            if (!co_next_window(job, &len)) {
                break;
            }
        }
        co_job_pause_point(job, len);
    }
    co_settle(job, &failed);
    return failed;
}

/* There is nothing to do, but "completed" promises that the chain stays like this.  A process that died may have
 * written the pointer that we see, and not flushed it. */
static int co_settle_former(struct node *target)
{
    struct io_file *file = node_host_file(target);
    int ret = co_node_flush(target);

    return ret == 0 && target->read_only && file ? co_io_flush(file) : ret;
}

/* Guests go on reading at the source what has been copied, until it leaves the chain: there it is in the page cache, and
 * waits for nobody's writes. */
static int co_stream_move(struct job *job)
{
    struct stream *s = job->state;
    const struct driver *driver = s->target->driver;
    int ret;

    s->target->read_at_source = true;
    if (driver->co_expect && job->progress.total > 0) {
        driver->co_expect(s->target, job->progress.total);
    }
    ret = co_stream_copy(job);
    if (driver->co_expect) {
        driver->co_expect(s->target, 0);
    }
    return ret;
}

static int co_stream_run(struct job *job, struct error *err)
{
    struct stream *s = job->state;
    int ret;

    if (s->target->backing == s->base) { /* nothing lies between */
        return co_settle_former(s->target);
    }
    job->len = s->target->size;
    co_count_all(job);
    ret = co_stream_move(job);
    chain_map_watch(s->copier.map, NULL, NULL);
    if (ret == 0 && !job_is_cancelled(job)) {
        job->offset = job->len;
    }
    return ret;
}

/* --- The pivot ----------------------------------------------------------------------------------------------------- */

static int co_stream_prepare(struct job *job, struct error *err)
{
    struct stream *s = job->state;
    struct node *target = s->target;
    struct node_drain *drain;
    int ret;

    if (target->backing == s->base) {
        return 0;
    }
    ret = target->driver->co_set_backing(target, s->backing_name, s->backing_format, err);
    if (ret < 0) {
        return ret;
    }
    free(target->backing_name);
    free(target->backing_format);
    target->backing_name = mem_strdup(s->backing_name);
    target->backing_format = mem_strdup(s->backing_format);
    drain = co_node_drain_begin(target);
    target->backing_frozen--;
    co_node_set_backing_edge(target, s->base);
    target->backing_frozen++;
    co_node_drain_end(drain);
    return 0;
}

static void co_stream_clean(struct job *job)
{
    struct stream *s = job->state;

    s->target->backing_frozen--;
    s->target->read_at_source = false;
    if (s->target->backing != s->base) {
        chain_map_forget_layer(s->target);
    }
    copier_fini(&s->copier);
    if (s->made_writable) {
        /* If that fails it stays writable, and nothing that was promised is missing. */
        co_node_set_writable(s->target, false, NULL);
    }
    co_node_unref(s->base);
    free(s->backing_name);
    free(s->backing_format);
    free(s);
    job->state = NULL;
}

static const struct job_kind stream_kind = {
    .name = "stream",
    .co_run = co_stream_run,
    .co_prepare = co_stream_prepare,
    .co_clean = co_stream_clean,
};

/* --- Start ------------------------------------------------------------------------------------------------------------ */

static bool names_layer(const struct node *overlay, const char *name, const struct node *layer)
{
    AUTOFREE char *path = path_combine(overlay->filename, name);
    return path_same(path, layer->filename) || path_same(name, layer->filename);
}

/* By the name that is recorded, or by a path as seen from the overlay or from here. */
static struct node *find_by_file(struct node *target, const char *base)
{
    for (struct node *n = target; n->backing; n = n->backing) {
        if ((n->backing_name && strcmp(n->backing_name, base) == 0) || names_layer(n, base, n->backing)) {
            return n->backing;
        }
    }
    return NULL;
}

/* One name of where it ends, before any of them is looked up. */
static int check_ends(const struct stream_args *args, struct error *err)
{
    if (args->base && args->base_node) {
        error_set(err, "'base' and 'base-node' cannot be specified at the same time");
        return -EINVAL;
    }
    if (args->bottom && (args->base || args->base_node)) {
        error_set(err, args->base ? "'base' and 'bottom' cannot be specified at the same time"
                                  : "'bottom' and 'base-node' cannot be specified at the same time");
        return -EINVAL;
    }
    return 0;
}

static int find_base(const struct stream_args *args, struct node *target, struct node **base, struct error *err)
{
    struct node *bottom;

    *base = NULL;
    if (args->base) {
        *base = find_by_file(target, args->base);
        if (!*base) {
            error_set(err, "Can't find '%s' in the backing chain", args->base);
            return -ENOENT;
        }
    }
    if (args->base_node) {
        *base = node_find(args->base_node);
        if (!*base) {
            error_set(err, "Cannot find device='' nor node-name='%s'", args->base_node);
            return -ENOENT;
        }
        if (*base == target || node_depth(target, *base) < 0) {
            error_set(err, "Node '%s' is not a backing image of '%s'", args->base_node, args->device);
            return -EINVAL;
        }
    }
    if (args->bottom) {
        bottom = node_find(args->bottom);
        if (!bottom) {
            error_set(err, "Cannot find device='' nor node-name='%s'", args->bottom);
            return -ENOENT;
        }
        if (node_depth(target, bottom) < 0) {
            error_set(err, "Node '%s' is not in a chain starting from '%s'", args->bottom, args->device);
            return -EINVAL;
        }
        *base = bottom->backing;
    }
    return 0;
}

/* "file-A.img <- file-E.img", for people. */
static char *describe_pair(const struct node *target, const struct node *base)
{
    return base ? mem_printf("%s <- %s", base->filename, target->filename) : mem_strdup(target->filename);
}

/* The target and everything down to the base is ours; all of it was free just now (check_free()). */
static void hold_layers(struct job *job, struct node *target, struct node *base)
{
    for (struct node *n = target; n && n != base; n = n->backing) {
        int ret = job_hold(job, n, NULL);

        assert(ret == 0);
    }
}

/* QEMU names the target as it was typed, and the layers below by their node names. */
static int check_free(struct node *target, struct node *base, const char *device, struct error *err)
{
    if (target->busy_reason) {
        error_set(err, "Node '%s' is busy: %s", device, target->busy_reason);
        return -EBUSY;
    }
    for (struct node *n = target; n && n != base; n = n->backing) {
        if (node_check_free(n, err) < 0) {
            return -EBUSY;
        }
    }
    return 0;
}

static int choose_names(struct stream *s, const struct stream_args *args, struct error *err)
{
    if (args->backing_file && (!s->base || args->bottom)) { /* QEMU knows no base then, whatever `bottom` stands on */
        error_set(err, "backing file specified, but streaming the entire chain");
        return -EINVAL;
    }
    if (s->base) {
        s->backing_name = args->backing_file ? mem_strdup(args->backing_file)
                                             : path_to_record_layer(s->target, s->base);
        s->backing_format = mem_strdup(filter_skip(s->base)->driver->name); /* the next start may have no filter */
    }
    if (s->target->backing == s->base) {
        return 0; /* nothing will be recorded */
    }
    return s->target->driver->check_backing(s->target, s->backing_name, s->backing_format, err);
}

/* QEMU puts a node of its own there. We need none, but a name that could not be given is refused all the same. */
static int check_filter_name(const char *name, struct error *err)
{
    if (!name) {
        return 0;
    }
    if (!id_wellformed(name)) {
        error_set(err, "Could not create node: Invalid node-name: '%s'", name);
        return -EINVAL;
    }
    if (node_find(name)) {
        error_set(err, "Could not create node: Duplicate nodes with node-name='%s'", name);
        return -EEXIST;
    }
    return 0;
}

static void stream_free(struct stream *s)
{
    free(s->backing_name);
    free(s->backing_format);
    free(s);
}

static int co_stream_begin(struct job *job, struct stream *s, struct error *err)
{
    int ret = 0;

    hold_layers(job, s->target, s->base);
    if (s->target->read_only && s->target->backing != s->base) {
        ret = co_node_set_writable(s->target, true, err);
        s->made_writable = ret == 0;
    }
    if (ret < 0) {
        job_abandon(job);
        stream_free(s);
        return ret;
    }
    job->state = s;
    s->target->backing_frozen++;
    if (s->base) {
        node_ref(s->base);
    }
    copier_init(&s->copier, s->target, s->base);
    job->description = describe_pair(s->target, s->base);
    bool nothing = s->target->backing == s->base;
    job_ref(job);
    job_start(job);
    if (nothing) { /* as in QEMU its whole life comes before the reply */
        job->auto_finalize ? co_job_wait(job) : co_job_wait_decision(job);
    }
    job_unref(job);
    return 0;
}

int co_stream_start(const struct stream_args *args, struct error *err)
{
    struct node *root = check_ends(args, err) < 0 ? NULL : disk_or_node(args->device, err), *target = filter_skip(root), *base;
    const char *id = args->job_id;
    struct disk *disk;
    struct stream *s;
    struct job *job;

    if (!target || find_base(args, target, &base, err) < 0) {
        return -ENOENT;
    }
    if (check_free(target, base, args->device, err) < 0) {
        return -EBUSY;
    }
    disk = disk_of_root(root);
    if (!id && !disk) {
        error_set(err, "An explicit job ID is required for this node");
        return -EINVAL;
    }
    s = mem_zalloc(sizeof(*s));
    s->target = target;
    s->base = base;
    TAILQ_INIT(&s->windows);
    co_queue_init(&s->ended);
    if (choose_names(s, args, err) < 0 || check_filter_name(args->filter_name, err) < 0) {
        stream_free(s);
        return -EINVAL;
    }
    job = job_new(id ? id : disk->id, &stream_kind, args->on_error, err);
    if (job && ((args->has_speed && job_set_speed(job, args->speed, err) < 0) ||
                job_set_latency(job, args->latency, err) < 0)) {
        job_abandon(job);
        job = NULL;
    }
    if (!job) {
        stream_free(s);
        return -EINVAL;
    }
    job->auto_finalize = args->auto_finalize;
    job->auto_dismiss = args->auto_dismiss;
    return co_stream_begin(job, s, err);
}
