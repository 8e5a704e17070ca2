/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Words that scripts need and QEMU lacks: wait, expect, sleep, source.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/guest.h"
#include "monitor/chain-names.h"
#include "monitor/chain-view.h"
#include "monitor/handlers.h"
#include "monitor/hmp.h"
#include "monitor/members.h"
#include "monitor/outcome.h"
#include "monitor/script.h"

/* --- wait -------------------------------------------------------------------------------------------------------------- */

struct wait {
    const char *job;   /* NULL: all */
    bool until_ready;
    bool has_timeout;
    uint64_t timeout_ns;
};

static bool job_arrived(const struct job *job, bool until_ready)
{
    return job_ended(job) || (until_ready && (job->status == JOB_READY || job->status == JOB_STANDBY));
}

/* Done: what was waited for is so, or (without a timeout) can no longer become so. */
static bool wait_over(void *arg)
{
    const struct wait *w = arg;
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        bool asked = !w->job || !strcmp(w->job, job->id);

        if (asked && !job_arrived(job, w->until_ready) && (w->has_timeout || !job_is_stuck(job))) {
            return false;
        }
    }
    return true;
}

/* A job that stands still and waits for a decision: nobody in this script will make it. */
static const struct job *stuck_job(const struct wait *w)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        if ((!w->job || !strcmp(w->job, job->id)) && !job_arrived(job, w->until_ready)) {
            return job;
        }
    }
    return NULL;
}

static int tell_failure(struct monitor *mon, struct job_record *record, struct error *err)
{
    error_set(err, "Job '%s' failed: %s", record->id, record->text);
    record->told = true;
    mon->last_outcome = OUTCOME_JOB;
    return -EIO;
}

/* What the wait found: failures of the jobs it was about, told once when all jobs are meant. */
static int wait_result(struct monitor *mon, const struct wait *w, struct error *err)
{
    const struct job *stuck = stuck_job(w);
    struct job_record *record;
    int ret = 0;

    if (stuck) {
        error_set(err, "Job '%s' is %s and waits for a decision", stuck->id, job_status_name(stuck->status));
        mon->last_outcome = OUTCOME_JOB;
        return -EBUSY;
    }
    if (w->job) {
        record = job_find(w->job) ? NULL : job_record_find(w->job);
        if (record && job_record_failed(record)) {
            return tell_failure(mon, record, err);
        }
        if (record && w->until_ready && !record->cancelled) {
            error_set(err, "Job '%s' has ended and was never ready", w->job);
            ret = -ESRCH;
        }
        return ret;
    }
    TAILQ_FOREACH(record, &job_records, link) {
        if (job_record_failed(record) && !record->told) {
            ret = tell_failure(mon, record, err); /* the first one's sentence stays */
        }
    }
    return ret;
}

static int parse_wait(const char *text, struct wait *w, struct error *err)
{
    char *word;
    int ret = 0;

    for (int i = 0; !ret && (word = hmp_word(&text, NULL)); i++) {
        bool state = !strcmp(word, "ready") || !strcmp(word, "done");

        if (!w->has_timeout && !time_parse(word, &w->timeout_ns)) {
            w->has_timeout = true;
        } else if (state && !w->has_timeout) {
            w->until_ready = word[0] == 'r';
        } else if (i == 0 && !strcmp(word, "all")) {
            /* the same as no job */
        } else if (i == 0) {
            w->job = word;
            word = NULL;
        } else {
            error_set(err, "'%s' is neither ready, done, nor a time", word);
            ret = -EINVAL;
        }
        free(word);
    }
    return ret;
}

static int co_wait(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *text = member_text(args, "what");
    struct wait w = { 0 };
    AUTOFREE char *job = NULL;
    int ret = text ? parse_wait(text, &w, err) : 0;

    job = (char *)w.job; /* for giving back */
    if (ret) {
        return ret;
    }
    if (w.job && !job_find(w.job) && !job_record_find(w.job)) {
        error_set_class(err, ERROR_DEVICE_NOT_ACTIVE, "Block job '%s' not found", w.job);
        return -ENOENT;
    }
    ret = co_monitor_wait(mon, wait_over, &w, w.has_timeout ? loop_now() + w.timeout_ns : UINT64_MAX);
    if (ret == -ETIMEDOUT) {
        char buf[32];

        error_set(err, "Timed out after %s: %s%s%s", time_format(w.timeout_ns, buf), w.job ? "job '" : "jobs",
                  w.job ? w.job : " are still there", w.job ? "' is still there" : "");
        mon->last_outcome = OUTCOME_TIMEOUT;
    } else if (ret == -EINTR) {
        error_set(err, "Interrupted");
        error_hint(err, "What was waited for goes on: info block-jobs -v");
    } else if (!ret) {
        ret = wait_result(mon, &w, err);
    }
    return ret;
}

/* --- sleep, source --------------------------------------------------------------------------------------------------------- */

static int co_sleep(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    uint64_t ns;
    int ret = time_parse(member_text(args, "time"), &ns);

    if (ret) {
        error_set(err, "'%s' is no time: 10s, 500ms, 1.5m are", member_text(args, "time"));
        return ret;
    }
    ret = co_monitor_wait(mon, NULL, NULL, loop_now() + ns);
    if (ret == -EINTR) {
        error_set(err, "Interrupted");
    }
    return ret == -ETIMEDOUT ? 0 : ret;
}

static int co_source(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    return co_script_source(mon, member_text(args, "file"), err);
}

/* --- expect ---------------------------------------------------------------------------------------------------------------- */

/* An expectation that does not hold. */
#define DISAPPOINT(mon, err, ...)                                                                                     \
    ({                                                                                                                \
        error_set(err, __VA_ARGS__);                                                                                  \
        (mon)->last_outcome = OUTCOME_EXPECT;                                                                         \
        -EILSEQ;                                                                                                      \
    })

static int bad_expect(struct error *err, const char *usage)
{
    error_set(err, "Usage: expect %s", usage);
    return -EINVAL;
}

/* The names between the arrows, base first; brackets around a name are taken off. */
static char **split_chain(const char *text, size_t *count)
{
    char **names = NULL;
    size_t n = 0;

    for (const char *p = text; p;) {
        const char *arrow = strstr(p, "<-"), *end = arrow ? arrow : p + strlen(p);

        p += strspn(p, " \t[");
        while (end > p && strchr(" \t]", end[-1])) {
            end--;
        }
        names = mem_reallocarray(names, n + 1, sizeof(*names));
        names[n++] = mem_strndup(p, end > p ? end - p : 0);
        p = arrow ? arrow + 2 : NULL;
    }
    *count = n;
    return names;
}

static char *chain_text(const struct node *top)
{
    size_t count;
    char **labels = chain_labels(top, &count);
    char *text = mem_strdup(labels[count - 1]);

    for (size_t i = count - 1; i > 0; i--) {
        char *longer = mem_printf("%s <- %s", text, labels[i - 1]);

        free(text);
        text = longer;
    }
    chain_labels_free(labels, count);
    return text;
}

static bool chain_fits(const struct node *top, char **names, size_t count)
{
    const struct node *node = top, *overlay = NULL;
    size_t i = count;

    for (; node && i > 0; overlay = node, node = node->backing, i--) {
        if (!chain_name_fits(node, overlay, names[i - 1])) {
            return false;
        }
    }
    return !node && !i;
}

/* DISK = A <- E */
static int expect_chain(struct monitor *mon, const char *text, struct error *err)
{
    AUTOFREE char *device = hmp_word(&text, NULL);
    AUTOFREE char *equals = hmp_word(&text, NULL);
    struct node *top;
    struct disk *disk;
    char **names;
    size_t count;
    bool fits;

    if (!device || !equals || strcmp(equals, "=") || !text[strspn(text, " \t")]) {
        return bad_expect(err, "chain DISK = BASE <- ... <- TOP");
    }
    top = chain_root(device, &disk, err);
    if (!top) {
        return -ENODEV;
    }
    names = split_chain(text, &count);
    fits = chain_fits(top, names, count);
    chain_labels_free(names, count);
    if (!fits) {
        AUTOFREE char *is = chain_text(top);

        return DISAPPOINT(mon, err, "The chain of '%s' is %s", device, is);
    }
    return 0;
}

static const char *record_state(const struct job_record *record)
{
    return record->cancelled ? "cancelled" : job_record_failed(record) ? "failed" : "completed";
}

/* JOB STATE: a state of QMP's, or of a job that has ended: completed, cancelled, failed. */
static int expect_job(struct monitor *mon, const char *text, struct error *err)
{
    AUTOFREE char *id = hmp_word(&text, NULL);
    AUTOFREE char *state = hmp_word(&text, NULL);
    struct job *job = id ? job_find(id) : NULL;
    struct job_record *record = id ? job_record_find(id) : NULL;
    const char *is;

    if (!id || !state || text[strspn(text, " \t")]) {
        return bad_expect(err, "job JOB STATE");
    }
    if (!job && !record) {
        return DISAPPOINT(mon, err, "There is no job '%s'", id);
    }
    is = job ? job_status_name(job->status) : "null";
    if (!strcmp(is, state)) {
        return 0;
    }
    if (record && (!job || job_ended(job))) {
        is = record_state(record);
        if (!strcmp(is, state)) {
            if (job_record_failed(record)) {
                record->told = record->forgiven = true; /* it was expected */
            }
            return 0;
        }
    }
    return DISAPPOINT(mon, err, "Job '%s' is %s", id, is);
}

static int expect_no_jobs(struct monitor *mon, const char *text, struct error *err)
{
    AUTOFREE char *word = hmp_word(&text, NULL);
    struct job *job = TAILQ_FIRST(&all_jobs);

    if (!word || strcmp(word, "jobs")) {
        return bad_expect(err, "no jobs");
    }
    if (job) {
        return DISAPPOINT(mon, err, "Job '%s' is %s", job->id, job_status_name(job->status));
    }
    return 0;
}

#define READ_PIECE (1u << 20)

static int co_compare(struct monitor *mon, const char *device, struct node *node, uint64_t offset, uint64_t len, int byte,
                      struct error *err)
{
    AUTOFREE uint8_t *buf = mem_align(4096, READ_PIECE);

    for (uint64_t done = 0; done < len;) {
        size_t piece = MIN(len - done, (uint64_t)READ_PIECE);
        int ret = co_node_read_buf(node, offset + done, buf, piece);

        if (ret) {
            error_set_errno(err, -ret, "Could not read %zu bytes at %llu of '%s'", piece,
                            (unsigned long long)(offset + done), device);
            return ret;
        }
        for (size_t i = 0; i < piece; i++) {
            if (buf[i] != byte) {
                return DISAPPOINT(mon, err, "'%s' holds 0x%02x at %llu, not 0x%02x", device, buf[i],
                                  (unsigned long long)(offset + done + i), byte);
            }
        }
        done += piece;
    }
    return 0;
}

/* DISK OFFSET LENGTH pattern BYTE */
static int co_expect_read(struct monitor *mon, const char *text, struct error *err)
{
    AUTOFREE char *device = hmp_word(&text, NULL);
    AUTOFREE char *offset_text = hmp_word(&text, NULL);
    AUTOFREE char *len_text = hmp_word(&text, NULL);
    AUTOFREE char *pattern = hmp_word(&text, NULL);
    AUTOFREE char *byte_text = hmp_word(&text, NULL);
    uint64_t offset, len;
    struct node *node;
    struct disk *disk;
    char *end;
    long byte;
    int ret;

    if (!byte_text || strcmp(pattern, "pattern") || text[strspn(text, " \t")] ||
        size_parse(offset_text, 1, &offset, NULL) || size_parse(len_text, 1, &len, NULL)) {
        return bad_expect(err, "read DISK OFFSET LENGTH pattern BYTE");
    }
    byte = strtol(byte_text, &end, 0);
    if (*end || end == byte_text || byte < 0 || byte > 255) {
        error_set(err, "'%s' is not a valid pattern byte", byte_text);
        return -EINVAL;
    }
    node = chain_root(device, &disk, err);
    if (!node) {
        return -ENODEV;
    }
    if (len > node->size || offset > node->size - len) {
        error_set(err, "'%s' has %llu bytes only", device, (unsigned long long)node->size);
        return -EINVAL;
    }
    node_ref(node);
    ret = co_compare(mon, device, node, offset, len, byte, err);
    co_node_unref(node);
    return ret;
}

/* Everything that the guests remember is on their disks, and nothing wrong was ever seen. */
static int co_expect_guest(struct monitor *mon, const char *text, struct error *err)
{
    AUTOFREE char *word = hmp_word(&text, NULL);
    int ret;

    if (!word || strcmp(word, "clean")) {
        return bad_expect(err, "guest clean");
    }
    ret = co_guest_verify_all();
    if (guest_any_mismatch()) {
        return DISAPPOINT(mon, err, "The guest has seen wrong data: info guest -v tells where");
    }
    if (ret || guest_any_error()) {
        return DISAPPOINT(mon, err, "The guest has seen an error that it should not have seen: info guest tells");
    }
    return 0;
}

static int co_expect(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *text = member_text(args, "what");
    AUTOFREE char *word = hmp_word(&text, NULL);

    if (word && !strcmp(word, "chain")) {
        return expect_chain(mon, text, err);
    }
    if (word && !strcmp(word, "job")) {
        return expect_job(mon, text, err);
    }
    if (word && !strcmp(word, "no")) {
        return expect_no_jobs(mon, text, err);
    }
    if (word && !strcmp(word, "read")) {
        return co_expect_read(mon, text, err);
    }
    if (word && !strcmp(word, "guest")) {
        return co_expect_guest(mon, text, err);
    }
    return bad_expect(err, "chain DISK = A <- B | job JOB STATE | no jobs | read DISK OFFSET LENGTH pattern BYTE | guest clean");
}

/* --- Rows --------------------------------------------------------------------------------------------------------------------- */

static const char *const wait_words[] = { "all", "ready", "done", NULL };

/* What may be expected, and of whom. */
static void expect_words(const char *before, const char *typed, completion_offer *offer, void *to)
{
    static const char *const subjects[] = { "chain", "job", "no", "read", "guest" };
    bool of_disk = !strcmp(before, "chain") || !strcmp(before, "read");
    struct disk *disk;
    struct job *job;

    for (size_t i = 0; !strcmp(before, "expect") && i < ARRAY_SIZE(subjects); i++) {
        offer(to, subjects[i]);
    }
    if (!strcmp(before, "no")) {
        offer(to, "jobs");
    }
    if (!strcmp(before, "guest")) {
        offer(to, "clean");
    }
    TAILQ_FOREACH(disk, &all_disks, link) {
        if (of_disk && *disk->id) {
            offer(to, disk->id);
        }
    }
    TAILQ_FOREACH(job, &all_jobs, link) {
        if (!strcmp(before, "job")) {
            offer(to, job->id);
        }
    }
}

const struct command script_commands[] = {
    {
        .name = "wait",
        .args = {
            { "what", ARG_REST, .optional = true, .choices = wait_words,
              .doc = "a job (every job unless given), ready or done, and how long at most (30s, 2m)" },
        },
        .params = "[job|all] [ready|done] [timeout]",
        .help = "wait until jobs have ended or are ready",
        .group = "Scripts",
        .example = "wait virtio0 done 30s",
        .co_run = co_wait,
        .flags = COMMAND_OURS | COMMAND_SCRIPT,
    },
    {
        .name = "expect",
        .args = { { "what", ARG_REST, .words = expect_words, .doc = "what should be so" } },
        .params = "chain|job|no jobs|read|guest ...",
        .help = "fail unless something is as it should be",
        .group = "Scripts",
        .example = "expect chain virtio0 = A <- E\nexpect job virtio0 running\nexpect no jobs\n"
                   "expect read virtio0 1M 64k pattern 0x41\nexpect guest clean",
        .co_run = co_expect,
        .flags = COMMAND_OURS | COMMAND_SCRIPT,
    },
    {
        .name = "sleep",
        .args = { { "time", ARG_STRING, .doc = "500ms, 10s, 2m; seconds without a suffix" } },
        .params = "time",
        .help = "wait for some time of the program's clock",
        .group = "Scripts",
        .example = "sleep 500ms",
        .co_run = co_sleep,
        .flags = COMMAND_OURS | COMMAND_SCRIPT,
    },
    {
        .name = "source",
        .args = { { "file", ARG_FILE, .doc = "a file with monitor commands" } },
        .params = "file",
        .help = "run the commands in a file, up to the first that fails",
        .group = "Scripts",
        .example = "source merge.hmp",
        .co_run = co_source,
        .flags = COMMAND_OURS | COMMAND_SCRIPT,
    },
    { 0 },
};
