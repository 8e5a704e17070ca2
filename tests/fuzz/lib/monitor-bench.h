/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For targets that talk to a monitor: a disk with a chain of three images, jobs, events; and the end of all that, whatever
 * the talk has made of it.
 *
 * Kept from the inputs (bench_refuses()): the end of the program, which is remembered for ever; the NBD server, which would
 * be a socket of the host; the log file and temporary overlays, which would be files of the host.
 */
#ifndef TESTS_FUZZ_LIB_MONITOR_BENCH_H
#define TESTS_FUZZ_LIB_MONITOR_BENCH_H

#include <stdio.h>
#include <string.h>

#include "block/blockdev.h"
#include "block/qcow2.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/events.h"
#include "monitor/monitor.h"
#include "monitor/handlers.h"
#include "monitor/outcome.h"
#include "start/drive.h"
#include "tests/fuzz/lib/raw-disk.h"

#define BENCH_DISK (1u << 20)
#define BENCH_ROOM (3u << 20) /* of the simulated disk: what is allocated at once must end */


/* JSON can write any letter as a number. */
static inline size_t bench_unescape(char *out, const char *text, size_t len)
{
    size_t n = 0;
    unsigned code;

    for (size_t i = 0; i < len; i++) {
        bool escaped = i + 6 <= len && memcmp(text + i, "\\u00", 4) == 0 && sscanf(text + i + 4, "%2x", &code) == 1;

        out[n++] = escaped ? (char)code : text[i];
        i += escaped ? 5 : 0;
    }
    return n;
}

static inline bool bench_refuses(const char *bytes, size_t bytes_len)
{
    static const char *const words[] = { "quit", "server_start", "server-start", "logfile", "snapshot=", ",snapshot" };
    AUTOFREE char *text = mem_alloc(bytes_len + 1);
    size_t len = bench_unescape(text, bytes, bytes_len);

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (memmem(text, len, words[i], strlen(words[i]))) {
            return true;
        }
    }
    /* "q" alone on a line, or behind a prefix. */
    for (size_t i = 0; i < len; i++) {
        if (text[i] == 'q' && (i + 1 == len || strchr(" \t\r\n\"", text[i + 1])) &&
            (i == 0 || strchr(" \t\n-!\"", text[i - 1]))) {
            return true;
        }
    }
    return false;
}

static inline void co_bench_image(const char *path, const char *below, const char *format)
{
    json_t *options = json_pack("{s:i, s:i, s:s*, s:s*}", "size", (int)BENCH_DISK, "cluster_size", 4096,
                                "backing_file", below, "backing_fmt", format);
    struct error err = ERROR_INIT;

    FUZZ_CHECK(driver_qcow2.co_create(path, options, &err) == 0, "%s", err.text);
    json_decref(options);
}

static inline CO_ENTRY void co_bench_images(void *arg)
{
    co_bench_image("/B.img", RAW_DISK, "raw");
    co_bench_image("/C.img", "/B.img", "qcow2");
}

static inline void bench_set_up(void)
{
    machine_init(16 << 20);
    outcome_init();
    events_init();
    drive_set_maker(co_drive_hot_add);
    raw_disk_make(BENCH_DISK);
    loop_run_co(co_bench_images, NULL);
    io_sim_set_quota(BENCH_ROOM);
    fuzz_keep_disk();
}

static inline CO_ENTRY void co_bench_begin(void *arg)
{
    json_t *options = json_pack("{s:s, s:s}", "driver", "qcow2", "node-name", "node-C");
    struct error err = ERROR_INIT;
    struct node *node = co_node_open("/C.img", options, &err);

    FUZZ_CHECK(node, "%s", err.text);
    json_decref(options);
    (void)disk_new("virtio0", node);
}

static inline void bench_begin(void)
{
    loop_run_co(co_bench_begin, NULL);
}

static inline CO_ENTRY void co_bench_end(void *arg)
{
    struct job *job;

    co_job_cancel_all();
    while ((job = TAILQ_FIRST(&all_jobs))) {
        (void)job_dismiss(job, NULL);
        co_sleep_ns(NS_PER_MS);
    }
    (void)co_drives_end(NULL);
}

/* Commands that wait are told to come back first. */
static inline void bench_end(void)
{
    struct monitor *mon;

    for (unsigned i = 0; commands_running(); i++) {
        FUZZ_CHECK(i < 1000, "a command does not end");
        LIST_FOREACH(mon, &all_monitors, link) {
            monitor_interrupt(mon);
        }
        disk_resume_all();
        fuzz_settle();
    }
    loop_run_co(co_bench_end, NULL);
    fuzz_settle();
}

/* --- A monitor that writes here ------------------------------------------------------------------------------------------- */

/* What a person reads holds no control characters but those that make lines: a name in an image must not be able to talk
 * to the terminal. */
static inline void bench_write(struct monitor *mon, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = text[i];

        FUZZ_CHECK((c >= ' ' && c != 0x7f) || c == '\n' || c == '\t' || c == '\r', "byte %02x is printed as it is", c);
    }
}

#endif
