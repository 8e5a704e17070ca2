/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees from the command line: see words.h.
 */
#include "monitor/words.h"

#include "core/json-parse.h"
#include "core/keyval.h"

json_t *words_tree(const char *text, const char *implied, bool *from_words, struct error *err)
{
    *from_words = text[0] != '{';
    return *from_words ? keyval_tree(text, implied, err) : json_parse_text(text, err);
}
