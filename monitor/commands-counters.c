/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the program itself has been doing: who held the loop (`info loop`), what the caches hold and what was asked of the
 * host (`info counters`). Both are ours.
 */
#include <inttypes.h>
#include <string.h>

#include "block/chain-map.h"
#include "block/counters.h"
#include "core/co.h"
#include "core/io.h"
#include "core/loop-turns.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/size.h"
#include "monitor/handlers.h"
#include "monitor/members.h"

#define BAR_WIDTH 40

static void set(json_t *tree, const char *key, uint64_t value)
{
    json_object_set_new(tree, key, json_integer(value));
}

/* --- info loop ----------------------------------------------------------------------------------------------------------- */

static json_t *holders_tree(const struct loop_turns *t, uint64_t now)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < LOOP_HOLDERS && t->longest[i].name; i++) {
        const struct loop_holder *h = &t->longest[i];

        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", h->name, "ns", (json_int_t)h->ns, "work-ns",
                                              (json_int_t)h->work_ns, "ago-ns", (json_int_t)(now - h->at_ns)));
    }
    return list;
}

static json_t *classes_tree(const struct loop_turns *t)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < LOOP_HOLD_CLASSES; i++) {
        if (t->classes[i]) {
            json_array_append_new(list, json_pack("{s:I, s:I}", "below-ns", (json_int_t)(1000ull << i), "count",
                                                  (json_int_t)t->classes[i]));
        }
    }
    return list;
}

int co_query_loop(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    uint64_t now = loop_now();

    *result = json_object();
    set(*result, "elapsed-ns", now - loop_turns.since_ns);
    set(*result, "turns", loop_turns.turns);
    set(*result, "holds", loop_turns.holds);
    set(*result, "held-ns", loop_turns.held_ns);
    set(*result, "p99-ns", loop_turns_percentile(&loop_turns, 990));
    set(*result, "longest-ns", loop_turns.longest_ns);
    set(*result, "longest-work-ns", loop_turns.longest_work_ns);
    set(*result, "coroutines", co_count());
    json_object_set_new(*result, "longest", holders_tree(&loop_turns, now));
    json_object_set_new(*result, "classes", classes_tree(&loop_turns));
    if (member_true(args, "reset")) {
        loop_turns_reset(now);
    }
    return 0;
}

static void print_classes(struct monitor *mon, const json_t *classes)
{
    uint64_t most = 1;
    char text[32];
    size_t i;
    json_t *tree;

    json_array_foreach(classes, i, tree) {
        most = MAX(most, (uint64_t)member_int(tree, "count"));
    }
    json_array_foreach(classes, i, tree) {
        uint64_t count = member_int(tree, "count");
        unsigned bar = (unsigned __int128)count * BAR_WIDTH / most;

        monitor_printf(mon, "  below %-8s %12" PRIu64 "  %.*s\n", time_format(member_int(tree, "below-ns"), text), count,
                       (int)bar, "########################################");
    }
}

static void print_loop(struct monitor *mon, const json_t *args, const json_t *result)
{
    uint64_t elapsed = member_int(result, "elapsed-ns");
    char text[32], more[32], work[32];
    size_t i;
    json_t *tree;

    monitor_printf(mon, "%lld turns in %s, %lld callbacks, busy %.1f%%, %lld coroutines\n",
                   member_int(result, "turns"), time_format(elapsed, text), member_int(result, "holds"),
                   elapsed ? 100.0 * member_int(result, "held-ns") / elapsed : 0.0, member_int(result, "coroutines"));
    print_classes(mon, json_object_get(result, "classes"));
    json_array_foreach(json_object_get(result, "longest"), i, tree) {
        monitor_printf(mon, "%s%-8s by %s, %s ago, at work for %s\n", i ? "               " : "longest holds: ",
                       time_format(member_int(tree, "ns"), text), member_text(tree, "name"),
                       time_format(member_int(tree, "ago-ns"), more), time_format(member_int(tree, "work-ns"), work));
    }
}

/* --- info counters --------------------------------------------------------------------------------------------------------- */

static json_t *map_tree(void)
{
    json_t *tree = json_object();

    set(tree, "bytes", chain_map_stats.bytes);
    set(tree, "budget", chain_map_budget());
    set(tree, "fills", chain_map_stats.fills);
    set(tree, "layers-visited", chain_map_stats.layers_visited);
    set(tree, "evictions", chain_map_stats.evictions);
    set(tree, "patches", chain_map_stats.patches);
    return tree;
}

static json_t *tables_tree(void)
{
    json_t *tree = json_object();

    set(tree, "bytes", table_counters.bytes);
    set(tree, "shared-bytes", table_counters.shared_bytes);
    set(tree, "shared-budget", table_counters.shared_budget);
    set(tree, "loads", table_counters.loads);
    set(tree, "evictions", table_counters.evictions);
    set(tree, "bytes-written", table_counters.bytes_written);
    return tree;
}

static json_t *host_tree(void)
{
    json_t *tree = json_object();

    set(tree, "reads", io_stats.reads);
    set(tree, "inline-reads", io_stats.inline_reads);
    set(tree, "bytes-read", io_stats.bytes_read);
    set(tree, "writes", io_stats.writes);
    set(tree, "bytes-written", io_stats.bytes_written);
    set(tree, "copies", io_stats.copies);
    set(tree, "bytes-copied", io_stats.bytes_copied);
    set(tree, "zeroes", io_stats.zeroes);
    set(tree, "discards", io_stats.discards);
    set(tree, "flushes", io_stats.flushes);
    set(tree, "submissions", io_stats.submissions);
    return tree;
}

int co_query_counters(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    *result = json_pack("{s:o, s:o, s:o}", "chain-map", map_tree(), "tables", tables_tree(), "host", host_tree());
    return 0;
}

static void print_counters(struct monitor *mon, const json_t *args, const json_t *result)
{
    const char *part, *key;
    json_t *tree, *value;

    json_object_foreach((json_t *)result, part, tree) {
        monitor_printf(mon, "%s\n", part);
        json_object_foreach(tree, key, value) {
            monitor_printf(mon, "  %-15s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
        }
    }
}

/* --- Rows ------------------------------------------------------------------------------------------------------------------ */

const struct command counter_topics[] = {
    {
        .name = "loop",
        .args = { { "reset", ARG_FLAG, .letter = 'r', .doc = "and begin to count anew" } },
        .params = "[-r]",
        .help = "show who held the program's loop for how long, and how much of it was work",
        .group = "Machine",
        .example = "info loop -r",
        .co_run = co_query_loop,
        .print = print_loop,
        .flags = COMMAND_OURS,
    },
    {
        .name = "counters",
        .params = "",
        .help = "show what the caches hold, and what was asked of the host",
        .group = "Machine",
        .co_run = co_query_counters,
        .print = print_counters,
        .flags = COMMAND_OURS,
    },
    { 0 },
};
