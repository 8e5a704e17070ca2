/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands from tables: see monitor-words.h.
 *
 * Words are those of the bench (monitor-bench.h): one disk with three images, and names for what commands make.
 */
#include "tests/fuzz/lib/monitor-words.h"

#include <string.h>

#include "block/blockdev.h"
#include "monitor/monitor.h"
#include "monitor/qmp-text.h"

#define DEPTH_MAX 4u

static const char *const names[] = { "virtio0", "node-C", "node-S", "node-N", "j", "", "#block0", "/machine", "all", "d", "v",
                                     "ide-hd", "virtio-blk-device" };
static const char *const files[] = { "/B.img", "/C.img", "/disk", "/S.img", "/N.img", "/script", "json:{\"driver\":\"null-co\"}" };
static const char *const formats[] = { "qcow2", "raw", "file", "null-co", "throttle", "copy-on-read", "blkdebug" };
static const char *const drivers[] = { "qcow2", "raw", "virtio-blk-device", "ide-hd" };
static const char *const sizes[] = { "0", "1", "512", "64k", "1M", "1.5G", "9223372036854775807", "-1", "1E" };
static const char *const times[] = { "1ms", "2", "500us", "1s" };
static const char *const rests[] = { "read 0 64k", "write -P 7 4k 4k", "write -z 0 64k", "aio_write 0 4k", "aio_flush", "flush",
                                     "discard 0 8k", "map", "rw=randwrite,bs=4k", "iodepth=4", "stop", "info block",
                                     "if=none,id=d,file=/B.img,format=qcow2", "virtio-blk-device,drive=d,id=v",
                                     "driver=qcow2,node-name=node-N,file.driver=file,file.filename=/B.img" };

#define PICK(list, rnd) ((list)[random_below(rnd, ARRAY_SIZE(list))])

static const char *pick_choice(const char *const *choices, struct random *rnd)
{
    size_t n = 0;

    while (choices && choices[n]) {
        n++;
    }
    return n ? choices[random_below(rnd, n)] : "";
}

/* What a string under this name is likely to be. */
static const char *string_for(const char *name, struct random *rnd)
{
    if (random_below(rnd, 16) == 0) {
        return PICK(rests, rnd);
    }
    if (strstr(name, "file") || strstr(name, "path") || strstr(name, "backing")) {
        return PICK(files, rnd);
    }
    if (strcmp(name, "driver") == 0) {
        return PICK(drivers, rnd);
    }
    return strstr(name, "format") || strstr(name, "fmt") ? PICK(formats, rnd) : PICK(names, rnd);
}

/* --- JSON ---------------------------------------------------------------------------------------------------------- */

static json_t *some_integer(struct random *rnd)
{
    return json_integer(random_below(rnd, 2) ? (json_int_t)random_below(rnd, 1 << 20) / 512 * 512
                                             : (json_int_t)fuzz_boundary(rnd));
}

static json_t *tree_for(const struct block_key *key, unsigned depth, struct random *rnd);

/* Members of one level: those that are required, some of the others, seldom all right. */
static void add_members(json_t *object, const struct block_key *members, unsigned depth, struct random *rnd)
{
    for (const struct block_key *m = members; m && m->name; m++) {
        if (m->required ? random_below(rnd, 32) : random_below(rnd, 8) == 0) {
            json_object_set_new(object, m->name, tree_for(m, depth + 1, rnd));
        }
    }
}

static void add_variant(json_t *object, const struct block_key *key, unsigned depth, struct random *rnd)
{
    size_t n = 0;

    while (key->variants && key->variants[n].value) {
        n++;
    }
    if (!n) {
        return;
    }
    const struct block_variant *v = &key->variants[random_below(rnd, n)];

    json_object_set_new(object, key->tag, json_string(v->value));
    add_members(object, v->members, depth, rnd);
}

static json_t *object_for(const struct block_key *key, unsigned depth, struct random *rnd)
{
    json_t *object = json_object();

    add_members(object, key->members, depth, rnd);
    add_variant(object, key, depth, rnd);
    return object;
}

/* A node's options, or what an image is made from. */
static json_t *node_for(bool create, unsigned depth, struct random *rnd)
{
    const struct driver *driver = driver_find(PICK(formats, rnd));

    if (!driver) {
        return json_string(PICK(names, rnd));
    }
    json_t *object = json_object();

    json_object_set_new(object, "driver", json_string(driver->name));
    add_members(object, create ? driver->create_keys : driver->keys, depth, rnd);
    if (!create && random_below(rnd, 2)) {
        add_members(object, block_common_keys, depth, rnd);
        json_object_set_new(object, "node-name", json_string(PICK(names, rnd)));
        json_object_set_new(object, "driver", json_string(driver->name));
    }
    return object;
}

static json_t *list_of(const struct block_key *key, unsigned depth, struct random *rnd)
{
    json_t *list = json_array();

    for (uint64_t n = random_below(rnd, 4); n-- > 0;) {
        json_array_append_new(list, key ? object_for(key, depth, rnd) : node_for(false, depth, rnd));
    }
    return list;
}

static json_t *tree_for(const struct block_key *key, unsigned depth, struct random *rnd)
{
    if (depth > DEPTH_MAX) {
        return json_string(PICK(names, rnd));
    }
    switch (key->kind) {
    case KEY_BOOL:
        return json_boolean(random_below(rnd, 2));
    case KEY_INT:
    case KEY_SIZE:
    case KEY_UINT64:
        return some_integer(rnd);
    case KEY_ENUM:
        return json_string(pick_choice(key->choices, rnd));
    case KEY_NODE:
    case KEY_NODE_OR_NULL:
        return random_below(rnd, 2) ? json_string(PICK(names, rnd)) : node_for(false, depth, rnd);
    case KEY_NODES:
        return list_of(NULL, depth, rnd);
    case KEY_CREATE:
        return node_for(true, depth, rnd);
    case KEY_OBJECT:
        return object_for(key, depth, rnd);
    case KEY_LIST:
        return list_of(key, depth, rnd);
    default:
        return json_string(string_for(key->name, rnd));
    }
}

static json_t *value_for(const struct command_arg *arg, struct random *rnd)
{
    switch (arg->kind) {
    case ARG_SIZE:
    case ARG_TIME:
    case ARG_INT:
        return some_integer(rnd);
    case ARG_BOOL:
    case ARG_FLAG:
        return json_boolean(random_below(rnd, 2));
    case ARG_ENUM:
        return json_string(pick_choice(arg->choices, rnd));
    case ARG_TREE:
        return tree_for(arg->tree, 0, rnd);
    default:
        return json_string(string_for(arg->name, rnd));
    }
}

static bool wanted(const struct command_arg *arg, struct random *rnd)
{
    return arg->optional ? random_below(rnd, 3) == 0 : random_below(rnd, 32);
}

/* --- Rows ---------------------------------------------------------------------------------------------------------- */

struct choice {
    const struct command *row;
    uint64_t left;
};

static void count_row(void *arg, const struct command *row)
{
    ++*(uint64_t *)arg;
}

static void take_row(void *arg, const struct command *row)
{
    struct choice *choice = arg;

    if (choice->left-- == 0) {
        choice->row = row;
    }
}

static const struct command *some_row(const struct command *const *tables, struct random *rnd)
{
    uint64_t n = 0;

    command_each(tables, false, count_row, &n);
    struct choice choice = { .left = random_below(rnd, n) };

    command_each(tables, false, take_row, &choice);
    return choice.row;
}

char *fuzz_qmp_command(struct random *rnd)
{
    const struct command *row = some_row(qmp_command_tables, rnd);
    json_t *args = row->whole ? node_for(false, 0, rnd) : json_object();

    for (const struct command_arg *a = row->args; a->name; a++) {
        if (wanted(a, rnd)) {
            json_object_set_new(args, a->name, value_for(a, rnd));
        }
    }
    if (json_is_object(args) && row->whole && random_below(rnd, 2)) {
        json_object_set_new(args, "id", json_string(PICK(names, rnd)));
    }
    json_t *command = json_pack("{s:s, s:o}", "execute", row->name, "arguments", args);
    AUTOFREE char *text = qmp_print(command);

    json_decref(command);
    return mem_printf("%s\n", text);
}

/* --- Words --------------------------------------------------------------------------------------------------------- */

static const char *word_for(const struct command_arg *arg, struct random *rnd)
{
    switch (arg->kind) {
    case ARG_BASE:
    case ARG_FILE:
        return PICK(files, rnd);
    case ARG_FORMAT:
        return PICK(formats, rnd);
    case ARG_SIZE:
    case ARG_INT:
        return PICK(sizes, rnd);
    case ARG_TIME:
        return PICK(times, rnd);
    case ARG_BOOL:
        return random_below(rnd, 2) ? "on" : "off";
    case ARG_ENUM:
        return pick_choice(arg->choices, rnd);
    case ARG_REST:
        return arg->choices && random_below(rnd, 2) ? pick_choice(arg->choices, rnd) : PICK(rests, rnd);
    case ARG_COMMAND:
        return some_row(hmp_command_tables, rnd)->name;
    case ARG_TOPIC:
        return some_row(info_command_tables, rnd)->name;
    default:
        return string_for(arg->name, rnd);
    }
}

char *fuzz_human_line(struct random *rnd)
{
    static const char *const prefixes[] = { "", "", "", "", "", "-", "!", "-json ", "  " };
    const struct command *row = some_row(hmp_command_tables, rnd);
    char *line = mem_printf("%s%.*s", PICK(prefixes, rnd), (int)strcspn(row->name, "|"), row->name);

    for (const struct command_arg *a = row->args; a->name; a++) {
        if (!wanted(a, rnd)) {
            continue;
        }
        const char *value = a->kind == ARG_FLAG ? "" : word_for(a, rnd);
        const char *quote = strchr(value, ' ') && a->kind != ARG_REST ? "\"" : "";
        char letter[4] = { ' ', '-', a->letter, 0 };
        char *longer = mem_printf("%s%s%s%s%s%s", line, a->letter ? letter : "", *value ? " " : "", quote, value, quote);

        free(line);
        line = longer;
    }
    char *whole = mem_printf("%s\n", line);

    free(line);
    return whole;
}

/* --- Lines --------------------------------------------------------------------------------------------------------- */

/* Where the line ends that `at` lies in, its newline included. */
static size_t line_end(const uint8_t *data, size_t at, size_t len)
{
    const uint8_t *stop = memchr(data + at, '\n', len - at);

    return stop ? (size_t)(stop - data) + 1 : len;
}

size_t fuzz_mutate_lines(uint8_t *data, size_t len, size_t max, size_t from, char *(*make)(struct random *rnd),
                         struct random *rnd)
{
    AUTOFREE char *line = make(rnd);
    size_t n = strlen(line);

    if (len < from) {
        memset(data + len, 0, from - len);
        len = from;
    }
    size_t at = line_end(data, from + random_below(rnd, len - from + 1), len);
    size_t next = at < len && random_below(rnd, 3) == 0 ? line_end(data, at, len) : at;

    if (len - (next - at) + n > max) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    memmove(data + at + n, data + next, len - next);
    memcpy(data + at, line, n);
    return len - (next - at) + n;
}
