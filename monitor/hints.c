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
#include "monitor/members.h"

#define HINT_NAMES 12 /* how many names a hint lists */

/* --- Where ------------------------------------------------------------------------------------------------------------ */

/* Columns that `len` bytes of a line take; -1 when some of them are no plain characters. */
static int columns(const char *text, size_t len)
{
    int n = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = text[i];

        if (c < ' ' || c == 0x7f) {
            return -1;
        }
        n += (c & 0xc0) != 0x80; /* bytes that go on with a character take no room */
    }
    return n;
}

void hint_caret(struct error *err, const struct monitor *mon, const char *above, const char *line, size_t at, size_t len)
{
    size_t end = at + MAX(len, (size_t)1);
    int before = columns(line, at), width = len ? columns(line + at, len) : 1, all = columns(line, strlen(line));
    unsigned limit = mon->width ? mon->width((struct monitor *)mon) : 0;
    AUTOFREE char *marks = NULL;

    if (before < 0 || width < 1 || all < 0 || (limit && (unsigned)MAX(all, (int)end) > limit)) {
        return;
    }
    marks = mem_alloc(width + 1);
    memset(marks, '~', width);
    marks[0] = '^';
    marks[width] = '\0';
    if (above) {
        error_hint(err, "%s", above);
    }
    error_hint(err, "%*s%s", before, "", marks);
}

/* Below the error's own line, where that holds 'word'. */
static void hint_word(struct error *err, const struct monitor *mon, const char *word)
{
    AUTOFREE char *printed = mem_printf("Error: %s", err->text), *quoted = mem_printf("'%s'", word);
    const char *at = *word ? strstr(printed, quoted) : NULL;

    if (at) {
        hint_caret(err, mon, NULL, printed, at + 1 - printed, strlen(word));
    }
}

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

/* block-stream and blokc_stream are near; "foo" is not near to "stop". */
static struct near near_to(const char *word)
{
    return (struct near){ .word = word, .best = strlen(word) < 6 ? 1 : strlen(word) / 3 };
}

static void consider_word(struct near *near, const char *word)
{
    bool begins = strlen(word) > 1 && *near->word && !strncmp(word, near->word, strlen(near->word));
    unsigned distance = begins ? 1 : word_distance(near->word, word);

    if (distance < near->best) {
        free(near->names.text);
        near->names = (struct name_list){ 0 };
        near->best = distance;
    }
    if (distance == near->best && strlen(word) > 1) {
        name_add(&near->names, word);
    }
}

/* "Did you mean" the near ones of these names, or else all of them.  Frees the near ones. */
static void hint_near(struct error *err, struct near *near, const char *words, struct name_list *all)
{
    if (near->names.count) {
        hint_names(err, "Did you mean:", &near->names);
        free(all->text);
    } else {
        hint_names(err, words, all);
    }
}

static void consider(void *arg, const struct command *cmd)
{
    for (const char *name = cmd->name; *name;) {
        size_t len = strcspn(name, "|");
        AUTOFREE char *one = mem_strndup(name, len);

        consider_word(arg, one);
        name += len + (name[len] == '|');
    }
}

/* --- QMP's names ------------------------------------------------------------------------------------------------------ */

/* Those that no rule finds. */
static const struct {
    const char *qmp, *here;
} twins[] = {
    { "blockdev-snapshot-sync", "snapshot_blkdev" },
    { "query-named-block-nodes", "info block -n" },
    { "query-jobs", "info block-jobs -v" },
    { "query-commands", "help" },
    { "blockdev-change-medium", "change" },
    { "blockdev-open-tray", "eject" },
    { "blockdev-remove-medium", "eject" },
};

/* What the human monitor calls a command of QMP, malloc'ed; NULL: it has none. */
static char *twin(const char *word)
{
    AUTOFREE char *plain = mem_strdup(word), *job = mem_printf("block_%s", word);

    for (size_t i = 0; i < ARRAY_SIZE(twins); i++) {
        if (!strcmp(twins[i].qmp, word)) {
            return mem_strdup(twins[i].here);
        }
    }
    if (!strncmp(word, "query-", 6) && command_find(info_command_tables, word + 6, false)) {
        return mem_printf("info %s", word + 6);
    }
    for (char *p = plain; (p = strchr(p, '-'));) {
        *p = '_';
    }
    for (char *p = job; (p = strchr(p, '-'));) {
        *p = '_';
    }
    return command_find(hmp_command_tables, plain, false) ? mem_strdup(plain) :
           command_find(hmp_command_tables, job, false)   ? mem_strdup(job) :
                                                            NULL;
}

static void hint_qmp(struct error *err, const char *word)
{
    AUTOFREE char *here = twin(word);

    if (here) {
        error_hint(err, "'%s' is a command of QMP; here it is: %s", word, here);
    } else {
        error_hint(err, "'%s' is a command of QMP, and there is none like it here.", word);
    }
}

void hint_command(struct error *err, const struct command *const *tables, const char *prefix, const char *word)
{
    struct near near = near_to(word);

    if (!*prefix && command_find(qmp_command_tables, word, false)) {
        hint_qmp(err, word);
        return;
    }
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

static bool names_device(const char *word, enum arg_kind kind)
{
    return disk_find(word) || (kind == ARG_DEVICE_OR_NODE && node_find(word)) || (kind == ARG_GUEST && disk_find_label(word));
}

static void hint_devices(struct error *err, const char *word, enum arg_kind kind)
{
    bool labels = kind == ARG_GUEST, nodes = kind == ARG_DEVICE_OR_NODE;
    struct name_list disks = { 0 }, images = { 0 };
    struct near near = near_to(word);
    struct disk *disk;
    struct node *node;

    TAILQ_FOREACH(disk, &all_disks, link) {
        const char *name = labels ? disk->label : disk->id;

        if (*name) {
            name_add(&disks, name);
            consider_word(&near, name);
        }
    }
    TAILQ_FOREACH(node, &all_nodes, link) {
        if (nodes && node->driver->is_format) {
            name_add(&images, node->name);
            consider_word(&near, node->name);
        }
    }
    if (near.names.count) {
        free(images.text);
        images = (struct name_list){ 0 };
    }
    hint_near(err, &near, "The devices are:", &disks);
    hint_names(err, "The nodes are:", &images);
}

static void hint_jobs(struct error *err, const char *word)
{
    struct name_list list = { 0 };
    struct near near = near_to(word);
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        name_add(&list, job->id);
        consider_word(&near, job->id);
    }
    if (!list.count) {
        error_hint(err, "No job is running.");
    }
    hint_near(err, &near, "The jobs are:", &list);
}

void hint_chain(struct error *err, const char *device)
{
    struct disk *disk = disk_find(device);
    struct node *top = disk ? disk->root : node_find(device);
    AUTOFREE char *images = top ? chain_candidates(top) : NULL;

    if (!disk && !top) {
        hint_devices(err, device, ARG_DEVICE_OR_NODE);
    } else if (images) {
        error_hint(err, "The images below '%s' are: %s.", device, images);
    } else {
        error_hint(err, "'%s' has no backing file.", device);
    }
}

static void hint_formats(struct error *err, const char *word)
{
    struct name_list list = { 0 };
    struct near near = near_to(word);

    for (const struct driver *const *d = driver_list(); *d; d++) {
        if ((*d)->is_format) {
            name_add(&list, (*d)->name);
            consider_word(&near, (*d)->name);
        }
    }
    hint_near(err, &near, "The formats are:", &list);
}

void hint_arguments(struct error *err, const struct monitor *mon, const struct command *cmd, const json_t *args)
{
    const char *device = NULL;

    if (err->hint) {
        return; /* who failed knew better */
    }
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        const char *value = member_text(args, arg->name);

        if (!value) {
            continue;
        }
        if (arg->kind == ARG_DEVICE || arg->kind == ARG_DEVICE_OR_NODE || arg->kind == ARG_GUEST) {
            device = value;
            if (!names_device(value, arg->kind)) {
                hint_word(err, mon, value);
                hint_devices(err, value, arg->kind);
                return;
            }
        } else if (arg->kind == ARG_JOB && !job_find(value)) {
            hint_word(err, mon, value);
            hint_jobs(err, value);
        } else if (arg->kind == ARG_BASE && device && strstr(err->text, "backing chain")) {
            hint_word(err, mon, value);
            hint_chain(err, device);
        } else if (arg->kind == ARG_FORMAT && !driver_find(value)) {
            hint_word(err, mon, value);
            hint_formats(err, value);
        }
    }
}
