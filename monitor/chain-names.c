/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of images in a chain: see chain-names.h.
 */
#include "monitor/chain-names.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/path.h"
#include "core/mem.h"

enum { NAME_NODE, NAME_FILE, NAME_BASE, NAME_STEM, NAME_TAIL, NAME_KINDS };
#define HINT_IMAGES 8 /* a chain of 1,000 is not listed in a hint */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

/* The length of a base name without its suffix; a leading dot begins no suffix. */
static size_t stem_length(const char *base)
{
    const char *dot = strrchr(base, '.');

    return dot && dot != base ? (size_t)(dot - base) : strlen(base);
}

/* What follows the last '-' of `len` bytes, NULL when nothing does. */
static const char *tail_of(const char *text, size_t len, size_t *tail_len)
{
    size_t i = len;

    while (i > 0 && text[i - 1] != '-') {
        i--;
    }
    *tail_len = len - i;
    return i > 0 && i < len ? text + i : NULL;
}

static bool equal(const char *text, size_t len, const char *name)
{
    return text && strlen(name) == len && !strncmp(text, name, len);
}

static bool tail_fits(const char *text, size_t len, const char *name)
{
    size_t tail_len;
    const char *tail = tail_of(text, len, &tail_len);

    return equal(tail, tail_len, name);
}

static bool fits(const struct node *node, const struct node *overlay, int kind, const char *name)
{
    const char *base = base_name(node->filename);

    switch (kind) {
    case NAME_NODE:
        return !strcmp(node->name, name);
    case NAME_FILE:
        return !strcmp(node->filename, name) || path_same(node->filename, name) ||
               (overlay && overlay->backing_name && !strcmp(overlay->backing_name, name));
    case NAME_BASE:
        return !strcmp(base, name);
    case NAME_STEM:
        return equal(base, stem_length(base), name);
    default:
        return tail_fits(base, stem_length(base), name) ||
               (node->name[0] != '#' && tail_fits(node->name, strlen(node->name), name));
    }
}

bool chain_name_fits(const struct node *node, const struct node *overlay, const char *name)
{
    for (int kind = 0; kind < NAME_KINDS && *name; kind++) {
        if (fits(node, overlay, kind, name)) {
            return true;
        }
    }
    return false;
}

struct node *chain_find_below(struct node *top, const char *name, struct error *err)
{
    if (!*name) {
        return NULL;
    }
    for (int kind = 0; kind < NAME_KINDS; kind++) {
        struct node *found = NULL, *overlay = top;

        for (struct node *n = top->backing; n; overlay = n, n = n->backing) {
            if (!fits(n, overlay, kind, name)) {
                continue;
            }
            if (found) {
                error_set(err, "'%s' could be '%s' or '%s' of the backing chain", name, found->filename, n->filename);
                return NULL;
            }
            found = n;
        }
        if (found) {
            return found;
        }
    }
    return NULL;
}

/* --- Our names ------------------------------------------------------------------------------------------------- */

static char *short_label(const struct node *node)
{
    const char *base = base_name(node->filename);
    size_t len = stem_length(base), tail_len;
    const char *tail = tail_of(base, len, &tail_len);

    if (tail && tail_len == 1 && isalpha((unsigned char)*tail)) {
        return mem_strndup(tail, 1);
    }
    return mem_strndup(base, len);
}

struct labelled {
    const char *label;
    size_t index;
};

static int by_label(const void *a, const void *b)
{
    const struct labelled *x = a, *y = b;

    return strcmp(x->label, y->label);
}

/* Mark the labels that occur more than once.  Sorted, as a chain may be 1,000 deep. */
static bool find_doubles(char **labels, size_t n, bool *doubled)
{
    AUTOFREE struct labelled *sorted = mem_calloc(n, sizeof(*sorted));
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        sorted[i] = (struct labelled){ labels[i], i };
        doubled[i] = false;
    }
    qsort(sorted, n, sizeof(*sorted), by_label);
    for (size_t i = 0; i + 1 < n; i++) {
        if (!strcmp(sorted[i].label, sorted[i + 1].label)) {
            doubled[sorted[i].index] = doubled[sorted[i + 1].index] = any = true;
        }
    }
    return any;
}

/* Ever longer names until each is the only one: base name, path, node-name (which is unique). */
static char *longer_label(const struct node *node, int round)
{
    const char *path = node->filename;

    return mem_strdup(round == 0 ? base_name(path) : round == 1 ? path : node->name);
}

char **chain_labels(const struct node *top, size_t *count)
{
    char **labels = NULL;
    size_t n = 0;

    for (const struct node *node = top; node; node = node->backing) {
        labels = mem_reallocarray(labels, n + 1, sizeof(*labels));
        labels[n++] = short_label(node);
    }
    AUTOFREE bool *doubled = mem_calloc(n, sizeof(*doubled));

    for (int round = 0; round < 3 && find_doubles(labels, n, doubled); round++) {
        const struct node *node = top;

        for (size_t i = 0; i < n; i++, node = node->backing) {
            if (doubled[i]) {
                free(labels[i]);
                labels[i] = longer_label(node, round);
            }
        }
    }
    *count = n;
    return labels;
}

void chain_labels_free(char **labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(labels[i]);
    }
    free(labels);
}

char *chain_candidates(const struct node *top)
{
    size_t count, len;
    char **labels = chain_labels(top, &count);
    char *text = NULL;
    FILE *out = open_memstream(&text, &len);
    size_t i = 1;

    for (const struct node *n = top->backing; n && i <= HINT_IMAGES; n = n->backing, i++) {
        fprintf(out, "%s%s", i > 1 ? ", " : "", labels[i]);
        if (strcmp(n->filename, labels[i]) != 0) {
            fprintf(out, " (%s)", n->filename);
        }
    }
    if (count - 1 > HINT_IMAGES) {
        fprintf(out, " and %zu more", count - 1 - HINT_IMAGES);
    }
    fclose(out);
    chain_labels_free(labels, count);
    if (count < 2) {
        free(text);
        return NULL;
    }
    return text;
}
