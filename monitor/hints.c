/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hints: see hints.h.  The rows say of which kind each argument is, so one function serves all commands.
 */
#include "monitor/hints.h"

#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "monitor/chain-names.h"

#define HINT_NAMES 12 /* how many names a hint lists */

/* --- Near words ---------------------------------------------------------------------------------------------------- */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    return MIN(MIN(a, b), c);
}

unsigned word_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    AUTOFREE unsigned *rows = mem_calloc(3 * (m + 1), sizeof(*rows));
    unsigned *two_up = rows, *up = rows + m + 1, *row = rows + 2 * (m + 1);

    for (size_t j = 0; j <= m; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        unsigned *spare = two_up;

        two_up = up;
        up = row;
        row = spare;
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = MIN(row[j], two_up[j - 2] + 1);
            }
        }
    }
    return row[m];
}

/* Names in a hint: the first few, comma-separated. */
struct name_list {
    char *text;
    size_t count;
};

static void name_add(struct name_list *list, const char *name)
{
    if (++list->count <= HINT_NAMES) {
        char *longer = list->text ? mem_printf("%s, %s", list->text, name) : mem_strdup(name);

        free(list->text);
        list->text = longer;
    }
}

/* Append "<words> a, b and 3 more."; nothing when the list is empty.  Frees it. */
static void hint_names(struct error *err, const char *words, struct name_list *list)
{
    if (list->count > HINT_NAMES) {
        error_hint(err, "%s %s and %zu more.", words, list->text, list->count - HINT_NAMES);
    } else if (list->count) {
        error_hint(err, "%s %s.", words, list->text);
    }
    free(list->text);
}

struct near {
    const char *word;
    unsigned best;
    struct name_list names;
};

static void consider(void *arg, const struct command *cmd)
{
    struct near *near = arg;

    for (const char *name = cmd->name; *name;) {
        size_t len = strcspn(name, "|");
        AUTOFREE char *one = mem_strndup(name, len);
        bool begins = len > 1 && !strncmp(one, near->word, strlen(near->word));
        unsigned distance = begins ? 1 : word_distance(near->word, one);

        if (distance < near->best) {
            free(near->names.text);
            near->names = (struct name_list){ 0 };
            near->best = distance;
        }
        if (distance == near->best && len > 1) {
            name_add(&near->names, one);
        }
        name += len + (name[len] == '|');
    }
}

void hint_command(struct error *err, const struct command *const *tables, const char *prefix, const char *word)
{
    /* block-stream and blokc_stream are near; "foo" is not near to "stop". */
    struct near near = { .word = word, .best = strlen(word) < 6 ? 1 : strlen(word) / 3 };

    if (*word) {
        command_each(tables, false, consider, &near);
    }
    if (near.names.count) {
        hint_names(err, "Did you mean:", &near.names);
    } else {
        error_hint(err, "Type '%s' for a list.", *prefix ? "info" : "help");
    }
}

/* --- What exists ----------------------------------------------------------------------------------------------------- */

static void hint_devices(struct error *err, bool nodes)
{
    struct name_list list = { 0 };
    struct disk *disk;
    struct node *node;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (*disk->id) {
            name_add(&list, disk->id);
        }
    }
    hint_names(err, "The devices are:", &list);
    list = (struct name_list){ 0 };
    TAILQ_FOREACH(node, &all_nodes, link) {
        if (nodes && node->driver->is_format) {
            name_add(&list, node->name);
        }
    }
    hint_names(err, "The nodes are:", &list);
}

static void hint_jobs(struct error *err)
{
    struct name_list list = { 0 };
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        name_add(&list, job->id);
    }
    if (!list.count) {
        error_hint(err, "No job is running.");
    }
    hint_names(err, "The jobs are:", &list);
}

void hint_chain(struct error *err, const char *device)
{
    struct disk *disk = disk_find(device);
    struct node *top = disk ? disk->root : node_find(device);
    AUTOFREE char *images = top ? chain_candidates(top) : NULL;

    if (!disk && !top) {
        hint_devices(err, true);
    } else if (images) {
        error_hint(err, "The images below '%s' are: %s.", device, images);
    } else {
        error_hint(err, "'%s' has no backing file.", device);
    }
}

static void hint_formats(struct error *err)
{
    struct name_list list = { 0 };

    for (const struct driver *const *d = driver_list(); *d; d++) {
        if ((*d)->is_format) {
            name_add(&list, (*d)->name);
        }
    }
    hint_names(err, "The formats are:", &list);
}

void hint_arguments(struct error *err, const struct command *cmd, const json_t *args)
{
    const char *device = NULL;

    if (err->hint) {
        return; /* who failed knew better */
    }
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        const char *value = json_string_value(json_object_get(args, arg->name));

        if (!value) {
            continue;
        }
        if (arg->kind == ARG_DEVICE || arg->kind == ARG_DEVICE_OR_NODE) {
            device = value;
            if (!disk_find(value) && (arg->kind == ARG_DEVICE || !node_find(value))) {
                hint_devices(err, arg->kind != ARG_DEVICE);
                return;
            }
        } else if (arg->kind == ARG_JOB && !job_find(value)) {
            hint_jobs(err);
        } else if (arg->kind == ARG_BASE && device && strstr(err->text, "backing chain")) {
            hint_chain(err, device);
        } else if (arg->kind == ARG_FORMAT && !driver_find(value)) {
            hint_formats(err);
        }
    }
}
