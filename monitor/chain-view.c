/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chains as trees and drawings: see chain-view.h.
 */
#include "monitor/chain-view.h"

#include <string.h>

#include "block/chain-map.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/block-tree.h"
#include "monitor/chain-names.h"
#include "monitor/members.h"

struct node *chain_root(const char *name, struct disk **disk, struct error *err)
{
    *disk = disk_find(name);
    if (!*disk && !node_find(name)) {
        *disk = disk_find_label(name);
    }
    if (!*disk) {
        return disk_or_node(name, err);
    }
    if (!(*disk)->root) {
        error_set(err, "Device '%s' has no medium", name);
    }
    return (*disk)->root;
}

/* --- The tree ----------------------------------------------------------------------------------------------------- */

static void set(json_t *tree, const char *key, json_t *value)
{
    json_object_set_new(tree, key, value);
}

static bool is_data(enum extent_kind kind)
{
    return kind == EXTENT_DATA || kind == EXTENT_COMPRESSED || kind == EXTENT_OPAQUE;
}

/* Bytes of data that the layer itself has tables for. */
static uint64_t co_bytes_held(struct node *node)
{
    uint64_t held = 0;
    struct extent e;

    if (!node->driver->co_map) {
        return node->size;
    }
    for (uint64_t at = 0; at < node->size; at += e.len) {
        if (co_node_map_own(node, at, node->size - at, &e)) {
            break; /* what cannot be read is not held; or it has become smaller */
        }
        held += is_data(e.kind) ? e.len : 0;
        co_take_turns();
    }
    return held;
}

/* For each layer the bytes that a reader of the root gets from it. */
static void co_bytes_seen(struct node *root, const struct node_set *chain, uint64_t *seen)
{
    struct chain_map *map = chain_map_get(root); /* so that it is filled once */
    struct chain_extent e;

    for (uint64_t at = 0; at < root->size; at += e.len) {
        if (co_node_map(root, at, root->size - at, &e)) {
            break; /* it has become smaller */
        }
        if (is_data(e.kind) && e.depth < chain->count) {
            seen[e.depth] += e.len;
        }
        co_take_turns();
    }
    chain_map_put(map);
}

static bool has_device(const struct disk *disk)
{
    struct machine_device *dev;

    TAILQ_FOREACH(dev, &machine_devices, link) {
        if (dev->disk == disk) {
            return true;
        }
    }
    return false;
}

/* Which layers of the chain does the job use?  The range between the topmost (it is written) and the lowest. */
static bool job_range(const struct job *job, const struct node_set *chain, size_t *top, size_t *low)
{
    const struct job_hold *hold;
    bool any = false;

    LIST_FOREACH(hold, &job->holds, link) {
        for (size_t i = 0; i < chain->count; i++) {
            if (chain->nodes[i] == hold->node) {
                *top = any ? MIN(*top, i) : i;
                *low = any ? MAX(*low, i) : i;
                any = true;
            }
        }
    }
    return any;
}

static json_t *writers_of(const struct disk *disk, const struct node_set *chain, size_t i)
{
    json_t *writers = json_array();
    struct job *job;
    size_t top, low;

    if (i == 0 && disk && !chain->nodes[0]->read_only && has_device(disk)) {
        json_array_append_new(writers, json_string("guest"));
    }
    TAILQ_FOREACH(job, &all_jobs, link) {
        if (job_range(job, chain, &top, &low) && top == i) {
            AUTOFREE char *text = mem_printf("job %s", job->id);

            json_array_append_new(writers, json_string(text));
        }
    }
    return writers;
}

static json_t *layer_tree(const struct node *node, const char *name, json_t *writers)
{
    json_t *tree = json_object();

    member_set_text(tree, "name", name);
    set(tree, "node-name", json_string(node->name));
    member_set_text(tree, "file", node->filename);
    set(tree, "format", json_string(node->driver->name));
    set(tree, "size", json_integer(node->size));
    set(tree, "holds", json_null()); /* counted later */
    set(tree, "seen", json_null());
    set(tree, "read-only", json_boolean(node->read_only));
    set(tree, "writers", writers);
    return tree;
}

static json_t *jobs_tree(const struct node_set *chain)
{
    json_t *jobs = json_array();
    struct job *job;
    size_t top, low;

    TAILQ_FOREACH(job, &all_jobs, link) {
        json_t *tree;

        if (job_ended(job) || !job_range(job, chain, &top, &low)) {
            continue;
        }
        tree = json_object();
        set(tree, "id", json_string(job->id));
        set(tree, "type", json_string(job->kind->name));
        set(tree, "status", json_string(job_status_name(job->status)));
        set(tree, "from", json_integer(chain->count - 1 - low));
        set(tree, "to", json_integer(chain->count - 1 - top));
        set(tree, "done", json_integer(job_data_total(job) ? job->data_done : job->offset));
        set(tree, "total", json_integer(job_data_total(job) ? job_data_total(job) : job->len));
        json_array_append_new(jobs, tree);
    }
    return jobs;
}

/* The chain as it is now is kept while its layers are counted; a job that ends meanwhile takes nothing away from us. */
json_t *co_chain_tree(struct disk *disk, struct node *root)
{
    json_t *tree = json_object(), *layers = json_array();
    struct node_set chain = { 0 };
    AUTOFREE uint64_t *seen = NULL;
    char **labels;
    size_t count = 0;

    if (disk) {
        set(tree, "device", json_string(disk->label));
    }
    node_set_add_chain(&chain, root);
    labels = root ? chain_labels(root, &count) : NULL;
    set(tree, "size", json_integer(root ? root->size : 0));
    set(tree, "jobs", jobs_tree(&chain));
    set(tree, "layers", layers);
    seen = mem_calloc(count + 1, sizeof(*seen));
    for (size_t i = count; i > 0; i--) {
        struct node *node = chain.nodes[i - 1];
        json_t *writers = writers_of(disk, &chain, i - 1);

        json_array_append_new(layers, layer_tree(node, labels[i - 1], writers));
    }
    /* From here on it suspends, and `disk` may go. */
    if (root) {
        co_bytes_seen(root, &chain, seen);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *layer = json_array_get(layers, count - 1 - i);

        set(layer, "holds", json_integer(co_bytes_held(chain.nodes[i])));
        set(layer, "seen", json_integer(seen[i]));
    }
    chain_labels_free(labels, count);
    co_node_set_free(&chain);
    return tree;
}

/* --- The drawing ----------------------------------------------------------------------------------------------------- */

#define INDENT 2
#define ARROW_GAP " <- "

static size_t box_width(const json_t *layer)
{
    return strlen(member_text(layer, "name")) + 2;
}

/* The column of the middle of box `index`. */
static size_t box_middle(const json_t *layers, size_t index)
{
    size_t column = INDENT;

    for (size_t i = 0; i < index; i++) {
        column += box_width(json_array_get(layers, i)) + strlen(ARROW_GAP);
    }
    return column + (box_width(json_array_get(layers, index)) - 1) / 2;
}

static char *job_words(const json_t *job)
{
    uint64_t done = member_int(job, "done"), total = member_int(job, "total");
    const char *status = member_text(job, "status");
    bool running = !strcmp(status, "running");

    return mem_printf(" %s %.0f%%%s%s ", member_text(job, "type"), total ? 100.0 * done / total : 0.0, running ? "" : ", ",
                      running ? "" : status);
}

/* ",-- stream 45% --v" from the middle of one box to the middle of another. */
static void draw_job(struct monitor *mon, const json_t *layers, const json_t *job)
{
    size_t from = box_middle(layers, member_int(job, "from")), to = box_middle(layers, member_int(job, "to"));
    AUTOFREE char *words = job_words(job);
    size_t room = to - from - 1, len = strlen(words);
    size_t before = len < room ? (room - len) / 2 : room;

    monitor_printf(mon, "%*s,", (int)from, "");
    for (size_t i = 0; i < before; i++) {
        monitor_puts(mon, "-");
    }
    if (len < room) {
        monitor_puts(mon, words);
        for (size_t i = before + len; i < room; i++) {
            monitor_puts(mon, "-");
        }
    }
    monitor_printf(mon, "v%s\n", len < room ? "" : words);
}

static void draw_boxes(struct monitor *mon, const json_t *layers, size_t width)
{
    size_t i, column = INDENT;
    json_t *layer;

    monitor_printf(mon, "%*s", INDENT, "");
    json_array_foreach(layers, i, layer) {
        size_t need = box_width(layer) + (i ? strlen(ARROW_GAP) : 0);

        if (i && width && column + need > width) {
            monitor_printf(mon, "\n%*s", INDENT, "");
            column = INDENT;
        }
        monitor_printf(mon, "%s[%s]", i ? (column == INDENT ? &ARROW_GAP[1] : ARROW_GAP) : "", member_text(layer, "name"));
        column += need;
    }
    monitor_puts(mon, "\n");
}

/* Whether all boxes fit one line; arrows can be drawn over such a line only. */
static bool fits(const json_t *layers, size_t width)
{
    size_t i, need = INDENT;
    json_t *layer;

    json_array_foreach(layers, i, layer) {
        need += box_width(layer) + (i ? strlen(ARROW_GAP) : 0);
    }
    return !width || need <= width;
}

static void draw_jobs(struct monitor *mon, const json_t *layers, const json_t *jobs, bool as_arrows)
{
    size_t i;
    json_t *job;

    json_array_foreach(jobs, i, job) {
        if (member_int(job, "from") == member_int(job, "to")) {
            continue; /* nothing lies between: there is nothing to copy */
        }
        if (as_arrows) {
            draw_job(mon, layers, job);
        } else {
            AUTOFREE char *words = job_words(job);

            monitor_printf(mon, "%*s%s:%sfrom [%s] to [%s]\n", INDENT, "", member_text(job, "id"), words,
                           member_text(json_array_get(layers, member_int(job, "from")), "name"),
                           member_text(json_array_get(layers, member_int(job, "to")), "name"));
        }
    }
}

/* --- The table below it --------------------------------------------------------------------------------------------------- */

enum { COLUMNS = 8 };
static const char *const titles[COLUMNS] = { "image", "node", "file", "format", "size", "holds", "seen", "written by" };

static char *join_writers(const json_t *writers)
{
    char *text = NULL;
    size_t i;
    json_t *one;

    json_array_foreach(writers, i, one) {
        char *longer = text ? mem_printf("%s, %s", text, json_string_value(one)) : mem_strdup(json_string_value(one));

        free(text);
        text = longer;
    }
    return text ? text : mem_strdup("-");
}

static void fill_row(char *cells[COLUMNS], const json_t *layer)
{
    static const char *const sizes[] = { "size", "holds", "seen" };
    char buf[32];

    cells[0] = mem_strdup(member_text(layer, "name"));
    cells[1] = mem_strdup(member_text(layer, "node-name"));
    cells[2] = mem_strdup(member_text(layer, "file"));
    cells[3] = mem_strdup(member_text(layer, "format"));
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        cells[4 + i] = mem_strdup(size_format_plain(member_int(layer, sizes[i]), buf));
    }
    cells[7] = join_writers(json_object_get(layer, "writers"));
}

static void print_table(struct monitor *mon, const json_t *layers)
{
    size_t rows = json_array_size(layers), widths[COLUMNS];
    AUTOFREE char **cells = mem_calloc(rows * COLUMNS, sizeof(*cells));

    for (size_t c = 0; c < COLUMNS; c++) {
        widths[c] = strlen(titles[c]);
    }
    for (size_t r = 0; r < rows; r++) {
        fill_row(&cells[r * COLUMNS], json_array_get(layers, r));
        for (size_t c = 0; c < COLUMNS; c++) {
            widths[c] = MAX(widths[c], strlen(cells[r * COLUMNS + c]));
        }
    }
    for (size_t r = 0; r <= rows; r++) {
        monitor_printf(mon, "%*s", INDENT, "");
        for (size_t c = 0; c < COLUMNS; c++) {
            const char *text = r ? cells[(r - 1) * COLUMNS + c] : titles[c];

            if (c + 1 < COLUMNS) {
                monitor_printf(mon, "%-*s  ", (int)widths[c], text);
            } else {
                monitor_printf(mon, "%s\n", text);
            }
        }
    }
    for (size_t i = 0; i < rows * COLUMNS; i++) {
        free(cells[i]);
    }
}

static void print_chain(struct monitor *mon, const json_t *tree)
{
    const json_t *layers = json_object_get(tree, "layers");
    size_t count = json_array_size(layers), width = mon->width ? mon->width(mon) : 0;
    const char *device = member_text(tree, "device");
    bool one_line = fits(layers, width);
    char text[32];

    if (!count) {
        monitor_printf(mon, "%s: no medium\n", device);
        return;
    }
    if (!device) {
        device = member_text(json_array_get(layers, count - 1), "node-name");
    }
    monitor_printf(mon, "%s: %s\n", device, size_format_plain(member_int(tree, "size"), text));
    draw_jobs(mon, layers, json_object_get(tree, "jobs"), one_line);
    draw_boxes(mon, layers, width);
    monitor_puts(mon, "\n");
    print_table(mon, layers);
}

void chain_view_print(struct monitor *mon, const json_t *args, const json_t *result)
{
    size_t i;
    json_t *tree;

    json_array_foreach(result, i, tree) {
        if (i) {
            monitor_puts(mon, "\n");
        }
        print_chain(mon, tree);
    }
}
