/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs for people: see job-view.h.
 *
 *     Streaming device virtio0: Completed 2555904 of 8388608 bytes, speed limit 1048576 bytes/s
 *         file-A.img <- file-C.img
 *         [#######                 ]  30.4%  2.44 MiB of 8 MiB of data
 *         running for 2.47 s, 0.986 MiB/s, about 5.64 s left
 *
 * On a terminal lines are broken between words; elsewhere they stay whole, as programs like them.
 */
#include "monitor/job-view.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/size.h"
#include "monitor/members.h"

#define INDENT 4u
#define BAR_WIDTH 24u
#define BAR_WIDTH_MIN 6u

static unsigned width_of(struct monitor *mon)
{
    unsigned width = mon->width ? mon->width(mon) : 0;

    return width > 2 * INDENT ? width : 0;
}

/* --- Lines ------------------------------------------------------------------------------------------------------------ */

/* What has been said of a line, and how much of it there is. */
struct line {
    struct monitor *mon;
    unsigned indent, width, used;
};

/* A word, on the next line when there is no room on this one. */
static void put_word(struct line *l, const char *word, unsigned len)
{
    if (l->used && l->used + 1 + len > l->width) {
        monitor_puts(l->mon, "\n");
        l->used = 0;
    }
    if (!l->used) {
        monitor_printf(l->mon, "%*s", (int)l->indent, "");
        l->used = l->indent;
    } else {
        monitor_puts(l->mon, " ");
        l->used++;
    }
    monitor_printf(l->mon, "%.*s", (int)len, word);
    l->used += len;
}

static void put_words(struct line *l, const char *text)
{
    while (*text) {
        unsigned len = strcspn(text, " ");

        put_word(l, text, len);
        text += len;
        text += strspn(text, " ");
    }
}

static void __attribute__((format(printf, 3, 4))) say(struct monitor *mon, unsigned indent, const char *fmt, ...)
{
    struct line l = { .mon = mon, .indent = indent, .width = width_of(mon) };
    AUTOFREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = mem_vprintf(fmt, ap);
    va_end(ap);
    if (!l.width) {
        monitor_printf(mon, "%*s%s\n", (int)indent, "", text);
        return;
    }
    put_words(&l, text);
    monitor_puts(mon, "\n");
}

/* --- What -v adds ----------------------------------------------------------------------------------------------------- */

/* The bar, and the amounts beside it or, where it is narrow, below it. */
static void print_bar(struct monitor *mon, const json_t *tree)
{
    uint64_t done = member_int(tree, "x-data-done"), total = member_int(tree, "x-data-total");
    unsigned width = width_of(mon), bar = BAR_WIDTH, tenths = total ? (unsigned __int128)done * 1000 / total : 1000;
    char text[32], more[32];
    AUTOFREE char *amounts = mem_printf("%s of %s of data", size_format_plain(done, text), size_format_plain(total, more));
    unsigned around = INDENT + 2 + 8; /* "    [", "]  30.4%" */

    if (width && around + bar > width) {
        bar = width > around + BAR_WIDTH_MIN ? width - around : BAR_WIDTH_MIN;
    }
    unsigned filled = total ? (unsigned __int128)done * bar / total : bar;

    filled = MIN(filled, bar);
    monitor_printf(mon, "%*s[", (int)INDENT, "");
    monitor_tone(mon, TONE_GOOD);
    for (unsigned i = 0; i < filled; i++) {
        monitor_puts(mon, "#");
    }
    monitor_tone(mon, TONE_PLAIN);
    monitor_printf(mon, "%*s] %3u.%u%%", (int)(bar - filled), "", tenths / 10, tenths % 10);
    if (width && around + bar + 2 + strlen(amounts) > width) {
        monitor_puts(mon, "\n");
        say(mon, INDENT, "%s", amounts);
    } else {
        monitor_printf(mon, "  %s\n", amounts);
    }
}

static void print_state(struct monitor *mon, const json_t *tree)
{
    char text[32];
    AUTOFREE char *rate = json_object_get(tree, "x-rate") ? mem_printf(", %s/s", size_format_plain(member_int(tree, "x-rate"), text))
                                                          : mem_strdup("");
    AUTOFREE char *left = json_object_get(tree, "x-left-ns")
                              ? mem_printf(", about %s left", time_format(member_int(tree, "x-left-ns"), text))
                              : mem_strdup("");

    AUTOFREE char *time = mem_strdup(time_format(member_int(tree, "x-elapsed-ns"), text));
    const char *state = member_text(tree, "x-state");

    if (!strcmp(member_text(tree, "status"), "running")) {
        say(mon, INDENT, "%s for %s%s%s", state, time, rate, left);
    } else {
        say(mon, INDENT, "%s, %s %s", state, time,
            !strcmp(member_text(tree, "status"), "concluded") ? "from the start to the end" : "since its start");
    }
}

static void print_latency(struct monitor *mon, const json_t *tree)
{
    uint64_t p99 = member_int(tree, "x-guest-p99-ns"), target = member_int(tree, "x-latency-ns"), pace = member_int(tree, "x-pace");
    char text[32];
    AUTOFREE char *wanted = mem_strdup(time_format(target, text));
    AUTOFREE char *is = p99 ? mem_strdup(time_format(p99, text)) : mem_strdup("not known: it is idle");

    if (target && pace) {
        say(mon, INDENT, "latency target %s, the guest's p99 is %s, held back to %s/s", wanted, is, size_format_plain(pace, text));
    } else if (target) {
        say(mon, INDENT, "latency target %s, the guest's p99 is %s, not held back", wanted, is);
    } else if (p99) {
        say(mon, INDENT, "the guest's p99 is %s", is);
    }
}

static void print_more(struct monitor *mon, const json_t *tree)
{
    if (member_text(tree, "x-what")) {
        say(mon, INDENT, "%s", member_text(tree, "x-what"));
    }
    if (member_true(tree, "x-data-counted")) {
        print_bar(mon, tree);
    }
    print_state(mon, tree);
    if (member_text(tree, "x-error")) {
        monitor_tone(mon, TONE_ERROR);
        say(mon, INDENT, "%s: %s", !strcmp(member_text(tree, "status"), "concluded") ? "failed" : "stopped by an error",
            member_text(tree, "x-error"));
        monitor_tone(mon, TONE_PLAIN);
    }
    print_latency(mon, tree);
    if (member_text(tree, "x-ends-by")) {
        monitor_tone(mon, TONE_HINT);
        say(mon, INDENT, "%s", member_text(tree, "x-ends-by"));
        monitor_tone(mon, TONE_PLAIN);
    }
}

/* --- Jobs ------------------------------------------------------------------------------------------------------------- */

/* QEMU's line: as it is, but where a person has asked for more. */
static void print_head(struct monitor *mon, const json_t *tree, bool more)
{
    const char *type = member_text(tree, "type"), *device = member_text(tree, "device");
    AUTOFREE char *who = !strcmp(type, "stream") ? mem_printf("Streaming device %s", device)
                                                 : mem_printf("Type %s, device %s", type, device);
    AUTOFREE char *line = mem_printf("%s: Completed %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
                                     " bytes, speed limit %" JSON_INTEGER_FORMAT " bytes/s", who,
                                     (json_int_t)member_int(tree, "offset"), (json_int_t)member_int(tree, "len"),
                                     (json_int_t)member_int(tree, "speed"));

    if (more) {
        say(mon, 0, "%s", line);
    } else {
        monitor_printf(mon, "%s\n", line);
    }
}

void job_view_print(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *tree;

    if (!json_array_size(result)) {
        monitor_puts(mon, "No active jobs\n");
    }
    json_array_foreach(result, i, tree) {
        bool more = json_object_get(tree, "x-elapsed-ns");

        print_head(mon, tree, more);
        if (more) {
            print_more(mon, tree);
        }
    }
}
