/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees from the command line: see words.h.
 */
#include "monitor/words.h"

#include <string.h>

#include "core/keyval.h"
#include "monitor/qmp-text.h"

static json_t *tree_from_json(const char *text, struct error *err)
{
    struct qmp_parser *p = qmp_parser_new();
    size_t len = strlen(text);
    json_t *value = NULL;
    bool whole = qmp_parser_next(p, &text, &len, &value, err);

    qmp_parser_free(p);
    if (!whole) {
        error_set(err, "JSON parse error, premature EOI");
    } else if (value && text[strspn(text, " \t\r\n")]) {
        error_set(err, "Expecting at most one JSON value");
        json_decref(value); /* the parser takes no deep trees */
        value = NULL;
    }
    return value;
}

json_t *words_tree(const char *text, const char *implied, bool *from_words, struct error *err)
{
    *from_words = text[0] != '{';
    return *from_words ? keyval_tree(text, implied, err) : tree_from_json(text, err);
}
