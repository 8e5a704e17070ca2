/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Completion: see completion.h.  The rows know of which kind each argument is; nothing here names a command.
 */
#include "monitor/completion.h"

#include <stdlib.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "jobs/job.h"
#include "monitor/chain-names.h"
#include "monitor/hmp.h"

/* A search under way. */
struct search {
    const struct monitor *mon;
    const char *text;
    struct completion found;
};

static void offer(struct search *s, const char *word)
{
    if (!strncmp(word, s->text, strlen(s->text))) {
        s->found.words = mem_reallocarray(s->found.words, s->found.count + 1, sizeof(char *));
        s->found.words[s->found.count++] = mem_strdup(word);
    }
}

static void offer_word(void *s, const char *word)
{
    offer(s, word);
}

static void offer_all(struct search *s, const char *const *words)
{
    for (; words && *words; words++) {
        offer(s, *words);
    }
}

/* rw=randread is a value of a key: it is offered when the key is there. */
static void offer_words(struct search *s, const char *const *words)
{
    for (; words && *words; words++) {
        if (!strchr(*words, '=') || strchr(s->text, '=')) {
            offer(s, *words);
        }
    }
}

static void offer_keys(struct search *s, const char *const *keys)
{
    for (; keys && *keys; keys++) {
        AUTOFREE char *word = mem_printf("%s=", *keys);

        offer(s, word);
    }
}

/* --- What lives ------------------------------------------------------------------------------------------------------ */

static void offer_row(void *arg, const struct command *cmd)
{
    for (const char *name = cmd->name; *name;) {
        size_t len = strcspn(name, "|");
        AUTOFREE char *one = mem_strndup(name, len);

        offer(arg, one);
        name += len + (name[len] == '|');
    }
}

static void offer_disks(struct search *s, bool labels)
{
    struct disk *disk;

    TAILQ_FOREACH(disk, &all_disks, link) {
        if (labels || *disk->id) {
            offer(s, labels ? disk->label : disk->id);
        }
    }
}

/* Images by their nodes; the files below them only where nothing else is meant. */
static void offer_nodes(struct search *s)
{
    struct node *node;

    TAILQ_FOREACH(node, &all_nodes, link) {
        if (node->driver->is_format || s->text[0] == '#') {
            offer(s, node->name);
        }
    }
}

static void offer_jobs(struct search *s)
{
    struct job *job;

    TAILQ_FOREACH(job, &all_jobs, link) {
        offer(s, job->id);
    }
}

static void offer_bases(struct search *s, const char *device)
{
    struct node *top = disk_or_node(device, NULL);

    for (struct node *overlay = top; overlay && overlay->backing; overlay = overlay->backing) {
        const struct node *n = overlay->backing;

        if (overlay->backing_name) {
            offer(s, overlay->backing_name);
        }
        offer(s, n->filename);
        if (n->name[0] != '#') {
            offer(s, n->name);
        }
    }
}

static void offer_formats(struct search *s)
{
    for (const struct driver *const *d = driver_list(); *d; d++) {
        if ((*d)->is_format) {
            offer(s, (*d)->name);
        }
    }
}

/* --- Arguments --------------------------------------------------------------------------------------------------------- */

static void offer_kind(struct search *s, const struct command *cmd, const struct command_arg *arg, const char *device)
{
    static const char *const on_off[] = { "on", "off", NULL };

    switch (arg->kind) {
    case ARG_DEVICE:
    case ARG_GUEST:
        offer_disks(s, arg->kind == ARG_GUEST);
        break;
    case ARG_DEVICE_OR_NODE:
        offer_disks(s, false);
        offer_nodes(s);
        break;
    case ARG_JOB:
        offer_jobs(s);
        break;
    case ARG_BASE:
        offer_bases(s, device);
        break;
    case ARG_SIZE:
        if (arg[1].kind == ARG_BASE && !s->mon->compat) {
            offer_bases(s, device);
        }
        break;
    case ARG_FORMAT:
        offer_formats(s);
        break;
    case ARG_FILE:
        s->found.files = true;
        break;
    case ARG_BOOL:
        offer_all(s, on_off);
        break;
    case ARG_REST:
        offer_words(s, arg->choices);
        if (!strchr(s->text, '=')) {
            offer_keys(s, arg->keys);
        }
        if (cmd->flags & COMMAND_SCRIPT && !arg->words) { /* wait: words and names in many orders */
            offer_jobs(s);
            offer_disks(s, false);
        }
        break;
    default:
        offer_all(s, arg->choices);
        break;
    }
}

static void offer_flags(struct search *s, const struct command *cmd, bool is_topic)
{
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        if (arg->letter && !(arg->ours && s->mon->compat)) {
            char flag[] = { '-', arg->letter, '\0' };

            offer(s, flag);
        }
    }
    if (is_topic && !s->mon->compat) {
        offer(s, "-json");
    }
}

/* The words in front of the one that is sought. */
struct words {
    char **list;
    size_t count;
};

static struct words split(const char *line, size_t len)
{
    AUTOFREE char *part = mem_strndup(line, len);
    const char *p = part;
    struct words words = { 0 };
    char *word;

    while ((word = hmp_word(&p, NULL))) {
        words.list = mem_reallocarray(words.list, words.count + 1, sizeof(char *));
        words.list[words.count++] = word;
    }
    return words;
}

static const struct command_arg *letter_find(const struct command *cmd, char letter)
{
    for (const struct command_arg *arg = cmd->args; arg->name; arg++) {
        if (letter && arg->letter == letter) {
            return arg;
        }
    }
    return NULL;
}

static const struct command_arg *behind_letters(const struct command_arg *arg)
{
    while (arg->name && arg->letter) {
        arg++;
    }
    return arg;
}

/* The argument that comes next behind the given words (those behind the command), and the device among them. */
static const struct command_arg *next_arg(const struct command *cmd, char **words, size_t count, const char **device)
{
    const struct command_arg *arg = cmd->args;

    arg = behind_letters(arg);
    for (size_t i = 0; i < count && arg->name; i++) {
        if (words[i][0] == '-') {
            const struct command_arg *option = letter_find(cmd, words[i][1]);

            i += option && option->kind == ARG_TIME && !words[i][2]; /* its value */
            continue;
        }
        if (arg->kind == ARG_DEVICE || arg->kind == ARG_DEVICE_OR_NODE) {
            *device = words[i];
        }
        if (arg->kind != ARG_REST) { /* which goes on to the end */
            arg = behind_letters(arg + 1);
        }
    }
    return arg->name ? arg : NULL;
}

static void find(struct search *s, const struct words *words)
{
    const struct command *const *tables = hmp_command_tables;
    bool compat = s->mon->compat, is_topic = false;
    const char *device = NULL;
    const struct command *cmd;
    const struct command_arg *arg;
    size_t used = 1;

    if (!words->count) {
        command_each(tables, compat, offer_row, s);
        return;
    }
    cmd = command_find(tables, words->list[0], compat);
    if (cmd && cmd->args[0].name && cmd->args[0].kind == ARG_COMMAND) { /* help: as if it were not there */
        struct words rest = { words->list + 1, words->count - 1 };

        if (words->count == 1 || (words->count == 2 && !strcmp(words->list[1], "info"))) {
            find(s, &rest);
        }
        return;
    }
    if (cmd && cmd->args[0].name && cmd->args[0].kind == ARG_TOPIC) {
        tables = info_command_tables;
        if (words->count == 1) {
            command_each(tables, compat, offer_row, s);
            return;
        }
        cmd = command_find(tables, words->list[1], compat);
        is_topic = true;
        used = 2;
    }
    if (!cmd) {
        return;
    }
    if (s->text[0] == '-') {
        offer_flags(s, cmd, is_topic);
        return;
    }
    arg = next_arg(cmd, words->list + used, words->count - used, &device);
    if (!arg) {
        return;
    }
    offer_kind(s, cmd, arg, device);
    if (arg->words) {
        arg->words(words->list[words->count - 1], s->text, offer_word, s);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct completion completion_find(const struct monitor *mon, const char *line, size_t start, const char *text)
{
    struct search s = { .mon = mon, .text = text };
    struct words words = split(line, start);
    size_t kept = 0;

    find(&s, &words);
    for (size_t i = 0; i < words.count; i++) {
        free(words.list[i]);
    }
    free(words.list);
    if (s.found.count) {
        qsort(s.found.words, s.found.count, sizeof(char *), by_text);
    }
    for (size_t i = 0; i < s.found.count; i++) {
        if (kept && !strcmp(s.found.words[kept - 1], s.found.words[i])) {
            free(s.found.words[i]);
        } else {
            s.found.words[kept++] = s.found.words[i];
        }
    }
    s.found.count = kept;
    return s.found;
}

void completion_free(struct completion *found)
{
    for (size_t i = 0; i < found->count; i++) {
        free(found->words[i]);
    }
    free(found->words);
}
