/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lives beside each other on one busy chain: a commit while its disk is stopped, reset, snapshotted, streamed or closed; a
 * commit beside streams on neighbouring parts, which end before it, with it and after it, well or not; a new image that is
 * made while a stream runs and the machine is stopped or reset.  The bench (life-rig.h) judges content, images and what is durable.
 *
 * What one request of a guest meets at each call of the host of a commit, and each verb at each call of a new image, stands in
 * commit-life.c and create-life.c.
 */
#include "block/commit.h"
#include "tests/unit/life-rig.h"

enum { DENSE_D = 1 << 3, DENSE_CEGH = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 };

/* --- A commit in a coroutine ----------------------------------------------------------------------------------------- */

static struct commit_life {
    bool over, stop;
    int ret;
    uint64_t first; /* operations of the host when it began */
} committing;

static bool wants_to_stop(void *arg)
{
    return committing.stop;
}

static CO_ENTRY void co_committing(void *arg)
{
    struct error err = ERROR_INIT;

    committing.ret = co_commit(disk_find("virtio0")->root, wants_to_stop, NULL, &err);
    committing.over = true;
    error_clear(&err);
    life_chain(life.top, true);
    co_queue_wake_all(&life.step);
}

static void begin_commit(void)
{
    committing = (struct commit_life){ .first = io_sim_ops() };
    co_start(co_committing, NULL);
}

static bool commit_is_over(void *arg)
{
    return committing.over;
}

/* So many calls of the host later, the guest's included. */
static bool commit_is_at(void *arg)
{
    return committing.over || io_sim_ops() >= committing.first + *(unsigned *)arg;
}

/* --- What an operator does meanwhile ---------------------------------------------------------------------------------- */

static int co_stop_and_cont(struct error *err)
{
    co_machine_stop(RUN_PAUSED);
    co_sleep_ns(50 * NS_PER_MS);
    machine_cont();
    return 0;
}

static int co_reset(struct error *err)
{
    co_machine_reset();
    return 0;
}

static int co_leave(struct error *err)
{
    committing.stop = true;
    co_job_cancel_all();
    return 0;
}

static int co_again(struct error *err)
{
    return co_commit(disk_find("virtio0")->root, NULL, NULL, err);
}

static int co_snapshot(struct error *err)
{
    return co_snapshot_sync(&(struct snapshot_args){ .device = "virtio0", .file = "/S.img", .snapshot_node_name = "S" }, err);
}

static int co_stream(char target, char base, struct error *err)
{
    char device[] = { target, 0 }, base_node[] = { base, 0 };
    struct stream_args args = { .device = device, .job_id = "other", .base_node = base ? base_node : NULL,
                                .auto_finalize = true, .auto_dismiss = true };

    return co_stream_start(&args, err);
}

static int co_stream_top(struct error *err)
{
    return co_stream('D', 'A', err);
}

static int co_stream_through(struct error *err)
{
    return co_stream('C', 'A', err);
}

static int co_query(struct error *err)
{
    json_t *args = json_object(), *tree = NULL;
    int ret = co_query_named_block_nodes(NULL, args, &tree, err);

    json_decref(args);
    json_decref(tree);
    return ret;
}

static const struct verb {
    const char *name;
    int (*co_do)(struct error *err);
    bool refused; /* while the commit runs */
} verbs[] = {
    { "stop, cont", co_stop_and_cont, false },
    { "system_reset", co_reset, false },
    { "quit", co_leave, false },
    { "another commit", co_again, true },
    { "snapshot", co_snapshot, true },
    { "stream of the top", co_stream_top, true },
    { "stream of the image below", co_stream_through, true },
    { "query", co_query, false },
};

struct verb_case {
    const struct verb *verb;
    unsigned at;
    bool over; /* the commit was done by then */
};

static void co_commit_and_verb(void *arg)
{
    struct verb_case *c = arg;
    struct error err = ERROR_INIT;

    co_life_start("3000", NULL);
    begin_commit();
    co_life_wait(commit_is_at, &c->at, "the call");
    c->over = committing.over;
    if (!c->over) {
        int ret = c->verb->co_do(&err);

        life_check((ret < 0) == c->verb->refused, "%s", ret < 0 ? TEXT(err) : "it is not refused");
        error_clear(&err);
    }
    co_life_wait(commit_is_over, NULL, "the end of the commit");
    life_check(committing.ret == 0 || (committing.stop && committing.ret == -EINTR), "the commit says %d", committing.ret);
    life_check(co_commit(disk_find("virtio0")->root, NULL, NULL, &err) == 0, "and not again: %s", TEXT(err));
    co_life_finish("DCBA", 0);
}

static void a_commit_under_a_busy_guest_ends_well_whatever_the_operator_does(void **state)
{
    unsigned lives = 0;

    life_begin(4, DENSE_D, "65536");
    for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
        for (struct verb_case c = { .verb = &verbs[v] }; !c.over; c.at++, lives++) {
            life_run(co_commit_and_verb, &c, "%s at call %u", verbs[v].name, c.at);
        }
    }
    print_message("%u lives, %u durable states judged\n", lives, life.states);
    assert_true(lives > 30 * ARRAY_SIZE(verbs));
    life_end();
}

/* --- Streams on neighbouring parts ------------------------------------------------------------------------------------ */

enum moment { BEFORE, AT_ITS_START, IN_ITS_MIDDLE, AFTER, N_MOMENTS };
enum end { FINALIZED, TAKEN_BACK, BROKEN, N_ENDS };
static const char *const moment_names[] = { "before it", "at its start", "in its middle", "after it" };
static const char *const end_names[] = { "finalized", "cancelled", "failed" };

struct neighbour_case {
    char target, base;
    const char *done, *undone;
    enum moment moment;
    enum end end;
};

static bool is_pending(void *arg)
{
    struct life_job *j = arg;

    return j->last == JOB_PENDING;
}

static void co_end_stream(struct life_job *j, enum end end)
{
    AUTOFREE char *path = mem_printf("/%c.img", j->target);
    struct io_sim_fault no_header = { .path = path, .ops = IO_SIM_WRITE, .len = 4096, .times = 1 };

    if (end == BROKEN) {
        io_sim_fault(&no_header);
    }
    life_check((end == TAKEN_BACK ? job_cancel(j->job, true, NULL) : job_finalize(j->job, NULL)) == 0, "cannot end the stream");
    co_life_wait(life_is_gone, j, "the end of the stream");
    life_check(j->outcome == (const enum outcome_of_job[]){ COMPLETES, CANCELLED, FAILS }[end], "outcome %d", j->outcome);
}

/* A new life, in which this stream runs; NULL: it was refused, which is a finding. */
static struct life_job *co_begin_stream(const struct neighbour_case *c)
{
    struct stream_args args = { .auto_dismiss = true };
    struct error err = ERROR_INIT;

    co_life_start("3000", NULL);
    struct life_job *j = co_life_stream(&args, c->target, c->base, &err);

    life_check(j != NULL, "refused: %s", TEXT(err));
    return j;
}

static void co_commit_beside_a_stream(void *arg)
{
    const struct neighbour_case *c = arg;
    unsigned at = c->moment == IN_ITS_MIDDLE ? 40 : 0;
    struct life_job *j = co_begin_stream(c);

    if (!j) {
        return;
    }
    co_life_wait(is_pending, j, "all that is to be copied");
    if (c->moment == BEFORE) {
        co_end_stream(j, c->end);
    }
    begin_commit();
    if (c->moment == AT_ITS_START || c->moment == IN_ITS_MIDDLE) {
        co_life_wait(commit_is_at, &at, "the call");
        life_check(!committing.over, "the commit is over already");
        co_end_stream(j, c->end);
    }
    co_life_wait(commit_is_over, NULL, "the end of the commit");
    life_check(committing.ret == 0, "the commit says %d", committing.ret);
    if (c->moment == AFTER) {
        co_end_stream(j, c->end);
    }
    co_life_finish(c->end == FINALIZED ? c->done : c->undone, 0);
}

static void a_commit_and_streams_of_images_below_end_in_every_order(void **state)
{
    static const struct neighbour_case places[] = {
        { 'F', 'D', "HGFDCBA", "HGFEDCBA", 0, 0 }, /* just below the image that is committed to */
        { 'D', 0, "HGFED", "HGFEDCBA", 0, 0 },
    };

    life_begin(8, DENSE_CEGH, "65536");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        struct neighbour_case c = places[i];

        for (c.moment = 0; c.moment < N_MOMENTS; c.moment++) {
            for (c.end = 0; c.end < N_ENDS; c.end++) {
                life_run(co_commit_beside_a_stream, &c, "%c above %c, %s %s", c.target, c.base ? c.base : '-',
                         end_names[c.end], moment_names[c.moment]);
            }
        }
    }
    print_message("%zu lives, %u durable states judged\n", ARRAY_SIZE(places) * N_MOMENTS * N_ENDS, life.states);
    life_end();
}

/* A stream has, or looks through, what the commit would write: whoever comes second is refused. */
static void co_commit_across_a_stream(void *arg)
{
    const struct neighbour_case *c = arg;
    struct life_job *j = co_begin_stream(c);

    if (!j) {
        return;
    }
    begin_commit();
    co_life_wait(commit_is_over, NULL, "the end of the commit");
    life_check(committing.ret == -EBUSY, "the commit says %d", committing.ret);
    co_life_wait(is_pending, j, "all that is to be copied");
    co_end_stream(j, FINALIZED);
    co_life_finish(c->done, 0);
}

static void a_commit_across_a_stream_is_refused_and_the_stream_goes_on(void **state)
{
    static const struct neighbour_case places[] = {
        { 'H', 'F', "HFEDCBA", NULL, 0, 0 }, { 'H', 0, "H", NULL, 0, 0 }, { 'G', 'E', "HGEDCBA", NULL, 0, 0 },
        { 'H', 'G', "HGFEDCBA", NULL, 0, 0 },
    };

    life_begin(8, DENSE_CEGH, "65536");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        life_run(co_commit_across_a_stream, (void *)&places[i], "%c above %c", places[i].target, places[i].base ? places[i].base : '-');
    }
    life_end();
}

/* --- A new image ------------------------------------------------------------------------------------------------------ */

struct image_case {
    enum end image, stream; /* FINALIZED: it ends by itself */
    bool image_first;
};

static CO_ENTRY void co_making(void *arg)
{
    bool *begun = arg;
    json_t *options = json_pack("{s:s, s:{s:s, s:s}, s:i, s:s}", "driver", "qcow2", "file", "driver", "file", "filename", "/N.img",
                                "size", LIFE_SIZE, "preallocation", "full");
    struct create_args args = { .job_id = "image", .options = options };
    struct error err = ERROR_INIT;

    life_check(co_create_start(&args, &err) == 0, "%s", TEXT(err));
    json_decref(options);
    *begun = true;
    co_queue_wake_all(&life.step);
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

static bool has_ended(void *arg)
{
    return job_ended(arg);
}

static void co_end_image(enum end end)
{
    static const int results[] = { 0, -ECANCELED, -ENOSPC };
    struct job *job = job_find("image");

    if (!job) {
        life_check(false, "there is no job");
        return;
    }
    life_check(end != TAKEN_BACK || job_cancel(job, false, NULL) == 0, "cannot cancel the image");
    co_life_wait(has_ended, job, "the end of the image");
    life_check(job->ret == results[end], "the image: %d", job->ret);
    life_check(job_dismiss(job, NULL) == 0, "cannot dismiss");
}

/* After a power cut now the new image would be whole. */
static void judge_image(void)
{
    struct life_reader reader;
    struct checker_image *image = life_image(&reader, 'N', true);

    life_check(image && checker_size(image) == LIFE_SIZE, "the new image is not whole");
    checker_close(image);
}

static void co_image_beside_a_stream(void *arg)
{
    const struct image_case *c = arg;
    struct io_sim_fault slow = { .kind = IO_SIM_FAULT_STALL, .path = "/N.img", .ns = 10 * NS_PER_S, .times = 1 };
    struct io_sim_fault full = { .path = "/N.img", .ops = IO_SIM_WRITE | IO_SIM_ALLOCATE | IO_SIM_ZERO, .error = ENOSPC };
    struct stream_args args = { .auto_dismiss = true };
    struct error err = ERROR_INIT;
    bool begun = false;

    co_life_start("3000", NULL);
    io_sim_create("/N.img", 0);
    struct life_job *j = co_life_stream(&args, 'D', 'A', &err);
    life_check(j != NULL, "refused: %s", TEXT(err));
    if (!j) {
        return;
    }
    io_sim_fault(&slow);
    if (c->image == BROKEN) {
        io_sim_fault(&full);
    }
    co_start(co_making, &begun);
    (c->image_first ? co_reset : co_stop_and_cont)(&err);
    if (!c->image_first) {
        co_life_wait(is_pending, j, "all that is to be copied");
        co_end_stream(j, c->stream);
        life_check(job_find("image") && !job_ended(job_find("image")), "the image was first");
    }
    co_end_image(c->image);
    co_life_wait(is_true, &begun, "the monitor");
    if (c->image == FINALIZED) {
        judge_image();
    }
    if (c->image_first) {
        co_life_wait(is_pending, j, "all that is to be copied");
        co_end_stream(j, c->stream);
    }
    co_life_finish(c->stream == FINALIZED ? "DA" : "DCBA", 0);
}

static void a_new_image_and_a_stream_end_in_every_order(void **state)
{
    struct image_case c;

    life_begin(4, 1 << 1, "65536");
    for (unsigned first = 0; first < 2; first++) {
        c.image_first = first;
        for (c.image = 0; c.image < N_ENDS; c.image++) {
            for (c.stream = 0; c.stream < N_ENDS; c.stream++) {
                life_run(co_image_beside_a_stream, &c, "image %s, stream %s, %s first", end_names[c.image], end_names[c.stream],
                         first ? "image" : "stream");
            }
        }
    }
    life_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_under_a_busy_guest_ends_well_whatever_the_operator_does),
        cmocka_unit_test(a_commit_and_streams_of_images_below_end_in_every_order),
        cmocka_unit_test(a_commit_across_a_stream_is_refused_and_the_stream_goes_on),
        cmocka_unit_test(a_new_image_and_a_stream_end_in_every_order),
    };
    return cmocka_run_group_tests_name("life-beside", tests, NULL, NULL);
}
