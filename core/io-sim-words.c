/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults of the simulated disk as words: read from a script, drawn from a seed (see
 * io_sim_fault_words()).  What is drawn is words, too, so that whatever it finds can be written
 * down and played again.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io-sim-disk.h"
#include "core/keyval.h"
#include "core/size.h"

#define MAX_ERRNO 134

static const char *const kinds[IO_SIM_FAULT_KINDS] = {
    [IO_SIM_FAULT_ERROR] = "error", [IO_SIM_FAULT_SHORT] = "short",
    [IO_SIM_FAULT_SYNC_DROP] = "sync-drop", [IO_SIM_FAULT_STALL] = "stall",
    [IO_SIM_FAULT_LOST] = "lost", [IO_SIM_FAULT_ASTRAY] = "astray",
    [IO_SIM_FAULT_FLIP] = "flip", [IO_SIM_FAULT_STALE] = "stale",
};

/* --- Words to a fault ------------------------------------------------------------------------- */

static bool take_kind(struct io_sim_fault *fault, const char *value)
{
    for (unsigned i = 0; i < IO_SIM_FAULT_KINDS; i++) {
        if (strcmp(kinds[i], value) == 0) {
            fault->kind = i;
            return true;
        }
    }
    return false;
}

static unsigned op_of(const char *name, size_t len)
{
    for (unsigned bit = 1; bit & IO_SIM_ANY; bit <<= 1) {
        const char *known = io_sim_op_name(bit);

        if (strlen(known) == len && strncmp(known, name, len) == 0) {
            return bit;
        }
    }
    return 0;
}

static bool take_ops(struct io_sim_fault *fault, const char *value)
{
    for (;;) {
        size_t len = strcspn(value, "+");
        unsigned op = op_of(value, len);

        fault->ops |= op;
        if (!op || !value[len]) {
            return op;
        }
        value += len + 1;
    }
}

static bool take_errno(struct io_sim_fault *fault, const char *value)
{
    for (int i = 1; i < MAX_ERRNO; i++) {
        const char *name = strerrorname_np(i);

        if (name && strcmp(name, value) == 0) {
            fault->error = i;
            return true;
        }
    }
    return false;
}

static bool take_number(struct io_sim_fault *fault, const char *key, const char *value)
{
    const struct {
        const char *key;
        uint64_t *to;
    } numbers[] = {
        { "offset", &fault->offset }, { "len", &fault->len },     { "after", &fault->after },
        { "times", &fault->times },   { "ns", &fault->ns },
    };
    bool minus = value[0] == '-' && strcmp(key, "shift") == 0;
    uint64_t number;

    if (size_parse(value + minus, 1, &number, NULL) < 0) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (strcmp(numbers[i].key, key) == 0) {
            *numbers[i].to = number;
            return true;
        }
    }
    if (strcmp(key, "shift") == 0 && number < INT64_MAX) {
        fault->shift = minus ? -(int64_t)number : (int64_t)number;
        return true;
    }
    fault->mask = number;
    return strcmp(key, "mask") == 0 && number && number <= UINT8_MAX;
}

static bool take(struct io_sim_fault *fault, const char *key, const char *value)
{
    if (strcmp(key, "kind") == 0) {
        return take_kind(fault, value);
    }
    if (strcmp(key, "path") == 0) {
        fault->path = value;
        return true;
    }
    return strcmp(key, "ops") == 0     ? take_ops(fault, value)
           : strcmp(key, "errno") == 0 ? take_errno(fault, value)
                                       : take_number(fault, key, value);
}

bool io_sim_fault_words(const char *words, struct error *err)
{
    struct io_sim_fault fault = { .kind = IO_SIM_FAULT_KINDS };
    json_t *flat = keyval_parse(words, "kind", err);
    const char *key;
    json_t *value;
    bool good = flat;

    json_object_foreach(flat, key, value) {
        if (good && !take(&fault, key, json_string_value(value))) {
            error_set(err, "'%s=%s' is no word of a fault", key, json_string_value(value));
            good = false;
        }
    }
    if (good && fault.kind == IO_SIM_FAULT_KINDS) {
        error_set(err, "'%s' does not say which kind of fault", words);
        good = false;
    }
    if (good) {
        io_sim_fault(&fault);
    }
    json_decref(flat);
    return good;
}

/* --- From a seed ------------------------------------------------------------------------------ */

static const char *draw_errno(struct random *random)
{
    static const char *const names[] = { "EIO", "EIO", "ENOSPC", "ENOMEM" };

    return names[random_below(random, ARRAY_SIZE(names))];
}

char *io_sim_fault_draw(struct random *random, unsigned set, uint64_t ops)
{
    enum io_sim_fault_kind kind = 0;
    uint64_t after = random_below(random, ops + 1), times;
    unsigned nth = random_below(random, __builtin_popcount(set)) + 1;

    while (nth -= set >> kind & 1) {
        kind++;
    }
    times = 1 + random_below(random, 4);
    times = times == 4 && kind < IO_SIM_FAULT_STALL ? 0 : times;
    if (kind == IO_SIM_FAULT_ERROR) {
        return mem_printf("error,errno=%s,after=%llu,times=%llu", draw_errno(random),
                          (unsigned long long)after, (unsigned long long)times);
    }
    if (kind == IO_SIM_FAULT_STALL) {
        return mem_printf("stall,ns=%llu,after=%llu,times=%llu",
                          (unsigned long long)random_below(random, 100 * NS_PER_MS),
                          (unsigned long long)after, (unsigned long long)times);
    }
    return mem_printf("%s,after=%llu,times=%llu", kinds[kind], (unsigned long long)after,
                      (unsigned long long)times);
}
